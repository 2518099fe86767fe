/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What would become of a packet: the datapath's own word for it (bpf/trace.bpf.h), and why each of
 * the other rules on its port does not take it. Changes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/abi.h"
#include "shared/addr.h"

#define TRACE_RULES_MOST 100 /* that are told of */

struct config;
struct datapath;
struct links;
struct ruleset;
struct ruleset_entry;

struct trace_query {
	unsigned protocol;	   /* RULE_TCP: its first packet, a SYN; or RULE_UDP */
	struct ip_prefix src, dst; /* of one family */
	uint16_t sport, dport;
	uint32_t ifindex; /* where it comes in */
};

/* Why a rule does not take a packet to its port. */
enum trace_why {
	TRACE_TAKES,
	TRACE_LESS_SPECIFIC, /* it would, if there were not the one that does */
	TRACE_FLOW,	     /* the packet's flow was made before, by another rule */
	TRACE_DISABLED,
	TRACE_OTHER_PROTOCOL,
	TRACE_OTHER_FAMILY,
	TRACE_OTHER_INTERFACE,
	TRACE_NOT_OWN, /* the destination is none of this host's addresses */
	TRACE_OTHER_ADDRESS,
	TRACE_OTHER_SOURCE,
	TRACE_WHYS,
};

struct trace_rule {
	const struct ruleset_entry *entry;
	enum trace_why why;
};

struct trace {
	struct trace_answer answer;
	struct trace_rule rules[TRACE_RULES_MOST]; /* on that port; the one that takes it first */
	size_t n_rules, n_more;
	bool full; /* flows-max is reached: a new flow needs the room of another */
};

/* Where a packet from `src` would come in, by the route to there; 0: by none. */
uint32_t trace_find_interface(const struct ip_prefix *src);
int trace_run(struct datapath *d, const struct ruleset *rules, const struct config *config,
	      const struct links *links, const struct trace_query *query, struct trace *ret);
/* "disabled", "interface"...; words are for people: "it takes only...". */
const char *trace_why_name(enum trace_why why);
const char *trace_why_words(enum trace_why why);
