/*
 * qemu-img convert: writing to zones
 *
 * Takes what is written to a disk in ascending order of offsets, but with
 * gaps, and writes it to the zones of an image, which have no gaps: a gap
 * becomes zeros once there is something to be written behind it.  Zones that
 * the source has, too, end up in the state that they have there.
 *
 * To be used in the main thread, one function at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_CONVERT_ZONES_H
#define BLOCK_CONVERT_ZONES_H

#include "block/block-common.h"

typedef struct ConvertZones ConvertZones;

typedef struct ConvertZonesOptions {
    BlockBackend *target;
    const char *target_name;
    BlockBackend **src;             /* one behind the other */
    const int64_t *src_sectors;
    int src_num;
    bool sparse;                    /* zeros need not be written */
    bool salvage;                   /* what cannot be read is zeros */
} ConvertZonesOptions;

/*
 * Get ready to write the source to @opts->target, of which all sequential
 * zones must be EMPTY.  @errp says why if that cannot be done: its zones or
 * their capacity are too small for the data, or more of them would be active
 * than can be.  Nothing has been written yet then.
 *
 * @opts is not needed when this has returned, what it points to is.
 */
ConvertZones *convert_zones_new(const ConvertZonesOptions *opts, Error **errp);

/* NULL is allowed. */
void convert_zones_free(ConvertZones *c);

/*
 * Write @buf, or zeros if that is NULL.  Offsets must not be below the end of
 * what was written before.
 */
int coroutine_mixed_fn convert_zones_pwrite(ConvertZones *c, int64_t offset,
                                            int64_t bytes, const uint8_t *buf);

/*
 * All has been written: bring the zones into their final states.  Not in a
 * coroutine.
 */
int convert_zones_end(ConvertZones *c);

#endif
