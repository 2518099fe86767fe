/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes by files, and what becomes of them: Apply, Diff, Confirm, Rollback, Reload, Save. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-handlers.h"
#include "daemon/ruleset.h"
#include "shared/cleanup.h"
#include "shared/config.h"
#include "shared/varlink.h"

struct file_parameters {
	json_t *files;
	bool replace, brief, dry_run;
	uint32_t confirm_seconds;
};

static const struct parameter apply_parameters[] = {
	{"files", PARAMETER_ARRAY, true, offsetof(struct file_parameters, files)},
	{"replace", PARAMETER_BOOL, false, offsetof(struct file_parameters, replace)},
	{"confirmSeconds", PARAMETER_SECONDS, false,
	 offsetof(struct file_parameters, confirm_seconds)},
	{"brief", PARAMETER_BOOL, false, offsetof(struct file_parameters, brief)},
	{"dryRun", PARAMETER_BOOL, false, offsetof(struct file_parameters, dry_run)},
	{NULL, PARAMETER_STRING, false, 0},
};

static const struct parameter diff_parameters[] = {
	{"files", PARAMETER_ARRAY, false, offsetof(struct file_parameters, files)},
	{NULL, PARAMETER_STRING, false, 0},
};

static const struct parameter result_parameters[] = {
	{"brief", PARAMETER_BOOL, false, offsetof(struct file_parameters, brief)},
	{"dryRun", PARAMETER_BOOL, false, offsetof(struct file_parameters, dry_run)},
	{NULL, PARAMETER_STRING, false, 0},
};

static const struct parameter dry_run_parameters[] = {
	{"dryRun", PARAMETER_BOOL, false, offsetof(struct file_parameters, dry_run)},
	{NULL, PARAMETER_STRING, false, 0},
};

/*
 * [{"name", "text"}] as texts, whose strings are borrowed. NULL: it is no such array, or memory is
 * short.
 */
static struct config_text *read_files(json_t *files)
{
	struct config_text *texts = calloc(json_array_size(files) + 1, sizeof(*texts));
	json_t *file;
	size_t i;

	json_array_foreach (files, i, file) {
		if (texts && json_unpack(file, "{s:s, s:s% !}", "name", &texts[i].name, "text",
					 &texts[i].text, &texts[i].length) == 0)
			continue;
		free(texts);
		return NULL;
	}
	return texts;
}

/* How many there are of each kind, and unless `brief`, all of them. */
static json_t *result_pack(struct manager *m, const struct changes *c, bool brief)
{
	const struct change_counts counts = changes_count(c);
	size_t now = manager_ruleset(m)->n_entries;
	size_t after = c->made ? now : now + counts.added - counts.removed;

	return json_pack("{s:i, s:I, s:I, s:I, s:I, s:o}", "schema", METHODS_SCHEMA, "added",
			 (json_int_t)counts.added, "removed", (json_int_t)counts.removed, "changed",
			 (json_int_t)counts.changed, "kept",
			 (json_int_t)(after - counts.added - counts.changed), "changes",
			 brief ? json_array() : methods_changes_pack(c));
}

static int reply_result(struct call *call, struct manager *m, int result, const struct diag *diag,
			const struct changes *c, bool brief)
{
	return result < 0 ? methods_refuse(call, result, diag)
			  : call_reply(call, result_pack(m, c, brief));
}

int methods_apply(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(freep) struct config_text *texts = NULL;
	_cleanup_(config_freep) struct config *config = NULL;
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct apply_options options;
	struct file_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, apply_parameters, &p, &r))
		return r;
	texts = read_files(p.files);
	if (!texts)
		return methods_invalid_parameter(call, "files");
	options = (struct apply_options){p.replace, p.confirm_seconds, p.dry_run};
	r = manager_apply(userdata, texts, json_array_size(p.files), &options, &diag, &config,
			  &changes);
	return reply_result(call, userdata, r, &diag, &changes, p.brief);
}

int methods_diff(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(freep) struct config_text *texts = NULL;
	_cleanup_(config_freep) struct config *config = NULL;
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct file_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, diff_parameters, &p, &r))
		return r;
	texts = read_files(p.files);
	if (!texts || (p.files && json_array_size(p.files) == 0))
		return methods_invalid_parameter(call, "files");
	r = manager_diff(userdata, texts, json_array_size(p.files), &diag, &config, &changes);
	return reply_result(call, userdata, r, &diag, &changes, false);
}

int methods_reload(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct file_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, result_parameters, &p, &r))
		return r;
	r = manager_reload(userdata, p.dry_run, &diag, &changes);
	return reply_result(call, userdata, r, &diag, &changes, p.brief);
}

static int refuse_nothing_pending(struct call *call)
{
	return call_error(call, "io.redirectd.NothingPending", json_object());
}

int methods_confirm(struct call *call, json_t *parameters, void *userdata)
{
	struct file_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, dry_run_parameters, &p, &r))
		return r;
	if (manager_confirm(userdata, p.dry_run) < 0)
		return refuse_nothing_pending(call);
	return call_reply(call, json_object());
}

int methods_rollback(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct file_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, result_parameters, &p, &r))
		return r;
	r = manager_rollback(userdata, p.dry_run, &diag, &changes);
	if (r == -ENODATA)
		return refuse_nothing_pending(call);
	return reply_result(call, userdata, r, &diag, &changes, p.brief);
}

int methods_save(struct call *call, json_t *parameters, void *userdata)
{
	_cleanup_(save_result_clear) struct save_result result = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct file_parameters p;
	int r;

	if (!methods_read_parameters(call, parameters, dry_run_parameters, &p, &r))
		return r;
	r = manager_save(userdata, p.dry_run, &diag, &result);
	if (r < 0)
		return methods_refuse(call, r, &diag);
	return call_reply(
		call, json_pack("{s:o, s:I, s:I, s:b, s:b, s:I}", "file", varlink_text(result.file),
				"rules", (json_int_t)result.n_rules, "saved",
				(json_int_t)result.n_new, "written", result.written, "included",
				result.included, "differ", (json_int_t)result.n_differ));
}
