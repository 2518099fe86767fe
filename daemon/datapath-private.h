/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The datapath's inside, for the files that make it up: datapath.c (pins, maps, programs to run),
 * datapath-table.c (the table: loading programs over one of a size, and over another).
 */
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <pthread.h>

#include "daemon/datapath.h"

struct redirect_bpf; /* the skeleton */

struct mapping {
	void *memory;
	size_t length;
};

/* Programs for these tables are to be loaded. */
struct table_size {
	uint32_t records, buckets;
};
struct table_load {
	struct table_size size, new_size;   /* the second of no records: there is one table */
	uint32_t number;		    /* of the table `flows` */
	const struct redirect_bpf *heir_of; /* its new table is `flows`; NULL: what is pinned */
};

/* A thread that loads them: the verifier takes a second, in which the daemon has other work. */
struct table_loader {
	pthread_t thread;
	bool runs;
	_Atomic bool done;
	const struct datapath *datapath;
	struct table_load load;
	struct redirect_bpf *skeleton;
	int result;
};

struct datapath {
	struct redirect_bpf *skeleton; /* the programs to run, and the maps */
	struct redirect_bpf *former;   /* those that hooks may still run; NULL: none */
	char *pin_path, *map_path;
	int lock_fd;   /* of the pin folder; flock()ed while this daemon lives */
	int events_fd; /* stays the same whichever programs are loaded */
	bool adopted;
	uint32_t *registry_parts; /* REGISTRY_KEYS: how many parts a text has */
	int n_cpus;
	struct cpu_counters *cpu_counters; /* room for one of every possible processor */
	uint64_t tick_ns;		   /* length of a tick */
	uint64_t clock_ns;    /* CLOCK_MONOTONIC when the datapath's clock was last read */
	uint32_t clock_ticks; /* what it showed */
	struct mapping config, ports, shapes, bindings, actions, totals, rule_counters,
		rule_settings;
	struct mapping flows; /* of two tables the new one, then the old one */
	uint32_t n_flows;     /* records in it */
	uint32_t n_new;	      /* of these, of the new table; 0: there is one table */
	uint32_t flows_epoch; /* changes with what is where in it */
	struct table_loader loader;
	uint64_t walked_ns; /* when somebody was last in the middle of a walk; 0: nobody is */
};

/* datapath-table.c */

/* Loads the programs over what is pinned, or makes a table for so many flows. */
int table_load(struct datapath *d, uint32_t flows_max);
/* Maps the flows of one table or both. */
int table_map_flows(struct datapath *d);
void table_free(struct datapath *d);

/* datapath.c */

int datapath_map_memory(const struct bpf_map *map, bool write, struct mapping *ret);
/* Runs a program on items behind SWEEP_OFFSET; returns the sum of its answers, or an error. */
int datapath_run_items(struct datapath *d, const char *program, struct sweep_item *items, size_t n);
