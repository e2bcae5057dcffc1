/*
 * Zoned qcow2 images: clusters ahead of the write pointers
 *
 * What lies above a write pointer is never read, so it does not matter what
 * clusters that are mapped there hold.  Hence sequential zones are mapped a
 * window at a time: the writes that follow overwrite clusters in place, with
 * nothing to copy, zero, allocate or wait for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/hbitmap.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "qemu/units.h"
#include "qcow2.h"
#include "qcow2-zoned.h"
#include "trace.h"

/*
 * A window is as long as what the zone has got already: a zone that is hardly
 * used does not take much of the file, and one that is filled seldom comes
 * here.
 */
#define WINDOW_MIN (1 * MiB)
#define WINDOW_MAX (8 * MiB)

/* Bytes of L2 tables that are allocated at a time, at most, but at least one */
#define L2_TABLES_MAX (1 * MiB)

/* Of a window that begins @pos behind the start of its zone, at most */
static int64_t window_size(int64_t pos)
{
    return MIN(WINDOW_MAX, MAX(WINDOW_MIN, pow2floor(pos + 1)));
}

static Qcow2ZonedWindow *window_slot(Qcow2Zoned *z, int64_t offset)
{
    return &z->windows[zone_table_index(z->table, offset) %
                       QCOW2_ZONED_WINDOWS];
}

/*
 * Where @offset is in the data file, if @w has it, else -1; clamps *@bytes to
 * what the window has of it.
 */
static int64_t in_window(const Qcow2ZonedWindow *w, int64_t offset,
                         int64_t *bytes)
{
    int64_t in_window = offset - w->offset;

    if (in_window < 0 || in_window >= w->bytes) {
        return -1;
    }
    *bytes = MIN(*bytes, w->bytes - in_window);
    return w->host_offset + in_window;
}

static int64_t find_window(Qcow2Zoned *z, int64_t offset, int64_t *bytes)
{
    const Qcow2ZonedWindow *slot = window_slot(z, offset);
    Qcow2ZonedWindow w;
    unsigned int start;

    do {
        start = seqlock_read_begin(&z->windows_seq);
        w.offset = qatomic_read_i64(&slot->offset);
        w.bytes = qatomic_read_i64(&slot->bytes);
        w.host_offset = qatomic_read_i64(&slot->host_offset);
    } while (seqlock_read_retry(&z->windows_seq, start));

    return in_window(&w, offset, bytes);
}

/* s->lock is held. */
static void set_window(Qcow2Zoned *z, const Qcow2ZonedWindow *w)
{
    Qcow2ZonedWindow *slot = window_slot(z, w->offset);

    seqlock_write_begin(&z->windows_seq);
    qatomic_set_i64(&slot->offset, w->offset);
    qatomic_set_i64(&slot->bytes, w->bytes);
    qatomic_set_i64(&slot->host_offset, w->host_offset);
    seqlock_write_end(&z->windows_seq);
}

void coroutine_fn qcow2_zoned_forget_window(BlockDriverState *bs,
                                            int64_t offset)
{
    BDRVQcow2State *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    set_window(s->zoned, &(Qcow2ZonedWindow) { .offset = offset });
    s->zoned->windows_forgotten++;
}

void qcow2_zoned_forget_windows(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    seqlock_write_begin(&z->windows_seq);
    for (int i = 0; i < QCOW2_ZONED_WINDOWS; i++) {
        qatomic_set_i64(&z->windows[i].bytes, 0);
    }
    seqlock_write_end(&z->windows_seq);
    z->windows_forgotten++;
}

/*
 * The end of the window that a write of @bytes at @offset begins, at most.
 *
 * Beyond the write's own clusters it stops where clusters read as zeros: a
 * write that comes later, and is faster, may have zeroed them.
 */
static int64_t coroutine_fn GRAPH_RDLOCK
window_end(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    uint32_t zone = zone_table_index(z->table, offset);
    int64_t start = zone_table_start(z->table, zone);
    int64_t limit = ROUND_UP(start + zone_table_capacity(z->table, zone),
                             s->cluster_size);
    int64_t own_end = ROUND_UP(offset + bytes, s->cluster_size);
    int64_t end = ROUND_UP(offset + window_size(offset - start),
                           s->cluster_size);
    QCow2SubclusterType type;
    uint64_t host_offset;
    unsigned int ahead;

    end = MIN(end, limit);
    if (end <= own_end) {
        return own_end;
    }
    ahead = end - own_end;
    if (qcow2_get_host_offset(bs, own_end, &ahead, &host_offset, &type) < 0) {
        return own_end;
    }
    switch (type) {
    case QCOW2_SUBCLUSTER_NORMAL:
    case QCOW2_SUBCLUSTER_UNALLOCATED_PLAIN:
    case QCOW2_SUBCLUSTER_UNALLOCATED_ALLOC:
        return own_end + ROUND_DOWN(ahead, s->cluster_size);
    default:
        return own_end;
    }
}

/*
 * Extend the image file to @end.  A check takes a cluster beyond its end for a
 * corruption.  No power cut can bring that about: whatever links clusters has
 * the L2 cache flush the file first, for the sake of the refcounts if nothing
 * else.
 */
static int coroutine_fn GRAPH_RDLOCK
extend_file(BlockDriverState *bs, int64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t length = bdrv_co_getlength(bs->file->bs);
    int64_t block = MIN(MAX(BDRV_SECTOR_SIZE,
                            bs->file->bs->bl.request_alignment),
                        s->cluster_size);
    g_autofree uint8_t *zeroes = NULL;

    if (length < 0) {
        return length;
    }
    if (end > length) {
        zeroes = g_malloc0(block);
        return bdrv_co_pwrite(bs->file, end - block, block, zeroes, 0);
    }
    return 0;
}

/*
 * Allocate clusters for L2 tables, @bytes of them in a row.  Returns where they
 * are, with their refcounts and zeros durable.
 */
static int64_t coroutine_fn GRAPH_RDLOCK
allocate_zeros(BlockDriverState *bs, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t free_index = s->free_cluster_index;
    int64_t offset = qcow2_alloc_clusters(bs, bytes);
    int ret;

    if (offset < 0) {
        ret = offset;
        goto fail;
    }
    if (offset == 0) {
        qcow2_signal_corruption(bs, true, -1, -1, "Preventing invalid "
                                "allocation of L2 tables at offset 0");
        return -EIO;
    }
    ret = qcow2_pre_write_overlap_check(bs, 0, offset, bytes, false);
    if (ret < 0) {
        return ret;
    }

    /* If refcounts are wrong, a table of a snapshot may be cached there */
    qcow2_cache_discard_range(s->l2_table_cache, offset, bytes);

    BLKDBG_CO_EVENT(bs->file, BLKDBG_L2_ALLOC_WRITE);
    ret = bdrv_co_pwrite_zeroes(bs->file, offset, bytes, 0);
    if (ret == 0) {
        ret = qcow2_cache_flush(bs, s->refcount_block_cache);
    }
    if (ret < 0) {
        qcow2_free_clusters(bs, offset, bytes, QCOW2_DISCARD_ALWAYS);
        goto fail;
    }
    return offset;

fail:
    /* A smaller hole may do for who tries with less. */
    s->free_cluster_index = MIN(free_index, s->free_cluster_index);
    return ret;
}

/*
 * Write entries of the L1 table, without waiting for them to be durable.  They
 * are not aligned to what the image file may need, since this is seldom done.
 */
static int coroutine_fn GRAPH_RDLOCK
write_l1_entries(BlockDriverState *bs, uint64_t first, uint64_t count)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = s->l1_table_offset + first * L1E_SIZE;
    g_autofree uint64_t *entries = g_new(uint64_t, count);
    int ret;

    for (uint64_t i = 0; i < count; i++) {
        entries[i] = cpu_to_be64(s->l1_table[first + i]);
    }
    ret = qcow2_pre_write_overlap_check(bs, QCOW2_OL_ACTIVE_L1, offset,
                                        count * L1E_SIZE, false);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_L1_UPDATE);
    return bdrv_co_pwrite(bs->file, offset, count * L1E_SIZE, entries, 0);
}

/*
 * Allocate the L2 table of @offset, unless there is one, and more of those that
 * are missing behind it.  s->lock is held.
 *
 * qcow2_alloc_host_offset() would allocate them one by one and flush the image
 * file three times for each.  All of these are flushed once, since only one
 * order matters: no power cut may leave an L1 entry without the refcounts and
 * the zeros of its table.
 */
static int coroutine_fn GRAPH_RDLOCK
allocate_l2_tables(BlockDriverState *bs, int64_t offset)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    uint64_t first = offset_to_l1_index(s, offset);
    uint64_t max = MAX(1, L2_TABLES_MAX >> s->cluster_bits);
    uint64_t end = MIN(first + max, s->l1_vm_state_index);
    uint64_t count = 0;
    int64_t tables;
    int ret;

    while (first + count < end && !s->l1_table[first + count]) {
        count++;
    }
    if (!count || z->l1_writes_fail) {
        return 0;
    }
    tables = allocate_zeros(bs, count << s->cluster_bits);
    trace_qcow2_zoned_l2_tables(bs, first, count, tables);
    if (tables < 0) {
        return tables;
    }

    for (uint64_t i = 0; i < count; i++) {
        s->l1_table[first + i] = (tables + (i << s->cluster_bits)) |
                                 QCOW_OFLAG_COPIED;
    }
    ret = write_l1_entries(bs, first, count);
    if (ret < 0) {
        /*
         * The disk may have them, so nothing else may get their clusters.  No
         * more are wasted like this, but the one at a time that
         * qcow2_alloc_host_offset() takes.
         */
        memset(s->l1_table + first, 0, count * L1E_SIZE);
        z->l1_writes_fail = true;
    }
    return ret;
}

/*
 * Map clusters for a write of @bytes at @offset, and more, to @w.  s->lock is
 * held.
 */
static int coroutine_fn GRAPH_RDLOCK
map_window(BlockDriverState *bs, int64_t offset, int64_t bytes,
           Qcow2ZonedWindow *w)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    unsigned int forgotten = z->windows_forgotten;
    QCowL2Meta *l2meta = NULL;
    uint64_t host_offset;
    unsigned int mapped;
    int ret;

    ret = allocate_l2_tables(bs, offset);
    if (ret < 0) {
        return ret;
    }
    mapped = MIN(window_end(bs, offset, bytes) - offset, INT_MAX);
    ret = qcow2_alloc_host_offset(bs, offset, &mapped, &host_offset, &l2meta);
    if (ret < 0) {
        goto out;
    }
    ret = qcow2_pre_write_overlap_check(bs, 0, host_offset, mapped, true);
    if (ret < 0) {
        goto out;
    }
    if (l2meta && !has_data_file(bs)) {
        ret = extend_file(bs, ROUND_UP(host_offset + mapped, s->cluster_size));
        if (ret < 0) {
            goto out;
        }
    }
    ret = qcow2_handle_l2meta(bs, &l2meta, true);
    if (ret < 0) {
        goto out;
    }
    *w = (Qcow2ZonedWindow) {
        .offset = offset,
        .bytes = mapped,
        .host_offset = host_offset,
    };
    /*
     * The lock was dropped if something had to be copied.  Then a later write
     * may have zeroed and unmapped clusters that were linked before.
     */
    if (z->windows_forgotten == forgotten) {
        set_window(z, w);
    }
    trace_qcow2_zoned_map(bs, offset, mapped, host_offset);

out:
    qcow2_handle_l2meta(bs, &l2meta, false);
    return ret;
}

/*
 * Wait for the allocating writes in flight that qcow2_alloc_host_offset() would
 * wait for, or stop at, in [@offset, @offset + @bytes).  s->lock is held, but
 * not while waiting.
 */
static void coroutine_fn wait_for_allocations(BlockDriverState *bs,
                                              uint64_t offset, uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    QCowL2Meta *m = QLIST_FIRST(&s->cluster_allocs);

    while (m) {
        uint64_t start = l2meta_cow_start(m);
        uint64_t end = l2meta_cow_end(m);

        if (!m->keep_old_clusters) {
            start = start_of_cluster(s, start);
            end = ROUND_UP(end, s->cluster_size);
        }
        if (start < offset + bytes && offset < end) {
            qemu_co_queue_wait(&m->dependent_requests, &s->lock);
            m = QLIST_FIRST(&s->cluster_allocs);
        } else {
            m = QLIST_NEXT(m, next_in_flight);
        }
    }
}

int64_t coroutine_fn qcow2_zoned_map(BlockDriverState *bs, int64_t offset,
                                     int64_t *bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t host_offset = find_window(s->zoned, offset, bytes);
    Qcow2ZonedWindow w;
    int ret;

    if (host_offset >= 0) {
        return host_offset;
    }

    QEMU_LOCK_GUARD(&s->lock);

    /*
     * Here, since what is found ahead would be out of date if
     * qcow2_alloc_host_offset() had to wait.
     */
    wait_for_allocations(bs, offset, *bytes + WINDOW_MAX);

    /* Another write of the zone may have mapped it meanwhile. */
    host_offset = find_window(s->zoned, offset, bytes);
    if (host_offset >= 0) {
        return host_offset;
    }
    ret = map_window(bs, offset, *bytes, &w);
    return ret < 0 ? ret : in_window(&w, offset, bytes);
}

/* --- Measuring --- */

/*
 * The end of what is mapped, at most, when the data of a sequential zone has
 * been written up to @end, or 0 if the zone there is conventional
 */
static int64_t mapped_end(const ZoneGeometry *geo, int64_t end,
                          size_t cluster_size)
{
    uint32_t zone = (end - 1) / geo->zone_size;
    int64_t start = zone * geo->zone_size;
    int64_t limit = start + zone_geometry_capacity(geo, zone);

    if (zone < geo->nr_conventional) {
        return 0;
    }
    limit = MIN(limit, end + window_size(end - start));
    return MAX(ROUND_UP(end, cluster_size), ROUND_UP(limit, cluster_size));
}

int64_t qcow2_zoned_measure_ahead(const ZoneGeometry *geo,
                                  BlockDriverState *in_bs, size_t cluster_size,
                                  Error **errp)
{
    int64_t length = bdrv_getlength(in_bs);
    int64_t mapped = 0;     /* up to here, once written so far */
    int64_t ahead = 0;
    int64_t run;

    if (length < 0) {
        error_setg_errno(errp, -length, "Unable to get image virtual_size");
        return length;
    }
    for (int64_t offset = 0; offset < length; offset += run) {
        int ret = bdrv_block_status_above(in_bs, NULL, offset, length - offset,
                                          &run, NULL, NULL);
        int64_t start, end, mapped_before = mapped;

        if (ret < 0) {
            error_setg_errno(errp, -ret, "Unable to get block status");
            return ret;
        }
        start = ROUND_DOWN(offset, cluster_size);
        end = ROUND_UP(offset + run, cluster_size);
        if ((ret & BDRV_BLOCK_ZERO) || !(ret & BDRV_BLOCK_DATA)) {
            if (in_bs->bl.zoned == BLK_Z_NONE || end == offset + run) {
                continue;
            }
            /* Zeros may be written up to a write pointer here. */
            start = end - cluster_size;
            ahead += cluster_size;
        }
        /*
         * Clusters that turn out to be in a gap of the data are freed, but
         * may be too few for the windows to come.
         */
        mapped = MAX(mapped, mapped_end(geo, offset + run, cluster_size));
        ahead += MAX(0, mapped - end) - MAX(0, mapped_before - start);
        run = end - offset;
    }
    return ahead;
}

/* --- Giving space back --- */

/* Zones are held while this much is trimmed, or one of them. */
#define TRIM_STEP (256 * MiB)

/*
 * Find in the image file what @offset is mapped to.  Clamps *@bytes to a run
 * that is alike.  Returns whether it has clusters that nothing else uses.
 */
static bool coroutine_fn GRAPH_RDLOCK
find_own_clusters(BlockDriverState *bs, int64_t offset, int64_t *bytes,
                  uint64_t *host_offset)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned int run = MIN(*bytes, INT_MAX);
    QCow2SubclusterType type;

    QEMU_LOCK_GUARD(&s->lock);
    if (qcow2_get_host_offset(bs, offset, &run, host_offset, &type) < 0) {
        return false;
    }
    *bytes = run;
    if (type != QCOW2_SUBCLUSTER_NORMAL &&
        type != QCOW2_SUBCLUSTER_ZERO_ALLOC &&
        type != QCOW2_SUBCLUSTER_UNALLOCATED_ALLOC) {
        return false;
    }
    for (int64_t pos = 0; pos < *bytes && !has_data_file(bs);
         pos += s->cluster_size) {
        uint64_t refcount;
        int ret = qcow2_get_refcount(bs, (*host_offset + pos) >>
                                     s->cluster_bits, &refcount);

        if (ret < 0 || refcount != 1) {
            *bytes = pos ?: MIN(*bytes, s->cluster_size);
            if (!pos) {
                return false;
            }
        }
    }
    return has_data_file(bs) ||
           !qcow2_check_metadata_overlap(bs, 0, *host_offset, *bytes);
}

/*
 * Discard in the data file what the clusters of a range hold.  They stay
 * mapped, so that a read that is still on its way from before a reset cannot
 * see what is not its zone's.
 */
static void coroutine_fn GRAPH_RDLOCK
discard_clusters(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;

    while (bytes > 0) {
        uint64_t host_offset;
        int64_t run = bytes;

        if (find_own_clusters(bs, offset, &run, &host_offset)) {
            /* That it fails only means that the host keeps the space. */
            bdrv_co_pdiscard(s->data_file, host_offset, run);
        }
        offset += run;
        bytes -= run;
    }
}

/*
 * Trim what of the range from @offset to @end lies above write pointers.
 * z->management is held.
 */
static void coroutine_fn GRAPH_RDLOCK
trim_step(BlockDriverState *bs, int64_t offset, int64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    ZoneTable *t = s->zoned->table;
    uint32_t first = zone_table_index(t, offset);
    uint32_t last = zone_table_index(t, end - 1);
    ZoneRange zones = { .first = first, .count = last - first + 1 };

    zone_writes_hold(&s->zoned->writes, zones);
    for (uint32_t zone = first; zone <= last; zone++) {
        int64_t zone_end = zone_table_start(t, zone) +
                           zone_table_length(t, zone);
        int64_t from = MAX(offset, ROUND_UP(zone_table_wp(t, zone),
                                            s->cluster_size));
        int64_t to = ROUND_DOWN(MIN(end, zone_end), s->cluster_size);

        if (!(zone_table_attributes(t, zone) & ~ZONE_FINISHED) && from < to) {
            discard_clusters(bs, from, to - from);
        }
    }
    zone_writes_release(&s->zoned->writes);
}

void coroutine_fn qcow2_zoned_trim(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int64_t end = offset + bytes;

    while (offset < end) {
        int64_t step_end = MIN(end, offset + TRIM_STEP);

        WITH_QEMU_LOCK_GUARD(&z->management) {
            trim_step(bs, offset, step_end);
        }
        offset = step_end;
    }
}

/* Trim some of what qcow2_zoned_trim_later() left.  Is there any more? */
static bool coroutine_fn GRAPH_RDLOCK trim_some(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int64_t first, count, last;

    QEMU_LOCK_GUARD(&z->management);
    if (!hbitmap_next_dirty_area(z->to_trim, 0, z->geo.nr_zones,
                                 MAX(1, TRIM_STEP / z->geo.zone_size),
                                 &first, &count)) {
        z->trimming = false;
        return false;
    }
    last = first + count - 1;
    trim_step(bs, zone_table_start(z->table, first),
              zone_table_start(z->table, last) +
              zone_table_length(z->table, last));
    hbitmap_reset(z->to_trim, first, count);
    return true;
}

static void coroutine_fn trim_entry(void *opaque)
{
    BlockDriverState *bs = opaque;
    bool more = true;

    while (more) {
        WITH_GRAPH_RDLOCK_GUARD() {
            /* Without its driver, it has been found corrupt meanwhile. */
            more = bs->drv && trim_some(bs);
        }
        /* Nothing may be there to wait for in terabytes of unmapped zones. */
        aio_co_schedule(bdrv_get_aio_context(bs), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    bdrv_dec_in_flight(bs);
}

void coroutine_fn qcow2_zoned_trim_later(BlockDriverState *bs, ZoneRange zones)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    if (!(bs->open_flags & BDRV_O_UNMAP)) {
        return;
    }
    if (!z->to_trim) {
        z->to_trim = hbitmap_alloc(z->geo.nr_zones, 0);
    }
    hbitmap_set(z->to_trim, zones.first, zones.count);
    if (!z->trimming) {
        z->trimming = true;
        bdrv_inc_in_flight(bs);
        aio_co_enter(bdrv_get_aio_context(bs),
                     qemu_coroutine_create(trim_entry, bs));
    }
}
