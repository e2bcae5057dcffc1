/*
 * Fuzzing zoned qcow2 images: header extension and zone table of a good image
 * are edited, then it is opened, checked, used and opened again
 *
 * The image file is in memory.  Its clusters hold a secret wherever no zone
 * has data.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/block-global-state.h"
#include "block/block_int.h"
#include "block/qapi.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "fuzz-zone.h"
#include "zone-models.h"

#define EXT_MAGIC       0x007a6264
#define EXT_SIZE        48
#define CLUSTER_BITS    20      /* where the header has them */
#define HEADER_LENGTH   100
#define SECRET          0x5e
#define MAX_FILE        (2 * MiB)
#define MAX_DISK        (256 * KiB)
#define MAX_ZONES       (MAX_DISK / 512)
#define MAX_OPS         128

/* An image to start from */
typedef struct Template {
    const char *options;
    uint64_t disk_size;

    uint8_t *bytes;
    size_t size;
    size_t ext;                 /* where its header extension is */
    size_t table;
    uint32_t entries;           /* that its clusters have room for */
} Template;

static Template templates[] = {
    {
        "zone.mode=host-managed,zone.size=8k,zone.capacity=6k,"
        "zone.conventional_zones=1,zone.max_open_zones=2,"
        "zone.max_active_zones=3,zone.max_append_bytes=4k,cluster_size=4k",
        61 * KiB,
    }, {
        "zone.mode=host-managed,zone.size=64k", 3 * 64 * KiB - 512,
    }, {
        "zone.mode=host-managed,zone.size=1k,zone.capacity=512,"
        "zone.max_open_zones=4,zone.max_active_zones=4,cluster_size=512,"
        "lazy_refcounts=on",
        96 * KiB,
    }, {
        "zone.mode=host-managed,zone.size=32k,zone.max_open_zones=1,"
        "cluster_size=16k,extended_l2=on",
        128 * KiB,
    },
};

/*
 * The image file
 */

static uint8_t *file;           /* zeros above @file_end */
static size_t file_size;
static size_t file_end;         /* of what has been written lately */

static int coroutine_fn memory_co_preadv(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         BdrvRequestFlags flags)
{
    if (offset + bytes > MAX_FILE) {
        return -EIO;
    }
    qemu_iovec_from_buf(qiov, 0, file + offset, bytes);
    return 0;
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

static BlockDriver memory_driver = {
    .format_name        = "fuzz-memory",
    .bdrv_co_preadv     = memory_co_preadv,
    .bdrv_co_pwritev    = memory_co_pwritev,
    .bdrv_co_truncate   = memory_co_truncate,
    .bdrv_co_getlength  = memory_co_getlength,
};

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

/*
 * Templates
 */

/* Fill each sequential zone with secrets, and reset it; leave some data. */
static void use_zones(BlockBackend *blk)
{
    uint64_t zone_size = blk_get_zone_size(blk);
    g_autofree uint8_t *secret = g_malloc(zone_size);

    memset(secret, SECRET, zone_size);
    for (unsigned int i = 0; i < blk_get_nr_zones(blk); i++) {
        BlockZoneDescriptor desc;
        unsigned int n = 1;

        blk_zone_report(blk, i * zone_size, &n, &desc);
        if (desc.type == BLK_ZT_CONV) {
            continue;
        }
        g_assert_cmpint(blk_pwrite(blk, desc.start, desc.cap, secret, 0), ==,
                        0);
        g_assert_cmpint(blk_zone_mgmt(blk, BLK_ZO_RESET, desc.start,
                                      desc.length), ==, 0);
        if (i < 3) {
            g_assert_cmpint(blk_pwrite(blk, desc.start, 512, secret, 0), ==,
                            0);
        }
    }
}

static void make_template(Template *t)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *name = NULL;
    gchar *contents;
    BlockBackend *blk;
    int fd = g_file_open_tmp("fuzz-zone-XXXXXX", &name, &error);

    g_assert_no_error(error);
    close(fd);
    bdrv_img_create(name, "qcow2", NULL, NULL, (char *)t->options,
                    t->disk_size, 0, true, &error_abort);
    blk = blk_new_open(name, NULL, NULL, BDRV_O_RDWR, &error_abort);
    use_zones(blk);
    blk_unref(blk);
    g_file_get_contents(name, &contents, &t->size, &error);
    g_assert_no_error(error);
    g_unlink(name);

    t->bytes = (uint8_t *)contents;
    t->ext = ldl_be_p(t->bytes + HEADER_LENGTH);
    while (ldl_be_p(t->bytes + t->ext) != EXT_MAGIC) {
        t->ext += 8 + ROUND_UP(ldl_be_p(t->bytes + t->ext + 4), 8);
    }
    t->ext += 8;
    t->table = ldq_be_p(t->bytes + t->ext + 40);
    t->entries = ROUND_UP(ldl_be_p(t->bytes + t->ext + 4) * 8,
                          1 << ldl_be_p(t->bytes + CLUSTER_BITS)) / 8;
}

void fuzz_zone_init(void)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    bdrv_register(&memory_driver);
    file = g_malloc0(MAX_FILE);
    for (int i = 0; i < ARRAY_SIZE(templates); i++) {
        make_template(&templates[i]);
    }
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

static void edit_entry(ZoneChoices *c, const Template *t)
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
    stq_be_p(file + t->table + zone * 8, entry);
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
    default:
        edit_entry(c, t);
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
} Disk;

static void report(Disk *d)
{
    unsigned int n = MAX_ZONES;

    g_assert_cmpint(blk_zone_report(d->blk, 0, &n, d->zones), ==, 0);
    g_assert_cmpuint(n, ==, d->nr_zones);
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

/* No report may contradict itself or the limits. */
static void check_report(Disk *d)
{
    unsigned int open = 0;

    report(d);
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
    read_disk(d, d->buf);
    g_assert_cmpmem(d->buf, d->size, d->data, d->size);
}

static void learn_data(Disk *d)
{
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
    if (bdrv_check(blk_bs(blk), result, fix) < 0) {
        g_assert_cmpint(result->check_errors, >, 0);
    }
}

static void query(BlockBackend *blk)
{
    ImageInfo *info = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    bdrv_query_image_info(blk_bs(blk), &info, true, false, &error_abort);
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

static void use(Disk *d, ZoneChoices *c)
{
    const BlockZoneDescriptor *z;
    BdrvCheckResult result;

    report(d);
    z = &d->zones[zone_choose(c, d->nr_zones)];
    switch (zone_choose(c, 16)) {
    case 0 ... 5:
        write_zone(d, c, z, false);
        break;
    case 6:
        write_zone(d, c, z, true);
        break;
    case 7 ... 8:
        append(d, c, z);
        break;
    case 9 ... 12:
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
    for (unsigned int i = 0; i < d->nr_zones; i++) {
        BlockZoneState state = zones[i].state;

        if (state == BLK_ZS_IOPEN || state == BLK_ZS_EOPEN) {
            state = zones[i].wp == zones[i].start ? BLK_ZS_EMPTY
                                                  : BLK_ZS_CLOSED;
        }
        g_assert_cmphex(d->zones[i].state, ==, state);
        g_assert_cmpuint(d->zones[i].wp, ==, zones[i].wp);
    }
    check_data(d);
    blk_unref(d->blk);
}

/* Other metadata, or data, may be where the table is said to be. */
static bool is_table_in_place(const Template *t)
{
    return ldq_be_p(file + t->ext + 40) == t->table &&
           file_size == t->size &&
           ldl_be_p(file + t->ext + 4) <= t->entries;
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

    if (disk_open(&d, BDRV_O_RDWR | unmap)) {
        if (!in_place) {
            blk_unref(d.blk);
            return;
        }
        learn_data(&d);
        for (int i = 0; i < MAX_OPS && !zone_choices_ended(c); i++) {
            use(&d, c);
        }
        report(&d);
        blk_unref(d.blk);
        check_again(&d, faults);
    } else if (disk_open(&d, 0)) {
        /* For reading only it may have bad entries. */
        learn_data(&d);
        g_assert_cmpint(count_faults(), >, 0);
        g_assert_cmpint(blk_pwrite(d.blk, 0, 512, buf, 0), <, 0);
        blk_unref(d.blk);
    }
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

/* What is repaired has no fault, and can be used. */
static bool repair(bool must_succeed)
{
    BlockBackend *blk = open_image(BDRV_O_RDWR | BDRV_O_CHECK);
    BdrvCheckResult result;
    bool is_good;

    if (!blk) {
        return false;
    }
    check_image(blk, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &result);
    is_good = !result.check_errors && !result.corruptions;
    g_assert_true(is_good || !must_succeed);
    check_image(blk, 0, &result);
    if (is_good) {
        g_assert_cmpint(result.check_errors, ==, 0);
        g_assert_cmpint(result.corruptions, ==, 0);
        g_assert_cmpint(result.leaks, ==, 0);
    }
    blk_unref(blk);
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
        g_assert_cmphex(z->state, ==, BLK_ZS_EMPTY);
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
    g_autofree uint64_t *entries = g_memdup2(file + t->table, t->entries * 8);
    BlockBackend *blk;

    if (in_place && rescue_open(&old)) {
        blk_unref(old.blk);
        g_assert_true(repair(true));
        g_assert_true(rescue_open(&d));
        blk_unref(d.blk);
        check_repaired(&old, &d, entries);
    } else {
        repair(false);
    }
    blk = open_image(BDRV_O_NO_IO);
    if (blk) {
        query(blk);
        blk_unref(blk);
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
    memset(file, 0, file_end);
    memcpy(file, t->bytes, t->size);
    file_size = file_end = t->size;

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
    }
    use_image(t, &c);
    bdrv_drain_all();
}
