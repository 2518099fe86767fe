/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Did you mean": the keyword that somebody most likely wanted to write, and lists of keywords. */
#pragma once

#include <stddef.h>

/*
 * The candidate nearest to the `length` bytes at `word`, or NULL when none is near enough. Letter
 * case does not count; swapped neighbours are one mistake, as are a letter too many, too few or
 * wrong. A word of three letters or more that only one candidate begins with is near, too.
 */
const char *words_closest(const char *word, size_t length, const char *const *candidates,
			  size_t n_candidates);

/*
 * The words with commas between them, and `last` between the last two: "list, get or count".
 * Returns `buffer`; what does not fit there is cut off.
 */
const char *words_join(const char *const *words, size_t n, const char *last, char *buffer,
		       size_t size);
