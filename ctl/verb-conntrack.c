/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `conntrack list get delete flush count`. Flows arrive in parts and leave as they arrive: memory
 * stays flat however many there are, and their JSON is read in place and passed on as it is.
 */
#include <inttypes.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/filter.h"
#include "ctl/flow-reply.h"
#include "ctl/options.h"
#include "ctl/output-conntrack.h"
#include "ctl/output-json.h"
#include "ctl/verbs.h"

/* ---- printing ---- */

struct printer {
	enum output_format format;
	struct writer out; /* what is printed once a reply is through */
	struct json_stream stream;
	uint64_t n; /* flows so far */
};

static bool print_flow(void *userdata, const struct json_text *text, const struct flow *flow)
{
	struct printer *p = userdata;

	p->n++;
	if (p->format == OUTPUT_JSON)
		json_stream_add(&p->stream, text->at, text->length);
	else
		output_conntrack(flow, p->format == OUTPUT_EXTENDED, &p->out);
	return true;
}

static enum exit_code print_out(struct printer *p, struct failure *f)
{
	if (p->out.failed)
		return failure_set(f, CTL_FAILED, "out of memory");
	fwrite(p->out.data, 1, p->out.length, stdout);
	p->out.length = 0;
	return CTL_DONE;
}

/* Ends the document; an error in its middle becomes its last member. */
static void end_stream(struct printer *p, struct failure *f)
{
	json_t *error = NULL;

	if (f->code != CTL_DONE) {
		if (!p->stream.open)
			return; /* nothing is printed yet: main prints the error alone */
		error = failure_to_json(f);
		f->reported = true;
	}
	json_stream_end(&p->stream, error);
	json_decref(error);
}

static void print_end(struct printer *p, struct failure *f)
{
	struct failure ignored = {0};

	if (p->format == OUTPUT_JSON)
		end_stream(p, f);
	print_out(p, &ignored);
	failure_clear(&ignored);
	writer_clear(&p->out);
}

/* ---- receiving ---- */

static enum exit_code receive_error(struct client *c, const struct json_text *text,
				    struct failure *f)
{
	json_t *message = json_loadb(text->at, text->length, 0, NULL);
	enum exit_code code = client_error(c, message, f);

	json_decref(message);
	return code;
}

static enum exit_code receive_reply(struct client *c, struct printer *p, struct flow_reply *reply,
				    struct failure *f)
{
	struct json_text text;
	enum exit_code code = client_receive_text(c, &text.at, &text.length, f);
	int r;

	if (code != CTL_DONE)
		return code;
	r = flow_reply_read(&text, p->format == OUTPUT_JSON, print_flow, p, reply);
	if (r == 0 && reply->error)
		return receive_error(c, &text, f);
	code = print_out(p, f);
	if (code == CTL_DONE && r < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood");
	return code;
}

/* Prints every reply. Stops early, and quietly, when nobody reads the output any more. */
static enum exit_code receive_flows(struct client *c, struct printer *p, struct failure *f)
{
	struct flow_reply reply = {.continues = true};
	enum exit_code code = CTL_DONE;

	while (code == CTL_DONE && reply.continues && !ferror(stdout))
		code = receive_reply(c, p, &reply, f);
	return code;
}

static enum exit_code call_for_flows(const struct options *o, const char *method,
				     const json_t *parameters, bool more, struct printer *p,
				     struct failure *f)
{
	_cleanup_(client_freep) struct client *c = NULL;
	enum exit_code code = client_open(options_socket(o), &c, f);

	if (code == CTL_DONE)
		code = client_send(c, method, parameters, more, f);
	return code == CTL_DONE ? receive_flows(c, p, f) : code;
}

static enum exit_code print_begin(const struct options *o, struct printer *p, struct failure *f)
{
	*p = (struct printer){.stream = {.out = &p->out, .key = "flows"}};
	return options_output(o, verb_formats(o->verb), &p->format, f);
}

/* ---- list, get ---- */

static enum exit_code print_flows(const struct options *o, const char *method,
				  const json_t *parameters, bool more, struct failure *f)
{
	struct printer p;
	enum exit_code code = print_begin(o, &p, f);

	if (code != CTL_DONE)
		return code;
	code = call_for_flows(o, method, parameters, more, &p, f);
	print_end(&p, f);
	return code;
}

enum exit_code verb_conntrack_list(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object();
	enum exit_code code = filter_make(o, parameters, f);

	if (code == CTL_DONE)
		code = print_flows(o, "io.redirectd.Conntrack", parameters, true, f);
	json_decref(parameters);
	return code;
}

enum exit_code verb_conntrack_get(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object();
	enum exit_code code = filter_make_tuple(o, parameters, f);

	if (code == CTL_DONE)
		code = print_flows(o, "io.redirectd.ConntrackGet", parameters, false, f);
	json_decref(parameters);
	return code;
}

/* ---- delete, flush ---- */

static const char *done_words(const struct options *o)
{
	return options_has(o, OPTION_DRY_RUN) ? "would be deleted" : "deleted";
}

static void print_number(const struct options *o, uint64_t n, FILE *out)
{
	fprintf(out, "%" PRIu64 " %s %s\n", n, n == 1 ? "flow" : "flows", done_words(o));
}

static enum exit_code delete_flows(const struct options *o, const json_t *parameters,
				   struct failure *f)
{
	struct printer p;
	enum exit_code code = print_begin(o, &p, f);

	if (code != CTL_DONE)
		return code;
	code = call_for_flows(o, "io.redirectd.ConntrackDelete", parameters, true, &p, f);
	if (code == CTL_DONE && p.n == 0)
		code = failure_set(f, CTL_NOT_FOUND, "no flow fits");
	print_end(&p, f);
	/* Beside the flows, as conntrack(8) does it. */
	if (p.n > 0 && p.format != OUTPUT_JSON && !options_has(o, OPTION_QUIET))
		print_number(o, p.n, stderr);
	return code;
}

enum exit_code verb_conntrack_delete(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object();
	enum exit_code code = filter_make(o, parameters, f);

	if (code == CTL_DONE && json_object_size(parameters) == 0) {
		code = failure_set(f, CTL_USAGE, "conntrack delete needs a filter");
		failure_hint(f, "`redirectctl conntrack flush` deletes every flow");
	}
	if (code == CTL_DONE && options_has(o, OPTION_DRY_RUN))
		json_object_set_new(parameters, "dryRun", json_true());
	if (code == CTL_DONE)
		code = delete_flows(o, parameters, f);
	json_decref(parameters);
	return code;
}

/* ---- numbers ---- */

static enum exit_code call_for_number(const struct options *o, const char *method,
				      const json_t *parameters, const char *key, json_int_t *ret,
				      struct failure *f)
{
	json_t *answer = NULL, *number;
	enum exit_code code = client_call(options_socket(o), method, parameters, &answer, f);

	number = json_object_get(answer, key);
	if (code == CTL_DONE && !json_is_integer(number))
		code = failure_set(f, CTL_FAILED, "the daemon's answer has no \"%s\"", key);
	if (code == CTL_DONE && options_has(o, OPTION_JSON))
		output_json(answer, stdout);
	*ret = json_integer_value(number);
	json_decref(answer);
	return code;
}

enum exit_code verb_conntrack_flush(const struct options *o, struct failure *f)
{
	json_t *parameters = json_pack("{s:b}", "dryRun", options_has(o, OPTION_DRY_RUN));
	json_int_t n;
	enum exit_code code =
		call_for_number(o, "io.redirectd.ConntrackFlush", parameters, "deleted", &n, f);

	if (code == CTL_DONE && !options_has(o, OPTION_JSON) && !options_has(o, OPTION_QUIET))
		print_number(o, (uint64_t)n, stdout);
	json_decref(parameters);
	return code;
}

enum exit_code verb_conntrack_count(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object();
	enum exit_code code = filter_make(o, parameters, f);
	json_int_t n;

	if (code == CTL_DONE)
		code = call_for_number(o, "io.redirectd.ConntrackCount", parameters, "count", &n,
				       f);
	if (code == CTL_DONE && !options_has(o, OPTION_JSON))
		printf("%" JSON_INTEGER_FORMAT "\n", n);
	json_decref(parameters);
	return code;
}
