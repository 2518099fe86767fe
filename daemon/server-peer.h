/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is at the other end of a Unix socket, by the kernel's word alone. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define SERVER_PEER_NO_GROUP ((gid_t)-1)

struct server_peer {
	pid_t pid;
	uid_t uid;
	bool privileged; /* root, or a member of the group asked for */
};

/*
 * Reads SO_PEERCRED and SO_PEERGROUPS: the credentials at the time of connect(). A member has
 * `group` as its primary or as a supplementary group; SERVER_PEER_NO_GROUP: nobody is one.
 */
int server_peer_read(int fd, gid_t group, struct server_peer *ret);

/* The id of a group by name, SERVER_PEER_NO_GROUP when there is none. */
int server_peer_find_group(const char *name, gid_t *ret);
