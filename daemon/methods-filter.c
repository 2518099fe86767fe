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
#include "shared/rule-json.h"
#include "shared/varlink.h"

struct filter_parameters {
	uint32_t packets;
	const char *protocol, *src, *dst, *state, *rule;
	int32_t sport, dport;
};

/* The first one is Monitor's alone. */
static const struct parameter filter_parameters[] = {
	{"packets", PARAMETER_COUNT, false, offsetof(struct filter_parameters, packets)},
	{"protocol", PARAMETER_STRING, false, offsetof(struct filter_parameters, protocol)},
	{"src", PARAMETER_STRING, false, offsetof(struct filter_parameters, src)},
	{"dst", PARAMETER_STRING, false, offsetof(struct filter_parameters, dst)},
	{"sport", PARAMETER_PORT, false, offsetof(struct filter_parameters, sport)},
	{"dport", PARAMETER_PORT, false, offsetof(struct filter_parameters, dport)},
	{"state", PARAMETER_STRING, false, offsetof(struct filter_parameters, state)},
	{"rule", PARAMETER_STRING, false, offsetof(struct filter_parameters, rule)},
	{NULL, PARAMETER_STRING, false, 0},
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

bool flow_filter_fits(const struct flow_filter *f, const struct flow_view *v)
{
	const struct flow_tuple *t = &v->original;

	return (!f->rule || f->rule == v->rule) && (!f->protocol || f->protocol == v->protocol) &&
	       (!f->state || f->state == v->state) &&
	       (f->sport == METHODS_NO_PORT || f->sport == t->sport) &&
	       (f->dport == METHODS_NO_PORT || f->dport == t->dport) &&
	       (!f->src.family || ip_prefix_contains(&f->src, &t->src)) &&
	       (!f->dst.family || ip_prefix_contains(&f->dst, &t->dst));
}

bool methods_read_filter(struct call *call, json_t *parameters, struct manager *m,
			 struct flow_filter *ret, uint32_t *ret_packets, int *ret_answer)
{
	struct filter_parameters p;
	const char *wrong;

	if (!methods_read_parameters(call, parameters, filter_parameters + !ret_packets, &p,
				     ret_answer))
		return false;
	wrong = filter_read(ret, &p);
	if (wrong)
		*ret_answer = methods_invalid_parameter(call, wrong);
	else if (!filter_set_rule(ret, manager_ruleset(m)))
		*ret_answer = methods_no_such_rule(call, ret->selector);
	else if (ret_packets)
		*ret_packets = p.packets;
	return !wrong && (!ret->selector || ret->rule);
}

static json_t *interface_pack(struct interface_cache *c, uint32_t ifindex)
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
	return varlink_text(c->entries[i].name[0] ? c->entries[i].name : NULL);
}

static json_t *tuple_pack(const struct flow_tuple *t)
{
	char src[IP_PREFIX_STRLEN], dst[IP_PREFIX_STRLEN];

	ip_address_format(&t->src, src);
	ip_address_format(&t->dst, dst);
	return json_pack("{s:s, s:i, s:s, s:i, s:o, s:o}", "src", src, "sport", t->sport, "dst",
			 dst, "dport", t->dport, "packets", rule_json_counter(t->packets), "bytes",
			 rule_json_counter(t->bytes));
}

json_t *methods_pack_flow(const struct flow_view *v, struct interface_cache *interfaces)
{
	return json_pack(
		"{s:I, s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o}", "rule", (json_int_t)v->rule,
		"protocol", v->protocol == IPPROTO_TCP ? "tcp" : "udp", "state",
		flow_state_name(v->state), "assured", v->assured, "original",
		tuple_pack(&v->original), "reply", tuple_pack(&v->reply), "interface",
		interface_pack(interfaces, v->ifindex), "age_ms", rule_json_counter(v->age_ms),
		"expires_ms", rule_json_counter(v->expires_ms));
}
