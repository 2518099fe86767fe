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
#include "limit.bpf.h"
#include "rule.bpf.h"
#include "source.bpf.h"
#include "table.bpf.h"
#include "target.bpf.h"
#include "tcp.bpf.h"

#define FLOW_WINDOWS_TRIED   4
#define FLOW_REFUSED(reason) (0x80000000U | (reason)) /* in place of a record */

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

/* A flow to where the packet goes already; what a rule makes of it comes afterwards. */
static __always_inline void flow_fill(struct flow *f, const struct packet *p, __u32 rule,
				      const struct datapath_config *c, __u32 ifindex)
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
	f->generation = c->generation;
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

	flow_fill(f, p, a->rule, c, skb->ifindex);
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
__noinline __u32 flow_begin(struct __sk_buff *skb, __u32 port)
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
	action = rule_find(skb->ifindex, port);
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
	flow_fill(f, p, 0, c, skb->ifindex);
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
static __always_inline enum flow_verdict flow_hold(const struct datapath_config *c,
						   const struct flow *f, const struct packet *p,
						   __u32 ifindex)
{
	__u32 action = rule_find(ifindex, rule_port(c, f->flags & FLOW_UDP, p->tuple.dport));
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
	struct datapath_config *c = config_get();
	struct flow *f = table_record(record);
	struct tuple *t, *kept;
	__u32 verdict;

	if (!c || !counts || !f)
		return FLOW_RIGHT;
	t = &scratch_of(counts)->packet.tuple;
	kept = &scratch_of(counts)->key;
	if (direction == DIRECTION_ORIGINAL)
		return flow_hold(c, f, &scratch_of(counts)->packet, ifindex);
	*kept = *t;
	__builtin_memcpy(t->saddr, f->original.saddr, 16);
	__builtin_memcpy(t->daddr, f->original.daddr, 16);
	t->ports = table_ports(&f->original);
	verdict = flow_hold(c, f, &scratch_of(counts)->packet, FLOW_IFINDEX(f->origin));
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
	if (f->generation != (__u16)c->generation && !table_is_own(f))
		return flow_changed_by(c, found, ifindex, now);
	return FLOW_LIVES;
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

/* State and flags of a flow after a packet, the state in the low byte, the flags above it. */
#define FLOW_NEWS(state, flags) ((state) | (__u32)(flags) << 8)

static __always_inline __u32 flow_news(const struct flow *f, const struct packet *p,
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
	return FLOW_NEWS(state, flags);
}

/*
 * Moves the state on. An established flow's packets have no news and take no lock; those that have
 * look once more under the record's: another packet of the flow may be doing the same on another
 * processor, and what the two make of it has to be what one after the other would.
 */
static __always_inline void flow_update_state(const struct found *found, const struct packet *p)
{
	struct flow *f = found->flow;
	struct lock_line *line;
	__u32 news;

	if (flow_news(f, p, found->direction) == FLOW_NEWS(f->state, f->flags))
		return;
	line = table_lock(found->record / FLOW_WINDOW);
	if (!line)
		return;
	bpf_spin_lock(&line->lock);
	/* A moving flow's records are owned, and keep the number. */
	if ((table_migrating ? table_seq(f) : f->seq) == found->seq) {
		news = flow_news(f, p, found->direction);
		f->state = news;
		f->flags = news >> 8;
	}
	bpf_spin_unlock(&line->lock);
}

static __always_inline void flow_count(struct flow_dir *d, const struct packet *p, __u32 now)
{
	if (d->seen != now)
		d->seen = now;
	atomic_add(&d->packets, p->count);
	atomic_add(&d->bytes, p->bytes);
}
