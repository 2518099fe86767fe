// SPDX-License-Identifier: GPL-2.0-or-later
/* The rules in force: ids, finding, conflicts, changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "daemon/changes.h"
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

static void go(struct ruleset *s, struct ruleset_entry *e)
{
	struct changes c = {0};
	struct diag diag = {0};

	assert_int_equal(changes_add(&c, e, NULL, NULL), 0);
	assert_int_equal(ruleset_change(s, &c, &diag), 0);
	changes_clear(&c);
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
	go(s, ruleset_find_id(s, 2));
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
	go(s, ruleset_find(s, "web"));
	add(s, 0, "tcp 8080 to 84 name web");
	ruleset_free(s);
}

/* A list of changes at random, made and taken back, against the plainest account of it. */
static void test_changes(void **state)
{
	enum { IDS = 200, ROUNDS = 300 };
	char texts[IDS][64] = {{0}}; /* by id; empty: no rule */
	struct ruleset *s;

	srandom(11);
	assert_int_equal(ruleset_new(&s), 0);
	for (int round = 0; round < ROUNDS; round++) {
		bool keep = below(3), touched[IDS] = {0};
		struct changes c = {0};
		struct diag diag = {0};
		size_t n = 0;

		for (unsigned i = 0; i < 1 + below(20); i++) {
			struct ruleset_entry *before, *after = NULL;
			uint32_t id = 1 + below(IDS - 1);
			struct rule *rule;
			char text[64] = "";

			if (touched[id])
				continue;
			touched[id] = true;
			before = ruleset_find_id(s, id);
			if (!before || below(2)) {
				snprintf(text, sizeof(text), "tcp %u to %u name n%u", 1000 + id,
					 1 + below(900), id);
				rule = rule_of(text);
				assert_int_equal(ruleset_entry_new(id, rule, RULE_ORIGIN_RUNTIME,
								   "here", &after),
						 0);
				rule_free(rule);
			}
			assert_int_equal(changes_add(&c, before, after, NULL), 0);
			if (keep)
				strcpy(texts[id], text);
		}
		assert_int_equal(ruleset_change(s, &c, &diag), 0);
		if (!keep)
			ruleset_revert(s, &c);
		changes_clear(&c);
		for (uint32_t id = 1; id < IDS; id++) {
			struct ruleset_entry *e = ruleset_find_id(s, id);
			char name[16];

			assert_int_equal(e != NULL, texts[id][0] != '\0');
			n += e != NULL;
			snprintf(name, sizeof(name), "n%u", id);
			assert_ptr_equal(ruleset_find(s, name), e);
			if (e)
				assert_ptr_equal(ruleset_find(s, texts[id]), e);
		}
		assert_int_equal(s->n_entries, n);
	}
	ruleset_free(s);
}

/* Some of a list are refused: each is named, and nothing has changed. */
static void test_refused_list(void **state)
{
	static const char *const texts[] = {"tcp 1 to 5", "tcp 9 to 5", "udp 7 to 8 name web",
					    "tcp 9 to 6"};
	struct changes c = {0};
	struct diag diag = {0};
	struct ruleset *s;

	assert_int_equal(ruleset_new(&s), 0);
	add(s, 1, "tcp 1 to 2");
	add(s, 2, "tcp 3 to 4 name web");
	for (uint32_t i = 0; i < 4; i++) {
		struct rule *rule = rule_of(texts[i]);
		struct ruleset_entry *e;

		assert_int_equal(ruleset_entry_new(10 + i, rule, RULE_ORIGIN_RUNTIME, "there", &e),
				 0);
		assert_int_equal(changes_add(&c, i == 1 ? ruleset_find_id(s, 2) : NULL, e, NULL),
				 0);
		rule_free(rule);
	}
	assert_int_equal(ruleset_change(s, &c, &diag), -EEXIST);
	assert_int_equal(diag.n_items, 2); /* web has left for 11, which is in the way of 13 */
	assert_non_null(strstr(diag.items[0].message, "rule 1 (here)"));
	assert_non_null(strstr(diag.items[1].message, "rule 11 (there)"));
	diag_clear(&diag);
	changes_clear(&c);
	assert_int_equal(s->n_entries, 2);
	assert_int_equal(ruleset_find(s, "web")->id, 2);
	refuse(s, "tcp 3 to 9", -EEXIST, "rule 2 ");
	add(s, 0, "tcp 9 to 5");
	ruleset_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),	     cmocka_unit_test(test_find),
		cmocka_unit_test(test_conflicts),    cmocka_unit_test(test_changes),
		cmocka_unit_test(test_refused_list),
	};

	return cmocka_run_group_tests_name("ruleset", tests, NULL, NULL);
}
