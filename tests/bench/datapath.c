/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the datapath costs a packet, in nanoseconds, by BPF_PROG_TEST_RUN: the real programs over
 * the daemon's own modules (loading, rules), beside programs that do all but the datapath's work.
 *
 * Rounds go over all measurements of a group in turn, each right behind its base, so that what else
 * the machine does hits all alike. Every run is checked by the datapath's counters: packets that
 * were not treated as the label says end the benchmark.
 *
 * Root. Attached to nothing; its pins are gone afterwards. docs/BENCHMARKS.md explains the output.
 */
#include <getopt.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include "tests/bench/scenarios.h"
#include "tests/bench/world.h"

#define ROUNDS_MAX 101
#define SIZES_MAX  8
#define HOT_REPEAT 200000
#define FRESH_MOST 16384

struct options {
	uint32_t sizes[SIZES_MAX];
	size_t n_sizes;
	unsigned rounds;
	unsigned cpu;
	const char *only; /* names of groups between commas; NULL: all */
	const char *json_path;
};

struct samples {
	uint32_t ns[ROUNDS_MAX], base_ns[ROUNDS_MAX];
};

/* A measurement in a world, and what came out. */
struct job {
	struct world *world;
	const struct measurement *m;
	char label[64];
	struct samples samples;
};

static uint32_t fresh_a_round(uint32_t flows)
{
	uint32_t n = flows / 16;

	return n < FLOWS_LEAST ? FLOWS_LEAST : n > FRESH_MOST ? FRESH_MOST : n;
}

static int compare_ns(const void *a, const void *b)
{
	uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;

	return (one > other) - (one < other);
}

static void report(const struct group *g, const struct kind *kind, struct job *job, unsigned rounds,
		   json_t *json)
{
	struct samples *s = &job->samples;
	int least, median;

	qsort(s->ns, rounds, sizeof(s->ns[0]), compare_ns);
	qsort(s->base_ns, rounds, sizeof(s->base_ns[0]), compare_ns);
	least = (int)s->ns[0] - (int)s->base_ns[0];
	median = (int)s->ns[rounds / 2] - (int)s->base_ns[rounds / 2];
	printf("  %-9s %-34s %6d %6d   (%u - %u)\n", kind->name, job->label, least, median,
	       s->ns[0], s->base_ns[0]);
	json_array_append_new(json, json_pack("{s:s, s:i, s:s, s:s, s:i, s:i, s:i, s:i}", "table",
					      g->name, "flows", (int)world_live(job->world), "kind",
					      kind->name, "packet", job->label, "ns_min", least,
					      "ns_median", median, "gross_ns", (int)s->ns[0],
					      "base_ns", (int)s->base_ns[0]));
}

static void run_job(struct job *job, const struct kind *kind, unsigned round)
{
	bool fresh = job->m->choice == CHOOSE_FRESH;
	uint32_t repeat = fresh ? fresh_a_round(world_live(job->world)) : HOT_REPEAT;

	job->samples.base_ns[round] = world_run_base(job->world, kind, job->m, repeat);
	job->samples.ns[round] = world_run(job->world, kind, job->m, repeat);
	if (job->m->expected == EXPECT_CREATE)
		world_remove_flows(job->world, false);
}

static void fill(struct world *w, const struct group *g, const struct kind *kind)
{
	for (size_t i = 0; i < g->n_fill; i++) {
		const struct measurement *m = &g->fill[i];

		world_run(w, kind, m,
			  m->choice == CHOOSE_ONE    ? 2
			  : m->choice == CHOOSE_LIVE ? world_live(w)
						     : world_room(w));
	}
}

/* The jobs of a kind: every measurement, each in all worlds. Returns how many. */
static size_t make_jobs(const struct group *g, const struct kind *kind, struct world **worlds,
			struct job *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n; i++) {
		if (g->table[i].only && g->table[i].only != kind->protocol)
			continue;
		for (size_t j = 0; j < GROUP_SETS_MAX && worlds[j]; j++) {
			struct job *job = &ret[n++];

			job->world = worlds[j];
			job->m = &g->table[i];
			snprintf(job->label, sizeof(job->label), "%s%s%s", job->m->label,
				 g->sets[1] ? ", " : "", g->sets[1] ? g->sets[j]->name : "");
		}
	}
	return n;
}

static void measure_kind(const struct options *o, const struct group *g, const struct kind *kind,
			 struct world **worlds, json_t *json)
{
	struct job *jobs = calloc(g->n * GROUP_SETS_MAX, sizeof(*jobs));
	size_t n;

	if (!jobs)
		die("out of memory");
	n = make_jobs(g, kind, worlds, jobs);
	for (size_t i = 0; i < GROUP_SETS_MAX && worlds[i]; i++)
		fill(worlds[i], g, kind);
	for (unsigned round = 0; round < o->rounds; round++)
		for (size_t i = 0; i < n; i++)
			run_job(&jobs[i], kind, round);
	for (size_t i = 0; i < n; i++)
		report(g, kind, &jobs[i], o->rounds, json);
	for (size_t i = 0; i < GROUP_SETS_MAX && worlds[i]; i++)
		world_remove_flows(worlds[i], true);
	fflush(stdout);
	free(jobs);
}

static void measure_group(const struct options *o, const struct group *g, uint32_t flows,
			  json_t *json)
{
	struct world *worlds[GROUP_SETS_MAX] = {NULL};
	int blanks = 44 - (int)strlen(g->heading);

	for (size_t i = 0; i < GROUP_SETS_MAX && g->sets[i]; i++)
		worlds[i] = world_open(g->sets[i], flows);
	printf("\n%s (%s), %u flows%*s%s\n", g->heading, g->name, flows, blanks > 0 ? blanks : 0,
	       "", "min median  (gross - base)");
	for (size_t i = 0; i < n_kinds; i++)
		if (g->kinds & 1U << i)
			measure_kind(o, g, &kinds[i], worlds, json);
	for (size_t i = 0; i < GROUP_SETS_MAX && worlds[i]; i++)
		world_close(worlds[i]);
}

/* ---- options ---- */

static void __attribute__((noreturn)) usage(void)
{
	fputs("usage: bench-datapath [-r ROUNDS] [-c CPU] [-g GROUP,...] [-j FILE] [FLOWS...]\n"
	      "  FLOWS: powers of two from 256 on; default: 256 65536 1048576\n"
	      "  GROUP:",
	      stderr);
	for (size_t i = 0; i < n_groups; i++)
		fprintf(stderr, " %s", groups[i].name);
	fputc('\n', stderr);
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

/* Is the name one of those between commas? */
static bool listed(const char *list, const char *name, size_t length)
{
	size_t n;

	for (; *list; list += n + (list[n] == ',')) {
		n = strcspn(list, ",");
		if (n == length && memcmp(list, name, n) == 0)
			return true;
	}
	return false;
}

static void check_groups(const char *only)
{
	size_t n;

	for (; *only; only += n + (only[n] == ',')) {
		bool known = false;

		n = strcspn(only, ",");
		for (size_t i = 0; i < n_groups; i++)
			known |= listed(groups[i].name, only, n);
		if (!known) {
			fprintf(stderr, "bench-datapath: no group \"%.*s\"\n", (int)n, only);
			usage();
		}
	}
}

static void read_sizes(char **texts, int n, struct options *o)
{
	if (n > SIZES_MAX)
		usage();
	for (int i = 0; i < n; i++) {
		o->sizes[i] = read_number(texts[i], FLOWS_LEAST, 1 << 22);
		if (o->sizes[i] & (o->sizes[i] - 1))
			usage();
	}
	if (n)
		o->n_sizes = (size_t)n;
}

static void read_options(int argc, char **argv, struct options *o)
{
	int option;

	while ((option = getopt(argc, argv, "r:c:g:j:")) != -1) {
		if (option == 'r')
			o->rounds = read_number(optarg, 1, ROUNDS_MAX);
		else if (option == 'c')
			o->cpu = read_number(optarg, 0, CPU_SETSIZE - 1);
		else if (option == 'g')
			check_groups(o->only = optarg);
		else if (option == 'j')
			o->json_path = optarg;
		else
			usage();
	}
	read_sizes(argv + optind, argc - optind, o);
}

/* One processor, and nearly all of it. */
static void have_processor(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("processor %u cannot be had", cpu);
	setpriority(PRIO_PROCESS, 0, -20);
}

int main(int argc, char **argv)
{
	struct options o = {.sizes = {256, 65536, 1048576}, .n_sizes = 3, .rounds = 11};
	json_t *json = json_array();
	struct utsname u;

	read_options(argc, argv, &o);
	have_processor(o.cpu);
	world_enter_namespace();
	uname(&u);
	printf("%s %s %s, processor %u, %u rounds; nanoseconds a packet beyond the base program\n",
	       u.sysname, u.release, u.machine, o.cpu, o.rounds);
	for (size_t i = 0; i < n_groups; i++) {
		const struct group *g = &groups[i];

		if (o.only && !listed(o.only, g->name, strlen(g->name)))
			continue;
		for (size_t j = 0; j < o.n_sizes; j++)
			if (o.sizes[j] <= g->flows_most)
				measure_group(&o, g, o.sizes[j], json);
	}
	if (o.json_path && json_dump_file(json, o.json_path, JSON_INDENT(2)) < 0)
		die("%s: cannot be written", o.json_path);
	json_decref(json);
	return 0;
}
