/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes a packet's new ports. The kernel's helper keeps the checksum right in every state that
 * it can be in: complete, partial (to be filled in by the NIC), unnecessary, and UDP's zero, which
 * stays zero, while a computed zero becomes 0xffff (RFC 768).
 */
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>

#include "parse.bpf.h"
#include "table.bpf.h"

/* The ports that a packet of this direction leaves with: the inverse of the other direction's. */
static __always_inline __be32 nat_ports(const struct flow *f, __u32 direction)
{
	const struct flow_dir *other = direction == DIRECTION_ORIGINAL ? &f->reply : &f->original;
	union {
		struct {
			__be16 sport, dport;
		};
		__be32 both;
	} ports = {.sport = other->dport, .dport = other->sport};

	return ports.both;
}

/* Both ports are the first four bytes of TCP and UDP alike: one checksum update, one store. */
static __always_inline int nat_write_ports(struct __sk_buff *skb, const struct packet *p,
					   __be32 ports)
{
	int r;

	if (ports == p->tuple.ports)
		return 0;
	if (p->protocol == IPPROTO_TCP)
		r = bpf_l4_csum_replace(skb, p->l4 + offsetof(struct tcphdr, check), p->tuple.ports,
					ports, sizeof(ports));
	else
		r = bpf_l4_csum_replace(skb, p->l4 + offsetof(struct udphdr, check), p->tuple.ports,
					ports, sizeof(ports) | BPF_F_MARK_MANGLED_0);
	if (r < 0)
		return r;
	return bpf_skb_store_bytes(skb, p->l4, &ports, sizeof(ports), 0);
}
