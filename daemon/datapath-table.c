// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The flow table's size is a constant of the programs. So another size means other programs: here
 * they are loaded, for the table that is pinned, for the time in which flows move to a new one, and
 * for the new one alone. bpf/migrate.bpf.h has the steps; whoever attaches goes between them.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "daemon/datapath-private.h"

/* bpftool writes the object as one long string. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "redirect.skel.h"
#pragma GCC diagnostic pop

#define NAME_FLOWS     "flows"
#define NAME_INDEX     "flow_index"
#define NAME_NEW_FLOWS "flows_new"
#define NAME_NEW_INDEX "flow_index_new"

#define GRACE_SECONDS 1		    /* no packet is under way for as long */
#define WALK_NS	      1000000000ULL /* a walk that has not gone on for as long has been left */

static uint32_t power_of_two_from(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

/*
 * A quarter more records than flows: the first window of 16 has a free one with 97 % probability
 * even just below flows-max. A bucket has two slots in use on average, four where all sources are
 * translated, and 5.3 at the most unlucky flows-max besides: then one in 2,000 is full (Poisson).
 */
static struct table_size size_for(uint32_t flows_max)
{
	uint64_t records = (uint64_t)flows_max + flows_max / 4 + FLOW_WINDOW;

	records = (records + FLOW_WINDOW - 1) / FLOW_WINDOW * FLOW_WINDOW;
	if (records > INDEX_RECORD)
		records = INDEX_RECORD / FLOW_WINDOW * FLOW_WINDOW;
	return (struct table_size){records, power_of_two_from(flows_max - flows_max / 4)};
}

static uint32_t capacity_of(uint32_t records)
{
	return (uint64_t)(records - FLOW_WINDOW) * 4 / 5;
}

/* ---- pins ---- */

static void pin_of(const struct datapath *d, const char *map, char ret[512])
{
	snprintf(ret, 512, "%s/%s", d->map_path, map);
}

/* A descriptor of a pinned map, and what it is; negative: none. */
static int open_pinned(const struct datapath *d, const char *map, struct bpf_map_info *ret_info)
{
	uint32_t length = sizeof(*ret_info);
	char path[512];
	int fd;

	pin_of(d, map, path);
	fd = bpf_obj_get(path);
	memset(ret_info, 0, sizeof(*ret_info));
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, ret_info, &length) < 0) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

/* The entries of a map that is pinned already, or 0. */
static uint32_t pinned_entries(const struct datapath *d, const char *map)
{
	struct bpf_map_info info;
	int fd = open_pinned(d, map, &info);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? 0 : info.max_entries;
}

/* The word that tells how far a former daemon came. */
static uint32_t pinned_word(const struct datapath *d)
{
	struct datapath_config config = {.table = 0};
	struct bpf_map_info info;
	uint32_t zero = 0;
	int fd = open_pinned(d, "config", &info);

	if (fd < 0)
		return 0;
	if (info.value_size == sizeof(config))
		bpf_map_lookup_elem(fd, &zero, &config);
	close(fd);
	return config.table;
}

static void unpin_new(const struct datapath *d)
{
	char path[512];

	pin_of(d, NAME_NEW_FLOWS, path);
	unlink(path);
	pin_of(d, NAME_NEW_INDEX, path);
	unlink(path);
}

static int rename_pin(const struct datapath *d, const char *from, const char *to)
{
	char path[512], target[512];

	pin_of(d, from, path);
	pin_of(d, to, target);
	return rename(path, target) < 0 && errno != ENOENT ? -errno : 0;
}

/* The new table is the only one: its pins get the ordinary names. Whatever has one stays. */
static int rename_pins(const struct datapath *d)
{
	int r = rename_pin(d, NAME_NEW_INDEX, NAME_INDEX);

	return r < 0 ? r : rename_pin(d, NAME_NEW_FLOWS, NAME_FLOWS);
}

/* ---- loading ---- */

static bool is_new_map(const struct redirect_bpf *s, const struct bpf_map *map)
{
	return map == s->maps.flows_new || map == s->maps.flow_index_new;
}

static bool is_table_map(const struct redirect_bpf *s, const struct bpf_map *map)
{
	return map == s->maps.flows || map == s->maps.flow_index;
}

static int set_pin_paths(const struct datapath *d, struct redirect_bpf *s,
			 const struct table_load *l)
{
	struct bpf_map *map;
	char path[512];
	int r;

	bpf_object__for_each_map(map, s->obj)
	{
		/* Constants and the scratch of one packet belong to the programs, not to the flows.
		 */
		if (bpf_map__is_internal(map) || map == s->maps.fragment_buffers ||
		    map == s->maps.kept_scratch || (is_new_map(s, map) && !l->new_size.records) ||
		    (is_table_map(s, map) && l->heir_of))
			continue;
		pin_of(d, bpf_map__name(map), path);
		r = bpf_map__set_pin_path(map, path);
		if (r < 0)
			return r;
	}
	return 0;
}

static int choose_tables(struct redirect_bpf *s, const struct table_load *l)
{
	bool migrating = l->new_size.records;
	int r = 0;

	s->rodata->flow_records = l->size.records;
	s->rodata->index_mask = l->size.buckets - 1;
	s->rodata->table_number = l->number;
	s->rodata->table_migrating = migrating;
	if (l->heir_of) {
		r = bpf_map__reuse_fd(s->maps.flows, bpf_map__fd(l->heir_of->maps.flows_new));
		if (r == 0)
			r = bpf_map__reuse_fd(s->maps.flow_index,
					      bpf_map__fd(l->heir_of->maps.flow_index_new));
	} else {
		bpf_map__set_max_entries(s->maps.flows, l->size.records);
		bpf_map__set_max_entries(s->maps.flow_index, l->size.buckets);
	}
	bpf_program__set_autoload(s->progs.migrate, migrating);
	bpf_map__set_autocreate(s->maps.flows_new, migrating);
	bpf_map__set_autocreate(s->maps.flow_index_new, migrating);
	if (migrating) {
		s->rodata->flow_records_new = l->new_size.records;
		s->rodata->index_mask_new = l->new_size.buckets - 1;
		bpf_map__set_max_entries(s->maps.flows_new, l->new_size.records);
		bpf_map__set_max_entries(s->maps.flow_index_new, l->new_size.buckets);
	}
	return r;
}

static int load(const struct datapath *d, const struct table_load *l, struct redirect_bpf **ret)
{
	struct redirect_bpf *s = redirect_bpf__open();
	int r;

	if (!s)
		return -errno;
	r = choose_tables(s, l);
	if (r == 0)
		r = set_pin_paths(d, s, l);
	if (r == 0)
		r = redirect_bpf__load(s);
	if (r < 0) {
		redirect_bpf__destroy(s);
		return r;
	}
	*ret = s;
	return 0;
}

static void *run_loader(void *userdata)
{
	struct table_loader *t = userdata;

	t->result = load(t->datapath, &t->load, &t->skeleton);
	t->done = true;
	return NULL;
}

static int start_loader(struct datapath *d, const struct table_load *l)
{
	struct table_loader *t = &d->loader;
	int r;

	t->datapath = d;
	t->load = *l;
	t->skeleton = NULL;
	t->done = false;
	r = pthread_create(&t->thread, NULL, run_loader, t);
	t->runs = r == 0;
	return -r;
}

static void end_loader(struct datapath *d)
{
	if (d->loader.runs)
		pthread_join(d->loader.thread, NULL);
	d->loader.runs = false;
}

/* How a former daemon left the tables; finishes what needs no packets to be looked at. */
static int find_tables(struct datapath *d, uint32_t *word, struct table_load *l)
{
	l->new_size = (struct table_size){pinned_entries(d, NAME_NEW_FLOWS),
					  pinned_entries(d, NAME_NEW_INDEX)};
	if (TABLE_PHASE(*word) == TABLE_MERGING && !(l->new_size.records && l->new_size.buckets)) {
		int r = rename_pins(d);

		if (r < 0)
			return r;
		*word = TABLE_WORD(TABLE_NUMBER(*word) + 1, TABLE_STEADY);
	}
	if (TABLE_PHASE(*word) == TABLE_STEADY) {
		unpin_new(d);
		l->new_size = (struct table_size){0, 0};
	} else if (!l->new_size.records || !l->new_size.buckets) {
		return -EBADF; /* somebody has removed pins */
	}
	l->size = (struct table_size){pinned_entries(d, NAME_FLOWS), pinned_entries(d, NAME_INDEX)};
	return 0;
}

int table_load(struct datapath *d, uint32_t flows_max)
{
	uint32_t word = pinned_word(d);
	struct table_load l = {.number = 0};
	int r = find_tables(d, &word, &l);

	if (r < 0)
		return r;
	d->adopted = l.size.records && l.size.buckets;
	if (!d->adopted)
		l.size = size_for(flows_max);
	l.number = TABLE_NUMBER(word);
	r = load(d, &l, &d->skeleton);
	if (r < 0)
		return r;
	r = datapath_map_memory(d->skeleton->maps.config, true, &d->config);
	if (r == 0)
		datapath_config(d)->table = word;
	return r;
}

void table_free(struct datapath *d)
{
	end_loader(d);
	redirect_bpf__destroy(d->loader.skeleton);
	if (d->flows.memory)
		munmap(d->flows.memory, d->flows.length);
	redirect_bpf__destroy(d->skeleton);
	redirect_bpf__destroy(d->former);
}

/* ---- the mapping ---- */

static size_t pages_of(const struct bpf_map *map)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t length = (size_t)bpf_map__value_size(map) * bpf_map__max_entries(map);

	return (length + page - 1) / page * page;
}

static bool has_two(const struct datapath *d)
{
	return d->skeleton->rodata->table_migrating && datapath_resize_phase(d) != TABLE_STEADY;
}

/*
 * Of two tables one behind the other, so that whoever walks the flows need not know. What pads the
 * last page of the first is zero: free records.
 */
static int map_flows(struct datapath *d, bool two)
{
	const struct bpf_map *maps[2] = {d->skeleton->maps.flows, NULL};
	size_t lengths[2] = {pages_of(maps[0]), 0}, at = 0;
	struct mapping mapping;

	if (two) {
		maps[0] = d->skeleton->maps.flows_new;
		maps[1] = d->skeleton->maps.flows;
		lengths[0] = pages_of(maps[0]);
		lengths[1] = pages_of(maps[1]);
	}
	mapping.length = lengths[0] + lengths[1];
	mapping.memory = mmap(NULL, mapping.length, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mapping.memory == MAP_FAILED)
		return -errno;
	for (int i = 0; i < 2 && maps[i]; at += lengths[i++])
		if (mmap((char *)mapping.memory + at, lengths[i], PROT_READ, MAP_SHARED | MAP_FIXED,
			 bpf_map__fd(maps[i]), 0) == MAP_FAILED) {
			int r = -errno;

			munmap(mapping.memory, mapping.length);
			return r;
		}
	if (d->flows.memory)
		munmap(d->flows.memory, d->flows.length);
	d->flows = mapping;
	d->n_new = maps[1] ? lengths[0] / sizeof(struct flow) : 0;
	d->n_flows = d->n_new + bpf_map__max_entries(d->skeleton->maps.flows);
	/* When the old table goes, all that is left of it is behind the new one. */
	d->flows_epoch += two;
	return 0;
}

int table_map_flows(struct datapath *d)
{
	return map_flows(d, has_two(d));
}

const struct flow *datapath_flows(struct datapath *d, uint32_t *ret_n)
{
	*ret_n = d->n_flows;
	return d->flows.memory;
}

uint32_t datapath_record(const struct datapath *d, uint32_t i)
{
	return i < d->n_new ? i | RECORD_NEW : i - d->n_new;
}

uint32_t datapath_flows_epoch(const struct datapath *d)
{
	return d->flows_epoch;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + t.tv_nsec;
}

void datapath_flows_walked(struct datapath *d, bool goes_on)
{
	d->walked_ns = goes_on ? now_ns() : 0;
}

bool datapath_flows_in_use(const struct datapath *d)
{
	return d->walked_ns && now_ns() - d->walked_ns < WALK_NS;
}

uint32_t datapath_capacity(const struct datapath *d)
{
	return capacity_of(bpf_map__max_entries(has_two(d) ? d->skeleton->maps.flows_new
							   : d->skeleton->maps.flows));
}

/* ---- another size ---- */

bool datapath_resize_needed(const struct datapath *d, uint32_t flows_max)
{
	struct table_size size = size_for(flows_max);

	return size.records != bpf_map__max_entries(d->skeleton->maps.flows) ||
	       size.buckets != bpf_map__max_entries(d->skeleton->maps.flow_index);
}

enum table_phase datapath_resize_phase(const struct datapath *d)
{
	const struct datapath_config *c = d->config.memory;

	return TABLE_PHASE(c->table);
}

/* When it returns, no program runs any more that saw things as they were before. */
static void wait_for_packets(void)
{
	const struct timespec grace = {.tv_sec = GRACE_SECONDS};

	/* The kernel waits for an RCU grace period. Not where processors run without a tick. */
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0)
		return;
	nanosleep(&grace, NULL);
}

int datapath_resize_begin(struct datapath *d, uint32_t flows_max)
{
	const struct table_load l = {
		.size = {bpf_map__max_entries(d->skeleton->maps.flows),
			 bpf_map__max_entries(d->skeleton->maps.flow_index)},
		.new_size = size_for(flows_max),
		.number = TABLE_NUMBER(datapath_config(d)->table),
	};

	unpin_new(d);
	return start_loader(d, &l);
}

int datapath_resize_loaded(struct datapath *d)
{
	struct table_loader *t = &d->loader;

	if (!t->done)
		return -EAGAIN;
	end_loader(d);
	if (t->result < 0) {
		if (!t->load.heir_of)
			unpin_new(d);
		return t->result;
	}
	d->former = d->skeleton;
	d->skeleton = take_ptr(t->skeleton);
	return 0;
}

void datapath_resize_undo(struct datapath *d)
{
	struct redirect_bpf *s = d->skeleton;

	d->skeleton = d->former;
	d->former = s;
	unpin_new(d);
}

void datapath_drop_former(struct datapath *d)
{
	redirect_bpf__destroy(d->former);
	d->former = NULL;
}

static void set_word(struct datapath *d, uint32_t number, enum table_phase phase)
{
	__atomic_store_n(&datapath_config(d)->table, TABLE_WORD(number, phase), __ATOMIC_SEQ_CST);
}

int datapath_resize_open(struct datapath *d)
{
	int r = map_flows(d, true);

	if (r < 0)
		return r;
	wait_for_packets();
	set_word(d, TABLE_NUMBER(datapath_config(d)->table), TABLE_MOVING);
	datapath_drop_former(d);
	return 0;
}

static bool is_moved(const struct flow *f)
{
	return (f->seq & (FLOW_OWNED | FLOW_MOVED)) == (FLOW_OWNED | FLOW_MOVED);
}

/* Is there something to do about an old record in this phase? */
static bool is_left(const struct flow *f, enum table_phase phase)
{
	return f->state != FLOW_FREE && (phase == TABLE_MERGING || !is_moved(f));
}

int datapath_resize_step(struct datapath *d, uint32_t *cursor, uint32_t n_records)
{
	enum table_phase phase = datapath_resize_phase(d);
	const struct flow *flows = (const struct flow *)d->flows.memory + d->n_new;
	uint32_t n = d->n_flows - d->n_new, n_items = 0;
	struct sweep_item items[SWEEP_BATCH];
	int done = 0, r = 0;

	if (phase == TABLE_MOVING)
		d->flows_epoch++;
	for (; *cursor < n && n_records && r >= 0; (*cursor)++, n_records--) {
		if (*cursor == 0 || !is_left(&flows[*cursor], phase))
			continue;
		items[n_items++].record = *cursor;
		if (n_items < SWEEP_BATCH)
			continue;
		r = datapath_run_items(d, "migrate", items, n_items);
		done += r > 0 ? r : 0;
		n_items = 0;
	}
	if (r >= 0 && n_items) {
		r = datapath_run_items(d, "migrate", items, n_items);
		done += r > 0 ? r : 0;
	}
	return r < 0 ? r : done;
}

uint32_t datapath_resize_left(const struct datapath *d)
{
	enum table_phase phase = datapath_resize_phase(d);
	const struct flow *flows = d->flows.memory;
	uint32_t left = 0;

	for (uint32_t i = d->n_new + 1; d->n_new && i < d->n_flows; i++)
		left += is_left(&flows[i], phase);
	return left;
}

/* What was noted of old records is now of the new ones. */
static void move_fragments(struct datapath *d)
{
	const struct flow *flows = (const struct flow *)d->flows.memory + d->n_new;
	uint32_t n = d->n_flows - d->n_new, number = TABLE_NUMBER(datapath_config(d)->table);
	int fd = bpf_map__fd(d->skeleton->maps.fragments);
	struct fragment_key key, next;
	struct fragment v;
	int r = bpf_map_get_next_key(fd, NULL, &next);

	/* Packets add and remove some meanwhile, and the walk may begin again. */
	for (uint32_t i = 0; r == 0 && i < 4 * FRAGMENT_COUNT; i++) {
		uint32_t record;

		key = next;
		r = bpf_map_get_next_key(fd, &key, &next);
		if (bpf_map_lookup_elem(fd, &key, &v) < 0 || v.state != FRAGMENT_FOLLOW)
			continue;
		record = v.record & INDEX_RECORD;
		if (v.record >> 24 != number || record >= n || !is_moved(&flows[record]))
			continue;
		v.record = TABLE_RECORD(number + 1, flows[record].created);
		bpf_map_update_elem(fd, &key, &v, BPF_EXIST);
	}
}

int datapath_resize_merge(struct datapath *d)
{
	/* Packets that were under way when flows began to move may have made some in the old one.
	 */
	wait_for_packets();
	if (datapath_resize_left(d))
		return -EAGAIN;
	move_fragments(d);
	wait_for_packets();
	set_word(d, TABLE_NUMBER(datapath_config(d)->table), TABLE_MERGING);
	return 0;
}

int datapath_resize_load(struct datapath *d)
{
	const struct table_load l = {
		.size = {bpf_map__max_entries(d->skeleton->maps.flows_new),
			 bpf_map__max_entries(d->skeleton->maps.flow_index_new)},
		.number = (TABLE_NUMBER(datapath_config(d)->table) + 1) & 0xff,
		.heir_of = d->skeleton,
	};

	return start_loader(d, &l);
}

int datapath_resize_end(struct datapath *d)
{
	int r;

	wait_for_packets();
	r = rename_pins(d);
	if (r == 0)
		r = map_flows(d, false);
	if (r < 0)
		return r;
	set_word(d, TABLE_NUMBER(datapath_config(d)->table) + 1, TABLE_STEADY);
	datapath_drop_former(d);
	return 0;
}
