/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: connections, credentials, framing, limits, dispatch. What the methods do is
 * in methods.c; this file knows only their table.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "shared/cleanup.h"
#include "shared/writer.h"

#define SERVER_CLIENTS_MAX	 64
#define SERVER_REQUEST_MAX	 (1024 * 1024)
#define SERVER_LARGE_REQUEST_MAX (16 * 1024 * 1024) /* of methods that are `large` */
#define SERVER_REQUEST_TIME_MAX	 (10 * 1000 * 1000) /* microseconds for one request to arrive */
#define SERVER_OUTPUT_TIME_MAX	 (30 * 1000 * 1000) /* microseconds without progress of a reply */
#define SERVER_OUTPUT_MAX	 (64 * 1024 * 1024) /* replies waiting, over all clients */

#define SERVER_GROUP "redirectd" /* its members may do everything; looked up when starting */

struct server;
struct call;

/* What server_new() starts with is above; all are above zero. */
struct server_limits {
	size_t clients_max;
	size_t request_max;	   /* bytes */
	size_t large_request_max;  /* bytes */
	uint64_t request_time_max; /* microseconds */
	uint64_t output_time_max;  /* microseconds */
	/*
	 * While so many bytes of replies wait for slow readers, requests of unprivileged clients
	 * wait too. One reply of any size fits below that, so the bound is this plus one reply.
	 */
	size_t output_max;
};

struct server_method {
	const char *name; /* qualified: "io.redirectd.Add" */
	bool privileged;  /* needs root or group redirectd */
	/*
	 * Answers with exactly one of call_reply*() or call_error(), or streams: see call_stream().
	 * `parameters` is an object, never NULL, borrowed. A negative return ends the connection.
	 * NULL: part of the interface, not of this version (MethodNotImplemented).
	 */
	int (*handler)(struct call *call, json_t *parameters, void *userdata);
	/* Takes large requests, of privileged clients, in which `method` is the first member. */
	bool large;
};

/*
 * Listens on `path` (its folder is made when missing, mode 0666 on the socket as the contract lets
 * any user read, a dead socket is replaced), or on the descriptor that systemd handed over.
 * -EADDRINUSE when a live daemon owns the path; *ret_owner is then its process id (SO_PEERCRED),
 * or 0 when that cannot be told. -EEXIST: something that is not a socket is in the way.
 * -ENAMETOOLONG: a Unix socket's path has at most 107 bytes.
 * `methods` ends with a NULL name and outlives the server.
 */
int server_new(sd_event *event, const char *path, const struct server_method *methods,
	       void *userdata, struct server **ret, pid_t *ret_owner);
struct server *server_free(struct server *s); /* closes; removes the socket it made */
DEFINE_CLEANUP(struct server, server_free)
const char *server_path(const struct server *s); /* that of the socket handed over, if one was */
void server_set_limits(struct server *s, const struct server_limits *limits);
size_t server_count_clients(const struct server *s);

/* Wants `more`? Then several replies may follow, the last without `continues`. */
bool call_wants_more(const struct call *c);
/*
 * Take over the reference. NULL parameters mean that there was no memory to make them: -ENOMEM
 * comes back, and the handler returns it.
 */
int call_reply(struct call *c, json_t *parameters);
int call_error(struct call *c, const char *error, json_t *parameters);
/*
 * Streams: `produce` is called whenever the client has room. It writes the parameters of the next
 * reply, one object, and returns 1; 0 at the end (with or without a last reply); -EAGAIN to be
 * called again from the event loop, and what it has written then still stands. `state` is released
 * with `destroy` at the end or when the client goes, and when call_stream() fails. A client that
 * reads slowly pauses only itself.
 *
 * Replies are text, since a stream may have millions of objects: a tree of JSON values of each
 * would take longer than all the rest. writer.h has what it takes to write them.
 *
 * Without a last reply an empty one ends the stream. `produce` may call call_error() and return 0
 * to end it with an error. A call that did not want `more` may use this too, to spread its work
 * over the event loop; `produce` then only returns -EAGAIN and, with the one reply, 0. One with
 * `oneway` runs too, to its end, and what it writes is dropped.
 *
 * -EINPROGRESS: there is nothing to send now; `produce` is called again after call_wake(), which
 * may be called at any time before `destroy`, and does nothing when the stream is not asleep.
 */
int call_stream(struct call *c, int (*produce)(void *state, struct writer *reply), void *state,
		void (*destroy)(void *state));
void call_wake(struct call *c);
