/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rules for tests: from a text that is good, and at random. */
#pragma once

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/diag.h"
#include "shared/rule.h"
#include "shared/timeout.h"

/* A rule that must be readable. */
static inline struct rule *rule_of(const char *text)
{
	struct diag diag = {0};
	struct rule *rule = NULL;

	if (rule_parse(text, NULL, &diag, &rule) < 0)
		diag_print(&diag, stderr, "unexpected");
	diag_clear(&diag);
	if (!rule)
		abort();
	return rule;
}

static inline unsigned below(unsigned n)
{
	return (unsigned)random() % n;
}

static inline struct ip_prefix random_address(uint8_t family)
{
	struct ip_prefix a = {.family = family, .length = family == AF_INET ? 32 : 128};

	for (unsigned i = 0; i < a.length / 8U; i++)
		a.bytes[i] = below(3) ? (uint8_t)below(256) : 0;
	/* Neither multicast nor unspecified nor loopback nor mapped. */
	a.bytes[0] = family == AF_INET ? (uint8_t)(1 + below(223)) : 0x20;
	if (a.bytes[0] == 127)
		a.bytes[0] = 128;
	return a;
}

static inline struct ip_prefix random_prefix(uint8_t family)
{
	struct ip_prefix a = random_address(family);

	a.length = (uint8_t)below(a.length + 1U);
	ip_prefix_clear_host_bits(&a);
	return a;
}

static inline void random_text(char *to, unsigned most)
{
	static const char letters[] = "abcXYZ019_.-";
	unsigned n = 1 + below(most);

	for (unsigned i = 0; i < n; i++)
		to[i] = letters[below(sizeof(letters) - 1)];
	to[n] = '\0';
}

static inline void random_ports(struct rule *r)
{
	unsigned width = below(2) ? 1 : 1 + below(1000);

	r->ports.first = (uint16_t)(1 + below(65535 - width));
	r->ports.last = (uint16_t)(r->ports.first + width - 1);
}

/* Targets that differ from each other and from the rule itself. */
static inline void random_targets(struct rule *r, uint8_t family)
{
	unsigned width = r->ports.last - r->ports.first + 1U;

	r->n_targets = below(3) ? 1 : 1 + below(5);
	r->targets = calloc(r->n_targets, sizeof(*r->targets));
	for (size_t i = 0; i < r->n_targets; i++) {
		struct rule_target *t = &r->targets[i];
		unsigned first = 1 + below(65000 / 1001) * 1001U + (unsigned)i;

		if (first == r->ports.first)
			first += 500;
		if (first + width > 65536)
			first = 7 + (unsigned)i;
		if (first == r->ports.first)
			first += 100;
		t->ports.first = (uint16_t)first;
		t->ports.last = (uint16_t)(below(2) ? first : first + width - 1);
		if (family && below(4))
			t->address = random_address(family);
		t->weight = below(3) ? 1 : below(RULE_WEIGHT_MAX + 1);
	}
	/* One of them has a weight. */
	r->targets[below((unsigned)r->n_targets)].weight = 1 + below(RULE_WEIGHT_MAX);
}

static inline void random_lists(struct rule *r, uint8_t family)
{
	r->n_interfaces = below(2) ? 0 : 1 + below(4);
	r->interfaces = calloc(r->n_interfaces + 1, sizeof(*r->interfaces));
	for (size_t i = 0; i < r->n_interfaces; i++)
		snprintf(r->interfaces[i], IF_NAMESIZE, "%hhu%c%hu", (unsigned char)i,
			 'a' + (char)below(26), (unsigned short)below(999));
	r->n_from = below(2) ? 0 : 1 + below(4);
	r->from = calloc(r->n_from + 1, sizeof(*r->from));
	for (size_t i = 0; i < r->n_from; i++) {
		uint8_t f = family ? family : below(2) ? AF_INET : AF_INET6;

		do
			r->from[i] = random_prefix(f);
		while (i > 0 && ip_prefix_equal(&r->from[i], &r->from[i - 1]));
		/* A list holds nothing twice: lengths differ, or the first byte does. */
		if (r->from[i].length >= 8)
			r->from[i].bytes[0] = (uint8_t)(0x20 + i);
		else
			r->from[i].length = 0, memset(r->from[i].bytes, 0, 16);
	}
	for (size_t i = 1; i < r->n_from; i++)
		for (size_t j = 0; j < i; j++)
			if (ip_prefix_equal(&r->from[i], &r->from[j]))
				r->n_from = i;
}

static inline void random_limits(struct rule *r)
{
	static const uint32_t units[] = {1, 60, 3600};

	for (size_t i = 0; i < RULE_LIMIT_COUNT; i++) {
		struct rule_limit *l = &r->limits[i];

		l->max_flows = below(2) ? 0 : 1 + below(RULE_FLOWS_MAX);
		if (below(2))
			continue;
		l->rate = 1 + below(RULE_RATE_MAX);
		l->rate_seconds = units[below(3)];
		l->burst = below(2) ? 0 : 1 + below(RULE_RATE_MAX);
		if (l->burst == l->rate)
			l->burst = 0;
	}
}

/* Few values, so that states of a group often agree. */
static inline void random_timeouts(struct rule *r)
{
	if (below(2))
		return;
	for (unsigned state = 1; state < FLOW_STATE_COUNT; state++) {
		unsigned protocol = TIMEOUT_UDP & 1U << state ? RULE_UDP : RULE_TCP;

		if (r->protocols & protocol && below(4))
			r->timeouts[state] = below(3) ? 1 + below(3) : 1 + below(TIMEOUT_MOST);
	}
	r->timeouts[FLOW_SYN_SENT2] = r->timeouts[FLOW_SYN_SENT]; /* one name for both */
}

static inline void random_options(struct rule *r, uint8_t family)
{
	bool leaves = r->listen != RULE_LISTEN_LOCAL;

	for (size_t i = 0; i < r->n_targets; i++)
		leaves = leaves || r->targets[i].address.family != 0;
	if (below(2))
		random_text(r->name, RULE_NAME_MAX);
	if (leaves && below(4) == 0)
		r->masquerade = true;
	else if (leaves && family && below(4) == 0)
		r->snat = random_address(family);
	r->balance = (enum rule_balance)below(3);
	random_limits(r);
	random_timeouts(r);
	r->on_change = (enum rule_on_change)below(3);
	if (r->on_change == RULE_ON_CHANGE_DRAIN)
		r->drain_seconds = 1 + below(TIMEOUT_MOST);
	r->disabled = below(4) == 0;
}

/* Any rule that the grammar can say; the caller frees it. */
static inline struct rule *random_rule(void)
{
	static const uint8_t families[] = {0, AF_INET, AF_INET6};
	struct rule *r = calloc(1, sizeof(*r));
	uint8_t family = families[below(3)];

	r->protocols = 1 + below(3);
	r->listen = (enum rule_listen)below(3);
	if (r->listen == RULE_LISTEN_PREFIX) {
		family = family ? family : AF_INET;
		r->listen_prefix = random_prefix(family);
	}
	random_ports(r);
	random_targets(r, family);
	random_lists(r, family);
	random_options(r, family);
	return r;
}
