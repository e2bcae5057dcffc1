/*
 * A naive model of zone tables
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "zone-table-model.h"

ZoneTable *new_table(const ZoneGeometry *geo)
{
    ZoneTable *t;

    g_assert_true(zone_geometry_check(geo, &error_abort));
    t = zone_table_new(geo);
    g_assert_nonnull(t);
    return t;
}

void load(ZoneTable *t, uint32_t zone, uint64_t bytes, unsigned attributes)
{
    g_assert_true(zone_table_load(t, zone, zone_table_start(t, zone) + bytes,
                                  attributes, &error_abort));
}

ZoneTable *power_cycle(const ZoneTable *t)
{
    ZoneTable *next = new_table(zone_table_geometry(t));

    for (uint32_t i = 0; i < zone_table_geometry(t)->nr_zones; i++) {
        unsigned attributes;
        uint64_t wp = zone_table_snapshot(t, i, &attributes);

        g_assert_true(zone_table_load(next, i, wp, attributes, &error_abort));
    }
    return next;
}

#define MODEL_FLIGHT    6

typedef struct ModelZone {
    BlockZoneState state;
    uint64_t start;
    uint64_t length;
    uint64_t capacity;
    uint64_t written;           /* acknowledged bytes */
    bool conventional;
    bool finished;              /* FULL because of that */
    uint64_t last_write;        /* when */
    uint64_t flight[MODEL_FLIGHT];
    int nr_flight;
} ModelZone;

typedef struct Model {
    ZoneChoices *choices;
    const ZoneGeometry *geo;    /* of the disk as it is now */
    ZoneGeometry grown;
    ModelZone zone[MODEL_ZONES];
    uint64_t now;
} Model;

static void model_place(const Model *m, int i, ModelZone *z)
{
    z->start = i * m->geo->zone_size;
    z->length = m->geo->zone_size;
    if (z->start + z->length > m->geo->disk_size) {
        z->length = m->geo->disk_size - z->start;
    }
    z->capacity = z->length;
    if (i >= m->geo->nr_conventional && z->capacity > m->geo->zone_capacity) {
        z->capacity = m->geo->zone_capacity;
    }
}

static void model_init(Model *m, ZoneChoices *choices,
                       const ZoneGeometry *geo)
{
    g_assert_cmpuint(geo->nr_zones, <=, MODEL_ZONES);
    memset(m, 0, sizeof(*m));
    m->choices = choices;
    m->geo = geo;
    for (int i = 0; i < geo->nr_zones; i++) {
        ModelZone *z = &m->zone[i];

        model_place(m, i, z);
        z->conventional = i < geo->nr_conventional;
        z->state = z->conventional ? BLK_ZS_NOT_WP : BLK_ZS_EMPTY;
    }
}

static int model_count(const Model *m, BlockZoneState state)
{
    int n = 0;

    for (int i = 0; i < m->geo->nr_zones; i++) {
        n += m->zone[i].state == state;
    }
    return n;
}

static int model_open(const Model *m)
{
    return model_count(m, BLK_ZS_IOPEN) + model_count(m, BLK_ZS_EOPEN);
}

static int model_active(const Model *m)
{
    return model_open(m) + model_count(m, BLK_ZS_CLOSED);
}

static uint64_t model_reserved(const ModelZone *z)
{
    uint64_t reserved = z->written;

    for (int i = 0; i < z->nr_flight; i++) {
        reserved += z->flight[i];
    }
    return z->start + reserved;
}

static void model_close(ModelZone *z)
{
    z->state = z->written == 0 && z->nr_flight == 0 ? BLK_ZS_EMPTY
                                                    : BLK_ZS_CLOSED;
}

/* The implicitly open zone outside of [first, last] with the oldest write */
static ModelZone *model_victim(Model *m, int first, int last)
{
    ModelZone *victim = NULL;

    for (int i = 0; i < m->geo->nr_zones; i++) {
        ModelZone *z = &m->zone[i];

        if (z->state == BLK_ZS_IOPEN && (i < first || i > last) &&
            (!victim || z->last_write < victim->last_write)) {
            victim = z;
        }
    }
    return victim;
}

static bool model_is_normal(const ModelZone *z)
{
    return z->state != BLK_ZS_RDONLY && z->state != BLK_ZS_OFFLINE;
}

static int model_write(Model *m, uint64_t offset, uint64_t bytes, bool append)
{
    const ZoneGeometry *geo = m->geo;
    ModelZone *z, *victim = NULL;
    bool refused = append;
    int first, last;

    if (offset % 512 != 0 || bytes % 512 != 0 || bytes == 0 ||
        offset >= geo->disk_size || bytes > geo->disk_size - offset) {
        return -EINVAL;
    }
    first = offset / geo->zone_size;
    last = (offset + bytes - 1) / geo->zone_size;
    if (append && (offset % geo->zone_size != 0 ||
                   bytes > geo->max_append_bytes)) {
        return -EINVAL;
    }
    if (last < geo->nr_conventional) {
        for (int i = first; i <= last; i++) {
            refused |= !model_is_normal(&m->zone[i]);
        }
        return refused ? -EINVAL : 0;
    }
    if (first != last) {
        return -EINVAL;
    }

    z = &m->zone[first];
    if (z->state == BLK_ZS_RDONLY || z->state == BLK_ZS_OFFLINE ||
        z->state == BLK_ZS_FULL) {
        return -EINVAL;
    }
    if (!append && offset != model_reserved(z)) {
        return -ERANGE;
    }
    if (model_reserved(z) + bytes > z->start + z->capacity) {
        return -EINVAL;
    }
    if (z->state == BLK_ZS_EMPTY && geo->max_active &&
        model_active(m) >= geo->max_active) {
        return -EOVERFLOW;
    }
    if ((z->state == BLK_ZS_EMPTY || z->state == BLK_ZS_CLOSED) &&
        geo->max_open && model_open(m) >= geo->max_open) {
        victim = model_victim(m, first, first);
        if (!victim) {
            return -ETOOMANYREFS;
        }
    }

    if (victim) {
        model_close(victim);
    }
    if (z->state != BLK_ZS_EOPEN) {
        z->state = BLK_ZS_IOPEN;
    }
    z->last_write = ++m->now;
    z->flight[z->nr_flight++] = bytes;
    return 0;
}

static void model_acknowledge(ModelZone *z)
{
    z->written += z->flight[0];
    z->nr_flight--;
    memmove(&z->flight[0], &z->flight[1],
            z->nr_flight * sizeof(z->flight[0]));
    if (z->written == z->capacity) {
        z->state = BLK_ZS_FULL;
    }
}

static void model_fail(ModelZone *z)
{
    z->nr_flight = 0;
    if (z->state == BLK_ZS_CLOSED && z->written == 0) {
        z->state = BLK_ZS_EMPTY;
    }
}

/* May @op be done to a zone in @state? */
static bool model_allows(BlockZoneOp op, BlockZoneState state)
{
    switch (op) {
    case BLK_ZO_OPEN:
        return state == BLK_ZS_EMPTY || state == BLK_ZS_IOPEN ||
               state == BLK_ZS_EOPEN || state == BLK_ZS_CLOSED;
    case BLK_ZO_CLOSE:
        return state == BLK_ZS_IOPEN || state == BLK_ZS_EOPEN ||
               state == BLK_ZS_CLOSED;
    default:
        return state == BLK_ZS_EMPTY || state == BLK_ZS_IOPEN ||
               state == BLK_ZS_EOPEN || state == BLK_ZS_CLOSED ||
               state == BLK_ZS_FULL;
    }
}

/* The zones of a range, which has to be whole ones */
static int model_range(const ZoneGeometry *geo, uint64_t offset, uint64_t len,
                       int *first, int *last)
{
    if (len == 0 || offset >= geo->disk_size ||
        len > geo->disk_size - offset || offset % geo->zone_size != 0 ||
        ((offset + len) % geo->zone_size != 0 &&
         offset + len != geo->disk_size)) {
        return -EINVAL;
    }
    *first = offset / geo->zone_size;
    *last = (offset + len - 1) / geo->zone_size;
    return 0;
}

/* With @apply, carry it out where it is allowed. */
static int model_manage(Model *m, BlockZoneOp op, uint64_t offset,
                        uint64_t len, bool apply)
{
    const ZoneGeometry *geo = m->geo;
    int first, last, n, explicit_outside = 0, empty_inside = 0;
    bool all;

    if (model_range(geo, offset, len, &first, &last) < 0) {
        return -EINVAL;
    }
    n = last - first + 1;
    if (op == BLK_ZO_RESET_ALL && n != geo->nr_zones) {
        return -EINVAL;
    }
    all = op == BLK_ZO_RESET_ALL ||
          (op == BLK_ZO_RESET && geo->nr_zones > 1 && n == geo->nr_zones);

    for (int i = first; i <= last; i++) {
        if (!all && !model_allows(op, m->zone[i].state)) {
            return -EINVAL;
        }
    }
    if (op == BLK_ZO_OPEN) {
        for (int i = 0; i < geo->nr_zones; i++) {
            if (i < first || i > last) {
                explicit_outside += m->zone[i].state == BLK_ZS_EOPEN;
            } else {
                empty_inside += m->zone[i].state == BLK_ZS_EMPTY;
            }
        }
        if (geo->max_active && empty_inside &&
            model_active(m) + empty_inside > geo->max_active) {
            return -EOVERFLOW;
        }
        if (geo->max_open && explicit_outside + n > geo->max_open) {
            return -ETOOMANYREFS;
        }
    }
    if (!apply) {
        return 0;
    }

    for (int i = first; i <= last; i++) {
        ModelZone *z = &m->zone[i];

        switch (op) {
        case BLK_ZO_OPEN:
            z->state = BLK_ZS_EOPEN;
            break;
        case BLK_ZO_CLOSE:
            if (z->state != BLK_ZS_CLOSED) {
                model_close(z);
            }
            break;
        case BLK_ZO_FINISH:
            z->finished |= z->state != BLK_ZS_FULL;
            z->state = BLK_ZS_FULL;
            break;
        default:
            if (model_allows(op, z->state)) {
                z->state = BLK_ZS_EMPTY;
                z->written = 0;
                z->finished = false;
            }
            break;
        }
    }
    while (op == BLK_ZO_OPEN && geo->max_open &&
           model_open(m) > geo->max_open) {
        model_close(model_victim(m, first, last));
    }
    return 0;
}

static bool model_grow(Model *m, uint64_t disk_size)
{
    ModelZone *last = &m->zone[m->geo->nr_zones - 1];
    int old_nr = m->geo->nr_zones;

    if (disk_size < m->geo->disk_size || disk_size % 512 != 0 ||
        (disk_size > m->geo->disk_size &&
         last->length < m->geo->zone_size &&
         last->state != BLK_ZS_EMPTY &&
         !(last->state == BLK_ZS_FULL && last->finished))) {
        return false;
    }
    m->grown = *m->geo;
    m->grown.disk_size = disk_size;
    m->grown.nr_zones = (disk_size + m->geo->zone_size - 1) /
                        m->geo->zone_size;
    m->geo = &m->grown;
    model_place(m, old_nr - 1, last);
    for (int i = old_nr; i < m->geo->nr_zones; i++) {
        model_place(m, i, &m->zone[i]);
        m->zone[i].state = BLK_ZS_EMPTY;
    }
    return true;
}

/* What an idle zone is that is neither open, READ-ONLY nor OFFLINE */
static BlockZoneState model_own_state(const ModelZone *z)
{
    if (z->conventional) {
        return BLK_ZS_NOT_WP;
    }
    if (z->finished || z->written == z->capacity) {
        return BLK_ZS_FULL;
    }
    return z->written ? BLK_ZS_CLOSED : BLK_ZS_EMPTY;
}

/* With @apply, carry it out if it is allowed. */
static int model_set_condition(Model *m, BlockdevZoneCondition condition,
                               uint64_t offset, uint64_t len, bool apply)
{
    const ZoneGeometry *geo = m->geo;
    int first, last, closed = 0;

    if (model_range(geo, offset, len, &first, &last) < 0) {
        return -EINVAL;
    }
    for (int i = first; i <= last; i++) {
        closed += condition == BLOCKDEV_ZONE_CONDITION_NORMAL &&
                  !model_is_normal(&m->zone[i]) &&
                  model_own_state(&m->zone[i]) == BLK_ZS_CLOSED;
    }
    if (geo->max_active && closed &&
        model_active(m) + closed > geo->max_active) {
        return -EOVERFLOW;
    }

    for (int i = first; i <= last && apply; i++) {
        ModelZone *z = &m->zone[i];

        if (condition == BLOCKDEV_ZONE_CONDITION_READ_ONLY) {
            z->state = BLK_ZS_RDONLY;
        } else if (condition == BLOCKDEV_ZONE_CONDITION_OFFLINE) {
            z->state = BLK_ZS_OFFLINE;
        } else if (!model_is_normal(z)) {
            z->state = model_own_state(z);
        }
    }
    return 0;
}

static void model_power_cycle(Model *m)
{
    for (int i = 0; i < m->geo->nr_zones; i++) {
        ModelZone *z = &m->zone[i];

        z->nr_flight = 0;
        if (z->state == BLK_ZS_IOPEN || z->state == BLK_ZS_EOPEN ||
            z->state == BLK_ZS_CLOSED) {
            z->state = z->written ? BLK_ZS_CLOSED : BLK_ZS_EMPTY;
        }
    }
}

static void model_compare(const Model *m, const ZoneTable *t)
{
    for (int i = 0; i < m->geo->nr_zones; i++) {
        const ModelZone *z = &m->zone[i];
        unsigned attributes = zone_table_attributes(t, i);
        BlockZoneDescriptor desc;

        assert_state(t, i, z->state);
        g_assert_cmpuint(zone_table_wp(t, i), ==, z->start + z->written);
        g_assert_cmpint(!!(attributes & ZONE_CONVENTIONAL), ==,
                        z->conventional);
        g_assert_cmpint(!!(attributes & ZONE_READ_ONLY), ==,
                        z->state == BLK_ZS_RDONLY);
        g_assert_cmpint(!!(attributes & ZONE_OFFLINE), ==,
                        z->state == BLK_ZS_OFFLINE);
        g_assert_cmpint(!!(attributes & ZONE_FINISHED), ==, z->finished);

        zone_table_describe(t, i, &desc);
        g_assert_cmpuint(desc.start, ==, z->start);
        g_assert_cmpuint(desc.length, ==, z->length);
        g_assert_cmpuint(desc.cap, ==, z->capacity);
        g_assert_cmphex(desc.state, ==, z->state);
        if (z->state == BLK_ZS_FULL) {
            g_assert_cmpuint(desc.wp, ==, z->start + z->length);
        } else if (z->state != BLK_ZS_NOT_WP && z->state != BLK_ZS_OFFLINE) {
            g_assert_cmpuint(desc.wp, ==, z->start + z->written);
        }
    }
    assert_counts(t, model_open(m), model_active(m));
}

/* Some zones are READ-ONLY, OFFLINE, CLOSED, FULL from the beginning. */
static void random_start(Model *m, ZoneTable *t)
{
    for (int i = m->geo->nr_conventional; i < m->geo->nr_zones; i++) {
        ModelZone *z = &m->zone[i];

        z->written = zone_choose(m->choices, z->capacity / 512 + 1) * 512;
        switch (zone_choose(m->choices, 12)) {
        case 0:
            z->state = BLK_ZS_RDONLY;
            load(t, i, z->written, ZONE_READ_ONLY);
            break;
        case 1:
            z->state = BLK_ZS_OFFLINE;
            load(t, i, z->written, ZONE_OFFLINE);
            break;
        case 2:
            z->state = BLK_ZS_FULL;
            z->finished = true;
            load(t, i, z->written, ZONE_FINISHED);
            break;
        case 3 ... 6:
            z->state = z->written == 0 ? BLK_ZS_EMPTY :
                       z->written == z->capacity ? BLK_ZS_FULL : BLK_ZS_CLOSED;
            load(t, i, z->written, 0);
            break;
        default:
            z->written = 0;
            break;
        }
    }
}

/* Mostly a zone that can be written, if there is one */
static ModelZone *random_zone(Model *m)
{
    ModelZone *z = NULL;

    for (int i = 0; i < 4; i++) {
        z = &m->zone[zone_choose(m->choices, m->geo->nr_zones)];
        if (z->state == BLK_ZS_EMPTY || z->state == BLK_ZS_IOPEN ||
            z->state == BLK_ZS_EOPEN || z->state == BLK_ZS_CLOSED) {
            break;
        }
    }
    return z;
}

/* Mostly a good write to @z, sometimes wrong by a little or by a lot */
static void random_write(Model *m, ZoneTable *t, ModelZone *z, bool append)
{
    uint64_t reserved = model_reserved(z);
    uint64_t offset = append ? z->start : reserved;
    uint64_t room = z->start + z->capacity - reserved;
    uint64_t bytes = 512 * (1 + zone_choose(m->choices,
                                            z->capacity / 512 / 4 + 1));
    int ret;

    if (z->nr_flight == MODEL_FLIGHT) {
        return;
    }
    if (bytes > room && room) {
        bytes = room;
    }
    if (append && bytes > m->geo->max_append_bytes) {
        bytes = m->geo->max_append_bytes;
    }
    switch (zone_choose(m->choices, 40)) {
    case 0:
        offset += 512;
        break;
    case 1:
        offset -= 512;
        break;
    case 2:
        offset = zone_choose(m->choices, m->geo->disk_size);
        break;
    case 3:
        offset = zone_choose(m->choices, m->geo->disk_size) & ~511ULL;
        break;
    case 4:
        bytes = zone_choose(m->choices, 4 * m->geo->zone_size);
        break;
    case 5:
        bytes = 512 * (1 + zone_choose(m->choices,
                                       4 * m->geo->zone_size / 512));
        break;
    case 6:
        bytes = room + 512;
        break;
    case 7:
    case 8:
    case 9:
        bytes = room ? room : 512;
        break;
    }
    if (bytes == 0) {
        return;
    }
    if (offset < m->geo->disk_size) {
        z = &m->zone[offset / m->geo->zone_size];
        if (z->nr_flight == MODEL_FLIGHT) {
            return;
        }
        reserved = model_reserved(z);
    }

    ret = append ? zone_table_append(t, offset, bytes, reserved)
                 : zone_table_write(t, offset, bytes, reserved);
    g_assert_cmpint(ret, ==, model_write(m, offset, bytes, append));
}

static void random_manage(Model *m, ZoneTable *t)
{
    static const BlockZoneOp ops[] = {
        BLK_ZO_OPEN, BLK_ZO_OPEN, BLK_ZO_OPEN, BLK_ZO_CLOSE, BLK_ZO_CLOSE,
        BLK_ZO_FINISH, BLK_ZO_RESET, BLK_ZO_RESET,
    };
    const ZoneGeometry *geo = m->geo;
    BlockZoneOp op = ops[zone_choose(m->choices, ARRAY_SIZE(ops))];
    ModelZone *z = &m->zone[zone_choose(m->choices, geo->nr_zones)];
    uint64_t offset = z->start;
    uint64_t len = z->length;
    ZoneRange range;
    bool apply;
    int ret;

    if (z->state == BLK_ZS_FULL) {
        op = BLK_ZO_RESET;
    }
    switch (zone_choose(m->choices, 64)) {
    case 0:
        op = BLK_ZO_RESET_ALL;
        /* fall through */
    case 1:
        offset = 0;
        len = geo->disk_size;
        break;
    case 2:
        len = zone_choose(m->choices, 3 * geo->zone_size);
        break;
    case 3:
        offset = zone_choose(m->choices, geo->disk_size);
        break;
    case 4:
        len = -offset;
        break;
    case 5 ... 24:
        len = geo->zone_size * (1 + zone_choose(m->choices, 4));
        break;
    }
    if (zone_choose(m->choices, 8) && offset + len > geo->disk_size) {
        len = geo->disk_size - offset;
    }

    /* Finish and reset are carried out on idle zones only. */
    apply = true;
    for (int i = 0; i < geo->nr_zones; i++) {
        z = &m->zone[i];
        if (z->nr_flight && op != BLK_ZO_OPEN && op != BLK_ZO_CLOSE &&
            z->start + z->length > offset && z->start < offset + len) {
            apply = false;
        }
    }
    ret = zone_table_check(t, op, offset, len, &range);
    if (ret == 0 && apply) {
        zone_table_apply(t, op, range);
    }
    g_assert_cmpint(ret, ==, model_manage(m, op, offset, len, apply));
}

/* Mostly by little; sometimes to a size that the disk cannot have */
static void random_grow(Model *m, ZoneTable *t)
{
    uint64_t zone_size = m->geo->zone_size;
    uint64_t disk_size = m->geo->disk_size;
    ZoneGeometry geo;
    bool may_grow;

    switch (zone_choose(m->choices, 8)) {
    case 0:
        disk_size = zone_choose(m->choices, disk_size) & ~511ULL;
        break;
    case 1:
        disk_size += 256;
        break;
    case 2:
        disk_size = QEMU_ALIGN_UP(disk_size, zone_size);
        break;
    case 3:
        disk_size += zone_size;
        break;
    default:
        disk_size += 512 * zone_choose(m->choices, zone_size / 512 + 1);
        break;
    }
    if (disk_size > MODEL_ZONES * zone_size) {
        return;
    }
    may_grow = zone_table_check_grow(t, disk_size, &geo, NULL);
    if (may_grow) {
        g_assert_true(zone_table_reserve(t, geo.nr_zones));
        zone_table_grow(t, disk_size);
    }
    g_assert_cmpint(may_grow, ==, model_grow(m, disk_size));
}

/* Of zones without writes in flight, or checked and then given up */
static void random_condition(Model *m, ZoneTable *t)
{
    BlockdevZoneCondition condition =
        zone_choose(m->choices, BLOCKDEV_ZONE_CONDITION__MAX);
    uint64_t offset = m->geo->zone_size *
                      zone_choose(m->choices, m->geo->nr_zones);
    uint64_t len = m->geo->zone_size * (1 + zone_choose(m->choices, 3));
    ZoneRange range;
    uint32_t slots;
    bool apply = true;
    int ret;

    if (zone_choose(m->choices, 8)) {
        len = MIN(len, m->geo->disk_size - offset);
    }
    for (int i = 0; i < m->geo->nr_zones; i++) {
        ModelZone *z = &m->zone[i];

        if (z->nr_flight && z->start >= offset && z->start - offset < len) {
            apply = false;
        }
    }

    ret = zone_table_check_condition(t, condition, offset, len, &range,
                                     &slots);
    g_assert_cmpint(ret, ==, model_set_condition(m, condition, offset, len,
                                                 apply));
    if (ret == 0 && !apply) {
        zone_table_give_back_slots(t, slots);
    }
    for (uint32_t i = 0; ret == 0 && apply && i < range.count; i++) {
        zone_table_set_condition(t, range.first + i, condition);
    }
}

static void random_op(Model *m, ZoneTable *t)
{
    int n = zone_choose(m->choices, m->geo->nr_zones);
    ModelZone *z = &m->zone[n];

    switch (zone_choose(m->choices, 100)) {
    case 0 ... 29:
        random_write(m, t, random_zone(m), false);
        break;
    case 30 ... 39:
        random_write(m, t, random_zone(m), true);
        break;
    case 40 ... 69:
        if (z->nr_flight) {
            uint64_t wp = z->start + z->written + z->flight[0];

            zone_table_acknowledge(t, n, wp, z->nr_flight > 1);
            model_acknowledge(z);
        }
        break;
    case 70 ... 73:
        if (z->nr_flight) {
            zone_table_rewind(t, n);
            model_fail(z);
        }
        break;
    case 74:
        if (zone_choose(m->choices, 16) == 15) {
            random_grow(m, t);
        }
        break;
    case 75 ... 77:
        random_condition(m, t);
        break;
    default:
        random_manage(m, t);
        break;
    }
}

void zone_table_model_run(ZoneChoices *choices, const ZoneGeometry *geo,
                          int ops)
{
    ZoneTable *t = new_table(geo);
    Model m;

    model_init(&m, choices, geo);
    random_start(&m, t);
    model_compare(&m, t);

    for (int i = 0; i < ops && !zone_choices_ended(choices); i++) {
        random_op(&m, t);
        model_compare(&m, t);

        if (zone_choose(choices, 256) == 255) {
            ZoneTable *next = power_cycle(t);

            zone_table_free(t);
            t = next;
            model_power_cycle(&m);
            model_compare(&m, t);
        }
    }
    zone_table_free(t);
}
