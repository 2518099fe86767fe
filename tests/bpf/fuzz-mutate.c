/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Damage: most of it in the headers, where it matters. */
#include <string.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

/* Numbers that lengths, versions and offsets go wrong at. */
static uint8_t random_byte(void)
{
	static const uint8_t edges[] = {0,    1,    4,	  5,	6,    7,    8,	  17,	0x40,
					0x45, 0x46, 0x4f, 0x50, 0x60, 0x7f, 0x80, 0x81, 0xff};

	return random_below(2) ? random_of(edges) : (uint8_t)random_below(256);
}

static size_t random_offset(const struct packet *p)
{
	size_t headers = (p->quote ? p->quote_l4 : p->l4) + 20;

	if (headers > p->length)
		headers = p->length;
	return random_below(8) ? random_below((uint32_t)headers)
			       : random_below((uint32_t)p->length);
}

static void set(struct packet *p, size_t at)
{
	if (at < p->length)
		p->data[at] = random_byte();
}

static void flip_bit(struct packet *p)
{
	p->data[random_offset(p)] ^= (uint8_t)(1U << random_below(8));
}

static void set_byte(struct packet *p)
{
	set(p, random_offset(p));
}

/* Version, lengths, fragment, protocol. */
static void set_l3_byte(struct packet *p)
{
	set(p, p->l3 + random_below(10));
}

/* Extension headers and options: their numbers and lengths. */
static void set_between(struct packet *p)
{
	size_t header = p->data[p->l3] >> 4 == 6 ? 40 : 20;

	if (p->l4 > p->l3 + header)
		set(p, p->l3 + header + random_below((uint32_t)(p->l4 - p->l3 - header)));
}

/* Ports, lengths, flags, checksum. */
static void set_l4_byte(struct packet *p)
{
	set(p, p->l4 + random_below(20));
}

/* Of an error: the quoted headers. */
static void set_quote_byte(struct packet *p)
{
	if (p->quote)
		set(p, p->quote + random_below((uint32_t)(p->quote_l4 - p->quote + 20)));
}

/* A length that lies by a little. */
static void shift_length(struct packet *p)
{
	bool ipv6 = p->data[p->l3] >> 4 == 6;
	size_t at = p->l3 + (ipv6 ? 4 : 2);

	if (random_once_in(3))
		at = p->l4 + 4; /* UDP's */
	if (at + 2 <= p->length)
		write_be16(p->data + at,
			   (uint16_t)(read_be16(p->data + at) + random_below(17) - 8));
}

static void cut(struct packet *p)
{
	p->length -= random_below((uint32_t)p->length / 2);
}

static void pad(struct packet *p)
{
	size_t more = random_below(60);

	if (p->length + more > sizeof(p->data))
		return;
	memset(p->data + p->length, 0xa5, more);
	p->length += more;
}

static void copy_bytes(struct packet *p)
{
	size_t at = random_offset(p), from = random_offset(p);

	if (from + 4 <= p->length && at + 4 <= p->length)
		memmove(p->data + at, p->data + from, 4);
}

/* A header is there twice, or a part of it: what follows moves. */
static void double_header(struct packet *p)
{
	size_t lengths[] = {4, 8, 20, 40, p->l4 - p->l3};
	size_t n = random_of(lengths), at = random_below(2) ? p->l3 : p->l4;

	if (!n || at + n > p->length || p->length + n > sizeof(p->data))
		return;
	memmove(p->data + at + n, p->data + at, p->length - at);
	p->length += n;
}

void fuzz_mutate(struct packet *p)
{
	static void (*const ways[])(struct packet *) = {
		flip_bit,	set_byte,     set_l3_byte, set_between, set_l4_byte, set_l4_byte,
		set_quote_byte, shift_length, cut,	   pad,		copy_bytes,  double_header,
	};

	if (p->length > 40)
		random_of(ways)(p);
}

bool fuzz_refused_by_kernel(const struct packet *p)
{
	uint16_t type = read_be16(p->data + 12);

	return p->length < 15 || (type == 0x0800 && p->length < 14 + 20) ||
	       (type == 0x86dd && p->length < 14 + 40);
}
