/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What world.c and datapath.bpf.c agree on: which packet the next iteration makes. */
#pragma once

#include <linux/types.h>

#define BENCH_PORT_FIRST 1024

/* One end of a packet: the last word of its address is first + (flow >> shift). */
struct bench_end {
	__u32 first;
	__u32 shift;
};

/*
 * Iteration n is of flow first + (n * stride & mask). The client's port follows from the flow; the
 * service's is `service`.
 */
struct bench_run {
	__u32 next;   /* n, counts up */
	__u32 stride; /* odd, so that every flow of the mask comes once before one comes again */
	__u32 mask;
	__u32 first;
	struct bench_end source, destination;
	__u32 ipv6;
	__u32 reply;	/* the client is the destination */
	__be16 service; /* the other port */
	__u16 pad;
};
