/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flows as `conntrack -L` prints them (conntrack-tools 1.4), so that its parsers work. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/*
 * Writes one line for a flow object of the contract. Returns 0, or -EBADMSG and writes nothing
 * when `flow` is not one; `error` then says what is missing.
 */
int output_conntrack(const json_t *flow, FILE *out, json_error_t *error);
