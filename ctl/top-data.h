/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `top` shows: samples of the daemon's counters, and what they say about the time between two
 * of them. A daemon that goes away leaves the last sample standing, and is asked again at the next.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"

#define TOP_HISTORY    60   /* samples that a trend keeps */
#define TOP_FLOWS_MOST 2000 /* that are fetched for one screen */

/* The last values of a rate, oldest first. */
struct top_trend {
	float values[TOP_HISTORY];
	size_t n;
};

/* What grows, and how fast. */
struct top_counts {
	uint64_t packets, bytes, flows;
	double packet_rate, byte_rate, flow_rate; /* a second */
};

struct top_rule {
	int64_t id;
	char *name, *text; /* owned; the name is "" without one */
	bool enabled;
	uint64_t active, refused;
	struct top_counts counts;
	double refused_rate;
	struct top_trend trend; /* of bytes */
};

struct top_flow {
	char *key;			/* owned: what tells it from others */
	char *client, *listen, *target; /* owned: "192.0.2.1:4711" */
	char protocol[8], state[16];
	int64_t rule;
	struct top_counts counts;
};

struct top_data {
	char *problem; /* owned: why the last sample failed; NULL: it has not */
	bool sampled;  /* there is something to show */
	char *version; /* owned */
	uint64_t uptime_ms;
	uint64_t active, max;
	uint64_t dropped, events_lost;
	double drop_rate;
	struct top_counts seen, redirected; /* their `flows` are those created */
	struct top_trend trend;		    /* of redirected bytes */
	struct top_rule *rules;		    /* owned; by id */
	size_t n_rules;
	struct top_flow *flows; /* owned; by key */
	size_t n_flows;
	bool flows_cut; /* there are more */
	uint64_t sampled_us, flows_us;
};

void top_data_clear(struct top_data *d);

/*
 * Takes a sample from the daemon at `socket`, with flows or without; those of one rule, if that is
 * not 0. Returns whether it went well; else d->problem says why.
 */
bool top_data_sample(struct top_data *d, const char *socket, bool flows, int64_t rule);
