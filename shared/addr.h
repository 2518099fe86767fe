/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IP addresses and prefixes, one type for both families.
 *
 * Textual forms are those of RFC 5952 (IPv6, lower case, compressed) and dotted quads. In the
 * rule grammar IPv6 stands in brackets: [2001:db8::1]:53, [2001:db8::]/64.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ip_prefix {
	uint8_t family;	   /* AF_INET, AF_INET6, or 0: unset */
	uint8_t length;	   /* prefix length within the family: 0..32 or 0..128 */
	uint8_t bytes[16]; /* network order; IPv4 uses the first four, the rest are zero */
};

#define IP_PREFIX_STRLEN 52 /* "[ffff:…]/128" and the NUL */

/* True when the prefix is one whole address (/32 or /128). */
bool ip_prefix_is_host(const struct ip_prefix *p);
/* Any bit set past the length? `192.0.2.1/24` is refused by the grammar with a hint. */
bool ip_prefix_has_host_bits(const struct ip_prefix *p);
void ip_prefix_clear_host_bits(struct ip_prefix *p);
/* Within ::ffff:0:0/96? Such addresses stand for IPv4 and are never on the wire. */
bool ip_prefix_is_mapped(const struct ip_prefix *p);
bool ip_prefix_equal(const struct ip_prefix *a, const struct ip_prefix *b);
/* Does `outer` hold every address of `inner`? False across families. */
bool ip_prefix_contains(const struct ip_prefix *outer, const struct ip_prefix *inner);

/*
 * Parses `192.0.2.1`, `192.0.2.0/24`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::]/64` or
 * `2001:db8::/64`. Returns 0 and fills *ret, or -EINVAL and leaves it alone.
 */
int ip_prefix_parse(const char *text, struct ip_prefix *ret);
/* Prints as the grammar reads it: brackets around IPv6, no /LENGTH on a whole address. */
const char *ip_prefix_format(const struct ip_prefix *p, char buffer[static IP_PREFIX_STRLEN]);
/* The bare address for JSON and conntrack lines: no brackets, no length. */
const char *ip_address_format(const struct ip_prefix *p, char buffer[static IP_PREFIX_STRLEN]);

/* The form that BPF maps hold: 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
void ip_prefix_to_mapped(const struct ip_prefix *p, uint8_t ret[static 16]);
void ip_prefix_from_mapped(const uint8_t mapped[static 16], struct ip_prefix *ret);
