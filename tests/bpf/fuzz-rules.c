/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules by chance: few ports, so that they overlap and the more specific one has to win, so that
 * targets are listened on, and so that the answers of several look alike.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/rule.h"
#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

const char *const flavour_names[FLAVOUR_COUNT] = {"ports",   "hosts",  "sources",
						  "balance", "limits", "changes"};

static const struct {
	uint16_t first, last;
} listen_ports[] = {{8080, 8080}, {8081, 8081}, {80, 80},     {53, 53},	    {5300, 5300},
		    {500, 500},	  {600, 600},	{7000, 7009}, {7005, 7009}, {8080, 8089}};
static const uint16_t target_ports[] = {80, 80, 53, 443, 8080, 17000, 700, 300, 65530};

uint16_t fuzz_port(void)
{
	uint16_t port;

	if (random_once_in(4))
		return random_of(target_ports);
	port = listen_ports[random_below(ARRAY_SIZE(listen_ports))].first;
	return random_once_in(3) ? (uint16_t)(port + random_below(10)) : port;
}

static void add(char *text, const char *what)
{
	size_t length = strlen(text);

	snprintf(text + length, PART_TEXT - length, "%s", what);
}

static void add_number(char *text, const char *before, unsigned n)
{
	char number[32];

	snprintf(number, sizeof(number), "%s%u", before, n);
	add(text, number);
}

static void add_address(char *text, const uint8_t *address, bool ipv6)
{
	char address_text[ADDRESS_TEXT];

	add(text, ipv6 ? "[" : "");
	add(text, fuzz_format_address(address, ipv6, address_text));
	add(text, ipv6 ? "]" : "");
}

static void add_prefix(char *text, const struct oracle_prefix *p)
{
	add_address(text, p->address, p->ipv6);
	if (p->length != (p->ipv6 ? 128 : 32))
		add_number(text, "/", p->length);
}

/* A prefix around somebody, its host bits cleared. */
static struct oracle_prefix random_prefix(enum party party, bool ipv6)
{
	static const uint8_t lengths[2][4] = {{32, 24, 25, 16}, {128, 64, 65, 48}};
	struct oracle_prefix p = {.ipv6 = ipv6, .length = random_of(lengths[ipv6])};

	fuzz_parse_address(fuzz_address(party, ipv6), ipv6, p.address);
	for (unsigned i = p.length; i < 8 * ORACLE_ADDRESS; i++)
		p.address[i / 8] &= (uint8_t) ~(0x80U >> i % 8);
	return p;
}

static void choose_packets(struct oracle_rule *r, int ipv6, char *text)
{
	static const char *const protocols[] = {"", "tcp ", "udp ", "tcp+udp "};
	uint32_t protocol = 1 + random_below(3);
	size_t i = random_below(ARRAY_SIZE(listen_ports));

	add(text, protocols[protocol]);
	r->tcp = protocol & 1;
	r->udp = protocol & 2;
	r->first = listen_ports[i].first;
	r->last = listen_ports[i].last;
	r->listen = (enum oracle_listen)random_below(ipv6 < 0 ? 2 : 3);
	if (r->listen == ORACLE_LISTEN_PREFIX) {
		r->prefix =
			random_prefix(random_of(((enum party[]){PARTY_HOST, PARTY_TRANSIT})), ipv6);
		add_prefix(text, &r->prefix);
		add(text, ":");
	} else if (r->listen == ORACLE_LISTEN_ANY) {
		add(text, "*:");
	}
	add_number(text, "", r->first);
	if (r->last != r->first)
		add_number(text, "-", r->last);
}

static bool same_target(const struct oracle_target *a, const struct oracle_target *b)
{
	return a->other_host == b->other_host && a->first == b->first && a->folded == b->folded &&
	       memcmp(a->address, b->address, ORACLE_ADDRESS) == 0;
}

/* Does anything go to another host, or may it? Only there a source needs another address. */
static bool leaves(const struct oracle_rule *r)
{
	for (size_t i = 0; i < r->n_targets; i++)
		if (r->targets[i].other_host)
			return true;
	return r->listen != ORACLE_LISTEN_LOCAL;
}

static void draw_target(const struct oracle_rule *r, enum flavour flavour, int ipv6,
			struct oracle_target *t)
{
	unsigned width = r->last - r->first;

	*t = (struct oracle_target){.first = random_of(target_ports)};
	if (t->first + width > 65535)
		t->first = 17000;
	t->other_host = flavour >= FLAVOUR_HOSTS && ipv6 >= 0 && !random_once_in(4);
	if (t->other_host) {
		t->ipv6 = ipv6;
		fuzz_parse_address(fuzz_address(PARTY_BACKEND, ipv6), ipv6, t->address);
	}
	/* to itself would be refused */
	if (t->first >= r->first && t->first <= r->last &&
	    (!t->other_host || r->listen == ORACLE_LISTEN_PREFIX))
		t->first = 17000;
	t->folded = width && random_once_in(3);
}

static void add_target(const struct oracle_rule *r, const struct oracle_target *t, char *text)
{
	if (t->other_host) {
		add_address(text, t->address, t->ipv6);
		add(text, ":");
	}
	add_number(text, "", t->first);
	if (r->last != r->first && !t->folded)
		add_number(text, "-", t->first + r->last - r->first);
}

/* One target of a rule, here the first, does not drain. */
static void add_weight(struct oracle_target *t, bool first, char *text)
{
	t->draining = !first && random_once_in(3);
	add_number(text, " weight ", t->draining ? 0 : 1 + random_below(9));
}

static void choose_targets(struct oracle_rule *r, enum flavour flavour, int ipv6, char *text)
{
	static const char *const methods[] = {" balance hash", " balance random",
					      " balance maglev"};
	uint32_t wanted = flavour >= FLAVOUR_BALANCE ? 1 + random_below(ORACLE_LIST) : 1;

	r->n_targets = 0;
	while (r->n_targets < wanted) {
		struct oracle_target *t = &r->targets[r->n_targets];
		bool known = false;

		draw_target(r, flavour, ipv6, t);
		for (size_t i = 0; i < r->n_targets; i++)
			known |= same_target(&r->targets[i], t);
		if (known) {
			wanted--;
			continue;
		}
		add(text, r->n_targets++ ? "," : " to ");
		add_target(r, t, text);
		if (wanted > 1 && random_once_in(3))
			add_weight(t, r->n_targets == 1, text);
	}
	if (r->n_targets > 1)
		add(text, random_of(methods));
}

static bool has_prefix(const struct oracle_rule *r, const struct oracle_prefix *p)
{
	for (size_t i = 0; i < r->n_from; i++)
		if (r->from[i].ipv6 == p->ipv6 && r->from[i].length == p->length &&
		    memcmp(r->from[i].address, p->address, ORACLE_ADDRESS) == 0)
			return true;
	return false;
}

static void choose_clients(struct oracle_rule *r, int ipv6, uint32_t second, char *text)
{
	static const uint32_t prefixes[] = {0, 0, 0, 1, 2};

	r->n_interfaces = r->n_from = 0;
	if (random_once_in(4)) {
		r->interfaces[r->n_interfaces++] = second;
		add(text, " on second");
	}
	for (uint32_t n = random_of(prefixes); n; n--) {
		struct oracle_prefix p =
			random_prefix(PARTY_CLIENT, ipv6 < 0 ? random_once_in(2) : ipv6);

		if (has_prefix(r, &p))
			continue;
		add(text, r->n_from ? "," : " from ");
		add_prefix(text, &p);
		r->from[r->n_from++] = p;
	}
}

static void choose_source(struct oracle_rule *r, enum flavour flavour, int ipv6, char *text)
{
	r->masquerade = r->snat = false;
	if (flavour < FLAVOUR_SOURCES || !leaves(r))
		return;
	if (random_once_in(2)) {
		r->masquerade = true;
		add(text, " masquerade");
	} else if (ipv6 >= 0 && random_once_in(2)) {
		r->snat = true;
		r->snat_ipv6 = ipv6;
		fuzz_parse_address(fuzz_address(PARTY_HOST, ipv6), ipv6, r->snat_address);
		add(text, " snat ");
		add_address(text, r->snat_address, ipv6);
	}
}

/* A limit, or none. */
static uint32_t choose_limit(const uint32_t *numbers, size_t n, const char *before,
			     const char *behind, char *text)
{
	uint32_t number = numbers[random_below((uint32_t)n)];

	if (!random_once_in(3))
		return 0;
	add_number(text, before, number);
	add(text, behind);
	return number;
}

static void choose_limits(struct oracle_rule *r, enum flavour flavour, char *text)
{
	static const uint32_t flows[] = {1, 2, 5, 10, 30}, bursts[] = {2, 10, 30, 100};
	static const char burst[] = " rate 1/h burst ", source[] = " per source";

	if (flavour < FLAVOUR_LIMITS)
		return;
	r->max_flows = choose_limit(flows, ARRAY_SIZE(flows), " max-flows ", "", text);
	r->max_flows_of_source =
		choose_limit(flows, ARRAY_SIZE(flows) - 1, " max-flows ", source, text);
	r->burst = choose_limit(bursts, ARRAY_SIZE(bursts), burst, "", text);
	r->burst_of_source = choose_limit(bursts, ARRAY_SIZE(bursts) - 1, burst, source, text);
}

/* Nothing drains to its end by itself: fuzz-change.c ends it. */
static void choose_on_change(struct oracle_rule *r, char *text)
{
	static const char *const words[] = {
		[ORACLE_KEEP] = " on-change keep",
		[ORACLE_DRAIN] = " on-change drain 30d",
		[ORACLE_RESET] = " on-change reset",
	};
	static const enum oracle_on_change chances[] = {ORACLE_KEEP,  ORACLE_DRAIN, ORACLE_DRAIN,
							ORACLE_RESET, ORACLE_RESET, ORACLE_RESET};

	r->on_change = random_of(chances);
	if (r->on_change != ORACLE_KEEP || random_below(2)) /* the default */
		add(text, words[r->on_change]);
}

/* Only the targets themselves are bound to what the rule takes, and the source to both. */
static void choose_parts(struct fuzz_rule *f, uint32_t second, uint32_t parts)
{
	struct oracle_rule *r = &f->rule;

	for (size_t i = 0; i < PART_COUNT; i++)
		if (parts & PART(i))
			*f->parts[i] = '\0';
	if (parts & PART(PART_PACKETS))
		choose_packets(r, f->ipv6, f->parts[PART_PACKETS]);
	if (parts & PART(PART_TARGETS))
		choose_targets(r, f->flavour, f->ipv6, f->parts[PART_TARGETS]);
	if (parts & PART(PART_CLIENTS))
		choose_clients(r, f->ipv6, second, f->parts[PART_CLIENTS]);
	if (parts & PART(PART_SOURCE))
		choose_source(r, f->flavour, f->ipv6, f->parts[PART_SOURCE]);
	if (parts & PART(PART_LIMITS))
		choose_limits(r, f->flavour, f->parts[PART_LIMITS]);
	if (parts & PART(PART_ON_CHANGE) && f->changing)
		choose_on_change(r, f->parts[PART_ON_CHANGE]);
}

static void write_text(struct fuzz_rule *f)
{
	size_t length = 0;

	for (size_t i = 0; i < PART_COUNT; i++)
		length += (size_t)snprintf(f->text + length, sizeof(f->text) - length, "%s",
					   f->parts[i]);
	if (f->rule.off)
		snprintf(f->text + length, sizeof(f->text) - length, " disabled");
}

void fuzz_draw_rule(enum flavour flavour, uint32_t second, struct fuzz_rule *ret)
{
	*ret = (struct fuzz_rule){.ipv6 = (int)random_below(3) - 1,
				  .flavour = flavour,
				  .changing = flavour == FLAVOUR_CHANGES};
	if (ret->changing && random_below(2)) /* plain ones have ways of their own */
		ret->flavour = (enum flavour)random_below(FLAVOUR_CHANGES);
	choose_parts(ret, second, PART(PART_COUNT) - 1);
	write_text(ret);
}

void fuzz_redraw_rule(struct fuzz_rule *f, uint32_t second)
{
	uint32_t parts = PART(random_below(PART_COUNT)) | PART(random_below(PART_COUNT));

	if (parts & PART(PART_PACKETS))
		parts |= PART(PART_TARGETS);
	if (parts & PART(PART_TARGETS))
		parts |= PART(PART_SOURCE);
	choose_parts(f, second, parts);
	write_text(f);
}

void fuzz_switch_rule(struct fuzz_rule *f)
{
	f->rule.off = !f->rule.off;
	write_text(f);
}

/* Does it stand beside all others but number `i`, and is it another than that? */
static bool is_possible(const struct fuzz_rules *rules, size_t i, const struct rule *rule)
{
	if (i < rules->n && rules->parsed[i] && rule_equal(rule, rules->parsed[i]))
		return false;
	for (size_t j = 0; j < rules->n; j++)
		if (j != i && rules->parsed[j] && rule_conflicts(rule, rules->parsed[j]))
			return false;
	return true;
}

bool fuzz_place_rule(struct fuzz_rules *rules, size_t i, const struct fuzz_rule *f)
{
	struct diag diag = {.n_items = 0};
	struct rule *rule;

	if (rule_parse(f->text, NULL, &diag, &rule) < 0) {
		diag_print(&diag, stderr, "fuzz-packets");
		diag_clear(&diag);
		fail_msg("a rule that no parser takes: %s", f->text);
	}
	if (!is_possible(rules, i, rule)) {
		rule_free(rule);
		return false;
	}
	if (i == rules->n)
		rules->parsed[rules->n++] = NULL;
	rule_free(rules->parsed[i]);
	rules->parsed[i] = rule;
	rules->drafts[i] = *f;
	return true;
}

void fuzz_remove_rule(struct fuzz_rules *rules, size_t i)
{
	rules->parsed[i] = rule_free(rules->parsed[i]);
}

void fuzz_make_rules(enum flavour flavour, uint32_t second, struct fuzz_rules *ret)
{
	size_t wanted = 2 + random_below(RULES_MAX - 1);

	for (size_t i = 0; i < ret->n; i++)
		fuzz_remove_rule(ret, i);
	ret->n = 0;
	for (unsigned tries = 0; ret->n < wanted && tries < 10 * RULES_MAX; tries++) {
		struct fuzz_rule f;

		fuzz_draw_rule(flavour, second, &f);
		if (fuzz_place_rule(ret, ret->n, &f))
			ret->rules[ret->n - 1] = f.rule;
	}
}
