/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which flows a call means, and a flow as JSON: see methods-filter.h. */
#include "daemon/methods-filter.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/manager.h"
#include "daemon/ruleset.h"
#include "shared/writer.h"

struct filter_parameters {
	uint32_t packets;
	bool dry_run;
	const char *protocol, *src, *dst, *state, *rule;
	int32_t sport, dport;
};

#define AT(member) offsetof(struct filter_parameters, member)
#define TUPLE_PARAMETERS(required)                                                                 \
	{"protocol", PARAMETER_STRING, required, AT(protocol)},                                    \
		{"src", PARAMETER_STRING, required, AT(src)},                                      \
		{"dst", PARAMETER_STRING, required, AT(dst)},                                      \
		{"sport", PARAMETER_PORT, required, AT(sport)},                                    \
	{                                                                                          \
		"dport", PARAMETER_PORT, required, AT(dport)                                       \
	}
#define FILTER_PARAMETERS                                                                          \
	TUPLE_PARAMETERS(false), {"state", PARAMETER_STRING, false, AT(state)},                    \
	{                                                                                          \
		"rule", PARAMETER_STRING, false, AT(rule)                                          \
	}
#define END                                                                                        \
	{                                                                                          \
		NULL, PARAMETER_STRING, false, 0                                                   \
	}

static const struct parameter tuple_parameters[] = {TUPLE_PARAMETERS(true), END};
static const struct parameter filter_parameters[] = {FILTER_PARAMETERS, END};
static const struct parameter monitor_parameters[] = {
	{"packets", PARAMETER_COUNT, false, AT(packets)}, FILTER_PARAMETERS, END};
static const struct parameter delete_parameters[] = {
	{"dryRun", PARAMETER_BOOL, false, AT(dry_run)}, FILTER_PARAMETERS, END};
static const struct parameter *const request_parameters[] = {
	[FILTER_ALONE] = filter_parameters,
	[FILTER_MONITOR] = monitor_parameters,
	[FILTER_DELETE] = delete_parameters,
};

static bool filter_set_protocol(struct flow_filter *f, const char *name)
{
	static const struct {
		const char *name;
		uint8_t protocol;
	} protocols[] = {{"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}};

	for (size_t i = 0; name && i < sizeof(protocols) / sizeof(protocols[0]); i++)
		if (strcasecmp(name, protocols[i].name) == 0)
			f->protocol = protocols[i].protocol;
	return !name || f->protocol;
}

static bool filter_set_state(struct flow_filter *f, const char *name)
{
	for (int s = FLOW_FREE + 1; name && s < FLOW_STATE_COUNT; s++)
		if (strcasecmp(name, flow_state_name((enum flow_state)s)) == 0)
			f->state = (enum flow_state)s;
	return !name || f->state != FLOW_FREE;
}

static bool filter_set_prefix(struct ip_prefix *p, const char *text)
{
	return !text || ip_prefix_parse(text, p) == 0;
}

/* The name of the parameter that makes no sense; NULL: none. */
static const char *filter_read(struct flow_filter *f, const struct filter_parameters *p)
{
	*f = (struct flow_filter){.sport = p->sport, .dport = p->dport, .selector = p->rule};
	if (!filter_set_protocol(f, p->protocol))
		return "protocol";
	if (!filter_set_prefix(&f->src, p->src))
		return "src";
	if (!filter_set_prefix(&f->dst, p->dst))
		return "dst";
	if (!filter_set_state(f, p->state))
		return "state";
	return NULL;
}

/* False: no rule like that. */
static bool filter_set_rule(struct flow_filter *f, const struct ruleset *rules)
{
	const char *rule = f->selector;
	const struct ruleset_entry *entry = rule ? ruleset_find(rules, rule) : NULL;
	unsigned long long id;
	char *end;

	if (!rule)
		return true;
	f->rule_unknown = !entry;
	if (entry) {
		f->rule = entry->id;
		return true;
	}
	if (rule[0] < '1' || rule[0] > '9')
		return false;
	errno = 0;
	id = strtoull(rule, &end, 10);
	if (errno || *end || id > UINT32_MAX)
		return false;
	f->rule = (uint32_t)id;
	return true;
}

static bool filter_is_empty(const struct flow_filter *f)
{
	return !f->selector && !f->protocol && !f->state && f->sport == METHODS_NO_PORT &&
	       f->dport == METHODS_NO_PORT && !f->src.family && !f->dst.family;
}

static bool tuple_fits(const struct flow_filter *f, const struct flow_tuple *t)
{
	return (f->sport == METHODS_NO_PORT || f->sport == t->sport) &&
	       (f->dport == METHODS_NO_PORT || f->dport == t->dport) &&
	       (!f->src.family || ip_prefix_contains(&f->src, &t->src)) &&
	       (!f->dst.family || ip_prefix_contains(&f->dst, &t->dst));
}

bool flow_filter_fits(const struct flow_filter *f, const struct flow_view *v)
{
	return (!f->rule || f->rule == v->rule) && (!f->protocol || f->protocol == v->protocol) &&
	       (!f->state || f->state == v->state) &&
	       (tuple_fits(f, &v->original) || (f->either_direction && tuple_fits(f, &v->reply)));
}

bool methods_read_filter(struct call *call, json_t *parameters, struct manager *m,
			 enum filter_request_kind kind, struct filter_request *ret, int *ret_answer)
{
	struct filter_parameters p = {.packets = 0};
	struct flow_filter *f = &ret->filter;
	const char *wrong;

	if (!methods_read_parameters(call, parameters, request_parameters[kind], &p, ret_answer))
		return false;
	ret->packets = p.packets;
	ret->dry_run = p.dry_run;
	wrong = filter_read(f, &p);
	if (wrong)
		*ret_answer = methods_invalid_parameter(call, wrong);
	else if (!filter_set_rule(f, manager_ruleset(m)))
		*ret_answer = methods_no_such_rule(call, f->selector);
	else if (kind == FILTER_DELETE && filter_is_empty(f))
		*ret_answer = call_error(call, "io.redirectd.FilterNeeded", json_object());
	else
		return true;
	return false;
}

bool methods_read_tuple(struct call *call, json_t *parameters, struct flow_filter *ret,
			int *ret_answer)
{
	struct filter_parameters p = {.packets = 0};
	const char *wrong;

	if (!methods_read_parameters(call, parameters, tuple_parameters, &p, ret_answer))
		return false;
	wrong = filter_read(ret, &p);
	if (!wrong && !ip_prefix_is_host(&ret->src))
		wrong = "src";
	if (!wrong && !ip_prefix_is_host(&ret->dst))
		wrong = "dst";
	ret->either_direction = true;
	if (wrong)
		*ret_answer = methods_invalid_parameter(call, wrong);
	return !wrong;
}

static void write_interface(struct writer *w, struct interface_cache *c, uint32_t ifindex)
{
	size_t i = 0;

	while (i < c->n && c->entries[i].ifindex != ifindex)
		i++;
	if (i == c->n) {
		/* A full cache starts again: nobody has traffic on so many at once. */
		i = i < INTERFACES_CACHED ? i : 0;
		c->n = i + 1;
		c->entries[i].ifindex = ifindex;
		if (!if_indextoname(ifindex, c->entries[i].name))
			c->entries[i].name[0] = '\0';
	}
	if (c->entries[i].name[0])
		writer_json_string(w, c->entries[i].name);
	else
		writer_literal(w, "null");
}

static void write_address(struct writer *w, const struct ip_prefix *address)
{
	char *to = writer_room(w, IP_PREFIX_STRLEN);

	if (to)
		writer_advance(w, strlen(ip_address_format(address, to)));
}

static void write_tuple(struct writer *w, const struct flow_tuple *t)
{
	writer_literal(w, "{\"src\":\"");
	write_address(w, &t->src);
	writer_literal(w, "\",\"sport\":");
	writer_number(w, t->sport);
	writer_literal(w, ",\"dst\":\"");
	write_address(w, &t->dst);
	writer_literal(w, "\",\"dport\":");
	writer_number(w, t->dport);
	writer_literal(w, ",\"packets\":");
	writer_json_number(w, t->packets);
	writer_literal(w, ",\"bytes\":");
	writer_json_number(w, t->bytes);
	writer_literal(w, "}");
}

void methods_write_flow(struct writer *w, const struct flow_view *v,
			struct interface_cache *interfaces)
{
	writer_literal(w, "{\"rule\":");
	writer_number(w, v->rule);
	writer_literal(w, ",\"protocol\":\"");
	writer_text(w, v->protocol == IPPROTO_TCP ? "tcp" : "udp");
	writer_literal(w, "\",\"state\":\"");
	writer_text(w, flow_state_name(v->state));
	writer_literal(w, "\",\"assured\":");
	writer_text(w, v->assured ? "true" : "false");
	writer_literal(w, ",\"original\":");
	write_tuple(w, &v->original);
	writer_literal(w, ",\"reply\":");
	write_tuple(w, &v->reply);
	writer_literal(w, ",\"interface\":");
	write_interface(w, interfaces, v->ifindex);
	writer_literal(w, ",\"age_ms\":");
	writer_json_number(w, v->age_ms);
	writer_literal(w, ",\"expires_ms\":");
	writer_json_number(w, v->expires_ms);
	writer_literal(w, "}");
}
