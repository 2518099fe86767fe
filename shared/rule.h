/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A redirection rule: its parts, its one grammar (docs: redirectd.conf(5)), its canonical text.
 *
 * The same parser reads the configuration file, the command line, `-r` and the control socket;
 * the same printer writes `list`, events and error messages. What rule_format() prints,
 * rule_parse() reads back to an equal rule.
 *
 * Ports are in host byte order everywhere in this header.
 */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/abi.h"
#include "shared/addr.h"
#include "shared/cleanup.h"
#include "shared/diag.h"

#define RULE_NAME_MAX	 63   /* bytes, without the NUL */
#define RULE_TEXT_MAX	 4000 /* bytes of canonical text, without the NUL */
#define RULE_TARGETS_MAX 64
#define RULE_LIST_MAX	 64 /* interfaces or `from` prefixes in one rule */
#define RULE_WEIGHT_MAX	 65535
#define RULE_FLOWS_MAX	 16777216   /* of `max-flows` */
#define RULE_RATE_MAX	 1000000000 /* of `rate` and its `burst` */

enum rule_protocol {
	RULE_TCP = 1 << 0,
	RULE_UDP = 1 << 1,
};

enum rule_listen {
	RULE_LISTEN_LOCAL,  /* left out: any address of this host */
	RULE_LISTEN_PREFIX, /* ADDR or a prefix */
	RULE_LISTEN_ANY,    /* `*`: every destination, packets in transit included */
};

enum rule_balance {
	RULE_BALANCE_HASH, /* the default */
	RULE_BALANCE_RANDOM,
	RULE_BALANCE_MAGLEV,
};

enum rule_on_change {
	RULE_ON_CHANGE_KEEP, /* the default */
	RULE_ON_CHANGE_DRAIN,
	RULE_ON_CHANGE_RESET,
};

/* Whose flows a limit counts. */
enum rule_limit_scope {
	RULE_LIMIT_ALL,	   /* those of the rule */
	RULE_LIMIT_SOURCE, /* those of one client of it; IPv6 by /64 */
	RULE_LIMIT_COUNT,
};

/* 0: not limited */
struct rule_limit {
	uint32_t max_flows;
	uint32_t rate, rate_seconds; /* new flows in so many seconds: 1, 60 or 3600 */
	uint32_t burst;		     /* 0: as many as `rate`, see rule_limit_burst() */
};

struct port_range {
	uint16_t first, last; /* 1..65535, first <= last */
};

struct rule_target {
	struct ip_prefix address; /* family 0: same host, destination address unchanged */
	struct port_range ports;
	uint32_t weight; /* 1 unless written; 0: no new flows */
};

/* Parts of a rule's text that messages point at. */
enum rule_part {
	RULE_PART_LISTEN,
	RULE_PART_TARGETS, /* the whole list */
	RULE_PART_STRAY,   /* a word that belongs elsewhere */
	RULE_PART_ON,
	RULE_PART_FROM,
	RULE_PART_NAME,
	RULE_PART_MASQUERADE,
	RULE_PART_SNAT,
	RULE_PART_BALANCE,
	RULE_PART_MAX_FLOWS,
	RULE_PART_RATE,
	RULE_PART_TIMEOUT,
	RULE_PART_ON_CHANGE,
	RULE_PART_DISABLED,
	RULE_PART_COUNT,
};

/*
 * Where a part stood in the text that rule_parse() read, in bytes; length 0: it was not there. Of a
 * part that stood there several times, the last one.
 */
struct rule_span {
	uint32_t offset, length;
};

struct rule {
	unsigned protocols; /* of enum rule_protocol, at least one */
	enum rule_listen listen;
	struct ip_prefix listen_prefix; /* with RULE_LISTEN_PREFIX */
	struct port_range ports;

	struct rule_target *targets; /* owned, at least one */
	size_t n_targets;

	char (*interfaces)[IF_NAMESIZE]; /* owned; none: those of `interface`, or every one */
	size_t n_interfaces;
	struct ip_prefix *from; /* owned; none: every client */
	size_t n_from;

	char name[RULE_NAME_MAX + 1]; /* empty: no name */
	bool masquerade;
	struct ip_prefix snat; /* family 0: none */
	enum rule_balance balance;
	struct rule_limit limits[RULE_LIMIT_COUNT]; /* by enum rule_limit_scope */
	uint32_t timeouts[FLOW_STATE_COUNT];	    /* seconds; 0: the configuration's */
	enum rule_on_change on_change;
	uint32_t drain_seconds; /* with RULE_ON_CHANGE_DRAIN */
	bool disabled;

	/* By enum rule_part; of the text it was read from, no part of the rule's value. */
	struct rule_span spans[RULE_PART_COUNT];
};

struct rule *rule_free(struct rule *r); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct rule, rule_free)

/* [A-Za-z0-9_.-]{1,63} */
bool rule_name_is_valid(const char *name, size_t length);

/*
 * Parses one rule. `place` tells where `text` begins (file, line, column of its first byte, the
 * whole line); NULL for text that stands alone. Adds every error found to `diag`.
 * Returns 0 and a rule that the caller frees, or -EINVAL (then diag has at least one item), or
 * -ENOMEM.
 *
 * Also read: `->` for `to`; `tcp 8080 80` for `tcp 8080 to 80`. A trailing lone `-` (the rest of
 * an unquoted `->` that a shell took for a redirection) gets a hint instead of a syntax error.
 */
int rule_parse(const char *text, const struct diag_place *place, struct diag *diag,
	       struct rule **ret);

/* The canonical text; the caller frees it. Returns 0 or -ENOMEM. */
int rule_format(const struct rule *r, char **ret);

int rule_copy(const struct rule *r, struct rule **ret);

/* Equal in everything, name and `disabled` included; lists of `on` and `from` are sets. */
bool rule_equal(const struct rule *a, const struct rule *b);
/* Equal in what they take: everything in front of `to`, `on` and `from`. */
bool rule_takes_same(const struct rule *a, const struct rule *b);

/* How many new flows may come at once: what is written, or all that `rate` lets in in its time. */
uint32_t rule_limit_burst(const struct rule_limit *l);

/* Of one family only? AF_INET, AF_INET6 or 0: its addresses limit a rule to packets of theirs. */
uint8_t rule_family(const struct rule *r);

/*
 * Ranks of specificity, in this order; the higher one wins:
 * `on` given (1) or not (0);
 * destination: `*` (0), this host (1), a prefix (2 + its length);
 * source: no `from` (0), a prefix (1 + its length, of the one that the packet matches);
 * the narrower range of ports.
 */
unsigned rule_interface_rank(const struct rule *r);
unsigned rule_listen_rank(const struct rule *r);
unsigned rule_source_rank(const struct ip_prefix *from); /* NULL: no `from` */

/*
 * True when some packet matches both rules and no criterion of specificity separates them:
 * a protocol in common, overlapping port ranges of the same width, and equal ranks of
 * interface, destination and source with overlapping sets. `tcp 8080` for the local host and
 * `tcp 192.0.2.1:8080` do not conflict: the second is more specific. Disabled rules conflict too,
 * so that enabling one cannot fail.
 */
bool rule_conflicts(const struct rule *a, const struct rule *b);
