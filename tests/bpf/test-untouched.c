/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets that are none of the redirector's business, or not what they claim to be: they leave
 * exactly as they came, the next program gets them, and the reason is counted once.
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
	"tcp *:8083 to 83 from 203.0.113.0/24",
	NULL,
};

static struct oracle_rule oracle_rules[] = {
	{.tcp = true, .first = 8080, .last = 8080, .target = 80},
	{.udp = true, .first = 5300, .last = 5300, .target = 53},
};

static int make_world(void **state)
{
	struct world *w = world_new(rule_texts, 4096);

	oracle_init(&w->oracle, oracle_rules, ARRAY_SIZE(oracle_rules));
	*state = w;
	return 0;
}

/* Through both hooks, unchanged, counted for `reason` each time. */
static void leave_alone(struct world *w, const struct packet *in, enum packet_reason reason,
			const char *what)
{
	static const enum datapath_program programs[] = {PROGRAM_IN, PROGRAM_OUT};
	struct cpu_counters before, after;
	struct outcome out;

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		world_counters(w, &before);
		world_run(w, programs[i], NULL, in->data, in->length, &out);
		assert_bytes(what, out.data, out.length, in->data, in->length);
		assert_int_equal((int)out.verdict, TC_ACT_UNSPEC);
		assert_reason(w, &before, reason, what);
		world_counters(w, &after);
		assert_int_equal(after.packets - before.packets, 1);
	}
}

/* ---- malformed: a good packet of a redirected port, and what is done to it ---- */

enum where {
	IN_FRAME, /* offsets from the start */
	IN_IP,
	IN_L4,
};

struct damage {
	const char *what;
	bool ipv6, udp;
	enum where where;
	size_t offset;
	uint8_t mask, value; /* the bits of the mask become the value */
	enum packet_reason reason;
};

/* The packets: 40 bytes of payload, no options; IPv4 TCP 80 bytes, UDP 68 bytes of IP. */
static const struct damage damages[] = {
	{"ihl 4", false, false, IN_IP, 0, 0x0f, 4, REASON_MALFORMED},
	{"ihl 0", false, false, IN_IP, 0, 0x0f, 0, REASON_MALFORMED},
	{"version 5", false, false, IN_IP, 0, 0xf0, 0x50, REASON_MALFORMED},
	{"version 6 in an IPv4 frame", false, false, IN_IP, 0, 0xf0, 0x60, REASON_MALFORMED},
	{"version 4 in an IPv6 frame", true, false, IN_IP, 0, 0xf0, 0x40, REASON_MALFORMED},
	{"ihl beyond the total length", false, true, IN_IP, 3, 0xff, 19, REASON_MALFORMED},
	{"total length 0", false, false, IN_IP, 3, 0xff, 0, REASON_MALFORMED},
	{"total length one too long", false, false, IN_IP, 3, 0xff, 81, REASON_TRUNCATED},
	{"total length far too long", false, false, IN_IP, 2, 0xff, 0xff, REASON_TRUNCATED},
	{"no room for a TCP header", false, false, IN_IP, 3, 0xff, 39, REASON_MALFORMED},
	{"no room for a UDP header", false, true, IN_IP, 3, 0xff, 27, REASON_MALFORMED},
	{"payload length one too long", true, false, IN_IP, 5, 0xff, 61, REASON_TRUNCATED},
	{"payload length 0", true, false, IN_IP, 5, 0xff, 0, REASON_MALFORMED},
	{"payload length without a UDP header", true, true, IN_IP, 5, 0xff, 7, REASON_MALFORMED},
	{"doff 4", false, false, IN_L4, 12, 0xf0, 0x40, REASON_MALFORMED},
	{"doff 0", true, false, IN_L4, 12, 0xf0, 0, REASON_MALFORMED},
	{"doff beyond the packet", false, false, IN_IP, 3, 0xff, 40 + 3, REASON_MALFORMED},
	{"UDP length 7", false, true, IN_L4, 5, 0xff, 7, REASON_MALFORMED},
	{"UDP length 0", true, true, IN_L4, 5, 0xff, 0, REASON_MALFORMED},
	{"UDP length beyond the packet", false, true, IN_L4, 5, 0xff, 49, REASON_MALFORMED},
	{"UDP length beyond the packet", true, true, IN_L4, 5, 0xff, 49, REASON_MALFORMED},
	{"SCTP", false, false, IN_IP, 9, 0xff, IPPROTO_SCTP, REASON_NOT_TCP_UDP},
	{"ESP", true, false, IN_IP, 6, 0xff, IPPROTO_ESP, REASON_NOT_TCP_UDP},
	{"no next header", true, false, IN_IP, 6, 0xff, IPPROTO_NONE, REASON_NOT_TCP_UDP},
	{"fragment 1", false, false, IN_IP, 7, 0xff, 1, REASON_FRAGMENT},
	{"fragment 8191", false, true, IN_IP, 6, 0xff, 0x1f, REASON_FRAGMENT},
	{"ARP", false, false, IN_FRAME, 13, 0xff, 0x06, REASON_NOT_IP},
	{"LLC", false, false, IN_FRAME, 12, 0xff, 0x00, REASON_NOT_IP},
	{"MPLS", true, false, IN_FRAME, 12, 0xff, 0x88, REASON_NOT_IP},
};

static void damage(struct packet *p, const struct damage *d)
{
	size_t base = d->where == IN_FRAME ? 0 : d->where == IN_IP ? p->l3 : p->l4;
	uint8_t *b = p->data + base + d->offset;

	*b = (uint8_t)((*b & ~d->mask) | d->value);
}

static void test_malformed(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		const struct damage *d = &damages[i];
		struct packet_spec s = d->udp ? udp4(30000, 5300) : tcp4(30000, 8080, TCP_FLAG_SYN);
		struct packet p;

		s.source = d->ipv6 ? CLIENT6 : CLIENT4;
		s.destination = d->ipv6 ? SERVER6 : SERVER4;
		s.payload_length = 40;
		/* a data offset that the shortened packet cannot hold */
		s.tcp_options = d->offset == 3 && d->value == 43 ? 4 : 0;
		packet_build(&s, &p);
		damage(&p, d);
		leave_alone(*state, &p, d->reason, d->what);
	}
}

/*
 * An IPv4 header of 16 bytes, behind which, where it ends, a SYN to a redirected port seems to
 * stand: its ports are really the destination address, its flags in the acknowledgement number.
 */
static void test_short_ipv4_header(void **state)
{
	struct packet_spec s = tcp4(30050, 8080, TCP_FLAG_SYN);
	struct packet p;

	s.destination = "192.0.31.144"; /* 31 * 256 + 144 = 8080 */
	packet_build(&s, &p);
	p.data[p.l3] = 0x44;
	p.data[p.l4 + 8] = 0x50;
	p.data[p.l4 + 9] = TCP_FLAG_SYN;
	leave_alone(*state, &p, REASON_MALFORMED, "IPv4 header of 16 bytes");
}

/* The same lengths, one less damaged, are good: the tests above refuse for the right reason. */
static void test_just_well_formed(void **state)
{
	static const struct {
		bool udp;
		uint8_t total_length;
	} cases[] = {{false, 40}, {true, 28}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct packet_spec s =
			cases[i].udp ? udp4(30100, 5300) : tcp4(30100, 8080, TCP_FLAG_SYN);
		struct outcome out;
		struct packet p;

		s.payload_length = 40;
		packet_build(&s, &p);
		p.data[p.l3 + 3] = cases[i].total_length;
		if (cases[i].udp)
			p.data[p.l4 + 5] = 8;
		assert_true(world_compare(*state, ORACLE_IN, p.data, p.length, &out));
	}
}

static void test_three_vlans(void **state)
{
	struct packet_spec s = tcp4(30200, 8080, TCP_FLAG_SYN);
	struct packet p;

	s.vlans = 3;
	packet_build(&s, &p);
	leave_alone(*state, &p, REASON_EXTENSIONS, "three VLAN tags");
}

static void test_too_many_extensions(void **state)
{
	struct packet_spec s = tcp4(30300, 8080, TCP_FLAG_SYN);
	struct packet p;

	s.source = CLIENT6;
	s.destination = SERVER6;
	memset(s.extensions, IPPROTO_DSTOPTS, 9);
	packet_build(&s, &p);
	leave_alone(*state, &p, REASON_EXTENSIONS, "nine extension headers");
}

/* An extension header that reaches beyond the packet, and one that is all there is. */
static void test_extension_beyond(void **state)
{
	struct packet_spec s = tcp4(30400, 8080, TCP_FLAG_SYN);
	struct packet p;

	s.source = CLIENT6;
	s.destination = SERVER6;
	s.hop_by_hop = true;
	packet_build(&s, &p);
	p.data[p.l3 + 41] = 20;
	leave_alone(*state, &p, REASON_MALFORMED, "hop-by-hop header beyond the packet");

	packet_build(&s, &p);
	p.data[p.l3 + 40] = IPPROTO_DSTOPTS;
	p.data[p.l3 + 48] = IPPROTO_DSTOPTS;
	p.data[p.l3 + 49] = 0;
	p.length = p.l3 + 50;
	leave_alone(*state, &p, REASON_TRUNCATED, "packet that ends in its extension headers");
}

/* Later fragments of both families; fragments whose TCP header goes on in the next. */
static void test_fragments(void **state)
{
	struct packet_spec s = tcp4(30500, 8080, TCP_FLAG_SYN);
	struct packet p;

	s.fragmented = true;
	s.payload_length = 24;
	s.fragment_offset = 8;
	packet_build(&s, &p);
	leave_alone(*state, &p, REASON_FRAGMENT, "later IPv4 fragment");
	s.source = CLIENT6;
	s.destination = SERVER6;
	packet_build(&s, &p);
	leave_alone(*state, &p, REASON_FRAGMENT, "later IPv6 fragment");

	s = tcp4(30500, 8080, TCP_FLAG_SYN);
	s.more_fragments = true;
	packet_build(&s, &p);
	p.length -= 12;
	p.data[p.l3 + 3] -= 12;
	leave_alone(*state, &p, REASON_MALFORMED, "first fragment with 8 bytes of TCP");
}

/* ---- truncated at every length ---- */

/*
 * BPF_PROG_TEST_RUN takes no frame of 14 bytes, and on newer kernels none whose IP header is cut,
 * when the type is IP: behind a VLAN tag it does not look, so that those are cut everywhere.
 */
static size_t shortest(const struct packet_spec *s)
{
	if (s->vlans)
		return 15;
	return strchr(s->source, ':') ? 14 + 40 : 14 + 20;
}

static void test_truncated(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		for (int tcp = 0; tcp < 2; tcp++) {
			struct packet_spec s = shapes[i];
			struct cpu_counters before;
			struct packet p;
			size_t whole;

			s.protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP;
			s.tcp_flags = TCP_FLAG_SYN;
			s.tcp_options = 8;
			s.sport = 30600;
			s.dport = tcp ? 8080 : 5300;
			s.payload_length = 10;
			s.padding = 0;
			packet_build(&s, &p);
			whole = p.length;
			for (p.length = shortest(&s); p.length < whole; p.length++) {
				world_counters(w, &before);
				leave_alone(w, &p, REASON_TRUNCATED, "truncated packet");
			}
			assert_null(world_find_flow(w, &p));
		}
}

/* ---- good packets that no rule takes ---- */

static void test_unrelated(void **state)
{
	static const struct {
		const char *what;
		struct packet_spec spec;
		enum packet_reason in, out;
	} cases[] = {
		{"TCP to a port without a rule",
		 {.protocol = IPPROTO_TCP, .dport = 22, .tcp_flags = TCP_FLAG_SYN},
		 REASON_UNRELATED,
		 REASON_UNRELATED},
		{"UDP to a port that has a rule for TCP",
		 {.protocol = IPPROTO_UDP, .dport = 8080},
		 REASON_UNRELATED,
		 REASON_UNRELATED},
		{"TCP to the target itself",
		 {.protocol = IPPROTO_TCP, .dport = 80, .tcp_flags = TCP_FLAG_SYN},
		 REASON_UNRELATED,
		 REASON_UNRELATED},
		{"TCP to a port whose rule is for other clients",
		 {.protocol = IPPROTO_TCP, .dport = 8083, .tcp_flags = TCP_FLAG_SYN},
		 REASON_NO_MATCH,
		 REASON_UNRELATED},
		{"a RST without a flow",
		 {.protocol = IPPROTO_TCP, .dport = 8080, .tcp_flags = TCP_FLAG_RST},
		 REASON_STRAY,
		 REASON_UNRELATED},
		{"a RST that acknowledges, without a flow",
		 {.protocol = IPPROTO_TCP, .dport = 8080, .tcp_flags = TCP_FLAG_RST | TCP_FLAG_ACK},
		 REASON_STRAY,
		 REASON_UNRELATED},
		{"a FIN without a flow",
		 {.protocol = IPPROTO_TCP, .dport = 8080, .tcp_flags = TCP_FLAG_FIN | TCP_FLAG_ACK},
		 REASON_STRAY,
		 REASON_UNRELATED},
		{"a TCP packet without flags",
		 {.protocol = IPPROTO_TCP, .dport = 8080},
		 REASON_STRAY,
		 REASON_UNRELATED},
	};
	struct cpu_counters before;
	struct outcome out;
	struct packet p;

	for (int ipv6 = 0; ipv6 < 2; ipv6++)
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
			struct packet_spec s = cases[i].spec;

			s.sport = 30700;
			s.source = ipv6 ? CLIENT6 : CLIENT4;
			s.destination = ipv6 ? SERVER6 : SERVER4;
			packet_build(&s, &p);
			world_counters(*state, &before);
			world_run(*state, PROGRAM_IN, NULL, p.data, p.length, &out);
			assert_bytes(cases[i].what, out.data, out.length, p.data, p.length);
			assert_reason(*state, &before, cases[i].in, cases[i].what);
			world_counters(*state, &before);
			world_run(*state, PROGRAM_OUT, NULL, p.data, p.length, &out);
			assert_bytes(cases[i].what, out.data, out.length, p.data, p.length);
			assert_reason(*state, &before, cases[i].out, cases[i].what);
		}
}

static void test_icmp(void **state)
{
	struct packet_spec s = {.source = CLIENT4,
				.destination = SERVER4,
				.protocol = IPPROTO_ICMP,
				.sport = 0x0800, /* echo request */
				.dport = 8080};
	struct packet p;

	packet_build(&s, &p);
	leave_alone(*state, &p, REASON_NOT_TCP_UDP, "ICMP");
	s.source = CLIENT6;
	s.destination = SERVER6;
	s.protocol = IPPROTO_ICMPV6;
	s.sport = 0x8000;
	packet_build(&s, &p);
	leave_alone(*state, &p, REASON_NOT_TCP_UDP, "ICMPv6");
}

/* Who answers from a target's port without a flow is not translated; nor is who asks again there.
 */
static void test_target_without_flow(void **state)
{
	struct packet_spec direct = tcp4(30800, 80, TCP_FLAG_SYN), redirected, reply;
	struct outcome out;
	struct packet p;

	reply = answer(direct, 80);
	packet_build(&reply, &p);
	leave_alone(*state, &p, REASON_UNRELATED, "reply from the target to a direct client");

	/* the same reply on its way in, while a flow with that tuple exists */
	redirected = tcp4(30801, 8080, TCP_FLAG_SYN);
	packet_build(&redirected, &p);
	assert_true(world_compare(*state, ORACLE_IN, p.data, p.length, &out));
	reply = answer(redirected, 80);
	packet_build(&reply, &p);
	world_run(*state, PROGRAM_IN, NULL, p.data, p.length, &out);
	assert_bytes("a reply that comes in", out.data, out.length, p.data, p.length);
}

/* Rules gone: their ports are nobody's any more, for new flows. */
static void test_without_rules(void **state)
{
	static const char *const none[] = {NULL};
	struct world *w = *state;
	struct packet_spec s = tcp4(30900, 8080, TCP_FLAG_SYN);
	struct packet p;

	world_apply(w, none);
	packet_build(&s, &p);
	leave_alone(w, &p, REASON_UNRELATED, "packet to a port whose rule is gone");
	world_apply(w, rule_texts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_short_ipv4_header),
		cmocka_unit_test(test_just_well_formed),
		cmocka_unit_test(test_three_vlans),
		cmocka_unit_test(test_too_many_extensions),
		cmocka_unit_test(test_extension_beyond),
		cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_unrelated),
		cmocka_unit_test(test_icmp),
		cmocka_unit_test(test_target_without_flow),
		cmocka_unit_test(test_without_rules),
	};
	int skip = world_skip_code();

	if (skip)
		return skip;
	return cmocka_run_group_tests_name("untouched", tests, make_world, world_teardown);
}
