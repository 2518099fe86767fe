/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP and ICMPv6 errors about packets of our flows. An error quotes the packet that it is about
 * (RFC 792; RFC 4443, 2.4 c), and its receiver finds the socket by the quote. So the quote must
 * become the packet that the receiver sent: path MTU discovery and "port unreachable" hang on it
 * (RFC 5508, REQ-3 to REQ-5).
 *
 *   ingress: an error from the path about a reply, which left this host translated
 *   egress:  this host's error about a packet that came in and was translated
 *
 * A quote may be cut anywhere. Ports are in the first 4 bytes of TCP and UDP; the checksum is kept
 * right where the quote reaches it, as UDP's in the usual 8 bytes. What lies behind the message is
 * the link's padding and none of it.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>

#include "packet.bpf.h"
#include "parse.bpf.h"
#include "rule.bpf.h"
#include "table.bpf.h"

/* <linux/icmp.h> of the UAPI includes the C library. */
enum icmp_error_type {
	ICMP_DEST_UNREACH = 3,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETERPROB = 12,
	ICMPV6_DEST_UNREACH = 1, /* the errors that RFC 4443 defines end with 4 */
	ICMPV6_PARAMPROB = 4,
};

#define ICMP_QUOTE 8  /* offset of the quote in an error, of both protocols */
#define ICMP_REACH 64 /* a header begins this far before PACKET_OFFSET_MAX, or is not looked at */

/* Both protocols' header begins like this. */
struct icmp_head {
	__u8 type, code;
	__sum16 checksum;
};

static __always_inline bool icmp_is_error(__u8 type, bool ipv6)
{
	if (ipv6)
		return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETERPROB;
}

/* As packet_at(), within the message that ends at `end`. */
static __always_inline void *icmp_at(struct __sk_buff *skb, __u32 end, __u32 offset, __u32 length,
				     void *buffer)
{
	if (offset > PACKET_OFFSET_MAX - ICMP_REACH || offset + length > end)
		return NULL;
	/* The mask in packet_at() has to stay: the verifier learns from it what the compiler knows.
	 */
	barrier_var(offset);
	return packet_at(skb, offset, length, buffer);
}

/* The quoted headers, at `p->l3`; lengths are not judged, since a quote may be cut anywhere. */
static __always_inline bool icmp_parse_ipv4(struct __sk_buff *skb, __u32 end, struct packet *p)
{
	struct iphdr buffer, *ip = icmp_at(skb, end, p->l3, sizeof(*ip), &buffer);

	if (!ip || ip->version != 4 || ip->ihl < 5 ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return false;
	p->protocol = ip->protocol;
	p->l4 = p->l3 + ip->ihl * 4;
	p->tuple.saddr[2] = p->tuple.daddr[2] = bpf_htonl(0xffff);
	/* The inverse: the tuple of a packet in the other direction, which the table knows. */
	p->tuple.saddr[3] = ip->daddr;
	p->tuple.daddr[3] = ip->saddr;
	return true;
}

/*
 * Walks the extension headers of a quoted IPv6 packet, of which the first is `next`, at `offset`.
 * Returns protocol and offset of what follows them, or 0. A global function, for the verifier's
 * sake.
 */
#define ICMP_FOUND(protocol, offset) ((offset) << 8 | (protocol))

__noinline __u32 icmp_skip_extensions(struct __sk_buff *skb, __u32 offset, __u32 end, __u32 next)
{
	for (int i = 0; i < PARSE_EXTENSIONS_MAX; i++) {
		struct ipv6_extension buffer, *ext;

		if (!parse_is_extension(next))
			break;
		ext = icmp_at(skb, end, offset, sizeof(*ext), &buffer);
		if (!ext)
			return 0;
		if (next != IPPROTO_FRAGMENT)
			offset += 8 + ext->length * 8;
		else if (ext->offset & bpf_htons(IPV6_FRAGMENT_OFFSET))
			return 0;
		else
			offset += 8;
		next = ext->next;
	}
	return ICMP_FOUND(next & 0xff, offset);
}

static __always_inline bool icmp_parse_ipv6(struct __sk_buff *skb, __u32 end, struct packet *p)
{
	struct ipv6hdr buffer, *ip = icmp_at(skb, end, p->l3, sizeof(*ip), &buffer);
	__u32 found;

	if (!ip || ip->version != 6)
		return false;
	__builtin_memcpy(p->tuple.saddr, &ip->daddr, 16);
	__builtin_memcpy(p->tuple.daddr, &ip->saddr, 16);
	p->tuple.kind = FLOW_IPV6;
	found = icmp_skip_extensions(skb, p->l3 + sizeof(*ip), end, ip->nexthdr);
	p->protocol = found & 0xff;
	p->l4 = found >> 8;
	return found;
}

static __always_inline bool icmp_parse_quote(struct __sk_buff *skb, __u32 end, bool ipv6,
					     struct packet *p)
{
	struct {
		__be16 source, dest;
	} buffer, *ports;

	if (!(ipv6 ? icmp_parse_ipv6(skb, end, p) : icmp_parse_ipv4(skb, end, p)))
		return false;
	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return false;
	ports = icmp_at(skb, end, p->l4, sizeof(*ports), &buffer);
	if (!ports)
		return false;
	p->tuple.sport = ports->dest;
	p->tuple.dport = ports->source;
	if (p->protocol == IPPROTO_UDP)
		p->tuple.kind |= FLOW_UDP;
	return true;
}

/* Replaces bytes that the ICMP checksum covers. */
static __always_inline int icmp_replace(struct __sk_buff *skb, __u32 checksum, __u32 offset,
					__be32 from, __be32 to, __u32 size)
{
	int r = bpf_l4_csum_replace(skb, checksum, from, to, size);

	return r < 0 ? r : bpf_skb_store_bytes(skb, offset, &to, size, 0);
}

/* The quoted checksum after its packet's ports: RFC 1624, equation 3. */
static __always_inline __sum16 icmp_updated_checksum(__sum16 old, __be32 from, __be32 to)
{
	__u32 sum = (__u16)~old;

	sum += (__u16) ~(from & 0xffff) + (__u16) ~(from >> 16) + (to & 0xffff) + (to >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The quote's own checksum, where it is quoted. UDP's zero says that there is none. */
static __always_inline int icmp_replace_quoted_checksum(struct __sk_buff *skb, __u32 end,
							__u32 checksum, const struct packet *p,
							__be32 from, __be32 to)
{
	bool udp = p->protocol == IPPROTO_UDP;
	__u32 offset =
		p->l4 + (udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check));
	__sum16 old, new;

	if (offset + sizeof(old) > end)
		return 0;
	if (bpf_skb_load_bytes(skb, offset, &old, sizeof(old)) < 0 || (udp && !old))
		return 0;
	new = icmp_updated_checksum(old, from, to);
	if (udp && !new)
		new = 0xffff;
	return icmp_replace(skb, checksum, offset, old, new, sizeof(new));
}

/*
 * Translates the quote of the ICMP message between `l4` and `end`. Returns 1 if it was about a
 * flow of ours; 0 if not, the packet is untouched then; negative when the kernel had no memory to
 * write it. A global function, for the verifier's sake.
 */
__noinline int icmp_translate(struct __sk_buff *skb, __u32 l4, __u32 end, __u32 ipv6, __u32 egress)
{
	__u32 checksum = l4 + offsetof(struct icmp_head, checksum);
	struct icmp_head buffer, *head = icmp_at(skb, end, l4, sizeof(*head), &buffer);
	struct datapath_config *c = config_get();
	/* Not on the stack: with the callers' it may not exceed 512 bytes (kernels before 6.13). */
	struct packet *p = rule_current();
	const struct flow_dir *sent;
	struct found found;
	__be32 from, to;
	int r;

	if (!c || !p || !head || !icmp_is_error(head->type, ipv6))
		return 0;
	*p = (struct packet){.l3 = l4 + ICMP_QUOTE};
	if (!icmp_parse_quote(skb, end, ipv6, p))
		return 0;
	if (!table_find(&p->tuple, table_hash(c, &p->tuple), &found) ||
	    found.direction != (egress ? DIRECTION_REPLY : DIRECTION_ORIGINAL))
		return 0;
	/* What the receiver of the error sent: the other direction, before it was translated. */
	sent = egress ? &found.flow->original : &found.flow->reply;
	to = *(const __be32 *)&sent->sport;
	if (table_seq(found.flow) != found.seq)
		return 0;
	from = p->tuple.ports << 16 | p->tuple.ports >> 16;
	if (from == to)
		return 1;
	r = icmp_replace_quoted_checksum(skb, end, checksum, p, from, to);
	if (r == 0)
		r = icmp_replace(skb, checksum, p->l4, from, to, sizeof(to));
	return r < 0 ? r : 1;
}
