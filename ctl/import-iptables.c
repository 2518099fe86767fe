/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What iptables-save and ip6tables-save print: tables, chains, and rules as they would be typed.
 * Only the table nat is looked at.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/import-nat.h"

#define WORDS_MOST 128

/* One rule while it is read. */
struct reader {
	struct nat *nat;
	struct nat_rule *rule;
	char **words; /* what remains; ends with NULL */
	bool inverted;
};

static const char *next_word(struct reader *r)
{
	return *r->words ? *r->words++ : "";
}

/* Cuts a line into words, in which quotes and backslashes are taken away; NULL: too many. */
static char **split(char *line, char *words[static WORDS_MOST])
{
	size_t n = 0;
	char *to;

	while (*(line += strspn(line, " \t\r"))) {
		bool quoted = false;

		if (n == WORDS_MOST - 1)
			return NULL;
		words[n++] = to = line;
		for (; *line && (quoted || !strchr(" \t\r", *line)); line++) {
			if (*line == '"')
				quoted = !quoted;
			else
				*to++ = *line == '\\' && line[1] ? *++line : *line;
		}
		line += *line != '\0';
		*to = '\0';
	}
	words[n] = NULL;
	return words;
}

/* ---- options ---- */

static void read_protocol(struct reader *r, const char *option)
{
	const char *name = next_word(r);

	if (r->inverted)
		nat_set_problem(r->rule, "it is for every protocol but %s", name);
	else if (strcmp(name, "tcp") == 0 || strcmp(name, "6") == 0)
		r->rule->match.protocols = RULE_TCP;
	else if (strcmp(name, "udp") == 0 || strcmp(name, "17") == 0)
		r->rule->match.protocols = RULE_UDP;
	else
		nat_set_problem(r->rule, "the protocol %s is neither tcp nor udp", name);
}

static void read_prefixes(struct reader *r, struct import_prefixes *p, const char *option)
{
	const char *text = next_word(r);

	if (r->inverted)
		nat_set_problem(r->rule, "`! %s %s`: rules have no exceptions", option, text);
	else if (import_add_prefix(p, text) < 0)
		nat_set_problem(r->rule, "\"%s\" is not an address or prefix", text);
}

static void read_destination(struct reader *r, const char *option)
{
	read_prefixes(r, &r->rule->match.listen, option);
}

static void read_source(struct reader *r, const char *option)
{
	read_prefixes(r, &r->rule->match.from, option);
}

static void read_in_interface(struct reader *r, const char *option)
{
	const char *name = next_word(r);

	if (r->inverted)
		nat_set_broader(r->rule,
				"`! %s %s` is left out: packets that come in there are redirected, "
				"too",
				option, name);
	else if (strchr(name, '+') || import_add_interface(&r->rule->match, name) < 0)
		nat_set_problem(r->rule, "\"%s\" is not the name of one interface", name);
}

static void read_out_interface(struct reader *r, const char *option)
{
	const char *name = next_word(r);

	if (r->inverted || strchr(name, '+') || strlen(name) >= sizeof(r->rule->out))
		nat_set_problem(r->rule, "it is limited to outgoing interfaces: %s%s %s",
				r->inverted ? "! " : "", option, name);
	else
		strcpy(r->rule->out, name);
}

static void read_ports(struct reader *r, const char *option)
{
	char *text = (char *)next_word(r), *part;
	struct port_range range;

	if (r->inverted) {
		nat_set_problem(r->rule, "`! %s %s`: rules have no exceptions", option, text);
		return;
	}
	while ((part = strsep(&text, ",")))
		if (import_read_ports(part, ':', &range) < 0 ||
		    import_add_ports(&r->rule->match, &range) < 0)
			nat_set_problem(r->rule, "\"%s\" is not a port or a range", part);
}

static void read_address_type(struct reader *r, const char *option)
{
	const char *type = next_word(r);

	if (strcmp(type, "LOCAL") == 0 && !r->inverted)
		r->rule->local = true;
	else
		nat_set_problem(r->rule, "it is limited by %s%s %s", r->inverted ? "! " : "",
				option, type);
}

/* Redirections are decided at a flow's first packet anyway. */
static void read_state(struct reader *r, const char *option)
{
	const char *states = next_word(r);

	if (strcmp(states, "NEW") != 0 || r->inverted)
		nat_set_problem(r->rule, "it is limited by %s%s %s", r->inverted ? "! " : "",
				option, states);
}

static void read_match(struct reader *r, const char *option)
{
	static const char *const known[] = {"tcp",	"udp",	     "multiport", "comment",
					    "addrtype", "conntrack", "state"};
	const char *name = next_word(r);

	for (size_t n = 0; n < sizeof(known) / sizeof(known[0]); n++)
		if (strcmp(name, known[n]) == 0)
			return;
	nat_set_problem(r->rule, "it is limited by -m %s", name);
}

static void skip_argument(struct reader *r, const char *option)
{
	next_word(r);
}

static void skip_flag(struct reader *r, const char *option)
{
}

/* ---- targets ---- */

static void read_jump(struct reader *r, const char *option)
{
	static const struct {
		const char *name;
		enum nat_verdict verdict;
	} targets[] = {
		{"REDIRECT", NAT_REDIRECT}, {"DNAT", NAT_REDIRECT},    {"MASQUERADE", NAT_SOURCE},
		{"SNAT", NAT_SOURCE},	    {"ACCEPT", NAT_EXCEPTION}, {"RETURN", NAT_EXCEPTION},
		{"DROP", NAT_EXCEPTION},    {"LOG", NAT_OTHER},	       {"NFLOG", NAT_OTHER},
		{"MARK", NAT_OTHER},	    {"CONNMARK", NAT_OTHER},
	};
	const char *name = next_word(r);

	for (size_t n = 0; n < sizeof(targets) / sizeof(targets[0]); n++)
		if (strcmp(name, targets[n].name) == 0) {
			r->rule->verdict = targets[n].verdict;
			return;
		}
	r->rule->verdict = NAT_JUMP;
	free(r->rule->jump);
	r->rule->jump = strdup(name);
	if (!r->rule->jump)
		abort();
}

static void read_to_ports(struct reader *r, const char *option)
{
	const char *text = next_word(r);

	if (import_read_ports(text, '-', &r->rule->match.target_ports) < 0)
		nat_set_problem(r->rule, "\"%s\" is not a port or a range", text);
}

/* `10.0.0.1`, `10.0.0.1:80`, `:80`, `[2001:db8::1]:80-89`; a shift `/BASE` may follow. */
static void read_to_destination(struct reader *r, const char *option)
{
	char *text = (char *)next_word(r), *colon = strrchr(text, ':');
	char *bracket = strchr(text, ']'), *shift = colon ? strchr(colon, '/') : NULL;

	if (shift)
		*shift = '\0';
	/* An IPv6 address without brackets has no port. */
	if (colon && (bracket ? colon > bracket : strchr(text, ':') == colon)) {
		*colon = '\0';
		if (import_read_ports(colon + 1, '-', &r->rule->match.target_ports) < 0)
			nat_set_problem(r->rule, "\"%s\" is not a port or a range", colon + 1);
	}
	if (*text && ip_prefix_parse(text, &r->rule->match.target) < 0)
		nat_set_problem(r->rule, "\"%s\" is not one address", text);
}

static void read_to_source(struct reader *r, const char *option)
{
	const char *text = next_word(r);

	if (ip_prefix_parse(text, &r->rule->match.snat) < 0)
		nat_set_problem(r->rule, "\"%s\" is not one address", text);
}

static const struct {
	const char *name;
	void (*read)(struct reader *r, const char *option);
} options[] = {
	{"-p", read_protocol},
	{"-d", read_destination},
	{"-s", read_source},
	{"-i", read_in_interface},
	{"-o", read_out_interface},
	{"-m", read_match},
	{"-j", read_jump},
	{"-g", read_jump},
	{"--dport", read_ports},
	{"--dports", read_ports},
	{"--dst-type", read_address_type},
	{"--ctstate", read_state},
	{"--state", read_state},
	{"--comment", skip_argument},
	{"--to-ports", read_to_ports},
	{"--to-destination", read_to_destination},
	{"--to-source", read_to_source},
	{"--random", skip_flag},
	{"--random-fully", skip_flag},
	{"--persistent", skip_flag},
	{"--log-prefix", skip_argument},
	{"--log-level", skip_argument},
	{"--set-xmark", skip_argument},
	{"--nflog-group", skip_argument},
	{"--nflog-prefix", skip_argument},
};

static void read_option(struct reader *r, const char *option)
{
	for (size_t n = 0; n < sizeof(options) / sizeof(options[0]); n++)
		if (strcmp(option, options[n].name) == 0) {
			options[n].read(r, option);
			return;
		}
	nat_set_problem(r->rule, "it is limited by %s", option);
	/* Arguments of an unknown option are no options. */
	while (*r->words && **r->words != '-' && strcmp(*r->words, "!") != 0)
		r->words++;
}

static void read_rule(struct import *i, struct nat *nat, unsigned line, char *text)
{
	_cleanup_(freep) char *original = strdup(text);
	char *words[WORDS_MOST];
	struct reader r = {.nat = nat, .words = split(text, words)};
	struct import_place place = {line, original};
	const char *word;

	if (!original)
		abort();
	if (!r.words || !words[0] || !words[1]) {
		import_skip(i, &place, "the line is too long");
		return;
	}
	r.words++;
	r.rule = nat_add_rule(nat, nat_chain(nat, next_word(&r)), line, original);
	while (*r.words) {
		word = next_word(&r);
		r.inverted = strcmp(word, "!") == 0;
		read_option(&r, r.inverted ? next_word(&r) : word);
	}
}

/* `:PREROUTING ACCEPT [0:0]` */
static void read_chain(struct nat *nat, char *text)
{
	static const struct {
		const char *name;
		enum nat_hook hook;
	} hooks[] = {{"PREROUTING", NAT_HOOK_PREROUTING},
		     {"OUTPUT", NAT_HOOK_OUTPUT},
		     {"POSTROUTING", NAT_HOOK_POSTROUTING}};
	char *name = strsep(&text, " ");
	size_t chain = nat_chain(nat, name);

	for (size_t n = 0; n < sizeof(hooks) / sizeof(hooks[0]); n++)
		if (strcmp(name, hooks[n].name) == 0)
			nat->chains[chain].hook = hooks[n].hook;
}

/* `[packets:bytes] -A …`, as `iptables-save -c` prints rules. */
static char *skip_counters(char *line)
{
	char *end = *line == '[' ? strstr(line, "] ") : NULL;

	return end ? end + 2 : line;
}

static void read_line(struct import *i, struct nat *nat, unsigned number, char *line)
{
	struct import_place place = {number, line};

	line = skip_counters(line);
	if (*line == ':')
		read_chain(nat, line + 1);
	else if (strncmp(line, "-P ", 3) == 0)
		read_chain(nat, line + 3);
	else if (strncmp(line, "-A ", 3) == 0)
		read_rule(i, nat, number, line);
	else if (*line && *line != '#' && strncmp(line, "-N ", 3) != 0)
		import_skip(i, &place, "not a line of iptables-save");
}

int import_read_iptables(struct import *i, char *text)
{
	struct nat nat = {0};
	bool is_nat = true; /* rules without a heading, as of `iptables -t nat -S` */
	bool is_open = false;
	unsigned number = 0;
	char *line;

	while ((line = strsep(&text, "\n"))) {
		number++;
		line[strcspn(line, "\r")] = '\0';
		if (*line == '*') {
			is_nat = strcmp(line, "*nat") == 0;
			is_open = true;
		} else if (strcmp(line, "COMMIT") == 0) {
			is_open = false;
			nat_take(&nat, i);
			nat_clear(&nat); /* the next table may have chains of the same names */
		} else if (is_nat) {
			read_line(i, &nat, number, line);
		}
	}
	if (is_open)
		import_skip(i, &(const struct import_place){number, NULL},
			    "COMMIT is missing: the text is cut short");
	nat_take(&nat, i);
	nat_clear(&nat);
	return 0;
}

bool import_looks_like_iptables(const char *text)
{
	static const char *const heads[] = {"*nat", "*filter",	      "*mangle",
					    "*raw", "-P PREROUTING ", "-A PREROUTING "};

	for (; text && *text; text = strchr(text, '\n') ? strchr(text, '\n') + 1 : NULL)
		for (size_t n = 0; n < sizeof(heads) / sizeof(heads[0]); n++)
			if (strncmp(text, heads[n], strlen(heads[n])) == 0)
				return true;
	return false;
}
