/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The oracle. Reads bytes at offsets, as the figures in the RFCs number them; slow on purpose:
 * flows are searched one by one, checksums made from scratch wherever the packet allows it.
 */
#include "tests/bpf/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bpf/packet.h"

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

/* ---- reading ---- */

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
	if (p->protocol == PROTOCOL_ICMP && !(read_be16(d + 6) & 0x3fff))
		note_icmp(p, header, read_be16(d + 2), held);
	if (p->protocol != PROTOCOL_TCP && p->protocol != PROTOCOL_UDP)
		return ORACLE_NOT_TCP_UDP;
	if (read_be16(d + 6) & 0x1fff)
		return ORACLE_LATER_FRAGMENT;
	*ret_more = read_be16(d + 6) & 0x2000;
	*ret_header = header;
	p->ip_length = read_be16(d + 2);
	return ORACLE_TRANSLATABLE;
}

static bool is_extension(uint8_t number)
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
	for (int n = 0; is_extension(next); n++) {
		const uint8_t *h = d + at;
		bool fragment = next == PROTOCOL_FRAGMENT;

		if (n == EXTENSIONS_WALKED || at > HEADERS_WALKED)
			return ORACLE_TOO_DEEP;
		if (held < at + 4)
			return ORACLE_TRUNCATED;
		if (fragment && read_be16(h + 2) & 0xfff8)
			return ORACLE_LATER_FRAGMENT;
		if (fragment)
			*ret_more = read_be16(h + 2) & 1;
		at += fragment ? 8 : 8 + h[1] * 8U;
		next = h[0];
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
	p->checksum = p->l4 + 16;
	p->covered = room;
	return ORACLE_TRANSLATABLE;
}

static enum oracle_class parse(const uint8_t *data, size_t length, bool ethernet,
			       struct oracle_packet *p)
{
	uint16_t type = length && data[0] >> 4 == 6 ? 0x86dd : 0x0800;
	enum oracle_class c = ORACLE_TRANSLATABLE;
	size_t header = 0, room;
	bool more = false;

	if (ethernet)
		c = parse_ethernet(data, length, &type, &p->l3);
	if (c != ORACLE_TRANSLATABLE)
		return c;
	if (type == 0x0800)
		c = parse_ipv4(data + p->l3, length - p->l3, p, &header, &more);
	else if (type == 0x86dd)
		c = parse_ipv6(data + p->l3, length - p->l3, p, &header, &more);
	else
		c = ORACLE_NOT_IP;
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

void oracle_parse(const uint8_t *data, size_t length, bool ethernet, struct oracle_packet *ret)
{
	*ret = (struct oracle_packet){.class = ORACLE_NOT_IP};
	ret->class = parse(data, length, ethernet, ret);
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
	for (int n = 0; is_extension(p->protocol); n++) {
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

/* ---- checksums ---- */

/* Pseudo header (RFC 9293, 3.1; RFC 8200, 8.1), then header and payload with the field as zero. */
uint16_t oracle_l4_checksum(const uint8_t *data, const struct oracle_packet *p)
{
	size_t address = p->ipv6 ? 16 : 4;
	uint32_t sum = p->protocol + (uint32_t)p->covered;
	uint16_t check;

	sum = checksum_add(sum, p->source, address);
	sum = checksum_add(sum, p->destination, address);
	sum = checksum_add(sum, data + p->l4, p->covered);
	sum += 0xffffU - read_be16(data + p->checksum);
	check = (uint16_t)~checksum_fold(sum);
	if (p->protocol == PROTOCOL_UDP && !check)
		return 0xffff;
	return check;
}

bool oracle_l4_checksum_holds(const uint8_t *data, const struct oracle_packet *p)
{
	uint16_t check = read_be16(data + p->checksum);

	if (p->protocol == PROTOCOL_UDP && !check)
		return !p->ipv6; /* RFC 8200, 8.1 */
	return check == oracle_l4_checksum(data, p);
}

bool oracle_ipv4_checksum_holds(const uint8_t *data, const struct oracle_packet *p)
{
	const uint8_t *ip = data + p->l3;

	return checksum_fold(checksum_add(0, ip, (ip[0] & 15) * 4U)) == 0xffff;
}

/* RFC 1624, equation 3: HC' = ~(~HC + ~m + m'), for the 16-bit fields that change. */
static uint16_t checksum_update(uint16_t check, uint16_t old, uint16_t new)
{
	return (uint16_t)~checksum_fold((uint32_t)(uint16_t)~check + (uint16_t)~old + new);
}

void oracle_translate(uint8_t *data, const struct oracle_packet *p, uint16_t sport, uint16_t dport)
{
	bool unchecked = p->protocol == PROTOCOL_UDP && !read_be16(data + p->checksum);
	bool from_scratch = p->whole && oracle_l4_checksum_holds(data, p);
	uint16_t check = read_be16(data + p->checksum);

	check = checksum_update(check, p->sport, sport);
	check = checksum_update(check, p->dport, dport);
	if (p->protocol == PROTOCOL_UDP && !check)
		check = 0xffff;
	write_be16(data + p->l4, sport);
	write_be16(data + p->l4 + 2, dport);
	if (unchecked)
		return;
	write_be16(data + p->checksum, from_scratch ? oracle_l4_checksum(data, p) : check);
}

uint16_t oracle_icmp_checksum(const uint8_t *data, const struct oracle_packet *p)
{
	size_t length = p->icmp_end - p->icmp;
	uint32_t sum = 0;

	if (p->ipv6) {
		sum = PROTOCOL_ICMPV6 + (uint32_t)length;
		sum = checksum_add(sum, p->source, 16);
		sum = checksum_add(sum, p->destination, 16);
	}
	sum = checksum_add(sum, data + p->icmp, length);
	sum += 0xffffU - read_be16(data + p->icmp + 2);
	return (uint16_t)~checksum_fold(sum);
}

/* The quote gets other ports; its checksum and the message's follow, right or wrong. */
static void translate_quote(uint8_t *data, const struct oracle_packet *error,
			    const struct oracle_packet *q, uint16_t sport, uint16_t dport)
{
	uint16_t check = read_be16(data + error->icmp + 2), old = 0, new = 0;
	bool holds = check == oracle_icmp_checksum(data, error);

	if (q->checksum) {
		old = read_be16(data + q->checksum);
		oracle_translate(data, q, sport, dport);
		new = read_be16(data + q->checksum);
	} else {
		write_be16(data + q->l4, sport);
		write_be16(data + q->l4 + 2, dport);
	}
	check = checksum_update(check, old, new);
	check = checksum_update(check, q->sport, sport);
	check = checksum_update(check, q->dport, dport);
	write_be16(data + error->icmp + 2, holds ? oracle_icmp_checksum(data, error) : check);
}

/* ---- flows ---- */

void oracle_init(struct oracle *o, const struct oracle_rule *rules, size_t n_rules)
{
	*o = (struct oracle){.rules = rules, .n_rules = n_rules};
}

void oracle_clear(struct oracle *o)
{
	free(o->flows);
	*o = (struct oracle){.flows = NULL};
}

struct oracle_flow *oracle_find(struct oracle *o, const struct oracle_packet *p, bool reply)
{
	const uint8_t *client = reply ? p->destination : p->source;
	const uint8_t *server = reply ? p->source : p->destination;
	uint16_t client_port = reply ? p->dport : p->sport;
	uint16_t server_port = reply ? p->sport : p->dport;

	for (size_t i = 0; i < o->n_flows; i++) {
		struct oracle_flow *f = &o->flows[i];

		if (f->client_port == client_port && f->ipv6 == p->ipv6 &&
		    f->protocol == p->protocol &&
		    (reply ? f->target_port : f->listen_port) == server_port &&
		    memcmp(f->client, client, 16) == 0 && memcmp(f->server, server, 16) == 0)
			return f;
	}
	return NULL;
}

static const struct oracle_rule *find_rule(const struct oracle *o, const struct oracle_packet *p)
{
	for (size_t i = 0; i < o->n_rules; i++) {
		const struct oracle_rule *r = &o->rules[i];

		if ((p->protocol == PROTOCOL_TCP ? r->tcp : r->udp) && p->dport >= r->first &&
		    p->dport <= r->last)
			return r;
	}
	return NULL;
}

/* A TCP flow begins with a SYN or amid a living connection; nothing begins with its end. */
static bool may_begin(const struct oracle_packet *p)
{
	if (p->protocol == PROTOCOL_UDP)
		return true;
	if (p->tcp_flags & (TCP_FLAG_RST | TCP_FLAG_FIN))
		return false;
	return p->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_ACK);
}

static struct oracle_flow *begin(struct oracle *o, const struct oracle_packet *p)
{
	const struct oracle_rule *r = find_rule(o, p);
	struct oracle_flow *f;

	if (!r || !may_begin(p))
		return NULL;
	if (o->n_flows == o->allocated) {
		o->allocated = o->allocated ? 2 * o->allocated : 64;
		o->flows = realloc(o->flows, o->allocated * sizeof(*o->flows));
		if (!o->flows) {
			fputs("oracle: out of memory\n", stderr);
			abort();
		}
	}
	f = &o->flows[o->n_flows++];
	*f = (struct oracle_flow){
		.ipv6 = p->ipv6,
		.protocol = p->protocol,
		.client_port = p->sport,
		.listen_port = p->dport,
		.target_port = (uint16_t)(p->dport - r->first + r->target),
	};
	memcpy(f->client, p->source, 16);
	memcpy(f->server, p->destination, 16);
	return f;
}

/*
 * An error that comes in is about a packet that went out translated, of either direction; one that
 * goes out is about a packet that came in and was translated. The flow is the one of the quote,
 * turned around; the receiver has sent what is quoted.
 */
static bool pass_error(struct oracle *o, bool out, uint8_t *data, const struct oracle_packet *error)
{
	struct oracle_packet q, inverse;
	struct oracle_flow *f;

	if (!oracle_parse_quote(data, error, &q) ||
	    memcmp(error->destination, q.source, sizeof(q.source)) != 0)
		return false;
	inverse = q;
	memcpy(inverse.source, q.destination, 16);
	memcpy(inverse.destination, q.source, 16);
	inverse.sport = q.dport;
	inverse.dport = q.sport;
	f = oracle_find(o, &inverse, out);
	if (!f && !out)
		f = oracle_find(o, &inverse, out = true);
	if (!f)
		return false;
	if (out)
		translate_quote(data, error, &q, q.sport, f->listen_port);
	else
		translate_quote(data, error, &q, f->target_port, q.dport);
	return true;
}

bool oracle_pass(struct oracle *o, enum oracle_hook hook, bool ethernet, uint8_t *data,
		 size_t length)
{
	bool reply = hook == ORACLE_OUT;
	struct oracle_packet p;
	struct oracle_flow *f;

	oracle_parse(data, length, ethernet, &p);
	if (p.class == ORACLE_NOT_TCP_UDP)
		return pass_error(o, reply, data, &p);
	if (p.class != ORACLE_TRANSLATABLE)
		return false;
	f = oracle_find(o, &p, reply);
	if (!f && !reply)
		f = begin(o, &p);
	if (!f)
		return false;
	f->packets[reply]++;
	f->bytes[reply] += p.ip_length;
	if (reply)
		oracle_translate(data, &p, f->listen_port, p.dport);
	else
		oracle_translate(data, &p, p.sport, f->target_port);
	return true;
}
