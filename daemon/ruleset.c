// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/ruleset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/abi.h"
#include "shared/rule-index.h"

/* What ruleset_new() returns; the index is rebuilt when a removal has made it stale. */
struct ruleset_full {
	struct ruleset set; /* first: callers hold a pointer to it */
	size_t allocated;   /* entries */
	struct rule_index *index;
	bool index_stale;
};

static struct ruleset_full *full_of(struct ruleset *s)
{
	return (struct ruleset_full *)s;
}

const char *rule_origin_name(enum rule_origin o)
{
	switch (o) {
	case RULE_ORIGIN_CONFIG:
		return "config";
	case RULE_ORIGIN_COMMAND_LINE:
		return "command-line";
	case RULE_ORIGIN_RUNTIME:
		return "runtime";
	}
	return "unknown";
}

static void entry_free(struct ruleset_entry *e)
{
	if (!e)
		return;
	rule_free(e->rule);
	free(e->source);
	free(e);
}
DEFINE_CLEANUP(struct ruleset_entry, entry_free)

struct ruleset *ruleset_free(struct ruleset *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n_entries; i++)
		entry_free(s->entries[i]);
	free(s->entries);
	rule_index_free(full_of(s)->index);
	free(s);
	return NULL;
}

int ruleset_new(struct ruleset **ret)
{
	struct ruleset_full *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->index_stale = true;
	*ret = &f->set;
	return 0;
}

static int index_rebuild(struct ruleset *s)
{
	struct ruleset_full *f = full_of(s);
	int r;

	if (!f->index_stale)
		return 0;
	f->index = rule_index_free(f->index);
	r = rule_index_new(&f->index);
	for (size_t i = 0; r == 0 && i < s->n_entries; i++)
		r = rule_index_add(f->index, s->entries[i]->rule, s->entries[i]->id);
	if (r == 0)
		f->index_stale = false;
	return r;
}

/* Where an id stands, or would stand: binary search. */
static size_t position_of(const struct ruleset *s, uint32_t id)
{
	size_t low = 0, high = s->n_entries;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (s->entries[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct ruleset_entry *ruleset_find_id(const struct ruleset *s, uint32_t id)
{
	size_t at = position_of(s, id);

	return at < s->n_entries && s->entries[at]->id == id ? s->entries[at] : NULL;
}

static struct ruleset_entry *find_name(const struct ruleset *s, const char *name)
{
	for (size_t i = 0; i < s->n_entries; i++)
		if (s->entries[i]->rule->name[0] && strcmp(s->entries[i]->rule->name, name) == 0)
			return s->entries[i];
	return NULL;
}

/* In any spelling: both are parsed. A name or `disabled` that is left out does not matter. */
static struct ruleset_entry *find_rule(const struct ruleset *s, const char *text)
{
	_cleanup_(rule_freep) struct rule *wanted = NULL;
	struct ruleset_entry *found = NULL;
	struct diag diag = {0};

	if (rule_parse(text, NULL, &diag, &wanted) == 0) {
		for (size_t i = 0; !found && i < s->n_entries; i++) {
			_cleanup_(rule_freep) struct rule *bare = NULL;

			if (rule_copy(s->entries[i]->rule, &bare) < 0)
				break;
			if (!wanted->name[0])
				memset(bare->name, 0, sizeof(bare->name));
			bare->disabled = wanted->disabled;
			if (rule_equal(bare, wanted))
				found = s->entries[i];
		}
	}
	diag_clear(&diag);
	return found;
}

struct ruleset_entry *ruleset_find(const struct ruleset *s, const char *selector)
{
	struct ruleset_entry *e;
	char *end;
	unsigned long id;

	if (*selector >= '0' && *selector <= '9') {
		errno = 0;
		id = strtoul(selector, &end, 10);
		e = !errno && !*end && id < RULE_COUNT ? ruleset_find_id(s, id) : NULL;
		if (e)
			return e;
	}
	e = find_name(s, selector);
	return e ? e : find_rule(s, selector);
}

static uint32_t free_id(const struct ruleset *s)
{
	uint32_t id = 1;

	for (size_t i = 0; i < s->n_entries && s->entries[i]->id == id; i++)
		id++;
	return id < RULE_COUNT ? id : RULE_ID_NONE;
}

/* Adds the item that names the rule in the way and where it stands. */
static int refuse(struct diag *diag, const struct ruleset_entry *other, const char *why)
{
	_cleanup_(freep) char *text = NULL;

	if (rule_format(other->rule, &text) < 0)
		return -ENOMEM;
	diag_add(diag, DIAG_CONFLICT, NULL, NULL, "%s rule %u (%s): %s", why, other->id,
		 other->source, text);
	return -EEXIST;
}

static int check_free(struct ruleset *s, const struct rule *rule, struct diag *diag)
{
	size_t number;
	int r = index_rebuild(s);

	if (r < 0)
		return r;
	if (rule->name[0] && rule_index_find_name(full_of(s)->index, rule->name, &number))
		return refuse(diag, ruleset_find_id(s, number), "the name is that of");
	if (rule_index_find_conflict(full_of(s)->index, rule, &number))
		return refuse(diag, ruleset_find_id(s, number), "it takes the same packets as");
	return 0;
}

static int insert(struct ruleset *s, struct ruleset_entry *e)
{
	size_t at = position_of(s, e->id);
	struct ruleset_entry **more;
	int r;

	if (s->n_entries == full_of(s)->allocated) {
		size_t n = s->n_entries ? 2 * s->n_entries : 16;

		more = reallocarray(s->entries, n, sizeof(*more));
		if (!more)
			return -ENOMEM;
		s->entries = more;
		full_of(s)->allocated = n;
	}
	r = rule_index_add(full_of(s)->index, e->rule, e->id);
	if (r < 0)
		return r;
	memmove(s->entries + at + 1, s->entries + at, (s->n_entries - at) * sizeof(*s->entries));
	s->entries[at] = e;
	s->n_entries++;
	return 0;
}

int ruleset_add(struct ruleset *s, uint32_t id, struct rule *rule, enum rule_origin origin,
		const char *source, struct diag *diag, struct ruleset_entry **ret)
{
	_cleanup_(entry_freep) struct ruleset_entry *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	e->source = strdup(source);
	if (!e->source)
		return -ENOMEM;
	e->id = id ? id : free_id(s);
	e->origin = origin;
	if (!e->id) {
		diag_add(diag, DIAG_FAILED, NULL, "remove a rule first",
			 "there are %d rules already", RULE_COUNT - 1);
		return -ENOSPC;
	}
	r = check_free(s, rule, diag);
	if (r < 0)
		return r;
	e->rule = rule;
	r = insert(s, e);
	if (r < 0) {
		e->rule = NULL; /* still the caller's */
		return r;
	}
	if (ret)
		*ret = e;
	e = NULL;
	return 0;
}

void ruleset_remove(struct ruleset *s, struct ruleset_entry *e)
{
	size_t at = position_of(s, e->id);

	memmove(s->entries + at, s->entries + at + 1,
		(s->n_entries - at - 1) * sizeof(*s->entries));
	s->n_entries--;
	full_of(s)->index_stale = true;
	entry_free(e);
}

int ruleset_copy(const struct ruleset *s, struct ruleset **ret)
{
	_cleanup_(ruleset_freep) struct ruleset *copy = NULL;
	int r = ruleset_new(&copy);

	if (r < 0)
		return r;
	copy->entries = calloc(s->n_entries + 16, sizeof(*copy->entries));
	if (!copy->entries)
		return -ENOMEM;
	full_of(copy)->allocated = s->n_entries + 16;
	for (size_t i = 0; i < s->n_entries; i++) {
		struct ruleset_entry *e = calloc(1, sizeof(*e));

		if (!e)
			return -ENOMEM;
		copy->entries[copy->n_entries++] = e;
		e->id = s->entries[i]->id;
		e->origin = s->entries[i]->origin;
		e->source = strdup(s->entries[i]->source);
		if (!e->source || rule_copy(s->entries[i]->rule, &e->rule) < 0)
			return -ENOMEM;
	}
	*ret = take_ptr(copy);
	return 0;
}
