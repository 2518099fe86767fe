/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Words of one line, and errors that point at them: what the rule grammar and the configuration
 * grammar have in common. Nothing is copied; words point into the text.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/diag.h"

/*
 * Errors reported for one line; the rest of it is then given up. Each item holds a copy of the
 * line, so a long one without this limit could fill the memory.
 */
#define SCAN_ERRORS_MAX 20
#define SCAN_HINT_MAX	256

struct scan {
	const char *text;
	size_t offset;			/* of the next byte to read */
	const struct diag_place *place; /* where text[0] stands; NULL: the text stands alone */
	struct diag *diag;
	bool split; /* `,` and `->` are words of their own, wherever they stand */
	unsigned n_errors;
};

struct scan_word {
	const char *start;
	size_t length; /* 0: the end of the text */
};

/* Takes the next word; false at the end, the word then marks it. */
bool scan_next(struct scan *s, struct scan_word *ret);
/* The same without taking it. */
bool scan_peek(const struct scan *s, struct scan_word *ret);
/* Takes the next word if it is `keyword`. */
bool scan_take(struct scan *s, const char *keyword);
/* No more of this line is worth reading. */
bool scan_gave_up(const struct scan *s);

bool scan_word_is(const struct scan_word *word, const char *text);
bool scan_word_has_prefix(const struct scan_word *word, const char *prefix);
/* The part of a word from `offset` on, `length` bytes of it. */
struct scan_word scan_word_part(const struct scan_word *word, size_t offset, size_t length);
/* From the first byte of one word to the last byte of a later one. */
struct scan_word scan_word_join(const struct scan_word *first, const struct scan_word *last);
/* Copies the word and a NUL; false when it does not fit. */
bool scan_word_copy(const struct scan_word *word, char *buffer, size_t size);
/* Decimal digits and nothing else. 0, -EINVAL or -ERANGE. */
int scan_word_number(const struct scan_word *word, uint64_t least, uint64_t most, uint64_t *ret);

/* For printf: a word in a message, cut when very long. `"%.*s"`, SCAN_SHOW(&word) */
#define SCAN_SHOW(word) ((int)((word)->length < 80 ? (word)->length : 80)), (word)->start

/* Adds an error that points at a word of the text. */
void scan_error(struct scan *s, const struct scan_word *at, const char *hint, const char *format,
		...) __attribute__((format(printf, 4, 5)));
/* A hint made like a message, in the buffer of the caller; cut when it does not fit. */
const char *scan_hint(char buffer[static SCAN_HINT_MAX], const char *format, ...)
	__attribute__((format(printf, 2, 3)));
