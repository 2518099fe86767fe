/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/top-table.h"

#include <curses.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/output-text.h"

#define COLUMNS_MOST   16
#define FLEXIBLE_LEAST 20

/* ---- what is shown ---- */

static bool fits(const struct top_table *t, const void *row)
{
	char cell[TOP_CELL_MAX];

	for (size_t i = 0; i < t->n_columns; i++) {
		t->columns[i].print(row, cell);
		if (strcasestr(cell, t->filter))
			return true;
	}
	return false;
}

static int compare(const void *a, const void *b, void *userdata)
{
	const struct top_table *t = userdata;
	const struct top_column *c = &t->columns[t->order];
	const void *one = *(const void *const *)a, *other = *(const void *const *)b;
	char cell[TOP_CELL_MAX], other_cell[TOP_CELL_MAX];
	double difference;
	int r = 0;

	if (c->value) {
		difference = c->value(other) - c->value(one);
		r = difference > 0 ? 1 : difference < 0 ? -1 : 0;
	} else {
		c->print(one, cell);
		c->print(other, other_cell);
		r = strcmp(cell, other_cell);
	}
	if (r == 0) /* as they came: rows do not jump about */
		return one < other ? -1 : one > other;
	return t->reversed ? -r : r;
}

void top_table_fill(struct top_table *t, const void *rows, size_t n, size_t size)
{
	free(t->rows);
	t->rows = calloc(n + 1, sizeof(*t->rows));
	if (!t->rows)
		abort();
	t->n_rows = 0;
	for (size_t i = 0; i < n; i++) {
		const void *row = (const char *)rows + i * size;

		if (!t->filter[0] || fits(t, row))
			t->rows[t->n_rows++] = row;
	}
	qsort_r(t->rows, t->n_rows, sizeof(*t->rows), compare, t);
	top_table_move(t, 0);
}

void top_table_clear(struct top_table *t)
{
	free(t->rows);
	t->rows = NULL;
	t->n_rows = 0;
}

const void *top_table_chosen(const struct top_table *t)
{
	return t->chosen < t->n_rows ? t->rows[t->chosen] : NULL;
}

void top_table_move(struct top_table *t, long by)
{
	long to = (long)t->chosen + by, last = (long)t->n_rows - 1;

	if (to > last)
		to = last;
	t->chosen = to < 0 ? 0 : (size_t)to;
}

void top_table_reorder(struct top_table *t, int by)
{
	t->order = (t->order + t->n_columns + (size_t)by) % t->n_columns;
	t->reversed = false;
}

/* ---- the screen ---- */

/* Widths of the columns that have room, 0 for those that have not. */
static void lay_out(const struct top_table *t, int width, int widths[COLUMNS_MOST])
{
	int used = 0;

	memset(widths, 0, COLUMNS_MOST * sizeof(widths[0]));
	for (int rank = 0; rank < COLUMNS_MOST; rank++)
		for (size_t i = 0; i < t->n_columns; i++) {
			const struct top_column *c = &t->columns[i];
			int wanted = c->width ? c->width : FLEXIBLE_LEAST;

			if (c->importance != rank)
				continue;
			if (used && used + 1 + wanted > width)
				return;
			widths[i] = wanted < width ? wanted : width;
			used += wanted + (used ? 1 : 0);
		}
}

/* A flexible column gets what the others have left. */
static void stretch(const struct top_table *t, int width, int widths[COLUMNS_MOST])
{
	int used = -1;

	for (size_t i = 0; i < t->n_columns; i++)
		used += widths[i] ? widths[i] + 1 : 0;
	for (size_t i = 0; i < t->n_columns; i++)
		if (!t->columns[i].width && widths[i] && used < width)
			widths[i] += width - used;
}

static void draw_cell(const struct top_column *c, const char *cell, int width)
{
	int length = (int)text_width(cell), cut = (int)text_cut(cell, (size_t)width);
	int blanks = length < width ? width - length : 0;

	printw("%*s%.*s%*s", c->right ? blanks : 0, "", cut, cell, c->right ? 0 : blanks, "");
}

static void draw_row(const struct top_table *t, const void *row, const int *widths)
{
	char cell[TOP_CELL_MAX];
	bool any = false;

	for (size_t i = 0; i < t->n_columns; i++) {
		if (!widths[i])
			continue;
		if (any)
			addch(' ');
		any = true;
		t->columns[i].print(row, cell);
		draw_cell(&t->columns[i], cell, widths[i]);
	}
}

static void draw_titles(const struct top_table *t, const int *widths)
{
	const char *mark = text_is_utf8() ? t->reversed ? "\u25b2" : "\u25bc"
			   : t->reversed  ? "^"
					  : "v";
	bool any = false;

	for (size_t i = 0; i < t->n_columns; i++) {
		char title[32];

		if (!widths[i])
			continue;
		if (any)
			addch(' ');
		any = true;
		snprintf(title, sizeof(title), "%s%s", t->columns[i].title,
			 i == t->order ? mark : "");
		draw_cell(&t->columns[i], title, widths[i]);
	}
}

/* The chosen row stays on the screen. */
static void scroll_to_chosen(struct top_table *t, size_t lines)
{
	if (t->chosen < t->first)
		t->first = t->chosen;
	if (lines > 0 && t->chosen >= t->first + lines)
		t->first = t->chosen - lines + 1;
	if (t->n_rows < t->first + lines)
		t->first = t->n_rows > lines ? t->n_rows - lines : 0;
}

void top_table_draw(struct top_table *t, int y, int height, int width)
{
	int widths[COLUMNS_MOST];

	if (height <= 0 || width <= 0)
		return;
	lay_out(t, width, widths);
	stretch(t, width, widths);
	scroll_to_chosen(t, (size_t)(height - 1));
	attron(A_REVERSE);
	mvhline(y, 0, ' ', width);
	move(y, 0);
	draw_titles(t, widths);
	attroff(A_REVERSE);
	for (int line = 1; line < height; line++) {
		size_t at = t->first + (size_t)(line - 1);
		attr_t style = A_NORMAL;

		if (at >= t->n_rows)
			break;
		if (t->is_dim && t->is_dim(t->rows[at]))
			style |= A_DIM;
		if (at == t->chosen)
			style |= A_BOLD | A_UNDERLINE;
		move(y + line, 0);
		attron(style);
		draw_row(t, t->rows[at], widths);
		attroff(style);
	}
}
