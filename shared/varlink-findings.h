/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Findings as JSON: the same in the daemon's answer and in what `doctor` prints. */
#pragma once

#include <jansson.h>

#include "shared/findings.h"

/* An array; a new reference, NULL: out of memory. */
json_t *varlink_findings_pack(const struct findings *f);
/* Adds those of an array to `f`; what is not understood is left out. */
void varlink_findings_unpack(const json_t *array, struct findings *f);
