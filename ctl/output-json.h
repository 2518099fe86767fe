/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON on stdout: one document a command, indented for a terminal, on one line elsewhere. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "shared/writer.h"

/* Writes a document and a newline. */
void output_json(const json_t *document, FILE *out);

/*
 * A long {"schema":1,"flows":[…]} written as its parts arrive, so that memory stays flat. It is
 * one valid document even when the daemon dies in its middle: then it ends with an "error".
 */
struct json_stream {
	struct writer *out; /* emptied by its owner as he likes */
	const char *key;
	bool open; /* the head is written */
	bool any;  /* an element is written */
};

/* The element is JSON text already. */
void json_stream_add(struct json_stream *s, const char *element, size_t length);
/* `error` (may be NULL) is borrowed. */
void json_stream_end(struct json_stream *s, const json_t *error);
