/*
 * Zoned qcow2 images: check and repair
 *
 * Holds the table of write pointers against the geometry, the limits and the
 * clusters that it stands in.  A repair loses no data below a write pointer
 * that is plausible, and makes nothing readable that may be no data.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qcow2.h"
#include "qcow2-zoned.h"

/*
 * Bad entries that are printed, if they are not repaired: zeros in the table
 * of a sparse file cost who made it nothing.
 */
#define MAX_BAD_PRINTED 1000

typedef struct TableCheck {
    ZoneTable *table;
    bool repair;
    bool mapping_is_good;       /* L1 and L2 tables are consistent */
    uint32_t nr_bad;            /* entries that break a rule of their own */
    uint32_t nr_excess;         /* zones that are active above the limit */
    bool bad_padding;
} TableCheck;

/* --- The table's clusters --- */

int coroutine_fn qcow2_zoned_check_refcounts(BlockDriverState *bs,
                                             BdrvCheckResult *res,
                                             BdrvCheckMode fix,
                                             void **refcount_table,
                                             int64_t *nb_clusters)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Zoned *z = s->zoned;
    uint64_t first, count;
    int ret;

    if (!z) {
        return 0;
    }
    first = z->table_offset >> s->cluster_bits;
    count = size_to_clusters(s, qcow2_zoned_table_bytes(&z->geo));
    z->table_is_shared = false;
    for (uint64_t i = first; i < first + count && i < *nb_clusters; i++) {
        if (s->get_refcount(*refcount_table, i)) {
            z->table_is_shared = true;
        }
    }
    if (z->table_is_shared && fix) {
        /* The table may be elsewhere, where it would be freed as a leak. */
        fprintf(stderr, "ERROR zone table: something else uses its clusters, "
                "too; nothing can be repaired\n");
        res->check_errors++;
        return -EIO;
    }
    ret = qcow2_inc_refcounts_imrt(bs, res, refcount_table, nb_clusters,
                                   z->table_offset,
                                   qcow2_zoned_table_bytes(&z->geo));
    if (ret < 0) {
        return ret;
    }
    return qcow2_zoned_check_snapshot_refcounts(bs, res, refcount_table,
                                                nb_clusters);
}

/* --- Bad entries --- */

/*
 * Is anything mapped from @offset to @end?  L2 tables are read from disk, as
 * in the rest of the check.
 */
static bool coroutine_fn GRAPH_RDLOCK
has_clusters(BlockDriverState *bs, uint64_t offset, uint64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t l2_covers = (uint64_t)s->l2_size << s->cluster_bits;
    g_autofree uint8_t *buf = g_malloc(s->cluster_size);

    while (offset < end) {
        uint64_t l2_end = MIN(end, ROUND_DOWN(offset, l2_covers) + l2_covers);
        uint64_t l2_offset = s->l1_table[offset_to_l1_index(s, offset)] &
                             L1E_OFFSET_MASK;

        if (l2_offset) {
            uint64_t bytes = size_to_clusters(s, l2_end - offset) *
                             l2_entry_size(s);

            l2_offset += offset_to_l2_index(s, offset) * l2_entry_size(s);
            if (bdrv_co_pread(bs->file, l2_offset, bytes, buf, 0) < 0 ||
                !buffer_is_zero(buf, bytes)) {
                return true;
            }
        }
        offset = l2_end;
    }
    return false;
}

/*
 * What to make of a bad @entry of @zone.
 *
 * If it has no write pointer that could be right, nobody knows where the data
 * ends.  Clusters do not tell: they are mapped ahead of write pointers, and
 * kept by a reset.  So the zone becomes OFFLINE, as it is to who opens the
 * damaged image for reading, and FULL under that, with its write pointer where
 * no data is lost whoever sets it online again.  If there are no clusters then
 * there is no data, unless it is that of a backing image.
 */
static ZoneEntry coroutine_fn GRAPH_RDLOCK
repair_entry(BlockDriverState *bs, const TableCheck *check, uint32_t zone,
             uint64_t entry)
{
    ZoneTable *t = check->table;
    uint64_t start = zone_table_start(t, zone);
    uint64_t limit = start + zone_table_capacity(t, zone);
    unsigned attributes;
    uint64_t wp = qcow2_zoned_decode(entry, &attributes);

    if (!zone_table_repair(t, zone, &wp, &attributes)) {
        if (check->mapping_is_good && !bs->backing_file[0] && !bs->backing &&
            !has_clusters(bs, start, limit)) {
            wp = start;
        } else {
            wp = limit;
            attributes |= ZONE_OFFLINE | ZONE_FINISHED;
        }
    }
    return (ZoneEntry) { .zone = zone, .wp = wp, .attributes = attributes };
}

static const char *state_name(BlockZoneState state)
{
    switch (state) {
    case BLK_ZS_NOT_WP:
        return "conventional";
    case BLK_ZS_EMPTY:
        return "empty";
    case BLK_ZS_CLOSED:
        return "closed";
    case BLK_ZS_FULL:
        return "full";
    case BLK_ZS_RDONLY:
        return "read-only";
    case BLK_ZS_OFFLINE:
        return "offline";
    default:
        g_assert_not_reached();
    }
}

static void print_repair(const TableCheck *check, uint32_t zone,
                         const char *problem)
{
    fprintf(stderr, "Repairing zone table: %s; zone %" PRIu32 " is now %s, "
            "with write pointer %" PRIu64 "\n", problem, zone,
            state_name(zone_table_state(check->table, zone)),
            zone_table_wp(check->table, zone));
}

static void coroutine_fn GRAPH_RDLOCK
check_bad_entry(BlockDriverState *bs, ZoneTable *t, uint32_t zone,
                uint64_t entry, void *opaque)
{
    TableCheck *check = opaque;
    bool is_printed = check->repair || check->nr_bad < MAX_BAD_PRINTED;
    Error *err = NULL;
    ZoneEntry e = {
        .wp = zone_table_start(t, zone),
        .attributes = zone_table_attributes(t, zone) | ZONE_OFFLINE,
    };

    check->nr_bad++;
    qcow2_zoned_load_entry(t, zone, entry, is_printed ? &err : NULL);
    if (check->repair) {
        e = repair_entry(bs, check, zone, entry);
    }
    zone_table_load(t, zone, e.wp, e.attributes, &error_abort);
    if (check->repair) {
        print_repair(check, zone, error_get_pretty(err));
    } else if (is_printed) {
        fprintf(stderr, "ERROR zone table: %s\n", error_get_pretty(err));
    }
    error_free(err);
}

/* --- Limits --- */

static uint64_t room_in(const ZoneTable *t, uint32_t zone)
{
    return zone_table_start(t, zone) + zone_table_capacity(t, zone) -
           zone_table_wp(t, zone);
}

static gint compare_room(gconstpointer a, gconstpointer b, gpointer opaque)
{
    const uint32_t *zone_a = a, *zone_b = b;
    uint64_t room_a = room_in(opaque, *zone_a);
    uint64_t room_b = room_in(opaque, *zone_b);

    if (room_a != room_b) {
        return room_a < room_b ? -1 : 1;
    }
    return *zone_a < *zone_b ? -1 : 1;
}

/* Finishing loses no data, but room to write: begin with the fullest zones. */
static void finish_excess_zones(TableCheck *check, const char *problem)
{
    ZoneTable *t = check->table;
    uint32_t nr_zones = zone_table_geometry(t)->nr_zones;
    g_autoptr(GArray) active = g_array_new(false, false, sizeof(uint32_t));

    for (uint32_t zone = 0; zone < nr_zones; zone++) {
        if (zone_table_state(t, zone) == BLK_ZS_CLOSED) {
            g_array_append_val(active, zone);
        }
    }
    g_array_sort_with_data(active, compare_room, t);
    for (uint32_t i = 0; i < check->nr_excess; i++) {
        uint32_t zone = g_array_index(active, uint32_t, i);

        zone_table_apply(t, BLK_ZO_FINISH,
                         (ZoneRange) { .first = zone, .count = 1 });
        print_repair(check, zone, problem);
    }
}

static void check_active_limit(TableCheck *check)
{
    uint32_t max_active = zone_table_geometry(check->table)->max_active;
    uint32_t nr_active = zone_table_nr_active(check->table);
    g_autofree char *problem = NULL;

    if (!max_active || nr_active <= max_active) {
        return;
    }
    check->nr_excess = nr_active - max_active;
    problem = g_strdup_printf("%" PRIu32 " zones are active, above "
                              "zone.max_active_zones %" PRIu32,
                              nr_active, max_active);
    if (check->repair) {
        finish_excess_zones(check, problem);
    } else {
        fprintf(stderr, "ERROR zone table: %s\n", problem);
    }
}

/* --- Padding --- */

static int coroutine_fn GRAPH_RDLOCK
check_padding(BlockDriverState *bs, TableCheck *check)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t used = qcow2_zoned_table_bytes(&s->zoned->geo);
    uint64_t bytes = ROUND_UP(used, s->cluster_size) - used;
    g_autofree uint8_t *buf = g_malloc(bytes);
    int ret;

    ret = bdrv_co_pread(bs->file, s->zoned->table_offset + used, bytes, buf,
                        0);
    if (ret >= 0 && !buffer_is_zero(buf, bytes)) {
        check->bad_padding = true;
        fprintf(stderr, "%s zone table: the %" PRIu64 " bytes after its last "
                "entry are not all zeros\n",
                check->repair ? "Repairing" : "ERROR", bytes);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK clear_padding(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t used = qcow2_zoned_table_bytes(&s->zoned->geo);

    return bdrv_co_pwrite_zeroes(bs->file, s->zoned->table_offset + used,
                                 ROUND_UP(used, s->cluster_size) - used, 0);
}

/* --- Storing what was repaired --- */

/* Does @entry, on disk, not say what @t does? */
static bool needs_store(const ZoneTable *t, uint32_t zone, uint64_t entry)
{
    uint64_t wp = zone_table_wp(t, zone);
    unsigned attributes = zone_table_attributes(t, zone);

    return entry != qcow2_zoned_encode(wp, attributes) &&
           (attributes || entry != qcow2_zoned_encode_open(wp));
}

static bool is_leaving(const ZoneTable *t, uint32_t zone, uint64_t entry)
{
    unsigned attributes;
    uint64_t wp = qcow2_zoned_decode(entry, &attributes);

    return zone_table_entry_is_active(t, zone, wp, attributes) &&
           zone_table_state(t, zone) != BLK_ZS_CLOSED;
}

/*
 * Write the entries in which the table on disk differs from @t; with @leaving,
 * only those of zones that stop being active.
 */
static int coroutine_fn GRAPH_RDLOCK
store_entries(BlockDriverState *bs, const ZoneTable *t, bool leaving)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint64_t end = qcow2_zoned_table_bytes(&z->geo);
    g_autofree uint64_t *buf = g_malloc(MIN(QCOW2_ZONED_LOAD_SIZE, end));

    for (uint64_t pos = 0; pos < end; pos += QCOW2_ZONED_LOAD_SIZE) {
        uint64_t n = MIN(QCOW2_ZONED_LOAD_SIZE, end - pos);
        uint32_t count = n / QCOW2_ZONE_ENTRY_SIZE;
        uint32_t first_changed = count, end_changed = 0;
        int ret;

        ret = bdrv_co_pread(bs->file, z->table_offset + pos, n, buf, 0);
        if (ret < 0) {
            return ret;
        }
        for (uint32_t i = 0; i < count; i++) {
            uint32_t zone = pos / QCOW2_ZONE_ENTRY_SIZE + i;

            if (needs_store(t, zone, buf[i]) &&
                (!leaving || is_leaving(t, zone, buf[i]))) {
                buf[i] = qcow2_zoned_encode(zone_table_wp(t, zone),
                                            zone_table_attributes(t, zone));
                first_changed = MIN(first_changed, i);
                end_changed = i + 1;
            }
        }
        if (end_changed) {
            ret = bdrv_co_pwrite(bs->file, z->table_offset + pos +
                                 first_changed * QCOW2_ZONE_ENTRY_SIZE,
                                 (end_changed - first_changed) *
                                 QCOW2_ZONE_ENTRY_SIZE,
                                 &buf[first_changed], 0);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/*
 * Entries are repaired one independent of the other, so a power cut leaves
 * what can be repaired again.  First of all, zones stop being active: those
 * whose entries become good must not come on top of them.
 */
static int coroutine_fn GRAPH_RDLOCK
store_repair(BlockDriverState *bs, TableCheck *check)
{
    int ret = 0;

    if (check->nr_excess) {
        ret = store_entries(bs, check->table, true);
        if (ret >= 0) {
            ret = bdrv_co_flush(bs->file->bs);
        }
    }
    if (ret >= 0) {
        ret = store_entries(bs, check->table, false);
    }
    if (ret >= 0 && check->bad_padding) {
        ret = clear_padding(bs);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    return ret;
}

/* --- All of it --- */

static void count_zones(const TableCheck *check, BdrvCheckZones *zones)
{
    ZoneCounts counts = zone_table_count(check->table);

    zones->nr_zones = zone_table_geometry(check->table)->nr_zones;
    zones->conventional = counts.not_wp;
    zones->empty = counts.empty;
    zones->closed = counts.closed;
    zones->full = counts.full;
    zones->read_only = counts.read_only;
    zones->offline = counts.offline;
    if (!check->repair) {
        zones->entries_bad = check->nr_bad;
        zones->offline -= check->nr_bad;
    }
}

static int coroutine_fn GRAPH_RDLOCK
check_table(BlockDriverState *bs, TableCheck *check, BdrvCheckResult *res)
{
    int found, ret;

    ret = qcow2_zoned_load_table(bs, check->table, NULL, check_bad_entry,
                                 check);
    if (ret >= 0) {
        ret = check_padding(bs, check);
    }
    if (ret < 0) {
        fprintf(stderr, "ERROR reading the zone table: %s\n", strerror(-ret));
        return ret;
    }
    if (!check->repair && check->nr_bad > MAX_BAD_PRINTED) {
        fprintf(stderr, "ERROR zone table: %" PRIu32 " more bad entries\n",
                check->nr_bad - MAX_BAD_PRINTED);
    }
    check_active_limit(check);

    found = check->nr_bad + check->nr_excess + check->bad_padding;
    if (check->repair && found) {
        ret = store_repair(bs, check);
        if (ret < 0) {
            fprintf(stderr, "ERROR writing the zone table: %s\n",
                    strerror(-ret));
            return ret;
        }
        res->corruptions_fixed += found;
        res->zones.entries_fixed = check->nr_bad + check->nr_excess;
    } else {
        qcow2_zoned_count_corruptions(res, found);
    }
    count_zones(check, &res->zones);
    return 0;
}

int coroutine_fn qcow2_zoned_check(BlockDriverState *bs, BdrvCheckResult *res,
                                   BdrvCheckMode fix)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    TableCheck check = {
        .mapping_is_good = !res->corruptions && !res->check_errors,
    };
    int ret;

    if (!z || qcow2_has_zones(bs)) {
        return 0;
    }
    if (z->table_is_shared) {
        fprintf(stderr, "ERROR zone table: something else uses its clusters, "
                "too\n");
        res->corruptions++;
    }
    check.repair = fix & BDRV_FIX_ERRORS;
    check.table = zone_table_new(&z->geo);
    ret = check.table ? check_table(bs, &check, res) : -ENOMEM;
    if (ret < 0) {
        res->check_errors++;
    }
    zone_table_free(check.table);
    return ret < 0 ? ret : qcow2_zoned_check_snapshots(bs, res, fix);
}
