/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loaded datapath: programs, pinned maps and their memory mappings. The only file that knows
 * the BPF skeleton. Adopts what a former daemon left pinned, else makes it.
 */
#pragma once

#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/abi.h"
#include "shared/cleanup.h"
#include "shared/diag.h"

struct datapath;

enum datapath_program {
	PROGRAM_IN,	/* ingress of devices with an Ethernet header */
	PROGRAM_OUT,	/* egress of them */
	PROGRAM_IN_L3,	/* ingress of devices without */
	PROGRAM_OUT_L3, /* egress of them */
	PROGRAM_SWEEP,
	PROGRAM_SWEEP_SOURCES,
	PROGRAM_CLOCK,
	PROGRAM_TRACE,
	PROGRAM_BIND_MATCH,
	PROGRAM_COUNT,
};

/*
 * Loads the programs over the maps pinned below `pin_path` (a folder on a bpffs, made if missing;
 * bpffs itself is mounted when it is not and that is allowed). -EBUSY: a live daemon owns the
 * folder, *ret_owner is its process id, or 0 if it cannot be told. Other errors: diag says what to
 * do.
 */
int datapath_open(const char *pin_path, uint32_t flows_max, struct diag *diag,
		  struct datapath **ret, pid_t *ret_owner);
/* Closes; pins and attachments stay, and packets are translated as before. */
struct datapath *datapath_free(struct datapath *d);
DEFINE_CLEANUP(struct datapath, datapath_free)
/* Removes every pin, and with the last attachment gone, the maps. */
void datapath_unpin(struct datapath *d);

bool datapath_adopted(const struct datapath *d); /* maps were there already */
const char *datapath_pin_path(const struct datapath *d);
int datapath_program_fd(const struct datapath *d, enum datapath_program p);

/* Mappings; those packets write are read only. */
struct datapath_config *datapath_config(struct datapath *d);
struct port_entry *datapath_ports(struct datapath *d);		  /* PORT_COUNT */
struct shape *datapath_shapes(struct datapath *d);		  /* SHAPE_COUNT */
struct binding *datapath_bindings(struct datapath *d);		  /* BINDING_COUNT */
struct action *datapath_actions(struct datapath *d);		  /* ACTION_COUNT */
struct rule_counters *datapath_rule_counters(struct datapath *d); /* RULE_COUNT */
struct rule_setting *datapath_rule_settings(struct datapath *d);  /* RULE_COUNT */
/*
 * While flows move to another table, those of both: the new one first, since then nothing is
 * counted twice; a moved flow's old record is FLOW_OWNED.
 */
const struct flow *datapath_flows(struct datapath *d, uint32_t *ret_n);
/* What the programs call the record at a place of datapath_flows(). */
uint32_t datapath_record(const struct datapath *d, uint32_t i);
/* Changes whenever flows have changed places there, so that a walk in turns is not a whole one. */
uint32_t datapath_flows_epoch(const struct datapath *d);
/* Somebody walks in turns; places had better stay as they are until it has ended. */
void datapath_flows_walked(struct datapath *d, bool goes_on);
bool datapath_flows_in_use(const struct datapath *d); /* not for long, if nobody goes on */
const struct flow_totals *datapath_totals(struct datapath *d);
/* The flows that the table was made for; `flows_max` of the config may not exceed it. */
uint32_t datapath_capacity(const struct datapath *d);

/* Maps that are reached by system calls. */
int datapath_match_set(struct datapath *d, const struct match_key *keys, const uint32_t *bindings,
		       uint32_t n);
/* One, -EEXIST when the key is there already. */
int datapath_match_add(struct datapath *d, const struct match_key *key, uint32_t binding);
int datapath_match_get(struct datapath *d, const struct match_key *key, uint32_t *ret_binding);
/* Another binding for a match that there is, also while packets read it; -ENOENT: there is none. */
int datapath_match_bind(struct datapath *d, const struct match_key *key, uint32_t binding);
int datapath_match_delete(struct datapath *d, const struct match_key *key);
/* Walks the match table: NULL starts. 0, or -ENOENT at the end. */
int datapath_match_next(struct datapath *d, const struct match_key *key, struct match_key *ret_next,
			uint32_t *ret_binding);
int datapath_balance_set(struct datapath *d, uint32_t action, const struct balance *balance);
int datapath_balance_get(struct datapath *d, uint32_t action, struct balance *ret);
int datapath_balance_delete(struct datapath *d, uint32_t action);
/* Walks the actions that have one: 0 starts, and is the end. Not while any is deleted. */
uint32_t datapath_balance_next(struct datapath *d, uint32_t action);
/* What targets have counted, by TARGET_KEY(). Getting: zeroes and -ENOENT where there is nothing.
 */
int datapath_target_get(struct datapath *d, uint32_t key, struct rule_counters *ret);
int datapath_target_set(struct datapath *d, uint32_t key, const struct rule_counters *counters);
int datapath_target_delete(struct datapath *d, uint32_t key);
/* Walks the keys: NULL starts. 0, or -ENOENT at the end. */
int datapath_target_next(struct datapath *d, const uint32_t *key, uint32_t *ret_next);
int datapath_local_set(struct datapath *d, const struct local_key *key, bool present);
int datapath_local_next(struct datapath *d, const struct local_key *key,
			struct local_key *ret_next);
int datapath_source_set(struct datapath *d, const struct source_key *key,
			const struct source_value *value);
int datapath_source_delete(struct datapath *d, const struct source_key *key);
/* Walks the sources: NULL starts. 0, or -ENOENT at the end. */
int datapath_source_next(struct datapath *d, const struct source_key *key,
			 struct source_key *ret_next, struct source_value *ret_value);
int datapath_destination_set(struct datapath *d, const struct destination_key *key, bool present);
/* NULL starts. 0, or -ENOENT at the end. */
int datapath_destination_next(struct datapath *d, const struct destination_key *key,
			      struct destination_key *ret_next);
int datapath_counters(struct datapath *d, struct cpu_counters *ret_sum);

/* The registry: one text a rule. Writing NULL deletes. Reading: the caller frees. */
int datapath_registry_write(struct datapath *d, uint32_t rule, const char *text);
int datapath_registry_read(struct datapath *d, uint32_t rule, char **ret);
/* The next rule with an entry after `rule`, in ascending order of ids; 0: none. */
uint32_t datapath_registry_next(struct datapath *d, uint32_t rule);

int datapath_events_fd(struct datapath *d);

/*
 * Ends the flows that the records still hold, for the reason given with each; `freed` tells which.
 * Returns how many, or an error.
 */
int datapath_sweep(struct datapath *d, struct sweep_item *items, size_t n);

/* Walks the sources that limits know: NULL starts. 0, or -ENOENT at the end. */
int datapath_limit_source_next(struct datapath *d, const struct limit_source_key *key,
			       struct limit_source_key *ret_next);
/* Forgets those of up to SWEEP_BATCH sources that nothing is known of; how many, or an error. */
int datapath_sweep_sources(struct datapath *d, const struct limit_source_key *keys, size_t n);

/*
 * What ingress would do with a packet, Ethernet header and all, that came in at an interface; it is
 * as long as the answer at least. Changes nothing.
 */
int datapath_trace(struct datapath *d, uint32_t ifindex, const void *packet, size_t length,
		   struct trace_answer *ret);

/*
 * Another size of the table, while packets go on (bpf/migrate.bpf.h): the caller points all hooks
 * at the programs after datapath_resize_loaded() and _undo(), then tells that the former
 * ones are not run any more. A daemon that starts finds a phase and goes on: in TABLE_MOVING and
 * TABLE_MERGING with datapath_resize_step().
 */
bool datapath_resize_needed(const struct datapath *d, uint32_t flows_max);
enum table_phase datapath_resize_phase(const struct datapath *d);
/* Makes a table and loads programs that know both, in a thread. */
int datapath_resize_begin(struct datapath *d, uint32_t flows_max);
/* Are they there? Then they are the programs now. -EAGAIN; -ENOMEM…: nothing has changed. */
int datapath_resize_loaded(struct datapath *d);
/* Instead of _open(): back to the former programs; then datapath_drop_former(). */
void datapath_resize_undo(struct datapath *d);
/* All hooks run the new programs: flows may move. */
int datapath_resize_open(struct datapath *d);
/*
 * Moves or, when TABLE_MERGING, ends what is in the next `n_records` of the old table; returns how
 * many flows, or an error. *cursor begins at 0, and is at the end when nothing was looked at.
 */
int datapath_resize_step(struct datapath *d, uint32_t *cursor, uint32_t n_records);
uint32_t datapath_resize_left(const struct datapath *d); /* flows that it would concern now */
/* All have moved: TABLE_MERGING. -EAGAIN: not all. */
int datapath_resize_merge(struct datapath *d);
/* None is left: loads programs for the new table alone, as above. */
int datapath_resize_load(struct datapath *d);
/* All hooks run these: the old table goes. */
int datapath_resize_end(struct datapath *d);
void datapath_drop_former(struct datapath *d);

/* Now, in the ticks of the datapath; cheap enough to ask for each flow. */
uint32_t datapath_ticks(struct datapath *d);
uint32_t datapath_ticks_from_seconds(const struct datapath *d, uint32_t seconds);
uint64_t datapath_ticks_to_ms(const struct datapath *d, uint32_t ticks);
