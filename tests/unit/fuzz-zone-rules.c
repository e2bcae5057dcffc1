/*
 * Fuzzing the rules of zones: the zone modules have to follow their models
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "fuzz-zone.h"
#include "zone-models.h"

#define MAX_OPS 4096

static void run_table(ZoneChoices *c)
{
    uint64_t unit = 512ULL << zone_choose(c, 32);
    uint64_t zone_size = unit << zone_choose(c, 8);
    uint32_t nr = 1 + zone_choose(c, MODEL_ZONES);
    ZoneGeometry geo = {
        .disk_size = nr * zone_size - unit * zone_choose(c, zone_size / unit),
        .zone_size = zone_size,
        .zone_capacity = zone_size - unit * zone_choose(c, zone_size / unit),
        .nr_zones = nr,
        .nr_conventional = zone_choose(c, nr),
        .max_open = zone_choose(c, nr + 1),
        .max_active = zone_choose(c, nr + 1),
        .max_append_bytes = 512 * (1 + zone_choose(c, 256)),
    };

    if (zone_geometry_check(&geo, NULL)) {
        zone_table_model_run(c, &geo, MAX_OPS);
    }
}

void fuzz_zone_init(void)
{
    qemu_init_main_loop(&error_abort);
}

void fuzz_zone_input(const uint8_t *data, size_t size)
{
    ZoneChoices c = { .data = data, .size = size };

    if (size == 0) {
        return;
    }
    if (zone_choose(&c, 2)) {
        run_table(&c);
    } else {
        int max_open = zone_choose(&c, 8);
        int max_active = zone_choose(&c, 8);

        if (!max_active || max_open <= max_active) {
            zone_writes_model_run(&c, max_open, max_active, MAX_OPS);
        }
    }
}
