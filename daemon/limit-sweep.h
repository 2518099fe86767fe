/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looks after the sources that limits know of: see bpf/limit.bpf.h. */
#pragma once

#include <stdbool.h>

#include "shared/abi.h"

struct datapath;

/* How far the sweep has come; all zero at first. */
struct limit_sweep {
	struct limit_source_key next; /* to be looked at next */
	bool under_way;		      /* false: from the beginning on */
};

/*
 * Looks at some more sources and has the datapath forget those without flows whose rate has
 * recovered; the others are forgotten when their last flow ends. Returns how many, or an error.
 */
int limit_sweep(struct datapath *d, struct limit_sweep *s);
