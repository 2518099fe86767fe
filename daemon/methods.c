/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of methods: what there is, and who may call it. */
#include "daemon/methods.h"

#include <stddef.h>

#include "daemon/methods-handlers.h"

#define EVERYBODY  false
#define PRIVILEGED true

const struct server_method methods_table[] = {
	{"io.redirectd.List", EVERYBODY, methods_list},
	{"io.redirectd.Show", EVERYBODY, methods_show},
	{"io.redirectd.Add", PRIVILEGED, methods_add},
	{"io.redirectd.Remove", PRIVILEGED, methods_remove},
	{"io.redirectd.Enable", PRIVILEGED, methods_enable},
	{"io.redirectd.Disable", PRIVILEGED, methods_disable},
	{"io.redirectd.Reload", PRIVILEGED, methods_reload},
	{"io.redirectd.Conntrack", EVERYBODY, methods_conntrack},
	{"io.redirectd.ConntrackCount", EVERYBODY, methods_conntrack_count},
	{"io.redirectd.Stats", EVERYBODY, methods_stats},
	{"io.redirectd.Status", EVERYBODY, methods_status},
	{"org.varlink.service.GetInfo", EVERYBODY, methods_get_info},
	{"org.varlink.service.GetInterfaceDescription", EVERYBODY,
	 methods_get_interface_description},
	{NULL, false, NULL},
};
