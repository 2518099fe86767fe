// SPDX-License-Identifier: GPL-2.0-or-later
/* Changes of rules by files: the configuration read again, rules that a client gives, diff. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/datapath.h"
#include "daemon/manager-private.h"
#include "daemon/options.h"
#include "daemon/plan.h"
#include "daemon/resize.h"
#include "shared/config.h"
#include "shared/log.h"

void manager_apply_settings(struct manager *m, const struct config *config)
{
	struct datapath_config *c = datapath_config(m->datapath);

	for (int state = 0; state < FLOW_STATE_COUNT; state++)
		c->timeouts[state] =
			datapath_ticks_from_seconds(m->datapath, config->timeouts[state]);
	resize_want(m->resize, config->flows_max);
}

static int reload(struct manager *m, bool dry_run, struct diag *diag, struct changes *ret)
{
	_cleanup_(config_freep) struct config *config = NULL;
	const struct plan_from from = manager_plan_from(m);
	uint32_t last_id = m->last_id;
	int r = pending_refuse(m, diag);

	if (r == 0)
		r = options_read_config(m->options, &config, diag);
	if (r == 0)
		r = plan_configuration(&from, config, false, ret, diag);
	if (r == 0)
		r = manager_commit(m, ret, config, dry_run, diag);
	for (size_t i = 0; i < ret->n; i++)
		ret->items[i].from = NULL; /* it goes with the configuration */
	if (r < 0 || dry_run) {
		m->last_id = last_id;
		return r;
	}
	manager_apply_settings(m, config);
	config_free(m->config);
	m->config = take_ptr(config);
	return 0;
}

int manager_reload(struct manager *m, bool dry_run, struct diag *diag, struct changes *ret)
{
	int r = reload(m, dry_run, diag, ret);

	if (dry_run)
		return r;
	free(m->reload_error);
	m->reload_error = NULL;
	if (r < 0)
		m->reload_error = diag_summary(diag, r);
	return r;
}

static int read_texts(struct manager *m, const struct config_text *texts, size_t n,
		      struct diag *diag, struct config **ret)
{
	_cleanup_(config_freep) struct config *c = NULL;
	int r = config_new(&c), settings;

	if (r < 0)
		return r;
	c->refuses_include = true;
	r = config_read_texts(c, texts, n, diag);
	if (r == -ENOMEM)
		return r;
	settings = config_check_settings(c, m->config, diag);
	r = r ? r : settings;
	if (r == 0)
		*ret = take_ptr(c);
	return r;
}

/* Makes changes that go back unless they are confirmed. */
static int commit_for_now(struct manager *m, struct changes *c, uint32_t seconds, struct diag *diag)
{
	int r = pending_prepare(m, c, diag);

	if (r < 0)
		return r;
	r = manager_commit(m, c, m->config, false, diag);
	if (r < 0) {
		pending_end(m);
		return r;
	}
	return pending_begin(m, seconds, diag);
}

int manager_apply(struct manager *m, const struct config_text *texts, size_t n,
		  const struct apply_options *options, struct diag *diag, struct config **config,
		  struct changes *ret)
{
	const struct plan_from from = manager_plan_from(m);
	uint32_t last_id = m->last_id;
	int r = pending_refuse(m, diag);

	if (r == 0)
		r = read_texts(m, texts, n, diag, config);
	if (r == 0)
		r = plan_apply(&from, *config, options->replace, ret, diag);
	if (r == 0 && options->confirm_seconds && !options->dry_run)
		r = commit_for_now(m, ret, options->confirm_seconds, diag);
	else if (r == 0)
		r = manager_commit(m, ret, m->config, options->dry_run, diag);
	if (r < 0 || options->dry_run)
		m->last_id = last_id;
	return r;
}

int manager_diff(struct manager *m, const struct config_text *texts, size_t n, struct diag *diag,
		 struct config **config, struct changes *ret)
{
	const struct plan_from from = manager_plan_from(m);
	uint32_t last_id = m->last_id;
	int r = n ? read_texts(m, texts, n, diag, config)
		  : options_read_config(m->options, config, diag);

	if (r == 0)
		r = plan_apply(&from, *config, true, ret, diag);
	m->last_id = last_id;
	return r;
}
