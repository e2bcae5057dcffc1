/*
 * Zone writes: the order of the writes in flight of a zoned disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_ZONE_WRITES_H
#define BLOCK_ZONE_WRITES_H

#include "qemu/coroutine.h"
#include "qemu/hbitmap.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "block/zone-table.h"

/*
 * A write is announced by zone_writes_begin(), which checks it against the
 * zone table and reserves its range, so that the next write to the zone may
 * follow at once; then the caller moves the data, without any lock; then
 * zone_writes_end() acknowledges it:
 *
 * - Writes of a zone are acknowledged in the order of their offsets.  The
 *   write pointer that readers, reports and flushes see never passes data
 *   that is still on its way.
 * - If one fails, all later ones in flight of that zone fail with its errno,
 *   also in order, and only when none of them can touch the disk any more:
 *   then the zone is as if they had never been sent, and a retry finds the
 *   write pointer where the failed write began.  A write that would have
 *   followed, and comes while that is being waited for, shares their fate
 *   without touching the disk.  Like theirs, its transition stays (the zone
 *   may have become open for it).
 *
 * Each zone's writes in flight are a queue in offset order by construction;
 * the reserved write pointer is the end of the last of them.
 *
 * Locking: @lock covers everything here and the zone table.  It is held for a
 * few instructions at a time and never across a yield or I/O; waiters are
 * woken after it is released.  Functions take it themselves; between calls a
 * caller takes it for the functions of the table.  Functions may be called
 * from any thread.
 */

typedef struct ZoneQueue ZoneQueue;

/* One write in flight; belongs to its coroutine's stack. */
typedef struct ZoneWrite {
    /* Where the data goes.  Set by zone_writes_begin(). */
    uint64_t offset;
    uint64_t bytes;

    /* Private, protected by ZoneWrites.lock. */
    ZoneQueue *queue;       /* NULL if no zone orders it (conventional) */
    bool append;
    bool done;              /* its I/O is over, or never began */
    int ret;
    Coroutine *co;          /* set while it waits for its turn */
    QSIMPLEQ_ENTRY(ZoneWrite) next;     /* in the queue of its zone */
    QSIMPLEQ_ENTRY(ZoneWrite) woken;    /* among those held back, or to wake */
} ZoneWrite;

typedef QSIMPLEQ_HEAD(ZoneWriteList, ZoneWrite) ZoneWriteList;

/* Is @w, which has begun, a write to a sequential zone? */
static inline bool zone_write_is_sequential(const ZoneWrite *w)
{
    return w->queue;
}

typedef struct ZoneWrites {
    QemuMutex lock;
    ZoneTable *table;       /* not owned */

    /* Private, protected by lock. */
    GHashTable *queues;     /* zone -> ZoneQueue */
    ZoneQueue *last;        /* the one that was looked for last, if any */
    uint32_t nr_busy;       /* queues with writes */
    uint32_t nr_idle;       /* the others */
    QTAILQ_HEAD(, ZoneQueue) idle;      /* in the order of their last writes */
    HBitmap *dirty;         /* zones whose entry must be stored */
    ZoneRange held;         /* zones that zone_writes_hold() holds, if any */
    uint32_t held_busy;     /* queues of held zones */
    Coroutine *holder;      /* waits until held_busy is 0 */
    ZoneWriteList waiting;  /* writes to held zones */
} ZoneWrites;

void zone_writes_init(ZoneWrites *zw, ZoneTable *table);

/* No write may be in flight, and no zone be held. */
void zone_writes_destroy(ZoneWrites *zw);

/*
 * Check and reserve a write of @bytes at @offset; for an @append, @offset is
 * the start of the zone, and w->offset says where the data goes.  Return 0,
 * then zone_writes_end() must follow; or one of the zone API's errors, or the
 * errno of the failed write that this one would have followed.  Waits while
 * the zone is held.
 */
int coroutine_fn zone_writes_begin(ZoneWrites *zw, ZoneWrite *w,
                                   uint64_t offset, uint64_t bytes,
                                   bool append);

/*
 * The I/O of @w is over, with result @ret (0 or a negative errno).  Wait until
 * it can be acknowledged in its turn.  Return @ret, or the errno of a lower
 * write of its zone that failed.
 */
int coroutine_fn zone_writes_end(ZoneWrites *zw, ZoneWrite *w, int ret);

/*
 * Hold back new writes to the zones of @range and wait until those in flight
 * are over (with those that share the fate of a failed one).  One holder at a
 * time (the caller serialises them); zone_writes_release() ends it.
 */
void coroutine_fn zone_writes_hold(ZoneWrites *zw, ZoneRange range);

/* Admit the writes that were held back, in the order in which they came. */
void coroutine_fn zone_writes_release(ZoneWrites *zw);

/* Is no write to a sequential zone in flight, or held back? */
bool zone_writes_idle(ZoneWrites *zw);

/*
 * The disk has @disk_size bytes from now on: zone_table_grow(), for whatever
 * goes by the number of zones.  The last zone is held.
 */
void zone_writes_grow(ZoneWrites *zw, uint64_t disk_size);

/*
 * Write pointers to be made durable.  zone_writes_take_dirty() moves the set
 * of zones with writes acknowledged since the last call into @snapshot (an
 * array of ZoneEntry, in ascending order, emptied first), with the entry of
 * this moment: it covers all that has been acknowledged, and nothing more.
 * Whoever finishes or resets zones stores that himself.
 */
typedef struct ZoneEntry {
    uint32_t zone;
    unsigned attributes;
    uint64_t wp;
} ZoneEntry;

void zone_writes_take_dirty(ZoneWrites *zw, GArray *snapshot);

/*
 * Have @zone taken (again): its entry in the table on disk may differ from
 * the one in memory.
 */
void zone_writes_set_dirty(ZoneWrites *zw, uint32_t zone);

/*
 * The entries of @range, which is held, are durable as they are now: nothing
 * needs to be taken.
 */
void zone_writes_set_clean(ZoneWrites *zw, ZoneRange range);

#endif
