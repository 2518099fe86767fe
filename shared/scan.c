/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words of one line. */
#include "shared/scan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/cleanup.h"

static const char scan_blanks[] = " \t\r\n\v\f";

/* Length of the word that begins at `p`, which is no blank. */
static size_t scan_measure(const struct scan *s, const char *p)
{
	size_t n = strcspn(p, scan_blanks);

	if (!s->split)
		return n;
	if (p[0] == ',')
		return 1;
	if (p[0] == '-' && p[1] == '>')
		return 2;
	for (size_t i = 1; i < n; i++)
		if (p[i] == ',' || (p[i] == '-' && p[i + 1] == '>'))
			return i;
	return n;
}

bool scan_peek(const struct scan *s, struct scan_word *ret)
{
	const char *p = s->text + s->offset;

	p += strspn(p, scan_blanks);
	if (*p) {
		*ret = (struct scan_word){p, scan_measure(s, p)};
		return true;
	}
	/* The end is right behind the last word: that is where something is missing. */
	while (p > s->text && strchr(scan_blanks, p[-1]))
		p--;
	*ret = (struct scan_word){p, 0};
	return false;
}

bool scan_next(struct scan *s, struct scan_word *ret)
{
	bool found = scan_peek(s, ret);

	if (found)
		s->offset = (size_t)(ret->start - s->text) + ret->length;
	return found;
}

bool scan_take(struct scan *s, const char *keyword)
{
	struct scan_word word;

	if (!scan_peek(s, &word) || !scan_word_is(&word, keyword))
		return false;
	return scan_next(s, &word);
}

bool scan_gave_up(const struct scan *s)
{
	return s->n_errors >= SCAN_ERRORS_MAX;
}

bool scan_word_is(const struct scan_word *word, const char *text)
{
	return strlen(text) == word->length && memcmp(word->start, text, word->length) == 0;
}

bool scan_word_has_prefix(const struct scan_word *word, const char *prefix)
{
	size_t n = strlen(prefix);

	return word->length >= n && memcmp(word->start, prefix, n) == 0;
}

struct scan_word scan_word_part(const struct scan_word *word, size_t offset, size_t length)
{
	return (struct scan_word){word->start + offset, length};
}

struct scan_word scan_word_join(const struct scan_word *first, const struct scan_word *last)
{
	return (struct scan_word){
		first->start,
		(size_t)(last->start - first->start) + last->length,
	};
}

bool scan_word_copy(const struct scan_word *word, char *buffer, size_t size)
{
	if (word->length >= size)
		return false;
	memcpy(buffer, word->start, word->length);
	buffer[word->length] = '\0';
	return true;
}

int scan_word_number(const struct scan_word *word, uint64_t least, uint64_t most, uint64_t *ret)
{
	uint64_t value = 0;

	if (word->length == 0)
		return -EINVAL;
	for (size_t i = 0; i < word->length; i++)
		if (word->start[i] < '0' || word->start[i] > '9')
			return -EINVAL;
	for (size_t i = 0; i < word->length; i++)
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(word->start[i] - '0'), &value))
			return -ERANGE;
	if (value < least || value > most)
		return -ERANGE;
	*ret = value;
	return 0;
}

void scan_error(struct scan *s, const struct scan_word *at, const char *hint, const char *format,
		...)
{
	_cleanup_(freep) char *message = NULL;
	struct diag_place place = {.column = 1, .text = s->text};
	va_list ap;

	if (scan_gave_up(s))
		return;
	if (s->place)
		place = *s->place;
	if (place.column || !s->place)
		place.column += (unsigned)(at->start - s->text);
	place.width = at->length ? (unsigned)at->length : 1;

	va_start(ap, format);
	if (vasprintf(&message, format, ap) < 0)
		abort();
	va_end(ap);
	diag_add(s->diag, DIAG_INVALID, &place, hint, "%s", message);
	s->n_errors++;
}

const char *scan_hint(char buffer[static SCAN_HINT_MAX], const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(buffer, SCAN_HINT_MAX, format, ap);
	va_end(ap);
	return buffer;
}
