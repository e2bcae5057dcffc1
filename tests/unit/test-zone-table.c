/*
 * Zone table unit tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "zone-table-model.h"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ZoneTable, zone_table_free)

/* The disk of most tests.  CAP is below ZONE and no power of two. */
#define BLOCK   (4 * KiB)
#define ZONE    (64 * KiB)
#define CAP     (48 * KiB)
#define NR      12

#define MAX_SNAPSHOT 64

/* All of a table that can be seen from outside. */
typedef struct Snapshot {
    uint32_t open;
    uint32_t active;
    struct {
        uint64_t wp;
        unsigned attributes;
        BlockZoneState state;
    } zone[MAX_SNAPSHOT];
} Snapshot;

static void take_snapshot(const ZoneTable *t, Snapshot *s)
{
    uint32_t nr = zone_table_geometry(t)->nr_zones;

    g_assert_cmpuint(nr, <=, MAX_SNAPSHOT);
    memset(s, 0, sizeof(*s));
    s->open = zone_table_nr_open(t);
    s->active = zone_table_nr_active(t);
    for (uint32_t i = 0; i < nr; i++) {
        s->zone[i].wp = zone_table_wp(t, i);
        s->zone[i].attributes = zone_table_attributes(t, i);
        s->zone[i].state = zone_table_state(t, i);
    }
}

/* @call must return @errno_, and nothing may have changed after it. */
#define assert_refused(t, call, errno_)                         \
    do {                                                        \
        Snapshot before_, after_;                               \
        take_snapshot(t, &before_);                             \
        g_assert_cmpint(call, ==, errno_);                      \
        take_snapshot(t, &after_);                              \
        g_assert_cmpmem(&before_, sizeof(before_),              \
                        &after_, sizeof(after_));               \
        g_assert_true(zone_table_is_consistent(t));             \
    } while (0)

static ZoneGeometry geometry(uint64_t disk_size, uint64_t zone_size,
                             uint64_t zone_capacity)
{
    return (ZoneGeometry) {
        .disk_size = disk_size,
        .zone_size = zone_size,
        .zone_capacity = zone_capacity,
        .nr_zones = zone_geometry_count(disk_size, zone_size),
        .max_append_bytes = MIN(zone_capacity, 1 * MiB),
    };
}

/* NR zones, with limits */
static ZoneTable *limited(uint32_t max_open, uint32_t max_active)
{
    ZoneGeometry geo = geometry(NR * ZONE, ZONE, CAP);

    geo.max_open = max_open;
    geo.max_active = max_active;
    return new_table(&geo);
}

/* NR zones, @nr of them conventional */
static ZoneTable *with_conventional(uint32_t nr)
{
    ZoneGeometry geo = geometry(NR * ZONE, ZONE, CAP);

    geo.nr_conventional = nr;
    return new_table(&geo);
}

/* Send a write at the write pointer of a zone without writes in flight. */
static int submit(ZoneTable *t, uint32_t zone, uint64_t bytes)
{
    uint64_t wp = zone_table_wp(t, zone);

    return zone_table_write(t, wp, bytes, wp);
}

/* The same, and have it acknowledged. */
static int put(ZoneTable *t, uint32_t zone, uint64_t bytes)
{
    uint64_t wp = zone_table_wp(t, zone);
    int ret = submit(t, zone, bytes);

    if (ret == 0) {
        zone_table_acknowledge(t, zone, wp + bytes, false);
    }
    return ret;
}

static int append(ZoneTable *t, uint32_t zone, uint64_t bytes)
{
    uint64_t wp = zone_table_wp(t, zone);
    int ret = zone_table_append(t, zone_table_start(t, zone), bytes, wp);

    if (ret == 0) {
        zone_table_acknowledge(t, zone, wp + bytes, false);
    }
    return ret;
}

static int manage_bytes(ZoneTable *t, BlockZoneOp op, uint64_t offset,
                        uint64_t len)
{
    ZoneRange range;
    int ret = zone_table_check(t, op, offset, len, &range);

    if (ret == 0) {
        zone_table_apply(t, op, range);
    }
    return ret;
}

static int manage_range(ZoneTable *t, BlockZoneOp op, uint32_t first,
                        uint32_t last)
{
    uint64_t start = zone_table_start(t, first);
    uint64_t end = zone_table_start(t, last) + zone_table_length(t, last);

    return manage_bytes(t, op, start, end - start);
}

static int manage(ZoneTable *t, BlockZoneOp op, uint32_t zone)
{
    return manage_range(t, op, zone, zone);
}

static int set_condition(ZoneTable *t, BlockdevZoneCondition condition,
                         uint32_t first, uint32_t last)
{
    uint64_t start = zone_table_start(t, first);
    uint64_t end = zone_table_start(t, last) + zone_table_length(t, last);
    ZoneRange range;
    uint32_t slots;
    int ret = zone_table_check_condition(t, condition, start, end - start,
                                         &range, &slots);

    if (ret == 0) {
        g_assert_cmpuint(range.first, ==, first);
        g_assert_cmpuint(range.count, ==, last - first + 1);
        for (uint32_t zone = first; zone <= last; zone++) {
            zone_table_set_condition(t, zone, condition);
        }
    }
    return ret;
}

/* A write that fails */
static void put_failing(ZoneTable *t, uint32_t zone)
{
    g_assert_cmpint(submit(t, zone, BLOCK), ==, 0);
    zone_table_rewind(t, zone);
}

/* A zone with a block of data in it, closed */
static void put_and_close(ZoneTable *t, uint32_t zone)
{
    g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
    g_assert_cmpint(manage(t, BLK_ZO_CLOSE, zone), ==, 0);
}

/*
 * The state table, cell by cell
 */

typedef enum Start {
    EMPTY,
    IMPLICIT,
    IMPLICIT_AT_START,          /* its first write failed */
    EXPLICIT,
    EXPLICIT_AT_START,
    CLOSED,
    FULL,
    FINISHED,                   /* FULL, with one block of data */
    FINISHED_EMPTY,             /* FULL, with none */
    READ_ONLY,
    OFFLINE,
    CONVENTIONAL,
    NR_STARTS,
} Start;

typedef enum Verb {
    WRITE,                      /* one block, at the WP */
    FILL,                       /* all that there is room for */
    APPEND,
    OPEN,
    CLOSE,
    FINISH,
    RESET,
    POWER_CYCLE,
    NR_VERBS,
} Verb;

typedef struct Cell {
    const char *name;
    Start start;
    Verb verb;
    int ret;
    BlockZoneState state;       /* afterwards */
    int open;                   /* how the number of open zones changes */
    int active;
    uint64_t wp;                /* afterwards, in blocks from zone start */
} Cell;

#define FULL_WP (CAP / BLOCK)

static const Cell cells[] = {
    { "write-to-empty-zone-opens-it-implicitly",
      EMPTY, WRITE, 0, BLK_ZS_IOPEN, 1, 1, 1 },
    { "write-that-fills-empty-zone-makes-it-full-and-takes-no-slots",
      EMPTY, FILL, 0, BLK_ZS_FULL, 0, 0, FULL_WP },
    { "append-to-empty-zone-opens-it-implicitly",
      EMPTY, APPEND, 0, BLK_ZS_IOPEN, 1, 1, 1 },
    { "open-of-empty-zone-opens-it-explicitly",
      EMPTY, OPEN, 0, BLK_ZS_EOPEN, 1, 1, 0 },
    { "close-of-empty-zone-is-refused",
      EMPTY, CLOSE, -EINVAL, BLK_ZS_EMPTY, 0, 0, 0 },
    { "finish-of-empty-zone-makes-it-full",
      EMPTY, FINISH, 0, BLK_ZS_FULL, 0, 0, 0 },
    { "reset-of-empty-zone-succeeds-and-changes-nothing",
      EMPTY, RESET, 0, BLK_ZS_EMPTY, 0, 0, 0 },
    { "empty-zone-is-empty-after-power-cycle",
      EMPTY, POWER_CYCLE, 0, BLK_ZS_EMPTY, 0, 0, 0 },

    { "write-to-implicitly-open-zone-moves-its-wp",
      IMPLICIT, WRITE, 0, BLK_ZS_IOPEN, 0, 0, 2 },
    { "write-that-fills-implicitly-open-zone-frees-its-slots",
      IMPLICIT, FILL, 0, BLK_ZS_FULL, -1, -1, FULL_WP },
    { "append-to-implicitly-open-zone-moves-its-wp",
      IMPLICIT, APPEND, 0, BLK_ZS_IOPEN, 0, 0, 2 },
    { "open-of-implicitly-open-zone-makes-it-explicit",
      IMPLICIT, OPEN, 0, BLK_ZS_EOPEN, 0, 0, 1 },
    { "close-of-implicitly-open-zone-keeps-it-active",
      IMPLICIT, CLOSE, 0, BLK_ZS_CLOSED, -1, 0, 1 },
    { "finish-of-implicitly-open-zone-frees-its-slots",
      IMPLICIT, FINISH, 0, BLK_ZS_FULL, -1, -1, 1 },
    { "reset-of-implicitly-open-zone-frees-its-slots",
      IMPLICIT, RESET, 0, BLK_ZS_EMPTY, -1, -1, 0 },
    { "implicitly-open-zone-is-closed-after-power-cycle",
      IMPLICIT, POWER_CYCLE, 0, BLK_ZS_CLOSED, -1, 0, 1 },

    { "write-to-implicitly-open-zone-at-its-start-moves-its-wp",
      IMPLICIT_AT_START, WRITE, 0, BLK_ZS_IOPEN, 0, 0, 1 },
    { "write-that-fills-implicitly-open-zone-at-its-start-frees-its-slots",
      IMPLICIT_AT_START, FILL, 0, BLK_ZS_FULL, -1, -1, FULL_WP },
    { "append-to-implicitly-open-zone-at-its-start-moves-its-wp",
      IMPLICIT_AT_START, APPEND, 0, BLK_ZS_IOPEN, 0, 0, 1 },
    { "open-of-implicitly-open-zone-at-its-start-makes-it-explicit",
      IMPLICIT_AT_START, OPEN, 0, BLK_ZS_EOPEN, 0, 0, 0 },
    { "close-of-implicitly-open-zone-at-its-start-makes-it-empty",
      IMPLICIT_AT_START, CLOSE, 0, BLK_ZS_EMPTY, -1, -1, 0 },
    { "finish-of-implicitly-open-zone-at-its-start-frees-its-slots",
      IMPLICIT_AT_START, FINISH, 0, BLK_ZS_FULL, -1, -1, 0 },
    { "reset-of-implicitly-open-zone-at-its-start-frees-its-slots",
      IMPLICIT_AT_START, RESET, 0, BLK_ZS_EMPTY, -1, -1, 0 },
    { "implicitly-open-zone-at-its-start-is-empty-after-power-cycle",
      IMPLICIT_AT_START, POWER_CYCLE, 0, BLK_ZS_EMPTY, -1, -1, 0 },

    { "write-to-explicitly-open-zone-leaves-it-explicit",
      EXPLICIT, WRITE, 0, BLK_ZS_EOPEN, 0, 0, 2 },
    { "write-that-fills-explicitly-open-zone-frees-its-slots",
      EXPLICIT, FILL, 0, BLK_ZS_FULL, -1, -1, FULL_WP },
    { "append-to-explicitly-open-zone-leaves-it-explicit",
      EXPLICIT, APPEND, 0, BLK_ZS_EOPEN, 0, 0, 2 },
    { "open-of-explicitly-open-zone-succeeds-and-changes-nothing",
      EXPLICIT, OPEN, 0, BLK_ZS_EOPEN, 0, 0, 1 },
    { "close-of-explicitly-open-zone-keeps-it-active",
      EXPLICIT, CLOSE, 0, BLK_ZS_CLOSED, -1, 0, 1 },
    { "finish-of-explicitly-open-zone-frees-its-slots",
      EXPLICIT, FINISH, 0, BLK_ZS_FULL, -1, -1, 1 },
    { "reset-of-explicitly-open-zone-frees-its-slots",
      EXPLICIT, RESET, 0, BLK_ZS_EMPTY, -1, -1, 0 },
    { "explicitly-open-zone-is-closed-after-power-cycle",
      EXPLICIT, POWER_CYCLE, 0, BLK_ZS_CLOSED, -1, 0, 1 },

    { "write-to-explicitly-open-zone-at-its-start-leaves-it-explicit",
      EXPLICIT_AT_START, WRITE, 0, BLK_ZS_EOPEN, 0, 0, 1 },
    { "write-that-fills-explicitly-open-zone-at-its-start-frees-its-slots",
      EXPLICIT_AT_START, FILL, 0, BLK_ZS_FULL, -1, -1, FULL_WP },
    { "append-to-explicitly-open-zone-at-its-start-leaves-it-explicit",
      EXPLICIT_AT_START, APPEND, 0, BLK_ZS_EOPEN, 0, 0, 1 },
    { "open-of-explicitly-open-zone-at-its-start-changes-nothing",
      EXPLICIT_AT_START, OPEN, 0, BLK_ZS_EOPEN, 0, 0, 0 },
    { "close-of-explicitly-open-zone-at-its-start-makes-it-empty",
      EXPLICIT_AT_START, CLOSE, 0, BLK_ZS_EMPTY, -1, -1, 0 },
    { "finish-of-explicitly-open-zone-at-its-start-frees-its-slots",
      EXPLICIT_AT_START, FINISH, 0, BLK_ZS_FULL, -1, -1, 0 },
    { "reset-of-explicitly-open-zone-at-its-start-frees-its-slots",
      EXPLICIT_AT_START, RESET, 0, BLK_ZS_EMPTY, -1, -1, 0 },
    { "explicitly-open-zone-at-its-start-is-empty-after-power-cycle",
      EXPLICIT_AT_START, POWER_CYCLE, 0, BLK_ZS_EMPTY, -1, -1, 0 },

    { "write-to-closed-zone-opens-it-implicitly",
      CLOSED, WRITE, 0, BLK_ZS_IOPEN, 1, 0, 2 },
    { "write-that-fills-closed-zone-frees-its-active-slot",
      CLOSED, FILL, 0, BLK_ZS_FULL, 0, -1, FULL_WP },
    { "append-to-closed-zone-opens-it-implicitly",
      CLOSED, APPEND, 0, BLK_ZS_IOPEN, 1, 0, 2 },
    { "open-of-closed-zone-opens-it-explicitly",
      CLOSED, OPEN, 0, BLK_ZS_EOPEN, 1, 0, 1 },
    { "close-of-closed-zone-succeeds-and-changes-nothing",
      CLOSED, CLOSE, 0, BLK_ZS_CLOSED, 0, 0, 1 },
    { "finish-of-closed-zone-frees-its-active-slot",
      CLOSED, FINISH, 0, BLK_ZS_FULL, 0, -1, 1 },
    { "reset-of-closed-zone-frees-its-active-slot",
      CLOSED, RESET, 0, BLK_ZS_EMPTY, 0, -1, 0 },
    { "closed-zone-is-closed-after-power-cycle",
      CLOSED, POWER_CYCLE, 0, BLK_ZS_CLOSED, 0, 0, 1 },

    { "write-to-full-zone-is-refused",
      FULL, WRITE, -EINVAL, BLK_ZS_FULL, 0, 0, FULL_WP },
    { "append-to-full-zone-is-refused",
      FULL, APPEND, -EINVAL, BLK_ZS_FULL, 0, 0, FULL_WP },
    { "open-of-full-zone-is-refused",
      FULL, OPEN, -EINVAL, BLK_ZS_FULL, 0, 0, FULL_WP },
    { "close-of-full-zone-is-refused",
      FULL, CLOSE, -EINVAL, BLK_ZS_FULL, 0, 0, FULL_WP },
    { "finish-of-full-zone-succeeds-and-changes-nothing",
      FULL, FINISH, 0, BLK_ZS_FULL, 0, 0, FULL_WP },
    { "reset-of-full-zone-makes-it-empty",
      FULL, RESET, 0, BLK_ZS_EMPTY, 0, 0, 0 },
    { "full-zone-is-full-after-power-cycle",
      FULL, POWER_CYCLE, 0, BLK_ZS_FULL, 0, 0, FULL_WP },

    { "write-to-finished-zone-is-refused",
      FINISHED, WRITE, -EINVAL, BLK_ZS_FULL, 0, 0, 1 },
    { "write-of-all-that-is-left-of-finished-zone-is-refused",
      FINISHED, FILL, -EINVAL, BLK_ZS_FULL, 0, 0, 1 },
    { "append-to-finished-zone-is-refused",
      FINISHED, APPEND, -EINVAL, BLK_ZS_FULL, 0, 0, 1 },
    { "open-of-finished-zone-is-refused",
      FINISHED, OPEN, -EINVAL, BLK_ZS_FULL, 0, 0, 1 },
    { "close-of-finished-zone-is-refused",
      FINISHED, CLOSE, -EINVAL, BLK_ZS_FULL, 0, 0, 1 },
    { "finish-of-finished-zone-succeeds-and-changes-nothing",
      FINISHED, FINISH, 0, BLK_ZS_FULL, 0, 0, 1 },
    { "reset-of-finished-zone-makes-it-empty",
      FINISHED, RESET, 0, BLK_ZS_EMPTY, 0, 0, 0 },
    { "finished-zone-is-full-after-power-cycle",
      FINISHED, POWER_CYCLE, 0, BLK_ZS_FULL, 0, 0, 1 },

    { "write-to-finished-zone-without-data-is-refused",
      FINISHED_EMPTY, WRITE, -EINVAL, BLK_ZS_FULL, 0, 0, 0 },
    { "write-of-all-of-finished-zone-without-data-is-refused",
      FINISHED_EMPTY, FILL, -EINVAL, BLK_ZS_FULL, 0, 0, 0 },
    { "append-to-finished-zone-without-data-is-refused",
      FINISHED_EMPTY, APPEND, -EINVAL, BLK_ZS_FULL, 0, 0, 0 },
    { "open-of-finished-zone-without-data-is-refused",
      FINISHED_EMPTY, OPEN, -EINVAL, BLK_ZS_FULL, 0, 0, 0 },
    { "close-of-finished-zone-without-data-is-refused",
      FINISHED_EMPTY, CLOSE, -EINVAL, BLK_ZS_FULL, 0, 0, 0 },
    { "finish-of-finished-zone-without-data-changes-nothing",
      FINISHED_EMPTY, FINISH, 0, BLK_ZS_FULL, 0, 0, 0 },
    { "reset-of-finished-zone-without-data-makes-it-empty",
      FINISHED_EMPTY, RESET, 0, BLK_ZS_EMPTY, 0, 0, 0 },
    { "finished-zone-without-data-is-full-after-power-cycle",
      FINISHED_EMPTY, POWER_CYCLE, 0, BLK_ZS_FULL, 0, 0, 0 },

    { "write-to-read-only-zone-is-refused",
      READ_ONLY, WRITE, -EINVAL, BLK_ZS_RDONLY, 0, 0, 1 },
    { "write-of-all-that-is-left-of-read-only-zone-is-refused",
      READ_ONLY, FILL, -EINVAL, BLK_ZS_RDONLY, 0, 0, 1 },
    { "append-to-read-only-zone-is-refused",
      READ_ONLY, APPEND, -EINVAL, BLK_ZS_RDONLY, 0, 0, 1 },
    { "open-of-read-only-zone-is-refused",
      READ_ONLY, OPEN, -EINVAL, BLK_ZS_RDONLY, 0, 0, 1 },
    { "close-of-read-only-zone-is-refused",
      READ_ONLY, CLOSE, -EINVAL, BLK_ZS_RDONLY, 0, 0, 1 },
    { "finish-of-read-only-zone-is-refused",
      READ_ONLY, FINISH, -EINVAL, BLK_ZS_RDONLY, 0, 0, 1 },
    { "reset-of-read-only-zone-is-refused",
      READ_ONLY, RESET, -EINVAL, BLK_ZS_RDONLY, 0, 0, 1 },
    { "read-only-zone-is-read-only-after-power-cycle",
      READ_ONLY, POWER_CYCLE, 0, BLK_ZS_RDONLY, 0, 0, 1 },

    { "write-to-offline-zone-is-refused",
      OFFLINE, WRITE, -EINVAL, BLK_ZS_OFFLINE, 0, 0, 1 },
    { "write-of-all-that-is-left-of-offline-zone-is-refused",
      OFFLINE, FILL, -EINVAL, BLK_ZS_OFFLINE, 0, 0, 1 },
    { "append-to-offline-zone-is-refused",
      OFFLINE, APPEND, -EINVAL, BLK_ZS_OFFLINE, 0, 0, 1 },
    { "open-of-offline-zone-is-refused",
      OFFLINE, OPEN, -EINVAL, BLK_ZS_OFFLINE, 0, 0, 1 },
    { "close-of-offline-zone-is-refused",
      OFFLINE, CLOSE, -EINVAL, BLK_ZS_OFFLINE, 0, 0, 1 },
    { "finish-of-offline-zone-is-refused",
      OFFLINE, FINISH, -EINVAL, BLK_ZS_OFFLINE, 0, 0, 1 },
    { "reset-of-offline-zone-is-refused",
      OFFLINE, RESET, -EINVAL, BLK_ZS_OFFLINE, 0, 0, 1 },
    { "offline-zone-is-offline-after-power-cycle",
      OFFLINE, POWER_CYCLE, 0, BLK_ZS_OFFLINE, 0, 0, 1 },

    { "write-to-conventional-zone-changes-nothing",
      CONVENTIONAL, WRITE, 0, BLK_ZS_NOT_WP, 0, 0, 0 },
    { "write-of-whole-conventional-zone-changes-nothing",
      CONVENTIONAL, FILL, 0, BLK_ZS_NOT_WP, 0, 0, 0 },
    { "append-to-conventional-zone-is-refused",
      CONVENTIONAL, APPEND, -EINVAL, BLK_ZS_NOT_WP, 0, 0, 0 },
    { "open-of-conventional-zone-is-refused",
      CONVENTIONAL, OPEN, -EINVAL, BLK_ZS_NOT_WP, 0, 0, 0 },
    { "close-of-conventional-zone-is-refused",
      CONVENTIONAL, CLOSE, -EINVAL, BLK_ZS_NOT_WP, 0, 0, 0 },
    { "finish-of-conventional-zone-is-refused",
      CONVENTIONAL, FINISH, -EINVAL, BLK_ZS_NOT_WP, 0, 0, 0 },
    { "reset-of-conventional-zone-is-refused",
      CONVENTIONAL, RESET, -EINVAL, BLK_ZS_NOT_WP, 0, 0, 0 },
    { "conventional-zone-is-conventional-after-power-cycle",
      CONVENTIONAL, POWER_CYCLE, 0, BLK_ZS_NOT_WP, 0, 0, 0 },
};

static void bring_to(ZoneTable *t, uint32_t zone, Start start)
{
    switch (start) {
    case EMPTY:
    case CONVENTIONAL:
        break;
    case IMPLICIT:
        g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
        break;
    case IMPLICIT_AT_START:
        put_failing(t, zone);
        break;
    case EXPLICIT:
        g_assert_cmpint(manage(t, BLK_ZO_OPEN, zone), ==, 0);
        g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
        break;
    case EXPLICIT_AT_START:
        g_assert_cmpint(manage(t, BLK_ZO_OPEN, zone), ==, 0);
        break;
    case CLOSED:
        put_and_close(t, zone);
        break;
    case FULL:
        g_assert_cmpint(put(t, zone, CAP), ==, 0);
        break;
    case FINISHED:
        g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
        g_assert_cmpint(manage(t, BLK_ZO_FINISH, zone), ==, 0);
        break;
    case FINISHED_EMPTY:
        g_assert_cmpint(manage(t, BLK_ZO_FINISH, zone), ==, 0);
        break;
    case READ_ONLY:
        load(t, zone, BLOCK, ZONE_READ_ONLY);
        break;
    case OFFLINE:
        load(t, zone, BLOCK, ZONE_OFFLINE);
        break;
    default:
        g_assert_not_reached();
    }
}

static const BlockZoneState state_of_start[NR_STARTS] = {
    [EMPTY] = BLK_ZS_EMPTY,
    [IMPLICIT] = BLK_ZS_IOPEN,
    [IMPLICIT_AT_START] = BLK_ZS_IOPEN,
    [EXPLICIT] = BLK_ZS_EOPEN,
    [EXPLICIT_AT_START] = BLK_ZS_EOPEN,
    [CLOSED] = BLK_ZS_CLOSED,
    [FULL] = BLK_ZS_FULL,
    [FINISHED] = BLK_ZS_FULL,
    [FINISHED_EMPTY] = BLK_ZS_FULL,
    [READ_ONLY] = BLK_ZS_RDONLY,
    [OFFLINE] = BLK_ZS_OFFLINE,
    [CONVENTIONAL] = BLK_ZS_NOT_WP,
};

static int perform(ZoneTable *t, uint32_t zone, Verb verb)
{
    uint64_t end = zone_table_start(t, zone) + zone_table_capacity(t, zone);

    switch (verb) {
    case WRITE:
        return zone_table_state(t, zone) == BLK_ZS_NOT_WP
            ? submit(t, zone, BLOCK) : put(t, zone, BLOCK);
    case FILL:
        return zone_table_state(t, zone) == BLK_ZS_NOT_WP
            ? submit(t, zone, ZONE)
            : put(t, zone, end - zone_table_wp(t, zone));
    case APPEND:
        return append(t, zone, BLOCK);
    case OPEN:
        return manage(t, BLK_ZO_OPEN, zone);
    case CLOSE:
        return manage(t, BLK_ZO_CLOSE, zone);
    case FINISH:
        return manage(t, BLK_ZO_FINISH, zone);
    case RESET:
        return manage(t, BLK_ZO_RESET, zone);
    default:
        g_assert_not_reached();
    }
}

static void test_cell(gconstpointer opaque)
{
    const Cell *c = opaque;
    g_autoptr(ZoneTable) t = with_conventional(1);
    uint32_t zone = c->start == CONVENTIONAL ? 0 : 2;
    BlockZoneDescriptor desc;
    Snapshot before, after;
    uint64_t start;

    bring_to(t, zone, c->start);
    assert_state(t, zone, state_of_start[c->start]);
    start = zone_table_start(t, zone);
    take_snapshot(t, &before);

    if (c->verb == POWER_CYCLE) {
        ZoneTable *next = power_cycle(t);

        zone_table_free(t);
        t = next;
    } else if (c->ret < 0) {
        assert_refused(t, perform(t, zone, c->verb), c->ret);
    } else {
        g_assert_cmpint(perform(t, zone, c->verb), ==, 0);
    }

    assert_state(t, zone, c->state);
    assert_counts(t, before.open + c->open, before.active + c->active);
    g_assert_cmpuint(zone_table_wp(t, zone), ==, start + c->wp * BLOCK);

    zone_table_describe(t, zone, &desc);
    g_assert_cmpuint(desc.start, ==, start);
    g_assert_cmpuint(desc.length, ==, ZONE);
    g_assert_cmphex(desc.state, ==, c->state);
    if (c->start == CONVENTIONAL) {
        g_assert_cmpint(desc.type, ==, BLK_ZT_CONV);
        g_assert_cmpuint(desc.cap, ==, ZONE);
    } else {
        g_assert_cmpint(desc.type, ==, BLK_ZT_SWR);
        g_assert_cmpuint(desc.cap, ==, CAP);
        g_assert_cmpuint(desc.wp, ==, c->state == BLK_ZS_FULL
                         ? start + ZONE : start + c->wp * BLOCK);
    }

    /* No other zone has changed. */
    take_snapshot(t, &after);
    after.open = before.open;
    after.active = before.active;
    after.zone[zone] = before.zone[zone];
    g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
}

static void test_cells_complete(void)
{
    for (Start start = 0; start < NR_STARTS; start++) {
        for (Verb verb = 0; verb < NR_VERBS; verb++) {
            int found = 0;

            for (int i = 0; i < ARRAY_SIZE(cells); i++) {
                found += cells[i].start == start && cells[i].verb == verb;
            }
            /* A zone filled to its capacity cannot be filled. */
            g_assert_cmpint(found, ==, !(start == FULL && verb == FILL));
        }
    }
}

/*
 * Limits
 */

static const Verb activating_verbs[] = { WRITE, APPEND, OPEN };

static BlockZoneState state_after(Verb verb)
{
    return verb == OPEN ? BLK_ZS_EOPEN : BLK_ZS_IOPEN;
}

/* Two open slots, both taken explicitly; zone 2 is CLOSED. */
static void test_open_limit(void)
{
    for (int i = 0; i < ARRAY_SIZE(activating_verbs); i++) {
        Verb verb = activating_verbs[i];
        g_autoptr(ZoneTable) t = limited(2, 0);

        put_and_close(t, 2);
        g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 0, 1), ==, 0);
        assert_refused(t, perform(t, 2, verb), -ETOOMANYREFS);
        assert_refused(t, perform(t, 3, verb), -ETOOMANYREFS);

        /* One slot is given back: now there is room for exactly one. */
        g_assert_cmpint(manage(t, BLK_ZO_CLOSE, 1), ==, 0);
        g_assert_cmpint(perform(t, 3, verb), ==, 0);
        assert_state(t, 3, state_after(verb));
        assert_counts(t, 2, 3);
    }
}

/* All active slots taken: by a closed, an implicit, an explicit zone. */
static void test_active_limit(void)
{
    for (int i = 0; i < ARRAY_SIZE(activating_verbs); i++) {
        Verb verb = activating_verbs[i];
        g_autoptr(ZoneTable) t = limited(0, 3);

        put_and_close(t, 0);
        g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
        g_assert_cmpint(manage(t, BLK_ZO_OPEN, 2), ==, 0);
        assert_refused(t, perform(t, 3, verb), -EOVERFLOW);

        /* Closing frees none, ... */
        g_assert_cmpint(manage(t, BLK_ZO_CLOSE, 1), ==, 0);
        assert_refused(t, perform(t, 3, verb), -EOVERFLOW);
        /* ... but active zones need none, and finishing frees one. */
        g_assert_cmpint(perform(t, 0, verb), ==, 0);
        g_assert_cmpint(manage(t, BLK_ZO_FINISH, 1), ==, 0);
        g_assert_cmpint(perform(t, 3, verb), ==, 0);
        assert_state(t, 3, state_after(verb));
        assert_counts(t, 3, 3);
    }
}

static void test_both_limits(void)
{
    for (int i = 0; i < ARRAY_SIZE(activating_verbs); i++) {
        g_autoptr(ZoneTable) t = limited(2, 2);

        g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 0, 1), ==, 0);
        assert_refused(t, perform(t, 2, activating_verbs[i]), -EOVERFLOW);
    }
}

/*
 * At the active limit, an EMPTY zone is refused although there is an implicit
 * zone that could be closed: that would make room among the open zones only.
 */
static void test_active_limit_closes_none(void)
{
    for (int i = 0; i < ARRAY_SIZE(activating_verbs); i++) {
        g_autoptr(ZoneTable) t = limited(1, 2);

        g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
        g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
        assert_state(t, 0, BLK_ZS_CLOSED);
        assert_refused(t, perform(t, 2, activating_verbs[i]), -EOVERFLOW);
        assert_state(t, 1, BLK_ZS_IOPEN);
    }
}

static void test_closed_zone_at_active_limit(void)
{
    for (int i = 0; i < ARRAY_SIZE(activating_verbs); i++) {
        Verb verb = activating_verbs[i];
        g_autoptr(ZoneTable) t = limited(2, 3);

        put_and_close(t, 0);
        g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
        g_assert_cmpint(put(t, 2, BLOCK), ==, 0);
        assert_counts(t, 2, 3);

        g_assert_cmpint(perform(t, 0, verb), ==, 0);
        assert_state(t, 0, state_after(verb));
        assert_state(t, 1, BLK_ZS_CLOSED);
        assert_state(t, 2, BLK_ZS_IOPEN);
        assert_counts(t, 2, 3);
    }
}

static void test_closed_zone_at_both_limits_without_victim(void)
{
    for (int i = 0; i < ARRAY_SIZE(activating_verbs); i++) {
        g_autoptr(ZoneTable) t = limited(2, 3);

        put_and_close(t, 0);
        g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 1, 2), ==, 0);
        /* It is active already, so only the open limit is in its way. */
        assert_refused(t, perform(t, 0, activating_verbs[i]), -ETOOMANYREFS);
    }
}

static void test_open_zones_need_no_room(void)
{
    g_autoptr(ZoneTable) t = limited(2, 2);

    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, 1), ==, 0);
    for (int i = 0; i < ARRAY_SIZE(activating_verbs); i++) {
        g_assert_cmpint(perform(t, 0, activating_verbs[i]), ==, 0);
        g_assert_cmpint(perform(t, 1, activating_verbs[i]), ==, 0);
        assert_counts(t, 2, 2);
    }
    assert_state(t, 0, BLK_ZS_EOPEN);
    assert_state(t, 1, BLK_ZS_EOPEN);
}

static void test_finish_needs_no_room(void)
{
    g_autoptr(ZoneTable) t = limited(2, 3);

    put_and_close(t, 0);
    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 1, 2), ==, 0);
    g_assert_cmpint(manage(t, BLK_ZO_FINISH, 3), ==, 0);
    assert_state(t, 3, BLK_ZS_FULL);
    assert_counts(t, 2, 3);
    g_assert_cmpint(manage(t, BLK_ZO_FINISH, 0), ==, 0);
    assert_state(t, 0, BLK_ZS_FULL);
    assert_counts(t, 2, 2);
}

static void test_limit_is_exact(void)
{
    for (uint32_t limit = 1; limit < NR; limit++) {
        g_autoptr(ZoneTable) open = limited(limit, 0);
        g_autoptr(ZoneTable) active = limited(0, limit);

        for (uint32_t i = 0; i < limit; i++) {
            g_assert_cmpint(manage(open, BLK_ZO_OPEN, i), ==, 0);
            put_and_close(active, i);
        }
        assert_counts(open, limit, limit);
        assert_counts(active, 0, limit);
        assert_refused(open, manage(open, BLK_ZO_OPEN, limit), -ETOOMANYREFS);
        assert_refused(active, put(active, limit, BLOCK), -EOVERFLOW);
    }
}

static void test_zero_is_no_limit(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    for (uint32_t i = 0; i < NR; i++) {
        g_assert_cmpint(i % 2 ? put(t, i, BLOCK) : manage(t, BLK_ZO_OPEN, i),
                        ==, 0);
    }
    assert_counts(t, NR, NR);
}

static void test_slots_come_back(void)
{
    static const Verb freeing_verbs[] = { FILL, FINISH, RESET };
    static const Start active_starts[] = {
        IMPLICIT, IMPLICIT_AT_START, EXPLICIT, EXPLICIT_AT_START, CLOSED,
    };

    for (int i = 0; i < ARRAY_SIZE(freeing_verbs); i++) {
        for (int j = 0; j < ARRAY_SIZE(active_starts); j++) {
            g_autoptr(ZoneTable) t = limited(1, 1);

            bring_to(t, 0, active_starts[j]);
            assert_refused(t, manage(t, BLK_ZO_OPEN, 1), -EOVERFLOW);
            g_assert_cmpint(perform(t, 0, freeing_verbs[i]), ==, 0);
            g_assert_cmpint(manage(t, BLK_ZO_OPEN, 1), ==, 0);
            assert_counts(t, 1, 1);
        }
    }
}

/*
 * The victim
 */

/* Zones 0 to 2 are implicitly open, written in this order. */
static ZoneTable *three_implicit(void)
{
    ZoneTable *t = limited(3, 0);

    for (uint32_t i = 0; i < 3; i++) {
        g_assert_cmpint(put(t, i, BLOCK), ==, 0);
    }
    return t;
}

/* The zone that closes when zone @opener is opened. */
static uint32_t victim(ZoneTable *t, uint32_t opener)
{
    Snapshot before, after;
    uint32_t found = UINT32_MAX;

    take_snapshot(t, &before);
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, opener), ==, 0);
    take_snapshot(t, &after);
    for (uint32_t i = 0; i < NR; i++) {
        if (before.zone[i].state != after.zone[i].state && i != opener) {
            g_assert_cmphex(before.zone[i].state, ==, BLK_ZS_IOPEN);
            g_assert_cmphex(after.zone[i].state, ==, BLK_ZS_CLOSED);
            g_assert_cmpuint(found, ==, UINT32_MAX);
            found = i;
        }
    }
    g_assert_true(zone_table_is_consistent(t));
    return found;
}

static void test_victim_is_least_recently_written(void)
{
    g_autoptr(ZoneTable) t = three_implicit();

    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    g_assert_cmpint(append(t, 1, BLOCK), ==, 0);
    /* written in the order 2, 0, 1 */
    g_assert_cmpuint(victim(t, 3), ==, 2);
    g_assert_cmpuint(victim(t, 4), ==, 0);
    g_assert_cmpuint(victim(t, 5), ==, 1);
    assert_refused(t, manage(t, BLK_ZO_OPEN, 6), -ETOOMANYREFS);
}

static void test_victim_of_write(void)
{
    g_autoptr(ZoneTable) t = three_implicit();

    for (uint32_t i = 3; i < NR; i++) {
        g_assert_cmpint(i % 2 ? put(t, i, BLOCK) : append(t, i, BLOCK), ==, 0);
        assert_state(t, i - 3, BLK_ZS_CLOSED);
        assert_state(t, i - 2, BLK_ZS_IOPEN);
        assert_counts(t, 3, i + 1);
    }
}

static void test_victim_is_never_explicit(void)
{
    g_autoptr(ZoneTable) t = three_implicit();

    g_assert_cmpint(manage(t, BLK_ZO_OPEN, 0), ==, 0);
    g_assert_cmpuint(victim(t, 3), ==, 1);
    assert_state(t, 0, BLK_ZS_EOPEN);
}

static void test_reopened_zone_is_most_recent(void)
{
    g_autoptr(ZoneTable) t = three_implicit();

    g_assert_cmpint(manage(t, BLK_ZO_CLOSE, 0), ==, 0);
    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    g_assert_cmpuint(victim(t, 3), ==, 1);
    g_assert_cmpuint(victim(t, 4), ==, 2);
    g_assert_cmpuint(victim(t, 5), ==, 0);
}

static void test_refused_write_does_not_refresh(void)
{
    g_autoptr(ZoneTable) t = three_implicit();
    uint64_t wp = zone_table_wp(t, 0);

    assert_refused(t, zone_table_write(t, wp + BLOCK, BLOCK, wp), -ERANGE);
    assert_refused(t, zone_table_write(t, wp, CAP, wp), -EINVAL);
    assert_refused(t, append(t, 0, CAP), -EINVAL);
    g_assert_cmpuint(victim(t, 3), ==, 0);
}

/* Its first write failed, so the victim has no data and gives up both slots. */
static void test_victim_at_start(void)
{
    g_autoptr(ZoneTable) t = limited(1, 0);

    put_failing(t, 0);
    assert_state(t, 0, BLK_ZS_IOPEN);
    assert_counts(t, 1, 1);
    g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
    assert_state(t, 0, BLK_ZS_EMPTY);
    assert_counts(t, 1, 1);
}

static void test_refused_request_closes_no_victim(void)
{
    g_autoptr(ZoneTable) t = limited(1, 0);
    uint64_t wp;

    put_and_close(t, 1);
    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    wp = zone_table_wp(t, 1);
    assert_refused(t, zone_table_write(t, wp + 512, BLOCK, wp), -ERANGE);
    assert_refused(t, zone_table_write(t, wp, CAP, wp), -EINVAL);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 1, 2), -ETOOMANYREFS);
    assert_state(t, 0, BLK_ZS_IOPEN);
}

/*
 * Writes in flight
 */

static void test_reserved_pointer_is_what_counts(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    g_assert_cmpint(zone_table_write(t, ZONE, BLOCK, ZONE), ==, 0);
    assert_refused(t, zone_table_write(t, ZONE, BLOCK, ZONE + BLOCK), -ERANGE);
    g_assert_cmpint(zone_table_write(t, ZONE + BLOCK, BLOCK, ZONE + BLOCK),
                    ==, 0);
    g_assert_cmpuint(zone_table_wp(t, 1), ==, ZONE);

    zone_table_acknowledge(t, 1, ZONE + BLOCK, true);
    g_assert_cmpuint(zone_table_wp(t, 1), ==, ZONE + BLOCK);
    zone_table_acknowledge(t, 1, ZONE + 2 * BLOCK, false);
    g_assert_cmpuint(zone_table_wp(t, 1), ==, ZONE + 2 * BLOCK);
    assert_counts(t, 1, 1);
}

static void test_full_at_acknowledgement(void)
{
    g_autoptr(ZoneTable) t = limited(1, 1);

    g_assert_cmpint(submit(t, 0, CAP - BLOCK), ==, 0);
    g_assert_cmpint(zone_table_write(t, CAP - BLOCK, BLOCK, CAP - BLOCK),
                    ==, 0);
    assert_state(t, 0, BLK_ZS_IOPEN);
    assert_refused(t, submit(t, 1, BLOCK), -EOVERFLOW);
    zone_table_acknowledge(t, 0, CAP - BLOCK, true);
    assert_state(t, 0, BLK_ZS_IOPEN);
    assert_refused(t, submit(t, 1, BLOCK), -EOVERFLOW);
    zone_table_acknowledge(t, 0, CAP, false);
    assert_state(t, 0, BLK_ZS_FULL);
    g_assert_cmpint(submit(t, 1, BLOCK), ==, 0);
    assert_counts(t, 1, 1);
}

/* Nothing fits any more, although the zone is not FULL yet. */
static void test_reserved_to_capacity(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    g_assert_cmpint(submit(t, 1, CAP), ==, 0);
    assert_refused(t, zone_table_write(t, ZONE + CAP, 512, ZONE + CAP),
                   -EINVAL);
    assert_refused(t, zone_table_append(t, ZONE, 512, ZONE + CAP), -EINVAL);
    assert_refused(t, zone_table_write(t, ZONE, 512, ZONE + CAP), -ERANGE);
}

static void test_close_with_write_in_flight(void)
{
    static const Start starts[] = { EMPTY, IMPLICIT, EXPLICIT, CLOSED };

    for (int i = 0; i < ARRAY_SIZE(starts); i++) {
        g_autoptr(ZoneTable) t = limited(1, 1);
        uint64_t wp;

        bring_to(t, 0, starts[i]);
        wp = zone_table_wp(t, 0);
        g_assert_cmpint(submit(t, 0, BLOCK), ==, 0);
        g_assert_cmpint(manage(t, BLK_ZO_CLOSE, 0), ==, 0);
        /* Data is coming, so it stays active even with its WP at the start. */
        assert_state(t, 0, BLK_ZS_CLOSED);
        assert_counts(t, 0, 1);
        zone_table_acknowledge(t, 0, wp + BLOCK, false);
        assert_state(t, 0, BLK_ZS_CLOSED);
        assert_counts(t, 0, 1);
    }
}

static void test_closed_zone_fills_up(void)
{
    g_autoptr(ZoneTable) t = limited(1, 2);

    g_assert_cmpint(submit(t, 0, CAP), ==, 0);
    g_assert_cmpint(submit(t, 1, BLOCK), ==, 0);
    assert_state(t, 0, BLK_ZS_CLOSED);
    assert_counts(t, 1, 2);
    zone_table_acknowledge(t, 0, CAP, false);
    assert_state(t, 0, BLK_ZS_FULL);
    assert_counts(t, 1, 1);
}

static void test_failed_write_of_closed_zone(void)
{
    g_autoptr(ZoneTable) t = limited(1, 2);

    /* The victim's first write fails: EMPTY, and its slot is free. */
    g_assert_cmpint(submit(t, 0, BLOCK), ==, 0);
    g_assert_cmpint(submit(t, 1, BLOCK), ==, 0);
    assert_state(t, 0, BLK_ZS_CLOSED);
    assert_refused(t, submit(t, 2, BLOCK), -EOVERFLOW);
    zone_table_rewind(t, 0);
    assert_state(t, 0, BLK_ZS_EMPTY);
    assert_counts(t, 1, 1);

    /* One that fails after others were acknowledged: CLOSED, it has data. */
    zone_table_acknowledge(t, 1, ZONE + BLOCK, true);
    g_assert_cmpint(submit(t, 2, BLOCK), ==, 0);
    assert_state(t, 1, BLK_ZS_CLOSED);
    zone_table_rewind(t, 1);
    assert_state(t, 1, BLK_ZS_CLOSED);
    g_assert_cmpuint(zone_table_wp(t, 1), ==, ZONE + BLOCK);
    assert_counts(t, 1, 2);
}

static void test_failed_write_of_open_zone(void)
{
    static const Start starts[] = {
        EMPTY, IMPLICIT, EXPLICIT, EXPLICIT_AT_START, CLOSED
    };

    for (int i = 0; i < ARRAY_SIZE(starts); i++) {
        g_autoptr(ZoneTable) t = limited(0, 0);
        BlockZoneState state;
        uint64_t wp;

        bring_to(t, 0, starts[i]);
        wp = zone_table_wp(t, 0);
        g_assert_cmpint(submit(t, 0, BLOCK), ==, 0);
        state = zone_table_state(t, 0);
        zone_table_rewind(t, 0);
        assert_state(t, 0, state);
        assert_counts(t, 1, 1);
        /* The retry finds everything in its place. */
        g_assert_cmpuint(zone_table_wp(t, 0), ==, wp);
        g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    }
}

/*
 * The order of checks: of two broken rules, the first is reported.
 */

static void test_order_of_checks(void)
{
    ZoneGeometry geo = geometry(NR * ZONE, ZONE, CAP);
    g_autoptr(ZoneTable) t = NULL;
    const uint64_t z4 = 4 * ZONE, z5 = 5 * ZONE, z6 = 6 * ZONE;

    geo.nr_conventional = 1;
    geo.max_open = 1;
    geo.max_active = 2;
    geo.max_append_bytes = 2 * BLOCK;
    t = new_table(&geo);
    load(t, 1, BLOCK, ZONE_READ_ONLY);
    load(t, 2, BLOCK, ZONE_OFFLINE);
    g_assert_cmpint(manage(t, BLK_ZO_FINISH, 3), ==, 0);
    put_and_close(t, 4);
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, 5), ==, 0);
    assert_counts(t, 1, 2);

    /* range before WP */
    assert_refused(t, zone_table_write(t, z5 - BLOCK, 2 * BLOCK, z4 + BLOCK),
                   -EINVAL);
    assert_refused(t, zone_table_write(t, NR * ZONE - 512, 1024,
                                       (NR - 1) * ZONE), -EINVAL);
    /* alignment before WP */
    assert_refused(t, zone_table_write(t, z5 + 1, 512, z5), -EINVAL);
    assert_refused(t, zone_table_write(t, z5 + 512, 511, z5), -EINVAL);
    /* READ-ONLY, OFFLINE, FULL before WP */
    assert_refused(t, zone_table_write(t, ZONE, 512, ZONE + BLOCK), -EINVAL);
    assert_refused(t, zone_table_write(t, 2 * ZONE, 512, 2 * ZONE + BLOCK),
                   -EINVAL);
    assert_refused(t, zone_table_write(t, 3 * ZONE + 512, 512, 3 * ZONE),
                   -EINVAL);
    /* WP before capacity */
    assert_refused(t, zone_table_write(t, z5 + BLOCK, CAP, z5), -ERANGE);
    assert_refused(t, zone_table_write(t, z5 + CAP, 512, z5), -ERANGE);
    /* WP before limits: zone 6 needs both slots, zone 4 an open one. */
    assert_refused(t, zone_table_write(t, z6 + 512, 512, z6), -ERANGE);
    assert_refused(t, zone_table_write(t, z4, 512, z4 + BLOCK), -ERANGE);
    /* capacity before limits */
    assert_refused(t, zone_table_write(t, z6, CAP + 512, z6), -EINVAL);
    assert_refused(t, zone_table_write(t, z4 + BLOCK, CAP, z4 + BLOCK),
                   -EINVAL);
    assert_refused(t, zone_table_append(t, z6, 3 * BLOCK, z6), -EINVAL);
    assert_refused(t, zone_table_append(t, z6 + 512, BLOCK, z6), -EINVAL);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 3, 6), -EINVAL);
    assert_refused(t, manage_bytes(t, BLK_ZO_OPEN, z6, ZONE - 512), -EINVAL);
    /* active limit before open limit */
    assert_refused(t, zone_table_write(t, z6, 512, z6), -EOVERFLOW);
    assert_refused(t, zone_table_append(t, z6, 512, z6), -EOVERFLOW);
    assert_refused(t, manage(t, BLK_ZO_OPEN, 6), -EOVERFLOW);
    assert_refused(t, zone_table_write(t, z4 + BLOCK, 512, z4 + BLOCK),
                   -ETOOMANYREFS);
}

/*
 * Bounds of writes and appends
 */

static void test_write_bounds(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);
    const uint64_t disk = NR * ZONE;
    const uint64_t last = disk - ZONE;

    assert_refused(t, zone_table_write(t, disk, 512, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, disk + ZONE, 512, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, last, ZONE + 512, last), -EINVAL);
    assert_refused(t, zone_table_write(t, last, UINT64_MAX - 511, last),
                   -EINVAL);
    assert_refused(t, zone_table_write(t, last, -last, last), -EINVAL);
    assert_refused(t, zone_table_write(t, UINT64_MAX - 511, 512, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, UINT64_MAX - 511, 1024, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, 0, UINT64_MAX - 511, 0), -EINVAL);
    /* two zones at once, even where the first has room to its end */
    assert_refused(t, zone_table_write(t, 0, 2 * ZONE, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, 0, ZONE, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, 0, CAP + 512, 0), -EINVAL);
    g_assert_cmpint(put(t, 0, CAP), ==, 0);
}

static void test_write_that_spans_zones_without_gap(void)
{
    ZoneGeometry geo = geometry(NR * ZONE, ZONE, ZONE);
    g_autoptr(ZoneTable) t = new_table(&geo);

    g_assert_cmpint(put(t, 0, ZONE - 512), ==, 0);
    assert_refused(t, submit(t, 0, 1024), -EINVAL);
    assert_refused(t, zone_table_write(t, 0, 2 * ZONE, ZONE - 512), -EINVAL);
    g_assert_cmpint(put(t, 0, 512), ==, 0);
    assert_state(t, 0, BLK_ZS_FULL);
    assert_state(t, 1, BLK_ZS_EMPTY);
}

static void test_append_bounds(void)
{
    ZoneGeometry geo = geometry(NR * ZONE, ZONE, CAP);
    g_autoptr(ZoneTable) t = NULL;
    const uint64_t disk = NR * ZONE;
    const uint64_t last = disk - ZONE;

    geo.max_append_bytes = 5 * 512;
    t = new_table(&geo);

    /* only at a zone's start */
    assert_refused(t, zone_table_append(t, 512, 512, 0), -EINVAL);
    assert_refused(t, zone_table_append(t, 1, 512, 0), -EINVAL);
    assert_refused(t, zone_table_append(t, ZONE - 512, 512, 0), -EINVAL);
    assert_refused(t, zone_table_append(t, disk, 512, 0), -EINVAL);
    assert_refused(t, zone_table_append(t, disk + ZONE, 512, 0), -EINVAL);
    assert_refused(t, zone_table_append(t, -(uint64_t)ZONE, 512, 0), -EINVAL);
    /* the length */
    assert_refused(t, append(t, 0, 6 * 512), -EINVAL);
    assert_refused(t, append(t, 0, 511), -EINVAL);
    assert_refused(t, append(t, NR - 1, UINT64_MAX - 511), -EINVAL);
    assert_refused(t, append(t, NR - 1, -last), -EINVAL);
    g_assert_cmpint(append(t, 0, 5 * 512), ==, 0);
    /* the room that is left: 3 sectors */
    g_assert_cmpint(put(t, 1, CAP - 3 * 512), ==, 0);
    assert_refused(t, append(t, 1, 4 * 512), -EINVAL);
    g_assert_cmpint(append(t, 1, 3 * 512), ==, 0);
    assert_state(t, 1, BLK_ZS_FULL);
}

static void test_every_capacity_is_exact(void)
{
    static const uint64_t capacities[] = {
        512, 1024, 1536, BLOCK - 512, BLOCK, BLOCK + 512, ZONE / 2 - 512,
        ZONE / 2, ZONE / 2 + 512, CAP, ZONE - 1024, ZONE - 512, ZONE,
    };

    for (int i = 0; i < ARRAY_SIZE(capacities); i++) {
        uint64_t cap = capacities[i];
        ZoneGeometry geo = geometry(NR * ZONE, ZONE, cap);
        g_autoptr(ZoneTable) t = new_table(&geo);

        g_assert_cmpuint(zone_table_capacity(t, 1), ==, cap);
        for (uint64_t wp = 0; wp < cap; wp += 512) {
            g_assert_cmphex(zone_table_state(t, 1), ==,
                            wp ? BLK_ZS_IOPEN : BLK_ZS_EMPTY);
            assert_refused(t, submit(t, 1, cap - wp + 512), -EINVAL);
            g_assert_cmpint(put(t, 1, 512), ==, 0);
        }
        assert_state(t, 1, BLK_ZS_FULL);
        if (cap < ZONE) {
            assert_refused(t, submit(t, 1, 512), -EINVAL);
        }
        g_assert_cmpint(put(t, 2, cap), ==, 0);
        assert_state(t, 2, BLK_ZS_FULL);
        assert_counts(t, 0, 0);
    }
}

/*
 * Ranges
 */

static const BlockZoneOp range_ops[] = {
    BLK_ZO_OPEN, BLK_ZO_CLOSE, BLK_ZO_FINISH, BLK_ZO_RESET
};

static void test_range_bounds(void)
{
    ZoneGeometry geo = geometry(NR * ZONE + ZONE / 2, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);
    const uint64_t disk = geo.disk_size;

    /* All ops but an open of EMPTY zones are valid for EXPLICIT ones. */
    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 0, NR), ==, 0);
    for (int i = 0; i < ARRAY_SIZE(range_ops); i++) {
        BlockZoneOp op = range_ops[i];

        assert_refused(t, manage_bytes(t, op, 0, 0), -EINVAL);
        assert_refused(t, manage_bytes(t, op, disk, 0), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 512, ZONE), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 512, ZONE - 512), -EINVAL);
        assert_refused(t, manage_bytes(t, op, ZONE / 2, ZONE / 2), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 0, ZONE - 512), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 0, ZONE + 512), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 0, CAP), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 0, disk - 512), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 0, disk + 512), -EINVAL);
        assert_refused(t, manage_bytes(t, op, 0, disk + ZONE / 2), -EINVAL);
        assert_refused(t, manage_bytes(t, op, NR * ZONE, ZONE), -EINVAL);
        assert_refused(t, manage_bytes(t, op, (NR + 1) * ZONE, ZONE), -EINVAL);
        assert_refused(t, manage_bytes(t, op, NR * ZONE, 512), -EINVAL);
        assert_refused(t, manage_bytes(t, op, ZONE, -(uint64_t)ZONE),
                       -EINVAL);
        assert_refused(t, manage_bytes(t, op, ZONE, UINT64_MAX - ZONE + 1),
                       -EINVAL);
        assert_refused(t, manage_bytes(t, op, -(uint64_t)ZONE, ZONE), -EINVAL);
        assert_refused(t, manage_bytes(t, op, -(uint64_t)ZONE, 2 * ZONE),
                       -EINVAL);
    }
}

static void test_range_takes_its_zones_only(void)
{
    static const BlockZoneState expected[] = {
        BLK_ZS_EOPEN, BLK_ZS_CLOSED, BLK_ZS_FULL, BLK_ZS_EMPTY
    };

    for (int i = 0; i < ARRAY_SIZE(range_ops); i++) {
        g_autoptr(ZoneTable) t = limited(0, 0);

        for (uint32_t zone = 0; zone < NR; zone++) {
            g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
        }
        g_assert_cmpint(manage_range(t, range_ops[i], 3, 6), ==, 0);
        for (uint32_t zone = 0; zone < NR; zone++) {
            assert_state(t, zone, zone >= 3 && zone <= 6
                         ? expected[i] : BLK_ZS_IOPEN);
        }
        g_assert_true(zone_table_is_consistent(t));
    }
}

/* Whichever zone of the range is in its way, no other zone changes. */
static void test_range_is_checked_first(void)
{
    for (int i = 0; i < ARRAY_SIZE(range_ops); i++) {
        for (uint32_t bad = 2; bad < NR; bad++) {
            g_autoptr(ZoneTable) t = with_conventional(2);

            load(t, bad, BLOCK, bad % 2 ? ZONE_READ_ONLY : ZONE_OFFLINE);
            for (uint32_t zone = 2; zone < NR; zone++) {
                if (zone != bad) {
                    g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
                }
            }
            assert_refused(t, manage_range(t, range_ops[i], 2, NR - 1),
                           -EINVAL);
        }
    }
}

static void test_range_with_conventional(void)
{
    for (int i = 0; i < ARRAY_SIZE(range_ops); i++) {
        g_autoptr(ZoneTable) t = with_conventional(2);

        for (uint32_t zone = 2; zone < NR; zone++) {
            g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
        }
        assert_refused(t, manage_range(t, range_ops[i], 1, NR - 1), -EINVAL);
        if (range_ops[i] != BLK_ZO_RESET) {
            assert_refused(t, manage_range(t, range_ops[i], 0, NR - 1),
                           -EINVAL);
        }
    }
}

static void test_range_open_counts_every_zone(void)
{
    g_autoptr(ZoneTable) t = limited(4, 6);

    /* Zones 0 (explicit) and 1 (closed) are active. */
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, 0), ==, 0);
    put_and_close(t, 1);
    /* 2 + 5 active; 1 + 4 open */
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 2, 6), -EOVERFLOW);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 2, 5), -ETOOMANYREFS);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 1, 4), -ETOOMANYREFS);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 0, 4), -ETOOMANYREFS);
    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 0, 3), ==, 0);
    assert_counts(t, 4, 4);
}

/*
 * Implicit zones of the range keep their slots, whatever their age; those
 * outside make room, the least recently written first.
 */
static void test_range_open_victims(void)
{
    g_autoptr(ZoneTable) t = limited(5, 0);
    static const uint32_t written[] = { 4, 7, 2, 8, 6 };

    for (int i = 0; i < ARRAY_SIZE(written); i++) {
        g_assert_cmpint(put(t, written[i], BLOCK), ==, 0);
    }
    /* 2 and 4 are in the range: 3 and 5 need room, 7 and 8 make it. */
    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 2, 5), ==, 0);
    for (uint32_t zone = 2; zone <= 5; zone++) {
        assert_state(t, zone, BLK_ZS_EOPEN);
    }
    assert_state(t, 6, BLK_ZS_IOPEN);
    assert_state(t, 7, BLK_ZS_CLOSED);
    assert_state(t, 8, BLK_ZS_CLOSED);
    assert_counts(t, 5, 7);
}

static void test_range_open_of_open_zones(void)
{
    g_autoptr(ZoneTable) t = limited(3, 3);

    for (uint32_t zone = 3; zone < 6; zone++) {
        g_assert_cmpint(zone == 4 ? manage(t, BLK_ZO_OPEN, zone)
                                  : put(t, zone, BLOCK), ==, 0);
    }
    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 3, 5), ==, 0);
    assert_counts(t, 3, 3);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 3, 6), -EOVERFLOW);
}

/* One explicit and two implicit zones outside: room for three, not for four */
static void test_range_open_with_too_few_victims(void)
{
    g_autoptr(ZoneTable) t = limited(4, 0);

    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, 2), ==, 0);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 4, 7), -ETOOMANYREFS);
    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 4, 6), ==, 0);
    assert_state(t, 0, BLK_ZS_CLOSED);
    assert_state(t, 1, BLK_ZS_CLOSED);
    assert_counts(t, 4, 6);

    /* An implicit zone of the range itself makes no room. */
    g_assert_cmpint(manage(t, BLK_ZO_CLOSE, 4), ==, 0);
    g_assert_cmpint(put(t, 8, BLOCK), ==, 0);
    assert_refused(t, manage_range(t, BLK_ZO_OPEN, 8, 9), -ETOOMANYREFS);
}

static void test_check_changes_nothing(void)
{
    g_autoptr(ZoneTable) t = limited(2, 0);
    ZoneRange range;

    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
    for (int i = 0; i < ARRAY_SIZE(range_ops); i++) {
        assert_refused(t, zone_table_check(t, range_ops[i], 0, 2 * ZONE,
                                           &range), 0);
        g_assert_cmpuint(range.first, ==, 0);
        g_assert_cmpuint(range.count, ==, 2);
    }
    assert_refused(t, zone_table_check(t, BLK_ZO_OPEN, 3 * ZONE, 2 * ZONE,
                                       &range), 0);
    g_assert_cmpuint(range.first, ==, 3);
    g_assert_cmpuint(range.count, ==, 2);
}

/*
 * Reset of all zones
 */

static void check_reset_all(BlockZoneOp op)
{
    static const Start starts[NR] = {
        CONVENTIONAL, CONVENTIONAL, EMPTY, IMPLICIT, IMPLICIT_AT_START,
        EXPLICIT, EXPLICIT_AT_START, CLOSED, FULL, FINISHED, READ_ONLY, OFFLINE
    };
    g_autoptr(ZoneTable) t = with_conventional(2);

    for (uint32_t i = 0; i < NR; i++) {
        bring_to(t, i, starts[i]);
    }
    g_assert_cmpint(manage_bytes(t, op, 0, NR * ZONE), ==, 0);
    for (uint32_t i = 0; i < NR; i++) {
        if (starts[i] == READ_ONLY || starts[i] == OFFLINE) {
            assert_state(t, i, state_of_start[starts[i]]);
            g_assert_cmpuint(zone_table_wp(t, i), ==, i * ZONE + BLOCK);
        } else {
            assert_state(t, i, i < 2 ? BLK_ZS_NOT_WP : BLK_ZS_EMPTY);
            g_assert_cmpuint(zone_table_wp(t, i), ==, i * ZONE);
        }
    }
    assert_counts(t, 0, 0);
}

static void test_reset_of_whole_disk(void)
{
    check_reset_all(BLK_ZO_RESET);
}

static void test_reset_all(void)
{
    check_reset_all(BLK_ZO_RESET_ALL);
}

static void test_reset_all_takes_whole_disk_only(void)
{
    g_autoptr(ZoneTable) t = with_conventional(1);
    const uint64_t disk = NR * ZONE;

    g_assert_cmpint(put(t, 3, BLOCK), ==, 0);
    assert_refused(t, manage_bytes(t, BLK_ZO_RESET_ALL, 0, 0), -EINVAL);
    assert_refused(t, manage_bytes(t, BLK_ZO_RESET_ALL, 3 * ZONE, ZONE),
                   -EINVAL);
    assert_refused(t, manage_bytes(t, BLK_ZO_RESET_ALL, ZONE, disk - ZONE),
                   -EINVAL);
    assert_refused(t, manage_bytes(t, BLK_ZO_RESET_ALL, 0, disk + ZONE),
                   -EINVAL);
}

/* Reset of the one zone, and reset of all zones that there are */
static void test_one_zone_disk(void)
{
    static const unsigned attributes[] = { ZONE_READ_ONLY, ZONE_OFFLINE };
    ZoneGeometry geo = geometry(ZONE, ZONE, CAP);

    for (int i = 0; i < ARRAY_SIZE(attributes); i++) {
        g_autoptr(ZoneTable) t = new_table(&geo);

        load(t, 0, BLOCK, attributes[i]);
        assert_refused(t, manage_bytes(t, BLK_ZO_RESET, 0, ZONE), -EINVAL);
        /* succeeds, and changes nothing either */
        assert_refused(t, manage_bytes(t, BLK_ZO_RESET_ALL, 0, ZONE), 0);
    }
    for (Start start = 0; start < READ_ONLY; start++) {
        g_autoptr(ZoneTable) one = new_table(&geo);
        g_autoptr(ZoneTable) all = new_table(&geo);

        bring_to(one, 0, start);
        bring_to(all, 0, start);
        g_assert_cmpint(manage_bytes(one, BLK_ZO_RESET, 0, ZONE), ==, 0);
        g_assert_cmpint(manage_bytes(all, BLK_ZO_RESET_ALL, 0, ZONE), ==, 0);
        assert_state(one, 0, BLK_ZS_EMPTY);
        assert_state(all, 0, BLK_ZS_EMPTY);
    }
}

/* The other operations skip no zone, also not on the whole disk. */
static void test_whole_disk_skips_for_reset_only(void)
{
    static const BlockZoneOp ops[] = {
        BLK_ZO_OPEN, BLK_ZO_CLOSE, BLK_ZO_FINISH
    };

    for (int i = 0; i < ARRAY_SIZE(ops); i++) {
        g_autoptr(ZoneTable) t = limited(0, 0);

        load(t, 5, BLOCK, ZONE_READ_ONLY);
        for (uint32_t zone = 0; zone < NR; zone++) {
            if (zone != 5) {
                g_assert_cmpint(put(t, zone, BLOCK), ==, 0);
            }
        }
        assert_refused(t, manage_range(t, ops[i], 0, NR - 1), -EINVAL);
    }
}

/*
 * The short last zone
 */

static void check_short_last_zone(uint64_t length, uint64_t capacity)
{
    ZoneGeometry geo = geometry((NR - 1) * ZONE + length, ZONE, capacity);
    const uint32_t last = NR - 1;
    const uint64_t start = last * ZONE;
    const uint64_t cap = MIN(length, capacity);
    g_autoptr(ZoneTable) t = NULL;
    BlockZoneDescriptor desc;

    g_assert_cmpuint(geo.nr_zones, ==, NR);
    t = new_table(&geo);
    g_assert_cmpuint(zone_table_length(t, last), ==, length);
    g_assert_cmpuint(zone_table_capacity(t, last), ==, cap);
    g_assert_cmpuint(zone_table_length(t, last - 1), ==, ZONE);
    g_assert_cmpuint(zone_table_capacity(t, last - 1), ==, capacity);
    g_assert_cmpuint(zone_table_index(t, geo.disk_size - 1), ==, last);

    /* It takes its capacity and no more. */
    assert_refused(t, submit(t, last, cap + 512), -EINVAL);
    assert_refused(t, submit(t, last, ZONE), -EINVAL);
    g_assert_cmpint(put(t, last, cap), ==, 0);
    assert_state(t, last, BLK_ZS_FULL);
    assert_counts(t, 0, 0);
    assert_refused(t, submit(t, last, 512), -EINVAL);
    assert_refused(t, append(t, last, 512), -EINVAL);
    zone_table_describe(t, last, &desc);
    g_assert_cmpuint(desc.start, ==, start);
    g_assert_cmpuint(desc.length, ==, length);
    g_assert_cmpuint(desc.cap, ==, cap);
    g_assert_cmpuint(desc.wp, ==, start + length);

    g_assert_cmpint(manage(t, BLK_ZO_RESET, last), ==, 0);
    assert_state(t, last, BLK_ZS_EMPTY);
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, last), ==, 0);
    g_assert_cmpint(append(t, last, 512), ==, 0);
    if (cap > 512) {
        assert_state(t, last, BLK_ZS_EOPEN);
        g_assert_cmpint(manage(t, BLK_ZO_CLOSE, last), ==, 0);
        assert_state(t, last, BLK_ZS_CLOSED);
        g_assert_cmpint(manage(t, BLK_ZO_FINISH, last), ==, 0);
    }
    assert_state(t, last, BLK_ZS_FULL);
    zone_table_describe(t, last, &desc);
    g_assert_cmpuint(desc.wp, ==, start + length);

    /* as the end of a range, and of the whole disk */
    g_assert_cmpint(manage_range(t, BLK_ZO_RESET, last - 2, last), ==, 0);
    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, last - 2, last), ==, 0);
    assert_counts(t, 3, 3);
    g_assert_cmpint(manage_range(t, BLK_ZO_CLOSE, last - 2, last), ==, 0);
    g_assert_cmpint(manage_range(t, BLK_ZO_FINISH, 0, last), ==, 0);
    g_assert_cmpint(manage_range(t, BLK_ZO_RESET, 0, last), ==, 0);
    assert_state(t, last, BLK_ZS_EMPTY);
    assert_counts(t, 0, 0);
}

static void test_short_last_zone(void)
{
    check_short_last_zone(CAP - 512, CAP);      /* capacity above its size */
    check_short_last_zone(CAP, CAP);
    check_short_last_zone(CAP + 512, CAP);      /* capacity below its size */
    check_short_last_zone(512, CAP);
    check_short_last_zone(ZONE / 2, ZONE);
    check_short_last_zone(ZONE - 512, ZONE);
    check_short_last_zone(BLOCK, 512);
}

static void test_short_only_zone(void)
{
    ZoneGeometry geo = geometry(BLOCK, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);

    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    assert_state(t, 0, BLK_ZS_FULL);
    g_assert_cmpint(manage_bytes(t, BLK_ZO_RESET, 0, BLOCK), ==, 0);
    assert_state(t, 0, BLK_ZS_EMPTY);
}

/*
 * Large zones
 */

static void check_large_zones(uint64_t zone_size, uint64_t capacity,
                              uint64_t nr)
{
    ZoneGeometry geo = geometry(nr * zone_size - zone_size / 2, zone_size,
                                capacity);
    g_autoptr(ZoneTable) t = new_table(&geo);
    const uint32_t zones[] = { 0, 1, nr / 2, nr - 2, nr - 1 };

    for (int i = 0; i < ARRAY_SIZE(zones); i++) {
        uint32_t zone = zones[i];
        uint64_t start = zone * zone_size;
        uint64_t length = zone == nr - 1 ? zone_size / 2 : zone_size;
        uint64_t cap = MIN(length, capacity);
        bool data;

        g_assert_cmpuint(zone_table_start(t, zone), ==, start);
        g_assert_cmpuint(zone_table_length(t, zone), ==, length);
        g_assert_cmpuint(zone_table_capacity(t, zone), ==, cap);
        g_assert_cmpuint(zone_table_index(t, start), ==, zone);
        g_assert_cmpuint(zone_table_index(t, start + length - 1), ==, zone);

        g_assert_cmpint(zone_table_write(t, start, cap + 512, start),
                        ==, -EINVAL);
        g_assert_cmpint(put(t, zone, cap - 512), ==, 0);
        assert_state(t, zone, BLK_ZS_IOPEN);
        g_assert_cmpuint(zone_table_wp(t, zone), ==, start + cap - 512);
        g_assert_cmpint(zone_table_write(t, start, 512, start + cap - 512),
                        ==, -ERANGE);
        g_assert_cmpint(zone_table_run(t, start, geo.disk_size - start, &data),
                        ==, cap - 512);
        g_assert_true(data);
        g_assert_cmpint(append(t, zone, 1024), ==, -EINVAL);
        g_assert_cmpint(append(t, zone, 512), ==, 0);
        assert_state(t, zone, BLK_ZS_FULL);
        g_assert_cmpint(manage(t, BLK_ZO_RESET, zone), ==, 0);
        g_assert_cmpint(manage(t, BLK_ZO_OPEN, zone), ==, 0);
        g_assert_cmpint(manage(t, BLK_ZO_FINISH, zone), ==, 0);
        g_assert_cmpuint(zone_table_wp(t, zone), ==, start);
    }
    g_assert_cmpint(manage_range(t, BLK_ZO_RESET, 0, nr - 1), ==, 0);
    assert_counts(t, 0, 0);
}

static void test_large_zones(void)
{
    check_large_zones(2 * GiB, 2 * GiB, 5);
    check_large_zones(4 * GiB, 4 * GiB, 5);
    check_large_zones(4 * GiB, 4 * GiB - 512, 5);
    check_large_zones(8 * GiB, 5 * GiB + 512, 5);
    check_large_zones(1 * TiB, 1 * TiB, 5);
    check_large_zones(1 * TiB, 4 * GiB + 1536, 5);
}

/* Up to the largest offset that a table entry can hold, 2^59 - 512 */
static void test_far_offsets(void)
{
    check_large_zones(1 * TiB, 1 * TiB, 1 << 19);
    check_large_zones(1 * TiB, 3 * GiB + 512, 1 << 19);
    check_large_zones(256 * GiB, 256 * GiB - 512, (1 << 19) + 1);
}

static void test_last_byte_of_largest_disk(void)
{
    ZoneGeometry geo = geometry((1ULL << 59) - 512, 1 * TiB, 1 * TiB);
    g_autoptr(ZoneTable) t = new_table(&geo);
    const uint32_t last = geo.nr_zones - 1;
    BlockZoneDescriptor desc;

    g_assert_cmpuint(geo.nr_zones, ==, 1 << 19);
    g_assert_cmpuint(zone_table_length(t, last), ==, 1 * TiB - 512);
    g_assert_cmpint(put(t, last, 1 * TiB - 1024), ==, 0);
    assert_state(t, last, BLK_ZS_IOPEN);
    g_assert_cmpint(submit(t, last, 1024), ==, -EINVAL);
    g_assert_cmpint(put(t, last, 512), ==, 0);
    assert_state(t, last, BLK_ZS_FULL);
    g_assert_cmphex(zone_table_attributes(t, last), ==, 0);
    zone_table_describe(t, last, &desc);
    g_assert_cmpuint(desc.wp, ==, geo.disk_size);
    g_assert_cmpint(manage_bytes(t, BLK_ZO_RESET, 0, geo.disk_size), ==, 0);
    assert_state(t, last, BLK_ZS_EMPTY);
}

/*
 * Conventional zones
 */

static void test_conventional_write_anywhere(void)
{
    ZoneGeometry geo = geometry(NR * ZONE, ZONE, CAP);
    g_autoptr(ZoneTable) t = NULL;

    geo.nr_conventional = 3;
    geo.max_open = geo.max_active = 1;
    t = new_table(&geo);
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, 5), ==, 0);

    /* These succeed and change nothing; the reserved WP is not looked at. */
    assert_refused(t, zone_table_write(t, 0, 512, 12345), 0);
    assert_refused(t, zone_table_write(t, ZONE + 512, 1024, 12345), 0);
    assert_refused(t, zone_table_write(t, 3 * ZONE - 512, 512, 12345), 0);
    /* above the capacity of sequential zones, and across zones */
    assert_refused(t, zone_table_write(t, CAP, ZONE - CAP, 12345), 0);
    assert_refused(t, zone_table_write(t, ZONE - 512, 1024, 12345), 0);
    assert_refused(t, zone_table_write(t, 512, 3 * ZONE - 1024, 12345), 0);
    assert_refused(t, zone_table_write(t, 0, 3 * ZONE, 12345), 0);
    /* but not into the sequential zones */
    assert_refused(t, zone_table_write(t, 0, 3 * ZONE + 512, 12345), -EINVAL);
    assert_refused(t, zone_table_write(t, 3 * ZONE - 512, 1024, 12345),
                   -EINVAL);
    assert_refused(t, zone_table_write(t, 0, NR * ZONE, 12345), -EINVAL);
    assert_refused(t, zone_table_write(t, 0, UINT64_MAX - 511, 12345),
                   -EINVAL);
}

static void test_conventional_read_only(void)
{
    g_autoptr(ZoneTable) t = with_conventional(4);
    bool data;

    load(t, 1, 0, ZONE_CONVENTIONAL | ZONE_READ_ONLY);
    load(t, 3, 0, ZONE_CONVENTIONAL | ZONE_OFFLINE);
    assert_state(t, 1, BLK_ZS_RDONLY);
    assert_state(t, 3, BLK_ZS_OFFLINE);
    assert_refused(t, zone_table_write(t, ZONE, 512, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, 3 * ZONE, 512, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, ZONE - 512, 1024, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, 0, 3 * ZONE, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, 2 * ZONE, 2 * ZONE, 0), -EINVAL);
    assert_refused(t, zone_table_write(t, 2 * ZONE, ZONE, 0), 0);
    g_assert_cmpint(zone_table_run(t, ZONE, ZONE, &data), ==, ZONE);
    g_assert_cmpint(zone_table_run(t, 3 * ZONE, ZONE, &data), ==, -EINVAL);
}

static void test_conventional_capacity(void)
{
    g_autoptr(ZoneTable) t = with_conventional(2);

    g_assert_cmpuint(zone_table_capacity(t, 1), ==, ZONE);
    g_assert_cmpuint(zone_table_capacity(t, 2), ==, CAP);
    g_assert_cmphex(zone_table_attributes(t, 1), ==, ZONE_CONVENTIONAL);
    g_assert_cmphex(zone_table_attributes(t, 2), ==, 0);
}

/*
 * Runs of data
 */

static void assert_run(const ZoneTable *t, uint64_t offset, uint64_t bytes,
                       int64_t run, bool data)
{
    bool got = !data;

    g_assert_cmpint(zone_table_run(t, offset, bytes, &got), ==, run);
    g_assert_cmpint(got, ==, data);
}

static void test_run(void)
{
    g_autoptr(ZoneTable) t = with_conventional(1);
    const uint64_t disk = NR * ZONE;
    const uint64_t z2 = 2 * ZONE;
    bool data;

    g_assert_cmpint(put(t, 2, 3 * BLOCK), ==, 0);

    /* conventional: all is data */
    assert_run(t, 0, 1, 1, true);
    assert_run(t, 0, disk, ZONE, true);
    assert_run(t, ZONE - 10, 20, 10, true);
    /* a write pointer in the middle */
    assert_run(t, z2, disk - z2, 3 * BLOCK, true);
    assert_run(t, z2 + 100, BLOCK, BLOCK, true);
    assert_run(t, z2 + 3 * BLOCK - 1, 100, 1, true);
    assert_run(t, z2 + 3 * BLOCK, disk - z2 - 3 * BLOCK, ZONE - 3 * BLOCK,
               false);
    assert_run(t, z2 + 3 * BLOCK, 1, 1, false);
    /* an empty zone, and the last one */
    assert_run(t, ZONE, disk - ZONE, ZONE, false);
    assert_run(t, disk - 1, 1, 1, false);
    /* above the capacity */
    g_assert_cmpint(put(t, 3, CAP), ==, 0);
    assert_run(t, 3 * ZONE, ZONE, CAP, true);
    assert_run(t, 3 * ZONE + CAP, disk - 3 * ZONE - CAP, ZONE - CAP, false);
    /* a finished zone: nothing but zeros above its data */
    g_assert_cmpint(manage(t, BLK_ZO_FINISH, 2), ==, 0);
    assert_run(t, z2, disk - z2, 3 * BLOCK, true);
    assert_run(t, z2 + 3 * BLOCK, ZONE, ZONE - 3 * BLOCK, false);
    /* a reset zone */
    g_assert_cmpint(manage(t, BLK_ZO_RESET, 2), ==, 0);
    assert_run(t, z2, disk - z2, ZONE, false);
    /* READ-ONLY zones can be read, OFFLINE ones cannot */
    load(t, 6, BLOCK, ZONE_READ_ONLY);
    load(t, 7, BLOCK, ZONE_OFFLINE);
    assert_run(t, 6 * ZONE, disk - 6 * ZONE, BLOCK, true);
    assert_run(t, 6 * ZONE + BLOCK, disk - 7 * ZONE, ZONE - BLOCK, false);
    g_assert_cmpint(zone_table_run(t, 7 * ZONE, 1, &data), ==, -EINVAL);
    g_assert_cmpint(zone_table_run(t, 8 * ZONE - 1, ZONE, &data), ==, -EINVAL);
}

static void test_run_sees_acknowledged_data_only(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    g_assert_cmpint(submit(t, 0, BLOCK), ==, 0);
    g_assert_cmpint(zone_table_write(t, BLOCK, BLOCK, BLOCK), ==, 0);
    assert_run(t, 0, ZONE, ZONE, false);
    zone_table_acknowledge(t, 0, BLOCK, true);
    assert_run(t, 0, ZONE, BLOCK, true);
    zone_table_rewind(t, 0);
    assert_run(t, 0, ZONE, BLOCK, true);
}

static void test_run_of_short_last_zone(void)
{
    ZoneGeometry geo = geometry(2 * ZONE + BLOCK, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);

    assert_run(t, 2 * ZONE, BLOCK, BLOCK, false);
    g_assert_cmpint(put(t, 2, 512), ==, 0);
    assert_run(t, 2 * ZONE, BLOCK, 512, true);
    assert_run(t, 2 * ZONE + 512, BLOCK - 512, BLOCK - 512, false);
}

/*
 * What changes the stored entry of a zone
 */

/*
 * Conditions set from outside
 */

#define NORMAL BLOCKDEV_ZONE_CONDITION_NORMAL

static const struct {
    BlockdevZoneCondition condition;
    unsigned attribute;
    BlockZoneState state;
} bad_conditions[] = {
    { BLOCKDEV_ZONE_CONDITION_READ_ONLY, ZONE_READ_ONLY, BLK_ZS_RDONLY },
    { BLOCKDEV_ZONE_CONDITION_OFFLINE, ZONE_OFFLINE, BLK_ZS_OFFLINE },
};

/* Each state there is; back to normal is the same as after a power cycle. */
static void test_condition_of_every_state(void)
{
    for (Start start = 0; start < NR_STARTS; start++) {
        for (int i = 0; i < ARRAY_SIZE(bad_conditions); i++) {
            g_autoptr(ZoneTable) t = with_conventional(1);
            uint32_t zone = start == CONVENTIONAL ? 0 : 2;
            unsigned attributes, others = ZONE_FINISHED | ZONE_CONVENTIONAL;
            uint64_t wp;

            bring_to(t, zone, start);
            wp = zone_table_snapshot(t, zone, &attributes);

            g_assert_cmpint(set_condition(t, bad_conditions[i].condition,
                                          zone, zone), ==, 0);
            assert_state(t, zone, bad_conditions[i].state);
            assert_counts(t, 0, 0);
            g_assert_cmpuint(zone_table_wp(t, zone), ==, wp);
            g_assert_cmphex(zone_table_attributes(t, zone), ==,
                            (attributes & others) |
                            bad_conditions[i].attribute);
            for (Verb verb = 0; verb < POWER_CYCLE; verb++) {
                assert_refused(t, perform(t, zone, verb), -EINVAL);
            }

            g_assert_cmpint(set_condition(t, NORMAL, zone, zone), ==, 0);
            g_assert_cmpuint(zone_table_wp(t, zone), ==, wp);
            g_assert_cmphex(zone_table_attributes(t, zone), ==,
                            attributes & others);
            g_assert_true(zone_table_is_consistent(t));
            {
                g_autoptr(ZoneTable) next = power_cycle(t);

                assert_state(t, zone, zone_table_state(next, zone));
                assert_counts(t, 0, zone_table_nr_active(next));
            }
        }
    }
}

static void test_condition_normal_changes_no_normal_zone(void)
{
    for (Start start = 0; start < NR_STARTS; start++) {
        g_autoptr(ZoneTable) t = with_conventional(1);
        uint32_t zone = start == CONVENTIONAL ? 0 : 2;
        Snapshot before, after;

        if (start == READ_ONLY || start == OFFLINE) {
            continue;
        }
        bring_to(t, zone, start);
        take_snapshot(t, &before);
        g_assert_cmpint(set_condition(t, NORMAL, zone, zone), ==, 0);
        take_snapshot(t, &after);
        g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
        g_assert_true(zone_table_is_consistent(t));
    }
}

static void test_condition_replaces_another(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    load(t, 2, BLOCK, ZONE_READ_ONLY | ZONE_OFFLINE);
    assert_state(t, 2, BLK_ZS_OFFLINE);
    g_assert_cmpint(set_condition(t, BLOCKDEV_ZONE_CONDITION_READ_ONLY, 2, 2),
                    ==, 0);
    assert_state(t, 2, BLK_ZS_RDONLY);
    assert_counts(t, 0, 0);
    g_assert_cmpint(set_condition(t, BLOCKDEV_ZONE_CONDITION_OFFLINE, 2, 2),
                    ==, 0);
    assert_state(t, 2, BLK_ZS_OFFLINE);
    g_assert_cmphex(zone_table_attributes(t, 2), ==, ZONE_OFFLINE);
    assert_counts(t, 0, 0);
}

/* Three active slots, of which READ-ONLY zones 0 and 1 will need one each */
static ZoneTable *two_to_be_closed(uint32_t active)
{
    ZoneTable *t = limited(2, 3);

    load(t, 0, BLOCK, ZONE_READ_ONLY);
    load(t, 1, BLOCK, ZONE_OFFLINE);
    for (uint32_t zone = 4; zone < 4 + active; zone++) {
        put_and_close(t, zone);
    }
    return t;
}

static void test_condition_frees_slots(void)
{
    g_autoptr(ZoneTable) t = limited(2, 2);

    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 3, 4), ==, 0);
    assert_refused(t, put(t, 5, BLOCK), -EOVERFLOW);
    g_assert_cmpint(set_condition(t, BLOCKDEV_ZONE_CONDITION_OFFLINE, 4, 4),
                    ==, 0);
    assert_counts(t, 1, 1);
    g_assert_cmpint(put(t, 5, BLOCK), ==, 0);
    assert_counts(t, 2, 2);
}

/* An implicitly open zone leaves the order of victims, too. */
static void test_condition_leaves_no_victim(void)
{
    g_autoptr(ZoneTable) t = limited(2, 0);

    g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
    g_assert_cmpint(put(t, 2, BLOCK), ==, 0);
    g_assert_cmpint(set_condition(t, BLOCKDEV_ZONE_CONDITION_READ_ONLY, 1, 1),
                    ==, 0);
    g_assert_cmpint(put(t, 3, BLOCK), ==, 0);
    assert_state(t, 2, BLK_ZS_IOPEN);
    g_assert_cmpint(put(t, 4, BLOCK), ==, 0);
    assert_state(t, 2, BLK_ZS_CLOSED);
    assert_counts(t, 2, 3);
}

static void test_condition_limit_is_exact(void)
{
    g_autoptr(ZoneTable) t = two_to_be_closed(1);
    g_autoptr(ZoneTable) one_less = two_to_be_closed(2);

    g_assert_cmpint(set_condition(t, NORMAL, 0, 1), ==, 0);
    assert_counts(t, 0, 3);
    assert_state(t, 0, BLK_ZS_CLOSED);
    assert_state(t, 1, BLK_ZS_CLOSED);

    assert_refused(one_less, set_condition(one_less, NORMAL, 0, 1),
                   -EOVERFLOW);
    g_assert_cmpint(set_condition(one_less, NORMAL, 1, 1), ==, 0);
    assert_refused(one_less, set_condition(one_less, NORMAL, 0, 0),
                   -EOVERFLOW);
    /* the other conditions need no slots */
    g_assert_cmpint(set_condition(one_less, BLOCKDEV_ZONE_CONDITION_OFFLINE,
                                  0, NR - 1), ==, 0);
    assert_counts(one_less, 0, 0);
}

/* From the check on, nobody else can take the slots. */
static void test_condition_sets_slots_aside(void)
{
    g_autoptr(ZoneTable) t = two_to_be_closed(0);
    ZoneRange range;
    uint32_t slots;

    g_assert_cmpint(zone_table_check_condition(t, NORMAL, 0, 2 * ZONE, &range,
                                               &slots), ==, 0);
    g_assert_cmpuint(slots, ==, 2);
    assert_counts(t, 0, 0);
    g_assert_cmpint(put(t, 5, BLOCK), ==, 0);
    assert_refused(t, put(t, 6, BLOCK), -EOVERFLOW);
    assert_refused(t, manage(t, BLK_ZO_OPEN, 6), -EOVERFLOW);
    /* a zone that is active already needs none */
    g_assert_cmpint(put(t, 5, BLOCK), ==, 0);

    zone_table_give_back_slots(t, slots);
    g_assert_cmpint(put(t, 6, BLOCK), ==, 0);
    g_assert_cmpint(put(t, 7, BLOCK), ==, 0);
    assert_refused(t, set_condition(t, NORMAL, 0, 0), -EOVERFLOW);
}

static void test_condition_of_ranges(void)
{
    ZoneGeometry geo = geometry(NR * ZONE - BLOCK, ZONE, CAP);
    g_autoptr(ZoneTable) t = NULL;
    static const uint64_t bad[][2] = {
        { 0, 0 }, { 0, ZONE - 512 }, { 512, ZONE }, { 0, NR * ZONE },
        { NR * ZONE, ZONE }, { (NR - 1) * ZONE, ZONE }, { ZONE, UINT64_MAX },
    };
    ZoneRange range;
    uint32_t slots;

    geo.nr_conventional = 3;
    t = new_table(&geo);
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_refused(t, zone_table_check_condition(
                           t, BLOCKDEV_ZONE_CONDITION_OFFLINE, bad[i][0],
                           bad[i][1], &range, &slots), -EINVAL);
    }

    /* both types at once, and the short last zone */
    g_assert_cmpint(set_condition(t, BLOCKDEV_ZONE_CONDITION_READ_ONLY,
                                  2, NR - 1), ==, 0);
    assert_state(t, 1, BLK_ZS_NOT_WP);
    for (uint32_t zone = 2; zone < NR; zone++) {
        assert_state(t, zone, BLK_ZS_RDONLY);
    }
    g_assert_cmpint(zone_table_write(t, 2 * ZONE - BLOCK, 2 * BLOCK, 0), ==,
                    -EINVAL);
    g_assert_cmpint(set_condition(t, NORMAL, 0, NR - 1), ==, 0);
    g_assert_cmpint(zone_table_write(t, 2 * ZONE - BLOCK, 2 * BLOCK, 0), ==,
                    0);
    assert_state(t, NR - 1, BLK_ZS_EMPTY);
    g_assert_true(zone_table_is_consistent(t));
}

/* What is there for readers: all of READ-ONLY zones, none of OFFLINE ones */
static void test_condition_and_readers(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);
    bool data;

    g_assert_cmpint(put(t, 2, BLOCK), ==, 0);
    g_assert_cmpint(set_condition(t, BLOCKDEV_ZONE_CONDITION_READ_ONLY, 2, 2),
                    ==, 0);
    g_assert_cmpint(zone_table_run(t, 2 * ZONE, ZONE, &data), ==, BLOCK);
    g_assert_true(data);
    g_assert_cmpint(set_condition(t, BLOCKDEV_ZONE_CONDITION_OFFLINE, 2, 2),
                    ==, 0);
    g_assert_cmpint(zone_table_run(t, 2 * ZONE, ZONE, &data), ==, -EINVAL);
    g_assert_cmpint(set_condition(t, NORMAL, 2, 2), ==, 0);
    g_assert_cmpint(zone_table_run(t, 2 * ZONE, ZONE, &data), ==, BLOCK);
    g_assert_cmpint(put(t, 2, BLOCK), ==, 0);
    g_assert_cmpuint(zone_table_wp(t, 2), ==, 2 * ZONE + 2 * BLOCK);
}

static void test_affects(void)
{
    for (int i = 0; i < ARRAY_SIZE(cells); i++) {
        const Cell *c = &cells[i];
        g_autoptr(ZoneTable) t = with_conventional(1);
        uint32_t zone = c->start == CONVENTIONAL ? 0 : 2;
        bool changes = c->state != state_of_start[c->start];

        bring_to(t, zone, c->start);
        if (c->verb == FINISH && c->ret == 0) {
            g_assert_cmpint(zone_table_affects(t, BLK_ZO_FINISH, zone), ==,
                            changes);
        }
        if (c->verb == RESET && c->ret == 0) {
            g_assert_cmpint(zone_table_affects(t, BLK_ZO_RESET, zone), ==,
                            changes);
        }
        if (c->verb == RESET) {
            /* also for the zones that it skips */
            g_assert_cmpint(zone_table_affects(t, BLK_ZO_RESET_ALL, zone), ==,
                            changes);
        }
    }
}

static void test_entry_is_active(void)
{
    ZoneGeometry geo = geometry(NR * ZONE + BLOCK, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);
    const uint64_t last = NR * ZONE;

    g_assert_false(zone_table_entry_is_active(t, 1, ZONE, 0));
    g_assert_true(zone_table_entry_is_active(t, 1, ZONE + 512, 0));
    g_assert_true(zone_table_entry_is_active(t, 1, ZONE + CAP - 512, 0));
    g_assert_false(zone_table_entry_is_active(t, 1, ZONE + CAP, 0));
    g_assert_false(zone_table_entry_is_active(t, 1, ZONE + 512,
                                              ZONE_FINISHED));
    g_assert_false(zone_table_entry_is_active(t, 1, ZONE + 512,
                                              ZONE_READ_ONLY));
    g_assert_false(zone_table_entry_is_active(t, 1, ZONE + 512,
                                              ZONE_OFFLINE));
    g_assert_true(zone_table_entry_is_active(t, NR, last + BLOCK - 512, 0));
    g_assert_false(zone_table_entry_is_active(t, NR, last + BLOCK, 0));
    /* whatever the zone is now */
    put_and_close(t, 1);
    g_assert_false(zone_table_entry_is_active(t, 1, ZONE, 0));
}

/*
 * Loading
 */

/* The entry is refused by an error that names the zone; nothing changes. */
static void assert_bad_entry(ZoneTable *t, uint32_t zone, uint64_t wp,
                             unsigned attributes)
{
    g_autofree char *name = g_strdup_printf("%u", zone);
    Snapshot before, after;
    Error *err = NULL;

    take_snapshot(t, &before);
    g_assert_false(zone_table_load(t, zone, wp, attributes, &err));
    take_snapshot(t, &after);
    g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
    g_assert_true(zone_table_is_consistent(t));
    g_assert_nonnull(strstr(error_get_pretty(err), name));
    error_free(err);
}

static void test_load_refuses(void)
{
    ZoneGeometry geo = geometry(11 * ZONE - BLOCK, ZONE, CAP);
    g_autoptr(ZoneTable) t = NULL;
    const uint64_t z7 = 7 * ZONE, z10 = 10 * ZONE;

    geo.zone_capacity = ZONE;
    geo.nr_conventional = 6;
    t = new_table(&geo);

    /* a WP outside its zone */
    assert_bad_entry(t, 7, 0, 0);
    assert_bad_entry(t, 7, z7 - 512, 0);
    assert_bad_entry(t, 7, z7 + ZONE + 512, 0);
    assert_bad_entry(t, 7, UINT64_MAX & ~511ULL, 0);
    assert_bad_entry(t, 7, 1ULL << 59, 0);
    assert_bad_entry(t, 7, z7 | 1ULL << 63, 0);
    assert_bad_entry(t, 10, z10 + ZONE, 0);
    assert_bad_entry(t, 10, z10 + ZONE - BLOCK + 512, 0);
    /* also of a zone in a special condition */
    assert_bad_entry(t, 7, z7 - 512, ZONE_READ_ONLY);
    assert_bad_entry(t, 7, z7 - 512, ZONE_OFFLINE);
    assert_bad_entry(t, 7, z7 - 512, ZONE_FINISHED);
    /* a WP that is no multiple of 512 */
    assert_bad_entry(t, 7, z7 + 1, 0);
    assert_bad_entry(t, 7, z7 + 511, 0);
    assert_bad_entry(t, 7, z7 + BLOCK + 256, 0);
    /* the wrong type */
    assert_bad_entry(t, 5, 5 * ZONE, 0);
    assert_bad_entry(t, 7, z7, ZONE_CONVENTIONAL);
    /* a conventional zone with a WP */
    assert_bad_entry(t, 5, 5 * ZONE + 512, ZONE_CONVENTIONAL);
    assert_bad_entry(t, 5, 6 * ZONE, ZONE_CONVENTIONAL);
    assert_bad_entry(t, 5, 5 * ZONE, ZONE_CONVENTIONAL | ZONE_FINISHED);
}

static void test_load_refuses_unknown_attributes(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    for (unsigned i = 4; i < 32; i++) {
        assert_bad_entry(t, 7, 7 * ZONE, 1u << i);
        assert_bad_entry(t, 7, 7 * ZONE + BLOCK, ZONE_FINISHED | 1u << i);
    }
}

/* The WP says where the data ends, and that is never above the capacity. */
static void test_load_refuses_above_capacity(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    assert_bad_entry(t, 7, 7 * ZONE + CAP + 512, 0);
    assert_bad_entry(t, 7, 8 * ZONE, 0);
    load(t, 7, CAP, 0);
    assert_state(t, 7, BLK_ZS_FULL);
}

static void test_load_finished_at_capacity(void)
{
    g_autoptr(ZoneTable) t = limited(0, 0);

    load(t, 1, CAP, ZONE_FINISHED);
    load(t, 2, CAP, 0);
    assert_state(t, 1, BLK_ZS_FULL);
    assert_state(t, 2, BLK_ZS_FULL);
    assert_counts(t, 0, 0);
    g_assert_cmpint(manage_range(t, BLK_ZO_RESET, 1, 2), ==, 0);
    g_assert_cmphex(zone_table_attributes(t, 1), ==, 0);
    assert_state(t, 1, BLK_ZS_EMPTY);
}

static void test_load_too_many_closed(void)
{
    g_autoptr(ZoneTable) t = limited(2, 3);

    for (uint32_t zone = 0; zone < 5; zone++) {
        load(t, zone, BLOCK, 0);
    }
    assert_counts(t, 0, 5);

    /* Nothing activates ... */
    assert_refused(t, put(t, 5, BLOCK), -EOVERFLOW);
    assert_refused(t, append(t, 5, BLOCK), -EOVERFLOW);
    assert_refused(t, manage(t, BLK_ZO_OPEN, 5), -EOVERFLOW);
    /* ... but what is active already can be used. */
    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    g_assert_cmpint(manage(t, BLK_ZO_OPEN, 1), ==, 0);
    g_assert_cmpint(put(t, 2, BLOCK), ==, 0);
    assert_state(t, 0, BLK_ZS_CLOSED);
    assert_counts(t, 2, 5);
    /* A fill and a reset: at the limit, not below */
    g_assert_cmpint(put(t, 3, CAP - BLOCK), ==, 0);
    assert_refused(t, put(t, 5, BLOCK), -EOVERFLOW);
    g_assert_cmpint(manage(t, BLK_ZO_RESET, 0), ==, 0);
    assert_refused(t, put(t, 5, BLOCK), -EOVERFLOW);
    g_assert_cmpint(manage(t, BLK_ZO_FINISH, 1), ==, 0);
    g_assert_cmpint(put(t, 5, BLOCK), ==, 0);
    assert_counts(t, 1, 3);
}

static void test_power_cycle_closes_everything(void)
{
    g_autoptr(ZoneTable) t = limited(4, 5);
    g_autoptr(ZoneTable) next = NULL;

    g_assert_cmpint(manage_range(t, BLK_ZO_OPEN, 0, 1), ==, 0);
    g_assert_cmpint(put(t, 1, BLOCK), ==, 0);
    g_assert_cmpint(put(t, 2, BLOCK), ==, 0);
    put_and_close(t, 3);
    /* never acknowledged */
    g_assert_cmpint(submit(t, 4, BLOCK), ==, 0);
    assert_counts(t, 4, 5);

    next = power_cycle(t);
    assert_state(next, 0, BLK_ZS_EMPTY);
    assert_state(next, 1, BLK_ZS_CLOSED);
    assert_state(next, 2, BLK_ZS_CLOSED);
    assert_state(next, 3, BLK_ZS_CLOSED);
    assert_state(next, 4, BLK_ZS_EMPTY);
    assert_counts(next, 0, 3);
}

/*
 * Repair
 */

static void assert_repaired(const ZoneTable *t, uint32_t zone, uint64_t wp,
                            unsigned attributes, uint64_t wp_after,
                            unsigned attributes_after)
{
    g_assert_true(zone_table_repair(t, zone, &wp, &attributes));
    g_assert_cmphex(wp, ==, wp_after);
    g_assert_cmphex(attributes, ==, attributes_after);
}

static void assert_lost(const ZoneTable *t, uint32_t zone, uint64_t wp,
                        unsigned attributes, unsigned attributes_after)
{
    uint64_t wp_after = wp;

    g_assert_false(zone_table_repair(t, zone, &wp_after, &attributes));
    g_assert_cmphex(wp_after, ==, wp);
    g_assert_cmphex(attributes, ==, attributes_after);
}

static void test_repair_believes_plausible_pointers(void)
{
    g_autoptr(ZoneTable) t = with_conventional(2);
    const uint64_t z7 = 7 * ZONE;

    /* down to a multiple of 512, and not above the capacity */
    assert_repaired(t, 7, z7 + 1, 0, z7, 0);
    assert_repaired(t, 7, z7 + BLOCK + 511, 0, z7 + BLOCK, 0);
    assert_repaired(t, 7, z7 + CAP + 1, 0, z7 + CAP, 0);
    assert_repaired(t, 7, z7 + ZONE, 0, z7 + CAP, 0);
    /* a wrong type, and attributes that nobody knows */
    assert_repaired(t, 7, z7 + BLOCK, ZONE_CONVENTIONAL, z7 + BLOCK, 0);
    assert_repaired(t, 7, z7 + BLOCK, ~0u, z7 + BLOCK,
                    ZONE_READ_ONLY | ZONE_OFFLINE | ZONE_FINISHED);
    /* nowhere near the zone */
    assert_lost(t, 7, 0, 0, 0);
    assert_lost(t, 7, z7 - 1, ZONE_FINISHED, ZONE_FINISHED);
    assert_lost(t, 7, z7 + ZONE + 1, ZONE_READ_ONLY, ZONE_READ_ONLY);
    assert_lost(t, 7, UINT64_MAX, ZONE_OFFLINE | 1u << 4, ZONE_OFFLINE);
    /* what any conventional zone has */
    assert_lost(t, 7, z7, ZONE_CONVENTIONAL, 0);
    assert_lost(t, 7, z7, ZONE_CONVENTIONAL | ZONE_FINISHED, ZONE_FINISHED);
    /* conventional zones have no data to lose by it */
    assert_repaired(t, 1, 5 * ZONE, 0, ZONE, ZONE_CONVENTIONAL);
    assert_repaired(t, 1, UINT64_MAX, ~0u, ZONE,
                    ZONE_CONVENTIONAL | ZONE_READ_ONLY | ZONE_OFFLINE);
}

static void test_repair_knows_the_short_last_zone(void)
{
    ZoneGeometry geo = geometry(8 * ZONE - CAP, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);
    const uint64_t z7 = 7 * ZONE;

    assert_repaired(t, 7, z7 + ZONE - CAP, 0, z7 + ZONE - CAP, 0);
    assert_repaired(t, 7, z7 + ZONE - CAP - 1, 0, z7 + ZONE - CAP - 512, 0);
    assert_lost(t, 7, z7 + ZONE - CAP + 1, 0, 0);
    assert_lost(t, 7, z7 + CAP, 0, 0);
}

/* Whatever there was, it can be loaded then; what can be loaded stays. */
static void test_repair_is_accepted(void)
{
    g_autoptr(ZoneTable) from = with_conventional(2);

    for (uint64_t wp = 0; wp <= 4 * ZONE; wp += 256) {
        for (unsigned attributes = 0; attributes <= 0x1f; attributes++) {
            for (uint32_t zone = 1; zone < 4; zone++) {
                g_autoptr(ZoneTable) t = with_conventional(2);
                bool good = zone_table_load(t, zone, wp, attributes, NULL);
                uint64_t new_wp = wp;
                unsigned new_attributes = attributes;
                bool found = zone_table_repair(from, zone, &new_wp,
                                               &new_attributes);

                if (good) {
                    g_assert_true(found);
                    g_assert_cmphex(new_wp, ==, wp);
                    g_assert_cmphex(new_attributes, ==, attributes);
                    continue;
                }
                if (!found) {
                    new_wp = zone_table_start(t, zone);
                }
                g_assert_cmphex(new_wp, <=, MAX(wp, zone_table_start(t, zone)));
                g_assert_true(zone_table_load(t, zone, new_wp, new_attributes,
                                              &error_abort));
                g_assert_true(zone_table_is_consistent(t));
            }
        }
    }
}

/*
 * Rules for geometries
 */

static const ZoneGeometry good_geometry = {
    .disk_size = 16 * MiB,
    .zone_size = 1 * MiB,
    .zone_capacity = 768 * KiB,
    .nr_zones = 16,
    .nr_conventional = 2,
    .max_open = 3,
    .max_active = 4,
    .max_append_bytes = 64 * KiB,
};

static void assert_mentions(const char *message, uint64_t number)
{
    g_autofree char *digits = g_strdup_printf("%" PRIu64, number);

    if (!strstr(message, digits)) {
        g_error("\"%s\" does not mention %s", message, digits);
    }
}

/* @geo is refused, and the message names @field, its value and the bound. */
static void assert_bad_geometry(const ZoneGeometry *geo, const char *field,
                                uint64_t value, uint64_t bound)
{
    Error *err = NULL;

    g_assert_false(zone_geometry_check(geo, NULL));
    g_assert_false(zone_geometry_check(geo, &err));
    if (!strstr(error_get_pretty(err), field)) {
        g_error("\"%s\" does not mention %s", error_get_pretty(err), field);
    }
    assert_mentions(error_get_pretty(err), value);
    assert_mentions(error_get_pretty(err), bound);
    error_free(err);
}

static void test_geometry_zone_size(void)
{
    static const uint64_t bad[] = {
        0, 1, 256, 511, 513, 1536, 768 * KiB, 1 * MiB - 1, 1 * MiB + 512,
        2 * TiB, 1 * TiB + 1, 1ULL << 63, UINT64_MAX,
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        ZoneGeometry geo = good_geometry;

        geo.zone_size = bad[i];
        assert_bad_geometry(&geo, "zone.size", bad[i], 1 * TiB);
    }
}

static void test_geometry_disk_size(void)
{
    static const uint64_t bad[] = {
        0, 1, 511, 16 * MiB - 1, 16 * MiB + 256, 1ULL << 59, 1ULL << 63,
        UINT64_MAX, UINT64_MAX - 511,
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        ZoneGeometry geo = good_geometry;

        geo.disk_size = bad[i];
        assert_bad_geometry(&geo, "isk size", bad[i], (1ULL << 59) - 512);
    }
}

static void test_geometry_nr_zones(void)
{
    ZoneGeometry geo = good_geometry;

    geo.nr_zones = 15;
    assert_bad_geometry(&geo, "umber of zones", 15, 16);
    geo.nr_zones = 17;
    assert_bad_geometry(&geo, "umber of zones", 17, 16);
    geo.nr_zones = 0;
    assert_bad_geometry(&geo, "umber of zones", 0, 16);
    /* a short last zone counts */
    geo.nr_zones = 16;
    geo.disk_size += 512;
    assert_bad_geometry(&geo, "umber of zones", 16, 17);

    /* (2^32 - 1) / 8 zones are the most, whatever the field holds. */
    geo = geometry((1ULL << 29) * 512, 512, 512);
    assert_bad_geometry(&geo, "zones", 1ULL << 29, (1ULL << 29) - 1);
    geo = geometry((1ULL << 33) * 512, 512, 512);
    assert_bad_geometry(&geo, "zones", 1ULL << 33, (1ULL << 29) - 1);
    geo = geometry(((1ULL << 29) - 1) * 512, 512, 512);
    g_assert_true(zone_geometry_check(&geo, &error_abort));
}

static void test_geometry_capacity(void)
{
    static const uint64_t bad[] = {
        0, 1, 511, 513, 64 * KiB + 256, 1 * MiB - 1, 1 * MiB + 512, 2 * MiB,
        (1ULL << 32) + 512, UINT64_MAX - 511, UINT64_MAX,
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        ZoneGeometry geo = good_geometry;

        geo.zone_capacity = bad[i];
        assert_bad_geometry(&geo, "zone.capacity", bad[i], 1 * MiB);
    }
}

static void test_geometry_conventional(void)
{
    static const uint32_t bad[] = { 16, 17, UINT32_MAX };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        ZoneGeometry geo = good_geometry;

        geo.nr_conventional = bad[i];
        assert_bad_geometry(&geo, "zone.conventional_zones", bad[i], 16);
    }
}

static void test_geometry_limits(void)
{
    ZoneGeometry geo = good_geometry;

    geo.max_open = 5;
    assert_bad_geometry(&geo, "zone.max_open_zones", 5, 4);
    geo.max_open = UINT32_MAX;
    assert_bad_geometry(&geo, "zone.max_open_zones", UINT32_MAX, 4);
    /* These are good: equal, one or both without limit. */
    geo.max_open = 4;
    g_assert_true(zone_geometry_check(&geo, &error_abort));
    geo.max_active = 0;
    g_assert_true(zone_geometry_check(&geo, &error_abort));
    geo.max_open = 0;
    g_assert_true(zone_geometry_check(&geo, &error_abort));
    geo.max_active = 1;
    g_assert_true(zone_geometry_check(&geo, &error_abort));
}

static void test_geometry_max_append(void)
{
    static const uint32_t bad[] = {
        0, 1, 511, 513, 768 * KiB - 1, 768 * KiB + 512, 1 * MiB, UINT32_MAX,
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        ZoneGeometry geo = good_geometry;

        geo.max_append_bytes = bad[i];
        assert_bad_geometry(&geo, "zone.max_append_bytes", bad[i], 768 * KiB);
    }
}

static void test_geometry_extremes(void)
{
    ZoneGeometry geo = geometry(512, 512, 512);

    g_assert_true(zone_geometry_check(&geo, &error_abort));
    geo = geometry(512, 1 * TiB, 512);
    g_assert_true(zone_geometry_check(&geo, &error_abort));
    geo = geometry((1ULL << 59) - 512, 1 * TiB, 1 * TiB);
    g_assert_true(zone_geometry_check(&geo, &error_abort));
    g_assert_true(zone_geometry_check(&good_geometry, &error_abort));

    g_assert_cmpuint(zone_geometry_count(0, 512), ==, 0);
    g_assert_cmpuint(zone_geometry_count(1, 512), ==, 1);
    g_assert_cmpuint(zone_geometry_count(512, 512), ==, 1);
    g_assert_cmpuint(zone_geometry_count(513, 512), ==, 2);
    g_assert_cmpuint(zone_geometry_count(1ULL << 62, 512), ==, 1ULL << 53);
}

/*
 * Growing
 */

static void grow_to(ZoneTable *t, uint64_t disk_size)
{
    ZoneGeometry geo;

    g_assert_true(zone_table_check_grow(t, disk_size, &geo, &error_abort));
    g_assert_cmpuint(geo.disk_size, ==, disk_size);
    g_assert_true(zone_table_reserve(t, geo.nr_zones));
    zone_table_grow(t, disk_size);
    g_assert_cmpuint(zone_table_disk_size(t), ==, disk_size);
    g_assert_cmpuint(zone_table_geometry(t)->nr_zones, ==, geo.nr_zones);
    g_assert_true(zone_table_is_consistent(t));
}

/* Growing is refused, changes nothing, and says @word and both numbers. */
static void assert_cannot_grow(ZoneTable *t, uint64_t disk_size,
                               const char *word, uint64_t value,
                               uint64_t bound)
{
    Snapshot before, after;
    ZoneGeometry geo;
    Error *err = NULL;

    take_snapshot(t, &before);
    g_assert_false(zone_table_check_grow(t, disk_size, &geo, &err));
    take_snapshot(t, &after);
    g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));

    if (!strstr(error_get_pretty(err), word)) {
        g_error("\"%s\" does not mention %s", error_get_pretty(err), word);
    }
    assert_mentions(error_get_pretty(err), value);
    assert_mentions(error_get_pretty(err), bound);
    error_free(err);
}

static void test_grow_adds_empty_zones(void)
{
    for (Start start = EMPTY; start < CONVENTIONAL; start++) {
        ZoneGeometry geo = geometry(NR * ZONE, ZONE, CAP);
        g_autoptr(ZoneTable) t = NULL;
        Snapshot before, after;

        geo.nr_conventional = 2;
        geo.max_open = 3;
        geo.max_active = 4;
        t = new_table(&geo);
        bring_to(t, 5, start);
        bring_to(t, NR - 1, start);     /* of full length: it need not grow */
        take_snapshot(t, &before);

        grow_to(t, (NR + 7) * ZONE);
        take_snapshot(t, &after);
        for (uint32_t i = 0; i < NR; i++) {
            g_assert_cmpmem(&before.zone[i], sizeof(before.zone[i]),
                            &after.zone[i], sizeof(after.zone[i]));
        }
        for (uint32_t i = NR; i < NR + 7; i++) {
            g_assert_cmphex(after.zone[i].state, ==, BLK_ZS_EMPTY);
            g_assert_cmpuint(after.zone[i].wp, ==, i * ZONE);
            g_assert_cmpuint(zone_table_capacity(t, i), ==, CAP);
        }
        assert_counts(t, before.open, before.active);

        /* The limits are for all. */
        for (uint32_t i = before.active; i < 4; i++) {
            put_and_close(t, NR + i);
        }
        assert_refused(t, submit(t, NR + 5, BLOCK), -EOVERFLOW);
    }
}

static void test_grow_again_and_again(void)
{
    ZoneGeometry geo = geometry(512, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);
    uint64_t disk_size = 512;
    uint32_t nr = 1;

    /* a sector, zones up to many at once, the rest of a zone */
    for (int step = 0; nr < 3000; step++) {
        switch (step % 4) {
        case 0:
            disk_size += 512;
            break;
        case 1:
            disk_size = ROUND_UP(disk_size, ZONE);
            break;
        default:
            disk_size += step * step * ZONE + (step % 4 == 3) * BLOCK;
            break;
        }
        grow_to(t, disk_size);
        nr = zone_table_geometry(t)->nr_zones;

        /* every zone but the last one keeps a WP of its own */
        for (uint32_t i = 0; i + 1 < nr; i++) {
            uint64_t bytes = (1 + i % (CAP / 512)) * 512;

            if (zone_table_wp(t, i) == i * ZONE) {
                g_assert_cmpint(put(t, i, bytes), ==, 0);
            }
            g_assert_cmpuint(zone_table_wp(t, i), ==, i * ZONE + bytes);
        }
        assert_state(t, nr - 1, BLK_ZS_EMPTY);
    }
}

static void test_grow_short_zone(void)
{
    static const Start good[] = { EMPTY, FINISHED, FINISHED_EMPTY };
    static const Start bad[] = {
        IMPLICIT, IMPLICIT_AT_START, EXPLICIT, EXPLICIT_AT_START, CLOSED, FULL,
        READ_ONLY, OFFLINE,
    };
    const uint64_t disk_size = (NR - 1) * ZONE + CAP;
    const uint64_t start = (NR - 1) * ZONE;
    ZoneGeometry geo = geometry(disk_size, ZONE, ZONE);

    for (int i = 0; i < ARRAY_SIZE(good); i++) {
        g_autoptr(ZoneTable) t = new_table(&geo);
        uint64_t wp;
        bool data;

        bring_to(t, NR - 1, good[i]);
        wp = zone_table_wp(t, NR - 1);
        grow_to(t, disk_size + 512);
        g_assert_cmpuint(zone_table_capacity(t, NR - 1), ==, CAP + 512);
        grow_to(t, (NR + 1) * ZONE);
        g_assert_cmpuint(zone_table_length(t, NR - 1), ==, ZONE);
        g_assert_cmpuint(zone_table_capacity(t, NR - 1), ==, ZONE);
        assert_state(t, NR - 1, state_of_start[good[i]]);
        g_assert_cmpuint(zone_table_wp(t, NR - 1), ==, wp);

        /* zeros, from the WP to the new end */
        g_assert_cmpint(zone_table_run(t, wp, ZONE, &data), ==,
                        start + ZONE - wp);
        g_assert_false(data);

        if (good[i] != EMPTY) {
            assert_refused(t, submit(t, NR - 1, 512), -EINVAL);
            g_assert_cmpint(manage(t, BLK_ZO_RESET, NR - 1), ==, 0);
        }
        assert_refused(t, submit(t, NR - 1, ZONE + 512), -EINVAL);
        g_assert_cmpint(put(t, NR - 1, ZONE), ==, 0);
        assert_state(t, NR - 1, BLK_ZS_FULL);
    }

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(ZoneTable) t = new_table(&geo);

        bring_to(t, NR - 1, bad[i]);
        assert_cannot_grow(t, disk_size + 512, "EMPTY or finished", NR - 1,
                           ZONE);
        assert_cannot_grow(t, 2 * disk_size, "EMPTY or finished",
                           ZONE - CAP, ZONE);
        /* It need not grow. */
        grow_to(t, disk_size);
    }
}

static void test_grow_bounds(void)
{
    g_autoptr(ZoneTable) t = new_table(&good_geometry);
    ZoneGeometry geo = geometry(3 * 512, 512, 512);
    g_autoptr(ZoneTable) tiny = new_table(&geo);

    assert_cannot_grow(t, 16 * MiB - 512, "shrink", 16 * MiB - 512, 16 * MiB);
    assert_cannot_grow(t, 0, "shrink", 0, 16 * MiB);
    assert_cannot_grow(t, 16 * MiB + 1, "isk size", 16 * MiB + 1,
                       (1ULL << 59) - 512);
    assert_cannot_grow(t, 1ULL << 59, "isk size", 1ULL << 59,
                       (1ULL << 59) - 512);
    assert_cannot_grow(t, (1ULL << 49), "zones", 1ULL << 29, (1ULL << 29) - 1);
    assert_cannot_grow(tiny, 1ULL << 45, "zones", 1ULL << 36,
                       (1ULL << 29) - 1);
    g_assert_true(zone_table_check_grow(t, ((1ULL << 29) - 1) * MiB, &geo,
                                        &error_abort));
    g_assert_cmpuint(geo.nr_zones, ==, (1ULL << 29) - 1);
}

/* Having reserved memory changes nothing. */
static void test_grow_may_be_given_up(void)
{
    g_autoptr(ZoneTable) t = limited(3, 4);
    Snapshot before, after;

    bring_to(t, 0, IMPLICIT);
    take_snapshot(t, &before);
    g_assert_true(zone_table_reserve(t, 40));
    take_snapshot(t, &after);
    g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
    g_assert_true(zone_table_is_consistent(t));
    grow_to(t, 20 * ZONE);
    g_assert_cmpint(put(t, 19, BLOCK), ==, 0);
    grow_to(t, 41 * ZONE);
    g_assert_cmpuint(zone_table_wp(t, 19), ==, 19 * ZONE + BLOCK);
    assert_state(t, 40, BLK_ZS_EMPTY);
}

static void test_grow_whole_disk(void)
{
    ZoneGeometry geo = geometry(ZONE, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);

    g_assert_cmpint(put(t, 0, BLOCK), ==, 0);
    grow_to(t, 3 * ZONE);
    load(t, 1, 0, ZONE_READ_ONLY);
    g_assert_cmpint(put(t, 2, CAP), ==, 0);
    assert_refused(t, manage_bytes(t, BLK_ZO_RESET_ALL, 0, ZONE), -EINVAL);
    g_assert_cmpint(manage_bytes(t, BLK_ZO_RESET, 0, 3 * ZONE), ==, 0);
    assert_state(t, 0, BLK_ZS_EMPTY);
    assert_state(t, 2, BLK_ZS_EMPTY);
    assert_counts(t, 0, 0);
}

/* Zones of a disk that grows, for those who look without the lock */
#define GROWN_ZONES 1000

static void *look_at_last_zone(void *opaque)
{
    const ZoneTable *t = opaque;
    uint32_t zone;

    do {
        uint64_t disk_size = zone_table_disk_size(t);
        unsigned attributes;
        bool data;

        zone = zone_table_index(t, disk_size - 1);
        g_assert_cmpuint(zone_table_snapshot(t, zone, &attributes), ==,
                         zone * ZONE);
        g_assert_cmphex(zone_table_state(t, zone), ==, BLK_ZS_EMPTY);
        g_assert_cmpint(zone_table_run(t, zone * ZONE, 512, &data), ==, 512);
        g_assert_false(data);
    } while (zone + 1 < GROWN_ZONES);
    return NULL;
}

static void test_grow_under_readers(void)
{
    ZoneGeometry geo = geometry(ZONE, ZONE, CAP);
    g_autoptr(ZoneTable) t = new_table(&geo);
    GThread *readers[2];

    for (int i = 0; i < ARRAY_SIZE(readers); i++) {
        readers[i] = g_thread_new("reader", look_at_last_zone, t);
    }
    for (uint32_t nr = 2; nr <= GROWN_ZONES; nr++) {
        grow_to(t, nr * ZONE);
    }
    for (int i = 0; i < ARRAY_SIZE(readers); i++) {
        g_thread_join(readers[i]);
    }
}

/*
 * Random sequences, against the model
 */

#define RANDOM_LIVES    10
#define RANDOM_OPS      (100000 / RANDOM_LIVES)

static void random_sequence(ZoneGeometry geo)
{
    ZoneChoices choices = { NULL };

    for (int life = 0; life < RANDOM_LIVES; life++) {
        zone_table_model_run(&choices, &geo, RANDOM_OPS);
    }
}

static void test_random_without_limits(void)
{
    random_sequence(geometry(8 * ZONE, ZONE, ZONE));
}

static void test_random_with_limits(void)
{
    ZoneGeometry geo = geometry(12 * ZONE - 3 * BLOCK, ZONE, CAP + 512);

    geo.nr_conventional = 2;
    geo.max_open = 3;
    geo.max_active = 5;
    random_sequence(geo);
}

static void test_random_with_equal_limits(void)
{
    ZoneGeometry geo = geometry(9 * ZONE, ZONE, CAP);

    geo.max_open = geo.max_active = 4;
    random_sequence(geo);
}

static void test_random_with_open_limit(void)
{
    ZoneGeometry geo = geometry(10 * 1 * TiB - 512, 1 * TiB, 3 * GiB + 512);

    geo.nr_conventional = 1;
    geo.max_open = 3;
    random_sequence(geo);
}

static void test_random_with_active_limit(void)
{
    ZoneGeometry geo = geometry(7 * 8 * GiB + 512, 8 * GiB, 8 * GiB - 512);

    geo.max_active = 3;
    random_sequence(geo);
}

static void test_random_with_one_slot(void)
{
    ZoneGeometry geo = geometry(5 * 2048, 2048, 1536);

    geo.max_open = geo.max_active = 1;
    random_sequence(geo);
}

static void test_random_one_zone(void)
{
    random_sequence(geometry(ZONE - BLOCK, ZONE, CAP));
}

#define ADD(sentence, function) \
    g_test_add_func("/zone-table/" sentence, function)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    for (int i = 0; i < ARRAY_SIZE(cells); i++) {
        g_autofree char *path = g_strdup_printf("/zone-table/cell/%s",
                                                cells[i].name);

        g_test_add_data_func(path, &cells[i], test_cell);
    }
    ADD("every-cell-of-the-state-table-has-a-test", test_cells_complete);

    ADD("limit/open-limit-refuses-when-all-open-zones-are-explicit",
        test_open_limit);
    ADD("limit/active-limit-refuses-empty-zones-only", test_active_limit);
    ADD("limit/both-limits-hit-reports-the-active-one", test_both_limits);
    ADD("limit/active-limit-is-not-met-by-closing-a-zone",
        test_active_limit_closes_none);
    ADD("limit/closed-zone-at-active-limit-takes-slot-of-implicit-one",
        test_closed_zone_at_active_limit);
    ADD("limit/closed-zone-at-both-limits-reports-the-open-one",
        test_closed_zone_at_both_limits_without_victim);
    ADD("limit/open-zones-need-no-room", test_open_zones_need_no_room);
    ADD("limit/finish-of-empty-and-closed-zones-needs-no-room",
        test_finish_needs_no_room);
    ADD("limit/limit-of-n-permits-n-and-not-n-plus-1", test_limit_is_exact);
    ADD("limit/zero-is-no-limit", test_zero_is_no_limit);
    ADD("limit/fill-finish-and-reset-give-slots-back", test_slots_come_back);

    ADD("victim/is-the-least-recently-written-implicit-zone",
        test_victim_is_least_recently_written);
    ADD("victim/is-closed-for-writes-and-appends-too", test_victim_of_write);
    ADD("victim/is-never-an-explicit-zone", test_victim_is_never_explicit);
    ADD("victim/reopened-zone-is-the-last-to-go",
        test_reopened_zone_is_most_recent);
    ADD("victim/refused-write-does-not-count-as-a-write",
        test_refused_write_does_not_refresh);
    ADD("victim/without-data-becomes-empty", test_victim_at_start);
    ADD("victim/is-spared-by-a-refused-request",
        test_refused_request_closes_no_victim);

    ADD("flight/next-write-must-match-the-reserved-pointer",
        test_reserved_pointer_is_what_counts);
    ADD("flight/zone-becomes-full-when-the-last-write-is-acknowledged",
        test_full_at_acknowledgement);
    ADD("flight/zone-reserved-to-its-capacity-takes-nothing-more",
        test_reserved_to_capacity);
    ADD("flight/closed-zone-stays-active-for-its-writes",
        test_close_with_write_in_flight);
    ADD("flight/closed-victim-becomes-full-when-its-writes-fill-it",
        test_closed_zone_fills_up);
    ADD("flight/closed-zone-whose-first-write-fails-becomes-empty",
        test_failed_write_of_closed_zone);
    ADD("flight/open-zone-whose-write-fails-stays-open",
        test_failed_write_of_open_zone);

    ADD("checks/are-made-in-the-order-of-the-specification",
        test_order_of_checks);
    ADD("checks/write-beyond-disk-zone-or-capacity-is-refused",
        test_write_bounds);
    ADD("checks/write-into-next-zone-is-refused-without-a-gap-between",
        test_write_that_spans_zones_without_gap);
    ADD("checks/append-needs-zone-start-and-a-length-that-fits",
        test_append_bounds);
    ADD("checks/zone-is-full-exactly-at-its-capacity-whatever-that-is",
        test_every_capacity_is_exact);

    ADD("range/must-be-whole-zones-of-the-disk", test_range_bounds);
    ADD("range/takes-its-zones-and-no-others",
        test_range_takes_its_zones_only);
    ADD("range/is-checked-entirely-before-its-first-zone-changes",
        test_range_is_checked_first);
    ADD("range/with-a-conventional-zone-is-refused",
        test_range_with_conventional);
    ADD("range/open-counts-every-zone-against-the-limits",
        test_range_open_counts_every_zone);
    ADD("range/open-closes-implicit-zones-outside-of-it-only",
        test_range_open_victims);
    ADD("range/open-of-open-zones-needs-no-room",
        test_range_open_of_open_zones);
    ADD("range/open-with-too-few-victims-closes-none",
        test_range_open_with_too_few_victims);
    ADD("range/check-alone-changes-nothing", test_check_changes_nothing);

    ADD("reset-all/reset-of-the-whole-disk-skips-what-cannot-be-reset",
        test_reset_of_whole_disk);
    ADD("reset-all/skips-what-cannot-be-reset", test_reset_all);
    ADD("reset-all/takes-the-whole-disk-only",
        test_reset_all_takes_whole_disk_only);
    ADD("reset-all/differs-from-reset-of-the-only-zone", test_one_zone_disk);
    ADD("reset-all/other-operations-on-the-whole-disk-skip-nothing",
        test_whole_disk_skips_for_reset_only);

    ADD("short-last-zone/is-written-filled-reset-and-finished",
        test_short_last_zone);
    ADD("short-last-zone/may-be-the-only-one", test_short_only_zone);

    ADD("large/zones-up-to-1-tib-work-to-their-last-sector",
        test_large_zones);
    ADD("large/offsets-up-to-2-to-the-59-work", test_far_offsets);
    ADD("large/largest-disk-works-to-its-last-sector",
        test_last_byte_of_largest_disk);

    ADD("conventional/is-written-anywhere-and-across-zones",
        test_conventional_write_anywhere);
    ADD("conventional/may-be-read-only-or-offline",
        test_conventional_read_only);
    ADD("conventional/capacity-is-its-length", test_conventional_capacity);

    ADD("run/is-data-below-the-wp-and-zeros-above-it", test_run);
    ADD("run/sees-acknowledged-data-only",
        test_run_sees_acknowledged_data_only);
    ADD("run/ends-with-the-short-last-zone", test_run_of_short_last_zone);

    ADD("condition/goes-before-every-state-and-back-to-it",
        test_condition_of_every_state);
    ADD("condition/normal-changes-no-normal-zone",
        test_condition_normal_changes_no_normal_zone);
    ADD("condition/replaces-another", test_condition_replaces_another);
    ADD("condition/frees-open-and-active-slots", test_condition_frees_slots);
    ADD("condition/leaves-no-victim-behind", test_condition_leaves_no_victim);
    ADD("condition/normal-needs-active-slots-for-zones-to-be-closed",
        test_condition_limit_is_exact);
    ADD("condition/sets-active-slots-aside-from-the-check-on",
        test_condition_sets_slots_aside);
    ADD("condition/takes-whole-zones-of-any-type", test_condition_of_ranges);
    ADD("condition/decides-what-can-be-read", test_condition_and_readers);

    ADD("entry/finish-and-reset-affect-zones-whose-condition-changes",
        test_affects);
    ADD("entry/is-active-with-data-and-room-for-more", test_entry_is_active);

    ADD("load/refuses-broken-entries-and-names-the-zone", test_load_refuses);
    ADD("load/refuses-unknown-attributes",
        test_load_refuses_unknown_attributes);
    ADD("load/refuses-wp-above-the-capacity",
        test_load_refuses_above_capacity);
    ADD("load/finished-at-capacity-means-full",
        test_load_finished_at_capacity);
    ADD("load/too-many-closed-zones-activate-nothing-until-below",
        test_load_too_many_closed);
    ADD("repair/believes-plausible-pointers",
        test_repair_believes_plausible_pointers);
    ADD("repair/knows-the-short-last-zone",
        test_repair_knows_the_short_last_zone);
    ADD("repair/is-accepted-by-load", test_repair_is_accepted);
    ADD("load/power-cycle-closes-all-zones-with-data",
        test_power_cycle_closes_everything);

    ADD("geometry/zone-size-is-a-power-of-two-up-to-1-tib",
        test_geometry_zone_size);
    ADD("geometry/disk-size-is-a-multiple-of-512-that-a-wp-can-hold",
        test_geometry_disk_size);
    ADD("geometry/number-of-zones-follows-from-the-sizes",
        test_geometry_nr_zones);
    ADD("geometry/capacity-is-a-multiple-of-512-up-to-the-zone-size",
        test_geometry_capacity);
    ADD("geometry/some-zones-are-not-conventional",
        test_geometry_conventional);
    ADD("geometry/open-limit-is-at-most-the-active-one",
        test_geometry_limits);
    ADD("geometry/max-append-is-a-multiple-of-512-up-to-the-capacity",
        test_geometry_max_append);
    ADD("geometry/smallest-and-largest-are-good", test_geometry_extremes);

    ADD("grow/adds-empty-zones-and-changes-no-other",
        test_grow_adds_empty_zones);
    ADD("grow/again-and-again-keeps-all-write-pointers",
        test_grow_again_and_again);
    ADD("grow/takes-the-short-last-zone-along-if-empty-or-finished",
        test_grow_short_zone);
    ADD("grow/never-shrinks-and-keeps-the-bounds-of-geometries",
        test_grow_bounds);
    ADD("grow/may-be-given-up", test_grow_may_be_given_up);
    ADD("grow/makes-the-whole-disk-larger", test_grow_whole_disk);
    ADD("grow/needs-no-lock-from-readers", test_grow_under_readers);

    ADD("random/follows-the-model-without-limits",
        test_random_without_limits);
    ADD("random/follows-the-model-with-both-limits",
        test_random_with_limits);
    ADD("random/follows-the-model-with-equal-limits",
        test_random_with_equal_limits);
    ADD("random/follows-the-model-with-an-open-limit",
        test_random_with_open_limit);
    ADD("random/follows-the-model-with-an-active-limit",
        test_random_with_active_limit);
    ADD("random/follows-the-model-with-one-slot", test_random_with_one_slot);
    ADD("random/follows-the-model-with-one-zone", test_random_one_zone);

    return g_test_run();
}
