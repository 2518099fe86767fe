/* SPDX-License-Identifier: GPL-2.0-or-later */
/* splitmix64 (Steele, Lea, Flood 2014): small, and good enough to choose packets by. */
#include "tests/bpf/fuzz.h"

static uint64_t state;

void random_seed(uint64_t seed)
{
	state = seed;
}

uint32_t random_below(uint32_t n)
{
	uint64_t z = state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (uint32_t)((z ^ z >> 31) % n);
}

bool random_once_in(uint32_t n)
{
	return random_below(n) == 0;
}
