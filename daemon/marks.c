// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Marks of ports, and of the whole, tell packets that nothing can concern them: they are set before
 * a rule comes into force, and cleared once neither a rule nor a flow needs them.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/apply-private.h"
#include "daemon/datapath.h"

#define LOOK_NS 10000000000ULL /* between two looks at marks that only flows may need */

/* Of ports that flows are sent to: answers are translated as they leave. */
#define MARKS_TARGET PORT_REPLY_OUT
/* And where addresses change, or a client may be its own server: everything at both hooks. */
#define MARKS_TRANSLATED (PORT_REPLY_OUT | PORT_REPLY_IN | PORT_SNAT_OUT)

static void mark(uint8_t *marks, bool udp, const struct port_range *ports, uint32_t bits)
{
	for (uint32_t p = ports->first; p <= ports->last; p++)
		marks[PORT_INDEX(udp, p)] |= bits >> 24;
}

static void mark_port(uint8_t *marks, bool udp, __be16 port, uint32_t bits)
{
	marks[PORT_INDEX(udp, ntohs(port))] |= bits >> 24;
}

static bool rule_sets_source(const struct rule *r)
{
	return r->masquerade || r->snat.family;
}

static bool rule_translates(const struct rule *r)
{
	for (size_t t = 0; t < r->n_targets; t++)
		if (r->targets[t].address.family)
			return true;
	return rule_sets_source(r);
}

static uint32_t target_marks(const struct rule *r, const struct rule_target *t)
{
	return rule_sets_source(r) || t->address.family ? MARKS_TRANSLATED : MARKS_TARGET;
}

static void mark_rule(struct apply *a, const struct rule *r)
{
	a->fragments |= rule_translates(r);
	for (int udp = 0; udp < 2; udp++) {
		if (!(r->protocols & (udp ? RULE_UDP : RULE_TCP)))
			continue;
		mark(a->marked, udp, &r->ports, PORT_LISTEN);
		for (size_t t = 0; t < r->n_targets; t++)
			mark(a->marked, udp, &r->targets[t].ports, target_marks(r, &r->targets[t]));
	}
}

/* All that the rules in force ask for. */
static void mark_rules(struct apply *a)
{
	memset(a->marked, 0, PORT_COUNT);
	a->fragments = false;
	for (uint32_t id = 1; id < RULE_COUNT; id++)
		if (a->compiled[id] && apply_rule_active(a->compiled[id]))
			mark_rule(a, a->compiled[id]->rule);
}

static bool flow_translates(const struct flow *f)
{
	return f->flags & (FLOW_SNAT | FLOW_LOCAL) ||
	       memcmp(f->reply.saddr, f->original.daddr, sizeof(f->reply.saddr)) != 0;
}

/* What a flow needs, whatever has become of its rule. Returns whether it translates an address. */
static bool mark_flow(uint8_t *marks, const struct flow *f)
{
	bool udp = f->flags & FLOW_UDP, translates = flow_translates(f);

	mark_port(marks, udp, f->original.dport, PORT_LISTEN);
	mark_port(marks, udp, f->reply.sport, translates ? MARKS_TRANSLATED : MARKS_TARGET);
	return translates;
}

static uint32_t marks_of(const uint8_t *marks, uint32_t port)
{
	return (uint32_t)marks[port] << 24;
}

static void set(struct port_entry *entries, bool udp, const struct port_range *ports, uint32_t bits)
{
	for (uint32_t p = ports->first; p <= ports->last; p++)
		for (int bank = 0; bank < 2; bank++)
			entries[PORT_INDEX(udp, p)].bank[bank] |= bits;
}

static struct destination_key destination_of(const struct rule_target *t)
{
	struct destination_key key;

	ip_prefix_to_mapped(&t->address, (uint8_t *)key.addr);
	return key;
}

/*
 * Without room in the map only a direct connection, which is there before a flow of the rule with
 * the same source port, may lose its answers to that.
 */
static void set_destinations(struct apply *a, const struct rule *r)
{
	for (size_t t = 0; t < r->n_targets; t++) {
		struct destination_key key = destination_of(&r->targets[t]);

		if (r->targets[t].address.family)
			datapath_destination_set(a->datapath, &key, true);
	}
}

void marks_set(struct apply *a, const struct rule *r)
{
	struct datapath_config *config = datapath_config(a->datapath);
	struct port_entry *entries = datapath_ports(a->datapath);

	for (int udp = 0; udp < 2; udp++) {
		if (!(r->protocols & (udp ? RULE_UDP : RULE_TCP)))
			continue;
		set(entries, udp, &r->ports, PORT_LISTEN);
		for (size_t t = 0; t < r->n_targets; t++)
			set(entries, udp, &r->targets[t].ports, target_marks(r, &r->targets[t]));
	}
	config->fragments |= rule_translates(r);
	set_destinations(a, r);
}

static int compare_destinations(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct destination_key));
}

/* Those of all rules in force, sorted; the caller frees them. NULL: out of memory. */
static struct destination_key *list_destinations(const struct apply *a, size_t *ret_n)
{
	struct destination_key *keys;
	size_t n = 0;

	for (uint32_t id = 1; id < RULE_COUNT; id++)
		n += a->compiled[id] ? a->compiled[id]->rule->n_targets : 0;
	keys = calloc(n + 1, sizeof(*keys));
	if (!keys)
		return NULL;
	n = 0;
	for (uint32_t id = 1; id < RULE_COUNT; id++) {
		const struct rule *r = a->compiled[id] ? a->compiled[id]->rule : NULL;

		for (size_t t = 0; r && t < r->n_targets; t++)
			if (r->targets[t].address.family)
				keys[n++] = destination_of(&r->targets[t]);
	}
	qsort(keys, n, sizeof(*keys), compare_destinations);
	*ret_n = n;
	return keys;
}

/* Removes the destinations that no rule has any more; each once the walk has left it. */
static void clear_destinations(struct apply *a)
{
	struct destination_key key, next = {{0}}, *last = NULL;
	size_t n;
	_cleanup_(freep) struct destination_key *keys = list_destinations(a, &n);
	bool more = keys != NULL;

	while (more) {
		more = datapath_destination_next(a->datapath, last, &next) == 0;
		if (last && !bsearch(last, keys, n, sizeof(*last), compare_destinations))
			datapath_destination_set(a->datapath, last, false);
		key = next;
		last = &key;
	}
}

/* Is there a mark for which no rule asks? */
static bool marks_left_over(const struct apply *a)
{
	const struct port_entry *ports = datapath_ports(a->datapath);

	if (datapath_config(a->datapath)->fragments > a->fragments)
		return true;
	for (uint32_t p = 0; p < PORT_COUNT; p++)
		if ((ports[p].bank[0] | ports[p].bank[1]) & PORT_MARKS & ~marks_of(a->marked, p))
			return true;
	return false;
}

static void write_marks(struct apply *a, const uint8_t *marks)
{
	struct port_entry *ports = datapath_ports(a->datapath);

	for (uint32_t p = 0; p < PORT_COUNT; p++) {
		for (int bank = 0; bank < 2; bank++) {
			uint32_t entry = ports[p].bank[bank];

			entry = (entry & ~PORT_MARKS) | marks_of(marks, p);
			if (entry != ports[p].bank[bank])
				ports[p].bank[bank] = entry;
		}
	}
}

void marks_clear(struct apply *a)
{
	struct datapath_config *config = datapath_config(a->datapath);
	bool translating = false;
	uint32_t n;
	const struct flow *flows = datapath_flows(a->datapath, &n);

	if (!a->marks_stale || apply_now_ns() - a->marks_since_ns < LOOK_NS)
		return;
	a->marks_since_ns = apply_now_ns();
	mark_rules(a);
	clear_destinations(a);
	a->marks_stale = marks_left_over(a);
	if (!a->marks_stale)
		return;
	memcpy(a->needed, a->marked, PORT_COUNT);
	for (uint32_t i = 1; i < n; i++)
		if (flows[i].state != FLOW_FREE)
			translating |= mark_flow(a->needed, &flows[i]);
	write_marks(a, a->needed);
	/* Flows of former rules are looked after as those rules asked. */
	if (!translating)
		config->fragments = a->fragments;
}
