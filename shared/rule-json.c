/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules and diagnostics as JSON: see rule-json.h. Relies on jansson, whose json_pack() takes over
 * every reference passed with `o` also when it fails.
 */
#include "shared/rule-json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/cleanup.h"
#include "shared/timeout.h"
#include "shared/varlink.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

json_t *rule_json_counter(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

/* "192.0.2.1", "2001:db8::/64" without brackets; null for "no address". */
static json_t *address_pack(const struct ip_prefix *p)
{
	char address[IP_PREFIX_STRLEN], text[IP_PREFIX_STRLEN + 8];

	if (p->family == 0)
		return json_null();
	ip_address_format(p, address);
	if (ip_prefix_is_host(p))
		return json_string(address);
	snprintf(text, sizeof(text), "%s/%u", address, p->length);
	return json_string(text);
}

static json_t *ports_pack(const struct port_range *p)
{
	return json_pack("[i,i]", p->first, p->last);
}

static json_t *listen_address_pack(const struct rule *r)
{
	switch (r->listen) {
	case RULE_LISTEN_LOCAL:
		return json_null();
	case RULE_LISTEN_PREFIX:
		return address_pack(&r->listen_prefix);
	case RULE_LISTEN_ANY:
		return json_string("*");
	}
	return NULL;
}

static const char *protocol_name(unsigned protocols)
{
	switch (protocols) {
	case RULE_TCP:
		return "tcp";
	case RULE_UDP:
		return "udp";
	}
	return "tcp+udp";
}

/* Appends and takes over `item`; with NULL for either the array is given up. */
static json_t *array_add(json_t *array, json_t *item)
{
	if (array && item && json_array_append_new(array, item) == 0)
		return array;
	if (!array)
		json_decref(item);
	json_decref(array);
	return NULL;
}

static json_t *counters_pack(const struct rule_json_counters *c)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "packets", rule_json_counter(c->packets), "bytes",
			 rule_json_counter(c->bytes), "flows", rule_json_counter(c->flows),
			 "active", rule_json_counter(c->active));
}

static json_t *targets_pack(const struct rule *r, const struct rule_json_counters *counters)
{
	json_t *array = json_array();

	for (size_t i = 0; i < r->n_targets && array; i++) {
		const struct rule_target *t = &r->targets[i];

		array = array_add(array,
				  json_pack("{s:o, s:o, s:I, s:o}", "address",
					    address_pack(&t->address), "ports",
					    ports_pack(&t->ports), "weight", (json_int_t)t->weight,
					    "counters", counters_pack(&counters[i])));
	}
	return array;
}

static json_t *interfaces_pack(const struct rule *r)
{
	json_t *array = json_array();

	for (size_t i = 0; i < r->n_interfaces && array; i++)
		array = array_add(array, varlink_text(r->interfaces[i]));
	return array;
}

static json_t *from_pack(const struct rule *r)
{
	json_t *array = json_array();

	for (size_t i = 0; i < r->n_from && array; i++)
		array = array_add(array, address_pack(&r->from[i]));
	return array;
}

static json_t *rate_pack(const struct rule_limit *l)
{
	if (!l->rate)
		return json_null();
	return json_pack("{s:I, s:I, s:I}", "flows", (json_int_t)l->rate, "seconds",
			 (json_int_t)l->rate_seconds, "burst", (json_int_t)rule_limit_burst(l));
}

/* null: no limit */
static json_t *limit_pack(const struct rule_limit *l)
{
	if (!l->max_flows && !l->rate)
		return json_null();
	return json_pack("{s:o, s:o}", "max_flows",
			 l->max_flows ? json_integer(l->max_flows) : json_null(), "rate",
			 rate_pack(l));
}

static json_t *timeouts_pack(const struct rule *r)
{
	struct timeout_setting settings[TIMEOUT_NAMES];
	size_t n = timeout_list(r->timeouts, settings);
	json_t *object = json_object();

	for (size_t i = 0; i < n && object; i++) {
		if (json_object_set_new(object, settings[i].name->name,
					json_integer(settings[i].seconds)) == 0)
			continue;
		json_decref(object);
		object = NULL;
	}
	return object;
}

static json_t *on_change_pack(const struct rule *r)
{
	static const char *const policies[] = {
		[RULE_ON_CHANGE_KEEP] = "keep",
		[RULE_ON_CHANGE_DRAIN] = "drain",
		[RULE_ON_CHANGE_RESET] = "reset",
	};

	return json_pack("{s:s, s:o}", "policy", policies[r->on_change], "drain_seconds",
			 r->on_change == RULE_ON_CHANGE_DRAIN ? json_integer(r->drain_seconds)
							      : json_null());
}

/* A rule's text; null for none. */
static json_t *text_pack(const struct rule *r)
{
	_cleanup_(freep) char *text = NULL;

	if (!r)
		return json_null();
	return rule_format(r, &text) < 0 ? NULL : varlink_text(text);
}

int rule_json_pack(const struct rule *r, const struct rule_json_entry *e, json_t **ret)
{
	json_t *json, *counters = counters_pack(&e->counters);

	if (counters &&
	    json_object_set_new(counters, "refused", rule_json_counter(e->refused)) < 0) {
		json_decref(counters);
		counters = NULL;
	}
	json = json_pack("{s:I, s:o, s:o, s:s, s:o, s:{s:o, s:o}, s:o, s:o, s:{s:o, s:o}, s:o, s:o,"
			 " s:s, s:o, s:o, s:b, s:o}",
			 "id", (json_int_t)e->id, "name", varlink_text(r->name[0] ? r->name : NULL),
			 "rule", text_pack(r), "protocol", protocol_name(r->protocols),
			 "interfaces", interfaces_pack(r), "listen", "address",
			 listen_address_pack(r), "ports", ports_pack(&r->ports), "targets",
			 targets_pack(r, e->targets), "from", from_pack(r), "limits", "rule",
			 limit_pack(&r->limits[RULE_LIMIT_ALL]), "source",
			 limit_pack(&r->limits[RULE_LIMIT_SOURCE]), "timeouts", timeouts_pack(r),
			 "on_change", on_change_pack(r), "origin", e->origin, "source",
			 varlink_text(e->source), "configured", text_pack(e->configured), "enabled",
			 !r->disabled, "counters", counters);
	if (!json)
		return -ENOMEM;
	*ret = json;
	return 0;
}

/* By enum diag_code. */
static const char *const code_names[] = {
	[DIAG_INVALID] = "invalid",
	[DIAG_CONFLICT] = "conflict",
	[DIAG_FAILED] = "failed",
};

/* Lines, columns and widths: 0 means that there is none. */
static json_t *number_pack(unsigned value)
{
	return value ? json_integer(value) : json_null();
}

int rule_json_pack_diag(const struct diag *d, json_t **ret)
{
	json_t *array = json_array();

	for (size_t i = 0; i < d->n_items && array; i++) {
		const struct diag_item *item = &d->items[i];

		array = array_add(
			array,
			json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "code",
				  code_names[item->code], "file", varlink_text(item->file), "line",
				  number_pack(item->line), "column", number_pack(item->column),
				  "width", number_pack(item->width), "text",
				  varlink_text(item->text), "message", varlink_text(item->message),
				  "hint", varlink_text(item->hint)));
	}
	if (!array)
		return -ENOMEM;
	*ret = array;
	return 0;
}

/* A member that may be missing or null; false when it is something else than a string. */
static bool string_member(const json_t *object, const char *key, const char **ret)
{
	const json_t *value = json_object_get(object, key);

	if (value && !json_is_null(value) && !json_is_string(value))
		return false;
	*ret = json_string_value(value);
	return true;
}

static bool number_member(const json_t *object, const char *key, unsigned *ret)
{
	const json_t *value = json_object_get(object, key);
	json_int_t number = json_integer_value(value);

	if (value && !json_is_null(value) && !json_is_integer(value))
		return false;
	if (number < 0 || number > INT32_MAX)
		return false;
	*ret = (unsigned)number;
	return true;
}

static bool code_member(const json_t *object, enum diag_code *ret)
{
	const char *name = json_string_value(json_object_get(object, "code"));

	for (size_t i = 0; name && i < ARRAY_SIZE(code_names); i++) {
		if (strcmp(name, code_names[i]) != 0)
			continue;
		*ret = (enum diag_code)i;
		return true;
	}
	return false;
}

int rule_json_unpack_diag(const json_t *array, struct diag *d)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(array))
		return -EBADMSG;
	json_array_foreach (array, i, item) {
		struct diag_place place = {0};
		const char *message, *hint;
		enum diag_code code;

		if (!code_member(item, &code) || !string_member(item, "file", &place.file) ||
		    !number_member(item, "line", &place.line) ||
		    !number_member(item, "column", &place.column) ||
		    !number_member(item, "width", &place.width) ||
		    !string_member(item, "text", &place.text) ||
		    !string_member(item, "message", &message) || !message ||
		    !string_member(item, "hint", &hint))
			return -EBADMSG;
		diag_add(d, code, &place, hint, "%s", message);
	}
	return 0;
}
