// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From rules to chains of shapes: each rule contributes parts to its ports, a part being a shape
 * and a key within it; parts are sorted by specificity and written as a chain. Writes only what no
 * packet looks at yet.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/datapath.h"

/* What one rule contributes to one port: a shape, and a key within it. */
struct part {
	const struct compiled *from;
	uint32_t rank; /* higher is more specific */
	uint8_t flags, dst_length, src_length;
	struct match_key key; /* without the shape */
};

/* The length of a prefix in the 128-bit form. */
static uint8_t mapped_length(const struct ip_prefix *p)
{
	return p->family == AF_INET ? p->length + 96 : p->length;
}

/* The contract's order. A narrower range is preferred among equal parts. */
static uint32_t part_rank(const struct rule *r, const struct ip_prefix *from)
{
	return rule_interface_rank(r) << 24 | rule_listen_rank(r) << 12 | rule_source_rank(from);
}

static uint8_t family_flag(uint8_t family)
{
	return family == AF_INET ? SHAPE_IPV4 : family == AF_INET6 ? SHAPE_IPV6 : 0;
}

static void part_make(const struct compiled *c, uint32_t ifindex, const struct ip_prefix *from,
		      struct part *ret)
{
	const struct rule *r = c->rule;

	memset(ret, 0, sizeof(*ret));
	ret->from = c;
	if (ifindex) {
		ret->flags |= SHAPE_INTERFACE;
		ret->key.ifindex = ifindex;
	}
	if (r->listen == RULE_LISTEN_LOCAL)
		ret->flags |= SHAPE_LOCAL;
	if (r->listen == RULE_LISTEN_PREFIX) {
		ret->dst_length = mapped_length(&r->listen_prefix);
		ip_prefix_to_mapped(&r->listen_prefix, (uint8_t *)ret->key.daddr);
	}
	if (from) {
		ret->src_length = mapped_length(from);
		ip_prefix_to_mapped(from, (uint8_t *)ret->key.saddr);
	}
	ret->flags |= family_flag(from ? from->family : rule_family(r));
	ret->rank = part_rank(r, from);
}

/* Every combination of the rule's interfaces and sources. */
static size_t parts_of_rule(const struct compiled *c, struct part *ret)
{
	size_t n_if = c->n_ifindexes ? c->n_ifindexes : 1,
	       n_from = c->rule->n_from ? c->rule->n_from : 1;
	size_t n = 0;

	for (size_t i = 0; i < n_if; i++)
		for (size_t f = 0; f < n_from; f++, n++)
			if (ret)
				part_make(c, c->n_ifindexes ? c->ifindexes[i] : 0,
					  c->rule->n_from ? &c->rule->from[f] : NULL, &ret[n]);
	return n;
}

static int part_compare_shape(const struct part *a, const struct part *b)
{
	if (a->rank != b->rank)
		return a->rank > b->rank ? -1 : 1;
	if (a->flags != b->flags)
		return a->flags < b->flags ? -1 : 1;
	if (a->dst_length != b->dst_length)
		return a->dst_length < b->dst_length ? -1 : 1;
	return (a->src_length > b->src_length) - (a->src_length < b->src_length);
}

/* By shape, most specific first; then by key; the narrower range first, since it wins. */
static int part_compare(const void *left, const void *right)
{
	const struct part *a = left, *b = right;
	int wide_a = a->from->rule->ports.last - a->from->rule->ports.first;
	int wide_b = b->from->rule->ports.last - b->from->rule->ports.first;
	int r = part_compare_shape(a, b);

	if (!r)
		r = memcmp(&a->key, &b->key, sizeof(a->key));
	return r ? r : wide_a - wide_b;
}

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
	if (!(part->flags & SHAPE_INTERFACE) && !part->dst_length && !part->src_length)
		shape->action = part->from->action;
	*ret = id;
	return 0;
}

static int write_match(struct apply *a, const struct part *part, uint32_t shape)
{
	struct match_key key = part->key;
	int r;

	key.shape = shape;
	r = apply_garbage_add(&a->written, GARBAGE_MATCH, 0, &key);
	return r < 0 ? r : datapath_match_set(a->datapath, &key, part->from->action);
}

/* Writes the chain for a sorted list of parts; *ret is its first shape, 0 for no parts. */
static int write_chain(struct apply *a, const struct part *parts, size_t n, uint32_t *ret)
{
	struct shape *shapes = datapath_shapes(a->datapath);
	uint32_t first = 0, last = 0;
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
			continue; /* the narrower one came first */
		}
		if (!shapes[last].action) {
			r = write_match(a, &parts[i], last);
			if (r < 0)
				return r;
		}
	}
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
		l->nodes[node - 1] = (struct match_node){g->key, l->first[g->key.shape]};
		l->first[g->key.shape] = node;
	}
	return 0;
}

/* Before their shape: once its id is free, a match of this key may be another's. */
static int leave_matches(struct apply *a, uint32_t shape)
{
	struct match_lists *l = &a->matches;
	int r = 0;

	while (l->first[shape]) {
		uint32_t node = l->first[shape];

		if (apply_garbage_add(&a->garbage, GARBAGE_MATCH, 0, &l->nodes[node - 1].key) < 0)
			r = -ENOMEM;
		l->first[shape] = l->nodes[node - 1].next;
		l->nodes[node - 1].next = l->free;
		l->free = node;
	}
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

	for (size_t i = 0; i < n; i++)
		n_parts += parts_of_rule(rules[i], NULL);
	parts = calloc(2 * n_parts + 1, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	n_parts = 0;
	for (size_t i = 0; i < n; i++)
		n_parts += parts_of_rule(rules[i], parts + n_parts);
	n_parts = split_families(parts, n_parts);
	qsort(parts, n_parts, sizeof(*parts), part_compare);
	return write_chain(a, parts, n_parts, ret);
}

/* ---- one rule more ---- */

/* The chain that all ports of a range have, and no others; 0: none is like that. */
static uint32_t own_chain(struct apply *a, uint32_t first, uint32_t last)
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

static uint32_t find_shape(struct apply *a, uint32_t chain, const struct part *part)
{
	const struct shape *shapes = datapath_shapes(a->datapath);
	uint32_t id = chain;

	while (id && (a->shape_ranks[id] != part->rank || shapes[id].flags != part->flags ||
		      shapes[id].dst_length != part->dst_length ||
		      shapes[id].src_length != part->src_length))
		id = shapes[id].next;
	return id && !shapes[id].action ? id : 0;
}

int chain_extend(struct apply *a, const struct compiled *c)
{
	bool udp = c->rule->protocols == RULE_UDP;
	struct match_key key;
	struct part part;
	uint32_t chain;
	int r;

	if (c->rule->protocols == (RULE_TCP | RULE_UDP) || parts_of_rule(c, NULL) != 1)
		return 0;
	chain = own_chain(a, PORT_INDEX(udp, c->rule->ports.first),
			  PORT_INDEX(udp, c->rule->ports.last));
	parts_of_rule(c, &part);
	key = part.key;
	key.shape = find_shape(a, chain, &part);
	if (!key.shape)
		return 0;
	r = datapath_match_add(a->datapath, &key, c->action);
	if (r < 0)
		return r == -EEXIST ? 0 : r; /* a range of another width has the key */
	/* If memory is short it is a match that is never reclaimed. */
	apply_garbage_add(&a->written, GARBAGE_MATCH, 0, &key);
	return 1;
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
	int r = 0;

	for (int udp = 0; r == 0 && udp < 2; udp++)
		r = compile_protocol(a, rules, n, ports, n_ports, udp, chains, diag);
	return r == -E2BIG ? -ENOSPC : r;
}
