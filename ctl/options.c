/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads the command line by option_table. getopt_long(3) does not fit: which options exist changes
 * behind the verb, `->` is a word of rules, and an unknown option is to be answered with the
 * closest known one.
 */
#include "ctl/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/verbs.h"
#include "lib/redirectd.h"
#include "shared/words.h"

const struct option_info option_table[OPTION_COUNT] = {
	[OPTION_JSON] = {OPTIONS_GLOBAL, 'j', "json", NULL, "print JSON on stdout, errors too"},
	[OPTION_SOCKET] = {OPTIONS_GLOBAL, 's', "socket", "SOCKET",
			   "the daemon's socket (or set REDIRECTD_SOCKET)"},
	[OPTION_DRY_RUN] = {OPTIONS_GLOBAL, 'n', "dry-run", NULL,
			    "show what would change, change nothing"},
	[OPTION_QUIET] = {OPTIONS_GLOBAL, 'q', "quiet", NULL,
			  "print only what was asked for, and errors"},
	[OPTION_HELP] = {OPTIONS_GLOBAL, 'h', "help", NULL, "this help; after a verb, the verb's"},
	[OPTION_VERSION] = {OPTIONS_GLOBAL, 'V', "version", NULL, "print the version"},
	[OPTION_OUTPUT] = {OPTIONS_OUTPUT, 'o', "output", "FORMAT", "choose the output format"},
	[OPTION_PROTOCOL] = {OPTIONS_TUPLE, 'p', "protocol", "PROTO", "only tcp, or only udp"},
	[OPTION_SRC] = {OPTIONS_TUPLE, 's', "src", "SRC", "only clients of this address or prefix"},
	[OPTION_DST] = {OPTIONS_TUPLE, 'd', "dst", "DST",
			"only flows to this address or prefix, as the client sees it"},
	[OPTION_SPORT] = {OPTIONS_TUPLE, 0, "sport", "N", "only from this port of the client"},
	[OPTION_DPORT] = {OPTIONS_TUPLE, 0, "dport", "N", "only to this port, before redirection"},
	[OPTION_STATE] = {OPTIONS_FILTER, 0, "state", "STATE", "only in this state"},
	[OPTION_RULE] = {OPTIONS_FILTER, 0, "rule", "ID|NAME", "only flows of this rule"},
	[OPTION_PACKETS] = {OPTIONS_MONITOR, 0, "packets", "[=N]",
			    "also sampled packets, one in N (1024)"},
	[OPTION_FORMAT] = {OPTIONS_IMPORT, 0, "format", "FORMAT", "do not guess the format"},
	[OPTION_INTERVAL] = {OPTIONS_TOP, 'i', "interval", "SECONDS", "between two samples (1)"},
	[OPTION_MORE] = {OPTIONS_MORE, 0, "more", NULL, "ask for a stream of replies"},
	[OPTION_FILE] = {OPTIONS_APPLY, 'f', "file", "FILE|-",
			 "the rules; default: standard input"},
	[OPTION_REPLACE] = {OPTIONS_APPLY, 0, "replace", NULL,
			    "remove all rules that are not in the file"},
	[OPTION_CONFIRM] = {OPTIONS_APPLY, 0, "confirm", "DURATION",
			    "take it back after so long, unless `confirm` comes"},
	[OPTION_CONNECT] = {OPTIONS_DOCTOR, 0, "connect", NULL,
			    "also try a connection to each TCP target on another host"},
};

/* Where the reader of argv stands. */
struct reader {
	char **next; /* the following word, or the NULL at the end */
	struct options *options;
	struct failure *failure;
	int status; /* CTL_USAGE once something was wrong; reading goes on, -j may follow */
};

static unsigned known_groups(const struct options *o)
{
	return o->verb ? o->verb->options : 0;
}

static bool is_known(const struct options *o, const struct option_info *info)
{
	return info->group == OPTIONS_GLOBAL || (known_groups(o) & info->group);
}

static bool letter_matches(const struct option_info *info, char letter)
{
	return info->letter && info->letter == letter;
}

/* A verb's own options come first, so that they hide global ones of the same letter. */
static int find_letter(const struct options *o, char letter)
{
	int i, found = -1;

	for (i = 0; i < OPTION_COUNT; i++) {
		if (!is_known(o, &option_table[i]) || !letter_matches(&option_table[i], letter))
			continue;
		if (option_table[i].group != OPTIONS_GLOBAL)
			return i;
		found = i;
	}
	return found;
}

static int find_name(const struct options *o, const char *name, size_t length)
{
	int i;

	for (i = 0; i < OPTION_COUNT; i++)
		if (is_known(o, &option_table[i]) && strlen(option_table[i].name) == length &&
		    memcmp(option_table[i].name, name, length) == 0)
			return i;
	return -1;
}

/* The closest option that is known here, or NULL. */
static const char *closest_name(const struct options *o, const char *name)
{
	const char *names[OPTION_COUNT];
	size_t n = 0, i;

	for (i = 0; i < OPTION_COUNT; i++)
		if (is_known(o, &option_table[i]))
			names[n++] = option_table[i].name;
	return words_closest(name, strlen(name), names, n);
}

/* The verb, or the first word of one that has two. */
static const char *help_command(const struct options *o)
{
	if (o->verb)
		return o->verb->name;
	return o->n_operands > 0 && verb_is_group(o->operands[0]) ? o->operands[0] : "";
}

static void hint_help(const struct options *o, struct failure *f)
{
	const char *command = help_command(o);

	failure_hint(f, "see `%s %s%s--help`", program_invocation_short_name, command,
		     *command ? " " : "");
}

/* Keeps the first usage error only. Returns true when this is it. */
static bool first_error(struct reader *r)
{
	bool first = r->status == 0;

	r->status = CTL_USAGE;
	return first;
}

static void unknown_option(struct reader *r, const char *word, const char *closest)
{
	if (!first_error(r))
		return;
	failure_set(r->failure, CTL_USAGE, "unknown option \"%s\"%s%s%s", word,
		    closest ? "; did you mean \"--" : "", closest ? closest : "",
		    closest ? "\"?" : "");
	hint_help(r->options, r->failure);
}

static void refuse_option(struct reader *r, const char *written, const char *what,
			  const char *argument)
{
	if (!first_error(r))
		return;
	failure_set(r->failure, CTL_USAGE, "%s %s%s", written, what, argument);
	hint_help(r->options, r->failure);
}

/* A verb's option names what it works on: one of two would be passed over in silence. */
static bool is_given_twice(const struct reader *r, int id)
{
	const struct option_info *info = &option_table[id];

	return info->argument && info->group != OPTIONS_GLOBAL && r->options->values[id];
}

static void set_value(struct reader *r, int id, const char *written, const char *attached)
{
	const struct option_info *info = &option_table[id];
	bool may_have = info->argument && info->argument[0] == '[';

	if (is_given_twice(r, id))
		refuse_option(r, written, "is given twice", "");
	if (!info->argument || (may_have && !attached)) {
		if (attached)
			refuse_option(r, written, "takes no argument", "");
		r->options->values[id] = "";
	} else if (attached) {
		r->options->values[id] = attached;
	} else if (*r->next) {
		r->options->values[id] = *r->next++;
	} else {
		refuse_option(r, written, "needs an argument: ", info->argument);
	}
}

static void read_long(struct reader *r, const char *word)
{
	const char *name = word + 2, *equals = strchrnul(name, '=');
	char *written = strndup(word, (size_t)(equals - word));
	int id = find_name(r->options, name, (size_t)(equals - name));

	if (!written)
		abort();
	if (id < 0)
		unknown_option(r, written, closest_name(r->options, written + 2));
	else
		set_value(r, id, written, *equals ? equals + 1 : NULL);
	free(written);
}

/* `-jn`, `-s SOCKET`, `-sSOCKET`. */
static void read_letters(struct reader *r, const char *word)
{
	const char *p;

	for (p = word + 1; *p; p++) {
		const char written[] = {'-', *p, '\0'};
		int id = find_letter(r->options, *p);

		if (id < 0) {
			unknown_option(r, written, NULL);
			return;
		}
		if (option_table[id].argument) {
			set_value(r, id, written, p[1] ? p + 1 : NULL);
			return;
		}
		set_value(r, id, written, NULL);
	}
}

/* The first operands name the verb; as soon as they do, its options are known. */
static void read_operand(struct reader *r, const char *word)
{
	struct options *o = r->options;
	size_t taken;

	o->operands[o->n_operands++] = word;
	if (o->verb || (o->n_operands == 1 && verb_is_group(word)))
		return;
	if (r->status != 0)
		return;
	o->verb = verb_find(o->operands, o->n_operands, &taken, r->failure);
	if (!o->verb)
		r->status = CTL_USAGE;
	else
		o->n_operands = 0;
}

/* `-`, `->` and `-1` are words of a rule, right or wrong. */
static bool is_option(const char *word)
{
	return word[0] == '-' && word[1] != '\0' && word[1] != '>' &&
	       !isdigit((unsigned char)word[1]);
}

static int check_operands(struct reader *r)
{
	const struct options *o = r->options;
	const struct verb *v = o->verb;
	size_t taken;

	if (r->status != 0 || options_has(o, OPTION_HELP) || options_has(o, OPTION_VERSION))
		return r->status;
	if (!v) { /* nothing, or one word of a verb of two */
		verb_find(o->operands, o->n_operands, &taken, r->failure);
		return CTL_USAGE;
	}
	if (o->n_operands >= v->operands_least && o->n_operands <= v->operands_most)
		return 0;
	if (o->n_operands < v->operands_least)
		failure_set(r->failure, CTL_USAGE, "%s needs %s", v->name, v->arguments);
	else
		failure_set(r->failure, CTL_USAGE, "\"%s\" is too much: %s takes %s",
			    o->operands[v->operands_most], v->name,
			    *v->arguments ? v->arguments : "no operands");
	hint_help(o, r->failure);
	return CTL_USAGE;
}

int options_parse(int argc, char **argv, struct options *ret, struct failure *f)
{
	struct reader r = {.options = ret, .failure = f};
	bool options_end = false;

	*ret = (struct options){0};
	ret->operands = calloc((size_t)argc + 1, sizeof(*ret->operands));
	if (!ret->operands)
		abort();
	for (r.next = argv + (argc > 0); *r.next;) {
		const char *word = *r.next++;

		if (!options_end && strcmp(word, "--") == 0)
			options_end = true;
		else if (options_end || !is_option(word))
			read_operand(&r, word);
		else if (word[1] == '-')
			read_long(&r, word);
		else
			read_letters(&r, word);
	}
	return check_operands(&r);
}

void options_clear(struct options *o)
{
	free(o->operands);
	*o = (struct options){0};
}

const char *options_socket(const struct options *o)
{
	const char *environment = getenv("REDIRECTD_SOCKET");

	if (options_has(o, OPTION_SOCKET))
		return o->values[OPTION_SOCKET];
	return environment && *environment ? environment : REDIRECTD_SOCKET_DEFAULT;
}

static const char *const format_names[OUTPUT_FORMAT_COUNT] = {
	[OUTPUT_TABLE] = "table",	[OUTPUT_RULES] = "rules",
	[OUTPUT_JSON] = "json",		[OUTPUT_OPENMETRICS] = "openmetrics",
	[OUTPUT_EXTENDED] = "extended",
};

const char *options_format_name(enum output_format format)
{
	return format_names[format];
}

static enum exit_code refuse_format(const char *name, unsigned formats, struct failure *f)
{
	const char *names[OUTPUT_FORMAT_COUNT];
	char known[64];
	size_t n = 0;

	for (size_t i = 0; i < OUTPUT_FORMAT_COUNT; i++)
		if (formats & 1u << i)
			names[n++] = format_names[i];
	return failure_set(f, CTL_USAGE, "unknown output format \"%s\"; it is one of %s", name,
			   words_join(names, n, ", ", known, sizeof(known)));
}

enum exit_code options_output(const struct options *o, unsigned formats, enum output_format *ret,
			      struct failure *f)
{
	const char *name = o->values[OPTION_OUTPUT];
	size_t i;

	if (!name) {
		*ret = options_has(o, OPTION_JSON) ? OUTPUT_JSON : OUTPUT_TABLE;
		return CTL_DONE;
	}
	for (i = 0; i < OUTPUT_FORMAT_COUNT; i++) {
		if (!(formats & 1u << i) || strcmp(name, format_names[i]) != 0)
			continue;
		if (options_has(o, OPTION_JSON) && i != OUTPUT_JSON)
			return failure_set(f, CTL_USAGE, "-j and -o %s contradict each other",
					   name);
		*ret = (enum output_format)i;
		return CTL_DONE;
	}
	return refuse_format(name, formats, f);
}

char *options_join(const struct options *o, size_t first)
{
	size_t length = 1, i;
	char *text, *end;

	for (i = first; i < o->n_operands; i++)
		length += strlen(o->operands[i]) + 1;
	text = end = malloc(length);
	if (!text)
		abort();
	for (i = first; i < o->n_operands; i++) {
		if (i > first)
			*end++ = ' ';
		end = stpcpy(end, o->operands[i]);
	}
	*end = '\0';
	return text;
}
