// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/flows.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/datapath.h"

#define READ_TRIES 8

static const char *const state_names[FLOW_STATE_COUNT] = {
	[FLOW_FREE] = "NONE",
	[FLOW_SYN_SENT] = "SYN_SENT",
	[FLOW_SYN_RECV] = "SYN_RECV",
	[FLOW_ESTABLISHED] = "ESTABLISHED",
	[FLOW_FIN_WAIT] = "FIN_WAIT",
	[FLOW_CLOSE_WAIT] = "CLOSE_WAIT",
	[FLOW_LAST_ACK] = "LAST_ACK",
	[FLOW_TIME_WAIT] = "TIME_WAIT",
	[FLOW_CLOSE] = "CLOSE",
	[FLOW_SYN_SENT2] = "SYN_SENT2",
	[FLOW_UDP_UNREPLIED] = "UNREPLIED",
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

uint32_t flows_timeout(struct datapath *d, const struct flow *f)
{
	const struct datapath_config *config = datapath_config(d);
	uint32_t state = f->state, own = 0;

	if (state >= FLOW_STATE_COUNT)
		return UINT32_MAX;
	if (config->rule_timeouts)
		own = datapath_rule_settings(d)[f->rule].timeouts[state];
	return own ? own : config->timeouts[state];
}

/* Of most flows the first direction tells: the other's cache line is left alone. */
bool flows_expired(struct datapath *d, const struct flow *f, uint32_t now)
{
	uint32_t timeout = flows_timeout(d, f);

	return ticks_since(f->original.seen, now) > timeout &&
	       ticks_since(f->reply.seen, now) > timeout;
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

static void view_at(struct datapath *d, const struct flow *f, uint32_t now, struct flow_view *ret)
{
	uint32_t idle = flows_idle_ticks(f, now), timeout = flows_timeout(d, f);

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

void flows_view(struct datapath *d, const struct flow *f, struct flow_view *ret)
{
	view_at(d, f, datapath_ticks(d), ret);
}

void flows_walk_resume(struct flows_walk *w, struct datapath *d)
{
	w->datapath = d;
	w->flows = datapath_flows(d, &w->n);
	w->now = datapath_ticks(d);
	if (!w->cursor)
		w->epoch = datapath_flows_epoch(d);
	w->stale = w->epoch != datapath_flows_epoch(d);
	datapath_flows_walked(d, true);
}

int flows_next(struct flows_walk *w, uint32_t *budget, struct flow_view *ret)
{
	struct flow f;

	if (w->stale)
		return -ESTALE;
	for (; w->cursor < w->n; w->cursor++) {
		if (*budget == 0)
			return -EAGAIN;
		(*budget)--;
		if (!flows_read(&w->flows[w->cursor], &f) || flows_expired(w->datapath, &f, w->now))
			continue;
		view_at(w->datapath, &f, w->now, ret);
		w->last = (struct sweep_item){.record = datapath_record(w->datapath, w->cursor++),
					      .seq = f.seq};
		return 1;
	}
	datapath_flows_walked(w->datapath, false);
	return 0;
}

uint64_t flows_count(struct datapath *d)
{
	uint32_t n, now = datapath_ticks(d);
	const struct flow *flows = datapath_flows(d, &n);
	uint64_t count = 0;

	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE && !(flows[i].seq & FLOW_OWNED) &&
		    !flows_expired(d, &flows[i], now))
			count++;
	return count;
}

/* ---- sums ---- */

void flow_target_sums_clear(struct flow_target_sums *t)
{
	free(t->blocks);
	free(t->sums);
	free(t->scratch);
	*t = (struct flow_target_sums){0};
}

void flow_target_sums_forget(struct flow_target_sums *t, uint32_t rule)
{
	uint32_t block = t->blocks ? t->blocks[rule] : 0;

	if (block)
		memset(&t->sums[(block - 1) * BALANCE_TARGETS], 0,
		       BALANCE_TARGETS * sizeof(*t->sums));
}

const struct flow_sums *flow_target_sums_find(const struct flow_target_sums *t, uint32_t rule,
					      uint32_t number)
{
	uint32_t block = t->blocks ? t->blocks[rule] : 0;

	return block ? &t->sums[(block - 1) * BALANCE_TARGETS + number] : NULL;
}

static int target_sums_grow(struct flow_sums **sums, size_t n)
{
	struct flow_sums *more = reallocarray(*sums, (n + 1) * BALANCE_TARGETS, sizeof(*more));

	if (!more)
		return -ENOMEM;
	memset(more + n * BALANCE_TARGETS, 0, BALANCE_TARGETS * sizeof(*more));
	*sums = more;
	return 0;
}

/* The block of a rule, made where there is none. NULL: no memory. */
static struct flow_sums *target_block(struct flow_target_sums *t, uint32_t rule)
{
	if (!t->blocks[rule]) {
		if (target_sums_grow(&t->sums, t->n) < 0 || target_sums_grow(&t->scratch, t->n) < 0)
			return NULL;
		t->blocks[rule] = ++t->n;
	}
	return t->scratch + (t->blocks[rule] - 1) * BALANCE_TARGETS;
}

static void add_dead(struct flow_sums *to, const struct rule_counters *from)
{
	to->packets += from->packets;
	to->bytes += from->bytes;
	to->flows += from->created;
}

/*
 * A target's number has what the datapath has counted for it. In the place of number 0, of which it
 * counts nothing, is what all others have, former ones too.
 */
static int sum_dead_targets(struct datapath *d, struct flow_target_sums *t)
{
	uint32_t key, *last = NULL;

	if (!t->blocks && !(t->blocks = calloc(RULE_COUNT, sizeof(*t->blocks))))
		return -ENOMEM;
	if (t->n)
		memset(t->scratch, 0, t->n * BALANCE_TARGETS * sizeof(*t->scratch));
	for (; datapath_target_next(d, last, &key) == 0; last = &key) {
		uint32_t rule = key >> 8, number = key & 0xff;
		struct flow_sums *block = target_block(t, rule);
		struct rule_counters counters;

		if (!block)
			return -ENOMEM;
		datapath_target_get(d, key, &counters);
		add_dead(&block[0], &counters);
		if (number < BALANCE_TARGETS)
			add_dead(&block[number], &counters);
	}
	return 0;
}

static void add_living(struct flow_sums *to, const struct flow *f, bool expired)
{
	to->packets += f->original.packets + f->reply.packets;
	to->bytes += f->original.bytes + f->reply.bytes;
	to->active += !expired;
	to->unassured += !expired && !(f->flags & FLOW_ASSURED);
}

static void sum_living(struct datapath *d, struct flow_sums *sums, struct flow_target_sums *t)
{
	uint32_t n, now = datapath_ticks(d);
	const struct flow *flows = datapath_flows(d, &n);
	struct flow f;

	for (uint32_t i = 1; i < n; i++) {
		uint32_t number, block;
		bool expired;

		if (flows[i].state == FLOW_FREE || !flows_read(&flows[i], &f))
			continue;
		expired = flows_expired(d, &f, now);
		add_living(&sums[f.rule], &f, expired);
		number = FLOW_TARGET(f.origin);
		block = number ? t->blocks[f.rule] : 0;
		if (!block)
			continue;
		add_living(&t->scratch[(block - 1) * BALANCE_TARGETS], &f, expired);
		add_living(&t->scratch[(block - 1) * BALANCE_TARGETS + number], &f, expired);
	}
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void raise(struct flow_sums *kept, const struct flow_sums *now)
{
	kept->packets = larger(kept->packets, now->packets);
	kept->bytes = larger(kept->bytes, now->bytes);
	kept->flows = larger(kept->flows, now->flows);
	kept->refused = larger(kept->refused, now->refused);
	kept->active = now->active;
	kept->unassured = now->unassured;
}

static uint64_t rest(uint64_t all, uint64_t others)
{
	return all > others ? all - others : 0;
}

/* Number 0 has what the others do not. */
static void raise_targets(struct flow_target_sums *t, const struct flow_sums *rules)
{
	for (uint32_t rule = 0; t->n && rule < RULE_COUNT; rule++) {
		struct flow_sums *block, *others;

		if (!t->blocks[rule])
			continue;
		block = t->sums + (t->blocks[rule] - 1) * BALANCE_TARGETS;
		others = t->scratch + (t->blocks[rule] - 1) * BALANCE_TARGETS;
		others->packets = rest(rules[rule].packets, others->packets);
		others->bytes = rest(rules[rule].bytes, others->bytes);
		others->flows = rest(rules[rule].flows, others->flows);
		others->active = rest(rules[rule].active, others->active);
		for (int number = 0; number < BALANCE_TARGETS; number++)
			raise(&block[number], &others[number]);
	}
}

/*
 * The dead first, then the living: a flow that ends in between is missing from these sums and in
 * the next; the other order would count it twice. So that they do not fall, what was there stays.
 * For the same reason datapath_flows() has the table that flows move to first.
 */
int flows_sum(struct datapath *d, struct flow_sums *scratch, struct flow_sums *sums,
	      struct flow_target_sums *targets)
{
	const struct rule_counters *dead = datapath_rule_counters(d);
	int r = sum_dead_targets(d, targets);

	if (r < 0)
		return r;
	memset(scratch, 0, RULE_COUNT * sizeof(*scratch));
	for (uint32_t i = 0; i < RULE_COUNT; i++) {
		add_dead(&scratch[i], &dead[i]);
		scratch[i].refused = dead[i].refused;
	}
	sum_living(d, scratch, targets);
	for (uint32_t i = 0; i < RULE_COUNT; i++)
		raise(&sums[i], &scratch[i]);
	raise_targets(targets, sums);
	return 0;
}

/* ---- the sweep ---- */

int flows_sweep(struct datapath *d, uint32_t *cursor, uint32_t n_records)
{
	uint32_t n, now = datapath_ticks(d), n_items = 0;
	const struct flow *flows = datapath_flows(d, &n);
	struct sweep_item items[SWEEP_BATCH];
	int freed = 0, r = 0;

	for (uint32_t looked = 0; looked < n_records && looked < n && r >= 0; looked++) {
		uint32_t i = *cursor < n ? *cursor : 0;

		*cursor = i + 1;
		if (flows[i].state == FLOW_FREE || !flows_expired(d, &flows[i], now))
			continue;
		items[n_items++] = (struct sweep_item){.record = datapath_record(d, i),
						       .seq = flows[i].seq,
						       .reason = DESTROY_EXPIRED};
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
