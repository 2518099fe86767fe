// SPDX-License-Identifier: GPL-2.0-or-later
/* Transactions on the rule maps: what changes, and banks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/changes.h"
#include "daemon/datapath.h"

static struct compiled *compiled_free(struct compiled *c)
{
	if (!c)
		return NULL;
	rule_free(c->rule);
	free(c->ifindexes);
	free(c);
	return NULL;
}
DEFINE_CLEANUP(struct compiled, compiled_free)

int apply_new(struct datapath *d, struct apply **ret)
{
	_cleanup_(apply_freep) struct apply *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->datapath = d;
	a->compiled = calloc(RULE_COUNT, sizeof(*a->compiled));
	a->former = calloc(RULE_COUNT, sizeof(*a->former));
	a->span_at = calloc(RULE_COUNT, sizeof(*a->span_at));
	a->shape_ranks = calloc(SHAPE_COUNT, sizeof(*a->shape_ranks));
	a->chain_ports = calloc(SHAPE_COUNT, sizeof(*a->chain_ports));
	a->chain_rules = calloc(SHAPE_COUNT, sizeof(*a->chain_rules));
	a->chain_covers = calloc(SHAPE_COUNT, sizeof(*a->chain_covers));
	a->matches.first = calloc(SHAPE_COUNT, sizeof(*a->matches.first));
	a->marked = calloc(PORT_COUNT, 1);
	a->needed = calloc(PORT_COUNT, 1);
	if (!a->compiled || !a->former || !a->span_at || !a->shape_ranks || !a->chain_ports ||
	    !a->chain_rules || !a->chain_covers || !a->matches.first || !a->marked || !a->needed ||
	    apply_id_set_new(&a->shapes, SHAPE_COUNT) < 0 ||
	    apply_id_set_new(&a->bindings, BINDING_COUNT) < 0 ||
	    apply_id_set_new(&a->actions, ACTION_COUNT) < 0)
		return -ENOMEM;
	r = adopt_former(a);
	if (r < 0)
		return r;
	*ret = take_ptr(a);
	return 0;
}

struct apply *apply_free(struct apply *a)
{
	if (!a)
		return NULL;
	for (uint32_t id = 0; a->compiled && id < RULE_COUNT; id++)
		compiled_free(a->compiled[id]);
	free(a->compiled);
	free(a->former);
	free(a->spans);
	free(a->span_at);
	free(a->shapes.used);
	free(a->bindings.used);
	free(a->actions.used);
	free(a->garbage.items);
	free(a->written.items);
	free(a->shape_ranks);
	free(a->chain_ports);
	free(a->chain_rules);
	free(a->chain_covers);
	free(a->matches.first);
	free(a->matches.nodes);
	free(a->marked);
	free(a->needed);
	free(a);
	return NULL;
}

/* ---- compiled rules ---- */

static int resolve_interfaces(const struct apply_input *in, struct compiled *c)
{
	const char(*names)[IF_NAMESIZE] = c->rule->n_interfaces
						  ? (const char(*)[IF_NAMESIZE])c->rule->interfaces
						  : in->interfaces;
	size_t n = c->rule->n_interfaces ? c->rule->n_interfaces : in->n_interfaces;

	if (!n)
		return 0;
	c->ifindexes = calloc(n, sizeof(*c->ifindexes));
	if (!c->ifindexes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		uint32_t ifindex = in->resolve(in->userdata, names[i]);

		if (ifindex)
			c->ifindexes[c->n_ifindexes++] = ifindex;
	}
	c->waits = !c->n_ifindexes;
	return 0;
}

static int compile(const struct apply_input *in, const struct ruleset_entry *e,
		   struct compiled **ret)
{
	_cleanup_(compiled_freep) struct compiled *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->id = e->id;
	r = rule_copy(e->rule, &c->rule);
	if (r == 0)
		r = resolve_interfaces(in, c);
	if (r < 0)
		return r;
	*ret = take_ptr(c);
	return 0;
}

static bool compiled_same(const struct compiled *a, const struct compiled *b)
{
	return a->n_ifindexes == b->n_ifindexes && a->waits == b->waits &&
	       (!a->n_ifindexes ||
		memcmp(a->ifindexes, b->ifindexes, a->n_ifindexes * sizeof(*a->ifindexes)) == 0) &&
	       rule_equal(a->rule, b->rule);
}

bool apply_rule_active(const struct compiled *c)
{
	return c && !c->rule->disabled && !c->waits;
}

/* ---- steps: what becomes of each rule that changes ---- */

static void steps_clear(struct steps *s)
{
	for (size_t i = 0; i < s->n; i++)
		compiled_free(s->made ? s->items[i].before : s->items[i].after);
	free(s->items);
}

static bool step_moves(const struct compiled *before, const struct compiled *after)
{
	bool was = apply_rule_active(before), is = apply_rule_active(after);

	return was && is ? !part_same_place(before, after) : was || is;
}

/* `e` NULL: the rule goes. Nothing is to be done for a rule that stays as it is. */
static int add_step(struct apply *a, const struct apply_input *in, uint32_t id,
		    const struct ruleset_entry *e, struct steps *s)
{
	_cleanup_(compiled_freep) struct compiled *after = NULL;
	struct compiled *before = a->compiled[id];
	struct step *more;
	bool moves;
	int r = e ? compile(in, e, &after) : 0;

	if (r < 0)
		return r;
	if (before == after || (before && after && compiled_same(before, after)))
		return 0;
	if (s->n == s->allocated) {
		size_t n = s->n ? 2 * s->n : 4;

		more = reallocarray(s->items, n, sizeof(*more));
		if (!more)
			return -ENOMEM;
		s->items = more;
		s->allocated = n;
	}
	moves = step_moves(before, after);
	s->items[s->n++] = (struct step){id, before, take_ptr(after), moves};
	return 0;
}

static int find_steps(struct apply *a, const struct apply_input *in, struct steps *ret)
{
	const struct changes *c = a->started ? in->changes : NULL;
	size_t at = 0;
	int r = 0;

	for (size_t i = 0; c && r == 0 && i < c->n; i++) {
		const struct ruleset_entry *e = c->items[i].after;
		uint32_t id = e ? e->id : c->items[i].before ? c->items[i].before->id : 0;

		if (id)
			r = add_step(a, in, id, e && !e->removed ? e : NULL, ret);
	}
	for (uint32_t id = 1; !c && r == 0 && id < RULE_COUNT; id++) {
		bool there = at < in->rules->n_entries && in->rules->entries[at]->id == id;

		r = add_step(a, in, id, there ? in->rules->entries[at++] : NULL, ret);
	}
	return r;
}

/* ---- where the rules of a port are found ---- */

static void span_remove(struct apply *a, uint32_t id)
{
	uint32_t at = a->span_at[id];

	if (!at)
		return;
	a->spans[at - 1] = a->spans[--a->n_spans];
	a->span_at[a->spans[at - 1].id] = at;
	a->span_at[id] = 0;
}

/* There is room. */
static void span_add(struct apply *a, const struct compiled *c)
{
	if (!apply_rule_active(c))
		return;
	a->spans[a->n_spans++] = (struct span){c->rule->ports.first, c->rule->ports.last,
					       (uint16_t)c->id, (uint8_t)c->rule->protocols};
	a->span_at[c->id] = (uint32_t)a->n_spans;
}

static int make_room(struct apply *a, size_t n)
{
	size_t size = a->spans_allocated ? a->spans_allocated : 64;
	struct span *more;

	while (size < a->n_spans + n)
		size *= 2;
	if (size == a->spans_allocated)
		return 0;
	more = reallocarray(a->spans, size, sizeof(*more));
	if (!more)
		return -ENOMEM;
	a->spans = more;
	a->spans_allocated = size;
	return 0;
}

/* Rules are known as they are to be, or with `back` as they were. */
static void enter(struct apply *a, const struct steps *s, bool back)
{
	for (size_t i = 0; i < s->n; i++)
		span_remove(a, s->items[i].id);
	for (size_t i = 0; i < s->n; i++) {
		struct compiled *c = back ? s->items[i].before : s->items[i].after;

		a->compiled[s->items[i].id] = c;
		if (c)
			span_add(a, c);
	}
}

/* ---- the ports that change ---- */

struct ports {
	struct port_part *parts; /* ascending, apart from each other */
	size_t n;
};

static void ports_clear(struct ports *p)
{
	free(p->parts);
}

static void add_ports(struct ports *p, const struct compiled *c)
{
	if (!apply_rule_active(c))
		return;
	for (int udp = 0; udp < 2; udp++)
		if (c->rule->protocols & (udp ? RULE_UDP : RULE_TCP))
			p->parts[p->n++] = (struct port_part){PORT_INDEX(udp, c->rule->ports.first),
							      PORT_INDEX(udp, c->rule->ports.last)};
}

static int compare_parts(const void *left, const void *right)
{
	const struct port_part *a = left, *b = right;

	return (a->first > b->first) - (a->first < b->first);
}

/* Those of rules that come or leave; at first all. */
static int find_ports(const struct apply *a, const struct steps *s, struct ports *ret)
{
	size_t n = 0;

	ret->parts = reallocarray(NULL, 4 * s->n + 1, sizeof(*ret->parts));
	if (!ret->parts)
		return -ENOMEM;
	for (size_t i = 0; i < s->n; i++) {
		if (!s->items[i].moves)
			continue;
		add_ports(ret, s->items[i].before);
		add_ports(ret, s->items[i].after);
	}
	if (!a->started) {
		ret->parts[0] = (struct port_part){0, PORT_COUNT - 1};
		ret->n = 1;
	}
	qsort(ret->parts, ret->n, sizeof(*ret->parts), compare_parts);
	for (size_t i = 0; i < ret->n; i++) {
		if (!n || ret->parts[i].first > ret->parts[n - 1].last + 1)
			ret->parts[n++] = ret->parts[i];
		else if (ret->parts[i].last > ret->parts[n - 1].last)
			ret->parts[n - 1].last = ret->parts[i].last;
	}
	ret->n = n;
	return 0;
}

static bool ports_overlap(const struct ports *p, uint32_t first, uint32_t last)
{
	size_t low = 0, high = p->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (p->parts[middle].last < first)
			low = middle + 1;
		else
			high = middle;
	}
	return low < p->n && p->parts[low].first <= last;
}

/* The rules that have ports among them. The caller frees the array. */
static int find_rules(const struct apply *a, const struct ports *p, const struct compiled ***ret,
		      size_t *ret_n)
{
	const struct compiled **rules = reallocarray(NULL, a->n_spans + 1, sizeof(*rules));
	size_t n = 0;

	if (!rules)
		return -ENOMEM;
	for (size_t i = 0; i < a->n_spans; i++) {
		const struct span *s = &a->spans[i];

		if ((s->protocols & RULE_TCP && ports_overlap(p, s->first, s->last)) ||
		    (s->protocols & RULE_UDP &&
		     ports_overlap(p, PORT_INDEX(1, s->first), PORT_INDEX(1, s->last))))
			rules[n++] = a->compiled[s->id];
	}
	*ret = rules;
	*ret_n = n;
	return 0;
}

/* Points the ports of one bank at their new chains. */
static void write_bank(struct apply *a, int bank, const struct ports *p, const uint32_t *chains)
{
	struct port_entry *entries = datapath_ports(a->datapath);

	for (size_t i = 0; i < p->n; i++)
		for (uint32_t at = p->parts[i].first; at <= p->parts[i].last; at++)
			entries[at].bank[bank] = (entries[at].bank[bank] & PORT_MARKS) | chains[at];
}

/*
 * The other bank is in use: chains that this one still points at are garbage, unless ports that
 * have not changed have them as well.
 */
static void leave_chains(struct apply *a, int bank, const struct ports *p, const uint32_t *chains)
{
	const struct port_entry *entries = datapath_ports(a->datapath);

	for (size_t i = 0; i < p->n; i++) {
		for (uint32_t at = p->parts[i].first; at <= p->parts[i].last; at++) {
			uint32_t before = entries[at].bank[bank] & PORT_SHAPE, now = chains[at];

			if (now)
				a->chain_ports[now]++;
			/* None is counted that a former daemon wrote; those have left already. */
			if (a->chain_ports[before] && --a->chain_ports[before] == 0)
				chain_leave(a, before);
		}
	}
}

/* ---- the transaction ---- */

void apply_recheck(struct apply *a)
{
	struct datapath_config *config = datapath_config(a->datapath);

	__atomic_add_fetch(&config->generation, 1, __ATOMIC_SEQ_CST);
}

/* A rule keeps its binding as long as it stays at its place; there, that is all that changes. */
static int take_bindings(struct apply *a, const struct steps *s)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct step *step = &s->items[i];

		if (!apply_rule_active(step->after))
			continue;
		step->after->binding =
			step->moves ? apply_take_id(&a->bindings) : step->before->binding;
		if (!step->after->binding)
			return -ENOSPC;
	}
	return 0;
}

/* Leaves a binding, which no new packet sees any more, to be reclaimed behind its matches. */
static void leave_binding(struct apply *a, uint32_t id)
{
	a->bindings.used[id] = ID_LEAVING;
	apply_garbage_add(&a->garbage, GARBAGE_BINDING, id, NULL);
}

/* What the rules do, in one bank. */
static void bind_rules(struct apply *a, const struct steps *s, int bank)
{
	struct binding *bindings = datapath_bindings(a->datapath);

	for (size_t i = 0; i < s->n; i++) {
		const struct step *step = &s->items[i];

		if (step->moves && step->before && step->before->binding)
			bindings[step->before->binding].action[bank] = 0;
		if (step->after && step->after->binding)
			bindings[step->after->binding].action[bank] = step->after->action;
	}
}

/* What is left to do once packets see the change. */
static void finish(struct apply *a, struct steps *s)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct step *step = &s->items[i];

		if (!step->before)
			continue;
		if (step->moves && step->before->binding)
			leave_binding(a, step->before->binding);
		action_leave(a, step->before->action);
	}
	chain_keep_matches(a);
	a->written.n = 0;
	a->started = true;
	a->marks_stale = true;
	a->marks_since_ns = apply_now_ns();
	s->made = true;
}

/* Chains that some ports get instead of what they have. */
struct rechain {
	uint32_t *of_port; /* by PORT_INDEX */
	struct ports ports;
};

static void rechain_clear(struct rechain *r)
{
	free(r->of_port);
	ports_clear(&r->ports);
}

/*
 * From here on nothing can fail that packets would notice: memory that runs out only leaves
 * garbage behind.
 */
static void flip(struct apply *a, struct steps *s, const struct rechain *new,
		 const struct changes *edits)
{
	struct datapath_config *config = datapath_config(a->datapath);
	int bank = config->bank & 1;

	for (size_t i = 0; i < s->n; i++) {
		if (!s->items[i].after)
			continue;
		settings_write(a, s->items[i].after);
		if (apply_rule_active(s->items[i].after))
			marks_set(a, s->items[i].after->rule);
	}
	settings_change(a, edits);
	bind_rules(a, s, !bank);
	write_bank(a, !bank, &new->ports, new->of_port);
	__atomic_store_n(&config->bank, !bank, __ATOMIC_SEQ_CST);
	/* Who is still looking at the other bank looks again once it is done: rule_find(). */
	apply_recheck(a);
	leave_chains(a, bank, &new->ports, new->of_port);
	write_bank(a, bank, &new->ports, new->of_port);
	bind_rules(a, s, bank);
}

static void take_back(struct apply *a, const struct steps *s)
{
	for (size_t i = 0; i < a->written.n; i++)
		garbage_dispose(a, &a->written.items[i]);
	a->written.n = 0;
	for (size_t i = 0; i < s->n; i++) {
		const struct step *step = &s->items[i];

		if (!step->after)
			continue;
		/* Packets may have seen it, where it did nothing. */
		if (step->moves && step->after->binding)
			leave_binding(a, step->after->binding);
		if (step->after->action)
			a->actions.used[step->after->action] = ID_FREE;
	}
}

static int write_actions(struct apply *a, const struct steps *s, struct diag *diag)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->n; i++)
		if (s->items[i].after)
			r = action_write(a, s->items[i].after, s->items[i].before, diag);
	return r < 0 ? r : take_bindings(a, s);
}

static int write_chains(struct apply *a, const struct steps *s, struct rechain *ret,
			struct diag *diag)
{
	_cleanup_(freep) const struct compiled **rules = NULL;
	size_t n = 0;
	int r;

	ret->of_port = calloc(PORT_COUNT, sizeof(*ret->of_port));
	if (!ret->of_port)
		return -ENOMEM;
	r = find_ports(a, s, &ret->ports);
	if (r == 0)
		r = find_rules(a, &ret->ports, &rules, &n);
	return r < 0 ? r
		     : chain_compile_ports(a, rules, n, ret->ports.parts, ret->ports.n,
					   ret->of_port, diag);
}

static int apply_steps(struct apply *a, struct steps *s, const struct changes *edits,
		       struct diag *diag)
{
	_cleanup_(rechain_clear) struct rechain new = {0};
	int edited = 0, r = make_room(a, s->n);

	if (r < 0)
		return r;
	enter(a, s, false);
	r = write_actions(a, s, diag);
	if (r == 0)
		r = edited = edit_write(a, s);
	if (r == 0)
		r = write_chains(a, s, &new, diag);
	if (r < 0) {
		enter(a, s, true);
		take_back(a, s);
		return r;
	}
	flip(a, s, &new, edits);
	if (edited)
		edit_finish(a, s);
	finish(a, s);
	return 0;
}

int apply_rules(struct apply *a, const struct apply_input *input, struct diag *diag)
{
	_cleanup_(steps_clear) struct steps steps = {0};
	int r;

	if (a->garbage.n > GARBAGE_MUCH)
		garbage_collect(a);
	r = find_steps(a, input, &steps);
	if (r == 0 && (steps.n || !a->started))
		r = apply_steps(a, &steps, input->edits, diag);
	if (r < 0 && !diag->n_items)
		diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot write the rules: %s", strerror(-r));
	return r < 0 ? r : 0;
}

void apply_tick(struct apply *a)
{
	garbage_collect(a);
	marks_clear(a);
	settings_tick(a);
}
