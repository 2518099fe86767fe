// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The programs: what is attached, and the path of a packet through them.
 *
 *   ingress: parse -> port table (most packets leave here) -> flow table -> hit: translate
 *                                                                       -> miss: rule -> new flow
 *   egress:  parse -> port table -> flow table -> hit: translate back
 *   both:    ICMP errors: the flow of the packet that they quote -> translate the quote
 *
 * Each hook exists twice, for devices with and without an Ethernet header. Whatever happens, the
 * next program on the hook runs (TC_ACT_UNSPEC, which is also TCX_NEXT); only a packet whose flow
 * has no room, or that could not be written, is dropped.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "flow.bpf.h"
#include "icmp.bpf.h"
#include "maps.bpf.h"
#include "nat.bpf.h"
#include "packet.bpf.h"
#include "parse.bpf.h"
#include "rule.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"
#include "tcp.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Counts why a packet was not translated, and says what becomes of it. */
static __always_inline int leave(struct cpu_counters *counts, __u32 reason)
{
	if (reason < REASON_COUNT)
		counts->reasons[reason]++;
	return reason >= REASON_FIRST_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* A packet of a known flow. */
static __always_inline int forward(struct __sk_buff *skb, const struct datapath_config *c,
				   struct cpu_counters *counts, const struct packet *p,
				   const struct found *found, __u32 now)
{
	struct flow *f = found->flow;
	__be32 ports = nat_ports(f, found->direction);

	/* The record may have gone to another flow since the lookup. */
	if (table_seq(f) != found->seq)
		return leave(counts, REASON_UNRELATED);
	flow_update_state(f, p, found->direction);
	flow_count(found->direction == DIRECTION_ORIGINAL ? &f->original : &f->reply, p, now);
	event_packet(c, f, found->direction, p->bytes);
	if (nat_write_ports(skb, p, ports) < 0)
		return leave(counts, REASON_REWRITE);
	return TC_ACT_UNSPEC;
}

/* Hands the slow path what it asks of a packet: tuple and flags. */
static __always_inline bool make_current(const struct packet *p)
{
	struct packet *current_packet = rule_current();

	if (!current_packet)
		return false;
	current_packet->tuple = p->tuple;
	current_packet->tcp_flags = p->tcp_flags;
	return true;
}

/* A packet of no flow, to a port that has rules. */
static __always_inline int begin(struct __sk_buff *skb, const struct datapath_config *c,
				 struct cpu_counters *counts, const struct packet *p, __u32 port,
				 __u32 now)
{
	struct found found = {.direction = DIRECTION_ORIGINAL};

	if (p->protocol == IPPROTO_TCP && !tcp_may_begin(p->tcp_flags))
		return leave(counts, REASON_STRAY);
	if (!make_current(p))
		return TC_ACT_UNSPEC;
	found.record = flow_begin(skb->ifindex, port);
	if (found.record & FLOW_REFUSED(0))
		return leave(counts, found.record & ~FLOW_REFUSED(0));
	found.flow = table_record(found.record);
	if (!found.flow)
		return TC_ACT_UNSPEC;
	found.seq = table_seq(found.flow);
	return forward(skb, c, counts, p, &found, now);
}

/* Ends a found flow that has no claim on this packet any more. Returns whether it did. */
static __always_inline bool outlived(const struct datapath_config *c, const struct packet *p,
				     const struct found *found, __u32 ifindex, __u32 now)
{
	struct flow *f = found->flow;
	__u32 reason;

	if (table_expired(c, f, now))
		reason = DESTROY_EXPIRED;
	else if (found->direction == DIRECTION_REPLY)
		return false;
	else if (p->protocol == IPPROTO_TCP && tcp_may_reopen(f->state, p->tcp_flags))
		reason = DESTROY_REOPENED;
	else if (f->generation != (__u16)c->generation && make_current(p) &&
		 !flow_still_right(found->record, ifindex))
		reason = DESTROY_RULE;
	else
		return false;
	flow_destroy(found->record, f, found->seq, reason);
	return true;
}

/* A packet that is neither TCP nor UDP of ours: an ICMP error about one, or none of our business.
 */
static __always_inline int other(struct __sk_buff *skb, struct cpu_counters *counts,
				 const struct packet *p, __u32 reason, bool out)
{
	int r;

	if (reason != REASON_NOT_TCP_UDP || !p->l4)
		return leave(counts, reason);
	r = icmp_translate(skb, p->l4, p->l4 + p->l4_length, p->tuple.kind & FLOW_IPV6, out);
	if (r == 0)
		return leave(counts, reason);
	if (r < 0)
		return leave(counts, REASON_REWRITE);
	counts->icmp_errors++;
	return TC_ACT_UNSPEC;
}

static __always_inline int ingress(struct __sk_buff *skb, bool ethernet)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	__u32 port, reply_port, now, r;
	struct found found;
	struct packet p = {};
	bool hit;

	if (!c || !counts)
		return TC_ACT_UNSPEC;
	r = parse_packet(skb, ethernet, &p);
	counts->packets += p.count;
	counts->bytes += p.bytes;
	if (r != PARSE_OK)
		return other(skb, counts, &p, r, false);

	port = rule_port(c, p.protocol == IPPROTO_UDP, p.tuple.dport);
	reply_port = rule_port(c, p.protocol == IPPROTO_UDP, p.tuple.sport);
	if (!(port & (PORT_SHAPE | PORT_LISTEN)) && !(reply_port & PORT_REPLY_IN))
		return leave(counts, REASON_UNRELATED);

	now = clock_ticks();
	hit = table_find(&p.tuple, table_hash(c, &p.tuple), &found);
	if (hit && found.direction == DIRECTION_REPLY)
		return leave(counts, REASON_UNRELATED);
	if (hit && !outlived(c, &p, &found, skb->ifindex, now))
		return forward(skb, c, counts, &p, &found, now);
	if (!(port & PORT_SHAPE))
		return leave(counts, REASON_UNRELATED);
	return begin(skb, c, counts, &p, port, now);
}

static __always_inline int egress(struct __sk_buff *skb, bool ethernet)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct found found;
	struct packet p = {};
	__u32 now, r;

	if (!c || !counts)
		return TC_ACT_UNSPEC;
	r = parse_packet(skb, ethernet, &p);
	counts->packets += p.count;
	counts->bytes += p.bytes;
	if (r != PARSE_OK)
		return other(skb, counts, &p, r, true);

	if (!(rule_port(c, p.protocol == IPPROTO_UDP, p.tuple.sport) & PORT_REPLY_OUT))
		return leave(counts, REASON_UNRELATED);
	if (!table_find(&p.tuple, table_hash(c, &p.tuple), &found) ||
	    found.direction != DIRECTION_REPLY)
		return leave(counts, REASON_UNRELATED);
	now = clock_ticks();
	if (outlived(c, &p, &found, skb->ifindex, now))
		return leave(counts, REASON_UNRELATED);
	return forward(skb, c, counts, &p, &found, now);
}

SEC("tc")
int redirect_in(struct __sk_buff *skb)
{
	return ingress(skb, true);
}

SEC("tc")
int redirect_out(struct __sk_buff *skb)
{
	return egress(skb, true);
}

SEC("tc")
int redirect_in_l3(struct __sk_buff *skb)
{
	return ingress(skb, false);
}

SEC("tc")
int redirect_out_l3(struct __sk_buff *skb)
{
	return egress(skb, false);
}

/* Not attached: how the daemon reads the clock that packets read. */
SEC("tc")
int read_clock(struct __sk_buff *skb)
{
	return clock_ticks();
}

/* A function of its own, so that the loop below is one path to the verifier, not one a record. */
__noinline int sweep_record(__u32 record, __u32 seq)
{
	struct flow *f = table_record(record);

	if (!record || !f || f->state == FLOW_FREE)
		return 0;
	return flow_destroy(record, f, seq, DESTROY_EXPIRED);
}

/*
 * Not attached: the daemon runs it on a list of records that looked expired in its mapping, so
 * that freeing goes the same way, under the same locks, as when packets do it. Returns how many
 * of them were freed.
 */
SEC("tc")
int sweep(struct __sk_buff *skb)
{
	int freed = 0;

	for (int i = 0; i < SWEEP_BATCH; i++) {
		struct sweep_item item;

		if (bpf_skb_load_bytes(skb, SWEEP_OFFSET + i * sizeof(item), &item, sizeof(item)))
			break;
		freed += sweep_record(item.record, item.seq);
	}
	return freed;
}
