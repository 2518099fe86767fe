/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs that change rules. A rule is read here first, by the daemon's own grammar module, so
 * that its errors need no daemon; what was typed is what is sent, so that the places in the
 * daemon's diagnostics are places in it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-changes.h"
#include "ctl/output-json.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"
#include "shared/rule.h"

/* How a change is told: "added rule 3: tcp …". */
struct change {
	const char *method;
	const char *done; /* "added" */
	bool removes;
};

static enum exit_code check_rule(const char *text, struct failure *f)
{
	_cleanup_(rule_freep) struct rule *rule = NULL;
	int r = rule_parse(text, NULL, &f->diag, &rule);

	if (r == 0)
		return CTL_DONE;
	if (f->diag.n_items > 0)
		return failure_from_diag(f);
	return failure_set(f, CTL_FAILED, "cannot read the rule: %s", strerror(-r));
}

static json_t *make_parameters(const struct options *o, const char *rule, const char *by)
{
	json_t *parameters = json_object();

	if (json_object_set_new(parameters, "rule", json_string(rule)) < 0 ||
	    (by && json_object_set_new(parameters, "by", json_string(by)) < 0)) {
		json_decref(parameters);
		return NULL;
	}
	if (options_has(o, OPTION_DRY_RUN))
		json_object_set_new(parameters, "dryRun", json_true());
	return parameters;
}

static enum exit_code print_change(const struct options *o, const struct change *change,
				   const json_t *answer, struct failure *f)
{
	const char *rule;
	json_error_t error;
	json_int_t id;

	if (options_has(o, OPTION_JSON)) {
		output_json(answer, stdout);
		return CTL_DONE;
	}
	if (options_has(o, OPTION_DRY_RUN))
		return output_changes(answer, stdout, f);
	if (options_has(o, OPTION_QUIET))
		return CTL_DONE;
	if (json_unpack_ex((json_t *)answer, &error, 0, "{s:I,s:s}", "id", &id, "rule", &rule) < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood: %s",
				   error.text);
	printf("%s rule %" JSON_INTEGER_FORMAT ": ", change->done, id);
	text_write_safe(rule, strlen(rule), stdout);
	putchar('\n');
	return CTL_DONE;
}

/* The note is for people who have just changed something: not for programs, not for a dry run. */
static bool wants_note(const struct options *o)
{
	return !options_has(o, OPTION_QUIET) && !options_has(o, OPTION_JSON) &&
	       !options_has(o, OPTION_DRY_RUN);
}

/* What is removed at runtime only is as gone as it can be; a file brings its rule back one day. */
static void print_removal_note(const json_t *answer)
{
	const json_t *change = json_array_get(json_object_get(answer, "changes"), 0);
	const char *source = json_string_value(json_object_get(change, "source"));

	if (!source || !json_is_false(json_object_get(answer, "runtime")))
		return;
	text_write_safe(source, strlen(source), stderr);
	fputs(" still has this rule: it stays out over reloads and restarts of the daemon,\n"
	      "and is back after a stop or reboot. To be rid of it, delete it there.\n",
	      stderr);
}

static void print_note(const struct options *o, const struct change *change, const json_t *answer)
{
	if (!wants_note(o))
		return;
	if (change->removes)
		print_removal_note(answer);
	else if (json_is_true(json_object_get(answer, "runtime")))
		output_runtime_note(stderr);
}

static enum exit_code change_rule(const struct options *o, const struct change *change,
				  const char *rule, const char *by, struct failure *f)
{
	json_t *parameters = make_parameters(o, rule, by), *answer = NULL;
	enum exit_code code;

	if (!parameters)
		return failure_set(f, CTL_INVALID, "the rule is not UTF-8");
	code = client_call(options_socket(o), change->method, parameters, &answer, f);
	if (code == CTL_DONE)
		code = print_change(o, change, answer, f);
	if (code == CTL_DONE)
		print_note(o, change, answer);
	json_decref(parameters);
	json_decref(answer);
	return code;
}

enum exit_code verb_add(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Add", "added", false};
	_cleanup_(freep) char *rule = options_join(o, 0);
	enum exit_code code = check_rule(rule, f);

	return code == CTL_DONE ? change_rule(o, &change, rule, NULL, f) : code;
}

enum exit_code verb_remove(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Remove", "removed", true};
	_cleanup_(freep) char *rule = options_join(o, 0);
	enum exit_code code = CTL_DONE;

	if (strchr(rule, ' ')) /* neither an id nor a name */
		code = check_rule(rule, f);
	return code == CTL_DONE ? change_rule(o, &change, rule, NULL, f) : code;
}

enum exit_code verb_replace(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Replace", "replaced", false};
	_cleanup_(freep) char *rule = options_join(o, 1);
	enum exit_code code = check_rule(rule, f);

	return code == CTL_DONE ? change_rule(o, &change, o->operands[0], rule, f) : code;
}

enum exit_code verb_enable(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Enable", "enabled", false};

	return change_rule(o, &change, o->operands[0], NULL, f);
}

enum exit_code verb_disable(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Disable", "disabled", false};

	return change_rule(o, &change, o->operands[0], NULL, f);
}
