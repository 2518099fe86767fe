/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A list of changes of rules: what plan.c works out, ruleset.c makes and takes back, registry.c
 * pins, pending.c remembers to go back to, and `-n` shows.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/ruleset.h"
#include "shared/cleanup.h"

struct config_rule;

/* What people see of a change. */
enum change_kind {
	CHANGE_NONE, /* nothing: only where the rule stands, or what the configuration says of it */
	CHANGE_ADD,
	CHANGE_REMOVE,
	CHANGE_RULE, /* another rule under the same id */
};

struct change {
	/* Of the same id; NULL: there was, or will be, none. Either may be a removed one. */
	struct ruleset_entry *before, *after;
	const struct config_rule *from; /* where `after` stands, for messages; borrowed, or NULL */
	const char *note;		/* something to know about it; static, or NULL */
	bool fresh;			/* the id is a new one: its counters begin */
	/* In conflict it gives way, to what the configuration says, or altogether. */
	bool yields;
};

struct changes {
	struct change *items;
	size_t n, allocated;
	/* Made: the list owns what was before, else what is after. */
	bool made;
	const struct ruleset_entry *subject; /* of a change of one rule; borrowed */
};

void changes_clear(struct changes *c);
/* Takes `after` over, also on failure. The item in *ret (may be NULL) is valid until the next. */
int changes_add(struct changes *c, struct ruleset_entry *before, struct ruleset_entry *after,
		struct change **ret);

enum change_kind change_kind(const struct change *c);
/* How many there are of each kind. */
struct change_counts {
	size_t added, removed, changed;
};
struct change_counts changes_count(const struct changes *c);
