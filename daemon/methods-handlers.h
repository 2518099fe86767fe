/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The handlers behind the table of methods.c; userdata is the struct manager. */
#pragma once

#include <jansson.h>

struct call;

/* methods-rules.c */
int methods_list(struct call *call, json_t *parameters, void *userdata);
int methods_show(struct call *call, json_t *parameters, void *userdata);
int methods_add(struct call *call, json_t *parameters, void *userdata);
int methods_remove(struct call *call, json_t *parameters, void *userdata);
int methods_enable(struct call *call, json_t *parameters, void *userdata);
int methods_disable(struct call *call, json_t *parameters, void *userdata);
int methods_replace(struct call *call, json_t *parameters, void *userdata);

/* methods-files.c */
int methods_apply(struct call *call, json_t *parameters, void *userdata);
int methods_diff(struct call *call, json_t *parameters, void *userdata);
int methods_confirm(struct call *call, json_t *parameters, void *userdata);
int methods_rollback(struct call *call, json_t *parameters, void *userdata);
int methods_reload(struct call *call, json_t *parameters, void *userdata);
int methods_save(struct call *call, json_t *parameters, void *userdata);

/* methods-flows.c */
int methods_conntrack(struct call *call, json_t *parameters, void *userdata);
int methods_conntrack_get(struct call *call, json_t *parameters, void *userdata);
int methods_conntrack_delete(struct call *call, json_t *parameters, void *userdata);
int methods_conntrack_flush(struct call *call, json_t *parameters, void *userdata);
int methods_conntrack_count(struct call *call, json_t *parameters, void *userdata);

/* methods-doctor.c */
int methods_doctor(struct call *call, json_t *parameters, void *userdata);

/* methods-monitor.c */
int methods_monitor(struct call *call, json_t *parameters, void *userdata);

/* methods-status.c */
int methods_stats(struct call *call, json_t *parameters, void *userdata);
int methods_status(struct call *call, json_t *parameters, void *userdata);

/* methods-trace.c */
int methods_trace(struct call *call, json_t *parameters, void *userdata);

/* methods-service.c */
int methods_get_info(struct call *call, json_t *parameters, void *userdata);
int methods_get_interface_description(struct call *call, json_t *parameters, void *userdata);
