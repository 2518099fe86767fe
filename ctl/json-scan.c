/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON text in place: see json-scan.h. */
#include "ctl/json-scan.h"

#include <string.h>

#define NUMBER_DIGITS 19 /* always fit 64 bits */

bool json_text_is(const struct json_text *t, const char *text)
{
	return strlen(text) == t->length && memcmp(t->at, text, t->length) == 0;
}

static void skip_space(struct json_scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || (*s->at >= '\t' && *s->at <= '\r')))
		s->at++;
}

static inline bool take(struct json_scan *s, char c)
{
	if (s->at < s->end && *s->at <= ' ')
		skip_space(s);
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

static bool take_word(struct json_scan *s, const char *word, size_t length)
{
	if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length) != 0)
		return false;
	s->at += length;
	return true;
}

bool json_scan_string(struct json_scan *s, void *to)
{
	struct json_text *t = to;
	const char *p;

	if (!take(s, '"'))
		return false;
	for (p = s->at; p < s->end && *p != '"'; p++)
		if (*p == '\\' && ++p == s->end)
			return false;
	if (p == s->end)
		return false;
	*t = (struct json_text){s->at, (size_t)(p - s->at)};
	s->at = p + 1;
	return true;
}

bool json_scan_number(struct json_scan *s, void *to)
{
	uint64_t n = 0;
	const char *p;

	skip_space(s);
	for (p = s->at; p < s->end && *p >= '0' && *p <= '9'; p++)
		n = 10 * n + (uint64_t)(*p - '0');
	if (p == s->at || p - s->at > NUMBER_DIGITS ||
	    (p < s->end && (*p == '.' || *p == 'e' || *p == 'E')))
		return false;
	s->at = p;
	*(uint64_t *)to = n;
	return true;
}

bool json_scan_bool(struct json_scan *s, void *to)
{
	skip_space(s);
	*(bool *)to = s->at < s->end && *s->at == 't';
	return take_word(s, "true", 4) || take_word(s, "false", 5);
}

/* Behind an object or array, from its opening bracket on. */
static bool skip_nested(struct json_scan *s)
{
	struct json_text string;
	unsigned depth = 0;

	while (s->at < s->end) {
		switch (*s->at) {
		case '"':
			if (!json_scan_string(s, &string))
				return false;
			continue;
		case '{':
		case '[':
			depth++;
			break;
		case '}':
		case ']':
			depth--;
			break;
		}
		s->at++;
		if (depth == 0)
			return true;
	}
	return false;
}

bool json_scan_any(struct json_scan *s, void *to)
{
	struct json_text *t = to, string;
	const char *begin;
	bool done;

	skip_space(s);
	begin = s->at;
	if (begin == s->end)
		return false;
	if (*begin == '"') {
		done = json_scan_string(s, &string);
	} else if (*begin == '{' || *begin == '[') {
		done = skip_nested(s);
	} else {
		while (s->at < s->end && !memchr(",]} \t\r\n", *s->at, 7))
			s->at++;
		done = s->at > begin;
	}
	*t = (struct json_text){begin, (size_t)(s->at - begin)};
	return done;
}

/* The member of that name, most likely the one that comes next. */
static size_t find_member(const struct json_member *members, size_t n, size_t likely,
			  const struct json_text *name)
{
	for (size_t i = 0; i < n; i++, likely++) {
		const struct json_text *t = &members[likely % n].name;

		if (t->length == name->length && memcmp(t->at, name->at, t->length) == 0)
			return likely % n;
	}
	return n;
}

bool json_scan_object(struct json_scan *s, const struct json_member *members, size_t n_members,
		      void *to, unsigned *ret_seen)
{
	struct json_text name, unknown;
	size_t likely = 0, i;

	*ret_seen = 0;
	if (!take(s, '{'))
		return false;
	if (take(s, '}'))
		return true;
	do {
		if (!json_scan_string(s, &name) || !take(s, ':'))
			return false;
		i = find_member(members, n_members, likely, &name);
		if (i < n_members ? !members[i].read(s, (char *)to + members[i].offset)
				  : !json_scan_any(s, &unknown))
			return false;
		if (i < n_members) {
			*ret_seen |= 1U << i;
			likely = i + 1;
		}
	} while (take(s, ','));
	return take(s, '}');
}

bool json_scan_array(struct json_scan *s, bool (*element)(struct json_scan *s, void *userdata),
		     void *userdata)
{
	if (!take(s, '['))
		return false;
	if (take(s, ']'))
		return true;
	do
		if (!element(s, userdata))
			return false;
	while (take(s, ','));
	return take(s, ']');
}

bool json_scan_end(struct json_scan *s)
{
	skip_space(s);
	return s->at == s->end;
}
