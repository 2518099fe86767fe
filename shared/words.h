/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Did you mean": the keyword that somebody most likely wanted to write. */
#pragma once

#include <stddef.h>

/*
 * The candidate nearest to the `length` bytes at `word`, or NULL when none is near enough. Letter
 * case does not count; swapped neighbours are one mistake, as are a letter too many, too few or
 * wrong. A word of three letters or more that only one candidate begins with is near, too.
 */
const char *words_closest(const char *word, size_t length, const char *const *candidates,
			  size_t n_candidates);
