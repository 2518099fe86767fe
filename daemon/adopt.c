// SPDX-License-Identifier: GPL-2.0-or-later
/* The rules that a former daemon wrote: they stay in force until this one's first change. */
#include <errno.h>

#include "daemon/apply-private.h"
#include "daemon/datapath.h"

/* A place that something leads to, and what is done there. */
static void note_binding(struct apply *a, uint32_t id)
{
	const struct binding *b = &datapath_bindings(a->datapath)[id];

	if (!id || id >= BINDING_COUNT)
		return;
	a->bindings.used[id] = ID_LEAVING;
	for (int bank = 0; bank < 2; bank++)
		if (b->action[bank] && b->action[bank] < ACTION_COUNT)
			a->actions.used[b->action[bank]] = ID_LEAVING;
}

static int adopt_matches(struct apply *a)
{
	struct match_key key, *last = NULL;
	uint32_t binding;
	int r = 0;

	while (r == 0 && datapath_match_next(a->datapath, last, &key, &binding) == 0) {
		note_binding(a, binding);
		r = apply_garbage_add(&a->garbage, GARBAGE_MATCH, binding, &key);
		last = &key;
	}
	return r;
}

static int adopt_chain(struct apply *a, uint32_t id)
{
	const struct shape *shapes = datapath_shapes(a->datapath);
	int r = 0;

	while (r == 0 && id && id < SHAPE_COUNT && !a->shapes.used[id]) {
		a->shapes.used[id] = ID_LEAVING;
		note_binding(a, shapes[id].binding);
		r = apply_garbage_add(&a->garbage, GARBAGE_SHAPE, id, NULL);
		id = shapes[id].next;
	}
	return r;
}

static int adopt_chains(struct apply *a)
{
	const struct port_entry *ports = datapath_ports(a->datapath);
	int r = 0;

	for (uint32_t p = 0; p < PORT_COUNT; p++)
		for (int bank = 0; r == 0 && bank < 2; bank++)
			r = adopt_chain(a, ports[p].bank[bank] & PORT_SHAPE);
	return r;
}

/* Some may be of a change that was never finished. */
static int adopt_balances(struct apply *a)
{
	uint32_t balance = 0;
	int r = 0;

	while (r == 0 && (balance = datapath_balance_next(a->datapath, balance))) {
		a->actions.used[balance] = ID_LEAVING;
		r = apply_garbage_add(&a->garbage, GARBAGE_BALANCE, balance, NULL);
	}
	return r;
}

static int adopt_bindings(struct apply *a)
{
	int r = 0;

	for (uint32_t id = 1; id < BINDING_COUNT && r == 0; id++)
		if (a->bindings.used[id])
			r = apply_garbage_add(&a->garbage, GARBAGE_BINDING, id, NULL);
	return r;
}

static int adopt_actions(struct apply *a)
{
	const struct action *actions = datapath_actions(a->datapath);
	int r = 0;

	for (uint32_t id = 1; id < ACTION_COUNT && r == 0; id++) {
		if (!a->actions.used[id])
			continue;
		a->former[actions[id].rule] = id;
		r = apply_garbage_add(&a->garbage, GARBAGE_ACTION, id, NULL);
	}
	return r;
}

/*
 * What a former daemon wrote stays in use until the first change, and is garbage then: first what
 * refers to other things by their ids.
 */
int adopt_former(struct apply *a)
{
	int r = adopt_matches(a);

	if (r == 0)
		r = adopt_chains(a);
	if (r == 0)
		r = adopt_balances(a);
	if (r == 0)
		r = adopt_bindings(a);
	if (r == 0)
		r = adopt_actions(a);
	a->marks_stale = true;
	return r;
}
