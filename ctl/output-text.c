/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text for people. Relies on the locale that main has set for what a terminal can show. */
#include "ctl/output-text.h"

#include <inttypes.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

const char *text_format_bytes(uint64_t bytes, char buffer[static TEXT_BYTES_LEN])
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t i = 0;

	if (bytes < 1024) {
		snprintf(buffer, TEXT_BYTES_LEN, "%" PRIu64 " B", bytes);
		return buffer;
	}
	/* 1023.95 would print as 1024.0: go on to the next unit before that. */
	for (value /= 1024; value >= 1023.5 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		value /= 1024;
	snprintf(buffer, TEXT_BYTES_LEN, value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[i]);
	return buffer;
}

const char *text_format_span(uint64_t milliseconds, char buffer[static TEXT_SPAN_LEN])
{
	static const struct {
		uint64_t seconds;
		const char *unit;
	} units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
	const size_t last = sizeof(units) / sizeof(units[0]) - 1;
	uint64_t seconds = milliseconds / 1000, rest;
	size_t i = 0;

	if (seconds == 0) {
		snprintf(buffer, TEXT_SPAN_LEN, "%" PRIu64 " ms", milliseconds);
		return buffer;
	}
	while (seconds < units[i].seconds)
		i++;
	rest = i < last ? seconds % units[i].seconds / units[i + 1].seconds : 0;
	if (rest > 0)
		snprintf(buffer, TEXT_SPAN_LEN, "%" PRIu64 " %s %" PRIu64 " %s",
			 seconds / units[i].seconds, units[i].unit, rest, units[i + 1].unit);
	else
		snprintf(buffer, TEXT_SPAN_LEN, "%" PRIu64 " %s", seconds / units[i].seconds,
			 units[i].unit);
	return buffer;
}

/*
 * Length of the UTF-8 character at `s`, of at most `length` bytes; 0 when it is none that may be
 * shown: malformed, or a control character (C0, DEL, C1).
 */
static size_t character_length(const char *s, size_t length)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t n, i;

	if (u[0] < 0x80)
		return u[0] >= 0x20 && u[0] != 0x7f ? 1 : 0;
	n = u[0] >= 0xf0 && u[0] <= 0xf4 ? 4 : u[0] >= 0xe0 && u[0] < 0xf0 ? 3 : 2;
	if (u[0] < 0xc2 || u[0] > 0xf4 || n > length)
		return 0;
	for (i = 1; i < n; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	return u[0] == 0xc2 && u[1] < 0xa0 ? 0 : n;
}

void text_write_safe(const char *s, size_t length, FILE *out)
{
	size_t i = 0;

	while (i < length) {
		size_t n = character_length(s + i, length - i);

		if (n == 0)
			fputc('?', out);
		else
			fwrite(s + i, 1, n, out);
		i += n ? n : 1;
	}
}

size_t text_cut(const char *s, size_t width)
{
	size_t length = strlen(s), i = 0;

	for (; width > 0 && i < length; width--) {
		size_t n = character_length(s + i, length - i);

		i += n ? n : 1;
	}
	return i;
}

size_t text_width(const char *s)
{
	size_t width = 0, length = strlen(s), i = 0;

	for (; i < length; width++) {
		size_t n = character_length(s + i, length - i);

		i += n ? n : 1;
	}
	return width;
}

bool text_wants_colour(FILE *out)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	if (no_color && *no_color) /* no-color.org: set and not empty */
		return false;
	if (term && strcmp(term, "dumb") == 0)
		return false;
	return isatty(fileno(out));
}

const char *text_style_begin(FILE *out, enum text_style style)
{
	static const char *const sequences[] = {
		[TEXT_PLAIN] = "",	 [TEXT_BOLD] = "\033[1m",   [TEXT_DIM] = "\033[2m",
		[TEXT_RED] = "\033[31m", [TEXT_GREEN] = "\033[32m", [TEXT_YELLOW] = "\033[33m",
	};

	return text_wants_colour(out) ? sequences[style] : "";
}

const char *text_style_end(FILE *out, enum text_style style)
{
	return style != TEXT_PLAIN && text_wants_colour(out) ? "\033[0m" : "";
}

void text_print_line(const char *label, const char *text)
{
	printf("%s%-12s%s ", text_style_begin(stdout, TEXT_BOLD), label,
	       text_style_end(stdout, TEXT_BOLD));
	text_write_safe(text, strlen(text), stdout);
	putchar('\n');
}

bool text_is_utf8(void)
{
	return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

size_t text_columns(FILE *out)
{
	struct winsize size;

	if (ioctl(fileno(out), TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
		return SIZE_MAX;
	return size.ws_col;
}
