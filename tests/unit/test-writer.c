/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text written piece by piece: growth, numbers, strings of JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/writer.h"

static void expect(struct writer *w, const char *text)
{
	assert_false(w->failed);
	assert_int_equal(w->length, strlen(text));
	assert_memory_equal(w->data, text, w->length);
	writer_clear(w);
	assert_null(w->data);
}

static void test_numbers(void **state)
{
	struct writer w = {0};

	writer_number(&w, 0);
	writer_literal(&w, " ");
	writer_number(&w, 10);
	writer_literal(&w, " ");
	writer_number(&w, 9999999999);
	writer_text(&w, " ");
	writer_number(&w, UINT64_MAX);
	expect(&w, "0 10 9999999999 18446744073709551615");
}

static void test_growth(void **state)
{
	struct writer w = {0};

	for (unsigned i = 0; i < 100000; i++)
		writer_bytes(&w, (const char[]){(char)('a' + i % 26)}, 1);
	assert_int_equal(w.length, 100000);
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal(w.data[i], 'a' + i % 26);
	writer_clear(&w);
}

static void test_no_memory(void **state)
{
	struct writer w = {0};

	writer_literal(&w, "x");
	assert_false(writer_grow(&w, SIZE_MAX / 2));
	assert_true(w.failed);
	writer_literal(&w, "y");
	assert_null(writer_room(&w, 1));
	assert_int_equal(w.length, 1);
	writer_clear(&w);
}

static void test_json_strings(void **state)
{
	static const struct {
		const char *text, *json;
	} cases[] = {
		{"", "\"\""},
		{"eth0", "\"eth0\""},
		{"a\"b\\c", "\"a\\\"b\\\\c\""},
		{"\001\n\037\177", "\"\\u0001\\u000a\\u001f\177\""},
		{"gr\303\274n \360\237\230\200", "\"gr\303\274n \360\237\230\200\""},
		{"a\377\300\257b", "\"a\357\277\275\357\277\275\357\277\275b\""},
		{"\303", "\"\357\277\275\""},
	};
	struct writer w = {0};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		writer_json_string(&w, cases[i].text);
		expect(&w, cases[i].json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_json_strings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
