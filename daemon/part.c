// SPDX-License-Identifier: GPL-2.0-or-later
/* What a rule contributes to its ports: parts, each a shape and a key within it. */
#include <arpa/inet.h>
#include <string.h>

#include "daemon/apply-private.h"

/* The length of a prefix in the 128-bit form. */
static uint8_t mapped_length(const struct ip_prefix *p)
{
	return p->family == AF_INET ? p->length + 96 : p->length;
}

/* The contract's order. A narrower range is preferred among equal parts. */
static uint32_t part_rank(const struct rule *r, const struct ip_prefix *from)
{
	return rule_interface_rank(r) << 24 | rule_listen_rank(r) << 12 | rule_source_rank(from);
}

static uint8_t family_flag(uint8_t family)
{
	return family == AF_INET ? SHAPE_IPV4 : family == AF_INET6 ? SHAPE_IPV6 : 0;
}

static void part_make(const struct compiled *c, uint32_t ifindex, const struct ip_prefix *from,
		      struct part *ret)
{
	const struct rule *r = c->rule;

	memset(ret, 0, sizeof(*ret));
	ret->from = c;
	if (ifindex) {
		ret->flags |= SHAPE_INTERFACE;
		ret->key.ifindex = ifindex;
	}
	if (r->listen == RULE_LISTEN_LOCAL)
		ret->flags |= SHAPE_LOCAL;
	if (r->listen == RULE_LISTEN_PREFIX) {
		ret->dst_length = mapped_length(&r->listen_prefix);
		ip_prefix_to_mapped(&r->listen_prefix, (uint8_t *)ret->key.daddr);
	}
	if (from) {
		ret->src_length = mapped_length(from);
		ip_prefix_to_mapped(from, (uint8_t *)ret->key.saddr);
	}
	ret->flags |= family_flag(from ? from->family : rule_family(r));
	ret->rank = part_rank(r, from);
}

/* Every combination of the rule's interfaces and sources. */
size_t part_count(const struct compiled *c)
{
	return (c->n_ifindexes ? c->n_ifindexes : 1) * (c->rule->n_from ? c->rule->n_from : 1);
}

void part_get(const struct compiled *c, size_t i, struct part *ret)
{
	size_t n_from = c->rule->n_from ? c->rule->n_from : 1;

	part_make(c, c->n_ifindexes ? c->ifindexes[i / n_from] : 0,
		  c->rule->n_from ? &c->rule->from[i % n_from] : NULL, ret);
}

bool part_has_key(const struct part *p)
{
	return p->flags & SHAPE_INTERFACE || p->dst_length || p->src_length;
}

bool part_same_place(const struct compiled *a, const struct compiled *b)
{
	size_t n = part_count(a);
	struct part one, other;

	if (n != part_count(b) || a->rule->protocols != b->rule->protocols ||
	    memcmp(&a->rule->ports, &b->rule->ports, sizeof(a->rule->ports)) != 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		part_get(a, i, &one);
		part_get(b, i, &other);
		if (part_compare_shape(&one, &other) != 0 ||
		    memcmp(&one.key, &other.key, sizeof(one.key)) != 0)
			return false;
	}
	return true;
}

int part_compare_shape(const struct part *a, const struct part *b)
{
	if (a->rank != b->rank)
		return a->rank > b->rank ? -1 : 1;
	if (a->flags != b->flags)
		return a->flags < b->flags ? -1 : 1;
	if (a->dst_length != b->dst_length)
		return a->dst_length < b->dst_length ? -1 : 1;
	return (a->src_length > b->src_length) - (a->src_length < b->src_length);
}

/* By shape, most specific first; then by key; the narrower range first, since it wins. */
int part_compare(const void *left, const void *right)
{
	const struct part *a = left, *b = right;
	int wide_a = a->from->rule->ports.last - a->from->rule->ports.first;
	int wide_b = b->from->rule->ports.last - b->from->rule->ports.first;
	int r = part_compare_shape(a, b);

	if (!r)
		r = memcmp(&a->key, &b->key, sizeof(a->key));
	return r ? r : wide_a - wide_b;
}
