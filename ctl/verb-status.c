/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `stats` and `status`: the counters of the datapath, and how the daemon is doing. */
#include <stdlib.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/output-openmetrics.h"
#include "ctl/output-table.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"

#define ATTACHMENTS_SHOWN 12 /* one screen; -j has them all */

/* The rows of `stats`, by where the answer has them. */
static const struct {
	const char *label;
	const char *group; /* NULL: the answer itself */
	const char *key;
	bool bytes;
} stats_rows[] = {
	{"packets seen", NULL, "packets", false},
	{"bytes seen", NULL, "bytes", true},
	{"packets redirected", NULL, "redirected", false},
	{"bytes redirected", NULL, "redirected_bytes", true},
	{"ICMP errors translated", NULL, "icmp_errors", false},
	{"flow events lost", NULL, "events_lost", false},
	{"flows active", "flows", "active", false},
	{"flows at most", "flows", "max", false},
	{"flows created", "flows", "created", false},
	{"flows expired", "flows", "expired", false},
	{"flows evicted for room", "flows", "evicted", false},
	{"flows not inserted", "flows", "insert_failed", false},
};

static void add_row(struct table *t, const char *label, json_int_t value, bool as_bytes)
{
	char number[TEXT_BYTES_LEN];

	if (as_bytes)
		text_format_bytes((uint64_t)value, number);
	else
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, value);
	table_add_row(t, TEXT_PLAIN, (const char *const[]){label, number});
}

/* Counts by reason, those that have happened. */
static void add_reasons(struct table *t, const char *label, json_t *reasons)
{
	const char *reason;
	char text[128];
	json_t *count;

	json_object_foreach (reasons, reason, count) {
		if (json_integer_value(count) == 0)
			continue;
		snprintf(text, sizeof(text), "%s: %s", label, reason);
		add_row(t, text, json_integer_value(count), false);
	}
}

/* What there is of the fullest room for source ports; the strings are borrowed. */
struct source_ports {
	const char *protocol, *src, *dst;
	json_int_t dport, used, of;
};

/* False when there is none, or the answer is not understood. */
static bool unpack_source_ports(const json_t *json, struct source_ports *ret)
{
	return json_unpack((json_t *)json, "{s:s,s:s,s:s,s:I,s:I,s:I}", "protocol", &ret->protocol,
			   "src", &ret->src, "dst", &ret->dst, "dport", &ret->dport, "used",
			   &ret->used, "of", &ret->of) == 0;
}

/* "192.0.2.1 to tcp 198.51.100.2:80" */
static void format_room(const struct source_ports *p, char *ret, size_t size)
{
	bool brackets = strchr(p->dst, ':');

	snprintf(ret, size, "%s to %s %s%s%s:%" JSON_INTEGER_FORMAT, p->src, p->protocol,
		 brackets ? "[" : "", p->dst, brackets ? "]" : "", p->dport);
}

static void add_source_ports(struct table *t, const json_t *json)
{
	struct source_ports ports;
	char room[128], label[160];

	if (!unpack_source_ports(json, &ports))
		return;
	format_room(&ports, room, sizeof(room));
	snprintf(label, sizeof(label), "source ports in use: %s", room);
	add_row(t, label, ports.used, false);
}

static void print_stats(const json_t *answer)
{
	static const struct table_column columns[] = {
		{.title = "COUNTER", .flexible = true},
		{.title = "VALUE", .right = true},
	};
	_cleanup_(table_freep) struct table *t = table_new(columns, 2);
	size_t i;

	for (i = 0; i < sizeof(stats_rows) / sizeof(stats_rows[0]); i++) {
		const char *group = stats_rows[i].group;
		const json_t *object = group ? json_object_get(answer, group) : answer;
		const json_t *value = json_object_get(object, stats_rows[i].key);

		if (json_is_integer(value))
			add_row(t, stats_rows[i].label, json_integer_value(value),
				stats_rows[i].bytes);
	}
	add_reasons(t, "flows not inserted", json_object_get(answer, "insert_failures"));
	add_reasons(t, "dropped", json_object_get(answer, "drops"));
	add_reasons(t, "passed on", json_object_get(answer, "passed"));
	add_reasons(t, "source ports tried", json_object_get(answer, "port_searches"));
	add_source_ports(t, json_object_get(answer, "source_ports"));
	table_print(t, text_columns(stdout), stdout);
}

/* Three questions on one connection; printed only when all of it is there. */
static enum exit_code print_openmetrics(const struct options *o, struct failure *f)
{
	_cleanup_(client_freep) struct client *c = NULL;
	json_t *stats = NULL, *list = NULL, *status = NULL;
	enum exit_code code = client_open(options_socket(o), &c, f);

	if (code == CTL_DONE)
		code = client_ask(c, "io.redirectd.Stats", &stats, f);
	if (code == CTL_DONE)
		code = client_ask(c, "io.redirectd.List", &list, f);
	if (code == CTL_DONE)
		code = client_ask(c, "io.redirectd.Status", &status, f);
	if (code == CTL_DONE)
		output_openmetrics(stats, list, status, stdout);
	json_decref(stats);
	json_decref(list);
	json_decref(status);
	return code;
}

enum exit_code verb_stats(const struct options *o, struct failure *f)
{
	enum output_format format;
	json_t *answer = NULL;
	enum exit_code code;

	code = options_output(o, verb_formats(o->verb), &format, f);
	if (code != CTL_DONE)
		return code;
	if (format == OUTPUT_OPENMETRICS)
		return print_openmetrics(o, f);
	code = client_call(options_socket(o), "io.redirectd.Stats", NULL, &answer, f);
	if (code == CTL_DONE && format == OUTPUT_JSON)
		output_json(answer, stdout);
	else if (code == CTL_DONE)
		print_stats(answer);
	json_decref(answer);
	return code;
}

/* What `status` shows; strings and objects are borrowed from the answer. */
struct status {
	const char *version, *config, *pins, *socket, *reload_error;
	json_int_t pid, uptime_ms, rules, rules_enabled, runtime, differ, active, max;
	int adopted;
	const char *resize_error;
	const json_t *resize;
	const json_t *interfaces, *attachments, *source_ports, *pending, *unattached;
	const json_t *flows;
	json_t *insert_failures;
};

static enum exit_code unpack_status(const json_t *json, struct status *ret, struct failure *f)
{
	json_error_t error;

	*ret = (struct status){0};
	if (json_unpack_ex((json_t *)json, &error, 0,
			   "{s:s,s:I,s:I,s:s,s:s,s:b,s:{s:I,s:I,s:I,s:I},s:o,s:o,s:{s:I,s:I}}",
			   "version", &ret->version, "pid", &ret->pid, "uptime_ms", &ret->uptime_ms,
			   "pins", &ret->pins, "socket", &ret->socket, "adopted", &ret->adopted,
			   "rules", "total", &ret->rules, "enabled", &ret->rules_enabled, "runtime",
			   &ret->runtime, "differ", &ret->differ, "interfaces", &ret->interfaces,
			   "attachments", &ret->attachments, "flows", "active", &ret->active, "max",
			   &ret->max) < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood: %s",
				   error.text);
	/* These may be null. */
	ret->config = json_string_value(json_object_get(json, "config"));
	ret->reload_error = json_string_value(json_object_get(json, "last_reload_error"));
	ret->resize = json_object_get(json, "resize");
	ret->resize_error = json_string_value(json_object_get(json, "resize_error"));
	ret->source_ports = json_object_get(json, "source_ports");
	ret->pending = json_object_get(json, "pending");
	ret->unattached = json_object_get(json, "unattached");
	ret->flows = json_object_get(json, "flows");
	ret->insert_failures = json_object_get(json, "insert_failures");
	return CTL_DONE;
}

/* "lo eth0", or a word for none. The caller frees. */
static char *join_strings(const json_t *array, const char *none)
{
	char *text = NULL;
	size_t length, i;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		abort();
	for (i = 0; i < json_array_size(array); i++)
		fprintf(out, "%s%s", i ? " " : "", json_string_value(json_array_get(array, i)));
	if (i == 0)
		fputs(none, out);
	if (fclose(out) != 0)
		abort();
	return text;
}

/* "lo (tcx), eth0 (tcx) and 7 more". The caller frees. */
static char *join_attachments(const json_t *array)
{
	size_t length, i, n = json_array_size(array);
	const char *interface, *hook;
	char *text = NULL;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		abort();
	for (i = 0; i < n && i < ATTACHMENTS_SHOWN; i++)
		if (json_unpack(json_array_get(array, i), "{s:s,s:s}", "interface", &interface,
				"hook", &hook) == 0)
			fprintf(out, "%s%s (%s)", i ? ", " : "", interface, hook);
	if (n > ATTACHMENTS_SHOWN)
		fprintf(out, " and %zu more", n - ATTACHMENTS_SHOWN);
	if (n == 0)
		fputs("no interface", out);
	if (fclose(out) != 0)
		abort();
	return text;
}

static void print_flows(const struct status *s)
{
	const json_t *unassured = json_object_get(s->flows, "unassured");
	const json_t *rule = json_object_get(s->flows, "fullest_rule");
	size_t length;
	char text[192];

	length = (size_t)snprintf(text, sizeof(text),
				  "%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " (%.1f %%)",
				  s->active, s->max,
				  s->max > 0 ? 100.0 * (double)s->active / (double)s->max : 0.0);
	if (json_is_integer(unassured))
		length += (size_t)snprintf(text + length, sizeof(text) - length,
					   ", %" JSON_INTEGER_FORMAT " unassured",
					   json_integer_value(unassured));
	if (json_is_object(rule))
		snprintf(text + length, sizeof(text) - length,
			 "; most of rule %" JSON_INTEGER_FORMAT ": %" JSON_INTEGER_FORMAT,
			 json_integer_value(json_object_get(rule, "id")),
			 json_integer_value(json_object_get(rule, "active")));
	text_print_line("flows", text);
}

/* "512 packets of new connections: table_full 500, ports_full 12"; nothing when there was none. */
static void print_insert_failures(json_t *reasons)
{
	char *list = NULL, *text = NULL;
	json_int_t sum = 0;
	const char *reason;
	size_t length;
	json_t *count;
	FILE *out = open_memstream(&list, &length);

	if (!out)
		abort();
	json_object_foreach (reasons, reason, count) {
		json_int_t n = json_integer_value(count);

		if (n)
			fprintf(out, "%s%s %" JSON_INTEGER_FORMAT, sum ? ", " : "", reason, n);
		sum += n;
	}
	if (fclose(out) != 0 ||
	    asprintf(&text, "%" JSON_INTEGER_FORMAT " packets of new connections: %s", sum, list) <
		    0)
		abort();
	if (sum)
		text_print_line("turned away", text);
	free(text);
	free(list);
}

static void print_source_ports(const json_t *json)
{
	struct source_ports ports;
	char room[128], text[192];

	if (!unpack_source_ports(json, &ports))
		return;
	format_room(&ports, room, sizeof(room));
	snprintf(text, sizeof(text),
		 "%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " (%.1f %%) of %s", ports.used,
		 ports.of, ports.of > 0 ? 100.0 * (double)ports.used / (double)ports.of : 0.0,
		 room);
	text_print_line("source ports", text);
}

/* What becomes of the flow table, or why nothing does. */
static void print_resize(const struct status *s)
{
	char text[128];

	if (s->resize_error)
		text_print_line("flows-max", s->resize_error);
	if (!json_is_object(s->resize))
		return;
	snprintf(text, sizeof(text),
		 "%" JSON_INTEGER_FORMAT " flows moved to a table for %" JSON_INTEGER_FORMAT,
		 json_integer_value(json_object_get(s->resize, "moved")),
		 json_integer_value(json_object_get(s->resize, "max")));
	text_print_line("resizing", text);
}

/* A change that goes back by itself is the first thing to know. */
static void print_pending(const json_t *pending)
{
	json_int_t n = json_integer_value(json_object_get(pending, "changes"));
	char text[160], span[TEXT_SPAN_LEN];

	if (!json_is_object(pending))
		return;
	text_format_span((uint64_t)json_integer_value(json_object_get(pending, "remaining_ms")),
			 span);
	snprintf(text, sizeof(text),
		 "%" JSON_INTEGER_FORMAT
		 " rule%s to go back in %s, unless `redirectctl confirm` comes",
		 n, n == 1 ? "" : "s", span);
	text_print_line("pending", text);
}

/* The problems that the daemon names, in words for people; others as they are. */
static const struct {
	const char *name, *words, *todo;
	const char *critical; /* the words where the answer's member `name` has that level */
} problems[] = {
	{"reload", "the last reload failed", "everything is as it was before; see below", NULL},
	{"unattached", "it is not attached everywhere", "see `redirectctl doctor`", NULL},
	{"flows", "the flow table is nearly full", "raise flows-max; see `redirectctl doctor`",
	 "the flow table is full, or less than 5 % from it"},
	{"flows_max", "the flow table has another size than the configuration says", "see below",
	 NULL},
	{"source_ports", "the source ports towards a target are nearly used up",
	 "see `redirectctl doctor`",
	 "the source ports towards a target are used up, or less than 5 % from it"},
	{"turned_away", "new connections were turned away within the last minute", "see below",
	 NULL},
};

static bool is_critical(const json_t *answer, const char *name)
{
	const char *level =
		json_string_value(json_object_get(json_object_get(answer, name), "level"));

	return level && strcmp(level, "critical") == 0;
}

static void print_problem(const json_t *answer, const char *name)
{
	bool critical = is_critical(answer, name);
	enum text_style style = critical ? TEXT_RED : TEXT_YELLOW;
	size_t i = 0;

	while (i < sizeof(problems) / sizeof(problems[0]) && strcmp(problems[i].name, name) != 0)
		i++;
	printf("%s%-12s ", text_style_begin(stdout, style), critical ? "critical" : "problem");
	if (i < sizeof(problems) / sizeof(problems[0]))
		printf("%s: %s",
		       critical && problems[i].critical ? problems[i].critical : problems[i].words,
		       problems[i].todo);
	else
		text_write_safe(name, strlen(name), stdout);
	printf("%s\n", text_style_end(stdout, style));
}

static void print_health(const json_t *answer)
{
	const json_t *names = json_object_get(answer, "problems");

	if (json_is_array(names) && json_array_size(names) == 0)
		printf("%s%-12s%s %sgood%s\n", text_style_begin(stdout, TEXT_BOLD), "health",
		       text_style_end(stdout, TEXT_BOLD), text_style_begin(stdout, TEXT_GREEN),
		       text_style_end(stdout, TEXT_GREEN));
	for (size_t i = 0; i < json_array_size(names); i++)
		print_problem(answer, json_string_value(json_array_get(names, i)));
}

static void print_status(const json_t *answer, const struct status *s)
{
	_cleanup_(freep) char *interfaces = join_strings(s->interfaces, "every one");
	_cleanup_(freep) char *unattached = join_strings(s->unattached, "");
	_cleanup_(freep) char *attachments = join_attachments(s->attachments);
	char text[128], span[TEXT_SPAN_LEN];

	print_health(answer);
	text_print_line("version", s->version);
	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT ", up %s%s", s->pid,
		 text_format_span((uint64_t)s->uptime_ms, span),
		 s->adopted ? ", took over a running datapath" : "");
	text_print_line("process", text);
	text_print_line("config", s->config ? s->config : "none read");
	text_print_line("last reload", s->reload_error ? s->reload_error : "no error");
	snprintf(text, sizeof(text),
		 "%" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT " enabled; %" JSON_INTEGER_FORMAT
		 " in no file, %" JSON_INTEGER_FORMAT " otherwise than in the file",
		 s->rules, s->rules_enabled, s->runtime, s->differ);
	text_print_line("rules", text);
	print_pending(s->pending);
	print_flows(s);
	print_resize(s);
	print_insert_failures(s->insert_failures);
	print_source_ports(s->source_ports);
	text_print_line("interfaces", interfaces);
	text_print_line("attached to", attachments);
	if (*unattached)
		text_print_line("but not to", unattached);
	text_print_line("pins", s->pins);
	text_print_line("socket", s->socket);
}

enum exit_code verb_status(const struct options *o, struct failure *f)
{
	json_t *answer = NULL;
	struct status status;
	enum exit_code code;

	code = client_call(options_socket(o), "io.redirectd.Status", NULL, &answer, f);
	if (code == CTL_DONE && options_has(o, OPTION_JSON)) {
		output_json(answer, stdout);
	} else if (code == CTL_DONE) {
		code = unpack_status(answer, &status, f);
		if (code == CTL_DONE)
			print_status(answer, &status);
	}
	json_decref(answer);
	return code;
}
