/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What bench-datapath measures, as tables. */
#pragma once

#include "tests/bench/world.h"

#define GROUP_SETS_MAX 3

/* Measurements that share a world, or several that differ in their rules and take turns. */
struct group {
	const char *name;
	const char *heading;
	unsigned kinds;	     /* bits by place in kinds[] */
	uint32_t flows_most; /* not of larger tables */
	const struct rule_set *sets[GROUP_SETS_MAX];
	const struct measurement *fill; /* what makes the flows that are there already */
	size_t n_fill;
	const struct measurement *table;
	size_t n;
};

extern const struct kind kinds[];
extern const size_t n_kinds;
extern const struct group groups[];
extern const size_t n_groups;
