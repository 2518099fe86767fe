/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON on stdout. Keys keep the order in which the daemon sent them. */
#include "ctl/output-json.h"

#include <unistd.h>

void output_json(const json_t *document, FILE *out)
{
	size_t flags = isatty(fileno(out)) ? JSON_INDENT(2) : 0;

	json_dumpf(document, out, flags);
	fputc('\n', out);
}

static void stream_begin(struct json_stream *s, const char *key)
{
	if (!s->open)
		fprintf(s->out, "{\"schema\":1,\"%s\":[", key);
	s->open = true;
}

void json_stream_add(struct json_stream *s, const char *key, const json_t *element)
{
	stream_begin(s, key);
	fputs(s->any ? ",\n" : "\n", s->out);
	json_dumpf(element, s->out, JSON_COMPACT);
	s->any = true;
}

void json_stream_end(struct json_stream *s, const char *key, const json_t *error)
{
	stream_begin(s, key);
	fputs(s->any ? "\n]" : "]", s->out);
	if (error) {
		fputs(",\"error\":", s->out);
		json_dumpf(error, s->out, JSON_COMPACT);
	}
	fputs("}\n", s->out);
}
