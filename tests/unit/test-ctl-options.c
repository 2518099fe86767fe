/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of redirectctl: what is read from it, and what is said about mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/options.h"
#include "ctl/verbs.h"

#define WORDS_MOST 16

/* Splits at spaces; `_` in a word stands for a space in it. */
static int split(const char *line, char *copy, char *argv[static WORDS_MOST])
{
	int argc = 0;
	char *word;

	argv[argc++] = (char *)"redirectctl";
	strcpy(copy, line);
	for (word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
		for (char *p = word; *p; p++)
			*p = *p == '_' ? ' ' : *p;
		argv[argc++] = word;
	}
	argv[argc] = NULL;
	return argc;
}

struct parsed {
	char copy[256];
	char *argv[WORDS_MOST];
	struct options options;
	struct failure failure;
	int status;
};

static void parse(struct parsed *p, const char *line)
{
	*p = (struct parsed){0};
	p->status = options_parse(split(line, p->copy, p->argv), p->argv, &p->options, &p->failure);
}

static void parsed_clear(struct parsed *p)
{
	options_clear(&p->options);
	failure_clear(&p->failure);
}

static void test_accepted(void **state)
{
	static const struct {
		const char *line, *verb, *operands;
	} cases[] = {
		{"list", "list", ""},
		{"-j list", "list", ""},
		{"list -j", "list", ""},
		{"-jnq list", "list", ""},
		{"add tcp 8080 to 80", "add", "tcp 8080 to 80"},
		{"add tcp_8080_->_80", "add", "tcp 8080 -> 80"},
		{"add tcp 8080 -> 80 -n", "add", "tcp 8080 -> 80"},
		{"add tcp 8080 ->80", "add", "tcp 8080 ->80"},
		{"add tcp 8080 -", "add", "tcp 8080 -"},
		{"add -- tcp -x", "add", "tcp -x"},
		{"add tcp 1 to 2 weight -1", "add", "tcp 1 to 2 weight -1"},
		{"-- list", "list", ""},
		{"-s /x list", "list", ""},
		{"conntrack list", "conntrack list", ""},
		{"conntrack -j list -s ::1", "conntrack list", ""},
		{"call Show {}", "call", "Show {}"},
		{"help conntrack list", "help", "conntrack list"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;
		char *operands;

		parse(&p, cases[i].line);
		assert_int_equal(p.status, 0);
		assert_string_equal(p.options.verb->name, cases[i].verb);
		operands = options_join(&p.options, 0);
		assert_string_equal(operands, cases[i].operands);
		free(operands);
		parsed_clear(&p);
	}
}

static void test_refused(void **state)
{
	static const struct {
		const char *line, *message;
	} cases[] = {
		{"", "no verb: what is to be done?"},
		{"lst", "unknown verb \"lst\"; did you mean \"list\"?"},
		{"xyzzy", "unknown verb \"xyzzy\""},
		{"delete web", "unknown verb \"delete\"; did you mean \"remove\"?"},
		{"flows", "unknown verb \"flows\"; did you mean \"conntrack list\"?"},
		{"conntrack", "conntrack needs a second word: list, get, delete, flush or count"},
		{"conntrack lits", "unknown verb \"conntrack lits\"; did you mean \"list\"?"},
		{"list --jsno", "unknown option \"--jsno\"; did you mean \"--json\"?"},
		{"list -x", "unknown option \"-x\""},
		{"list --src=::1", "unknown option \"--src\""},
		{"--sport 1 list", "unknown option \"--sport\""},
		{"list --json=1", "--json takes no argument"},
		{"list -s", "-s needs an argument: SOCKET"},
		{"list -o", "-o needs an argument: FORMAT"},
		{"add", "add needs RULE"},
		{"show", "show needs ID|NAME"},
		{"show a b", "\"b\" is too much: show takes ID|NAME"},
		{"list b", "\"b\" is too much: list takes no operands"},
		{"list -1", "\"-1\" is too much: list takes no operands"},
		{"apply -f a -f b", "-f is given twice"},
		{"conntrack delete -s 192.0.2.1 --src=192.0.2.2", "--src is given twice"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;

		parse(&p, cases[i].line);
		assert_int_equal(p.status, CTL_USAGE);
		assert_int_equal(p.failure.code, CTL_USAGE);
		assert_string_equal(p.failure.message, cases[i].message);
		parsed_clear(&p);
	}
}

/* Help is pointed to where it says most. */
static void test_hints(void **state)
{
	static const struct {
		const char *line, *hint;
	} cases[] = {
		{"lst", "see `redirectctl --help`"},
		{"list -x", "see `redirectctl list --help`"},
		{"list -o", "see `redirectctl list --help`"},
		{"conntrack", "see `redirectctl conntrack --help`"},
		{"conntrack lits", "see `redirectctl conntrack --help`"},
		{"conntrack -L", "see `redirectctl conntrack --help`"},
		{"conntrack list -x", "see `redirectctl conntrack list --help`"},
		{"apply -f a -f b", "see `redirectctl apply --help`"},
	};

	program_invocation_short_name = (char *)"redirectctl";
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;

		parse(&p, cases[i].line);
		assert_int_equal(p.status, CTL_USAGE);
		assert_string_equal(p.failure.hint, cases[i].hint);
		parsed_clear(&p);
	}
}

/* The first mistake is the one reported; -j behind it still chooses how. */
static void test_json_after_mistake(void **state)
{
	struct parsed p;

	parse(&p, "--bogus lst -j");
	assert_int_equal(p.status, CTL_USAGE);
	assert_string_equal(p.failure.message, "unknown option \"--bogus\"");
	assert_true(options_has(&p.options, OPTION_JSON));
	parsed_clear(&p);
}

static void test_socket(void **state)
{
	struct parsed p;

	setenv("REDIRECTD_SOCKET", "/env", 1);
	parse(&p, "-s /one conntrack list -s 192.0.2.1 --socket /two");
	assert_int_equal(p.status, 0);
	assert_string_equal(options_socket(&p.options), "/two");
	assert_string_equal(p.options.values[OPTION_SRC], "192.0.2.1");
	parsed_clear(&p);

	parse(&p, "list");
	assert_string_equal(options_socket(&p.options), "/env");
	unsetenv("REDIRECTD_SOCKET");
	assert_string_equal(options_socket(&p.options), "/run/redirectd/io.redirectd");
	parsed_clear(&p);
}

static void test_output(void **state)
{
	const unsigned table_json = 1u << OUTPUT_TABLE | 1u << OUTPUT_JSON;
	static const struct {
		const char *line;
		int format; /* -1: refused */
	} cases[] = {
		{"stats", OUTPUT_TABLE},	 {"stats -j", OUTPUT_JSON},
		{"stats -o json", OUTPUT_JSON},	 {"stats -o json -j", OUTPUT_JSON},
		{"stats -otable", OUTPUT_TABLE}, {"stats -o rules", -1},
		{"stats -o table -j", -1},	 {"stats -o openmetrics", -1},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum output_format format;
		struct parsed p;

		parse(&p, cases[i].line);
		assert_int_equal(p.status, 0);
		if (cases[i].format < 0) {
			assert_int_equal(
				options_output(&p.options, table_json, &format, &p.failure),
				CTL_USAGE);
		} else {
			assert_int_equal(
				options_output(&p.options, table_json, &format, &p.failure),
				CTL_DONE);
			assert_int_equal(format, cases[i].format);
		}
		parsed_clear(&p);
	}
}

/* Each verb of the table is found by its name, and each option by no other's letter or name. */
static void test_tables(void **state)
{
	for (const struct verb *v = verb_table; v->name; v++) {
		struct parsed p;
		char line[64];

		snprintf(line, sizeof(line), "%s --help", v->name);
		parse(&p, line);
		assert_int_equal(p.status, 0);
		assert_ptr_equal(p.options.verb, v);
		assert_true(options_has(&p.options, OPTION_HELP));
		parsed_clear(&p);
	}
	for (int i = 0; i < OPTION_COUNT; i++)
		for (int j = 0; j < i; j++) {
			const struct option_info *a = &option_table[i], *b = &option_table[j];

			assert_string_not_equal(a->name, b->name);
			assert_false(a->letter && a->letter == b->letter && a->group == b->group);
		}
}

/* Words of other programs lead to verbs that are there. */
static void test_other_names(void **state)
{
	static const char *const others[] = {"delete", "del",	  "rm",	    "ls",   "change",
					     "load",   "restore", "commit", "undo", "flows"};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		char line[64], name[32];
		struct parsed p;

		parse(&p, others[i]);
		assert_int_equal(
			sscanf(p.failure.message, "%*[^;]; did you mean \"%31[^\"]\"?", name), 1);
		parsed_clear(&p);
		snprintf(line, sizeof(line), "%s --help", name);
		parse(&p, line);
		assert_int_equal(p.status, 0);
		assert_string_equal(p.options.verb->name, name);
		parsed_clear(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_hints),
		cmocka_unit_test(test_other_names),
		cmocka_unit_test(test_json_after_mistake),
		cmocka_unit_test(test_socket),
		cmocka_unit_test(test_output),
		cmocka_unit_test(test_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
