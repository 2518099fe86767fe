/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/doctor.h"

#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/attach.h"
#include "daemon/links.h"
#include "daemon/needs.h"
#include "daemon/netlink.h"
#include "daemon/route.h"
#include "daemon/ruleset.h"
#include "shared/config.h"
#include "shared/log.h"

#define TARGETS_LOOKED_AT 256 /* routes to more are not asked for: the daemon has other work */

/* ---- hooks ---- */

static const char *const hook_names[] = {"leaving", "coming in"};

static void check_hook(const char *name, const struct doctor *d, uint32_t ifindex,
		       const char *interface, bool incoming, struct findings *f)
{
	struct attach_look look;

	if (attach_look(d->attach, ifindex, incoming, &look) < 0 || look.ours)
		return;
	findings_add(f, name, FINDING_ERROR, "no program of ours sees what is %s on %s%s",
		     hook_names[incoming], interface,
		     look.foreign_qdisc
			     ? ": another program's qdisc \"ingress\" is in the place of \"clsact\""
			     : "");
	if (look.foreign_qdisc)
		findings_command(f, "tc qdisc delete dev %s ingress && systemctl restart redirectd",
				 interface);
	else
		findings_command(f, "systemctl restart redirectd");
}

static void check_attached(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;
	const char *interface;
	uint32_t ifindex;

	for (size_t i = 0; (interface = links_nth(d->links, i, &ifindex)); i++) {
		check_hook(name, d, ifindex, interface, true, f);
		check_hook(name, d, ifindex, interface, false, f);
	}
}

static void check_others(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;
	const char *interface;
	uint32_t ifindex;

	for (size_t i = 0; (interface = links_nth(d->links, i, &ifindex)); i++)
		for (int incoming = 1; incoming >= 0; incoming--) {
			struct attach_look look;

			if (attach_look(d->attach, ifindex, incoming, &look) < 0 ||
			    !look.n_in_front)
				continue;
			findings_add(f, name, FINDING_WARNING,
				     "%s runs in front of ours and may keep from it what is %s "
				     "on %s (%u in front)",
				     look.first, hook_names[incoming], interface, look.n_in_front);
			findings_hint(
				f, "who is it? bpftool net show dev %s; tc filter show dev %s %s",
				interface, interface, incoming ? "ingress" : "egress");
		}
}

/* ---- interfaces, as one dump tells of them ---- */

struct interface {
	uint32_t ifindex, mtu;
	bool up, xdp;
	char name[IF_NAMESIZE];
};

struct interfaces {
	struct interface *items;
	size_t n;
};

static bool has_xdp(const struct rtattr *nested)
{
	int left = RTA_PAYLOAD(nested);

	for (const struct rtattr *a = RTA_DATA(nested); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == IFLA_XDP_ATTACHED)
			return *(const uint8_t *)RTA_DATA(a) != 0;
	return false;
}

static int on_interface(const struct nlmsghdr *m, void *userdata)
{
	const struct ifinfomsg *info = NLMSG_DATA(m);
	const struct rtattr *name = netlink_attribute(m, sizeof(*info), IFLA_IFNAME);
	const struct rtattr *mtu = netlink_attribute(m, sizeof(*info), IFLA_MTU);
	const struct rtattr *xdp = netlink_attribute(m, sizeof(*info), IFLA_XDP);
	struct interfaces *all = userdata;
	struct interface *more;

	if (m->nlmsg_type != RTM_NEWLINK || !name || !mtu)
		return 0;
	more = reallocarray(all->items, all->n + 1, sizeof(*more));
	if (!more)
		return 0;
	all->items = more;
	more += all->n++;
	*more = (struct interface){.ifindex = info->ifi_index,
				   .mtu = *(const uint32_t *)RTA_DATA(mtu),
				   .up = info->ifi_flags & IFF_UP,
				   .xdp = xdp && has_xdp(xdp)};
	strncpy(more->name, RTA_DATA(name), sizeof(more->name) - 1);
	return 0;
}

static void begin_interfaces(void *userdata)
{
	((struct interfaces *)userdata)->n = 0;
}

static void interfaces_read(struct interfaces *ret)
{
	static const struct netlink_reader reader = {begin_interfaces, on_interface};
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC};

	*ret = (struct interfaces){0};
	netlink_dump(RTM_GETLINK, &body, sizeof(body), &reader, ret);
}

static const struct interface *interfaces_find(const struct interfaces *all, uint32_t ifindex)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->items[i].ifindex == ifindex)
			return &all->items[i];
	return NULL;
}

static bool is_loopback(const struct interface *i)
{
	return strcmp(i->name, "lo") == 0;
}

static void check_xdp(const char *name, void *userdata, struct findings *f)
{
	struct interfaces all;

	interfaces_read(&all);
	for (size_t i = 0; i < all.n; i++) {
		if (!all.items[i].xdp)
			continue;
		findings_add(f, name, FINDING_INFO,
			     "an XDP program on %s sees packets first; those that it does not pass "
			     "on are not redirected",
			     all.items[i].name);
		findings_hint(f, "who is it? bpftool net show dev %s", all.items[i].name);
	}
	free(all.items);
}

/* ---- settings ---- */

static void check_settings(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;
	struct need_text text;
	struct needs needs;

	needs_find(d->rules->entries, d->rules->n_entries, d->config, d->links, &needs);
	for (size_t i = 0; i < needs.n; i++) {
		const char *command;

		need_describe(&needs.items[i], &text);
		findings_add(f, name, text.priority >= LOG_INFO ? FINDING_INFO : FINDING_WARNING,
			     "%s", text.why);
		command = strstr(text.remedy, "run: ");
		if (command)
			findings_command(f, "%s", command + strlen("run: "));
		else
			findings_hint(f, "%s", text.remedy);
	}
}

static unsigned long long read_number(const char *path)
{
	unsigned long long n = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		return 0;
	if (fscanf(file, "%llu", &n) != 1)
		n = 0;
	fclose(file);
	return n;
}

/* A counter of /proc/net/netstat: a line of names, then one of numbers (snmp_counter(7)). */
static unsigned long long read_netstat(const char *group, const char *counter)
{
	char names[8192], numbers[8192], *name, *number, *rest_names, *rest_numbers;
	unsigned long long found = 0;
	FILE *file = fopen("/proc/net/netstat", "re");

	while (file && fgets(names, sizeof(names), file) && fgets(numbers, sizeof(numbers), file)) {
		if (strncmp(names, group, strlen(group)) != 0)
			continue;
		name = strtok_r(names, " \n", &rest_names);
		number = strtok_r(numbers, " \n", &rest_numbers);
		while (name && number && strcmp(name, counter) != 0) {
			name = strtok_r(NULL, " \n", &rest_names);
			number = strtok_r(NULL, " \n", &rest_numbers);
		}
		if (name && number)
			found = strtoull(number, NULL, 10);
	}
	if (file)
		fclose(file);
	return found;
}

#define RP_FILTER_STRICT 1

/* Strict is right on many hosts: only packets that it has cost are worth a word. */
static void check_rp_filter(const char *name, void *userdata, struct findings *f)
{
	unsigned long long dropped = read_netstat("TcpExt", "IPReversePathFilter");
	unsigned long long all = read_number("/proc/sys/net/ipv4/conf/all/rp_filter");
	const struct doctor *d = userdata;
	const char *interface;
	char path[96];
	uint32_t ifindex;

	for (size_t i = 0; dropped && (interface = links_nth(d->links, i, &ifindex)); i++) {
		unsigned long long own;

		snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/rp_filter", interface);
		own = read_number(path);
		/* The kernel takes the greater one. */
		if ((own > all ? own : all) != RP_FILTER_STRICT)
			continue;
		findings_add(
			f, name, FINDING_WARNING,
			"the reverse path filter has dropped %llu packets on this host, and is "
			"strict on %s: what comes in there from clients that are reached by "
			"another interface is lost",
			dropped, interface);
		findings_command(f, "sysctl -w net/ipv4/conf/%s/rp_filter=2", interface);
	}
}

/* ---- offloads ---- */

static bool ethtool_get(int fd, const char *interface, uint32_t command, uint32_t *ret)
{
	struct ethtool_value value = {.cmd = command};
	struct ifreq request = {0};

	strncpy(request.ifr_name, interface, sizeof(request.ifr_name) - 1);
	request.ifr_data = (void *)&value;
	if (ioctl(fd, SIOCETHTOOL, &request) < 0)
		return false;
	*ret = value.data;
	return true;
}

static void check_offloads(const char *name, void *userdata, struct findings *f)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct doctor *d = userdata;
	const char *interface;
	uint32_t ifindex, value;

	for (size_t i = 0; fd >= 0 && (interface = links_nth(d->links, i, &ifindex)); i++) {
		if (ethtool_get(fd, interface, ETHTOOL_GFLAGS, &value) && value & ETH_FLAG_LRO) {
			findings_add(
				f, name, FINDING_WARNING,
				"LRO is on at %s: it merges packets for good, which those that "
				"are sent on to other hosts do not survive",
				interface);
			findings_command(f, "ethtool -K %s lro off", interface);
		}
		if (ethtool_get(fd, interface, ETHTOOL_GGRO, &value) && !value) {
			findings_add(f, name, FINDING_INFO,
				     "GRO is off at %s: every packet is looked at alone, which "
				     "costs more",
				     interface);
			findings_command(f, "ethtool -K %s gro on", interface);
		}
	}
	if (fd >= 0)
		close(fd);
}

/* ---- MTU ---- */

/* The greatest MTU among the interfaces that a rule's packets come in by. */
static const struct interface *widest(const struct interfaces *all, const struct config_places *p)
{
	const struct interface *found = NULL;

	for (size_t i = 0; i < all->n; i++) {
		const struct interface *one = &all->items[i];

		if (!one->up || is_loopback(one) || (p->n && !config_places_name(p, one->name)))
			continue;
		if (!found || one->mtu > found->mtu)
			found = one;
	}
	return found;
}

static void check_way(const char *name, const struct doctor *d, const struct interfaces *all,
		      const struct ruleset_entry *e, const struct ip_prefix *target,
		      struct findings *f)
{
	const struct config_places p = config_places(d->config, e->rule);
	const struct interface *in = widest(all, &p), *out;
	struct route route = route_find(target);
	char text[IP_PREFIX_STRLEN];
	uint32_t mtu;

	ip_prefix_format(target, text);
	out = interfaces_find(all, route.ifindex);
	if (!out) {
		findings_add(f, name, FINDING_ERROR, "rule %u: there is no route to its target %s",
			     e->id, text);
		findings_command(f, "ip route get %s", text);
		return;
	}
	mtu = route.mtu ? route.mtu : out->mtu;
	if (!in || in->mtu <= mtu)
		return;
	findings_add(f, name, FINDING_INFO,
		     "rule %u: packets of up to %u bytes come in on %s, but only %u bytes go on to "
		     "%s on %s; clients learn it from ICMP errors, which must reach them",
		     e->id, in->mtu, in->name, mtu, text, out->name);
	findings_command(f, "ip link set %s mtu %u", in->name, mtu);
}

static void check_mtu(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;
	struct interfaces all;
	size_t looked = 0;

	interfaces_read(&all);
	for (size_t i = 0; i < d->rules->n_entries; i++) {
		const struct ruleset_entry *e = d->rules->entries[i];

		for (size_t t = 0; t < e->rule->n_targets && !e->rule->disabled; t++) {
			const struct ip_prefix *target = &e->rule->targets[t].address;

			if (!target->family || links_is_own(d->links, target))
				continue;
			if (looked++ < TARGETS_LOOKED_AT)
				check_way(name, d, &all, e, target, f);
		}
	}
	if (looked > TARGETS_LOOKED_AT)
		findings_add(f, name, FINDING_INFO,
			     "only the first %d of %zu targets were looked at", TARGETS_LOOKED_AT,
			     looked);
	free(all.items);
}

static const struct findings_check checks[] = {
	{"attached", check_attached, "on every interface, in both directions"},
	{"others", check_others, "no program of others runs in front of ours"},
	{"xdp", check_xdp, "no XDP program sees packets first"},
	{"settings", check_settings, "as the rules need them"},
	{"rp-filter", check_rp_filter, "no packet was dropped by it, or it is not strict"},
	{"offloads", check_offloads, "none that is in the way"},
	{"way", check_mtu, "there is a route to every target, and no MTU shrinks"},
	{NULL, NULL, NULL},
};

void doctor_run(const struct doctor *d, struct findings *ret)
{
	findings_run(ret, checks, (void *)d);
}
