/*
 * Zoned qcow2 images: the format
 *
 * The header extension and the table of write pointers: how they are created,
 * judged and loaded.  The specification is in docs/interop/zoned-qcow2.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "block/qdict.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/option.h"
#include "qemu/range.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qcow2.h"
#include "qcow2-zoned.h"

#define ZONED_HOST_MANAGED      1

#define DEFAULT_ZONE_SIZE       (256 * MiB)
#define DEFAULT_MAX_APPEND      (1 * MiB)

#define RESCUE_HINT \
    "To save data that it may hold, open the image with read-only=on and " \
    "zone-rescue=on\n"

#define ENTRY_WP_MASK           ((1ULL << 59) - 1)
#define ENTRY_ATTRIBUTES_SHIFT  59
#define ENTRY_READ_ONLY         (1ULL << 60)
#define ENTRY_OFFLINE           (1ULL << 61)
#define ENTRY_EXPLICITLY_OPEN   (1ULL << 63)

/* The attributes of a zone are bits 59 to 62 of its entry, in this order. */
QEMU_BUILD_BUG_ON(ZONE_CONVENTIONAL != 1 << 0);
QEMU_BUILD_BUG_ON(ZONE_READ_ONLY != 1 << 1);
QEMU_BUILD_BUG_ON(ZONE_OFFLINE != 1 << 2);
QEMU_BUILD_BUG_ON(ZONE_FINISHED != 1 << 3);

uint64_t qcow2_zoned_encode(uint64_t wp, unsigned attributes)
{
    return cpu_to_be64(wp | (uint64_t)attributes << ENTRY_ATTRIBUTES_SHIFT);
}

/* Of a zone that is explicitly open, for whoever takes the image over */
uint64_t qcow2_zoned_encode_open(uint64_t wp)
{
    return cpu_to_be64(wp | ENTRY_EXPLICITLY_OPEN);
}

static bool is_explicitly_open(uint64_t entry)
{
    return be64_to_cpu(entry) & ENTRY_EXPLICITLY_OPEN;
}

/* For rescue: READ-ONLY where it says OFFLINE */
static uint64_t readable_entry(uint64_t entry)
{
    if (entry & cpu_to_be64(ENTRY_OFFLINE)) {
        entry &= ~cpu_to_be64(ENTRY_OFFLINE);
        entry |= cpu_to_be64(ENTRY_READ_ONLY);
    }
    return entry;
}

uint64_t qcow2_zoned_decode(uint64_t entry, unsigned *attributes)
{
    entry = be64_to_cpu(entry);
    *attributes = (entry & ~ENTRY_EXPLICITLY_OPEN) >> ENTRY_ATTRIBUTES_SHIFT;
    return entry & ENTRY_WP_MASK;
}

bool qcow2_zoned_overlaps(BlockDriverState *bs, uint64_t offset,
                          uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;

    return z && ranges_overlap(offset, bytes, z->table_offset,
                               ROUND_UP(qcow2_zoned_table_bytes(&z->geo),
                                        s->cluster_size));
}

/* --- Header extension --- */

static Qcow2Zoned *zoned_new(const Qcow2ZonedExt *ext)
{
    Qcow2Zoned *z = g_new0(Qcow2Zoned, 1);

    z->ext = *ext;
    z->geo = (ZoneGeometry) {
        .zone_size        = be64_to_cpu(ext->zone_size),
        .zone_capacity    = be64_to_cpu(ext->zone_capacity),
        .nr_zones         = be32_to_cpu(ext->nr_zones),
        .nr_conventional  = be32_to_cpu(ext->conventional_zones),
        .max_open         = be32_to_cpu(ext->max_open_zones),
        .max_active       = be32_to_cpu(ext->max_active_zones),
        .max_append_bytes = be32_to_cpu(ext->max_append_bytes),
    };
    z->table_offset = be64_to_cpu(ext->zonedmeta_offset);
    return z;
}

int coroutine_fn qcow2_zoned_read_ext(BlockDriverState *bs, uint64_t offset,
                                      uint32_t len, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *buf = NULL;
    Qcow2ZonedExt ext;
    int ret;

    if (s->zoned) {
        error_setg(errp, "Image has two zoned header extensions");
        return -EINVAL;
    }
    if (len < sizeof(ext)) {
        error_setg(errp, "Zoned header extension is %" PRIu32 " bytes long, "
                   "less than the %zu it needs", len, sizeof(ext));
        return -EINVAL;
    }

    buf = g_malloc(len);
    ret = bdrv_co_pread(bs->file, offset, len, buf, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read zoned header extension");
        return ret;
    }

    memcpy(&ext, buf, sizeof(ext));
    s->zoned = zoned_new(&ext);
    s->zoned->ext_rest_len = len - sizeof(ext);
    s->zoned->ext_rest = g_memdup2(buf + sizeof(ext), len - sizeof(ext));
    return 0;
}

void *qcow2_zoned_get_ext(BlockDriverState *bs, size_t *len)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    uint8_t *buf;

    if (!z) {
        *len = 0;
        return NULL;
    }
    *len = sizeof(z->ext) + z->ext_rest_len;
    buf = g_malloc(*len);
    memcpy(buf, &z->ext, sizeof(z->ext));
    if (z->ext_rest_len) {
        memcpy(buf + sizeof(z->ext), z->ext_rest, z->ext_rest_len);
    }
    return buf;
}

/* Everything about the extension that follows from it and the header */
static bool check_ext(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;

    if (z->ext.zoned != ZONED_HOST_MANAGED) {
        error_setg(errp, "Zone model %u is unknown, only %u (host-managed) is "
                   "supported", z->ext.zoned, ZONED_HOST_MANAGED);
        return false;
    }
    if (z->ext.incompatible_features) {
        error_setg(errp, "Unsupported zoned features: 0x%x",
                   z->ext.incompatible_features);
        return false;
    }
    if (z->ext.reserved) {
        error_setg(errp, "Reserved byte of the zoned header extension is %u "
                   "instead of 0", z->ext.reserved);
        return false;
    }
    if (!zone_geometry_check(&z->geo, errp)) {
        error_prepend(errp, "Invalid zoned header extension: ");
        return false;
    }
    if (z->geo.zone_size % s->cluster_size) {
        error_setg(errp, "Invalid zoned header extension: zone.size %" PRIu64
                   " is not a multiple of the cluster size %d",
                   z->geo.zone_size, s->cluster_size);
        return false;
    }
    if (data_file_is_raw(bs)) {
        error_setg(errp, "A zoned image cannot have a raw external data file");
        return false;
    }
    return true;
}

/* Where the table is: in the file, and not where something else is */
static bool coroutine_fn GRAPH_RDLOCK
check_table_place(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    uint64_t bytes = ROUND_UP(qcow2_zoned_table_bytes(&z->geo),
                              s->cluster_size);
    int64_t file_size = bdrv_co_getlength(bs->file->bs);
    int overlap;

    if (file_size < 0) {
        error_setg_errno(errp, -file_size, "Could not get the file's size");
        return false;
    }
    if (offset_into_cluster(s, z->table_offset) ||
        z->table_offset < s->cluster_size) {
        error_setg(errp, "Zone table offset 0x%" PRIx64 " is not a multiple of "
                   "the cluster size %d above 0",
                   z->table_offset, s->cluster_size);
        return false;
    }
    if (z->table_offset > file_size || bytes > file_size - z->table_offset) {
        error_setg(errp, "Zone table of %" PRIu64 " bytes at offset 0x%" PRIx64
                   " exceeds the image file of %" PRId64 " bytes",
                   bytes, z->table_offset, file_size);
        return false;
    }
    overlap = qcow2_check_metadata_overlap(bs, QCOW2_OL_MAIN_HEADER,
                                           z->table_offset, bytes);
    if (overlap < 0) {
        error_setg_errno(errp, -overlap, "Could not check the zone table for "
                         "overlaps");
        return false;
    }
    if (overlap || (s->crypto_header.length &&
                    ranges_overlap(z->table_offset, bytes,
                                   s->crypto_header.offset,
                                   s->crypto_header.length))) {
        error_setg(errp, "Zone table at offset 0x%" PRIx64 " overlaps other "
                   "metadata of the image", z->table_offset);
        return false;
    }
    return true;
}

/* --- Table --- */

bool qcow2_zoned_load_entry(ZoneTable *t, uint32_t zone, uint64_t entry,
                            Error **errp)
{
    unsigned attributes;
    uint64_t wp = qcow2_zoned_decode(entry, &attributes);

    if (is_explicitly_open(entry) && attributes) {
        error_setg(errp, "Zone %" PRIu32 " is marked explicitly open, but "
                   "cannot be open", zone);
        return false;
    }
    return zone_table_load(t, zone, wp, attributes, errp);
}

/*
 * Read a part of the table.  For rescue, what cannot be read becomes entries
 * that are bad in any zone.
 */
static int coroutine_fn GRAPH_RDLOCK
read_entries(BlockDriverState *bs, uint64_t pos, uint64_t bytes, uint8_t *buf)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint64_t offset = z->table_offset + pos;
    uint64_t n;
    int ret;

    if (z->table_is_lost) {
        memset(buf, 0xff, bytes);
        return 0;
    }
    ret = bdrv_co_pread(bs->file, offset, bytes, buf, 0);
    if (ret >= 0 || !z->rescue) {
        return ret;
    }
    for (uint64_t i = 0; i < bytes; i += n) {
        n = MIN(BDRV_SECTOR_SIZE, bytes - i);
        if (bdrv_co_pread(bs->file, offset + i, n, buf + i, 0) < 0) {
            memset(buf + i, 0xff, n);
        }
    }
    return 0;
}

int coroutine_fn
qcow2_zoned_load_table(BlockDriverState *bs, ZoneTable *t, HBitmap *open,
                       Qcow2ZonedBadEntryFn *bad_entry, void *opaque)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint64_t end = qcow2_zoned_table_bytes(&z->geo);
    g_autofree uint64_t *buf = g_malloc(MIN(QCOW2_ZONED_LOAD_SIZE, end));
    uint32_t zone = 0;

    for (uint64_t pos = 0; pos < end; pos += QCOW2_ZONED_LOAD_SIZE) {
        uint64_t n = MIN(QCOW2_ZONED_LOAD_SIZE, end - pos);
        int ret = read_entries(bs, pos, n, (uint8_t *)buf);

        if (ret < 0) {
            return ret;
        }
        for (uint64_t i = 0; i < n / QCOW2_ZONE_ENTRY_SIZE; i++, zone++) {
            uint64_t entry = z->rescue ? readable_entry(buf[i]) : buf[i];

            if (!qcow2_zoned_load_entry(t, zone, entry, NULL)) {
                bad_entry(bs, t, zone, entry, opaque);
            } else if (open && is_explicitly_open(entry)) {
                hbitmap_set(open, zone, 1);
            }
        }
    }
    return 0;
}

/*
 * Without a good entry, a zone is OFFLINE; for rescue it is READ-ONLY, with
 * all of it below its write pointer.
 */
static void coroutine_fn GRAPH_RDLOCK
bad_entry_at_open(BlockDriverState *bs, ZoneTable *t, uint32_t zone,
                  uint64_t entry, void *opaque)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    Error **first_error = opaque;
    unsigned type = zone_table_attributes(t, zone);
    uint64_t wp = zone_table_start(t, zone);

    if (!z->nr_bad_entries++) {
        qcow2_zoned_load_entry(t, zone, entry, first_error);
    }
    if (z->rescue && !(type & ZONE_CONVENTIONAL)) {
        wp += zone_table_capacity(t, zone);
    }
    zone_table_load(t, zone, wp,
                    type | (z->rescue ? ZONE_READ_ONLY : ZONE_OFFLINE),
                    &error_abort);
}

static int coroutine_fn GRAPH_RDLOCK
open_table(BlockDriverState *bs, bool writable, Error **errp)
{
    ERRP_GUARD();
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    Error *bad_entry = NULL;
    ZoneTable *table;
    int ret;

    table = zone_table_new(&z->geo);
    if (!table) {
        error_setg(errp, "Could not allocate memory for %" PRIu32 " zones",
                   z->geo.nr_zones);
        return -ENOMEM;
    }
    z->handed_over_open = hbitmap_alloc(z->geo.nr_zones, 0);
    ret = qcow2_zoned_load_table(bs, table, z->handed_over_open,
                                 bad_entry_at_open, &bad_entry);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the zone table");
        error_append_hint(errp, RESCUE_HINT);
        goto fail;
    }
    if (bad_entry && writable) {
        error_setg(errp, "Bad zone table: %s; run 'qemu-img check', or open "
                   "the image read-only", error_get_pretty(bad_entry));
        ret = -EINVAL;
        goto fail;
    }

    if (hbitmap_empty(z->handed_over_open)) {
        hbitmap_free(z->handed_over_open);
        z->handed_over_open = NULL;
    }

    /* As small as the file can write without reading first */
    z->block_size = MAX(BDRV_SECTOR_SIZE, bs->file->bs->bl.request_alignment);
    z->block_size = MIN(z->block_size, MIN(s->cluster_size,
                                           QCOW2_ZONED_CHUNK_SIZE));
    z->table_size = ROUND_UP(qcow2_zoned_table_bytes(&z->geo),
                             s->cluster_size);

    z->disk_active = zone_table_nr_active(table);
    z->snapshot = g_array_new(false, false, sizeof(ZoneEntry));
    seqlock_init(&z->windows_seq);
    qemu_co_mutex_init(&z->management);
    qemu_co_mutex_init(&z->table_io);
    zone_writes_init(&z->writes, table);
    z->table = table;
    error_free(bad_entry);
    return 0;

fail:
    error_free(bad_entry);
    zone_table_free(table);
    return ret;
}

static bool check_rescue(BlockDriverState *bs, int flags, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (!s->zone_rescue) {
        return true;
    }
    if (!s->zoned) {
        error_setg(errp, "'zone-rescue' can only be set for zoned images");
        return false;
    }
    if (flags & BDRV_O_RDWR) {
        error_setg(errp, "'zone-rescue' needs the image to be opened "
                   "read-only");
        return false;
    }
    return true;
}

static int coroutine_fn GRAPH_RDLOCK
open_for_rescue(BlockDriverState *bs, bool table_has_place, Error **errp)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    int64_t file_size = bdrv_co_getlength(bs->file->bs);
    int ret;

    /* No file that has lost so much should cost that much memory. */
    if (file_size < 0 || qcow2_zoned_table_bytes(&z->geo) > file_size) {
        error_setg(errp, "The zone table of %" PRIu64 " bytes is not in the "
                   "image file, nor could it be",
                   qcow2_zoned_table_bytes(&z->geo));
        return -EINVAL;
    }
    z->rescue = true;
    z->table_is_lost = !table_has_place;
    ret = open_table(bs, false, errp);
    if (ret >= 0 && z->nr_bad_entries) {
        warn_report("%" PRIu32 " zones have no valid write pointer: what "
                    "clusters hold of them, even from before a reset, is read",
                    z->nr_bad_entries);
    }
    return ret;
}

static BlockZoneCounts *count_states(const ZoneTable *t)
{
    ZoneCounts counts = zone_table_count(t);
    BlockZoneCounts *states = g_new(BlockZoneCounts, 1);

    *states = (BlockZoneCounts) {
        .conventional       = counts.not_wp,
        .empty              = counts.empty,
        .implicitly_open    = counts.implicitly_open,
        .explicitly_open    = counts.explicitly_open,
        .closed             = counts.closed,
        .full               = counts.full,
        .read_only          = counts.read_only,
        .offline            = counts.offline,
    };
    return states;
}

/* What is said of the zones where nobody may deal with them, if anything */
static void coroutine_fn GRAPH_RDLOCK sum_up(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    ZoneTable *t = zone_table_new(&z->geo);
    Error *bad_entry = NULL;

    if (t && qcow2_zoned_load_table(bs, t, NULL, bad_entry_at_open,
                                    &bad_entry) >= 0) {
        z->states = count_states(t);
        for (uint32_t zone = z->geo.nr_conventional; zone < z->geo.nr_zones;
             zone++) {
            z->written += zone_table_wp(t, zone) - zone_table_start(t, zone);
        }
    }
    error_free(bad_entry);
    zone_table_free(t);
}

int coroutine_fn qcow2_zoned_open(BlockDriverState *bs, int flags,
                                  Error **errp)
{
    ERRP_GUARD();
    BDRVQcow2State *s = bs->opaque;
    bool feature = s->incompatible_features & QCOW2_INCOMPAT_ZONED;
    bool writable = (flags & BDRV_O_RDWR) && !(flags & BDRV_O_INACTIVE);
    bool rescue = s->zone_rescue && !(flags & BDRV_O_CHECK);
    bool table_has_place;

    if (feature != !!s->zoned) {
        error_setg(errp, "Image has a zoned %s without a zoned %s",
                   feature ? "feature bit" : "header extension",
                   feature ? "header extension" : "feature bit");
        return -EINVAL;
    }
    if (!check_rescue(bs, flags, errp)) {
        return -EINVAL;
    }
    if (!s->zoned) {
        return 0;
    }
    s->zoned->geo.disk_size = bs->total_sectors * BDRV_SECTOR_SIZE;
    if (!check_ext(bs, errp)) {
        return -EINVAL;
    }
    table_has_place = check_table_place(bs, rescue ? NULL : errp);
    if (!table_has_place && !rescue) {
        error_append_hint(errp, RESCUE_HINT);
        return -EINVAL;
    }
    if (flags & BDRV_O_CHECK) {
        return 0;
    }
    if (flags & BDRV_O_NO_IO) {
        if (table_has_place) {
            sum_up(bs);
        }
        return 0;
    }
    if (rescue) {
        return open_for_rescue(bs, table_has_place, errp);
    }
    return open_table(bs, writable, errp);
}

void qcow2_zoned_take_over(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    HBitmapIter iter;
    int64_t zone;

    if (!qcow2_has_zones(bs) || !z->handed_over_open) {
        return;
    }
    QEMU_LOCK_GUARD(&z->writes.lock);
    hbitmap_iter_init(&iter, z->handed_over_open, 0);
    while ((zone = hbitmap_iter_next(&iter)) >= 0) {
        ZoneRange range;

        /* A limit that says no comes from an image that nobody handed over. */
        if (!zone_table_check(z->table, BLK_ZO_OPEN,
                              zone_table_start(z->table, zone),
                              zone_table_length(z->table, zone), &range)) {
            zone_table_apply(z->table, BLK_ZO_OPEN, range);
        }
    }
}

void qcow2_zoned_close(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;

    if (!z) {
        return;
    }
    if (z->table) {
        zone_writes_destroy(&z->writes);
        zone_table_free(z->table);
        if (z->to_trim) {
            hbitmap_free(z->to_trim);
        }
        for (int i = 0; i < QCOW2_ZONED_CHUNKS; i++) {
            qemu_vfree(z->chunks[i].entries);
        }
        g_array_free(z->snapshot, true);
    }
    if (z->handed_over_open) {
        hbitmap_free(z->handed_over_open);
    }
    g_free(z->states);
    g_free(z->ext_rest);
    g_free(z);
    s->zoned = NULL;
}

int qcow2_zoned_reopen_prepare(BlockDriverState *bs, int flags, bool rescue,
                               Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (rescue != s->zone_rescue) {
        error_setg(errp, "Cannot change the option 'zone-rescue'");
        return -EINVAL;
    }
    if ((flags & BDRV_O_RDWR) && s->zoned && s->zoned->rescue) {
        error_setg(errp, "The image was opened with zone-rescue=on: it cannot "
                   "become writable");
        return -EINVAL;
    }
    if ((flags & BDRV_O_RDWR) && s->zoned && s->zoned->nr_bad_entries) {
        error_setg(errp, "%" PRIu32 " entries of the zone table are bad: the "
                   "image cannot become writable. Run 'qemu-img check'",
                   s->zoned->nr_bad_entries);
        return -EINVAL;
    }
    if ((flags & BDRV_O_RDWR) && s->zoned && bdrv_is_read_only(bs) &&
        (s->incompatible_features & QCOW2_INCOMPAT_DIRTY)) {
        /* Writes would go to clusters that are in use, but not counted. */
        error_setg(errp, "The image was not closed properly: it cannot become "
                   "writable without its refcounts being repaired. Open it as "
                   "writable at once, or run 'qemu-img check -r all'");
        return -EINVAL;
    }
    return 0;
}

/* --- What does not know zones --- */

static const char *refused_op_name(BlockDriverState *bs, BlockOpType op)
{
    switch (op) {
    case BLOCK_OP_TYPE_BACKUP_SOURCE:
    case BLOCK_OP_TYPE_BACKUP_TARGET:
        return "backup jobs";
    case BLOCK_OP_TYPE_CHANGE:
        return "changing its backing file";
    case BLOCK_OP_TYPE_COMMIT_SOURCE:
    case BLOCK_OP_TYPE_COMMIT_TARGET:
        return "commit jobs";
    case BLOCK_OP_TYPE_INTERNAL_SNAPSHOT:
    case BLOCK_OP_TYPE_INTERNAL_SNAPSHOT_DELETE:
        return has_data_file(bs)
               ? "internal snapshots with an external data file" : NULL;
    case BLOCK_OP_TYPE_MIRROR_SOURCE:
    case BLOCK_OP_TYPE_MIRROR_TARGET:
    case BLOCK_OP_TYPE_REPLACE:
        return "mirror jobs";
    case BLOCK_OP_TYPE_STREAM:
        return "stream jobs";
    default:
        return NULL;
    }
}

bool qcow2_zoned_refuses_op(BlockDriverState *bs, BlockOpType op,
                            Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (!s->zoned || !refused_op_name(bs, op)) {
        return false;
    }
    error_setg(errp, "Node '%s' is a zoned qcow2 image, which does not "
               "support %s", bdrv_get_device_or_node_name(bs),
               refused_op_name(bs, op));
    return true;
}

/* --- Creation --- */

/*
 * A limit that cannot be reached is none; most of all, Linux would have to
 * keep count for nothing.
 */
static uint32_t normalize_limit(const char *name, uint32_t limit,
                                const ZoneGeometry *geo)
{
    uint32_t nr_sequential = geo->nr_zones - geo->nr_conventional;

    if (limit < nr_sequential) {
        return limit;
    }
    if (limit > nr_sequential) {
        warn_report("%s %" PRIu32 " is above the number of sequential zones "
                    "%" PRIu32 ": there will be no limit",
                    name, limit, nr_sequential);
    }
    return 0;
}

/* The geometry that @zone asks for, with the defaults filled in */
static bool geometry_from_options(const Qcow2ZoneHostManaged *zone,
                                  uint64_t disk_size, size_t cluster_size,
                                  ZoneGeometry *geo, Error **errp)
{
    uint64_t zone_size = zone->has_size ? zone->size : DEFAULT_ZONE_SIZE;
    uint64_t capacity = zone->has_capacity ? zone->capacity : zone_size;
    uint64_t max_append = zone->has_max_append_bytes
                          ? zone->max_append_bytes
                          : MIN(DEFAULT_MAX_APPEND, capacity);
    uint64_t nr_zones = zone_size ? zone_geometry_count(disk_size, zone_size)
                                  : 0;

    /* The checks below see 32 bits only. */
    if (max_append > UINT32_MAX) {
        error_setg(errp, "zone.max_append_bytes %" PRIu64 " is above %" PRIu32,
                   max_append, UINT32_MAX);
        return false;
    }

    *geo = (ZoneGeometry) {
        .disk_size        = disk_size,
        .zone_size        = zone_size,
        .zone_capacity    = capacity,
        .nr_zones         = MIN(nr_zones, UINT32_MAX),
        .nr_conventional  = zone->has_conventional_zones
                            ? zone->conventional_zones : 0,
        .max_active       = zone->has_max_active_zones
                            ? zone->max_active_zones : 0,
        .max_append_bytes = max_append,
    };
    if (geo->nr_conventional < geo->nr_zones) {
        geo->max_active = normalize_limit("zone.max_active_zones",
                                          geo->max_active, geo);
    }
    geo->max_open = zone->has_max_open_zones ? zone->max_open_zones
                                             : geo->max_active;
    if (geo->nr_conventional < geo->nr_zones) {
        geo->max_open = normalize_limit("zone.max_open_zones",
                                        geo->max_open, geo);
    }
    if (!zone_geometry_check(geo, errp)) {
        return false;
    }
    if (geo->zone_size % cluster_size) {
        error_setg(errp, "zone.size %" PRIu64 " is not a multiple of the "
                   "cluster size %zu", geo->zone_size, cluster_size);
        return false;
    }
    return true;
}

bool qcow2_zoned_check_opts(QemuOpts *opts, Error **errp)
{
    static const char *const names[] = {
        "zone.conventional_zones",
        "zone.max_open_zones",
        "zone.max_active_zones",
    };
    const char *mode = qemu_opt_get(opts, "zone.mode");

    if (mode && qapi_enum_parse(&Qcow2ZoneModel_lookup, mode, -1, NULL) < 0) {
        error_setg(errp, "zone.mode '%s' is unknown, only '%s' is supported",
                   mode, Qcow2ZoneModel_str(QCOW2_ZONE_MODEL_HOST_MANAGED));
        return false;
    }

    for (int i = 0; i < ARRAY_SIZE(names); i++) {
        if (qemu_opt_get_number(opts, names[i], 0) > UINT32_MAX) {
            error_setg(errp, "%s %s is not a number from 0 to %" PRIu32,
                       names[i], qemu_opt_get(opts, names[i]), UINT32_MAX);
            return false;
        }
    }
    return true;
}

/* Take over what @opts does not say of the backing image's geometry. */
static bool coroutine_fn
inherit_options(BlockDriverState *file, BlockdevCreateOptionsQcow2 *opts,
                Error **errp)
{
    ZoneTable *backing = qcow2_zoned_load_backing(file, opts, errp);
    bool ok = backing &&
              qcow2_zoned_inherit_options(opts, zone_table_geometry(backing),
                                          errp);

    zone_table_free(backing);
    return ok;
}

int coroutine_fn qcow2_zoned_check_create(BlockDriverState *file,
                                          BlockdevCreateOptionsQcow2 *opts,
                                          int version, size_t cluster_size,
                                          Error **errp)
{
    Qcow2ZoneHostManaged *zone;
    ZoneGeometry geo;

    if (!opts->zone) {
        return 0;
    }
    if (version < 3) {
        error_setg(errp, "Zoned images are only supported with compatibility "
                   "level 1.1 and above (use version=v3 or greater)");
        return -EINVAL;
    }
    if (opts->data_file_raw) {
        error_setg(errp, "A zoned image cannot have a raw external data file: "
                   "what is above a write pointer would not read as zeros");
        return -EINVAL;
    }
    if (opts->backing_file && !inherit_options(file, opts, errp)) {
        return -EINVAL;
    }

    zone = &opts->zone->u.host_managed;
    if (!geometry_from_options(zone, opts->size, cluster_size, &geo, errp)) {
        return -EINVAL;
    }
    zone->has_max_open_zones = true;
    zone->max_open_zones = geo.max_open;
    zone->has_max_active_zones = true;
    zone->max_active_zones = geo.max_active;
    return 0;
}

static Qcow2ZonedExt ext_from_geometry(const ZoneGeometry *geo,
                                       uint64_t table_offset)
{
    return (Qcow2ZonedExt) {
        .zoned              = ZONED_HOST_MANAGED,
        .nr_zones           = cpu_to_be32(geo->nr_zones),
        .zone_size          = cpu_to_be64(geo->zone_size),
        .zone_capacity      = cpu_to_be64(geo->zone_capacity),
        .conventional_zones = cpu_to_be32(geo->nr_conventional),
        .max_active_zones   = cpu_to_be32(geo->max_active),
        .max_open_zones     = cpu_to_be32(geo->max_open),
        .max_append_bytes   = cpu_to_be32(geo->max_append_bytes),
        .zonedmeta_offset   = cpu_to_be64(table_offset),
    };
}

int coroutine_mixed_fn qcow2_zoned_write_table(BlockDriverState *bs,
                                               const ZoneTable *t,
                                               const HBitmap *open,
                                               uint64_t table_offset)
{
    BDRVQcow2State *s = bs->opaque;
    const ZoneGeometry *geo = zone_table_geometry(t);
    uint64_t end = ROUND_UP(qcow2_zoned_table_bytes(geo), s->cluster_size);
    g_autofree uint64_t *buf = g_malloc(MIN(QCOW2_ZONED_LOAD_SIZE, end));
    uint32_t zone = 0;

    for (uint64_t pos = 0; pos < end; pos += QCOW2_ZONED_LOAD_SIZE) {
        uint64_t n = MIN(QCOW2_ZONED_LOAD_SIZE, end - pos);
        int ret;

        memset(buf, 0, n);
        for (uint64_t i = 0;
             i < n / QCOW2_ZONE_ENTRY_SIZE && zone < geo->nr_zones;
             i++, zone++) {
            unsigned attributes;
            uint64_t wp = zone_table_snapshot(t, zone, &attributes);

            buf[i] = open && hbitmap_get(open, zone)
                     ? qcow2_zoned_encode_open(wp)
                     : qcow2_zoned_encode(wp, attributes);
        }
        ret = bdrv_pwrite(bs->file, table_offset + pos, n, buf, 0);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * The zones that an image of @geo has at first: EMPTY, or those of its backing
 * image
 */
static ZoneTable *coroutine_fn
first_zones(BlockDriverState *bs, const BlockdevCreateOptionsQcow2 *opts,
            const ZoneGeometry *geo, Error **errp)
{
    BlockDriverState *file;
    ZoneTable *t;

    if (!opts->backing_file) {
        t = zone_table_new(geo);
        if (!t) {
            error_setg(errp, "Could not allocate memory for %" PRIu32 " zones",
                       geo->nr_zones);
        }
        return t;
    }

    bdrv_graph_co_rdlock();
    file = bs->file->bs;
    bdrv_graph_co_rdunlock();

    t = qcow2_zoned_load_backing(file, opts, errp);
    if (t && !qcow2_zoned_same_geometry(geo, zone_table_geometry(t),
                                        opts->backing_file, errp)) {
        /* It is not what it was when the options were checked. */
        zone_table_free(t);
        t = NULL;
    }
    return t;
}

/* Allocate the table, write it, and have the header say that there is one. */
static int coroutine_fn GRAPH_RDLOCK
create_table(BlockDriverState *bs, const BlockdevCreateOptionsQcow2 *opts,
             const ZoneTable *t, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    const ZoneGeometry *geo = zone_table_geometry(t);
    Qcow2ZonedExt ext;
    int64_t offset;
    int ret;

    if (opts->backing_file) {
        /* No overlay that opens ever lacks it. */
        ret = bdrv_co_change_backing_file(bs, opts->backing_file,
                                          BlockdevDriver_str(opts->backing_fmt),
                                          false);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not assign backing file '%s'",
                             opts->backing_file);
            return ret;
        }
    }

    offset = qcow2_alloc_clusters(bs, qcow2_zoned_table_bytes(geo));
    if (offset < 0) {
        error_setg_errno(errp, -offset, "Could not allocate clusters for the "
                         "zone table");
        return offset;
    }
    ret = qcow2_zoned_write_table(bs, t, NULL, offset);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the zone table");
        return ret;
    }

    ext = ext_from_geometry(geo, offset);
    s->zoned = zoned_new(&ext);
    s->incompatible_features |= QCOW2_INCOMPAT_ZONED;
    ret = qcow2_update_header(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not update qcow2 header");
    }
    return ret;
}

int coroutine_fn qcow2_zoned_co_create(BlockDriverState *bs,
                                       BlockdevCreateOptionsQcow2 *opts,
                                       Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    ZoneGeometry geo;
    ZoneTable *t;
    int ret;

    if (!opts->zone) {
        return 0;
    }
    if (!geometry_from_options(&opts->zone->u.host_managed, opts->size,
                               s->cluster_size, &geo, errp)) {
        return -EINVAL;
    }
    t = first_zones(bs, opts, &geo, errp);
    if (!t) {
        return -EINVAL;
    }
    bdrv_graph_co_rdlock();
    ret = create_table(bs, opts, t, errp);
    bdrv_graph_co_rdunlock();
    zone_table_free(t);
    return ret;
}

/* The zone.* options of @opts, or NULL if there are none or they are wrong */
static Qcow2ZoneCreateOptions *zone_options(QemuOpts *opts, Error **errp)
{
    ERRP_GUARD();
    static const QDictRenames renames[] = {
        { "conventional_zones", "conventional-zones" },
        { "max_open_zones",     "max-open-zones" },
        { "max_active_zones",   "max-active-zones" },
        { "max_append_bytes",   "max-append-bytes" },
        { }
    };
    g_autoptr(QDict) all = qemu_opts_to_qdict(opts, NULL);
    g_autoptr(QDict) zone_dict = NULL;
    Qcow2ZoneCreateOptions *zone = NULL;
    Visitor *v;

    qdict_extract_subqdict(all, &zone_dict, "zone.");
    if (!qdict_size(zone_dict) ||
        !qdict_rename_keys(zone_dict, renames, errp)) {
        return NULL;
    }
    v = qobject_input_visitor_new_flat_confused(zone_dict, errp);
    if (v) {
        if (!visit_type_Qcow2ZoneCreateOptions(v, NULL, &zone, errp)) {
            error_prepend(errp, "Bad zone.* option: ");
        }
        visit_free(v);
    }
    return zone;
}

int64_t qcow2_zoned_measure(QemuOpts *opts, BlockDriverState *in_bs,
                            uint64_t disk_size, size_t cluster_size,
                            int64_t *ahead, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(Qcow2ZoneCreateOptions) zone = NULL;
    ZoneGeometry geo;

    *ahead = 0;
    if (!qcow2_zoned_check_opts(opts, errp)) {
        return -EINVAL;
    }
    zone = zone_options(opts, errp);
    if (!zone) {
        return *errp ? -EINVAL : 0;
    }
    if (!geometry_from_options(&zone->u.host_managed, disk_size, cluster_size,
                               &geo, errp)) {
        return -EINVAL;
    }
    if (in_bs) {
        *ahead = qcow2_zoned_measure_ahead(&geo, in_bs, cluster_size, errp);
        if (*ahead < 0) {
            return *ahead;
        }
    }
    return ROUND_UP(qcow2_zoned_table_bytes(&geo), cluster_size);
}

/* --- Info --- */

Qcow2ZoneHostManaged qcow2_zoned_options(const ZoneGeometry *geo)
{
    return (Qcow2ZoneHostManaged) {
        .has_size               = true,
        .size                   = geo->zone_size,
        .has_capacity           = true,
        .capacity               = geo->zone_capacity,
        .has_conventional_zones = true,
        .conventional_zones     = geo->nr_conventional,
        .has_max_open_zones     = true,
        .max_open_zones         = geo->max_open,
        .has_max_active_zones   = true,
        .max_active_zones       = geo->max_active,
        .has_max_append_bytes   = true,
        .max_append_bytes       = geo->max_append_bytes,
    };
}

ImageInfoSpecificQCow2Zoned *qcow2_zoned_get_info(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    ImageInfoSpecificQCow2Zoned *info;
    const ZoneGeometry *geo;

    if (!s->zoned) {
        return NULL;
    }
    geo = &s->zoned->geo;

    info = g_new(ImageInfoSpecificQCow2Zoned, 1);
    *info = (ImageInfoSpecificQCow2Zoned) {
        .mode       = QCOW2_ZONE_MODEL_HOST_MANAGED,
        .nr_zones   = geo->nr_zones,
        .states     = QAPI_CLONE(BlockZoneCounts, s->zoned->states),
        .has_written = s->zoned->states != NULL,
        .written    = s->zoned->written,
        .u.host_managed = qcow2_zoned_options(geo),
    };
    return info;
}

BlockStatsSpecific *qcow2_zoned_get_stats(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    BlockStatsSpecific *stats;

    if (!qcow2_has_zones(bs)) {
        return NULL;
    }

    stats = g_new(BlockStatsSpecific, 1);
    stats->driver = BLOCKDEV_DRIVER_QCOW2;
    WITH_QEMU_LOCK_GUARD(&z->writes.lock) {
        stats->u.qcow2.zones = count_states(z->table);
    }
    return stats;
}
