// SPDX-License-Identifier: GPL-2.0-or-later
/* What methods may see of the manager: rules, sums, statistics, status. Changes nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/apply.h"
#include "daemon/attach.h"
#include "daemon/datapath.h"
#include "daemon/doctor.h"
#include "daemon/links.h"
#include "daemon/manager-private.h"
#include "daemon/options.h"
#include "daemon/server.h"
#include "daemon/trace.h"
#include "shared/config.h"

const struct ruleset *manager_ruleset(const struct manager *m)
{
	return m->rules;
}

struct datapath *manager_datapath(struct manager *m)
{
	return m->datapath;
}

struct events *manager_events(struct manager *m)
{
	return m->events;
}

const char *const *manager_interfaces(struct manager *m, size_t *ret_n)
{
	size_t n = m->config->n_interfaces;
	const char **names = reallocarray(m->interface_names, n + 1, sizeof(*names));

	*ret_n = 0;
	if (!names)
		return m->interface_names;
	m->interface_names = names;
	for (size_t i = 0; i < n; i++)
		names[i] = m->config->interfaces[i];
	*ret_n = n;
	return names;
}

const struct flow_sums *manager_rule_sums(struct manager *m)
{
	struct flow_sums *sums =
		reallocarray(m->by_entry, m->rules->n_entries + 1, sizeof(*m->by_entry));

	if (!sums)
		return NULL;
	m->by_entry = sums;
	if (flows_sum(m->datapath, m->scratch, m->by_id, &m->by_target) < 0)
		return NULL;
	for (size_t i = 0; i < m->rules->n_entries; i++)
		sums[i] = m->by_id[m->rules->entries[i]->id];
	return sums;
}

const struct flow_sums *manager_target_sums(struct manager *m, size_t entry, size_t target)
{
	static const struct flow_sums none;
	uint32_t rule = m->rules->entries[entry]->id;
	uint32_t number = apply_target_number(m->apply, rule, target);
	const struct flow_sums *sums = flow_target_sums_find(&m->by_target, rule, number);

	if (sums)
		return sums;
	return number ? &none : &m->by_id[rule];
}

static const struct manager_reason reasons[REASON_COUNT] = {
	[REASON_UNRELATED] = {"unrelated", false, false},
	[REASON_NO_MATCH] = {"no_match", false, false},
	[REASON_STRAY] = {"stray", false, false},
	[REASON_NOT_IP] = {"not_ip", false, false},
	[REASON_NOT_TCP_UDP] = {"not_tcp_udp", false, false},
	[REASON_FRAGMENT] = {"fragment", false, false},
	[REASON_TRUNCATED] = {"truncated", false, false},
	[REASON_MALFORMED] = {"malformed", false, false},
	[REASON_EXTENSIONS] = {"extensions", false, false},
	[REASON_TABLE_FULL] = {"table_full", true, true},
	[REASON_INDEX_FULL] = {"index_full", true, true},
	[REASON_PORTS_FULL] = {"ports_full", true, true},
	[REASON_NO_SOURCE] = {"no_source_address", true, true},
	[REASON_HELD] = {"fragment_held", true, false},
	[REASON_REWRITE] = {"rewrite_failed", true, false},
	[REASON_MAX_FLOWS] = {"max_flows", true, true},
	[REASON_RATE] = {"rate", true, true},
	[REASON_SOURCE_MAX_FLOWS] = {"source_max_flows", true, true},
	[REASON_SOURCE_RATE] = {"source_rate", true, true},
	[REASON_RESET] = {"reset", true, false},
};

static const char *const search_names[PORT_SEARCH_CLASSES] = {
	"1", "2", "3-4", "5-8", "9-16", "17-32", "33-64", "65-128",
};

int manager_stats(struct manager *m, struct manager_stats *ret)
{
	static struct cpu_counters counters; /* what reason_counts points into */
	const struct flow_totals *totals = datapath_totals(m->datapath);
	int r = datapath_counters(m->datapath, &counters);

	if (r < 0)
		return r;
	*ret = (struct manager_stats){
		.packets = counters.packets,
		.bytes = counters.bytes,
		.icmp_errors = counters.icmp_errors,
		.events_lost = counters.events_lost,
		.flows_max = datapath_config(m->datapath)->flows_max,
		.flows_created = totals->created,
		.flows_expired = totals->expired,
		.flows_insert_failed = totals->insert_failed,
		.flows_evicted = totals->evicted,
		.reasons = reasons,
		.reason_counts = (const uint64_t *)counters.reasons,
		.n_reasons = REASON_COUNT,
		.search_names = search_names,
		.search_counts = (const uint64_t *)totals->port_searches,
		.n_searches = PORT_SEARCH_CLASSES,
	};
	r = flows_sum(m->datapath, m->scratch, m->by_id, &m->by_target);
	if (r < 0)
		return r;
	for (uint32_t id = 0; id < RULE_COUNT; id++) {
		ret->redirected += m->by_id[id].packets;
		ret->redirected_bytes += m->by_id[id].bytes;
		ret->flows_active += m->by_id[id].active;
		ret->flows_unassured += m->by_id[id].unassured;
		if (id && m->by_id[id].active > ret->fullest_rule_flows) {
			ret->fullest_rule = id;
			ret->fullest_rule_flows = m->by_id[id].active;
		}
	}
	return port_fill_find(m->datapath, &ret->port_fill);
}

static int find_unattached(struct manager *m, struct manager_status *s)
{
	const char *name, **more;
	uint32_t ifindex;

	for (size_t i = 0; (name = links_nth(m->links, i, &ifindex)); i++) {
		if (attach_is_at(m->attach, ifindex))
			continue;
		more = reallocarray(m->unattached, s->n_unattached + 1, sizeof(*more));
		if (!more)
			return -ENOMEM;
		m->unattached = more;
		more[s->n_unattached++] = name;
	}
	s->unattached = m->unattached;
	return 0;
}

int manager_status(struct manager *m, struct manager_status *ret)
{
	struct manager_attachment *attachments;
	const struct attach_entry *entries;
	struct timespec now;
	size_t n;

	entries = attach_entries(m->attach, &n);
	attachments = reallocarray(m->attachments, n + 1, sizeof(*attachments));
	if (!attachments)
		return -ENOMEM;
	m->attachments = attachments;
	for (size_t i = 0; i < n; i++)
		attachments[i] = (struct manager_attachment){
			links_name(m->links, entries[i].ifindex), entries[i].ifindex,
			attach_hook_name(entries[i].hook)};
	clock_gettime(CLOCK_MONOTONIC, &now);
	*ret = (struct manager_status){
		.version = REDIRECTD_VERSION,
		.pid = getpid(),
		.uptime_ms = (now.tv_sec - m->began.tv_sec) * 1000 +
			     (now.tv_nsec - m->began.tv_nsec) / 1000000,
		.config_path = m->options->config_path,
		.pin_path = m->options->pin_path,
		.socket_path = server_path(m->server),
		.adopted = datapath_adopted(m->datapath),
		.last_reload_error = m->reload_error,
		.n_rules = m->rules->n_entries,
		.n_differ = m->rules->n_removed,
		.pending = m->undo != NULL,
		.pending_ms = pending_left_ms(m),
		.pending_rules = json_array_size(m->undo),
		.attachments = attachments,
		.n_attachments = n,
		.turned_away = watch_turned_away(m),
	};
	resize_look(m->resize, &ret->resize);
	for (size_t i = 0; i < m->rules->n_entries; i++) {
		ret->n_rules_enabled += !m->rules->entries[i]->rule->disabled;
		ret->n_runtime += m->rules->entries[i]->origin == RULE_ORIGIN_RUNTIME;
		ret->n_differ += m->rules->entries[i]->configured != NULL;
	}
	return find_unattached(m, ret);
}

void manager_doctor(struct manager *m, struct findings *ret)
{
	const struct doctor d = {m->rules, m->config, m->links, m->attach};

	doctor_run(&d, ret);
}

const char *manager_reason_name(uint32_t reason)
{
	return reason < REASON_COUNT ? reasons[reason].name : "unknown";
}

uint32_t manager_interface_index(const struct manager *m, const char *name)
{
	return links_index(m->links, name);
}

int manager_trace(struct manager *m, const struct trace_query *query, struct trace *ret,
		  const char **ret_interface)
{
	*ret_interface = links_name(m->links, query->ifindex);
	return trace_run(m->datapath, m->rules, m->config, m->links, query, ret);
}
