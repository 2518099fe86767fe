/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/top-data.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/call.h"

#define ANSWER_TIME 3000 /* milliseconds: then the keys get their turn again */

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t number_of(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return must(strdup(text ? text : ""));
}

/* ---- rates ---- */

/* A daemon that was stopped begins at 0 again: nothing is known then. */
static double rate_of(uint64_t before, uint64_t now, double seconds)
{
	return seconds > 0 && now > before ? (double)(now - before) / seconds : 0;
}

/* Sets new counts; `seconds` since the old ones, 0: there are none. */
static void count(struct top_counts *c, uint64_t packets, uint64_t bytes, uint64_t flows,
		  double seconds)
{
	*c = (struct top_counts){
		.packets = packets,
		.bytes = bytes,
		.flows = flows,
		.packet_rate = rate_of(c->packets, packets, seconds),
		.byte_rate = rate_of(c->bytes, bytes, seconds),
		.flow_rate = rate_of(c->flows, flows, seconds),
	};
}

static void trend_add(struct top_trend *t, double value)
{
	if (t->n == TOP_HISTORY)
		memmove(t->values, t->values + 1, --t->n * sizeof(t->values[0]));
	t->values[t->n++] = (float)value;
}

/* ---- totals ---- */

static uint64_t sum_of(json_t *reasons)
{
	const char *reason;
	uint64_t sum = 0;
	json_t *value;

	json_object_foreach (reasons, reason, value)
		sum += (uint64_t)json_integer_value(value);
	return sum;
}

static void read_stats(struct top_data *d, const json_t *stats, double seconds)
{
	const json_t *flows = json_object_get(stats, "flows");
	uint64_t dropped = sum_of(json_object_get(stats, "drops"));
	uint64_t created = number_of(flows, "created");

	d->active = number_of(flows, "active");
	d->max = number_of(flows, "max");
	d->events_lost = number_of(stats, "events_lost");
	d->drop_rate = rate_of(d->dropped, dropped, seconds);
	d->dropped = dropped;
	count(&d->seen, number_of(stats, "packets"), number_of(stats, "bytes"), created, seconds);
	count(&d->redirected, number_of(stats, "redirected"), number_of(stats, "redirected_bytes"),
	      created, seconds);
	trend_add(&d->trend, d->redirected.byte_rate);
}

static void read_status(struct top_data *d, const json_t *status)
{
	free(d->version);
	d->version = text_of(status, "version");
	d->uptime_ms = number_of(status, "uptime_ms");
}

/* ---- rules ---- */

static void free_rules(struct top_rule *rules, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(rules[i].name);
		free(rules[i].text);
	}
	free(rules);
}

/* Both lists are in the order of ids. */
static void read_rules(struct top_data *d, const json_t *list, double seconds)
{
	const json_t *array = json_object_get(list, "rules");
	size_t n = json_array_size(array), old = 0;
	struct top_rule *rules = must(calloc(n + 1, sizeof(*rules)));

	for (size_t i = 0; i < n; i++) {
		const json_t *json = json_array_get(array, i);
		const json_t *counters = json_object_get(json, "counters");
		struct top_rule *r = &rules[i];
		bool known;

		r->id = (int64_t)number_of(json, "id");
		while (old < d->n_rules && d->rules[old].id < r->id)
			old++;
		known = old < d->n_rules && d->rules[old].id == r->id;
		if (known) {
			r->counts = d->rules[old].counts;
			r->trend = d->rules[old].trend;
			r->refused_rate = rate_of(d->rules[old].refused,
						  number_of(counters, "refused"), seconds);
		}
		r->name = text_of(json, "name");
		r->text = text_of(json, "rule");
		r->enabled = json_is_true(json_object_get(json, "enabled"));
		r->active = number_of(counters, "active");
		r->refused = number_of(counters, "refused");
		count(&r->counts, number_of(counters, "packets"), number_of(counters, "bytes"),
		      number_of(counters, "flows"), known ? seconds : 0);
		trend_add(&r->trend, r->counts.byte_rate);
	}
	free_rules(d->rules, d->n_rules);
	d->rules = rules;
	d->n_rules = n;
}

/* ---- flows ---- */

static void free_flows(struct top_flow *flows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(flows[i].key);
		free(flows[i].client);
		free(flows[i].listen);
		free(flows[i].target);
	}
	free(flows);
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(((const struct top_flow *)a)->key, ((const struct top_flow *)b)->key);
}

static char *endpoint(const json_t *tuple, const char *address, const char *port)
{
	const char *text = json_string_value(json_object_get(tuple, address));
	bool ipv6 = text && strchr(text, ':');
	char *ret;

	if (asprintf(&ret, "%s%s%s:%d", ipv6 ? "[" : "", text ? text : "?", ipv6 ? "]" : "",
		     (int)number_of(tuple, port)) < 0)
		abort();
	return ret;
}

static void read_flow(struct top_flow *f, const json_t *json)
{
	const json_t *original = json_object_get(json, "original");
	const json_t *reply = json_object_get(json, "reply");
	_cleanup_(freep) char *protocol = text_of(json, "protocol"),
			      *state = text_of(json, "state");

	*f = (struct top_flow){.rule = (int64_t)number_of(json, "rule")};
	snprintf(f->protocol, sizeof(f->protocol), "%s", protocol);
	snprintf(f->state, sizeof(f->state), "%s", state);
	f->client = endpoint(original, "src", "sport");
	f->listen = endpoint(original, "dst", "dport");
	f->target = endpoint(reply, "src", "sport");
	if (asprintf(&f->key, "%s %s %s", f->protocol, f->client, f->listen) < 0)
		abort();
	f->counts.packets = number_of(original, "packets") + number_of(reply, "packets");
	f->counts.bytes = number_of(original, "bytes") + number_of(reply, "bytes");
}

struct flow_list {
	struct top_flow *flows;
	size_t n;
	bool cut;
};

static void add_flows(struct flow_list *l, const json_t *part)
{
	const json_t *array = json_object_get(part, "flows");

	for (size_t i = 0; i < json_array_size(array); i++) {
		if (l->n == TOP_FLOWS_MOST) {
			l->cut = true;
			return;
		}
		read_flow(&l->flows[l->n++], json_array_get(array, i));
	}
}

static void take_flows(struct top_data *d, struct flow_list *l)
{
	uint64_t now = now_us();
	double seconds = d->flows_us ? (double)(now - d->flows_us) / 1e6 : 0;

	qsort(l->flows, l->n, sizeof(*l->flows), compare_keys);
	for (size_t i = 0; i < l->n; i++) {
		struct top_flow *f = &l->flows[i];
		const struct top_flow *old =
			d->n_flows ? bsearch(f, d->flows, d->n_flows, sizeof(*f), compare_keys)
				   : NULL;
		uint64_t packets = f->counts.packets, bytes = f->counts.bytes;

		if (old)
			f->counts = old->counts;
		count(&f->counts, packets, bytes, 0, old ? seconds : 0);
	}
	free_flows(d->flows, d->n_flows);
	d->flows = l->flows;
	d->n_flows = l->n;
	d->flows_cut = l->cut;
	d->flows_us = now;
}

/* The last thing on its connection, which is closed when there are too many. */
static enum exit_code sample_flows(struct top_data *d, struct client *c, int64_t rule,
				   struct failure *f)
{
	struct flow_list l = {.flows = must(calloc(TOP_FLOWS_MOST, sizeof(*l.flows)))};
	json_t *parameters = json_object(), *part;
	enum exit_code code;
	bool continues = true;
	char id[24];

	snprintf(id, sizeof(id), "%lld", (long long)rule);
	if (rule)
		json_object_set_new(parameters, "rule", json_string(id));
	code = client_send(c, "io.redirectd.Conntrack", parameters, true, f);
	while (code == CTL_DONE && continues && !l.cut) {
		part = NULL;
		code = client_receive(c, &part, &continues, f);
		add_flows(&l, part);
		json_decref(part);
	}
	json_decref(parameters);
	if (code == CTL_NOT_FOUND) { /* the rule is gone, and its last flow, too */
		failure_clear(f);
		code = CTL_DONE;
	}
	if (code == CTL_DONE)
		take_flows(d, &l);
	else
		free_flows(l.flows, l.n);
	return code;
}

/* ---- a sample ---- */

static enum exit_code sample_counters(struct top_data *d, struct client *c, struct failure *f)
{
	json_t *stats = NULL, *list = NULL, *status = NULL;
	enum exit_code code = client_ask(c, "io.redirectd.Stats", &stats, f);
	double seconds;
	uint64_t now;

	if (code == CTL_DONE)
		code = client_ask(c, "io.redirectd.List", &list, f);
	if (code == CTL_DONE)
		code = client_ask(c, "io.redirectd.Status", &status, f);
	if (code == CTL_DONE) {
		now = now_us();
		seconds = d->sampled ? (double)(now - d->sampled_us) / 1e6 : 0;
		read_stats(d, stats, seconds);
		read_rules(d, list, seconds);
		read_status(d, status);
		d->sampled_us = now;
		d->sampled = true;
	}
	json_decref(stats);
	json_decref(list);
	json_decref(status);
	return code;
}

bool top_data_sample(struct top_data *d, const char *socket, bool flows, int64_t rule)
{
	_cleanup_(client_freep) struct client *c = NULL;
	struct failure failure = {0};
	enum exit_code code = client_open(socket, &c, &failure);

	if (code == CTL_DONE) {
		client_set_timeout(c, ANSWER_TIME);
		code = sample_counters(d, c, &failure);
	}
	if (code == CTL_DONE && flows)
		code = sample_flows(d, c, rule, &failure);
	free(d->problem);
	d->problem = code == CTL_DONE ? NULL : must(strdup(failure.message));
	failure_clear(&failure);
	return code == CTL_DONE;
}

void top_data_clear(struct top_data *d)
{
	free(d->problem);
	free(d->version);
	free_rules(d->rules, d->n_rules);
	free_flows(d->flows, d->n_flows);
	*d = (struct top_data){0};
}
