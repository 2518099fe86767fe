/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets that rules take: there and back through every shape of headers, bytes compared with the
 * oracle's, checksums made from scratch; fragments; devices without Ethernet; which rule takes
 * which packet.
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

static const char *const rule_texts[] = {
	"tcp *:8080 to 80",
	"udp *:5300 to 53",
	"tcp+udp *:7000-7009 to 17000-17009",
	"tcp 9090 to 90",
	"tcp *:8082 to 82 on second",
	"tcp *:8083 to 83 from 198.51.100.0/25",
	"tcp 192.0.2.77:8084 to 84",
	"udp *:6000-6003 to 66",
	NULL,
};

/* Those of them that the oracle can speak of. */
static struct oracle_rule oracle_rules[] = {
	{.tcp = true, .first = 8080, .last = 8080, .target = 80},
	{.udp = true, .first = 5300, .last = 5300, .target = 53},
	{.tcp = true, .udp = true, .first = 7000, .last = 7009, .target = 17000},
};

static int make_world(void **state)
{
	struct world *w = world_new(rule_texts, 4096);

	oracle_init(&w->oracle, oracle_rules, ARRAY_SIZE(oracle_rules));
	*state = w;
	return 0;
}

/* Builds, passes, and makes sure of the outcome beyond equality with the oracle's. */
static void pass(struct world *w, enum oracle_hook hook, const struct packet_spec *spec,
		 uint16_t sport, uint16_t dport)
{
	struct oracle_packet p;
	struct outcome out;
	struct packet in;

	packet_build(spec, &in);
	assert_true(world_compare(w, hook, in.data, in.length, &out));
	oracle_parse(out.data, out.length, true, &p);
	assert_int_equal(p.class, ORACLE_TRANSLATABLE);
	assert_int_equal(p.sport, sport);
	assert_int_equal(p.dport, dport);
	if (!p.ipv6)
		assert_true(oracle_ipv4_checksum_holds(out.data, &p));
	if (p.whole)
		assert_true(oracle_l4_checksum_holds(out.data, &p));
}

static void there_and_back(struct world *w, struct packet_spec spec, uint16_t port, uint16_t target)
{
	struct packet_spec reply;

	spec.dport = port;
	reply = answer(spec, target);
	pass(w, ORACLE_IN, &spec, spec.sport, target);
	pass(w, ORACLE_OUT, &reply, port, spec.sport);
}

/* Every shape, both protocols, payloads that leave odd lengths, ports of a range. */
static void test_there_and_back(void **state)
{
	static const size_t payloads[] = {0, 1, 2, 63, 1200};
	uint16_t port = 20000;

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		for (size_t n = 0; n < ARRAY_SIZE(payloads); n++) {
			struct packet_spec spec = shapes[i];

			spec.payload_length = payloads[n];
			spec.sport = port++;
			spec.protocol = IPPROTO_UDP;
			there_and_back(*state, spec, 5300, 53);
			there_and_back(*state, spec, (uint16_t)(7000 + n), (uint16_t)(17000 + n));
			spec.protocol = IPPROTO_TCP;
			spec.tcp_flags = TCP_FLAG_SYN;
			spec.tcp_options = (uint8_t)(n * 8);
			there_and_back(*state, spec, 8080, 80);
			there_and_back(*state, spec, (uint16_t)(7009 - n), (uint16_t)(17009 - n));
		}
}

/* Builder and oracle against packets that were made elsewhere. */
static void test_known_checksums(void **state)
{
	/* scapy: IP(src="198.51.100.7", dst="192.0.2.1", id=0x1234)
	 *        /UDP(sport=40000, dport=5300)/"hello" */
	static const uint8_t udp[] = {
		0x45, 0x00, 0x00, 0x21, 0x12, 0x34, 0x00, 0x00, 0x40, 0x11, 0x7c,
		0x5c, 0xc6, 0x33, 0x64, 0x07, 0xc0, 0x00, 0x02, 0x01, 0x9c, 0x40,
		0x14, 0xb4, 0x00, 0x0d, 0x1e, 0xd1, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
	};
	/* scapy: IPv6(src="2001:db8:c::7", dst="2001:db8::1")
	 *        /TCP(sport=40000, dport=8080, flags="S", seq=0x01020304, window=64240) */
	static const uint8_t tcp[] = {
		0x60, 0x00, 0x00, 0x00, 0x00, 0x14, 0x06, 0x40, 0x20, 0x01, 0x0d, 0xb8,
		0x00, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07,
		0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x01, 0x9c, 0x40, 0x1f, 0x90, 0x01, 0x02, 0x03, 0x04,
		0x00, 0x00, 0x00, 0x00, 0x50, 0x02, 0xfa, 0xf0, 0x99, 0x95, 0x00, 0x00,
	};
	struct packet_spec s = udp4(40000, 5300);
	struct oracle_packet p;
	struct packet built;

	s.payload = "hello";
	s.payload_length = 5;
	packet_build(&s, &built);
	assert_bytes("UDP over IPv4", built.data + 14, built.length - 14, udp, sizeof(udp));
	oracle_parse(udp, sizeof(udp), false, &p);
	assert_int_equal(p.class, ORACLE_TRANSLATABLE);
	assert_true(oracle_ipv4_checksum_holds(udp, &p));
	assert_true(oracle_l4_checksum_holds(udp, &p));

	s = tcp4(40000, 8080, TCP_FLAG_SYN);
	s.source = CLIENT6;
	s.destination = SERVER6;
	packet_build(&s, &built);
	assert_bytes("TCP over IPv6", built.data + 14, built.length - 14, tcp, sizeof(tcp));
	oracle_parse(tcp, sizeof(tcp), false, &p);
	assert_int_equal(p.class, ORACLE_TRANSLATABLE);
	assert_true(oracle_l4_checksum_holds(tcp, &p));
}

/* A datagram without a checksum stays without (RFC 768). */
static void test_udp_without_checksum(void **state)
{
	struct packet_spec s = udp4(21000, 5300), reply;
	struct outcome out;
	struct packet in;

	s.udp_unchecked = true;
	packet_build(&s, &in);
	assert_int_equal(read_be16(in.data + in.l4_checksum), 0);
	assert_true(world_compare(*state, ORACLE_IN, in.data, in.length, &out));
	assert_int_equal(read_be16(out.data + in.l4_checksum), 0);
	assert_int_equal(read_be16(out.data + in.l4 + 2), 53);

	reply = answer(s, 53);
	packet_build(&reply, &in);
	assert_true(world_compare(*state, ORACLE_OUT, in.data, in.length, &out));
	assert_int_equal(read_be16(out.data + in.l4_checksum), 0);
	assert_int_equal(read_be16(out.data + in.l4), 5300);
}

/* Finds a payload with which the packet `after` translation has this checksum. */
static void solve_payload(struct packet_spec after, uint16_t wanted, uint8_t payload[static 2])
{
	struct packet built;

	after.payload = payload;
	after.payload_length = 2;
	for (unsigned v = 0; v <= 0xffff; v++) {
		write_be16(payload, (uint16_t)v);
		packet_build(&after, &built);
		if (read_be16(built.data + built.l4_checksum) == wanted)
			return;
	}
	fail_msg("no payload makes the checksum %#x", wanted);
}

/* A computed zero: 0xffff in UDP, where zero would mean none; zero in TCP. */
static void test_computed_zero(void **state)
{
	static const char *const hosts[][2] = {{CLIENT4, SERVER4}, {CLIENT6, SERVER6}};
	struct outcome out;
	uint8_t payload[2];
	struct packet in;

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
		for (int tcp = 0; tcp < 2; tcp++) {
			struct packet_spec s =
				tcp ? tcp4(21100, 80, TCP_FLAG_SYN) : udp4(21100, 53);

			s.source = hosts[i][0];
			s.destination = hosts[i][1];
			solve_payload(s, tcp ? 0 : 0xffff, payload);
			s.payload = payload;
			s.payload_length = 2;
			s.dport = tcp ? 8080 : 5300;
			packet_build(&s, &in);
			assert_true(world_compare(*state, ORACLE_IN, in.data, in.length, &out));
			assert_int_equal(read_be16(out.data + in.l4_checksum), tcp ? 0 : 0xffff);
		}
}

/* A checksum that is wrong stays as wrong as it was: the receiver must notice. */
static void test_wrong_checksum_stays_wrong(void **state)
{
	for (int tcp = 0; tcp < 2; tcp++) {
		struct packet_spec s = tcp ? tcp4(21200, 8080, TCP_FLAG_SYN) : udp4(21200, 5300);
		struct oracle_packet p;
		struct outcome out;
		struct packet in;

		packet_build(&s, &in);
		in.data[in.l4_checksum] ^= 0x5a;
		assert_true(world_compare(*state, ORACLE_IN, in.data, in.length, &out));
		oracle_parse(out.data, out.length, true, &p);
		assert_false(oracle_l4_checksum_holds(out.data, &p));
	}
}

/* ---- fragments ---- */

/* Cuts a built packet's L4 bytes in two at `cut`; headers come from the spec. */
static void cut_packet(const struct packet_spec *whole, size_t cut, struct packet *first,
		       struct packet *second)
{
	struct packet_spec s = *whole;
	struct packet all;
	size_t l4_length;

	packet_build(&s, &all);
	l4_length = all.length - all.l4;
	s.fragmented = true;

	s.more_fragments = true;
	s.payload_length = cut - (s.protocol == IPPROTO_TCP ? 20 : 8);
	packet_build(&s, first);
	memcpy(first->data + first->l4, all.data + all.l4, cut);

	s.more_fragments = false;
	s.fragment_offset = (uint16_t)cut;
	s.payload_length = l4_length - cut;
	packet_build(&s, second);
	memcpy(second->data + second->l4, all.data + all.l4 + cut, l4_length - cut);
}

/* Puts two fragments together again as a whole packet of the spec. */
static void join_packets(const struct packet_spec *whole, size_t cut, const struct packet *headers,
			 const struct outcome *first, const struct outcome *second,
			 struct packet *ret)
{
	packet_build(whole, ret);
	memcpy(ret->data + ret->l4, first->data + headers->l4, cut);
	memcpy(ret->data + ret->l4 + cut, second->data + headers->l4, ret->length - ret->l4 - cut);
}

static void pass_fragments(struct world *w, const struct packet_spec *whole, bool later_first)
{
	struct packet first, second, joined;
	struct outcome out[2];
	struct cpu_counters before;
	struct oracle_packet p;
	const size_t cut = 64;

	cut_packet(whole, cut, &first, &second);
	world_counters(w, &before);
	if (later_first)
		assert_false(world_compare(w, ORACLE_IN, second.data, second.length, &out[1]));
	assert_true(world_compare(w, ORACLE_IN, first.data, first.length, &out[0]));
	if (!later_first)
		assert_false(world_compare(w, ORACLE_IN, second.data, second.length, &out[1]));
	assert_reason(w, &before, REASON_FRAGMENT, "the later fragment");

	join_packets(whole, cut, &first, &out[0], &out[1], &joined);
	oracle_parse(joined.data, joined.length, true, &p);
	assert_int_equal(p.dport, whole->protocol == IPPROTO_TCP ? 80 : 53);
	assert_true(oracle_l4_checksum_holds(joined.data, &p));
}

static void test_fragments(void **state)
{
	uint16_t port = 22000;

	for (int ipv6 = 0; ipv6 < 2; ipv6++)
		for (int tcp = 0; tcp < 2; tcp++)
			for (int later_first = 0; later_first < 2; later_first++) {
				struct packet_spec s =
					tcp ? tcp4(port, 8080, TCP_FLAG_ACK) : udp4(port, 5300);

				port++;
				s.source = ipv6 ? CLIENT6 : CLIENT4;
				s.destination = ipv6 ? SERVER6 : SERVER4;
				s.payload_length = 301;
				s.vlans = (unsigned)later_first;
				pass_fragments(*state, &s, later_first);
			}
}

/* Replies come in fragments as well. */
static void test_reply_fragments(void **state)
{
	struct packet_spec s = udp4(22100, 5300), reply;
	struct packet first, second, joined;
	struct outcome out[2], ignored;
	struct oracle_packet p;

	packet_build(&s, &first);
	assert_true(world_compare(*state, ORACLE_IN, first.data, first.length, &ignored));
	reply = answer(s, 53);
	reply.payload_length = 400;
	cut_packet(&reply, 104, &first, &second);
	assert_true(world_compare(*state, ORACLE_OUT, first.data, first.length, &out[0]));
	assert_false(world_compare(*state, ORACLE_OUT, second.data, second.length, &out[1]));
	join_packets(&reply, 104, &first, &out[0], &out[1], &joined);
	oracle_parse(joined.data, joined.length, true, &p);
	assert_int_equal(p.sport, 5300);
	assert_true(oracle_l4_checksum_holds(joined.data, &p));
}

/* ---- which rule takes which packet ---- */

static void expect_port(struct world *w, const struct packet_spec *spec, uint32_t ifindex,
			uint16_t dport)
{
	struct __sk_buff context = {.ifindex = ifindex};
	struct oracle_packet p;
	struct outcome out;
	struct packet in;

	packet_build(spec, &in);
	world_run(w, PROGRAM_IN, ifindex ? &context : NULL, in.data, in.length, &out);
	assert_int_equal((int)out.verdict, TC_ACT_UNSPEC);
	oracle_parse(out.data, out.length, true, &p);
	assert_int_equal(p.dport, dport);
	assert_true(oracle_l4_checksum_holds(out.data, &p));
	if (dport == spec->dport)
		assert_bytes("packet that no rule takes", out.data, out.length, in.data, in.length);
}

static void test_interface(void **state)
{
	struct world *w = *state;
	struct packet_spec s = tcp4(23000, 8082, TCP_FLAG_SYN);

	expect_port(w, &s, 0, 8082);
	expect_port(w, &s, w->interface, 82);
}

static void test_from(void **state)
{
	struct packet_spec s = tcp4(23100, 8083, TCP_FLAG_SYN);

	s.source = "198.51.100.127";
	expect_port(*state, &s, 0, 83);
	s.source = "198.51.100.128";
	expect_port(*state, &s, 0, 8083);
	s.source = "2001:db8::7";
	s.destination = SERVER6;
	expect_port(*state, &s, 0, 8083);
}

static void test_listen_address(void **state)
{
	struct packet_spec s = tcp4(23200, 8084, TCP_FLAG_SYN);

	expect_port(*state, &s, 0, 8084);
	s.destination = "192.0.2.77";
	expect_port(*state, &s, 0, 84);
}

/* Without a listen address a rule means this host's own. */
static void test_local_addresses(void **state)
{
	struct packet_spec s = tcp4(23300, 9090, TCP_FLAG_SYN);

	s.destination = "192.0.2.200";
	expect_port(*state, &s, 0, 9090);
	world_add_local(*state, "192.0.2.200");
	expect_port(*state, &s, 0, 90);
	s.source = CLIENT6;
	s.destination = "2001:db8::200";
	expect_port(*state, &s, 0, 9090);
	world_add_local(*state, "2001:db8::200");
	expect_port(*state, &s, 0, 90);
}

/* A range onto one port. */
static void test_folded_range(void **state)
{
	for (uint16_t port = 6000; port <= 6003; port++) {
		struct packet_spec s = udp4((uint16_t)(23400 + port), port);

		expect_port(*state, &s, 0, 66);
	}
}

/* The port before and the port behind a range are not in it. */
static void test_range_ends(void **state)
{
	struct packet_spec s = udp4(23500, 6999);

	expect_port(*state, &s, 0, 6999);
	s.dport = 7010;
	expect_port(*state, &s, 0, 7010);
}

/*
 * Devices without Ethernet. BPF_PROG_TEST_RUN takes the protocol from where an Ethernet header has
 * its type: here bytes 4 and 5 of the source address spell it.
 */
static void test_without_ethernet(void **state)
{
	static const struct {
		const char *client, *server;
	} hosts[] = {{"8.0.0.7", SERVER4}, {"2001:db8:86dd::7", SERVER6}};

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		struct packet_spec s = tcp4(24000, 8080, TCP_FLAG_SYN);
		uint8_t expected[PACKET_MAX];
		struct world *w = *state;
		struct outcome out;
		struct packet in;

		s.source = hosts[i].client;
		s.destination = hosts[i].server;
		s.no_ethernet = true;
		packet_build(&s, &in);
		memcpy(expected, in.data, in.length);
		assert_true(oracle_pass(&w->oracle, ORACLE_IN, false, expected, in.length));
		world_run(w, PROGRAM_IN_L3, NULL, in.data, in.length, &out);
		assert_bytes("without Ethernet", out.data, out.length, expected, in.length);
		assert_int_equal(read_be16(out.data + in.l4 + 2), 80);
	}
}

/* The way back: IPv4's type then stands in the server's address. */
static void test_without_ethernet_back(void **state)
{
	struct packet_spec s = tcp4(24100, 8080, TCP_FLAG_SYN), reply;
	uint8_t expected[PACKET_MAX];
	struct world *w = *state;
	struct outcome out;
	struct packet in;

	s.source = "8.0.0.7";
	s.destination = "8.0.0.1";
	s.no_ethernet = true;
	packet_build(&s, &in);
	memcpy(expected, in.data, in.length);
	assert_true(oracle_pass(&w->oracle, ORACLE_IN, false, expected, in.length));
	world_run(w, PROGRAM_IN_L3, NULL, in.data, in.length, &out);

	reply = answer(s, 80);
	packet_build(&reply, &in);
	memcpy(expected, in.data, in.length);
	assert_true(oracle_pass(&w->oracle, ORACLE_OUT, false, expected, in.length));
	world_run(w, PROGRAM_OUT_L3, NULL, in.data, in.length, &out);
	assert_bytes("reply without Ethernet", out.data, out.length, expected, in.length);
	assert_int_equal(read_be16(out.data + in.l4), 8080);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_checksums),
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_udp_without_checksum),
		cmocka_unit_test(test_computed_zero),
		cmocka_unit_test(test_wrong_checksum_stays_wrong),
		cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_reply_fragments),
		cmocka_unit_test(test_interface),
		cmocka_unit_test(test_from),
		cmocka_unit_test(test_listen_address),
		cmocka_unit_test(test_local_addresses),
		cmocka_unit_test(test_folded_range),
		cmocka_unit_test(test_range_ends),
		cmocka_unit_test(test_without_ethernet),
		cmocka_unit_test(test_without_ethernet_back),
	};
	int skip = world_skip_code();

	if (skip)
		return skip;
	return cmocka_run_group_tests_name("redirect", tests, make_world, world_teardown);
}
