/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to rtnetlink (rtnetlink(7)): dumps and their messages. Knows no meaning. */
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

/* Called for each message; a negative return ends the dump with it. */
typedef int (*netlink_handler)(const struct nlmsghdr *message, void *userdata);

struct netlink_reader {
	/* Before the first message, and again when the dump starts over: forget what came so far.
	 */
	void (*begin)(void *userdata);
	netlink_handler handler;
};

/* How often a dump is asked for that changes interrupt. */
#define NETLINK_DUMP_TRIES 16

/* A socket that hears `groups` (RTMGRP_*). Returns the descriptor. */
int netlink_open(uint32_t groups);
/*
 * Asks for a dump: `body` follows the header. One that the kernel says was interrupted, so that it
 * may lack entries or have them twice, is asked for again. -EINTR: so were all tries; what was read
 * is not to be relied on.
 */
int netlink_dump(uint16_t type, const void *body, size_t length,
		 const struct netlink_reader *reader, void *userdata);
/* Asks for one thing: 0, or the kernel's error. */
int netlink_get(uint16_t type, const void *body, size_t length, netlink_handler handler,
		void *userdata);
/* Asks whether there is what `body` describes: 0, or the kernel's error. */
int netlink_ask(uint16_t type, const void *body, size_t length);
/*
 * Reads what a socket from netlink_open() has heard. -ENOBUFS: some was lost, dump again.
 */
int netlink_receive(int fd, netlink_handler handler, void *userdata);

/* The attribute of a type among those behind a message's body, or NULL. */
const struct rtattr *netlink_attribute(const struct nlmsghdr *m, size_t body, uint16_t type);
