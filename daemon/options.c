// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/iface.h"

#define EXIT_USAGE 2

enum long_only {
	OPTION_HOOK = 256,
};

static const char help[] =
	"Usage: redirectd [-c FILE] [-i IFACE]... [-r RULE]... [OPTION]...\n"
	"\n"
	"Redirects ports in the kernel, by rules from a file, the command line and "
	"redirectctl(8).\n"
	"\n"
	"  -c, --config FILE      rules and settings (" DEFAULT_CONFIG ";\n"
	"                         with -r and without -c no file is read)\n"
	"  -n, --check            check the configuration, report every error, and exit: 0 or 6\n"
	"  -i, --interface IFACE  where rules without `on` take packets from (every interface)\n"
	"  -r, --rule RULE        a rule, such as 'tcp 8080 to 80'\n"
	"  -s, --socket SOCKET    control socket (" DEFAULT_SOCKET ")\n"
	"  -p, --pins DIR         where maps and links are pinned (" DEFAULT_PINS ")\n"
	"      --hook HOOK        tcx, clsact or auto: how to attach (auto: tcx where there is "
	"one)\n"
	"  -v, --verbose          print each flow that begins or ends; twice: also sampled "
	"packets\n"
	"  -V, --version          print the version\n"
	"  -h, --help             print this\n"
	"\n"
	"redirectd -i lo -r 'tcp 8080 to 80' -v is the whole program in one command.\n"
	"redirectd(8) has the rest, redirectd.conf(5) the rules.\n";

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check", no_argument, NULL, 'n'},
	{"interface", required_argument, NULL, 'i'},
	{"rule", required_argument, NULL, 'r'},
	{"socket", required_argument, NULL, 's'},
	{"pins", required_argument, NULL, 'p'},
	{"hook", required_argument, NULL, OPTION_HOOK},
	{"verbose", no_argument, NULL, 'v'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static int usage(const char *format, const char *what)
{
	fputs("redirectd: ", stderr);
	fprintf(stderr, format, what);
	fputs("\nTry: redirectd --help\n", stderr);
	return EXIT_USAGE;
}

static int append(const char ***list, size_t *n, const char *value)
{
	const char **more = reallocarray(*list, *n + 1, sizeof(*more));

	if (!more) {
		fputs("redirectd: out of memory\n", stderr);
		return 1;
	}
	*list = more;
	(*list)[(*n)++] = value;
	return -1;
}

static int parse_hook(const char *name, enum attach_hook *ret)
{
	for (enum attach_hook h = ATTACH_AUTO; h <= ATTACH_CLSACT; h++) {
		if (strcmp(name, attach_hook_name(h)) == 0) {
			*ret = h;
			return -1;
		}
	}
	return usage("--hook is tcx, clsact or auto, not \"%s\"", name);
}

static int take_option(struct options *o, int option)
{
	switch (option) {
	case 'c':
		o->config_path = optarg;
		return -1;
	case 'n':
		o->check_only = true;
		return -1;
	case 'i':
		if (iface_name_problem(optarg, strlen(optarg)))
			return usage("-i wants the name of an interface, not \"%s\"", optarg);
		return append(&o->interfaces, &o->n_interfaces, optarg);
	case 'r':
		return append(&o->rules, &o->n_rules, optarg);
	case 's':
		o->socket_path = optarg;
		return -1;
	case 'p':
		o->pin_path = optarg;
		return -1;
	case OPTION_HOOK:
		return parse_hook(optarg, &o->hook);
	case 'v':
		o->verbosity++;
		return -1;
	case 'V':
		puts("redirectd " REDIRECTD_VERSION);
		return 0;
	case 'h':
		fputs(help, stdout);
		return 0;
	}
	fputs("Try: redirectd --help\n", stderr); /* getopt has said what is wrong */
	return EXIT_USAGE;
}

int options_parse(struct options *o, int argc, char **argv)
{
	int option, exit_code;

	*o = (struct options){.socket_path = DEFAULT_SOCKET, .pin_path = DEFAULT_PINS};
	while ((option = getopt_long(argc, argv, "c:ni:r:s:p:vVh", long_options, NULL)) >= 0) {
		exit_code = take_option(o, option);
		if (exit_code >= 0)
			return exit_code;
	}
	if (optind < argc)
		return usage(
			"\"%s\" is not an option; a rule is given as one word behind -r, in quotes",
			argv[optind]);
	if (o->pin_path[0] != '/')
		return usage("-p wants an absolute path, not \"%s\"", o->pin_path);
	if (!o->config_path && !o->n_rules)
		o->config_path = DEFAULT_CONFIG;
	return -1;
}

void options_clear(struct options *o)
{
	free(o->interfaces);
	free(o->rules);
}

static int take_interfaces(const struct options *o, struct config *c)
{
	if (!o->n_interfaces)
		return 0;
	free(c->interfaces);
	c->n_interfaces = 0;
	c->interfaces = calloc(o->n_interfaces, sizeof(*c->interfaces));
	if (!c->interfaces)
		return -ENOMEM;
	for (size_t i = 0; i < o->n_interfaces; i++)
		strncpy(c->interfaces[c->n_interfaces++], o->interfaces[i], IF_NAMESIZE - 1);
	return 0;
}

int options_read_config(const struct options *o, struct config **ret, struct diag *diag)
{
	_cleanup_(config_freep) struct config *c = NULL;
	int r = config_new(&c), checked;

	if (r == 0 && o->config_path)
		r = config_read_file(c, o->config_path, diag);
	if (r == -ENOENT && strcmp(o->config_path, DEFAULT_CONFIG) == 0) {
		diag_clear(diag);
		diag_add(diag, DIAG_FAILED, NULL,
			 "write one, name another with -c, or give a rule with -r",
			 "there is no configuration at %s", o->config_path);
	}
	for (size_t i = 0; i < o->n_rules && (r == 0 || r == -EINVAL); i++)
		if (config_add_rule(c, o->rules[i], "command line", diag) < 0)
			r = -EINVAL;
	/* A file has been checked, and its conflicts are not to be told twice. */
	if (o->n_rules && (r == 0 || (r == -EINVAL && !o->config_path))) {
		checked = config_check(c, diag);
		r = checked < 0 ? checked : r;
	}
	if (r == 0)
		r = take_interfaces(o, c);
	if (r < 0)
		return r;
	*ret = take_ptr(c);
	return 0;
}
