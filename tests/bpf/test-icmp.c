/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP and ICMPv6 errors about redirected flows. What must come out is the error that the builder
 * makes about the packet as the error's receiver sent it, with every checksum made from scratch;
 * and what the oracle says. Everything else of ICMP leaves as it came.
 */
#include <linux/pkt_cls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/world.h"

#define ROUTER4	  "203.0.113.9"
#define ROUTER6	  "2001:db8:f::9"
#define FLOWS_MAX 256

static const char *const rule_texts[] = {
	"tcp *:8080 to 80", "udp *:5300 to 53", "tcp *:8084 to 84", "tcp *:8085 to 84", NULL,
};

static struct oracle_rule oracle_rules[] = {
	{.tcp = true, .first = 8080, .last = 8080, .target = 80},
	{.udp = true, .first = 5300, .last = 5300, .target = 53},
};

static const enum oracle_hook hooks[] = {ORACLE_IN, ORACLE_OUT};

/* The first packet of the flow that all errors here are about: one for each protocol and family. */
static struct packet_spec first_packet(bool ipv6, bool tcp)
{
	struct packet_spec s =
		tcp ? tcp4(CLIENT_PORT, 8080, TCP_FLAG_SYN) : udp4(CLIENT_PORT, 5300);

	if (ipv6) {
		s.source = CLIENT6;
		s.destination = SERVER6;
	}
	return s;
}

static int make_world(void **state)
{
	struct world *w = world_new(rule_texts, FLOWS_MAX);

	oracle_init(&w->oracle, oracle_rules, ARRAY_SIZE(oracle_rules));
	for (unsigned i = 0; i < 4; i++) {
		struct packet_spec s = first_packet(i & 1, i & 2);
		struct outcome out;
		struct packet p;

		packet_build(&s, &p);
		assert_true(world_compare(w, ORACLE_IN, p.data, p.length, &out));
	}
	*state = w;
	return 0;
}

/* ---- one error ---- */

/* An error, and the packet that it is about, as the hook sees it and as its receiver sent it. */
struct error {
	enum oracle_hook hook;
	bool ipv6;
	struct packet_spec outer, quoted, sent;
	unsigned number; /* of next_error() */
};

/*
 * Comes in: the path complains about a reply, which left with the redirected port. Goes out: this
 * host complains about a packet that it saw with the target's port.
 */
static struct error make_error(enum oracle_hook hook, bool ipv6, bool tcp)
{
	struct packet_spec first = first_packet(ipv6, tcp);
	uint16_t target = tcp ? 80 : 53;
	struct error e = {.hook = hook, .ipv6 = ipv6};

	first.payload_length = 33;
	if (hook == ORACLE_IN) {
		e.quoted = answer(first, first.dport);
		e.sent = answer(first, target);
	} else {
		e.sent = e.quoted = first;
		e.quoted.dport = target;
	}
	e.outer.source = hook == ORACLE_OUT ? first.destination : ipv6 ? ROUTER6 : ROUTER4;
	e.outer.destination = e.quoted.source;
	e.outer.sport = ipv6 ? 0x0100 : 0x0303;
	return e;
}

/* What must not change when an error passes. */
struct snapshot {
	struct cpu_counters counters;
	struct flow_totals totals;
	struct flow flows[2 * FLOWS_MAX];
};

static void take_snapshot(struct world *w, struct snapshot *ret)
{
	const struct flow *flows;
	uint32_t n;

	flows = datapath_flows(w->datapath, &n);
	assert_in_range(n, FLOWS_MAX, ARRAY_SIZE(ret->flows));
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->flows, flows, n * sizeof(*flows));
	ret->totals = *datapath_totals(w->datapath);
	world_counters(w, &ret->counters);
}

/* No flow has changed since; one packet was seen; `translated` errors were. */
static void assert_only_counted(struct world *w, const struct snapshot *before, uint64_t translated)
{
	struct snapshot after;

	take_snapshot(w, &after);
	assert_memory_equal(after.flows, before->flows, sizeof(after.flows));
	assert_memory_equal(&after.totals, &before->totals, sizeof(after.totals));
	assert_int_equal(after.counters.packets - before->counters.packets, 1);
	assert_int_equal(after.counters.icmp_errors - before->counters.icmp_errors, translated);
	if (translated)
		assert_memory_equal(after.counters.reasons, before->counters.reasons,
				    sizeof(after.counters.reasons));
}

/* Runs the packet; it must come out as `expected`, by the datapath and, if asked, the oracle. */
static void run_error(struct world *w, enum oracle_hook hook, const struct packet *in,
		      const struct packet *expected, bool ask_oracle)
{
	enum datapath_program program = hook == ORACLE_IN ? PROGRAM_IN : PROGRAM_OUT;
	struct snapshot before;
	struct outcome out;

	take_snapshot(w, &before);
	if (ask_oracle)
		assert_true(world_compare(w, hook, in->data, in->length, &out));
	else
		world_run(w, program, NULL, in->data, in->length, &out);
	assert_int_equal((int)out.verdict, TC_ACT_UNSPEC);
	assert_bytes("translated error", out.data, out.length, expected->data, expected->length);
	assert_only_counted(w, &before, 1);
}

static void fix_icmp_checksum(struct packet *p)
{
	struct oracle_packet parsed;

	oracle_parse(p->data, p->length, true, &parsed);
	assert_int_not_equal(parsed.icmp, 0);
	write_be16(p->data + p->l4 + 2, oracle_icmp_checksum(p->data, &parsed));
}

/* A quote that ends amid its checksum keeps the half of it. */
static void keep_half_checksum(const struct error *e, size_t bytes, const struct packet *in,
			       struct packet *expected)
{
	size_t checksum = e->quoted.protocol == IPPROTO_TCP ? 16 : 6;

	if (bytes != checksum + 1)
		return;
	expected->data[in->quote_l4 + checksum] = in->data[in->quote_l4 + checksum];
	fix_icmp_checksum(expected);
}

/* The error with `bytes` of TCP or UDP quoted. */
static void expect_translated(struct world *w, const struct error *e, size_t bytes)
{
	struct packet in, expected;

	packet_build_error(&e->outer, &e->quoted, bytes, &in);
	packet_build_error(&e->outer, &e->sent, bytes, &expected);
	assert_memory_not_equal(in.data, expected.data, in.length);
	keep_half_checksum(e, bytes, &in, &expected);
	run_error(w, e->hook, &in, &expected, true);
}

static void leave_alone_as(struct world *w, enum oracle_hook hook, const struct packet *in,
			   enum packet_reason reason, const char *what)
{
	struct snapshot before;
	struct outcome out;

	take_snapshot(w, &before);
	if (world_compare(w, hook, in->data, in->length, &out))
		fail_msg("%s: the oracle translates it", what);
	assert_bytes(what, out.data, out.length, in->data, in->length);
	assert_only_counted(w, &before, 0);
	assert_reason(w, &before.counters, reason, what);
}

static void leave_alone(struct world *w, enum oracle_hook hook, const struct packet *in,
			const char *what)
{
	leave_alone_as(w, hook, in, REASON_NOT_TCP_UDP, what);
}

/* Walks through every kind of flow and both hooks: eight errors, from number 0. */
static bool next_error(struct error *e)
{
	unsigned n = e->number;

	if (n == 8)
		return false;
	*e = make_error(hooks[n & 1], n & 2, n & 4);
	e->number = n + 1;
	return true;
}

/* ---- translated ---- */

/* Figures that no builder made: 192.0.2.1 tells 198.51.100.7 that nobody is at UDP port 53. */
static void test_by_hand(void **state)
{
	/* clang-format off: a header a line */
	static const uint8_t in[] = {
		0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00,
		0x45, 0x00, 0x00, 0x38, 0x00, 0x00, 0x00, 0x00, 0x40, 0x01, 0x8e, 0x89, 0xc0, 0x00,
		0x02, 0x01, 0xc6, 0x33, 0x64, 0x07, 0x03, 0x03, 0xe9, 0x52, 0x00, 0x00, 0x00, 0x00,
		0x45, 0x00, 0x00, 0x1c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x4e, 0x95, 0xc6, 0x33,
		0x64, 0x07, 0xc0, 0x00, 0x02, 0x01, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x08, 0x77, 0x2c,
	};
	/* clang-format on */
	uint8_t expected[sizeof(in)];
	struct outcome out;

	memcpy(expected, in, sizeof(in));
	write_be16(expected + sizeof(in) - 6, 5300);
	/* 0x772c - (0x14b4 - 0x0035); port and checksum cancel out in the ICMP checksum */
	write_be16(expected + sizeof(in) - 2, 0x62ad);
	world_run(*state, PROGRAM_OUT, NULL, in, sizeof(in), &out);
	assert_bytes("error made by hand", out.data, out.length, expected, sizeof(expected));
}

/* The types of RFC 792 and RFC 4443, and any code. */
static void test_types(void **state)
{
	static const uint8_t types[2][4] = {{3, 11, 12, 3}, {1, 2, 3, 4}};
	static const uint8_t codes[] = {0, 1, 3, 4, 13, 255};

	for (struct error e = {.number = 0}; next_error(&e);)
		for (size_t t = 0; t < 4; t++)
			for (size_t c = 0; c < ARRAY_SIZE(codes); c++) {
				e.outer.sport = (uint16_t)(types[e.ipv6][t] << 8 | codes[c]);
				expect_translated(*state, &e, 8);
			}
}

/* From four bytes on the ports are there; the checksum where the quote reaches it. */
static void test_every_quoted_length(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);)
		for (size_t bytes = 4; bytes <= 20 + 33; bytes++)
			expect_translated(*state, &e, bytes);
}

static void test_too_short_a_quote(void **state)
{
	struct packet p;

	for (struct error e = {.number = 0}; next_error(&e);)
		for (size_t bytes = 0; bytes < 4; bytes++) {
			packet_build_error(&e.outer, &e.quoted, bytes, &p);
			leave_alone(*state, e.hook, &p, "quote without its ports");
		}
}

/* A long quote: RFC 1812 and RFC 4443 have it as long as 576 and 1280 bytes allow. */
static void test_long_quotes(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		e.quoted.payload_length = e.sent.payload_length = 1399;
		expect_translated(*state, &e, 576 - 56);
		expect_translated(*state, &e, 1280 - 88);
		expect_translated(*state, &e, QUOTE_ALL);
	}
}

/* UDP over IPv4 without a checksum: zero says so and stays. */
static void test_quoted_udp_without_checksum(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++) {
		struct error e = make_error(hooks[i], false, false);

		e.quoted.udp_unchecked = e.sent.udp_unchecked = true;
		expect_translated(*state, &e, 8);
		expect_translated(*state, &e, QUOTE_ALL);
	}
}

/* The payload that makes the checksum of the packet as it was sent come out as zero, so 0xffff. */
static void test_quoted_udp_computed_zero(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		uint8_t payload[4] = {0};
		struct packet p;

		if (e.quoted.protocol != IPPROTO_UDP)
			continue;
		e.sent.payload = e.quoted.payload = payload;
		e.sent.payload_length = e.quoted.payload_length = sizeof(payload);
		packet_build(&e.sent, &p);
		write_be16(payload, read_be16(p.data + p.l4_checksum));
		packet_build(&e.sent, &p);
		assert_int_equal(read_be16(p.data + p.l4_checksum), 0xffff);
		expect_translated(*state, &e, 8);
		expect_translated(*state, &e, QUOTE_ALL);
	}
}

/* Takes the shape of `s`, not its addresses. */
static void put_in_shape(struct packet_spec *spec, const struct packet_spec *s)
{
	spec->vlans = s->vlans;
	spec->ip_options = s->ip_options;
	memcpy(spec->extensions, s->extensions, sizeof(spec->extensions));
	spec->extension_length = s->extension_length;
	spec->hop_by_hop = s->hop_by_hop;
	spec->fragmented = s->fragmented;
	spec->padding = s->padding;
}

/* VLAN tags, IPv4 options, extension headers, padding: of the error itself. */
static void test_shapes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		for (struct error e = {.number = 0}; next_error(&e);) {
			if (e.ipv6 != !!strchr(shapes[i].source, ':'))
				continue;
			put_in_shape(&e.outer, &shapes[i]);
			expect_translated(*state, &e, 8);
			expect_translated(*state, &e, QUOTE_ALL);
		}
}

/* IPv4 options and extension headers in the quote; a fragment header, too. */
static void test_quoted_shapes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		for (struct error e = {.number = 0}; next_error(&e);) {
			if (e.ipv6 != !!strchr(shapes[i].source, ':'))
				continue;
			put_in_shape(&e.outer, &shapes[ARRAY_SIZE(shapes) - 1]);
			put_in_shape(&e.quoted, &shapes[i]);
			put_in_shape(&e.sent, &shapes[i]);
			expect_translated(*state, &e, 8);
			expect_translated(*state, &e, QUOTE_ALL);
		}
}

/* The first of several fragments has the ports; its checksum is that of the whole datagram. */
static void test_quoted_first_fragment(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		e.quoted.fragmented = e.sent.fragmented = true;
		e.quoted.more_fragments = e.sent.more_fragments = true;
		expect_translated(*state, &e, 8);
		expect_translated(*state, &e, QUOTE_ALL);
	}
}

/* Checksums that were wrong are as wrong afterwards: nothing is hidden from the receiver. */
static void test_wrong_checksums_stay_wrong(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct oracle_packet parsed;
		struct packet p, expected;

		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		packet_build_error(&e.outer, &e.sent, QUOTE_ALL, &expected);
		p.data[p.l4 + 2] ^= 0x10;
		expected.data[p.l4 + 2] ^= 0x10;
		oracle_parse(expected.data, expected.length, true, &parsed);
		assert_int_not_equal(oracle_icmp_checksum(expected.data, &parsed),
				     read_be16(expected.data + p.l4 + 2));
		run_error(*state, e.hook, &p, &expected, true);

		/* the same with a byte of the quoted payload: outer right, inner wrong */
		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		packet_build_error(&e.outer, &e.sent, QUOTE_ALL, &expected);
		p.data[p.length - 1] ^= 0x10;
		expected.data[p.length - 1] ^= 0x10;
		fix_icmp_checksum(&p);
		fix_icmp_checksum(&expected);
		run_error(*state, e.hook, &p, &expected, true);
	}
}

/* Of two flows with one client port the second's was translated as well: both ports change. */
static void test_translated_source_port(void **state)
{
	struct packet_spec first = tcp4(CLIENT_PORT + 1, 8084, TCP_FLAG_SYN), second = first;
	struct error in = make_error(ORACLE_IN, false, true);
	struct error out = make_error(ORACLE_OUT, false, true);
	struct packet seen, expected;
	struct outcome translated;
	struct oracle_packet p;

	second.dport = 8085;
	packet_build(&first, &seen);
	world_run(*state, PROGRAM_IN, NULL, seen.data, seen.length, &translated);
	packet_build(&second, &seen);
	world_run(*state, PROGRAM_IN, NULL, seen.data, seen.length, &translated);
	oracle_parse(translated.data, translated.length, true, &p);
	assert_int_equal(p.dport, 84);
	assert_int_not_equal(p.sport, CLIENT_PORT + 1);

	in.quoted = answer(second, 8085);
	in.sent = in.quoted;
	in.sent.sport = 84;
	in.sent.dport = p.sport;
	out.sent = out.quoted = second;
	out.quoted.sport = p.sport;
	out.quoted.dport = 84;
	for (size_t bytes = 8; bytes <= 20; bytes += 12) {
		packet_build_error(&in.outer, &in.quoted, bytes, &seen);
		packet_build_error(&in.outer, &in.sent, bytes, &expected);
		run_error(*state, ORACLE_IN, &seen, &expected, false);
		packet_build_error(&out.outer, &out.quoted, bytes, &seen);
		packet_build_error(&out.outer, &out.sent, bytes, &expected);
		run_error(*state, ORACLE_OUT, &seen, &expected, false);
	}
}

/* Devices without Ethernet; the source spells the protocol (see test-redirect.c). */
static void test_without_ethernet(void **state)
{
	static const char *const routers[] = {"8.0.0.9", "2001:db8:86dd::9"};

	for (int ipv6 = 0; ipv6 < 2; ipv6++) {
		struct error e = make_error(ORACLE_IN, ipv6, true);
		struct packet in, expected;
		struct outcome out;

		e.outer.source = routers[ipv6];
		e.outer.no_ethernet = true;
		packet_build_error(&e.outer, &e.quoted, 8, &in);
		packet_build_error(&e.outer, &e.sent, 8, &expected);
		world_run(*state, PROGRAM_IN_L3, NULL, in.data, in.length, &out);
		assert_bytes("without Ethernet", out.data, out.length, expected.data,
			     expected.length);
	}
}

/* ---- left alone ---- */

/*
 * The first is never about what the receiver has sent, as it was; the second is no reply to it: the
 * quote's source and the error's destination are not the same.
 */
static void test_not_about_the_receiver(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct packet p;

		packet_build_error(&e.outer, &e.sent, QUOTE_ALL, &p);
		leave_alone(*state, e.hook, &p, "quote that is translated already");
		e.outer.destination = e.ipv6 ? "2001:db8:bad::1" : "203.0.113.99";
		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		leave_alone(*state, e.hook, &p, "error to somebody else");
	}
}

static bool type_is_error(unsigned type, bool ipv6)
{
	return ipv6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

/* Echo, redirects, neighbour discovery, and types that nobody has defined, with a quote behind. */
static void test_other_types(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);)
		for (unsigned type = 0; type < 256; type++) {
			struct packet p;

			if (type_is_error(type, e.ipv6))
				continue;
			e.outer.sport = (uint16_t)(type << 8);
			packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
			leave_alone(*state, e.hook, &p, "ICMP that is no error");
		}
}

/* Real messages as hosts send them. */
static void test_echo_and_neighbours(void **state)
{
	static const struct {
		const char *what;
		uint8_t type;
		bool ipv6;
		size_t length;
	} messages[] = {
		{"echo request", 8, false, 56},
		{"echo reply", 0, false, 56},
		{"echo request", 128, true, 56},
		{"echo reply", 129, true, 56},
		{"neighbour solicitation", 135, true, 24},
		{"neighbour advertisement", 136, true, 24},
		{"router solicitation", 133, true, 8},
		{"empty unreachable", 3, false, 0},
		{"empty packet too big", 2, true, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		struct packet_spec s = {
			.source = messages[i].ipv6 ? CLIENT6 : CLIENT4,
			.destination = messages[i].ipv6 ? SERVER6 : SERVER4,
			.protocol = messages[i].ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
			.sport = (uint16_t)(messages[i].type << 8),
			.payload_length = messages[i].length,
		};
		struct packet p;

		packet_build(&s, &p);
		leave_alone(*state, ORACLE_IN, &p, messages[i].what);
		leave_alone(*state, ORACLE_OUT, &p, messages[i].what);
	}
}

/* Errors about flows that are not ours, by one thing that is different. */
static void test_other_flows(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct packet_spec others[] = {e.quoted, e.quoted, e.quoted, e.quoted, e.quoted};
		struct packet p;

		others[0].sport++;
		others[1].dport++;
		others[2].source = e.ipv6 ? "2001:db8:c::8" : "198.51.100.8";
		others[3].destination = e.ipv6 ? "2001:db8:c::8" : "198.51.100.8";
		others[4].protocol = e.quoted.protocol == IPPROTO_TCP ? IPPROTO_UDP : IPPROTO_TCP;
		for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
			packet_build_error(&e.outer, &others[i], QUOTE_ALL, &p);
			leave_alone(*state, e.hook, &p, "error about another flow");
		}
		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		p.data[p.quote + (e.ipv6 ? 6 : 9)] = IPPROTO_SCTP;
		leave_alone(*state, e.hook, &p, "error about SCTP with the same ports");
		p.data[p.quote] ^= 0x20; /* 4 and 6 change places */
		leave_alone(*state, e.hook, &p, "quote of the other family");
		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		if (!e.ipv6)
			p.data[p.quote] = 0x44;
		else
			p.data[p.quote] = 0x50;
		leave_alone(*state, e.hook, &p, "quote that is no IP");
	}
}

/* ICMPv6 over IPv4 and ICMP over IPv6 mean nothing. */
static void test_icmp_of_the_other_family(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct packet p;

		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		p.data[p.l3 + (e.ipv6 ? 6 : 9)] = e.ipv6 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
		leave_alone(*state, e.hook, &p, "ICMP of the other family");
	}
}

/* A later fragment has no ports where they seem to be. */
static void test_quoted_later_fragment(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct packet p;
		uint8_t *offset;

		e.quoted.fragmented = true;
		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		offset = p.data + (e.ipv6 ? p.quote + 42 : p.quote + 6);
		write_be16(offset, 8);
		leave_alone(*state, e.hook, &p, "quote of a later fragment");
	}
}

/* Errors in fragments: the quote, or the checksum over it, goes on elsewhere. */
static void test_fragmented_errors(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct packet p;

		e.outer.fragmented = e.outer.more_fragments = true;
		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		leave_alone(*state, e.hook, &p, "first fragment of an error");
	}
}

/* BPF_PROG_TEST_RUN takes no frame whose IP header is cut, unless a VLAN tag hides it. */
static void test_truncated(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct packet p;
		size_t whole, header;

		e.outer.vlans = 1;
		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &p);
		whole = p.length;
		header = p.l3 + (e.ipv6 ? 40 : 20);
		for (p.length = 15; p.length < whole; p.length++)
			leave_alone_as(*state, e.hook, &p,
				       p.length < header ? REASON_TRUNCATED : REASON_NOT_TCP_UDP,
				       "truncated error");
	}
}

/*
 * The message ends where IP says so. What follows is the link's: a quote that seems to go on there
 * does not, neither its ports nor its checksum, and the message's checksum does not cover it.
 */
static void test_quote_in_the_padding(void **state)
{
	for (struct error e = {.number = 0}; next_error(&e);) {
		struct packet whole, in, expected;
		size_t message;

		packet_build_error(&e.outer, &e.quoted, QUOTE_ALL, &whole);
		for (message = 0; message <= whole.length - whole.l4; message++) {
			size_t claimed = whole.l4 - whole.l3 + message;
			size_t ports_end = whole.quote_l4 - whole.l4 + 4;
			size_t quoted = message - (ports_end - 4);

			in = whole;
			write_be16(in.data + in.l3 + (e.ipv6 ? 4 : 2),
				   (uint16_t)(e.ipv6 ? claimed - 40 : claimed));
			if (message >= 8)
				fix_icmp_checksum(&in);
			if (message < ports_end) {
				leave_alone(*state, e.hook, &in, "quote in the padding");
				continue;
			}
			packet_build_error(&e.outer, &e.sent, quoted, &expected);
			keep_half_checksum(&e, quoted, &in, &expected);
			/* IPv4's own checksum is none of the datapath's business */
			memcpy(expected.data, in.data, in.l4);
			memcpy(expected.data + expected.length, in.data + expected.length,
			       in.length - expected.length);
			expected.length = in.length;
			run_error(*state, e.hook, &in, &expected, true);
		}
	}
}

/* Makes bytes at `offset` appear also where a reader that counts modulo 1024 would look. */
static void make_alias(struct packet *p, size_t offset, size_t length)
{
	assert_true(offset >= 1024);
	memcpy(p->data + offset % 1024, p->data + offset, length);
}

/*
 * Behind more extension headers than are read, 1056 to 1216 bytes, of the error and of the quote.
 * The datapath bounds offsets by 1023: nobody may fool it with what seems to stand there.
 */
static void test_far_behind(void **state)
{
	for (uint8_t units = 32; units < 38; units++)
		for (struct error e = {.number = 0}; next_error(&e);) {
			struct packet_spec outer = e.outer, quoted = e.quoted;
			struct packet p;

			if (!e.ipv6)
				continue;
			memset(outer.extensions, IPPROTO_DSTOPTS, 4);
			outer.extension_length = units;
			packet_build_error(&outer, &e.quoted, 20, &p);
			make_alias(&p, p.l4, p.length - p.l4);
			leave_alone(*state, e.hook, &p, "error far behind");

			memset(quoted.extensions, IPPROTO_DSTOPTS, 4);
			quoted.extension_length = units;
			packet_build_error(&e.outer, &quoted, 20, &p);
			make_alias(&p, p.quote_l4, 20);
			fix_icmp_checksum(&p);
			leave_alone(*state, e.hook, &p, "ports far behind in the quote");
		}
}

static void test_too_many_extensions(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++) {
		struct error e = make_error(hooks[i], true, false);
		struct packet p;

		memset(e.quoted.extensions, IPPROTO_DSTOPTS, 8);
		memset(e.sent.extensions, IPPROTO_DSTOPTS, 8);
		expect_translated(*state, &e, 8);
		e.quoted.extensions[8] = IPPROTO_DSTOPTS;
		packet_build_error(&e.outer, &e.quoted, 8, &p);
		leave_alone(*state, e.hook, &p, "nine quoted extension headers");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_hand),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_every_quoted_length),
		cmocka_unit_test(test_too_short_a_quote),
		cmocka_unit_test(test_long_quotes),
		cmocka_unit_test(test_quoted_udp_without_checksum),
		cmocka_unit_test(test_quoted_udp_computed_zero),
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_quoted_shapes),
		cmocka_unit_test(test_quoted_first_fragment),
		cmocka_unit_test(test_wrong_checksums_stay_wrong),
		cmocka_unit_test(test_translated_source_port),
		cmocka_unit_test(test_without_ethernet),
		cmocka_unit_test(test_not_about_the_receiver),
		cmocka_unit_test(test_other_types),
		cmocka_unit_test(test_echo_and_neighbours),
		cmocka_unit_test(test_other_flows),
		cmocka_unit_test(test_icmp_of_the_other_family),
		cmocka_unit_test(test_quoted_later_fragment),
		cmocka_unit_test(test_fragmented_errors),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_quote_in_the_padding),
		cmocka_unit_test(test_far_behind),
		cmocka_unit_test(test_too_many_extensions),
	};
	int skip = world_skip_code();

	if (skip)
		return skip;
	return cmocka_run_group_tests_name("icmp", tests, make_world, world_teardown);
}
