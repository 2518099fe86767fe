/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events for whoever listens. Costs a test of one word when nobody does; losses are counted. */
#pragma once

#include "maps.bpf.h"
#include "stats.bpf.h"

static __noinline int event_emit(const struct flow *f, __u32 kind, __u32 detail, __u32 length)
{
	struct flow_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	struct cpu_counters *counts;

	if (!e) {
		counts = counters_get();
		if (counts)
			counts->events_lost++;
		return 0;
	}
	e->kind = kind;
	e->reason = detail;
	e->direction = detail;
	e->pad = 0;
	e->length = length;
	__builtin_memcpy(&e->flow, f, sizeof(e->flow));
	bpf_ringbuf_submit(e, 0);
	return 0;
}

static __always_inline void event_flow(const struct datapath_config *c, const struct flow *f,
				       enum event_kind kind, __u32 reason)
{
	if (c->events & EVENTS_FLOWS)
		event_emit(f, kind, reason, 0);
}

static __always_inline void event_packet(const struct datapath_config *c, const struct flow *f,
					 __u32 direction, __u32 length)
{
	if (c->events & EVENTS_PACKETS && !(bpf_get_prandom_u32() & c->sample_mask))
		event_emit(f, EVENT_PACKET, direction, length);
}
