/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "shared/varlink-findings.h"

#include "shared/varlink.h"

json_t *varlink_findings_pack(const struct findings *f)
{
	json_t *array = json_array();

	for (size_t i = 0; i < f->n; i++) {
		const struct finding *one = &f->items[i];

		if (json_array_append_new(array, json_pack("{s:s, s:s, s:o, s:o, s:o}", "check",
							   one->check, "severity",
							   finding_severity_name(one->severity),
							   "message", varlink_text(one->message),
							   "command", varlink_text(one->command),
							   "hint", varlink_text(one->hint))) == 0)
			continue;
		json_decref(array);
		return NULL;
	}
	return array;
}

void varlink_findings_unpack(const json_t *array, struct findings *f)
{
	const char *check, *name, *message;

	for (size_t i = 0; i < json_array_size(array); i++) {
		json_t *one = json_array_get(array, i);
		const char *command = json_string_value(json_object_get(one, "command"));
		const char *hint = json_string_value(json_object_get(one, "hint"));
		enum finding_severity severity;

		if (json_unpack(one, "{s:s,s:s,s:s}", "check", &check, "severity", &name, "message",
				&message) < 0 ||
		    finding_severity_parse(name, &severity) < 0)
			continue;
		findings_add(f, check, severity, "%s", message);
		if (command)
			findings_command(f, "%s", command);
		if (hint)
			findings_hint(f, "%s", hint);
	}
}
