/* SPDX-License-Identifier: GPL-2.0-or-later */
/* shared/varlink.c: framing, limits, what is refused and where it says that the fault is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shared/varlink.h"

#define LIMIT 1024

static int next(struct varlink_buffer *b, json_t **ret)
{
	return varlink_buffer_next(b, ret, NULL);
}

/* Gives `text` with its NUL and takes one message. */
static int parse(const char *text, json_t **ret, json_error_t *error)
{
	struct varlink_buffer b = {0};
	int r = varlink_buffer_append(&b, text, strlen(text) + 1, 1024 * 1024);

	if (r == 0)
		r = varlink_buffer_next(&b, ret, error);
	varlink_buffer_clear(&b);
	return r;
}

static void assert_bad(const char *text, int line, int column)
{
	json_error_t error;
	json_t *message = NULL;

	assert_int_equal(parse(text, &message, &error), -EBADMSG);
	assert_null(message);
	assert_true(strlen(error.text) > 0);
	if (line > 0) {
		assert_int_equal(error.line, line);
		assert_int_equal(error.column, column);
	}
}

static void test_byte_by_byte(void **state)
{
	static const char text[] = "{\"method\":\"a.b.C\"}\0{\"n\":2}";
	struct varlink_buffer b = {0};
	json_t *message;
	int seen = 0;

	for (size_t i = 0; i < sizeof(text); i++) {
		assert_int_equal(varlink_buffer_append(&b, text + i, 1, LIMIT), 0);
		if (text[i] != '\0') {
			assert_int_equal(next(&b, &message), 0);
			continue;
		}
		assert_int_equal(next(&b, &message), 1);
		seen++;
		json_decref(message);
		assert_int_equal(next(&b, &message), 0);
	}
	assert_int_equal(seen, 2);
	varlink_buffer_clear(&b);
}

/* Whatever the pieces, the same messages come out, in order. */
static void test_random_pieces(void **state)
{
	enum { MESSAGES = 500 };
	struct varlink_buffer b = {0};
	char stream[MESSAGES * 80];
	size_t length = 0, sent = 0;
	unsigned seed = 1;
	int expected = 0;

	for (int i = 0; i < MESSAGES; i++)
		length += (size_t)sprintf(stream + length, "{\"i\":%d,\"pad\":\"%.*s\"}", i, i % 40,
					  "........................................") +
			  1;
	while (sent < length) {
		size_t piece = (size_t)rand_r(&seed) % 200;
		json_t *message;

		piece = piece < length - sent ? piece : length - sent;
		assert_int_equal(varlink_buffer_append(&b, stream + sent, piece, LIMIT), 0);
		sent += piece;
		/* Not always emptied at once, so that messages pile up too. */
		while (rand_r(&seed) % 3 && next(&b, &message) == 1) {
			json_t *i = json_object_get(message, "i");

			assert_int_equal(json_integer_value(i), expected++);
			json_decref(message);
		}
	}
	for (json_t *message; next(&b, &message) == 1; json_decref(message))
		assert_int_equal(json_integer_value(json_object_get(message, "i")), expected++);
	assert_int_equal(expected, MESSAGES);
	assert_int_equal(b.length, 0);
	varlink_buffer_clear(&b);
}

static void test_limit(void **state)
{
	struct varlink_buffer b = {0};
	char text[LIMIT + 2];
	json_t *message;

	memset(text, ' ', sizeof(text));
	memcpy(text, "{}", 2);
	text[LIMIT] = '\0';
	/* Exactly the limit, whole and in two pieces. */
	assert_int_equal(varlink_buffer_append(&b, text, LIMIT + 1, LIMIT), 0);
	assert_int_equal(varlink_buffer_append(&b, text, LIMIT, LIMIT), 0);
	assert_int_equal(varlink_buffer_append(&b, "", 1, LIMIT), 0);
	assert_int_equal(next(&b, &message), 1);
	json_decref(message);
	assert_int_equal(next(&b, &message), 1);
	json_decref(message);
	/* One more: unfinished, finished, and behind a good one. */
	assert_int_equal(varlink_buffer_append(&b, text, LIMIT, LIMIT), 0);
	assert_int_equal(varlink_buffer_append(&b, " ", 1, LIMIT), -EMSGSIZE);
	varlink_buffer_clear(&b);
	text[LIMIT] = ' ';
	text[LIMIT + 1] = '\0';
	assert_int_equal(varlink_buffer_append(&b, text, sizeof(text), LIMIT), -EMSGSIZE);
	assert_int_equal(varlink_buffer_append(&b, "{}\0{}", 6, 2), 0);
	assert_int_equal(varlink_buffer_append(&b, "{}\0{ }", 6, 2), -EMSGSIZE);
	varlink_buffer_clear(&b);
}

/* A sender of single bytes costs linear time: quadratic would take minutes here. */
static void test_slow_sender(void **state)
{
	enum { SIZE = 1024 * 1024 };
	struct varlink_buffer b = {0};
	json_t *message;

	assert_int_equal(varlink_buffer_append(&b, "{\"a\":\"", 6, SIZE), 0);
	for (int i = 0; i < SIZE - 10; i++) {
		assert_int_equal(varlink_buffer_append(&b, "x", 1, SIZE), 0);
		assert_int_equal(next(&b, &message), 0);
	}
	assert_int_equal(varlink_buffer_append(&b, "\"}", 3, SIZE), 0);
	assert_int_equal(next(&b, &message), 1);
	assert_int_equal(json_string_length(json_object_get(message, "a")), SIZE - 10);
	json_decref(message);
	assert_int_equal(b.allocated, 0); /* large memory does not stay */
	varlink_buffer_clear(&b);
}

static void nest(char *text, int depth)
{
	sprintf(text, "{\"a\":");
	for (int i = 1; i < depth; i++)
		strcat(text, "[");
	for (int i = 1; i < depth; i++)
		strcat(text, "]");
	strcat(text, "}");
}

static void test_depth(void **state)
{
	static char text[300 * 1024];
	json_t *message;

	nest(text, VARLINK_DEPTH_MAX);
	assert_int_equal(parse(text, &message, NULL), 1);
	json_decref(message);
	nest(text, VARLINK_DEPTH_MAX + 1);
	assert_bad(text, 1, 5 + VARLINK_DEPTH_MAX);
	/* Deep enough to overrun the stack of a parser that recurses first. */
	memset(text, '[', sizeof(text) - 1);
	assert_bad(text, 1, VARLINK_DEPTH_MAX + 1);
	/* Brackets in strings, and quotes in them, do not count. */
	strcpy(text, "{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\\\"}");
	assert_int_equal(parse(text, &message, NULL), 1);
	json_decref(message);
}

static void test_refused(void **state)
{
	assert_bad("", 0, 0);
	assert_bad("[]", 1, 1);
	assert_bad("[{}]", 1, 1);
	assert_bad("\"a\"", 0, 0);
	assert_bad("null", 0, 0);
	assert_bad("{} {}", 0, 0);
	assert_bad("{}x", 0, 0);
	assert_bad("{\"a\":1,\"a\":1}", 0, 0);
	assert_bad("{\"a\":{\"b\":1,\"b\":2}}", 0, 0);
	assert_bad("{\"a\":1,\"\\u0061\":2}", 0, 0);
	assert_bad("{\"a\":\"\\u0000\"}", 0, 0);
	assert_bad("{\"a\":\"\xff\"}", 0, 0);
	assert_bad("{\"a\":\"\xc0\x80\"}", 0, 0);
	assert_bad("{\"a\":\"\xed\xa0\x80\"}", 0, 0);
	assert_bad("{\"a\":01}", 0, 0);
	assert_bad("{\"a\":+1}", 0, 0);
	assert_bad("{\"a\":1,}", 0, 0);
	assert_bad("{'a':1}", 0, 0);
	assert_bad("{\"a\":NaN}", 0, 0);
	assert_bad("{\"a\":99999999999999999999}", 0, 0);
	assert_bad("{\"a\":1", 0, 0);
	assert_bad("{\n\"a\":\n]}", 3, 1);
}

/* A bad message is taken out: the one behind it is still there. */
static void test_goes_on_behind_bad(void **state)
{
	struct varlink_buffer b = {0};
	json_t *message;

	assert_int_equal(varlink_buffer_append(&b, "x\0{}", 5, LIMIT), 0);
	assert_int_equal(next(&b, &message), -EBADMSG);
	assert_int_equal(next(&b, &message), 1);
	json_decref(message);
	assert_int_equal(next(&b, &message), 0);
	varlink_buffer_clear(&b);
}

static void test_encode(void **state)
{
	static const char text[] = "{\"b\":[1,null,true,\"\\u0001\xc3\xa9\"],\"a\":{}}";
	json_t *message, *again;
	size_t length;
	char *encoded;

	assert_int_equal(parse(text, &message, NULL), 1);
	assert_int_equal(varlink_encode(message, &encoded, &length), 0);
	assert_int_equal(length, sizeof(text));
	assert_memory_equal(encoded, text, length);
	assert_int_equal(parse(encoded, &again, NULL), 1);
	assert_true(json_equal(message, again));
	json_decref(message);
	json_decref(again);
	free(encoded);
}

static void assert_text(const char *text, const char *expected)
{
	json_t *json = varlink_text(text);

	assert_string_equal(json_string_value(json), expected);
	json_decref(json);
}

static void test_text(void **state)
{
	assert_true(json_is_null(varlink_text(NULL)));
	assert_text("", "");
	assert_text("caf\xc3\xa9", "caf\xc3\xa9");
	assert_text("caf\xe9", "caf\xef\xbf\xbd");
	assert_text("\xff\xfe/\xf0\x9f\x98\x80\xf0\x9f", "\xef\xbf\xbd\xef\xbf\xbd/"
							 "\xf0\x9f\x98\x80"
							 "\xef\xbf\xbd\xef\xbf\xbd");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_random_pieces),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_slow_sender),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_goes_on_behind_bad),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests_name("varlink", tests, NULL, NULL);
}
