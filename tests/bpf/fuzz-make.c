/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets that have something to do with each other: requests of a few clients, what belongs to
 * flows that are known, errors about it, fragments of what has been. A quarter stays whole.
 */
#include <string.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

/* A packet to be built, and the memory of its addresses. */
struct draft {
	struct packet_spec spec;
	char source[ADDRESS_TEXT], destination[ADDRESS_TEXT];
	enum oracle_hook hook;
	uint32_t interface;
	bool ipv6;
};

/* The last first fragments, for later ones. */
#define RECENT 8
static struct draft recent[RECENT];
static size_t n_recent;

void fuzz_forget_packets(void)
{
	n_recent = 0;
}

/* ---- addresses and ports ---- */

static void put_addresses(struct draft *d, const char *source, const char *destination)
{
	snprintf(d->source, sizeof(d->source), "%s", source);
	snprintf(d->destination, sizeof(d->destination), "%s", destination);
	d->ipv6 = strchr(source, ':');
}

static void put_tuple(struct draft *d, const struct oracle_tuple *t)
{
	char source[ADDRESS_TEXT], destination[ADDRESS_TEXT];

	put_addresses(d, fuzz_format_address(t->source, t->ipv6, source),
		      fuzz_format_address(t->destination, t->ipv6, destination));
	d->spec.protocol = t->protocol;
	d->spec.sport = t->sport;
	d->spec.dport = t->dport;
}

/* Few of each class, so that clients have the same ones. */
static uint16_t client_port(void)
{
	static const uint16_t bases[] = {40000, 40000, 40000, 600, 400, 8080};

	return (uint16_t)(random_of(bases) + random_below(16));
}

/* Of a client behind this host or of this host itself, to whom rules may apply. */
static void draft_request(struct world *w, struct draft *d)
{
	static const enum party servers[] = {PARTY_HOST,    PARTY_HOST,	   PARTY_HOST,
					     PARTY_TRANSIT, PARTY_TRANSIT, PARTY_BACKEND};
	bool ipv6 = random_below(2), self = random_once_in(10);

	if (self)
		put_addresses(d, fuzz_address(PARTY_SELF, ipv6),
			      fuzz_address(random_once_in(3) ? PARTY_SELF : PARTY_HOST, ipv6));
	else
		put_addresses(d, fuzz_address(PARTY_CLIENT, ipv6),
			      fuzz_address(random_of(servers), ipv6));
	d->interface = self ? 1 : w->interface;
	d->spec.protocol = random_below(2) ? IPPROTO_TCP : IPPROTO_UDP;
	d->spec.sport = client_port();
	d->spec.dport = fuzz_port();
}

/* ---- of flows ---- */

#define RECENT_FLOWS 32

static const struct oracle_flow *random_flow(const struct oracle *o)
{
	for (unsigned tries = 0; o->n_flows && tries < 8; tries++) {
		uint32_t n = (uint32_t)o->n_flows, last = n < RECENT_FLOWS ? n : RECENT_FLOWS;
		/* as often as not a late one, so that some have many packets */
		const struct oracle_flow *f =
			&o->flows[random_below(2) ? random_below(n) : n - 1 - random_below(last)];

		if (!f->dead)
			return f;
	}
	return NULL;
}

/* One of the looks that packets of the flow have at the hooks. */
static struct oracle_tuple random_look(const struct world *w, const struct oracle_flow *f,
				       enum oracle_hook *ret_hook, uint32_t *ret_interface)
{
	struct oracle_tuple middle = oracle_middle(f);
	uint32_t n = random_below(8);

	*ret_interface = w->interface;
	*ret_hook = n & 1 ? ORACLE_OUT : ORACLE_IN;
	if (f->own)
		return n & 1 ? f->original : f->reply;
	if (n < 3 || (f->local && *ret_hook == ORACLE_OUT)) {
		*ret_hook = ORACLE_IN;
		*ret_interface = f->interface;
		return f->original;
	}
	if (!f->snat || !(n & 1))
		return f->reply;
	return n == 3 ? middle : oracle_invert(&middle);
}

static bool draft_of_flow(struct world *w, struct draft *d)
{
	const struct oracle_flow *f = random_flow(&w->oracle);
	struct oracle_tuple t;

	if (!f)
		return false;
	t = random_look(w, f, &d->hook, &d->interface);
	put_tuple(d, &t);
	return true;
}

/* The client talks to the target itself, from the port that it has used with a rule. */
static bool draft_direct(struct world *w, struct draft *d)
{
	const struct oracle_flow *f = random_flow(&w->oracle);
	struct oracle_tuple t;

	if (!f || f->local || f->own)
		return false;
	t = oracle_invert(&f->reply);
	memcpy(t.source, f->original.source, sizeof(t.source));
	if (random_below(2))
		t.sport = f->original.sport;
	put_tuple(d, &t);
	d->hook = ORACLE_IN;
	d->interface = f->interface;
	return true;
}

/* This host itself talks to a target, from the port that a flow has been given. */
static bool draft_own(struct world *w, struct draft *d)
{
	const struct oracle_flow *f = random_flow(&w->oracle);
	struct oracle_tuple t;

	if (!f || !f->snat)
		return false;
	t = oracle_invert(&f->reply);
	put_tuple(d, &t);
	d->hook = ORACLE_OUT;
	d->interface = w->interface;
	return true;
}

/* ---- shapes ---- */

static uint8_t random_flags(void)
{
	static const uint8_t flags[] = {
		TCP_FLAG_SYN,
		TCP_FLAG_SYN,
		TCP_FLAG_SYN | TCP_FLAG_ACK,
		TCP_FLAG_ACK,
		TCP_FLAG_PSH | TCP_FLAG_ACK,
		TCP_FLAG_FIN | TCP_FLAG_ACK,
		TCP_FLAG_RST,
	};

	return random_once_in(32) ? (uint8_t)random_below(256) : random_of(flags);
}

/* Some headers before the one that matters; a fragment header may be among them. */
static void put_extensions(struct packet_spec *s)
{
	static const uint8_t numbers[] = {IPPROTO_DSTOPTS, IPPROTO_DSTOPTS, IPPROTO_ROUTING};
	uint32_t n = random_once_in(16) ? random_below(PACKET_EXTENSIONS_MAX) : random_below(3);

	s->hop_by_hop = random_once_in(4);
	s->extension_length = (uint8_t)(random_once_in(4) ? random_below(4) : 0);
	for (uint32_t i = 0; i < n; i++)
		s->extensions[i] = random_of(numbers);
	if (n && s->fragmented && random_once_in(2)) {
		s->extensions[random_below(n)] = IPPROTO_FRAGMENT;
		s->fragmented = false; /* none behind them */
	}
}

static void put_shape(struct draft *d)
{
	struct packet_spec *s = &d->spec;

	s->vlans = random_below(4) ? 0 : random_below(PACKET_VLANS_MAX + 1);
	if (random_once_in(8)) {
		s->fragmented = true;
		s->more_fragments = random_below(4);
		s->fragment_id = 1 + random_below(UINT32_MAX);
	}
	if (d->ipv6 && random_once_in(3))
		put_extensions(s);
	else if (!d->ipv6 && random_once_in(4))
		s->ip_options = (uint8_t)(4 * random_below(11));
	s->tcp_flags = random_flags();
	s->tcp_options = (uint8_t)(random_below(2) ? 4 * random_below(11) : 0);
	s->udp_unchecked = random_once_in(8);
	s->payload_length = random_once_in(16) ? random_below(1200) : random_below(100);
	s->padding = random_once_in(8) ? random_below(20) : 0;
}

static void build(struct draft *d, struct fuzz_packet *ret)
{
	ret->input.hook = d->hook;
	ret->input.interface = d->interface;
	ret->input.ethernet = d->interface == 1 || random_below(4);
	d->spec.source = d->source;
	d->spec.destination = d->destination;
	d->spec.no_ethernet = !ret->input.ethernet;
	if (!ret->input.ethernet)
		d->spec.vlans = 0;
	packet_build(&d->spec, &ret->packet);
	if (d->spec.more_fragments && !d->spec.fragment_offset)
		recent[n_recent++ % RECENT] = *d;
}

/* ---- errors ---- */

/* About one of the looks that packets have after the hook, or about nothing that is known. */
static void draft_quoted(struct world *w, struct draft *quoted)
{
	const struct oracle_flow *f = random_once_in(8) ? NULL : random_flow(&w->oracle);
	struct oracle_tuple t;

	if (f) {
		t = random_look(w, f, &quoted->hook, &quoted->interface);
		t = oracle_invert(&t);
		put_tuple(quoted, &t);
	} else {
		draft_request(w, quoted);
	}
	put_shape(quoted);
}

static void build_error(struct world *w, struct fuzz_packet *ret)
{
	static const uint8_t types[2][4] = {{3, 11, 12, 5}, {1, 2, 3, 4}};
	struct draft quoted = {.hook = ORACLE_IN}, outer = {.hook = ORACLE_IN};

	draft_quoted(w, &quoted);
	quoted.spec.source = quoted.source;
	quoted.spec.destination = quoted.destination;
	outer.ipv6 = quoted.ipv6;
	put_shape(&outer);
	put_addresses(&outer,
		      random_below(2) ? fuzz_address(PARTY_ROUTER, quoted.ipv6)
				      : quoted.destination,
		      random_once_in(8) ? fuzz_address(PARTY_CLIENT, quoted.ipv6) : quoted.source);
	ret->input.hook = quoted.hook;
	ret->input.interface = quoted.interface;
	ret->input.ethernet = quoted.interface == 1 || random_below(4);
	outer.spec.source = outer.source;
	outer.spec.destination = outer.destination;
	outer.spec.no_ethernet = !ret->input.ethernet;
	if (!ret->input.ethernet)
		outer.spec.vlans = 0;
	outer.spec.sport = (uint16_t)(random_of(types[quoted.ipv6]) << 8 | random_below(5));
	packet_build_error(&outer.spec, &quoted.spec, random_below(2) ? 8 : random_below(200),
			   &ret->packet);
}

/* ---- fragments ---- */

/* Another fragment of a datagram whose first one has been; or whose was forgotten. */
static bool draft_later(struct draft *d)
{
	if (!n_recent)
		return false;
	*d = recent[random_below((uint32_t)(n_recent < RECENT ? n_recent : RECENT))];
	d->spec.fragment_offset = (uint16_t)(8 * (1 + random_below(200)));
	d->spec.more_fragments = random_below(2);
	d->spec.payload_length = random_below(100);
	if (random_once_in(8))
		d->spec.fragment_id++;
	return true;
}

/* ---- all of them ---- */

static void build_any(struct world *w, struct fuzz_packet *ret)
{
	struct draft d = {.hook = random_below(8) ? ORACLE_IN : ORACLE_OUT};
	uint32_t kind = random_below(16);

	if (kind < 3) {
		build_error(w, ret);
		return;
	}
	if (kind == 3 && draft_later(&d)) {
		build(&d, ret);
		return;
	}
	if (!(kind < 10 && draft_of_flow(w, &d)) && !(kind == 10 && draft_direct(w, &d)) &&
	    !(kind == 11 && draft_own(w, &d)))
		draft_request(w, &d);
	put_shape(&d);
	build(&d, ret);
}

/* Only what stacks make: whole packets of TCP or UDP, nothing behind them. */
static void put_segments(struct fuzz_packet *f)
{
	struct oracle_packet p;

	oracle_parse(f->packet.data, f->packet.length, f->input.ethernet, &p);
	if (p.class != ORACLE_TRANSLATABLE || !p.whole)
		return;
	f->input.segments = 2 + random_below(5);
	f->packet.length = p.l3 + p.ip_length;
}

void fuzz_make_packet(struct world *w, struct fuzz_packet *ret)
{
	*ret = (struct fuzz_packet){.damaged = random_once_in(3)};
	build_any(w, ret);
	if (ret->damaged)
		for (uint32_t n = 1 + random_below(4); n; n--)
			fuzz_mutate(&ret->packet);
	else if (random_once_in(32))
		put_segments(ret);
	if (!ret->input.ethernet)
		ret->input.type = read_be16(ret->packet.data + 12);
}
