// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/resize.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/attach.h"
#include "daemon/datapath.h"
#include "daemon/flows.h"
#include "shared/log.h"

#define SOON_USEC	 1000
#define LOAD_USEC	 (10 * 1000)
#define LATER_USEC	 (1000 * 1000)
#define RECORDS_PER_TURN 8192	       /* some 10 ms, when each holds a flow */
#define HOLD_NS		 5000000000ULL /* a dump of the flows is waited for at the most */

struct resize {
	sd_event_source *timer;
	struct datapath *datapath;
	struct attach *attach;
	uint32_t wanted;		  /* flows-max of the configuration */
	uint32_t served;		  /* what it was when `to` was chosen; 0: choose again */
	uint32_t to;			  /* of the table in the making, or the last one */
	int (*step)(struct resize *r);	  /* NULL: none is */
	uint32_t cursor, moved_this_time; /* of a pass over the old table */
	uint64_t moved, held_since_ns;
	bool told; /* that it does not go on */
	char *error;
};

/* A step's answer, besides errors: when the next one, which it may have changed, is to run. */
#define AGAIN_SOON  1
#define AGAIN_LOAD  2
#define AGAIN_LATER 3

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void __attribute__((format(printf, 2, 3)))
set_error(struct resize *r, const char *format, ...)
{
	va_list args;

	free(r->error);
	r->error = NULL;
	va_start(args, format);
	if (vasprintf(&r->error, format, args) < 0)
		r->error = NULL;
	va_end(args);
	if (r->error)
		log_error("%s", r->error);
}

static const char *remedy(int error)
{
	if (error == -ENOMEM)
		return "free memory, or choose a smaller flows-max, then reload";
	return "reload to try again";
}

/* The old table stays, and what it can hold is the limit. */
static int give_up(struct resize *r, int error)
{
	struct datapath_config *c = datapath_config(r->datapath);
	uint32_t capacity = datapath_capacity(r->datapath);

	c->flows_max = r->to < capacity ? r->to : capacity;
	set_error(r, "cannot make a flow table for flows-max %u: %s; it is %u until then: %s",
		  r->wanted, strerror(-error), c->flows_max, remedy(error));
	r->step = NULL;
	return 0;
}

/* ---- the steps, last one first ---- */

static int begin(struct resize *r);

static int end(struct resize *r)
{
	int e = datapath_resize_end(r->datapath);

	if (e < 0) {
		if (!r->told)
			log_error("cannot give up the old flow table: %s; trying on", strerror(-e));
		r->told = true;
		return AGAIN_LATER;
	}
	log_notice("the flow table is for %u flows now; %llu were moved to it", r->to,
		   (unsigned long long)r->moved);
	datapath_config(r->datapath)->flows_max = r->to;
	r->step = begin; /* if another size is wanted by now */
	return AGAIN_SOON;
}

static int point_hooks_at_heirs(struct resize *r)
{
	int e = attach_renew(r->attach);

	if (e < 0) {
		/* Programs of both kinds do the same now. */
		if (!r->told)
			log_error("cannot attach the programs of the new flow table: %s; trying "
				  "on",
				  strerror(-e));
		r->told = true;
		return AGAIN_LATER;
	}
	r->told = false;
	r->step = end;
	return AGAIN_SOON;
}

static int load(struct resize *r);

static int wait_for_heirs(struct resize *r)
{
	int e = datapath_resize_loaded(r->datapath);

	if (e == -EAGAIN)
		return AGAIN_LOAD;
	if (e < 0) {
		if (!r->told)
			log_error("cannot load programs for the new flow table: %s; trying on",
				  strerror(-e));
		r->told = true;
		r->step = load;
		return AGAIN_LATER;
	}
	r->told = false;
	r->step = point_hooks_at_heirs;
	return AGAIN_SOON;
}

static int load(struct resize *r)
{
	int e = datapath_resize_load(r->datapath);

	r->step = e < 0 ? load : wait_for_heirs;
	return e < 0 ? AGAIN_LATER : AGAIN_LOAD;
}

/* A list of flows is being read: it would miss some that move. */
static bool held(struct resize *r)
{
	if (!datapath_flows_in_use(r->datapath)) {
		r->held_since_ns = 0;
		return false;
	}
	if (!r->held_since_ns)
		r->held_since_ns = now_ns();
	return now_ns() - r->held_since_ns < HOLD_NS;
}

/* A pass over the old table has ended. */
static int passed(struct resize *r)
{
	uint32_t left = datapath_resize_left(r->datapath), moved = r->moved_this_time;
	enum table_phase phase = datapath_resize_phase(r->datapath);

	r->cursor = r->moved_this_time = 0;
	if (!left && phase == TABLE_MERGING) {
		r->step = load;
		return AGAIN_SOON;
	}
	if (!left && datapath_resize_merge(r->datapath) == 0)
		return AGAIN_SOON;
	if (moved)
		return AGAIN_SOON;
	/* Buckets of the new index are full: they are served in the old table until it is over. */
	if (!r->told && left)
		log_warning("%u flows find no room in the new flow table yet; they stay where they "
			    "are until others have ended",
			    left);
	r->told |= left > 0;
	return AGAIN_LATER;
}

static int move(struct resize *r)
{
	enum table_phase phase = datapath_resize_phase(r->datapath);
	uint32_t before = r->cursor;
	int n;

	if (phase == TABLE_MOVING && held(r))
		return AGAIN_LOAD;
	n = datapath_resize_step(r->datapath, &r->cursor, RECORDS_PER_TURN);
	if (n < 0) {
		if (!r->told)
			log_error("cannot move flows to the new flow table: %s; trying on",
				  strerror(-n));
		r->told = true;
		return AGAIN_LATER;
	}
	r->moved_this_time += n;
	if (phase == TABLE_MOVING)
		r->moved += n;
	return r->cursor == before ? passed(r) : AGAIN_SOON;
}

static void start_moving(struct resize *r)
{
	r->cursor = r->moved_this_time = 0;
	r->moved = r->held_since_ns = 0;
	r->told = false;
	r->step = move;
}

static int point_hooks(struct resize *r)
{
	int e;

	if (held(r))
		return AGAIN_LOAD;
	e = attach_renew(r->attach);
	if (e == 0)
		e = datapath_resize_open(r->datapath);
	if (e < 0) {
		datapath_resize_undo(r->datapath);
		/* Where this fails, programs remain that do the same as long as nothing moves. */
		attach_renew(r->attach);
		datapath_drop_former(r->datapath);
		return give_up(r, e);
	}
	datapath_config(r->datapath)->flows_max = r->to;
	start_moving(r);
	return AGAIN_SOON;
}

static int wait_for_programs(struct resize *r)
{
	int e = datapath_resize_loaded(r->datapath);

	if (e == -EAGAIN)
		return AGAIN_LOAD;
	if (e < 0)
		return give_up(r, e);
	r->step = point_hooks;
	return AGAIN_SOON;
}

/* What is there stays, whatever is wanted: so many the table is for. */
static uint32_t size_to_make(struct resize *r)
{
	uint64_t there = flows_count(r->datapath);

	if (there <= r->wanted)
		return r->wanted;
	set_error(r,
		  "flows-max %u is less than the %llu flows that are there, which stay: it is %llu "
		  "until a reload finds fewer",
		  r->wanted, (unsigned long long)there, (unsigned long long)there);
	return there;
}

static int begin(struct resize *r)
{
	struct datapath_config *c = datapath_config(r->datapath);
	uint32_t capacity = datapath_capacity(r->datapath);
	int e;

	r->step = NULL;
	if (r->wanted == r->served)
		return 0;
	r->served = r->wanted;
	r->moved = 0;
	free(r->error);
	r->error = NULL;
	r->to = size_to_make(r);
	/* Not for a few flows less. */
	if (!datapath_resize_needed(r->datapath, r->to) ||
	    (r->to > r->wanted && r->to <= capacity && r->to > capacity / 4 * 3)) {
		c->flows_max = r->to;
		return 0;
	}
	c->flows_max = r->to < capacity ? r->to : capacity;
	e = datapath_resize_begin(r->datapath, r->to);
	if (e < 0)
		return give_up(r, e);
	log_info("making a flow table for %u flows", r->to);
	r->step = wait_for_programs;
	return AGAIN_LOAD;
}

/* ---- when they run ---- */

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	static const uint64_t delays[] = {
		[AGAIN_SOON] = SOON_USEC, [AGAIN_LOAD] = LOAD_USEC, [AGAIN_LATER] = LATER_USEC};
	struct resize *r = userdata;
	int again = r->step ? r->step(r) : 0;

	if (!r->step)
		return 0;
	sd_event_source_set_time_relative(s, delays[again]);
	return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void run_soon(struct resize *r)
{
	sd_event_source_set_time_relative(r->timer, SOON_USEC);
	sd_event_source_set_enabled(r->timer, SD_EVENT_ONESHOT);
}

int resize_new(sd_event *event, struct datapath *d, struct attach *a, struct resize **ret)
{
	_cleanup_(resize_freep) struct resize *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return -ENOMEM;
	r->datapath = d;
	r->attach = a;
	e = sd_event_add_time_relative(event, &r->timer, CLOCK_MONOTONIC, SOON_USEC, 1, on_timer,
				       r);
	if (e < 0)
		return e;
	if (datapath_resize_phase(d) != TABLE_STEADY) {
		log_info("going on to move flows to another flow table");
		r->to = datapath_capacity(d);
		start_moving(r);
	}
	*ret = take_ptr(r);
	return 0;
}

struct resize *resize_free(struct resize *r)
{
	if (!r)
		return NULL;
	sd_event_source_disable_unref(r->timer);
	free(r->error);
	free(r);
	return NULL;
}

void resize_want(struct resize *r, uint32_t flows_max)
{
	r->wanted = flows_max;
	if (r->step)
		return;
	r->served = 0;
	r->step = begin;
	run_soon(r);
}

void resize_look(const struct resize *r, struct resize_state *ret)
{
	*ret = (struct resize_state){
		.active = r->step && r->step != begin,
		.to = r->to,
		.moved = r->moved,
		.error = r->error,
	};
}
