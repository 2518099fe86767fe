// SPDX-License-Identifier: GPL-2.0-or-later
/* The rules in force: ids, finding, conflicts, copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "daemon/ruleset.h"
#include "tests/unit/rules.h"

static struct ruleset_entry *add(struct ruleset *s, uint32_t id, const char *text)
{
	struct ruleset_entry *e = NULL;
	struct diag diag = {0};

	assert_int_equal(ruleset_add(s, id, rule_of(text), RULE_ORIGIN_RUNTIME, "here", &diag, &e),
			 0);
	assert_int_equal(diag.n_items, 0);
	return e;
}

/* Refused with `code` and words that hold `words`. */
static void refuse(struct ruleset *s, const char *text, int code, const char *words)
{
	struct rule *rule = rule_of(text);
	struct diag diag = {0};

	assert_int_equal(ruleset_add(s, 0, rule, RULE_ORIGIN_RUNTIME, "there", &diag, NULL), code);
	assert_int_equal(diag.n_items, 1);
	assert_int_equal(diag.items[0].code, DIAG_CONFLICT);
	assert_non_null(strstr(diag.items[0].message, words));
	diag_clear(&diag);
	rule_free(rule); /* still ours */
}

static void test_ids(void **state)
{
	struct ruleset *s;

	assert_int_equal(ruleset_new(&s), 0);
	assert_int_equal(add(s, 0, "tcp 1 to 2")->id, 1);
	assert_int_equal(add(s, 3, "tcp 3 to 4")->id, 3);
	assert_int_equal(add(s, 0, "tcp 5 to 6")->id, 2);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(s->entries[i]->id, i + 1);
	ruleset_remove(s, ruleset_find_id(s, 2));
	assert_null(ruleset_find_id(s, 2));
	assert_int_equal(s->n_entries, 2);
	assert_int_equal(add(s, 0, "tcp 5 to 6")->id, 2);
	ruleset_free(s);
}

static void test_find(void **state)
{
	struct ruleset *s;

	assert_int_equal(ruleset_new(&s), 0);
	add(s, 7, "tcp 8080 to 80 name web");
	add(s, 9, "udp 53 to 5353 disabled");
	assert_int_equal(ruleset_find(s, "web")->id, 7);
	assert_int_equal(ruleset_find(s, "9")->id, 9);
	assert_int_equal(ruleset_find(s, "tcp 8080 -> 80")->id, 7);
	assert_int_equal(ruleset_find(s, "tcp 8080 80 name web")->id, 7);
	assert_int_equal(ruleset_find(s, "udp 53 to 5353")->id, 9);
	assert_null(ruleset_find(s, "tcp 8080 to 80 name other"));
	assert_null(ruleset_find(s, "8"));
	assert_null(ruleset_find(s, "4294967303")); /* 7 in 32 bits */
	assert_null(ruleset_find(s, "9x"));
	assert_null(ruleset_find(s, ""));
	/* A name may be a number; an id comes first. */
	add(s, 10, "tcp 1 to 2 name 7");
	add(s, 11, "tcp 3 to 4 name 8");
	assert_int_equal(ruleset_find(s, "7")->id, 7);
	assert_int_equal(ruleset_find(s, "8")->id, 11);
	ruleset_free(s);
}

static void test_conflicts(void **state)
{
	struct ruleset *s;

	assert_int_equal(ruleset_new(&s), 0);
	add(s, 0, "tcp 8080 to 80 name web");
	refuse(s, "tcp 8080 to 81", -EEXIST, "rule 1 (here): tcp 8080 to 80 name web");
	refuse(s, "udp 1 to 2 name web", -EEXIST, "the name is that of rule 1");
	add(s, 0, "udp 8080 to 80");
	add(s, 0, "tcp 192.0.2.1:8080 to 81");
	add(s, 0, "tcp 8080 to 82 on lo");
	refuse(s, "tcp 8080 to 83 on eth0,lo", -EEXIST, "on lo");
	/* What has gone is in nobody's way. */
	ruleset_remove(s, ruleset_find(s, "web"));
	add(s, 0, "tcp 8080 to 84 name web");
	ruleset_free(s);
}

static void test_copy(void **state)
{
	struct ruleset *s, *copy;
	struct ruleset_entry *e;

	assert_int_equal(ruleset_new(&s), 0);
	for (int i = 0; i < 100; i++) {
		char text[64];

		snprintf(text, sizeof(text), "tcp %d to 80", 1000 + i);
		add(s, 0, text);
	}
	assert_int_equal(ruleset_copy(s, &copy), 0);
	assert_int_equal(copy->n_entries, 100);
	for (size_t i = 0; i < 100; i++) {
		assert_ptr_not_equal(s->entries[i]->rule, copy->entries[i]->rule);
		assert_true(rule_equal(s->entries[i]->rule, copy->entries[i]->rule));
		assert_int_equal(s->entries[i]->id, copy->entries[i]->id);
	}
	e = ruleset_find_id(copy, 50);
	ruleset_remove(copy, e);
	assert_non_null(ruleset_find_id(s, 50));
	refuse(copy, "tcp 1000 to 81", -EEXIST, "rule 1 ");
	add(copy, 0, "tcp 1049 to 81");
	ruleset_free(copy);
	ruleset_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_conflicts),
		cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests_name("ruleset", tests, NULL, NULL);
}
