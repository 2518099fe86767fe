/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules in force as the next daemon finds them: ids, texts, origins, what the configuration
 * says instead, and what a change that waits for its confirmation goes back to; all pinned with the
 * datapath.
 */
#pragma once

#include <jansson.h>

#include "daemon/changes.h"
#include "daemon/ruleset.h"

struct datapath;

/* What a former daemon left; empty for a fresh datapath. An entry that makes no sense is logged. */
int registry_load(struct datapath *d, struct ruleset **ret);
/*
 * Follows changes that were made, or with `back` are taken back: writes first, deletes last, so
 * that a daemon that dies in between loses no rule.
 */
int registry_change(struct datapath *d, const struct changes *c, bool back);

/* An entry as text, and back. */
int registry_entry_format(const struct ruleset_entry *e, char **ret);
int registry_entry_parse(uint32_t id, const char *text, struct ruleset_entry **ret);

/* A text beside the rules, under REGISTRY_UNDO or REGISTRY_DEADLINE; NULL: none from now on. */
int registry_write_json(struct datapath *d, uint32_t key, const json_t *json);
/* 1 and a new reference; 0: there is none, or one that was not written whole; or -ENOMEM. */
int registry_read_json(struct datapath *d, uint32_t key, json_t **ret);
