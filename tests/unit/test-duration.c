/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Durations: both ways, and what is no duration. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "shared/duration.h"

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
		const char *printed;
	} cases[] = {
		{"500ms", 500, "500ms"},
		{"30s", 30000, "30s"},
		{"90s", 90000, "1m30s"},
		{"5m", 300000, "5m"},
		{"2h4m", 7440000, "2h4m"},
		{"1d", 86400000, "1d"},
		{"24h", 86400000, "1d"},
		{"1d2h3m4s5ms", 93784005, "1d2h3m4s5ms"},
		{"0s", 0, "0s"},
		{"007s", 7000, "7s"},
		{"18446744073709551615ms", UINT64_MAX, "213503982334d14h25m51s615ms"},
	};
	char buffer[DURATION_STRLEN];
	uint64_t ms;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(duration_parse(cases[i].text, &ms), 0);
		assert_true(ms == cases[i].ms);
		assert_string_equal(duration_format(ms, buffer), cases[i].printed);
	}
}

static void test_parse_refuses(void **state)
{
	static const struct {
		const char *text;
		int error;
	} cases[] = {
		{"", -EINVAL},
		{"30", -EINVAL},
		{"s", -EINVAL},
		{"-1s", -EINVAL},
		{"+1s", -EINVAL},
		{"1.5h", -EINVAL},
		{"1s1m", -EINVAL},
		{"1m1m", -EINVAL},
		{"1m30", -EINVAL},
		{"1 s", -EINVAL},
		{"1s ", -EINVAL},
		{"1S", -EINVAL},
		{"1ss", -EINVAL},
		{"1min", -EINVAL},
		{"1w", -EINVAL},
		{"0x1s", -EINVAL},
		{"18446744073709551616ms", -ERANGE},
		{"213503982335d", -ERANGE},
		{"18446744073709551615s", -ERANGE},
		{"213503982334d15h", -ERANGE},
	};
	uint64_t ms = 42;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(duration_parse(cases[i].text, &ms), cases[i].error);
	assert_int_equal(ms, 42);
}

static void test_round_trip(void **state)
{
	char buffer[DURATION_STRLEN];
	uint64_t ms, again;

	srandom(1);
	for (int i = 0; i < 20000; i++) {
		ms = ((uint64_t)random() << 31 | (uint64_t)random()) >> (random() % 62);
		duration_format(ms, buffer);
		assert_int_equal(duration_parse(buffer, &again), 0);
		assert_true(ms == again);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
