// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/abi.h"
#include "shared/rule-index.h"

static const char note_both[] = "the configuration and a runtime change disagreed";

/* ---- entries ---- */

/* A copy of an entry with another rule, and nothing that the configuration says instead. */
static int entry_with_rule(const struct ruleset_entry *e, const struct rule *rule,
			   struct ruleset_entry **ret)
{
	return ruleset_entry_new(e->id, rule, e->origin, e->source, ret);
}

/* Keeps in mind what the configuration says, if that is something else. */
static int entry_remember(struct ruleset_entry *e, const struct rule *configured)
{
	if (e->origin == RULE_ORIGIN_RUNTIME || rule_equal(e->rule, configured))
		return 0;
	return rule_copy(configured, &e->configured);
}

int plan_set(struct ruleset_entry *e, const struct rule *rule, struct changes *ret)
{
	struct ruleset_entry *after;
	int r;

	if (!e->removed && rule_equal(e->rule, rule))
		return 0;
	r = entry_with_rule(e, rule, &after);
	if (r < 0)
		return r;
	r = entry_remember(after, ruleset_entry_configured(e));
	if (r < 0) {
		ruleset_entry_free(after);
		return r;
	}
	return changes_add(ret, e, after, NULL);
}

int plan_remove(struct ruleset_entry *e, struct changes *ret)
{
	struct ruleset_entry *after = NULL;
	int r = 0;

	if (e->origin != RULE_ORIGIN_RUNTIME)
		r = entry_with_rule(e, ruleset_entry_configured(e), &after);
	if (r < 0)
		return r;
	if (after)
		after->removed = true;
	return changes_add(ret, e, after, NULL);
}

static int add_fresh(const struct plan_from *p, const struct rule *rule, enum rule_origin origin,
		     const char *source, const struct config_rule *from, struct changes *ret,
		     struct diag *diag)
{
	uint32_t id = p->new_id(p->userdata);
	struct ruleset_entry *after;
	struct change *c;
	int r;

	if (id == RULE_ID_NONE) {
		ruleset_report_full(diag);
		return -ENOSPC;
	}
	r = ruleset_entry_new(id, rule, origin, source, &after);
	if (r == 0)
		r = changes_add(ret, NULL, after, &c);
	if (r < 0)
		return r;
	c->fresh = true;
	c->from = from;
	return 0;
}

int plan_add(const struct plan_from *p, const struct rule *rule, struct changes *ret,
	     struct diag *diag)
{
	for (size_t i = 0; i < p->rules->n_removed; i++)
		if (rule_equal(p->rules->removed[i]->rule, rule))
			return plan_set(p->rules->removed[i], rule, ret);
	return add_fresh(p, rule, RULE_ORIGIN_RUNTIME, "runtime", NULL, ret, diag);
}

/* ---- which entry a rule of a file is ---- */

struct match {
	const struct ruleset *rules;
	/* What the configuration says of entries that are otherwise now; numbers are addresses. */
	struct rule_index *configured;
	const struct config *config;
	struct ruleset_entry **found; /* of each rule of `config`; NULL: none, a new rule */
	uint8_t *taken;		      /* by id */
};

static void match_clear(struct match *m)
{
	rule_index_free(m->configured);
	free(m->found);
	free(m->taken);
}

static int match_start(struct match *m, const struct ruleset *rules, const struct config *config)
{
	int r = rule_index_new(&m->configured);

	if (r < 0)
		return r;
	m->rules = rules;
	m->config = config;
	m->found = calloc(config->n_rules + 1, sizeof(*m->found));
	m->taken = calloc(RULE_COUNT, sizeof(*m->taken));
	if (!m->found || !m->taken)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < rules->n_entries; i++)
		if (rules->entries[i]->configured)
			r = rule_index_add(m->configured, rules->entries[i]->configured,
					   (uintptr_t)rules->entries[i]);
	for (size_t i = 0; r == 0 && i < rules->n_removed; i++)
		r = rule_index_add(m->configured, rules->removed[i]->rule,
				   (uintptr_t)rules->removed[i]);
	return r;
}

static struct ruleset_entry *configured_like(const struct match *m, const struct rule *rule)
{
	size_t number;

	return rule_index_find_conflict(m->configured, rule, &number)
		       ? (struct ruleset_entry *)number
		       : NULL;
}

static struct ruleset_entry *configured_named(const struct match *m, const char *name)
{
	size_t number;

	return *name && rule_index_find_name(m->configured, name, &number)
		       ? (struct ruleset_entry *)number
		       : NULL;
}

/*
 * The ways to know a rule again, the surest first. Each returns an entry or NULL. Equal rules, and
 * those that take the same, are in conflict, so that the indices find them.
 */
static struct ruleset_entry *find_equal_configured(const struct match *m, const struct rule *rule)
{
	struct ruleset_entry *e = configured_like(m, rule);

	return e && rule_equal(ruleset_entry_configured(e), rule) ? e : NULL;
}

static struct ruleset_entry *find_equal(const struct match *m, const struct rule *rule)
{
	struct ruleset_entry *e = ruleset_find_conflict(m->rules, rule);

	return e && rule_equal(e->rule, rule) ? e : NULL;
}

static struct ruleset_entry *find_named_configured(const struct match *m, const struct rule *rule)
{
	return configured_named(m, rule->name);
}

static struct ruleset_entry *find_named(const struct match *m, const struct rule *rule)
{
	return ruleset_find_name(m->rules, rule->name);
}

static struct ruleset_entry *find_like_configured(const struct match *m, const struct rule *rule)
{
	struct ruleset_entry *e = configured_like(m, rule);

	return e && rule_takes_same(ruleset_entry_configured(e), rule) ? e : NULL;
}

static struct ruleset_entry *find_like(const struct match *m, const struct rule *rule)
{
	struct ruleset_entry *e = ruleset_find_conflict(m->rules, rule);

	return e && rule_takes_same(e->rule, rule) ? e : NULL;
}

struct match_way {
	struct ruleset_entry *(*find)(const struct match *m, const struct rule *rule);
	bool of_runtime; /* rules of runtime origin are known by it as well */
};

/* For a configuration: a runtime rule is the same only if nothing differs. */
static const struct match_way ways_of_configuration[] = {
	{find_equal_configured, false}, {find_equal, true},
	{find_named_configured, false}, {find_named, false},
	{find_like_configured, false},	{find_like, false},
};
/* For rules that are to be in force: what is in force, whatever its origin. */
static const struct match_way ways_of_rules[] = {
	{find_equal, true},
	{find_named, true},
	{find_like, true},
	{find_equal_configured, false},
};
#define N_WAYS(ways) (sizeof(ways) / sizeof((ways)[0]))

static void match_run(struct match *m, const struct match_way *ways, size_t n_ways)
{
	for (size_t way = 0; way < n_ways; way++) {
		for (size_t i = 0; i < m->config->n_rules; i++) {
			struct ruleset_entry *e;

			if (m->found[i])
				continue;
			e = ways[way].find(m, m->config->rules[i].rule);
			if (!e || m->taken[e->id] ||
			    (e->origin == RULE_ORIGIN_RUNTIME && !ways[way].of_runtime))
				continue;
			m->found[i] = e;
			m->taken[e->id] = true;
		}
	}
}

/* ---- the rules of a file ---- */

/* A rule of a file in place of the entry it was found to be. */
static int apply_found(struct ruleset_entry *e, const struct config_rule *c, struct changes *ret)
{
	size_t n = ret->n;
	int r = plan_set(e, c->rule, ret);

	if (r < 0 || ret->n == n)
		return r;
	ret->items[n].from = c;
	if (e->origin != RULE_ORIGIN_RUNTIME)
		return 0;
	free(ret->items[n].after->source);
	ret->items[n].after->source = strdup(c->source);
	return ret->items[n].after->source ? 0 : -ENOMEM;
}

int plan_apply(const struct plan_from *p, const struct config *config, bool replace,
	       struct changes *ret, struct diag *diag)
{
	_cleanup_(match_clear) struct match m = {0};
	int r = match_start(&m, p->rules, config);

	if (r < 0)
		return r;
	match_run(&m, ways_of_rules, N_WAYS(ways_of_rules));
	for (size_t i = 0; r == 0 && replace && i < p->rules->n_entries; i++)
		if (!m.taken[p->rules->entries[i]->id])
			r = plan_remove(p->rules->entries[i], ret);
	for (size_t i = 0; r == 0 && i < config->n_rules; i++) {
		const struct config_rule *c = &config->rules[i];

		r = m.found[i]
			    ? apply_found(m.found[i], c, ret)
			    : add_fresh(p, c->rule, RULE_ORIGIN_RUNTIME, c->source, c, ret, diag);
	}
	return r;
}

/* ---- a configuration ---- */

static enum rule_origin origin_of(const struct config_rule *c)
{
	return c->file ? RULE_ORIGIN_CONFIG : RULE_ORIGIN_COMMAND_LINE;
}

static bool is_as_before(const struct ruleset_entry *e, const struct config_rule *c)
{
	return e->origin == origin_of(c) && strcmp(e->source, c->source) == 0 &&
	       rule_equal(ruleset_entry_configured(e), c->rule);
}

/* What is to be of an entry, whose rule the configuration now has as `c`. */
static int merged_entry(const struct ruleset_entry *e, const struct config_rule *c,
			struct ruleset_entry **ret, const char **ret_note)
{
	_cleanup_(ruleset_entry_freep) struct ruleset_entry *after = NULL;
	bool by_runtime = e->origin == RULE_ORIGIN_RUNTIME;
	bool file_changed = !by_runtime && !rule_equal(ruleset_entry_configured(e), c->rule);
	bool runtime_changed = !by_runtime && (e->removed || e->configured);
	bool agree = !e->removed && rule_equal(e->rule, c->rule);
	bool runtime_stays = runtime_changed && !file_changed && !agree;
	const struct rule *rule = runtime_stays ? e->rule : c->rule;
	int r = ruleset_entry_new(e->id, rule, origin_of(c), c->source, &after);

	if (r == 0 && runtime_stays)
		r = entry_remember(after, c->rule);
	if (r < 0)
		return r;
	after->removed = runtime_stays && e->removed;
	*ret_note = runtime_changed && file_changed && !agree ? note_both : NULL;
	*ret = take_ptr(after);
	return 0;
}

static int merge_found(struct ruleset_entry *e, const struct config_rule *c, bool starting,
		       struct changes *ret)
{
	bool deviates = e->configured && !e->removed;
	struct ruleset_entry *after;
	struct change *change;
	const char *note;
	int r;

	if (is_as_before(e, c) && !(starting && deviates))
		return 0;
	r = merged_entry(e, c, &after, &note);
	if (r == 0)
		r = changes_add(ret, e, after, &change);
	if (r < 0)
		return r;
	change->note = note;
	change->from = c;
	change->yields = starting && after->configured;
	return 0;
}

/* Entries that the configuration does not have, or not any more. */
static int merge_missing(const struct match *m, bool starting, struct changes *ret)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->rules->n_removed; i++)
		if (!m->taken[m->rules->removed[i]->id])
			r = changes_add(ret, m->rules->removed[i], NULL, NULL);
	for (size_t i = 0; r == 0 && i < m->rules->n_entries; i++) {
		struct ruleset_entry *e = m->rules->entries[i], *after = NULL;
		struct change *c;

		if (m->taken[e->id] || (e->origin == RULE_ORIGIN_RUNTIME && !starting))
			continue;
		if (e->origin == RULE_ORIGIN_RUNTIME)
			r = entry_with_rule(e, e->rule, &after);
		if (r == 0)
			r = changes_add(ret, e, after, &c);
		if (r < 0)
			return r;
		c->yields = after != NULL;
		c->note = e->configured ? note_both : NULL;
	}
	return r;
}

/* What yields comes last, when all that it could be in conflict with is there. */
static int yielding_last(struct changes *c)
{
	struct change *ordered = reallocarray(NULL, c->n + 1, sizeof(*ordered));
	size_t n = 0;

	if (!ordered)
		return -ENOMEM;
	for (int yields = 0; yields < 2; yields++)
		for (size_t i = 0; i < c->n; i++)
			if (c->items[i].yields == yields)
				ordered[n++] = c->items[i];
	free(c->items);
	c->items = ordered;
	c->allocated = c->n + 1;
	return 0;
}

int plan_configuration(const struct plan_from *p, const struct config *config, bool starting,
		       struct changes *ret, struct diag *diag)
{
	_cleanup_(match_clear) struct match m = {0};
	int r = match_start(&m, p->rules, config);

	if (r < 0)
		return r;
	match_run(&m, ways_of_configuration, N_WAYS(ways_of_configuration));
	for (size_t i = 0; r == 0 && i < config->n_rules; i++) {
		const struct config_rule *c = &config->rules[i];

		r = m.found[i] ? merge_found(m.found[i], c, starting, ret)
			       : add_fresh(p, c->rule, origin_of(c), c->source, c, ret, diag);
	}
	if (r == 0)
		r = merge_missing(&m, starting, ret);
	return r == 0 && starting ? yielding_last(ret) : r;
}
