/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads JSON text in place, member by member, without a tree of values: for replies with very many
 * objects. Members may stand in any order, and unknown ones are skipped. Strings are given as they
 * stand, with their escapes. Not a check of the text: whoever forwards it trusts who wrote it.
 *
 * Every function returns false where the text is something else than asked for; `at` is then
 * anywhere.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_scan {
	const char *at, *end;
};

struct json_text {
	const char *at; /* borrowed; no NUL at its end */
	size_t length;
};

bool json_text_is(const struct json_text *t, const char *text);

/* A member that is looked for, and how its value is read into `to` + `offset`. */
struct json_member {
	struct json_text name;
	bool (*read)(struct json_scan *s, void *to);
	size_t offset;
};
#define JSON_MEMBER(name, read, type, member)                                                      \
	{                                                                                          \
		{name, sizeof(name) - 1}, read, offsetof(type, member)                             \
	}

/* Values; the type of `to` is said behind each. */
bool json_scan_string(struct json_scan *s, void *to); /* struct json_text */
bool json_scan_number(struct json_scan *s, void *to); /* uint64_t, no fractions */
bool json_scan_bool(struct json_scan *s, void *to);   /* bool */
bool json_scan_any(struct json_scan *s, void *to);    /* struct json_text, the whole value */

/* An object. *ret_seen gets a bit for each of the members that was there. */
bool json_scan_object(struct json_scan *s, const struct json_member *members, size_t n_members,
		      void *to, unsigned *ret_seen);
/* An array, whose elements `element` reads. */
bool json_scan_array(struct json_scan *s, bool (*element)(struct json_scan *s, void *userdata),
		     void *userdata);
/* Nothing but white space is left. */
bool json_scan_end(struct json_scan *s);
