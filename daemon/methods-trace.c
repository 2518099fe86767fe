/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trace: what would become of a packet, as JSON. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-filter.h"
#include "daemon/methods-handlers.h"
#include "daemon/ruleset.h"
#include "daemon/trace.h"
#include "shared/cleanup.h"
#include "shared/varlink.h"
#include "shared/writer.h"

struct trace_parameters {
	const char *protocol, *src, *dst, *interface;
	int32_t sport, dport;
};

static const struct parameter trace_parameters[] = {
	{"protocol", PARAMETER_STRING, true, offsetof(struct trace_parameters, protocol)},
	{"src", PARAMETER_STRING, true, offsetof(struct trace_parameters, src)},
	{"sport", PARAMETER_PORT, true, offsetof(struct trace_parameters, sport)},
	{"dst", PARAMETER_STRING, true, offsetof(struct trace_parameters, dst)},
	{"dport", PARAMETER_PORT, true, offsetof(struct trace_parameters, dport)},
	{"interface", PARAMETER_STRING, false, offsetof(struct trace_parameters, interface)},
	{NULL, PARAMETER_STRING, false, 0},
};

static bool read_address(const char *text, struct ip_prefix *ret)
{
	return ip_prefix_parse(text, ret) == 0 && ip_prefix_is_host(ret) && !strchr(text, '/');
}

/* What is wrong, or NULL. */
static const char *read_query(const struct trace_parameters *p, struct trace_query *ret)
{
	*ret = (struct trace_query){.sport = (uint16_t)p->sport, .dport = (uint16_t)p->dport};
	if (strcmp(p->protocol, "tcp") == 0)
		ret->protocol = RULE_TCP;
	else if (strcmp(p->protocol, "udp") == 0)
		ret->protocol = RULE_UDP;
	else
		return "protocol";
	if (!read_address(p->src, &ret->src))
		return "src";
	if (!read_address(p->dst, &ret->dst) || ret->dst.family != ret->src.family)
		return "dst";
	if (!p->sport)
		return "sport";
	return p->dport ? NULL : "dport";
}

/* ---- the answer ---- */

static json_t *addresses_pack(const __be32 saddr[4], __be16 sport, const __be32 daddr[4],
			      __be16 dport)
{
	char src[IP_PREFIX_STRLEN], dst[IP_PREFIX_STRLEN];
	struct ip_prefix address;

	ip_prefix_from_mapped((const uint8_t *)saddr, &address);
	ip_address_format(&address, src);
	ip_prefix_from_mapped((const uint8_t *)daddr, &address);
	ip_address_format(&address, dst);
	return json_pack("{s:s, s:i, s:s, s:i}", "src", src, "sport", ntohs(sport), "dst", dst,
			 "dport", ntohs(dport));
}

/* How packets of both directions look, from where they are sent on. */
static json_t *stages_pack(const struct trace_answer *a)
{
	static const char *const names[TRACE_STAGES] = {
		[TRACE_IN] = "in",
		[TRACE_OUT] = "out",
		[TRACE_REPLY_IN] = "reply_in",
		[TRACE_REPLY_OUT] = "reply_out",
	};
	const struct flow_dir *o = &a->flow.original, *r = &a->flow.reply;
	json_t *stages;

	if (a->reason != REASON_COUNT)
		return json_null();
	stages = json_pack("{s:o, s:o}", "sent",
			   addresses_pack(o->saddr, o->sport, o->daddr, o->dport), "reply_sent",
			   addresses_pack(r->saddr, r->sport, r->daddr, r->dport));
	for (size_t i = 0; i < TRACE_STAGES; i++) {
		const struct trace_tuple *t = &a->becomes[i];

		json_object_set_new(stages, names[i],
				    addresses_pack(t->saddr, t->sport, t->daddr, t->dport));
	}
	return stages;
}

static json_t *rules_pack(const struct trace *t)
{
	json_t *array = json_array();

	for (size_t i = 0; i < t->n_rules; i++) {
		_cleanup_(freep) char *text = NULL;
		const struct trace_rule *r = &t->rules[i];

		if (rule_format(r->entry->rule, &text) == 0 &&
		    json_array_append_new(array, json_pack("{s:I, s:o, s:s, s:s}", "id",
							   (json_int_t)r->entry->id, "rule",
							   varlink_text(text), "why",
							   trace_why_name(r->why), "message",
							   trace_why_words(r->why))) == 0)
			continue;
		json_decref(array);
		return NULL;
	}
	return array;
}

static json_t *flow_pack(struct manager *m, const struct trace_answer *a)
{
	_cleanup_(writer_clear) struct writer text = {0};
	struct interface_cache interfaces = {.n = 0};
	struct flow_view view;

	if (a->reason != REASON_COUNT)
		return json_null();
	flows_view(manager_datapath(m), &a->flow, &view);
	methods_write_flow(&text, &view, &interfaces);
	return text.failed ? NULL : json_loadb(text.data, text.length, 0, NULL);
}

static const char *verdict(const struct trace_answer *a)
{
	if (a->reason == REASON_COUNT)
		return "redirected";
	return a->reason >= REASON_FIRST_DROP ? "dropped" : "passed";
}

/* By 1 + enum destroy_reason. */
static const char *const ended_names[] = {
	[1 + DESTROY_EXPIRED] = "expired",
	[1 + DESTROY_REOPENED] = "reopened",
	[1 + DESTROY_RULE] = "rule",
};

static int reply(struct call *call, struct manager *m, const struct trace *t, const char *interface)
{
	const struct trace_answer *a = &t->answer;
	bool redirected = a->reason == REASON_COUNT,
	     fresh = redirected && !(a->flags & TRACE_FOUND);
	const char *ended = a->ended < sizeof(ended_names) / sizeof(ended_names[0])
				    ? ended_names[a->ended]
				    : NULL;

	return call_reply(
		call,
		json_pack("{s:i, s:o, s:s, s:o, s:o, s:b, s:o, s:o, s:b, s:b, s:o, s:o, s:I}",
			  "schema", METHODS_SCHEMA, "interface", varlink_text(interface), "verdict",
			  verdict(a), "reason",
			  redirected ? json_null() : json_string(manager_reason_name(a->reason)),
			  "rule", a->flow.rule ? json_integer(a->flow.rule) : json_null(), "new",
			  fresh, "ended", ended ? json_string(ended) : json_null(), "flow",
			  flow_pack(m, a), "port_changed",
			  redirected && a->flow.reply.dport != a->flow.original.sport, "full",
			  fresh && t->full, "stages", stages_pack(a), "rules", rules_pack(t),
			  "more", (json_int_t)t->n_more));
}

static int refuse(struct call *call, int error, const char *message, const char *hint)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	diag_add(&diag, DIAG_FAILED, NULL, hint, "%s", message);
	return methods_refuse(call, error, &diag);
}

static int refuse_interface(struct call *call, const char *name)
{
	_cleanup_(freep) char *message = NULL;

	if (asprintf(&message, "there is no interface \"%s\"", name) < 0)
		return -ENOMEM;
	return refuse(call, -ENODEV, message, "`ip link` shows those that are there");
}

int methods_trace(struct call *call, json_t *parameters, void *userdata)
{
	struct manager *m = userdata;
	struct trace_parameters p;
	struct trace_query query;
	const char *name;
	struct trace t;
	int r;

	if (!methods_read_parameters(call, parameters, trace_parameters, &p, &r))
		return r;
	name = read_query(&p, &query);
	if (name)
		return methods_invalid_parameter(call, name);
	query.ifindex = p.interface ? manager_interface_index(m, p.interface)
				    : trace_find_interface(&query.src);
	if (!query.ifindex && p.interface)
		return refuse_interface(call, p.interface);
	if (!query.ifindex)
		return refuse(call, -ENETUNREACH,
			      "there is no route to the source, which would tell where it comes in",
			      "say the interface: on IFACE");
	r = manager_trace(m, &query, &t, &name);
	if (r < 0)
		return refuse(call, r, "the datapath cannot be run", NULL);
	return reply(call, m, &t, name);
}
