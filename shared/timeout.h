/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of timeouts, which are the same for the configuration's `timeout` and for that of a rule.
 */
#pragma once

#include <stdint.h>

#include "shared/abi.h"
#include "shared/scan.h"

#define TIMEOUT_NAMES 12
#define TIMEOUT_MOST  2592000 /* seconds: 30 days; the least is 1 */

/* Whose a timeout is: bits by enum flow_state. */
#define TIMEOUT_UDP (1U << FLOW_UDP_UNREPLIED | 1U << FLOW_UDP_REPLIED)

struct timeout_name {
	const char *name;
	uint32_t states;  /* bits by enum flow_state */
	uint32_t seconds; /* default; 0: that of the group it belongs to */
};

/* Groups first. */
extern const struct timeout_name timeout_names[TIMEOUT_NAMES];

/* The name that a word is; an error and NULL if it is none. */
const struct timeout_name *timeout_find(struct scan *s, const struct scan_word *word);

/* Whole seconds from 1 s to TIMEOUT_MOST; an error and false otherwise, also for a word that is the
 * end of the text. */
bool timeout_read_seconds(struct scan *s, const struct scan_word *word, uint32_t *ret);

/*
 * Sets the timeouts of a name. A single state's own goes before its group's, whichever is set
 * first: `singles` remembers which have been, bits by enum flow_state.
 */
void timeout_set(const struct timeout_name *name, uint32_t seconds,
		 uint32_t timeouts[static FLOW_STATE_COUNT], uint32_t *singles);

struct timeout_setting {
	const struct timeout_name *name;
	uint32_t seconds;
};

/*
 * As few names as say all timeouts that are not 0: a group's where each of its states has one, with
 * what most of them have, and those of single states that have another. So one set of timeouts is
 * always said in one way. Returns how many.
 */
size_t timeout_list(const uint32_t timeouts[static FLOW_STATE_COUNT],
		    struct timeout_setting ret[static TIMEOUT_NAMES]);
