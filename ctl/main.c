/* SPDX-License-Identifier: GPL-2.0-or-later */
/* redirectctl: reads the command line, runs the verb, prints what failed. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl/failure.h"
#include "ctl/options.h"
#include "ctl/verbs.h"

static enum exit_code run(const struct options *o, struct failure *f)
{
	if (options_has(o, OPTION_HELP)) {
		if (!o->verb && o->n_operands == 1 && verb_is_group(o->operands[0]))
			verb_print_group_help(o->operands[0], stdout);
		else
			verb_print_help(o->verb, stdout);
		return CTL_DONE;
	}
	if (options_has(o, OPTION_VERSION)) {
		puts("redirectctl " REDIRECTD_VERSION);
		return CTL_DONE;
	}
	return o->verb->handler(o, f);
}

static bool reader_is_gone(void)
{
	struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

/* A reader that went away (`list | head`) is no failure; a full disk is. */
static enum exit_code finish_output(enum exit_code code)
{
	bool failed = ferror(stdout) != 0;

	errno = 0;
	if (fflush(stdout) == 0 && !failed)
		return code;
	if (errno == EPIPE || reader_is_gone())
		return code;
	fprintf(stderr, "redirectctl: cannot write the output: %s\n",
		errno ? strerror(errno) : "the first part was refused");
	return code == CTL_DONE ? CTL_FAILED : code;
}

/* Closed standard streams would give their numbers to the socket, and output would go there. */
static void hold_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	struct failure failure = {0};
	struct options options;
	enum exit_code code;

	hold_standard_streams();
	setlocale(LC_CTYPE, "");
	signal(SIGPIPE, SIG_IGN);
	code = (enum exit_code)options_parse(argc, argv, &options, &failure);
	if (code == CTL_DONE)
		code = run(&options, &failure);
	if (code != CTL_DONE)
		failure_print(&failure, options_has(&options, OPTION_JSON));
	code = finish_output(code);
	options_clear(&options);
	failure_clear(&failure);
	return (int)code;
}
