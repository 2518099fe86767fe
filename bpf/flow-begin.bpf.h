/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The beginning of a flow: by the first packet that a rule takes, or, without a rule, by one that
 * could be taken for a packet of another flow.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "events.bpf.h"
#include "flow-room.bpf.h"
#include "limit.bpf.h"
#include "rule.bpf.h"
#include "source.bpf.h"
#include "table.bpf.h"
#include "target.bpf.h"
#include "tcp.bpf.h"

#define FLOW_REFUSED(reason) (0x80000000U | (reason)) /* in place of a record */

/* A flow to where the packet goes already; what a rule makes of it comes afterwards. */
static __always_inline void flow_fill(struct flow *f, const struct packet *p, __u32 rule,
				      __u32 ifindex)
{
	__u32 now = clock_ticks();

	__builtin_memcpy(f->original.saddr, p->tuple.saddr, 16);
	__builtin_memcpy(f->original.daddr, p->tuple.daddr, 16);
	f->original.sport = p->tuple.sport;
	f->original.dport = p->tuple.dport;
	f->original.seen = now;
	f->original.packets = 0;
	f->original.bytes = 0;
	__builtin_memcpy(f->reply.saddr, p->tuple.daddr, 16);
	__builtin_memcpy(f->reply.daddr, p->tuple.saddr, 16);
	f->reply.sport = p->tuple.dport;
	f->reply.dport = p->tuple.sport;
	f->reply.seen = now;
	f->reply.packets = 0;
	f->reply.bytes = 0;
	f->flags = p->tuple.kind;
	f->rule = rule;
	f->generation = p->rules;
	f->origin = FLOW_ORIGIN(ifindex, 0);
	f->created = now;
	f->state = p->tuple.kind & FLOW_UDP ? FLOW_UDP_UNREPLIED : tcp_first_state(p->tcp_flags);
}

/*
 * A port is looked for PORT_SEARCH_ROUND times; then the flow among those in the way which offers
 * its room most, as in a window of records, makes room. Else a flood of half open connections, each
 * with a source port, would keep everybody else from a target, and its end too while no daemon
 * sweeps.
 */
#define PORT_SEARCH_ROUND 16

/* Takes the port of the rival, if that may go, for the flow in a record. 0: it has it. */
static __always_inline __u32 flow_take_port(struct __sk_buff *skb, __u32 record, __u32 rival)
{
	struct flow *f;

	if (record == TABLE_TRIAL)
		return 0;
	f = flow_take(rival, clock_ticks(), ROOM_NONE + 1) ? table_record(rival) : NULL;
	if (!f)
		return rival;
	table_release(f);
	return source_try_port(skb, record);
}

/*
 * Tries the port that the flow in a record has now; when `last` of a round, and it is not free,
 * that of the rival. Returns as source_try_port().
 */
__noinline __u32 flow_try_port(struct __sk_buff *skb, __u32 record, __u32 last)
{
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(record);
	struct rival *rival;
	__u32 r, room;

	if (!counts || !f)
		return TABLE_FULL;
	rival = &scratch_of(counts)->rival;
	r = source_try_port(skb, record);
	if (!r)
		return 0;
	room = r >= SOURCE_SOCKET ? ROOM_NONE : flow_room(r, clock_ticks());
	if (room > rival->room)
		*rival = (struct rival){r, room, f->reply.dport};
	if (!last || !rival->room)
		return r;
	f->reply.dport = rival->port;
	rival->room = ROOM_NONE;
	return flow_take_port(skb, record, rival->record);
}

/*
 * Enters the reply direction of the flow in a record into the index, with the client's own port
 * where no other flow's answers and no socket's come to it, else with another. Returns 0, or a
 * reason to drop the packet. A global function, for the verifier's sake.
 */
__noinline __u32 flow_enter_port(struct __sk_buff *skb, __u32 record)
{
	struct cpu_counters *counts = counters_get();
	struct flow_totals *sums = totals_get();
	struct flow *f = table_record(record);
	__u32 class, r = 0;

	if (!f || !sums || !counts)
		return REASON_TABLE_FULL;
	scratch_of(counts)->rival.room = ROOM_NONE;
	for (__u32 i = 1; i <= PORT_SEARCH_MAX; i++) {
		r = flow_try_port(skb, record, i % PORT_SEARCH_ROUND == 0);
		if (!r) {
			class = source_search_class(i) & (PORT_SEARCH_CLASSES - 1);
			if (record != TABLE_TRIAL)
				atomic_add(&sums->port_searches[class], 1);
			return 0;
		}
		f->reply.dport = source_other_port(f->original.sport);
	}
	return r == TABLE_FULL ? REASON_INDEX_FULL : REASON_PORTS_FULL;
}

/* Gives back a record whose flow came to nothing. */
static __always_inline __u32 flow_abandon(__u32 record, struct flow *f, __u32 r)
{
	flow_leave_index(record, f);
	table_release(f);
	return r;
}

/*
 * Enters a flow, whose target and source address are known, into the index. The reply's direction
 * comes first: when the original one appears, the flow is complete, and of two processors that make
 * the same flow at once the second finds the first's and uses it. Returns the record to use, or a
 * FLOW_REFUSED() reason.
 */
static __always_inline __u32 flow_enter(struct __sk_buff *skb, __u32 record, struct flow *f)
{
	__u32 r = flow_enter_port(skb, record);

	if (r) {
		table_release(f);
		return FLOW_REFUSED(r);
	}
	if (f->flags & FLOW_SNAT && table_index_add(record, ENTRY_ORIGINAL_OUT))
		return flow_abandon(record, f, FLOW_REFUSED(REASON_INDEX_FULL));
	r = table_index_add(record, ENTRY_ORIGINAL);
	if (r)
		return flow_abandon(record, f,
				    r == TABLE_FULL ? FLOW_REFUSED(REASON_INDEX_FULL) : r);
	return record;
}

/* The flow is there for everybody. */
static __always_inline __u32 flow_publish(struct datapath_config *c, __u32 record, struct flow *f)
{
	struct flow_totals *sums = totals_get();
	__u32 rule = f->rule;
	struct rule_counters *counts = bpf_map_lookup_elem(&rule_totals, &rule);

	if (counts)
		atomic_add(&counts->created, 1);
	flow_begins_at_target(record);
	if (sums)
		atomic_add(&sums->created, 1);
	if (!rule)
		atomic_add(&c->direct, 1);
	event_flow(c, f, EVENT_NEW, 0);
	table_disown(f);
	return record;
}

/*
 * Makes the flow of the current packet by an action, in a record that the caller owns, and enters
 * it. Returns the record to use, or FLOW_REFUSED().
 */
static __always_inline __u32 flow_make(struct __sk_buff *skb, const struct datapath_config *c,
				       const struct packet *p, __u32 action, const struct action *a,
				       __u32 record, struct flow *f)
{
	__u32 r;

	flow_fill(f, p, a->rule, skb->ifindex);
	if (!target_choose(action, a, f, &p->tuple)) {
		table_release(f);
		return FLOW_REFUSED(REASON_NO_MATCH);
	}
	r = source_choose(skb, record, action);
	if (r) {
		table_release(f);
		return FLOW_REFUSED(r);
	}
	return flow_enter(skb, record, f);
}

/* `took`: the limits that count the flow. */
static __always_inline __u32 flow_create(struct __sk_buff *skb, struct datapath_config *c,
					 const struct packet *p, __u32 action,
					 const struct action *a, __u32 took)
{
	__u32 record = flow_take_record(), r;
	struct flow *f = record ? table_record(record) : NULL;

	if (!f)
		return FLOW_REFUSED(REASON_TABLE_FULL);
	r = flow_make(skb, c, p, action, a, record, f);
	if (r == record) {
		if (took & LIMIT_TOOK(LIMIT_SOURCE))
			f->origin |= FLOW_SOURCE_COUNTED;
		flow_publish(c, record, f);
	}
	/* Another processor may have made it first, or there was no room for it. */
	if (took)
		limit_settle(action, took, r == record);
	return r;
}

/* The limits that count the flow to be made, or LIMIT_REFUSED(). */
static __always_inline __u32 flow_ask_limits(__u32 action)
{
	__u32 took = limit_take(action);

	if ((took == LIMIT_REFUSED(REASON_MAX_FLOWS) ||
	     took == LIMIT_REFUSED(REASON_SOURCE_MAX_FLOWS)) &&
	    flow_reclaim())
		took = limit_take(action);
	return took;
}

static __always_inline void flow_count_refused(__u32 rule)
{
	struct rule_counters *counts = bpf_map_lookup_elem(&rule_totals, &rule);

	if (counts)
		atomic_add(&counts->refused, 1);
}

/* The flow that an answer to the current packet would belong to where it comes in; 0: none. */
static __always_inline __u32 flow_of_answer(struct cpu_counters *counts)
{
	const struct tuple *t = &scratch_of(counts)->packet.tuple;
	struct tuple *key = &scratch_of(counts)->key;

	__builtin_memcpy(key->saddr, t->daddr, 16);
	__builtin_memcpy(key->daddr, t->saddr, 16);
	key->ports = table_inverse_ports(t->ports);
	key->kind = t->kind;
	return table_holder(STAGE_IN);
}

/* A packet of this host's client or for it, translated already, on its second way through lo. */
static __always_inline bool flow_passed(struct __sk_buff *skb, struct cpu_counters *counts)
{
	struct flow *f;
	__u32 record;

	if (skb->ifindex != LOOPBACK_IFINDEX)
		return false;
	record = flow_of_answer(counts);
	f = record ? table_record(record) : NULL;
	return f && table_is_local(f);
}

/*
 * The current packet has no flow and its port has rules: finds the rule and makes the flow. Returns
 * the record, or FLOW_REFUSED() with the reason not to translate.
 */
__noinline __u32 flow_begin(struct __sk_buff *skb)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct flow_totals *sums = totals_get();
	struct packet *p;
	struct action *a;
	__u32 action, took = 0, r;

	if (!c || !counts || !sums)
		return FLOW_REFUSED(REASON_TABLE_FULL);
	if (flow_passed(skb, counts))
		return FLOW_REFUSED(REASON_UNRELATED);
	p = &scratch_of(counts)->packet;
	action = rule_find(skb->ifindex);
	a = rule_action(action);
	if (!a || !a->rule)
		return FLOW_REFUSED(REASON_NO_MATCH);
	if (a->flags & (ACTION_LIMITED | ACTION_LIMITED_BY_SOURCE))
		took = flow_ask_limits(action);
	if (took & LIMIT_REFUSED(0)) {
		flow_count_refused(a->rule);
		r = took; /* LIMIT_REFUSED() is FLOW_REFUSED() */
	} else {
		r = flow_create(skb, c, p, action, a, took);
	}
	if (r & FLOW_REFUSED(0))
		atomic_add(&sums->insert_failed, 1);
	return r;
}

/* The flow whose answers go where those to the current packet would; 0: none. */
static __always_inline __u32 flow_in_the_way(struct __sk_buff *skb, struct cpu_counters *counts,
					     __u32 stage)
{
	__u32 record = flow_of_answer(counts);
	struct flow *f = record ? table_record(record) : NULL;

	if (!f || !table_is_reply(f, &scratch_of(counts)->key, STAGE_IN))
		return 0;
	/* This host's own answers come in, of translated sources; of its own flows these are them.
	 */
	if (stage == STAGE_OUT)
		return f->rule && f->flags & (FLOW_SNAT | FLOW_LOCAL) ? record : 0;
	/* On another interface it may be that flow's own packet, on its way through a bridge; and
	 * those of this host's clients go through lo twice. */
	if (FLOW_IFINDEX(f->origin) != FLOW_IFINDEX(skb->ifindex) || f->flags & FLOW_LOCAL)
		return 0;
	return record;
}

/* Of TCP only the first packet: another's connection has gone well so far. */
static __always_inline bool flow_begins_direct(const struct packet *p)
{
	return p->tuple.kind & FLOW_UDP ||
	       (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* Does the current packet, which no rule takes, get a flow all the same? */
static __always_inline bool flow_is_direct(struct __sk_buff *skb, struct cpu_counters *counts,
					   __u32 stage)
{
	struct packet *p = &scratch_of(counts)->packet;

	if (!flow_begins_direct(p))
		return false;
	if (flow_in_the_way(skb, counts, stage))
		return true;
	/* Nothing yet; to a target on another host, whose connections no socket here knows. */
	return stage == STAGE_IN && bpf_map_lookup_elem(&destinations, p->tuple.daddr) &&
	       !rule_is_local(p->tuple.daddr) && !flow_passed(skb, counts);
}

static __always_inline __u32 flow_make_direct(struct __sk_buff *skb,
					      const struct datapath_config *c,
					      const struct packet *p, __u32 stage, __u32 record,
					      struct flow *f)
{
	flow_fill(f, p, 0, skb->ifindex);
	if (stage == STAGE_OUT)
		f->flags |= FLOW_LOCAL;
	return flow_enter(skb, record, f);
}

/*
 * The current packet goes to a target's port, by no rule. If a flow's packets look like it once
 * they are translated, the target could not tell the two apart: then it gets a flow too, of no
 * rule, and another source port; so does one of this host's own that leaves and would get the
 * answers of a flow whose source was translated. nf_nat does the same (its null bindings). One to a
 * target on another host gets its flow in any case, so that it is there when a rule's flow comes.
 * `otherwise` is the answer where there is nothing to tell apart.
 */
__noinline __u32 flow_begin_direct(struct __sk_buff *skb, __u32 stage, __u32 otherwise)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	__u32 record, r;
	struct flow *f;

	if (!c || !counts || !flow_is_direct(skb, counts, stage))
		return otherwise;
	record = flow_take_record();
	f = record ? table_record(record) : NULL;
	if (!f)
		return FLOW_REFUSED(REASON_TABLE_FULL);
	r = flow_make_direct(skb, c, &scratch_of(counts)->packet, stage, record, f);
	return r == record ? flow_publish(c, record, f) : r;
}

/*
 * May a packet, of no flow and to a port that is a target's, be taken for one of a flow? Of TCP
 * only its first one is asked, unless there are such flows. See flow_begin_direct().
 */
static __always_inline bool flow_may_be_direct(const struct datapath_config *c,
					       const struct packet *p, __u32 port)
{
	if (!(port & PORT_REPLY_OUT))
		return false;
	return c->direct || flow_begins_direct(p);
}
