/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See world.h. Every open world is in a list, so that a failure takes all pins along.
 */
#include "tests/bench/world.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "daemon/apply.h"
#include "daemon/datapath.h"
#include "daemon/ruleset.h"
#include "tests/bpf/packet.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "datapath.skel.h"
#pragma GCC diagnostic pop

#define INTERFACE   "bench"
#define FRESH_ROOM  256
#define STRIDE	    0x9e3779b1U /* scatters; odd */
#define ABSENT	    0x00800000U /* flows from here on are in no table */
#define LIFE	    86400	/* seconds; no flow dies by itself */
#define WORLDS_MAX  4
#define SAMPLE	    1024
#define OWN_ADDRESS 0xc0000202U /* 192.0.2.2 */

struct world {
	struct datapath *datapath;
	struct apply *apply;
	struct bench_bpf *skeleton;
	struct ring_buffer *events;
	int programs[RUN_COUNT];
	char pin_path[64];
	uint32_t live;	/* flows in the table */
	uint32_t fresh; /* the next flow that nobody has seen */
};

static struct world *worlds[WORLDS_MAX];
static uint32_t interface_index;

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("bench-datapath: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	for (size_t i = 0; i < WORLDS_MAX; i++)
		if (worlds[i] && worlds[i]->datapath)
			datapath_unpin(worlds[i]->datapath);
	exit(1);
}

static void __attribute__((noreturn)) die_with(struct diag *diag, const char *what, int r)
{
	diag_print(diag, stderr, "bench-datapath");
	diag_clear(diag);
	die("%s: %s", what, strerror(-r));
}

/* To the datapath lo is where clients of this host are: packets have to come in elsewhere. */
void world_enter_namespace(void)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = INTERFACE};
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		die("unshare: %s: run it as root", strerror(errno));
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC); /* the device goes with it, at exit */
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
		die("/dev/net/tun: %s", strerror(errno));
	interface_index = if_nametoindex(INTERFACE);
}

/* ---- the datapath ---- */

static uint32_t no_interface(void *userdata, const char *name)
{
	return 0;
}

static void add_rule(struct ruleset *set, const char *text)
{
	struct diag diag = {.n_items = 0};
	struct ruleset_entry *entry;
	struct rule *rule;
	int r = rule_parse(text, NULL, &diag, &rule);

	if (r == 0)
		r = ruleset_add(set, RULE_ID_NONE, rule, RULE_ORIGIN_RUNTIME, "runtime", &diag,
				&entry);
	if (r < 0)
		die_with(&diag, text, r);
}

static void apply_texts(struct world *w, const struct rule_set *rules)
{
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	struct apply_input input = {.resolve = no_interface};
	struct diag diag = {.n_items = 0};
	char text[128];
	int r = ruleset_new(&set);

	if (r < 0)
		die("rules: %s", strerror(-r));
	for (const char *const *t = rules->texts; t && *t; t++)
		add_rule(set, *t);
	for (unsigned i = 0; i < rules->n; i++) {
		rules->text(i, text, sizeof(text));
		add_rule(set, text);
	}
	input.rules = set;
	r = apply_rules(w->apply, &input, &diag);
	if (r < 0)
		die_with(&diag, "rules", r);
}

/* The address as text; IPv6 has the same last word. */
static void print_address(uint32_t address, bool ipv6, char ret[INET6_ADDRSTRLEN])
{
	struct in_addr in = {htonl(address)};
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &in, text, sizeof(text));
	snprintf(ret, INET6_ADDRSTRLEN, "%s%s", ipv6 ? "2001:db8::" : "", text);
}

static void add_local(struct world *w, bool ipv6)
{
	struct local_key key = {.length = 128, .addr = {0, 0, htonl(0xffff), 0}};
	char text[INET6_ADDRSTRLEN];

	print_address(OWN_ADDRESS, ipv6, text);
	inet_pton(ipv6 ? AF_INET6 : AF_INET, text, ipv6 ? &key.addr[0] : &key.addr[3]);
	if (datapath_local_set(w->datapath, &key, true) < 0)
		die("local address: %s", strerror(errno));
}

static void set_lives(struct world *w, uint32_t seconds, uint32_t unassured_seconds)
{
	struct datapath_config *c = datapath_config(w->datapath);

	for (size_t i = 0; i < FLOW_STATE_COUNT; i++)
		c->timeouts[i] = datapath_ticks_from_seconds(w->datapath, seconds);
	c->timeouts[FLOW_SYN_SENT] = c->timeouts[FLOW_UDP_UNREPLIED] =
		datapath_ticks_from_seconds(w->datapath, unassured_seconds);
}

/* Puts the maps of the loaded datapath in place of the bench's own. */
static void share_maps(struct world *w)
{
	struct bpf_map *map;
	char path[256];
	int fd;

	bpf_object__for_each_map(map, w->skeleton->obj)
	{
		snprintf(path, sizeof(path), "%s/v%d/%s", w->pin_path, DATAPATH_VERSION,
			 bpf_map__name(map));
		fd = bpf_obj_get(path);
		if (fd < 0)
			continue; /* this object's own */
		if (bpf_map__reuse_fd(map, fd) < 0)
			die("%s: %s", path, strerror(errno));
		close(fd);
	}
}

static void load_skeleton(struct world *w)
{
	struct bpf_program *p;
	struct bench_bpf *s = bench_bpf__open();

	if (!s)
		die("bench_bpf__open: %s", strerror(errno));
	w->skeleton = s;
	share_maps(w);
	s->rodata->flow_records = bpf_map__max_entries(s->maps.flows);
	s->rodata->index_mask = bpf_map__max_entries(s->maps.flow_index) - 1;
	bpf_object__for_each_program(p, s->obj)
		bpf_program__set_autoload(p, strncmp(bpf_program__name(p), "bench_", 6) == 0);
	if (bench_bpf__load(s) < 0)
		die("the bench's programs do not load: %s", strerror(errno));
	w->programs[RUN_NOTHING] = bpf_program__fd(s->progs.bench_nothing);
	w->programs[RUN_PACKET] = bpf_program__fd(s->progs.bench_packet);
	w->programs[RUN_REAL_IN] = datapath_program_fd(w->datapath, PROGRAM_IN);
	w->programs[RUN_REAL_OUT] = datapath_program_fd(w->datapath, PROGRAM_OUT);
	w->programs[RUN_IN] = bpf_program__fd(s->progs.bench_in);
	w->programs[RUN_OUT] = bpf_program__fd(s->progs.bench_out);
	w->programs[RUN_UNTIL_PARSE] = bpf_program__fd(s->progs.bench_until_parse);
	w->programs[RUN_UNTIL_PORTS] = bpf_program__fd(s->progs.bench_until_ports);
	w->programs[RUN_UNTIL_FIND] = bpf_program__fd(s->progs.bench_until_find);
	w->programs[RUN_UNTIL_ACCOUNT] = bpf_program__fd(s->progs.bench_until_account);
}

static struct world **free_place(void)
{
	for (size_t i = 0; i < WORLDS_MAX; i++)
		if (!worlds[i])
			return &worlds[i];
	die("more than %d worlds at once", WORLDS_MAX);
}

static int take_event(void *userdata, void *data, size_t size)
{
	return 0;
}

static void listen_to(struct world *w, uint32_t events)
{
	struct datapath_config *c = datapath_config(w->datapath);

	c->sample_mask = SAMPLE - 1;
	c->events = events;
	w->events = ring_buffer__new(datapath_events_fd(w->datapath), take_event, NULL, NULL);
	if (!w->events)
		die("ring buffer: %s", strerror(errno));
}

struct world *world_open(const struct rule_set *rules, uint32_t flows)
{
	struct world **place = free_place(), *w = calloc(1, sizeof(*w));
	struct diag diag = {.n_items = 0};
	pid_t owner;
	int r;

	if (!w)
		die("out of memory");
	*place = w;
	snprintf(w->pin_path, sizeof(w->pin_path), "/sys/fs/bpf/bench-redirect-%d-%zd", getpid(),
		 place - worlds);
	r = datapath_open(w->pin_path, flows + flows / 4 + FRESH_ROOM, &diag, &w->datapath, &owner);
	if (r == 0)
		r = apply_new(w->datapath, &w->apply);
	if (r < 0)
		die_with(&diag, "datapath", r);
	w->live = flows;
	w->fresh = flows;
	add_local(w, false);
	add_local(w, true);
	apply_texts(w, rules);
	set_lives(w, LIFE, LIFE);
	load_skeleton(w);
	listen_to(w, rules->events);
	return w;
}

void world_close(struct world *w)
{
	for (size_t i = 0; i < WORLDS_MAX; i++)
		if (worlds[i] == w)
			worlds[i] = NULL;
	ring_buffer__free(w->events);
	bench_bpf__destroy(w->skeleton);
	apply_free(w->apply);
	datapath_unpin(w->datapath);
	datapath_free(w->datapath);
	free(w);
}

uint32_t world_live(const struct world *w)
{
	return w->live;
}

uint32_t world_room(const struct world *w)
{
	const struct datapath_config *c = datapath_config(w->datapath);
	const struct flow_totals *t = datapath_totals(w->datapath);

	return (uint32_t)(c->flows_max - (t->created - t->destroyed));
}

/* Frees every flow that is expired by now. */
static void sweep_expired(struct world *w)
{
	uint32_t n, found = 0;
	const struct flow *flows = datapath_flows(w->datapath, &n);
	struct sweep_item *items = calloc(n, sizeof(*items));
	int freed;

	if (!items)
		die("out of memory");
	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE)
			items[found++] = (struct sweep_item){.record = i, .seq = flows[i].seq};
	freed = datapath_sweep(w->datapath, items, found);
	free(items);
	if (freed < 0)
		die("sweep: %s", strerror(-freed));
}

/* Waits until a flow whose lifetime is 0 ticks is expired. */
static void wait_ticks(struct world *w)
{
	uint32_t begin = datapath_ticks(w->datapath);

	while (datapath_ticks(w->datapath) - begin < 3)
		usleep(2000);
}

void world_remove_flows(struct world *w, bool assured_too)
{
	set_lives(w, assured_too ? 0 : LIFE, 0);
	wait_ticks(w);
	sweep_expired(w);
	set_lives(w, LIFE, LIFE);
}

/* ---- one run ---- */

static void set_fragment(enum part part, struct packet_spec *ret)
{
	if (part == PART_WHOLE)
		return;
	ret->fragmented = true;
	ret->more_fragments = part == PART_FIRST;
	ret->fragment_offset = part == PART_LATER ? 72 : 0;
}

/* Of flow 0. */
static void build_packet(const struct kind *kind, const struct measurement *m, struct packet *ret)
{
	const struct look *look = m->look;
	char client[INET6_ADDRSTRLEN], service[INET6_ADDRSTRLEN];
	struct packet_spec spec = {
		.source = look->reply ? service : client,
		.destination = look->reply ? client : service,
		.protocol = m->protocol ? m->protocol : kind->protocol,
		.sport = look->reply ? look->port : BENCH_PORT_FIRST,
		.dport = look->reply ? BENCH_PORT_FIRST : look->port,
		.tcp_flags = m->tcp_flags,
		.payload_length = 64,
	};

	print_address(look->client->first, kind->ipv6, client);
	print_address(look->service->first, kind->ipv6, service);
	if (m->protocol == IPPROTO_RAW)
		spec.protocol = IPPROTO_UDP;
	else if (m->protocol == IPPROTO_ICMP && kind->ipv6)
		spec.protocol = IPPROTO_ICMPV6;
	set_fragment(m->part, &spec);
	packet_build(&spec, ret);
	if (m->protocol == IPPROTO_RAW)
		write_be16(ret->data + 12, 0x0806); /* ARP, by its Ethernet type */
}

static void choose_flows(struct world *w, const struct kind *kind, const struct measurement *m,
			 uint32_t repeat)
{
	struct bench_run *run = &w->skeleton->bss->run;
	const struct look *look = m->look;

	*run = (struct bench_run){
		.stride = m->choice == CHOOSE_FRESH ? 1 : STRIDE,
		.mask = m->choice == CHOOSE_FRESH ? 0xffffffff : w->live - 1,
		.source = look->reply ? *look->service : *look->client,
		.destination = look->reply ? *look->client : *look->service,
		.ipv6 = kind->ipv6,
		.reply = look->reply,
		.service = htons(look->port),
	};
	if (m->choice == CHOOSE_ABSENT)
		run->first = ABSENT;
	if (m->choice == CHOOSE_FRESH) {
		run->first = w->fresh;
		w->fresh += repeat;
	}
}

static uint32_t run_once(struct world *w, enum runner runner, const struct packet *packet,
			 uint32_t repeat)
{
	struct __sk_buff context = {.ifindex = interface_index};
	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet->data,
				  .data_size_in = (uint32_t)packet->length, .ctx_in = &context,
				  .ctx_size_in = sizeof(context), .repeat = (int)repeat);

	w->skeleton->bss->run.next = 0;
	if (bpf_prog_test_run_opts(w->programs[runner], &opts))
		die("BPF_PROG_TEST_RUN: %s", strerror(errno));
	if (opts.retval != (uint32_t)TC_ACT_UNSPEC)
		die("verdict %u: the packet was dropped, or a step was not reached", opts.retval);
	return opts.duration;
}

static uint64_t counted(struct world *w, unsigned what)
{
	const struct flow_totals *totals = datapath_totals(w->datapath);
	struct cpu_counters counters;
	uint64_t left = 0;

	if (what == EXPECT_CREATE)
		return totals->created;
	if (what == EXPECT_EVICT)
		return totals->evicted;
	if (datapath_counters(w->datapath, &counters) < 0)
		die("counters: %s", strerror(errno));
	if (what < REASON_COUNT)
		return counters.reasons[what];
	for (size_t i = 0; i < REASON_COUNT; i++)
		left += counters.reasons[i];
	return counters.packets - left; /* forwarded */
}

/* Runs and checks. A flow in a hundred thousand may have found its bucket full: see the docs. */
uint32_t world_run(struct world *w, const struct kind *kind, const struct measurement *m,
		   uint32_t repeat)
{
	uint64_t before, did;
	struct packet packet;
	uint32_t ns;

	build_packet(kind, m, &packet);
	choose_flows(w, kind, m, repeat);
	before = counted(w, m->expected);
	ns = run_once(w, m->runner, &packet, repeat);
	ring_buffer__consume(w->events); /* else the next ones find no room, which costs less */
	did = counted(w, m->expected) - before;
	if (m->expected != EXPECT_NOTHING && (did > repeat || repeat - did > repeat / 10000 + 1))
		die("%s, %s: %lu of %u packets went that way", kind->name, m->label,
		    (unsigned long)did, repeat);
	return ns;
}

uint32_t world_run_base(struct world *w, const struct kind *kind, const struct measurement *m,
			uint32_t repeat)
{
	uint32_t fresh = w->fresh;
	struct packet packet;

	build_packet(kind, m, &packet);
	choose_flows(w, kind, m, repeat);
	w->fresh = fresh; /* the flows were not used up */
	return run_once(w, m->choice == CHOOSE_ONE ? RUN_NOTHING : RUN_PACKET, &packet, repeat);
}
