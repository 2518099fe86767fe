/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection's inside: client.c moves bytes, error.c keeps what went wrong. */
#pragma once

#include <stdbool.h>

#include "lib/redirectd.h"
#include "shared/varlink.h"

#define CLIENT_PUBLIC __attribute__((visibility("default")))

struct redirectd {
	int fd;
	struct varlink_buffer buffer;
	bool answered;	  /* at least one answer to the call in progress has come */
	unsigned timeout; /* milliseconds */

	/* The last failure. */
	char *message;	    /* owned */
	const char *hint;   /* static */
	char *error_name;   /* owned */
	json_t *parameters; /* owned */
};

/* Forgets the last failure. */
void client_clear_error(struct redirectd *r);
enum redirectd_code client_fail(struct redirectd *r, enum redirectd_code code, const char *format,
				...) __attribute__((format(printf, 3, 4)));
