/*
 * qemu-img convert: writing to zones
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/convert-zones.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "system/block-backend.h"

#define ZONES_PER_REPORT 256

/*
 * Data ends at a multiple of this, or at the capacity of its zone, so that
 * drivers with blocks of up to this size can go on there.
 */
#define DATA_UNIT (4 * KiB)

/* How much is read, and copied, at once */
#define READ_STEP (64 * KiB)

#define NO_ZONE (-1)

/* What has been reported last */
typedef struct ZoneReport {
    BlockBackend *blk;
    unsigned int nr;
    BlockZoneDescriptor zones[ZONES_PER_REPORT];
} ZoneReport;

typedef struct ConvertSource {
    BlockBackend *blk;
    int64_t start;              /* where it is on the target */
    int64_t end;
    ZoneReport *report;         /* if it has zones */
} ConvertSource;

/* A zone of the target */
typedef struct TargetZone {
    int64_t start;
    int64_t end;
    int64_t capacity_end;
    bool conventional;
    bool is_kept;               /* it gets the state it has in the source: */
    bool finish;                /* FULL; or else */
    int64_t kept_wp;            /* what has this write pointer */
    int64_t wp;                 /* as written so far */
} TargetZone;

struct ConvertZones {
    BlockBackend *target;
    bool sparse;
    bool salvage;
    int nr_sources;
    ConvertSource *sources;
    int64_t end;                /* of the sources */
    bool keeps_zones;           /* one of the sources has zones */

    ZoneReport report;          /* of the target; states may have changed */
    TargetZone zone;            /* that is being written; first of all, none */
    int64_t disk_size;

    /*
     * Start of a zone that stays active, and is written last, because other
     * zones, which will be FULL, need its slot before, or NO_ZONE
     */
    int64_t deferred;

    /* A range known to be zeros in the source */
    int64_t zeroes_start;
    int64_t zeroes_end;
};

/* --- The source --- */

static ConvertSource *find_source(ConvertZones *c, int64_t offset)
{
    ConvertSource *src = c->sources;

    while (offset >= src->end) {
        src++;
    }
    return src;
}

/* What of a range cannot be read is zeros. */
static void salvage(ConvertSource *src, int64_t offset, int64_t bytes,
                    uint8_t *buf)
{
    while (bytes > 0) {
        int64_t n = MIN(bytes, BDRV_SECTOR_SIZE);

        if (blk_pread(src->blk, offset - src->start, n, buf, 0) < 0) {
            memset(buf, 0, n);
        }
        offset += n;
        bytes -= n;
        buf += n;
    }
}

static int read_source(ConvertZones *c, int64_t offset, int64_t bytes,
                       uint8_t *buf)
{
    while (bytes > 0) {
        ConvertSource *src = find_source(c, offset);
        int64_t n = MIN(bytes, src->end - offset);
        int ret = blk_pread(src->blk, offset - src->start, n, buf, 0);

        if (ret < 0 && !c->salvage) {
            return ret;
        }
        if (ret < 0) {
            salvage(src, offset, n, buf);
        }
        offset += n;
        bytes -= n;
        buf += n;
    }
    return 0;
}

/*
 * Find the first offset from @offset to @end at which the source is not known
 * to have zeros, or @end. The same holds from there to *@data_end.
 */
static int64_t next_data(ConvertZones *c, int64_t offset, int64_t end,
                         int64_t *data_end)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while (offset < end) {
        ConvertSource *src = find_source(c, offset);
        int64_t run;
        int ret;

        if (offset >= c->zeroes_start && offset < c->zeroes_end) {
            offset = c->zeroes_end;
            continue;
        }
        ret = bdrv_block_status_above(blk_bs(src->blk), NULL,
                                      offset - src->start, src->end - offset,
                                      &run, NULL, NULL);
        if (ret < 0) {
            *data_end = end;
            return c->salvage ? offset : ret;
        }
        if (!(ret & BDRV_BLOCK_ZERO)) {
            *data_end = MIN(end, offset + run);
            return offset;
        }
        c->zeroes_start = offset;
        c->zeroes_end = offset + run;
    }
    *data_end = end;
    return end;
}

/*
 * Find where the data of the range from @start to @end ends: @start if there
 * is none, else a multiple of DATA_UNIT, or @end.
 */
static int64_t data_end(ConvertZones *c, int64_t start, int64_t end)
{
    g_autofree uint8_t *buf = NULL;
    int64_t first = end;
    int64_t last_end = start;
    int64_t run_end;

    /* Forward over what may be data, then back over what turns out as zeros */
    for (int64_t offset = start; offset < end; offset = run_end) {
        int64_t data = next_data(c, offset, end, &run_end);

        if (data < 0) {
            return data;
        }
        if (data < end) {
            first = MIN(first, data);
            last_end = run_end;
        }
    }
    end = last_end;

    while (end > first) {
        int64_t from = MAX(start, QEMU_ALIGN_DOWN(end - 1, READ_STEP));
        int64_t data = next_data(c, from, end, &run_end);
        int ret;

        if (data < 0) {
            return data;
        }
        if (data < end) {
            buf = buf ?: g_malloc(READ_STEP);
            ret = read_source(c, from, end - from, buf);
            if (ret < 0) {
                return ret;
            }
        }
        while (end > data) {
            int64_t unit = MAX(from, QEMU_ALIGN_DOWN(end - 1, DATA_UNIT));

            if (!buffer_is_zero(buf + (unit - from), end - unit)) {
                return end;
            }
            end = unit;
        }
        end = from;
    }
    return start;
}

/* --- Zones --- */

/* Describe the zone of @r->blk that contains @offset. */
static int coroutine_mixed_fn report_zone(ZoneReport *r, int64_t offset,
                                          BlockZoneDescriptor *zone)
{
    const BlockZoneDescriptor *first = &r->zones[0];

    if (!r->nr || offset < first->start ||
        (offset - first->start) / first->length >= r->nr) {
        int ret;

        r->nr = ZONES_PER_REPORT;
        ret = blk_zone_report(r->blk, offset, &r->nr, r->zones);
        if (ret < 0 || !r->nr) {
            r->nr = 0;
            return ret < 0 ? ret : -EIO;
        }
    }
    /* Only the last zone of a disk is shorter than others. */
    *zone = r->zones[(offset - first->start) / first->length];
    return 0;
}

static bool has_write_pointer(const BlockZoneDescriptor *zone)
{
    return zone->type == BLK_ZT_SWR && zone->state != BLK_ZS_OFFLINE;
}

/* If the source has a zone like @desc, @zone is to be what that is. */
static int coroutine_mixed_fn keep_zone(ConvertZones *c, TargetZone *zone,
                                        const BlockZoneDescriptor *desc)
{
    BlockZoneDescriptor kept;
    ConvertSource *src;
    int ret;

    if (zone->conventional || zone->start >= c->end) {
        return 0;
    }
    src = find_source(c, zone->start);
    if (!src->report) {
        return 0;
    }
    ret = report_zone(src->report, zone->start - src->start, &kept);
    if (ret < 0) {
        return ret;
    }
    if (!has_write_pointer(&kept) ||
        src->start + (int64_t)kept.start != zone->start ||
        kept.length != desc->length || kept.cap != desc->cap) {
        return 0;
    }
    zone->is_kept = true;
    zone->finish = kept.state == BLK_ZS_FULL;
    zone->kept_wp = zone->finish ? zone->capacity_end
                                 : src->start + (int64_t)kept.wp;
    return 0;
}

/* Describe the zone of the target that contains @offset, and is EMPTY. */
static int coroutine_mixed_fn get_zone(ConvertZones *c, int64_t offset,
                                       TargetZone *zone)
{
    BlockZoneDescriptor desc;
    int ret = report_zone(&c->report, offset, &desc);

    if (ret < 0) {
        return ret;
    }
    *zone = (TargetZone) {
        .start = desc.start,
        .end = desc.start + desc.length,
        .capacity_end = desc.start + desc.cap,
        .conventional = desc.type == BLK_ZT_CONV,
        .kept_wp = desc.start,
        .wp = desc.start,
    };
    return keep_zone(c, zone, &desc);
}

/* Where data may be: what is above in a zone that is kept, are zeros. */
static int64_t data_limit(const TargetZone *zone)
{
    return zone->is_kept ? zone->kept_wp : zone->capacity_end;
}

/* The write pointer of a zone with data up to @end that is written no more */
static int64_t final_wp(const TargetZone *zone, int64_t end)
{
    if (zone->is_kept) {
        return zone->kept_wp;
    }
    return end == zone->start ? end : MIN(zone->capacity_end,
                                          QEMU_ALIGN_UP(end, DATA_UNIT));
}

/* --- What would become of the target --- */

static bool check_empty(ConvertZones *c, const char *name, Error **errp)
{
    ERRP_GUARD();
    BlockZoneDescriptor desc;

    for (int64_t offset = 0; offset < c->disk_size;
         offset = desc.start + desc.length) {
        int ret = report_zone(&c->report, offset, &desc);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to report zones of '%s'",
                             name);
            return false;
        }
        if (desc.type != BLK_ZT_CONV && desc.state != BLK_ZS_EMPTY) {
            error_setg(errp, "The zone at offset %" PRIu64 " of '%s' is not "
                       "empty, as all sequential zones must be",
                       desc.start, name);
            error_append_hint(errp, "qemu-io -c 'zrs 0 %" PRId64 "' resets "
                              "all zones.\n", c->disk_size);
            return false;
        }
    }
    return true;
}

static void set_read_error(Error **errp, int ret, int64_t zone)
{
    error_setg_errno(errp, -ret, "Failed to find out what the zone at offset "
                     "%" PRId64 " is to hold", zone);
}

/* There must be no data between the capacity and the end of a zone. */
static bool check_capacity(ConvertZones *c, const TargetZone *zone,
                           const char *name, Error **errp)
{
    int64_t end = MIN(zone->end, c->end);
    int64_t found;

    if (zone->capacity_end >= end) {
        return true;
    }
    found = data_end(c, zone->capacity_end, end);
    if (found < 0) {
        set_read_error(errp, found, zone->start);
        return false;
    }
    if (found > zone->capacity_end) {
        error_setg(errp, "The source has data up to offset %" PRId64 ", but "
                   "the zone at offset %" PRId64 " of '%s' has a capacity of "
                   "%" PRId64 " bytes only", found, zone->start, name,
                   zone->capacity_end - zone->start);
        return false;
    }
    return true;
}

/*
 * Find where the write pointer of @zone will be, and whether it will need to
 * be active on the way there.
 */
static int64_t predict_wp(ConvertZones *c, const TargetZone *zone,
                          bool *needs_slot)
{
    int64_t end = MIN(data_limit(zone), c->end);
    int64_t wp;

    if (c->sparse) {
        end = data_end(c, zone->start, end);
        if (end < 0) {
            return end;
        }
    }
    wp = final_wp(zone, end);
    /* A finish needs none, but zeros up to a write pointer do. */
    *needs_slot = end > zone->start || (!zone->finish && wp > zone->start);
    return wp;
}

/*
 * Zones are written one after the other, and those that become neither FULL
 * nor are left EMPTY stay active.
 */
static bool check_active(ConvertZones *c, const char *name, Error **errp)
{
    uint32_t max_active = blk_get_max_active_zones(c->target);
    uint64_t nr_active = 0;
    int64_t last_active = NO_ZONE;
    bool needs_slot_behind = false;
    TargetZone zone;

    for (int64_t offset = 0; max_active && offset < c->end;
         offset = zone.end) {
        bool needs_slot;
        int64_t wp = get_zone(c, offset, &zone);

        if (wp >= 0 && zone.conventional) {
            continue;
        }
        if (wp >= 0) {
            wp = predict_wp(c, &zone, &needs_slot);
        }
        if (wp < 0) {
            set_read_error(errp, wp, offset);
            return false;
        }
        if (wp > zone.start && wp < zone.capacity_end) {
            nr_active++;
            last_active = zone.start;
            needs_slot_behind = false;
        } else {
            needs_slot_behind |= needs_slot;
        }
    }

    if (nr_active > max_active) {
        error_setg(errp, "The source would leave %" PRIu64 " zones of '%s' "
                   "neither empty nor full, but at most %" PRIu32 " can be "
                   "active", nr_active, name, max_active);
        return false;
    }
    if (max_active && nr_active == max_active && needs_slot_behind) {
        c->deferred = last_active;
    }
    return true;
}

static bool check_target(ConvertZones *c, const char *name, Error **errp)
{
    TargetZone zone;

    if (!check_empty(c, name, errp)) {
        return false;
    }
    for (int64_t offset = 0; offset < c->end; offset = zone.end) {
        int ret = get_zone(c, offset, &zone);

        if (ret < 0) {
            set_read_error(errp, ret, offset);
            return false;
        }
        if (!zone.is_kept && !check_capacity(c, &zone, name, errp)) {
            return false;
        }
    }
    return check_active(c, name, errp);
}

static void add_source(ConvertZones *c, BlockBackend *blk, int64_t bytes)
{
    ConvertSource *src = &c->sources[c->nr_sources++];

    *src = (ConvertSource) {
        .blk = blk,
        .start = c->end,
        .end = c->end + bytes,
    };
    c->end = src->end;
    if (blk_get_zone_model(blk) != BLK_Z_NONE) {
        src->report = g_new0(ZoneReport, 1);
        src->report->blk = blk;
        c->keeps_zones = true;
    }
}

ConvertZones *convert_zones_new(const ConvertZonesOptions *opts, Error **errp)
{
    ConvertZones *c = g_new(ConvertZones, 1);

    *c = (ConvertZones) {
        .target = opts->target,
        .sparse = opts->sparse,
        .salvage = opts->salvage,
        .sources = g_new(ConvertSource, opts->src_num),
        .report.blk = opts->target,
        .disk_size = blk_getlength(opts->target),
        .deferred = NO_ZONE,
    };
    for (int i = 0; i < opts->src_num; i++) {
        add_source(c, opts->src[i],
                   opts->src_sectors[i] * BDRV_SECTOR_SIZE);
    }
    if (!check_target(c, opts->target_name, errp)) {
        convert_zones_free(c);
        return NULL;
    }
    return c;
}

void convert_zones_free(ConvertZones *c)
{
    if (c) {
        for (int i = 0; i < c->nr_sources; i++) {
            g_free(c->sources[i].report);
        }
        g_free(c->sources);
        g_free(c);
    }
}

/* --- Writing --- */

/* Move the write pointer of the zone, with zeros. */
static int coroutine_mixed_fn advance(ConvertZones *c, int64_t wp)
{
    TargetZone *zone = &c->zone;
    int ret;

    if (wp <= zone->wp) {
        return 0;
    }
    ret = blk_pwrite_zeroes(c->target, zone->wp, wp - zone->wp,
                            BDRV_REQ_MAY_UNMAP);
    if (ret >= 0) {
        zone->wp = wp;
    }
    return ret;
}

static bool is_deferred(ConvertZones *c)
{
    return c->zone.start == c->deferred;
}

/* Nothing more is written to the zone: give it the state that it is to have. */
static int coroutine_mixed_fn complete_zone(ConvertZones *c)
{
    TargetZone *zone = &c->zone;

    if (zone->conventional || is_deferred(c)) {
        return 0;
    }
    if (zone->finish) {
        return zone->wp == zone->capacity_end ? 0 :
               blk_zone_mgmt(c->target, BLK_ZO_FINISH, zone->start,
                             zone->end - zone->start);
    }
    return advance(c, final_wp(zone, zone->wp));
}

/* Go on to the zone that contains @offset. */
static int coroutine_mixed_fn go_to(ConvertZones *c, int64_t offset)
{
    while (offset >= c->zone.end) {
        int ret = complete_zone(c);

        if (ret >= 0) {
            ret = get_zone(c, c->keeps_zones ? c->zone.end : offset, &c->zone);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Write data at @offset of the zone. */
static int coroutine_mixed_fn write_zone(ConvertZones *c, int64_t offset,
                                         int64_t bytes, const uint8_t *buf)
{
    TargetZone *zone = &c->zone;
    int64_t limit = data_limit(zone);
    int64_t end = offset + bytes;
    int ret;

    if (end > limit) {
        int64_t rest = MAX(offset, limit);

        if (!buffer_is_zero(buf + (rest - offset), end - rest)) {
            return -ENOSPC;
        }
        end = rest;
    }
    while (c->sparse && end > offset) {
        int64_t unit = MAX(offset, QEMU_ALIGN_DOWN(end - 1, DATA_UNIT));

        if (!buffer_is_zero(buf + (unit - offset), end - unit)) {
            break;
        }
        end = unit;
    }
    if (end == offset) {
        return 0;
    }

    ret = advance(c, offset);
    if (ret >= 0) {
        ret = blk_pwrite(c->target, offset, end - offset, buf, 0);
    }
    if (ret >= 0) {
        zone->wp = end;
    }
    return ret;
}

int coroutine_mixed_fn convert_zones_pwrite(ConvertZones *c, int64_t offset,
                                            int64_t bytes, const uint8_t *buf)
{
    int64_t n;

    for (int64_t done = 0; done < bytes; done += n) {
        int ret = go_to(c, offset + done);

        if (ret < 0) {
            return ret;
        }
        n = MIN(bytes - done, c->zone.end - offset - done);
        if (c->zone.conventional) {
            ret = buf ? blk_pwrite(c->target, offset + done, n, buf + done, 0)
                      : blk_pwrite_zeroes(c->target, offset + done, n,
                                          BDRV_REQ_MAY_UNMAP);
        } else if (buf && !is_deferred(c)) {
            /* Zeros are written before what follows, if anything does. */
            ret = write_zone(c, offset + done, n, buf + done);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Copy what there is for the zone. */
static int copy_zone(ConvertZones *c)
{
    int64_t end = MIN(data_limit(&c->zone), c->end);
    g_autofree uint8_t *buf = g_malloc(READ_STEP);
    int64_t n;

    for (int64_t offset = c->zone.start; offset < end; offset += n) {
        int ret;

        n = MIN(end, QEMU_ALIGN_DOWN(offset, READ_STEP) + READ_STEP) - offset;
        if (c->sparse) {
            int64_t data_end;
            int64_t data = next_data(c, offset, offset + n, &data_end);

            if (data < 0) {
                return data;
            }
            if (data == offset + n) {
                continue;
            }
        }
        ret = read_source(c, offset, n, buf);
        if (ret >= 0) {
            ret = write_zone(c, offset, n, buf);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return complete_zone(c);
}

int convert_zones_end(ConvertZones *c)
{
    int ret = go_to(c, c->end - 1);

    if (ret >= 0) {
        ret = complete_zone(c);
    }
    if (ret >= 0 && c->deferred != NO_ZONE) {
        ret = get_zone(c, c->deferred, &c->zone);
        c->deferred = NO_ZONE;
        if (ret >= 0) {
            ret = copy_zone(c);
        }
    }
    /* Closing the image stores write pointers, too, but nobody hears of it. */
    return ret < 0 ? ret : blk_flush(c->target);
}
