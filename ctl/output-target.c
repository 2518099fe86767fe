/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/output-target.h"

#include <stdio.h>
#include <string.h>

const char *output_target(const json_t *target, char buffer[static OUTPUT_TARGET_LEN])
{
	const char *address = json_string_value(json_object_get(target, "address"));
	const json_t *ports = json_object_get(target, "ports");
	json_int_t first = json_integer_value(json_array_get(ports, 0));
	json_int_t last = json_integer_value(json_array_get(ports, 1));
	char range[32];

	snprintf(range, sizeof(range),
		 first == last ? "%" JSON_INTEGER_FORMAT
			       : "%" JSON_INTEGER_FORMAT "-%" JSON_INTEGER_FORMAT,
		 first, last);
	if (!address)
		address = "";
	snprintf(buffer, OUTPUT_TARGET_LEN, strchr(address, ':') ? "[%s]%s%s" : "%s%s%s", address,
		 *address ? ":" : "", range);
	return buffer;
}
