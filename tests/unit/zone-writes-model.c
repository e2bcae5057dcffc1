/*
 * A disk whose writes complete when the test says so, and a naive model of it
 *
 * The model follows the text of the specification: it searches, counts and
 * compares where zone-writes keeps queues.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "zone-writes-model.h"

const int zone_errnos[ZONE_ERRNOS] = {
    -EIO, -ENOSPC, -ENOMEM, -EPIPE, -EBUSY, -ENXIO
};

Disk *disk_with(const ZoneGeometry *geo)
{
    Disk *d = g_new0(Disk, 1);

    g_assert_true(zone_geometry_check(geo, &error_abort));
    d->table = zone_table_new(geo);
    g_assert_nonnull(d->table);
    zone_writes_init(&d->zw, d->table);
    return d;
}

Disk *disk_new(uint32_t max_open, uint32_t max_active)
{
    ZoneGeometry geo = {
        .disk_size = NR * ZONE,
        .zone_size = ZONE,
        .zone_capacity = CAP,
        .nr_zones = NR,
        .nr_conventional = 1,
        .max_open = max_open,
        .max_active = max_active,
        .max_append_bytes = CAP,
    };

    return disk_with(&geo);
}

void disk_free(Disk *d)
{
    g_assert_true(zone_writes_idle(&d->zw));
    g_assert_true(zone_table_is_consistent(d->table));
    zone_writes_destroy(&d->zw);
    zone_table_free(d->table);
    g_free(d);
}

/* Let everybody run who can. */
void settle(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* nothing to do here */
    }
}

void coroutine_fn request_entry(void *opaque)
{
    Request *r = opaque;

    r->ret = zone_writes_begin(&r->disk->zw, &r->w, r->offset, r->bytes,
                               r->append);
    if (r->ret == 0) {
        r->phase = MOVING;
        r->moved = true;
        qemu_coroutine_yield();
        r->phase = ENDING;
        r->ret = zone_writes_end(&r->disk->zw, &r->w, r->io_ret);
    }
    r->phase = ENDED;
    r->turn = r->disk->turns++;
}

void send_request(Disk *d, Request *r, uint64_t offset, uint64_t bytes,
                         bool append)
{
    *r = (Request) {
        .disk = d,
        .offset = offset,
        .bytes = bytes,
        .append = append,
        .co = qemu_coroutine_create(request_entry, r),
    };
    qemu_coroutine_enter(r->co);
    settle();
}

void complete(Request *r, int ret)
{
    g_assert_cmpint(r->phase, ==, MOVING);
    r->io_ret = ret;
    qemu_coroutine_enter(r->co);
    settle();
}

int manage(Disk *d, BlockZoneOp op, uint32_t zone)
{
    ZoneRange range;
    int ret;

    QEMU_LOCK_GUARD(&d->zw.lock);
    ret = zone_table_check(d->table, op, zone_table_start(d->table, zone),
                           zone_table_length(d->table, zone), &range);
    if (ret == 0) {
        zone_table_apply(d->table, op, range);
    }
    return ret;
}

static void coroutine_fn holder_entry(void *opaque)
{
    Holder *h = opaque;

    zone_writes_hold(&h->disk->zw, h->range);
    h->holds = true;
    qemu_coroutine_yield();
    h->holds = false;
    zone_writes_release(&h->disk->zw);
    h->released = true;
}

void hold(Disk *d, Holder *h, uint32_t first, uint32_t count)
{
    *h = (Holder) {
        .disk = d,
        .range = { .first = first, .count = count },
        .co = qemu_coroutine_create(holder_entry, h),
    };
    qemu_coroutine_enter(h->co);
    settle();
}

void release(Holder *h)
{
    g_assert_true(h->holds);
    qemu_coroutine_enter(h->co);
    settle();
    g_assert_true(h->released);
}

GArray *take(Disk *d)
{
    GArray *snapshot = g_array_new(false, false, sizeof(ZoneEntry));
    /* left over from an earlier use */
    ZoneEntry stale = { .zone = 99 };

    g_array_append_val(snapshot, stale);
    zone_writes_take_dirty(&d->zw, snapshot);
    return snapshot;
}

#define MAX_REQUESTS    24

typedef struct ModelRequest {
    Request r;
    bool used;
    /* What is expected of it */
    Phase phase;
    uint64_t offset;
    int io_ret;
    int ret;
    int turn;
} ModelRequest;

typedef struct ModelZone {
    BlockZoneState state;
    uint64_t written;
    uint64_t last_write;
    bool dirty;
    /* in flight, in the order of their offsets */
    ModelRequest *flight[MAX_REQUESTS];
    int nr_flight;
} ModelZone;

typedef struct Model {
    ZoneChoices *choices;
    Disk *disk;
    int max_open;
    int max_active;
    ModelZone zone[NR];
    ModelRequest request[MAX_REQUESTS];
    /* held back, in the order in which they came */
    ModelRequest *waiting[MAX_REQUESTS];
    int nr_waiting;
    Holder holder;
    bool holding;               /* there is a holder, waiting or not */
    uint64_t now;
    int turns;
} Model;

static int model_count(Model *m, BlockZoneState state)
{
    int n = 0;

    for (int i = 0; i < NR; i++) {
        n += m->zone[i].state == state;
    }
    return n;
}

static void model_close(ModelZone *z)
{
    z->state = z->written || z->nr_flight ? BLK_ZS_CLOSED : BLK_ZS_EMPTY;
}

/* Make room for @z to be opened, if there can be any. */
static int model_make_room(Model *m, ModelZone *z)
{
    int open = model_count(m, BLK_ZS_IOPEN) + model_count(m, BLK_ZS_EOPEN);
    int active = open + model_count(m, BLK_ZS_CLOSED);
    ModelZone *victim = NULL;

    if (z->state == BLK_ZS_IOPEN || z->state == BLK_ZS_EOPEN) {
        return 0;
    }
    if (z->state == BLK_ZS_EMPTY && active == m->max_active) {
        return -EOVERFLOW;
    }
    if (open == m->max_open) {
        for (int i = 0; i < NR; i++) {
            if (m->zone[i].state == BLK_ZS_IOPEN &&
                (!victim || m->zone[i].last_write < victim->last_write)) {
                victim = &m->zone[i];
            }
        }
        if (!victim) {
            return -ETOOMANYREFS;
        }
        model_close(victim);
    }
    return 0;
}

static void model_end(Model *m, ModelRequest *q, int ret)
{
    q->phase = ENDED;
    q->ret = ret;
    q->turn = m->turns++;
}

/* Did a write in flight fail, so that those behind it wait for the rest? */
static bool model_drains(ModelZone *z)
{
    for (int i = 0; i < z->nr_flight; i++) {
        if (z->flight[i]->io_ret < 0) {
            return true;
        }
    }
    return false;
}

static void model_admit(Model *m, ModelRequest *q)
{
    uint32_t zone = q->r.offset / ZONE;
    ModelZone *z = &m->zone[zone];
    uint64_t reserved = z->written;
    int ret;

    if (zone == 0) {
        if (q->r.append) {
            model_end(m, q, -EINVAL);
        } else {
            q->phase = MOVING;
        }
        return;
    }
    for (int i = 0; i < z->nr_flight; i++) {
        reserved += z->flight[i]->r.bytes;
    }
    if (z->state == BLK_ZS_FULL) {
        ret = -EINVAL;
    } else if (!q->r.append && q->r.offset != zone * ZONE + reserved) {
        ret = -ERANGE;
    } else if (reserved + q->r.bytes > CAP) {
        ret = -EINVAL;
    } else {
        ret = model_make_room(m, z);
    }
    if (ret < 0) {
        model_end(m, q, ret);
        return;
    }

    if (z->state != BLK_ZS_EOPEN) {
        z->state = BLK_ZS_IOPEN;
    }
    z->last_write = ++m->now;
    q->offset = zone * ZONE + reserved;
    if (model_drains(z)) {
        /* Shares the fate of the failed one, but cannot decide it. */
        q->phase = WAITING;
        q->io_ret = -EPERM;
    } else {
        q->phase = MOVING;
    }
    z->flight[z->nr_flight++] = q;
}

static bool model_is_held(Model *m, uint32_t zone)
{
    return m->holding && zone > 0 && zone >= m->holder.range.first &&
           zone < m->holder.range.first + m->holder.range.count;
}

static void model_settle_zone(Model *m, ModelZone *z)
{
    bool moving = false;
    int n = 0;

    while (n < z->nr_flight && z->flight[n]->phase == ENDING &&
           z->flight[n]->io_ret == 0) {
        z->written += z->flight[n]->r.bytes;
        z->dirty = true;
        model_end(m, z->flight[n++], 0);
    }
    if (z->written == CAP) {
        z->state = BLK_ZS_FULL;
    }
    z->nr_flight -= n;
    memmove(&z->flight[0], &z->flight[n],
            z->nr_flight * sizeof(z->flight[0]));

    for (int i = 0; i < z->nr_flight; i++) {
        moving |= z->flight[i]->phase == MOVING;
    }
    if (z->nr_flight && !moving) {
        for (int i = 0; i < z->nr_flight; i++) {
            model_end(m, z->flight[i], z->flight[0]->io_ret);
        }
        z->nr_flight = 0;
        if (z->state == BLK_ZS_CLOSED && z->written == 0) {
            z->state = BLK_ZS_EMPTY;
        }
    }
}

static bool model_holds(Model *m)
{
    for (int i = 1; i < NR; i++) {
        if (model_is_held(m, i) && m->zone[i].nr_flight) {
            return false;
        }
    }
    return m->holding;
}

static void model_compare(Model *m)
{
    Disk *d = m->disk;

    for (int i = 0; i < NR; i++) {
        assert_wp(d, i, i * ZONE + m->zone[i].written);
        assert_state(d, i, m->zone[i].state);
    }
    g_assert_true(zone_table_is_consistent(d->table));
    g_assert_cmpint(d->turns, ==, m->turns);
    if (m->holding) {
        g_assert_cmpint(m->holder.holds, ==, model_holds(m));
    }
    for (int i = 0; i < MAX_REQUESTS; i++) {
        ModelRequest *q = &m->request[i];

        if (!q->used) {
            continue;
        }
        assert_phase(&q->r, q->phase);
        if (q->phase == MOVING) {
            g_assert_cmpuint(q->r.w.offset, ==, q->offset);
        }
        if (q->phase == ENDED) {
            g_assert_cmpint(q->r.ret, ==, q->ret);
            g_assert_cmpint(q->r.turn, ==, q->turn);
            q->used = false;
        }
    }
}

/* Mostly one that is FULL, or mostly one that is not */
static uint32_t random_zone(Model *m, bool full)
{
    uint32_t zone = 0;

    for (int i = 0; i < 4; i++) {
        zone = zone_choose(m->choices, NR);
        if ((m->zone[zone].state == BLK_ZS_FULL) == full) {
            break;
        }
    }
    return zone;
}

static void random_send(Model *m)
{
    uint32_t zone = random_zone(m, false);
    ModelZone *z = &m->zone[zone];
    uint64_t offset = zone * ZONE + z->written;
    uint64_t bytes = 512 * (1 + zone_choose(m->choices, 16));
    ModelRequest *q = NULL;
    bool append = zone_choose(m->choices, 3) == 0;

    for (int i = 0; i < MAX_REQUESTS; i++) {
        if (!m->request[i].used) {
            q = &m->request[i];
            break;
        }
    }
    if (!q) {
        return;
    }

    for (int i = 0; i < z->nr_flight; i++) {
        offset += z->flight[i]->r.bytes;
    }
    if (offset + bytes > zone * ZONE + CAP && zone_choose(m->choices, 4)) {
        /* to the capacity, or a write that will be refused */
        bytes = MAX(512, zone * ZONE + CAP - offset);
    }
    if (append) {
        offset = zone * ZONE;
    } else if (zone_choose(m->choices, 16) == 0) {
        offset = zone * ZONE + 512 * zone_choose(m->choices, CAP / 512);
    }

    *q = (ModelRequest) {
        .used = true,
        .phase = WAITING,
        .offset = offset,
        .r = { .offset = offset, .bytes = bytes, .append = append },
    };
    if (model_is_held(m, zone) && !model_drains(z)) {
        m->waiting[m->nr_waiting++] = q;
    } else {
        model_admit(m, q);
    }
    send_request(m->disk, &q->r, offset, bytes, append);
}

static void random_complete(Model *m)
{
    ModelRequest *q = &m->request[zone_choose(m->choices, MAX_REQUESTS)];
    int ret = 0;

    if (!q->used || q->phase != MOVING) {
        return;
    }
    if (zone_choose(m->choices, 8) == 0) {
        ret = zone_errnos[zone_choose(m->choices, ZONE_ERRNOS)];
    }
    q->phase = ENDING;
    q->io_ret = ret;
    if (q->r.offset < ZONE) {
        model_end(m, q, ret);
    } else {
        model_settle_zone(m, &m->zone[q->r.offset / ZONE]);
    }
    complete(&q->r, ret);
}

static void random_open_or_close(Model *m)
{
    BlockZoneOp op = zone_choose(m->choices, 2) ? BLK_ZO_OPEN : BLK_ZO_CLOSE;
    uint32_t zone = zone_choose(m->choices, NR);
    ModelZone *z = &m->zone[zone];
    int ret = 0;

    switch (z->state) {
    case BLK_ZS_NOT_WP:
    case BLK_ZS_FULL:
        ret = -EINVAL;
        break;
    case BLK_ZS_EMPTY:
        ret = op == BLK_ZO_OPEN ? model_make_room(m, z) : -EINVAL;
        break;
    default:
        ret = op == BLK_ZO_OPEN ? model_make_room(m, z) : 0;
        break;
    }
    if (ret == 0 && op == BLK_ZO_OPEN) {
        z->state = BLK_ZS_EOPEN;
    } else if (ret == 0 && z->state != BLK_ZS_CLOSED) {
        model_close(z);
    }
    g_assert_cmpint(manage(m->disk, op, zone), ==, ret);
}

/* Take a hold, or use the one that there is, or give it back. */
static void random_hold(Model *m)
{
    Disk *d = m->disk;

    if (!m->holding) {
        uint32_t first = random_zone(m, true);
        uint32_t count = 1 + zone_choose(m->choices, MIN(3, NR - first));

        m->holding = true;
        m->holder.range = (ZoneRange) { .first = first, .count = count };
        hold(d, &m->holder, first, count);
        return;
    }
    if (!m->holder.holds) {
        return;
    }
    if (zone_choose(m->choices, 3)) {
        BlockZoneOp op = zone_choose(m->choices, 4) ? BLK_ZO_RESET
                                                    : BLK_ZO_FINISH;
        uint32_t zone = m->holder.range.first +
                        zone_choose(m->choices, m->holder.range.count);
        ModelZone *z = &m->zone[zone];

        if (zone == 0) {
            g_assert_cmpint(manage(d, op, zone), ==, -EINVAL);
            return;
        }
        g_assert_cmpint(manage(d, op, zone), ==, 0);
        zone_writes_set_dirty(&d->zw, zone);
        z->dirty = true;
        z->state = op == BLK_ZO_RESET ? BLK_ZS_EMPTY : BLK_ZS_FULL;
        z->written = op == BLK_ZO_RESET ? 0 : z->written;
    } else {
        m->holding = false;
        for (int i = 0; i < m->nr_waiting; i++) {
            model_admit(m, m->waiting[i]);
        }
        m->nr_waiting = 0;
        release(&m->holder);
    }
}

static void random_take_dirty(Model *m)
{
    GArray *snapshot = take(m->disk);
    int n = 0;

    for (int i = 0; i < NR; i++) {
        if (m->zone[i].dirty) {
            ZoneEntry *entry = &g_array_index(snapshot, ZoneEntry, n++);

            g_assert_cmpuint(n, <=, snapshot->len);
            g_assert_cmpuint(entry->zone, ==, i);
            g_assert_cmpuint(entry->wp, ==, i * ZONE + m->zone[i].written);
            if (m->zone[i].state != BLK_ZS_FULL) {
                g_assert_cmphex(entry->attributes, ==, 0);
            } else if (m->zone[i].written < CAP) {
                g_assert_cmphex(entry->attributes, ==, ZONE_FINISHED);
            }
            m->zone[i].dirty = false;
        }
    }
    g_assert_cmpuint(n, ==, snapshot->len);
    g_array_free(snapshot, true);
}

static void random_op(Model *m)
{
    switch (zone_choose(m->choices, 100)) {
    case 0 ... 39:
        random_send(m);
        break;
    case 40 ... 84:
        random_complete(m);
        break;
    case 85 ... 88:
        random_open_or_close(m);
        break;
    case 89 ... 97:
        random_hold(m);
        break;
    default:
        random_take_dirty(m);
        break;
    }
    model_compare(m);
}

/* Let all requests end. */
static void model_drain(Model *m)
{
    bool again;

    do {
        again = false;
        for (int i = 0; i < MAX_REQUESTS; i++) {
            ModelRequest *q = &m->request[i];

            if (q->used && q->r.phase == MOVING) {
                complete(&q->r, 0);
                again = true;
            }
        }
        if (!again && m->holding) {
            m->holding = false;
            release(&m->holder);
            again = true;
        }
    } while (again);
}

void zone_writes_model_run(ZoneChoices *choices, int max_open, int max_active,
                           int ops)
{
    g_autofree Model *m = g_new0(Model, 1);

    m->choices = choices;
    m->disk = disk_new(max_open, max_active);
    m->max_open = max_open ? max_open : NR;
    m->max_active = max_active ? max_active : NR;
    m->zone[0].state = BLK_ZS_NOT_WP;
    for (int i = 1; i < NR; i++) {
        m->zone[i].state = BLK_ZS_EMPTY;
    }
    for (int i = 0; i < ops && !zone_choices_ended(choices); i++) {
        random_op(m);
    }
    model_drain(m);
    disk_free(m->disk);
}
