/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Relies on the daemon's own modules to load the programs and to apply rules, so that what is
 * tested is what runs. Every failure ends the test with the reason; nothing is returned half made.
 */
#include "tests/bpf/world.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "daemon/apply-private.h"
#include "daemon/changes.h"
#include "daemon/plan.h"
#include "daemon/ruleset.h"
#include "shared/diag.h"

#define SECOND_INTERFACE "second"

int world_skip_code(void)
{
	if (geteuid() == 0)
		return 0;
	fputs("skipped: run the packet tests as root\n", stderr);
	return 77; /* meson's and automake's word for skipped */
}

/* Fails with what a diag holds. */
static void __attribute__((noreturn)) fail_with(struct diag *diag, const char *what, int r)
{
	print_error("%s: %s\n", what, strerror(-r));
	diag_print(diag, stderr, "test-redirect");
	diag_clear(diag);
	fail();
	abort(); /* fail() has jumped away */
}

/* A namespace of our own, with a TAP device in it that goes when its descriptor is closed. */
static uint32_t enter_namespace(int *ret_fd)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};

	if (unshare(CLONE_NEWNET) < 0) {
		print_error("unshare: %s: run the tests as root\n", strerror(errno));
		fail();
	}
	strcpy(request.ifr_name, SECOND_INTERFACE);
	*ret_fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (*ret_fd < 0 || ioctl(*ret_fd, TUNSETIFF, &request) < 0) {
		print_error("/dev/net/tun: %s\n", strerror(errno));
		fail();
	}
	return if_nametoindex(SECOND_INTERFACE);
}

static uint32_t resolve_interface(void *userdata, const char *name)
{
	return if_nametoindex(name);
}

static struct ruleset *read_rules(const char *const *texts)
{
	struct ruleset_entry *entry;
	struct diag diag = {.n_items = 0};
	struct ruleset *set;
	struct rule *rule;
	int r;

	assert_int_equal(ruleset_new(&set), 0);
	for (; *texts; texts++) {
		r = rule_parse(*texts, NULL, &diag, &rule);
		if (r == 0)
			r = ruleset_add(set, RULE_ID_NONE, rule, RULE_ORIGIN_RUNTIME, "runtime",
					&diag, &entry);
		if (r < 0)
			fail_with(&diag, *texts, r);
	}
	return set;
}

int world_try_apply(struct world *w, const char *const *rules, struct diag *diag)
{
	struct apply_input input = {.resolve = resolve_interface};
	struct ruleset *set = read_rules(rules);
	int r;

	input.rules = set;
	r = apply_rules(w->apply, &input, diag);
	if (r < 0) {
		ruleset_free(set);
		return r;
	}
	ruleset_free(w->rules);
	w->rules = set;
	w->last_id = (uint32_t)set->n_entries;
	return 0;
}

void world_apply(struct world *w, const char *const *rules)
{
	struct diag diag = {.n_items = 0};
	int r = world_try_apply(w, rules, &diag);

	if (r < 0)
		fail_with(&diag, "apply_rules", r);
}

static uint32_t next_id(void *userdata)
{
	struct world *w = userdata;

	return ++w->last_id;
}

static int plan(struct world *w, const struct world_change *c, struct changes *ret,
		struct diag *diag)
{
	const struct plan_from from = {w->rules, next_id, w};
	struct ruleset_entry *e = ruleset_find_id(w->rules, c->id);
	_cleanup_(rule_freep) struct rule *rule = NULL;
	int r = c->rule ? rule_parse(c->rule, NULL, diag, &rule) : 0;

	if (r < 0)
		return r;
	if (!c->id)
		return plan_add(&from, rule, ret, diag);
	if (!e)
		return -ENOENT;
	return rule ? plan_set(e, rule, ret) : plan_remove(e, ret);
}

void world_change(struct world *w, const struct world_change *changes, size_t n)
{
	struct changes list = {.n = 0};
	struct diag diag = {.n_items = 0};
	struct apply_input input = {
		.rules = w->rules, .changes = &list, .edits = &list, .resolve = resolve_interface};
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = plan(w, &changes[i], &list, &diag);
	if (r == 0)
		r = ruleset_change(w->rules, &list, &diag);
	if (r == 0)
		r = apply_rules(w->apply, &input, &diag);
	if (r < 0)
		fail_with(&diag, "changing rules", r);
	changes_clear(&list);
}

void world_settle(struct world *w)
{
	for (size_t i = 0; i < w->apply->garbage.n; i++)
		w->apply->garbage.items[i].since_ns = 0;
	w->apply->marks_since_ns = 0;
	apply_tick(w->apply);
}

/* Lifetimes that no test outlives; they are the daemon's to set. */
static void set_timeouts(struct world *w)
{
	struct datapath_config *config = datapath_config(w->datapath);

	for (size_t i = 0; i < FLOW_STATE_COUNT; i++)
		config->timeouts[i] = datapath_ticks_from_seconds(w->datapath, 3600);
}

/* One at a time: what a failed test left behind goes with the next one, or at exit. */
static struct world *alive;

static void free_alive(void)
{
	world_free(alive);
}

struct world *world_new(const char *const *rules, uint32_t flows_max)
{
	static unsigned number;
	struct world *w = calloc(1, sizeof(*w));
	struct diag diag = {.n_items = 0};
	pid_t owner;
	int r;

	assert_non_null(w);
	if (!number)
		atexit(free_alive);
	free_alive();
	alive = w;
	w->interface = enter_namespace(&w->interface_fd);
	assert_int_not_equal(w->interface, 0);
	snprintf(w->pin_path, sizeof(w->pin_path), "/sys/fs/bpf/test-redirect-%d-%u", getpid(),
		 number++);
	r = datapath_open(w->pin_path, flows_max, &diag, &w->datapath, &owner);
	if (r < 0)
		fail_with(&diag, "datapath_open", r);
	r = apply_new(w->datapath, &w->apply);
	if (r < 0)
		fail_with(&diag, "apply_new", r);
	set_timeouts(w);
	world_apply(w, rules);
	return w;
}

void world_free(struct world *w)
{
	if (!w)
		return;
	alive = NULL;
	oracle_clear(&w->oracle);
	apply_free(w->apply);
	ruleset_free(w->rules);
	if (w->datapath)
		datapath_unpin(w->datapath);
	datapath_free(w->datapath);
	if (w->interface_fd > 0)
		close(w->interface_fd);
	free(w);
}

int world_teardown(void **state)
{
	world_free(*state);
	return 0;
}

static void to_mapped(const char *text, __be32 ret[4])
{
	if (strchr(text, ':')) {
		assert_int_equal(inet_pton(AF_INET6, text, ret), 1);
		return;
	}
	ret[0] = ret[1] = 0;
	ret[2] = htonl(0xffff);
	assert_int_equal(inet_pton(AF_INET, text, &ret[3]), 1);
}

void world_add_local(struct world *w, const char *address)
{
	struct local_key key = {.length = 128};

	to_mapped(address, key.addr);
	assert_int_equal(datapath_local_set(w->datapath, &key, true), 0);
}

/* The form that maps hold. */
static void map_address(bool ipv6, const uint8_t *address, __be32 ret[4])
{
	ret[0] = ret[1] = 0;
	ret[2] = htonl(0xffff);
	memcpy(ipv6 ? ret : ret + 3, address, ipv6 ? 16 : 4);
}

void world_add_local_prefix(struct world *w, const struct oracle_prefix *p)
{
	struct local_key key = {.length = p->length + (p->ipv6 ? 0 : 96)};

	map_address(p->ipv6, p->address, key.addr);
	assert_int_equal(datapath_local_set(w->datapath, &key, true), 0);
}

void world_add_source(struct world *w, const struct oracle_source *s)
{
	struct source_key key = {
		.length = 32 + s->towards.length + (s->towards.ipv6 ? 0 : 96),
		.ifindex = s->interface,
	};
	struct source_value value;

	map_address(s->towards.ipv6, s->towards.address, key.addr);
	map_address(s->towards.ipv6, s->address, value.addr);
	assert_int_equal(datapath_source_set(w->datapath, &key, &value), 0);
}

void world_ip(const char *arguments)
{
	char command[256];

	snprintf(command, sizeof(command), "ip %s", arguments);
	if (system(command) != 0)
		fail_msg("%s: failed", command);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail_msg("%s: %s", path, strerror(errno));
	close(fd);
}

void world_forward(void)
{
	write_file("/proc/sys/net/ipv4/ip_forward", "1");
	write_file("/proc/sys/net/ipv6/conf/all/forwarding", "1");
}

void world_run(struct world *w, enum datapath_program program, const struct __sk_buff *context,
	       const void *data, size_t length, struct outcome *ret)
{
	struct __sk_buff copy = {.len = 0};
	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = data,
				  .data_size_in = (uint32_t)length, .data_out = ret->data,
				  .data_size_out = sizeof(ret->data), .repeat = 1);

	if (context) {
		copy = *context;
		opts.ctx_in = &copy;
		opts.ctx_size_in = sizeof(copy);
	}
	memset(ret, 0, sizeof(*ret));
	if (bpf_prog_test_run_opts(datapath_program_fd(w->datapath, program), &opts) < 0) {
		print_error("BPF_PROG_TEST_RUN of %zu bytes: %s\n", length, strerror(errno));
		fail();
	}
	ret->length = opts.data_size_out;
	ret->verdict = opts.retval;
}

static void print_bytes(const char *what, const uint8_t *data, size_t length)
{
	print_error("%s (%zu bytes):", what, length);
	for (size_t i = 0; i < length; i++)
		print_error("%s%02x", i % 16 ? " " : "\n  ", data[i]);
	print_error("\n");
}

void assert_bytes(const char *what, const uint8_t *got, size_t got_length, const uint8_t *expected,
		  size_t expected_length)
{
	size_t i = 0;

	if (got_length == expected_length && memcmp(got, expected, got_length) == 0)
		return;
	while (i < got_length && i < expected_length && got[i] == expected[i])
		i++;
	print_error("%s: differs at byte %zu\n", what, i);
	print_bytes("expected", expected, expected_length);
	print_bytes("got", got, got_length);
	fail();
}

bool world_compare(struct world *w, enum oracle_hook hook, const void *data, size_t length,
		   struct outcome *ret)
{
	struct oracle_packet parsed;
	uint8_t expected[PACKET_MAX];
	bool translated;

	memcpy(expected, data, length);
	translated = oracle_pass(&w->oracle, hook, true, expected, length);
	world_run(w, hook == ORACLE_IN ? PROGRAM_IN : PROGRAM_OUT, NULL, data, length, ret);
	assert_int_equal((int)ret->verdict, TC_ACT_UNSPEC);
	oracle_parse(expected, length, true, &parsed);
	if (translated && ret->length == length)
		oracle_accept_negative_zero(expected, length, &parsed, ret->data);
	assert_bytes(translated ? "translated packet" : "packet to leave alone", ret->data,
		     ret->length, expected, length);
	return translated;
}

static bool same_address(bool ipv6, const __be32 mapped[4], const uint8_t *address)
{
	__be32 expected[4];

	map_address(ipv6, address, expected);
	return memcmp(mapped, expected, sizeof(expected)) == 0;
}

const struct flow *world_find_tuple(struct world *w, const struct oracle_tuple *t)
{
	uint8_t kind =
		(uint8_t)((t->protocol == IPPROTO_UDP ? FLOW_UDP : 0) | (t->ipv6 ? FLOW_IPV6 : 0));
	const struct flow *flows;
	uint32_t n;

	flows = datapath_flows(w->datapath, &n);
	for (uint32_t i = 1; i < n; i++) {
		const struct flow_dir *d = &flows[i].original;

		if (flows[i].state != FLOW_FREE && ntohs(d->sport) == t->sport &&
		    ntohs(d->dport) == t->dport && (flows[i].flags & FLOW_KIND) == kind &&
		    same_address(t->ipv6, d->saddr, t->source) &&
		    same_address(t->ipv6, d->daddr, t->destination))
			return &flows[i];
	}
	return NULL;
}

const struct flow *world_find_flow(struct world *w, const struct packet *first)
{
	struct oracle_packet p;
	struct oracle_tuple t;

	oracle_parse(first->data, first->length, true, &p);
	assert_int_equal(p.class, ORACLE_TRANSLATABLE);
	t = oracle_tuple_of(&p);
	return world_find_tuple(w, &t);
}

struct oracle_tuple world_tuple(const struct flow *f, const struct flow_dir *d)
{
	bool ipv6 = f->flags & FLOW_IPV6;
	struct oracle_tuple t;

	memset(&t, 0, sizeof(t));
	t.ipv6 = ipv6;
	t.protocol = f->flags & FLOW_UDP ? IPPROTO_UDP : IPPROTO_TCP;
	t.sport = ntohs(d->sport);
	t.dport = ntohs(d->dport);
	memcpy(t.source, ipv6 ? d->saddr : d->saddr + 3, ipv6 ? 16 : 4);
	memcpy(t.destination, ipv6 ? d->daddr : d->daddr + 3, ipv6 ? 16 : 4);
	return t;
}

void world_counters(struct world *w, struct cpu_counters *ret)
{
	assert_int_equal(datapath_counters(w->datapath, ret), 0);
}

void assert_reason(struct world *w, const struct cpu_counters *before, enum packet_reason reason,
		   const char *what)
{
	struct cpu_counters after;

	world_counters(w, &after);
	for (size_t i = 0; i < REASON_COUNT; i++) {
		uint64_t counted = after.reasons[i] - before->reasons[i];

		if (counted == (i == reason))
			continue;
		print_error("%s: reason %zu was counted %lu times, reason %d was expected once\n",
			    what, i, (unsigned long)counted, (int)reason);
		fail();
	}
}
