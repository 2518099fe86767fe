/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libredirectd for the verbs: its failures as struct failure, with places in rules and files. */
#include "ctl/call.h"

#include "lib/redirectd.h"
#include "shared/rule-json.h"

struct client {
	struct redirectd *connection;
};

/* The codes of the library are the exit codes. */
static enum exit_code check(const struct client *c, enum redirectd_code code, struct failure *f)
{
	const char *hint = redirectd_hint(c->connection);

	if (code == REDIRECTD_DONE)
		return CTL_DONE;
	failure_set(f, (enum exit_code)code, "%s", redirectd_message(c->connection));
	if (hint)
		failure_hint(f, "%s%s", hint,
			     code == REDIRECTD_NO_DAEMON ? ", and so does -s SOCKET" : "");
	/* Diagnostics that cannot be read are not worth another error: the message says it. */
	rule_json_unpack_diag(
		json_object_get(redirectd_error_parameters(c->connection), "diagnostics"),
		&f->diag);
	return f->code;
}

enum exit_code client_open(const char *path, struct client **ret, struct failure *f)
{
	_cleanup_(client_freep) struct client *c = calloc(1, sizeof(*c));
	enum exit_code code;

	if (!c)
		abort();
	code = check(c, redirectd_open(path, &c->connection), f);
	if (code == CTL_DONE)
		*ret = take_ptr(c);
	return code;
}

struct client *client_free(struct client *c)
{
	if (!c)
		return NULL;
	redirectd_close(c->connection);
	free(c);
	return NULL;
}

void client_set_timeout(struct client *c, unsigned milliseconds)
{
	redirectd_set_timeout(c->connection, milliseconds);
}

enum exit_code client_send(struct client *c, const char *method, const json_t *parameters,
			   bool more, struct failure *f)
{
	return check(c, redirectd_send(c->connection, method, parameters, more), f);
}

enum exit_code client_receive_message(struct client *c, json_t **ret, struct failure *f)
{
	return check(c, redirectd_receive_message(c->connection, ret), f);
}

enum exit_code client_receive(struct client *c, json_t **ret, bool *ret_continues,
			      struct failure *f)
{
	return check(c, redirectd_receive(c->connection, ret, ret_continues), f);
}

enum exit_code client_receive_text(struct client *c, const char **ret, size_t *ret_length,
				   struct failure *f)
{
	return check(c, redirectd_receive_text(c->connection, ret, ret_length), f);
}

enum exit_code client_error(struct client *c, const json_t *error, struct failure *f)
{
	return check(c, redirectd_read_error(c->connection, error), f);
}

enum exit_code client_ask(struct client *c, const char *method, json_t **ret, struct failure *f)
{
	return check(c, redirectd_call(c->connection, method, NULL, ret), f);
}

enum exit_code client_call(const char *path, const char *method, const json_t *parameters,
			   json_t **ret, struct failure *f)
{
	_cleanup_(client_freep) struct client *c = NULL;
	enum exit_code code = client_open(path, &c, f);

	if (code != CTL_DONE)
		return code;
	return check(c, redirectd_call(c->connection, method, parameters, ret), f);
}
