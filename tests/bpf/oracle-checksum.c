/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checksums: from scratch wherever the packet allows it; where it does not, or where the checksum
 * was wrong before, by what was changed (RFC 1624), so that it is as wrong afterwards.
 */
#include <string.h>

#include "tests/bpf/oracle-parts.h"
#include "tests/bpf/packet.h"

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

/* Equation 3: HC' = ~(~HC + ~m + m'), for each field of 16 bits. */
uint16_t oracle_checksum_update(uint16_t check, const uint8_t *old, const uint8_t *new,
				size_t length)
{
	for (size_t i = 0; i + 1 < length; i += 2)
		check = (uint16_t)~checksum_fold((uint32_t)(uint16_t)~check +
						 (uint16_t)~read_be16(old + i) +
						 read_be16(new + i));
	return check;
}

static void write_ip_checksum(uint8_t *ip)
{
	write_be16(ip + 10, 0);
	write_be16(ip + 10, (uint16_t)~checksum_fold(checksum_add(0, ip, (ip[0] & 15) * 4U)));
}

void oracle_rewrite_addresses(uint8_t *data, const struct oracle_packet *p, const uint8_t *source,
			      const uint8_t *destination)
{
	bool held = !p->ipv6 && oracle_ipv4_checksum_holds(data, p);
	size_t n = p->ipv6 ? 16 : 4, at = p->l3 + (p->ipv6 ? 8 : 12);
	uint8_t new[2 * ORACLE_ADDRESS], *ip = data + p->l3;
	uint16_t check;

	memcpy(new, source, n);
	memcpy(new + n, destination, n);
	if (!p->ipv6) {
		check = oracle_checksum_update(read_be16(ip + 10), data + at, new, 2 * n);
		write_be16(ip + 10, check);
	}
	memcpy(data + at, new, 2 * n);
	if (held)
		write_ip_checksum(ip);
}

void oracle_rewrite_length(uint8_t *data, const struct oracle_packet *p, uint16_t length)
{
	bool held = oracle_ipv4_checksum_holds(data, p);
	uint8_t new[2], *ip = data + p->l3;

	write_be16(new, length);
	write_be16(ip + 10, oracle_checksum_update(read_be16(ip + 10), ip + 2, new, sizeof(new)));
	memcpy(ip + 2, new, sizeof(new));
	if (held)
		write_ip_checksum(ip);
}

/* What a changed tuple makes of the L4 checksum, by the change alone. */
static uint16_t updated(uint16_t check, const struct oracle_packet *p,
			const struct oracle_tuple *to)
{
	uint8_t old[2 * ORACLE_ADDRESS + 4], new[sizeof(old)];

	memcpy(old, p->source, ORACLE_ADDRESS);
	memcpy(old + ORACLE_ADDRESS, p->destination, ORACLE_ADDRESS);
	write_be16(old + sizeof(old) - 4, p->sport);
	write_be16(old + sizeof(old) - 2, p->dport);
	memcpy(new, to->source, ORACLE_ADDRESS);
	memcpy(new + ORACLE_ADDRESS, to->destination, ORACLE_ADDRESS);
	write_be16(new + sizeof(new) - 4, to->sport);
	write_be16(new + sizeof(new) - 2, to->dport);
	return oracle_checksum_update(check, old, new, sizeof(old));
}

void oracle_rewrite(uint8_t *data, const struct oracle_packet *p, const struct oracle_tuple *to)
{
	struct oracle_packet after = *p;
	bool from_scratch;
	uint16_t check;

	memcpy(after.source, to->source, ORACLE_ADDRESS);
	memcpy(after.destination, to->destination, ORACLE_ADDRESS);
	after.sport = to->sport;
	after.dport = to->dport;
	from_scratch = p->checksum && p->whole && oracle_l4_checksum_holds(data, p);
	oracle_rewrite_addresses(data, p, to->source, to->destination);
	write_be16(data + p->l4, to->sport);
	write_be16(data + p->l4 + 2, to->dport);
	if (!p->checksum)
		return;
	check = read_be16(data + p->checksum);
	if (p->protocol == PROTOCOL_UDP && !check)
		return; /* there is none */
	check = from_scratch ? oracle_l4_checksum(data, &after) : updated(check, p, to);
	if (p->protocol == PROTOCOL_UDP && !check)
		check = 0xffff;
	write_be16(data + p->checksum, check);
}

static void accept_at(const uint8_t *expected, size_t at, uint8_t *got)
{
	uint16_t a = read_be16(expected + at), b = read_be16(got + at);

	if ((a == 0 || a == 0xffff) && (b == 0 || b == 0xffff))
		write_be16(got + at, a);
}

static void accept_l4(const uint8_t *expected, const struct oracle_packet *p, uint8_t *got)
{
	if (p->protocol == PROTOCOL_TCP && p->checksum &&
	    !(p->whole && oracle_l4_checksum_holds(expected, p)))
		accept_at(expected, p->checksum, got);
}

void oracle_accept_negative_zero(const uint8_t *expected, size_t length,
				 const struct oracle_packet *p, uint8_t *got)
{
	struct oracle_packet quote;

	if (p->class == ORACLE_TRANSLATABLE)
		accept_l4(expected, p, got);
	if (!p->ipv6 && p->l3 + 20 <= length)
		accept_at(expected, p->l3 + 10, got);
	if (!p->icmp || !oracle_parse_quote(expected, p, &quote))
		return;
	if (!quote.ipv6)
		accept_at(expected, quote.l3 + 10, got);
	accept_l4(expected, &quote, got);
	if (read_be16(expected + p->icmp + 2) != oracle_icmp_checksum(expected, p))
		accept_at(expected, p->icmp + 2, got);
}
