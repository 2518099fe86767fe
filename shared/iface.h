/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of network interfaces, as far as they can be judged without looking at the system. */
#pragma once

#include <stddef.h>

/*
 * NULL when the kernel (dev_valid_name()) and the grammar can take the name; else why not, to be
 * read behind the quoted name: "is longer than 15 bytes".
 */
const char *iface_name_problem(const char *name, size_t length);
