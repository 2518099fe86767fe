// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/needs.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "daemon/links.h"
#include "daemon/ruleset.h"
#include "shared/config.h"
#include "shared/log.h"

#define EVERY_INTERFACE "all"
#define LOOPBACK	"lo"

static const struct {
	int priority;
	/* Below /proc/sys/net: must be on, or the other one. %s is the subject, here and below. */
	const char *setting, *or_setting;
	const char *why; /* behind "rule N" */
	const char *remedy;
} kinds[NEED_KINDS] = {
	/* The rule's interface alone would not do: answers come in by others. */
	[NEED_FORWARDING4] = {LOG_WARNING, "ipv4/conf/%s/forwarding", NULL,
			      "sends packets to another host, which needs forwarding",
			      "run: sysctl -w net.ipv4.ip_forward=1"},
	[NEED_FORWARDING6] = {LOG_WARNING, "ipv6/conf/%s/forwarding", NULL,
			      "sends packets to another host, which needs forwarding",
			      "run: sysctl -w net.ipv6.conf.all.forwarding=1"},
	/* With slashes, since names of interfaces may have dots. */
	[NEED_ROUTE_LOCALNET] =
		{LOG_WARNING, "ipv4/conf/%s/route_localnet", "ipv4/conf/all/route_localnet",
		 "sends packets from other interfaces than lo to 127.0.0.0/8, where "
		 "the kernel drops them",
		 "run: sysctl -w net/ipv4/conf/%s/route_localnet=1"},
	/* Packets of this host's own clients go through lo twice: see bpf/nat.bpf.h. */
	[NEED_LOCAL_CLIENTS_MAY] = {LOG_INFO, "ipv4/conf/%s/accept_local",
				    "ipv4/conf/all/accept_local",
				    "does not work for clients on this host, since its target is "
				    "another one",
				    "if it should, run: sysctl -w net.ipv4.conf.lo.accept_local=1"},
	[NEED_LOCAL_CLIENTS] = {LOG_WARNING, "ipv4/conf/%s/accept_local",
				"ipv4/conf/all/accept_local",
				"does not work for clients on this host, since its target is "
				"another one",
				"run: sysctl -w net.ipv4.conf.lo.accept_local=1"},
	[NEED_LOOPBACK_CLIENTS] = {LOG_WARNING, "ipv4/conf/%s/route_localnet",
				   "ipv4/conf/all/route_localnet",
				   "does not work for clients that connect to 127.0.0.0/8, since "
				   "its target is another host",
				   "run: sysctl -w net.ipv4.conf.lo.route_localnet=1"},
	[NEED_OWN_SOURCE] = {LOG_INFO, NULL, NULL,
			     "gives packets a source that is no address of this host: answers come "
			     "back only if they are routed here",
			     "to have it, run: ip address add %s dev lo"},
	[NEED_LOOPBACK6] =
		{LOG_WARNING, NULL, NULL,
		 "sends packets from other interfaces than lo to [::1], where the kernel "
		 "drops them",
		 "have the service listen on another address, or add to the rule: on lo"},
};

/* ---- what rules need ---- */

/* The same thing to look at? */
static bool is_same_look(const struct need *a, const struct need *b)
{
	return a->kind == b->kind && strcmp(a->subject, b->subject) == 0;
}

/* The same thing to do? */
static bool is_same_remedy(const struct need *a, const struct need *b)
{
	return a->kind == b->kind &&
	       (!strstr(kinds[a->kind].remedy, "%s") || strcmp(a->subject, b->subject) == 0);
}

bool needs_has(const struct needs *needs, const struct need *like)
{
	for (size_t i = 0; i < needs->n; i++)
		if (is_same_remedy(&needs->items[i], like))
			return true;
	return false;
}

static void add(struct needs *needs, enum need_kind kind, uint32_t rule, const char *subject)
{
	struct need need = {.kind = kind, .rule = rule};

	snprintf(need.subject, sizeof(need.subject), "%s", subject);
	for (size_t i = 0; i < needs->n; i++)
		if (is_same_look(&needs->items[i], &need))
			return;
	if (needs->n < NEEDS_MAX)
		needs->items[needs->n++] = need;
}

static bool takes_from_elsewhere(const struct config_places *p)
{
	return p->n != 1 || !config_places_name(p, LOOPBACK);
}

/* A setting of the interfaces that a rule takes packets from, with or without lo. */
static void add_by_place(struct needs *needs, enum need_kind kind, uint32_t rule,
			 const struct config_places *p, bool with_lo)
{
	if (!p->n)
		add(needs, kind, rule, EVERY_INTERFACE);
	for (size_t i = 0; i < p->n; i++)
		if (with_lo || strcmp(p->names[i], LOOPBACK) != 0)
			add(needs, kind, rule, p->names[i]);
}

static bool is_loopback4(const struct ip_prefix *a)
{
	return a->family == AF_INET && a->bytes[0] == 127;
}

static bool is_loopback6(const struct ip_prefix *a)
{
	static const struct ip_prefix one = {
		.family = AF_INET6, .length = 128, .bytes = {[15] = 1}};

	return ip_prefix_equal(a, &one);
}

static void add_own_target(struct needs *needs, uint32_t rule, const struct ip_prefix *target,
			   const struct config_places *p)
{
	if (is_loopback4(target))
		add_by_place(needs, NEED_ROUTE_LOCALNET, rule, p, false);
	if (is_loopback6(target) && takes_from_elsewhere(p))
		add(needs, NEED_LOOPBACK6, rule, "[::1]");
}

static void add_other_target(struct needs *needs, uint32_t rule, const struct ip_prefix *target,
			     const struct config_places *p)
{
	/* IPv6 is forwarded by all interfaces or none. */
	if (target->family == AF_INET6) {
		add(needs, NEED_FORWARDING6, rule, EVERY_INTERFACE);
		return;
	}
	add_by_place(needs, NEED_FORWARDING4, rule, p, true);
	if (!p->n)
		add(needs, NEED_LOCAL_CLIENTS_MAY, rule, LOOPBACK);
	if (!config_places_name(p, LOOPBACK))
		return;
	add(needs, NEED_LOCAL_CLIENTS, rule, LOOPBACK);
	add(needs, NEED_LOOPBACK_CLIENTS, rule, LOOPBACK);
}

static void add_rule(struct needs *needs, const struct ruleset_entry *e,
		     const struct config *config, const struct links *links)
{
	const struct config_places p = config_places(config, e->rule);
	char buffer[IP_PREFIX_STRLEN];

	for (size_t i = 0; i < e->rule->n_targets; i++) {
		const struct ip_prefix *target = &e->rule->targets[i].address;

		if (!target->family)
			continue;
		if (links_is_own(links, target))
			add_own_target(needs, e->id, target, &p);
		else
			add_other_target(needs, e->id, target, &p);
	}
	if (e->rule->snat.family && !links_is_own(links, &e->rule->snat))
		add(needs, NEED_OWN_SOURCE, e->id, ip_address_format(&e->rule->snat, buffer));
}

/* ---- what the host has ---- */

/* The format with the subject in it. */
static void fill_in(const char *format, const struct need *need, char *ret, size_t size)
{
	const char *mark = strstr(format, "%s");

	if (mark)
		snprintf(ret, size, "%.*s%s%s", (int)(mark - format), format, need->subject,
			 mark + 2);
	else
		snprintf(ret, size, "%s", format);
}

/* Off, and not because the interface is not there. */
static bool is_off(const char *format, const struct need *need)
{
	char setting[128], path[160], value[16] = "";
	FILE *f;

	fill_in(format, need, setting, sizeof(setting));
	snprintf(path, sizeof(path), "/proc/sys/net/%s", setting);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(value, sizeof(value), f))
		value[0] = '\0';
	fclose(f);
	return strcmp(value, "0\n") == 0;
}

static bool is_missing(const struct need *need)
{
	const char *setting = kinds[need->kind].setting, *or_setting = kinds[need->kind].or_setting;

	if (!setting)
		return true;
	return is_off(setting, need) && (!or_setting || is_off(or_setting, need));
}

void needs_find(struct ruleset_entry *const *entries, size_t n, const struct config *config,
		const struct links *links, struct needs *ret)
{
	struct needs all = {.n = 0};

	for (size_t i = 0; i < n; i++)
		if (!entries[i]->rule->disabled)
			add_rule(&all, entries[i], config, links);
	ret->n = 0;
	for (size_t i = 0; i < all.n; i++)
		if (is_missing(&all.items[i]) && !needs_has(ret, &all.items[i]))
			ret->items[ret->n++] = all.items[i];
}

void need_describe(const struct need *need, struct need_text *ret)
{
	ret->priority = kinds[need->kind].priority;
	snprintf(ret->why, sizeof(ret->why), "rule %u %s", need->rule, kinds[need->kind].why);
	fill_in(kinds[need->kind].remedy, need, ret->remedy, sizeof(ret->remedy));
}

void need_log(const struct need *need)
{
	struct need_text text;

	need_describe(need, &text);
	log_write(text.priority, "%s; %s", text.why, text.remedy);
}
