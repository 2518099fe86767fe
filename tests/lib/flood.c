// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A flood with spoofed sources, for tests/netns/test_flood.py: SYNs, or UDP datagrams, as fast as
 * packet sockets take them. Every packet bears another source address and port; three of four are
 * IPv4. One that the interface has no room for is sent again, so that all of them arrive.
 *
 *   flood INTERFACE MAC tcp|udp ADDRESS4 ADDRESS6 PORT COUNT SEED
 *
 * Sends to that MAC address, one thread a processor. Prints how many were sent, how often there was
 * no room, and in how many seconds, as JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH	    64
#define THREADS_MAX 64
#define PAYLOAD	    8 /* of a datagram */
#define FRAME_MAX   (sizeof(struct ether_header) + sizeof(struct ip6_hdr) + sizeof(struct tcphdr))
#define IPV4_OF_4   3

/* Where sources are from: 10.0.0.0/8, 2001:db8:f100::/40. */
static const uint8_t prefix4[] = {10};
static const uint8_t prefix6[] = {0x20, 0x01, 0x0d, 0xb8, 0xf1};

struct target {
	struct sockaddr_ll link;
	bool udp;
	struct in_addr address4;
	struct in6_addr address6;
	uint16_t port;
};

struct sender {
	pthread_t thread;
	const struct target *target;
	uint64_t count, random, no_room;
};

struct frame {
	uint8_t data[FRAME_MAX];
	size_t length;
};

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

/* splitmix64: Steele, Lea, Flood, OOPSLA 2014. */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15U;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
	z = (z ^ z >> 27) * 0x94d049bb133111ebU;
	return z ^ z >> 31;
}

/* ---- packets ---- */

static uint64_t sum(const void *data, size_t length)
{
	const uint8_t *bytes = data;
	uint64_t total = 0;

	for (size_t i = 0; i + 1 < length; i += 2)
		total += (uint64_t)(bytes[i] << 8 | bytes[i + 1]);
	return total;
}

static uint16_t checksum(uint64_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return htons((uint16_t)~total);
}

static size_t fill_tcp(void *at, const struct target *t, uint64_t addresses, uint64_t *random)
{
	uint64_t r = random_next(random);
	struct tcphdr h = {
		.th_sport = htons((uint16_t)(1024 + (r & 0xffff) % (65536 - 1024))),
		.th_dport = htons(t->port),
		.th_seq = (uint32_t)(r >> 32),
		.th_off = sizeof(h) / 4,
		.th_flags = TH_SYN,
		.th_win = htons(64240),
	};

	h.th_sum = checksum(addresses + IPPROTO_TCP + sizeof(h) + sum(&h, sizeof(h)));
	memcpy(at, &h, sizeof(h));
	return sizeof(h);
}

static size_t fill_udp(void *at, const struct target *t, uint64_t addresses, uint64_t *random)
{
	uint64_t r = random_next(random);
	struct {
		struct udphdr h;
		uint8_t payload[PAYLOAD];
	} d = {
		.h.uh_sport = htons((uint16_t)(1024 + (r & 0xffff) % (65536 - 1024))),
		.h.uh_dport = htons(t->port),
		.h.uh_ulen = htons(sizeof(d)),
	};

	memcpy(d.payload, &r, sizeof(d.payload));
	d.h.uh_sum = checksum(addresses + IPPROTO_UDP + sizeof(d) + sum(&d, sizeof(d)));
	memcpy(at, &d, sizeof(d));
	return sizeof(d);
}

static size_t fill_transport(void *at, const struct target *t, uint64_t addresses, uint64_t *random)
{
	return t->udp ? fill_udp(at, t, addresses, random) : fill_tcp(at, t, addresses, random);
}

static size_t fill_ipv4(uint8_t *at, const struct target *t, uint64_t *random)
{
	uint64_t r = random_next(random);
	struct ip h = {
		.ip_hl = sizeof(h) / 4,
		.ip_v = 4,
		.ip_id = (uint16_t)(r >> 32),
		.ip_ttl = 64,
		.ip_p = t->udp ? IPPROTO_UDP : IPPROTO_TCP,
		.ip_dst = t->address4,
	};
	size_t length;

	memcpy(&h.ip_src, &r, sizeof(h.ip_src));
	memcpy(&h.ip_src, prefix4, sizeof(prefix4));
	length = sizeof(h) + fill_transport(at + sizeof(h), t, sum(&h.ip_src, 8), random);
	h.ip_len = htons((uint16_t)length);
	h.ip_sum = checksum(sum(&h, sizeof(h)));
	memcpy(at, &h, sizeof(h));
	return length;
}

static size_t fill_ipv6(uint8_t *at, const struct target *t, uint64_t *random)
{
	uint64_t r[2] = {random_next(random), random_next(random)};
	struct ip6_hdr h = {
		.ip6_flow = htonl(6U << 28),
		.ip6_nxt = t->udp ? IPPROTO_UDP : IPPROTO_TCP,
		.ip6_hlim = 64,
		.ip6_dst = t->address6,
	};
	size_t length;

	memcpy(&h.ip6_src, r, sizeof(h.ip6_src));
	memcpy(&h.ip6_src, prefix6, sizeof(prefix6));
	length = fill_transport(at + sizeof(h), t, sum(&h.ip6_src, 32), random);
	h.ip6_plen = htons((uint16_t)length);
	memcpy(at, &h, sizeof(h));
	return sizeof(h) + length;
}

static void fill(struct frame *f, const struct target *t, uint64_t *random)
{
	bool ipv4 = (random_next(random) & 3) < IPV4_OF_4;
	struct ether_header h = {.ether_type = htons(ipv4 ? ETHERTYPE_IP : ETHERTYPE_IPV6)};
	uint8_t *packet = f->data + sizeof(h);

	memcpy(h.ether_dhost, t->link.sll_addr, sizeof(h.ether_dhost));
	h.ether_shost[0] = 2; /* locally administered; nobody answers it */
	memcpy(f->data, &h, sizeof(h));
	f->length =
		sizeof(h) + (ipv4 ? fill_ipv4(packet, t, random) : fill_ipv6(packet, t, random));
}

/* ---- sending ---- */

/* Sends all of a batch; what finds no room waits for it. */
static void send_batch(int fd, struct mmsghdr *messages, unsigned n, uint64_t *no_room)
{
	while (n) {
		int sent = sendmmsg(fd, messages, n, 0);

		if (sent > 0) {
			messages += sent;
			n -= (unsigned)sent;
			continue;
		}
		if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
			die("sendmmsg");
		++*no_room;
		sched_yield();
	}
}

static void *send_all(void *userdata)
{
	struct sender *s = userdata;
	struct frame frames[BATCH];
	struct iovec parts[BATCH];
	struct mmsghdr messages[BATCH] = {0};
	int fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) ||
	    bind(fd, (const struct sockaddr *)&s->target->link, sizeof(s->target->link)))
		die("packet socket");
	for (uint64_t left = s->count; left;) {
		unsigned n = left < BATCH ? (unsigned)left : BATCH;

		for (unsigned i = 0; i < n; i++) {
			fill(&frames[i], s->target, &s->random);
			parts[i] = (struct iovec){frames[i].data, frames[i].length};
			messages[i].msg_hdr.msg_iov = &parts[i];
			messages[i].msg_hdr.msg_iovlen = 1;
		}
		send_batch(fd, messages, n, &s->no_room);
		left -= n;
	}
	close(fd);
	return NULL;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run(const struct target *t, uint64_t count, uint64_t seed)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = processors < THREADS_MAX ? (unsigned)processors : THREADS_MAX;
	struct sender senders[THREADS_MAX] = {0};
	uint64_t no_room = 0;
	double began = now();

	for (unsigned i = 0; i < n; i++) {
		senders[i].target = t;
		senders[i].random = random_next(&seed);
		senders[i].count = count / n + (i < count % n);
		if (pthread_create(&senders[i].thread, NULL, send_all, &senders[i]))
			die("pthread_create");
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(senders[i].thread, NULL);
		no_room += senders[i].no_room;
	}
	printf("{\"sent\":%llu,\"no_room\":%llu,\"seconds\":%.3f}\n", (unsigned long long)count,
	       (unsigned long long)no_room, now() - began);
}

/* ---- the command line ---- */

static bool read_target(char **argv, struct target *t)
{
	const struct ether_addr *mac = ether_aton(argv[1]);

	if (!mac)
		return false;
	t->link = (struct sockaddr_ll){.sll_family = AF_PACKET,
				       .sll_ifindex = (int)if_nametoindex(argv[0]),
				       .sll_halen = sizeof(*mac)};
	memcpy(t->link.sll_addr, mac, sizeof(*mac));
	t->udp = strcmp(argv[2], "udp") == 0;
	t->port = (uint16_t)strtoul(argv[5], NULL, 10);
	return t->link.sll_ifindex && t->port && (t->udp || strcmp(argv[2], "tcp") == 0) &&
	       inet_pton(AF_INET, argv[3], &t->address4) == 1 &&
	       inet_pton(AF_INET6, argv[4], &t->address6) == 1;
}

int main(int argc, char **argv)
{
	struct target t;

	if (argc != 9 || !read_target(argv + 1, &t)) {
		fprintf(stderr, "usage: flood INTERFACE MAC tcp|udp ADDRESS4 ADDRESS6 PORT COUNT "
				"SEED\n");
		return 2;
	}
	run(&t, strtoull(argv[7], NULL, 10), strtoull(argv[8], NULL, 10));
	return 0;
}
