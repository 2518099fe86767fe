/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Works out changes of the rules in force: one rule, those of a file, a configuration that was read
 * again. Touches nothing: change.c carries a plan out, or drops it. A plan may still fail there,
 * by a conflict.
 */
#pragma once

#include <stdint.h>

#include "daemon/changes.h"
#include "daemon/ruleset.h"
#include "shared/config.h"
#include "shared/diag.h"

/* Where plans begin. */
struct plan_from {
	const struct ruleset *rules;
	/* Hands out an id that is not in use and whose last flows are gone; RULE_ID_NONE: none. */
	uint32_t (*new_id)(void *userdata);
	void *userdata;
};

/*
 * All return 0; -ENOSPC with an item in diag: no id is left; or -ENOMEM. What was added to the
 * list before a failure stays there, for the caller to clear.
 */

/* A rule typed in: a runtime rule, or one of the configuration that had been taken out. */
int plan_add(const struct plan_from *p, const struct rule *rule, struct changes *ret,
	     struct diag *diag);
/* The rule of an entry in force becomes another one. */
int plan_set(struct ruleset_entry *e, const struct rule *rule, struct changes *ret);
int plan_remove(struct ruleset_entry *e, struct changes *ret);

/*
 * The rules of `config` come in force beside those that are; one that bears a name in use, or takes
 * the packets of one in force, changes that one. With `replace` all others go. `config` outlives
 * the list.
 */
int plan_apply(const struct plan_from *p, const struct config *config, bool replace,
	       struct changes *ret, struct diag *diag);

/*
 * Merges three states: the configuration as it was (what entries of rules.h say of it), the
 * configuration as it is now, and the rules in force. A rule that only one side has changed is as
 * that side has it; where both have, the configuration wins, and the change has a note. Runtime
 * rules stay; one that the configuration now has becomes the configuration's. A rule of the
 * configuration is the same one if its text is, its name, or what it takes.
 *
 * With `starting` nobody can be asked: what conflicts with the configuration yields.
 */
int plan_configuration(const struct plan_from *p, const struct config *config, bool starting,
		       struct changes *ret, struct diag *diag);
