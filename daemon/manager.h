/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon as one object: owns the event loop, ruleset, datapath, attachments and socket, and
 * is the only place where a change of rules is decided. Methods of the socket, signals and start
 * up all come through here; every change is one transaction.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/changes.h"
#include "daemon/fill.h"
#include "daemon/flows.h"
#include "daemon/port-fill.h"
#include "daemon/resize.h"
#include "daemon/ruleset.h"
#include "shared/cleanup.h"
#include "shared/diag.h"

struct config;
struct config_text;
struct findings;
struct events;
struct manager;
struct options;
struct trace;
struct trace_query;

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
 * nothing has changed then. With `dry_run` everything is checked and nothing done. `ret` is empty
 * at first, receives what has changed or would, and is for the caller to clear before the next
 * call; of a change of one rule it has the `subject`.
 *
 * While a change waits for its confirmation all others are refused with -EEXIST.
 */
int manager_add_rule(struct manager *m, const char *text, bool dry_run, struct diag *diag,
		     struct changes *ret);
int manager_remove_rule(struct manager *m, const char *selector, bool dry_run, struct diag *diag,
			struct changes *ret);
int manager_replace_rule(struct manager *m, const char *selector, const char *text, bool dry_run,
			 struct diag *diag, struct changes *ret);
int manager_enable_rule(struct manager *m, const char *selector, bool enable, bool dry_run,
			struct diag *diag, struct changes *ret);

/* Reads the configuration again. */
int manager_reload(struct manager *m, bool dry_run, struct diag *diag, struct changes *ret);

struct apply_options {
	bool replace;		  /* rules that are not in the file go */
	uint32_t confirm_seconds; /* go back by itself after so long; 0: stays */
	bool dry_run;
};
/*
 * Puts the rules of `texts` in force. `config` receives them read; the changes refer to it, so that
 * it goes after them.
 */
int manager_apply(struct manager *m, const struct config_text *texts, size_t n,
		  const struct apply_options *options, struct diag *diag, struct config **config,
		  struct changes *ret);
/* What would make the rules in force those of `texts`; with n 0 those of the configuration. */
int manager_diff(struct manager *m, const struct config_text *texts, size_t n, struct diag *diag,
		 struct config **config, struct changes *ret);

/* -ENODATA: nothing waits to be confirmed. */
int manager_confirm(struct manager *m, bool dry_run);
int manager_rollback(struct manager *m, bool dry_run, struct diag *diag, struct changes *ret);

struct save_result {
	char *file; /* owned: where the rules are */
	size_t n_rules, n_new;
	bool written;	 /* false: it was so already, or dry_run */
	bool included;	 /* the configuration reads that file */
	size_t n_differ; /* rules of other files that are otherwise in force: not for us to write */
};
void save_result_clear(struct save_result *r);
/* Writes runtime rules where they last. -ENOENT: no configuration is read (diag says so). */
int manager_save(struct manager *m, bool dry_run, struct diag *diag, struct save_result *ret);

/* Views; valid until the next call into the manager. */
const struct ruleset *manager_ruleset(const struct manager *m);
struct datapath *manager_datapath(struct manager *m);
struct events *manager_events(struct manager *m);
/* Interfaces that rules without `on` apply to; 0 entries: every interface. */
const char *const *manager_interfaces(struct manager *m, size_t *ret_n);
/* Sums of every rule, by the order of manager_ruleset()->entries; the array belongs to m. */
const struct flow_sums *manager_rule_sums(struct manager *m);
/* Those of a rule's target, by its place in the rule, as they were at the last call of that. */
const struct flow_sums *manager_target_sums(struct manager *m, size_t entry, size_t target);

/* Why a packet was not translated. */
struct manager_reason {
	const char *name;
	bool drops;   /* it was dropped, not passed on untouched */
	bool refuses; /* and would have begun a flow */
};

struct manager_stats {
	uint64_t packets, bytes; /* everything that the datapath looked at; bytes of IP length */
	uint64_t redirected, redirected_bytes; /* what it translated, both directions */
	uint64_t icmp_errors, events_lost;
	uint64_t flows_active, flows_max, flows_created, flows_expired, flows_insert_failed;
	uint64_t flows_evicted;
	uint64_t flows_unassured;    /* of the active ones: they make room for others */
	uint32_t fullest_rule;	     /* with most of the active ones; 0: there are none of a rule */
	uint64_t fullest_rule_flows; /* how many */
	const struct manager_reason *reasons; /* by enum packet_reason, as are their counts */
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
	size_t n_runtime;    /* rules that no file has */
	size_t n_differ;     /* rules of the configuration that a runtime change has otherwise */
	bool pending;	     /* a change waits to be confirmed */
	uint64_t pending_ms; /* until it is taken back */
	size_t pending_rules;
	const struct manager_attachment *attachments;
	size_t n_attachments;
	struct resize_state resize;
	const char *const *unattached; /* interfaces that the datapath is not at, or not any more */
	size_t n_unattached;
	bool turned_away; /* new flows, within the last minute */
};
int manager_status(struct manager *m, struct manager_status *ret);

/* Runs the checks of doctor.h. */
void manager_doctor(struct manager *m, struct findings *ret);

/* The index of an interface that packets may be redirected on, 0: there is none of that name. */
uint32_t manager_interface_index(const struct manager *m, const char *name);
/* What would become of a packet (trace.h), and the name of where it comes in. */
int manager_trace(struct manager *m, const struct trace_query *query, struct trace *ret,
		  const char **ret_interface);
/* By enum packet_reason. */
const char *manager_reason_name(uint32_t reason);
