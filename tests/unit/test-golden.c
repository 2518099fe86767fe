/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Golden files: test-golden FOLDER EXAMPLE [--update]
 *
 * In FOLDER, each NAME.conf is read as a configuration, each NAME.rules line by line as rules.
 * NAME.ok holds what is printed of it, which must read back to the same; or NAME.err every error as
 * diag_print() writes it. --update writes them anew, to be looked through before they are kept.
 * EXAMPLE is the configuration that is installed.
 */
#include <errno.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/config.h"

static bool update;
static char *example;

static char *load(const char *path)
{
	FILE *in = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;

	if (!in)
		return NULL;
	if (getdelim(&text, &size, '\0', in) < 0)
		text = strdup("");
	fclose(in);
	return text;
}

static void print_config(const struct config *c, FILE *out)
{
	/* In the order of enum flow_state; SYN_SENT2 has SYN_SENT's. */
	static const char *const names[FLOW_STATE_COUNT] = {
		NULL,		"tcp-syn-sent",
		"tcp-syn-recv", "tcp-established",
		"tcp-fin-wait", "tcp-close-wait",
		"tcp-last-ack", "tcp-time-wait",
		"tcp-rst",	NULL,
		"udp",		"udp-stream",
	};

	for (size_t i = 0; i < c->n_interfaces; i++)
		fprintf(out, "interface %s\n", c->interfaces[i]);
	fprintf(out, "flows-max %u\n", c->flows_max);
	for (size_t i = 1; i < FLOW_STATE_COUNT; i++)
		if (names[i])
			fprintf(out, "timeout %s %us\n", names[i], c->timeouts[i]);
	assert_int_equal(c->timeouts[FLOW_SYN_SENT2], c->timeouts[FLOW_SYN_SENT]);
	for (size_t i = 0; i < c->n_rules; i++) {
		_cleanup_(freep) char *text = NULL;

		assert_int_equal(rule_format(c->rules[i].rule, &text), 0);
		fprintf(out, "redirect %s\n", text);
	}
}

/* Prints the configuration and returns 0, or its errors and returns -EINVAL. */
static int try_config(const char *name, const char *text, FILE *out)
{
	_cleanup_(config_freep) struct config *c = NULL;
	struct diag diag = {0};
	int r;

	assert_int_equal(config_new(&c), 0);
	r = text ? config_read_text(c, name, text, &diag) : config_read_file(c, name, &diag);
	assert_int_equal(r == 0, diag.n_items == 0);
	if (r == 0)
		print_config(c, out);
	diag_print(&diag, out, NULL);
	diag_clear(&diag);
	return r;
}

static int try_rules(const char *name, const char *text, FILE *out)
{
	_cleanup_(freep) char *lines = text ? strdup(text) : load(name);
	struct diag diag = {0};
	char *rest = lines, *line;
	unsigned number = 0;
	int r = 0;

	assert_non_null(lines);
	while ((line = strsep(&rest, "\n"))) {
		struct diag_place place = {name, ++number, 1, 0, line};
		_cleanup_(rule_freep) struct rule *rule = NULL;
		_cleanup_(freep) char *printed = NULL;

		if (line[0] == '#' || line[0] == '\0')
			continue;
		if (rule_parse(line, &place, &diag, &rule) < 0) {
			r = -EINVAL;
			continue;
		}
		assert_int_equal(rule_format(rule, &printed), 0);
		fprintf(out, "%s\n", printed);
	}
	diag_print(&diag, out, NULL);
	diag_clear(&diag);
	return r;
}

static void save(const char *path, const char *text)
{
	FILE *out = fopen(path, "we");

	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

typedef int (*try_fn)(const char *name, const char *text, FILE *out);

static char *run(try_fn try, const char *name, const char *text, int *ret)
{
	char *printed = NULL;
	size_t size;
	FILE *out = open_memstream(&printed, &size);

	assert_non_null(out);
	*ret = try(name, text, out);
	fclose(out);
	return printed;
}

static void test_file(void **state)
{
	const char *name = *state, *dot = strrchr(name, '.');
	try_fn try = strcmp(dot, ".conf") == 0 ? try_config : try_rules;
	_cleanup_(freep) char *printed = NULL, *expected = NULL, *again = NULL;
	char path[256], other[256];
	int r;

	printed = run(try, name, NULL, &r);
	snprintf(path, sizeof(path), "%.*s.%s", (int)(dot - name), name, r == 0 ? "ok" : "err");
	snprintf(other, sizeof(other), "%.*s.%s", (int)(dot - name), name, r == 0 ? "err" : "ok");
	if (update) {
		unlink(other);
		save(path, printed);
	}
	expected = load(path);
	if (!expected || access(other, F_OK) == 0)
		fail_msg("%s: there must be %s, and no %s; printed was:\n%s", name, path, other,
			 printed);
	assert_string_equal(printed, expected);
	if (r < 0)
		return;
	again = run(try, path, printed, &r);
	assert_int_equal(r, 0);
	assert_string_equal(again, printed);
}

/* As installed, and with every statement in it that is commented out by a "#" without a blank. */
static void test_example(void **state)
{
	_cleanup_(freep) char *text = load(example), *printed = NULL;
	unsigned n = 0;
	int r;

	assert_non_null(text);
	printed = run(try_config, "example", text, &r);
	assert_int_equal(r, 0);
	for (char *p = text; *p; p++) {
		if (p[0] == '#' && p[1] >= 'a' && p[1] <= 'z' && (p == text || p[-1] == '\n')) {
			p[0] = ' ';
			n++;
		}
	}
	assert_true(n > 3);
	free(printed);
	printed = run(try_config, "example", text, &r);
	if (r < 0)
		fail_msg("%s", printed);
}

int main(int argc, char **argv)
{
	glob_t found = {0};
	struct CMUnitTest *tests;
	size_t n;
	int failed;

	if (argc < 3) {
		fprintf(stderr, "usage: %s FOLDER EXAMPLE [--update]\n", argv[0]);
		return 2;
	}
	example = realpath(argv[2], NULL);
	update = argc > 3 && strcmp(argv[3], "--update") == 0;
	if (!example || chdir(argv[1]) < 0 || glob("*.conf", 0, NULL, &found) != 0 ||
	    glob("*.rules", GLOB_APPEND, NULL, &found) != 0) {
		perror(argv[1]);
		return 1;
	}
	n = found.gl_pathc;
	tests = calloc(n + 1, sizeof(*tests));
	for (size_t i = 0; i < n; i++)
		tests[i] = (struct CMUnitTest){
			.name = found.gl_pathv[i],
			.test_func = test_file,
			.initial_state = found.gl_pathv[i],
		};
	tests[n] = (struct CMUnitTest){.name = "example", .test_func = test_example};
	failed = _cmocka_run_group_tests("golden", tests, n + 1, NULL, NULL);
	free(tests);
	free(example);
	globfree(&found);
	return failed;
}
