// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/links.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "daemon/datapath.h"
#include "daemon/netlink.h"
#include "daemon/sources.h"
#include "shared/addr.h"
#include "shared/log.h"

#define GROUPS                                                                                     \
	(RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_IFADDR |                \
	 RTMGRP_IPV6_IFADDR)

struct link_entry {
	uint32_t ifindex;
	char name[IFNAMSIZ];
	bool ethernet, seen;
};

struct links {
	struct datapath *datapath;
	struct links_handler handler;
	sd_event_source *source;
	int fd;
	struct link_entry *entries;
	size_t n_entries;
	struct local_key *locals; /* of the last dump, ordered, or of the one that runs */
	size_t n_locals;
	size_t n_locals_kept; /* of these, in front: those of the family that was dumped before */
	bool links_stale;     /* interfaces are to be looked at anew */
	bool locals_stale;    /* a route or address changed */
	bool locals_lost;     /* some are gone, of which the owner has not been told yet */
	struct sources *sources;
	bool sources_stale; /* an address changed */
};

static struct link_entry *find_index(const struct links *l, uint32_t ifindex)
{
	for (size_t i = 0; i < l->n_entries; i++)
		if (l->entries[i].ifindex == ifindex)
			return &l->entries[i];
	return NULL;
}

uint32_t links_index(const struct links *l, const char *name)
{
	for (size_t i = 0; i < l->n_entries; i++)
		if (strcmp(l->entries[i].name, name) == 0)
			return l->entries[i].ifindex;
	return 0;
}

const char *links_name(const struct links *l, uint32_t ifindex)
{
	const struct link_entry *e = find_index(l, ifindex);

	return e ? e->name : NULL;
}

const char *links_nth(const struct links *l, size_t n, uint32_t *ret_ifindex)
{
	if (n >= l->n_entries)
		return NULL;
	*ret_ifindex = l->entries[n].ifindex;
	return l->entries[n].name;
}

enum framing {
	FRAMING_ETHERNET,
	FRAMING_NONE,
	FRAMING_OTHER, /* neither: nothing of ours to do there */
};

/* What a packet begins with at the TC hooks, by the device's hardware type (if_arp.h). */
static enum framing framing_of(uint16_t type)
{
	switch (type) {
	case ARPHRD_ETHER:
	case ARPHRD_LOOPBACK:
		return FRAMING_ETHERNET;
	case ARPHRD_NONE:
	case ARPHRD_PPP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
	case ARPHRD_IPGRE:
	case ARPHRD_IP6GRE:
	case ARPHRD_RAWIP:
		return FRAMING_NONE;
	}
	return FRAMING_OTHER;
}

static void link_gone(struct links *l, struct link_entry *e)
{
	struct link_entry was = *e;

	*e = l->entries[--l->n_entries];
	l->handler.gone(l->handler.userdata, was.ifindex, was.name);
}

static int link_new(struct links *l, uint32_t ifindex, const char *name, bool ethernet)
{
	struct link_entry *e = find_index(l, ifindex);

	if (e && strcmp(e->name, name) == 0) {
		e->seen = true;
		return 0;
	}
	if (!e) {
		e = reallocarray(l->entries, l->n_entries + 1, sizeof(*e));
		if (!e)
			return -ENOMEM;
		l->entries = e;
		e = &l->entries[l->n_entries++];
	}
	memset(e, 0, sizeof(*e));
	e->ifindex = ifindex;
	e->ethernet = ethernet;
	e->seen = true;
	strncpy(e->name, name, sizeof(e->name) - 1);
	l->handler.appeared(l->handler.userdata, ifindex, e->name, ethernet);
	return 0;
}

static int on_link(struct links *l, const struct nlmsghdr *m)
{
	const struct ifinfomsg *info = NLMSG_DATA(m);
	const struct rtattr *name = netlink_attribute(m, sizeof(*info), IFLA_IFNAME);
	enum framing framing = framing_of(info->ifi_type);

	/* RTM_NEWLINK of a bridge port (AF_BRIDGE) tells nothing of the interface itself. */
	if (info->ifi_family != AF_UNSPEC || !name || framing == FRAMING_OTHER)
		return 0;
	if (m->nlmsg_type == RTM_NEWLINK)
		return link_new(l, info->ifi_index, RTA_DATA(name), framing == FRAMING_ETHERNET);
	struct link_entry *e = find_index(l, info->ifi_index);

	if (e)
		link_gone(l, e);
	return 0;
}

/* One route of a dump: kept when it says that a destination is this host's. */
static int on_route(const struct nlmsghdr *m, void *userdata)
{
	struct links *l = userdata;
	const struct rtmsg *route = NLMSG_DATA(m);
	const struct rtattr *dst = netlink_attribute(m, sizeof(*route), RTA_DST);
	struct local_key *key;

	if (m->nlmsg_type != RTM_NEWROUTE || route->rtm_type != RTN_LOCAL)
		return 0;
	key = reallocarray(l->locals, l->n_locals + 1, sizeof(*key));
	if (!key)
		return -ENOMEM;
	l->locals = key;
	key = &l->locals[l->n_locals++];
	memset(key, 0, sizeof(*key));
	if (route->rtm_family == AF_INET) {
		key->length = 96 + route->rtm_dst_len;
		key->addr[2] = htonl(0xffff);
		if (dst)
			memcpy(&key->addr[3], RTA_DATA(dst), 4);
	} else {
		key->length = route->rtm_dst_len;
		if (dst)
			memcpy(key->addr, RTA_DATA(dst), 16);
	}
	return 0;
}

static void begin_locals(void *userdata)
{
	struct links *l = userdata;

	l->n_locals = l->n_locals_kept;
}

static int dump_locals(struct links *l)
{
	static const struct netlink_reader reader = {begin_locals, on_route};
	static const uint8_t families[] = {AF_INET, AF_INET6};
	int r = 0;

	l->n_locals = 0;
	for (size_t i = 0; r == 0 && i < sizeof(families); i++) {
		struct rtmsg body = {.rtm_family = families[i]};

		l->n_locals_kept = l->n_locals;
		r = netlink_dump(RTM_GETROUTE, &body, sizeof(body), &reader, l);
	}
	return r;
}

static int compare_local(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct local_key));
}

/* Makes the datapath's set equal to the host's: adds first, so that none is missing in between. */
static int sync_locals(struct links *l)
{
	struct local_key key, next, *last = NULL;
	_cleanup_(freep) struct local_key *stale = NULL;
	size_t n_stale = 0;
	int r = dump_locals(l);

	for (size_t i = 0; r == 0 && i < l->n_locals; i++)
		r = datapath_local_set(l->datapath, &l->locals[i], true);
	if (r < 0)
		return r;
	qsort(l->locals, l->n_locals, sizeof(*l->locals), compare_local);
	while (datapath_local_next(l->datapath, last, &next) == 0) {
		key = next;
		last = &key;
		if (bsearch(&key, l->locals, l->n_locals, sizeof(key), compare_local))
			continue;
		stale = reallocarray(stale, n_stale + 1, sizeof(*stale));
		if (!stale)
			return -ENOMEM;
		stale[n_stale++] = key;
	}
	for (size_t i = 0; i < n_stale; i++)
		datapath_local_set(l->datapath, &stale[i], false);
	l->locals_lost = n_stale > 0;
	l->locals_stale = false;
	return 0;
}

static int sync_sources(struct links *l)
{
	int r = sources_sync(l->sources);

	if (r == 0)
		l->sources_stale = false;
	return r;
}

static int on_message(const struct nlmsghdr *m, void *userdata)
{
	struct links *l = userdata;

	switch (m->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return on_link(l, m);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		if (((const struct rtmsg *)NLMSG_DATA(m))->rtm_type == RTN_LOCAL)
			l->locals_stale = true;
		return 0;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		l->locals_stale = l->sources_stale = true;
		return 0;
	}
	return 0;
}

static void begin_links(void *userdata)
{
	struct links *l = userdata;

	for (size_t i = 0; i < l->n_entries; i++)
		l->entries[i].seen = false;
}

static int sync_links(struct links *l)
{
	static const struct netlink_reader reader = {begin_links, on_message};
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
	int r = netlink_dump(RTM_GETLINK, &body, sizeof(body), &reader, l);

	if (r < 0)
		return r;
	for (size_t i = 0; i < l->n_entries;)
		if (l->entries[i].seen)
			i++;
		else
			link_gone(l, &l->entries[i]);
	l->links_stale = false;
	return 0;
}

/*
 * Looks anew at what is stale. What could not be read stays so until there is news again; when
 * changes have interrupted all tries, that is at once, since the last of them is news.
 */
static int sync_stale(struct links *l)
{
	int r = l->links_stale ? sync_links(l) : 0;

	if (r == 0 && l->locals_stale)
		r = sync_locals(l);
	if (r == 0 && l->sources_stale)
		r = sync_sources(l);
	return r == -EINTR ? 0 : r;
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct links *l = userdata;
	int r = netlink_receive(fd, on_message, l);

	if (r == -ENOBUFS) {
		/* Too many changes at once for the socket: look at everything anew. */
		netlink_receive(fd, on_message, l);
		l->links_stale = l->locals_stale = l->sources_stale = true;
		r = 0;
	}
	if (r == 0)
		r = sync_stale(l);
	if (r < 0)
		log_warning("cannot follow the host's interfaces and addresses: %s", strerror(-r));
	if (l->locals_lost)
		l->handler.lost(l->handler.userdata);
	l->locals_lost = false;
	l->handler.settled(l->handler.userdata);
	return 0;
}

int links_new(sd_event *event, struct datapath *d, const struct links_handler *handler,
	      struct links **ret)
{
	_cleanup_(links_freep) struct links *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->datapath = d;
	l->handler = *handler;
	/* Listening before looking: nothing falls in between. */
	l->fd = netlink_open(GROUPS);
	if (l->fd < 0)
		return l->fd;
	l->links_stale = l->locals_stale = l->sources_stale = true;
	r = sources_new(d, &l->sources);
	if (r == 0)
		r = sync_stale(l);
	if (r == 0)
		r = sd_event_add_io(event, &l->source, l->fd, EPOLLIN, on_readable, l);
	if (r < 0)
		return r;
	*ret = take_ptr(l);
	return 0;
}

bool links_is_own(const struct links *l, const struct ip_prefix *address)
{
	struct local_key key = {.length = 128};
	struct ip_prefix local;

	ip_prefix_to_mapped(address, (uint8_t *)key.addr);
	if (bsearch(&key, l->locals, l->n_locals, sizeof(key), compare_local))
		return true;
	/* By length: first the few that are wider than one address, such as 127.0.0.0/8. */
	for (size_t i = 0; i < l->n_locals && l->locals[i].length < 128; i++) {
		ip_prefix_from_mapped((const uint8_t *)l->locals[i].addr, &local);
		local.length = l->locals[i].length - (local.family == AF_INET ? 96 : 0);
		if (ip_prefix_contains(&local, address))
			return true;
	}
	return false;
}

struct links *links_free(struct links *l)
{
	if (!l)
		return NULL;
	sd_event_source_unref(l->source);
	closep(&l->fd);
	free(l->entries);
	free(l->locals);
	sources_free(l->sources);
	free(l);
	return NULL;
}
