/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host: lo, and a second interface with a network on the link and a gateway. The addresses
 * spell 0x0800 and 0x86dd where BPF_PROG_TEST_RUN looks for the protocol of packets that have no
 * Ethernet header (test-redirect.c), so that all hooks can be given all packets.
 */
#include <arpa/inet.h>
#include <string.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

#define NET6 "2001:db8:86dd:"

/* Two of each family at least; of SELF the first is loopback's. */
#define ADDRESSES_MAX 6
static const char *const addresses[PARTY_COUNT][2][ADDRESSES_MAX] = {
	[PARTY_CLIENT] = {{"8.0.1.1", "8.0.1.2", "8.0.1.3", "8.0.2.4", "8.0.0.77", "8.0.0.10"},
			  {NET6 "1::1", NET6 "1::2", NET6 "1::3", NET6 "2::4", NET6 ":77",
			   NET6 ":10"}},
	[PARTY_HOST] = {{"8.0.0.1", "8.0.0.2"}, {NET6 ":1", NET6 ":2"}},
	[PARTY_SELF] = {{"127.0.0.1", "8.0.0.1"}, {"::1", NET6 ":1"}},
	[PARTY_BACKEND] = {{"8.0.0.10", "8.0.0.11", "8.0.4.10", "8.0.0.1"},
			   {NET6 ":10", NET6 ":11", NET6 "4::10", NET6 ":1"}},
	[PARTY_TRANSIT] = {{"8.0.3.1", "8.0.3.130", "8.0.0.10"},
			   {NET6 "3::1", NET6 "3:8000::1", NET6 ":10"}},
	[PARTY_ROUTER] = {{"8.0.0.254", "8.0.5.1"}, {NET6 ":fe", NET6 "5::1"}},
};

const char *fuzz_address(enum party party, bool ipv6)
{
	const char *const *list = addresses[party][ipv6];
	uint32_t n = 0;

	while (n < ADDRESSES_MAX && list[n])
		n++;
	return list[random_below(n)];
}

void fuzz_parse_address(const char *text, bool ipv6, uint8_t ret[static ORACLE_ADDRESS])
{
	memset(ret, 0, ORACLE_ADDRESS);
	if (inet_pton(ipv6 ? AF_INET6 : AF_INET, text, ret) != 1)
		fprintf(stderr, "%s is no address\n", text);
}

const char *fuzz_format_address(const uint8_t *address, bool ipv6, char ret[static ADDRESS_TEXT])
{
	return inet_ntop(ipv6 ? AF_INET6 : AF_INET, address, ret, ADDRESS_TEXT);
}

/* ---- what the oracle is told, and the kernel too ---- */

static struct oracle_prefix prefix(const char *text, unsigned length)
{
	struct oracle_prefix p = {.ipv6 = strchr(text, ':'), .length = length};

	fuzz_parse_address(text, p.ipv6, p.address);
	return p;
}

/* For iproute2; `second` is the name of the second interface. */
static const char *const commands[] = {
	"link set lo up",
	"link set second up",
	"address add 8.0.0.1/24 dev second",
	"address add 8.0.0.2/24 dev second",
	"address add " NET6 ":1/64 dev second nodad",
	"address add " NET6 ":2/64 dev second nodad",
	"route add default via 8.0.0.254",
	"route add default via " NET6 ":fe",
};

/* As the commands make them, and what no host sends on: broadcast, anycast, the link's own. */
static const struct {
	const char *to;
	unsigned length;
	const char *via;
	bool unroutable;
} nets[] = {
	{"8.0.0.0", 24, NULL, false},
	{NET6 ":", 64, NULL, false},
	{"0.0.0.0", 0, "8.0.0.254", false},
	{"::", 0, NET6 ":fe", false},
	{"8.0.0.255", 32, NULL, true},
	{NET6 ":", 128, NULL, true},
	{"::", 128, NULL, true},
	{"fe80::", 10, NULL, true},
	{"ff00::", 8, NULL, true},
};

static const char *const host_addresses[] = {"8.0.0.1", "8.0.0.2", NET6 ":1", NET6 ":2"};

void fuzz_make_host(struct world *w, struct oracle_host *ret)
{
	static struct oracle_prefix locals[6];
	static struct oracle_route routes[ARRAY_SIZE(nets)];
	static struct oracle_source known[5];

	locals[0] = prefix("127.0.0.0", 8);
	locals[1] = prefix("::1", 128);
	for (size_t i = 0; i < ARRAY_SIZE(host_addresses); i++)
		locals[2 + i] =
			prefix(host_addresses[i], strchr(host_addresses[i], ':') ? 128 : 32);
	for (size_t i = 0; i < ARRAY_SIZE(locals); i++)
		world_add_local_prefix(w, &locals[i]);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		world_ip(commands[i]);
	world_forward();
	for (size_t i = 0; i < ARRAY_SIZE(nets); i++)
		routes[i] = (struct oracle_route){.to = prefix(nets[i].to, nets[i].length),
						  .interface = w->interface,
						  .gateway = nets[i].via,
						  .unroutable = nets[i].unroutable};
	for (size_t i = 0; i < ARRAY_SIZE(nets); i++)
		if (nets[i].via)
			fuzz_parse_address(nets[i].via, routes[i].to.ipv6, routes[i].via);
	known[0] =
		(struct oracle_source){.interface = w->interface, .towards = prefix("8.0.0.0", 24)};
	known[1] = (struct oracle_source){.interface = w->interface,
					  .towards = prefix("8.0.0.254", 32)};
	known[2] = (struct oracle_source){.interface = w->interface, .towards = prefix("::", 0)};
	known[3] = (struct oracle_source){.towards = prefix("::", 0)};
	known[4] =
		(struct oracle_source){.interface = w->interface, .towards = prefix(NET6 ":", 64)};
	fuzz_parse_address(NET6 ":1", true, known[4].address);
	fuzz_parse_address("8.0.0.1", false, known[0].address);
	fuzz_parse_address("8.0.0.2", false, known[1].address);
	fuzz_parse_address(NET6 ":2", true, known[2].address);
	fuzz_parse_address(NET6 ":1", true, known[3].address);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		world_add_source(w, &known[i]);
	*ret = (struct oracle_host){.locals = locals,
				    .n_locals = ARRAY_SIZE(locals),
				    .routes = routes,
				    .n_routes = ARRAY_SIZE(routes),
				    .sources = known,
				    .n_sources = ARRAY_SIZE(known),
				    .loopback = 1};
}
