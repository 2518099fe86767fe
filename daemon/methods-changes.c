/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists of changes as JSON: what `-n`, `diff` and the answers of changes show. */
#include <string.h>

#include "daemon/changes.h"
#include "daemon/methods-common.h"
#include "shared/cleanup.h"
#include "shared/config.h"
#include "shared/varlink.h"

static const char *const kind_names[] = {
	[CHANGE_ADD] = "add",
	[CHANGE_REMOVE] = "remove",
	[CHANGE_RULE] = "change",
};

static json_t *rule_pack(const struct ruleset_entry *e)
{
	_cleanup_(freep) char *text = NULL;

	if (!e || e->removed)
		return json_null();
	return rule_format(e->rule, &text) < 0 ? NULL : varlink_text(text);
}

/* Where the rule that comes stands, or the one that goes. */
static const char *source_of(const struct change *c)
{
	if (c->from)
		return c->from->source;
	return c->after && !c->after->removed ? c->after->source : c->before->source;
}

static json_t *change_pack(const struct change *c)
{
	const struct ruleset_entry *e = c->after ? c->after : c->before;

	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "change", kind_names[change_kind(c)],
			 "id", c->fresh ? json_null() : json_integer(e->id), "before",
			 rule_pack(c->before), "after", rule_pack(c->after), "source",
			 varlink_text(source_of(c)), "note", varlink_text(c->note));
}

json_t *methods_changes_pack(const struct changes *c)
{
	json_t *array = json_array();

	for (size_t i = 0; i < c->n; i++) {
		if (change_kind(&c->items[i]) == CHANGE_NONE)
			continue;
		if (json_array_append_new(array, change_pack(&c->items[i])) == 0)
			continue;
		json_decref(array);
		return NULL;
	}
	return array;
}
