/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of verbs, how one is found, and the help that is made from it. */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "ctl/options.h"
#include "ctl/output-text.h"
#include "shared/words.h"

#define VERBS_MOST	64	    /* names that one "did you mean" looks at */
#define GROUP_CONNTRACK "conntrack" /* the first word of the verbs that have two */
#define FILTER		(OPTIONS_TUPLE | OPTIONS_FILTER)

static const char add_details[] =
	"RULE is the rest of the words, or one quoted word:\n"
	"\n"
	"    PROTO [ADDR:]PORT[-PORT] to TARGET[,TARGET...] [OPTION...]\n"
	"\n"
	"    PROTO    tcp | udp | tcp+udp\n"
	"    ADDR     192.0.2.1 | [2001:db8::1] | a prefix | * (every destination);\n"
	"             left out: any address of this host\n"
	"    TARGET   PORT[-PORT] on the same host, or ADDR:PORT[-PORT]; of several, each may\n"
	"             have more or fewer flows: weight N behind it\n"
	"    OPTION   on IFACE[,IFACE...]        only packets that come in there\n"
	"             from PREFIX[,PREFIX...]    only clients from there\n"
	"             name NAME                  a name for remove, show, enable, disable\n"
	"             masquerade                 the source becomes this host's address\n"
	"             snat ADDR                  the source becomes ADDR\n"
	"             balance hash|random|maglev which of several targets a flow gets\n"
	"             max-flows N [per source]   at most so many flows at a time\n"
	"             rate N/s|m|h [burst N] [per source]\n"
	"                                        at most so many new flows\n"
	"             timeout NAME DURATION      how long flows without packets are kept\n"
	"             on-change keep|drain DURATION|reset\n"
	"                                        what a change does to the rule's flows\n"
	"             disabled                   keep the rule, but out of force\n"
	"\n"
	"The rule is in force at once and stays over restarts of the daemon. It is lost when\n"
	"the daemon is stopped and at reboot, unless `redirectctl save` writes it into a file.\n"
	"redirectd.conf(5) has the whole grammar.\n"
	"\n"
	"    redirectctl add tcp 8080 to 80 name web\n"
	"    redirectctl add 'udp 5300 -> 53' on eth0 from 192.0.2.0/24\n"
	"    redirectctl add tcp 443 to 10.0.0.1:443 weight 2,10.0.0.2:443 masquerade\n";

static const char remove_details[] =
	"ID and NAME are those of `redirectctl list`. RULE is the rule itself in any spelling;\n"
	"its name may be left out.\n"
	"Connections that the rule has redirected go on; new ones are no longer redirected.\n"
	"A rule of the configuration file stays out, also over reloads, until it is added again,\n"
	"its line changes, or the daemon is stopped.\n"
	"\n"
	"    redirectctl remove web\n"
	"    redirectctl remove tcp 8080 to 80 name web\n";

static const char replace_details[] =
	"RULE is the rest of the words, as for `add`. The rule keeps its id and its counters, and\n"
	"its name if RULE says none.\n"
	"\n"
	"    redirectctl replace web tcp 8080 to 81\n";

static const char apply_details[] =
	"Reads `redirect` lines in the grammar of redirectd.conf(5), and puts all of them in "
	"force\n"
	"at once, or none. A rule that bears a name in use, or takes the packets of a rule in\n"
	"force, changes that one. Other rules stay, unless --replace is given. Settings in the\n"
	"file must be as they are in force. DURATION is 1s to 1d.\n"
	"\n"
	"    redirectctl -n apply -f new.conf                show what would change\n"
	"    redirectctl apply -f new.conf --confirm 60s     and then `redirectctl confirm`\n"
	"    redirectctl list -o rules | sed 's/^/redirect /' | ssh host redirectctl apply\n";

static const char diff_details[] =
	"Compares the rules in force with those of FILE (`-`: standard input); without FILE, with\n"
	"the daemon's configuration as it stands on disk.\n"
	"\n"
	"    + RULE    only the file has it\n"
	"    - RULE    it is in force, but not in the file\n"
	"    ~ RULE    the file has it so; below it, as it is in force\n"
	"\n"
	"Exit status: 0 no difference, 1 there are some (or it failed, and stderr says why).\n";

static const char save_details[] =
	"Writes runtime rules into rules.d/saved.conf beside the daemon's configuration, where\n"
	"they last over stop and reboot. The file is written anew by each save. The configuration\n"
	"has to have the line\n"
	"\n"
	"    include rules.d/*.conf\n";

static const char list_details[] =
	"FORMAT is table (the default), rules (one rule a line, to be typed back or put\n"
	"behind `redirect` in the configuration) or json.\n";

static const char stats_details[] =
	"FORMAT is table (the default), json, or openmetrics: the text that Prometheus scrapes,\n"
	"with each rule's counters beside the totals.\n";

static const char trace_details[] =
	"Runs the loaded datapath on the first packet of a connection from SRC to DST, and "
	"changes\n"
	"nothing. IFACE is where the packet comes in; left out: where packets to SRC leave.\n"
	"\n"
	"    redirectctl trace tcp 198.51.100.7:40000 192.0.2.1:8080 on eth0\n"
	"    redirectctl trace udp '[2001:db8::7]:40000' '[2001:db8::1]:53'\n";

static const char doctor_details[] =
	"Looks at the kernel, the daemon, its hooks, NAT of other programs, settings, routes, and\n"
	"whether targets listen. As root it sees all. Without a daemon it looks at what it can.\n"
	"Exit status: 0 nothing is wrong, 1 there are warnings or errors.\n"
	"\n"
	"    redirectctl doctor -q             only what is worth a word\n"
	"    redirectctl doctor --connect      also try targets on other hosts\n";

static const char check_details[] =
	"Reads the file, and what it includes, as the daemon would, and reports every error.\n"
	"Needs no daemon. FILE `-` is the standard input.\n"
	"Exit status: 0 no error, 6 errors, 7 only conflicts between rules, 1 not readable.\n";

#define FILTER_DETAILS                                                                             \
	"Addresses and ports are those of the original direction, before redirection.\n"           \
	"STATE is one of nf_conntrack's: SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT\n"      \
	"LAST_ACK TIME_WAIT CLOSE SYN_SENT2; for UDP: UNREPLIED REPLIED.\n"

#define FLOW_FORMATS                                                                               \
	"FORMAT is json, or extended: as `conntrack -L -o extended`, with the IP version in "      \
	"front.\n"

static const char filter_details[] = FILTER_DETAILS;
static const char flows_details[] = FILTER_DETAILS FLOW_FORMATS;

static const char get_details[] =
	"Needs -p, -s, -d, --sport and --dport: what the client sends, or what it is answered.\n"
	"SRC and DST are addresses, no prefixes.\n" FLOW_FORMATS
	"Exit status: 5 there is no such flow.\n"
	"\n"
	"    redirectctl conntrack get -p tcp -s 198.51.100.7 -d 192.0.2.1 --sport 40000 --dport "
	"8080\n";

#define ENDED_CONNECTIONS                                                                          \
	"The next packet of a connection that goes on begins a new flow, by the rules as they\n"   \
	"are then; nobody is sent a RST.\n"

static const char delete_details[] =
	"Ends the flows that fit, and prints each; -n only prints them. At least one filter is\n"
	"needed: `redirectctl conntrack flush` ends every flow.\n" ENDED_CONNECTIONS FILTER_DETAILS
		FLOW_FORMATS "Exit status: 5 no flow fits.\n"
	"\n"
	"    redirectctl conntrack delete -s 198.51.100.0/24\n"
	"    redirectctl -n conntrack delete --rule web --state ESTABLISHED\n";

static const char flush_details[] =
	"Ends every flow, and says how many; -n only says it.\n" ENDED_CONNECTIONS;

static const char import_details[] =
	"Reads redirections of another program and prints them as lines of a configuration file;\n"
	"what it cannot take is told on stderr, with its place and why. FILE `-` or none is the\n"
	"standard input. Needs no daemon. FORMAT is guessed if not given:\n"
	"\n"
	"    rinetd        rinetd.conf\n"
	"    nft           what `nft -j list ruleset` prints\n"
	"    iptables      what `iptables-save` or `ip6tables-save` prints\n"
	"    firewalld     a zone file, /etc/firewalld/zones/ZONE.xml\n"
	"    firewall-cmd  what `firewall-cmd --list-forward-ports` prints\n"
	"    docker        published ports, 8080:80/tcp, or what `docker ps` prints\n"
	"\n"
	"    iptables-save | redirectctl import > /etc/redirectd/rules.d/from-iptables.conf\n"
	"\n"
	"Exit status: 0 all is taken, 6 something is not.\n";

static const char monitor_details[] =
	"A line for each event, until Ctrl-C: NEW and DESTROY of flows that fit the filters, with\n"
	"--packets also PACKET, sampled. -j prints a JSON object a line. Events that were lost,\n"
	"because they came too fast, are told.\n";

static const char top_details[] =
	"Shows rules and flows on the whole terminal, with rates, trends and how full the flow\n"
	"table is, until `q`. `?` shows the keys: other views, order, filter, pace.\n";

static const char completion_details[] =
	"SHELL is bash, zsh or fish. The scripts are installed where these shells look; else:\n"
	"\n"
	"    source <(redirectctl completion bash)    # bash, zsh\n"
	"    redirectctl completion fish | source     # fish\n"
	"\n"
	"`redirectctl completion words -- WORD...` prints what the last word might become.\n";

static const char call_details[] =
	"METHOD without a dot is one of io.redirectd; JSON is the object of its parameters.\n"
	"Each reply is printed as it came, one a line.\n"
	"\n"
	"    redirectctl call Status\n"
	"    redirectctl call Show '{\"rule\":\"web\"}'\n"
	"    redirectctl call org.varlink.service.GetInfo\n";

const struct verb verb_table[] = {
	{"add", "RULE", "add a rule until the daemon is stopped", add_details, 1,
	 VERB_OPERANDS_MANY, 0, verb_add},
	{"remove", "ID|NAME|RULE", "remove a rule", remove_details, 1, VERB_OPERANDS_MANY, 0,
	 verb_remove},
	{"replace", "ID|NAME RULE", "put another rule in a rule's place", replace_details, 2,
	 VERB_OPERANDS_MANY, 0, verb_replace},
	{"list", "", "list the rules with their counters", list_details, 0, 0, OPTIONS_OUTPUT,
	 verb_list},
	{"show", "ID|NAME", "show all about one rule", NULL, 1, 1, 0, verb_show},
	{"enable", "ID|NAME", "put a disabled rule into force", NULL, 1, 1, 0, verb_enable},
	{"disable", "ID|NAME", "take a rule out of force, and keep it", NULL, 1, 1, 0,
	 verb_disable},
	{"apply", "", "put the rules of a file in force, all at once", apply_details, 0, 0,
	 OPTIONS_APPLY, verb_apply},
	{"diff", "[FILE]", "compare the rules in force with a file", diff_details, 0, 1, 0,
	 verb_diff},
	{"confirm", "", "keep what `apply --confirm` did", NULL, 0, 0, 0, verb_confirm},
	{"rollback", "", "take back what `apply --confirm` did", NULL, 0, 0, 0, verb_rollback},
	{"save", "", "write runtime rules where they last", save_details, 0, 0, 0, verb_save},
	{"reload", "", "make the daemon read its configuration again", NULL, 0, 0, 0, verb_reload},
	{"check", "FILE", "check a configuration file", check_details, 1, 1, 0, verb_check},
	{"import", "[FILE]", "print rules of other programs as ours", import_details, 0, 1,
	 OPTIONS_IMPORT, verb_import},
	{GROUP_CONNTRACK " list", "", "list the redirected flows as `conntrack -L` does",
	 flows_details, 0, 0, FILTER | OPTIONS_OUTPUT, verb_conntrack_list},
	{GROUP_CONNTRACK " get", "", "show the one flow of a tuple", get_details, 0, 0,
	 OPTIONS_TUPLE | OPTIONS_OUTPUT, verb_conntrack_get},
	{GROUP_CONNTRACK " delete", "", "end the flows that fit a filter", delete_details, 0, 0,
	 FILTER | OPTIONS_OUTPUT, verb_conntrack_delete},
	{GROUP_CONNTRACK " flush", "", "end every flow", flush_details, 0, 0, 0,
	 verb_conntrack_flush},
	{GROUP_CONNTRACK " count", "", "count the redirected flows", filter_details, 0, 0, FILTER,
	 verb_conntrack_count},
	{"stats", "", "show the counters of the datapath", stats_details, 0, 0, OPTIONS_OUTPUT,
	 verb_stats},
	{"monitor", "", "print flows as they begin and end", monitor_details, 0, 0,
	 FILTER | OPTIONS_MONITOR, verb_monitor},
	{"top", "", "watch rules and flows on the whole terminal", top_details, 0, 0, OPTIONS_TOP,
	 verb_top},
	{"status", "", "show how the daemon is doing", NULL, 0, 0, 0, verb_status},
	{"trace", "PROTO SRC:PORT DST:PORT [on IFACE]", "tell what becomes of a packet, and why",
	 trace_details, 3, 5, 0, verb_trace},
	{"doctor", "", "look for what is wrong, and what mends it", doctor_details, 0, 0,
	 OPTIONS_DOCTOR, verb_doctor},
	{"call", "METHOD [JSON]", "call a method of the control socket", call_details, 1, 2,
	 OPTIONS_MORE, verb_call},
	{"completion", "SHELL", "print what a shell needs to complete this", completion_details, 1,
	 VERB_OPERANDS_MANY, 0, verb_completion},
	{"help", "[VERB]", "show this help, or a verb's", NULL, 0, 2, 0, verb_help},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

unsigned verb_formats(const struct verb *v)
{
	static const struct {
		const char *verb;
		unsigned formats;
	} table[] = {
		{"list", 1u << OUTPUT_TABLE | 1u << OUTPUT_RULES | 1u << OUTPUT_JSON},
		{"stats", 1u << OUTPUT_TABLE | 1u << OUTPUT_JSON | 1u << OUTPUT_OPENMETRICS},
		{GROUP_CONNTRACK " list", 1u << OUTPUT_EXTENDED | 1u << OUTPUT_JSON},
		{GROUP_CONNTRACK " get", 1u << OUTPUT_EXTENDED | 1u << OUTPUT_JSON},
		{GROUP_CONNTRACK " delete", 1u << OUTPUT_EXTENDED | 1u << OUTPUT_JSON},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(v->name, table[i].verb) == 0)
			return table[i].formats;
	return 0;
}

/* Does the name begin with the words, each of them whole? Returns how many words it has. */
static size_t match_name(const char *name, const char *const *words, size_t n_words)
{
	size_t i;

	for (i = 0; i < n_words; i++) {
		size_t length = strcspn(name, " ");

		if (strlen(words[i]) != length || memcmp(words[i], name, length) != 0)
			return 0;
		name += length;
		if (*name == '\0')
			return i + 1;
		name++;
	}
	return 0;
}

bool verb_is_group(const char *word)
{
	return strcmp(word, GROUP_CONNTRACK) == 0;
}

/* Collects what could have stood in place of the unknown word: verbs, or second words. */
static size_t collect_names(const char *group, const char *names[static VERBS_MOST])
{
	const size_t skip = sizeof(GROUP_CONNTRACK); /* with its space */
	const struct verb *v;
	size_t n = 0;

	if (!group)
		names[n++] = GROUP_CONNTRACK;
	for (v = verb_table; v->name && n < VERBS_MOST; v++) {
		bool grouped = strncmp(v->name, GROUP_CONNTRACK " ", skip) == 0;

		if (grouped == (group != NULL))
			names[n++] = grouped ? v->name + skip : v->name;
	}
	return n;
}

/* What nft(8), ip(8), conntrack(8) and shells call it. */
static const char *translate_name(const char *word)
{
	static const struct {
		const char *theirs, *ours;
	} table[] = {
		{"delete", "remove"},  {"del", "remove"},
		{"rm", "remove"},      {"ls", "list"},
		{"change", "replace"}, {"load", "apply"},
		{"restore", "apply"},  {"commit", "confirm"},
		{"undo", "rollback"},  {"flows", "conntrack list"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(word, table[i].theirs) == 0)
			return table[i].ours;
	return NULL;
}

static void refuse_words(const char *const *words, size_t n_words, struct failure *f)
{
	const char *names[VERBS_MOST], *closest;
	const char *group = n_words > 0 && verb_is_group(words[0]) ? words[0] : NULL;
	const char *unknown = n_words > (group ? 1 : 0) ? words[group ? 1 : 0] : NULL;
	char text[128];
	size_t n;

	n = collect_names(group, names);
	closest = unknown && !group ? translate_name(unknown) : NULL;
	if (unknown && !closest)
		closest = words_closest(unknown, strlen(unknown), names, n);
	if (!unknown && !group)
		failure_set(f, CTL_USAGE, "no verb: what is to be done?");
	else if (!unknown)
		failure_set(f, CTL_USAGE, "%s needs a second word: %s", group,
			    words_join(names, n, " or ", text, sizeof(text)));
	else
		failure_set(f, CTL_USAGE, "unknown verb \"%s%s%s\"%s%s%s", group ? group : "",
			    group ? " " : "", unknown, closest ? "; did you mean \"" : "",
			    closest ? closest : "", closest ? "\"?" : "");
	failure_hint(f, "see `%s %s%s--help`", program_invocation_short_name, group ? group : "",
		     group ? " " : "");
}

const struct verb *verb_find(const char *const *words, size_t n_words, size_t *ret_taken,
			     struct failure *f)
{
	const struct verb *v;

	for (v = verb_table; v->name; v++) {
		size_t taken = match_name(v->name, words, n_words);

		if (taken > 0) {
			*ret_taken = taken;
			return v;
		}
	}
	refuse_words(words, n_words, f);
	return NULL;
}

/* Has the verb an option of its own with this global one's letter? */
static bool is_hidden(const struct option_info *info, unsigned groups)
{
	size_t i;

	for (i = 0; i < OPTION_COUNT && info->group == OPTIONS_GLOBAL; i++)
		if ((option_table[i].group & groups) && option_table[i].letter == info->letter)
			return true;
	return false;
}

static void print_option(const struct option_info *info, unsigned groups, FILE *out)
{
	char letter[] = "-x,", name[64];

	letter[1] = info->letter;
	if (!info->letter || is_hidden(info, groups))
		strcpy(letter, "   ");
	snprintf(name, sizeof(name), "--%s%s%s", info->name,
		 info->argument && info->argument[0] != '[' ? " " : "",
		 info->argument ? info->argument : "");
	fprintf(out, "  %s %-20s %s\n", letter, name, info->help);
}

static void print_heading(const char *text, FILE *out)
{
	fprintf(out, "%s%s%s\n", text_style_begin(out, TEXT_BOLD), text,
		text_style_end(out, TEXT_BOLD));
}

static void print_own_options(const struct verb *v, FILE *out)
{
	size_t i;

	for (i = 0; i < OPTION_COUNT; i++)
		if (option_table[i].group & v->options)
			print_option(&option_table[i], v->options, out);
}

/* `groups`: the options of a verb, which may hide a letter. */
static void print_global_options(unsigned groups, FILE *out)
{
	size_t i;

	for (i = 0; i < OPTION_COUNT; i++)
		if (option_table[i].group == OPTIONS_GLOBAL)
			print_option(&option_table[i], groups, out);
}

static void print_verb_help(const struct verb *v, FILE *out)
{
	fprintf(out, "usage: %s %s%s%s%s\n\n%s\n", program_invocation_short_name, v->name,
		*v->arguments ? " " : "", v->arguments, v->options ? " [OPTION...]" : "", v->help);
	if (v->details)
		fprintf(out, "\n%s", v->details);
	if (v->options) {
		print_heading("\noptions of this verb:", out);
		print_own_options(v, out);
	}
	print_heading("\noptions of every verb:", out);
	print_global_options(v->options, out);
}

static void print_verbs(const char *group, FILE *out)
{
	const size_t length = group ? strlen(group) : 0;
	const struct verb *v;

	print_heading("\nverbs:", out);
	for (v = verb_table; v->name; v++)
		if (!group || (strncmp(v->name, group, length) == 0 && v->name[length] == ' '))
			fprintf(out, "  %s%-16s%s %-14s %s\n", text_style_begin(out, TEXT_BOLD),
				v->name, text_style_end(out, TEXT_BOLD), v->arguments, v->help);
}

static void print_all_help(FILE *out)
{
	fprintf(out, "usage: %s [OPTION...] VERB ...\n\nControls redirectd(8).\n",
		program_invocation_short_name);
	print_verbs(NULL, out);
	print_heading("\noptions, before or after the verb:", out);
	print_global_options(0, out);
	fprintf(out, "\n`%s VERB --help` says more about a verb; redirectctl(8) says all.\n",
		program_invocation_short_name);
}

void verb_print_group_help(const char *group, FILE *out)
{
	fprintf(out, "usage: %s %s VERB ...\n", program_invocation_short_name, group);
	print_verbs(group, out);
	fprintf(out, "\n`%s %s VERB --help` says more about each.\n", program_invocation_short_name,
		group);
}

void verb_print_help(const struct verb *v, FILE *out)
{
	if (v)
		print_verb_help(v, out);
	else
		print_all_help(out);
}

enum exit_code verb_help(const struct options *o, struct failure *f)
{
	const struct verb *v = NULL;
	size_t taken;

	if (o->n_operands == 1 && verb_is_group(o->operands[0])) {
		verb_print_group_help(o->operands[0], stdout);
		return CTL_DONE;
	}
	if (o->n_operands > 0) {
		v = verb_find(o->operands, o->n_operands, &taken, f);
		if (!v)
			return CTL_USAGE;
	}
	verb_print_help(v, stdout);
	return CTL_DONE;
}
