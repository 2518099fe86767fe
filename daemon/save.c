// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * `save`: runtime rules into a file of the folder rules.d beside the configuration, which from then
 * on is their origin. The file is ours and is written whole each time; rules that people wrote into
 * other files are never touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/manager-private.h"
#include "daemon/options.h"
#include "shared/config.h"

#define SAVE_FOLDER "rules.d"
#define SAVE_FILE   "saved.conf"

static const char header[] =
	"# Rules that were added while redirectd ran, as `redirectctl save` found them.\n"
	"# The next save writes this file anew: it keeps rules that stand here, and no comments.\n"
	"# Rules to be kept by hand are better off in a file of their own.\n";
#define HEADER_LINES 3

struct save {
	struct manager *manager;
	char *folder, *path;
	/* The file as the configuration names it: what sources begin with. NULL: it is not read. */
	char *name;
	struct config *disk;		/* what stands in the file; NULL: it is not there */
	struct ruleset_entry **entries; /* what is to stand there; borrowed */
	size_t n_entries;
};

static void save_clear(struct save *s)
{
	free(s->folder);
	free(s->path);
	free(s->name);
	config_free(s->disk);
	free(s->entries);
}

void save_result_clear(struct save_result *r)
{
	free(r->file);
	*r = (struct save_result){0};
}

static int fail(struct diag *diag, int error, const char *what, const char *path)
{
	diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot %s %s: %s", what, path, strerror(-error));
	return error;
}

/* ---- what is there ---- */

static int find_place(struct save *s, struct diag *diag)
{
	const char *config = s->manager->options->config_path, *slash;

	if (!config) {
		diag_add(diag, DIAG_FAILED, NULL, "start the daemon with -c FILE",
			 "there is no configuration to save beside: the rules came with -r");
		return -ENOENT;
	}
	slash = strrchr(config, '/');
	if (asprintf(&s->folder, "%.*s" SAVE_FOLDER, slash ? (int)(slash - config) + 1 : 0,
		     config) < 0) {
		s->folder = NULL;
		return -ENOMEM;
	}
	if (asprintf(&s->path, "%s/" SAVE_FILE, s->folder) < 0) {
		s->path = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* Under which name the configuration, as it stands now, reads the file. Its errors do not matter.
 */
static int find_name(struct save *s)
{
	_cleanup_(config_freep) struct config *c = NULL;
	_cleanup_(diag_clear) struct diag diag = {0};
	struct stat ours, other;
	int r = config_new(&c);

	free(s->name);
	s->name = NULL;
	if (r < 0 || stat(s->path, &ours) < 0)
		return r;
	c->keeps_texts = true;
	r = config_read_file(c, s->manager->options->config_path, &diag);
	if (r == -ENOMEM)
		return r;
	for (size_t i = 0; i < c->n_texts && !s->name; i++) {
		if (stat(c->texts[i].name, &other) < 0 || other.st_ino != ours.st_ino ||
		    other.st_dev != ours.st_dev)
			continue;
		s->name = strdup(c->texts[i].name);
		if (!s->name)
			return -ENOMEM;
	}
	return 0;
}

static int read_disk(struct save *s, struct diag *diag)
{
	_cleanup_(config_freep) struct config *c = NULL;
	int r;

	if (access(s->path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = config_new(&c);
	if (r < 0)
		return r;
	c->keeps_texts = true;
	r = config_read_file(c, s->path, diag);
	if (r == 0)
		s->disk = take_ptr(c);
	return r;
}

/* "FILE:LINE" of our file? */
static bool stands_in_ours(const struct save *s, const struct ruleset_entry *e)
{
	size_t length = s->name ? strlen(s->name) : 0;

	return length && e->origin == RULE_ORIGIN_CONFIG &&
	       strncmp(e->source, s->name, length) == 0 && e->source[length] == ':' &&
	       strspn(e->source + length + 1, "0123456789") == strlen(e->source + length + 1);
}

static int collect(struct save *s, struct save_result *ret)
{
	const struct ruleset *rules = s->manager->rules;

	s->entries = calloc(rules->n_entries + 1, sizeof(struct ruleset_entry *));
	if (!s->entries)
		return -ENOMEM;
	for (size_t i = 0; i < rules->n_entries; i++) {
		struct ruleset_entry *e = rules->entries[i];

		ret->n_new += e->origin == RULE_ORIGIN_RUNTIME;
		if (e->origin == RULE_ORIGIN_RUNTIME || stands_in_ours(s, e))
			s->entries[s->n_entries++] = e;
		else
			ret->n_differ += e->configured != NULL;
	}
	for (size_t i = 0; i < rules->n_removed; i++)
		ret->n_differ += !stands_in_ours(s, rules->removed[i]);
	ret->n_rules = s->n_entries;
	return 0;
}

/* ---- nothing that somebody else wrote may be lost ---- */

/* A rule on the disk that we know: it stands there by our own account, or it is in force. */
static bool is_known(const struct save *s, const struct config_rule *c)
{
	const struct ruleset *rules = s->manager->rules;
	const struct ruleset_entry *e = ruleset_find_conflict(rules, c->rule);

	if (e && (rule_equal(e->rule, c->rule) ||
		  (stands_in_ours(s, e) && rule_equal(ruleset_entry_configured(e), c->rule))))
		return true;
	for (size_t i = 0; i < rules->n_entries; i++)
		if (rules->entries[i]->configured && stands_in_ours(s, rules->entries[i]) &&
		    rule_equal(rules->entries[i]->configured, c->rule))
			return true;
	for (size_t i = 0; i < rules->n_removed; i++)
		if (stands_in_ours(s, rules->removed[i]) &&
		    rule_equal(rules->removed[i]->rule, c->rule))
			return true;
	return false;
}

static void refuse_statement(const struct save *s, const char *source, struct diag *diag)
{
	const struct diag_place place = {.file = source ? source : s->path};

	diag_add(diag, DIAG_CONFLICT, &place, "move it to another file",
		 source ? "this is no rule, and saving would lose it"
			: "it includes another file, and saving would lose that line");
}

/* Rules are all that is written again. */
static void check_statements(const struct save *s, struct diag *diag)
{
	if (s->disk->interface_source)
		refuse_statement(s, s->disk->interface_source, diag);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		if (s->disk->setting_sources[i])
			refuse_statement(s, s->disk->setting_sources[i], diag);
	if (s->disk->n_texts > 1)
		refuse_statement(s, NULL, diag);
}

/* Somebody has changed the file since it was read: what is known of it is not what stands there. */
static int check_disk(const struct save *s, struct diag *diag)
{
	const struct ruleset *rules = s->manager->rules;
	size_t known = 0, n = s->disk ? s->disk->n_rules : 0, before = diag->n_items;

	for (size_t i = 0; i < n; i++) {
		struct diag_place place = config_rule_place(&s->disk->rules[i], RULE_PART_LISTEN);

		if (!is_known(s, &s->disk->rules[i]))
			diag_add(diag, DIAG_CONFLICT, &place,
				 "reload first, or move it to another file",
				 "the daemon has not read this rule, and saving would lose it");
	}
	if (s->disk)
		check_statements(s, diag);
	for (size_t i = 0; i < rules->n_entries; i++)
		known += stands_in_ours(s, rules->entries[i]);
	for (size_t i = 0; i < rules->n_removed; i++)
		known += stands_in_ours(s, rules->removed[i]);
	if (diag->n_items == before && s->name && known > n)
		diag_add(diag, DIAG_CONFLICT, NULL, "reload first",
			 "rules have been taken out of %s since the daemon read it", s->path);
	return diag->n_items > before ? -EEXIST : 0;
}

/* Do the same rules stand there, in the same order? */
static bool disk_is_current(const struct save *s)
{
	size_t n = s->disk ? s->disk->n_rules : 0;

	if (n != s->n_entries)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!rule_equal(s->disk->rules[i].rule, s->entries[i]->rule))
			return false;
	return true;
}

/* ---- writing ---- */

static int write_rules(const struct save *s, FILE *out)
{
	fputs(header, out);
	for (size_t i = 0; i < s->n_entries; i++) {
		_cleanup_(freep) char *text = NULL;

		if (rule_format(s->entries[i]->rule, &text) < 0)
			return -ENOMEM;
		fprintf(out, "redirect %s\n", text);
	}
	if (fflush(out) != 0 || fchmod(fileno(out), 0644) < 0 || fsync(fileno(out)) < 0)
		return -errno;
	return 0;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	closep(&fd);
	return r;
}

/* All of the new file or the old one: written beside it, synced, renamed. */
static int write_file(const struct save *s, struct diag *diag)
{
	_cleanup_(freep) char *scratch = NULL;
	FILE *out;
	int fd, r;

	if (mkdir(s->folder, 0755) < 0 && errno != EEXIST)
		return fail(diag, -errno, "make the folder", s->folder);
	if (asprintf(&scratch, "%s/." SAVE_FILE ".XXXXXX", s->folder) < 0) {
		scratch = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(scratch, O_CLOEXEC);
	if (fd < 0)
		return fail(diag, -errno, "write into the folder", s->folder);
	out = fdopen(fd, "w");
	r = out ? write_rules(s, out) : -errno;
	if (out)
		fclose(out);
	else
		close(fd);
	if (r == 0 && rename(scratch, s->path) < 0)
		r = -errno;
	if (r == 0)
		r = sync_folder(s->folder);
	else
		unlink(scratch);
	return r < 0 ? fail(diag, r, "write", s->path) : 0;
}

static size_t line_of(const struct save *s, size_t i, bool written)
{
	return written ? HEADER_LINES + 1 + i : s->disk->rules[i].line;
}

/* The saved rules are the file's from now on; what else it had is no longer there. */
static int adopt(struct save *s, bool written, struct diag *diag)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	struct manager *m = s->manager;
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->n_entries; i++) {
		_cleanup_(freep) char *source = NULL;
		struct ruleset_entry *e = s->entries[i], *after;

		if (asprintf(&source, "%s:%zu", s->name, line_of(s, i, written)) < 0) {
			source = NULL;
			return -ENOMEM;
		}
		r = ruleset_entry_new(e->id, e->rule, RULE_ORIGIN_CONFIG, source, &after);
		if (r == 0)
			r = changes_add(&changes, e, after, NULL);
	}
	for (size_t i = 0; r == 0 && i < m->rules->n_removed; i++)
		if (stands_in_ours(s, m->rules->removed[i]))
			r = changes_add(&changes, m->rules->removed[i], NULL, NULL);
	return r == 0 ? manager_commit(m, &changes, m->config, false, diag) : r;
}

static int save(struct save *s, bool dry_run, struct diag *diag, struct save_result *ret)
{
	int r = find_place(s, diag);

	if (r == 0)
		r = read_disk(s, diag);
	if (r == 0)
		r = find_name(s);
	if (r == 0)
		r = collect(s, ret);
	if (r == 0)
		r = check_disk(s, diag);
	if (r == 0 && !dry_run && !disk_is_current(s)) {
		r = write_file(s, diag);
		ret->written = r == 0;
	}
	if (r == 0 && ret->written)
		r = find_name(s);
	if (r == 0 && s->name && !dry_run)
		r = adopt(s, ret->written, diag);
	ret->included = s->name != NULL;
	return r;
}

int manager_save(struct manager *m, bool dry_run, struct diag *diag, struct save_result *ret)
{
	_cleanup_(save_clear) struct save s = {.manager = m};
	int r = pending_refuse(m, diag);

	if (r == 0)
		r = save(&s, dry_run, diag, ret);
	if (r == 0)
		ret->file = take_ptr(s.path);
	return r;
}
