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

static json_t *entry_pack(const struct ruleset_entry *entry, const struct flow_sums *sums)
{
	struct rule_json_entry e = {
		.id = entry->id,
		.origin = rule_origin_name(entry->origin),
		.source = entry->source,
		.packets = sums->packets,
		.bytes = sums->bytes,
		.flows = sums->flows,
		.active = sums->active,
	};
	json_t *json;

	return rule_json_pack(entry->rule, &e, &json) < 0 ? NULL : json;
}

/* Sums first: they may be computed anew, which is a call into the manager. */
static int rules_view(struct manager *m, const struct ruleset **ret, const struct flow_sums **sums)
{
	*sums = manager_rule_sums(m);
	*ret = manager_ruleset(m);
	return *sums || (*ret)->n_entries == 0 ? 0 : -EIO;
}

static int refuse_sums(struct call *call, int error)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	diag_add(&diag, DIAG_FAILED, NULL, NULL, "the counters of the datapath cannot be read");
	return methods_refuse(call, error, &diag);
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
		return refuse_sums(call, r);
	array = json_array();
	for (size_t i = 0; i < rules->n_entries; i++)
		if (json_array_append_new(array, entry_pack(rules->entries[i], &sums[i])) < 0) {
			json_decref(array);
			return -ENOMEM;
		}
	return call_reply(call, json_pack("{s:i, s:o}", "schema", METHODS_SCHEMA, "rules", array));
}

/* What the methods below take. */
struct rule_parameters {
	const char *rule;
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

static const struct parameter reload_parameters[] = {
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
		return refuse_sums(call, r);
	entry = ruleset_find(rules, p.rule);
	if (!entry)
		return methods_no_such_rule(call, p.rule);
	while (rules->entries[i] != entry)
		i++;
	return call_reply(call, json_pack("{s:o}", "rule", entry_pack(entry, &sums[i])));
}

int methods_add(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(diag_clear) struct diag diag = {0};
	_cleanup_(freep) char *text = NULL;
	struct rule_parameters p;
	uint32_t id;
	int r;

	if (!methods_read_parameters(call, parameters, rule_parameters, &p, &r))
		return r;
	r = manager_add_rule(userdata, p.rule, p.dry_run, &diag, &id, &text);
	if (r < 0)
		return methods_refuse(call, r, &diag);
	return call_reply(call, json_pack("{s:I, s:o, s:b}", "id", (json_int_t)id, "rule",
					  varlink_text(text), "runtime", 1));
}

/* The answer of Remove, Enable and Disable. */
static int reply_change(struct call *call, int result, const char *selector,
			const struct diag *diag, uint32_t id, const char *text)
{
	if (result == -ENOENT)
		return methods_no_such_rule(call, selector);
	if (result < 0)
		return methods_refuse(call, result, diag);
	return call_reply(
		call, json_pack("{s:I, s:o}", "id", (json_int_t)id, "rule", varlink_text(text)));
}

int methods_remove(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(diag_clear) struct diag diag = {0};
	_cleanup_(freep) char *text = NULL;
	struct rule_parameters p;
	uint32_t id = RULE_ID_NONE;
	int r;

	if (!methods_read_parameters(call, parameters, rule_parameters, &p, &r))
		return r;
	r = manager_remove_rule(userdata, p.rule, p.dry_run, &diag, &id, &text);
	return reply_change(call, r, p.rule, &diag, id, text);
}

static int set_enabled(struct call *call, json_t *parameters, struct manager *m, bool enable)
{
	_cleanup_(diag_clear) struct diag diag = {0};
	_cleanup_(freep) char *text = NULL;
	struct rule_parameters p;
	uint32_t id = RULE_ID_NONE;
	int r;

	if (!methods_read_parameters(call, parameters, rule_parameters, &p, &r))
		return r;
	r = manager_enable_rule(m, p.rule, enable, p.dry_run, &diag, &id, &text);
	return reply_change(call, r, p.rule, &diag, id, text);
}

int methods_enable(struct call *call, json_t *parameters, void *userdata)
{
	return set_enabled(call, parameters, userdata, true);
}

int methods_disable(struct call *call, json_t *parameters, void *userdata)
{
	return set_enabled(call, parameters, userdata, false);
}

int methods_reload(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(diag_clear) struct diag diag = {0};
	struct reload_result result;
	struct rule_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, reload_parameters, &p, &r))
		return r;
	r = manager_reload(userdata, p.dry_run, &diag, &result);
	if (r < 0)
		return methods_refuse(call, r, &diag);
	return call_reply(call,
			  json_pack("{s:I, s:I, s:I}", "added", (json_int_t)result.added, "removed",
				    (json_int_t)result.removed, "kept", (json_int_t)result.kept));
}
