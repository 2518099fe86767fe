/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of the configuration: reading them whole, cutting them into lines, following `include`.
 * Lines are handed to config.c one by one. A line may be of any length, end in CR LF, and is
 * refused as a whole when it holds a NUL byte or is not UTF-8.
 */
#include "shared/config-read.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/utf8.h"

#define READ_STEP 65536

/* A file that is being read, and the one that includes it. */
struct config_file {
	const struct config_file *parent;
	const char *path; /* as messages name it */
	dev_t device;
	ino_t inode; /* 0: a text, no file */
	struct config *config;
	struct diag *diag;
};

static void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static void globfreep(glob_t *g)
{
	globfree(g);
}

/* ---- lines ---- */

/* Refuses a line that no statement can be read from; `line` is its NUL-terminated copy. */
static bool config_check_bytes(struct config_line *l, char *line, size_t length)
{
	size_t n = strlen(line), offset;
	const char *what = "a NUL byte", *hint = "remove it";

	offset = n;
	if (n == length) {
		offset = utf8_find_invalid(line, length);
		what = "a byte that is not UTF-8";
		hint = "save the file as UTF-8";
	}
	if (offset == length)
		return true;
	for (size_t i = n; i < length; i++)
		if (line[i] == '\0')
			line[i] = '?';
	l->place.column = (unsigned)offset + 1;
	diag_add(l->scan.diag, DIAG_INVALID, &l->place, hint, "%s", what);
	return false;
}

static bool config_is_include(const char *line, size_t length)
{
	static const char word[] = "include";
	const size_t n = sizeof(word) - 1;

	for (; length && (*line == ' ' || *line == '\t'); length--)
		line++;
	return length >= n && memcmp(line, word, n) == 0;
}

static int config_read_line(const struct config_file *file, unsigned number, const char *start,
			    size_t length)
{
	_cleanup_(freep) char *line = NULL, *statement = NULL, *source = NULL;
	struct config_line l = {
		.config = file->config,
		.file = file,
		.place = {.file = file->path, .line = number, .column = 1},
		.scan.diag = file->diag,
	};

	if (file->config->only_includes && !config_is_include(start, length))
		return 0;
	if (length > 0 && start[length - 1] == '\r')
		length--;
	line = malloc(length + 1);
	if (!line)
		return -ENOMEM;
	memcpy(line, start, length);
	line[length] = '\0';
	l.place.text = line;
	if (!config_check_bytes(&l, line, length))
		return 0;

	statement = strndup(line, strcspn(line, "#"));
	if (!statement || asprintf(&source, "%s:%u", file->path, number) < 0) {
		source = NULL;
		return -ENOMEM;
	}
	l.source = source;
	l.scan.text = statement;
	l.scan.place = &l.place;
	return config_read_statement(&l);
}

static int config_read_lines(const struct config_file *file, const char *text, size_t length)
{
	static const char bom[] = "\xef\xbb\xbf";
	const char *end = text + length, *newline;
	int r;

	/* Some editors begin every UTF-8 file with a byte order mark. */
	if (length >= 3 && memcmp(text, bom, 3) == 0)
		text += 3;
	for (unsigned number = 1; text < end; number++) {
		newline = memchr(text, '\n', (size_t)(end - text));
		if (!newline)
			newline = end;
		r = config_read_line(file, number, text, (size_t)(newline - text));
		if (r < 0)
			return r;
		text = newline + 1;
	}
	return 0;
}

/* ---- files ---- */

/* The whole of a file; -EFBIG when it is longer than any configuration. */
static int config_load(FILE *in, char **ret, size_t *ret_length)
{
	_cleanup_(freep) char *text = NULL;
	size_t length = 0, n;
	char *grown;

	do {
		grown = realloc(text, length + READ_STEP);
		if (!grown)
			return -ENOMEM;
		text = grown;
		n = fread(text + length, 1, READ_STEP, in);
		if (ferror(in))
			return -errno;
		length += n;
		if (length > CONFIG_FILE_MAX)
			return -EFBIG;
	} while (n > 0);
	*ret = take_ptr(text);
	*ret_length = length;
	return 0;
}

static bool config_is_being_read(const struct config_file *file, const struct stat *st)
{
	for (; file; file = file->parent)
		if (file->inode != 0 && file->device == st->st_dev && file->inode == st->st_ino)
			return true;
	return false;
}

static unsigned config_depth(const struct config_file *file)
{
	unsigned depth = 0;

	for (; file; file = file->parent)
		depth++;
	return depth;
}

/*
 * Reads file->path. 0, -ENOMEM, or what the system said; -EDEADLK: it is being read already, or
 * includes go too deep.
 */
static int config_read_path(struct config_file *file)
{
	_cleanup_(fclosep) FILE *in = fopen(file->path, "re");
	_cleanup_(freep) char *text = NULL;
	size_t length = 0;
	struct stat st;
	int r;

	if (!in || fstat(fileno(in), &st) < 0)
		return -errno;
	if (config_is_being_read(file->parent, &st) ||
	    config_depth(file->parent) >= CONFIG_DEPTH_MAX)
		return -EDEADLK;
	file->device = st.st_dev;
	file->inode = st.st_ino;
	r = config_load(in, &text, &length);
	if (r == 0 && file->config->keeps_texts)
		r = config_keep_text(file->config, file->path, text, length);
	if (r < 0)
		return r;
	return config_read_lines(file, text, length);
}

int config_read_file(struct config *c, const char *path, struct diag *diag)
{
	struct config_file file = {.path = path, .config = c, .diag = diag};
	struct diag_place place = {.file = path};
	size_t before = diag->n_items;
	int r;

	r = config_read_path(&file);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		diag_add(diag, DIAG_FAILED, &place, NULL, "cannot read the configuration: %s",
			 strerror(-r));
		return r == -ENOENT ? r : -EINVAL;
	}
	r = config_check(c, diag);
	if (r < 0)
		return r;
	return diag->n_items > before ? -EINVAL : 0;
}

int config_read_texts(struct config *c, const struct config_text *texts, size_t n,
		      struct diag *diag)
{
	size_t before = diag->n_items;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct config_file file = {.path = texts[i].name, .config = c, .diag = diag};

		r = config_read_lines(&file, texts[i].text, texts[i].length);
	}
	if (r == 0)
		r = config_check(c, diag);
	if (r < 0)
		return r;
	return diag->n_items > before ? -EINVAL : 0;
}

int config_read_text(struct config *c, const char *name, const char *text, struct diag *diag)
{
	const struct config_text one = {(char *)name, (char *)text, strlen(text)};

	return config_read_texts(c, &one, 1, diag);
}

/* ---- include ---- */

/* The folder of `path` with its "/", so that glob(3) takes it literally; "" when it names none. */
static char *config_quote_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) + 1 : 0;
	char *quoted = malloc(2 * n + 1), *out = quoted;

	if (!quoted)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		if (strchr("*?[\\", path[i]))
			*out++ = '\\';
		*out++ = path[i];
	}
	*out = '\0';
	return quoted;
}

/* A folder that is not there matches nothing; one that may not be read is an error. */
static int config_glob_failed(const char *path, int error)
{
	return error != ENOENT && error != ENOTDIR;
}

static bool config_is_pattern(const struct scan_word *word)
{
	for (size_t i = 0; i < word->length; i++)
		if (strchr("*?[", word->start[i]))
			return true;
	return false;
}

static void config_report_include(struct config_line *l, const struct scan_word *at,
				  enum diag_code code, const char *what, const char *path,
				  const char *why)
{
	struct diag_place place = l->place;

	place.column += (unsigned)(at->start - l->scan.text);
	place.width = (unsigned)at->length;
	diag_add(l->scan.diag, code, &place, NULL, "%s %s: %s", what, path, why);
	l->scan.n_errors++;
}

static int config_include_path(struct config_line *l, const struct scan_word *at, const char *path)
{
	struct config_file file = {
		.parent = l->file,
		.path = path,
		.config = l->config,
		.diag = l->scan.diag,
	};
	int r = config_read_path(&file);

	if (r == 0 || r == -ENOMEM)
		return r;
	if (r == -EDEADLK)
		config_report_include(l, at, DIAG_INVALID, "cannot include", path,
				      config_depth(l->file) >= CONFIG_DEPTH_MAX
					      ? "too many files deep"
					      : "it is this file, or a file that includes it");
	else
		config_report_include(l, at, r == -ENOENT ? DIAG_INVALID : DIAG_FAILED,
				      "cannot read", path, strerror(-r));
	return 0;
}

int config_include(struct config_line *l, const struct scan_word *pattern)
{
	_cleanup_(freep) char *folder = NULL, *path = NULL;
	_cleanup_(globfreep) glob_t found = {0};
	int r;

	folder = config_quote_folder(pattern->start[0] == '/' ? "" : l->file->path);
	if (!folder ||
	    asprintf(&path, "%s%.*s", folder, (int)pattern->length, pattern->start) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	r = glob(path, 0, config_glob_failed, &found);
	if (r == GLOB_NOSPACE)
		return -ENOMEM;
	if (r == GLOB_ABORTED)
		config_report_include(l, pattern, DIAG_FAILED, "cannot read the folder of", path,
				      strerror(errno));
	if (r == GLOB_NOMATCH && !config_is_pattern(pattern))
		config_report_include(l, pattern, DIAG_INVALID, "cannot read", path,
				      strerror(ENOENT));
	for (size_t i = 0; r == 0 && i < found.gl_pathc; i++)
		if (config_include_path(l, pattern, found.gl_pathv[i]) < 0)
			return -ENOMEM;
	return 0;
}
