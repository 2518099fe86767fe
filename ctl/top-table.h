/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table on the screen: columns that give way when it is narrow, order, filter, a chosen row. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define TOP_CELL_MAX   256
#define TOP_FILTER_MAX 64

struct top_column {
	const char *title;
	int width;	/* places; 0: what the others leave, at least 20 */
	bool right;	/* numbers */
	int importance; /* a narrow screen keeps those with small numbers */
	/* Writes the cell of a row. */
	void (*print)(const void *row, char cell[TOP_CELL_MAX]);
	/* What it is ordered by, the greatest first; NULL: by its text. */
	double (*value)(const void *row);
};

struct top_table {
	const struct top_column *columns;
	size_t n_columns;
	size_t order; /* column */
	bool reversed;
	char filter[TOP_FILTER_MAX]; /* shown rows have it in some cell; "": all */
	/* The chosen row, and the first one on the screen, among those shown. */
	size_t chosen, first;
	/* Rows in order, those that fit the filter; owned array of borrowed pointers. */
	const void **rows;
	size_t n_rows;
	bool (*is_dim)(const void *row); /* NULL: none is */
};

/* Chooses and orders what is shown of `n` rows of `size` bytes, which must outlive the next draw.
 */
void top_table_fill(struct top_table *t, const void *rows, size_t n, size_t size);
void top_table_clear(struct top_table *t);
/* The chosen row; NULL: there is none. */
const void *top_table_chosen(const struct top_table *t);
void top_table_move(struct top_table *t, long by);
/* Orders by the next column, or the one before. */
void top_table_reorder(struct top_table *t, int by);

/* Draws title line and rows into the lines [y, y + height) of the screen. */
void top_table_draw(struct top_table *t, int y, int height, int width);
