/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between config-read.c (files, lines) and config.c (statements); of no use to others. */
#pragma once

#include "shared/config.h"
#include "shared/scan.h"

struct config_file;

/* One line while it is read. */
struct config_line {
	struct config *config;
	const struct config_file *file;
	struct diag_place place; /* of its first byte */
	const char *source;	 /* "FILE:LINE" */
	struct scan scan;	 /* without the comment */
	struct scan_word keyword;
};

/* Reads the statement of a line, if there is one. 0, even when errors were added; or -ENOMEM. */
int config_read_statement(struct config_line *l);

/* Reads what an `include` names. 0, even when errors were added; or -ENOMEM. */
int config_include(struct config_line *l, const struct scan_word *pattern);

/* Copies a text that was read into config->texts. 0 or -ENOMEM. */
int config_keep_text(struct config *c, const char *name, const char *text, size_t length);
