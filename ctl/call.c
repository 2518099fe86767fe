/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A blocking connection to the daemon. The kernel's socket timeouts bound every wait; MSG_NOSIGNAL
 * turns a daemon that died into an error.
 */
#include "ctl/call.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "shared/rule-json.h"
#include "shared/varlink.h"

#define READ_SIZE (64 * 1024)

struct client {
	int fd;
	struct varlink_buffer buffer;
	bool answered; /* at least one reply to the call in progress has come */
};

static enum exit_code fail_no_daemon(const char *path, struct failure *f)
{
	failure_set(f, CTL_NO_DAEMON, "no daemon at %s", path);
	failure_hint(f, "start it with `systemctl start redirectd` or `redirectd -c FILE`; "
			"-s SOCKET or REDIRECTD_SOCKET choose another socket");
	return CTL_NO_DAEMON;
}

static enum exit_code fail_connect(const char *path, int error, struct failure *f)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED: /* a socket that nobody listens on, or a file that is none */
		return fail_no_daemon(path, f);
	case EACCES:
	case EPERM:
		return failure_set(f, CTL_DENIED, "no permission to open %s", path);
	case EAGAIN:
		return failure_set(f, CTL_FAILED, "the daemon at %s takes no connections", path);
	}
	return failure_set(f, CTL_FAILED, "cannot connect to %s: %s", path, strerror(error));
}

static int connect_socket(const struct sockaddr_un *address)
{
	const struct timeval limit = {.tv_sec = CALL_TIMEOUT_SECONDS};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
		goto fail;
	do
		r = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return fd;
fail:
	r = -errno;
	close(fd);
	return r;
}

enum exit_code client_open(const char *path, struct client **ret, struct failure *f)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct client *c;
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return failure_set(f, CTL_USAGE,
				   "socket path %s is too long: %zu bytes are the most", path,
				   sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = connect_socket(&address);
	if (fd < 0)
		return fail_connect(path, -fd, f);
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	c->fd = fd;
	*ret = c;
	return CTL_DONE;
}

struct client *client_free(struct client *c)
{
	if (!c)
		return NULL;
	close(c->fd);
	varlink_buffer_clear(&c->buffer);
	free(c);
	return NULL;
}

void client_wait_forever(struct client *c)
{
	const struct timeval never = {0};

	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never));
}

static enum exit_code fail_io(int error, struct failure *f)
{
	if (error == EAGAIN)
		return failure_set(f, CTL_FAILED, "the daemon has not moved for %d seconds",
				   CALL_TIMEOUT_SECONDS);
	if (error == EPIPE || error == ECONNRESET)
		return failure_set(f, CTL_FAILED, "the daemon closed the connection");
	return failure_set(f, CTL_FAILED, "the connection to the daemon failed: %s",
			   strerror(error));
}

static enum exit_code send_all(struct client *c, const char *data, size_t length, struct failure *f)
{
	while (length > 0) {
		ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		/*
		 * A daemon that refuses a request closes its end early; its answer may wait
		 * already: go on to read it.
		 */
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return CTL_DONE;
		if (n < 0)
			return fail_io(errno, f);
		data += n;
		length -= (size_t)n;
	}
	return CTL_DONE;
}

enum exit_code client_send(struct client *c, const char *method, const json_t *parameters,
			   bool more, struct failure *f)
{
	_cleanup_(freep) char *text = NULL;
	json_t *message;
	size_t length;
	int r;

	message = json_pack("{s:s}", "method", method);
	if (!message)
		return failure_set(f, CTL_FAILED, "the method's name is not UTF-8");
	if (parameters)
		json_object_set(message, "parameters", (json_t *)parameters);
	if (more)
		json_object_set_new(message, "more", json_true());
	r = varlink_encode(message, &text, &length);
	json_decref(message);
	if (r < 0)
		return failure_set(f, CTL_FAILED, "cannot write the request: %s", strerror(-r));
	c->answered = false;
	return send_all(c, text, length, f);
}

static enum exit_code fail_end(const struct client *c, struct failure *f)
{
	if (c->answered || c->buffer.length > 0)
		return failure_set(f, CTL_FAILED,
				   "the daemon went away in the middle of its answer: it is "
				   "incomplete");
	return failure_set(f, CTL_FAILED, "the daemon closed the connection without an answer");
}

/* Reads some bytes into the buffer. */
static enum exit_code receive_some(struct client *c, struct failure *f)
{
	char data[READ_SIZE];
	ssize_t n;
	int r;

	do
		n = recv(c->fd, data, sizeof(data), 0);
	while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return fail_end(c, f);
	if (n < 0)
		return fail_io(errno, f);
	r = varlink_buffer_append(&c->buffer, data, (size_t)n, CALL_REPLY_MAX);
	if (r < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer does not fit: %s",
				   strerror(-r));
	return CTL_DONE;
}

enum exit_code client_receive_message(struct client *c, json_t **ret, struct failure *f)
{
	json_error_t error;
	enum exit_code code;
	int r;

	while ((r = varlink_buffer_next(&c->buffer, ret, &error)) == 0) {
		code = receive_some(c, f);
		if (code != CTL_DONE)
			return code;
	}
	if (r < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not JSON: %s",
				   r == -EBADMSG ? error.text : strerror(-r));
	c->answered = true;
	return CTL_DONE;
}

enum exit_code client_receive(struct client *c, json_t **ret, bool *ret_continues,
			      struct failure *f)
{
	json_t *message = NULL, *parameters;
	enum exit_code code = client_receive_message(c, &message, f);

	if (code != CTL_DONE)
		return code;
	if (json_object_get(message, "error")) {
		code = client_error(message, f);
		json_decref(message);
		return code;
	}
	parameters = json_object_get(message, "parameters");
	if (json_is_object(parameters))
		*ret = json_incref(parameters);
	else
		*ret = json_object();
	if (ret_continues)
		*ret_continues = json_is_true(json_object_get(message, "continues"));
	json_decref(message);
	return CTL_DONE;
}

enum exit_code client_call(const char *path, const char *method, const json_t *parameters,
			   json_t **ret, struct failure *f)
{
	_cleanup_(client_freep) struct client *c = NULL;
	enum exit_code code = client_open(path, &c, f);

	if (code == CTL_DONE)
		code = client_send(c, method, parameters, false, f);
	if (code == CTL_DONE)
		code = client_receive(c, ret, NULL, f);
	return code;
}
