/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules that are in force, with their ids, origins and sources, and what of the configuration
 * is not. Knows nothing of maps or sockets: plan.c works out changes of it, apply.c carries it into
 * the datapath.
 *
 * Ids are stable: a rule keeps its id (and so its counters) over reload, restart and upgrade as
 * long as its text stays the same, or its name does.
 */
#pragma once

#include <stdbool.h>
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
	struct rule *rule; /* owned; in force, unless `removed` */
	enum rule_origin origin;
	char *source; /* owned: "FILE:LINE", "command line" or "runtime" */
	/*
	 * What the configuration says in place of `rule`, which a runtime change has put in force;
	 * owned; NULL: the same, or nothing.
	 */
	struct rule *configured;
	/* A rule of the configuration that a runtime change took out: remembered, not in force. */
	bool removed;
	bool leaves; /* while a change is made */
};

struct ruleset {
	struct ruleset_entry **entries; /* in force; owned, ordered by id */
	size_t n_entries;
	struct ruleset_entry **removed; /* owned, ordered by id; no id is in both */
	size_t n_removed;
};

/* "config", "command-line", "runtime". */
const char *rule_origin_name(enum rule_origin o);

/* Copies rule and source. */
int ruleset_entry_new(uint32_t id, const struct rule *rule, enum rule_origin origin,
		      const char *source, struct ruleset_entry **ret);
struct ruleset_entry *ruleset_entry_free(struct ruleset_entry *e); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct ruleset_entry, ruleset_entry_free)
/* What the configuration says of an entry that is not of runtime origin. */
const struct rule *ruleset_entry_configured(const struct ruleset_entry *e);

struct ruleset *ruleset_free(struct ruleset *s); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct ruleset, ruleset_free)

int ruleset_new(struct ruleset **ret);

/*
 * Finds by id ("3"), else by name, else by the rule itself in any spelling. NULL when there is
 * none. These look only at rules in force.
 */
struct ruleset_entry *ruleset_find(const struct ruleset *s, const char *selector);
struct ruleset_entry *ruleset_find_id(const struct ruleset *s, uint32_t id);
struct ruleset_entry *ruleset_find_name(const struct ruleset *s, const char *name);
/* The rule that one in force conflicts with; an equal one is in conflict too. */
struct ruleset_entry *ruleset_find_conflict(const struct ruleset *s, const struct rule *rule);

struct ruleset_entry *ruleset_find_removed(const struct ruleset *s, uint32_t id);

/*
 * Adds a rule and takes it over. With `id` RULE_ID_NONE it gets one that is free. Refuses, with
 * an item in diag that names the rule in the way and its source: -EEXIST for a conflict or a name
 * in use. -ENOSPC: no id left; -ENOMEM. On failure the rule still belongs to the caller.
 */
int ruleset_add(struct ruleset *s, uint32_t id, struct rule *rule, enum rule_origin origin,
		const char *source, struct diag *diag, struct ruleset_entry **ret);

/* Says that no id is left. */
void ruleset_report_full(struct diag *diag);

struct changes;
/*
 * Makes changes, all or none: what was before leaves, then what is after comes, in the order of
 * the list. Every conflict is reported, at its place if the change has one. -EEXIST, -ENOSPC (an
 * id twice) or -ENOMEM: nothing has changed. Takes time by the number of changes.
 *
 * Once made, the set owns what is after, and the list what was before.
 */
int ruleset_change(struct ruleset *s, struct changes *c, struct diag *diag);
/* Takes made changes back; the set is as it was, the list too. */
void ruleset_revert(struct ruleset *s, struct changes *c);
