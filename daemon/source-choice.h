/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of the host's addresses a masqueraded packet gets: from a list of addresses to the entries
 * of the datapath's map `sources`. The kernel's own choice where it masquerades.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "shared/abi.h"
#include "shared/addr.h"

/* An address of an interface, as the kernel lists them: of one interface in its own order. */
struct source_address {
	uint32_t ifindex;
	struct ip_prefix address;
	struct ip_prefix subnet; /* its neighbours; of a point-to-point link, the peer */
	uint32_t flags;		 /* IFA_F_* */
	uint8_t scope;		 /* RT_SCOPE_* */
};

struct source_entry {
	struct source_key key;
	struct source_value value;
};

/*
 * The entries for these addresses, each key once, ordered as source_entry_compare() has it; the
 * caller frees the array. Returns 0 or -ENOMEM.
 */
int source_choice(const struct source_address *addresses, size_t n, struct source_entry **ret,
		  size_t *ret_n);

int source_entry_compare(const void *a, const void *b); /* by key; for qsort() and bsearch() */
