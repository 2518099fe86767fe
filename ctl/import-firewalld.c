/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * firewalld's zone files (firewalld.zone(5)): <forward-port>, alone and in rich rules, limited by
 * the zone's interfaces and sources. Reads with expat.
 */
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/import.h"

struct pending {
	struct import_redirect rule; /* what its rich rule limits, if it is in one */
	unsigned line;
	char *text; /* owned, and so are the values */
	char *port, *protocol, *to_port, *to;
	const char *problem; /* of its rich rule; NULL: none */
};

struct reader {
	struct import *import;
	XML_Parser parser;
	struct import_redirect zone;
	bool zone_problem; /* the zone has sources that are no addresses */
	struct pending *list;
	size_t n;
	/* The rich rule that is being read; its elements come in any order. */
	bool in_rich;
	struct import_redirect rich;
	const char *rich_problem;
	size_t rich_first; /* of its forward ports in `list` */
};

static const char *attribute(const char **attributes, const char *name)
{
	for (; *attributes; attributes += 2)
		if (strcmp(attributes[0], name) == 0)
			return attributes[1];
	return NULL;
}

static bool is_inverted(const char **attributes)
{
	const char *invert = attribute(attributes, "invert");

	return invert && (strcasecmp(invert, "yes") == 0 || strcasecmp(invert, "true") == 0);
}

static char *copy(const char *text)
{
	char *new = text ? strdup(text) : NULL;

	if (text && !new)
		abort();
	return new;
}

/* The older name is deprecated where there is the newer one. */
static unsigned line_of(const struct reader *r)
{
#if XML_MAJOR_VERSION > 2 || XML_MINOR_VERSION >= 9
	return (unsigned)XML_GetCurrentLineNumber64(r->parser);
#else
	return (unsigned)XML_GetCurrentLineNumber(r->parser);
#endif
}

static struct import_place place_of(const struct reader *r, const char *text)
{
	return (struct import_place){line_of(r), text};
}

static void on_forward_port(struct reader *r, const char **a)
{
	struct pending *f;

	r->list = reallocarray(r->list, r->n + 1, sizeof(*r->list));
	if (!r->list)
		abort();
	f = &r->list[r->n++];
	*f = (struct pending){
		.line = line_of(r),
		.port = copy(attribute(a, "port")),
		.protocol = copy(attribute(a, "protocol")),
		.to_port = copy(attribute(a, "to-port")),
		.to = copy(attribute(a, "to-addr")),
	};
	if (asprintf(&f->text, "<forward-port port=\"%s\" protocol=\"%s\">", f->port ? f->port : "",
		     f->protocol ? f->protocol : "") < 0)
		abort();
}

static void on_interface(struct reader *r, const char **a)
{
	const char *name = attribute(a, "name");
	struct import_place p = place_of(r, "<interface>");

	if (!name || import_add_interface(&r->zone, name) < 0)
		import_skip(r->import, &p, "\"%s\" is not the name of an interface",
			    name ? name : "");
}

static void on_zone_source(struct reader *r, const char **a)
{
	const char *address = attribute(a, "address");

	if (!address || import_add_prefix(&r->zone.from, address) < 0)
		r->zone_problem = true;
}

static void on_masquerade(struct reader *r, const char **a)
{
	struct import_place p = place_of(r, "<masquerade>");

	import_note(r->import, &p,
		    "masquerading of all that leaves the zone is not redirectd's; a rule whose "
		    "target must answer through this host takes the option masquerade");
}

static const struct {
	const char *name;
	void (*handler)(struct reader *r, const char **attributes);
} zone_elements[] = {
	{"forward-port", on_forward_port},
	{"interface", on_interface},
	{"source", on_zone_source},
	{"masquerade", on_masquerade},
};

static void on_rich_element(struct reader *r, const char *name, const char **a)
{
	bool source = strcmp(name, "source") == 0, destination = strcmp(name, "destination") == 0;
	const char *address = attribute(a, "address");

	if (strcmp(name, "forward-port") == 0)
		on_forward_port(r, a);
	else if ((source || destination) && is_inverted(a))
		r->rich_problem = "its rich rule exempts addresses, and rules have no exceptions";
	else if ((source || destination) &&
		 (!address ||
		  import_add_prefix(source ? &r->rich.from : &r->rich.listen, address) < 0))
		r->rich_problem = "its rich rule is for something else than addresses";
}

static void on_start(void *userdata, const char *name, const char **attributes)
{
	struct reader *r = userdata;

	if (r->in_rich) {
		on_rich_element(r, name, attributes);
		return;
	}
	if (strcmp(name, "rule") == 0) {
		r->in_rich = true;
		r->rich = (struct import_redirect){0};
		r->rich_problem = NULL;
		r->rich_first = r->n;
		return;
	}
	for (size_t n = 0; n < sizeof(zone_elements) / sizeof(zone_elements[0]); n++)
		if (strcmp(name, zone_elements[n].name) == 0)
			zone_elements[n].handler(r, attributes);
}

static void on_end(void *userdata, const char *name)
{
	struct reader *r = userdata;

	if (strcmp(name, "rule") != 0)
		return;
	for (size_t n = r->rich_first; n < r->n; n++) {
		r->list[n].rule = r->rich;
		r->list[n].problem = r->rich_problem;
	}
	r->in_rich = false;
}

static void take_limited(struct reader *r, const struct pending *f, const struct import_place *p,
			 bool by_interface, bool by_source)
{
	struct import_redirect limits = f->rule;

	if (by_interface) {
		memcpy(limits.interfaces, r->zone.interfaces, sizeof(limits.interfaces));
		limits.n_interfaces = r->zone.n_interfaces;
	}
	if (by_source)
		limits.from = r->zone.from;
	import_take_forward_port(r->import, p, &limits, f->port, f->protocol, f->to_port, f->to);
}

/* The zone's limits are known at its end: an interface of it, or a client of it. */
static void take(struct reader *r, const struct pending *f)
{
	struct import_place p = {f->line, f->text};
	bool interfaces = r->zone.n_interfaces, sources = r->zone.from.n;

	if (f->problem || r->zone_problem || (f->rule.from.n && sources)) {
		import_skip(r->import, &p, "%s",
			    f->problem	      ? f->problem
			    : r->zone_problem ? "its zone has sources that are not addresses"
					      : "its rich rule and its zone both choose clients");
		return;
	}
	if (interfaces || !sources)
		take_limited(r, f, &p, interfaces, false);
	if (sources)
		take_limited(r, f, &p, false, true);
	if (!interfaces && !sources)
		import_note_once(r->import, IMPORT_ONCE_ZONE, &p,
				 "the zone names no interfaces: the rules are for every one; add "
				 "`on IFACE` if the zone has been bound elsewhere");
}

static void free_pending(struct pending *f)
{
	free(f->text);
	free(f->port);
	free(f->protocol);
	free(f->to_port);
	free(f->to);
}

int import_read_firewalld(struct import *i, char *text)
{
	struct reader r = {.import = i, .parser = XML_ParserCreate(NULL)};
	int result = 0;

	if (!r.parser)
		abort();
	XML_SetUserData(r.parser, &r);
	XML_SetElementHandler(r.parser, on_start, on_end);
	if (XML_Parse(r.parser, text, (int)strlen(text), 1) != XML_STATUS_OK) {
		struct import_place p = place_of(&r, NULL);

		import_skip(i, &p, "not XML: %s", XML_ErrorString(XML_GetErrorCode(r.parser)));
		result = -EINVAL;
	}
	for (size_t n = 0; n < r.n; n++) {
		if (result == 0)
			take(&r, &r.list[n]);
		free_pending(&r.list[n]);
	}
	free(r.list);
	XML_ParserFree(r.parser);
	return result;
}

bool import_looks_like_firewalld(const char *text)
{
	return text[strspn(text, " \t\r\n")] == '<';
}
