/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Durations: one table of units for reading and printing. */
#include "shared/duration.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define N_UNITS (sizeof(units) / sizeof(units[0]))

/* From the largest to the smallest, as they stand in a text. */
static const struct {
	const char *suffix;
	uint64_t ms;
} units[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};

static int duration_parse_number(const char **text, uint64_t *ret)
{
	const char *p = *text;
	uint64_t value = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	*text = p;
	*ret = value;
	return 0;
}

/* Index of the unit at *text, looking from `from` on; -EINVAL: none. */
static int duration_parse_unit(const char **text, size_t from)
{
	size_t length = strspn(*text, "abcdefghijklmnopqrstuvwxyz");

	for (size_t i = from; i < N_UNITS; i++) {
		if (strlen(units[i].suffix) != length ||
		    memcmp(units[i].suffix, *text, length) != 0)
			continue;
		*text += length;
		return (int)i;
	}
	return -EINVAL;
}

int duration_parse(const char *text, uint64_t *ret_ms)
{
	uint64_t total = 0, value;
	size_t from = 0;
	int r;

	do {
		r = duration_parse_number(&text, &value);
		if (r < 0)
			return r;
		r = duration_parse_unit(&text, from);
		if (r < 0)
			return r;
		from = (size_t)r + 1;
		if (__builtin_mul_overflow(value, units[r].ms, &value) ||
		    __builtin_add_overflow(total, value, &total))
			return -ERANGE;
	} while (*text);
	*ret_ms = total;
	return 0;
}

const char *duration_format(uint64_t ms, char buffer[static DURATION_STRLEN])
{
	size_t used = 0;

	if (ms == 0)
		return strcpy(buffer, "0s");
	for (size_t i = 0; i < N_UNITS; i++) {
		uint64_t n = ms / units[i].ms;

		if (n == 0)
			continue;
		ms %= units[i].ms;
		used += (size_t)snprintf(buffer + used, DURATION_STRLEN - used, "%" PRIu64 "%s", n,
					 units[i].suffix);
	}
	return buffer;
}
