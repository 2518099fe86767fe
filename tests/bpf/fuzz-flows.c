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
static struct rule_counters settled;

static struct rule_counters sum_rules(struct world *w)
{
	const struct rule_counters *rules = datapath_rule_counters(w->datapath);
	struct rule_counters s = {.packets = 0};

	for (size_t i = 1; i < RULES_MAX + 1; i++) {
		s.packets += rules[i].packets;
		s.bytes += rules[i].bytes;
		s.created += rules[i].created;
		s.destroyed += rules[i].destroyed;
	}
	return s;
}

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

static const char *compare_dead(struct world *w)
{
	struct rule_counters now = sum_rules(w);
	uint64_t packets = 0, bytes = 0;

	for (size_t i = 0; i < w->oracle.n_flows; i++) {
		const struct oracle_flow *f = &w->oracle.flows[i];

		if (!f->dead || !f->rule)
			continue;
		packets += f->packets[0] + f->packets[1];
		bytes += f->bytes[0] + f->bytes[1];
	}
	if (now.packets - settled.packets != packets || now.bytes - settled.bytes != bytes)
		return "the rules have not counted what their dead flows did";
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
	return compare_dead(w);
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
	settled = sum_rules(w);
	forget_fragments(w);
}
