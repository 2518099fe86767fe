// SPDX-License-Identifier: GPL-2.0-or-later
/* redirectd: options, signals, configuration, then the manager runs until a signal ends it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/manager.h"
#include "daemon/options.h"
#include "shared/log.h"

#define EXIT_CONFIG 6

/* Signals come through the event loop; those that arrive before it runs wait for it. */
static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int read_config(const struct options *options, struct config **ret)
{
	struct diag diag = {0};
	int r = options_read_config(options, ret, &diag);
	int exit_code = 0;

	if (r < 0) {
		diag_print(&diag, stderr, "redirectd");
		if (options->check_only)
			exit_code = EXIT_CONFIG;
		else
			exit_code = diag.n_items > 0 ? diag_exit_code(&diag) : 1;
	}
	diag_clear(&diag);
	return exit_code;
}

static int run(const struct options *options)
{
	_cleanup_(manager_freep) struct manager *manager = NULL;
	struct config *config = NULL;
	int exit_code = read_config(options, &config);

	if (exit_code)
		return exit_code;
	if (options->check_only) {
		printf("%zu rule%s, no errors\n", config->n_rules, config->n_rules == 1 ? "" : "s");
		config_free(config);
		return 0;
	}
	if (manager_new(options, config, &manager) < 0)
		return 1;
	return manager_run(manager);
}

int main(int argc, char **argv)
{
	struct options options;
	int exit_code;

	log_open("redirectd");
	block_signals();
	exit_code = options_parse(&options, argc, argv);
	if (exit_code < 0)
		exit_code = run(&options);
	options_clear(&options);
	return exit_code;
}
