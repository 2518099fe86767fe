/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a flow: out of the index, added up to its rule and target, told to whoever listens.
 * Only who owns its record does that.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "events.bpf.h"
#include "limit.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"

/* The counters of a flow's target; NULL: number 0 has none. */
static __always_inline struct rule_counters *flow_target_counters(const struct flow *f)
{
	__u32 number = FLOW_TARGET(f->origin), key = TARGET_KEY(f->rule, number);

	return number ? bpf_map_lookup_elem(&target_totals, &key) : NULL;
}

/*
 * Counts a flow that begins to its target, whose counters are made if need be. A function of its
 * own for what it has on the stack: the calls below flow_begin() need all that may be had.
 */
__noinline int flow_begins_at_target(__u32 record)
{
	struct rule_counters *counts, fresh = {};
	struct flow *f = table_record(record);
	__u32 key;

	if (!f || !FLOW_TARGET(f->origin))
		return 0;
	key = TARGET_KEY(f->rule, FLOW_TARGET(f->origin));
	counts = bpf_map_lookup_elem(&target_totals, &key);
	if (!counts) {
		bpf_map_update_elem(&target_totals, &key, &fresh, BPF_NOEXIST);
		counts = bpf_map_lookup_elem(&target_totals, &key);
	}
	if (counts)
		atomic_add(&counts->created, 1);
	return 0;
}

static __always_inline void flow_add_up(struct rule_counters *counts, const struct flow *f,
					__u32 ended)
{
	atomic_add(&counts->packets, f->original.packets + f->reply.packets);
	atomic_add(&counts->bytes, f->original.bytes + f->reply.bytes);
	atomic_add(&counts->destroyed, ended);
}

/* What a flow has counted becomes its rule's and its target's; so does the flow, if it `ended`. */
static __always_inline void flow_account_counters(const struct flow *f, __u32 ended)
{
	__u32 rule = f->rule;
	struct rule_counters *counts = bpf_map_lookup_elem(&rule_totals, &rule);

	if (counts)
		flow_add_up(counts, f, ended);
	counts = flow_target_counters(f);
	if (counts)
		flow_add_up(counts, f, ended);
}

/* Counts a flow that is no more to its rule, and tells whoever listens. Its record is owned. */
static __always_inline void flow_account_end(struct datapath_config *c, __u32 record,
					     struct flow *f, __u32 reason)
{
	struct flow_totals *sums = totals_get();

	flow_account_counters(f, 1);
	if (f->origin & FLOW_SOURCE_COUNTED)
		limit_leave(record);
	if (!f->rule)
		atomic_add(&c->direct, -1);
	if (sums) {
		atomic_add(&sums->destroyed, 1);
		if (reason == DESTROY_EXPIRED)
			atomic_add(&sums->expired, 1);
		else if (reason == DESTROY_EVICTED)
			atomic_add(&sums->evicted, 1);
	}
	event_flow(c, f, EVENT_DESTROY, reason);
}

/* Takes an owned record's flow out of the index, under whatever it was entered so far. */
static __always_inline void flow_leave_index(__u32 record, const struct flow *f)
{
	table_index_remove(record, ENTRY_ORIGINAL);
	table_index_remove(record, ENTRY_REPLY);
	if (f->flags & FLOW_SNAT) {
		table_index_remove(record, ENTRY_ORIGINAL_OUT);
		table_index_remove(record, ENTRY_REPLY_OUT);
	}
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
	flow_leave_index(record, f);
	flow_account_end(c, record, f, reason);
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
