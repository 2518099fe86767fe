// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Ids, and what has them: what no new packet sees any more, but one under way may be looking at,
 * goes after a while, in the order it was left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/apply-private.h"
#include "daemon/datapath.h"

#define GRACE_NS	1000000000ULL /* no packet is under way for as long */
#define GARBAGE_AT_ONCE 32768	      /* so that others get their turn */

uint64_t apply_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + t.tv_nsec;
}

int apply_garbage_add(struct garbage_list *l, enum garbage_kind kind, uint32_t id,
		      const struct match_key *key)
{
	struct garbage *more;

	if (l->n == l->allocated) {
		more = reallocarray(l->items, l->allocated ? 2 * l->allocated : 64, sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->items = more;
		l->allocated = l->allocated ? 2 * l->allocated : 64;
	}
	more = &l->items[l->n++];
	memset(more, 0, sizeof(*more));
	more->kind = kind;
	more->since_ns = apply_now_ns();
	more->id = id;
	if (key)
		more->key = *key;
	return 0;
}

void garbage_dispose(struct apply *a, const struct garbage *g)
{
	uint32_t binding;

	switch (g->kind) {
	case GARBAGE_SHAPE:
		a->shapes.used[g->id] = ID_FREE;
		break;
	case GARBAGE_BINDING:
		a->bindings.used[g->id] = ID_FREE;
		break;
	case GARBAGE_ACTION:
		a->actions.used[g->id] = ID_FREE;
		break;
	case GARBAGE_BALANCE:
		datapath_balance_delete(a->datapath, g->id);
		break;
	case GARBAGE_MATCH:
		/* In a chain that goes on it may be another rule's by now. */
		if (a->shapes.used[g->key.shape] != ID_USED ||
		    (datapath_match_get(a->datapath, &g->key, &binding) == 0 && binding == g->id))
			datapath_match_delete(a->datapath, &g->key);
		break;
	}
}

void garbage_collect(struct apply *a)
{
	uint64_t now = apply_now_ns();
	size_t i = 0;

	while (i < a->garbage.n && i < GARBAGE_AT_ONCE &&
	       now - a->garbage.items[i].since_ns > GRACE_NS)
		garbage_dispose(a, &a->garbage.items[i++]);
	if (!i)
		return;
	memmove(a->garbage.items, a->garbage.items + i,
		(a->garbage.n - i) * sizeof(struct garbage));
	a->garbage.n -= i;
}

int apply_id_set_new(struct id_set *s, uint32_t size)
{
	s->used = calloc(size, 1);
	s->size = size;
	s->next = 1;
	return s->used ? 0 : -ENOMEM;
}

/* 0 is never handed out. */
uint32_t apply_take_id(struct id_set *s)
{
	for (uint32_t tries = 1; tries < s->size; tries++) {
		uint32_t id = s->next;

		s->next = id + 1 < s->size ? id + 1 : 1;
		if (s->used[id] == ID_FREE) {
			s->used[id] = ID_USED;
			return id;
		}
	}
	return 0;
}
