// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/registry.h"

#include <errno.h>
#include <string.h>

#include "daemon/datapath.h"
#include "shared/log.h"

/* Sets a member of text, unless the text is NULL. 0 or -ENOMEM. */
static int set_rule(json_t *object, const char *key, const struct rule *rule)
{
	_cleanup_(freep) char *text = NULL;

	if (!rule)
		return 0;
	if (rule_format(rule, &text) < 0)
		return -ENOMEM;
	return json_object_set_new(object, key, json_string(text)) < 0 ? -ENOMEM : 0;
}

int registry_entry_format(const struct ruleset_entry *e, char **ret)
{
	json_t *object = json_object();
	char *text = NULL;
	int r = set_rule(object, "rule", e->rule);

	if (r == 0)
		r = set_rule(object, "configured", e->configured);
	if (r == 0 &&
	    (json_object_set_new(object, "origin", json_string(rule_origin_name(e->origin))) < 0 ||
	     json_object_set_new(object, "source", json_string(e->source)) < 0 ||
	     (e->removed && json_object_set_new(object, "removed", json_true()) < 0)))
		r = -ENOMEM;
	if (r == 0)
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

static int parse_rule(const char *text, struct rule **ret)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	return rule_parse(text, NULL, &diag, ret);
}

static int entry_unpack(uint32_t id, json_t *object, struct ruleset_entry **ret)
{
	_cleanup_(ruleset_entry_freep) struct ruleset_entry *e = NULL;
	_cleanup_(rule_freep) struct rule *rule = NULL;
	const char *text, *origin, *source, *configured = NULL;
	int removed = 0, r;

	if (json_unpack(object, "{s:s, s:s, s:s, s?s, s?b}", "rule", &text, "origin", &origin,
			"source", &source, "configured", &configured, "removed", &removed) < 0)
		return -EBADMSG;
	r = parse_rule(text, &rule);
	if (r == 0)
		r = ruleset_entry_new(id, rule, origin_by_name(origin), source, &e);
	if (r == 0 && configured)
		r = parse_rule(configured, &e->configured);
	if (r < 0)
		return r;
	e->removed = removed;
	*ret = take_ptr(e);
	return 0;
}

int registry_entry_parse(uint32_t id, const char *text, struct ruleset_entry **ret)
{
	json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int r = object ? entry_unpack(id, object, ret) : -EBADMSG;

	json_decref(object);
	return r;
}

static int entry_load(struct ruleset *set, uint32_t id, const char *text)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct ruleset_entry *e;
	int r = registry_entry_parse(id, text, &e);

	if (r == 0)
		r = changes_add(&changes, NULL, e, NULL);
	return r == 0 ? ruleset_change(set, &changes, &diag) : r;
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

static bool rules_same(const struct rule *a, const struct rule *b)
{
	return a && b ? rule_equal(a, b) : a == b;
}

static bool same(const struct ruleset_entry *a, const struct ruleset_entry *b)
{
	return a && b && a->origin == b->origin && strcmp(a->source, b->source) == 0 &&
	       a->removed == b->removed && rules_same(a->rule, b->rule) &&
	       rules_same(a->configured, b->configured);
}

int registry_change(struct datapath *d, const struct changes *c, bool back)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct ruleset_entry *e = back ? c->items[i].before : c->items[i].after;
		_cleanup_(freep) char *text = NULL;
		int r;

		if (!e || same(c->items[i].before, c->items[i].after))
			continue;
		r = registry_entry_format(e, &text);
		if (r == 0)
			r = datapath_registry_write(d, e->id, text);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < c->n; i++) {
		const struct change *item = &c->items[i];
		const struct ruleset_entry *gone = back ? item->after : item->before;

		if (gone && !(back ? item->before : item->after))
			datapath_registry_write(d, gone->id, NULL);
	}
	return 0;
}

int registry_write_json(struct datapath *d, uint32_t key, const json_t *json)
{
	_cleanup_(freep) char *text = NULL;

	if (!json)
		return datapath_registry_write(d, key, NULL);
	text = json_dumps(json, JSON_COMPACT);
	return text ? datapath_registry_write(d, key, text) : -ENOMEM;
}

int registry_read_json(struct datapath *d, uint32_t key, json_t **ret)
{
	_cleanup_(freep) char *text = NULL;
	int r = datapath_registry_read(d, key, &text);

	if (r == -ENOMEM)
		return r;
	*ret = r == 0 ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
	return *ret != NULL;
}
