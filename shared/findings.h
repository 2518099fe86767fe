/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `redirectctl doctor` finds: a list that checks add to, in the daemon and in the client. A
 * check is a function in a table; one that has nothing to say gets the line that all is well.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum finding_severity {
	FINDING_OK,
	FINDING_INFO,	 /* good to know; nothing is wrong */
	FINDING_WARNING, /* some packets, or some day */
	FINDING_ERROR,	 /* it does not work */
	FINDING_SEVERITIES,
};

struct finding {
	char *check; /* name of the check; owned, as all strings here */
	enum finding_severity severity;
	char *message;
	char *command; /* that mends it; NULL: none */
	char *hint;    /* what to do, where no command does; NULL: nothing */
};

struct findings {
	struct finding *items;
	size_t n;
	bool incomplete; /* memory was not enough for all */
};

/* One of a table that ends without a name. */
struct findings_check {
	const char *name;
	void (*run)(const char *name, void *userdata, struct findings *f);
	const char *fine; /* when it has found nothing */
};

void findings_clear(struct findings *f);
/* The message is for finding_command() or finding_hint() to complete. */
void findings_add(struct findings *f, const char *check, enum finding_severity severity,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Of the finding that was added last. */
void findings_command(struct findings *f, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void findings_hint(struct findings *f, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

void findings_run(struct findings *f, const struct findings_check *table, void *userdata);

enum finding_severity findings_worst(const struct findings *f);
/* "ok", "info", "warning", "error". */
const char *finding_severity_name(enum finding_severity severity);
/* -EINVAL: no such name. */
int finding_severity_parse(const char *name, enum finding_severity *ret);
