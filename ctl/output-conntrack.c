/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A flow of the control socket as a line of `conntrack -L`. */
#include "ctl/output-conntrack.h"

#include "ctl/flow-reply.h"

/* The numbers that nf_conntrack prints beside the names; a state column only where it has one. */
static const struct protocol {
	const char *name, *columns;
	bool has_state;
} protocols[] =
	{
		{"tcp", "tcp      6 ", true},
		{"udp", "udp      17 ", false},
},
  unknown_protocol = {NULL, "unknown  0 ", true};

static const struct protocol *protocol_find(const struct json_text *name)
{
	for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
		if (json_text_is(name, protocols[i].name))
			return &protocols[i];
	return &unknown_protocol;
}

/* These words have letters and digits only; whatever else comes shall not drive a terminal. */
static void write_word(const struct json_text *t, struct writer *out)
{
	char *to = writer_room(out, t->length);

	if (!to)
		return;
	for (size_t i = 0; i < t->length; i++)
		to[i] = t->at[i] > ' ' && t->at[i] < 0x7f ? t->at[i] : '?';
	writer_advance(out, t->length);
}

static void write_end(const struct flow_end *e, struct writer *out)
{
	writer_literal(out, "src=");
	write_word(&e->src, out);
	writer_literal(out, " dst=");
	write_word(&e->dst, out);
	writer_literal(out, " sport=");
	writer_number(out, e->sport);
	writer_literal(out, " dport=");
	writer_number(out, e->dport);
	writer_literal(out, " packets=");
	writer_number(out, e->packets);
	writer_literal(out, " bytes=");
	writer_number(out, e->bytes);
	writer_literal(out, " ");
}

void output_conntrack(const struct flow *f, bool extended, struct writer *out)
{
	const struct protocol *protocol = protocol_find(&f->protocol);

	if (extended && memchr(f->original.src.at, ':', f->original.src.length))
		writer_literal(out, "ipv6     10 ");
	else if (extended)
		writer_literal(out, "ipv4     2 ");
	writer_text(out, protocol->columns);
	writer_number(out, f->expires_ms / 1000);
	writer_literal(out, " ");
	if (protocol->has_state) {
		write_word(&f->state, out);
		writer_literal(out, " ");
	}
	write_end(&f->original, out);
	/* nf_conntrack's IPS_SEEN_REPLY: no packet has come back yet. */
	if (f->reply.packets == 0)
		writer_literal(out, "[UNREPLIED] ");
	write_end(&f->reply, out);
	if (f->assured)
		writer_literal(out, "[ASSURED] ");
	writer_literal(out, "mark=0 use=1\n");
}
