/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small things that text for people is made of: numbers, durations, safe strings, colours. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TEXT_BYTES_LEN 24
#define TEXT_SPAN_LEN  48

/* "0 B", "1023 B", "1.5 KiB", "20 MiB": three digits at the most before the unit, 1023 apart. */
const char *text_format_bytes(uint64_t bytes, char buffer[static TEXT_BYTES_LEN]);
/* "350 ms", "12 s", "2 h 4 min", "3 d 1 h": the two greatest units. */
const char *text_format_span(uint64_t milliseconds, char buffer[static TEXT_SPAN_LEN]);

/*
 * Writes a string that came from somewhere else: control characters (which could drive the
 * terminal) and bytes that are not UTF-8 become `?`.
 */
void text_write_safe(const char *s, size_t length, FILE *out);
/* Places on the screen that text_write_safe() takes for `s`, counting one a character. */
size_t text_width(const char *s);
/* Bytes of `s` that fill at most `width` places. */
size_t text_cut(const char *s, size_t width);

enum text_style {
	TEXT_PLAIN,
	TEXT_BOLD,
	TEXT_DIM,
	TEXT_RED,
	TEXT_GREEN,
	TEXT_YELLOW,
};

/* Is `out` a terminal whose user wants colours (NO_COLOR, TERM)? */
bool text_wants_colour(FILE *out);
/* Escape sequences, or "" when `out` is no terminal or NO_COLOR is set. */
const char *text_style_begin(FILE *out, enum text_style style);
const char *text_style_end(FILE *out, enum text_style style);

/* A line of a block on stdout: a label, and a text that is written safely. */
void text_print_line(const char *label, const char *text);

/* Does the locale write UTF-8? */
bool text_is_utf8(void);

/* Columns of the terminal behind `out`; SIZE_MAX when it is none: nothing is cut then. */
size_t text_columns(FILE *out);
