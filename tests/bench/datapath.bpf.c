// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The real datapath behind a program that makes the packet of another flow each time:
 * BPF_PROG_TEST_RUN repeats one packet, and what a cache miss costs shows only with many flows.
 * Includes the programs' source, so that what is measured is what is attached.
 *
 * Relies on world.c to put the maps of a loaded datapath in place of this object's own.
 */
#include "tests/bench/datapath.h"
#include "bpf/redirect.bpf.c"

/* Where the last words of the addresses and the ports of the bench's packets are. */
#define IPV4_SADDR 26
#define IPV4_DADDR 30
#define IPV4_PORTS 34
#define IPV6_SADDR 34
#define IPV6_DADDR 50
#define IPV6_PORTS 54

struct bench_run run;

static __always_inline void write_flow(void *saddr, void *daddr, void *ports, __u32 flow)
{
	__be16 port = bpf_htons(BENCH_PORT_FIRST + (flow & 0x7fff));

	*(__be32 *)saddr = bpf_htonl(run.source.first + (flow >> run.source.shift));
	*(__be32 *)daddr = bpf_htonl(run.destination.first + (flow >> run.destination.shift));
	((__be16 *)ports)[0] = run.reply ? run.service : port;
	((__be16 *)ports)[1] = run.reply ? port : run.service;
}

/*
 * Turns the packet into that of the next flow. The counter is a full barrier: no iteration's cache
 * misses overlap with the next one's.
 */
static __always_inline bool make_packet(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 n = __sync_fetch_and_add(&run.next, 1);
	__u32 flow = run.first + (n * run.stride & run.mask);

	if (run.ipv6) {
		if (data + IPV6_PORTS + 4 > end)
			return false;
		write_flow(data + IPV6_SADDR, data + IPV6_DADDR, data + IPV6_PORTS, flow);
		return true;
	}
	if (data + IPV4_PORTS + 4 > end)
		return false;
	write_flow(data + IPV4_SADDR, data + IPV4_DADDR, data + IPV4_PORTS, flow);
	return true;
}

SEC("tc")
int bench_nothing(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

SEC("tc")
int bench_packet(struct __sk_buff *skb)
{
	make_packet(skb);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int bench_in(struct __sk_buff *skb)
{
	return make_packet(skb) ? ingress(skb, true) : TC_ACT_SHOT;
}

SEC("tc")
int bench_out(struct __sk_buff *skb)
{
	return make_packet(skb) ? egress(skb, true) : TC_ACT_SHOT;
}

/*
 * The way of an established packet at ingress, cut off after one of its steps. Mirrors ingress()
 * and forward(); what a step found is kept from the compiler, which else would not look for it.
 */
enum step {
	STEP_PARSE,
	STEP_PORTS,
	STEP_FIND,
	STEP_ACCOUNT,
};

#define KEEP(variable) asm volatile("" ::"r"(&(variable)) : "memory")

static __always_inline int ingress_until(struct __sk_buff *skb, enum step last)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	__u32 port, reply_port, now;
	struct found found;
	struct packet *p;
	struct flow *f;

	if (!make_packet(skb) || !c || !counts)
		return TC_ACT_SHOT;
	p = &scratch_of(counts)->packet;
	if (parse_packet(skb, true, p) != PARSE_OK)
		return TC_ACT_SHOT;
	counts->packets += p->count;
	counts->bytes += p->bytes;
	if (last == STEP_PARSE)
		return TC_ACT_UNSPEC;
	port = rule_port(c->bank, p->protocol == IPPROTO_UDP, p->tuple.dport);
	reply_port = rule_port(c->bank, p->protocol == IPPROTO_UDP, p->tuple.sport);
	if (!(port & (PORT_SHAPE | PORT_LISTEN)) && !(reply_port & PORT_REPLY_IN))
		return TC_ACT_SHOT;
	if (last == STEP_PORTS)
		return TC_ACT_UNSPEC;
	now = clock_ticks();
	if (!table_find(&p->tuple, table_hash(c, &p->tuple), STAGE_IN, &found))
		return TC_ACT_SHOT;
	KEEP(found);
	if (last == STEP_FIND)
		return TC_ACT_UNSPEC;
	if (claim(c, p, &found, STAGE_IN, skb->ifindex, now) != CLAIM_LIVES)
		return TC_ACT_SHOT;
	f = found.flow;
	flow_update_state(&found, p);
	flow_count(found.direction == DIRECTION_ORIGINAL ? &f->original : &f->reply, p, now);
	event_packet(c, f, found.direction, p->bytes);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int bench_until_parse(struct __sk_buff *skb)
{
	return ingress_until(skb, STEP_PARSE);
}

SEC("tc")
int bench_until_ports(struct __sk_buff *skb)
{
	return ingress_until(skb, STEP_PORTS);
}

SEC("tc")
int bench_until_find(struct __sk_buff *skb)
{
	return ingress_until(skb, STEP_FIND);
}

SEC("tc")
int bench_until_account(struct __sk_buff *skb)
{
	return ingress_until(skb, STEP_ACCOUNT);
}
