// SPDX-License-Identifier: GPL-2.0-or-later
/* Transactions on the rule maps: what changes, banks, and what is left over. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/apply-private.h"
#include "daemon/datapath.h"

#define GRACE_NS 1000000000ULL /* no packet is under way for as long */

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

static void garbage_dispose(struct apply *a, const struct garbage *g)
{
	switch (g->kind) {
	case GARBAGE_SHAPE:
		a->shapes.used[g->id] = ID_FREE;
		break;
	case GARBAGE_ACTION:
		a->actions.used[g->id] = ID_FREE;
		break;
	case GARBAGE_BALANCE:
		datapath_balance_delete(a->datapath, g->id);
		break;
	case GARBAGE_MATCH:
		datapath_match_delete(a->datapath, &g->key);
		break;
	}
}

static void garbage_collect(struct apply *a)
{
	uint64_t now = apply_now_ns();
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
	uint32_t action, balance = 0;
	int r = 0;

	for (uint32_t p = 0; p < PORT_COUNT; p++) {
		for (int bank = 0; bank < 2; bank++) {
			uint32_t id = ports[p].bank[bank] & PORT_SHAPE;

			while (id && id < SHAPE_COUNT && !a->shapes.used[id]) {
				a->shapes.used[id] = ID_LEAVING;
				r = apply_garbage_add(&a->garbage, GARBAGE_SHAPE, id, NULL);
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
		r = apply_garbage_add(&a->garbage, GARBAGE_MATCH, 0, &key);
		if (r < 0)
			return r;
		last = &key;
	}
	/* Some may be of a change that was never finished. */
	while ((balance = datapath_balance_next(a->datapath, balance))) {
		a->actions.used[balance] = ID_LEAVING;
		r = apply_garbage_add(&a->garbage, GARBAGE_BALANCE, balance, NULL);
		if (r < 0)
			return r;
	}
	for (uint32_t id = 1; id < ACTION_COUNT && r == 0; id++)
		if (a->actions.used[id])
			r = apply_garbage_add(&a->garbage, GARBAGE_ACTION, id, NULL);
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

bool apply_rule_active(const struct compiled *c)
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
				if (apply_garbage_add(&a->garbage, GARBAGE_SHAPE, old, NULL) < 0)
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
			if (apply_garbage_add(&a->garbage, GARBAGE_MATCH, 0, key) < 0)
				r = -ENOMEM;
		} else {
			a->matches.items[kept++] = a->matches.items[i];
		}
	}
	a->matches.n = kept;
	for (size_t i = 0; i < a->written.n; i++)
		if (a->written.items[i].kind == GARBAGE_MATCH &&
		    apply_garbage_add(&a->matches, GARBAGE_MATCH, 0, &a->written.items[i].key) < 0)
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
		if (action_leave(a, action) < 0)
			r = -ENOMEM;
	}
	return r;
}

void apply_recheck(struct apply *a)
{
	struct datapath_config *config = datapath_config(a->datapath);

	__atomic_add_fetch(&config->generation, 1, __ATOMIC_SEQ_CST);
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
	apply_recheck(a);
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
		r = action_write_all(a, rules, n, diag);
	for (int udp = 0; r == 0 && udp < 2; udp++)
		r = chain_compile_ports(a, rules, n, udp, chains, diag);
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
