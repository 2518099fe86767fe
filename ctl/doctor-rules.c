/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks by the rules: other programs' NAT on the same ports, and whether targets listen. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/doctor.h"
#include "ctl/import.h"

#define CONNECT_TIMEOUT_MS 2000
#define CONNECTS_MOST	   64 /* targets that --connect tries */

const char *doctor_rule_words(const struct doctor_rule *r, char *buffer, size_t size)
{
	char *text = NULL;

	if (r->id)
		snprintf(buffer, size, "rule %" PRIu32, r->id);
	else if (rule_format(r->rule, &text) == 0)
		snprintf(buffer, size, "the rule \"%s\"", text);
	else
		snprintf(buffer, size, "a rule");
	free(text);
	return buffer;
}

bool doctor_same_network(const struct doctor *d)
{
	struct stat own, other;
	char path[64];

	if (!d->status)
		return true;
	snprintf(path, sizeof(path), "/proc/%" JSON_INTEGER_FORMAT "/ns/net",
		 json_integer_value(json_object_get(d->status, "pid")));
	if (stat("/proc/self/ns/net", &own) < 0 || stat(path, &other) < 0)
		return errno == EACCES; /* of somebody else: the usual place is taken for granted */
	return own.st_ino == other.st_ino && own.st_dev == other.st_dev;
}

/* ---- NAT of other programs ---- */

/* Where rules of netfilter are read. Absent programs end with 127, and have no rules. */
static const struct {
	const char *name, *command;
	int (*read)(struct import *i, char *text);
} sources[] = {
	{"nftables", "nft -j list ruleset", import_read_nft},
	{"iptables", "iptables-save -t nat", import_read_iptables},
	{"ip6tables", "ip6tables-save -t nat", import_read_iptables},
};

/* Everything that a command prints; NULL when it fails. The caller frees. */
static char *run(const char *command)
{
	char line[256], *text = NULL;
	size_t size = 0;
	ssize_t n;
	FILE *out;

	snprintf(line, sizeof(line), "PATH=$PATH:/usr/sbin:/sbin; exec %s 2>/dev/null", command);
	out = popen(line, "re");
	if (!out)
		return NULL;
	n = getdelim(&text, &size, '\0', out);
	if (pclose(out) == 0 && n > 0)
		return text;
	free(text);
	return NULL;
}

static bool overlaps(const struct port_range *a, const struct port_range *b)
{
	return a->first <= b->last && b->first <= a->last;
}

/* Does a rule of netfilter take what one of ours sends to a port of this host? */
static bool takes_target(const struct rule *theirs, const struct rule *ours)
{
	for (size_t i = 0; i < ours->n_targets; i++)
		if (!ours->targets[i].address.family &&
		    overlaps(&theirs->ports, &ours->targets[i].ports))
			return true;
	return false;
}

static void compare(const char *check, const char *source, const struct rule *theirs,
		    const struct doctor_rule *ours, struct findings *f)
{
	bool listens = overlaps(&theirs->ports, &ours->rule->ports);
	char words[256], *text = NULL;

	if (ours->rule->disabled || !(theirs->protocols & ours->rule->protocols) ||
	    (!listens && !takes_target(theirs, ours->rule)) || rule_format(theirs, &text) < 0)
		return;
	doctor_rule_words(ours, words, sizeof(words));
	if (listens)
		findings_add(
			f, check, FINDING_WARNING,
			"%s redirects the port of %s as well (\"%s\"), but sees packets later: "
			"those that the rule takes never reach it there",
			source, words, text);
	else
		findings_add(f, check, FINDING_WARNING,
			     "%s redirects what %s has redirected once more (\"%s\")", source,
			     words, text);
	findings_hint(f, "remove one of the two; see: nft -a list ruleset, iptables-save");
	free(text);
}

static void check_source(const char *check, size_t which, const struct doctor *d,
			 struct findings *f)
{
	_cleanup_(import_freep) struct import *i = import_new();
	char *text = run(sources[which].command);
	const struct rule *theirs;

	if (text && sources[which].read(i, text) == 0)
		for (size_t n = 0; (theirs = import_rule(i, n)); n++)
			for (size_t r = 0; r < d->n_rules; r++)
				compare(check, sources[which].name, theirs, &d->rules[r], f);
	free(text);
}

static void check_nat(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;

	if (geteuid() != 0) {
		findings_add(f, name, FINDING_INFO, "only root can see rules of nftables");
		return;
	}
	if (!doctor_same_network(d)) {
		findings_add(f, name, FINDING_INFO,
			     "not looked at: the daemon is in another network namespace");
		return;
	}
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
		check_source(name, i, d, f);
}

/* ---- services on this host ---- */

struct listener {
	struct ip_prefix address; /* all zeros: any */
	uint16_t port;
};

struct listeners {
	struct listener *items;
	size_t n;
};

/* proc(5) prints addresses as numbers of the host's byte order, 32 bits each. */
static bool read_address(const char *hex, struct ip_prefix *ret)
{
	size_t words = strlen(hex) / 8;

	*ret = (struct ip_prefix){.family = words == 1 ? AF_INET : AF_INET6,
				  .length = words == 1 ? 32 : 128};
	for (size_t i = 0; i < words && i < 4; i++) {
		uint32_t word;

		if (sscanf(hex + 8 * i, "%8" SCNx32, &word) != 1)
			return false;
		memcpy(ret->bytes + 4 * i, &word, sizeof(word));
	}
	return words == 1 || words == 4;
}

/* TCP sockets that listen, UDP ones that are not connected. */
static void read_sockets(const char *path, unsigned state, struct listeners *ret)
{
	FILE *file = fopen(path, "re");
	struct listener found, *more;
	char line[512], hex[40];
	unsigned port, is;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, " %*u: %32[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", hex, &port, &is) !=
			    3 ||
		    is != state || !read_address(hex, &found.address))
			continue;
		found.port = (uint16_t)port;
		more = reallocarray(ret->items, ret->n + 1, sizeof(*more));
		if (!more)
			abort();
		ret->items = more;
		ret->items[ret->n++] = found;
	}
	if (file)
		fclose(file);
}

static void listeners_read(unsigned protocol, struct listeners *ret)
{
	*ret = (struct listeners){0};
	if (protocol == RULE_TCP) {
		read_sockets("/proc/net/tcp", 0x0a, ret);
		read_sockets("/proc/net/tcp6", 0x0a, ret);
	} else {
		read_sockets("/proc/net/udp", 0x07, ret);
		read_sockets("/proc/net/udp6", 0x07, ret);
	}
}

static bool is_any(const struct ip_prefix *a)
{
	static const uint8_t zeros[16];

	return memcmp(a->bytes, zeros, sizeof(zeros)) == 0;
}

static bool is_loopback(const struct ip_prefix *a)
{
	static const struct ip_prefix one = {
		.family = AF_INET6, .length = 128, .bytes = {[15] = 1}};

	return a->family == AF_INET ? a->bytes[0] == 127 : ip_prefix_equal(a, &one);
}

/* An address of this host: of its interfaces, or 127.0.0.0/8. */
static bool is_own(const struct ip_prefix *address)
{
	struct ifaddrs *all = NULL, *i;
	bool found = is_loopback(address);

	if (getifaddrs(&all) < 0)
		return found;
	for (i = all; i && !found; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != address->family)
			continue;
		if (address->family == AF_INET)
			found = memcmp(&((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr,
				       address->bytes, 4) == 0;
		else
			found = memcmp(&((struct sockaddr_in6 *)(void *)i->ifa_addr)->sin6_addr,
				       address->bytes, 16) == 0;
	}
	freeifaddrs(all);
	return found;
}

enum heard {
	HEARD_NO,
	HEARD_LOOPBACK, /* only by loopback addresses, where another one is asked for */
	HEARD_YES,
};

/*
 * Where packets for a target end up: at its address, else where the client sent them. NULL: not
 * always on this host, as with a prefix or `*`. Of family 0: at any address of this host.
 */
static const struct ip_prefix *local_address(const struct rule *r, const struct rule_target *t)
{
	static const struct ip_prefix any = {0};
	const struct ip_prefix *address = &t->address;

	if (!address->family && r->listen == RULE_LISTEN_LOCAL)
		return &any;
	if (!address->family && r->listen == RULE_LISTEN_PREFIX &&
	    ip_prefix_is_host(&r->listen_prefix))
		address = &r->listen_prefix;
	return address->family && is_own(address) ? address : NULL;
}

/* Does somebody listen on a port, at that address? */
static enum heard who_hears(const struct listeners *l, const struct ip_prefix *address,
			    uint16_t port)
{
	enum heard best = HEARD_NO;

	for (size_t i = 0; i < l->n; i++) {
		const struct listener *one = &l->items[i];

		if (one->port != port)
			continue;
		if (is_any(&one->address) ||
		    (address->family ? ip_prefix_equal(&one->address, address)
				     : !is_loopback(&one->address)))
			return HEARD_YES;
		if (is_loopback(&one->address))
			best = HEARD_LOOPBACK;
	}
	return best;
}

/* Packets that come in at lo alone may well go to a loopback address. */
static bool is_for_lo(const struct rule *r)
{
	return r->n_interfaces == 1 && strcmp(r->interfaces[0], "lo") == 0;
}

static void check_target(const char *name, const struct doctor_rule *r, const struct rule_target *t,
			 unsigned protocol, const struct listeners *l, struct findings *f)
{
	const struct ip_prefix *address = local_address(r->rule, t);
	const char *protocol_name = protocol == RULE_TCP ? "tcp" : "udp";
	unsigned silent = 0, loopback = 0, first = 0;
	char words[256];

	if (!address)
		return;
	for (unsigned port = t->ports.first; port <= t->ports.last; port++) {
		enum heard heard = who_hears(l, address, (uint16_t)port);

		if (heard == HEARD_YES || (heard == HEARD_LOOPBACK && is_for_lo(r->rule)))
			continue;
		loopback += heard == HEARD_LOOPBACK;
		silent++;
		first = first ? first : port;
	}
	if (!silent)
		return;
	doctor_rule_words(r, words, sizeof(words));
	if (loopback == silent) {
		findings_add(f, name, FINDING_WARNING,
			     "%s sends to %s port %u, where somebody listens on a loopback address "
			     "only: clients of other hosts do not reach it",
			     words, protocol_name, first);
		findings_hint(f,
			      "have the service listen on every address, or send to it: "
			      "to 127.0.0.1:%u",
			      first);
		return;
	}
	findings_add(f, name, FINDING_WARNING, "%s sends to %s port %u%s, where nobody listens",
		     words, protocol_name, first, silent > 1 ? " and others of its range" : "");
	findings_hint(f, "start the service; who listens? ss -Hln%c 'sport = :%u'",
		      protocol == RULE_TCP ? 't' : 'u', first);
}

static void check_listening(const char *name, void *userdata, struct findings *f)
{
	static const unsigned protocols[] = {RULE_TCP, RULE_UDP};
	const struct doctor *d = userdata;

	if (!doctor_same_network(d)) {
		findings_add(f, name, FINDING_INFO,
			     "not looked at: the daemon is in another network namespace");
		return;
	}
	for (size_t p = 0; p < sizeof(protocols) / sizeof(protocols[0]); p++) {
		struct listeners l;

		listeners_read(protocols[p], &l);
		for (size_t i = 0; i < d->n_rules; i++) {
			const struct rule *r = d->rules[i].rule;

			if (r->disabled || !(r->protocols & protocols[p]))
				continue;
			for (size_t t = 0; t < r->n_targets; t++)
				check_target(name, &d->rules[i], &r->targets[t], protocols[p], &l,
					     f);
		}
		free(l.items);
	}
}

/* ---- services of other hosts, with --connect ---- */

static socklen_t fill_address(const struct ip_prefix *a, uint16_t port,
			      struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *six = (void *)ret;
	struct sockaddr_in *four = (void *)ret;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = a->family;
	if (a->family == AF_INET) {
		four->sin_port = htons(port);
		memcpy(&four->sin_addr, a->bytes, 4);
		return sizeof(*four);
	}
	six->sin6_port = htons(port);
	memcpy(&six->sin6_addr, a->bytes, 16);
	return sizeof(*six);
}

/* 0, or why no connection came about. */
static int try_connect(const struct ip_prefix *a, uint16_t port)
{
	struct sockaddr_storage address;
	socklen_t length = fill_address(a, port, &address), size = sizeof(int);
	struct pollfd p = {.events = POLLOUT};
	int error = 0;

	p.fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p.fd < 0)
		return errno;
	if (connect(p.fd, (struct sockaddr *)&address, length) < 0) {
		error = errno;
		if (error == EINPROGRESS) {
			error = ETIMEDOUT;
			if (poll(&p, 1, CONNECT_TIMEOUT_MS) == 1 &&
			    getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
				error = errno;
		}
	}
	close(p.fd);
	return error;
}

static void connect_target(const char *name, const struct doctor_rule *r,
			   const struct rule_target *t, struct findings *f)
{
	int error = try_connect(&t->address, t->ports.first);
	char words[256], address[IP_PREFIX_STRLEN];

	if (!error)
		return;
	findings_add(f, name, FINDING_WARNING, "%s: %s:%u does not answer from here: %s",
		     doctor_rule_words(r, words, sizeof(words)),
		     ip_prefix_format(&t->address, address), t->ports.first, strerror(error));
	findings_hint(f, "is the service up, the route right, no firewall in between?");
}

static void check_connect(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;
	size_t tried = 0;

	if (!d->connects)
		return;
	if (!doctor_same_network(d)) {
		findings_add(f, name, FINDING_INFO,
			     "not tried: the daemon is in another network namespace");
		return;
	}
	for (size_t i = 0; i < d->n_rules; i++) {
		const struct rule *r = d->rules[i].rule;

		for (size_t t = 0; t < r->n_targets && !r->disabled; t++) {
			if (!(r->protocols & RULE_TCP) || !r->targets[t].address.family ||
			    is_own(&r->targets[t].address) || tried == CONNECTS_MOST)
				continue;
			tried++;
			connect_target(name, &d->rules[i], &r->targets[t], f);
		}
	}
	if (tried == CONNECTS_MOST)
		findings_add(f, name, FINDING_INFO, "only the first %d targets were tried",
			     CONNECTS_MOST);
	else if (!tried)
		findings_add(f, name, FINDING_OK, "no TCP target on another host");
	else
		findings_add(f, name, FINDING_OK, "%zu targets on other hosts were tried", tried);
}

const struct findings_check doctor_rule_checks[] = {
	{"nat", check_nat, "no NAT of nftables or iptables on the ports of the rules"},
	{"listening", check_listening, "somebody listens on every target of this host"},
	{"connect", check_connect, NULL},
	{NULL, NULL, NULL},
};
