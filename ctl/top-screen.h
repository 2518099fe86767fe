/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `top` draws around its tables: the head with totals, the help, the line of keys. */
#pragma once

#include <stdbool.h>

#include "ctl/top-data.h"

#define TOP_HEAD_LINES 4

/* "1.2k": three digits at the most. */
void top_format_rate(double rate, char *text, size_t size);
/* The last `width` values of a trend as bars, the greatest one full. */
void top_format_trend(const struct top_trend *t, int width, char *text, size_t size);

/* Prepares colours; without them (NO_COLOR, a terminal that has none) nothing is lost. */
void top_screen_start(bool colours);
/* Up to `height` lines from the top; `view` is the name of the table below. */
void top_screen_draw_head(const struct top_data *d, const char *view, bool paused, int height,
			  int width);
/* A table of keys over the whole screen. */
struct top_key_help {
	const char *keys, *help;
};
void top_screen_draw_help(const struct top_key_help *keys, int height, int width);
/* The last line. */
void top_screen_draw_foot(const char *text, int y, int width);
