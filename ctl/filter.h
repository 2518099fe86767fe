/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options that choose flows (OPTIONS_TUPLE, OPTIONS_FILTER) as parameters of methods. */
#pragma once

#include <jansson.h>

#include "ctl/failure.h"

struct options;

/* The states of flows, as users write them. */
#define FILTER_STATE_COUNT 11
extern const char *const filter_states[FILTER_STATE_COUNT];

/* Adds what the options ask for to `parameters`; CTL_USAGE when one makes no sense. */
enum exit_code filter_make(const struct options *o, json_t *parameters, struct failure *f);
/* The same for one flow, for which all of OPTIONS_TUPLE are needed. */
enum exit_code filter_make_tuple(const struct options *o, json_t *parameters, struct failure *f);
