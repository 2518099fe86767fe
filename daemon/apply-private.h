/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of apply.c (transactions, what is left over), chain.c (from rules to what a port's
 * packets look up), action.c (what becomes of them) and marks.c (which packets look at all).
 */
#pragma once

#include "daemon/apply.h"
#include "shared/abi.h"

/* A rule as it was last compiled. */
struct compiled {
	uint32_t id;
	struct rule *rule;   /* a copy */
	uint32_t *ifindexes; /* sorted as named; n 0: every interface */
	size_t n_ifindexes;
	bool waits; /* names interfaces, none of which is there */
	uint32_t action;
	bool fresh; /* the action was made in this change */
};

enum garbage_kind {
	GARBAGE_SHAPE,
	GARBAGE_ACTION,
	GARBAGE_BALANCE,
	GARBAGE_MATCH,
};
struct garbage {
	enum garbage_kind kind;
	uint64_t since_ns;
	uint32_t id;
	struct match_key key;
};

/* A growing array of garbage, in the order of time. */
struct garbage_list {
	struct garbage *items;
	size_t n, allocated;
};

/* A set of ids in use, and where to look for a free one. */
enum id_use {
	ID_FREE,
	ID_USED,
	ID_LEAVING, /* in the garbage already */
};
struct id_set {
	uint8_t *used;
	uint32_t size, next;
};

struct apply {
	struct datapath *datapath;
	struct compiled *compiled; /* ordered by id */
	size_t n_compiled;
	struct id_set shapes, actions;
	struct garbage_list garbage;
	/* What the running change has written, to be taken back if it fails. */
	struct garbage_list written;
	struct garbage_list matches; /* in use now */
	uint8_t *dirty;		     /* PORT_COUNT: ports to compile anew */
	uint8_t *marked;    /* PORT_COUNT: marks that the rules ask for, the top byte of an entry */
	uint8_t *needed;    /* PORT_COUNT: and those that flows ask for, while they are looked at */
	bool fragments; /* the rules translate addresses: later fragments matter */
	bool marks_stale;   /* marks of former rules may be cleared once no flow needs them */
	uint64_t marks_since_ns;
};

uint64_t apply_now_ns(void); /* CLOCK_MONOTONIC */
int apply_garbage_add(struct garbage_list *l, enum garbage_kind kind, uint32_t id,
		      const struct match_key *key);
/* An id that is free, and used from now on; 0: none is left. */
uint32_t apply_take_id(struct id_set *s);
/* Disabled rules and those that wait for an interface take no packet. */
bool apply_rule_active(const struct compiled *c);

/*
 * Writes chains for the dirty ports of one protocol, where no packet looks yet, and their first
 * shapes into `chains`, by PORT_INDEX. Ports alike share a chain. What was written is in
 * `a->written`; on error the caller takes it back.
 */
int chain_compile_ports(struct apply *a, const struct compiled *rules, size_t n, int udp,
			uint32_t *chains, struct diag *diag);

/* Writes an action for every rule that has none yet, as chain_compile_ports() does chains. */
int action_write_all(struct apply *a, struct compiled *rules, size_t n, struct diag *diag);
/* Leaves an action, which no new packet sees any more, to be reclaimed. */
int action_leave(struct apply *a, uint32_t id);

/* Sets the marks that rules ask for, before any of their flows can need them. */
void marks_set(struct apply *a, const struct compiled *rules, size_t n);
/*
 * Clears the marks that neither a rule nor a flow needs, a while after the rules changed; then
 * again from time to time, until the flows of former rules are gone.
 */
void marks_clear(struct apply *a);
