// SPDX-License-Identifier: GPL-2.0-or-later
/* What is to change: by a rule, by a file, by a configuration that was read again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "daemon/plan.h"
#include "tests/unit/rules.h"

static uint32_t last_id;

static uint32_t next_id(void *userdata)
{
	return ++last_id;
}

static struct config *config_of(const char *text)
{
	struct config *c;
	struct diag diag = {0};

	assert_int_equal(config_new(&c), 0);
	assert_int_equal(config_read_text(c, "x.conf", text, &diag), 0);
	return c;
}

/* ---- the state of a daemon, moved on by what users do ---- */

static struct plan_from from_of(struct ruleset *s)
{
	return (struct plan_from){s, next_id, NULL};
}

static void make(struct ruleset *s, struct changes *c)
{
	struct diag diag = {0};

	assert_int_equal(ruleset_change(s, c, &diag), 0);
	changes_clear(c);
}

static struct ruleset *start(const char *text)
{
	struct config *config = config_of(text);
	struct changes c = {0};
	struct diag diag = {0};
	struct plan_from from;
	struct ruleset *s;

	last_id = 0;
	assert_int_equal(ruleset_new(&s), 0);
	from = from_of(s);
	assert_int_equal(plan_configuration(&from, config, true, &c, &diag), 0);
	make(s, &c);
	config_free(config);
	return s;
}

static void runtime_add(struct ruleset *s, const char *text)
{
	const struct plan_from from = from_of(s);
	struct rule *rule = rule_of(text);
	struct changes c = {0};
	struct diag diag = {0};

	assert_int_equal(plan_add(&from, rule, &c, &diag), 0);
	make(s, &c);
	rule_free(rule);
}

static void runtime_remove(struct ruleset *s, const char *selector)
{
	struct changes c = {0};

	assert_int_equal(plan_remove(ruleset_find(s, selector), &c), 0);
	make(s, &c);
}

static void runtime_set(struct ruleset *s, const char *selector, const char *text)
{
	struct rule *rule = rule_of(text);
	struct changes c = {0};

	assert_int_equal(plan_set(ruleset_find(s, selector), rule, &c), 0);
	make(s, &c);
	rule_free(rule);
}

/* Reads a configuration again; returns how many of its changes had a note, or the error. */
static int read_again(struct ruleset *s, const char *text, bool starting, struct diag *diag)
{
	struct config *config = config_of(text);
	const struct plan_from from = from_of(s);
	struct changes c = {0};
	int notes = 0, r = plan_configuration(&from, config, starting, &c, diag);

	for (size_t i = 0; i < c.n; i++)
		notes += c.items[i].note != NULL;
	if (r == 0)
		r = ruleset_change(s, &c, diag);
	changes_clear(&c);
	config_free(config);
	return r < 0 ? r : notes;
}

/* "3 config tcp 1 to 2; 4 runtime tcp 3 to 4 [file: …]; (5 tcp 5 to 6)": the last is removed. */
static void assert_state(const struct ruleset *s, const char *expected)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	for (size_t i = 0; i < s->n_entries; i++) {
		const struct ruleset_entry *e = s->entries[i];
		char *rule, *file = NULL;

		rule_format(e->rule, &rule);
		fprintf(out, "%s%u %s %s", i ? "; " : "", e->id, rule_origin_name(e->origin), rule);
		if (e->configured) {
			rule_format(e->configured, &file);
			fprintf(out, " [file: %s]", file);
		}
		free(rule);
		free(file);
	}
	for (size_t i = 0; i < s->n_removed; i++) {
		char *rule;

		rule_format(s->removed[i]->rule, &rule);
		fprintf(out, "; (%u %s)", s->removed[i]->id, rule);
		free(rule);
	}
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

/* ---- a configuration read again: the table of redirectd.conf(5) ---- */

static void test_merge(void **state)
{
	static const struct {
		const char *what;
		const char *before, *runtime_selector, *runtime_rule; /* rule NULL: removed */
		const char *after, *expected;
		int notes;
	} cases[] = {
		{"nothing changed", "redirect tcp 1 to 2\n", NULL, NULL, "redirect tcp 1 to 2\n",
		 "1 config tcp 1 to 2", 0},
		{"changed in the file", "redirect tcp 1 to 2 name a\n", NULL, NULL,
		 "redirect tcp 3 to 4 name a\n", "1 config tcp 3 to 4 name a", 0},
		{"changed in the file, no name", "redirect tcp 1 to 2\n", NULL, NULL,
		 "redirect tcp 1 to 3\n", "1 config tcp 1 to 3", 0},
		{"gone from the file", "redirect tcp 1 to 2\n", NULL, NULL, "", "", 0},
		{"new in the file", "", NULL, NULL, "redirect tcp 1 to 2\n", "1 config tcp 1 to 2",
		 0},
		{"changed at runtime", "redirect tcp 1 to 2\n", "1", "tcp 1 to 2 disabled",
		 "redirect tcp 1 -> 2\n", "1 config tcp 1 to 2 disabled [file: tcp 1 to 2]", 0},
		{"removed at runtime", "redirect tcp 1 to 2\n", "1", NULL,
		 "\nredirect tcp 1 to 2\n", "; (1 tcp 1 to 2)", 0},
		{"both alike", "redirect tcp 1 to 2\n", "1", "tcp 1 to 3", "redirect tcp 1 to 3\n",
		 "1 config tcp 1 to 3", 0},
		{"both alike: gone", "redirect tcp 1 to 2\n", "1", NULL, "", "", 0},
		{"both, differently", "redirect tcp 1 to 2\n", "1", "tcp 1 to 3",
		 "redirect tcp 1 to 4\n", "1 config tcp 1 to 4", 1},
		{"changed at runtime, gone from the file", "redirect tcp 1 to 2\n", "1",
		 "tcp 1 to 3", "", "", 1},
		{"removed at runtime, changed in the file", "redirect tcp 1 to 2 name a\n", "1",
		 NULL, "redirect tcp 1 to 3 name a\n", "1 config tcp 1 to 3 name a", 1},
		{"taken back at runtime", "redirect tcp 1 to 2\n", "1", "tcp 1 to 2",
		 "redirect tcp 1 to 2\n", "1 config tcp 1 to 2", 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ruleset *s = start(cases[i].before);
		struct diag diag = {0};

		print_message("%s\n", cases[i].what);
		if (cases[i].runtime_selector && cases[i].runtime_rule)
			runtime_set(s, cases[i].runtime_selector, cases[i].runtime_rule);
		else if (cases[i].runtime_selector)
			runtime_remove(s, cases[i].runtime_selector);
		assert_int_equal(read_again(s, cases[i].after, false, &diag), cases[i].notes);
		assert_int_equal(diag.n_items, 0);
		assert_state(s, cases[i].expected);
		ruleset_free(s);
	}
}

static void test_ids_stay(void **state)
{
	struct ruleset *s = start("redirect tcp 1 to 2\nredirect tcp 3 to 4 name b\n"
				  "redirect tcp 5 to 6\n");
	struct diag diag = {0};

	read_again(s, "redirect tcp 9 to 10\nredirect tcp 3 to 40 name b\nredirect tcp 1 -> 2\n",
		   false, &diag);
	assert_state(s, "1 config tcp 1 to 2; 2 config tcp 3 to 40 name b; 4 config tcp 9 to 10");
	assert_string_equal(ruleset_find(s, "tcp 1 to 2")->source, "x.conf:3");
	ruleset_free(s);

	/* One name, one text, two rules that could be the old one: the name is asked last. */
	s = start("redirect tcp 1 to 2 name a\n");
	read_again(s, "redirect tcp 7 to 8 name a\nredirect tcp 1 to 2\n", false, &diag);
	assert_state(s, "1 config tcp 7 to 8 name a; 2 config tcp 1 to 2");
	ruleset_free(s);
}

static void test_runtime_rules_stay(void **state)
{
	struct ruleset *s = start("");
	struct diag diag = {0};

	runtime_add(s, "tcp 1 to 2");
	runtime_add(s, "tcp 3 to 4");
	read_again(s, "redirect tcp 3 to 4\n", false, &diag);
	/* Written into the file meanwhile, it is the file's from now on. */
	assert_state(s, "1 runtime tcp 1 to 2; 2 config tcp 3 to 4");
	read_again(s, "", false, &diag);
	assert_state(s, "1 runtime tcp 1 to 2");
	ruleset_free(s);
}

static void test_conflict_with_runtime(void **state)
{
	struct ruleset *s = start("redirect tcp 5 to 6\nredirect tcp 7 to 8\n");
	struct diag diag = {0};

	runtime_add(s, "tcp 1 to 2 name x");
	runtime_set(s, "tcp 5 to 6", "tcp 9 to 10");
	/* Refused with both, and nothing has changed. */
	assert_int_equal(
		read_again(s,
			   "redirect tcp 5 to 6\nredirect tcp 1 to 3\nredirect tcp 9 to 3\n"
			   "redirect udp 1 to 2 name x\n",
			   false, &diag),
		-EEXIST);
	assert_int_equal(diag.n_items, 3);
	assert_string_equal(diag.items[0].file, "x.conf");
	assert_int_equal(diag.items[0].line, 2);
	assert_non_null(strstr(diag.items[0].message, "rule 3 (runtime): tcp 1 to 2 name x"));
	assert_int_equal(diag.items[1].line, 3);
	diag_clear(&diag);
	assert_state(s, "1 config tcp 9 to 10 [file: tcp 5 to 6]; 2 config tcp 7 to 8; "
			"3 runtime tcp 1 to 2 name x");
	/* At start nobody could be asked: the file wins, and it is said. */
	assert_int_equal(
		read_again(s, "redirect tcp 5 to 6\nredirect tcp 1 to 3\nredirect tcp 9 to 3\n",
			   true, &diag),
		0);
	assert_int_equal(diag.n_items, 2);
	diag_clear(&diag);
	assert_state(s, "1 config tcp 5 to 6; 7 config tcp 1 to 3; 8 config tcp 9 to 3");
	ruleset_free(s);
}

/* A rule of the configuration that is out leaves room, and comes back when it is typed again. */
static void test_removed(void **state)
{
	struct ruleset *s = start("redirect tcp 1 to 2 name a\n");
	struct diag diag = {0};

	runtime_remove(s, "a");
	runtime_add(s, "tcp 1 to 3 name a");
	assert_state(s, "2 runtime tcp 1 to 3 name a; (1 tcp 1 to 2 name a)");
	assert_int_equal(read_again(s, "redirect tcp 1 to 2 name a\n", false, &diag), 0);
	assert_state(s, "2 runtime tcp 1 to 3 name a; (1 tcp 1 to 2 name a)");
	runtime_remove(s, "a");
	runtime_add(s, "tcp 1 -> 2 name a");
	assert_state(s, "1 config tcp 1 to 2 name a");
	ruleset_free(s);
}

/* ---- rules of a file ---- */

/* "+ RULE; - RULE; ~ RULE" of what plan_apply() makes, which is then made. */
static void assert_apply(struct ruleset *s, const char *text, bool replace, const char *expected)
{
	struct config *config = config_of(text);
	const struct plan_from from = from_of(s);
	char *shown = NULL, *rule;
	struct changes c = {0};
	struct diag diag = {0};
	size_t length;
	FILE *out = open_memstream(&shown, &length);

	assert_int_equal(plan_apply(&from, config, replace, &c, &diag), 0);
	for (size_t i = 0; i < c.n; i++) {
		enum change_kind kind = change_kind(&c.items[i]);
		const struct ruleset_entry *e =
			kind == CHANGE_REMOVE ? c.items[i].before : c.items[i].after;

		rule_format(e->rule, &rule);
		fprintf(out, "%s%c %s", i ? "; " : "", " +-~"[kind], rule);
		free(rule);
	}
	fclose(out);
	assert_string_equal(shown, expected);
	free(shown);
	make(s, &c);
	config_free(config);
}

static void test_apply(void **state)
{
	struct ruleset *s = start("redirect tcp 1 to 2 name a\nredirect tcp 3 to 4\n");

	assert_apply(s, "redirect tcp 3 to 4\nredirect tcp 5 to 6\n", false, "+ tcp 5 to 6");
	assert_apply(s, "redirect tcp 3 to 4\nredirect tcp 5 to 6\n", false, "");
	assert_string_equal(ruleset_find(s, "tcp 5 to 6")->source, "x.conf:2");
	/* By name, and by what it takes. */
	assert_apply(
		s, "redirect udp 1 to 2 name a\nredirect tcp 5 to 7\nredirect tcp 3 to 4 name c\n",
		false, "~ udp 1 to 2 name a; ~ tcp 5 to 7; ~ tcp 3 to 4 name c");
	assert_state(s, "1 config udp 1 to 2 name a [file: tcp 1 to 2 name a]; "
			"2 config tcp 3 to 4 name c [file: tcp 3 to 4]; 3 runtime tcp 5 to 7");
	assert_apply(s, "redirect tcp 5 to 7\n", true, "- udp 1 to 2 name a; - tcp 3 to 4 name c");
	assert_state(s, "3 runtime tcp 5 to 7; (1 tcp 1 to 2 name a); (2 tcp 3 to 4)");
	/* The configuration itself: as if nothing had been. */
	assert_apply(s, "redirect tcp 1 to 2 name a\nredirect tcp 3 to 4\n", true,
		     "- tcp 5 to 7; + tcp 1 to 2 name a; + tcp 3 to 4");
	assert_state(s, "1 config tcp 1 to 2 name a; 2 config tcp 3 to 4");
	/* Two rules change places. */
	assert_apply(s, "redirect tcp 3 to 4 name a\nredirect tcp 1 to 2\n", true,
		     "- tcp 3 to 4; ~ tcp 3 to 4 name a; + tcp 1 to 2");
	ruleset_free(s);
}

static void test_apply_conflicts(void **state)
{
	struct ruleset *s = start("redirect tcp 1 to 2 on lo,eth0\nredirect tcp 3-4 to 5\n");
	struct config *config = config_of("redirect tcp 1 to 3 on lo\nredirect udp 9 to 10\n"
					  "redirect tcp 4-5 to 6\n");
	const struct plan_from from = from_of(s);
	struct changes c = {0};
	struct diag diag = {0};

	assert_int_equal(plan_apply(&from, config, false, &c, &diag), 0);
	assert_int_equal(ruleset_change(s, &c, &diag), -EEXIST);
	assert_int_equal(diag.n_items, 2);
	assert_int_equal(diag.items[0].line, 1);
	assert_int_equal(diag.items[0].column, 14);
	assert_int_equal(diag.items[1].line, 3);
	assert_state(s, "1 config tcp 1 to 2 on lo,eth0; 2 config tcp 3-4 to 5");
	diag_clear(&diag);
	changes_clear(&c);
	config_free(config);
	ruleset_free(s);
}

static uint32_t no_id(void *userdata)
{
	return RULE_ID_NONE;
}

static void test_no_id_left(void **state)
{
	struct ruleset *s = start("redirect tcp 1 to 2\n");
	struct rule *rule = rule_of("tcp 3 to 4");
	const struct plan_from from = {s, no_id, NULL};
	struct changes c = {0};
	struct diag diag = {0};

	assert_int_equal(plan_add(&from, rule, &c, &diag), -ENOSPC);
	assert_int_equal(diag.n_items, 1);
	assert_int_equal(c.n, 0);
	diag_clear(&diag);
	rule_free(rule);
	ruleset_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_ids_stay),
		cmocka_unit_test(test_runtime_rules_stay),
		cmocka_unit_test(test_conflict_with_runtime),
		cmocka_unit_test(test_removed),
		cmocka_unit_test(test_apply),
		cmocka_unit_test(test_apply_conflicts),
		cmocka_unit_test(test_no_id_left),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
