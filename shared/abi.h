/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the datapath (BPF) and the daemon agree on: keys and values of the pinned maps.
 *
 * Included by both sides; only <linux/types.h> below. Every structure is free of implicit padding
 * and its size is asserted, since maps outlive the programs that made them. A change of any layout
 * here is a new DATAPATH_VERSION: maps are pinned in a folder of that version.
 *
 * Byte order: __be fields and addresses are in network order, all others in host order. Addresses
 * take 16 bytes; IPv4 stands as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), and FLOW_IPV6 tells the two
 * apart, so that a mapped address seen on the wire is never taken for IPv4.
 * Times are ticks: jiffies >> TICK_SHIFT, the cheapest clock a packet can read (0 ns, where the
 * coarse one costs 14). A tick is 16 ms at HZ=1000 and 160 ms at HZ=100; 32 bits of them wrap after
 * 2.2 years at the earliest.
 */
#pragma once

#include <linux/types.h>

#define DATAPATH_VERSION 3
#define TICK_SHIFT	 4

/* nf_conntrack's state names (net/netfilter/nf_conntrack_proto_tcp.c), UDP's two behind them. */
enum flow_state {
	FLOW_FREE = 0, /* the record holds no flow */
	FLOW_SYN_SENT,
	FLOW_SYN_RECV,
	FLOW_ESTABLISHED,
	FLOW_FIN_WAIT,
	FLOW_CLOSE_WAIT,
	FLOW_LAST_ACK,
	FLOW_TIME_WAIT,
	FLOW_CLOSE,
	FLOW_SYN_SENT2,	    /* both ends have sent a SYN, neither has answered one */
	FLOW_UDP_UNREPLIED, /* until the client sends again after a reply */
	FLOW_UDP_REPLIED,   /* a stream */
	FLOW_STATE_COUNT,
};

/* Flow flags. The first two are part of the tuple, together called its kind. */
#define FLOW_UDP       0x01
#define FLOW_IPV6      0x02
#define FLOW_KIND      (FLOW_UDP | FLOW_IPV6)
#define FLOW_REPLIED   0x04 /* a packet came back */
#define FLOW_ASSURED   0x08 /* both ends have proved to be there: never evicted for room */
#define FLOW_SNAT      0x10 /* the source's address changes too, as the packet leaves */
#define FLOW_FIN_ORIG  0x20 /* the client has sent a FIN */
#define FLOW_FIN_REPLY 0x40 /* the server has sent a FIN */
#define FLOW_LOCAL     0x80 /* a client of this host, a server of another: see bpf/nat.bpf.h */

/*
 * In `seq`: one processor is making or unmaking the flow, hands off. Written, as `state` and
 * `flags` are, under the record's lock or by its owner. With FLOW_MOVED the flow is in another
 * table now: TABLE_STEADY and so on.
 */
#define FLOW_OWNED 0x8000
#define FLOW_MOVED 0x4000 /* only together with FLOW_OWNED; `created` is the other record */
#define FLOW_SEQ   0x3fff /* the counter */

/* One direction of a flow: its packets as they are before translation. */
struct flow_dir {
	__be32 saddr[4], daddr[4];
	__be16 sport, dport;
	__u32 seen;	      /* tick of the last packet */
	__u64 packets, bytes; /* a GSO packet counts as its segments; bytes of IP length */
};

/*
 * A flow: two cache lines, one a direction, so that the two directions do not fight over one.
 * A packet of one direction becomes the inverse of the other direction's tuple, as in
 * nf_conntrack's pair of tuples.
 *
 * A flow of rule 0 belongs to none: a direct connection to a target. Its source port is translated
 * if a flow of a rule had taken its tuple.
 */
struct flow {
	struct flow_dir original;
	__u8 state; /* enum flow_state */
	__u8 flags;
	__u16 rule;	  /* id */
	__u16 seq;	  /* changes whenever the record changes hands; FLOW_OWNED, FLOW_MOVED */
	__u16 generation; /* of the rule set that this flow was last held against */
	struct flow_dir reply;
	__u32 origin;  /* FLOW_IFINDEX: where the first packet came in; FLOW_TARGET;
			  FLOW_SOURCE_COUNTED */
	__u32 created; /* tick */
} __attribute__((aligned(8)));

#define FLOW_IFINDEX(origin)	     ((origin)&0x00ffffffU) /* its low 24 bits */
#define FLOW_TARGET(origin)	     ((origin) >> 24 & (BALANCE_TARGETS - 1))
#define FLOW_ORIGIN(ifindex, target) (FLOW_IFINDEX(ifindex) | (__u32)(target) << 24)
#define FLOW_SOURCE_COUNTED	     0x80000000U /* among its source's, in `limit_sources` */

/*
 * The hash index of the flow table: bucket = hash & mask. A slot is tag << 24 | record, the tag
 * the hash's highest 8 bits; 0 is empty (record 0 is never used). `version` changes with every
 * write to the bucket.
 */
#define INDEX_SLOTS	15
#define INDEX_TAG_SHIFT 24
#define INDEX_RECORD	0x00ffffffU
struct index_bucket {
	__u32 version;
	__u32 slots[INDEX_SLOTS];
};

#define FLOW_WINDOW 16 /* records that are looked at together for room, under one lock */
#define LOCK_COUNT  4096

/* Per protocol and port, twice: the bank that packets use now, and the one being written. */
#define PORT_LISTEN    0x80000000U /* flows to this port may live without a rule */
#define PORT_REPLY_IN  0x40000000U /* replies from this port may need ingress translation */
#define PORT_REPLY_OUT 0x20000000U /* replies from this port may need egress translation */
#define PORT_SNAT_OUT  0x10000000U /* packets to this port may need egress translation */
#define PORT_MARKS     (PORT_LISTEN | PORT_REPLY_IN | PORT_REPLY_OUT | PORT_SNAT_OUT)
#define PORT_SHAPE     0x00ffffffU /* first shape of the port's rules; 0: none */
struct port_entry {
	__u32 bank[2];
};
#define PORT_INDEX(udp, port_host) (((udp) ? 65536U : 0U) + (port_host))
#define PORT_COUNT		   131072

/*
 * How to look for the rules of a port: a chain of shapes, most specific first. All rules of one
 * shape constrain the same things, so that one hash lookup finds which of them takes the packet,
 * however many there are (tuple space search: Srinivasan, Suri, Varghese, SIGCOMM 1999).
 */
#define SHAPE_INTERFACE 0x01 /* the incoming interface is part of the key */
#define SHAPE_LOCAL	0x02 /* the destination must be an address of this host */
#define SHAPE_IPV4	0x04 /* only IPv4 packets: a short IPv6 prefix holds ::ffff:0:0/96 too */
#define SHAPE_IPV6	0x08 /* only IPv6 packets */
#define SHAPE_CHAIN_MAX 32   /* shapes on one port */
#define SHAPE_COUNT	262144
struct shape {
	__u32 next;    /* 0: the last */
	__u32 binding; /* with no key at all: the binding itself; 0: look in `matches` */
	__u8 flags;
	__u8 dst_length, src_length; /* of the 128-bit form; 0: not part of the key */
	__u8 pad[5];
};

#define MATCH_COUNT 262144
struct match_key {
	__u32 shape;
	__u32 ifindex;		   /* 0 without SHAPE_INTERFACE */
	__be32 daddr[4], saddr[4]; /* masked */
};

/* What `bind_match` reads from a packet, at SWEEP_OFFSET. */
struct match_bound {
	struct match_key key;
	__u32 binding;
};

/*
 * A rule's place among shapes and matches, and which action it has there in each bank; 0: none, as
 * if the place were empty. One store changes a rule, or takes it away, however many matches it has.
 */
#define BINDING_COUNT 131072
struct binding {
	__u32 action[2];
};

/* Where a rule sends its flows. */
#define TARGET_ADDRESS 0x01 /* the destination becomes `addr`; else it stays */
#define TARGET_FOLDED  0x02 /* every port becomes `port_first`; else ports are shifted along */
#define TARGET_SET     0x04 /* there is one in this place */
struct target {
	__be32 addr[4];
	__u16 port_first; /* host order */
	__u8 flags;
	__u8 pad[5];
};

/*
 * Which new flows are let in. The rate is kept by the generic cell rate algorithm (ITU-T I.371): a
 * flow is in time if it comes no more than `tolerance_ns` before its turn, and turns are
 * `interval_ns` apart.
 */
enum limit_kind {
	LIMIT_RULE,   /* all flows of the rule */
	LIMIT_SOURCE, /* those of one source: an IPv4 address, a /64 of IPv6 */
	LIMIT_KINDS,
};
struct limit {
	__u32 max_flows; /* at once; 0: no limit */
	__u32 pad;
	__u64 interval_ns; /* 0: no limit */
	__u64 tolerance_ns;
};

/*
 * What to do with a packet that a rule takes. Never changed once packets may see it. With several
 * targets `target` is unused, and `balances` has an entry of this action's id.
 */
#define ACTION_MASQUERADE	 0x01 /* the source becomes this host's, where the packet leaves */
#define ACTION_SNAT		 0x02 /* the source becomes `snat` */
#define ACTION_BALANCE		 0x04 /* several targets, by the flow's hash */
#define ACTION_RANDOM		 0x08 /* with ACTION_BALANCE: by chance */
#define ACTION_LIMITED		 0x10 /* limits[LIMIT_RULE] has one */
#define ACTION_LIMITED_BY_SOURCE 0x20
#define ACTION_COUNT		 131072
struct action {
	__u16 rule;	    /* id */
	__u16 listen_first; /* port, host order */
	__u8 flags;
	__u8 number; /* of the target, as in `balances` */
	__u8 pad[2];
	struct target target;
	__be32 snat[4];
	struct limit limits[LIMIT_KINDS];
};

/*
 * The targets of a rule that has several. A slot holds the number of one; a flow takes slot hash %
 * BALANCE_SLOTS. Weights are shares of the slots. The hash has no secret, so that machines with
 * the same rule agree: target_hash() of bpf/target.bpf.h. A target's place in `targets` is its
 * number, which stays when others come and go, and is not another's as long as it has flows.
 */
#define BALANCE_TARGETS 64
#define BALANCE_SLOTS	8191 /* a prime: Maglev needs one (Eisenbud et al., NSDI 2016) */
#define BALANCE_COUNT	8192
struct balance {
	struct target targets[BALANCE_TARGETS];
	__u8 slots[BALANCE_SLOTS + 1]; /* the last is padding */
};

/* What a rule's dead flows added up to, how many it made, and how many its limits turned away. */
#define RULE_COUNT 65536 /* ids 1..65535 */
struct rule_counters {
	__u64 packets, bytes;
	__u64 created, destroyed; /* flows */
	__u64 refused;
};
/*
 * The same of a rule's targets but number 0, whose figures are what is missing to the rule's. Made
 * by the first flow.
 */
#define TARGET_KEY(rule, number) ((__u32)(rule) << 8 | (number))
#define TARGETS_GONE		 255 /* in place of a number: former targets whose number is another's */
#define TARGET_COUNT		 262144

/*
 * What living flows of a rule go by, removed or not: its own timeouts, and what becomes of them
 * when it changes. `changed` is the generation from which on the rule is as it is now: flows that
 * were last held against an older one may not be its any more.
 */
enum rule_on_change_policy {
	POLICY_KEEP,  /* TCP goes on; UDP follows the rules at its next packet */
	POLICY_DRAIN, /* all go on until `deadline`, then as with POLICY_RESET */
	POLICY_RESET, /* TCP ends at its next packet, both ends are told; UDP follows the rules */
};
struct rule_setting {
	__u32 timeouts[FLOW_STATE_COUNT]; /* ticks; 0: those of all */
	__u32 deadline;			  /* tick */
	__u16 changed;
	__u8 policy; /* enum rule_on_change_policy */
	__u8 pad[9];
};

/* A source of flows of a rule that limits them. */
struct limit_source_key {
	__be32 addr[4]; /* of IPv6 the first 64 bits */
	__u16 rule;
	__u16 pad;
};
#define LIMIT_SOURCES 262144 /* known at once; who finds no room is not limited */

/* Routes of type local: which destinations are this host's. Value is unused. */
struct local_key {
	__u32 length; /* of the 128-bit form */
	__be32 addr[4];
};
#define LOCAL_COUNT 65536

/*
 * Which address a masqueraded packet gets: by the interface it leaves through and the next hop, so
 * that, as with inet_select_addr(), the address is of the next hop's subnet where there is one. A
 * trie: interface (32 bits), then next hop in the 128-bit form. Interface 0 serves those without
 * an address of the family.
 */
struct source_key {
	__u32 length; /* 32 + that of the next hop's prefix */
	__u32 ifindex;
	__be32 addr[4];
};
struct source_value {
	__be32 addr[4];
};
#define SOURCE_COUNT 65536

/*
 * The other hosts that rules send flows to. Connections that clients open to them through here, by
 * no rule, are known as flows of rule 0, so that no flow of a rule takes their tuple.
 */
struct destination_key {
	__be32 addr[4];
};
#define DESTINATION_COUNT 65536

/*
 * What became of a datagram's first fragment, for the later ones; by what reassembly goes by
 * (RFC 791, 3.2; RFC 8200, 4.5), and by where they are seen. An LRU.
 */
enum fragment_state {
	FRAGMENT_LEAVE,	 /* the first one was not translated */
	FRAGMENT_FOLLOW, /* it belongs to a flow */
	FRAGMENT_HELD,	 /* it has not come yet, later ones have */
};
struct fragment_key {
	__be32 saddr[4], daddr[4];
	__be32 id;
	__u8 protocol; /* 0 with IPv6 */
	__u8 kind;     /* FLOW_IPV6 or 0 */
	__u8 stage;    /* 0: coming in, 1: leaving */
	__u8 pad;
};
struct fragment {
	__u32 record; /* with FRAGMENT_FOLLOW: the flow's, and its table: TABLE_RECORD() */
	__u16 seq;
	__u8 direction; /* 0 original, 1 reply */
	__u8 state;	/* enum fragment_state */
	__u32 seen;	/* FRAGMENT_SECONDS() of the first that came */
	__u32 held;	/* with FRAGMENT_HELD: 1 + the place of the last one in `held_fragments` */
};
#define FRAGMENT_COUNT	     16384
#define FRAGMENT_SECONDS(ns) ((__u32)((ns) >> 30)) /* nearly */
#define FRAGMENT_LIFETIME    30			   /* of them, as net.ipv4.ipfrag_time */

/* A fragment that came before the first one: dropped, and sent again from here when that comes. */
#define HELD_COUNT 256
#define HELD_BYTES 2048
#define HELD_CHAIN 64 /* fragments of one datagram */
struct held_fragment {
	struct fragment_key key;
	__u32 next;   /* 1 + place; 0: none */
	__u32 length; /* of the data; 0: free */
	__u32 seen;
	__u8 data[HELD_BYTES]; /* from the link header on */
};

/*
 * What a daemon that starts needs to know of the rules: text, origin, source. Text, cut into parts;
 * packets never look at it.
 */
#define REGISTRY_PART 256
/* In place of an id: what a change that waits to be confirmed goes back to, and when. */
#define REGISTRY_UNDO	  RULE_COUNT
#define REGISTRY_DEADLINE (RULE_COUNT + 1)
#define REGISTRY_KEYS	  (RULE_COUNT + 2)
struct registry_key {
	__u32 rule; /* id */
	__u32 part; /* from 0 */
};
struct registry_value {
	char text[REGISTRY_PART]; /* the last part ends with a NUL */
};

/*
 * While flows-max is changed there are two tables: `flows` with `flow_index`, which is to go, and
 * `flows_new` with `flow_index_new`. bpf/migrate.bpf.h has the steps. A table has a number, so that
 * what was noted of a record is never taken for one of the next table.
 */
enum table_phase {
	TABLE_STEADY,  /* only `flows` counts */
	TABLE_MOVING,  /* flows are found in both, and made in the new one */
	TABLE_MERGING, /* all are in the new one; what was counted in the old one meanwhile follows
			*/
};
#define TABLE_WORD(number, phase)    (((number)&0xffU) << 8 | (phase))
#define TABLE_NUMBER(word)	     ((word) >> 8 & 0xffU) /* that of `flows` */
#define TABLE_PHASE(word)	     ((word)&0xffU)
#define TABLE_RECORD(number, record) (((number)&0xffU) << 24 | ((record)&INDEX_RECORD))
/* In the programs' numbers of records: one of `flows_new`. */
#define RECORD_NEW 0x40000000U

/* Read by packets, written by the daemon. */
#define EVENTS_FLOWS   0x01
#define EVENTS_PACKETS 0x02
struct datapath_config {
	__u32 hash_keys[16]; /* secret; the last two make one odd 64-bit number */
	__u32 bank;	     /* 0 or 1 */
	__u32 generation;    /* of the rule set; its low 16 bits are held against flows */
	__u32 flows_max;
	__u32 events;			  /* EVENTS_*: who listens */
	__u32 timeouts[FLOW_STATE_COUNT]; /* ticks */
	__u32 sample_mask;		  /* one packet in mask + 1 makes an event */
	__u32 fragments;     /* 1: addresses are translated, so later fragments matter */
	__u32 rule_timeouts; /* 1: some rule has its own */
	__u32 table;	     /* TABLE_WORD() */
	__u64 direct;	     /* flows of rule 0; written by packets only */
};

/*
 * Written by packets that make or unmake a flow, on all processors. port_searches: how many source
 * ports were tried until one was free: the client's own, 2, 3 to 4, 5 to 8 and so on.
 */
#define PORT_SEARCH_MAX	    128
#define PORT_SEARCH_CLASSES 8
struct flow_totals {
	__u64 created, destroyed, expired, evicted, insert_failed;
	__u64 port_searches[PORT_SEARCH_CLASSES];
};

/*
 * Why a packet was left alone, or dropped. The names in datapath.c, used by `stats`, follow this
 * order.
 */
enum packet_reason {
	REASON_UNRELATED, /* no rule on its port and no flow */
	REASON_NO_MATCH,  /* rules on its port, but none for its interface or addresses */
	REASON_STRAY,	  /* to a redirected port, no flow, and not able to begin one */
	REASON_NOT_IP,
	REASON_NOT_TCP_UDP,
	REASON_FRAGMENT,   /* not the first: the ports are in the first, which nobody translates */
	REASON_TRUNCATED,  /* headers or length beyond the packet's end */
	REASON_MALFORMED,  /* lengths that contradict each other */
	REASON_EXTENSIONS, /* more IPv6 extension headers or VLAN tags than are walked */
	/* From here on the packet was dropped. */
	REASON_TABLE_FULL, /* flows-max reached and nothing to evict */
	REASON_INDEX_FULL, /* its bucket is full */
	REASON_PORTS_FULL, /* no source port is free towards the target */
	REASON_NO_SOURCE,  /* masquerade, and this host has no address of the family */
	REASON_HELD,	   /* a fragment that came before the first one; sent on when that comes */
	REASON_REWRITE,	   /* the kernel had no memory to write the headers */
	REASON_MAX_FLOWS,  /* the rule has as many flows as it may */
	REASON_RATE,	   /* too many new flows of the rule */
	REASON_SOURCE_MAX_FLOWS, /* the same of one source */
	REASON_SOURCE_RATE,
	REASON_RESET, /* its rule has changed, and this TCP flow ends: both ends were sent RSTs */
	REASON_COUNT,
};
#define REASON_FIRST_DROP REASON_TABLE_FULL

/* Per processor. */
#define CPU_SCRATCH 256
struct cpu_counters {
	__u64 packets, bytes; /* all that the hooks saw */
	__u64 reasons[REASON_COUNT];
	__u64 events_lost;
	__u64 icmp_errors; /* translated ones */
	__u32 hand;	   /* of the sequence of windows to look at for room */
	__u32 held;	   /* of the places for fragments that came too early */
	__u32 reclaimed;   /* tick of the last look for expired flows where a limit refused */
	__u32 pad;
	__u64 scratch[CPU_SCRATCH / 8]; /* what a packet is being worked on with: bpf/maps.bpf.h */
};

enum event_kind {
	EVENT_NEW,
	EVENT_DESTROY,
	EVENT_PACKET,
};
enum destroy_reason {
	DESTROY_EXPIRED,
	DESTROY_REOPENED, /* a SYN on a closing tuple began a new flow */
	DESTROY_EVICTED,  /* unassured, and the room was needed */
	DESTROY_RULE,	  /* the rules say otherwise now */
	DESTROY_REQUEST,
};
struct flow_event {
	__u8 kind;	/* enum event_kind */
	__u8 reason;	/* enum destroy_reason, with EVENT_DESTROY */
	__u8 direction; /* with EVENT_PACKET: 0 original, 1 reply */
	__u8 pad;
	__u32 length; /* with EVENT_PACKET: IP length */
	struct flow flow;
};

/*
 * What the sweep program is to end, as packet data behind SWEEP_OFFSET bytes of zeros. It writes
 * into each whether it did. `migrate` takes only records.
 */
#define SWEEP_OFFSET 16
#define SWEEP_BATCH  128
struct sweep_item {
	__u32 record;
	__u16 seq;
	__u8 reason; /* enum destroy_reason; with DESTROY_EXPIRED only if it still is */
	__u8 freed;
};

/*
 * What the trace program makes of the packet that it is run on: which flow takes it, or would be
 * made. Written over the packet's data, which is as long at least.
 */
enum trace_stage {
	TRACE_IN,	/* once a packet of the original direction has come in */
	TRACE_OUT,	/* as it leaves */
	TRACE_REPLY_IN, /* the same of the reply */
	TRACE_REPLY_OUT,
	TRACE_STAGES,
};
#define TRACE_FOUND 0x01 /* the flow is there already; else it would be made */
struct trace_tuple {
	__be32 saddr[4], daddr[4];
	__be16 sport, dport;
};
struct trace_answer {
	__u32 reason;	/* enum packet_reason; REASON_COUNT: a flow takes it */
	__u8 flags;	/* TRACE_FOUND */
	__u8 direction; /* the packet's in the flow: 0 original, 1 reply */
	__u8 ended;	/* 1 + enum destroy_reason of a flow that would end first; 0: none */
	__u8 pad[9];
	struct flow flow; /* without a flow `rule` is still the one that was found, if any */
	struct trace_tuple becomes[TRACE_STAGES];
};

#define ABI_ASSERT_SIZE(type, size)                                                                \
	_Static_assert(sizeof(type) == (size), #type " has another size than the maps hold")
ABI_ASSERT_SIZE(struct flow_dir, 56);
ABI_ASSERT_SIZE(struct flow, 128);
ABI_ASSERT_SIZE(struct index_bucket, 64);
ABI_ASSERT_SIZE(struct port_entry, 8);
ABI_ASSERT_SIZE(struct shape, 16);
ABI_ASSERT_SIZE(struct match_key, 40);
ABI_ASSERT_SIZE(struct match_bound, 44);
ABI_ASSERT_SIZE(struct binding, 8);
ABI_ASSERT_SIZE(struct target, 24);
ABI_ASSERT_SIZE(struct limit, 24);
ABI_ASSERT_SIZE(struct action, 96);
ABI_ASSERT_SIZE(struct balance, BALANCE_TARGETS * 24 + BALANCE_SLOTS + 1);
ABI_ASSERT_SIZE(struct source_key, 24);
ABI_ASSERT_SIZE(struct source_value, 16);
ABI_ASSERT_SIZE(struct rule_counters, 40);
ABI_ASSERT_SIZE(struct rule_setting, 64);
ABI_ASSERT_SIZE(struct limit_source_key, 20);
ABI_ASSERT_SIZE(struct local_key, 20);
ABI_ASSERT_SIZE(struct destination_key, 16);
ABI_ASSERT_SIZE(struct fragment_key, 40);
ABI_ASSERT_SIZE(struct fragment, 16);
ABI_ASSERT_SIZE(struct held_fragment, 52 + HELD_BYTES);
ABI_ASSERT_SIZE(struct trace_answer, 16 + 128 + TRACE_STAGES * 36);
ABI_ASSERT_SIZE(struct registry_key, 8);
ABI_ASSERT_SIZE(struct registry_value, 256);
ABI_ASSERT_SIZE(struct datapath_config, 152);
ABI_ASSERT_SIZE(struct flow_totals, 40 + 8 * PORT_SEARCH_CLASSES);
ABI_ASSERT_SIZE(struct cpu_counters, 48 + 8 * REASON_COUNT + CPU_SCRATCH);
ABI_ASSERT_SIZE(struct flow_event, 136);
ABI_ASSERT_SIZE(struct sweep_item, 8);
