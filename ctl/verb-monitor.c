/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `monitor`: flow events as they come, a line each, in the words of `redirectd -v`. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/filter.h"
#include "ctl/options.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"

#define SAMPLE_DEFAULT 1024
#define SAMPLE_MOST    (1 << 20)

static enum exit_code set_packets(const struct options *o, json_t *parameters, struct failure *f)
{
	const char *value = o->values[OPTION_PACKETS];
	unsigned long n = SAMPLE_DEFAULT;
	char *end;

	if (!value)
		return CTL_DONE;
	if (*value) {
		errno = 0;
		n = strtoul(value, &end, 10);
		if (errno || !isdigit((unsigned char)*value) || *end || n < 1 || n > SAMPLE_MOST)
			return failure_set(f, CTL_USAGE, "--packets=%s: not a number from 1 to %d",
					   value, SAMPLE_MOST);
	}
	json_object_set_new(parameters, "packets", json_integer((json_int_t)n));
	return CTL_DONE;
}

static void write_safe(const char *s, FILE *out)
{
	text_write_safe(s, strlen(s), out);
}

static void write_word(const char *label, const json_t *object, const char *key, FILE *out)
{
	const char *value = json_string_value(json_object_get(object, key));

	if (!value)
		return;
	fputs(label, out);
	write_safe(value, out);
}

static void write_number(const char *label, const json_t *object, const char *key, FILE *out)
{
	fprintf(out, "%s%" JSON_INTEGER_FORMAT, label,
		json_integer_value(json_object_get(object, key)));
}

static void write_tuple(const json_t *t, bool counts, FILE *out)
{
	write_word(" src=", t, "src", out);
	write_word(" dst=", t, "dst", out);
	write_number(" sport=", t, "sport", out);
	write_number(" dport=", t, "dport", out);
	if (!counts)
		return;
	write_number(" packets=", t, "packets", out);
	write_number(" bytes=", t, "bytes", out);
}

static void print_text(const json_t *event, FILE *out)
{
	const json_t *flow = json_object_get(event, "flow");
	const json_t *packet = json_object_get(event, "packet");
	const char *reason = json_string_value(json_object_get(event, "reason"));
	const char *kind = json_string_value(json_object_get(event, "event"));
	bool ended = kind && strcmp(kind, "DESTROY") == 0;

	write_word("", event, "event", out);
	write_word(" ", flow, "protocol", out);
	if (json_is_object(packet)) {
		write_word(" ", packet, "direction", out);
		write_number(" length=", packet, "length", out);
	}
	write_word(" ", flow, "state", out);
	write_tuple(json_object_get(flow, "original"), ended, out);
	write_tuple(json_object_get(flow, "reply"), ended, out);
	write_word(" on ", flow, "interface", out);
	write_number(" rule=", flow, "rule", out);
	if (reason) {
		fputs(" (", out);
		write_safe(reason, out);
		fputc(')', out);
	}
	fputc('\n', out);
}

static void print_json(const json_t *event, FILE *out)
{
	json_t *line = json_pack("{s:i}", "schema", 1);

	json_object_update(line, (json_t *)event);
	json_dumpf(line, out, JSON_COMPACT);
	fputc('\n', out);
	json_decref(line);
}

/* What is gone is told where it is missing. */
static void print_lost(bool as_json, json_int_t now, json_int_t total)
{
	if (as_json)
		printf("{\"schema\":1,\"event\":\"LOST\",\"lost\":%" JSON_INTEGER_FORMAT
		       ",\"total\":%" JSON_INTEGER_FORMAT "}\n",
		       now, total);
	else
		fprintf(stderr,
			"%s: %" JSON_INTEGER_FORMAT " events lost, %" JSON_INTEGER_FORMAT
			" so far: they came too fast\n",
			program_invocation_short_name, now, total);
}

static enum exit_code print_reply(const json_t *answer, bool as_json, json_int_t *lost,
				  struct failure *f)
{
	const json_t *events = json_object_get(answer, "events");
	json_int_t total = json_integer_value(json_object_get(answer, "lost"));
	size_t i;

	if (!json_is_array(events))
		return failure_set(f, CTL_FAILED, "the daemon's answer has no events");
	for (i = 0; i < json_array_size(events); i++) {
		if (as_json)
			print_json(json_array_get(events, i), stdout);
		else
			print_text(json_array_get(events, i), stdout);
	}
	if (total > *lost)
		print_lost(as_json, total - *lost, total);
	*lost = total;
	fflush(stdout); /* watched while it comes */
	return CTL_DONE;
}

/* The first reply says that the daemon listens now: people and scripts may want to know. */
static void announce(const struct options *o)
{
	if (!options_has(o, OPTION_QUIET))
		fputs("watching flows; Ctrl-C ends\n", stderr);
}

static enum exit_code print_events(const struct options *o, struct client *c, struct failure *f)
{
	enum exit_code code = CTL_DONE;
	bool continues = true, first = true;
	json_int_t lost = 0;

	while (code == CTL_DONE && continues && !ferror(stdout)) {
		json_t *answer = NULL;

		code = client_receive(c, &answer, &continues, f);
		if (code == CTL_DONE && first)
			announce(o);
		first = false;
		if (code == CTL_DONE)
			code = print_reply(answer, options_has(o, OPTION_JSON), &lost, f);
		json_decref(answer);
	}
	return code;
}

static enum exit_code watch(const struct options *o, const json_t *parameters, struct failure *f)
{
	_cleanup_(client_freep) struct client *c = NULL;
	enum exit_code code = client_open(options_socket(o), &c, f);

	if (code == CTL_DONE)
		code = client_send(c, "io.redirectd.Monitor", parameters, true, f);
	if (code != CTL_DONE)
		return code;
	client_set_timeout(c, 0);
	return print_events(o, c, f);
}

enum exit_code verb_monitor(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object();
	enum exit_code code = filter_make(o, parameters, f);

	if (code == CTL_DONE)
		code = set_packets(o, parameters, f);
	if (code == CTL_DONE)
		code = watch(o, parameters, f);
	json_decref(parameters);
	return code;
}
