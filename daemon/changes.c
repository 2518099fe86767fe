/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/changes.h"

#include <errno.h>
#include <stdlib.h>

void changes_clear(struct changes *c)
{
	for (size_t i = 0; i < c->n; i++)
		ruleset_entry_free(c->made ? c->items[i].before : c->items[i].after);
	free(c->items);
	*c = (struct changes){0};
}

int changes_add(struct changes *c, struct ruleset_entry *before, struct ruleset_entry *after,
		struct change **ret)
{
	if (c->n == c->allocated) {
		size_t n = c->n ? 2 * c->n : 4;
		struct change *more = reallocarray(c->items, n, sizeof(*more));

		if (!more) {
			ruleset_entry_free(after);
			return -ENOMEM;
		}
		c->items = more;
		c->allocated = n;
	}
	c->items[c->n] = (struct change){.before = before, .after = after};
	if (ret)
		*ret = &c->items[c->n];
	c->n++;
	return 0;
}

static const struct rule *in_force(const struct ruleset_entry *e)
{
	return e && !e->removed ? e->rule : NULL;
}

enum change_kind change_kind(const struct change *c)
{
	const struct rule *before = in_force(c->before), *after = in_force(c->after);

	if (!before)
		return after ? CHANGE_ADD : CHANGE_NONE;
	if (!after)
		return CHANGE_REMOVE;
	return rule_equal(before, after) ? CHANGE_NONE : CHANGE_RULE;
}

struct change_counts changes_count(const struct changes *c)
{
	size_t by_kind[CHANGE_RULE + 1] = {0};

	for (size_t i = 0; i < c->n; i++)
		by_kind[change_kind(&c->items[i])]++;
	return (struct change_counts){
		.added = by_kind[CHANGE_ADD],
		.removed = by_kind[CHANGE_REMOVE],
		.changed = by_kind[CHANGE_RULE],
	};
}
