/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/import.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/output-text.h"
#include "shared/iface.h"
#include "shared/rule-index.h"
#include "shared/varlink.h"

struct found_rule {
	struct rule *rule; /* owned */
	char *text;	   /* canonical; owned */
	unsigned line;
};

struct remark {
	bool skipped; /* else a note */
	unsigned line;
	size_t number;	      /* in the order they were made */
	char *text, *message; /* owned */
};

struct import {
	struct found_rule *rules;
	size_t n_rules;
	struct rule_index *index; /* of them */
	struct remark *remarks;
	size_t n_remarks;
	bool incomplete;
	bool said[IMPORT_ONCE_COUNT];
};

const struct import_format import_formats[] = {
	{"nft", import_looks_like_nft, import_read_nft},
	{"firewalld", import_looks_like_firewalld, import_read_firewalld},
	{"iptables", import_looks_like_iptables, import_read_iptables},
	{"firewall-cmd", import_looks_like_firewall_cmd, import_read_firewall_cmd},
	{"docker", import_looks_like_docker, import_read_docker},
	{"rinetd", import_looks_like_rinetd, import_read_rinetd},
	{NULL, NULL, NULL},
};

static void *must(void *p)
{
	if (!p)
		abort(); /* a client of some kilobytes: nothing sensible is left to do */
	return p;
}

/* An array with room for one more; it doubles. */
static void *grow(void *array, size_t n, size_t size)
{
	if (n & (n - 1))
		return array;
	return must(reallocarray(array, n ? n * 2 : 1, size));
}

struct import *import_new(void)
{
	struct import *i = must(calloc(1, sizeof(*i)));

	if (rule_index_new(&i->index) < 0)
		abort();
	return i;
}

struct import *import_free(struct import *i)
{
	if (!i)
		return NULL;
	rule_index_free(i->index);
	for (size_t n = 0; n < i->n_rules; n++) {
		rule_free(i->rules[n].rule);
		free(i->rules[n].text);
	}
	for (size_t n = 0; n < i->n_remarks; n++) {
		free(i->remarks[n].text);
		free(i->remarks[n].message);
	}
	free(i->rules);
	free(i->remarks);
	free(i);
	return NULL;
}

/* ---- what is said ---- */

static void add_remark(struct import *i, bool skipped, const struct import_place *p,
		       const char *format, va_list arguments)
{
	struct remark *r;

	i->remarks = grow(i->remarks, i->n_remarks, sizeof(*i->remarks));
	r = &i->remarks[i->n_remarks];
	*r = (struct remark){.skipped = skipped, .line = p->line, .number = i->n_remarks++};
	r->text = p->text ? must(strdup(p->text)) : NULL;
	if (vasprintf(&r->message, format, arguments) < 0)
		abort();
}

void import_skip(struct import *i, const struct import_place *p, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	add_remark(i, true, p, format, arguments);
	va_end(arguments);
	i->incomplete = true;
}

void import_note(struct import *i, const struct import_place *p, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	add_remark(i, false, p, format, arguments);
	va_end(arguments);
}

void import_note_once(struct import *i, enum import_once which, const struct import_place *p,
		      const char *text)
{
	if (!i->said[which])
		import_note(i, p, "%s", text);
	i->said[which] = true;
}

/* ---- rules ---- */

static void write_range(FILE *out, const struct port_range *r)
{
	fprintf(out, r->first == r->last ? "%u" : "%u-%u", r->first, r->last);
}

static void write_list(FILE *out, const char *keyword, const struct import_prefixes *p)
{
	char text[IP_PREFIX_STRLEN];

	for (size_t n = 0; n < p->n; n++)
		fprintf(out, "%s%s", n ? "," : keyword, ip_prefix_format(&p->list[n], text));
}

/* The rule of one listening address and range. */
static char *write_rule(const struct import_redirect *r, const struct ip_prefix *listen,
			const struct port_range *ports)
{
	static const char *const protocols[] = {"", "tcp", "udp", "tcp+udp"};
	char *text = NULL, address[IP_PREFIX_STRLEN];
	size_t length;
	FILE *out = must(open_memstream(&text, &length));

	fprintf(out, "%s ", protocols[r->protocols]);
	if (listen)
		fprintf(out, "%s:", ip_prefix_format(listen, address));
	write_range(out, ports);
	fputs(" to ", out);
	if (r->target.family)
		fprintf(out, "%s:", ip_prefix_format(&r->target, address));
	write_range(out, r->target_ports.first ? &r->target_ports : ports);
	for (size_t n = 0; n < r->n_interfaces; n++)
		fprintf(out, "%s%s", n ? "," : " on ", r->interfaces[n]);
	write_list(out, " from ", &r->from);
	if (r->masquerade)
		fputs(" masquerade", out);
	if (r->snat.family)
		fprintf(out, " snat %s", ip_prefix_format(&r->snat, address));
	if (fclose(out) != 0)
		abort();
	return text;
}

/* The rule before that takes the same packets, or NULL. */
static const struct found_rule *find_conflict(const struct import *i, const struct rule *rule)
{
	size_t n;

	return rule_index_find_conflict(i->index, rule, &n) ? &i->rules[n] : NULL;
}

/* Reads a written rule back; a reader's mistake must not become a file with errors. */
static bool add_rule(struct import *i, const struct import_place *p, const char *text)
{
	_cleanup_(diag_clear) struct diag diag = {0};
	_cleanup_(rule_freep) struct rule *rule = NULL;
	const struct found_rule *other;
	char *canonical;

	if (rule_parse(text, NULL, &diag, &rule) < 0) {
		import_skip(i, p, "%s: %s", text,
			    diag.n_items ? diag.items[0].message : "not a rule");
		return false;
	}
	other = find_conflict(i, rule);
	if (other && rule_equal(other->rule, rule))
		return true; /* said twice, as in PREROUTING and OUTPUT */
	if (other) {
		import_skip(i, p, "a rule before it takes the same packets: %s", other->text);
		return false;
	}
	if (rule_format(rule, &canonical) < 0 || rule_index_add(i->index, rule, i->n_rules) < 0)
		abort();
	i->rules = grow(i->rules, i->n_rules, sizeof(*i->rules));
	i->rules[i->n_rules++] = (struct found_rule){take_ptr(rule), canonical, p->line};
	return true;
}

static unsigned range_length(const struct port_range *r)
{
	return r->last - r->first + 1U;
}

static bool ranges_fit(const struct import_redirect *r, const struct port_range *ports)
{
	return !r->target_ports.first || range_length(&r->target_ports) == 1 ||
	       range_length(&r->target_ports) == range_length(ports);
}

static bool changes_nothing(const struct import_redirect *r, const struct port_range *ports)
{
	return !r->target.family &&
	       (!r->target_ports.first ||
		(r->target_ports.first == ports->first && r->target_ports.last == ports->last));
}

static bool take_one(struct import *i, const struct import_place *p,
		     const struct import_redirect *r, const struct ip_prefix *listen,
		     const struct port_range *ports)
{
	_cleanup_(freep) char *text = NULL;

	if (!ranges_fit(r, ports)) {
		import_skip(i, p,
			    "%u ports to %u others: a range goes to one as long, or to one "
			    "port",
			    range_length(ports), range_length(&r->target_ports));
		return false;
	}
	if (changes_nothing(r, ports)) {
		import_skip(i, p, "it redirects to the same port of the same host");
		return false;
	}
	text = write_rule(r, listen, ports);
	return add_rule(i, p, text);
}

bool import_take(struct import *i, const struct import_place *p, const struct import_redirect *r)
{
	static const struct port_range every = {1, UINT16_MAX};
	bool any = false;

	for (size_t l = 0; l < (r->listen.n ? r->listen.n : 1); l++)
		for (size_t n = 0; n < (r->n_ports ? r->n_ports : 1); n++)
			any |= take_one(i, p, r, r->listen.n ? &r->listen.list[l] : NULL,
					r->n_ports ? &r->ports[n] : &every);
	return any;
}

/* ---- helpers of the readers ---- */

int import_read_port(const char *text, struct port_range *ret)
{
	const struct servent *service;
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && !errno) {
		if (n < 1 || n > UINT16_MAX)
			return -EINVAL;
		*ret = (struct port_range){(uint16_t)n, (uint16_t)n};
		return 0;
	}
	service = *text ? getservbyname(text, NULL) : NULL;
	if (!service)
		return -EINVAL;
	n = ntohs((uint16_t)service->s_port);
	*ret = (struct port_range){(uint16_t)n, (uint16_t)n};
	return 0;
}

int import_read_ports(const char *text, char dash, struct port_range *ret)
{
	const char *separator = *text ? strchr(text + 1, dash) : NULL;
	_cleanup_(freep) char *first = NULL;
	struct port_range from, to;

	if (!separator || import_read_port(text, ret) == 0) /* a name may have a dash */
		return import_read_port(text, ret);
	first = must(strndup(text, (size_t)(separator - text)));
	if (import_read_port(first, &from) < 0 || import_read_port(separator + 1, &to) < 0 ||
	    from.first > to.last)
		return -EINVAL;
	*ret = (struct port_range){from.first, to.last};
	return 0;
}

int import_add_prefix(struct import_prefixes *p, const char *text)
{
	struct ip_prefix prefix;

	if (p->n == IMPORT_LIST_MAX || ip_prefix_parse(text, &prefix) < 0)
		return -EINVAL;
	if (prefix.length == 0) /* every address of the family */
		return 0;
	p->list[p->n++] = prefix;
	return 0;
}

int import_add_interface(struct import_redirect *r, const char *name)
{
	if (r->n_interfaces == IMPORT_LIST_MAX || iface_name_problem(name, strlen(name)))
		return -EINVAL;
	strcpy(r->interfaces[r->n_interfaces++], name);
	return 0;
}

int import_add_ports(struct import_redirect *r, const struct port_range *range)
{
	if (r->n_ports == IMPORT_LIST_MAX)
		return -EINVAL;
	r->ports[r->n_ports++] = *range;
	return 0;
}

/* ---- output ---- */

const struct rule *import_rule(const struct import *i, size_t n)
{
	return n < i->n_rules ? i->rules[n].rule : NULL;
}

void import_print_rules(const struct import *i, FILE *out)
{
	for (size_t n = 0; n < i->n_rules; n++)
		fprintf(out, "redirect %s\n", i->rules[n].text);
}

static int compare_lines(const void *a, const void *b)
{
	const struct remark *one = a, *other = b;

	if (one->line != other->line)
		return one->line < other->line ? -1 : 1;
	return one->number < other->number ? -1 : 1;
}

void import_sort(struct import *i)
{
	if (i->n_remarks > 0)
		qsort(i->remarks, i->n_remarks, sizeof(*i->remarks), compare_lines);
}

void import_print_remarks(const struct import *i, const char *name, bool notes, FILE *out)
{
	for (size_t n = 0; n < i->n_remarks; n++) {
		const struct remark *r = &i->remarks[n];

		if (!r->skipped && !notes)
			continue;
		fprintf(out, "%s:", name);
		if (r->line)
			fprintf(out, "%u:", r->line);
		fprintf(out, " %s: ", r->skipped ? "not taken" : "note");
		text_write_safe(r->message, strlen(r->message), out);
		if (r->text) {
			fputs("\n    ", out);
			text_write_safe(r->text, strlen(r->text), out);
		}
		fputc('\n', out);
	}
}

static json_t *line_to_json(unsigned line)
{
	return line ? json_integer(line) : json_null();
}

json_t *import_to_json(const struct import *i, const char *format)
{
	json_t *rules = json_array(), *remarks = json_array();

	for (size_t n = 0; n < i->n_rules; n++)
		json_array_append_new(rules, json_pack("{s:s, s:o}", "rule", i->rules[n].text,
						       "line", line_to_json(i->rules[n].line)));
	for (size_t n = 0; n < i->n_remarks; n++) {
		const struct remark *r = &i->remarks[n];

		json_array_append_new(remarks, json_pack("{s:s, s:o, s:o, s:o}", "kind",
							 r->skipped ? "not-taken" : "note", "line",
							 line_to_json(r->line), "text",
							 varlink_text(r->text), "message",
							 varlink_text(r->message)));
	}
	return json_pack("{s:i, s:s, s:b, s:o, s:o}", "schema", 1, "format", format, "complete",
			 !i->incomplete, "rules", rules, "remarks", remarks);
}

bool import_is_complete(const struct import *i)
{
	return !i->incomplete;
}

bool import_is_empty(const struct import *i)
{
	return i->n_rules == 0 && i->n_remarks == 0;
}
