/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP and ICMPv6 errors about packets of our flows. An error quotes the packet that it is about
 * (RFC 792; RFC 4443, 2.4 c), and its receiver finds the socket by the quote. So the quote must
 * become the packet that the receiver sent: path MTU discovery and "port unreachable" hang on it
 * (RFC 5508, REQ-3 to REQ-5).
 *
 *   coming in: an error from the path, or from an end, about a packet that left this host
 *              translated. Quote and destination become those of whoever sent the packet.
 *   leaving:   this host's own error about a packet that came in and was translated: the quote.
 *              Another's, which came in as above: where an end of the flow sent it, its source.
 *
 * The address of a router on the path stays what it is: traceroute shows the truth.
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

#include "nat.bpf.h"
#include "packet.bpf.h"
#include "parse.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"

/* <linux/icmp.h> of the UAPI includes the C library. */
enum icmp_error_type {
	ICMP_DEST_UNREACH = 3,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETERPROB = 12,
	ICMPV6_DEST_UNREACH = 1, /* the errors that RFC 4443 defines end with 4 */
	ICMPV6_PARAMPROB = 4,
};

/* icmp_translate()'s answers; negative: the kernel had no memory to write the packet. */
#define ICMP_NOT_OURS	0
#define ICMP_TRANSLATED 1
#define ICMP_FOR_LOCAL	2 /* and it goes on through lo */

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

/*
 * The quoted headers, at `p->l3`; lengths are not judged, since a quote may be cut anywhere. `p` is
 * the quoted packet.
 */
static __always_inline bool icmp_parse_ipv4(struct __sk_buff *skb, __u32 end, struct packet *p)
{
	struct iphdr buffer, *ip = icmp_at(skb, end, p->l3, sizeof(*ip), &buffer);

	if (!ip || ip->version != 4 || ip->ihl < 5 ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return false;
	p->protocol = ip->protocol;
	p->l4 = p->l3 + ip->ihl * 4;
	p->tuple.saddr[0] = p->tuple.saddr[1] = 0;
	p->tuple.daddr[0] = p->tuple.daddr[1] = 0;
	p->tuple.saddr[2] = p->tuple.daddr[2] = bpf_htonl(0xffff);
	p->tuple.saddr[3] = ip->saddr;
	p->tuple.daddr[3] = ip->daddr;
	p->tuple.kind = 0;
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
	__builtin_memcpy(p->tuple.saddr, &ip->saddr, 16);
	__builtin_memcpy(p->tuple.daddr, &ip->daddr, 16);
	p->tuple.kind = FLOW_IPV6;
	found = icmp_skip_extensions(skb, p->l3 + sizeof(*ip), end, ip->nexthdr);
	p->protocol = found & 0xff;
	p->l4 = found >> 8;
	return found;
}

/* A global function, for the verifier's sake: the quote becomes the scratch's `quote`. */
__noinline int icmp_parse_quote(struct __sk_buff *skb, __u32 offset, __u32 end, __u32 ipv6)
{
	struct cpu_counters *counts = counters_get();
	__be32 buffer, *ports;
	struct packet *p;

	if (!counts)
		return 0;
	p = &scratch_of(counts)->quote;
	p->l3 = offset;
	if (!(ipv6 ? icmp_parse_ipv6(skb, end, p) : icmp_parse_ipv4(skb, end, p)))
		return 0;
	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return 0;
	ports = icmp_at(skb, end, p->l4, sizeof(*ports), &buffer);
	if (!ports)
		return 0;
	p->tuple.ports = *ports;
	if (p->protocol == IPPROTO_UDP)
		p->tuple.kind |= FLOW_UDP;
	return 1;
}

/* ---- what becomes of it ---- */

/* Replaces bytes that the ICMP checksum covers. */
static __always_inline int icmp_replace(struct __sk_buff *skb, __u32 checksum, __u32 offset,
					__be32 from, __be32 to, __u32 size)
{
	int r = bpf_l4_csum_replace(skb, checksum, from, to, size);

	return r < 0 ? r : bpf_skb_store_bytes(skb, offset, &to, size, 0);
}

/* A sum after one of its words has changed; not inverted. RFC 1624, 3. */
static __always_inline __u32 icmp_sum(__u32 sum, __be32 from, __be32 to)
{
	return sum + (__u16) ~(from & 0xffff) + (__u16) ~(from >> 16) + (to & 0xffff) + (to >> 16);
}

static __always_inline __u32 icmp_sum_addr(__u32 sum, const __be32 from[4], const __be32 to[4])
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum = icmp_sum(sum, from[i], to[i]);
	return sum;
}

static __always_inline __sum16 icmp_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The quoted packet's L4 checksum, where it is quoted. UDP's zero says that there is none. */
static __always_inline int icmp_write_quoted_l4(struct __sk_buff *skb, __u32 end, __u32 checksum,
						const struct packet *q, const struct tuple *to)
{
	bool udp = q->protocol == IPPROTO_UDP;
	__u32 offset = q->l4, sum;
	__sum16 old, new;

	offset += udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check);
	if (offset + sizeof(old) > end)
		return 0;
	if (bpf_skb_load_bytes(skb, offset, &old, sizeof(old)) < 0 || (udp && !old))
		return 0;
	sum = icmp_sum((__u16)~old, q->tuple.ports, to->ports);
	sum = icmp_sum_addr(sum, q->tuple.saddr, to->saddr);
	new = icmp_fold(icmp_sum_addr(sum, q->tuple.daddr, to->daddr));
	if (udp && !new)
		new = 0xffff;
	return icmp_replace(skb, checksum, offset, old, new, sizeof(new));
}

/* One quoted address. Of IPv4 with the quoted header's own checksum. */
static __always_inline int icmp_write_quoted_addr(struct __sk_buff *skb, __u32 checksum,
						  const struct packet *q, bool source,
						  const __be32 from[4], const __be32 to[4])
{
	__u32 offset = q->l3, old_check = 0;
	int r;

	if (table_same_addr(from, to))
		return 0;
	if (q->tuple.kind & FLOW_IPV6) {
		offset +=
			source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
		for (int i = 0; i < 4; i++) {
			r = icmp_replace(skb, checksum, offset + 4 * i, from[i], to[i], 4);
			if (r < 0)
				return r;
		}
		return 0;
	}
	offset += source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
	r = icmp_replace(skb, checksum, offset, from[3], to[3], 4);
	if (r < 0)
		return r;
	offset = q->l3 + offsetof(struct iphdr, check);
	if (bpf_skb_load_bytes(skb, offset, &old_check, sizeof(__sum16)) < 0)
		return -1;
	return icmp_replace(skb, checksum, offset, old_check,
			    icmp_fold(icmp_sum((__u16)~old_check, from[3], to[3])),
			    sizeof(__sum16));
}

/*
 * Makes the scratch's `quote` the packet that the scratch's `key` is the tuple of. `checksum` is
 * the offset of the ICMP checksum. A global function, for the verifier's sake.
 */
__noinline int icmp_write_quote(struct __sk_buff *skb, __u32 checksum, __u32 end)
{
	struct cpu_counters *counts = counters_get();
	const struct packet *q;
	const struct tuple *to;
	int r;

	if (!counts)
		return 0;
	q = &scratch_of(counts)->quote;
	to = &scratch_of(counts)->key;
	r = icmp_write_quoted_l4(skb, end, checksum, q, to);
	if (r == 0)
		r = icmp_write_quoted_addr(skb, checksum, q, true, q->tuple.saddr, to->saddr);
	if (r == 0)
		r = icmp_write_quoted_addr(skb, checksum, q, false, q->tuple.daddr, to->daddr);
	if (r == 0 && q->tuple.ports != to->ports)
		r = icmp_replace(skb, checksum, q->l4, q->tuple.ports, to->ports,
				 sizeof(to->ports));
	return r;
}

/* The error's own address: as a packet's, but that of ICMP only IPv6's checksum covers it. */
static __always_inline int icmp_write_addr(struct __sk_buff *skb, struct packet *p, bool source,
					   const __be32 to[4])
{
	__be32 *from = source ? p->tuple.saddr : p->tuple.daddr;
	__u32 checksum = p->l4 + offsetof(struct icmp_head, checksum);

	if (table_same_addr(from, to))
		return 0;
	if (p->tuple.kind & FLOW_IPV6)
		return nat_write_ipv6(skb, p->l3, source, checksum, 0, from, to);
	return nat_write_ipv4(skb, p->l3, source, 0, 0, from[3], to[3]);
}

/* ---- whose it is ---- */

/* The flow of the quoted packet; `inverse`: of one in the other direction. */
static __always_inline bool icmp_find(const struct datapath_config *c, struct scratch *s,
				      bool inverse, enum table_stage stage, struct found *ret)
{
	const struct tuple *quoted = &s->quote.tuple;

	__builtin_memcpy(s->key.saddr, inverse ? quoted->daddr : quoted->saddr, 16);
	__builtin_memcpy(s->key.daddr, inverse ? quoted->saddr : quoted->daddr, 16);
	s->key.ports = inverse ? table_inverse_ports(quoted->ports) : quoted->ports;
	s->key.kind = quoted->kind;
	return table_find(&s->key, table_hash(c, &s->key), stage, ret);
}

/* The packet as its sender sent it, of the direction that was found by its inverse. */
static __always_inline void icmp_sent(const struct flow *f, __u32 found_by, struct tuple *ret)
{
	const struct flow_dir *sent = found_by == DIRECTION_REPLY ? &f->original : &f->reply;

	__builtin_memcpy(ret->saddr, sent->saddr, 16);
	__builtin_memcpy(ret->daddr, sent->daddr, 16);
	ret->ports = table_ports(sent);
}

/*
 * If the end of the flow to which the quoted packet went has sent the error, it hides behind the
 * address that its packets get. Returns an answer as icmp_translate().
 */
static __always_inline int icmp_hide_end(struct __sk_buff *skb, struct scratch *s,
					 const struct found *found, __u32 quoted)
{
	const struct flow *f = found->flow;
	const __be32 *end = quoted == DIRECTION_ORIGINAL ? f->reply.saddr : f->original.saddr;
	bool from_end = table_same_addr(s->packet.tuple.saddr, end);
	int r;

	nat_become(f, !quoted, &s->key);
	if (!from_end || table_seq(f) != found->seq)
		return ICMP_NOT_OURS;
	r = icmp_write_addr(skb, &s->packet, true, s->key.saddr);
	return r < 0 ? r : ICMP_TRANSLATED;
}

/*
 * An error that comes in, about a packet that left here: for whoever sent that. Between a client of
 * this host and a server of another all is translated at once, and goes through lo.
 */
static __always_inline int icmp_come_in(struct __sk_buff *skb, const struct datapath_config *c,
					struct scratch *s, __u32 end)
{
	struct found found;
	bool local;
	int r;

	if (!icmp_find(c, s, true, STAGE_IN, &found))
		return ICMP_NOT_OURS;
	local = table_is_local(found.flow);
	icmp_sent(found.flow, found.direction, &s->key);
	if (table_seq(found.flow) != found.seq)
		return ICMP_NOT_OURS;
	r = icmp_write_quote(skb, s->packet.l4 + offsetof(struct icmp_head, checksum), end);
	if (r == 0)
		r = icmp_write_addr(skb, &s->packet, false, s->key.saddr);
	if (r == 0 && local)
		r = icmp_hide_end(skb, s, &found, !found.direction);
	if (r < 0)
		return r;
	return local ? ICMP_FOR_LOCAL : ICMP_TRANSLATED;
}

/* This host's own error about a packet on its way through: the quote is half translated. */
static __always_inline int icmp_own(struct __sk_buff *skb, const struct datapath_config *c,
				    struct scratch *s, __u32 end)
{
	struct found found;
	int r;

	if (!icmp_find(c, s, true, STAGE_OUT, &found))
		return ICMP_NOT_OURS;
	icmp_sent(found.flow, found.direction, &s->key);
	if (table_seq(found.flow) != found.seq)
		return ICMP_NOT_OURS;
	r = icmp_write_quote(skb, s->packet.l4 + offsetof(struct icmp_head, checksum), end);
	return r < 0 ? r : ICMP_TRANSLATED;
}

/* An error on its way through, whose quote was translated where it came in. */
static __always_inline int icmp_pass(struct __sk_buff *skb, const struct datapath_config *c,
				     struct scratch *s)
{
	struct found found;

	if (!icmp_find(c, s, false, STAGE_IN, &found))
		return ICMP_NOT_OURS;
	return icmp_hide_end(skb, s, &found, found.direction);
}

/*
 * Translates the current packet, a whole ICMP message, if it is an error about a packet of a flow
 * of ours; else it stays untouched. A global function, for the verifier's sake.
 */
__noinline int icmp_translate(struct __sk_buff *skb, __u32 stage)
{
	struct datapath_config *c = config_get();
	struct cpu_counters *counts = counters_get();
	struct icmp_head buffer, *head;
	__u32 l4, end, ipv6;
	struct scratch *s;
	int r;

	if (!c || !counts)
		return ICMP_NOT_OURS;
	s = scratch_of(counts);
	l4 = s->packet.l4;
	end = l4 + s->packet.l4_length;
	ipv6 = s->packet.tuple.kind & FLOW_IPV6;
	head = icmp_at(skb, end, l4, sizeof(*head), &buffer);
	if (!head || !icmp_is_error(head->type, ipv6) ||
	    !icmp_parse_quote(skb, l4 + ICMP_QUOTE, end, ipv6))
		return ICMP_NOT_OURS;
	/* It goes to whoever sent what it quotes, or it is a trick (nf_conntrack_inet_error()). */
	if (!table_same_addr(s->packet.tuple.daddr, s->quote.tuple.saddr))
		return ICMP_NOT_OURS;
	if (stage == STAGE_OUT && skb->ingress_ifindex)
		return icmp_pass(skb, c, s);
	r = stage == STAGE_IN ? icmp_come_in(skb, c, s, end) : icmp_own(skb, c, s, end);
	if (r > 0)
		counts->icmp_errors++;
	return r;
}
