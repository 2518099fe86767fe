/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What may stand where the cursor is: from the tables of verbs and options, and what is there now.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

/* What a shell is to complete by itself: a path. */
#define COMPLETE_FILES ":files"

/*
 * Prints the candidates for the last of `words` (behind the program's name; the last may be empty
 * or half-written), one a line: the word, and behind a tab what it means, if that is known. Prints
 * nothing when there is nothing to say, or no daemon to ask.
 */
void complete_words(const char *const *words, size_t n_words, FILE *out);
