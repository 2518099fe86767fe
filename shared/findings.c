/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "shared/findings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const severity_names[FINDING_SEVERITIES] = {
	[FINDING_OK] = "ok",
	[FINDING_INFO] = "info",
	[FINDING_WARNING] = "warning",
	[FINDING_ERROR] = "error",
};

static void finding_clear(struct finding *i)
{
	free(i->check);
	free(i->message);
	free(i->command);
	free(i->hint);
}

void findings_clear(struct findings *f)
{
	for (size_t i = 0; i < f->n; i++)
		finding_clear(&f->items[i]);
	free(f->items);
	*f = (struct findings){0};
}

static char *format_text(const char *format, va_list arguments)
{
	char *text;

	return vasprintf(&text, format, arguments) < 0 ? NULL : text;
}

void findings_add(struct findings *f, const char *check, enum finding_severity severity,
		  const char *format, ...)
{
	struct finding *more = reallocarray(f->items, f->n + 1, sizeof(*more)), *i;
	va_list arguments;

	f->incomplete |= !more;
	if (!more)
		return;
	f->items = more;
	i = &more[f->n];
	*i = (struct finding){.check = strdup(check), .severity = severity};
	va_start(arguments, format);
	i->message = format_text(format, arguments);
	va_end(arguments);
	if (i->check && i->message) {
		f->n++;
		return;
	}
	finding_clear(i);
	f->incomplete = true;
}

void findings_command(struct findings *f, const char *format, ...)
{
	va_list arguments;

	if (f->n == 0)
		return;
	va_start(arguments, format);
	f->items[f->n - 1].command = format_text(format, arguments);
	va_end(arguments);
}

void findings_hint(struct findings *f, const char *format, ...)
{
	va_list arguments;

	if (f->n == 0)
		return;
	va_start(arguments, format);
	f->items[f->n - 1].hint = format_text(format, arguments);
	va_end(arguments);
}

/* Of one check; a hundred of a kind help nobody more than these. */
#define FINDINGS_EACH 16

static void findings_shorten(struct findings *f, size_t before, const char *check)
{
	size_t n = f->n - before;
	enum finding_severity worst = FINDING_OK;

	if (n <= FINDINGS_EACH)
		return;
	while (f->n > before + FINDINGS_EACH) {
		struct finding *last = &f->items[--f->n];

		if (last->severity > worst)
			worst = last->severity;
		finding_clear(last);
	}
	findings_add(f, check, worst, "%zu more of this check", n - FINDINGS_EACH);
}

void findings_run(struct findings *f, const struct findings_check *table, void *userdata)
{
	for (const struct findings_check *c = table; c->name; c++) {
		size_t before = f->n;

		c->run(c->name, userdata, f);
		findings_shorten(f, before, c->name);
		if (f->n == before && c->fine)
			findings_add(f, c->name, FINDING_OK, "%s", c->fine);
	}
}

enum finding_severity findings_worst(const struct findings *f)
{
	enum finding_severity worst = FINDING_OK;

	for (size_t i = 0; i < f->n; i++)
		if (f->items[i].severity > worst)
			worst = f->items[i].severity;
	return worst;
}

const char *finding_severity_name(enum finding_severity severity)
{
	return severity_names[severity];
}

int finding_severity_parse(const char *name, enum finding_severity *ret)
{
	for (int i = 0; i < FINDING_SEVERITIES; i++) {
		if (strcmp(severity_names[i], name) != 0)
			continue;
		*ret = i;
		return 0;
	}
	return -EINVAL;
}
