/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Some 20,000 packets, good ones and damaged ones, through both hooks: each must come out as the
 * oracle says, byte by byte, and in the end the flow table must have counted what the oracle did.
 * A quarter are ICMP errors about the others.
 *
 * The packets follow from a seed: `test-mutations [SEED [PACKETS]]` repeats or prolongs a run.
 * Other rules than these, and colliding ports, are fuzz-packets' part.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

#define SEED_DEFAULT	0x5eed
#define PACKETS_DEFAULT 20000
#define FLOWS_MAX	65536

static const char *const rule_texts[] = {
	"tcp *:8080 to 80",
	"udp *:5300 to 53",
	"tcp+udp *:7000-7009 to 17000-17009",
	NULL,
};

/* No two ports become the same one: the oracle does not know colliding replies. */
static struct oracle_rule oracle_rules[] = {
	{.tcp = true, .first = 8080, .last = 8080, .target = 80},
	{.udp = true, .first = 5300, .last = 5300, .target = 53},
	{.tcp = true, .udp = true, .first = 7000, .last = 7009, .target = 17000},
};

static uint64_t seed = SEED_DEFAULT;
static unsigned long packets = PACKETS_DEFAULT;

static uint8_t random_flags(void)
{
	static const uint8_t flags[] = {
		TCP_FLAG_SYN,
		TCP_FLAG_SYN | TCP_FLAG_ACK,
		TCP_FLAG_ACK,
		TCP_FLAG_PSH | TCP_FLAG_ACK,
		TCP_FLAG_FIN | TCP_FLAG_ACK,
		TCP_FLAG_RST,
	};

	return flags[random_below(ARRAY_SIZE(flags))];
}

static const struct {
	uint16_t port, target;
} ports[] = {{8080, 80}, {5300, 53}, {7000, 17000}, {7009, 17009}, {443, 443}};

/* A good packet of a few clients, to a redirected port or beside. */
static struct packet_spec random_request(size_t i)
{
	struct packet_spec s = shapes[random_below(ARRAY_SIZE(shapes))];

	s.protocol = random_below(2) ? IPPROTO_TCP : IPPROTO_UDP;
	s.sport = (uint16_t)(40000 + random_below(16));
	s.dport = ports[i].port;
	s.tcp_flags = random_flags();
	s.tcp_options = (uint8_t)(4 * random_below(11));
	s.udp_unchecked = random_below(8) == 0;
	s.payload_length = random_below(100);
	if (random_below(8) == 0) {
		s.fragmented = true;
		s.more_fragments = random_below(2);
		s.fragment_offset = (uint16_t)(8 * random_below(3));
	}
	return s;
}

/* An error about such a packet as this host saw it, or about the answer as it left. */
static void random_error(enum oracle_hook hook, size_t i, struct packet *ret)
{
	static const uint8_t types[2][4] = {{3, 11, 12, 5}, {1, 2, 3, 4}};
	struct packet_spec about = random_request(i), s;
	bool ipv6 = strchr(about.source, ':');

	if (hook == ORACLE_IN)
		about = answer(about, ports[i].port);
	else
		about.dport = ports[i].target;
	do
		s = shapes[random_below(ARRAY_SIZE(shapes))];
	while (!strchr(s.source, ':') == ipv6);
	s.source = about.destination;
	s.destination = about.source;
	s.sport = (uint16_t)(types[ipv6][random_below(4)] << 8 | random_below(5));
	packet_build_error(&s, &about, random_below(2) ? 8 : random_below(100), ret);
}

/* A good packet as the hook may see it: a request, an answer, or an error about one. */
static void random_packet(enum oracle_hook hook, struct packet *ret)
{
	size_t i = random_below(ARRAY_SIZE(ports));
	struct packet_spec s;

	if (random_below(4) == 0) {
		random_error(hook, i, ret);
		return;
	}
	s = random_request(i);
	if (hook == ORACLE_OUT)
		s = answer(s, ports[i].target);
	packet_build(&s, ret);
}

static struct {
	unsigned long number, translated, errors, left_alone, refused;
} tally;

static void pass_one(struct world *w)
{
	enum oracle_hook hook = random_below(3) ? ORACLE_IN : ORACLE_OUT;
	struct outcome out;
	struct packet p;

	random_packet(hook, &p);
	if (random_below(4))
		for (uint32_t n = 1 + random_below(4); n; n--)
			if (p.length > 40)
				fuzz_mutate(&p);
	if (fuzz_refused_by_kernel(&p))
		tally.refused++;
	else if (!world_compare(w, hook, p.data, p.length, &out))
		tally.left_alone++;
	else if (p.quote)
		tally.errors++;
	else
		tally.translated++;
}

struct sums {
	uint64_t flows, packets, bytes;
};

static struct sums sum_oracle(const struct oracle *o)
{
	struct sums s = {.flows = o->n_flows};

	for (size_t i = 0; i < o->n_flows; i++) {
		s.packets += o->flows[i].packets[0] + o->flows[i].packets[1];
		s.bytes += o->flows[i].bytes[0] + o->flows[i].bytes[1];
	}
	return s;
}

/* Living flows and, by their rules, those that a SYN put an end to. */
static struct sums sum_datapath(struct world *w)
{
	const struct rule_counters *rules = datapath_rule_counters(w->datapath);
	struct sums s = {.flows = 0};
	const struct flow *flows;
	uint32_t n;

	flows = datapath_flows(w->datapath, &n);
	for (uint32_t i = 1; i < n; i++) {
		if (flows[i].state == FLOW_FREE)
			continue;
		s.flows++;
		s.packets += flows[i].original.packets + flows[i].reply.packets;
		s.bytes += flows[i].original.bytes + flows[i].reply.bytes;
	}
	for (uint32_t i = 1; i < RULE_COUNT; i++) {
		s.packets += rules[i].packets;
		s.bytes += rules[i].bytes;
	}
	return s;
}

static void test_mutations(void **state)
{
	struct world *w = world_new(rule_texts, FLOWS_MAX);
	struct cpu_counters counters;
	struct sums expected, got;

	oracle_init(&w->oracle, oracle_rules, ARRAY_SIZE(oracle_rules));
	random_seed(seed);
	for (unsigned long i = 0; i < packets; i++) {
		tally.number = i;
		pass_one(w);
	}
	expected = sum_oracle(&w->oracle);
	got = sum_datapath(w);
	assert_int_equal(got.flows, expected.flows);
	assert_int_equal(got.packets, expected.packets);
	assert_int_equal(got.bytes, expected.bytes);
	world_counters(w, &counters);
	assert_in_range(counters.icmp_errors, tally.errors, tally.errors + packets / 1000);
	print_message("seed %#llx: %lu translated (%llu flows), %lu ICMP errors, %lu left alone, "
		      "%lu not run\n",
		      (unsigned long long)seed, tally.translated,
		      (unsigned long long)expected.flows, tally.errors, tally.left_alone,
		      tally.refused);
	/* a test that translates next to nothing would pass as well */
	assert_in_range(tally.translated, packets / 5, packets);
	assert_in_range(tally.errors, packets / 50, packets);
	assert_in_range(tally.left_alone, packets / 5, packets);
	world_free(w);
}

/* Says which packet of which seed it was. */
static int report_failure(void **state)
{
	if (tally.number + 1 < packets)
		print_error("packet %lu of seed %#llx; %s\n", tally.number,
			    (unsigned long long)seed, "run again with this seed to repeat it");
	return 0;
}

static int parse_number(const char *text, unsigned long long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 0);
	return errno || end == text || *end ? -EINVAL : 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_mutations, report_failure)};
	unsigned long long values[2] = {SEED_DEFAULT, PACKETS_DEFAULT};
	int skip = world_skip_code();

	for (int i = 1; i < argc; i++)
		if (i > 2 || parse_number(argv[i], &values[i - 1]) < 0) {
			fprintf(stderr, "usage: test-mutations [SEED [PACKETS]]\n");
			return 2;
		}
	if (skip)
		return skip;
	seed = values[0];
	packets = (unsigned long)values[1];
	return cmocka_run_group_tests_name("mutations", tests, NULL, NULL);
}
