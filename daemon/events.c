// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/events.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "daemon/datapath.h"
#include "daemon/flows.h"

#define SAMPLE_MASK 1023 /* one packet in 1024 */

struct events {
	struct datapath *datapath;
	struct ring_buffer *ring;
	sd_event_source *source;
};

static const char *const destroy_reasons[] = {
	[DESTROY_EXPIRED] = "expired",	  [DESTROY_REOPENED] = "reopened",
	[DESTROY_EVICTED] = "evicted",	  [DESTROY_RULE] = "rule changed",
	[DESTROY_REQUEST] = "on request",
};

static void print_tuple(const struct flow_tuple *t)
{
	char src[IP_PREFIX_STRLEN], dst[IP_PREFIX_STRLEN];

	printf(" src=%s dst=%s sport=%u dport=%u", ip_address_format(&t->src, src),
	       ip_address_format(&t->dst, dst), t->sport, t->dport);
}

static void print_counts(const struct flow_tuple *t)
{
	printf(" packets=%" PRIu64 " bytes=%" PRIu64, t->packets, t->bytes);
}

static void print_event(const struct flow_event *e, const struct flow_view *v)
{
	static const char *const names[] = {"NEW", "DESTROY", "PACKET"};
	bool counts = e->kind == EVENT_DESTROY;
	char interface[IF_NAMESIZE];

	printf("%s %s", names[e->kind], v->protocol == IPPROTO_UDP ? "udp" : "tcp");
	if (e->kind == EVENT_PACKET)
		printf(" %s length=%u", e->direction ? "reply" : "original", e->length);
	printf(" %s", flow_state_name(v->state));
	print_tuple(&v->original);
	if (counts)
		print_counts(&v->original);
	print_tuple(&v->reply);
	if (counts)
		print_counts(&v->reply);
	if (v->ifindex && if_indextoname(v->ifindex, interface))
		printf(" on %s", interface);
	printf(" rule=%u", v->rule);
	if (e->kind == EVENT_DESTROY &&
	    e->reason < sizeof(destroy_reasons) / sizeof(*destroy_reasons))
		printf(" (%s)", destroy_reasons[e->reason]);
	putchar('\n');
}

static int on_event(void *userdata, void *data, size_t size)
{
	struct events *events = userdata;
	const struct flow_event *e = data;
	struct flow_view v;

	if (size < sizeof(*e) || e->kind > EVENT_PACKET)
		return 0;
	flows_view(events->datapath, &e->flow, &v);
	print_event(e, &v);
	return 0;
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct events *events = userdata;

	ring_buffer__consume(events->ring);
	fflush(stdout);
	return 0;
}

int events_new(sd_event *event, struct datapath *d, int verbosity, struct events **ret)
{
	_cleanup_(events_freep) struct events *e = calloc(1, sizeof(*e));
	struct datapath_config *config = datapath_config(d);
	int r;

	if (!e)
		return -ENOMEM;
	e->datapath = d;
	e->ring = ring_buffer__new(datapath_events_fd(d), on_event, e, NULL);
	if (!e->ring)
		return -errno;
	r = sd_event_add_io(event, &e->source, ring_buffer__epoll_fd(e->ring), EPOLLIN, on_readable,
			    e);
	if (r < 0)
		return r;
	config->sample_mask = SAMPLE_MASK;
	config->events = EVENTS_FLOWS | (verbosity > 1 ? EVENTS_PACKETS : 0);
	*ret = take_ptr(e);
	return 0;
}

struct events *events_free(struct events *e)
{
	if (!e)
		return NULL;
	datapath_config(e->datapath)->events = 0;
	if (e->ring)
		ring_buffer__consume(e->ring);
	fflush(stdout);
	sd_event_source_unref(e->source);
	ring_buffer__free(e->ring);
	free(e);
	return NULL;
}
