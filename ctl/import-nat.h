/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chains of NAT rules, of iptables or of nftables: which packets get to a rule, over jumps from
 * chain to chain, and what that is in our rules.
 */
#pragma once

#include "ctl/import.h"

enum nat_hook {
	NAT_HOOK_NONE, /* reached by jumps only */
	NAT_HOOK_PREROUTING,
	NAT_HOOK_OUTPUT,
	NAT_HOOK_POSTROUTING,
};

enum nat_verdict {
	NAT_OTHER,     /* counts, marks, logs: the packet goes on */
	NAT_EXCEPTION, /* accept, return, drop */
	NAT_JUMP,
	NAT_REDIRECT, /* to this host or another */
	NAT_SOURCE,   /* masquerade or snat */
};

struct nat_rule {
	struct import_place place; /* the text is owned */
	size_t chain;		   /* number */
	enum nat_verdict verdict;
	char *jump;		      /* name of the chain; owned */
	struct import_redirect match; /* what it is limited to, and where it sends */
	bool local;		      /* only to addresses of this host */
	char out[IF_NAMESIZE];	      /* only to this interface; empty: any */
	char *problem;		      /* why it cannot be taken; owned; NULL: none */
	char *broader; /* a limit that is left out: the rule takes more; owned; NULL: none */
	char *why;     /* the same of a way that leads to it; owned */
	bool reached;  /* by packets that might be redirected */
	bool done;     /* taken */
};

struct nat_chain {
	char *name; /* owned; unique */
	enum nat_hook hook;
};

struct nat {
	struct nat_chain *chains;
	size_t n_chains;
	struct nat_rule *rules; /* in their order */
	size_t n_rules;
};

/* The chain's number; it is made when there is none of that name. */
size_t nat_chain(struct nat *n, const char *name);
/* A new rule at the end; valid until the next one. */
struct nat_rule *nat_add_rule(struct nat *n, size_t chain, unsigned line, const char *text);
/* Keeps the first one. */
void nat_set_problem(struct nat_rule *r, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void nat_set_broader(struct nat_rule *r, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Walks over all of it, takes what can be taken, and speaks about the rest. */
void nat_take(struct nat *n, struct import *i);
void nat_clear(struct nat *n);
