/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of the host: kernel, privileges, bpffs, the daemon and its configuration. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "ctl/doctor.h"

#define PINS_DEFAULT  "/sys/fs/bpf/redirectd"
#define KERNEL_LEAST  "5.10"
#define LOOPBACK      1	  /* ifindex */
#define TCX_INGRESS   46  /* enum bpf_attach_type of Linux 6.6 */
#define DATAPATH_NAME "v" /* of the folder of pinned maps, a number behind it */

/* ---- kernel ---- */

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* Kernels without TCX do not know the attach type. */
static bool has_tcx(void)
{
	union bpf_attr attr = {.query = {.target_fd = LOOPBACK, .attach_type = TCX_INGRESS}};

	return bpf(BPF_PROG_QUERY, &attr) == 0 || errno != EINVAL;
}

/* The helpers that came last, of those that the datapath calls. */
static const struct {
	int id;
	const char *name;
} helpers[] = {
	{BPF_FUNC_fib_lookup, "bpf_fib_lookup"},
	{BPF_FUNC_skc_lookup_tcp, "bpf_skc_lookup_tcp"},
	{BPF_FUNC_jiffies64, "bpf_jiffies64"},
	{BPF_FUNC_ringbuf_reserve, "bpf_ringbuf_reserve"},
};

/* A program that calls it without arguments: the verifier says why it refuses that. */
static bool has_helper(int id)
{
	static const char *const refusals[] = {"invalid func ", "unknown func ",
					       "program of this type cannot use helper "};
	const struct bpf_insn program[] = {
		{.code = BPF_JMP | BPF_CALL, .imm = id},
		{.code = BPF_JMP | BPF_EXIT},
	};
	char log[4096] = "";
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SCHED_CLS,
		.insns = (uintptr_t)program,
		.insn_cnt = sizeof(program) / sizeof(program[0]),
		.license = (uintptr_t) "GPL",
		.log_level = 1,
		.log_buf = (uintptr_t)log,
		.log_size = sizeof(log),
	};
	int fd = bpf(BPF_PROG_LOAD, &attr);

	if (fd >= 0)
		close(fd);
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		if (strstr(log, refusals[i]))
			return false;
	return true;
}

static void check_kernel(const char *name, void *userdata, struct findings *f)
{
	unsigned major = 0, minor = 0;
	struct utsname host;
	bool lacks = false;

	uname(&host);
	if (sscanf(host.release, "%u.%u", &major, &minor) == 2 &&
	    (major < 5 || (major == 5 && minor < 10))) {
		findings_add(f, name, FINDING_ERROR,
			     "Linux %s is too old: " KERNEL_LEAST " is needed", host.release);
		return;
	}
	if (geteuid() != 0) {
		findings_add(f, name, FINDING_OK, "Linux %s; what it has of BPF only root can see",
			     host.release);
		return;
	}
	for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
		if (has_helper(helpers[i].id))
			continue;
		lacks = true;
		findings_add(f, name, FINDING_ERROR, "this kernel's BPF has no %s",
			     helpers[i].name);
		findings_hint(f, "use one of " KERNEL_LEAST " or later with CONFIG_BPF_SYSCALL, "
				 "CONFIG_NET_CLS_BPF and CONFIG_INET");
	}
	if (!lacks)
		findings_add(f, name, FINDING_OK, "Linux %s, BPF as needed, hooks: %s",
			     host.release, has_tcx() ? "TCX" : "clsact");
}

/* ---- privileges ---- */

static const struct {
	int bit;
	const char *name;
} capabilities[] = {
	{CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{CAP_BPF, "CAP_BPF"},
	{CAP_PERFMON, "CAP_PERFMON"},
};

/* The effective ones of a process (proc(5)). False: not to be seen from here. */
static bool read_capabilities(const char *process, uint64_t *ret)
{
	char path[64], line[256];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%s/status", process);
	file = fopen(path, "re");
	while (file && !found && fgets(line, sizeof(line), file))
		found = sscanf(line, "CapEff: %" SCNx64, ret) == 1;
	if (file)
		fclose(file);
	return found;
}

static json_int_t daemon_pid(const struct doctor *d)
{
	return json_integer_value(json_object_get(d->status, "pid"));
}

static void check_privileges(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;
	char process[24] = "self";
	uint64_t held;

	if (d->status)
		snprintf(process, sizeof(process), "%" JSON_INTEGER_FORMAT, daemon_pid(d));
	if (!read_capabilities(process, &held)) {
		findings_add(f, name, FINDING_INFO,
			     "the daemon's process cannot be seen from here, nor what it may");
		return;
	}
	if (held & 1ULL << CAP_SYS_ADMIN)
		held |= 1ULL << CAP_BPF | 1ULL << CAP_PERFMON;
	for (size_t i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++) {
		if (held & 1ULL << capabilities[i].bit)
			continue;
		findings_add(f, name, d->status ? FINDING_ERROR : FINDING_INFO, "%s has no %s",
			     d->status ? "the daemon" : "whoever runs this", capabilities[i].name);
		findings_hint(f, "start the daemon as root, or by its unit");
	}
}

/* ---- bpffs ---- */

static const char *pins_of(const struct doctor *d)
{
	const char *pins = json_string_value(json_object_get(d->status, "pins"));

	return pins ? pins : PINS_DEFAULT;
}

/* The file system of a path, or of the nearest folder above it that is there. */
static bool is_on_bpffs(const char *path)
{
	char *copy = strdup(path), *slash;
	struct statfs fs;
	int r = -1;

	while (copy && *copy && (r = statfs(copy, &fs)) < 0 && (slash = strrchr(copy, '/')))
		*slash = '\0';
	free(copy);
	return r == 0 && (uint32_t)fs.f_type == BPF_FS_MAGIC;
}

static void check_bpffs(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;

	if (geteuid() != 0) {
		findings_add(f, name, FINDING_OK, "only root can see %s", pins_of(d));
	} else if (is_on_bpffs(pins_of(d))) {
		findings_add(f, name, FINDING_OK, "%s is on one", pins_of(d));
	} else {
		findings_add(f, name, FINDING_ERROR, "%s is not on a bpffs", pins_of(d));
		findings_command(f, "mount -t bpf bpf /sys/fs/bpf");
	}
}

/* ---- the daemon ---- */

/* How many entries of a folder begin like that. */
static size_t count_entries(const char *folder, const char *beginning)
{
	DIR *dir = opendir(folder);
	struct dirent *e;
	size_t n = 0;

	while (dir && (e = readdir(dir)))
		n += e->d_name[0] != '.' && strncmp(e->d_name, beginning, strlen(beginning)) == 0;
	if (dir)
		closedir(dir);
	return n;
}

static void check_daemon(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;

	if (d->status) {
		findings_add(f, name, FINDING_OK, "redirectd %s, process %" JSON_INTEGER_FORMAT,
			     json_string_value(json_object_get(d->status, "version")),
			     daemon_pid(d));
		return;
	}
	findings_add(f, name, FINDING_ERROR, "%s: what only it can see was not looked at%s",
		     d->problem,
		     count_entries(PINS_DEFAULT, DATAPATH_NAME)
			     ? "; what it has pinned goes on redirecting without it"
			     : "");
	findings_command(f, "systemctl start redirectd");
}

static void check_configuration(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;
	const char *error = json_string_value(json_object_get(d->status, "last_reload_error"));
	const char *path = json_string_value(json_object_get(d->status, "config"));
	const json_t *rules = json_object_get(d->status, "rules");
	json_int_t runtime = json_integer_value(json_object_get(rules, "runtime"));
	json_int_t differ = json_integer_value(json_object_get(rules, "differ"));

	if (error) {
		findings_add(f, name, FINDING_ERROR, "the last reload failed: %s", error);
		if (path)
			findings_command(f, "redirectctl check %s", path);
	}
	if (runtime) {
		findings_add(f, name, FINDING_INFO,
			     "%" JSON_INTEGER_FORMAT " rule%s in no file, lost at stop and reboot",
			     runtime, runtime == 1 ? "" : "s");
		findings_command(f, "redirectctl save");
	}
	if (differ) {
		findings_add(f, name, FINDING_INFO,
			     "%" JSON_INTEGER_FORMAT " rule%s otherwise than in the file", differ,
			     differ == 1 ? "" : "s");
		findings_command(f, "redirectctl diff");
	}
}

/* ---- room ---- */

static bool has_problem(const struct doctor *d, const char *name)
{
	const json_t *problems = json_object_get(d->status, "problems");

	for (size_t i = 0; i < json_array_size(problems); i++)
		if (strcmp(json_string_value(json_array_get(problems, i)), name) == 0)
			return true;
	return false;
}

static double percent_of(const struct doctor *d, const char *member)
{
	return 100 * json_number_value(json_object_get(json_object_get(d->status, member), "fill"));
}

static enum finding_severity severity_of(const struct doctor *d, const char *member)
{
	const char *level =
		json_string_value(json_object_get(json_object_get(d->status, member), "level"));

	return level && strcmp(level, "critical") == 0 ? FINDING_ERROR : FINDING_WARNING;
}

static void check_room(const char *name, void *userdata, struct findings *f)
{
	const struct doctor *d = userdata;

	if (has_problem(d, "flows")) {
		findings_add(f, name, severity_of(d, "flows"), "the flow table is %.0f %% full",
			     percent_of(d, "flows"));
		findings_hint(f, "raise flows-max in the configuration, or lower timeouts");
	}
	if (has_problem(d, "source_ports")) {
		findings_add(f, name, severity_of(d, "source_ports"),
			     "%.0f %% of the source ports towards one target are in use",
			     percent_of(d, "source_ports"));
		findings_hint(f, "use more addresses: several rules with `snat` and `from`, or "
				 "several targets");
	}
	if (has_problem(d, "turned_away")) {
		findings_add(f, name, FINDING_ERROR,
			     "new connections were turned away within the last minute");
		findings_hint(f, "`redirectctl status` says for what reason");
	}
}

const struct findings_check doctor_host_checks[] = {
	{"kernel", check_kernel, NULL},
	{"privileges", check_privileges, "those that are needed"},
	{"bpffs", check_bpffs, NULL},
	{"daemon", check_daemon, NULL},
	{NULL, NULL, NULL},
};

const struct findings_check doctor_status_checks[] = {
	{"configuration", check_configuration, "in force as it stands in its files"},
	{"room", check_room,
	 "less than 80 % of flows and of source ports are in use, and nobody was turned away"},
	{NULL, NULL, NULL},
};
