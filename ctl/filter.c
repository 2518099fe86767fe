/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filters of flows, checked here so that their errors need no daemon. */
#include "ctl/filter.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "ctl/options.h"
#include "ctl/verbs.h"
#include "shared/addr.h"
#include "shared/words.h"

static const char *const protocol_names[] = {"tcp", "udp"};
const char *const filter_states[FILTER_STATE_COUNT] = {
	"SYN_SENT",  "SYN_RECV", "ESTABLISHED", "FIN_WAIT",  "CLOSE_WAIT", "LAST_ACK",
	"TIME_WAIT", "CLOSE",	 "SYN_SENT2",	"UNREPLIED", "REPLIED",
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A word of a fixed set, in any letter case. */
static enum exit_code set_word(json_t *parameters, const char *key, const char *value,
			       const char *const *words, size_t n_words, struct failure *f)
{
	const char *closest;
	char known[128];
	size_t i;

	for (i = 0; i < n_words; i++)
		if (strcasecmp(words[i], value) == 0) {
			json_object_set_new(parameters, key, json_string(words[i]));
			return CTL_DONE;
		}
	closest = words_closest(value, strlen(value), words, n_words);
	failure_set(f, CTL_USAGE, "unknown %s \"%s\"%s%s%s", key, value,
		    closest ? "; did you mean \"" : "", closest ? closest : "",
		    closest ? "\"?" : "");
	failure_hint(f, "it is one of %s", words_join(words, n_words, ", ", known, sizeof(known)));
	return CTL_USAGE;
}

static enum exit_code set_protocol(json_t *parameters, const char *key, const char *value,
				   struct failure *f)
{
	return set_word(parameters, key, value, protocol_names, ARRAY_SIZE(protocol_names), f);
}

static enum exit_code set_state(json_t *parameters, const char *key, const char *value,
				struct failure *f)
{
	return set_word(parameters, key, value, filter_states, FILTER_STATE_COUNT, f);
}

static enum exit_code set_address(json_t *parameters, const char *key, const char *value,
				  struct failure *f)
{
	struct ip_prefix prefix;

	if (ip_prefix_parse(value, &prefix) < 0)
		return failure_set(f, CTL_USAGE, "--%s %s: not an address or prefix", key, value);
	json_object_set_new(parameters, key, json_string(value));
	return CTL_DONE;
}

static enum exit_code set_port(json_t *parameters, const char *key, const char *value,
			       struct failure *f)
{
	unsigned long port;
	char *end;

	errno = 0;
	port = strtoul(value, &end, 10);
	if (errno || !isdigit((unsigned char)*value) || *end || port < 1 || port > UINT16_MAX)
		return failure_set(f, CTL_USAGE, "--%s %s: not a port from 1 to 65535", key, value);
	json_object_set_new(parameters, key, json_integer((json_int_t)port));
	return CTL_DONE;
}

static enum exit_code set_rule(json_t *parameters, const char *key, const char *value,
			       struct failure *f)
{
	if (json_object_set_new(parameters, key, json_string(value)) < 0)
		return failure_set(f, CTL_USAGE, "--%s: the name is not UTF-8", key);
	return CTL_DONE;
}

static const struct {
	enum option_id option;
	const char *key;
	enum exit_code (*set)(json_t *parameters, const char *key, const char *value,
			      struct failure *f);
} filter_table[] = {
	{OPTION_PROTOCOL, "protocol", set_protocol},
	{OPTION_SRC, "src", set_address},
	{OPTION_DST, "dst", set_address},
	{OPTION_SPORT, "sport", set_port},
	{OPTION_DPORT, "dport", set_port},
	{OPTION_STATE, "state", set_state},
	{OPTION_RULE, "rule", set_rule},
};

static const char *family_name(const struct ip_prefix *p)
{
	return p->family == AF_INET ? "IPv4" : "IPv6";
}

/* No flow has addresses of both families: a list that is always empty would look like an answer. */
static enum exit_code check_families(const struct options *o, struct failure *f)
{
	const char *src = o->values[OPTION_SRC], *dst = o->values[OPTION_DST];
	struct ip_prefix a, b;

	if (!src || !dst || ip_prefix_parse(src, &a) < 0 || ip_prefix_parse(dst, &b) < 0 ||
	    a.family == b.family)
		return CTL_DONE;
	return failure_set(f, CTL_USAGE, "--src %s is %s, but --dst %s is %s: no flow has both",
			   src, family_name(&a), dst, family_name(&b));
}

enum exit_code filter_make(const struct options *o, json_t *parameters, struct failure *f)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(filter_table); i++) {
		const char *value = o->values[filter_table[i].option];

		if (value &&
		    filter_table[i].set(parameters, filter_table[i].key, value, f) != CTL_DONE)
			return f->code;
	}
	return check_families(o, f);
}

static enum exit_code refuse_prefix(const struct options *o, enum option_id id, struct failure *f)
{
	struct ip_prefix prefix;

	if (ip_prefix_parse(o->values[id], &prefix) == 0 && ip_prefix_is_host(&prefix))
		return CTL_DONE;
	return failure_set(f, CTL_USAGE, "--%s %s: one flow has an address, no prefix",
			   option_table[id].name, o->values[id]);
}

enum exit_code filter_make_tuple(const struct options *o, json_t *parameters, struct failure *f)
{
	static const enum option_id tuple_options[] = {OPTION_PROTOCOL, OPTION_SRC, OPTION_DST,
						       OPTION_SPORT, OPTION_DPORT};

	for (size_t i = 0; i < ARRAY_SIZE(tuple_options); i++)
		if (!options_has(o, tuple_options[i]))
			return failure_set(
				f, CTL_USAGE,
				"%s needs -p, -s, -d, --sport and --dport: --%s is missing",
				o->verb->name, option_table[tuple_options[i]].name);
	if (filter_make(o, parameters, f) != CTL_DONE)
		return f->code;
	if (refuse_prefix(o, OPTION_SRC, f) != CTL_DONE)
		return f->code;
	return refuse_prefix(o, OPTION_DST, f);
}
