/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rule as a value: release, copy, equality, canonical text. Reading it from a text is in
 * rule-parse.c, what two rules are to each other in rule-check.c.
 */
#include "shared/rule.h"

#include <errno.h>
#include <string.h>

#include "shared/duration.h"
#include "shared/timeout.h"

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

static bool rule_limits_equal(const struct rule *a, const struct rule *b)
{
	for (unsigned i = 0; i < RULE_LIMIT_COUNT; i++)
		if (a->limits[i].max_flows != b->limits[i].max_flows ||
		    a->limits[i].rate != b->limits[i].rate ||
		    a->limits[i].rate_seconds != b->limits[i].rate_seconds ||
		    a->limits[i].burst != b->limits[i].burst)
			return false;
	return true;
}

static bool rule_options_equal(const struct rule *a, const struct rule *b)
{
	return strcmp(a->name, b->name) == 0 && a->masquerade == b->masquerade &&
	       ip_prefix_equal(&a->snat, &b->snat) && a->balance == b->balance &&
	       rule_limits_equal(a, b) &&
	       memcmp(a->timeouts, b->timeouts, sizeof(a->timeouts)) == 0 &&
	       a->on_change == b->on_change && a->drain_seconds == b->drain_seconds &&
	       a->disabled == b->disabled;
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

uint32_t rule_limit_burst(const struct rule_limit *l)
{
	return l->burst ? l->burst : l->rate;
}

/* ---- text ---- */

/*
 * A text that grows. Rules are printed by the ten thousand: a stream with its formats would cost
 * ten times as much.
 */
struct rule_text {
	char *data; /* owned */
	size_t length, allocated;
	bool failed;
};

static void put_bytes(struct rule_text *t, const char *bytes, size_t n)
{
	size_t size = t->allocated ? t->allocated : 96;
	char *data;

	while (size < t->length + n + 1)
		size *= 2;
	if (size != t->allocated) {
		data = realloc(t->data, size);
		t->failed = t->failed || !data;
		if (t->failed)
			return;
		t->data = data;
		t->allocated = size;
	}
	memcpy(t->data + t->length, bytes, n);
	t->length += n;
}

static void put(struct rule_text *t, const char *s)
{
	put_bytes(t, s, strlen(s));
}

static void put_number(struct rule_text *t, uint32_t n)
{
	char digits[10];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + n % 10);
	while (n /= 10);
	put_bytes(t, digits + at, sizeof(digits) - at);
}

static void put_prefix(struct rule_text *t, const struct ip_prefix *p)
{
	char buffer[IP_PREFIX_STRLEN];

	put(t, ip_prefix_format(p, buffer));
}

static void put_ports(struct rule_text *t, const struct port_range *ports)
{
	put_number(t, ports->first);
	if (ports->last == ports->first)
		return;
	put(t, "-");
	put_number(t, ports->last);
}

static void put_listen(struct rule_text *t, const struct rule *r)
{
	static const char *const protocols[] = {
		[RULE_TCP] = "tcp ", [RULE_UDP] = "udp ", [RULE_TCP | RULE_UDP] = "tcp+udp "};

	put(t, protocols[r->protocols]);
	switch (r->listen) {
	case RULE_LISTEN_LOCAL:
		break;
	case RULE_LISTEN_PREFIX:
		put_prefix(t, &r->listen_prefix);
		put(t, ":");
		break;
	case RULE_LISTEN_ANY:
		put(t, "*:");
		break;
	}
	put_ports(t, &r->ports);
}

static void put_targets(struct rule_text *t, const struct rule *r)
{
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct rule_target *target = &r->targets[i];

		put(t, i == 0 ? " to " : ",");
		if (target->address.family != 0) {
			put_prefix(t, &target->address);
			put(t, ":");
		}
		put_ports(t, &target->ports);
		if (target->weight != 1) {
			put(t, " weight ");
			put_number(t, target->weight);
		}
	}
}

static void put_lists(struct rule_text *t, const struct rule *r)
{
	for (size_t i = 0; i < r->n_interfaces; i++) {
		put(t, i == 0 ? " on " : ",");
		put(t, r->interfaces[i]);
	}
	for (size_t i = 0; i < r->n_from; i++) {
		put(t, i == 0 ? " from " : ",");
		put_prefix(t, &r->from[i]);
	}
}

static void put_on_change(struct rule_text *t, const struct rule *r)
{
	char buffer[DURATION_STRLEN];

	switch (r->on_change) {
	case RULE_ON_CHANGE_KEEP:
		break;
	case RULE_ON_CHANGE_DRAIN:
		put(t, " on-change drain ");
		put(t, duration_format(r->drain_seconds * UINT64_C(1000), buffer));
		break;
	case RULE_ON_CHANGE_RESET:
		put(t, " on-change reset");
		break;
	}
}

static const char *const limit_scopes[] = {
	[RULE_LIMIT_ALL] = "",
	[RULE_LIMIT_SOURCE] = " per source",
};

static void put_max_flows(struct rule_text *t, const struct rule_limit *l, const char *scope)
{
	if (!l->max_flows)
		return;
	put(t, " max-flows ");
	put_number(t, l->max_flows);
	put(t, scope);
}

static void put_rate(struct rule_text *t, const struct rule_limit *l, const char *scope)
{
	if (!l->rate)
		return;
	put(t, " rate ");
	put_number(t, l->rate);
	put(t, l->rate_seconds == 1 ? "/s" : l->rate_seconds == 60 ? "/m" : "/h");
	if (l->burst) {
		put(t, " burst ");
		put_number(t, l->burst);
	}
	put(t, scope);
}

static void put_limits(struct rule_text *t, const struct rule *r)
{
	for (unsigned i = 0; i < RULE_LIMIT_COUNT; i++)
		put_max_flows(t, &r->limits[i], limit_scopes[i]);
	for (unsigned i = 0; i < RULE_LIMIT_COUNT; i++)
		put_rate(t, &r->limits[i], limit_scopes[i]);
}

static void put_timeouts(struct rule_text *t, const struct rule *r)
{
	struct timeout_setting settings[TIMEOUT_NAMES];
	size_t n = timeout_list(r->timeouts, settings);
	char buffer[DURATION_STRLEN];

	for (size_t i = 0; i < n; i++) {
		put(t, " timeout ");
		put(t, settings[i].name->name);
		put(t, " ");
		put(t, duration_format(settings[i].seconds * UINT64_C(1000), buffer));
	}
}

/* In one order, so that one rule has one text. */
static void put_options(struct rule_text *t, const struct rule *r)
{
	static const char *const balances[] = {
		[RULE_BALANCE_HASH] = "",
		[RULE_BALANCE_RANDOM] = " balance random",
		[RULE_BALANCE_MAGLEV] = " balance maglev",
	};

	if (r->name[0]) {
		put(t, " name ");
		put(t, r->name);
	}
	if (r->masquerade)
		put(t, " masquerade");
	if (r->snat.family != 0) {
		put(t, " snat ");
		put_prefix(t, &r->snat);
	}
	put(t, balances[r->balance]);
	put_limits(t, r);
	put_timeouts(t, r);
	put_on_change(t, r);
	if (r->disabled)
		put(t, " disabled");
}

int rule_format(const struct rule *r, char **ret)
{
	struct rule_text t = {0};

	put_listen(&t, r);
	put_targets(&t, r);
	put_lists(&t, r);
	put_options(&t, r);
	if (t.failed) {
		free(t.data);
		return -ENOMEM;
	}
	t.data[t.length] = '\0';
	*ret = t.data;
	return 0;
}
