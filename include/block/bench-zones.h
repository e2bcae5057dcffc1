/*
 * qemu-img bench: writing zones side by side
 *
 * A number of streams each write a zone from start to capacity and then take
 * the next zone that no other stream has, round and round the disk.  Requests
 * go to the streams in turn.  A disk without zones is divided into stretches
 * which are written in the same way.
 *
 * To be used in the main thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_BENCH_ZONES_H
#define BLOCK_BENCH_ZONES_H

#include "block/aio.h"

typedef struct BenchZones BenchZones;

typedef struct BenchZonesOptions {
    uint8_t *buf;           /* what each request writes */
    int bufsize;            /* less is written where a zone ends */
    int step;               /* between requests: must be @bufsize */
    uint64_t offset;        /* of the first request */
    uint32_t nr_streams;
    uint64_t zone_size;     /* of a disk without zones, 0 for the default */
    bool append;            /* by zone append */
} BenchZonesOptions;

/*
 * Get ready to write @blk, which says so with @errp if it cannot be.  No zone
 * is changed yet; those that are not empty are reset when a stream takes them.
 * Only the first request may continue a zone at its write pointer.
 */
BenchZones *bench_zones_new(BlockBackend *blk, const BenchZonesOptions *opts,
                            Error **errp);

/* Nothing may be in flight.  NULL is allowed. */
void bench_zones_free(BenchZones *z);

/*
 * Issue the next request, from a coroutine or not.  Requests to a zone reach
 * the image in the order of their offsets, however many are in flight.
 */
void bench_zones_submit(BenchZones *z, BlockCompletionFunc *cb, void *opaque);

#endif
