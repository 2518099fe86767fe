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

static int walk_start(struct walk *w, const struct compiled *rules, size_t n, unsigned protocol)
{
	*w = (struct walk){0};
	w->by_first = calloc(n + 1, sizeof(*w->by_first));
	w->open = calloc(n + 1, sizeof(*w->open));
	if (!w->by_first || !w->open)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (apply_rule_active(&rules[i]) && rules[i].rule->protocols & protocol)
			w->by_first[w->n++] = &rules[i];
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

int chain_compile_ports(struct apply *a, const struct compiled *rules, size_t n, int udp,
			uint32_t *chains, struct diag *diag)
{
	_cleanup_(walk_free) struct walk w = {0};
	uint32_t chain = 0;
	bool known = false; /* `chain` is that of the last port */
	int r = walk_start(&w, rules, n, udp ? RULE_UDP : RULE_TCP);

	for (uint32_t port = 1; r == 0 && port < 65536; port++) {
		walk_to(&w, port);
		if (w.changed)
			known = false;
		if (!a->dirty[PORT_INDEX(udp, port)])
			continue;
		if (!known) {
			r = compile_chain(a, w.open, w.n_open, &chain);
			if (r < 0)
				explain(diag, r, port);
			known = true;
		}
		chains[PORT_INDEX(udp, port)] = chain;
	}
	return r == -E2BIG ? -ENOSPC : r;
}
