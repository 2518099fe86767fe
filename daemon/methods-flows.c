/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Conntrack and ConntrackCount: a walk over the flow table, some flows a turn of the event loop,
 * so that a table of a million flows holds up neither the daemon nor its other clients. The table
 * changes meanwhile: each flow that lives through the whole walk is seen once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/flows.h"
#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-filter.h"
#include "daemon/methods-handlers.h"
#include "shared/cleanup.h"
#include "shared/rule-json.h"
#include "shared/varlink.h"

#define FLOWS_PER_REPLY	 256  /* with `more` */
#define FLOWS_ONE_REPLY	 4096 /* without */
#define FLOWS_PER_TURN	 1024
#define RECORDS_PER_CALL 8192

/* ---- the walk ---- */

struct walk {
	struct manager *manager;
	struct call *call;
	struct flow_filter filter;
	char *selector; /* owned: the parameter `rule`, or NULL */
	uint32_t cursor;
	bool rule_seen;
	json_t *flows; /* those of the reply in the making; NULL: only counted */
	size_t matched;
	struct interface_cache interfaces; /* for the reply in the making */
};

static void walk_free(void *state)
{
	struct walk *w = state;

	json_decref(w->flows);
	free(w->selector);
	free(w);
}

/* Counts a flow in, or out. */
static int walk_visit(struct walk *w, const struct flow_view *v)
{
	if (v->rule == w->filter.rule)
		w->rule_seen = true;
	if (!flow_filter_fits(&w->filter, v))
		return 0;
	w->matched++;
	if (w->flows && json_array_append_new(w->flows, methods_pack_flow(v, &w->interfaces)) < 0)
		return -ENOMEM;
	return 0;
}

/*
 * Goes on until `most` flows have matched: 1; the end of the table: 0; or it is time to let others
 * run: -EAGAIN.
 */
static int walk_run(struct walk *w, size_t most)
{
	struct flow_view view;

	for (size_t i = 0; i < FLOWS_PER_TURN; i++) {
		int r = flows_next(manager_datapath(w->manager), &w->cursor, RECORDS_PER_CALL,
				   &view);

		if (r <= 0)
			return r;
		r = walk_visit(w, &view);
		if (r < 0)
			return r;
		if (w->matched >= most)
			return 1;
	}
	return -EAGAIN;
}

static json_t *walk_take_flows(struct walk *w)
{
	json_t *flows = take_ptr(w->flows);

	w->matched = 0;
	w->interfaces.n = 0;
	return json_pack("{s:i, s:o}", "schema", METHODS_SCHEMA, "flows", flows);
}

/* An error in place of the (last) reply; the stream ends with it. */
static int walk_fail(struct walk *w, int error)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	if (error == -ENOMEM)
		return error;
	diag_add(&diag, DIAG_FAILED, NULL, NULL, "the flow table cannot be read: %s",
		 strerror(-error));
	return methods_refuse(w->call, error, &diag);
}

/* Is it a mistake after all? Then the call is answered. */
static bool walk_refuse_rule(struct walk *w, int *ret_answer)
{
	if (!w->filter.rule_unknown || w->rule_seen)
		return false;
	*ret_answer = methods_no_such_rule(w->call, w->selector);
	return true;
}

static int walk_end(struct walk *w, int result, json_t *(*finish)(struct walk *w), json_t **ret)
{
	int r;

	if (result < 0)
		return walk_fail(w, result);
	if (walk_refuse_rule(w, &r))
		return r;
	*ret = finish(w);
	return *ret ? 0 : -ENOMEM;
}

/* With `more`: a part at a time. */
static int walk_produce_part(void *state, json_t **ret)
{
	struct walk *w = state;
	int r;

	if (!w->flows)
		w->flows = json_array();
	if (!w->flows)
		return -ENOMEM;
	r = walk_run(w, FLOWS_PER_REPLY);
	if (r == -EAGAIN)
		return r;
	if (r <= 0)
		return walk_end(w, r, walk_take_flows, ret);
	*ret = walk_take_flows(w);
	return *ret ? 1 : -ENOMEM;
}

static int refuse_too_many(struct call *call)
{
	return call_error(call, "io.redirectd.TooManyFlows",
			  json_pack("{s:s, s:i}", "message",
				    "more flows than fit one reply: call with \"more\", or filter",
				    "limit", FLOWS_ONE_REPLY));
}

/* Without: all of them, if they are not too many. */
static int walk_produce_all(void *state, json_t **ret)
{
	struct walk *w = state;
	int r = walk_run(w, FLOWS_ONE_REPLY + 1);

	if (r == -EAGAIN)
		return r;
	if (r == 1)
		return refuse_too_many(w->call);
	return walk_end(w, r, walk_take_flows, ret);
}

static json_t *walk_take_count(struct walk *w)
{
	return json_pack("{s:o}", "count", rule_json_counter(w->matched));
}

static int walk_produce_count(void *state, json_t **ret)
{
	struct walk *w = state;
	int r = walk_run(w, SIZE_MAX);

	if (r == -EAGAIN)
		return r;
	return walk_end(w, r, walk_take_count, ret);
}

/* ---- the methods ---- */

static struct walk *walk_new(struct manager *m, struct call *call, const struct flow_filter *f,
			     bool collects)
{
	struct walk *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->manager = m;
	w->call = call;
	w->filter = *f;
	w->selector = f->selector ? strdup(f->selector) : NULL;
	w->flows = collects ? json_array() : NULL;
	if ((!f->selector || w->selector) && (!collects || w->flows))
		return w;
	walk_free(w);
	return NULL;
}

static int start(struct call *call, json_t *parameters, struct manager *m, bool collects,
		 int (*produce)(void *state, json_t **ret))
{
	struct flow_filter filter;
	struct walk *w;
	int r;

	if (!methods_read_filter(call, parameters, m, &filter, NULL, &r))
		return r;
	w = walk_new(m, call, &filter, collects);
	if (!w)
		return -ENOMEM;
	return call_stream(call, produce, w, walk_free);
}

int methods_conntrack(struct call *call, json_t *parameters, void *userdata)
{
	return start(call, parameters, userdata, true,
		     call_wants_more(call) ? walk_produce_part : walk_produce_all);
}

int methods_conntrack_count(struct call *call, json_t *parameters, void *userdata)
{
	return start(call, parameters, userdata, false, walk_produce_count);
}
