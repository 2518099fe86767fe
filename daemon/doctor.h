/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What may be wrong with the host, seen from here: with the daemon's rules, its programs, its
 * network namespace and its privileges. Everything that needs none of these is looked at by the
 * client (ctl/doctor.c). Only looks.
 */
#pragma once

#include "shared/findings.h"

struct attach;
struct config;
struct links;
struct ruleset;

struct doctor {
	const struct ruleset *rules;
	const struct config *config;
	const struct links *links;
	const struct attach *attach;
};

/* Runs every check; the caller clears `ret`. */
void doctor_run(const struct doctor *d, struct findings *ret);
