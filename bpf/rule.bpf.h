/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which rule takes a packet: port table, then the port's shapes from the most specific on, then
 * one hash lookup a shape. Only packets without a flow come here, established ones never.
 */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "parse.bpf.h"

static __always_inline __u32 rule_port(const struct datapath_config *c, bool udp, __be16 port)
{
	__u32 key = PORT_INDEX(udp, bpf_ntohs(port));
	struct port_entry *e = bpf_map_lookup_elem(&ports, &key);

	return e ? e->bank[c->bank & 1] : 0;
}

static __always_inline bool rule_is_local(const __be32 addr[4])
{
	struct local_key key = {.length = 128};

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&locals, &key) != NULL;
}

static __always_inline void rule_mask(__be32 to[4], const __be32 from[4], __u32 length)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 bits = length > 32U * i ? length - 32 * i : 0;

		if (bits >= 32)
			to[i] = from[i];
		else
			to[i] = from[i] & bpf_htonl(~(0xffffffffU >> bits));
	}
}

static __always_inline struct packet *rule_current(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&current, &zero);
}

/* The action id of the rule that takes the current packet, or 0. `port`: rule_port()'s answer. */
__noinline __u32 rule_find(__u32 ifindex, __u32 port)
{
	struct packet *p = rule_current();
	__u32 id = port & PORT_SHAPE;
	__u8 other_family;
	struct tuple *t;
	bool local;

	if (!p)
		return 0;
	t = &p->tuple;
	local = rule_is_local(t->daddr);
	other_family = t->kind & FLOW_IPV6 ? SHAPE_IPV4 : SHAPE_IPV6;
	for (int i = 0; i < SHAPE_CHAIN_MAX; i++) {
		struct match_key key = {};
		struct shape *s;
		__u32 *action;

		if (!id)
			return 0;
		s = bpf_map_lookup_elem(&shapes, &id);
		if (!s)
			return 0;
		key.shape = id;
		id = s->next;
		if ((s->flags & SHAPE_LOCAL && !local) || s->flags & other_family)
			continue;
		if (s->action)
			return s->action;
		if (s->flags & SHAPE_INTERFACE)
			key.ifindex = ifindex;
		rule_mask(key.daddr, t->daddr, s->dst_length);
		rule_mask(key.saddr, t->saddr, s->src_length);
		action = bpf_map_lookup_elem(&matches, &key);
		if (action)
			return *action;
	}
	return 0;
}

static __always_inline struct action *rule_action(__u32 id)
{
	return bpf_map_lookup_elem(&actions, &id);
}

/* The target's port for a packet to `port`: shifted along with it, or the one port. */
static __always_inline __be16 rule_target_port(const struct action *a, __be16 port)
{
	if (a->flags & ACTION_FOLDED)
		return bpf_htons(a->target_first);
	return bpf_htons(bpf_ntohs(port) - a->listen_first + a->target_first);
}
