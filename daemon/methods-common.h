/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the handlers share: reading parameters, answering with the errors of io.redirectd. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/server.h"
#include "shared/diag.h"

/* Of the answers that scripts keep; contract. And how those begin that are written as text. */
#define METHODS_SCHEMA	     1
#define METHODS_SCHEMA_BEGIN "{\"schema\":1,"

enum parameter_type {
	PARAMETER_STRING,  /* const char *, borrowed; NULL: not given */
	PARAMETER_BOOL,	   /* bool; false: not given */
	PARAMETER_PORT,	   /* int32_t, 0..65535; METHODS_NO_PORT: not given */
	PARAMETER_SECONDS, /* uint32_t, 1..METHODS_SECONDS_MAX; 0: not given */
	PARAMETER_COUNT,   /* uint32_t, 1 or more; 0: not given */
	PARAMETER_ARRAY,   /* json_t *, borrowed; NULL: not given */
};

#define METHODS_NO_PORT	    (-1)
#define METHODS_SECONDS_MAX 86400

struct changes;

struct parameter {
	const char *name;
	enum parameter_type type;
	bool required;
	size_t offset; /* in the structure that is filled in */
};

/*
 * Fills in *ret by `table` (it ends with a NULL name; NULL: no parameters at all). Null counts as
 * not given. Returns true; or false when the call has been answered with InvalidParameter, naming
 * what is unknown, missing or of the wrong type: the handler then returns *ret_answer.
 */
bool methods_read_parameters(struct call *call, json_t *given, const struct parameter *table,
			     void *ret, int *ret_answer);

int methods_invalid_parameter(struct call *call, const char *name);
int methods_no_such_rule(struct call *call, const char *selector);
/*
 * Answers with what a refused change is: InvalidRule, Conflict or Failed by the diag, or by
 * `error` (negative errno) when the diag is empty.
 */
int methods_refuse(struct call *call, int error, const struct diag *diag);
/* The same for counters that cannot be read. */
int methods_refuse_counters(struct call *call, int error);

/* methods-changes.c: the array `changes` of the answers; a new reference, NULL: out of memory. */
json_t *methods_changes_pack(const struct changes *c);
