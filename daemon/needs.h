/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the rules in force need of the host and do not find there: settings of the kernel without
 * which packets that were translated well go nowhere. Only looks; the administrator decides.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/addr.h"

#define NEEDS_MAX	 64 /* more are not told of */
#define NEED_SUBJECT_MAX IP_PREFIX_STRLEN

struct config;
struct links;
struct ruleset_entry;

enum need_kind {
	NEED_FORWARDING4,
	NEED_FORWARDING6,
	NEED_ROUTE_LOCALNET,
	NEED_LOCAL_CLIENTS_MAY, /* the rule is for lo, too */
	NEED_LOCAL_CLIENTS,	/* the rule is for lo by name */
	NEED_LOOPBACK_CLIENTS,
	NEED_OWN_SOURCE, /* `snat` with an address that is none of this host's */
	NEED_LOOPBACK6,	 /* cannot be met: a target ::1 for packets from elsewhere */
	NEED_KINDS,
};

struct need {
	enum need_kind kind;
	uint32_t rule;			/* id of the first that needs it */
	char subject[NEED_SUBJECT_MAX]; /* an interface ("all": every one) or an address */
};

struct needs {
	struct need items[NEEDS_MAX];
	size_t n;
};

/* What is missing now for some rules. */
void needs_find(struct ruleset_entry *const *entries, size_t n, const struct config *config,
		const struct links *links, struct needs *ret);
bool needs_has(const struct needs *needs, const struct need *like);

struct need_text {
	int priority;	  /* of syslog(3) */
	char why[192];	  /* "rule N sends..." */
	char remedy[192]; /* with the command, if one mends it, behind "run: " */
};
void need_describe(const struct need *need, struct need_text *ret);
/* Logs it, with the command that mends it. */
void need_log(const struct need *need);
