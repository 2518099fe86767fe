/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every map of the datapath. Sizes that depend on flows-max are set by the daemon before loading.
 * The maps that the daemon reads or writes in bulk are mappable, so that a dump, a sweep's search
 * and a change of 10,000 rules cost no system call an entry.
 */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "parse.bpf.h"
#include "shared/abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct datapath_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, PORT_COUNT);
	__type(key, __u32);
	__type(value, struct port_entry);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SHAPE_COUNT);
	__type(key, __u32);
	__type(value, struct shape);
} shapes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MATCH_COUNT);
	__type(key, struct match_key);
	__type(value, __u32); /* binding */
} matches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BINDING_COUNT);
	__type(key, __u32);
	__type(value, struct binding);
} bindings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ACTION_COUNT);
	__type(key, __u32);
	__type(value, struct action);
} actions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, BALANCE_COUNT);
	__type(key, __u32); /* action */
	__type(value, struct balance);
} balances SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SOURCE_COUNT);
	__type(key, struct source_key);
	__type(value, struct source_value);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LOCAL_COUNT);
	__type(key, struct local_key);
	__type(value, __u32);
} locals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set by the daemon */
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* a power of two, set by the daemon */
	__type(key, __u32);
	__type(value, struct index_bucket);
} flow_index SEC(".maps");

/* Where flows move to while flows-max is changed; at all other times not even created. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* as above */
	__type(key, __u32);
	__type(value, struct flow);
} flows_new SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct index_bucket);
} flow_index_new SEC(".maps");

/* A lock a cache line; apart from what they guard, since a map with locks cannot be mapped. */
struct lock_line {
	struct bpf_spin_lock lock;
	__u32 pad[15];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOCK_COUNT);
	__type(key, __u32);
	__type(value, struct lock_line);
} flow_locks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_totals);
} totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RULE_COUNT);
	__type(key, __u32);
	__type(value, struct rule_counters);
} rule_totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, TARGET_COUNT);
	__type(key, __u32); /* TARGET_KEY() */
	__type(value, struct rule_counters);
} target_totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RULE_COUNT);
	__type(key, __u32);
	__type(value, struct rule_setting);
} rule_settings SEC(".maps");

/* What limits go by: of a rule, and of a source of it. */
struct limit_state {
	struct bpf_spin_lock lock;
	__u32 flows; /* of a source, living; of a rule, let in and not counted in rule_totals yet */
	__u64 turn;  /* of the next flow by the rate, CLOCK_MONOTONIC */
	__u32 gone;  /* it is being deleted: look again */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RULE_COUNT);
	__type(key, __u32);
	__type(value, struct limit_state);
} limit_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LIMIT_SOURCES);
	__type(key, struct limit_source_key);
	__type(value, struct limit_state);
} limit_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_counters);
} counters SEC(".maps");

/*
 * What this processor's packet is worked on with; in the counters, which each packet looks up
 * anyway. Not on the stack, of which all functions of a call chain have 512 bytes together; the
 * verifier knows nothing of what is in here, so paths that differ by it only are one; and global
 * functions, which take only numbers before Linux 5.12, get at the packet.
 */
struct rival {
	__u32 record, room; /* see flow_room() */
	__be16 port;
};
struct scratch {
	struct packet packet;
	struct tuple key; /* looked for, entered, or to become, besides the packet's */
	struct fragment_key fragment;
	struct packet quote; /* what an ICMP error quotes */
	struct rival rival;  /* of the flows in the way of a new one, the one to go first */
	__u32 gone;	     /* a record that counts as none, to TABLE_TRIAL */
};
_Static_assert(sizeof(struct scratch) <= CPU_SCRATCH, "the scratch has no room for it");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DESTINATION_COUNT);
	__type(key, struct destination_key);
	__type(value, __u32); /* unused */
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENT_COUNT);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HELD_COUNT);
	__type(key, __u32);
	__type(value, struct held_fragment);
} held_fragments SEC(".maps");

/* Where a first fragment waits while held ones are sent in its skb. */
struct fragment_buffer {
	__u8 data[HELD_BYTES];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fragment_buffer);
} fragment_buffers SEC(".maps");

/* The scratch of a packet, while another one that it made passes a hook on the same processor. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} kept_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16 * RULE_COUNT);
	__type(key, struct registry_key);
	__type(value, struct registry_value);
} registry SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Set by the daemon before loading, so that the verifier drops the branch not taken. */
const volatile __u32 flow_records = 1; /* entries of `flows`, a multiple of FLOW_WINDOW */
const volatile __u32 index_mask = 0;   /* entries of `flow_index` - 1 */
const volatile __u32 table_number = 0; /* that of `flows`: TABLE_NUMBER() */
/* 1 in programs that are loaded for the time of a change of flows-max: there is a new table. */
const volatile __u32 table_migrating = 0;
const volatile __u32 flow_records_new = 1;
const volatile __u32 index_mask_new = 0;
