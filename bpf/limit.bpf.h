/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits on new flows, of a rule and of each source of it: how many at once, and how fast. Asked
 * before a flow looks for room, so that what is turned away pushes nobody out. A state's lock makes
 * both exact, whatever processors do at once.
 *
 * A source is known while it has flows, or its rate is not used up: then it is deleted, by whoever
 * ends its last flow, or by the daemon. When more are known than there is room for, those that come
 * are let in uncounted: turning them away would let a flood from many addresses shut a service.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "parse.bpf.h"
#include "rule.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"

#define LIMIT_REFUSED(reason) (0x80000000U | (reason)) /* in place of what was taken */
#define LIMIT_TOOK(kind)      (1U << (kind))
#define LIMIT_TRIES	      3

enum limit_answer {
	LIMIT_LETS_IN,
	LIMIT_FULL,
	LIMIT_EARLY,
	LIMIT_UNKNOWN, /* no room to know it: not counted */
};

/* One flow more than `flows`? With the state's lock held. */
static __always_inline enum limit_answer limit_ask(struct limit_state *s, const struct limit *l,
						   __u64 flows, __u64 now)
{
	__u64 turn = s->turn > now ? s->turn : now;

	if (l->max_flows && flows >= l->max_flows)
		return LIMIT_FULL;
	if (l->interval_ns) {
		if (turn - now > l->tolerance_ns)
			return LIMIT_EARLY;
		s->turn = turn + l->interval_ns;
	}
	s->flows++;
	return LIMIT_LETS_IN;
}

static __always_inline enum limit_answer limit_ask_rule(const struct action *a, __u64 now)
{
	__u32 rule = a->rule;
	struct limit_state *s = bpf_map_lookup_elem(&limit_rules, &rule);
	struct rule_counters *r = bpf_map_lookup_elem(&rule_totals, &rule);
	enum limit_answer answer;
	__u64 ended;

	if (!s || !r)
		return LIMIT_UNKNOWN;
	bpf_spin_lock(&s->lock);
	/* In this order, so that one that begins and ends in between is not missing. */
	ended = *(volatile __u64 *)&r->destroyed;
	answer = limit_ask(s, &a->limits[LIMIT_RULE],
			   *(volatile __u64 *)&r->created - ended + s->flows, now);
	bpf_spin_unlock(&s->lock);
	return answer;
}

static __always_inline void limit_key(struct limit_source_key *ret, __u32 rule, const __be32 *addr,
				      __u32 kind)
{
	__builtin_memcpy(ret->addr, addr, sizeof(ret->addr));
	if (kind & FLOW_IPV6)
		ret->addr[2] = ret->addr[3] = 0;
	ret->rule = rule;
	ret->pad = 0;
}

static __always_inline enum limit_answer
limit_ask_source(const struct action *a, const struct limit_source_key *key, __u64 now)
{
	for (int i = 0; i < LIMIT_TRIES; i++) {
		struct limit_state *s = bpf_map_lookup_elem(&limit_sources, key);
		enum limit_answer answer = LIMIT_UNKNOWN;

		if (!s) {
			struct limit_state fresh = {};

			bpf_map_update_elem(&limit_sources, key, &fresh, BPF_NOEXIST);
			s = bpf_map_lookup_elem(&limit_sources, key);
		}
		if (!s)
			return LIMIT_UNKNOWN;
		bpf_spin_lock(&s->lock);
		if (!s->gone)
			answer = limit_ask(s, &a->limits[LIMIT_SOURCE], s->flows, now);
		bpf_spin_unlock(&s->lock);
		if (answer != LIMIT_UNKNOWN)
			return answer;
	}
	return LIMIT_UNKNOWN;
}

/* Forgets a source that has no flow and could have all of its rate. Returns 1 if it was forgotten.
 */
static __always_inline int limit_forget(const struct limit_source_key *key, __u32 flows_less,
					__u64 turn_back)
{
	struct limit_state *s = bpf_map_lookup_elem(&limit_sources, key);
	__u64 now = bpf_ktime_get_ns();
	int gone = 0;

	if (!s)
		return 0;
	bpf_spin_lock(&s->lock);
	if (s->flows >= flows_less)
		s->flows -= flows_less;
	s->turn -= turn_back;
	if (!s->flows && s->turn <= now && !s->gone)
		gone = s->gone = 1;
	bpf_spin_unlock(&s->lock);
	if (gone)
		bpf_map_delete_elem(&limit_sources, key);
	return gone;
}

/*
 * May the current packet begin a flow by this action? Returns which LIMIT_TOOK() it counts in, to
 * be settled by limit_settle(); or LIMIT_REFUSED(). A global function, for the verifier's sake.
 */
__noinline __u32 limit_take(__u32 action)
{
	struct action *a = rule_action(action);
	struct packet *p = packet_current();
	__u64 now = bpf_ktime_get_ns();
	struct limit_source_key key;
	enum limit_answer answer;
	__u32 took = 0;

	if (!a || !p)
		return 0;
	limit_key(&key, a->rule, p->tuple.saddr, p->tuple.kind);
	if (a->flags & ACTION_LIMITED_BY_SOURCE) {
		answer = limit_ask_source(a, &key, now);
		if (answer == LIMIT_FULL)
			return LIMIT_REFUSED(REASON_SOURCE_MAX_FLOWS);
		if (answer == LIMIT_EARLY)
			return LIMIT_REFUSED(REASON_SOURCE_RATE);
		if (answer == LIMIT_LETS_IN)
			took |= LIMIT_TOOK(LIMIT_SOURCE);
	}
	if (a->flags & ACTION_LIMITED) {
		answer = limit_ask_rule(a, now);
		if (answer == LIMIT_LETS_IN)
			return took | LIMIT_TOOK(LIMIT_RULE);
		if (took)
			limit_forget(&key, 1, a->limits[LIMIT_SOURCE].interval_ns);
		if (answer == LIMIT_FULL)
			return LIMIT_REFUSED(REASON_MAX_FLOWS);
		if (answer == LIMIT_EARLY)
			return LIMIT_REFUSED(REASON_RATE);
		return 0;
	}
	return took;
}

/* The flow is made, and counted in its rule's totals; or it came to nothing. */
__noinline int limit_settle(__u32 action, __u32 took, __u32 made)
{
	struct action *a = rule_action(action);
	struct packet *p = packet_current();
	struct limit_source_key key;
	struct limit_state *s;
	__u32 rule;

	if (!a || !p)
		return 0;
	if (took & LIMIT_TOOK(LIMIT_SOURCE) && !made) {
		limit_key(&key, a->rule, p->tuple.saddr, p->tuple.kind);
		limit_forget(&key, 1, a->limits[LIMIT_SOURCE].interval_ns);
	}
	rule = a->rule;
	s = took & LIMIT_TOOK(LIMIT_RULE) ? bpf_map_lookup_elem(&limit_rules, &rule) : NULL;
	if (!s)
		return 0;
	bpf_spin_lock(&s->lock);
	s->flows--;
	if (!made)
		s->turn -= a->limits[LIMIT_RULE].interval_ns;
	bpf_spin_unlock(&s->lock);
	return 1;
}

/* A flow that was FLOW_SOURCE_COUNTED has ended; its record is owned. */
__noinline int limit_leave(__u32 record)
{
	struct flow *f = table_record(record);
	struct limit_source_key key;

	if (!f)
		return 0;
	limit_key(&key, f->rule, f->original.saddr, f->flags);
	return limit_forget(&key, 1, 0);
}
