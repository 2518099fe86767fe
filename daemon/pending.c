// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A change that goes back by itself unless it is confirmed. What to go back to is pinned before the
 * change, the time when behind it, both beside the rules: a daemon that dies meanwhile leaves its
 * heir all that is needed. A list without a time is that of a change that was not finished.
 *
 * The list is an array of {"id", "entry"}: an entry as registry.c formats it, null for none.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "daemon/manager-private.h"
#include "daemon/plan.h"
#include "daemon/registry.h"
#include "shared/abi.h"
#include "shared/log.h"

#define RETRY_USEC (10 * 1000 * 1000ULL) /* when going back has failed */

static uint64_t now_usec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000ULL + (uint64_t)t.tv_nsec / 1000;
}

uint64_t pending_left_ms(const struct manager *m)
{
	uint64_t now = now_usec();

	return m->undo && m->undo_at > now ? (m->undo_at - now) / 1000 : 0;
}

int pending_refuse(const struct manager *m, struct diag *diag)
{
	if (!m->undo)
		return 0;
	diag_add(diag, DIAG_CONFLICT, NULL,
		 "run `redirectctl confirm` to keep it, or `redirectctl rollback`",
		 "a change of %zu rule%s waits to be confirmed, for %u more seconds",
		 json_array_size(m->undo), json_array_size(m->undo) == 1 ? "" : "s",
		 (unsigned)((pending_left_ms(m) + 999) / 1000));
	return -EEXIST;
}

/* ---- the list ---- */

static json_t *undo_item(const struct change *c)
{
	const struct ruleset_entry *e = c->before ? c->before : c->after;
	_cleanup_(freep) char *text = NULL;

	if (c->before && registry_entry_format(c->before, &text) < 0)
		return NULL;
	return json_pack("{s:I, s:o}", "id", (json_int_t)e->id, "entry",
			 text ? json_string(text) : json_null());
}

static json_t *undo_list(const struct changes *c)
{
	json_t *list = json_array();

	for (size_t i = 0; i < c->n; i++) {
		if (json_array_append_new(list, undo_item(&c->items[i])) == 0)
			continue;
		json_decref(list);
		return NULL;
	}
	return list;
}

static struct ruleset_entry *entry_now(const struct ruleset *s, uint32_t id)
{
	struct ruleset_entry *e = ruleset_find_id(s, id);

	return e ? e : ruleset_find_removed(s, id);
}

static int plan_undo_item(const struct ruleset *rules, json_t *item, struct changes *ret)
{
	struct ruleset_entry *before, *after = NULL;
	const char *text = NULL;
	json_int_t id;
	int r = 0;

	if (json_unpack(item, "{s:I, s?s}", "id", &id, "entry", &text) < 0 &&
	    json_unpack(item, "{s:I, s:n}", "id", &id, "entry") < 0)
		return -EBADMSG;
	if (id < 1 || id >= RULE_COUNT)
		return -EBADMSG;
	if (text)
		r = registry_entry_parse((uint32_t)id, text, &after);
	if (r < 0)
		return r;
	before = entry_now(rules, (uint32_t)id);
	if (!before && !after)
		return 0;
	return changes_add(ret, before, after, NULL);
}

static int plan_undo(struct manager *m, struct changes *ret)
{
	json_t *item;
	size_t i;
	int r = 0;

	json_array_foreach (m->undo, i, item)
		if (r == 0)
			r = plan_undo_item(m->rules, item, ret);
	return r;
}

/* ---- its life ---- */

int pending_prepare(struct manager *m, const struct changes *c, struct diag *diag)
{
	int r = -ENOMEM;

	m->undo = undo_list(c);
	if (m->undo)
		r = registry_write_json(m->datapath, REGISTRY_UNDO, m->undo);
	if (r < 0) {
		diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot pin what to go back to: %s",
			 strerror(-r));
		pending_end(m);
	}
	return r;
}

void pending_end(struct manager *m)
{
	m->undo_timer = sd_event_source_disable_unref(m->undo_timer);
	json_decref(m->undo);
	m->undo = NULL;
	/* In this order: a list without a time would be gone back to. */
	registry_write_json(m->datapath, REGISTRY_UNDO, NULL);
	registry_write_json(m->datapath, REGISTRY_DEADLINE, NULL);
}

static int go_back(struct manager *m, bool dry_run, struct diag *diag, struct changes *ret)
{
	int r = plan_undo(m, ret);

	if (r == 0)
		r = manager_commit(m, ret, m->config, dry_run, diag);
	if (r == 0 && !dry_run)
		pending_end(m);
	return r;
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};
	struct manager *m = userdata;
	int r = go_back(m, false, &diag, &changes);

	manager_log_diag(&diag);
	if (r < 0) {
		log_error("cannot take the change back, trying again soon: %s", strerror(-r));
		sd_event_source_set_time(s, now_usec() + RETRY_USEC);
		return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	}
	log_notice("nobody confirmed the last change: it is taken back");
	return 0;
}

static int start_timer(struct manager *m)
{
	int r = sd_event_add_time(m->event, &m->undo_timer, CLOCK_BOOTTIME, m->undo_at, 1000,
				  on_deadline, m);

	return r < 0 ? r : 0;
}

int pending_begin(struct manager *m, uint32_t seconds, struct diag *diag)
{
	_cleanup_(changes_clear) struct changes back = {0};
	json_t *deadline;
	int r;

	m->undo_at = now_usec() + seconds * 1000000ULL;
	deadline = json_pack("{s:I}", "boottime_us", (json_int_t)m->undo_at);
	r = deadline ? registry_write_json(m->datapath, REGISTRY_DEADLINE, deadline) : -ENOMEM;
	json_decref(deadline);
	if (r == 0)
		r = start_timer(m);
	if (r == 0)
		return 0;
	diag_add(diag, DIAG_FAILED, NULL, NULL, "cannot wait for a confirmation: %s", strerror(-r));
	go_back(m, false, diag, &back);
	return r;
}

/* When the change that was left goes back; 0: now, for it was not finished. */
static uint64_t read_deadline(struct manager *m)
{
	json_t *json = NULL;
	json_int_t at = 0;

	if (registry_read_json(m->datapath, REGISTRY_DEADLINE, &json) == 1)
		json_unpack(json, "{s:I}", "boottime_us", &at);
	json_decref(json);
	return at > 0 ? (uint64_t)at : 0;
}

int pending_adopt(struct manager *m, struct diag *diag)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	int r = registry_read_json(m->datapath, REGISTRY_UNDO, &m->undo);

	if (r < 0)
		return r;
	if (r == 0) {
		pending_end(m); /* what is left of one that never began */
		return 0;
	}
	m->undo_at = read_deadline(m);
	if (m->undo_at > now_usec()) {
		m->reload_due = true;
		log_notice("a change waits to be confirmed, for %u more seconds",
			   (unsigned)(pending_left_ms(m) / 1000));
		return start_timer(m);
	}
	r = go_back(m, false, diag, &changes);
	if (r == 0)
		log_notice("nobody confirmed the last change: it is taken back");
	return r;
}

/* ---- decisions ---- */

int manager_confirm(struct manager *m, bool dry_run)
{
	if (!m->undo)
		return -ENODATA;
	if (!dry_run)
		pending_end(m);
	return 0;
}

int manager_rollback(struct manager *m, bool dry_run, struct diag *diag, struct changes *ret)
{
	return m->undo ? go_back(m, dry_run, diag, ret) : -ENODATA;
}

/* A configuration that could not be read at the start, because a change was pending. */
void pending_tick(struct manager *m)
{
	_cleanup_(changes_clear) struct changes changes = {0};
	_cleanup_(diag_clear) struct diag diag = {0};

	if (!m->reload_due || m->undo)
		return;
	m->reload_due = false;
	if (manager_reload(m, false, &diag, &changes) < 0)
		log_error("the configuration was not read: everything stays as it was");
	manager_log_diag(&diag);
}
