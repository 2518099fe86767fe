/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `trace`: what the loaded datapath would do with a packet, and why. */
#include <stdlib.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"
#include "shared/addr.h"

#define OPERANDS_LEAST 3 /* PROTO SRC:PORT DST:PORT */

/* "192.0.2.1:80" or "[2001:db8::1]:80" into the parameters of that name. */
static enum exit_code read_end(const char *text, const char *name, const char *port_name,
			       json_t *parameters, struct failure *f)
{
	const char *colon = strrchr(text, ':');
	char address[IP_PREFIX_STRLEN], *end;
	struct ip_prefix prefix;
	unsigned long port;

	if (!colon || (size_t)(colon - text) >= sizeof(address))
		return failure_set(f, CTL_USAGE, "\"%s\" is not ADDRESS:PORT", text);
	memcpy(address, text, (size_t)(colon - text));
	address[colon - text] = '\0';
	port = strtoul(colon + 1, &end, 10);
	if (*end || end == colon + 1 || port < 1 || port > UINT16_MAX)
		return failure_set(f, CTL_USAGE, "\"%s\" is no port: it is 1 to 65535", colon + 1);
	if ((strchr(address, ':') && address[0] != '[') || strchr(address, '/') ||
	    ip_prefix_parse(address, &prefix) < 0) {
		failure_set(f, CTL_USAGE, "\"%s\" is no address", address);
		if (strchr(address, ':'))
			failure_hint(f, "IPv6 addresses stand in brackets: [2001:db8::1]:80");
		return CTL_USAGE;
	}
	json_object_set_new(parameters, name, json_string(ip_address_format(&prefix, address)));
	json_object_set_new(parameters, port_name, json_integer((json_int_t)port));
	return CTL_DONE;
}

static enum exit_code read_place(const struct options *o, json_t *parameters, struct failure *f)
{
	const char *const *words = o->operands + OPERANDS_LEAST;

	if (o->n_operands == OPERANDS_LEAST)
		return CTL_DONE;
	if (o->n_operands != OPERANDS_LEAST + 2 || strcmp(words[0], "on") != 0)
		return failure_set(f, CTL_USAGE, "behind DST:PORT can only be: on IFACE");
	json_object_set_new(parameters, "interface", json_string(words[1]));
	return CTL_DONE;
}

static enum exit_code read_packet(const struct options *o, json_t *parameters, struct failure *f)
{
	const char *protocol = o->operands[0];
	enum exit_code code = CTL_DONE;

	if (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0)
		return failure_set(f, CTL_USAGE, "\"%s\" is no protocol: it is tcp or udp",
				   protocol);
	json_object_set_new(parameters, "protocol", json_string(protocol));
	code = read_end(o->operands[1], "src", "sport", parameters, f);
	if (code == CTL_DONE)
		code = read_end(o->operands[2], "dst", "dport", parameters, f);
	if (code == CTL_DONE && !strchr(o->operands[1], '[') != !strchr(o->operands[2], '['))
		code = failure_set(f, CTL_USAGE,
				   "source and destination are of different families");
	return code == CTL_DONE ? read_place(o, parameters, f) : code;
}

/* ---- output ---- */

static const char *string_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* "192.0.2.1:40000 -> 10.0.0.2:80" */
static void print_tuple(const char *label, const json_t *t)
{
	const char *src = string_of(t, "src"), *dst = string_of(t, "dst");
	bool brackets = src && strchr(src, ':');
	char text[160];

	if (!src || !dst)
		return;
	snprintf(text, sizeof(text),
		 brackets ? "[%s]:%" JSON_INTEGER_FORMAT " -> [%s]:%" JSON_INTEGER_FORMAT
			  : "%s:%" JSON_INTEGER_FORMAT " -> %s:%" JSON_INTEGER_FORMAT,
		 src, json_integer_value(json_object_get(t, "sport")), dst,
		 json_integer_value(json_object_get(t, "dport")));
	text_print_line(label, text);
}

static const struct {
	const char *stage, *label;
} stages[] = {
	{"sent", "packet"},	  {"in", "  coming in"},       {"out", "  leaving"},
	{"reply_sent", "answer"}, {"reply_in", "  coming in"}, {"reply_out", "  leaving"},
};

/* By the rule's id in the answer. */
static const json_t *find_rule(const json_t *answer, json_int_t id)
{
	const json_t *rules = json_object_get(answer, "rules");

	for (size_t i = 0; i < json_array_size(rules); i++)
		if (json_integer_value(json_object_get(json_array_get(rules, i), "id")) == id)
			return json_array_get(rules, i);
	return NULL;
}

static void print_verdict(const json_t *answer)
{
	static const struct {
		const char *verdict;
		enum text_style style;
	} styles[] = {{"redirected", TEXT_GREEN}, {"passed", TEXT_YELLOW}, {"dropped", TEXT_RED}};
	const char *verdict = string_of(answer, "verdict"), *reason = string_of(answer, "reason");
	json_int_t id = json_integer_value(json_object_get(answer, "rule"));
	const json_t *rule = find_rule(answer, id);
	enum text_style style = TEXT_PLAIN;

	for (size_t i = 0; verdict && i < sizeof(styles) / sizeof(styles[0]); i++)
		if (strcmp(styles[i].verdict, verdict) == 0)
			style = styles[i].style;
	printf("%s%s%s", text_style_begin(stdout, style), verdict ? verdict : "?",
	       text_style_end(stdout, style));
	if (reason)
		printf(" untouched: %s", reason);
	if (id && rule) {
		printf(" by rule %" JSON_INTEGER_FORMAT ": ", id);
		text_write_safe(string_of(rule, "rule"), strlen(string_of(rule, "rule")), stdout);
	} else if (id) {
		printf(" by rule %" JSON_INTEGER_FORMAT ", as it was then", id);
	} else if (!reason) {
		printf(" by no rule: only its source port changes, since another flow has it");
	}
	putchar('\n');
}

static void print_flow(const json_t *answer)
{
	static const struct {
		const char *ended, *words;
	} endings[] = {
		{"expired", "a new one; the one that was there has expired"},
		{"reopened", "a new one; the connection that was there is over"},
		{"rule", "a new one; the rules say otherwise now than for the one that was there"},
	};
	const char *ended = string_of(answer, "ended"), *words = "a new one";
	const json_t *flow = json_object_get(answer, "flow");
	char text[96];

	if (!json_is_object(flow))
		return;
	for (size_t i = 0; ended && i < sizeof(endings) / sizeof(endings[0]); i++)
		if (strcmp(endings[i].ended, ended) == 0)
			words = endings[i].words;
	snprintf(text, sizeof(text), "there already: %s", string_of(flow, "state"));
	text_print_line("flow", json_is_true(json_object_get(answer, "new")) ? words : text);
	if (json_is_true(json_object_get(answer, "full")))
		text_print_line("room", "the table is full: an unassured flow has to go for it");
	if (json_is_true(json_object_get(answer, "port_changed")))
		text_print_line("source port", "changed: the client's own is taken towards the "
					       "target");
}

/* Every rule of the port but the one that takes the packet. */
static void print_others(const json_t *answer)
{
	const json_t *rules = json_object_get(answer, "rules");
	json_int_t more = json_integer_value(json_object_get(answer, "more"));

	for (size_t i = 0; i < json_array_size(rules); i++) {
		const json_t *r = json_array_get(rules, i);
		const char *rule = string_of(r, "rule"), *why = string_of(r, "why");
		const char *message = string_of(r, "message");

		if (!rule || !why || !message || strcmp(why, "takes") == 0)
			continue;
		printf("%snot by rule%s %" JSON_INTEGER_FORMAT ": ",
		       text_style_begin(stdout, TEXT_BOLD), text_style_end(stdout, TEXT_BOLD),
		       json_integer_value(json_object_get(r, "id")));
		text_write_safe(rule, strlen(rule), stdout);
		printf("\n    %s\n", message);
	}
	if (more)
		printf("and %" JSON_INTEGER_FORMAT " more rules of that port\n", more);
	if (json_array_size(rules) == 0)
		puts("no rule has that port");
}

static void print(const struct options *o, const json_t *answer)
{
	const json_t *tuples = json_object_get(answer, "stages");
	const char *interface = string_of(answer, "interface");

	print_verdict(answer);
	if (o->n_operands == OPERANDS_LEAST && interface)
		text_print_line("comes in on", interface);
	print_flow(answer);
	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
		print_tuple(stages[i].label, json_object_get(tuples, stages[i].stage));
	print_others(answer);
}

enum exit_code verb_trace(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object(), *answer = NULL;
	enum exit_code code = read_packet(o, parameters, f);

	if (code == CTL_DONE)
		code = client_call(options_socket(o), "io.redirectd.Trace", parameters, &answer, f);
	if (code == CTL_DONE && options_has(o, OPTION_JSON))
		output_json(answer, stdout);
	else if (code == CTL_DONE)
		print(o, answer);
	json_decref(parameters);
	json_decref(answer);
	return code;
}
