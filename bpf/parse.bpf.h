/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From bytes to `struct packet`: Ethernet or none, up to two inline VLAN tags, IPv4 with options,
 * IPv6 with extension headers, TCP or UDP. Whatever does not hold together is left alone, with the
 * reason; nothing is ever dropped here.
 *
 * Lengths are checked as RFC 791 (3.1), RFC 8200 (3, 4), RFC 9293 (3.1) and RFC 768 define them.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "packet.bpf.h"
#include "shared/abi.h"

#define PARSE_OK	     REASON_COUNT
#define PARSE_VLANS_MAX	     2
#define PARSE_EXTENSIONS_MAX 8

#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_MORE_FRAGMENTS  0x2000
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_MORE_FRAGMENTS  0x0001

enum tcp_flag_bits {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

/* The addresses and ports of a packet and what tells apart equal ones. */
struct tuple {
	__be32 saddr[4], daddr[4];
	union {
		struct {
			__be16 sport, dport;
		};
		__be32 ports;
	};
	__u32 kind; /* of FLOW_KIND */
};

struct packet {
	struct tuple tuple;
	__u32 l3, l4;	 /* offsets in the skb; l4 also of ICMP that is all there, else 0 */
	__u32 l4_length; /* from l4 to the end of the IP packet */
	__u32 header;	 /* bytes of IP and L4 headers, which every GSO segment repeats */
	__u32 count;	 /* packets on the wire: a GSO packet stands for its segments */
	__u32 bytes;	 /* their IP length together */
	__u32 fragment;	 /* identification of a fragment, first or later */
	__u32 rules;	 /* rule_generation() before any was looked at */
	__u8 tcp_flags;
	__u8 protocol;
	__u8 first_fragment; /* more follow, so lengths inside speak of the whole datagram */
	__u8 pad;
};

/* Same layout as the kernel's; <linux/if_vlan.h> of the UAPI does not have it. */
struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

struct ipv6_extension {
	__u8 next, length;
	__be16 offset; /* of a fragment header (RFC 8200, 4.5) */
};
#define IPV6_FRAGMENT_ID 4 /* offset of the identification in it */

static __always_inline int parse_vlan(struct __sk_buff *skb, __u32 *offset, __be16 *protocol)
{
#pragma unroll
	for (int i = 0; i < PARSE_VLANS_MAX; i++) {
		struct vlan_tag buffer, *tag;

		if (*protocol != bpf_htons(ETH_P_8021Q) && *protocol != bpf_htons(ETH_P_8021AD))
			return PARSE_OK;
		tag = packet_at(skb, *offset, sizeof(*tag), &buffer);
		if (!tag)
			return REASON_TRUNCATED;
		*protocol = tag->protocol;
		*offset += sizeof(*tag);
	}
	if (*protocol == bpf_htons(ETH_P_8021Q) || *protocol == bpf_htons(ETH_P_8021AD))
		return REASON_EXTENSIONS;
	return PARSE_OK;
}

/*
 * Bytes of IP that the skb holds, `claimed` by its header. A GSO packet may say 0 (BIG TCP) or the
 * length of the whole; it has no padding behind it, so the skb's own length is right.
 */
static __always_inline int parse_ip_length(struct __sk_buff *skb, struct packet *p, __u32 claimed,
					   __u32 header)
{
	__u32 held = skb->len - p->l3;

	if (skb->gso_size)
		claimed = held;
	if (claimed < header)
		return REASON_MALFORMED;
	if (claimed > held)
		return REASON_TRUNCATED;
	p->bytes = claimed;
	p->l4_length = claimed - header;
	p->l4 = p->l3 + header;
	return PARSE_OK;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr buffer, *ip;
	__u32 header;

	ip = packet_at(skb, p->l3, sizeof(*ip), &buffer);
	if (!ip)
		return REASON_TRUNCATED;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return REASON_MALFORMED;
	p->protocol = ip->protocol;
	p->tuple.saddr[0] = p->tuple.saddr[1] = 0;
	p->tuple.daddr[0] = p->tuple.daddr[1] = 0;
	p->tuple.saddr[2] = p->tuple.daddr[2] = bpf_htonl(0xffff);
	p->tuple.saddr[3] = ip->saddr;
	p->tuple.daddr[3] = ip->daddr;
	p->fragment = ip->id;
	if (p->protocol == IPPROTO_ICMP &&
	    !(ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)))
		parse_ip_length(skb, p, bpf_ntohs(ip->tot_len), header);
	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return REASON_NOT_TCP_UDP;
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)) {
		p->bytes = bpf_ntohs(ip->tot_len);
		return REASON_FRAGMENT;
	}
	p->first_fragment = !!(ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS));
	return parse_ip_length(skb, p, bpf_ntohs(ip->tot_len), header);
}

/* The headers that may stand between IPv6's and TCP's. */
static __always_inline bool parse_is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_FRAGMENT;
}

static __always_inline int parse_ipv6_fragment(struct __sk_buff *skb, struct packet *p,
					       __u32 header)
{
	__be32 buffer, *id = packet_at(skb, header + IPV6_FRAGMENT_ID, sizeof(*id), &buffer);

	if (!id)
		return REASON_TRUNCATED;
	p->fragment = *id;
	return PARSE_OK;
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr buffer, *ip;
	__u32 header = sizeof(*ip);
	__u8 next;

	ip = packet_at(skb, p->l3, sizeof(*ip), &buffer);
	if (!ip)
		return REASON_TRUNCATED;
	if (ip->version != 6)
		return REASON_MALFORMED;
	next = ip->nexthdr;
	__builtin_memcpy(p->tuple.saddr, &ip->saddr, 16);
	__builtin_memcpy(p->tuple.daddr, &ip->daddr, 16);
	p->tuple.kind = FLOW_IPV6;
	p->bytes = bpf_ntohs(ip->payload_len) + sizeof(*ip);

	if (next != IPPROTO_TCP && next != IPPROTO_UDP) {
		for (int i = 0; i < PARSE_EXTENSIONS_MAX; i++) {
			struct ipv6_extension ext_buffer, *ext;

			if (!parse_is_extension(next))
				break;
			if (header > PACKET_OFFSET_MAX - 64)
				return REASON_EXTENSIONS;
			ext = packet_at(skb, p->l3 + header, sizeof(*ext), &ext_buffer);
			if (!ext)
				return REASON_TRUNCATED;
			if (next == IPPROTO_FRAGMENT) {
				p->protocol = ext->next;
				if (parse_ipv6_fragment(skb, p, p->l3 + header) != PARSE_OK)
					return REASON_TRUNCATED;
				if (ext->offset & bpf_htons(IPV6_FRAGMENT_OFFSET))
					return REASON_FRAGMENT;
				p->first_fragment =
					!!(ext->offset & bpf_htons(IPV6_MORE_FRAGMENTS));
				header += 8;
			} else {
				header += 8 + ext->length * 8;
			}
			next = ext->next;
		}
		if (parse_is_extension(next))
			return REASON_EXTENSIONS;
		if (next == IPPROTO_ICMPV6 && !p->first_fragment)
			parse_ip_length(skb, p, p->bytes, header);
		if (next != IPPROTO_TCP && next != IPPROTO_UDP)
			return REASON_NOT_TCP_UDP;
		if (header > PACKET_OFFSET_MAX - 64)
			return REASON_EXTENSIONS;
	}
	p->protocol = next;
	return parse_ip_length(skb, p, p->bytes, header);
}

static __always_inline int parse_udp(struct __sk_buff *skb, struct packet *p)
{
	struct udphdr buffer, *udp;
	__u32 length;

	if (p->l4_length < sizeof(*udp))
		return REASON_MALFORMED;
	udp = packet_at(skb, p->l4, sizeof(*udp), &buffer);
	if (!udp)
		return REASON_TRUNCATED;
	length = bpf_ntohs(udp->len);
	if (!skb->gso_size &&
	    (length < sizeof(*udp) || (length > p->l4_length && !p->first_fragment)))
		return REASON_MALFORMED;
	p->tuple.sport = udp->source;
	p->tuple.dport = udp->dest;
	p->tuple.kind |= FLOW_UDP;
	p->tcp_flags = 0;
	p->header += sizeof(*udp);
	return PARSE_OK;
}

static __always_inline int parse_tcp(struct __sk_buff *skb, struct packet *p)
{
	struct tcphdr buffer, *tcp;
	__u32 header;

	if (p->l4_length < sizeof(*tcp))
		return REASON_MALFORMED;
	tcp = packet_at(skb, p->l4, sizeof(*tcp), &buffer);
	if (!tcp)
		return REASON_TRUNCATED;
	header = tcp->doff * 4;
	if (header < sizeof(*tcp) || header > p->l4_length)
		return REASON_MALFORMED;
	p->tuple.sport = tcp->source;
	p->tuple.dport = tcp->dest;
	p->tcp_flags = ((__u8 *)tcp)[13];
	p->header += header;
	return PARSE_OK;
}

/*
 * Fills the packet. Returns PARSE_OK or the reason why it is left alone; `bytes` is set either way,
 * to the IP length or, where there is none, to what the skb holds behind the link header.
 */
static __always_inline int parse_packet(struct __sk_buff *skb, bool ethernet, struct packet *p)
{
	__be16 protocol = skb->protocol;
	__u32 segments = skb->gso_segs;
	int r;

	p->l3 = ethernet ? ETH_HLEN : 0;
	p->l4 = p->l4_length = 0;
	p->first_fragment = 0;
	p->tuple.ports = p->tuple.kind = 0;
	p->count = segments ? segments : 1;
	p->bytes = skb->len - p->l3;
	if (ethernet) {
		r = parse_vlan(skb, &p->l3, &protocol);
		if (r != PARSE_OK)
			return r;
	}
	if (protocol == bpf_htons(ETH_P_IP))
		r = parse_ipv4(skb, p);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		r = parse_ipv6(skb, p);
	else
		return REASON_NOT_IP;
	if (r != PARSE_OK)
		return r;

	p->header = p->l4 - p->l3;
	if (p->protocol == IPPROTO_TCP)
		r = parse_tcp(skb, p);
	else
		r = parse_udp(skb, p);
	if (r != PARSE_OK)
		return r;
	/* The segments behind the first carry a copy of the headers each. */
	p->bytes += (p->count - 1) * p->header;
	/* One path to the verifier from here on, instead of one a kind of header passed through:
	 * what is in the scratch is read again. */
	barrier();
	return PARSE_OK;
}
