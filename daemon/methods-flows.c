/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The methods about flows: walks over the flow table, some records a turn of the event loop, so
 * that a table of a million flows holds up neither the daemon nor its other clients. The table
 * changes meanwhile: each flow that lives through the whole walk is seen once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/datapath.h"
#include "daemon/flows.h"
#include "daemon/manager.h"
#include "daemon/methods-common.h"
#include "daemon/methods-filter.h"
#include "daemon/methods-handlers.h"
#include "shared/cleanup.h"
#include "shared/rule-json.h"

#define FLOWS_PER_REPLY	 256  /* with `more` */
#define FLOWS_ONE_REPLY	 4096 /* without */
#define RECORDS_PER_TURN 8192

/* ---- the walk ---- */

struct walk {
	struct manager *manager;
	struct call *call;
	struct flow_filter filter;
	char *selector; /* owned: the parameter `rule`, or NULL */
	struct flows_walk at;
	bool rule_seen;
	uint64_t matched;
	bool reply_begun;
	size_t in_reply;		   /* flows in the reply in the making */
	struct interface_cache interfaces; /* for that reply */
	/* Of ConntrackDelete and ConntrackFlush. */
	bool dry_run;
	size_t n_doomed;
	struct sweep_item doomed[SWEEP_BATCH];
	struct flow_view doomed_views[SWEEP_BATCH];
};

static void walk_free(void *state)
{
	struct walk *w = state;

	free(w->selector);
	free(w);
}

/* The next flow that fits: 1; the end of the table: 0; time to let others run: -EAGAIN. */
static int walk_next(struct walk *w, uint32_t *budget, struct flow_view *ret)
{
	int r;

	while ((r = flows_next(&w->at, budget, ret)) > 0) {
		if (ret->rule == w->filter.rule)
			w->rule_seen = true;
		if (!flow_filter_fits(&w->filter, ret))
			continue;
		w->matched++;
		return 1;
	}
	return r;
}

static void walk_resume(struct walk *w, uint32_t *ret_budget)
{
	flows_walk_resume(&w->at, manager_datapath(w->manager));
	*ret_budget = RECORDS_PER_TURN;
}

/* Time to let others run; or an error in place of the (last) reply, with which the stream ends. */
static int walk_stop(struct walk *w, int error)
{
	_cleanup_(diag_clear) struct diag diag = {0};

	if (error == -EAGAIN)
		return error;
	if (error == -ESTALE)
		diag_add(&diag, DIAG_FAILED, NULL, "ask again",
			 "the flow table was resized before all flows were seen");
	else
		diag_add(&diag, DIAG_FAILED, NULL, NULL, "the walk over the flows has failed: %s",
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

/* ---- flows as replies ---- */

static void reply_begin(struct walk *w, struct writer *reply)
{
	if (w->reply_begun)
		return;
	writer_literal(reply, METHODS_SCHEMA_BEGIN "\"flows\":[");
	w->reply_begun = true;
	w->in_reply = 0;
	w->interfaces.n = 0; /* names may have changed since the last one */
}

static void reply_add(struct walk *w, struct writer *reply, const struct flow_view *v)
{
	if (w->in_reply++)
		writer_literal(reply, ",");
	methods_write_flow(reply, v, &w->interfaces);
}

static void reply_end(struct walk *w, struct writer *reply)
{
	writer_literal(reply, "]");
	w->reply_begun = false;
}

/* ---- Conntrack ---- */

static int list_some(struct walk *w, size_t most, struct writer *reply)
{
	struct flow_view view;
	uint32_t budget;
	int r;

	walk_resume(w, &budget);
	reply_begin(w, reply);
	while ((r = walk_next(w, &budget, &view)) > 0) {
		reply_add(w, reply, &view);
		if (w->in_reply >= most)
			return 1;
	}
	return r;
}

/* With `more`: a part at a time. */
static int list_part(void *state, struct writer *reply)
{
	struct walk *w = state;
	int r = list_some(w, FLOWS_PER_REPLY, reply), answer;

	if (r < 0)
		return walk_stop(w, r);
	if (r == 0 && walk_refuse_rule(w, &answer))
		return answer;
	reply_end(w, reply);
	writer_literal(reply, "}");
	return r;
}

static int refuse_too_many(struct call *call)
{
	return call_error(call, "io.redirectd.TooManyFlows",
			  json_pack("{s:s, s:i}", "message",
				    "more flows than fit one reply: call with \"more\", or filter",
				    "limit", FLOWS_ONE_REPLY));
}

/* Without: all of them, if they are not too many. */
static int list_all(void *state, struct writer *reply)
{
	struct walk *w = state;
	int r = list_some(w, FLOWS_ONE_REPLY + 1, reply), answer;

	if (r < 0)
		return walk_stop(w, r);
	if (r > 0)
		return refuse_too_many(w->call);
	if (walk_refuse_rule(w, &answer))
		return answer;
	reply_end(w, reply);
	writer_literal(reply, "}");
	return 0;
}

/* ---- ConntrackGet, ConntrackCount ---- */

static int get_one(void *state, struct writer *reply)
{
	struct walk *w = state;
	struct flow_view view;
	uint32_t budget;
	int r;

	walk_resume(w, &budget);
	r = walk_next(w, &budget, &view);
	if (r == 0)
		return call_error(w->call, "io.redirectd.NoSuchFlow", json_object());
	if (r < 0)
		return walk_stop(w, r);
	writer_literal(reply, METHODS_SCHEMA_BEGIN "\"flow\":");
	methods_write_flow(reply, &view, &w->interfaces);
	writer_literal(reply, "}");
	return 0;
}

static int count_all(void *state, struct writer *reply)
{
	struct walk *w = state;
	struct flow_view view;
	uint32_t budget;
	int r;

	walk_resume(w, &budget);
	while ((r = walk_next(w, &budget, &view)) > 0)
		;
	if (r < 0)
		return walk_stop(w, r);
	if (walk_refuse_rule(w, &r))
		return r;
	writer_literal(reply, "{\"count\":");
	writer_json_number(reply, w->matched);
	writer_literal(reply, "}");
	return 0;
}

/* ---- ConntrackDelete, ConntrackFlush ---- */

/* Collects flows to end: as many as one run of the datapath's program takes. As walk_next(). */
static int doom_some(struct walk *w)
{
	struct flow_view *view;
	uint32_t budget;
	int r = 1;

	walk_resume(w, &budget);
	for (w->n_doomed = 0; w->n_doomed < SWEEP_BATCH; w->n_doomed++) {
		view = &w->doomed_views[w->n_doomed];
		r = walk_next(w, &budget, view);
		if (r <= 0)
			break;
		w->doomed[w->n_doomed] = w->at.last;
		w->doomed[w->n_doomed].reason = DESTROY_REQUEST;
	}
	return r;
}

/* Ends them; which of them have changed hands meanwhile, and live on, is told by `freed`. */
static int end_doomed(struct walk *w)
{
	int r;

	if (!w->dry_run) {
		r = datapath_sweep(manager_datapath(w->manager), w->doomed, w->n_doomed);
		if (r < 0)
			return r;
		w->matched -= w->n_doomed - (size_t)r;
		return 0;
	}
	for (size_t i = 0; i < w->n_doomed; i++)
		w->doomed[i].freed = true;
	return 0;
}

/* The next ones that fit are collected and ended. 1: there may be more; 0: the table's end. */
static int delete_some(struct walk *w)
{
	int more = doom_some(w), r = w->n_doomed ? end_doomed(w) : 0;

	if (r < 0)
		return r;
	return more == -EAGAIN ? 1 : more;
}

static void reply_number(struct walk *w, struct writer *reply)
{
	writer_literal(reply, "\"deleted\":");
	writer_json_number(reply, w->matched);
	writer_literal(reply, "}");
}

/* With `more`: the flows that have ended, a part at a time, and how many so far. */
static int delete_part(void *state, struct writer *reply)
{
	struct walk *w = state;
	int r = delete_some(w), answer;

	if (r < 0)
		return walk_stop(w, r);
	reply_begin(w, reply);
	for (size_t i = 0; i < w->n_doomed; i++)
		if (w->doomed[i].freed)
			reply_add(w, reply, &w->doomed_views[i]);
	if (r > 0 && w->in_reply < SWEEP_BATCH)
		return -EAGAIN;
	if (r == 0 && walk_refuse_rule(w, &answer))
		return answer;
	reply_end(w, reply);
	writer_literal(reply, ",");
	reply_number(w, reply);
	return r;
}

/* Without: how many. */
static int delete_all(void *state, struct writer *reply)
{
	struct walk *w = state;
	int r = delete_some(w);

	if (r != 0)
		return walk_stop(w, r > 0 ? -EAGAIN : r);
	if (walk_refuse_rule(w, &r))
		return r;
	writer_literal(reply, METHODS_SCHEMA_BEGIN "\"flows\":[],");
	reply_number(w, reply);
	return 0;
}

static int flush_all(void *state, struct writer *reply)
{
	struct walk *w = state;
	int r = delete_some(w);

	if (r != 0)
		return walk_stop(w, r > 0 ? -EAGAIN : r);
	writer_literal(reply, "{");
	reply_number(w, reply);
	return 0;
}

/* ---- the methods ---- */

/* Takes the walk through `produce`, turn by turn. */
static int walk_start(struct call *call, struct manager *m, const struct flow_filter *f,
		      bool dry_run, int (*produce)(void *state, struct writer *reply))
{
	struct walk *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->manager = m;
	w->call = call;
	w->filter = *f;
	w->filter.selector = NULL; /* goes with the parameters */
	w->dry_run = dry_run;
	w->selector = f->selector ? strdup(f->selector) : NULL;
	if (f->selector && !w->selector) {
		walk_free(w);
		return -ENOMEM;
	}
	return call_stream(call, produce, w, walk_free);
}

static int start(struct call *call, json_t *parameters, struct manager *m,
		 enum filter_request_kind kind, int (*produce)(void *state, struct writer *reply))
{
	struct filter_request request;
	int r;

	if (!methods_read_filter(call, parameters, m, kind, &request, &r))
		return r;
	return walk_start(call, m, &request.filter, request.dry_run, produce);
}

int methods_conntrack(struct call *call, json_t *parameters, void *userdata)
{
	return start(call, parameters, userdata, FILTER_ALONE,
		     call_wants_more(call) ? list_part : list_all);
}

int methods_conntrack_get(struct call *call, json_t *parameters, void *userdata)
{
	struct flow_filter filter;
	int r;

	if (!methods_read_tuple(call, parameters, &filter, &r))
		return r;
	return walk_start(call, userdata, &filter, false, get_one);
}

int methods_conntrack_count(struct call *call, json_t *parameters, void *userdata)
{
	return start(call, parameters, userdata, FILTER_ALONE, count_all);
}

int methods_conntrack_delete(struct call *call, json_t *parameters, void *userdata)
{
	return start(call, parameters, userdata, FILTER_DELETE,
		     call_wants_more(call) ? delete_part : delete_all);
}

int methods_conntrack_flush(struct call *call, json_t *parameters, void *userdata)
{
	static const struct parameter table[] = {{"dryRun", PARAMETER_BOOL, false, 0},
						 {NULL, PARAMETER_STRING, false, 0}};
	const struct flow_filter everything = {.sport = METHODS_NO_PORT, .dport = METHODS_NO_PORT};
	bool dry_run;
	int r;

	if (!methods_read_parameters(call, parameters, table, &dry_run, &r))
		return r;
	return walk_start(call, userdata, &everything, dry_run, flush_all);
}
