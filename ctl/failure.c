/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Failures as text and as JSON. */
#include "ctl/failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/output-json.h"
#include "shared/rule-json.h"
#include "shared/varlink.h"

static const char *const code_names[] = {
	[CTL_DONE] = "done",
	[CTL_FAILED] = "failed",
	[CTL_USAGE] = "usage",
	[CTL_NO_DAEMON] = "no-daemon",
	[CTL_DENIED] = "permission-denied",
	[CTL_NOT_FOUND] = "not-found",
	[CTL_INVALID] = "invalid",
	[CTL_CONFLICT] = "conflict",
};

const char *exit_code_name(enum exit_code code)
{
	return code_names[code];
}

void failure_clear(struct failure *f)
{
	free(f->message);
	free(f->hint);
	diag_clear(&f->diag);
	*f = (struct failure){0};
}

static char *format_text(const char *format, va_list arguments)
{
	char *text;

	if (vasprintf(&text, format, arguments) < 0)
		abort();
	return text;
}

enum exit_code failure_set(struct failure *f, enum exit_code code, const char *format, ...)
{
	va_list arguments;
	char *message;

	va_start(arguments, format);
	message = format_text(format, arguments); /* may use what the failure owns */
	va_end(arguments);
	failure_clear(f);
	f->code = code;
	f->message = message;
	return code;
}

void failure_hint(struct failure *f, const char *format, ...)
{
	va_list arguments;
	char *hint;

	va_start(arguments, format);
	hint = format_text(format, arguments);
	va_end(arguments);
	free(f->hint);
	f->hint = hint;
}

enum exit_code failure_from_diag(struct failure *f)
{
	f->code = (enum exit_code)diag_exit_code(&f->diag);
	return f->code;
}

/* One sentence for programs: the message, else the first item of the diag. */
static const char *summary(const struct failure *f)
{
	if (f->message)
		return f->message;
	return f->diag.n_items > 0 ? f->diag.items[0].message : exit_code_name(f->code);
}

json_t *failure_to_json(const struct failure *f)
{
	json_t *object = json_object(), *diagnostics = NULL;
	/* As the daemon puts it: with the place, and how many more there are. */
	char *message = !f->message && f->diag.n_items > 0 ? diag_summary(&f->diag, 0) : NULL;

	json_object_set_new(object, "code", json_string(exit_code_name(f->code)));
	json_object_set_new(object, "message", varlink_text(message ? message : summary(f)));
	free(message);
	if (f->hint)
		json_object_set_new(object, "hint", varlink_text(f->hint));
	if (f->diag.n_items > 0 && rule_json_pack_diag(&f->diag, &diagnostics) == 0)
		json_object_set_new(object, "diagnostics", diagnostics);
	return object;
}

static void print_text(const struct failure *f)
{
	if (f->diag.n_items > 0)
		diag_print(&f->diag, stderr, program_invocation_short_name);
	else
		fprintf(stderr, "%s: %s\n", program_invocation_short_name, summary(f));
	if (f->hint)
		fprintf(stderr, "%s: %s\n", program_invocation_short_name, f->hint);
}

void failure_print(const struct failure *f, bool as_json)
{
	json_t *document;

	if (f->reported)
		return;
	if (!as_json) {
		print_text(f);
		return;
	}
	document = json_pack("{s:o}", "error", failure_to_json(f));
	output_json(document, stdout);
	json_decref(document);
}
