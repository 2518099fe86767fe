/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UTF-8 by the table of RFC 3629, 4: no overlong forms, no surrogates, nothing past U+10FFFF. */
#include "shared/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Leading bytes, and the range of the byte that follows; all others are 80..BF. */
static const struct utf8_form {
	uint8_t lead_first, lead_last, next_first, next_last, length;
} forms[] = {
	{0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
	{0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
	{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

static bool utf8_form_fits(const struct utf8_form *form, const uint8_t *bytes, size_t length)
{
	if (bytes[0] < form->lead_first || bytes[0] > form->lead_last || form->length > length)
		return false;
	if (form->length > 1 && (bytes[1] < form->next_first || bytes[1] > form->next_last))
		return false;
	for (size_t i = 2; i < form->length; i++)
		if (bytes[i] < 0x80 || bytes[i] > 0xbf)
			return false;
	return true;
}

size_t utf8_character_length(const char *text, size_t length)
{
	if (length == 0)
		return 0;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
		if (utf8_form_fits(&forms[i], (const uint8_t *)text, length))
			return forms[i].length;
	return 0;
}

size_t utf8_find_invalid(const char *text, size_t length)
{
	size_t offset = 0;

	while (offset < length) {
		size_t n = utf8_character_length(text + offset, length - offset);

		if (n == 0)
			break;
		offset += n;
	}
	return offset;
}

static bool utf8_is_control(const char *text, size_t length)
{
	uint8_t first = (uint8_t)text[0];

	if (length == 1)
		return first < 0x20 || first == 0x7f;
	return length == 2 && first == 0xc2 && (uint8_t)text[1] < 0xa0;
}

void utf8_sanitize(char *text, char tab)
{
	size_t left = strlen(text);

	while (left > 0) {
		size_t n = utf8_character_length(text, left);

		if (*text == '\t')
			*text = tab;
		else if (n == 0 || utf8_is_control(text, n))
			memset(text, '?', n == 0 ? 1 : n);
		if (n == 0)
			n = 1;
		text += n;
		left -= n;
	}
}
