/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client of redirectd in C: prints the rules, counts the flows of each, and shows what an error
 * looks like.
 *
 *     cc -o example example.c $(pkg-config --cflags --libs libredirectd)
 *     ./example
 */
#include <inttypes.h>
#include <redirectd.h>
#include <stdio.h>

/* One part of a stream of flows; userdata is the number so far. */
static int count_flows(void *userdata, json_t *part)
{
	*(size_t *)userdata += json_array_size(json_object_get(part, "flows"));
	return 0;
}

static int print_rule(struct redirectd *r, const json_t *rule)
{
	json_t *parameters = json_object();
	char id[24];
	size_t flows = 0;
	int code;

	snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT,
		 json_integer_value(json_object_get(rule, "id")));
	json_object_set_new(parameters, "rule", json_string(id));
	code = redirectd_stream(r, "io.redirectd.Conntrack", parameters, count_flows, &flows);
	json_decref(parameters);
	if (code == REDIRECTD_DONE)
		printf("%s: %zu flows\n", json_string_value(json_object_get(rule, "rule")), flows);
	return code;
}

static int print_rules(struct redirectd *r)
{
	json_t *answer = NULL, *rule;
	int code = redirectd_call(r, "io.redirectd.List", NULL, &answer);
	size_t i;

	json_array_foreach (json_object_get(answer, "rules"), i, rule) {
		code = print_rule(r, rule);
		if (code != REDIRECTD_DONE)
			break;
	}
	json_decref(answer);
	return code;
}

/* What is wrong in a rule comes with its place. */
static void show_error(struct redirectd *r)
{
	json_t *parameters = json_pack("{s:s, s:b}", "rule", "tcp 1 too 2", "dryRun", 1);
	const json_t *item;

	if (redirectd_call(r, "io.redirectd.Add", parameters, NULL) == REDIRECTD_INVALID) {
		item = json_array_get(json_object_get(redirectd_error_parameters(r), "diagnostics"),
				      0);
		printf("%s: %s, column %d\n", redirectd_error_name(r), redirectd_message(r),
		       (int)json_integer_value(json_object_get(item, "column")));
	}
	json_decref(parameters);
}

int main(void)
{
	struct redirectd *r;
	int code = redirectd_open(NULL, &r);

	if (code == REDIRECTD_DONE)
		code = print_rules(r);
	if (code != REDIRECTD_DONE)
		fprintf(stderr, "example: %s\n", redirectd_message(r));
	else
		show_error(r);
	redirectd_close(r);
	return code;
}
