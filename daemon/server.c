/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: see server.h. Owns the listening socket and every connection; relies on
 * server-listen.c and server-peer.c, shared/varlink.c for framing, and the caller's sd-event loop.
 *
 * A connection does one thing at a time, in this order: send what waits, go on with the stream in
 * progress, take the next request. It reads only when none of these is left to do, so that a
 * client which sends without reading fills its own socket buffer and nothing of ours. One step a
 * turn of the event loop keeps clients fair to each other and to the rest of the daemon: those with
 * more to do wait in a queue, the head of which has the turn. Its event source is a descriptor that
 * is always readable: sd-event runs the source that has been waiting for longest, and for that a
 * source of type defer waits since it was made, so that it would always come first.
 */
#include "daemon/server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/server-listen.h"
#include "daemon/server-peer.h"
#include "shared/log.h"
#include "shared/varlink.h"

#define READ_SIZE	  (64 * 1024)
#define ACCEPT_BATCH	  16
#define ACCEPT_RETRY_USEC (1000 * 1000)
#define TIMER_ACCURACY	  (50 * 1000)

/* Not of org.varlink.service, which has no word for bytes that are no call at all. */
#define ERROR_INVALID_MESSAGE "io.redirectd.InvalidMessage"

/* One request and what became of it. */
struct call {
	struct client *client;
	bool more, oneway;
	bool answered; /* the last reply is out (or dropped, with oneway) */
	bool asleep;   /* the stream waits for call_wake() */
	/* A stream in progress has a `produce`. */
	int (*produce)(void *state, struct writer *reply);
	void *state;
	void (*destroy)(void *state);
	struct writer reply; /* of the stream, in the making */
};

enum client_timer {
	TIMER_OFF,
	TIMER_REQUEST, /* for the rest of a request */
	TIMER_OUTPUT,  /* for progress of a reply */
};

struct client {
	TAILQ_ENTRY(client) link;
	TAILQ_ENTRY(client) turn; /* in `turns` of the server */
	bool waits_turn;
	struct server *server;
	int fd;
	struct server_peer peer;
	sd_event_source *io, *timer;
	enum client_timer timing;
	struct varlink_buffer in;
	char *out; /* the one reply that waits, or NULL */
	size_t out_length, out_sent;
	struct call call;
	uint64_t active_at; /* when a byte last moved, CLOCK_MONOTONIC */
	bool read_end;	    /* the client sends no more */
	bool closing;	    /* ends once `out` is sent */
	bool blocked;	    /* waits for others' replies to drain (output_max) */
};

TAILQ_HEAD(client_list, client);

struct server {
	sd_event *event;
	sd_event_source *io, *retry, *turn;
	int turn_fd; /* always readable */
	struct server_listen listen;
	gid_t group;
	const struct server_method *methods;
	void *userdata;
	struct server_limits limits;
	struct client_list clients, turns;
	size_t n_clients;
	size_t output; /* bytes of `out` over all clients */
	char buffer[READ_SIZE];
};

/* ---- turns ---- */

static void client_leave_turns(struct client *c)
{
	if (c->waits_turn)
		TAILQ_REMOVE(&c->server->turns, c, turn);
	c->waits_turn = false;
}

/* The connection has more to do, once it is its turn. */
static int client_wait_turn(struct client *c)
{
	struct server *s = c->server;

	if (c->waits_turn)
		return 0;
	TAILQ_INSERT_TAIL(&s->turns, c, turn);
	c->waits_turn = true;
	return sd_event_source_set_enabled(s->turn, SD_EVENT_ON);
}

/* ---- calls ---- */

static void call_end(struct call *call)
{
	if (call->destroy)
		call->destroy(call->state);
	call->produce = NULL;
	call->destroy = NULL;
	call->state = NULL;
	call->asleep = false;
	writer_clear(&call->reply);
}

bool call_wants_more(const struct call *c)
{
	return c->more;
}

static void client_set_output(struct client *c, char *text, size_t length)
{
	c->out = text;
	c->out_length = length;
	c->out_sent = 0;
	c->server->output += length;
}

/* Takes over `message`; NULL means that there was no memory for it. */
static int client_queue(struct client *c, json_t *message)
{
	size_t length;
	char *text;
	int r;

	if (!message)
		return -ENOMEM;
	r = c->out ? -EBUSY : varlink_encode(message, &text, &length);
	json_decref(message);
	if (r < 0)
		return r;
	client_set_output(c, text, length);
	return 0;
}

static int call_answer(struct call *call, json_t *message)
{
	if (call->answered || !message) {
		json_decref(message);
		return message ? -EALREADY : -ENOMEM;
	}
	call->answered = true;
	if (call->oneway) {
		json_decref(message);
		return 0;
	}
	return client_queue(call->client, message);
}

int call_reply(struct call *c, json_t *parameters)
{
	return call_answer(c, json_pack("{s:o}", "parameters", parameters));
}

int call_error(struct call *c, const char *error, json_t *parameters)
{
	return call_answer(c, json_pack("{s:s, s:o}", "error", error, "parameters", parameters));
}

int call_stream(struct call *c, int (*produce)(void *state, struct writer *reply), void *state,
		void (*destroy)(void *state))
{
	if (c->answered || c->produce) {
		if (destroy)
			destroy(state);
		return -EALREADY;
	}
	c->produce = produce;
	c->state = state;
	c->destroy = destroy;
	return 0;
}

void call_wake(struct call *call)
{
	if (!call->asleep)
		return;
	call->asleep = false;
	client_wait_turn(call->client);
}

#define REPLY_BEGIN "{\"parameters\":"

/* The reply that the stream has written is sent: the last one, or one of many. */
static int call_send_reply(struct call *call, bool last)
{
	struct writer *reply = &call->reply;

	if (reply->length == strlen(REPLY_BEGIN))
		writer_literal(reply, "{}");
	if (!last)
		writer_literal(reply, ",\"continues\":true");
	writer_bytes(reply, "}", sizeof("}"));
	if (reply->failed)
		return -ENOMEM;
	if (call->oneway) {
		writer_clear(reply);
	} else {
		client_set_output(call->client, reply->data, reply->length);
		*reply = (struct writer){0};
	}
	if (last) {
		call->answered = true;
		call_end(call);
	}
	return 0;
}

/* The stream in progress goes on by one step. */
static int call_continue(struct call *call)
{
	int r;

	if (call->reply.length == 0)
		writer_literal(&call->reply, REPLY_BEGIN);
	r = call->produce(call->state, &call->reply);
	if (r == -EAGAIN)
		return 0;
	if (r == -EINPROGRESS) {
		call->asleep = true;
		return 0;
	}
	if (r < 0 || call->answered) {
		call_end(call);
		return r < 0 ? r : 0;
	}
	if (r > 0 && !call->more && !call->oneway)
		return -EPROTO;
	return call_send_reply(call, r == 0);
}

/* ---- dispatch ---- */

/* Says what is wrong with bytes that are no call, and ends the connection behind that. */
static int client_refuse(struct client *c, const char *message)
{
	c->closing = true;
	return client_queue(c, json_pack("{s:s, s:{s:o}}", "error", ERROR_INVALID_MESSAGE,
					 "parameters", "message", varlink_text(message)));
}

/* Members of a call; each may be missing or null, except for the method. */
struct request {
	const char *method;
	json_t *parameters;
	bool more, oneway, upgrade;
};

static bool request_set_flag(bool *flag, const json_t *value)
{
	*flag = json_is_true(value);
	return json_is_boolean(value) || json_is_null(value);
}

static bool request_set_method(struct request *r, json_t *value)
{
	r->method = json_string_value(value);
	return r->method != NULL;
}

static bool request_set_parameters(struct request *r, json_t *value)
{
	r->parameters = json_is_object(value) ? value : NULL;
	return json_is_object(value) || json_is_null(value);
}

static bool request_set_more(struct request *r, json_t *value)
{
	return request_set_flag(&r->more, value);
}

static bool request_set_oneway(struct request *r, json_t *value)
{
	return request_set_flag(&r->oneway, value);
}

static bool request_set_upgrade(struct request *r, json_t *value)
{
	return request_set_flag(&r->upgrade, value);
}

static const struct request_member {
	const char *name;
	bool (*set)(struct request *r, json_t *value);
	const char *complaint;
} request_members[] = {
	{"method", request_set_method, "\"method\" must be a string"},
	{"parameters", request_set_parameters, "\"parameters\" must be an object"},
	{"more", request_set_more, "\"more\" must be true or false"},
	{"oneway", request_set_oneway, "\"oneway\" must be true or false"},
	{"upgrade", request_set_upgrade, "\"upgrade\" must be true or false"},
	{NULL, NULL, "a call has the members method, parameters, more, oneway and upgrade only"},
};

/* NULL, or what is wrong with it. Everything in *ret is borrowed from `message`. */
static const char *request_read(json_t *message, struct request *ret)
{
	const char *key;
	json_t *value;

	*ret = (struct request){0};
	json_object_foreach (message, key, value) {
		const struct request_member *m = request_members;

		while (m->name && strcmp(m->name, key) != 0)
			m++;
		if (!m->name || !m->set(ret, value))
			return m->complaint;
	}
	if (!ret->method)
		return "a call needs \"method\"";
	if (ret->more && ret->oneway)
		return "\"more\" and \"oneway\" exclude each other";
	return NULL;
}

static int call_error_about(struct call *call, const char *error, const char *key,
			    const char *value, size_t length)
{
	return call_error(call, error, json_pack("{s:s%}", key, value, length));
}

/* The name is not in the table: is it the interface or the method that is unknown? */
static int call_refuse_name(struct call *call, const char *name)
{
	const char *dot = strrchr(name, '.');
	size_t length = dot ? (size_t)(dot - name) : strlen(name);

	for (const struct server_method *m = call->client->server->methods; dot && m->name; m++)
		if (strncmp(m->name, name, length + 1) == 0 && !strchr(m->name + length + 1, '.'))
			return call_error_about(call, "org.varlink.service.MethodNotFound",
						"method", name, strlen(name));
	return call_error_about(call, "org.varlink.service.InterfaceNotFound", "interface", name,
				length);
}

static const struct server_method *method_find(const struct server_method *methods,
					       const char *name)
{
	for (; methods->name; methods++)
		if (strcmp(methods->name, name) == 0)
			return methods;
	return NULL;
}

static int call_run(struct call *call, const struct request *request)
{
	struct server *s = call->client->server;
	const struct server_method *m = method_find(s->methods, request->method);
	json_t *parameters;
	int r;

	if (!m)
		return call_refuse_name(call, request->method);
	if (m->privileged && !call->client->peer.privileged)
		return call_error(call, "org.varlink.service.PermissionDenied", json_object());
	if (!m->handler)
		return call_error_about(call, "org.varlink.service.MethodNotImplemented", "method",
					m->name, strlen(m->name));
	if (request->upgrade)
		return call_error_about(call, "org.varlink.service.InvalidParameter", "parameter",
					"upgrade", strlen("upgrade"));
	parameters = request->parameters ? json_incref(request->parameters) : json_object();
	if (!parameters)
		return -ENOMEM;
	r = m->handler(call, parameters, s->userdata);
	json_decref(parameters);
	if (r >= 0 && !call->answered && !call->produce) {
		log_error("method %s left a call without an answer", m->name);
		return -EPROTO;
	}
	return r < 0 ? r : 0;
}

/* 1: a request was taken; 0: none is complete. */
static int client_take_request(struct client *c)
{
	struct request request;
	json_t *message;
	json_error_t error;
	const char *complaint;
	char text[sizeof(error.text) + 64];
	int r;

	r = varlink_buffer_next(&c->in, &message, &error);
	if (r == 0)
		return 0;
	if (r == -EBADMSG) {
		snprintf(text, sizeof(text), "line %d, column %d: %s", error.line, error.column,
			 error.text);
		r = client_refuse(c, text);
		return r < 0 ? r : 1;
	}
	if (r < 0)
		return r;
	complaint = request_read(message, &request);
	if (complaint) {
		r = client_refuse(c, complaint);
	} else {
		c->call =
			(struct call){.client = c, .more = request.more, .oneway = request.oneway};
		r = call_run(&c->call, &request);
	}
	json_decref(message);
	return r < 0 ? r : 1;
}

/* ---- connections ---- */

static uint64_t server_now(const struct server *s)
{
	uint64_t now = 0;

	sd_event_now(s->event, CLOCK_MONOTONIC, &now);
	return now;
}

/* May requests of this client be answered, as far as memory goes? */
static bool client_has_room(const struct client *c)
{
	return c->peer.privileged || c->server->output < c->server->limits.output_max;
}

/* Lets go of `out`; those who waited for room get their turn. */
static void client_release_output(struct client *c)
{
	struct server *s = c->server;
	struct client *other;

	if (!c->out)
		return;
	free(c->out);
	c->out = NULL;
	s->output -= c->out_length;
	if (s->output >= s->limits.output_max)
		return;
	TAILQ_FOREACH(other, &s->clients, link)
	{
		if (other->blocked)
			client_wait_turn(other);
		other->blocked = false;
	}
}

static struct client *client_free(struct client *c)
{
	if (!c)
		return NULL;
	if (c->server) {
		client_leave_turns(c);
		TAILQ_REMOVE(&c->server->clients, c, link);
		c->server->n_clients--;
		client_release_output(c);
	}
	call_end(&c->call);
	sd_event_source_disable_unref(c->io);
	sd_event_source_disable_unref(c->timer);
	varlink_buffer_clear(&c->in);
	closep(&c->fd);
	free(c);
	return NULL;
}
DEFINE_CLEANUP(struct client, client_free)

/* Sends what it can. 0, or negative when the connection is over. */
static int client_flush(struct client *c)
{
	while (c->out) {
		ssize_t n = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out_sent += (size_t)n;
		c->active_at = server_now(c->server);
		c->timing = TIMER_OFF; /* progress: the time starts again */
		if (c->out_sent == c->out_length)
			client_release_output(c);
	}
	return 0;
}

static int client_set_timer(struct client *c, enum client_timer kind)
{
	const struct server_limits *limits = &c->server->limits;
	uint64_t time = kind == TIMER_REQUEST ? limits->request_time_max : limits->output_time_max;
	int r;

	if (kind == TIMER_OFF) {
		c->timing = kind;
		return sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	}
	if (kind == c->timing)
		return 0; /* runs already, and more bytes of the same request are no excuse */
	r = sd_event_source_set_time(c->timer, server_now(c->server) + time);
	if (r < 0)
		return r;
	c->timing = kind;
	return sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

static int client_wait_for(struct client *c, uint32_t events, enum client_timer timer, bool again)
{
	int r = sd_event_source_set_io_events(c->io, events);

	if (r >= 0)
		r = client_set_timer(c, timer);
	if (r >= 0 && again)
		r = client_wait_turn(c);
	else
		client_leave_turns(c);
	return r < 0 ? r : 0;
}

/* What the connection waits for next; `worked`: the last step may not have been the last. */
static int client_wait(struct client *c, bool worked)
{
	if (c->out)
		return client_wait_for(c, EPOLLOUT, TIMER_OUTPUT, false);
	if (c->closing)
		return -ESHUTDOWN;
	if (c->blocked || c->call.asleep)
		return client_wait_for(c, 0, TIMER_OFF, false);
	if (worked)
		return client_wait_for(c, 0, TIMER_OFF, true);
	if (c->read_end)
		return -ECONNRESET;
	return client_wait_for(c, EPOLLIN, c->in.begin < c->in.length ? TIMER_REQUEST : TIMER_OFF,
			       false);
}

/* One step. Negative: the connection is over. */
static int client_advance(struct client *c)
{
	bool worked = false;
	int r = client_flush(c);

	if (r < 0)
		return r;
	c->blocked = !c->out && !client_has_room(c);
	if (!c->out && !c->blocked && !c->closing && !c->call.asleep) {
		bool streams = c->call.produce;

		r = streams ? call_continue(&c->call) : client_take_request(c);
		if (r < 0)
			return r;
		worked = streams || r > 0;
		r = client_flush(c);
		if (r < 0)
			return r;
	}
	return client_wait(c, worked);
}

static void client_step(struct client *c)
{
	if (client_advance(c) < 0)
		client_free(c);
}

/* How long the request that is coming in may be: its method is known by its first bytes. */
static size_t client_request_max(const struct client *c)
{
	const struct server *s = c->server;
	const struct server_method *m = s->methods;

	if (!c->peer.privileged || c->in.tail < s->limits.request_max / 2)
		return s->limits.request_max;
	while (m->name && !(m->large && varlink_buffer_tail_calls(&c->in, m->name)))
		m++;
	return m->name ? s->limits.large_request_max : s->limits.request_max;
}

static int client_read(struct client *c)
{
	struct server *s = c->server;
	size_t most = client_request_max(c);
	char text[80];
	ssize_t n;
	int r;

	n = recv(c->fd, s->buffer, sizeof(s->buffer), MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c->read_end = n == 0;
	c->active_at = server_now(s);
	r = varlink_buffer_append(&c->in, s->buffer, (size_t)n, most);
	if (r != -EMSGSIZE)
		return r;
	snprintf(text, sizeof(text), "a request has at most %zu bytes", most);
	return client_refuse(c, text);
}

static int client_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct client *c = userdata;
	bool runs_anyway =
		c->timing == TIMER_OFF && !c->blocked && (!c->call.produce || c->call.oneway);
	int r = 0;

	if (revents & EPOLLIN)
		r = client_read(c);
	else if (!(revents & EPOLLOUT)) /* the other side is gone */
		r = -EPIPE;
	if (r == -EPIPE && runs_anyway)
		return 0; /* but requests that came before are still to be done */
	if (r < 0)
		client_free(c);
	else
		client_step(c);
	return 0;
}

static int server_on_turn(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct server *s = userdata;
	struct client *c = TAILQ_FIRST(&s->turns);

	if (c) {
		client_leave_turns(c);
		client_step(c);
	}
	return TAILQ_EMPTY(&s->turns) ? sd_event_source_set_enabled(s->turn, SD_EVENT_OFF) : 0;
}

static int client_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct client *c = userdata;
	bool reads = c->timing == TIMER_REQUEST;
	char text[80];

	c->timing = TIMER_OFF;
	snprintf(text, sizeof(text), "the request was not complete within %" PRIu64 " ms",
		 c->server->limits.request_time_max / 1000);
	/* A reader that stands still is dropped: it would not read an error either. */
	if (!reads || client_refuse(c, text) < 0)
		client_free(c);
	else
		client_step(c);
	return 0;
}

static int client_add_sources(struct client *c, sd_event *event)
{
	int r = sd_event_add_io(event, &c->io, c->fd, EPOLLIN, client_on_io, c);

	if (r >= 0)
		r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY,
				      client_on_timer, c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	return r;
}

/* ---- accepting ---- */

/*
 * How readily a client gives its place away; among equals the longest idle one does. Privileged
 * ones come last, so nobody else can keep root out or throw root out.
 */
static int client_rank(const struct client *c)
{
	return (c->peer.privileged ? 2 : 0) + (c->out || c->call.produce ? 1 : 0);
}

static struct client *server_find_idlest(struct server *s)
{
	struct client *c, *best = NULL;

	TAILQ_FOREACH(c, &s->clients, link)
	{
		int rank = client_rank(c), best_rank = best ? client_rank(best) : 0;

		if (!best || rank < best_rank ||
		    (rank == best_rank && c->active_at < best->active_at))
			best = c;
	}
	return best;
}

/* Frees a place for a newcomer; false: it has to go itself. */
static bool server_make_place(struct server *s, bool privileged)
{
	struct client *c;

	if (s->n_clients < s->limits.clients_max)
		return true;
	c = server_find_idlest(s);
	/* What a privileged client has under way is not for others to end. */
	if (!privileged && c->peer.privileged && client_rank(c) > 2)
		return false;
	client_free(c);
	return true;
}

/* Takes over `fd`. */
static int server_add_client(struct server *s, int fd)
{
	_cleanup_(client_freep) struct client *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	c->fd = fd;
	r = server_peer_read(fd, s->group, &c->peer);
	if (r < 0)
		return r;
	if (!server_make_place(s, c->peer.privileged))
		return -EBUSY;
	r = client_add_sources(c, s->event);
	if (r < 0)
		return r;
	c->server = s;
	c->active_at = server_now(s);
	TAILQ_INSERT_TAIL(&s->clients, c, link);
	s->n_clients++;
	take_ptr(c);
	return 0;
}

/* No descriptor or memory left: try again in a while instead of spinning. */
static int server_pause(struct server *s)
{
	int r = sd_event_source_set_time(s->retry, server_now(s) + ACCEPT_RETRY_USEC);

	if (r >= 0)
		r = sd_event_source_set_enabled(s->retry, SD_EVENT_ONESHOT);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->io, SD_EVENT_OFF);
	return r < 0 ? r : 0;
}

static int server_on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct server *s = userdata;

	return sd_event_source_set_enabled(s->io, SD_EVENT_ON);
}

static int server_on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct server *s = userdata;

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (client >= 0) {
			server_add_client(s, client); /* or it is gone: nobody to tell */
			continue;
		}
		switch (errno) {
		case EAGAIN:
			return 0;
		case EINTR:
		case ECONNABORTED:
			continue;
		}
		log_warning("cannot accept a connection on %s: %s", s->listen.path,
			    strerror(errno));
		return server_pause(s);
	}
	return 0;
}

/* ---- the server ---- */

static int server_add_turns(struct server *s)
{
	int r;

	s->turn_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->turn_fd < 0)
		return -errno;
	r = sd_event_add_io(s->event, &s->turn, s->turn_fd, EPOLLIN, server_on_turn, s);
	return r < 0 ? r : sd_event_source_set_enabled(s->turn, SD_EVENT_OFF);
}

static int server_start(struct server *s, const char *path, pid_t *ret_owner)
{
	int r = server_peer_find_group(SERVER_GROUP, &s->group);

	if (r >= 0)
		r = server_listen_open(path, &s->listen, ret_owner);
	if (r >= 0)
		r = sd_event_add_io(s->event, &s->io, s->listen.fd, EPOLLIN, server_on_connection,
				    s);
	if (r >= 0)
		r = sd_event_add_time(s->event, &s->retry, CLOCK_MONOTONIC, 0, TIMER_ACCURACY,
				      server_on_retry, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->retry, SD_EVENT_OFF);
	if (r >= 0)
		r = server_add_turns(s);
	return r < 0 ? r : 0;
}

int server_new(sd_event *event, const char *path, const struct server_method *methods,
	       void *userdata, struct server **ret, pid_t *ret_owner)
{
	_cleanup_(server_freep) struct server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->event = sd_event_ref(event);
	s->listen.fd = s->turn_fd = -1;
	s->methods = methods;
	s->userdata = userdata;
	s->limits = (struct server_limits){
		.clients_max = SERVER_CLIENTS_MAX,
		.request_max = SERVER_REQUEST_MAX,
		.large_request_max = SERVER_LARGE_REQUEST_MAX,
		.request_time_max = SERVER_REQUEST_TIME_MAX,
		.output_time_max = SERVER_OUTPUT_TIME_MAX,
		.output_max = SERVER_OUTPUT_MAX,
	};
	TAILQ_INIT(&s->clients);
	TAILQ_INIT(&s->turns);
	r = server_start(s, path, ret_owner);
	if (r < 0)
		return r;
	*ret = take_ptr(s);
	return 0;
}

struct server *server_free(struct server *s)
{
	struct client *c;

	if (!s)
		return NULL;
	sd_event_source_disable_unref(s->io);
	sd_event_source_disable_unref(s->retry);
	while ((c = TAILQ_FIRST(&s->clients)))
		client_free(c);
	sd_event_source_disable_unref(s->turn);
	closep(&s->turn_fd);
	server_listen_close(&s->listen);
	sd_event_unref(s->event);
	free(s);
	return NULL;
}

const char *server_path(const struct server *s)
{
	return s->listen.path;
}

void server_set_limits(struct server *s, const struct server_limits *limits)
{
	s->limits = *limits;
}

size_t server_count_clients(const struct server *s)
{
	return s->n_clients;
}
