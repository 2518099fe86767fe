/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The families of metrics: tables of where the daemon's answers have their values. */
#include "ctl/output-openmetrics.h"

#include <string.h>

#include "ctl/output-target.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE };

struct family {
	const char *name; /* without `_total` */
	enum metric_type type;
	const char *unit; /* the end of the name, or NULL */
	const char *help;
	const char *group, *key; /* where the value is; NULL: see who prints it */
};

static const struct family total_families[] = {
	{"redirectd_seen_packets", METRIC_COUNTER, "packets",
	 "Packets that the datapath looked at.", NULL, "packets"},
	{"redirectd_seen_bytes", METRIC_COUNTER, "bytes", "Their bytes of IP length.", NULL,
	 "bytes"},
	{"redirectd_redirected_packets", METRIC_COUNTER, "packets",
	 "Packets that were redirected, both directions.", NULL, "redirected"},
	{"redirectd_redirected_bytes", METRIC_COUNTER, "bytes", "Their bytes of IP length.", NULL,
	 "redirected_bytes"},
	{"redirectd_icmp_errors", METRIC_COUNTER, NULL,
	 "ICMP errors about redirected packets that were translated.", NULL, "icmp_errors"},
	{"redirectd_lost_events", METRIC_COUNTER, "events",
	 "Flow events that found the ring buffer full.", NULL, "events_lost"},
	{"redirectd_active_flows", METRIC_GAUGE, "flows", "Flows that are alive.", "flows",
	 "active"},
	{"redirectd_max_flows", METRIC_GAUGE, "flows", "Flows that the table may hold.", "flows",
	 "max"},
	{"redirectd_created_flows", METRIC_COUNTER, "flows", "Flows that have begun.", "flows",
	 "created"},
	{"redirectd_expired_flows", METRIC_COUNTER, "flows", "Flows that ended by their timeout.",
	 "flows", "expired"},
	{"redirectd_refused_flows", METRIC_COUNTER, "flows",
	 "Flows that found no room, or no place within their rule's limits.", "flows",
	 "insert_failed"},
	{"redirectd_evicted_flows", METRIC_COUNTER, "flows",
	 "Unassured or finished flows that made room for new ones.", "flows", "evicted"},
	{"redirectd_unassured_flows", METRIC_GAUGE, "flows",
	 "Flows that are alive and would make room for new ones.", "flows", "unassured"},
};

/* A sample for each member of the object `key`, under the label `group`. */
static const struct family member_families[] = {
	{"redirectd_insert_failures", METRIC_COUNTER, NULL,
	 "Packets dropped that would have begun a flow, by reason.", "reason", "insert_failures"},
	{"redirectd_dropped_packets", METRIC_COUNTER, "packets", "Packets dropped, by reason.",
	 "reason", "drops"},
	{"redirectd_passed_packets", METRIC_COUNTER, "packets",
	 "Packets passed on untouched, by reason.", "reason", "passed"},
	{"redirectd_source_port_searches", METRIC_COUNTER, NULL,
	 "Source ports chosen, by how many were tried until one was free.", "tried",
	 "port_searches"},
};

/* A sample for each rule; `key` is that of its counters. */
static const struct family rule_families[] = {
	{"redirectd_rule_packets", METRIC_COUNTER, "packets",
	 "Packets of the rule's flows, both directions.", NULL, "packets"},
	{"redirectd_rule_bytes", METRIC_COUNTER, "bytes", "Their bytes of IP length.", NULL,
	 "bytes"},
	{"redirectd_rule_flows", METRIC_COUNTER, "flows", "Flows that the rule has begun.", NULL,
	 "flows"},
	{"redirectd_rule_active_flows", METRIC_GAUGE, "flows", "Flows of the rule that are alive.",
	 NULL, "active"},
	{"redirectd_rule_refused_flows", METRIC_COUNTER, "flows",
	 "New flows that the limits of the rule turned away.", NULL, "refused"},
};

/* The same of each target of the rules that have several. */
static const struct family target_families[] = {
	{"redirectd_target_packets", METRIC_COUNTER, "packets",
	 "Packets of the target's flows, both directions.", NULL, "packets"},
	{"redirectd_target_bytes", METRIC_COUNTER, "bytes", "Their bytes of IP length.", NULL,
	 "bytes"},
	{"redirectd_target_flows", METRIC_COUNTER, "flows", "Flows that the target was given.",
	 NULL, "flows"},
	{"redirectd_target_active_flows", METRIC_GAUGE, "flows",
	 "Flows of the target that are alive.", NULL, "active"},
};

static const struct family build_family = {
	"redirectd_build_info", METRIC_GAUGE, NULL, "The version that runs; always 1.", NULL, NULL};
static const struct family uptime_family = {"redirectd_uptime_seconds",	 METRIC_GAUGE, "seconds",
					    "Since the daemon started.", NULL,	       NULL};
static const struct family rule_info_family = {
	"redirectd_rule_info",
	METRIC_GAUGE,
	NULL,
	"The rule's text and origin; 1 when in force, 0 when disabled.",
	NULL,
	NULL};

static const struct family room_families[] = {
	{"redirectd_source_ports_used", METRIC_GAUGE, NULL,
	 "Source ports in use between the source address and the target with most of them.", NULL,
	 "used"},
	{"redirectd_source_ports_max", METRIC_GAUGE, NULL, "How many there can be.", NULL, "of"},
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static void write_head(const struct family *m, FILE *out)
{
	fprintf(out, "# TYPE %s %s\n", m->name, m->type == METRIC_COUNTER ? "counter" : "gauge");
	if (m->unit)
		fprintf(out, "# UNIT %s %s\n", m->name, m->unit);
	fprintf(out, "# HELP %s %s\n", m->name, m->help);
}

static void write_name(const struct family *m, FILE *out)
{
	fprintf(out, "%s%s", m->name, m->type == METRIC_COUNTER ? "_total" : "");
}

/* `{key="value"`, or `,key="value"`. JSON has made sure of UTF-8. */
static void write_label(char before, const char *key, const char *value, FILE *out)
{
	fprintf(out, "%c%s=\"", before, key);
	for (; value && *value; value++) {
		if (*value == '\n')
			fputs("\\n", out);
		else if (*value == '"' || *value == '\\')
			fprintf(out, "\\%c", *value);
		else
			fputc(*value, out);
	}
	fputc('"', out);
}

static void write_value(const json_t *value, FILE *out)
{
	fprintf(out, " %" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
}

static void write_totals(const json_t *stats, FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(total_families); i++) {
		const struct family *m = &total_families[i];
		const json_t *group = m->group ? json_object_get(stats, m->group) : stats;

		write_head(m, out);
		write_name(m, out);
		write_value(json_object_get(group, m->key), out);
	}
}

static void write_members(const struct family *m, json_t *members, FILE *out)
{
	const char *name;
	json_t *count;

	write_head(m, out);
	json_object_foreach (members, name, count) {
		write_name(m, out);
		write_label('{', m->group, name, out);
		fputc('}', out);
		write_value(count, out);
	}
}

static const char *string_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* `{id="3",name="web"`, open for more. */
static void write_rule_labels(const json_t *rule, FILE *out)
{
	fprintf(out, "{id=\"%" JSON_INTEGER_FORMAT "\"",
		json_integer_value(json_object_get(rule, "id")));
	write_label(',', "name", string_of(rule, "name"), out);
}

static void write_rule_counters(const struct family *m, const json_t *rules, FILE *out)
{
	write_head(m, out);
	for (size_t i = 0; i < json_array_size(rules); i++) {
		const json_t *rule = json_array_get(rules, i);

		write_name(m, out);
		write_rule_labels(rule, out);
		fputc('}', out);
		write_value(json_object_get(json_object_get(rule, "counters"), m->key), out);
	}
}

static void write_target_counter(const struct family *m, const json_t *rule, const json_t *target,
				 FILE *out)
{
	char name[OUTPUT_TARGET_LEN];

	write_name(m, out);
	write_rule_labels(rule, out);
	write_label(',', "target", output_target(target, name), out);
	fputc('}', out);
	write_value(json_object_get(json_object_get(target, "counters"), m->key), out);
}

static void write_target_counters(const struct family *m, const json_t *rules, FILE *out)
{
	write_head(m, out);
	for (size_t i = 0; i < json_array_size(rules); i++) {
		const json_t *rule = json_array_get(rules, i);
		const json_t *targets = json_object_get(rule, "targets");

		for (size_t t = 0; json_array_size(targets) > 1 && t < json_array_size(targets);
		     t++)
			write_target_counter(m, rule, json_array_get(targets, t), out);
	}
}

static void write_rule_info(const json_t *rules, FILE *out)
{
	write_head(&rule_info_family, out);
	for (size_t i = 0; i < json_array_size(rules); i++) {
		const json_t *rule = json_array_get(rules, i);

		write_name(&rule_info_family, out);
		write_rule_labels(rule, out);
		write_label(',', "rule", string_of(rule, "rule"), out);
		write_label(',', "origin", string_of(rule, "origin"), out);
		fprintf(out, "} %d\n", json_is_true(json_object_get(rule, "enabled")) ? 1 : 0);
	}
}

/* Nothing while no source is translated. */
static void write_room(const json_t *room, FILE *out)
{
	for (size_t i = 0; json_is_object(room) && i < ARRAY_SIZE(room_families); i++) {
		const struct family *m = &room_families[i];

		write_head(m, out);
		write_name(m, out);
		write_label('{', "protocol", string_of(room, "protocol"), out);
		write_label(',', "src", string_of(room, "src"), out);
		write_label(',', "dst", string_of(room, "dst"), out);
		fprintf(out, ",dport=\"%" JSON_INTEGER_FORMAT "\"}",
			json_integer_value(json_object_get(room, "dport")));
		write_value(json_object_get(room, m->key), out);
	}
}

static void write_daemon(const json_t *status, FILE *out)
{
	json_int_t uptime = json_integer_value(json_object_get(status, "uptime_ms"));

	write_head(&build_family, out);
	write_name(&build_family, out);
	write_label('{', "version", string_of(status, "version"), out);
	fputs("} 1\n", out);
	write_head(&uptime_family, out);
	write_name(&uptime_family, out);
	fprintf(out, " %" JSON_INTEGER_FORMAT ".%03d\n", uptime / 1000, (int)(uptime % 1000));
}

void output_openmetrics(const json_t *stats, const json_t *list, const json_t *status, FILE *out)
{
	const json_t *rules = json_object_get(list, "rules");

	write_daemon(status, out);
	write_totals(stats, out);
	for (size_t i = 0; i < ARRAY_SIZE(member_families); i++)
		write_members(&member_families[i], json_object_get(stats, member_families[i].key),
			      out);
	write_room(json_object_get(stats, "source_ports"), out);
	write_rule_info(rules, out);
	for (size_t i = 0; i < ARRAY_SIZE(rule_families); i++)
		write_rule_counters(&rule_families[i], rules, out);
	for (size_t i = 0; i < ARRAY_SIZE(target_families); i++)
		write_target_counters(&target_families[i], rules, out);
	fputs("# EOF\n", out);
}
