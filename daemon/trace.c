/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/trace.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>

#include "daemon/datapath.h"
#include "daemon/links.h"
#include "daemon/route.h"
#include "daemon/ruleset.h"
#include "shared/config.h"

#define TRIES 8 /* a packet may have come in between, on kernels where that is possible */

static const struct {
	const char *name, *words;
} whys[TRACE_WHYS] = {
	[TRACE_TAKES] = {"takes", "it takes the packet"},
	[TRACE_LESS_SPECIFIC] = {"less-specific",
				 "the rule that takes the packet is more specific"},
	[TRACE_FLOW] = {"flow", "the packet belongs to a flow that was made before"},
	[TRACE_DISABLED] = {"disabled", "it is disabled"},
	[TRACE_OTHER_PROTOCOL] = {"protocol", "it is for the other protocol"},
	[TRACE_OTHER_FAMILY] = {"family", "its addresses are of the other family"},
	[TRACE_OTHER_INTERFACE] = {"interface", "the packet comes in on another interface"},
	[TRACE_NOT_OWN] = {"not-own", "the destination is no address of this host; "
				      "`*` would take it"},
	[TRACE_OTHER_ADDRESS] = {"address", "it is for another destination"},
	[TRACE_OTHER_SOURCE] = {"source", "the client is not in its `from`"},
};

const char *trace_why_name(enum trace_why why)
{
	return whys[why].name;
}

const char *trace_why_words(enum trace_why why)
{
	return whys[why].words;
}

uint32_t trace_find_interface(const struct ip_prefix *src)
{
	return route_find(src).ifindex;
}

/* ---- the packet ---- */

struct frame {
	uint8_t data[512]; /* the answer has to fit as well */
	size_t length;
};

static void *put(struct frame *f, size_t size)
{
	void *at = f->data + f->length;

	f->length += size;
	return at;
}

/* IP header and all behind it, `length` bytes together. */
static void put_ip(struct frame *f, const struct trace_query *q, uint8_t protocol, size_t length)
{
	if (q->src.family == AF_INET) {
		struct iphdr *ip = put(f, sizeof(*ip));

		*ip = (struct iphdr){.version = 4,
				     .ihl = sizeof(*ip) / 4,
				     .ttl = 64,
				     .protocol = protocol,
				     .tot_len = htons((uint16_t)length)};
		memcpy(&ip->saddr, q->src.bytes, 4);
		memcpy(&ip->daddr, q->dst.bytes, 4);
	} else {
		struct ip6_hdr *ip = put(f, sizeof(*ip));

		ip->ip6_vfc = 6 << 4;
		ip->ip6_nxt = protocol;
		ip->ip6_hlim = 64;
		ip->ip6_plen = htons((uint16_t)(length - sizeof(*ip)));
		memcpy(&ip->ip6_src, q->src.bytes, 16);
		memcpy(&ip->ip6_dst, q->dst.bytes, 16);
	}
}

static void put_l4(struct frame *f, const struct trace_query *q)
{
	if (q->protocol == RULE_TCP) {
		struct tcphdr *tcp = put(f, sizeof(*tcp));

		tcp->source = htons(q->sport);
		tcp->dest = htons(q->dport);
		tcp->doff = sizeof(*tcp) / 4;
		tcp->syn = 1;
	} else {
		struct udphdr *udp = put(f, sizeof(*udp));

		udp->source = htons(q->sport);
		udp->dest = htons(q->dport);
		udp->len = htons((uint16_t)(sizeof(f->data) - (size_t)((uint8_t *)udp - f->data)));
	}
}

/* Checksums are nobody's concern here: no receiver looks, and translation updates what it finds. */
static void make_frame(const struct trace_query *q, struct frame *ret)
{
	struct ethhdr *ethernet;

	*ret = (struct frame){.length = 0};
	ethernet = put(ret, sizeof(*ethernet));
	ethernet->h_proto = htons(q->src.family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	put_ip(ret, q, q->protocol == RULE_TCP ? IPPROTO_TCP : IPPROTO_UDP,
	       sizeof(ret->data) - ret->length);
	put_l4(ret, q);
	ret->length = sizeof(ret->data);
}

/* Is a flow that would be made that of the packet, and not of one that came in between? */
static bool is_ours(const struct trace_answer *a, const struct trace_query *q)
{
	uint8_t src[16];

	if (a->reason != REASON_COUNT || a->flags & TRACE_FOUND)
		return true;
	ip_prefix_to_mapped(&q->src, src);
	return memcmp(src, a->flow.original.saddr, sizeof(src)) == 0 &&
	       a->flow.original.sport == htons(q->sport) &&
	       a->flow.original.dport == htons(q->dport);
}

static int ask(struct datapath *d, const struct trace_query *q, struct trace_answer *ret)
{
	struct frame frame;
	int r = 0;

	make_frame(q, &frame);
	for (int i = 0; i < TRIES && r == 0; i++) {
		r = datapath_trace(d, q->ifindex, frame.data, frame.length, ret);
		if (r == 0 && is_ours(ret, q))
			return 0;
	}
	return r < 0 ? r : -EAGAIN;
}

/* ---- the rules ---- */

static bool is_from(const struct rule *r, const struct ip_prefix *src)
{
	for (size_t i = 0; i < r->n_from; i++)
		if (ip_prefix_contains(&r->from[i], src))
			return true;
	return r->n_from == 0;
}

static enum trace_why judge(const struct rule *r, const struct config *config,
			    const struct links *links, const struct trace_query *q)
{
	const struct config_places p = config_places(config, r);
	const char *name = links_name(links, q->ifindex);
	uint8_t family = rule_family(r);

	if (r->disabled)
		return TRACE_DISABLED;
	if (!(r->protocols & q->protocol))
		return TRACE_OTHER_PROTOCOL;
	if (p.n && !(name && config_places_name(&p, name)))
		return TRACE_OTHER_INTERFACE;
	if (family && family != q->dst.family)
		return TRACE_OTHER_FAMILY;
	if (r->listen == RULE_LISTEN_LOCAL && !links_is_own(links, &q->dst))
		return TRACE_NOT_OWN;
	if (r->listen == RULE_LISTEN_PREFIX && !ip_prefix_contains(&r->listen_prefix, &q->dst))
		return TRACE_OTHER_ADDRESS;
	return is_from(r, &q->src) ? TRACE_LESS_SPECIFIC : TRACE_OTHER_SOURCE;
}

static void add_rule(struct trace *t, const struct ruleset_entry *e, enum trace_why why)
{
	size_t at = t->n_rules;

	if (why == TRACE_TAKES && at == TRACE_RULES_MOST)
		at = --t->n_rules, t->n_more++;
	if (at == TRACE_RULES_MOST) {
		t->n_more++;
		return;
	}
	if (why == TRACE_TAKES) {
		memmove(t->rules + 1, t->rules, at * sizeof(*t->rules));
		at = 0;
	}
	t->rules[at] = (struct trace_rule){e, why};
	t->n_rules++;
}

int trace_run(struct datapath *d, const struct ruleset *rules, const struct config *config,
	      const struct links *links, const struct trace_query *query, struct trace *ret)
{
	const struct flow_totals *totals = datapath_totals(d);
	int r;

	*ret = (struct trace){.n_rules = 0};
	r = ask(d, query, &ret->answer);
	if (r < 0)
		return r;
	ret->full = totals->created - totals->destroyed >= datapath_config(d)->flows_max;
	for (size_t i = 0; i < rules->n_entries; i++) {
		const struct ruleset_entry *e = rules->entries[i];
		enum trace_why why;

		if (query->dport < e->rule->ports.first || query->dport > e->rule->ports.last)
			continue;
		why = judge(e->rule, config, links, query);
		if (ret->answer.flow.rule == e->id)
			why = TRACE_TAKES;
		else if (why == TRACE_LESS_SPECIFIC && ret->answer.flags & TRACE_FOUND)
			why = TRACE_FLOW;
		add_rule(ret, e, why);
	}
	return 0;
}
