/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scope-bound release: `_cleanup_(freep) char *s = NULL;`. Hand ownership on with take_ptr(). */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* Returns the pointer and leaves NULL behind, so that the scope no longer frees it. */
#define take_ptr(p)                                                                                \
	__extension__({                                                                            \
		__typeof__(p) _taken = (p);                                                        \
		(p) = NULL;                                                                        \
		_taken;                                                                            \
	})

/* Declares `void TYPEp(TYPE **)` around a destructor, for use with _cleanup_. */
#define DEFINE_CLEANUP(type, destroy)                                                              \
	static inline void destroy##p(type **p)                                                    \
	{                                                                                          \
		if (*p)                                                                            \
			destroy(*p);                                                               \
	}
