/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration file (docs: redirectd.conf(5)): one statement a line, `#` comments.
 *
 * Statements are a table of {keyword, handler}. A parsed configuration is checked completely:
 * every syntax error, every name used twice, every conflict between two rules (both places are
 * named) is in the diag. The daemon and `redirectctl check` use this same module.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/abi.h"
#include "shared/cleanup.h"
#include "shared/diag.h"
#include "shared/rule.h"
#include "shared/timeout.h"

struct config_rule {
	struct rule *rule; /* owned */
	char *source;	   /* owned, "FILE:LINE", or "command line" */
	/* Where its text stands, for messages; owned. */
	char *file; /* NULL: not in a file */
	unsigned line, column;
	char *text; /* the whole line, or the rule alone */
};

/* Where a rule, or a part of it that was found in its text, stands; strings are borrowed. */
struct diag_place config_rule_place(const struct config_rule *r, enum rule_part part);

/* A file that was read, or a text in its place. */
struct config_text {
	char *name; /* path, as messages name it */
	char *text;
	size_t length; /* of the text; NUL bytes in it are errors */
};

/* Settings that may be made once: `flows-max` and each name of `timeout`. */
#define CONFIG_SETTINGS (1 + TIMEOUT_NAMES)

struct config {
	/* `interface`: what rules without `on` apply to; none: any. */
	char (*interfaces)[IF_NAMESIZE];
	size_t n_interfaces;
	uint32_t flows_max; /* `flows-max`; FLOWS_MAX_DEFAULT */
	/* `timeout NAME DURATION`: seconds, by enum flow_state. */
	uint32_t timeouts[FLOW_STATE_COUNT];
	struct config_rule *rules;
	size_t n_rules;

	/* For reading on: where settings were made ("FILE:LINE"; owned; NULL: not yet), and which
	 * timeouts come from the name of a single state, which a group's leaves alone. */
	char *setting_sources[CONFIG_SETTINGS];
	uint32_t single_timeouts; /* bits by enum flow_state */
	char *interface_source;	  /* of the first `interface`; owned; NULL: none */

	/* How to read; set by the caller, false at first. */
	bool keeps_texts;     /* of every file that is read, in `texts` */
	bool refuses_include; /* only the texts given are read */
	bool only_includes;   /* all other statements are somebody else's to read */
	struct config_text *texts;
	size_t n_texts;
};

#define FLOWS_MAX_DEFAULT 262144
#define FLOWS_MAX_LEAST	  64
#define FLOWS_MAX_MOST	  16777216

#define CONFIG_FILE_MAX	 (64 * 1024 * 1024) /* bytes */
#define CONFIG_DEPTH_MAX 16		    /* files that include each other */

/* Every default, no rule. Returns 0 or -ENOMEM. */
int config_new(struct config **ret);
struct config *config_free(struct config *c); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct config, config_free)

/*
 * Reads `path` and what it includes into `c` (`include` takes a glob(7) pattern, relative to the
 * folder of the file that it stands in; no match is no error, but a missing file without any
 * wildcard is, and so is a file that includes itself). Returns 0; -EINVAL when diag received an
 * error (the config is then not to be used); -ENOENT when `path` itself does not exist (diag says
 * so).
 */
int config_read_file(struct config *c, const char *path, struct diag *diag);

/* The same for a text in memory, named `name` in messages. */
int config_read_text(struct config *c, const char *name, const char *text, struct diag *diag);

/* The same for several, which are one configuration. */
int config_read_texts(struct config *c, const struct config_text *texts, size_t n,
		      struct diag *diag);

/* Adds one rule given outside of files (`-r`, the socket). `source` is copied. 0 or -EINVAL. */
int config_add_rule(struct config *c, const char *text, const char *source, struct diag *diag);

/* Where a rule takes packets from: its `on`, else `interface`; none: every interface. */
struct config_places {
	const char (*names)[IF_NAMESIZE]; /* borrowed */
	size_t n;
};
struct config_places config_places(const struct config *c, const struct rule *r);
/* Is it named there? */
bool config_places_name(const struct config_places *p, const char *name);

/*
 * Names used twice and rules in conflict, over all rules of `c`: O(n) for distinct ports.
 * Called by config_read_*() at their end; call it again after config_add_rule().
 */
int config_check(const struct config *c, struct diag *diag);

/*
 * For whoever takes only the rules of `c`: every setting made in it has to be as in `now`, else it
 * is reported. 0 or -EINVAL.
 */
int config_check_settings(const struct config *c, const struct config *now, struct diag *diag);
