/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Varlink (varlink.org) without the transport: messages, framing, limits. Both ends use it.
 *
 * A message is one JSON object followed by a NUL byte. Calls: {"method","parameters","more",
 * "oneway","upgrade"}; replies: {"parameters","continues"} or {"error","parameters"}.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "shared/cleanup.h"

#define VARLINK_DEPTH_MAX 32 /* nesting of a request (contract) */

/* Collects bytes from a stream and hands out one complete message at a time. */
struct varlink_buffer {
	char *data; /* owned */
	size_t length, allocated;
	size_t begin;	/* bytes before it have been handed out; [begin, length) waits */
	size_t scanned; /* bytes from `begin` known to hold no NUL, so that a slow sender costs
			 * O(n) in total */
	size_t tail;	/* bytes behind the last NUL: the unfinished message */
	size_t lent;	/* bytes from `begin` that varlink_buffer_next_text() gave out last */
};

void varlink_buffer_clear(struct varlink_buffer *b);
/*
 * Appends; -EMSGSIZE when a message, finished or not, is longer than `limit` bytes without its
 * NUL (nothing is appended then); -ENOMEM.
 */
int varlink_buffer_append(struct varlink_buffer *b, const void *data, size_t length, size_t limit);
/*
 * Takes the first complete message out of the buffer. Returns 1 and a new reference in *ret; 0
 * when none is complete; -EBADMSG for anything that is not one JSON object within the depth limit,
 * without duplicate keys and without trailing bytes (RFC 8259); `error` (may be NULL) then says
 * what and where. A bad message is taken out too.
 */
int varlink_buffer_next(struct varlink_buffer *b, json_t **ret, json_error_t *error);

/*
 * The same, but the message's bytes, without the NUL and not looked at: for those who know what
 * they look like. *ret is borrowed until the next call with this buffer.
 */
int varlink_buffer_next_text(struct varlink_buffer *b, const char **ret, size_t *ret_length);

/* Does the unfinished message begin with this method? Only as the first member it is seen. */
bool varlink_buffer_tail_calls(const struct varlink_buffer *b, const char *method);

/* Text of a message with its NUL; *ret_length counts the NUL. The caller frees. 0 or -ENOMEM. */
int varlink_encode(const json_t *message, char **ret, size_t *ret_length);

/*
 * A JSON string of a text whose encoding nobody vouches for (file names, lines of a file with an
 * error, interface names): every byte that is not part of valid UTF-8 becomes U+FFFD. NULL
 * becomes null. Returns NULL when out of memory.
 */
json_t *varlink_text(const char *text);
