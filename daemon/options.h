/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of redirectd(8). */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

#include "daemon/attach.h"
#include "shared/config.h"
#include "shared/diag.h"

#define DEFAULT_CONFIG "/etc/redirectd/redirectd.conf"
#define DEFAULT_SOCKET "/run/redirectd/io.redirectd"
#define DEFAULT_PINS   "/sys/fs/bpf/redirectd"

struct options {
	const char *config_path; /* NULL: none is read */
	const char *socket_path, *pin_path;
	const char **interfaces; /* -i; owned array of borrowed strings */
	size_t n_interfaces;
	const char **rules; /* -r */
	size_t n_rules;
	enum attach_hook hook;
	int verbosity;
	bool check_only;
};

/* Returns -1 to go on, else the exit code to end with. Prints help, version and usage errors. */
int options_parse(struct options *o, int argc, char **argv);
void options_clear(struct options *o);

/*
 * The configuration that these options ask for: the file, -r and -i, checked completely. 0, or
 * -EINVAL, -ENOENT, -ENOMEM with the errors in diag.
 */
int options_read_config(const struct options *o, struct config **ret, struct diag *diag);
