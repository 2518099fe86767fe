/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/import-nat.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JUMPS_MOST 16

/* ---- the model ---- */

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

size_t nat_chain(struct nat *n, const char *name)
{
	for (size_t c = 0; c < n->n_chains; c++)
		if (strcmp(n->chains[c].name, name) == 0)
			return c;
	n->chains = must(reallocarray(n->chains, n->n_chains + 1, sizeof(*n->chains)));
	n->chains[n->n_chains] = (struct nat_chain){.name = must(strdup(name))};
	return n->n_chains++;
}

struct nat_rule *nat_add_rule(struct nat *n, size_t chain, unsigned line, const char *text)
{
	struct nat_rule *r;

	if (!(n->n_rules & (n->n_rules - 1))) /* doubles */
		n->rules = must(
			reallocarray(n->rules, n->n_rules ? n->n_rules * 2 : 1, sizeof(*n->rules)));
	r = &n->rules[n->n_rules++];
	*r = (struct nat_rule){.place = {line, must(strdup(text))}, .chain = chain};
	return r;
}

static void set_text(char **text, const char *format, va_list arguments)
{
	if (!*text && vasprintf(text, format, arguments) < 0)
		abort();
}

void nat_set_problem(struct nat_rule *r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	set_text(&r->problem, format, arguments);
	va_end(arguments);
}

void nat_set_broader(struct nat_rule *r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	set_text(&r->broader, format, arguments);
	va_end(arguments);
}

void nat_clear(struct nat *n)
{
	for (size_t c = 0; c < n->n_chains; c++)
		free(n->chains[c].name);
	for (size_t r = 0; r < n->n_rules; r++) {
		free((char *)n->rules[r].place.text);
		free(n->rules[r].jump);
		free(n->rules[r].problem);
		free(n->rules[r].broader);
		free(n->rules[r].why);
	}
	free(n->chains);
	free(n->rules);
	*n = (struct nat){0};
}

/* ---- limits along the way: a packet has to fit all of them ---- */

/* What a packet has fitted so far; texts are borrowed. */
struct path {
	struct import_redirect match;
	bool local;
	const char *out, *problem, *broader;
};

static bool narrow_prefixes(struct import_prefixes *p, const struct import_prefixes *by)
{
	struct import_prefixes both = {0};

	if (!by->n || !p->n) {
		if (by->n)
			*p = *by;
		return true;
	}
	for (size_t a = 0; a < p->n; a++)
		for (size_t b = 0; b < by->n; b++) {
			const struct ip_prefix *one = &p->list[a], *other = &by->list[b];
			bool inner = ip_prefix_contains(one, other);

			if (!inner && !ip_prefix_contains(other, one))
				continue;
			if (both.n < IMPORT_LIST_MAX)
				both.list[both.n++] = inner ? *other : *one;
		}
	*p = both;
	return both.n > 0;
}

static bool narrow_ports(struct import_redirect *r, const struct import_redirect *by)
{
	struct import_redirect both = {0};

	for (size_t a = 0; r->n_ports && a < by->n_ports; a++)
		for (size_t b = 0; b < r->n_ports; b++) {
			struct port_range x = by->ports[a], y = r->ports[b];

			x.first = x.first > y.first ? x.first : y.first;
			x.last = x.last < y.last ? x.last : y.last;
			if (x.first <= x.last)
				import_add_ports(&both, &x);
		}
	if (!r->n_ports || !by->n_ports)
		both = r->n_ports ? *r : *by;
	else if (!both.n_ports)
		return false;
	memcpy(r->ports, both.ports, sizeof(r->ports));
	r->n_ports = both.n_ports;
	return true;
}

static bool has_interface(const struct import_redirect *r, const char *name)
{
	for (size_t n = 0; n < r->n_interfaces; n++)
		if (strcmp(r->interfaces[n], name) == 0)
			return true;
	return false;
}

static bool narrow_interfaces(struct import_redirect *r, const struct import_redirect *by)
{
	size_t kept = 0;

	if (!by->n_interfaces)
		return true;
	if (!r->n_interfaces) {
		memcpy(r->interfaces, by->interfaces, sizeof(r->interfaces));
		r->n_interfaces = by->n_interfaces;
		return true;
	}
	for (size_t n = 0; n < r->n_interfaces; n++)
		if (has_interface(by, r->interfaces[n]))
			memmove(r->interfaces[kept++], r->interfaces[n], IF_NAMESIZE);
	r->n_interfaces = kept;
	return kept > 0;
}

/* False: no packet fits both. */
static bool narrow(struct path *p, const struct nat_rule *r)
{
	struct import_redirect *m = &p->match;

	if (m->protocols && r->match.protocols)
		m->protocols &= r->match.protocols;
	else
		m->protocols |= r->match.protocols;
	if (r->match.protocols && !m->protocols)
		return false;
	p->local |= r->local;
	p->out = r->out[0] ? r->out : p->out;
	p->problem = p->problem ? p->problem : r->problem;
	p->broader = p->broader ? p->broader : r->broader;
	return narrow_ports(m, &r->match) && narrow_interfaces(m, &r->match) &&
	       narrow_prefixes(&m->listen, &r->match.listen) &&
	       narrow_prefixes(&m->from, &r->match.from);
}

/* ---- what gets where ---- */

struct walk {
	struct nat *nat;
	struct import *import;
	enum nat_hook hook;
	/* Masquerading and snat that is limited to what redirections send. */
	struct source {
		const struct import_redirect *match;
		const struct nat_rule *rule;
		bool used;
	} * sources;
	size_t n_sources;
};

/* Does it masquerade what the redirection sends? */
static bool source_fits(const struct source *s, const struct import_redirect *r)
{
	const struct import_redirect *m = s->match;
	/* Unchanged ports are those that the redirection listens on. */
	const struct port_range *to = r->target_ports.first ? &r->target_ports : r->ports;
	bool address = false, port = !m->n_ports;

	for (size_t n = 0; n < m->listen.n; n++)
		address |= ip_prefix_contains(&m->listen.list[n], &r->target);
	for (size_t n = 0; n < m->n_ports; n++)
		port |= m->ports[n].first <= to->first && to->last <= m->ports[n].last;
	return address && port && (!m->protocols || (m->protocols & r->protocols));
}

static void add_source(struct walk *w, struct import_redirect *r)
{
	for (size_t n = 0; r->target.family && n < w->n_sources; n++) {
		struct source *s = &w->sources[n];

		if (!source_fits(s, r))
			continue;
		s->used = true;
		r->masquerade = !s->match->snat.family;
		r->snat = s->match->snat;
		return;
	}
}

/* A process of this host reaches a redirected port over lo. */
static const char *output_problem(const struct path *p)
{
	if (p->match.n_interfaces || (p->out && strcmp(p->out, "lo") != 0))
		return "it is for what processes of this host send to others";
	if (!p->out && !p->local && !p->match.listen.n)
		return "it is for what processes of this host send to others; to this host itself "
		       "a "
		       "rule without an interface does it";
	return NULL;
}

static void take_redirect(struct walk *w, struct nat_rule *r, const struct path *p)
{
	struct import_redirect m = p->match;
	const char *problem = p->problem;

	if (!problem && !m.protocols)
		problem = "it is for every protocol: a rule is for tcp or udp";
	if (!problem && w->hook == NAT_HOOK_OUTPUT) {
		problem = output_problem(p);
		import_add_interface(&m, "lo");
	} else if (!problem && p->out) {
		problem = "it is limited to an outgoing interface";
	}
	if (problem) {
		/* The rule may yet be reached, and be taken, over another chain. */
		if (!r->why)
			r->why = must(strdup(problem));
		return;
	}
	r->done = true;
	add_source(w, &m);
	if (!import_take(w->import, &r->place, &m))
		return;
	if (p->broader)
		import_note(w->import, &r->place, "%s", p->broader);
	if (w->hook == NAT_HOOK_PREROUTING && !p->local && !m.listen.n)
		import_note_once(
			w->import, IMPORT_ONCE_TRANSIT, &r->place,
			"taken for packets to addresses of this host; those in transit to "
			"others were redirected too: for them write *: in front of the port");
}

static void take_source(struct walk *w, struct nat_rule *r, const struct path *p)
{
	struct source *s;

	if (p->problem || p->broader || p->out || p->match.from.n || !p->match.listen.n)
		return; /* other traffic than ours, too: it is spoken about at the end */
	w->sources = must(reallocarray(w->sources, w->n_sources + 1, sizeof(*w->sources)));
	s = &w->sources[w->n_sources++];
	*s = (struct source){.match = &r->match, .rule = r};
}

static void walk_chain(struct walk *w, size_t chain, const struct path *before, unsigned depth);

static void walk_jump(struct walk *w, const struct nat_rule *r, const struct path *p,
		      unsigned depth)
{
	for (size_t c = 0; c < w->nat->n_chains; c++)
		if (strcmp(w->nat->chains[c].name, r->jump) == 0)
			walk_chain(w, c, p, depth + 1);
}

static void walk_chain(struct walk *w, size_t chain, const struct path *before, unsigned depth)
{
	for (size_t n = 0; depth < JUMPS_MOST && n < w->nat->n_rules; n++) {
		struct nat_rule *r = &w->nat->rules[n];
		struct path p;

		if (r->chain != chain || r->done)
			continue;
		p = *before;
		if (!narrow(&p, r))
			continue;
		r->reached |= w->hook != NAT_HOOK_POSTROUTING;
		p.match.target = r->match.target;
		p.match.target_ports = r->match.target_ports;
		if (r->verdict == NAT_JUMP)
			walk_jump(w, r, &p, depth);
		else if (r->verdict == NAT_REDIRECT && w->hook != NAT_HOOK_POSTROUTING)
			take_redirect(w, r, &p);
		else if (r->verdict == NAT_SOURCE && w->hook == NAT_HOOK_POSTROUTING)
			take_source(w, r, &p);
	}
}

static void walk_hook(struct walk *w, enum nat_hook hook)
{
	const struct path any = {0};

	w->hook = hook;
	for (size_t c = 0; c < w->nat->n_chains; c++)
		if (w->nat->chains[c].hook == hook)
			walk_chain(w, c, &any, 0);
}

static bool source_is_used(const struct walk *w, const struct nat_rule *r)
{
	for (size_t n = 0; n < w->n_sources; n++)
		if (w->sources[n].rule == r && w->sources[n].used)
			return true;
	return false;
}

/* Are there redirections behind it that it exempts packets from? */
static bool exempts(const struct nat *nat, const struct nat_rule *exception)
{
	for (const struct nat_rule *r = exception; r < nat->rules + nat->n_rules; r++)
		if (r->chain == exception->chain &&
		    (r->verdict == NAT_REDIRECT || r->verdict == NAT_JUMP))
			return true;
	return false;
}

/* Exempt is what comes in somewhere, such as from the containers that are redirected to. */
static bool is_by_interface(const struct nat_rule *r)
{
	const struct import_redirect *m = &r->match;

	return m->n_interfaces && !r->problem && !m->from.n && !m->listen.n && !m->n_ports;
}

static void speak_about(const struct walk *w, const struct nat_rule *r)
{
	switch (r->verdict) {
	case NAT_REDIRECT:
		import_skip(w->import, &r->place, "%s", r->why ? r->why : "no packet gets to it");
		break;
	case NAT_SOURCE:
		if (!source_is_used(w, r))
			import_note(
				w->import, &r->place,
				"it changes the source of other traffic, too, and is left alone; "
				"a rule takes `masquerade` if its target must answer through "
				"this host");
		break;
	case NAT_EXCEPTION:
		if (r->reached && exempts(w->nat, r))
			(is_by_interface(r) ? import_note : import_skip)(
				w->import, &r->place,
				"rules have no exceptions: those behind it take its packets, too");
		break;
	case NAT_JUMP:
	case NAT_OTHER:
		break;
	}
}

void nat_take(struct nat *nat, struct import *i)
{
	struct walk w = {.nat = nat, .import = i};

	walk_hook(&w, NAT_HOOK_POSTROUTING); /* first: redirections ask for it */
	walk_hook(&w, NAT_HOOK_PREROUTING);
	walk_hook(&w, NAT_HOOK_OUTPUT);
	for (size_t n = 0; n < nat->n_rules; n++)
		if (!nat->rules[n].done)
			speak_about(&w, &nat->rules[n]);
	free(w.sources);
}
