/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The listening Unix socket: made at a path, or handed over by systemd. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct server_listen {
	int fd;
	char *path; /* owned */
	bool made;  /* by us, so ours to remove */
	dev_t device;
	ino_t inode;
};

/*
 * Takes the descriptor that systemd handed over (sd_listen_fds(3)), else listens on `path`:
 *
 *   -EADDRINUSE    a live process listens there; *ret_owner is its process id, or 0 when the
 *                  kernel does not tell
 *   -EEXIST        something that is not a socket is in the way
 *   -ENAMETOOLONG  longer than a Unix socket's address may be (107 bytes)
 */
int server_listen_open(const char *path, struct server_listen *ret, pid_t *ret_owner);
/* Closes, and removes the socket when it was made here and is still the same one. */
void server_listen_close(struct server_listen *l);
