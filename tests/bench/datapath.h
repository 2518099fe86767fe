/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What datapath.c and datapath.bpf.c agree on: which packet the next iteration makes. */
#pragma once

#include <linux/types.h>

/*
 * Iteration n is of flow first + (n * stride & mask). Flow i has the client 10.0.0.0 + i, or the
 * same number in the last word of an IPv6 address, and a client port that follows from i.
 */
struct bench_run {
	__u32 next;   /* n, counts up */
	__u32 stride; /* odd, so that every flow of the mask comes once before one comes again */
	__u32 mask;
	__u32 first;
	__u32 ipv6;
	__u32 reply;	/* the client is the destination */
	__be16 service; /* the other port */
	__u16 pad;
};
