/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Later fragments have no ports: they follow the first one of their datagram, which RFC 791 knows
 * by addresses, identification and protocol, RFC 8200 (4.5) by addresses and identification. While
 * no rule translates addresses they need nothing and pass.
 */
#include <string.h>

#include "tests/bpf/oracle-parts.h"

static bool same_datagram(const struct oracle_fragment *a, const struct oracle_fragment *b)
{
	return a->hook == b->hook && a->ipv6 == b->ipv6 && a->protocol == b->protocol &&
	       a->id == b->id && memcmp(a->source, b->source, ORACLE_ADDRESS) == 0 &&
	       memcmp(a->destination, b->destination, ORACLE_ADDRESS) == 0;
}

static struct oracle_fragment key_of(enum oracle_hook hook, const struct oracle_packet *p)
{
	struct oracle_fragment k = {.hook = hook,
				    .ipv6 = p->ipv6,
				    .protocol = p->ipv6 ? 0 : p->protocol,
				    .id = p->fragment};

	memcpy(k.source, p->source, ORACLE_ADDRESS);
	memcpy(k.destination, p->destination, ORACLE_ADDRESS);
	return k;
}

static struct oracle_fragment *find(const struct oracle *o, const struct oracle_fragment *key)
{
	for (size_t i = 0; i < o->n_fragments; i++)
		if (same_datagram(&o->fragments[i], key))
			return &o->fragments[i];
	return NULL;
}

void oracle_note_first(struct oracle *o, const struct oracle_input *input, const uint8_t *data,
		       const struct oracle_packet *p, const struct oracle_answer *answer)
{
	struct oracle_fragment key = key_of(input->hook, p), *f;
	size_t n = p->ipv6 ? 16 : 4;
	size_t l3 = answer->verdict == ORACLE_REDIRECT ? 14 : p->l3; /* as it is now */
	const uint8_t *address = data + l3 + (p->ipv6 ? 8 : 12);

	if (!o->holding || answer->reasons == ORACLE_REASON(REASON_RESET))
		return;
	memcpy(key.new_source, address, n);
	memcpy(key.new_destination, address + n, n);
	key.flow = answer->translated ? 1 + (size_t)(answer->flow - o->flows) : 0;
	key.role = answer->role;
	key.damaged = p->class != ORACLE_TRANSLATABLE && p->class != ORACLE_NOT_TCP_UDP;
	f = find(o, &key);
	if (f && key.damaged)
		f->damaged = true;
	else if (f)
		*f = key;
	if (f)
		return;
	o->fragments = oracle_grow(o->fragments, o->n_fragments, &o->allocated_fragments,
				   sizeof(*o->fragments));
	o->fragments[o->n_fragments++] = key;
}

static void follow(struct oracle_flow *flow, const struct oracle_fragment *f,
		   const struct oracle_input *input, uint8_t *data, const struct oracle_packet *p,
		   struct oracle_answer *ret)
{
	oracle_count(flow, input, p, f->role);
	ret->reasons = 0;
	ret->translated = true;
	oracle_rewrite_addresses(data, p, f->new_source, f->new_destination);
	if (flow->local)
		oracle_redirect(input, data, ret);
}

void oracle_judge_later(struct oracle *o, const struct oracle_input *input, uint8_t *data,
			const struct oracle_packet *p, struct oracle_answer *ret)
{
	struct oracle_fragment key = key_of(input->hook, p);
	const struct oracle_fragment *f = find(o, &key);

	ret->reasons = ORACLE_REASON(REASON_FRAGMENT);
	if (p->cut)
		ret->reasons |= ORACLE_REASON(REASON_TRUNCATED);
	if (!o->holding || p->cut)
		return;
	if (f && f->damaged) { /* good for nothing, however it is treated */
		ret->verdict = ORACLE_EITHER;
		ret->reasons |= ORACLE_REASON(REASON_HELD);
		return;
	}
	if (!f) {
		/* what leaves has come in and was held there */
		if (input->hook == ORACLE_OUT)
			return;
		if (o->n_held++ >= HELD_COUNT / 2) { /* there may be no place left */
			ret->verdict = ORACLE_EITHER;
			ret->reasons |= ORACLE_REASON(REASON_HELD);
			return;
		}
		ret->verdict = ORACLE_DROP;
		ret->reasons = ORACLE_REASON(REASON_HELD);
		return;
	}
	if (f->flow && !o->flows[f->flow - 1].dead)
		follow(&o->flows[f->flow - 1], f, input, data, p, ret);
}
