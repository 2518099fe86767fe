/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What redirectctl prints: numbers, tables, JSON streams, lines of conntrack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/flow-reply.h"
#include "ctl/output-changes.h"
#include "ctl/output-conntrack.h"
#include "ctl/output-json.h"
#include "ctl/output-table.h"
#include "ctl/output-text.h"

/* A stream into memory: open, write, then take the text. */
struct sink {
	char *text;
	size_t length;
	FILE *out;
};

static void sink_open(struct sink *s)
{
	*s = (struct sink){0};
	s->out = open_memstream(&s->text, &s->length);
	assert_non_null(s->out);
}

static void sink_expect(struct sink *s, const char *expected)
{
	assert_int_equal(fclose(s->out), 0);
	assert_string_equal(s->text, expected);
	free(s->text);
}

static void test_bytes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{10188, "9.9 KiB"},
		{10240, "10 KiB"},
		{1048063, "1023 KiB"},
		{1048064, "1.0 MiB"},
		{1048575, "1.0 MiB"},
		{(uint64_t)20 << 20, "20 MiB"},
		{(uint64_t)3 << 40, "3.0 TiB"},
		{UINT64_MAX, "16 EiB"},
	};
	char buffer[TEXT_BYTES_LEN];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(text_format_bytes(cases[i].bytes, buffer), cases[i].text);
}

static void test_span(void **state)
{
	static const struct {
		uint64_t ms;
		const char *text;
	} cases[] = {
		{0, "0 ms"},
		{999, "999 ms"},
		{1000, "1 s"},
		{59999, "59 s"},
		{60000, "1 min"},
		{61000, "1 min 1 s"},
		{7440000, "2 h 4 min"},
		{86400000, "1 d"},
		{90061000, "1 d 1 h"},
	};
	char buffer[TEXT_SPAN_LEN];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(text_format_span(cases[i].ms, buffer), cases[i].text);
}

static void test_safe(void **state)
{
	static const struct {
		const char *in, *out;
		size_t width;
	} cases[] = {
		{"web", "web", 3},
		{"a\033[2Jb", "a?[2Jb", 6},
		{"a\nb\177", "a?b?", 4},
		{"gr\303\274n", "gr\303\274n", 4}, /* u with two dots */
		{"\302\233x", "??x", 3},	   /* a control character of C1 */
		{"\303", "?", 1},		   /* cut in the middle */
		{"\300\257", "??", 2},		   /* too long a form */
		{"\360\237\230\200", "\360\237\230\200", 1},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sink s;

		sink_open(&s);
		text_write_safe(cases[i].in, strlen(cases[i].in), s.out);
		sink_expect(&s, cases[i].out);
		assert_int_equal(text_width(cases[i].in), cases[i].width);
		assert_int_equal(text_cut(cases[i].in, cases[i].width), strlen(cases[i].in));
	}
	assert_int_equal(text_cut("gr\303\274n", 3), 4);
	assert_int_equal(text_cut("abc", 0), 0);
}

static const struct table_column table_columns[] = {
	{.title = "ID", .right = true},
	{.title = "RULE", .flexible = true},
	{.title = "BYTES", .right = true},
};

static struct table *table_of_two(void)
{
	struct table *t = table_new(table_columns, 3);

	table_add_row(t, TEXT_PLAIN, (const char *const[]){"1", "tcp 8080 to 80 name web", "0 B"});
	table_add_row(t, TEXT_DIM, (const char *const[]){"12", NULL, "1.5 KiB"});
	return t;
}

static void test_table(void **state)
{
	_cleanup_(table_freep) struct table *t = table_of_two();
	struct sink s;

	sink_open(&s);
	table_print(t, SIZE_MAX, s.out);
	sink_expect(&s, "ID  RULE                       BYTES\n"
			" 1  tcp 8080 to 80 name web      0 B\n"
			"12  -                        1.5 KiB\n");
}

static void test_table_narrow(void **state)
{
	_cleanup_(table_freep) struct table *t = table_of_two();
	struct sink s;

	sink_open(&s);
	table_print(t, 27, s.out);
	sink_expect(&s, "ID  RULE              BYTES\n"
			" 1  tcp 8080 to 8~      0 B\n"
			"12  -               1.5 KiB\n");
	/* Far too narrow: the flexible column keeps a few places, no more is cut. */
	sink_open(&s);
	table_print(t, 3, s.out);
	sink_expect(&s, "ID  RULE        BYTES\n"
			" 1  tcp 808~      0 B\n"
			"12  -         1.5 KiB\n");
}

/* Not a terminal: no colour and no limit, whatever the environment says. */
static void test_no_terminal(void **state)
{
	FILE *out = tmpfile();

	assert_non_null(out);
	assert_string_equal(text_style_begin(out, TEXT_BOLD), "");
	assert_string_equal(text_style_end(out, TEXT_BOLD), "");
	assert_true(text_columns(out) == SIZE_MAX);
	fclose(out);
}

#define TUPLE(src, sport, dst, dport, packets, bytes)                                              \
	"{\"src\":\"" src "\",\"sport\":" #sport ",\"dst\":\"" dst "\",\"dport\":" #dport          \
	",\"packets\":" #packets ",\"bytes\":" #bytes "}"

/* The lines are those of conntrack 1.4.7 for such flows. */
static const struct {
	const char *flow, *line;
} conntrack_cases[] = {
	{"{\"rule\":1,\"protocol\":\"tcp\",\"state\":\"ESTABLISHED\",\"assured\":true,"
	 "\"original\":" TUPLE(
		 "127.0.0.1", 43368, "127.0.0.1", 8080, 2097,
		 109064) ",\"reply\":" TUPLE("127.0.0.1", 8081, "127.0.0.1", 43368, 2123,
					     260849862) ",\"interface\":\"lo\",\"age_ms\":12,"
							"\"expires_ms\":432000999}",
	 "tcp      6 432000 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=43368 dport=8080 "
	 "packets=2097 bytes=109064 src=127.0.0.1 dst=127.0.0.1 sport=8081 dport=43368 "
	 "packets=2123 bytes=260849862 [ASSURED] mark=0 use=1\n"},
	{"{\"rule\":2,\"protocol\":\"udp\",\"state\":\"UNREPLIED\",\"assured\":false,"
	 "\"original\":" TUPLE("127.0.0.1", 34705, "127.0.0.1", 9999, 1, 31) ",\"reply\":" TUPLE(
		 "127.0.0.1", 9999, "127.0.0.1", 34705, 0,
		 0) ",\"interface\":null,\"age_ms\":0,\"expires_ms\":29000}",
	 "udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=34705 dport=9999 packets=1 bytes=31 "
	 "[UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=9999 dport=34705 packets=0 bytes=0 "
	 "mark=0 use=1\n"},
	{"{\"rule\":3,\"protocol\":\"tcp\",\"state\":\"SYN_RECV\",\"assured\":false,"
	 "\"original\":" TUPLE("::1", 48212, "::1", 8080, 1, 80) ",\"reply\":" TUPLE(
		 "::1", 8081, "::1", 48212, 1,
		 80) ",\"interface\":\"lo\",\"age_ms\":0,\"expires_ms\":59999}",
	 "tcp      6 59 SYN_RECV src=::1 dst=::1 sport=48212 dport=8080 packets=1 bytes=80 "
	 "src=::1 dst=::1 sport=8081 dport=48212 packets=1 bytes=80 mark=0 use=1\n"},
};

struct lines {
	bool extended;
	struct writer out;
};

static bool add_line(void *userdata, const struct json_text *text, const struct flow *flow)
{
	struct lines *l = userdata;

	assert_int_equal(text->at[0], '{');
	assert_int_equal(text->at[text->length - 1], '}');
	if (flow)
		output_conntrack(flow, l->extended, &l->out);
	else
		writer_bytes(&l->out, text->at, text->length);
	return true;
}

/* Reads a reply with these flows. */
static int read_reply(const char *flows, bool text_only, struct lines *l, struct flow_reply *ret)
{
	char text[4096];
	int n = snprintf(
		text, sizeof(text),
		"{ \"parameters\" : {\"schema\":1,\"more\":[{},\"\\\"]\"], \"flows\" :\t[%s],"
		"\"deleted\":7},\"continues\":true}\n",
		flows);

	return flow_reply_read(&(struct json_text){text, (size_t)n}, text_only, add_line, l, ret);
}

static void lines_expect(struct lines *l, const char *prefix, const char *text)
{
	assert_int_equal(l->out.length, strlen(prefix) + strlen(text));
	assert_memory_equal(l->out.data, prefix, strlen(prefix));
	assert_memory_equal(l->out.data + strlen(prefix), text, strlen(text));
	writer_clear(&l->out);
}

static void test_conntrack(void **state)
{
	for (size_t i = 0; i < sizeof(conntrack_cases) / sizeof(conntrack_cases[0]); i++) {
		const char *flow = conntrack_cases[i].flow, *line = conntrack_cases[i].line;
		struct lines l = {.extended = false};
		struct flow_reply reply;

		assert_int_equal(read_reply(flow, false, &l, &reply), 0);
		assert_false(reply.error);
		assert_true(reply.continues);
		assert_int_equal(reply.n_deleted, 7);
		lines_expect(&l, "", line);
		l.extended = true;
		assert_int_equal(read_reply(flow, false, &l, &reply), 0);
		lines_expect(&l, strstr(flow, "::1") ? "ipv6     10 " : "ipv4     2 ", line);
		assert_int_equal(read_reply(flow, true, &l, &reply), 0);
		lines_expect(&l, "", flow);
	}
}

/* In any order, with members of a later version, and with what terminals shall not be given. */
static void test_conntrack_order(void **state)
{
	json_t *flow = json_loads(conntrack_cases[0].flow, 0, NULL);
	struct lines l = {.extended = false};
	struct flow_reply reply;
	char *text;

	json_object_set_new(flow, "later", json_pack("{s:[s, {}, f]}", "x", "]}\"\\", 1.5));
	json_object_set_new(flow, "state", json_string("A\033[2Jb\302\233 c"));
	text = json_dumps(flow, JSON_SORT_KEYS | JSON_INDENT(3));
	assert_int_equal(read_reply(text, false, &l, &reply), 0);
	assert_non_null(memmem(l.out.data, l.out.length, " A\\u001B[2Jb???c src=127.0.0.1 ", 31));
	writer_clear(&l.out);
	free(text);
	json_decref(flow);
}

/* Whatever is missing or of another type: refused, and not printed. */
static void test_conntrack_refused(void **state)
{
	static const char *const keys[] = {"protocol", "state", "assured",
					   "original", "reply", "expires_ms"};

	for (size_t i = 0; i < 2 * sizeof(keys) / sizeof(keys[0]); i++) {
		json_t *flow = json_loads(conntrack_cases[0].flow, 0, NULL);
		struct lines l = {.extended = false};
		struct flow_reply reply;
		char *text;

		if (i & 1)
			json_object_del(flow, keys[i / 2]);
		else
			json_object_set_new(flow, keys[i / 2], json_array());
		text = json_dumps(flow, JSON_COMPACT);
		assert_int_equal(read_reply(text, false, &l, &reply), -EBADMSG);
		assert_int_equal(l.out.length, 0);
		free(text);
		json_decref(flow);
	}
}

/* Cut anywhere, in a block of just that size, so that a sanitizer sees a step too far. */
static void test_conntrack_cut(void **state)
{
	static const char message[] =
		"{\"parameters\":{\"flows\":[{\"a\":\"\\\\\",\"b\":[1,tr]}]}}";

	for (size_t length = 0; length < sizeof(message) - 1; length++) {
		struct lines l = {.extended = false};
		struct flow_reply reply;
		char *text = malloc(length + !length);

		memcpy(text, message, length);
		assert_int_equal(flow_reply_read(&(struct json_text){text, length}, true, add_line,
						 &l, &reply),
				 -EBADMSG);
		writer_clear(&l.out);
		free(text);
	}
}

static void test_reply_error(void **state)
{
	static const char text[] = "{\"error\":\"io.redirectd.NoSuchRule\",\"parameters\":"
				   "{\"rule\":\"x\"}}";
	struct lines l = {.extended = false};
	struct flow_reply reply;

	assert_int_equal(flow_reply_read(&(struct json_text){text, sizeof(text) - 1}, false,
					 add_line, &l, &reply),
			 0);
	assert_true(reply.error);
	assert_false(reply.continues);
}

static void stream_expect(struct json_stream *j, const char *text)
{
	assert_int_equal(j->out->length, strlen(text));
	assert_memory_equal(j->out->data, text, strlen(text));
	writer_clear(j->out);
}

static void test_json_stream(void **state)
{
	json_t *error = json_pack("{s:s}", "code", "failed");
	struct writer out = {0};
	struct json_stream j = {.out = &out, .key = "flows"};

	json_stream_end(&j, NULL);
	stream_expect(&j, "{\"schema\":1,\"flows\":[]}\n");
	j = (struct json_stream){.out = &out, .key = "flows"};
	json_stream_add(&j, "{\"rule\":1}", 10);
	json_stream_add(&j, "{\"rule\":1}", 10);
	json_stream_end(&j, error);
	stream_expect(&j, "{\"schema\":1,\"flows\":[\n{\"rule\":1},\n{\"rule\":1}\n]"
			  ",\"error\":{\"code\":\"failed\"}}\n");
	json_decref(error);
}

static void test_changes(void **state)
{
	static const char answer[] = "{\"changes\":[{\"change\":\"add\",\"id\":null,\"before\":"
				     "null,\"after\":\"tcp 1 to 2\"},"
				     "{\"change\":\"remove\",\"id\":3,\"before\":\"tcp 3 to "
				     "4\",\"after\":null,\"note\":null},"
				     "{\"change\":\"change\",\"id\":5,\"before\":\"tcp 5 to "
				     "6\",\"after\":\"tcp 5 to 7\","
				     "\"note\":\"to\\u001bknow\"}]}";
	static const char *const strange[] = {
		"{}", "{\"changes\":[{}]}", "{\"changes\":[{\"change\":\"x\",\"after\":\"y\"}]}",
		"{\"changes\":[{\"change\":\"remove\",\"before\":null}]}"};
	struct failure failure = {0};
	json_t *json = json_loads(answer, 0, NULL);
	struct sink s;

	sink_open(&s);
	assert_int_equal(output_changes(json, s.out, &failure), CTL_DONE);
	sink_expect(&s, "+ tcp 1 to 2\n- tcp 3 to 4\n~ tcp 5 to 7\n  was tcp 5 to 6\n"
			"  note: to?know\n");
	json_decref(json);
	for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
		json = json_loads(strange[i], 0, NULL);
		sink_open(&s);
		assert_int_equal(output_changes(json, s.out, &failure), CTL_FAILED);
		sink_expect(&s, "");
		failure_clear(&failure);
		json_decref(json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_span),
		cmocka_unit_test(test_safe),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_table_narrow),
		cmocka_unit_test(test_no_terminal),
		cmocka_unit_test(test_conntrack),
		cmocka_unit_test(test_conntrack_order),
		cmocka_unit_test(test_conntrack_refused),
		cmocka_unit_test(test_conntrack_cut),
		cmocka_unit_test(test_reply_error),
		cmocka_unit_test(test_json_stream),
	};

	setlocale(LC_CTYPE, "C");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
