/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counting: per processor for packets, atomically for what all processors share. */
#pragma once

#include "maps.bpf.h"

/*
 * Adds without fetching: one `lock add`. Written in assembly because clang turns the builtin into
 * a fetching add, which kernels before 5.12 do not have, at some versions and levels.
 */
static __always_inline void atomic_add(__u64 *where, __u64 n)
{
	asm volatile("lock *(u64 *)(%0 + 0) += %1" ::"r"(where), "r"(n) : "memory");
}

static __always_inline struct cpu_counters *counters_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct scratch *scratch_of(struct cpu_counters *counts)
{
	return (struct scratch *)counts->scratch;
}

/* This processor's packet; NULL never, but the verifier does not know. */
static __always_inline struct packet *packet_current(void)
{
	struct cpu_counters *counts = counters_get();

	return counts ? &scratch_of(counts)->packet : NULL;
}

static __always_inline struct flow_totals *totals_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&totals, &zero);
}

static __always_inline struct datapath_config *config_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline __u32 clock_ticks(void)
{
	return bpf_jiffies64() >> TICK_SHIFT;
}
