/*
 * Zoned qcow2 images under many requests at once, from one thread and several
 *
 * test-zone-table and test-zone-writes prove the rules on a disk made of
 * nothing.  This one has them meet the real data path, image file and flush.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/block-global-state.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "zone-threads.h"

#define BLOCK       (4 * KiB)
#define ZONE_SIZE   (1 * MiB)
#define ZONE_BLOCKS (ZONE_SIZE / BLOCK)
#define NR_ZONES    8

static char *image;

static BlockBackend *open_file(const char *name, const char *driver)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", driver);
    return blk_new_open(name, NULL, options, BDRV_O_RDWR, &error_abort);
}

static BlockBackend *open_image(void)
{
    return open_file(image, "qcow2");
}

static BlockBackend *new_image(const char *limits)
{
    g_autofree char *options =
        g_strdup_printf("zone.mode=host-managed,zone.size=1M%s", limits);

    bdrv_img_create(image, "qcow2", NULL, NULL, options, NR_ZONES * ZONE_SIZE,
                    0, true, &error_abort);
    return open_image();
}

static BlockZoneDescriptor describe(BlockBackend *blk, unsigned zone)
{
    BlockZoneDescriptor desc;
    unsigned int n = 1;

    g_assert_cmpint(blk_zone_report(blk, zone * ZONE_SIZE, &n, &desc), ==, 0);
    g_assert_cmpuint(n, ==, 1);
    return desc;
}

/* A block says who wrote it, so that one in the wrong place is found. */
static void fill_block(uint64_t *buf, unsigned writer, unsigned sequence)
{
    for (int i = 0; i < BLOCK / sizeof(*buf); i++) {
        buf[i] = ((uint64_t)writer + 1) << 32 | sequence << 12 | i;
    }
}

static void check_block(BlockBackend *blk, int64_t offset, unsigned writer,
                        unsigned sequence)
{
    uint64_t expected[BLOCK / sizeof(uint64_t)];
    uint64_t seen[BLOCK / sizeof(uint64_t)];

    fill_block(expected, writer, sequence);
    g_assert_cmpint(blk_pread(blk, offset, BLOCK, seen, 0), ==, 0);
    g_assert_cmpmem(seen, BLOCK, expected, BLOCK);
}

/* One zone append in flight */
typedef struct Append {
    uint64_t buf[BLOCK / sizeof(uint64_t)];
    QEMUIOVector qiov;
    int64_t offset;
    bool done;
} Append;

static void append_done(void *opaque, int ret)
{
    Append *a = opaque;

    g_assert_cmpint(ret, ==, 0);
    a->done = true;
}

static void check_appends(BlockBackend *blk, Append *appends, unsigned n,
                          unsigned nr_zones)
{
    g_autofree bool *taken = g_new0(bool, NR_ZONES * ZONE_BLOCKS);

    for (unsigned i = 0; i < n; i++) {
        int64_t offset = appends[i].offset;

        g_assert_cmpint(offset / ZONE_SIZE, ==, i % nr_zones);
        g_assert_false(taken[offset / BLOCK]);
        taken[offset / BLOCK] = true;
        check_block(blk, offset, 0, i);
    }
    for (unsigned zone = 0; zone < nr_zones; zone++) {
        g_assert_cmpuint(describe(blk, zone).wp, ==,
                         zone * ZONE_SIZE + n / nr_zones * BLOCK);
    }
}

static void test_appends_in_flight(void)
{
    enum { N = 32, ZONES = 4 };
    BlockBackend *blk = new_image("");
    g_autofree Append *appends = g_new0(Append, N);
    unsigned done = 0;

    for (unsigned i = 0; i < N; i++) {
        Append *a = &appends[i];

        fill_block(a->buf, 0, i);
        qemu_iovec_init_buf(&a->qiov, a->buf, BLOCK);
        a->offset = i % ZONES * ZONE_SIZE;
        blk_aio_zone_append(blk, &a->offset, &a->qiov, 0, append_done, a);
    }
    while (done < N) {
        aio_poll(qemu_get_aio_context(), true);
        done = 0;
        for (unsigned i = 0; i < N; i++) {
            done += appends[i].done;
        }
    }
    check_appends(blk, appends, N, ZONES);

    /* And again after a power cycle */
    blk_unref(blk);
    blk = open_image();
    check_appends(blk, appends, N, ZONES);
    blk_unref(blk);
}

/*
 * Threads that append to the same zones.  The last zone is apart: one thread
 * of them fills, flushes, finishes and resets it all the time.
 */
enum { THREADS = 4, WORKERS = 4, APPENDS = 96, SHARED_ZONES = NR_ZONES - 1 };

typedef struct Worker {
    BlockBackend *blk;
    AioContext *ctx;
    unsigned id;
    int64_t offsets[APPENDS];
    bool zones_go_bad;
    int *running;
} Worker;

/* Append a block to @zone, and again as long as the zone is bad. */
static int64_t coroutine_fn append_block(Worker *w, unsigned zone,
                                         QEMUIOVector *qiov)
{
    int64_t offset = zone * ZONE_SIZE;
    int ret = blk_co_zone_append(w->blk, &offset, qiov, 0);

    while (ret == -EINVAL && w->zones_go_bad) {
        aio_co_schedule(w->ctx, qemu_coroutine_self());
        qemu_coroutine_yield();
        offset = zone * ZONE_SIZE;
        ret = blk_co_zone_append(w->blk, &offset, qiov, 0);
    }
    g_assert_cmpint(ret, ==, 0);
    return offset;
}

static void coroutine_fn append_all(void *opaque)
{
    Worker *w = opaque;
    uint64_t buf[BLOCK / sizeof(uint64_t)];
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, BLOCK);

    for (unsigned i = 0; i < APPENDS; i++) {
        fill_block(buf, w->id, i);
        w->offsets[i] = append_block(w, (w->id + i) % SHARED_ZONES, &qiov);
        if (i % 8 == w->id % 8) {
            g_assert_cmpint(blk_co_flush(w->blk), ==, 0);
        }
    }
    qatomic_dec(w->running);
    aio_wait_kick();
}

static void coroutine_fn cycle_zone(void *opaque)
{
    Worker *w = opaque;
    int64_t start = (int64_t)SHARED_ZONES * ZONE_SIZE;
    uint64_t buf[BLOCK / sizeof(uint64_t)];

    for (unsigned i = 0; i < APPENDS; i++) {
        unsigned n = 1 + i % 7;

        for (unsigned block = 0; block < n; block++) {
            fill_block(buf, w->id, i);
            g_assert_cmpint(blk_co_pwrite(w->blk, start + block * BLOCK,
                                          BLOCK, buf, 0), ==, 0);
        }
        if (i % 3 == 0) {
            g_assert_cmpint(blk_co_flush(w->blk), ==, 0);
        }
        if (i % 2 == 0) {
            g_assert_cmpint(blk_co_zone_mgmt(w->blk, BLK_ZO_FINISH, start,
                                             ZONE_SIZE), ==, 0);
        }
        if (i < APPENDS - 1) {
            g_assert_cmpint(blk_co_zone_mgmt(w->blk, BLK_ZO_RESET, start,
                                             ZONE_SIZE), ==, 0);
        }
    }
    qatomic_dec(w->running);
    aio_wait_kick();
}

static void coroutine_fn set_condition(Worker *w, unsigned zone,
                                       BlockdevZoneCondition condition)
{
    GRAPH_RDLOCK_GUARD();
    g_assert_cmpint(bdrv_co_zone_set_condition(blk_bs(w->blk),
                                               zone * ZONE_SIZE, ZONE_SIZE,
                                               condition, &error_abort), ==, 0);
}

/* One shared zone after the other is bad for a while. */
static void coroutine_fn spoil_zones(void *opaque)
{
    Worker *w = opaque;

    for (unsigned i = 0; i < APPENDS; i++) {
        unsigned zone = i % SHARED_ZONES;
        BlockZoneDescriptor before, after;
        unsigned int n = 1;

        set_condition(w, zone, i % 2 ? BLOCKDEV_ZONE_CONDITION_READ_ONLY
                                     : BLOCKDEV_ZONE_CONDITION_OFFLINE);
        g_assert_cmpint(blk_co_zone_report(w->blk, zone * ZONE_SIZE, &n,
                                           &before), ==, 0);
        g_assert_cmpint(before.state, ==, i % 2 ? BLK_ZS_RDONLY
                                                : BLK_ZS_OFFLINE);
        g_assert_cmpint(blk_co_flush(w->blk), ==, 0);
        g_assert_cmpint(blk_co_zone_report(w->blk, zone * ZONE_SIZE, &n,
                                           &after), ==, 0);
        g_assert_cmpuint(after.wp, ==, before.wp);
        set_condition(w, zone, BLOCKDEV_ZONE_CONDITION_NORMAL);
    }
    qatomic_dec(w->running);
    aio_wait_kick();
}

static void check_threads(BlockBackend *blk, Worker *workers, unsigned n)
{
    g_autofree bool *taken = g_new0(bool, NR_ZONES * ZONE_BLOCKS);
    unsigned blocks[SHARED_ZONES] = { 0 };

    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < APPENDS; j++) {
            int64_t offset = workers[i].offsets[j];

            g_assert_false(taken[offset / BLOCK]);
            taken[offset / BLOCK] = true;
            blocks[offset / ZONE_SIZE]++;
            check_block(blk, offset, i, j);
        }
    }
    for (unsigned zone = 0; zone < SHARED_ZONES; zone++) {
        g_assert_cmpuint(describe(blk, zone).wp, ==,
                         zone * ZONE_SIZE + blocks[zone] * BLOCK);
    }
}

/* Workers that append, and @other, which does something else */
static void run_threads(CoroutineEntry *other, bool zones_go_bad)
{
    enum { N = THREADS * WORKERS };
    BlockBackend *blk = new_image(",zone.max_open_zones=5");
    g_autofree Worker *workers = g_new0(Worker, N + 1);
    IOThread *threads[THREADS];
    int running = N + 1;

    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = iothread_new();
    }
    for (unsigned i = 0; i <= N; i++) {
        Worker *w = &workers[i];

        *w = (Worker) {
            .blk = blk,
            .ctx = iothread_get_aio_context(threads[i % THREADS]),
            .id = i,
            .zones_go_bad = zones_go_bad,
            .running = &running,
        };
        aio_co_schedule(w->ctx, qemu_coroutine_create(i < N ? append_all
                                                            : other, w));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&running) > 0);
    zone_threads_join(threads, THREADS);

    check_threads(blk, workers, N);
    blk_unref(blk);
    blk = open_image();
    check_threads(blk, workers, N);
    blk_unref(blk);
}

static void test_threads_share_zones(void)
{
    run_threads(cycle_zone, false);
}

static void test_threads_share_bad_zones(void)
{
    run_threads(spoil_zones, true);
}

/* A zone request of each kind, in flight */
typedef struct ZoneRequests {
    Append append;
    bool reset_done, finish_done, report_done;
    BlockZoneDescriptor descs[NR_ZONES];
    unsigned int nr_descs;
} ZoneRequests;

static void set_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    *(bool *)opaque = true;
}

static void send_zone_requests(BlockBackend *blk, ZoneRequests *r)
{
    memset(r, 0, sizeof(*r));
    r->nr_descs = NR_ZONES;
    fill_block(r->append.buf, 0, 0);
    qemu_iovec_init_buf(&r->append.qiov, r->append.buf, BLOCK);
    blk_aio_zone_append(blk, &r->append.offset, &r->append.qiov, 0,
                        append_done, &r->append);
    blk_aio_zone_mgmt(blk, BLK_ZO_RESET, ZONE_SIZE, ZONE_SIZE, set_done,
                      &r->reset_done);
    blk_aio_zone_mgmt(blk, BLK_ZO_FINISH, 2 * ZONE_SIZE, ZONE_SIZE, set_done,
                      &r->finish_done);
    blk_aio_zone_report(blk, 0, &r->nr_descs, r->descs, set_done,
                        &r->report_done);
}

static bool any_done(const ZoneRequests *r)
{
    return r->append.done || r->reset_done || r->finish_done ||
           r->report_done;
}

static bool all_done(const ZoneRequests *r)
{
    return r->append.done && r->reset_done && r->finish_done &&
           r->report_done;
}

static void test_drain(void)
{
    BlockBackend *blk = new_image("");
    ZoneRequests r;
    uint64_t buf[BLOCK / sizeof(uint64_t)];

    fill_block(buf, 1, 0);
    for (unsigned zone = 1; zone < 3; zone++) {
        g_assert_cmpint(blk_pwrite(blk, zone * ZONE_SIZE, BLOCK, buf, 0), ==,
                        0);
    }

    send_zone_requests(blk, &r);
    g_assert_false(any_done(&r));
    blk_drain(blk);
    g_assert_true(all_done(&r));
    g_assert_cmpuint(describe(blk, 0).wp, ==, BLOCK);
    g_assert_cmpint(describe(blk, 1).state, ==, BLK_ZS_EMPTY);
    g_assert_cmpint(describe(blk, 2).state, ==, BLK_ZS_FULL);

    /* Those that come in a drained section wait for its end */
    bdrv_drained_begin(blk_bs(blk));
    send_zone_requests(blk, &r);
    while (aio_poll(qemu_get_aio_context(), false)) {
        g_assert_false(any_done(&r));
    }
    g_assert_false(any_done(&r));
    bdrv_drained_end(blk_bs(blk));
    while (!all_done(&r)) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpuint(describe(blk, 0).wp, ==, 2 * BLOCK);
    blk_unref(blk);
}

static void append_and_wait(BlockBackend *blk, Append *a)
{
    a->offset = 0;
    a->done = false;
    blk_aio_zone_append(blk, &a->offset, &a->qiov, 0, append_done, a);
    while (!a->done) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

/* Of the device, that is; a throttle node has tests of its own. */
static void test_throttling(void)
{
    enum { PER_SECOND = 16 };
    BlockBackend *blk = new_image("");
    Append a;
    ThrottleConfig config;
    gint64 time;

    fill_block(a.buf, 0, 0);
    qemu_iovec_init_buf(&a.qiov, a.buf, BLOCK);
    throttle_config_init(&config);
    config.buckets[THROTTLE_BPS_WRITE].avg = PER_SECOND * BLOCK;
    blk_io_limits_enable(blk, "group");
    blk_set_io_limits(blk, &config);

    time = g_get_monotonic_time();
    for (int i = 0; i < PER_SECOND; i++) {
        append_and_wait(blk, &a);
    }
    time = g_get_monotonic_time() - time;
    g_assert_cmpint(time, >, G_USEC_PER_SEC / 2);

    blk_io_limits_disable(blk);
    blk_unref(blk);
}

/* One copy, without reading and writing if the nodes are able to */
typedef struct Copy {
    BlockBackend *from, *to;
    int64_t from_offset, to_offset;
    int ret;
} Copy;

static void coroutine_fn copy_entry(void *opaque)
{
    Copy *c = opaque;

    c->ret = blk_co_copy_range(c->from, c->from_offset, c->to, c->to_offset,
                               BLOCK, 0, 0);
}

static int copy(BlockBackend *from, int64_t from_offset, BlockBackend *to,
                int64_t to_offset)
{
    Copy c = {
        .from = from,
        .to = to,
        .from_offset = from_offset,
        .to_offset = to_offset,
        .ret = -EINPROGRESS,
    };

    qemu_coroutine_enter(qemu_coroutine_create(copy_entry, &c));
    while (c.ret == -EINPROGRESS) {
        aio_poll(qemu_get_aio_context(), true);
    }
    return c.ret;
}

/*
 * The data of a zone is not all that there is to a copy: from one, what is
 * above the write pointer must not be seen, to one, it must move.
 */
static void test_copy_range(void)
{
    g_autofree char *name = g_strconcat(image, ".raw", NULL);
    BlockBackend *blk = new_image("");
    BlockBackend *raw;
    uint64_t buf[2 * BLOCK / sizeof(uint64_t)];

    fill_block(buf, 1, 0);
    fill_block(buf + BLOCK / sizeof(uint64_t), 1, 1);
    g_assert_true(g_file_set_contents(name, (char *)buf, 2 * BLOCK, NULL));
    raw = open_file(name, "raw");
    fill_block(buf, 2, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, BLOCK, buf, 0), ==, 0);

    g_assert_cmpint(copy(raw, 0, raw, BLOCK), !=, -ENOTSUP);
    g_assert_cmpint(copy(blk, 0, raw, 0), ==, -ENOTSUP);
    g_assert_cmpint(copy(blk, ZONE_SIZE, raw, 0), ==, -ENOTSUP);
    g_assert_cmpint(copy(raw, 0, blk, BLOCK), ==, -ENOTSUP);
    g_assert_cmpint(copy(raw, 0, blk, ZONE_SIZE), ==, -ENOTSUP);
    g_assert_cmpint(copy(raw, 0, blk, 0), ==, -ENOTSUP);

    check_block(raw, 0, 1, 0);
    check_block(blk, 0, 2, 0);
    g_assert_cmpuint(describe(blk, 0).wp, ==, BLOCK);
    g_assert_cmpuint(describe(blk, 1).wp, ==, ZONE_SIZE);
    g_assert_cmpint(describe(blk, 1).state, ==, BLK_ZS_EMPTY);

    blk_unref(raw);
    blk_unref(blk);
    g_unlink(name);
}

int main(int argc, char **argv)
{
    g_autofree char *dir = NULL;
    int ret;

    module_call_init(MODULE_INIT_QOM);
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);

    dir = g_dir_make_tmp("test-zone-qcow2-XXXXXX", NULL);
    g_assert_nonnull(dir);
    image = g_build_filename(dir, "zoned.qcow2", NULL);

    g_test_add_func("/zone-qcow2/32-appends-in-flight-get-32-places",
                    test_appends_in_flight);
    g_test_add_func("/zone-qcow2/threads-share-zones-and-lose-nothing",
                    test_threads_share_zones);
    g_test_add_func("/zone-qcow2/threads-lose-nothing-to-zones-that-are-bad-"
                    "for-a-while", test_threads_share_bad_zones);
    g_test_add_func("/zone-qcow2/drain-waits-for-zone-requests", test_drain);
    g_test_add_func("/zone-qcow2/throttling-holds-for-appends",
                    test_throttling);
    g_test_add_func("/zone-qcow2/copying-is-left-to-reads-and-writes",
                    test_copy_range);
    ret = g_test_run();

    g_unlink(image);
    g_rmdir(dir);
    g_free(image);
    return ret;
}
