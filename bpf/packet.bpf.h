/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading packet bytes: straight from the linear part where they are there, by helper where not.
 * Never pulls: a partial pull of a UDP GSO_FRAGLIST packet panics kernels before 6.16.
 */
#pragma once

#include <linux/bpf.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>

#define PACKET_OFFSET_MAX 0x3ff /* headers end well before; keeps the verifier's bounds small */

/*
 * The same number, of which the verifier knows nothing any more; `unknown` is any that it does not
 * know, as a field of the skb. Paths that differ by this number only are one path from here on.
 * (Before Linux 6.4 every number matters to it, needed or not, in programs with functions.)
 */
static __always_inline __u32 packet_forget(__u32 number, __u32 unknown)
{
	number ^= unknown;
	barrier_var(number);
	return number ^ unknown;
}

/*
 * A pointer to `length` bytes at `offset`: into the packet or, when they are not in the linear
 * part, into `buffer`, which they are copied to. NULL: the packet ends before.
 */
static __always_inline void *packet_at(struct __sk_buff *skb, __u32 offset, __u32 length,
				       void *buffer)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	offset &= PACKET_OFFSET_MAX;
	if (data + offset + length <= end)
		return data + offset;
	if (bpf_skb_load_bytes(skb, offset, buffer, length) < 0)
		return NULL;
	return buffer;
}
