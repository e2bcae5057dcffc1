/*
 * Zone writes unit tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "zone-threads.h"
#include "zone-writes-model.h"

static void send_write(Disk *d, Request *r, uint64_t offset, uint64_t bytes)
{
    send_request(d, r, offset, bytes, false);
}

static void send_append(Disk *d, Request *r, uint32_t zone, uint64_t bytes)
{
    send_request(d, r, zone_table_start(d->table, zone), bytes, true);
}

/* A write that nothing is in the way of */
static void put(Disk *d, uint64_t offset, uint64_t bytes)
{
    Request r;

    send_write(d, &r, offset, bytes);
    complete(&r, 0);
    g_assert_cmpint(r.phase, ==, ENDED);
    g_assert_cmpint(r.ret, ==, 0);
}

/* Refused by zone_writes_begin(), at once */
#define assert_send_refused(d, offset, bytes, ret_)     \
    do {                                                \
        Request r_;                                     \
        send_write(d, &r_, offset, bytes);              \
        assert_ended(&r_, ret_);                        \
        g_assert_false(r_.moved);                       \
    } while (0)

/*
 * Every order of completions, every set of failures
 */

#define MAX_WRITES ZONE_ERRNOS

static const uint64_t lengths[MAX_WRITES] = {
    512, BLOCK, 1024, 2 * BLOCK, 512, 1536
};

/*
 * @n writes are in flight to zone 1; those of @done are complete, and those of
 * @failing are to fail.  Check who may have ended by now, how, and in which
 * order.  Return the number of acknowledged writes.
 */
static int check_progress(Disk *d, Request *r, int n, unsigned done,
                          unsigned failing)
{
    uint64_t wp = ZONE;
    bool drained;
    int acked = 0;

    while (acked < n && (done & ~failing & (1 << acked))) {
        wp += lengths[acked++];
    }
    drained = acked < n && (failing & (1 << acked)) &&
              done >> acked == (1 << (n - acked)) - 1;

    for (int i = 0; i < n; i++) {
        if (i < acked) {
            assert_ended(&r[i], 0);
        } else if (drained) {
            assert_ended(&r[i], zone_errnos[acked]);
        } else {
            assert_phase(&r[i], done & (1 << i) ? ENDING : MOVING);
        }
        if (i > 0 && r[i].phase == ENDED) {
            g_assert_cmpint(r[i].turn, >, r[i - 1].turn);
        }
    }
    assert_wp(d, 1, wp);
    return acked;
}

static void try_order(Disk *d, const int *order, int n, unsigned failing)
{
    Request r[MAX_WRITES];
    uint64_t offset = ZONE;
    unsigned done = 0;
    int acked;

    for (int i = 0; i < n; i++) {
        send_write(d, &r[i], offset, lengths[i]);
        offset += lengths[i];
    }
    acked = check_progress(d, r, n, done, failing);
    for (int i = 0; i < n; i++) {
        int next = order[i];

        complete(&r[next], failing & (1 << next) ? zone_errnos[next] : 0);
        done |= 1 << next;
        acked = check_progress(d, r, n, done, failing);
    }
    g_assert_true(zone_writes_idle(&d->zw));

    /* Those that failed are sent again, and succeed. */
    offset = zone_table_wp(d->table, 1);
    for (int i = acked; i < n; i++) {
        send_write(d, &r[i], offset, lengths[i]);
        offset += lengths[i];
    }
    for (int i = n - 1; i >= acked; i--) {
        complete(&r[i], 0);
    }
    for (int i = acked; i < n; i++) {
        assert_ended(&r[i], 0);
    }
    assert_wp(d, 1, offset);
    g_assert_true(zone_table_is_consistent(d->table));
    g_assert_cmpint(manage(d, BLK_ZO_RESET, 1), ==, 0);
}

/* Try all orders that begin with the first @fixed of @order. */
static void try_orders(Disk *d, int *order, int n, int fixed, unsigned failing)
{
    if (fixed == n) {
        try_order(d, order, n, failing);
        return;
    }
    for (int i = fixed; i < n; i++) {
        int first = order[i];

        order[i] = order[fixed];
        order[fixed] = first;
        try_orders(d, order, n, fixed + 1, failing);
        order[fixed] = order[i];
        order[i] = first;
    }
}

static void test_every_order(void)
{
    Disk *d = disk_new(1, 1);
    int order[MAX_WRITES] = { 0, 1, 2, 3, 4, 5 };

    for (int n = 1; n <= MAX_WRITES; n++) {
        try_orders(d, order, n, 0, 0);
    }
    disk_free(d);
}

static void test_every_failure(void)
{
    Disk *d = disk_new(1, 1);
    int order[MAX_WRITES] = { 0, 1, 2, 3, 4, 5 };

    for (int n = 1; n <= MAX_WRITES; n++) {
        for (unsigned failing = 1; failing < 1 << n; failing++) {
            try_orders(d, order, n, 0, failing);
        }
    }
    disk_free(d);
}

/* Failures in one zone are no business of another. */
static void test_zones_are_independent(void)
{
    Disk *d = disk_new(0, 0);
    Request a[2], b[2];

    for (int i = 0; i < 2; i++) {
        send_write(d, &a[i], ZONE + i * BLOCK, BLOCK);
        send_write(d, &b[i], 2 * ZONE + i * BLOCK, BLOCK);
    }
    complete(&a[0], -EIO);
    complete(&b[0], 0);
    assert_ended(&b[0], 0);
    complete(&b[1], 0);
    assert_ended(&b[1], 0);
    assert_phase(&a[0], ENDING);
    assert_wp(d, 2, 2 * ZONE + 2 * BLOCK);
    complete(&a[1], 0);
    assert_ended(&a[0], -EIO);
    assert_ended(&a[1], -EIO);
    disk_free(d);
}

/*
 * A write that, when it ends, wakes another one before it wakes those behind
 * it: like one that had a lock on which the other waited.
 */
typedef struct Waker {
    Request r;
    Request *other;
} Waker;

static void coroutine_fn waker_entry(void *opaque)
{
    Waker *waker = opaque;
    Request *r = &waker->r;

    r->ret = zone_writes_begin(&r->disk->zw, &r->w, r->offset, r->bytes, false);
    g_assert_cmpint(r->ret, ==, 0);
    qemu_coroutine_yield();
    aio_co_wake(waker->other->co);
    r->ret = zone_writes_end(&r->disk->zw, &r->w, r->io_ret);
    r->phase = ENDED;
    r->turn = r->disk->turns++;
}

static void send_waker(Disk *d, Waker *waker, Request *other, uint64_t offset,
                       uint64_t bytes)
{
    *waker = (Waker) {
        .r = { .disk = d, .offset = offset, .bytes = bytes },
        .other = other,
    };
    waker->r.co = qemu_coroutine_create(waker_entry, waker);
    qemu_coroutine_enter(waker->r.co);
    settle();
}

static void test_writes_return_in_order_whoever_runs_first(void)
{
    Disk *d = disk_new(0, 0);
    Waker a;
    Request b, c;

    send_waker(d, &a, &c, ZONE, BLOCK);
    send_write(d, &b, ZONE + BLOCK, BLOCK);
    send_write(d, &c, ZONE + 2 * BLOCK, BLOCK);
    complete(&b, 0);
    qemu_coroutine_enter(a.r.co);
    settle();
    assert_ended(&a.r, 0);
    assert_ended(&b, 0);
    assert_ended(&c, 0);
    g_assert_cmpint(a.r.turn, ==, 0);
    g_assert_cmpint(b.turn, ==, 1);
    g_assert_cmpint(c.turn, ==, 2);
    assert_wp(d, 1, ZONE + 3 * BLOCK);
    disk_free(d);
}

static void coroutine_fn retry_entry(void *opaque)
{
    qemu_coroutine_yield();
    request_entry(opaque);
}

static void test_retry_may_come_before_all_failures_returned(void)
{
    Disk *d = disk_new(0, 0);
    Waker a;
    Request b, retry = { .disk = d, .offset = ZONE, .bytes = BLOCK };

    retry.co = qemu_coroutine_create(retry_entry, &retry);
    qemu_coroutine_enter(retry.co);

    send_waker(d, &a, &retry, ZONE, BLOCK);
    send_write(d, &b, ZONE + BLOCK, BLOCK);
    complete(&b, 0);
    a.r.io_ret = -EIO;
    qemu_coroutine_enter(a.r.co);
    settle();
    assert_ended(&a.r, -EIO);
    assert_ended(&b, -EIO);
    assert_phase(&retry, MOVING);
    complete(&retry, 0);
    assert_ended(&retry, 0);
    assert_wp(d, 1, ZONE + BLOCK);
    disk_free(d);
}

static void test_conventional_writes_have_no_order(void)
{
    Disk *d = disk_new(0, 0);
    Request r[3];

    send_write(d, &r[0], 0, BLOCK);
    send_write(d, &r[1], CAP, ZONE - CAP);
    send_write(d, &r[2], 0, BLOCK);
    complete(&r[2], 0);
    assert_ended(&r[2], 0);
    complete(&r[1], -EIO);
    assert_ended(&r[1], -EIO);
    complete(&r[0], 0);
    assert_ended(&r[0], 0);
    assert_wp(d, 0, 0);
    disk_free(d);
}

/*
 * Writes that arrive while a failed zone drains
 */

static void check_arrival(bool append)
{
    Disk *d = disk_new(0, 0);
    Request r[3], late[3];

    for (int i = 0; i < 3; i++) {
        send_write(d, &r[i], ZONE + i * BLOCK, BLOCK);
    }
    complete(&r[1], -ENOSPC);

    for (int i = 0; i < 3; i++) {
        send_request(d, &late[i], append ? ZONE : ZONE + (3 + i) * BLOCK,
                     BLOCK, append);
        assert_phase(&late[i], WAITING);
    }
    /* These follow nothing; the first would be a retry, too early. */
    assert_send_refused(d, ZONE + BLOCK, BLOCK, -ERANGE);
    assert_send_refused(d, ZONE + 7 * BLOCK, BLOCK, -ERANGE);

    complete(&r[0], 0);
    assert_ended(&r[0], 0);
    assert_wp(d, 1, ZONE + BLOCK);
    assert_phase(&r[1], ENDING);
    assert_phase(&r[2], MOVING);
    for (int i = 0; i < 3; i++) {
        assert_phase(&late[i], WAITING);
    }

    complete(&r[2], 0);
    assert_ended(&r[1], -ENOSPC);
    assert_ended(&r[2], -ENOSPC);
    g_assert_cmpint(r[1].turn, <, r[2].turn);
    for (int i = 0; i < 3; i++) {
        assert_ended(&late[i], -ENOSPC);
        g_assert_false(late[i].moved);
        g_assert_cmpint(late[i].turn, >, i ? late[i - 1].turn : r[2].turn);
    }
    assert_wp(d, 1, ZONE + BLOCK);
    g_assert_true(zone_writes_idle(&d->zw));

    put(d, ZONE + BLOCK, BLOCK);
    disk_free(d);
}

static void test_late_write_shares_the_failure(void)
{
    check_arrival(false);
}

static void test_late_append_shares_the_failure(void)
{
    check_arrival(true);
}

/* The lowest failed write decides, although it fails after the others. */
static void test_late_write_gets_the_lowest_errno(void)
{
    Disk *d = disk_new(0, 0);
    Request r[3], late;

    for (int i = 0; i < 3; i++) {
        send_write(d, &r[i], ZONE + i * BLOCK, BLOCK);
    }
    complete(&r[2], -ENOSPC);
    send_write(d, &late, ZONE + 3 * BLOCK, BLOCK);
    complete(&r[1], 0);
    assert_phase(&late, WAITING);
    complete(&r[0], -EIO);
    for (int i = 0; i < 3; i++) {
        assert_ended(&r[i], -EIO);
    }
    assert_ended(&late, -EIO);
    assert_wp(d, 1, ZONE);
    disk_free(d);
}

/* As with werror=stop: all of them again, in the order in which they failed */
static void test_retries_fail_and_succeed(void)
{
    Disk *d = disk_new(0, 0);
    Request r[4];

    for (int attempt = 0; attempt < 3; attempt++) {
        for (int i = 0; i < 4; i++) {
            send_write(d, &r[i], ZONE + i * BLOCK, BLOCK);
        }
        for (int i = 3; i >= 0; i--) {
            complete(&r[i], i == 0 && attempt < 2 ? -ENOSPC : 0);
        }
        for (int i = 0; i < 4; i++) {
            assert_ended(&r[i], attempt < 2 ? -ENOSPC : 0);
        }
        assert_wp(d, 1, attempt < 2 ? ZONE : ZONE + 4 * BLOCK);
    }
    disk_free(d);
}

/*
 * Appends, and writes to the same place
 */

static void test_appends_are_contiguous(void)
{
    Disk *d = disk_new(0, 0);
    Request r[12];
    uint64_t next = ZONE;

    for (int i = 0; i < ARRAY_SIZE(r); i++) {
        send_append(d, &r[i], 1, 512 * (i + 1));
        assert_phase(&r[i], MOVING);
        g_assert_cmpuint(r[i].w.offset, ==, next);
        g_assert_cmpuint(r[i].w.bytes, ==, 512 * (i + 1));
        next += 512 * (i + 1);
    }
    assert_wp(d, 1, ZONE);
    for (int i = ARRAY_SIZE(r) - 1; i >= 0; i--) {
        complete(&r[i], 0);
    }
    for (int i = 0; i < ARRAY_SIZE(r); i++) {
        assert_ended(&r[i], 0);
        g_assert_cmpint(r[i].turn, ==, i);
    }
    assert_wp(d, 1, next);
    disk_free(d);
}

static void test_failed_appends_leave_no_hole(void)
{
    Disk *d = disk_new(0, 0);
    Request r[4];

    for (int i = 0; i < 4; i++) {
        send_append(d, &r[i], 1, BLOCK);
    }
    for (int i = 0; i < 4; i++) {
        complete(&r[i], i == 1 ? -EIO : 0);
    }
    assert_ended(&r[0], 0);
    assert_ended(&r[3], -EIO);
    send_append(d, &r[1], 1, BLOCK);
    g_assert_cmpuint(r[1].w.offset, ==, ZONE + BLOCK);
    complete(&r[1], 0);
    assert_wp(d, 1, ZONE + 2 * BLOCK);
    disk_free(d);
}

static void test_appends_and_writes_mix(void)
{
    Disk *d = disk_new(0, 0);
    Request r[3];

    send_write(d, &r[0], ZONE, BLOCK);
    send_append(d, &r[1], 1, BLOCK);
    g_assert_cmpuint(r[1].w.offset, ==, ZONE + BLOCK);
    assert_send_refused(d, ZONE + BLOCK, BLOCK, -ERANGE);
    send_write(d, &r[2], ZONE + 2 * BLOCK, BLOCK);
    for (int i = 2; i >= 0; i--) {
        complete(&r[i], 0);
    }
    assert_wp(d, 1, ZONE + 3 * BLOCK);
    disk_free(d);
}

static void test_two_writes_at_the_wp(void)
{
    Disk *d = disk_new(0, 0);
    Request a, b;

    send_write(d, &a, ZONE, BLOCK);
    send_write(d, &b, ZONE, BLOCK);
    assert_phase(&a, MOVING);
    assert_ended(&b, -ERANGE);
    complete(&a, 0);
    assert_ended(&a, 0);
    assert_wp(d, 1, ZONE + BLOCK);
    disk_free(d);
}

static void test_refusals_reserve_nothing(void)
{
    Disk *d = disk_new(0, 0);
    Request r;

    assert_send_refused(d, NR * ZONE, 512, -EINVAL);
    assert_send_refused(d, UINT64_MAX - 511, 512, -EINVAL);
    assert_send_refused(d, ZONE, ZONE, -EINVAL);
    assert_send_refused(d, 0, ZONE + 512, -EINVAL);
    assert_send_refused(d, ZONE + 512, 512, -ERANGE);
    send_append(d, &r, 0, 512);
    assert_ended(&r, -EINVAL);
    g_assert_true(zone_writes_idle(&d->zw));
    assert_counts(d, 0, 0);
    put(d, ZONE, CAP);
    assert_send_refused(d, ZONE + CAP, 512, -EINVAL);
    disk_free(d);
}

/*
 * Conditions of zones with writes in flight
 */

static void test_full_when_acknowledged(void)
{
    Disk *d = disk_new(1, 1);
    Request r[2];

    send_write(d, &r[0], ZONE, BLOCK);
    send_write(d, &r[1], ZONE + BLOCK, CAP - BLOCK);
    assert_state(d, 1, BLK_ZS_IOPEN);
    assert_send_refused(d, ZONE + CAP, 512, -EINVAL);
    assert_send_refused(d, 2 * ZONE, 512, -EOVERFLOW);

    /* It has its data, but is not acknowledged. */
    complete(&r[1], 0);
    assert_state(d, 1, BLK_ZS_IOPEN);
    assert_send_refused(d, 2 * ZONE, 512, -EOVERFLOW);

    complete(&r[0], 0);
    assert_state(d, 1, BLK_ZS_FULL);
    assert_counts(d, 0, 0);
    put(d, 2 * ZONE, 512);
    disk_free(d);
}

static void test_failed_fill_leaves_zone_open(void)
{
    Disk *d = disk_new(1, 1);
    Request r[2];

    send_write(d, &r[0], ZONE, BLOCK);
    send_write(d, &r[1], ZONE + BLOCK, CAP - BLOCK);
    complete(&r[1], -EIO);
    complete(&r[0], 0);
    assert_ended(&r[1], -EIO);
    assert_state(d, 1, BLK_ZS_IOPEN);
    assert_counts(d, 1, 1);
    put(d, ZONE + BLOCK, CAP - BLOCK);
    assert_state(d, 1, BLK_ZS_FULL);
    disk_free(d);
}

static void test_victim_goes_on(void)
{
    Disk *d = disk_new(1, 2);
    Request a[2], b;

    send_write(d, &a[0], ZONE, BLOCK);
    send_write(d, &a[1], ZONE + BLOCK, BLOCK);
    send_write(d, &b, 2 * ZONE, BLOCK);
    assert_phase(&b, MOVING);
    assert_state(d, 1, BLK_ZS_CLOSED);
    assert_state(d, 2, BLK_ZS_IOPEN);
    assert_counts(d, 1, 2);

    complete(&a[1], 0);
    complete(&a[0], 0);
    assert_ended(&a[0], 0);
    assert_ended(&a[1], 0);
    assert_wp(d, 1, ZONE + 2 * BLOCK);
    assert_state(d, 1, BLK_ZS_CLOSED);
    complete(&b, 0);
    disk_free(d);
}

static void test_victim_goes_on_to_full(void)
{
    Disk *d = disk_new(1, 2);
    Request a, b;

    send_write(d, &a, ZONE, CAP);
    send_write(d, &b, 2 * ZONE, BLOCK);
    assert_state(d, 1, BLK_ZS_CLOSED);
    complete(&a, 0);
    assert_state(d, 1, BLK_ZS_FULL);
    assert_counts(d, 1, 1);
    complete(&b, 0);
    disk_free(d);
}

static void test_closed_zone_goes_on(void)
{
    Disk *d = disk_new(1, 1);
    Request r[2];

    send_write(d, &r[0], ZONE, BLOCK);
    g_assert_cmpint(manage(d, BLK_ZO_CLOSE, 1), ==, 0);
    assert_state(d, 1, BLK_ZS_CLOSED);
    assert_counts(d, 0, 1);
    /* The next write follows the one in flight, and opens the zone again. */
    send_write(d, &r[1], ZONE + BLOCK, BLOCK);
    assert_state(d, 1, BLK_ZS_IOPEN);
    g_assert_cmpint(manage(d, BLK_ZO_CLOSE, 1), ==, 0);
    complete(&r[1], 0);
    complete(&r[0], 0);
    assert_ended(&r[1], 0);
    assert_wp(d, 1, ZONE + 2 * BLOCK);
    assert_state(d, 1, BLK_ZS_CLOSED);
    assert_counts(d, 0, 1);
    disk_free(d);
}

static void test_failed_victim_is_empty(void)
{
    Disk *d = disk_new(1, 2);
    Request a[2], b;

    send_write(d, &a[0], ZONE, BLOCK);
    send_write(d, &a[1], ZONE + BLOCK, BLOCK);
    send_write(d, &b, 2 * ZONE, BLOCK);
    complete(&a[0], -EIO);
    assert_state(d, 1, BLK_ZS_CLOSED);
    assert_send_refused(d, 3 * ZONE, BLOCK, -EOVERFLOW);
    complete(&a[1], 0);
    assert_state(d, 1, BLK_ZS_EMPTY);
    assert_counts(d, 1, 1);
    complete(&b, 0);
    put(d, 3 * ZONE, BLOCK);
    disk_free(d);
}

static void test_failed_open_zone_is_open(void)
{
    Disk *d = disk_new(1, 1);
    Request r;

    send_write(d, &r, ZONE, BLOCK);
    complete(&r, -EIO);
    assert_state(d, 1, BLK_ZS_IOPEN);
    g_assert_cmpint(manage(d, BLK_ZO_CLOSE, 1), ==, 0);
    assert_state(d, 1, BLK_ZS_EMPTY);

    g_assert_cmpint(manage(d, BLK_ZO_OPEN, 2), ==, 0);
    send_write(d, &r, 2 * ZONE, BLOCK);
    complete(&r, -EIO);
    assert_state(d, 2, BLK_ZS_EOPEN);
    assert_counts(d, 1, 1);
    disk_free(d);
}

/*
 * Holding zones
 */

static void test_hold_of_idle_zone(void)
{
    Disk *d = disk_new(0, 0);
    Request busy, held;
    Holder h;

    /* Other zones may be as busy as they like. */
    send_write(d, &busy, 2 * ZONE, BLOCK);
    hold(d, &h, 1, 1);
    g_assert_true(h.holds);
    send_write(d, &held, ZONE, BLOCK);
    assert_phase(&held, WAITING);
    g_assert_false(zone_writes_idle(&d->zw));
    release(&h);
    assert_phase(&held, MOVING);
    complete(&held, 0);
    complete(&busy, 0);
    disk_free(d);
}

static void test_hold_waits(void)
{
    Disk *d = disk_new(0, 0);
    Request r[3], held;
    Holder h;

    for (int i = 0; i < 3; i++) {
        send_write(d, &r[i], ZONE + i * BLOCK, BLOCK);
    }
    hold(d, &h, 1, 1);
    g_assert_false(h.holds);
    send_write(d, &held, ZONE + 3 * BLOCK, BLOCK);
    assert_phase(&held, WAITING);
    complete(&r[2], 0);
    g_assert_false(h.holds);
    complete(&r[0], 0);
    g_assert_false(h.holds);
    complete(&r[1], 0);
    g_assert_true(h.holds);
    for (int i = 0; i < 3; i++) {
        assert_ended(&r[i], 0);
    }
    assert_phase(&held, WAITING);
    release(&h);
    assert_phase(&held, MOVING);
    complete(&held, 0);
    assert_wp(d, 1, ZONE + 4 * BLOCK);
    disk_free(d);
}

static void test_hold_waits_for_failures(void)
{
    Disk *d = disk_new(0, 0);
    Request r[2], late;
    Holder h;

    send_write(d, &r[0], ZONE, BLOCK);
    send_write(d, &r[1], ZONE + BLOCK, BLOCK);
    complete(&r[0], -EIO);
    send_write(d, &late, ZONE + 2 * BLOCK, BLOCK);
    hold(d, &h, 1, 1);
    g_assert_false(h.holds);
    complete(&r[1], 0);
    g_assert_true(h.holds);
    assert_ended(&r[0], -EIO);
    assert_ended(&r[1], -EIO);
    assert_ended(&late, -EIO);
    assert_wp(d, 1, ZONE);
    release(&h);
    disk_free(d);
}

static void test_hold_of_range(void)
{
    Disk *d = disk_new(0, 0);
    Request before[NR], after[NR];
    Holder h;

    for (uint32_t i = 0; i < NR; i++) {
        send_write(d, &before[i], i * ZONE, BLOCK);
    }
    hold(d, &h, 3, 3);
    for (uint32_t i = 0; i < NR; i++) {
        send_write(d, &after[i], i * ZONE + BLOCK, BLOCK);
        assert_phase(&after[i], i >= 3 && i <= 5 ? WAITING : MOVING);
    }
    complete(&before[5], 0);
    complete(&before[6], 0);
    complete(&before[3], 0);
    complete(&before[2], 0);
    g_assert_false(h.holds);
    complete(&before[4], 0);
    g_assert_true(h.holds);
    release(&h);
    for (uint32_t i = 0; i < NR; i++) {
        assert_phase(&after[i], MOVING);
        complete(&after[i], 0);
    }
    complete(&before[0], 0);
    complete(&before[1], 0);
    complete(&before[7], 0);
    disk_free(d);
}

/* As for reset of all zones: conventional zones have nothing to wait for. */
static void test_hold_of_whole_disk(void)
{
    Disk *d = disk_new(0, 0);
    Request conventional, held;
    Holder h;

    send_write(d, &conventional, 0, BLOCK);
    hold(d, &h, 0, NR);
    g_assert_true(h.holds);
    put(d, BLOCK, BLOCK);
    send_write(d, &held, (NR - 1) * ZONE, BLOCK);
    assert_phase(&held, WAITING);
    assert_send_refused(d, NR * ZONE, BLOCK, -EINVAL);
    release(&h);
    assert_phase(&held, MOVING);
    complete(&held, 0);
    complete(&conventional, 0);
    disk_free(d);
}

static void test_release_admits_in_order(void)
{
    Disk *d = disk_new(0, 0);
    Request r[6];
    Holder h;

    hold(d, &h, 1, 2);
    send_append(d, &r[0], 1, BLOCK);
    send_write(d, &r[1], ZONE + BLOCK, BLOCK);
    send_append(d, &r[2], 2, BLOCK);
    send_append(d, &r[3], 1, 512);
    send_append(d, &r[4], 2, 512);
    send_write(d, &r[5], ZONE + BLOCK, BLOCK);
    release(&h);
    g_assert_cmpuint(r[0].w.offset, ==, ZONE);
    g_assert_cmpuint(r[1].w.offset, ==, ZONE + BLOCK);
    g_assert_cmpuint(r[2].w.offset, ==, 2 * ZONE);
    g_assert_cmpuint(r[3].w.offset, ==, ZONE + 2 * BLOCK);
    g_assert_cmpuint(r[4].w.offset, ==, 2 * ZONE + BLOCK);
    assert_ended(&r[5], -ERANGE);
    for (int i = 0; i < 5; i++) {
        assert_phase(&r[i], MOVING);
        complete(&r[i], 0);
    }
    disk_free(d);
}

static void test_held_writes_meet_reset_zone(void)
{
    Disk *d = disk_new(0, 0);
    Request old, new, append;
    Holder h;

    put(d, ZONE, BLOCK);
    hold(d, &h, 1, 1);
    send_write(d, &old, ZONE + BLOCK, BLOCK);
    send_write(d, &new, ZONE, BLOCK);
    send_append(d, &append, 1, BLOCK);
    g_assert_cmpint(manage(d, BLK_ZO_RESET, 1), ==, 0);
    release(&h);
    assert_ended(&old, -ERANGE);
    g_assert_false(old.moved);
    assert_phase(&new, MOVING);
    g_assert_cmpuint(append.w.offset, ==, ZONE + BLOCK);
    complete(&new, 0);
    complete(&append, 0);
    assert_wp(d, 1, ZONE + 2 * BLOCK);
    disk_free(d);
}

static void test_held_writes_meet_finished_zone(void)
{
    Disk *d = disk_new(0, 0);
    Request write, append;
    Holder h;

    put(d, ZONE, BLOCK);
    hold(d, &h, 1, 1);
    send_write(d, &write, ZONE + BLOCK, BLOCK);
    send_append(d, &append, 1, BLOCK);
    g_assert_cmpint(manage(d, BLK_ZO_FINISH, 1), ==, 0);
    release(&h);
    assert_ended(&write, -EINVAL);
    assert_ended(&append, -EINVAL);
    assert_wp(d, 1, ZONE + BLOCK);
    disk_free(d);
}

static void test_held_write_meets_limit(void)
{
    Disk *d = disk_new(0, 1);
    Request held;
    Holder h;

    hold(d, &h, 1, 1);
    send_write(d, &held, ZONE, BLOCK);
    /* It takes no slot while it waits. */
    assert_counts(d, 0, 0);
    put(d, 2 * ZONE, BLOCK);
    release(&h);
    assert_ended(&held, -EOVERFLOW);
    disk_free(d);
}

/*
 * Dirty zones
 */

static void assert_takes_nothing(Disk *d)
{
    GArray *snapshot = take(d);

    g_assert_cmpuint(snapshot->len, ==, 0);
    g_array_free(snapshot, true);
}

static void assert_takes_one(Disk *d, uint32_t zone, uint64_t wp,
                             unsigned attributes)
{
    GArray *snapshot = take(d);
    ZoneEntry *entry = &g_array_index(snapshot, ZoneEntry, 0);

    g_assert_cmpuint(snapshot->len, ==, 1);
    g_assert_cmpuint(entry->zone, ==, zone);
    g_assert_cmpuint(entry->wp, ==, wp);
    g_assert_cmphex(entry->attributes, ==, attributes);
    g_array_free(snapshot, true);
}

static void test_dirty_is_what_is_acknowledged(void)
{
    Disk *d = disk_new(0, 0);
    Request r[3];

    assert_takes_nothing(d);
    for (int i = 0; i < 3; i++) {
        send_write(d, &r[i], ZONE + i * BLOCK, BLOCK);
    }
    assert_takes_nothing(d);
    complete(&r[1], 0);
    assert_takes_nothing(d);
    complete(&r[0], 0);
    assert_takes_one(d, 1, ZONE + 2 * BLOCK, 0);
    assert_takes_nothing(d);
    complete(&r[2], 0);
    assert_takes_one(d, 1, ZONE + 3 * BLOCK, 0);
    assert_takes_nothing(d);
    disk_free(d);
}

/* While the last zone is held, and a write to it waits, the disk grows. */
static void test_dirty_of_grown_disk(void)
{
    Disk *d = disk_new(0, 0);
    const uint64_t end = NR * ZONE;
    Request old, waiting, r;
    Holder h;

    send_write(d, &old, ZONE, BLOCK);
    hold(d, &h, NR - 1, 1);
    send_write(d, &waiting, (NR - 1) * ZONE, BLOCK);
    assert_send_refused(d, end, BLOCK, -EINVAL);
    g_assert_true(zone_table_reserve(d->table, NR + 200));
    zone_writes_grow(&d->zw, (NR + 200) * ZONE);
    release(&h);

    assert_phase(&waiting, MOVING);
    complete(&waiting, 0);
    assert_takes_one(d, NR - 1, (NR - 1) * ZONE + BLOCK, 0);
    complete(&old, 0);
    assert_takes_one(d, 1, ZONE + BLOCK, 0);
    send_write(d, &r, end + 199 * ZONE, BLOCK);
    complete(&r, 0);
    assert_takes_one(d, NR + 199, end + 199 * ZONE + BLOCK, 0);
    send_append(d, &r, NR, BLOCK);
    complete(&r, 0);
    assert_takes_one(d, NR, end + BLOCK, 0);
    assert_takes_nothing(d);
    disk_free(d);
}

static void test_dirty_not_by_failure(void)
{
    Disk *d = disk_new(0, 0);
    Request r[2];

    send_write(d, &r[0], ZONE, BLOCK);
    send_write(d, &r[1], ZONE + BLOCK, BLOCK);
    complete(&r[0], -EIO);
    complete(&r[1], 0);
    assert_takes_nothing(d);

    /* What was acknowledged below the failure is taken. */
    send_write(d, &r[0], ZONE, BLOCK);
    send_write(d, &r[1], ZONE + BLOCK, BLOCK);
    complete(&r[1], -EIO);
    complete(&r[0], 0);
    assert_takes_one(d, 1, ZONE + BLOCK, 0);
    assert_takes_nothing(d);

    /* Conventional zones have no entry that changes. */
    put(d, 0, BLOCK);
    assert_takes_nothing(d);
    disk_free(d);
}

static void test_dirty_takes_entry_of_the_moment(void)
{
    Disk *d = disk_new(0, 0);

    put(d, ZONE, BLOCK);
    put(d, ZONE + BLOCK, BLOCK);
    g_assert_cmpint(manage(d, BLK_ZO_FINISH, 1), ==, 0);
    assert_takes_one(d, 1, ZONE + 2 * BLOCK, ZONE_FINISHED);

    put(d, 2 * ZONE, BLOCK);
    g_assert_cmpint(manage(d, BLK_ZO_RESET, 2), ==, 0);
    assert_takes_one(d, 2, 2 * ZONE, 0);
    disk_free(d);
}

static void test_dirty_in_ascending_order(void)
{
    static const uint32_t order[] = { 5, 2, 7, 1, 4 };
    static const uint32_t sorted[] = { 1, 2, 4, 5, 7 };
    Disk *d = disk_new(0, 0);
    GArray *snapshot;

    for (int i = 0; i < ARRAY_SIZE(order); i++) {
        put(d, order[i] * ZONE, 512 * order[i]);
    }
    snapshot = take(d);
    g_assert_cmpuint(snapshot->len, ==, ARRAY_SIZE(order));
    for (int i = 0; i < ARRAY_SIZE(order); i++) {
        ZoneEntry *entry = &g_array_index(snapshot, ZoneEntry, i);

        g_assert_cmpuint(entry->zone, ==, sorted[i]);
        g_assert_cmpuint(entry->wp, ==, sorted[i] * (ZONE + 512));
    }
    g_array_free(snapshot, true);
    disk_free(d);
}

/*
 * What is known of zones that are not written is dropped, the oldest first:
 * here first of all that of the zone which was asked for last.
 */
static void test_many_zones_come_to_rest(void)
{
    enum { MANY = 300 };
    ZoneGeometry geo = {
        .disk_size = MANY * ZONE,
        .zone_size = ZONE,
        .zone_capacity = CAP,
        .nr_zones = MANY,
        .max_append_bytes = CAP,
    };
    Disk *d = disk_with(&geo);
    g_autofree Request *r = g_new(Request, MANY);

    for (int i = 0; i < MANY; i++) {
        send_write(d, &r[i], i * ZONE, BLOCK);
    }
    for (int i = MANY - 1; i >= 0; i--) {
        complete(&r[i], 0);
        assert_ended(&r[i], 0);
    }
    for (int i = MANY - 1; i >= 0; i--) {
        assert_send_refused(d, i * ZONE, BLOCK, -ERANGE);
        put(d, i * ZONE + BLOCK, BLOCK);
        assert_wp(d, i, i * ZONE + 2 * BLOCK);
    }
    disk_free(d);
}

static void test_set_dirty_and_clean(void)
{
    Disk *d = disk_new(0, 0);
    Holder h;

    /* Storing it failed: once more. */
    put(d, ZONE, BLOCK);
    assert_takes_one(d, 1, ZONE + BLOCK, 0);
    zone_writes_set_dirty(&d->zw, 1);
    assert_takes_one(d, 1, ZONE + BLOCK, 0);
    assert_takes_nothing(d);

    /* Stored by somebody else: not again.  Neighbours stay dirty. */
    for (uint32_t zone = 2; zone <= 5; zone++) {
        put(d, zone * ZONE, BLOCK);
    }
    hold(d, &h, 2, 3);
    zone_writes_set_clean(&d->zw, h.range);
    release(&h);
    assert_takes_one(d, 5, 5 * ZONE + BLOCK, 0);
    disk_free(d);
}

/*
 * Random operations, against the model
 */

#define RANDOM_OPS      100000

static void random_sequence(int max_open, int max_active)
{
    ZoneChoices choices = { NULL };

    zone_writes_model_run(&choices, max_open, max_active, RANDOM_OPS);
}

static void test_random_without_limits(void)
{
    random_sequence(0, 0);
}

static void test_random_with_limits(void)
{
    random_sequence(2, 4);
}

static void test_random_with_one_slot(void)
{
    random_sequence(1, 1);
}

/*
 * Several threads
 */

#define THREADS         4
#define WORKERS         32
#define WORKER_OPS      2000
#define STRESS_ZONES    9       /* of which 0 is conventional */
#define STRESS_ZONE     (4 * MiB)
#define STRESS_CAP      (3 * MiB)
#define FIRST_RESETTABLE 4      /* zones below keep what they have */
#define SECTORS(bytes)  ((bytes) / 512)

typedef enum TagState {
    TAG_UNUSED,
    TAG_MOVING,
    TAG_COMPLETE,               /* its I/O succeeded */
    TAG_ACKNOWLEDGED,
    TAG_FAILED,
} TagState;

/* One per request: tells where the data on the disk comes from. */
typedef struct Tag {
    uint64_t offset;
    uint64_t bytes;
    int state;
} Tag;

typedef struct Stress {
    Disk *disk;
    unsigned ops;               /* of each worker */
    IOThread *threads[THREADS];
    Tag *tags;
    uint32_t *content;          /* the tag of each sector */
    int running;
    uint64_t acknowledged;      /* sectors */
    uint64_t reset;             /* sectors that were acknowledged before */
} Stress;

typedef struct Worker {
    Stress *s;
    uint32_t first_tag;
    GRand *rand;
} Worker;

static AioContext *stress_context(Stress *s, GRand *rand)
{
    int i = g_rand_int_range(rand, 0, THREADS);

    return iothread_get_aio_context(s->threads[i]);
}

/* Go on later, in any thread. */
static void coroutine_fn stress_hop(Stress *s, GRand *rand)
{
    aio_co_reschedule_self(stress_context(s, rand));
    /* In case that this was the same one: let the others run. */
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
}

static void stress_write(Stress *s, uint32_t tag, uint64_t offset,
                         uint64_t bytes)
{
    for (uint64_t i = 0; i < SECTORS(bytes); i++) {
        qatomic_set(&s->content[SECTORS(offset) + i], tag);
    }
}

static void coroutine_fn stress_request(Worker *worker, uint32_t tag)
{
    Stress *s = worker->s;
    GRand *rand = worker->rand;
    Tag *t = &s->tags[tag];
    uint32_t zone = g_rand_int_range(rand, 1, STRESS_ZONES);
    uint64_t bytes = 512 * g_rand_int_range(rand, 1, 9);
    bool append = g_rand_int_range(rand, 0, 4) != 0;
    bool fail = g_rand_int_range(rand, 0, 32) == 0;
    uint64_t offset;
    ZoneWrite w;
    int ret;

    /* Without the lock this is a guess, and good enough. */
    offset = append ? zone_table_start(s->disk->table, zone)
                    : zone_table_wp(s->disk->table, zone);
    ret = zone_writes_begin(&s->disk->zw, &w, offset, bytes, append);
    if (ret < 0) {
        g_assert_true(ret == -EIO || ret == -EINVAL || ret == -EOVERFLOW ||
                      ret == -ETOOMANYREFS || (ret == -ERANGE && !append));
        return;
    }

    qatomic_set(&t->offset, w.offset);
    qatomic_set(&t->bytes, bytes);
    qatomic_set(&t->state, TAG_MOVING);
    stress_write(s, tag, w.offset, 512);
    for (int i = g_rand_int_range(rand, 0, 3); i > 0; i--) {
        stress_hop(s, rand);
    }
    stress_write(s, tag, w.offset, bytes);
    if (!fail) {
        qatomic_store_release(&t->state, TAG_COMPLETE);
    }

    ret = zone_writes_end(&s->disk->zw, &w, fail ? -EIO : 0);
    if (ret == 0) {
        g_assert_false(fail);
        qatomic_set(&t->state, TAG_ACKNOWLEDGED);
        qatomic_add(&s->acknowledged, SECTORS(bytes));
    } else {
        g_assert_cmpint(ret, ==, -EIO);
        qatomic_set(&t->state, TAG_FAILED);
    }
}

/* What does not wait for writes, at any time */
static void stress_open_or_close(Worker *worker)
{
    BlockZoneOp op = g_rand_boolean(worker->rand) ? BLK_ZO_OPEN : BLK_ZO_CLOSE;
    int ret = manage(worker->s->disk, op,
                     g_rand_int_range(worker->rand, 1, STRESS_ZONES));

    g_assert_true(ret == 0 || ret == -EINVAL ||
                  (op == BLK_ZO_OPEN &&
                   (ret == -EOVERFLOW || ret == -ETOOMANYREFS)));
}

/* Counts, lists and states agree, and limits hold, at any time. */
static void stress_check_table(Stress *s)
{
    const ZoneGeometry *geo = zone_table_geometry(s->disk->table);

    QEMU_LOCK_GUARD(&s->disk->zw.lock);
    g_assert_true(zone_table_is_consistent(s->disk->table));
    g_assert_cmpuint(zone_table_nr_open(s->disk->table), <=, geo->max_open);
    g_assert_cmpuint(zone_table_nr_active(s->disk->table), <=,
                     geo->max_active);
}

static void coroutine_fn stress_worker(void *opaque)
{
    Worker *worker = opaque;
    Stress *s = worker->s;

    for (unsigned i = 0; i < s->ops; i++) {
        stress_request(worker, worker->first_tag + i);
        if (i % 8 == 0) {
            stress_check_table(s);
            stress_hop(s, worker->rand);
        } else if (i % 8 == 4) {
            stress_open_or_close(worker);
        }
    }
    qatomic_dec(&s->running);
    aio_wait_kick();
}

/*
 * Data below the write pointer is complete, and comes from the write that
 * was given its place.  True of every sector at any time, if its zone is not
 * reset meanwhile.
 */
static void stress_check_sector(Stress *s, uint64_t sector, bool idle)
{
    Tag *t = &s->tags[qatomic_read(&s->content[sector])];
    int state = qatomic_load_acquire(&t->state);
    uint64_t offset = qatomic_read(&t->offset);

    g_assert_true(state == TAG_ACKNOWLEDGED ||
                  (state == TAG_COMPLETE && !idle));
    g_assert_cmpuint(sector, >=, SECTORS(offset));
    g_assert_cmpuint(sector, <, SECTORS(offset + qatomic_read(&t->bytes)));
}

/* Return the number of sectors that the zone has. */
static uint64_t stress_check_zone(Stress *s, uint32_t zone, bool idle)
{
    uint64_t start = SECTORS(zone_table_start(s->disk->table, zone));
    uint64_t wp = SECTORS(zone_table_wp(s->disk->table, zone));

    smp_rmb(); /* the write pointer before the data below it */
    for (uint64_t sector = start; sector < wp; sector++) {
        stress_check_sector(s, sector, idle);
    }
    return wp - start;
}

/* Finish and reset zones now and then; look at others all the time. */
static void coroutine_fn stress_manager(void *opaque)
{
    Worker *worker = opaque;
    Stress *s = worker->s;
    ZoneWrites *zw = &s->disk->zw;
    GRand *rand = worker->rand;
    uint64_t taken[STRESS_ZONES] = { 0 };
    GArray *snapshot = g_array_new(false, false, sizeof(ZoneEntry));

    while (qatomic_read(&s->running) > 1) {
        uint32_t zone = g_rand_int_range(rand, FIRST_RESETTABLE, STRESS_ZONES);
        ZoneRange range = { .first = zone, .count = 1 };

        stress_hop(s, rand);
        zone_writes_hold(zw, range);
        if (g_rand_int_range(rand, 0, 4) == 0) {
            g_assert_cmpint(manage(s->disk, BLK_ZO_FINISH, zone), ==, 0);
        } else {
            s->reset += stress_check_zone(s, zone, false);
            g_assert_cmpint(manage(s->disk, BLK_ZO_RESET, zone), ==, 0);
        }
        zone_writes_release(zw);

        zone = g_rand_int_range(rand, 1, FIRST_RESETTABLE);
        stress_check_zone(s, zone, false);

        zone_writes_take_dirty(zw, snapshot);
        for (guint i = 0; i < snapshot->len; i++) {
            ZoneEntry *entry = &g_array_index(snapshot, ZoneEntry, i);

            if (entry->zone < FIRST_RESETTABLE) {
                g_assert_cmpuint(entry->wp, >, taken[entry->zone]);
                taken[entry->zone] = entry->wp;
            }
        }
    }

    g_array_free(snapshot, true);
    qatomic_dec(&s->running);
    aio_wait_kick();
}

/* ZONE_STRESS=N makes it last N times as long. */
static unsigned stress_factor(void)
{
    const char *factor = g_getenv("ZONE_STRESS");

    return factor ? MAX(1, atoi(factor)) : 1;
}

static void test_threads(void)
{
    ZoneGeometry geo = {
        .disk_size = STRESS_ZONES * STRESS_ZONE,
        .zone_size = STRESS_ZONE,
        .zone_capacity = STRESS_CAP,
        .nr_zones = STRESS_ZONES,
        .nr_conventional = 1,
        .max_open = 4,
        .max_active = 7,
        .max_append_bytes = 1 * MiB,
    };
    Stress s = {
        .disk = disk_with(&geo),
        .ops = WORKER_OPS * stress_factor(),
        .running = WORKERS + 1,
    };
    Worker worker[WORKERS + 1];
    uint64_t left = 0;
    int64_t time;

    s.tags = g_new0(Tag, WORKERS * s.ops + 1);
    s.content = g_new0(uint32_t, SECTORS(geo.disk_size));
    for (int i = 0; i < THREADS; i++) {
        s.threads[i] = iothread_new();
    }
    for (int i = 0; i <= WORKERS; i++) {
        worker[i] = (Worker) {
            .s = &s,
            .first_tag = i * s.ops + 1,
            .rand = g_rand_new_with_seed(g_test_rand_int()),
        };
    }
    time = g_get_monotonic_time();
    for (int i = 0; i <= WORKERS; i++) {
        Coroutine *co = qemu_coroutine_create(i < WORKERS ? stress_worker
                                                          : stress_manager,
                                              &worker[i]);

        aio_co_schedule(iothread_get_aio_context(s.threads[i % THREADS]), co);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&s.running) > 0);
    time = g_get_monotonic_time() - time;
    zone_threads_join(s.threads, THREADS);

    for (uint32_t zone = 1; zone < STRESS_ZONES; zone++) {
        left += stress_check_zone(&s, zone, true);
    }
    g_test_message("%u requests in %u threads, %" PRId64 " a second; %" PRIu64
                   " sectors acknowledged, %" PRIu64 " of them reset",
                   WORKERS * s.ops, THREADS,
                   (int64_t)WORKERS * s.ops * G_USEC_PER_SEC / time,
                   s.acknowledged, s.reset);
    g_assert_cmpuint(s.acknowledged, ==, s.reset + left);
    g_assert_cmpuint(s.reset, >, 0);
    g_assert_cmpuint(left, >, 0);

    for (int i = 0; i <= WORKERS; i++) {
        g_rand_free(worker[i].rand);
    }
    g_free(s.content);
    g_free(s.tags);
    disk_free(s.disk);
}

#define ADD(sentence, function) \
    g_test_add_func("/zone-writes/" sentence, function)

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);

    ADD("order/every-order-of-completions-is-acknowledged-by-offset",
        test_every_order);
    ADD("order/every-set-of-failures-in-every-order-drains-and-rewinds",
        test_every_failure);
    ADD("order/writes-return-in-it-whichever-coroutine-runs-first",
        test_writes_return_in_order_whoever_runs_first);
    ADD("order/zones-do-not-wait-for-each-other", test_zones_are_independent);
    ADD("order/conventional-writes-have-none",
        test_conventional_writes_have_no_order);

    ADD("failure/write-that-arrives-while-draining-shares-it",
        test_late_write_shares_the_failure);
    ADD("failure/append-that-arrives-while-draining-shares-it",
        test_late_append_shares_the_failure);
    ADD("failure/errno-is-that-of-the-lowest-failed-write",
        test_late_write_gets_the_lowest_errno);
    ADD("failure/retries-in-the-same-order-fail-and-then-succeed",
        test_retries_fail_and_succeed);
    ADD("failure/retry-may-come-before-all-of-them-have-returned",
        test_retry_may_come_before_all_failures_returned);

    ADD("place/appends-in-flight-get-distinct-contiguous-offsets",
        test_appends_are_contiguous);
    ADD("place/failed-appends-leave-no-hole",
        test_failed_appends_leave_no_hole);
    ADD("place/appends-and-writes-follow-each-other",
        test_appends_and_writes_mix);
    ADD("place/of-two-writes-at-the-wp-one-is-refused",
        test_two_writes_at_the_wp);
    ADD("place/refused-writes-reserve-nothing",
        test_refusals_reserve_nothing);

    ADD("place/of-many-zones-is-not-mixed-up", test_many_zones_come_to_rest);

    ADD("state/zone-is-full-when-its-last-write-is-acknowledged",
        test_full_when_acknowledged);
    ADD("state/zone-whose-fill-fails-is-not-full",
        test_failed_fill_leaves_zone_open);
    ADD("state/writes-of-a-victim-go-on", test_victim_goes_on);
    ADD("state/writes-of-a-victim-fill-it", test_victim_goes_on_to_full);
    ADD("state/writes-of-a-closed-zone-go-on", test_closed_zone_goes_on);
    ADD("state/victim-whose-first-write-fails-is-empty",
        test_failed_victim_is_empty);
    ADD("state/open-zone-whose-first-write-fails-stays-open",
        test_failed_open_zone_is_open);

    ADD("hold/of-an-idle-zone-holds-back-its-writes-only",
        test_hold_of_idle_zone);
    ADD("hold/waits-for-the-writes-in-flight", test_hold_waits);
    ADD("hold/waits-for-the-writes-that-fail", test_hold_waits_for_failures);
    ADD("hold/of-a-range-takes-exactly-its-zones", test_hold_of_range);
    ADD("hold/of-the-whole-disk-spares-conventional-zones",
        test_hold_of_whole_disk);
    ADD("hold/release-admits-in-the-order-of-arrival",
        test_release_admits_in_order);
    ADD("hold/writes-meet-a-zone-that-was-reset",
        test_held_writes_meet_reset_zone);
    ADD("hold/writes-meet-a-zone-that-was-finished",
        test_held_writes_meet_finished_zone);
    ADD("hold/writes-take-no-slots-while-they-wait",
        test_held_write_meets_limit);

    ADD("dirty/covers-exactly-what-is-acknowledged",
        test_dirty_is_what_is_acknowledged);
    ADD("dirty/is-what-a-disk-that-grew-has-more", test_dirty_of_grown_disk);
    ADD("dirty/is-no-zone-by-a-failed-write", test_dirty_not_by_failure);
    ADD("dirty/takes-the-entry-of-the-moment",
        test_dirty_takes_entry_of_the_moment);
    ADD("dirty/is-taken-in-ascending-order", test_dirty_in_ascending_order);
    ADD("dirty/can-be-set-and-cleared", test_set_dirty_and_clean);

    ADD("random/follows-the-model-without-limits",
        test_random_without_limits);
    ADD("random/follows-the-model-with-limits", test_random_with_limits);
    ADD("random/follows-the-model-with-one-slot", test_random_with_one_slot);

    ADD("threads/share-zones-and-lose-nothing", test_threads);

    return g_test_run();
}
