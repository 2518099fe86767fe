/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flows as `conntrack -L` prints them (conntrack-tools 1.4), so that its parsers work. */
#pragma once

#include <stdbool.h>

#include "shared/writer.h"

struct flow;

/* Writes one line; `extended` as `conntrack -L -o extended` does. */
void output_conntrack(const struct flow *f, bool extended, struct writer *out);
