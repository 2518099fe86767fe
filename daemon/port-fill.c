// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/port-fill.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/datapath.h"
#include "daemon/flows.h"

/* So that memory has an end; of more, those that come first in the table are looked at. */
#define ROOMS_MAX (1U << 20)

struct room_key {
	__be32 source[4], target[4];
	__be16 port;
	uint8_t kind; /* FLOW_KIND */
	uint8_t pad;
};

struct room {
	struct room_key key;
	uint32_t used; /* 0: an empty place */
};

/* An open-addressed hash table, at most half full. */
struct rooms {
	struct room *all;
	uint32_t n, size; /* a power of two */
};

static uint32_t key_hash(const struct room_key *key)
{
	const uint32_t *words = (const uint32_t *)key;
	uint32_t hash = 0;

	for (size_t i = 0; i < sizeof(*key) / sizeof(*words); i++)
		hash = (hash ^ words[i]) * 0x9e3779b1U, hash ^= hash >> 15;
	return hash;
}

/* Its place, which is empty when it has none yet. */
static struct room *room_of(const struct rooms *r, const struct room_key *key)
{
	uint32_t i = key_hash(key) & (r->size - 1);

	while (r->all[i].used && memcmp(&r->all[i].key, key, sizeof(*key)) != 0)
		i = (i + 1) & (r->size - 1);
	return &r->all[i];
}

static int grow(struct rooms *r)
{
	struct rooms larger = {.n = r->n, .size = r->size ? 2 * r->size : 256};

	larger.all = calloc(larger.size, sizeof(*larger.all));
	if (!larger.all)
		return -ENOMEM;
	for (uint32_t i = 0; i < r->size; i++)
		if (r->all[i].used)
			*room_of(&larger, &r->all[i].key) = r->all[i];
	free(r->all);
	*r = larger;
	return 0;
}

static int count(struct rooms *r, const struct flow *f)
{
	struct room_key key = {.port = f->reply.sport, .kind = f->flags & FLOW_KIND};
	struct room *room;
	int e = 0;

	memcpy(key.source, f->reply.daddr, sizeof(key.source));
	memcpy(key.target, f->reply.saddr, sizeof(key.target));
	if (2 * r->n >= r->size && r->n < ROOMS_MAX)
		e = grow(r);
	if (e < 0)
		return e;
	room = room_of(r, &key);
	if (!room->used) {
		if (r->n >= ROOMS_MAX)
			return 0;
		room->key = key;
		r->n++;
	}
	room->used++;
	return 0;
}

static bool takes_room(const struct flow *f)
{
	return ntohs(f->reply.dport) >= PORT_FILL_FIRST &&
	       memcmp(f->reply.daddr, f->original.saddr, sizeof(f->reply.daddr)) != 0;
}

static void describe(const struct room *room, struct port_fill *ret)
{
	*ret = (struct port_fill){
		.protocol = room->key.kind & FLOW_UDP ? IPPROTO_UDP : IPPROTO_TCP,
		.port = ntohs(room->key.port),
		.used = room->used,
	};
	ip_prefix_from_mapped((const uint8_t *)room->key.source, &ret->source);
	ip_prefix_from_mapped((const uint8_t *)room->key.target, &ret->target);
}

int port_fill_find(struct datapath *d, struct port_fill *ret)
{
	uint32_t n, now = datapath_ticks(d);
	const struct flow *flows = datapath_flows(d, &n);
	const struct room *fullest = NULL;
	struct rooms rooms = {0};
	struct flow f;
	int r = 0;

	for (uint32_t i = 1; r == 0 && i < n; i++)
		if (flows[i].state != FLOW_FREE && takes_room(&flows[i]) &&
		    flows_read(&flows[i], &f) && !flows_expired(d, &f, now))
			r = count(&rooms, &f);
	for (uint32_t i = 0; i < rooms.size; i++)
		if (!fullest || rooms.all[i].used > fullest->used)
			fullest = &rooms.all[i];
	*ret = (struct port_fill){0};
	if (r == 0 && fullest)
		describe(fullest, ret);
	free(rooms.all);
	return r;
}
