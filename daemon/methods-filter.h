/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What Conntrack, ConntrackCount and Monitor share: which flows are meant, and a flow as JSON. */
#pragma once

#include <jansson.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/flows.h"
#include "daemon/methods-common.h"

struct manager;

struct flow_filter {
	uint8_t protocol;	   /* 0: any */
	struct ip_prefix src, dst; /* family 0: any */
	int32_t sport, dport;	   /* METHODS_NO_PORT: any */
	enum flow_state state;	   /* FLOW_FREE: any */
	uint32_t rule;		   /* RULE_ID_NONE: any */
	/*
	 * The id is in no ruleset: that of a rule removed meanwhile whose flows go on, or a
	 * mistake. Which of the two shows when such a flow is met or not.
	 */
	bool rule_unknown;
	const char *selector; /* the parameter `rule`, borrowed; NULL: not given */
};

/*
 * Fills in *ret, or answers the call, returns false, and the handler returns *ret_answer. With
 * `ret_packets` there is also a parameter `packets`; 0: not given.
 */
bool methods_read_filter(struct call *call, json_t *parameters, struct manager *m,
			 struct flow_filter *ret, uint32_t *ret_packets, int *ret_answer);
bool flow_filter_fits(const struct flow_filter *f, const struct flow_view *v);

/* Names of interfaces, asked for once as long as it is not cleared. */
#define INTERFACES_CACHED 16
struct interface_cache {
	struct {
		uint32_t ifindex;
		char name[IF_NAMESIZE]; /* empty: gone */
	} entries[INTERFACES_CACHED];
	size_t n;
};

/* An object of type Flow, a new reference; NULL: out of memory. */
json_t *methods_pack_flow(const struct flow_view *v, struct interface_cache *interfaces);
