/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A blocking connection to the daemon. The kernel's socket timeouts bound every wait; MSG_NOSIGNAL
 * turns a daemon that died into an error.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "lib/client-private.h"
#include "shared/cleanup.h"

#define READ_SIZE (64 * 1024)
/* An answer longer than this is not believed. 64 K rules of the greatest length fit. */
#define ANSWER_MAX ((size_t)512 * 1024 * 1024)

static enum redirectd_code fail_no_daemon(struct redirectd *r, const char *path)
{
	client_fail(r, REDIRECTD_NO_DAEMON, "no daemon at %s", path);
	r->hint = "start it with `systemctl start redirectd` or `redirectd -c FILE`; "
		  "REDIRECTD_SOCKET chooses another socket";
	return REDIRECTD_NO_DAEMON;
}

static enum redirectd_code fail_connect(struct redirectd *r, const char *path, int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED: /* a socket that nobody listens on, or a file that is none */
		return fail_no_daemon(r, path);
	case EACCES:
	case EPERM:
		return client_fail(r, REDIRECTD_DENIED, "no permission to open %s", path);
	case EAGAIN:
		return client_fail(r, REDIRECTD_FAILED, "the daemon at %s takes no connections",
				   path);
	}
	return client_fail(r, REDIRECTD_FAILED, "cannot connect to %s: %s", path, strerror(error));
}

CLIENT_PUBLIC void redirectd_set_timeout(struct redirectd *r, unsigned milliseconds)
{
	const struct timeval limit = {milliseconds / 1000, milliseconds % 1000 * 1000};

	r->timeout = milliseconds;
	/* Of a valid socket these cannot fail. */
	setsockopt(r->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

CLIENT_PUBLIC int redirectd_fd(const struct redirectd *r)
{
	return r->fd;
}

static enum redirectd_code connect_to(struct redirectd *r, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int failed;

	if (strlen(path) >= sizeof(address.sun_path))
		return client_fail(r, REDIRECTD_USAGE,
				   "socket path %s is too long: %zu bytes are the most", path,
				   sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	r->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->fd < 0)
		return fail_connect(r, path, errno);
	redirectd_set_timeout(r, REDIRECTD_TIMEOUT_DEFAULT);
	do
		failed = connect(r->fd, (const struct sockaddr *)&address, sizeof(address));
	while (failed && errno == EINTR);
	return failed ? fail_connect(r, path, errno) : REDIRECTD_DONE;
}

CLIENT_PUBLIC enum redirectd_code redirectd_open(const char *path, struct redirectd **ret)
{
	const char *environment = getenv("REDIRECTD_SOCKET");
	struct redirectd *r = calloc(1, sizeof(*r));

	*ret = r;
	if (!r)
		return REDIRECTD_FAILED;
	r->fd = -1;
	if (!path)
		path = environment && *environment ? environment : REDIRECTD_SOCKET_DEFAULT;
	return connect_to(r, path);
}

CLIENT_PUBLIC void redirectd_close(struct redirectd *r)
{
	if (!r)
		return;
	closep(&r->fd);
	varlink_buffer_clear(&r->buffer);
	client_clear_error(r);
	free(r);
}

static enum redirectd_code fail_io(struct redirectd *r, int error)
{
	if (error == EAGAIN)
		return client_fail(r, REDIRECTD_FAILED, "the daemon has not moved for %u seconds",
				   (r->timeout + 999) / 1000);
	if (error == EPIPE || error == ECONNRESET)
		return client_fail(r, REDIRECTD_FAILED, "the daemon closed the connection");
	return client_fail(r, REDIRECTD_FAILED, "the connection to the daemon failed: %s",
			   strerror(error));
}

static enum redirectd_code send_all(struct redirectd *r, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t n = send(r->fd, data, length, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		/*
		 * A daemon that refuses a request closes its end early; its answer may wait
		 * already: go on to read it.
		 */
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return REDIRECTD_DONE;
		if (n < 0)
			return fail_io(r, errno);
		data += n;
		length -= (size_t)n;
	}
	return REDIRECTD_DONE;
}

CLIENT_PUBLIC enum redirectd_code redirectd_send(struct redirectd *r, const char *method,
						 const json_t *parameters, bool more)
{
	_cleanup_(freep) char *text = NULL;
	json_t *message = json_pack("{s:s}", "method", method);
	size_t length;
	int failed;

	client_clear_error(r);
	if (!message)
		return client_fail(r, REDIRECTD_FAILED, "the method's name is not UTF-8");
	if (parameters)
		json_object_set(message, "parameters", (json_t *)parameters);
	if (more)
		json_object_set_new(message, "more", json_true());
	failed = varlink_encode(message, &text, &length);
	json_decref(message);
	if (failed < 0)
		return client_fail(r, REDIRECTD_FAILED, "cannot write the request: %s",
				   strerror(-failed));
	r->answered = false;
	return send_all(r, text, length);
}

static enum redirectd_code fail_end(struct redirectd *r)
{
	if (r->answered || r->buffer.length > r->buffer.begin + r->buffer.lent)
		return client_fail(r, REDIRECTD_FAILED,
				   "the daemon went away in the middle of its answer: it is "
				   "incomplete");
	return client_fail(r, REDIRECTD_FAILED,
			   "the daemon closed the connection without an answer");
}

/* Reads some bytes into the buffer. */
static enum redirectd_code receive_some(struct redirectd *r)
{
	char data[READ_SIZE];
	ssize_t n;
	int failed;

	do
		n = recv(r->fd, data, sizeof(data), 0);
	while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return fail_end(r);
	if (n < 0)
		return fail_io(r, errno);
	failed = varlink_buffer_append(&r->buffer, data, (size_t)n, ANSWER_MAX);
	if (failed < 0)
		return client_fail(r, REDIRECTD_FAILED, "the daemon's answer does not fit: %s",
				   strerror(-failed));
	return REDIRECTD_DONE;
}

CLIENT_PUBLIC bool redirectd_has_answer(struct redirectd *r)
{
	const struct varlink_buffer *b = &r->buffer;
	size_t begin = b->begin + b->lent;

	return b->length > begin && memchr(b->data + begin, '\0', b->length - begin);
}

CLIENT_PUBLIC enum redirectd_code redirectd_receive_message(struct redirectd *r, json_t **ret)
{
	enum redirectd_code code;
	json_error_t error;
	int got;

	while ((got = varlink_buffer_next(&r->buffer, ret, &error)) == 0) {
		code = receive_some(r);
		if (code != REDIRECTD_DONE)
			return code;
	}
	if (got < 0)
		return client_fail(r, REDIRECTD_FAILED, "the daemon's answer is not JSON: %s",
				   got == -EBADMSG ? error.text : strerror(-got));
	r->answered = true;
	return REDIRECTD_DONE;
}

CLIENT_PUBLIC enum redirectd_code redirectd_receive_text(struct redirectd *r, const char **ret,
							 size_t *ret_length)
{
	enum redirectd_code code;

	while (varlink_buffer_next_text(&r->buffer, ret, ret_length) == 0) {
		code = receive_some(r);
		if (code != REDIRECTD_DONE)
			return code;
	}
	r->answered = true;
	return REDIRECTD_DONE;
}

CLIENT_PUBLIC enum redirectd_code redirectd_receive(struct redirectd *r, json_t **ret,
						    bool *ret_continues)
{
	json_t *message = NULL, *parameters;
	enum redirectd_code code = redirectd_receive_message(r, &message);

	if (code != REDIRECTD_DONE)
		return code;
	if (json_object_get(message, "error")) {
		code = redirectd_read_error(r, message);
		json_decref(message);
		return code;
	}
	parameters = json_object_get(message, "parameters");
	if (ret)
		*ret = json_is_object(parameters) ? json_incref(parameters) : json_object();
	if (ret_continues)
		*ret_continues = json_is_true(json_object_get(message, "continues"));
	json_decref(message);
	return REDIRECTD_DONE;
}

CLIENT_PUBLIC enum redirectd_code redirectd_call(struct redirectd *r, const char *method,
						 const json_t *parameters, json_t **ret)
{
	enum redirectd_code code = redirectd_send(r, method, parameters, false);

	return code == REDIRECTD_DONE ? redirectd_receive(r, ret, NULL) : code;
}

CLIENT_PUBLIC int redirectd_stream(struct redirectd *r, const char *method,
				   const json_t *parameters,
				   int (*handler)(void *userdata, json_t *part), void *userdata)
{
	int code = redirectd_send(r, method, parameters, true);
	bool continues = true;

	while (code == REDIRECTD_DONE && continues) {
		json_t *part = NULL;

		code = redirectd_receive(r, &part, &continues);
		if (code == REDIRECTD_DONE)
			code = handler(userdata, part);
		json_decref(part);
	}
	return code;
}
