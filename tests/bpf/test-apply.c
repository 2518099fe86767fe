/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What rules become in the maps: actions, the targets of several, marks, and what is left over.
 * Time is made to pass by turning back the notes of when things happened.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/apply-private.h"
#include "daemon/changes.h"
#include "tests/bpf/cases.h"
#include "tests/bpf/world.h"

#define NO_RULES  ((const char *const[]){NULL})
#define ONE(text) ((const char *const[]){text, NULL})

static int map_fd(const struct world *w, const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/v%d/%s", w->pin_path, DATAPATH_VERSION, name);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	return fd;
}

/* The action of the only rule. */
static uint32_t action_of_rule(const struct world *w)
{
	const struct compiled *only = NULL;

	for (uint32_t id = 1; id < RULE_COUNT; id++) {
		assert_true(!only || !w->apply->compiled[id]);
		only = only ? only : w->apply->compiled[id];
	}
	assert_non_null(only);
	return only->action;
}

static const struct action *applied(struct world *w, const char *rule)
{
	world_apply(w, ONE(rule));
	return &datapath_actions(w->datapath)[action_of_rule(w)];
}

static bool balance_of(const struct world *w, uint32_t action, struct balance *ret)
{
	int fd = map_fd(w, "balances"), r = bpf_map_lookup_elem(fd, &action, ret);

	close(fd);
	return r == 0;
}

static size_t count_balances(const struct world *w)
{
	uint32_t id = 0;
	size_t n = 0;

	while ((id = datapath_balance_next(w->datapath, id)))
		n++;
	return n;
}

static uint32_t marks(const struct world *w, bool udp, uint16_t port)
{
	const struct port_entry *e = &datapath_ports(w->datapath)[PORT_INDEX(udp, port)];

	assert_int_equal(e->bank[0] & PORT_MARKS, e->bank[1] & PORT_MARKS);
	return e->bank[0] & PORT_MARKS;
}

static void assert_mapped(const __be32 addr[4], const char *text)
{
	__be32 expected[4] = {0, 0, htonl(0xffff), 0};

	assert_int_equal(strchr(text, ':') ? inet_pton(AF_INET6, text, expected)
					   : inet_pton(AF_INET, text, &expected[3]),
			 1);
	assert_memory_equal(addr, expected, sizeof(expected));
}

static void test_targets(void **state)
{
	static const __be32 none[4];
	struct world *w = world_new(NO_RULES, 64);
	const struct action *a = applied(w, "tcp 8080 to 80");

	assert_int_equal(a->flags, 0);
	assert_int_equal(a->listen_first, 8080);
	assert_int_equal(a->target.flags, TARGET_SET);
	assert_int_equal(a->target.port_first, 80);
	assert_memory_equal(a->target.addr, none, sizeof(none));

	a = applied(w, "udp 53 to 10.0.0.53:5353");
	assert_int_equal(a->target.flags, TARGET_SET | TARGET_ADDRESS);
	assert_mapped(a->target.addr, "10.0.0.53");
	assert_int_equal(a->target.port_first, 5353);

	a = applied(w, "tcp 8000-8009 to [2001:db8::1]:9000-9009");
	assert_int_equal(a->target.flags, TARGET_SET | TARGET_ADDRESS);
	assert_mapped(a->target.addr, "2001:db8::1");
	assert_int_equal(a->listen_first, 8000);
	assert_int_equal(a->target.port_first, 9000);

	a = applied(w, "tcp 8000-8009 to 10.0.0.1:9000");
	assert_int_equal(a->target.flags, TARGET_SET | TARGET_ADDRESS | TARGET_FOLDED);
	world_free(w);
}

static void test_sources(void **state)
{
	static const __be32 none[4];
	struct world *w = world_new(NO_RULES, 64);
	const struct action *a = applied(w, "tcp 8080 to 10.0.0.1:80 masquerade");

	assert_int_equal(a->flags, ACTION_MASQUERADE);
	assert_memory_equal(a->snat, none, sizeof(none));
	a = applied(w, "tcp 8080 to 10.0.0.1:80 snat 10.0.0.9");
	assert_int_equal(a->flags, ACTION_SNAT);
	assert_mapped(a->snat, "10.0.0.9");
	a = applied(w, "tcp *:8080 to 80 snat [2001:db8::9]");
	assert_int_equal(a->flags, ACTION_SNAT);
	assert_mapped(a->snat, "2001:db8::9");
	world_free(w);
}

static void test_several_targets(void **state)
{
	struct world *w = world_new(NO_RULES, 64);
	const struct action *a =
		applied(w, "tcp 8000-8009 to 10.0.0.1:9000-9009 weight 3,10.0.0.2:80,90");
	struct balance b;
	unsigned of_first = 0;

	assert_int_equal(a->flags, ACTION_BALANCE);
	assert_true(balance_of(w, action_of_rule(w), &b));
	assert_int_equal(b.targets[0].flags, TARGET_SET | TARGET_ADDRESS);
	assert_mapped(b.targets[0].addr, "10.0.0.1");
	assert_int_equal(b.targets[0].port_first, 9000);
	assert_int_equal(b.targets[1].flags, TARGET_SET | TARGET_ADDRESS | TARGET_FOLDED);
	assert_mapped(b.targets[1].addr, "10.0.0.2");
	assert_int_equal(b.targets[2].flags, TARGET_SET | TARGET_FOLDED);
	assert_int_equal(b.targets[2].port_first, 90);
	for (size_t i = 0; i < BALANCE_SLOTS; i++) {
		assert_true(b.slots[i] < 3);
		of_first += b.slots[i] == 0;
	}
	assert_in_range(of_first, BALANCE_SLOTS * 3 / 5 - 1, BALANCE_SLOTS * 3 / 5 + 1);

	a = applied(w,
		    "tcp *:80 to 81,82 balance random masquerade on lo from 10.0.0.0/8 disabled");
	assert_int_equal(a->flags, ACTION_BALANCE | ACTION_RANDOM | ACTION_MASQUERADE);
	world_free(w);
}

/* The targets of a rule stay for a while after it: a packet may be looking at them. */
static void test_targets_leave(void **state)
{
	struct world *w = world_new(ONE("tcp 80 to 81,82 name a"), 64);
	uint32_t first = action_of_rule(w);
	struct balance b;

	world_apply(w, ONE("tcp 80 to 81,83 name a"));
	assert_int_not_equal(action_of_rule(w), first);
	assert_true(balance_of(w, first, &b));
	assert_int_equal(b.targets[1].port_first, 82);
	assert_int_equal(count_balances(w), 2);
	world_settle(w);
	assert_false(balance_of(w, first, &b));
	assert_true(balance_of(w, action_of_rule(w), &b));
	assert_int_equal(b.targets[0].port_first, 81);
	assert_int_equal(b.targets[1].flags, 0); /* 82's number: it may have flows */
	assert_int_equal(b.targets[2].port_first, 83);
	world_apply(w, NO_RULES);
	assert_int_equal(count_balances(w), 1);
	world_settle(w);
	assert_int_equal(count_balances(w), 0);
	world_free(w);
}

/* A daemon that starts takes over what is there; what a former one did not finish goes. */
static void test_adoption(void **state)
{
	struct world *w = world_new(ONE("tcp 80 to 81,82"), 64);
	uint32_t lost = 77777;
	struct balance b = {.targets = {{.port_first = 1}}};

	assert_int_equal(datapath_balance_set(w->datapath, lost, &b), 0);
	apply_free(w->apply);
	w->apply = NULL;
	assert_int_equal(apply_new(w->datapath, &w->apply), 0);
	assert_int_equal(count_balances(w), 2);
	world_apply(w, ONE("tcp 80 to 81,82"));
	assert_int_equal(count_balances(w), 3);
	world_settle(w);
	assert_int_equal(count_balances(w), 1);
	assert_true(balance_of(w, action_of_rule(w), &b));
	world_free(w);
}

#define TOO_MANY (BALANCE_COUNT + 1)

static void test_too_many(void **state)
{
	struct world *w = world_new(ONE("tcp 1 to 2,3"), 64);
	const char **texts = calloc(TOO_MANY + 1, sizeof(*texts));
	uint32_t before = action_of_rule(w);
	struct diag diag = {.n_items = 0};

	for (unsigned i = 0; i < TOO_MANY; i++)
		assert_true(asprintf((char **)&texts[i], "tcp %u to 1,2", 1000 + i) > 0);
	assert_int_equal(world_try_apply(w, texts, &diag), -ENOSPC);
	assert_int_equal(diag.n_items, 1);
	assert_non_null(strstr(diag.items[0].message, "at most 8192 rules can have several"));
	diag_clear(&diag);
	assert_int_equal(action_of_rule(w), before);
	assert_int_equal(count_balances(w), 1);
	for (unsigned i = 0; i < TOO_MANY; i++)
		free((char *)texts[i]);
	free(texts);
	world_free(w);
}

#define ALL_REPLIES (PORT_REPLY_IN | PORT_REPLY_OUT | PORT_SNAT_OUT)

static const struct {
	const char *rule;
	uint16_t target, target_last;
	uint32_t marks, fragments;
} mark_cases[] = {
	{"udp 1000 to 2000", 2000, 2000, PORT_REPLY_OUT, 0},
	{"udp 1000 to 2000,2010", 2010, 2010, PORT_REPLY_OUT, 0},
	{"udp 1000-1009 to 2000-2009", 2000, 2009, PORT_REPLY_OUT, 0},
	{"udp 10.0.0.0/8:1000 to 10.0.0.1:2000", 2000, 2000, ALL_REPLIES, 1},
	{"udp 1000 to 10.0.0.1:2000", 2000, 2000, ALL_REPLIES, 1},
	{"udp 1000-1009 to 10.0.0.1:2000-2009", 2000, 2009, ALL_REPLIES, 1},
	{"udp 1000-1009 to 3000,10.0.0.1:2000", 2000, 2000, ALL_REPLIES, 1},
	{"udp 1000-1009 to 3000,10.0.0.1:2000", 3000, 3000, PORT_REPLY_OUT, 1},
	{"udp *:1000 to 2000 masquerade", 2000, 2000, ALL_REPLIES, 1},
	{"udp *:1000 to 2000,2010 snat 10.0.0.9", 2010, 2010, ALL_REPLIES, 1},
};

static void test_marks(void **state)
{
	struct world *w = world_new(NO_RULES, 64);

	for (size_t i = 0; i < sizeof(mark_cases) / sizeof(mark_cases[0]); i++) {
		uint16_t first = mark_cases[i].target, last = mark_cases[i].target_last;

		world_apply(w, ONE(mark_cases[i].rule));
		assert_int_equal(marks(w, true, 1000), PORT_LISTEN);
		assert_int_equal(marks(w, true, first - 1), 0);
		for (uint16_t p = first; p <= last; p++)
			assert_int_equal(marks(w, true, p), mark_cases[i].marks);
		assert_int_equal(marks(w, false, first), 0);
		assert_int_equal(datapath_config(w->datapath)->fragments, mark_cases[i].fragments);
		world_apply(w, NO_RULES);
		/* Not before those are gone that a rule in force may have begun. */
		assert_int_equal(marks(w, true, first), mark_cases[i].marks);
		world_settle(w);
		assert_int_equal(marks(w, true, first), 0);
		assert_int_equal(marks(w, true, 1000), 0);
		assert_int_equal(datapath_config(w->datapath)->fragments, 0);
	}
	world_free(w);
}

static const struct {
	struct flow flow;
	uint32_t marks, fragments;
} flow_cases[] = {
	{{.flags = FLOW_UDP}, PORT_REPLY_OUT, 0},
	{{.flags = FLOW_UDP, .reply = {.saddr = {1}}}, ALL_REPLIES, 1},
	{{.flags = FLOW_UDP | FLOW_SNAT}, ALL_REPLIES, 1},
	{{.flags = FLOW_UDP | FLOW_LOCAL}, ALL_REPLIES, 1},
};

/* A flow keeps what it needs, whatever becomes of its rule. */
static void test_marks_of_flows(void **state)
{
	struct world *w = world_new(NO_RULES, 64);
	int fd = map_fd(w, "flows");
	uint32_t record = 5;

	for (size_t i = 0; i < sizeof(flow_cases) / sizeof(flow_cases[0]); i++) {
		struct flow flow = flow_cases[i].flow;

		flow.state = FLOW_UDP_REPLIED;
		flow.original.dport = htons(1000);
		flow.reply.sport = htons(2000);
		world_apply(w, ONE("udp *:1000 to 10.0.0.1:2000 masquerade"));
		assert_int_equal(bpf_map_update_elem(fd, &record, &flow, BPF_ANY), 0);
		world_apply(w, ONE("udp 1000 to 3000 disabled"));
		world_settle(w);
		assert_int_equal(marks(w, true, 1000), PORT_LISTEN);
		assert_int_equal(marks(w, true, 2000), flow_cases[i].marks);
		assert_int_equal(datapath_config(w->datapath)->fragments, flow_cases[i].fragments);

		memset(&flow, 0, sizeof(flow));
		assert_int_equal(bpf_map_update_elem(fd, &record, &flow, BPF_ANY), 0);
		world_settle(w);
		assert_int_equal(marks(w, true, 2000), 0);
		assert_int_equal(datapath_config(w->datapath)->fragments, 0);
	}
	close(fd);
	world_free(w);
}

/* Where a packet to this port of the host goes, by the rules in force. */
static uint16_t port_after(struct world *w, bool ipv6, uint16_t port)
{
	struct packet_spec spec = {.source = ipv6 ? CLIENT6 : CLIENT4,
				   .destination = ipv6 ? SERVER6 : SERVER4,
				   .protocol = IPPROTO_UDP,
				   .sport = CLIENT_PORT,
				   .dport = port};
	struct oracle_packet parsed;
	struct outcome out;
	struct packet p;

	packet_build(&spec, &p);
	world_run(w, PROGRAM_IN, NULL, p.data, p.length, &out);
	oracle_parse(out.data, out.length, true, &parsed);
	return parsed.dport;
}

/* A rule for both families and one for one of them are of one rank: the narrower range decides. */
static void test_ranges_of_families(void **state)
{
	struct world *w = world_new(
		(const char *const[]){"udp *:8000-8009 to 9000-9009", "udp *:8005 to 10.0.0.1:70",
				      "udp *:7000 to 71", "udp *:7000-7009 to 10.0.0.1:72", NULL},
		64);

	assert_int_equal(port_after(w, false, 8004), 9004);
	assert_int_equal(port_after(w, false, 8005), 70);
	assert_int_equal(port_after(w, true, 8005), 9005);
	assert_int_equal(port_after(w, false, 7000), 71);
	assert_int_equal(port_after(w, true, 7000), 71);
	assert_int_equal(port_after(w, false, 7001), 72);
	assert_int_equal(port_after(w, true, 7001), 7001);
	world_free(w);
}

/* ---- one change after the other ---- */

/* Where a packet to `port` from 10.0.0.`host` goes. Each comes by a source port of its own. */
static uint16_t goes_to(struct world *w, uint16_t port, unsigned host)
{
	static uint16_t sport = 1024;
	char source[16];
	struct packet p;
	struct outcome o;

	snprintf(source, sizeof(source), "10.0.0.%u", host);
	packet_build(&(struct packet_spec){.source = source,
					   .destination = "192.0.2.1",
					   .protocol = IPPROTO_UDP,
					   .sport = ++sport,
					   .dport = port},
		     &p);
	world_run(w, PROGRAM_IN, NULL, p.data, p.length, &o);
	return read_be16(o.data + p.l4 + 2);
}

enum { PROBED_PORTS = 9, PROBED_HOSTS = 5 };

static void probe(struct world *w, uint16_t seen[PROBED_PORTS][PROBED_HOSTS])
{
	for (uint16_t port = 0; port < PROBED_PORTS; port++)
		for (unsigned host = 0; host < PROBED_HOSTS; host++)
			seen[port][host] = goes_to(w, port + 1, host);
}

static struct ruleset_entry *random_entry(uint32_t id, const struct ruleset_entry *before)
{
	static const char *const froms[] = {"",
					    " from 10.0.0.1",
					    " from 10.0.0.2",
					    " from 10.0.0.3",
					    " from 10.0.0.0/31",
					    " from 10.0.0.2/31",
					    " from 10.0.0.1,10.0.0.2"};
	struct ruleset_entry *e;
	struct diag diag = {0};
	struct rule *rule;
	char text[128];

	if (before) {
		assert_int_equal(rule_copy(before->rule, &rule), 0);
		if (random() % 2)
			rule->disabled = !rule->disabled;
		else
			rule->targets[0].ports.first = rule->targets[0].ports.last ^= 1 << 15;
	} else {
		unsigned first = 1 + (unsigned)random() % 7,
			 width = random() % 3 ? 0 : (unsigned)random() % 3;

		snprintf(text, sizeof(text), "%s %s%u-%u to %u%s%s",
			 random() % 4 ? "udp" : "tcp+udp", random() % 3 ? "" : "*:", first,
			 first + width, 1000 + id % 8192, froms[(unsigned)random() % 7],
			 random() % 6 ? "" : " disabled");
		assert_int_equal(rule_parse(text, NULL, &diag, &rule), 0);
	}
	assert_int_equal(ruleset_entry_new(id, rule, RULE_ORIGIN_RUNTIME, "here", &e), 0);
	rule_free(rule);
	return e;
}

/* Changes of one rule, often, or of some; `base` is above all ids in use. */
static void random_changes(const struct ruleset *rules, uint32_t base, struct changes *ret)
{
	for (long i = random() % 4 ? 1 : 2 + random() % 3; i; i--) {
		struct ruleset_entry *before = NULL, *after = NULL;

		if (rules->n_entries && random() % 2)
			before = rules->entries[(unsigned)random() % rules->n_entries];
		for (size_t k = 0; before && k < ret->n; k++)
			if (ret->items[k].before == before)
				before = NULL; /* one change of a rule is enough */
		if (!before || random() % 2)
			after = random_entry(before ? before->id : base + (uint32_t)i, before);
		assert_int_equal(changes_add(ret, before, after, NULL), 0);
	}
}

/* Packets see the same as if the rules had come all at once. Returns how many are redirected. */
static unsigned compare_at_once(struct world *w, struct apply_input *input)
{
	uint16_t by_steps[PROBED_PORTS][PROBED_HOSTS], at_once[PROBED_PORTS][PROBED_HOSTS];
	struct diag diag = {0};
	unsigned taken = 0;

	probe(w, by_steps);
	w->apply->started = false;
	input->changes = NULL;
	assert_int_equal(apply_rules(w->apply, input, &diag), 0);
	probe(w, at_once);
	assert_memory_equal(by_steps, at_once, sizeof(by_steps));
	for (uint16_t port = 0; port < PROBED_PORTS; port++)
		for (unsigned host = 0; host < PROBED_HOSTS; host++)
			taken += by_steps[port][host] != port + 1;
	return taken;
}

static void test_steps(void **state)
{
	enum { STEPS = 4000 };
	struct world *w = world_new(NO_RULES, 65536);
	struct apply_input input = {0};
	unsigned edited = 0, taken = 0;
	struct ruleset *rules;

	srandom(3);
	world_add_local(w, "192.0.2.1");
	assert_int_equal(ruleset_new(&rules), 0);
	input.rules = rules;
	for (uint32_t step = 1; step <= STEPS; step++) {
		const struct datapath_config *config = datapath_config(w->datapath);
		uint32_t generation = config->generation, shape = w->apply->shapes.next;
		struct changes changes = {0};
		struct diag diag = {0};

		random_changes(rules, step * 8, &changes);
		input.changes = &changes;
		if (ruleset_change(rules, &changes, &diag) == 0)
			assert_int_equal(apply_rules(w->apply, &input, &diag), 0);
		edited += w->apply->shapes.next == shape && config->generation != generation;
		diag_clear(&diag);
		changes_clear(&changes);
		if (step % 4 == 0)
			world_settle(w); /* what was left is used again */
		if (step % 20 == 0)
			taken += compare_at_once(w, &input);
	}
	print_message("%u of %d changes made no chain anew, %u packets were redirected\n", edited,
		      STEPS, taken);
	assert_true(edited > 10 && taken > 1000);
	ruleset_free(rules);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_several_targets),
		cmocka_unit_test(test_targets_leave),
		cmocka_unit_test(test_adoption),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_marks_of_flows),
		cmocka_unit_test(test_ranges_of_families),
		cmocka_unit_test(test_steps),
	};
	int skip = world_skip_code();

	return skip ? skip : cmocka_run_group_tests(tests, NULL, NULL);
}
