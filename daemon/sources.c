// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/sources.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/datapath.h"
#include "daemon/netlink.h"
#include "daemon/source-choice.h"

struct sources {
	struct datapath *datapath;
	struct source_entry *entries; /* what the map holds, ordered */
	size_t n_entries;
	struct source_address *addresses; /* of the dump that runs */
	size_t n_addresses, allocated;
};

static struct ip_prefix prefix_of(uint8_t family, const struct rtattr *a, uint8_t length)
{
	struct ip_prefix p = {.family = family, .length = length};

	memcpy(p.bytes, RTA_DATA(a), family == AF_INET ? 4 : 16);
	ip_prefix_clear_host_bits(&p);
	return p;
}

static bool is_long_enough(uint8_t family, const struct rtattr *a)
{
	return a && RTA_PAYLOAD(a) >= (family == AF_INET ? 4 : 16);
}

static uint32_t flags_of(const struct nlmsghdr *m, const struct ifaddrmsg *info)
{
	const struct rtattr *flags = netlink_attribute(m, sizeof(*info), IFA_FLAGS);
	uint32_t all = info->ifa_flags;

	if (flags && RTA_PAYLOAD(flags) >= sizeof(all))
		memcpy(&all, RTA_DATA(flags), sizeof(all));
	return all;
}

/* One address of a dump. With a peer, IFA_ADDRESS is the peer's and IFA_LOCAL our own. */
static int on_address(const struct nlmsghdr *m, void *userdata)
{
	const struct ifaddrmsg *info = NLMSG_DATA(m);
	const struct rtattr *peer = netlink_attribute(m, sizeof(*info), IFA_ADDRESS);
	const struct rtattr *local = netlink_attribute(m, sizeof(*info), IFA_LOCAL);
	uint8_t family = info->ifa_family;
	struct sources *s = userdata;
	struct source_address *a;

	if (m->nlmsg_type != RTM_NEWADDR || (family != AF_INET && family != AF_INET6))
		return 0;
	if (!local)
		local = peer;
	if (!is_long_enough(family, peer) || !is_long_enough(family, local))
		return 0;
	if (s->n_addresses == s->allocated) {
		a = reallocarray(s->addresses, 2 * s->allocated + 16, sizeof(*a));
		if (!a)
			return -ENOMEM;
		s->addresses = a;
		s->allocated = 2 * s->allocated + 16;
	}
	s->addresses[s->n_addresses++] = (struct source_address){
		.ifindex = info->ifa_index,
		.address = prefix_of(family, local, family == AF_INET ? 32 : 128),
		.subnet = prefix_of(family, peer, info->ifa_prefixlen),
		.flags = flags_of(m, info),
		.scope = info->ifa_scope,
	};
	return 0;
}

static const struct source_entry *find(const struct source_entry *entries, size_t n,
				       const struct source_entry *like)
{
	return n ? bsearch(like, entries, n, sizeof(*entries), source_entry_compare) : NULL;
}

/* Both are ordered. Adds first, so that no packet is without a source in between. */
static int change(struct sources *s, const struct source_entry *wanted, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct source_entry *had = find(s->entries, s->n_entries, &wanted[i]);

		if (!had || memcmp(&had->value, &wanted[i].value, sizeof(had->value)) != 0)
			r = datapath_source_set(s->datapath, &wanted[i].key, &wanted[i].value);
	}
	for (size_t i = 0; r == 0 && i < s->n_entries; i++)
		if (!find(wanted, n, &s->entries[i]))
			r = datapath_source_delete(s->datapath, &s->entries[i].key);
	return r;
}

/* What the map holds, also after a change that failed half-way. */
static int read_map(struct sources *s)
{
	struct source_entry *entries = NULL, *more;
	struct source_key *last = NULL;
	size_t n = 0, allocated = 0;

	for (;;) {
		if (n == allocated) {
			allocated = 2 * allocated + 64;
			more = reallocarray(entries, allocated, sizeof(*more));
			if (!more) {
				free(entries);
				return -ENOMEM;
			}
			entries = more;
			last = n ? &entries[n - 1].key : NULL;
		}
		if (datapath_source_next(s->datapath, last, &entries[n].key, &entries[n].value) < 0)
			break;
		last = &entries[n++].key;
	}
	qsort(entries, n, sizeof(*entries), source_entry_compare);
	free(s->entries);
	s->entries = entries;
	s->n_entries = n;
	return 0;
}

static void begin_addresses(void *userdata)
{
	((struct sources *)userdata)->n_addresses = 0;
}

int sources_sync(struct sources *s)
{
	static const struct netlink_reader reader = {begin_addresses, on_address};
	struct ifaddrmsg body = {.ifa_family = AF_UNSPEC};
	_cleanup_(freep) struct source_entry *wanted = NULL;
	size_t n;
	int r;

	r = netlink_dump(RTM_GETADDR, &body, sizeof(body), &reader, s);
	if (r == 0)
		r = source_choice(s->addresses, s->n_addresses, &wanted, &n);
	if (r < 0)
		return r;
	r = change(s, wanted, n);
	if (r < 0) {
		read_map(s);
		return r;
	}
	free(s->entries);
	s->entries = take_ptr(wanted);
	s->n_entries = n;
	return 0;
}

int sources_new(struct datapath *d, struct sources **ret)
{
	_cleanup_(sources_freep) struct sources *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->datapath = d;
	r = read_map(s);
	if (r < 0)
		return r;
	*ret = take_ptr(s);
	return 0;
}

struct sources *sources_free(struct sources *s)
{
	if (!s)
		return NULL;
	free(s->entries);
	free(s->addresses);
	free(s);
	return NULL;
}
