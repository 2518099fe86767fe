/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket for the verbs: libredirectd, whose failures and errors become a struct failure
 * with the exit code of the contract. Never waits longer than a minute for the daemon to move,
 * unless told otherwise.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "ctl/failure.h"
#include "shared/cleanup.h"

struct client;

enum exit_code client_open(const char *path, struct client **ret, struct failure *f);
struct client *client_free(struct client *c); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct client, client_free)

/* How long the daemon may take for the next piece; 0: as long as it takes. */
void client_set_timeout(struct client *c, unsigned milliseconds);

/* Sends a call; `parameters` is borrowed, NULL: none. With `more` several replies may follow. */
enum exit_code client_send(struct client *c, const char *method, const json_t *parameters,
			   bool more, struct failure *f);
/* One whole reply message as it came, an error too; a new reference. */
enum exit_code client_receive_message(struct client *c, json_t **ret, struct failure *f);
/*
 * The parameters of the next reply, a new reference. An error reply fails. `ret_continues` (may be
 * NULL) tells whether another one follows.
 */
enum exit_code client_receive(struct client *c, json_t **ret, bool *ret_continues,
			      struct failure *f);

/* One whole reply message as text, an error too; borrowed until the next call with the client. */
enum exit_code client_receive_text(struct client *c, const char **ret, size_t *ret_length,
				   struct failure *f);

/* Connects, calls, takes the only reply. */
enum exit_code client_call(const char *path, const char *method, const json_t *parameters,
			   json_t **ret, struct failure *f);

/* The same on an open connection, without parameters. */
enum exit_code client_ask(struct client *c, const char *method, json_t **ret, struct failure *f);

/* What an error reply means: fills `f` and returns its code. `error` is its whole message. */
enum exit_code client_error(struct client *c, const json_t *error, struct failure *f);
