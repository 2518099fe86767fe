/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON of what both ends of the control socket know: a rule as `list` shows it, and diagnostics.
 * The shapes are those of daemon/io.redirectd.varlink (types Rule, Diagnostic).
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "shared/diag.h"
#include "shared/rule.h"

/* Sums over flows, both directions. */
struct rule_json_counters {
	uint64_t packets, bytes, flows, active;
};

/* What `list` tells about a rule besides its own words. */
struct rule_json_entry {
	uint32_t id;
	const char *origin, *source;
	const struct rule *configured; /* what the configuration says instead; NULL: the same */
	struct rule_json_counters counters;
	uint64_t refused;			  /* flows that its limits turned away */
	const struct rule_json_counters *targets; /* of each of its targets */
};

/* One object of the `list` array; a new reference in *ret. Returns 0 or -ENOMEM. */
int rule_json_pack(const struct rule *r, const struct rule_json_entry *e, json_t **ret);

/* The items of a diag as an array; a new reference in *ret. Returns 0 or -ENOMEM. */
int rule_json_pack_diag(const struct diag *d, json_t **ret);

/*
 * Adds the items of such an array to `d`, so that the far side's diagnostics print like our own.
 * Returns 0, or -EBADMSG when it is no such array (the items before the bad one are then added).
 */
int rule_json_unpack_diag(const json_t *array, struct diag *d);

/* A counter: JSON integers end at INT64_MAX. */
json_t *rule_json_counter(uint64_t value);
