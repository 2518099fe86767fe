/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Conntrack and ConntrackCount: a walk over the flow table, some flows a turn of the event loop,
 * so that a table of a million flows holds up neither the daemon nor its other clients. The table
 * changes meanwhile: each flow that lives through the whole walk is seen once.
 */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/flows.h"
#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-handlers.h"
#include "daemon/ruleset.h"
#include "shared/cleanup.h"
#include "shared/rule-json.h"
#include "shared/varlink.h"

#define FLOWS_PER_REPLY	  256  /* with `more` */
#define FLOWS_ONE_REPLY	  4096 /* without */
#define FLOWS_PER_TURN	  1024
#define RECORDS_PER_CALL  8192
#define INTERFACES_CACHED 16

/* ---- what is asked for ---- */

struct flow_parameters {
	const char *protocol, *src, *dst, *state, *rule;
	int32_t sport, dport;
};

static const struct parameter flow_parameters[] = {
	{"protocol", PARAMETER_STRING, false, offsetof(struct flow_parameters, protocol)},
	{"src", PARAMETER_STRING, false, offsetof(struct flow_parameters, src)},
	{"dst", PARAMETER_STRING, false, offsetof(struct flow_parameters, dst)},
	{"sport", PARAMETER_PORT, false, offsetof(struct flow_parameters, sport)},
	{"dport", PARAMETER_PORT, false, offsetof(struct flow_parameters, dport)},
	{"state", PARAMETER_STRING, false, offsetof(struct flow_parameters, state)},
	{"rule", PARAMETER_STRING, false, offsetof(struct flow_parameters, rule)},
	{NULL, PARAMETER_STRING, false, 0},
};

struct flow_filter {
	uint8_t protocol;	   /* 0: any */
	struct ip_prefix src, dst; /* family 0: any */
	int32_t sport, dport;	   /* METHODS_NO_PORT: any */
	enum flow_state state;	   /* FLOW_FREE: any */
	uint32_t rule;		   /* RULE_ID_NONE: any */
	/*
	 * The id is in no ruleset: that of a rule removed meanwhile whose flows go on, or a
	 * mistake. Which of the two shows when the walk has met such a flow or not.
	 */
	bool rule_unknown;
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
static const char *filter_read(struct flow_filter *f, const struct flow_parameters *p)
{
	*f = (struct flow_filter){.sport = p->sport, .dport = p->dport};
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
static bool filter_set_rule(struct flow_filter *f, const struct ruleset *rules, const char *rule)
{
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

static bool filter_fits(const struct flow_filter *f, const struct flow_view *v)
{
	const struct flow_tuple *t = &v->original;

	return (!f->rule || f->rule == v->rule) && (!f->protocol || f->protocol == v->protocol) &&
	       (!f->state || f->state == v->state) &&
	       (f->sport == METHODS_NO_PORT || f->sport == t->sport) &&
	       (f->dport == METHODS_NO_PORT || f->dport == t->dport) &&
	       (!f->src.family || ip_prefix_contains(&f->src, &t->src)) &&
	       (!f->dst.family || ip_prefix_contains(&f->dst, &t->dst));
}

/* ---- the walk ---- */

struct walk {
	struct manager *manager;
	struct call *call;
	struct flow_filter filter;
	char *selector; /* owned: the parameter `rule`, or NULL */
	uint32_t cursor;
	bool rule_seen;
	json_t *flows; /* those of the reply in the making; NULL: only counted */
	size_t matched;
	struct {
		uint32_t ifindex;
		char name[IF_NAMESIZE];	 /* empty: gone */
	} interfaces[INTERFACES_CACHED]; /* names for the reply in the making */
	size_t n_interfaces;
};

static void walk_free(void *state)
{
	struct walk *w = state;

	json_decref(w->flows);
	free(w->selector);
	free(w);
}

static json_t *walk_interface_name(struct walk *w, uint32_t ifindex)
{
	size_t i = 0;

	while (i < w->n_interfaces && w->interfaces[i].ifindex != ifindex)
		i++;
	if (i == w->n_interfaces) {
		/* A full cache starts again: nobody has traffic on so many at once. */
		i = i < INTERFACES_CACHED ? i : 0;
		w->n_interfaces = i + 1;
		w->interfaces[i].ifindex = ifindex;
		if (!if_indextoname(ifindex, w->interfaces[i].name))
			w->interfaces[i].name[0] = '\0';
	}
	return varlink_text(w->interfaces[i].name[0] ? w->interfaces[i].name : NULL);
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

static json_t *flow_pack(struct walk *w, const struct flow_view *v)
{
	return json_pack("{s:I, s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o}", "rule",
			 (json_int_t)v->rule, "protocol",
			 v->protocol == IPPROTO_TCP ? "tcp" : "udp", "state",
			 flow_state_name(v->state), "assured", v->assured, "original",
			 tuple_pack(&v->original), "reply", tuple_pack(&v->reply), "interface",
			 walk_interface_name(w, v->ifindex), "age_ms", rule_json_counter(v->age_ms),
			 "expires_ms", rule_json_counter(v->expires_ms));
}

/* Counts a flow in, or out. */
static int walk_visit(struct walk *w, const struct flow_view *v)
{
	if (v->rule == w->filter.rule)
		w->rule_seen = true;
	if (!filter_fits(&w->filter, v))
		return 0;
	w->matched++;
	if (w->flows && json_array_append_new(w->flows, flow_pack(w, v)) < 0)
		return -ENOMEM;
	return 0;
}

/*
 * Goes on until `most` flows have matched: 1; the end of the table: 0; or it is time to let others
 * run: -EAGAIN.
 */
static int walk_run(struct walk *w, size_t most)
{
	struct flow_view view;

	for (size_t i = 0; i < FLOWS_PER_TURN; i++) {
		int r = flows_next(manager_datapath(w->manager), &w->cursor, RECORDS_PER_CALL,
				   &view);

		if (r <= 0)
			return r;
		r = walk_visit(w, &view);
		if (r < 0)
			return r;
		if (w->matched >= most)
			return 1;
	}
	return -EAGAIN;
}

static json_t *walk_take_flows(struct walk *w)
{
	json_t *flows = take_ptr(w->flows);

	w->matched = 0;
	w->n_interfaces = 0;
	return json_pack("{s:i, s:o}", "schema", METHODS_SCHEMA, "flows", flows);
}

/* An error in place of the (last) reply; the stream ends with it. */
static int walk_fail(struct walk *w, int error)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	if (error == -ENOMEM)
		return error;
	diag_add(&diag, DIAG_FAILED, NULL, NULL, "the flow table cannot be read: %s",
		 strerror(-error));
	return methods_refuse(w->call, error, &diag);
}

/* Is it a mistake after all? Then the call is answered. */
static bool walk_refuse_rule(struct walk *w, int *ret_answer)
{
	if (!w->filter.rule_unknown || w->rule_seen)
		return false;
	*ret_answer = methods_no_such_rule(w->call, w->selector);
	return true;
}

static int walk_end(struct walk *w, int result, json_t *(*finish)(struct walk *w), json_t **ret)
{
	int r;

	if (result < 0)
		return walk_fail(w, result);
	if (walk_refuse_rule(w, &r))
		return r;
	*ret = finish(w);
	return *ret ? 0 : -ENOMEM;
}

/* With `more`: a part at a time. */
static int walk_produce_part(void *state, json_t **ret)
{
	struct walk *w = state;
	int r;

	if (!w->flows)
		w->flows = json_array();
	if (!w->flows)
		return -ENOMEM;
	r = walk_run(w, FLOWS_PER_REPLY);
	if (r == -EAGAIN)
		return r;
	if (r <= 0)
		return walk_end(w, r, walk_take_flows, ret);
	*ret = walk_take_flows(w);
	return *ret ? 1 : -ENOMEM;
}

static int refuse_too_many(struct call *call)
{
	return call_error(call, "io.redirectd.TooManyFlows",
			  json_pack("{s:s, s:i}", "message",
				    "more flows than fit one reply: call with \"more\", or filter",
				    "limit", FLOWS_ONE_REPLY));
}

/* Without: all of them, if they are not too many. */
static int walk_produce_all(void *state, json_t **ret)
{
	struct walk *w = state;
	int r = walk_run(w, FLOWS_ONE_REPLY + 1);

	if (r == -EAGAIN)
		return r;
	if (r == 1)
		return refuse_too_many(w->call);
	return walk_end(w, r, walk_take_flows, ret);
}

static json_t *walk_take_count(struct walk *w)
{
	return json_pack("{s:o}", "count", rule_json_counter(w->matched));
}

static int walk_produce_count(void *state, json_t **ret)
{
	struct walk *w = state;
	int r = walk_run(w, SIZE_MAX);

	if (r == -EAGAIN)
		return r;
	return walk_end(w, r, walk_take_count, ret);
}

/* ---- the methods ---- */

static struct walk *walk_new(struct manager *m, struct call *call, const struct flow_filter *f,
			     const char *selector, bool collects)
{
	struct walk *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->manager = m;
	w->call = call;
	w->filter = *f;
	w->selector = selector ? strdup(selector) : NULL;
	w->flows = collects ? json_array() : NULL;
	if ((!selector || w->selector) && (!collects || w->flows))
		return w;
	walk_free(w);
	return NULL;
}

static int start(struct call *call, json_t *parameters, struct manager *m, bool collects,
		 int (*produce)(void *state, json_t **ret))
{
	struct flow_parameters p;
	struct flow_filter filter;
	const char *wrong;
	struct walk *w;
	int r;

	if (!methods_read_parameters(call, parameters, flow_parameters, &p, &r))
		return r;
	wrong = filter_read(&filter, &p);
	if (wrong)
		return methods_invalid_parameter(call, wrong);
	if (!filter_set_rule(&filter, manager_ruleset(m), p.rule))
		return methods_no_such_rule(call, p.rule);
	w = walk_new(m, call, &filter, p.rule, collects);
	if (!w)
		return -ENOMEM;
	return call_stream(call, produce, w, walk_free);
}

int methods_conntrack(struct call *call, json_t *parameters, void *userdata)
{
	return start(call, parameters, userdata, true,
		     call_wants_more(call) ? walk_produce_part : walk_produce_all);
}

int methods_conntrack_count(struct call *call, json_t *parameters, void *userdata)
{
	return start(call, parameters, userdata, false, walk_produce_count);
}
