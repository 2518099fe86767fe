/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random and damaged packets through all hooks of the real programs, beside the oracle: each must
 * come out as the oracle says, byte by byte, with its verdict, and counted exactly once; what was
 * chosen for a new flow must be lawful; and the flows must have counted what the oracle did.
 *
 *   fuzz-packets [--seed N] [--packets N] [--from N] [--flavour NAME] [--failures N]
 *                [--show]
 *
 * A packet that fails is printed with the rules and both answers, and how to repeat it.
 */
#include <errno.h>
#include <getopt.h>
#include <linux/pkt_cls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

#define SEED_DEFAULT	0x5eed
#define PACKETS_DEFAULT 100000
#define CHANGE_ONCE_IN	32    /* packets */
#define FLOWS_MAX	16384 /* far more than a round opens: none is evicted */

static struct {
	unsigned long long seed, packets, from, failures;
	int flavour; /* -1: each in turn */
	bool show;   /* every packet of the rounds */
} options = {.seed = SEED_DEFAULT, .packets = PACKETS_DEFAULT, .failures = 1, .flavour = -1};

static struct {
	unsigned long long translated, errors, left_alone, dropped, redirected, refused, flows;
	unsigned long long limited, reset, failures;
} tally;

/* ---- one packet ---- */

/* What happened to a packet on both sides. */
struct trial {
	unsigned long long number;
	struct fuzz_packet in;
	uint8_t expected[PACKET_MAX + 14];
	struct oracle_answer answer;
	struct outcome out;
	uint32_t reasons; /* that the datapath has counted */
	uint64_t counted[REASON_COUNT], packets, errors;
};

static enum datapath_program program_of(const struct oracle_input *input)
{
	if (input->hook == ORACLE_IN)
		return input->ethernet ? PROGRAM_IN : PROGRAM_IN_L3;
	return input->ethernet ? PROGRAM_OUT : PROGRAM_OUT_L3;
}

static void run(struct world *w, struct trial *t)
{
	struct __sk_buff context = {.ifindex = t->in.input.interface};
	static struct cpu_counters before;
	struct cpu_counters after;

	if (t->in.input.segments > 1) {
		context.gso_segs = t->in.input.segments;
		context.gso_size = 100;
	}
	world_counters(w, &before);
	world_run(w, program_of(&t->in.input), &context, t->in.packet.data, t->in.packet.length,
		  &t->out);
	world_counters(w, &after);
	for (size_t i = 0; i < REASON_COUNT; i++) {
		t->counted[i] = after.reasons[i] - before.reasons[i];
		if (t->counted[i])
			t->reasons |= ORACLE_REASON(i);
	}
	t->packets = after.packets - before.packets;
	t->errors = after.icmp_errors - before.icmp_errors;
}

static const char *check_counters(const struct trial *t)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < REASON_COUNT; i++)
		sum += t->counted[i];
	if (t->packets != (t->in.input.segments > 1 ? t->in.input.segments : 1))
		return "it has not been counted as one packet";
	if (t->errors != t->answer.error)
		return t->answer.error ? "it has not been counted as a translated error"
				       : "it has been counted as a translated error";
	if (!t->answer.reasons)
		return sum ? "a reason not to translate it has been counted" : NULL;
	if (sum != 1)
		return sum ? "more than one reason has been counted"
			   : "no reason not to translate it has been counted";
	if (!(t->reasons & t->answer.reasons))
		return "another reason has been counted";
	if (t->reasons == ORACLE_REASON(REASON_RESET)) /* what was sent is, and not what is sent */
		return NULL;
	return (t->reasons < ORACLE_REASON(REASON_FIRST_DROP)) == (t->answer.verdict == ORACLE_PASS)
		       ? NULL
		       : "the reason does not go with the verdict";
}

static void parse(const struct oracle_input *input, const uint8_t *data, size_t length,
		  struct oracle_packet *ret)
{
	if (input->ethernet)
		oracle_parse(data, length, true, ret);
	else
		oracle_parse_typed(data, length, input->type, ret);
}

/* How to read what comes out: who is sent to lo has an Ethernet header. */
static struct oracle_input output_of(const struct trial *t)
{
	struct oracle_input input = t->in.input;

	input.ethernet |= t->answer.verdict == ORACLE_REDIRECT;
	return input;
}

/* Compares all there is to compare: NULL, or what is wrong. */
static const char *check(struct trial *t)
{
	static const uint32_t verdicts[] = {[ORACLE_PASS] = (uint32_t)TC_ACT_UNSPEC,
					    [ORACLE_REDIRECT] = TC_ACT_REDIRECT,
					    [ORACLE_DROP] = TC_ACT_SHOT};
	struct oracle_input after = output_of(t);
	struct oracle_packet p;

	if (t->answer.complaint)
		return t->answer.complaint;
	if (t->answer.verdict == ORACLE_EITHER)
		t->answer.verdict = t->out.verdict == TC_ACT_SHOT ? ORACLE_DROP : ORACLE_PASS;
	if (t->out.verdict != verdicts[t->answer.verdict])
		return "the verdict is another one";
	parse(&after, t->expected, t->answer.length, &p);
	if (t->answer.translated && t->out.length == t->answer.length)
		oracle_accept_negative_zero(t->expected, t->answer.length, &p, t->out.data);
	if (t->answer.verdict != ORACLE_DROP &&
	    (t->out.length != t->answer.length ||
	     memcmp(t->out.data, t->expected, t->answer.length) != 0))
		return "the bytes are others";
	return check_counters(t);
}

#define LIMITS                                                                                     \
	(ORACLE_REASON(REASON_MAX_FLOWS) | ORACLE_REASON(REASON_RATE) |                            \
	 ORACLE_REASON(REASON_SOURCE_MAX_FLOWS) | ORACLE_REASON(REASON_SOURCE_RATE))

static void add_to_tally(const struct trial *t)
{
	const struct oracle_answer *a = &t->answer;

	tally.flows += a->opened;
	tally.errors += a->error;
	tally.translated += a->translated && !a->error;
	tally.left_alone += a->verdict == ORACLE_PASS && !a->translated;
	tally.dropped += a->verdict == ORACLE_DROP;
	tally.limited += (a->reasons & LIMITS) != 0;
	tally.reset += (a->reasons & ORACLE_REASON(REASON_RESET)) != 0;
	tally.redirected += a->verdict == ORACLE_REDIRECT;
}

/* ---- telling ---- */

static const char *verdict_name(uint32_t verdict)
{
	return verdict == (uint32_t)TC_ACT_UNSPEC ? "pass"
	       : verdict == TC_ACT_REDIRECT	  ? "redirect"
	       : verdict == TC_ACT_SHOT		  ? "drop"
						  : "?";
}

static void print_trial(FILE *f, const struct trial *t)
{
	static const char *const verdicts[] = {"pass", "redirect", "drop", "pass or drop"};
	const struct oracle_input *input = &t->in.input;
	const struct packet *in = &t->in.packet;
	struct oracle_input after = output_of(t);

	fprintf(f, "  %s, %s, interface %u%s", input->hook == ORACLE_IN ? "ingress" : "egress",
		input->ethernet ? "Ethernet" : "no Ethernet header", input->interface,
		t->in.damaged ? ", damaged" : "");
	if (input->segments > 1)
		fprintf(f, ", %u segments", input->segments);
	if (!input->ethernet)
		fprintf(f, ", of type %#x", input->type);
	fputc('\n', f);
	fuzz_print_bytes(f, "  packet", in->data, in->length);
	fuzz_print_packet(f, input, in->data, in->length);
	fprintf(f, "  the oracle: %s%s, reasons:", verdicts[t->answer.verdict],
		t->answer.translated ? ", translated" : "");
	fuzz_print_reasons(f, t->answer.reasons);
	fputc('\n', f);
	if (t->answer.flow)
		fuzz_print_flow(f, t->answer.flow);
	fuzz_print_bytes(f, "  expected", t->expected, t->answer.length);
	fuzz_print_packet(f, &after, t->expected, t->answer.length);
	fprintf(f, "  the datapath: %s (%d), reasons:", verdict_name(t->out.verdict),
		(int)t->out.verdict);
	fuzz_print_reasons(f, t->reasons);
	fputc('\n', f);
	fuzz_print_bytes(f, "  got", t->out.data, t->out.length);
	fuzz_print_packet(f, &after, t->out.data, t->out.length);
}

static void print_line(FILE *f, const struct trial *t)
{
	struct oracle_input after = output_of(t);

	fprintf(f, "%llu %s %u %s\n", t->number, t->in.input.hook == ORACLE_IN ? "in" : "out",
		t->in.input.interface, verdict_name(t->out.verdict));
	fuzz_print_packet(f, &t->in.input, t->in.packet.data, t->in.packet.length);
	if (t->answer.translated)
		fuzz_print_packet(f, &after, t->out.data, t->out.length);
}

/* What the oracle knows of the packet's tuple, either way round. */
static void print_flows(FILE *f, const struct oracle *o, const struct trial *t)
{
	const struct packet *in = &t->in.packet;
	struct oracle_tuple tuples[2];
	struct oracle_packet p, quote;

	parse(&t->in.input, in->data, in->length, &p);
	if (p.class != ORACLE_TRANSLATABLE && oracle_parse_quote(in->data, &p, &quote))
		p = quote;
	tuples[0] = oracle_tuple_of(&p);
	tuples[1] = oracle_invert(&tuples[0]);
	for (size_t i = 0; i < o->n_flows; i++)
		for (size_t j = 0; j < ARRAY_SIZE(tuples); j++)
			if (oracle_flow_has(&o->flows[i], &tuples[j]))
				fuzz_print_flow(f, &o->flows[i]);
}

static void print_rules(FILE *f, const struct fuzz_rules *rules)
{
	fputs("  rules:\n", f);
	for (size_t i = 0; i < rules->n; i++)
		fprintf(f, "    %zu: %s%s\n", i + 1, rules->drafts[i].text,
			rules->parsed[i] ? "" : " (removed)");
	fuzz_print_changes(f);
}

static void print_repeat(FILE *f, unsigned long long number)
{
	fprintf(f, "  again: fuzz-packets --seed %#llx --from %llu --packets 1", options.seed,
		number);
	if (options.flavour >= 0)
		fprintf(f, " --flavour %s", flavour_names[options.flavour]);
	fputc('\n', f);
}

/* Ends the run when there are enough. */
static void count_failure(void)
{
	tally.failures++;
	if (tally.failures >= options.failures)
		fail_msg("%llu disagreements", tally.failures);
}

/* ---- a round ---- */

struct round {
	struct world *world;
	struct oracle_host host;
	struct fuzz_rules rules;
	bool changing; /* between packets */
};

static void apply(struct world *w, const struct fuzz_rules *rules)
{
	const char *list[RULES_MAX + 1];

	for (size_t i = 0; i < rules->n; i++)
		list[i] = rules->drafts[i].text;
	list[rules->n] = NULL;
	world_apply(w, list);
	world_settle(w);
}

static void begin_round(struct round *r, unsigned long long number)
{
	enum flavour flavour = options.flavour >= 0 ? (enum flavour)options.flavour
						    : (enum flavour)(number % FLAVOUR_COUNT);
	struct world *w = r->world;

	r->changing = flavour == FLAVOUR_CHANGES;
	random_seed(options.seed * 0x9e3779b97f4a7c15ULL + number);
	fuzz_make_rules(flavour, w->interface, &r->rules);
	fuzz_forget_flows(w);
	fuzz_forget_packets();
	fuzz_forget_changes();
	apply(w, &r->rules);
	oracle_clear(&w->oracle);
	oracle_init(&w->oracle, r->rules.rules, r->rules.n);
	w->oracle.host = &r->host;
	w->oracle.holding = datapath_config(w->datapath)->fragments;
	w->oracle.choose = fuzz_read_flow;
	w->oracle.userdata = w;
}

/* False: both sides disagree, and with that about all that may follow in this round. */
static bool try_packet(struct round *r, unsigned long long number)
{
	bool one = options.packets == 1 && number == options.from;
	const char *complaint = NULL;
	struct trial t = {.number = number};
	struct world *w = r->world;

	if (r->changing && random_once_in(CHANGE_ONCE_IN))
		fuzz_change(w, &r->rules);
	fuzz_make_packet(w, &t.in);
	if (fuzz_refused_by_kernel(&t.in.packet)) {
		tally.refused++;
		return true;
	}
	run(w, &t);
	memcpy(t.expected, t.in.packet.data, t.in.packet.length);
	oracle_judge(&w->oracle, &t.in.input, t.expected, t.in.packet.length, &t.answer);
	complaint = check(&t);
	add_to_tally(&t);
	if (options.show)
		print_line(stderr, &t);
	if (!complaint && !one)
		return true;
	fprintf(stderr, "packet %llu: %s\n", number, complaint ? complaint : "both agree");
	print_rules(stderr, &r->rules);
	print_trial(stderr, &t);
	fputs("  flows with its tuple, either way round:\n", stderr);
	print_flows(stderr, &w->oracle, &t);
	if (complaint)
		print_repeat(stderr, number);
	return !complaint;
}

/* Packets of one round, those before `from` only for what follows from them. */
static void run_round(struct round *r, unsigned long long number, unsigned long long end)
{
	unsigned long long first = number * ROUND_PACKETS;
	const char *complaint;

	begin_round(r, number);
	for (unsigned long long i = first; i < first + ROUND_PACKETS && i < end; i++)
		if (!try_packet(r, i)) {
			count_failure();
			return;
		}
	complaint = fuzz_compare_flows(r->world);
	if (!complaint)
		return;
	fprintf(stderr, "after packet %llu: %s\n", first + ROUND_PACKETS - 1, complaint);
	print_rules(stderr, &r->rules);
	print_repeat(stderr, first + ROUND_PACKETS - 1);
	count_failure();
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_packets(void **state)
{
	static const char *const none[] = {NULL};
	unsigned long long end = options.from + options.packets;
	static struct round r;
	double start;

	r.world = world_new(none, FLOWS_MAX);
	memset(datapath_config(r.world->datapath)->hash_keys, 0x5e,
	       sizeof(datapath_config(r.world->datapath)->hash_keys));
	fuzz_make_host(r.world, &r.host);
	start = seconds();
	for (unsigned long long i = options.from / ROUND_PACKETS; i * ROUND_PACKETS < end; i++)
		run_round(&r, i, end);
	print_message("seed %#llx: %llu packets in %.1f s; %llu translated (%llu flows), %llu ICMP "
		      "errors, %llu left alone, %llu dropped (%llu by limits), %llu redirected, "
		      "%llu reset, %llu "
		      "not run\n",
		      options.seed, options.packets, seconds() - start, tally.translated,
		      tally.flows, tally.errors, tally.left_alone, tally.dropped, tally.limited,
		      tally.redirected, tally.reset, tally.refused);
	assert_int_equal(tally.failures, 0);
	/* a run in which next to nothing happens would pass as well */
	if (options.packets >= ROUND_PACKETS) {
		assert_in_range(tally.translated, options.packets / 10, options.packets);
		assert_in_range(tally.errors, options.packets / 100, options.packets);
		assert_in_range(tally.left_alone, options.packets / 10, options.packets);
	}
	if (options.packets >= FLAVOUR_COUNT * ROUND_PACKETS && options.flavour < 0) {
		assert_in_range(tally.limited, 1, options.packets);
		assert_in_range(tally.reset, 1, options.packets);
	}
	world_free(r.world);
}

/* ---- the command ---- */

static bool parse_number(const char *text, unsigned long long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 0);
	return !errno && end != text && !*end;
}

static bool parse_flavour(const char *text)
{
	for (int i = 0; i < FLAVOUR_COUNT; i++)
		if (strcmp(text, flavour_names[i]) == 0)
			options.flavour = i;
	return options.flavour >= 0;
}

static bool parse_options(int argc, char **argv)
{
	static const struct option list[] = {
		{"seed", required_argument, NULL, 's'},
		{"packets", required_argument, NULL, 'p'},
		{"from", required_argument, NULL, 'f'},
		{"flavour", required_argument, NULL, 'l'},
		{"failures", required_argument, NULL, 'n'},
		{"show", no_argument, NULL, 'w'},
		{NULL, 0, NULL, 0},
	};
	bool ok = true;
	int c;

	while (ok && (c = getopt_long(argc, argv, "", list, NULL)) != -1)
		switch (c) {
		case 's':
			ok = parse_number(optarg, &options.seed);
			break;
		case 'p':
			ok = parse_number(optarg, &options.packets) && options.packets;
			break;
		case 'f':
			ok = parse_number(optarg, &options.from);
			break;
		case 'n':
			ok = parse_number(optarg, &options.failures);
			break;
		case 'w':
			options.show = true;
			break;
		case 'l':
			ok = parse_flavour(optarg);
			break;
		default:
			ok = false;
		}
	return ok && optind == argc;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_packets)};
	int skip;

	if (!parse_options(argc, argv)) {
		fputs("usage: fuzz-packets [--seed N] [--packets N] [--from N]\n"
		      "                    [--flavour ports|hosts|sources|balance|limits|changes]\n"
		      "                    [--failures N] [--show]\n",
		      stderr);
		return 2;
	}
	skip = world_skip_code();
	if (skip)
		return skip;
	return cmocka_run_group_tests_name("packets", tests, NULL, NULL);
}
