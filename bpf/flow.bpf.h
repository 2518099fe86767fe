/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a flow: made by the first packet that a rule takes, moved on by every packet,
 * unmade when it has expired, when its room is needed, or when the rules say otherwise.
 *
 * Room is looked for in windows of records: a free or an expired one is taken at once, else, when
 * flows-max is reached, the oldest finished connection, else the oldest unassured flow. So a flood
 * of half open connections never pushes out a living one, and a table full of the dead needs no
 * daemon.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "events.bpf.h"
#include "rule.bpf.h"
#include "table.bpf.h"
#include "tcp.bpf.h"

#define FLOW_WINDOWS_TRIED   4
#define FLOW_PORT_TRIES	     32
#define FLOW_REFUSED(reason) (0x80000000U | (reason)) /* in place of a record */
#define FLOW_PORT_FIRST	     1024		      /* RFC 6056, 3.2: ephemeral ports */

/* Counts a flow that is no more to its rule, and tells whoever listens. Its record is owned. */
static __always_inline void flow_account_end(const struct datapath_config *c, struct flow *f,
					     __u32 reason)
{
	struct flow_totals *sums = totals_get();
	__u32 rule = f->rule;
	struct rule_counters *r = bpf_map_lookup_elem(&rule_totals, &rule);

	if (r) {
		atomic_add(&r->packets, f->original.packets + f->reply.packets);
		atomic_add(&r->bytes, f->original.bytes + f->reply.bytes);
		atomic_add(&r->destroyed, 1);
	}
	if (sums) {
		atomic_add(&sums->destroyed, 1);
		if (reason == DESTROY_EXPIRED)
			atomic_add(&sums->expired, 1);
		else if (reason == DESTROY_EVICTED)
			atomic_add(&sums->evicted, 1);
	}
	event_flow(c, f, EVENT_DESTROY, reason);
}

/*
 * Ends the flow in a record if it is still the one that the caller saw: `seq` tells. With
 * `only_expired` it must also still be expired then: a packet may have revived it meanwhile.
 * Returns 1 with the record owned by the caller and out of the index, else 0.
 *
 * A global function: the verifier looks at it once, not once a call.
 */
__noinline int flow_end(__u32 record, __u32 seq, __u32 reason)
{
	struct datapath_config *c = config_get();
	struct flow *f = table_record(record);

	if (!c || !f)
		return 0;
	if (reason == DESTROY_EXPIRED && !table_expired(c, f, clock_ticks()))
		return 0;
	if (!table_own(f, record, seq))
		return 0;
	if (f->state == FLOW_FREE)
		return 1;
	/* Out of the index first, so that no packet finds it while it is counted. */
	table_index_remove(record, DIRECTION_ORIGINAL);
	table_index_remove(record, DIRECTION_REPLY);
	flow_account_end(c, f, reason);
	f->state = FLOW_FREE;
	return 1;
}

/* Ends a flow and frees its record. */
static __always_inline int flow_destroy(__u32 record, struct flow *f, __u32 seq, __u32 reason)
{
	if (!flow_end(record, seq, reason))
		return 0;
	table_release(f);
	return 1;
}

/*
 * How much a record offers itself to a new flow: above none by the age of an unassured flow, above
 * those a connection that is over, assured or not (nf_conntrack drops those early as well).
 */
#define ROOM_NONE     0U
#define ROOM_AGE      0x3fffffffU
#define ROOM_FINISHED 0x80000000U
#define ROOM_EXPIRED  0xfffffffeU
#define ROOM_FREE     0xffffffffU

__noinline __u32 flow_room(__u32 record, __u32 now)
{
	struct datapath_config *c = config_get();
	struct flow *f = table_record(record);
	__u32 age;

	if (!record || !c || !f || table_is_owned(f))
		return ROOM_NONE;
	if (f->state == FLOW_FREE)
		return ROOM_FREE;
	if (table_expired(c, f, now))
		return ROOM_EXPIRED;
	age = (now - f->created) & ROOM_AGE;
	/* Over, and kept only for what is still on its way: else a busy server's past fills it. */
	if (f->state == FLOW_TIME_WAIT || f->state == FLOW_CLOSE)
		return ROOM_FINISHED + age;
	return f->flags & FLOW_ASSURED ? ROOM_NONE : age + 1;
}

/* The record of a window that offers itself most, or 0. Of a `full` table no free one. */
__noinline __u32 flow_search_window(__u32 window, __u32 now, __u32 full)
{
	__u32 most = ROOM_NONE, best = 0;

	for (int i = 0; i < FLOW_WINDOW; i++) {
		__u32 record = window * FLOW_WINDOW + i;
		__u32 room = flow_room(record, now);

		if (room <= most || (full && room == ROOM_FREE))
			continue;
		most = room;
		best = record;
		if (room >= ROOM_EXPIRED)
			break;
	}
	return best;
}

/* Makes a record of the window the caller's own, ending what is in it. */
static __always_inline bool flow_take(__u32 record, __u32 now)
{
	struct flow *f = table_record(record);
	__u32 seq, room;

	if (!f)
		return false;
	/* What was seen in the search may have changed; from `seq` on, flow_end() would notice. */
	seq = table_seq(f);
	room = flow_room(record, now);
	if (room == ROOM_NONE)
		return false;
	return flow_end(record, seq, room == ROOM_EXPIRED ? DESTROY_EXPIRED : DESTROY_EVICTED);
}

/*
 * Where to look next: a golden-ratio sequence visits all windows evenly whatever is in them, where
 * a hand that went round would meet all the flows of a busy hour in one stretch. Processors begin
 * apart.
 */
static __always_inline __u32 flow_next_window(struct cpu_counters *counts)
{
	__u32 windows = flow_records / FLOW_WINDOW;
	__u32 at = counts->hand + bpf_get_smp_processor_id() * 0x85ebca6bU;

	counts->hand += 0x9e3779b1U; /* 2^32 / golden ratio */
	return ((__u64)at * windows) >> 32;
}

/*
 * An owned, free record, or 0. Below flows-max a live flow makes room only when several windows
 * held neither a free nor an expired record, which a table with a quarter to spare hardly knows.
 * A global function, for the verifier's sake.
 */
__noinline __u32 flow_take_record(void)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct flow_totals *sums = totals_get();
	__u32 now = clock_ticks();
	bool full;

	if (!c || !counts || !sums)
		return 0;
	full = sums->created - sums->destroyed >= c->flows_max;
	for (int i = 1; i <= FLOW_WINDOWS_TRIED; i++) {
		__u32 record = flow_search_window(flow_next_window(counts), now, full);

		if (!record)
			continue;
		if (!full && i < FLOW_WINDOWS_TRIED && flow_room(record, now) < ROOM_EXPIRED)
			continue;
		if (flow_take(record, now))
			return record;
	}
	return 0;
}

static __always_inline void flow_fill(struct flow *f, const struct packet *p,
				      const struct action *a, const struct datapath_config *c,
				      __u32 ifindex, __u32 now)
{
	__builtin_memcpy(f->original.saddr, p->tuple.saddr, 16);
	__builtin_memcpy(f->original.daddr, p->tuple.daddr, 16);
	f->original.sport = p->tuple.sport;
	f->original.dport = p->tuple.dport;
	f->original.seen = now;
	f->original.packets = 0;
	f->original.bytes = 0;
	__builtin_memcpy(f->reply.saddr, p->tuple.daddr, 16);
	__builtin_memcpy(f->reply.daddr, p->tuple.saddr, 16);
	f->reply.sport = rule_target_port(a, p->tuple.dport);
	f->reply.dport = p->tuple.sport;
	f->reply.seen = now;
	f->reply.packets = 0;
	f->reply.bytes = 0;
	f->flags = p->tuple.kind;
	f->rule = a->rule;
	f->generation = c->generation;
	f->origin = FLOW_ORIGIN(ifindex, 0);
	f->created = now;
	f->state = p->tuple.kind & FLOW_UDP ? FLOW_UDP_UNREPLIED : tcp_first_state(p->tcp_flags);
}

/*
 * Enters the reply into the index, with the client's own port where no other flow's replies come
 * to it, else with one that is free (RFC 4787, 4.2.1; nf_nat does the same). Returns 0, TABLE_FULL,
 * or the record that was last in the way. No function of its own: the stacks of the programs and
 * all functions down to table_index_add() may together not exceed 512 bytes.
 */
static __always_inline __u32 flow_enter_reply(__u32 record)
{
	struct flow *f = table_record(record);
	__u32 r = TABLE_FULL;

	if (!f)
		return r;
	for (int i = 0; i < FLOW_PORT_TRIES; i++) {
		r = table_index_add(record, DIRECTION_REPLY);
		if (r == 0 || r == TABLE_FULL)
			break;
		f->reply.dport = bpf_htons(FLOW_PORT_FIRST +
					   bpf_get_prandom_u32() % (65536 - FLOW_PORT_FIRST));
	}
	return r;
}

/* Makes the flow of a packet in a record of its own. Returns it, or a FLOW_REFUSED() reason. */
static __always_inline __u32 flow_create(const struct datapath_config *c, const struct packet *p,
					 const struct action *a, __u32 ifindex)
{
	__u32 record = flow_take_record(), rule = a->rule, r;
	struct flow_totals *sums = totals_get();
	struct rule_counters *counts;
	struct flow *f;

	f = record ? table_record(record) : NULL;
	if (!f || !sums)
		return FLOW_REFUSED(REASON_TABLE_FULL);
	flow_fill(f, p, a, c, ifindex, clock_ticks());
	r = flow_enter_reply(record);
	if (r) {
		table_release(f);
		return FLOW_REFUSED(r == TABLE_FULL ? REASON_INDEX_FULL : REASON_PORTS_FULL);
	}
	r = table_index_add(record, DIRECTION_ORIGINAL);
	if (r) {
		table_index_remove(record, DIRECTION_REPLY);
		table_release(f);
		return r == TABLE_FULL ? FLOW_REFUSED(REASON_INDEX_FULL) : r;
	}
	counts = bpf_map_lookup_elem(&rule_totals, &rule);
	if (counts)
		atomic_add(&counts->created, 1);
	atomic_add(&sums->created, 1);
	event_flow(c, f, EVENT_NEW, 0);
	table_disown(f);
	return record;
}

/*
 * The current packet has no flow and its port has rules: finds the rule and makes the flow. The
 * reply's direction is entered first: when the original one appears, the flow is complete, and of
 * two processors that make the same flow at once the second finds the first's and uses it.
 * Returns the record, or FLOW_REFUSED() with the reason not to translate.
 */
__noinline __u32 flow_begin(__u32 ifindex, __u32 port)
{
	struct datapath_config *c = config_get();
	struct flow_totals *sums = totals_get();
	struct packet *p = rule_current();
	struct action *a;
	__u32 r;

	if (!c || !p || !sums)
		return FLOW_REFUSED(REASON_TABLE_FULL);
	a = rule_action(rule_find(ifindex, port));
	if (!a || !a->rule)
		return FLOW_REFUSED(REASON_NO_MATCH);
	r = flow_create(c, p, a, ifindex);
	if (r & FLOW_REFUSED(0))
		atomic_add(&sums->insert_failed, 1);
	return r;
}

/*
 * Is the flow of the current packet still what the rules say? Asked once a change of rules: TCP
 * keeps its translation whatever the rules say now; UDP follows them.
 */
__noinline int flow_still_right(__u32 record, __u32 ifindex)
{
	struct datapath_config *c = config_get();
	struct flow *f = table_record(record);
	struct packet *p = rule_current();
	struct action *a;

	if (!c || !f || !p)
		return 1;
	if (f->flags & FLOW_UDP) {
		a = rule_action(rule_find(ifindex, rule_port(c, true, p->tuple.dport)));
		if (!a || !a->rule || a->rule != f->rule ||
		    rule_target_port(a, p->tuple.dport) != f->reply.sport)
			return 0;
	}
	f->generation = c->generation;
	return 1;
}

/* Moves the state on. Writes only what changes: an established flow's packets write nothing here.
 */
static __always_inline void flow_update_state(struct flow *f, const struct packet *p,
					      __u32 direction)
{
	bool reply = direction == DIRECTION_REPLY;
	__u8 flags = f->flags;
	__u32 state = f->state;

	if (reply)
		flags |= FLOW_REPLIED;
	if (flags & FLOW_UDP) {
		if (!reply && flags & FLOW_REPLIED) {
			state = FLOW_UDP_REPLIED;
			flags |= FLOW_ASSURED;
		}
	} else if (state != FLOW_ESTABLISHED || p->tcp_flags & (TCP_FIN | TCP_RST)) {
		if (p->tcp_flags & TCP_FIN)
			flags |= reply ? FLOW_FIN_REPLY : FLOW_FIN_ORIG;
		state = tcp_next_state(state, flags, reply, p->tcp_flags);
	}
	if (state == FLOW_ESTABLISHED && flags & FLOW_REPLIED)
		flags |= FLOW_ASSURED;
	if (state != f->state)
		f->state = state;
	/* Only ever adds bits: another processor may be adding others. */
	if (flags & ~f->flags)
		f->flags |= flags;
}

static __always_inline void flow_count(struct flow_dir *d, const struct packet *p, __u32 now)
{
	if (d->seen != now)
		d->seen = now;
	atomic_add(&d->packets, p->count);
	atomic_add(&d->bytes, p->bytes);
}
