/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Log lines as they leave the process: on a terminal or pipe, and on the journal's stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/log.h"

/* Logs into a pipe that stands in for stderr, named in JOURNAL_STREAM when `journal`. */
static void capture(int journal, char *buffer, size_t size)
{
	int fds[2], saved = dup(STDERR_FILENO);
	char stream[64];
	struct stat st;
	ssize_t n;

	assert_int_equal(pipe(fds), 0);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino + !journal);
	setenv("JOURNAL_STREAM", stream, 1);

	log_open("redirectd");
	log_error("one %d", 1);
	log_info("two\nthree\n");
	log_write(LOG_DAEMON | LOG_WARNING, "four");

	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	n = read(fds[0], buffer, size - 1);
	close(fds[0]);
	assert_true(n > 0);
	buffer[n] = '\0';
}

static void test_plain(void **state)
{
	char buffer[256];

	capture(0, buffer, sizeof(buffer));
	assert_string_equal(
		buffer, "redirectd: one 1\nredirectd: two\nredirectd: three\nredirectd: four\n");
}

static void test_journal(void **state)
{
	char buffer[256];

	capture(1, buffer, sizeof(buffer));
	assert_string_equal(buffer, "<3>one 1\n<6>two\n<6>three\n<4>four\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
