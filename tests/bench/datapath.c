/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the datapath costs a packet, in nanoseconds, by BPF_PROG_TEST_RUN: the real programs over
 * the daemon's own modules (loading, rules), beside programs that do all but the datapath's work.
 *
 * Rounds go over all measurements in turn, each right behind its base, so that what else the
 * machine does hits all alike. Every run is checked by the datapath's counters: packets that were
 * not treated as the label says end the benchmark.
 *
 * Root. Attached to nothing; its pins are gone afterwards. docs/BENCHMARKS.md explains the output.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <linux/pkt_cls.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/apply.h"
#include "daemon/datapath.h"
#include "daemon/ruleset.h"
#include "shared/abi.h"
#include "tests/bench/datapath.h"
#include "tests/bpf/packet.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "datapath.skel.h"
#pragma GCC diagnostic pop

#define ROUNDS_MAX    101
#define SIZES_MAX     8
#define FLOWS_LEAST   256
#define HOT_REPEAT    200000
#define FRESH_LEAST   256
#define FRESH_MOST    16384
#define STRIDE	      0x9e3779b1U /* scatters; odd */
#define SERVICE	      9090
#define TARGET	      90
#define PAIR	      8080 /* redirected to 80, and 80 back to it: one packet hits for ever */
#define PAIR_TARGET   80
#define ABSENT	      0x00800000U /* flows from here on are in no table */
#define LIFE	      86400	  /* seconds; no flow dies by itself */
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const char *const rules[] = {
	"tcp+udp 8080 to 80",
	"tcp+udp 80 to 8080",
	"tcp+udp 9090 to 90",
};

/* What is run: the attached programs themselves, or the bench's with another flow each time. */
enum runner {
	RUN_NOTHING,
	RUN_PACKET,
	RUN_REAL_IN,
	RUN_REAL_OUT,
	RUN_IN,
	RUN_OUT,
	RUN_UNTIL_PARSE,
	RUN_UNTIL_PORTS,
	RUN_UNTIL_FIND,
	RUN_UNTIL_ACCOUNT,
	RUN_COUNT,
};

/* Which flows the packets are of. */
enum choice {
	CHOOSE_ONE,    /* the template as it is */
	CHOOSE_LIVE,   /* of those in the table, scattered */
	CHOOSE_ABSENT, /* never seen, scattered */
	CHOOSE_FRESH,  /* new ones, one after the other */
};

/* What the counters must show afterwards. */
enum outcome {
	EXPECT_FORWARD = REASON_COUNT,
	EXPECT_CREATE,
	EXPECT_EVICT,
	EXPECT_NOTHING, /* the program counts nothing, or stops before */
};

struct kind {
	const char *name;
	bool ipv6;
	uint8_t protocol;
};
static const struct kind kinds[] = {
	{"TCP/IPv4", false, IPPROTO_TCP},
	{"TCP/IPv6", true, IPPROTO_TCP},
	{"UDP/IPv4", false, IPPROTO_UDP},
	{"UDP/IPv6", true, IPPROTO_UDP},
};

struct measurement {
	const char *label;
	enum runner runner;
	enum choice choice;
	bool reply;
	uint16_t service; /* the port that is not the client's */
	uint8_t tcp_flags;
	uint8_t protocol;  /* 0: the kind's */
	unsigned expected; /* enum packet_reason or enum outcome */
};

/* One packet over and over: everything is in the nearest cache. */
static const struct measurement one_packet[] = {
	{"ingress, not IP", RUN_REAL_IN, CHOOSE_ONE, false, 0, 0, IPPROTO_RAW, REASON_NOT_IP},
	{"ingress, ICMP", RUN_REAL_IN, CHOOSE_ONE, false, 0, 0, IPPROTO_ICMP, REASON_NOT_TCP_UDP},
	{"ingress, port without rules", RUN_REAL_IN, CHOOSE_ONE, false, 22, TCP_FLAG_ACK, 0,
	 REASON_UNRELATED},
	{"egress, port without rules", RUN_REAL_OUT, CHOOSE_ONE, true, 22, TCP_FLAG_ACK, 0,
	 REASON_UNRELATED},
	{"egress, a target's port, no flow", RUN_REAL_OUT, CHOOSE_ONE, true, TARGET, TCP_FLAG_ACK,
	 0, REASON_UNRELATED},
	{"ingress, established", RUN_REAL_IN, CHOOSE_ONE, false, PAIR, TCP_FLAG_ACK, 0,
	 EXPECT_FORWARD},
	{"egress, established", RUN_REAL_OUT, CHOOSE_ONE, true, PAIR_TARGET, TCP_FLAG_ACK, 0,
	 EXPECT_FORWARD},
};

/* Another flow each time. */
static const struct measurement many_flows[] = {
	{"ingress, established", RUN_IN, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_ACK, 0,
	 EXPECT_FORWARD},
	{"egress, established", RUN_OUT, CHOOSE_LIVE, true, TARGET, TCP_FLAG_ACK, 0,
	 EXPECT_FORWARD},
	{"egress, a target's port, no flow", RUN_OUT, CHOOSE_ABSENT, true, TARGET, TCP_FLAG_ACK, 0,
	 REASON_UNRELATED},
	{"first packet", RUN_IN, CHOOSE_FRESH, false, SERVICE, TCP_FLAG_SYN, 0, EXPECT_CREATE},
};

static const struct measurement steps[] = {
	{"headers", RUN_UNTIL_PARSE, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_ACK, 0, EXPECT_NOTHING},
	{"+ port table, both ports", RUN_UNTIL_PORTS, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_ACK, 0,
	 EXPECT_NOTHING},
	{"+ flow lookup", RUN_UNTIL_FIND, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_ACK, 0,
	 EXPECT_NOTHING},
	{"+ expiry, state, counters", RUN_UNTIL_ACCOUNT, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_ACK,
	 0, EXPECT_NOTHING},
	{"+ ports and checksum", RUN_IN, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_ACK, 0,
	 EXPECT_FORWARD},
};

static const struct measurement flood[] = {
	{"first packet, table full", RUN_IN, CHOOSE_FRESH, false, SERVICE, TCP_FLAG_SYN, 0,
	 EXPECT_EVICT},
};

struct bench {
	struct datapath *datapath;
	struct apply *apply;
	struct bench_bpf *skeleton;
	int programs[RUN_COUNT];
	char pin_path[64];
	uint32_t live;	/* flows in the table */
	uint32_t fresh; /* the next flow that nobody has seen */
	unsigned rounds;
	json_t *json;
};

struct samples {
	uint32_t ns[ROUNDS_MAX], base_ns[ROUNDS_MAX];
};

/* For exit(): a benchmark that fails leaves no pins behind. */
static struct bench *current_bench;

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("bench-datapath: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	if (current_bench && current_bench->datapath)
		datapath_unpin(current_bench->datapath);
	exit(1);
}

static void __attribute__((noreturn)) die_with(struct diag *diag, const char *what, int r)
{
	diag_print(diag, stderr, "bench-datapath");
	diag_clear(diag);
	die("%s: %s", what, strerror(-r));
}

/* ---- the datapath ---- */

static uint32_t no_interface(void *userdata, const char *name)
{
	return 0;
}

static void apply_texts(struct bench *b)
{
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	struct apply_input input = {.resolve = no_interface};
	struct diag diag = {.n_items = 0};
	struct ruleset_entry *entry;
	struct rule *rule;
	int r = ruleset_new(&set);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(rules); i++) {
		r = rule_parse(rules[i], NULL, &diag, &rule);
		if (r == 0)
			r = ruleset_add(set, RULE_ID_NONE, rule, RULE_ORIGIN_RUNTIME, "runtime",
					&diag, &entry);
	}
	input.rules = set;
	if (r == 0)
		r = apply_rules(b->apply, &input, &diag);
	if (r < 0)
		die_with(&diag, "rules", r);
}

static void add_local(struct bench *b, bool ipv6)
{
	struct local_key key = {.length = 128, .addr = {0, 0, htonl(0xffff), 0}};

	if (ipv6)
		inet_pton(AF_INET6, "2001:db8::2", key.addr);
	else
		inet_pton(AF_INET, "192.0.2.2", &key.addr[3]);
	if (datapath_local_set(b->datapath, &key, true) < 0)
		die("local address: %s", strerror(errno));
}

static void set_lives(struct bench *b, uint32_t seconds, uint32_t unassured_seconds)
{
	struct datapath_config *c = datapath_config(b->datapath);

	for (size_t i = 0; i < FLOW_STATE_COUNT; i++)
		c->timeouts[i] = datapath_ticks_from_seconds(b->datapath, seconds);
	c->timeouts[FLOW_SYN_SENT] = c->timeouts[FLOW_UDP_UNREPLIED] =
		datapath_ticks_from_seconds(b->datapath, unassured_seconds);
}

/* Puts the maps of the loaded datapath in place of the bench's own. */
static void share_maps(struct bench *b)
{
	struct bpf_map *map;
	char path[256];
	int fd;

	bpf_object__for_each_map(map, b->skeleton->obj)
	{
		snprintf(path, sizeof(path), "%s/v%d/%s", b->pin_path, DATAPATH_VERSION,
			 bpf_map__name(map));
		fd = bpf_obj_get(path);
		if (fd < 0)
			continue; /* this object's own */
		if (bpf_map__reuse_fd(map, fd) < 0)
			die("%s: %s", path, strerror(errno));
		close(fd);
	}
}

static void load_skeleton(struct bench *b)
{
	struct bpf_program *p;
	struct bench_bpf *s = bench_bpf__open();

	if (!s)
		die("bench_bpf__open: %s", strerror(errno));
	b->skeleton = s;
	share_maps(b);
	s->rodata->flow_records = bpf_map__max_entries(s->maps.flows);
	s->rodata->index_mask = bpf_map__max_entries(s->maps.flow_index) - 1;
	bpf_object__for_each_program(p, s->obj)
		bpf_program__set_autoload(p, strncmp(bpf_program__name(p), "bench_", 6) == 0);
	if (bench_bpf__load(s) < 0)
		die("the bench's programs do not load: %s", strerror(errno));
	b->programs[RUN_NOTHING] = bpf_program__fd(s->progs.bench_nothing);
	b->programs[RUN_PACKET] = bpf_program__fd(s->progs.bench_packet);
	b->programs[RUN_REAL_IN] = datapath_program_fd(b->datapath, PROGRAM_IN);
	b->programs[RUN_REAL_OUT] = datapath_program_fd(b->datapath, PROGRAM_OUT);
	b->programs[RUN_IN] = bpf_program__fd(s->progs.bench_in);
	b->programs[RUN_OUT] = bpf_program__fd(s->progs.bench_out);
	b->programs[RUN_UNTIL_PARSE] = bpf_program__fd(s->progs.bench_until_parse);
	b->programs[RUN_UNTIL_PORTS] = bpf_program__fd(s->progs.bench_until_ports);
	b->programs[RUN_UNTIL_FIND] = bpf_program__fd(s->progs.bench_until_find);
	b->programs[RUN_UNTIL_ACCOUNT] = bpf_program__fd(s->progs.bench_until_account);
}

static void bench_open(struct bench *b, uint32_t flows)
{
	struct diag diag = {.n_items = 0};
	pid_t owner;
	int r;

	snprintf(b->pin_path, sizeof(b->pin_path), "/sys/fs/bpf/bench-redirect-%d", getpid());
	/* Room for the fresh ones beside the live. */
	r = datapath_open(b->pin_path, flows + flows / 4 + FRESH_LEAST, &diag, &b->datapath,
			  &owner);
	if (r == 0)
		r = apply_new(b->datapath, &b->apply);
	if (r < 0)
		die_with(&diag, "datapath", r);
	b->live = flows;
	b->fresh = flows;
	add_local(b, false);
	add_local(b, true);
	apply_texts(b);
	set_lives(b, LIFE, LIFE);
	load_skeleton(b);
}

static void bench_close(struct bench *b)
{
	bench_bpf__destroy(b->skeleton);
	apply_free(b->apply);
	datapath_unpin(b->datapath);
	b->datapath = datapath_free(b->datapath);
}

/* Frees every flow that is expired by now. */
static void sweep_expired(struct bench *b)
{
	uint32_t n, found = 0;
	const struct flow *flows = datapath_flows(b->datapath, &n);
	struct sweep_item *items = calloc(n, sizeof(*items));
	int freed;

	if (!items)
		die("out of memory");
	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE)
			items[found++] = (struct sweep_item){i, flows[i].seq};
	freed = datapath_sweep(b->datapath, items, found);
	free(items);
	if (freed < 0)
		die("sweep: %s", strerror(-freed));
}

/* Waits until a flow whose lifetime is 0 ticks is expired. */
static void wait_ticks(struct bench *b)
{
	uint32_t begin = datapath_ticks(b->datapath);

	while (datapath_ticks(b->datapath) - begin < 3)
		usleep(2000);
}

static void remove_flows(struct bench *b, bool assured_too)
{
	set_lives(b, assured_too ? 0 : LIFE, 0);
	wait_ticks(b);
	sweep_expired(b);
	set_lives(b, LIFE, LIFE);
}

/* ---- one run ---- */

static void build_packet(const struct kind *kind, const struct measurement *m, struct packet *ret)
{
	const char *service = kind->ipv6 ? "2001:db8::2" : "192.0.2.2";
	const char *client = kind->ipv6 ? "2001:db8::1" : "192.0.2.1";
	struct packet_spec spec = {
		.source = m->reply ? service : client,
		.destination = m->reply ? client : service,
		.protocol = m->protocol ? m->protocol : kind->protocol,
		.sport = m->reply ? m->service : 40000,
		.dport = m->reply ? 40000 : m->service,
		.tcp_flags = m->tcp_flags,
		.payload_length = 64,
	};

	if (m->protocol == IPPROTO_RAW)
		spec.protocol = IPPROTO_UDP;
	else if (m->protocol == IPPROTO_ICMP && kind->ipv6)
		spec.protocol = IPPROTO_ICMPV6;
	packet_build(&spec, ret);
	if (m->protocol == IPPROTO_RAW)
		write_be16(ret->data + 12, 0x0806); /* ARP, by its Ethernet type */
}

static void choose_flows(struct bench *b, const struct kind *kind, const struct measurement *m,
			 uint32_t repeat)
{
	struct bench_run *run = &b->skeleton->bss->run;

	*run = (struct bench_run){
		.stride = m->choice == CHOOSE_FRESH ? 1 : STRIDE,
		.mask = m->choice == CHOOSE_FRESH ? 0xffffffff : b->live - 1,
		.ipv6 = kind->ipv6,
		.reply = m->reply,
		.service = htons(m->service),
	};
	if (m->choice == CHOOSE_ABSENT)
		run->first = ABSENT;
	if (m->choice == CHOOSE_FRESH) {
		run->first = b->fresh;
		b->fresh += repeat;
	}
}

static uint32_t run_once(struct bench *b, enum runner runner, const struct packet *packet,
			 uint32_t repeat)
{
	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet->data,
				  .data_size_in = (uint32_t)packet->length, .repeat = (int)repeat);

	b->skeleton->bss->run.next = 0;
	if (bpf_prog_test_run_opts(b->programs[runner], &opts))
		die("BPF_PROG_TEST_RUN: %s", strerror(errno));
	if (opts.retval != (uint32_t)TC_ACT_UNSPEC)
		die("verdict %u: the packet was dropped, or a step was not reached", opts.retval);
	return opts.duration;
}

static uint64_t counted(struct bench *b, unsigned what)
{
	const struct flow_totals *totals = datapath_totals(b->datapath);
	struct cpu_counters counters;
	uint64_t left = 0;

	if (what == EXPECT_CREATE)
		return totals->created;
	if (what == EXPECT_EVICT)
		return totals->evicted;
	if (datapath_counters(b->datapath, &counters) < 0)
		die("counters: %s", strerror(errno));
	if (what < REASON_COUNT)
		return counters.reasons[what];
	for (size_t i = 0; i < REASON_COUNT; i++)
		left += counters.reasons[i];
	return counters.packets - left; /* forwarded */
}

/* Runs and checks. A flow in a hundred thousand may have found its bucket full: see the docs. */
static uint32_t run_checked(struct bench *b, const struct kind *kind, const struct measurement *m,
			    uint32_t repeat)
{
	uint64_t before, did;
	struct packet packet;
	uint32_t ns;

	build_packet(kind, m, &packet);
	choose_flows(b, kind, m, repeat);
	before = counted(b, m->expected);
	ns = run_once(b, m->runner, &packet, repeat);
	did = counted(b, m->expected) - before;
	if (m->expected != EXPECT_NOTHING && (did > repeat || repeat - did > repeat / 10000 + 1))
		die("%s, %s: %lu of %u packets went that way", kind->name, m->label,
		    (unsigned long)did, repeat);
	return ns;
}

static uint32_t run_base(struct bench *b, const struct kind *kind, const struct measurement *m,
			 uint32_t repeat)
{
	uint32_t fresh = b->fresh;
	struct packet packet;

	build_packet(kind, m, &packet);
	choose_flows(b, kind, m, repeat);
	b->fresh = fresh; /* the flows were not used up */
	return run_once(b, m->choice == CHOOSE_ONE ? RUN_NOTHING : RUN_PACKET, &packet, repeat);
}

/* ---- flows that are there already ---- */

/* A handshake of every flow, or question, answer, question: all are assured then. */
static void fill_live(struct bench *b, const struct kind *kind)
{
	static const struct measurement handshake[] = {
		{"SYN", RUN_IN, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_SYN, 0, EXPECT_CREATE},
		{"SYN, ACK", RUN_OUT, CHOOSE_LIVE, true, TARGET, TCP_FLAG_SYN | TCP_FLAG_ACK, 0,
		 EXPECT_FORWARD},
		{"ACK", RUN_IN, CHOOSE_LIVE, false, SERVICE, TCP_FLAG_ACK, 0, EXPECT_FORWARD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(handshake); i++)
		run_checked(b, kind, &handshake[i], b->live);
}

/* The two flows of a packet that is redirected to and fro. */
static void fill_pair(struct bench *b, const struct kind *kind)
{
	static const struct measurement there = {"pair", RUN_REAL_IN,  CHOOSE_ONE, false,
						 PAIR,	 TCP_FLAG_ACK, 0,	   EXPECT_FORWARD};
	static const struct measurement back = {
		"pair, back", RUN_REAL_OUT, CHOOSE_ONE, true,
		PAIR_TARGET,  TCP_FLAG_ACK, 0,		EXPECT_FORWARD};

	run_checked(b, kind, &there, 2);
	run_checked(b, kind, &back, 2);
	run_checked(b, kind, &there, 2);
}

/* As many unassured flows as the table holds. */
static void fill_flood(struct bench *b, const struct kind *kind)
{
	static const struct measurement syn = {"SYN",	     RUN_IN, CHOOSE_FRESH, false, SERVICE,
					       TCP_FLAG_SYN, 0,	     EXPECT_CREATE};
	const struct datapath_config *c = datapath_config(b->datapath);
	const struct flow_totals *t = datapath_totals(b->datapath);

	run_checked(b, kind, &syn, (uint32_t)(c->flows_max - (t->created - t->destroyed)));
}

/* ---- rounds and report ---- */

static uint32_t fresh_a_round(const struct bench *b)
{
	uint32_t n = b->live / 16;

	return n < FRESH_LEAST ? FRESH_LEAST : n > FRESH_MOST ? FRESH_MOST : n;
}

static int compare_ns(const void *a, const void *b)
{
	uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;

	return (one > other) - (one < other);
}

static void report(struct bench *b, const char *heading, const struct kind *kind,
		   const struct measurement *m, struct samples *s)
{
	int least, median;

	qsort(s->ns, b->rounds, sizeof(s->ns[0]), compare_ns);
	qsort(s->base_ns, b->rounds, sizeof(s->base_ns[0]), compare_ns);
	least = (int)s->ns[0] - (int)s->base_ns[0];
	median = (int)s->ns[b->rounds / 2] - (int)s->base_ns[b->rounds / 2];
	printf("  %-9s %-34s %6d %6d   (%u - %u)\n", kind->name, m->label, least, median, s->ns[0],
	       s->base_ns[0]);
	json_array_append_new(b->json,
			      json_pack("{s:s, s:i, s:s, s:s, s:i, s:i, s:i, s:i}", "table",
					heading, "flows", (int)b->live, "kind", kind->name,
					"packet", m->label, "ns_min", least, "ns_median", median,
					"gross_ns", (int)s->ns[0], "base_ns", (int)s->base_ns[0]));
}

static void measure(struct bench *b, const char *heading, const struct kind *kind,
		    const struct measurement *table, size_t n)
{
	struct samples *all = calloc(n, sizeof(*all));

	if (!all)
		die("out of memory");
	for (unsigned round = 0; round < b->rounds; round++) {
		for (size_t i = 0; i < n; i++) {
			bool fresh = table[i].choice == CHOOSE_FRESH;
			uint32_t repeat = fresh ? fresh_a_round(b) : HOT_REPEAT;

			all[i].base_ns[round] = run_base(b, kind, &table[i], repeat);
			all[i].ns[round] = run_checked(b, kind, &table[i], repeat);
			if (table[i].expected == EXPECT_CREATE)
				remove_flows(b, false);
		}
	}
	for (size_t i = 0; i < n; i++)
		report(b, heading, kind, &table[i], &all[i]);
	fflush(stdout);
	free(all);
}

static void head(const char *heading, uint32_t flows)
{
	printf("\n%s, %u flows%30s%s\n", heading, flows, "", "min median  (gross - base)");
}

static void measure_size(struct bench *b, uint32_t flows, bool first)
{
	bench_open(b, flows);
	if (first) {
		head("One packet again and again", 4);
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
			fill_pair(b, &kinds[i]);
			measure(b, "one", &kinds[i], one_packet, ARRAY_SIZE(one_packet));
		}
		remove_flows(b, true);
	}
	head("Another flow each time", flows);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		fill_live(b, &kinds[i]);
		measure(b, "many", &kinds[i], many_flows, ARRAY_SIZE(many_flows));
		if (i == 0)
			measure(b, "steps", &kinds[i], steps, ARRAY_SIZE(steps));
		remove_flows(b, true);
	}
	fill_flood(b, &kinds[0]);
	measure(b, "flood", &kinds[0], flood, ARRAY_SIZE(flood));
	bench_close(b);
}

/* ---- options ---- */

static void __attribute__((noreturn)) usage(void)
{
	fputs("usage: bench-datapath [-r ROUNDS] [-c CPU] [-j FILE] [FLOWS...]\n"
	      "  FLOWS: powers of two from 256 on; default: 256 65536 1048576\n",
	      stderr);
	exit(2);
}

static uint32_t read_number(const char *text, uint32_t least, uint32_t most)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || n < least || n > most) {
		fprintf(stderr, "bench-datapath: \"%s\" is no number from %u to %u\n", text, least,
			most);
		usage();
	}
	return (uint32_t)n;
}

/* One processor, and nearly all of it. */
static void have_processor(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("processor %u: %s", cpu, strerror(errno));
	setpriority(PRIO_PROCESS, 0, -20);
}

int main(int argc, char **argv)
{
	uint32_t sizes[SIZES_MAX] = {256, 65536, 1048576};
	struct bench b = {.rounds = 11, .json = json_array()};
	size_t n_sizes = 3, given = 0;
	const char *json_path = NULL;
	unsigned cpu = 0;
	struct utsname u;
	int option;

	while ((option = getopt(argc, argv, "r:c:j:")) != -1) {
		if (option == 'r')
			b.rounds = read_number(optarg, 1, ROUNDS_MAX);
		else if (option == 'c')
			cpu = read_number(optarg, 0, CPU_SETSIZE - 1);
		else if (option == 'j')
			json_path = optarg;
		else
			usage();
	}
	for (; optind < argc && given < SIZES_MAX; optind++) {
		sizes[given] = read_number(argv[optind], FLOWS_LEAST, 1 << 22);
		if (sizes[given] & (sizes[given] - 1))
			usage();
		n_sizes = ++given;
	}
	current_bench = &b;
	have_processor(cpu);
	uname(&u);
	printf("%s %s %s, processor %u, %u rounds; nanoseconds a packet beyond the base program\n",
	       u.sysname, u.release, u.machine, cpu, b.rounds);
	for (size_t i = 0; i < n_sizes; i++)
		measure_size(&b, sizes[i], i == 0);
	if (json_path && json_dump_file(b.json, json_path, JSON_INDENT(2)) < 0)
		die("%s: %s", json_path, strerror(errno));
	json_decref(b.json);
	return 0;
}
