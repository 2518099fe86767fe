// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/fill.h"

#define FILL_BELOW 5 /* per cent, how far it must have fallen */

static const struct {
	const char *name;
	unsigned from; /* per cent */
} levels[FILL_LEVELS] = {
	[FILL_OK] = {"ok", 0},
	[FILL_WARNING] = {"warning", 80},
	[FILL_CRITICAL] = {"critical", 95},
};

double fill_share(uint64_t used, uint64_t of)
{
	return of ? (double)used / (double)of : 0;
}

/* In floating point exact as far as anything is counted here, and without overflow. */
static bool reaches(uint64_t used, uint64_t of, unsigned percent)
{
	return of && 100.0 * (double)used >= (double)percent * (double)of;
}

enum fill_level fill_level(uint64_t used, uint64_t of)
{
	enum fill_level level = FILL_CRITICAL;

	while (level > FILL_OK && !reaches(used, of, levels[level].from))
		level--;
	return level;
}

const char *fill_level_name(enum fill_level level)
{
	return levels[level].name;
}

bool fill_watch_step(struct fill_watch *w, uint64_t used, uint64_t of, uint64_t now)
{
	enum fill_level level = fill_level(used, of);

	if (level < w->level && reaches(used, of, levels[w->level].from - FILL_BELOW))
		return false;
	if (level == w->level || (w->told[level] && now - w->when[level] < FILL_PAUSE))
		return false;
	w->level = level;
	w->told[level] = true;
	w->when[level] = now;
	return true;
}
