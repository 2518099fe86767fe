// SPDX-License-Identifier: GPL-2.0-or-later
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>

#include "daemon/datapath-private.h"
#include "shared/log.h"

/* bpftool writes the object as one long string. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "redirect.skel.h"
#pragma GCC diagnostic pop

#define BPFFS "/sys/fs/bpf"

static const char *const program_names[PROGRAM_COUNT] = {
	[PROGRAM_IN] = "redirect_in",	     [PROGRAM_OUT] = "redirect_out",
	[PROGRAM_IN_L3] = "redirect_in_l3",  [PROGRAM_OUT_L3] = "redirect_out_l3",
	[PROGRAM_SWEEP] = "sweep",	     [PROGRAM_SWEEP_SOURCES] = "sweep_sources",
	[PROGRAM_CLOCK] = "read_clock",	     [PROGRAM_TRACE] = "trace",
	[PROGRAM_BIND_MATCH] = "bind_match",
};

#define LOG_LINES 24 /* of a verifier's log: its end says what is wrong */

/* The last lines of a text; cuts it there. */
static char *last_lines(char *text, int lines)
{
	char *p = text + strlen(text);

	while (p > text && p[-1] == '\n')
		*--p = '\0';
	for (; p > text; p--)
		if (p[-1] == '\n' && --lines == 0)
			break;
	return p;
}

/* libbpf's own words end in the journal, a line a message; the debug ones nowhere. */
static int print_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	_cleanup_(freep) char *text = NULL;
	char *rest, *line;

	if (level == LIBBPF_DEBUG || vasprintf(&text, format, args) < 0)
		return 0;
	rest = last_lines(text, LOG_LINES);
	while ((line = strsep(&rest, "\n")))
		log_warning("%s", line);
	return 0;
}

static bool is_bpffs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (uint32_t)fs.f_type == BPF_FS_MAGIC;
}

/* The nearest folder above the pin folder must be on a bpffs. */
static int ensure_bpffs(const char *pin_path, struct diag *diag)
{
	_cleanup_(freep) char *path = strdup(pin_path);
	char *slash;

	if (!path)
		return -ENOMEM;
	while (!is_bpffs(path)) {
		slash = strrchr(path, '/');
		if (!slash || slash == path)
			break;
		if (access(path, F_OK) == 0) {
			/* It exists, and is on something else. */
			if (strcmp(path, BPFFS) == 0 || strcmp(path, "/sys/fs") == 0)
				break;
			diag_add(diag, DIAG_FAILED, NULL, "give -p a folder below " BPFFS,
				 "%s is not on a bpffs", path);
			return -EINVAL;
		}
		*slash = '\0';
	}
	if (is_bpffs(path))
		return 0;
	if (strncmp(pin_path, BPFFS "/", strlen(BPFFS) + 1) == 0 &&
	    mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") == 0)
		return 0;
	diag_add(diag, DIAG_FAILED, NULL, "run: mount -t bpf bpf " BPFFS,
		 "no bpffs at %s, and mounting it failed: %s", BPFFS, strerror(errno));
	return -ENOENT;
}

static int make_folders(const char *path)
{
	_cleanup_(freep) char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *p = copy + 1;; p++) {
		if (*p != '/' && *p != '\0')
			continue;
		char end = *p;

		*p = '\0';
		if (mkdir(copy, 0700) < 0 && errno != EEXIST)
			return -errno;
		*p = end;
		if (!end)
			return 0;
	}
}

/* Who holds the lock of an inode: the kernel tells it in /proc/locks. 0 if not to be found. */
static pid_t lock_owner(int fd)
{
	_cleanup_(freep) char *line = NULL;
	unsigned major_nr, minor_nr;
	unsigned long inode;
	struct stat st;
	size_t size = 0;
	pid_t pid, found = 0;
	FILE *f;

	if (fstat(fd, &st) < 0 || !(f = fopen("/proc/locks", "re")))
		return 0;
	while (!found && getline(&line, &size, f) > 0)
		if (sscanf(line, "%*d: FLOCK ADVISORY WRITE %d %x:%x:%lu", &pid, &major_nr,
			   &minor_nr, &inode) == 4 &&
		    inode == st.st_ino && major_nr == major(st.st_dev) &&
		    minor_nr == minor(st.st_dev))
			found = pid;
	fclose(f);
	return found;
}

static int lock_folder(struct datapath *d, pid_t *ret_owner)
{
	d->lock_fd = open(d->pin_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->lock_fd < 0)
		return -errno;
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	*ret_owner = lock_owner(d->lock_fd);
	return -EBUSY;
}

int datapath_map_memory(const struct bpf_map *map, bool write, struct mapping *ret)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t length = (size_t)bpf_map__value_size(map) * bpf_map__max_entries(map);
	void *memory;

	length = (length + page - 1) / page * page;
	memory = mmap(NULL, length, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
		      bpf_map__fd(map), 0);
	if (memory == MAP_FAILED)
		return -errno;
	*ret = (struct mapping){memory, length};
	return 0;
}

static int map_all(struct datapath *d)
{
	struct {
		struct bpf_map *map;
		bool write;
		struct mapping *mapping;
	} all[] = {
		{d->skeleton->maps.ports, true, &d->ports},
		{d->skeleton->maps.shapes, true, &d->shapes},
		{d->skeleton->maps.bindings, true, &d->bindings},
		{d->skeleton->maps.actions, true, &d->actions},
		{d->skeleton->maps.rule_totals, true, &d->rule_counters},
		{d->skeleton->maps.rule_settings, true, &d->rule_settings},
		{d->skeleton->maps.totals, false, &d->totals},
	};
	int r;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		r = datapath_map_memory(all[i].map, all[i].write, all[i].mapping);
		if (r < 0)
			return r;
	}
	d->events_fd = fcntl(bpf_map__fd(d->skeleton->maps.events), F_DUPFD_CLOEXEC, 3);
	return d->events_fd < 0 ? -errno : table_map_flows(d);
}

/* What a former daemon left: how many parts each text has. */
static int registry_count(struct datapath *d)
{
	int fd = bpf_map__fd(d->skeleton->maps.registry);
	struct registry_key key, *last = NULL;

	d->registry_parts = calloc(REGISTRY_KEYS, sizeof(*d->registry_parts));
	if (!d->registry_parts)
		return -ENOMEM;
	while (bpf_map_get_next_key(fd, last, &key) == 0) {
		if (key.rule < REGISTRY_KEYS && d->registry_parts[key.rule] <= key.part)
			d->registry_parts[key.rule] = key.part + 1;
		last = &key;
	}
	return 0;
}

static void explain_load_failure(struct diag *diag, int r)
{
	const char *hint = NULL;

	if (r == -EPERM || r == -EACCES)
		hint = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; a program "
		       "that "
		       "the verifier refuses is a bug to report, with the log above";
	else if (r == -EINVAL)
		hint = "Linux 5.10 or later with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF is "
		       "needed; pins "
		       "of another version go with: redirectd's stop, or rm -r of the pin folder";
	else if (r == -ENOMEM)
		hint = "lower flows-max";
	diag_add(diag, DIAG_FAILED, NULL, hint, "cannot load the datapath: %s", strerror(-r));
}

static int load(struct datapath *d, uint32_t flows_max, struct diag *diag)
{
	int r;

	libbpf_set_print(print_libbpf);
	r = table_load(d, flows_max);
	if (r == 0)
		r = map_all(d);
	if (r == 0)
		r = registry_count(d);
	if (r < 0)
		explain_load_failure(diag, r);
	return r;
}

/* A table without a key was made just now: keys that nobody knows, and all limits. */
static int initialize(struct datapath *d, uint32_t flows_max)
{
	struct datapath_config *c = datapath_config(d);
	uint32_t keys[16];

	if (!c->flows_max) {
		if (getrandom(keys, sizeof(keys), 0) != sizeof(keys))
			return -EIO;
		memcpy(c->hash_keys, keys, sizeof(keys));
	}
	c->flows_max = flows_max < datapath_capacity(d) ? flows_max : datapath_capacity(d);
	return 0;
}

static uint64_t timespec_ns(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * 1000000000ULL + t->tv_nsec;
}

/* The kernel's coarse clock moves once a jiffy, and says how long that is (clock_getres(2)). */
static int measure_tick(struct datapath *d)
{
	struct timespec resolution;

	if (clock_getres(CLOCK_MONOTONIC_COARSE, &resolution) < 0)
		return -errno;
	d->tick_ns = timespec_ns(&resolution) << TICK_SHIFT;
	return d->tick_ns ? 0 : -EINVAL;
}

int datapath_open(const char *pin_path, uint32_t flows_max, struct diag *diag,
		  struct datapath **ret, pid_t *ret_owner)
{
	_cleanup_(datapath_freep) struct datapath *d = calloc(1, sizeof(*d));
	int r;

	*ret_owner = 0;
	if (!d)
		return -ENOMEM;
	d->lock_fd = d->events_fd = -1;
	d->n_cpus = libbpf_num_possible_cpus();
	d->cpu_counters = d->n_cpus > 0 ? calloc(d->n_cpus, sizeof(*d->cpu_counters)) : NULL;
	d->pin_path = strdup(pin_path);
	if (!d->cpu_counters || !d->pin_path ||
	    asprintf(&d->map_path, "%s/v%d", pin_path, DATAPATH_VERSION) < 0)
		return -ENOMEM;
	r = ensure_bpffs(pin_path, diag);
	if (r < 0)
		return r;
	r = make_folders(d->map_path);
	if (r == 0)
		r = lock_folder(d, ret_owner);
	if (r < 0) {
		if (r != -EBUSY)
			diag_add(diag, DIAG_FAILED, NULL,
				 "run as root, or choose another folder with -p",
				 "cannot use the pin folder %s: %s", pin_path, strerror(-r));
		return r;
	}
	r = measure_tick(d);
	if (r == 0)
		r = load(d, flows_max, diag);
	if (r == 0)
		r = initialize(d, flows_max);
	if (r < 0) {
		if (!d->adopted)
			datapath_unpin(d);
		return r;
	}
	*ret = take_ptr(d);
	return 0;
}

static void unmap(struct mapping *m)
{
	if (m->memory)
		munmap(m->memory, m->length);
}

struct datapath *datapath_free(struct datapath *d)
{
	if (!d)
		return NULL;
	unmap(&d->config);
	unmap(&d->ports);
	unmap(&d->shapes);
	unmap(&d->bindings);
	unmap(&d->actions);
	unmap(&d->totals);
	unmap(&d->rule_counters);
	unmap(&d->rule_settings);
	table_free(d);
	closep(&d->events_fd);
	closep(&d->lock_fd);
	free(d->cpu_counters);
	free(d->registry_parts);
	free(d->map_path);
	free(d->pin_path);
	free(d);
	return NULL;
}

/* Below the pin folder are only pins and folders of ours, two levels deep. */
static void remove_tree(const char *path, int depth)
{
	struct dirent *e;
	char child[768];
	DIR *dir;

	dir = depth ? opendir(path) : NULL;
	while (dir && (e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, e->d_name);
		if (unlink(child) < 0)
			remove_tree(child, depth - 1);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

void datapath_unpin(struct datapath *d)
{
	remove_tree(d->pin_path, 3);
}

bool datapath_adopted(const struct datapath *d)
{
	return d->adopted;
}

const char *datapath_pin_path(const struct datapath *d)
{
	return d->pin_path;
}

int datapath_program_fd(const struct datapath *d, enum datapath_program p)
{
	return bpf_program__fd(
		bpf_object__find_program_by_name(d->skeleton->obj, program_names[p]));
}

struct datapath_config *datapath_config(struct datapath *d)
{
	return d->config.memory;
}

struct port_entry *datapath_ports(struct datapath *d)
{
	return d->ports.memory;
}

struct shape *datapath_shapes(struct datapath *d)
{
	return d->shapes.memory;
}

struct binding *datapath_bindings(struct datapath *d)
{
	return d->bindings.memory;
}

struct action *datapath_actions(struct datapath *d)
{
	return d->actions.memory;
}

struct rule_counters *datapath_rule_counters(struct datapath *d)
{
	return d->rule_counters.memory;
}

struct rule_setting *datapath_rule_settings(struct datapath *d)
{
	return d->rule_settings.memory;
}

const struct flow_totals *datapath_totals(struct datapath *d)
{
	return d->totals.memory;
}

int datapath_match_set(struct datapath *d, const struct match_key *keys, const uint32_t *bindings,
		       uint32_t n)
{
	return n ? bpf_map_update_batch(bpf_map__fd(d->skeleton->maps.matches), keys, bindings, &n,
					NULL)
		 : 0;
}

int datapath_match_add(struct datapath *d, const struct match_key *key, uint32_t binding)
{
	return bpf_map_update_elem(bpf_map__fd(d->skeleton->maps.matches), key, &binding,
				   BPF_NOEXIST);
}

int datapath_match_get(struct datapath *d, const struct match_key *key, uint32_t *ret_binding)
{
	return bpf_map_lookup_elem(bpf_map__fd(d->skeleton->maps.matches), key, ret_binding);
}

/* Runs a program that is not attached over some data; what it returns. */
static int run_with(struct datapath *d, enum datapath_program p, const void *data, size_t size)
{
	char packet[SWEEP_OFFSET + SWEEP_BATCH * sizeof(struct limit_source_key)] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = SWEEP_OFFSET + size,
		    .repeat = 1);
	int r;

	if (size > sizeof(packet) - SWEEP_OFFSET)
		return -EINVAL;
	memcpy(packet + SWEEP_OFFSET, data, size);
	r = bpf_prog_test_run_opts(datapath_program_fd(d, p), &opts);
	return r < 0 ? r : (int)opts.retval;
}

int datapath_match_bind(struct datapath *d, const struct match_key *key, uint32_t binding)
{
	const struct match_bound bound = {*key, binding};
	int r = run_with(d, PROGRAM_BIND_MATCH, &bound, sizeof(bound));

	return r < 0 ? r : r ? 0 : -ENOENT;
}

int datapath_match_delete(struct datapath *d, const struct match_key *key)
{
	return bpf_map_delete_elem(bpf_map__fd(d->skeleton->maps.matches), key);
}

int datapath_match_next(struct datapath *d, const struct match_key *key, struct match_key *ret_next,
			uint32_t *ret_binding)
{
	int fd = bpf_map__fd(d->skeleton->maps.matches);
	int r = bpf_map_get_next_key(fd, key, ret_next);

	return r < 0 ? r : bpf_map_lookup_elem(fd, ret_next, ret_binding);
}

int datapath_balance_set(struct datapath *d, uint32_t action, const struct balance *balance)
{
	return bpf_map_update_elem(bpf_map__fd(d->skeleton->maps.balances), &action, balance,
				   BPF_ANY);
}

int datapath_balance_get(struct datapath *d, uint32_t action, struct balance *ret)
{
	return bpf_map_lookup_elem(bpf_map__fd(d->skeleton->maps.balances), &action, ret);
}

int datapath_balance_delete(struct datapath *d, uint32_t action)
{
	return bpf_map_delete_elem(bpf_map__fd(d->skeleton->maps.balances), &action);
}

uint32_t datapath_balance_next(struct datapath *d, uint32_t action)
{
	uint32_t next;
	int r = bpf_map_get_next_key(bpf_map__fd(d->skeleton->maps.balances),
				     action ? &action : NULL, &next);

	return r < 0 || next >= ACTION_COUNT ? 0 : next;
}

int datapath_target_get(struct datapath *d, uint32_t key, struct rule_counters *ret)
{
	memset(ret, 0, sizeof(*ret));
	return bpf_map_lookup_elem(bpf_map__fd(d->skeleton->maps.target_totals), &key, ret);
}

int datapath_target_set(struct datapath *d, uint32_t key, const struct rule_counters *counters)
{
	return bpf_map_update_elem(bpf_map__fd(d->skeleton->maps.target_totals), &key, counters,
				   BPF_ANY);
}

int datapath_target_delete(struct datapath *d, uint32_t key)
{
	return bpf_map_delete_elem(bpf_map__fd(d->skeleton->maps.target_totals), &key);
}

int datapath_target_next(struct datapath *d, const uint32_t *key, uint32_t *ret_next)
{
	return bpf_map_get_next_key(bpf_map__fd(d->skeleton->maps.target_totals), key, ret_next);
}

int datapath_local_set(struct datapath *d, const struct local_key *key, bool present)
{
	int fd = bpf_map__fd(d->skeleton->maps.locals);
	uint32_t value = 1;

	return present ? bpf_map_update_elem(fd, key, &value, BPF_ANY)
		       : bpf_map_delete_elem(fd, key);
}

int datapath_local_next(struct datapath *d, const struct local_key *key, struct local_key *ret_next)
{
	return bpf_map_get_next_key(bpf_map__fd(d->skeleton->maps.locals), key, ret_next);
}

int datapath_source_set(struct datapath *d, const struct source_key *key,
			const struct source_value *value)
{
	return bpf_map_update_elem(bpf_map__fd(d->skeleton->maps.sources), key, value, BPF_ANY);
}

int datapath_source_delete(struct datapath *d, const struct source_key *key)
{
	return bpf_map_delete_elem(bpf_map__fd(d->skeleton->maps.sources), key);
}

int datapath_source_next(struct datapath *d, const struct source_key *key,
			 struct source_key *ret_next, struct source_value *ret_value)
{
	int fd = bpf_map__fd(d->skeleton->maps.sources);
	int r = bpf_map_get_next_key(fd, key, ret_next);

	return r < 0 ? r : bpf_map_lookup_elem(fd, ret_next, ret_value);
}

int datapath_destination_set(struct datapath *d, const struct destination_key *key, bool present)
{
	int fd = bpf_map__fd(d->skeleton->maps.destinations);
	uint32_t value = 1;

	return present ? bpf_map_update_elem(fd, key, &value, BPF_ANY)
		       : bpf_map_delete_elem(fd, key);
}

int datapath_destination_next(struct datapath *d, const struct destination_key *key,
			      struct destination_key *ret_next)
{
	return bpf_map_get_next_key(bpf_map__fd(d->skeleton->maps.destinations), key, ret_next);
}

int datapath_counters(struct datapath *d, struct cpu_counters *ret_sum)
{
	uint32_t zero = 0;
	int r = bpf_map_lookup_elem(bpf_map__fd(d->skeleton->maps.counters), &zero,
				    d->cpu_counters);

	if (r < 0)
		return r;
	memset(ret_sum, 0, sizeof(*ret_sum));
	for (int cpu = 0; cpu < d->n_cpus; cpu++) {
		const struct cpu_counters *c = &d->cpu_counters[cpu];

		ret_sum->packets += c->packets;
		ret_sum->bytes += c->bytes;
		ret_sum->events_lost += c->events_lost;
		ret_sum->icmp_errors += c->icmp_errors;
		for (int i = 0; i < REASON_COUNT; i++)
			ret_sum->reasons[i] += c->reasons[i];
	}
	return 0;
}

/* Deletes the parts from `from` on that are there. */
static void registry_cut(struct datapath *d, uint32_t rule, uint32_t from)
{
	struct registry_key key = {.rule = rule, .part = from};

	while (key.part < d->registry_parts[rule] &&
	       bpf_map_delete_elem(bpf_map__fd(d->skeleton->maps.registry), &key) == 0)
		key.part++;
	d->registry_parts[rule] = from;
}

int datapath_registry_write(struct datapath *d, uint32_t rule, const char *text)
{
	struct registry_key key = {.rule = rule};
	size_t left = text ? strlen(text) + 1 : 0;
	int r;

	while (left) {
		struct registry_value value = {0};
		size_t part = left < sizeof(value.text) ? left : sizeof(value.text);

		memcpy(value.text, text, part);
		r = bpf_map_update_elem(bpf_map__fd(d->skeleton->maps.registry), &key, &value,
					BPF_ANY);
		if (r < 0)
			return r;
		key.part++;
		if (d->registry_parts[rule] < key.part)
			d->registry_parts[rule] = key.part;
		text += part;
		left -= part;
	}
	registry_cut(d, rule, key.part);
	return 0;
}

int datapath_registry_read(struct datapath *d, uint32_t rule, char **ret)
{
	_cleanup_(freep) char *text = NULL;
	struct registry_key key = {.rule = rule};
	struct registry_value value;
	char *longer;
	int r;

	do {
		r = bpf_map_lookup_elem(bpf_map__fd(d->skeleton->maps.registry), &key, &value);
		if (r < 0)
			return key.part ? -EBADMSG : r;
		longer = realloc(text, (size_t)(key.part + 1) * sizeof(value.text));
		if (!longer)
			return -ENOMEM;
		text = longer;
		memcpy(text + (size_t)key.part * sizeof(value.text), value.text,
		       sizeof(value.text));
		key.part++;
	} while (!memchr(value.text, '\0', sizeof(value.text)));
	*ret = take_ptr(text);
	return 0;
}

uint32_t datapath_registry_next(struct datapath *d, uint32_t rule)
{
	while (++rule < RULE_COUNT)
		if (d->registry_parts[rule])
			return rule;
	return 0;
}

int datapath_events_fd(struct datapath *d)
{
	return d->events_fd;
}

int datapath_run_items(struct datapath *d, const char *program, struct sweep_item *items, size_t n)
{
	int fd = bpf_program__fd(bpf_object__find_program_by_name(d->skeleton->obj, program));
	char packet[SWEEP_OFFSET + SWEEP_BATCH * sizeof(struct sweep_item)];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
		    .data_out = packet, .repeat = 1);
	int sum = 0, r;

	for (size_t done = 0; done < n; done += SWEEP_BATCH) {
		size_t batch = n - done < SWEEP_BATCH ? n - done : SWEEP_BATCH;

		memset(packet, 0, sizeof(packet));
		memcpy(packet + SWEEP_OFFSET, items + done, batch * sizeof(*items));
		opts.data_size_out = sizeof(packet);
		r = bpf_prog_test_run_opts(fd, &opts);
		if (r < 0)
			return r;
		memcpy(items + done, packet + SWEEP_OFFSET, batch * sizeof(*items));
		sum += opts.retval;
	}
	return sum;
}

int datapath_sweep(struct datapath *d, struct sweep_item *items, size_t n)
{
	return datapath_run_items(d, program_names[PROGRAM_SWEEP], items, n);
}

int datapath_limit_source_next(struct datapath *d, const struct limit_source_key *key,
			       struct limit_source_key *ret_next)
{
	return bpf_map_get_next_key(bpf_map__fd(d->skeleton->maps.limit_sources), key, ret_next);
}

int datapath_sweep_sources(struct datapath *d, const struct limit_source_key *keys, size_t n)
{
	return run_with(d, PROGRAM_SWEEP_SOURCES, keys, n * sizeof(*keys));
}

int datapath_trace(struct datapath *d, uint32_t ifindex, const void *packet, size_t length,
		   struct trace_answer *ret)
{
	char out[2048];
	struct __sk_buff context = {.ifindex = ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = length,
		    .data_out = out, .data_size_out = sizeof(out), .ctx_in = &context,
		    .ctx_size_in = sizeof(context), .repeat = 1);
	int r = bpf_prog_test_run_opts(datapath_program_fd(d, PROGRAM_TRACE), &opts);

	if (r < 0)
		return r;
	if (opts.retval != 0 || opts.data_size_out < sizeof(*ret))
		return -EIO;
	memcpy(ret, out, sizeof(*ret));
	return 0;
}

/* Reads the datapath's clock once a second, and goes on by CLOCK_MONOTONIC in between. */
uint32_t datapath_ticks(struct datapath *d)
{
	char packet[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = 1);
	struct timespec t;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	now = timespec_ns(&t);
	if ((!d->clock_ns || now - d->clock_ns > 1000000000ULL) &&
	    bpf_prog_test_run_opts(datapath_program_fd(d, PROGRAM_CLOCK), &opts) == 0) {
		d->clock_ns = now;
		d->clock_ticks = opts.retval;
	}
	return d->clock_ticks + (now - d->clock_ns) / d->tick_ns;
}

uint32_t datapath_ticks_from_seconds(const struct datapath *d, uint32_t seconds)
{
	return (uint64_t)seconds * 1000000000ULL / d->tick_ns;
}

uint64_t datapath_ticks_to_ms(const struct datapath *d, uint32_t ticks)
{
	return (uint64_t)ticks * d->tick_ns / 1000000;
}
