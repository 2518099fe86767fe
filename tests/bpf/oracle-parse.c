/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads packets, and what ICMP errors quote of them: bytes at offsets, as the figures in the RFCs
 * number them.
 */
#include <string.h>

#include "tests/bpf/oracle-parts.h"
#include "tests/bpf/packet.h"

static enum oracle_class parse_ethernet(const uint8_t *d, size_t length, uint16_t *ret_type,
					size_t *ret_l3)
{
	size_t at = 12;
	uint16_t type;

	for (int tags = 0;; tags++, at += 4) {
		if (length < at + 2)
			return ORACLE_TRUNCATED;
		type = read_be16(d + at);
		if (type != 0x8100 && type != 0x88a8)
			break;
		if (tags == VLANS_WALKED)
			return ORACLE_TOO_DEEP;
	}
	*ret_type = type;
	*ret_l3 = at + 2;
	return ORACLE_TRANSLATABLE;
}

/* A message in no fragment, from `header` to the end of what IP claims, if there is as much. */
static void note_icmp(struct oracle_packet *p, size_t header, size_t claimed, size_t held)
{
	if (claimed > held || claimed < header || header > HEADERS_WALKED)
		return;
	p->icmp = p->l3 + header;
	p->icmp_end = p->l3 + claimed;
}

/* RFC 791, 3.1. */
static enum oracle_class parse_ipv4(const uint8_t *d, size_t held, struct oracle_packet *p,
				    size_t *ret_header, bool *ret_more)
{
	size_t header;

	if (held < 20)
		return ORACLE_TRUNCATED;
	header = (d[0] & 0x0f) * 4U;
	if (d[0] >> 4 != 4 || header < 20)
		return ORACLE_MALFORMED;
	p->protocol = d[9];
	memcpy(p->source, d + 12, 4);
	memcpy(p->destination, d + 16, 4);
	p->fragment = read_be16(d + 4);
	p->first = (read_be16(d + 6) & 0x3fff) == 0x2000;
	if (p->protocol == PROTOCOL_ICMP && !(read_be16(d + 6) & 0x3fff))
		note_icmp(p, header, read_be16(d + 2), held);
	if (p->protocol != PROTOCOL_TCP && p->protocol != PROTOCOL_UDP)
		return ORACLE_NOT_TCP_UDP;
	p->ip_length = read_be16(d + 2);
	*ret_more = read_be16(d + 6) & 0x2000;
	*ret_header = header;
	p->cut = p->ip_length > held;
	return read_be16(d + 6) & 0x1fff ? ORACLE_LATER_FRAGMENT : ORACLE_TRANSLATABLE;
}

bool oracle_is_extension(uint8_t number)
{
	return number == PROTOCOL_HOP_BY_HOP || number == PROTOCOL_ROUTING ||
	       number == PROTOCOL_OPTIONS || number == PROTOCOL_FRAGMENT;
}

/* RFC 8200, 3 and 4. */
static enum oracle_class parse_ipv6(const uint8_t *d, size_t held, struct oracle_packet *p,
				    size_t *ret_header, bool *ret_more)
{
	size_t at = 40;
	uint8_t next;

	if (held < 40)
		return ORACLE_TRUNCATED;
	if (d[0] >> 4 != 6)
		return ORACLE_MALFORMED;
	p->ipv6 = true;
	memcpy(p->source, d + 8, 16);
	memcpy(p->destination, d + 24, 16);
	p->ip_length = read_be16(d + 4) + 40U;
	next = d[6];
	*ret_more = false;
	for (int n = 0; oracle_is_extension(next); n++) {
		const uint8_t *h = d + at;
		bool fragment = next == PROTOCOL_FRAGMENT;

		if (n == EXTENSIONS_WALKED || at > HEADERS_WALKED)
			return ORACLE_TOO_DEEP;
		if (held < at + 4)
			return ORACLE_TRUNCATED;
		if (fragment && read_be16(h + 2) & 0xfff8)
			p->also |= ORACLE_REASON(REASON_FRAGMENT);
		if (fragment && held < at + 8) {
			p->also |=
				ORACLE_REASON(REASON_NOT_TCP_UDP) | ORACLE_REASON(REASON_MALFORMED);
			return ORACLE_TRUNCATED;
		}
		if (fragment) {
			p->fragment = read_be32(h + 4);
			p->first = (read_be16(h + 2) & 0xfff9) == 1;
		}
		if (fragment && read_be16(h + 2) & 0xfff8) {
			p->protocol = h[0];
			p->cut = p->ip_length > held;
			return ORACLE_LATER_FRAGMENT;
		}
		if (fragment)
			*ret_more = read_be16(h + 2) & 1;
		at += fragment ? 8 : 8 + h[1] * 8U;
		next = h[0];
		/* who stops here does not see whether the packet does */
		if (at > HEADERS_WALKED)
			p->also |=
				ORACLE_REASON(REASON_EXTENSIONS) | ORACLE_REASON(REASON_TRUNCATED);
	}
	if (next == PROTOCOL_ICMPV6 && !*ret_more)
		note_icmp(p, at, p->ip_length, held);
	if (next != PROTOCOL_TCP && next != PROTOCOL_UDP)
		return ORACLE_NOT_TCP_UDP;
	*ret_header = at;
	p->protocol = next;
	return ORACLE_TRANSLATABLE;
}

/* RFC 768. `room` is what IP leaves for UDP. */
static enum oracle_class parse_udp(const uint8_t *d, size_t room, bool first_fragment,
				   struct oracle_packet *p)
{
	size_t length;

	if (room < 8)
		return ORACLE_MALFORMED;
	length = read_be16(d + 4);
	if (length < 8 || (length > room && !first_fragment))
		return ORACLE_MALFORMED;
	p->l4_header = 8;
	p->checksum = p->l4 + 6;
	p->covered = length;
	return ORACLE_TRANSLATABLE;
}

/* RFC 9293, 3.1. */
static enum oracle_class parse_tcp(const uint8_t *d, size_t room, struct oracle_packet *p)
{
	size_t header;

	if (room < 20)
		return ORACLE_MALFORMED;
	header = (d[12] >> 4) * 4U;
	if (header < 20 || header > room)
		return ORACLE_MALFORMED;
	p->tcp_flags = d[13];
	p->l4_header = header;
	p->checksum = p->l4 + 16;
	p->covered = room;
	return ORACLE_TRANSLATABLE;
}

static enum oracle_class parse_ip(const uint8_t *data, size_t length, uint16_t type,
				  struct oracle_packet *p)
{
	enum oracle_class c = ORACLE_NOT_IP;
	size_t header = 0, room;
	bool more = false;

	if (type == 0x0800)
		c = parse_ipv4(data + p->l3, length - p->l3, p, &header, &more);
	else if (type == 0x86dd)
		c = parse_ipv6(data + p->l3, length - p->l3, p, &header, &more);
	if (c != ORACLE_TRANSLATABLE)
		return c;
	if (p->ip_length < header)
		return ORACLE_MALFORMED;
	if (p->ip_length > length - p->l3)
		return ORACLE_TRUNCATED;
	p->l4 = p->l3 + header;
	p->whole = !more;
	room = p->ip_length - header;
	if (p->protocol == PROTOCOL_TCP)
		c = parse_tcp(data + p->l4, room, p);
	else
		c = parse_udp(data + p->l4, room, more, p);
	if (c != ORACLE_TRANSLATABLE)
		return c;
	p->sport = read_be16(data + p->l4);
	p->dport = read_be16(data + p->l4 + 2);
	return c;
}

void oracle_parse_typed(const uint8_t *data, size_t length, uint16_t type,
			struct oracle_packet *ret)
{
	*ret = (struct oracle_packet){.l3 = 0};
	ret->class = parse_ip(data, length, type, ret);
}

void oracle_parse(const uint8_t *data, size_t length, bool ethernet, struct oracle_packet *ret)
{
	uint16_t type = length && data[0] >> 4 == 6 ? 0x86dd : 0x0800;

	*ret = (struct oracle_packet){.class = ORACLE_TRANSLATABLE};
	if (ethernet)
		ret->class = parse_ethernet(data, length, &type, &ret->l3);
	if (ret->class == ORACLE_TRANSLATABLE)
		ret->class = parse_ip(data, length, type, ret);
}

/* ---- what an ICMP error quotes ---- */

/* The errors of RFC 792 and RFC 4443, 2.1; redirects (5) are none. */
static bool is_error(uint8_t type, bool ipv6)
{
	if (ipv6)
		return type == 1 || type == 2 || type == 3 || type == 4;
	return type == 3 || type == 11 || type == 12;
}

/* The header quoted at p->l3; false: it is cut, or a later fragment, which has no ports. */
static bool parse_quoted_ipv4(const uint8_t *d, size_t held, struct oracle_packet *p)
{
	if (held < 20 || d[0] >> 4 != 4 || (d[0] & 0x0f) < 5 || read_be16(d + 6) & 0x1fff)
		return false;
	p->protocol = d[9];
	memcpy(p->source, d + 12, 4);
	memcpy(p->destination, d + 16, 4);
	p->l4 = p->l3 + (d[0] & 0x0f) * 4U;
	p->ip_length = read_be16(d + 2);
	p->whole = !(read_be16(d + 6) & 0x2000);
	return true;
}

static bool parse_quoted_ipv6(const uint8_t *d, size_t held, struct oracle_packet *p)
{
	size_t at = 40;

	if (held < 40 || d[0] >> 4 != 6)
		return false;
	p->ipv6 = true;
	p->protocol = d[6];
	memcpy(p->source, d + 8, 16);
	memcpy(p->destination, d + 24, 16);
	p->ip_length = read_be16(d + 4) + 40U;
	p->whole = true;
	for (int n = 0; oracle_is_extension(p->protocol); n++) {
		bool fragment = p->protocol == PROTOCOL_FRAGMENT;

		if (n == EXTENSIONS_WALKED || held < at + 4)
			return false;
		if (fragment && read_be16(d + at + 2) & 0xfff8)
			return false;
		if (fragment && read_be16(d + at + 2) & 1)
			p->whole = false;
		p->protocol = d[at];
		at += fragment ? 8 : 8 + d[at + 1] * 8U;
	}
	p->l4 = p->l3 + at;
	return true;
}

bool oracle_parse_quote(const uint8_t *data, const struct oracle_packet *error,
			struct oracle_packet *ret)
{
	struct oracle_packet p = {.l3 = error->icmp + 8};
	size_t end = error->icmp_end, claimed, checksum;

	if (!error->icmp || end < p.l3 || !is_error(data[error->icmp], error->ipv6))
		return false;
	if (!(error->ipv6 ? parse_quoted_ipv6 : parse_quoted_ipv4)(data + p.l3, end - p.l3, &p))
		return false;
	if (p.protocol != PROTOCOL_TCP && p.protocol != PROTOCOL_UDP)
		return false;
	if (end < p.l4 + 4 || p.l4 - error->l3 > HEADERS_WALKED)
		return false;
	p.sport = read_be16(data + p.l4);
	p.dport = read_be16(data + p.l4 + 2);
	checksum = p.l4 + (p.protocol == PROTOCOL_TCP ? 16 : 6);
	if (end >= checksum + 2)
		p.checksum = checksum;
	claimed = p.l3 + p.ip_length;
	if (!p.checksum || claimed > end || claimed < checksum + 2)
		p.whole = false;
	else
		p.covered =
			p.protocol == PROTOCOL_TCP ? claimed - p.l4 : read_be16(data + p.l4 + 4);
	if (p.l4 + p.covered > claimed)
		p.whole = false;
	*ret = p;
	return true;
}
