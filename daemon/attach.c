// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/attach.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/datapath.h"
#include "daemon/netlink.h"

/* enum bpf_attach_type of Linux 6.6; libbpf 1.1 and its headers do not know them. */
#define TCX_INGRESS 46
#define TCX_EGRESS  47

/* Where our filters stand among a clsact qdisc's others; fixed, so that they can be replaced. */
#define CLSACT_HANDLE	0x7264 /* "rd" */
#define CLSACT_PRIORITY 0x7264

struct attach {
	struct datapath *datapath;
	enum attach_hook hook;
	char *link_path;
	struct attach_entry *entries;
	size_t n_entries;
};

struct direction {
	const char *suffix; /* of the pin */
	int tcx_type;
	enum bpf_tc_attach_point tc_point;
	enum datapath_program ethernet, l3;
};

/* Egress first: where it cannot be had, nothing is redirected whose replies would stay as they are.
 */
static const struct direction directions[] = {
	{"out", TCX_EGRESS, BPF_TC_EGRESS, PROGRAM_OUT, PROGRAM_OUT_L3},
	{"in", TCX_INGRESS, BPF_TC_INGRESS, PROGRAM_IN, PROGRAM_IN_L3},
};
#define N_DIRECTIONS (sizeof(directions) / sizeof(directions[0]))

/* A folder in place of a file, which a bpffs cannot hold: this qdisc is ours to remove. */
#define QDISC_MARK "qdisc"

static void pin_path(const struct attach *a, uint32_t ifindex, const char *suffix, char ret[512])
{
	snprintf(ret, 512, "%s/%u-%s", a->link_path, ifindex, suffix);
}

const char *attach_hook_name(enum attach_hook hook)
{
	switch (hook) {
	case ATTACH_AUTO:
		return "auto";
	case ATTACH_TCX:
		return "tcx";
	case ATTACH_CLSACT:
		return "clsact";
	}
	return "unknown";
}

/*
 * A link to no interface: kernels with TCX look for the interface and say ENODEV, others do not
 * know the attach type and say EINVAL.
 */
static bool probe_tcx(struct datapath *d)
{
	int fd = bpf_link_create(datapath_program_fd(d, PROGRAM_IN), 0x7ffffffe, TCX_INGRESS, NULL);

	if (fd >= 0) {
		close(fd);
		return true;
	}
	return errno == ENODEV;
}

int attach_new(struct datapath *d, enum attach_hook hook, struct attach **ret)
{
	_cleanup_(attach_freep) struct attach *a = calloc(1, sizeof(*a));
	bool tcx = probe_tcx(d);

	if (!a)
		return -ENOMEM;
	if (hook == ATTACH_TCX && !tcx)
		return -EOPNOTSUPP;
	a->datapath = d;
	a->hook = hook == ATTACH_AUTO ? (tcx ? ATTACH_TCX : ATTACH_CLSACT) : hook;
	if (asprintf(&a->link_path, "%s/links", datapath_pin_path(d)) < 0)
		return -ENOMEM;
	if (mkdir(a->link_path, 0700) < 0 && errno != EEXIST)
		return -errno;
	*ret = take_ptr(a);
	return 0;
}

struct attach *attach_free(struct attach *a)
{
	if (!a)
		return NULL;
	free(a->entries);
	free(a->link_path);
	free(a);
	return NULL;
}

static int program_for(const struct attach *a, const struct direction *d, bool ethernet)
{
	return datapath_program_fd(a->datapath, ethernet ? d->ethernet : d->l3);
}

/* Points a pinned link at this daemon's program. -ENOENT: none, or its interface is another now. */
static int update_pinned(const char *path, int program)
{
	int fd = bpf_obj_get(path), r;

	if (fd < 0)
		return -ENOENT;
	r = bpf_link_update(fd, program, NULL);
	close(fd);
	if (r == 0)
		return 0;
	/* ENOLINK: the interface that it was on has gone, and the number was given out anew. */
	unlink(path);
	return -ENOENT;
}

static int attach_tcx(struct attach *a, uint32_t ifindex, const struct direction *d, bool ethernet)
{
	int program = program_for(a, d, ethernet), fd, r;
	char path[512];

	pin_path(a, ifindex, d->suffix, path);
	if (update_pinned(path, program) == 0)
		return 0;
	fd = bpf_link_create(program, ifindex, d->tcx_type, NULL);
	if (fd < 0)
		return -errno;
	r = bpf_obj_pin(fd, path) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/*
 * A qdisc "ingress" stands in the same place, takes our filters for both directions, and runs them
 * for one; so the kind matters, and the kernel compares it.
 */
static bool has_qdisc(uint32_t ifindex, const char *kind)
{
	struct {
		struct tcmsg body;
		struct rtattr attribute;
		char kind[sizeof("ingress")];
	} ask = {
		.body = {.tcm_family = AF_UNSPEC,
			 .tcm_ifindex = ifindex,
			 .tcm_parent = TC_H_CLSACT},
		.attribute = {.rta_type = TCA_KIND, .rta_len = RTA_LENGTH(strlen(kind) + 1)},
	};

	strcpy(ask.kind, kind);
	return netlink_ask(RTM_GETQDISC, &ask, sizeof(ask)) == 0;
}

static int make_qdisc(struct attach *a, uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	char path[512];
	int r;

	if (has_qdisc(ifindex, "clsact"))
		return 0;
	r = bpf_tc_hook_create(&hook);
	if (r < 0)
		return r;
	pin_path(a, ifindex, QDISC_MARK, path);
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int attach_clsact(struct attach *a, uint32_t ifindex, const struct direction *d,
			 bool ethernet)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = d->tc_point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = CLSACT_HANDLE, .priority = CLSACT_PRIORITY,
		    .flags = BPF_TC_F_REPLACE, .prog_fd = program_for(a, d, ethernet));

	return bpf_tc_attach(&hook, &opts);
}

static void detach_clsact(struct attach *a, uint32_t ifindex, const struct direction *d)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = d->tc_point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = CLSACT_HANDLE, .priority = CLSACT_PRIORITY);

	bpf_tc_detach(&hook, &opts);
}

static void detach_tcx(struct attach *a, uint32_t ifindex, const struct direction *d)
{
	char path[512];
	int fd;

	pin_path(a, ifindex, d->suffix, path);
	fd = bpf_obj_get(path);
	if (fd >= 0) {
		bpf_link_detach(fd);
		close(fd);
	}
	unlink(path);
}

static int remember(struct attach *a, uint32_t ifindex, bool ethernet)
{
	struct attach_entry *more;

	for (size_t i = 0; i < a->n_entries; i++)
		if (a->entries[i].ifindex == ifindex)
			return 0;
	more = reallocarray(a->entries, a->n_entries + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	a->entries = more;
	a->entries[a->n_entries++] = (struct attach_entry){ifindex, a->hook, ethernet};
	return 0;
}

int attach_interface(struct attach *a, uint32_t ifindex, bool ethernet)
{
	int r = a->hook == ATTACH_CLSACT ? make_qdisc(a, ifindex) : 0;

	for (size_t i = 0; r == 0 && i < N_DIRECTIONS; i++) {
		const struct direction *d = &directions[i];

		if (a->hook == ATTACH_CLSACT) {
			r = attach_clsact(a, ifindex, d, ethernet);
			detach_tcx(a, ifindex, d); /* of a daemon that used the other hook */
		} else {
			r = attach_tcx(a, ifindex, d, ethernet);
		}
	}
	return r < 0 ? r : remember(a, ifindex, ethernet);
}

int attach_renew(struct attach *a)
{
	int r;

	for (size_t i = 0; i < a->n_entries; i++) {
		r = attach_interface(a, a->entries[i].ifindex, a->entries[i].ethernet);
		/* One that has gone takes its hooks along; netlink will tell. */
		if (r < 0 && r != -ENODEV)
			return r;
	}
	return 0;
}

static void remove_pins(struct attach *a, uint32_t ifindex)
{
	char path[512];

	for (size_t i = 0; i < N_DIRECTIONS; i++) {
		pin_path(a, ifindex, directions[i].suffix, path);
		unlink(path);
	}
	pin_path(a, ifindex, QDISC_MARK, path);
	rmdir(path);
}

void attach_forget(struct attach *a, uint32_t ifindex)
{
	for (size_t i = 0; i < a->n_entries; i++) {
		if (a->entries[i].ifindex != ifindex)
			continue;
		a->entries[i] = a->entries[--a->n_entries];
		break;
	}
	remove_pins(a, ifindex);
}

static void begin_filters(void *userdata)
{
	*(bool *)userdata = false;
}

static int note_filter(const struct nlmsghdr *m, void *userdata)
{
	if (m->nlmsg_type == RTM_NEWTFILTER)
		*(bool *)userdata = true;
	return 0;
}

static int dump_filters(uint32_t ifindex, const struct direction *d,
			const struct netlink_reader *reader, void *userdata)
{
	struct tcmsg body = {
		.tcm_family = AF_UNSPEC,
		.tcm_ifindex = ifindex,
		.tcm_parent =
			TC_H_MAKE(TC_H_CLSACT, d->tc_point == BPF_TC_INGRESS ? TC_H_MIN_INGRESS
									     : TC_H_MIN_EGRESS),
	};

	return netlink_dump(RTM_GETTFILTER, &body, sizeof(body), reader, userdata);
}

/* Does somebody else have a filter on this hook of the qdisc? */
static bool has_filters(uint32_t ifindex, const struct direction *d)
{
	static const struct netlink_reader reader = {begin_filters, note_filter};
	bool found;

	/* Unable to tell, it is left in place. */
	return dump_filters(ifindex, d, &reader, &found) < 0 || found;
}

/* Ours, and nobody else's filter in it: the qdisc goes as it came. */
static void remove_qdisc(struct attach *a, uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	char path[512];

	pin_path(a, ifindex, QDISC_MARK, path);
	if (access(path, F_OK) < 0)
		return;
	for (size_t i = 0; i < N_DIRECTIONS; i++)
		if (has_filters(ifindex, &directions[i]))
			return;
	bpf_tc_hook_destroy(&hook);
}

void attach_remove_all(struct attach *a)
{
	for (size_t i = 0; i < a->n_entries; i++) {
		uint32_t ifindex = a->entries[i].ifindex;

		for (size_t n = 0; n < N_DIRECTIONS; n++) {
			detach_tcx(a, ifindex, &directions[n]);
			if (a->hook == ATTACH_CLSACT)
				detach_clsact(a, ifindex, &directions[n]);
		}
		if (a->hook == ATTACH_CLSACT)
			remove_qdisc(a, ifindex);
		remove_pins(a, ifindex);
	}
	a->n_entries = 0;
}

/* ---- what the kernel has ---- */

#define PROGRAMS_MOST 64 /* BPF_MPROG_MAX: more do not fit on a hook */

/* Programs on a TCX hook, in the order in which they run; none on kernels without TCX. */
static uint32_t query_tcx(uint32_t ifindex, const struct direction *d,
			  uint32_t ids[static PROGRAMS_MOST])
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .prog_ids = ids, .prog_cnt = PROGRAMS_MOST);

	return bpf_prog_query_opts((int)ifindex, d->tcx_type, &opts) < 0 ? 0 : opts.prog_cnt;
}

static uint32_t program_id(const struct attach *a, enum datapath_program p)
{
	struct bpf_prog_info info = {0};
	uint32_t length = sizeof(info);

	return bpf_obj_get_info_by_fd(datapath_program_fd(a->datapath, p), &info, &length) < 0
		       ? 0
		       : info.id;
}

static void note_front(struct attach_look *look, const char *what, uint32_t number)
{
	if (look->n_in_front++ == 0)
		snprintf(look->first, sizeof(look->first), "%s %u", what, number);
}

static void look_at_tcx(const struct attach *a, uint32_t ifindex, const struct direction *d,
			struct attach_look *ret)
{
	uint32_t ids[PROGRAMS_MOST], n = query_tcx(ifindex, d, ids);
	uint32_t ethernet = program_id(a, d->ethernet), l3 = program_id(a, d->l3);

	for (uint32_t i = 0; i < n && !ret->ours; i++) {
		if (a->hook == ATTACH_TCX && (ids[i] == ethernet || ids[i] == l3))
			ret->ours = true;
		else
			note_front(ret, "the TCX program with id", ids[i]);
	}
	if (a->hook == ATTACH_TCX && !ret->ours)
		ret->n_in_front = 0; /* in front of nothing */
}

/* A look at filters, and what was in front of the first one. */
struct filter_look {
	struct attach_look before, *look;
};

static void begin_look(void *userdata)
{
	const struct filter_look *f = userdata;

	*f->look = f->before;
}

static int look_at_filter(const struct nlmsghdr *m, void *userdata)
{
	const struct tcmsg *t = NLMSG_DATA(m);
	uint32_t priority = TC_H_MAJ(t->tcm_info) >> 16;
	struct attach_look *look = ((const struct filter_look *)userdata)->look;

	if (m->nlmsg_type != RTM_NEWTFILTER || !t->tcm_handle)
		return 0;
	if (t->tcm_handle == CLSACT_HANDLE && priority == CLSACT_PRIORITY)
		look->ours = true;
	else if (priority < CLSACT_PRIORITY)
		note_front(look, "a filter of priority", priority);
	return 0;
}

int attach_look(const struct attach *a, uint32_t ifindex, bool incoming, struct attach_look *ret)
{
	static const struct netlink_reader reader = {begin_look, look_at_filter};
	const struct direction *d = &directions[incoming ? 1 : 0];
	struct filter_look filters;

	*ret = (struct attach_look){0};
	look_at_tcx(a, ifindex, d, ret);
	if (a->hook == ATTACH_TCX)
		return 0;
	ret->foreign_qdisc = has_qdisc(ifindex, "ingress");
	filters = (struct filter_look){*ret, ret};
	return dump_filters(ifindex, d, &reader, &filters);
}

bool attach_is_at(const struct attach *a, uint32_t ifindex)
{
	struct attach_look in, out;
	size_t i = 0;

	while (i < a->n_entries && a->entries[i].ifindex != ifindex)
		i++;
	if (i == a->n_entries)
		return false;
	/* Filters would take a dump of them. */
	if (a->hook != ATTACH_TCX)
		return true;
	return attach_look(a, ifindex, true, &in) == 0 && in.ours &&
	       attach_look(a, ifindex, false, &out) == 0 && out.ours;
}

const struct attach_entry *attach_entries(const struct attach *a, size_t *ret_n)
{
	*ret_n = a->n_entries;
	return a->entries;
}
