/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Varlink framing: see varlink.h. Owns the bytes of a struct varlink_buffer; relies on jansson for
 * JSON itself (UTF-8, number ranges, duplicate keys) and adds what jansson has no option for: the
 * depth limit, which is checked before the recursive parser sees a byte.
 */
#include "shared/varlink.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "shared/utf8.h"

/* A buffer that held a large message gives its memory back once it is empty. */
#define BUFFER_KEEP_MAX (64 * 1024)
#define BUFFER_LEAST	4096

void varlink_buffer_clear(struct varlink_buffer *b)
{
	free(b->data);
	*b = (struct varlink_buffer){0};
}

/* Moves what waits to the front and grows, so that `more` bytes fit behind it. */
static int buffer_reserve(struct varlink_buffer *b, size_t more)
{
	size_t size = b->allocated ? b->allocated : BUFFER_LEAST;
	char *data;

	if (b->allocated - b->length >= more)
		return 0;
	if (b->begin > 0) {
		memmove(b->data, b->data + b->begin, b->length - b->begin);
		b->length -= b->begin;
		b->begin = 0;
	}
	if (b->length > SIZE_MAX / 4 || more > SIZE_MAX / 4)
		return -ENOMEM;
	while (size - b->length < more)
		size *= 2;
	if (size == b->allocated)
		return 0;
	data = realloc(b->data, size);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->allocated = size;
	return 0;
}

/* How long the unfinished message is once `data` is behind it; -EMSGSIZE when one is too long. */
static int tail_measure(size_t tail, const char *data, size_t length, size_t limit, size_t *ret)
{
	while (length > 0) {
		const char *nul = memchr(data, 0, length);
		size_t part = nul ? (size_t)(nul - data) : length;

		if (part > limit || tail > limit - part)
			return -EMSGSIZE;
		if (!nul) {
			tail += part;
			break;
		}
		tail = 0;
		data += part + 1;
		length -= part + 1;
	}
	*ret = tail;
	return 0;
}

static void buffer_consume(struct varlink_buffer *b, size_t length)
{
	b->begin += length;
	b->scanned = 0;
	if (b->begin < b->length)
		return;
	if (b->allocated > BUFFER_KEEP_MAX)
		varlink_buffer_clear(b);
	b->begin = b->length = 0;
}

/* What was borrowed is no longer. */
static void buffer_return(struct varlink_buffer *b)
{
	size_t length = b->lent;

	b->lent = 0;
	if (length)
		buffer_consume(b, length);
}

int varlink_buffer_append(struct varlink_buffer *b, const void *data, size_t length, size_t limit)
{
	size_t tail;
	int r;

	buffer_return(b);
	if (length == 0)
		return 0;
	r = tail_measure(b->tail, data, length, limit, &tail);
	if (r < 0)
		return r;
	r = buffer_reserve(b, length);
	if (r < 0)
		return r;
	memcpy(b->data + b->length, data, length);
	b->length += length;
	b->tail = tail;
	return 0;
}

/* Fills in `error` as jansson does; the column counts bytes from 1. */
static void error_set(json_error_t *error, const char *text, size_t offset, const char *what)
{
	size_t line = 1, column = 1;

	if (!error)
		return;
	for (size_t i = 0; i < offset; i++, column++) {
		if (text[i] != '\n')
			continue;
		line++;
		column = 0;
	}
	*error = (json_error_t){.line = (int)line, .column = (int)column, .position = (int)offset};
	snprintf(error->text, sizeof(error->text), "%s", what);
}

/* Offset of the bracket that goes too deep, or -1. Brackets inside strings do not count. */
static ssize_t depth_exceeded_at(const char *text, size_t length)
{
	bool string = false;
	int depth = 0;

	for (size_t i = 0; i < length; i++) {
		char c = text[i];

		if (string && c == '\\')
			i++;
		else if (c == '"')
			string = !string;
		else if (string)
			continue;
		else if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
		if (depth > VARLINK_DEPTH_MAX)
			return (ssize_t)i;
	}
	return -1;
}

static int message_parse(const char *text, size_t length, json_t **ret, json_error_t *error)
{
	ssize_t deep = depth_exceeded_at(text, length);
	json_t *message;

	if (deep >= 0) {
		error_set(error, text, (size_t)deep, "nested deeper than 32 levels");
		return -EBADMSG;
	}
	message = json_loadb(text, length, JSON_REJECT_DUPLICATES, error);
	if (!message)
		return -EBADMSG;
	if (!json_is_object(message)) {
		json_decref(message);
		error_set(error, text, 0, "a message is one JSON object");
		return -EBADMSG;
	}
	*ret = message;
	return 1;
}

/* Is a message complete? Then it stands at `begin`. */
static bool buffer_find(struct varlink_buffer *b, size_t *ret_length)
{
	size_t waiting;
	const char *start, *end;

	buffer_return(b);
	waiting = b->length - b->begin;
	if (waiting == b->scanned)
		return false;
	start = b->data + b->begin;
	end = memchr(start + b->scanned, 0, waiting - b->scanned);
	if (!end)
		b->scanned = waiting;
	else
		*ret_length = (size_t)(end - start);
	return end;
}

int varlink_buffer_next(struct varlink_buffer *b, json_t **ret, json_error_t *error)
{
	size_t length;
	int r;

	if (!buffer_find(b, &length))
		return 0;
	r = message_parse(b->data + b->begin, length, ret, error);
	buffer_consume(b, length + 1);
	return r;
}

int varlink_buffer_next_text(struct varlink_buffer *b, const char **ret, size_t *ret_length)
{
	if (!buffer_find(b, ret_length))
		return 0;
	*ret = b->data + b->begin;
	b->lent = *ret_length + 1;
	return 1;
}

/* Behind `word` and the blanks in front of it; NULL: something else stands there. */
static const char *skip_word(const char *p, const char *end, const char *word)
{
	size_t length = strlen(word);

	while (p && p < end && strchr(" \t\r\n", *p))
		p++;
	return p && (size_t)(end - p) >= length && memcmp(p, word, length) == 0 ? p + length : NULL;
}

bool varlink_buffer_tail_calls(const struct varlink_buffer *b, const char *method)
{
	const char *end = b->data + b->length, *p = end - b->tail;

	if (!b->tail)
		return false;
	p = skip_word(p, end, "{");
	p = skip_word(p, end, "\"method\"");
	p = skip_word(p, end, ":");
	p = skip_word(p, end, "\"");
	p = skip_word(p, end, method);
	return p && p < end && *p == '"';
}

int varlink_encode(const json_t *message, char **ret, size_t *ret_length)
{
	char *text = json_dumps(message, JSON_COMPACT);

	if (!text)
		return -ENOMEM;
	*ret = text;
	*ret_length = strlen(text) + 1;
	return 0;
}

json_t *varlink_text(const char *text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	_cleanup_(freep) char *clean = NULL;
	size_t left = text ? strlen(text) : 0;
	char *out;

	if (!text)
		return json_null();
	if (utf8_find_invalid(text, left) == left)
		return json_string(text);
	/* In the worst case each byte becomes three. */
	out = clean = malloc(3 * left + 1);
	if (!clean)
		return NULL;
	while (left > 0) {
		size_t n = utf8_character_length(text, left);

		out = n ? mempcpy(out, text, n) : stpcpy(out, replacement);
		text += n ? n : 1;
		left -= n ? n : 1;
	}
	*out = '\0';
	return json_string(clean);
}
