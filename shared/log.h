/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Log lines to stderr: "<N>message" (sd-daemon(3)) when stderr is the journal (JOURNAL_STREAM),
 * else "redirectd: message". Only main, manager and modules that own a fallible resource log;
 * functions that return an error to a caller who can report it do not.
 */
#pragma once

#include <syslog.h>

void log_open(const char *program);
void log_write(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)	 log_write(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)	 log_write(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	 log_write(LOG_INFO, __VA_ARGS__)
