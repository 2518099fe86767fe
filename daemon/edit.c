// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changes within the chains that ports have: some matches more, some less, where that is all that a
 * change of rules comes to. So it costs what has changed, not what shares its ports. Nothing of it
 * is seen before the other bank is in use: a new match's rule has no action in this one.
 */
#include <errno.h>
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/datapath.h"

/* Each match that leaves is looked for among all of its shape: of more, chains are made anew. */
#define EDIT_LEAVING_MAX 64

/* A rule's place in the chain of its ports, of one protocol. */
struct place {
	const struct compiled *rule;
	uint32_t chain; /* that all its ports have, and no others; 0: there is none like that */
};

static uint32_t own_chain(const struct apply *a, uint32_t first, uint32_t last)
{
	const struct port_entry *entries = datapath_ports(a->datapath);
	int bank = datapath_config(a->datapath)->bank & 1;
	uint32_t chain = entries[first].bank[bank] & PORT_SHAPE;

	if (a->chain_ports[chain] != last - first + 1)
		return 0;
	for (uint32_t p = first + 1; p <= last; p++)
		if ((entries[p].bank[bank] & PORT_SHAPE) != chain)
			return 0;
	return chain;
}

/* Calls `f` for each protocol of an active rule, until one does not return 1. */
typedef int (*place_fn)(struct apply *a, const struct place *p);

static int each_place(struct apply *a, const struct compiled *c, place_fn f)
{
	int r = 1;

	if (!apply_rule_active(c))
		return 1;
	for (int udp = 0; r == 1 && udp < 2; udp++) {
		struct place p = {.rule = c};

		if (!(c->rule->protocols & (udp ? RULE_UDP : RULE_TCP)))
			continue;
		p.chain = own_chain(a, PORT_INDEX(udp, c->rule->ports.first),
				    PORT_INDEX(udp, c->rule->ports.last));
		r = f(a, &p);
	}
	return r;
}

/* The shape of a chain that has room for a part; 0: none. */
static uint32_t find_shape(const struct apply *a, uint32_t chain, const struct part *part)
{
	const struct shape *shapes = datapath_shapes(a->datapath);
	uint32_t id = chain;

	while (id && (a->shape_ranks[id] != part->rank || shapes[id].flags != part->flags ||
		      shapes[id].dst_length != part->dst_length ||
		      shapes[id].src_length != part->src_length))
		id = shapes[id].next;
	return id;
}

/* ---- what leaves ---- */

/*
 * Not where a wider range comes back in the place of this one, nor the last rule of a port. Counts
 * it as gone: if it stays, its ports get new chains, or too small a number only makes them get one.
 */
static int may_leave(struct apply *a, const struct place *p)
{
	const struct shape *shapes = datapath_shapes(a->datapath);

	if (!p->chain || a->chain_covers[p->chain] || a->chain_rules[p->chain] <= 1)
		return 0;
	a->chain_rules[p->chain]--;
	for (size_t i = 0; i < part_count(p->rule); i++) {
		struct part part;
		uint32_t id;

		part_get(p->rule, i, &part);
		id = find_shape(a, p->chain, &part);
		if (!id || (!part_has_key(&part) && shapes[id].binding != p->rule->binding))
			return 0;
	}
	return 1;
}

static int leave(struct apply *a, const struct place *p)
{
	for (size_t i = 0; i < part_count(p->rule); i++) {
		struct match_key key;
		struct part part;

		part_get(p->rule, i, &part);
		key = part.key;
		key.shape = find_shape(a, p->chain, &part);
		if (part_has_key(&part))
			chain_leave_match(a, &key, p->rule->binding);
		else
			datapath_shapes(a->datapath)[key.shape].binding = 0;
	}
	return 1;
}

/* ---- what comes ---- */

/* A match that a rule has left is there for a while. -EEXIST: a rule of another width has it. */
static int take_over(struct apply *a, const struct match_key *key, uint32_t binding)
{
	uint32_t former;

	if (datapath_match_get(a->datapath, key, &former) < 0 || former >= BINDING_COUNT ||
	    a->bindings.used[former] != ID_LEAVING)
		return -EEXIST;
	return datapath_match_bind(a->datapath, key, binding);
}

static int come_part(struct apply *a, const struct place *p, const struct part *part)
{
	struct match_key key = part->key;
	int r;

	key.shape = find_shape(a, p->chain, part);
	if (!key.shape)
		return 0;
	if (!part_has_key(part)) {
		struct shape *shape = &datapath_shapes(a->datapath)[key.shape];

		if (shape->binding)
			return 0;
		shape->binding = p->rule->binding;
		return 1;
	}
	r = datapath_match_add(a->datapath, &key, p->rule->binding);
	if (r == -EEXIST)
		r = take_over(a, &key, p->rule->binding);
	if (r == -EEXIST)
		return 0;
	if (r < 0)
		return r;
	/* If memory is short it is a match that is never reclaimed. */
	apply_garbage_add(&a->written, GARBAGE_MATCH, p->rule->binding, &key);
	return 1;
}

static int come(struct apply *a, const struct place *p)
{
	int r = 1;

	if (!p->chain)
		return 0;
	for (size_t i = 0; r == 1 && i < part_count(p->rule); i++) {
		struct part part;

		part_get(p->rule, i, &part);
		r = come_part(a, p, &part);
	}
	return r;
}

/* Packets have had a look at what came, though they found nothing: it goes after a while. */
static int come_no_more(struct apply *a, const struct place *p)
{
	for (size_t i = 0; i < part_count(p->rule); i++) {
		struct shape *shape;
		struct part part;

		part_get(p->rule, i, &part);
		shape = &datapath_shapes(a->datapath)[find_shape(a, p->chain, &part)];
		if (!part_has_key(&part) && shape->binding == p->rule->binding)
			shape->binding = 0;
	}
	return 1;
}

static void take_back(struct apply *a, const struct steps *s, size_t written)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->items[i].moves)
			each_place(a, s->items[i].after, come_no_more);
	for (size_t i = written; i < a->written.n; i++)
		apply_garbage_add(&a->garbage, GARBAGE_MATCH, a->written.items[i].id,
				  &a->written.items[i].key);
	a->written.n = written;
}

static int come_for_good(struct apply *a, const struct place *p)
{
	a->chain_rules[p->chain]++;
	return 1;
}

/* ---- the change ---- */

/* All that leaves can do so, and is not too much. */
static bool all_may_leave(struct apply *a, const struct steps *s)
{
	size_t leaving = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct compiled *before = s->items[i].before;

		if (!s->items[i].moves || !apply_rule_active(before))
			continue;
		leaving += 2 * part_count(before); /* of two protocols */
		if (leaving > EDIT_LEAVING_MAX || each_place(a, before, may_leave) != 1)
			return false;
	}
	return true;
}

int edit_write(struct apply *a, const struct steps *s)
{
	size_t written = a->written.n;
	int r = 1;

	if (!a->started || !all_may_leave(a, s))
		return 0;
	for (size_t i = 0; r == 1 && i < s->n; i++)
		if (s->items[i].moves)
			r = each_place(a, s->items[i].after, come);
	if (r != 1)
		take_back(a, s, written);
	return r;
}

void edit_finish(struct apply *a, const struct steps *s)
{
	for (size_t i = 0; i < s->n; i++) {
		if (!s->items[i].moves)
			continue;
		each_place(a, s->items[i].before, leave);
		each_place(a, s->items[i].after, come_for_good);
	}
}
