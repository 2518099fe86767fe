/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs that change rules. A rule is read here first, by the daemon's own grammar module, so
 * that its errors need no daemon; what was typed is what is sent, so that the places in the
 * daemon's diagnostics are places in it.
 */
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"
#include "shared/rule.h"

/* How a change is told: "added rule 3: tcp …", with -n "would add tcp …". */
struct change {
	const char *method;
	const char *done;  /* "added" */
	const char *would; /* "add" */
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

static enum exit_code call_change(const struct options *o, const char *method, const char *rule,
				  json_t **ret, struct failure *f)
{
	json_t *parameters = json_object();
	enum exit_code code;

	if (rule && json_object_set_new(parameters, "rule", json_string(rule)) < 0)
		code = failure_set(f, CTL_INVALID, "the rule is not UTF-8");
	else {
		if (options_has(o, OPTION_DRY_RUN))
			json_object_set_new(parameters, "dryRun", json_true());
		code = client_call(options_socket(o), method, parameters, ret, f);
	}
	json_decref(parameters);
	return code;
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
	if (json_unpack_ex((json_t *)answer, &error, 0, "{s:I,s:s}", "id", &id, "rule", &rule) < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood: %s",
				   error.text);
	if (options_has(o, OPTION_DRY_RUN))
		printf("would %s: ", change->would);
	else if (options_has(o, OPTION_QUIET))
		return CTL_DONE;
	else
		printf("%s rule %" JSON_INTEGER_FORMAT ": ", change->done, id);
	text_write_safe(rule, strlen(rule), stdout);
	putchar('\n');
	return CTL_DONE;
}

static enum exit_code change_rule(const struct options *o, const struct change *change,
				  const char *rule, struct failure *f)
{
	json_t *answer = NULL;
	enum exit_code code = call_change(o, change->method, rule, &answer, f);

	if (code == CTL_DONE)
		code = print_change(o, change, answer, f);
	json_decref(answer);
	return code;
}

/* The note is for people who have just added a rule: not for programs, not for a dry run. */
static bool wants_note(const struct options *o)
{
	return !options_has(o, OPTION_QUIET) && !options_has(o, OPTION_JSON) &&
	       !options_has(o, OPTION_DRY_RUN);
}

enum exit_code verb_add(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Add", "added", "add"};
	_cleanup_(freep) char *rule = options_join(o, 0);
	enum exit_code code = check_rule(rule, f);

	if (code == CTL_DONE)
		code = change_rule(o, &change, rule, f);
	if (code == CTL_DONE && wants_note(o))
		fputs("This is a runtime change: it lasts over restarts of the daemon, and is "
		      "lost\n"
		      "when the daemon is stopped and at reboot. To keep it, write the rule "
		      "behind\n"
		      "`redirect` in redirectd.conf.\n",
		      stderr);
	return code;
}

enum exit_code verb_remove(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Remove", "removed", "remove"};
	_cleanup_(freep) char *rule = options_join(o, 0);
	enum exit_code code = CTL_DONE;

	if (strchr(rule, ' ')) /* neither an id nor a name */
		code = check_rule(rule, f);
	return code == CTL_DONE ? change_rule(o, &change, rule, f) : code;
}

enum exit_code verb_enable(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Enable", "enabled", "enable"};

	return change_rule(o, &change, o->operands[0], f);
}

enum exit_code verb_disable(const struct options *o, struct failure *f)
{
	static const struct change change = {"io.redirectd.Disable", "disabled", "disable"};

	return change_rule(o, &change, o->operands[0], f);
}

static enum exit_code print_reload(const struct options *o, const json_t *answer, struct failure *f)
{
	bool dry_run = options_has(o, OPTION_DRY_RUN);
	json_int_t added, removed, kept;
	json_error_t error;

	if (options_has(o, OPTION_JSON)) {
		output_json(answer, stdout);
		return CTL_DONE;
	}
	if (json_unpack_ex((json_t *)answer, &error, 0, "{s:I,s:I,s:I}", "added", &added, "removed",
			   &removed, "kept", &kept) < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood: %s",
				   error.text);
	if (dry_run || !options_has(o, OPTION_QUIET))
		printf("%s: %" JSON_INTEGER_FORMAT " added, %" JSON_INTEGER_FORMAT
		       " removed, %" JSON_INTEGER_FORMAT " kept\n",
		       dry_run ? "would reload" : "reloaded", added, removed, kept);
	return CTL_DONE;
}

enum exit_code verb_reload(const struct options *o, struct failure *f)
{
	json_t *answer = NULL;
	enum exit_code code = call_change(o, "io.redirectd.Reload", NULL, &answer, f);

	if (code == CTL_DONE)
		code = print_reload(o, answer, f);
	json_decref(answer);
	return code;
}
