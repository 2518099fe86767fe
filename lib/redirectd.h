/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libredirectd: the client's end of redirectd's control socket, io.redirectd(7).
 *
 *     struct redirectd *r;
 *     json_t *answer;
 *
 *     if (redirectd_open(NULL, &r) != REDIRECTD_DONE ||
 *         redirectd_call(r, "io.redirectd.List", NULL, &answer) != REDIRECTD_DONE)
 *             fprintf(stderr, "%s\n", redirectd_message(r));
 *     redirectd_close(r);
 *
 * Messages are JSON, held by jansson(3). Every function that can fail returns an enum
 * redirectd_code; what went wrong is kept in the connection until the next call. The library
 * prints nothing, starts no threads, and takes no signals: a daemon that dies is an error, no
 * SIGPIPE. A connection may be used by one thread at a time; different ones are independent.
 *
 * Names of methods, parameters and errors are those of io.redirectd(7). Members may be added to
 * what the daemon answers, none is renamed or removed: ignore those that you do not know.
 */
#ifndef REDIRECTD_H
#define REDIRECTD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REDIRECTD_SOCKET_DEFAULT "/run/redirectd/io.redirectd"

/* Milliseconds that the daemon may stand still before a call fails; see redirectd_set_timeout(). */
#define REDIRECTD_TIMEOUT_DEFAULT 60000

/* The same numbers as the exit status of redirectctl(8). */
enum redirectd_code {
	REDIRECTD_DONE = 0,
	REDIRECTD_FAILED = 1,	 /* the system refused, or the daemon went away */
	REDIRECTD_USAGE = 2,	 /* the caller's mistake: the path of the socket is too long */
	REDIRECTD_NO_DAEMON = 3, /* nobody listens on the socket */
	REDIRECTD_DENIED = 4,	 /* only root and members of group redirectd may change anything */
	REDIRECTD_NOT_FOUND = 5, /* no such rule or flow */
	REDIRECTD_INVALID = 6,	 /* a rule that is none, or that this version cannot carry out */
	REDIRECTD_CONFLICT = 7,	 /* another rule is in the way */
};

struct redirectd;

/*
 * Connects. `path` NULL: the environment's REDIRECTD_SOCKET, else REDIRECTD_SOCKET_DEFAULT. *ret is
 * set also on failure, so that it can be asked for the message, and is always to be closed; it is
 * NULL only when there is no memory.
 */
enum redirectd_code redirectd_open(const char *path, struct redirectd **ret);
/* Takes NULL. Ends a stream in progress. */
void redirectd_close(struct redirectd *r);

/*
 * How long the daemon may take for the next piece of an answer; 0: for ever, as events need it.
 * Afterwards the connection is out of step: close it.
 */
void redirectd_set_timeout(struct redirectd *r, unsigned milliseconds);
/* The socket, for poll(2): readable when an answer, or a part of one, has come. */
int redirectd_fd(const struct redirectd *r);

/*
 * Calls a method and takes its only answer. `parameters` is an object or NULL, borrowed. *ret
 * receives the answer's parameters, a new reference; ret may be NULL.
 */
enum redirectd_code redirectd_call(struct redirectd *r, const char *method,
				   const json_t *parameters, json_t **ret);

/*
 * Calls a method that answers with a stream, and calls `handler` with the parameters of each part,
 * borrowed. Ends with the stream (REDIRECTD_DONE), with an error, or when the handler returns
 * something else than 0: that is then returned, and the connection is out of step.
 */
int redirectd_stream(struct redirectd *r, const char *method, const json_t *parameters,
		     int (*handler)(void *userdata, json_t *part), void *userdata);

/*
 * The two halves of the above, for those who wait for several things at once. Answers come in the
 * order of the calls. With `more` there may be several, all but the last with *ret_continues (which
 * may be NULL).
 */
enum redirectd_code redirectd_send(struct redirectd *r, const char *method,
				   const json_t *parameters, bool more);
enum redirectd_code redirectd_receive(struct redirectd *r, json_t **ret, bool *ret_continues);
/* Has a whole answer come already? Then redirectd_receive() does not wait. */
bool redirectd_has_answer(struct redirectd *r);
/* An answer as it came, an error too. */
enum redirectd_code redirectd_receive_message(struct redirectd *r, json_t **ret);
/*
 * The same as text, without looking at it: for streams of so many objects that a tree of JSON
 * values of each takes too long. Borrowed until the next call on this connection; no NUL at its
 * end.
 */
enum redirectd_code redirectd_receive_text(struct redirectd *r, const char **ret,
					   size_t *ret_length);

/* ---- the last failure; everything is borrowed, and NULL when there is none ---- */

/* A sentence for people. Never NULL: also for r == NULL. */
const char *redirectd_message(const struct redirectd *r);
/* What to do about it, or NULL. */
const char *redirectd_hint(const struct redirectd *r);
/* The daemon's error, "io.redirectd.NoSuchRule"; NULL: the failure is not the daemon's answer. */
const char *redirectd_error_name(const struct redirectd *r);
/* Its parameters, such as `diagnostics`. */
const json_t *redirectd_error_parameters(const struct redirectd *r);
/* What an answer that is an error means; becomes the last failure. */
enum redirectd_code redirectd_read_error(struct redirectd *r, const json_t *message);

#ifdef __cplusplus
}
#endif

#endif
