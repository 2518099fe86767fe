/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A datapath to throw packets at: the real programs in a network namespace and a pin folder of
 * their own, with rules given as text, attached to nothing. Gone without a trace afterwards.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/datapath.h"
#include "shared/abi.h"
#include "tests/bpf/oracle.h"
#include "tests/bpf/packet.h"

struct apply;
struct ruleset;

struct world {
	struct datapath *datapath;
	struct apply *apply;
	struct ruleset *rules; /* in force */
	uint32_t last_id;
	struct oracle oracle; /* for the test to give rules to: oracle_init() */
	int interface_fd;
	uint32_t interface; /* index of a second interface, besides lo */
	char pin_path[64];
};

/* 0, or the exit code of a skipped test with the reason printed: loading programs needs root. */
int world_skip_code(void);

/* Makes it; fails the test with what went wrong. `rules` ends with NULL. */
struct world *world_new(const char *const *rules, uint32_t flows_max);
void world_free(struct world *w);
/* For cmocka: frees the world that is the test's state. */
int world_teardown(void **state);

/* Other rules in place of the former; their flows stay. */
void world_apply(struct world *w, const char *const *rules);
/* The same, where it may be refused: what apply_rules() returns. */
int world_try_apply(struct world *w, const char *const *rules, struct diag *diag);

/* A rule that becomes another one, or NULL: is removed. Id 0: a new one, which gets the next id. */
struct world_change {
	uint32_t id; /* world_apply() counts from 1 */
	const char *rule;
};
/* Changes of rules in one step, as redirectctl makes them: flows are held against the rules. */
void world_change(struct world *w, const struct world_change *changes, size_t n);
/* What a change has left over is reclaimed, which the daemon does some seconds later. */
void world_settle(struct world *w);

/* An address of this host, for rules without a listen address. */
void world_add_local(struct world *w, const char *address);
void world_add_local_prefix(struct world *w, const struct oracle_prefix *p);
/* What packets are masqueraded as. */
void world_add_source(struct world *w, const struct oracle_source *s);
/* Runs `ip ARGUMENTS` in the world's network namespace. */
void world_ip(const char *arguments);
/* The world forwards packets of both families. */
void world_forward(void);

/* What came out of a program. */
struct outcome {
	uint8_t data[PACKET_MAX];
	size_t length;
	uint32_t verdict; /* TC_ACT_* */
};

/* Runs a program once. `context` may be NULL: lo, no GSO. */
void world_run(struct world *w, enum datapath_program program, const struct __sk_buff *context,
	       const void *data, size_t length, struct outcome *ret);

/* Runs the hook's program and the oracle on the same bytes, and fails where they differ. */
bool world_compare(struct world *w, enum oracle_hook hook, const void *data, size_t length,
		   struct outcome *ret);

/* Fails the test, with both in hexadecimal, unless the bytes are equal. */
void assert_bytes(const char *what, const uint8_t *got, size_t got_length, const uint8_t *expected,
		  size_t expected_length);

/* The record of a flow by its original tuple (addresses as in the packet), or NULL. */
const struct flow *world_find_flow(struct world *w, const struct packet *first);

const struct flow *world_find_tuple(struct world *w, const struct oracle_tuple *original);
/* A direction of a flow, as packets have it. */
struct oracle_tuple world_tuple(const struct flow *f, const struct flow_dir *d);

void world_counters(struct world *w, struct cpu_counters *ret);
/* Fails unless exactly this reason was counted, once, since `before`. */
void assert_reason(struct world *w, const struct cpu_counters *before, enum packet_reason reason,
		   const char *what);
