// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What living flows of a rule go by: its timeouts, and what a change of it does to them. By the
 * rule's id, so that one store reaches all of its flows, and stays when the rule goes.
 */
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/changes.h"
#include "daemon/datapath.h"

/*
 * Generations are compared by their difference in 16 bits: one that is further behind is moved
 * along before it would seem to be ahead.
 */
#define GENERATIONS_REACH 0x4000
#define GENERATIONS_CHECK 0x1000 /* how often that is looked at */

#define CLOCKS_APART                                                                               \
	8 /* ticks: rounding, a tick that has begun, and how far the packets' clock is ahead */

static const uint8_t policies[] = {
	[RULE_ON_CHANGE_KEEP] = POLICY_KEEP,
	[RULE_ON_CHANGE_DRAIN] = POLICY_DRAIN,
	[RULE_ON_CHANGE_RESET] = POLICY_RESET,
};

void settings_write(struct apply *a, const struct compiled *c)
{
	struct rule_setting *s = &datapath_rule_settings(a->datapath)[c->id];
	struct datapath_config *config = datapath_config(a->datapath);

	for (int state = 0; state < FLOW_STATE_COUNT; state++) {
		s->timeouts[state] =
			datapath_ticks_from_seconds(a->datapath, c->rule->timeouts[state]);
		if (s->timeouts[state])
			config->rule_timeouts = 1;
	}
	s->policy = policies[c->rule->on_change];
}

/* The rule's own word, once it has gone; the new one's, if it has another. */
static const struct rule *rule_of(const struct change *c)
{
	const struct ruleset_entry *e = c->after && !c->after->removed ? c->after : c->before;

	return e->rule;
}

static bool is_edit(const struct change *c)
{
	if (!c->before || c->before->removed)
		return false;
	return !c->after || c->after->removed || !rule_equal(c->before->rule, c->after->rule);
}

void settings_change(struct apply *a, const struct changes *edits)
{
	struct rule_setting *settings = datapath_rule_settings(a->datapath);
	/* apply_recheck() comes next. */
	uint16_t generation = datapath_config(a->datapath)->generation + 1;
	uint32_t now = datapath_ticks(a->datapath);

	for (size_t i = 0; edits && i < edits->n; i++) {
		const struct change *c = &edits->items[i];
		struct rule_setting *s;

		if (!is_edit(c))
			continue;
		s = &settings[c->before->id];
		s->policy = policies[rule_of(c)->on_change];
		s->deadline = now + CLOCKS_APART +
			      datapath_ticks_from_seconds(a->datapath, rule_of(c)->drain_seconds);
		__atomic_store_n(&s->changed, generation, __ATOMIC_RELEASE);
	}
}

void settings_tick(struct apply *a)
{
	struct rule_setting *settings = datapath_rule_settings(a->datapath);
	uint32_t generation = datapath_config(a->datapath)->generation;

	if (generation - a->settings_generation < GENERATIONS_CHECK)
		return;
	a->settings_generation = generation;
	for (uint32_t id = 0; id < RULE_COUNT; id++)
		if ((uint16_t)(generation - settings[id].changed) > GENERATIONS_REACH)
			settings[id].changed = generation - GENERATIONS_REACH;
}
