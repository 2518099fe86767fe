/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hash table from what two rules in conflict must have in common to the rules that have it.
 *
 * In conflict are rules with the same rank in everything and overlapping sets. So they share one
 * interface or have none, share one `from` prefix or have none, and listen on the same address;
 * their port ranges have one width w and overlap, hence lie in the same or in neighbouring slots
 * when the ports are cut into slots of w. A rule is entered under each of its combinations of
 * interface and prefix; rule_conflicts() then decides. Rules with very many combinations are kept
 * in a list of their own that every search reads.
 */
#include "shared/rule-index.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define INDEX_COMBINATIONS_MAX 256
#define INDEX_REMOVED_LEAST    64 /* holes that are not worth the work */
#define INDEX_NONE	       UINT32_MAX

enum index_kind {
	INDEX_SET,  /* one combination of a rule */
	INDEX_WIDE, /* a rule of too many combinations */
	INDEX_NAME,
};

/* Hashed as words: filled with zeroes first. */
struct index_key {
	uint32_t kind; /* enum index_kind */
	uint16_t width, slot;
	uint32_t listen; /* enum rule_listen */
	struct ip_prefix address, from;
	char text[RULE_NAME_MAX + 1]; /* interface, or the name */
} __attribute__((aligned(8)));

struct index_entry {
	uint64_t hash;
	uint32_t rule; /* index into rules */
	uint32_t next; /* in the same bucket, in the order of entry; INDEX_NONE: the end */
};

struct index_chain {
	uint32_t first, last; /* entries; INDEX_NONE: empty */
};

struct rule_index {
	struct {
		const struct rule *rule; /* NULL: removed */
		size_t number;
	} * rules;
	size_t n_rules, rules_allocated, n_removed;
	struct index_entry *entries;
	size_t n_entries, entries_allocated;
	struct index_chain *buckets;
	size_t n_buckets; /* a power of two, not below entries_allocated */
};

struct rule_index *rule_index_free(struct rule_index *x)
{
	if (!x)
		return NULL;
	free(x->rules);
	free(x->entries);
	free(x->buckets);
	free(x);
	return NULL;
}

/* FNV-1a on words of 64 bits, each mixed; keys are filled with zeroes up to their size. */
static uint64_t index_hash(const struct index_key *key)
{
	uint64_t hash = 0xcbf29ce484222325, word;

	for (size_t i = 0; i < sizeof(*key); i += sizeof(word)) {
		memcpy(&word, (const char *)key + i, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 29;
	}
	return hash ^ hash >> 32;
}

static uint64_t index_hash_name(const char *name)
{
	struct index_key key;

	memset(&key, 0, sizeof(key));
	key.kind = INDEX_NAME;
	strncpy(key.text, name, sizeof(key.text) - 1);
	return index_hash(&key);
}

static uint64_t index_hash_wide(void)
{
	struct index_key key;

	memset(&key, 0, sizeof(key));
	key.kind = INDEX_WIDE;
	return index_hash(&key);
}

static size_t index_count_interfaces(const struct rule *r)
{
	return r->n_interfaces > 0 ? r->n_interfaces : 1;
}

static size_t index_count_from(const struct rule *r)
{
	return r->n_from > 0 ? r->n_from : 1;
}

static size_t index_count_combinations(const struct rule *r)
{
	return index_count_interfaces(r) * index_count_from(r);
}

static bool index_is_wide(const struct rule *r)
{
	return index_count_combinations(r) > INDEX_COMBINATIONS_MAX;
}

static unsigned index_width(const struct rule *r)
{
	return r->ports.last - r->ports.first + 1U;
}

/* The hash of one combination in one slot. */
static uint64_t index_hash_set(const struct rule *r, size_t combination, unsigned slot)
{
	size_t interface = combination / index_count_from(r);
	size_t from = combination % index_count_from(r);
	struct index_key key;

	memset(&key, 0, sizeof(key));
	key.kind = INDEX_SET;
	key.width = (uint16_t)index_width(r);
	key.slot = (uint16_t)slot;
	key.listen = r->listen;
	if (r->listen == RULE_LISTEN_PREFIX)
		key.address = r->listen_prefix;
	if (r->n_from > 0)
		key.from = r->from[from];
	if (r->n_interfaces > 0)
		strcpy(key.text, r->interfaces[interface]);
	return index_hash(&key);
}

static struct index_chain *index_bucket(const struct rule_index *x, uint64_t hash)
{
	return &x->buckets[hash & (x->n_buckets - 1)];
}

static void index_link(struct rule_index *x, uint32_t entry)
{
	struct index_chain *bucket = index_bucket(x, x->entries[entry].hash);

	x->entries[entry].next = INDEX_NONE;
	if (bucket->first == INDEX_NONE)
		bucket->first = entry;
	else
		x->entries[bucket->last].next = entry;
	bucket->last = entry;
}

/* Room for `n` more entries; the buckets grow with them. */
static int index_reserve_entries(struct rule_index *x, size_t n)
{
	size_t allocated = x->entries_allocated;
	struct index_entry *entries;
	struct index_chain *buckets;

	while (allocated < x->n_entries + n)
		allocated *= 2;
	if (allocated == x->entries_allocated)
		return 0;
	if (allocated > INDEX_NONE)
		return -ENOMEM;
	entries = reallocarray(x->entries, allocated, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	x->entries = entries;
	buckets = reallocarray(x->buckets, allocated, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	x->buckets = buckets;
	x->entries_allocated = x->n_buckets = allocated;

	memset(buckets, 0xff, allocated * sizeof(*buckets));
	for (size_t i = 0; i < x->n_entries; i++)
		if (x->rules[x->entries[i].rule].rule)
			index_link(x, (uint32_t)i);
	return 0;
}

static int index_reserve_rule(struct rule_index *x)
{
	size_t allocated = x->rules_allocated * 2;
	void *rules;

	if (x->n_rules < x->rules_allocated)
		return 0;
	rules = reallocarray(x->rules, allocated, sizeof(*x->rules));
	if (!rules)
		return -ENOMEM;
	x->rules = rules;
	x->rules_allocated = allocated;
	return 0;
}

int rule_index_new(struct rule_index **ret)
{
	_cleanup_(rule_index_freep) struct rule_index *x = calloc(1, sizeof(*x));
	const size_t first = 64;

	if (!x)
		return -ENOMEM;
	x->rules = calloc(first, sizeof(*x->rules));
	x->entries = calloc(first, sizeof(*x->entries));
	x->buckets = malloc(first * sizeof(*x->buckets));
	if (!x->rules || !x->entries || !x->buckets)
		return -ENOMEM;
	memset(x->buckets, 0xff, first * sizeof(*x->buckets));
	x->rules_allocated = x->entries_allocated = x->n_buckets = first;
	*ret = take_ptr(x);
	return 0;
}

static void index_enter(struct rule_index *x, uint64_t hash, size_t rule)
{
	x->entries[x->n_entries] = (struct index_entry){.hash = hash, .rule = (uint32_t)rule};
	index_link(x, (uint32_t)x->n_entries++);
}

int rule_index_add(struct rule_index *x, const struct rule *rule, size_t number)
{
	size_t n = index_is_wide(rule) ? 1 : index_count_combinations(rule), index = x->n_rules;
	int r;

	r = index_reserve_rule(x);
	if (r < 0)
		return r;
	r = index_reserve_entries(x, n + 1);
	if (r < 0)
		return r;
	x->rules[index].rule = rule;
	x->rules[index].number = number;
	x->n_rules++;

	if (rule->name[0])
		index_enter(x, index_hash_name(rule->name), index);
	if (index_is_wide(rule)) {
		index_enter(x, index_hash_wide(), index);
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		index_enter(x, index_hash_set(rule, i, rule->ports.first / index_width(rule)),
			    index);
	return 0;
}

/* ---- removing ---- */

static void index_unlink(struct rule_index *x, uint64_t hash, uint32_t rule)
{
	struct index_chain *bucket = index_bucket(x, hash);
	uint32_t *link = &bucket->first, previous = INDEX_NONE;

	while (*link != INDEX_NONE) {
		struct index_entry *e = &x->entries[*link];

		if (e->rule == rule) {
			if (bucket->last == *link)
				bucket->last = previous;
			*link = e->next;
			continue;
		}
		previous = *link;
		link = &e->next;
	}
}

/* A hash that the rule was entered under. */
static uint64_t index_hash_any(const struct rule *r)
{
	return index_is_wide(r) ? index_hash_wide()
				: index_hash_set(r, 0, r->ports.first / index_width(r));
}

static uint32_t index_find_rule(const struct rule_index *x, const struct rule *rule)
{
	uint32_t i = index_bucket(x, index_hash_any(rule))->first;

	while (i != INDEX_NONE && x->rules[x->entries[i].rule].rule != rule)
		i = x->entries[i].next;
	return i == INDEX_NONE ? INDEX_NONE : x->entries[i].rule;
}

/* Enters all rules again, in their order, without the holes of those removed: needs no memory. */
static void index_compact(struct rule_index *x)
{
	size_t n = x->n_rules;

	memset(x->buckets, 0xff, x->n_buckets * sizeof(*x->buckets));
	x->n_rules = x->n_entries = x->n_removed = 0;
	for (size_t i = 0; i < n; i++)
		if (x->rules[i].rule)
			rule_index_add(x, x->rules[i].rule, x->rules[i].number);
}

void rule_index_remove(struct rule_index *x, const struct rule *rule)
{
	uint32_t index = index_find_rule(x, rule);

	if (index == INDEX_NONE)
		return;
	if (rule->name[0])
		index_unlink(x, index_hash_name(rule->name), index);
	if (index_is_wide(rule))
		index_unlink(x, index_hash_wide(), index);
	for (size_t i = 0; !index_is_wide(rule) && i < index_count_combinations(rule); i++)
		index_unlink(x, index_hash_set(rule, i, rule->ports.first / index_width(rule)),
			     index);
	x->rules[index].rule = NULL;
	if (++x->n_removed > INDEX_REMOVED_LEAST && x->n_removed > x->n_rules / 2)
		index_compact(x);
}

/* ---- finding ---- */

/* Lowers *best to the first rule under this hash that is in conflict. */
static void index_search(const struct rule_index *x, uint64_t hash, const struct rule *rule,
			 size_t *best)
{
	const struct index_entry *e;

	for (uint32_t i = index_bucket(x, hash)->first; i != INDEX_NONE; i = e->next) {
		e = &x->entries[i];
		if (e->rule >= *best)
			return;
		if (e->hash == hash && rule_conflicts(x->rules[e->rule].rule, rule))
			*best = e->rule;
	}
}

static void index_search_sets(const struct rule_index *x, const struct rule *rule, size_t *best)
{
	unsigned width = index_width(rule), slot = rule->ports.first / width;

	for (size_t i = 0; i < index_count_combinations(rule); i++) {
		index_search(x, index_hash_set(rule, i, slot), rule, best);
		if (width == 1)
			continue;
		index_search(x, index_hash_set(rule, i, slot + 1), rule, best);
		if (slot > 0)
			index_search(x, index_hash_set(rule, i, slot - 1), rule, best);
	}
}

static void index_search_all(const struct rule_index *x, const struct rule *rule, size_t *best)
{
	for (size_t i = 0; i < x->n_rules && i < *best; i++)
		if (x->rules[i].rule && rule_conflicts(x->rules[i].rule, rule))
			*best = i;
}

bool rule_index_find_conflict(const struct rule_index *x, const struct rule *rule,
			      size_t *ret_number)
{
	size_t best = SIZE_MAX;

	if (index_is_wide(rule)) {
		index_search_all(x, rule, &best);
	} else {
		index_search_sets(x, rule, &best);
		index_search(x, index_hash_wide(), rule, &best);
	}
	if (best == SIZE_MAX)
		return false;
	*ret_number = x->rules[best].number;
	return true;
}

bool rule_index_find_name(const struct rule_index *x, const char *name, size_t *ret_number)
{
	uint64_t hash = index_hash_name(name);
	const struct index_entry *e;

	for (uint32_t i = index_bucket(x, hash)->first; i != INDEX_NONE; i = e->next) {
		e = &x->entries[i];
		if (e->hash != hash || strcmp(x->rules[e->rule].rule->name, name) != 0)
			continue;
		*ret_number = x->rules[e->rule].number;
		return true;
	}
	return false;
}
