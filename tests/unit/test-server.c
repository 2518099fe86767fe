/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * daemon/server.c with server-listen.c and server-peer.c: real Unix sockets on a real sd-event
 * loop, a small table of methods. Other users are met by changing the effective ids for connect();
 * those tests are skipped without root.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/server-listen.h"
#include "daemon/server-peer.h"
#include "daemon/server.h"
#include "shared/varlink.h"

#define NOBODY	     65534
#define GROUP	     4242
#define DEADLINE     20 /* seconds, for what must happen */
#define REPLY_MAX    (64 * 1024 * 1024)
#define FOREVER_SIZE 4096
#define TOIL	     1000 /* turns */

/* What the methods did. */
static struct {
	int recorded[64];
	size_t n_recorded;
	unsigned produced, destroyed;
} did;

struct fixture {
	sd_event *event;
	struct server *server;
	char folder[32], path[64];
	struct server_limits limits;
};

struct client {
	int fd;
	struct varlink_buffer in;
};

/* ---- methods ---- */

static int echo(struct call *call, json_t *parameters, void *userdata)
{
	return call_reply(call, json_incref(parameters));
}

static int record(struct call *call, json_t *parameters, void *userdata)
{
	did.recorded[did.n_recorded++] = (int)json_integer_value(json_object_get(parameters, "n"));
	return call_reply(call, json_incref(parameters));
}

static int big(struct call *call, json_t *parameters, void *userdata)
{
	size_t size = (size_t)json_integer_value(json_object_get(parameters, "size"));
	char *text = malloc(size);
	json_t *reply;

	memset(text, 'x', size);
	reply = json_pack("{s:s%}", "text", text, size);
	free(text);
	return call_reply(call, reply);
}

struct counter {
	struct call *call;
	int i, to;
	bool again, fails;
};

static void counter_free(void *state)
{
	did.destroyed++;
	free(state);
}

/* Every other time it is not ready. */
static int counter_produce(void *state, struct writer *reply)
{
	struct counter *c = state;

	c->again = !c->again;
	if (c->again)
		return -EAGAIN;
	did.produced++;
	if (c->i == c->to && c->fails)
		return call_error(c->call, "test.a.Broken", json_object());
	writer_literal(reply, "{\"i\":");
	writer_number(reply, (uint64_t)c->i);
	writer_literal(reply, "}");
	return c->i++ < c->to;
}

static int count_with(struct call *call, json_t *parameters, bool fails)
{
	struct counter *c = calloc(1, sizeof(*c));

	c->call = call;
	c->to = (int)json_integer_value(json_object_get(parameters, "to"));
	c->fails = fails;
	return call_stream(call, counter_produce, c, counter_free);
}

static int count(struct call *call, json_t *parameters, void *userdata)
{
	return count_with(call, parameters, false);
}

static int count_fails(struct call *call, json_t *parameters, void *userdata)
{
	return count_with(call, parameters, true);
}

/* Ends without a last reply. */
static int bare_produce(void *state, struct writer *reply)
{
	int *left = state;

	if ((*left)-- == 0)
		return 0;
	writer_literal(reply, "{\"left\":");
	writer_number(reply, (uint64_t)*left);
	writer_literal(reply, "}");
	return 1;
}

static int bare(struct call *call, json_t *parameters, void *userdata)
{
	int *left = malloc(sizeof(*left));

	*left = 2;
	return call_stream(call, bare_produce, left, free);
}

static int forever_produce(void *state, struct writer *reply)
{
	char text[FOREVER_SIZE];

	did.produced++;
	memset(text, 'x', sizeof(text));
	writer_literal(reply, "{\"text\":\"");
	writer_bytes(reply, text, sizeof(text));
	writer_literal(reply, "\"}");
	return 1;
}

static void forever_end(void *state)
{
	did.destroyed++;
}

static int forever(struct call *call, json_t *parameters, void *userdata)
{
	return call_stream(call, forever_produce, NULL, forever_end);
}

static struct call *sleeper;
static bool sleeper_ready;

static int sleeps_produce(void *state, struct writer *reply)
{
	did.produced++;
	if (!sleeper_ready)
		return -EINPROGRESS;
	sleeper_ready = false;
	writer_literal(reply, "{}");
	return 1;
}

static int sleeps(struct call *call, json_t *parameters, void *userdata)
{
	sleeper = call;
	sleeper_ready = true;
	return call_stream(call, sleeps_produce, NULL, forever_end);
}

/* Has much to do before there is anything to send. */
static int toils_produce(void *state, struct writer *reply)
{
	did.produced++;
	return did.produced < TOIL ? -EAGAIN : 0;
}

static int toils(struct call *call, json_t *parameters, void *userdata)
{
	return call_stream(call, toils_produce, NULL, NULL);
}

static int breaks(struct call *call, json_t *parameters, void *userdata)
{
	return -EIO;
}

static int silent(struct call *call, json_t *parameters, void *userdata)
{
	return 0;
}

static int twice(struct call *call, json_t *parameters, void *userdata)
{
	int r = call_reply(call, json_object());

	return r < 0 ? r : call_reply(call, json_object());
}

static const struct server_method methods[] = {
	{"test.a.Echo", false, echo, false},	 {"test.a.Large", true, echo, true},
	{"test.a.Record", true, record, false},	 {"test.a.Big", false, big, false},
	{"test.a.Count", false, count, false},	 {"test.a.CountFails", false, count_fails, false},
	{"test.a.Bare", false, bare, false},	 {"test.a.Forever", false, forever, false},
	{"test.a.Sleeps", false, sleeps, false}, {"test.a.Toils", false, toils, false},
	{"test.a.Breaks", false, breaks, false}, {"test.a.Silent", false, silent, false},
	{"test.a.Twice", false, twice, false},	 {"test.a.Later", false, NULL, false},
	{"test.a.b.Deep", false, echo, false},	 {NULL, false, NULL, false},
};

/* ---- the loop and its clients ---- */

static void pump(struct fixture *f)
{
	assert_true(sd_event_run(f->event, 2000) >= 0);
}

/* Until nothing is left to do, as far as the server is concerned. */
static void pump_some(struct fixture *f)
{
	int r = 1;

	for (int i = 0; i < 10000 && r > 0; i++) {
		r = sd_event_run(f->event, 20000);
		assert_true(r >= 0);
	}
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int start(struct fixture *f)
{
	return server_new(f->event, f->path, methods, NULL, &f->server, NULL);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	memset(&did, 0, sizeof(did));
	strcpy(f->folder, "/tmp/test-server-XXXXXX");
	if (!mkdtemp(f->folder) || chmod(f->folder, 0755) < 0)
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/sub/sub/socket", f->folder);
	f->limits = (struct server_limits){
		.clients_max = SERVER_CLIENTS_MAX,
		.request_max = SERVER_REQUEST_MAX,
		.large_request_max = SERVER_LARGE_REQUEST_MAX,
		.request_time_max = SERVER_REQUEST_TIME_MAX,
		.output_time_max = SERVER_OUTPUT_TIME_MAX,
		.output_max = SERVER_OUTPUT_MAX,
	};
	*state = f;
	return sd_event_new(&f->event) < 0 || start(f) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[64];
	int r = 0;

	server_free(f->server);
	sd_event_unref(f->event);
	/* Every folder must be empty: nothing stays behind. */
	for (const char *sub = "/sub/sub\0/sub\0"; r == 0; sub += strlen(sub) + 1) {
		snprintf(path, sizeof(path), "%s%s", f->folder, sub);
		r = rmdir(path);
		if (!*sub)
			break;
	}
	free(f);
	return r;
}

static struct client connect_as(struct fixture *f, uid_t uid)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct client c = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
	int r;

	strcpy(a.sun_path, f->path);
	assert_true(uid == geteuid() || (setegid(uid) == 0 && seteuid(uid) == 0));
	r = connect(c.fd, (struct sockaddr *)&a, sizeof(a));
	if (geteuid() != getuid())
		assert_true(seteuid(getuid()) == 0 && setegid(getgid()) == 0);
	assert_int_equal(r, 0);
	pump_some(f);
	return c;
}

static struct client connect_self(struct fixture *f)
{
	return connect_as(f, geteuid());
}

static void disconnect(struct client *c)
{
	varlink_buffer_clear(&c->in);
	close(c->fd);
}

/* Sends all of it, the loop running meanwhile. False when the server closed before the end. */
static bool send_bytes(struct fixture *f, struct client *c, const char *data, size_t length)
{
	uint64_t end = now_ms() + DEADLINE * 1000;

	while (length > 0) {
		ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);

		assert_true(now_ms() < end);
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n > 0) {
			data += n;
			length -= (size_t)n;
		}
		pump(f);
	}
	return true;
}

static void send_text(struct fixture *f, struct client *c, const char *text)
{
	assert_true(send_bytes(f, c, text, strlen(text) + 1));
}

/* Bytes that came in; 0: end of the connection; negative: nothing yet. */
static ssize_t receive_some(struct client *c)
{
	char data[64 * 1024];
	ssize_t n = recv(c->fd, data, sizeof(data), 0);

	if (n > 0)
		assert_int_equal(varlink_buffer_append(&c->in, data, (size_t)n, REPLY_MAX), 0);
	return n < 0 && errno == ECONNRESET ? 0 : n;
}

/* The next message, or NULL at the end of the connection. */
static json_t *receive(struct fixture *f, struct client *c)
{
	uint64_t end = now_ms() + DEADLINE * 1000;
	json_t *message = NULL;
	ssize_t n = -1;

	while (varlink_buffer_next(&c->in, &message, NULL) == 0 && n != 0) {
		assert_true(now_ms() < end);
		pump(f);
		n = receive_some(c);
	}
	return message;
}

static void assert_message(struct fixture *f, struct client *c, const char *expected)
{
	json_t *message = receive(f, c);
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
	json_decref(message);
}

static void assert_gone(struct fixture *f, struct client *c)
{
	assert_null(receive(f, c));
}

/* Still connected, and nothing came. */
static void assert_quiet(struct fixture *f, struct client *c)
{
	pump_some(f);
	assert_true(receive_some(c) < 0);
}

static void assert_works(struct fixture *f, struct client *c)
{
	send_text(f, c, "{\"method\":\"test.a.Echo\",\"parameters\":{\"still\":1}}");
	assert_message(f, c, "{\"parameters\":{\"still\":1}}");
}

#define need_root()                                                                                \
	do {                                                                                       \
		if (geteuid() != 0)                                                                \
			skip();                                                                    \
	} while (0)

/* ---- calls ---- */

static void test_replies(void **state)
{
	struct fixture *f = *state;
	struct client c = connect_self(f);

	send_text(f, &c, "{\"method\":\"test.a.Echo\",\"parameters\":{\"a\":[1,\"b\"]}}");
	assert_message(f, &c, "{\"parameters\":{\"a\":[1,\"b\"]}}");
	send_text(f, &c, "{\"method\":\"test.a.Echo\"}");
	assert_message(f, &c, "{\"parameters\":{}}");
	send_text(f, &c,
		  " {\"method\":\"test.a.Echo\",\"parameters\":null,\"more\":false,"
		  "\"oneway\":null,\"upgrade\":false} ");
	assert_message(f, &c, "{\"parameters\":{}}");
	send_text(f, &c, "{\"method\":\"test.a.b.Deep\"}");
	assert_message(f, &c, "{\"parameters\":{}}");
	assert_quiet(f, &c);
	disconnect(&c);
	pump_some(f);
	assert_int_equal(server_count_clients(f->server), 0);
}

static void test_unknown_names(void **state)
{
	static const struct {
		const char *method, *error, *key, *value;
	} cases[] = {
		{"test.a.None", "MethodNotFound", "method", "test.a.None"},
		{"test.a.", "MethodNotFound", "method", "test.a."},
		{"test.b.Echo", "InterfaceNotFound", "interface", "test.b"},
		{"test.Echo", "InterfaceNotFound", "interface", "test"},
		{"test.a.b.c.Deep", "InterfaceNotFound", "interface", "test.a.b.c"},
		{"Echo", "InterfaceNotFound", "interface", "Echo"},
		{"", "InterfaceNotFound", "interface", ""},
		{".Echo", "InterfaceNotFound", "interface", ""},
		{"test.a.Later", "MethodNotImplemented", "method", "test.a.Later"},
	};
	struct fixture *f = *state;
	struct client c = connect_self(f);
	char text[256];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), "{\"method\":\"%s\"}", cases[i].method);
		send_text(f, &c, text);
		snprintf(text, sizeof(text),
			 "{\"error\":\"org.varlink.service.%s\",\"parameters\":{\"%s\":\"%s\"}}",
			 cases[i].error, cases[i].key, cases[i].value);
		assert_message(f, &c, text);
	}
	send_text(f, &c, "{\"method\":\"test.a.Echo\",\"upgrade\":true}");
	assert_message(f, &c,
		       "{\"error\":\"org.varlink.service.InvalidParameter\","
		       "\"parameters\":{\"parameter\":\"upgrade\"}}");
	assert_works(f, &c);
	disconnect(&c);
}

static void test_no_call(void **state)
{
	static const char *const cases[] = {
		"{\"method\":1}",
		"{}",
		"{\"parameters\":{}}",
		"{\"method\":\"test.a.Echo\",\"parameters\":[]}",
		"{\"method\":\"test.a.Echo\",\"parameters\":\"\"}",
		"{\"method\":\"test.a.Echo\",\"more\":1}",
		"{\"method\":\"test.a.Echo\",\"oneway\":\"yes\"}",
		"{\"method\":\"test.a.Echo\",\"upgrade\":0}",
		"{\"method\":\"test.a.Echo\",\"more\":true,\"oneway\":true}",
		"{\"method\":\"test.a.Echo\",\"fds\":[]}",
		"{\"method\":\"test.a.Echo\",\"method\":\"test.a.Echo\"}",
		"[]",
		"GET / HTTP/1.1\r\n\r\n",
		"",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct client c = connect_self(f);
		json_t *message;

		send_text(f, &c, cases[i]);
		message = receive(f, &c);
		assert_string_equal(json_string_value(json_object_get(message, "error")),
				    "io.redirectd.InvalidMessage");
		assert_true(json_string_length(json_object_get(
				    json_object_get(message, "parameters"), "message")) > 10);
		json_decref(message);
		assert_gone(f, &c);
		disconnect(&c);
	}
	assert_int_equal(server_count_clients(f->server), 0);
}

static void test_pipelined_in_order(void **state)
{
	struct fixture *f = *state;
	struct client c = connect_self(f);
	char text[8192], expected[64];
	size_t length = 0;

	for (int i = 0; i < 100; i++)
		length += (size_t)sprintf(text + length,
					  "{\"method\":\"test.a.Echo\",\"parameters\":{\"i\":%d}}",
					  i) +
			  1;
	assert_true(send_bytes(f, &c, text, length));
	for (int i = 0; i < 100; i++) {
		snprintf(expected, sizeof(expected), "{\"parameters\":{\"i\":%d}}", i);
		assert_message(f, &c, expected);
	}
	disconnect(&c);
}

static void test_oneway(void **state)
{
	static const char text[] =
		"{\"method\":\"test.a.Record\",\"parameters\":{\"n\":1},\"oneway\":true}\0"
		"{\"method\":\"test.a.None\",\"oneway\":true}\0"
		"{\"method\":\"test.a.Count\",\"parameters\":{\"to\":3},\"oneway\":true}\0"
		"{\"method\":\"test.a.Record\",\"parameters\":{\"n\":2}}";
	struct fixture *f = *state;
	struct client c = connect_self(f);

	need_root();
	assert_true(send_bytes(f, &c, text, sizeof(text)));
	assert_message(f, &c, "{\"parameters\":{\"n\":2}}");
	assert_int_equal(did.n_recorded, 2);
	assert_int_equal(did.recorded[0], 1);
	assert_int_equal(did.produced, 4); /* what it does may matter */
	assert_int_equal(did.destroyed, 1);
	assert_quiet(f, &c);
	disconnect(&c);
}

/* Requests that were sent are carried out, even when their sender has left. */
static void test_oneway_and_gone(void **state)
{
	static const char text[] =
		"{\"method\":\"test.a.Record\",\"parameters\":{\"n\":1},\"oneway\":true}\0"
		"{\"method\":\"test.a.Record\",\"parameters\":{\"n\":2},\"oneway\":true}\0"
		"{\"method\":\"test.a.Count\",\"parameters\":{\"to\":30},\"oneway\":true}\0"
		"{\"method\":\"test.a.Record\",\"parameters\":{\"n\":3},\"oneway\":true}";
	struct fixture *f = *state;
	struct client c = connect_self(f);

	need_root();
	assert_int_equal(send(c.fd, text, sizeof(text), 0), sizeof(text));
	disconnect(&c);
	pump_some(f);
	assert_int_equal(did.n_recorded, 3);
	assert_int_equal(did.produced, 31);
	assert_int_equal(server_count_clients(f->server), 0);
}

/* A client may end its sending side and still read what it asked for. */
static void test_half_close(void **state)
{
	static const char text[] = "{\"method\":\"test.a.Echo\"}\0"
				   "{\"method\":\"test.a.Big\",\"parameters\":{\"size\":2000000}}\0"
				   "{\"method\":\"test.a.Echo\"}\0{\"meth";
	struct fixture *f = *state;
	struct client c = connect_self(f);
	json_t *message;

	assert_true(send_bytes(f, &c, text, sizeof(text) - 1));
	assert_int_equal(shutdown(c.fd, SHUT_WR), 0);
	assert_message(f, &c, "{\"parameters\":{}}");
	message = receive(f, &c);
	assert_int_equal(
		json_string_length(json_object_get(json_object_get(message, "parameters"), "text")),
		2000000);
	json_decref(message);
	assert_message(f, &c, "{\"parameters\":{}}");
	assert_gone(f, &c);
	disconnect(&c);
}

static void test_stream(void **state)
{
	static const char text[] = "{\"method\":\"test.a.Count\",\"parameters\":{\"to\":3},"
				   "\"more\":true}\0{\"method\":\"test.a.Echo\"}";
	struct fixture *f = *state;
	struct client c = connect_self(f);

	assert_true(send_bytes(f, &c, text, sizeof(text)));
	assert_message(f, &c, "{\"parameters\":{\"i\":0},\"continues\":true}");
	assert_message(f, &c, "{\"parameters\":{\"i\":1},\"continues\":true}");
	assert_message(f, &c, "{\"parameters\":{\"i\":2},\"continues\":true}");
	assert_message(f, &c, "{\"parameters\":{\"i\":3}}");
	assert_message(f, &c, "{\"parameters\":{}}"); /* held back until here */
	assert_int_equal(did.destroyed, 1);
	send_text(f, &c, "{\"method\":\"test.a.Bare\",\"more\":true}");
	assert_message(f, &c, "{\"parameters\":{\"left\":1},\"continues\":true}");
	assert_message(f, &c, "{\"parameters\":{\"left\":0},\"continues\":true}");
	assert_message(f, &c, "{\"parameters\":{}}");
	send_text(f, &c,
		  "{\"method\":\"test.a.CountFails\",\"parameters\":{\"to\":1},"
		  "\"more\":true}");
	assert_message(f, &c, "{\"parameters\":{\"i\":0},\"continues\":true}");
	assert_message(f, &c, "{\"error\":\"test.a.Broken\",\"parameters\":{}}");
	assert_int_equal(did.destroyed, 2);
	/* Without `more` there is one reply, made over several turns. */
	send_text(f, &c, "{\"method\":\"test.a.Count\",\"parameters\":{\"to\":0}}");
	assert_message(f, &c, "{\"parameters\":{\"i\":0}}");
	assert_quiet(f, &c);
	disconnect(&c);
}

static void test_handler_faults(void **state)
{
	static const char *const names[] = {"Breaks", "Silent", "Twice"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct client c = connect_self(f);
		char text[64];

		snprintf(text, sizeof(text), "{\"method\":\"test.a.%s\"}", names[i]);
		send_text(f, &c, text);
		json_decref(receive(f, &c)); /* what was said before the fault may come or not */
		assert_gone(f, &c);
		disconnect(&c);
	}
	assert_int_equal(server_count_clients(f->server), 0);
}

/* ---- limits ---- */

static void test_long_request(void **state)
{
	struct fixture *f = *state;
	struct client c = connect_self(f);
	size_t size = SERVER_REQUEST_MAX + 1;
	char *text = malloc(size + 1);
	json_t *message;

	memset(text, ' ', size);
	memcpy(text, "{\"method\":\"test.a.Echo\"}", 24);
	text[SERVER_REQUEST_MAX] = '\0';
	assert_true(send_bytes(f, &c, text, SERVER_REQUEST_MAX + 1));
	assert_message(f, &c, "{\"parameters\":{}}");
	text[SERVER_REQUEST_MAX] = ' ';
	text[size] = '\0';
	send_bytes(f, &c, text, size + 1);
	message = receive(f, &c);
	assert_string_equal(json_string_value(json_object_get(
				    json_object_get(message, "parameters"), "message")),
			    "a request has at most 1048576 bytes");
	json_decref(message);
	assert_gone(f, &c);
	disconnect(&c);
	free(text);
}

/* Large ones: of methods that take whole files, from those who may change something. */
static void test_large_request(void **state)
{
	static const struct {
		const char *begin;
		size_t length;
		bool privileged, taken;
	} cases[] = {
		{" {\"method\" : \"test.a.Large\"}", SERVER_LARGE_REQUEST_MAX, true, true},
		{"{\"method\":\"test.a.Large\"}", SERVER_LARGE_REQUEST_MAX + 1, true, false},
		{"{\"method\":\"test.a.Large\"}", SERVER_REQUEST_MAX + 1, false, false},
		{"{\"method\":\"test.a.LargeX\"}", SERVER_REQUEST_MAX + 1, true, false},
		{"{\"method\":\"test.a.Echo\"}", SERVER_REQUEST_MAX + 1, true, false},
		{"{\"more\":false,\"method\":\"test.a.Large\"}", SERVER_REQUEST_MAX + 1, true,
		 false},
	};
	struct fixture *f = *state;

	need_root();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct client c = connect_as(f, cases[i].privileged ? 0 : NOBODY);
		char *text = malloc(cases[i].length + 1);
		json_t *message;

		memset(text, ' ', cases[i].length);
		memcpy(text, cases[i].begin, strlen(cases[i].begin));
		text[cases[i].length] = '\0';
		/* Behind another one in the same bytes it is seen as well. */
		send_text(f, &c, "{\"method\":\"test.a.Echo\"}");
		send_bytes(f, &c, text, cases[i].length + 1);
		assert_message(f, &c, "{\"parameters\":{}}");
		message = receive(f, &c);
		assert_int_equal(json_object_get(message, "error") == NULL, cases[i].taken);
		json_decref(message);
		disconnect(&c);
		free(text);
	}
}

/* Single bytes now and then do not buy time; an idle client has all of it. */
static void test_slow_request(void **state)
{
	struct fixture *f = *state;
	struct client idle, slow;
	json_t *message;
	uint64_t begin;

	f->limits.request_time_max = 300 * 1000;
	server_set_limits(f->server, &f->limits);
	idle = connect_self(f);
	slow = connect_self(f);
	begin = now_ms();
	while (send(slow.fd, "{", 1, MSG_NOSIGNAL) == 1 && receive_some(&slow) < 0) {
		assert_true(now_ms() < begin + DEADLINE * 1000);
		pump(f);
	}
	assert_true(now_ms() - begin >= 250);
	message = receive(f, &slow);
	assert_string_equal(json_string_value(json_object_get(
				    json_object_get(message, "parameters"), "message")),
			    "the request was not complete within 300 ms");
	json_decref(message);
	assert_gone(f, &slow);
	assert_works(f, &idle);
	disconnect(&slow);
	disconnect(&idle);
}

/* Who does not read pauses alone, holds one reply, and is dropped in the end. */
static void test_slow_reader(void **state)
{
	struct fixture *f = *state;
	struct client slow, other;
	unsigned produced;

	f->limits.output_time_max = 400 * 1000;
	server_set_limits(f->server, &f->limits);
	slow = connect_self(f);
	other = connect_self(f);
	send_text(f, &slow, "{\"method\":\"test.a.Forever\",\"more\":true}");
	do {
		produced = did.produced;
		for (int i = 0; i < 10; i++)
			assert_works(f, &other);
	} while (did.produced != produced);
	assert_true(produced > 1);
	/* What it takes is what the kernel's buffers hold, and one reply. */
	assert_true(produced < 1024 * 1024 / FOREVER_SIZE);
	assert_int_equal(did.destroyed, 0);
	for (uint64_t end = now_ms() + DEADLINE * 1000; !did.destroyed; pump(f))
		assert_true(now_ms() < end);
	assert_int_equal(server_count_clients(f->server), 1);
	assert_int_equal(did.produced, produced);
	assert_works(f, &other);
	disconnect(&slow);
	disconnect(&other);
}

/* Slow, but reading: gets everything, in more time than a standstill may last. */
static void test_steady_reader(void **state)
{
	struct fixture *f = *state;
	struct client c;
	json_t *message = NULL;

	f->limits.output_time_max = 1500 * 1000; /* a busy machine may stand still for a while */
	server_set_limits(f->server, &f->limits);
	c = connect_self(f);
	send_text(f, &c, "{\"method\":\"test.a.Big\",\"parameters\":{\"size\":3000000}}");
	while (varlink_buffer_next(&c.in, &message, NULL) == 0) {
		uint64_t next = now_ms() + 50;

		assert_true(receive_some(&c) != 0);
		while (now_ms() < next)
			pump(f);
	}
	assert_int_equal(
		json_string_length(json_object_get(json_object_get(message, "parameters"), "text")),
		3000000);
	json_decref(message);
	disconnect(&c);
}

/* A stream that nobody reads ends when its client goes. */
static void test_stream_and_gone(void **state)
{
	struct fixture *f = *state;
	struct client c = connect_self(f);

	send_text(f, &c, "{\"method\":\"test.a.Forever\",\"more\":true}");
	pump_some(f);
	disconnect(&c);
	pump_some(f);
	assert_int_equal(did.destroyed, 1);
	assert_int_equal(server_count_clients(f->server), 0);
}

/* A stream that waits for something costs no turn of the loop, and ends with its client. */
static void test_sleeping_stream(void **state)
{
	struct fixture *f = *state;
	struct client c = connect_self(f);
	unsigned produced;

	send_text(f, &c, "{\"method\":\"test.a.Sleeps\",\"more\":true}");
	assert_message(f, &c, "{\"parameters\":{},\"continues\":true}");
	pump_some(f);
	produced = did.produced;
	pump_some(f);
	assert_int_equal(did.produced, produced);
	assert_quiet(f, &c);
	for (int i = 0; i < 3; i++) {
		sleeper_ready = true;
		call_wake(sleeper);
		call_wake(sleeper); /* once more changes nothing */
		assert_message(f, &c, "{\"parameters\":{},\"continues\":true}");
		assert_quiet(f, &c);
	}
	assert_int_equal(did.destroyed, 0);
	disconnect(&c);
	pump_some(f);
	assert_int_equal(did.destroyed, 1);
	assert_int_equal(server_count_clients(f->server), 0);
}

/* A call with much to do, and others that have one thing each: they are answered in between. */
static void test_long_work_leaves_others_alone(void **state)
{
	struct fixture *f = *state;
	struct client older = connect_self(f), worker = connect_self(f), newer = connect_self(f);
	struct client *others[] = {&older, &newer};

	send_text(f, &worker, "{\"method\":\"test.a.Toils\"}");
	for (size_t i = 0; i < 2; i++) {
		for (int n = 0; n < 3; n++)
			send_text(f, others[i],
				  "{\"method\":\"test.a.Echo\",\"parameters\":{\"n\":1}}");
		for (int n = 0; n < 3; n++)
			assert_message(f, others[i], "{\"parameters\":{\"n\":1}}");
	}
	assert_in_range(did.produced, 1, TOIL / 2);
	assert_message(f, &worker, "{\"parameters\":{}}");
	assert_int_equal(did.produced, TOIL);
	disconnect(&older);
	disconnect(&worker);
	disconnect(&newer);
}

static void test_free_with_stream(void **state)
{
	struct fixture *f = *state;
	struct client c = connect_self(f);

	send_text(f, &c, "{\"method\":\"test.a.Forever\",\"more\":true}");
	pump_some(f);
	f->server = server_free(f->server);
	assert_int_equal(did.destroyed, 1);
	assert_int_equal(access(f->path, F_OK), -1);
	disconnect(&c);
}

/* Replies that nobody fetches hold up other unprivileged clients, never root. */
static void test_output_budget(void **state)
{
	static const char big_call[] =
		"{\"method\":\"test.a.Big\",\"parameters\":{\"size\":4000000}}";
	struct fixture *f = *state;
	struct client hoarder, waits, root;
	json_t *message;

	need_root();
	f->limits.output_max = 1000000;
	server_set_limits(f->server, &f->limits);
	hoarder = connect_as(f, NOBODY);
	waits = connect_as(f, NOBODY);
	root = connect_self(f);
	send_text(f, &hoarder, big_call);
	pump_some(f);
	send_text(f, &waits, "{\"method\":\"test.a.Echo\"}");
	assert_quiet(f, &waits);
	assert_works(f, &root);
	message = receive(f, &hoarder);
	assert_non_null(message);
	json_decref(message);
	assert_message(f, &waits, "{\"parameters\":{}}");
	/* The same when the hoarder goes without reading. */
	send_text(f, &hoarder, big_call);
	pump_some(f);
	send_text(f, &waits, "{\"method\":\"test.a.Echo\"}");
	assert_quiet(f, &waits);
	disconnect(&hoarder);
	assert_message(f, &waits, "{\"parameters\":{}}");
	disconnect(&waits);
	disconnect(&root);
}

/* ---- places ---- */

static void use_places(struct fixture *f, size_t places)
{
	f->limits.clients_max = places;
	server_set_limits(f->server, &f->limits);
}

static void test_longest_idle_gives_way(void **state)
{
	struct fixture *f = *state;
	struct client c[4], newcomer;

	use_places(f, 4);
	for (int i = 0; i < 4; i++)
		c[i] = connect_self(f);
	send_text(f, &c[0], "{\"method\":\"test.a.Forever\",\"more\":true}"); /* busy */
	assert_works(f, &c[1]);
	newcomer = connect_self(f);
	assert_gone(f, &c[2]);
	assert_works(f, &newcomer);
	assert_works(f, &c[3]);
	assert_works(f, &c[1]);
	assert_int_equal(server_count_clients(f->server), 4);
	assert_int_equal(did.destroyed, 0);
	for (int i = 0; i < 4; i++)
		disconnect(&c[i]);
	disconnect(&newcomer);
}

/* Any number of others, busy ones too, gives way to root, and none of them makes root leave. */
static void test_root_gets_in(void **state)
{
	struct fixture *f = *state;
	struct client root[2], other[SERVER_CLIENTS_MAX], late;

	need_root();
	root[0] = connect_self(f);
	for (int i = 0; i < SERVER_CLIENTS_MAX; i++) {
		other[i] = connect_as(f, NOBODY);
		send_text(f, &other[i], "{\"method\":\"test.a.Forever\",\"more\":true}");
	}
	assert_int_equal(server_count_clients(f->server), SERVER_CLIENTS_MAX);
	root[1] = connect_self(f);
	assert_works(f, &root[0]);
	assert_works(f, &root[1]);
	assert_int_equal(server_count_clients(f->server), SERVER_CLIENTS_MAX);
	for (int i = 0; i < SERVER_CLIENTS_MAX; i++)
		disconnect(&other[i]);
	pump_some(f);
	/* Full of privileged clients with work under way: the newcomer has to go. */
	use_places(f, 2);
	send_text(f, &root[0], "{\"method\":\"test.a.Forever\",\"more\":true}");
	send_text(f, &root[1], "{\"method\":\"test.a.Forever\",\"more\":true}");
	late = connect_as(f, NOBODY);
	assert_gone(f, &late);
	assert_int_equal(server_count_clients(f->server), 2);
	disconnect(&late);
	disconnect(&root[0]);
	disconnect(&root[1]);
}

/* ---- permissions ---- */

static void test_permissions(void **state)
{
	static const char call[] = "{\"method\":\"test.a.Record\",\"parameters\":{\"n\":7}}";
	struct fixture *f = *state;
	struct client c;

	need_root();
	c = connect_as(f, NOBODY);
	send_text(f, &c, call);
	assert_message(f, &c,
		       "{\"error\":\"org.varlink.service.PermissionDenied\","
		       "\"parameters\":{}}");
	assert_works(f, &c);
	assert_int_equal(did.n_recorded, 0);
	disconnect(&c);
	c = connect_self(f);
	send_text(f, &c, call);
	assert_message(f, &c, "{\"parameters\":{\"n\":7}}");
	disconnect(&c);
}

/* The credentials of a socket that was made with these ids. */
static struct server_peer peer_of(uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	gid_t before[256];
	int n_before = getgroups(256, before), pair[2];
	struct server_peer peer;

	assert_int_equal(setgroups(n, groups), 0);
	assert_true(setegid(gid) == 0 && seteuid(uid) == 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_true(seteuid(0) == 0 && setegid(0) == 0);
	assert_int_equal(setgroups((size_t)n_before, before), 0);
	assert_int_equal(server_peer_read(pair[0], GROUP, &peer), 0);
	close(pair[0]);
	close(pair[1]);
	return peer;
}

static void test_peer(void **state)
{
	gid_t many[64];

	need_root();
	for (size_t i = 0; i < 64; i++)
		many[i] = (gid_t)(GROUP + 1 + i);
	assert_true(peer_of(0, 0, NULL, 0).privileged);
	assert_true(peer_of(NOBODY, GROUP, NULL, 0).privileged);
	assert_false(peer_of(NOBODY, NOBODY, NULL, 0).privileged);
	assert_false(peer_of(NOBODY, NOBODY, many, 64).privileged);
	assert_false(peer_of(NOBODY, 0, NULL, 0).privileged);
	many[63] = GROUP;
	assert_true(peer_of(NOBODY, NOBODY, many, 64).privileged);
	assert_int_equal(peer_of(NOBODY, NOBODY, NULL, 0).uid, NOBODY);
	assert_int_equal(peer_of(NOBODY, NOBODY, NULL, 0).pid, getpid());
}

/* ---- the socket; tests in a child of their own say what failed and exit ---- */

#define check(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static void assert_child(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A member of the group, in a mount namespace whose /etc/group has it. */
static void group_child(struct fixture *f)
{
	static const char line[] = SERVER_GROUP ":x:4242:\n";
	const gid_t groups[] = {GROUP};
	struct client c;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/group", f->folder);
	fd = open(path, O_WRONLY | O_CREAT, 0644);
	check(write(fd, line, sizeof(line) - 1) == sizeof(line) - 1);
	close(fd);
	check(unshare(CLONE_NEWNS) == 0);
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	check(mount(path, "/etc/group", NULL, MS_BIND, NULL) == 0);
	check(sd_event_new(&f->event) >= 0);
	snprintf(f->path, sizeof(f->path), "%s/group-socket", f->folder);
	check(start(f) == 0);
	check(setgroups(1, groups) == 0);
	c = connect_as(f, NOBODY);
	send_text(f, &c, "{\"method\":\"test.a.Record\"}");
	assert_message(f, &c, "{\"parameters\":{}}");
	check(did.n_recorded == 1);
	disconnect(&c);
	server_free(f->server);
	sd_event_unref(f->event);
	check(unlink(path) == 0);
	_exit(0);
}

static void test_group(void **state)
{
	struct fixture *f = *state;
	pid_t child;

	need_root();
	child = fork();
	if (child == 0) {
		struct fixture own = *f;

		group_child(&own);
	}
	assert_child(child);
}

static void test_socket_file(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_string_equal(server_path(f->server), f->path);
	assert_int_equal(stat(f->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0666);
	f->server = server_free(f->server);
	assert_int_equal(stat(f->path, &st), -1);
}

static void test_live_owner(void **state)
{
	struct fixture *f = *state;
	struct server *second = NULL;
	pid_t owner = 0;

	assert_int_equal(server_new(f->event, f->path, methods, NULL, &second, &owner),
			 -EADDRINUSE);
	assert_null(second);
	assert_int_equal(owner, getpid());
	assert_int_equal(access(f->path, F_OK), 0);
}

/* A process that died without cleaning up: its socket is replaced. */
static void test_stale_socket(void **state)
{
	struct fixture *f = *state;
	struct client c;
	pid_t child;

	f->server = server_free(f->server);
	child = fork();
	if (child == 0) {
		check(sd_event_new(&f->event) >= 0); /* loops do not outlive fork() */
		check(start(f) == 0);
		_exit(0);
	}
	assert_child(child);
	assert_int_equal(access(f->path, F_OK), 0);
	assert_int_equal(start(f), 0);
	c = connect_self(f);
	assert_works(f, &c);
	disconnect(&c);
}

/* Many start at once on a dead socket: one wins, all others name it. */
static void test_start_race(void **state)
{
	enum { STARTERS = 16 };
	struct fixture *f = *state;
	int winners = 0, gate[2], result[2];
	pid_t children[STARTERS], answers[2], winner = 0;

	f->server = server_free(f->server);
	assert_int_equal(pipe(gate), 0);
	assert_int_equal(pipe(result), 0);
	for (int i = 0; i < STARTERS; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			char c;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(gate[1]);
			check(sd_event_new(&f->event) >= 0);
			check(read(gate[0], &c, 1) == 0);
			answers[0] = getpid();
			answers[1] = 0;
			if (server_new(f->event, f->path, methods, NULL, &f->server, &answers[1]) ==
			    0)
				answers[1] = getpid();
			check(write(result[1], answers, sizeof(answers)) == sizeof(answers));
			pause();
		}
	}
	close(gate[0]);
	close(gate[1]);
	for (int i = 0; i < STARTERS; i++) {
		assert_int_equal(read(result[0], answers, sizeof(answers)), sizeof(answers));
		assert_true(answers[1] > 0);
		assert_true(!winner || winner == answers[1]);
		winner = answers[1];
		winners += answers[0] == answers[1];
	}
	assert_int_equal(winners, 1);
	for (int i = 0; i < STARTERS; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	close(result[0]);
	close(result[1]);
	assert_int_equal(unlink(f->path), 0);
}

static void test_not_a_socket(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	f->server = server_free(f->server);
	close(open(f->path, O_WRONLY | O_CREAT, 0600));
	assert_int_equal(start(f), -EEXIST);
	assert_int_equal(stat(f->path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(unlink(f->path), 0);
}

static void test_bad_path(void **state)
{
	struct fixture *f = *state;
	struct server *s = NULL;
	char path[200];

	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[108] = '\0';
	assert_int_equal(server_new(f->event, path, methods, NULL, &s, NULL), -ENAMETOOLONG);
	assert_int_equal(server_new(f->event, "", methods, NULL, &s, NULL), -EINVAL);
	assert_int_equal(server_new(f->event, "/dev/null/x/y", methods, NULL, &s, NULL), -ENOTDIR);
	assert_null(s);
}

/* The socket of somebody else that took the path meanwhile is not removed. */
static void test_leaves_others_socket(void **state)
{
	struct fixture *f = *state;
	struct server *second;
	struct stat st;

	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(server_new(f->event, f->path, methods, NULL, &second, NULL), 0);
	f->server = server_free(f->server);
	assert_int_equal(stat(f->path, &st), 0);
	server_free(second);
	assert_int_equal(stat(f->path, &st), -1);
}

static void activation_child(struct fixture *f, int listener)
{
	struct client c;
	char pid[16];

	check(dup2(listener, 3) == 3);
	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	check(sd_event_new(&f->event) >= 0);
	check(server_new(f->event, "/nonexistent/never/used", methods, NULL, &f->server, NULL) ==
	      0);
	check(strcmp(server_path(f->server), f->path) == 0);
	c = connect_self(f);
	{
		struct ucred cred;
		socklen_t length = sizeof(cred);

		/* Not that of the process which bound the socket. */
		check(getsockopt(c.fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) == 0);
		check(cred.pid == getpid());
	}
	assert_works(f, &c);
	server_free(f->server);
	check(access(f->path, F_OK) == 0);
	_exit(0);
}

static void test_activation(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	pid_t child;

	f->server = server_free(f->server);
	strcpy(a.sun_path, f->path);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 5), 0);
	child = fork();
	if (child == 0) {
		struct fixture own = *f;

		activation_child(&own, listener);
	}
	assert_child(child);
	close(listener);
	assert_int_equal(unlink(f->path), 0);
}

#define server_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		server_test(test_replies),
		server_test(test_unknown_names),
		server_test(test_no_call),
		server_test(test_pipelined_in_order),
		server_test(test_oneway),
		server_test(test_oneway_and_gone),
		server_test(test_half_close),
		server_test(test_stream),
		server_test(test_handler_faults),
		server_test(test_long_request),
		server_test(test_large_request),
		server_test(test_slow_request),
		server_test(test_slow_reader),
		server_test(test_steady_reader),
		server_test(test_stream_and_gone),
		server_test(test_sleeping_stream),
		server_test(test_long_work_leaves_others_alone),
		server_test(test_free_with_stream),
		server_test(test_output_budget),
		server_test(test_longest_idle_gives_way),
		server_test(test_root_gets_in),
		server_test(test_permissions),
		cmocka_unit_test(test_peer),
		server_test(test_group),
		server_test(test_socket_file),
		server_test(test_live_owner),
		server_test(test_stale_socket),
		server_test(test_start_race),
		server_test(test_not_a_socket),
		server_test(test_bad_path),
		server_test(test_leaves_others_socket),
		server_test(test_activation),
	};

	return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
