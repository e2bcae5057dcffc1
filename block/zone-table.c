/*
 * Zone table: the zones of a host-managed disk and the rules they live by
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/host-utils.h"
#include "qemu/queue.h"
#include "qemu/units.h"
#include "block/zone-table.h"

/*
 * One 64-bit word per zone, so that a reader without the lock gets a write
 * pointer and attributes that belong together.  Write pointers are multiples
 * of 512, which leaves the low bits to what EMPTY, CLOSED and FULL do not
 * follow from.  In memory, write pointers are relative to the starts of their
 * zones: a new EMPTY zone is all zeros, which costs neither time nor memory.
 */
#define WORD_ACTIVITY_MASK      0x3ULL
#define WORD_BUSY               0x4ULL  /* has writes in flight */
#define WORD_WP_MASK            (((1ULL << 59) - 1) & ~511ULL)
#define WORD_ATTRIBUTES_SHIFT   59

/* What holds a zone active.  An active zone is neither EMPTY nor FULL. */
typedef enum ZoneActivity {
    ZONE_INACTIVE,
    ZONE_IMPLICIT,      /* implicitly open */
    ZONE_EXPLICIT,      /* explicitly open */
    ZONE_CLOSED,
    ZONE_ACTIVITY__MAX,
} ZoneActivity;

/* Place of an implicitly open zone in the order of last writes */
typedef struct ZoneRecency {
    uint32_t zone;
    QTAILQ_ENTRY(ZoneRecency) next;
} ZoneRecency;

/*
 * The words are in pieces, so that a disk can grow while readers without the
 * lock are about: no word ever moves.  The first piece has the zones that the
 * table was made for, each other one as many as all before it.
 */
#define WORD_PIECES_MAX 30

QEMU_BUILD_BUG_ON(ZONE_NR_MAX >> (WORD_PIECES_MAX - 1));

struct ZoneTable {
    /* disk_size is written under the lock, and read without. */
    ZoneGeometry geo;
    unsigned zone_shift;

    aligned_uint64_t *words[WORD_PIECES_MAX];   /* NULL beyond the last one */
    uint32_t nr_first;                          /* zones in the first one */

    /* Zones by activity; changed by zone_set_activity() only. */
    uint32_t count[ZONE_ACTIVITY__MAX];

    /* Inactive zones that are not EMPTY */
    uint32_t nr_full;
    uint32_t nr_read_only;
    uint32_t nr_offline;
    uint32_t nr_not_wp;

    /* Active slots that are promised to zones which are to be CLOSED */
    uint32_t nr_set_aside;

    /*
     * Implicitly open zones, the least recently written one first, and where
     * to find each.  Kept only if there is an open limit, since nobody asks
     * for a victim otherwise; bounded by that limit.
     */
    QTAILQ_HEAD(, ZoneRecency) recency;
    GHashTable *recency_of;
};

/* --- Geometry --- */

uint64_t zone_geometry_count(uint64_t disk_size, uint64_t zone_size)
{
    return DIV_ROUND_UP(disk_size, zone_size);
}

uint64_t zone_geometry_capacity(const ZoneGeometry *geo, uint32_t zone)
{
    uint64_t length = MIN(geo->zone_size, qatomic_read_u64(&geo->disk_size) -
                                          zone * geo->zone_size);

    return zone < geo->nr_conventional ? length
                                       : MIN(length, geo->zone_capacity);
}

bool zone_geometry_check(const ZoneGeometry *geo, Error **errp)
{
    uint64_t nr_zones;

    if (!is_power_of_2(geo->zone_size) ||
        geo->zone_size < 512 || geo->zone_size > ZONE_SIZE_MAX) {
        error_setg(errp, "zone.size %" PRIu64 " is not a power of two from "
                   "512 to %llu", geo->zone_size, ZONE_SIZE_MAX);
        return false;
    }
    if (geo->disk_size == 0 || geo->disk_size % 512 ||
        geo->disk_size > WORD_WP_MASK) {
        error_setg(errp, "Disk size %" PRIu64 " of a zoned image is not a "
                   "multiple of 512 from 512 to %llu",
                   geo->disk_size, WORD_WP_MASK);
        return false;
    }
    nr_zones = zone_geometry_count(geo->disk_size, geo->zone_size);
    if (nr_zones > ZONE_NR_MAX) {
        error_setg(errp, "zone.size %" PRIu64 " divides the disk of %" PRIu64
                   " bytes into %" PRIu64 " zones, more than the %u possible",
                   geo->zone_size, geo->disk_size, nr_zones, ZONE_NR_MAX);
        return false;
    }
    if (geo->nr_zones != nr_zones) {
        error_setg(errp, "Number of zones is %" PRIu32 ", but a disk of %"
                   PRIu64 " bytes has %" PRIu64 " zones of %" PRIu64 " bytes",
                   geo->nr_zones, geo->disk_size, nr_zones, geo->zone_size);
        return false;
    }
    if (geo->zone_capacity == 0 || geo->zone_capacity % 512 ||
        geo->zone_capacity > geo->zone_size) {
        error_setg(errp, "zone.capacity %" PRIu64 " is not a multiple of 512 "
                   "from 512 to zone.size %" PRIu64,
                   geo->zone_capacity, geo->zone_size);
        return false;
    }
    if (geo->nr_conventional >= geo->nr_zones) {
        error_setg(errp, "zone.conventional_zones %" PRIu32 " is not below "
                   "the number of zones %" PRIu32,
                   geo->nr_conventional, geo->nr_zones);
        return false;
    }
    if (geo->max_active && geo->max_open > geo->max_active) {
        error_setg(errp, "zone.max_open_zones %" PRIu32 " is above "
                   "zone.max_active_zones %" PRIu32,
                   geo->max_open, geo->max_active);
        return false;
    }
    if (geo->max_append_bytes == 0 || geo->max_append_bytes % 512 ||
        geo->max_append_bytes > geo->zone_capacity) {
        error_setg(errp, "zone.max_append_bytes %" PRIu32 " is not a multiple "
                   "of 512 from 512 to zone.capacity %" PRIu64,
                   geo->max_append_bytes, geo->zone_capacity);
        return false;
    }
    return true;
}

const ZoneGeometry *zone_table_geometry(const ZoneTable *t)
{
    return &t->geo;
}

uint64_t zone_table_disk_size(const ZoneTable *t)
{
    return qatomic_read_u64(&t->geo.disk_size);
}

uint32_t zone_table_index(const ZoneTable *t, uint64_t offset)
{
    assert(offset < zone_table_disk_size(t));
    return offset >> t->zone_shift;
}

uint64_t zone_table_start(const ZoneTable *t, uint32_t zone)
{
    return (uint64_t)zone << t->zone_shift;
}

uint64_t zone_table_length(const ZoneTable *t, uint32_t zone)
{
    return MIN(t->geo.zone_size,
               zone_table_disk_size(t) - zone_table_start(t, zone));
}

static bool zone_is_conventional(const ZoneTable *t, uint32_t zone)
{
    return zone < t->geo.nr_conventional;
}

uint64_t zone_table_capacity(const ZoneTable *t, uint32_t zone)
{
    return zone_geometry_capacity(&t->geo, zone);
}

/* Where the zone is full */
static uint64_t zone_limit(const ZoneTable *t, uint32_t zone)
{
    return zone_table_start(t, zone) + zone_table_capacity(t, zone);
}

/* --- The word of a zone --- */

/* The first zone of a piece other than the first one */
static uint64_t piece_start(const ZoneTable *t, unsigned piece)
{
    return (uint64_t)t->nr_first << (piece - 1);
}

static aligned_uint64_t *zone_slot(const ZoneTable *t, uint32_t zone)
{
    unsigned piece;

    if (likely(zone < t->nr_first)) {
        return &t->words[0][zone];
    }
    /* Pairs with smp_wmb() in zone_table_grow(): @zone is known to be there. */
    smp_rmb();
    piece = 32 - clz32(zone / t->nr_first);
    return &qatomic_rcu_read(&t->words[piece])[zone - piece_start(t, piece)];
}

static inline uint64_t zone_word(const ZoneTable *t, uint32_t zone)
{
    uint64_t start = zone_table_start(t, zone);

    assert(start < zone_table_disk_size(t));
    return qatomic_read_u64(zone_slot(t, zone)) + start;
}

static void zone_set_word(ZoneTable *t, uint32_t zone, uint64_t word)
{
    qatomic_set_u64(zone_slot(t, zone), word - zone_table_start(t, zone));
}

static ZoneActivity word_activity(uint64_t word)
{
    return word & WORD_ACTIVITY_MASK;
}

static unsigned word_attributes(uint64_t word)
{
    return word >> WORD_ATTRIBUTES_SHIFT;
}

static uint64_t word_wp(uint64_t word)
{
    return word & WORD_WP_MASK;
}

uint64_t zone_table_snapshot(const ZoneTable *t, uint32_t zone,
                             unsigned *attributes)
{
    uint64_t word = zone_word(t, zone);

    *attributes = word_attributes(word);
    return word_wp(word);
}

uint64_t zone_table_wp(const ZoneTable *t, uint32_t zone)
{
    return word_wp(zone_word(t, zone));
}

unsigned zone_table_attributes(const ZoneTable *t, uint32_t zone)
{
    return word_attributes(zone_word(t, zone));
}

static ZoneActivity zone_activity(const ZoneTable *t, uint32_t zone)
{
    return word_activity(zone_word(t, zone));
}

static void zone_set_wp(ZoneTable *t, uint32_t zone, uint64_t wp)
{
    zone_set_word(t, zone, (zone_word(t, zone) & ~WORD_WP_MASK) | wp);
}

static void zone_set_attributes(ZoneTable *t, uint32_t zone,
                                unsigned attributes)
{
    uint64_t mask = (uint64_t)ZONE_ATTRIBUTES << WORD_ATTRIBUTES_SHIFT;

    zone_set_word(t, zone, (zone_word(t, zone) & ~mask) |
                           (uint64_t)attributes << WORD_ATTRIBUTES_SHIFT);
}

static void zone_set_finished(ZoneTable *t, uint32_t zone, bool finished)
{
    uint64_t bit = (uint64_t)ZONE_FINISHED << WORD_ATTRIBUTES_SHIFT;
    uint64_t word = zone_word(t, zone);

    zone_set_word(t, zone, finished ? word | bit : word & ~bit);
}

/* --- Conditions --- */

static void recency_remove(ZoneTable *t, uint32_t zone)
{
    ZoneRecency *r = g_hash_table_lookup(t->recency_of,
                                         GUINT_TO_POINTER(zone));

    QTAILQ_REMOVE(&t->recency, r, next);
    g_hash_table_remove(t->recency_of, GUINT_TO_POINTER(zone));
}

static void recency_insert(ZoneTable *t, uint32_t zone)
{
    ZoneRecency *r = g_new(ZoneRecency, 1);

    r->zone = zone;
    QTAILQ_INSERT_TAIL(&t->recency, r, next);
    g_hash_table_insert(t->recency_of, GUINT_TO_POINTER(zone), r);
}

/* @zone, which is implicitly open, is being written. */
static void recency_touch(ZoneTable *t, uint32_t zone)
{
    ZoneRecency *r;

    if (!t->geo.max_open || QTAILQ_LAST(&t->recency)->zone == zone) {
        return;
    }
    r = g_hash_table_lookup(t->recency_of, GUINT_TO_POINTER(zone));
    QTAILQ_REMOVE(&t->recency, r, next);
    QTAILQ_INSERT_TAIL(&t->recency, r, next);
}

/* The only place where counts and the list of implicitly open zones change. */
static void zone_set_activity(ZoneTable *t, uint32_t zone, ZoneActivity to)
{
    uint64_t word = zone_word(t, zone);
    ZoneActivity from = word_activity(word);

    if (from == to) {
        return;
    }
    if (t->geo.max_open && from == ZONE_IMPLICIT) {
        recency_remove(t, zone);
    }
    assert(t->count[from] > 0);
    t->count[from]--;
    t->count[to]++;
    zone_set_word(t, zone, (word & ~WORD_ACTIVITY_MASK) | to);
    if (t->geo.max_open && to == ZONE_IMPLICIT) {
        recency_insert(t, zone);
    }
}

/* The number of zones in @state, NULL if it follows from other numbers */
static uint32_t *inactive_count(ZoneTable *t, BlockZoneState state)
{
    switch (state) {
    case BLK_ZS_NOT_WP:
        return &t->nr_not_wp;
    case BLK_ZS_FULL:
        return &t->nr_full;
    case BLK_ZS_RDONLY:
        return &t->nr_read_only;
    case BLK_ZS_OFFLINE:
        return &t->nr_offline;
    default:
        return NULL;
    }
}

/* A zone in @from has got a word that means @to. */
static void count_change(ZoneTable *t, BlockZoneState from, BlockZoneState to)
{
    uint32_t *left = inactive_count(t, from);
    uint32_t *entered = inactive_count(t, to);

    if (left) {
        (*left)--;
    }
    if (entered) {
        (*entered)++;
    }
}

uint32_t zone_table_nr_open(const ZoneTable *t)
{
    return t->count[ZONE_IMPLICIT] + t->count[ZONE_EXPLICIT];
}

uint32_t zone_table_nr_active(const ZoneTable *t)
{
    return zone_table_nr_open(t) + t->count[ZONE_CLOSED];
}

ZoneCounts zone_table_count(const ZoneTable *t)
{
    return (ZoneCounts) {
        .not_wp             = t->nr_not_wp,
        .empty              = t->count[ZONE_INACTIVE] - t->nr_not_wp -
                              t->nr_full - t->nr_read_only - t->nr_offline,
        .implicitly_open    = t->count[ZONE_IMPLICIT],
        .explicitly_open    = t->count[ZONE_EXPLICIT],
        .closed             = t->count[ZONE_CLOSED],
        .full               = t->nr_full,
        .read_only          = t->nr_read_only,
        .offline            = t->nr_offline,
    };
}

/* The state that @zone is in if @word is its word */
static BlockZoneState word_state(const ZoneTable *t, uint32_t zone,
                                 uint64_t word)
{
    unsigned attributes = word_attributes(word);

    if (attributes & ZONE_OFFLINE) {
        return BLK_ZS_OFFLINE;
    }
    if (attributes & ZONE_READ_ONLY) {
        return BLK_ZS_RDONLY;
    }
    if (attributes & ZONE_CONVENTIONAL) {
        return BLK_ZS_NOT_WP;
    }

    switch (word_activity(word)) {
    case ZONE_IMPLICIT:
        return BLK_ZS_IOPEN;
    case ZONE_EXPLICIT:
        return BLK_ZS_EOPEN;
    case ZONE_CLOSED:
        return BLK_ZS_CLOSED;
    case ZONE_INACTIVE:
        return zone_table_entry_is_full(t, zone, word_wp(word), attributes)
               ? BLK_ZS_FULL : BLK_ZS_EMPTY;
    default:
        g_assert_not_reached();
    }
}

BlockZoneState zone_table_state(const ZoneTable *t, uint32_t zone)
{
    return word_state(t, zone, zone_word(t, zone));
}

bool zone_table_entry_is_active(const ZoneTable *t, uint32_t zone,
                                uint64_t wp, unsigned attributes)
{
    return attributes == 0 &&
           wp > zone_table_start(t, zone) && wp < zone_limit(t, zone);
}

bool zone_table_entry_is_full(const ZoneTable *t, uint32_t zone,
                              uint64_t wp, unsigned attributes)
{
    return (attributes & ZONE_FINISHED) || wp == zone_limit(t, zone);
}

void zone_table_describe(const ZoneTable *t, uint32_t zone,
                         BlockZoneDescriptor *desc)
{
    BlockZoneState state = zone_table_state(t, zone);
    uint64_t start = zone_table_start(t, zone);
    uint64_t length = zone_table_length(t, zone);

    *desc = (BlockZoneDescriptor) {
        .start  = start,
        .length = length,
        .cap    = zone_table_capacity(t, zone),
        .wp     = state == BLK_ZS_FULL ? start + length
                                       : zone_table_wp(t, zone),
        .type   = zone_is_conventional(t, zone) ? BLK_ZT_CONV : BLK_ZT_SWR,
        .state  = state,
    };
}

int64_t zone_table_run(const ZoneTable *t, uint64_t offset, uint64_t bytes,
                       bool *data)
{
    uint32_t zone = zone_table_index(t, offset);
    uint64_t end = zone_table_start(t, zone) + zone_table_length(t, zone);
    uint64_t word = zone_word(t, zone);
    unsigned attributes = word_attributes(word);
    uint64_t data_end = attributes & ZONE_CONVENTIONAL ? end : word_wp(word);

    assert(bytes > 0 && bytes <= zone_table_disk_size(t) - offset);

    if (attributes & ZONE_OFFLINE) {
        return -EINVAL;
    }
    *data = offset < data_end;
    return MIN(bytes, (*data ? data_end : end) - offset);
}

/* --- Life of the table --- */

ZoneTable *zone_table_new(const ZoneGeometry *geo)
{
    ZoneTable *t = g_new0(ZoneTable, 1);

    assert(zone_geometry_check(geo, NULL));

    t->geo = *geo;
    t->zone_shift = ctz64(geo->zone_size);
    t->nr_first = geo->nr_zones;
    t->words[0] = g_try_new0(aligned_uint64_t, geo->nr_zones);
    if (!t->words[0]) {
        g_free(t);
        return NULL;
    }
    for (uint32_t i = 0; i < geo->nr_conventional; i++) {
        zone_set_attributes(t, i, ZONE_CONVENTIONAL);
    }
    t->count[ZONE_INACTIVE] = geo->nr_zones;
    t->nr_not_wp = geo->nr_conventional;
    QTAILQ_INIT(&t->recency);
    t->recency_of = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    return t;
}

void zone_table_free(ZoneTable *t)
{
    if (t) {
        g_hash_table_destroy(t->recency_of);
        for (int i = 0; i < WORD_PIECES_MAX; i++) {
            g_free(t->words[i]);
        }
        g_free(t);
    }
}

static bool load_change(ZoneTable *t, uint32_t zone, uint64_t wp,
                        unsigned attributes, Error **errp)
{
    bool conventional = zone_is_conventional(t, zone);
    uint64_t start = zone_table_start(t, zone);
    uint64_t limit = conventional ? start : zone_limit(t, zone);
    uint64_t word = wp | (uint64_t)attributes << WORD_ATTRIBUTES_SHIFT;

    if (conventional != !!(attributes & ZONE_CONVENTIONAL)) {
        error_setg(errp, "Zone %" PRIu32 " is marked %s, but the first %"
                   PRIu32 " zones, and no others, are conventional", zone,
                   conventional ? "sequential" : "conventional",
                   t->geo.nr_conventional);
        return false;
    }
    if (attributes & ~ZONE_ATTRIBUTES) {
        error_setg(errp, "Zone %" PRIu32 " has unknown attributes 0x%x", zone,
                   attributes & ~ZONE_ATTRIBUTES);
        return false;
    }
    if (conventional && (attributes & ZONE_FINISHED)) {
        error_setg(errp, "Zone %" PRIu32 " is conventional and cannot be "
                   "finished", zone);
        return false;
    }
    if (wp < start || wp > limit || wp % 512) {
        error_setg(errp, "Zone %" PRIu32 ": write pointer %" PRIu64 " is not "
                   "a multiple of 512 from %" PRIu64 " to %" PRIu64,
                   zone, wp, start, limit);
        return false;
    }

    zone_set_word(t, zone, word);
    if (zone_table_entry_is_active(t, zone, wp, attributes)) {
        zone_set_activity(t, zone, ZONE_CLOSED);
        word = zone_word(t, zone);
    }
    count_change(t, conventional ? BLK_ZS_NOT_WP : BLK_ZS_EMPTY,
                 word_state(t, zone, word));
    return true;
}

bool zone_table_load(ZoneTable *t, uint32_t zone, uint64_t wp,
                     unsigned attributes, Error **errp)
{
    bool is_new = wp == zone_table_start(t, zone) &&
                  attributes == (zone_is_conventional(t, zone)
                                 ? ZONE_CONVENTIONAL : 0);

    /* So are most zones of a disk that has millions: leave memory alone. */
    return is_new || load_change(t, zone, wp, attributes, errp);
}

bool zone_table_repair(const ZoneTable *t, uint32_t zone, uint64_t *wp,
                       unsigned *attributes)
{
    bool marked_conventional = *attributes & ZONE_CONVENTIONAL;
    uint64_t start = zone_table_start(t, zone);
    uint64_t end = start + zone_table_length(t, zone);

    *attributes &= ZONE_READ_ONLY | ZONE_OFFLINE | ZONE_FINISHED;
    if (zone_is_conventional(t, zone)) {
        *attributes &= ~ZONE_FINISHED;
        *attributes |= ZONE_CONVENTIONAL;
        *wp = start;
        return true;
    }
    if (*wp < start || *wp > end || (*wp == start && marked_conventional)) {
        return false;
    }
    *wp = MIN(ROUND_DOWN(*wp, 512), zone_limit(t, zone));
    return true;
}

/* --- Growing --- */

static const char *state_name(BlockZoneState state)
{
    switch (state) {
    case BLK_ZS_IOPEN:
        return "implicitly open";
    case BLK_ZS_EOPEN:
        return "explicitly open";
    case BLK_ZS_CLOSED:
        return "CLOSED";
    case BLK_ZS_FULL:
        return "FULL, and not finished";
    case BLK_ZS_RDONLY:
        return "READ-ONLY";
    case BLK_ZS_OFFLINE:
        return "OFFLINE";
    default:
        g_assert_not_reached();
    }
}

/* The last zone is never conventional, see zone_geometry_check(). */
static bool check_short_zone(const ZoneTable *t, uint32_t zone, Error **errp)
{
    BlockZoneState state = zone_table_state(t, zone);

    if (state == BLK_ZS_EMPTY ||
        (state == BLK_ZS_FULL &&
         (zone_table_attributes(t, zone) & ZONE_FINISHED))) {
        return true;
    }
    error_setg(errp, "Zone %" PRIu32 ", the last one, is %" PRIu64 " bytes "
               "short of %" PRIu64 " and %s: it can only grow while it is "
               "EMPTY or finished", zone,
               t->geo.zone_size - zone_table_length(t, zone),
               t->geo.zone_size, state_name(state));
    return false;
}

bool zone_table_check_grow(const ZoneTable *t, uint64_t disk_size,
                           ZoneGeometry *geo, Error **errp)
{
    uint32_t last = t->geo.nr_zones - 1;

    if (disk_size < t->geo.disk_size) {
        error_setg(errp, "A zoned disk cannot shrink: %" PRIu64 " bytes are "
                   "less than the %" PRIu64 " it has",
                   disk_size, t->geo.disk_size);
        return false;
    }
    *geo = t->geo;
    geo->disk_size = disk_size;
    geo->nr_zones = MIN(zone_geometry_count(disk_size, geo->zone_size),
                        UINT32_MAX);
    if (!zone_geometry_check(geo, errp)) {
        return false;
    }
    return disk_size == t->geo.disk_size ||
           zone_table_length(t, last) == geo->zone_size ||
           check_short_zone(t, last, errp);
}

bool zone_table_reserve(ZoneTable *t, uint32_t nr_zones)
{
    for (unsigned i = 1; i < WORD_PIECES_MAX; i++) {
        uint64_t start = piece_start(t, i);

        if (start >= nr_zones) {
            break;
        }
        if (!t->words[i]) {
            aligned_uint64_t *piece =
                g_try_new0(aligned_uint64_t, MIN(start, ZONE_NR_MAX - start));

            if (!piece) {
                return false;
            }
            qatomic_rcu_set(&t->words[i], piece);
        }
    }
    return true;
}

void zone_table_grow(ZoneTable *t, uint64_t disk_size)
{
    uint32_t nr_zones = zone_geometry_count(disk_size, t->geo.zone_size);

    assert(disk_size >= t->geo.disk_size);

    t->count[ZONE_INACTIVE] += nr_zones - t->geo.nr_zones;
    t->geo.nr_zones = nr_zones;

    /* Pairs with smp_rmb() in zone_slot(). */
    smp_wmb();
    qatomic_set_u64(&t->geo.disk_size, disk_size);
}

/* --- Transitions --- */

/*
 * @zone stops being open.  With nothing written and nothing on its way it is
 * EMPTY, else CLOSED.
 */
static void zone_close(ZoneTable *t, uint32_t zone)
{
    uint64_t word = zone_word(t, zone);
    bool empty = word_wp(word) == zone_table_start(t, zone) &&
                 !(word & WORD_BUSY);

    zone_set_activity(t, zone, empty ? ZONE_INACTIVE : ZONE_CLOSED);
}

/*
 * Is there room to open @new_open zones more, of which @new_active were not
 * active before, if @victims implicitly open zones may be closed for it?
 */
static int check_limits(const ZoneTable *t, uint32_t new_open,
                        uint32_t new_active, uint32_t victims)
{
    if (t->geo.max_active && new_active &&
        (uint64_t)zone_table_nr_active(t) + t->nr_set_aside + new_active >
        t->geo.max_active) {
        return -EOVERFLOW;
    }
    if (t->geo.max_open && new_open &&
        (uint64_t)zone_table_nr_open(t) - victims + new_open >
        t->geo.max_open) {
        return -ETOOMANYREFS;
    }
    return 0;
}

/* Have room for one more open zone, which check_limits() allowed. */
static void make_room(ZoneTable *t)
{
    if (t->geo.max_open && zone_table_nr_open(t) >= t->geo.max_open) {
        zone_close(t, QTAILQ_FIRST(&t->recency)->zone);
    }
}

/* Open @zone, which is not open and may be opened. */
static void zone_open(ZoneTable *t, uint32_t zone, ZoneActivity how)
{
    make_room(t);
    zone_set_activity(t, zone, how);
}

static bool is_open(ZoneActivity activity)
{
    return activity == ZONE_IMPLICIT || activity == ZONE_EXPLICIT;
}

/* --- Writes --- */

/* A write to conventional zones, of which @first is the first. */
static int check_conventional_write(const ZoneTable *t, uint32_t first,
                                    uint64_t offset, uint64_t bytes)
{
    uint32_t last = zone_table_index(t, offset + bytes - 1);

    if (!zone_is_conventional(t, last)) {
        return -EINVAL;
    }
    for (uint32_t zone = first; zone <= last; zone++) {
        if (zone_table_attributes(t, zone) & (ZONE_READ_ONLY | ZONE_OFFLINE)) {
            return -EINVAL;
        }
    }
    return 0;
}

/*
 * Check a write to sequential @zone, whose word is @word, in the order of the
 * conditions, each of which has an error of its own.
 */
static int check_sequential_write(const ZoneTable *t, uint32_t zone,
                                  uint64_t word, uint64_t offset,
                                  uint64_t bytes, uint64_t reserved)
{
    uint64_t end = zone_table_start(t, zone) + zone_table_length(t, zone);
    ZoneActivity activity = word_activity(word);

    if (bytes > end - offset) {
        return -EINVAL;
    }
    /* FULL, READ-ONLY and OFFLINE zones are inactive. */
    if (activity == ZONE_INACTIVE &&
        word_state(t, zone, word) != BLK_ZS_EMPTY) {
        return -EINVAL;
    }
    if (offset != reserved) {
        return -ERANGE;
    }
    if (bytes > zone_limit(t, zone) - offset) {
        return -EINVAL;
    }
    switch (activity) {
    case ZONE_INACTIVE:
        return check_limits(t, 1, 1, t->count[ZONE_IMPLICIT]);
    case ZONE_CLOSED:
        return check_limits(t, 1, 0, t->count[ZONE_IMPLICIT]);
    default:
        return 0;
    }
}

static bool range_is_valid(const ZoneTable *t, uint64_t offset, uint64_t bytes)
{
    return bytes > 0 && bytes % 512 == 0 && offset % 512 == 0 &&
           offset < t->geo.disk_size && bytes <= t->geo.disk_size - offset;
}

static int write_sequential(ZoneTable *t, uint32_t zone, uint64_t offset,
                            uint64_t bytes, uint64_t reserved)
{
    uint64_t word = zone_word(t, zone);
    int ret = check_sequential_write(t, zone, word, offset, bytes, reserved);

    if (ret < 0) {
        return ret;
    }
    if (!is_open(word_activity(word))) {
        zone_open(t, zone, ZONE_IMPLICIT);
        word = zone_word(t, zone);
    } else if (word_activity(word) == ZONE_IMPLICIT) {
        recency_touch(t, zone);
    }
    zone_set_word(t, zone, word | WORD_BUSY);
    return 0;
}

int zone_table_write(ZoneTable *t, uint64_t offset, uint64_t bytes,
                     uint64_t reserved)
{
    uint32_t zone;

    if (!range_is_valid(t, offset, bytes)) {
        return -EINVAL;
    }
    zone = zone_table_index(t, offset);
    if (zone_is_conventional(t, zone)) {
        return check_conventional_write(t, zone, offset, bytes);
    }
    return write_sequential(t, zone, offset, bytes, reserved);
}

int zone_table_append(ZoneTable *t, uint64_t offset, uint64_t bytes,
                      uint64_t reserved)
{
    uint32_t zone;

    if (!range_is_valid(t, offset, bytes) ||
        bytes > t->geo.max_append_bytes) {
        return -EINVAL;
    }
    zone = zone_table_index(t, offset);
    if (zone_is_conventional(t, zone) || offset != zone_table_start(t, zone)) {
        return -EINVAL;
    }
    return write_sequential(t, zone, reserved, bytes, reserved);
}

void zone_table_acknowledge(ZoneTable *t, uint32_t zone, uint64_t wp,
                            bool busy)
{
    uint64_t limit = zone_limit(t, zone);
    uint64_t word = zone_word(t, zone);

    assert(wp > word_wp(word) && wp <= limit);
    assert(!busy || wp < limit);

    word &= ~(WORD_WP_MASK | WORD_BUSY);
    zone_set_word(t, zone, word | wp | (busy ? WORD_BUSY : 0));
    if (wp == limit) {
        zone_set_activity(t, zone, ZONE_INACTIVE);
        t->nr_full++;
    }
}

void zone_table_rewind(ZoneTable *t, uint32_t zone)
{
    zone_set_word(t, zone, zone_word(t, zone) & ~WORD_BUSY);
    if (zone_activity(t, zone) == ZONE_CLOSED) {
        zone_close(t, zone);
    }
}

/* --- Management --- */

static int check_range(const ZoneTable *t, uint64_t offset, uint64_t len,
                       ZoneRange *range)
{
    uint64_t disk_size = t->geo.disk_size;
    uint64_t in_zone = t->geo.zone_size - 1;

    if (offset >= disk_size || len == 0 || len > disk_size - offset ||
        (offset & in_zone) ||
        ((len & in_zone) && offset + len != disk_size)) {
        return -EINVAL;
    }
    range->first = zone_table_index(t, offset);
    range->count = zone_table_index(t, offset + len - 1) - range->first + 1;
    return 0;
}

static bool is_reset_all(const ZoneTable *t, BlockZoneOp op, ZoneRange range)
{
    return op == BLK_ZO_RESET_ALL ||
           (op == BLK_ZO_RESET && range.count == t->geo.nr_zones &&
            range.count > 1);
}

/* The conditions, on their own, in which a zone may be operated on */
static bool op_is_valid(BlockZoneOp op, BlockZoneState state)
{
    switch (state) {
    case BLK_ZS_IOPEN:
    case BLK_ZS_EOPEN:
    case BLK_ZS_CLOSED:
        return true;
    case BLK_ZS_EMPTY:
        /* VIRTIO has no transition for it; ZBC would let it pass. */
        return op != BLK_ZO_CLOSE;
    case BLK_ZS_FULL:
        return op == BLK_ZO_FINISH || op == BLK_ZO_RESET ||
               op == BLK_ZO_RESET_ALL;
    default:
        return false;
    }
}

/* Zones of @range that an explicit open adds, checked against the limits */
static int check_open_limits(const ZoneTable *t, ZoneRange range)
{
    uint32_t new_open = 0, new_active = 0;
    uint32_t victims = t->count[ZONE_IMPLICIT];

    for (uint32_t i = 0; i < range.count; i++) {
        switch (zone_activity(t, range.first + i)) {
        case ZONE_INACTIVE:
            new_open++;
            new_active++;
            break;
        case ZONE_CLOSED:
            new_open++;
            break;
        case ZONE_IMPLICIT:
            /* Becomes explicitly open, and a victim no more. */
            victims--;
            break;
        default:
            break;
        }
    }
    return check_limits(t, new_open, new_active, victims);
}

int zone_table_check(const ZoneTable *t, BlockZoneOp op, uint64_t offset,
                     uint64_t len, ZoneRange *range)
{
    int ret = check_range(t, offset, len, range);

    if (ret < 0) {
        return ret;
    }
    if (op == BLK_ZO_RESET_ALL && range->count != t->geo.nr_zones) {
        return -EINVAL;
    }
    if (is_reset_all(t, op, *range)) {
        /* Zones that cannot be reset are skipped, see zone_table_affects(). */
        return 0;
    }
    for (uint32_t i = 0; i < range->count; i++) {
        if (!op_is_valid(op, zone_table_state(t, range->first + i))) {
            return -EINVAL;
        }
    }
    return op == BLK_ZO_OPEN ? check_open_limits(t, *range) : 0;
}

/* First what is open already, so that it is no victim of what follows. */
static void open_range(ZoneTable *t, ZoneRange range)
{
    for (uint32_t i = 0; i < range.count; i++) {
        if (is_open(zone_activity(t, range.first + i))) {
            zone_set_activity(t, range.first + i, ZONE_EXPLICIT);
        }
    }
    for (uint32_t i = 0; i < range.count; i++) {
        if (!is_open(zone_activity(t, range.first + i))) {
            zone_open(t, range.first + i, ZONE_EXPLICIT);
        }
    }
}

static void zone_finish(ZoneTable *t, uint32_t zone)
{
    assert(!(zone_word(t, zone) & WORD_BUSY));
    zone_set_finished(t, zone, true);
    zone_set_activity(t, zone, ZONE_INACTIVE);
    t->nr_full++;
}

static void zone_reset(ZoneTable *t, uint32_t zone)
{
    assert(!(zone_word(t, zone) & WORD_BUSY));
    t->nr_full -= zone_table_state(t, zone) == BLK_ZS_FULL;
    zone_set_finished(t, zone, false);
    zone_set_wp(t, zone, zone_table_start(t, zone));
    zone_set_activity(t, zone, ZONE_INACTIVE);
}

bool zone_table_affects(const ZoneTable *t, BlockZoneOp op, uint32_t zone)
{
    switch (zone_table_state(t, zone)) {
    case BLK_ZS_IOPEN:
    case BLK_ZS_EOPEN:
    case BLK_ZS_CLOSED:
        return true;
    case BLK_ZS_EMPTY:
        return op == BLK_ZO_FINISH;
    case BLK_ZS_FULL:
        return op == BLK_ZO_RESET || op == BLK_ZO_RESET_ALL;
    default:
        return false;
    }
}

void zone_table_apply(ZoneTable *t, BlockZoneOp op, ZoneRange range)
{
    if (op == BLK_ZO_OPEN) {
        open_range(t, range);
        return;
    }

    for (uint32_t i = 0; i < range.count; i++) {
        uint32_t zone = range.first + i;

        switch (op) {
        case BLK_ZO_CLOSE:
            if (is_open(zone_activity(t, zone))) {
                zone_close(t, zone);
            }
            break;
        case BLK_ZO_FINISH:
            if (zone_table_affects(t, op, zone)) {
                zone_finish(t, zone);
            }
            break;
        case BLK_ZO_RESET:
        case BLK_ZO_RESET_ALL:
            if (zone_table_affects(t, op, zone)) {
                zone_reset(t, zone);
            }
            break;
        default:
            g_assert_not_reached();
        }
    }
}

/* --- Conditions set from outside --- */

unsigned zone_condition_attributes(unsigned attributes,
                                   BlockdevZoneCondition condition)
{
    attributes &= ~(ZONE_READ_ONLY | ZONE_OFFLINE);

    switch (condition) {
    case BLOCKDEV_ZONE_CONDITION_NORMAL:
        return attributes;
    case BLOCKDEV_ZONE_CONDITION_READ_ONLY:
        return attributes | ZONE_READ_ONLY;
    case BLOCKDEV_ZONE_CONDITION_OFFLINE:
        return attributes | ZONE_OFFLINE;
    default:
        g_assert_not_reached();
    }
}

/* Is @zone inactive, and CLOSED under @condition? */
static bool needs_slot(const ZoneTable *t, uint32_t zone,
                       BlockdevZoneCondition condition)
{
    uint64_t word = zone_word(t, zone);
    unsigned attributes = zone_condition_attributes(word_attributes(word),
                                                    condition);

    return word_activity(word) == ZONE_INACTIVE &&
           zone_table_entry_is_active(t, zone, word_wp(word), attributes);
}

int zone_table_check_condition(ZoneTable *t, BlockdevZoneCondition condition,
                               uint64_t offset, uint64_t len,
                               ZoneRange *range, uint32_t *slots)
{
    int ret = check_range(t, offset, len, range);

    *slots = 0;
    if (ret < 0) {
        return ret;
    }
    for (uint32_t i = 0; i < range->count; i++) {
        *slots += needs_slot(t, range->first + i, condition);
    }
    ret = check_limits(t, 0, *slots, 0);
    if (ret < 0) {
        return ret;
    }
    t->nr_set_aside += *slots;
    return 0;
}

void zone_table_give_back_slots(ZoneTable *t, uint32_t slots)
{
    assert(t->nr_set_aside >= slots);
    t->nr_set_aside -= slots;
}

void zone_table_set_condition(ZoneTable *t, uint32_t zone,
                              BlockdevZoneCondition condition)
{
    BlockZoneState from = zone_table_state(t, zone);
    uint64_t word = zone_word(t, zone);
    unsigned attributes = zone_condition_attributes(word_attributes(word),
                                                    condition);

    assert(!(word & WORD_BUSY));

    if (attributes == word_attributes(word)) {
        return;
    }
    /* Who reads the word in between, without the lock, sees no EMPTY zone. */
    if (needs_slot(t, zone, condition)) {
        zone_table_give_back_slots(t, 1);
        zone_set_activity(t, zone, ZONE_CLOSED);
        zone_set_attributes(t, zone, attributes);
    } else {
        zone_set_attributes(t, zone, attributes);
        zone_set_activity(t, zone, ZONE_INACTIVE);
    }
    count_change(t, from, zone_table_state(t, zone));
}

/* Count the zones in @state one by one. */
static uint32_t count_state(const ZoneTable *t, BlockZoneState state)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->geo.nr_zones; i++) {
        n += zone_table_state(t, i) == state;
    }
    return n;
}

static bool counts_are_consistent(const ZoneTable *t)
{
    ZoneCounts counts = zone_table_count(t);

    return counts.not_wp == count_state(t, BLK_ZS_NOT_WP) &&
           counts.empty == count_state(t, BLK_ZS_EMPTY) &&
           counts.implicitly_open == count_state(t, BLK_ZS_IOPEN) &&
           counts.explicitly_open == count_state(t, BLK_ZS_EOPEN) &&
           counts.closed == count_state(t, BLK_ZS_CLOSED) &&
           counts.full == count_state(t, BLK_ZS_FULL) &&
           counts.read_only == count_state(t, BLK_ZS_RDONLY) &&
           counts.offline == count_state(t, BLK_ZS_OFFLINE);
}

bool zone_table_is_consistent(const ZoneTable *t)
{
    uint32_t count[ZONE_ACTIVITY__MAX] = { 0 };
    uint32_t listed = 0;
    ZoneRecency *r;

    for (uint32_t i = 0; i < t->geo.nr_zones; i++) {
        uint64_t word = zone_word(t, i);
        ZoneActivity activity = word_activity(word);

        count[activity]++;
        if (activity != ZONE_INACTIVE &&
            (word_attributes(word) || word_wp(word) >= zone_limit(t, i))) {
            return false;
        }
        if (activity == ZONE_CLOSED && !(word & WORD_BUSY) &&
            word_wp(word) == zone_table_start(t, i)) {
            return false;
        }
    }
    QTAILQ_FOREACH(r, &t->recency, next) {
        if (zone_activity(t, r->zone) != ZONE_IMPLICIT) {
            return false;
        }
        listed++;
    }
    return !memcmp(count, t->count, sizeof(count)) &&
           counts_are_consistent(t) &&
           listed == (t->geo.max_open ? count[ZONE_IMPLICIT] : 0) &&
           listed == g_hash_table_size(t->recency_of) &&
           (!t->geo.max_open || zone_table_nr_open(t) <= t->geo.max_open);
}
