/*
 * Zoned qcow2 images: internal snapshots
 *
 * A snapshot has a copy of the zone table beside its L1 table, so that data
 * and write pointers are of the same moment.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/hbitmap.h"
#include "qemu/memalign.h"
#include "qemu/range.h"
#include "qcow2.h"
#include "qcow2-zoned.h"

/* Bad entries of one copy that are printed, if they are not repaired */
#define MAX_BAD_PRINTED 100

/*
 * The zoned part of the extra data of a snapshot, behind what other images
 * have there, see docs/interop/zoned-qcow2.rst.  All big-endian.
 */
typedef struct QEMU_PACKED Qcow2ZonedSnapshotExtra {
    uint64_t table_offset;
    uint32_t nr_zones;
    uint32_t reserved;
} Qcow2ZonedSnapshotExtra;

QEMU_BUILD_BUG_ON(sizeof(Qcow2ZonedSnapshotExtra) != 16);

/* The copy of the zone table that a snapshot has */
typedef struct TableCopy {
    ZoneGeometry geo;
    uint64_t offset;
    uint64_t bytes;     /* a multiple of the cluster size */
} TableCopy;

/* NULL if there is none */
static const Qcow2ZonedSnapshotExtra *zoned_extra(const QCowSnapshot *sn)
{
    return sn->extra_data_size < sizeof(QCowSnapshotExtraData) +
                                 sizeof(Qcow2ZonedSnapshotExtra)
           ? NULL : sn->unknown_extra_data;
}

/*
 * Find the copy of @sn.  This is where its extra data is judged: nothing
 * before that relies on it, so that one bad snapshot keeps nobody from using
 * the image, or from deleting it.
 */
static bool coroutine_mixed_fn GRAPH_RDLOCK
find_copy(BlockDriverState *bs, const QCowSnapshot *sn, TableCopy *copy,
          Error **errp)
{
    ERRP_GUARD();
    BDRVQcow2State *s = bs->opaque;
    const Qcow2ZonedSnapshotExtra *extra = zoned_extra(sn);
    int64_t file_size = bdrv_getlength(bs->file->bs);

    if (file_size < 0) {
        error_setg_errno(errp, -file_size, "Could not get the file's size");
        return false;
    }
    if (!extra) {
        error_setg(errp, "Snapshot has no zone table");
        return false;
    }
    if (extra->reserved) {
        error_setg(errp, "Reserved bytes of the zoned extra data are 0x%" PRIx32
                   " instead of 0", be32_to_cpu(extra->reserved));
        return false;
    }

    copy->geo = s->zoned->geo;
    copy->geo.disk_size = sn->disk_size;
    copy->geo.nr_zones = be32_to_cpu(extra->nr_zones);
    if (!zone_geometry_check(&copy->geo, errp)) {
        error_prepend(errp, "Invalid zoned extra data: ");
        return false;
    }
    copy->offset = be64_to_cpu(extra->table_offset);
    copy->bytes = ROUND_UP(qcow2_zoned_table_bytes(&copy->geo),
                           s->cluster_size);
    if (offset_into_cluster(s, copy->offset) ||
        copy->offset < s->cluster_size) {
        error_setg(errp, "Zone table offset 0x%" PRIx64 " is not a multiple of "
                   "the cluster size %d above 0",
                   copy->offset, s->cluster_size);
        return false;
    }
    if (copy->offset > file_size || copy->bytes > file_size - copy->offset) {
        error_setg(errp, "Zone table of %" PRIu64 " bytes at offset 0x%" PRIx64
                   " exceeds the image file of %" PRId64 " bytes",
                   copy->bytes, copy->offset, file_size);
        return false;
    }
    return true;
}

bool qcow2_zoned_snapshots_overlap(BlockDriverState *bs, uint64_t offset,
                                   uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;

    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        TableCopy copy;

        /* What cannot be true is no copy: others may have its clusters. */
        if (zoned_extra(&s->snapshots[i]) &&
            find_copy(bs, &s->snapshots[i], &copy, NULL) &&
            ranges_overlap(offset, bytes, copy.offset, copy.bytes)) {
            return true;
        }
    }
    return false;
}

/* --- Loading and writing tables --- */

/* @entry of @zone is bad: load @zone of @t with something else. */
typedef void BadEntryFn(ZoneTable *t, uint32_t zone, uint64_t *entry,
                        void *opaque);

/*
 * Load @copy into @t.  @bad_entry, which may change entries that are bad, also
 * on disk, makes up for them.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
load_copy(BlockDriverState *bs, const TableCopy *copy, ZoneTable *t,
          BadEntryFn *bad_entry, void *opaque)
{
    uint64_t end = qcow2_zoned_table_bytes(&copy->geo);
    g_autofree uint64_t *buf = g_malloc(MIN(QCOW2_ZONED_LOAD_SIZE, end));
    uint32_t zone = 0;

    for (uint64_t pos = 0; pos < end; pos += QCOW2_ZONED_LOAD_SIZE) {
        uint64_t n = MIN(QCOW2_ZONED_LOAD_SIZE, end - pos);
        bool changed = false;
        int ret = bdrv_pread(bs->file, copy->offset + pos, n, buf, 0);

        if (ret < 0) {
            return ret;
        }
        for (uint64_t i = 0; i < n / QCOW2_ZONE_ENTRY_SIZE; i++, zone++) {
            uint64_t entry = buf[i];

            if (!qcow2_zoned_load_entry(t, zone, entry, NULL)) {
                bad_entry(t, zone, &buf[i], opaque);
                changed |= buf[i] != entry;
            }
        }
        if (changed) {
            ret = bdrv_pwrite(bs->file, copy->offset + pos, n, buf, 0);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/* Clusters for @bytes of metadata that nothing refers to yet */
static int64_t coroutine_mixed_fn GRAPH_RDLOCK
alloc_metadata(BlockDriverState *bs, uint64_t bytes)
{
    int64_t offset = qcow2_alloc_clusters(bs, bytes);
    int ret;

    if (offset < 0) {
        return offset;
    }
    ret = qcow2_pre_write_overlap_check(bs, 0, offset, bytes, false);
    return ret < 0 ? ret : offset;
}

/* Write @t to new clusters; return where they are. */
static int64_t coroutine_mixed_fn GRAPH_RDLOCK
write_new_table(BlockDriverState *bs, const ZoneTable *t)
{
    uint64_t bytes = qcow2_zoned_table_bytes(zone_table_geometry(t));
    int64_t offset = alloc_metadata(bs, bytes);
    int ret;

    if (offset < 0) {
        return offset;
    }
    ret = qcow2_zoned_write_table(bs, t, NULL, offset);
    if (ret < 0) {
        qcow2_free_clusters(bs, offset, bytes, QCOW2_DISCARD_OTHER);
        return ret;
    }
    return offset;
}

/* --- Creation --- */

/*
 * Unmap what is mapped from @offset to @end, if anything is.  This is more than
 * a trim does: a snapshot would keep what stays mapped.  @offset is that of a
 * cluster, and nothing is in flight.
 */
static int GRAPH_RDLOCK unmap(BlockDriverState *bs, int64_t offset,
                              int64_t end)
{
    BDRVQcow2State *s = bs->opaque;

    while (offset < end) {
        unsigned int run = MIN(end - offset, ROUND_DOWN(INT_MAX,
                                                        s->cluster_size));
        QCow2SubclusterType type;
        uint64_t host_offset;
        int ret = qcow2_get_host_offset(bs, offset, &run, &host_offset, &type);

        if (ret < 0) {
            return ret;
        }
        run = ROUND_UP(run, s->cluster_size);
        if (type != QCOW2_SUBCLUSTER_UNALLOCATED_PLAIN &&
            type != QCOW2_SUBCLUSTER_ZERO_PLAIN) {
            ret = qcow2_cluster_discard(bs, offset, run, QCOW2_DISCARD_REQUEST,
                                        true);
            if (ret < 0) {
                return ret;
            }
        }
        offset += run;
    }
    return 0;
}

/* In all sequential zones that can be written */
static int GRAPH_RDLOCK unmap_above_write_pointers(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    ZoneTable *t = s->zoned->table;

    for (uint32_t zone = 0; zone < s->zoned->geo.nr_zones; zone++) {
        unsigned attributes;
        int64_t wp = zone_table_snapshot(t, zone, &attributes);
        int ret;

        if (attributes & ~ZONE_FINISHED) {
            continue;
        }
        ret = unmap(bs, ROUND_UP(wp, s->cluster_size),
                    zone_table_start(t, zone) + zone_table_length(t, zone));
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * Refcounts and copied flags of all clusters are about to change, which no
 * order of writes makes a single step.  So let the image be dirty until that
 * is over: whoever opens it after a power cut then repairs both.
 */
static int GRAPH_RDLOCK begin_refcounts(BlockDriverState *bs, bool *is_ours)
{
    BDRVQcow2State *s = bs->opaque;

    *is_ours = !(s->incompatible_features & QCOW2_INCOMPAT_DIRTY);
    return qcow2_mark_dirty(bs);
}

/*
 * Copied flags of the disk may be half way between what they were and what
 * refcounts say, and those in memory need not be those on disk.
 */
static int GRAPH_RDLOCK restore_copied_flags(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *l1_table = g_new(uint64_t, s->l1_size);
    int ret;

    ret = qcow2_update_snapshot_refcount(bs, s->l1_table_offset, s->l1_size,
                                         0);
    if (ret < 0) {
        return ret;
    }
    for (uint32_t i = 0; i < s->l1_size; i++) {
        l1_table[i] = cpu_to_be64(s->l1_table[i]);
    }
    return bdrv_pwrite_sync(bs->file, s->l1_table_offset,
                            s->l1_size * L1E_SIZE, l1_table, 0);
}

/*
 * What was to be done is over, with result @ret.  If it failed, what has been
 * counted for nothing is leaked.
 */
static void GRAPH_RDLOCK end_refcounts(BlockDriverState *bs, bool is_ours,
                                       int ret)
{
    BDRVQcow2State *s = bs->opaque;

    if (!bs->drv) {
        return;
    }
    if (ret < 0) {
        ret = restore_copied_flags(bs);
    }
    if (ret < 0) {
        s->zoned->stays_dirty = true;
    }
    if (is_ours) {
        qcow2_mark_clean(bs);
    }
}

/* Nothing is in flight. */
static int GRAPH_RDLOCK create_snapshot(BlockDriverState *bs,
                                        QEMUSnapshotInfo *sn_info)
{
    bool is_ours;
    int ret;

    /* All write pointers are on disk, where they and no others are copied. */
    ret = bdrv_flush(bs);
    if (ret < 0) {
        return ret;
    }
    qcow2_zoned_forget_windows(bs);
    ret = unmap_above_write_pointers(bs);
    if (ret < 0) {
        return ret;
    }
    ret = begin_refcounts(bs, &is_ours);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_snapshot_create(bs, sn_info);
    end_refcounts(bs, is_ours, ret);
    return ret;
}

int qcow2_zoned_snapshot_create(BlockDriverState *bs,
                                QEMUSnapshotInfo *sn_info)
{
    int ret;

    if (!qcow2_zoned_of(bs)) {
        return qcow2_snapshot_create(bs, sn_info);
    }
    if (!qcow2_has_zones(bs) || has_data_file(bs)) {
        return -ENOTSUP;
    }
    bdrv_drained_begin(bs);
    ret = create_snapshot(bs, sn_info);
    bdrv_drained_end(bs);
    return ret;
}

int qcow2_zoned_snapshot_copy_table(BlockDriverState *bs, QCowSnapshot *sn)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    Qcow2ZonedSnapshotExtra *extra;
    int64_t offset;

    if (!z) {
        return 0;
    }
    offset = write_new_table(bs, z->table);
    if (offset < 0) {
        return offset;
    }
    extra = g_new(Qcow2ZonedSnapshotExtra, 1);
    *extra = (Qcow2ZonedSnapshotExtra) {
        .table_offset   = cpu_to_be64(offset),
        .nr_zones       = cpu_to_be32(z->geo.nr_zones),
    };
    sn->extra_data_size = sizeof(QCowSnapshotExtraData) + sizeof(*extra);
    sn->unknown_extra_data = extra;
    return 0;
}

/* --- Deletion --- */

void qcow2_zoned_snapshot_free_table(BlockDriverState *bs,
                                     const QCowSnapshot *sn)
{
    TableCopy copy;

    /* What is not a copy, or something else as well, is not given away. */
    if (qcow2_zoned_of(bs) && find_copy(bs, sn, &copy, NULL) &&
        !qcow2_check_metadata_overlap(bs, 0, copy.offset, copy.bytes)) {
        qcow2_free_clusters(bs, copy.offset, copy.bytes,
                            QCOW2_DISCARD_SNAPSHOT);
    }
}

int qcow2_zoned_snapshot_delete(BlockDriverState *bs, const char *snapshot_id,
                                const char *name, Error **errp)
{
    bool is_ours;
    int ret;

    if (!qcow2_zoned_of(bs)) {
        return qcow2_snapshot_delete(bs, snapshot_id, name, errp);
    }
    if (has_data_file(bs)) {
        error_setg(errp, "Images with an external data file cannot have "
                   "internal snapshots");
        return -ENOTSUP;
    }
    ret = begin_refcounts(bs, &is_ours);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not mark the image as dirty");
        return ret;
    }
    ret = qcow2_snapshot_delete(bs, snapshot_id, name, errp);
    end_refcounts(bs, is_ours, ret);
    return ret;
}

/* --- Another table in memory --- */

/* Can the disk, which has zones already, be what it was in @sn? */
static bool GRAPH_RDLOCK find_copy_of_same_disk(BlockDriverState *bs,
                                                const QCowSnapshot *sn,
                                                TableCopy *copy, Error **errp)
{
    ERRP_GUARD();
    uint64_t disk_size = qcow2_zoned_of(bs)->geo.disk_size;

    if (!find_copy(bs, sn, copy, errp)) {
        error_prepend(errp, "Snapshot '%s': ", sn->name);
        return false;
    }
    if (copy->geo.disk_size != disk_size) {
        error_setg(errp, "Snapshot '%s' is of a zoned disk of %" PRIu64
                   " bytes, but this one has %" PRIu64,
                   sn->name, copy->geo.disk_size, disk_size);
        return false;
    }
    return true;
}

static void count_bad_entry(ZoneTable *t, uint32_t zone, uint64_t *entry,
                            void *opaque)
{
    uint32_t *nr_bad = opaque;

    (*nr_bad)++;
    zone_table_load(t, zone, zone_table_start(t, zone),
                    zone_table_attributes(t, zone) | ZONE_OFFLINE,
                    &error_abort);
}

/*
 * The zones as they were in @sn, those with bad entries OFFLINE.  NULL if that
 * cannot be.
 */
static ZoneTable *GRAPH_RDLOCK
load_snapshot_table(BlockDriverState *bs, const QCowSnapshot *sn,
                    uint32_t *nr_bad, Error **errp)
{
    TableCopy copy;
    ZoneTable *t;
    int ret;

    *nr_bad = 0;
    if (!find_copy_of_same_disk(bs, sn, &copy, errp)) {
        return NULL;
    }
    t = zone_table_new(&copy.geo);
    if (!t) {
        error_setg(errp, "Could not allocate memory for %" PRIu32 " zones",
                   copy.geo.nr_zones);
        return NULL;
    }
    ret = load_copy(bs, &copy, t, count_bad_entry, nr_bad);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the zone table of "
                         "snapshot '%s'", sn->name);
        zone_table_free(t);
        return NULL;
    }
    return t;
}

/*
 * Put @t in the place of the zones in memory, as if the image had been opened
 * with it.  Nothing is in flight, and nothing left to be stored.
 */
static void replace_table(Qcow2Zoned *z, ZoneTable *t)
{
    zone_writes_destroy(&z->writes);
    zone_table_free(z->table);
    z->table = t;
    zone_writes_init(&z->writes, t);

    for (int i = 0; i < QCOW2_ZONED_CHUNKS; i++) {
        qemu_vfree(z->chunks[i].entries);
        z->chunks[i] = (Qcow2ZonedChunk) { 0 };
    }
    if (z->to_trim) {
        hbitmap_reset_all(z->to_trim);
    }
    z->disk_active = zone_table_nr_active(t);
    z->disk_freed_staged = 0;
    z->disk_freed_written = 0;
}

int qcow2_zoned_snapshot_load_tmp(BlockDriverState *bs, const QCowSnapshot *sn,
                                  Error **errp)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint32_t nr_bad;
    ZoneTable *t;

    if (!z) {
        return 0;
    }
    if (!qcow2_has_zones(bs)) {
        error_setg(errp, "The zones of the image are not loaded");
        return -ENOTSUP;
    }
    t = load_snapshot_table(bs, sn, &nr_bad, errp);
    if (!t) {
        return -EINVAL;
    }
    replace_table(z, t);
    z->nr_bad_entries = nr_bad;
    return 0;
}

/* --- Going back --- */

/* What the disk consists of: one write of the header changes all of it. */
typedef struct DiskState {
    uint64_t *l1_table;         /* as in memory, or NULL */
    uint32_t l1_size;
    int64_t l1_table_offset;
    int64_t zone_table_offset;
} DiskState;

/* Where the data of the zoned extension is in @sector, or 0 */
static unsigned find_extension(const uint8_t *sector)
{
    uint64_t pos = ldl_be_p(sector + offsetof(QCowHeader, header_length));

    while (pos <= BDRV_SECTOR_SIZE - 8 - sizeof(Qcow2ZonedExt)) {
        uint32_t magic = ldl_be_p(sector + pos);
        uint32_t length = ldl_be_p(sector + pos + 4);

        if (magic == QCOW2_EXT_MAGIC_ZONED) {
            return pos + 8;
        }
        if (magic == 0) {
            break;
        }
        pos += 8 + ROUND_UP((uint64_t)length, 8);
    }
    return 0;
}

/*
 * Read the first sector of the header, and find the zoned extension in it.
 * It is not there in images whose header was written by somebody else.
 */
static int GRAPH_RDLOCK read_header(BlockDriverState *bs, uint8_t *sector,
                                    unsigned *extension)
{
    for (int i = 0; i < 2; i++) {
        int ret = bdrv_pread(bs->file, 0, BDRV_SECTOR_SIZE, sector, 0);

        if (ret < 0) {
            return ret;
        }
        *extension = find_extension(sector);
        if (*extension) {
            return 0;
        }
        ret = qcow2_update_header(bs);
        if (ret < 0) {
            return ret;
        }
        ret = bdrv_flush(bs->file->bs);
        if (ret < 0) {
            return ret;
        }
    }
    error_report("The header of the image is too long to go back to a "
                 "snapshot");
    return -ENOTSUP;
}

/*
 * Have the header say @to.  A power cut leaves it all old or all new, and on
 * failure it is old.
 */
static int GRAPH_RDLOCK switch_header(BlockDriverState *bs, const uint8_t *old,
                                      unsigned extension, const DiskState *to)
{
    uint8_t new[BDRV_SECTOR_SIZE];
    int ret;

    memcpy(new, old, sizeof(new));
    stl_be_p(new + offsetof(QCowHeader, l1_size), to->l1_size);
    stq_be_p(new + offsetof(QCowHeader, l1_table_offset), to->l1_table_offset);
    stq_be_p(new + extension + offsetof(Qcow2ZonedExt, zonedmeta_offset),
             to->zone_table_offset);

    ret = bdrv_pwrite_sync(bs->file, 0, sizeof(new), new, 0);
    if (ret < 0 && bdrv_pwrite_sync(bs->file, 0, sizeof(new), old, 0) < 0) {
        /* What is flushed from now on would be lost if the disk has the new. */
        error_report("Could not write the header of the image, neither to go "
                     "back to a snapshot nor not to; the image cannot be used "
                     "until it is opened again");
        bs->drv = NULL;
    }
    return ret;
}

/*
 * Write the L1 table of @sn to new clusters.  When it is used, everything
 * that it refers to is shared with @sn.
 */
static int GRAPH_RDLOCK write_new_l1(BlockDriverState *bs,
                                     const QCowSnapshot *sn, DiskState *to)
{
    BDRVQcow2State *s = bs->opaque;
    size_t bytes;
    int ret;

    to->l1_size = MAX(sn->l1_size, s->l1_vm_state_index);
    bytes = (size_t)to->l1_size * L1E_SIZE;
    to->l1_table = qemu_try_blockalign(bs->file->bs, bytes);
    if (!to->l1_table) {
        return -ENOMEM;
    }
    memset(to->l1_table, 0, bytes);
    ret = bdrv_pread(bs->file, sn->l1_table_offset, sn->l1_size * L1E_SIZE,
                     to->l1_table, 0);
    if (ret < 0) {
        return ret;
    }
    for (uint32_t i = 0; i < to->l1_size; i++) {
        to->l1_table[i] &= ~cpu_to_be64(QCOW_OFLAG_COPIED);
    }

    to->l1_table_offset = alloc_metadata(bs, bytes);
    if (to->l1_table_offset < 0) {
        return to->l1_table_offset;
    }
    ret = bdrv_pwrite(bs->file, to->l1_table_offset, bytes, to->l1_table, 0);
    for (uint32_t i = 0; i < to->l1_size; i++) {
        be64_to_cpus(&to->l1_table[i]);
    }
    return ret;
}

/* Nothing refers to what was made for @to. */
static void GRAPH_RDLOCK free_state(BlockDriverState *bs, const DiskState *to,
                                    const ZoneTable *t)
{
    if (to->l1_table_offset > 0) {
        qcow2_free_clusters(bs, to->l1_table_offset,
                            (int64_t)to->l1_size * L1E_SIZE,
                            QCOW2_DISCARD_OTHER);
    }
    if (to->zone_table_offset > 0) {
        qcow2_free_clusters(bs, to->zone_table_offset,
                            qcow2_zoned_table_bytes(zone_table_geometry(t)),
                            QCOW2_DISCARD_OTHER);
    }
}

/*
 * Write all that the header is to refer to; durable when this returns 0, as
 * the refcounts come last.  What may want for space is the first.
 */
static int GRAPH_RDLOCK prepare_state(BlockDriverState *bs,
                                      const QCowSnapshot *sn,
                                      const ZoneTable *t, DiskState *to)
{
    int ret = write_new_l1(bs, sn, to);

    if (ret < 0) {
        return ret;
    }
    to->zone_table_offset = write_new_table(bs, t);
    if (to->zone_table_offset < 0) {
        return to->zone_table_offset;
    }
    return qcow2_update_snapshot_refcount(bs, sn->l1_table_offset,
                                          sn->l1_size, 1);
}

/*
 * The header says @to: so shall memory, with the zones of @t.  What nothing
 * refers to any more is freed, as far as that does not fail.
 */
static void GRAPH_RDLOCK enter_state(BlockDriverState *bs, ZoneTable *t,
                                     const DiskState *to)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    DiskState from = {
        .l1_size = s->l1_size,
        .l1_table_offset = s->l1_table_offset,
        .zone_table_offset = z->table_offset,
    };

    qcow2_zoned_forget_windows(bs);
    replace_table(z, t);
    z->table_offset = to->zone_table_offset;
    z->ext.zonedmeta_offset = cpu_to_be64(z->table_offset);

    /* This takes the L1 table from memory, as long as that is the old one. */
    qcow2_update_snapshot_refcount(bs, s->l1_table_offset, s->l1_size, -1);
    qemu_vfree(s->l1_table);
    s->l1_table = to->l1_table;
    s->l1_size = to->l1_size;
    s->l1_table_offset = to->l1_table_offset;

    free_state(bs, &from, t);
}

/* Nothing is in flight.  On success, @t is in use. */
static int GRAPH_RDLOCK go_back(BlockDriverState *bs, const QCowSnapshot *sn,
                                ZoneTable *t)
{
    DiskState to = { 0 };
    uint8_t header[BDRV_SECTOR_SIZE];
    unsigned extension;
    int ret;

    /* If anything fails, nothing of what is there now is lost. */
    ret = bdrv_flush(bs);
    if (ret < 0) {
        return ret;
    }
    ret = prepare_state(bs, sn, t, &to);
    if (ret >= 0) {
        ret = read_header(bs, header, &extension);
    }
    if (ret < 0) {
        free_state(bs, &to, t);
        qemu_vfree(to.l1_table);
        return ret;
    }
    ret = switch_header(bs, header, extension, &to);
    if (ret < 0) {
        /* What it may refer to is left alone. */
        qemu_vfree(to.l1_table);
        return ret;
    }
    enter_state(bs, t, &to);
    return 0;
}

int qcow2_zoned_snapshot_goto(BlockDriverState *bs, const QCowSnapshot *sn)
{
    Error *local_err = NULL;
    ZoneTable *t = NULL;
    uint32_t nr_bad = 0;
    bool is_ours;
    int ret;

    if (!qcow2_has_zones(bs)) {
        return -ENOTSUP;
    }

    bdrv_drained_begin(bs);
    t = load_snapshot_table(bs, sn, &nr_bad, &local_err);
    if (t && nr_bad) {
        error_setg(&local_err, "Zone table of snapshot '%s' has %" PRIu32
                   " bad entries: run 'qemu-img check'", sn->name, nr_bad);
    }
    if (local_err) {
        error_report_err(local_err);
        ret = -EINVAL;
    } else {
        ret = begin_refcounts(bs, &is_ours);
        if (ret >= 0) {
            ret = go_back(bs, sn, t);
            end_refcounts(bs, is_ours, ret);
        }
    }
    bdrv_drained_end(bs);
    if (ret < 0) {
        zone_table_free(t);
    }
    return ret;
}

/* --- Check --- */

int coroutine_fn
qcow2_zoned_check_snapshot_refcounts(BlockDriverState *bs,
                                     BdrvCheckResult *res,
                                     void **refcount_table,
                                     int64_t *nb_clusters)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t file_size = bdrv_co_getlength(bs->file->bs);

    /* Without it no copy is found, and a repair would free them all. */
    if (file_size < 0) {
        res->check_errors++;
        return file_size;
    }
    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        TableCopy copy;
        int ret;

        if (!find_copy(bs, &s->snapshots[i], &copy, NULL)) {
            continue;
        }
        ret = qcow2_inc_refcounts_imrt(bs, res, refcount_table, nb_clusters,
                                       copy.offset, copy.bytes);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

typedef struct CopyCheck {
    const QCowSnapshot *sn;
    bool repair;
    uint64_t room;          /* in the file, for this copy and those to come */
    uint32_t nr_bad;
} CopyCheck;

/*
 * Without a write pointer that could be right, a zone becomes OFFLINE, and
 * FULL under that, as in the table of the disk.
 */
static void check_bad_entry(ZoneTable *t, uint32_t zone, uint64_t *entry,
                            void *opaque)
{
    CopyCheck *check = opaque;
    uint64_t start = zone_table_start(t, zone);
    unsigned attributes;
    uint64_t wp = qcow2_zoned_decode(*entry, &attributes);
    Error *err = NULL;

    if (check->repair || check->nr_bad < MAX_BAD_PRINTED) {
        qcow2_zoned_load_entry(t, zone, *entry, &err);
        fprintf(stderr, "%s zone table of snapshot %s (%s): %s\n",
                check->repair ? "Repairing" : "ERROR", check->sn->id_str,
                check->sn->name, error_get_pretty(err));
        error_free(err);
    }
    check->nr_bad++;

    if (!zone_table_repair(t, zone, &wp, &attributes)) {
        wp = start + zone_table_capacity(t, zone);
        attributes |= ZONE_OFFLINE | ZONE_FINISHED;
    }
    zone_table_load(t, zone, wp, attributes, &error_abort);
    if (check->repair) {
        *entry = qcow2_zoned_encode(wp, attributes);
    }
}

/* Are all clusters of @copy used by nothing else? */
static bool coroutine_fn GRAPH_RDLOCK
is_own(BlockDriverState *bs, const TableCopy *copy)
{
    BDRVQcow2State *s = bs->opaque;

    for (uint64_t pos = 0; pos < copy->bytes; pos += s->cluster_size) {
        uint64_t refcount;

        if (qcow2_get_refcount(bs, (copy->offset + pos) >> s->cluster_bits,
                               &refcount) < 0 || refcount != 1) {
            return false;
        }
    }
    return true;
}

static int coroutine_fn GRAPH_RDLOCK
check_copy(BlockDriverState *bs, CopyCheck *check, BdrvCheckResult *res)
{
    TableCopy copy;
    Error *err = NULL;
    ZoneTable *t;
    int ret;

    if (!find_copy(bs, check->sn, &copy, &err)) {
        fprintf(stderr, "ERROR snapshot %s (%s): %s; it can only be deleted\n",
                check->sn->id_str, check->sn->name, error_get_pretty(err));
        error_free(err);
        res->corruptions++;
        return 0;
    }
    if (copy.bytes > check->room) {
        fprintf(stderr, "ERROR snapshot %s (%s): zone tables of snapshots "
                "overlap, since not all of them fit into the image file\n",
                check->sn->id_str, check->sn->name);
        res->corruptions++;
        return 0;
    }
    check->room -= copy.bytes;
    check->repair = check->repair && is_own(bs, &copy);

    t = zone_table_new(&copy.geo);
    ret = t ? load_copy(bs, &copy, t, check_bad_entry, check) : -ENOMEM;
    zone_table_free(t);
    if (ret < 0) {
        fprintf(stderr, "ERROR %s the zone table of snapshot %s (%s): %s\n",
                check->repair && check->nr_bad ? "repairing" : "reading",
                check->sn->id_str, check->sn->name, strerror(-ret));
        res->check_errors++;
        return ret;
    }
    if (check->repair) {
        res->corruptions_fixed += check->nr_bad;
        return check->nr_bad ? bdrv_co_flush(bs->file->bs) : 0;
    }
    if (check->nr_bad > MAX_BAD_PRINTED) {
        fprintf(stderr, "ERROR zone table of snapshot %s (%s): %" PRIu32
                " more bad entries\n", check->sn->id_str, check->sn->name,
                check->nr_bad - MAX_BAD_PRINTED);
    }
    qcow2_zoned_count_corruptions(res, check->nr_bad);
    return 0;
}

int coroutine_fn qcow2_zoned_check_snapshots(BlockDriverState *bs,
                                             BdrvCheckResult *res,
                                             BdrvCheckMode fix)
{
    BDRVQcow2State *s = bs->opaque;
    bool repair = (fix & BDRV_FIX_ERRORS) && !res->corruptions &&
                  !res->check_errors;
    int64_t room = bdrv_co_getlength(bs->file->bs);

    if (room < 0) {
        res->check_errors++;
        return room;
    }
    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        CopyCheck check = {
            .sn = &s->snapshots[i],
            .repair = repair,
            .room = room,
        };
        int ret = check_copy(bs, &check, res);

        if (ret < 0) {
            return ret;
        }
        room = check.room;
    }
    return 0;
}
