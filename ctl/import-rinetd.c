/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rinetd.conf: `BINDADDRESS BINDPORT[/PROTO] CONNECTADDRESS CONNECTPORT[/PROTO] [OPTION...]`, and
 * `allow` and `deny` patterns, which belong to the forwarding before them, or to all of them. A
 * forwarding whose patterns cannot be written is not taken: it would let in more than before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/import.h"

#define FIELDS_MOST 8
#define BLANKS	    " \t\r"

struct forwarding {
	struct import_place place; /* the text is owned */
	struct import_redirect redirect;
	const char *problem; /* of its patterns; NULL: none */
};

struct reader {
	struct import *import;
	struct forwarding *list;
	size_t n;
	struct import_prefixes allowed; /* everywhere */
	const char *problem;
};

/* "192.0.2.*" and "192.0.*" are prefixes, too. */
static int read_pattern(const char *text, struct import_prefixes *ret)
{
	unsigned parts[4] = {0}, n = 0;
	const char *p = text;
	char prefix[32], *end;

	if (!strpbrk(text, "*?"))
		return import_add_prefix(ret, text);
	while (n < 3 && *p >= '0' && *p <= '9') {
		unsigned long value = strtoul(p, &end, 10);

		if (value > 255 || *end != '.')
			return -EINVAL;
		parts[n++] = (unsigned)value;
		p = end + 1;
	}
	/* What remains is stars, as many as parts are missing, or a single one. */
	if (strspn(p, "*.") != strlen(p) || *p != '*')
		return -EINVAL;
	snprintf(prefix, sizeof(prefix), "%u.%u.%u.%u/%u", parts[0], parts[1], parts[2], parts[3],
		 n * 8);
	return import_add_prefix(ret, prefix);
}

static void read_allow(struct reader *r, const char *pattern)
{
	struct forwarding *f = r->n ? &r->list[r->n - 1] : NULL;

	if (read_pattern(pattern, f ? &f->redirect.from : &r->allowed) < 0)
		*(f ? &f->problem : &r->problem) =
			"its `allow` is not an address or a prefix (192.0.2.*)";
}

static void read_deny(struct reader *r, const char *pattern)
{
	*(r->n ? &r->list[r->n - 1].problem : &r->problem) =
		"it has a `deny`, and rules have no exceptions";
}

/* "80", "80/udp", "http". */
static int read_port(char *text, struct port_range *ret, unsigned *protocols)
{
	char *slash = strchr(text, '/');

	if (slash) {
		*slash = '\0';
		if (strcmp(slash + 1, "udp") == 0)
			*protocols = RULE_UDP;
		else if (strcmp(slash + 1, "tcp") != 0)
			return -EINVAL;
	}
	return import_read_port(text, ret);
}

static bool is_any(const struct ip_prefix *p)
{
	static const uint8_t zero[16];

	return memcmp(p->bytes, zero, sizeof(zero)) == 0;
}

static bool is_loopback(const struct ip_prefix *p)
{
	static const uint8_t one[16] = {[15] = 1};

	return p->family == AF_INET ? p->bytes[0] == 127 : memcmp(p->bytes, one, sizeof(one)) == 0;
}

/* rinetd is a proxy: another host sees this one as the source. */
static void set_target(struct reader *r, struct forwarding *f, const struct ip_prefix *target)
{
	if (is_loopback(target)) {
		import_note_once(
			r->import, IMPORT_ONCE_LOOPBACK, &f->place,
			"packets keep their destination address: a service that listens on "
			"the loopback address alone is not reached; have it listen on "
			"others, too");
		return;
	}
	f->redirect.target = *target;
	f->redirect.masquerade = true;
}

static void read_forwarding(struct reader *r, struct import_place *p, char **fields, size_t n)
{
	struct forwarding f = {.place = *p};
	struct import_redirect *d = &f.redirect;
	struct ip_prefix listen, target;
	struct port_range port;

	d->protocols = RULE_TCP;
	if (n < 4)
		import_skip(r->import, p, "a forwarding has four words: where from, where to");
	else if (ip_prefix_parse(fields[0], &listen) < 0)
		import_skip(r->import, p, "\"%s\" is not an address: names are not looked up",
			    fields[0]);
	else if (ip_prefix_parse(fields[2], &target) < 0)
		import_skip(r->import, p, "\"%s\" is not an address: names are not looked up",
			    fields[2]);
	else if (read_port(fields[1], &port, &d->protocols) < 0 ||
		 read_port(fields[3], &d->target_ports, &d->protocols) < 0)
		import_skip(r->import, p, "a port is neither a number nor a known service");
	else {
		if (n > 4)
			import_note(r->import, p, "the options \"%s\" are left out", fields[4]);
		import_add_ports(d, &port);
		if (!is_any(&listen))
			d->listen.list[d->listen.n++] = listen;
		set_target(r, &f, &target);
		f.place.text = strdup(p->text);
		r->list = reallocarray(r->list, r->n + 1, sizeof(*r->list));
		if (!r->list || !f.place.text)
			abort();
		r->list[r->n++] = f;
	}
}

static void read_line(struct reader *r, unsigned number, char *line)
{
	_cleanup_(freep) char *copy = strdup(line);
	struct import_place place = {number, line};
	char *fields[FIELDS_MOST], *rest = copy, *field;
	size_t n = 0;

	if (!copy)
		abort();
	while (n < FIELDS_MOST && (field = strsep(&rest, BLANKS)))
		if (*field)
			fields[n++] = field;
	if (n == 0 || fields[0][0] == '#')
		return;
	if (strcmp(fields[0], "allow") == 0 && n > 1)
		read_allow(r, fields[1]);
	else if (strcmp(fields[0], "deny") == 0 && n > 1)
		read_deny(r, fields[1]);
	else if (strncmp(fields[0], "log", 3) != 0 && strcmp(fields[0], "pidlogfile") != 0)
		read_forwarding(r, &place, fields, n);
}

/* rinetd lets in who fits the general patterns and those of the forwarding. */
static void take(struct reader *r, struct forwarding *f)
{
	const char *problem = f->problem ? f->problem : r->problem;

	if (f->redirect.from.n && r->allowed.n)
		problem = "it has `allow` patterns of its own beside general ones";
	if (!f->redirect.from.n)
		f->redirect.from = r->allowed;
	if (problem)
		import_skip(r->import, &f->place, "%s", problem);
	else
		import_take(r->import, &f->place, &f->redirect);
}

int import_read_rinetd(struct import *i, char *text)
{
	struct reader r = {.import = i};
	unsigned number = 0;
	char *line;

	while ((line = strsep(&text, "\n")))
		read_line(&r, ++number, line);
	for (size_t n = 0; n < r.n; n++) {
		take(&r, &r.list[n]);
		free((char *)r.list[n].place.text);
	}
	free(r.list);
	return 0;
}

/* Some line has four words and begins with an address. */
bool import_looks_like_rinetd(const char *text)
{
	char address[64], words[3][64];
	struct ip_prefix prefix;

	while (text && *text) {
		if (sscanf(text, " %63[^ \t\n] %63[^ \t\n] %63[^ \t\n] %63[^ \t\n]", address,
			   words[0], words[1], words[2]) == 4 &&
		    ip_prefix_parse(address, &prefix) == 0)
			return true;
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return false;
}
