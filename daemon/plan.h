/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Works out the rules that are to be in force, from those that are and a configuration. Touches
 * nothing: manager.c carries a plan out, or drops it.
 */
#pragma once

#include <stdint.h>

#include "daemon/ruleset.h"
#include "shared/config.h"
#include "shared/diag.h"

/* Hands out an id that neither set uses and whose last flows are gone; 0: none. */
typedef uint32_t (*plan_new_id)(void *userdata, const struct ruleset *a, const struct ruleset *b);

struct plan_counts {
	uint32_t added, removed, kept;
};

/*
 * The rules of the configuration, with the ids of equal rules, or else of rules with the same name,
 * among `old`; and old's runtime rules. A runtime rule that the configuration now has becomes the
 * configuration's. One that conflicts with it is an error, in diag; with `drop_conflicts` it is
 * left out, still with an item in diag.
 */
int plan_configuration(const struct ruleset *old, const struct config *config, bool drop_conflicts,
		       plan_new_id new_id, void *userdata, struct diag *diag, struct ruleset **ret,
		       struct plan_counts *ret_counts);
