/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Diagnostics: what is wrong in a text that somebody wrote, and where.
 *
 * Grammar modules add items to a `struct diag` and go on, so that every error of a file is
 * reported at once. Nothing here logs or prints by itself; callers choose stderr, the journal
 * or JSON. All strings of an item are owned by the diag.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum diag_code {
	DIAG_INVALID,  /* not of the grammar, or values that make no sense: exit code 6 */
	DIAG_CONFLICT, /* two rules that nothing separates, a name used twice: exit code 7 */
	DIAG_FAILED,   /* the system refused (out of memory, a file unreadable): exit code 1 */
};

struct diag_item {
	enum diag_code code;
	char *file;	 /* NULL: the text did not come from a file (command line, socket) */
	unsigned line;	 /* from 1; 0: no line */
	unsigned column; /* from 1, in bytes; 0: no column */
	unsigned width;	 /* bytes that the caret line underlines; at least 1 when column is set */
	char *text;	 /* the whole line, without its newline; NULL: unknown */
	char *message;	 /* one sentence, no trailing full stop, no newline */
	char *hint;	 /* what to do: `did you mean "masquerade"?`; NULL: none */
};

struct diag {
	struct diag_item *items;
	size_t n_items;
};

/* Where an item points. `text` and `file` are copied. */
struct diag_place {
	const char *file;
	unsigned line, column, width;
	const char *text;
};

void diag_clear(struct diag *d);

/* Adds an item; the place may be NULL. Out of memory aborts: a lost error would be a lie. */
void diag_add(struct diag *d, enum diag_code code, const struct diag_place *place, const char *hint,
	      const char *format, ...) __attribute__((format(printf, 5, 6)));

/*
 * Writes every item as people read it:
 *
 *   /etc/redirectd/redirectd.conf:7:18: unknown option "masquerad"
 *       redirect tcp 8080 to 80 masquerad
 *                               ^~~~~~~~~ did you mean "masquerade"?
 *
 * An item without a file begins with `prefix` (may be NULL) in place of FILE:LINE:COLUMN.
 */
void diag_print(const struct diag *d, FILE *out, const char *prefix);

/*
 * One line for people, which the caller frees: the first item, and how many more there are.
 * `error`, a negative errno, is what is said without any. NULL: out of memory.
 */
char *diag_summary(const struct diag *d, int error);

/* The most severe code in the diag as an exit code of the contract: 6, 7 or 1; 0 when empty. */
int diag_exit_code(const struct diag *d);
