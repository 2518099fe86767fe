/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The packet builder: front to back through the layers, lengths and checksums filled in last. */
#include "tests/bpf/packet.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ETHERTYPE_8021Q	 0x8100
#define ETHERTYPE_8021AD 0x88a8
#define ETHERTYPE_IPV4	 0x0800
#define ETHERTYPE_IPV6	 0x86dd

uint16_t read_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

uint32_t read_be32(const uint8_t *p)
{
	return (uint32_t)read_be16(p) << 16 | read_be16(p + 2);
}

void write_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

void write_be32(uint8_t *p, uint32_t v)
{
	write_be16(p, (uint16_t)(v >> 16));
	write_be16(p + 2, (uint16_t)v);
}

uint32_t checksum_add(uint32_t sum, const void *data, size_t length)
{
	const uint8_t *p = data;

	for (size_t i = 0; i + 1 < length; i += 2)
		sum += read_be16(p + i);
	if (length & 1)
		sum += (uint32_t)p[length - 1] << 8;
	return sum;
}

uint16_t checksum_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void __attribute__((noreturn)) refuse(const char *what)
{
	fprintf(stderr, "packet_build: %s\n", what);
	abort();
}

static uint8_t *extend(struct packet *p, size_t n)
{
	uint8_t *where = p->data + p->length;

	if (p->length + n > sizeof(p->data))
		refuse("the packet is longer than PACKET_MAX");
	memset(where, 0, n);
	p->length += n;
	return where;
}

static bool is_ipv6(const struct packet_spec *s)
{
	return strchr(s->source, ':') != NULL;
}

static void parse_address(const struct packet_spec *s, const char *text, uint8_t *ret)
{
	if (inet_pton(is_ipv6(s) ? AF_INET6 : AF_INET, text, ret) != 1)
		refuse("source and destination are not two addresses of one family");
}

/* Locally administered addresses, the destination not multicast. */
static void add_ethernet(const struct packet_spec *s, struct packet *p)
{
	static const uint8_t addresses[12] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};

	if (s->vlans > PACKET_VLANS_MAX)
		refuse("more VLAN tags than PACKET_VLANS_MAX");
	memcpy(extend(p, sizeof(addresses)), addresses, sizeof(addresses));
	for (unsigned i = 0; i < s->vlans; i++) {
		uint8_t *tag = extend(p, 4);

		write_be16(tag, i + 1 < s->vlans ? ETHERTYPE_8021AD : ETHERTYPE_8021Q);
		write_be16(tag + 2, (uint16_t)(100 + i));
	}
	write_be16(extend(p, 2), is_ipv6(s) ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4);
}

static void add_ipv4(const struct packet_spec *s, struct packet *p)
{
	uint8_t *ip = extend(p, 20U + s->ip_options);

	if (s->ip_options % 4 || s->ip_options > 40)
		refuse("IPv4 options come in fours, up to 40 bytes");
	ip[0] = (uint8_t)(0x40 | (5 + s->ip_options / 4));
	write_be16(ip + 4, s->fragment_id ? (uint16_t)s->fragment_id : 0x1234);
	write_be16(ip + 6, (uint16_t)((s->more_fragments ? 0x2000 : 0) | s->fragment_offset / 8));
	ip[8] = 64;
	ip[9] = s->protocol;
	parse_address(s, s->source, ip + 12);
	parse_address(s, s->destination, ip + 16);
	memset(ip + 20, 1, s->ip_options);
}

static void finish_ipv4(struct packet *p)
{
	uint8_t *ip = p->data + p->l3;
	size_t header = (ip[0] & 15) * 4U;

	write_be16(ip + 2, (uint16_t)(p->length - p->l3));
	write_be16(ip + 10, (uint16_t)~checksum_fold(checksum_add(0, ip, header)));
}

/* Adds one extension header; `link` is the next-header field to name it in. Returns its own. */
static size_t add_extension(const struct packet_spec *s, struct packet *p, uint8_t number,
			    size_t link)
{
	size_t where = p->length, n = number == IPPROTO_FRAGMENT ? 8 : 8 + s->extension_length * 8U;
	uint8_t *h = extend(p, n);

	p->data[link] = number;
	if (number == IPPROTO_FRAGMENT) {
		write_be16(h + 2, (uint16_t)(s->fragment_offset | s->more_fragments));
		write_be32(h + 4, s->fragment_id ? s->fragment_id : 0x12345678);
		return where;
	}
	h[1] = s->extension_length;
	if (number == IPPROTO_ROUTING)
		return where; /* type 0, no segments left */
	/* one PadN option over the rest (RFC 8200, 4.2), or Pad1s where that has no room */
	h[2] = 1;
	h[3] = (uint8_t)(n - 4 > 255 ? 0 : n - 4);
	return where;
}

static void add_ipv6(const struct packet_spec *s, struct packet *p)
{
	uint8_t *ip = extend(p, 40);
	size_t link = p->l3 + 6;

	ip[0] = 0x60;
	ip[7] = 64;
	parse_address(s, s->source, ip + 8);
	parse_address(s, s->destination, ip + 24);
	if (s->hop_by_hop)
		link = add_extension(s, p, IPPROTO_HOPOPTS, link);
	for (size_t i = 0; i < PACKET_EXTENSIONS_MAX && s->extensions[i]; i++)
		link = add_extension(s, p, s->extensions[i], link);
	if (s->fragmented)
		link = add_extension(s, p, IPPROTO_FRAGMENT, link);
	p->data[link] = s->protocol;
}

static void finish_ipv6(struct packet *p)
{
	write_be16(p->data + p->l3 + 4, (uint16_t)(p->length - p->l3 - 40));
}

/* Returns the offset of the checksum within the header. */
static size_t add_l4_header(const struct packet_spec *s, struct packet *p)
{
	uint8_t *h;

	switch (s->protocol) {
	case IPPROTO_TCP:
		h = extend(p, 20U + s->tcp_options);
		write_be16(h, s->sport);
		write_be16(h + 2, s->dport);
		write_be32(h + 4, 0x01020304);
		h[12] = (uint8_t)((5 + s->tcp_options / 4) << 4);
		h[13] = s->tcp_flags;
		write_be16(h + 14, 64240);
		memset(h + 20, 1, s->tcp_options);
		return 16;
	case IPPROTO_UDP:
		h = extend(p, 8);
		write_be16(h, s->sport);
		write_be16(h + 2, s->dport);
		write_be16(h + 4, (uint16_t)(8 + s->payload_length));
		return 6;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		h = extend(p, 8);
		write_be16(h, s->sport);
		write_be16(h + 4, s->dport);
		return 2;
	default:
		refuse("protocol: TCP, UDP, ICMP or ICMPv6");
	}
}

static void add_payload(const struct packet_spec *s, struct packet *p)
{
	uint8_t *payload = extend(p, s->payload_length);

	if (s->payload)
		memcpy(payload, s->payload, s->payload_length);
	else
		for (size_t i = 0; i < s->payload_length; i++)
			payload[i] = (uint8_t)(i * 7 + 1);
}

static void finish_l4(const struct packet_spec *s, struct packet *p)
{
	size_t address = is_ipv6(s) ? 16 : 4, length = p->length - p->l4;
	const uint8_t *source = p->data + p->l3 + (is_ipv6(s) ? 8 : 12);
	uint32_t sum = 0;
	uint16_t check;

	if (s->protocol != IPPROTO_ICMP) {
		sum = checksum_add(sum, source, 2 * address);
		sum += s->protocol + (uint32_t)length;
	}
	check = (uint16_t)~checksum_fold(checksum_add(sum, p->data + p->l4, length));
	if (s->protocol == IPPROTO_UDP && !check)
		check = 0xffff;
	if (s->protocol == IPPROTO_UDP && s->udp_unchecked)
		check = 0;
	write_be16(p->data + p->l4_checksum, check);
}

void packet_build(const struct packet_spec *s, struct packet *ret)
{
	bool later = s->fragment_offset > 0;

	*ret = (struct packet){.length = 0};
	if (!s->no_ethernet)
		add_ethernet(s, ret);
	ret->l3 = ret->length;
	if (is_ipv6(s))
		add_ipv6(s, ret);
	else
		add_ipv4(s, ret);
	ret->l4 = ret->length;
	if (!later)
		ret->l4_checksum = ret->l4 + add_l4_header(s, ret);
	add_payload(s, ret);
	if (!later)
		finish_l4(s, ret);
	if (is_ipv6(s))
		finish_ipv6(ret);
	else
		finish_ipv4(ret);
	extend(ret, s->padding);
}

void packet_build_error(const struct packet_spec *error, const struct packet_spec *about,
			size_t bytes, struct packet *ret)
{
	struct packet_spec outer = *error, inner = *about;
	struct packet quoted;

	inner.no_ethernet = true;
	inner.vlans = 0;
	inner.padding = 0;
	packet_build(&inner, &quoted);
	if (bytes > quoted.length - quoted.l4)
		bytes = quoted.length - quoted.l4;
	outer.protocol = is_ipv6(&outer) ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	outer.payload = quoted.data;
	outer.payload_length = quoted.l4 + bytes;
	packet_build(&outer, ret);
	ret->quote = ret->l4 + 8;
	ret->quote_l4 = ret->quote + quoted.l4;
}
