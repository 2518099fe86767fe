/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules in force as the next daemon finds them: ids, texts, origins, pinned with the datapath.
 */
#pragma once

#include "daemon/ruleset.h"

struct datapath;

/* What a former daemon left; empty for a fresh datapath. An entry that makes no sense is logged. */
int registry_load(struct datapath *d, struct ruleset **ret);
/*
 * Makes the registry hold `after` where it held `before`: writes first, deletes last, so that a
 * daemon that dies in between loses no rule.
 */
int registry_update(struct datapath *d, const struct ruleset *before, const struct ruleset *after);
