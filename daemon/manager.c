// SPDX-License-Identifier: GPL-2.0-or-later
/* Start, event loop, signals, end: what the daemon is made of and the order of it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "daemon/apply.h"
#include "daemon/attach.h"
#include "daemon/datapath.h"
#include "daemon/events-print.h"
#include "daemon/events.h"
#include "daemon/limit-sweep.h"
#include "daemon/links.h"
#include "daemon/manager-private.h"
#include "daemon/methods.h"
#include "daemon/options.h"
#include "daemon/plan.h"
#include "daemon/registry.h"
#include "daemon/resize.h"
#include "daemon/server.h"
#include "shared/config.h"
#include "shared/log.h"

#define TICK_USEC     (1000 * 1000) /* how often a part of the table is swept */
#define SWEEP_RECORDS (384 * 1024)  /* the default table whole, larger ones in turns */

void manager_log_diag(const struct diag *diag)
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

/* Rules of which there is more to say than that they have changed. */
static void log_notes(const struct changes *c)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct ruleset_entry *e =
			c->items[i].after ? c->items[i].after : c->items[i].before;
		_cleanup_(freep) char *text = NULL;

		if (c->items[i].note && rule_format(e->rule, &text) == 0)
			log_warning("%s; the configuration wins: %s%s", c->items[i].note,
				    c->items[i].after ? "" : "no ", text);
	}
}

static int on_reload(sd_event_source *s, const struct signalfd_siginfo *info, void *userdata)
{
	struct manager *m = userdata;
	struct changes changes = {0};
	struct change_counts counts;
	struct diag diag = {0};
	struct timespec now;
	int r;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%llu",
		   (unsigned long long)now.tv_sec * 1000000ULL + now.tv_nsec / 1000);
	r = manager_reload(m, false, &diag, &changes);
	if (r < 0) {
		manager_log_diag(&diag);
		log_error("not reloaded: everything stays as it was");
	} else {
		counts = changes_count(&changes);
		log_notice("reloaded: %zu rules added, %zu removed, %zu changed, %zu kept",
			   counts.added, counts.removed, counts.changed,
			   m->rules->n_entries - counts.added - counts.changed);
		log_notes(&changes);
	}
	changes_clear(&changes);
	diag_clear(&diag);
	sd_notifyf(false, "READY=1\nSTATUS=%zu rule%s%s", m->rules->n_entries,
		   m->rules->n_entries == 1 ? "" : "s", r < 0 ? "; the last reload failed" : "");
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
	limit_sweep(m->datapath, &m->limit_sweep);
	watch_tick(m);
	apply_tick(m->apply);
	pending_tick(m);
	manager_refresh_needs(m);
	sd_event_source_set_time(s, usec + TICK_USEC);
	return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void on_link_appeared(void *userdata, uint32_t ifindex, const char *name, bool ethernet)
{
	struct manager *m = userdata;
	int r = attach_interface(m->attach, ifindex, ethernet);

	m->links_changed = true;
	/* It may have gone again already; netlink will tell. */
	if (r == -EEXIST)
		log_warning(
			"cannot attach to %s: another program's qdisc 'ingress' is in the place of "
			"'clsact'; have it use clsact instead, then restart redirectd",
			name);
	else if (r < 0 && r != -ENODEV)
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

/* Masqueraded flows may bear one of them. */
static void on_addresses_lost(void *userdata)
{
	struct manager *m = userdata;

	if (m->started)
		apply_recheck(m->apply);
}

static void on_links_settled(void *userdata)
{
	struct manager *m = userdata;
	struct diag diag = {0};

	if (!m->started || !m->links_changed)
		return;
	m->links_changed = false;
	if (manager_reapply(m, &diag) < 0)
		manager_log_diag(&diag);
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
		manager_log_diag(&diag);
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
	const struct links_handler handler = {on_link_appeared, on_link_gone, on_addresses_lost,
					      on_links_settled, m};
	int r = links_new(m->event, m->datapath, &handler, &m->links);

	if (r < 0)
		log_error("cannot read the host's interfaces and addresses: %s", strerror(-r));
	return r;
}

static int start_resize(struct manager *m)
{
	int r = resize_new(m->event, m->datapath, m->attach, &m->resize);

	if (r < 0)
		log_error("cannot look after the flow table's size: %s", strerror(-r));
	return r;
}

/* Ids go on where they ended, so that a number soon after does not mean another rule. */
static void start_ids(struct manager *m)
{
	const struct rule_counters *counters = datapath_rule_counters(m->datapath);

	for (uint32_t id = 1; id < RULE_COUNT; id++)
		if (counters[id].created || ruleset_find_id(m->rules, id) ||
		    ruleset_find_removed(m->rules, id))
			m->last_id = id;
}

/* Rules of the configuration, merged with those that are there; a pending change goes first. */
static int merge_configuration(struct manager *m, struct diag *diag)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	const struct plan_from from = manager_plan_from(m);
	int r = 0;

	if (!m->reload_due)
		r = plan_configuration(&from, m->config, true, &changes, diag);
	if (r == 0)
		r = manager_commit(m, &changes, m->config, false, diag);
	if (r == 0)
		log_notes(&changes);
	return r;
}

static int start_rules(struct manager *m)
{
	struct diag diag = {0};
	int r = registry_load(m->datapath, &m->rules);

	if (r == 0)
		r = apply_new(m->datapath, &m->apply);
	if (r == 0) {
		start_ids(m);
		manager_apply_settings(m, m->config);
		r = pending_adopt(m, &diag);
	}
	if (r == 0)
		r = merge_configuration(m, &diag);
	manager_log_diag(&diag);
	diag_clear(&diag);
	if (r < 0)
		log_error("cannot put the rules in force: %s", strerror(-r));
	return r;
}

static int start_events(struct manager *m)
{
	int r = events_new(m->event, m->datapath, &m->events);

	if (r >= 0 && m->options->verbosity)
		r = events_print_new(m->events, m->options->verbosity, &m->events_print);
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
	log_notice("%zu rule%s on %zu interface%s%s", m->rules->n_entries,
		   m->rules->n_entries == 1 ? "" : "s", n, n == 1 ? "" : "s",
		   datapath_adopted(m->datapath) ? ", flows and counters taken over" : "");
	sd_notifyf(false, "READY=1\nSTATUS=%zu rule%s on %zu interface%s", m->rules->n_entries,
		   m->rules->n_entries == 1 ? "" : "s", n, n == 1 ? "" : "s");
}

static int start(struct manager *m)
{
	static int (*const steps[])(struct manager *) = {
		start_event_loop, start_server, start_datapath, start_links,
		start_resize,	  start_rules,	start_events,
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
	events_print_free(m->events_print);
	events_free(m->events);
	links_free(m->links);
	if (m->ending == ENDING_STOP) {
		if (m->attach)
			attach_remove_all(m->attach);
		if (m->datapath)
			datapath_unpin(m->datapath);
	}
	resize_free(m->resize);
	apply_free(m->apply);
	attach_free(m->attach);
	datapath_free(m->datapath);
	sd_event_source_disable_unref(m->undo_timer);
	json_decref(m->undo);
	ruleset_free(m->rules);
	config_free(m->config);
	sd_event_source_unref(m->tick);
	sd_event_unref(m->event);
	free(m->reload_error);
	watch_clear(m);
	free(m->by_id);
	free(m->scratch);
	free(m->by_entry);
	flow_target_sums_clear(&m->by_target);
	free(m->attachments);
	free(m->interface_names);
	free(m->unattached);
	free(m);
	return NULL;
}
