/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much of the room for source ports is in use. Flows whose source is translated to one address
 * and that go to one port of one target can only be told apart by their source port: when these
 * run out, new flows there are refused.
 */
#pragma once

#include <stdint.h>

#include "shared/addr.h"

struct datapath;

#define PORT_FILL_FIRST	   1024 /* lower ones are only for clients that use such themselves */
#define PORT_FILL_CAPACITY (65536 - PORT_FILL_FIRST)

struct port_fill {
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	struct ip_prefix source, target;
	uint16_t port;
	uint32_t used; /* of PORT_FILL_CAPACITY; 0: no flow has a translated source */
};

/* The fullest such room. Returns 0 or -ENOMEM. */
int port_fill_find(struct datapath *d, struct port_fill *ret);
