/*
 * Zoned qcow2 images: requests
 *
 * Puts the rules of zone-table and the order of zone-writes in front of the
 * data path of qcow2, and keeps the table of write pointers on disk in step.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qcow2.h"
#include "qcow2-zoned.h"
#include "trace.h"

/* Zones that are dealt with under one hold of the lock */
#define LOCK_BATCH 1024

static Qcow2Zoned *zoned_of(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    return s->zoned;
}

void qcow2_zoned_refresh_limits(BlockDriverState *bs)
{
    Qcow2Zoned *z = zoned_of(bs);
    const ZoneGeometry *geo;

    if (!z) {
        return;
    }
    geo = &z->geo;

    /*
     * The block layer must not cut a write to pieces that race for the write
     * pointer: whatever is a multiple of a sector comes here in one piece.
     */
    bs->bl.request_alignment = MAX(bs->bl.request_alignment,
                                   BDRV_SECTOR_SIZE);
    bs->bl.pwrite_zeroes_alignment = BDRV_SECTOR_SIZE;
    bs->bl.max_transfer = 0;

    bs->bl.zoned = BLK_Z_HM;
    bs->bl.zone_size = geo->zone_size;
    bs->bl.zone_capacity = geo->zone_capacity;
    bs->bl.nr_zones = geo->nr_zones;
    bs->bl.nr_conventional = geo->nr_conventional;
    bs->bl.max_append_sectors = geo->max_append_bytes >> BDRV_SECTOR_BITS;
    bs->bl.max_open_zones = geo->max_open;
    bs->bl.max_active_zones = geo->max_active;
    bs->bl.write_granularity = BDRV_SECTOR_SIZE;
}

/*
 * The errnos of the zone API say that a request broke a rule.  One from below
 * must not be taken for that.
 */
static int host_error(int ret)
{
    switch (ret) {
    case -EINVAL:
    case -ERANGE:
    case -EOVERFLOW:
    case -ETOOMANYREFS:
        return -EIO;
    default:
        return ret;
    }
}

/* --- Reading --- */

/* Requests beyond the disk, for VM state, have nothing to do with zones. */
static bool is_beyond_disk(BlockDriverState *bs, int64_t offset)
{
    return offset >= zoned_of(bs)->geo.disk_size;
}

static int coroutine_fn GRAPH_RDLOCK __attribute__((noinline))
zoned_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
             QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int64_t on_disk = zoned_of(bs)->geo.disk_size - offset;

    /* Copy on write reads whole clusters, also beyond the end of the disk. */
    if (bytes > on_disk) {
        qemu_iovec_memset(qiov, qiov_offset + on_disk, 0, bytes - on_disk);
        bytes = on_disk;
    }

    while (bytes > 0) {
        bool data;
        int64_t run = zone_table_run(zoned_of(bs)->table, offset, bytes,
                                     &data);
        int ret;

        if (run < 0) {
            return run;
        }
        if (data) {
            ret = qcow2_co_preadv_part(bs, offset, run, qiov, qiov_offset,
                                       flags);
            if (ret < 0) {
                return host_error(ret);
            }
        } else {
            qemu_iovec_memset(qiov, qiov_offset, 0, run);
        }
        offset += run;
        qiov_offset += run;
        bytes -= run;
    }
    return 0;
}

int coroutine_fn qcow2_zoned_co_preadv_part(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            QEMUIOVector *qiov,
                                            size_t qiov_offset,
                                            BdrvRequestFlags flags)
{
    if (!qcow2_has_zones(bs) || is_beyond_disk(bs, offset)) {
        return qcow2_co_preadv_part(bs, offset, bytes, qiov, qiov_offset,
                                    flags);
    }
    return zoned_preadv(bs, offset, bytes, qiov, qiov_offset, flags);
}

bool qcow2_zoned_reads_zero(BlockDriverState *bs, int64_t offset,
                            int64_t *bytes)
{
    bool data;
    int64_t run;

    if (!qcow2_has_zones(bs) || is_beyond_disk(bs, offset)) {
        return false;
    }
    run = zone_table_run(zoned_of(bs)->table, offset, *bytes, &data);
    if (run < 0) {
        /* OFFLINE: have it read, and the error seen. */
        return false;
    }
    *bytes = run;
    return !data;
}

/* --- Writing --- */

static int coroutine_fn GRAPH_RDLOCK __attribute__((noinline))
zoned_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
              QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    ZoneWrites *zw = &zoned_of(bs)->writes;
    ZoneWrite w;
    int ret = zone_writes_begin(zw, &w, offset, bytes, false);

    if (ret < 0) {
        trace_qcow2_zoned_write_refused(bs, offset, bytes, ret);
        return ret;
    }
    ret = qcow2_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset, flags);
    return zone_writes_end(zw, &w, host_error(ret));
}

int coroutine_fn qcow2_zoned_co_pwritev_part(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             QEMUIOVector *qiov,
                                             size_t qiov_offset,
                                             BdrvRequestFlags flags)
{
    if (!qcow2_has_zones(bs) || is_beyond_disk(bs, offset)) {
        return qcow2_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset,
                                     flags);
    }
    return zoned_pwritev(bs, offset, bytes, qiov, qiov_offset, flags);
}

int coroutine_fn qcow2_zoned_co_zone_append(BlockDriverState *bs,
                                            int64_t *offset,
                                            QEMUIOVector *qiov,
                                            BdrvRequestFlags flags)
{
    Qcow2Zoned *z = zoned_of(bs);
    ZoneWrite w;
    int ret;

    if (!qcow2_has_zones(bs)) {
        return -ENOTSUP;
    }
    ret = zone_writes_begin(&z->writes, &w, *offset, qiov->size, true);
    if (ret < 0) {
        trace_qcow2_zoned_write_refused(bs, *offset, qiov->size, ret);
        return ret;
    }
    ret = qcow2_co_pwritev_part(bs, w.offset, w.bytes, qiov, 0, flags);
    ret = zone_writes_end(&z->writes, &w, host_error(ret));
    if (ret >= 0) {
        *offset = w.offset;
    }
    return ret;
}

/* Zero less than a subcluster: as data, unless all of it reads as zeros. */
static int coroutine_fn GRAPH_RDLOCK
write_zero_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = NULL;
    QEMUIOVector qiov;
    int ret;

    if (bytes == 0) {
        return 0;
    }
    ret = qcow2_co_pwrite_zeroes(bs, offset, bytes, flags);
    if (ret != -ENOTSUP) {
        return ret;
    }
    buf = g_malloc0(bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return qcow2_co_pwritev_part(bs, offset, bytes, &qiov, 0, 0);
}

/*
 * Zero a range that need not begin and end with a subcluster, as qcow2 would
 * have it.
 */
static int coroutine_fn GRAPH_RDLOCK
write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
             BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = offset + bytes;
    int64_t head_end = MIN(end, ROUND_UP(offset, s->subcluster_size));
    int64_t tail_start = end == s->zoned->geo.disk_size
                         ? end : ROUND_DOWN(end, s->subcluster_size);
    int ret;

    tail_start = MAX(tail_start, head_end);

    ret = write_zero_part(bs, offset, head_end - offset, flags);
    if (ret < 0) {
        return ret;
    }
    if (tail_start > head_end) {
        ret = qcow2_co_pwrite_zeroes(bs, head_end, tail_start - head_end,
                                     flags);
        if (ret < 0) {
            return ret;
        }
    }
    return write_zero_part(bs, tail_start, end - tail_start, flags);
}

int coroutine_fn qcow2_zoned_co_pwrite_zeroes(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags)
{
    ZoneWrite w;
    int ret;

    if (!qcow2_has_zones(bs) || is_beyond_disk(bs, offset)) {
        return qcow2_co_pwrite_zeroes(bs, offset, bytes, flags);
    }

    ret = zone_writes_begin(&zoned_of(bs)->writes, &w, offset, bytes, false);
    if (ret < 0) {
        trace_qcow2_zoned_write_refused(bs, offset, bytes, ret);
        return ret;
    }
    ret = write_zeroes(bs, offset, bytes, flags);
    return zone_writes_end(&zoned_of(bs)->writes, &w, host_error(ret));
}

int coroutine_fn qcow2_zoned_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes)
{
    Qcow2Zoned *z = zoned_of(bs);
    int64_t end;
    int ret;

    if (!qcow2_has_zones(bs)) {
        return qcow2_co_pdiscard(bs, offset, bytes);
    }

    /* Of a sequential zone only a reset discards data. */
    end = (int64_t)z->geo.nr_conventional * z->geo.zone_size;
    if (offset >= end) {
        return 0;
    }
    bytes = MIN(bytes, end - offset);

    /* It needs what a write needs: no READ-ONLY or OFFLINE zones. */
    WITH_QEMU_LOCK_GUARD(&z->writes.lock) {
        ret = zone_table_write(z->table, offset, bytes, 0);
    }
    if (ret < 0) {
        return ret;
    }
    return host_error(qcow2_co_pdiscard(bs, offset, bytes));
}

int coroutine_fn
qcow2_zoned_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                               int64_t src_offset, BdrvChild *dst,
                               int64_t dst_offset, int64_t bytes,
                               BdrvRequestFlags read_flags,
                               BdrvRequestFlags write_flags)
{
    if (qcow2_has_zones(bs)) {
        /* The caller copies by reading and writing, then. */
        return -ENOTSUP;
    }
    return qcow2_co_copy_range_from(bs, src, src_offset, dst, dst_offset,
                                    bytes, read_flags, write_flags);
}

int coroutine_fn
qcow2_zoned_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                             int64_t src_offset, BdrvChild *dst,
                             int64_t dst_offset, int64_t bytes,
                             BdrvRequestFlags read_flags,
                             BdrvRequestFlags write_flags)
{
    if (qcow2_has_zones(bs)) {
        return -ENOTSUP;
    }
    return qcow2_co_copy_range_to(bs, src, src_offset, dst, dst_offset, bytes,
                                  read_flags, write_flags);
}

int coroutine_fn
qcow2_zoned_co_pwritev_compressed_part(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       size_t qiov_offset)
{
    if (qcow2_has_zones(bs)) {
        /*
         * A compressed cluster cannot be written in part, which is what the
         * next write to a zone does.
         */
        return -ENOTSUP;
    }
    return qcow2_co_pwritev_compressed_part(bs, offset, bytes, qiov,
                                            qiov_offset);
}

/* --- The table on disk --- */

/*
 * All of this runs with table_io held, or with nothing in flight.
 *
 * The table cache holds blocks of the table as the disk has, or is to have,
 * them.  What is in it is durable below its write pointers, so it does not
 * matter when a block is written; and what a failed write left in it, a later
 * one may complete.
 */

typedef enum StagedEntries {
    STAGE_LEAVING,      /* those that stop being active */
    STAGE_ALL,
} StagedEntries;

/* Get the block with the entry of @zone; qcow2_cache_put() must follow. */
static int coroutine_mixed_fn GRAPH_RDLOCK
get_block(BlockDriverState *bs, uint32_t zone, uint64_t **block,
          uint64_t **entry)
{
    Qcow2Zoned *z = zoned_of(bs);
    uint64_t pos = (uint64_t)zone * QCOW2_ZONE_ENTRY_SIZE;
    uint64_t in_block = pos & (z->block_size - 1);
    int ret = qcow2_cache_get(bs, z->cache, z->table_offset + pos - in_block,
                              (void **)block);

    if (ret >= 0) {
        *entry = *block + in_block / QCOW2_ZONE_ENTRY_SIZE;
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
    Qcow2Zoned *z = zoned_of(bs);
    uint64_t *block, *entry;
    bool was_active, becomes_active;
    int ret;

    ret = get_block(bs, zone, &block, &entry);
    if (ret < 0) {
        return ret;
    }
    was_active = is_active(z, zone, *entry);
    becomes_active = is_active(z, zone, new_entry);
    if (*entry != new_entry &&
        (which == STAGE_ALL || (was_active && !becomes_active))) {
        *entry = new_entry;
        qcow2_cache_entry_mark_dirty(z->cache, block);
        z->disk_active += !was_active && becomes_active;
        z->disk_freed_staged += was_active && !becomes_active;
    }
    qcow2_cache_put(z->cache, (void **)&block);
    return 0;
}

/* Write what is staged.  Durable after the next flush_image_file(). */
static int coroutine_mixed_fn GRAPH_RDLOCK write_staged(BlockDriverState *bs)
{
    Qcow2Zoned *z = zoned_of(bs);
    int ret = qcow2_cache_write(bs, z->cache);

    if (ret >= 0) {
        z->disk_freed_written += z->disk_freed_staged;
        z->disk_freed_staged = 0;
    }
    return ret;
}

static int coroutine_mixed_fn GRAPH_RDLOCK
flush_image_file(BlockDriverState *bs)
{
    Qcow2Zoned *z = zoned_of(bs);
    int ret = bdrv_flush(bs->file->bs);

    if (ret >= 0) {
        z->disk_active -= z->disk_freed_written;
        z->disk_freed_written = 0;
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
    Qcow2Zoned *z = zoned_of(bs);

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
    Qcow2Zoned *z = zoned_of(bs);
    int64_t entering = 0;

    for (guint i = 0; i < z->snapshot->len; i++) {
        ZoneEntry *e = &g_array_index(z->snapshot, ZoneEntry, i);
        uint64_t *block, *entry;
        int ret;

        if (!zone_table_entry_is_active(z->table, e->zone, e->wp,
                                        e->attributes)) {
            continue;
        }
        ret = get_block(bs, e->zone, &block, &entry);
        if (ret < 0) {
            return ret;
        }
        entering += !is_active(z, e->zone, *entry);
        qcow2_cache_put(z->cache, (void **)&block);
    }
    return entering;
}

/*
 * Write the table blocks that the snapshot changes, once what lies below its
 * write pointers is durable.
 *
 * If the snapshot has zones that take over active slots of others, these must
 * be free on disk first: no power cut may leave more active zones than the
 * limit allows, since Linux would refuse the disk.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK store_snapshot(BlockDriverState *bs)
{
    Qcow2Zoned *z = zoned_of(bs);
    int ret;

    ret = make_durable(bs);
    if (ret < 0) {
        return ret;
    }

    if (z->geo.max_active) {
        int64_t entering = count_entering(bs);

        if (entering < 0) {
            return entering;
        }
        if (entering && z->disk_active + entering > z->geo.max_active) {
            ret = stage_snapshot(bs, STAGE_LEAVING);
            if (ret >= 0) {
                ret = write_staged(bs);
            }
            if (ret >= 0) {
                ret = flush_image_file(bs);
            }
            if (ret < 0) {
                return ret;
            }
        }
    }

    ret = stage_snapshot(bs, STAGE_ALL);
    if (ret < 0) {
        return ret;
    }
    return write_staged(bs);
}

/* The entries of the snapshot could not be stored: next time. */
static void give_back_snapshot(Qcow2Zoned *z)
{
    for (guint i = 0; i < z->snapshot->len; i++) {
        zone_writes_set_dirty(&z->writes,
                              g_array_index(z->snapshot, ZoneEntry, i).zone);
    }
}

/* Have the table, when it is next durable, say what memory says now. */
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

    if (ret >= 0 && z->snapshot->len) {
        ret = store_snapshot(bs);
    }
    if (ret < 0) {
        give_back_snapshot(z);
    } else {
        z->table_is_off = false;
    }
    return ret;
}

int coroutine_fn qcow2_zoned_co_flush_to_os(BlockDriverState *bs)
{
    QEMU_LOCK_GUARD(&zoned_of(bs)->table_io);
    return host_error(store_dirty_zones(bs));
}

/*
 * Once all write pointers are stored, store which zones are explicitly open.
 * The snapshot gets them, too, so that this can be taken back.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
store_explicitly_open(BlockDriverState *bs)
{
    Qcow2Zoned *z = zoned_of(bs);
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
    return write_staged(bs);
}

int coroutine_mixed_fn qcow2_zoned_inactivate(BlockDriverState *bs)
{
    Qcow2Zoned *z = zoned_of(bs);
    int ret;

    if (!qcow2_has_zones(bs)) {
        return 0;
    }
    if (qatomic_read(&bs->in_flight)) {
        /* Asked for by a monitor command, without draining first */
        return -EBUSY;
    }

    zone_writes_take_dirty(&z->writes, z->snapshot);
    if (!z->snapshot->len && !z->handing_over) {
        return 0;
    }
    ret = qcow2_write_caches(bs);
    if (ret >= 0) {
        ret = store_snapshot(bs);
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
    Qcow2Zoned *z = zoned_of(bs);
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

/* --- Zone operations --- */

int coroutine_fn qcow2_zoned_co_zone_report(BlockDriverState *bs,
                                            int64_t offset,
                                            unsigned int *nr_zones,
                                            BlockZoneDescriptor *zones)
{
    Qcow2Zoned *z = zoned_of(bs);
    unsigned int done = 0;
    uint32_t first, count;

    if (!qcow2_has_zones(bs)) {
        return -ENOTSUP;
    }
    if (offset < 0 || offset > z->geo.disk_size) {
        return -EINVAL;
    }
    if (offset == z->geo.disk_size) {
        *nr_zones = 0;
        return 0;
    }

    first = zone_table_index(z->table, offset);
    count = MIN(*nr_zones, z->geo.nr_zones - first);
    while (done < count) {
        unsigned int end = MIN(count, done + LOCK_BATCH);

        QEMU_LOCK_GUARD(&z->writes.lock);
        for (; done < end; done++) {
            zone_table_describe(z->table, first + done, &zones[done]);
        }
    }
    *nr_zones = done;
    return 0;
}

/* Stage the entries that finish or reset of @range brings about. */
static int coroutine_fn GRAPH_RDLOCK
stage_range(BlockDriverState *bs, BlockZoneOp op, ZoneRange range)
{
    Qcow2Zoned *z = zoned_of(bs);

    for (uint32_t i = 0; i < range.count; i++) {
        uint32_t zone = range.first + i;
        uint64_t wp = zone_table_start(z->table, zone);
        unsigned attributes = 0;
        int ret;

        if (op == BLK_ZO_FINISH) {
            uint64_t *block, *entry;

            /*
             * The write pointer that is durable.  If the zone has a higher
             * one, it stays dirty, and the next flush stores that.  This is
             * so for a zone that writes have filled since the last one, too.
             */
            ret = get_block(bs, zone, &block, &entry);
            if (ret < 0) {
                return ret;
            }
            wp = qcow2_zoned_decode(*entry, &attributes);
            qcow2_cache_put(z->cache, (void **)&block);
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
    for (uint32_t done = 0; done < range.count; done += LOCK_BATCH) {
        ZoneRange batch = {
            .first = range.first + done,
            .count = MIN(LOCK_BATCH, range.count - done),
        };

        QEMU_LOCK_GUARD(&z->writes.lock);
        zone_table_apply(z->table, op, batch);
    }
}

/* Finish or reset the zones of @range, which are held. */
static int coroutine_fn GRAPH_RDLOCK
store_and_apply(BlockDriverState *bs, BlockZoneOp op, ZoneRange range)
{
    Qcow2Zoned *z = zoned_of(bs);
    int ret;

    QEMU_LOCK_GUARD(&z->table_io);

    if (z->table_is_off) {
        ret = store_dirty_zones(bs);
        if (ret < 0) {
            return host_error(ret);
        }
    }

    ret = stage_range(bs, op, range);
    if (ret >= 0) {
        ret = write_staged(bs);
    }
    if (ret >= 0) {
        ret = flush_image_file(bs);
    }
    if (ret < 0) {
        give_back_range(z, op, range);
        return host_error(ret);
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

static int coroutine_fn GRAPH_RDLOCK
finish_or_reset(BlockDriverState *bs, BlockZoneOp op, ZoneRange range)
{
    Qcow2Zoned *z = zoned_of(bs);
    int ret;

    QEMU_LOCK_GUARD(&z->management);

    zone_writes_hold(&z->writes, range);
    ret = store_and_apply(bs, op, range);
    zone_writes_release(&z->writes);
    return ret;
}

int coroutine_fn qcow2_zoned_co_zone_mgmt(BlockDriverState *bs,
                                          BlockZoneOp op, int64_t offset,
                                          int64_t len)
{
    Qcow2Zoned *z = zoned_of(bs);
    bool in_memory = op == BLK_ZO_OPEN || op == BLK_ZO_CLOSE;
    ZoneRange range;
    int ret;

    if (!qcow2_has_zones(bs)) {
        return -ENOTSUP;
    }

    WITH_QEMU_LOCK_GUARD(&z->writes.lock) {
        ret = zone_table_check(z->table, op, offset, len, &range);
        if (ret >= 0 && in_memory) {
            zone_table_apply(z->table, op, range);
        }
    }
    if (ret >= 0 && !in_memory) {
        ret = finish_or_reset(bs, op, range);
    }
    if (ret < 0) {
        trace_qcow2_zoned_mgmt_failed(bs, op, offset, len, ret);
    }
    return ret;
}
