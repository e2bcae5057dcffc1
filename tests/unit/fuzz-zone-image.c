/*
 * Fuzzing zoned qcow2 images: header extension, zone table and snapshots of a
 * good image are edited, then it is opened, checked, used, cloned and opened
 * again
 *
 * The image file is in memory, and so is the one below an overlay.  Their
 * clusters hold a secret wherever no zone has data.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-global-state.h"
#include "block/block_int.h"
#include "block/qapi.h"
#include "block/snapshot.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/option.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "fuzz-zone.h"
#include "zone-models.h"

#define EXT_MAGIC       0x007a6264
#define EXT_SIZE        48
#define CLUSTER_BITS    20      /* where the header has them */
#define HEADER_LENGTH   100
#define ENTRY_FINISHED  (1ULL << 62)
#define SECRET          0x5e
#define MAX_FILE        (2 * MiB)
#define MAX_DISK        (256 * KiB)
#define MAX_ZONES       (MAX_DISK / 512)
#define MAX_OPS         128
#define MAX_SHOTS       4
#define NAME_SIZE       8

/* Where entries of the snapshot table have what is edited */
#define NB_SNAPSHOTS    60      /* these two are in the header */
#define SNAPSHOTS       64
#define SHOT_EXTRA_SIZE 36
#define SHOT_EXTRA      40
#define SHOT_DISK_SIZE  (SHOT_EXTRA + 8)
#define SHOT_COPY       (SHOT_EXTRA + 24)
#define SHOT_NR_ZONES   (SHOT_EXTRA + 32)
#define SHOT_ENTRY      (SHOT_EXTRA + 40)

/* An internal snapshot */
typedef struct Shot {
    char name[NAME_SIZE];

    /* What the disk was then, NULL if nobody knows */
    uint8_t *data;
    BlockZoneDescriptor *zones;

    /* In a template: where its entry and its copy of the table are */
    size_t entry;
    size_t copy;
} Shot;

/* An image to start from */
typedef struct Template {
    const char *options;
    uint64_t disk_size;
    int nr_shots;
    const char *overlay_options;    /* on top of what has the others */

    uint8_t *bytes;
    size_t size;
    size_t ext;                 /* where its header extension is */
    size_t table;
    uint32_t entries;           /* that its clusters have room for */
    Shot shots[2];

    uint8_t *base;
    size_t base_size;
} Template;

#define SMALL_CLUSTERS                                                        \
    "zone.mode=host-managed,zone.size=8k,zone.capacity=6k,"                   \
    "zone.conventional_zones=1,zone.max_open_zones=2,"                        \
    "zone.max_active_zones=3,zone.max_append_bytes=4k,cluster_size=4k"
#define LARGE_CLUSTERS                                                        \
    "zone.mode=host-managed,zone.size=64k"
#define SMALLEST_CLUSTERS                                                     \
    "zone.mode=host-managed,zone.size=1k,zone.capacity=512,"                  \
    "zone.max_open_zones=4,zone.max_active_zones=4,cluster_size=512,"         \
    "lazy_refcounts=on"
#define SUBCLUSTERS                                                           \
    "zone.mode=host-managed,zone.size=32k,zone.max_open_zones=1,"             \
    "cluster_size=16k,extended_l2=on"

static Template templates[] = {
    { SMALL_CLUSTERS, 61 * KiB },
    { LARGE_CLUSTERS, 3 * 64 * KiB - 512 },
    { SMALLEST_CLUSTERS, 96 * KiB },
    { SUBCLUSTERS, 128 * KiB },
    { SMALL_CLUSTERS, 61 * KiB, .nr_shots = 2 },
    { LARGE_CLUSTERS, 3 * 64 * KiB - 512, .nr_shots = 1 },
    { SMALLEST_CLUSTERS, 96 * KiB, .nr_shots = 2 },
    {
        SUBCLUSTERS, 128 * KiB, .nr_shots = 1,
        .overlay_options = "cluster_size=4k",
    },
};

/*
 * The image file, and the one below it
 */

#define FILE_NAME       "fuzz-memory:"
#define BASE_NAME       "fuzz-base:"

static uint8_t *file;           /* zeros above @file_end */
static size_t file_size;
static size_t file_end;         /* of what has been written lately */

static uint8_t *base;           /* zeros above @base_size */
static size_t base_size;

static int read_memory(const uint8_t *memory, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov)
{
    if (offset + bytes > MAX_FILE) {
        return -EIO;
    }
    qemu_iovec_from_buf(qiov, 0, memory + offset, bytes);
    return 0;
}

static int coroutine_fn memory_co_preadv(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         BdrvRequestFlags flags)
{
    return read_memory(file, offset, bytes, qiov);
}

static int coroutine_fn memory_co_pwritev(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          BdrvRequestFlags flags)
{
    if (offset + bytes > MAX_FILE) {
        return -ENOSPC;
    }
    qemu_iovec_to_buf(qiov, 0, file + offset, bytes);
    file_size = MAX(file_size, offset + bytes);
    file_end = MAX(file_end, file_size);
    return 0;
}

static int coroutine_fn
memory_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                   PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    if (offset > MAX_FILE) {
        error_setg(errp, "The file cannot become that large");
        return -EFBIG;
    }
    if (offset < file_end) {
        memset(file + offset, 0, file_end - offset);
    }
    file_size = offset;
    return 0;
}

static int64_t coroutine_fn memory_co_getlength(BlockDriverState *bs)
{
    return file_size;
}

/* Make it an empty file, with zeros above its end. */
static void memory_clear(void)
{
    memset(file, 0, file_end);
    file_size = file_end = 0;
}

static int coroutine_fn memory_co_create_opts(BlockDriver *drv,
                                              const char *filename,
                                              QemuOpts *opts, Error **errp)
{
    memory_clear();
    return 0;
}

/* There is only one file of the kind. */
static void memory_parse_filename(const char *filename, QDict *options,
                                  Error **errp)
{
}

static QemuOptsList memory_create_opts = {
    .name = "fuzz-memory-create-opts",
    .head = QTAILQ_HEAD_INITIALIZER(memory_create_opts.head),
    .desc = {
        { .name = BLOCK_OPT_SIZE, .type = QEMU_OPT_SIZE },
        { },
    },
};

static BlockDriver memory_driver = {
    .format_name            = "fuzz-memory",
    .protocol_name          = "fuzz-memory",
    .create_opts            = &memory_create_opts,
    .bdrv_parse_filename    = memory_parse_filename,
    .bdrv_co_create_opts    = memory_co_create_opts,
    .bdrv_co_preadv         = memory_co_preadv,
    .bdrv_co_pwritev        = memory_co_pwritev,
    .bdrv_co_truncate       = memory_co_truncate,
    .bdrv_co_getlength      = memory_co_getlength,
};

static int coroutine_fn base_co_preadv(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    return read_memory(base, offset, bytes, qiov);
}

static int64_t coroutine_fn base_co_getlength(BlockDriverState *bs)
{
    return base_size;
}

static BlockDriver base_driver = {
    .format_name            = "fuzz-base",
    .protocol_name          = "fuzz-base",
    .bdrv_parse_filename    = memory_parse_filename,
    .bdrv_co_preadv         = base_co_preadv,
    .bdrv_co_getlength      = base_co_getlength,
};

static void set_base(const uint8_t *bytes, size_t size)
{
    memset(base, 0, base_size);
    memcpy(base, bytes, size);
    base_size = size;
}

/* NULL if the image is refused */
static BlockBackend *open_with(int flags, const char *zone_rescue)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "qcow2");
    qdict_put_str(options, "file.driver", "fuzz-memory");
    qdict_put_str(options, "zone-rescue", zone_rescue);
    return blk_new_open(NULL, NULL, options, flags, NULL);
}

static BlockBackend *open_image(int flags)
{
    return open_with(flags, "off");
}

/* What the driver has of one that is marked as corrupt would be leaked. */
static void close_image(BlockBackend *blk)
{
    blk_flush(blk);
    bdrv_drain(blk_bs(blk));
    if (!blk_bs(blk)->drv) {
        bdrv_qcow2.bdrv_close(blk_bs(blk));
    }
    blk_unref(blk);
}

/* In the place of what was there.  Its size may be -1 if it has a backing. */
static bool create_image(const char *options, const char *backing,
                         uint64_t disk_size)
{
    Error *err = NULL;

    bdrv_img_create(FILE_NAME, "qcow2", backing, backing ? "qcow2" : NULL,
                    (char *)options, disk_size, 0, true, &err);
    if (err) {
        error_free(err);
        return false;
    }
    return true;
}

/*
 * Edits
 */

/* A number as limits have them, or any */
static uint64_t choose_number(ZoneChoices *c)
{
    uint64_t n = 1ULL << zone_choose(c, 64);

    switch (zone_choose(c, 8)) {
    case 0:
        return zone_choose(c, UINT64_MAX);
    case 1:
        return n - 1;
    case 2:
        return n - 512;
    case 3:
        return n + 512;
    case 4:
        return 512 * zone_choose(c, 256);
    case 5:
        return zone_choose(c, 256);
    default:
        return n;
    }
}

static void edit_field(ZoneChoices *c, const Template *t)
{
    static const struct {
        int offset;
        int size;
    } fields[] = {
        { 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 }, { 4, 4 }, { 8, 8 }, { 16, 8 },
        { 24, 4 }, { 28, 4 }, { 32, 4 }, { 36, 4 }, { 40, 8 },
        { -4, 4 },              /* the extension's length */
    };
    int field = zone_choose(c, ARRAY_SIZE(fields));

    stn_be_p(file + t->ext + fields[field].offset, fields[field].size,
             choose_number(c));
}

/* Another geometry that is good, if what else has been edited lets it be */
static void edit_geometry(ZoneChoices *c, const Template *t)
{
    uint64_t zone_size = 512ULL << zone_choose(c, 10);

    stq_be_p(file + t->ext + 8, zone_size);
    stq_be_p(file + t->ext + 16, zone_size - 512 * zone_choose(c, 3));
    stl_be_p(file + t->ext + 4, DIV_ROUND_UP(t->disk_size, zone_size));
    stl_be_p(file + t->ext + 24, zone_choose(c, 4));
    stl_be_p(file + t->ext + 28, zone_choose(c, 8));
    stl_be_p(file + t->ext + 32, zone_choose(c, 8));
    stl_be_p(file + t->ext + 36, 512 * (1 + zone_choose(c, 8)));
}

/* Of a zone, in the table at @table */
static void edit_entry(ZoneChoices *c, const Template *t, size_t table)
{
    uint64_t zone_size = ldq_be_p(file + t->ext + 8);
    unsigned int zone = zone_choose(c, MIN(t->entries, 256));
    uint64_t entry = zone * zone_size + 512 * zone_choose(c, 130);

    switch (zone_choose(c, 4)) {
    case 0:
        entry |= zone_choose(c, 32) << 59;
        break;
    case 1:
        entry = choose_number(c);
        break;
    case 2:
        entry = zone * zone_size | zone_choose(c, 32) << 59;
        break;
    }
    stq_be_p(file + table + zone * 8, entry);
}

/* Of the entry of a snapshot */
static void edit_shot(ZoneChoices *c, const Template *t)
{
    static const struct {
        int offset;
        int size;
    } fields[] = {
        { SHOT_COPY, 8 }, { SHOT_NR_ZONES, 4 }, { SHOT_NR_ZONES + 4, 4 },
        { SHOT_DISK_SIZE, 8 }, { SHOT_EXTRA_SIZE, 4 },
        { SHOT_EXTRA, 8 },      /* size of the VM state */
        { 0, 8 }, { 8, 4 },     /* the L1 table */
    };
    const Shot *shot = &t->shots[zone_choose(c, t->nr_shots)];
    int field = zone_choose(c, ARRAY_SIZE(fields) + 2);
    uint32_t zones;

    switch (field) {
    case ARRAY_SIZE(fields):
        /* a disk of another size */
        zones = zone_choose(c, 2 * t->entries);
        stl_be_p(file + shot->entry + SHOT_NR_ZONES, zones);
        stq_be_p(file + shot->entry + SHOT_DISK_SIZE,
                 zones * ldq_be_p(file + t->ext + 8));
        break;
    case ARRAY_SIZE(fields) + 1:
        /* a copy elsewhere in the file */
        stq_be_p(file + shot->entry + SHOT_COPY,
                 ROUND_DOWN(zone_choose(c, t->size),
                            1 << ldl_be_p(t->bytes + CLUSTER_BITS)));
        break;
    default:
        stn_be_p(file + shot->entry + fields[field].offset, fields[field].size,
                 choose_number(c));
    }
}

static void edit(ZoneChoices *c, const Template *t)
{
    switch (zone_choose(c, 8)) {
    case 0:
        edit_field(c, t);
        break;
    case 1:
        edit_geometry(c, t);
        break;
    case 2:
        file[t->ext + zone_choose(c, EXT_SIZE)] = zone_choose(c, 256);
        break;
    case 3:
        file_size = zone_choose(c, t->size);
        break;
    case 4:
        if (t->nr_shots) {
            edit_shot(c, t);
            break;
        }
        /* fall through */
    case 5:
        if (t->nr_shots) {
            edit_entry(c, t, t->shots[zone_choose(c, t->nr_shots)].copy);
            break;
        }
        /* fall through */
    default:
        edit_entry(c, t, t->table);
        break;
    }
}

/*
 * Use
 */

/* What the disk is known to hold */
typedef struct Disk {
    BlockBackend *blk;
    uint64_t size;
    uint64_t zone_size;
    unsigned int nr_zones;
    uint8_t *data;              /* zeros above the write pointers */
    uint8_t *buf;
    BlockZoneDescriptor *zones; /* as of the last report */

    bool is_overlay;
    bool exceeds_limit;         /* as it was opened, or went back */
    bool is_wild;               /* it may have lost data, and snapshots, too */
    int nr_shots;
    unsigned int shots_taken;   /* for their names */
    Shot shots[MAX_SHOTS];
} Disk;

static bool report(Disk *d)
{
    unsigned int n = MAX_ZONES;
    int ret = blk_zone_report(d->blk, 0, &n, d->zones);

    if (d->is_wild && ret == -ENOMEDIUM) {
        return false;
    }
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpuint(n, ==, d->nr_zones);
    return true;
}

/* Where the data of a zone ends; a finished zone has none above it, either. */
static uint64_t data_end(const BlockZoneDescriptor *z)
{
    return z->type == BLK_ZT_CONV ? z->start + z->length
                                  : MIN(z->wp, z->start + z->cap);
}

static bool is_offline(const BlockZoneDescriptor *z)
{
    return z->state == BLK_ZS_OFFLINE;
}

/* As of the last report */
static bool is_above_active_limit(const Disk *d)
{
    unsigned int limit = blk_get_max_active_zones(d->blk);
    unsigned int active = 0;

    for (unsigned int i = 0; i < d->nr_zones; i++) {
        active += d->zones[i].state == BLK_ZS_IOPEN ||
                  d->zones[i].state == BLK_ZS_EOPEN ||
                  d->zones[i].state == BLK_ZS_CLOSED;
    }
    return limit && active > limit;
}

/* No report may contradict itself or the limits. */
static void check_report(Disk *d)
{
    unsigned int open = 0;

    if (!report(d)) {
        return;
    }
    for (unsigned int i = 0; i < d->nr_zones; i++) {
        const BlockZoneDescriptor *z = &d->zones[i];

        g_assert_cmpuint(z->start, ==, i * d->zone_size);
        g_assert_cmpuint(z->length, ==, MIN(d->zone_size,
                                            d->size - z->start));
        g_assert_cmpuint(z->cap, >, 0);
        g_assert_cmpuint(z->cap, <=, z->length);
        if (!is_offline(z)) {
            g_assert_cmpuint(z->wp, >=, z->start);
            g_assert_cmpuint(z->wp, <=, z->start + z->length);
        }
        open += z->state == BLK_ZS_IOPEN || z->state == BLK_ZS_EOPEN;
    }
    if (blk_get_max_open_zones(d->blk)) {
        g_assert_cmpuint(open, <=, blk_get_max_open_zones(d->blk));
    }
    g_assert_true(d->exceeds_limit || d->is_wild || !is_above_active_limit(d));
}

/* Zones that are open now have another state after a power cycle. */
static BlockZoneState state_at_rest(const BlockZoneDescriptor *z)
{
    if (z->state == BLK_ZS_IOPEN || z->state == BLK_ZS_EOPEN) {
        return z->wp == z->start ? BLK_ZS_EMPTY : BLK_ZS_CLOSED;
    }
    return z->state;
}

/* As of the last report, @d is at rest, and has zones as @zones once were. */
static void check_zones(const Disk *d, const BlockZoneDescriptor *zones)
{
    for (unsigned int i = 0; i < d->nr_zones; i++) {
        g_assert_cmphex(d->zones[i].state, ==, state_at_rest(&zones[i]));
        g_assert_cmpuint(d->zones[i].wp, ==, zones[i].wp);
    }
}

/* Read all zones, those together that can be read, for others zeros. */
static void read_disk(Disk *d, uint8_t *buf)
{
    uint64_t from = 0;

    for (unsigned int i = 0; i <= d->nr_zones; i++) {
        const BlockZoneDescriptor *z = &d->zones[i];
        uint64_t end = i < d->nr_zones ? z->start : d->size;

        if (i < d->nr_zones && !is_offline(z)) {
            continue;
        }
        if (from < end) {
            g_assert_cmpint(blk_pread(d->blk, from, end - from, buf + from, 0),
                            ==, 0);
        }
        if (i < d->nr_zones) {
            g_assert_cmpint(blk_pread(d->blk, end, z->length, buf + end, 0),
                            ==, -EINVAL);
            memset(buf + end, 0, z->length);
            from = end + z->length;
        }
    }
}

/* What is above a write pointer is zeros, and what is below as it was. */
static void check_data(Disk *d)
{
    if (d->is_wild) {
        blk_pread(d->blk, 0, d->size, d->buf, 0);
        return;
    }
    read_disk(d, d->buf);
    g_assert_cmpmem(d->buf, d->size, d->data, d->size);
}

static void learn_data(Disk *d)
{
    if (d->is_wild) {
        return;
    }
    read_disk(d, d->data);
    for (unsigned int i = 0; i < d->nr_zones; i++) {
        const BlockZoneDescriptor *z = &d->zones[i];

        for (uint64_t pos = data_end(z); pos < z->start + z->length; pos++) {
            g_assert_cmpuint(d->data[pos], ==, 0);
        }
    }
}

static void check_image(BlockBackend *blk, BdrvCheckMode fix,
                        BdrvCheckResult *result)
{
    memset(result, 0, sizeof(*result));
    if (bdrv_check(blk_bs(blk), result, fix) < 0 && blk_is_available(blk)) {
        g_assert_cmpint(result->check_errors, >, 0);
    }
}

static void query(BlockBackend *blk)
{
    BlockStatsSpecific *stats = bdrv_get_specific_stats(blk_bs(blk));
    ImageInfo *info = NULL;

    if (stats) {
        const BlockZoneCounts *zones = stats->u.qcow2.zones;

        g_assert_cmpint(zones->conventional + zones->empty +
                        zones->implicitly_open + zones->explicitly_open +
                        zones->closed + zones->full + zones->read_only +
                        zones->offline, ==, blk_get_nr_zones(blk));
        qapi_free_BlockStatsSpecific(stats);
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    bdrv_query_image_info(blk_bs(blk), &info, true, false, NULL);
    qapi_free_ImageInfo(info);
}

static void write_zone(Disk *d, ZoneChoices *c, const BlockZoneDescriptor *z,
                       bool zeroes)
{
    uint64_t room = z->start + z->cap - data_end(z);
    uint64_t offset = z->type == BLK_ZT_CONV ? z->start : z->wp;
    uint64_t bytes = 512 * (1 + zone_choose(c, 20));
    int ret;

    switch (zone_choose(c, 8)) {
    case 0:
        bytes = room ?: 512;
        break;
    case 1:
        offset = 512 * zone_choose(c, d->size / 512);
        break;
    }
    if (offset >= d->size) {
        return;
    }
    bytes = MIN(bytes, d->size - offset);
    memset(d->buf, zeroes ? 0 : zone_choose(c, 256), bytes);
    ret = zeroes
        ? blk_pwrite_zeroes(d->blk, offset, bytes,
                            zone_choose(c, 2) ? BDRV_REQ_MAY_UNMAP : 0)
        : blk_pwrite(d->blk, offset, bytes, d->buf, 0);
    if (ret == 0) {
        memcpy(d->data + offset, d->buf, bytes);
    }
}

static void append(Disk *d, ZoneChoices *c, const BlockZoneDescriptor *z)
{
    int64_t offset = z->start;
    uint64_t bytes = 512 * (1 + zone_choose(c, 9));
    QEMUIOVector qiov;

    memset(d->buf, zone_choose(c, 256), bytes);
    qemu_iovec_init_buf(&qiov, d->buf, bytes);
    if (blk_zone_append(d->blk, &offset, &qiov, 0) == 0) {
        g_assert_cmpint(offset, ==, z->wp);
        memcpy(d->data + offset, d->buf, bytes);
    }
}

/* What is read of EMPTY zones is zeros; so a reset needs no more than this. */
static void forget_empty_zones(Disk *d)
{
    report(d);
    for (unsigned int i = 0; i < d->nr_zones; i++) {
        if (d->zones[i].state == BLK_ZS_EMPTY) {
            memset(d->data + d->zones[i].start, 0, d->zones[i].length);
        }
    }
}

static void manage(Disk *d, ZoneChoices *c, const BlockZoneDescriptor *z)
{
    static const BlockZoneOp ops[] = {
        BLK_ZO_OPEN, BLK_ZO_CLOSE, BLK_ZO_FINISH, BLK_ZO_RESET,
        BLK_ZO_RESET_ALL,
    };
    BlockZoneOp op = ops[zone_choose(c, ARRAY_SIZE(ops))];
    int64_t offset = z->start;
    int64_t len = z->length;

    switch (zone_choose(c, 6)) {
    case 0:
        offset = 0;
        len = d->size;
        break;
    case 1:
        len = MIN(2 * d->zone_size, d->size - z->start);
        break;
    }
    blk_zone_mgmt(d->blk, op, offset, len);
    forget_empty_zones(d);
}

/* Zones may lose their data by this, or get back what they had lost. */
static void set_condition(Disk *d, ZoneChoices *c, const BlockZoneDescriptor *z)
{
    uint64_t start = z->start;
    uint64_t end = MIN(start + (1 + zone_choose(c, 3)) * d->zone_size,
                       d->size);

    if (bdrv_zone_set_condition(blk_bs(d->blk), start, end - start,
                                zone_choose(c, BLOCKDEV_ZONE_CONDITION__MAX),
                                NULL) == 0) {
        memcpy(d->buf, d->data, d->size);
        g_assert_true(report(d));
        learn_data(d);
        g_assert_cmpmem(d->data, start, d->buf, start);
        g_assert_cmpmem(d->data + end, d->size - end, d->buf + end,
                        d->size - end);
    }
}

/* It may grow as far as there is room for its data here. */
static void grow(Disk *d, ZoneChoices *c)
{
    uint64_t size = zone_choose(c, 4) ? d->size + 512 * zone_choose(c, 256)
                                      : choose_number(c);
    int ret;

    if (size > MAX_DISK && size < 1ULL << 50) {
        return;
    }
    ret = blk_truncate(d->blk, size, zone_choose(c, 2), PREALLOC_MODE_OFF, 0,
                       NULL);
    if (ret < 0) {
        g_assert_cmpint(blk_getlength(d->blk), ==, d->size);
        return;
    }
    g_assert_cmpuint(size, >=, d->size);
    g_assert_true(!d->is_overlay);
    g_assert_true(d->is_wild || d->nr_shots == 0);
    d->size = size;
    d->nr_zones = blk_get_nr_zones(d->blk);
    g_assert_cmpuint(d->nr_zones, ==, DIV_ROUND_UP(size, d->zone_size));
}

/* Some of the zones, from any on */
static void report_part(Disk *d, ZoneChoices *c)
{
    BlockZoneDescriptor zones[8];
    unsigned int first = zone_choose(c, d->nr_zones);
    unsigned int n = 1 + zone_choose(c, ARRAY_SIZE(zones));
    unsigned int count = MIN(n, d->nr_zones - first);

    g_assert_cmpint(blk_zone_report(d->blk, first * d->zone_size, &n, zones),
                    ==, 0);
    g_assert_cmpuint(n, ==, count);
    for (unsigned int i = 0; i < n; i++) {
        g_assert_cmpuint(zones[i].start, ==, d->zones[first + i].start);
        g_assert_cmpuint(zones[i].wp, ==, d->zones[first + i].wp);
        g_assert_cmphex(zones[i].state, ==, d->zones[first + i].state);
    }
}

/*
 * Internal snapshots
 */

static void forget_shot(Shot *shot)
{
    g_clear_pointer(&shot->data, g_free);
    g_clear_pointer(&shot->zones, g_free);
}

/* The disk, as it was read and reported last, is what @shot has. */
static void fill_shot(const Disk *d, Shot *shot)
{
    shot->data = g_memdup2(d->data, d->size);
    shot->zones = g_memdup2(d->zones, d->nr_zones * sizeof(*d->zones));
}

static Shot *find_shot(Disk *d, const char *name)
{
    for (int i = 0; i < d->nr_shots; i++) {
        if (!strcmp(d->shots[i].name, name)) {
            return &d->shots[i];
        }
    }
    g_assert_not_reached();
}

static bool choose_shot(Disk *d, ZoneChoices *c, QEMUSnapshotInfo *info)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    int n = bdrv_snapshot_list(blk_bs(d->blk), &list);

    if (!d->is_wild) {
        g_assert_cmpint(n, ==, d->nr_shots);
    }
    if (n <= 0) {
        return false;
    }
    *info = list[zone_choose(c, n)];
    return true;
}

static void take_shot(Disk *d, ZoneChoices *c)
{
    QEMUSnapshotInfo info = { .date_sec = 1 };
    Shot *shot = &d->shots[d->nr_shots];

    if (d->nr_shots == MAX_SHOTS) {
        return;
    }
    snprintf(info.name, sizeof(info.name), "s%u", d->shots_taken++);
    WITH_GRAPH_RDLOCK_GUARD() {
        if (bdrv_snapshot_create(blk_bs(d->blk), &info) < 0) {
            return;
        }
    }
    d->nr_shots++;
    if (!d->is_wild) {
        pstrcpy(shot->name, sizeof(shot->name), info.name);
        fill_shot(d, shot);
    }
}

static void drop_shot(Disk *d, ZoneChoices *c)
{
    QEMUSnapshotInfo info;
    Shot *shot;

    if (!choose_shot(d, c, &info)) {
        return;
    }
    WITH_GRAPH_RDLOCK_GUARD() {
        if (bdrv_snapshot_delete(blk_bs(d->blk), info.id_str, info.name,
                                 NULL) < 0) {
            return;
        }
    }
    if (!d->is_wild) {
        shot = find_shot(d, info.name);
        forget_shot(shot);
        *shot = d->shots[--d->nr_shots];
        d->shots[d->nr_shots] = (Shot) { 0 };
    } else {
        d->nr_shots = MAX(d->nr_shots - 1, 0);
    }
}

/* The disk has become what it was, or been opened so. */
static void see_shot(Disk *d, Shot *shot)
{
    g_assert_true(report(d));
    d->exceeds_limit = is_above_active_limit(d);
    if (shot->data) {
        check_zones(d, shot->zones);
        memcpy(d->data, shot->data, d->size);
        check_data(d);
    } else {
        learn_data(d);
        fill_shot(d, shot);
    }
}

static void go_back(Disk *d, ZoneChoices *c)
{
    QEMUSnapshotInfo info;
    int ret;

    if (!choose_shot(d, c, &info)) {
        return;
    }
    ret = bdrv_snapshot_goto(blk_bs(d->blk), info.id_str, NULL);
    if (!d->is_wild) {
        Shot *shot = find_shot(d, info.name);

        if (ret == 0) {
            see_shot(d, shot);
        } else if (shot->data) {
            g_assert_cmpuint(file_size, >, MAX_FILE / 2);
        }
    }
}

/* In an image that is not in use, all snapshots are what they should be. */
static void check_shots(Disk *d)
{
    for (int i = 0; i < d->nr_shots; i++) {
        Shot *shot = &d->shots[i];

        if (!shot->data) {
            continue;
        }
        d->blk = open_image(0);
        g_assert_nonnull(d->blk);
        bdrv_snapshot_load_tmp_by_id_or_name(blk_bs(d->blk), shot->name,
                                             &error_abort);
        see_shot(d, shot);
        blk_unref(d->blk);
    }
}

/*
 * All together
 */

static void use(Disk *d, ZoneChoices *c)
{
    const BlockZoneDescriptor *z;
    BdrvCheckResult result;

    if (!report(d)) {
        return;
    }
    z = &d->zones[zone_choose(c, d->nr_zones)];
    switch (zone_choose(c, 32)) {
    case 0 ... 5:
    case 28 ... 31:
        write_zone(d, c, z, false);
        break;
    case 6:
        write_zone(d, c, z, true);
        break;
    case 7 ... 8:
        append(d, c, z);
        break;
    case 9 ... 12:
    case 26 ... 27:
        manage(d, c, z);
        break;
    case 13:
        if (z->type != BLK_ZT_CONV) {
            blk_pdiscard(d->blk, z->start, z->length, 0);
        }
        break;
    case 14:
        blk_flush(d->blk);
        break;
    case 15:
        check_image(d->blk, 0, &result);
        break;
    case 16 ... 17:
        take_shot(d, c);
        break;
    case 18 ... 19:
        go_back(d, c);
        break;
    case 20:
        drop_shot(d, c);
        break;
    case 21 ... 22:
        set_condition(d, c, z);
        break;
    case 23:
        grow(d, c);
        break;
    case 24:
        query(d->blk);
        break;
    case 25:
        report_part(d, c);
        break;
    }
    check_report(d);
    check_data(d);
}

/* Have @d use @blk; false if that is NULL. */
static bool disk_take(Disk *d, BlockBackend *blk)
{
    d->blk = blk;
    if (!blk) {
        return false;
    }
    g_assert_cmpint(blk_get_zone_model(d->blk), ==, BLK_Z_HM);
    d->size = blk_getlength(d->blk);
    d->zone_size = blk_get_zone_size(d->blk);
    d->nr_zones = blk_get_nr_zones(d->blk);
    g_assert_cmpuint(d->size, <=, MAX_DISK);
    g_assert_cmpuint(d->nr_zones, <=, MAX_ZONES);
    query(d->blk);
    report(d);
    d->exceeds_limit = is_above_active_limit(d);
    check_report(d);
    return true;
}

static bool disk_open(Disk *d, int flags)
{
    return disk_take(d, open_image(flags));
}

/* Of an image that is not in use, whose table a check reads. */
static int count_faults(void)
{
    BlockBackend *blk = open_image(BDRV_O_CHECK);
    BdrvCheckResult result;

    if (!blk) {
        return 0;
    }
    check_image(blk, 0, &result);
    blk_unref(blk);
    return result.corruptions + result.check_errors;
}

/*
 * What was done to the disk is there after it was closed, and no fault is new:
 * bytes that are not zeros behind a table of fewer zones are an old one.
 */
static void check_again(Disk *d, int faults)
{
    g_autofree BlockZoneDescriptor *zones =
        g_memdup2(d->zones, d->nr_zones * sizeof(*zones));

    g_assert_cmpint(count_faults(), <=, faults);

    g_assert_true(disk_open(d, 0));
    check_zones(d, zones);
    check_data(d);
    blk_unref(d->blk);
    check_shots(d);
}

/* Other metadata, or data, may be where the table is said to be. */
static bool is_table_in_place(const Template *t)
{
    return ldq_be_p(file + t->ext + 40) == t->table &&
           file_size == t->size &&
           ldl_be_p(file + t->ext + 4) <= t->entries;
}

/* May snapshots share clusters with what they should not, or lack some? */
static bool are_shots_wild(const Template *t)
{
    for (int i = 0; i < t->nr_shots; i++) {
        const uint8_t *old = t->bytes + t->shots[i].entry;
        const uint8_t *new = file + t->shots[i].entry;

        if (memcmp(old, new, SHOT_EXTRA) != 0 ||
            ldq_be_p(old + SHOT_COPY) != ldq_be_p(new + SHOT_COPY) ||
            ldl_be_p(old + SHOT_NR_ZONES) < ldl_be_p(new + SHOT_NR_ZONES)) {
            return true;
        }
    }
    return false;
}

/* May there be one that can only be deleted? */
static bool are_shots_edited(const Template *t)
{
    for (int i = 0; i < t->nr_shots; i++) {
        size_t entry = t->shots[i].entry;

        if (memcmp(t->bytes + entry, file + entry, SHOT_ENTRY) != 0) {
            return true;
        }
    }
    return t->nr_shots &&
           memcmp(t->bytes + t->ext, file + t->ext, EXT_SIZE) != 0;
}

/* The snapshots that @d has to begin with */
static void take_over_shots(Disk *d, const Template *t)
{
    bool same_zones = !memcmp(file + t->ext, t->bytes + t->ext, EXT_SIZE);

    for (int i = 0; i < t->nr_shots; i++) {
        const Shot *shot = &t->shots[i];

        d->shots[i] = *shot;
        if (same_zones &&
            !memcmp(file + shot->entry, t->bytes + shot->entry, SHOT_ENTRY) &&
            !memcmp(file + shot->copy, t->bytes + shot->copy,
                    t->entries * 8)) {
            d->shots[i].data = g_memdup2(shot->data, t->disk_size);
            d->shots[i].zones = g_memdup2(shot->zones, d->nr_zones *
                                          sizeof(*shot->zones));
        } else {
            d->shots[i].data = NULL;
            d->shots[i].zones = NULL;
        }
    }
}

/* @d has been opened, and its data is known. */
static void use_disk(Disk *d, ZoneChoices *c, int faults)
{
    for (int i = 0; i < MAX_OPS && !zone_choices_ended(c); i++) {
        use(d, c);
    }
    report(d);
    close_image(d->blk);
    if (!d->is_wild) {
        check_again(d, faults);
    }
    for (int i = 0; i < d->nr_shots; i++) {
        forget_shot(&d->shots[i]);
    }
}

static void use_image(const Template *t, ZoneChoices *c)
{
    g_autofree uint8_t *data = g_malloc0(MAX_DISK);
    g_autofree uint8_t *buf = g_malloc0(MAX_DISK);
    g_autofree BlockZoneDescriptor *zones =
        g_new0(BlockZoneDescriptor, MAX_ZONES + 1);
    Disk d = { .data = data, .buf = buf, .zones = zones };
    int unmap = zone_choose(c, 2) ? BDRV_O_UNMAP : 0;
    bool in_place = is_table_in_place(t);
    int faults = in_place ? count_faults() : 0;

    d.is_overlay = t->overlay_options;
    if (disk_open(&d, BDRV_O_RDWR | BDRV_O_RESIZE | unmap)) {
        if (!in_place) {
            blk_unref(d.blk);
            return;
        }
        learn_data(&d);
        d.is_wild = are_shots_wild(t);
        d.nr_shots = d.shots_taken = t->nr_shots;
        if (!d.is_wild) {
            take_over_shots(&d, t);
        }
        use_disk(&d, c, faults);
    } else if (disk_open(&d, 0)) {
        /* For reading only it may have bad entries. */
        learn_data(&d);
        g_assert_cmpint(count_faults(), >, 0);
        g_assert_cmpint(blk_pwrite(d.blk, 0, 512, buf, 0), <, 0);
        blk_unref(d.blk);
    }
}

/*
 * Have the image be below a new overlay, which is used.  To begin with it has
 * the same zones.
 */
static void use_clone(ZoneChoices *c)
{
    g_autofree uint8_t *data = g_malloc0(MAX_DISK);
    g_autofree uint8_t *buf = g_malloc0(MAX_DISK);
    g_autofree BlockZoneDescriptor *zones =
        g_new0(BlockZoneDescriptor, MAX_ZONES + 1);
    g_autofree BlockZoneDescriptor *base_zones = NULL;
    Disk d = { .data = data, .buf = buf, .zones = zones, .is_overlay = true };
    bool is_good = disk_open(&d, 0);
    g_autofree char *options = NULL;

    if (is_good) {
        learn_data(&d);
        base_zones = g_memdup2(zones, d.nr_zones * sizeof(*zones));
        blk_unref(d.blk);
    }
    set_base(file, file_size);
    options = g_strdup_printf("cluster_size=%d", 512 << zone_choose(c, 8));
    if (!create_image(options, BASE_NAME, -1)) {
        return;
    }
    g_assert_true(is_good);
    g_assert_true(disk_open(&d, BDRV_O_RDWR | BDRV_O_RESIZE));
    check_zones(&d, base_zones);
    check_data(&d);
    use_disk(&d, c, 0);
}

/*
 * Open for rescue: only reads, but all there is.  It agrees with what can be
 * read without.
 */
static bool rescue_open(Disk *d)
{
    g_autofree uint8_t *data = g_malloc0(MAX_DISK);
    g_autofree BlockZoneDescriptor *zones =
        g_new0(BlockZoneDescriptor, MAX_ZONES + 1);
    Disk plain = { .data = data, .zones = zones };

    g_assert_null(open_with(BDRV_O_RDWR, "on"));
    if (!disk_take(d, open_with(0, "on"))) {
        g_assert_null(open_image(0));
        return false;
    }
    learn_data(d);
    g_assert_cmpint(blk_pwrite(d->blk, 0, 512, data, 0), <, 0);
    if (!disk_open(&plain, 0)) {
        return true;
    }
    learn_data(&plain);
    blk_unref(plain.blk);
    for (unsigned int i = 0; i < d->nr_zones; i++) {
        const BlockZoneDescriptor *z = &d->zones[i];

        g_assert_false(is_offline(z));
        if (!is_offline(&plain.zones[i])) {
            g_assert_cmphex(plain.zones[i].state, ==, z->state);
            g_assert_cmpuint(plain.zones[i].wp, ==, z->wp);
            g_assert_cmpmem(data + z->start, z->length, d->data + z->start,
                            z->length);
        }
    }
    return true;
}

static void rescue_image(void)
{
    g_autofree uint8_t *data = g_malloc0(MAX_DISK);
    g_autofree BlockZoneDescriptor *zones =
        g_new0(BlockZoneDescriptor, MAX_ZONES + 1);
    Disk d = { .data = data, .zones = zones };

    if (rescue_open(&d)) {
        blk_unref(d.blk);
    }
}

/*
 * What is repaired has no fault, and can be used: unless snapshots claimed what
 * is not theirs, of which one more repair may find a trace.
 */
static bool repair(bool must_succeed, bool is_wild)
{
    BlockBackend *blk = open_image(BDRV_O_RDWR | BDRV_O_CHECK);
    BdrvCheckResult result;
    bool is_good;

    if (!blk) {
        return false;
    }
    check_image(blk, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &result);
    is_good = !result.check_errors && !result.corruptions && !is_wild;
    g_assert_true(is_good || !must_succeed);
    check_image(blk, 0, &result);
    if (is_good) {
        g_assert_cmpint(result.check_errors, ==, 0);
        g_assert_cmpint(result.corruptions, ==, 0);
        g_assert_cmpint(result.leaks, ==, 0);
    }
    close_image(blk);
    if (is_good) {
        blk = open_image(BDRV_O_RDWR);
        g_assert_nonnull(blk);
        blk_unref(blk);
    }
    return is_good;
}

/*
 * @z is repaired, @entry was there before: nothing is lost below a write
 * pointer in the zone, and all that may be data if there was none.
 */
static void check_repaired_zone(const Disk *old, const Disk *new,
                                const BlockZoneDescriptor *z, uint64_t entry)
{
    uint64_t wp = entry & ((1ULL << 59) - 1);
    uint64_t end = z->start + z->length;
    uint64_t kept = z->start;

    if (z->type == BLK_ZT_CONV) {
        kept = end;
    } else if (wp >= z->start && wp <= end) {
        kept = MIN(QEMU_ALIGN_DOWN(wp, 512), z->start + z->cap);
    } else if (z->state != BLK_ZS_RDONLY) {
        /* That it was finished may well be true. */
        g_assert_cmphex(z->state, ==, entry & ENTRY_FINISHED ? BLK_ZS_FULL
                                                             : BLK_ZS_EMPTY);
        g_assert_true(buffer_is_zero(old->data + z->start, z->length));
    }
    g_assert_cmpmem(new->data + z->start, kept - z->start,
                    old->data + z->start, kept - z->start);
    for (uint64_t pos = kept; pos < end; pos++) {
        g_assert_true(new->data[pos] == old->data[pos] || new->data[pos] == 0);
    }
}

/*
 * @old and @new were opened for rescue, where a zone is READ-ONLY if it is, or
 * is OFFLINE, or has a bad entry.  Others lose no data, but maybe room to
 * write.
 */
static void check_repaired(const Disk *old, const Disk *new,
                           const uint64_t *entries)
{
    g_assert_cmpuint(new->nr_zones, ==, old->nr_zones);
    for (unsigned int i = 0; i < new->nr_zones; i++) {
        const BlockZoneDescriptor *was = &old->zones[i];
        const BlockZoneDescriptor *z = &new->zones[i];

        if (was->state == BLK_ZS_RDONLY) {
            check_repaired_zone(old, new, z, be64_to_cpu(entries[i]));
            continue;
        }
        g_assert_true(z->state == BLK_ZS_FULL ||
                      (z->state == was->state && z->wp == was->wp));
        g_assert_cmpmem(new->data + z->start, z->length,
                        old->data + z->start, z->length);
    }
}

static void repair_image(const Template *t)
{
    g_autofree uint8_t *old_data = g_malloc0(MAX_DISK);
    g_autofree uint8_t *data = g_malloc0(MAX_DISK);
    g_autofree BlockZoneDescriptor *old_zones =
        g_new0(BlockZoneDescriptor, MAX_ZONES + 1);
    g_autofree BlockZoneDescriptor *zones =
        g_new0(BlockZoneDescriptor, MAX_ZONES + 1);
    Disk old = { .data = old_data, .zones = old_zones };
    Disk d = { .data = data, .zones = zones };
    bool in_place = is_table_in_place(t);
    bool must_succeed = in_place && !are_shots_edited(t);
    bool is_wild = are_shots_wild(t);
    g_autofree uint64_t *entries = g_memdup2(file + t->table, t->entries * 8);
    BlockBackend *blk;

    if (in_place && rescue_open(&old)) {
        blk_unref(old.blk);
        if (repair(must_succeed, is_wild)) {
            g_assert_true(rescue_open(&d));
            blk_unref(d.blk);
            check_repaired(&old, &d, entries);
        }
    } else {
        repair(false, is_wild);
    }
    blk = open_image(BDRV_O_NO_IO);
    if (blk) {
        query(blk);
        blk_unref(blk);
    }
}

/*
 * Templates
 */

/* Fill each sequential zone with secrets, and reset it; leave some data. */
static void use_zones(Disk *d)
{
    g_autofree uint8_t *secret = g_malloc(d->zone_size);

    memset(secret, SECRET, d->zone_size);
    for (unsigned int i = 0; i < d->nr_zones; i++) {
        const BlockZoneDescriptor *z = &d->zones[i];

        if (z->type == BLK_ZT_CONV) {
            continue;
        }
        g_assert_cmpint(blk_pwrite(d->blk, z->start, z->cap, secret, 0), ==,
                        0);
        g_assert_cmpint(blk_zone_mgmt(d->blk, BLK_ZO_RESET, z->start,
                                      z->length), ==, 0);
        if (i < 3) {
            g_assert_cmpint(blk_pwrite(d->blk, z->start, 512, secret, 0), ==,
                            0);
        }
    }
}

/* Take a snapshot, and change each sequential zone that has data by then. */
static void make_shot(Disk *d)
{
    uint8_t sector[512];

    memset(sector, '0' + d->nr_shots, sizeof(sector));
    report(d);
    learn_data(d);
    take_shot(d, NULL);
    for (unsigned int i = 0; i < MIN(d->nr_zones, 3); i++) {
        const BlockZoneDescriptor *z = &d->zones[i];

        if (z->type == BLK_ZT_CONV) {
            continue;
        }
        g_assert_cmpint(blk_zone_mgmt(d->blk, BLK_ZO_RESET, z->start,
                                      z->length), ==, 0);
        if (i != d->nr_shots) {
            g_assert_cmpint(blk_pwrite(d->blk, z->start, 512, sector, 0), ==,
                            0);
        }
    }
}

/* Find what is edited. */
static void analyse_template(Template *t)
{
    size_t entry;

    t->ext = ldl_be_p(t->bytes + HEADER_LENGTH);
    while (ldl_be_p(t->bytes + t->ext) != EXT_MAGIC) {
        t->ext += 8 + ROUND_UP(ldl_be_p(t->bytes + t->ext + 4), 8);
    }
    t->ext += 8;
    t->table = ldq_be_p(t->bytes + t->ext + 40);
    t->entries = ROUND_UP(ldl_be_p(t->bytes + t->ext + 4) * 8,
                          1 << ldl_be_p(t->bytes + CLUSTER_BITS)) / 8;

    g_assert_cmpint(ldl_be_p(t->bytes + NB_SNAPSHOTS), ==, t->nr_shots);
    entry = ldq_be_p(t->bytes + SNAPSHOTS);
    for (int i = 0; i < t->nr_shots; i++) {
        t->shots[i].entry = entry;
        t->shots[i].copy = ldq_be_p(t->bytes + entry + SHOT_COPY);
        entry += SHOT_EXTRA + ldl_be_p(t->bytes + entry + SHOT_EXTRA_SIZE) +
                 lduw_be_p(t->bytes + entry + 12) +
                 lduw_be_p(t->bytes + entry + 14);
        entry = ROUND_UP(entry, 8);
    }
}

static void make_template(Template *t)
{
    g_autofree uint8_t *data = g_malloc0(MAX_DISK);
    g_autofree BlockZoneDescriptor *zones =
        g_new0(BlockZoneDescriptor, MAX_ZONES + 1);
    Disk d = { .data = data, .zones = zones };

    g_assert_true(create_image(t->options, NULL, t->disk_size));
    g_assert_true(disk_open(&d, BDRV_O_RDWR));
    use_zones(&d);
    if (t->overlay_options) {
        blk_unref(d.blk);
        t->base = g_memdup2(file, file_size);
        t->base_size = file_size;
        set_base(file, file_size);
        g_assert_true(create_image(t->overlay_options, BASE_NAME, -1));
        g_assert_true(disk_open(&d, BDRV_O_RDWR));
    }
    for (int i = 0; i < t->nr_shots; i++) {
        make_shot(&d);
        t->shots[i] = d.shots[i];
    }
    blk_unref(d.blk);

    t->bytes = g_memdup2(file, file_size);
    t->size = file_size;
    analyse_template(t);
}

static void load_template(const Template *t)
{
    memory_clear();
    memcpy(file, t->bytes, t->size);
    file_size = file_end = t->size;
    if (t->base) {
        set_base(t->base, t->base_size);
    }
}

void fuzz_zone_init(void)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    bdrv_register(&memory_driver);
    bdrv_register(&base_driver);
    file = g_malloc0(MAX_FILE);
    base = g_malloc0(MAX_FILE);
    for (int i = 0; i < ARRAY_SIZE(templates); i++) {
        make_template(&templates[i]);
    }
}

void fuzz_zone_input(const uint8_t *data, size_t size)
{
    ZoneChoices c = { .data = data, .size = size };
    const Template *t;

    if (size == 0) {
        return;
    }
    t = &templates[zone_choose(&c, ARRAY_SIZE(templates))];
    load_template(t);

    for (int n = zone_choose(&c, 8); n > 0; n--) {
        edit(&c, t);
    }
    switch (zone_choose(&c, 4)) {
    case 0:
        repair_image(t);
        break;
    case 1:
        rescue_image();
        break;
    case 2:
        if (!t->base && zone_choose(&c, 2)) {
            use_clone(&c);
            bdrv_drain_all();
            return;
        }
        break;
    }
    use_image(t, &c);
    bdrv_drain_all();
}
