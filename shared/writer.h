/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text that is written piece by piece into memory that grows: replies with very many objects, lines
 * of very many flows, where a tree of JSON values or stdio would take longer than all the rest.
 *
 * Without memory a writer stays `failed` and takes nothing more, so that one look at the end is
 * enough.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct writer {
	char *data; /* owned; no NUL at the end */
	size_t length, size;
	bool failed;
};

void writer_clear(struct writer *w);
/* Makes room for `n` bytes more; false: there is no memory. */
bool writer_grow(struct writer *w, size_t n);

/* Where `n` bytes may be written, to be counted with writer_advance(); NULL: no memory. */
static inline char *writer_room(struct writer *w, size_t n)
{
	return w->size - w->length >= n || writer_grow(w, n) ? w->data + w->length : NULL;
}

static inline void writer_advance(struct writer *w, size_t n)
{
	w->length += n;
}

static inline void writer_bytes(struct writer *w, const char *bytes, size_t n)
{
	char *to = writer_room(w, n);

	if (!to)
		return;
	memcpy(to, bytes, n);
	w->length += n;
}

/* A string constant. */
#define writer_literal(w, text) writer_bytes(w, "" text, sizeof(text) - 1)

static inline void writer_text(struct writer *w, const char *text)
{
	writer_bytes(w, text, strlen(text));
}

/* Decimal. */
void writer_number(struct writer *w, uint64_t n);
/* A counter: JSON integers end at INT64_MAX. */
void writer_json_number(struct writer *w, uint64_t n);

/* A JSON string, with its quotes; what is not UTF-8 becomes U+FFFD, as varlink_text() does it. */
void writer_json_string(struct writer *w, const char *text);
