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
#include "shared/rule-json.h"

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

static json_t *packet_pack(const struct event_view *e)
{
	if (e->kind != EVENT_PACKET)
		return json_null();
	return json_pack("{s:s, s:I}", "direction", e->reply ? "reply" : "original", "length",
			 (json_int_t)e->length);
}

static json_t *event_pack(struct monitor *m, const struct queued_event *q)
{
	const struct event_view *e = &q->view;
	json_int_t time = (json_int_t)q->time.tv_sec * 1000000 + q->time.tv_nsec / 1000;
	const char *reason = e->kind == EVENT_DESTROY ? event_reason_name(e->reason) : NULL;

	return json_pack("{s:s, s:I, s:s?, s:o, s:o}", "event", event_kind_name(e->kind), "time_us",
			 time, "reason", reason, "packet", packet_pack(e), "flow",
			 methods_pack_flow(&e->flow, &m->interfaces));
}

static json_t *take_events(struct monitor *m)
{
	json_t *array = json_array();

	/* Names may have changed since the last reply. */
	m->interfaces.n = 0;
	for (size_t i = 0; m->n > 0 && i < EVENTS_PER_REPLY; i++) {
		if (json_array_append_new(array, event_pack(m, &m->queue[m->first])) < 0) {
			json_decref(array);
			return NULL;
		}
		m->first = (m->first + 1) % EVENTS_QUEUED;
		m->n--;
	}
	return array;
}

static int produce(void *state, json_t **ret)
{
	struct monitor *m = state;

	if (m->began && m->n == 0)
		return -EINPROGRESS;
	m->began = true;
	*ret = json_pack("{s:i, s:o, s:o}", "schema", METHODS_SCHEMA, "events", take_events(m),
			 "lost",
			 rule_json_counter(m->lost + events_lost(m->events) - m->lost_base));
	return *ret ? 1 : -ENOMEM;
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
	struct flow_filter filter;
	struct monitor *m;
	uint32_t packets;
	int r;

	if (!methods_read_filter(call, parameters, userdata, &filter, &packets, &r))
		return r;
	if (rule_is_gone(userdata, &filter))
		return methods_no_such_rule(call, filter.selector);
	if (!call_wants_more(call))
		return call_error(call, "org.varlink.service.ExpectedMore", json_object());
	m = monitor_new(call, events);
	if (!m)
		return -ENOMEM;
	m->filter = filter;
	m->filter.selector = NULL; /* goes with the parameters */
	m->listener.sample = round_sample(packets);
	m->lost_base = events_lost(events);
	events_listen(events, &m->listener);
	return call_stream(call, produce, m, monitor_free);
}
