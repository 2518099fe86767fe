/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds among many rules the one that a new rule conflicts with, or that bears its name, without
 * looking at each: what keeps a configuration of 10,000 rules quick to check.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "shared/cleanup.h"
#include "shared/rule.h"

struct rule_index;

int rule_index_new(struct rule_index **ret);
struct rule_index *rule_index_free(struct rule_index *x); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct rule_index, rule_index_free)

/* The rule is borrowed until it is removed. `number` is what the finders return. */
int rule_index_add(struct rule_index *x, const struct rule *rule, size_t number);
/* Forgets this very rule, which has not changed since it was added. */
void rule_index_remove(struct rule_index *x, const struct rule *rule);

/* The first rule added that rule_conflicts() with this one; false: none. */
bool rule_index_find_conflict(const struct rule_index *x, const struct rule *rule,
			      size_t *ret_number);
/* The first rule added that bears this name, which is not empty; false: none. */
bool rule_index_find_name(const struct rule_index *x, const char *name, size_t *ret_number);
