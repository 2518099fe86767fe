/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which rule takes a packet and where it sends it; what the host's tables say. Everything is
 * searched one by one: what wins is decided by comparing, not by an order.
 */
#include <string.h>

#include "tests/bpf/oracle-parts.h"

bool oracle_prefix_holds(const struct oracle_prefix *p, bool ipv6, const uint8_t *address)
{
	if (p->ipv6 != ipv6)
		return false;
	for (unsigned i = 0; i < p->length; i++)
		if ((p->address[i / 8] ^ address[i / 8]) & (0x80U >> i % 8))
			return false;
	return true;
}

bool oracle_is_local(const struct oracle *o, bool ipv6, const uint8_t *address)
{
	if (!o->host)
		return true;
	for (size_t i = 0; i < o->host->n_locals; i++)
		if (oracle_prefix_holds(&o->host->locals[i], ipv6, address))
			return true;
	return false;
}

/* ---- which rule ---- */

/* A rule that names addresses is for their family only: -1 both, else 0 or 1 for IPv6. */
static int family(const struct oracle_rule *r)
{
	if (r->listen == ORACLE_LISTEN_PREFIX)
		return r->prefix.ipv6;
	for (size_t i = 0; i < r->n_targets; i++)
		if (r->targets[i].other_host)
			return r->targets[i].ipv6;
	if (r->snat)
		return r->snat_ipv6;
	return -1;
}

static bool port_matches(const struct oracle_rule *r, const struct oracle_tuple *t)
{
	return !r->off && (t->protocol == PROTOCOL_TCP ? r->tcp : r->udp) && t->dport >= r->first &&
	       t->dport <= r->last;
}

static bool interface_matches(const struct oracle_rule *r, uint32_t interface)
{
	for (size_t i = 0; i < r->n_interfaces; i++)
		if (r->interfaces[i] == interface)
			return true;
	return r->n_interfaces == 0;
}

static bool listen_matches(const struct oracle *o, const struct oracle_rule *r,
			   const struct oracle_tuple *t)
{
	if (r->listen == ORACLE_LISTEN_LOCAL)
		return oracle_is_local(o, t->ipv6, t->destination);
	if (r->listen == ORACLE_LISTEN_PREFIX)
		return oracle_prefix_holds(&r->prefix, t->ipv6, t->destination);
	return true;
}

/* Rank of the longest prefix of `from` that holds the client: 0 without `from`, -1: none does. */
static int source_rank(const struct oracle_rule *r, const struct oracle_tuple *t)
{
	int best = r->n_from ? -1 : 0;

	for (size_t i = 0; i < r->n_from; i++)
		if (oracle_prefix_holds(&r->from[i], t->ipv6, t->source) &&
		    (int)r->from[i].length + 1 > best)
			best = (int)r->from[i].length + 1;
	return best;
}

static int listen_rank(const struct oracle_rule *r)
{
	if (r->listen == ORACLE_LISTEN_PREFIX)
		return 2 + (int)r->prefix.length;
	return r->listen == ORACLE_LISTEN_LOCAL;
}

/* Is `a` more specific for this packet than `b`? In the order of the contract. */
static bool more_specific(const struct oracle_rule *a, const struct oracle_rule *b,
			  const struct oracle_tuple *t)
{
	int d = (a->n_interfaces > 0) - (b->n_interfaces > 0);

	if (!d)
		d = listen_rank(a) - listen_rank(b);
	if (!d)
		d = source_rank(a, t) - source_rank(b, t);
	if (!d)
		d = (b->last - b->first) - (a->last - a->first);
	return d > 0;
}

struct oracle_rule *oracle_find_rule(const struct oracle *o, const struct oracle_input *input,
				     const struct oracle_tuple *t)
{
	struct oracle_rule *best = NULL;

	for (size_t i = 0; i < o->n_rules; i++) {
		struct oracle_rule *r = &o->rules[i];

		if (!port_matches(r, t) || !interface_matches(r, input->interface) ||
		    !listen_matches(o, r, t) || source_rank(r, t) < 0)
			continue;
		if (family(r) >= 0 && family(r) != t->ipv6)
			continue;
		if (!best || more_specific(r, best, t))
			best = r;
	}
	return best;
}

bool oracle_listens(const struct oracle *o, const struct oracle_tuple *t)
{
	for (size_t i = 0; i < o->n_rules; i++)
		if (port_matches(&o->rules[i], t))
			return true;
	return false;
}

/* ---- where to ---- */

unsigned oracle_target_count(const struct oracle_rule *r)
{
	return r->n_targets ? (unsigned)r->n_targets : 1;
}

static bool sends_to_port(const struct oracle_rule *r, const struct oracle_tuple *t)
{
	const struct oracle_target plain = {.first = r->target};

	if (!(t->protocol == PROTOCOL_TCP ? r->tcp : r->udp))
		return false;
	for (unsigned i = 0; i < oracle_target_count(r); i++) {
		const struct oracle_target *target = r->n_targets ? &r->targets[i] : &plain;
		unsigned more = target->folded ? 0 : (unsigned)(r->last - r->first);

		if (t->dport >= target->first && t->dport - target->first <= (int)more)
			return true;
	}
	return false;
}

static bool sends_to_host(const struct oracle_rule *r, const struct oracle_tuple *t)
{
	for (size_t i = 0; i < r->n_targets; i++)
		if (r->targets[i].other_host && r->targets[i].ipv6 == t->ipv6 &&
		    memcmp(r->targets[i].address, t->destination, ORACLE_ADDRESS) == 0)
			return true;
	return false;
}

bool oracle_is_target(const struct oracle *o, const struct oracle_tuple *t)
{
	bool port = false, host = false;

	for (size_t i = 0; i < o->n_rules; i++) {
		if (o->rules[i].off)
			continue;
		port |= sends_to_port(&o->rules[i], t);
		host |= sends_to_host(&o->rules[i], t);
	}
	return port && host;
}

void oracle_aim(const struct oracle_rule *r, unsigned n, const struct oracle_tuple *t,
		uint8_t *ret_address, uint16_t *ret_port)
{
	const struct oracle_target plain = {.first = r->target};
	const struct oracle_target *target = r->n_targets ? &r->targets[n] : &plain;

	memcpy(ret_address, target->other_host ? target->address : t->destination, ORACLE_ADDRESS);
	*ret_port = target->first;
	if (!target->folded)
		*ret_port = (uint16_t)(target->first + t->dport - r->first);
}

/* ---- the host's tables ---- */

static const struct oracle_route *find_route(const struct oracle_host *h, bool ipv6,
					     const uint8_t *destination)
{
	const struct oracle_route *best = NULL;

	for (size_t i = 0; i < h->n_routes; i++)
		if (oracle_prefix_holds(&h->routes[i].to, ipv6, destination) &&
		    (!best || h->routes[i].to.length > best->to.length))
			best = &h->routes[i];
	return best;
}

static const struct oracle_source *find_source(const struct oracle_host *h, uint32_t interface,
					       bool ipv6, const uint8_t *towards)
{
	const struct oracle_source *best = NULL;

	for (size_t i = 0; i < h->n_sources; i++)
		if (h->sources[i].interface == interface &&
		    oracle_prefix_holds(&h->sources[i].towards, ipv6, towards) &&
		    (!best || h->sources[i].towards.length > best->towards.length))
			best = &h->sources[i];
	return best;
}

bool oracle_source_to(const struct oracle *o, bool ipv6, const uint8_t *destination,
		      uint8_t *ret_address)
{
	const struct oracle_source *source = NULL;
	const struct oracle_route *route;
	const uint8_t *towards = destination;

	if (!o->host)
		return false;
	route = find_route(o->host, ipv6, destination);
	if (!ipv6 && route && route->gateway) /* RFC 6724 goes by the destination */
		towards = route->via;
	if (route && !route->unroutable)
		source = find_source(o->host, route->interface, ipv6, towards);
	if (!source)
		source = find_source(o->host, 0, ipv6, towards);
	if (source)
		memcpy(ret_address, source->address, ORACLE_ADDRESS);
	return source;
}
