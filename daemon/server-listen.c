/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The listening socket: see server-listen.h. Two daemons that start at once on one path must not
 * both take the same dead socket away, so looking, removing and binding happen under a lock file
 * beside it, which is gone again when the call returns.
 */
#include "daemon/server-listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "shared/cleanup.h"

static int handed_over_path(int fd, char **ret)
{
	struct sockaddr_un a = {0};
	socklen_t length = sizeof(a);
	size_t n;

	if (getsockname(fd, (struct sockaddr *)&a, &length) < 0)
		return -errno;
	n = length - offsetof(struct sockaddr_un, sun_path);
	if (n > 0 && a.sun_path[0] == '\0')
		a.sun_path[0] = '@'; /* abstract, as netstat and systemd print it */
	*ret = strndup(a.sun_path, n);
	return *ret ? 0 : -ENOMEM;
}

/* 1: taken; 0: systemd handed nothing over. */
static int handed_over_take(struct server_listen *ret)
{
	int n = sd_listen_fds(0), fd = -1, r;
	_cleanup_(freep) char *path = NULL;

	if (n < 0)
		return n;
	for (int i = SD_LISTEN_FDS_START; i < SD_LISTEN_FDS_START + n && fd < 0; i++)
		if (sd_is_socket_unix(i, SOCK_STREAM, 1, NULL, 0) > 0)
			fd = i;
	if (fd < 0)
		return 0;
	r = handed_over_path(fd, &path);
	if (r < 0)
		return r;
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	/* Once more, so that SO_PEERCRED at the other end names this process and not systemd. */
	if (listen(fd, SOMAXCONN) < 0)
		return -errno;
	*ret = (struct server_listen){.fd = fd, .path = take_ptr(path)};
	return 1;
}

/* Every folder on the way to `path`. */
static int parents_make(const char *path)
{
	_cleanup_(freep) char *p = strdup(path);

	if (!p)
		return -ENOMEM;
	for (char *s = p[0] ? strchr(p + 1, '/') : NULL; s; s = strchr(s + 1, '/')) {
		*s = '\0';
		if (mkdir(p, 0755) < 0 && errno != EEXIST)
			return -errno;
		*s = '/';
	}
	return 0;
}

/*
 * The lock file is removed by whoever holds it, so one that was waited for may be gone by then:
 * only a lock on the file that the path still names counts.
 */
static int lock_take(const char *path, int *ret)
{
	for (;;) {
		_cleanup_(closep) int fd =
			open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat held, named;

		if (fd < 0)
			return -errno;
		while (flock(fd, LOCK_EX) < 0)
			if (errno != EINTR)
				return -errno;
		if (fstat(fd, &held) < 0)
			return -errno;
		if (stat(path, &named) < 0 || held.st_ino != named.st_ino ||
		    held.st_dev != named.st_dev)
			continue;
		*ret = fd;
		fd = -1;
		return 0;
	}
}

/* What a failed connect() says about the socket. */
static int dead_socket_remove(const char *path, int connect_error)
{
	switch (connect_error) {
	case ENOENT:
		return 0;
	case ECONNREFUSED:
		return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	case EAGAIN:	 /* its backlog is full */
	case EPROTOTYPE: /* somebody's socket of another type */
		return -EADDRINUSE;
	}
	return -connect_error;
}

/* Makes sure that `a` is free: removes a dead socket, refuses a live one. */
static int address_clear(const struct sockaddr_un *a, pid_t *ret_owner)
{
	_cleanup_(closep) int fd = -1;
	struct ucred owner;
	socklen_t length = sizeof(owner);
	struct stat st;

	if (lstat(a->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		return dead_socket_remove(a->sun_path, errno);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &length) == 0)
		*ret_owner = owner.pid;
	return -EADDRINUSE;
}

/* The mode is set before listen(), so that nobody is refused a live socket for its umask. */
static int address_listen(const struct sockaddr_un *a, struct server_listen *ret)
{
	_cleanup_(closep) int fd = -1;
	struct stat st;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		return -errno;
	if (chmod(a->sun_path, 0666) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    lstat(a->sun_path, &st) < 0) {
		int r = -errno;

		unlink(a->sun_path);
		return r;
	}
	*ret = (struct server_listen){
		.fd = fd, .made = true, .device = st.st_dev, .inode = st.st_ino};
	fd = -1;
	return 0;
}

/* With the lock held. Completes *ret with the path. */
static int path_listen(const char *path, struct server_listen *ret, pid_t *ret_owner)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_(freep) char *copy = strdup(path);
	int r;

	if (!copy)
		return -ENOMEM;
	memcpy(a.sun_path, path, strlen(path) + 1);
	r = address_clear(&a, ret_owner);
	if (r == 0)
		r = address_listen(&a, ret);
	if (r < 0)
		return r;
	ret->path = take_ptr(copy);
	return 0;
}

int server_listen_open(const char *path, struct server_listen *ret, pid_t *ret_owner)
{
	_cleanup_(freep) char *lock = NULL;
	_cleanup_(closep) int lock_fd = -1;
	pid_t owner = 0;
	int r;

	r = handed_over_take(ret);
	if (r != 0)
		return r < 0 ? r : 0;
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return -ENAMETOOLONG;
	if (path[0] == '\0')
		return -EINVAL;
	r = parents_make(path);
	if (r < 0)
		return r;
	if (asprintf(&lock, "%s.lock", path) < 0) {
		lock = NULL;
		return -ENOMEM;
	}
	r = lock_take(lock, &lock_fd);
	if (r < 0)
		return r;
	r = path_listen(path, ret, &owner);
	unlink(lock);
	if (r == -EADDRINUSE && ret_owner)
		*ret_owner = owner;
	return r;
}

void server_listen_close(struct server_listen *l)
{
	struct stat st;

	if (l->made && lstat(l->path, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode)
		unlink(l->path);
	closep(&l->fd);
	free(l->path);
	*l = (struct server_listen){.fd = -1};
}
