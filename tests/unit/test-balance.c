// SPDX-License-Identifier: GPL-2.0-or-later
/* Shares, disruption and agreement of the slots that targets get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "daemon/balance.h"
#include "tests/unit/rules.h"

#define N_TARGETS_MAX BALANCE_TARGETS

static const char *const ways[] = {"hash", "random", "maglev"};

/* A rule with the first `n` of 64 made targets, without the one numbered `without` (n: with all).
 */
static struct rule *rule_with(size_t n, size_t without, const char *balance)
{
	char text[RULE_TEXT_MAX], *end = text;

	end += sprintf(end, "tcp 80 to ");
	for (size_t i = 0; i < n; i++)
		if (i != without)
			end += sprintf(end, "10.1.%zu.%zu:%zu,", i / 7, 1 + i * 3, 8000 + i % 5);
	sprintf(end - 1, " balance %s", balance);
	return rule_of(text);
}

static void count(const uint8_t *slots, size_t n, unsigned *ret)
{
	memset(ret, 0, n * sizeof(*ret));
	for (size_t i = 0; i < BALANCE_SLOTS; i++) {
		assert_true(slots[i] < n);
		ret[slots[i]]++;
	}
}

/* No target has a slot more or less than another of its weight. */
static void test_even_shares(void **state)
{
	uint8_t slots[BALANCE_SLOTS];
	unsigned counts[N_TARGETS_MAX];

	for (size_t way = 0; way < 3; way++)
		for (size_t n = 1; n <= N_TARGETS_MAX; n++) {
			_cleanup_(rule_freep) struct rule *r = rule_with(n, n, ways[way]);

			assert_int_equal(r->n_targets, n);
			balance_fill(r, slots);
			count(slots, n, counts);
			for (size_t i = 0; i < n; i++)
				assert_in_range(counts[i], BALANCE_SLOTS / n,
						BALANCE_SLOTS / n + 1);
		}
}

struct weights_case {
	const char *targets;
	unsigned weights[4]; /* 0: no target */
};

static const struct weights_case weights_cases[] = {
	{"10.0.0.1:80,10.0.0.2:80 weight 2,10.0.0.3:80 weight 5", {1, 2, 5}},
	{"10.0.0.1:80 weight 100,10.0.0.2:80 weight 300", {100, 300}},
	{"10.0.0.1:80 weight 7,10.0.0.1:81 weight 3,82 weight 13", {7, 3, 13}},
	{"81 weight 65535,82 weight 65535,83 weight 32767", {65535, 65535, 32767}},
	{"[2001:db8::1]:80 weight 9,[2001:db8::2]:80 weight 1", {9, 1}},
};

static void test_weights(void **state)
{
	uint8_t slots[BALANCE_SLOTS];
	unsigned counts[N_TARGETS_MAX];

	for (size_t i = 0; i < sizeof(weights_cases) / sizeof(weights_cases[0]); i++)
		for (size_t way = 0; way < 3; way++) {
			const struct weights_case *c = &weights_cases[i];
			char text[256];
			struct rule *r;
			double sum = 0;

			snprintf(text, sizeof(text), "tcp 90 to %s balance %s", c->targets,
				 ways[way]);
			r = rule_of(text);
			balance_fill(r, slots);
			count(slots, r->n_targets, counts);
			for (size_t t = 0; t < r->n_targets; t++)
				sum += c->weights[t];
			for (size_t t = 0; t < r->n_targets; t++) {
				double share = BALANCE_SLOTS * c->weights[t] / sum;

				assert_true(counts[t] > share - 2 && counts[t] < share + 2);
			}
			rule_free(r);
		}
}

/* A target that is written down gets something, however small its weight. */
static void test_smallest_share(void **state)
{
	_cleanup_(rule_freep) struct rule *r =
		rule_of("tcp 80 to 10.0.0.1:80 weight 65535,10.0.0.2:80 balance maglev");
	uint8_t slots[BALANCE_SLOTS];
	unsigned counts[2];

	balance_fill(r, slots);
	count(slots, 2, counts);
	assert_int_equal(counts[1], 1);
	assert_int_equal(counts[0], BALANCE_SLOTS - 1);
}

/* A target that drains has no slot, and the others have those that they have without it. */
static void test_draining(void **state)
{
	static const char *const rules[] = {
		"tcp 80 to 10.0.0.1:80 weight 2,10.0.0.2:80 weight 0,10.0.0.3:80 balance maglev",
		"tcp 80 to 10.0.0.1:80 weight 2,10.0.0.3:80 balance maglev",
	};
	_cleanup_(rule_freep) struct rule *with = rule_of(rules[0]), *without = rule_of(rules[1]);
	uint8_t slots[BALANCE_SLOTS], others[BALANCE_SLOTS];

	for (size_t way = 0; way < 3; way++) {
		with->balance = without->balance = (enum rule_balance)way;
		balance_fill(with, slots);
		balance_fill(without, others);
		for (size_t i = 0; i < BALANCE_SLOTS; i++)
			assert_int_equal(slots[i], others[i] == 0 ? 0 : 2);
	}
}

/* How many slots that were not the leaver's have changed hands as well. */
static unsigned moved_besides(const struct rule *all, const uint8_t *before,
			      const struct rule *rest, const uint8_t *after, size_t left)
{
	unsigned moved = 0;

	for (size_t i = 0; i < BALANCE_SLOTS; i++) {
		const struct rule_target *was = &all->targets[before[i]];
		const struct rule_target *is = &rest->targets[after[i]];

		if (before[i] != left)
			moved += !ip_prefix_equal(&was->address, &is->address);
	}
	return moved;
}

/*
 * When one of n leaves, its slots change hands, which cannot be helped, and few of all the others:
 * 1.7 % of the table on average and 1.95 % at the worst, whatever n is and whoever leaves.
 */
static void test_disruption(void **state)
{
	uint8_t before[BALANCE_SLOTS], after[BALANCE_SLOTS];

	for (size_t n = 2; n <= N_TARGETS_MAX; n++) {
		_cleanup_(rule_freep) struct rule *all = rule_with(n, n, "maglev");
		unsigned sum = 0, worst = 0;

		balance_fill(all, before);
		for (size_t left = 0; left < n; left++) {
			_cleanup_(rule_freep) struct rule *rest = rule_with(n, left, "maglev");
			unsigned moved;

			balance_fill(rest, after);
			moved = moved_besides(all, before, rest, after, left);
			sum += moved;
			worst = moved > worst ? moved : worst;
		}
		assert_true(1000.0 * sum / n / BALANCE_SLOTS < 18);
		assert_true(1000 * worst / BALANCE_SLOTS < 20);
	}
}

/* Where each slot goes, in words that do not depend on the order of the targets. */
static const struct rule_target *target_at(const struct rule *r, const uint8_t *slots, size_t i)
{
	return &r->targets[slots[i]];
}

static void test_order_does_not_matter(void **state)
{
	uint8_t a_slots[BALANCE_SLOTS], b_slots[BALANCE_SLOTS];
	_cleanup_(rule_freep) struct rule *a =
		rule_of("tcp 80 to 10.0.0.1:80 weight 3,10.0.0.2:81,10.0.0.2:80,82 balance maglev");
	_cleanup_(rule_freep) struct rule *b =
		rule_of("udp 99 to 82,10.0.0.2:80,10.0.0.1:80 weight 3,10.0.0.2:81 balance maglev");

	balance_fill(a, a_slots);
	balance_fill(b, b_slots);
	for (size_t i = 0; i < BALANCE_SLOTS; i++) {
		const struct rule_target *x = target_at(a, a_slots, i),
					 *y = target_at(b, b_slots, i);

		assert_true(ip_prefix_equal(&x->address, &y->address));
		assert_int_equal(x->ports.first, y->ports.first);
	}
}

static uint32_t fnv(const uint8_t *bytes, size_t n)
{
	uint32_t hash = 0x811c9dc5;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ bytes[i]) * 0x01000193;
	return hash;
}

/*
 * What other machines, and other versions of this program, have for the same rule: a change here
 * moves flows between the servers of everybody who runs two of them.
 */
static const struct {
	const char *rule;
	uint8_t first[16];
	uint32_t all; /* fnv() of every slot */
} stored[] = {
	{"tcp 80 to 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 balance maglev",
	 {2, 2, 2, 0, 2, 1, 0, 2, 1, 1, 0, 1, 2, 2, 2, 2},
	 0xa626bb85},
	{"tcp 80 to [2001:db8::1]:80 weight 2,[2001:db8::2]:80 balance maglev",
	 {0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0},
	 0x448a64ef},
	{"tcp 80-89 to 10.0.0.1:80-89,90-99 balance maglev",
	 {0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0},
	 0x450d62f7},
};

static void test_stored_values(void **state)
{
	uint8_t slots[BALANCE_SLOTS];

	for (size_t i = 0; i < sizeof(stored) / sizeof(stored[0]); i++) {
		_cleanup_(rule_freep) struct rule *r = rule_of(stored[i].rule);

		balance_fill(r, slots);
		assert_memory_equal(slots, stored[i].first, sizeof(stored[i].first));
		assert_int_equal(fnv(slots, sizeof(slots)), stored[i].all);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_even_shares),    cmocka_unit_test(test_weights),
		cmocka_unit_test(test_smallest_share), cmocka_unit_test(test_draining),
		cmocka_unit_test(test_disruption),     cmocka_unit_test(test_order_does_not_matter),
		cmocka_unit_test(test_stored_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
