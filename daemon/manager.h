/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon as one object: owns the event loop, ruleset, datapath, attachments and socket, and
 * is the only place where a change of rules is decided. Methods of the socket, signals and start
 * up all come through here; every change is one transaction.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/flows.h"
#include "daemon/port-fill.h"
#include "daemon/ruleset.h"
#include "shared/cleanup.h"
#include "shared/diag.h"

struct config;
struct manager;
struct options;

/*
 * Starts everything; a failure is logged. Takes the configuration over, also on failure; the
 * options are read again at each reload and outlive the manager.
 */
int manager_new(const struct options *options, struct config *config, struct manager **ret);
/* Runs until a signal ends it. Returns the exit code. */
int manager_run(struct manager *m);
struct manager *manager_free(struct manager *m);
DEFINE_CLEANUP(struct manager, manager_free)

/*
 * Changes. Return 0; -ENOENT: no such rule; -EINVAL, -EEXIST, -ENOSPC…: refused, diag says why;
 * nothing has changed then. With `dry_run` everything is checked and nothing done.
 */
int manager_add_rule(struct manager *m, const char *text, bool dry_run, struct diag *diag,
		     uint32_t *ret_id, char **ret_text);
int manager_remove_rule(struct manager *m, const char *selector, bool dry_run, struct diag *diag,
			uint32_t *ret_id, char **ret_text);
int manager_enable_rule(struct manager *m, const char *selector, bool enable, bool dry_run,
			struct diag *diag, uint32_t *ret_id, char **ret_text);
/* What a reload did; with an error nothing has changed. */
struct reload_result {
	uint32_t added, removed, kept;
};
int manager_reload(struct manager *m, bool dry_run, struct diag *diag, struct reload_result *ret);

/* Views; valid until the next call into the manager. */
const struct ruleset *manager_ruleset(const struct manager *m);
struct datapath *manager_datapath(struct manager *m);
/* Interfaces that rules without `on` apply to; 0 entries: every interface. */
const char *const *manager_interfaces(struct manager *m, size_t *ret_n);
/* Sums of every rule, by the order of manager_ruleset()->entries; the array belongs to m. */
const struct flow_sums *manager_rule_sums(struct manager *m);

struct manager_stats {
	uint64_t packets, bytes; /* everything that the datapath looked at; bytes of IP length */
	uint64_t redirected, redirected_bytes; /* what it translated, both directions */
	uint64_t icmp_errors, events_lost;
	uint64_t flows_active, flows_max, flows_created, flows_expired, flows_insert_failed;
	const char *const *reason_names; /* passed on or dropped, by reason */
	const bool *reason_drops;	 /* true: the packet was dropped, not passed on untouched */
	const uint64_t *reason_counts;
	size_t n_reasons;
	/* How many source ports were tried until one was free, for each new flow. */
	const char *const *search_names;
	const uint64_t *search_counts;
	size_t n_searches;
	struct port_fill port_fill; /* the fullest room for them */
};
int manager_stats(struct manager *m, struct manager_stats *ret);

struct manager_attachment {
	const char *interface;
	uint32_t ifindex;
	const char *hook; /* "tcx" or "clsact" */
};
struct manager_status {
	const char *version;
	pid_t pid;
	uint64_t uptime_ms;
	const char *config_path; /* NULL: none read */
	const char *pin_path;
	const char *socket_path;
	bool adopted;		       /* this start took over a running datapath */
	const char *last_reload_error; /* NULL: the last reload went well */
	uint32_t n_rules, n_rules_enabled;
	const struct manager_attachment *attachments;
	size_t n_attachments;
};
int manager_status(struct manager *m, struct manager_status *ret);
