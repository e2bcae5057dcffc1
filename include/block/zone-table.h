/*
 * Zone table: the zones of a host-managed disk and the rules they live by
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_ZONE_TABLE_H
#define BLOCK_ZONE_TABLE_H

#include "block/block-common.h"
#include "qemu/atomic.h"

/*
 * The table holds the write pointer and the condition of every zone and knows
 * every transition between conditions (VIRTIO 1.3, 5.2.6; ZBC; ZNS).  It does
 * no I/O and never blocks.
 *
 * Locking: the table has no lock of its own.  All functions must be called
 * under a lock of the caller's, except those marked "lock-free", which may run
 * at any time beside them.
 *
 * Units: offsets and lengths are bytes on the virtual disk, a zone is named by
 * its index, 0 to nr_zones - 1.
 *
 * Two write pointers: a write reserves its range when it is submitted and is
 * acknowledged when it and all writes below it in its zone have completed.
 * The table stores the acknowledged write pointer.  The reserved one, which
 * the next write must match, is derived by the caller from the writes in
 * flight (see zone-writes.h) and passed in.
 *
 * Errors are those of the zone API (see BlockZoneOp): -ERANGE for a write not
 * at the write pointer, -EINVAL for any other broken rule, -EOVERFLOW for the
 * active limit, -ETOOMANYREFS for the open limit.  A refused request changes
 * nothing.
 */

typedef struct ZoneGeometry {
    aligned_uint64_t disk_size; /* bytes, a multiple of 512 */
    uint64_t zone_size;         /* bytes, a power of two, at most 1 TiB */
    uint64_t zone_capacity;     /* writable bytes of a sequential zone */
    uint32_t nr_zones;          /* the last one may be short */
    uint32_t nr_conventional;   /* the first zones of the disk */
    uint32_t max_open;          /* 0 = no limit */
    uint32_t max_active;        /* 0 = no limit */
    uint32_t max_append_bytes;
} ZoneGeometry;

#define ZONE_SIZE_MAX  (1ULL << 40)

/* The table's on-disk entries are 8 bytes each and must fit 32 bits in all. */
#define ZONE_NR_MAX    (UINT32_MAX / 8)

/* Attributes of a zone that do not follow from its write pointer. */
enum {
    ZONE_CONVENTIONAL = 1 << 0,
    ZONE_READ_ONLY    = 1 << 1,
    ZONE_OFFLINE      = 1 << 2,
    ZONE_FINISHED     = 1 << 3, /* FULL, with its data ending at the WP */
    ZONE_ATTRIBUTES   = 0xf,
};

typedef struct ZoneTable ZoneTable;

/* Zones @first to @first + @count - 1 */
typedef struct ZoneRange {
    uint32_t first;
    uint32_t count;
} ZoneRange;

/*
 * Number of zones of @zone_size bytes that cover @disk_size bytes.
 * @zone_size must not be 0.
 */
uint64_t zone_geometry_count(uint64_t disk_size, uint64_t zone_size);

/*
 * Check @geo against every rule for geometries.  On failure return false and
 * name the field, its value and the bound in @errp.
 */
bool zone_geometry_check(const ZoneGeometry *geo, Error **errp);

/*
 * Bytes that can be written to @zone, of a @geo that has passed the check: of a
 * conventional zone, and of a last one shorter than zone_capacity, all it has.
 */
uint64_t zone_geometry_capacity(const ZoneGeometry *geo, uint32_t zone);

/*
 * Create a table with all sequential zones EMPTY.  @geo must have passed
 * zone_geometry_check().  Return NULL if memory is short.
 */
ZoneTable *zone_table_new(const ZoneGeometry *geo);
void zone_table_free(ZoneTable *t);

/*
 * Give @zone, which must be as zone_table_new() made it, the write pointer
 * and attributes it had before a power cycle.  A sequential zone with data
 * and room for more becomes CLOSED, and is counted even beyond max_active.
 * Return false and name the zone in @errp if they break a rule; the zone is
 * unchanged then.
 */
bool zone_table_load(ZoneTable *t, uint32_t zone, uint64_t wp,
                     unsigned attributes, Error **errp);

/*
 * Lock-free.  For a repair: turn what zone_table_load() refuses for @zone into
 * what it takes.  @zone gets its type, and keeps the other attributes that it
 * can have.  A write pointer in @zone is taken for what it says, but no data
 * comes in parts of a sector, or lies above the capacity.
 *
 * Return false and leave @wp alone if it cannot be a write pointer of @zone,
 * so that nobody knows where the data ends: it is outside, or it is the start
 * of a zone marked as conventional, where that means nothing.
 */
bool zone_table_repair(const ZoneTable *t, uint32_t zone, uint64_t *wp,
                       unsigned *attributes);

/*
 * Lock-free but for the size of the disk and the number of zones, which change
 * if it grows.  All else stays as long as the table lives.
 */
const ZoneGeometry *zone_table_geometry(const ZoneTable *t);

/* Lock-free. */
uint64_t zone_table_disk_size(const ZoneTable *t);

/*
 * A disk grows in three steps, so that nothing can fail in the last one.  One
 * caller at a time takes them.
 *
 * First: may it grow to @disk_size bytes?  If so, return true, and in *@geo the
 * geometry that it will have.  A last zone that is short and grows with it must
 * be EMPTY or finished, or its write pointer would get room above it, which
 * would have to be paid for with an active slot; it must not be written until
 * the last step is done.  If not, say so in @errp, with the values and bounds.
 */
bool zone_table_check_grow(const ZoneTable *t, uint64_t disk_size,
                           ZoneGeometry *geo, Error **errp);

/*
 * Second, without the lock: get memory for @nr_zones zones.  Return false if it
 * is short.  This need not lead to anything.
 */
bool zone_table_reserve(ZoneTable *t, uint32_t nr_zones);

/*
 * Third: the disk has @disk_size bytes, as has been checked, and memory for
 * them has been reserved.  New zones are sequential and EMPTY.
 */
void zone_table_grow(ZoneTable *t, uint64_t disk_size);

/* Lock-free.  Zone that contains @offset, which must be below disk_size. */
uint32_t zone_table_index(const ZoneTable *t, uint64_t offset);
uint64_t zone_table_start(const ZoneTable *t, uint32_t zone);
/* Lock-free.  Bytes from start to start of the next zone or end of disk. */
uint64_t zone_table_length(const ZoneTable *t, uint32_t zone);
/* Lock-free.  Writable bytes; those of a conventional zone are its length. */
uint64_t zone_table_capacity(const ZoneTable *t, uint32_t zone);

/*
 * Lock-free.  Acknowledged write pointer: where the data of a sequential zone
 * ends, finished or not; the start of a conventional zone.
 */
uint64_t zone_table_wp(const ZoneTable *t, uint32_t zone);
/* Lock-free. */
unsigned zone_table_attributes(const ZoneTable *t, uint32_t zone);
/* Lock-free.  A consistent pair of zone_table_wp() and attributes. */
uint64_t zone_table_snapshot(const ZoneTable *t, uint32_t zone,
                             unsigned *attributes);

/*
 * Lock-free.  Length of the run from @offset, at most @bytes (> 0, within the
 * disk), in which every byte is alike: *@data is true where the zone has data
 * and false where it reads as zeros.  A run never leaves its zone.
 * -EINVAL in an OFFLINE zone.
 */
int64_t zone_table_run(const ZoneTable *t, uint64_t offset, uint64_t bytes,
                       bool *data);

/* Lock-free. */
BlockZoneState zone_table_state(const ZoneTable *t, uint32_t zone);
/*
 * Describe @zone for a report.  The write pointer of a FULL zone is the end
 * of the zone; that of a zone that has none to report (conventional, OFFLINE)
 * is what the table holds.
 */
void zone_table_describe(const ZoneTable *t, uint32_t zone,
                         BlockZoneDescriptor *desc);
uint32_t zone_table_nr_open(const ZoneTable *t);
uint32_t zone_table_nr_active(const ZoneTable *t);

/* Number of zones in each state */
typedef struct ZoneCounts {
    uint32_t not_wp;            /* conventional */
    uint32_t empty;
    uint32_t implicitly_open;
    uint32_t explicitly_open;
    uint32_t closed;
    uint32_t full;
    uint32_t read_only;
    uint32_t offline;
} ZoneCounts;

/* Takes the same time for any number of zones. */
ZoneCounts zone_table_count(const ZoneTable *t);

/*
 * Would an entry (@wp, @attributes) of sequential @zone be CLOSED, or FULL,
 * after a power cycle?  Lock-free; says nothing about the zone's present
 * state.
 */
bool zone_table_entry_is_active(const ZoneTable *t, uint32_t zone,
                                uint64_t wp, unsigned attributes);
bool zone_table_entry_is_full(const ZoneTable *t, uint32_t zone,
                              uint64_t wp, unsigned attributes);

/*
 * Check a write of @bytes (> 0) at @offset, and on success count it in: the
 * zone is open now and expects zone_table_acknowledge() or _rewind().
 * @reserved is the reserved write pointer of the zone that contains @offset
 * (not looked at if @offset is beyond the disk or in a conventional zone).
 * A write that spans zones is wrong whatever the write pointer is: -EINVAL.
 * A write to conventional zones changes nothing and expects nothing.
 */
int zone_table_write(ZoneTable *t, uint64_t offset, uint64_t bytes,
                     uint64_t reserved);

/*
 * The same for a zone append to the zone that starts at @offset: on success
 * the write belongs at @reserved.
 */
int zone_table_append(ZoneTable *t, uint64_t offset, uint64_t bytes,
                      uint64_t reserved);

/*
 * Data of @zone is there up to @wp.  @busy: more writes are in flight.  A
 * zone that reaches its capacity becomes FULL and gives up its slots.
 */
void zone_table_acknowledge(ZoneTable *t, uint32_t zone, uint64_t wp,
                            bool busy);

/*
 * The writes in flight of @zone failed and are gone: the acknowledged write
 * pointer is the only one again.
 */
void zone_table_rewind(ZoneTable *t, uint32_t zone);

/*
 * Check @op on the zones of [@offset, @offset + @len) and all its conditions,
 * limits included, without changing anything.  On success *@range says what
 * zone_table_apply() takes.  BLK_ZO_RESET of the whole disk is RESET_ALL,
 * unless the disk has one zone only; RESET_ALL takes nothing but the whole
 * disk.
 */
int zone_table_check(const ZoneTable *t, BlockZoneOp op, uint64_t offset,
                     uint64_t len, ZoneRange *range);

/*
 * Carry out what zone_table_check() allowed, under the same hold of the lock
 * or, for finish and reset, with the zones held (zone_writes_hold()): these
 * need every zone of @range without writes in flight.
 */
void zone_table_apply(ZoneTable *t, BlockZoneOp op, ZoneRange range);

/*
 * A condition that is set from outside comes before the state that a zone has
 * by itself: a READ-ONLY or OFFLINE zone is not active, and keeps its write
 * pointer.  Back to normal, it has the state that follows from its entry, as
 * after a power cycle.
 *
 * Check @condition for the zones of [@offset, @offset + @len), whole ones of
 * any type.  -EOVERFLOW if more of them would be CLOSED than max_active
 * permits.  On success *@range is these zones, and the active slots that they
 * need are set aside; their number is in *@slots.  On failure, too.
 */
int zone_table_check_condition(ZoneTable *t, BlockdevZoneCondition condition,
                               uint64_t offset, uint64_t len,
                               ZoneRange *range, uint32_t *slots);

/*
 * Give @zone, one of a range that was checked and without writes in flight,
 * @condition.  It takes the slot that was set aside for it, if any.
 */
void zone_table_set_condition(ZoneTable *t, uint32_t zone,
                              BlockdevZoneCondition condition);

/* No zone takes the @slots that zone_table_check_condition() set aside. */
void zone_table_give_back_slots(ZoneTable *t, uint32_t slots);

/* Attributes of a zone that has @attributes, under @condition */
unsigned zone_condition_attributes(unsigned attributes,
                                   BlockdevZoneCondition condition);

/*
 * Lock-free.  Does @op (finish or reset), which zone_table_check() allowed,
 * change the condition of @zone?  If not, zone_table_apply() leaves it alone:
 * idempotent successes, and the zones that RESET_ALL skips.
 */
bool zone_table_affects(const ZoneTable *t, BlockZoneOp op, uint32_t zone);

/*
 * For tests: are counts, lists, limits and conditions consistent?  Takes time
 * in proportion to the number of zones.
 */
bool zone_table_is_consistent(const ZoneTable *t);

#endif
