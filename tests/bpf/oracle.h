/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the datapath should do, written a second time from the RFCs and the contract, byte by byte
 * and without a line or a constant of bpf/. The tests give the same packet to both and compare.
 *
 * The oracle knows port-only redirects of every address, TCP and UDP over both families, ICMP
 * errors about them, and keeps its own list of flows. It does not know time, limits, interfaces or
 * colliding ports: tests of those say themselves what must come out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a packet is, as far as a redirector has to care. */
enum oracle_class {
	ORACLE_TRANSLATABLE, /* TCP or UDP with its ports, everything consistent */
	ORACLE_NOT_IP,
	ORACLE_NOT_TCP_UDP,
	ORACLE_LATER_FRAGMENT,
	ORACLE_TRUNCATED, /* a header or a length reaches beyond the packet */
	ORACLE_MALFORMED, /* lengths or versions that contradict each other */
	ORACLE_TOO_DEEP,  /* more VLAN tags or extension headers than are promised to be walked */
};

struct oracle_packet {
	enum oracle_class class;
	bool ipv6;
	uint8_t protocol, tcp_flags;
	uint8_t source[16], destination[16]; /* IPv4 in the first four, the rest zero */
	uint16_t sport, dport;
	size_t l3, l4, checksum; /* offsets */
	size_t ip_length;	 /* what the IP header claims, and the packet holds */
	size_t covered;		 /* bytes from l4 on that the L4 checksum is made over */
	bool whole;		 /* not a fragment: the checksum can be verified */
	size_t icmp, icmp_end;	 /* offsets of an ICMP or ICMPv6 message that is all there, or 0 */
};

/* Reads `data` as a frame, or with `ethernet` false as an IP packet. */
void oracle_parse(const uint8_t *data, size_t length, bool ethernet, struct oracle_packet *ret);

/* The L4 checksum from scratch; UDP's zero as 0xffff. Only of whole packets. */
uint16_t oracle_l4_checksum(const uint8_t *data, const struct oracle_packet *p);
/* Is it right? UDP over IPv4 without a checksum is. */
bool oracle_l4_checksum_holds(const uint8_t *data, const struct oracle_packet *p);
bool oracle_ipv4_checksum_holds(const uint8_t *data, const struct oracle_packet *p);

/* Writes new ports and the checksum that belongs to them. */
void oracle_translate(uint8_t *data, const struct oracle_packet *p, uint16_t sport, uint16_t dport);

/* The checksum of a whole ICMP or ICMPv6 message from scratch. */
uint16_t oracle_icmp_checksum(const uint8_t *data, const struct oracle_packet *p);

/*
 * Reads the TCP or UDP packet that an ICMP error quotes: addresses and ports; `checksum` is 0 where
 * the quote ends before, `whole` tells whether all of it is quoted. False: it quotes none.
 */
bool oracle_parse_quote(const uint8_t *data, const struct oracle_packet *error,
			struct oracle_packet *ret);

struct oracle_rule {
	bool tcp, udp;
	uint16_t first, last; /* ports listened on */
	uint16_t target;      /* of the first one; the others follow */
};

struct oracle_flow {
	bool ipv6;
	uint8_t protocol;
	uint8_t client[16], server[16];
	uint16_t client_port, listen_port, target_port;
	uint64_t packets[2], bytes[2]; /* original, reply */
};

struct oracle {
	const struct oracle_rule *rules;
	size_t n_rules;
	struct oracle_flow *flows; /* owned */
	size_t n_flows, allocated;
};

void oracle_init(struct oracle *o, const struct oracle_rule *rules, size_t n_rules);
void oracle_clear(struct oracle *o);

enum oracle_hook {
	ORACLE_IN,
	ORACLE_OUT,
};

/*
 * Turns the packet at `data` into what the hook must make of it, and counts it in its flow, made
 * if need be; or what an ICMP error quotes. Returns whether it was translated; if not, the bytes
 * are as they were.
 */
bool oracle_pass(struct oracle *o, enum oracle_hook hook, bool ethernet, uint8_t *data,
		 size_t length);

/* The flow that was opened with this tuple, or NULL. */
struct oracle_flow *oracle_find(struct oracle *o, const struct oracle_packet *p, bool reply);
