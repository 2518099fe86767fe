/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prototypes of flow table layouts, one SEC("tc") program for each operation of each candidate.
 * layout.c runs them with BPF_PROG_TEST_RUN and subtracts the base_* program that makes the same
 * tuples and does nothing with them. docs/BENCHMARKS.md tells what the candidates are.
 *
 * BPF_PROG_TEST_RUN repeats one packet, so a program makes up the tuple itself: flow number i,
 * with i from a counter (new, delete) or scattered over the live flows (hit, miss). The counter is
 * bumped by an atomic fetch: a full barrier, which keeps the cache misses of one iteration from
 * overlapping with those of the next, as they do not overlap between packets either.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>

#include "tests/bench/layout/layout.h"

#define barrier_data(p) asm volatile("" ::"r"(p) : "memory")
#define TC_NEXT		TC_ACT_UNSPEC
#define PACKET_BYTES	1000
#define SERVER_ADDRESS	0xc0000201 /* 192.0.2.1 */
#define PROTOCOL_TCP	6
#define PORT_WANTED	8080
#define PORT_TARGET	80
#define MAPPED_PREFIX	0xffff /* ::ffff:a.b.c.d; byte order is of no concern here */

struct layout_run run SEC(".data.run");

struct key4 {
	__u32 source, destination, ports, protocol;
};

struct key6 {
	__u32 word[LAYOUT_WORDS]; /* source, destination, ports, protocol */
};

/* ---- maps; layout.c sets max_entries ---- */

#define HASH_MAP(name, map_type, key_type, value_type, flags)                                      \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		__uint(max_entries, 1);                                                            \
		__uint(map_flags, flags);                                                          \
	} name SEC(".maps")

HASH_MAP(a_flows, BPF_MAP_TYPE_HASH, struct key4, struct layout_value, 0);
HASH_MAP(a6_flows, BPF_MAP_TYPE_HASH, struct key6, struct layout_value, 0);
HASH_MAP(an_flows, BPF_MAP_TYPE_HASH, struct key4, struct layout_value, BPF_F_NO_PREALLOC);
HASH_MAP(b_young, BPF_MAP_TYPE_LRU_HASH, struct key4, struct layout_value, 0);
HASH_MAP(b_assured, BPF_MAP_TYPE_HASH, struct key4, struct layout_value, 0);
HASH_MAP(c_index, BPF_MAP_TYPE_HASH, struct key4, __u32, 0);
HASH_MAP(c_records, BPF_MAP_TYPE_ARRAY, __u32, struct layout_record, BPF_F_MMAPABLE);
HASH_MAP(d_flows, BPF_MAP_TYPE_ARRAY, __u32, struct layout_record, BPF_F_MMAPABLE);
HASH_MAP(d_index, BPF_MAP_TYPE_ARRAY, __u32, struct layout_bucket, BPF_F_MMAPABLE);

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, __u32);
} c_free SEC(".maps");

struct lock {
	struct bpf_spin_lock lock;
	__u32 unused[15]; /* a cache line of its own */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LAYOUT_LOCKS);
	__type(key, __u32);
	__type(value, struct lock);
} d_locks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} d_hand SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

struct totals {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct totals);
} totals SEC(".maps");

/* ---- which flow, which direction, which tuple ---- */

struct choice {
	__u32 flow;
	__u32 direction;
};

/* murmur3's finalizer: a bijection, so a running counter visits everything in random order. */
static __always_inline __u32 scatter(__u32 x)
{
	x ^= x >> 16;
	x *= 0x85ebca6b;
	x ^= x >> 13;
	x *= 0xc2b2ae35;
	x ^= x >> 16;
	return x;
}

static __always_inline struct choice choose_random(void)
{
	__u32 x = scatter(__sync_fetch_and_add(&run.counter, 1));

	return (struct choice){
		.flow = run.offset + (__u32)(((__u64)x * run.span) >> 32),
		.direction = x & 1,
	};
}

static __always_inline struct choice choose_next(void)
{
	return (struct choice){.flow = __sync_fetch_and_add(&run.counter, 1)};
}

static __always_inline __u32 client_address(__u32 flow)
{
	return 0x0a000000 + (flow >> 6);
}

static __always_inline __u32 client_port(__u32 flow)
{
	return 32768 + (flow & 63);
}

/* Original: client -> server:8080. Reply: server:80 -> client. */
static __always_inline void make_key4(struct choice c, struct key4 *ret)
{
	__u32 client = client_address(c.flow), port = client_port(c.flow);

	ret->source = c.direction ? SERVER_ADDRESS : client;
	ret->destination = c.direction ? client : SERVER_ADDRESS;
	ret->ports = c.direction ? PORT_TARGET << 16 | port : port << 16 | PORT_WANTED;
	ret->protocol = PROTOCOL_TCP;
}

static __always_inline void make_key6(struct choice c, struct key6 *ret)
{
	__u32 client = client_address(c.flow), port = client_port(c.flow);
	__u32 server = SERVER_ADDRESS;

	ret->word[0] = 0x20010db8;
	ret->word[1] = c.direction;
	ret->word[2] = 0;
	ret->word[3] = c.direction ? server : client;
	ret->word[4] = 0x20010db8;
	ret->word[5] = !c.direction;
	ret->word[6] = 0;
	ret->word[7] = c.direction ? client : server;
	ret->word[8] = c.direction ? PORT_TARGET << 16 | port : port << 16 | PORT_WANTED;
	ret->word[9] = PROTOCOL_TCP;
}

static __always_inline void map_key4(const struct key4 *k, struct key6 *ret)
{
	ret->word[0] = 0;
	ret->word[1] = 0;
	ret->word[2] = MAPPED_PREFIX;
	ret->word[3] = k->source;
	ret->word[4] = 0;
	ret->word[5] = 0;
	ret->word[6] = MAPPED_PREFIX;
	ret->word[7] = k->destination;
	ret->word[8] = k->ports;
	ret->word[9] = k->protocol;
}

static __always_inline struct choice other_direction(struct choice c)
{
	c.direction = !c.direction;
	return c;
}

/* ---- what is subtracted ---- */

SEC("tc") int base_empty(struct __sk_buff *skb)
{
	return TC_NEXT;
}

SEC("tc") int base_random4(struct __sk_buff *skb)
{
	struct key4 k;

	make_key4(choose_random(), &k);
	barrier_data(&k);
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int base_random6(struct __sk_buff *skb)
{
	struct key6 k;

	make_key6(choose_random(), &k);
	barrier_data(&k);
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int base_pair4(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct key4 k, r;

	make_key4(c, &k);
	make_key4(other_direction(c), &r);
	barrier_data(&k);
	barrier_data(&r);
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int base_pair6(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct key6 k, r;

	make_key6(c, &k);
	make_key6(other_direction(c), &r);
	barrier_data(&k);
	barrier_data(&r);
	run.successes++;
	return TC_NEXT;
}

/* ---- A, A6, A': two entries a flow in a hash map ---- */

static __always_inline void count_value(struct layout_value *v)
{
	__sync_fetch_and_add(&v->packets, 1);
	__sync_fetch_and_add(&v->bytes, PACKET_BYTES);
}

static __always_inline void pair_of_values(const __u32 *words, __u32 n, struct layout_value *ret)
{
	__builtin_memset(ret, 0, sizeof(*ret));
	for (__u32 i = 0; i < n; i++)
		ret->tuple[i] = words[i];
	ret->state = run.assured;
	ret->rule = 1;
}

#define HASH_CANDIDATE(name, map, key_type, make_key)                                              \
	SEC("tc") int name##_hit(struct __sk_buff *skb)                                            \
	{                                                                                          \
		struct layout_value *v;                                                            \
		struct key_type k;                                                                 \
                                                                                                   \
		make_key(choose_random(), &k);                                                     \
		v = bpf_map_lookup_elem(&map, &k);                                                 \
		if (!v)                                                                            \
			return TC_NEXT;                                                            \
		count_value(v);                                                                    \
		run.successes++;                                                                   \
		return TC_NEXT;                                                                    \
	}                                                                                          \
                                                                                                   \
	SEC("tc") int name##_miss(struct __sk_buff *skb)                                           \
	{                                                                                          \
		struct key_type k;                                                                 \
                                                                                                   \
		make_key(choose_random(), &k);                                                     \
		if (!bpf_map_lookup_elem(&map, &k))                                                \
			run.successes++;                                                           \
		return TC_NEXT;                                                                    \
	}                                                                                          \
                                                                                                   \
	SEC("tc") int name##_new(struct __sk_buff *skb)                                            \
	{                                                                                          \
		struct choice c = choose_next();                                                   \
		struct layout_value v;                                                             \
		struct key_type k, r;                                                              \
                                                                                                   \
		make_key(c, &k);                                                                   \
		make_key(other_direction(c), &r);                                                  \
		if (bpf_map_lookup_elem(&map, &k))                                                 \
			return TC_NEXT;                                                            \
		pair_of_values((const __u32 *)&r, sizeof(v.tuple) < sizeof(r) ? 9 : 3, &v);        \
		if (bpf_map_update_elem(&map, &k, &v, BPF_NOEXIST))                                \
			return TC_NEXT;                                                            \
		pair_of_values((const __u32 *)&k, sizeof(v.tuple) < sizeof(k) ? 9 : 3, &v);        \
		if (!bpf_map_update_elem(&map, &r, &v, BPF_NOEXIST))                               \
			run.successes++;                                                           \
		return TC_NEXT;                                                                    \
	}                                                                                          \
                                                                                                   \
	SEC("tc") int name##_delete(struct __sk_buff *skb)                                         \
	{                                                                                          \
		struct choice c = choose_next();                                                   \
		struct key_type k, r;                                                              \
                                                                                                   \
		make_key(c, &k);                                                                   \
		make_key(other_direction(c), &r);                                                  \
		if (!bpf_map_delete_elem(&map, &k) && !bpf_map_delete_elem(&map, &r))              \
			run.successes++;                                                           \
		return TC_NEXT;                                                                    \
	}

HASH_CANDIDATE(a, a_flows, key4, make_key4)
HASH_CANDIDATE(a6, a6_flows, key6, make_key6)
HASH_CANDIDATE(an, an_flows, key4, make_key4)

/* ---- B: young flows in an LRU, assured ones in a plain hash ---- */

SEC("tc") int b_hit(struct __sk_buff *skb)
{
	struct layout_value *v;
	struct key4 k;

	make_key4(choose_random(), &k);
	v = bpf_map_lookup_elem(&b_assured, &k);
	if (!v)
		return TC_NEXT;
	count_value(v);
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int b_young_hit(struct __sk_buff *skb)
{
	struct layout_value *v;
	struct key4 k;

	make_key4(choose_random(), &k);
	if (bpf_map_lookup_elem(&b_assured, &k))
		return TC_NEXT;
	v = bpf_map_lookup_elem(&b_young, &k);
	if (!v)
		return TC_NEXT;
	count_value(v);
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int b_miss(struct __sk_buff *skb)
{
	struct key4 k;

	make_key4(choose_random(), &k);
	if (!bpf_map_lookup_elem(&b_assured, &k) && !bpf_map_lookup_elem(&b_young, &k))
		run.successes++;
	return TC_NEXT;
}

SEC("tc") int b_new(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct layout_value v;
	struct key4 k, r;

	make_key4(c, &k);
	make_key4(other_direction(c), &r);
	if (bpf_map_lookup_elem(&b_assured, &k) || bpf_map_lookup_elem(&b_young, &k))
		return TC_NEXT;
	pair_of_values((const __u32 *)&r, 3, &v);
	if (bpf_map_update_elem(&b_young, &k, &v, BPF_NOEXIST))
		return TC_NEXT;
	pair_of_values((const __u32 *)&k, 3, &v);
	if (!bpf_map_update_elem(&b_young, &r, &v, BPF_NOEXIST))
		run.successes++;
	return TC_NEXT;
}

static __always_inline int promote(const struct key4 *k)
{
	struct layout_value *v = bpf_map_lookup_elem(&b_young, k);

	if (!v || bpf_map_update_elem(&b_assured, k, v, BPF_NOEXIST))
		return -1;
	return bpf_map_delete_elem(&b_young, k);
}

/* The packet that makes a young flow assured: both entries move. */
SEC("tc") int b_promote(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct key4 k, r;

	make_key4(c, &k);
	make_key4(other_direction(c), &r);
	if (!promote(&k) && !promote(&r))
		run.successes++;
	return TC_NEXT;
}

SEC("tc") int b_delete(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct key4 k, r;

	make_key4(c, &k);
	make_key4(other_direction(c), &r);
	if (!bpf_map_delete_elem(&b_assured, &k) && !bpf_map_delete_elem(&b_assured, &r))
		run.successes++;
	return TC_NEXT;
}

SEC("tc") int b_young_delete(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct key4 k, r;

	make_key4(c, &k);
	make_key4(other_direction(c), &r);
	if (!bpf_map_delete_elem(&b_young, &k) && !bpf_map_delete_elem(&b_young, &r))
		run.successes++;
	return TC_NEXT;
}

/* ---- C: two hash entries a flow that name one record ---- */

SEC("tc") int c_hit(struct __sk_buff *skb)
{
	struct choice c = choose_random();
	struct layout_record *record;
	struct layout_half *half;
	struct key4 k;
	__u32 *id;

	make_key4(c, &k);
	id = bpf_map_lookup_elem(&c_index, &k);
	if (!id)
		return TC_NEXT;
	record = bpf_map_lookup_elem(&c_records, id);
	if (!record)
		return TC_NEXT;
	half = &record->half[c.direction & 1];
	__sync_fetch_and_add(&half->packets, 1);
	__sync_fetch_and_add(&half->bytes, PACKET_BYTES);
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int c_miss(struct __sk_buff *skb)
{
	struct key4 k;

	make_key4(choose_random(), &k);
	if (!bpf_map_lookup_elem(&c_index, &k))
		run.successes++;
	return TC_NEXT;
}

static __always_inline void fill_half(struct layout_half *h, const __u32 *words, __u32 n)
{
	for (__u32 i = 0; i < n; i++)
		h->tuple[i] = words[i];
	h->protocol = PROTOCOL_TCP;
	h->packets = 0;
	h->bytes = 0;
}

SEC("tc") int c_new(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct layout_record *record;
	struct key4 k, r;
	__u32 id;

	make_key4(c, &k);
	make_key4(other_direction(c), &r);
	if (bpf_map_lookup_elem(&c_index, &k))
		return TC_NEXT;
	if (bpf_map_pop_elem(&c_free, &id))
		return TC_NEXT;
	record = bpf_map_lookup_elem(&c_records, &id);
	if (!record)
		return TC_NEXT;
	fill_half(&record->half[0], (const __u32 *)&k, 3);
	fill_half(&record->half[1], (const __u32 *)&r, 3);
	record->half[0].state = LAYOUT_ASSURED;
	if (!bpf_map_update_elem(&c_index, &k, &id, BPF_NOEXIST) &&
	    !bpf_map_update_elem(&c_index, &r, &id, BPF_NOEXIST))
		run.successes++;
	return TC_NEXT;
}

SEC("tc") int c_delete(struct __sk_buff *skb)
{
	struct choice c = choose_next();
	struct layout_record *record;
	struct key4 k, r;
	__u32 *found, id;

	make_key4(c, &k);
	make_key4(other_direction(c), &r);
	found = bpf_map_lookup_elem(&c_index, &k);
	if (!found)
		return TC_NEXT;
	id = *found;
	record = bpf_map_lookup_elem(&c_records, &id);
	if (!record)
		return TC_NEXT;
	record->half[0].state = LAYOUT_FREE;
	if (!bpf_map_delete_elem(&c_index, &k) && !bpf_map_delete_elem(&c_index, &r) &&
	    !bpf_map_push_elem(&c_free, &id, 0))
		run.successes++;
	return TC_NEXT;
}

/* ---- D: own table of records, found through buckets of tagged record numbers ---- */

/* NH (as in UMAC) over the tuple, then a 64-bit finalizer: keyed, so floods cannot aim. */
static __always_inline __u64 hash_tuple(const struct key6 *k)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < LAYOUT_WORDS; i += 2)
		sum += (__u64)(__u32)(k->word[i] + run.hash_key[i]) *
		       (__u32)(k->word[i + 1] + run.hash_key[i + 1]);
	sum ^= sum >> 32;
	sum *= 0xd6e8feb86659fd93ULL;
	sum ^= sum >> 32;
	return sum;
}

/*
 * Both sides were written as 32-bit words; the stack copy in `k` is read as such too (a wider load
 * would wait for the narrow stores to retire), the record as 32-bit words of one cache line.
 */
static __always_inline bool half_holds(const struct layout_half *h, const struct key6 *k)
{
	__u32 difference = 0;

#pragma unroll
	for (int i = 0; i < LAYOUT_WORDS; i++)
		difference |= h->tuple[i] ^ k->word[i];
	return !difference;
}

struct found {
	struct layout_record *record;
	struct layout_half *half;
	__u32 id;
};

#define TAG(hash)     ((__u32)((hash) >> 32) & 0xff000000)
#define ID_MASK	      0x00ffffff
#define MARKER(h, id) (TAG(h) | (id))

static __always_inline bool table_find(const struct key6 *k, __u64 hash, __u32 direction,
				       struct found *ret)
{
	__u32 b = hash & run.bucket_mask, tag = TAG(hash);
	struct layout_bucket *bucket = bpf_map_lookup_elem(&d_index, &b);

	if (!bucket)
		return false;
#pragma unroll
	for (int i = 0; i < LAYOUT_SLOTS; i++) {
		__u32 id = *(volatile __u32 *)&bucket->slot[i] ^ tag;

		if (id - 1 >= ID_MASK)
			continue;
		ret->record = bpf_map_lookup_elem(&d_flows, &id);
		if (!ret->record)
			continue;
		ret->half = &ret->record->half[direction & 1];
		if (half_holds(ret->half, k)) {
			ret->id = id;
			return true;
		}
	}
	return false;
}

static __always_inline struct bpf_spin_lock *lock_of(__u32 number)
{
	__u32 i = number & (LAYOUT_LOCKS - 1);
	struct lock *l = bpf_map_lookup_elem(&d_locks, &i);

	return l ? &l->lock : NULL;
}

/* Swaps `from` for `to` in the bucket of `hash`: 0 for `from` inserts, 0 for `to` removes. */
static __noinline int bucket_swap(__u64 hash, __u32 from, __u32 to)
{
	__u32 b = hash & run.bucket_mask;
	struct layout_bucket *bucket = bpf_map_lookup_elem(&d_index, &b);
	struct bpf_spin_lock *lock = lock_of(b);
	int r = -1;

	if (!bucket || !lock)
		return -1;
	bpf_spin_lock(lock);
#pragma unroll
	for (int i = 0; i < LAYOUT_SLOTS; i++) {
		if (bucket->slot[i] == from) {
			bucket->slot[i] = to;
			r = 0;
			break;
		}
	}
	bpf_spin_unlock(lock);
	return r;
}

static __always_inline void half_key(const struct layout_half *h, struct key6 *ret)
{
#pragma unroll
	for (int i = 0; i < LAYOUT_WORDS; i++)
		ret->word[i] = h->tuple[i];
}

/* Takes a flow out of both buckets; its record stays with the caller. */
static __noinline int table_unlink(struct layout_record *record, __u32 id)
{
	struct key6 k;
	__u64 hash;
	int r;

	if (!record)
		return -1;
	half_key(&record->half[0], &k);
	hash = hash_tuple(&k);
	r = bucket_swap(hash, MARKER(hash, id), 0);
	half_key(&record->half[1], &k);
	hash = hash_tuple(&k);
	return r | bucket_swap(hash, MARKER(hash, id), 0);
}

/* Takes a record out of circulation if its state still is `from`. */
static __always_inline bool record_take(struct layout_record *record, __u32 id, __u32 from)
{
	struct bpf_spin_lock *lock = lock_of(id / LAYOUT_SLOTS);
	bool taken;

	if (!lock)
		return false;
	bpf_spin_lock(lock);
	taken = record->half[0].state == from;
	if (taken)
		record->half[0].state = LAYOUT_BUSY;
	bpf_spin_unlock(lock);
	return taken;
}

/*
 * The hand names a window of 16 records and the place in it to begin at. The first free record is
 * taken; in a full window the unassured one that was silent for longest gives way.
 */
static __always_inline struct layout_record *record_claim(__u32 *ret_id)
{
	struct layout_record *record, *victim = NULL;
	__u32 zero = 0, victim_id = 0, oldest = 0, window, start;
	__u32 *hand = bpf_map_lookup_elem(&d_hand, &zero);

	if (!hand)
		return NULL;
	window = (*hand)++;
	start = scatter(window);
	window *= LAYOUT_SLOTS;

	for (int i = 0; i < LAYOUT_SLOTS; i++) {
		__u32 id = (window + ((start + i) & (LAYOUT_SLOTS - 1))) & run.record_mask;

		record = bpf_map_lookup_elem(&d_flows, &id);
		if (!record || !id)
			continue;
		if (record->half[0].state == LAYOUT_FREE) {
			if (!record_take(record, id, LAYOUT_FREE))
				continue;
			*ret_id = id;
			return record;
		}
		if (record->half[0].state != LAYOUT_UNASSURED)
			continue;
		if (!victim || run.counter - record->half[0].seen > oldest) {
			oldest = run.counter - record->half[0].seen;
			victim = record;
			victim_id = id;
		}
	}
	if (!victim || !record_take(victim, victim_id, LAYOUT_UNASSURED) ||
	    table_unlink(victim, victim_id))
		return NULL;
	run.evictions++;
	*ret_id = victim_id;
	return victim;
}

static __always_inline int table_insert(const struct key6 *k, const struct key6 *r, __u64 hash,
					__u64 reply_hash)
{
	struct layout_record *record;
	__u32 id;

	record = record_claim(&id);
	if (!record)
		return -1;
	fill_half(&record->half[0], k->word, 9);
	fill_half(&record->half[1], r->word, 9);
	record->half[0].seen = run.counter;
	record->half[0].state = run.assured ? LAYOUT_ASSURED : LAYOUT_UNASSURED;
	if (!bucket_swap(hash, 0, MARKER(hash, id)) &&
	    !bucket_swap(reply_hash, 0, MARKER(reply_hash, id)))
		return 0;
	/* a bucket is full */
	table_unlink(record, id);
	record->half[0].state = LAYOUT_FREE;
	return -1;
}

static __always_inline void make_mapped(struct choice c, struct key6 *ret)
{
	struct key4 k;

	make_key4(c, &k);
	map_key4(&k, ret);
	barrier_data(ret); /* a tuple read from a packet has no constants to fold */
}

static __always_inline void make_plain(struct choice c, struct key6 *ret)
{
	make_key6(c, ret);
	barrier_data(ret);
}

#define OWN_CANDIDATE(name, make_key)                                                              \
	SEC("tc") int name##_hit(struct __sk_buff *skb)                                            \
	{                                                                                          \
		struct choice c = choose_random();                                                 \
		struct found found;                                                                \
		struct key6 k;                                                                     \
                                                                                                   \
		make_key(c, &k);                                                                   \
		if (!table_find(&k, hash_tuple(&k), c.direction, &found))                          \
			return TC_NEXT;                                                            \
		__sync_fetch_and_add(&found.half->packets, 1);                                     \
		__sync_fetch_and_add(&found.half->bytes, PACKET_BYTES);                            \
		run.successes++;                                                                   \
		return TC_NEXT;                                                                    \
	}                                                                                          \
                                                                                                   \
	SEC("tc") int name##_miss(struct __sk_buff *skb)                                           \
	{                                                                                          \
		struct choice c = choose_random();                                                 \
		struct found found;                                                                \
		struct key6 k;                                                                     \
                                                                                                   \
		make_key(c, &k);                                                                   \
		if (!table_find(&k, hash_tuple(&k), c.direction, &found))                          \
			run.successes++;                                                           \
		return TC_NEXT;                                                                    \
	}                                                                                          \
                                                                                                   \
	/* The reply tuple is looked up as well: another flow may own it. */                       \
	SEC("tc") int name##_new(struct __sk_buff *skb)                                            \
	{                                                                                          \
		struct choice c = choose_next();                                                   \
		__u64 hash, reply_hash;                                                            \
		struct found found;                                                                \
		struct key6 k, r;                                                                  \
                                                                                                   \
		make_key(c, &k);                                                                   \
		hash = hash_tuple(&k);                                                             \
		if (table_find(&k, hash, 0, &found))                                               \
			return TC_NEXT;                                                            \
		make_key(other_direction(c), &r);                                                  \
		reply_hash = hash_tuple(&r);                                                       \
		if (table_find(&r, reply_hash, 1, &found))                                         \
			return TC_NEXT;                                                            \
		if (!table_insert(&k, &r, hash, reply_hash))                                       \
			run.successes++;                                                           \
		return TC_NEXT;                                                                    \
	}                                                                                          \
                                                                                                   \
	SEC("tc") int name##_delete(struct __sk_buff *skb)                                         \
	{                                                                                          \
		struct choice c = choose_next();                                                   \
		struct found found;                                                                \
		struct key6 k;                                                                     \
                                                                                                   \
		make_key(c, &k);                                                                   \
		if (!table_find(&k, hash_tuple(&k), 0, &found))                                    \
			return TC_NEXT;                                                            \
		if (table_unlink(found.record, found.id))                                          \
			return TC_NEXT;                                                            \
		found.record->half[0].state = LAYOUT_FREE;                                         \
		run.successes++;                                                                   \
		return TC_NEXT;                                                                    \
	}

OWN_CANDIDATE(d, make_mapped)
OWN_CANDIDATE(d6, make_plain)

/* ---- parts that every candidate may need ---- */

SEC("tc") int part_hash(struct __sk_buff *skb)
{
	struct key6 k;
	__u64 hash;

	make_key6(choose_random(), &k);
	hash = hash_tuple(&k);
	barrier_data(hash);
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int part_ktime(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();

	barrier_data(now);
	return TC_NEXT;
}

SEC("tc") int part_ktime_coarse(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	barrier_data(now);
	return TC_NEXT;
}

SEC("tc") int part_jiffies(struct __sk_buff *skb)
{
	__u64 now = bpf_jiffies64();

	barrier_data(now);
	return TC_NEXT;
}

SEC("tc") int part_port(struct __sk_buff *skb)
{
	struct key4 k;
	__u32 port;
	__u64 *v;

	make_key4(choose_random(), &k);
	barrier_data(&k);
	port = k.source & 0xffff;
	v = bpf_map_lookup_elem(&ports, &port);
	if (!v || *v)
		return TC_NEXT;
	run.successes++;
	return TC_NEXT;
}

SEC("tc") int part_totals(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct totals *t = bpf_map_lookup_elem(&totals, &zero);

	if (!t)
		return TC_NEXT;
	t->packets++;
	t->bytes += skb->len;
	return TC_NEXT;
}

char _license[] SEC("license") = "GPL";
