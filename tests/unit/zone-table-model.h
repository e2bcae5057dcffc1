/*
 * A naive model of zone tables
 *
 * It follows the text of the specification: conditions are stored, everything
 * else is counted and searched for when it is needed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ZONE_TABLE_MODEL_H
#define ZONE_TABLE_MODEL_H

#include "zone-models.h"

#define assert_state(t, zone, expected) \
    g_assert_cmphex(zone_table_state(t, zone), ==, expected)

#define assert_counts(t, open, active)                          \
    do {                                                        \
        g_assert_cmpuint(zone_table_nr_open(t), ==, open);      \
        g_assert_cmpuint(zone_table_nr_active(t), ==, active);  \
        g_assert_true(zone_table_is_consistent(t));             \
    } while (0)

/* @geo must be good. */
ZoneTable *new_table(const ZoneGeometry *geo);

/* Give @zone a write pointer @bytes above its start. */
void load(ZoneTable *t, uint32_t zone, uint64_t bytes, unsigned attributes);

/* The table as it is after a power cycle, with all entries of @t stored */
ZoneTable *power_cycle(const ZoneTable *t);

#endif
