/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON on stdout. Keys keep the order in which the daemon sent them. */
#include "ctl/output-json.h"

#include <stdlib.h>
#include <unistd.h>

void output_json(const json_t *document, FILE *out)
{
	size_t flags = isatty(fileno(out)) ? JSON_INDENT(2) : 0;

	json_dumpf(document, out, flags);
	fputc('\n', out);
}

static void stream_begin(struct json_stream *s)
{
	if (!s->open) {
		writer_literal(s->out, "{\"schema\":1,\"");
		writer_text(s->out, s->key);
		writer_literal(s->out, "\":[");
	}
	s->open = true;
}

void json_stream_add(struct json_stream *s, const char *element, size_t length)
{
	stream_begin(s);
	writer_text(s->out, s->any ? ",\n" : "\n");
	writer_bytes(s->out, element, length);
	s->any = true;
}

void json_stream_end(struct json_stream *s, const json_t *error)
{
	char *text = error ? json_dumps(error, JSON_COMPACT) : NULL;

	stream_begin(s);
	writer_text(s->out, s->any ? "\n]" : "]");
	if (text) {
		writer_literal(s->out, ",\"error\":");
		writer_text(s->out, text);
	}
	writer_literal(s->out, "}\n");
	free(text);
}
