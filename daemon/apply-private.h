/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of apply.c (transactions), garbage.c (what is left over), adopt.c (of a former
 * daemon), part.c and chain.c (from rules to what a port's packets look up), edit.c (small changes
 * of that), action.c (what becomes of packets), settings.c (and of flows) and marks.c (which
 * packets look at all).
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
	bool waits;	  /* names interfaces, none of which is there */
	uint32_t binding; /* 0: it takes no packets */
	uint32_t action;
	uint8_t numbers[RULE_TARGETS_MAX]; /* of its targets, for the datapath */
};

/* The ports of a rule that takes packets: little, for all of them are read at every change. */
struct span {
	uint16_t first, last;
	uint16_t id;
	uint8_t protocols; /* enum rule_protocol */
};

/* A range of ports, of both protocols: PORT_INDEX. */
struct port_part {
	uint32_t first, last;
};

enum garbage_kind {
	GARBAGE_SHAPE,
	GARBAGE_BINDING,
	GARBAGE_ACTION,
	GARBAGE_BALANCE,
	GARBAGE_MATCH,
};
struct garbage {
	enum garbage_kind kind;
	uint64_t since_ns;
	uint32_t id; /* of a match: its binding; with another it is in use again */
	struct match_key key;
};

/* A growing array of garbage, in the order of time. */
struct garbage_list {
	struct garbage *items;
	size_t n, allocated;
};

/* The matches in use, by shape: lists in one array. */
struct match_node {
	struct match_key key;
	uint32_t binding;
	uint32_t next; /* 1 + place of the next one; 0: none */
};
struct match_lists {
	uint32_t *first; /* SHAPE_COUNT: 1 + place; 0: none */
	struct match_node *nodes;
	uint32_t n, allocated, free; /* free: 1 + place of the first that is; 0: none */
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

/* What becomes of a rule. */
struct step {
	uint32_t id;
	struct compiled *before, *after; /* NULL: none; owned are `after`, then what was before */
	bool moves; /* it comes to ports or leaves some: more than what it does there changes */
};
struct steps {
	struct step *items;
	size_t n, allocated;
	bool made;
};

struct apply {
	struct datapath *datapath;
	struct compiled **compiled; /* RULE_COUNT, by id; NULL: none */
	struct span *spans;	    /* in no order */
	size_t n_spans, spans_allocated;
	uint32_t *span_at; /* RULE_COUNT: 1 + place in `spans`; 0: the rule takes no packets */
	bool started;	   /* false: ports may hold what a former daemon wrote */
	struct id_set shapes, bindings, actions;
	uint32_t *shape_ranks; /* SHAPE_COUNT: those of shapes in use */
	/* By a chain's first shape: how many ports have it, and how many rules they have at least.
	 */
	uint32_t *chain_ports, *chain_rules;
	bool *chain_covers; /* SHAPE_COUNT: some rule is hidden by one of a narrower range */
	struct garbage_list garbage;
	uint32_t *former; /* RULE_COUNT: the action that a former daemon wrote for a rule */
	uint32_t settings_generation; /* when `changed` of all rules was last looked at */
	/* What the running change has written, to be taken back if it fails. */
	struct garbage_list written;
	struct match_lists matches;
	uint8_t *marked;  /* PORT_COUNT: marks that the rules ask for, the top byte of an entry */
	uint8_t *needed;  /* PORT_COUNT: and those that flows ask for, while they are looked at */
	bool fragments;	  /* the rules translate addresses: later fragments matter */
	bool marks_stale; /* marks of former rules may be cleared once no flow needs them */
	uint64_t marks_since_ns;
};

/* garbage.c */
#define GARBAGE_MUCH 65536   /* a change does not wait for the next tick to collect it */
uint64_t apply_now_ns(void); /* CLOCK_MONOTONIC */
int apply_garbage_add(struct garbage_list *l, enum garbage_kind kind, uint32_t id,
		      const struct match_key *key);
void garbage_dispose(struct apply *a, const struct garbage *g);
void garbage_collect(struct apply *a); /* what has been left long enough */
int apply_id_set_new(struct id_set *s, uint32_t size);
/* An id that is free, and used from now on; 0: none is left. */
uint32_t apply_take_id(struct id_set *s);
/* adopt.c: notes what is there, as garbage. */
int adopt_former(struct apply *a);

/* No rule (NULL), a disabled one and one that waits for an interface take no packet. */
bool apply_rule_active(const struct compiled *c);

/* part.c: what one rule contributes to one port: a shape, and a key within it. */
struct part {
	const struct compiled *from;
	uint32_t rank; /* higher is more specific */
	uint8_t flags, dst_length, src_length;
	struct match_key key; /* without the shape */
};
size_t part_count(const struct compiled *c); /* each interface with each source; at least 1 */
void part_get(const struct compiled *c, size_t i, struct part *ret);
bool part_has_key(const struct part *p); /* else the shape says it all */
bool part_same_place(const struct compiled *a, const struct compiled *b);
int part_compare_shape(const struct part *a, const struct part *b);
/* For qsort(): by shape, most specific first; then by key; the narrower range first. */
int part_compare(const void *left, const void *right);

/*
 * Writes chains for some ports, in ascending order, where no packet looks yet, and their first
 * shapes into `chains`, by PORT_INDEX. `rules` are all that have ports among them. Ports alike
 * share a chain. What was written is in `a->written`; on error the caller takes it back.
 */
int chain_compile_ports(struct apply *a, const struct compiled *const *rules, size_t n,
			const struct port_part *ports, size_t n_ports, uint32_t *chains,
			struct diag *diag);
/* Leaves a chain, which no new packet sees any more, to be reclaimed with its matches. */
int chain_leave(struct apply *a, uint32_t first);
/* The matches just written are in use. */
int chain_keep_matches(struct apply *a);
/* Leaves one match of a chain that goes on. */
void chain_leave_match(struct apply *a, const struct match_key *key, uint32_t binding);

/*
 * Writes what comes into the chains that there are, if that and what leaves them is all that the
 * moving steps change. 1: so it is, and edit_finish() belongs behind the flip; 0: chains have to be
 * made anew; or an error. Takes back what it wrote in vain.
 */
int edit_write(struct apply *a, const struct steps *s);
void edit_finish(struct apply *a, const struct steps *s);

/*
 * Writes an action for a rule, as chain_compile_ports() does chains. `before` is what the rule was;
 * NULL: nothing that this daemon knows of.
 */
int action_write(struct apply *a, struct compiled *c, const struct compiled *before,
		 struct diag *diag);
/* Leaves an action, which no new packet sees any more, to be reclaimed. */
int action_leave(struct apply *a, uint32_t id);

/* settings.c: what living flows of a rule go by. */

/* What a rule that comes into force says of them. */
void settings_write(struct apply *a, const struct compiled *c);
/* Flows of rules that have changed, or gone, are to be held against the rules of now. */
void settings_change(struct apply *a, const struct changes *edits);
/* Keeps `changed` of all rules within the reach of its comparison. */
void settings_tick(struct apply *a);

/* Sets the marks that a rule asks for, before any of its flows can need them. */
void marks_set(struct apply *a, const struct rule *r);
/*
 * Clears the marks that neither a rule nor a flow needs, a while after the rules changed; then
 * again from time to time, until the flows of former rules are gone.
 */
void marks_clear(struct apply *a);
