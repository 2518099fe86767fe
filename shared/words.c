/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The nearest keyword, by Damerau-Levenshtein distance (optimal string alignment), and lists. */
#include "shared/words.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define WORDS_LENGTH_MAX 32 /* longer words are no misspelt keywords */
#define WORDS_PREFIX_MIN 3

static unsigned words_least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static bool words_same(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

static unsigned words_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
	/* Three rows suffice: a swap looks two back. */
	unsigned rows[3][WORDS_LENGTH_MAX + 1];

	for (size_t j = 0; j <= n_b; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= n_a; i++) {
		unsigned *row = rows[i % 3], *last = rows[(i + 2) % 3], *older = rows[(i + 1) % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= n_b; j++) {
			row[j] = last[j - 1] + !words_same(a[i - 1], b[j - 1]);
			row[j] = words_least(row[j], words_least(last[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && words_same(a[i - 1], b[j - 2]) &&
			    words_same(a[i - 2], b[j - 1]))
				row[j] = words_least(row[j], older[j - 2] + 1);
		}
	}
	return rows[n_a % 3][n_b];
}

/* The only candidate that begins with the word. */
static const char *words_completed(const char *word, size_t length, const char *const *candidates,
				   size_t n_candidates)
{
	const char *found = NULL;

	if (length < WORDS_PREFIX_MIN)
		return NULL;
	for (size_t i = 0; i < n_candidates; i++) {
		if (strncasecmp(word, candidates[i], length) != 0)
			continue;
		if (found)
			return NULL;
		found = candidates[i];
	}
	return found;
}

const char *words_closest(const char *word, size_t length, const char *const *candidates,
			  size_t n_candidates)
{
	const char *best;
	unsigned best_distance = UINT_MAX;

	if (length == 0 || length > WORDS_LENGTH_MAX)
		return NULL;
	/* Half a word is more likely cut short than misspelt. */
	best = words_completed(word, length, candidates, n_candidates);
	if (best)
		return best;
	for (size_t i = 0; i < n_candidates; i++) {
		size_t n = strlen(candidates[i]);
		size_t longer = n > length ? n : length;
		/* One mistake in up to five letters, two in up to eight, three beyond. */
		unsigned allowed = longer > 8 ? 3 : longer > 5 ? 2 : 1;
		unsigned distance;

		if (n > WORDS_LENGTH_MAX)
			continue;
		distance = words_distance(word, length, candidates[i], n);
		/* At least as much must be right as wrong: "xy" is not a misspelt "on". */
		if (distance <= allowed && distance * 2 <= longer && distance < best_distance) {
			best = candidates[i];
			best_distance = distance;
		}
	}
	return best;
}

const char *words_join(const char *const *words, size_t n, const char *last, char *buffer,
		       size_t size)
{
	size_t length = 0;

	*buffer = '\0';
	for (size_t i = 0; i < n && length < size; i++) {
		const char *before = i == 0 ? "" : i + 1 < n ? ", " : last;

		length +=
			(size_t)snprintf(buffer + length, size - length, "%s%s", before, words[i]);
	}
	return buffer;
}
