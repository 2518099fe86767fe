// SPDX-License-Identifier: GPL-2.0-or-later
/* What a rule does with its flows: from targets and options to struct action and struct balance. */
#include <errno.h>
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/balance.h"
#include "daemon/datapath.h"

static struct target target_of(const struct rule *r, const struct rule_target *t)
{
	struct target target = {.port_first = t->ports.first, .flags = TARGET_SET};

	if (t->address.family) {
		target.flags |= TARGET_ADDRESS;
		ip_prefix_to_mapped(&t->address, (uint8_t *)target.addr);
	}
	if (r->ports.first != r->ports.last && t->ports.first == t->ports.last)
		target.flags |= TARGET_FOLDED;
	return target;
}

/* ---- the numbers of targets ---- */

/* The targets of an action, by number. */
static void read_targets(struct apply *a, uint32_t action, struct target ret[BALANCE_TARGETS])
{
	const struct action *former = &datapath_actions(a->datapath)[action];
	struct balance balance = {0};

	memset(ret, 0, BALANCE_TARGETS * sizeof(*ret));
	if (!(former->flags & ACTION_BALANCE))
		ret[former->number & (BALANCE_TARGETS - 1)] = former->target;
	else if (datapath_balance_get(a->datapath, action, &balance) == 0)
		memcpy(ret, balance.targets, sizeof(balance.targets));
}

/*
 * A number for a target that the rule did not have: one that none has had yet; else, one whose
 * flows have ended. 0 is only for the first target of all, since nobody knows what it has alone.
 */
static uint32_t free_number(struct apply *a, uint32_t rule, uint64_t taken)
{
	struct rule_counters counters, gone;
	uint32_t found = 0;

	for (uint32_t n = 1; n < BALANCE_TARGETS; n++) {
		if (taken & 1ULL << n)
			continue;
		if (datapath_target_get(a->datapath, TARGET_KEY(rule, n), &counters) < 0)
			return n;
		if (!found && counters.created == counters.destroyed)
			found = n;
	}
	/* All have been used, and with as many targets one is always free of a living one. */
	if (!found)
		return BALANCE_TARGETS - 1;
	datapath_target_get(a->datapath, TARGET_KEY(rule, found), &counters);
	datapath_target_get(a->datapath, TARGET_KEY(rule, TARGETS_GONE), &gone);
	gone.packets += counters.packets;
	gone.bytes += counters.bytes;
	gone.created += counters.created;
	gone.destroyed += counters.destroyed;
	if (datapath_target_set(a->datapath, TARGET_KEY(rule, TARGETS_GONE), &gone) == 0)
		datapath_target_delete(a->datapath, TARGET_KEY(rule, found));
	return found;
}

/* Targets that stay keep their numbers. */
static void number_targets(struct apply *a, struct compiled *c, const struct compiled *before)
{
	uint32_t former = before ? before->action : a->started ? 0 : a->former[c->id];
	struct target had[BALANCE_TARGETS];
	const struct rule *r = c->rule;
	uint64_t taken = 0, kept = 0;

	if (!former) {
		for (size_t i = 0; i < r->n_targets; i++)
			c->numbers[i] = i;
		return;
	}
	read_targets(a, former, had);
	for (size_t i = 0; i < r->n_targets; i++) {
		struct target t = target_of(r, &r->targets[i]);

		for (uint32_t n = 0; n < BALANCE_TARGETS && !(kept & 1ULL << i); n++) {
			if (taken & 1ULL << n || memcmp(&had[n], &t, sizeof(t)) != 0)
				continue;
			c->numbers[i] = n;
			taken |= 1ULL << n;
			kept |= 1ULL << i;
		}
	}
	/* Those that leave may have flows. */
	for (uint32_t n = 0; n < BALANCE_TARGETS; n++)
		if (had[n].flags & TARGET_SET)
			taken |= 1ULL << n;
	for (size_t i = 0; i < r->n_targets; i++) {
		if (kept & 1ULL << i)
			continue;
		c->numbers[i] = free_number(a, c->id, taken);
		taken |= 1ULL << c->numbers[i];
	}
}

uint32_t apply_target_number(const struct apply *a, uint32_t rule, size_t target)
{
	return rule < RULE_COUNT && a->compiled[rule] ? a->compiled[rule]->numbers[target] : 0;
}

void apply_clear_targets(struct apply *a, uint32_t rule)
{
	for (uint32_t n = 1; n <= TARGETS_GONE; n++)
		datapath_target_delete(a->datapath, TARGET_KEY(rule, n));
}

/* ---- actions ---- */

/* Before the action: packets that see the action find its targets. */
static int write_balance(struct apply *a, uint32_t id, const struct compiled *c)
{
	const struct rule *r = c->rule;
	struct balance balance = {0};
	int e;

	for (size_t i = 0; i < r->n_targets; i++)
		balance.targets[c->numbers[i]] = target_of(r, &r->targets[i]);
	balance_fill(r, balance.slots);
	for (size_t i = 0; i < BALANCE_SLOTS; i++)
		balance.slots[i] = c->numbers[balance.slots[i]];
	e = apply_garbage_add(&a->written, GARBAGE_BALANCE, id, NULL);
	return e < 0 ? e : datapath_balance_set(a->datapath, id, &balance);
}

static void write_limit(struct action *action, enum limit_kind kind, const struct rule_limit *l)
{
	static const uint8_t flags[LIMIT_KINDS] = {
		[LIMIT_RULE] = ACTION_LIMITED,
		[LIMIT_SOURCE] = ACTION_LIMITED_BY_SOURCE,
	};
	struct limit *limit = &action->limits[kind];

	if (!l->max_flows && !l->rate)
		return;
	action->flags |= flags[kind];
	limit->max_flows = l->max_flows;
	if (!l->rate)
		return;
	limit->interval_ns = l->rate_seconds * 1000000000ULL / l->rate;
	limit->tolerance_ns = (rule_limit_burst(l) - 1) * limit->interval_ns;
}

static void write_action(struct apply *a, const struct compiled *c)
{
	struct action *action = &datapath_actions(a->datapath)[c->action];
	const struct rule *r = c->rule;

	memset(action, 0, sizeof(*action));
	action->rule = c->id;
	action->listen_first = r->ports.first;
	if (r->masquerade)
		action->flags |= ACTION_MASQUERADE;
	if (r->snat.family) {
		action->flags |= ACTION_SNAT;
		ip_prefix_to_mapped(&r->snat, (uint8_t *)action->snat);
	}
	write_limit(action, LIMIT_RULE, &r->limits[RULE_LIMIT_ALL]);
	write_limit(action, LIMIT_SOURCE, &r->limits[RULE_LIMIT_SOURCE]);
	if (r->n_targets == 1) {
		action->number = c->numbers[0];
		action->target = target_of(r, &r->targets[0]);
		return;
	}
	action->flags |= ACTION_BALANCE;
	if (r->balance == RULE_BALANCE_RANDOM)
		action->flags |= ACTION_RANDOM;
}

static void explain(struct diag *diag, const struct compiled *c, int r)
{
	_cleanup_(freep) char *text = NULL;

	if (r == -E2BIG && rule_format(c->rule, &text) == 0)
		diag_add(diag, DIAG_FAILED, NULL, NULL,
			 "no room for \"%s\": at most %d rules can have several targets", text,
			 BALANCE_COUNT);
}

int action_write(struct apply *a, struct compiled *c, const struct compiled *before,
		 struct diag *diag)
{
	int r = 0;

	c->action = apply_take_id(&a->actions);
	if (!c->action)
		return -ENOSPC;
	number_targets(a, c, before);
	if (c->rule->n_targets > 1)
		r = write_balance(a, c->action, c);
	if (r < 0) {
		explain(diag, c, r);
		return r == -E2BIG ? -ENOSPC : r;
	}
	write_action(a, c);
	return 0;
}

int action_leave(struct apply *a, uint32_t id)
{
	int r = 0;

	a->actions.used[id] = ID_LEAVING;
	/* First the targets: once the id is free it may be another rule's. */
	if (datapath_actions(a->datapath)[id].flags & ACTION_BALANCE)
		r = apply_garbage_add(&a->garbage, GARBAGE_BALANCE, id, NULL);
	return r < 0 ? r : apply_garbage_add(&a->garbage, GARBAGE_ACTION, id, NULL);
}
