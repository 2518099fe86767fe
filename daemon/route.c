/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/route.h"

#include <netinet/in.h>
#include <string.h>

#include "daemon/netlink.h"

static int on_route(const struct nlmsghdr *m, void *userdata)
{
	const struct rtmsg *body = NLMSG_DATA(m);
	const struct rtattr *out = netlink_attribute(m, sizeof(*body), RTA_OIF);
	const struct rtattr *metrics = netlink_attribute(m, sizeof(*body), RTA_METRICS);
	struct route *route = userdata;
	int left;

	if (m->nlmsg_type != RTM_NEWROUTE || !out)
		return 0;
	route->ifindex = *(const uint32_t *)RTA_DATA(out);
	left = metrics ? (int)RTA_PAYLOAD(metrics) : 0;
	for (const struct rtattr *a = metrics ? RTA_DATA(metrics) : NULL; a && RTA_OK(a, left);
	     a = RTA_NEXT(a, left))
		if (a->rta_type == RTAX_MTU)
			route->mtu = *(const uint32_t *)RTA_DATA(a);
	return 0;
}

struct route route_find(const struct ip_prefix *to)
{
	struct {
		struct rtmsg body;
		struct rtattr attribute;
		uint8_t address[16];
	} ask = {
		.body = {.rtm_family = to->family, .rtm_dst_len = to->family == AF_INET ? 32 : 128},
		.attribute = {.rta_type = RTA_DST,
			      .rta_len = RTA_LENGTH(to->family == AF_INET ? 4 : 16)},
	};
	struct route route = {0};

	memcpy(ask.address, to->bytes, sizeof(ask.address));
	netlink_get(RTM_GETROUTE, &ask, sizeof(ask.body) + ask.attribute.rta_len, on_route, &route);
	return route;
}
