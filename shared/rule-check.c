/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What two rules are to each other: specificity, conflict. */
#include "shared/rule.h"

#include <string.h>

unsigned rule_interface_rank(const struct rule *r)
{
	return r->n_interfaces > 0;
}

unsigned rule_listen_rank(const struct rule *r)
{
	switch (r->listen) {
	case RULE_LISTEN_ANY:
		return 0;
	case RULE_LISTEN_LOCAL:
		return 1;
	case RULE_LISTEN_PREFIX:
		return 2U + r->listen_prefix.length;
	}
	return 0;
}

unsigned rule_source_rank(const struct ip_prefix *from)
{
	return from ? 1U + from->length : 0;
}

uint8_t rule_family(const struct rule *r)
{
	uint8_t family;

	if (r->listen == RULE_LISTEN_PREFIX)
		return r->listen_prefix.family;
	for (size_t i = 0; i < r->n_targets; i++)
		if (r->targets[i].address.family != 0)
			return r->targets[i].address.family;
	if (r->snat.family != 0)
		return r->snat.family;
	if (r->n_from == 0)
		return 0;
	/* `from` may hold both families; then it limits the rule to neither. */
	family = r->from[0].family;
	for (size_t i = 1; i < r->n_from; i++)
		if (r->from[i].family != family)
			return 0;
	return family;
}

static bool rule_families_meet(const struct rule *a, const struct rule *b)
{
	uint8_t family_a = rule_family(a), family_b = rule_family(b);

	return family_a == 0 || family_b == 0 || family_a == family_b;
}

static bool rule_ports_tie(const struct port_range *a, const struct port_range *b)
{
	return a->last - a->first == b->last - b->first && a->first <= b->last &&
	       b->first <= a->last;
}

static bool rule_interfaces_tie(const struct rule *a, const struct rule *b)
{
	if (rule_interface_rank(a) != rule_interface_rank(b))
		return false;
	if (a->n_interfaces == 0)
		return true;
	for (size_t i = 0; i < a->n_interfaces; i++)
		for (size_t j = 0; j < b->n_interfaces; j++)
			if (strcmp(a->interfaces[i], b->interfaces[j]) == 0)
				return true;
	return false;
}

static bool rule_listens_tie(const struct rule *a, const struct rule *b)
{
	if (rule_listen_rank(a) != rule_listen_rank(b))
		return false;
	/* Prefixes of one length overlap only when they are the same. */
	return a->listen != RULE_LISTEN_PREFIX ||
	       ip_prefix_equal(&a->listen_prefix, &b->listen_prefix);
}

/* Prefixes of one rank overlap only when they are the same. */
static bool rule_sources_tie(const struct rule *a, const struct rule *b)
{
	if (a->n_from == 0 || b->n_from == 0)
		return a->n_from == b->n_from;
	for (size_t i = 0; i < a->n_from; i++)
		for (size_t j = 0; j < b->n_from; j++)
			if (ip_prefix_equal(&a->from[i], &b->from[j]))
				return true;
	return false;
}

bool rule_conflicts(const struct rule *a, const struct rule *b)
{
	return (a->protocols & b->protocols) != 0 && rule_ports_tie(&a->ports, &b->ports) &&
	       rule_listens_tie(a, b) && rule_families_meet(a, b) && rule_interfaces_tie(a, b) &&
	       rule_sources_tie(a, b);
}
