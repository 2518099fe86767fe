// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/apply.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/datapath.h"

#define GRACE_NS 1000000000ULL	/* no packet is under way for as long */
#define MARKS_NS 10000000000ULL /* between two looks at marks that only flows may need */

/* A rule as it was last compiled. */
struct compiled {
	uint32_t id;
	struct rule *rule;   /* a copy */
	uint32_t *ifindexes; /* sorted as named; n 0: every interface */
	size_t n_ifindexes;
	bool waits; /* names interfaces, none of which is there */
	uint32_t action;
	bool fresh; /* the action was made in this change */
};

/* What one rule contributes to one port: a shape, and a key within it. */
struct part {
	const struct compiled *from;
	uint32_t rank; /* higher is more specific */
	uint8_t flags, dst_length, src_length;
	struct match_key key; /* without the shape */
};

enum garbage_kind {
	GARBAGE_SHAPE,
	GARBAGE_ACTION,
	GARBAGE_MATCH,
};
struct garbage {
	enum garbage_kind kind;
	uint64_t since_ns;
	uint32_t id;
	struct match_key key;
};

/* A growing array of garbage, in the order of time. */
struct garbage_list {
	struct garbage *items;
	size_t n, allocated;
};

/* A set of ids in use, and where to look for a free one. */
enum id_use {
	ID_FREE,
	ID_USED,
	ID_LEAVING, /* in the garbage already */
};
struct id_set {
	uint8_t *used;
	uint32_t size, next;
};

struct apply {
	struct datapath *datapath;
	struct compiled *compiled; /* ordered by id */
	size_t n_compiled;
	struct id_set shapes, actions;
	struct garbage_list garbage;
	/* What the running change has written, to be taken back if it fails. */
	struct garbage_list written;
	struct garbage_list matches; /* in use now */
	uint8_t *dirty;		     /* PORT_COUNT: ports to compile anew */
	uint8_t *marked;  /* PORT_COUNT: marks that the rules ask for, in the top three bits */
	uint8_t *needed;  /* PORT_COUNT: and those that flows ask for, while they are looked at */
	bool marks_stale; /* marks of former rules may be cleared once no flow needs them */
	uint64_t marks_since_ns;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static int garbage_add(struct garbage_list *l, enum garbage_kind kind, uint32_t id,
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
	more->since_ns = now_ns();
	more->id = id;
	if (key)
		more->key = *key;
	return 0;
}

static void garbage_dispose(struct apply *a, const struct garbage *g)
{
	switch (g->kind) {
	case GARBAGE_SHAPE:
		a->shapes.used[g->id] = ID_FREE;
		break;
	case GARBAGE_ACTION:
		a->actions.used[g->id] = ID_FREE;
		break;
	case GARBAGE_MATCH:
		datapath_match_delete(a->datapath, &g->key);
		break;
	}
}

static void garbage_collect(struct apply *a)
{
	uint64_t now = now_ns();
	size_t i = 0;

	while (i < a->garbage.n && now - a->garbage.items[i].since_ns > GRACE_NS)
		garbage_dispose(a, &a->garbage.items[i++]);
	if (!i)
		return;
	memmove(a->garbage.items, a->garbage.items + i,
		(a->garbage.n - i) * sizeof(struct garbage));
	a->garbage.n -= i;
}

static int id_set_new(struct id_set *s, uint32_t size)
{
	s->used = calloc(size, 1);
	s->size = size;
	s->next = 1;
	return s->used ? 0 : -ENOMEM;
}

/* 0 is never handed out. */
static uint32_t id_take(struct id_set *s)
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

static void compiled_clear(struct compiled *c)
{
	rule_free(c->rule);
	free(c->ifindexes);
}

/* What a former daemon wrote stays in use until the first change, and is garbage then. */
static int adopt_ids(struct apply *a)
{
	const struct port_entry *ports = datapath_ports(a->datapath);
	const struct shape *shapes = datapath_shapes(a->datapath);
	struct match_key key, *last = NULL;
	uint32_t action;
	int r = 0;

	for (uint32_t p = 0; p < PORT_COUNT; p++) {
		for (int bank = 0; bank < 2; bank++) {
			uint32_t id = ports[p].bank[bank] & PORT_SHAPE;

			while (id && id < SHAPE_COUNT && !a->shapes.used[id]) {
				a->shapes.used[id] = ID_LEAVING;
				r = garbage_add(&a->garbage, GARBAGE_SHAPE, id, NULL);
				if (r < 0)
					return r;
				if (shapes[id].action && shapes[id].action < ACTION_COUNT)
					a->actions.used[shapes[id].action] = ID_LEAVING;
				id = shapes[id].next;
			}
		}
	}
	while (datapath_match_next(a->datapath, last, &key, &action) == 0) {
		if (action < ACTION_COUNT)
			a->actions.used[action] = ID_LEAVING;
		r = garbage_add(&a->garbage, GARBAGE_MATCH, 0, &key);
		if (r < 0)
			return r;
		last = &key;
	}
	for (uint32_t id = 1; id < ACTION_COUNT && r == 0; id++)
		if (a->actions.used[id])
			r = garbage_add(&a->garbage, GARBAGE_ACTION, id, NULL);
	/* Every port may hold something: the first change compiles them all. */
	memset(a->dirty, 1, PORT_COUNT);
	a->marks_stale = true;
	return r;
}

int apply_new(struct datapath *d, struct apply **ret)
{
	_cleanup_(apply_freep) struct apply *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->datapath = d;
	a->dirty = calloc(PORT_COUNT, 1);
	a->marked = calloc(PORT_COUNT, 1);
	a->needed = calloc(PORT_COUNT, 1);
	if (!a->dirty || !a->marked || !a->needed || id_set_new(&a->shapes, SHAPE_COUNT) < 0 ||
	    id_set_new(&a->actions, ACTION_COUNT) < 0)
		return -ENOMEM;
	r = adopt_ids(a);
	if (r < 0)
		return r;
	*ret = take_ptr(a);
	return 0;
}

struct apply *apply_free(struct apply *a)
{
	if (!a)
		return NULL;
	for (size_t i = 0; i < a->n_compiled; i++)
		compiled_clear(&a->compiled[i]);
	free(a->compiled);
	free(a->shapes.used);
	free(a->actions.used);
	free(a->garbage.items);
	free(a->written.items);
	free(a->matches.items);
	free(a->dirty);
	free(a->marked);
	free(a->needed);
	free(a);
	return NULL;
}

/* ---- from rules to parts ---- */

static int resolve_interfaces(const struct apply_input *in, struct compiled *c)
{
	const char(*names)[IF_NAMESIZE] = c->rule->n_interfaces
						  ? (const char(*)[IF_NAMESIZE])c->rule->interfaces
						  : in->interfaces;
	size_t n = c->rule->n_interfaces ? c->rule->n_interfaces : in->n_interfaces;

	c->ifindexes = calloc(n + 1, sizeof(*c->ifindexes));
	if (!c->ifindexes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		uint32_t ifindex = in->resolve(in->userdata, names[i]);

		if (ifindex)
			c->ifindexes[c->n_ifindexes++] = ifindex;
	}
	c->waits = n && !c->n_ifindexes;
	return 0;
}

static bool compiled_same(const struct compiled *a, const struct compiled *b)
{
	return a->n_ifindexes == b->n_ifindexes && a->waits == b->waits &&
	       memcmp(a->ifindexes, b->ifindexes, a->n_ifindexes * sizeof(*a->ifindexes)) == 0 &&
	       rule_equal(a->rule, b->rule);
}

static bool compiled_active(const struct compiled *c)
{
	return !c->rule->disabled && !c->waits;
}

static void dirty_ports(struct apply *a, const struct rule *r)
{
	for (int udp = 0; udp < 2; udp++) {
		if (!(r->protocols & (udp ? RULE_UDP : RULE_TCP)))
			continue;
		memset(a->dirty + PORT_INDEX(udp, r->ports.first), 1,
		       r->ports.last - r->ports.first + 1);
	}
}

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
	uint32_t id = id_take(&a->shapes);

	if (!id)
		return -ENOSPC;
	if (garbage_add(&a->written, GARBAGE_SHAPE, id, NULL) < 0) {
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
	r = garbage_add(&a->written, GARBAGE_MATCH, 0, &key);
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

static int compile_chain(struct apply *a, const struct compiled *const *rules, size_t n,
			 uint32_t *ret)
{
	_cleanup_(freep) struct part *parts = NULL;
	size_t n_parts = 0;

	for (size_t i = 0; i < n; i++)
		n_parts += parts_of_rule(rules[i], NULL);
	parts = calloc(n_parts + 1, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	n_parts = 0;
	for (size_t i = 0; i < n; i++)
		n_parts += parts_of_rule(rules[i], parts + n_parts);
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
		if (compiled_active(&rules[i]) && rules[i].rule->protocols & protocol)
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

/* Compiles the dirty ports of one protocol into `chains`. Ports alike share a chain. */
static int compile_ports(struct apply *a, const struct compiled *rules, size_t n, int udp,
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

/* ---- the change itself ---- */

static uint32_t marks_of(const struct apply *a, uint32_t port)
{
	return (uint32_t)a->marked[port] << 24;
}

static void mark_ports(struct apply *a, const struct rule *r)
{
	for (int udp = 0; udp < 2; udp++) {
		if (!(r->protocols & (udp ? RULE_UDP : RULE_TCP)))
			continue;
		for (uint32_t p = r->ports.first; p <= r->ports.last; p++)
			a->marked[PORT_INDEX(udp, p)] |= PORT_LISTEN >> 24;
		for (size_t t = 0; t < r->n_targets; t++)
			for (uint32_t p = r->targets[t].ports.first; p <= r->targets[t].ports.last;
			     p++)
				a->marked[PORT_INDEX(udp, p)] |=
					(r->targets[t].address.family ? PORT_REPLY_IN
								      : PORT_REPLY_OUT) >>
					24;
	}
}

/* Sets marks before any flow can need them; clearing waits: see marks_clear(). */
static void marks_set(struct apply *a, const struct compiled *rules, size_t n)
{
	struct port_entry *ports = datapath_ports(a->datapath);

	memset(a->marked, 0, PORT_COUNT);
	for (size_t i = 0; i < n; i++)
		if (compiled_active(&rules[i]))
			mark_ports(a, rules[i].rule);
	for (uint32_t p = 0; p < PORT_COUNT; p++)
		if (marks_of(a, p) & ~ports[p].bank[0])
			for (int bank = 0; bank < 2; bank++)
				ports[p].bank[bank] |= marks_of(a, p);
	a->marks_stale = true;
	a->marks_since_ns = now_ns();
}

/* Is any port marked for which no rule asks? */
static bool marks_left_over(const struct apply *a)
{
	const struct port_entry *ports = datapath_ports(a->datapath);

	for (uint32_t p = 0; p < PORT_COUNT; p++)
		if ((ports[p].bank[0] | ports[p].bank[1]) & PORT_MARKS & ~marks_of(a, p))
			return true;
	return false;
}

/*
 * Clears the marks that neither a rule nor a flow needs, a while after the rules changed; then
 * again from time to time, until the flows of former rules are gone.
 */
static void marks_clear(struct apply *a)
{
	struct port_entry *ports = datapath_ports(a->datapath);
	uint32_t n;
	const struct flow *flows = datapath_flows(a->datapath, &n);

	if (!a->marks_stale || now_ns() - a->marks_since_ns < MARKS_NS)
		return;
	a->marks_since_ns = now_ns();
	a->marks_stale = marks_left_over(a);
	if (!a->marks_stale)
		return;
	memcpy(a->needed, a->marked, PORT_COUNT);
	for (uint32_t i = 1; i < n; i++) {
		bool udp = flows[i].flags & FLOW_UDP;

		if (flows[i].state == FLOW_FREE)
			continue;
		a->needed[PORT_INDEX(udp, ntohs(flows[i].original.dport))] |= PORT_LISTEN >> 24;
		a->needed[PORT_INDEX(udp, ntohs(flows[i].reply.sport))] |=
			(flows[i].flags & FLOW_REPLY_IN ? PORT_REPLY_IN : PORT_REPLY_OUT) >> 24;
	}
	for (uint32_t p = 0; p < PORT_COUNT; p++) {
		for (int bank = 0; bank < 2; bank++) {
			uint32_t entry = ports[p].bank[bank];

			entry = (entry & ~PORT_MARKS) | (uint32_t)a->needed[p] << 24;
			if (entry != ports[p].bank[bank])
				ports[p].bank[bank] = entry;
		}
	}
}

static int write_actions(struct apply *a, struct compiled *rules, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct rule *r = rules[i].rule;
		struct action *action;

		if (rules[i].action)
			continue;
		rules[i].action = id_take(&a->actions);
		if (!rules[i].action)
			return -ENOSPC;
		rules[i].fresh = true;
		action = &datapath_actions(a->datapath)[rules[i].action];
		memset(action, 0, sizeof(*action));
		action->rule = rules[i].id;
		action->listen_first = r->ports.first;
		action->target_first = r->targets[0].ports.first;
		if (r->ports.first != r->ports.last &&
		    r->targets[0].ports.first == r->targets[0].ports.last)
			action->flags |= ACTION_FOLDED;
	}
	return 0;
}

/* Points the ports of one bank at their new chains; the old ones are garbage once both are. */
static int write_bank(struct apply *a, int bank, const uint32_t *chains, bool last)
{
	struct port_entry *ports = datapath_ports(a->datapath);
	const struct shape *shapes = datapath_shapes(a->datapath);
	uint32_t previous = 0;

	for (uint32_t p = 0; p < PORT_COUNT; p++) {
		uint32_t old = ports[p].bank[bank] & PORT_SHAPE;

		if (!a->dirty[p])
			continue;
		ports[p].bank[bank] = (ports[p].bank[bank] & PORT_MARKS) | chains[p];
		if (!last || old == previous || old == chains[p])
			continue;
		previous = old;
		for (; old; old = shapes[old].next)
			if (a->shapes.used[old] == ID_USED) {
				a->shapes.used[old] = ID_LEAVING;
				if (garbage_add(&a->garbage, GARBAGE_SHAPE, old, NULL) < 0)
					return -ENOMEM;
			}
	}
	return 0;
}

/* Matches of shapes that leave leave with them; those just written come into use. */
static int turn_over_matches(struct apply *a)
{
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; i < a->matches.n; i++) {
		const struct match_key *key = &a->matches.items[i].key;

		if (a->shapes.used[key->shape] == ID_LEAVING) {
			if (garbage_add(&a->garbage, GARBAGE_MATCH, 0, key) < 0)
				r = -ENOMEM;
		} else {
			a->matches.items[kept++] = a->matches.items[i];
		}
	}
	a->matches.n = kept;
	for (size_t i = 0; i < a->written.n; i++)
		if (a->written.items[i].kind == GARBAGE_MATCH &&
		    garbage_add(&a->matches, GARBAGE_MATCH, 0, &a->written.items[i].key) < 0)
			r = -ENOMEM;
	a->written.n = 0;
	return r;
}

/*
 * The rules as they are to be, in the order of ids; what has not changed keeps its action. Marks
 * the ports of what has changed.
 */
static int compile_rules(struct apply *a, const struct apply_input *in, struct compiled *rules)
{
	size_t old = 0;

	for (size_t i = 0; i < in->rules->n_entries; i++) {
		const struct ruleset_entry *e = in->rules->entries[i];
		struct compiled *c = &rules[i];
		int r;

		c->id = e->id;
		r = rule_copy(e->rule, &c->rule);
		if (r == 0)
			r = resolve_interfaces(in, c);
		if (r < 0)
			return r;
		for (; old < a->n_compiled && a->compiled[old].id < c->id; old++)
			dirty_ports(a, a->compiled[old].rule);
		if (old < a->n_compiled && a->compiled[old].id == c->id) {
			if (compiled_same(&a->compiled[old], c)) {
				c->action = a->compiled[old++].action;
				continue;
			}
			dirty_ports(a, a->compiled[old++].rule);
		}
		dirty_ports(a, c->rule);
	}
	for (; old < a->n_compiled; old++)
		dirty_ports(a, a->compiled[old].rule);
	return 0;
}

static void take_back(struct apply *a, struct compiled *rules, size_t n)
{
	for (size_t i = 0; i < a->written.n; i++)
		garbage_dispose(a, &a->written.items[i]);
	a->written.n = 0;
	for (size_t i = 0; i < n; i++) {
		if (rules[i].fresh)
			a->actions.used[rules[i].action] = ID_FREE;
		compiled_clear(&rules[i]);
	}
	free(rules);
}

/* Actions of the former rules that the new ones do not use. */
static int leave_actions(struct apply *a, const struct compiled *rules, size_t n)
{
	size_t now = 0;
	int r = 0;

	for (size_t old = 0; old < a->n_compiled; old++) {
		uint32_t action = a->compiled[old].action;

		while (now < n && rules[now].id < a->compiled[old].id)
			now++;
		if (now < n && rules[now].id == a->compiled[old].id && rules[now].action == action)
			continue;
		a->actions.used[action] = ID_LEAVING;
		if (garbage_add(&a->garbage, GARBAGE_ACTION, action, NULL) < 0)
			r = -ENOMEM;
	}
	return r;
}

/*
 * From here on nothing can fail that packets would notice: memory that runs out only leaves
 * garbage behind.
 */
static void flip(struct apply *a, struct compiled *rules, size_t n, const uint32_t *chains)
{
	struct datapath_config *config = datapath_config(a->datapath);
	int bank = config->bank & 1;

	marks_set(a, rules, n);
	write_bank(a, !bank, chains, false);
	__atomic_store_n(&config->bank, !bank, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&config->generation, 1, __ATOMIC_SEQ_CST);
	write_bank(a, bank, chains, true);
	leave_actions(a, rules, n);
	turn_over_matches(a);
	memset(a->dirty, 0, PORT_COUNT);
	for (size_t i = 0; i < a->n_compiled; i++)
		compiled_clear(&a->compiled[i]);
	free(a->compiled);
	for (size_t i = 0; i < n; i++)
		rules[i].fresh = false;
	a->compiled = rules;
	a->n_compiled = n;
}

int apply_rules(struct apply *a, const struct apply_input *input, struct diag *diag)
{
	_cleanup_(freep) uint32_t *chains = calloc(PORT_COUNT, sizeof(*chains));
	size_t n = input->rules->n_entries;
	struct compiled *rules = calloc(n + 1, sizeof(*rules));
	int r = -ENOMEM;

	garbage_collect(a);
	if (chains && rules)
		r = compile_rules(a, input, rules);
	if (r == 0)
		r = write_actions(a, rules, n);
	for (int udp = 0; r == 0 && udp < 2; udp++)
		r = compile_ports(a, rules, n, udp, chains, diag);
	if (r < 0) {
		if (!diag->n_items)
			diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot write the rules: %s",
				 strerror(-r));
		if (rules)
			take_back(a, rules, n);
		/* `dirty` stays: the ports of the change are compiled with the next one. */
		return r;
	}
	flip(a, rules, n, chains);
	return 0;
}

void apply_tick(struct apply *a)
{
	garbage_collect(a);
	marks_clear(a);
}
