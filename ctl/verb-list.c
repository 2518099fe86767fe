/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `list` and `show`: rules as a table, as rules, as a block, as JSON. */
#include <inttypes.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/output-table.h"
#include "ctl/output-target.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"

/* What the answers say of one rule; strings are borrowed from the JSON. */
struct rule_row {
	json_int_t id;
	const char *name, *rule, *origin, *source;
	const char *configured; /* NULL: as in the file, or in none */
	int enabled;
	json_int_t packets, bytes, flows, active, refused;
	const json_t *targets;
	bool limited;
};

static bool is_limited(const json_t *limits)
{
	return json_is_object(json_object_get(limits, "rule")) ||
	       json_is_object(json_object_get(limits, "source"));
}

static enum exit_code unpack_rule(const json_t *json, struct rule_row *ret, struct failure *f)
{
	json_error_t error;

	*ret = (struct rule_row){0};
	if (json_unpack_ex((json_t *)json, &error, 0, "{s:I,s:s,s:s,s:s,s:b,s:{s:I,s:I,s:I,s:I}}",
			   "id", &ret->id, "rule", &ret->rule, "origin", &ret->origin, "source",
			   &ret->source, "enabled", &ret->enabled, "counters", "packets",
			   &ret->packets, "bytes", &ret->bytes, "flows", &ret->flows, "active",
			   &ret->active) < 0)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood: %s",
				   error.text);
	/* These may be null. */
	ret->name = json_string_value(json_object_get(json, "name"));
	ret->configured = json_string_value(json_object_get(json, "configured"));
	ret->refused =
		json_integer_value(json_object_get(json_object_get(json, "counters"), "refused"));
	ret->targets = json_object_get(json, "targets");
	ret->limited = is_limited(json_object_get(json, "limits"));
	return CTL_DONE;
}

static void add_rule_row(struct table *t, const struct rule_row *r)
{
	char id[24], active[24], flows[24], packets[24], bytes[TEXT_BYTES_LEN], origin[40];

	snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT, r->id);
	snprintf(active, sizeof(active), "%" JSON_INTEGER_FORMAT, r->active);
	snprintf(flows, sizeof(flows), "%" JSON_INTEGER_FORMAT, r->flows);
	snprintf(packets, sizeof(packets), "%" JSON_INTEGER_FORMAT, r->packets);
	/* A rule that is not as its file has it bears the sign that `diff` gives it. */
	snprintf(origin, sizeof(origin), "%s%s", r->origin, r->configured ? " ~" : "");
	table_add_row(t, r->enabled ? TEXT_PLAIN : TEXT_DIM,
		      (const char *const[]){
			      id,
			      r->name,
			      r->rule,
			      origin,
			      r->enabled ? "on" : "off",
			      active,
			      flows,
			      packets,
			      text_format_bytes((uint64_t)r->bytes, bytes),
		      });
}

static enum exit_code print_table(const json_t *rules, struct failure *f)
{
	static const struct table_column columns[] = {
		{.title = "ID", .right = true},
		{.title = "NAME"},
		{.title = "RULE", .flexible = true},
		{.title = "ORIGIN"},
		{.title = "STATE"},
		{.title = "ACTIVE", .right = true},
		{.title = "FLOWS", .right = true},
		{.title = "PACKETS", .right = true},
		{.title = "BYTES", .right = true},
	};
	_cleanup_(table_freep) struct table *t =
		table_new(columns, sizeof(columns) / sizeof(columns[0]));
	struct rule_row row;
	size_t i;

	for (i = 0; i < json_array_size(rules); i++) {
		if (unpack_rule(json_array_get(rules, i), &row, f) != CTL_DONE)
			return f->code;
		add_rule_row(t, &row);
	}
	table_print(t, text_columns(stdout), stdout);
	return CTL_DONE;
}

static enum exit_code print_rules(const json_t *rules, struct failure *f)
{
	struct rule_row row;
	size_t i;

	for (i = 0; i < json_array_size(rules); i++) {
		if (unpack_rule(json_array_get(rules, i), &row, f) != CTL_DONE)
			return f->code;
		text_write_safe(row.rule, strlen(row.rule), stdout);
		fputc('\n', stdout);
	}
	return CTL_DONE;
}

static enum exit_code print_answer(const struct options *o, const json_t *answer,
				   enum output_format format, struct failure *f)
{
	const json_t *rules = json_object_get(answer, "rules");

	if (!json_is_array(rules))
		return failure_set(f, CTL_FAILED, "the daemon's answer has no rules");
	if (format == OUTPUT_JSON) {
		output_json(answer, stdout);
		return CTL_DONE;
	}
	if (format == OUTPUT_RULES)
		return print_rules(rules, f);
	if (json_array_size(rules) > 0)
		return print_table(rules, f);
	if (!options_has(o, OPTION_QUIET))
		fputs("no rules: add one with `redirectctl add`, or in redirectd.conf\n", stderr);
	return CTL_DONE;
}

enum exit_code verb_list(const struct options *o, struct failure *f)
{
	enum output_format format;
	json_t *answer = NULL;
	enum exit_code code;

	code = options_output(o, verb_formats(o->verb), &format, f);
	if (code == CTL_DONE)
		code = client_call(options_socket(o), "io.redirectd.List", NULL, &answer, f);
	if (code == CTL_DONE)
		code = print_answer(o, answer, format, f);
	json_decref(answer);
	return code;
}

static json_int_t weight_of(const json_t *target)
{
	return json_integer_value(json_object_get(target, "weight"));
}

/* One of several targets: its share of new flows, and what its flows come to. */
static void print_target(const json_t *target, json_int_t all_weights)
{
	const json_t *counters = json_object_get(target, "counters");
	json_int_t bytes = json_integer_value(json_object_get(counters, "bytes"));
	char name[OUTPUT_TARGET_LEN], share[48] = "no new flows", size[TEXT_BYTES_LEN], text[256];

	if (weight_of(target) > 0)
		snprintf(share, sizeof(share), "%.3g %% of new flows",
			 100.0 * (double)weight_of(target) / (double)all_weights);
	snprintf(text, sizeof(text),
		 "%s: %s; %" JSON_INTEGER_FORMAT " active, %" JSON_INTEGER_FORMAT
		 " so far, %" JSON_INTEGER_FORMAT " packets, %s",
		 output_target(target, name), share,
		 json_integer_value(json_object_get(counters, "active")),
		 json_integer_value(json_object_get(counters, "flows")),
		 json_integer_value(json_object_get(counters, "packets")),
		 text_format_bytes((uint64_t)bytes, size));
	text_print_line("target", text);
}

static void print_targets(const json_t *targets)
{
	json_int_t all_weights = 0;

	for (size_t i = 0; i < json_array_size(targets); i++)
		all_weights += weight_of(json_array_get(targets, i));
	for (size_t i = 0; i < json_array_size(targets); i++)
		print_target(json_array_get(targets, i), all_weights);
}

static void print_block(const struct rule_row *r)
{
	char bytes[TEXT_BYTES_LEN], text[128];

	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, r->id);
	text_print_line("id", text);
	text_print_line("name", r->name && *r->name ? r->name : "-");
	text_print_line("rule", r->rule);
	text_print_line("state", r->enabled ? "enabled" : "disabled");
	text_print_line("origin", r->origin);
	text_print_line("source", r->source);
	if (r->configured)
		text_print_line("in the file", r->configured);
	snprintf(text, sizeof(text),
		 "%" JSON_INTEGER_FORMAT " active, %" JSON_INTEGER_FORMAT " so far", r->active,
		 r->flows);
	text_print_line("flows", text);
	snprintf(text, sizeof(text),
		 "%" JSON_INTEGER_FORMAT " packets, %s (%" JSON_INTEGER_FORMAT
		 " bytes), both directions",
		 r->packets, text_format_bytes((uint64_t)r->bytes, bytes), r->bytes);
	text_print_line("traffic", text);
	if (r->limited || r->refused) {
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT " new flows, by its limits",
			 r->refused);
		text_print_line("refused", text);
	}
	/* The figures of a single one are those above. */
	if (json_array_size(r->targets) > 1)
		print_targets(r->targets);
}

enum exit_code verb_show(const struct options *o, struct failure *f)
{
	json_t *parameters = json_pack("{s:s}", "rule", o->operands[0]), *answer = NULL;
	struct rule_row row;
	enum exit_code code;

	if (!parameters)
		return failure_set(f, CTL_NOT_FOUND, "no rule of that name: it is not UTF-8");
	code = client_call(options_socket(o), "io.redirectd.Show", parameters, &answer, f);
	if (code == CTL_DONE && options_has(o, OPTION_JSON))
		output_json(answer, stdout);
	else if (code == CTL_DONE) {
		code = unpack_rule(json_object_get(answer, "rule"), &row, f);
		if (code == CTL_DONE)
			print_block(&row);
	}
	json_decref(parameters);
	json_decref(answer);
	return code;
}
