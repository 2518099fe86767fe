/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See scenarios.h. The addresses: clients 10.0.0.0 on, one a flow; this host 192.0.2.2; a target
 * 203.0.113.9; source translation besides has a listen address and a target every 32768 flows,
 * since a target can tell no more than 64512 flows of one source apart.
 */
#include "tests/bench/scenarios.h"

#include <netinet/in.h>
#include <stdio.h>

#include "tests/bpf/packet.h"

#define SERVICE	    9090
#define TARGET	    90
#define PAIR	    8080 /* redirected to 80, and 80 back to it: one packet hits for ever */
#define PAIR_TARGET 80

#define ALL    UINT32_MAX
#define TCP4   0x1
#define TCP6   0x2
#define UDP4   0x4
#define UDP6   0x8
#define SYN    TCP_FLAG_SYN
#define ACK    TCP_FLAG_ACK
#define SYNACK (TCP_FLAG_SYN | TCP_FLAG_ACK)

const struct kind kinds[] = {
	{"TCP/IPv4", false, IPPROTO_TCP},
	{"TCP/IPv6", true, IPPROTO_TCP},
	{"UDP/IPv4", false, IPPROTO_UDP},
	{"UDP/IPv6", true, IPPROTO_UDP},
};
const size_t n_kinds = ARRAY_SIZE(kinds);

/* ---- ends and looks ---- */

static const struct bench_end clients = {0x0a000000, 0};    /* 10.0.0.0 + flow */
static const struct bench_end own = {0xc0000202, 31};	    /* 192.0.2.2 */
static const struct bench_end far = {0xcb007109, 31};	    /* 203.0.113.9 */
static const struct bench_end listeners = {0xc6120000, 15}; /* 198.18.0.0 + flow / 32768 */
static const struct bench_end targets = {0xc6130000, 15};   /* 198.19.0.0 + flow / 32768 */
static const struct bench_end source = {0xc6336401, 31};    /* 198.51.100.1 */

static const struct look to_nowhere = {&clients, &own, 22, false};
static const struct look from_nowhere = {&clients, &own, 22, true};
static const struct look to_pair = {&clients, &own, PAIR, false};
static const struct look from_pair = {&clients, &own, PAIR_TARGET, true};
static const struct look to_service = {&clients, &own, SERVICE, false};
static const struct look from_own_target = {&clients, &own, TARGET, true};
static const struct look to_other = {&clients, &far, SERVICE, false};
static const struct look to_target = {&clients, &far, TARGET, false};
static const struct look from_target = {&clients, &far, TARGET, true};
static const struct look to_listener = {&clients, &listeners, SERVICE, false};
static const struct look to_targets = {&clients, &targets, TARGET, false};
static const struct look to_source = {&source, &targets, TARGET, true};
static const struct look from_targets = {&clients, &targets, TARGET, true};

/* ---- rules ---- */

static void one_port_each(unsigned number, char *buffer, size_t size)
{
	unsigned port = number + (number < TARGET - 1 ? 1 : 2); /* not TARGET itself */

	snprintf(buffer, size, "tcp %u to %u", port, TARGET);
}

static void one_address_each(unsigned number, char *buffer, size_t size)
{
	snprintf(buffer, size, "tcp 172.16.%u.%u:%u to %u", number >> 8, number & 255, SERVICE,
		 TARGET);
}

/* IPv4 and IPv6 by turns. */
static void one_target_each(unsigned number, char *buffer, size_t size)
{
	static const char ipv4[] = "tcp+udp 198.18.0.%u:%u to 198.19.0.%u:%u snat 198.51.100.1";
	static const char ipv6[] = "tcp+udp [2001:db8::198.18.0.%u]:%u to "
				   "[2001:db8::198.19.0.%u]:%u snat 2001:db8::198.51.100.1";
	unsigned n = number / 2;

	if (number & 1)
		snprintf(buffer, size, ipv6, n, SERVICE, n, TARGET);
	else
		snprintf(buffer, size, ipv4, n, SERVICE, n, TARGET);
}

static const char *const redirect_texts[] = {
	"tcp+udp 8080 to 80",
	"tcp+udp 80 to 8080",
	"tcp+udp 9090 to 90",
	NULL,
};
static const char *const dnat_texts[] = {
	"tcp+udp 192.0.2.2:9090 to 203.0.113.9:90",
	"tcp+udp [2001:db8::192.0.2.2]:9090 to [2001:db8::203.0.113.9]:90",
	NULL,
};
static const char *const balance_texts[] = {
	"tcp+udp 192.0.2.2:9090 to 203.0.113.1:90,203.0.113.2:90,203.0.113.3:90,203.0.113.4:90",
	"tcp+udp [2001:db8::192.0.2.2]:9090 to [2001:db8::203.0.113.1]:90,"
	"[2001:db8::203.0.113.2]:90,[2001:db8::203.0.113.3]:90,[2001:db8::203.0.113.4]:90",
	NULL,
};
static const char *const own_address_texts[] = {"tcp 192.0.2.2:9090 to 90", NULL};

static const struct rule_set redirects = {"3 rules", redirect_texts, 0, NULL, 0};
static const struct rule_set births = {"births and deaths", redirect_texts, 0, NULL, EVENTS_FLOWS};
static const struct rule_set samples = {"and sampled packets", redirect_texts, 0, NULL,
					EVENTS_FLOWS | EVENTS_PACKETS};
static const struct rule_set dnat = {"dnat", dnat_texts, 0, NULL, 0};
static const struct rule_set snat = {"snat", NULL, 2 * 128, one_target_each, 0};
static const struct rule_set balanced = {"balance", balance_texts, 0, NULL, 0};
static const struct rule_set many_ports = {"65,534 ports", NULL, 65534, one_port_each, 0};
static const struct rule_set many_addresses = {"10,000 addresses", own_address_texts, 9999,
					       one_address_each, 0};

/* ---- measurements ---- */

/* One packet over and over: everything is in the nearest cache. */
static const struct measurement one_packet[] = {
	{"ingress, not IP", RUN_REAL_IN, CHOOSE_ONE, &to_nowhere, REASON_NOT_IP,
	 .protocol = IPPROTO_RAW},
	{"ingress, ICMP", RUN_REAL_IN, CHOOSE_ONE, &to_nowhere, REASON_NOT_TCP_UDP,
	 .protocol = IPPROTO_ICMP},
	{"ingress, later fragment", RUN_REAL_IN, CHOOSE_ONE, &to_service, REASON_FRAGMENT,
	 .only = IPPROTO_UDP, .part = PART_LATER},
	{"ingress, port without rules", RUN_REAL_IN, CHOOSE_ONE, &to_nowhere, REASON_UNRELATED,
	 .tcp_flags = ACK},
	{"egress, port without rules", RUN_REAL_OUT, CHOOSE_ONE, &from_nowhere, REASON_UNRELATED,
	 .tcp_flags = ACK},
	{"egress, a target's port, no flow", RUN_REAL_OUT, CHOOSE_ONE, &from_own_target,
	 REASON_UNRELATED, .tcp_flags = ACK},
	{"ingress, established", RUN_REAL_IN, CHOOSE_ONE, &to_pair, EXPECT_FORWARD,
	 .tcp_flags = ACK},
	{"egress, established", RUN_REAL_OUT, CHOOSE_ONE, &from_pair, EXPECT_FORWARD,
	 .tcp_flags = ACK},
};

/* The two flows of a packet that is redirected to and fro. */
static const struct measurement pair_fill[] = {
	{"pair", RUN_REAL_IN, CHOOSE_ONE, &to_pair, EXPECT_FORWARD, .tcp_flags = ACK},
	{"pair, back", RUN_REAL_OUT, CHOOSE_ONE, &from_pair, EXPECT_FORWARD, .tcp_flags = ACK},
	{"pair", RUN_REAL_IN, CHOOSE_ONE, &to_pair, EXPECT_FORWARD, .tcp_flags = ACK},
};

/* Handshakes, or question, answer, question: all flows are assured then. */
static const struct measurement redirect_fill[] = {
	{"SYN", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
	{"SYN, ACK", RUN_OUT, CHOOSE_LIVE, &from_own_target, EXPECT_FORWARD, .tcp_flags = SYNACK},
	{"ACK", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD, .tcp_flags = ACK},
};
static const struct measurement dnat_fill[] = {
	{"SYN", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
	{"SYN, ACK", RUN_OUT, CHOOSE_LIVE, &from_target, EXPECT_FORWARD, .tcp_flags = SYNACK},
	{"ACK", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD, .tcp_flags = ACK},
};
static const struct measurement snat_fill[] = {
	{"SYN", RUN_IN, CHOOSE_LIVE, &to_listener, EXPECT_CREATE, .tcp_flags = SYN},
	{"SYN, ACK", RUN_IN, CHOOSE_LIVE, &to_source, EXPECT_FORWARD, .tcp_flags = SYNACK},
	{"ACK", RUN_IN, CHOOSE_LIVE, &to_listener, EXPECT_FORWARD, .tcp_flags = ACK},
};

/* Another flow each time. */
static const struct measurement redirect_packets[] = {
	{"ingress, established", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD,
	 .tcp_flags = ACK},
	{"egress, established", RUN_OUT, CHOOSE_LIVE, &from_own_target, EXPECT_FORWARD,
	 .tcp_flags = ACK},
	{"egress, a target's port, no flow", RUN_OUT, CHOOSE_ABSENT, &from_own_target,
	 REASON_UNRELATED, .tcp_flags = ACK},
	{"first packet", RUN_IN, CHOOSE_FRESH, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
};
static const struct measurement dnat_packets[] = {
	{"original, ingress", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD, .tcp_flags = ACK},
	{"reply, egress", RUN_OUT, CHOOSE_LIVE, &from_target, EXPECT_FORWARD, .tcp_flags = ACK},
	{"first packet", RUN_IN, CHOOSE_FRESH, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
};
static const struct measurement snat_packets[] = {
	{"original, ingress", RUN_IN, CHOOSE_LIVE, &to_listener, EXPECT_FORWARD, .tcp_flags = ACK},
	{"original, egress", RUN_OUT, CHOOSE_LIVE, &to_targets, EXPECT_FORWARD, .tcp_flags = ACK},
	{"reply, ingress", RUN_IN, CHOOSE_LIVE, &to_source, EXPECT_FORWARD, .tcp_flags = ACK},
	{"reply, egress", RUN_OUT, CHOOSE_LIVE, &from_targets, EXPECT_FORWARD, .tcp_flags = ACK},
	{"first packet", RUN_IN, CHOOSE_FRESH, &to_listener, EXPECT_CREATE, .tcp_flags = SYN},
};
static const struct measurement balance_packets[] = {
	{"first packet", RUN_IN, CHOOSE_FRESH, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
};

/* The first one is measured right before, so that later ones have what to follow. */
static const struct measurement fragment_packets[] = {
	{"ingress, first fragment", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD,
	 .part = PART_FIRST},
	{"ingress, later fragment", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD,
	 .part = PART_LATER},
	{"egress, first fragment", RUN_OUT, CHOOSE_LIVE, &from_target, EXPECT_FORWARD,
	 .part = PART_FIRST},
	{"egress, later fragment", RUN_OUT, CHOOSE_LIVE, &from_target, EXPECT_FORWARD,
	 .part = PART_LATER},
};

/*
 * Of no flow, but with the port of a target that has an address: is one in the way? What begins
 * there is a direct flow.
 */
static const struct measurement misses[] = {
	{"ingress, to it", RUN_IN, CHOOSE_ABSENT, &to_target, REASON_UNRELATED, .tcp_flags = ACK,
	 .only = IPPROTO_TCP},
	{"ingress, to it, first packet", RUN_IN, CHOOSE_FRESH, &to_target, EXPECT_CREATE,
	 .tcp_flags = SYN},
	{"ingress, from it", RUN_IN, CHOOSE_ABSENT, &from_target, REASON_UNRELATED,
	 .tcp_flags = ACK},
	{"egress, to it, this host's own", RUN_OUT, CHOOSE_ABSENT, &to_target, REASON_UNRELATED,
	 .tcp_flags = ACK},
	{"egress, to it, SYN", RUN_OUT, CHOOSE_ABSENT, &to_target, REASON_UNRELATED,
	 .tcp_flags = SYN, .only = IPPROTO_TCP},
	{"egress, from it", RUN_OUT, CHOOSE_ABSENT, &from_target, REASON_UNRELATED,
	 .tcp_flags = ACK},
};

static const struct measurement rules_packets[] = {
	{"established", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD, .tcp_flags = ACK},
	{"no rule", RUN_IN, CHOOSE_ABSENT, &to_other, REASON_NO_MATCH, .tcp_flags = SYN},
	{"first packet", RUN_IN, CHOOSE_FRESH, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
};

/* Few enough new flows a round for the ring buffer. */
static const struct measurement event_packets[] = {
	{"established", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD, .tcp_flags = ACK},
	{"first packet", RUN_IN, CHOOSE_FRESH, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
};

static const struct measurement steps[] = {
	{"headers", RUN_UNTIL_PARSE, CHOOSE_LIVE, &to_service, EXPECT_NOTHING, .tcp_flags = ACK},
	{"+ port table, both ports", RUN_UNTIL_PORTS, CHOOSE_LIVE, &to_service, EXPECT_NOTHING,
	 .tcp_flags = ACK},
	{"+ flow lookup", RUN_UNTIL_FIND, CHOOSE_LIVE, &to_service, EXPECT_NOTHING,
	 .tcp_flags = ACK},
	{"+ expiry, state, counters", RUN_UNTIL_ACCOUNT, CHOOSE_LIVE, &to_service, EXPECT_NOTHING,
	 .tcp_flags = ACK},
	{"+ ports and checksum", RUN_IN, CHOOSE_LIVE, &to_service, EXPECT_FORWARD,
	 .tcp_flags = ACK},
};

/* As many unassured flows as the table holds. */
static const struct measurement flood_fill[] = {
	{"SYN", RUN_IN, CHOOSE_FRESH, &to_service, EXPECT_CREATE, .tcp_flags = SYN},
};
static const struct measurement flood[] = {
	{"first packet, table full", RUN_IN, CHOOSE_FRESH, &to_service, EXPECT_EVICT,
	 .tcp_flags = SYN},
};

/* ---- groups ---- */

#define TABLE(t)   .table = (t), .n = ARRAY_SIZE(t)
#define FILLED(f)  .fill = (f), .n_fill = ARRAY_SIZE(f)
#define BOTH_TCP   (TCP4 | TCP6)
#define EVERY_KIND (TCP4 | TCP6 | UDP4 | UDP6)

const struct group groups[] = {
	{"one",
	 "One packet again and again",
	 EVERY_KIND,
	 FLOWS_LEAST,
	 {&redirects},
	 FILLED(pair_fill),
	 TABLE(one_packet)},
	{"redirect",
	 "Redirect, another flow each time",
	 EVERY_KIND,
	 ALL,
	 {&redirects},
	 FILLED(redirect_fill),
	 TABLE(redirect_packets)},
	{"steps",
	 "Redirect, ingress, step by step",
	 TCP4,
	 ALL,
	 {&redirects},
	 FILLED(redirect_fill),
	 TABLE(steps)},
	{"flood",
	 "A table full of unassured flows",
	 TCP4,
	 ALL,
	 {&redirects},
	 FILLED(flood_fill),
	 TABLE(flood)},
	{"dnat", "DNAT", BOTH_TCP, ALL, {&dnat}, FILLED(dnat_fill), TABLE(dnat_packets)},
	{"snat",
	 "DNAT and source translation",
	 BOTH_TCP,
	 ALL,
	 {&snat},
	 FILLED(snat_fill),
	 TABLE(snat_packets)},
	{"balance",
	 "DNAT to 4 targets by hash",
	 BOTH_TCP,
	 FLOWS_LEAST,
	 {&balanced},
	 TABLE(balance_packets)},
	{"fragments",
	 "DNAT, fragments",
	 UDP4,
	 FLOWS_LEAST,
	 {&dnat},
	 FILLED(dnat_fill),
	 TABLE(fragment_packets)},
	{"misses",
	 "No flow, and the port of a DNAT target",
	 TCP4 | UDP4,
	 ALL,
	 {&dnat},
	 FILLED(dnat_fill),
	 TABLE(misses)},
	{"rules",
	 "Many rules",
	 TCP4,
	 FLOWS_LEAST,
	 {&redirects, &many_ports, &many_addresses},
	 FILLED(redirect_fill),
	 TABLE(rules_packets)},
	{"events",
	 "Events that somebody listens to",
	 TCP4,
	 65536,
	 {&redirects, &births, &samples},
	 FILLED(redirect_fill),
	 TABLE(event_packets)},
};
const size_t n_groups = ARRAY_SIZE(groups);
