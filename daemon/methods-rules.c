/* SPDX-License-Identifier: GPL-2.0-or-later */
/* List, Show and the changes of rules: parameters in, manager.h called, JSON out. */
#include <errno.h>
#include <string.h>

#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-handlers.h"
#include "daemon/ruleset.h"
#include "shared/cleanup.h"
#include "shared/rule-json.h"
#include "shared/varlink.h"

static struct rule_json_counters counters_of(const struct flow_sums *sums)
{
	return (struct rule_json_counters){
		.packets = sums->packets,
		.bytes = sums->bytes,
		.flows = sums->flows,
		.active = sums->active,
	};
}

/* The entry at place `i` of the rules, with sums that are up to date. */
static json_t *entry_pack(struct manager *m, size_t i, const struct flow_sums *sums)
{
	const struct ruleset_entry *entry = manager_ruleset(m)->entries[i];
	struct rule_json_counters targets[RULE_TARGETS_MAX];
	struct rule_json_entry e = {
		.id = entry->id,
		.origin = rule_origin_name(entry->origin),
		.source = entry->source,
		.configured = entry->configured,
		.counters = counters_of(&sums[i]),
		.refused = sums[i].refused,
		.targets = targets,
	};
	json_t *json;

	for (size_t t = 0; t < entry->rule->n_targets; t++)
		targets[t] = counters_of(manager_target_sums(m, i, t));
	return rule_json_pack(entry->rule, &e, &json) < 0 ? NULL : json;
}

/* Sums first: they may be computed anew, which is a call into the manager. */
static int rules_view(struct manager *m, const struct ruleset **ret, const struct flow_sums **sums)
{
	*sums = manager_rule_sums(m);
	*ret = manager_ruleset(m);
	return *sums || (*ret)->n_entries == 0 ? 0 : -EIO;
}

int methods_list(struct call *call, json_t *parameters, void *userdata)
{
	const struct flow_sums *sums;
	const struct ruleset *rules;
	json_t *array;
	int r;

	if (!methods_read_parameters(call, parameters, NULL, NULL, &r))
		return r;
	r = rules_view(userdata, &rules, &sums);
	if (r < 0)
		return methods_refuse_counters(call, r);
	array = json_array();
	for (size_t i = 0; i < rules->n_entries; i++)
		if (json_array_append_new(array, entry_pack(userdata, i, sums)) < 0) {
			json_decref(array);
			return -ENOMEM;
		}
	return call_reply(call, json_pack("{s:i, s:o}", "schema", METHODS_SCHEMA, "rules", array));
}

/* What the methods below take. */
struct rule_parameters {
	const char *rule;
	const char *by; /* of Replace only: the new rule */
	bool dry_run;
};

static const struct parameter rule_parameters[] = {
	{"rule", PARAMETER_STRING, true, offsetof(struct rule_parameters, rule)},
	{"dryRun", PARAMETER_BOOL, false, offsetof(struct rule_parameters, dry_run)},
	{NULL, PARAMETER_STRING, false, 0},
};

static const struct parameter show_parameters[] = {
	{"rule", PARAMETER_STRING, true, offsetof(struct rule_parameters, rule)},
	{NULL, PARAMETER_STRING, false, 0},
};

static const struct parameter replace_parameters[] = {
	{"rule", PARAMETER_STRING, true, offsetof(struct rule_parameters, rule)},
	{"by", PARAMETER_STRING, true, offsetof(struct rule_parameters, by)},
	{"dryRun", PARAMETER_BOOL, false, offsetof(struct rule_parameters, dry_run)},
	{NULL, PARAMETER_STRING, false, 0},
};

int methods_show(struct call *call, json_t *parameters, void *userdata)
{
	const struct ruleset_entry *entry;
	const struct flow_sums *sums;
	const struct ruleset *rules;
	struct rule_parameters p;
	size_t i = 0;
	int r;

	if (!methods_read_parameters(call, parameters, show_parameters, &p, &r))
		return r;
	r = rules_view(userdata, &rules, &sums);
	if (r < 0)
		return methods_refuse_counters(call, r);
	entry = ruleset_find(rules, p.rule);
	if (!entry)
		return methods_no_such_rule(call, p.rule);
	while (rules->entries[i] != entry)
		i++;
	return call_reply(call, json_pack("{s:o}", "rule", entry_pack(userdata, i, sums)));
}

/* The answer of every change of one rule. */
static int reply_change(struct call *call, int result, const char *selector,
			const struct diag *diag, const struct changes *c)
{
	_cleanup_(freep) char *text = NULL;

	if (result == -ENOENT)
		return methods_no_such_rule(call, selector);
	if (result < 0)
		return methods_refuse(call, result, diag);
	if (rule_format(c->subject->rule, &text) < 0)
		return -ENOMEM;
	return call_reply(call, json_pack("{s:I, s:o, s:b, s:o}", "id", (json_int_t)c->subject->id,
					  "rule", varlink_text(text), "runtime",
					  c->subject->origin == RULE_ORIGIN_RUNTIME, "changes",
					  methods_changes_pack(c)));
}

typedef int (*change_fn)(struct manager *m, const struct rule_parameters *p, struct diag *diag,
			 struct changes *changes);

static int change_rule(struct call *call, json_t *parameters, struct manager *m,
		       const struct parameter *table, change_fn change)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct rule_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, table, &p, &r))
		return r;
	r = change(m, &p, &diag, &changes);
	return reply_change(call, r, p.rule, &diag, &changes);
}

static int add(struct manager *m, const struct rule_parameters *p, struct diag *diag,
	       struct changes *changes)
{
	return manager_add_rule(m, p->rule, p->dry_run, diag, changes);
}

static int remove_rule(struct manager *m, const struct rule_parameters *p, struct diag *diag,
		       struct changes *changes)
{
	return manager_remove_rule(m, p->rule, p->dry_run, diag, changes);
}

static int replace(struct manager *m, const struct rule_parameters *p, struct diag *diag,
		   struct changes *changes)
{
	return manager_replace_rule(m, p->rule, p->by, p->dry_run, diag, changes);
}

static int enable(struct manager *m, const struct rule_parameters *p, struct diag *diag,
		  struct changes *changes)
{
	return manager_enable_rule(m, p->rule, true, p->dry_run, diag, changes);
}

static int disable(struct manager *m, const struct rule_parameters *p, struct diag *diag,
		   struct changes *changes)
{
	return manager_enable_rule(m, p->rule, false, p->dry_run, diag, changes);
}

int methods_add(struct call *call, json_t *parameters, void *userdata)
{
	return change_rule(call, parameters, userdata, rule_parameters, add);
}

int methods_remove(struct call *call, json_t *parameters, void *userdata)
{
	return change_rule(call, parameters, userdata, rule_parameters, remove_rule);
}

int methods_replace(struct call *call, json_t *parameters, void *userdata)
{
	return change_rule(call, parameters, userdata, replace_parameters, replace);
}

int methods_enable(struct call *call, json_t *parameters, void *userdata)
{
	return change_rule(call, parameters, userdata, rule_parameters, enable);
}

int methods_disable(struct call *call, json_t *parameters, void *userdata)
{
	return change_rule(call, parameters, userdata, rule_parameters, disable);
}
