/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parameters and errors of the methods: see methods-common.h. */
#include "daemon/methods-common.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/cleanup.h"
#include "shared/rule-json.h"
#include "shared/varlink.h"

static bool parameter_set(const struct parameter *p, const json_t *value, char *to)
{
	json_int_t number = json_integer_value(value);

	switch (p->type) {
	case PARAMETER_STRING:
		*(const char **)(void *)to = json_string_value(value);
		return json_is_string(value);
	case PARAMETER_BOOL:
		*(bool *)(void *)to = json_is_true(value);
		return json_is_boolean(value);
	case PARAMETER_PORT:
		*(int32_t *)(void *)to = (int32_t)number;
		return json_is_integer(value) && number >= 0 && number <= UINT16_MAX;
	case PARAMETER_SECONDS:
		*(uint32_t *)(void *)to = (uint32_t)number;
		return json_is_integer(value) && number >= 1 && number <= METHODS_SECONDS_MAX;
	case PARAMETER_ARRAY:
		*(const json_t **)(void *)to = value;
		return json_is_array(value);
	case PARAMETER_COUNT:
		*(uint32_t *)(void *)to = (uint32_t)number;
		return json_is_integer(value) && number >= 1 && number <= UINT32_MAX;
	}
	return false;
}

/* Nothing given: what the structure says then. */
static void parameter_unset(const struct parameter *p, char *to)
{
	switch (p->type) {
	case PARAMETER_STRING:
		*(const char **)(void *)to = NULL;
		break;
	case PARAMETER_BOOL:
		*(bool *)(void *)to = false;
		break;
	case PARAMETER_PORT:
		*(int32_t *)(void *)to = METHODS_NO_PORT;
		break;
	case PARAMETER_SECONDS:
		*(uint32_t *)(void *)to = 0;
		break;
	case PARAMETER_ARRAY:
		*(const json_t **)(void *)to = NULL;
		break;
	case PARAMETER_COUNT:
		*(uint32_t *)(void *)to = 0;
		break;
	}
}

static const struct parameter *parameter_find(const struct parameter *table, const char *name)
{
	for (const struct parameter *p = table; p && p->name; p++)
		if (strcmp(p->name, name) == 0)
			return p;
	return NULL;
}

/* The first parameter that is unknown, missing or wrong; NULL when all are well. */
static const char *parameters_fill(json_t *given, const struct parameter *table, char *ret)
{
	const char *name;
	json_t *value;

	json_object_foreach (given, name, value)
		if (!parameter_find(table, name))
			return name;
	for (const struct parameter *p = table; p && p->name; p++) {
		value = json_object_get(given, p->name);
		if (!value || json_is_null(value)) {
			if (p->required)
				return p->name;
			parameter_unset(p, ret + p->offset);
		} else if (!parameter_set(p, value, ret + p->offset)) {
			return p->name;
		}
	}
	return NULL;
}

bool methods_read_parameters(struct call *call, json_t *given, const struct parameter *table,
			     void *ret, int *ret_answer)
{
	const char *wrong = parameters_fill(given, table, ret);

	if (wrong)
		*ret_answer = methods_invalid_parameter(call, wrong);
	return !wrong;
}

int methods_invalid_parameter(struct call *call, const char *name)
{
	return call_error(call, "org.varlink.service.InvalidParameter",
			  json_pack("{s:s}", "parameter", name));
}

int methods_no_such_rule(struct call *call, const char *selector)
{
	return call_error(call, "io.redirectd.NoSuchRule", json_pack("{s:s}", "rule", selector));
}

/* By exit code of the contract (diag_exit_code()). */
static const char *error_name(int exit_code)
{
	switch (exit_code) {
	case 6:
		return "io.redirectd.InvalidRule";
	case 7:
		return "io.redirectd.Conflict";
	}
	return "io.redirectd.Failed";
}

static int error_exit_code(int error)
{
	switch (error) {
	case -EINVAL:
		return 6;
	case -EEXIST:
		return 7;
	}
	return 1;
}

int methods_refuse(struct call *call, int error, const struct diag *diag)
{
	int code = diag->n_items > 0 ? diag_exit_code(diag) : error_exit_code(error);
	_cleanup_(freep) char *message = diag_summary(diag, error);
	json_t *items;
	int r;

	if (!message)
		return -ENOMEM;
	r = rule_json_pack_diag(diag, &items);
	if (r < 0)
		return r;
	return call_error(
		call, error_name(code),
		json_pack("{s:o, s:o}", "message", varlink_text(message), "diagnostics", items));
}

int methods_refuse_counters(struct call *call, int error)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	diag_add(&diag, DIAG_FAILED, NULL, NULL, "the counters of the datapath cannot be read");
	return methods_refuse(call, error, &diag);
}
