/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Monitor: flow events as they happen. Each call has a queue of its own; what does not fit because
 * its client reads slowly is counted as lost, and nobody waits for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/datapath.h"
#include "daemon/events.h"
#include "daemon/manager.h"
#include "daemon/methods-filter.h"
#include "daemon/methods-handlers.h"
#include "shared/cleanup.h"

#define EVENTS_PER_REPLY 512
#define EVENTS_QUEUED	 4096 /* about 1 MiB */

struct queued_event {
	struct event_view view;
	struct timespec time;
};

struct monitor {
	struct call *call;
	struct events *events;
	struct events_listener listener;
	struct flow_filter filter;
	struct queued_event *queue; /* a ring of EVENTS_QUEUED; owned */
	size_t first, n;
	uint64_t lost;	    /* did not fit */
	uint64_t lost_base; /* that the datapath had lost when this began */
	bool began;	    /* the first reply is out */
	struct interface_cache interfaces;
};

static void monitor_free(void *state)
{
	struct monitor *m = state;

	events_leave(m->events, &m->listener);
	free(m->queue);
	free(m);
}

static void on_event(void *userdata, const struct event_view *e)
{
	struct monitor *m = userdata;
	struct queued_event *q;

	if (!flow_filter_fits(&m->filter, &e->flow))
		return;
	if (m->n == EVENTS_QUEUED) {
		m->lost++;
		return;
	}
	q = &m->queue[(m->first + m->n++) % EVENTS_QUEUED];
	q->view = *e;
	clock_gettime(CLOCK_REALTIME, &q->time);
	call_wake(m->call);
}

static void write_packet(struct writer *w, const struct event_view *e)
{
	if (e->kind != EVENT_PACKET) {
		writer_literal(w, "null");
		return;
	}
	writer_literal(w, "{\"direction\":\"");
	writer_text(w, e->reply ? "reply" : "original");
	writer_literal(w, "\",\"length\":");
	writer_number(w, e->length);
	writer_literal(w, "}");
}

static void write_reason(struct writer *w, const struct event_view *e)
{
	const char *reason = e->kind == EVENT_DESTROY ? event_reason_name(e->reason) : NULL;

	if (reason)
		writer_json_string(w, reason);
	else
		writer_literal(w, "null");
}

static void write_event(struct writer *w, struct monitor *m, const struct queued_event *q)
{
	writer_literal(w, "{\"event\":\"");
	writer_text(w, event_kind_name(q->view.kind));
	writer_literal(w, "\",\"time_us\":");
	writer_number(w, (uint64_t)q->time.tv_sec * 1000000 + (uint64_t)q->time.tv_nsec / 1000);
	writer_literal(w, ",\"reason\":");
	write_reason(w, &q->view);
	writer_literal(w, ",\"packet\":");
	write_packet(w, &q->view);
	writer_literal(w, ",\"flow\":");
	methods_write_flow(w, &q->view.flow, &m->interfaces);
	writer_literal(w, "}");
}

static void write_events(struct writer *w, struct monitor *m)
{
	/* Names may have changed since the last reply. */
	m->interfaces.n = 0;
	for (size_t i = 0; m->n > 0 && i < EVENTS_PER_REPLY; i++) {
		if (i)
			writer_literal(w, ",");
		write_event(w, m, &m->queue[m->first]);
		m->first = (m->first + 1) % EVENTS_QUEUED;
		m->n--;
	}
}

static int produce(void *state, struct writer *reply)
{
	struct monitor *m = state;

	if (m->began && m->n == 0)
		return -EINPROGRESS;
	m->began = true;
	writer_literal(reply, METHODS_SCHEMA_BEGIN "\"events\":[");
	write_events(reply, m);
	writer_literal(reply, "],\"lost\":");
	writer_json_number(reply, m->lost + events_lost(m->events) - m->lost_base);
	writer_literal(reply, "}");
	return 1;
}

/* One packet in so many: a power of two, as the datapath samples. */
static uint32_t round_sample(uint32_t packets)
{
	uint32_t power = 1;

	while (power <= packets / 2 && power < EVENTS_SAMPLE_MOST)
		power *= 2;
	return packets ? power : 0;
}

/* A rule that is gone has events as long as flows of it live; else the number is a mistake. */
static bool rule_is_gone(struct manager *m, const struct flow_filter *f)
{
	const struct rule_counters *c = datapath_rule_counters(manager_datapath(m));

	return f->rule_unknown &&
	       (f->rule >= RULE_COUNT || c[f->rule].created == c[f->rule].destroyed);
}

static struct monitor *monitor_new(struct call *call, struct events *events)
{
	struct monitor *m = calloc(1, sizeof(*m));
	struct queued_event *queue = calloc(EVENTS_QUEUED, sizeof(*queue));

	if (!m || !queue) {
		free(m);
		free(queue);
		return NULL;
	}
	m->call = call;
	m->events = events;
	m->queue = queue;
	m->listener.handler = on_event;
	m->listener.userdata = m;
	return m;
}

int methods_monitor(struct call *call, json_t *parameters, void *userdata)
{
	struct events *events = manager_events(userdata);
	struct filter_request request;
	struct monitor *m;
	int r;

	if (!methods_read_filter(call, parameters, userdata, FILTER_MONITOR, &request, &r))
		return r;
	if (rule_is_gone(userdata, &request.filter))
		return methods_no_such_rule(call, request.filter.selector);
	if (!call_wants_more(call))
		return call_error(call, "org.varlink.service.ExpectedMore", json_object());
	m = monitor_new(call, events);
	if (!m)
		return -ENOMEM;
	m->filter = request.filter;
	m->filter.selector = NULL; /* goes with the parameters */
	m->listener.sample = round_sample(request.packets);
	m->lost_base = events_lost(events);
	events_listen(events, &m->listener);
	return call_stream(call, produce, m, monitor_free);
}
