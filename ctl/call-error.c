/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the errors of io.redirectd and org.varlink.service mean to a person: a table. */
#include <string.h>

#include "ctl/call.h"
#include "shared/rule-json.h"

struct error_info {
	const char *name;
	enum exit_code code;
	const char *subject; /* the parameter that the text is about; NULL: none */
	const char *text;    /* with %s for the subject; NULL: the reply's own `message` */
};

static const struct error_info error_table[] = {
	{"io.redirectd.NoSuchRule", CTL_NOT_FOUND, "rule", "no rule \"%s\""},
	{"io.redirectd.InvalidRule", CTL_INVALID, NULL, NULL},
	{"io.redirectd.Conflict", CTL_CONFLICT, NULL, NULL},
	{"io.redirectd.Failed", CTL_FAILED, NULL, NULL},
	{"io.redirectd.NothingPending", CTL_FAILED, NULL, "no change waits to be confirmed"},
	{"io.redirectd.TooManyFlows", CTL_FAILED, NULL, "too many flows for one reply"},
	{"org.varlink.service.PermissionDenied", CTL_DENIED, NULL,
	 "permission denied: only root and members of group redirectd may change anything"},
	{"org.varlink.service.ExpectedMore", CTL_FAILED, NULL,
	 "the method answers with a stream only: ask with --more"},
	{"org.varlink.service.MethodNotFound", CTL_FAILED, "method",
	 "the daemon knows no method \"%s\""},
	{"org.varlink.service.MethodNotImplemented", CTL_FAILED, "method",
	 "the daemon does not implement \"%s\""},
	{"org.varlink.service.InterfaceNotFound", CTL_FAILED, "interface",
	 "the daemon knows no interface \"%s\""},
	{"org.varlink.service.InvalidParameter", CTL_FAILED, "parameter",
	 "the daemon refuses the parameter \"%s\""},
};

static const struct error_info *find_error(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(error_table) / sizeof(error_table[0]); i++)
		if (strcmp(error_table[i].name, name) == 0)
			return &error_table[i];
	return NULL;
}

static const char *text_of(const json_t *parameters, const char *key)
{
	return json_string_value(json_object_get(parameters, key));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the formats are those of the table */
static void set_subject(struct failure *f, const struct error_info *info, const char *subject)
{
	failure_set(f, info->code, info->text, subject ? subject : "?");
}
#pragma GCC diagnostic pop

/* An error that this client does not know still says its name and what came with it. */
static enum exit_code set_unknown(struct failure *f, const char *name, const json_t *parameters)
{
	char *details = json_object_size(parameters) > 0 ? json_dumps(parameters, 0) : NULL;

	failure_set(f, CTL_FAILED, "the daemon answers with error %s%s%s", name, details ? " " : "",
		    details ? details : "");
	free(details);
	return CTL_FAILED;
}

enum exit_code client_error(const json_t *error, struct failure *f)
{
	const json_t *parameters = json_object_get(error, "parameters");
	const char *name = json_string_value(json_object_get(error, "error"));
	const struct error_info *info = name ? find_error(name) : NULL;
	const char *message = text_of(parameters, "message");

	if (!name)
		return failure_set(f, CTL_FAILED, "the daemon answers with an unreadable error");
	if (!info)
		return set_unknown(f, name, parameters);
	if (message)
		failure_set(f, info->code, "%s", message);
	else if (!info->text)
		return set_unknown(f, name, parameters);
	else
		set_subject(f, info, info->subject ? text_of(parameters, info->subject) : "");
	if (info->code == CTL_NOT_FOUND)
		failure_hint(f, "`redirectctl list` shows the rules");
	/* Diagnostics that cannot be read are not worth another error: the message says it. */
	rule_json_unpack_diag(json_object_get(parameters, "diagnostics"), &f->diag);
	return info->code;
}
