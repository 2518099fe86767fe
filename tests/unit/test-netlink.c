// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Dumps of rtnetlink that changes interrupt: two hundred interfaces, more than the kernel tells in
 * one go, and a pair that comes or goes while they are read. In a network namespace of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/netlink.h"
#include "shared/cleanup.h"

#define PAIRS 100
#define EXTRA "extra"

/* Makes or removes a pair of interfaces, by the name of one: 0, or the kernel's error. */
static int change(uint16_t type, const char *name)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg body;
		struct rtattr name_head;
		char name[16];
		struct rtattr info_head, kind_head;
		char kind[8];
	} ask = {
		.header = {sizeof(ask), type,
			   NLM_F_REQUEST | NLM_F_ACK |
				   (type == RTM_NEWLINK ? NLM_F_CREATE | NLM_F_EXCL : 0),
			   0, 0},
		.name_head = {RTA_LENGTH(sizeof(ask.name)), IFLA_IFNAME},
		.info_head = {RTA_LENGTH(RTA_LENGTH(sizeof(ask.kind))), IFLA_LINKINFO},
		.kind_head = {RTA_LENGTH(sizeof(ask.kind)), IFLA_INFO_KIND},
		.kind = "veth",
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[sizeof(ask)];
	} answer;
	_cleanup_(closep) int fd = netlink_open(0);

	snprintf(ask.name, sizeof(ask.name), "%s", name);
	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) < 0 ||
	    recv(fd, &answer, sizeof(answer), 0) < 0)
		return -EIO;
	return answer.error.error;
}

static int setup(void **state)
{
	static bool ready;
	char name[16];

	*state = &ready;
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
		print_message("SKIP: no network namespace may be made here\n");
		return 0;
	}
	for (unsigned i = 0; i < PAIRS; i++) {
		int r;

		snprintf(name, sizeof(name), "d%u", i);
		r = change(RTM_NEWLINK, name);
		if (r == -EOPNOTSUPP || r == -EPERM) {
			print_message("SKIP: no veth interfaces may be made here: %s\n",
				      strerror(-r));
			return 0;
		}
		assert_int_equal(r, 0);
	}
	ready = true;
	return 0;
}

/* What one dump has told, and how it is interfered with. */
struct look {
	unsigned to_interrupt; /* passes that are interrupted yet */
	unsigned begun, interfaces;
	bool fresh; /* nothing of this pass has come */
	bool extra; /* it is there, and: it was told */
	bool told;
};

static void begin(void *userdata)
{
	struct look *l = userdata;

	l->begun++;
	l->interfaces = 0;
	l->told = false;
	l->fresh = true;
}

static int on_message(const struct nlmsghdr *m, void *userdata)
{
	const struct rtattr *name = netlink_attribute(m, sizeof(struct ifinfomsg), IFLA_IFNAME);
	struct look *l = userdata;

	if (l->fresh && l->to_interrupt > 0) {
		assert_int_equal(change(l->extra ? RTM_DELLINK : RTM_NEWLINK, EXTRA), 0);
		l->extra = !l->extra;
		l->to_interrupt--;
	}
	l->fresh = false;
	assert_non_null(name);
	l->interfaces++;
	if (strcmp(RTA_DATA(name), EXTRA) == 0)
		l->told = true;
	return 0;
}

static const struct netlink_reader reader = {begin, on_message};

static int dump(struct look *l)
{
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC};

	return netlink_dump(RTM_GETLINK, &body, sizeof(body), &reader, l);
}

/* lo, too. */
static void assert_complete(const struct look *l)
{
	assert_int_equal(l->interfaces, 2 * (PAIRS + l->extra) + 1);
	assert_int_equal(l->told, l->extra);
}

static void test_undisturbed(void **state)
{
	struct look l = {0};

	if (!*(bool *)*state)
		skip();
	assert_int_equal(dump(&l), 0);
	assert_int_equal(l.begun, 1);
	assert_complete(&l);
}

static void test_asked_again(void **state)
{
	struct look l = {0};

	if (!*(bool *)*state)
		skip();
	/* An odd and an even number: the last change is one that comes, and one that goes. */
	for (unsigned n = 3; n <= 4; n++) {
		l.begun = 0;
		l.to_interrupt = n;
		assert_int_equal(dump(&l), 0);
		assert_int_equal(l.begun, n + 1);
		assert_complete(&l);
		assert_int_equal(l.extra, n == 3);
		if (l.extra)
			assert_int_equal(change(RTM_DELLINK, EXTRA), 0);
		l.extra = false;
	}
}

static void test_not_for_ever(void **state)
{
	struct look l = {.to_interrupt = UINT32_MAX};

	if (!*(bool *)*state)
		skip();
	assert_int_equal(dump(&l), -EINTR);
	assert_int_equal(l.begun, NETLINK_DUMP_TRIES);
	if (l.extra)
		assert_int_equal(change(RTM_DELLINK, EXTRA), 0);
}

static int stop(const struct nlmsghdr *m, void *userdata)
{
	on_message(m, userdata);
	return -ENOMEM;
}

static void test_error_of_the_handler_ends_it(void **state)
{
	static const struct netlink_reader stopping = {begin, stop};
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
	struct look l = {0};

	if (!*(bool *)*state)
		skip();
	assert_int_equal(netlink_dump(RTM_GETLINK, &body, sizeof(body), &stopping, &l), -ENOMEM);
	assert_int_equal(l.begun, 1);
	assert_int_equal(l.interfaces, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_undisturbed),
		cmocka_unit_test(test_asked_again),
		cmocka_unit_test(test_not_for_ever),
		cmocka_unit_test(test_error_of_the_handler_ends_it),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
