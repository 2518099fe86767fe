/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration as a value, its statements, and the checks across its rules. How files and
 * lines are read is in config-read.c.
 */
#include "shared/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/config-read.h"
#include "shared/iface.h"
#include "shared/rule-index.h"
#include "shared/timeout.h"
#include "shared/words.h"

/* Indices into setting_sources. */
#define SETTING_FLOWS_MAX  0
#define SETTING_TIMEOUT(i) (1 + (i))

_Static_assert(SETTING_TIMEOUT(TIMEOUT_NAMES) == CONFIG_SETTINGS, "a place for each setting");

int config_new(struct config **ret)
{
	struct config *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->flows_max = FLOWS_MAX_DEFAULT;
	for (size_t i = 0; i < TIMEOUT_NAMES; i++)
		if (timeout_names[i].seconds > 0)
			timeout_set(&timeout_names[i], timeout_names[i].seconds, c->timeouts,
				    &c->single_timeouts);
	*ret = c;
	return 0;
}

static void config_rule_clear(struct config_rule *r)
{
	rule_free(r->rule);
	free(r->source);
	free(r->file);
	free(r->text);
}

struct config *config_free(struct config *c)
{
	if (!c)
		return NULL;
	for (size_t i = 0; i < c->n_rules; i++)
		config_rule_clear(&c->rules[i]);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		free(c->setting_sources[i]);
	for (size_t i = 0; i < c->n_texts; i++) {
		free(c->texts[i].name);
		free(c->texts[i].text);
	}
	free(c->texts);
	free(c->rules);
	free(c->interfaces);
	free(c->interface_source);
	free(c);
	return NULL;
}

/* ---- rules ---- */

/* A growing array whose size is not kept: it grows at every power of two. */
static int config_grow(void **array, size_t n, size_t size)
{
	void *grown;

	if ((n & (n - 1)) != 0)
		return 0;
	grown = reallocarray(*array, n ? n * 2 : 1, size);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	return 0;
}

/* Takes the rule over. */
static int config_append_rule(struct config *c, struct rule **rule, const char *source,
			      const struct diag_place *place)
{
	struct config_rule r = {.line = place->line, .column = place->column};

	if (config_grow((void **)&c->rules, c->n_rules, sizeof(*c->rules)) < 0)
		return -ENOMEM;
	r.source = strdup(source);
	r.text = place->text ? strdup(place->text) : NULL;
	r.file = place->file ? strdup(place->file) : NULL;
	if (!r.source || (place->text && !r.text) || (place->file && !r.file)) {
		config_rule_clear(&r);
		return -ENOMEM;
	}
	r.rule = take_ptr(*rule);
	c->rules[c->n_rules++] = r;
	return 0;
}

static int config_read_rule(struct config *c, const char *text, const char *source,
			    const struct diag_place *place, struct diag *diag)
{
	_cleanup_(rule_freep) struct rule *rule = NULL;
	int r;

	r = rule_parse(text, place, diag, &rule);
	if (r < 0)
		return r;
	return config_append_rule(c, &rule, source, place);
}

int config_add_rule(struct config *c, const char *text, const char *source, struct diag *diag)
{
	struct diag_place place = {.column = 1, .text = text};

	return config_read_rule(c, text, source, &place, diag);
}

int config_keep_text(struct config *c, const char *name, const char *text, size_t length)
{
	struct config_text *kept;

	if (config_grow((void **)&c->texts, c->n_texts, sizeof(*c->texts)) < 0)
		return -ENOMEM;
	kept = &c->texts[c->n_texts++];
	*kept = (struct config_text){strdup(name), malloc(length + 1), length};
	if (!kept->name || !kept->text)
		return -ENOMEM;
	memcpy(kept->text, text, length);
	kept->text[length] = '\0';
	return 0;
}

/* ---- statements ---- */

/* Whether a setting is made for the first time; reports if not. 1: yes, 0: no, or -ENOMEM. */
static int config_claim_setting(struct config_line *l, size_t setting, const struct scan_word *at)
{
	char **source = &l->config->setting_sources[setting];

	if (*source) {
		scan_error(&l->scan, at, NULL, "\"%.*s\" is set twice, first at %s", SCAN_SHOW(at),
			   *source);
		return 0;
	}
	*source = strdup(l->source);
	return *source ? 1 : -ENOMEM;
}

static bool config_knows_interface(const struct config *c, const struct scan_word *word)
{
	for (size_t i = 0; i < c->n_interfaces; i++)
		if (scan_word_is(word, c->interfaces[i]))
			return true;
	return false;
}

static int config_read_interface(struct config_line *l)
{
	struct config *c = l->config;
	struct scan_word word;
	const char *problem;

	if (!c->interface_source && !(c->interface_source = strdup(l->source)))
		return -ENOMEM;
	if (!scan_peek(&l->scan, &word))
		scan_error(&l->scan, &word, "write interface eth0", "the interface is missing");
	while (!scan_gave_up(&l->scan) && scan_next(&l->scan, &word)) {
		problem = iface_name_problem(word.start, word.length);
		if (!problem && config_knows_interface(c, &word))
			problem = "is given twice";
		if (problem) {
			scan_error(&l->scan, &word,
				   memchr(word.start, ',', word.length)
					   ? "separate interfaces by blanks"
					   : NULL,
				   "interface \"%.*s\" %s", SCAN_SHOW(&word), problem);
			continue;
		}
		if (config_grow((void **)&c->interfaces, c->n_interfaces, sizeof(*c->interfaces)) <
		    0)
			return -ENOMEM;
		scan_word_copy(&word, c->interfaces[c->n_interfaces++], IF_NAMESIZE);
	}
	return 0;
}

static int config_read_flows_max(struct config_line *l)
{
	struct scan_word word, keyword = l->keyword;
	uint64_t value;
	char hint[SCAN_HINT_MAX];
	int r;

	r = config_claim_setting(l, SETTING_FLOWS_MAX, &keyword);
	if (r < 0)
		return r;
	scan_hint(hint, "write a number from %d to %d", FLOWS_MAX_LEAST, FLOWS_MAX_MOST);
	if (!scan_next(&l->scan, &word)) {
		scan_error(&l->scan, &word, hint, "the number of flows is missing");
		return 0;
	}
	if (scan_word_number(&word, FLOWS_MAX_LEAST, FLOWS_MAX_MOST, &value) < 0)
		scan_error(&l->scan, &word, hint, "\"%.*s\" is no value for \"flows-max\"",
			   SCAN_SHOW(&word));
	else
		l->config->flows_max = (uint32_t)value;
	return 0;
}

static int config_read_timeout(struct config_line *l)
{
	const struct timeout_name *t;
	struct config *c = l->config;
	struct scan_word name, duration;
	uint32_t seconds;
	int r;

	if (!scan_next(&l->scan, &name)) {
		scan_error(&l->scan, &name, "write timeout udp 30s", "the timeout is missing");
		return 0;
	}
	t = timeout_find(&l->scan, &name);
	if (t) {
		r = config_claim_setting(l, SETTING_TIMEOUT((size_t)(t - timeout_names)), &name);
		if (r < 0)
			return r;
	}
	scan_next(&l->scan, &duration);
	if (timeout_read_seconds(&l->scan, &duration, &seconds) && t)
		timeout_set(t, seconds, c->timeouts, &c->single_timeouts);
	return 0;
}

static int config_read_redirect(struct config_line *l)
{
	struct diag_place place = l->place;
	struct scan_word rule;
	int r;

	scan_peek(&l->scan, &rule);
	place.column += (unsigned)(rule.start - l->scan.text);
	l->scan.offset = strlen(l->scan.text);
	r = config_read_rule(l->config, rule.start, l->source, &place, l->scan.diag);
	return r == -ENOMEM ? r : 0;
}

static int config_read_include(struct config_line *l)
{
	struct scan_word pattern, more;

	if (l->config->refuses_include) {
		scan_error(&l->scan, &l->keyword, "give the text of the other file as well",
			   "the daemon reads no files for others");
		return 0;
	}
	if (!scan_next(&l->scan, &pattern)) {
		scan_error(&l->scan, &pattern, "write include rules.d/*.conf",
			   "the file is missing");
		return 0;
	}
	/* Left for the caller to report: part of a name would be looked for otherwise. */
	if (scan_peek(&l->scan, &more))
		return 0;
	return config_include(l, &pattern);
}

static const struct config_statement {
	const char *keyword;
	int (*read)(struct config_line *l);
} config_statements[] = {
	{"interface", config_read_interface}, {"include", config_read_include},
	{"flows-max", config_read_flows_max}, {"timeout", config_read_timeout},
	{"redirect", config_read_redirect},
};

#define N_STATEMENTS (sizeof(config_statements) / sizeof(config_statements[0]))

static void config_report_statement(struct config_line *l)
{
	const struct scan_word *word = &l->keyword;
	const char *keywords[N_STATEMENTS], *closest;
	char hint[SCAN_HINT_MAX];

	for (size_t i = 0; i < N_STATEMENTS; i++)
		keywords[i] = config_statements[i].keyword;
	closest = words_closest(word->start, word->length, keywords, N_STATEMENTS);
	if (scan_word_is(word, "tcp") || scan_word_is(word, "udp") || scan_word_is(word, "tcp+udp"))
		scan_hint(hint, "write redirect %.*s", SCAN_SHOW(word));
	else if (closest)
		scan_hint(hint, "did you mean \"%s\"?", closest);
	else
		scan_hint(hint, "write interface, include, flows-max, timeout or redirect");
	scan_error(&l->scan, word, hint, "unknown statement \"%.*s\"", SCAN_SHOW(word));
}

int config_read_statement(struct config_line *l)
{
	struct scan_word word;
	int r = 0;

	if (!scan_next(&l->scan, &l->keyword))
		return 0;
	if (l->config->only_includes && !scan_word_is(&l->keyword, "include"))
		return 0;
	for (size_t i = 0; i < N_STATEMENTS; i++) {
		if (!scan_word_is(&l->keyword, config_statements[i].keyword))
			continue;
		r = config_statements[i].read(l);
		if (r == 0 && l->scan.n_errors == 0 && scan_next(&l->scan, &word))
			scan_error(&l->scan, &word, NULL, "unexpected \"%.*s\"", SCAN_SHOW(&word));
		return r;
	}
	config_report_statement(l);
	return 0;
}

/* ---- checks across rules ---- */

struct diag_place config_rule_place(const struct config_rule *r, enum rule_part part)
{
	const struct rule_span *span = &r->rule->spans[part];
	struct diag_place place = {
		.file = r->file, .line = r->line, .column = r->column, .text = r->text};

	if (place.column && span->length) {
		place.column += span->offset;
		place.width = span->length;
	}
	return place;
}

static void config_report_name(struct diag *diag, const struct config_rule *first,
			       const struct config_rule *second)
{
	struct diag_place place = config_rule_place(second, RULE_PART_NAME);

	diag_add(diag, DIAG_CONFLICT, &place, "names are unique",
		 "the name \"%s\" is taken by the rule at %s", second->rule->name, first->source);
}

static int config_report_conflict(struct diag *diag, const struct config_rule *first,
				  const struct config_rule *second)
{
	struct diag_place place = config_rule_place(second, RULE_PART_LISTEN);
	_cleanup_(freep) char *text = NULL;
	int r;

	if (rule_equal(first->rule, second->rule)) {
		diag_add(diag, DIAG_CONFLICT, &place, "remove one of them",
			 "the same rule stands at %s", first->source);
		return 0;
	}
	r = rule_format(first->rule, &text);
	if (r < 0)
		return r;
	diag_add(diag, DIAG_CONFLICT, &place,
		 "narrow one down by an address, an interface, \"from\" or a smaller range",
		 "conflict with \"%s\" at %s: no criterion says which goes first", text,
		 first->source);
	return 0;
}

static int config_check_rule(const struct config *c, const struct rule_index *index,
			     const struct config_rule *rule, struct diag *diag)
{
	size_t first;
	bool same = false;

	if (rule_index_find_conflict(index, rule->rule, &first)) {
		same = rule_equal(c->rules[first].rule, rule->rule);
		if (config_report_conflict(diag, &c->rules[first], rule) < 0)
			return -ENOMEM;
	}
	if (!same && rule->rule->name[0] && rule_index_find_name(index, rule->rule->name, &first))
		config_report_name(diag, &c->rules[first], rule);
	return 0;
}

int config_check(const struct config *c, struct diag *diag)
{
	_cleanup_(rule_index_freep) struct rule_index *index = NULL;
	size_t before = diag->n_items;
	int r;

	r = rule_index_new(&index);
	if (r < 0)
		return r;
	for (size_t i = 0; i < c->n_rules; i++) {
		r = config_check_rule(c, index, &c->rules[i], diag);
		if (r < 0)
			return r;
		r = rule_index_add(index, c->rules[i].rule, i);
		if (r < 0)
			return r;
	}
	return diag->n_items > before ? -EINVAL : 0;
}

/* ---- settings that are not to be changed ---- */

static void config_report_setting(struct diag *diag, const char *source, const char *what)
{
	const char *colon = strrchr(source, ':');
	_cleanup_(freep) char *file = colon ? strndup(source, (size_t)(colon - source)) : NULL;
	struct diag_place place = {.file = file,
				   .line = colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0};

	diag_add(diag, DIAG_INVALID, &place,
		 "change it in the daemon's configuration, and reload; or leave it out here",
		 "\"%s\" is otherwise in force, and only rules are applied", what);
}

static bool config_interfaces_differ(const struct config *a, const struct config *b)
{
	if (a->n_interfaces != b->n_interfaces)
		return true;
	for (size_t i = 0; i < a->n_interfaces; i++) {
		size_t at = 0;

		while (at < b->n_interfaces && strcmp(a->interfaces[i], b->interfaces[at]) != 0)
			at++;
		if (at == b->n_interfaces)
			return true;
	}
	return false;
}

static bool config_timeouts_differ(const struct config *a, const struct config *b, uint32_t states)
{
	for (unsigned state = 0; state < FLOW_STATE_COUNT; state++)
		if (states & 1U << state && a->timeouts[state] != b->timeouts[state])
			return true;
	return false;
}

int config_check_settings(const struct config *c, const struct config *now, struct diag *diag)
{
	size_t before = diag->n_items;

	if (c->interface_source && config_interfaces_differ(c, now))
		config_report_setting(diag, c->interface_source, "interface");
	if (c->setting_sources[SETTING_FLOWS_MAX] && c->flows_max != now->flows_max)
		config_report_setting(diag, c->setting_sources[SETTING_FLOWS_MAX], "flows-max");
	for (size_t i = 0; i < TIMEOUT_NAMES; i++) {
		const char *source = c->setting_sources[SETTING_TIMEOUT(i)];

		if (source && config_timeouts_differ(c, now, timeout_names[i].states))
			config_report_setting(diag, source, timeout_names[i].name);
	}
	return diag->n_items > before ? -EINVAL : 0;
}

struct config_places config_places(const struct config *c, const struct rule *r)
{
	if (r->n_interfaces)
		return (struct config_places){(const char(*)[IF_NAMESIZE])r->interfaces,
					      r->n_interfaces};
	return (struct config_places){(const char(*)[IF_NAMESIZE])c->interfaces, c->n_interfaces};
}

bool config_places_name(const struct config_places *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->names[i], name) == 0)
			return true;
	return false;
}
