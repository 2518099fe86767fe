/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of methods: what there is, and who may call it. */
#include "daemon/methods.h"

#include <stddef.h>

#include "daemon/methods-handlers.h"

#define EVERYBODY  false
#define PRIVILEGED true
#define LARGE	   true /* takes whole files */

const struct server_method methods_table[] = {
	{"io.redirectd.List", EVERYBODY, methods_list, false},
	{"io.redirectd.Show", EVERYBODY, methods_show, false},
	{"io.redirectd.Add", PRIVILEGED, methods_add, false},
	{"io.redirectd.Remove", PRIVILEGED, methods_remove, false},
	{"io.redirectd.Replace", PRIVILEGED, methods_replace, false},
	{"io.redirectd.Enable", PRIVILEGED, methods_enable, false},
	{"io.redirectd.Disable", PRIVILEGED, methods_disable, false},
	{"io.redirectd.Apply", PRIVILEGED, methods_apply, LARGE},
	{"io.redirectd.Diff", PRIVILEGED, methods_diff, LARGE},
	{"io.redirectd.Confirm", PRIVILEGED, methods_confirm, false},
	{"io.redirectd.Rollback", PRIVILEGED, methods_rollback, false},
	{"io.redirectd.Reload", PRIVILEGED, methods_reload, false},
	{"io.redirectd.Save", PRIVILEGED, methods_save, false},
	{"io.redirectd.Conntrack", EVERYBODY, methods_conntrack, false},
	{"io.redirectd.ConntrackGet", EVERYBODY, methods_conntrack_get, false},
	{"io.redirectd.ConntrackDelete", PRIVILEGED, methods_conntrack_delete, false},
	{"io.redirectd.ConntrackFlush", PRIVILEGED, methods_conntrack_flush, false},
	{"io.redirectd.ConntrackCount", EVERYBODY, methods_conntrack_count, false},
	{"io.redirectd.Monitor", EVERYBODY, methods_monitor, false},
	{"io.redirectd.Stats", EVERYBODY, methods_stats, false},
	{"io.redirectd.Status", EVERYBODY, methods_status, false},
	{"io.redirectd.Trace", EVERYBODY, methods_trace, false},
	{"io.redirectd.Doctor", EVERYBODY, methods_doctor, false},
	{"org.varlink.service.GetInfo", EVERYBODY, methods_get_info, false},
	{"org.varlink.service.GetInterfaceDescription", EVERYBODY,
	 methods_get_interface_description, false},
	{NULL, false, NULL, false},
};
