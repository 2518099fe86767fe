/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line of redirectctl: a table of options, and what one command line says.
 *
 * Options stand before or after the verb and among its operands; a verb's own options win over
 * global ones of the same letter behind it (`-s SOCKET`, but `conntrack list -s SRC`). `--` ends
 * the options. The words `-`, `->…` and `-1` are never options: they belong to rules. Each of a
 * verb's own options may be given once; of global ones the last counts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "ctl/failure.h"

struct verb;

enum option_id {
	OPTION_JSON,
	OPTION_SOCKET,
	OPTION_DRY_RUN,
	OPTION_QUIET,
	OPTION_HELP,
	OPTION_VERSION,
	OPTION_OUTPUT,
	OPTION_PROTOCOL,
	OPTION_SRC,
	OPTION_DST,
	OPTION_SPORT,
	OPTION_DPORT,
	OPTION_STATE,
	OPTION_RULE,
	OPTION_MORE,
	OPTION_FILE,
	OPTION_REPLACE,
	OPTION_CONFIRM,
	OPTION_PACKETS,
	OPTION_FORMAT,
	OPTION_INTERVAL,
	OPTION_CONNECT,
	OPTION_COUNT,
};

/* Which verbs know an option: bits of struct verb.options; global ones belong to every verb. */
enum option_group {
	OPTIONS_GLOBAL = 0,
	OPTIONS_OUTPUT = 1 << 0,
	OPTIONS_FILTER = 1 << 1,
	OPTIONS_MORE = 1 << 2,
	OPTIONS_APPLY = 1 << 3,
	OPTIONS_MONITOR = 1 << 4,
	OPTIONS_IMPORT = 1 << 5,
	OPTIONS_TOP = 1 << 6,
	OPTIONS_DOCTOR = 1 << 7,
	OPTIONS_TUPLE = 1 << 8, /* the part of a filter that one flow has to itself */
};

struct option_info {
	enum option_group group;
	char letter;	      /* 0: none */
	const char *name;     /* without the dashes */
	const char *argument; /* NULL: takes none; "[=…]": may have one, behind `=` */
	const char *help;
};

extern const struct option_info option_table[OPTION_COUNT];

struct options {
	const struct verb *verb;	  /* NULL: none given */
	const char *values[OPTION_COUNT]; /* borrowed from argv; "" for an option that was given and
					     takes no argument; NULL: not given */
	const char **operands;		  /* owned array of borrowed words */
	size_t n_operands;
};

/*
 * Reads argv. Returns 0 or CTL_USAGE with the first error in `f`; what could be read (such as -j)
 * is in `ret` either way, and the caller clears it either way.
 */
int options_parse(int argc, char **argv, struct options *ret, struct failure *f);
void options_clear(struct options *o);

static inline bool options_has(const struct options *o, enum option_id id)
{
	return o->values[id] != NULL;
}

/* -s, else REDIRECTD_SOCKET, else the default of the system. */
const char *options_socket(const struct options *o);

/* What -o chooses; -j is `-o json`. */
enum output_format {
	OUTPUT_TABLE,
	OUTPUT_RULES,
	OUTPUT_JSON,
	OUTPUT_OPENMETRICS,
	OUTPUT_EXTENDED,
	OUTPUT_FORMAT_COUNT,
};

const char *options_format_name(enum output_format format);

/*
 * The format to print in; `formats` has the bit of each that the verb can print. CTL_USAGE for
 * others, and for -j beside another -o.
 */
enum exit_code options_output(const struct options *o, unsigned formats, enum output_format *ret,
			      struct failure *f);

/* The operands from `first` on joined by single spaces; the caller frees. Aborts out of memory. */
char *options_join(const struct options *o, size_t first);
