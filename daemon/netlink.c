// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/netlink.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/cleanup.h"

#define RECEIVE_SIZE 65536 /* the kernel's dumps come in pieces of at most 32 KiB */

int netlink_open(uint32_t groups)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | (groups ? SOCK_NONBLOCK : 0),
			NETLINK_ROUTE);
	int room = 4 << 20;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/*
 * Handles the messages of one datagram. 1: the answer has ended. `interrupted` is set when one of
 * them says so.
 */
static int handle(const void *data, size_t length, netlink_handler handler, void *userdata,
		  bool *interrupted)
{
	const struct nlmsghdr *m;
	int left = length, r;

	for (m = data; NLMSG_OK(m, (uint32_t)left); m = NLMSG_NEXT(m, left)) {
		if (m->nlmsg_flags & NLM_F_DUMP_INTR)
			*interrupted = true;
		if (m->nlmsg_type == NLMSG_DONE)
			return 1;
		if (m->nlmsg_type == NLMSG_ERROR) {
			r = ((const struct nlmsgerr *)NLMSG_DATA(m))->error;
			return r < 0 ? r : 1; /* 0 is an acknowledgement */
		}
		r = handler(m, userdata);
		if (r < 0)
			return r;
	}
	return 0;
}

/* -EINTR: an interrupted dump. It is read to its end all the same, errors being told first. */
static int request(uint16_t type, uint16_t flags, const void *body, size_t length,
		   netlink_handler handler, void *userdata)
{
	_cleanup_(freep) char *buffer = malloc(RECEIVE_SIZE);
	_cleanup_(closep) int fd = netlink_open(0);
	struct {
		struct nlmsghdr header;
		char body[64];
	} message = {
		.header = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags},
	};
	bool interrupted = false;
	int r = 0;

	if (!buffer)
		return -ENOMEM;
	if (fd < 0)
		return fd;
	if (length > sizeof(message.body))
		return -EMSGSIZE;
	message.header.nlmsg_len = NLMSG_LENGTH(length);
	memcpy(message.body, body, length);
	if (send(fd, &message, message.header.nlmsg_len, 0) < 0)
		return -errno;
	while (r == 0) {
		ssize_t n = recv(fd, buffer, RECEIVE_SIZE, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		r = handle(buffer, n, handler, userdata, &interrupted);
	}
	if (r < 0)
		return r;
	return interrupted ? -EINTR : 0;
}

int netlink_dump(uint16_t type, const void *body, size_t length,
		 const struct netlink_reader *reader, void *userdata)
{
	int r = -EINTR;

	for (unsigned i = 0; r == -EINTR && i < NETLINK_DUMP_TRIES; i++) {
		reader->begin(userdata);
		r = request(type, NLM_F_DUMP, body, length, reader->handler, userdata);
	}
	return r;
}

static int ignore(const struct nlmsghdr *message, void *userdata)
{
	return 0;
}

int netlink_get(uint16_t type, const void *body, size_t length, netlink_handler handler,
		void *userdata)
{
	return request(type, NLM_F_ACK, body, length, handler, userdata);
}

int netlink_ask(uint16_t type, const void *body, size_t length)
{
	return netlink_get(type, body, length, ignore, NULL);
}

int netlink_receive(int fd, netlink_handler handler, void *userdata)
{
	_cleanup_(freep) char *buffer = malloc(RECEIVE_SIZE);
	bool interrupted; /* nothing that is heard is a dump */
	int r = 0;

	if (!buffer)
		return -ENOMEM;
	while (r >= 0) {
		ssize_t n = recv(fd, buffer, RECEIVE_SIZE, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		r = handle(buffer, n, handler, userdata, &interrupted);
	}
	return r;
}

const struct rtattr *netlink_attribute(const struct nlmsghdr *m, size_t body, uint16_t type)
{
	int left = m->nlmsg_len - NLMSG_LENGTH(body);
	const struct rtattr *a = (const void *)((const char *)NLMSG_DATA(m) + NLMSG_ALIGN(body));

	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == type)
			return a;
	return NULL;
}
