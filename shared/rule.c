/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rule as a value: release, copy, equality, canonical text. Reading it from a text is in
 * rule-parse.c, what two rules are to each other in rule-check.c.
 */
#include "shared/rule.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/duration.h"

struct rule *rule_free(struct rule *r)
{
	if (!r)
		return NULL;
	free(r->targets);
	free(r->interfaces);
	free(r->from);
	free(r);
	return NULL;
}

/* malloc(0) may return NULL; an empty list is NULL by itself. */
static int rule_copy_array(const void *from, size_t n, size_t size, void **ret)
{
	void *copy = NULL;

	if (n > 0) {
		copy = reallocarray(NULL, n, size);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, from, n * size);
	}
	*ret = copy;
	return 0;
}

int rule_copy(const struct rule *r, struct rule **ret)
{
	_cleanup_(rule_freep) struct rule *copy = malloc(sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	*copy = *r;
	copy->targets = NULL;
	copy->interfaces = NULL;
	copy->from = NULL;
	if (rule_copy_array(r->targets, r->n_targets, sizeof(*r->targets),
			    (void **)&copy->targets) < 0 ||
	    rule_copy_array(r->interfaces, r->n_interfaces, sizeof(*r->interfaces),
			    (void **)&copy->interfaces) < 0 ||
	    rule_copy_array(r->from, r->n_from, sizeof(*r->from), (void **)&copy->from) < 0)
		return -ENOMEM;
	*ret = take_ptr(copy);
	return 0;
}

static bool rule_ports_equal(const struct port_range *a, const struct port_range *b)
{
	return a->first == b->first && a->last == b->last;
}

static bool rule_targets_equal(const struct rule *a, const struct rule *b)
{
	if (a->n_targets != b->n_targets)
		return false;
	for (size_t i = 0; i < a->n_targets; i++)
		if (!ip_prefix_equal(&a->targets[i].address, &b->targets[i].address) ||
		    !rule_ports_equal(&a->targets[i].ports, &b->targets[i].ports) ||
		    a->targets[i].weight != b->targets[i].weight)
			return false;
	return true;
}

static bool rule_has_interface(const struct rule *r, const char *name)
{
	for (size_t i = 0; i < r->n_interfaces; i++)
		if (strcmp(r->interfaces[i], name) == 0)
			return true;
	return false;
}

static bool rule_has_from(const struct rule *r, const struct ip_prefix *prefix)
{
	for (size_t i = 0; i < r->n_from; i++)
		if (ip_prefix_equal(&r->from[i], prefix))
			return true;
	return false;
}

/* As sets: no list holds anything twice, so equal sizes and one inclusion suffice. */
static bool rule_lists_equal(const struct rule *a, const struct rule *b)
{
	if (a->n_interfaces != b->n_interfaces || a->n_from != b->n_from)
		return false;
	for (size_t i = 0; i < a->n_interfaces; i++)
		if (!rule_has_interface(b, a->interfaces[i]))
			return false;
	for (size_t i = 0; i < a->n_from; i++)
		if (!rule_has_from(b, &a->from[i]))
			return false;
	return true;
}

static bool rule_options_equal(const struct rule *a, const struct rule *b)
{
	return strcmp(a->name, b->name) == 0 && a->masquerade == b->masquerade &&
	       ip_prefix_equal(&a->snat, &b->snat) && a->balance == b->balance &&
	       a->max_flows == b->max_flows && a->rate == b->rate && a->on_change == b->on_change &&
	       a->drain_seconds == b->drain_seconds && a->disabled == b->disabled;
}

bool rule_takes_same(const struct rule *a, const struct rule *b)
{
	return a->protocols == b->protocols && a->listen == b->listen &&
	       rule_ports_equal(&a->ports, &b->ports) &&
	       ip_prefix_equal(&a->listen_prefix, &b->listen_prefix) && rule_lists_equal(a, b);
}

bool rule_equal(const struct rule *a, const struct rule *b)
{
	return rule_takes_same(a, b) && rule_targets_equal(a, b) && rule_options_equal(a, b);
}

static void rule_print_ports(FILE *out, const struct port_range *ports)
{
	fprintf(out, "%u", ports->first);
	if (ports->last != ports->first)
		fprintf(out, "-%u", ports->last);
}

static void rule_print_listen(FILE *out, const struct rule *r)
{
	static const char *const protocols[] = {
		[RULE_TCP] = "tcp", [RULE_UDP] = "udp", [RULE_TCP | RULE_UDP] = "tcp+udp"};
	char buffer[IP_PREFIX_STRLEN];

	fprintf(out, "%s ", protocols[r->protocols]);
	switch (r->listen) {
	case RULE_LISTEN_LOCAL:
		break;
	case RULE_LISTEN_PREFIX:
		fprintf(out, "%s:", ip_prefix_format(&r->listen_prefix, buffer));
		break;
	case RULE_LISTEN_ANY:
		fputs("*:", out);
		break;
	}
	rule_print_ports(out, &r->ports);
}

static void rule_print_targets(FILE *out, const struct rule *r)
{
	char buffer[IP_PREFIX_STRLEN];

	for (size_t i = 0; i < r->n_targets; i++) {
		const struct rule_target *t = &r->targets[i];

		fputs(i == 0 ? " to " : ",", out);
		if (t->address.family != 0)
			fprintf(out, "%s:", ip_prefix_format(&t->address, buffer));
		rule_print_ports(out, &t->ports);
		if (t->weight != 1)
			fprintf(out, " weight %" PRIu32, t->weight);
	}
}

static void rule_print_lists(FILE *out, const struct rule *r)
{
	char buffer[IP_PREFIX_STRLEN];

	for (size_t i = 0; i < r->n_interfaces; i++)
		fprintf(out, "%s%s", i == 0 ? " on " : ",", r->interfaces[i]);
	for (size_t i = 0; i < r->n_from; i++)
		fprintf(out, "%s%s", i == 0 ? " from " : ",",
			ip_prefix_format(&r->from[i], buffer));
}

static void rule_print_on_change(FILE *out, const struct rule *r)
{
	char buffer[DURATION_STRLEN];

	switch (r->on_change) {
	case RULE_ON_CHANGE_KEEP:
		break;
	case RULE_ON_CHANGE_DRAIN:
		fprintf(out, " on-change drain %s",
			duration_format(r->drain_seconds * UINT64_C(1000), buffer));
		break;
	case RULE_ON_CHANGE_RESET:
		fputs(" on-change reset", out);
		break;
	}
}

/* In the order of the contract's table, so that one rule has one text. */
static void rule_print_options(FILE *out, const struct rule *r)
{
	static const char *const balances[] = {
		[RULE_BALANCE_HASH] = NULL,
		[RULE_BALANCE_RANDOM] = "random",
		[RULE_BALANCE_MAGLEV] = "maglev",
	};
	char buffer[IP_PREFIX_STRLEN];

	if (r->name[0])
		fprintf(out, " name %s", r->name);
	if (r->masquerade)
		fputs(" masquerade", out);
	if (r->snat.family != 0)
		fprintf(out, " snat %s", ip_prefix_format(&r->snat, buffer));
	if (balances[r->balance])
		fprintf(out, " balance %s", balances[r->balance]);
	if (r->max_flows)
		fprintf(out, " max-flows %" PRIu32, r->max_flows);
	if (r->rate)
		fprintf(out, " rate %" PRIu32 "/s", r->rate);
	rule_print_on_change(out, r);
	if (r->disabled)
		fputs(" disabled", out);
}

int rule_format(const struct rule *r, char **ret)
{
	_cleanup_(freep) char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	bool failed;

	if (!out)
		return -ENOMEM;
	rule_print_listen(out, r);
	rule_print_targets(out, r);
	rule_print_lists(out, r);
	rule_print_options(out, r);
	failed = ferror(out) != 0;
	if (fclose(out) != 0 || failed)
		return -ENOMEM;
	*ret = take_ptr(text);
	return 0;
}
