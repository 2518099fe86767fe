// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/manager.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "daemon/apply.h"
#include "daemon/attach.h"
#include "daemon/datapath.h"
#include "daemon/events.h"
#include "daemon/links.h"
#include "daemon/methods.h"
#include "daemon/options.h"
#include "daemon/plan.h"
#include "daemon/registry.h"
#include "daemon/server.h"
#include "shared/config.h"
#include "shared/log.h"

#define TICK_USEC     (1000 * 1000) /* how often a part of the table is swept */
#define SWEEP_RECORDS (384 * 1024)  /* the default table whole, larger ones in turns */

enum ending {
	ENDING_LEAVE, /* everything stays pinned and forwarding */
	ENDING_STOP,  /* detach, unpin */
};

struct manager {
	const struct options *options;
	sd_event *event;
	sd_event_source *tick;
	struct config *config;
	struct datapath *datapath;
	struct attach *attach;
	struct links *links;
	struct apply *apply;
	struct ruleset *rules;
	struct server *server;
	struct events *events;

	bool started;	    /* the rules are in force */
	bool links_changed; /* names of interfaces mean others than when the rules were applied */
	enum ending ending;
	uint32_t last_id;
	uint32_t sweep_cursor;
	struct timespec began;
	char *reload_error;

	struct flow_sums *by_id; /* RULE_COUNT; never fall, see flows_sum() */
	struct flow_sums *scratch, *by_entry;
	struct manager_attachment *attachments;
	const char **interface_names;
};

/* ---- carrying out a change ---- */

/* Below 1 stands what the rules that are gone have counted. */
#define RULE_ID_GONE 0

/* An id starts from zero; what a former rule of this id has counted goes to those that are gone. */
static void clear_counters(struct manager *m, uint32_t id)
{
	struct rule_counters *all = datapath_rule_counters(m->datapath);

	all[RULE_ID_GONE].packets += all[id].packets;
	all[RULE_ID_GONE].bytes += all[id].bytes;
	all[RULE_ID_GONE].created += all[id].created;
	all[RULE_ID_GONE].destroyed += all[id].destroyed;
	memset(&all[id], 0, sizeof(all[id]));
	memset(&m->by_id[id], 0, sizeof(m->by_id[id]));
}

static uint32_t new_id(void *userdata, const struct ruleset *a, const struct ruleset *b)
{
	struct manager *m = userdata;
	const struct rule_counters *counters = datapath_rule_counters(m->datapath);

	for (uint32_t tries = 1; tries < RULE_COUNT; tries++) {
		uint32_t id = m->last_id + 1 < RULE_COUNT ? m->last_id + 1 : 1;

		m->last_id = id;
		if (ruleset_find_id(a, id) || ruleset_find_id(b, id) ||
		    counters[id].created != counters[id].destroyed)
			continue;
		return id;
	}
	return RULE_ID_NONE;
}

static uint32_t resolve(void *userdata, const char *name)
{
	struct manager *m = userdata;

	return m->links ? links_index(m->links, name) : 0;
}

static int apply_now(struct manager *m, const struct ruleset *rules, const struct config *config,
		     struct diag *diag)
{
	struct apply_input input = {
		.rules = rules,
		.interfaces = (const char(*)[IF_NAMESIZE])config->interfaces,
		.n_interfaces = config->n_interfaces,
		.resolve = resolve,
		.userdata = m,
	};

	return apply_rules(m->apply, &input, diag);
}

/* Puts a planned rule set in force, and takes it over; or refuses it and changes nothing. */
static int commit(struct manager *m, struct ruleset *rules, const struct config *config,
		  struct diag *diag)
{
	int r = registry_update(m->datapath, m->rules, rules);

	if (r < 0) {
		diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot pin the rules: %s", strerror(-r));
	} else {
		for (size_t i = 0; i < rules->n_entries; i++)
			if (!ruleset_find_id(m->rules, rules->entries[i]->id))
				clear_counters(m, rules->entries[i]->id);
		r = apply_now(m, rules, config, diag);
	}
	if (r < 0) {
		registry_update(m->datapath, rules, m->rules);
		ruleset_free(rules);
		return r;
	}
	ruleset_free(m->rules);
	m->rules = rules;
	return 0;
}

static int ret_rule(const struct ruleset_entry *e, uint32_t *ret_id, char **ret_text)
{
	if (rule_format(e->rule, ret_text) < 0)
		return -ENOMEM;
	*ret_id = e->id;
	return 0;
}

int manager_add_rule(struct manager *m, const char *text, bool dry_run, struct diag *diag,
		     uint32_t *ret_id, char **ret_text)
{
	_cleanup_(ruleset_freep) struct ruleset *rules = NULL;
	_cleanup_(rule_freep) struct rule *rule = NULL;
	struct ruleset_entry *e;
	int r = rule_parse(text, NULL, diag, &rule);

	if (r == 0 && !rule_check_supported(rule, NULL, diag))
		r = -EINVAL;
	if (r == 0)
		r = ruleset_copy(m->rules, &rules);
	if (r == 0)
		r = ruleset_add(rules, new_id(m, m->rules, rules), rule, RULE_ORIGIN_RUNTIME,
				"runtime", diag, &e);
	if (r < 0)
		return r;
	rule = NULL;
	r = ret_rule(e, ret_id, ret_text);
	if (r < 0 || dry_run)
		return r;
	return commit(m, take_ptr(rules), m->config, diag);
}

int manager_remove_rule(struct manager *m, const char *selector, bool dry_run, struct diag *diag,
			uint32_t *ret_id, char **ret_text)
{
	_cleanup_(ruleset_freep) struct ruleset *rules = NULL;
	struct ruleset_entry *e = ruleset_find(m->rules, selector);
	int r;

	if (!e)
		return -ENOENT;
	r = ret_rule(e, ret_id, ret_text);
	if (r < 0 || dry_run)
		return r;
	r = ruleset_copy(m->rules, &rules);
	if (r < 0)
		return r;
	ruleset_remove(rules, ruleset_find_id(rules, *ret_id));
	return commit(m, take_ptr(rules), m->config, diag);
}

int manager_enable_rule(struct manager *m, const char *selector, bool enable, bool dry_run,
			struct diag *diag, uint32_t *ret_id, char **ret_text)
{
	_cleanup_(ruleset_freep) struct ruleset *rules = NULL;
	struct ruleset_entry *e = ruleset_find(m->rules, selector);
	int r;

	if (!e)
		return -ENOENT;
	r = ruleset_copy(m->rules, &rules);
	if (r < 0)
		return r;
	e = ruleset_find_id(rules, e->id);
	e->rule->disabled = !enable;
	r = ret_rule(e, ret_id, ret_text);
	if (r < 0 || dry_run)
		return r;
	return commit(m, take_ptr(rules), m->config, diag);
}

/* ---- reload ---- */

static void apply_settings(struct manager *m, const struct config *config)
{
	struct datapath_config *c = datapath_config(m->datapath);
	uint32_t capacity = datapath_capacity(m->datapath);

	for (int state = 0; state < FLOW_STATE_COUNT; state++)
		c->timeouts[state] =
			datapath_ticks_from_seconds(m->datapath, config->timeouts[state]);
	c->flows_max = config->flows_max < capacity ? config->flows_max : capacity;
	if (config->flows_max > capacity)
		log_warning("flows-max %u needs a larger table, which is made at the next stop and "
			    "start; "
			    "until then it is %u",
			    config->flows_max, capacity);
}

static int reload(struct manager *m, bool dry_run, struct diag *diag, struct reload_result *ret)
{
	_cleanup_(config_freep) struct config *config = NULL;
	struct ruleset *rules = NULL;
	struct plan_counts counts;
	int r = options_read_config(m->options, &config, diag);

	if (r == 0)
		r = plan_configuration(m->rules, config, false, new_id, m, diag, &rules, &counts);
	if (r < 0)
		return r;
	*ret = (struct reload_result){counts.added, counts.removed, counts.kept};
	if (dry_run) {
		ruleset_free(rules);
		return 0;
	}
	r = commit(m, rules, config, diag);
	if (r < 0)
		return r;
	apply_settings(m, config);
	config_free(m->config);
	m->config = take_ptr(config);
	return 0;
}

int manager_reload(struct manager *m, bool dry_run, struct diag *diag, struct reload_result *ret)
{
	int r = reload(m, dry_run, diag, ret);

	if (dry_run)
		return r;
	free(m->reload_error);
	m->reload_error = NULL;
	if (r < 0)
		m->reload_error = strdup(diag->n_items ? diag->items[0].message : strerror(-r));
	return r;
}

/* Multi-line diagnostics, a line a message, so that the journal keeps their priority. */
static void log_diag(const struct diag *diag)
{
	char *text = NULL, *line, *rest;
	size_t length;
	FILE *f = open_memstream(&text, &length);

	if (!f)
		return;
	diag_print(diag, f, NULL);
	fclose(f);
	rest = text;
	while ((line = strsep(&rest, "\n")))
		if (*line)
			log_error("%s", line);
	free(text);
}

static int on_reload(sd_event_source *s, const struct signalfd_siginfo *info, void *userdata)
{
	struct manager *m = userdata;
	struct reload_result result;
	struct diag diag = {0};
	struct timespec now;
	int r;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%llu",
		   (unsigned long long)now.tv_sec * 1000000ULL + now.tv_nsec / 1000);
	r = manager_reload(m, false, &diag, &result);
	if (r < 0) {
		log_diag(&diag);
		log_error("not reloaded: everything stays as it was");
	} else {
		log_notice("reloaded: %u rules added, %u removed, %u kept", result.added,
			   result.removed, result.kept);
	}
	diag_clear(&diag);
	sd_notifyf(false, "READY=1\nSTATUS=%zu rules%s", m->rules->n_entries,
		   r < 0 ? "; the last reload failed" : "");
	return 0;
}

static int on_stop(sd_event_source *s, const struct signalfd_siginfo *info, void *userdata)
{
	struct manager *m = userdata;

	m->ending = ENDING_STOP;
	return sd_event_exit(m->event, 0);
}

static int on_leave(sd_event_source *s, const struct signalfd_siginfo *info, void *userdata)
{
	struct manager *m = userdata;

	m->ending = ENDING_LEAVE;
	return sd_event_exit(m->event, 0);
}

/* ---- time and interfaces ---- */

static int on_tick(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct manager *m = userdata;
	int r = flows_sweep(m->datapath, &m->sweep_cursor, SWEEP_RECORDS);

	if (r < 0)
		log_warning("cannot sweep the flow table: %s", strerror(-r));
	apply_tick(m->apply);
	sd_event_source_set_time(s, usec + TICK_USEC);
	return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void on_link_appeared(void *userdata, uint32_t ifindex, const char *name, bool ethernet)
{
	struct manager *m = userdata;
	int r = attach_interface(m->attach, ifindex, ethernet);

	m->links_changed = true;
	/* It may have gone again already; netlink will tell. */
	if (r < 0 && r != -ENODEV)
		log_warning("cannot attach to %s: %s", name, strerror(-r));
	else if (r == 0 && m->started)
		log_info("attached to %s", name);
}

static void on_link_gone(void *userdata, uint32_t ifindex, const char *name)
{
	struct manager *m = userdata;

	attach_forget(m->attach, ifindex);
	m->links_changed = true;
}

static void on_links_settled(void *userdata)
{
	struct manager *m = userdata;
	struct diag diag = {0};

	if (!m->started || !m->links_changed)
		return;
	m->links_changed = false;
	if (apply_now(m, m->rules, m->config, &diag) < 0)
		log_diag(&diag);
	diag_clear(&diag);
}

/* ---- start ---- */

static int add_signals(struct manager *m)
{
	static const struct {
		int signal;
		sd_event_signal_handler_t handler;
	} signals[] = {
		{SIGHUP, on_reload},
		{SIGTERM, on_stop},
		{SIGINT, on_stop},
		{SIGUSR2, on_leave},
	};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < sizeof(signals) / sizeof(signals[0]); i++)
		r = sd_event_add_signal(m->event, NULL, signals[i].signal, signals[i].handler, m);
	return r;
}

static int start_event_loop(struct manager *m)
{
	int r = sd_event_default(&m->event);

	if (r >= 0)
		r = add_signals(m);
	if (r >= 0)
		r = sd_event_add_time_relative(m->event, &m->tick, CLOCK_MONOTONIC, TICK_USEC,
					       100000, on_tick, m);
	if (r >= 0)
		r = sd_event_set_watchdog(m->event, true);
	if (r < 0)
		log_error("cannot start the event loop: %s", strerror(-r));
	return r;
}

static int start_server(struct manager *m)
{
	pid_t owner = 0;
	int r = server_new(m->event, m->options->socket_path, methods_table, m, &m->server, &owner);

	if (r == -EADDRINUSE)
		log_error("another redirectd, process %d, serves %s: end it first, or choose other "
			  "places with -s and -p",
			  (int)owner, m->options->socket_path);
	else if (r < 0)
		log_error("cannot listen on %s: %s", m->options->socket_path, strerror(-r));
	return r;
}

static int start_datapath(struct manager *m)
{
	struct diag diag = {0};
	pid_t owner = 0;
	int r = datapath_open(m->options->pin_path, m->config->flows_max, &diag, &m->datapath,
			      &owner);

	if (r == -EBUSY)
		log_error("another redirectd, process %d, owns the pins below %s: end it first, or "
			  "choose "
			  "other places with -s and -p",
			  (int)owner, m->options->pin_path);
	else if (r < 0)
		log_diag(&diag);
	diag_clear(&diag);
	if (r < 0)
		return r;
	r = attach_new(m->datapath, m->options->hook, &m->attach);
	if (r < 0)
		log_error("cannot attach with --hook %s: %s", attach_hook_name(m->options->hook),
			  strerror(-r));
	return r;
}

static int start_links(struct manager *m)
{
	const struct links_handler handler = {on_link_appeared, on_link_gone, on_links_settled, m};
	int r = links_new(m->event, m->datapath, &handler, &m->links);

	if (r < 0)
		log_error("cannot read the host's interfaces and addresses: %s", strerror(-r));
	return r;
}

/* Ids go on where they ended, so that a number soon after does not mean another rule. */
static void start_ids(struct manager *m)
{
	const struct rule_counters *counters = datapath_rule_counters(m->datapath);

	for (uint32_t id = 1; id < RULE_COUNT; id++)
		if (counters[id].created || ruleset_find_id(m->rules, id))
			m->last_id = id;
}

static int start_rules(struct manager *m)
{
	struct ruleset *rules = NULL;
	struct plan_counts counts;
	struct diag diag = {0};
	int r = registry_load(m->datapath, &m->rules);

	if (r == 0)
		r = apply_new(m->datapath, &m->apply);
	if (r == 0) {
		start_ids(m);
		apply_settings(m, m->config);
		r = plan_configuration(m->rules, m->config, true, new_id, m, &diag, &rules,
				       &counts);
	}
	if (r == 0)
		r = commit(m, rules, m->config, &diag);
	log_diag(&diag);
	diag_clear(&diag);
	if (r < 0)
		log_error("cannot put the rules in force: %s", strerror(-r));
	return r;
}

static int start_events(struct manager *m)
{
	int r;

	datapath_config(m->datapath)->events = 0; /* a former daemon may have died listening */
	if (!m->options->verbosity)
		return 0;
	r = events_new(m->event, m->datapath, m->options->verbosity, &m->events);
	if (r < 0)
		log_error("cannot listen to flow events: %s", strerror(-r));
	return r;
}

static void announce(struct manager *m)
{
	size_t n;

	m->started = true;
	m->links_changed = false;
	attach_entries(m->attach, &n);
	log_notice("%zu rules on %zu interfaces%s", m->rules->n_entries, n,
		   datapath_adopted(m->datapath) ? ", flows and counters taken over" : "");
	sd_notifyf(false, "READY=1\nSTATUS=%zu rules on %zu interfaces", m->rules->n_entries, n);
}

static int start(struct manager *m)
{
	static int (*const steps[])(struct manager *) = {
		start_event_loop, start_server, start_datapath,
		start_links,	  start_rules,	start_events,
	};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
		r = steps[i](m);
	if (r >= 0)
		announce(m);
	return r < 0 ? r : 0;
}

int manager_new(const struct options *options, struct config *config, struct manager **ret)
{
	_cleanup_(manager_freep) struct manager *m = calloc(1, sizeof(*m));
	int r;

	if (!m) {
		config_free(config);
		return -ENOMEM;
	}
	m->options = options;
	m->config = config;
	m->ending = ENDING_STOP; /* of a start that fails half-way */
	clock_gettime(CLOCK_MONOTONIC, &m->began);
	m->by_id = calloc(RULE_COUNT, sizeof(*m->by_id));
	m->scratch = calloc(RULE_COUNT, sizeof(*m->scratch));
	if (!m->by_id || !m->scratch)
		return -ENOMEM;
	r = start(m);
	if (r < 0) {
		if (m->datapath && datapath_adopted(m->datapath))
			m->ending = ENDING_LEAVE;
		return r;
	}
	*ret = take_ptr(m);
	return 0;
}

int manager_run(struct manager *m)
{
	int r = sd_event_loop(m->event);

	if (r < 0) {
		log_error("the event loop failed: %s", strerror(-r));
		m->ending = ENDING_LEAVE;
		return 1;
	}
	sd_notify(false, "STOPPING=1");
	log_notice(m->ending == ENDING_STOP ? "stopped" : "left; packets are redirected as before");
	return 0;
}

struct manager *manager_free(struct manager *m)
{
	if (!m)
		return NULL;
	server_free(m->server);
	events_free(m->events);
	links_free(m->links);
	if (m->ending == ENDING_STOP) {
		if (m->attach)
			attach_remove_all(m->attach);
		if (m->datapath)
			datapath_unpin(m->datapath);
	}
	apply_free(m->apply);
	attach_free(m->attach);
	datapath_free(m->datapath);
	ruleset_free(m->rules);
	config_free(m->config);
	sd_event_source_unref(m->tick);
	sd_event_unref(m->event);
	free(m->reload_error);
	free(m->by_id);
	free(m->scratch);
	free(m->by_entry);
	free(m->attachments);
	free(m->interface_names);
	free(m);
	return NULL;
}

/* ---- views ---- */

const struct ruleset *manager_ruleset(const struct manager *m)
{
	return m->rules;
}

struct datapath *manager_datapath(struct manager *m)
{
	return m->datapath;
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

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void update_sums(struct manager *m)
{
	flows_sum(m->datapath, m->scratch);
	for (uint32_t id = 0; id < RULE_COUNT; id++) {
		m->by_id[id].packets = larger(m->by_id[id].packets, m->scratch[id].packets);
		m->by_id[id].bytes = larger(m->by_id[id].bytes, m->scratch[id].bytes);
		m->by_id[id].flows = larger(m->by_id[id].flows, m->scratch[id].flows);
		m->by_id[id].active = m->scratch[id].active;
	}
}

const struct flow_sums *manager_rule_sums(struct manager *m)
{
	struct flow_sums *sums =
		reallocarray(m->by_entry, m->rules->n_entries + 1, sizeof(*m->by_entry));

	if (!sums)
		return NULL;
	m->by_entry = sums;
	update_sums(m);
	for (size_t i = 0; i < m->rules->n_entries; i++)
		sums[i] = m->by_id[m->rules->entries[i]->id];
	return sums;
}

static const char *const reason_names[REASON_COUNT] = {
	[REASON_UNRELATED] = "unrelated",
	[REASON_NO_MATCH] = "no_match",
	[REASON_STRAY] = "stray",
	[REASON_NOT_IP] = "not_ip",
	[REASON_NOT_TCP_UDP] = "not_tcp_udp",
	[REASON_FRAGMENT] = "fragment",
	[REASON_TRUNCATED] = "truncated",
	[REASON_MALFORMED] = "malformed",
	[REASON_EXTENSIONS] = "extensions",
	[REASON_TABLE_FULL] = "table_full",
	[REASON_INDEX_FULL] = "index_full",
	[REASON_PORTS_FULL] = "ports_full",
	[REASON_REWRITE] = "rewrite_failed",
};

static const bool reason_drops[REASON_COUNT] = {
	[REASON_TABLE_FULL] = true,
	[REASON_INDEX_FULL] = true,
	[REASON_PORTS_FULL] = true,
	[REASON_REWRITE] = true,
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
		.flows_max = datapath_config(m->datapath)->flows_max,
		.flows_created = totals->created,
		.flows_expired = totals->expired,
		.flows_insert_failed = totals->insert_failed,
		.reason_names = reason_names,
		.reason_drops = reason_drops,
		.reason_counts = (const uint64_t *)counters.reasons,
		.n_reasons = REASON_COUNT,
	};
	update_sums(m);
	for (uint32_t id = 0; id < RULE_COUNT; id++) {
		ret->redirected += m->by_id[id].packets;
		ret->redirected_bytes += m->by_id[id].bytes;
		ret->flows_active += m->by_id[id].active;
	}
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
		.attachments = attachments,
		.n_attachments = n,
	};
	for (size_t i = 0; i < m->rules->n_entries; i++)
		ret->n_rules_enabled += !m->rules->entries[i]->rule->disabled;
	return 0;
}
