/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a rule's flows are shared out among its targets: which slot of struct balance is whose. */
#pragma once

#include <stdint.h>

#include "shared/abi.h"
#include "shared/rule.h"

/*
 * Fills every slot with the number of a target. Weights are shares of the slots, rounded to whole
 * ones, and at least one each; without a weight, none. With `balance maglev` slots depend on what
 * the targets are and not on their order: when one of n leaves, about 1/n of the slots change
 * hands, and two machines with the same targets agree.
 */
void balance_fill(const struct rule *r, uint8_t slots[static BALANCE_SLOTS]);
