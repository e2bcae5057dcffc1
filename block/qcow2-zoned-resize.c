/*
 * Zoned qcow2 images: growing the disk
 *
 * The first sector of the image has the size of the disk, the number of zones
 * and the place of the zone table, so one write of it makes the disk grow,
 * whenever the power fails.  The table always moves: the old one stays as it is
 * until that write is durable, and goes on to be used if anything fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/hbitmap.h"
#include "qemu/lockable.h"
#include "qcow2.h"
#include "qcow2-zoned.h"
#include "trace.h"

/* --- The first sector --- */

/*
 * Read the first sector of the image.  Returns where in it the data of the
 * header extension is; -ENOENT if it is not there, or not all of it.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
read_first_sector(BlockDriverState *bs, uint8_t *sector)
{
    uint64_t pos;
    int ret;

    ret = bdrv_pread(bs->file, 0, BDRV_SECTOR_SIZE, sector, 0);
    if (ret < 0) {
        return ret;
    }

    pos = ldl_be_p(sector + offsetof(QCowHeader, header_length));
    while (pos + 8 + sizeof(Qcow2ZonedExt) <= BDRV_SECTOR_SIZE) {
        uint32_t magic = ldl_be_p(sector + pos);
        uint32_t len = ldl_be_p(sector + pos + 4);

        if (magic == QCOW2_EXT_MAGIC_ZONED) {
            return pos + 8;
        }
        pos += 8 + ROUND_UP((uint64_t)len, 8);
    }
    return -ENOENT;
}

/*
 * QEMU writes the extension in front of all others, but the image may come from
 * elsewhere.
 */
static int coroutine_fn GRAPH_RDLOCK
prepare_first_sector(BlockDriverState *bs, Error **errp)
{
    uint8_t sector[BDRV_SECTOR_SIZE];
    int ret = read_first_sector(bs, sector);

    if (ret == -ENOENT) {
        ret = qcow2_update_header(bs);
        if (ret >= 0) {
            ret = read_first_sector(bs, sector);
        }
    }
    if (ret == -ENOENT) {
        error_setg(errp, "The image header is %" PRIu32 " bytes long, which "
                   "leaves no room in %llu bytes for the zoned header extension",
                   ldl_be_p(sector + offsetof(QCowHeader, header_length)),
                   BDRV_SECTOR_SIZE);
        return -ENOTSUP;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not access the image header");
    }
    return ret;
}

/*
 * Have the header say, durably and in one write, that the image is one of @geo
 * with its table at @table_offset.  The lock of BDRVQcow2State is held: others
 * write other parts of the header.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
write_first_sector(BlockDriverState *bs, const ZoneGeometry *geo,
                   uint64_t table_offset)
{
    uint8_t sector[BDRV_SECTOR_SIZE];
    int ret = read_first_sector(bs, sector);
    uint8_t *ext = sector + ret;

    if (ret < 0) {
        return ret;
    }
    stq_be_p(sector + offsetof(QCowHeader, size), geo->disk_size);
    stl_be_p(ext + offsetof(Qcow2ZonedExt, nr_zones), geo->nr_zones);
    stq_be_p(ext + offsetof(Qcow2ZonedExt, zonedmeta_offset), table_offset);

    return bdrv_pwrite_sync(bs->file, 0, BDRV_SECTOR_SIZE, sector, 0);
}

static int coroutine_mixed_fn GRAPH_RDLOCK
write_place_of_l1(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint8_t data[12];

    stl_be_p(data, s->l1_size);
    stq_be_p(data + 4, s->l1_table_offset);
    return bdrv_pwrite_sync(bs->file, offsetof(QCowHeader, l1_size),
                            sizeof(data), data, 0);
}

int coroutine_mixed_fn qcow2_zoned_put_back_l1(BlockDriverState *bs,
                                               uint64_t failed_offset,
                                               uint64_t failed_size)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret = write_place_of_l1(bs);

    if (ret < 0) {
        z->failed_l1_offset = failed_offset;
        z->failed_l1_size = failed_size;
    }
    return ret;
}

static int coroutine_mixed_fn GRAPH_RDLOCK
settle_size_locked(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int ret;

    if (z->failed_l1_offset) {
        ret = write_place_of_l1(bs);
        if (ret < 0) {
            return ret;
        }
        qcow2_free_clusters(bs, z->failed_l1_offset, z->failed_l1_size,
                            QCOW2_DISCARD_OTHER);
        z->failed_l1_offset = 0;
    }
    if (!z->failed_table_offset) {
        return 0;
    }
    ret = write_first_sector(bs, &z->geo, z->table_offset);
    if (ret >= 0) {
        qcow2_free_clusters(bs, z->failed_table_offset, z->failed_table_size,
                            QCOW2_DISCARD_OTHER);
        z->failed_table_offset = 0;
    }
    return ret;
}

int coroutine_mixed_fn qcow2_zoned_settle_size(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!qcow2_zoned_header_is_off(bs)) {
        return 0;
    }
    if (!qemu_in_coroutine()) {
        return settle_size_locked(bs);
    }
    qemu_co_mutex_lock(&s->lock);
    ret = settle_size_locked(bs);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/* --- The new table --- */

static uint64_t table_size(BlockDriverState *bs, const ZoneGeometry *geo)
{
    BDRVQcow2State *s = bs->opaque;

    return ROUND_UP(qcow2_zoned_table_bytes(geo), s->cluster_size);
}

/*
 * Get all that a disk of @geo needs room for.  Returns the offset of the new
 * table.  What else has been got when this, or anything later, fails does no
 * harm: an L1 table or a data file may be larger than they need to be.
 */
static int64_t coroutine_fn GRAPH_RDLOCK
get_room(BlockDriverState *bs, const ZoneGeometry *geo, bool exact,
         Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset;
    int ret;

    QEMU_LOCK_GUARD(&s->lock);

    if (qcow2_truncate_bitmaps_check(bs, errp)) {
        return -ENOTSUP;
    }
    ret = prepare_first_sector(bs, errp);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_grow_l1_table(bs, size_to_l1(s, geo->disk_size), true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to grow the L1 table");
        return ret;
    }
    if (has_data_file(bs)) {
        ret = bdrv_co_truncate(s->data_file, geo->disk_size, exact,
                               PREALLOC_MODE_OFF, 0, errp);
        if (ret < 0) {
            return ret;
        }
    }

    offset = qcow2_alloc_clusters(bs, qcow2_zoned_table_bytes(geo));
    if (offset < 0) {
        error_setg_errno(errp, -offset, "Could not allocate clusters for the "
                         "zone table");
        return offset;
    }
    ret = qcow2_pre_write_overlap_check(bs, 0, offset, table_size(bs, geo),
                                        false);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not use the clusters for the zone "
                         "table");
        return ret;
    }
    return offset;
}

/* What the table has, and after that the new zones, which are EMPTY */
static int coroutine_fn GRAPH_RDLOCK
write_new_table(BlockDriverState *bs, const ZoneGeometry *geo, uint64_t offset)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint64_t old_end = qcow2_zoned_table_bytes(&z->geo);
    uint64_t end = table_size(bs, geo);
    g_autofree uint64_t *buf = g_malloc(MIN(QCOW2_ZONED_LOAD_SIZE, end));

    for (uint64_t pos = 0; pos < end; pos += QCOW2_ZONED_LOAD_SIZE) {
        uint64_t n = MIN(QCOW2_ZONED_LOAD_SIZE, end - pos);
        int ret = 0;

        for (uint64_t i = 0; i < n / QCOW2_ZONE_ENTRY_SIZE; i++) {
            uint64_t zone = pos / QCOW2_ZONE_ENTRY_SIZE + i;

            buf[i] = zone < geo->nr_zones
                     ? qcow2_zoned_encode(zone * geo->zone_size, 0) : 0;
        }
        if (pos < old_end) {
            ret = bdrv_co_pread(bs->file, z->table_offset + pos,
                                MIN(n, old_end - pos), buf, 0);
        }
        if (ret >= 0) {
            ret = bdrv_co_pwrite(bs->file, offset + pos, n, buf, 0);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* --- The switch --- */

/*
 * The header has it, so memory has to follow.  The lock of BDRVQcow2State is
 * held.
 */
static void coroutine_fn GRAPH_RDLOCK
take_up(BlockDriverState *bs, const ZoneGeometry *geo, uint64_t table_offset)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    uint64_t old_offset = z->table_offset;
    uint64_t old_size = z->table_size;

    z->geo = *geo;
    z->table_offset = table_offset;
    z->table_size = table_size(bs, geo);
    z->ext.nr_zones = cpu_to_be32(geo->nr_zones);
    z->ext.zonedmeta_offset = cpu_to_be64(table_offset);
    if (z->to_trim) {
        hbitmap_truncate(z->to_trim, geo->nr_zones);
    }
    zone_writes_grow(&z->writes, geo->disk_size);

    bs->total_sectors = geo->disk_size / BDRV_SECTOR_SIZE;
    s->l1_vm_state_index = size_to_l1(s, geo->disk_size);

    qcow2_free_clusters(bs, old_offset, old_size, QCOW2_DISCARD_OTHER);
}

/*
 * Make @table_offset, which has been written, the table of the image.  On
 * failure its clusters are free, or will be once the header is known to say so.
 */
static int coroutine_fn GRAPH_RDLOCK
switch_to(BlockDriverState *bs, const ZoneGeometry *geo, uint64_t table_offset)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    int ret;

    QEMU_LOCK_GUARD(&s->lock);

    /* The table and its refcounts, before anything says that it is there */
    ret = qcow2_flush_caches(bs);
    if (ret < 0) {
        qcow2_free_clusters(bs, table_offset, table_size(bs, geo),
                            QCOW2_DISCARD_OTHER);
        return ret;
    }

    ret = write_first_sector(bs, geo, table_offset);
    if (ret < 0) {
        /* The disk may have either. */
        z->failed_table_offset = table_offset;
        z->failed_table_size = table_size(bs, geo);
        settle_size_locked(bs);
        return ret;
    }
    take_up(bs, geo, table_offset);
    return 0;
}

/* z->management is held, and nobody writes to the last zone. */
static int coroutine_fn GRAPH_RDLOCK
grow(BlockDriverState *bs, int64_t disk_size, bool exact, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    ZoneGeometry geo;
    int64_t offset;
    int ret;

    WITH_QEMU_LOCK_GUARD(&z->writes.lock) {
        if (!zone_table_check_grow(z->table, disk_size, &geo, errp)) {
            return -EINVAL;
        }
    }
    if (geo.disk_size == z->geo.disk_size) {
        return 0;
    }
    if (!zone_table_reserve(z->table, geo.nr_zones)) {
        error_setg(errp, "Could not allocate memory for %" PRIu32 " zones",
                   geo.nr_zones);
        return -ENOMEM;
    }

    QEMU_LOCK_GUARD(&z->table_io);

    ret = qcow2_zoned_unstage(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the zone table");
        return ret;
    }
    offset = get_room(bs, &geo, exact, errp);
    if (offset < 0) {
        return offset;
    }
    ret = write_new_table(bs, &geo, offset);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the zone table");
        qemu_co_mutex_lock(&s->lock);
        qcow2_free_clusters(bs, offset, table_size(bs, &geo),
                            QCOW2_DISCARD_OTHER);
        qemu_co_mutex_unlock(&s->lock);
        return ret;
    }
    ret = switch_to(bs, &geo, offset);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not update the image header");
        return ret;
    }
    trace_qcow2_zoned_grow(bs, geo.disk_size, geo.nr_zones, offset);
    return 0;
}

int coroutine_fn qcow2_zoned_co_grow(BlockDriverState *bs, int64_t disk_size,
                                     bool exact, PreallocMode prealloc,
                                     Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    ZoneRange last = { .count = 1 };
    int ret;

    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation mode '%s' is not supported when a "
                   "zoned image grows: zones get clusters when they are "
                   "written", PreallocMode_str(prealloc));
        return -ENOTSUP;
    }

    if (s->nb_snapshots) {
        error_setg(errp, "A disk that has internal snapshots, here %u, cannot "
                   "be resized: it could not go back to them",
                   s->nb_snapshots);
        return -ENOTSUP;
    }
    if (bs->backing_file[0] || bs->backing) {
        error_setg(errp, "An overlay has the size of its backing image, which "
                   "is %" PRIu64 " bytes", z->geo.disk_size);
        return -ENOTSUP;
    }

    QEMU_LOCK_GUARD(&z->management);
    last.first = z->geo.nr_zones - 1;

    /* Its capacity may change. */
    zone_writes_hold(&z->writes, last);
    ret = grow(bs, disk_size, exact, errp);
    zone_writes_release(&z->writes);
    return ret;
}
