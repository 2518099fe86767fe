/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow table as packets see it and leave it: TCP states, counters, ports that collide, floods,
 * expiry, and what a change of rules does to flows that are there.
 */
#include <arpa/inet.h>
#include <linux/pkt_cls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/world.h"

#define FLOWS_MAX 256

static const char *const rule_texts[] = {
	"tcp *:8080 to 80 name web",
	"udp *:5300 to 53 name dns",
	"tcp *:8084 to 84",
	"tcp *:8085 to 84",
	NULL,
};

/* A world for each test: its tables begin empty. */
static int make_world(void **state)
{
	*state = world_new(rule_texts, FLOWS_MAX);
	return 0;
}

static void run(struct world *w, enum oracle_hook hook, const struct packet_spec *spec,
		struct outcome *out)
{
	struct packet in;

	packet_build(spec, &in);
	world_run(w, hook == ORACLE_IN ? PROGRAM_IN : PROGRAM_OUT, NULL, in.data, in.length, out);
}

/* Runs a packet and expects these ports, and a checksum that holds. */
static void expect(struct world *w, enum oracle_hook hook, const struct packet_spec *spec,
		   uint16_t sport, uint16_t dport)
{
	struct oracle_packet p;
	struct outcome out;

	run(w, hook, spec, &out);
	assert_int_equal((int)out.verdict, TC_ACT_UNSPEC);
	oracle_parse(out.data, out.length, true, &p);
	assert_int_equal(p.class, ORACLE_TRANSLATABLE);
	assert_int_equal(p.sport, sport);
	assert_int_equal(p.dport, dport);
	assert_true(oracle_l4_checksum_holds(out.data, &p));
}

static const struct flow *find(struct world *w, const struct packet_spec *first)
{
	struct packet p;

	packet_build(first, &p);
	return world_find_flow(w, &p);
}

/* ---- states ---- */

struct step {
	char from; /* 'c'lient or 's'erver */
	uint8_t flags;
	enum flow_state state; /* afterwards */
	bool assured;
};

#define S TCP_FLAG_SYN
#define A TCP_FLAG_ACK
#define F TCP_FLAG_FIN
#define R TCP_FLAG_RST
#define P TCP_FLAG_PSH

static const struct story {
	const char *what;
	struct step steps[12]; /* ends with from 0 */
} stories[] = {
	{"the client closes",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'c', P | A, FLOW_ESTABLISHED, true},
	  {'s', P | A, FLOW_ESTABLISHED, true},
	  {'c', F | A, FLOW_FIN_WAIT, true},
	  {'s', A, FLOW_CLOSE_WAIT, true},
	  {'s', P | A, FLOW_CLOSE_WAIT, true},
	  {'s', F | A, FLOW_LAST_ACK, true},
	  {'c', A, FLOW_TIME_WAIT, true}}},
	{"the server closes",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'s', F | A, FLOW_FIN_WAIT, true},
	  {'c', A, FLOW_CLOSE_WAIT, true},
	  {'c', F | A, FLOW_LAST_ACK, true},
	  {'s', A, FLOW_TIME_WAIT, true}}},
	{"a FIN is answered with a FIN",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'c', F | A, FLOW_FIN_WAIT, true},
	  {'s', F | A, FLOW_LAST_ACK, true},
	  {'c', A, FLOW_TIME_WAIT, true}}},
	{"everything is sent twice",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'s', A, FLOW_SYN_RECV, false}, /* only the client's ends the handshake */
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'c', F | A, FLOW_FIN_WAIT, true},
	  {'c', F | A, FLOW_FIN_WAIT, true},
	  {'s', A, FLOW_CLOSE_WAIT, true}}},
	{"the port is closed", {{'c', S, FLOW_SYN_SENT, false}, {'s', R | A, FLOW_CLOSE, false}}},
	{"the client resets",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'c', R, FLOW_CLOSE, true}}},
	{"the server resets",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'s', R | A, FLOW_CLOSE, true}}},
	{"picked up in the middle",
	 {{'c', A, FLOW_ESTABLISHED, false}, {'s', P | A, FLOW_ESTABLISHED, true}}},
	{"both ends open",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S, FLOW_SYN_SENT2, false},
	  {'c', S, FLOW_SYN_SENT2, false}, /* sent again */
	  {'c', S | A, FLOW_SYN_RECV, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true}}},
	{"a FIN is sent again after the other end has acknowledged it",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'c', F | A, FLOW_FIN_WAIT, true},
	  {'s', A, FLOW_CLOSE_WAIT, true},
	  {'c', F | A, FLOW_CLOSE_WAIT, true},
	  {'s', F | A, FLOW_LAST_ACK, true}}},
	{"a stray SYN does not disturb",
	 {{'c', S, FLOW_SYN_SENT, false},
	  {'s', S | A, FLOW_SYN_RECV, false},
	  {'c', A, FLOW_ESTABLISHED, true},
	  {'c', S, FLOW_ESTABLISHED, true}}},
};

static void tell(struct world *w, const struct story *story, bool ipv6, uint16_t port)
{
	struct packet_spec client = tcp4(port, 8080, 0), server;

	client.source = ipv6 ? CLIENT6 : CLIENT4;
	client.destination = ipv6 ? SERVER6 : SERVER4;
	server = answer(client, 80);
	for (const struct step *s = story->steps; s->from; s++) {
		const struct flow *f;

		client.tcp_flags = server.tcp_flags = s->flags;
		if (s->from == 'c')
			expect(w, ORACLE_IN, &client, port, 80);
		else
			expect(w, ORACLE_OUT, &server, 8080, port);
		f = find(w, &client);
		assert_non_null(f);
		if (f->state == s->state && !!(f->flags & FLOW_ASSURED) == s->assured)
			continue;
		fail_msg("%s, step %zu: state %u%s, expected %u%s", story->what,
			 (size_t)(s - story->steps) + 1, f->state,
			 f->flags & FLOW_ASSURED ? " assured" : "", s->state,
			 s->assured ? " assured" : "");
	}
}

static void test_states(void **state)
{
	for (int ipv6 = 0; ipv6 < 2; ipv6++)
		for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
			tell(*state, &stories[i], ipv6, (uint16_t)(CLIENT_PORT + i));
}

/* A SYN with a FIN is neither: it may not end a flow that it cannot begin anew. */
static void test_no_reopen_by_syn_fin(void **state)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, S | F);
	struct world *w = *state;

	tell(w, &stories[0], false, CLIENT_PORT);
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	assert_int_equal(datapath_totals(w->datapath)->destroyed, 0);
}

/* A SYN on a tuple whose connection is over begins a new flow, at once and with new counters. */
static void test_reopen(void **state)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, S);
	struct world *w = *state;
	const struct flow *f;

	tell(w, &stories[0], false, CLIENT_PORT);
	assert_int_equal(datapath_totals(w->datapath)->created, 1);
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	f = find(w, &client);
	assert_non_null(f);
	assert_int_equal(f->state, FLOW_SYN_SENT);
	assert_false(f->flags & (FLOW_ASSURED | FLOW_FIN_ORIG | FLOW_FIN_REPLY));
	assert_int_equal(f->original.packets, 1);
	assert_int_equal(datapath_totals(w->datapath)->created, 2);
	assert_int_equal(datapath_totals(w->datapath)->destroyed, 1);
}

static void test_udp_states(void **state)
{
	struct packet_spec client = udp4(CLIENT_PORT, 5300), server = answer(client, 53);
	struct world *w = *state;
	const struct flow *f;

	expect(w, ORACLE_IN, &client, CLIENT_PORT, 53);
	f = find(w, &client);
	assert_non_null(f);
	assert_int_equal(f->state, FLOW_UDP_UNREPLIED);
	assert_false(f->flags & (FLOW_REPLIED | FLOW_ASSURED));
	expect(w, ORACLE_OUT, &server, 5300, CLIENT_PORT);
	assert_true(f->flags & FLOW_REPLIED);
	assert_false(f->flags & FLOW_ASSURED);
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 53);
	assert_int_equal(f->state, FLOW_UDP_REPLIED);
	assert_true(f->flags & FLOW_ASSURED);
}

/* ---- counters ---- */

/* IP length: without the padding that Ethernet wants, with headers and options. */
static void test_counters(void **state)
{
	struct packet_spec client = udp4(CLIENT_PORT, 5300), server = answer(client, 53);
	struct cpu_counters before, after;
	uint64_t bytes[2] = {0};
	struct world *w = *state;
	const struct flow *f;

	client.ip_options = 8;
	world_counters(w, &before);
	for (size_t i = 0; i < 50; i++) {
		client.payload_length = 3 * i;
		client.padding = i < 5 ? 46 - 36 : 0;
		expect(w, ORACLE_IN, &client, CLIENT_PORT, 53);
		bytes[0] += 20 + 8 + 8 + 3 * i;
		if (i % 3)
			continue;
		server.payload_length = 1000 - i;
		expect(w, ORACLE_OUT, &server, 5300, CLIENT_PORT);
		bytes[1] += 20 + 8 + 1000 - i;
	}
	f = find(w, &client);
	assert_non_null(f);
	assert_int_equal(f->original.packets, 50);
	assert_int_equal(f->original.bytes, bytes[0]);
	assert_int_equal(f->reply.packets, 17);
	assert_int_equal(f->reply.bytes, bytes[1]);
	world_counters(w, &after);
	assert_int_equal(after.packets - before.packets, 67);
	assert_int_equal(after.bytes - before.bytes, bytes[0] + bytes[1]);
	for (size_t i = 0; i < REASON_COUNT; i++)
		assert_int_equal(after.reasons[i], before.reasons[i]);
	assert_int_equal(datapath_totals(w->datapath)->created, 1);
}

/* A GSO packet counts as what goes over the wire: its headers once a segment. */
static void test_gso_counters(void **state)
{
	static const struct {
		bool tcp, ipv6;
		uint32_t headers;
	} cases[] = {
		{true, false, 20 + 32},
		{true, true, 40 + 32},
		{false, false, 20 + 8},
		{false, true, 40 + 8},
	};
	const struct __sk_buff context = {.gso_segs = 2, .gso_size = 700};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct packet_spec s =
			cases[i].tcp ? tcp4(CLIENT_PORT, 8080, S) : udp4(CLIENT_PORT, 5300);
		struct oracle_packet p;
		struct world *w = *state;
		const struct flow *f;
		struct outcome out;
		struct packet in;

		s.source = cases[i].ipv6 ? CLIENT6 : CLIENT4;
		s.destination = cases[i].ipv6 ? SERVER6 : SERVER4;
		s.tcp_options = 12;
		s.payload_length = 1399;
		packet_build(&s, &in);
		world_run(w, PROGRAM_IN, &context, in.data, in.length, &out);
		oracle_parse(out.data, out.length, true, &p);
		assert_int_equal(p.dport, cases[i].tcp ? 80 : 53);
		f = world_find_flow(w, &in);
		assert_non_null(f);
		assert_int_equal(f->original.packets, 2);
		assert_int_equal(f->original.bytes, 1399 + 2 * cases[i].headers);
	}
}

/* What a dead flow counted is added to its rule. */
static void test_rule_counters(void **state)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, S);
	struct world *w = *state;
	const struct rule_counters *c;
	const struct flow *f;

	tell(w, &stories[0], false, CLIENT_PORT);
	f = find(w, &client);
	assert_non_null(f);
	c = datapath_rule_counters(w->datapath) + f->rule;
	assert_int_equal(c->created, 1);
	assert_int_equal(c->packets, 0);
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	assert_int_equal(c->created, 2);
	assert_int_equal(c->destroyed, 1);
	assert_int_equal(c->packets, 10);
	assert_int_equal(c->bytes, 10 * 40);
}

/* ---- two flows whose replies would look the same ---- */

static void test_colliding_replies(void **state)
{
	struct packet_spec first = tcp4(CLIENT_PORT, 8084, S), second = tcp4(CLIENT_PORT, 8085, S);
	struct packet_spec reply = answer(first, 84);
	struct oracle_packet p;
	struct outcome out;

	expect(*state, ORACLE_IN, &first, CLIENT_PORT, 84);
	run(*state, ORACLE_IN, &second, &out);
	oracle_parse(out.data, out.length, true, &p);
	assert_int_equal(p.dport, 84);
	assert_int_not_equal(p.sport, CLIENT_PORT);
	assert_in_range(p.sport, 1024, 65535);
	assert_true(oracle_l4_checksum_holds(out.data, &p));

	expect(*state, ORACLE_OUT, &reply, 8084, CLIENT_PORT);
	reply.dport = p.sport;
	expect(*state, ORACLE_OUT, &reply, 8085, CLIENT_PORT);
	second.tcp_flags = A;
	expect(*state, ORACLE_IN, &second, p.sport, 84);
}

/*
 * Both directions of a flow in one bucket with one tag, and many flows there: with a key of zeros
 * the hash of TCP over IPv4 hangs on the addresses alone, whichever comes first.
 */
static void test_full_bucket(void **state)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, S), server;
	struct world *w = *state;
	struct cpu_counters before;
	struct outcome out;
	uint32_t fitting = 0;

	memset(datapath_config(w->datapath)->hash_keys, 0,
	       sizeof(datapath_config(w->datapath)->hash_keys));
	for (;; fitting++) {
		client.sport = (uint16_t)(CLIENT_PORT + fitting);
		server = answer(client, 80);
		world_counters(w, &before);
		run(w, ORACLE_IN, &client, &out);
		if (out.verdict == TC_ACT_SHOT)
			break;
		assert_non_null(find(w, &client));
		expect(w, ORACLE_OUT, &server, 8080, client.sport);
		expect(w, ORACLE_IN, &client, client.sport, 80);
		assert_int_equal(datapath_totals(w->datapath)->created, fitting + 1);
	}
	assert_reason(w, &before, REASON_INDEX_FULL, "SYN to a full bucket");
	assert_int_equal(fitting, INDEX_SLOTS); /* one slot serves both directions */
	assert_null(find(w, &client));
	assert_int_equal(datapath_totals(w->datapath)->insert_failed, 1);
	for (uint32_t i = 0; i < fitting; i++) {
		client.sport = (uint16_t)(CLIENT_PORT + i);
		server = answer(client, 80);
		expect(w, ORACLE_OUT, &server, 8080, client.sport);
	}
}

/* ---- room ---- */

static void client_address(uint32_t number, char text[static INET_ADDRSTRLEN])
{
	struct in_addr a = {htonl(0x0a000000 + number)};

	inet_ntop(AF_INET, &a, text, INET_ADDRSTRLEN);
}

static void establish(struct world *w, uint32_t number)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, S), server;
	char address[INET_ADDRSTRLEN];

	client_address(number, address);
	client.source = address;
	server = answer(client, 80);
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	expect(w, ORACLE_OUT, &server, 8080, CLIENT_PORT);
	client.tcp_flags = A;
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
}

static void expect_established(struct world *w, uint32_t number)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, A), server;
	char address[INET_ADDRSTRLEN];
	const struct flow *f;

	client_address(number, address);
	client.source = address;
	f = find(w, &client);
	assert_non_null(f);
	assert_int_equal(f->state, FLOW_ESTABLISHED);
	server = answer(client, 80);
	expect(w, ORACLE_OUT, &server, 8080, CLIENT_PORT);
}

static void half_open(struct world *w, uint32_t number)
{
	struct packet_spec s = tcp4(CLIENT_PORT, 8080, S);
	char address[INET_ADDRSTRLEN];

	client_address(number, address);
	s.source = address;
	expect(w, ORACLE_IN, &s, CLIENT_PORT, 80);
}

/* Nothing gives way while there is room. */
static void test_room_is_used(void **state)
{
	struct world *w = *state;

	for (uint32_t i = 0; i < FLOWS_MAX; i++)
		half_open(w, i);
	assert_int_equal(datapath_totals(w->datapath)->created, FLOWS_MAX);
	assert_int_equal(datapath_totals(w->datapath)->destroyed, 0);
}

/* A SYN flood pushes out nothing but its like, is let in itself, and the table stays bounded. */
static void test_flood(void **state)
{
	const struct flow_totals *totals = datapath_totals(((struct world *)*state)->datapath);
	const uint32_t established = FLOWS_MAX / 2, flood = 20 * FLOWS_MAX;

	for (uint32_t i = 0; i < established; i++)
		establish(*state, i);
	for (uint32_t i = 0; i < flood; i++) {
		half_open(*state, 100000 + i);
		assert_in_range(totals->created - totals->destroyed, 0, FLOWS_MAX);
	}
	assert_int_equal(totals->created, established + flood);
	assert_int_equal(totals->evicted, established + flood - FLOWS_MAX);
	assert_int_equal(totals->insert_failed, 0);
	for (uint32_t i = 0; i < established; i++)
		expect_established(*state, i);
	establish(*state, 200000); /* and a real client gets in amid the flood */
}

/* Full of established flows: a new one is dropped and counted, the old ones go on. */
static void test_full_of_established(void **state)
{
	struct packet_spec s = tcp4(CLIENT_PORT, 8080, S);
	struct cpu_counters before;
	struct world *w = *state;
	struct outcome out;

	for (uint32_t i = 0; i < FLOWS_MAX; i++)
		establish(w, i);
	world_counters(w, &before);
	run(w, ORACLE_IN, &s, &out);
	assert_int_equal(out.verdict, TC_ACT_SHOT);
	assert_reason(w, &before, REASON_TABLE_FULL, "SYN to a full table");
	assert_int_equal(datapath_totals(w->datapath)->insert_failed, 1);
	for (uint32_t i = 0; i < FLOWS_MAX; i++)
		expect_established(w, i);
}

/* ---- source ports ---- */

#define SOURCE_PORTS (65536 - 1024) /* that clients above 1023 may get */

static const char *const snat_texts[] = {"tcp *:8080 to 10.9.9.9:80 snat 192.0.2.77", NULL};

/* A table in which source ports run out long before records do. */
static int make_snat_world(void **state)
{
	*state = world_new(snat_texts, 4 * SOURCE_PORTS);
	return 0;
}

static void run_outside(struct world *w, const struct packet_spec *spec, struct outcome *out)
{
	struct __sk_buff context = {.ifindex = w->interface};
	struct packet in;

	packet_build(spec, &in);
	world_run(w, PROGRAM_IN, &context, in.data, in.length, out);
}

/* Every source port towards the target is some half-open connection's: they make room there too. */
static void test_flood_of_source_ports(void **state)
{
	const struct flow_totals *totals = datapath_totals(((struct world *)*state)->datapath);
	struct packet_spec s = tcp4(CLIENT_PORT, 8080, S);
	char address[INET_ADDRSTRLEN];
	struct outcome out;

	s.source = address;
	for (uint32_t i = 0; i < 2 * SOURCE_PORTS; i++) {
		client_address(100000 + i, address);
		run_outside(*state, &s, &out);
		assert_int_equal((int)out.verdict, TC_ACT_UNSPEC);
	}
	assert_int_equal(totals->insert_failed, 0);
	assert_in_range(totals->created - totals->destroyed, 1, SOURCE_PORTS);
}

/*
 * A table full of flows with four entries each, of a size for which the index is as small as it
 * gets: hardly a bucket is full.
 */
#define FLOWS_UNLUCKY 16382 /* just below a power of two */

static int make_unlucky_world(void **state)
{
	*state = world_new(snat_texts, FLOWS_UNLUCKY);
	return 0;
}

static void test_index_has_room(void **state)
{
	struct packet_spec s = tcp4(CLIENT_PORT, 8080, S);
	char address[INET_ADDRSTRLEN];
	struct cpu_counters counts;
	struct outcome out;

	s.source = address;
	for (uint32_t i = 0; i < FLOWS_UNLUCKY; i++) {
		client_address(100000 + i, address);
		run_outside(*state, &s, &out);
	}
	world_counters(*state, &counts);
	assert_in_range(counts.reasons[REASON_INDEX_FULL], 0, 10);
}

/* ---- time ---- */

#define TICKS_SHORT 2

static void wait_for_expiry(struct world *w, enum flow_state s)
{
	uint32_t start = datapath_ticks(w->datapath);

	datapath_config(w->datapath)->timeouts[s] = TICKS_SHORT;
	while (datapath_ticks(w->datapath) - start < TICKS_SHORT + 2)
		usleep(1000);
}

/* An expired flow is dead although nobody swept it: replies are not translated any more. */
static void test_expired_reply(void **state)
{
	struct packet_spec client = udp4(CLIENT_PORT, 5300), server = answer(client, 53);
	struct cpu_counters before;
	struct world *w = *state;

	expect(w, ORACLE_IN, &client, CLIENT_PORT, 53);
	wait_for_expiry(w, FLOW_UDP_UNREPLIED);
	world_counters(w, &before);
	expect(w, ORACLE_OUT, &server, 53, CLIENT_PORT);
	assert_reason(w, &before, REASON_UNRELATED, "reply of an expired flow");
	assert_null(find(w, &client));
	assert_int_equal(datapath_totals(w->datapath)->expired, 1);
}

static void test_expired_original(void **state)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, S);
	struct world *w = *state;

	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	wait_for_expiry(w, FLOW_SYN_SENT);
	datapath_config(w->datapath)->timeouts[FLOW_SYN_SENT] = 10000;
	client.tcp_flags = A;
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	assert_int_equal(find(w, &client)->state, FLOW_SYN_SENT);
	datapath_config(w->datapath)->timeouts[FLOW_SYN_SENT] = TICKS_SHORT;
	wait_for_expiry(w, FLOW_SYN_SENT);
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	assert_int_equal(find(w, &client)->state, FLOW_ESTABLISHED); /* a new one, in the middle */
	assert_int_equal(datapath_totals(w->datapath)->created, 2);
}

/* The sweep frees what is expired, and nothing that changed hands or was revived. */
static void test_sweep(void **state)
{
	struct packet_spec client = udp4(CLIENT_PORT, 5300);
	struct world *w = *state;
	struct sweep_item item = {.reason = DESTROY_EXPIRED};
	const struct flow *f;
	uint32_t n;

	expect(w, ORACLE_IN, &client, CLIENT_PORT, 53);
	f = find(w, &client);
	assert_non_null(f);
	item.record = (uint32_t)(f - datapath_flows(w->datapath, &n));
	item.seq = f->seq;
	assert_int_equal(datapath_sweep(w->datapath, &item, 1), 0);
	wait_for_expiry(w, FLOW_UDP_UNREPLIED);
	item.seq++;
	assert_int_equal(datapath_sweep(w->datapath, &item, 1), 0);
	item.seq--;
	assert_int_equal(datapath_sweep(w->datapath, &item, 1), 1);
	assert_null(find(w, &client));
	assert_int_equal(datapath_sweep(w->datapath, &item, 1), 0);
	assert_int_equal(datapath_totals(w->datapath)->expired, 1);
}

/* On request living flows end too: those that were looked at, and no others. */
static void test_sweep_request(void **state)
{
	struct packet_spec client = tcp4(CLIENT_PORT, 8080, S), server = answer(client, 80);
	struct sweep_item items[2 * SWEEP_BATCH] = {{.record = 0}};
	struct world *w = *state;
	const struct flow *flows;
	size_t n_items = 0;
	uint32_t n;

	flows = datapath_flows(w->datapath, &n);
	for (uint32_t i = 0; i < 150; i++)
		establish(w, i);
	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE)
			items[n_items++] = (struct sweep_item){
				.record = i, .seq = flows[i].seq, .reason = DESTROY_REQUEST};
	assert_int_equal(n_items, 150);
	items[0].seq++;			   /* of another flow */
	items[1].seq |= FLOW_OWNED;	   /* in the making */
	items[2].reason = DESTROY_EXPIRED; /* which it is not */
	assert_int_equal(datapath_sweep(w->datapath, items, n_items), 147);
	for (size_t i = 0; i < n_items; i++) {
		assert_int_equal(items[i].freed, i > 2);
		assert_int_equal(flows[items[i].record].state == FLOW_FREE, i > 2);
	}
	assert_int_equal(datapath_totals(w->datapath)->destroyed, 147);
	assert_int_equal(datapath_totals(w->datapath)->expired, 0);
	/* Once more frees nothing, and a new flow of the same tuple is another one. */
	assert_int_equal(datapath_sweep(w->datapath, items + 3, 1), 0);
	assert_false(items[3].freed);
	expect(w, ORACLE_IN, &client, CLIENT_PORT, 80);
	expect(w, ORACLE_OUT, &server, 8080, CLIENT_PORT);
}

/* ---- rules change ---- */

/* TCP keeps its translation, UDP follows the rules, new flows do as well. */
static void test_rules_replaced(void **state)
{
	static const char *const others[] = {"tcp *:8080 to 81", "udp *:5300 to 54", NULL};
	struct packet_spec tcp = tcp4(CLIENT_PORT, 8080, S), udp = udp4(CLIENT_PORT, 5300);
	struct packet_spec tcp_reply = answer(tcp, 80);

	expect(*state, ORACLE_IN, &tcp, CLIENT_PORT, 80);
	expect(*state, ORACLE_IN, &udp, CLIENT_PORT, 53);
	world_apply(*state, others);
	tcp.tcp_flags = A;
	expect(*state, ORACLE_OUT, &tcp_reply, 8080, CLIENT_PORT);
	expect(*state, ORACLE_IN, &tcp, CLIENT_PORT, 80);
	expect(*state, ORACLE_IN, &udp, CLIENT_PORT, 54);
	udp.sport = tcp.sport = CLIENT_PORT + 1;
	tcp.tcp_flags = S;
	expect(*state, ORACLE_IN, &tcp, CLIENT_PORT + 1, 81);
	expect(*state, ORACLE_IN, &udp, CLIENT_PORT + 1, 54);
}

/* The rule is gone: its TCP flows live on in both directions, and no new one begins. */
static void test_rules_removed(void **state)
{
	static const char *const none[] = {NULL};
	struct packet_spec tcp = tcp4(CLIENT_PORT, 8080, S), udp = udp4(CLIENT_PORT, 5300);
	struct packet_spec tcp_reply = answer(tcp, 80);

	expect(*state, ORACLE_IN, &tcp, CLIENT_PORT, 80);
	expect(*state, ORACLE_IN, &udp, CLIENT_PORT, 53);
	world_apply(*state, none);
	expect(*state, ORACLE_OUT, &tcp_reply, 8080, CLIENT_PORT);
	tcp.tcp_flags = A;
	expect(*state, ORACLE_IN, &tcp, CLIENT_PORT, 80);
	expect(*state, ORACLE_IN, &udp, CLIENT_PORT, 5300);
	tcp.sport++;
	tcp.tcp_flags = S;
	expect(*state, ORACLE_IN, &tcp, tcp.sport, 8080);
}

/*
 * What goes to this host itself has no other source, whatever the rule says of sources: such words
 * come, go and change without ending anything.
 */
static void test_source_of_local_target(void **state)
{
	static const char *const words[] = {"masquerade name web", "masquerade", "snat 192.0.2.9",
					    "snat 192.0.2.8",	   "",		 "masquerade"};
	struct packet_spec tcp = tcp4(CLIENT_PORT, 8080, S), udp = udp4(CLIENT_PORT, 8080);
	struct cpu_counters before, after;
	struct world *w = *state;
	struct packet first;

	world_add_local(w, SERVER4);
	packet_build(&udp, &first);
	expect(w, ORACLE_IN, &tcp, CLIENT_PORT, 80);
	expect(w, ORACLE_IN, &udp, CLIENT_PORT, 80);
	world_counters(w, &before);
	tcp.tcp_flags = A;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		char rule[128];
		struct world_change change = {.id = 1, .rule = rule};

		snprintf(rule, sizeof(rule), "tcp+udp *:8080 to 80 on-change reset %s", words[i]);
		world_change(w, &change, 1);
		expect(w, ORACLE_IN, &tcp, CLIENT_PORT, 80);
		expect(w, ORACLE_IN, &udp, CLIENT_PORT, 80);
		assert_int_equal(world_find_flow(w, &first)->original.packets, 2 + i);
	}
	world_counters(w, &after);
	assert_int_equal(after.reasons[REASON_RESET], before.reasons[REASON_RESET]);
}

static int make_masquerading_world(void **state)
{
	static const char *const rules[] = {"tcp+udp *:8080 to 80 masquerade on-change reset",
					    NULL};

	*state = world_new(rules, FLOWS_MAX);
	return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_world, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_states),
		TEST(test_reopen),
		TEST(test_no_reopen_by_syn_fin),
		TEST(test_udp_states),
		TEST(test_counters),
		TEST(test_gso_counters),
		TEST(test_rule_counters),
		TEST(test_colliding_replies),
		TEST(test_full_bucket),
		TEST(test_room_is_used),
		TEST(test_flood),
		TEST(test_full_of_established),
		cmocka_unit_test_setup_teardown(test_flood_of_source_ports, make_snat_world,
						world_teardown),
		cmocka_unit_test_setup_teardown(test_index_has_room, make_unlucky_world,
						world_teardown),
		TEST(test_expired_reply),
		TEST(test_expired_original),
		TEST(test_sweep),
		TEST(test_sweep_request),
		TEST(test_rules_replaced),
		TEST(test_rules_removed),
		cmocka_unit_test_setup_teardown(test_source_of_local_target,
						make_masquerading_world, world_teardown),
	};
	int skip = world_skip_code();

	if (skip)
		return skip;
	return cmocka_run_group_tests_name("flows", tests, NULL, NULL);
}
