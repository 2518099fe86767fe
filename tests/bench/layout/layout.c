/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Measures the flow table prototypes of layout.bpf.c and prints nanoseconds a packet.
 *
 * Every candidate is loaded as an object of its own, with only its maps and programs, and filled
 * through its own `new` program. Rounds go over all candidates and operations in turn, so that
 * what else the machine does hits all of them alike. Every run is checked: a hit that missed, or
 * an insert that failed, ends the benchmark.
 *
 * Root, and no pins or interfaces: nothing outlives the process.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/layout/layout.h"

#define ROUNDS_MAX     101
#define OPERATIONS_MAX 8
#define MAPS_MAX       4
#define CAPACITY_LEAST 1024
#define RANDOM_REPEAT  200000
#define FLOOD_REPEAT   100000
#define BATCH	       4096
#define ARRAY_SIZE(a)  (sizeof(a) / sizeof((a)[0]))

/* Which flows a program is run on, and how often. */
enum mode {
	MODE_PLAIN, /* no flow at all */
	MODE_HIT,
	MODE_YOUNG,
	MODE_MISS,
	MODE_NEXT,  /* the same new flows for each such program of a candidate, in order */
	MODE_FLOOD, /* new flows into a full table; after all other measurements */
};

struct operation {
	const char *label;
	const char *program, *base; /* base: NULL for a base itself */
	enum mode mode;
	bool fails; /* no iteration is to succeed: a full plain hash map refuses */
};

struct candidate {
	const char *name, *title;
	const char *maps[MAPS_MAX];
	const char *fill, *promote; /* promote: run after fill over the same flows */
	bool young;		    /* `fill` again for a second, young population */
	bool overflows;		    /* a flow may find its bucket full: counted, rare */
	const char *walk;	    /* hash map to dump in batches, or array to map */
	struct operation operations[OPERATIONS_MAX];
};

#define HASH_OPERATIONS(p, family)                                                                 \
	{                                                                                          \
		{"established hit", p "_hit", "base_random" family, MODE_HIT, false},              \
			{"miss", p "_miss", "base_random" family, MODE_MISS, false},               \
			{"first packet", p "_new", "base_pair" family, MODE_NEXT, false},          \
			{"delete", p "_delete", "base_pair" family, MODE_NEXT, false},             \
			{"new, table full", p "_new", "base_pair" family, MODE_FLOOD, true},       \
	}

#define OWN_OPERATIONS(p, family)                                                                  \
	{                                                                                          \
		{"established hit", p "_hit", "base_random" family, MODE_HIT, false},              \
			{"miss", p "_miss", "base_random" family, MODE_MISS, false},               \
			{"first packet", p "_new", "base_pair" family, MODE_NEXT, false},          \
			{"delete", p "_delete", "base_pair" family, MODE_NEXT, false},             \
			{"new, table full", p "_new", "base_pair" family, MODE_FLOOD, false},      \
	}

static const struct candidate candidates[] = {
	{
		.name = "A",
		.title = "hash, two entries a flow, IPv4 key",
		.maps = {"a_flows"},
		.fill = "a_new",
		.walk = "a_flows",
		.operations = HASH_OPERATIONS("a", "4"),
	},
	{
		.name = "A6",
		.title = "the same, IPv6 key",
		.maps = {"a6_flows"},
		.fill = "a6_new",
		.walk = "a6_flows",
		.operations = HASH_OPERATIONS("a6", "6"),
	},
	{
		.name = "A'",
		.title = "A without preallocation",
		.maps = {"an_flows"},
		.fill = "an_new",
		.walk = "an_flows",
		.operations = HASH_OPERATIONS("an", "4"),
	},
	{
		.name = "B",
		.title = "LRU for young flows, hash for assured ones",
		.maps = {"b_young", "b_assured"},
		.fill = "b_new",
		.promote = "b_promote",
		.young = true,
		.walk = "b_assured",
		.operations =
			{
				{"established hit", "b_hit", "base_random4", MODE_HIT, false},
				{"unassured hit", "b_young_hit", "base_random4", MODE_YOUNG, false},
				{"miss", "b_miss", "base_random4", MODE_MISS, false},
				{"first packet", "b_new", "base_pair4", MODE_NEXT, false},
				{"promote", "b_promote", "base_pair4", MODE_NEXT, false},
				{"delete", "b_delete", "base_pair4", MODE_NEXT, false},
				{"new, table full", "b_new", "base_pair4", MODE_FLOOD, false},
			},
	},
	{
		.name = "C",
		.title = "hash of record numbers, records in an array",
		.maps = {"c_index", "c_records", "c_free"},
		.fill = "c_new",
		.walk = "c_records",
		.operations = HASH_OPERATIONS("c", "4"),
	},
	{
		.name = "D",
		.title = "own table, IPv4 mapped into 16-byte addresses",
		.maps = {"d_flows", "d_index", "d_locks", "d_hand"},
		.fill = "d_new",
		.overflows = true,
		.walk = "d_flows",
		.operations = OWN_OPERATIONS("d", "4"),
	},
	{
		.name = "D6",
		.title = "own table, IPv6",
		.maps = {"d_flows", "d_index", "d_locks", "d_hand"},
		.fill = "d6_new",
		.overflows = true,
		.walk = "d_flows",
		.operations = OWN_OPERATIONS("d6", "6"),
	},
	{
		.name = "parts",
		.title = "what any candidate may need",
		.maps = {"ports", "totals"},
		.operations =
			{
				{"NH hash of 40 bytes", "part_hash", "base_random6", MODE_MISS,
				 false},
				{"ARRAY[65536] by port", "part_port", "base_random4", MODE_MISS,
				 false},
				{"per-CPU packets and bytes", "part_totals", "base_empty",
				 MODE_PLAIN, false},
				{"bpf_ktime_get_ns", "part_ktime", "base_empty", MODE_PLAIN, false},
				{"bpf_ktime_get_coarse_ns", "part_ktime_coarse", "base_empty",
				 MODE_PLAIN, false},
				{"bpf_jiffies64", "part_jiffies", "base_empty", MODE_PLAIN, false},
			},
	},
};

struct sizes {
	uint32_t flows;	   /* what the table is called */
	uint32_t capacity; /* flows that fit */
	uint32_t live;	   /* established flows in it */
	uint32_t fresh;	   /* flows made and deleted in a round */
};

struct samples {
	uint32_t ns[ROUNDS_MAX], base_ns[ROUNDS_MAX];
};

struct instance {
	const struct candidate *candidate;
	struct bpf_object *object;
	struct layout_run *run;
	uint64_t memory; /* bytes of its maps */
	double walk_ms, walk_flows;
	uint64_t failed, tried; /* iterations that found a bucket full */
	struct samples samples[OPERATIONS_MAX];
};

struct options {
	const char *object, *json;
	unsigned rounds;
	uint32_t flows[8];
	size_t n_flows;
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("layout: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* ---- loading ---- */

static size_t candidate_operations(const struct candidate *c)
{
	size_t n = 0;

	while (n < OPERATIONS_MAX && c->operations[n].label)
		n++;
	return n;
}

static bool candidate_uses_map(const struct candidate *c, const char *map)
{
	for (size_t i = 0; i < MAPS_MAX && c->maps[i]; i++)
		if (strcmp(c->maps[i], map) == 0)
			return true;
	return strcmp(map, ".data.run") == 0;
}

static bool candidate_uses_program(const struct candidate *c, const char *program)
{
	for (size_t i = 0; i < candidate_operations(c); i++)
		if (strcmp(c->operations[i].program, program) == 0)
			return true;
	return strncmp(program, "base_", 5) == 0;
}

/* Flows that fit, in entries of this map; 0 leaves max_entries alone. */
static uint32_t map_entries(const char *name, const struct sizes *s)
{
	static const struct {
		const char *name;
		uint32_t numerator, denominator, extra;
	} table[] = {
		{"a_flows", 2, 1, 0},
		{"a6_flows", 2, 1, 0},
		{"an_flows", 2, 1, 0},
		/* the LRU sets 128 elements a CPU aside and evicts before it is full */
		{"b_young", 2, 1, 4096},
		{"b_assured", 2, 1, 0},
		{"c_index", 2, 1, 0},
		{"c_records", 1, 1, 0},
		{"c_free", 1, 1, 0},
		{"d_flows", 1, 1, 0},
		{"d_index", 1, 2, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strcmp(table[i].name, name) == 0)
			return s->capacity / table[i].denominator * table[i].numerator +
			       table[i].extra;
	return 0;
}

static uint64_t map_memory(const struct bpf_map *map)
{
	char path[64], line[128];
	uint64_t bytes = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", bpf_map__fd(map));
	f = fopen(path, "re");
	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "memlock: %lu", &bytes) == 1)
			break;
	fclose(f);
	return bytes;
}

static void instance_prepare(struct instance *in, const struct sizes *s)
{
	struct bpf_program *program;
	struct bpf_map *map;

	bpf_object__for_each_program(program, in->object) bpf_program__set_autoload(
		program, candidate_uses_program(in->candidate, bpf_program__name(program)));
	bpf_object__for_each_map(map, in->object)
	{
		const char *name = bpf_map__name(map);

		bpf_map__set_autocreate(map, candidate_uses_map(in->candidate, name));
		if (map_entries(name, s))
			bpf_map__set_max_entries(map, map_entries(name, s));
	}
}

static int instance_map_fd(const struct instance *in, const char *name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(in->object, name);

	if (!map || bpf_map__fd(map) < 0)
		die("the object has no map \"%s\"", name);
	return bpf_map__fd(map);
}

static void instance_load(struct instance *in, const struct candidate *c, const char *path,
			  const struct sizes *s)
{
	in->candidate = c;
	in->object = bpf_object__open_file(path, NULL);
	if (!in->object)
		die("%s: %s", path, strerror(errno));
	instance_prepare(in, s);
	if (bpf_object__load(in->object))
		die("%s: candidate %s does not load: %s", path, c->name, strerror(errno));
	in->run = mmap(NULL, (size_t)getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED,
		       instance_map_fd(in, ".data.run"), 0);
	if (in->run == MAP_FAILED)
		die("mapping .data.run: %s", strerror(errno));
	in->run->bucket_mask = s->capacity / 2 - 1;
	in->run->record_mask = s->capacity - 1;
	if (getrandom(in->run->hash_key, sizeof(in->run->hash_key), 0) < 0)
		die("getrandom: %s", strerror(errno));
}

/* ---- running ---- */

/* Ends the benchmark unless the program did what it is measured for. */
static void check_successes(struct instance *in, const char *name, uint32_t repeat, bool fails)
{
	uint32_t expected = fails || strcmp(name, "base_empty") == 0 ? 0 : repeat;
	uint32_t allowed = in->candidate->overflows ? repeat / 10000 + 1 : 0;
	uint32_t got = in->run->successes;

	if (strncmp(name, "part_", 5) == 0)
		return;
	if (got > expected || expected - got > allowed)
		die("%s: %u of %u iterations succeeded, %u expected", name, got, repeat, expected);
	in->failed += expected - got;
	in->tried += repeat;
}

static uint32_t run_program(struct instance *in, const char *name, uint32_t repeat, bool fails)
{
	struct bpf_program *program = bpf_object__find_program_by_name(in->object, name);
	unsigned char packet[64] = {0};
	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet,
				  .data_size_in = sizeof(packet), .repeat = (int)repeat);

	if (!program)
		die("the object has no program \"%s\"", name);
	in->run->successes = 0;
	if (bpf_prog_test_run_opts(bpf_program__fd(program), &opts))
		die("%s: BPF_PROG_TEST_RUN: %s", name, strerror(errno));
	check_successes(in, name, repeat, fails);
	return opts.duration;
}

static void run_from(struct instance *in, uint32_t first, uint32_t span)
{
	in->run->counter = first;
	in->run->offset = first;
	in->run->span = span;
}

static void fill_free_numbers(struct instance *in, const struct sizes *s)
{
	int fd = instance_map_fd(in, "c_free");

	for (uint32_t id = 0; id < s->capacity; id++)
		if (bpf_map_update_elem(fd, NULL, &id, 0))
			die("c_free: %s", strerror(errno));
}

static void instance_fill(struct instance *in, const struct sizes *s)
{
	const struct candidate *c = in->candidate;

	for (size_t i = 0; i < MAPS_MAX && c->maps[i]; i++)
		if (strcmp(c->maps[i], "c_free") == 0)
			fill_free_numbers(in, s);
	if (!c->fill)
		return;
	in->run->assured = 1;
	run_from(in, 0, s->live);
	run_program(in, c->fill, s->live, false);
	if (c->promote) {
		run_from(in, 0, s->live);
		run_program(in, c->promote, s->live, false);
	}
	if (c->young) {
		run_from(in, LAYOUT_YOUNG, s->live);
		run_program(in, c->fill, s->live, false);
	}
	for (size_t i = 0; i < MAPS_MAX && c->maps[i]; i++)
		in->memory += map_memory(bpf_object__find_map_by_name(in->object, c->maps[i]));
}

/* One operation and its base, back to back. */
static void measure(struct instance *in, size_t number, unsigned round, const struct sizes *s)
{
	static const uint32_t first[] = {
		[MODE_PLAIN] = 0,	   [MODE_HIT] = 0,  [MODE_YOUNG] = LAYOUT_YOUNG,
		[MODE_MISS] = LAYOUT_MISS, [MODE_NEXT] = 0, [MODE_FLOOD] = 0,
	};
	const struct operation *o = &in->candidate->operations[number];
	uint32_t repeat = o->mode == MODE_NEXT ? s->fresh : RANDOM_REPEAT;
	uint32_t seed = in->run->counter;

	run_from(in, o->mode == MODE_NEXT ? s->live : first[o->mode], s->live);
	if (o->mode != MODE_NEXT)
		in->run->counter = seed; /* go on where the last run ended: not the same flows */
	in->samples[number].base_ns[round] = run_program(in, o->base, repeat, false);
	run_from(in, o->mode == MODE_NEXT ? s->live : first[o->mode], s->live);
	if (o->mode != MODE_NEXT)
		in->run->counter = seed + repeat;
	in->samples[number].ns[round] = run_program(in, o->program, repeat, o->fails);
}

/* Fills the table to the brim with unassured flows, then measures one more. */
static void measure_flood(struct instance *in, size_t number, unsigned round, const struct sizes *s)
{
	const struct operation *o = &in->candidate->operations[number];
	__extension__ LIBBPF_OPTS(bpf_test_run_opts, opts, .repeat = (int)(3 * s->capacity));
	unsigned char packet[64] = {0};

	in->run->assured = 0;
	if (round == 0) {
		opts.data_in = packet;
		opts.data_size_in = sizeof(packet);
		run_from(in, LAYOUT_FLOOD, s->live);
		if (bpf_prog_test_run_opts(bpf_program__fd(bpf_object__find_program_by_name(
						   in->object, o->program)),
					   &opts))
			die("%s: BPF_PROG_TEST_RUN: %s", o->program, strerror(errno));
		in->run->evictions = 0;
	}
	in->samples[number].ns[round] = run_program(in, o->program, FLOOD_REPEAT, o->fails);
	in->samples[number].base_ns[round] = run_program(in, o->base, FLOOD_REPEAT, false);
}

static void measure_all(struct instance *instances, unsigned rounds, const struct sizes *s)
{
	for (int flood = 0; flood < 2; flood++)
		for (unsigned round = 0; round < rounds; round++)
			for (size_t i = 0; i < ARRAY_SIZE(candidates); i++)
				for (size_t o = 0; o < candidate_operations(&candidates[i]); o++) {
					bool is = candidates[i].operations[o].mode == MODE_FLOOD;

					if (is && flood)
						measure_flood(&instances[i], o, round, s);
					else if (!is && !flood)
						measure(&instances[i], o, round, s);
				}
}

/* ---- user space reads every flow ---- */

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t walk_batches(int fd)
{
	static unsigned char keys[BATCH][sizeof(uint32_t) * LAYOUT_WORDS];
	static struct layout_value values[BATCH];
	__extension__ LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint64_t flows = 0, packets = 0;
	uint32_t cursor = 0, count;
	bool first = true;
	int r;

	do {
		count = BATCH;
		r = bpf_map_lookup_batch(fd, first ? NULL : &cursor, &cursor, keys, values, &count,
					 &opts);
		if (r && errno != ENOENT)
			die("bpf_map_lookup_batch: %s", strerror(errno));
		for (uint32_t i = 0; i < count; i++)
			packets += values[i].packets;
		flows += count;
		first = false;
	} while (!r);
	if (!packets)
		die("a dump of established flows that counted no packet");
	return flows / 2;
}

static uint64_t walk_mapping(int fd, uint32_t n)
{
	size_t length = (size_t)n * sizeof(struct layout_record);
	const struct layout_record *records;
	uint64_t flows = 0, packets = 0;

	records = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
	if (records == MAP_FAILED)
		die("mapping the records: %s", strerror(errno));
	for (uint32_t i = 0; i < n; i++) {
		if (records[i].half[0].state == LAYOUT_FREE)
			continue;
		packets += records[i].half[0].packets + records[i].half[1].packets;
		flows++;
	}
	munmap((void *)records, length);
	if (!packets)
		die("a walk over established flows that counted no packet");
	return flows;
}

static void instance_walk(struct instance *in, const struct sizes *s)
{
	struct bpf_map *map;
	double start, best = 0;

	if (!in->candidate->walk)
		return;
	map = bpf_object__find_map_by_name(in->object, in->candidate->walk);
	for (int i = 0; i < 5; i++) {
		start = now_ms();
		if (bpf_map__type(map) == BPF_MAP_TYPE_ARRAY)
			in->walk_flows = (double)walk_mapping(bpf_map__fd(map), s->capacity);
		else
			in->walk_flows = (double)walk_batches(bpf_map__fd(map));
		if (i == 0 || now_ms() - start < best)
			best = now_ms() - start;
	}
	in->walk_ms = best;
}

/* ---- printing ---- */

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

struct summary {
	uint32_t min, median;
};

static struct summary summarize(const uint32_t *ns, unsigned rounds)
{
	uint32_t sorted[ROUNDS_MAX];

	memcpy(sorted, ns, rounds * sizeof(*ns));
	qsort(sorted, rounds, sizeof(*sorted), compare_u32);
	return (struct summary){.min = sorted[0], .median = sorted[rounds / 2]};
}

static json_t *print_operation(const struct instance *in, size_t number, unsigned rounds)
{
	const struct operation *o = &in->candidate->operations[number];
	struct summary all = summarize(in->samples[number].ns, rounds);
	struct summary base = summarize(in->samples[number].base_ns, rounds);
	int min = (int)all.min - (int)base.min, median = (int)all.median - (int)base.median;

	printf("  %-5s  %-26s %6d %6d   (%u - %u)\n", in->candidate->name, o->label, min, median,
	       all.min, base.min);
	return json_pack("{ss si si si si}", "operation", o->label, "min_ns", min, "median_ns",
			 median, "gross_min_ns", (int)all.min, "base_min_ns", (int)base.min);
}

static json_t *print_instance(const struct instance *in, unsigned rounds, const struct sizes *s)
{
	json_t *operations = json_array();
	double per_flow = (double)in->memory / s->capacity;

	for (size_t o = 0; o < candidate_operations(in->candidate); o++)
		json_array_append_new(operations, print_operation(in, o, rounds));
	if (in->candidate->overflows)
		printf("  %-5s  bucket full: %lu of %lu iterations\n", in->candidate->name,
		       in->failed, in->tried);
	if (in->candidate->walk) {
		printf("  %-5s  memory %.0f bytes a flow (%.1f MiB)\n", in->candidate->name,
		       per_flow, (double)in->memory / 1048576);
		printf("  %-5s  walk of %.0f flows: %.3f ms, %.1f ns a flow\n", in->candidate->name,
		       in->walk_flows, in->walk_ms, in->walk_ms * 1e6 / in->walk_flows);
	}
	return json_pack("{ss ss so sf sf sf sI}", "candidate", in->candidate->name, "title",
			 in->candidate->title, "operations", operations, "bytes_per_flow", per_flow,
			 "walk_ms", in->walk_ms, "walk_flows", in->walk_flows, "bucket_full",
			 (json_int_t)in->failed);
}

static json_t *bench_size(const struct options *options, uint32_t flows)
{
	struct sizes s = {.flows = flows};
	struct instance *instances = calloc(ARRAY_SIZE(candidates), sizeof(*instances));
	json_t *list = json_array();

	if (!instances)
		die("out of memory");
	s.capacity = flows < CAPACITY_LEAST ? CAPACITY_LEAST : flows;
	s.live = flows - flows / 8;
	s.fresh = flows / 16 < 256 ? 256 : flows / 16;
	for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
		instance_load(&instances[i], &candidates[i], options->object, &s);
		instance_fill(&instances[i], &s);
	}
	measure_all(instances, options->rounds, &s);
	printf("\n%u flows (%u live, room for %u): nanoseconds over the base program\n", s.flows,
	       s.live, s.capacity);
	printf("  %-5s  %-26s %6s %6s   (gross - base, minima)\n", "", "", "min", "median");
	for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
		instance_walk(&instances[i], &s);
		json_array_append_new(list, print_instance(&instances[i], options->rounds, &s));
		munmap(instances[i].run, (size_t)getpagesize());
		bpf_object__close(instances[i].object);
	}
	free(instances);
	return json_pack("{si so}", "flows", (int)flows, "candidates", list);
}

/* ---- the command line ---- */

static void usage(void)
{
	printf("Usage: layout [-r ROUNDS] [-f FLOWS]... [-j FILE] [-c CPU] OBJECT\n\n"
	       "  -r ROUNDS  runs of every operation (default 15, at most %d)\n"
	       "  -f FLOWS   table size, a power of two (default 256, 65536 and 1048576)\n"
	       "  -c CPU     where to run (default 1 when there is one)\n"
	       "  -j FILE    writes the figures as JSON too\n"
	       "  OBJECT     layout.bpf.o\n",
	       ROUNDS_MAX);
}

static uint32_t parse_number(const char *text, const char *what, uint32_t least, uint32_t most)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || end == text || *end || v < least || v > most)
		die("%s: \"%s\" is not a number from %u to %u", what, text, least, most);
	return (uint32_t)v;
}

static void parse_flows(struct options *o, const char *text)
{
	uint32_t v = parse_number(text, "-f", 256, 1U << 23);

	if (v & (v - 1))
		die("-f: %u is not a power of two", v);
	if (o->n_flows == ARRAY_SIZE(o->flows))
		die("-f: at most %zu sizes", ARRAY_SIZE(o->flows));
	o->flows[o->n_flows++] = v;
}

static void parse_options(int argc, char **argv, struct options *ret, int *ret_cpu)
{
	int c;

	while ((c = getopt(argc, argv, "r:f:c:j:h")) != -1) {
		switch (c) {
		case 'r':
			ret->rounds = parse_number(optarg, "-r", 1, ROUNDS_MAX);
			break;
		case 'f':
			parse_flows(ret, optarg);
			break;
		case 'c':
			*ret_cpu = (int)parse_number(optarg, "-c", 0, CPU_SETSIZE - 1);
			break;
		case 'j':
			ret->json = optarg;
			break;
		case 'h':
			usage();
			exit(0);
		default:
			usage();
			exit(2);
		}
	}
	if (optind != argc - 1) {
		usage();
		exit(2);
	}
	ret->object = argv[optind];
}

static void pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("-c: CPU %d: %s", cpu, strerror(errno));
}

int main(int argc, char **argv)
{
	struct options options = {.rounds = 15};
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 1 : 0;
	json_t *sizes = json_array(), *all;
	struct utsname u;

	parse_options(argc, argv, &options, &cpu);
	if (!options.n_flows) {
		parse_flows(&options, "256");
		parse_flows(&options, "65536");
		parse_flows(&options, "1048576");
	}
	if (geteuid() != 0)
		die("BPF programs need root: run it with sudo");
	pin_to_cpu(cpu);
	uname(&u);
	printf("Linux %s, %u rounds, CPU %d\n", u.release, options.rounds, cpu);
	for (size_t i = 0; i < options.n_flows; i++)
		json_array_append_new(sizes, bench_size(&options, options.flows[i]));
	all = json_pack("{si ss si so}", "schema", 1, "kernel", u.release, "rounds",
			(int)options.rounds, "sizes", sizes);
	if (options.json &&
	    json_dump_file(all, options.json, JSON_INDENT(1) | JSON_REAL_PRECISION(6)))
		die("%s: cannot be written", options.json);
	json_decref(all);
	return 0;
}
