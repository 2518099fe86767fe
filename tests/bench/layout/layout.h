/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What layout.bpf.c and layout.c agree on: the control block of a run and the record of the own
 * table. Only <linux/types.h> below, as in shared/abi.h.
 */
#pragma once

#include <linux/types.h>

#define LAYOUT_SLOTS 16	  /* slots of a bucket, records of a window */
#define LAYOUT_LOCKS 4096 /* spin locks of the own table */
#define LAYOUT_WORDS 10	  /* 32-bit words of an IPv6 tuple */

/* Flow numbers: 0.. live, then those that `new` makes; young ones; a flood; unknown ones. */
#define LAYOUT_YOUNG (1U << 25)
#define LAYOUT_FLOOD (1U << 26)
#define LAYOUT_MISS  (1U << 27)

/* One block in the section .data.run, mapped by the loader; one run at a time, on one CPU. */
struct layout_run {
	__u32 counter; /* iterations so far; also the number of the next flow to create */
	__u32 span;    /* random choice is made out of that many flows */
	__u32 offset;  /* added to the choice: LAYOUT_MISS chooses flows that do not exist */
	__u32 bucket_mask;
	__u32 record_mask;
	__u32 assured;	 /* new flows are born assured */
	__u32 successes; /* iterations that did what their name says: checked after every run */
	__u32 evictions;
	__u32 hash_key[LAYOUT_WORDS];
};

/* An own-table record is two of these, one a direction: a packet needs its own cache line only. */
struct layout_half {
	__u32 tuple[9]; /* source, destination, ports */
	__u32 protocol;
	__u32 state; /* enum layout_state; in half 0 only */
	__u32 seen;  /* clock of the last packet; in half 0 only */
	__u64 packets, bytes;
};
_Static_assert(sizeof(struct layout_half) == 64, "one cache line");

struct layout_record {
	struct layout_half half[2];
};

enum layout_state {
	LAYOUT_FREE = 0,
	LAYOUT_UNASSURED,
	LAYOUT_ASSURED,
	LAYOUT_BUSY, /* claimed, not yet filled in */
};

/* Low 24 bits: record, high 8: tag. Record 0 is never used, so that 0 is an empty slot. */
struct layout_bucket {
	__u32 slot[LAYOUT_SLOTS];
};
_Static_assert(sizeof(struct layout_bucket) == 64, "one cache line");

/* The value of the hash map candidates: what translates a packet, and its counters. */
struct layout_value {
	__u64 packets, bytes;
	__u32 tuple[9]; /* of the translated packet */
	__u32 state, seen, rule;
};
_Static_assert(sizeof(struct layout_value) == 64, "one cache line");
