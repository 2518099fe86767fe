/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens between packets: rules are added, removed, disabled, become others, one or several
 * in a step; the time of a rule that drains is over; flows are deleted; what is left over is
 * reclaimed.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

#define AT_ONCE 3 /* rules that change in one step */

static char *history;
static size_t history_length;

void fuzz_forget_changes(void)
{
	free(history);
	history = NULL;
	history_length = 0;
}

void fuzz_print_changes(FILE *f)
{
	if (history)
		fwrite(history, 1, history_length, f);
}

static void note(unsigned change, size_t place, const char *what)
{
	char line[2 * PART_TEXT + 64];
	size_t n = (size_t)snprintf(line, sizeof(line), "    change %u: %zu: %s\n", change,
				    place + 1, what);
	char *more = realloc(history, history_length + n);

	if (!more)
		abort();
	memcpy(more + history_length, line, n);
	history = more;
	history_length += n;
}

/* A place whose rule is there, and has not changed in this step; PLACES: none was found. */
static size_t random_place(const struct oracle *o, const struct fuzz_rules *rules)
{
	for (unsigned tries = 0; rules->n && tries < 16; tries++) {
		size_t i = random_below((uint32_t)rules->n);

		if (rules->parsed[i] && rules->rules[i].changed != o->changes)
			return i;
	}
	return PLACES;
}

/* The rule at a place becomes another, or with `f` NULL none; what the oracle counts stays. */
static void tell(struct oracle *o, struct fuzz_rules *rules, size_t i, const struct fuzz_rule *f)
{
	struct oracle_rule *r = &rules->rules[i];
	uint64_t refused = r->refused;

	if (f)
		*r = f->rule;
	else
		r->off = true;
	r->refused = refused;
	r->drained = false;
	r->changed = o->changes;
	note(o->changes, i, f ? f->text : "removed");
}

static bool add_rule(struct world *w, struct fuzz_rules *rules, struct world_change *ret)
{
	struct fuzz_rule f;
	size_t i = rules->n;

	if (i == PLACES)
		return false;
	fuzz_draw_rule(FLAVOUR_CHANGES, w->interface, &f);
	if (!fuzz_place_rule(rules, i, &f))
		return false;
	rules->rules[i] = (struct oracle_rule){.refused = 0};
	w->oracle.n_rules = rules->n;
	tell(&w->oracle, rules, i, &f);
	*ret = (struct world_change){.rule = rules->drafts[i].text};
	return true;
}

static bool remove_rule(struct world *w, struct fuzz_rules *rules, size_t i,
			struct world_change *ret)
{
	fuzz_remove_rule(rules, i);
	tell(&w->oracle, rules, i, NULL);
	*ret = (struct world_change){.id = (uint32_t)i + 1};
	return true;
}

static bool set_rule(struct world *w, struct fuzz_rules *rules, size_t i, struct world_change *ret)
{
	struct fuzz_rule f = rules->drafts[i];
	uint32_t kind = random_below(8);

	if (kind == 0)
		fuzz_draw_rule(FLAVOUR_CHANGES, w->interface, &f);
	else if (kind == 1)
		fuzz_switch_rule(&f);
	else
		fuzz_redraw_rule(&f, w->interface);
	if (!fuzz_place_rule(rules, i, &f))
		return false;
	tell(&w->oracle, rules, i, &f);
	*ret = (struct world_change){.id = (uint32_t)i + 1, .rule = rules->drafts[i].text};
	return true;
}

static bool change_rule(struct world *w, struct fuzz_rules *rules, struct world_change *ret)
{
	size_t i = random_place(&w->oracle, rules);
	uint32_t kind = random_below(8);

	if (i == PLACES || kind == 0)
		return add_rule(w, rules, ret);
	if (kind == 1)
		return remove_rule(w, rules, i, ret);
	return set_rule(w, rules, i, ret);
}

static void change_rules(struct world *w, struct fuzz_rules *rules)
{
	uint32_t wanted = random_once_in(4) ? 1 + random_below(AT_ONCE) : 1;
	struct world_change changes[AT_ONCE];
	size_t n = 0;

	w->oracle.changes++;
	for (unsigned tries = 0; n < wanted && tries < 8; tries++)
		n += change_rule(w, rules, &changes[n]);
	if (!n) {
		w->oracle.changes--;
		return;
	}
	world_change(w, changes, n);
	w->oracle.holding = datapath_config(w->datapath)->fragments;
}

/* The time that flows have been given by the last change of the rule. */
static void end_draining(struct world *w, struct fuzz_rules *rules)
{
	size_t i = rules->n ? random_below((uint32_t)rules->n) : PLACES;

	if (i == PLACES || rules->rules[i].on_change != ORACLE_DRAIN)
		return;
	datapath_rule_settings(w->datapath)[i + 1].deadline = datapath_ticks(w->datapath) - 1;
	rules->rules[i].drained = true;
	note(w->oracle.changes, i, "has drained");
}

static void delete_flows(struct world *w)
{
	for (uint32_t n = random_below(32); n && w->oracle.n_flows; n--) {
		struct oracle_flow *f = &w->oracle.flows[random_below((uint32_t)w->oracle.n_flows)];

		if (!f->dead)
			fuzz_delete_flow(w, f);
	}
}

void fuzz_change(struct world *w, struct fuzz_rules *rules)
{
	switch (random_below(8)) {
	case 0:
		delete_flows(w);
		break;
	case 1:
	case 2:
		end_draining(w, rules);
		break;
	case 3:
		world_settle(w);
		w->oracle.holding = datapath_config(w->datapath)->fragments;
		break;
	default:
		change_rules(w, rules);
	}
}
