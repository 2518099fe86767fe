/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rule grammar: from a text to a struct rule, or to every error in it.
 *
 *   PROTO [ADDR:]PORT[-PORT] to TARGET[,TARGET...] [OPTION...]
 *
 * Reading goes on after an error, as if the word had been what was most likely meant; the rule is
 * thrown away at the end. Checks across parts skip the parts that were not read well (ports.first
 * or family is 0), so that one mistake is reported once.
 *
 * Decisions where the grammar is silent:
 * - `masquerade` and `snat` need packets that leave this host: a target with an address, or a
 *   listen address that takes packets in transit.
 * - One rule translates within one family. Without an address it serves both; `from` may then
 *   hold prefixes of both.
 * - A list may have blanks around its commas.
 */
#include "shared/rule.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "shared/iface.h"
#include "shared/scan.h"
#include "shared/timeout.h"
#include "shared/words.h"

struct rule_parser {
	struct scan scan;
	struct rule rule;		     /* its lists are those below until all is read */
	unsigned seen;			     /* options so far, bits by enum rule_part */
	unsigned guessed;		     /* those of them that were misspelt */
	unsigned max_flows_seen, rates_seen; /* bits by enum rule_limit_scope */
	unsigned timeouts_seen;		     /* bits by place in timeout_names */
	uint32_t single_timeouts;	     /* see timeout_set() */
	bool no_targets;  /* what should lead to them was wrong: none are expected */
	const char *list; /* keyword of the list that was just read, for a hint; or NULL */

	struct rule_target targets[RULE_TARGETS_MAX];
	struct scan_word target_words[RULE_TARGETS_MAX];
	size_t n_targets;
	char interfaces[RULE_LIST_MAX][IF_NAMESIZE];
	size_t n_interfaces;
	struct ip_prefix from[RULE_LIST_MAX];
	struct scan_word from_words[RULE_LIST_MAX];
	size_t n_from;
	struct scan_word listen_word, snat_word;
};

struct rule_option {
	const char *keyword;
	enum rule_part part;
	void (*read)(struct rule_parser *p, const struct scan_word *keyword);
	bool repeats; /* `read` tells what is given twice */
};

static const struct rule_option *rule_find_option(const struct scan_word *word);

static const char shell_hint[] =
	"a shell took \">\" and what follows it as a redirection: write \"to\" or quote the rule";

static void rule_mark(struct rule_parser *p, enum rule_part part, const struct scan_word *word)
{
	p->rule.spans[part] = (struct rule_span){
		.offset = (uint32_t)(word->start - p->scan.text),
		.length = (uint32_t)word->length,
	};
}

/*
 * Takes the word that must follow `after`. A keyword is no value, unless any word can be one, as
 * names can: reported as missing then, and left for the options.
 */
static bool rule_take_value(struct rule_parser *p, const struct scan_word *after, const char *what,
			    bool any_word, struct scan_word *ret)
{
	struct scan_word word;

	if (scan_peek(&p->scan, &word) && !scan_word_is(&word, ",") &&
	    (any_word || !rule_find_option(&word)))
		return scan_next(&p->scan, ret);
	scan_error(&p->scan, after, NULL, "%s is missing behind \"%.*s\"", what, SCAN_SHOW(after));
	return false;
}

/* Takes `ITEM[,ITEM...]` behind `keyword`, each by `read`. */
static void rule_take_list(struct rule_parser *p, const struct scan_word *keyword, const char *what,
			   bool any_word,
			   void (*read)(struct rule_parser *p, const struct scan_word *word))
{
	struct scan_word after = *keyword, word;

	do {
		if (rule_take_value(p, &after, what, any_word, &word))
			read(p, &word);
		scan_peek(&p->scan, &after);
	} while (!scan_gave_up(&p->scan) && scan_take(&p->scan, ","));
}

/* ---- numbers ---- */

static bool rule_read_port(struct rule_parser *p, const struct scan_word *word, uint16_t *ret)
{
	uint64_t port;
	int r = scan_word_number(word, 1, 65535, &port);

	if (word->length == 0) {
		scan_error(&p->scan, word, "write PORT or FIRST-LAST", "the port is missing");
		return false;
	}
	if (r < 0) {
		scan_error(&p->scan, word, "ports are numbers from 1 to 65535",
			   r == -ERANGE ? "port %.*s is out of range" : "\"%.*s\" is not a port",
			   SCAN_SHOW(word));
		return false;
	}
	*ret = (uint16_t)port;
	return true;
}

static void rule_report_open_range(struct rule_parser *p, const struct scan_word *word)
{
	char hint[SCAN_HINT_MAX];

	scan_error(&p->scan, word,
		   scan_hint(hint, "write FIRST-LAST; if this was \"->\", %s", shell_hint),
		   "the port range \"%.*s\" has no end", SCAN_SHOW(word));
	p->no_targets = true;
}

/* Reads PORT[-PORT]; leaves *ret alone after an error. */
static void rule_read_ports(struct rule_parser *p, const struct scan_word *word,
			    struct port_range *ret)
{
	const char *dash = memchr(word->start, '-', word->length);
	size_t before = dash ? (size_t)(dash - word->start) : word->length;
	struct scan_word part = scan_word_part(word, 0, before);
	struct port_range ports = {0};
	char hint[SCAN_HINT_MAX];
	bool good = rule_read_port(p, &part, &ports.first);

	ports.last = ports.first;
	if (dash && before + 1 == word->length) {
		rule_report_open_range(p, word);
		return;
	}
	if (dash) {
		part = scan_word_part(word, before + 1, word->length - before - 1);
		good = rule_read_port(p, &part, &ports.last) && good;
	}
	if (!good)
		return;
	if (ports.first > ports.last) {
		scan_error(&p->scan, word, scan_hint(hint, "write %u-%u", ports.last, ports.first),
			   "the port range %u-%u runs backwards", ports.first, ports.last);
		return;
	}
	*ret = ports;
}

/* A number of an option within least..most; an error names the option. */
static bool rule_read_number(struct rule_parser *p, const struct scan_word *keyword,
			     const struct scan_word *word, uint64_t least, uint64_t most,
			     uint32_t *ret)
{
	char hint[SCAN_HINT_MAX];
	uint64_t value;

	if (scan_word_number(word, least, most, &value) < 0) {
		scan_hint(hint, "write a number from %llu to %llu", (unsigned long long)least,
			  (unsigned long long)most);
		scan_error(&p->scan, word, hint, "\"%.*s\" is no value for \"%.*s\"",
			   SCAN_SHOW(word), SCAN_SHOW(keyword));
		return false;
	}
	*ret = (uint32_t)value;
	return true;
}

/* ---- addresses ---- */

enum address_use {
	ADDRESS_LISTEN = 1 << 0,
	ADDRESS_TARGET = 1 << 1,
	ADDRESS_FROM = 1 << 2,
	ADDRESS_SNAT = 1 << 3,
};

static bool address_is_prefix(const struct ip_prefix *a)
{
	return !ip_prefix_is_host(a);
}

static bool address_is_unspecified(const struct ip_prefix *a)
{
	static const uint8_t zero[sizeof(a->bytes)];

	return ip_prefix_is_host(a) && memcmp(a->bytes, zero, sizeof(zero)) == 0;
}

/* Unspecified, broadcast or multicast: not one host. */
static bool address_is_no_host(const struct ip_prefix *a)
{
	static const uint8_t broadcast[] = {0xff, 0xff, 0xff, 0xff};

	if (address_is_unspecified(a))
		return true;
	if (a->family == AF_INET6)
		return a->bytes[0] == 0xff;
	return (a->bytes[0] & 0xf0) == 0xe0 || memcmp(a->bytes, broadcast, sizeof(broadcast)) == 0;
}

static bool address_is_loopback(const struct ip_prefix *a)
{
	static const uint8_t last[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

	return a->family == AF_INET ? a->bytes[0] == 127
				    : memcmp(a->bytes, last, sizeof(last)) == 0;
}

/* What is wrong with an address that is well written; the first that applies is reported. */
static const struct {
	unsigned uses; /* of enum address_use */
	bool (*is_wrong)(const struct ip_prefix *);
	const char *problem; /* behind the quoted address */
	const char *hint;
} address_checks[] = {
	{ADDRESS_LISTEN | ADDRESS_TARGET | ADDRESS_FROM | ADDRESS_SNAT, ip_prefix_is_mapped,
	 "stands for IPv4, no packet bears it", "write the IPv4 address"},
	{ADDRESS_TARGET | ADDRESS_SNAT, address_is_prefix, "is not one address",
	 "a prefix cannot stand here"},
	{ADDRESS_TARGET | ADDRESS_SNAT, address_is_no_host, "is not the address of a host", NULL},
	{ADDRESS_SNAT, address_is_loopback, "is an address that no packet leaves this host with",
	 "write an address that answers come back to, or \"masquerade\""},
	{ADDRESS_LISTEN, address_is_unspecified, "is no destination of a packet",
	 "leave it out for every address of this host, or write \"*\" for every destination"},
	{ADDRESS_FROM, address_is_unspecified, "is no source of a packet",
	 "leave \"from\" out for every client; 0.0.0.0/0 is every IPv4 client, [::]/0 every IPv6 "
	 "client"},
};

static bool rule_check_address(struct rule_parser *p, const struct scan_word *word,
			       enum address_use use, const struct ip_prefix *a)
{
	char hint[SCAN_HINT_MAX], buffer[IP_PREFIX_STRLEN];
	struct ip_prefix corrected = *a;

	for (size_t i = 0; i < sizeof(address_checks) / sizeof(address_checks[0]); i++) {
		if (!(address_checks[i].uses & use) || !address_checks[i].is_wrong(a))
			continue;
		scan_error(&p->scan, word, address_checks[i].hint, "\"%.*s\" %s", SCAN_SHOW(word),
			   address_checks[i].problem);
		return false;
	}
	if (ip_prefix_has_host_bits(a)) {
		ip_prefix_clear_host_bits(&corrected);
		scan_error(
			&p->scan, word,
			scan_hint(hint, "did you mean %s?", ip_prefix_format(&corrected, buffer)),
			"\"%.*s\" has bits set behind its prefix length", SCAN_SHOW(word));
		return false;
	}
	return true;
}

static bool rule_read_address(struct rule_parser *p, const struct scan_word *word,
			      enum address_use use, struct ip_prefix *ret)
{
	char text[IP_PREFIX_STRLEN];
	struct ip_prefix a;

	if (!scan_word_copy(word, text, sizeof(text)) || ip_prefix_parse(text, &a) < 0) {
		scan_error(&p->scan, word,
			   use & (ADDRESS_TARGET | ADDRESS_SNAT)
				   ? "write 192.0.2.1 or [2001:db8::1]; names are not looked up"
				   : "write 192.0.2.1, [2001:db8::1] or a prefix: 192.0.2.0/24, "
				     "[2001:db8::]/64; names are not looked up",
			   "\"%.*s\" is not an IP address", SCAN_SHOW(word));
		return false;
	}
	if (!rule_check_address(p, word, use, &a))
		return false;
	*ret = a;
	return true;
}

/* ---- [ADDR:]PORT[-PORT] ---- */

/* Length of what stands in front of the ":" of the ports; the word's own when there is none. */
static size_t rule_measure_address(const struct scan_word *word)
{
	const char *from = word->start, *end = word->start + word->length, *colon;

	if (word->start[0] == '[') {
		from = memchr(word->start, ']', word->length);
		if (!from)
			return word->length;
	}
	colon = memchr(from, ':', (size_t)(end - from));
	return colon ? (size_t)(colon - word->start) : word->length;
}

/* An IPv6 address without brackets, with or without a port behind it? */
static bool rule_lacks_brackets(const struct scan_word *word)
{
	const char *colon = memchr(word->start, ':', word->length);

	return word->start[0] != '[' && colon &&
	       memchr(colon + 1, ':', word->length - (size_t)(colon + 1 - word->start));
}

static bool rule_looks_like_address(const struct scan_word *word)
{
	char text[IP_PREFIX_STRLEN];
	struct ip_prefix a;

	return scan_word_is(word, "*") ||
	       (scan_word_copy(word, text, sizeof(text)) && ip_prefix_parse(text, &a) == 0);
}

/*
 * Cuts a word in two; *ret_address has length 0 when there is no address. False after an error.
 */
static bool rule_split_endpoint(struct rule_parser *p, const struct scan_word *word,
				struct scan_word *ret_address, struct scan_word *ret_ports)
{
	size_t n = rule_measure_address(word);
	char hint[SCAN_HINT_MAX];

	if (rule_lacks_brackets(word)) {
		scan_error(&p->scan, word, "write IPv6 addresses in brackets: [2001:db8::1]:80",
			   "\"%.*s\" is ambiguous", SCAN_SHOW(word));
		return false;
	}
	if (n == word->length && word->start[0] == '[' && !memchr(word->start, ']', n)) {
		scan_error(&p->scan, word, "write [2001:db8::1]:80", "\"[\" has no \"]\"");
		return false;
	}
	if (n == word->length && rule_looks_like_address(word)) {
		scan_error(&p->scan, word, scan_hint(hint, "write %.*s:PORT", SCAN_SHOW(word)),
			   "the port is missing");
		return false;
	}
	if (n == word->length && word->start[0] != '[') {
		*ret_address = scan_word_part(word, 0, 0);
		*ret_ports = *word;
		return true;
	}
	if (n == 0 || n + 1 >= word->length) {
		scan_error(&p->scan, word, "write ADDRESS:PORT, or PORT alone",
			   n == 0 ? "the address is missing in front of \":\""
				  : "the port is missing");
		return false;
	}
	*ret_address = scan_word_part(word, 0, n);
	*ret_ports = scan_word_part(word, n + 1, word->length - n - 1);
	return true;
}

/* ---- PROTO and what it listens on ---- */

static const struct {
	const char *keyword;
	unsigned protocols;
} protocol_words[] = {
	{"tcp", RULE_TCP},
	{"udp", RULE_UDP},
	{"tcp+udp", RULE_TCP | RULE_UDP},
	{"udp+tcp", RULE_TCP | RULE_UDP},
};

#define N_PROTOCOL_WORDS (sizeof(protocol_words) / sizeof(protocol_words[0]))

/* Begins as only ports and addresses do? */
static bool rule_is_endpoint_like(const struct scan_word *word)
{
	return word->length > 0 && strchr("0123456789[*:", word->start[0]) != NULL;
}

static void rule_report_protocol(struct rule_parser *p, const struct scan_word *word)
{
	static const char *const candidates[] = {"tcp", "udp", "tcp+udp"};
	const char *closest = words_closest(word->start, word->length, candidates, 3);
	const char *hint = "write tcp, udp or tcp+udp";
	char buffer[SCAN_HINT_MAX];

	if (scan_word_is(word, "redirect"))
		hint = "leave \"redirect\" out: a rule begins with its protocol";
	else if (closest)
		hint = scan_hint(buffer, "did you mean \"%s\"?", closest);
	scan_error(&p->scan, word, hint, "unknown protocol \"%.*s\"", SCAN_SHOW(word));
}

static void rule_read_protocol(struct rule_parser *p)
{
	struct scan_word word, next;

	scan_peek(&p->scan, &word);
	if (rule_is_endpoint_like(&word) || rule_find_option(&word)) {
		scan_error(&p->scan, &word, "begin with tcp, udp or tcp+udp",
			   "the protocol is missing");
		return;
	}
	scan_next(&p->scan, &word);
	for (size_t i = 0; i < N_PROTOCOL_WORDS; i++)
		if (scan_word_is(&word, protocol_words[i].keyword))
			p->rule.protocols = protocol_words[i].protocols;
	if (!p->rule.protocols)
		rule_report_protocol(p, &word);
	if (scan_word_is(&word, "redirect") && scan_peek(&p->scan, &next) &&
	    !rule_is_endpoint_like(&next))
		scan_next(&p->scan, &next);
	while (scan_peek(&p->scan, &next) && scan_take(&p->scan, ",")) {
		scan_error(&p->scan, &next, "write tcp+udp for both",
			   "protocols are not separated by commas");
		scan_next(&p->scan, &next);
	}
}

static void rule_read_listen_address(struct rule_parser *p, const struct scan_word *address)
{
	if (address->length == 0) {
		p->rule.listen = RULE_LISTEN_LOCAL;
	} else if (scan_word_is(address, "*")) {
		p->rule.listen = RULE_LISTEN_ANY;
	} else {
		p->rule.listen = RULE_LISTEN_PREFIX;
		rule_read_address(p, address, ADDRESS_LISTEN, &p->rule.listen_prefix);
	}
}

static bool rule_is_to(const struct scan_word *word)
{
	return scan_word_is(word, "to") || scan_word_is(word, "->");
}

static void rule_read_listen(struct rule_parser *p)
{
	struct scan_word word, address, ports;

	if (!scan_peek(&p->scan, &word) || rule_is_to(&word) || rule_find_option(&word)) {
		scan_error(&p->scan, &word,
			   "write the port that clients connect to: tcp 8080 to 80",
			   "the port to redirect is missing");
		p->no_targets = !rule_is_to(&word);
		return;
	}
	scan_next(&p->scan, &word);
	p->listen_word = word;
	rule_mark(p, RULE_PART_LISTEN, &word);
	if (rule_split_endpoint(p, &word, &address, &ports)) {
		rule_read_listen_address(p, &address);
		rule_read_ports(p, &ports, &p->rule.ports);
	}
	while (scan_peek(&p->scan, &word) && scan_take(&p->scan, ",")) {
		scan_error(&p->scan, &word, "write one rule for each, or FIRST-LAST",
			   "a rule listens on one port or one range");
		scan_next(&p->scan, &word);
	}
}

/* ---- to TARGET[,TARGET...] ---- */

static void rule_check_target_twice(struct rule_parser *p, const struct scan_word *word,
				    const struct rule_target *t)
{
	for (size_t i = 0; i < p->n_targets; i++) {
		const struct rule_target *other = &p->targets[i];

		if (!ip_prefix_equal(&t->address, &other->address) ||
		    t->ports.first != other->ports.first || t->ports.last != other->ports.last ||
		    t->ports.first == 0)
			continue;
		scan_error(&p->scan, word, "to favour a target, write \"weight N\" behind it",
			   "target \"%.*s\" is given twice", SCAN_SHOW(word));
		return;
	}
}

static void rule_read_weight(struct rule_parser *p, const struct scan_word *target, uint32_t *ret)
{
	struct scan_word keyword, word;
	bool again = false;

	while (scan_peek(&p->scan, &keyword) && scan_take(&p->scan, "weight")) {
		if (again)
			scan_error(&p->scan, &keyword, NULL, "target \"%.*s\" has two weights",
				   SCAN_SHOW(target));
		again = true;
		if (!rule_take_value(p, &keyword, "a number", false, &word))
			continue;
		rule_read_number(p, &keyword, &word, 0, RULE_WEIGHT_MAX, ret);
	}
}

static bool rule_read_target_address(struct rule_parser *p, const struct scan_word *word,
				     struct ip_prefix *ret)
{
	if (!scan_word_is(word, "*"))
		return rule_read_address(p, word, ADDRESS_TARGET, ret);
	scan_error(&p->scan, word, "leave it out: the packet then keeps its destination address",
		   "\"*\" is no target");
	return false;
}

static void rule_read_target(struct rule_parser *p, const struct scan_word *word)
{
	struct rule_target t = {.weight = 1};
	struct scan_word address, ports;
	bool good = true;

	if (rule_split_endpoint(p, word, &address, &ports)) {
		if (address.length > 0)
			good = rule_read_target_address(p, &address, &t.address);
		rule_read_ports(p, &ports, &t.ports);
		if (!good)
			t.ports = (struct port_range){0};
	}
	rule_check_target_twice(p, word, &t);
	rule_read_weight(p, word, &t.weight);

	if (p->n_targets == RULE_TARGETS_MAX) {
		scan_error(&p->scan, word, NULL, "more than %d targets", RULE_TARGETS_MAX);
		return;
	}
	p->target_words[p->n_targets] = *word;
	p->targets[p->n_targets++] = t;
}

/* Is this word a misspelt "to", and not the beginning of the options? Reports it then. */
static void rule_report_to(struct rule_parser *p, const struct scan_word *word)
{
	static const char *const candidates[] = {"to"};
	const char *hint = "write tcp 8080 to 80";

	if (words_closest(word->start, word->length, candidates, 1))
		hint = "did you mean \"to\"?";
	scan_error(&p->scan, word, hint, "\"to\" is missing in front of \"%.*s\"", SCAN_SHOW(word));
}

/* Takes "to" or "->" or what stands for it; false when no targets are to be read. */
static bool rule_read_to(struct rule_parser *p, struct scan_word *ret_after)
{
	struct scan_word word;

	*ret_after = p->listen_word;
	if (!scan_peek(&p->scan, &word)) {
		if (!p->no_targets)
			scan_error(&p->scan, &word, "write where to: tcp 8080 to 80",
				   "\"to TARGET\" is missing");
		return false;
	}
	if (scan_word_is(&word, "-")) {
		scan_next(&p->scan, &word);
		scan_error(&p->scan, &word, shell_hint, "\"-\" leads nowhere");
		return false;
	}
	if (rule_is_to(&word)) {
		*ret_after = word;
		return scan_next(&p->scan, &word);
	}
	if (p->no_targets)
		return false;
	if (rule_is_endpoint_like(&word))
		return true;
	if (rule_find_option(&word)) {
		scan_error(&p->scan, &word, "write where to: tcp 8080 to 80",
			   "\"to TARGET\" is missing in front of \"%.*s\"", SCAN_SHOW(&word));
		return false;
	}
	rule_report_to(p, &word);
	*ret_after = word;
	return scan_next(&p->scan, &word);
}

static void rule_read_targets(struct rule_parser *p)
{
	struct scan_word after, list, end;

	if (!rule_read_to(p, &after))
		return;
	scan_peek(&p->scan, &list);
	rule_take_list(p, &after, "the target", false, rule_read_target);
	end = (struct scan_word){p->scan.text + p->scan.offset, 0};
	if (p->n_targets > 0) {
		list = scan_word_join(&list, &end);
		rule_mark(p, RULE_PART_TARGETS, &list);
	}
	if (scan_peek(&p->scan, &after) && rule_is_endpoint_like(&after))
		p->list = "to";
}

/* ---- options ---- */

static void rule_add_interface(struct rule_parser *p, const struct scan_word *word)
{
	const char *problem = iface_name_problem(word->start, word->length);

	if (problem) {
		scan_error(&p->scan, word, NULL, "\"%.*s\" %s", SCAN_SHOW(word), problem);
		return;
	}
	for (size_t i = 0; i < p->n_interfaces; i++) {
		if (!scan_word_is(word, p->interfaces[i]))
			continue;
		scan_error(&p->scan, word, NULL, "interface \"%.*s\" is given twice",
			   SCAN_SHOW(word));
		return;
	}
	if (p->n_interfaces == RULE_LIST_MAX) {
		scan_error(&p->scan, word, NULL, "more than %d interfaces", RULE_LIST_MAX);
		return;
	}
	scan_word_copy(word, p->interfaces[p->n_interfaces++], IF_NAMESIZE);
}

static void rule_read_on(struct rule_parser *p, const struct scan_word *keyword)
{
	rule_take_list(p, keyword, "an interface", true, rule_add_interface);
	p->list = "on";
}

static void rule_add_from(struct rule_parser *p, const struct scan_word *word)
{
	struct ip_prefix prefix;

	if (!rule_read_address(p, word, ADDRESS_FROM, &prefix))
		return;
	for (size_t i = 0; i < p->n_from; i++) {
		if (!ip_prefix_equal(&prefix, &p->from[i]))
			continue;
		scan_error(&p->scan, word, NULL, "prefix \"%.*s\" is given twice", SCAN_SHOW(word));
		return;
	}
	if (p->n_from == RULE_LIST_MAX) {
		scan_error(&p->scan, word, NULL, "more than %d prefixes", RULE_LIST_MAX);
		return;
	}
	p->from_words[p->n_from] = *word;
	p->from[p->n_from++] = prefix;
}

static void rule_read_from(struct rule_parser *p, const struct scan_word *keyword)
{
	rule_take_list(p, keyword, "a prefix", false, rule_add_from);
	p->list = "from";
}

bool rule_name_is_valid(const char *name, size_t length)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789_.-";

	for (size_t i = 0; i < length; i++)
		if (name[i] == '\0' || !strchr(allowed, name[i]))
			return false;
	return length > 0 && length <= RULE_NAME_MAX;
}

static void rule_read_name(struct rule_parser *p, const struct scan_word *keyword)
{
	struct scan_word word;

	if (!rule_take_value(p, keyword, "a name", true, &word))
		return;
	if (rule_name_is_valid(word.start, word.length))
		scan_word_copy(&word, p->rule.name, sizeof(p->rule.name));
	else
		scan_error(&p->scan, &word, "names are 1 to 63 of the characters A-Z a-z 0-9 _ . -",
			   "\"%.*s\" cannot be a name", SCAN_SHOW(&word));
}

static void rule_read_masquerade(struct rule_parser *p, const struct scan_word *keyword)
{
	p->rule.masquerade = true;
}

static void rule_read_snat(struct rule_parser *p, const struct scan_word *keyword)
{
	if (rule_take_value(p, keyword, "an address", false, &p->snat_word))
		rule_read_address(p, &p->snat_word, ADDRESS_SNAT, &p->rule.snat);
}

/* Takes one of `words` behind the keyword and returns its index; -1 after an error. */
static int rule_take_choice(struct rule_parser *p, const struct scan_word *keyword,
			    const char *what, const char *const words[static 3])
{
	char all[64], hint[SCAN_HINT_MAX];
	const char *closest;
	struct scan_word word;

	snprintf(all, sizeof(all), "%s, %s or %s", words[0], words[1], words[2]);
	if (!rule_take_value(p, keyword, all, false, &word))
		return -1;
	for (int i = 0; i < 3; i++)
		if (scan_word_is(&word, words[i]))
			return i;
	closest = words_closest(word.start, word.length, words, 3);
	if (closest)
		scan_hint(hint, "did you mean \"%s\"?", closest);
	else
		scan_hint(hint, "write %s", all);
	scan_error(&p->scan, &word, hint, "unknown %s \"%.*s\"", what, SCAN_SHOW(&word));
	return -1;
}

static void rule_read_balance(struct rule_parser *p, const struct scan_word *keyword)
{
	static const char *const words[] = {
		[RULE_BALANCE_HASH] = "hash",
		[RULE_BALANCE_RANDOM] = "random",
		[RULE_BALANCE_MAGLEV] = "maglev",
	};
	int choice = rule_take_choice(p, keyword, "balance", words);

	if (choice >= 0)
		p->rule.balance = (enum rule_balance)choice;
}

/* ---- limits ---- */

/* Takes the `per source` that may stand behind a limit. */
static enum rule_limit_scope rule_take_scope(struct rule_parser *p)
{
	static const char *const words[] = {"source"};
	struct scan_word per, word;
	const char *hint;

	if (!scan_peek(&p->scan, &per) || !scan_take(&p->scan, "per"))
		return RULE_LIMIT_ALL;
	if (!rule_take_value(p, &per, "\"source\"", false, &word))
		return RULE_LIMIT_SOURCE;
	if (!scan_word_is(&word, words[0])) {
		hint = words_closest(word.start, word.length, words, 1)
			       ? "did you mean \"source\"?"
			       : "limits are for the whole rule, or \"per source\"";
		scan_error(&p->scan, &word, hint, "flows are not counted per \"%.*s\"",
			   SCAN_SHOW(&word));
	}
	return RULE_LIMIT_SOURCE;
}

/* Of each kind of limit there is one for all flows and one per source. */
static void rule_claim_limit(struct rule_parser *p, const struct scan_word *keyword,
			     enum rule_limit_scope scope, unsigned *seen)
{
	if (*seen & 1U << scope)
		scan_error(&p->scan, keyword, NULL, "\"%.*s\"%s is given twice", SCAN_SHOW(keyword),
			   scope == RULE_LIMIT_SOURCE ? " per source" : "");
	*seen |= 1U << scope;
}

static void rule_read_max_flows(struct rule_parser *p, const struct scan_word *keyword)
{
	enum rule_limit_scope scope;
	struct scan_word word;
	uint32_t flows = 0;

	if (rule_take_value(p, keyword, "a number", false, &word))
		rule_read_number(p, keyword, &word, 1, RULE_FLOWS_MAX, &flows);
	scope = rule_take_scope(p);
	rule_claim_limit(p, keyword, scope, &p->max_flows_seen);
	p->rule.limits[scope].max_flows = flows;
}

static const struct {
	const char *unit, *word;
	uint32_t seconds;
} rate_units[] = {
	{"s", "second", 1},
	{"m", "minute", 60},
	{"h", "hour", 3600},
};

#define N_RATE_UNITS (sizeof(rate_units) / sizeof(rate_units[0]))

static void rule_report_rate(struct rule_parser *p, const struct scan_word *word,
			     const struct scan_word *number, const struct scan_word *unit)
{
	const char *hint = "write new flows a second, minute or hour: 100/s, 10/m, 5/h";
	const char *words[N_RATE_UNITS], *closest;
	char buffer[SCAN_HINT_MAX];

	for (size_t i = 0; i < N_RATE_UNITS; i++)
		words[i] = rate_units[i].word;
	closest = words_closest(unit->start, unit->length, words, N_RATE_UNITS);
	if (closest)
		hint = scan_hint(buffer, "did you mean %.*s/%c?", SCAN_SHOW(number), *closest);
	scan_error(&p->scan, word, hint, "\"%.*s\" is no rate", SCAN_SHOW(word));
}

/* Reads N/UNIT; leaves *l alone after an error. */
static void rule_read_rate_value(struct rule_parser *p, const struct scan_word *keyword,
				 const struct scan_word *word, struct rule_limit *l)
{
	const char *slash = memchr(word->start, '/', word->length);
	size_t before = slash ? (size_t)(slash - word->start) : word->length;
	struct scan_word number = scan_word_part(word, 0, before);
	struct scan_word unit = scan_word_part(word, before, 0);

	if (slash)
		unit = scan_word_part(word, before + 1, word->length - before - 1);
	for (size_t i = 0; i < N_RATE_UNITS && before > 0; i++) {
		if (!scan_word_is(&unit, rate_units[i].unit))
			continue;
		if (rule_read_number(p, keyword, &number, 1, RULE_RATE_MAX, &l->rate))
			l->rate_seconds = rate_units[i].seconds;
		return;
	}
	rule_report_rate(p, word, &number, &unit);
}

static void rule_read_rate(struct rule_parser *p, const struct scan_word *keyword)
{
	struct rule_limit read = {0}, *limit;
	enum rule_limit_scope scope;
	struct scan_word word, burst;

	if (rule_take_value(p, keyword, "a rate", false, &word))
		rule_read_rate_value(p, keyword, &word, &read);
	if (scan_peek(&p->scan, &burst) && scan_take(&p->scan, "burst") &&
	    rule_take_value(p, &burst, "a number", false, &word))
		rule_read_number(p, &burst, &word, 1, RULE_RATE_MAX, &read.burst);
	scope = rule_take_scope(p);
	rule_claim_limit(p, keyword, scope, &p->rates_seen);
	limit = &p->rule.limits[scope];
	limit->rate = read.rate;
	limit->rate_seconds = read.rate_seconds;
	limit->burst = read.burst == read.rate ? 0 : read.burst;
}

/* ---- timeouts, changes ---- */

static const char *rule_protocol_word(unsigned protocols)
{
	return protocols == RULE_TCP ? "tcp" : "udp";
}

/* A timeout that no flow of the rule could have. */
static void rule_check_timeout(struct rule_parser *p, const struct timeout_name *name,
			       const struct scan_word *word)
{
	unsigned protocol = name->states & TIMEOUT_UDP ? RULE_UDP : RULE_TCP;
	char hint[SCAN_HINT_MAX];

	if (!p->rule.protocols || p->rule.protocols & protocol)
		return;
	scan_hint(hint, "leave it out; timeouts of this rule begin with \"%s\"",
		  rule_protocol_word(p->rule.protocols));
	scan_error(&p->scan, word, hint, "\"%s\" is no timeout of a rule for %s", name->name,
		   rule_protocol_word(p->rule.protocols));
}

static void rule_claim_timeout(struct rule_parser *p, const struct timeout_name *name,
			       const struct scan_word *word)
{
	unsigned bit = 1U << (name - timeout_names);

	if (p->timeouts_seen & bit)
		scan_error(&p->scan, word, NULL, "timeout \"%s\" is given twice", name->name);
	p->timeouts_seen |= bit;
}

static void rule_read_timeout(struct rule_parser *p, const struct scan_word *keyword)
{
	const struct timeout_name *name;
	struct scan_word word, duration;
	uint32_t seconds;

	if (!rule_take_value(p, keyword, "the name of a timeout", false, &word))
		return;
	name = timeout_find(&p->scan, &word);
	if (name) {
		rule_check_timeout(p, name, &word);
		rule_claim_timeout(p, name, &word);
	} else if (!scan_peek(&p->scan, &duration) || rule_find_option(&duration)) {
		return;
	}
	if (rule_take_value(p, &word, "a duration", false, &duration) &&
	    timeout_read_seconds(&p->scan, &duration, &seconds) && name)
		timeout_set(name, seconds, p->rule.timeouts, &p->single_timeouts);
}

static void rule_read_drain(struct rule_parser *p, const struct scan_word *keyword)
{
	struct scan_word word;

	if (rule_take_value(p, keyword, "a duration", false, &word))
		timeout_read_seconds(&p->scan, &word, &p->rule.drain_seconds);
}

static void rule_read_on_change(struct rule_parser *p, const struct scan_word *keyword)
{
	static const char *const words[] = {
		[RULE_ON_CHANGE_KEEP] = "keep",
		[RULE_ON_CHANGE_DRAIN] = "drain",
		[RULE_ON_CHANGE_RESET] = "reset",
	};
	int choice = rule_take_choice(p, keyword, "on-change", words);
	struct scan_word drain;

	if (choice < 0)
		return;
	p->rule.on_change = (enum rule_on_change)choice;
	if (p->rule.on_change == RULE_ON_CHANGE_DRAIN) {
		drain = (struct scan_word){p->scan.text + p->scan.offset - 5, 5};
		rule_read_drain(p, &drain);
	}
}

static void rule_read_disabled(struct rule_parser *p, const struct scan_word *keyword)
{
	p->rule.disabled = true;
}

/* Words that belong behind others, among the options. */
static const struct {
	const char *keyword, *place, *hint;
} stray_words[] = {
	{"weight", "its target", "write to 192.0.2.1:80 weight 3,192.0.2.2:80"},
	{"burst", "its rate", "write rate 10/s burst 50"},
	{"per", "its limit", "write max-flows 20 per source, rate 10/s per source"},
};

static void rule_read_stray(struct rule_parser *p, const struct scan_word *keyword)
{
	struct scan_word word;

	for (size_t i = 0; i < sizeof(stray_words) / sizeof(stray_words[0]); i++)
		if (scan_word_is(keyword, stray_words[i].keyword))
			scan_error(&p->scan, keyword, stray_words[i].hint,
				   "\"%.*s\" belongs right behind %s", SCAN_SHOW(keyword),
				   stray_words[i].place);
	if (scan_peek(&p->scan, &word) && !rule_find_option(&word))
		scan_next(&p->scan, &word);
}

static const struct rule_option rule_options[] = {
	{"on", RULE_PART_ON, rule_read_on, false},
	{"from", RULE_PART_FROM, rule_read_from, false},
	{"name", RULE_PART_NAME, rule_read_name, false},
	{"masquerade", RULE_PART_MASQUERADE, rule_read_masquerade, false},
	{"snat", RULE_PART_SNAT, rule_read_snat, false},
	{"balance", RULE_PART_BALANCE, rule_read_balance, false},
	{"max-flows", RULE_PART_MAX_FLOWS, rule_read_max_flows, true},
	{"rate", RULE_PART_RATE, rule_read_rate, true},
	{"timeout", RULE_PART_TIMEOUT, rule_read_timeout, true},
	{"on-change", RULE_PART_ON_CHANGE, rule_read_on_change, false},
	{"disabled", RULE_PART_DISABLED, rule_read_disabled, false},
	{"weight", RULE_PART_STRAY, rule_read_stray, true},
	{"burst", RULE_PART_STRAY, rule_read_stray, true},
	{"per", RULE_PART_STRAY, rule_read_stray, true},
};

#define N_OPTIONS (sizeof(rule_options) / sizeof(rule_options[0]))

static const struct rule_option *rule_find_option(const struct scan_word *word)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (scan_word_is(word, rule_options[i].keyword))
			return &rule_options[i];
	return NULL;
}

/* Reports a word that is no option; returns the one that was probably meant, or NULL. */
static const struct rule_option *rule_guess_option(struct rule_parser *p,
						   const struct scan_word *word)
{
	const char *hint =
		"options are on, from, name, masquerade, snat, balance, max-flows, rate, "
		"timeout, on-change, disabled";
	const char *keywords[N_OPTIONS], *closest;
	char buffer[SCAN_HINT_MAX];
	const struct rule_option *option;
	struct scan_word guess;

	for (size_t i = 0; i < N_OPTIONS; i++)
		keywords[i] = rule_options[i].keyword;
	closest = words_closest(word->start, word->length, keywords, N_OPTIONS);
	if (closest)
		hint = scan_hint(buffer, "did you mean \"%s\"?", closest);
	else if (p->list)
		hint = scan_hint(buffer, "if it belongs to \"%s\", put a comma in front of it",
				 p->list);
	scan_error(&p->scan, word, hint, "unknown option \"%.*s\"", SCAN_SHOW(word));
	if (!closest)
		return NULL;
	guess = (struct scan_word){closest, strlen(closest)};
	option = rule_find_option(&guess);
	p->guessed |= 1U << option->part;
	return option;
}

/* Words that stand among the options and are none, each with its own advice. */
static bool rule_report_stray(struct rule_parser *p, const struct scan_word *word)
{
	struct scan_word skipped;

	if (scan_word_is(word, "-")) {
		scan_error(&p->scan, word, shell_hint, "\"-\" leads nowhere");
	} else if (scan_word_is(word, ",")) {
		scan_error(&p->scan, word, NULL, "nothing for \",\" to separate");
	} else if (rule_is_to(word)) {
		scan_error(&p->scan, word, "several targets are a list: to 80,81",
			   "a second \"%.*s\"", SCAN_SHOW(word));
		scan_next(&p->scan, &skipped);
	} else {
		return false;
	}
	return true;
}

static void rule_read_option(struct rule_parser *p, const struct rule_option *option,
			     const struct scan_word *word)
{
	struct scan_word end, whole;

	if (p->seen & (1U << option->part) && !option->repeats)
		scan_error(&p->scan, word, NULL, "\"%s\" is given twice", option->keyword);
	p->seen |= 1U << option->part;
	option->read(p, word);
	end = (struct scan_word){p->scan.text + p->scan.offset, 0};
	whole = scan_word_join(word, &end);
	rule_mark(p, option->part, &whole);
}

static void rule_read_options(struct rule_parser *p)
{
	const struct rule_option *option;
	struct scan_word word;

	while (!scan_gave_up(&p->scan) && scan_next(&p->scan, &word)) {
		if (rule_report_stray(p, &word))
			continue;
		option = rule_find_option(&word);
		if (!option)
			option = rule_guess_option(p, &word);
		p->list = NULL;
		if (option)
			rule_read_option(p, option, &word);
	}
}

/* ---- checks across parts ---- */

static unsigned rule_count_ports(const struct port_range *ports)
{
	return ports->last - ports->first + 1U;
}

static void rule_check_ranges(struct rule_parser *p)
{
	unsigned here = rule_count_ports(&p->rule.ports), there;
	char hint[SCAN_HINT_MAX];

	if (p->rule.ports.first == 0)
		return;
	for (size_t i = 0; i < p->n_targets; i++) {
		const struct port_range *ports = &p->targets[i].ports;

		there = rule_count_ports(ports);
		if (ports->first == 0 || there == 1 || there == here)
			continue;
		if (here > 1 && ports->first + here - 1 <= 65535)
			scan_hint(hint, "write %u-%u, or one port", ports->first,
				  ports->first + here - 1);
		else
			scan_hint(hint, "write one port");
		scan_error(&p->scan, &p->target_words[i], hint,
			   "%u port%s cannot go to %u: a range goes to one of the same length or "
			   "to one port",
			   here, here == 1 ? "" : "s", there);
	}
}

/* A target that leaves the packet as it is, for every port of the range. */
static bool rule_target_is_self(const struct rule *r, const struct rule_target *t)
{
	if (t->ports.first == 0 || t->ports.first != r->ports.first ||
	    t->ports.last != r->ports.last)
		return false;
	return t->address.family == 0 ||
	       (r->listen == RULE_LISTEN_PREFIX && ip_prefix_equal(&t->address, &r->listen_prefix));
}

/*
 * Among several targets this host may be one, and a new source may be all that is wanted of
 * packets in transit; else it would be a rule that does nothing.
 */
static void rule_check_self(struct rule_parser *p)
{
	unsigned source = 1U << RULE_PART_SNAT | 1U << RULE_PART_MASQUERADE;

	if (p->n_targets != 1 || !rule_target_is_self(&p->rule, &p->targets[0]))
		return;
	if (p->rule.listen != RULE_LISTEN_LOCAL && (p->seen | p->guessed) & source)
		return;
	scan_error(&p->scan, &p->target_words[0], "write another port",
		   "port %.*s is redirected to itself", SCAN_SHOW(&p->target_words[0]));
}

static void rule_check_weights(struct rule_parser *p)
{
	for (size_t i = 0; i < p->n_targets; i++)
		if (p->targets[i].weight > 0)
			return;
	if (p->n_targets > 0)
		scan_error(&p->scan, &p->target_words[0],
			   "give one target another weight, or write \"disabled\"",
			   "no target gets new flows: %s",
			   p->n_targets == 1 ? "its weight is 0" : "each has weight 0");
}

struct rule_family_check {
	uint8_t family; /* of the first part that has one */
	struct scan_word word;
};

static void rule_check_family(struct rule_parser *p, struct rule_family_check *first,
			      const struct ip_prefix *a, const struct scan_word *word)
{
	if (a->family == 0)
		return;
	if (first->family == 0) {
		first->family = a->family;
		first->word = *word;
	} else if (first->family != a->family) {
		scan_error(&p->scan, word, "write one rule for IPv4 and one for IPv6",
			   "\"%.*s\" is %s, but \"%.*s\" is not", SCAN_SHOW(word),
			   a->family == AF_INET ? "IPv4" : "IPv6", SCAN_SHOW(&first->word));
	}
}

static void rule_check_families(struct rule_parser *p)
{
	struct rule_family_check first = {0};

	rule_check_family(p, &first, &p->rule.listen_prefix, &p->listen_word);
	for (size_t i = 0; i < p->n_targets; i++)
		rule_check_family(p, &first, &p->targets[i].address, &p->target_words[i]);
	rule_check_family(p, &first, &p->rule.snat, &p->snat_word);
	if (first.family == 0)
		return;
	for (size_t i = 0; i < p->n_from; i++)
		rule_check_family(p, &first, &p->from[i], &p->from_words[i]);
}

/* Reports an option as a whole, as it was read. */
static struct scan_word rule_part_word(const struct rule_parser *p, enum rule_part part)
{
	const struct rule_span *span = &p->rule.spans[part];

	return (struct scan_word){p->scan.text + span->offset, span->length};
}

static void rule_check_source(struct rule_parser *p)
{
	bool snat = p->seen & (1U << RULE_PART_SNAT);
	struct scan_word word;

	if (p->guessed & (1U << RULE_PART_SNAT | 1U << RULE_PART_MASQUERADE))
		return;
	if (!snat && !p->rule.masquerade)
		return;
	word = rule_part_word(p, snat ? RULE_PART_SNAT : RULE_PART_MASQUERADE);
	if (snat && p->rule.masquerade)
		scan_error(&p->scan, &word, "keep one of them",
			   "\"masquerade\" and \"snat\" both set the source address");
	if (p->rule.listen != RULE_LISTEN_LOCAL || p->rule.ports.first == 0 || p->n_targets == 0)
		return;
	for (size_t i = 0; i < p->n_targets; i++)
		if (p->targets[i].address.family != 0 || p->targets[i].ports.first == 0)
			return;
	scan_error(&p->scan, &word,
		   "give the target an address, or take packets in transit with \"*:PORT\"",
		   "\"%s\" is for packets that leave this host, these stay",
		   snat ? "snat" : "masquerade");
}

static void rule_check_length(struct rule_parser *p, const struct rule *r)
{
	_cleanup_(freep) char *text = NULL;
	struct scan_word all = {p->scan.text, strlen(p->scan.text)};

	if (rule_format(r, &text) == 0 && strlen(text) > RULE_TEXT_MAX)
		scan_error(&p->scan, &all, "split it into several rules",
			   "the rule is longer than %d bytes", RULE_TEXT_MAX);
}

/* ---- the whole ---- */

static void rule_read(struct rule_parser *p)
{
	struct scan_word word;

	if (!scan_peek(&p->scan, &word)) {
		scan_error(&p->scan, &word, "write a rule: tcp 8080 to 80", "the rule is missing");
		return;
	}
	rule_read_protocol(p);
	rule_read_listen(p);
	rule_read_targets(p);
	rule_read_options(p);

	rule_check_ranges(p);
	rule_check_weights(p);
	rule_check_self(p);
	rule_check_families(p);
	rule_check_source(p);
}

int rule_parse(const char *text, const struct diag_place *place, struct diag *diag,
	       struct rule **ret)
{
	struct rule_parser p = {
		.scan = {.text = text, .place = place, .diag = diag, .split = true},
	};
	_cleanup_(rule_freep) struct rule *rule = NULL;
	struct rule borrowed;
	int r;

	rule_read(&p);
	borrowed = p.rule;
	borrowed.targets = p.targets;
	borrowed.n_targets = p.n_targets;
	borrowed.interfaces = p.interfaces;
	borrowed.n_interfaces = p.n_interfaces;
	borrowed.from = p.from;
	borrowed.n_from = p.n_from;
	if (p.scan.n_errors == 0)
		rule_check_length(&p, &borrowed);
	if (p.scan.n_errors > 0)
		return -EINVAL;

	r = rule_copy(&borrowed, &rule);
	if (r < 0)
		return r;
	*ret = take_ptr(rule);
	return 0;
}
