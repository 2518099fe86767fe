/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The datapath's flow table beside the oracle's. */
#include <bpf/bpf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/apply.h"
#include "tests/bpf/fuzz.h"

/* What the rules had counted when the table was last emptied. */
static struct rule_counters settled[PLACES];

/* Which of its rule's targets a flow has: the datapath numbers them as they come and go. */
static unsigned target_place(const struct world *w, const struct flow *f)
{
	unsigned i = 0;

	while (i < ORACLE_LIST &&
	       apply_target_number(w->apply, f->rule, i) != FLOW_TARGET(f->origin))
		i++;
	return i;
}

void fuzz_read_flow(void *userdata, const struct oracle_tuple *original, struct oracle_choice *ret)
{
	const struct flow *f = world_find_tuple(userdata, original);

	*ret = (struct oracle_choice){.made = f};
	if (!f)
		return;
	ret->packets = f->original.packets;
	ret->reply = world_tuple(f, &f->reply);
	ret->snat = f->flags & FLOW_SNAT;
	ret->local = f->flags & FLOW_LOCAL;
	ret->rule = f->rule - 1U;
	ret->target = target_place(userdata, f);
}

bool fuzz_delete_flow(struct world *w, struct oracle_flow *f)
{
	const struct flow *found = world_find_tuple(w, &f->original), *flows;
	struct oracle_tuple reply = found ? world_tuple(found, &found->reply) : f->original;
	struct sweep_item item = {.reason = DESTROY_REQUEST};
	uint32_t n;

	if (!oracle_tuple_equal(&reply, &f->reply)) /* another one's, or lost: it will show */
		return false;
	flows = datapath_flows(w->datapath, &n);
	item.record = (uint32_t)(found - flows);
	item.seq = found->seq;
	if (datapath_sweep(w->datapath, &item, 1) != 1)
		fail_msg("a flow cannot be deleted");
	f->dead = true;
	return true;
}

static struct oracle_flow *find_original(struct oracle *o, const struct oracle_tuple *t)
{
	for (size_t i = 0; i < o->n_flows; i++)
		if (!o->flows[i].dead && oracle_tuple_equal(&o->flows[i].original, t))
			return &o->flows[i];
	return NULL;
}

static bool counted_alike(const struct oracle_flow *a, const struct flow *b)
{
	return a->packets[0] == b->original.packets && a->bytes[0] == b->original.bytes &&
	       a->packets[1] == b->reply.packets && a->bytes[1] == b->reply.bytes;
}

/* What the rule at a place has counted in this round. */
static struct rule_counters counted_by(struct world *w, size_t place)
{
	struct rule_counters c = datapath_rule_counters(w->datapath)[place + 1];

	c.packets -= settled[place].packets;
	c.bytes -= settled[place].bytes;
	c.created -= settled[place].created;
	c.destroyed -= settled[place].destroyed;
	c.refused -= settled[place].refused;
	return c;
}

static struct rule_counters expected_of(const struct oracle *o, const struct oracle_rule *r)
{
	struct rule_counters c = {.refused = r->refused};

	for (size_t i = 0; i < o->n_flows; i++) {
		const struct oracle_flow *f = &o->flows[i];

		if (f->rule != r)
			continue;
		c.created++;
		if (!f->dead)
			continue;
		c.destroyed++;
		c.packets += f->packets[0] + f->packets[1];
		c.bytes += f->bytes[0] + f->bytes[1];
	}
	return c;
}

static const char *compare_rules(struct world *w)
{
	for (size_t i = 0; i < w->oracle.n_rules; i++) {
		struct rule_counters got = counted_by(w, i),
				     want = expected_of(&w->oracle, &w->oracle.rules[i]);

		if (memcmp(&got, &want, sizeof(got)) == 0)
			continue;
		fprintf(stderr,
			"  rule %zu: %llu flows, %llu ended, %llu refused, %llu packets, %llu "
			"bytes\n",
			i + 1, (unsigned long long)got.created, (unsigned long long)got.destroyed,
			(unsigned long long)got.refused, (unsigned long long)got.packets,
			(unsigned long long)got.bytes);
		fprintf(stderr,
			"  expected: %llu flows, %llu ended, %llu refused, %llu packets, %llu "
			"bytes\n",
			(unsigned long long)want.created, (unsigned long long)want.destroyed,
			(unsigned long long)want.refused, (unsigned long long)want.packets,
			(unsigned long long)want.bytes);
		return "a rule has counted otherwise than its flows";
	}
	return NULL;
}

const char *fuzz_compare_flows(struct world *w)
{
	size_t alive = 0, expected = 0;
	const struct flow *flows;
	uint32_t n;

	for (size_t i = 0; i < w->oracle.n_flows; i++)
		expected += !w->oracle.flows[i].dead;
	flows = datapath_flows(w->datapath, &n);
	for (uint32_t i = 1; i < n; i++) {
		const struct oracle_flow *f;
		struct oracle_tuple t;

		if (flows[i].state == FLOW_FREE)
			continue;
		alive++;
		t = world_tuple(&flows[i], &flows[i].original);
		f = find_original(&w->oracle, &t);
		if (!f)
			return "there is a flow that the oracle does not know";
		if (counted_alike(f, &flows[i]))
			continue;
		fuzz_print_flow(stderr, f);
		fprintf(stderr, "  counted %llu/%llu packets, %llu/%llu bytes\n",
			(unsigned long long)flows[i].original.packets,
			(unsigned long long)flows[i].reply.packets,
			(unsigned long long)flows[i].original.bytes,
			(unsigned long long)flows[i].reply.bytes);
		return "a flow has other counters";
	}
	if (alive != expected)
		return "there are fewer flows than the oracle knows";
	return compare_rules(w);
}

/* Everything is expired when nothing lives for any time. */
static void expire(struct world *w)
{
	static struct sweep_item items[SWEEP_BATCH];
	const struct flow *flows;
	size_t n_items = 0;
	uint32_t n;

	flows = datapath_flows(w->datapath, &n);
	for (uint32_t i = 1; i <= n; i++) {
		if (i < n && flows[i].state != FLOW_FREE)
			items[n_items++] = (struct sweep_item){.record = i, .seq = flows[i].seq};
		if (n_items == SWEEP_BATCH || (i == n && n_items)) {
			datapath_sweep(w->datapath, items, n_items);
			n_items = 0;
		}
	}
}

static bool is_empty(struct world *w)
{
	const struct flow *flows;
	uint32_t n;

	flows = datapath_flows(w->datapath, &n);
	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE)
			return false;
	return true;
}

static int map_fd(struct world *w, const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/v%d/%s", w->pin_path, DATAPATH_VERSION, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	return fd;
}

/* Those that wait for a first one, too: they keep their places for half a minute. */
static void forget_fragments(struct world *w)
{
	static const struct held_fragment none;
	struct fragment_key key;
	int fd = map_fd(w, "fragments");

	while (bpf_map_get_next_key(fd, NULL, &key) == 0)
		bpf_map_delete_elem(fd, &key);
	close(fd);
	fd = map_fd(w, "held_fragments");
	for (uint32_t i = 0; i < HELD_COUNT; i++)
		if (bpf_map_update_elem(fd, &i, &none, BPF_ANY) < 0)
			fail_msg("held_fragments: %s", strerror(errno));
	close(fd);
}

/* What rates have let in: an hour would pass before they let in more. */
static void forget_limits(struct world *w)
{
	struct bpf_map_info info = {.value_size = 0};
	uint32_t length = sizeof(info);
	struct limit_source_key key;
	int fd = map_fd(w, "limit_sources");
	void *none;

	while (bpf_map_get_next_key(fd, NULL, &key) == 0)
		bpf_map_delete_elem(fd, &key);
	close(fd);
	fd = map_fd(w, "limit_rules");
	if (bpf_obj_get_info_by_fd(fd, &info, &length) < 0)
		fail_msg("limit_rules: %s", strerror(errno));
	none = calloc(1, info.value_size);
	assert_non_null(none);
	for (uint32_t id = 1; id <= PLACES; id++)
		if (bpf_map_update_elem(fd, &id, none, BPF_ANY) < 0)
			fail_msg("limit_rules: %s", strerror(errno));
	free(none);
	close(fd);
}

void fuzz_forget_flows(struct world *w)
{
	struct datapath_config *config = datapath_config(w->datapath);
	uint32_t timeouts[FLOW_STATE_COUNT];

	memcpy(timeouts, config->timeouts, sizeof(timeouts));
	memset(config->timeouts, 0, sizeof(config->timeouts));
	for (unsigned tries = 0; expire(w), !is_empty(w); tries++) {
		if (tries == 1000)
			fail_msg("flows that have expired cannot be swept");
		usleep(1000);
	}
	memcpy(config->timeouts, timeouts, sizeof(timeouts));
	memcpy(settled, datapath_rule_counters(w->datapath) + 1, sizeof(settled));
	forget_fragments(w);
	forget_limits(w);
}
