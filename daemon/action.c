// SPDX-License-Identifier: GPL-2.0-or-later
/* What a rule does with its flows: from targets and options to struct action and struct balance. */
#include <errno.h>
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/balance.h"
#include "daemon/datapath.h"

static struct target target_of(const struct rule *r, const struct rule_target *t)
{
	struct target target = {.port_first = t->ports.first};

	if (t->address.family) {
		target.flags |= TARGET_ADDRESS;
		ip_prefix_to_mapped(&t->address, (uint8_t *)target.addr);
	}
	if (r->ports.first != r->ports.last && t->ports.first == t->ports.last)
		target.flags |= TARGET_FOLDED;
	return target;
}

/* Before the action: packets that see the action find its targets. */
static int write_balance(struct apply *a, uint32_t id, const struct rule *r)
{
	struct balance balance = {0};
	int e;

	for (size_t i = 0; i < r->n_targets; i++)
		balance.targets[i] = target_of(r, &r->targets[i]);
	balance_fill(r, balance.slots);
	e = apply_garbage_add(&a->written, GARBAGE_BALANCE, id, NULL);
	return e < 0 ? e : datapath_balance_set(a->datapath, id, &balance);
}

static void write_action(struct apply *a, uint32_t id, uint32_t rule_id, const struct rule *r)
{
	struct action *action = &datapath_actions(a->datapath)[id];

	memset(action, 0, sizeof(*action));
	action->rule = rule_id;
	action->listen_first = r->ports.first;
	if (r->masquerade)
		action->flags |= ACTION_MASQUERADE;
	if (r->snat.family) {
		action->flags |= ACTION_SNAT;
		ip_prefix_to_mapped(&r->snat, (uint8_t *)action->snat);
	}
	if (r->n_targets == 1) {
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

int action_write(struct apply *a, struct compiled *c, struct diag *diag)
{
	int r = 0;

	c->action = apply_take_id(&a->actions);
	if (!c->action)
		return -ENOSPC;
	if (c->rule->n_targets > 1)
		r = write_balance(a, c->action, c->rule);
	if (r < 0) {
		explain(diag, c, r);
		return r == -E2BIG ? -ENOSPC : r;
	}
	write_action(a, c->action, c->id, c->rule);
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
