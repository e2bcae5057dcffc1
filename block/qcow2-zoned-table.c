/*
 * Zoned qcow2 images: the table of write pointers on disk
 *
 * Keeps it in step with the zones in memory, in an order of writes that no
 * power cut can turn against the data.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qcow2.h"
#include "qcow2-zoned.h"

/*
 * All of this runs with table_io held, or with nothing in flight.
 *
 * Chunks of the table are staged in memory as the disk has, or is to have,
 * them.  What is in them is durable below its write pointers, unless
 * table_is_off or the write to come flushes first, so it does not matter when
 * a block is written; and what a failed write left in one, a later write may
 * complete.
 */

typedef enum StagedEntries {
    STAGE_LEAVING,      /* those that stop being active */
    STAGE_ALL,
} StagedEntries;

/*
 * Write the blocks of @chunk that have changed, in as few pieces as can be; if
 * @flushed, with a flush before and after each, in coroutines only.  Returns
 * how many these were, or -errno.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
write_chunk(BlockDriverState *bs, Qcow2ZonedChunk *chunk, bool flushed)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint64_t chunk_offset = z->table_offset +
                            (uint64_t)chunk->number * QCOW2_ZONED_CHUNK_SIZE;
    long first, end = 0;
    int pieces = 0;

    while ((first = find_next_bit(chunk->dirty, QCOW2_ZONED_CHUNK_BLOCKS,
                                  end)) < QCOW2_ZONED_CHUNK_BLOCKS) {
        uint64_t pos = first * z->block_size;
        int64_t offset, bytes;
        const uint8_t *buf;
        int ret;

        end = find_next_zero_bit(chunk->dirty, QCOW2_ZONED_CHUNK_BLOCKS,
                                 first);
        offset = chunk_offset + pos;
        bytes = (end - first) * z->block_size;
        buf = (uint8_t *)chunk->entries + pos;
        ret = flushed ? bdrv_co_flush_pwrite_sync(bs->file, offset, bytes, buf)
                      : bdrv_pwrite(bs->file, offset, bytes, buf, 0);
        if (ret < 0) {
            return ret;
        }
        bitmap_clear(chunk->dirty, first, end - first);
        pieces++;
    }
    return pieces;
}

static int coroutine_mixed_fn GRAPH_RDLOCK
load_chunk(BlockDriverState *bs, uint32_t number, Qcow2ZonedChunk *chunk)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint64_t pos = (uint64_t)number * QCOW2_ZONED_CHUNK_SIZE;
    uint64_t bytes = MIN(QCOW2_ZONED_CHUNK_SIZE, z->table_size - pos);
    int ret;

    if (chunk->entries) {
        ret = write_chunk(bs, chunk, false);
        if (ret < 0) {
            return ret;
        }
        qemu_vfree(chunk->entries);
    }
    chunk->entries = qemu_try_blockalign(bs->file->bs, bytes);
    if (!chunk->entries) {
        return -ENOMEM;
    }
    chunk->number = number;
    ret = bdrv_pread(bs->file, z->table_offset + pos, bytes, chunk->entries,
                     0);
    if (ret < 0) {
        qemu_vfree(chunk->entries);
        chunk->entries = NULL;
    }
    return ret;
}

/*
 * Get the chunk with the entry of @zone, and the index of that in it.  It is
 * there until another chunk is asked for.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
get_chunk(BlockDriverState *bs, uint32_t zone, Qcow2ZonedChunk **chunk,
          uint32_t *index)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint32_t number = zone / QCOW2_ZONED_CHUNK_ENTRIES;

    *chunk = &z->chunks[number % QCOW2_ZONED_CHUNKS];
    *index = zone % QCOW2_ZONED_CHUNK_ENTRIES;
    if ((*chunk)->entries && (*chunk)->number == number) {
        return 0;
    }
    return load_chunk(bs, number, *chunk);
}

static int coroutine_mixed_fn GRAPH_RDLOCK
get_entry(BlockDriverState *bs, uint32_t zone, uint64_t *entry)
{
    Qcow2ZonedChunk *chunk;
    uint32_t index;
    int ret = get_chunk(bs, zone, &chunk, &index);

    if (ret >= 0) {
        *entry = chunk->entries[index];
    }
    return ret;
}

static bool is_active(Qcow2Zoned *z, uint32_t zone, uint64_t entry)
{
    unsigned attributes;
    uint64_t wp = qcow2_zoned_decode(entry, &attributes);

    return zone_table_entry_is_active(z->table, zone, wp, attributes);
}

/*
 * Stage @new_entry as the entry of @zone.  Whoever calls this has made durable
 * what lies below its write pointer.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
stage_entry(BlockDriverState *bs, uint32_t zone, uint64_t new_entry,
            StagedEntries which)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    bool was_active, becomes_active;
    Qcow2ZonedChunk *chunk;
    uint32_t index;
    int ret;

    ret = get_chunk(bs, zone, &chunk, &index);
    if (ret < 0) {
        return ret;
    }
    was_active = is_active(z, zone, chunk->entries[index]);
    becomes_active = is_active(z, zone, new_entry);
    if (chunk->entries[index] != new_entry &&
        (which == STAGE_ALL || (was_active && !becomes_active))) {
        chunk->entries[index] = new_entry;
        set_bit(index * QCOW2_ZONE_ENTRY_SIZE / z->block_size, chunk->dirty);
        z->disk_active += !was_active && becomes_active;
        z->disk_freed_staged += was_active && !becomes_active;
    }
    return 0;
}

/*
 * Write what is staged.  Durable after the next flush_image_file().
 * Returns the number of writes, or -errno.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
write_staged(BlockDriverState *bs, bool flushed)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret = qcow2_zoned_settle_size(bs);
    int writes = 0;

    if (ret < 0) {
        return ret;
    }
    for (int i = 0; i < QCOW2_ZONED_CHUNKS; i++) {
        ret = write_chunk(bs, &z->chunks[i], flushed);
        if (ret < 0) {
            return ret;
        }
        writes += ret;
    }
    z->disk_freed_written += z->disk_freed_staged;
    z->disk_freed_staged = 0;
    return writes;
}

/* What was written is durable. */
static void count_freed(Qcow2Zoned *z)
{
    z->disk_active -= z->disk_freed_written;
    z->disk_freed_written = 0;
}

static int coroutine_mixed_fn GRAPH_RDLOCK
flush_image_file(BlockDriverState *bs)
{
    int ret = bdrv_flush(bs->file->bs);

    if (ret >= 0) {
        count_freed(qcow2_zoned_of(bs));
    }
    return ret;
}

/* Everything written so far, data and metadata, becomes durable. */
static int coroutine_mixed_fn GRAPH_RDLOCK make_durable(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (has_data_file(bs)) {
        ret = bdrv_flush(s->data_file->bs);
        if (ret < 0) {
            return ret;
        }
    }
    return flush_image_file(bs);
}

static int coroutine_mixed_fn GRAPH_RDLOCK
stage_snapshot(BlockDriverState *bs, StagedEntries which)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    for (guint i = 0; i < z->snapshot->len; i++) {
        ZoneEntry *e = &g_array_index(z->snapshot, ZoneEntry, i);
        int ret = stage_entry(bs, e->zone,
                              qcow2_zoned_encode(e->wp, e->attributes), which);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* How many zones of the snapshot are active, and not so in the table? */
static int64_t coroutine_mixed_fn GRAPH_RDLOCK
count_entering(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int64_t entering = 0;

    for (guint i = 0; i < z->snapshot->len; i++) {
        ZoneEntry *e = &g_array_index(z->snapshot, ZoneEntry, i);
        uint64_t entry;
        int ret;

        if (!zone_table_entry_is_active(z->table, e->zone, e->wp,
                                        e->attributes)) {
            continue;
        }
        ret = get_entry(bs, e->zone, &entry);
        if (ret < 0) {
            return ret;
        }
        entering += !is_active(z, e->zone, entry);
    }
    return entering;
}

/*
 * Does the snapshot have zones that take over active slots of others?  Then
 * these must be free on disk first: no power cut may leave more active zones
 * than the limit allows, since Linux would refuse the disk.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
takes_over_slots(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int64_t entering;

    if (!z->geo.max_active) {
        return false;
    }
    entering = count_entering(bs);
    if (entering < 0) {
        return entering;
    }
    return entering && z->disk_active + entering > z->geo.max_active;
}

/*
 * Write the table blocks that the snapshot changes, once what lies below its
 * write pointers is durable.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK store_snapshot(BlockDriverState *bs)
{
    int ret;

    ret = make_durable(bs);
    if (ret < 0) {
        return ret;
    }

    ret = takes_over_slots(bs);
    if (ret > 0) {
        ret = stage_snapshot(bs, STAGE_LEAVING);
        if (ret >= 0) {
            ret = write_staged(bs, false);
        }
        if (ret >= 0) {
            ret = flush_image_file(bs);
        }
    }
    if (ret >= 0) {
        ret = stage_snapshot(bs, STAGE_ALL);
    }
    if (ret >= 0) {
        ret = write_staged(bs, false);
    }
    return ret < 0 ? ret : 0;
}

/* Does the table still say which zones came explicitly open? */
static bool tells_of_open(BlockDriverState *bs)
{
    return qcow2_zoned_of(bs)->handed_over_open && bdrv_is_writable(bs);
}

/*
 * That was said once, to whoever took the image over.  There may be as many
 * such zones as entries, so they are not part of a snapshot.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK take_back_open(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    HBitmapIter iter;
    int64_t zone;
    int ret;

    hbitmap_iter_init(&iter, z->handed_over_open, 0);
    while ((zone = hbitmap_iter_next(&iter)) >= 0) {
        unsigned attributes;
        uint64_t entry, wp;

        ret = get_entry(bs, zone, &entry);
        if (ret < 0) {
            return ret;
        }
        wp = qcow2_zoned_decode(entry, &attributes);
        ret = stage_entry(bs, zone, qcow2_zoned_encode(wp, attributes),
                          STAGE_ALL);
        if (ret < 0) {
            return ret;
        }
    }
    ret = write_staged(bs, false);
    if (ret < 0) {
        return ret;
    }
    hbitmap_free(z->handed_over_open);
    z->handed_over_open = NULL;
    return 0;
}

/*
 * Is all that the snapshot changes in one block of the table, and all that has
 * to be durable first in the image file?
 */
static bool fits_one_write(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint32_t per_block = z->block_size / QCOW2_ZONE_ENTRY_SIZE;
    uint32_t first = g_array_index(z->snapshot, ZoneEntry, 0).zone;

    if (has_data_file(bs) || z->table_is_off || tells_of_open(bs)) {
        return false;
    }
    for (guint i = 1; i < z->snapshot->len; i++) {
        uint32_t zone = g_array_index(z->snapshot, ZoneEntry, i).zone;

        if (zone / per_block != first / per_block) {
            return false;
        }
    }
    return true;
}

/*
 * The same as store_snapshot() and the flush after it, in a write that flushes
 * before and after: the usual case, which on a fast disk takes about as long
 * as its trips to the thread pool.  Returns 1 if all is durable, and 0 if it
 * could not be done this way.
 */
static int coroutine_fn GRAPH_RDLOCK
store_in_one_write(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    ret = takes_over_slots(bs);
    if (ret) {
        return MIN(ret, 0);
    }
    ret = stage_snapshot(bs, STAGE_ALL);
    if (ret >= 0) {
        ret = write_staged(bs, true);
    }
    if (ret < 0) {
        z->table_is_off = true;
    } else if (ret > 0) {
        count_freed(z);
    }
    return MIN(ret, 1);
}

/* The entries of the snapshot could not be stored: next time. */
static void give_back_snapshot(Qcow2Zoned *z)
{
    for (guint i = 0; i < z->snapshot->len; i++) {
        zone_writes_set_dirty(&z->writes,
                              g_array_index(z->snapshot, ZoneEntry, i).zone);
    }
}

/*
 * Have the table, when it is next durable, say what memory says now.  Returns
 * 1 if it is durable already, with all that was written before.
 */
static int coroutine_fn GRAPH_RDLOCK store_dirty_zones(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    int ret;

    /* First, so that the barrier covers all that it has. */
    zone_writes_take_dirty(&z->writes, z->snapshot);

    qemu_co_mutex_lock(&s->lock);
    ret = qcow2_write_caches(bs);
    qemu_co_mutex_unlock(&s->lock);

    if (ret >= 0) {
        ret = qcow2_zoned_settle_size(bs);
    }
    if (ret >= 0 && z->snapshot->len) {
        ret = fits_one_write(bs) ? store_in_one_write(bs) : 0;
        if (!ret) {
            ret = store_snapshot(bs);
        }
    }
    if (ret >= 0 && tells_of_open(bs)) {
        ret = take_back_open(bs);
    }
    if (ret < 0) {
        give_back_snapshot(z);
    } else {
        z->table_is_off = false;
    }
    return ret;
}

int coroutine_fn qcow2_zoned_store_dirty(BlockDriverState *bs)
{
    QEMU_LOCK_GUARD(&qcow2_zoned_of(bs)->table_io);
    return store_dirty_zones(bs);
}

int coroutine_fn qcow2_zoned_unstage(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret = store_dirty_zones(bs);

    if (ret >= 0) {
        ret = write_staged(bs, false);
    }
    if (ret >= 0) {
        ret = flush_image_file(bs);
    }
    for (int i = 0; i < QCOW2_ZONED_CHUNKS && ret >= 0; i++) {
        qemu_vfree(z->chunks[i].entries);
        z->chunks[i].entries = NULL;
    }
    return ret;
}

/* Stage the entries that finish or reset of @range brings about. */
static int coroutine_fn GRAPH_RDLOCK
stage_range(BlockDriverState *bs, BlockZoneOp op, ZoneRange range)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    for (uint32_t i = 0; i < range.count; i++) {
        uint32_t zone = range.first + i;
        uint64_t wp = zone_table_start(z->table, zone);
        unsigned attributes = 0;
        int ret;

        if (op == BLK_ZO_FINISH) {
            uint64_t entry;

            /*
             * The write pointer that is durable.  If the zone has a higher
             * one, it stays dirty, and the next flush stores that.  This is
             * so for a zone that writes have filled since the last one, too.
             */
            ret = get_entry(bs, zone, &entry);
            if (ret < 0) {
                return ret;
            }
            wp = qcow2_zoned_decode(entry, &attributes);
            if (zone_table_entry_is_full(z->table, zone, wp, attributes)) {
                continue;
            }
            attributes = ZONE_FINISHED;
        } else if (!zone_table_affects(z->table, op, zone)) {
            continue;
        }
        ret = stage_entry(bs, zone, qcow2_zoned_encode(wp, attributes),
                          STAGE_ALL);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * The finish or reset of @range failed half way.  Memory has it right, but
 * the table, staged or on disk, may have either.
 */
static void give_back_range(Qcow2Zoned *z, BlockZoneOp op, ZoneRange range)
{
    for (uint32_t i = 0; i < range.count; i++) {
        if (zone_table_affects(z->table, op, range.first + i)) {
            zone_writes_set_dirty(&z->writes, range.first + i);
        }
    }
    z->table_is_off = true;
}

/* The zones are held, so the lock need not be for all of them at once. */
static void apply_range(Qcow2Zoned *z, BlockZoneOp op, ZoneRange range)
{
    uint32_t done;

    for (done = 0; done < range.count; done += QCOW2_ZONED_LOCK_BATCH) {
        ZoneRange batch = {
            .first = range.first + done,
            .count = MIN(QCOW2_ZONED_LOCK_BATCH, range.count - done),
        };

        QEMU_LOCK_GUARD(&z->writes.lock);
        zone_table_apply(z->table, op, batch);
    }
}

int coroutine_fn qcow2_zoned_store_op(BlockDriverState *bs, BlockZoneOp op,
                                      ZoneRange range)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    QEMU_LOCK_GUARD(&z->table_io);

    if (z->table_is_off) {
        ret = store_dirty_zones(bs);
        if (ret < 0) {
            return ret;
        }
    }

    ret = stage_range(bs, op, range);
    if (ret >= 0) {
        ret = write_staged(bs, false);
    }
    if (ret >= 0) {
        ret = flush_image_file(bs);
    }
    if (ret < 0) {
        give_back_range(z, op, range);
        return ret;
    }

    /*
     * Before table_io is dropped: a flush must not see, and store, the write
     * pointers from before a reset.
     */
    apply_range(z, op, range);
    if (op != BLK_ZO_FINISH) {
        zone_writes_set_clean(&z->writes, range);
    }
    return 0;
}

/* Stage the entries of @range with @condition. */
static int coroutine_fn GRAPH_RDLOCK
stage_condition(BlockDriverState *bs, BlockdevZoneCondition condition,
                ZoneRange range)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    for (uint32_t i = 0; i < range.count; i++) {
        uint32_t zone = range.first + i;
        unsigned attributes;
        uint64_t wp = zone_table_snapshot(z->table, zone, &attributes);
        int ret;

        attributes = zone_condition_attributes(attributes, condition);
        ret = stage_entry(bs, zone, qcow2_zoned_encode(wp, attributes),
                          STAGE_ALL);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void apply_condition(Qcow2Zoned *z, BlockdevZoneCondition condition,
                            ZoneRange range)
{
    uint32_t done = 0;

    while (done < range.count) {
        uint32_t end = MIN(range.count, done + QCOW2_ZONED_LOCK_BATCH);

        QEMU_LOCK_GUARD(&z->writes.lock);
        for (; done < end; done++) {
            zone_table_set_condition(z->table, range.first + done, condition);
        }
    }
}

int coroutine_fn qcow2_zoned_store_condition(BlockDriverState *bs,
                                             BlockdevZoneCondition condition,
                                             ZoneRange range)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    QEMU_LOCK_GUARD(&z->table_io);

    /*
     * The write pointers, which their entries keep, and the data below.  It
     * also frees the slots on disk that zones of @range will take.
     */
    ret = store_dirty_zones(bs);
    if (ret >= 0) {
        ret = flush_image_file(bs);
    }
    if (ret < 0) {
        return ret;
    }

    ret = stage_condition(bs, condition, range);
    if (ret >= 0) {
        ret = write_staged(bs, false);
    }
    if (ret >= 0) {
        ret = flush_image_file(bs);
    }
    if (ret < 0) {
        for (uint32_t i = 0; i < range.count; i++) {
            zone_writes_set_dirty(&z->writes, range.first + i);
        }
        z->table_is_off = true;
        return ret;
    }

    /* Before table_io is dropped: a flush must not store what was before. */
    apply_condition(z, condition, range);
    return 0;
}

/*
 * Once all write pointers are stored, store which zones are explicitly open.
 * The snapshot gets them, too, so that this can be taken back.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
store_explicitly_open(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint32_t left = zone_table_nr_open(z->table);
    int ret;

    for (uint32_t zone = 0; left && zone < z->geo.nr_zones; zone++) {
        BlockZoneState state = zone_table_state(z->table, zone);

        left -= state == BLK_ZS_IOPEN || state == BLK_ZS_EOPEN;
        if (state == BLK_ZS_EOPEN) {
            ZoneEntry e = {
                .zone = zone,
                .wp = zone_table_wp(z->table, zone),
            };

            g_array_append_val(z->snapshot, e);
            ret = stage_entry(bs, zone, qcow2_zoned_encode_open(e.wp),
                              STAGE_ALL);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return write_staged(bs, false);
}

int coroutine_mixed_fn qcow2_zoned_inactivate(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    if (!qcow2_has_zones(bs)) {
        return 0;
    }
    if (qatomic_read(&bs->in_flight)) {
        /* Asked for by a monitor command, without draining first */
        return -EBUSY;
    }

    zone_writes_take_dirty(&z->writes, z->snapshot);
    if (!z->snapshot->len && !z->handing_over && !tells_of_open(bs) &&
        !qcow2_zoned_header_is_off(bs)) {
        return 0;
    }
    ret = qcow2_write_caches(bs);
    if (ret >= 0) {
        ret = store_snapshot(bs);
    }
    if (ret >= 0 && tells_of_open(bs)) {
        ret = take_back_open(bs);
    }
    if (ret >= 0 && z->handing_over) {
        ret = store_explicitly_open(bs);
    }
    if (ret >= 0) {
        ret = flush_image_file(bs);
    }
    if (ret < 0) {
        error_report("Failed to store the write pointers of the zones: %s",
                     strerror(-ret));
    }
    return ret;
}

int qcow2_zoned_hand_over(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    if (z) {
        z->handing_over = bdrv_is_writable(bs);
    }
    ret = qcow2_inactivate(bs);
    if (z) {
        z->handing_over = false;
    }
    if (qcow2_has_zones(bs) && ret < 0) {
        /* The image stays here: the next flush stores what it would have. */
        give_back_snapshot(z);
    }
    return ret;
}

