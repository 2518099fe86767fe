/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replies that have flows: those of Conntrack, ConntrackGet and ConntrackDelete, read in place,
 * since there may be millions. Texts are borrowed from the reply, as they stand there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ctl/json-scan.h"

struct flow_end {
	struct json_text src, dst;
	uint64_t sport, dport, packets, bytes;
};

struct flow {
	struct json_text protocol, state;
	bool assured;
	struct flow_end original, reply;
	uint64_t expires_ms;
};

/* What is done with each; `flow` is NULL if only the text was asked for. False ends the reading. */
typedef bool flow_handler(void *userdata, const struct json_text *text, const struct flow *flow);

struct flow_reply {
	bool error;	    /* it is one, and has no flows */
	bool continues;	    /* another one follows */
	uint64_t n_deleted; /* so far; ConntrackDelete only */
};

/* Returns 0, or -EBADMSG where the reply is no such thing; flows before that have been handled. */
int flow_reply_read(const struct json_text *text, bool text_only, flow_handler *handler,
		    void *userdata, struct flow_reply *ret);
