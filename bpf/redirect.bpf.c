// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The programs: what is attached, and the path of a packet through them.
 *
 *   ingress: parse -> port table (most packets leave here) -> flow table -> hit: translate
 *                                                                       -> miss: rule -> new flow
 *   egress:  parse -> port table -> flow table -> hit: translate back, or the source
 *   both:    ICMP errors: the flow of the packet that they quote -> translate the quote
 *            later fragments: the flow of the first one -> translate the addresses
 *
 * Each hook exists twice, for devices with and without an Ethernet header. Whatever happens, the
 * next program on the hook runs (TC_ACT_UNSPEC, which is also TCX_NEXT); only a packet whose flow
 * has no room, or that could not be written, is dropped, and only what a client of this host
 * exchanges with another one is redirected.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "flow.bpf.h"
#include "fragment.bpf.h"
#include "icmp.bpf.h"
#include "maps.bpf.h"
#include "migrate.bpf.h"
#include "nat.bpf.h"
#include "packet.bpf.h"
#include "parse.bpf.h"
#include "reset.bpf.h"
#include "rule.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"
#include "tcp.bpf.h"
#include "trace.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Counts why a packet was not translated, and says what becomes of it. */
static __always_inline int leave(struct cpu_counters *counts, __u32 reason)
{
	if (reason < REASON_COUNT)
		counts->reasons[reason]++;
	return reason >= REASON_FIRST_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* Between this host's client and another's server: see bpf/nat.bpf.h. */
static __always_inline int through_lo(struct __sk_buff *skb, struct cpu_counters *counts,
				      bool ethernet)
{
	int r = nat_through_lo(skb, ethernet);

	return r < 0 ? leave(counts, REASON_REWRITE) : r;
}

/*
 * The rules have ended a flow. It stays in its record as a closed one, so that whatever its ends
 * still send is answered in the same way. Of a datagram in fragments only its first part is here.
 */
static __always_inline int end_both(struct __sk_buff *skb, struct cpu_counters *counts,
				    struct flow *f, enum table_stage stage, bool ethernet)
{
	struct packet *p = &scratch_of(counts)->packet;

	f->state = FLOW_CLOSE;
	if (p->tcp_flags & TCP_RST)
		return 0;
	if (p->first_fragment)
		return -1;
	counts->reasons[REASON_RESET]++;
	return reset_both(skb, (ethernet ? RESET_ETHERNET : 0) |
				       (stage == STAGE_IN ? RESET_COMES_IN : 0));
}

/* A packet of a known flow; with `over` it is the last one, and becomes an RST. */
static __always_inline int forward(struct __sk_buff *skb, const struct datapath_config *c,
				   struct cpu_counters *counts, const struct found *found,
				   enum table_stage stage, bool ethernet, __u32 now, bool over)
{
	struct packet *p = &scratch_of(counts)->packet;
	struct tuple *to = &scratch_of(counts)->key;
	struct flow *f = found->flow;
	__u32 parts = nat_parts(f, found->direction, stage);
	bool local = table_is_local(f);

	nat_become(f, found->direction, to);
	/* The record may have gone to another flow since the lookup. */
	if (table_seq(f) != found->seq)
		return leave(counts, REASON_UNRELATED);
	if (over && end_both(skb, counts, f, stage, ethernet) < 0)
		return leave(counts, REASON_RESET);
	if (flow_counts_at(f, found->direction, stage)) {
		flow_update_state(found, p);
		flow_count(found->direction == DIRECTION_ORIGINAL ? &f->original : &f->reply, p,
			   now);
		event_packet(c, f, found->direction, p->bytes);
	}
	if (p->first_fragment && c->fragments &&
	    fragment_note(skb, stage, found->record, found->direction) < 0)
		return leave(counts, REASON_REWRITE);
	if (nat_write(skb, parts) < 0)
		return leave(counts, REASON_REWRITE);
	if (stage == STAGE_IN && local)
		return through_lo(skb, counts, ethernet);
	return TC_ACT_UNSPEC;
}

/* A packet that belongs to no flow; where it comes in, nor do the fragments that follow it. */
static __always_inline int unrelated(struct __sk_buff *skb, const struct datapath_config *c,
				     struct cpu_counters *counts, __u32 reason,
				     enum table_stage stage)
{
	if (stage == STAGE_IN && scratch_of(counts)->packet.first_fragment && c->fragments &&
	    fragment_note(skb, STAGE_IN, 0, 0) < 0)
		return leave(counts, REASON_REWRITE);
	return leave(counts, reason);
}

/* A packet for which a flow was made, in `record`, or FLOW_REFUSED(). */
static __always_inline int begun(struct __sk_buff *skb, const struct datapath_config *c,
				 struct cpu_counters *counts, __u32 record, enum table_stage stage,
				 bool ethernet, __u32 now)
{
	struct found found = {.record = record, .direction = DIRECTION_ORIGINAL};

	if (record & FLOW_REFUSED(0))
		return unrelated(skb, c, counts, record & ~FLOW_REFUSED(0), stage);
	found.flow = table_record(record);
	if (!found.flow)
		return TC_ACT_UNSPEC;
	found.seq = table_seq(found.flow);
	/* It may be one that another processor made meanwhile, or that is there for its replies. */
	if (!table_is_original(found.flow, &scratch_of(counts)->packet.tuple, stage))
		return unrelated(skb, c, counts, REASON_UNRELATED, stage);
	return forward(skb, c, counts, &found, stage, ethernet, now, false);
}

/* A packet that comes in, of no flow, to a port that has rules or is a target's. */
static __always_inline int begin(struct __sk_buff *skb, const struct datapath_config *c,
				 struct cpu_counters *counts, __u32 port, bool ethernet, __u32 now)
{
	struct packet *p = &scratch_of(counts)->packet;
	__u32 record = FLOW_REFUSED(REASON_UNRELATED);

	if (p->protocol == IPPROTO_TCP && !tcp_may_begin(p->tcp_flags))
		return unrelated(skb, c, counts,
				 port & PORT_SHAPE ? REASON_STRAY : REASON_UNRELATED, STAGE_IN);
	if (port & PORT_SHAPE)
		record = flow_begin(skb);
	if ((record == FLOW_REFUSED(REASON_UNRELATED) || record == FLOW_REFUSED(REASON_NO_MATCH)) &&
	    flow_may_be_direct(c, p, port))
		record = flow_begin_direct(skb, STAGE_IN, record);
	return begun(skb, c, counts, record, STAGE_IN, ethernet, now);
}

/* A packet of this host's own that leaves, for a port that masqueraded packets go to as well. */
static __always_inline int begin_own(struct __sk_buff *skb, const struct datapath_config *c,
				     struct cpu_counters *counts, bool ethernet, __u32 now)
{
	__u32 record = flow_begin_direct(skb, STAGE_OUT, FLOW_REFUSED(REASON_UNRELATED));

	return begun(skb, c, counts, record, STAGE_OUT, ethernet, now);
}

/* What becomes of a packet whose flow was found. */
enum claim {
	CLAIM_NONE, /* that has ended: the packet begins anew */
	CLAIM_LIVES,
	CLAIM_OVER, /* it is ended by this packet */
};

static __always_inline enum claim claim(const struct datapath_config *c, const struct packet *p,
					const struct found *found, enum table_stage stage,
					__u32 ifindex, __u32 now)
{
	__u32 reason = flow_outlived_by(c, p, found, stage, ifindex, now);
	struct flow *f = found->flow;

	switch (reason) {
	case FLOW_LIVES:
		if (f->generation != (__u16)p->rules)
			f->generation = p->rules;
		return CLAIM_LIVES;
	case FLOW_LIVES_ON:
		return CLAIM_LIVES;
	case FLOW_IS_RESET:
		return CLAIM_OVER;
	}
	flow_destroy(found->record, f, found->seq, reason);
	return CLAIM_NONE;
}

/* A packet that has no ports: an ICMP error about one, a later fragment, or none of our business.
 */
static __always_inline int other(struct __sk_buff *skb, const struct datapath_config *c,
				 struct cpu_counters *counts, __u32 reason, enum table_stage stage,
				 bool ethernet)
{
	const struct packet *p = &scratch_of(counts)->packet;
	int r;

	if (reason == REASON_FRAGMENT && c->fragments) {
		r = fragment_later(skb, stage);
		if (r == FRAGMENT_FOR_LOCAL)
			return through_lo(skb, counts, ethernet);
		return r == FRAGMENT_TRANSLATED ? TC_ACT_UNSPEC : leave(counts, r);
	}
	if (reason != REASON_NOT_TCP_UDP || !p->l4)
		return unrelated(skb, c, counts, reason, stage);
	r = icmp_translate(skb, stage);
	if (r == ICMP_NOT_OURS)
		return leave(counts, reason);
	if (r < 0)
		return leave(counts, REASON_REWRITE);
	return r == ICMP_FOR_LOCAL ? through_lo(skb, counts, ethernet) : TC_ACT_UNSPEC;
}

static __always_inline int ingress(struct __sk_buff *skb, bool ethernet)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	__u32 port, reply_port, now, r;
	struct found found;
	struct packet *p;
	enum claim claimed;
	bool marked, hit;

	if (!c || !counts)
		return TC_ACT_UNSPEC;
	p = &scratch_of(counts)->packet;
	r = parse_packet(skb, ethernet, p);
	counts->packets += p->count;
	counts->bytes += p->bytes;
	if (r != PARSE_OK)
		return other(skb, c, counts, r, STAGE_IN, ethernet);

	p->rules = rule_generation(c);
	port = rule_port(c->bank, p->protocol == IPPROTO_UDP, p->tuple.dport);
	reply_port = rule_port(c->bank, p->protocol == IPPROTO_UDP, p->tuple.sport);
	marked = port & (PORT_SHAPE | PORT_LISTEN) || reply_port & PORT_REPLY_IN;
	if (!marked && !flow_may_be_direct(c, p, port))
		return unrelated(skb, c, counts, REASON_UNRELATED, STAGE_IN);

	now = clock_ticks();
	/* Without a mark only a direct flow can be found. */
	hit = (marked || c->direct) &&
	      table_find(&p->tuple, table_hash(c, &p->tuple), STAGE_IN, &found);
	if (hit && found.direction == DIRECTION_REPLY &&
	    !(found.flow->flags & (FLOW_SNAT | FLOW_LOCAL)))
		return unrelated(skb, c, counts, REASON_UNRELATED, STAGE_IN);
	claimed = hit ? claim(c, p, &found, STAGE_IN, skb->ifindex, now) : CLAIM_NONE;
	if (claimed != CLAIM_NONE)
		return forward(skb, c, counts, &found, STAGE_IN, ethernet, now,
			       claimed == CLAIM_OVER);
	return begin(skb, c, counts, port, ethernet, now);
}

static __always_inline int egress(struct __sk_buff *skb, bool ethernet)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	__u32 port, now, r;
	enum claim claimed;
	struct found found;
	struct packet *p;
	bool hit;

	if (!c || !counts)
		return TC_ACT_UNSPEC;
	p = &scratch_of(counts)->packet;
	r = parse_packet(skb, ethernet, p);
	counts->packets += p->count;
	counts->bytes += p->bytes;
	if (r != PARSE_OK)
		return other(skb, c, counts, r, STAGE_OUT, ethernet);

	p->rules = rule_generation(c);
	port = rule_port(c->bank, p->protocol == IPPROTO_UDP, p->tuple.dport);
	if (!(rule_port(c->bank, p->protocol == IPPROTO_UDP, p->tuple.sport) & PORT_REPLY_OUT) &&
	    !(port & PORT_SNAT_OUT))
		return leave(counts, REASON_UNRELATED);
	now = clock_ticks();
	hit = table_find(&p->tuple, table_hash(c, &p->tuple), STAGE_OUT, &found);
	claimed = hit ? claim(c, p, &found, STAGE_OUT, skb->ifindex, now) : CLAIM_NONE;
	if (claimed != CLAIM_NONE)
		return forward(skb, c, counts, &found, STAGE_OUT, ethernet, now,
			       claimed == CLAIM_OVER);
	if (port & PORT_SNAT_OUT && !skb->ingress_ifindex && flow_may_be_direct(c, p, port))
		return begin_own(skb, c, counts, ethernet, now);
	return leave(counts, REASON_UNRELATED);
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
__noinline int sweep_record(__u32 record, __u32 seq, __u32 reason)
{
	struct datapath_config *c = config_get();
	struct flow *f = table_record(record);

	/* Who owns it is about to end it, or to make it. */
	if (!(record & INDEX_RECORD) || !c || !f || f->state == FLOW_FREE || seq & FLOW_OWNED)
		return 0;
	if (reason == DESTROY_EXPIRED && !table_long_expired(c, f, clock_ticks()))
		return 0;
	return flow_destroy(record, f, seq, reason);
}

/*
 * Not attached: the daemon runs it on a list of records that looked expired in its mapping, or that
 * somebody asks it to end, so that freeing goes the same way, under the same locks, as when packets
 * do it. Returns how many of them were freed, and marks those.
 */
SEC("tc")
int sweep(struct __sk_buff *skb)
{
	int freed = 0;

	for (int i = 0; i < SWEEP_BATCH; i++) {
		__u32 offset = SWEEP_OFFSET + i * sizeof(struct sweep_item);
		struct sweep_item item;

		if (bpf_skb_load_bytes(skb, offset, &item, sizeof(item)))
			break;
		item.freed = sweep_record(item.record, item.seq, item.reason);
		freed += item.freed;
		bpf_skb_store_bytes(skb, offset, &item, sizeof(item), 0);
	}
	return freed;
}

/* As sweep_record(). */
__noinline int sweep_source(struct __sk_buff *skb, __u32 offset)
{
	struct limit_source_key key;

	if (bpf_skb_load_bytes(skb, offset, &key, sizeof(key)))
		return -1;
	return limit_forget(&key, 0, 0);
}

/*
 * Not attached: the daemon runs it on a list of sources, to forget those that nothing is known of
 * any more. Returns how many.
 */
SEC("tc")
int sweep_sources(struct __sk_buff *skb)
{
	int forgotten = 0;

	for (int i = 0; i < SWEEP_BATCH; i++) {
		int r = sweep_source(skb, SWEEP_OFFSET + i * sizeof(struct limit_source_key));

		if (r < 0)
			break;
		forgotten += r;
	}
	return forgotten;
}

/*
 * Not attached, and only there while flows-max is changed: moves the flows of a list of records to
 * the new table, or, when all are there, ends what is left of them. Returns how many.
 */
SEC("tc")
int migrate(struct __sk_buff *skb)
{
	__u32 phase = table_phase();
	int done = 0;

	for (int i = 0; i < SWEEP_BATCH && phase != TABLE_STEADY; i++) {
		struct sweep_item item;

		if (bpf_skb_load_bytes(skb, SWEEP_OFFSET + i * sizeof(item), &item, sizeof(item)))
			break;
		if (phase == TABLE_MOVING)
			done += migrate_move(item.record);
		else
			done += migrate_merge(item.record);
	}
	return done;
}

/*
 * Not attached: gives a match another binding, where it is. A system call would give it another
 * place in memory, and its own at once to the next match, whoever is reading it. Returns 1 if there
 * is such a match.
 */
SEC("tc")
int bind_match(struct __sk_buff *skb)
{
	struct match_bound bound;
	__u32 *binding;

	if (bpf_skb_load_bytes(skb, SWEEP_OFFSET, &bound, sizeof(bound)) < 0)
		return 0;
	binding = bpf_map_lookup_elem(&matches, &bound.key);
	if (!binding)
		return 0;
	*binding = bound.binding;
	return 1;
}

/*
 * Not attached: the daemon runs it on a made packet, to tell what ingress would do with it. Writes
 * a struct trace_answer over the packet, and nothing else but the record TABLE_TRIAL.
 */
SEC("tc")
int trace(struct __sk_buff *skb)
{
	return trace_packet(skb);
}
