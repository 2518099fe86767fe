/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The checks of `doctor` that need neither the daemon's maps nor its privileges, and so can be made
 * without it as well; it is asked for the others (daemon/doctor.c). A row of a table each.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/findings.h"
#include "shared/rule.h"

struct doctor_rule {
	uint32_t id;	   /* 0: of a file, no daemon has numbered it */
	struct rule *rule; /* owned */
};

/* What is known before the checks begin. */
struct doctor {
	const char *socket;
	const char *problem;  /* why the daemon cannot be asked; NULL: it answers */
	const json_t *status; /* its answer; NULL: none */
	struct doctor_rule *rules;
	size_t n_rules;
	bool connects; /* --connect */
};

extern const struct findings_check doctor_host_checks[];   /* doctor-host.c: kernel, daemon */
extern const struct findings_check doctor_status_checks[]; /* there: by its status, if it answers */
extern const struct findings_check doctor_rule_checks[];   /* doctor-rules.c: by the rules */

/* "rule 3", or "the rule tcp 8080 to 80" of a file. */
const char *doctor_rule_words(const struct doctor_rule *r, char *buffer, size_t size);

/* Is what this process sees of the network what the daemon sees? */
bool doctor_same_network(const struct doctor *d);
