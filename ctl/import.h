/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules of other programs in our grammar. A reader for each format walks over its text and calls
 * import_take() for what redirects, import_skip() for what does not fit; this module writes the
 * rules, has each read back by rule_parse(), and keeps what is to be said about the rest.
 */
#pragma once

#include <jansson.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

#include "shared/cleanup.h"
#include "shared/rule.h"

#define IMPORT_LIST_MAX 64 /* prefixes, ranges or interfaces in one redirection */

struct import;

/* Where something stands in the text. */
struct import_place {
	unsigned line;	  /* 0: the format has no lines */
	const char *text; /* the line, or words that name the place; borrowed */
};

struct import_prefixes {
	struct ip_prefix list[IMPORT_LIST_MAX];
	size_t n;
};

/* One redirection in whatever words; zeroed means: any. */
struct import_redirect {
	unsigned protocols; /* of enum rule_protocol */
	struct import_prefixes listen, from;
	struct port_range ports[IMPORT_LIST_MAX];
	size_t n_ports;
	char interfaces[IMPORT_LIST_MAX][IF_NAMESIZE];
	size_t n_interfaces;
	struct ip_prefix target;	/* family 0: this host */
	struct port_range target_ports; /* first 0: unchanged */
	bool masquerade;
	struct ip_prefix snat; /* family 0: none */
};

/* Notes that are given once, for the first line that they are about. */
enum import_once {
	IMPORT_ONCE_TRANSIT,
	IMPORT_ONCE_LOOPBACK,
	IMPORT_ONCE_CONTAINER,
	IMPORT_ONCE_ZONE,
	IMPORT_ONCE_COUNT,
};

struct import *import_new(void);
struct import *import_free(struct import *i); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct import, import_free)

/* Writes the rules that a redirection is, or says why it is none. True: at least one. */
bool import_take(struct import *i, const struct import_place *p, const struct import_redirect *r);
/* Something that redirects, or exempts from it, is not taken. */
void import_skip(struct import *i, const struct import_place *p, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* It is taken, or need not be; but somebody should know. */
void import_note(struct import *i, const struct import_place *p, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void import_note_once(struct import *i, enum import_once which, const struct import_place *p,
		      const char *text);

/* Helpers of the readers: 0 or -EINVAL. */
int import_read_port(const char *text, struct port_range *ret); /* a service's name too */
int import_read_ports(const char *text, char dash, struct port_range *ret); /* N or N<dash>M */
int import_add_prefix(struct import_prefixes *p, const char *text);
int import_add_interface(struct import_redirect *r, const char *name);
int import_add_ports(struct import_redirect *r, const struct port_range *range);

/*
 * firewalld's forward port, in a zone of these interfaces and clients; texts may be NULL or empty
 * where they were left out.
 */
void import_take_forward_port(struct import *i, const struct import_place *p,
			      const struct import_redirect *zone, const char *port,
			      const char *protocol, const char *to_port, const char *to);

/* A format. `looks_like` tells whether a text is one; the first that says so reads it. */
struct import_format {
	const char *name;
	bool (*looks_like)(const char *text);
	/* 0, or -EINVAL when the whole text is not of the format: `import_skip` has said why. */
	int (*read)(struct import *i, char *text);
};
/* Ends with an entry without a name. */
extern const struct import_format import_formats[];

bool import_looks_like_rinetd(const char *text);
bool import_looks_like_nft(const char *text);
bool import_looks_like_iptables(const char *text);
bool import_looks_like_firewalld(const char *text);
bool import_looks_like_firewall_cmd(const char *text);
bool import_looks_like_docker(const char *text);
int import_read_rinetd(struct import *i, char *text);
int import_read_nft(struct import *i, char *text);
int import_read_iptables(struct import *i, char *text);
int import_read_firewalld(struct import *i, char *text);
int import_read_firewall_cmd(struct import *i, char *text);
int import_read_docker(struct import *i, char *text);

/* Puts what is to be said into the order of lines. */
void import_sort(struct import *i);
/* The rule of a number from 0; NULL: no more. */
const struct rule *import_rule(const struct import *i, size_t n);
/* What was found; `name` is that of the text in messages. */
void import_print_rules(const struct import *i, FILE *out);
void import_print_remarks(const struct import *i, const char *name, bool notes, FILE *out);
json_t *import_to_json(const struct import *i, const char *format);
bool import_is_complete(const struct import *i);
/* Has the text neither a rule nor anything that was not taken or is worth a word? */
bool import_is_empty(const struct import *i);
