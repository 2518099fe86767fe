/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/complete.h"

#include <jansson.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/call.h"
#include "ctl/filter.h"
#include "ctl/import.h"
#include "ctl/options.h"
#include "ctl/verbs.h"
#include "shared/timeout.h"

#define ANSWER_TIME 1000 /* milliseconds: nobody waits longer for a tab */
#define KINDS_MOST  32	 /* words in what a verb takes */

/* Where the cursor is, and what stands in front of it. */
struct line {
	struct options options; /* of the words before */
	struct failure failure;
	const char *current;
	const struct option_info *argument_of; /* an option that waits for its argument, or NULL */
	FILE *out;
};

static void offer(const struct line *l, const char *word, const char *help)
{
	if (strncmp(word, l->current, strlen(l->current)) == 0)
		fprintf(l->out, help && *help ? "%s\t%s\n" : "%s\n", word, help);
}

static void offer_list(const struct line *l, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		offer(l, words[i], NULL);
}

/* ---- verbs and options ---- */

/* First words of verbs; or, behind the first of a verb of two, second ones. */
static void offer_verbs(const struct line *l, const char *group)
{
	const char *last = "";
	size_t last_length = 0;

	for (const struct verb *v = verb_table; v->name; v++) {
		size_t length = strcspn(v->name, " ");
		char first[64];

		snprintf(first, sizeof(first), "%.*s", (int)length, v->name);
		if (group && strcmp(first, group) == 0)
			offer(l, v->name + length + 1, v->help);
		else if (!group && !(length == last_length && strncmp(last, first, length) == 0))
			offer(l, first, v->name[length] ? "flows" : v->help);
		last = v->name;
		last_length = length;
	}
}

static void offer_options(const struct line *l)
{
	unsigned groups = l->options.verb ? l->options.verb->options : 0;
	char name[64];

	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if (option_table[i].group != OPTIONS_GLOBAL && !(option_table[i].group & groups))
			continue;
		snprintf(name, sizeof(name), "--%s", option_table[i].name);
		offer(l, name, option_table[i].help);
	}
}

/* ---- what is there now ---- */

/* Asks the daemon that the line means; NULL: no answer. The caller drops it. */
static json_t *ask(const struct line *l, const char *method, const json_t *parameters)
{
	_cleanup_(client_freep) struct client *c = NULL;
	struct failure failure = {0};
	json_t *answer = NULL;

	if (client_open(options_socket(&l->options), &c, &failure) == CTL_DONE) {
		client_set_timeout(c, ANSWER_TIME);
		if (client_send(c, method, parameters, false, &failure) == CTL_DONE)
			client_receive(c, &answer, NULL, &failure);
	}
	failure_clear(&failure);
	return answer;
}

static void offer_rules(const struct line *l)
{
	json_t *answer = ask(l, "io.redirectd.List", NULL), *rule;
	size_t i;

	json_array_foreach (json_object_get(answer, "rules"), i, rule) {
		const char *text = json_string_value(json_object_get(rule, "rule"));
		const char *name = json_string_value(json_object_get(rule, "name"));
		char id[24];

		snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT,
			 json_integer_value(json_object_get(rule, "id")));
		if (name)
			offer(l, name, text);
		offer(l, id, text);
	}
	json_decref(answer);
}

static void offer_interfaces(const struct line *l)
{
	struct if_nameindex *list = if_nameindex();

	for (struct if_nameindex *i = list; i && i->if_index; i++)
		offer(l, i->if_name, NULL);
	if_freenameindex(list);
}

/* "method NAME(" in the interface's own definition. */
static void offer_methods(const struct line *l)
{
	static const char keyword[] = "\nmethod ";
	json_t *parameters = json_pack("{s:s}", "interface", "io.redirectd");
	json_t *answer = ask(l, "org.varlink.service.GetInterfaceDescription", parameters);
	const char *at;

	at = json_string_value(json_object_get(answer, "description"));
	while (at && (at = strstr(at, keyword))) {
		char name[64];

		at += strlen(keyword);
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(at, "("), at);
		offer(l, name, NULL);
	}
	json_decref(parameters);
	json_decref(answer);
}

/* ---- words of fixed sets ---- */

static const char *const protocols[] = {"tcp", "udp"};
static const char *const rule_protocols[] = {"tcp", "udp", "tcp+udp"};
static const char *const shells[] = {"bash", "zsh", "fish"};
static const char *const balances[] = {"hash", "random", "maglev"};
static const char *const changes[] = {"keep", "drain", "reset"};

static void offer_protocols(const struct line *l)
{
	offer_list(l, protocols, sizeof(protocols) / sizeof(protocols[0]));
}

static void offer_shells(const struct line *l)
{
	offer_list(l, shells, sizeof(shells) / sizeof(shells[0]));
}

static void offer_balances(const struct line *l)
{
	offer_list(l, balances, sizeof(balances) / sizeof(balances[0]));
}

static void offer_changes(const struct line *l)
{
	offer_list(l, changes, sizeof(changes) / sizeof(changes[0]));
}

static void offer_scopes(const struct line *l)
{
	offer(l, "source", NULL);
}

static void offer_timeouts(const struct line *l)
{
	for (size_t i = 0; i < TIMEOUT_NAMES; i++)
		offer(l, timeout_names[i].name, NULL);
}

static void offer_states(const struct line *l)
{
	offer_list(l, filter_states, FILTER_STATE_COUNT);
}

static void offer_files(const struct line *l)
{
	fputs(COMPLETE_FILES "\n", l->out);
}

static void offer_top_verbs(const struct line *l)
{
	offer_verbs(l, NULL);
}

static void offer_formats(const struct line *l)
{
	const struct verb *v = l->options.verb;

	if (v && v->options & OPTIONS_IMPORT)
		for (const struct import_format *f = import_formats; f->name; f++)
			offer(l, f->name, NULL);
	else if (v)
		for (unsigned i = 0; i < OUTPUT_FORMAT_COUNT; i++)
			if (verb_formats(v) & 1u << i)
				offer(l, options_format_name((enum output_format)i), NULL);
}

/* ---- the grammar of rules ---- */

/* Options of a rule, and what they take; NULL: something that only its writer knows. */
static const struct {
	const char *word, *help;
	void (*offer)(const struct line *l);
	bool alone; /* takes nothing */
} rule_options[] = {
	{"on", "only packets that come in there", offer_interfaces, false},
	{"from", "only clients of these prefixes", NULL, false},
	{"name", "a name for the rule", NULL, false},
	{"masquerade", "the source becomes this host's address", NULL, true},
	{"snat", "the source becomes this address", NULL, false},
	{"weight", "share of the target before it", NULL, false},
	{"balance", "how several targets are chosen from", offer_balances, false},
	{"max-flows", "flows at once", NULL, false},
	{"rate", "new flows in a time: 100/s, 10/m, 5/h", NULL, false},
	{"burst", "new flows at once, of the rate before it", NULL, false},
	{"per", "the limit before it is for each client", offer_scopes, false},
	{"timeout", "how long flows without packets are kept", offer_timeouts, false},
	{"on-change", "what becomes of flows when the rule changes", offer_changes, false},
	{"disabled", "keep the rule out of force", NULL, true},
};

static void offer_rule(const struct line *l, size_t first)
{
	const struct options *o = &l->options;
	size_t n = o->n_operands - first, i;

	if (n == 0) {
		offer_list(l, rule_protocols, sizeof(rule_protocols) / sizeof(rule_protocols[0]));
		return;
	}
	if (n == 2)
		offer(l, "to", NULL);
	if (n < 4)
		return;
	for (i = 0; i < sizeof(rule_options) / sizeof(rule_options[0]); i++) {
		if (strcmp(o->operands[o->n_operands - 1], rule_options[i].word) != 0)
			continue;
		if (rule_options[i].offer)
			rule_options[i].offer(l);
		if (!rule_options[i].alone)
			return;
	}
	for (i = 0; i < sizeof(rule_options) / sizeof(rule_options[0]); i++)
		offer(l, rule_options[i].word, rule_options[i].help);
}

/* ---- operands and arguments, by the word that help has for them ---- */

static const struct {
	const char *word;
	void (*offer)(const struct line *l);
} kinds[] = {
	{"ID", offer_rules},	   {"NAME", offer_rules},	{"FILE", offer_files},
	{"SOCKET", offer_files},   {"PROTO", offer_protocols},	{"STATE", offer_states},
	{"FORMAT", offer_formats}, {"IFACE", offer_interfaces}, {"METHOD", offer_methods},
	{"SHELL", offer_shells},   {"VERB", offer_top_verbs},
};

/* Is `word` one of the alternatives of `kind`: "[FILE|-]", "ID|NAME"? */
static bool kind_has(const char *kind, const char *word)
{
	size_t length = strlen(word);

	for (; *(kind += strspn(kind, "[|].=")); kind += strcspn(kind, "[|].="))
		if (strncmp(kind, word, length) == 0 && strchr("[|].=", kind[length]))
			return true;
	return false;
}

static void offer_kind(const struct line *l, const char *kind)
{
	void (*last)(const struct line *l) = NULL;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kind_has(kind, kinds[i].word) && kinds[i].offer != last) {
			kinds[i].offer(l);
			last = kinds[i].offer;
		}
}

/* The operand under the cursor, by its place in what help says that the verb takes. */
static void offer_operand(const struct line *l)
{
	const struct options *o = &l->options;
	char text[128], *words[KINDS_MOST], *rest = text;
	size_t n = 0, rule;

	snprintf(text, sizeof(text), "%s", o->verb->arguments);
	while (n < KINDS_MOST && (words[n] = strsep(&rest, " ")))
		n++;
	for (rule = 0; rule < n && !kind_has(words[rule], "RULE"); rule++)
		;
	if (o->n_operands < n)
		offer_kind(l, words[o->n_operands]);
	if (rule < n && o->n_operands >= rule)
		offer_rule(l, rule);
}

/* ---- the words in front of the cursor ---- */

/* Does the last of them wait for an argument? */
static const struct option_info *find_waiting(const struct options *o, const char *word)
{
	unsigned groups = o->verb ? o->verb->options : 0;
	const struct option_info *found = NULL;

	if (!word || word[0] != '-' || !word[1])
		return NULL;
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option_info *info = &option_table[i];
		bool own = info->group & groups;
		bool fits = word[1] == '-' ? strcmp(word + 2, info->name) == 0
					   : info->letter && word[strlen(word) - 1] == info->letter;

		if (fits && (own || (info->group == OPTIONS_GLOBAL && !found)))
			found = info;
	}
	return found && found->argument && found->argument[0] != '[' ? found : NULL;
}

static void offer_anything(struct line *l)
{
	const struct options *o = &l->options;

	if (l->argument_of)
		offer_kind(l, l->argument_of->argument);
	else if (l->current[0] == '-')
		offer_options(l);
	else if (o->verb)
		offer_operand(l);
	else
		offer_verbs(l, o->n_operands ? o->operands[0] : NULL);
}

void complete_words(const char *const *words, size_t n_words, FILE *out)
{
	struct line l = {.out = out, .current = n_words ? words[n_words - 1] : ""};
	const char **argv = calloc(n_words + 2, sizeof(*argv));
	int argc = 0;

	if (!argv)
		abort();
	argv[argc++] = "redirectctl";
	for (size_t i = 0; i + 1 < n_words; i++)
		argv[argc++] = words[i];
	/* Mistakes do not matter: what could be read is what there is to go by. */
	options_parse(argc, (char **)argv, &l.options, &l.failure);
	l.argument_of = find_waiting(&l.options, argc > 1 ? argv[argc - 1] : NULL);
	offer_anything(&l);
	options_clear(&l.options);
	failure_clear(&l.failure);
	free(argv);
}
