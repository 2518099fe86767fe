/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Log lines to stderr, each in one write(2) so that lines of several processes do not mix. */
#include "shared/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/cleanup.h"

static const char *log_program = "redirectd";
static bool log_to_journal;

/* Is stderr the stream that systemd named to us (systemd.exec(5), JOURNAL_STREAM)? */
static bool log_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_open(const char *program)
{
	log_program = program;
	log_to_journal = log_is_journal();
}

static void log_write_line(int priority, const char *line, size_t length)
{
	_cleanup_(freep) char *text = NULL;
	int n;

	if (log_to_journal)
		n = asprintf(&text, "<%d>%.*s\n", LOG_PRI(priority), (int)length, line);
	else
		n = asprintf(&text, "%s: %.*s\n", log_program, (int)length, line);
	if (n < 0) {
		text = NULL;
		return;
	}
	/* A log that nobody reads must not stop the daemon: the result does not matter. */
	if (write(STDERR_FILENO, text, (size_t)n) < 0)
		return;
}

void log_write(int priority, const char *format, ...)
{
	_cleanup_(freep) char *message = NULL;
	const char *line;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vasprintf(&message, format, ap);
	va_end(ap);
	if (n < 0) {
		message = NULL;
		return;
	}
	/* Several lines, such as those of diag_print(): each gets its own prefix. */
	for (line = message; *line;) {
		size_t length = strcspn(line, "\n");

		log_write_line(priority, line, length);
		line += length + (line[length] == '\n');
	}
}
