/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules that are in force, with their ids, origins and sources. Knows nothing of maps or
 * sockets: manager.c plans a new ruleset from the old one, apply.c carries it into the datapath.
 *
 * Ids are stable: a rule keeps its id (and so its counters) over reload, restart and upgrade as
 * long as its text stays the same, or its name does.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"
#include "shared/diag.h"
#include "shared/rule.h"

#define RULE_ID_NONE 0

enum rule_origin {
	RULE_ORIGIN_CONFIG,	  /* the configuration file or what it includes */
	RULE_ORIGIN_COMMAND_LINE, /* redirectd -r */
	RULE_ORIGIN_RUNTIME,	  /* redirectctl add: pinned, lost at stop and reboot */
};

struct ruleset_entry {
	uint32_t id;
	struct rule *rule; /* owned */
	enum rule_origin origin;
	char *source; /* owned: "FILE:LINE", "command line" or "runtime" */
};

struct ruleset {
	struct ruleset_entry **entries; /* owned, ordered by id */
	size_t n_entries;
};

/* "config", "command-line", "runtime". */
const char *rule_origin_name(enum rule_origin o);

struct ruleset *ruleset_free(struct ruleset *s); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct ruleset, ruleset_free)

int ruleset_new(struct ruleset **ret);
int ruleset_copy(const struct ruleset *s, struct ruleset **ret);

/*
 * Finds by id ("3"), else by name, else by the rule itself in any spelling. NULL when there is
 * none.
 */
struct ruleset_entry *ruleset_find(const struct ruleset *s, const char *selector);
struct ruleset_entry *ruleset_find_id(const struct ruleset *s, uint32_t id);

/*
 * Adds a rule and takes it over. With `id` RULE_ID_NONE it gets one that is free. Refuses, with
 * an item in diag that names the rule in the way and its source: -EEXIST for a conflict or a name
 * in use. -ENOSPC: no id left; -ENOMEM. On failure the rule still belongs to the caller.
 */
int ruleset_add(struct ruleset *s, uint32_t id, struct rule *rule, enum rule_origin origin,
		const char *source, struct diag *diag, struct ruleset_entry **ret);
void ruleset_remove(struct ruleset *s, struct ruleset_entry *e);
