/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The oracle alone, without a kernel: what it makes of a packet must be the packet that the builder
 * makes with the other addresses and ports; and its complaints about choices must be the right
 * ones.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/oracle.h"

#define BACKEND4 "10.0.0.5"
#define BACKEND6 "2001:db8:b::5"
#define OUTSIDE4 "10.0.0.1" /* of this host, towards the backends */
#define OUTSIDE6 "2001:db8:b::1"
#define ROUTER4	 "10.0.0.254"
#define LO	 1
#define OUTSIDE	 2

/* ---- the host and its rules ---- */

static void parse_address(const char *text, uint8_t ret[static ORACLE_ADDRESS])
{
	memset(ret, 0, ORACLE_ADDRESS);
	assert_int_equal(inet_pton(strchr(text, ':') ? AF_INET6 : AF_INET, text, ret), 1);
}

static struct oracle_prefix prefix(const char *text, unsigned length)
{
	struct oracle_prefix p = {.ipv6 = strchr(text, ':'), .length = length};

	parse_address(text, p.address);
	return p;
}

static struct oracle_prefix locals[5];
static struct oracle_route routes[2];
static struct oracle_source sources[2];
static const struct oracle_host host = {.locals = locals,
					.n_locals = ARRAY_SIZE(locals),
					.routes = routes,
					.n_routes = ARRAY_SIZE(routes),
					.sources = sources,
					.n_sources = ARRAY_SIZE(sources),
					.loopback = LO};

enum { DNAT, MASQUERADE, FOLDED, TWO_TARGETS, N_RULES };
static struct oracle_rule rules[2 * N_RULES + 1];

static struct oracle_target target(const char *address, uint16_t first, bool folded)
{
	struct oracle_target t = {
		.other_host = true, .ipv6 = strchr(address, ':'), .first = first, .folded = folded};

	parse_address(address, t.address);
	return t;
}

static void make_rules(bool ipv6)
{
	const char *backend = ipv6 ? BACKEND6 : BACKEND4;
	struct oracle_rule *r = rules + (ipv6 ? N_RULES : 0);

	for (size_t i = 0; i < N_RULES; i++)
		r[i] = (struct oracle_rule){
			.tcp = true, .udp = true, .listen = ORACLE_LISTEN_LOCAL, .n_targets = 1};
	r[DNAT].first = 8080;
	r[DNAT].last = 8089;
	r[DNAT].targets[0] = target(backend, 9080, false);
	r[MASQUERADE].first = r[MASQUERADE].last = 7000;
	r[MASQUERADE].targets[0] = target(backend, 70, false);
	r[MASQUERADE].masquerade = true;
	r[FOLDED].first = 6000;
	r[FOLDED].last = 6009;
	r[FOLDED].targets[0] = target(backend, 60, true);
	r[TWO_TARGETS].first = r[TWO_TARGETS].last = 5000;
	r[TWO_TARGETS].targets[0] = target(backend, 50, false);
	r[TWO_TARGETS].targets[1] = target(backend, 51, false);
	r[TWO_TARGETS].n_targets = 2;
}

static int make_oracle(void **state)
{
	static struct oracle o;

	locals[0] = prefix("127.0.0.0", 8);
	locals[1] = prefix(SERVER4, 32);
	locals[2] = prefix(OUTSIDE4, 32);
	locals[3] = prefix(SERVER6, 128);
	locals[4] = prefix(OUTSIDE6, 128);
	for (int i = 0; i < 2; i++) {
		routes[i] = (struct oracle_route){.to = prefix(i ? "::" : "0.0.0.0", 0),
						  .interface = OUTSIDE};
		sources[i] = (struct oracle_source){.interface = OUTSIDE, .towards = routes[i].to};
		parse_address(i ? OUTSIDE6 : OUTSIDE4, sources[i].address);
		make_rules(i);
	}
	oracle_init(&o, rules, 2 * N_RULES);
	o.host = &host;
	o.holding = 1;
	*state = &o;
	return 0;
}

static int clear_oracle(void **state)
{
	oracle_clear(*state);
	return 0;
}

/* ---- a packet ---- */

static void judge(struct oracle *o, enum oracle_hook hook, uint32_t interface,
		  const struct packet_spec *in, struct packet *packet, struct oracle_answer *ret)
{
	const struct oracle_input input = {.hook = hook, .ethernet = true, .interface = interface};

	packet_build(in, packet);
	oracle_judge(o, &input, packet->data, packet->length, ret);
	assert_null(ret->complaint);
}

/* What `in` becomes is what the builder makes of `out`. */
static void expect(struct oracle *o, enum oracle_hook hook, const struct packet_spec *in,
		   const struct packet_spec *out)
{
	struct packet packet, expected;
	struct oracle_answer answer;

	judge(o, hook, OUTSIDE, in, &packet, &answer);
	packet_build(out, &expected);
	assert_true(answer.translated);
	assert_int_equal(answer.verdict, ORACLE_PASS);
	assert_int_equal(answer.reasons, 0);
	assert_int_equal(packet.length, expected.length);
	assert_memory_equal(packet.data, expected.data, expected.length);
}

static void leave_alone(struct oracle *o, enum oracle_hook hook, const struct packet_spec *in,
			enum packet_reason reason)
{
	struct packet packet, expected;
	struct oracle_answer answer;

	judge(o, hook, OUTSIDE, in, &packet, &answer);
	packet_build(in, &expected);
	assert_false(answer.translated);
	assert_int_equal(answer.reasons, ORACLE_REASON(reason));
	assert_memory_equal(packet.data, expected.data, expected.length);
}

static struct packet_spec to(struct packet_spec s, const char *destination, uint16_t dport)
{
	s.destination = destination;
	s.dport = dport;
	return s;
}

static struct packet_spec from(struct packet_spec s, const char *source, uint16_t sport)
{
	s.source = source;
	s.sport = sport;
	return s;
}

static struct packet_spec request(const struct packet_spec *shape, uint8_t protocol, uint16_t dport)
{
	struct packet_spec s = *shape;

	s.protocol = protocol;
	s.sport = CLIENT_PORT;
	s.dport = dport;
	s.tcp_flags = TCP_FLAG_SYN;
	s.payload_length = 11;
	return s;
}

static const char *family_of(const struct packet_spec *s, const char *ipv4, const char *ipv6)
{
	return strchr(s->source, ':') ? ipv6 : ipv4;
}

static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP};

/* ---- tests ---- */

/* Made by hand: 198.51.100.7 asks 192.0.2.1, the question goes on to 10.0.0.5. */
static void test_by_hand(void **state)
{
	/* clang-format off: a header a line */
	uint8_t data[] = {
		0x45, 0x00, 0x00, 0x1c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x4e, 0x95, 0xc6, 0x33,
		0x64, 0x07, 0xc0, 0x00, 0x02, 0x01, 0x9c, 0x40, 0x1f, 0x90, 0x00, 0x08, 0x57, 0xd1,
	};
	static const uint8_t expected[] = {
		/* 0x4e95 + 0xc000 - 0x0a00 + 0x0201 - 0x0005, folded */
		0x45,
		0x00,
		0x00,
		0x1c,
		0x00,
		0x00,
		0x40,
		0x00,
		0x40,
		0x11,
		0x06,
		0x92,
		0xc6,
		0x33,
		/* 0x57d1 + the same + 0x1f90 - 0x2378, folded */
		0x64,
		0x07,
		0x0a,
		0x00,
		0x00,
		0x05,
		0x9c,
		0x40,
		0x23,
		0x78,
		0x00,
		0x08,
		0x0b,
		0xe6,
	};
	/* clang-format on */
	const struct oracle_input input = {.hook = ORACLE_IN, .type = 0x0800, .interface = OUTSIDE};
	struct oracle_answer answer;
	struct oracle_packet p;

	oracle_parse(data, sizeof(data), false, &p);
	assert_int_equal(p.class, ORACLE_TRANSLATABLE);
	assert_true(oracle_ipv4_checksum_holds(data, &p));
	assert_true(oracle_l4_checksum_holds(data, &p));
	oracle_judge(*state, &input, data, sizeof(data), &answer);
	assert_true(answer.translated);
	assert_memory_equal(data, expected, sizeof(expected));
}

/* One stage: the destination as it comes in, the answer's source as it leaves. */
static void test_dnat(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		for (size_t j = 0; j < ARRAY_SIZE(protocols); j++) {
			struct packet_spec in = request(&shapes[i], protocols[j], 8085);
			struct packet_spec out = to(in, family_of(&in, BACKEND4, BACKEND6), 9085);
			struct packet_spec back = answer(out, 9085), reply = answer(in, 8085);

			expect(*state, ORACLE_IN, &in, &out);
			leave_alone(*state, ORACLE_OUT, &out, REASON_UNRELATED);
			leave_alone(*state, ORACLE_IN, &back, REASON_UNRELATED);
			expect(*state, ORACLE_OUT, &back, &reply);
		}
}

/* Two stages: the source becomes this host's as it leaves, and back again. */
static void test_masquerade(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		for (size_t j = 0; j < ARRAY_SIZE(protocols); j++) {
			struct packet_spec in = request(&shapes[i], protocols[j], 7000);
			struct packet_spec middle = to(in, family_of(&in, BACKEND4, BACKEND6), 70);
			struct packet_spec out =
				from(middle, family_of(&in, OUTSIDE4, OUTSIDE6), CLIENT_PORT);
			struct packet_spec back = answer(out, 70), inside = answer(middle, 70);
			struct packet_spec reply = answer(in, 7000);

			expect(*state, ORACLE_IN, &in, &middle);
			expect(*state, ORACLE_OUT, &middle, &out);
			expect(*state, ORACLE_IN, &back, &inside);
			expect(*state, ORACLE_OUT, &inside, &reply);
		}
}

static void test_counters(void **state)
{
	struct packet_spec in = udp4(CLIENT_PORT, 7000), middle = to(in, BACKEND4, 70);
	struct packet_spec back = answer(from(middle, OUTSIDE4, CLIENT_PORT), 70);
	struct oracle *o = *state;
	struct packet packet;
	struct oracle_answer answer;

	judge(o, ORACLE_IN, OUTSIDE, &in, &packet, &answer);
	judge(o, ORACLE_OUT, OUTSIDE, &middle, &packet, &answer);
	judge(o, ORACLE_IN, OUTSIDE, &back, &packet, &answer);
	judge(o, ORACLE_IN, OUTSIDE, &in, &packet, &answer);
	assert_int_equal(o->n_flows, 1);
	assert_int_equal(o->flows[0].packets[0], 2);
	assert_int_equal(o->flows[0].packets[1], 1);
	assert_int_equal(o->flows[0].bytes[0], 2 * 48);
	assert_int_equal(o->flows[0].bytes[1], 48);
}

static void test_folded(void **state)
{
	struct packet_spec first = udp4(CLIENT_PORT, 6000), last = udp4(CLIENT_PORT + 1, 6009);
	struct packet_spec first_out = to(first, BACKEND4, 60), last_out = to(last, BACKEND4, 60);

	expect(*state, ORACLE_IN, &first, &first_out);
	expect(*state, ORACLE_IN, &last, &last_out);
}

/* A backend that reaches itself through this host needs another source. */
static void test_hairpin(void **state)
{
	struct packet_spec in = from(udp4(CLIENT_PORT, 8080), BACKEND4, CLIENT_PORT);
	struct packet_spec middle = to(in, BACKEND4, 9080);
	struct packet_spec out = from(middle, OUTSIDE4, CLIENT_PORT);

	expect(*state, ORACLE_IN, &in, &middle);
	expect(*state, ORACLE_OUT, &middle, &out);
}

/* A client of this host, by its loopback address. */
static void test_local_client(void **state)
{
	struct packet_spec in =
		to(from(udp4(CLIENT_PORT, 8080), "127.0.0.1", CLIENT_PORT), "127.0.0.1", 8080);
	struct packet_spec out = to(from(in, OUTSIDE4, CLIENT_PORT), BACKEND4, 9080);
	struct packet_spec back = answer(out, 9080), reply = answer(in, 8080);
	struct packet packet, expected;
	struct oracle_answer answer;

	judge(*state, ORACLE_IN, LO, &in, &packet, &answer);
	assert_int_equal(answer.verdict, ORACLE_REDIRECT);
	packet_build(&out, &expected);
	memset(expected.data, 0, 12); /* lo's own address */
	assert_memory_equal(packet.data, expected.data, expected.length);

	judge(*state, ORACLE_IN, OUTSIDE, &back, &packet, &answer);
	assert_int_equal(answer.verdict, ORACLE_REDIRECT);
	packet_build(&reply, &expected);
	memset(expected.data, 0, 12);
	assert_memory_equal(packet.data, expected.data, expected.length);
}

static void expect_error(struct oracle *o, enum oracle_hook hook, const struct packet_spec *outer,
			 const struct packet_spec *quoted, const struct packet_spec *outer_after,
			 const struct packet_spec *quoted_after)
{
	static const size_t lengths[] = {4, 8, 20, QUOTE_ALL};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		const struct oracle_input input = {.hook = hook, .ethernet = true, .interface = 2};
		struct packet packet, expected;
		struct oracle_answer answer;

		packet_build_error(outer, quoted, lengths[i], &packet);
		packet_build_error(outer_after, quoted_after, lengths[i], &expected);
		oracle_judge(o, &input, packet.data, packet.length, &answer);
		assert_true(answer.error);
		assert_memory_equal(packet.data, expected.data, expected.length);
	}
}

/* Where a router on either side, or this host, complains about a masqueraded flow. */
static void test_errors(void **state)
{
	struct packet_spec in = udp4(CLIENT_PORT, 7000), middle = to(in, BACKEND4, 70);
	struct packet_spec out = from(middle, OUTSIDE4, CLIENT_PORT), back = answer(out, 70);
	struct packet_spec inside = answer(middle, 70), reply = answer(in, 7000);
	struct packet_spec about = {.source = ROUTER4, .sport = 0x0304}, after;

	expect(*state, ORACLE_IN, &in, &middle);
	about.destination = OUTSIDE4;
	after = about;
	after.destination = CLIENT4;
	expect_error(*state, ORACLE_IN, &about, &out, &after, &in);
	about.destination = SERVER4;
	after.destination = BACKEND4;
	expect_error(*state, ORACLE_IN, &about, &reply, &after, &back);
	about.source = SERVER4;
	about.destination = CLIENT4;
	expect_error(*state, ORACLE_OUT, &about, &middle, &about, &in);
	about.destination = BACKEND4;
	expect_error(*state, ORACLE_OUT, &about, &inside, &about, &back);
}

static void test_fragments(void **state)
{
	struct packet_spec first = udp4(CLIENT_PORT, 8080), later, later_out;
	struct packet packet;
	struct oracle_answer answer;

	first.fragmented = first.more_fragments = true;
	first.fragment_id = 77;
	later = first;
	later.fragment_offset = 32;
	judge(*state, ORACLE_IN, OUTSIDE, &later, &packet, &answer);
	assert_int_equal(answer.verdict, ORACLE_DROP);
	assert_int_equal(answer.reasons, ORACLE_REASON(REASON_HELD));
	judge(*state, ORACLE_IN, OUTSIDE, &first, &packet, &answer);
	assert_true(answer.translated);
	later_out = later;
	later_out.destination = BACKEND4;
	expect(*state, ORACLE_IN, &later, &later_out);
	later.fragment_id++;
	judge(*state, ORACLE_IN, OUTSIDE, &later, &packet, &answer);
	assert_int_equal(answer.verdict, ORACLE_DROP);
}

/* The narrower range, the interface, the longer prefix. */
static void test_most_specific(void **state)
{
	struct packet_spec in = udp4(CLIENT_PORT, 8085), out = to(in, SERVER4, 99);
	struct oracle_rule *r = &rules[2 * N_RULES];
	struct oracle *o = *state;

	*r = (struct oracle_rule){.udp = true,
				  .first = 8085,
				  .last = 8085,
				  .target = 99,
				  .listen = ORACLE_LISTEN_LOCAL};
	o->n_rules = 2 * N_RULES + 1;
	expect(o, ORACLE_IN, &in, &out);
	r->listen = ORACLE_LISTEN_ANY; /* less specific now, however narrow */
	in.sport++;
	out = to(in, BACKEND4, 9085);
	expect(o, ORACLE_IN, &in, &out);
	r->interfaces[r->n_interfaces++] = OUTSIDE;
	in.sport++;
	out = to(in, SERVER4, 99);
	expect(o, ORACLE_IN, &in, &out);
	r->interfaces[0] = LO;
	in.sport++;
	out = to(in, BACKEND4, 9085);
	expect(o, ORACLE_IN, &in, &out);
}

/* ---- choices ---- */

static struct oracle_choice given;

static void give(void *userdata, const struct oracle_tuple *original, struct oracle_choice *ret)
{
	*ret = given;
}

static const char *complaint_of(struct oracle *o, const struct packet_spec *in)
{
	const struct oracle_input input = {
		.hook = ORACLE_IN, .ethernet = true, .interface = OUTSIDE};
	struct oracle_answer answer;
	struct packet packet;

	packet_build(in, &packet);
	oracle_judge(o, &input, packet.data, packet.length, &answer);
	return answer.complaint;
}

static struct oracle_tuple tuple_of(const struct packet_spec *s)
{
	struct oracle_packet p;
	struct packet packet;

	packet_build(s, &packet);
	oracle_parse(packet.data, packet.length, true, &p);
	return oracle_tuple_of(&p);
}

static void test_lawful_choices(void **state)
{
	struct packet_spec in = udp4(CLIENT_PORT, 5000), back = answer(to(in, BACKEND4, 51), 51);
	struct oracle *o = *state;

	o->choose = give;
	given = (struct oracle_choice){
		.made = true, .reply = tuple_of(&back), .rule = TWO_TARGETS, .target = 1};
	assert_null(complaint_of(o, &in));
	/* the same port is taken now: another of its class */
	in.source = "198.51.100.8";
	back = answer(to(in, BACKEND4, 51), 51);
	given.reply = tuple_of(&back);
	assert_null(complaint_of(o, &in));
}

static void test_unlawful_choices(void **state)
{
	struct packet_spec in = udp4(CLIENT_PORT, 5000), back = answer(to(in, BACKEND4, 50), 50);
	struct oracle_choice good = {
		.made = true, .reply = tuple_of(&back), .rule = TWO_TARGETS, .target = 0};
	struct oracle *o = *state;

	o->choose = give;
	given = good;
	given.made = false;
	assert_string_equal(complaint_of(o, &in), "a flow had to be opened, and has not been");
	given = good;
	given.rule = DNAT;
	assert_string_equal(complaint_of(o, &in), "the flow is another rule's");
	oracle_clear(o);
	make_oracle(state);
	o->choose = give;
	given = good;
	given.target = 1;
	assert_string_equal(complaint_of(o, &in), "the reply's source is not the target");
	oracle_clear(o);
	make_oracle(state);
	o->choose = give;
	given = good;
	rules[TWO_TARGETS].targets[0].draining = true;
	assert_string_equal(complaint_of(o, &in), "the target gets no new flows");
	oracle_clear(o);
	make_oracle(state);
	o->choose = give;
	given = good;
	given.reply.dport++;
	assert_string_equal(complaint_of(o, &in),
			    "the source's port was free and has not been kept");
	/* that flow is remembered as it was made: its tuple is taken */
	in.sport++;
	given.rule = TWO_TARGETS;
	assert_string_equal(complaint_of(o, &in), "packets of the flow could be another's");
	in.sport++;
	given.reply.dport = 600;
	o->flows[0].reply.dport = in.sport; /* so that its own is taken */
	assert_string_equal(complaint_of(o, &in), "the source's port is of another class");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_oracle, clear_oracle)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_by_hand),	  TEST(test_dnat),	     TEST(test_masquerade),
		TEST(test_counters),	  TEST(test_folded),	     TEST(test_hairpin),
		TEST(test_local_client),  TEST(test_errors),	     TEST(test_fragments),
		TEST(test_most_specific), TEST(test_lawful_choices), TEST(test_unlawful_choices),
	};

	return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
