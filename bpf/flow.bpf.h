/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a flow: begun by the first packet that a rule takes (flow-begin.bpf.h), moved on by
 * every packet (here), held against the rules when these change (flow-hold.bpf.h), ended
 * (flow-end.bpf.h) when it has expired, when its room is needed (flow-room.bpf.h), or when the
 * rules say otherwise.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "flow-begin.bpf.h"
#include "flow-end.bpf.h"
#include "flow-hold.bpf.h"
#include "flow-room.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"
#include "tcp.bpf.h"

/* State and flags of a flow after a packet, the state in the low byte, the flags above it. */
#define FLOW_NEWS(state, flags) ((state) | (__u32)(flags) << 8)

static __always_inline __u32 flow_news(const struct flow *f, const struct packet *p,
				       __u32 direction)
{
	bool reply = direction == DIRECTION_REPLY;
	__u8 flags = f->flags;
	__u32 state = f->state;

	if (reply)
		flags |= FLOW_REPLIED;
	if (flags & FLOW_UDP) {
		if (!reply && flags & FLOW_REPLIED) {
			state = FLOW_UDP_REPLIED;
			flags |= FLOW_ASSURED;
		}
	} else if (state != FLOW_ESTABLISHED || p->tcp_flags & (TCP_FIN | TCP_RST)) {
		if (p->tcp_flags & TCP_FIN)
			flags |= reply ? FLOW_FIN_REPLY : FLOW_FIN_ORIG;
		state = tcp_next_state(state, flags, reply, p->tcp_flags);
	}
	if (state == FLOW_ESTABLISHED && flags & FLOW_REPLIED)
		flags |= FLOW_ASSURED;
	return FLOW_NEWS(state, flags);
}

/*
 * Moves the state on. An established flow's packets have no news and take no lock; those that have
 * look once more under the record's: another packet of the flow may be doing the same on another
 * processor, and what the two make of it has to be what one after the other would.
 */
static __always_inline void flow_update_state(const struct found *found, const struct packet *p)
{
	struct flow *f = found->flow;
	struct lock_line *line;
	__u32 news;

	if (flow_news(f, p, found->direction) == FLOW_NEWS(f->state, f->flags))
		return;
	line = table_lock(found->record / FLOW_WINDOW);
	if (!line)
		return;
	bpf_spin_lock(&line->lock);
	/* A moving flow's records are owned, and keep the number. */
	if ((table_migrating ? table_seq(f) : f->seq) == found->seq) {
		news = flow_news(f, p, found->direction);
		f->state = news;
		f->flags = news >> 8;
	}
	bpf_spin_unlock(&line->lock);
}

static __always_inline void flow_count(struct flow_dir *d, const struct packet *p, __u32 now)
{
	if (d->seen != now)
		d->seen = now;
	atomic_add(&d->packets, p->count);
	atomic_add(&d->bytes, p->bytes);
}
