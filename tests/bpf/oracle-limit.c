/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits, as redirectd.conf(5) has them: flows are counted when another one is to begin. Time does
 * not pass: of a rate there is the burst, and nothing after it.
 */
#include <string.h>

#include "tests/bpf/oracle-parts.h"

/* One host has as many IPv6 addresses as it likes, of one /64. */
static bool same_source(const struct oracle_tuple *a, const struct oracle_tuple *b)
{
	return a->ipv6 == b->ipv6 && memcmp(a->source, b->source, a->ipv6 ? 8 : 4) == 0;
}

uint32_t oracle_exceeded(const struct oracle *o, const struct oracle_rule *r,
			 const struct oracle_tuple *t)
{
	uint32_t flows = 0, of_source = 0, let_in = 0, let_in_of_source = 0, reasons = 0;

	for (size_t i = 0; i < o->n_flows; i++) {
		const struct oracle_flow *f = &o->flows[i];
		bool same = same_source(&f->original, t);

		if (f->rule != r)
			continue;
		let_in += f->in_rate;
		let_in_of_source += same && f->in_rate_of_source;
		flows += !f->dead;
		of_source += !f->dead && same && f->of_source;
	}
	if (r->max_flows && flows >= r->max_flows)
		reasons |= ORACLE_REASON(REASON_MAX_FLOWS);
	if (r->max_flows_of_source && of_source >= r->max_flows_of_source)
		reasons |= ORACLE_REASON(REASON_SOURCE_MAX_FLOWS);
	if (r->burst && let_in >= r->burst)
		reasons |= ORACLE_REASON(REASON_RATE);
	if (r->burst_of_source && let_in_of_source >= r->burst_of_source)
		reasons |= ORACLE_REASON(REASON_SOURCE_RATE);
	return reasons;
}
