/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Room for a new flow, looked for in windows of records: a free or an expired one is taken at once,
 * else, when flows-max is reached, the oldest finished connection, else the oldest unassured flow.
 * So a flood of half open connections never pushes out a living one, and a table full of the dead
 * needs no daemon.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "flow-end.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"

#define FLOW_WINDOWS_TRIED 4

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

	if (!(record & INDEX_RECORD) || !c || !f || table_is_owned(f))
		return ROOM_NONE;
	if (f->state == FLOW_FREE)
		return ROOM_FREE;
	if (table_long_expired(c, f, now))
		return ROOM_EXPIRED;
	age = (now - f->created) & ROOM_AGE;
	/* Over, and kept only for what is still on its way: else a busy server's past fills it. */
	if (f->state == FLOW_TIME_WAIT || f->state == FLOW_CLOSE)
		return ROOM_FINISHED + age;
	return f->flags & FLOW_ASSURED ? ROOM_NONE : age + 1;
}

/*
 * Where to look next: a golden-ratio sequence visits all windows evenly whatever is in them, where
 * a hand that went round would meet all the flows of a busy hour in one stretch. Processors begin
 * apart. `which` is the table: 0 or RECORD_NEW.
 */
static __always_inline __u32 flow_next_window(struct cpu_counters *counts, __u32 which)
{
	__u32 windows = (which ? flow_records_new : flow_records) / FLOW_WINDOW;
	__u32 at = counts->hand + bpf_get_smp_processor_id() * 0x85ebca6bU;

	counts->hand += 0x9e3779b1U; /* 2^32 / golden ratio */
	return ((__u64)at * windows) >> 32;
}

/* The record of the next window that offers itself most, or 0. Of a `full` table no free one. */
__noinline __u32 flow_search_window(__u32 which, __u32 now, __u32 full)
{
	struct cpu_counters *counts = counters_get();
	__u32 most = ROOM_NONE, best = 0, first;

	if (!counts)
		return 0;
	first = flow_next_window(counts, which) * FLOW_WINDOW | which;
	for (int i = 0; i < FLOW_WINDOW; i++) {
		__u32 record = first + i;
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

/* Makes a record the caller's own, ending what is in it, if its room is `least` at least. */
static __always_inline bool flow_take(__u32 record, __u32 now, __u32 least)
{
	struct flow *f = table_record(record);
	__u32 seq, room;

	if (!f)
		return false;
	/* What was seen in the search may have changed; from `seq` on, flow_end() would notice. */
	seq = table_seq(f);
	room = flow_room(record, now);
	if (room < least)
		return false;
	return flow_end(record, seq, room == ROOM_EXPIRED ? DESTROY_EXPIRED : DESTROY_EVICTED);
}

/*
 * An owned, free record, or 0. Below flows-max a live flow makes room only when several windows
 * held neither a free nor an expired record, which a table with a quarter to spare hardly knows.
 * A global function, for the verifier's sake.
 */
__noinline __u32 flow_take_record(void)
{
	struct datapath_config *c = config_get();
	struct flow_totals *sums = totals_get();
	__u32 now = clock_ticks();
	bool full;

	if (!c || !sums)
		return 0;
	full = sums->created - sums->destroyed >= c->flows_max;
	for (int i = 1; i <= FLOW_WINDOWS_TRIED; i++) {
		__u32 record = flow_search_window(table_current(), now, full);

		if (!record)
			continue;
		if (!full && i < FLOW_WINDOWS_TRIED && flow_room(record, now) < ROOM_EXPIRED)
			continue;
		if (flow_take(record, now, ROOM_NONE + 1))
			return record;
	}
	return 0;
}

/*
 * Ends the flow in a record if it is expired. Returns whether it did. A global function, so that
 * the loop below is one path to the verifier.
 */
__noinline __u32 flow_expire(__u32 record, __u32 now)
{
	struct datapath_config *c = config_get();
	struct flow *f = record & INDEX_RECORD ? table_record(record) : NULL;

	if (!c || !f || f->state == FLOW_FREE || !table_long_expired(c, f, now))
		return 0;
	return flow_destroy(record, f, table_seq(f), DESTROY_EXPIRED);
}

/*
 * A limit is reached: expired flows count as long as nobody has noticed. The daemon would within a
 * second; without one it is up to who is turned away. A part of the table a tick, so that a flood
 * pays for it once.
 */
#define FLOW_WINDOWS_RECLAIMED 64

__noinline __u32 flow_reclaim(void)
{
	struct cpu_counters *counts = counters_get();
	__u32 now = clock_ticks(), which = table_current(), ended = 0;

	if (!counts || counts->reclaimed == now)
		return 0;
	counts->reclaimed = now;
	for (int w = 0; w < FLOW_WINDOWS_RECLAIMED; w++) {
		__u32 first = flow_next_window(counts, which) * FLOW_WINDOW | which;

		for (int i = 0; i < FLOW_WINDOW; i++)
			ended += flow_expire(first + i, now);
	}
	return ended;
}
