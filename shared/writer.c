/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text into memory: see writer.h. */
#include "shared/writer.h"

#include <stdio.h>
#include <stdlib.h>

#include "shared/utf8.h"

#define WRITER_LEAST  1024
#define NUMBER_DIGITS 20 /* of UINT64_MAX */

void writer_clear(struct writer *w)
{
	free(w->data);
	*w = (struct writer){0};
}

bool writer_grow(struct writer *w, size_t n)
{
	size_t size = w->size ? w->size : WRITER_LEAST;
	char *data = NULL;

	while (size - w->length < n && size <= SIZE_MAX / 4)
		size *= 2;
	if (!w->failed && size - w->length >= n)
		data = realloc(w->data, size);
	if (!data) {
		w->failed = true;
		w->size = w->length; /* nothing more fits */
		return false;
	}
	w->data = data;
	w->size = size;
	return true;
}

void writer_number(struct writer *w, uint64_t n)
{
	char digits[NUMBER_DIGITS], *p = digits + sizeof(digits);

	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	writer_bytes(w, p, (size_t)(digits + sizeof(digits) - p));
}

void writer_json_number(struct writer *w, uint64_t n)
{
	writer_number(w, n > INT64_MAX ? INT64_MAX : n);
}

static void write_escaped(struct writer *w, char c)
{
	char text[8];

	if ((unsigned char)c >= 0x20)
		snprintf(text, sizeof(text), "\\%c", c);
	else
		snprintf(text, sizeof(text), "\\u%04x", (unsigned)c);
	writer_text(w, text);
}

void writer_json_string(struct writer *w, const char *text)
{
	size_t left = strlen(text);

	writer_literal(w, "\"");
	while (left > 0) {
		size_t n = utf8_character_length(text, left);

		if (n == 0)
			writer_literal(w, "\xef\xbf\xbd");
		else if (*text == '"' || *text == '\\' || (unsigned char)*text < 0x20)
			write_escaped(w, *text);
		else
			writer_bytes(w, text, n);
		text += n ? n : 1;
		left -= n ? n : 1;
	}
	writer_literal(w, "\"");
}
