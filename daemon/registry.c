// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/registry.h"

#include <errno.h>
#include <string.h>

#include "daemon/datapath.h"
#include "shared/log.h"

/*
 * An entry as text: "ORIGIN[ removed]", its rule, what the configuration says instead or nothing,
 * each a line; the rest is the source. Ten thousand are written for one change: JSON would take
 * longer than all the rest.
 */
int registry_entry_format(const struct ruleset_entry *e, char **ret)
{
	_cleanup_(freep) char *rule = NULL, *configured = NULL;
	size_t size;
	char *text, *end;

	if (rule_format(e->rule, &rule) < 0 ||
	    (e->configured && rule_format(e->configured, &configured) < 0))
		return -ENOMEM;
	size = strlen(rule) + (configured ? strlen(configured) : 0) + strlen(e->source) + 64;
	text = end = malloc(size);
	if (!text)
		return -ENOMEM;
	end = stpcpy(end, rule_origin_name(e->origin));
	end = stpcpy(end, e->removed ? " removed\n" : "\n");
	end = stpcpy(stpcpy(end, rule), "\n");
	end = stpcpy(stpcpy(end, configured ? configured : ""), "\n");
	stpcpy(end, e->source);
	*ret = text;
	return 0;
}

static bool origin_parse(const char *line, enum rule_origin *ret_origin, bool *ret_removed)
{
	for (enum rule_origin o = RULE_ORIGIN_CONFIG; o <= RULE_ORIGIN_RUNTIME; o++) {
		size_t length = strlen(rule_origin_name(o));

		if (strncmp(line, rule_origin_name(o), length) != 0)
			continue;
		*ret_origin = o;
		*ret_removed = strcmp(line + length, " removed") == 0;
		return *ret_removed || line[length] == '\0';
	}
	return false;
}

static int parse_rule(const char *text, struct rule **ret)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	return rule_parse(text, NULL, &diag, ret);
}

int registry_entry_parse(uint32_t id, const char *text, struct ruleset_entry **ret)
{
	_cleanup_(ruleset_entry_freep) struct ruleset_entry *e = NULL;
	_cleanup_(rule_freep) struct rule *rule = NULL;
	_cleanup_(freep) char *copy = strdup(text);
	char *source = copy, *head, *rule_text, *configured;
	enum rule_origin origin;
	bool removed;
	int r;

	if (!copy)
		return -ENOMEM;
	head = strsep(&source, "\n");
	rule_text = strsep(&source, "\n");
	configured = strsep(&source, "\n");
	if (!source || !origin_parse(head, &origin, &removed))
		return -EBADMSG;
	r = parse_rule(rule_text, &rule);
	if (r == 0)
		r = ruleset_entry_new(id, rule, origin, source, &e);
	if (r == 0 && *configured)
		r = parse_rule(configured, &e->configured);
	if (r < 0)
		return r;
	e->removed = removed;
	*ret = take_ptr(e);
	return 0;
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
