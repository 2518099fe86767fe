/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ends a TCP connection for both of its ends: the packet at hand becomes an RST to its receiver,
 * and a clone of it one to its sender. Both bear sequence numbers that their receivers wait for, so
 * they are taken (RFC 9293, 3.10.7.4; RFC 5961, 3.2): the packet's own, and what it acknowledges.
 *
 * What was acknowledged, the payload and the TCP options go; the IP header stays as it is but for
 * its length, so that the clone takes the same way back.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "parse.bpf.h"
#include "stats.bpf.h"

/* TCP's header without options, as the checksum is made over it. */
struct reset_header {
	__be16 sport, dport;
	__be32 seq, ack;
	__u8 offset, flags; /* offset: words in the upper half */
	__be16 window, checksum, urgent;
};
#define RESET_OFFSET (sizeof(struct reset_header) / 4 << 4)

/* The pseudo header (RFC 9293, 3.1; RFC 8200, 8.1) in the long form, which sums up the same. */
struct reset_pseudo {
	__be32 saddr[4], daddr[4];
	__be32 length, protocol;
};

static __always_inline __u16 reset_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline __u16 reset_pseudo_sum(const struct packet *p)
{
	struct reset_pseudo h = {
		.length = bpf_htonl(sizeof(struct reset_header)),
		.protocol = bpf_htonl(IPPROTO_TCP),
	};
	bool ipv6 = p->tuple.kind & FLOW_IPV6;

	/* An IPv4 address is the last word of its mapped form, of which the rest is not summed. */
	__builtin_memcpy(h.saddr, p->tuple.saddr, 16);
	__builtin_memcpy(h.daddr, p->tuple.daddr, 16);
	if (!ipv6)
		h.saddr[2] = h.daddr[2] = 0;
	return reset_fold(bpf_csum_diff(NULL, 0, (__be32 *)&h, sizeof(h), 0));
}

static __always_inline int reset_load_checksum(struct __sk_buff *skb, __u32 at, __u16 *ret)
{
	return bpf_skb_load_bytes(skb, at, ret, sizeof(*ret));
}

/* In a sum over the whole packet (CHECKSUM_COMPLETE) the field has changed, too. */
static __always_inline void reset_mend_complete(struct __sk_buff *skb, __u16 from, __u16 to)
{
	__be32 before = from, after = to;

	bpf_csum_update(skb, bpf_csum_diff(&before, sizeof(before), &after, sizeof(after), 0));
}

/*
 * Makes the checksum right in every state: one that is to be filled in later (CHECKSUM_PARTIAL)
 * becomes the pseudo header's sum, by a change that only counts then; any other becomes the whole
 * one, by a change that does not count there. What stood in the field before does not matter.
 */
static __always_inline int reset_write_checksum(struct __sk_buff *skb, const struct packet *p,
						const struct reset_header *h)
{
	__u32 at = p->l4 + offsetof(struct tcphdr, check);
	__u16 pseudo = reset_pseudo_sum(p), field = 0, first = 0;
	__u16 whole = reset_fold(bpf_csum_diff(NULL, 0, (__be32 *)h, sizeof(*h), pseudo));
	int r = reset_load_checksum(skb, at, &first);

	if (r == 0)
		r = bpf_l4_csum_replace(skb, at, first, pseudo, BPF_F_PSEUDO_HDR | sizeof(field));
	if (r == 0) {
		/* Which has changed such a sum by the opposite. */
		reset_mend_complete(skb, first, pseudo);
		r = reset_load_checksum(skb, at, &field);
	}
	if (r == 0)
		r = bpf_l4_csum_replace(skb, at, (__u16)~field, whole, sizeof(field));
	if (r == 0)
		r = reset_load_checksum(skb, at, &field);
	if (r == 0)
		reset_mend_complete(skb, first, field);
	return r;
}

/* Writes a header, all but the checksum, then that. */
static __always_inline int reset_write_header(struct __sk_buff *skb, const struct packet *p,
					      struct reset_header *h)
{
	__u32 checksum = offsetof(struct reset_header, checksum);
	__u32 urgent = offsetof(struct reset_header, urgent);
	int r;

	h->offset = RESET_OFFSET;
	h->window = h->checksum = h->urgent = 0;
	r = bpf_skb_store_bytes(skb, p->l4, h, checksum, BPF_F_RECOMPUTE_CSUM);
	if (r == 0)
		r = bpf_skb_store_bytes(skb, p->l4 + urgent, &h->urgent, sizeof(h->urgent),
					BPF_F_RECOMPUTE_CSUM);
	return r < 0 ? r : reset_write_checksum(skb, p, h);
}

/* Cuts everything behind the TCP header without options. */
static __always_inline int reset_cut(struct __sk_buff *skb, const struct packet *p)
{
	__u32 l4_end = p->l4 + sizeof(struct reset_header);
	__be16 before, after;
	int r = bpf_skb_change_tail(skb, l4_end, 0);

	if (r < 0)
		return r;
	if (p->tuple.kind & FLOW_IPV6) {
		after = bpf_htons(l4_end - p->l3 - sizeof(struct ipv6hdr));
		return bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, payload_len),
					   &after, sizeof(after), BPF_F_RECOMPUTE_CSUM);
	}
	after = bpf_htons(l4_end - p->l3);
	r = bpf_skb_load_bytes(skb, p->l3 + offsetof(struct iphdr, tot_len), &before,
			       sizeof(before));
	/* These two changes make up for each other in a sum over the whole. */
	if (r == 0)
		r = bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), before, after,
					sizeof(after));
	if (r == 0)
		r = bpf_skb_store_bytes(skb, p->l3 + offsetof(struct iphdr, tot_len), &after,
					sizeof(after), 0);
	return r;
}

/* Changes over two neighbours of one length; no sum changes. */
static __always_inline int reset_swap(struct __sk_buff *skb, __u32 at, __u32 length)
{
	__u8 bytes[32] = {};
	int r;

	r = bpf_skb_load_bytes(skb, at, bytes, 2 * length);
	if (r == 0)
		r = bpf_skb_store_bytes(skb, at, bytes + length, length, 0);
	if (r == 0)
		r = bpf_skb_store_bytes(skb, at + length, bytes, length, 0);
	return r;
}

static __always_inline int reset_turn_round(struct __sk_buff *skb, const struct packet *p,
					    bool ethernet)
{
	int r = ethernet ? reset_swap(skb, 0, ETH_ALEN) : 0;

	if (r < 0)
		return r;
	if (p->tuple.kind & FLOW_IPV6)
		return reset_swap(skb, p->l3 + offsetof(struct ipv6hdr, saddr), 16);
	return reset_swap(skb, p->l3 + offsetof(struct iphdr, saddr), 4);
}

/* The clone passes the egress hook before it has left, and is worked on there with the scratch. */
static __always_inline int reset_clone(struct __sk_buff *skb, __u64 flags)
{
	struct cpu_counters *counts = counters_get();
	__u32 zero = 0;
	struct scratch *kept = bpf_map_lookup_elem(&kept_scratch, &zero);
	int r;

	if (!counts || !kept)
		return -1;
	__builtin_memcpy(kept, scratch_of(counts), sizeof(*kept));
	r = bpf_clone_redirect(skb, skb->ifindex, flags);
	__builtin_memcpy(scratch_of(counts), kept, sizeof(*kept));
	return r;
}

/*
 * To the sender, the way that the packet came: out where it came in, and in where it was going out.
 * At lo, where both are one, out: what comes in there has to have been sent by this host.
 */
static __always_inline int reset_send_back(struct __sk_buff *skb, const struct packet *p,
					   struct reset_header h, bool ethernet, bool coming_in)
{
	bool inject = !coming_in && skb->ifindex != 1;
	__be16 port = h.sport;
	int r = reset_turn_round(skb, p, ethernet);

	h.sport = h.dport;
	h.dport = port;
	h.seq = h.ack;
	h.ack = 0;
	h.flags = TCP_RST;
	if (r == 0)
		r = reset_write_header(skb, p, &h);
	if (r == 0)
		r = reset_clone(skb, inject ? BPF_F_INGRESS : 0);
	/* Whether it arrives or not. */
	return reset_turn_round(skb, p, ethernet) < 0 ? -1 : 0;
}

/*
 * The current packet, of a TCP flow that is over: sends its sender an RST, and makes it one.
 * Returns 0, or what a helper failed with: then the packet is not to go on. A global function, for
 * the verifier's sake.
 */
#define RESET_ETHERNET 0x01
#define RESET_COMES_IN 0x02

__noinline int reset_both(struct __sk_buff *skb, __u32 how)
{
	struct packet *p = packet_current();
	struct reset_header h;
	int r;

	if (!p)
		return -1;
	r = bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h));
	if (r == 0)
		r = reset_cut(skb, p);
	if (r == 0 && h.flags & TCP_ACK)
		r = reset_send_back(skb, p, h, how & RESET_ETHERNET, how & RESET_COMES_IN);
	if (r < 0)
		return r;
	h.flags = TCP_RST | (h.flags & TCP_ACK);
	return reset_write_header(skb, p, &h);
}
