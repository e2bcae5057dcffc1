/*
 * Zone writes: the order of the writes in flight of a zoned disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/lockable.h"
#include "block/zone-writes.h"

/*
 * Queues without writes are kept for the zones that were written last, so that
 * a write need not make one.
 */
#define IDLE_QUEUES_MAX 64

/* The writes in flight of one zone */
struct ZoneQueue {
    uint32_t zone;

    /* End of the last write, and start of the next: the reserved WP */
    uint64_t reserved;

    /* In offset order; those before the first undone one are leaving already */
    ZoneWriteList writes;

    /*
     * Writes that are over and whose callers do not know yet, in offset order.
     * The first one has the turn, and hands it on when it returns: waking all
     * at once would leave the order to whatever else their coroutines wait for.
     */
    ZoneWriteList leaving;

    /* Writes whose I/O may still be under way */
    unsigned moving;

    /*
     * Errno of a write that failed, 0 if none.  Then the queue drains: when
     * nothing moves any more, all from the first failed write on fail.
     */
    int error;

    QTAILQ_ENTRY(ZoneQueue) next_idle;
};

void zone_writes_init(ZoneWrites *zw, ZoneTable *table)
{
    *zw = (ZoneWrites) {
        .table  = table,
        .queues = g_hash_table_new_full(NULL, NULL, NULL, g_free),
        .dirty  = hbitmap_alloc(zone_table_geometry(table)->nr_zones, 0),
    };
    qemu_mutex_init(&zw->lock);
    QSIMPLEQ_INIT(&zw->waiting);
    QTAILQ_INIT(&zw->idle);
}

void zone_writes_destroy(ZoneWrites *zw)
{
    assert(zone_writes_idle(zw));
    assert(zw->held.count == 0);

    g_hash_table_destroy(zw->queues);
    hbitmap_free(zw->dirty);
    qemu_mutex_destroy(&zw->lock);
}

static bool queue_is_idle(const ZoneQueue *q)
{
    return QSIMPLEQ_EMPTY(&q->writes) && QSIMPLEQ_EMPTY(&q->leaving);
}

/* NULL if no write to @zone has been in flight lately */
static ZoneQueue *queue_find_locked(ZoneWrites *zw, uint32_t zone)
{
    if (!zw->last || zw->last->zone != zone) {
        zw->last = g_hash_table_lookup(zw->queues, GUINT_TO_POINTER(zone));
    }
    return zw->last;
}

/* The queue @q of @zone, or a new one if that is NULL, to append writes to */
static ZoneQueue *queue_use_locked(ZoneWrites *zw, ZoneQueue *q, uint32_t zone)
{
    if (!q) {
        q = g_new0(ZoneQueue, 1);
        q->zone = zone;
        QSIMPLEQ_INIT(&q->writes);
        QSIMPLEQ_INIT(&q->leaving);
        g_hash_table_insert(zw->queues, GUINT_TO_POINTER(zone), q);
        zw->nr_busy++;
        zw->last = q;
    } else if (queue_is_idle(q)) {
        QTAILQ_REMOVE(&zw->idle, q, next_idle);
        zw->nr_idle--;
        zw->nr_busy++;
    }
    return q;
}

/* @q has no writes any more. */
static void queue_rest_locked(ZoneWrites *zw, ZoneQueue *q)
{
    assert(queue_is_idle(q) && q->moving == 0 && q->error == 0);

    QTAILQ_INSERT_TAIL(&zw->idle, q, next_idle);
    zw->nr_busy--;

    if (zw->nr_idle < IDLE_QUEUES_MAX) {
        zw->nr_idle++;
        return;
    }
    q = QTAILQ_FIRST(&zw->idle);
    QTAILQ_REMOVE(&zw->idle, q, next_idle);
    if (zw->last == q) {
        zw->last = NULL;
    }
    g_hash_table_remove(zw->queues, GUINT_TO_POINTER(q->zone));
}

static bool is_held_locked(ZoneWrites *zw, uint32_t zone)
{
    return zone >= zw->held.first &&
           zone - zw->held.first < zw->held.count &&
           zone >= zone_table_geometry(zw->table)->nr_conventional;
}

static void set_dirty_locked(ZoneWrites *zw, uint32_t zone)
{
    /* Setting a bit that is set already costs more than looking. */
    if (!hbitmap_get(zw->dirty, zone)) {
        hbitmap_set(zw->dirty, zone, 1);
    }
}

/* Drop the lock, wake @other if there is one, and wait to be woken. */
static void coroutine_fn wait_and_unlock(ZoneWrites *zw, ZoneWrite *w,
                                         ZoneWrite *other)
{
    w->co = qemu_coroutine_self();
    qemu_mutex_unlock(&zw->lock);
    if (other) {
        aio_co_wake(other->co);
    }
    qemu_coroutine_yield();
    w->co = NULL;
}

/* Wake those of @list, who wait.  A write may be gone once it is woken. */
static void wake(ZoneWriteList *list)
{
    ZoneWrite *w;

    while ((w = QSIMPLEQ_FIRST(list))) {
        QSIMPLEQ_REMOVE_HEAD(list, woken);
        aio_co_wake(w->co);
    }
}

/* Check @w against the table and append it to the queue of its zone. */
static int admit_locked(ZoneWrites *zw, ZoneWrite *w)
{
    const ZoneGeometry *geo = zone_table_geometry(zw->table);
    ZoneQueue *q = NULL;
    uint64_t reserved = 0;
    uint32_t zone = 0;
    int ret;

    if (w->offset < geo->disk_size) {
        zone = zone_table_index(zw->table, w->offset);
        q = queue_find_locked(zw, zone);
        reserved = q && !queue_is_idle(q) ? q->reserved
                                          : zone_table_wp(zw->table, zone);
    }
    if (w->append) {
        ret = zone_table_append(zw->table, w->offset, w->bytes, reserved);
        w->offset = reserved;
    } else {
        ret = zone_table_write(zw->table, w->offset, w->bytes, reserved);
    }
    if (ret < 0 || zone < geo->nr_conventional) {
        return ret;
    }

    q = queue_use_locked(zw, q, zone);
    QSIMPLEQ_INSERT_TAIL(&q->writes, w, next);
    q->reserved = w->offset + w->bytes;
    w->queue = q;
    if (q->error) {
        /* Follows a write that failed: fails with it, without any I/O. */
        w->done = true;
        w->ret = q->error;
    } else {
        q->moving++;
    }
    return 0;
}

/* Is the zone of @offset held?  What is doomed anyway need not wait for it. */
static bool must_wait_locked(ZoneWrites *zw, uint64_t offset)
{
    ZoneQueue *q;
    uint32_t zone;

    if (offset >= zone_table_geometry(zw->table)->disk_size) {
        return false;
    }
    zone = zone_table_index(zw->table, offset);
    q = queue_find_locked(zw, zone);
    return is_held_locked(zw, zone) && !(q && q->error);
}

/* The first write of @q is over: it leaves when it has the turn. */
static void pop_locked(ZoneQueue *q)
{
    ZoneWrite *w = QSIMPLEQ_FIRST(&q->writes);

    QSIMPLEQ_REMOVE_HEAD(&q->writes, next);
    QSIMPLEQ_INSERT_TAIL(&q->leaving, w, woken);
}

/* Acknowledge the writes of @q whose turn it is. */
static void acknowledge_locked(ZoneWrites *zw, ZoneQueue *q)
{
    ZoneWrite *w = QSIMPLEQ_FIRST(&q->writes);
    uint64_t wp = 0;

    while (w && w->done && w->ret >= 0) {
        wp = w->offset + w->bytes;
        pop_locked(q);
        w = QSIMPLEQ_FIRST(&q->writes);
    }
    if (wp) {
        zone_table_acknowledge(zw->table, q->zone, wp, w != NULL);
        set_dirty_locked(zw, q->zone);
    }
}

/*
 * Fail what is left of @q.  Nothing of it moves, so the range can be handed
 * out again; the first one failed by itself, and the others fail with it.
 */
static void fail_locked(ZoneWrites *zw, ZoneQueue *q)
{
    ZoneWrite *w = QSIMPLEQ_FIRST(&q->writes);
    int ret = w->ret;

    assert(q->moving == 0 && ret < 0);

    zone_table_rewind(zw->table, q->zone);
    q->reserved = zone_table_wp(zw->table, q->zone);
    q->error = 0;
    while ((w = QSIMPLEQ_FIRST(&q->writes))) {
        w->ret = ret;
        pop_locked(q);
    }
}

/* Count @q, which has no writes any more, off.  Return whom that wakes. */
static Coroutine *holder_to_wake_locked(ZoneWrites *zw, const ZoneQueue *q)
{
    Coroutine *holder = NULL;

    if (zw->held_busy && is_held_locked(zw, q->zone) && --zw->held_busy == 0) {
        holder = zw->holder;
        zw->holder = NULL;
    }
    return holder;
}

/*
 * @w has the turn: take it from its queue, drop the lock, and hand the turn on.
 * The next one runs when this coroutine yields, which is after the caller was
 * told the result.
 */
static int coroutine_fn leave_and_unlock(ZoneWrites *zw, ZoneWrite *w)
{
    ZoneQueue *q = w->queue;
    Coroutine *holder = NULL;
    ZoneWrite *next;

    assert(QSIMPLEQ_FIRST(&q->leaving) == w);
    QSIMPLEQ_REMOVE_HEAD(&q->leaving, woken);
    next = QSIMPLEQ_FIRST(&q->leaving);
    if (queue_is_idle(q)) {
        holder = holder_to_wake_locked(zw, q);
        queue_rest_locked(zw, q);
    }
    qemu_mutex_unlock(&zw->lock);

    if (next) {
        aio_co_wake(next->co);
    }
    if (holder) {
        aio_co_wake(holder);
    }
    return w->ret;
}

/*
 * Wait until @w is over and has the turn.  If @first is not NULL, it has the
 * turn and does not know.
 */
static int coroutine_fn wait_and_leave(ZoneWrites *zw, ZoneWrite *w,
                                       ZoneWrite *first)
{
    wait_and_unlock(zw, w, first);
    qemu_mutex_lock(&zw->lock);
    return leave_and_unlock(zw, w);
}

int coroutine_fn zone_writes_begin(ZoneWrites *zw, ZoneWrite *w,
                                   uint64_t offset, uint64_t bytes,
                                   bool append)
{
    int ret;

    *w = (ZoneWrite) {
        .offset = offset,
        .bytes = bytes,
        .append = append,
    };

    qemu_mutex_lock(&zw->lock);
    if (zw->held.count && must_wait_locked(zw, offset)) {
        QSIMPLEQ_INSERT_TAIL(&zw->waiting, w, woken);
        wait_and_unlock(zw, w, NULL);
        return w->ret;
    }
    ret = admit_locked(zw, w);
    if (w->done) {
        return wait_and_leave(zw, w, NULL);
    }
    qemu_mutex_unlock(&zw->lock);
    return ret;
}

int coroutine_fn zone_writes_end(ZoneWrites *zw, ZoneWrite *w, int ret)
{
    ZoneQueue *q = w->queue;
    ZoneWrite *first;
    bool is_turn_taken;

    if (!q) {
        return ret;
    }

    qemu_mutex_lock(&zw->lock);
    w->done = true;
    w->ret = ret;
    q->moving--;
    if (ret < 0) {
        q->error = ret;
    }

    is_turn_taken = !QSIMPLEQ_EMPTY(&q->leaving);
    acknowledge_locked(zw, q);
    if (q->error && q->moving == 0) {
        fail_locked(zw, q);
    }

    first = QSIMPLEQ_FIRST(&q->leaving);
    if (first == w) {
        return leave_and_unlock(zw, w);
    }
    return wait_and_leave(zw, w, is_turn_taken ? NULL : first);
}

void coroutine_fn zone_writes_hold(ZoneWrites *zw, ZoneRange range)
{
    GHashTableIter iter;
    gpointer q;

    qemu_mutex_lock(&zw->lock);
    assert(zw->held.count == 0 && zw->held_busy == 0);
    zw->held = range;

    g_hash_table_iter_init(&iter, zw->queues);
    while (g_hash_table_iter_next(&iter, NULL, &q)) {
        zw->held_busy += !queue_is_idle(q) &&
                         is_held_locked(zw, ((ZoneQueue *)q)->zone);
    }
    if (zw->held_busy) {
        zw->holder = qemu_coroutine_self();
        qemu_mutex_unlock(&zw->lock);
        qemu_coroutine_yield();
        return;
    }
    qemu_mutex_unlock(&zw->lock);
}

void coroutine_fn zone_writes_release(ZoneWrites *zw)
{
    ZoneWriteList admitted = QSIMPLEQ_HEAD_INITIALIZER(admitted);
    ZoneWrite *w;

    qemu_mutex_lock(&zw->lock);
    assert(zw->held.count && zw->held_busy == 0);
    zw->held = (ZoneRange) { 0 };

    /* All in one go, so that no new write comes between them. */
    while ((w = QSIMPLEQ_FIRST(&zw->waiting))) {
        QSIMPLEQ_REMOVE_HEAD(&zw->waiting, woken);
        w->ret = admit_locked(zw, w);
        QSIMPLEQ_INSERT_TAIL(&admitted, w, woken);
    }
    qemu_mutex_unlock(&zw->lock);

    wake(&admitted);
}

bool zone_writes_idle(ZoneWrites *zw)
{
    QEMU_LOCK_GUARD(&zw->lock);
    return zw->nr_busy == 0 && QSIMPLEQ_EMPTY(&zw->waiting);
}

void zone_writes_grow(ZoneWrites *zw, uint64_t disk_size)
{
    QEMU_LOCK_GUARD(&zw->lock);
    zone_table_grow(zw->table, disk_size);
    hbitmap_truncate(zw->dirty, zone_table_geometry(zw->table)->nr_zones);
}

void zone_writes_take_dirty(ZoneWrites *zw, GArray *snapshot)
{
    HBitmapIter iter;
    int64_t zone;

    g_array_set_size(snapshot, 0);

    QEMU_LOCK_GUARD(&zw->lock);
    hbitmap_iter_init(&iter, zw->dirty, 0);
    while ((zone = hbitmap_iter_next(&iter)) >= 0) {
        ZoneEntry entry = { .zone = zone };

        entry.wp = zone_table_snapshot(zw->table, zone, &entry.attributes);
        g_array_append_val(snapshot, entry);
    }
    for (guint i = 0; i < snapshot->len; i++) {
        hbitmap_reset(zw->dirty, g_array_index(snapshot, ZoneEntry, i).zone,
                      1);
    }
}

void zone_writes_set_dirty(ZoneWrites *zw, uint32_t zone)
{
    QEMU_LOCK_GUARD(&zw->lock);
    set_dirty_locked(zw, zone);
}

void zone_writes_set_clean(ZoneWrites *zw, ZoneRange range)
{
    QEMU_LOCK_GUARD(&zw->lock);
    hbitmap_reset(zw->dirty, range.first, range.count);
}
