/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A datapath to measure: loaded and given its rules by the daemon's own modules, attached to
 * nothing, in a network namespace of the benchmark's own; and the runs of packets through it, each
 * checked by the datapath's counters.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/abi.h"
#include "tests/bench/datapath.h"

#define FLOWS_LEAST   256
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* What is run: the attached programs themselves, or the bench's with another flow each time. */
enum runner {
	RUN_NOTHING,
	RUN_PACKET,
	RUN_REAL_IN,
	RUN_REAL_OUT,
	RUN_IN,
	RUN_OUT,
	RUN_UNTIL_PARSE,
	RUN_UNTIL_PORTS,
	RUN_UNTIL_FIND,
	RUN_UNTIL_ACCOUNT,
	RUN_COUNT,
};

/* Which flows the packets are of. */
enum choice {
	CHOOSE_ONE,    /* the template as it is */
	CHOOSE_LIVE,   /* of those in the table, scattered */
	CHOOSE_ABSENT, /* never seen, scattered */
	CHOOSE_FRESH,  /* new ones, one after the other */
};

/* What the counters must show afterwards, if not a packet_reason. */
enum expected {
	EXPECT_FORWARD = REASON_COUNT,
	EXPECT_CREATE,
	EXPECT_EVICT,
	EXPECT_NOTHING, /* the program counts nothing, or stops before */
};

enum part {
	PART_WHOLE,
	PART_FIRST, /* fragment */
	PART_LATER,
};

struct kind {
	const char *name;
	bool ipv6;
	uint8_t protocol;
};

/* How the packets of a flow look in a direction, at a hook. IPv6: 2001:db8::/96 before both. */
struct look {
	const struct bench_end *client, *service;
	uint16_t port; /* the service's */
	bool reply;    /* to the client */
};

struct measurement {
	const char *label;
	enum runner runner;
	enum choice choice;
	const struct look *look;
	unsigned expected; /* enum packet_reason or enum expected */
	uint8_t tcp_flags;
	uint8_t protocol; /* 0: the kind's */
	uint8_t only;	  /* kinds of this protocol, 0: of any */
	enum part part;
};

/* Rules as texts up to NULL, and n more that `text` writes; and which events somebody listens to.
 */
struct rule_set {
	const char *name;
	const char *const *texts;
	unsigned n;
	void (*text)(unsigned number, char *buffer, size_t size);
	uint32_t events; /* EVENTS_*; packets as `monitor --packets` samples them */
};

struct world;

/* Benchmarks that fail leave no pins behind: says why, closes every world, and exits. */
void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...);

/* A namespace with an interface besides lo, where packets come in. Once, first. */
void world_enter_namespace(void);

/* With room for so many live flows, and fresh ones beside them. */
struct world *world_open(const struct rule_set *rules, uint32_t flows);
void world_close(struct world *w);
uint32_t world_live(const struct world *w);
uint32_t world_room(const struct world *w); /* for flows until flows-max is reached */

/* Frees the flows, those that are not assured or all. */
void world_remove_flows(struct world *w, bool assured_too);

/* Nanoseconds a packet, of the measurement and of a program that only makes its packets. */
uint32_t world_run(struct world *w, const struct kind *kind, const struct measurement *m,
		   uint32_t repeat);
uint32_t world_run_base(struct world *w, const struct kind *kind, const struct measurement *m,
			uint32_t repeat);
