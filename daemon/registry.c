// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/registry.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "daemon/datapath.h"
#include "shared/log.h"

static int entry_format(const struct ruleset_entry *e, char **ret)
{
	_cleanup_(freep) char *rule = NULL;
	json_t *object;
	char *text = NULL;

	if (rule_format(e->rule, &rule) < 0)
		return -ENOMEM;
	object = json_pack("{s:s, s:s, s:s}", "rule", rule, "origin", rule_origin_name(e->origin),
			   "source", e->source);
	if (object)
		text = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	if (!text)
		return -ENOMEM;
	*ret = text;
	return 0;
}

static enum rule_origin origin_by_name(const char *name)
{
	for (enum rule_origin o = RULE_ORIGIN_CONFIG; o < RULE_ORIGIN_RUNTIME; o++)
		if (strcmp(name, rule_origin_name(o)) == 0)
			return o;
	return RULE_ORIGIN_RUNTIME;
}

static int entry_load(struct ruleset *set, uint32_t id, const char *text)
{
	_cleanup_(rule_freep) struct rule *rule = NULL;
	const char *rule_text, *origin, *source;
	json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	struct diag diag = {0};
	int r = -EBADMSG;

	if (json_unpack(object, "{s:s, s:s, s:s}", "rule", &rule_text, "origin", &origin, "source",
			&source) == 0)
		r = rule_parse(rule_text, NULL, &diag, &rule);
	if (r == 0)
		r = ruleset_add(set, id, rule, origin_by_name(origin), source, &diag, NULL);
	if (r == 0)
		rule = NULL;
	diag_clear(&diag);
	json_decref(object);
	return r;
}

int registry_load(struct datapath *d, struct ruleset **ret)
{
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	uint32_t id = 0;
	int r = ruleset_new(&set);

	if (r < 0)
		return r;
	while ((id = datapath_registry_next(d, id))) {
		_cleanup_(freep) char *text = NULL;

		r = datapath_registry_read(d, id, &text);
		if (r == 0)
			r = entry_load(set, id, text);
		if (r == -ENOMEM)
			return r;
		if (r < 0) {
			log_warning("the pinned rule %u is unreadable (%s) and goes: %s", id,
				    strerror(-r), text ? text : "");
			datapath_registry_write(d, id, NULL);
		}
	}
	*ret = take_ptr(set);
	return 0;
}

static bool same(const struct ruleset_entry *a, const struct ruleset_entry *b)
{
	return a && b && a->origin == b->origin && strcmp(a->source, b->source) == 0 &&
	       rule_equal(a->rule, b->rule);
}

int registry_update(struct datapath *d, const struct ruleset *before, const struct ruleset *after)
{
	for (size_t i = 0; i < after->n_entries; i++) {
		const struct ruleset_entry *e = after->entries[i];
		_cleanup_(freep) char *text = NULL;
		int r;

		if (same(ruleset_find_id(before, e->id), e))
			continue;
		r = entry_format(e, &text);
		if (r == 0)
			r = datapath_registry_write(d, e->id, text);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < before->n_entries; i++)
		if (!ruleset_find_id(after, before->entries[i]->id))
			datapath_registry_write(d, before->entries[i]->id, NULL);
	return 0;
}
