/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random rules and packets, from a seed. A run is cut into rounds of ROUND_PACKETS packets; each
 * has its own rules and begins with an empty flow table and a seed that follows from the run's and
 * its number, so that a round can be repeated without those before it.
 *
 *   fuzz-random.c   numbers
 *   fuzz-host.c     the host, its neighbours and their addresses
 *   fuzz-rules.c    rules, as text for the datapath and as structures for the oracle
 *   fuzz-change.c   what happens between packets: rules change, flows are deleted
 *   fuzz-flows.c    what the datapath has made of a flow
 *   fuzz-make.c     packets: first ones, those of known flows, errors about them, fragments
 *   fuzz-mutate.c   damage
 *   fuzz-print.c    packets, rules and answers for a reader
 *   fuzz-packets.c  the command
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/rule.h"
#include "tests/bpf/oracle.h"
#include "tests/bpf/packet.h"
#include "tests/bpf/world.h"

#define ROUND_PACKETS 4096
#define ADDRESS_TEXT  48

/* ---- fuzz-random.c ---- */

void random_seed(uint64_t seed);
uint32_t random_below(uint32_t n);
/* Once in `n` times. */
bool random_once_in(uint32_t n);
#define random_of(array) ((array)[random_below(sizeof(array) / sizeof((array)[0]))])

/* ---- fuzz-host.c ---- */

enum party {
	PARTY_CLIENT,  /* behind the gateway */
	PARTY_HOST,    /* addresses of this host that others see */
	PARTY_SELF,    /* as which this host is its own client */
	PARTY_BACKEND, /* what rules may send to; some on the link, some behind the gateway */
	PARTY_TRANSIT, /* servers that packets pass through this host to */
	PARTY_ROUTER,
	PARTY_COUNT,
};

/* A random address of a party, as text. */
const char *fuzz_address(enum party party, bool ipv6);
/* Gives interfaces, addresses, routes and source addresses to the world, and tells the oracle. */
void fuzz_make_host(struct world *w, struct oracle_host *ret);

void fuzz_parse_address(const char *text, bool ipv6, uint8_t ret[static ORACLE_ADDRESS]);
const char *fuzz_format_address(const uint8_t *address, bool ipv6, char ret[static ADDRESS_TEXT]);

/* ---- fuzz-rules.c ---- */

#define RULES_MAX 12  /* at the beginning of a round */
#define PLACES	  256 /* of rules, those that are gone and new ones included; 1 + place is the id */

/* What rules may do. */
enum flavour {
	FLAVOUR_PORTS,	 /* other ports of the same host */
	FLAVOUR_HOSTS,	 /* other hosts too */
	FLAVOUR_SOURCES, /* and masquerade and snat */
	FLAVOUR_BALANCE, /* and several targets */
	FLAVOUR_LIMITS,	 /* and have limits */
	FLAVOUR_CHANGES, /* all of it, and change between packets */
	FLAVOUR_COUNT,
};
extern const char *const flavour_names[FLAVOUR_COUNT];

/* What can be another in an otherwise equal rule. */
enum part {
	PART_PACKETS, /* protocol, destination and ports */
	PART_TARGETS,
	PART_CLIENTS, /* interface and `from` */
	PART_SOURCE,
	PART_LIMITS,
	PART_ON_CHANGE,
	PART_COUNT,
};
#define PART(part) (UINT32_C(1) << (part))
#define PART_TEXT  320

struct fuzz_rule {
	struct oracle_rule rule;
	enum flavour flavour;
	bool changing;
	int ipv6; /* -1: both families */
	char parts[PART_COUNT][PART_TEXT];
	char text[2 * PART_TEXT];
};

struct fuzz_rules {
	struct oracle_rule rules[PLACES]; /* the oracle's */
	struct fuzz_rule drafts[PLACES];
	struct rule *parsed[PLACES]; /* owned; NULL: removed */
	size_t n;
};

/* Rules of which none conflict. `second` is the index of the second interface. */
void fuzz_make_rules(enum flavour flavour, uint32_t second, struct fuzz_rules *ret);
void fuzz_draw_rule(enum flavour flavour, uint32_t second, struct fuzz_rule *ret);
/* Other words in some parts of a rule. */
void fuzz_redraw_rule(struct fuzz_rule *f, uint32_t second);
/* Disables or enables it. */
void fuzz_switch_rule(struct fuzz_rule *f);
/*
 * Puts it to a place, be it the next one; false: it conflicts with another, or is the one that
 * is there. The oracle's stays.
 */
bool fuzz_place_rule(struct fuzz_rules *rules, size_t i, const struct fuzz_rule *f);
void fuzz_remove_rule(struct fuzz_rules *rules, size_t i);
/* A port that rules listen on, or send to, or neither. */
uint16_t fuzz_port(void);

/* ---- fuzz-change.c ---- */

/* Lets something happen, and tells the oracle. */
void fuzz_change(struct world *w, struct fuzz_rules *rules);
/* Forgets what has happened, for another round. */
void fuzz_forget_changes(void);
/* All that has happened in this round, a line each. */
void fuzz_print_changes(FILE *f);

/* ---- fuzz-flows.c ---- */

/* An oracle_choose; `userdata` is the world. */
void fuzz_read_flow(void *userdata, const struct oracle_tuple *original, struct oracle_choice *ret);
/* Holds the counters of all flows against the oracle's; says what differs, or returns NULL. */
const char *fuzz_compare_flows(struct world *w);
/* Has one of the flows deleted, and tells the oracle. */
bool fuzz_delete_flow(struct world *w, struct oracle_flow *f);
/* Empties the flow table and what is known of fragments. */
void fuzz_forget_flows(struct world *w);

/* ---- fuzz-make.c ---- */

struct fuzz_packet {
	struct packet packet;
	struct oracle_input input;
	bool damaged;
};

/* Begins a round: no packet has been before. */
void fuzz_forget_packets(void);
/* The next packet; `w->oracle` knows the flows there are. */
void fuzz_make_packet(struct world *w, struct fuzz_packet *ret);

/* ---- fuzz-mutate.c ---- */

/* Damages a packet in one way. */
void fuzz_mutate(struct packet *p);
/* What BPF_PROG_TEST_RUN refuses by itself: frames whose type promises more than there is. */
bool fuzz_refused_by_kernel(const struct packet *p);

/* ---- fuzz-print.c ---- */

void fuzz_print_bytes(FILE *f, const char *what, const uint8_t *data, size_t length);
/* One line about what the packet is. */
void fuzz_print_packet(FILE *f, const struct oracle_input *input, const uint8_t *data,
		       size_t length);
void fuzz_print_flow(FILE *f, const struct oracle_flow *flow);
void fuzz_print_reasons(FILE *f, uint32_t reasons);
