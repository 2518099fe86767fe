/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What went wrong, and what the errors of io.redirectd and org.varlink.service mean: a table. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/client-private.h"

struct error_info {
	const char *name;
	enum redirectd_code code;
	const char *subject; /* the parameter that the text is about; NULL: none */
	const char *text;    /* with %s for the subject; NULL: the answer's own `message` */
	const char *hint;
};

static const struct error_info error_table[] = {
	{"io.redirectd.NoSuchRule", REDIRECTD_NOT_FOUND, "rule", "no rule \"%s\"",
	 "`redirectctl list` shows the rules"},
	{"io.redirectd.InvalidRule", REDIRECTD_INVALID, NULL, NULL, NULL},
	{"io.redirectd.Conflict", REDIRECTD_CONFLICT, NULL, NULL, NULL},
	{"io.redirectd.Failed", REDIRECTD_FAILED, NULL, NULL, NULL},
	{"io.redirectd.NothingPending", REDIRECTD_FAILED, NULL, "no change waits to be confirmed",
	 NULL},
	{"io.redirectd.NoSuchFlow", REDIRECTD_NOT_FOUND, NULL, "no such flow", NULL},
	{"io.redirectd.FilterNeeded", REDIRECTD_FAILED, NULL,
	 "ConntrackDelete needs a filter; ConntrackFlush ends every flow", NULL},
	{"io.redirectd.TooManyFlows", REDIRECTD_FAILED, NULL, "too many flows for one reply", NULL},
	{"io.redirectd.InvalidMessage", REDIRECTD_FAILED, NULL, NULL, NULL},
	{"org.varlink.service.PermissionDenied", REDIRECTD_DENIED, NULL,
	 "permission denied: only root and members of group redirectd may change anything", NULL},
	{"org.varlink.service.ExpectedMore", REDIRECTD_FAILED, NULL,
	 "the method answers with a stream only: call it with `more`",
	 "`redirectctl call --more METHOD` does"},
	{"org.varlink.service.MethodNotFound", REDIRECTD_FAILED, "method",
	 "the daemon knows no method \"%s\"", NULL},
	{"org.varlink.service.MethodNotImplemented", REDIRECTD_FAILED, "method",
	 "the daemon does not implement \"%s\"", NULL},
	{"org.varlink.service.InterfaceNotFound", REDIRECTD_FAILED, "interface",
	 "the daemon knows no interface \"%s\"", NULL},
	{"org.varlink.service.InvalidParameter", REDIRECTD_FAILED, "parameter",
	 "the daemon refuses the parameter \"%s\"", NULL},
};

void client_clear_error(struct redirectd *r)
{
	free(r->message);
	free(r->error_name);
	json_decref(r->parameters);
	r->message = r->error_name = NULL;
	r->hint = NULL;
	r->parameters = NULL;
}

enum redirectd_code client_fail(struct redirectd *r, enum redirectd_code code, const char *format,
				...)
{
	va_list arguments;
	char *text;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	client_clear_error(r);
	r->message = text;
	return code;
}

static const struct error_info *find_error(const char *name)
{
	for (size_t i = 0; i < sizeof(error_table) / sizeof(error_table[0]); i++)
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
static void set_subject(struct redirectd *r, const struct error_info *info, const char *subject)
{
	client_fail(r, info->code, info->text, subject ? subject : "?");
}
#pragma GCC diagnostic pop

/* An error that this version does not know still says its name and what came with it. */
static void set_unknown(struct redirectd *r, const char *name, const json_t *parameters)
{
	char *details = json_object_size(parameters) > 0 ? json_dumps(parameters, 0) : NULL;

	client_fail(r, REDIRECTD_FAILED, "the daemon answers with error %s%s%s", name,
		    details ? " " : "", details ? details : "");
	free(details);
}

CLIENT_PUBLIC enum redirectd_code redirectd_read_error(struct redirectd *r, const json_t *message)
{
	const json_t *parameters = json_object_get(message, "parameters");
	const char *name = json_string_value(json_object_get(message, "error"));
	const struct error_info *info = name ? find_error(name) : NULL;
	const char *text = text_of(parameters, "message");

	if (!name)
		return client_fail(r, REDIRECTD_FAILED,
				   "the daemon answers with an unreadable error");
	if (info && text)
		client_fail(r, info->code, "%s", text);
	else if (info && info->text)
		set_subject(r, info, info->subject ? text_of(parameters, info->subject) : "");
	else
		set_unknown(r, name, parameters);
	r->hint = info ? info->hint : NULL;
	r->error_name = strdup(name);
	r->parameters = json_incref((json_t *)parameters);
	return info && (text || info->text) ? info->code : REDIRECTD_FAILED;
}

CLIENT_PUBLIC const char *redirectd_message(const struct redirectd *r)
{
	if (!r || !r->message)
		return "out of memory";
	return r->message;
}

CLIENT_PUBLIC const char *redirectd_hint(const struct redirectd *r)
{
	return r ? r->hint : NULL;
}

CLIENT_PUBLIC const char *redirectd_error_name(const struct redirectd *r)
{
	return r ? r->error_name : NULL;
}

CLIENT_PUBLIC const json_t *redirectd_error_parameters(const struct redirectd *r)
{
	return r ? r->parameters : NULL;
}
