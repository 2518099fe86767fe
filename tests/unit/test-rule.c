/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules: round trips of random ones, random words that must not crash the parser, equality,
 * conflicts. The grammar's words and messages are in tests/config/.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/rules.h"

static void test_round_trip(void **state)
{
	srandom(2);
	for (int i = 0; i < 5000; i++) {
		_cleanup_(rule_freep) struct rule *rule = random_rule(), *again = NULL,
						  *copy = NULL;
		_cleanup_(freep) char *text = NULL, *text_again = NULL;
		struct diag diag = {0};

		assert_int_equal(rule_format(rule, &text), 0);
		if (rule_parse(text, NULL, &diag, &again) < 0)
			diag_print(&diag, stderr, text);
		assert_non_null(again);
		assert_int_equal(diag.n_items, 0);
		assert_true(rule_equal(rule, again));
		assert_int_equal(rule_format(again, &text_again), 0);
		assert_string_equal(text, text_again);
		assert_int_equal(rule_copy(again, &copy), 0);
		assert_true(rule_equal(rule, copy));
	}
}

static void assert_item_is_sound(const struct diag_item *item, const char *text)
{
	size_t length = strlen(text);

	assert_int_equal(item->code, DIAG_INVALID);
	assert_true(item->message[0] != '\0');
	assert_int_equal(strlen(item->text), length);
	assert_in_range(item->column, 1, length + 1);
	assert_true(item->width >= 1);
	assert_true(item->column - 1 + item->width <= length + 1);
}

/* Whatever the words, there is a rule or an error that points into the text. */
static void test_any_words(void **state)
{
	static const char *const words[] = {
		"tcp",	      "udp",	   "tcp+udp", "80",	   "8080-8090",	 "to",
		"->",	      "-",	   ",",	      "*:1",	   "[::1]:80",	 "10.0.0.1:80",
		"10.0.0.0/8", "on",	   "from",    "name",	   "masquerade", "snat",
		"balance",    "max-flows", "rate",    "on-change", "weight",	 "disabled",
		"keep",	      "drain",	   "5s",      "hash",	   "3",		 "9/s",
		"eth0",	      "x",	   "[",	      "]",	   ":",		 "8080-",
		"-80",	      "99999",	   "\xff",    "\033",	   "\"",	 "to to",
		"nam",	      "80,81",	   "::1",     "/",	   "[::]/0:7",	 "*",
		"redirect",   "per",	   "source",  "burst",	   "timeout",	 "udp-stream",
		"tcp-syn",    "9/m",	   "0",
	};
	unsigned n_good = 0;

	srandom(3);
	for (int i = 0; i < 15000; i++) {
		char text[512] = "";
		struct rule *rule = NULL;
		struct diag diag = {0};
		unsigned n = below(10);
		int r;

		if (below(2))
			strcpy(text, "tcp 80 to 81");
		for (unsigned j = 0; j < n; j++) {
			strcat(text, below(8) ? " " : "");
			strcat(text, words[below(sizeof(words) / sizeof(words[0]))]);
		}
		r = rule_parse(text, NULL, &diag, &rule);
		assert_int_equal(r == 0, rule != NULL);
		assert_int_equal(r == 0, diag.n_items == 0);
		for (size_t j = 0; j < diag.n_items; j++)
			assert_item_is_sound(&diag.items[j], text);
		n_good += r == 0;
		rule_free(rule);
		diag_clear(&diag);
	}
	assert_true(n_good > 300);
}

/* One byte changed, anywhere. */
static void test_any_bytes(void **state)
{
	static const char good[] =
		"tcp+udp [2001:db8::]/64:8080-8090 -> [2001:db8::1]:80 weight 3,"
		"81 on eth0,lo from [2001:db8::]/32 name a.b_c-d snat "
		"2001:db8::2 max-flows 9 per source rate 5/s burst 7 "
		"timeout tcp-syn 5s timeout udp 6s on-change drain 1m30s disabled";

	srandom(4);
	for (int i = 0; i < 15000; i++) {
		char text[sizeof(good)];
		struct rule *rule = NULL;
		struct diag diag = {0};

		memcpy(text, good, sizeof(good));
		for (unsigned j = below(3); j < 3; j++)
			text[below(sizeof(good) - 1)] = (char)(1 + below(255));
		if (rule_parse(text, NULL, &diag, &rule) < 0)
			assert_true(diag.n_items > 0);
		for (size_t j = 0; j < diag.n_items; j++)
			assert_item_is_sound(&diag.items[j], text);
		rule_free(rule);
		diag_clear(&diag);
	}
}

static void test_errors_are_bounded(void **state)
{
	_cleanup_(freep) char *text = calloc(1, 400001);
	struct rule *rule = NULL;
	struct diag diag = {0};

	for (int i = 0; i < 100000; i++)
		memcpy(text + i * 4, "zzz ", 4);
	assert_int_equal(rule_parse(text, NULL, &diag, &rule), -EINVAL);
	assert_in_range(diag.n_items, 1, 20);
	diag_clear(&diag);
}

static void test_place(void **state)
{
	const char *line = "redirect tcp 80 to 81 nam web # x";
	struct diag_place place = {"a.conf", 9, 10, 0, line};
	struct rule *rule = NULL;
	struct diag diag = {0};

	assert_int_equal(rule_parse("tcp 80 to 81 nam web ", &place, &diag, &rule), -EINVAL);
	assert_int_equal(diag.n_items, 1);
	assert_string_equal(diag.items[0].file, "a.conf");
	assert_int_equal(diag.items[0].line, 9);
	assert_int_equal(diag.items[0].column, 23);
	assert_int_equal(diag.items[0].width, 3);
	assert_string_equal(diag.items[0].text, line);
	assert_string_equal(diag.items[0].hint, "did you mean \"name\"?");
	diag_clear(&diag);
}

static void test_equal(void **state)
{
	static const struct {
		const char *a, *b;
		bool equal;
	} cases[] = {
		{"tcp 80 to 81", "tcp 80 -> 81", true},
		{"tcp 80 to 81", "tcp 80 81", true},
		{"tcp 80 to 81", "tcp   80->81", true},
		{"tcp+udp 80 to 81", "udp+tcp 80 to 81", true},
		{"tcp 80 to 81 on a,b", "tcp 80 to 81 on b , a", true},
		{"tcp 80 to 81 name a on b", "tcp 80 to 81 on b name a", true},
		{"tcp 80 to 81 balance hash", "tcp 80 to 81 on-change keep", true},
		{"tcp 80 to 81", "udp 80 to 81", false},
		{"tcp 80 to 81", "tcp 80 to 82", false},
		{"tcp 80 to 81", "tcp *:80 to 81", false},
		{"tcp 80 to 81", "tcp 80 to 81 name x", false},
		{"tcp 80 to 81", "tcp 80 to 81 disabled", false},
		{"tcp 80 to 81 on a,b", "tcp 80 to 81 on a,c", false},
		{"tcp 80 to 81 on a", "tcp 80 to 81 on a,c", false},
		{"tcp 80 to 81 from 10.0.0.0/8", "tcp 80 to 81 from 10.0.0.0/9", false},
		{"tcp 80 to 81,82", "tcp 80 to 82,81", false},
		{"tcp 80 to 81 weight 2,82", "tcp 80 to 81,82", false},
		{"tcp 80 to 81 rate 1/s", "tcp 80 to 81 rate 2/s", false},
		{"tcp 80 to 81 rate 1/s", "tcp 80 to 81 rate 60/m", false},
		{"tcp 80 to 81 rate 1/s", "tcp 80 to 81 rate 1/s per source", false},
		{"tcp 80 to 81 rate 9/s", "tcp 80 to 81 rate 9/s burst 8", false},
		{"tcp 80 to 81 rate 9/s", "tcp 80 to 81 rate 9/s burst 9", true},
		{"tcp 80 to 81 max-flows 9", "tcp 80 to 81 max-flows 9 per source", false},
		{"tcp 80 to 81 timeout tcp-rst 9s", "tcp 80 to 81 timeout tcp-rst 8s", false},
		{"tcp 80 to 81 timeout tcp-rst 9s", "tcp 80 to 81", false},
		{"tcp 80 to 81 timeout tcp-syn 1m", "tcp 80 to 81 timeout tcp-syn 60s", true},
		{"tcp 80 to 81,82 weight 0", "tcp 80 to 81,82", false},
		{"tcp 80 to 81 on-change drain 1s", "tcp 80 to 81 on-change drain 2s", false},
		{"tcp *:80 to 81 masquerade", "tcp *:80 to 81", false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(rule_freep) struct rule *a = rule_of(cases[i].a),
						  *b = rule_of(cases[i].b);

		assert_int_equal(rule_equal(a, b), cases[i].equal);
		assert_int_equal(rule_equal(b, a), cases[i].equal);
	}
}

static const struct {
	const char *a, *b;
	bool conflict;
} conflict_cases[] = {
	{"tcp 80 to 81", "tcp 80 to 82", true},
	{"tcp 80 to 81", "tcp 80 to 82 disabled", true},
	{"tcp 80 to 81", "udp 80 to 82", false},
	{"tcp+udp 80 to 81", "udp 80 to 82", true},
	{"tcp 80 to 81", "tcp 81 to 82", false},
	/* ranges: the narrower one wins, of one width they may only touch */
	{"tcp 80-90 to 100", "tcp 80 to 82", false},
	{"tcp 80-90 to 100", "tcp 85-95 to 100", true},
	{"tcp 80-90 to 100", "tcp 90-100 to 200", true},
	{"tcp 80-90 to 100", "tcp 91-101 to 200", false},
	{"tcp 80-90 to 100", "tcp 80-91 to 200", false},
	/* interface */
	{"tcp 80 to 81 on a", "tcp 80 to 82", false},
	{"tcp 80 to 81 on a", "tcp 80 to 82 on b", false},
	{"tcp 80 to 81 on a,b", "tcp 80 to 82 on c,b", true},
	/* destination */
	{"tcp 80 to 81", "tcp *:80 to 82", false},
	{"tcp *:80 to 81", "tcp *:80 to 82", true},
	{"tcp 80 to 81", "tcp 192.0.2.1:80 to 82", false},
	{"tcp *:80 to 81", "tcp 0.0.0.0/0:80 to 82", false},
	{"tcp 192.0.2.0/24:80 to 81", "tcp 192.0.2.0/25:80 to 82", false},
	{"tcp 192.0.2.0/25:80 to 81", "tcp 192.0.2.128/25:80 to 82", false},
	{"tcp 192.0.2.0/24:80 to 81", "tcp 192.0.2.0/24:80 to 82", true},
	{"tcp [2001:db8::1]:80 to 81", "tcp 192.0.2.1:80 to 82", false},
	{"tcp [2001:db8::1]:80 to 81", "tcp [2001:db8::1]:80 to 82", true},
	/* source */
	{"tcp 80 to 81 from 10.0.0.0/8", "tcp 80 to 82", false},
	{"tcp 80 to 81 from 0.0.0.0/0", "tcp 80 to 82", false},
	{"tcp 80 to 81 from 10.0.0.0/8", "tcp 80 to 82 from 10.0.0.0/9", false},
	{"tcp 80 to 81 from 10.0.0.0/8", "tcp 80 to 82 from 11.0.0.0/8", false},
	{"tcp 80 to 81 from 10.0.0.0/8,11.0.0.0/8", "tcp 80 to 82 from 11.0.0.0/8", true},
	/* addresses elsewhere limit a rule to their family */
	{"tcp 80 to 10.0.0.1:80", "tcp 80 to [2001:db8::1]:80", false},
	{"tcp 80 to 10.0.0.1:80", "tcp 80 to 81", true},
	{"tcp 80 to 10.0.0.1:80", "tcp 80 to 10.0.0.2:80", true},
	/* the order of the criteria does not matter for a tie */
	{"tcp 80 to 81 on a", "tcp 192.0.2.1:80 to 82", false},
};

static void test_conflicts(void **state)
{
	for (size_t i = 0; i < sizeof(conflict_cases) / sizeof(conflict_cases[0]); i++) {
		_cleanup_(rule_freep) struct rule *a = rule_of(conflict_cases[i].a);
		_cleanup_(rule_freep) struct rule *b = rule_of(conflict_cases[i].b);

		if (rule_conflicts(a, b) != conflict_cases[i].conflict)
			print_error("%s | %s\n", conflict_cases[i].a, conflict_cases[i].b);
		assert_int_equal(rule_conflicts(a, b), conflict_cases[i].conflict);
		assert_int_equal(rule_conflicts(b, a), conflict_cases[i].conflict);
		assert_true(rule_conflicts(a, a));
	}
}

static void test_ranks(void **state)
{
	static const char *const rising[] = {
		"tcp *:80 to 81",	   "tcp 80 to 81",	    "tcp 0.0.0.0/0:80 to 81",
		"tcp 10.0.0.0/8:80 to 81", "tcp 10.0.0.1:80 to 81", "tcp [2001:db8::1]:80 to 81",
	};
	unsigned last = 0;

	for (size_t i = 0; i < sizeof(rising) / sizeof(rising[0]); i++) {
		_cleanup_(rule_freep) struct rule *r = rule_of(rising[i]);

		assert_true(i == 0 || rule_listen_rank(r) > last);
		last = rule_listen_rank(r);
	}
}

/* What is printed of timeouts is as short as can be, and says the same. */
static void test_timeouts(void **state)
{
	static const struct {
		const char *written, *printed;
	} cases[] = {
		{"tcp 80 to 81 timeout tcp-syn-recv 5s timeout tcp-syn-sent 5s",
		 "tcp 80 to 81 timeout tcp-syn 5s"},
		{"tcp 80 to 81 timeout tcp-syn-recv 5s", "tcp 80 to 81 timeout tcp-syn-recv 5s"},
		{"tcp 80 to 81 timeout tcp-syn-recv 5s timeout tcp-syn 60s",
		 "tcp 80 to 81 timeout tcp-syn 1m timeout tcp-syn-recv 5s"},
		{"tcp 80 to 81 timeout tcp-syn-recv 5s timeout tcp-syn-sent 6s",
		 "tcp 80 to 81 timeout tcp-syn 6s timeout tcp-syn-recv 5s"},
		{"tcp 80 to 81 timeout tcp-closing 9s timeout tcp-fin-wait 7s timeout "
		 "tcp-last-ack 7s timeout tcp-time-wait 7s",
		 "tcp 80 to 81 timeout tcp-closing 7s timeout tcp-close-wait 9s"},
		{"udp 80 to 81 timeout udp-stream 1h timeout udp 1m",
		 "udp 80 to 81 timeout udp 1m timeout udp-stream 1h"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(rule_freep) struct rule *written = rule_of(cases[i].written),
						  *printed = rule_of(cases[i].printed);
		_cleanup_(freep) char *text = NULL;

		assert_int_equal(rule_format(written, &text), 0);
		assert_string_equal(text, cases[i].printed);
		assert_true(rule_equal(written, printed));
	}
}

static void test_limits(void **state)
{
	_cleanup_(rule_freep) struct rule *r =
		rule_of("tcp 80 to 81 max-flows 7 max-flows 3 per source rate 90/m "
			"rate 5/h burst 2 per source");
	const struct rule_limit *all = &r->limits[RULE_LIMIT_ALL];
	const struct rule_limit *source = &r->limits[RULE_LIMIT_SOURCE];

	assert_int_equal(all->max_flows, 7);
	assert_int_equal(all->rate, 90);
	assert_int_equal(all->rate_seconds, 60);
	assert_int_equal(rule_limit_burst(all), 90);
	assert_int_equal(source->max_flows, 3);
	assert_int_equal(source->rate, 5);
	assert_int_equal(source->rate_seconds, 3600);
	assert_int_equal(rule_limit_burst(source), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_any_words),
		cmocka_unit_test(test_any_bytes),  cmocka_unit_test(test_errors_are_bounded),
		cmocka_unit_test(test_place),	   cmocka_unit_test(test_equal),
		cmocka_unit_test(test_conflicts),  cmocka_unit_test(test_ranks),
		cmocka_unit_test(test_timeouts),   cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
