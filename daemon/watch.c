// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tells the log when room runs short: in the flow table, of source ports towards a target, of a
 * rule's own max-flows; and when new flows are turned away. Looks at totals only, and at the flows
 * themselves when there is something to tell.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/datapath.h"
#include "daemon/manager-private.h"
#include "shared/log.h"

#define PORTS_PAUSE   10 /* seconds between looks at source ports, which walk the flow table */
#define REFUSED_PAUSE 60 /* between two lines on flows that are turned away */

static const int priorities[FILL_LEVELS] = {
	[FILL_OK] = LOG_NOTICE,
	[FILL_WARNING] = LOG_WARNING,
	[FILL_CRITICAL] = LOG_ERR,
};

static uint64_t now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec;
}

static unsigned percent(uint64_t used, uint64_t of)
{
	return (unsigned)(100 * fill_share(used, of));
}

static unsigned long long number(uint64_t n)
{
	return n;
}

/* ---- the flow table ---- */

/* As the datapath counts: with flows that have expired and were not swept yet. */
static uint64_t flows_in_table(const struct manager *m)
{
	const struct flow_totals *totals = datapath_totals(m->datapath);
	uint64_t destroyed = __atomic_load_n(&totals->destroyed, __ATOMIC_ACQUIRE);

	return __atomic_load_n(&totals->created, __ATOMIC_RELAXED) - destroyed;
}

/* "rule 3 (web)" */
static const char *name_rule(const struct manager *m, uint32_t id, char *text, size_t size)
{
	const struct ruleset_entry *e = ruleset_find_id(m->rules, id);

	if (e && e->rule->name[0])
		snprintf(text, size, "rule %u (%s)", id, e->rule->name);
	else
		snprintf(text, size, "rule %u", id);
	return text;
}

static const char *flows_remedy(const struct manager_stats *s)
{
	if (2 * s->flows_unassured > s->flows_active)
		return "most are of clients that were never answered or never spoke again, as in a "
		       "flood; they make room for new ones, and connections that are established "
		       "stay: raise flows-max, or shorten the timeouts tcp-syn and udp";
	return "once it is full of established connections new ones are turned away: raise "
	       "flows-max, or shorten the timeouts tcp-established and udp-stream";
}

static void tell_flows(struct manager *m, uint64_t used, uint64_t of)
{
	struct manager_stats s;
	char rule[128];

	if (m->watch.flows.level == FILL_OK) {
		log_notice("the flow table has room again: %u %% full, %llu of %llu flows",
			   percent(used, of), number(used), number(of));
		return;
	}
	if (manager_stats(m, &s) < 0)
		return;
	log_write(priorities[m->watch.flows.level],
		  "the flow table is %u %% full: %llu of %llu flows, %llu of them unassured, most "
		  "(%llu) of %s; %s",
		  percent(used, of), number(used), number(of), number(s.flows_unassured),
		  number(s.fullest_rule_flows), name_rule(m, s.fullest_rule, rule, sizeof(rule)),
		  flows_remedy(&s));
}

static void watch_flows(struct manager *m, uint64_t now)
{
	uint64_t used = flows_in_table(m), of = datapath_config(m->datapath)->flows_max;

	if (fill_watch_step(&m->watch.flows, used, of, now))
		tell_flows(m, used, of);
}

/* ---- source ports ---- */

static void tell_ports(const struct manager *m, const struct port_fill *p)
{
	char source[IP_PREFIX_STRLEN], target[IP_PREFIX_STRLEN];

	if (m->watch.ports.level == FILL_OK) {
		log_notice("there are source ports again towards every target");
		return;
	}
	log_write(priorities[m->watch.ports.level],
		  "the source ports from %s to %s %s port %u are %u %% used up: %u of %u; once "
		  "established connections have all of them new ones there are turned away: give "
		  "the rule more targets, or part of its clients another source by a rule with "
		  "`from` and `snat`",
		  ip_address_format(&p->source, source), p->protocol == IPPROTO_UDP ? "udp" : "tcp",
		  ip_address_format(&p->target, target), p->port,
		  percent(p->used, PORT_FILL_CAPACITY), p->used, PORT_FILL_CAPACITY);
}

static void watch_ports(struct manager *m, uint64_t now)
{
	bool possible = fill_level(flows_in_table(m), PORT_FILL_CAPACITY) != FILL_OK;
	struct port_fill fill = {0};

	if (now - m->watch.ports_looked < PORTS_PAUSE)
		return;
	m->watch.ports_looked = now;
	if (possible && port_fill_find(m->datapath, &fill) < 0)
		return;
	if (fill_watch_step(&m->watch.ports, fill.used, PORT_FILL_CAPACITY, now))
		tell_ports(m, &fill);
}

/* ---- rules with a max-flows of their own ---- */

static void tell_rule(const struct manager *m, uint32_t id, uint64_t used, uint64_t of)
{
	enum fill_level level = m->watch.rules[id].level;
	char rule[128];

	name_rule(m, id, rule, sizeof(rule));
	if (level == FILL_OK)
		log_notice("%s has room again: %u %% of its max-flows, %llu of %llu", rule,
			   percent(used, of), number(used), number(of));
	else
		log_write(priorities[level],
			  "%s has %u %% of its max-flows, %llu of %llu; at its limit new "
			  "connections are turned away: raise its max-flows",
			  rule, percent(used, of), number(used), number(of));
}

static void watch_rule(struct manager *m, const struct ruleset_entry *e, uint64_t now)
{
	const struct rule_counters *c = &datapath_rule_counters(m->datapath)[e->id];
	uint64_t destroyed = __atomic_load_n(&c->destroyed, __ATOMIC_ACQUIRE);
	uint64_t used = __atomic_load_n(&c->created, __ATOMIC_RELAXED) - destroyed;
	uint64_t of = e->rule->limits[RULE_LIMIT_ALL].max_flows;

	if (!m->watch.rules)
		m->watch.rules = calloc(RULE_COUNT, sizeof(*m->watch.rules));
	if (m->watch.rules && fill_watch_step(&m->watch.rules[e->id], used, of, now))
		tell_rule(m, e->id, used, of);
}

static void watch_rules(struct manager *m, uint64_t now)
{
	for (size_t i = 0; i < m->rules->n_entries; i++)
		if (m->rules->entries[i]->rule->limits[RULE_LIMIT_ALL].max_flows)
			watch_rule(m, m->rules->entries[i], now);
}

/* ---- flows that are turned away ---- */

static void tell_refused(struct manager *m, uint64_t n, const struct manager_stats *s)
{
	char text[256] = "";
	size_t length = 0;

	for (size_t i = 0; i < s->n_reasons && length < sizeof(text); i++) {
		uint64_t since = s->reason_counts[i] - m->watch.reasons[i];

		if (s->reasons[i].refuses && since)
			length += (size_t)snprintf(text + length, sizeof(text) - length,
						   "%s%s %llu", length ? ", " : ": ",
						   s->reasons[i].name, number(since));
	}
	log_warning("%llu packets that would have begun a connection were dropped%s; what it is "
		    "that has no room: redirectctl status",
		    number(n), text);
}

/* Not by a rule's limit, which is there to turn away. */
static uint64_t without_room(const uint64_t *reasons)
{
	return reasons[REASON_TABLE_FULL] + reasons[REASON_INDEX_FULL] +
	       reasons[REASON_PORTS_FULL] + reasons[REASON_NO_SOURCE];
}

/* Something was refused since the last look. */
static void note_refused(struct manager *m, uint64_t now)
{
	struct cpu_counters counters;
	uint64_t room;

	if (datapath_counters(m->datapath, &counters) < 0)
		return;
	room = without_room((const uint64_t *)counters.reasons);
	if (m->watch.begun && room != m->watch.room)
		m->watch.room_at = now;
	m->watch.room = room;
}

/* What was before the daemon is not news; `begun` is false at the first look. */
static void watch_refused(struct manager *m, uint64_t now)
{
	uint64_t failed = datapath_totals(m->datapath)->insert_failed;
	struct watch *w = &m->watch;
	struct manager_stats s;

	if (!w->begun || failed != w->insert_failed)
		note_refused(m, now);
	w->insert_failed = failed;
	if (w->begun &&
	    (failed == w->refused_told || (w->refused_at && now - w->refused_at < REFUSED_PAUSE)))
		return;
	if (manager_stats(m, &s) < 0)
		return;
	if (w->begun) {
		tell_refused(m, failed - w->refused_told, &s);
		w->refused_at = now;
	}
	w->begun = true;
	w->refused_told = failed;
	for (size_t i = 0; i < s.n_reasons; i++)
		w->reasons[i] = s.reason_counts[i];
}

bool watch_turned_away(const struct manager *m)
{
	return m->watch.room_at && now_seconds() - m->watch.room_at < REFUSED_PAUSE;
}

void watch_tick(struct manager *m)
{
	uint64_t now = now_seconds();

	watch_flows(m, now);
	watch_ports(m, now);
	watch_rules(m, now);
	watch_refused(m, now);
}

void watch_clear(struct manager *m)
{
	free(m->watch.rules);
}
