/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What would become of a packet, by the functions that ingress itself asks, in its order. A flow
 * that would be made is made in TABLE_TRIAL, which nothing finds and nobody counts; what stands in
 * the index is asked, and stays as it is.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>

#include "flow.bpf.h"
#include "maps.bpf.h"
#include "nat.bpf.h"
#include "parse.bpf.h"
#include "rule.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"

/*
 * The current packet has no flow: the one that would be made, in TABLE_TRIAL. Returns that, a
 * record that another packet has made meanwhile, or FLOW_REFUSED(). A global function, for the
 * verifier's sake.
 */
__noinline __u32 trace_begin(struct __sk_buff *skb, __u32 port)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(TABLE_TRIAL);
	__u32 action, r = FLOW_REFUSED(REASON_UNRELATED);
	struct packet *p;
	struct action *a;

	if (!c || !counts || !f)
		return r;
	p = &scratch_of(counts)->packet;
	if (p->protocol == IPPROTO_TCP && !tcp_may_begin(p->tcp_flags))
		return port & PORT_SHAPE ? FLOW_REFUSED(REASON_STRAY) : r;
	if (port & PORT_SHAPE && !flow_passed(skb, counts)) {
		action = rule_find(skb->ifindex);
		a = rule_action(action);
		r = a && a->rule ? flow_make(skb, c, p, action, a, TABLE_TRIAL, f)
				 : FLOW_REFUSED(REASON_NO_MATCH);
	}
	if ((r == FLOW_REFUSED(REASON_UNRELATED) || r == FLOW_REFUSED(REASON_NO_MATCH)) &&
	    flow_may_be_direct(c, p, port) && flow_is_direct(skb, counts, STAGE_IN))
		r = flow_make_direct(skb, c, p, STAGE_IN, TABLE_TRIAL, f);
	return r;
}

/*
 * Writes what packets of the flow in a record become, at each stage, behind the answer's head and
 * flow. A global function, for the verifier's sake.
 */
__noinline int trace_write_stages(struct __sk_buff *skb, __u32 record)
{
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(record);
	struct tuple *is, *to;

	if (!counts || !f)
		return 0;
	is = &scratch_of(counts)->quote.tuple;
	to = &scratch_of(counts)->key;
#pragma unroll
	for (__u32 i = 0; i < TRACE_STAGES; i++) {
		__u32 direction = i / 2, stage = i % 2, parts = nat_parts(f, direction, stage);
		const struct flow_dir *d =
			direction == DIRECTION_ORIGINAL ? &f->original : &f->reply;

		if (stage == STAGE_IN) {
			__builtin_memcpy(is->saddr, d->saddr, 16);
			__builtin_memcpy(is->daddr, d->daddr, 16);
			is->ports = table_ports(d);
		}
		nat_become(f, direction, to);
		if (parts & NAT_SOURCE)
			__builtin_memcpy(is->saddr, to->saddr, 16);
		if (parts & NAT_DESTINATION)
			__builtin_memcpy(is->daddr, to->daddr, 16);
		if (parts & NAT_PORTS)
			is->ports = to->ports;
		bpf_skb_store_bytes(skb,
				    offsetof(struct trace_answer, becomes) +
					    i * sizeof(struct trace_tuple),
				    is, sizeof(struct trace_tuple), 0);
	}
	return 0;
}
_Static_assert(offsetof(struct tuple, kind) == sizeof(struct trace_tuple),
	       "trace_write_stages() writes the beginning of a tuple");

/* The head of the answer, and which record its flow is in. */
struct trace_found {
	__u32 reason;
	__u8 flags, direction, ended, pad[9];
	__u32 record;
};

static __always_inline void trace_take(struct trace_found *t, __u32 r)
{
	if (r & FLOW_REFUSED(0)) {
		t->reason = r & ~FLOW_REFUSED(0);
		return;
	}
	t->reason = REASON_COUNT;
	t->record = r;
	t->flags = r == TABLE_TRIAL ? 0 : TRACE_FOUND;
}

static __always_inline void trace_find(struct __sk_buff *skb, const struct datapath_config *c,
				       struct cpu_counters *counts, __u32 port, __u32 reply_port,
				       struct trace_found *t)
{
	struct packet *p = &scratch_of(counts)->packet;
	struct found found;
	__u32 reason;

	if (!(port & (PORT_SHAPE | PORT_LISTEN)) && !(reply_port & PORT_REPLY_IN) &&
	    !flow_may_be_direct(c, p, port)) {
		t->reason = REASON_UNRELATED;
		return;
	}
	if (!table_find(&p->tuple, table_hash(c, &p->tuple), STAGE_IN, &found)) {
		trace_take(t, trace_begin(skb, port));
		return;
	}
	if (found.direction == DIRECTION_REPLY && !(found.flow->flags & (FLOW_SNAT | FLOW_LOCAL))) {
		t->reason = REASON_UNRELATED;
		return;
	}
	reason = flow_outlived_by(c, p, &found, STAGE_IN, skb->ifindex, clock_ticks());
	if (reason == FLOW_IS_RESET) {
		trace_take(t, FLOW_REFUSED(REASON_RESET));
		return;
	}
	if (reason != FLOW_LIVES && reason != FLOW_LIVES_ON) {
		t->ended = 1 + reason;
		scratch_of(counts)->gone = found.record;
		trace_take(t, trace_begin(skb, port));
		return;
	}
	t->direction = found.direction;
	trace_take(t, found.record);
}

static __always_inline int trace_packet(struct __sk_buff *skb)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct flow *f = table_record(TABLE_TRIAL);
	struct trace_found t = {};
	struct packet *p;
	bool udp;

	if (!c || !counts || !f)
		return -1;
	p = &scratch_of(counts)->packet;
	scratch_of(counts)->gone = 0;
	f->rule = 0;
	t.reason = parse_packet(skb, true, p);
	p->rules = rule_generation(c);
	udp = p->protocol == IPPROTO_UDP;
	if (t.reason == PARSE_OK)
		trace_find(skb, c, counts, rule_port(c->bank, udp, p->tuple.dport),
			   rule_port(c->bank, udp, p->tuple.sport), &t);
	trace_write_stages(skb, t.record);
	f = table_record(t.record);
	if (!f || bpf_skb_store_bytes(skb, 0, &t, offsetof(struct trace_answer, flow), 0) < 0 ||
	    bpf_skb_store_bytes(skb, offsetof(struct trace_answer, flow), f, sizeof(*f), 0) < 0)
		return -1;
	f = table_record(TABLE_TRIAL);
	if (f)
		table_release(f);
	return 0;
}
_Static_assert(offsetof(struct trace_found, record) == offsetof(struct trace_answer, flow),
	       "trace_packet() writes it as the head of an answer");
