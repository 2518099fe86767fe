/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the host has: its interfaces, the destinations that are its own (routes of type local), and
 * its addresses. Follows all over rtnetlink. Own destinations go straight into the datapath's
 * `locals`, addresses into its `sources`; of interfaces the owner is told.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "shared/cleanup.h"

struct datapath;
struct ip_prefix;
struct links;

struct links_handler {
	/* An interface appeared, or was renamed. `ethernet`: its packets have an Ethernet header.
	 */
	void (*appeared)(void *userdata, uint32_t ifindex, const char *name, bool ethernet);
	void (*gone)(void *userdata, uint32_t ifindex, const char *name);
	/* Addresses are no longer this host's; the datapath knows already. */
	void (*lost)(void *userdata);
	/* A burst of changes has been told of. */
	void (*settled)(void *userdata);
	void *userdata;
};

/* Reads all, calling `appeared` for every interface, then follows. */
int links_new(sd_event *event, struct datapath *d, const struct links_handler *handler,
	      struct links **ret);
struct links *links_free(struct links *l); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct links, links_free)

/* The index of a name, 0 if there is none; the name of an index, NULL if there is none. */
uint32_t links_index(const struct links *l, const char *name);
const char *links_name(const struct links *l, uint32_t ifindex);

/* Walks the interfaces that packets may be redirected on, from 0; NULL: no more. */
const char *links_nth(const struct links *l, size_t n, uint32_t *ret_ifindex);

/* Is an address this host's own? */
bool links_is_own(const struct links *l, const struct ip_prefix *address);
