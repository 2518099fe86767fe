/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which rule takes a packet: port table, then the port's shapes from the most specific on, then
 * one hash lookup a shape, and what the rule found there does. Only packets without a flow come
 * here, established ones never.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "packet.bpf.h"
#include "parse.bpf.h"
#include "stats.bpf.h"

#define RULE_TRIES 4 /* changes of rules in the time of one search */

/* Of the rules that are read from here on, or older. */
static __always_inline __u32 rule_generation(const struct datapath_config *c)
{
	__u32 generation = *(const volatile __u32 *)&c->generation;

	barrier();
	return generation;
}

static __always_inline __u32 rule_port(__u32 bank, bool udp, __be16 port)
{
	__u32 key = PORT_INDEX(udp, bpf_ntohs(port));
	struct port_entry *e = bpf_map_lookup_elem(&ports, &key);

	return e ? e->bank[bank & 1] : 0;
}

static __always_inline bool rule_is_local(const __be32 addr[4])
{
	struct local_key key = {.length = 128};

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&locals, &key) != NULL;
}

/* max(n, 0), in a way that the compiler does not turn into a jump. */
static __always_inline __s64 rule_not_negative(__s64 n)
{
	__s64 sign = n >> 63;

	barrier_var(sign);
	return n & ~sign;
}

/* Without jumps: the verifier would follow each of them, for every word and shape of a chain. */
static __always_inline void rule_mask(__be32 to[4], const __be32 from[4], __u32 length)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__s64 bits = rule_not_negative((__s64)length - 32 * i);
		__s64 rest = rule_not_negative(32 - bits);

		to[i] = from[i] & bpf_htonl((__u32)(0xffffffffULL << rest));
	}
}

static __always_inline __u32 rule_bound(__u32 binding, __u32 bank)
{
	struct binding *b = bpf_map_lookup_elem(&bindings, &binding);

	return b ? b->action[bank & 1] : 0;
}

_Static_assert(SHAPE_INTERFACE == 1, "rule_look() multiplies by it");

/* rule_find() in one bank, from a port's first shape on. */
__noinline __u32 rule_look(__u32 ifindex, __u32 id, __u32 bank)
{
	struct packet *p = packet_current();
	struct tuple *t;
	__u32 unmet;

	if (!p)
		return 0;
	t = &p->tuple;
	/* What a shape may ask for and this packet does not have; one number to the verifier. */
	unmet = t->kind & FLOW_IPV6 ? SHAPE_IPV4 : SHAPE_IPV6;
	if (!rule_is_local(t->daddr))
		unmet |= SHAPE_LOCAL;
	unmet = packet_forget(unmet, ifindex);
	for (int i = 0; i < SHAPE_CHAIN_MAX; i++) {
		struct match_key key;
		struct shape *s;
		__u32 *binding, action;

		if (!id)
			return 0;
		s = bpf_map_lookup_elem(&shapes, &id);
		if (!s)
			return 0;
		key.shape = id;
		id = s->next;
		if (s->flags & unmet)
			continue;
		if (s->binding) {
			action = rule_bound(s->binding, bank);
			if (action)
				return action;
			continue;
		}
		key.ifindex = ifindex * (s->flags & SHAPE_INTERFACE);
		rule_mask(key.daddr, t->daddr, s->dst_length);
		rule_mask(key.saddr, t->saddr, s->src_length);
		binding = bpf_map_lookup_elem(&matches, &key);
		action = binding ? rule_bound(*binding, bank) : 0;
		if (action)
			return action;
	}
	return 0;
}

/*
 * The action id of the rule that takes the current packet, by its destination port, or 0. Once a
 * bank is not in use any more it is brought up to date: who was still looking at it looks again.
 */
__noinline __u32 rule_find(__u32 ifindex)
{
	struct datapath_config *c = config_get();
	struct packet *p = packet_current();
	__u32 action = 0;

	if (!c || !p)
		return 0;
	for (int i = 0; i < RULE_TRIES; i++) {
		__u32 generation = rule_generation(c), bank = c->bank;
		__u32 port = rule_port(bank, p->tuple.kind & FLOW_UDP, p->tuple.dport);

		action = rule_look(ifindex, port & PORT_SHAPE, bank);
		barrier();
		if (rule_generation(c) == generation)
			break;
	}
	return action;
}

static __always_inline struct action *rule_action(__u32 id)
{
	return bpf_map_lookup_elem(&actions, &id);
}
