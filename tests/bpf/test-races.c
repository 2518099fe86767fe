/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two processors at one flow, or at the rules. Which of the two is first is left to chance, a few
 * thousand times; whatever comes of it has to be what one of the two orders makes.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/world.h"

#define FLOWS_MAX 4096
#define ROUNDS	  20000
#define SPINS	  4000

#define S TCP_FLAG_SYN
#define A TCP_FLAG_ACK
#define F TCP_FLAG_FIN

static const char *const rule_texts[] = {
	"tcp *:8080 to 80 name web",
	"udp *:5300 to 53 name dns",
	NULL,
};

static int make_world(void **state)
{
	*state = world_new(rule_texts, FLOWS_MAX);
	return 0;
}

/* One packet through one program; from any thread. */
struct shot {
	int program;
	struct packet packet;
};

static int fire(const struct shot *s)
{
	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = s->packet.data,
				  .data_size_in = (uint32_t)s->packet.length, .repeat = 1);

	return bpf_prog_test_run_opts(s->program, &opts) < 0 ? errno : 0;
}

static struct shot shot_of(struct world *w, enum datapath_program program,
			   const struct packet_spec *spec)
{
	struct shot s = {.program = datapath_program_fd(w->datapath, program)};

	packet_build(spec, &s.packet);
	return s;
}

static void send_from(struct world *w, enum datapath_program program, struct packet_spec spec,
		      uint8_t flags)
{
	struct shot s;

	spec.tcp_flags = flags;
	s = shot_of(w, program, &spec);
	assert_int_equal(fire(&s), 0);
}

/* Waits closely, but not for a thread that has no processor. */
static void pause_a_while(unsigned *turns)
{
	if (++*turns % SPINS == 0)
		sched_yield();
}

/* The other processor: fires its shot whenever `round` moves on. */
struct other {
	struct shot shot;
	atomic_uint round, done;
	atomic_bool ended;
	int error;
};

static void *other_main(void *argument)
{
	struct other *o = argument;
	unsigned turns = 0;

	for (unsigned last = 0; !atomic_load(&o->ended);) {
		unsigned round = atomic_load(&o->round);

		if (round == last) {
			pause_a_while(&turns);
			continue;
		}
		o->error |= fire(&o->shot);
		last = round;
		atomic_store(&o->done, round);
	}
	return NULL;
}

static void fire_both(struct other *o, const struct shot *mine)
{
	unsigned round = atomic_load(&o->round) + 1, turns = 0;

	atomic_store(&o->round, round);
	assert_int_equal(fire(mine), 0);
	while (atomic_load(&o->done) != round)
		pause_a_while(&turns);
	assert_int_equal(o->error, 0);
}

/*
 * A server's acknowledgement of the client's FIN and its own FIN, a moment apart: whichever comes
 * first, both have closed.
 */
static void test_two_packets_of_an_end(void **state)
{
	static struct other o;
	struct world *w = *state;
	unsigned wrong = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, other_main, &o), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct packet_spec client = tcp4((uint16_t)(1024 + i), 8080, S);
		struct packet_spec server = answer(client, 80);
		const struct flow *f;
		struct packet first;
		struct shot mine;

		packet_build(&client, &first);
		send_from(w, PROGRAM_IN, client, S);
		send_from(w, PROGRAM_OUT, server, S | A);
		send_from(w, PROGRAM_IN, client, A);
		send_from(w, PROGRAM_IN, client, F | A);
		server.tcp_flags = A;
		o.shot = shot_of(w, PROGRAM_OUT, &server);
		server.tcp_flags = F | A;
		mine = shot_of(w, PROGRAM_OUT, &server);
		fire_both(&o, &mine);
		f = world_find_flow(w, &first);
		assert_non_null(f);
		wrong += f->state != FLOW_LAST_ACK && f->state != FLOW_TIME_WAIT;
		send_from(w, PROGRAM_IN, client, TCP_FLAG_RST); /* room for the next ones */
	}
	atomic_store(&o.ended, true);
	pthread_join(thread, NULL);
	assert_int_equal(wrong, 0);
}

/* ---- the sweep beside packets ---- */

#define SWEPT_FLOWS  64
#define SWEPT_TICKS  1
#define SWEPT_ROUNDS 40

struct sweeper {
	struct world *world;
	atomic_bool ended;
	unsigned freed;
	int error;
};

/* All that is there, expired or not, with the numbers that the records have then. */
static void *sweeper_main(void *argument)
{
	struct sweeper *s = argument;
	uint32_t n;
	const struct flow *flows = datapath_flows(s->world->datapath, &n);

	while (!atomic_load(&s->ended)) {
		struct sweep_item items[SWEEP_BATCH];
		size_t found = 0;
		int r;

		for (uint32_t i = 1; i < n && found < SWEEP_BATCH; i++)
			if (flows[i].state != FLOW_FREE)
				items[found++] = (struct sweep_item){.record = i,
								     .seq = flows[i].seq,
								     .reason = DESTROY_EXPIRED};
		r = found ? datapath_sweep(s->world->datapath, items, found) : 0;
		if (r < 0)
			s->error = r;
		else
			s->freed += (unsigned)r;
	}
	return NULL;
}

/* Packets of the rule, dead and alive. */
static uint64_t counted_packets(struct world *w, uint32_t rule)
{
	uint64_t sum = datapath_rule_counters(w->datapath)[rule].packets;
	uint32_t n;
	const struct flow *flows = datapath_flows(w->datapath, &n);

	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE && flows[i].rule == rule)
			sum += flows[i].original.packets + flows[i].reply.packets;
	return sum;
}

/*
 * Flows that live a tick, packets that come about when they end, and a sweep that never rests:
 * nothing that a packet has revived or made anew is freed, so none of them is missing in the end.
 */
static void test_sweep_beside_packets(void **state)
{
	struct world *w = *state;
	struct sweeper s = {.world = w};
	struct shot shots[SWEPT_FLOWS];
	unsigned sent = 0, rule = 0, longest;
	pthread_t thread;

	datapath_config(w->datapath)->timeouts[FLOW_UDP_UNREPLIED] = SWEPT_TICKS;
	/* In µs: until the sweep may have taken all of them. Ticks are as long as the kernel's HZ
	 * has it. */
	longest = 1000 * (unsigned)datapath_ticks_to_ms(w->datapath, SWEPT_TICKS + 4);
	for (unsigned i = 0; i < SWEPT_FLOWS; i++) {
		struct packet_spec client = udp4((uint16_t)(CLIENT_PORT + i), 5300);

		shots[i] = shot_of(w, PROGRAM_IN, &client);
	}
	assert_int_equal(pthread_create(&thread, NULL, sweeper_main, &s), 0);
	for (unsigned round = 0; round < SWEPT_ROUNDS; round++) {
		for (unsigned i = 0; i < 10 * SWEPT_FLOWS; i++, sent++)
			assert_int_equal(fire(&shots[i % SWEPT_FLOWS]), 0);
		usleep((useconds_t)random() % longest);
	}
	atomic_store(&s.ended, true);
	pthread_join(thread, NULL);
	assert_int_equal(s.error, 0);
	assert_true(s.freed > 0);
	for (uint32_t id = 1; id <= 2; id++)
		if (datapath_rule_counters(w->datapath)[id].created)
			rule = id;
	assert_int_equal(counted_packets(w, rule), sent);
}

/* ---- rules that change while packets look for theirs ---- */

#define CHANGES 10000

/* Of shapes that the port has anyhow, so that one rule comes and one leaves within its chain. */
static const char *const one_place[] = {"udp *:1000 to 70 from 10.0.0.1",
					"udp *:1000 to 80 from 10.7.0.1",
					"udp *:1000 to 80 from 10.7.0.0/24", NULL};
static const char *const other_place[] = {"udp *:1000 to 71 from 10.0.0.0/24",
					  "udp *:1000 to 80 from 10.7.0.1",
					  "udp *:1000 to 80 from 10.7.0.0/24", NULL};

struct asker {
	struct shot shot;
	size_t sport; /* where it is in the packet */
	atomic_bool ended;
	unsigned asked, lost;
	int error;
};

/* First packets only, each of a client port that has no flow any more. */
static void *asker_main(void *argument)
{
	struct asker *a = argument;
	uint8_t out[256], *ports = a->shot.packet.data + a->sport;

	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = a->shot.packet.data,
				  .data_size_in = (uint32_t)a->shot.packet.length, .data_out = out,
				  .repeat = 1);

	while (!atomic_load(&a->ended)) {
		uint16_t sport = (uint16_t)(1024 + a->asked++ % 60000), went;

		ports[0] = (uint8_t)(sport >> 8);
		ports[1] = (uint8_t)sport;
		opts.data_size_out = sizeof(out);
		if (bpf_prog_test_run_opts(a->shot.program, &opts) < 0)
			a->error = errno;
		went = read_be16(out + a->sport + 2);
		a->lost += went != 70 && went != 71;
	}
	return NULL;
}

/* A rule moves to another place: each packet finds it at one or the other. */
static void test_rules_that_move(void **state)
{
	struct world *w = *state;
	struct packet_spec client = {.source = "10.0.0.1",
				     .destination = SERVER4,
				     .protocol = IPPROTO_UDP,
				     .sport = CLIENT_PORT,
				     .dport = 1000};
	struct asker a = {.shot = shot_of(w, PROGRAM_IN, &client)};
	pthread_t thread;

	a.sport = a.shot.packet.l4;
	datapath_config(w->datapath)->timeouts[FLOW_UDP_UNREPLIED] = 1;
	world_apply(w, one_place);
	assert_int_equal(pthread_create(&thread, NULL, asker_main, &a), 0);
	for (unsigned i = 0; i < CHANGES; i++)
		world_apply(w, i % 2 ? one_place : other_place);
	atomic_store(&a.ended, true);
	pthread_join(thread, NULL);
	print_message("%u packets, %d changes\n", a.asked, CHANGES);
	assert_int_equal(a.error, 0);
	assert_true(a.asked > CHANGES);
	assert_int_equal(a.lost, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_world, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_two_packets_of_an_end),
		TEST(test_sweep_beside_packets),
		TEST(test_rules_that_move),
	};
	int skip = world_skip_code();

	if (skip)
		return skip;
	return cmocka_run_group_tests_name("races", tests, NULL, NULL);
}
