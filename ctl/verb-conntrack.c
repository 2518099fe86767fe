/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `conntrack list` and `conntrack count`. A list arrives in parts and leaves as it arrives: memory
 * stays flat however many flows there are.
 */
#include "ctl/call.h"
#include "ctl/filter.h"
#include "ctl/options.h"
#include "ctl/output-conntrack.h"
#include "ctl/output-json.h"
#include "ctl/verbs.h"

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
	enum exit_code code = filter_make(o, parameters, f);

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
	enum exit_code code = filter_make(o, parameters, f);

	if (code == CTL_DONE)
		code = client_call(options_socket(o), "io.redirectd.ConntrackCount", parameters,
				   &answer, f);
	if (code == CTL_DONE)
		code = print_count(o, answer, f);
	json_decref(parameters);
	json_decref(answer);
	return code;
}
