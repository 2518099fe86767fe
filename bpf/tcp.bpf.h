/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TCP states from the flags of both directions, with nf_conntrack's names and meanings
 * (net/netfilter/nf_conntrack_proto_tcp.c). Unlike there, a FIN is remembered by direction, so
 * that one sent again does not look like the other end's.
 */
#pragma once

#include <stdbool.h>

#include "parse.bpf.h"
#include "shared/abi.h"

/*
 * May a packet with these flags begin a flow? SYN, and anything that shows a living connection:
 * after a reboot the rule alone tells how to go on. Not RST, not FIN: those only end things. Nor
 * SYN and ACK: nobody here sent the SYN that this answers, it is what comes back from a flood under
 * this host's name.
 */
static __always_inline bool tcp_may_begin(__u8 tcp_flags)
{
	if (tcp_flags & (TCP_RST | TCP_FIN))
		return false;
	return !(tcp_flags & TCP_SYN) != !(tcp_flags & TCP_ACK);
}

/* A client's SYN on a tuple whose connection is over begins a new one (RFC 9293, 3.6.1). */
static __always_inline bool tcp_may_reopen(__u32 state, __u8 tcp_flags)
{
	if ((tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
		return false;
	return state == FLOW_LAST_ACK || state == FLOW_TIME_WAIT || state == FLOW_CLOSE;
}

static __always_inline __u32 tcp_first_state(__u8 tcp_flags)
{
	return tcp_flags & TCP_SYN ? FLOW_SYN_SENT : FLOW_ESTABLISHED;
}

static __always_inline __u32 tcp_after_fin(__u32 state, __u8 flow_flags)
{
	const __u8 both = FLOW_FIN_ORIG | FLOW_FIN_REPLY;

	switch (state) {
	case FLOW_SYN_SENT:
	case FLOW_SYN_SENT2:
	case FLOW_TIME_WAIT:
	case FLOW_CLOSE:
		return state;
	}
	if ((flow_flags & both) == both)
		return FLOW_LAST_ACK;
	return state == FLOW_CLOSE_WAIT ? state : FLOW_FIN_WAIT; /* the same one again */
}

/*
 * A server's plain SYN crosses the client's: a simultaneous open (RFC 9293, 3.5), in which both
 * then answer.
 */
static __always_inline __u32 tcp_after_syn(__u32 state, __u32 reply, bool ack)
{
	if (state == FLOW_SYN_SENT && reply)
		return ack ? FLOW_SYN_RECV : FLOW_SYN_SENT2;
	return state == FLOW_SYN_SENT2 && ack ? FLOW_SYN_RECV : state;
}

static __always_inline __u32 tcp_after_ack(__u32 state, __u8 flow_flags, __u32 reply)
{
	switch (state) {
	case FLOW_SYN_RECV: /* the client's, that ends the handshake */
		return reply ? state : FLOW_ESTABLISHED;
	case FLOW_FIN_WAIT: /* from the end that has not sent a FIN */
		return flow_flags & (reply ? FLOW_FIN_REPLY : FLOW_FIN_ORIG) ? state
									     : FLOW_CLOSE_WAIT;
	case FLOW_LAST_ACK:
		return FLOW_TIME_WAIT;
	}
	return state;
}

/* The state after a packet. `flow_flags` already knows this packet's FIN. */
static __always_inline __u32 tcp_next_state(__u32 state, __u8 flow_flags, __u32 reply,
					    __u8 tcp_flags)
{
	if (tcp_flags & TCP_RST)
		return FLOW_CLOSE;
	if (tcp_flags & TCP_SYN)
		return tcp_after_syn(state, reply, tcp_flags & TCP_ACK);
	if (tcp_flags & TCP_FIN)
		return tcp_after_fin(state, flow_flags);
	if (tcp_flags & TCP_ACK)
		return tcp_after_ack(state, flow_flags, reply);
	return state;
}
