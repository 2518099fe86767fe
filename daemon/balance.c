// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Maglev (Eisenbud et al., NSDI 2016, 3.4): each target has an order of its own in which it likes
 * the slots, and the targets take turns to choose, each the best that is left. Weights decide
 * whose turn it is. For the other ways to balance, where any order will do, all targets have the
 * same one.
 */
#include "daemon/balance.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_FREE 0xff /* no target's number */

/* What a target is, in bytes: the same on every machine. */
struct identity {
	uint8_t addr[16]; /* zeroes: the packet's own destination */
	uint8_t ports[4]; /* first and last, big endian */
};

struct share {
	uint8_t number; /* of the target in its rule */
	struct identity identity;
	uint32_t weight, taken;
	uint32_t rank;	     /* among those that have as much for their weight */
	uint32_t next, step; /* its order of the slots: from `next` on by `step` */
};

_Static_assert(RULE_TARGETS_MAX <= BALANCE_TARGETS, "targets without a place");
_Static_assert(RULE_TARGETS_MAX < SLOT_FREE, "targets without a number");

static struct identity identity_of(const struct rule_target *t)
{
	struct identity id = {
		.ports = {t->ports.first >> 8, t->ports.first & 0xff, t->ports.last >> 8,
			  t->ports.last & 0xff},
	};

	if (t->address.family)
		ip_prefix_to_mapped(&t->address, id.addr);
	return id;
}

/* FNV-1a, 64 bits, its bits then mixed by the finalizer of MurmurHash3. */
static uint64_t identity_hash(const struct identity *id, uint64_t seed)
{
	const uint8_t *bytes = (const uint8_t *)id;
	uint64_t hash = 0xcbf29ce484222325 ^ seed;

	for (size_t i = 0; i < sizeof(*id); i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
	return hash ^ hash >> 33;
}

/* Other constants would be other orders, and machines of two versions would disagree. */
#define SEED_FIRST 0
#define SEED_STEP  0x9e3779b97f4a7c15

static void share_start(const struct rule *r, size_t number, struct share *ret)
{
	const struct rule_target *t = &r->targets[number];

	*ret = (struct share){
		.number = number, .identity = identity_of(t), .weight = t->weight, .step = 1};
	if (r->balance != RULE_BALANCE_MAGLEV)
		return;
	ret->next = identity_hash(&ret->identity, SEED_FIRST) % BALANCE_SLOTS;
	ret->step = 1 + identity_hash(&ret->identity, SEED_STEP) % (BALANCE_SLOTS - 1);
}

static int compare_identity(const void *left, const void *right)
{
	const struct share *a = left, *b = right;

	return memcmp(&a->identity, &b->identity, sizeof(a->identity));
}

/*
 * Whose turn it is: who has least for its weight, of equals the one that is first in the array. As
 * one number, with the place in the array as its lowest bits. Two different quotients of numbers
 * below 2^13 by numbers below 2^16 are more than 2^-40 apart, so none is lost in rounding.
 */
#define TURN_PLACE_BITS 6

_Static_assert(RULE_TARGETS_MAX <= 1 << TURN_PLACE_BITS, "a place needs more bits");
_Static_assert(RULE_WEIGHT_MAX < 1 << 16 && BALANCE_SLOTS < 1 << 13, "quotients may be too near");

static uint64_t share_turn(const struct share *s, size_t place)
{
	return ((uint64_t)s->taken << 40) / s->weight << TURN_PLACE_BITS | place;
}

/* A heap of turns, the next one at its top: puts another turn in place of the top. */
static void turns_replace_top(uint64_t *heap, size_t n, uint64_t turn)
{
	size_t at = 0, below;

	for (; (below = 2 * at + 1) < n; at = below) {
		if (below + 1 < n && heap[below + 1] < heap[below])
			below++;
		if (turn < heap[below])
			break;
		heap[at] = heap[below];
	}
	heap[at] = turn;
}

static void share_choose(struct share *s, uint8_t *slots)
{
	while (slots[s->next] != SLOT_FREE) {
		s->next += s->step;
		if (s->next >= BALANCE_SLOTS)
			s->next -= BALANCE_SLOTS;
	}
	slots[s->next] = s->number;
	s->taken++;
}

void balance_fill(const struct rule *r, uint8_t slots[static BALANCE_SLOTS])
{
	struct share shares[RULE_TARGETS_MAX];
	uint64_t turns[RULE_TARGETS_MAX];
	size_t n = 0;

	for (size_t i = 0; i < r->n_targets; i++)
		if (r->targets[i].weight > 0)
			share_start(r, i, &shares[n++]);
	/* The order of turns must not depend on the order in the rule either. */
	qsort(shares, n, sizeof(shares[0]), compare_identity);
	for (size_t i = 0; i < n; i++)
		turns[i] = share_turn(&shares[i], i);
	memset(slots, SLOT_FREE, BALANCE_SLOTS);
	for (size_t i = 0; i < BALANCE_SLOTS; i++) {
		size_t place = turns[0] & ((1 << TURN_PLACE_BITS) - 1);

		share_choose(&shares[place], slots);
		turns_replace_top(turns, n, share_turn(&shares[place], place));
	}
}
