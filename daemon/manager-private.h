/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The manager's inside, for the files that make it up: manager.c (start, signals, end), change.c
 * (changes of rules), change-file.c (by files), pending.c (those to be confirmed), save.c, watch.c
 * (what is nearly full), views.c (what others may see of it).
 */
#pragma once

#include <jansson.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "daemon/fill.h"
#include "daemon/limit-sweep.h"
#include "daemon/manager.h"
#include "daemon/needs.h"
#include "daemon/plan.h"

struct apply;
struct attach;
struct config;
struct events_print;
struct links;
struct resize;
struct server;

enum ending {
	ENDING_LEAVE, /* everything stays pinned and forwarding */
	ENDING_STOP,  /* detach, unpin */
};

/* What the log has been told of room, and when. */
struct watch {
	struct fill_watch flows, ports;
	struct fill_watch *rules; /* by id, of their own max-flows; NULL: none has it */
	uint64_t ports_looked;	  /* seconds */
	bool begun;
	uint64_t insert_failed; /* as last seen */
	uint64_t room, room_at; /* those for lack of room, and when they last grew; 0: never */
	uint64_t refused_told, refused_at; /* as told last, and when */
	uint64_t reasons[REASON_COUNT];
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
	struct resize *resize;
	struct ruleset *rules;
	struct server *server;
	struct events *events;
	struct events_print *events_print; /* NULL: without -v */

	bool started;	    /* the rules are in force */
	bool links_changed; /* names of interfaces mean others than when the rules were applied */
	enum ending ending;
	uint32_t last_id,
		ids_tried; /* the last id given out; how many the running plan went through */

	json_t *undo;	  /* of the change that waits to be confirmed; NULL: none does */
	uint64_t undo_at; /* CLOCK_BOOTTIME, microseconds */
	sd_event_source *undo_timer;
	bool reload_due; /* the configuration is to be read once nothing is pending */

	uint32_t sweep_cursor;
	struct limit_sweep limit_sweep;
	struct watch watch;
	struct timespec began;
	char *reload_error;
	struct needs needs; /* those that have been told of */
	bool needs_stale;   /* rules have changed since all were looked at */

	struct flow_sums *by_id; /* RULE_COUNT; never fall, see flows_sum() */
	struct flow_sums *scratch, *by_entry;
	struct flow_target_sums by_target;
	struct manager_attachment *attachments;
	const char **interface_names, **unattached;
};

/* Where a plan begins: the rules in force, and ids that are free. */
struct plan_from manager_plan_from(struct manager *m);
/*
 * Makes planned changes, or with `dry_run` only tries them; or refuses them and changes nothing.
 */
int manager_commit(struct manager *m, struct changes *c, const struct config *config, bool dry_run,
		   struct diag *diag);
/* Writes the rules in force again: names of interfaces mean others now. */
int manager_reapply(struct manager *m, struct diag *diag);
/* Looks again at what all rules need of the host, if some have changed: some needs may be gone. */
void manager_refresh_needs(struct manager *m);
/* Timeouts and limits of a configuration. */
void manager_apply_settings(struct manager *m, const struct config *config);
/* Every item a message, a line a message, so that the journal keeps their priority. */
void manager_log_diag(const struct diag *diag);

/* watch.c: tells the log of what is nearly full, and of new flows that are turned away. */

/* Once a second. */
void watch_tick(struct manager *m);
/* Were new flows turned away for lack of room within the last minute? */
bool watch_turned_away(const struct manager *m);
void watch_clear(struct manager *m);

/* pending.c: a change that goes back by itself unless it is confirmed. */

/* 0; or -EEXIST when a change is pending, and an item in diag says so. */
int pending_refuse(const struct manager *m, struct diag *diag);
/* Before the change: pins what to go back to. */
int pending_prepare(struct manager *m, const struct changes *c, struct diag *diag);
/* After it: the time runs. */
int pending_begin(struct manager *m, uint32_t seconds, struct diag *diag);
/* Nothing is pending any more. */
void pending_end(struct manager *m);
/* What a former daemon left: goes back now, or goes on waiting. Needs the rules. */
int pending_adopt(struct manager *m, struct diag *diag);
/* Does what had to wait until nothing is pending. */
void pending_tick(struct manager *m);
/* Milliseconds until it goes back. */
uint64_t pending_left_ms(const struct manager *m);
