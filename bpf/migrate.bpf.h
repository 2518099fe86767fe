/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flows move to a table of another size, while packets go on. In programs with `table_migrating`
 * only: others know one table, and pay nothing.
 *
 * What the daemon does (daemon/resize.c), and what tells the next one how far it came if it is
 * killed: the pins of the new table, and the phase in the configuration's word `table`.
 *
 *   phase    new pins   hooks run              goes on with
 *   STEADY   none       ordinary programs      -
 *   STEADY   some       ordinary or migrating  new pins removed: nothing is in them
 *   MOVING   both       migrating              what is left in the old table moves
 *   MERGING  both       migrating or ordinary  counters follow; ordinary programs over the new
 *                       over the new table     table; then its pins get the ordinary names
 *   MERGING  one, none  ordinary, new table    the names, then STEADY with the next table's number
 *
 * While it is MOVING a lookup asks the old table first and then the new one, new flows are made in
 * the new one, and a flow moves like this, both records owned:
 *
 *   copied; entered into the new index; taken out of the old one; what is counted moves over; the
 *   old record keeps its number, `seq`, and says in `created` where the flow is now: FLOW_MOVED.
 *
 * `seq` is the same in both, so that a packet which found the old record a moment before still
 * takes it for its flow, and translates by it: its tuples stay. What such packets counted there,
 * and how they changed the state, follows in MERGING, when none is under way any more. So nothing
 * is lost, and sums never count anything twice if the new table is read first.
 *
 * Two packets on two processors that both begin a flow, in the very moment in which one sees STEADY
 * and one MOVING, do not see each other's; the two flows then live side by side.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "flow.bpf.h"
#include "maps.bpf.h"
#include "stats.bpf.h"
#include "table.bpf.h"

#define MIGRATE_WINDOWS 8 /* looked at for a free record; of the spare quarter each has a few */

/* A free record of the new table, owned, or 0. No living flow makes room. */
__noinline __u32 migrate_take_record(void)
{
	__u32 now = clock_ticks();

	for (int i = 0; i < MIGRATE_WINDOWS; i++) {
		__u32 record = flow_search_window(RECORD_NEW, now, 0);

		if (record && flow_take(record, now, ROOM_EXPIRED))
			return record;
	}
	return 0;
}

/*
 * Enters an owned record into the index. Unlike table_index_add() asks nobody: what was told apart
 * in the old table is in the new one. Returns 0 or TABLE_FULL.
 */
__noinline __u32 migrate_enter(__u32 record, __u32 entry)
{
	struct datapath_config *c = config_get();
	struct flow *f = table_record(record);
	struct index_bucket *bucket;
	struct lock_line *line;
	struct tuple key;
	__u32 hash;

	if (!c || !f)
		return TABLE_FULL;
	table_key(f, entry, &key);
	hash = table_hash(c, &key);
	bucket = table_bucket(hash, record);
	line = table_lock(hash);
	if (!bucket || !line)
		return TABLE_FULL;
	for (int i = 0; i < TABLE_TRIES; i++) {
		__u32 version = *(volatile __u32 *)&bucket->version;
		int done = table_bucket_add(bucket, line, version, hash, record);

		if (done != TABLE_AGAIN)
			return done == TABLE_ADDED ? 0 : TABLE_FULL;
	}
	return TABLE_FULL;
}

static __always_inline bool migrate_enter_all(__u32 record, const struct flow *f)
{
	if (migrate_enter(record, ENTRY_REPLY) || migrate_enter(record, ENTRY_ORIGINAL))
		return false;
	return !(f->flags & FLOW_SNAT) || (!migrate_enter(record, ENTRY_REPLY_OUT) &&
					   !migrate_enter(record, ENTRY_ORIGINAL_OUT));
}

/* Owns a record whose flow stays the same, for packets as well: `seq` does not move on. */
static __always_inline bool migrate_own(struct flow *f, __u32 record, __u16 seq)
{
	struct lock_line *line = table_lock(record / FLOW_WINDOW);
	bool mine = false;

	if (!line)
		return false;
	bpf_spin_lock(&line->lock);
	if (f->seq == seq) {
		f->seq = seq | FLOW_OWNED;
		mine = true;
	}
	bpf_spin_unlock(&line->lock);
	return mine;
}

static __always_inline void migrate_copy(const struct flow *from, struct flow *to)
{
	__builtin_memcpy(&to->original, &from->original, sizeof(to->original));
	__builtin_memcpy(&to->reply, &from->reply, sizeof(to->reply));
	to->original.packets = to->original.bytes = 0;
	to->reply.packets = to->reply.bytes = 0;
	to->flags = from->flags;
	to->rule = from->rule;
	to->generation = from->generation;
	to->origin = from->origin;
	to->created = from->created;
	to->state = from->state;
	to->seq = table_seq(from) | FLOW_OWNED;
}

/* Out of one counter first, then into the other: read in between, it is short for a moment. */
static __always_inline void migrate_count(__u64 *from, __u64 *to)
{
	__u64 n = *(volatile __u64 *)from;

	atomic_add(from, -n);
	atomic_add(to, n);
}

static __always_inline void migrate_counters(struct flow *from, struct flow *to)
{
	migrate_count(&from->original.packets, &to->original.packets);
	migrate_count(&from->original.bytes, &to->original.bytes);
	migrate_count(&from->reply.packets, &to->reply.packets);
	migrate_count(&from->reply.bytes, &to->reply.bytes);
}

/* Moves the flow of an old record. Returns 1; 0: there is none, or no room for it now. */
__noinline int migrate_move(__u32 from)
{
	struct datapath_config *c = config_get();
	struct flow *old, *new;
	__u32 to, seq;

	from &= INDEX_RECORD;
	old = table_record(from);
	if (!from || !c || !old || old->state == FLOW_FREE || table_is_owned(old))
		return 0;
	seq = table_seq(old);
	if (table_expired(c, old, clock_ticks()))
		return flow_destroy(from, old, seq, DESTROY_EXPIRED);
	to = migrate_take_record();
	new = to ? table_record(to | RECORD_NEW) : NULL;
	if (!new)
		return 0;
	if (!migrate_own(old, from, seq)) {
		table_release(new);
		return 0;
	}
	migrate_copy(old, new);
	if (!migrate_enter_all(to, new)) {
		flow_leave_index(to, new);
		table_release(new);
		table_disown(old);
		return 0;
	}
	flow_leave_index(from, old);
	migrate_counters(old, new);
	old->created = to;
	barrier();
	*(volatile __u16 *)&old->seq = seq | FLOW_OWNED | FLOW_MOVED;
	table_disown(new);
	return 1;
}

/* In this order states follow each other. */
static __always_inline __u32 migrate_rank(__u32 state)
{
	return state == FLOW_SYN_SENT2 ? 2 * FLOW_SYN_SENT + 1 : 2 * state;
}

/* What packets that were under way did to the old record. */
static __always_inline void migrate_carry(struct flow *old, struct flow *new)
{
	__u8 flags = old->flags & (FLOW_REPLIED | FLOW_ASSURED | FLOW_FIN_ORIG | FLOW_FIN_REPLY);
	struct lock_line *line = table_lock(old->created / FLOW_WINDOW);
	__u8 state = old->state;

	migrate_counters(old, new);
	if (line) {
		bpf_spin_lock(&line->lock);
		new->flags |= flags;
		if (migrate_rank(state) > migrate_rank(new->state))
			new->state = state;
		bpf_spin_unlock(&line->lock);
	}
	if ((__s32)(old->original.seen - new->original.seen) > 0)
		new->original.seen = old->original.seen;
	if ((__s32)(old->reply.seen - new->reply.seen) > 0)
		new->reply.seen = old->reply.seen;
}

/* The last of a moved flow's old record, which is free then. Returns 1; 0: it is not one. */
__noinline int migrate_merge(__u32 from)
{
	struct flow *old, *new;

	from &= INDEX_RECORD;
	old = table_record(from);
	if (!from || !old || old->state == FLOW_FREE || !table_is_moved(old))
		return 0;
	new = table_record(old->created | RECORD_NEW);
	if (!new)
		return 0;
	if (migrate_own(new, old->created, table_seq(old))) {
		migrate_carry(old, new);
		table_disown(new);
	} else {
		flow_account_counters(old, 0); /* it has ended since */
	}
	old->state = FLOW_FREE;
	old->seq = table_seq(old);
	return 1;
}
