/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a reader needs to see of a packet, a flow or an answer. */
#include <netinet/in.h>
#include <string.h>

#include "tests/bpf/cases.h"
#include "tests/bpf/fuzz.h"

void fuzz_print_bytes(FILE *f, const char *what, const uint8_t *data, size_t length)
{
	fprintf(f, "%s, %zu bytes:", what, length);
	for (size_t i = 0; i < length; i++)
		fprintf(f, "%s%02x", i % 32 ? " " : "\n    ", data[i]);
	fputc('\n', f);
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "TCP" : protocol == IPPROTO_UDP ? "UDP" : "?";
}

static void print_tuple(FILE *f, const struct oracle_tuple *t)
{
	char source[ADDRESS_TEXT], destination[ADDRESS_TEXT];

	fprintf(f, "%s %s %u -> %s %u", protocol_name(t->protocol),
		fuzz_format_address(t->source, t->ipv6, source), t->sport,
		fuzz_format_address(t->destination, t->ipv6, destination), t->dport);
}

static void print_addresses(FILE *f, const struct oracle_packet *p)
{
	char source[ADDRESS_TEXT], destination[ADDRESS_TEXT];

	fprintf(f, "%s -> %s", fuzz_format_address(p->source, p->ipv6, source),
		fuzz_format_address(p->destination, p->ipv6, destination));
}

static void print_translatable(FILE *f, const uint8_t *data, const struct oracle_packet *p)
{
	struct oracle_tuple t = oracle_tuple_of(p);

	print_tuple(f, &t);
	if (p->protocol == IPPROTO_TCP)
		fprintf(f, " flags %#x", p->tcp_flags);
	fprintf(f, " ip length %zu", p->ip_length);
	if (!p->whole)
		fprintf(f, " first fragment of %#x", p->fragment);
	else
		fprintf(f, " checksum %04x (%s)", read_be16(data + p->checksum),
			oracle_l4_checksum_holds(data, p) ? "right" : "wrong");
	if (!p->ipv6)
		fprintf(f, " ip checksum %s",
			oracle_ipv4_checksum_holds(data, p) ? "right" : "wrong");
}

static void print_other(FILE *f, const uint8_t *data, const struct oracle_packet *p)
{
	struct oracle_packet quote;
	struct oracle_tuple t;

	print_addresses(f, p);
	if (!p->icmp || p->icmp + 8 > p->icmp_end)
		return;
	fprintf(f, " ICMP type %u code %u", data[p->icmp], data[p->icmp + 1]);
	fprintf(f, " checksum %s",
		oracle_icmp_checksum(data, p) == read_be16(data + p->icmp + 2) ? "right" : "wrong");
	if (!oracle_parse_quote(data, p, &quote))
		return;
	t = oracle_tuple_of(&quote);
	fprintf(f, " about ");
	print_tuple(f, &t);
	if (quote.checksum)
		fprintf(f, " checksum %04x", read_be16(data + quote.checksum));
}

void fuzz_print_packet(FILE *f, const struct oracle_input *input, const uint8_t *data,
		       size_t length)
{
	static const char *const classes[] = {
		[ORACLE_TRANSLATABLE] = "",
		[ORACLE_NOT_IP] = "not IP",
		[ORACLE_NOT_TCP_UDP] = "other protocol ",
		[ORACLE_LATER_FRAGMENT] = "later fragment ",
		[ORACLE_TRUNCATED] = "truncated ",
		[ORACLE_MALFORMED] = "malformed ",
		[ORACLE_TOO_DEEP] = "too many headers ",
	};
	struct oracle_packet p;

	if (input->ethernet)
		oracle_parse(data, length, true, &p);
	else
		oracle_parse_typed(data, length, input->type, &p);
	fprintf(f, "    %s", classes[p.class]);
	if (p.class == ORACLE_TRANSLATABLE)
		print_translatable(f, data, &p);
	else if (p.class != ORACLE_NOT_IP)
		print_other(f, data, &p);
	if (p.class == ORACLE_LATER_FRAGMENT)
		fprintf(f, " of %#x, protocol %u", p.fragment, p.protocol);
	fputc('\n', f);
}

void fuzz_print_flow(FILE *f, const struct oracle_flow *flow)
{
	fprintf(f, "    flow%s%s%s%s%s%s%s, held %u: ", flow->snat ? " snat" : "",
		flow->local ? " local" : "", flow->rule ? "" : " direct", flow->rst ? " reset" : "",
		flow->fin[0] ? " client's FIN" : "", flow->fin[1] ? " server's FIN" : "",
		flow->dead ? " dead" : "", flow->held);
	print_tuple(f, &flow->original);
	fprintf(f, " | ");
	print_tuple(f, &flow->reply);
	fprintf(f, ", %llu/%llu packets, %llu/%llu bytes\n", (unsigned long long)flow->packets[0],
		(unsigned long long)flow->packets[1], (unsigned long long)flow->bytes[0],
		(unsigned long long)flow->bytes[1]);
}

void fuzz_print_reasons(FILE *f, uint32_t reasons)
{
	static const char *const names[REASON_COUNT] = {
		[REASON_UNRELATED] = "unrelated",
		[REASON_NO_MATCH] = "no match",
		[REASON_STRAY] = "stray",
		[REASON_NOT_IP] = "not IP",
		[REASON_NOT_TCP_UDP] = "not TCP or UDP",
		[REASON_FRAGMENT] = "fragment",
		[REASON_TRUNCATED] = "truncated",
		[REASON_MALFORMED] = "malformed",
		[REASON_EXTENSIONS] = "extensions",
		[REASON_TABLE_FULL] = "table full",
		[REASON_INDEX_FULL] = "index full",
		[REASON_PORTS_FULL] = "ports full",
		[REASON_NO_SOURCE] = "no source",
		[REASON_HELD] = "held",
		[REASON_REWRITE] = "rewrite",
		[REASON_MAX_FLOWS] = "max-flows",
		[REASON_RATE] = "rate",
		[REASON_SOURCE_MAX_FLOWS] = "max-flows per source",
		[REASON_SOURCE_RATE] = "rate per source",
		[REASON_RESET] = "reset",
	};

	if (!reasons)
		fprintf(f, " none");
	for (size_t i = 0; i < REASON_COUNT; i++)
		if (reasons & ORACLE_REASON(i))
			fprintf(f, " \"%s\"", names[i] ? names[i] : "?");
}
