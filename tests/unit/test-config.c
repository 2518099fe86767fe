/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration: defaults, files and bytes that golden files cannot hold, and that the check
 * of very many rules takes linear time. Statements and messages are in tests/config/.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "shared/config.h"

static char folder[] = "/tmp/test-config-XXXXXX";

static char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void write_file(const char *name, const void *data, size_t length)
{
	FILE *out = fopen(path_of(name), "we");

	assert_non_null(out);
	assert_int_equal(fwrite(data, 1, length, out), length);
	assert_int_equal(fclose(out), 0);
}

static int make_folder(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static struct config *new_config(void)
{
	struct config *c = NULL;

	assert_int_equal(config_new(&c), 0);
	return c;
}

static void test_defaults(void **state)
{
	_cleanup_(config_freep) struct config *c = new_config();

	assert_int_equal(c->flows_max, 262144);
	assert_int_equal(c->timeouts[FLOW_SYN_SENT], 60);
	assert_int_equal(c->timeouts[FLOW_SYN_RECV], 60);
	assert_int_equal(c->timeouts[FLOW_ESTABLISHED], 2 * 3600 + 4 * 60);
	assert_int_equal(c->timeouts[FLOW_FIN_WAIT], 120);
	assert_int_equal(c->timeouts[FLOW_CLOSE_WAIT], 120);
	assert_int_equal(c->timeouts[FLOW_LAST_ACK], 120);
	assert_int_equal(c->timeouts[FLOW_TIME_WAIT], 120);
	assert_int_equal(c->timeouts[FLOW_CLOSE], 10);
	assert_int_equal(c->timeouts[FLOW_UDP_UNREPLIED], 30);
	assert_int_equal(c->timeouts[FLOW_UDP_REPLIED], 300);
}

static void test_missing_file(void **state)
{
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};

	assert_int_equal(config_read_file(c, path_of("missing"), &diag), -ENOENT);
	assert_int_equal(diag.n_items, 1);
	assert_int_equal(diag.items[0].code, DIAG_FAILED);
	assert_string_equal(diag.items[0].file, path_of("missing"));
	diag_clear(&diag);
	assert_int_equal(config_read_file(c, folder, &diag), -EINVAL);
	assert_non_null(strstr(diag.items[0].message, "Is a directory"));
	diag_clear(&diag);
}

static void test_bytes(void **state)
{
	static const char data[] = "\xef\xbb\xbf"
				   "flows-max 100\r\n"
				   "# a\0b\n"
				   "redirect tcp 1 to 2 name \xff\n"
				   "\r\n"
				   "redirect tcp 3 to 4";
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};

	write_file("bytes", data, sizeof(data) - 1);
	assert_int_equal(config_read_file(c, path_of("bytes"), &diag), -EINVAL);
	assert_int_equal(c->flows_max, 100);
	assert_int_equal(c->n_rules, 1);
	assert_int_equal(c->rules[0].line, 5);
	assert_int_equal(diag.n_items, 2);
	assert_string_equal(diag.items[0].message, "a NUL byte");
	assert_int_equal(diag.items[0].line, 2);
	assert_int_equal(diag.items[0].column, 4);
	assert_string_equal(diag.items[0].text, "# a?b");
	assert_string_equal(diag.items[1].message, "a byte that is not UTF-8");
	assert_int_equal(diag.items[1].line, 3);
	assert_int_equal(diag.items[1].column, 26);
	diag_clear(&diag);
}

static void test_long_line(void **state)
{
	const size_t length = 1 << 20;
	_cleanup_(freep) char *text = malloc(length + 64);
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};

	memset(text, ' ', length);
	strcpy(text + length, "redirect tcp 1 to 2 # end");
	assert_int_equal(config_read_text(c, "long", text, &diag), 0);
	assert_int_equal(c->n_rules, 1);
	assert_int_equal(c->rules[0].column, length + 10);
	assert_string_equal(c->rules[0].source, "long:1");
}

/* Through three files, and a folder whose name is full of wildcards. */
static void test_include(void **state)
{
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};

	mkdir(path_of("a[*]"), 0700);
	mkdir(path_of("a[*]/d"), 0700);
	write_file("top", "include a[[][*]]/x.conf\n", 24);
	write_file("a[*]/x.conf", "include d/*.conf\nredirect tcp 1 to 2\n", 37);
	write_file("a[*]/d/2.conf", "redirect tcp 2 to 3\n", 20);
	write_file("a[*]/d/1.conf", "redirect tcp 3 to 4", 19);
	write_file("a[*]/d/1.conf~", "nonsense", 8);
	assert_int_equal(config_read_file(c, path_of("top"), &diag), 0);
	assert_int_equal(c->n_rules, 3);
	assert_string_equal(c->rules[0].file, path_of("a[*]/d/1.conf"));
	assert_string_equal(c->rules[1].file, path_of("a[*]/d/2.conf"));
	assert_string_equal(c->rules[2].file, path_of("a[*]/x.conf"));
	assert_int_equal(c->rules[2].line, 2);
}

static void test_include_itself(void **state)
{
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};

	write_file("loop1", "include loop2\n", 14);
	write_file("loop2", "\ninclude ./loop1\n", 17);
	assert_int_equal(config_read_file(c, path_of("loop1"), &diag), -EINVAL);
	assert_int_equal(diag.n_items, 1);
	assert_string_equal(diag.items[0].file, path_of("loop2"));
	assert_int_equal(diag.items[0].line, 2);
	assert_int_equal(diag.items[0].column, 9);
	diag_clear(&diag);
}

static void test_include_depth(void **state)
{
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};
	char name[16], text[32];

	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "deep%d", i);
		snprintf(text, sizeof(text), "include deep%d\n", i + 1);
		write_file(name, text, strlen(text));
	}
	assert_int_equal(config_read_file(c, path_of("deep0"), &diag), -EINVAL);
	assert_int_equal(diag.n_items, 1);
	assert_string_equal(diag.items[0].file, path_of("deep15"));
	assert_non_null(strstr(diag.items[0].message, "too many files deep"));
	diag_clear(&diag);
}

static void test_add_rule(void **state)
{
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};

	assert_int_equal(config_add_rule(c, "tcp 1 to 2 name a", "command line", &diag), 0);
	assert_string_equal(c->rules[0].source, "command line");
	assert_int_equal(config_add_rule(c, "tcp 2 ot 3", "command line", &diag), -EINVAL);
	assert_int_equal(diag.n_items, 1);
	assert_null(diag.items[0].file);
	assert_int_equal(diag.items[0].column, 7);
	assert_string_equal(diag.items[0].text, "tcp 2 ot 3");
	diag_clear(&diag);
	assert_int_equal(config_add_rule(c, "tcp 2 to 4 name a", "command line", &diag), 0);
	assert_int_equal(config_check(c, &diag), -EINVAL);
	assert_int_equal(diag.n_items, 1);
	assert_int_equal(diag.items[0].code, DIAG_CONFLICT);
	assert_string_equal(diag.items[0].message,
			    "the name \"a\" is taken by the rule at command line");
	assert_int_equal(diag.items[0].column, 12);
	assert_int_equal(diag.items[0].width, 6);
	diag_clear(&diag);
}

/* Texts from elsewhere are one configuration, which includes nothing. */
static void test_texts(void **state)
{
	static const struct config_text texts[] = {
		{(char *)"a", (char *)"redirect tcp 1 to 2\ninclude b\n", 30},
		{(char *)"b", (char *)"redirect tcp 1 to 2\n", 20},
	};
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};

	c->refuses_include = true;
	assert_int_equal(config_read_texts(c, texts, 2, &diag), -EINVAL);
	assert_int_equal(diag.n_items, 2);
	assert_int_equal(diag.items[0].line, 2);
	assert_non_null(strstr(diag.items[0].message, "reads no files"));
	assert_int_equal(diag.items[1].code, DIAG_CONFLICT);
	assert_string_equal(diag.items[1].file, "b");
	diag_clear(&diag);
}

/* Settings that are as they are in force, and others. */
static void test_settings(void **state)
{
	static const struct {
		const char *text;
		size_t n_items;
	} cases[] = {
		{"", 0},
		{"interface eth0 lo\nflows-max 1000\ntimeout udp 1m\ntimeout tcp-syn 20s\n", 0},
		{"interface lo\ninterface eth0\n", 0},
		{"interface lo\n", 1},
		{"interface lo eth1\n", 1},
		{"flows-max 1001\ntimeout udp 61s\ntimeout tcp-syn-sent 21s\ntimeout udp-stream "
		 "5m\n",
		 3},
	};
	_cleanup_(config_freep) struct config *now = new_config();
	struct diag diag = {0};

	assert_int_equal(config_read_text(now, "now", cases[1].text, &diag), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(config_freep) struct config *c = new_config();

		assert_int_equal(config_read_text(c, "c", cases[i].text, &diag), 0);
		assert_int_equal(config_check_settings(c, now, &diag),
				 cases[i].n_items ? -EINVAL : 0);
		assert_int_equal(diag.n_items, cases[i].n_items);
		if (cases[i].n_items) {
			assert_string_equal(diag.items[0].file, "c");
			assert_int_equal(diag.items[0].line, 1);
		}
		diag_clear(&diag);
	}
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Processor seconds that the check of `n` rules by `format` takes. */
static double time_check(const char *format, unsigned n, size_t expected_items)
{
	_cleanup_(config_freep) struct config *c = new_config();
	struct diag diag = {0};
	char text[256];
	double start;

	for (unsigned i = 0; i < n; i++) {
		snprintf(text, sizeof(text), format, i / 65000 + 1, i / 250 % 250, i % 250,
			 i % 65000 + 1);
		assert_int_equal(config_add_rule(c, text, "x:1", &diag), 0);
	}
	start = seconds_now();
	config_check(c, &diag);
	start = seconds_now() - start;
	assert_int_equal(diag.n_items, expected_items);
	diag_clear(&diag);
	return start;
}

/* Eight times the rules must not take anywhere near 64 times the time. */
static void assert_linear(const char *format, bool conflicts)
{
	const unsigned few = 2500, many = 20000;
	double short_time = time_check(format, few, conflicts ? few - 1 : 0);
	double long_time = time_check(format, many, conflicts ? many - 1 : 0);

	assert_true(long_time < 0.05 || long_time < short_time * 32);
}

static void test_check_is_linear(void **state)
{
	/* distinct ports, addresses, clients, interfaces, ranges of one port group; all the same */
	assert_linear("tcp *:%4$u to 65535", false);
	assert_linear("tcp 10.%1$u.%2$u.%3$u:80 to 81", false);
	assert_linear("tcp 80 to 81 from 10.%1$u.%2$u.%3$u", false);
	assert_linear("tcp 80 to 81 on veth%1$u.%2$u.%3$u", false);
	assert_linear("tcp 10.%1$u.%2$u.%3$u:80-90 to 81", false);
	assert_linear("tcp 80 to 81 name x", true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),	cmocka_unit_test(test_missing_file),
		cmocka_unit_test(test_bytes),		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_include),		cmocka_unit_test(test_include_itself),
		cmocka_unit_test(test_include_depth),	cmocka_unit_test(test_add_rule),
		cmocka_unit_test(test_texts),		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_check_is_linear),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
