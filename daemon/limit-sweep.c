// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/limit-sweep.h"

#include "daemon/datapath.h"

#define BATCHES 64 /* a second, so that all that there is room for are seen in half a minute */

/* The next keys, and which one comes then: once these are gone the walk would begin anew. */
static size_t take_keys(struct datapath *d, struct limit_sweep *s,
			struct limit_source_key keys[SWEEP_BATCH])
{
	struct limit_source_key key = s->next;
	size_t n = 0;

	if (!s->under_way)
		s->under_way = datapath_limit_source_next(d, NULL, &key) == 0;
	while (s->under_way && n < SWEEP_BATCH) {
		keys[n] = key;
		s->under_way = datapath_limit_source_next(d, &keys[n++], &key) == 0;
	}
	s->next = key;
	return n;
}

int limit_sweep(struct datapath *d, struct limit_sweep *s)
{
	struct limit_source_key keys[SWEEP_BATCH];
	int forgotten = 0;

	for (int i = 0; i < BATCHES; i++) {
		size_t n = take_keys(d, s, keys);
		int r = n ? datapath_sweep_sources(d, keys, n) : 0;

		if (r < 0)
			return r;
		forgotten += r;
		if (!s->under_way)
			break;
	}
	return forgotten;
}
