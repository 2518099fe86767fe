// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changes of rules: each is planned on a copy, pinned, applied in one step, and only then takes the
 * place of what was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/apply.h"
#include "daemon/datapath.h"
#include "daemon/links.h"
#include "daemon/manager-private.h"
#include "daemon/options.h"
#include "daemon/plan.h"
#include "daemon/registry.h"
#include "shared/config.h"
#include "shared/log.h"

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
	memset(&all[id], 0, sizeof(all[id]));
	memset(&m->by_id[id], 0, sizeof(m->by_id[id]));
}

uint32_t manager_new_id(void *userdata, const struct ruleset *a, const struct ruleset *b)
{
	struct manager *m = userdata;
	const struct rule_counters *counters = datapath_rule_counters(m->datapath);

	for (uint32_t tries = 1; tries < RULE_COUNT; tries++) {
		uint32_t id = m->last_id + 1 < RULE_COUNT ? m->last_id + 1 : 1;

		m->last_id = id;
		if (ruleset_find_id(a, id) || ruleset_find_id(b, id) ||
		    counters[id].created != counters[id].destroyed)
			continue;
		return id;
	}
	return RULE_ID_NONE;
}

static uint32_t resolve(void *userdata, const char *name)
{
	struct manager *m = userdata;

	return m->links ? links_index(m->links, name) : 0;
}

static int apply_now(struct manager *m, const struct ruleset *rules, const struct config *config,
		     struct diag *diag)
{
	struct apply_input input = {
		.rules = rules,
		.interfaces = (const char(*)[IF_NAMESIZE])config->interfaces,
		.n_interfaces = config->n_interfaces,
		.resolve = resolve,
		.userdata = m,
	};

	return apply_rules(m->apply, &input, diag);
}

/* Tells of what the rules in force need of the host and do not find there, each once. */
static void report_needs(struct manager *m, const struct config *config)
{
	struct needs now;

	needs_find(m->rules, config, m->links, &now);
	for (size_t i = 0; i < now.n; i++)
		if (!needs_has(&m->needs, &now.items[i]))
			need_log(&now.items[i]);
	m->needs = now;
}

int manager_commit(struct manager *m, struct ruleset *rules, const struct config *config,
		   struct diag *diag)
{
	int r = registry_update(m->datapath, m->rules, rules);

	if (r < 0) {
		diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot pin the rules: %s", strerror(-r));
	} else {
		for (size_t i = 0; i < rules->n_entries; i++)
			if (!ruleset_find_id(m->rules, rules->entries[i]->id))
				clear_counters(m, rules->entries[i]->id);
		r = apply_now(m, rules, config, diag);
	}
	if (r < 0) {
		registry_update(m->datapath, rules, m->rules);
		ruleset_free(rules);
		return r;
	}
	ruleset_free(m->rules);
	m->rules = rules;
	report_needs(m, config);
	return 0;
}

int manager_reapply(struct manager *m, struct diag *diag)
{
	report_needs(m, m->config);
	return apply_now(m, m->rules, m->config, diag);
}

static int ret_rule(const struct ruleset_entry *e, uint32_t *ret_id, char **ret_text)
{
	if (rule_format(e->rule, ret_text) < 0)
		return -ENOMEM;
	*ret_id = e->id;
	return 0;
}

int manager_add_rule(struct manager *m, const char *text, bool dry_run, struct diag *diag,
		     uint32_t *ret_id, char **ret_text)
{
	_cleanup_(ruleset_freep) struct ruleset *rules = NULL;
	_cleanup_(rule_freep) struct rule *rule = NULL;
	struct ruleset_entry *e;
	const struct diag_place place = {.column = 1, .text = text};
	uint32_t last_id = m->last_id;
	int r = rule_parse(text, &place, diag, &rule);

	if (r == 0 && !rule_check_supported(rule, &place, diag))
		r = -EINVAL;
	if (r == 0)
		r = ruleset_copy(m->rules, &rules);
	if (r == 0)
		r = ruleset_add(rules, manager_new_id(m, m->rules, rules), rule,
				RULE_ORIGIN_RUNTIME, "runtime", diag, &e);
	if (r == 0)
		rule = NULL; /* the rule set's now */
	if (r == 0)
		r = ret_rule(e, ret_id, ret_text);
	if (r == 0 && !dry_run)
		r = manager_commit(m, take_ptr(rules), m->config, diag);
	if (r < 0 || dry_run)
		m->last_id = last_id; /* the id was not given out */
	return r;
}

int manager_remove_rule(struct manager *m, const char *selector, bool dry_run, struct diag *diag,
			uint32_t *ret_id, char **ret_text)
{
	_cleanup_(ruleset_freep) struct ruleset *rules = NULL;
	struct ruleset_entry *e = ruleset_find(m->rules, selector);
	int r;

	if (!e)
		return -ENOENT;
	r = ret_rule(e, ret_id, ret_text);
	if (r < 0 || dry_run)
		return r;
	r = ruleset_copy(m->rules, &rules);
	if (r < 0)
		return r;
	ruleset_remove(rules, ruleset_find_id(rules, *ret_id));
	return manager_commit(m, take_ptr(rules), m->config, diag);
}

int manager_enable_rule(struct manager *m, const char *selector, bool enable, bool dry_run,
			struct diag *diag, uint32_t *ret_id, char **ret_text)
{
	_cleanup_(ruleset_freep) struct ruleset *rules = NULL;
	struct ruleset_entry *e = ruleset_find(m->rules, selector);
	int r;

	if (!e)
		return -ENOENT;
	r = ruleset_copy(m->rules, &rules);
	if (r < 0)
		return r;
	e = ruleset_find_id(rules, e->id);
	e->rule->disabled = !enable;
	r = ret_rule(e, ret_id, ret_text);
	if (r < 0 || dry_run)
		return r;
	return manager_commit(m, take_ptr(rules), m->config, diag);
}

void manager_apply_settings(struct manager *m, const struct config *config)
{
	struct datapath_config *c = datapath_config(m->datapath);
	uint32_t capacity = datapath_capacity(m->datapath);

	for (int state = 0; state < FLOW_STATE_COUNT; state++)
		c->timeouts[state] =
			datapath_ticks_from_seconds(m->datapath, config->timeouts[state]);
	c->flows_max = config->flows_max < capacity ? config->flows_max : capacity;
	if (config->flows_max > capacity)
		log_warning("flows-max %u needs a larger table, which is made at the next stop and "
			    "start; "
			    "until then it is %u",
			    config->flows_max, capacity);
}

static int reload(struct manager *m, bool dry_run, struct diag *diag, struct reload_result *ret)
{
	_cleanup_(config_freep) struct config *config = NULL;
	struct ruleset *rules = NULL;
	struct plan_counts counts;
	uint32_t last_id = m->last_id;
	int r = options_read_config(m->options, &config, diag);

	if (r == 0)
		r = plan_configuration(m->rules, config, false, manager_new_id, m, diag, &rules,
				       &counts);
	if (r < 0)
		return r;
	*ret = (struct reload_result){counts.added, counts.removed, counts.kept};
	if (dry_run) {
		m->last_id = last_id;
		ruleset_free(rules);
		return 0;
	}
	r = manager_commit(m, rules, config, diag);
	if (r < 0)
		return r;
	manager_apply_settings(m, config);
	config_free(m->config);
	m->config = take_ptr(config);
	return 0;
}

int manager_reload(struct manager *m, bool dry_run, struct diag *diag, struct reload_result *ret)
{
	int r = reload(m, dry_run, diag, ret);

	if (dry_run)
		return r;
	free(m->reload_error);
	m->reload_error = NULL;
	if (r < 0)
		m->reload_error = strdup(diag->n_items ? diag->items[0].message : strerror(-r));
	return r;
}
