/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the datapath should do, written a second time from the RFCs and the contract, byte by byte
 * and without a line or a constant of bpf/. The tests give the same packet to both and compare.
 *
 * The oracle knows redirects to other ports and addresses, masquerade and snat, several targets,
 * clients of this host, ICMP errors and fragments, limits, and what a change of rules does to the
 * flows that are there; it keeps its own list of flows. It does not know time: tests of what
 * depends on it say themselves what must come out. What the datapath is free to choose, a source
 * port or one of several targets, the oracle is told (oracle_choose), and says whether the choice
 * was a lawful one.
 *
 *   oracle-parse.c     what a packet is
 *   oracle-checksum.c  checksums from scratch, and what becomes of wrong ones
 *   oracle-rule.c      which rule takes a packet, where it sends it, by which interface and source
 *   oracle-nat.c       flows: their tuples, what becomes of a packet of one
 *   oracle-limit.c     how many flows a rule and a client may have
 *   oracle-change.c    what becomes of a flow when rules have changed
 *   oracle-icmp.c      ICMP errors
 *   oracle-fragment.c  later fragments
 *   oracle.c           which of these a packet is a case for
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/abi.h"

/* IPv4 in the first four bytes, the rest zero. */
#define ORACLE_ADDRESS 16

#define ORACLE_REASON(reason) (UINT32_C(1) << (reason)) /* enum packet_reason, in a set */

/* ---- packets ---- */

/* What a packet is, as far as a redirector has to care. */
enum oracle_class {
	ORACLE_TRANSLATABLE, /* TCP or UDP with its ports, everything consistent */
	ORACLE_NOT_IP,
	ORACLE_NOT_TCP_UDP,
	ORACLE_LATER_FRAGMENT,
	ORACLE_TRUNCATED, /* a header or a length reaches beyond the packet */
	ORACLE_MALFORMED, /* lengths or versions that contradict each other */
	ORACLE_TOO_DEEP,  /* more VLAN tags or extension headers than are promised to be walked */
};

struct oracle_packet {
	enum oracle_class class;
	uint32_t also; /* ORACLE_REASON() of other things that are as true of it */
	bool ipv6;
	uint8_t protocol, tcp_flags;
	uint8_t source[ORACLE_ADDRESS], destination[ORACLE_ADDRESS];
	uint16_t sport, dport;
	size_t l3, l4, checksum; /* offsets */
	size_t ip_length;	 /* what the IP header claims, and the packet holds */
	size_t covered;		 /* bytes from l4 on that the L4 checksum is made over */
	size_t l4_header;	 /* its length */
	bool whole;		 /* not a fragment: the checksum can be verified */
	size_t icmp, icmp_end;	 /* offsets of an ICMP or ICMPv6 message that is all there, or 0 */
	uint32_t fragment;	 /* identification, of a fragment */
	bool cut;		 /* a later fragment that is not all there */
	bool first;		 /* of several fragments, be it good or not */
};

/* Reads `data` as a frame, or with `ethernet` false as an IP packet. */
void oracle_parse(const uint8_t *data, size_t length, bool ethernet, struct oracle_packet *ret);
/* The same of an IP packet that its device says to be of this Ethernet type. */
void oracle_parse_typed(const uint8_t *data, size_t length, uint16_t type,
			struct oracle_packet *ret);

/*
 * Reads the TCP or UDP packet that an ICMP error quotes: addresses and ports; `checksum` is 0 where
 * the quote ends before, `whole` tells whether all of it is quoted. False: it quotes none.
 */
bool oracle_parse_quote(const uint8_t *data, const struct oracle_packet *error,
			struct oracle_packet *ret);

/* ---- checksums ---- */

/* The L4 checksum from scratch; UDP's zero as 0xffff. Only of whole packets. */
uint16_t oracle_l4_checksum(const uint8_t *data, const struct oracle_packet *p);
/* Is it right? UDP over IPv4 without a checksum is. */
bool oracle_l4_checksum_holds(const uint8_t *data, const struct oracle_packet *p);
bool oracle_ipv4_checksum_holds(const uint8_t *data, const struct oracle_packet *p);
/* The checksum of a whole ICMP or ICMPv6 message from scratch. */
uint16_t oracle_icmp_checksum(const uint8_t *data, const struct oracle_packet *p);

/*
 * Updates leave a checksum that nobody can verify, or that was wrong, at 0 or at 0xffff, which are
 * the same number: makes such fields of `got` like those of `expected`. Right ones stay.
 */
void oracle_accept_negative_zero(const uint8_t *expected, size_t length,
				 const struct oracle_packet *p, uint8_t *got);

/* ---- rules ---- */

struct oracle_prefix {
	bool ipv6;
	uint8_t address[ORACLE_ADDRESS];
	unsigned length; /* within the family */
};

struct oracle_target {
	bool other_host; /* has an address */
	bool ipv6;
	uint8_t address[ORACLE_ADDRESS];
	uint16_t first;
	bool folded;   /* all ports become `first` */
	bool draining; /* weight 0 */
};

enum oracle_listen {
	ORACLE_LISTEN_ANY,
	ORACLE_LISTEN_LOCAL,
	ORACLE_LISTEN_PREFIX,
};

#define ORACLE_LIST 4 /* targets, interfaces or `from` prefixes in one rule */

/* The word of a rule for the flows that it has when it changes. */
enum oracle_on_change {
	ORACLE_KEEP,
	ORACLE_DRAIN,
	ORACLE_RESET,
};

struct oracle_rule {
	bool off; /* removed or disabled: takes no packets */
	bool tcp, udp;
	uint16_t first, last; /* ports listened on */
	uint16_t target;      /* of the first one; the others follow. Without `targets` */
	enum oracle_listen listen;
	struct oracle_prefix prefix;
	struct oracle_target targets[ORACLE_LIST];
	size_t n_targets; /* 0: just `target` */
	uint32_t interfaces[ORACLE_LIST];
	size_t n_interfaces; /* 0: all */
	struct oracle_prefix from[ORACLE_LIST];
	size_t n_from; /* 0: all */
	bool masquerade, snat;
	bool snat_ipv6;
	uint8_t snat_address[ORACLE_ADDRESS];
	uint32_t max_flows, max_flows_of_source; /* 0: any number */
	/* of rates that let nothing more in for as long as a test takes; 0: none */
	uint32_t burst, burst_of_source;
	enum oracle_on_change on_change;
	bool drained;	  /* the time that its flows had after its last change is over */
	unsigned changed; /* which of the changes (struct oracle) was its last */
	uint64_t refused; /* flows that were beyond its limits */
};

/* ---- the host ---- */

struct oracle_route {
	struct oracle_prefix to;
	uint32_t interface;
	bool gateway;	 /* through `via` */
	bool unroutable; /* packets to there are not sent on */
	uint8_t via[ORACLE_ADDRESS];
};

/*
 * What a packet out of this interface (0: of any) is masqueraded as, by its next hop, or with IPv6
 * by its destination.
 */
struct oracle_source {
	uint32_t interface;
	struct oracle_prefix towards;
	uint8_t address[ORACLE_ADDRESS];
};

struct oracle_host {
	const struct oracle_prefix *locals;
	size_t n_locals;
	const struct oracle_route *routes;
	size_t n_routes;
	const struct oracle_source *sources;
	size_t n_sources;
	uint32_t loopback; /* interface index of lo */
};

/* ---- flows ---- */

struct oracle_tuple {
	bool ipv6;
	uint8_t protocol;
	uint8_t source[ORACLE_ADDRESS], destination[ORACLE_ADDRESS];
	uint16_t sport, dport;
};

struct oracle_flow {
	struct oracle_tuple original, reply;
	struct oracle_rule *rule; /* NULL: a direct flow whose source port was translated */
	uint32_t interface;	  /* that its first packet came in by */
	bool snat, local;	  /* FLOW_SNAT, FLOW_LOCAL */
	bool masqueraded;	  /* by what the rules said when it was made */
	bool own;		  /* a direct one of this host itself, which begins as it leaves */
	bool of_source;		  /* counts among its source's */
	bool in_rate, in_rate_of_source; /* let in by one */
	bool dead;
	unsigned held;		       /* as of which change it is known to be what the rules say */
	bool rst, fin[2];	       /* seen, from client and server */
	uint64_t packets[2], bytes[2]; /* original, reply */
};

struct oracle_tuple oracle_tuple_of(const struct oracle_packet *p);
struct oracle_tuple oracle_invert(const struct oracle_tuple *t);
bool oracle_tuple_equal(const struct oracle_tuple *a, const struct oracle_tuple *b);
/* A flow's packet between ingress and egress: of one with a translated source. */
struct oracle_tuple oracle_middle(const struct oracle_flow *f);
/* Does a packet of the flow have this tuple anywhere? */
bool oracle_flow_has(const struct oracle_flow *f, const struct oracle_tuple *t);

/* What a packet is to a flow. */
enum oracle_role {
	ROLE_NONE,
	ROLE_ORIGINAL,
	ROLE_REPLY,
	ROLE_MIDDLE,	   /* an original packet on its way through the host */
	ROLE_MIDDLE_REPLY, /* a reply */
};
/* What a packet comes from: a hook, an interface, and how many packets it stands for. */
enum oracle_hook {
	ORACLE_IN,
	ORACLE_OUT,
};

struct oracle_input {
	enum oracle_hook hook;
	bool ethernet;
	uint16_t type; /* without Ethernet: what the device says */
	uint32_t interface;
	unsigned segments; /* of a GSO packet; 0 and 1: none */
};

/* What the datapath has chosen for a flow that a packet may open. */
struct oracle_choice {
	bool made;	  /* there is such a flow */
	uint64_t packets; /* of the client, that it has counted */
	struct oracle_tuple reply;
	bool snat, local;
	unsigned rule; /* number of the rule, from 0; UINT32_MAX: none */
	unsigned target;
};

typedef void oracle_choose(void *userdata, const struct oracle_tuple *original,
			   struct oracle_choice *ret);

/* Where the addresses of a fragmented packet went, for its later fragments. */
struct oracle_fragment {
	enum oracle_hook hook;
	bool ipv6;
	uint8_t protocol; /* IPv4 */
	uint32_t id;
	uint8_t source[ORACLE_ADDRESS], destination[ORACLE_ADDRESS];
	uint8_t new_source[ORACLE_ADDRESS], new_destination[ORACLE_ADDRESS];
	size_t flow;  /* 1 + its number; 0: it was none's */
	bool damaged; /* the first one: who knows whether it has been taken for one */
	enum oracle_role role;
};

struct oracle {
	struct oracle_rule *rules; /* only counted in here; others change them */
	size_t n_rules;
	unsigned changes;		/* how often they have changed */
	const struct oracle_host *host; /* NULL: all there is is this host */
	struct oracle_flow *flows;	/* owned */
	size_t n_flows, allocated;
	struct oracle_fragment *fragments; /* owned */
	size_t n_fragments, allocated_fragments;
	size_t n_held;	       /* fragments that wait */
	uint32_t holding;      /* later fragments wait for the first one */
	oracle_choose *choose; /* NULL: ports are kept, the first target is taken */
	void *userdata;
};

void oracle_init(struct oracle *o, struct oracle_rule *rules, size_t n_rules);
void oracle_clear(struct oracle *o);

enum oracle_verdict {
	ORACLE_PASS,
	ORACLE_REDIRECT, /* to lo, as if it had come in there */
	ORACLE_DROP,
	ORACLE_EITHER, /* passes or is dropped; the reason tells */
};

struct oracle_answer {
	bool translated; /* to be counted as a flow's; the bytes have changed */
	bool error;	 /* it was an ICMP error that was translated */
	enum oracle_verdict verdict;
	uint32_t reasons; /* ORACLE_REASON(): one of these is counted; 0: none */
	struct oracle_flow *flow;
	enum oracle_role role; /* in it */
	size_t length;	       /* of the packet: who goes to lo may get an Ethernet header */
	bool opened;	       /* `flow` is new */
	const char *complaint; /* what is unlawful about what the datapath chose, or NULL */
};

/*
 * Turns the packet at `data` into what the hook must make of it, and counts it in its flow, made
 * if need be. If it is not translated the bytes are as they were. There is room for 14 bytes more.
 */
void oracle_judge(struct oracle *o, const struct oracle_input *input, uint8_t *data, size_t length,
		  struct oracle_answer *ret);

/* The same at lo, for those who want to know whether it is translated. */
bool oracle_pass(struct oracle *o, enum oracle_hook hook, bool ethernet, uint8_t *data,
		 size_t length);
