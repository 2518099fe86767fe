/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `call`: any method, its replies as they came. */
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/verbs.h"

static enum exit_code read_parameters(const char *text, json_t **ret, struct failure *f)
{
	json_error_t error;
	json_t *parameters = json_loads(text, JSON_REJECT_DUPLICATES, &error);

	if (!parameters)
		return failure_set(f, CTL_USAGE, "the parameters are not JSON: column %d: %s",
				   error.column, error.text);
	if (!json_is_object(parameters)) {
		json_decref(parameters);
		return failure_set(f, CTL_USAGE, "the parameters are not a JSON object: {…}");
	}
	*ret = parameters;
	return CTL_DONE;
}

static enum exit_code print_replies(const struct options *o, struct client *c, struct failure *f)
{
	bool continues = true;

	while (continues && !ferror(stdout)) {
		json_t *message = NULL;

		if (client_receive_message(c, &message, f) != CTL_DONE)
			return f->code;
		json_dumpf(message, stdout, JSON_COMPACT);
		fputc('\n', stdout);
		fflush(stdout); /* a stream is watched while it comes */
		if (json_object_get(message, "error")) {
			client_error(c, message, f);
			/* With -j the reply on stdout is the error already. */
			f->reported = options_has(o, OPTION_JSON);
		}
		continues = json_is_true(json_object_get(message, "continues"));
		json_decref(message);
	}
	return f->code;
}

static enum exit_code call_method(const struct options *o, const char *method,
				  const json_t *parameters, struct failure *f)
{
	_cleanup_(client_freep) struct client *c = NULL;
	enum exit_code code = client_open(options_socket(o), &c, f);

	if (code == CTL_DONE)
		code = client_send(c, method, parameters, options_has(o, OPTION_MORE), f);
	if (code == CTL_DONE)
		code = print_replies(o, c, f);
	return code;
}

enum exit_code verb_call(const struct options *o, struct failure *f)
{
	_cleanup_(freep) char *method = NULL;
	json_t *parameters = NULL;
	enum exit_code code = CTL_DONE;

	if (options_has(o, OPTION_DRY_RUN))
		return failure_set(f, CTL_USAGE,
				   "call knows no -n: methods that can take \"dryRun\":true");
	if (asprintf(&method, "%s%s", strchr(o->operands[0], '.') ? "" : "io.redirectd.",
		     o->operands[0]) < 0)
		abort();
	if (o->n_operands > 1)
		code = read_parameters(o->operands[1], &parameters, f);
	if (code == CTL_DONE)
		code = call_method(o, method, parameters, f);
	json_decref(parameters);
	return code;
}
