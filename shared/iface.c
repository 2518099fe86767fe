/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of network interfaces. */
#include "shared/iface.h"

#include <net/if.h>
#include <string.h>

#include "shared/utf8.h"

/* No interface can be called so (`/`, `:`, white space), or the grammar gives it a meaning. */
static const char forbidden[] = "/:,#*\"' \t\r\n\v\f";

const char *iface_name_problem(const char *name, size_t length)
{
	if (length == 0)
		return "is empty";
	if (length >= IF_NAMESIZE)
		return "is longer than 15 bytes";
	if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
		return "is a name of folders";
	if (utf8_find_invalid(name, length) != length)
		return "is not UTF-8";
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c < 0x20 || c == 0x7f || strchr(forbidden, c))
			return "has a character that interface names cannot have";
	}
	return NULL;
}
