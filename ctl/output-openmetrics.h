/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counters as OpenMetrics 1.0 text, which Prometheus scrapes. Only types that the older text format
 * of Prometheus has as well, so that its textfile collector takes the same text.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* Writes the whole text from the answers of Stats, List and Status, all borrowed. */
void output_openmetrics(const json_t *stats, const json_t *list, const json_t *status, FILE *out);
