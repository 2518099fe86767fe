/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `import`: rules of other programs, printed as statements of redirectd.conf(5). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/import.h"
#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/verbs.h"
#include "shared/utf8.h"
#include "shared/words.h"

#define FORMATS_MOST 8

static const char *words_for(const char *path)
{
	return strcmp(path, "-") == 0 ? "the standard input" : path;
}

static unsigned count_lines(const char *text)
{
	unsigned n = 1;

	while ((text = strchr(text, '\n'))) {
		text++;
		n++;
	}
	return n;
}

/* The caller frees *ret, also after a failure. */
static enum exit_code read_all(const char *path, char **ret, struct failure *f)
{
	const char *words = words_for(path);
	FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	char *text = NULL;
	size_t size = 0;
	ssize_t n;
	bool failed;
	int error;

	if (!in)
		return failure_set(f, CTL_FAILED, "cannot read %s: %s", path, strerror(errno));
	errno = 0;
	n = getdelim(&text, &size, '\0', in);
	error = errno;
	failed = ferror(in);
	if (in != stdin)
		fclose(in);
	*ret = text;
	if (failed)
		return failure_set(f, CTL_FAILED, "cannot read %s: %s", words, strerror(error));
	if (n < 0)
		return failure_set(f, CTL_INVALID, "%s is empty", words);
	if (utf8_find_invalid(text, strlen(text)) != strlen(text))
		return failure_set(f, CTL_INVALID, "%s is not a text in UTF-8", words);
	if (text[n - 1] == '\0')
		return failure_set(f, CTL_INVALID, "%s has a NUL byte in line %u", words,
				   count_lines(text));
	return CTL_DONE;
}

static enum exit_code refuse_format(const char *name, struct failure *f)
{
	const char *names[FORMATS_MOST], *closest;
	char known[128];
	size_t n;

	for (n = 0; import_formats[n].name && n < FORMATS_MOST; n++)
		names[n] = import_formats[n].name;
	closest = words_closest(name, strlen(name), names, n);
	return failure_set(f, CTL_USAGE, "unknown format \"%s\"%s%s%s; it is one of %s", name,
			   closest ? ": did you mean \"" : "", closest ? closest : "",
			   closest ? "\"" : "", words_join(names, n, ", ", known, sizeof(known)));
}

/* The format that was named, NULL if none was. */
static enum exit_code choose_format(const struct options *o, const struct import_format **ret,
				    struct failure *f)
{
	const char *name = o->values[OPTION_FORMAT];

	*ret = NULL;
	if (!name)
		return CTL_DONE;
	for (const struct import_format *format = import_formats; format->name; format++)
		if (strcmp(format->name, name) == 0)
			*ret = format;
	return *ret ? CTL_DONE : refuse_format(name, f);
}

static enum exit_code guess_format(const char *path, const char *text,
				   const struct import_format **ret, struct failure *f)
{
	for (const struct import_format *format = import_formats; format->name; format++)
		if (format->looks_like(text)) {
			*ret = format;
			return CTL_DONE;
		}
	failure_set(f, CTL_INVALID, "%s is of no format that is known", words_for(path));
	failure_hint(f, "say which with --format; see `redirectctl import --help`");
	return CTL_INVALID;
}

static enum exit_code print(const struct options *o, const struct import *i, const char *path,
			    const char *format)
{
	json_t *document;

	if (options_has(o, OPTION_JSON)) {
		document = import_to_json(i, format);
		output_json(document, stdout);
		json_decref(document);
	} else {
		import_print_rules(i, stdout);
		fflush(stdout); /* in front of the remarks, if both go to a terminal */
		import_print_remarks(i, path, !options_has(o, OPTION_QUIET), stderr);
		if (import_is_empty(i) && !options_has(o, OPTION_QUIET))
			fprintf(stderr, "%s: %s has no redirection, as %s\n",
				program_invocation_short_name, words_for(path), format);
	}
	return import_is_complete(i) ? CTL_DONE : CTL_INVALID;
}

enum exit_code verb_import(const struct options *o, struct failure *f)
{
	_cleanup_(import_freep) struct import *i = import_new();
	const char *path = o->n_operands > 0 ? o->operands[0] : "-";
	_cleanup_(freep) char *text = NULL;
	const struct import_format *format;
	enum exit_code code = choose_format(o, &format, f);

	if (code == CTL_DONE)
		code = read_all(path, &text, f);
	if (code == CTL_DONE && !format)
		code = guess_format(path, text, &format, f);
	if (code != CTL_DONE)
		return code;
	format->read(i, text);
	import_sort(i);
	code = print(o, i, path, format->name);
	f->code = code;
	f->reported = true; /* the remarks have said it all */
	return code;
}
