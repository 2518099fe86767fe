/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a change of flows-max costs: how long each step takes with a million flows, and what a
 * packet of a flow takes before, meanwhile and after, in the old table and in the new one.
 *
 *   bench-resize [FLOWS]
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/pkt_cls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/flows.h"
#include "tests/bpf/cases.h"
#include "tests/bpf/world.h"

#define FLOWS_DEFAULT 1000000
#define RUNS	      40000

static const char *const rules[] = {"udp *:1-20000 to 30001-50000 name all", NULL};

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* A packet of the n-th flow. */
static void build(uint32_t n, struct packet *ret)
{
	struct packet_spec s = udp4((uint16_t)(1 + n % 60000), (uint16_t)(1 + n / 60000));

	packet_build(&s, ret);
}

static void fill(struct world *w, uint32_t n)
{
	int fd = datapath_program_fd(w->datapath, PROGRAM_IN);
	struct packet packet;

	for (uint32_t i = 0; i < n; i++) {
		__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet.data,
					  .repeat = 1);

		build(i, &packet);
		opts.data_size_in = (uint32_t)packet.length;
		if (bpf_prog_test_run_opts(fd, &opts) < 0)
			fail_msg("packet %u: %s", i, strerror(errno));
	}
	assert_int_equal(flows_count(w->datapath), n);
}

static int compare(const void *a, const void *b)
{
	return *(const uint32_t *)a > *(const uint32_t *)b ? 1 : -1;
}

/* The median of single runs of a program; a packet is another one after each. */
static uint32_t median_ns(int fd, uint32_t n_flows)
{
	static uint32_t all[RUNS];
	struct packet packet;
	uint32_t n = 0;

	for (int i = 0; i < RUNS; i++) {
		__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet.data,
					  .repeat = 1);

		n = (uint32_t)(((uint64_t)n + 618034) % n_flows); /* scattered */
		build(n, &packet);
		opts.data_size_in = (uint32_t)packet.length;
		if (bpf_prog_test_run_opts(fd, &opts) < 0)
			fail_msg("%s", strerror(errno));
		all[i] = opts.duration;
	}
	qsort(all, RUNS, sizeof(all[0]), compare);
	return all[RUNS / 2];
}

/* What a packet takes, of flows all over the table, without what starting a program takes. */
static uint32_t packet_ns(struct world *w, uint32_t n_flows)
{
	return median_ns(datapath_program_fd(w->datapath, PROGRAM_IN), n_flows) -
	       median_ns(datapath_program_fd(w->datapath, PROGRAM_CLOCK), n_flows);
}

static void wait_loaded(struct world *w)
{
	int r;

	while ((r = datapath_resize_loaded(w->datapath)) == -EAGAIN)
		usleep(1000);
	assert_int_equal(r, 0);
}

/* Turns as the daemon's; the longest is what its clients may have to wait. */
static void run_phase(struct world *w, const char *what)
{
	double began = now_ms(), longest = 0, turn;
	uint32_t cursor = 0, before, left, n;

	n = datapath_resize_left(w->datapath);
	do {
		before = cursor;
		turn = now_ms();
		assert_true(datapath_resize_step(w->datapath, &cursor, 8192) >= 0);
		turn = now_ms() - turn;
		longest = turn > longest ? turn : longest;
	} while (cursor != before);
	left = datapath_resize_left(w->datapath);
	printf("%-34s %8.0f ms, %.0f ns a flow; the longest turn %.1f ms; %u left\n", what,
	       now_ms() - began, (now_ms() - began) * 1e6 / n, longest, left);
}

static void bench(struct world *w, uint32_t n)
{
	double began;

	began = now_ms();
	assert_int_equal(datapath_resize_begin(w->datapath, 2 * n), 0);
	wait_loaded(w);
	printf("%-34s %8.0f ms (in a thread)\n", "programs of two tables loaded", now_ms() - began);
	printf("%-34s %8u ns\n", "a packet, before flows move", packet_ns(w, n));
	began = now_ms();
	assert_int_equal(datapath_resize_open(w->datapath), 0);
	printf("%-34s %8.0f ms\n", "grace period", now_ms() - began);
	printf("%-34s %8u ns\n", "a packet, its flow not yet moved", packet_ns(w, n));
	run_phase(w, "flows moved");
	printf("%-34s %8u ns\n", "a packet, its flow moved", packet_ns(w, n));
	began = now_ms();
	assert_int_equal(datapath_resize_merge(w->datapath), 0);
	printf("%-34s %8.0f ms\n", "grace periods", now_ms() - began);
	run_phase(w, "old records ended");
	printf("%-34s %8u ns\n", "a packet, the old table empty", packet_ns(w, n));
	began = now_ms();
	assert_int_equal(datapath_resize_load(w->datapath), 0);
	wait_loaded(w);
	printf("%-34s %8.0f ms (in a thread)\n", "ordinary programs loaded", now_ms() - began);
	began = now_ms();
	assert_int_equal(datapath_resize_end(w->datapath), 0);
	printf("%-34s %8.0f ms\n", "the old table given up", now_ms() - began);
	printf("%-34s %8u ns\n", "a packet, afterwards", packet_ns(w, n));
	assert_int_equal(flows_count(w->datapath), n);
}

static uint32_t flows;

static void test_resize(void **state)
{
	struct world *w = world_new(rules, flows + flows / 8);

	fill(w, flows);
	printf("%u flows to a table for %u\n", flows, 2 * flows);
	printf("%-34s %8u ns\n", "a packet, ordinary programs", packet_ns(w, flows));
	bench(w, flows);
	world_free(w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_resize)};
	int skip = world_skip_code();

	if (skip)
		return skip;
	flows = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : FLOWS_DEFAULT;
	return cmocka_run_group_tests_name("bench-resize", tests, NULL, NULL);
}
