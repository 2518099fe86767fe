/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The methods of io.redirectd and org.varlink.service: a table, userdata is the manager. */
#pragma once

#include "daemon/server.h"

extern const struct server_method methods_table[];
