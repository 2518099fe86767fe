// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/events.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "daemon/datapath.h"

/*
 * How many events are taken in one turn of the event loop: less than a listener's next reply may
 * hold, so that one which reads as fast as it can loses none of a burst.
 */
#define EVENTS_PER_TURN 256

struct events {
	struct datapath *datapath;
	struct ring_buffer *ring;
	sd_event_source *source;
	unsigned turn; /* events taken in this one */
	uint64_t lost; /* that listeners have been told of */
	LIST_HEAD(, events_listener) listeners;
};

static const char *const kind_names[] = {
	[EVENT_NEW] = "NEW",
	[EVENT_DESTROY] = "DESTROY",
	[EVENT_PACKET] = "PACKET",
};

static const char *const reason_names[] = {
	[DESTROY_EXPIRED] = "expired",	 [DESTROY_REOPENED] = "reopened",
	[DESTROY_EVICTED] = "evicted",	 [DESTROY_RULE] = "rule-changed",
	[DESTROY_REQUEST] = "requested",
};

const char *event_kind_name(enum event_kind kind)
{
	return kind_names[kind];
}

const char *event_reason_name(enum destroy_reason reason)
{
	return reason < sizeof(reason_names) / sizeof(*reason_names) ? reason_names[reason] : NULL;
}

/* The datapath samples for whoever wants most; the others skip their share of it. */
static bool listener_wants(const struct events *e, struct events_listener *l,
			   const struct event_view *v)
{
	if (v->kind != EVENT_PACKET)
		return true;
	if (!l->sample)
		return false;
	if (++l->skipped < l->sample / (datapath_config(e->datapath)->sample_mask + 1))
		return false;
	l->skipped = 0;
	return true;
}

static int on_event(void *userdata, void *data, size_t size)
{
	struct events *e = userdata;
	const struct flow_event *raw = data;
	struct events_listener *l;
	struct event_view v;

	if (size < sizeof(*raw) || raw->kind > EVENT_PACKET)
		return 0;
	v = (struct event_view){
		.kind = (enum event_kind)raw->kind,
		.reason = (enum destroy_reason)raw->reason,
		.reply = raw->direction,
		.length = raw->length,
	};
	flows_view(e->datapath, &raw->flow, &v.flow);
	LIST_FOREACH(l, &e->listeners, link)
	if (listener_wants(e, l, &v))
		l->handler(l->userdata, &v);
	return ++e->turn < EVENTS_PER_TURN ? 0 : -EAGAIN; /* ends this turn; the rest waits */
}

/* Asked once a turn: a full buffer always has events left for another one. */
static void tell_losses(struct events *e)
{
	uint64_t lost = events_lost(e), before = e->lost;
	struct events_listener *l;

	if (lost <= before)
		return;
	e->lost = lost;
	LIST_FOREACH(l, &e->listeners, link)
	if (l->lost)
		l->lost(l->userdata, lost - before);
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct events *e = userdata;

	e->turn = 0;
	ring_buffer__consume(e->ring);
	tell_losses(e);
	return 0;
}

int events_new(sd_event *event, struct datapath *d, struct events **ret)
{
	_cleanup_(events_freep) struct events *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	e->datapath = d;
	LIST_INIT(&e->listeners);
	datapath_config(d)->events = 0; /* a former daemon may have died listening */
	e->ring = ring_buffer__new(datapath_events_fd(d), on_event, e, NULL);
	if (!e->ring)
		return -errno;
	r = sd_event_add_io(event, &e->source, ring_buffer__epoll_fd(e->ring), EPOLLIN, on_readable,
			    e);
	if (r < 0)
		return r;
	*ret = take_ptr(e);
	return 0;
}

struct events *events_free(struct events *e)
{
	if (!e)
		return NULL;
	datapath_config(e->datapath)->events = 0;
	sd_event_source_disable_unref(e->source);
	ring_buffer__free(e->ring);
	free(e);
	return NULL;
}

/* Tells the datapath what somebody wants to hear of. */
static void update_datapath(struct events *e)
{
	struct datapath_config *config = datapath_config(e->datapath);
	uint32_t wanted = 0, sample = 0;
	struct events_listener *l;

	LIST_FOREACH(l, &e->listeners, link)
	{
		wanted |= EVENTS_FLOWS | (l->sample ? EVENTS_PACKETS : 0);
		if (l->sample && (!sample || l->sample < sample))
			sample = l->sample;
	}
	config->sample_mask = sample ? sample - 1 : 0;
	config->events = wanted;
}

void events_listen(struct events *e, struct events_listener *l)
{
	do /* what still lies there was meant for former listeners */
		e->turn = 0;
	while (LIST_EMPTY(&e->listeners) && ring_buffer__consume(e->ring) == -EAGAIN);
	if (LIST_EMPTY(&e->listeners))
		e->lost = events_lost(e);
	l->skipped = 0;
	LIST_INSERT_HEAD(&e->listeners, l, link);
	update_datapath(e);
}

void events_leave(struct events *e, struct events_listener *l)
{
	LIST_REMOVE(l, link);
	update_datapath(e);
}

uint64_t events_lost(struct events *e)
{
	struct cpu_counters sum;

	return datapath_counters(e->datapath, &sum) < 0 ? 0 : sum.events_lost;
}
