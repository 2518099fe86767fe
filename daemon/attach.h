/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attachments of the programs to interfaces: TCX links where the kernel has them (6.6), clsact
 * filters elsewhere. Both outlive the daemon: links are pinned below PINS/links/, filters belong
 * to the qdisc. What others have put on the hooks stays and still runs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"

struct attach;
struct datapath;

enum attach_hook {
	ATTACH_AUTO, /* by probing */
	ATTACH_TCX,
	ATTACH_CLSACT,
};

struct attach_entry {
	uint32_t ifindex;
	enum attach_hook hook;
	bool ethernet;
};

/* Finds out which hook works. -EOPNOTSUPP: the one that was asked for does not. */
int attach_new(struct datapath *d, enum attach_hook hook, struct attach **ret);
struct attach *attach_free(struct attach *a); /* leaves every attachment in place */
DEFINE_CLEANUP(struct attach, attach_free)

/*
 * Attaches both directions, or points what a former daemon attached at this one's programs, without
 * a moment between. `ethernet`: its packets begin with an Ethernet header. Doing it again is
 * harmless. -ENODEV: the interface has gone. -EEXIST: another program's qdisc "ingress" is in
 * the place of clsact.
 */
int attach_interface(struct attach *a, uint32_t ifindex, bool ethernet);
/* Points all of them at the datapath's programs, which are others than before. */
int attach_renew(struct attach *a);
/* The interface has gone: forgets it and removes its pins. */
void attach_forget(struct attach *a, uint32_t ifindex);
/* Removes every attachment, and a clsact qdisc if it is ours and nobody uses it. */
void attach_remove_all(struct attach *a);

/* Which programs the kernel has on a hook. */
struct attach_look {
	bool ours;
	bool foreign_qdisc;  /* a qdisc "ingress" in the place of clsact */
	uint32_t n_in_front; /* programs and filters of others that run before ours */
	char first[64];	     /* one of them, in words */
};
int attach_look(const struct attach *a, uint32_t ifindex, bool incoming, struct attach_look *ret);

/* Is the datapath at an interface, for all that is quickly told? attach_look() looks closer. */
bool attach_is_at(const struct attach *a, uint32_t ifindex);

const struct attach_entry *attach_entries(const struct attach *a, size_t *ret_n);
const char *attach_hook_name(enum attach_hook hook);
