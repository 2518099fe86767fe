/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the methods about flows share: which flows are meant, and a flow as JSON. */
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
	const char *selector;  /* the parameter `rule`, borrowed; NULL: not given */
	bool either_direction; /* addresses and ports may be those of the answers as well */
};

/* What a method takes beside the filter. */
enum filter_request_kind {
	FILTER_ALONE,
	FILTER_MONITOR, /* `packets` */
	FILTER_DELETE,	/* `dryRun`; and the filter may not be empty */
};
struct filter_request {
	struct flow_filter filter;
	uint32_t packets; /* 0: not given */
	bool dry_run;
};

/* Fills in *ret, or answers the call, returns false, and the handler returns *ret_answer. */
bool methods_read_filter(struct call *call, json_t *parameters, struct manager *m,
			 enum filter_request_kind kind, struct filter_request *ret,
			 int *ret_answer);
/* The same of a method that takes the tuple of one flow. */
bool methods_read_tuple(struct call *call, json_t *parameters, struct flow_filter *ret,
			int *ret_answer);
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

/* Writes an object of type Flow. */
void methods_write_flow(struct writer *w, const struct flow_view *v,
			struct interface_cache *interfaces);
