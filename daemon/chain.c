// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From rules to chains of shapes: the parts of a port's rules are sorted by specificity and written
 * as a chain. Writes only what no packet looks at yet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/datapath.h"

/* ---- from parts to the chain of a port ---- */

static int write_shape(struct apply *a, const struct part *part, uint32_t *ret)
{
	struct shape *shape;
	uint32_t id = apply_take_id(&a->shapes);

	if (!id)
		return -ENOSPC;
	if (apply_garbage_add(&a->written, GARBAGE_SHAPE, id, NULL) < 0) {
		a->shapes.used[id] = ID_FREE;
		return -ENOMEM;
	}
	shape = &datapath_shapes(a->datapath)[id];
	a->shape_ranks[id] = part->rank;
	memset(shape, 0, sizeof(*shape));
	shape->flags = part->flags;
	shape->dst_length = part->dst_length;
	shape->src_length = part->src_length;
	if (!part_has_key(part))
		shape->binding = part->from->binding;
	*ret = id;
	return 0;
}

/* Those noted in `written`, from one on: in one call, which takes half the time of many. */
static int write_matches(struct apply *a, size_t from, struct diag *diag)
{
	_cleanup_(freep) struct match_key *keys = calloc(a->written.n - from + 1, sizeof(*keys));
	_cleanup_(freep) uint32_t *bindings = calloc(a->written.n - from + 1, sizeof(*bindings));
	uint32_t n = 0;
	int r;

	if (!keys || !bindings)
		return -ENOMEM;
	for (size_t i = from; i < a->written.n; i++) {
		const struct garbage *g = &a->written.items[i];

		if (g->kind != GARBAGE_MATCH)
			continue;
		keys[n] = g->key;
		bindings[n++] = g->id;
	}
	r = datapath_match_set(a->datapath, keys, bindings, n);
	if (r == -E2BIG)
		diag_add(diag, DIAG_FAILED, NULL,
			 "use shorter prefixes, each for several addresses",
			 "no room: the rules name more than %d sources, addresses and interfaces",
			 MATCH_COUNT);
	return r;
}

static int note_match(struct apply *a, const struct part *part, uint32_t shape)
{
	struct match_key key = part->key;

	key.shape = shape;
	return apply_garbage_add(&a->written, GARBAGE_MATCH, part->from->binding, &key);
}

/* Writes the chain for a sorted list of parts; *ret is its first shape, 0 for no parts. */
static int write_chain(struct apply *a, const struct part *parts, size_t n, uint32_t *ret)
{
	struct shape *shapes = datapath_shapes(a->datapath);
	uint32_t first = 0, last = 0;
	bool covers = false;
	size_t length = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		bool new_shape = i == 0 || part_compare_shape(&parts[i - 1], &parts[i]) != 0;

		if (new_shape) {
			uint32_t id;

			if (++length > SHAPE_CHAIN_MAX)
				return -E2BIG;
			r = write_shape(a, &parts[i], &id);
			if (r < 0)
				return r;
			if (last)
				shapes[last].next = id;
			else
				first = id;
			last = id;
		} else if (memcmp(&parts[i - 1].key, &parts[i].key, sizeof(parts[i].key)) == 0) {
			covers = true; /* the narrower one came first */
			continue;
		}
		if (part_has_key(&parts[i])) {
			r = note_match(a, &parts[i], last);
			if (r < 0)
				return r;
		}
	}
	a->chain_covers[first] = covers;
	*ret = first;
	return 0;
}

/* ---- matches in use ---- */

static int node_take(struct match_lists *l, uint32_t *ret)
{
	struct match_node *more;

	if (l->free) {
		*ret = l->free;
		l->free = l->nodes[*ret - 1].next;
		return 0;
	}
	if (l->n == l->allocated) {
		more = reallocarray(l->nodes, l->allocated ? 2 * l->allocated : 64, sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->nodes = more;
		l->allocated = l->allocated ? 2 * l->allocated : 64;
	}
	*ret = ++l->n;
	return 0;
}

int chain_keep_matches(struct apply *a)
{
	struct match_lists *l = &a->matches;

	for (size_t i = 0; i < a->written.n; i++) {
		const struct garbage *g = &a->written.items[i];
		uint32_t node;

		if (g->kind != GARBAGE_MATCH)
			continue;
		if (node_take(l, &node) < 0)
			return -ENOMEM;
		l->nodes[node - 1] = (struct match_node){g->key, g->id, l->first[g->key.shape]};
		l->first[g->key.shape] = node;
	}
	return 0;
}

/* The match of a node; `at` is what refers to that. */
static int leave_node(struct apply *a, uint32_t *at)
{
	struct match_lists *l = &a->matches;
	uint32_t place = *at;
	struct match_node *node = &l->nodes[place - 1];
	int r = apply_garbage_add(&a->garbage, GARBAGE_MATCH, node->binding, &node->key);

	*at = node->next;
	node->next = l->free;
	l->free = place;
	return r;
}

void chain_leave_match(struct apply *a, const struct match_key *key, uint32_t binding)
{
	struct match_lists *l = &a->matches;
	uint32_t *at = &l->first[key->shape];

	while (*at && memcmp(&l->nodes[*at - 1].key, key, sizeof(*key)) != 0)
		at = &l->nodes[*at - 1].next;
	if (*at)
		leave_node(a, at);
	else /* memory was short when it was written */
		apply_garbage_add(&a->garbage, GARBAGE_MATCH, binding, key);
}

/* Before their shape: once its id is free, a match of this key may be another's. */
static int leave_matches(struct apply *a, uint32_t shape)
{
	int r = 0;

	while (a->matches.first[shape])
		if (leave_node(a, &a->matches.first[shape]) < 0)
			r = -ENOMEM;
	return r;
}

int chain_leave(struct apply *a, uint32_t first)
{
	const struct shape *shapes = datapath_shapes(a->datapath);
	int r = 0;

	for (uint32_t id = first; id; id = shapes[id].next) {
		if (a->shapes.used[id] != ID_USED)
			continue;
		a->shapes.used[id] = ID_LEAVING;
		if (leave_matches(a, id) < 0 ||
		    apply_garbage_add(&a->garbage, GARBAGE_SHAPE, id, NULL) < 0)
			r = -ENOMEM;
	}
	return r;
}

/* ---- the chain of a port ---- */

/* Parts for one family only, by what they can have in common with parts for both: the rank. */
struct single_ranks {
	uint32_t ranks[4]; /* on an interface or not, for this host or any */
	size_t n;
};

static bool single_ranks_have(const struct single_ranks *s, uint32_t rank)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->ranks[i] == rank)
			return true;
	return false;
}

static void collect_single_ranks(const struct part *parts, size_t n, struct single_ranks *ret)
{
	ret->n = 0;
	for (size_t i = 0; i < n; i++) {
		const struct part *p = &parts[i];

		if (!(p->flags & (SHAPE_IPV4 | SHAPE_IPV6)) || p->dst_length || p->src_length ||
		    single_ranks_have(ret, p->rank))
			continue;
		ret->ranks[ret->n++] = p->rank;
	}
}

/*
 * A rule for both families beside one of its rank for one family: they are of two shapes, and the
 * first shape would win, whichever range is the narrower. So it becomes a part for each family, of
 * which one shares the other rule's shape. `parts` has room for twice as many. Returns how many.
 */
static size_t split_families(struct part *parts, size_t n)
{
	struct single_ranks singles;
	size_t total = n;

	collect_single_ranks(parts, n, &singles);
	for (size_t i = 0; i < n; i++) {
		struct part *p = &parts[i];

		if (p->flags & (SHAPE_IPV4 | SHAPE_IPV6) || !single_ranks_have(&singles, p->rank))
			continue;
		parts[total] = *p;
		parts[total++].flags |= SHAPE_IPV6;
		p->flags |= SHAPE_IPV4;
	}
	return total;
}

static int compile_chain(struct apply *a, const struct compiled *const *rules, size_t n,
			 uint32_t *ret)
{
	_cleanup_(freep) struct part *parts = NULL;
	size_t n_parts = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		n_parts += part_count(rules[i]);
	parts = calloc(2 * n_parts + 1, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	n_parts = 0;
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < part_count(rules[i]); k++)
			part_get(rules[i], k, &parts[n_parts++]);
	n_parts = split_families(parts, n_parts);
	qsort(parts, n_parts, sizeof(*parts), part_compare);
	r = write_chain(a, parts, n_parts, ret);
	if (r == 0)
		a->chain_rules[*ret] = n;
	return r;
}

/* ---- the rules of a port ---- */

/* Rules ordered by their first port, to walk the ports with a list of those that cover each. */
struct walk {
	const struct compiled **by_first;
	size_t n, next;
	const struct compiled **open;
	size_t n_open;
	bool changed; /* since the last port */
};

static int compare_first_port(const void *left, const void *right)
{
	const struct compiled *a = *(const struct compiled *const *)left;
	const struct compiled *b = *(const struct compiled *const *)right;

	if (a->rule->ports.first != b->rule->ports.first)
		return a->rule->ports.first - b->rule->ports.first;
	return (a->id > b->id) - (a->id < b->id);
}

static void walk_free(struct walk *w)
{
	free(w->by_first);
	free(w->open);
}

static int walk_start(struct walk *w, const struct compiled *const *rules, size_t n,
		      unsigned protocol)
{
	*w = (struct walk){0};
	w->by_first = calloc(n + 1, sizeof(*w->by_first));
	w->open = calloc(n + 1, sizeof(*w->open));
	if (!w->by_first || !w->open)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (rules[i]->rule->protocols & protocol)
			w->by_first[w->n++] = rules[i];
	qsort(w->by_first, w->n, sizeof(*w->by_first), compare_first_port);
	return 0;
}

static void walk_to(struct walk *w, uint32_t port)
{
	size_t kept = 0;

	for (size_t i = 0; i < w->n_open; i++)
		if (w->open[i]->rule->ports.last >= port)
			w->open[kept++] = w->open[i];
	w->changed = kept != w->n_open;
	w->n_open = kept;
	while (w->next < w->n && w->by_first[w->next]->rule->ports.first <= port) {
		if (w->by_first[w->next]->rule->ports.last >= port) {
			w->open[w->n_open++] = w->by_first[w->next];
			w->changed = true;
		}
		w->next++;
	}
}

static void explain(struct diag *diag, int r, uint32_t port)
{
	if (r == -E2BIG)
		diag_add(diag, DIAG_FAILED, NULL,
			 "use the same prefix lengths in the rules of this port",
			 "the rules of port %u differ in more than %d ways", port, SHAPE_CHAIN_MAX);
	else
		diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot write the rules of port %u: %s",
			 port, strerror(-r));
}

/* A port after the other, as long as they are in the same list of rules they share a chain. */
static int compile_part(struct apply *a, struct walk *w, uint32_t first, uint32_t last, bool udp,
			uint32_t *chains, struct diag *diag)
{
	uint32_t chain = 0;
	int r = 0;

	for (uint32_t port = first; r == 0 && port <= last; port++) {
		walk_to(w, port);
		if (w->changed || port == first)
			r = compile_chain(a, w->open, w->n_open, &chain);
		if (r < 0)
			explain(diag, r, port);
		chains[PORT_INDEX(udp, port)] = chain;
	}
	return r;
}

static int compile_protocol(struct apply *a, const struct compiled *const *rules, size_t n,
			    const struct port_part *ports, size_t n_ports, bool udp,
			    uint32_t *chains, struct diag *diag)
{
	const uint32_t least = PORT_INDEX(udp, 1), most = PORT_INDEX(udp, 65535);
	_cleanup_(walk_free) struct walk w = {0};
	int r = walk_start(&w, rules, n, udp ? RULE_UDP : RULE_TCP);

	for (size_t i = 0; r == 0 && i < n_ports; i++) {
		uint32_t first = ports[i].first > least ? ports[i].first : least;
		uint32_t last = ports[i].last < most ? ports[i].last : most;

		if (first <= last)
			r = compile_part(a, &w, first - PORT_INDEX(udp, 0),
					 last - PORT_INDEX(udp, 0), udp, chains, diag);
	}
	return r;
}

int chain_compile_ports(struct apply *a, const struct compiled *const *rules, size_t n,
			const struct port_part *ports, size_t n_ports, uint32_t *chains,
			struct diag *diag)
{
	size_t from = a->written.n;
	int r = 0;

	for (int udp = 0; r == 0 && udp < 2; udp++)
		r = compile_protocol(a, rules, n, ports, n_ports, udp, chains, diag);
	if (r == 0)
		r = write_matches(a, from, diag);
	return r == -E2BIG ? -ENOSPC : r;
}
