/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Replies that have flows, as tables of members: see flow-reply.h. */
#include "ctl/flow-reply.h"

#include <errno.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define ALL_OF(table) ((1U << ARRAY_SIZE(table)) - 1)

static const struct json_member end_members[] = {
	JSON_MEMBER("src", json_scan_string, struct flow_end, src),
	JSON_MEMBER("sport", json_scan_number, struct flow_end, sport),
	JSON_MEMBER("dst", json_scan_string, struct flow_end, dst),
	JSON_MEMBER("dport", json_scan_number, struct flow_end, dport),
	JSON_MEMBER("packets", json_scan_number, struct flow_end, packets),
	JSON_MEMBER("bytes", json_scan_number, struct flow_end, bytes),
};

static bool read_end(struct json_scan *s, void *to)
{
	unsigned seen;

	return json_scan_object(s, end_members, ARRAY_SIZE(end_members), to, &seen) &&
	       seen == ALL_OF(end_members);
}

static const struct json_member flow_members[] = {
	JSON_MEMBER("protocol", json_scan_string, struct flow, protocol),
	JSON_MEMBER("state", json_scan_string, struct flow, state),
	JSON_MEMBER("assured", json_scan_bool, struct flow, assured),
	JSON_MEMBER("original", read_end, struct flow, original),
	JSON_MEMBER("reply", read_end, struct flow, reply),
	JSON_MEMBER("expires_ms", json_scan_number, struct flow, expires_ms),
};

/* A reply that is being read, and what is done with its flows. */
struct reading {
	struct flow_reply *reply;
	bool text_only;
	flow_handler *handler;
	void *userdata;
};

static bool read_flow(struct json_scan *s, void *userdata)
{
	const struct reading *r = userdata;
	struct json_text text = {.at = s->at};
	struct flow flow;
	unsigned seen;

	if (r->text_only)
		return json_scan_any(s, &text) && r->handler(r->userdata, &text, NULL);
	if (!json_scan_object(s, flow_members, ARRAY_SIZE(flow_members), &flow, &seen) ||
	    seen != ALL_OF(flow_members))
		return false;
	text.length = (size_t)(s->at - text.at);
	return r->handler(r->userdata, &text, &flow);
}

static bool read_flows(struct json_scan *s, void *to)
{
	return json_scan_array(s, read_flow, to);
}

static bool read_deleted(struct json_scan *s, void *to)
{
	return json_scan_number(s, &((struct reading *)to)->reply->n_deleted);
}

static bool read_parameters(struct json_scan *s, void *to)
{
	static const struct json_member members[] = {
		{{"flows", 5}, read_flows, 0},
		{{"flow", 4}, read_flow, 0},
		{{"deleted", 7}, read_deleted, 0},
	};
	unsigned seen;

	return json_scan_object(s, members, ARRAY_SIZE(members), to, &seen);
}

static bool read_continues(struct json_scan *s, void *to)
{
	return json_scan_bool(s, &((struct reading *)to)->reply->continues);
}

/* Whoever meets one reads the whole message in another way. */
static bool read_error(struct json_scan *s, void *to)
{
	((struct reading *)to)->reply->error = true;
	return json_scan_any(s, &(struct json_text){.at = NULL});
}

int flow_reply_read(const struct json_text *text, bool text_only, flow_handler *handler,
		    void *userdata, struct flow_reply *ret)
{
	static const struct json_member members[] = {
		{{"parameters", 10}, read_parameters, 0},
		{{"continues", 9}, read_continues, 0},
		{{"error", 5}, read_error, 0},
	};
	struct reading reading = {ret, text_only, handler, userdata};
	struct json_scan s = {text->at, text->at + text->length};
	unsigned seen;

	*ret = (struct flow_reply){.error = false};
	return json_scan_object(&s, members, ARRAY_SIZE(members), &reading, &seen) &&
			       json_scan_end(&s)
		       ? 0
		       : -EBADMSG;
}
