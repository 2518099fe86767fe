/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flows that move to a table of another size: step by step with packets in between, under packets
 * of another thread, and taken over by the next daemon after each step.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/pkt_cls.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/apply.h"
#include "daemon/flows.h"
#include "shared/diag.h"
#include "tests/bpf/cases.h"
#include "tests/bpf/world.h"

#define FLOWS_MAX  256
#define FLOWS_MORE 4096
#define N_FLOWS	   200

/* Both families, two entries a flow and four. */
static const char *const rule_texts[] = {
	"tcp *:8080 to 80 name web",
	"udp *:5300 to 53 name dns",
	"udp *:5301 to 192.0.2.99:54 snat 192.0.2.50",
	"udp [2001:db8::]/32:5302 to [2001:db8::99]:54 snat 2001:db8::50",
	NULL,
};

static int make_world(void **state)
{
	*state = world_new(rule_texts, FLOWS_MAX);
	return 0;
}

/* ---- flows, and packets of them ---- */

struct flow_kind {
	uint16_t listen, target;
	uint8_t protocol;
	bool ipv6;
	const char *server, *source; /* with snat: where it goes, as what */
};

static const struct flow_kind kinds[] = {
	{8080, 80, IPPROTO_TCP, false, NULL, NULL},
	{5300, 53, IPPROTO_UDP, true, NULL, NULL},
	{5301, 54, IPPROTO_UDP, false, "192.0.2.99", "192.0.2.50"},
	{5302, 54, IPPROTO_UDP, true, "2001:db8::99", "2001:db8::50"},
	{5300, 53, IPPROTO_UDP, false, NULL, NULL},
};

static uint16_t nth_port(unsigned n)
{
	return (uint16_t)(20000 + n);
}

static const struct flow_kind *nth_kind(unsigned n)
{
	return &kinds[n % ARRAY_SIZE(kinds)];
}

/* A packet of the n-th flow, of either direction, where it comes to be counted. */
static void build(unsigned n, bool reply, struct packet *ret, enum datapath_program *ret_program)
{
	const struct flow_kind *k = nth_kind(n);
	struct packet_spec s = {
		.source = k->ipv6 ? CLIENT6 : CLIENT4,
		.destination = k->ipv6 ? SERVER6 : SERVER4,
		.protocol = k->protocol,
		.sport = nth_port(n),
		.dport = k->listen,
		.tcp_flags = TCP_FLAG_ACK,
		.payload_length = 20,
	};

	if (reply) {
		s = answer(s, k->target);
		if (k->server) {
			s.source = k->server;
			s.destination = k->source;
		}
	}
	packet_build(&s, ret);
	*ret_program = reply && !k->server ? PROGRAM_OUT : PROGRAM_IN;
}

static bool is_translated(unsigned n, bool reply, const uint8_t *data, size_t length)
{
	const struct flow_kind *k = nth_kind(n);
	struct oracle_packet p;
	struct oracle_tuple t;
	uint8_t client[16];

	oracle_parse(data, length, true, &p);
	if (p.class != ORACLE_TRANSLATABLE || !oracle_l4_checksum_holds(data, &p))
		return false;
	if (!reply)
		return p.sport == nth_port(n) && p.dport == k->target;
	if (!k->server)
		return p.sport == k->listen && p.dport == nth_port(n);
	/* Its ports change as it leaves. */
	t = oracle_tuple_of(&p);
	inet_pton(k->ipv6 ? AF_INET6 : AF_INET, k->ipv6 ? CLIENT6 : CLIENT4, client);
	return memcmp(t.destination, client, k->ipv6 ? 16 : 4) == 0;
}

/* What was sent of each flow, in both directions. */
static unsigned sent[N_FLOWS * 2][2];

static void send_one(struct world *w, unsigned n, bool reply)
{
	const struct __sk_buff context = {.ifindex = w->interface};
	enum datapath_program program;
	struct packet packet;
	struct outcome out;

	build(n, reply, &packet, &program);
	world_run(w, program, &context, packet.data, packet.length, &out);
	if ((int)out.verdict != TC_ACT_UNSPEC || !is_translated(n, reply, out.data, out.length))
		fail_msg("flow %u: a packet of the %s direction was not translated", n,
			 reply ? "reply" : "original");
	sent[n][reply]++;
}

/* A packet of each direction of the flows from `first` on. */
static void send_all(struct world *w, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		send_one(w, i, false);
		send_one(w, i, true);
	}
}

static const struct flow *nth_flow(struct world *w, unsigned n)
{
	enum datapath_program program;
	struct packet packet;

	build(n, false, &packet, &program);
	return world_find_flow(w, &packet);
}

/* Every flow is there once, as it was, and has counted what was sent. */
static void expect_flows(struct world *w, unsigned n)
{
	assert_int_equal(flows_count(w->datapath), n);
	for (unsigned i = 0; i < n; i++) {
		const struct flow *f = nth_flow(w, i);

		if (!f)
			fail_msg("flow %u is lost", i);
		assert_int_equal(f->original.packets, sent[i][0]);
		assert_int_equal(f->reply.packets, sent[i][1]);
		assert_int_equal(f->original.bytes % f->original.packets, 0);
	}
}

static void begin(struct world *w)
{
	memset(sent, 0, sizeof(sent));
	send_all(w, 0, N_FLOWS);
	send_all(w, 0, N_FLOWS);
	expect_flows(w, N_FLOWS);
}

/* ---- steps ---- */

/* Looks at records until the phase has nothing left to do. */
static void step_all(struct world *w)
{
	while (datapath_resize_left(w->datapath)) {
		uint32_t cursor = 0;

		assert_true(datapath_resize_step(w->datapath, &cursor, UINT32_MAX) > 0);
	}
}

static void wait_loaded(struct world *w)
{
	int r;

	while ((r = datapath_resize_loaded(w->datapath)) == -EAGAIN)
		usleep(10000);
	assert_int_equal(r, 0);
}

static void load_end(struct world *w)
{
	assert_int_equal(datapath_resize_load(w->datapath), 0);
	wait_loaded(w);
}

static void resize_begin(struct world *w, uint32_t flows_max)
{
	assert_true(datapath_resize_needed(w->datapath, flows_max));
	assert_int_equal(datapath_resize_begin(w->datapath, flows_max), 0);
	wait_loaded(w);
}

static void resize_open(struct world *w)
{
	assert_int_equal(datapath_resize_open(w->datapath), 0);
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_MOVING);
}

static void resize_merge(struct world *w)
{
	assert_int_equal(datapath_resize_merge(w->datapath), 0);
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_MERGING);
}

static void resize_end(struct world *w)
{
	load_end(w);
	assert_int_equal(datapath_resize_end(w->datapath), 0);
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_STEADY);
}

static void resize(struct world *w, uint32_t flows_max)
{
	resize_begin(w, flows_max);
	resize_open(w);
	step_all(w);
	resize_merge(w);
	step_all(w);
	resize_end(w);
	assert_false(datapath_resize_needed(w->datapath, flows_max));
}

/* ---- tests ---- */

static void test_up_and_down(void **state)
{
	struct world *w = *state;
	unsigned n = N_FLOWS;

	begin(w);
	datapath_config(w->datapath)->flows_max = FLOWS_MORE;
	for (int i = 0; i < 4; i++) {
		resize(w, i % 2 ? N_FLOWS + 100 : FLOWS_MORE);
		expect_flows(w, n);
		send_all(w, 0, n);
		send_all(w, n, 1); /* and a new one */
		n++;
		expect_flows(w, n);
	}
	assert_int_equal(datapath_totals(w->datapath)->created, n);
	assert_int_equal(datapath_totals(w->datapath)->destroyed, 0);
}

/* Packets at each step, of flows that have moved, have not, and are new. */
static void test_packets_between(void **state)
{
	struct world *w = *state;
	uint32_t cursor = 0;

	begin(w);
	datapath_config(w->datapath)->flows_max = FLOWS_MORE;
	resize_begin(w, FLOWS_MORE);
	send_all(w, 0, N_FLOWS);
	resize_open(w);
	expect_flows(w, N_FLOWS);
	send_all(w, 0, N_FLOWS + 40);
	expect_flows(w, N_FLOWS + 40);
	assert_true(datapath_resize_step(w->datapath, &cursor, FLOWS_MAX / 2) > 0);
	assert_true(datapath_resize_left(w->datapath) > 0);
	assert_int_equal(datapath_resize_merge(w->datapath), -EAGAIN);
	send_all(w, 0, N_FLOWS + 80);
	expect_flows(w, N_FLOWS + 80);
	step_all(w);
	send_all(w, 0, N_FLOWS + 120);
	resize_merge(w);
	send_all(w, 0, N_FLOWS + 120);
	step_all(w);
	expect_flows(w, N_FLOWS + 120);
	load_end(w);
	send_all(w, 0, N_FLOWS + 140);
	assert_int_equal(datapath_resize_end(w->datapath), 0);
	send_all(w, 0, N_FLOWS + 140);
	expect_flows(w, N_FLOWS + 140);
}

static void test_undo(void **state)
{
	struct world *w = *state;

	begin(w);
	resize_begin(w, FLOWS_MORE);
	send_all(w, 0, N_FLOWS);
	datapath_resize_undo(w->datapath);
	send_all(w, 0, N_FLOWS);
	datapath_drop_former(w->datapath);
	expect_flows(w, N_FLOWS);
	resize(w, FLOWS_MORE);
	expect_flows(w, N_FLOWS);
}

/* The next daemon, whatever this one was about to do. */
static void reopen(struct world *w)
{
	struct diag diag = {.n_items = 0};
	pid_t owner;

	apply_free(w->apply);
	datapath_free(w->datapath);
	w->apply = NULL;
	w->datapath = NULL;
	assert_int_equal(datapath_open(w->pin_path, FLOWS_MORE, &diag, &w->datapath, &owner), 0);
	assert_true(datapath_adopted(w->datapath));
	assert_int_equal(apply_new(w->datapath, &w->apply), 0);
	send_all(w, 0, N_FLOWS);
	expect_flows(w, N_FLOWS);
}

static void rename_new_pin(struct world *w, const char *to)
{
	char from[128], path[128];

	snprintf(from, sizeof(from), "%s/v%d/%s_new", w->pin_path, DATAPATH_VERSION, to);
	snprintf(path, sizeof(path), "%s/v%d/%s", w->pin_path, DATAPATH_VERSION, to);
	assert_int_equal(rename(from, path), 0);
}

static void test_heirs(void **state)
{
	struct world *w = *state;
	uint32_t cursor = 0;

	begin(w);
	resize_begin(w, FLOWS_MORE);
	reopen(w); /* the new table is there, and unused */
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_STEADY);
	resize_begin(w, FLOWS_MORE);
	resize_open(w);
	reopen(w);
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_MOVING);
	assert_int_equal(datapath_resize_left(w->datapath), N_FLOWS);
	assert_true(datapath_resize_step(w->datapath, &cursor, FLOWS_MAX / 2) > 0);
	reopen(w);
	assert_in_range(datapath_resize_left(w->datapath), 1, N_FLOWS - 1);
	step_all(w);
	reopen(w);
	resize_merge(w);
	cursor = 0;
	assert_true(datapath_resize_step(w->datapath, &cursor, FLOWS_MAX / 2) > 0);
	reopen(w);
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_MERGING);
	assert_in_range(datapath_resize_left(w->datapath), 1, N_FLOWS - 1);
	step_all(w);
	load_end(w);
	reopen(w);
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_MERGING);
	assert_int_equal(datapath_resize_left(w->datapath), 0);
	load_end(w);
	rename_new_pin(w, "flow_index"); /* half of the last step */
	reopen(w);
	assert_int_equal(datapath_resize_phase(w->datapath), TABLE_STEADY);
	assert_false(datapath_resize_needed(w->datapath, FLOWS_MORE));
	resize(w, FLOWS_MAX);
	expect_flows(w, N_FLOWS);
}

/* As a packet under way would: something in the n-th flow's old record. */
static uint32_t find_old(struct world *w, unsigned n, int *ret_fd, struct flow *ret)
{
	char path[128];
	uint32_t i;

	snprintf(path, sizeof(path), "%s/v%d/flows", w->pin_path, DATAPATH_VERSION);
	*ret_fd = bpf_obj_get(path);
	assert_true(*ret_fd >= 0);
	for (i = 1; bpf_map_lookup_elem(*ret_fd, &i, ret) == 0; i++)
		if (ret->state != FLOW_FREE && ntohs(ret->original.sport) == nth_port(n))
			return i;
	fail_msg("flow %u is not in the old table", n);
	return 0;
}

/* What packets counted and did in the old record, after the flow had gone from there. */
static void test_latecomers(void **state)
{
	uint64_t rule_packets, rule_bytes;
	struct sweep_item item;
	struct world *w = *state;
	const struct flow *f;
	struct flow old;
	uint32_t i, n;
	int fd;

	begin(w);
	resize_begin(w, FLOWS_MORE);
	resize_open(w);
	step_all(w);
	i = find_old(w, 0, &fd, &old);
	assert_int_equal(old.original.packets, 0); /* moved with the flow */
	old.original.packets += 3;
	old.original.bytes += 3 * 60;
	old.reply.packets += 2;
	old.reply.bytes += 2 * 60;
	old.state = FLOW_FIN_WAIT;
	old.flags |= FLOW_FIN_ORIG;
	assert_int_equal(bpf_map_update_elem(fd, &i, &old, BPF_ANY), 0);
	close(fd);
	/* Another one, whose flow ends before. */
	i = find_old(w, 1, &fd, &old);
	old.reply.packets += 5;
	old.reply.bytes += 5 * 100;
	assert_int_equal(bpf_map_update_elem(fd, &i, &old, BPF_ANY), 0);
	close(fd);
	f = nth_flow(w, 1);
	rule_packets = f->original.packets + f->reply.packets + 5;
	rule_bytes = f->original.bytes + f->reply.bytes + 5 * 100;
	datapath_config(w->datapath)->timeouts[f->state] = 1;
	usleep(1000 * (unsigned)(3 + datapath_ticks_to_ms(w->datapath, 3)));
	item.record = datapath_record(w->datapath, (uint32_t)(f - datapath_flows(w->datapath, &n)));
	item.seq = f->seq;
	assert_int_equal(datapath_sweep(w->datapath, &item, 1), 1);
	resize_merge(w);
	step_all(w);
	resize_end(w);
	f = nth_flow(w, 0);
	assert_int_equal(f->original.packets, sent[0][0] + 3);
	assert_int_equal(f->reply.packets, sent[0][1] + 2);
	assert_int_equal(f->state, FLOW_FIN_WAIT);
	assert_true(f->flags & FLOW_FIN_ORIG);
	assert_int_equal(datapath_rule_counters(w->datapath)[old.rule].packets, rule_packets);
	assert_int_equal(datapath_rule_counters(w->datapath)[old.rule].bytes, rule_bytes);
	assert_int_equal(datapath_rule_counters(w->datapath)[old.rule].destroyed, 1);
}

/* ---- with packets of another thread ---- */

#define THREAD_FLOWS 120

struct sender {
	uint32_t interface;
	_Atomic int programs[PROGRAM_COUNT]; /* as hooks have them */
	_Atomic bool ends;
	unsigned long packets, failures;
	unsigned counts[THREAD_FLOWS][2];
};

static bool send_in_thread(const struct sender *s, unsigned n, bool reply)
{
	enum datapath_program program;
	uint8_t data[PACKET_MAX];
	struct packet packet;
	struct __sk_buff context = {.ifindex = s->interface};
	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet.data, .data_out = data,
				  .data_size_out = sizeof(data), .ctx_in = &context,
				  .ctx_size_in = sizeof(context), .repeat = 1);

	build(n, reply, &packet, &program);
	opts.data_size_in = (uint32_t)packet.length;
	return bpf_prog_test_run_opts(s->programs[program], &opts) == 0 &&
	       (int)opts.retval == TC_ACT_UNSPEC &&
	       is_translated(n, reply, data, opts.data_size_out);
}

static void *send_until_end(void *userdata)
{
	struct sender *s = userdata;

	while (!s->ends)
		for (unsigned n = 0; n < THREAD_FLOWS && !s->ends; n++)
			for (int reply = 0; reply < 2; reply++) {
				s->packets++;
				if (send_in_thread(s, n, reply))
					s->counts[n][reply]++;
				else
					s->failures++;
			}
	return NULL;
}

/* What attach.c does to hooks; the former programs stay until all packets have passed them. */
static void point_hooks(struct world *w, struct sender *s)
{
	static const enum datapath_program programs[] = {PROGRAM_IN, PROGRAM_OUT};

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		int former = s->programs[programs[i]];

		s->programs[programs[i]] = dup(datapath_program_fd(w->datapath, programs[i]));
		usleep(1000); /* one hook after the other */
		if (former)
			close(former);
	}
}

static void resize_under(struct world *w, struct sender *s, uint32_t flows_max)
{
	uint32_t cursor;

	resize_begin(w, flows_max);
	point_hooks(w, s);
	resize_open(w);
	do {
		for (cursor = 0; datapath_resize_left(w->datapath);) {
			uint32_t before = cursor;

			assert_true(datapath_resize_step(w->datapath, &cursor, 16) >= 0);
			if (cursor == before)
				cursor = 0;
		}
	} while (datapath_resize_merge(w->datapath) == -EAGAIN);
	step_all(w);
	load_end(w);
	point_hooks(w, s);
	assert_int_equal(datapath_resize_end(w->datapath), 0);
}

static void test_under_packets(void **state)
{
	static struct sender sender;
	struct world *w = *state;
	pthread_t thread;

	memset(&sender, 0, sizeof(sender));
	sender.interface = w->interface;
	datapath_config(w->datapath)->flows_max = N_FLOWS;
	point_hooks(w, &sender);
	assert_int_equal(pthread_create(&thread, NULL, send_until_end, &sender), 0);
	for (int i = 0; i < 4; i++)
		resize_under(w, &sender, i % 2 ? FLOWS_MAX : FLOWS_MORE);
	sender.ends = true;
	pthread_join(thread, NULL);
	assert_int_equal(sender.failures, 0);
	assert_true(sender.packets > 4 * THREAD_FLOWS);
	for (unsigned n = 0; n < THREAD_FLOWS; n++) {
		const struct flow *f = nth_flow(w, n);

		assert_non_null(f);
		assert_int_equal(f->original.packets, sender.counts[n][0]);
		assert_int_equal(f->reply.packets, sender.counts[n][1]);
	}
	assert_int_equal(datapath_totals(w->datapath)->created, THREAD_FLOWS);
	assert_int_equal(datapath_totals(w->datapath)->destroyed, 0);
	assert_int_equal(flows_count(w->datapath), THREAD_FLOWS);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_world, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_up_and_down), TEST(test_packets_between), TEST(test_undo),
		TEST(test_heirs),	TEST(test_latecomers),	    TEST(test_under_packets),
	};
	int skip = world_skip_code();

	if (skip)
		return skip;
	return cmocka_run_group_tests_name("resize", tests, NULL, NULL);
}
