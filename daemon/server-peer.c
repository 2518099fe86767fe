/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Credentials of a peer: see server-peer.h. Group membership comes from the kernel's list of the
 * process (SO_PEERGROUPS), not from /etc/group: that is what the process was given, containers and
 * network directories included, and asking it cannot block.
 */
#include "daemon/server-peer.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/cleanup.h"

#define GROUP_BUFFER_MAX (1024 * 1024)

/* 1: a member; 0: not. */
static int peer_has_group(int fd, gid_t group)
{
	_cleanup_(freep) gid_t *groups = NULL;
	socklen_t length = 0;

	/* The first call only asks for the size; a process without any answers it with success. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &length) == 0)
		return 0;
	if (errno != ERANGE)
		return -errno;
	groups = malloc(length);
	if (!groups)
		return -ENOMEM;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0)
		return -errno;
	for (size_t i = 0; i < length / sizeof(gid_t); i++)
		if (groups[i] == group)
			return 1;
	return 0;
}

int server_peer_read(int fd, gid_t group, struct server_peer *ret)
{
	struct ucred cred;
	socklen_t length = sizeof(cred);
	int member = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0)
		return -errno;
	if (cred.uid != 0 && group != SERVER_PEER_NO_GROUP) {
		member = cred.gid == group ? 1 : peer_has_group(fd, group);
		if (member < 0)
			return member;
	}
	*ret = (struct server_peer){
		.pid = cred.pid,
		.uid = cred.uid,
		.privileged = cred.uid == 0 || member,
	};
	return 0;
}

int server_peer_find_group(const char *name, gid_t *ret)
{
	for (size_t size = 1024; size <= GROUP_BUFFER_MAX; size *= 2) {
		_cleanup_(freep) char *buffer = malloc(size);
		struct group group, *found = NULL;
		int r;

		if (!buffer)
			return -ENOMEM;
		do
			r = getgrnam_r(name, &group, buffer, size, &found);
		while (r == EINTR);
		if (r == ERANGE)
			continue;
		/* Several errors mean no more than "not found" (getgrnam(3)). */
		*ret = found ? found->gr_gid : SERVER_PEER_NO_GROUP;
		return 0;
	}
	return -ERANGE;
}
