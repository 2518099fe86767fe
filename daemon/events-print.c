// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/events-print.h"

#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/events.h"

#define SAMPLE 1024 /* one packet in so many */

struct events_print {
	struct events *events;
	struct events_listener listener;
	uint64_t lost;
};

static void print_tuple(const struct flow_tuple *t, bool counts)
{
	char src[IP_PREFIX_STRLEN], dst[IP_PREFIX_STRLEN];

	printf(" src=%s dst=%s sport=%u dport=%u", ip_address_format(&t->src, src),
	       ip_address_format(&t->dst, dst), t->sport, t->dport);
	if (counts)
		printf(" packets=%" PRIu64 " bytes=%" PRIu64, t->packets, t->bytes);
}

static void print_event(void *userdata, const struct event_view *e)
{
	const struct flow_view *v = &e->flow;
	bool ended = e->kind == EVENT_DESTROY;
	const char *reason = ended ? event_reason_name(e->reason) : NULL;
	char interface[IF_NAMESIZE];

	printf("%s %s", event_kind_name(e->kind), v->protocol == IPPROTO_UDP ? "udp" : "tcp");
	if (e->kind == EVENT_PACKET)
		printf(" %s length=%u", e->reply ? "reply" : "original", e->length);
	printf(" %s", flow_state_name(v->state));
	print_tuple(&v->original, ended);
	print_tuple(&v->reply, ended);
	if (v->ifindex && if_indextoname(v->ifindex, interface))
		printf(" on %s", interface);
	printf(" rule=%u", v->rule);
	if (reason)
		printf(" (%s)", reason);
	putchar('\n');
	fflush(stdout);
}

/* What is gone is told where it is missing. */
static void print_lost(void *userdata, uint64_t n)
{
	struct events_print *p = userdata;

	p->lost += n;
	printf("LOST %" PRIu64 " events, %" PRIu64 " so far: they came too fast\n", n, p->lost);
	fflush(stdout);
}

int events_print_new(struct events *events, int verbosity, struct events_print **ret)
{
	struct events_print *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->events = events;
	p->listener.handler = print_event;
	p->listener.lost = print_lost;
	p->listener.userdata = p;
	p->listener.sample = verbosity > 1 ? SAMPLE : 0;
	events_listen(events, &p->listener);
	*ret = p;
	return 0;
}

struct events_print *events_print_free(struct events_print *p)
{
	if (!p)
		return NULL;
	events_leave(p->events, &p->listener);
	free(p);
	return NULL;
}
