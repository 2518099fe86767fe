/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `nft -j list ruleset` prints (libnftables-json(5)): chains of type nat, and those that they
 * jump to. JSON has no lines here: a rule's place is its table, chain and handle, as `nft -a`
 * shows.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/import-nat.h"

static const char *string_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* ---- values ---- */

/* Calls `add` for each element of a set, or for the value itself. False: one of them said so. */
static bool for_each(const json_t *value, struct nat_rule *r,
		     bool (*add)(struct nat_rule *r, const json_t *value))
{
	const json_t *set = json_object_get(value, "set");

	if (!set)
		return add(r, value);
	if (!json_is_array(set))
		return add(r, set);
	for (size_t n = 0; n < json_array_size(set); n++)
		if (!add(r, json_array_get(set, n)))
			return false;
	return true;
}

static int read_range(const json_t *value, struct port_range *ret)
{
	const json_t *range = json_object_get(value, "range");
	json_int_t first = json_integer_value(range ? json_array_get(range, 0) : value);
	json_int_t last = json_integer_value(range ? json_array_get(range, 1) : value);

	if (json_is_string(value))
		return import_read_port(json_string_value(value), ret);
	if (first < 1 || last > UINT16_MAX || first > last)
		return -EINVAL;
	*ret = (struct port_range){(uint16_t)first, (uint16_t)last};
	return 0;
}

static bool add_port(struct nat_rule *r, const json_t *value)
{
	struct port_range range;

	return read_range(value, &range) == 0 && import_add_ports(&r->match, &range) == 0;
}

static bool add_prefix(struct import_prefixes *p, const json_t *value)
{
	const json_t *prefix = json_object_get(value, "prefix");
	char text[64];

	if (json_is_string(value))
		return import_add_prefix(p, json_string_value(value)) == 0;
	if (!string_of(prefix, "addr"))
		return false;
	snprintf(text, sizeof(text), "%s/%d", string_of(prefix, "addr"),
		 (int)json_integer_value(json_object_get(prefix, "len")));
	return import_add_prefix(p, text) == 0;
}

static bool add_listen(struct nat_rule *r, const json_t *value)
{
	return add_prefix(&r->match.listen, value);
}

static bool add_from(struct nat_rule *r, const json_t *value)
{
	return add_prefix(&r->match.from, value);
}

static bool add_interface(struct nat_rule *r, const json_t *value)
{
	const char *name = json_string_value(value);

	return name && !strchr(name, '*') && import_add_interface(&r->match, name) == 0;
}

static bool add_protocol(struct nat_rule *r, const json_t *value)
{
	const char *name = json_string_value(value);

	if (name && strcmp(name, "tcp") == 0)
		r->match.protocols |= RULE_TCP;
	else if (name && strcmp(name, "udp") == 0)
		r->match.protocols |= RULE_UDP;
	else
		return false;
	return true;
}

static bool set_out(struct nat_rule *r, const json_t *value)
{
	const char *name = json_string_value(value);

	if (!name || strchr(name, '*') || strlen(name) >= sizeof(r->out))
		return false;
	strcpy(r->out, name);
	return true;
}

static bool set_local(struct nat_rule *r, const json_t *value)
{
	r->local = true;
	return json_is_string(value) && strcmp(json_string_value(value), "local") == 0;
}

static bool is_new(struct nat_rule *r, const json_t *value)
{
	return json_is_string(value) && strcmp(json_string_value(value), "new") == 0;
}

static bool is_family(struct nat_rule *r, const json_t *value)
{
	return true; /* addresses tell it, or it does not matter */
}

/* ---- matches ---- */

/* By what is compared: the kind of expression, and two of its words. */
static const struct {
	const char *kind, *first, *second;
	bool (*add)(struct nat_rule *r, const json_t *value);
} matches[] = {
	{"payload", "tcp", "dport", add_port},
	{"payload", "udp", "dport", add_port},
	{"payload", "th", "dport", add_port},
	{"payload", "ip", "daddr", add_listen},
	{"payload", "ip6", "daddr", add_listen},
	{"payload", "ip", "saddr", add_from},
	{"payload", "ip6", "saddr", add_from},
	{"payload", "ip", "protocol", add_protocol},
	{"payload", "ip6", "nexthdr", add_protocol},
	{"meta", "l4proto", NULL, add_protocol},
	{"meta", "iifname", NULL, add_interface},
	{"meta", "iif", NULL, add_interface},
	{"meta", "oifname", NULL, set_out},
	{"meta", "oif", NULL, set_out},
	{"meta", "nfproto", NULL, is_family},
	{"meta", "protocol", NULL, is_family},
	{"ct", "state", NULL, is_new},
	{"fib", "type", NULL, set_local},
};

/* The words of the left side: payload has a protocol and a field, fib a result, others a key. */
static void left_words(const json_t *left, const char **kind, const char **first,
		       const char **second)
{
	void *at = json_object_iter((json_t *)left);
	const json_t *inside = json_object_iter_value(at);

	*kind = json_object_iter_key(at);
	*first = string_of(inside, "protocol");
	*second = string_of(inside, "field");
	if (!*first)
		*first = string_of(inside, "key");
	if (!*first)
		*first = string_of(inside, "result");
}

static bool word_is(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void read_inverted(struct nat_rule *r, const char *first, const json_t *right)
{
	_cleanup_(freep) char *value = json_dumps(right, JSON_ENCODE_ANY);

	if (first && strncmp(first, "iif", 3) == 0)
		nat_set_broader(
			r,
			"`%s != %s` is left out: packets that come in there are redirected, "
			"too",
			first, value);
	else
		nat_set_problem(r, "`!= %s`: rules have no exceptions", value);
}

static void read_match(struct nat_rule *r, const json_t *match)
{
	const json_t *left = json_object_get(match, "left"),
		     *right = json_object_get(match, "right");
	const char *op = string_of(match, "op"), *kind, *first, *second;

	left_words(left, &kind, &first, &second);
	if (op && strcmp(op, "!=") == 0) {
		read_inverted(r, first, right);
		return;
	}
	for (size_t n = 0; n < sizeof(matches) / sizeof(matches[0]); n++) {
		if (!word_is(kind, matches[n].kind) || !word_is(first, matches[n].first) ||
		    !word_is(second, matches[n].second))
			continue;
		/* `tcp dport` says the protocol as well. */
		if (matches[n].add == add_port && strcmp(first, "th") != 0)
			r->match.protocols = strcmp(first, "tcp") == 0 ? RULE_TCP : RULE_UDP;
		if (!for_each(right, r, matches[n].add))
			nat_set_problem(r, "its value of %s %s is not understood", first,
					second ? second : "");
		return;
	}
	nat_set_problem(r, "it is limited by %s%s%s%s%s", kind ? kind : "something",
			first ? " " : "", first ? first : "", second ? " " : "",
			second ? second : "");
}

/* ---- statements ---- */

static void read_target(struct nat_rule *r, const json_t *value)
{
	const json_t *address = json_object_get(value, "addr"),
		     *port = json_object_get(value, "port");

	r->verdict = NAT_REDIRECT;
	if (address && (!json_is_string(address) ||
			ip_prefix_parse(json_string_value(address), &r->match.target) < 0))
		nat_set_problem(r, "its target is not one address, but a map or a range");
	else if (port && read_range(port, &r->match.target_ports) < 0)
		nat_set_problem(r, "its target is not a port or a range, but a map");
}

static void read_source(struct nat_rule *r, const json_t *value)
{
	const json_t *address = json_object_get(value, "addr");

	r->verdict = NAT_SOURCE;
	if (address && (!json_is_string(address) ||
			ip_prefix_parse(json_string_value(address), &r->match.snat) < 0))
		nat_set_problem(r, "its source is not one address");
}

static void read_jump(struct nat_rule *r, const json_t *value)
{
	const char *target = string_of(value, "target");

	r->verdict = NAT_JUMP;
	free(r->jump);
	r->jump = target ? strdup(target) : NULL;
	if (!r->jump)
		abort();
}

static void read_exception(struct nat_rule *r, const json_t *value)
{
	r->verdict = NAT_EXCEPTION;
}

static void read_nothing(struct nat_rule *r, const json_t *value)
{
}

static void read_foreign(struct nat_rule *r, const json_t *value)
{
	const char *name = string_of(value, "name");

	if (word_is(name, "DNAT") || word_is(name, "REDIRECT"))
		r->verdict = NAT_REDIRECT;
	nat_set_problem(r, "it is a rule of iptables, which nft cannot show: import what "
			   "`iptables-save` prints");
}

static const struct {
	const char *name;
	void (*read)(struct nat_rule *r, const json_t *value);
} statements[] = {
	{"match", read_match},	     {"redirect", read_target},	 {"dnat", read_target},
	{"masquerade", read_source}, {"snat", read_source},	 {"jump", read_jump},
	{"goto", read_jump},	     {"accept", read_exception}, {"return", read_exception},
	{"drop", read_exception},    {"counter", read_nothing},	 {"log", read_nothing},
	{"xt", read_foreign},
};

static void read_statement(struct nat_rule *r, const json_t *statement)
{
	void *at = json_object_iter((json_t *)statement);
	const char *name = json_object_iter_key(at);

	for (size_t n = 0; name && n < sizeof(statements) / sizeof(statements[0]); n++)
		if (strcmp(name, statements[n].name) == 0) {
			statements[n].read(r, json_object_iter_value(at));
			return;
		}
	nat_set_problem(r, "it has a statement that is not understood: %s", name ? name : "?");
}

/* ---- the ruleset ---- */

/* Names of chains are unique in a table. */
static char *chain_name(const json_t *object, const char *name)
{
	const char *family = string_of(object, "family"), *table = string_of(object, "table");
	char *text;

	if (asprintf(&text, "%s %s %s", family ? family : "?", table ? table : "?",
		     name ? name : "?") < 0)
		abort();
	return text;
}

static void read_chain(struct nat *nat, const json_t *chain)
{
	static const struct {
		const char *name;
		enum nat_hook hook;
	} hooks[] = {{"prerouting", NAT_HOOK_PREROUTING},
		     {"output", NAT_HOOK_OUTPUT},
		     {"postrouting", NAT_HOOK_POSTROUTING}};
	const char *type = string_of(chain, "type"), *hook = string_of(chain, "hook");
	_cleanup_(freep) char *name = chain_name(chain, string_of(chain, "name"));
	size_t number = nat_chain(nat, name);

	for (size_t n = 0; n < sizeof(hooks) / sizeof(hooks[0]); n++)
		if (word_is(type, "nat") && word_is(hook, hooks[n].name))
			nat->chains[number].hook = hooks[n].hook;
}

static void read_rule(struct nat *nat, const json_t *rule)
{
	_cleanup_(freep) char *name = chain_name(rule, string_of(rule, "chain"));
	_cleanup_(freep) char *text = NULL;
	const json_t *statements_json = json_object_get(rule, "expr");
	struct nat_rule *r;

	if (asprintf(&text, "table %s %s chain %s handle %" JSON_INTEGER_FORMAT,
		     string_of(rule, "family"), string_of(rule, "table"), string_of(rule, "chain"),
		     json_integer_value(json_object_get(rule, "handle"))) < 0)
		abort();
	r = nat_add_rule(nat, nat_chain(nat, name), 0, text);
	for (size_t n = 0; n < json_array_size(statements_json); n++)
		read_statement(r, json_array_get(statements_json, n));
	if (r->jump) { /* within the table */
		char *target = chain_name(rule, r->jump);

		free(r->jump);
		r->jump = target;
	}
}

int import_read_nft(struct import *i, char *text)
{
	json_error_t error;
	json_t *document = json_loads(text, 0, &error);
	const json_t *objects = json_object_get(document, "nftables");
	struct nat nat = {0};

	if (!json_is_array(objects)) {
		struct import_place p = {document ? 0 : (unsigned)error.line, NULL};

		import_skip(i, &p, "%s",
			    document ? "JSON, but not of `nft -j list ruleset`" : error.text);
		json_decref(document);
		return -EINVAL;
	}
	for (size_t n = 0; n < json_array_size(objects); n++) {
		const json_t *chain = json_object_get(json_array_get(objects, n), "chain");
		const json_t *rule = json_object_get(json_array_get(objects, n), "rule");

		if (chain)
			read_chain(&nat, chain);
		else if (rule)
			read_rule(&nat, rule);
	}
	nat_take(&nat, i);
	nat_clear(&nat);
	json_decref(document);
	return 0;
}

bool import_looks_like_nft(const char *text)
{
	return text[strspn(text, " \t\r\n")] == '{';
}
