/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Builds packets for the tests: Ethernet, inline VLAN tags, IPv4 with options, IPv6 with extension
 * headers, fragments, TCP, UDP and ICMP, padding behind. Lengths and checksums are right unless a
 * test breaks them afterwards; the offsets of the headers tell it where.
 *
 * Ports and numbers are in host order, addresses as text.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_MAX	      2048
#define PACKET_VLANS_MAX      3
#define PACKET_EXTENSIONS_MAX 10

enum tcp_flags {
	TCP_FLAG_FIN = 0x01,
	TCP_FLAG_SYN = 0x02,
	TCP_FLAG_RST = 0x04,
	TCP_FLAG_PSH = 0x08,
	TCP_FLAG_ACK = 0x10,
};

struct packet_spec {
	const char *source, *destination; /* both IPv4 or both IPv6 */
	uint8_t protocol;		  /* IPPROTO_TCP, _UDP, _ICMP or _ICMPV6 */
	uint16_t sport, dport;		  /* ICMP: type and code, identifier */
	uint8_t tcp_flags;
	uint8_t tcp_options; /* bytes of NOP, a multiple of 4 */
	bool udp_unchecked;  /* UDP over IPv4 without a checksum */
	const void *payload; /* NULL: a counting pattern */
	size_t payload_length;

	unsigned vlans;				   /* inline tags */
	uint8_t ip_options;			   /* IPv4: bytes of NOP, a multiple of 4 */
	uint8_t extensions[PACKET_EXTENSIONS_MAX]; /* IPv6: next header numbers, 0: none further */
	uint8_t extension_length;		   /* of each but a fragment header, in units of 8,
						      the first not counted */
	bool hop_by_hop; /* IPv6: begins with a hop-by-hop header (its number is 0) */
	bool fragmented; /* with the next two: offset 0 and no more is an atomic fragment */
	bool more_fragments;
	uint16_t fragment_offset; /* bytes, a multiple of 8; beyond 0 there is no L4 header */
	uint32_t fragment_id;	  /* IPv4: its low 16 bits; 0: one that is always the same */
	size_t padding;		  /* bytes behind the IP packet, as Ethernet's 46 need them */
	bool no_ethernet;	  /* begins with the IP header */
};

struct packet {
	uint8_t data[PACKET_MAX];
	size_t length;
	size_t l3, l4; /* offsets */
	size_t l4_checksum;
	size_t quote, quote_l4; /* offsets in an ICMP error of the packet that it quotes */
};

/* Builds, or aborts the test with what is wrong in the spec. */
void packet_build(const struct packet_spec *spec, struct packet *ret);

/*
 * Builds an ICMP or ICMPv6 error, by the family of `error`, of the type and code in its sport. It
 * quotes `about` as far as `bytes` behind the beginning of its L4 header, or all of it.
 */
#define QUOTE_ALL SIZE_MAX
void packet_build_error(const struct packet_spec *error, const struct packet_spec *about,
			size_t bytes, struct packet *ret);

/* The Internet checksum (RFC 1071) over `data`, begun with `sum`; host order, not inverted. */
uint32_t checksum_add(uint32_t sum, const void *data, size_t length);
uint16_t checksum_fold(uint32_t sum);

uint16_t read_be16(const uint8_t *p);
uint32_t read_be32(const uint8_t *p);
void write_be16(uint8_t *p, uint16_t v);
void write_be32(uint8_t *p, uint32_t v);
