/*
 * qemu-img bench: writing zones side by side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/bench-zones.h"
#include "block/block-common.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "system/block-backend.h"

/* What qemu-img create takes for a zoned image, too */
#define DEFAULT_ZONE_SIZE (256 * MiB)

typedef struct BenchStream {
    uint32_t zone;
    uint64_t pos;           /* of its next request */
    uint64_t end;           /* of what it may write; if @pos, it needs a zone */
    bool is_taking;         /* a zone; meanwhile other requests wait */
    CoQueue waiting;
    uint32_t in_flight;     /* writes */
    CoQueue drained;        /* waits for these to be none */
} BenchStream;

struct BenchZones {
    BlockBackend *blk;
    uint8_t *buf;
    int bufsize;
    bool append;

    bool zoned;
    uint64_t disk_size;
    uint64_t zone_size;
    uint64_t nr_zones;

    uint32_t next_zone;     /* to be taken, if nobody has it */
    uint32_t turn;          /* of the streams */
    int error;              /* that has been reported, 0 or negative errno */
    uint32_t nr_streams;
    BenchStream *streams;
};

typedef struct BenchRequest {
    BenchZones *z;
    BlockCompletionFunc *cb;
    void *opaque;
    int ret;
    bool submitted;         /* bench_zones_submit() returns, or has returned */
    bool done;
} BenchRequest;

/* Those behind fail for the same reason, so say it once. */
static int G_GNUC_PRINTF(3, 4)
fail(BenchZones *z, int ret, const char *fmt, ...)
{
    va_list args;

    if (z->error == 0) {
        va_start(args, fmt);
        error_vreport(fmt, args);
        va_end(args);
        z->error = ret;
    }
    return ret;
}

/* May the test write a zone as it is, but for a reset? */
static bool can_write(BenchZones *z, const BlockZoneDescriptor *desc)
{
    return desc->state != BLK_ZS_RDONLY && desc->state != BLK_ZS_OFFLINE &&
           !(z->append && desc->type == BLK_ZT_CONV);
}

/* Does the test write a zone in order, from its write pointer on? */
static bool has_write_pointer(const BlockZoneDescriptor *desc)
{
    return desc->type != BLK_ZT_CONV;
}

/* A disk without zones has stretches that are alike conventional ones. */
static int coroutine_mixed_fn
describe(BenchZones *z, uint32_t zone, BlockZoneDescriptor *desc)
{
    uint64_t start = zone * z->zone_size;
    unsigned int nr = 1;
    int ret;

    if (!z->zoned) {
        uint64_t length = MIN(z->zone_size, z->disk_size - start);

        *desc = (BlockZoneDescriptor) {
            .start = start,
            .length = length,
            .cap = length,
            .type = BLK_ZT_CONV,
            .state = BLK_ZS_NOT_WP,
        };
        return 0;
    }
    ret = blk_zone_report(z->blk, start, &nr, desc);
    return ret < 0 ? ret : nr == 1 ? 0 : -EIO;
}

/* Make the zone empty.  Returns 0 if the test cannot write it, else 1. */
static int coroutine_fn prepare(BenchZones *z, BlockZoneDescriptor *desc,
                                uint32_t zone)
{
    int ret = describe(z, zone, desc);

    if (ret < 0) {
        return fail(z, ret, "Failed to report zone %" PRIu32, zone);
    }
    if (!can_write(z, desc)) {
        return 0;
    }
    if (has_write_pointer(desc) && desc->state != BLK_ZS_EMPTY) {
        ret = blk_co_zone_mgmt(z->blk, BLK_ZO_RESET, desc->start,
                               desc->length);
        if (ret < 0) {
            return fail(z, ret, "Failed to reset zone %" PRIu32, zone);
        }
    }
    return 1;
}

static bool is_taken(BenchZones *z, uint32_t zone, const BenchStream *by_other)
{
    for (uint32_t i = 0; i < z->nr_streams; i++) {
        const BenchStream *s = &z->streams[i];

        if (s != by_other && s->zone == zone &&
            (s->pos < s->end || s->is_taking)) {
            return true;
        }
    }
    return false;
}

static int coroutine_fn take_zone(BenchZones *z, BenchStream *s)
{
    BlockZoneDescriptor desc;
    int ret;

    for (uint32_t i = 0; i < z->nr_zones; i++) {
        s->zone = z->next_zone;
        z->next_zone = (z->next_zone + 1) % z->nr_zones;
        if (is_taken(z, s->zone, s)) {
            continue;
        }
        ret = prepare(z, &desc, s->zone);
        if (ret < 0) {
            return ret;
        }
        if (ret > 0) {
            s->pos = desc.start;
            s->end = desc.start + desc.cap;
            return 0;
        }
    }
    return fail(z, -ENOSPC, "There are fewer zones that can be written than "
                "are to be written side by side");
}

static int coroutine_fn next_request(BenchZones *z)
{
    BenchStream *s = &z->streams[z->turn];
    QEMUIOVector qiov;
    int64_t offset;
    int bytes, ret;

    z->turn = (z->turn + 1) % z->nr_streams;

    while (s->pos == s->end) {
        if (z->error < 0) {
            return z->error;
        }
        if (s->is_taking) {
            qemu_co_queue_wait(&s->waiting, NULL);
            continue;
        }
        s->is_taking = true;
        while (s->in_flight && blk_get_max_active_zones(z->blk)) {
            /* The zone is active until the write that fills it is done. */
            qemu_co_queue_wait(&s->drained, NULL);
        }
        ret = take_zone(z, s);
        s->is_taking = false;
        qemu_co_queue_restart_all(&s->waiting);
        if (ret < 0) {
            return ret;
        }
    }

    /* Nothing yields from here to where the zone gives the range away. */
    offset = s->pos;
    bytes = MIN(z->bufsize, s->end - s->pos);
    s->pos += bytes;
    s->in_flight++;
    qemu_iovec_init_buf(&qiov, z->buf, bytes);

    if (z->append) {
        offset = s->zone * z->zone_size;
        ret = blk_co_zone_append(z->blk, &offset, &qiov, 0);
    } else {
        ret = blk_co_pwritev(z->blk, offset, bytes, &qiov, 0);
    }
    s->in_flight--;
    if (s->in_flight == 0) {
        qemu_co_queue_restart_all(&s->drained);
    }
    if (ret == -EOVERFLOW) {
        fail(z, ret, "Other zones are active, so there is no room for those "
             "of the test; reset or finish some");
    }
    return ret;
}

static void complete(void *opaque)
{
    BenchRequest *req = opaque;

    req->cb(req->opaque, MIN(req->ret, 0));
    g_free(req);
}

static void coroutine_fn request_entry(void *opaque)
{
    BenchRequest *req = opaque;

    req->ret = next_request(req->z);
    req->done = true;
    if (req->submitted) {
        complete(req);
    }
}

void bench_zones_submit(BenchZones *z, BlockCompletionFunc *cb, void *opaque)
{
    BenchRequest *req = g_new(BenchRequest, 1);

    *req = (BenchRequest) {
        .z = z,
        .cb = cb,
        .opaque = opaque,
    };

    /*
     * Entered from a coroutine, the new one waits, and those that are waiting
     * start in any order.  So it is the coroutine that takes the next offset.
     */
    aio_co_enter(qemu_get_current_aio_context(),
                 qemu_coroutine_create(request_entry, req));
    req->submitted = true;
    if (req->done) {
        aio_bh_schedule_oneshot(qemu_get_current_aio_context(), complete, req);
    }
}

static bool check_request(BenchZones *z, int step, Error **errp)
{
    uint32_t granularity = blk_get_zone_write_granularity(z->blk) ?: 1;
    uint64_t max_append = (uint64_t)blk_get_max_append_sectors(z->blk)
                          << BDRV_SECTOR_BITS;

    if (step != z->bufsize) {
        error_setg(errp, "Zones are written without gaps, so step size must "
                   "be the buffer size (%d)", z->bufsize);
        return false;
    }
    if (z->bufsize % granularity) {
        error_setg(errp, "Zones are written in multiples of %" PRIu32 " bytes, "
                   "so buffer size must be one", granularity);
        return false;
    }
    if (z->append && z->bufsize > max_append) {
        error_setg(errp, "A zone append has at most %" PRIu64 " bytes, so "
                   "buffer size must not have more", max_append);
        return false;
    }
    return true;
}

static bool check_zones(BenchZones *z, Error **errp)
{
    uint32_t max_active = blk_get_max_active_zones(z->blk);

    if (z->nr_zones > UINT32_MAX) {
        error_setg(errp, "There are %" PRIu64 " zones, the limit is %" PRIu32,
                   z->nr_zones, UINT32_MAX);
        return false;
    }
    if (z->nr_streams > z->nr_zones) {
        error_setg(errp, "There are not %" PRIu32 " zones to be written side "
                   "by side, but %" PRIu64, z->nr_streams, z->nr_zones);
        return false;
    }
    if (max_active && z->nr_streams > max_active) {
        error_setg(errp, "There cannot be %" PRIu32 " active zones, but %"
                   PRIu32, z->nr_streams, max_active);
        return false;
    }
    return true;
}

/* The first request goes to @offset: a zone's start, or its write pointer. */
static bool start_at(BenchZones *z, uint64_t offset, Error **errp)
{
    BlockZoneDescriptor desc;
    BenchStream *s = &z->streams[0];
    int ret;

    if (offset >= z->disk_size) {
        error_setg(errp, "Offset %" PRIu64 " is beyond the end of the disk",
                   offset);
        return false;
    }
    z->next_zone = offset / z->zone_size;
    if (offset % z->zone_size == 0) {
        return true;
    }

    ret = describe(z, z->next_zone, &desc);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to report zone %" PRIu32,
                         z->next_zone);
        return false;
    }
    if (!can_write(z, &desc)) {
        error_setg(errp, "Offset %" PRIu64 " is in a zone that cannot be "
                   "written", offset);
        return false;
    }
    if (has_write_pointer(&desc) &&
        (desc.state == BLK_ZS_FULL || offset != desc.wp)) {
        error_setg(errp, "Offset %" PRIu64 " is neither the start nor the "
                   "write pointer of a zone", offset);
        return false;
    }
    s->zone = z->next_zone;
    s->pos = offset;
    s->end = desc.start + desc.cap;
    z->next_zone = (z->next_zone + 1) % z->nr_zones;
    return true;
}

BenchZones *bench_zones_new(BlockBackend *blk, const BenchZonesOptions *opts,
                            Error **errp)
{
    bool zoned = blk_get_zone_model(blk) != BLK_Z_NONE;
    int64_t disk_size = blk_getlength(blk);
    BenchZones *z;

    if (disk_size < 0) {
        error_setg_errno(errp, -disk_size, "Failed to get the disk's size");
        return NULL;
    }
    if (zoned && opts->zone_size) {
        error_setg(errp, "The disk has zones, they are of %" PRIu64 " bytes",
                   blk_get_zone_size(blk));
        return NULL;
    }
    if (!zoned && opts->append) {
        error_setg(errp, "The disk has no zones to append to");
        return NULL;
    }

    z = g_new(BenchZones, 1);
    *z = (BenchZones) {
        .blk = blk,
        .buf = opts->buf,
        .bufsize = opts->bufsize,
        .append = opts->append,
        .zoned = zoned,
        .disk_size = disk_size,
        .zone_size = zoned ? blk_get_zone_size(blk)
                           : opts->zone_size ?: DEFAULT_ZONE_SIZE,
        .nr_streams = opts->nr_streams,
        .streams = g_new0(BenchStream, opts->nr_streams),
    };
    z->nr_zones = DIV_ROUND_UP(z->disk_size, z->zone_size);
    for (uint32_t i = 0; i < z->nr_streams; i++) {
        qemu_co_queue_init(&z->streams[i].waiting);
        qemu_co_queue_init(&z->streams[i].drained);
    }

    if (!check_request(z, opts->step, errp) || !check_zones(z, errp) ||
        !start_at(z, opts->offset, errp)) {
        bench_zones_free(z);
        return NULL;
    }
    return z;
}

void bench_zones_free(BenchZones *z)
{
    if (z) {
        g_free(z->streams);
        g_free(z);
    }
}
