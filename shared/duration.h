/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Durations as people write them: `500ms`, `30s`, `5m`, `2h4m`, `1d`. Units from the largest to
 * the smallest, each at most once; a number always has its unit.
 */
#pragma once

#include <stdint.h>

#define DURATION_STRLEN 40

/* Milliseconds. Returns 0; -EINVAL: not a duration; -ERANGE: does not fit. */
int duration_parse(const char *text, uint64_t *ret_ms);

/* The shortest text that duration_parse() reads back: "2h4m", "1m30s", "0s". */
const char *duration_format(uint64_t ms, char buffer[static DURATION_STRLEN]);
