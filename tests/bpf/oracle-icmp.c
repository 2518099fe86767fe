/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP errors (RFC 5508, 4): the packet that they quote becomes the one that their receiver has
 * sent. As they come in, their receiver may change, too.
 */
#include <string.h>

#include "tests/bpf/oracle-parts.h"
#include "tests/bpf/packet.h"

/* What the quote must become for the one who sent it, and who that is. */
struct correction {
	struct oracle_tuple quote;
	bool local, to_client;
	/* of `local`: the end that may have sent the error, and what its address becomes */
	const uint8_t *end, *translated;
};

/*
 * `inverse` is the quote turned around: what a packet of the other direction would look like. At
 * ingress the quoted packet has left this host, at egress it has come in.
 */
static bool correct(const struct oracle *o, enum oracle_hook hook,
		    const struct oracle_tuple *inverse, struct correction *ret)
{
	enum oracle_role role;
	const struct oracle_flow *f = oracle_find(o, hook, inverse, &role);

	if (!f)
		return false;
	switch (role) {
	case ROLE_REPLY:	/* about what the client sent, as the server saw it */
	case ROLE_MIDDLE_REPLY: /* ... as this host forwarded it */
		ret->quote = f->original;
		break;
	case ROLE_ORIGINAL: /* about an answer, as the client saw it */
	case ROLE_MIDDLE:   /* ... as this host forwarded it */
		ret->quote = f->reply;
		break;
	case ROLE_NONE:
		return false;
	}
	ret->local = f->local;
	ret->to_client = role == ROLE_REPLY;
	ret->end = ret->to_client ? f->reply.source : f->original.source;
	ret->translated = ret->to_client ? f->original.destination : f->reply.destination;
	return true;
}

/* The bytes from the message on, to see what has changed of what its checksum covers. */
static uint16_t mended(const uint8_t *before, const uint8_t *data, const struct oracle_packet *p)
{
	/* where 16-bit fields begin for the sum: at even distances from the message */
	size_t n = (p->icmp_end - p->icmp) & ~(size_t)1, last = p->icmp + n;
	uint16_t check = read_be16(before + p->icmp + 2);
	uint8_t old[2] = {0}, new[2] = {0};

	check = oracle_checksum_update(check, before + p->icmp, data + p->icmp, 2);
	check = oracle_checksum_update(check, before + p->icmp + 4, data + p->icmp + 4, n - 4);
	if (last < p->icmp_end) {
		old[0] = before[last];
		new[0] = data[last];
		check = oracle_checksum_update(check, old, new, 2);
	}
	if (p->ipv6)
		check = oracle_checksum_update(check, before + p->l3 + 8, data + p->l3 + 8, 32);
	return check;
}

void oracle_judge_error(struct oracle *o, const struct oracle_input *input, uint8_t *data,
			const struct oracle_packet *p, struct oracle_answer *ret)
{
	struct oracle_packet quoted, after = *p;
	uint8_t before[PACKET_MAX];
	struct correction c;
	struct oracle_tuple inverse;
	bool holds;

	if (!oracle_parse_quote(data, p, &quoted))
		return;
	/* whoever quotes a packet tells the one who has sent it; else it is no answer to it */
	if (memcmp(p->destination, quoted.source, ORACLE_ADDRESS) != 0)
		return;
	inverse = oracle_tuple_of(&quoted);
	inverse = oracle_invert(&inverse);
	if (!correct(o, input->hook, &inverse, &c))
		return;
	memcpy(before, data, p->icmp_end);
	holds = read_be16(data + p->icmp + 2) == oracle_icmp_checksum(data, p);
	oracle_rewrite(data, &quoted, &c.quote);
	if (input->hook == ORACLE_IN) {
		memcpy(after.destination, c.quote.source, ORACLE_ADDRESS);
		/* an end of the flow complains: as the other end knows it */
		if (c.local && memcmp(p->source, c.end, ORACLE_ADDRESS) == 0)
			memcpy(after.source, c.translated, ORACLE_ADDRESS);
		oracle_rewrite_addresses(data, p, after.source, after.destination);
	}
	write_be16(data + p->icmp + 2,
		   holds ? oracle_icmp_checksum(data, &after) : mended(before, data, p));
	ret->translated = ret->error = true;
	ret->reasons = 0;
	if (c.local)
		oracle_redirect(input, data, ret);
}
