/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UTF-8 (RFC 3629) in texts of unknown origin: what terminals and JSON may be given. */
#pragma once

#include <stddef.h>

/* Bytes of the well-formed character at `text`, of which `length` bytes exist; 0: not UTF-8. */
size_t utf8_character_length(const char *text, size_t length);

/* Offset of the first byte that is not part of a well-formed character; `length`: none. */
size_t utf8_find_invalid(const char *text, size_t length);

/*
 * Overwrites control characters (C0, DEL, C1) and bytes that are not UTF-8 with `?`, byte by byte,
 * so that columns stay where they are. Tabs become `tab`.
 */
void utf8_sanitize(char *text, char tab);
