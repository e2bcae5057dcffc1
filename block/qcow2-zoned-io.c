/*
 * Zoned qcow2 images: requests
 *
 * Puts the rules of zone-table and the order of zone-writes in front of the
 * data path of qcow2.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qemu/lockable.h"
#include "qcow2.h"
#include "qcow2-zoned.h"
#include "trace.h"

void qcow2_zoned_refresh_limits(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
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
    return offset >= zone_table_disk_size(qcow2_zoned_of(bs)->table);
}

static int coroutine_fn GRAPH_RDLOCK __attribute__((noinline))
zoned_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
             QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int64_t on_disk = zone_table_disk_size(qcow2_zoned_of(bs)->table) - offset;

    /* Copy on write reads whole clusters, also beyond the end of the disk. */
    if (bytes > on_disk) {
        qemu_iovec_memset(qiov, qiov_offset + on_disk, 0, bytes - on_disk);
        bytes = on_disk;
    }

    while (bytes > 0) {
        bool data;
        int64_t run = zone_table_run(qcow2_zoned_of(bs)->table, offset, bytes,
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
    run = zone_table_run(qcow2_zoned_of(bs)->table, offset, *bytes, &data);
    if (run < 0) {
        /* OFFLINE: have it read, and the error seen. */
        return false;
    }
    *bytes = run;
    return !data;
}

/* --- Writing --- */

/*
 * Write data where @w, which covers it, has been admitted: into clusters that
 * are mapped ahead of the write pointer, past what qcow2 does about clusters
 * that are not.
 */
static int coroutine_fn GRAPH_RDLOCK
write_data(BlockDriverState *bs, const ZoneWrite *w, int64_t offset,
           int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
           BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;

    while (bytes > 0 && zone_write_is_sequential(w)) {
        int64_t run = bytes;
        int64_t host_offset = qcow2_zoned_map(bs, offset, &run);
        int ret;

        if (host_offset < 0) {
            if (!bs->drv) {
                return host_offset;     /* The image was found corrupt. */
            }
            /* No room for a window; for the clusters of this write, perhaps */
            break;
        }
        if (s->crypto) {
            ret = qcow2_co_pwritev_part(bs, offset, run, qiov, qiov_offset,
                                        flags);
        } else {
            BLKDBG_CO_EVENT(bs->file, BLKDBG_WRITE_AIO);
            ret = bdrv_co_pwritev_part(s->data_file, host_offset, run, qiov,
                                       qiov_offset, 0);
        }
        if (ret < 0) {
            return ret;
        }
        offset += run;
        qiov_offset += run;
        bytes -= run;
    }
    return bytes ? qcow2_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset,
                                         flags) : 0;
}

static int coroutine_fn GRAPH_RDLOCK __attribute__((noinline))
zoned_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
              QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    ZoneWrites *zw = &qcow2_zoned_of(bs)->writes;
    ZoneWrite w;
    int ret = zone_writes_begin(zw, &w, offset, bytes, false);

    if (ret < 0) {
        trace_qcow2_zoned_write_refused(bs, offset, bytes, ret);
        return ret;
    }
    ret = write_data(bs, &w, offset, bytes, qiov, qiov_offset, flags);
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
    Qcow2Zoned *z = qcow2_zoned_of(bs);
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
    ret = write_data(bs, &w, w.offset, w.bytes, qiov, 0, flags);
    ret = zone_writes_end(&z->writes, &w, host_error(ret));
    if (ret >= 0) {
        *offset = w.offset;
    }
    return ret;
}

/* Zero less than a cluster, by what @w says about its zone. */
static int coroutine_fn GRAPH_RDLOCK
write_zero_part(BlockDriverState *bs, const ZoneWrite *w, int64_t offset,
                int64_t bytes, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = NULL;
    QEMUIOVector qiov;

    if (bytes == 0) {
        return 0;
    }
    if (!zone_write_is_sequential(w)) {
        int ret = qcow2_co_pwrite_zeroes(bs, offset, bytes, flags);

        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    buf = g_malloc0(bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return write_data(bs, w, offset, bytes, &qiov, 0, 0);
}

/*
 * Zero the range of @w, which need not begin and end with a cluster, as qcow2
 * would have it.
 *
 * In a sequential zone, what shares a cluster with other writes is written as
 * data, always: the cluster's entry says nothing about it while one of them
 * is on its way to map it.
 */
static int coroutine_fn GRAPH_RDLOCK
write_zeroes(BlockDriverState *bs, const ZoneWrite *w, BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = w->offset + w->bytes;
    int64_t unit = zone_write_is_sequential(w) ? s->cluster_size
                                               : s->subcluster_size;
    int64_t head_end = MIN(end, ROUND_UP(w->offset, unit));
    int64_t tail_start = end == zone_table_disk_size(s->zoned->table)
                         ? end : ROUND_DOWN(end, unit);
    int ret;

    tail_start = MAX(tail_start, head_end);

    ret = write_zero_part(bs, w, w->offset, head_end - w->offset, flags);
    if (ret < 0) {
        return ret;
    }
    if (tail_start > head_end) {
        ret = qcow2_co_pwrite_zeroes(bs, head_end, tail_start - head_end,
                                     flags);
        qcow2_zoned_forget_window(bs, head_end);
        if (ret < 0) {
            return ret;
        }
    }
    return write_zero_part(bs, w, tail_start, end - tail_start, flags);
}

int coroutine_fn qcow2_zoned_co_pwrite_zeroes(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    ZoneWrite w;
    int ret;

    if (!qcow2_has_zones(bs) || is_beyond_disk(bs, offset)) {
        return qcow2_co_pwrite_zeroes(bs, offset, bytes, flags);
    }

    ret = zone_writes_begin(&z->writes, &w, offset, bytes, false);
    if (ret < 0) {
        trace_qcow2_zoned_write_refused(bs, offset, bytes, ret);
        return ret;
    }
    ret = write_zeroes(bs, &w, flags);
    return zone_writes_end(&z->writes, &w, host_error(ret));
}

static int coroutine_fn GRAPH_RDLOCK
discard_conventional(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    /* It needs what a write needs: no READ-ONLY or OFFLINE zones. */
    WITH_QEMU_LOCK_GUARD(&z->writes.lock) {
        ret = zone_table_write(z->table, offset, bytes, 0);
    }
    return ret < 0 ? ret : host_error(qcow2_co_pdiscard(bs, offset, bytes));
}

int coroutine_fn qcow2_zoned_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int64_t sequential;
    int ret = 0;

    if (!qcow2_has_zones(bs)) {
        return qcow2_co_pdiscard(bs, offset, bytes);
    }

    sequential = (int64_t)z->geo.nr_conventional * z->geo.zone_size;
    if (offset < sequential) {
        int64_t n = MIN(bytes, sequential - offset);

        ret = discard_conventional(bs, offset, n);
        offset += n;
        bytes -= n;
    }
    if (ret >= 0 && bytes > 0) {
        /* Of a sequential zone only a reset discards data. */
        qcow2_zoned_trim(bs, offset, bytes);
    }
    return ret;
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

/* --- Zone operations --- */

int coroutine_fn qcow2_zoned_co_zone_report(BlockDriverState *bs,
                                            int64_t offset,
                                            unsigned int *nr_zones,
                                            BlockZoneDescriptor *zones)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    unsigned int done = 0;
    uint32_t first, last, count;
    uint64_t disk_size;

    if (!qcow2_has_zones(bs)) {
        return -ENOTSUP;
    }
    disk_size = zone_table_disk_size(z->table);
    if (offset < 0 || offset > disk_size) {
        return -EINVAL;
    }
    if (offset == disk_size) {
        *nr_zones = 0;
        return 0;
    }

    first = zone_table_index(z->table, offset);
    last = zone_table_index(z->table, disk_size - 1);
    count = MIN(*nr_zones, last - first + 1);
    while (done < count) {
        unsigned int end = MIN(count, done + QCOW2_ZONED_LOCK_BATCH);

        QEMU_LOCK_GUARD(&z->writes.lock);
        for (; done < end; done++) {
            zone_table_describe(z->table, first + done, &zones[done]);
        }
    }
    *nr_zones = done;
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK
finish_or_reset(BlockDriverState *bs, BlockZoneOp op, ZoneRange range)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    QEMU_LOCK_GUARD(&z->management);

    zone_writes_hold(&z->writes, range);
    ret = host_error(qcow2_zoned_store_op(bs, op, range));
    zone_writes_release(&z->writes);
    if (ret >= 0 && op != BLK_ZO_FINISH) {
        qcow2_zoned_trim_later(bs, range);
    }
    return ret;
}

int coroutine_fn qcow2_zoned_co_zone_mgmt(BlockDriverState *bs,
                                          BlockZoneOp op, int64_t offset,
                                          int64_t len)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
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

int coroutine_fn qcow2_zoned_co_flush_to_os(BlockDriverState *bs)
{
    return host_error(qcow2_zoned_store_dirty(bs));
}
