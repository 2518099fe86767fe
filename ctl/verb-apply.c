/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs that change or compare many rules at once. Files are read here, with what they include;
 * what was read is what is sent, so that the places in the daemon's diagnostics are places in the
 * files.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-changes.h"
#include "ctl/output-json.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"
#include "shared/config.h"
#include "shared/duration.h"

#define CONFIRM_MOST_MS (86400 * UINT64_C(1000))

/* ---- files ---- */

static const char blanks[] = " \t\r";

/* `include` has been followed here: for the daemon its lines are comments, of the same length. */
static void blank_includes(char *text)
{
	const size_t length = strlen("include");

	for (char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		line += strspn(line, blanks);
		if (strncmp(line, "include", length) == 0 &&
		    (strchr(blanks, line[length]) || line[length] == '\n'))
			*line = '#';
	}
}

/* NULL when a text, or a name, cannot be sent: it has a NUL byte or is not UTF-8. */
static json_t *pack_files(const struct config *c)
{
	json_t *files = json_array();

	for (size_t i = 0; i < c->n_texts; i++) {
		const struct config_text *t = &c->texts[i];

		if (strlen(t->text) == t->length &&
		    json_array_append_new(files, json_pack("{s:s, s:s%}", "name", t->name, "text",
							   t->text, t->length)) == 0)
			continue;
		json_decref(files);
		return NULL;
	}
	return files;
}

/* Not to be sent: what is wrong in the texts is added to what is wrong with the includes. */
static enum exit_code refuse_files(const struct config *texts, struct failure *f)
{
	_cleanup_(config_freep) struct config *c = NULL;

	if (config_new(&c) == 0)
		config_read_texts(c, texts->texts, texts->n_texts, &f->diag);
	if (f->diag.n_items > 0)
		return failure_from_diag(f);
	return failure_set(f, CTL_INVALID, "the name of a file is not UTF-8");
}

/*
 * The file and what it includes, as the daemon takes them. Only `include` is read here: the daemon
 * reads the rest, and twice ten thousand rules would take twice the time.
 */
static enum exit_code read_files(const char *path, json_t **ret, struct failure *f)
{
	_cleanup_(config_freep) struct config *c = NULL;
	int r;

	if (strcmp(path, "-") == 0)
		path = "/dev/stdin";
	r = config_new(&c);
	if (r == 0) {
		c->only_includes = c->keeps_texts = true;
		r = config_read_file(c, path, &f->diag);
	}
	if (r == -ENOMEM)
		return failure_set(f, CTL_FAILED, "cannot read %s: %s", path, strerror(-r));
	for (size_t i = 0; i < c->n_texts; i++)
		blank_includes(c->texts[i].text);
	*ret = f->diag.n_items == 0 ? pack_files(c) : NULL;
	return *ret ? CTL_DONE : refuse_files(c, f);
}

/* ---- answers ---- */

static json_int_t number_of(const json_t *answer, const char *key)
{
	return json_integer_value(json_object_get(answer, key));
}

static bool has_changes(const json_t *answer)
{
	return number_of(answer, "added") + number_of(answer, "removed") +
		       number_of(answer, "changed") >
	       0;
}

static enum exit_code print_result(const struct options *o, const char *done, const json_t *answer,
				   struct failure *f)
{
	enum exit_code code = CTL_DONE;

	if (options_has(o, OPTION_JSON))
		output_json(answer, stdout);
	else if (options_has(o, OPTION_DRY_RUN) && has_changes(answer))
		code = output_changes(answer, stdout, f);
	else if (options_has(o, OPTION_QUIET))
		code = CTL_DONE;
	else if (options_has(o, OPTION_DRY_RUN))
		puts("nothing would change");
	else
		printf("%s: %" JSON_INTEGER_FORMAT " added, %" JSON_INTEGER_FORMAT
		       " removed, %" JSON_INTEGER_FORMAT " changed, %" JSON_INTEGER_FORMAT
		       " kept\n",
		       done, number_of(answer, "added"), number_of(answer, "removed"),
		       number_of(answer, "changed"), number_of(answer, "kept"));
	return code;
}

/* Calls with the parameters, which it takes over, and shows what has changed, or would. */
static enum exit_code call_and_print(const struct options *o, const char *method, const char *done,
				     json_t *parameters, json_t **ret_answer, struct failure *f)
{
	json_t *answer = NULL;
	enum exit_code code;

	if (options_has(o, OPTION_DRY_RUN))
		json_object_set_new(parameters, "dryRun", json_true());
	else if (!options_has(o, OPTION_JSON))
		json_object_set_new(parameters, "brief", json_true());
	code = client_call(options_socket(o), method, parameters, &answer, f);
	if (code == CTL_DONE)
		code = print_result(o, done, answer, f);
	json_decref(parameters);
	if (ret_answer && code == CTL_DONE)
		*ret_answer = answer;
	else
		json_decref(answer);
	return code;
}

static bool for_people(const struct options *o)
{
	return !options_has(o, OPTION_QUIET) && !options_has(o, OPTION_JSON) &&
	       !options_has(o, OPTION_DRY_RUN);
}

/* ---- the verbs ---- */

static enum exit_code read_confirm(const struct options *o, json_t *parameters, struct failure *f)
{
	const char *text = o->values[OPTION_CONFIRM];
	uint64_t ms;

	if (!text)
		return CTL_DONE;
	if (duration_parse(text, &ms) < 0 || ms < 1000 || ms % 1000 || ms > CONFIRM_MOST_MS)
		return failure_set(f, CTL_USAGE,
				   "--confirm takes whole seconds from 1s to 1d, such as 60s or "
				   "5m, not \"%s\"",
				   text);
	json_object_set_new(parameters, "confirmSeconds", json_integer((json_int_t)(ms / 1000)));
	return CTL_DONE;
}

static void tell_applied(const struct options *o, const json_t *answer)
{
	if (!for_people(o))
		return;
	if (options_has(o, OPTION_CONFIRM))
		fprintf(stderr,
			"This is taken back in %s, unless you run `redirectctl confirm` until "
			"then.\n",
			o->values[OPTION_CONFIRM]);
	else if (has_changes(answer))
		output_runtime_note(stderr);
}

enum exit_code verb_apply(const struct options *o, struct failure *f)
{
	const char *path = options_has(o, OPTION_FILE) ? o->values[OPTION_FILE] : "-";
	json_t *parameters = json_object(), *files = NULL, *answer = NULL;
	enum exit_code code = read_confirm(o, parameters, f);

	if (code == CTL_DONE)
		code = read_files(path, &files, f);
	if (code != CTL_DONE) {
		json_decref(parameters);
		return code;
	}
	json_object_set_new(parameters, "files", files);
	if (options_has(o, OPTION_REPLACE))
		json_object_set_new(parameters, "replace", json_true());
	code = call_and_print(o, "io.redirectd.Apply", "applied", parameters, &answer, f);
	if (code == CTL_DONE)
		tell_applied(o, answer);
	json_decref(answer);
	return code;
}

enum exit_code verb_diff(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object(), *files = NULL, *answer = NULL;
	enum exit_code code = CTL_DONE;

	if (o->n_operands > 0)
		code = read_files(o->operands[0], &files, f);
	if (files)
		json_object_set_new(parameters, "files", files);
	if (code == CTL_DONE)
		code = client_call(options_socket(o), "io.redirectd.Diff", parameters, &answer, f);
	if (code == CTL_DONE && options_has(o, OPTION_JSON))
		output_json(answer, stdout);
	else if (code == CTL_DONE && !options_has(o, OPTION_QUIET))
		code = output_changes(answer, stdout, f);
	if (code == CTL_DONE && has_changes(answer)) {
		code = CTL_FAILED; /* as diff(1): they differ, and all is said */
		f->reported = true;
	}
	json_decref(parameters);
	json_decref(answer);
	return code;
}

enum exit_code verb_confirm(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object(), *answer = NULL;
	enum exit_code code;

	if (options_has(o, OPTION_DRY_RUN))
		json_object_set_new(parameters, "dryRun", json_true());
	code = client_call(options_socket(o), "io.redirectd.Confirm", parameters, &answer, f);
	if (code == CTL_DONE && options_has(o, OPTION_JSON))
		output_json(answer, stdout);
	else if (code == CTL_DONE && options_has(o, OPTION_DRY_RUN))
		puts("would be confirmed");
	else if (code == CTL_DONE && for_people(o)) {
		puts("confirmed");
		output_runtime_note(stderr);
	}
	json_decref(parameters);
	json_decref(answer);
	return code;
}

enum exit_code verb_rollback(const struct options *o, struct failure *f)
{
	return call_and_print(o, "io.redirectd.Rollback", "taken back", json_object(), NULL, f);
}

enum exit_code verb_reload(const struct options *o, struct failure *f)
{
	json_t *answer = NULL;
	enum exit_code code =
		call_and_print(o, "io.redirectd.Reload", "reloaded", json_object(), &answer, f);

	json_decref(answer);
	return code;
}

static void print_saved(const struct options *o, const json_t *answer, const char *file)
{
	const char *done = options_has(o, OPTION_DRY_RUN) ? "would save" : "saved";
	json_int_t n = number_of(answer, "saved");

	if (options_has(o, OPTION_QUIET) && !options_has(o, OPTION_DRY_RUN))
		return;
	printf("%s %" JSON_INTEGER_FORMAT " runtime rule%s: ", done, n, n == 1 ? "" : "s");
	text_write_safe(file, strlen(file), stdout);
	printf(" %s %" JSON_INTEGER_FORMAT "\n",
	       options_has(o, OPTION_DRY_RUN) ? "would have" : "has", number_of(answer, "rules"));
}

static void warn_saved(const struct options *o, const json_t *answer)
{
	json_int_t differ = number_of(answer, "differ");

	if (number_of(answer, "rules") > 0 && !options_has(o, OPTION_DRY_RUN) &&
	    !json_is_true(json_object_get(answer, "included")))
		fputs("The configuration does not read that file: the rules are lost at stop and "
		      "reboot.\n"
		      "Add this line to it, then run `redirectctl reload`:\n"
		      "    include rules.d/*.conf\n",
		      stderr);
	if (differ > 0)
		fprintf(stderr,
			"%" JSON_INTEGER_FORMAT " rule%s of other files changed or removed: "
			"`redirectctl diff` shows that; only an edit of those files keeps it.\n",
			differ, differ == 1 ? "" : "s");
}

enum exit_code verb_save(const struct options *o, struct failure *f)
{
	json_t *parameters = json_object(), *answer = NULL;
	const char *file;
	enum exit_code code;

	if (options_has(o, OPTION_DRY_RUN))
		json_object_set_new(parameters, "dryRun", json_true());
	code = client_call(options_socket(o), "io.redirectd.Save", parameters, &answer, f);
	file = json_string_value(json_object_get(answer, "file"));
	if (code == CTL_DONE && !file)
		code = failure_set(f, CTL_FAILED, "the daemon's answer is not understood");
	if (code == CTL_DONE && options_has(o, OPTION_JSON)) {
		output_json(answer, stdout);
	} else if (code == CTL_DONE) {
		print_saved(o, answer, file);
		warn_saved(o, answer);
	}
	json_decref(parameters);
	json_decref(answer);
	return code;
}
