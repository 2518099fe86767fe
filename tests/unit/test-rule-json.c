/* SPDX-License-Identifier: GPL-2.0-or-later */
/* shared/rule-json.c: rules as `list` shows them, diagnostics there and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "shared/rule-json.h"
#include "tests/unit/rules.h"

static const struct rule_json_counters target_counters[2] = {{7, 8, 2, 1}, {3, 4, 1, 0}};

static const struct rule_json_entry entry = {
	.id = 3,
	.origin = "config",
	.source = "/etc/redirectd/redirectd.conf:7",
	.counters = {.packets = 10, .bytes = UINT64_MAX, .flows = 2, .active = 1},
	.refused = 5,
	.targets = target_counters,
};

static json_t *pack(const char *text)
{
	struct rule *r = rule_of(text);
	json_t *json;

	assert_int_equal(rule_json_pack(r, &entry, &json), 0);
	rule_free(r);
	return json;
}

static void assert_json(const json_t *json, const char *expected)
{
	json_t *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);
	char *text = json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT);

	assert_non_null(wanted);
	if (!json_equal(json, wanted))
		fail_msg("%s is not %s", text, expected);
	free(text);
	json_decref(wanted);
}

static void assert_member(const char *rule, const char *member, const char *expected)
{
	json_t *json = pack(rule);

	assert_json(json_object_get(json, member), expected);
	json_decref(json);
}

/* The example of the contract, in its order too. */
static void test_whole(void **state)
{
	json_t *json = pack("tcp 8080 to 80 name web on eth0");
	char *text = json_dumps(json, JSON_COMPACT);

	assert_string_equal(
		text,
		"{\"id\":3,\"name\":\"web\","
		"\"rule\":\"tcp 8080 to 80 on eth0 name web\","
		"\"protocol\":\"tcp\",\"interfaces\":[\"eth0\"],"
		"\"listen\":{\"address\":null,\"ports\":[8080,8080]},"
		"\"targets\":[{\"address\":null,\"ports\":[80,80],\"weight\":1,"
		"\"counters\":{\"packets\":7,\"bytes\":8,\"flows\":2,\"active\":1}}],"
		"\"from\":[],\"limits\":{\"rule\":null,\"source\":null},\"timeouts\":{},"
		"\"on_change\":{\"policy\":\"keep\",\"drain_seconds\":null},\"origin\":\"config\","
		"\"source\":\"/etc/redirectd/redirectd.conf:7\",\"configured\":null,"
		"\"enabled\":true,\"counters\":{\"packets\":10,"
		"\"bytes\":9223372036854775807,\"flows\":2,\"active\":1,\"refused\":5}}");
	free(text);
	json_decref(json);
}

static void test_members(void **state)
{
	assert_member("tcp 8080 to 80", "name", "null");
	assert_member("udp 53 to 5353", "protocol", "\"udp\"");
	assert_member("tcp+udp 53 to 5353", "protocol", "\"tcp+udp\"");
	assert_member("tcp 8080 to 80 disabled", "enabled", "false");
	assert_member("tcp *:8080 to 80", "listen", "{\"address\":\"*\",\"ports\":[8080,8080]}");
	assert_member("tcp 192.0.2.1:80-89 to 180-189", "listen",
		      "{\"address\":\"192.0.2.1\",\"ports\":[80,89]}");
	assert_member("tcp [2001:db8::]/64:80 to 81", "listen",
		      "{\"address\":\"2001:db8::/64\",\"ports\":[80,80]}");
	assert_member("tcp 192.0.2.0/24:80 to 81", "listen",
		      "{\"address\":\"192.0.2.0/24\",\"ports\":[80,80]}");
	assert_member("tcp 80 to 8080-8080 on eth0,lo", "interfaces", "[\"eth0\",\"lo\"]");
	assert_member("tcp 80 to 81 from 10.0.0.0/8,192.0.2.7,[2001:db8::]/32", "from",
		      "[\"10.0.0.0/8\",\"192.0.2.7\",\"2001:db8::/32\"]");
	assert_member("tcp 80 to 10.0.0.1:81 weight 3,10.0.0.2:82", "targets",
		      "[{\"address\":\"10.0.0.1\",\"ports\":[81,81],\"weight\":3,\"counters\":"
		      "{\"packets\":7,\"bytes\":8,\"flows\":2,\"active\":1}},"
		      "{\"address\":\"10.0.0.2\",\"ports\":[82,82],\"weight\":1,\"counters\":"
		      "{\"packets\":3,\"bytes\":4,\"flows\":1,\"active\":0}}]");
	assert_member("tcp 80 to 81 max-flows 9 rate 10/m per source", "limits",
		      "{\"rule\":{\"max_flows\":9,\"rate\":null},\"source\":{\"max_flows\":null,"
		      "\"rate\":{\"flows\":10,\"seconds\":60,\"burst\":10}}}");
	assert_member("tcp 80 to 81 max-flows 9 per source rate 2/s burst 7", "limits",
		      "{\"rule\":{\"max_flows\":null,\"rate\":{\"flows\":2,\"seconds\":1,"
		      "\"burst\":7}},\"source\":{\"max_flows\":9,\"rate\":null}}");
	assert_member("tcp 80 to 81 timeout tcp-syn 5s timeout tcp-syn-recv 7s", "timeouts",
		      "{\"tcp-syn\":5,\"tcp-syn-recv\":7}");
	assert_member("tcp 80 to 81 on-change drain 1m", "on_change",
		      "{\"policy\":\"drain\",\"drain_seconds\":60}");
	assert_member("tcp 80 to 81 on-change reset", "on_change",
		      "{\"policy\":\"reset\",\"drain_seconds\":null}");
}

/* Bytes of a file name need not be UTF-8: the answer must be. */
static void test_source_not_utf8(void **state)
{
	struct rule_json_entry e = entry;
	struct rule *r = rule_of("tcp 8080 to 80");
	json_t *json;

	e.source = "/etc/caf\xe9.conf:1";
	assert_int_equal(rule_json_pack(r, &e, &json), 0);
	assert_string_equal(json_string_value(json_object_get(json, "source")),
			    "/etc/caf\xef\xbf\xbd.conf:1");
	json_decref(json);
	rule_free(r);
}

static char *print(const struct diag *d)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	diag_print(d, out, "rule");
	fclose(out);
	return text;
}

/* What the far side said prints there as it would have here. */
static void test_diag_round_trip(void **state)
{
	const struct diag_place place = {
		.file = "a.conf",
		.line = 7,
		.column = 5,
		.width = 2,
		.text = "tcp xx to 80",
	};
	struct diag there = {0}, here = {0};
	char *printed_there, *printed_here;
	json_t *json;

	diag_add(&there, DIAG_INVALID, &place, "write a port", "\"%s\" is no port", "xx");
	diag_add(&there, DIAG_CONFLICT, NULL, NULL, "in the way");
	diag_add(&there, DIAG_FAILED, NULL, "100%s", "out of %s", "memory");
	assert_int_equal(rule_json_pack_diag(&there, &json), 0);
	assert_json(json_array_get(json, 0),
		    "{\"code\":\"invalid\",\"file\":\"a.conf\",\"line\":7,\"column\":5,"
		    "\"width\":2,\"text\":\"tcp xx to 80\",\"message\":\"\\\"xx\\\" is no port\","
		    "\"hint\":\"write a port\"}");
	assert_json(json_array_get(json, 1),
		    "{\"code\":\"conflict\",\"file\":null,\"line\":null,\"column\":null,"
		    "\"width\":null,\"text\":null,\"message\":\"in the way\",\"hint\":null}");
	assert_int_equal(rule_json_unpack_diag(json, &here), 0);
	assert_int_equal(here.n_items, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(here.items[i].code, there.items[i].code);
	printed_there = print(&there);
	printed_here = print(&here);
	assert_string_equal(printed_here, printed_there);
	free(printed_there);
	free(printed_here);
	json_decref(json);
	diag_clear(&there);
	diag_clear(&here);
}

static void assert_no_diag(const char *text)
{
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	struct diag d = {0};

	assert_non_null(json);
	assert_int_equal(rule_json_unpack_diag(json, &d), -EBADMSG);
	assert_int_equal(d.n_items, 0);
	json_decref(json);
}

static void test_diag_unreadable(void **state)
{
	struct diag d = {0};
	json_t *json;

	assert_no_diag("{}");
	assert_no_diag("null");
	assert_no_diag("[1]");
	assert_no_diag("[{}]");
	assert_no_diag("[{\"code\":\"invalid\"}]");
	assert_no_diag("[{\"message\":\"m\"}]");
	assert_no_diag("[{\"code\":\"other\",\"message\":\"m\"}]");
	assert_no_diag("[{\"code\":\"invalid\",\"message\":1}]");
	assert_no_diag("[{\"code\":\"invalid\",\"message\":\"m\",\"line\":-1}]");
	assert_no_diag("[{\"code\":\"invalid\",\"message\":\"m\",\"line\":4294967297}]");
	assert_no_diag("[{\"code\":\"invalid\",\"message\":\"m\",\"line\":\"1\"}]");
	assert_no_diag("[{\"code\":\"invalid\",\"message\":\"m\",\"hint\":{}}]");
	assert_int_equal(rule_json_unpack_diag(NULL, &d), -EBADMSG);
	/* The least that is one, and members that a later version may add. */
	json = json_loads("[{\"code\":\"failed\",\"message\":\"m\",\"new\":[]}]", 0, NULL);
	assert_int_equal(rule_json_unpack_diag(json, &d), 0);
	assert_int_equal(d.n_items, 1);
	assert_string_equal(d.items[0].message, "m");
	json_decref(json);
	diag_clear(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),		cmocka_unit_test(test_members),
		cmocka_unit_test(test_source_not_utf8), cmocka_unit_test(test_diag_round_trip),
		cmocka_unit_test(test_diag_unreadable),
	};

	return cmocka_run_group_tests_name("rule-json", tests, NULL, NULL);
}
