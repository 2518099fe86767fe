// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changes of rules: each is planned as a list, tried on the rule set, pinned, and applied in one
 * step; whatever fails on the way, all of it is taken back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/apply.h"
#include "daemon/datapath.h"
#include "daemon/links.h"
#include "daemon/manager-private.h"
#include "daemon/plan.h"
#include "daemon/registry.h"
#include "shared/config.h"

/* Below 1 stands what the rules that are gone have counted. */
#define RULE_ID_GONE 0

/* An id starts from zero; what a former rule of this id has counted goes to those that are gone. */
static void clear_counters(struct manager *m, uint32_t id)
{
	struct rule_counters *all = datapath_rule_counters(m->datapath);

	all[RULE_ID_GONE].packets += all[id].packets;
	all[RULE_ID_GONE].bytes += all[id].bytes;
	all[RULE_ID_GONE].created += all[id].created;
	all[RULE_ID_GONE].destroyed += all[id].destroyed;
	if (all[id].created)
		apply_clear_targets(m->apply, id);
	memset(&all[id], 0, sizeof(all[id]));
	memset(&m->by_id[id], 0, sizeof(m->by_id[id]));
	flow_target_sums_forget(&m->by_target, id);
}

/* An id that no rule has, in force or not, and whose last flows are gone. */
static uint32_t new_id(void *userdata)
{
	struct manager *m = userdata;
	const struct rule_counters *counters = datapath_rule_counters(m->datapath);

	while (m->ids_tried++ < RULE_COUNT - 1) {
		uint32_t id = m->last_id + 1 < RULE_COUNT ? m->last_id + 1 : 1;

		m->last_id = id;
		if (!ruleset_find_id(m->rules, id) && !ruleset_find_removed(m->rules, id) &&
		    counters[id].created == counters[id].destroyed)
			return id;
	}
	return RULE_ID_NONE;
}

struct plan_from manager_plan_from(struct manager *m)
{
	m->ids_tried = 0;
	return (struct plan_from){m->rules, new_id, m};
}

static uint32_t resolve(void *userdata, const char *name)
{
	struct manager *m = userdata;

	return m->links ? links_index(m->links, name) : 0;
}

/* `c` NULL: whatever may have changed. */
static int apply_now(struct manager *m, const struct changes *c, const struct config *config,
		     struct diag *diag)
{
	struct apply_input input = {
		.rules = m->rules,
		/* Another configuration may have other interfaces for rules without `on`. */
		.changes = config == m->config ? c : NULL,
		.edits = c,
		.interfaces = (const char(*)[IF_NAMESIZE])config->interfaces,
		.n_interfaces = config->n_interfaces,
		.resolve = resolve,
		.userdata = m,
	};

	return apply_rules(m->apply, &input, diag);
}

/* Tells of what is missing, unless it has been told. */
static void tell_needs(struct manager *m, const struct needs *now)
{
	for (size_t i = 0; i < now->n; i++) {
		if (needs_has(&m->needs, &now->items[i]))
			continue;
		need_log(&now->items[i]);
		if (m->needs.n < NEEDS_MAX)
			m->needs.items[m->needs.n++] = now->items[i];
	}
}

/* What all rules need of the host and do not find there, each told once as long as it is so. */
static void report_needs(struct manager *m, const struct config *config)
{
	struct needs now;

	needs_find(m->rules->entries, m->rules->n_entries, config, m->links, &now);
	tell_needs(m, &now);
	m->needs = now;
	m->needs_stale = false;
}

/* The same of rules that have changed: it does not look at all others. */
static void report_needs_of(struct manager *m, const struct changes *c)
{
	_cleanup_(freep) struct ruleset_entry **entries =
		reallocarray(NULL, c->n + 1, sizeof(struct ruleset_entry *));
	struct needs now;
	size_t n = 0;

	m->needs_stale = true;
	if (!entries)
		return; /* the next look tells */
	for (size_t i = 0; i < c->n; i++)
		if (c->items[i].after && !c->items[i].after->removed)
			entries[n++] = c->items[i].after;
	needs_find(entries, n, m->config, m->links, &now);
	tell_needs(m, &now);
}

void manager_refresh_needs(struct manager *m)
{
	if (m->needs_stale)
		report_needs(m, m->config);
}

static int put_in_force(struct manager *m, const struct changes *c, const struct config *config,
			struct diag *diag)
{
	int r = registry_change(m->datapath, c, false);

	if (r < 0) {
		diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot pin the rules: %s", strerror(-r));
		return r;
	}
	for (size_t i = 0; i < c->n; i++)
		if (c->items[i].fresh && c->items[i].after)
			clear_counters(m, c->items[i].after->id);
	return apply_now(m, c, config, diag);
}

int manager_commit(struct manager *m, struct changes *c, const struct config *config, bool dry_run,
		   struct diag *diag)
{
	int r = ruleset_change(m->rules, c, diag);

	if (r < 0)
		return r;
	if (dry_run) {
		ruleset_revert(m->rules, c);
		return 0;
	}
	r = put_in_force(m, c, config, diag);
	if (r < 0) {
		registry_change(m->datapath, c, true);
		ruleset_revert(m->rules, c);
		return r;
	}
	if (config == m->config && m->started)
		report_needs_of(m, c);
	else
		report_needs(m, config);
	return 0;
}

int manager_reapply(struct manager *m, struct diag *diag)
{
	report_needs(m, m->config);
	return apply_now(m, NULL, m->config, diag);
}

/* ---- one rule ---- */

static int read_rule(const char *text, struct diag *diag, struct rule **ret)
{
	const struct diag_place place = {.column = 1, .text = text};

	return rule_parse(text, &place, diag, ret);
}

int manager_add_rule(struct manager *m, const char *text, bool dry_run, struct diag *diag,
		     struct changes *ret)
{
	_cleanup_(rule_freep) struct rule *rule = NULL;
	const struct plan_from from = manager_plan_from(m);
	uint32_t last_id = m->last_id;
	int r = pending_refuse(m, diag);

	if (r == 0)
		r = read_rule(text, diag, &rule);
	if (r == 0)
		r = plan_add(&from, rule, ret, diag);
	if (r == 0)
		r = manager_commit(m, ret, m->config, dry_run, diag);
	if (r < 0 || dry_run)
		m->last_id = last_id; /* the id was not given out */
	if (r == 0)
		ret->subject = ret->items[0].after;
	return r;
}

int manager_remove_rule(struct manager *m, const char *selector, bool dry_run, struct diag *diag,
			struct changes *ret)
{
	struct ruleset_entry *e = ruleset_find(m->rules, selector);
	int r = pending_refuse(m, diag);

	if (r < 0)
		return r;
	if (!e)
		return -ENOENT;
	ret->subject = e;
	r = plan_remove(e, ret);
	return r == 0 ? manager_commit(m, ret, m->config, dry_run, diag) : r;
}

/* Another rule for an entry. */
static int set_rule(struct manager *m, struct ruleset_entry *e, const struct rule *rule,
		    bool dry_run, struct diag *diag, struct changes *ret)
{
	int r = plan_set(e, rule, ret);

	if (r == 0 && ret->n)
		r = manager_commit(m, ret, m->config, dry_run, diag);
	if (r == 0)
		ret->subject = ret->n ? ret->items[0].after : e;
	return r;
}

/* A name that the new words leave out stays: it is what the rule was found by. */
int manager_replace_rule(struct manager *m, const char *selector, const char *text, bool dry_run,
			 struct diag *diag, struct changes *ret)
{
	_cleanup_(rule_freep) struct rule *rule = NULL;
	struct ruleset_entry *e = ruleset_find(m->rules, selector);
	int r = pending_refuse(m, diag);

	if (r == 0)
		r = read_rule(text, diag, &rule);
	if (r < 0)
		return r;
	if (!e)
		return -ENOENT;
	if (!rule->name[0])
		memcpy(rule->name, e->rule->name, sizeof(rule->name));
	return set_rule(m, e, rule, dry_run, diag, ret);
}

int manager_enable_rule(struct manager *m, const char *selector, bool enable, bool dry_run,
			struct diag *diag, struct changes *ret)
{
	_cleanup_(rule_freep) struct rule *rule = NULL;
	struct ruleset_entry *e = ruleset_find(m->rules, selector);
	int r = pending_refuse(m, diag);

	if (r < 0)
		return r;
	if (!e)
		return -ENOENT;
	r = rule_copy(e->rule, &rule);
	if (r < 0)
		return r;
	rule->disabled = !enable;
	return set_rule(m, e, rule, dry_run, diag, ret);
}
