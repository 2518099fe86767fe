/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the datapath's map `sources`, by which masqueraded packets get their source, equal to what
 * the host's addresses make of it.
 */
#pragma once

#include "shared/cleanup.h"

struct datapath;
struct sources;

/* Takes over what a former daemon has left in the map. */
int sources_new(struct datapath *d, struct sources **ret);
struct sources *sources_free(struct sources *s); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct sources, sources_free)

/* Looks at all addresses anew. What is new is written before what is gone is deleted. */
int sources_sync(struct sources *s);
