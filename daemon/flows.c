// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/flows.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "daemon/datapath.h"

#define READ_TRIES 8

static const char *const state_names[FLOW_STATE_COUNT] = {
	[FLOW_FREE] = "NONE",		[FLOW_SYN_SENT] = "SYN_SENT",
	[FLOW_SYN_RECV] = "SYN_RECV",	[FLOW_ESTABLISHED] = "ESTABLISHED",
	[FLOW_FIN_WAIT] = "FIN_WAIT",	[FLOW_CLOSE_WAIT] = "CLOSE_WAIT",
	[FLOW_LAST_ACK] = "LAST_ACK",	[FLOW_TIME_WAIT] = "TIME_WAIT",
	[FLOW_CLOSE] = "CLOSE",		[FLOW_UDP_UNREPLIED] = "UNREPLIED",
	[FLOW_UDP_REPLIED] = "REPLIED",
};

const char *flow_state_name(enum flow_state state)
{
	return state < FLOW_STATE_COUNT ? state_names[state] : "NONE";
}

bool flows_read(const struct flow *from, struct flow *ret)
{
	for (int i = 0; i < READ_TRIES; i++) {
		uint16_t seq = __atomic_load_n(&from->seq, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&from->state, __ATOMIC_RELAXED) == FLOW_FREE)
			return false;
		memcpy(ret, from, sizeof(*ret));
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (ret->state != FLOW_FREE && !(seq & FLOW_OWNED) &&
		    __atomic_load_n(&from->seq, __ATOMIC_RELAXED) == seq)
			return true;
	}
	return false;
}

/* The daemon's idea of now may be a tick behind the packets'. */
static uint32_t ticks_since(uint32_t then, uint32_t now)
{
	return (int32_t)(now - then) < 0 ? 0 : now - then;
}

uint32_t flows_idle_ticks(const struct flow *f, uint32_t now)
{
	uint32_t a = ticks_since(f->original.seen, now), b = ticks_since(f->reply.seen, now);

	return a < b ? a : b;
}

bool flows_expired(const struct flow *f, const struct datapath_config *config, uint32_t now)
{
	return f->state < FLOW_STATE_COUNT && flows_idle_ticks(f, now) > config->timeouts[f->state];
}

static void view_tuple(const struct flow_dir *d, bool ipv6, struct flow_tuple *ret)
{
	ip_prefix_from_mapped((const uint8_t *)d->saddr, &ret->src);
	ip_prefix_from_mapped((const uint8_t *)d->daddr, &ret->dst);
	if (ipv6 && ret->src.family == AF_INET) {
		/* A mapped address on the wire is IPv6 all the same. */
		ret->src = (struct ip_prefix){.family = AF_INET6, .length = 128};
		memcpy(ret->src.bytes, d->saddr, 16);
	}
	if (ipv6 && ret->dst.family == AF_INET) {
		ret->dst = (struct ip_prefix){.family = AF_INET6, .length = 128};
		memcpy(ret->dst.bytes, d->daddr, 16);
	}
	ret->sport = ntohs(d->sport);
	ret->dport = ntohs(d->dport);
	ret->packets = d->packets;
	ret->bytes = d->bytes;
}

void flows_view(struct datapath *d, const struct flow *f, struct flow_view *ret)
{
	const struct datapath_config *config = datapath_config(d);
	uint32_t now = datapath_ticks(d);
	uint32_t idle = flows_idle_ticks(f, now);
	uint32_t timeout = f->state < FLOW_STATE_COUNT ? config->timeouts[f->state] : 0;

	*ret = (struct flow_view){
		.rule = f->rule,
		.protocol = f->flags & FLOW_UDP ? IPPROTO_UDP : IPPROTO_TCP,
		.state = f->state,
		.assured = f->flags & FLOW_ASSURED,
		.replied = f->flags & FLOW_REPLIED,
		.ifindex = FLOW_IFINDEX(f->origin),
		.age_ms = datapath_ticks_to_ms(d, ticks_since(f->created, now)),
		.expires_ms = idle < timeout ? datapath_ticks_to_ms(d, timeout - idle) : 0,
	};
	view_tuple(&f->original, f->flags & FLOW_IPV6, &ret->original);
	view_tuple(&f->reply, f->flags & FLOW_IPV6, &ret->reply);
}

int flows_next(struct datapath *d, uint32_t *cursor, uint32_t budget, struct flow_view *ret)
{
	const struct datapath_config *config = datapath_config(d);
	uint32_t n, now = datapath_ticks(d);
	const struct flow *flows = datapath_flows(d, &n);
	struct flow f;

	for (; *cursor < n; (*cursor)++) {
		if (!budget--)
			return -EAGAIN;
		if (!flows_read(&flows[*cursor], &f) || flows_expired(&f, config, now))
			continue;
		flows_view(d, &f, ret);
		(*cursor)++;
		return 1;
	}
	return 0;
}

uint64_t flows_count(struct datapath *d)
{
	const struct datapath_config *config = datapath_config(d);
	uint32_t n, now = datapath_ticks(d);
	const struct flow *flows = datapath_flows(d, &n);
	uint64_t count = 0;

	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE && !flows_expired(&flows[i], config, now))
			count++;
	return count;
}

/*
 * The dead first, then the living: a flow that ends in between is missing from this sum and in the
 * next; the other order would count it twice. The caller keeps sums from falling.
 */
void flows_sum(struct datapath *d, struct flow_sums *sums)
{
	const struct rule_counters *dead = datapath_rule_counters(d);
	const struct datapath_config *config = datapath_config(d);
	uint32_t n, now = datapath_ticks(d);
	const struct flow *flows = datapath_flows(d, &n);

	for (uint32_t i = 0; i < RULE_COUNT; i++) {
		sums[i].packets = dead[i].packets;
		sums[i].bytes = dead[i].bytes;
		sums[i].flows = dead[i].created;
		sums[i].active = 0;
	}
	for (uint32_t i = 1; i < n; i++) {
		struct flow f;

		if (flows[i].state == FLOW_FREE || !flows_read(&flows[i], &f))
			continue;
		sums[f.rule].packets += f.original.packets + f.reply.packets;
		sums[f.rule].bytes += f.original.bytes + f.reply.bytes;
		sums[f.rule].active += !flows_expired(&f, config, now);
	}
}

int flows_sweep(struct datapath *d, uint32_t *cursor, uint32_t n_records)
{
	const struct datapath_config *config = datapath_config(d);
	uint32_t n, now = datapath_ticks(d), n_items = 0;
	const struct flow *flows = datapath_flows(d, &n);
	struct sweep_item items[SWEEP_BATCH];
	int freed = 0, r = 0;

	for (uint32_t looked = 0; looked < n_records && looked < n && r >= 0; looked++) {
		uint32_t i = *cursor < n ? *cursor : 0;

		*cursor = i + 1;
		if (flows[i].state == FLOW_FREE || !flows_expired(&flows[i], config, now))
			continue;
		items[n_items++] = (struct sweep_item){.record = i, .seq = flows[i].seq};
		if (n_items < SWEEP_BATCH)
			continue;
		r = datapath_sweep(d, items, n_items);
		freed += r > 0 ? r : 0;
		n_items = 0;
	}
	if (r >= 0 && n_items) {
		r = datapath_sweep(d, items, n_items);
		freed += r > 0 ? r : 0;
	}
	return r < 0 ? r : freed;
}
