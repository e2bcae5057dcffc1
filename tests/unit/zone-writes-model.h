/*
 * A disk whose writes complete when the test says so, and a naive model of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ZONE_WRITES_MODEL_H
#define ZONE_WRITES_MODEL_H

#include "block/zone-writes.h"
#include "qemu/units.h"
#include "zone-models.h"

#define BLOCK   (4 * KiB)
#define ZONE    (64 * KiB)
#define CAP     (48 * KiB)
#define NR      8

/* Zone 0 is conventional. */
typedef struct Disk {
    ZoneTable *table;
    ZoneWrites zw;
    int turns;                  /* requests that have ended */
} Disk;

typedef enum Phase {
    WAITING,                    /* in zone_writes_begin() */
    MOVING,                     /* its data is on its way */
    ENDING,                     /* in zone_writes_end() */
    ENDED,
} Phase;

typedef struct Request {
    Disk *disk;
    uint64_t offset;
    uint64_t bytes;
    bool append;

    ZoneWrite w;
    Coroutine *co;
    Phase phase;
    bool moved;                 /* has touched the disk */
    int io_ret;
    int ret;
    int turn;                   /* its place among those that have ended */
} Request;

Disk *disk_with(const ZoneGeometry *geo);
Disk *disk_new(uint32_t max_open, uint32_t max_active);
void disk_free(Disk *d);

/* Let everybody run who can. */
void settle(void);

/* All of the Request @opaque, as a coroutine */
void coroutine_fn request_entry(void *opaque);

void send_request(Disk *d, Request *r, uint64_t offset, uint64_t bytes,
                  bool append);

/* The I/O of @r, which is MOVING, is over. */
void complete(Request *r, int ret);

/* An operation on one zone, at once */
int manage(Disk *d, BlockZoneOp op, uint32_t zone);

typedef struct Holder {
    Disk *disk;
    ZoneRange range;
    Coroutine *co;
    bool holds;
    bool released;
} Holder;

void hold(Disk *d, Holder *h, uint32_t first, uint32_t count);
void release(Holder *h);

/* The dirty zones, an array of ZoneEntry to be freed */
GArray *take(Disk *d);

/* How writes may fail */
#define ZONE_ERRNOS 6
extern const int zone_errnos[ZONE_ERRNOS];

#define assert_ended(r, ret_)                   \
    do {                                        \
        g_assert_cmpint((r)->phase, ==, ENDED); \
        g_assert_cmpint((r)->ret, ==, ret_);    \
    } while (0)

#define assert_phase(r, phase_) \
    g_assert_cmpint((r)->phase, ==, phase_)

#define assert_wp(d, zone, offset) \
    g_assert_cmpuint(zone_table_wp((d)->table, zone), ==, offset)

#define assert_state(d, zone, state) \
    g_assert_cmphex(zone_table_state((d)->table, zone), ==, state)

#define assert_counts(d, open, active)                                  \
    do {                                                                \
        g_assert_cmpuint(zone_table_nr_open((d)->table), ==, open);     \
        g_assert_cmpuint(zone_table_nr_active((d)->table), ==, active); \
        g_assert_true(zone_table_is_consistent((d)->table));            \
    } while (0)

#endif
