/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How this host sends to an address, as `ip route get` tells it. */
#pragma once

#include <stdint.h>

#include "shared/addr.h"

struct route {
	uint32_t ifindex; /* 0: there is none; that of lo: the address is this host's own */
	uint32_t mtu;	  /* of the route itself; 0: the interface's */
};

struct route route_find(const struct ip_prefix *to);
