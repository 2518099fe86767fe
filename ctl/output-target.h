/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Targets of rules, from the daemon's JSON. */
#pragma once

#include <jansson.h>

#define OUTPUT_TARGET_LEN 64

/* As the rule has it: "80", "10.0.0.1:80", "[2001:db8::1]:80-89". */
const char *output_target(const json_t *target, char buffer[static OUTPUT_TARGET_LEN]);
