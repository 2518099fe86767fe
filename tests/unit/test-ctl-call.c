/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's connection, over a real socket: what each way of failing becomes. The far side is
 * a child that sends given bytes and goes; the real daemon is met by the tests of tests/netns.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/call.h"

static char folder[] = "/tmp/test-ctl-call-XXXXXX";
static char path[64];

static int listen_at(const char *p)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", p);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

/* The far side: reads one request up to its NUL, answers with the bytes, goes. */
static void answer_and_exit(int listener, const char *answer, size_t length)
{
	int fd = accept(listener, NULL, NULL);
	char c = 'x';

	while (c != '\0' && read(fd, &c, 1) == 1)
		;
	while (length > 0) {
		ssize_t n = write(fd, answer, length);

		if (n <= 0)
			break;
		answer += n;
		length -= (size_t)n;
	}
	_exit(0);
}

/* Calls a far side that answers with the bytes. */
static enum exit_code call_with_answer(const char *answer, size_t length, json_t **ret,
				       struct failure *f)
{
	int listener = listen_at(path), status;
	enum exit_code code;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0)
		answer_and_exit(listener, answer, length);
	close(listener);
	code = client_call(path, "io.redirectd.Show", NULL, ret, f);
	assert_int_equal(waitpid(child, &status, 0), child);
	unlink(path);
	return code;
}

static void test_answers(void **state)
{
	static const struct {
		const char *answer;
		size_t length; /* 0: with the NUL */
		enum exit_code code;
		const char *message;
	} cases[] = {
		{"{\"parameters\":{\"id\":3}}", 0, CTL_DONE, NULL},
		{"{}", 0, CTL_DONE, NULL},
		{"", 0, CTL_FAILED, NULL},
		{"[]", 0, CTL_FAILED, NULL},
		{"{\"parameters\":{", 15, CTL_FAILED,
		 "the daemon went away in the middle of its answer: it is incomplete"},
		{"{\"error\":\"io.redirectd.NoSuchRule\",\"parameters\":{\"rule\":\"web\"}}", 0,
		 CTL_NOT_FOUND, "no rule \"web\""},
		{"{\"error\":\"io.redirectd.Failed\",\"parameters\":{\"message\":\"no room\"}}", 0,
		 CTL_FAILED, "no room"},
		{"{\"error\":\"io.redirectd.Failed\"}", 0, CTL_FAILED,
		 "the daemon answers with error io.redirectd.Failed"},
		{"{\"error\":\"org.varlink.service.PermissionDenied\"}", 0, CTL_DENIED, NULL},
		{"{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":"
		 "\"io.redirectd.X\"}}",
		 0, CTL_FAILED, "the daemon knows no method \"io.redirectd.X\""},
		{"{\"error\":\"org.example.Odd\",\"parameters\":{\"a\":1}}", 0, CTL_FAILED,
		 "the daemon answers with error org.example.Odd {\"a\": 1}"},
		{"{\"error\":7}", 0, CTL_FAILED, "the daemon answers with an unreadable error"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t length = cases[i].length ? cases[i].length : strlen(cases[i].answer) + 1;
		struct failure f = {0};
		json_t *answer = NULL;

		assert_int_equal(call_with_answer(cases[i].answer, length, &answer, &f),
				 cases[i].code);
		assert_int_equal(f.code, cases[i].code);
		if (cases[i].message)
			assert_string_equal(f.message, cases[i].message);
		if (cases[i].code == CTL_DONE)
			assert_true(json_is_object(answer));
		json_decref(answer);
		failure_clear(&f);
	}
}

static void test_no_answer(void **state)
{
	struct failure f = {0};
	json_t *answer = NULL;

	/* Zero bytes: call_with_answer() writes nothing and goes. */
	assert_int_equal(call_with_answer(NULL, 0, &answer, &f), CTL_FAILED);
	assert_string_equal(f.message, "the daemon closed the connection without an answer");
	assert_null(answer);
	failure_clear(&f);
}

/* Diagnostics of the daemon become a diag that prints as the client's own would. */
static void test_diagnostics(void **state)
{
	static const char answer[] =
		"{\"error\":\"io.redirectd.Conflict\",\"parameters\":{\"message\":\"in the way\","
		"\"diagnostics\":[{\"code\":\"conflict\",\"file\":null,\"line\":null,\"column\":5,"
		"\"width\":4,\"text\":\"tcp 8080 to 80\",\"message\":\"in the way\",\"hint\":null}"
		"]}}";
	struct failure f = {0};
	json_t *ret = NULL, *json;

	assert_int_equal(call_with_answer(answer, sizeof(answer), &ret, &f), CTL_CONFLICT);
	assert_int_equal(f.diag.n_items, 1);
	assert_int_equal(f.diag.items[0].column, 5);
	assert_int_equal(f.diag.items[0].code, DIAG_CONFLICT);
	json = failure_to_json(&f);
	assert_string_equal(json_string_value(json_object_get(json, "code")), "conflict");
	assert_string_equal(json_string_value(json_object_get(json, "message")), "in the way");
	assert_int_equal(json_array_size(json_object_get(json, "diagnostics")), 1);
	json_decref(json);
	failure_clear(&f);
}

static void expect_open(const char *p, enum exit_code code)
{
	struct failure f = {0};
	struct client *c = NULL;

	assert_int_equal(client_open(p, &c, &f), code);
	assert_null(c);
	failure_clear(&f);
}

static void test_no_daemon(void **state)
{
	char longer[200];
	int listener;
	FILE *file;

	expect_open(path, CTL_NO_DAEMON);
	expect_open("/dev/null/x", CTL_NO_DAEMON);
	listener = listen_at(path);
	close(listener);
	expect_open(path, CTL_NO_DAEMON); /* the socket of a dead daemon */
	unlink(path);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	expect_open(path, CTL_NO_DAEMON); /* no socket at all */
	unlink(path);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	expect_open(longer, CTL_USAGE);
}

static int setup(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/socket", folder);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_diagnostics),
		cmocka_unit_test(test_no_daemon),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
