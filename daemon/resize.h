/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Gives the flow table the size that flows-max asks for, while packets go on: step after step from
 * the event loop, each short. Goes on where a former daemon was interrupted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "shared/cleanup.h"

struct attach;
struct datapath;
struct resize;

/* Everything is attached already. */
int resize_new(sd_event *event, struct datapath *d, struct attach *a, struct resize **ret);
struct resize *resize_free(struct resize *r); /* the next daemon goes on with what is not done */
DEFINE_CLEANUP(struct resize, resize_free)

/* The configuration says so. While the table is resized already, it is once more after that. */
void resize_want(struct resize *r, uint32_t flows_max);

struct resize_state {
	bool active;
	uint32_t to;	   /* flows that the new table is for */
	uint64_t moved;	   /* flows that are in it already, by this daemon's doing */
	const char *error; /* why the size is not what the configuration says; NULL: it is */
};
void resize_look(const struct resize *r, struct resize_state *ret);
