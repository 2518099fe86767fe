/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow table: records of whole flows, and a hash index that finds them by the tuple of either
 * direction. Owns `flows` and `flow_index`, and the new ones that flows move to while flows-max is
 * changed (migrate.bpf.h); knows nothing of rules or of what a packet becomes.
 *
 * A packet looks different where it comes in and where it leaves, since destinations are translated
 * before routing and sources after it. Of a flow with the tuples
 *
 *   original  C:cp -> L:lp      reply  T:tp -> S:sp
 *
 * the packets that come in bear one of these; those that leave bear T:tp -> C:sp (a reply) or, with
 * FLOW_SNAT, C:sp -> T:tp, which is on its way to become S:sp -> T:tp. Without FLOW_SNAT S is C, so
 * that a reply looks the same at both places.
 *
 * Reading takes no lock: a slot is only a hint, the record's own tuples decide, and `seq` tells
 * when a record changed hands meanwhile. Writing: whoever sets FLOW_OWNED under the record's lock
 * owns the record; a bucket is written under its own lock, and `version` shows a writer whether
 * the bucket is still what it searched for duplicates. No two locks are ever held at once.
 *
 * The index holds the hash's low bits as bucket and high 8 bits as tag. The hash is NH (UMAC,
 * RFC 4418, 5.2) over the tuple with a secret key, then multiply-shift: for anyone without the key
 * two tuples collide with a probability near 2^-32, so nobody can choose the bucket.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "parse.bpf.h"
#include "stats.bpf.h"

enum table_direction {
	DIRECTION_ORIGINAL,
	DIRECTION_REPLY,
};

enum table_stage {
	STAGE_IN,  /* as packets come in */
	STAGE_OUT, /* as they leave */
};

/* What a flow is entered under; the last two only with FLOW_SNAT. */
enum table_entry {
	ENTRY_ORIGINAL,
	ENTRY_REPLY,
	ENTRY_ORIGINAL_OUT,
	ENTRY_REPLY_OUT,
};

/* What a lookup found: the record, as it was then. */
struct found {
	struct flow *flow;
	__u32 record;
	__u16 seq;
	__u16 direction; /* enum table_direction */
};

static __always_inline __u64 hash_pair(__u32 a, __u32 b, const __u32 *keys)
{
	return (__u64)(__u32)(a + keys[0]) * (__u32)(b + keys[1]);
}

static __always_inline __u32 table_hash(const struct datapath_config *c, const struct tuple *t)
{
	const __u32 *k = c->hash_keys;
	__u64 h = hash_pair(t->saddr[3], t->daddr[3], k) + hash_pair(t->ports, t->kind, k + 2);

	if (t->kind & FLOW_IPV6) {
		h += hash_pair(t->saddr[0], t->daddr[0], k + 4);
		h += hash_pair(t->saddr[1], t->daddr[1], k + 6);
		h += hash_pair(t->saddr[2], t->daddr[2], k + 8);
	}
	h ^= h >> 32;
	return (h * (((__u64)k[15] << 32 | k[14]) | 1)) >> 32;
}

/* How far the flows' way into a new table is. A constant in ordinary programs. */
static __always_inline __u32 table_phase(void)
{
	struct datapath_config *c;

	if (!table_migrating)
		return TABLE_STEADY;
	c = config_get();
	return c ? TABLE_PHASE(*(volatile __u32 *)&c->table) : TABLE_STEADY;
}

/* The mark of records in the table where new flows are made. */
static __always_inline __u32 table_current(void)
{
	return table_phase() == TABLE_STEADY ? 0 : RECORD_NEW;
}

static __always_inline struct flow *table_record(__u32 record)
{
	if (table_migrating && record & RECORD_NEW) {
		record &= ~RECORD_NEW;
		return bpf_map_lookup_elem(&flows_new, &record);
	}
	return bpf_map_lookup_elem(&flows, &record);
}

/* The bucket for a hash in the table of a record, or of those with the mark RECORD_NEW. */
static __always_inline struct index_bucket *table_bucket(__u32 hash, __u32 record)
{
	__u32 bucket = hash & index_mask;

	if (table_migrating && record & RECORD_NEW) {
		bucket = hash & index_mask_new;
		return bpf_map_lookup_elem(&flow_index_new, &bucket);
	}
	return bpf_map_lookup_elem(&flow_index, &bucket);
}

/* Records share a lock by window, buckets by number. */
static __always_inline struct lock_line *table_lock(__u32 number)
{
	__u32 key = number & (LOCK_COUNT - 1);

	return bpf_map_lookup_elem(&flow_locks, &key);
}

static __always_inline bool table_same_addr(const __be32 a[4], const __be32 b[4])
{
	return ((const __u64 *)a)[0] == ((const __u64 *)b)[0] &&
	       ((const __u64 *)a)[1] == ((const __u64 *)b)[1];
}

/* Both ports at once. */
static __always_inline __be32 table_ports(const struct flow_dir *d)
{
	return *(const __be32 *)&d->sport;
}

/* The same two ports, changed over. */
static __always_inline __be32 table_inverse_ports(__be32 ports)
{
	return ports << 16 | ports >> 16;
}

/* A direct flow that this host began: its first packet was seen as it left. */
static __always_inline bool table_is_own(const struct flow *f)
{
	return f->flags & FLOW_LOCAL && !f->rule;
}

/* A flow of a rule between a client of this host and another's server: goes through lo twice. */
static __always_inline bool table_is_local(const struct flow *f)
{
	return f->flags & FLOW_LOCAL && f->rule;
}

static __always_inline bool table_began_as(const struct flow *f, const struct tuple *t)
{
	return table_ports(&f->original) == t->ports &&
	       table_same_addr(f->original.saddr, t->saddr) &&
	       table_same_addr(f->original.daddr, t->daddr);
}

static __always_inline bool table_is_original(const struct flow *f, const struct tuple *t,
					      enum table_stage stage)
{
	if (stage == STAGE_IN)
		return table_began_as(f, t);
	if (table_is_own(f))
		return table_began_as(f, t);
	return f->flags & FLOW_SNAT && table_ports(&f->reply) == table_inverse_ports(t->ports) &&
	       table_same_addr(f->original.saddr, t->saddr) &&
	       table_same_addr(f->reply.saddr, t->daddr);
}

static __always_inline bool table_is_reply(const struct flow *f, const struct tuple *t,
					   enum table_stage stage)
{
	const __be32 *client = stage == STAGE_IN ? f->reply.daddr : f->original.saddr;

	return table_ports(&f->reply) == t->ports && table_same_addr(client, t->daddr) &&
	       table_same_addr(f->reply.saddr, t->saddr);
}

/* Which of its flows a record holds, owned or not. */
static __always_inline __u16 table_seq(const struct flow *f)
{
	return *(volatile const __u16 *)&f->seq & FLOW_SEQ;
}

static __always_inline bool table_is_owned(const struct flow *f)
{
	return *(volatile const __u16 *)&f->seq & FLOW_OWNED;
}

/* Has the flow gone to another table? Then `created` is its record there. */
static __always_inline bool table_is_moved(const struct flow *f)
{
	const __u16 moved = FLOW_OWNED | FLOW_MOVED;

	return table_migrating && (*(volatile const __u16 *)&f->seq & moved) == moved;
}

/* Looks in one table: in that of the records with the mark `which`, 0 or RECORD_NEW. */
static __always_inline bool table_find_in(__u32 which, const struct tuple *t, __u32 hash,
					  enum table_stage stage, struct found *ret)
{
	struct index_bucket *bucket = table_bucket(hash, which);

	if (!bucket)
		return false;
	for (int i = 0; i < INDEX_SLOTS; i++) {
		__u32 slot = *(volatile __u32 *)&bucket->slots[i];
		struct flow *f;

		if (!slot || slot >> INDEX_TAG_SHIFT != hash >> INDEX_TAG_SHIFT)
			continue;
		f = table_record((slot & INDEX_RECORD) | which);
		if (!f)
			continue;
		ret->seq = table_seq(f);
		if ((f->flags & FLOW_KIND) != t->kind || f->state == FLOW_FREE)
			continue;
		if (table_is_original(f, t, stage))
			ret->direction = DIRECTION_ORIGINAL;
		else if (table_is_reply(f, t, stage))
			ret->direction = DIRECTION_REPLY;
		else
			continue;
		ret->record = (slot & INDEX_RECORD) | which;
		ret->flow = f;
		return true;
	}
	return false;
}

/*
 * Finds the flow that a tuple belongs to, in either direction, expired or not. Of two tables the
 * old one first: flows move to the new one only, so that none is missed on its way.
 */
static __always_inline bool table_find(const struct tuple *t, __u32 hash, enum table_stage stage,
				       struct found *ret)
{
	__u32 phase = table_phase();

	if (phase != TABLE_MERGING && table_find_in(0, t, hash, stage, ret))
		return true;
	return phase != TABLE_STEADY && table_find_in(RECORD_NEW, t, hash, stage, ret);
}

/* The tuple that a flow is entered under. */
static __always_inline void table_key(const struct flow *f, __u32 entry, struct tuple *ret)
{
	const __be32 *saddr = f->original.saddr, *daddr = f->original.daddr;
	__be32 ports = table_ports(&f->original);

	if (entry == ENTRY_REPLY || entry == ENTRY_REPLY_OUT) {
		saddr = f->reply.saddr;
		daddr = entry == ENTRY_REPLY ? f->reply.daddr : f->original.saddr;
		ports = table_ports(&f->reply);
	} else if (entry == ENTRY_ORIGINAL_OUT) {
		daddr = f->reply.saddr;
		ports = table_inverse_ports(table_ports(&f->reply));
	}
	__builtin_memcpy(ret->saddr, saddr, 16);
	__builtin_memcpy(ret->daddr, daddr, 16);
	ret->ports = ports;
	ret->kind = f->flags & FLOW_KIND;
}

/*
 * Enters a record that the caller owns. Returns 0, TABLE_FULL, or the record that has the tuple
 * already. TABLE_TRIAL is not entered: the answer is the one that a record like it would get.
 *
 * This and the next are global functions: the verifier looks at them once, not once a call. Their
 * arguments are therefore numbers (kernels before 5.12 take nothing else).
 */
#define TABLE_FULL  0xffffffffU
#define TABLE_TRIAL 0U
#define TABLE_TRIES 4

/* The record that has a tuple of the scratch already, at a stage; 0: none. */
__noinline __u32 table_holder(__u32 stage)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct found found;
	struct tuple *t;
	bool hit;

	if (!c || !counts)
		return 0;
	t = &scratch_of(counts)->key;
	if (stage == STAGE_IN)
		hit = table_find(t, table_hash(c, t), STAGE_IN, &found);
	else
		hit = table_find(t, table_hash(c, t), STAGE_OUT, &found);
	return hit ? found.record : 0;
}

/*
 * A tuple must be the only one where packets bear it: where they come in, where they leave, or at
 * both, as a reply without FLOW_SNAT does.
 */
static __always_inline __u32 table_holder_of(const struct datapath_config *c, const struct flow *f,
					     __u32 entry)
{
	__u32 holder = 0;

	if (entry == ENTRY_ORIGINAL || entry == ENTRY_REPLY)
		holder = table_holder(STAGE_IN);
	if (!holder && (entry >= ENTRY_ORIGINAL_OUT ||
			(entry == ENTRY_REPLY && c->fragments && !(f->flags & FLOW_SNAT))))
		holder = table_holder(STAGE_OUT);
	return holder;
}

enum table_added {
	TABLE_AGAIN, /* it has changed since `version`: search it again */
	TABLE_ADDED,
	TABLE_NO_SLOT,
};

/* Writes a record into a bucket, of which the caller has seen that version. TABLE_TRIAL is not. */
static __always_inline enum table_added table_bucket_add(struct index_bucket *bucket,
							 struct lock_line *line, __u32 version,
							 __u32 hash, __u32 record)
{
	enum table_added done = TABLE_AGAIN;

	bpf_spin_lock(&line->lock);
	if (bucket->version == version) {
		done = TABLE_NO_SLOT;
		for (int s = 0; s < INDEX_SLOTS; s++) {
			if (bucket->slots[s])
				continue;
			done = TABLE_ADDED;
			if (record == TABLE_TRIAL)
				break;
			bucket->slots[s] = (hash & ~INDEX_RECORD) | (record & INDEX_RECORD);
			bucket->version++;
			break;
		}
	}
	bpf_spin_unlock(&line->lock);
	return done;
}

__noinline __u32 table_index_add(__u32 record, __u32 entry)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(record);
	struct index_bucket *bucket;
	struct lock_line *line;
	__u32 hash;

	if (!c || !counts || !f)
		return TABLE_FULL;
	table_key(f, entry, &scratch_of(counts)->key);
	hash = table_hash(c, &scratch_of(counts)->key);
	bucket = table_bucket(hash, record == TABLE_TRIAL ? table_current() : record);
	line = table_lock(hash);
	if (!bucket || !line)
		return TABLE_FULL;
	for (int i = 0; i < TABLE_TRIES; i++) {
		__u32 version = *(volatile __u32 *)&bucket->version, holder;
		int done;

		holder = table_holder_of(c, f, entry);
		if (holder) {
			/* Another slot of its own, of the same bucket and tag, finds this one too.
			 */
			if (holder == record ||
			    (record == TABLE_TRIAL && holder == scratch_of(counts)->gone))
				return 0;
			return holder;
		}
		done = table_bucket_add(bucket, line, version, hash, record);
		if (done != TABLE_AGAIN)
			return done == TABLE_ADDED ? 0 : TABLE_FULL;
	}
	return TABLE_FULL;
}

/* Takes an owned record out of the index, where it was entered or not. */
__noinline int table_index_remove(__u32 record, __u32 entry)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(record);
	struct index_bucket *bucket;
	struct lock_line *line;
	__u32 hash;

	if (!c || !counts || !f)
		return 0;
	table_key(f, entry, &scratch_of(counts)->key);
	hash = table_hash(c, &scratch_of(counts)->key);
	bucket = table_bucket(hash, record);
	line = table_lock(hash);
	if (!bucket || !line || record == TABLE_TRIAL)
		return 0;
	bpf_spin_lock(&line->lock);
	for (int s = 0; s < INDEX_SLOTS; s++) {
		if (bucket->slots[s] != ((hash & ~INDEX_RECORD) | (record & INDEX_RECORD)))
			continue;
		bucket->slots[s] = 0;
		bucket->version++;
		break;
	}
	bpf_spin_unlock(&line->lock);
	return 1;
}

#define TIMEOUTS_MASK 15
_Static_assert(TIMEOUTS_MASK >= FLOW_STATE_COUNT - 1 &&
		       sizeof(struct rule_setting) >= 4 * (TIMEOUTS_MASK + 1),
	       "table_timeout() masks by it");

/* The lifetime of a flow in a state below FLOW_STATE_COUNT: its rule's own, or that of all. */
static __always_inline __u32 table_timeout(const struct datapath_config *c, const struct flow *f,
					   __u32 state)
{
	__u32 timeout = c->timeouts[state], rule = f->rule;
	struct rule_setting *s;

	if (!c->rule_timeouts)
		return timeout;
	s = bpf_map_lookup_elem(&rule_settings, &rule);
	/* Kernels before 5.13 have forgotten behind the call how large it may be. */
	barrier_var(state);
	state &= TIMEOUTS_MASK;
	if (s && s->timeouts[state])
		return s->timeouts[state];
	return timeout;
}

/* Ticks are compared by difference, so that their wrap does no harm. */
static __always_inline bool table_expired(const struct datapath_config *c, const struct flow *f,
					  __u32 now)
{
	__u32 idle = now - f->original.seen, idle_reply = now - f->reply.seen;
	__u32 state = f->state;

	if ((__s32)(idle_reply - idle) < 0)
		idle = idle_reply;
	if (state >= FLOW_STATE_COUNT)
		return false;
	return (__s32)idle > 0 && idle > table_timeout(c, f, state);
}

/*
 * Expired for a tick at least. Who takes a record without a packet of its flow asks this: within
 * the same tick as its expiry a packet on another processor may have found the flow alive, and be
 * about to count.
 */
static __always_inline bool table_long_expired(const struct datapath_config *c,
					       const struct flow *f, __u32 now)
{
	return table_expired(c, f, now - 1);
}

/* Takes the record over if it is still what the caller saw; it is then FLOW_OWNED, and his. */
static __always_inline bool table_own(struct flow *f, __u32 record, __u16 seq)
{
	struct lock_line *line = table_lock(record / FLOW_WINDOW);
	bool mine = false;

	if (!line)
		return false;
	bpf_spin_lock(&line->lock);
	if (f->seq == seq) {
		f->seq = ((seq + 1) & FLOW_SEQ) | FLOW_OWNED;
		mine = true;
	}
	bpf_spin_unlock(&line->lock);
	return mine;
}

/* Ends the ownership: what the record holds now is for everybody. */
static __always_inline void table_disown(struct flow *f)
{
	barrier();
	*(volatile __u16 *)&f->seq = f->seq & ~FLOW_OWNED;
}

/* Gives an owned record back as free. The index must not know it any more. */
static __always_inline void table_release(struct flow *f)
{
	f->state = FLOW_FREE;
	f->flags = 0;
	table_disown(f);
}
