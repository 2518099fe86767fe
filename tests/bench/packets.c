// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Small UDP packets for tests/bench/traffic.py and flows.py: how many go through in a second, how
 * long one takes there and back; and first packets. Owns nothing but its socket.
 *
 *   packets serve PORT                      answers every datagram that begins with 'A'
 *   packets burst ADDRESS PORT SECONDS SIZE sends bursts of 32, the last of each is answered, so
 *                                           that nothing is ever lost; prints how many were sent
 *   packets ping ADDRESS PORT SECONDS       one at a time; prints the median round trip in µs
 *   packets fresh ADDRESS PORT FIRST COUNT  one from each of so many clients, FIRST being the
 * number of the first: 10.0.0.0 and on; IPv4, root
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BURST	   32
#define SIZE_MAX_  1400
#define TRIPS_MAX  4000000
#define WAIT_LIMIT 2 /* seconds without an answer: the network is not what it should be */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int socket_connect(const char *address, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST};
	struct timeval limit = {.tv_sec = WAIT_LIMIT};
	struct addrinfo *found;
	int fd;

	if (getaddrinfo(address, port, &hints, &found))
		die(address);
	fd = socket(found->ai_family, SOCK_DGRAM, 0);
	if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen))
		die("connect");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	freeaddrinfo(found);
	return fd;
}

static _Noreturn void serve(const char *port)
{
	static char buffers[BURST][SIZE_MAX_];
	struct sockaddr_in6 peers[BURST];
	struct sockaddr_in6 any = {.sin6_family = AF_INET6,
				   .sin6_port = htons((uint16_t)atoi(port))};
	struct iovec parts[BURST];
	struct mmsghdr messages[BURST] = {0};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)))
		die("bind");
	for (;;) {
		int n;

		for (int i = 0; i < BURST; i++) {
			parts[i] = (struct iovec){.iov_base = buffers[i], .iov_len = SIZE_MAX_};
			messages[i].msg_hdr = (struct msghdr){.msg_name = &peers[i],
							      .msg_namelen = sizeof(peers[i]),
							      .msg_iov = &parts[i],
							      .msg_iovlen = 1};
		}
		n = recvmmsg(fd, messages, BURST, MSG_WAITFORONE, NULL);
		if (n < 0 && errno != EINTR)
			die("recvmmsg");
		for (int i = 0; i < n; i++) {
			if (buffers[i][0] == 'A' &&
			    sendto(fd, buffers[i], messages[i].msg_len, 0,
				   (struct sockaddr *)&peers[i], sizeof(peers[i])) < 0)
				die("sendto");
		}
	}
}

static int burst(int fd, double seconds, size_t size)
{
	static char plain[SIZE_MAX_], last[SIZE_MAX_] = {'A'}, answer[SIZE_MAX_];
	struct iovec parts[BURST];
	struct mmsghdr messages[BURST] = {0};
	uint64_t end = now_ns() + (uint64_t)(seconds * 1e9), sent = 0;

	for (int i = 0; i < BURST; i++) {
		parts[i] =
			(struct iovec){.iov_base = i == BURST - 1 ? last : plain, .iov_len = size};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while (now_ns() < end) {
		if (sendmmsg(fd, messages, BURST, 0) != BURST)
			die("sendmmsg");
		if (recv(fd, answer, sizeof(answer), 0) < 0)
			die("no answer");
		sent += BURST;
	}
	printf("%lu\n", (unsigned long)sent);
	return 0;
}

static int compare_trips(const void *a, const void *b)
{
	uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;

	return (one > other) - (one < other);
}

static int ping(int fd, double seconds)
{
	uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), at = begin;
	uint32_t *trips = calloc(TRIPS_MAX, sizeof(*trips));
	size_t n = 0;

	if (!trips)
		die("calloc");
	while (at < end && n < TRIPS_MAX) {
		char message[32] = "A";
		uint64_t back;

		if (send(fd, message, sizeof(message), 0) < 0)
			die("send");
		if (recv(fd, message, sizeof(message), 0) < 0)
			die("no answer");
		back = now_ns();
		trips[n++] = (uint32_t)(back - at);
		at = back;
	}
	qsort(trips, n, sizeof(*trips), compare_trips);
	printf("%.2f\n", trips[n / 2] / 1000.0);
	free(trips);
	return 0;
}

#define CLIENTS_AT 0x0a000000U /* 10.0.0.0 */

struct fresh_packet {
	struct iphdr ip;
	struct udphdr udp;
	char data[4];
};

/* Of a client that nobody has seen; without a UDP checksum, the kernel sees to the other. */
static void fresh_make(struct fresh_packet *p, const struct sockaddr_in *to, uint32_t client)
{
	*p = (struct fresh_packet){
		.ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP},
		.udp = {.source = htons(40000), .dest = to->sin_port},
	};
	p->ip.tot_len = htons(sizeof(*p));
	p->ip.saddr = htonl(CLIENTS_AT + client);
	p->ip.daddr = to->sin_addr.s_addr;
	p->udp.len = htons(sizeof(*p) - sizeof(p->ip));
}

static int fresh(const char *address, const char *port, uint32_t first, uint32_t count)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	static struct fresh_packet packets[BURST];
	struct mmsghdr messages[BURST] = {0};
	struct iovec parts[BURST];
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), n;

	if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		die(address);
	for (uint32_t sent = 0; sent < count; sent += (uint32_t)n) {
		uint32_t want = count - sent < BURST ? count - sent : BURST;

		for (uint32_t i = 0; i < want; i++) {
			fresh_make(&packets[i], &to, first + sent + i);
			parts[i] = (struct iovec){&packets[i], sizeof(packets[i])};
			messages[i].msg_hdr = (struct msghdr){.msg_name = &to,
							      .msg_namelen = sizeof(to),
							      .msg_iov = &parts[i],
							      .msg_iovlen = 1};
		}
		n = sendmmsg(fd, messages, want, 0);
		if (n < 0)
			die("sendmmsg");
	}
	return 0;
}

int main(int argc, char **argv)
{
	bool serving = argc == 3 && !strcmp(argv[1], "serve");
	size_t size = argc == 6 ? (size_t)atoi(argv[5]) : 0;

	if (serving)
		serve(argv[2]);
	if (argc == 6 && !strcmp(argv[1], "burst") && size > 0 && size <= SIZE_MAX_)
		return burst(socket_connect(argv[2], argv[3]), atof(argv[4]), size);
	if (argc == 5 && !strcmp(argv[1], "ping"))
		return ping(socket_connect(argv[2], argv[3]), atof(argv[4]));
	if (argc == 6 && !strcmp(argv[1], "fresh"))
		return fresh(argv[2], argv[3], (uint32_t)strtoul(argv[4], NULL, 0),
			     (uint32_t)strtoul(argv[5], NULL, 0));
	fprintf(stderr, "usage: packets serve PORT | burst ADDRESS PORT SECONDS SIZE | "
			"ping ADDRESS PORT SECONDS | fresh ADDRESS PORT FIRST COUNT\n");
	return 2;
}
