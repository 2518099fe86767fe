/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Later fragments of translated datagrams. They have no ports; what became of the first one is
 * remembered by what reassembly goes by, and they follow it. Only needed where addresses change:
 * a fragment whose ports alone would change is right as it is.
 *
 * Where a datagram comes in, a later fragment may come before the first one. It is copied away and
 * dropped, and when the first one comes, sent into the interface again, in a clone of the first
 * one's skb; so every order works (RFC 4787, REQ-14). Where packets leave, the first one leads: the
 * host's own are sent in order, and others came in through here.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "flow.bpf.h"
#include "maps.bpf.h"
#include "nat.bpf.h"
#include "rule.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"

/* fragment_later()'s answers, besides reasons. */
#define FRAGMENT_TRANSLATED REASON_COUNT
#define FRAGMENT_FOR_LOCAL  (REASON_COUNT + 1) /* and it goes on through lo */

static __always_inline __u32 fragment_now(void)
{
	return FRAGMENT_SECONDS(bpf_ktime_get_ns());
}

static __always_inline void fragment_key_of(const struct packet *p, enum table_stage stage,
					    struct fragment_key *ret)
{
	__builtin_memcpy(ret->saddr, p->tuple.saddr, 16);
	__builtin_memcpy(ret->daddr, p->tuple.daddr, 16);
	ret->id = p->fragment;
	ret->kind = p->tuple.kind & FLOW_IPV6;
	ret->protocol = ret->kind ? 0 : p->protocol;
	ret->stage = stage;
	ret->pad = 0;
}

/* Is all of it there? What is cut nobody will put together. */
static __always_inline bool fragment_is_whole(struct __sk_buff *skb, const struct packet *p)
{
	return p->bytes <= skb->len - p->l3;
}

/* ---- held ones ---- */

static __always_inline bool fragment_same_key(const struct fragment_key *a,
					      const struct fragment_key *b)
{
	return a->id == b->id && table_same_addr(a->saddr, b->saddr) &&
	       table_same_addr(a->daddr, b->daddr) && a->protocol == b->protocol &&
	       a->kind == b->kind && a->stage == b->stage;
}

/* The same number, between 1 and HELD_BYTES in the verifier's eyes, of any age. */
static __always_inline __u32 fragment_bounded(__u32 length)
{
	length--;
	barrier_var(length);
	length &= HELD_BYTES - 1;
	barrier_var(length);
	return length + 1;
}
_Static_assert((HELD_BYTES & (HELD_BYTES - 1)) == 0, "fragment_bounded() masks by it");

/* Puts the bytes of a held fragment, or of the packet itself, in place of what the skb holds. */
static __always_inline int fragment_replace(struct __sk_buff *skb, const __u8 *data, __u32 length)
{
	if (bpf_skb_change_tail(skb, length, 0) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, 0, data, fragment_bounded(length),
				   BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

static __always_inline int fragment_save(struct __sk_buff *skb, __u8 *data)
{
	if (skb->len > HELD_BYTES)
		return -1;
	return bpf_skb_load_bytes(skb, 0, data, fragment_bounded(skb->len));
}

/* Sends one held fragment; returns 1 + the place of the next, 0 at the end. */
__noinline __u32 fragment_send(struct __sk_buff *skb, __u32 held)
{
	struct cpu_counters *counts = counters_get();
	__u32 place = held - 1, next = 0;
	struct held_fragment *h = bpf_map_lookup_elem(&held_fragments, &place);

	if (!counts || !h || !h->length ||
	    !fragment_same_key(&h->key, &scratch_of(counts)->fragment))
		return 0;
	next = h->next;
	if (fragment_now() - h->seen <= FRAGMENT_LIFETIME &&
	    fragment_replace(skb, h->data, h->length) == 0)
		bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	h->length = 0;
	return next;
}

/*
 * Sends what was held, from `held` on; the packet's own bytes are in place again afterwards. A
 * negative answer: they could not be put back.
 */
__noinline int fragment_release(struct __sk_buff *skb, __u32 held)
{
	__u32 zero = 0, length = skb->len;
	struct fragment_buffer *own = bpf_map_lookup_elem(&fragment_buffers, &zero);

	if (!own || fragment_save(skb, own->data) < 0)
		return 0;
	for (int i = 0; i < HELD_CHAIN && held; i++)
		held = fragment_send(skb, held);
	return fragment_replace(skb, own->data, length);
}

/* Keeps a fragment until the first one comes. */
static __always_inline __u32 fragment_hold(struct __sk_buff *skb, struct cpu_counters *counts,
					   const struct fragment *known)
{
	/* Processors begin apart, and go round. */
	__u32 place = (counts->held++ + bpf_get_smp_processor_id() * 61) % HELD_COUNT;
	struct held_fragment *h = bpf_map_lookup_elem(&held_fragments, &place);
	struct fragment v = {.state = FRAGMENT_HELD, .seen = fragment_now(), .held = place + 1};

	if (!h || fragment_save(skb, h->data) < 0)
		return REASON_FRAGMENT;
	h->key = scratch_of(counts)->fragment;
	h->next = known ? known->held : 0;
	h->seen = v.seen;
	h->length = skb->len;
	if (bpf_map_update_elem(&fragments, &scratch_of(counts)->fragment, &v, BPF_ANY) < 0)
		return REASON_FRAGMENT;
	return REASON_HELD;
}

/* ---- whose they are ---- */

/* What is noted of a flow's record: packets of the next table's programs may read it. */
static __always_inline __u32 fragment_note_of(__u32 record)
{
	return TABLE_RECORD(table_number + (record & RECORD_NEW ? 1 : 0), record);
}

/* The flow of a noted record, where it is now; NULL: its table has gone. */
static __always_inline struct flow *fragment_flow(const struct fragment *v)
{
	__u32 number = v->record >> 24, record = v->record & INDEX_RECORD;
	struct flow *f;

	if (table_migrating && number == ((table_number + 1) & 0xff))
		return table_record(record | RECORD_NEW);
	if (number != table_number)
		return NULL;
	f = table_record(record);
	return f && table_is_moved(f) ? table_record(f->created) : f;
}

/* ---- first ones ---- */

/*
 * Remembers what becomes of the current packet, a first fragment: it goes with a flow, or `record`
 * is 0. Sends what was held for it. A negative answer: the packet is spoilt.
 */
__noinline int fragment_note(struct __sk_buff *skb, __u32 stage, __u32 record, __u32 direction)
{
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(record);
	struct fragment v = {
		.record = fragment_note_of(record), .direction = direction, .seen = fragment_now()};
	struct fragment *known;
	__u32 held = 0;

	if (!counts || !f)
		return 0;
	if (record) {
		v.state = FRAGMENT_FOLLOW;
		v.seq = table_seq(f);
	}
	fragment_key_of(&scratch_of(counts)->packet, stage, &scratch_of(counts)->fragment);
	known = bpf_map_lookup_elem(&fragments, &scratch_of(counts)->fragment);
	if (known && known->state == FRAGMENT_HELD)
		held = known->held;
	bpf_map_update_elem(&fragments, &scratch_of(counts)->fragment, &v, BPF_ANY);
	return held ? fragment_release(skb, held) : 0;
}

/* ---- later ones ---- */

static __always_inline int fragment_follow(struct __sk_buff *skb, struct cpu_counters *counts,
					   const struct fragment *v, enum table_stage stage)
{
	struct tuple *to = &scratch_of(counts)->key;
	struct packet *p = &scratch_of(counts)->packet;
	struct flow *f = fragment_flow(v);
	__u32 direction = v->direction;
	bool local;

	if (!f || !fragment_is_whole(skb, p))
		return REASON_FRAGMENT;
	local = table_is_local(f);
	nat_become(f, direction, to);
	if (table_seq(f) != v->seq)
		return REASON_FRAGMENT;
	if (flow_counts_at(f, direction, stage))
		flow_count(direction == DIRECTION_ORIGINAL ? &f->original : &f->reply, p,
			   clock_ticks());
	if (nat_write(skb, nat_parts(f, direction, stage)) < 0)
		return REASON_REWRITE;
	return stage == STAGE_IN && local ? FRAGMENT_FOR_LOCAL : FRAGMENT_TRANSLATED;
}

/*
 * The current packet is a later fragment. Returns FRAGMENT_TRANSLATED, or the reason why not. A
 * global function, for the verifier's sake.
 */
__noinline int fragment_later(struct __sk_buff *skb, __u32 stage)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct fragment *v;

	if (!c || !counts)
		return REASON_FRAGMENT;
	fragment_key_of(&scratch_of(counts)->packet, stage, &scratch_of(counts)->fragment);
	v = bpf_map_lookup_elem(&fragments, &scratch_of(counts)->fragment);
	if (v && fragment_now() - v->seen > FRAGMENT_LIFETIME)
		v = NULL;
	if (v && v->state == FRAGMENT_LEAVE)
		return REASON_FRAGMENT;
	if (v && v->state == FRAGMENT_FOLLOW) {
		if (stage == STAGE_IN)
			return fragment_follow(skb, counts, v, STAGE_IN);
		return fragment_follow(skb, counts, v, STAGE_OUT);
	}
	if (stage == STAGE_OUT || !fragment_is_whole(skb, &scratch_of(counts)->packet))
		return REASON_FRAGMENT;
	return fragment_hold(skb, counts, v);
}
