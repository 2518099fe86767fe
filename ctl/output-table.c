/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table kept as an array of copied cells, measured and written at the end. */
#include "ctl/output-table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GAP	       2 /* spaces between two columns */
#define FLEXIBLE_LEAST 8 /* places that a flexible column keeps */

struct row {
	enum text_style style;
	char **cells;
};

struct table {
	const struct table_column *columns;
	size_t n_columns;
	size_t *widths; /* of the widest cell, the title included */
	struct row *rows;
	size_t n_rows, allocated;
};

static void *must(void *p)
{
	if (!p)
		abort(); /* a client of a few kilobytes: nothing sensible is left to do */
	return p;
}

struct table *table_new(const struct table_column *columns, size_t n_columns)
{
	struct table *t = must(calloc(1, sizeof(*t)));
	size_t i;

	t->columns = columns;
	t->n_columns = n_columns;
	t->widths = must(calloc(n_columns, sizeof(*t->widths)));
	for (i = 0; i < n_columns; i++)
		t->widths[i] = text_width(columns[i].title);
	return t;
}

struct table *table_free(struct table *t)
{
	size_t i, j;

	if (!t)
		return NULL;
	for (i = 0; i < t->n_rows; i++) {
		for (j = 0; j < t->n_columns; j++)
			free(t->rows[i].cells[j]);
		free(t->rows[i].cells);
	}
	free(t->rows);
	free(t->widths);
	free(t);
	return NULL;
}

void table_add_row(struct table *t, enum text_style style, const char *const *cells)
{
	struct row *row;
	size_t i;

	if (t->n_rows == t->allocated) {
		t->allocated = t->allocated ? t->allocated * 2 : 16;
		t->rows = must(reallocarray(t->rows, t->allocated, sizeof(*t->rows)));
	}
	row = &t->rows[t->n_rows++];
	row->style = style;
	row->cells = must(calloc(t->n_columns, sizeof(*row->cells)));
	for (i = 0; i < t->n_columns; i++) {
		size_t width;

		row->cells[i] = must(strdup(cells[i] && *cells[i] ? cells[i] : "-"));
		width = text_width(row->cells[i]);
		if (width > t->widths[i])
			t->widths[i] = width;
	}
}

/* Width of column `i` when the whole table may take `columns` places. */
static size_t column_width(const struct table *t, size_t i, size_t columns)
{
	size_t others = 0, j, least;

	if (!t->columns[i].flexible || columns == SIZE_MAX)
		return t->widths[i];
	for (j = 0; j < t->n_columns; j++)
		others += j == i ? 0 : t->widths[j] + GAP;
	least = t->widths[i] < FLEXIBLE_LEAST ? t->widths[i] : FLEXIBLE_LEAST;
	if (columns < others + least)
		return least;
	return t->widths[i] < columns - others ? t->widths[i] : columns - others;
}

/* Writes a cell, cut to `width` places. */
static void write_cell(const char *cell, size_t width, FILE *out)
{
	static const char *ellipsis;

	if (text_width(cell) <= width) {
		text_write_safe(cell, strlen(cell), out);
		return;
	}
	if (!ellipsis)
		ellipsis = text_is_utf8() ? "\u2026" : "~";
	text_write_safe(cell, text_cut(cell, width - 1), out);
	fputs(ellipsis, out);
}

static void write_spaces(size_t n, FILE *out)
{
	while (n-- > 0)
		fputc(' ', out);
}

static void write_row(const struct table *t, const char *const *cells, enum text_style style,
		      const size_t *widths, FILE *out)
{
	size_t i, used;

	fputs(text_style_begin(out, style), out);
	for (i = 0; i < t->n_columns; i++) {
		used = text_width(cells[i]) < widths[i] ? text_width(cells[i]) : widths[i];
		if (t->columns[i].right)
			write_spaces(widths[i] - used, out);
		write_cell(cells[i], widths[i], out);
		if (i + 1 == t->n_columns)
			break; /* no spaces at the end of a line */
		write_spaces(GAP + (t->columns[i].right ? 0 : widths[i] - used), out);
	}
	fputs(text_style_end(out, style), out);
	fputc('\n', out);
}

void table_print(const struct table *t, size_t columns, FILE *out)
{
	size_t *widths = must(calloc(t->n_columns, sizeof(*widths)));
	const char **titles = must(calloc(t->n_columns, sizeof(*titles)));
	size_t i;

	for (i = 0; i < t->n_columns; i++) {
		widths[i] = column_width(t, i, columns);
		titles[i] = t->columns[i].title;
	}
	write_row(t, titles, TEXT_BOLD, widths, out);
	for (i = 0; i < t->n_rows; i++)
		write_row(t, (const char *const *)t->rows[i].cells, t->rows[i].style, widths, out);
	free(titles);
	free(widths);
}
