/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads the flow table of the datapath through its memory mapping: dumps, counts, sums. Never
 * writes it and never blocks a packet; a record that changes under the reader is read again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shared/abi.h"
#include "shared/addr.h"

struct datapath;

/* One direction, as its packets look before translation. */
struct flow_tuple {
	struct ip_prefix src, dst; /* whole addresses */
	uint16_t sport, dport;	   /* host order */
	uint64_t packets, bytes;   /* bytes of IP length */
};

struct flow_view {
	uint32_t rule;	  /* id */
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	enum flow_state state;
	bool assured;
	bool replied;	  /* a packet came back */
	uint32_t ifindex; /* where the first packet came in */
	uint64_t age_ms, expires_ms;
	struct flow_tuple original, reply;
};

/* What a rule's flows add up to, dead and alive, both directions; how many its limits refused. */
struct flow_sums {
	uint64_t packets, bytes, flows, active, refused;
	uint64_t unassured; /* of the active ones: these make room for others */
};

/* The same of the targets of rules that have had several. All zero at first. */
struct flow_target_sums {
	uint32_t *blocks;	/* RULE_COUNT: 1 + the number of its block; 0: none */
	struct flow_sums *sums; /* BALANCE_TARGETS a block, by the target's number; do not fall */
	struct flow_sums *scratch;
	size_t n;
};
void flow_target_sums_clear(struct flow_target_sums *t);
/* The id is another rule's now. */
void flow_target_sums_forget(struct flow_target_sums *t, uint32_t rule);
/* NULL: the rule has had one target only, whose sums are the rule's. */
const struct flow_sums *flow_target_sums_find(const struct flow_target_sums *t, uint32_t rule,
					      uint32_t number);

/*
 * A walk over the table, from `cursor` 0 on. The rest is as it is during one turn of the event
 * loop: flows_walk_resume() begins each.
 */
struct flows_walk {
	uint32_t cursor;
	struct datapath *datapath;
	const struct flow *flows;
	uint32_t n, now;
	uint32_t epoch;
	bool stale;
	struct sweep_item last; /* which record the last flow is in */
};

void flows_walk_resume(struct flows_walk *w, struct datapath *d);
/*
 * Stores the next live flow and returns 1, or 0 at the end. Each record that it looks at takes one
 * from `budget`; -EAGAIN when that is used up. -ESTALE: the flows have moved to a table of another
 * size meanwhile, which waits for walks, but not for ever.
 */
int flows_next(struct flows_walk *w, uint32_t *budget, struct flow_view *ret);

/* Live flows, expired ones excluded. */
uint64_t flows_count(struct datapath *d);

/* nf_conntrack's name of a state; UDP's have none there: "UNREPLIED" and "REPLIED". */
const char *flow_state_name(enum flow_state state);

/* ---- for the modules that look after the table ---- */

/* A whole record as it was at one moment; false when it holds no flow. */
bool flows_read(const struct flow *from, struct flow *ret);
/* Ticks since the last packet of either direction. */
uint32_t flows_idle_ticks(const struct flow *f, uint32_t now);
/* The lifetime of a copied record in its state, in ticks: its rule's own, or that of all. */
uint32_t flows_timeout(struct datapath *d, const struct flow *f);
bool flows_expired(struct datapath *d, const struct flow *f, uint32_t now);
/* A copied record as people want it. */
void flows_view(struct datapath *d, const struct flow *f, struct flow_view *ret);
/*
 * Sums of every rule id, RULE_COUNT of them, and of targets; both are of the last call, and do not
 * fall. `scratch` is as large. Returns 0 or -ENOMEM.
 */
int flows_sum(struct datapath *d, struct flow_sums *scratch, struct flow_sums *sums,
	      struct flow_target_sums *targets);
/*
 * Looks at the next `n_records` records and has the datapath free those that are expired; returns
 * how many, or an error. *cursor goes round the table.
 */
int flows_sweep(struct datapath *d, uint32_t *cursor, uint32_t n_records);
