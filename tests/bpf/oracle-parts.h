/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the oracle's files share. oracle.h tells them apart. */
#pragma once

#include "tests/bpf/oracle.h"

/* Numbers of IANA. */
enum {
	PROTOCOL_HOP_BY_HOP = 0,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_ROUTING = 43,
	PROTOCOL_FRAGMENT = 44,
	PROTOCOL_ICMPV6 = 58,
	PROTOCOL_OPTIONS = 60,
};

/* What redirectd(8) promises to look through. */
#define VLANS_WALKED	  2
#define EXTENSIONS_WALKED 8
#define HEADERS_WALKED	  900 /* bytes of IPv6 and extension headers that are surely walked */

/* ---- oracle-parse.c ---- */

bool oracle_is_extension(uint8_t number);

/* ---- oracle-checksum.c ---- */

/* What was at `at` has become something else: a checksum that covers it follows. */
uint16_t oracle_checksum_update(uint16_t check, const uint8_t *old, const uint8_t *new,
				size_t length);

/*
 * Writes the addresses and ports of `to` into the packet that `p` tells of, and mends what covers
 * them: from scratch where it held, else by as much as was changed.
 */
void oracle_rewrite(uint8_t *data, const struct oracle_packet *p, const struct oracle_tuple *to);
/* The IPv4 header has another length for the whole; its checksum is as right or wrong as before. */
void oracle_rewrite_length(uint8_t *data, const struct oracle_packet *p, uint16_t length);
/* Addresses only, of a packet whose ports are elsewhere. */
void oracle_rewrite_addresses(uint8_t *data, const struct oracle_packet *p, const uint8_t *source,
			      const uint8_t *destination);

/* ---- oracle-rule.c ---- */

bool oracle_prefix_holds(const struct oracle_prefix *p, bool ipv6, const uint8_t *address);
bool oracle_is_local(const struct oracle *o, bool ipv6, const uint8_t *address);
/* The most specific rule that takes this packet, or NULL. */
struct oracle_rule *oracle_find_rule(const struct oracle *o, const struct oracle_input *input,
				     const struct oracle_tuple *t);
/* Is there any rule for its port? */
bool oracle_listens(const struct oracle *o, const struct oracle_tuple *t);
/* Where target number `n` of the rule sends it. */
void oracle_aim(const struct oracle_rule *r, unsigned n, const struct oracle_tuple *t,
		uint8_t *ret_address, uint16_t *ret_port);
/* Does a packet go to a target on another host, and to a port that one has? */
bool oracle_is_target(const struct oracle *o, const struct oracle_tuple *t);
unsigned oracle_target_count(const struct oracle_rule *r);
/* What this host masquerades a packet to `destination` as. False: nothing. */
bool oracle_source_to(const struct oracle *o, bool ipv6, const uint8_t *destination,
		      uint8_t *ret_address);

/* ---- oracle-nat.c ---- */

/* Looks for roles that the hook knows. */
struct oracle_flow *oracle_find(const struct oracle *o, enum oracle_hook hook,
				const struct oracle_tuple *t, enum oracle_role *ret);

/*
 * Target number `n` of the rule, and what this makes of the flow; the source's port is kept. Drops
 * it knows to be right are bits of the result.
 */
uint32_t oracle_predict(const struct oracle *o, const struct oracle_input *input,
			struct oracle_rule *r, unsigned n, struct oracle_flow *f);

/* A TCP or UDP packet with its ports. */
void oracle_judge_packet(struct oracle *o, const struct oracle_input *input, uint8_t *data,
			 const struct oracle_packet *p, struct oracle_answer *ret);

/*
 * A packet of a client of this host goes to lo, as if it had come in there, on its way to the
 * server once more, and from it. lo takes only what is addressed to it.
 */
void oracle_redirect(const struct oracle_input *input, uint8_t *data, struct oracle_answer *ret);

/* A packet of the flow passes a hook: counts it, if it is there that it is first known. */
void oracle_count(struct oracle_flow *f, const struct oracle_input *input,
		  const struct oracle_packet *p, enum oracle_role role);

/* ---- oracle-limit.c ---- */

/* ORACLE_REASON() of all limits that a new flow of the rule would be beyond. */
uint32_t oracle_exceeded(const struct oracle *o, const struct oracle_rule *r,
			 const struct oracle_tuple *t);

/* ---- oracle-change.c ---- */

/* What a packet does that finds a flow after changes of the rules. */
enum oracle_fate {
	FATE_GOES_ON,
	FATE_FOLLOWS, /* the flow ends, and the packet begins another where the rules say */
	FATE_RESET,   /* TCP: both ends are told that it has ended */
};
enum oracle_fate oracle_hold(const struct oracle *o, struct oracle_flow *f, bool reply);

/*
 * What the packet becomes for its receiver where the flow is reset: a RST with the packet's own
 * sequence number, which a TCP in any state takes. Returns its length; `p` tells of it afterwards.
 */
size_t oracle_make_reset(uint8_t *data, struct oracle_packet *p);

/* ---- oracle-icmp.c ---- */

void oracle_judge_error(struct oracle *o, const struct oracle_input *input, uint8_t *data,
			const struct oracle_packet *p, struct oracle_answer *ret);

/* ---- oracle-fragment.c ---- */

void oracle_judge_later(struct oracle *o, const struct oracle_input *input, uint8_t *data,
			const struct oracle_packet *p, struct oracle_answer *ret);
/* A first fragment has passed: `p` as it came, `data` as it goes on. */
void oracle_note_first(struct oracle *o, const struct oracle_input *input, const uint8_t *data,
		       const struct oracle_packet *p, const struct oracle_answer *answer);

void *oracle_grow(void *array, size_t n, size_t *allocated, size_t size);
