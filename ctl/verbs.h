/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs of redirectctl: one table of names, operands, options, help and handlers. */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "ctl/failure.h"

struct options;

#define VERB_OPERANDS_MANY ((size_t)-1)

struct verb {
	const char *name;      /* one word, or two: "conntrack list" */
	const char *arguments; /* as help shows them; "" for none */
	const char *help;      /* one line */
	const char *details;   /* more for `VERB --help`; NULL: none */
	size_t operands_least, operands_most;
	unsigned options; /* of enum option_group */
	/* Returns an exit code; when it is not CTL_DONE the failure says why. */
	enum exit_code (*handler)(const struct options *o, struct failure *f);
};

/* Ends with an entry without a name. */
extern const struct verb verb_table[];

/*
 * Finds the verb that `words` begin with. Returns it and how many words its name takes; NULL when
 * there is none, and then a usage error with the closest names is in `f`.
 */
const struct verb *verb_find(const char *const *words, size_t n_words, size_t *ret_taken,
			     struct failure *f);
/* True when `word` alone is the first of a verb's two words. */
bool verb_is_group(const char *word);

/* The formats that -o of the verb takes: bits of enum output_format. */
unsigned verb_formats(const struct verb *v);

/* Help for everything, or for one verb. */
void verb_print_help(const struct verb *v, FILE *out);
/* For the verbs that begin with this word. */
void verb_print_group_help(const char *group, FILE *out);

/* The handlers, by file. */

/* verb-rules.c */
enum exit_code verb_add(const struct options *o, struct failure *f);
enum exit_code verb_remove(const struct options *o, struct failure *f);
enum exit_code verb_enable(const struct options *o, struct failure *f);
enum exit_code verb_disable(const struct options *o, struct failure *f);
enum exit_code verb_replace(const struct options *o, struct failure *f);
/* verb-apply.c */
enum exit_code verb_apply(const struct options *o, struct failure *f);
enum exit_code verb_diff(const struct options *o, struct failure *f);
enum exit_code verb_confirm(const struct options *o, struct failure *f);
enum exit_code verb_rollback(const struct options *o, struct failure *f);
enum exit_code verb_reload(const struct options *o, struct failure *f);
enum exit_code verb_save(const struct options *o, struct failure *f);
/* verb-list.c */
enum exit_code verb_list(const struct options *o, struct failure *f);
enum exit_code verb_show(const struct options *o, struct failure *f);
/* verb-conntrack.c */
enum exit_code verb_conntrack_list(const struct options *o, struct failure *f);
enum exit_code verb_conntrack_get(const struct options *o, struct failure *f);
enum exit_code verb_conntrack_delete(const struct options *o, struct failure *f);
enum exit_code verb_conntrack_flush(const struct options *o, struct failure *f);
enum exit_code verb_conntrack_count(const struct options *o, struct failure *f);
/* verb-monitor.c */
enum exit_code verb_monitor(const struct options *o, struct failure *f);
/* verb-status.c */
enum exit_code verb_stats(const struct options *o, struct failure *f);
enum exit_code verb_status(const struct options *o, struct failure *f);
/* verb-doctor.c */
enum exit_code verb_doctor(const struct options *o, struct failure *f);
/* verb-trace.c */
enum exit_code verb_trace(const struct options *o, struct failure *f);
/* verb-check.c */
enum exit_code verb_check(const struct options *o, struct failure *f);
/* verb-import.c */
enum exit_code verb_import(const struct options *o, struct failure *f);
/* verb-completion.c */
enum exit_code verb_completion(const struct options *o, struct failure *f);
/* verb-top.c */
enum exit_code verb_top(const struct options *o, struct failure *f);
/* verb-call.c */
enum exit_code verb_call(const struct options *o, struct failure *f);
/* verbs.c */
enum exit_code verb_help(const struct options *o, struct failure *f);
