/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why a command could not be done: the exit code of the contract, a message, where in a rule or
 * file. Whoever finds out fills a struct failure and returns its code; main prints it, once, as
 * text on stderr or as JSON on stdout.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "shared/diag.h"

/* Exit codes, as the contract and redirectctl(8) list them. */
enum exit_code {
	CTL_DONE = 0,
	CTL_FAILED = 1,
	CTL_USAGE = 2,
	CTL_NO_DAEMON = 3,
	CTL_DENIED = 4,
	CTL_NOT_FOUND = 5,
	CTL_INVALID = 6,
	CTL_CONFLICT = 7,
};

struct failure {
	enum exit_code code;
	char *message;	  /* owned, one sentence; NULL: nothing failed, or diag says it all */
	char *hint;	  /* owned, what to do; NULL: none */
	struct diag diag; /* owned, what is wrong inside a rule or file; may be empty */
	bool reported;	  /* the answer itself already carries the error: print nothing more */
};

/* Releases what the failure owns and makes it empty again. */
void failure_clear(struct failure *f);

/* Sets code and message, drops what was there. Returns `code`. Out of memory aborts. */
enum exit_code failure_set(struct failure *f, enum exit_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Adds what to do about it. */
void failure_hint(struct failure *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Takes the code from the items in f->diag; there is at least one. Returns it. */
enum exit_code failure_from_diag(struct failure *f);

/* {"code":"conflict","message":"…"[,"hint":"…"][,"diagnostics":[…]]}: a new reference. */
json_t *failure_to_json(const struct failure *f);
/* The `code` of JSON errors: "failed", "usage", "no-daemon" … */
const char *exit_code_name(enum exit_code code);

/* Prints a failure: text on stderr, or {"error":{…}} on stdout. */
void failure_print(const struct failure *f, bool as_json);
