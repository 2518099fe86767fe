/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a flow that was found still has a claim on the packet: its age, a new connection of the
 * same tuple, and what the rules say now.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "rule.bpf.h"
#include "source.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"
#include "target.bpf.h"
#include "tcp.bpf.h"

/* Masqueraded with an address that has gone: no answer can come to it (as nf_nat's MASQUERADE). */
static __always_inline bool flow_lost_source(const struct flow *f, const struct action *a)
{
	return f->flags & (FLOW_SNAT | FLOW_LOCAL) && a && a->rule == f->rule &&
	       !(a->flags & ACTION_SNAT) && !rule_is_local(f->reply.daddr);
}

/* Where a direction's packets are news of the flow: once, where they are first known. */
static __always_inline bool flow_counts_at(const struct flow *f, __u32 direction,
					   enum table_stage stage)
{
	if (direction == DIRECTION_ORIGINAL)
		return (stage == STAGE_IN) != table_is_own(f);
	return (stage == STAGE_IN) == !!(f->flags & (FLOW_SNAT | FLOW_LOCAL));
}

/* What the rules of now would make of a flow. */
enum flow_verdict {
	FLOW_RIGHT,	 /* the same */
	FLOW_OTHERWISE,	 /* something else, or nothing */
	FLOW_SOURCELESS, /* its source's address is not this host's any more */
};

/* Holds a flow against the rules, which ask for a packet of its original direction. */
static __always_inline enum flow_verdict flow_hold(const struct flow *f, __u32 ifindex)
{
	__u32 action = rule_find(ifindex);
	struct action *a = rule_action(action);

	if (flow_lost_source(f, a))
		return FLOW_SOURCELESS;
	if (!a || !a->rule)
		return f->rule ? FLOW_OTHERWISE : FLOW_RIGHT;
	if (a->rule != f->rule || !target_remains(action, a, f) || !source_remains(a, f))
		return FLOW_OTHERWISE;
	return FLOW_RIGHT;
}

/*
 * The same of the flow in a record, whichever direction the current packet is of. A global
 * function, for the verifier's sake.
 */
__noinline __u32 flow_hold_record(__u32 record, __u32 direction, __u32 ifindex)
{
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(record);
	struct tuple *t, *kept;
	__u32 verdict;

	if (!counts || !f)
		return FLOW_RIGHT;
	t = &scratch_of(counts)->packet.tuple;
	kept = &scratch_of(counts)->key;
	if (direction == DIRECTION_ORIGINAL)
		return flow_hold(f, ifindex);
	*kept = *t;
	__builtin_memcpy(t->saddr, f->original.saddr, 16);
	__builtin_memcpy(t->daddr, f->original.daddr, 16);
	t->ports = table_ports(&f->original);
	verdict = flow_hold(f, FLOW_IFINDEX(f->origin));
	*t = *kept;
	return verdict;
}

/*
 * Why a found flow has no claim on the current packet any more: a DESTROY_ reason, or one of these.
 * Beyond its age that is asked once a packet, where it is first known. Changes nothing.
 */
#define FLOW_LIVES    0xffU /* and has been held against the rules of now */
#define FLOW_LIVES_ON 0xfeU /* for the time being */
#define FLOW_IS_RESET 0xfdU /* it is over; its ends are to be told */

/* The rules have changed since the flow was last held against them. */
static __always_inline __u32 flow_changed_by(const struct datapath_config *c,
					     const struct found *found, __u32 ifindex, __u32 now)
{
	const struct flow *f = found->flow;
	__u32 rule = f->rule, policy = POLICY_KEEP, verdict;
	struct rule_setting *s = bpf_map_lookup_elem(&rule_settings, &rule);

	if (s && (__s16)(s->changed - f->generation) > 0)
		policy = s->policy;
	if (s && policy == POLICY_DRAIN && (__s32)(s->deadline - now) > 0)
		return FLOW_LIVES_ON;
	/* Answers only ask for what has to be told; else the next packet of the client's will. */
	if (found->direction == DIRECTION_REPLY && (policy == POLICY_KEEP || f->flags & FLOW_UDP))
		return FLOW_LIVES_ON;
	verdict = flow_hold_record(found->record, found->direction, ifindex);
	if (verdict == FLOW_SOURCELESS)
		return DESTROY_RULE;
	if (verdict == FLOW_RIGHT)
		return FLOW_LIVES;
	if (f->flags & FLOW_UDP)
		return DESTROY_RULE;
	return policy == POLICY_KEEP ? FLOW_LIVES : FLOW_IS_RESET;
}

static __always_inline __u32 flow_outlived_by(const struct datapath_config *c,
					      const struct packet *p, const struct found *found,
					      enum table_stage stage, __u32 ifindex, __u32 now)
{
	const struct flow *f = found->flow;

	if (table_expired(c, f, now))
		return DESTROY_EXPIRED;
	if (!flow_counts_at(f, found->direction, stage))
		return FLOW_LIVES_ON;
	if (found->direction == DIRECTION_ORIGINAL && p->protocol == IPPROTO_TCP &&
	    tcp_may_reopen(f->state, p->tcp_flags))
		return DESTROY_REOPENED;
	if (f->generation != (__u16)p->rules && !table_is_own(f))
		return flow_changed_by(c, found, ifindex, now);
	return FLOW_LIVES;
}
