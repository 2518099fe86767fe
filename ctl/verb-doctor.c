/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `doctor`: what is wrong, and what mends it; by the daemon's checks and the client's own. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/call.h"
#include "ctl/doctor.h"
#include "ctl/options.h"
#include "ctl/output-json.h"
#include "ctl/output-text.h"
#include "ctl/verbs.h"
#include "shared/config.h"
#include "shared/varlink-findings.h"

#define CONFIG_DEFAULT "/etc/redirectd/redirectd.conf"

static void add_rule(struct doctor *d, uint32_t id, struct rule *rule)
{
	struct doctor_rule *more = reallocarray(d->rules, d->n_rules + 1, sizeof(*more));

	if (!more || !rule)
		abort();
	d->rules = more;
	d->rules[d->n_rules++] = (struct doctor_rule){id, rule};
}

/* The rules in force, from the daemon's answer. */
static void take_rules(struct doctor *d, const json_t *list)
{
	const json_t *rules = json_object_get(list, "rules");

	for (size_t i = 0; i < json_array_size(rules); i++) {
		const json_t *one = json_array_get(rules, i);
		const char *text = json_string_value(json_object_get(one, "rule"));
		struct diag diag = {0};
		struct rule *rule;

		if (text && rule_parse(text, NULL, &diag, &rule) == 0)
			add_rule(d, (uint32_t)json_integer_value(json_object_get(one, "id")), rule);
		diag_clear(&diag);
	}
}

static bool refuse_config(const struct diag *diag, struct findings *f)
{
	findings_add(f, "configuration", FINDING_ERROR, "%s has errors%s%s", CONFIG_DEFAULT,
		     diag->n_items ? ", the first: " : "",
		     diag->n_items ? diag->items[0].message : "");
	findings_command(f, "redirectctl check %s", CONFIG_DEFAULT);
	return false;
}

/* Without a daemon: those that it would read. Returns whether they are known. */
static bool read_rules(struct doctor *d, struct findings *f)
{
	_cleanup_(config_freep) struct config *c = NULL;
	_cleanup_(diag_clear) struct diag diag = {0};
	struct rule *rule;

	if (access(CONFIG_DEFAULT, F_OK) < 0) {
		findings_add(f, "configuration", FINDING_WARNING,
			     "there is no %s: no rule is known", CONFIG_DEFAULT);
		findings_hint(f, "write one, as in redirectd.conf(5)");
		return false;
	}
	if (config_new(&c) < 0)
		abort();
	if (config_read_file(c, CONFIG_DEFAULT, &diag) < 0 || diag.n_items > 0)
		return refuse_config(&diag, f);
	for (size_t i = 0; i < c->n_rules; i++)
		if (rule_copy(c->rules[i].rule, &rule) == 0)
			add_rule(d, 0, rule);
	findings_add(f, "configuration", FINDING_INFO, "by the file %s: %zu rule%s", CONFIG_DEFAULT,
		     c->n_rules, c->n_rules == 1 ? "" : "s");
	return true;
}

/* ---- output ---- */

static json_t *to_json(const struct doctor *d, const struct findings *f)
{
	return json_pack("{s:i, s:b, s:s, s:o}", "schema", 1, "daemon", d->status != NULL, "worst",
			 finding_severity_name(findings_worst(f)), "findings",
			 varlink_findings_pack(f));
}

static void print_words(const char *label, const char *text)
{
	if (!text)
		return;
	printf("%24s", "");
	fputs(label, stdout);
	text_write_safe(text, strlen(text), stdout);
	putchar('\n');
}

static void print_finding(const struct finding *i)
{
	static const enum text_style styles[] = {
		[FINDING_OK] = TEXT_GREEN,
		[FINDING_INFO] = TEXT_PLAIN,
		[FINDING_WARNING] = TEXT_YELLOW,
		[FINDING_ERROR] = TEXT_RED,
	};

	printf("%s%-8s%s %-14s ", text_style_begin(stdout, styles[i->severity]),
	       finding_severity_name(i->severity), text_style_end(stdout, styles[i->severity]),
	       i->check);
	text_write_safe(i->message, strlen(i->message), stdout);
	putchar('\n');
	print_words("run: ", i->command);
	print_words("", i->hint);
}

static void print(const struct options *o, const struct doctor *d, const struct findings *f)
{
	if (options_has(o, OPTION_JSON)) {
		json_t *document = to_json(d, f);

		output_json(document, stdout);
		json_decref(document);
		return;
	}
	for (size_t i = 0; i < f->n; i++)
		if (f->items[i].severity != FINDING_OK || !options_has(o, OPTION_QUIET))
			print_finding(&f->items[i]);
}

/* ---- */

/* What the daemon says; a failure is a finding. */
struct answers {
	json_t *status, *list, *doctor;
};

static void ask(const char *socket, struct answers *a, struct failure *f)
{
	static const struct {
		const char *method;
		size_t offset;
	} questions[] = {
		{"io.redirectd.Status", offsetof(struct answers, status)},
		{"io.redirectd.List", offsetof(struct answers, list)},
		{"io.redirectd.Doctor", offsetof(struct answers, doctor)},
	};
	_cleanup_(client_freep) struct client *c = NULL;
	enum exit_code code = client_open(socket, &c, f);

	for (size_t i = 0; code == CTL_DONE && i < sizeof(questions) / sizeof(questions[0]); i++)
		code = client_ask(c, questions[i].method,
				  (json_t **)(void *)((char *)a + questions[i].offset), f);
}

static void examine(struct doctor *d, const struct answers *a, struct findings *f)
{
	bool known = true;

	findings_run(f, doctor_host_checks, d);
	if (a->status) {
		findings_run(f, doctor_status_checks, d);
		take_rules(d, a->list);
	} else {
		known = read_rules(d, f);
	}
	varlink_findings_unpack(json_object_get(a->doctor, "findings"), f);
	if (known)
		findings_run(f, doctor_rule_checks, d);
}

enum exit_code verb_doctor(const struct options *o, struct failure *f)
{
	struct doctor d = {.socket = options_socket(o), .connects = options_has(o, OPTION_CONNECT)};
	_cleanup_(findings_clear) struct findings findings = {0};
	struct answers answers = {0};

	ask(d.socket, &answers, f);
	d.status = answers.status;
	d.problem = f->message;
	examine(&d, &answers, &findings);
	if (findings.incomplete)
		abort();
	print(o, &d, &findings);
	for (size_t i = 0; i < d.n_rules; i++)
		rule_free(d.rules[i].rule);
	free(d.rules);
	json_decref(answers.status);
	json_decref(answers.list);
	json_decref(answers.doctor);
	failure_clear(f);
	f->reported = true; /* the findings have said it */
	f->code = findings_worst(&findings) >= FINDING_WARNING ? CTL_FAILED : CTL_DONE;
	return f->code;
}
