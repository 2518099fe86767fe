/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tables for people: aligned columns under a header. On a terminal that is too narrow the
 * flexible column is shortened with an ellipsis; elsewhere nothing is ever cut.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "ctl/output-text.h"
#include "shared/cleanup.h"

struct table;

struct table_column {
	const char *title;
	bool right;    /* numbers */
	bool flexible; /* gives way when the table is too wide; at most one */
};

/* `columns` is borrowed and outlives the table. Aborts out of memory. */
struct table *table_new(const struct table_column *columns, size_t n_columns);
struct table *table_free(struct table *t); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct table, table_free)

/* Adds a row of as many cells as there are columns; the cells are copied, NULL is "-". */
void table_add_row(struct table *t, enum text_style style, const char *const *cells);
/* `columns`: places on the screen, SIZE_MAX: no limit (see text_columns()). */
void table_print(const struct table *t, size_t columns, FILE *out);
