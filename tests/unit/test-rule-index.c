/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The index finds what comparing every pair finds, and stays quick with very many rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/rule-index.h"
#include "tests/unit/rules.h"

/* Rules that collide often: few ports, addresses, interfaces; some with very long lists. */
static struct rule *crowded_rule(void)
{
	static const char *const listens[] = {"",
					      "*:", "10.0.0.1:", "10.0.0.0/24:", "[2001:db8::1]:"};
	static const char *const froms[] = {"10.0.0.0/8", "10.0.0.0/9", "11.0.0.0/8"};
	unsigned first = 1 + below(30), width = 1 + below(4), family = below(5);
	char text[4096];
	int n;

	n = snprintf(text, sizeof(text), "%s %s%u-%u to 1000", below(3) ? "tcp" : "tcp+udp",
		     listens[family], first, first + width - 1);
	if (below(3) == 0) {
		unsigned count = below(8) ? 1 : 40;

		for (unsigned i = 0; i < count; i++)
			n += snprintf(text + n, sizeof(text) - (size_t)n, "%se%u", i ? "," : " on ",
				      count == 1 ? below(4) : i);
	}
	if (family != 4 && below(3) == 0) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, " from %s", froms[below(3)]);
		for (unsigned i = 0; i < 20 && below(16); i++)
			n += snprintf(text + n, sizeof(text) - (size_t)n, ",10.0.%u.0/24", i);
	}
	return rule_of(text);
}

static void test_same_as_pairs(void **state)
{
	enum { N = 400 };
	struct rule *rules[N];
	unsigned n_found = 0;

	srandom(5);
	for (int round = 0; round < 10; round++) {
		_cleanup_(rule_index_freep) struct rule_index *index = NULL;

		assert_int_equal(rule_index_new(&index), 0);
		for (size_t i = 0; i < N; i++) {
			size_t expected = 0, number = N;

			rules[i] = crowded_rule();
			while (expected < i && !rule_conflicts(rules[expected], rules[i]))
				expected++;
			assert_int_equal(rule_index_find_conflict(index, rules[i], &number),
					 expected < i);
			if (expected < i)
				assert_int_equal(number, expected);
			n_found += expected < i;
			assert_int_equal(rule_index_add(index, rules[i], i), 0);
		}
		for (size_t i = 0; i < N; i++)
			rule_free(rules[i]);
	}
	assert_in_range(n_found, 100, 10 * N - 100);
}

/* Rules come and go: what is found is the first of those that are there. */
static void test_removed(void **state)
{
	enum { STEPS = 2000, LIVE = 200 };
	_cleanup_(rule_index_freep) struct rule_index *index = NULL;
	struct rule *rules[STEPS];
	bool there[STEPS] = {0};

	srandom(7);
	assert_int_equal(rule_index_new(&index), 0);
	for (size_t i = 0; i < STEPS; i++) {
		size_t expected = 0, number = STEPS, gone = below((unsigned)i + 1);

		rules[i] = crowded_rule();
		while (expected < i &&
		       !(there[expected] && rule_conflicts(rules[expected], rules[i])))
			expected++;
		assert_int_equal(rule_index_find_conflict(index, rules[i], &number), expected < i);
		if (expected < i)
			assert_int_equal(number, expected);
		assert_int_equal(rule_index_add(index, rules[i], i), 0);
		there[i] = true;
		if (i >= LIVE && there[gone]) {
			rule_index_remove(index, rules[gone]);
			there[gone] = false;
		}
	}
	for (size_t i = 0; i < STEPS; i++)
		rule_free(rules[i]);
}

static void test_names(void **state)
{
	_cleanup_(rule_index_freep) struct rule_index *index = NULL;
	_cleanup_(rule_freep) struct rule *a = rule_of("tcp 1 to 2 name a");
	_cleanup_(rule_freep) struct rule *b = rule_of("tcp 2 to 3 name b");
	_cleanup_(rule_freep) struct rule *c = rule_of("tcp 3 to 4 name a");
	size_t number = 0;

	assert_int_equal(rule_index_new(&index), 0);
	assert_false(rule_index_find_name(index, "a", &number));
	rule_index_add(index, a, 10);
	rule_index_add(index, b, 20);
	rule_index_add(index, c, 30);
	assert_true(rule_index_find_name(index, "a", &number));
	assert_int_equal(number, 10);
	assert_true(rule_index_find_name(index, "b", &number));
	assert_int_equal(number, 20);
	assert_false(rule_index_find_name(index, "c", &number));
	rule_index_remove(index, a);
	assert_true(rule_index_find_name(index, "a", &number));
	assert_int_equal(number, 30);
	rule_index_remove(index, c);
	rule_index_remove(index, c); /* gone already: nothing happens */
	assert_false(rule_index_find_name(index, "a", &number));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_pairs),
		cmocka_unit_test(test_removed),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
