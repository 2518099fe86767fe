/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which target a new flow goes to, and to which port of it. With several targets the flow's hash
 * picks a slot of the rule's table, which the daemon has filled by weight; the table decides
 * whether a change of targets moves much (hash) or little (maglev).
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "parse.bpf.h"
#include "rule.bpf.h"
#include "table.bpf.h"

/*
 * MurmurHash3's mixing (Appleby) over the tuple. No secret: gateways with the same rule must agree,
 * and a client that aims at one target gains nothing.
 */
static __always_inline __u32 target_hash(const struct tuple *t)
{
	__u32 h = t->ports ^ t->kind * 0x9e3779b1U;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		h = (h ^ t->saddr[i]) * 0xcc9e2d51U;
		h = (h ^ h >> 15 ^ t->daddr[i]) * 0x1b873593U;
		h ^= h >> 13;
	}
	h = (h ^ h >> 16) * 0x85ebca6bU;
	h = (h ^ h >> 13) * 0xc2b2ae35U;
	return h ^ h >> 16;
}

static __always_inline __u32 target_slot(const struct action *a, const struct tuple *t)
{
	__u32 slot = a->flags & ACTION_RANDOM ? bpf_get_prandom_u32() : target_hash(t);

	slot %= BALANCE_SLOTS;
	/* The mask has to stay: before Linux 5.13 the verifier learns nothing from a remainder. */
	barrier_var(slot);
	return slot & BALANCE_SLOTS;
}
_Static_assert((BALANCE_SLOTS & (BALANCE_SLOTS + 1)) == 0, "target_slot() masks by it");

/* The port for a packet to `port`: shifted along with it, or the one port. */
static __always_inline __be16 target_port(const struct action *a, const struct target *t,
					  __be16 port)
{
	if (t->flags & TARGET_FOLDED)
		return bpf_htons(t->port_first);
	return bpf_htons(bpf_ntohs(port) - a->listen_first + t->port_first);
}

/* Where packets of a flow go by a target: is it where the flow's go? */
static __always_inline bool target_is(const struct action *a, const struct target *t,
				      const struct flow *f)
{
	const __be32 *addr = t->flags & TARGET_ADDRESS ? t->addr : f->original.daddr;

	return t->flags & TARGET_SET && f->reply.sport == target_port(a, t, f->original.dport) &&
	       table_same_addr(f->reply.saddr, addr);
}

/* Gives the flow in a record, as it is being made, its target. Returns false if there is none. */
static __always_inline bool target_choose(__u32 action, const struct action *a, struct flow *f,
					  const struct tuple *t)
{
	const struct target *target = &a->target;
	struct balance *b;
	__u32 number = a->number;

	if (a->flags & ACTION_BALANCE) {
		b = bpf_map_lookup_elem(&balances, &action);
		if (!b)
			return false;
		number = b->slots[target_slot(a, t)] & (BALANCE_TARGETS - 1);
		target = &b->targets[number];
	}
	__builtin_memcpy(f->reply.saddr, target->flags & TARGET_ADDRESS ? target->addr : t->daddr,
			 16);
	f->reply.sport = target_port(a, target, t->dport);
	f->origin = FLOW_ORIGIN(f->origin, number);
	return true;
}

/* Is the target of a flow still one of the rule's? */
static __always_inline bool target_remains(__u32 action, const struct action *a,
					   const struct flow *f)
{
	struct balance *b;

	if (!(a->flags & ACTION_BALANCE))
		return target_is(a, &a->target, f);
	b = bpf_map_lookup_elem(&balances, &action);
	if (!b)
		return false;
	for (int i = 0; i < BALANCE_TARGETS; i++)
		if (target_is(a, &b->targets[i], f))
			return true;
	return false;
}
