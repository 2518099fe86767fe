/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IP addresses and prefixes: parsing, printing, comparing. inet_pton(3) and inet_ntop(3) decide
 * what an address is and how it is written. */
#include "shared/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* Bits of an address of the family; 0 for none. */
static unsigned ip_family_bits(uint8_t family)
{
	if (family == AF_INET)
		return 32;
	return family == AF_INET6 ? 128 : 0;
}

bool ip_prefix_is_host(const struct ip_prefix *p)
{
	return p->family != 0 && p->length == ip_family_bits(p->family);
}

/* The bits of byte `index` that lie within the first `length` bits. */
static uint8_t ip_byte_mask(unsigned length, unsigned index)
{
	unsigned before = index * 8;

	if (length <= before)
		return 0;
	if (length >= before + 8)
		return 0xff;
	return (uint8_t)(0xff << (8 - (length - before)));
}

bool ip_prefix_has_host_bits(const struct ip_prefix *p)
{
	for (unsigned i = 0; i < ip_family_bits(p->family) / 8; i++)
		if (p->bytes[i] & (uint8_t)~ip_byte_mask(p->length, i))
			return true;
	return false;
}

void ip_prefix_clear_host_bits(struct ip_prefix *p)
{
	for (unsigned i = 0; i < sizeof(p->bytes); i++)
		p->bytes[i] &= ip_byte_mask(p->length, i);
}

bool ip_prefix_equal(const struct ip_prefix *a, const struct ip_prefix *b)
{
	return a->family == b->family && a->length == b->length &&
	       memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool ip_prefix_contains(const struct ip_prefix *outer, const struct ip_prefix *inner)
{
	if (outer->family == 0 || outer->family != inner->family || outer->length > inner->length)
		return false;
	for (unsigned i = 0; i < sizeof(outer->bytes); i++)
		if ((outer->bytes[i] ^ inner->bytes[i]) & ip_byte_mask(outer->length, i))
			return false;
	return true;
}

/* Decimal digits only, at most `most`. */
static int ip_length_parse(const char *text, unsigned most, uint8_t *ret)
{
	unsigned value = 0;
	size_t n = strspn(text, "0123456789");

	if (n == 0 || n > 3 || text[n] != '\0' || (n > 1 && text[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		value = value * 10 + (unsigned)(text[i] - '0');
	if (value > most)
		return -EINVAL;
	*ret = (uint8_t)value;
	return 0;
}

/* Takes the brackets off `[ADDR]`; -EINVAL when they do not pair up. */
static int ip_strip_brackets(char *text, char **ret)
{
	size_t n = strlen(text);

	*ret = text;
	if (text[0] != '[')
		return 0;
	if (n < 2 || text[n - 1] != ']')
		return -EINVAL;
	text[n - 1] = '\0';
	*ret = text + 1;
	return 0;
}

int ip_prefix_parse(const char *text, struct ip_prefix *ret)
{
	char buffer[IP_PREFIX_STRLEN], *address, *slash;
	struct ip_prefix p = {0};

	if (strlen(text) >= sizeof(buffer))
		return -EINVAL;
	strcpy(buffer, text);
	slash = strchr(buffer, '/');
	if (slash)
		*slash++ = '\0';
	if (ip_strip_brackets(buffer, &address) < 0)
		return -EINVAL;

	if (address == buffer && inet_pton(AF_INET, address, p.bytes) == 1)
		p.family = AF_INET;
	else if (inet_pton(AF_INET6, address, p.bytes) == 1)
		p.family = AF_INET6;
	else
		return -EINVAL;

	p.length = (uint8_t)ip_family_bits(p.family);
	if (slash && ip_length_parse(slash, p.length, &p.length) < 0)
		return -EINVAL;
	*ret = p;
	return 0;
}

/*
 * inet_ntop(3) goes through sprintf(3), which would be most of what a dump of a million flows
 * takes: the forms that are not rare are written here, and tests hold them against it.
 */
static char *write_octet(char *to, unsigned n)
{
	if (n >= 100)
		*to++ = (char)('0' + n / 100);
	if (n >= 10)
		*to++ = (char)('0' + n / 10 % 10);
	*to++ = (char)('0' + n % 10);
	return to;
}

static void ipv4_format(const uint8_t bytes[static 4], char *to)
{
	for (int i = 0; i < 4; i++) {
		if (i)
			*to++ = '.';
		to = write_octet(to, bytes[i]);
	}
	*to = '\0';
}

static char *write_group(char *to, unsigned group)
{
	static const char digits[] = "0123456789abcdef";

	for (int shift = group > 0xfff	? 12
			 : group > 0xff ? 8
			 : group > 0xf	? 4
					: 0;
	     shift >= 0; shift -= 4)
		*to++ = digits[group >> shift & 0xf];
	return to;
}

/* The first of the longest runs of two zero groups or more (RFC 5952, 4.2); its length, or 0. */
static int longest_zeros(const unsigned groups[static 8], int *ret_first)
{
	int longest = 1, run = 0;

	for (int i = 0; i < 8; i++) {
		run = groups[i] ? 0 : run + 1;
		if (run <= longest)
			continue;
		longest = run;
		*ret_first = i + 1 - run;
	}
	return longest > 1 ? longest : 0;
}

static void ipv6_format(const uint8_t bytes[static 16], char *to)
{
	unsigned groups[8];
	int first = 8, zeros;

	for (int i = 0; i < 8; i++)
		groups[i] = (unsigned)bytes[2 * i] << 8 | bytes[2 * i + 1];
	zeros = longest_zeros(groups, &first);
	for (int i = 0; i < 8; i++) {
		if (i == first) {
			*to++ = ':';
			i += zeros - 1;
			if (i == 7)
				*to++ = ':';
			continue;
		}
		if (i)
			*to++ = ':';
		to = write_group(to, groups[i]);
	}
	*to = '\0';
}

/* Those that may be written with a dotted quad at their end. */
static bool ipv6_holds_ipv4(const uint8_t bytes[static 16])
{
	static const uint8_t zeros[10];

	return memcmp(bytes, zeros, sizeof(zeros)) == 0;
}

const char *ip_address_format(const struct ip_prefix *p, char buffer[static IP_PREFIX_STRLEN])
{
	if (p->family == AF_INET)
		ipv4_format(p->bytes, buffer);
	else if (p->family == AF_INET6 && !ipv6_holds_ipv4(p->bytes))
		ipv6_format(p->bytes, buffer);
	else if (!inet_ntop(p->family, p->bytes, buffer, IP_PREFIX_STRLEN))
		buffer[0] = '\0';
	return buffer;
}

const char *ip_prefix_format(const struct ip_prefix *p, char buffer[static IP_PREFIX_STRLEN])
{
	char address[IP_PREFIX_STRLEN];
	bool brackets = p->family == AF_INET6;
	int n;

	ip_address_format(p, address);
	n = snprintf(buffer, IP_PREFIX_STRLEN, "%s%.46s%s", brackets ? "[" : "", address,
		     brackets ? "]" : "");
	if (p->family != 0 && !ip_prefix_is_host(p))
		snprintf(buffer + n, IP_PREFIX_STRLEN - (size_t)n, "/%hhu", p->length);
	return buffer;
}

void ip_prefix_to_mapped(const struct ip_prefix *p, uint8_t ret[static 16])
{
	if (p->family == AF_INET) {
		memcpy(ret, mapped_prefix, sizeof(mapped_prefix));
		memcpy(ret + sizeof(mapped_prefix), p->bytes, 4);
	} else {
		memcpy(ret, p->bytes, 16);
	}
}

bool ip_prefix_is_mapped(const struct ip_prefix *p)
{
	return p->family == AF_INET6 && p->length >= 96 &&
	       memcmp(p->bytes, mapped_prefix, sizeof(mapped_prefix)) == 0;
}

void ip_prefix_from_mapped(const uint8_t mapped[static 16], struct ip_prefix *ret)
{
	*ret = (struct ip_prefix){0};
	if (memcmp(mapped, mapped_prefix, sizeof(mapped_prefix)) == 0) {
		ret->family = AF_INET;
		memcpy(ret->bytes, mapped + sizeof(mapped_prefix), 4);
	} else {
		ret->family = AF_INET6;
		memcpy(ret->bytes, mapped, 16);
	}
	ret->length = (uint8_t)ip_family_bits(ret->family);
}
