/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Carries rules into the datapath: the only writer of its rule maps.
 *
 * A change is compiled whole, its new shapes, matches and actions are written where no packet looks
 * yet, then the ports' other bank, then one store makes the other bank the one in use: packets see
 * all of the change or nothing. What is left over is reclaimed a second later, when no packet can
 * be looking at it any more. Work is proportional to the rules and ports that changed.
 */
#pragma once

#include <net/if.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/ruleset.h"
#include "shared/cleanup.h"
#include "shared/diag.h"

struct apply;
struct changes;
struct datapath;

struct apply_input {
	const struct ruleset *rules;
	/*
	 * All that is otherwise than at the last call; NULL: anything may be, also what names of
	 * interfaces mean.
	 */
	const struct changes *changes;
	/* What somebody has changed: its flows are held against the rules. NULL: nothing. */
	const struct changes *edits;
	/* What rules without `on` apply to; none: every interface. */
	const char (*interfaces)[IF_NAMESIZE];
	size_t n_interfaces;
	/* Interface index of a name now, 0 if there is none: such a rule waits. */
	uint32_t (*resolve)(void *userdata, const char *name);
	void *userdata;
};

int apply_new(struct datapath *d, struct apply **ret);
struct apply *apply_free(struct apply *a); /* leaves the datapath as it is */
DEFINE_CLEANUP(struct apply, apply_free)

/*
 * Makes the datapath follow the rules. On error nothing has changed for packets; diag says why
 * (-ENOSPC: a port has rules of more than SHAPE_CHAIN_MAX kinds, or a table is full; -ENOMEM).
 */
int apply_rules(struct apply *a, const struct apply_input *input, struct diag *diag);

/* Has every flow asked again, at its next packet, whether it is still what the rules say. */
void apply_recheck(struct apply *a);

/* Forgets what the targets of an id have counted: the id is another rule's now. */
void apply_clear_targets(struct apply *a, uint32_t rule);
/* The number by which the datapath knows a rule's target; 0 of a rule that is not there. */
uint32_t apply_target_number(const struct apply *a, uint32_t rule, size_t target);

/* Reclaims what is no longer in use; call it every few seconds. */
void apply_tick(struct apply *a);
