/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The interfaces that the daemon offers, with their definitions (made by embed-interface.py). */
#pragma once

struct methods_interface {
	const char *name;
	const char *description;
};

extern const struct methods_interface methods_interfaces[]; /* ends with a NULL name */
