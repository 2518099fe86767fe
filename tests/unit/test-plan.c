// SPDX-License-Identifier: GPL-2.0-or-later
/* What a reload makes of the rules in force and a new configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "daemon/plan.h"
#include "tests/unit/rules.h"

static uint32_t next_id(void *userdata, const struct ruleset *a, const struct ruleset *b)
{
	return ++*(uint32_t *)userdata;
}

static void add(struct ruleset *s, uint32_t id, const char *text, enum rule_origin origin)
{
	struct diag diag = {0};

	assert_int_equal(ruleset_add(s, id, rule_of(text), origin, "old", &diag, NULL), 0);
}

static struct config *config_of(const char *text)
{
	struct config *c;
	struct diag diag = {0};

	assert_int_equal(config_new(&c), 0);
	assert_int_equal(config_read_text(c, "new.conf", text, &diag), 0);
	return c;
}

static struct ruleset *plan(const struct ruleset *old, const char *text, struct plan_counts *counts)
{
	struct config *config = config_of(text);
	struct ruleset *rules = NULL;
	struct diag diag = {0};
	uint32_t last = 100;

	assert_int_equal(
		plan_configuration(old, config, false, next_id, &last, &diag, &rules, counts), 0);
	config_free(config);
	return rules;
}

static void test_ids_stay(void **state)
{
	struct plan_counts counts;
	struct ruleset *old, *rules;

	assert_int_equal(ruleset_new(&old), 0);
	add(old, 5, "tcp 1 to 2", RULE_ORIGIN_CONFIG);
	add(old, 6, "tcp 3 to 4 name b", RULE_ORIGIN_CONFIG);
	add(old, 7, "tcp 5 to 6", RULE_ORIGIN_CONFIG);
	rules = plan(old,
		     "redirect tcp 9 to 10\nredirect tcp 3 to 40 name b\nredirect tcp 1 -> 2\n",
		     &counts);
	assert_int_equal(rules->n_entries, 3);
	assert_int_equal(ruleset_find(rules, "tcp 1 to 2")->id, 5); /* by its text */
	assert_int_equal(ruleset_find(rules, "b")->id, 6);	    /* by its name */
	assert_int_equal(ruleset_find(rules, "tcp 9 to 10")->id, 101);
	assert_string_equal(ruleset_find(rules, "tcp 1 to 2")->source, "new.conf:3");
	assert_int_equal(counts.added, 1);
	assert_int_equal(counts.kept, 2);
	assert_int_equal(counts.removed, 1);
	ruleset_free(rules);
	ruleset_free(old);
}

static void test_runtime_rules_stay(void **state)
{
	struct plan_counts counts;
	struct ruleset *old, *rules;

	assert_int_equal(ruleset_new(&old), 0);
	add(old, 1, "tcp 1 to 2", RULE_ORIGIN_RUNTIME);
	add(old, 2, "tcp 3 to 4", RULE_ORIGIN_RUNTIME);
	add(old, 3, "tcp 5 to 6", RULE_ORIGIN_COMMAND_LINE);
	rules = plan(old, "redirect tcp 3 to 4\n", &counts);
	assert_int_equal(rules->n_entries, 2);
	assert_int_equal(ruleset_find_id(rules, 1)->origin, RULE_ORIGIN_RUNTIME);
	/* Written into the file meanwhile, it is the file's from now on. */
	assert_int_equal(ruleset_find_id(rules, 2)->origin, RULE_ORIGIN_CONFIG);
	assert_int_equal(counts.removed, 1);
	ruleset_free(rules);
	ruleset_free(old);
}

static void test_conflict_with_runtime(void **state)
{
	struct config *config = config_of("redirect tcp 1 to 3\n");
	struct ruleset *old, *rules = NULL;
	struct plan_counts counts;
	struct diag diag = {0};
	uint32_t last = 100;

	assert_int_equal(ruleset_new(&old), 0);
	add(old, 1, "tcp 1 to 2", RULE_ORIGIN_RUNTIME);
	assert_int_equal(
		plan_configuration(old, config, false, next_id, &last, &diag, &rules, &counts),
		-EEXIST);
	assert_null(rules);
	assert_int_equal(diag.n_items, 1);
	diag_clear(&diag);
	/* At start nobody could be asked: the file wins, and it is said. */
	assert_int_equal(
		plan_configuration(old, config, true, next_id, &last, &diag, &rules, &counts), 0);
	assert_int_equal(diag.n_items, 1);
	assert_int_equal(rules->n_entries, 1);
	assert_int_equal(rules->entries[0]->origin, RULE_ORIGIN_CONFIG);
	diag_clear(&diag);
	ruleset_free(rules);
	ruleset_free(old);
	config_free(config);
}

static void test_equal_rules_share_nothing(void **state)
{
	struct plan_counts counts;
	struct ruleset *old, *rules;

	/* Two old rules under one name and text cannot be; two new ones that fit one old can. */
	assert_int_equal(ruleset_new(&old), 0);
	add(old, 4, "tcp 1 to 2 name a", RULE_ORIGIN_CONFIG);
	rules = plan(old, "redirect tcp 7 to 8 name a\nredirect tcp 1 to 2\n", &counts);
	assert_int_equal(ruleset_find(rules, "a")->id, 4);
	assert_int_equal(ruleset_find(rules, "tcp 1 to 2")->id, 101);
	ruleset_free(rules);
	ruleset_free(old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_stay),
		cmocka_unit_test(test_runtime_rules_stay),
		cmocka_unit_test(test_conflict_with_runtime),
		cmocka_unit_test(test_equal_rules_share_nothing),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
