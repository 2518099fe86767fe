/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A flow of the control socket as a line of `conntrack -L`. */
#include "ctl/output-conntrack.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "ctl/output-text.h"

struct tuple {
	const char *src, *dst;
	json_int_t sport, dport, packets, bytes;
};

/* The numbers that nf_conntrack prints beside the names; a state column only where it has one. */
static const struct protocol {
	const char *name;
	int number;
	bool has_state;
} protocols[] = {
	{"tcp", IPPROTO_TCP, true},
	{"udp", IPPROTO_UDP, false},
};

static const struct protocol *protocol_find(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
		if (strcmp(protocols[i].name, name) == 0)
			return &protocols[i];
	return NULL;
}

static int tuple_unpack(const json_t *json, struct tuple *ret, json_error_t *error)
{
	return json_unpack_ex((json_t *)json, error, 0, "{s:s,s:I,s:s,s:I,s:I,s:I}", "src",
			      &ret->src, "sport", &ret->sport, "dst", &ret->dst, "dport",
			      &ret->dport, "packets", &ret->packets, "bytes", &ret->bytes);
}

static void write_word(const char *label, const char *value, FILE *out)
{
	fputs(label, out);
	text_write_safe(value, strlen(value), out);
	fputc(' ', out);
}

static void write_tuple(const struct tuple *t, FILE *out)
{
	write_word("src=", t->src, out);
	write_word("dst=", t->dst, out);
	fprintf(out,
		"sport=%" JSON_INTEGER_FORMAT " dport=%" JSON_INTEGER_FORMAT
		" packets=%" JSON_INTEGER_FORMAT " bytes=%" JSON_INTEGER_FORMAT " ",
		t->sport, t->dport, t->packets, t->bytes);
}

int output_conntrack(const json_t *flow, FILE *out, json_error_t *error)
{
	const char *protocol_name, *state;
	const struct protocol *protocol;
	json_t *original_json, *reply_json;
	struct tuple original, reply;
	json_int_t expires_ms;
	int assured;

	if (json_unpack_ex((json_t *)flow, error, 0, "{s:s,s:s,s:b,s:o,s:o,s:I}", "protocol",
			   &protocol_name, "state", &state, "assured", &assured, "original",
			   &original_json, "reply", &reply_json, "expires_ms", &expires_ms) < 0)
		return -EBADMSG;
	if (tuple_unpack(original_json, &original, error) < 0 ||
	    tuple_unpack(reply_json, &reply, error) < 0)
		return -EBADMSG;

	protocol = protocol_find(protocol_name);
	fprintf(out, "%-8s %d %" JSON_INTEGER_FORMAT " ", protocol ? protocol->name : "unknown",
		protocol ? protocol->number : 0, expires_ms / 1000);
	if (!protocol || protocol->has_state)
		write_word("", state, out);
	write_tuple(&original, out);
	/* nf_conntrack's IPS_SEEN_REPLY: no packet has come back yet. */
	if (reply.packets == 0)
		fputs("[UNREPLIED] ", out);
	write_tuple(&reply, out);
	if (assured)
		fputs("[ASSURED] ", out);
	fputs("mark=0 use=1\n", out);
	return 0;
}
