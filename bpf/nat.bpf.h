/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes a packet's new addresses and ports. The kernel's helpers keep the checksums right in every
 * state that they can be in: complete, partial (to be filled in by the NIC), unnecessary, and UDP's
 * zero, which stays zero, while a computed zero becomes 0xffff (RFC 768).
 *
 * A packet of one direction becomes the inverse of the other direction's tuple. Its destination is
 * translated where it comes in, before routing, its source's address where it leaves: a packet that
 * came in with one of this host's own addresses as its source would be dropped as a martian, and
 * only as it leaves is it known to have passed. (nf_nat: PREROUTING, POSTROUTING.) Both ports go
 * together: with the original direction's destination, and the reply's source.
 *
 * FLOW_LOCAL, a client of this host whose server is another: its packets come in at lo with a route
 * to this host, which no translation of their destination changes, and the answers do not leave.
 * They are translated whole where they come in, and go through lo once more, without a route: the
 * IP stack then sends them on, in fragments or with an error where they are too large, or delivers
 * them. It takes IPv4 packets with a source of its own only if net.ipv4.conf.lo.accept_local says
 * so, and with a loopback address only by route_localnet.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "parse.bpf.h"
#include "source.bpf.h"
#include "table.bpf.h"

/*
 * What the packets of a direction become, in the end: the inverse of the other direction's tuple.
 * Copied, so that the caller can make sure that it is of the flow that was found.
 */
static __always_inline void nat_become(const struct flow *f, __u32 direction, struct tuple *ret)
{
	const struct flow_dir *other = direction == DIRECTION_ORIGINAL ? &f->reply : &f->original;

	__builtin_memcpy(ret->saddr, other->daddr, 16);
	__builtin_memcpy(ret->daddr, other->saddr, 16);
	ret->ports = table_inverse_ports(table_ports(other));
}

/* Where is its L4 checksum? 0: it has none here, being a later fragment. */
static __always_inline __u32 nat_checksum(const struct packet *p)
{
	if (!p->l4)
		return 0;
	return p->l4 + (p->protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check)
						   : offsetof(struct udphdr, check));
}

static __always_inline __u64 nat_checksum_flags(const struct packet *p)
{
	return p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/*
 * Writes an address into the IP header at `l3`. `checksum` is the offset of an L4 checksum that
 * covers it, 0 for none; `flags` are for that.
 */
static __always_inline int nat_write_ipv4(struct __sk_buff *skb, __u32 l3, bool source,
					  __u32 checksum, __u64 flags, __be32 from, __be32 to)
{
	__u32 offset = source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
	int r;

	r = bpf_l3_csum_replace(skb, l3 + offsetof(struct iphdr, check), from, to, sizeof(to));
	if (r == 0 && checksum)
		r = bpf_l4_csum_replace(skb, checksum, from, to,
					sizeof(to) | BPF_F_PSEUDO_HDR | flags);
	return r < 0 ? r : bpf_skb_store_bytes(skb, l3 + offset, &to, sizeof(to), 0);
}

/*
 * IPv6 has no checksum of its own to make up for the address in a CHECKSUM_COMPLETE sum, so the
 * store has to; the L4 update then is right before Linux 6.16, too, without BPF_F_IPV6.
 */
static __always_inline int nat_write_ipv6(struct __sk_buff *skb, __u32 l3, bool source,
					  __u32 checksum, __u64 flags, const __be32 from[4],
					  const __be32 to[4])
{
	__u32 offset = source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
	long difference;
	int r = 0;

	if (checksum) {
		difference = bpf_csum_diff((__be32 *)from, 16, (__be32 *)to, 16, 0);
		r = bpf_l4_csum_replace(skb, checksum, 0, difference, BPF_F_PSEUDO_HDR | flags);
	}
	return r < 0 ? r : bpf_skb_store_bytes(skb, l3 + offset, to, 16, BPF_F_RECOMPUTE_CSUM);
}

/* The source's or the destination's address, if it changes. */
static __always_inline int nat_write_addr(struct __sk_buff *skb, struct packet *p, bool source,
					  const __be32 to[4])
{
	__be32 *from = source ? p->tuple.saddr : p->tuple.daddr;
	__u64 flags = nat_checksum_flags(p);

	if (table_same_addr(from, to))
		return 0;
	if (p->tuple.kind & FLOW_IPV6)
		return nat_write_ipv6(skb, p->l3, source, nat_checksum(p), flags, from, to);
	return nat_write_ipv4(skb, p->l3, source, nat_checksum(p), flags, from[3], to[3]);
}

/* Both ports are the first four bytes of TCP and UDP alike: one checksum update, one store. */
static __always_inline int nat_write_ports(struct __sk_buff *skb, const struct packet *p,
					   __be32 ports)
{
	int r;

	if (ports == p->tuple.ports || !p->l4)
		return 0;
	r = bpf_l4_csum_replace(skb, nat_checksum(p), p->tuple.ports, ports,
				sizeof(ports) | nat_checksum_flags(p));
	return r < 0 ? r : bpf_skb_store_bytes(skb, p->l4, &ports, sizeof(ports), 0);
}

/* What of a packet is translated at a stage; see above. */
#define NAT_SOURCE	0x01
#define NAT_DESTINATION 0x02
#define NAT_PORTS	0x04
#define NAT_ALL		(NAT_SOURCE | NAT_DESTINATION | NAT_PORTS)

static __always_inline __u32 nat_parts(const struct flow *f, __u32 direction,
				       enum table_stage stage)
{
	if (f->flags & FLOW_LOCAL || stage == STAGE_OUT)
		return NAT_ALL; /* what was translated where it came in stays as it is */
	if (direction == DIRECTION_ORIGINAL)
		return NAT_DESTINATION | NAT_PORTS;
	return NAT_DESTINATION;
}

/*
 * Translates the current packet into the scratch's `key`, in part. Returns 0, or what a helper
 * failed with. A global function, for the verifier's sake.
 */
__noinline int nat_write(struct __sk_buff *skb, __u32 parts)
{
	struct cpu_counters *counts = counters_get();
	const struct tuple *to;
	struct packet *p;
	int r = 0;

	if (!counts)
		return 0;
	p = &scratch_of(counts)->packet;
	to = &scratch_of(counts)->key;

	if (parts & NAT_DESTINATION)
		r = nat_write_addr(skb, p, false, to->daddr);
	if (r == 0 && parts & NAT_SOURCE)
		r = nat_write_addr(skb, p, true, to->saddr);
	if (r == 0 && parts & NAT_PORTS)
		r = nat_write_ports(skb, p, to->ports);
	return r;
}

/*
 * FLOW_LOCAL: the packet again, as one that has just come in at lo, without the route that it may
 * have had. Where a frame begins the packet it has to bear lo's own address to be for this host,
 * and no tag of a VLAN, of which lo has none.
 */
static __always_inline int nat_through_lo(struct __sk_buff *skb, bool ethernet)
{
	struct ethhdr header = {};

	/* One beside the packet, or beside and inside; taking one out is no error where none is. */
	for (int i = 0; ethernet && i < PARSE_VLANS_MAX + 1; i++)
		if (bpf_skb_vlan_pop(skb) < 0)
			return -1;
	header.h_proto = skb->protocol;
	if (!ethernet && bpf_skb_change_head(skb, sizeof(header), 0) < 0)
		return -1;
	if (bpf_skb_store_bytes(skb, 0, &header, sizeof(header), 0) < 0)
		return -1;
	return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
}
