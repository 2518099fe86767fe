/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Diagnostics: a growing array of items and the one way to print them.
 *
 * What users wrote ends up in messages, on terminals and in JSON: it is made printable UTF-8 on
 * the way in, byte for byte, so that columns stay true.
 */
#include "shared/diag.h"

#include <stdlib.h>
#include <string.h>

#include "shared/utf8.h"

#define DIAG_INDENT   "    "
#define DIAG_SHOW_MAX 160 /* bytes of a long line that are shown around the error */

static void *diag_need(void *p)
{
	if (!p) {
		fputs("out of memory while reporting an error\n", stderr);
		abort();
	}
	return p;
}

static char *diag_copy_string(const char *s, char tab)
{
	char *copy;

	if (!s)
		return NULL;
	copy = diag_need(strdup(s));
	utf8_sanitize(copy, tab);
	return copy;
}

void diag_clear(struct diag *d)
{
	for (size_t i = 0; i < d->n_items; i++) {
		free(d->items[i].file);
		free(d->items[i].text);
		free(d->items[i].message);
		free(d->items[i].hint);
	}
	free(d->items);
	*d = (struct diag){0};
}

static struct diag_item *diag_append(struct diag *d)
{
	/* Grown at every power of two: no need to keep what is allocated. */
	if ((d->n_items & (d->n_items - 1)) == 0)
		d->items = diag_need(
			reallocarray(d->items, d->n_items ? d->n_items * 2 : 1, sizeof(*d->items)));
	return &d->items[d->n_items++];
}

void diag_add(struct diag *d, enum diag_code code, const struct diag_place *place, const char *hint,
	      const char *format, ...)
{
	static const struct diag_place nowhere;
	struct diag_item item = {.code = code};
	va_list ap;

	if (!place)
		place = &nowhere;
	item.file = diag_copy_string(place->file, ' ');
	item.line = place->line;
	item.column = place->column;
	item.width = place->column && place->width == 0 ? 1 : place->width;
	item.text = diag_copy_string(place->text, '\t');
	item.hint = diag_copy_string(hint, ' ');

	va_start(ap, format);
	if (vasprintf(&item.message, format, ap) < 0)
		item.message = diag_need(NULL);
	va_end(ap);
	utf8_sanitize(item.message, ' ');

	*diag_append(d) = item;
}

static void diag_print_place(const struct diag_item *item, FILE *out, const char *prefix)
{
	if (!item->file) {
		if (prefix)
			fprintf(out, "%s: ", prefix);
		return;
	}
	fputs(item->file, out);
	if (item->line)
		fprintf(out, ":%u", item->line);
	if (item->line && item->column)
		fprintf(out, ":%u", item->column);
	fputs(": ", out);
}

static bool diag_is_continuation(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* Prints one `fill` for each character in [text, end); tabs are kept so that columns line up. */
static void diag_print_below(FILE *out, const char *text, const char *end, char fill)
{
	for (; text < end; text++)
		if (!diag_is_continuation(*text))
			fputc(fill == ' ' && *text == '\t' ? '\t' : fill, out);
}

/* The part of a line that is shown: all of it, or a window around the error. */
static void diag_choose_window(const struct diag_item *item, size_t *ret_first, size_t *ret_last)
{
	size_t length = strlen(item->text), at = item->column ? item->column - 1 : 0;
	size_t first = 0, last = length;

	if (length > DIAG_SHOW_MAX) {
		first = at > DIAG_SHOW_MAX / 2 ? at - DIAG_SHOW_MAX / 2 : 0;
		if (first > length)
			first = length;
		while (first > 0 && diag_is_continuation(item->text[first]))
			first--;
		last = length - first > DIAG_SHOW_MAX ? first + DIAG_SHOW_MAX : length;
		while (last > first && diag_is_continuation(item->text[last]))
			last--;
	}
	*ret_first = first;
	*ret_last = last;
}

static void diag_print_caret(const struct diag_item *item, FILE *out, size_t first, size_t last)
{
	const char *text = item->text;
	size_t at = item->column - 1, end = at + item->width;

	if (at > last)
		at = last;
	if (end > last)
		end = last;
	fputs(DIAG_INDENT, out);
	if (first > 0)
		fputs("   ", out);
	diag_print_below(out, text + first, text + at, ' ');
	fputc('^', out);
	/* The caret stands under the first character; the rest of the width is underlined. */
	for (at++; at < end && diag_is_continuation(text[at]); at++)
		;
	if (at < end)
		diag_print_below(out, text + at, text + end, '~');
	if (item->hint)
		fprintf(out, " %s", item->hint);
	fputc('\n', out);
}

static void diag_print_item(const struct diag_item *item, FILE *out, const char *prefix)
{
	size_t first, last;

	diag_print_place(item, out, prefix);
	fprintf(out, "%s\n", item->message);
	if (item->text) {
		diag_choose_window(item, &first, &last);
		fprintf(out, DIAG_INDENT "%s%.*s%s\n", first > 0 ? "..." : "", (int)(last - first),
			item->text + first, item->text[last] ? "..." : "");
		if (item->column) {
			diag_print_caret(item, out, first, last);
			return;
		}
	}
	if (item->hint)
		fprintf(out, DIAG_INDENT "%s\n", item->hint);
}

void diag_print(const struct diag *d, FILE *out, const char *prefix)
{
	for (size_t i = 0; i < d->n_items; i++)
		diag_print_item(&d->items[i], out, prefix);
}

char *diag_summary(const struct diag *d, int error)
{
	char *text = NULL;
	size_t length;
	FILE *out;

	if (d->n_items == 0)
		return strdup(strerror(-error));
	out = open_memstream(&text, &length);
	if (!out)
		return NULL;
	diag_print_place(&d->items[0], out, NULL);
	fputs(d->items[0].message, out);
	if (d->n_items > 1)
		fprintf(out, " (and %zu more)", d->n_items - 1);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

int diag_exit_code(const struct diag *d)
{
	/*
	 * By severity: a system that refuses says nothing about the text; a text that cannot be
	 * read says nothing certain about conflicts.
	 */
	static const struct {
		int exit_code, severity;
	} codes[] = {
		[DIAG_CONFLICT] = {7, 1},
		[DIAG_INVALID] = {6, 2},
		[DIAG_FAILED] = {1, 3},
	};
	int exit_code = 0, severity = 0;

	for (size_t i = 0; i < d->n_items; i++) {
		enum diag_code code = d->items[i].code;

		if (codes[code].severity > severity) {
			severity = codes[code].severity;
			exit_code = codes[code].exit_code;
		}
	}
	return exit_code;
}
