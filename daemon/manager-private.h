/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The manager's inside, for the files that make it up: manager.c (start, signals, end), change.c
 * (changes of rules), views.c (what others may see of it).
 */
#pragma once

#include <systemd/sd-event.h>
#include <time.h>

#include "daemon/manager.h"
#include "daemon/needs.h"

struct apply;
struct attach;
struct config;
struct events;
struct links;
struct server;

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
	struct needs needs; /* those that have been told of */

	struct flow_sums *by_id; /* RULE_COUNT; never fall, see flows_sum() */
	struct flow_sums *scratch, *by_entry;
	struct manager_attachment *attachments;
	const char **interface_names;
};

/* An id that neither rule set uses and whose last flows are gone; a plan_new_id. */
uint32_t manager_new_id(void *userdata, const struct ruleset *a, const struct ruleset *b);
/* Puts a planned rule set in force, and takes it over; or refuses it and changes nothing. */
int manager_commit(struct manager *m, struct ruleset *rules, const struct config *config,
		   struct diag *diag);
/* Writes the rules in force again: names of interfaces mean others now. */
int manager_reapply(struct manager *m, struct diag *diag);
/* Timeouts and limits of a configuration. */
void manager_apply_settings(struct manager *m, const struct config *config);
