/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flow events out of the datapath's ring buffer: what `redirectd -v` prints. */
#pragma once

#include <systemd/sd-event.h>

#include "shared/cleanup.h"

struct datapath;
struct events;

/*
 * Switches events on and prints them to stdout, one line each: NEW and DESTROY with verbosity 1,
 * from 2 on also sampled packets. They are switched off again by events_free().
 */
int events_new(sd_event *event, struct datapath *d, int verbosity, struct events **ret);
struct events *events_free(struct events *e); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct events, events_free)
