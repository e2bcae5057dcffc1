/*
 * Zoned qcow2 images: overlays on other zoned images
 *
 * An overlay has the geometry of its backing image, and a table of its own.
 * It inherits the write pointers once, when it is created or put on top of a
 * disk in use; then its table says all there is to know about its zones.  The
 * backing image only supplies data: that of clusters below a write pointer
 * that are not allocated in the overlay.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "qcow2.h"
#include "qcow2-zoned.h"

/* --- Geometry --- */

bool qcow2_zoned_same_geometry(const ZoneGeometry *overlay,
                               const ZoneGeometry *backing,
                               const char *backing_name, Error **errp)
{
    const struct {
        const char *name;
        uint64_t overlay, backing;
    } fields[] = {
        { "size", overlay->disk_size, backing->disk_size },
        { "zone.size", overlay->zone_size, backing->zone_size },
        { "zone.capacity", overlay->zone_capacity, backing->zone_capacity },
        { "zone.conventional_zones",
          overlay->nr_conventional, backing->nr_conventional },
        { "zone.max_open_zones", overlay->max_open, backing->max_open },
        { "zone.max_active_zones", overlay->max_active, backing->max_active },
        { "zone.max_append_bytes",
          overlay->max_append_bytes, backing->max_append_bytes },
    };

    for (int i = 0; i < ARRAY_SIZE(fields); i++) {
        if (fields[i].overlay != fields[i].backing) {
            error_setg(errp, "%s %" PRIu64 " is not that of the backing image "
                       "'%s', %" PRIu64, fields[i].name, fields[i].overlay,
                       backing_name, fields[i].backing);
            return false;
        }
    }
    return true;
}

bool qcow2_zoned_check_backing(BlockDriverState *bs, BlockDriverState *backing,
                               Error **errp)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    BlockDriverState *base = bdrv_skip_filters(backing);

    if (base->drv != &bdrv_qcow2 || !qcow2_zoned_of(base)) {
        error_setg(errp, "Zoned image '%s' cannot have the backing image '%s', "
                   "which is no zoned qcow2 image", bs->filename,
                   base->filename);
        return false;
    }
    if (qatomic_read(&bs->copy_on_read)) {
        error_setg(errp, "Zoned overlay '%s' cannot be used with copy-on-read, "
                   "which would write below write pointers", bs->filename);
        return false;
    }
    return qcow2_zoned_same_geometry(&z->geo, &qcow2_zoned_of(base)->geo,
                                     base->filename, errp);
}

/* The limit that @limit, an option of a new image, comes to */
static uint32_t effective_limit(uint32_t limit, const ZoneGeometry *geo)
{
    return limit < geo->nr_zones - geo->nr_conventional ? limit : 0;
}

bool qcow2_zoned_inherit_options(BlockdevCreateOptionsQcow2 *opts,
                                 const ZoneGeometry *backing, Error **errp)
{
    Qcow2ZoneHostManaged *zone = &opts->zone->u.host_managed;
    ZoneGeometry geo = *backing;

    geo.disk_size = opts->size;
    if (zone->has_size) {
        geo.zone_size = zone->size;
    }
    if (zone->has_capacity) {
        geo.zone_capacity = zone->capacity;
    }
    if (zone->has_conventional_zones) {
        geo.nr_conventional = zone->conventional_zones;
    }
    if (zone->has_max_open_zones) {
        geo.max_open = effective_limit(zone->max_open_zones, backing);
    }
    if (zone->has_max_active_zones) {
        geo.max_active = effective_limit(zone->max_active_zones, backing);
    }
    if (zone->has_max_append_bytes) {
        geo.max_append_bytes = MIN(zone->max_append_bytes, UINT32_MAX);
    }
    if (!qcow2_zoned_same_geometry(&geo, backing, opts->backing_file, errp)) {
        return false;
    }

    *zone = qcow2_zoned_options(backing);
    return true;
}

/* --- Creation --- */

static void coroutine_fn GRAPH_RDLOCK
take_first_error(BlockDriverState *bs, ZoneTable *t, uint32_t zone,
                 uint64_t entry, void *opaque)
{
    Error **first_error = opaque;

    if (!*first_error) {
        qcow2_zoned_load_entry(t, zone, entry, first_error);
    }
}

/* The zones of @bs as they are after a power cycle, or NULL */
static ZoneTable *coroutine_fn GRAPH_RDLOCK
load_zones(BlockDriverState *bs, Error **errp)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    Error *bad_entry = NULL;
    ZoneTable *t;
    int ret;

    if (!z) {
        error_setg(errp, "A zoned image cannot have a backing file without "
                   "zones: '%s' has none", bs->filename);
        return NULL;
    }
    t = zone_table_new(&z->geo);
    if (!t) {
        error_setg(errp, "Could not allocate memory for %" PRIu32 " zones",
                   z->geo.nr_zones);
        return NULL;
    }
    ret = qcow2_zoned_load_table(bs, t, NULL, take_first_error, &bad_entry);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the zone table of '%s'",
                         bs->filename);
    } else if (bad_entry) {
        error_setg(errp, "Bad zone table of '%s': %s; run 'qemu-img check'",
                   bs->filename, error_get_pretty(bad_entry));
    } else if (z->geo.max_active &&
               zone_table_nr_active(t) > z->geo.max_active) {
        error_setg(errp, "%" PRIu32 " zones of '%s' are active, above "
                   "zone.max_active_zones %" PRIu32 "; run 'qemu-img check'",
                   zone_table_nr_active(t), bs->filename, z->geo.max_active);
    } else {
        return t;
    }
    error_free(bad_entry);
    zone_table_free(t);
    return NULL;
}

/*
 * The image may be in use: blockdev-snapshot-sync creates overlays of those
 * that are.  Its table on disk is always one that it could be opened with.
 */
ZoneTable *coroutine_fn
qcow2_zoned_load_backing(BlockDriverState *file,
                         const BlockdevCreateOptionsQcow2 *opts, Error **errp)
{
    g_autofree char *name = NULL;
    BlockBackend *blk;
    ZoneTable *t;
    QDict *options;

    if (!opts->has_backing_fmt ||
        opts->backing_fmt != BLOCKDEV_DRIVER_QCOW2) {
        error_setg(errp, "A zoned image cannot have a backing file of format "
                   "'%s', but only another zoned qcow2 image",
                   opts->has_backing_fmt
                   ? BlockdevDriver_str(opts->backing_fmt) : "unknown");
        return NULL;
    }
    if (!opts->backing_file[0]) {
        error_setg(errp, "The name of the backing file is empty");
        return NULL;
    }
    name = bdrv_get_full_backing_filename_from_filename(file->filename,
                                                        opts->backing_file,
                                                        errp);
    if (!name) {
        return NULL;
    }

    /* Without its secret, if it is encrypted: the table is not. */
    options = qdict_new();
    qdict_put_str(options, "driver", "qcow2");
    qdict_put_bool(options, BDRV_OPT_FORCE_SHARE, true);
    blk = blk_co_new_open(name, NULL, options,
                          BDRV_O_NO_BACKING | BDRV_O_NO_IO, errp);
    if (!blk) {
        return NULL;
    }
    bdrv_graph_co_rdlock();
    t = load_zones(blk_bs(blk), errp);
    bdrv_graph_co_rdunlock();
    blk_co_unref(blk);
    return t;
}

/* --- On top of a disk in use --- */

static bool has_clusters(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    for (int i = 0; i < s->l1_size; i++) {
        if (s->l1_table[i]) {
            return true;
        }
    }
    return false;
}

static bool GRAPH_RDLOCK
can_inherit(BlockDriverState *bs, BlockDriverState *base, Error **errp)
{
    Qcow2Zoned *from = qcow2_zoned_of(base);

    if (!qcow2_has_zones(base) || from->nr_bad_entries || from->rescue) {
        error_setg(errp, "Some zones of '%s' have no valid write pointer that "
                   "'%s' could inherit", base->filename, bs->filename);
        return false;
    }
    if (!bdrv_is_writable(bs)) {
        error_setg(errp, "Overlay '%s' cannot be written to: it cannot inherit "
                   "write pointers", bs->filename);
        return false;
    }
    if (has_clusters(bs)) {
        /* They would be taken for data of the zones below. */
        error_setg(errp, "Overlay '%s' is not new: it has clusters of its own",
                   bs->filename);
        return false;
    }
    return true;
}

/*
 * A copy of the zones of @z.  Those that were implicitly open are closed, as
 * they may be at any time.  Explicitly open ones are set in @open, to stay so.
 */
static ZoneTable *copy_zones(Qcow2Zoned *z, HBitmap *open)
{
    ZoneTable *t = zone_table_new(&z->geo);

    for (uint32_t zone = 0; t && zone < z->geo.nr_zones; zone++) {
        unsigned attributes;
        uint64_t wp = zone_table_snapshot(z->table, zone, &attributes);

        zone_table_load(t, zone, wp, attributes, &error_abort);
        if (zone_table_state(z->table, zone) == BLK_ZS_EOPEN) {
            hbitmap_set(open, zone, 1);
        }
    }
    return t;
}

/* What is staged is no longer what the disk has. */
static void drop_chunks(Qcow2Zoned *z)
{
    for (int i = 0; i < QCOW2_ZONED_CHUNKS; i++) {
        qemu_vfree(z->chunks[i].entries);
        z->chunks[i].entries = NULL;
        bitmap_zero(z->chunks[i].dirty, QCOW2_ZONED_CHUNK_BLOCKS);
    }
}

/* The table on disk has become @t, with @open zones. */
static void replace_table(BlockDriverState *bs, ZoneTable *t, HBitmap *open)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    zone_writes_destroy(&z->writes);
    zone_table_free(z->table);
    z->table = t;
    zone_writes_init(&z->writes, t);
    z->disk_active = zone_table_nr_active(t);
    z->disk_freed_staged = 0;
    z->disk_freed_written = 0;
    z->table_is_off = false;
    if (z->handed_over_open) {
        hbitmap_free(z->handed_over_open);
    }
    z->handed_over_open = open;
    qcow2_zoned_take_over(bs);
}

/* The table on disk may have become anything: have it stored as a whole. */
static void set_all_dirty(Qcow2Zoned *z)
{
    for (uint32_t zone = 0; zone < z->geo.nr_zones; zone++) {
        zone_writes_set_dirty(&z->writes, zone);
    }
    z->table_is_off = true;
}

int coroutine_fn qcow2_zoned_co_inherit(BlockDriverState *bs,
                                        BlockDriverState *backing,
                                        Error **errp)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    BlockDriverState *base = bdrv_skip_filters(backing);
    HBitmap *open;
    ZoneTable *t;
    int ret;

    if (!qcow2_has_zones(bs)) {
        return 0;
    }
    if (!qcow2_zoned_check_backing(bs, backing, errp) ||
        !can_inherit(bs, base, errp)) {
        return -EINVAL;
    }

    open = hbitmap_alloc(z->geo.nr_zones, 0);
    t = copy_zones(qcow2_zoned_of(base), open);
    if (!t) {
        error_setg(errp, "Could not allocate memory for %" PRIu32 " zones",
                   z->geo.nr_zones);
        hbitmap_free(open);
        return -ENOMEM;
    }

    drop_chunks(z);
    ret = qcow2_zoned_write_table(bs, t, open, z->table_offset);
    if (ret >= 0) {
        /* Without it, a power cut could make the data below disappear. */
        ret = bdrv_co_flush(bs->file->bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the zone table of '%s'",
                         bs->filename);
        set_all_dirty(z);
        zone_table_free(t);
        hbitmap_free(open);
        return ret;
    }
    replace_table(bs, t, open);
    return 0;
}
