/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Diagnostics: layout of what people read, exit codes, hostile bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/cleanup.h"
#include "shared/diag.h"
#include "shared/utf8.h"

static void assert_prints(const struct diag *d, const char *prefix, const char *expected)
{
	_cleanup_(freep) char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	diag_print(d, out, prefix);
	fclose(out);
	assert_string_equal(text, expected);
}

static void test_print_caret(void **state)
{
	struct diag d = {0};
	struct diag_place place = {"/etc/redirectd/redirectd.conf", 7, 25, 9,
				   "redirect tcp 8080 to 80 masquerad"};

	diag_add(&d, DIAG_INVALID, &place, "did you mean \"masquerade\"?", "unknown option \"%s\"",
		 "masquerad");
	assert_prints(&d, "ignored",
		      "/etc/redirectd/redirectd.conf:7:25: unknown option \"masquerad\"\n"
		      "    redirect tcp 8080 to 80 masquerad\n"
		      "                            ^~~~~~~~~ did you mean \"masquerade\"?\n");
	diag_clear(&d);
	assert_int_equal(d.n_items, 0);
}

static void test_print_without_file(void **state)
{
	struct diag d = {0};
	struct diag_place place = {NULL, 0, 5, 1, "tcp x"};

	diag_add(&d, DIAG_INVALID, &place, NULL, "\"x\" is not a port");
	assert_prints(&d, "redirectctl",
		      "redirectctl: \"x\" is not a port\n    tcp x\n        ^\n");
	assert_prints(&d, NULL, "\"x\" is not a port\n    tcp x\n        ^\n");
	diag_clear(&d);
}

static void test_print_without_place(void **state)
{
	struct diag d = {0};
	struct diag_place file = {"a.conf", 0, 0, 0, NULL}, line = {"a.conf", 3, 0, 0, "text"};

	diag_add(&d, DIAG_FAILED, NULL, NULL, "one");
	diag_add(&d, DIAG_FAILED, &file, "do that", "two");
	diag_add(&d, DIAG_FAILED, &line, "do this", "three");
	assert_prints(&d, NULL,
		      "one\na.conf: two\n    do that\na.conf:3: three\n    text\n    do this\n");
	diag_clear(&d);
}

/* Tabs stay tabs in front of the caret; a character of several bytes takes one place. */
static void test_print_lines_up(void **state)
{
	struct diag d = {0};
	struct diag_place tab = {"f", 1, 3, 2, "\t\tab"},
			  wide = {"f", 2, 4, 4, "\u00e4 \u00f6\u00fc x"};

	diag_add(&d, DIAG_INVALID, &tab, NULL, "m");
	diag_add(&d, DIAG_INVALID, &wide, NULL, "n");
	assert_prints(&d, NULL,
		      "f:1:3: m\n    \t\tab\n    \t\t^~\n"
		      "f:2:4: n\n    \u00e4 \u00f6\u00fc x\n      ^~\n");
	diag_clear(&d);
}

static void test_print_past_the_end(void **state)
{
	struct diag d = {0};
	struct diag_place end = {"f", 1, 4, 0, "tcp"}, far = {"f", 1, 400, 400, "tcp"};

	diag_add(&d, DIAG_INVALID, &end, NULL, "m");
	diag_add(&d, DIAG_INVALID, &far, NULL, "n");
	assert_prints(&d, NULL, "f:1:4: m\n    tcp\n       ^\nf:1:400: n\n    tcp\n       ^\n");
	diag_clear(&d);
}

static void test_print_long_line(void **state)
{
	_cleanup_(freep) char *text = NULL, *printed = NULL;
	struct diag d = {0};
	struct diag_place place = {"f", 1, 5001, 5, NULL};
	const char *line, *caret;
	size_t size;
	FILE *out;

	text = malloc(10001);
	memset(text, 'a', 10000);
	memcpy(text + 5000, "WRONG", 5);
	text[10000] = '\0';
	place.text = text;
	diag_add(&d, DIAG_INVALID, &place, NULL, "m");

	out = open_memstream(&printed, &size);
	diag_print(&d, out, NULL);
	fclose(out);
	assert_true(size < 600);
	line = strchr(printed, '\n') + 1;
	caret = strchr(line, '\n') + 1;
	assert_int_equal(strstr(line, "WRONG") - line, strstr(caret, "^~~~~\n") - caret);
	assert_non_null(strstr(line, "    ...a"));
	diag_clear(&d);
}

/* Escape sequences of a terminal and broken UTF-8 must come out of neither field. */
static void test_add_sanitizes(void **state)
{
	struct diag d = {0};
	struct diag_place place = {"a\033[31m", 1, 1, 1, "b\033\xff\tc\xc2\x9b"};

	diag_add(&d, DIAG_INVALID, &place, "h\n\x7f", "m%s", "\r\xe2\x82");
	assert_string_equal(d.items[0].file, "a?[31m");
	assert_string_equal(d.items[0].text, "b??\tc??");
	assert_string_equal(d.items[0].hint, "h??");
	assert_string_equal(d.items[0].message, "m???");
	diag_clear(&d);
}

static void test_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t valid; /* bytes in front of the first invalid one */
	} cases[] = {
		{"", 0},
		{"abc", 3},
		{"\u00e4\u20ac\U0001f600", 9},
		{"a\x80", 1},		 /* a continuation alone */
		{"\xc0\xaf", 0},	 /* overlong */
		{"\xe0\x80\x80", 0},	 /* overlong */
		{"\xed\xa0\x80", 0},	 /* a surrogate */
		{"\xf4\x90\x80\x80", 0}, /* past U+10FFFF */
		{"ab\xe2\x82", 2},	 /* cut short */
		{"\xf0\x9f\x98\x80\xf0", 4},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(utf8_find_invalid(cases[i].text, strlen(cases[i].text)),
				 cases[i].valid);
}

static void test_exit_code(void **state)
{
	struct diag d = {0};

	assert_int_equal(diag_exit_code(&d), 0);
	diag_add(&d, DIAG_CONFLICT, NULL, NULL, "m");
	assert_int_equal(diag_exit_code(&d), 7);
	diag_add(&d, DIAG_INVALID, NULL, NULL, "m");
	assert_int_equal(diag_exit_code(&d), 6);
	diag_add(&d, DIAG_CONFLICT, NULL, NULL, "m");
	assert_int_equal(diag_exit_code(&d), 6);
	diag_add(&d, DIAG_FAILED, NULL, NULL, "m");
	diag_add(&d, DIAG_INVALID, NULL, NULL, "m");
	assert_int_equal(diag_exit_code(&d), 1);
	diag_clear(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_print_caret),
		cmocka_unit_test(test_print_without_file),
		cmocka_unit_test(test_print_without_place),
		cmocka_unit_test(test_print_lines_up),
		cmocka_unit_test(test_print_past_the_end),
		cmocka_unit_test(test_print_long_line),
		cmocka_unit_test(test_add_sanitizes),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_exit_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
