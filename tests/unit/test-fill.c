// SPDX-License-Identifier: GPL-2.0-or-later
/* Levels of fill, and what is told of them when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fill.h"

static void test_levels(void **state)
{
	static const struct {
		uint64_t used, of;
		enum fill_level level;
	} cases[] = {
		{0, 0, FILL_OK},
		{0, 100, FILL_OK},
		{79, 100, FILL_OK},
		{80, 100, FILL_WARNING},
		{94, 100, FILL_WARNING},
		{95, 100, FILL_CRITICAL},
		{100, 100, FILL_CRITICAL},
		{101, 100, FILL_CRITICAL}, /* a packet on each processor */
		{209715, 262144, FILL_OK},
		{209716, 262144, FILL_WARNING},
		{1, UINT64_MAX, FILL_OK},
		{UINT64_MAX, UINT64_MAX, FILL_CRITICAL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(fill_level(cases[i].used, cases[i].of), cases[i].level);
	assert_string_equal(fill_level_name(FILL_OK), "ok");
	assert_string_equal(fill_level_name(FILL_WARNING), "warning");
	assert_string_equal(fill_level_name(FILL_CRITICAL), "critical");
}

/* One moment of a story: of 100, at which second, and the level that is told of; -1: nothing. */
struct moment {
	uint64_t used, second;
	int told;
};

static void follow(const struct moment *moments, size_t n)
{
	struct fill_watch w = {0};

	for (size_t i = 0; i < n; i++) {
		bool news = fill_watch_step(&w, moments[i].used, 100, moments[i].second);

		assert_int_equal(news ? (int)w.level : -1, moments[i].told);
	}
}

#define FOLLOW(...)                                                                                \
	do {                                                                                       \
		static const struct moment moments[] = {__VA_ARGS__};                              \
		follow(moments, sizeof(moments) / sizeof(moments[0]));                             \
	} while (0)

static void test_rises_and_falls(void **state)
{
	FOLLOW({0, 1, -1}, {79, 2, -1}, {80, 3, FILL_WARNING}, {90, 4, -1}, {95, 5, FILL_CRITICAL},
	       {100, 6, -1}, {60, 7, FILL_OK}, {60, 8, -1});
	FOLLOW({100, 1, FILL_CRITICAL}, {85, 2, FILL_WARNING}, {70, 3, FILL_OK});
}

/* A flow more or less around a threshold is no news. */
static void test_hysteresis(void **state)
{
	FOLLOW({80, 1, FILL_WARNING}, {79, 100, -1}, {80, 200, -1}, {76, 300, -1}, {80, 400, -1},
	       {75, 450, -1}, {74, 500, FILL_OK}, {79, 600, -1}, {80, 700, FILL_WARNING});
	FOLLOW({95, 1, FILL_CRITICAL}, {94, 100, -1}, {91, 200, -1}, {95, 300, -1}, {90, 350, -1},
	       {89, 400, FILL_WARNING}, {95, 500, FILL_CRITICAL});
}

/* What goes up and down all the time is told of once a minute, and told in the end. */
static void test_pause(void **state)
{
	FOLLOW({85, 10, FILL_WARNING}, {10, 11, FILL_OK}, {85, 12, -1}, {10, 13, -1}, {85, 69, -1},
	       {85, 70, FILL_WARNING}, {10, 70, -1}, {10, 71, FILL_OK});
	/* Worse than was told of is told of at once. */
	FOLLOW({85, 10, FILL_WARNING}, {10, 11, FILL_OK}, {85, 12, -1}, {96, 13, FILL_CRITICAL},
	       {10, 14, -1}, {10, 71, FILL_OK});
	/* Clocks begin anywhere. */
	FOLLOW({85, 0, FILL_WARNING}, {10, 1, FILL_OK}, {85, 59, -1}, {85, 60, FILL_WARNING});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_rises_and_falls),
		cmocka_unit_test(test_hysteresis),
		cmocka_unit_test(test_pause),
	};

	return cmocka_run_group_tests_name("fill", tests, NULL, NULL);
}
