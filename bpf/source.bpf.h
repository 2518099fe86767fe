/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which source a new flow has at its target: the client's own address, or one that brings the
 * answers back through this host; and a port that tells the flow apart from all others there.
 *
 * The port is the client's where it is free, as nf_nat does it, so that a mapping is
 * endpoint-independent (RFC 4787, 4.1) until two clients want the same one.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "rule.bpf.h"
#include "table.bpf.h"

#define LOOPBACK_IFINDEX 1 /* include/net/flow.h; in every namespace */

/* Of <sys/socket.h> and <net/tcp_states.h>, which are not for BPF. */
#define AF_INET	 2
#define AF_INET6 10
enum tcp_socket_state {
	SOCKET_TIME_WAIT = 6,
	SOCKET_CLOSE = 7,
	SOCKET_LISTEN = 10,
	SOCKET_NEW_SYN_RECV = 12,
};

static __always_inline bool source_is_loopback(const __be32 addr[4])
{
	if (addr[0] || addr[1])
		return false;
	if (addr[2] == bpf_htonl(0xffff))
		return (addr[3] & bpf_htonl(0xff000000)) == bpf_htonl(127U << 24);
	return !addr[2] && addr[3] == bpf_htonl(1);
}

/*
 * By which interface, and with IPv4 which next hop, the target is reached; false if by none: the
 * key of `sources`.
 */
static __always_inline bool source_route(struct __sk_buff *skb, const struct flow *f,
					 struct source_key *ret)
{
	struct bpf_fib_lookup fib = {
		.family = f->flags & FLOW_IPV6 ? AF_INET6 : AF_INET,
		.l4_protocol = f->flags & FLOW_UDP ? IPPROTO_UDP : IPPROTO_TCP,
		.sport = f->original.sport,
		.dport = f->reply.sport,
		.ifindex = skb->ifindex,
	};
	long r;

	if (f->flags & FLOW_IPV6) {
		/* A loopback address is never forwarded, and will not be the packet's. */
		if (!source_is_loopback(f->original.saddr))
			__builtin_memcpy(fib.ipv6_src, f->original.saddr, 16);
		__builtin_memcpy(fib.ipv6_dst, f->reply.saddr, 16);
	} else {
		fib.ipv4_src = f->original.saddr[3];
		fib.ipv4_dst = f->reply.saddr[3];
	}
	r = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH &&
	    r != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return false;
	ret->ifindex = fib.ifindex;
	if (f->flags & FLOW_IPV6) {
		/* By the target, as ipv6_dev_get_saddr(): the next hop may be fe80::… on the way to
		 * anywhere, and a private target is to be met from a private address. */
		__builtin_memcpy(ret->addr, f->reply.saddr, 16);
	} else {
		ret->addr[0] = ret->addr[1] = 0;
		ret->addr[2] = bpf_htonl(0xffff);
		/* A next hop of the other family says nothing of our subnets. */
		ret->addr[3] = fib.family == AF_INET ? fib.ipv4_dst : 0;
	}
	return true;
}

/* The trie's IPv6 default is the answer also where there is no IPv4 address at all. */
static __always_inline struct source_value *source_lookup(const struct source_key *key, bool ipv6)
{
	struct source_value *v = bpf_map_lookup_elem(&sources, key);

	if (!v || (!ipv6 && v->addr[2] != bpf_htonl(0xffff)))
		return NULL;
	return v;
}

/* Masquerade: gives the flow this host's address where its packets leave. 0, or a reason. */
static __always_inline __u32 source_masquerade(struct __sk_buff *skb, struct flow *f)
{
	struct source_key key = {.length = 32 + 128};
	bool ipv6 = f->flags & FLOW_IPV6;
	struct source_value *v;

	/* Without a route the kernel will say so to the client; the flow is made for its error. */
	if (!source_route(skb, f, &key))
		__builtin_memcpy(key.addr, f->reply.saddr, 16);
	v = source_lookup(&key, ipv6);
	if (!v) {
		key.ifindex = 0;
		v = source_lookup(&key, ipv6);
	}
	if (!v)
		return REASON_NO_SOURCE;
	__builtin_memcpy(f->reply.daddr, v->addr, 16);
	return 0;
}

/* A target that is its own client, by way of this host. */
static __always_inline bool source_is_hairpin(const struct flow *f)
{
	return table_same_addr(f->reply.saddr, f->original.saddr) &&
	       !table_same_addr(f->reply.saddr, f->original.daddr);
}

/*
 * Decides how the flow in a record, whose target is known, is translated (FLOW_SNAT, FLOW_LOCAL),
 * and its source's address. Returns 0, or a reason to drop the packet. A global function, for the
 * verifier's sake.
 *
 * Sources change only of what leaves this host. A target that is its own client would answer
 * itself directly: it is always masqueraded (hairpin).
 */
__noinline __u32 source_choose(struct __sk_buff *skb, __u32 record, __u32 action)
{
	struct action *a = bpf_map_lookup_elem(&actions, &action);
	struct flow *f = table_record(record);
	bool moves, wanted;

	if (!a || !f)
		return 0;
	moves = !table_same_addr(f->reply.saddr, f->original.daddr);
	wanted = a->flags & (ACTION_MASQUERADE | ACTION_SNAT) || source_is_hairpin(f);
	if (!wanted && !(moves && skb->ifindex == LOOPBACK_IFINDEX))
		return 0;
	if (rule_is_local(f->reply.saddr))
		return 0;
	f->flags |= skb->ifindex == LOOPBACK_IFINDEX ? FLOW_LOCAL : FLOW_SNAT;
	if (a->flags & ACTION_SNAT) {
		__builtin_memcpy(f->reply.daddr, a->snat, 16);
		return 0;
	}
	if (!wanted && !source_is_loopback(f->original.saddr))
		return 0;
	return source_masquerade(skb, f);
}

/*
 * Would the rule, as it is now, give the flow the same source? To be masqueraded any address of
 * this host will do, which is asked elsewhere.
 */
static __always_inline bool source_remains(const struct action *a, const struct flow *f)
{
	bool translated = f->flags & (FLOW_SNAT | FLOW_LOCAL);

	if (rule_is_local(f->reply.saddr))
		return !translated;
	if (a->flags & ACTION_SNAT)
		return translated && table_same_addr(f->reply.daddr, a->snat);
	if (a->flags & ACTION_MASQUERADE || source_is_hairpin(f))
		return translated;
	if (f->flags & FLOW_LOCAL && source_is_loopback(f->original.saddr))
		return true;
	return table_same_addr(f->reply.daddr, f->original.saddr);
}

/* ---- ports ---- */

/* Another port of the same class (RFC 4787, REQ-3 a; nf_nat_proto_unique_tuple()). */
static __always_inline __be16 source_other_port(__be16 wanted)
{
	__u32 port = bpf_ntohs(wanted), first = 1024, n = 65536 - 1024;

	if (port < 512) {
		first = 1;
		n = 511;
	} else if (port < 1024) {
		first = 512;
		n = 512;
	}
	return bpf_htons(first + bpf_get_prandom_u32() % n);
}

/* Each with a lookup of its own: the two kinds of socket are not the same to older verifiers. */
static __always_inline int source_tcp_taken(struct __sk_buff *skb, struct bpf_sock_tuple *t,
					    __u32 size)
{
	struct bpf_sock *s = bpf_skc_lookup_tcp(skb, t, size, BPF_F_CURRENT_NETNS, 0);
	__u32 state;

	if (!s)
		return 0;
	state = s->state;
	bpf_sk_release(s);
	/* A handshake's may be that of the very SYN, sent again after its flow was evicted. */
	return state != SOCKET_LISTEN && state != SOCKET_TIME_WAIT && state != SOCKET_CLOSE &&
	       state != SOCKET_NEW_SYN_RECV;
}

/*
 * One that is not connected serves everybody; where its port would be taken for somebody else's
 * packets, it may be talking to the target already.
 */
static __always_inline int source_udp_taken(struct __sk_buff *skb, struct bpf_sock_tuple *t,
					    __u32 size, bool foreign)
{
	struct bpf_sock *s = bpf_sk_lookup_udp(skb, t, size, BPF_F_CURRENT_NETNS, 0);
	bool connected;

	if (!s)
		return 0;
	connected = s->dst_port;
	bpf_sk_release(s);
	return connected || foreign;
}

/* The packet that would meet a socket: an answer to this host, or the client's to the target. */
static __always_inline void source_socket_tuple(const struct flow *f, struct bpf_sock_tuple *ret)
{
	const struct flow_dir *in = &f->reply;
	bool answer = f->flags & (FLOW_SNAT | FLOW_LOCAL);

	if (f->flags & FLOW_IPV6) {
		__builtin_memcpy(ret->ipv6.saddr, answer ? in->saddr : in->daddr, 16);
		__builtin_memcpy(ret->ipv6.daddr, answer ? in->daddr : in->saddr, 16);
		ret->ipv6.sport = answer ? in->sport : in->dport;
		ret->ipv6.dport = answer ? in->dport : in->sport;
		return;
	}
	ret->ipv4.saddr = answer ? in->saddr[3] : in->daddr[3];
	ret->ipv4.daddr = answer ? in->daddr[3] : in->saddr[3];
	ret->ipv4.sport = answer ? in->sport : in->dport;
	ret->ipv4.dport = answer ? in->dport : in->sport;
}

/*
 * Would the packets of the flow in a record meet a socket of this host that has its tuple for a
 * connection of its own? Not of a flow that is picked up: that socket is the flow's.
 */
__noinline int source_socket_has(struct __sk_buff *skb, __u32 record)
{
	struct flow *f = table_record(record);
	struct bpf_sock_tuple t = {};
	bool ipv6, udp;

	if (!f)
		return 0;
	udp = f->flags & FLOW_UDP;
	ipv6 = f->flags & FLOW_IPV6;
	if (!udp && f->state != FLOW_SYN_SENT)
		return 0;
	source_socket_tuple(f, &t);
	if (udp && ipv6)
		return source_udp_taken(skb, &t, sizeof(t.ipv6), f->flags & FLOW_SNAT);
	if (udp)
		return source_udp_taken(skb, &t, sizeof(t.ipv4), f->flags & FLOW_SNAT);
	if (ipv6)
		return source_tcp_taken(skb, &t, sizeof(t.ipv6));
	return source_tcp_taken(skb, &t, sizeof(t.ipv4));
}

/* Which of the classes of flow_totals.port_searches: 1, 2, 3 to 4, 5 to 8 ports and so on. */
static __always_inline __u32 source_search_class(__u32 searched)
{
	__u32 class = 0;

#pragma unroll
	for (int i = 0; i < PORT_SEARCH_CLASSES - 1; i++)
		class += searched > 1U << i;
	return class;
}

/* Enters what the answers bear, where they come in and where they leave. 0, or what is in the way.
 */
static __always_inline __u32 source_enter(__u32 record, bool snat)
{
	__u32 r = table_index_add(record, ENTRY_REPLY);

	if (r || !snat)
		return r;
	r = table_index_add(record, ENTRY_REPLY_OUT);
	if (r)
		table_index_remove(record, ENTRY_REPLY);
	return r;
}

/*
 * Enters the reply direction of the flow in a record into the index, with the port that it has now.
 * Returns 0, TABLE_FULL, SOURCE_SOCKET when a socket of this host is in the way, or the record of
 * the flow that is. A global function, for the verifier's sake.
 */
#define SOURCE_SOCKET 0xfffffffeU

__noinline __u32 source_try_port(struct __sk_buff *skb, __u32 record)
{
	struct flow *f = table_record(record);

	if (!f)
		return TABLE_FULL;
	if (source_socket_has(skb, record))
		return SOURCE_SOCKET;
	return source_enter(record, f->flags & FLOW_SNAT);
}
