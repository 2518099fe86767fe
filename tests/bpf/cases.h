/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the packet tests share: the rules of the common world, hosts to talk with, shapes of
 * packets, and how a test's packets are made from a client's and a server's point of view.
 */
#pragma once

#include <netinet/in.h>

#include "tests/bpf/packet.h"

#define SERVER4	    "192.0.2.1"
#define SERVER6	    "2001:db8::1"
#define CLIENT4	    "198.51.100.7"
#define CLIENT6	    "2001:db8:c::7"
#define CLIENT_PORT 40000

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Everything between Ethernet and the L4 header that a redirect must look through. */
static const struct packet_spec shapes[] = {
	{.source = CLIENT4, .destination = SERVER4},
	{.source = CLIENT4, .destination = SERVER4, .vlans = 1},
	{.source = CLIENT4, .destination = SERVER4, .vlans = 2},
	{.source = CLIENT4, .destination = SERVER4, .ip_options = 4},
	{.source = CLIENT4, .destination = SERVER4, .ip_options = 40, .vlans = 2},
	{.source = CLIENT4, .destination = SERVER4, .padding = 18},
	{.source = CLIENT6, .destination = SERVER6},
	{.source = CLIENT6, .destination = SERVER6, .vlans = 1},
	{.source = CLIENT6, .destination = SERVER6, .vlans = 2},
	{.source = CLIENT6, .destination = SERVER6, .hop_by_hop = true},
	{.source = CLIENT6, .destination = SERVER6, .extensions = {IPPROTO_DSTOPTS}},
	{.source = CLIENT6, .destination = SERVER6, .extensions = {IPPROTO_ROUTING}},
	{.source = CLIENT6,
	 .destination = SERVER6,
	 .hop_by_hop = true,
	 .extensions = {IPPROTO_DSTOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS},
	 .extension_length = 3,
	 .vlans = 2},
	{.source = CLIENT6,
	 .destination = SERVER6,
	 .hop_by_hop = true,
	 .extensions = {IPPROTO_DSTOPTS, IPPROTO_DSTOPTS, IPPROTO_DSTOPTS, IPPROTO_DSTOPTS,
			IPPROTO_DSTOPTS, IPPROTO_DSTOPTS, IPPROTO_DSTOPTS}},
	{.source = CLIENT6, .destination = SERVER6, .fragmented = true}, /* RFC 6946 */
	{.source = CLIENT6, .destination = SERVER6, .padding = 7},
};

/* The same packet, from the server's side: addresses and ports change places. */
static inline struct packet_spec answer(struct packet_spec s, uint16_t from_port)
{
	const char *client = s.source;
	uint16_t client_port = s.sport;

	s.source = s.destination;
	s.destination = client;
	s.sport = from_port;
	s.dport = client_port;
	if (s.protocol == IPPROTO_TCP && s.tcp_flags == TCP_FLAG_SYN)
		s.tcp_flags = TCP_FLAG_SYN | TCP_FLAG_ACK;
	return s;
}

static inline struct packet_spec tcp4(uint16_t sport, uint16_t dport, uint8_t flags)
{
	return (struct packet_spec){.source = CLIENT4,
				    .destination = SERVER4,
				    .protocol = IPPROTO_TCP,
				    .sport = sport,
				    .dport = dport,
				    .tcp_flags = flags};
}

static inline struct packet_spec udp4(uint16_t sport, uint16_t dport)
{
	return (struct packet_spec){.source = CLIENT4,
				    .destination = SERVER4,
				    .protocol = IPPROTO_UDP,
				    .sport = sport,
				    .dport = dport,
				    .payload_length = 20};
}
