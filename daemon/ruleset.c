// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/ruleset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/changes.h"
#include "shared/abi.h"
#include "shared/config.h"
#include "shared/rule-index.h"

#define DROP_ONE_BY_ONE 16 /* changes: more are worth a walk through all entries */

/* What ruleset_new() returns. */
struct ruleset_full {
	struct ruleset set; /* first: callers hold a pointer to it */
	size_t allocated, removed_allocated;
	struct rule_index *index; /* of the rules in force; a number is an entry's address */
	bool index_stale;
};

static struct ruleset_full *full_of(struct ruleset *s)
{
	return (struct ruleset_full *)s;
}

static const struct ruleset_full *full_of_const(const struct ruleset *s)
{
	return (const struct ruleset_full *)s;
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

/* ---- entries ---- */

struct ruleset_entry *ruleset_entry_free(struct ruleset_entry *e)
{
	if (!e)
		return NULL;
	rule_free(e->rule);
	rule_free(e->configured);
	free(e->source);
	free(e);
	return NULL;
}

int ruleset_entry_new(uint32_t id, const struct rule *rule, enum rule_origin origin,
		      const char *source, struct ruleset_entry **ret)
{
	_cleanup_(ruleset_entry_freep) struct ruleset_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->id = id;
	e->origin = origin;
	e->source = strdup(source);
	if (!e->source || rule_copy(rule, &e->rule) < 0)
		return -ENOMEM;
	*ret = take_ptr(e);
	return 0;
}

const struct rule *ruleset_entry_configured(const struct ruleset_entry *e)
{
	return e->configured ? e->configured : e->rule;
}

/* ---- the set ---- */

struct ruleset *ruleset_free(struct ruleset *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n_entries; i++)
		ruleset_entry_free(s->entries[i]);
	for (size_t i = 0; i < s->n_removed; i++)
		ruleset_entry_free(s->removed[i]);
	free(s->entries);
	free(s->removed);
	rule_index_free(full_of(s)->index);
	free(s);
	return NULL;
}

int ruleset_new(struct ruleset **ret)
{
	struct ruleset_full *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	r = rule_index_new(&f->index);
	if (r < 0) {
		free(f);
		return r;
	}
	*ret = &f->set;
	return 0;
}

static int index_add(struct ruleset *s, const struct ruleset_entry *e)
{
	return rule_index_add(full_of(s)->index, e->rule, (uintptr_t)e);
}

/* Only after memory was short while something was taken back. */
static int index_rebuild(struct ruleset *s)
{
	struct ruleset_full *f = full_of(s);
	struct rule_index *index;
	int r;

	if (!f->index_stale)
		return 0;
	r = rule_index_new(&index);
	if (r < 0)
		return r;
	rule_index_free(f->index);
	f->index = index;
	for (size_t i = 0; r == 0 && i < s->n_entries; i++)
		r = index_add(s, s->entries[i]);
	f->index_stale = r < 0;
	return r;
}

/* Where an id stands, or would stand: binary search. */
static size_t position_of(struct ruleset_entry *const *entries, size_t n, uint32_t id)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (entries[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct ruleset_entry *find_in(struct ruleset_entry *const *entries, size_t n, uint32_t id)
{
	size_t at = position_of(entries, n, id);

	return at < n && entries[at]->id == id ? entries[at] : NULL;
}

struct ruleset_entry *ruleset_find_id(const struct ruleset *s, uint32_t id)
{
	return find_in(s->entries, s->n_entries, id);
}

struct ruleset_entry *ruleset_find_removed(const struct ruleset *s, uint32_t id)
{
	return find_in(s->removed, s->n_removed, id);
}

struct ruleset_entry *ruleset_find_name(const struct ruleset *s, const char *name)
{
	size_t number;

	if (!*name || !rule_index_find_name(full_of_const(s)->index, name, &number))
		return NULL;
	return (struct ruleset_entry *)number;
}

struct ruleset_entry *ruleset_find_conflict(const struct ruleset *s, const struct rule *rule)
{
	size_t number;

	if (!rule_index_find_conflict(full_of_const(s)->index, rule, &number))
		return NULL;
	return (struct ruleset_entry *)number;
}

/*
 * In any spelling: it is parsed. A name or `disabled` that is left out does not matter. An equal
 * rule is in conflict, and no other one then is: they would be in conflict among themselves.
 */
static struct ruleset_entry *find_rule(const struct ruleset *s, const char *text)
{
	_cleanup_(rule_freep) struct rule *wanted = NULL;
	_cleanup_(rule_freep) struct rule *bare = NULL;
	_cleanup_(diag_clear) struct diag diag = {0};
	struct ruleset_entry *found;

	if (rule_parse(text, NULL, &diag, &wanted) < 0)
		return NULL;
	found = ruleset_find_conflict(s, wanted);
	if (!found || rule_copy(found->rule, &bare) < 0)
		return NULL;
	if (!wanted->name[0])
		memset(bare->name, 0, sizeof(bare->name));
	bare->disabled = wanted->disabled;
	return rule_equal(bare, wanted) ? found : NULL;
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
	e = ruleset_find_name(s, selector);
	return e ? e : find_rule(s, selector);
}

/* ---- changes ---- */

static int reserve(struct ruleset_entry ***entries, size_t *allocated, size_t n)
{
	struct ruleset_entry **more;
	size_t size = *allocated ? *allocated : 16;

	while (size < n)
		size *= 2;
	if (size == *allocated)
		return 0;
	more = reallocarray(*entries, size, sizeof(*more));
	if (!more)
		return -ENOMEM;
	*entries = more;
	*allocated = size;
	return 0;
}

/* Adds the item that names the rule in the way and where it stands. */
static int refuse(struct diag *diag, const struct change *c, enum rule_part part,
		  const struct ruleset_entry *other, const char *why, const char *hint)
{
	_cleanup_(freep) char *text = NULL;
	struct diag_place place;

	if (rule_format(other->rule, &text) < 0)
		return -ENOMEM;
	if (c->from)
		place = config_rule_place(c->from, part);
	diag_add(diag, DIAG_CONFLICT, c->from ? &place : NULL, hint, "%s rule %u (%s): %s", why,
		 other->id, other->source, text);
	return -EEXIST;
}

static int check_free(struct ruleset *s, const struct change *c, struct diag *diag)
{
	const struct ruleset_entry *other = ruleset_find_name(s, c->after->rule->name);

	if (other)
		return refuse(diag, c, RULE_PART_NAME, other, "the name is that of",
			      "choose another name, or change that rule: `redirectctl replace`");
	other = ruleset_find_conflict(s, c->after->rule);
	if (other)
		return refuse(diag, c, RULE_PART_LISTEN, other, "it takes the same packets as",
			      "narrow one down by an address, an interface, \"from\" or a smaller "
			      "range; or change that rule: `redirectctl replace`");
	return 0;
}

/* What gives way in a conflict: first to what the configuration says. */
static void yield(struct change *c)
{
	struct rule *configured = take_ptr(c->after->configured);

	if (!configured) {
		c->after = ruleset_entry_free(c->after);
		return;
	}
	rule_free(c->after->rule);
	c->after->rule = configured;
}

/* What comes is entered into the index, or refused. */
static int enter(struct ruleset *s, struct change *c, struct diag *diag)
{
	int r = 0;

	while (c->after && !c->after->removed) {
		r = check_free(s, c, diag);
		if (r == 0)
			return index_add(s, c->after);
		if (r != -EEXIST || !c->yields)
			return r;
		yield(c);
		r = 0;
	}
	return r;
}

static void take_out(struct ruleset *s, struct ruleset_entry *e)
{
	if (!e)
		return;
	e->leaves = true;
	if (!e->removed)
		rule_index_remove(full_of(s)->index, e->rule);
}

static void take_in(struct ruleset *s, struct ruleset_entry *e)
{
	if (!e)
		return;
	e->leaves = false;
	if (!e->removed && index_add(s, e) < 0)
		full_of(s)->index_stale = true;
}

static size_t drop_leaving(struct ruleset_entry **entries, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if (!entries[i]->leaves)
			entries[kept++] = entries[i];
	return kept;
}

static void drop_one(struct ruleset *s, const struct ruleset_entry *e)
{
	struct ruleset_entry **entries = e->removed ? s->removed : s->entries;
	size_t *n = e->removed ? &s->n_removed : &s->n_entries;
	size_t at = position_of(entries, *n, e->id);

	memmove(entries + at, entries + at + 1, (*n - at - 1) * sizeof(struct ruleset_entry *));
	--*n;
}

/* What leaves goes out of the arrays: one by one, or all at once when they are many. */
static void drop_all(struct ruleset *s, const struct changes *c, bool forth)
{
	if (c->n > DROP_ONE_BY_ONE) {
		s->n_entries = drop_leaving(s->entries, s->n_entries);
		s->n_removed = drop_leaving(s->removed, s->n_removed);
		return;
	}
	for (size_t i = 0; i < c->n; i++) {
		const struct ruleset_entry *e = forth ? c->items[i].before : c->items[i].after;

		if (e)
			drop_one(s, e);
	}
}

static int compare_ids(const void *left, const void *right)
{
	const struct ruleset_entry *a = *(struct ruleset_entry *const *)left;
	const struct ruleset_entry *b = *(struct ruleset_entry *const *)right;

	return (a->id > b->id) - (a->id < b->id);
}

/* Entries from `n` on are new: sorts them in. There is room behind `total` for as many again. */
static void sort_in(struct ruleset_entry **entries, size_t n, size_t total)
{
	struct ruleset_entry **news = entries + total;
	size_t n_news = total - n, to = total;

	if (!n_news)
		return;
	qsort(entries + n, n_news, sizeof(*entries), compare_ids);
	if (!n || entries[n - 1]->id < entries[n]->id)
		return;
	memcpy(news, entries + n, n_news * sizeof(*entries));
	while (n_news) {
		if (n && entries[n - 1]->id > news[n_news - 1]->id)
			entries[--to] = entries[--n];
		else
			entries[--to] = news[--n_news];
	}
}

/* The arrays follow; room was made before. */
static void settle(struct ruleset *s, const struct changes *c, bool forth)
{
	size_t n, n_removed;

	drop_all(s, c, forth);
	n = s->n_entries;
	n_removed = s->n_removed;
	for (size_t i = 0; i < c->n; i++) {
		struct ruleset_entry *e = forth ? c->items[i].after : c->items[i].before;

		if (e && e->removed)
			s->removed[s->n_removed++] = e;
		else if (e)
			s->entries[s->n_entries++] = e;
	}
	sort_in(s->entries, n, s->n_entries);
	sort_in(s->removed, n_removed, s->n_removed);
}

/* Room for what comes, for what may come back, and to sort them in. */
static int make_room(struct ruleset *s, const struct changes *c)
{
	struct ruleset_full *f = full_of(s);
	int r = index_rebuild(s);

	if (r == 0)
		r = reserve(&s->entries, &f->allocated, s->n_entries + 2 * c->n);
	if (r == 0)
		r = reserve(&s->removed, &f->removed_allocated, s->n_removed + 2 * c->n);
	return r;
}

int ruleset_change(struct ruleset *s, struct changes *c, struct diag *diag)
{
	int r = make_room(s, c), one = 0;
	size_t i;

	if (r < 0)
		return r;
	for (i = 0; i < c->n; i++)
		take_out(s, c->items[i].before);
	for (i = 0; i < c->n && one != -ENOMEM; i++) {
		one = enter(s, &c->items[i], diag);
		if (one < 0 && c->items[i].after)
			c->items[i].after->leaves = true; /* refused: it is not in the index */
		r = r ? r : one;
	}
	if (r == 0) {
		settle(s, c, true);
		c->made = true;
		return 0;
	}
	while (i-- > 0) {
		struct ruleset_entry *after = c->items[i].after;

		if (after && !after->leaves)
			take_out(s, after);
	}
	for (i = 0; i < c->n; i++)
		take_in(s, c->items[i].before);
	return r;
}

void ruleset_revert(struct ruleset *s, struct changes *c)
{
	for (size_t i = 0; i < c->n; i++)
		take_out(s, c->items[i].after);
	for (size_t i = 0; i < c->n; i++)
		take_in(s, c->items[i].before);
	settle(s, c, false);
	for (size_t i = 0; i < c->n; i++)
		if (c->items[i].after)
			c->items[i].after->leaves = false;
	c->made = false;
}

static uint32_t free_id(const struct ruleset *s)
{
	uint32_t id = 1;

	for (size_t i = 0; i < s->n_entries && s->entries[i]->id == id; i++)
		id++;
	return id < RULE_COUNT ? id : RULE_ID_NONE;
}

int ruleset_add(struct ruleset *s, uint32_t id, struct rule *rule, enum rule_origin origin,
		const char *source, struct diag *diag, struct ruleset_entry **ret)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	struct ruleset_entry *e;
	int r;

	id = id ? id : free_id(s);
	if (!id) {
		ruleset_report_full(diag);
		return -ENOSPC;
	}
	r = ruleset_entry_new(id, rule, origin, source, &e);
	if (r == 0)
		r = changes_add(&changes, NULL, e, NULL);
	if (r == 0)
		r = ruleset_change(s, &changes, diag);
	if (r < 0)
		return r;
	rule_free(rule);
	if (ret)
		*ret = e;
	return 0;
}

void ruleset_report_full(struct diag *diag)
{
	diag_add(diag, DIAG_FAILED, NULL, "remove a rule first", "there are %d rules already",
		 RULE_COUNT - 1);
}
