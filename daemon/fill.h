/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How full something is, and when there is news of it: what has told of a level once is silent
 * until the level changes, and that it does not by a flow more or less.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum fill_level {
	FILL_OK,
	FILL_WARNING,  /* from 80 % on */
	FILL_CRITICAL, /* from 95 % on */
	FILL_LEVELS,
};

enum fill_level fill_level(uint64_t used, uint64_t of);
/* 0 to 1 and beyond; 0 of nothing. */
double fill_share(uint64_t used, uint64_t of);
/* "ok", "warning", "critical". */
const char *fill_level_name(enum fill_level level);

#define FILL_PAUSE 60 /* seconds until the same level may be told of again */

/* Zeroed at first. */
struct fill_watch {
	enum fill_level level;	    /* told of last */
	bool told[FILL_LEVELS];	    /* ever */
	uint64_t when[FILL_LEVELS]; /* seconds */
};

/*
 * Is there news, at `now` seconds of any clock that does not go back? Then it is w->level, which
 * falls only once the fill is clearly below what it rose by.
 */
bool fill_watch_step(struct fill_watch *w, uint64_t used, uint64_t of, uint64_t now);
