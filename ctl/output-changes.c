/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes as lines; signs and colours are those of diff(1) and of terraform. */
#include "ctl/output-changes.h"

#include <string.h>

#include "ctl/output-text.h"

static const struct kind {
	const char *name;
	char sign;
	enum text_style style;
	const char *rule; /* the member to show */
} kinds[] = {
	{"add", '+', TEXT_GREEN, "after"},
	{"remove", '-', TEXT_RED, "before"},
	{"change", '~', TEXT_YELLOW, "after"},
};

static const struct kind *find_kind(const json_t *change)
{
	const char *name = json_string_value(json_object_get(change, "change"));

	for (size_t i = 0; name && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	return NULL;
}

/* A line below the rule. */
static void print_more(const char *label, const char *text, FILE *out)
{
	fprintf(out, "  %s%s ", text_style_begin(out, TEXT_DIM), label);
	text_write_safe(text, strlen(text), out);
	fprintf(out, "%s\n", text_style_end(out, TEXT_DIM));
}

static enum exit_code print_change(const json_t *change, FILE *out, struct failure *f)
{
	const char *before = json_string_value(json_object_get(change, "before"));
	const char *note = json_string_value(json_object_get(change, "note"));
	const struct kind *kind = find_kind(change);
	const char *rule = kind ? json_string_value(json_object_get(change, kind->rule)) : NULL;

	if (!rule)
		return failure_set(f, CTL_FAILED, "the daemon's answer is not understood");
	fprintf(out, "%s%c ", text_style_begin(out, kind->style), kind->sign);
	text_write_safe(rule, strlen(rule), out);
	fprintf(out, "%s\n", text_style_end(out, kind->style));
	if (kind->sign == '~' && before)
		print_more("was", before, out);
	if (note)
		print_more("note:", note, out);
	return CTL_DONE;
}

enum exit_code output_changes(const json_t *answer, FILE *out, struct failure *f)
{
	const json_t *changes = json_object_get(answer, "changes");
	enum exit_code code = CTL_DONE;

	if (!json_is_array(changes))
		return failure_set(f, CTL_FAILED, "the daemon's answer has no changes");
	for (size_t i = 0; code == CTL_DONE && i < json_array_size(changes); i++)
		code = print_change(json_array_get(changes, i), out, f);
	return code;
}

void output_runtime_note(FILE *out)
{
	fputs("This is a runtime change: it lasts over restarts of the daemon, and is lost when "
	      "the\n"
	      "daemon is stopped and at reboot. To keep it: `redirectctl save`.\n",
	      out);
}
