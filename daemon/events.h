/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flow events out of the datapath's ring buffer, for any number of listeners. While there is none
 * the datapath makes no events.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "daemon/flows.h"
#include "shared/abi.h"
#include "shared/cleanup.h"

struct datapath;
struct events;

#define EVENTS_SAMPLE_MOST (1 << 20) /* one packet in so many, at the most */

struct event_view {
	enum event_kind kind;
	enum destroy_reason reason; /* with EVENT_DESTROY */
	bool reply;		    /* with EVENT_PACKET: of the reply's direction */
	uint32_t length;	    /* with EVENT_PACKET: IP length */
	struct flow_view flow;
};

/* Embedded in what listens; the members above `link` are set by its owner. */
struct events_listener {
	uint32_t sample; /* 0: no packets; else one packet in so many, a power of two */
	void (*handler)(void *userdata, const struct event_view *e);
	/* So many more have found the ring buffer full; may be NULL. */
	void (*lost)(void *userdata, uint64_t n);
	void *userdata;
	LIST_ENTRY(events_listener) link;
	uint32_t skipped; /* packets that other listeners wanted */
};

int events_new(sd_event *event, struct datapath *d, struct events **ret);
/* Switches events off; listeners must have left. */
struct events *events_free(struct events *e); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct events, events_free)

/* From now on the handler is called from the event loop, for flows and sampled packets. */
void events_listen(struct events *e, struct events_listener *l);
void events_leave(struct events *e, struct events_listener *l);
/* Events that found the ring buffer full, since the datapath was made; for every listener. */
uint64_t events_lost(struct events *e);

/* "NEW", "DESTROY" or "PACKET". */
const char *event_kind_name(enum event_kind kind);
/* Why a flow ended, in one word; NULL: of a later datapath. */
const char *event_reason_name(enum destroy_reason reason);
