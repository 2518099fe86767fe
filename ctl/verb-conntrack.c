/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `conntrack list` and `conntrack count`. A list arrives in parts and leaves as it arrives: memory
 * stays flat however many flows there are.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-conntrack.h"
#include "ctl/output-json.h"
#include "ctl/verbs.h"
#include "shared/addr.h"
#include "shared/words.h"

static const char *const protocol_names[] = {"tcp", "udp"};
static const char *const state_names[] = {
	"SYN_SENT", "SYN_RECV",	 "ESTABLISHED", "FIN_WAIT",  "CLOSE_WAIT",
	"LAST_ACK", "TIME_WAIT", "CLOSE",	"UNREPLIED", "REPLIED",
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A word of a fixed set, in any letter case. */
static enum exit_code set_word(json_t *parameters, const char *key, const char *value,
			       const char *const *words, size_t n_words, struct failure *f)
{
	const char *closest;
	size_t i;

	for (i = 0; i < n_words; i++)
		if (strcasecmp(words[i], value) == 0) {
			json_object_set_new(parameters, key, json_string(words[i]));
			return CTL_DONE;
		}
	closest = words_closest(value, strlen(value), words, n_words);
	return failure_set(f, CTL_USAGE, "unknown %s \"%s\"%s%s%s", key, value,
			   closest ? "; did you mean \"" : "", closest ? closest : "",
			   closest ? "\"?" : "");
}

static enum exit_code set_protocol(json_t *parameters, const char *key, const char *value,
				   struct failure *f)
{
	return set_word(parameters, key, value, protocol_names, ARRAY_SIZE(protocol_names), f);
}

static enum exit_code set_state(json_t *parameters, const char *key, const char *value,
				struct failure *f)
{
	return set_word(parameters, key, value, state_names, ARRAY_SIZE(state_names), f);
}

static enum exit_code set_address(json_t *parameters, const char *key, const char *value,
				  struct failure *f)
{
	struct ip_prefix prefix;

	if (ip_prefix_parse(value, &prefix) < 0)
		return failure_set(f, CTL_USAGE, "--%s %s: not an address or prefix", key, value);
	json_object_set_new(parameters, key, json_string(value));
	return CTL_DONE;
}

static enum exit_code set_port(json_t *parameters, const char *key, const char *value,
			       struct failure *f)
{
	unsigned long port;
	char *end;

	errno = 0;
	port = strtoul(value, &end, 10);
	if (errno || !isdigit((unsigned char)*value) || *end || port < 1 || port > UINT16_MAX)
		return failure_set(f, CTL_USAGE, "--%s %s: not a port from 1 to 65535", key, value);
	json_object_set_new(parameters, key, json_integer((json_int_t)port));
	return CTL_DONE;
}

static enum exit_code set_rule(json_t *parameters, const char *key, const char *value,
			       struct failure *f)
{
	if (json_object_set_new(parameters, key, json_string(value)) < 0)
		return failure_set(f, CTL_USAGE, "--%s: the name is not UTF-8", key);
	return CTL_DONE;
}

static const struct {
	enum option_id option;
	const char *key;
	enum exit_code (*set)(json_t *parameters, const char *key, const char *value,
			      struct failure *f);
} filter_table[] = {
	{OPTION_PROTOCOL, "protocol", set_protocol},
	{OPTION_SRC, "src", set_address},
	{OPTION_DST, "dst", set_address},
	{OPTION_SPORT, "sport", set_port},
	{OPTION_DPORT, "dport", set_port},
	{OPTION_STATE, "state", set_state},
	{OPTION_RULE, "rule", set_rule},
};

/* The parameters that the options ask for; the caller drops them. */
static enum exit_code make_filter(const struct options *o, json_t *parameters, struct failure *f)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(filter_table); i++) {
		const char *value = o->values[filter_table[i].option];

		if (value &&
		    filter_table[i].set(parameters, filter_table[i].key, value, f) != CTL_DONE)
			return f->code;
	}
	return CTL_DONE;
}

static enum exit_code print_flow(const json_t *flow, struct json_stream *stream, struct failure *f)
{
	json_error_t error;

	if (stream) {
		json_stream_add(stream, "flows", flow);
		return CTL_DONE;
	}
	if (output_conntrack(flow, stdout, &error) < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood: %s",
				   error.text);
	return CTL_DONE;
}

static enum exit_code print_flows(const json_t *answer, struct json_stream *stream,
				  struct failure *f)
{
	const json_t *flows = json_object_get(answer, "flows");
	size_t i;

	for (i = 0; i < json_array_size(flows); i++)
		if (print_flow(json_array_get(flows, i), stream, f) != CTL_DONE)
			return f->code;
	return CTL_DONE;
}

/* Prints every reply. Stops early, and quietly, when nobody reads the output any more. */
static enum exit_code receive_flows(struct client *c, struct json_stream *stream, struct failure *f)
{
	enum exit_code code = CTL_DONE;
	bool continues = true;

	while (code == CTL_DONE && continues && !ferror(stdout)) {
		json_t *answer = NULL;

		code = client_receive(c, &answer, &continues, f);
		if (code == CTL_DONE)
			code = print_flows(answer, stream, f);
		json_decref(answer);
	}
	return code;
}

/* Ends the document; an error in its middle becomes its last member. */
static void end_stream(struct json_stream *stream, struct failure *f)
{
	json_t *error = NULL;

	if (f->code != CTL_DONE) {
		if (!stream->open)
			return; /* nothing is printed yet: main prints the error alone */
		error = failure_to_json(f);
		f->reported = true;
	}
	json_stream_end(stream, "flows", error);
	json_decref(error);
}

static enum exit_code stream_flows(const struct options *o, const json_t *parameters,
				   struct failure *f)
{
	_cleanup_(client_freep) struct client *c = NULL;
	struct json_stream stream = {.out = stdout};
	struct json_stream *json = options_has(o, OPTION_JSON) ? &stream : NULL;
	enum exit_code code = client_open(options_socket(o), &c, f);

	if (code == CTL_DONE)
		code = client_send(c, "io.redirectd.Conntrack", parameters, true, f);
	if (code == CTL_DONE)
		code = receive_flows(c, json, f);
	if (json)
		end_stream(json, f);
	return code;
}

enum exit_code verb_conntrack_list(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object();
	enum exit_code code = make_filter(o, parameters, f);

	if (code == CTL_DONE)
		code = stream_flows(o, parameters, f);
	json_decref(parameters);
	return code;
}

static enum exit_code print_count(const struct options *o, const json_t *answer, struct failure *f)
{
	const json_t *count = json_object_get(answer, "count");

	if (!json_is_integer(count))
		return failure_set(f, CTL_FAILED, "the daemon's answer has no count");
	if (options_has(o, OPTION_JSON))
		output_json(answer, stdout);
	else
		printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(count));
	return CTL_DONE;
}

enum exit_code verb_conntrack_count(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object(), *answer = NULL;
	enum exit_code code = make_filter(o, parameters, f);

	if (code == CTL_DONE)
		code = client_call(options_socket(o), "io.redirectd.ConntrackCount", parameters,
				   &answer, f);
	if (code == CTL_DONE)
		code = print_count(o, answer, f);
	json_decref(parameters);
	json_decref(answer);
	return code;
}
