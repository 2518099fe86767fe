// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * IPv4 as inet_select_addr() has it: the first primary address of the interface whose subnet holds
 * the next hop, else its first, else the first of any interface. IPv6 as ipv6_dev_get_saddr() has
 * it, by the rules of RFC 6724, 5.
 *
 * A trie finds the longest prefix, where the kernel takes the first address that fits. So the
 * entry of a subnet holds the first address that fits all of the subnet: prefixes that hold one
 * next hop lie in each other, and those that fit the next hop are those that fit its longest one.
 *
 * Link-local addresses are nobody's source here: what is masqueraded goes beyond the link. Nor is
 * there an entry for fe80::/10, since a next hop in there is a router on the way to anywhere.
 */
#include "daemon/source-choice.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "shared/cleanup.h"

#define INTERFACE_ANY 0 /* for interfaces without an address of the family */

static const struct ip_prefix all_ipv4 = {.family = AF_INET};
static const struct ip_prefix all_ipv6 = {.family = AF_INET6};
static const struct ip_prefix unique_local = {.family = AF_INET6, .length = 7, .bytes = {0xfc}};
static const struct ip_prefix loopback = {.family = AF_INET, .length = 8, .bytes = {127}};

static bool is_usable(const struct source_address *a)
{
	if (a->scope > RT_SCOPE_SITE || ip_prefix_contains(&loopback, &a->address))
		return false;
	if (a->address.family == AF_INET)
		return !(a->flags & IFA_F_SECONDARY);
	/* An optimistic one is tentative as well: it may still turn out to be somebody else's. */
	return !(a->flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED));
}

/* A deprecated one (rule 3) is worse than one of another interface (rule 5): for want of any. */
static bool is_for_its_interface(const struct source_address *a)
{
	return a->address.family == AF_INET || !(a->flags & IFA_F_DEPRECATED);
}

static unsigned common_bits(const struct ip_prefix *a, const struct ip_prefix *b)
{
	unsigned bits = 0, most = a->length < b->length ? a->length : b->length;

	for (; bits < most; bits++)
		if ((a->bytes[bits / 8] ^ b->bytes[bits / 8]) & 0x80 >> bits % 8)
			break;
	return bits;
}

static bool is_unique_local(const struct ip_prefix *p)
{
	return ip_prefix_contains(&unique_local, p);
}

/* What counts against an address as the source towards a prefix, the weightiest first. */
#define CRITERIA 5
struct faults {
	unsigned of[CRITERIA];
};

static struct faults faults_of(const struct source_address *a, const struct ip_prefix *to)
{
	bool site = a->scope != RT_SCOPE_UNIVERSE;

	if (a->address.family == AF_INET)
		return (struct faults){{site, !ip_prefix_contains(&a->subnet, to)}};
	return (struct faults){{
		site, !!(a->flags & IFA_F_DEPRECATED),		     /* rule 3 */
		is_unique_local(&a->address) != is_unique_local(to), /* rule 6, labels */
		!!(a->flags & IFA_F_TEMPORARY),			     /* rule 7 */
		128 - common_bits(&a->subnet, to),		     /* rule 8 */
	}};
}

static bool is_better(const struct source_address *a, const struct source_address *b,
		      const struct ip_prefix *to)
{
	struct faults left = faults_of(a, to), right = faults_of(b, to);

	for (int i = 0; i < CRITERIA; i++)
		if (left.of[i] != right.of[i])
			return left.of[i] < right.of[i];
	return false;
}

static const struct source_address *choose(uint32_t ifindex, const struct source_address *all,
					   size_t n, const struct ip_prefix *to)
{
	const struct source_address *best = NULL;

	for (size_t i = 0; i < n; i++) {
		if (all[i].address.family != to->family ||
		    (ifindex != INTERFACE_ANY && !is_for_its_interface(&all[i])))
			continue;
		if (!best || is_better(&all[i], best, to))
			best = &all[i];
	}
	return best;
}

static void add_entry(struct source_entry *entries, size_t *n, uint32_t ifindex,
		      const struct ip_prefix *to, const struct source_address *all, size_t n_all)
{
	const struct source_address *source = choose(ifindex, all, n_all, to);
	struct source_entry *e = &entries[*n];

	if (!source)
		return;
	memset(e, 0, sizeof(*e));
	e->key.length = 32 + (to->family == AF_INET ? 96 : 0) + to->length;
	e->key.ifindex = ifindex;
	ip_prefix_to_mapped(to, (uint8_t *)e->key.addr);
	ip_prefix_to_mapped(&source->address, (uint8_t *)e->value.addr);
	(*n)++;
}

#define GENERAL_MAX 3

/* For destinations of no subnet: of IPv6 two kinds, so that a private one is met by its like. */
static void add_general(struct source_entry *entries, size_t *n, uint32_t ifindex,
			const struct source_address *all, size_t n_all)
{
	const struct ip_prefix *const to[GENERAL_MAX] = {&all_ipv4, &all_ipv6, &unique_local};

	for (int i = 0; i < GENERAL_MAX; i++)
		add_entry(entries, n, ifindex, to[i], all, n_all);
}

/* `own` are the addresses of one interface. */
static void add_interface(struct source_entry *entries, size_t *n, const struct source_address *own,
			  size_t n_own)
{
	add_general(entries, n, own[0].ifindex, own, n_own);
	for (size_t i = 0; i < n_own; i++)
		add_entry(entries, n, own[0].ifindex, &own[i].subnet, own, n_own);
}

int source_entry_compare(const void *a, const void *b)
{
	return memcmp(&((const struct source_entry *)a)->key,
		      &((const struct source_entry *)b)->key, sizeof(struct source_key));
}

static int compare_interface(const void *left, const void *right)
{
	const struct source_address *const *a = left, *const *b = right;

	if ((*a)->ifindex != (*b)->ifindex)
		return (*a)->ifindex < (*b)->ifindex ? -1 : 1;
	return (*a > *b) - (*a < *b); /* in the order that they were in */
}

/* The usable ones, by interface. Lo, where routers bear an address of their own, is the first. */
static int sort_usable(const struct source_address *addresses, size_t n, struct source_address *ret,
		       size_t *ret_n)
{
	const struct source_address **order = calloc(n + 1, sizeof(const struct source_address *));
	size_t usable = 0;

	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (is_usable(&addresses[i]))
			order[usable++] = &addresses[i];
	qsort(order, usable, sizeof(*order), compare_interface);
	for (size_t i = 0; i < usable; i++)
		ret[i] = *order[i];
	free(order);
	*ret_n = usable;
	return 0;
}

static size_t end_of_interface(const struct source_address *addresses, size_t n, size_t first)
{
	size_t end = first;

	while (end < n && addresses[end].ifindex == addresses[first].ifindex)
		end++;
	return end;
}

static size_t unique(struct source_entry *entries, size_t n)
{
	size_t kept = 0;

	qsort(entries, n, sizeof(*entries), source_entry_compare);
	for (size_t i = 0; i < n; i++)
		if (!kept || source_entry_compare(&entries[kept - 1], &entries[i]) != 0)
			entries[kept++] = entries[i];
	return kept;
}

int source_choice(const struct source_address *addresses, size_t n, struct source_entry **ret,
		  size_t *ret_n)
{
	_cleanup_(freep) struct source_address *usable = calloc(n + 1, sizeof(*usable));
	/* Of each address its subnet's, and of its interface the general ones, at the most. */
	_cleanup_(freep) struct source_entry *entries =
		calloc((n + 1) * (1 + GENERAL_MAX), sizeof(*entries));
	size_t n_usable, n_entries = 0, end;
	int r;

	if (!usable || !entries)
		return -ENOMEM;
	r = sort_usable(addresses, n, usable, &n_usable);
	if (r < 0)
		return r;
	add_general(entries, &n_entries, INTERFACE_ANY, usable, n_usable);
	for (size_t i = 0; i < n_usable; i = end) {
		end = end_of_interface(usable, n_usable, i);
		add_interface(entries, &n_entries, &usable[i], end - i);
	}
	*ret_n = unique(entries, n_entries);
	*ret = take_ptr(entries);
	return 0;
}
