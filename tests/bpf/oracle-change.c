/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What becomes of flows when rules change: redirectd.conf(5), CHANGES OF RULES. Nothing happens to
 * a flow before its next packet, which finds the rules as they are by then.
 */
#include <string.h>

#include "tests/bpf/oracle-parts.h"
#include "tests/bpf/packet.h"

/* To be masqueraded is to have any address of this host. */
static bool same_source(const struct oracle *o, const struct oracle_flow *f,
			const struct oracle_flow *want)
{
	const uint8_t *source = f->reply.destination;

	if (memcmp(source, want->reply.destination, ORACLE_ADDRESS) == 0)
		return true;
	/* from lo to another host as it is: nobody can answer */
	if (f->local && memcmp(f->original.destination, f->reply.source, ORACLE_ADDRESS) == 0)
		return true;
	return want->snat == f->snat && want->local == f->local && want->masqueraded &&
	       oracle_is_local(o, f->reply.ipv6, source);
}

/* Would the rule send it to where it goes, from the source that it has? */
static bool has_target(const struct oracle *o, const struct oracle_input *input,
		       const struct oracle_flow *f)
{
	for (unsigned n = 0; n < oracle_target_count(f->rule); n++) {
		struct oracle_flow want = {.original = f->original};

		if (oracle_predict(o, input, f->rule, n, &want) == 0 &&
		    want.reply.sport == f->reply.sport &&
		    memcmp(want.reply.source, f->reply.source, ORACLE_ADDRESS) == 0 &&
		    same_source(o, f, &want))
			return true;
	}
	return false;
}

static bool is_as_rules_say(const struct oracle *o, const struct oracle_flow *f)
{
	struct oracle_input input = {.hook = ORACLE_IN, .interface = f->interface};

	if (f->own) /* no rule is for what this host sends */
		return true;
	if (oracle_find_rule(o, &input, &f->original) != f->rule)
		return false;
	return !f->rule || has_target(o, &input, f);
}

/* It was to be masqueraded, but no answer can find this host. */
static bool has_lost_source(const struct oracle *o, const struct oracle_flow *f)
{
	struct oracle_input input = {.hook = ORACLE_IN, .interface = f->interface};

	return (f->snat || f->local) && f->rule && !f->rule->snat &&
	       oracle_find_rule(o, &input, &f->original) == f->rule &&
	       !oracle_is_local(o, f->reply.ipv6, f->reply.destination);
}

static bool is_udp(const struct oracle_flow *f)
{
	return f->original.protocol == PROTOCOL_UDP;
}

enum oracle_fate oracle_hold(const struct oracle *o, struct oracle_flow *f, bool reply)
{
	bool changed = f->rule && f->rule->changed > f->held;

	if (f->held == o->changes)
		return FATE_GOES_ON;
	/* an answer only learns of a reset; the rest its client's next packet does */
	if (reply && (is_udp(f) || !changed || f->rule->on_change == ORACLE_KEEP))
		return FATE_GOES_ON;
	if (changed && f->rule->on_change == ORACLE_DRAIN && !f->rule->drained)
		return FATE_GOES_ON; /* for now: it is asked again */
	if (has_lost_source(o, f))
		return FATE_FOLLOWS;
	if (!is_as_rules_say(o, f)) {
		if (is_udp(f))
			return FATE_FOLLOWS;
		if (changed && f->rule->on_change != ORACLE_KEEP)
			return FATE_RESET; /* and so does all that its ends still send */
	}
	f->held = o->changes;
	return FATE_GOES_ON;
}

size_t oracle_make_reset(uint8_t *data, struct oracle_packet *p)
{
	uint8_t *tcp = data + p->l4;
	size_t header = 20, length = p->l4 + header;

	tcp[12] = (uint8_t)(header / 4 << 4);
	tcp[13] = (uint8_t)(TCP_FLAG_RST | (tcp[13] & TCP_FLAG_ACK));
	write_be16(tcp + 14, 0); /* window */
	write_be16(tcp + 18, 0); /* urgent pointer */
	p->ip_length = length - p->l3;
	p->covered = p->l4_header = header;
	if (p->ipv6)
		write_be16(data + p->l3 + 4, (uint16_t)(p->ip_length - 40));
	else
		oracle_rewrite_length(data, p, (uint16_t)p->ip_length);
	write_be16(data + p->checksum, oracle_l4_checksum(data, p));
	return length;
}
