/*
 * Random sequences of zone requests, to the zone modules and to naive models
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ZONE_MODELS_H
#define ZONE_MODELS_H

#include "block/zone-table.h"

/*
 * What a sequence takes its choices from: a fuzzer's data, which comes to an
 * end, or with NULL g_test_rand_int()
 */
typedef struct ZoneChoices {
    const uint8_t *data;
    size_t size;
} ZoneChoices;

/* A number below @n, which must not be 0; 0 once the data is used up */
uint64_t zone_choose(ZoneChoices *c, uint64_t n);

bool zone_choices_ended(const ZoneChoices *c);

/* The model of tables has no more zones. */
#define MODEL_ZONES     16

/*
 * Do at most @ops operations, which @choices chooses, to a new table and to
 * the model, and compare after each.
 */
void zone_table_model_run(ZoneChoices *choices, const ZoneGeometry *geo,
                          int ops);

/*
 * Do at most @ops operations, which @choices chooses, to a new disk and to the
 * model, which knows what each request should be doing, and compare after
 * each.
 */
void zone_writes_model_run(ZoneChoices *choices, int max_open, int max_active,
                           int ops);

#endif
