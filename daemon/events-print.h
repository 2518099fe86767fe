/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `redirectd -v` prints: a line an event. */
#pragma once

#include "shared/cleanup.h"

struct events;
struct events_print;

/* Prints NEW and DESTROY to stdout with verbosity 1, from 2 on also sampled packets. */
int events_print_new(struct events *events, int verbosity, struct events_print **ret);
struct events_print *events_print_free(struct events_print *p); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct events_print, events_print_free)
