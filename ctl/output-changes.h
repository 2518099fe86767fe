/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What changes, or would: lines for people. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "ctl/failure.h"

/* Writes the array `changes` of an answer, a line or two a change: `+ RULE`, `- RULE`, `~ RULE`. */
enum exit_code output_changes(const json_t *answer, FILE *out, struct failure *f);
/* How long runtime rules last. */
void output_runtime_note(FILE *out);
