// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Old rules by what they can be known again by, sorted for searching. */
struct known {
	char *text; /* canonical */
	const char *name;
	size_t at; /* in old->entries */
};

struct plan {
	const struct ruleset *old;
	struct known *by_text, *by_name;
	size_t n_names;
	uint32_t *ids;	/* of each rule of the configuration; 0: not settled */
	bool *id_taken; /* by position in old->entries */
};

static int compare_text(const void *a, const void *b)
{
	return strcmp(((const struct known *)a)->text, ((const struct known *)b)->text);
}

static int compare_name(const void *a, const void *b)
{
	return strcmp(((const struct known *)a)->name, ((const struct known *)b)->name);
}

static void plan_clear(struct plan *p)
{
	for (size_t i = 0; p->by_text && i < p->old->n_entries; i++)
		free(p->by_text[i].text);
	free(p->by_text);
	free(p->by_name);
	free(p->ids);
	free(p->id_taken);
}

static int plan_start(struct plan *p, const struct ruleset *old, size_t n_rules)
{
	p->old = old;
	p->by_text = calloc(old->n_entries + 1, sizeof(*p->by_text));
	p->by_name = calloc(old->n_entries + 1, sizeof(*p->by_name));
	p->ids = calloc(n_rules + 1, sizeof(*p->ids));
	p->id_taken = calloc(old->n_entries + 1, sizeof(*p->id_taken));
	if (!p->by_text || !p->by_name || !p->ids || !p->id_taken)
		return -ENOMEM;
	for (size_t i = 0; i < old->n_entries; i++) {
		const struct ruleset_entry *e = old->entries[i];

		p->by_text[i].at = i;
		if (rule_format(e->rule, &p->by_text[i].text) < 0)
			return -ENOMEM;
		if (e->rule->name[0])
			p->by_name[p->n_names++] = (struct known){NULL, e->rule->name, i};
	}
	qsort(p->by_text, old->n_entries, sizeof(*p->by_text), compare_text);
	qsort(p->by_name, p->n_names, sizeof(*p->by_name), compare_name);
	return 0;
}

/* Takes an old id for a rule, unless another rule has it already. */
static void take(struct plan *p, size_t rule, const struct known *found)
{
	if (!found || p->id_taken[found->at])
		return;
	p->id_taken[found->at] = true;
	p->ids[rule] = p->old->entries[found->at]->id;
}

static int settle_ids(struct plan *p, const struct config *config)
{
	for (size_t i = 0; i < config->n_rules; i++) {
		struct known key = {0};

		if (rule_format(config->rules[i].rule, &key.text) < 0)
			return -ENOMEM;
		take(p, i, bsearch(&key, p->by_text, p->old->n_entries, sizeof(key), compare_text));
		free(key.text);
	}
	for (size_t i = 0; i < config->n_rules; i++) {
		struct known key = {.name = config->rules[i].rule->name};

		if (!p->ids[i] && key.name[0])
			take(p, i,
			     bsearch(&key, p->by_name, p->n_names, sizeof(key), compare_name));
	}
	return 0;
}

static int add_copy(struct ruleset *set, uint32_t id, const struct rule *rule,
		    enum rule_origin origin, const char *source, struct diag *diag)
{
	_cleanup_(rule_freep) struct rule *copy = NULL;
	int r = rule_copy(rule, &copy);

	if (r == 0)
		r = ruleset_add(set, id, copy, origin, source, diag, NULL);
	if (r == 0)
		copy = NULL;
	return r;
}

static int add_runtime(struct plan *p, struct ruleset *set, bool drop_conflicts, struct diag *diag,
		       struct plan_counts *counts)
{
	for (size_t i = 0; i < p->old->n_entries; i++) {
		const struct ruleset_entry *e = p->old->entries[i];
		int r;

		if (p->id_taken[i] || e->origin != RULE_ORIGIN_RUNTIME)
			continue;
		r = add_copy(set, e->id, e->rule, e->origin, e->source, diag);
		if (r < 0 && !(r == -EEXIST && drop_conflicts))
			return r;
		if (r == 0)
			counts->kept++;
	}
	return 0;
}

int plan_configuration(const struct ruleset *old, const struct config *config, bool drop_conflicts,
		       plan_new_id new_id, void *userdata, struct diag *diag, struct ruleset **ret,
		       struct plan_counts *ret_counts)
{
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	_cleanup_(plan_clear) struct plan p = {0};
	struct plan_counts counts = {0};
	int r = plan_start(&p, old, config->n_rules);

	if (r == 0)
		r = settle_ids(&p, config);
	if (r == 0)
		r = ruleset_new(&set);
	for (size_t i = 0; r == 0 && i < config->n_rules; i++) {
		const struct config_rule *c = &config->rules[i];
		bool typed = strcmp(c->source, "command line") == 0;
		uint32_t id = p.ids[i] ? p.ids[i] : new_id(userdata, old, set);

		*(p.ids[i] ? &counts.kept : &counts.added) += 1;
		r = add_copy(set, id, c->rule,
			     typed ? RULE_ORIGIN_COMMAND_LINE : RULE_ORIGIN_CONFIG, c->source,
			     diag);
	}
	if (r == 0)
		r = add_runtime(&p, set, drop_conflicts, diag, &counts);
	if (r < 0)
		return r;
	counts.removed = old->n_entries - counts.kept;
	*ret = take_ptr(set);
	*ret_counts = counts;
	return 0;
}
