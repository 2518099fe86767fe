/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stats and Status: the manager's numbers as JSON. */
#include <errno.h>
#include <netinet/in.h>

#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-handlers.h"
#include "shared/rule-json.h"
#include "shared/varlink.h"

static bool is_refusal(const struct manager_reason *r)
{
	return r->refuses;
}

static bool is_drop(const struct manager_reason *r)
{
	return r->drops;
}

static bool is_pass(const struct manager_reason *r)
{
	return !r->drops;
}

/* The counts of some reasons, by name. */
static json_t *reasons_pack(const struct manager_stats *s,
			    bool (*which)(const struct manager_reason *r))
{
	json_t *object = json_object();

	for (size_t i = 0; i < s->n_reasons && object; i++) {
		if (!which(&s->reasons[i]))
			continue;
		if (json_object_set_new(object, s->reasons[i].name,
					rule_json_counter(s->reason_counts[i])) == 0)
			continue;
		json_decref(object);
		object = NULL;
	}
	return object;
}

static json_t *port_searches_pack(const struct manager_stats *s)
{
	json_t *object = json_object();

	for (size_t i = 0; i < s->n_searches && object; i++) {
		if (json_object_set_new(object, s->search_names[i],
					rule_json_counter(s->search_counts[i])) == 0)
			continue;
		json_decref(object);
		object = NULL;
	}
	return object;
}

/* The fullest room for source ports; null while no flow has a translated source. */
static json_t *port_fill_pack(const struct port_fill *p)
{
	char source[IP_PREFIX_STRLEN], target[IP_PREFIX_STRLEN];

	if (!p->used)
		return json_null();
	return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:s}", "protocol",
			 p->protocol == IPPROTO_UDP ? "udp" : "tcp", "src",
			 ip_address_format(&p->source, source), "dst",
			 ip_address_format(&p->target, target), "dport", (int)p->port, "used",
			 (int)p->used, "of", PORT_FILL_CAPACITY, "fill",
			 fill_share(p->used, PORT_FILL_CAPACITY), "level",
			 fill_level_name(fill_level(p->used, PORT_FILL_CAPACITY)));
}

static json_t *flow_totals_pack(const struct manager_stats *s)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "active",
			 rule_json_counter(s->flows_active), "max", rule_json_counter(s->flows_max),
			 "created", rule_json_counter(s->flows_created), "expired",
			 rule_json_counter(s->flows_expired), "insert_failed",
			 rule_json_counter(s->flows_insert_failed), "evicted",
			 rule_json_counter(s->flows_evicted), "unassured",
			 rule_json_counter(s->flows_unassured));
}

int methods_stats(struct call *call, json_t *parameters, void *userdata)
{
	struct manager_stats s;
	int r;

	if (!methods_read_parameters(call, parameters, NULL, NULL, &r))
		return r;
	r = manager_stats(userdata, &s);
	if (r < 0)
		return methods_refuse_counters(call, r);
	return call_reply(
		call, json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
				"schema", METHODS_SCHEMA, "packets", rule_json_counter(s.packets),
				"bytes", rule_json_counter(s.bytes), "redirected",
				rule_json_counter(s.redirected), "redirected_bytes",
				rule_json_counter(s.redirected_bytes), "icmp_errors",
				rule_json_counter(s.icmp_errors), "events_lost",
				rule_json_counter(s.events_lost), "flows", flow_totals_pack(&s),
				"insert_failures", reasons_pack(&s, is_refusal), "drops",
				reasons_pack(&s, is_drop), "passed", reasons_pack(&s, is_pass),
				"port_searches", port_searches_pack(&s), "source_ports",
				port_fill_pack(&s.port_fill)));
}

static json_t *interfaces_pack(struct manager *m)
{
	size_t n;
	const char *const *names = manager_interfaces(m, &n);
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(array, varlink_text(names[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *attachments_pack(const struct manager_status *s)
{
	json_t *array = json_array();

	for (size_t i = 0; i < s->n_attachments; i++) {
		const struct manager_attachment *a = &s->attachments[i];
		json_t *item = json_pack("{s:o, s:I, s:s}", "interface", varlink_text(a->interface),
					 "ifindex", (json_int_t)a->ifindex, "hook", a->hook);

		if (json_array_append_new(array, item) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *unattached_pack(const struct manager_status *s)
{
	json_t *array = json_array();

	for (size_t i = 0; i < s->n_unattached; i++)
		if (json_array_append_new(array, varlink_text(s->unattached[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

/* What is wrong now, in words for programs. */
static json_t *problems_pack(const struct manager_status *s, const struct manager_stats *stats)
{
	const struct {
		const char *name;
		bool is;
	} all[] = {
		{"reload", s->last_reload_error != NULL},
		{"unattached", s->n_unattached > 0},
		{"flows", fill_level(stats->flows_active, stats->flows_max) != FILL_OK},
		{"flows_max", s->resize.error != NULL},
		{"source_ports", fill_level(stats->port_fill.used, PORT_FILL_CAPACITY) != FILL_OK},
		{"turned_away", s->turned_away},
	};
	json_t *array = json_array();

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].is && json_array_append_new(array, json_string(all[i].name)) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *pending_pack(const struct manager_status *s)
{
	if (!s->pending)
		return json_null();
	return json_pack("{s:o, s:I}", "remaining_ms", rule_json_counter(s->pending_ms), "changes",
			 (json_int_t)s->pending_rules);
}

static json_t *resize_pack(const struct resize_state *s)
{
	if (!s->active)
		return json_null();
	return json_pack("{s:I, s:o}", "max", (json_int_t)s->to, "moved",
			 rule_json_counter(s->moved));
}

static json_t *rules_pack(const struct manager_status *s)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "total", (json_int_t)s->n_rules, "enabled",
			 (json_int_t)s->n_rules_enabled, "runtime", (json_int_t)s->n_runtime,
			 "differ", (json_int_t)s->n_differ);
}

/* The rule that has most of the flows. */
static json_t *fullest_rule_pack(const struct manager_stats *s)
{
	if (!s->fullest_rule)
		return json_null();
	return json_pack("{s:I, s:o}", "id", (json_int_t)s->fullest_rule, "active",
			 rule_json_counter(s->fullest_rule_flows));
}

static json_t *fill_pack(const struct manager_stats *s)
{
	return json_pack("{s:o, s:o, s:f, s:s, s:o, s:o}", "active",
			 rule_json_counter(s->flows_active), "max", rule_json_counter(s->flows_max),
			 "fill", fill_share(s->flows_active, s->flows_max), "level",
			 fill_level_name(fill_level(s->flows_active, s->flows_max)), "unassured",
			 rule_json_counter(s->flows_unassured), "fullest_rule",
			 fullest_rule_pack(s));
}

int methods_status(struct call *call, json_t *parameters, void *userdata)
{
	struct manager_stats stats;
	struct manager_status s;
	json_t *fill, *ports;
	int r;

	if (!methods_read_parameters(call, parameters, NULL, NULL, &r))
		return r;
	r = manager_stats(userdata, &stats);
	if (r < 0)
		return methods_refuse_counters(call, r);
	r = manager_status(userdata, &s);
	if (r < 0)
		return methods_refuse_counters(call, r);
	fill = fill_pack(&stats);
	ports = port_fill_pack(&stats.port_fill);
	return call_reply(
		call,
		json_pack("{s:i, s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o,"
			  " s:o, s:o, s:o, s:o, s:o, s:o}",
			  "schema", METHODS_SCHEMA, "problems", problems_pack(&s, &stats),
			  "version", s.version, "pid", (json_int_t)s.pid, "uptime_ms",
			  rule_json_counter(s.uptime_ms), "config", varlink_text(s.config_path),
			  "pins", varlink_text(s.pin_path), "socket", varlink_text(s.socket_path),
			  "adopted", s.adopted, "last_reload_error",
			  varlink_text(s.last_reload_error), "rules", rules_pack(&s), "pending",
			  pending_pack(&s), "interfaces", interfaces_pack(userdata), "attachments",
			  attachments_pack(&s), "unattached", unattached_pack(&s), "flows", fill,
			  "resize", resize_pack(&s.resize), "resize_error",
			  varlink_text(s.resize.error), "source_ports", ports, "insert_failures",
			  reasons_pack(&stats, is_refusal)));
}
