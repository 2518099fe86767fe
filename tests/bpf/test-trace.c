/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The trace program: it changes nothing, and what it says is what the hooks' programs then do, to
 * the packet and to its answer.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/pkt_cls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/world.h"

#define FLOWS_MAX 256
#define TARGET4	  "203.0.113.9"
#define TARGET6	  "2001:db8:9::9"
#define PAYLOAD	  300 /* the answer has to fit */
#define LO	  1

static const char *const rule_texts[] = {
	"tcp *:8080 to 80 name web",
	"udp *:5000-5009 to 6000-6009",
	"tcp *:8081 to " TARGET4 ":81",
	"tcp *:8082 to " TARGET4 ":82 snat " SERVER4,
	"udp *:5082 to [" TARGET6 "]:82 snat " SERVER6,
	"tcp *:8084 to 84",
	"tcp *:8085 to 84",
	"tcp *:8086 to 86 on lo",
	"tcp *:8087 to 87 from 198.51.100.0/24",
	"tcp *:8087 to 88 from 198.51.100.8/32",
	"tcp *:8088 to " TARGET4 ":1," TARGET4 ":2 weight 3," TARGET4 ":4",
	"tcp *:8089 to 89 disabled",
	NULL,
};

static int make_world(void **state)
{
	*state = world_new(rule_texts, FLOWS_MAX);
	return 0;
}

/* ---- everything that a trace must leave as it is ---- */

struct snapshot {
	struct flow *flows;
	size_t flows_size;
	uint8_t *index;
	struct rule_counters *rules;
	struct flow_totals totals;
	struct datapath_config config;
	struct cpu_counters counters;
};

static void *copy(const void *from, size_t size)
{
	void *p = malloc(size);

	assert_non_null(p);
	return memcpy(p, from, size);
}

static uint8_t *copy_index(struct world *w)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), length = (FLOWS_MAX / 2 + 128) * 64;
	char path[128];
	uint8_t *result;
	void *memory;
	int fd;

	snprintf(path, sizeof(path), "%s/v%d/flow_index", w->pin_path, DATAPATH_VERSION);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	length = length / page * page;
	memory = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(memory != MAP_FAILED);
	result = copy(memory, length);
	munmap(memory, length);
	close(fd);
	return result;
}

static void take(struct world *w, struct snapshot *ret)
{
	uint32_t n;
	const struct flow *flows = datapath_flows(w->datapath, &n);

	/* Record 0 is the one that a trace works in: only its being free matters. */
	assert_int_equal(flows[0].state, FLOW_FREE);
	ret->flows_size = (n - 1) * sizeof(*flows);
	ret->flows = copy(flows + 1, ret->flows_size);
	ret->index = copy_index(w);
	ret->rules = copy(datapath_rule_counters(w->datapath), RULE_COUNT * sizeof(*ret->rules));
	ret->totals = *datapath_totals(w->datapath);
	ret->config = *datapath_config(w->datapath);
	world_counters(w, &ret->counters);
}

static void drop(struct snapshot *s)
{
	free(s->flows);
	free(s->index);
	free(s->rules);
}

static void assert_unchanged(struct world *w, const struct snapshot *before)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct snapshot now;

	take(w, &now);
	assert_memory_equal(now.flows, before->flows, before->flows_size);
	assert_memory_equal(now.index, before->index, (FLOWS_MAX / 2 + 128) * 64 / page * page);
	assert_memory_equal(now.rules, before->rules, RULE_COUNT * sizeof(*before->rules));
	assert_memory_equal(&now.totals, &before->totals, sizeof(before->totals));
	assert_memory_equal(&now.config, &before->config, sizeof(before->config));
	/* The scratch of the processors is not summed up. */
	assert_memory_equal(&now.counters, &before->counters, sizeof(before->counters));
	drop(&now);
}

/* ---- a trace, and what happens then ---- */

static void trace_at(struct world *w, uint32_t ifindex, const struct packet_spec *spec,
		     struct trace_answer *ret)
{
	struct packet_spec longer = *spec;
	struct snapshot before;
	struct packet p;

	longer.payload_length = PAYLOAD;
	packet_build(&longer, &p);
	take(w, &before);
	assert_int_equal(datapath_trace(w->datapath, ifindex, p.data, p.length, ret), 0);
	assert_unchanged(w, &before);
	drop(&before);
}

/* `data` may be the outcome of the run before. */
static void run(struct world *w, enum datapath_program program, uint32_t ifindex, const void *data,
		size_t length, struct outcome *out)
{
	struct __sk_buff context = {.ifindex = ifindex};
	uint8_t in[PACKET_MAX];

	memcpy(in, data, length);
	world_run(w, program, &context, in, length, out);
}

static void assert_tuple(const char *what, const struct outcome *out,
			 const struct trace_tuple *expected)
{
	struct oracle_packet p;
	size_t skip;

	oracle_parse(out->data, out->length, true, &p);
	assert_int_equal(p.class, ORACLE_TRANSLATABLE);
	skip = p.ipv6 ? 0 : 12;
	if (p.sport != ntohs(expected->sport) || p.dport != ntohs(expected->dport))
		print_error("%s: ports %u, %u, where the trace says %u, %u\n", what, p.sport,
			    p.dport, ntohs(expected->sport), ntohs(expected->dport));
	assert_int_equal(p.sport, ntohs(expected->sport));
	assert_int_equal(p.dport, ntohs(expected->dport));
	assert_memory_equal(p.source, (const uint8_t *)expected->saddr + skip, 16 - skip);
	assert_memory_equal(p.destination, (const uint8_t *)expected->daddr + skip, 16 - skip);
}

static const char *address(const __be32 mapped[4], bool ipv6, char buffer[INET6_ADDRSTRLEN])
{
	return ipv6 ? inet_ntop(AF_INET6, mapped, buffer, INET6_ADDRSTRLEN)
		    : inet_ntop(AF_INET, &mapped[3], buffer, INET6_ADDRSTRLEN);
}

/* The answer, as its sender sends it. */
static void build_reply(const struct packet_spec *spec, const struct flow_dir *reply,
			struct packet *ret)
{
	char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
	bool ipv6 = strchr(spec->source, ':');
	struct packet_spec back = *spec;

	back.source = address(reply->saddr, ipv6, source);
	back.destination = address(reply->daddr, ipv6, destination);
	back.sport = ntohs(reply->sport);
	back.dport = ntohs(reply->dport);
	if (back.protocol == IPPROTO_TCP)
		back.tcp_flags = TCP_FLAG_SYN | TCP_FLAG_ACK;
	packet_build(&back, ret);
}

/* Sends the packet and its answer through both hooks; each looks as the trace has said. */
static void assert_comes_true(struct world *w, uint32_t ifindex, const struct packet_spec *spec,
			      const struct trace_answer *a)
{
	struct outcome out;
	struct packet p;

	packet_build(spec, &p);
	run(w, PROGRAM_IN, ifindex, p.data, p.length, &out);
	assert_int_equal((int)out.verdict, TC_ACT_UNSPEC);
	assert_tuple("in", &out, &a->becomes[TRACE_IN]);
	run(w, PROGRAM_OUT, LO, out.data, out.length, &out);
	assert_tuple("out", &out, &a->becomes[TRACE_OUT]);

	build_reply(spec, &a->flow.reply, &p);
	run(w, PROGRAM_IN, LO, p.data, p.length, &out);
	assert_tuple("reply in", &out, &a->becomes[TRACE_REPLY_IN]);
	run(w, PROGRAM_OUT, LO, out.data, out.length, &out);
	assert_tuple("reply out", &out, &a->becomes[TRACE_REPLY_OUT]);
}

static struct packet_spec udp6(uint16_t sport, uint16_t dport)
{
	return (struct packet_spec){.source = CLIENT6,
				    .destination = SERVER6,
				    .protocol = IPPROTO_UDP,
				    .sport = sport,
				    .dport = dport,
				    .payload_length = 20};
}

static void test_new_flows(void **state)
{
	struct world *w = *state;
	const struct {
		struct packet_spec spec;
		uint16_t rule, port; /* of the target */
	} cases[] = {
		{tcp4(CLIENT_PORT, 8080, TCP_FLAG_SYN), 1, 80},
		{udp4(CLIENT_PORT, 5003), 2, 6003},
		{udp6(CLIENT_PORT, 5009), 2, 6009},
		{tcp4(CLIENT_PORT, 8081, TCP_FLAG_SYN), 3, 81},
		{tcp4(CLIENT_PORT, 8082, TCP_FLAG_SYN), 4, 82},
		{udp6(CLIENT_PORT, 5082), 5, 82},
		{tcp4(CLIENT_PORT, 8087, TCP_FLAG_SYN), 9, 87},
		{tcp4(CLIENT_PORT, 8080, TCP_FLAG_ACK), 1, 80}, /* picked up */
	};
	struct trace_answer a;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct packet_spec spec = cases[i].spec;

		spec.sport = (uint16_t)(spec.sport + i);
		trace_at(w, w->interface, &spec, &a);
		assert_int_equal(a.reason, REASON_COUNT);
		assert_int_equal(a.flags, 0);
		assert_int_equal(a.flow.rule, cases[i].rule);
		assert_int_equal(ntohs(a.flow.reply.sport), cases[i].port);
		assert_int_equal(ntohs(a.flow.reply.dport), spec.sport);
		assert_comes_true(w, w->interface, &spec, &a);
		/* Now it is there. */
		trace_at(w, w->interface, &spec, &a);
		assert_int_equal(a.reason, REASON_COUNT);
		assert_int_equal(a.flags, TRACE_FOUND);
		assert_int_equal(a.flow.rule, cases[i].rule);
		assert_int_equal(a.ended, 0);
	}
}

/* Which of several targets a flow gets is a matter of its hash, the same for both programs. */
static void test_targets(void **state)
{
	unsigned seen[5] = {0};
	struct trace_answer a;

	for (uint16_t i = 0; i < 64; i++) {
		struct packet_spec spec = tcp4((uint16_t)(CLIENT_PORT + i), 8088, TCP_FLAG_SYN);

		trace_at(*state, LO, &spec, &a);
		assert_int_equal(a.reason, REASON_COUNT);
		seen[ntohs(a.flow.reply.sport)]++;
	}
	assert_true(seen[1] && seen[2] && seen[4] && seen[2] > seen[1]);
	for (uint16_t i = 0; i < 16; i++) {
		struct packet_spec spec = tcp4((uint16_t)(CLIENT_PORT + i), 8081, TCP_FLAG_SYN);

		spec.dport = 8088;
		trace_at(*state, ((struct world *)*state)->interface, &spec, &a);
		assert_comes_true(*state, ((struct world *)*state)->interface, &spec, &a);
	}
}

/* Passed on for the same reason as the hook counts. */
static void test_refused(void **state)
{
	struct world *w = *state;
	const struct {
		struct packet_spec spec;
		enum packet_reason reason;
	} cases[] = {
		{tcp4(CLIENT_PORT, 9999, TCP_FLAG_SYN), REASON_UNRELATED},
		{udp4(CLIENT_PORT, 8080), REASON_UNRELATED},
		{tcp4(CLIENT_PORT, 8086, TCP_FLAG_SYN), REASON_NO_MATCH},
		{tcp4(CLIENT_PORT, 8080, TCP_FLAG_RST), REASON_STRAY},
		{tcp4(CLIENT_PORT, 8089, TCP_FLAG_SYN), REASON_UNRELATED},
		{{.source = CLIENT6,
		  .destination = SERVER6,
		  .protocol = IPPROTO_TCP,
		  .sport = CLIENT_PORT,
		  .dport = 8087,
		  .tcp_flags = TCP_FLAG_SYN},
		 REASON_NO_MATCH},
	};
	struct cpu_counters before;
	struct trace_answer a;
	struct outcome out;
	struct packet p;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		trace_at(w, w->interface, &cases[i].spec, &a);
		assert_int_equal(a.reason, cases[i].reason);
		packet_build(&cases[i].spec, &p);
		world_counters(w, &before);
		run(w, PROGRAM_IN, w->interface, p.data, p.length, &out);
		assert_reason(w, &before, cases[i].reason, "after its trace");
	}
	trace_at(w, LO, &cases[2].spec, &a); /* `on lo` */
	assert_int_equal(a.reason, REASON_COUNT);
	assert_int_equal(a.flow.rule, 8);
}

/* Another flow has the tuple towards the target: another source port, in both programs. */
static void test_port_is_taken(void **state)
{
	struct world *w = *state;
	struct packet_spec first = tcp4(CLIENT_PORT, 8084, TCP_FLAG_SYN);
	struct packet_spec second = tcp4(CLIENT_PORT, 8085, TCP_FLAG_SYN);
	struct packet_spec direct = tcp4(CLIENT_PORT, 84, TCP_FLAG_SYN);
	struct trace_answer a;
	struct oracle_packet o;
	struct outcome out;
	struct packet p;

	trace_at(w, w->interface, &direct, &a);
	assert_int_equal(a.reason, REASON_UNRELATED);
	packet_build(&first, &p);
	run(w, PROGRAM_IN, w->interface, p.data, p.length, &out);
	for (int i = 0; i < 2; i++) {
		const struct packet_spec *spec = i ? &direct : &second;

		trace_at(w, w->interface, spec, &a);
		assert_int_equal(a.reason, REASON_COUNT);
		assert_int_equal(a.flow.rule, i ? 0 : 7);
		assert_int_not_equal(ntohs(a.flow.reply.dport), CLIENT_PORT);
		packet_build(spec, &p);
		run(w, PROGRAM_IN, w->interface, p.data, p.length, &out);
		oracle_parse(out.data, out.length, true, &o);
		assert_int_equal(o.dport, 84);
		assert_int_not_equal(o.sport, CLIENT_PORT);
	}
}

/* A connection that is over: a SYN begins another one, whose source port the dead one keeps not. */
static void test_ended(void **state)
{
	static const uint8_t client[] = {TCP_FLAG_SYN, TCP_FLAG_RST};
	struct world *w = *state;
	struct packet_spec spec = tcp4(CLIENT_PORT, 8080, TCP_FLAG_SYN);
	struct packet_spec udp = udp4(CLIENT_PORT, 5000);
	static const char *const others[] = {"tcp *:8080 to 80 name web",
					     "udp *:5000-5009 to 7000-7009", NULL};
	struct trace_answer a;
	struct outcome out;
	struct packet p;

	for (size_t i = 0; i < sizeof(client); i++) {
		spec.tcp_flags = client[i];
		packet_build(&spec, &p);
		run(w, PROGRAM_IN, w->interface, p.data, p.length, &out);
	}
	spec.tcp_flags = TCP_FLAG_SYN;
	trace_at(w, w->interface, &spec, &a);
	assert_int_equal(a.ended, 1 + DESTROY_REOPENED);
	assert_int_equal(a.flags, 0);
	assert_int_equal(ntohs(a.flow.reply.dport), CLIENT_PORT);
	assert_comes_true(w, w->interface, &spec, &a);

	packet_build(&udp, &p);
	run(w, PROGRAM_IN, w->interface, p.data, p.length, &out);
	world_apply(w, others);
	trace_at(w, w->interface, &udp, &a);
	assert_int_equal(a.ended, 1 + DESTROY_RULE);
	assert_int_equal(ntohs(a.flow.reply.sport), 7000);
	assert_comes_true(w, w->interface, &udp, &a);
}

/* Held against rules that have changed and still say the same: a trace does not even note that. */
static void test_generation(void **state)
{
	struct packet_spec udp = udp4(CLIENT_PORT, 5000);
	struct world *w = *state;
	struct trace_answer a;
	struct outcome out;
	struct packet p;

	packet_build(&udp, &p);
	run(w, PROGRAM_IN, w->interface, p.data, p.length, &out);
	world_apply(w, rule_texts);
	trace_at(w, w->interface, &udp, &a);
	assert_int_equal(a.flags, TRACE_FOUND);
	assert_comes_true(w, w->interface, &udp, &a);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_world, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_new_flows),	  TEST(test_targets), TEST(test_refused),
		TEST(test_port_is_taken), TEST(test_ended),   TEST(test_generation),
	};
	int skip = world_skip_code();

	if (skip)
		return skip;
	return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
