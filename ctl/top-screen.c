/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/top-screen.h"

#include <curses.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ctl/output-text.h"

#define BAR_WIDTH   20
#define TREND_WIDTH 20
#define LINE_MAX    512

enum { PAIR_GOOD = 1, PAIR_WARNING, PAIR_BAD };

static bool coloured;

void top_screen_start(bool colours)
{
	coloured = colours && has_colors() && start_color() == OK && use_default_colors() == OK;
	if (!coloured)
		return;
	init_pair(PAIR_GOOD, COLOR_GREEN, -1);
	init_pair(PAIR_WARNING, COLOR_YELLOW, -1);
	init_pair(PAIR_BAD, COLOR_RED, -1);
}

static attr_t colour(short pair)
{
	return coloured ? COLOR_PAIR(pair) : A_NORMAL;
}

void top_format_rate(double rate, char *text, size_t size)
{
	static const char *const units[] = {"", "k", "M", "G", "T"};
	size_t i = 0;

	for (; rate >= 999.5 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		rate /= 1000;
	snprintf(text, size, rate > 0 && rate < 9.95 ? "%.1f%s" : "%.0f%s", rate, units[i]);
}

void top_format_trend(const struct top_trend *t, int width, char *text, size_t size)
{
	static const char *const bars[] = {"\u2581", "\u2582", "\u2583", "\u2584",
					   "\u2585", "\u2586", "\u2587", "\u2588"};
	static const char *const plain[] = {".", ".", ":", ":", "+", "+", "#", "#"};
	const char *const *glyphs = text_is_utf8() ? bars : plain;
	size_t n = t->n < (size_t)width ? t->n : (size_t)width, length = 0;
	const float *values = t->values + (t->n - n);
	float most = 0;

	for (size_t i = 0; i < n; i++)
		most = values[i] > most ? values[i] : most;
	text[0] = '\0';
	for (size_t i = n; i < (size_t)width && length + 1 < size; i++)
		length += (size_t)snprintf(text + length, size - length, " ");
	for (size_t i = 0; i < n && length + 4 < size; i++) {
		size_t level = most > 0 ? (size_t)(values[i] / most * 7 + 0.5f) : 0;

		length += (size_t)snprintf(text + length, size - length, "%s", glyphs[level]);
	}
}

/* A line, cut to the width of the screen. */
static void put(int y, int width, attr_t style, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void put(int y, int width, attr_t style, const char *format, ...)
{
	char text[LINE_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	attron(style);
	mvaddnstr(y, 0, text, (int)text_cut(text, (size_t)width));
	attroff(style);
}

static void draw_title(const struct top_data *d, const char *view, bool paused, int width)
{
	char span[TEXT_SPAN_LEN];

	if (!d->sampled) {
		put(0, width, A_BOLD, "redirectd");
		return;
	}
	put(0, width, A_BOLD, "redirectd %s  up %s  %zu rule%s  [%s]%s", d->version,
	    text_format_span(d->uptime_ms, span), d->n_rules, d->n_rules == 1 ? "" : "s", view,
	    paused ? " (paused)" : "");
}

static void draw_fill(const struct top_data *d, int y, int width)
{
	double fill = d->max ? (double)d->active / (double)d->max : 0;
	int full = (int)(fill * BAR_WIDTH + 0.5);
	char bar[BAR_WIDTH + 1], rate[16], lost[48] = "";
	short pair = fill >= 0.95 ? PAIR_BAD : fill >= 0.8 ? PAIR_WARNING : PAIR_GOOD;

	memset(bar, '-', BAR_WIDTH);
	memset(bar, '#', (size_t)(full > BAR_WIDTH ? BAR_WIDTH : full));
	bar[BAR_WIDTH] = '\0';
	top_format_rate(d->redirected.flow_rate, rate, sizeof(rate));
	if (d->events_lost)
		snprintf(lost, sizeof(lost), ", %" PRIu64 " events lost", d->events_lost);
	put(y, width, colour(pair), "flows    [%s] %.1f%%  %" PRIu64 " of %" PRIu64 ", %s new/s%s",
	    bar, 100 * fill, d->active, d->max, rate, lost);
}

static void draw_traffic(const struct top_data *d, int y, int width)
{
	char packets[16], bytes[TEXT_BYTES_LEN], trend[TREND_WIDTH * 4];

	top_format_rate(d->redirected.packet_rate, packets, sizeof(packets));
	top_format_trend(&d->trend, TREND_WIDTH, trend, sizeof(trend));
	put(y, width, A_NORMAL, "traffic  [%s] %s packets/s, %s/s redirected", trend, packets,
	    text_format_bytes((uint64_t)d->redirected.byte_rate, bytes));
}

static void draw_health(const struct top_data *d, int y, int width)
{
	char rate[16], seen[16];

	if (d->problem) {
		put(y, width, A_BOLD | colour(PAIR_BAD), "trying again: %s", d->problem);
		return;
	}
	top_format_rate(d->drop_rate, rate, sizeof(rate));
	top_format_rate(d->seen.packet_rate, seen, sizeof(seen));
	put(y, width, d->drop_rate > 0 ? colour(PAIR_BAD) : A_NORMAL,
	    "health   %s packets/s seen, %s dropped/s, %" PRIu64 " dropped so far", seen, rate,
	    d->dropped);
}

void top_screen_draw_head(const struct top_data *d, const char *view, bool paused, int height,
			  int width)
{
	if (height > 0)
		draw_title(d, view, paused, width);
	/* The least room is for what is wrong. */
	if (height > 1)
		draw_health(d, height < TOP_HEAD_LINES ? 1 : 3, width);
	if (height >= TOP_HEAD_LINES) {
		draw_fill(d, 1, width);
		draw_traffic(d, 2, width);
	}
}

void top_screen_draw_help(const struct top_key_help *keys, int height, int width)
{
	int y = 0;

	if (height > 2)
		put(y++, width, A_BOLD, "keys");
	for (; keys->keys && y < height; keys++)
		put(y++, width, A_NORMAL, "  %-16s %s", keys->keys, keys->help);
}

void top_screen_draw_foot(const char *text, int y, int width)
{
	put(y, width, A_DIM, "%s", text);
}
