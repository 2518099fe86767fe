/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "Did you mean": near words are found, far ones are not guessed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/words.h"

static const char *const keywords[] = {
	"on",	"from",	     "name",	  "masquerade", "snat",	  "balance",
	"rate", "max-flows", "on-change", "disabled",	"weight",
};

static const char *closest(const char *word)
{
	return words_closest(word, strlen(word), keywords, sizeof(keywords) / sizeof(keywords[0]));
}

static void test_near(void **state)
{
	static const struct {
		const char *word, *keyword;
	} cases[] = {
		{"masquerad", "masquerade"},
		{"maskerade", "masquerade"},
		{"mqsuerade", "masquerade"},
		{"masq", "masquerade"},
		{"fro", "from"},
		{"form", "from"},
		{"fromm", "from"},
		{"nmae", "name"},
		{"NAME", "name"},
		{"no", "on"},
		{"disable", "disabled"},
		{"dis", "disabled"},
		{"maxflows", "max-flows"},
		{"max_flows", "max-flows"},
		{"onchange", "on-change"},
		{"wieght", "weight"},
		{"ballance", "balance"},
		{"snta", "snat"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_non_null(closest(cases[i].word));
		assert_string_equal(closest(cases[i].word), cases[i].keyword);
	}
}

static void test_near_two_letters(void **state)
{
	static const char *const to[] = {"to"};

	assert_string_equal(words_closest("ot", 2, to, 1), "to");
	assert_string_equal(words_closest("too", 3, to, 1), "to");
	assert_string_equal(words_closest("tp", 2, to, 1), "to");
	assert_null(words_closest("xy", 2, to, 1));
	assert_null(words_closest("into", 4, to, 1));
}

static void test_far(void **state)
{
	static const char *const cases[] = {
		"",
		"x",
		"xy",
		"web",
		"eth0",
		"8080",
		"masque-what-is-this",
		"m",
		"ba",
		"port",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_null(closest(cases[i]));
}

/* Only the given bytes count, not what follows them. */
static void test_length(void **state)
{
	assert_string_equal(words_closest("nmae,xyz", 4, keywords, 11), "name");
}

static void test_ambiguous_beginning(void **state)
{
	static const char *const two[] = {"tcp-syn-sent", "tcp-syn-recv"};

	assert_null(words_closest("tcp", 3, two, 2));
	assert_string_equal(words_closest("tcp-syn-s", 9, two, 2), "tcp-syn-sent");
}

/* A word that was cut short is that word, even if another one is fewer letters away. */
static void test_beginning_before_mistake(void **state)
{
	static const char *const names[] = {"tcp-rst", "tcp-established", "tcp-syn"};

	assert_string_equal(words_closest("tcp-estab", 9, names, 3), "tcp-established");
	assert_string_equal(words_closest("tcp-rts", 7, names, 3), "tcp-rst");
}

static void test_join(void **state)
{
	static const char *const names[] = {"list", "get", "count"};
	char text[32];

	assert_string_equal(words_join(names, 3, " or ", text, sizeof(text)), "list, get or count");
	assert_string_equal(words_join(names, 3, ", ", text, sizeof(text)), "list, get, count");
	assert_string_equal(words_join(names, 1, " or ", text, sizeof(text)), "list");
	assert_string_equal(words_join(names, 0, " or ", text, sizeof(text)), "");
	assert_string_equal(words_join(names, 3, " or ", text, 8), "list, g");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_near),
		cmocka_unit_test(test_near_two_letters),
		cmocka_unit_test(test_far),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_ambiguous_beginning),
		cmocka_unit_test(test_beginning_before_mistake),
		cmocka_unit_test(test_join),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
