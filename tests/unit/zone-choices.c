/*
 * What random sequences of zone requests take their choices from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "zone-models.h"

static uint64_t take_byte(ZoneChoices *c)
{
    if (c->size == 0) {
        return 0;
    }
    c->size--;
    return *c->data++;
}

uint64_t zone_choose(ZoneChoices *c, uint64_t n)
{
    uint64_t r;

    if (!c->data) {
        r = (uint64_t)(uint32_t)g_test_rand_int() << 32;
        return (r | (uint32_t)g_test_rand_int()) % n;
    }
    /* As few bytes as will do, so that most of them have a meaning */
    r = take_byte(c);
    for (uint64_t max = UINT8_MAX; max < n - 1; max = max << 8 | UINT8_MAX) {
        r = r << 8 | take_byte(c);
    }
    return r % n;
}

bool zone_choices_ended(const ZoneChoices *c)
{
    return c->data && c->size == 0;
}
