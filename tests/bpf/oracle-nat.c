/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flows. The destination is translated as a packet comes in, the source address as it leaves, as
 * by nf_nat; where only ports and destinations change, one hook does a direction alone.
 *
 * `original` is what the client sends, `reply` what the server answers. With a translated source
 * there is a packet in between, the middle, which has all that is new but the source's address. Its
 * port is new at ingress already: two flows that differ in nothing else would be one there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bpf/oracle-parts.h"
#include "tests/bpf/packet.h"

/* ---- tuples ---- */

struct oracle_tuple oracle_tuple_of(const struct oracle_packet *p)
{
	struct oracle_tuple t = {
		.ipv6 = p->ipv6, .protocol = p->protocol, .sport = p->sport, .dport = p->dport};

	memcpy(t.source, p->source, ORACLE_ADDRESS);
	memcpy(t.destination, p->destination, ORACLE_ADDRESS);
	return t;
}

struct oracle_tuple oracle_invert(const struct oracle_tuple *t)
{
	struct oracle_tuple i = {
		.ipv6 = t->ipv6, .protocol = t->protocol, .sport = t->dport, .dport = t->sport};

	memcpy(i.source, t->destination, ORACLE_ADDRESS);
	memcpy(i.destination, t->source, ORACLE_ADDRESS);
	return i;
}

bool oracle_tuple_equal(const struct oracle_tuple *a, const struct oracle_tuple *b)
{
	return a->sport == b->sport && a->dport == b->dport && a->protocol == b->protocol &&
	       a->ipv6 == b->ipv6 && memcmp(a->source, b->source, ORACLE_ADDRESS) == 0 &&
	       memcmp(a->destination, b->destination, ORACLE_ADDRESS) == 0;
}

struct oracle_tuple oracle_middle(const struct oracle_flow *f)
{
	struct oracle_tuple m = oracle_invert(&f->reply);

	memcpy(m.source, f->original.source, ORACLE_ADDRESS);
	return m;
}

/* ---- finding ---- */

/*
 * What `t` is to the flow at a hook. Coming in, packets of clients and servers; leaving, what has
 * become of them. One tuple may be both, where the rule changes nothing but the source.
 */
static enum oracle_role role_of(const struct oracle_flow *f, enum oracle_hook hook,
				const struct oracle_tuple *t)
{
	struct oracle_tuple middle, inverse;

	if ((hook == ORACLE_IN || f->own) && oracle_tuple_equal(&f->original, t))
		return ROLE_ORIGINAL;
	if ((hook == ORACLE_IN || !(f->snat || f->local || f->own)) &&
	    oracle_tuple_equal(&f->reply, t))
		return ROLE_REPLY;
	if (hook == ORACLE_IN || !f->snat)
		return ROLE_NONE;
	middle = oracle_middle(f);
	inverse = oracle_invert(&middle);
	if (oracle_tuple_equal(&middle, t))
		return ROLE_MIDDLE;
	return oracle_tuple_equal(&inverse, t) ? ROLE_MIDDLE_REPLY : ROLE_NONE;
}

bool oracle_flow_has(const struct oracle_flow *f, const struct oracle_tuple *t)
{
	return role_of(f, ORACLE_IN, t) != ROLE_NONE || role_of(f, ORACLE_OUT, t) != ROLE_NONE;
}

struct oracle_flow *oracle_find(const struct oracle *o, enum oracle_hook hook,
				const struct oracle_tuple *t, enum oracle_role *ret)
{
	for (size_t i = 0; i < o->n_flows; i++) {
		struct oracle_flow *f = &o->flows[i];

		*ret = f->dead ? ROLE_NONE : role_of(f, hook, t);
		if (*ret != ROLE_NONE)
			return f;
	}
	*ret = ROLE_NONE;
	return NULL;
}

/* Is any of the flow's tuples anything to another flow? */
static bool collides(const struct oracle *o, const struct oracle_flow *f)
{
	struct oracle_tuple middle = oracle_middle(f), inverse = oracle_invert(&middle);

	for (size_t i = 0; i < o->n_flows; i++) {
		const struct oracle_flow *other = &o->flows[i];

		if (other->dead)
			continue;
		if (oracle_flow_has(other, &f->reply))
			return true;
		if (f->snat &&
		    (oracle_flow_has(other, &middle) || oracle_flow_has(other, &inverse)))
			return true;
	}
	return false;
}

/* Would a packet at a hook be one of both this flow's and another's? */
static bool is_ambiguous(const struct oracle *o, const struct oracle_flow *f)
{
	struct oracle_tuple middle = oracle_middle(f), inverse = oracle_invert(&middle);
	enum oracle_role role;

	if (oracle_find(o, ORACLE_IN, &f->reply, &role))
		return true;
	if (f->local || f->own)
		return false;
	if (!f->snat)
		return oracle_find(o, ORACLE_OUT, &f->reply, &role);
	return oracle_find(o, ORACLE_OUT, &middle, &role) ||
	       oracle_find(o, ORACLE_OUT, &inverse, &role);
}

/* ---- opening ---- */

void *oracle_grow(void *array, size_t n, size_t *allocated, size_t size)
{
	if (n < *allocated)
		return array;
	*allocated = *allocated ? 2 * *allocated : 64;
	array = realloc(array, *allocated * size);
	if (!array) {
		fputs("oracle: out of memory\n", stderr);
		abort();
	}
	return array;
}

/*
 * A TCP flow begins with a SYN or amid a living connection; nothing begins with its end, nor with
 * the answer to a SYN that nobody has seen.
 */
static bool may_begin(const struct oracle_packet *p)
{
	if (p->protocol == PROTOCOL_UDP)
		return true;
	if (p->tcp_flags & (TCP_FLAG_RST | TCP_FLAG_FIN))
		return false;
	return !(p->tcp_flags & TCP_FLAG_SYN) != !(p->tcp_flags & TCP_FLAG_ACK);
}

static bool is_syn(const struct oracle_packet *p)
{
	uint8_t flags = TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_RST | TCP_FLAG_FIN;

	return p->protocol == PROTOCOL_TCP && (p->tcp_flags & flags) == TCP_FLAG_SYN;
}

/* Ports of one class take each other's place (RFC 4787, REQ-3; RFC 6056). */
static int port_class(uint16_t port)
{
	return port < 512 ? 0 : port < 1024 ? 1 : 2;
}

uint32_t oracle_predict(const struct oracle *o, const struct oracle_input *input,
			struct oracle_rule *r, unsigned n, struct oracle_flow *f)
{
	const struct oracle_tuple *t = &f->original;
	bool elsewhere, from_here, loopback, hairpin;

	f->rule = r;
	f->reply = oracle_invert(t);
	oracle_aim(r, n, t, f->reply.source, &f->reply.sport);
	elsewhere = !oracle_is_local(o, t->ipv6, f->reply.source);
	if (!elsewhere)
		return 0;
	from_here = o->host && input->interface == o->host->loopback;
	/* what comes in by lo and is for another host as it is, nobody can answer anyway */
	f->local = from_here && (r->masquerade || r->snat ||
				 memcmp(t->destination, f->reply.source, ORACLE_ADDRESS) != 0);
	hairpin = memcmp(t->source, f->reply.source, ORACLE_ADDRESS) == 0 &&
		  memcmp(t->destination, f->reply.source, ORACLE_ADDRESS) != 0;
	f->snat = !from_here && (r->masquerade || r->snat || hairpin);
	loopback = t->ipv6 ? t->source[15] == 1 && t->source[0] == 0 : t->source[0] == 127;
	if (r->snat && (f->snat || f->local)) {
		memcpy(f->reply.destination, r->snat_address, ORACLE_ADDRESS);
		return 0;
	}
	if (!f->snat && !(f->local && (loopback || r->masquerade)))
		return 0;
	f->masqueraded = true;
	if (oracle_source_to(o, t->ipv6, f->reply.source, f->reply.destination))
		return 0;
	return ORACLE_REASON(REASON_NO_SOURCE);
}

/* NULL, or what is wrong with the source's port of a flow that is to be. */
static const char *complain_of_port(const struct oracle *o, const struct oracle_flow *f)
{
	struct oracle_flow kept = *f;

	kept.reply.dport = f->original.sport;
	if (is_ambiguous(o, f))
		return "packets of the flow could be another's";
	if (kept.reply.dport == f->reply.dport)
		return NULL;
	if (!collides(o, &kept))
		return "the source's port was free and has not been kept";
	if (port_class(kept.reply.dport) != port_class(f->reply.dport) || f->reply.dport == 0)
		return "the source's port is of another class";
	return NULL;
}

/* What the datapath has made of it, held against what it had to make. */
static const char *complain(const struct oracle *o, const struct oracle_choice *c,
			    const struct oracle_flow *f)
{
	const struct oracle_tuple *got = &c->reply, *want = &f->reply;

	if (c->rule != (f->rule ? (unsigned)(f->rule - o->rules) : UINT32_MAX))
		return "the flow is another rule's";
	if (f->rule && c->target >= oracle_target_count(f->rule))
		return "the rule has no such target";
	if (f->rule && f->rule->n_targets && f->rule->targets[c->target].draining)
		return "the target gets no new flows";
	if (memcmp(got->source, want->source, ORACLE_ADDRESS) != 0 || got->sport != want->sport)
		return "the reply's source is not the target";
	if (memcmp(got->destination, want->destination, ORACLE_ADDRESS) != 0)
		return "the reply's destination is not the source";
	if (f->own)
		return NULL;
	if (c->snat != f->snat)
		return f->snat ? "the source's address has to change on the way out, and does not"
			       : "the source's address need not change on the way out";
	if (c->local != f->local)
		return f->local ? "a client of this host is treated as another's"
				: "a client of another host is treated as this host's";
	return NULL;
}

static struct oracle_flow *keep(struct oracle *o, const struct oracle_flow *f)
{
	o->flows = oracle_grow(o->flows, o->n_flows, &o->allocated, sizeof(*o->flows));
	o->flows[o->n_flows] = *f;
	return &o->flows[o->n_flows++];
}

static bool is_a_host(bool ipv6, const uint8_t *address)
{
	static const uint8_t none[ORACLE_ADDRESS];

	if (ipv6)
		return address[0] != 0xff && memcmp(address, none, sizeof(none)) != 0;
	return address[0] > 0 && address[0] < 224;
}

/*
 * What comes in by lo is from and for this host, what comes in elsewhere is from one that is not
 * it; all else gets no answer anyway (RFC 1812, 5.3.7 and 5.3.8).
 */
static bool may_be_real(const struct oracle *o, const struct oracle_input *input,
			const struct oracle_packet *p)
{
	bool from = oracle_is_local(o, p->ipv6, p->source);

	if (input->interface == o->host->loopback)
		return from && oracle_is_local(o, p->ipv6, p->destination);
	return !from && is_a_host(p->ipv6, p->source);
}

/* A flow of this rule, or a direct one (NULL), as the datapath has chosen to make it. */
static void open_flow(struct oracle *o, const struct oracle_input *input, struct oracle_rule *r,
		      const struct oracle_packet *p, const struct oracle_choice *c,
		      struct oracle_answer *ret)
{
	struct oracle_flow f = {.original = oracle_tuple_of(p),
				.interface = input->interface,
				.own = input->hook == ORACLE_OUT,
				.in_rate = r && r->burst,
				.in_rate_of_source = r && r->burst_of_source,
				.of_source = r && (r->max_flows_of_source || r->burst_of_source),
				.held = o->changes};
	uint32_t drops = 0;

	f.reply = oracle_invert(&f.original);
	if (r && c->target < oracle_target_count(r))
		drops = oracle_predict(o, input, r, c->target, &f);
	if (!c->made) {
		ret->verdict = ORACLE_DROP;
		ret->reasons = drops;
		if (!drops)
			ret->complaint = "a flow had to be opened, and has not been";
		return;
	}
	if (drops)
		ret->complaint = "there is no way to the target, or no source address for it";
	else if (!o->host || input->hook == ORACLE_OUT || may_be_real(o, input, p))
		ret->complaint = complain(o, c, &f);
	f.reply = c->reply;
	f.snat = c->snat && !f.own;
	f.local = c->local && !f.own;
	if (!ret->complaint)
		ret->complaint = complain_of_port(o, &f);
	ret->flow = keep(o, &f);
	ret->opened = true;
}

static struct oracle_choice ask(const struct oracle *o, const struct oracle_input *input,
				struct oracle_rule *r, const struct oracle_packet *p)
{
	struct oracle_choice c = {.made = true, .rule = UINT32_MAX};
	struct oracle_flow f = {.original = oracle_tuple_of(p)};

	if (o->choose) {
		o->choose(o->userdata, &f.original, &c);
		return c;
	}
	f.reply = oracle_invert(&f.original);
	if (r) {
		oracle_predict(o, input, r, 0, &f);
		c.rule = (unsigned)(r - o->rules);
	}
	c.reply = f.reply;
	c.snat = f.snat;
	c.local = f.local;
	return c;
}

/*
 * Would the answers to this packet, which no rule takes, be taken for another flow's? Coming in it
 * is a client's, who talks to the target itself; leaving, this host's, from an address and a port
 * that a flow has been given. The flows of this host's own clients are neither.
 */
static struct oracle_flow *confused_with(const struct oracle *o, const struct oracle_input *input,
					 const struct oracle_tuple *t)
{
	struct oracle_tuple inverse = oracle_invert(t);
	bool out = input->hook == ORACLE_OUT;

	if (out && (!o->host || input->interface == o->host->loopback ||
		    !oracle_is_local(o, t->ipv6, t->source)))
		return NULL;
	for (size_t i = 0; out && i < o->n_flows; i++)
		if (!o->flows[i].dead && oracle_tuple_equal(&o->flows[i].original, t))
			return NULL; /* came in as well, from somebody who claims to be this host */
	for (size_t i = 0; i < o->n_flows; i++) {
		const struct oracle_flow *f = &o->flows[i];

		if (!f->dead && !f->local && !f->own && (f->snat || !out) &&
		    oracle_tuple_equal(&f->reply, &inverse))
			return &o->flows[i];
	}
	return NULL;
}

/*
 * Amid a direct connection it is too late to change its port, but not forbidden.
 */
static bool need_not_be_told_apart(const struct oracle *o, const struct oracle_input *input,
				   const struct oracle_packet *p)
{
	if (p->protocol == PROTOCOL_TCP && !is_syn(p))
		return true;
	return o->host && input->hook == ORACLE_IN && !may_be_real(o, input, p);
}

/* Why it is, when no flow comes of it. Two may apply, then either is right. */
static uint32_t left_alone(const struct oracle *o, const struct oracle_tuple *t,
			   const struct oracle_rule *r, const struct oracle_packet *p)
{
	uint32_t reasons = 0;

	if (!oracle_listens(o, t))
		return ORACLE_REASON(REASON_UNRELATED);
	if (!r)
		reasons |= ORACLE_REASON(REASON_NO_MATCH);
	if (!may_begin(p))
		reasons |= ORACLE_REASON(REASON_STRAY);
	return reasons;
}

static bool is_over(const struct oracle_flow *f)
{
	return f->rst || (f->fin[0] && f->fin[1]);
}

/* A flow whose connection is over gives way to a SYN: has it? */
static bool has_gone(const struct oracle *o, const struct oracle_packet *syn, struct oracle_flow *f)
{
	struct oracle_choice c;

	if (!is_syn(syn) || !is_over(f) || !o->choose)
		return false;
	o->choose(o->userdata, &f->original, &c);
	f->dead = !c.made;
	return f->dead;
}

static void refuse(struct oracle_rule *r, const struct oracle_choice *c, struct oracle_answer *ret)
{
	r->refused++;
	ret->verdict = ORACLE_DROP;
	if (c->made)
		ret->complaint = "a flow has been opened beyond a limit";
}

/* A packet that belongs to no flow; `former` is the one that it did belong to, or NULL. */
static void judge_new(struct oracle *o, const struct oracle_input *input,
		      const struct oracle_packet *p, struct oracle_flow *former,
		      struct oracle_answer *ret)
{
	struct oracle_tuple t = oracle_tuple_of(p);
	struct oracle_flow *other = former && !former->rule ? former : confused_with(o, input, &t);
	struct oracle_rule *r = NULL;
	struct oracle_choice c;
	/* a connection to a target is known, so that no flow takes its tuple; to a former one, too
	 */
	bool target = false, former_target = false;

	if (input->hook == ORACLE_IN) {
		r = oracle_find_rule(o, input, &t);
		ret->reasons = left_alone(o, &t, r, p);
		target = oracle_is_target(o, &t) &&
			 !(o->host && oracle_is_local(o, p->ipv6, p->destination));
		former_target =
			o->choose && o->host && !oracle_is_local(o, p->ipv6, p->destination);
	}
	/* the end of a connection of this host's own is as good as its middle, see below */
	if ((input->hook == ORACLE_IN && !may_begin(p)) ||
	    (!r && !other && !target && !former_target))
		return;
	c = ask(o, input, r, p);
	if (!r && !c.made &&
	    ((!other && !target) || need_not_be_told_apart(o, input, p) ||
	     (other && has_gone(o, p, other))))
		return;
	ret->reasons = r ? oracle_exceeded(o, r, &t) : 0;
	if (ret->reasons)
		refuse(r, &c, ret);
	else
		open_flow(o, input, r, p, &c, ret);
}

/* ---- passing ---- */

/* The address and port that a packet of this role gets, as the flow's next tuple. */
static struct oracle_tuple becomes(const struct oracle_flow *f, enum oracle_role role)
{
	struct oracle_tuple middle = oracle_middle(f);

	switch (role) {
	case ROLE_ORIGINAL:
		return f->snat ? middle : oracle_invert(&f->reply);
	case ROLE_MIDDLE:
		return oracle_invert(&f->reply);
	case ROLE_REPLY:
		return f->snat ? oracle_invert(&middle) : oracle_invert(&f->original);
	case ROLE_MIDDLE_REPLY:
	case ROLE_NONE:
		break;
	}
	return oracle_invert(&f->original);
}

static unsigned packet_count(const struct oracle_input *input)
{
	return input->segments > 1 ? input->segments : 1;
}

/* Where it is first known; what claims to be this host's own and comes in is not known there. */
static bool is_first_seen(const struct oracle_flow *f, const struct oracle_input *input,
			  enum oracle_role role)
{
	return role == ROLE_REPLY ||
	       (role == ROLE_ORIGINAL && (input->hook == ORACLE_IN) != f->own);
}

void oracle_count(struct oracle_flow *f, const struct oracle_input *input,
		  const struct oracle_packet *p, enum oracle_role role)
{
	bool reply = role == ROLE_REPLY;
	unsigned n = packet_count(input);

	if (!is_first_seen(f, input, role))
		return;
	f->packets[reply] += n;
	f->bytes[reply] += p->ip_length + (n - 1) * (p->l4 - p->l3 + p->l4_header);
	if (p->protocol != PROTOCOL_TCP)
		return;
	f->rst |= (p->tcp_flags & TCP_FLAG_RST) != 0;
	f->fin[reply] |= (p->tcp_flags & TCP_FLAG_FIN) != 0;
}

void oracle_redirect(const struct oracle_input *input, uint8_t *data, struct oracle_answer *ret)
{
	static const size_t link = 14;

	ret->verdict = ORACLE_REDIRECT;
	if (!input->ethernet) {
		memmove(data + link, data, ret->length);
		write_be16(data + 12, input->type);
		ret->length += link;
	}
	/* lo knows no VLANs */
	while (read_be16(data + 12) == 0x8100 || read_be16(data + 12) == 0x88a8) {
		ret->length -= 4;
		memmove(data + 12, data + 16, ret->length - 12);
	}
	memset(data, 0, 12);
}

static void translate(const struct oracle_input *input, uint8_t *data,
		      const struct oracle_packet *p, enum oracle_role role,
		      struct oracle_answer *ret)
{
	struct oracle_tuple to = becomes(ret->flow, role);

	ret->translated = true;
	ret->role = role;
	oracle_rewrite(data, p, &to);
	if (ret->flow->local)
		oracle_redirect(input, data, ret);
}

static void pass_on(const struct oracle_input *input, uint8_t *data, const struct oracle_packet *p,
		    enum oracle_role role, struct oracle_answer *ret)
{
	oracle_count(ret->flow, input, p, role);
	translate(input, data, p, role, ret);
}

/*
 * A SYN of a client whose connection is over begins a new one: where the datapath has done so the
 * old flow is dead, and the new one may be another rule's target's, or have another port.
 */
static bool reopen(struct oracle *o, const struct oracle_input *input,
		   const struct oracle_packet *p, struct oracle_flow *old,
		   struct oracle_answer *ret)
{
	struct oracle_choice c;

	if (!is_syn(p) || !o->choose || !is_over(old))
		return false;
	o->choose(o->userdata, &old->original, &c);
	if (c.made && c.packets == old->packets[0] + packet_count(input))
		return false;
	/* nor where it is dropped uncounted, because the flow is reset */
	if (c.made && p->first && !old->rst && c.packets == old->packets[0] &&
	    oracle_hold(o, old, false) == FATE_RESET)
		return false;
	old->dead = true;
	judge_new(o, input, p, old, ret);
	return true;
}

/* Any reason is good for a packet that is known, but has nothing to become here. */
static uint32_t left_alone_reasons(const struct oracle *o, const struct oracle_tuple *t)
{
	uint32_t reasons = ORACLE_REASON(REASON_UNRELATED);

	if (oracle_listens(o, t))
		reasons |= ORACLE_REASON(REASON_NO_MATCH) | ORACLE_REASON(REASON_STRAY);
	return reasons;
}

/*
 * The packet becomes a RST to its receiver, and a copy of it one to its sender. Not one that is a
 * RST already, nor a part of one.
 */
static void reset(const struct oracle_input *input, uint8_t *data, const struct oracle_packet *p,
		  enum oracle_role role, struct oracle_answer *ret)
{
	struct oracle_flow *f = ret->flow;
	struct oracle_packet after = *p;

	if (p->tcp_flags & TCP_FLAG_RST) {
		pass_on(input, data, p, role, ret);
		return;
	}
	f->rst = true;
	ret->reasons = ORACLE_REASON(REASON_RESET);
	if (p->first) {
		ret->verdict = ORACLE_DROP;
		return;
	}
	oracle_count(f, input, p, role);
	ret->length = oracle_make_reset(data, &after);
	translate(input, data, &after, role, ret);
}

/* Of a client of this host, on the last part of its way through lo: it has been translated. */
static bool is_answer_at_home(const struct oracle *o, const struct oracle_input *input,
			      const struct oracle_tuple *t)
{
	struct oracle_tuple inverse = oracle_invert(t);

	if (input->hook != ORACLE_IN)
		return false;
	for (size_t i = 0; i < o->n_flows; i++)
		if (!o->flows[i].dead && o->flows[i].local &&
		    oracle_tuple_equal(&o->flows[i].original, &inverse))
			return true;
	return false;
}

/* A packet of a flow that was there before, and may be otherwise by the rules of now. */
static void judge_known(struct oracle *o, const struct oracle_input *input, uint8_t *data,
			const struct oracle_packet *p, enum oracle_role role,
			struct oracle_answer *ret)
{
	switch (oracle_hold(o, ret->flow, role == ROLE_REPLY)) {
	case FATE_GOES_ON:
		pass_on(input, data, p, role, ret);
		break;
	case FATE_FOLLOWS:
		ret->flow->dead = true;
		ret->flow = NULL;
		ret->reasons = ORACLE_REASON(REASON_UNRELATED);
		judge_new(o, input, p, NULL, ret);
		if (ret->flow)
			pass_on(input, data, p, ROLE_ORIGINAL, ret);
		break;
	case FATE_RESET:
		reset(input, data, p, role, ret);
		break;
	}
}

void oracle_judge_packet(struct oracle *o, const struct oracle_input *input, uint8_t *data,
			 const struct oracle_packet *p, struct oracle_answer *ret)
{
	struct oracle_tuple t = oracle_tuple_of(p);
	enum oracle_role role;
	struct oracle_flow *f = oracle_find(o, input->hook, &t, &role);

	ret->reasons = ORACLE_REASON(REASON_UNRELATED);
	/* coming in it would have opened a new one */
	if (f && role == ROLE_MIDDLE && has_gone(o, p, f))
		return;
	if (!f && is_answer_at_home(o, input, &t)) {
		ret->reasons = left_alone_reasons(o, &t);
		return;
	}
	if (!f || (role == ROLE_ORIGINAL && reopen(o, input, p, f, ret))) {
		if (!f)
			judge_new(o, input, p, NULL, ret);
		f = ret->flow;
		role = ROLE_ORIGINAL;
	} else if (input->hook == ORACLE_IN && role == ROLE_REPLY && !f->snat && !f->local &&
		   !f->own) {
		ret->reasons = left_alone_reasons(o, &t);
		return; /* it is translated as it leaves */
	}
	if (!f)
		return;
	ret->reasons = 0;
	ret->flow = f;
	if (ret->opened || (role != ROLE_ORIGINAL && role != ROLE_REPLY))
		pass_on(input, data, p, role, ret);
	else
		judge_known(o, input, data, p, role, ret);
}
