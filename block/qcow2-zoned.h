/*
 * Zoned qcow2 images: what the rest of the qcow2 driver may call
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_QCOW2_ZONED_H
#define BLOCK_QCOW2_ZONED_H

#include "block/zone-table.h"
#include "block/zone-writes.h"
#include "qemu/bitmap.h"
#include "qemu/seqlock.h"
#include "qemu/units.h"
#include "qcow2.h"

#define QCOW2_EXT_MAGIC_ZONED 0x007a6264

/* The header extension, see docs/interop/zoned-qcow2.rst.  All big-endian. */
typedef struct QEMU_PACKED Qcow2ZonedExt {
    uint8_t zoned;
    uint8_t incompatible_features;
    uint8_t compatible_features;
    uint8_t reserved;
    uint32_t nr_zones;
    uint64_t zone_size;
    uint64_t zone_capacity;
    uint32_t conventional_zones;
    uint32_t max_active_zones;
    uint32_t max_open_zones;
    uint32_t max_append_bytes;
    uint64_t zonedmeta_offset;
} Qcow2ZonedExt;

QEMU_BUILD_BUG_ON(sizeof(Qcow2ZonedExt) != 48);
QEMU_BUILD_BUG_ON(offsetof(Qcow2ZonedExt, zone_size) != 8);
QEMU_BUILD_BUG_ON(offsetof(Qcow2ZonedExt, max_append_bytes) != 36);
QEMU_BUILD_BUG_ON(offsetof(Qcow2ZonedExt, zonedmeta_offset) != 40);

#define QCOW2_ZONE_ENTRY_SIZE 8

/*
 * A run of the virtual disk, within a zone, that is mapped to a run of the
 * data file in clusters that may be overwritten in place.
 */
typedef struct Qcow2ZonedWindow {
    aligned_int64_t offset;
    aligned_int64_t bytes;
    aligned_int64_t host_offset;
} Qcow2ZonedWindow;

#define QCOW2_ZONED_WINDOWS 256

/*
 * A chunk of the table on disk, big-endian, as it is there or is to be.  Chunk
 * n finds its place at n % QCOW2_ZONED_CHUNKS of an array.
 */
#define QCOW2_ZONED_CHUNKS 8
#define QCOW2_ZONED_CHUNK_SIZE 65536
#define QCOW2_ZONED_CHUNK_ENTRIES \
    (QCOW2_ZONED_CHUNK_SIZE / QCOW2_ZONE_ENTRY_SIZE)
#define QCOW2_ZONED_CHUNK_BLOCKS (QCOW2_ZONED_CHUNK_SIZE / BDRV_SECTOR_SIZE)

typedef struct Qcow2ZonedChunk {
    uint64_t *entries;          /* NULL if there is none */
    uint32_t number;
    DECLARE_BITMAP(dirty, QCOW2_ZONED_CHUNK_BLOCKS);    /* to be written */
} Qcow2ZonedChunk;

/*
 * The zoned part of an open image.  It exists from when the header extension
 * has been read.  The zones themselves come with @table, which is NULL while
 * the image is being created, under BDRV_O_NO_IO, and under BDRV_O_CHECK: then
 * nobody may deal with zones.
 */
typedef struct Qcow2Zoned {
    /* The header extension, with what of it this version does not know */
    Qcow2ZonedExt ext;
    uint8_t *ext_rest;
    size_t ext_rest_len;

    /*
     * When the disk grows, these change under management, table_io, and the
     * lock of BDRVQcow2State.  Who has none of them asks @table.
     */
    ZoneGeometry geo;
    uint64_t table_offset;

    uint32_t nr_bad_entries;    /* zones that were loaded without a good one */
    bool rescue;                /* opened with zone-rescue=on */
    bool table_is_lost;         /* in rescue: do not even read it */
    bool table_is_shared;       /* in a check: with other data or metadata */
    bool handing_over;          /* in qcow2_zoned_hand_over() */

    /* Of an image that is opened for information only, if it was readable */
    BlockZoneCounts *states;
    uint64_t written;           /* below write pointers, in bytes */
    bool stays_dirty;           /* for the next one to open it to repair */

    /*
     * Zones that the table says to be explicitly open, NULL if there are none.
     * Changes before anybody deals with zones, then under table_io.
     */
    HBitmap *handed_over_open;

    ZoneTable *table;
    ZoneWrites writes;

    /*
     * Where the zones that are being written are mapped: a cache, in which
     * zone n finds its place at n % QCOW2_ZONED_WINDOWS.  Changes under the
     * lock of BDRVQcow2State, is read without.
     */
    QemuSeqLock windows_seq;
    Qcow2ZonedWindow windows[QCOW2_ZONED_WINDOWS];
    unsigned int windows_forgotten;     /* only changes; not read without */

    /* Protected by the lock of BDRVQcow2State: entries, of new L2 tables */
    bool l1_writes_fail;

    /* One reset, finish, trim or resize at a time.  Taken before table_io. */
    CoMutex management;

    /* Protected by management: */
    HBitmap *to_trim;           /* zones; NULL as long as none has been */
    bool trimming;              /* in the background */

    /*
     * Serialises I/O on the table, from the snapshot of what is to be stored
     * to its end, so that a flush cannot write back a write pointer from
     * before a reset.  Nobody waits for writes in flight while holding it: a
     * FUA write flushes as a part of itself.
     */
    CoMutex table_io;

    /* Protected by table_io: */
    uint64_t table_size;        /* in the image file, in bytes */
    uint32_t block_size;        /* of writes to it, in bytes, a power of two */
    Qcow2ZonedChunk chunks[QCOW2_ZONED_CHUNKS];
    GArray *snapshot;           /* of ZoneEntry */

    /*
     * A finish, reset or condition failed: entries of dirty zones may say what
     * never came about, and must be put right before any other is stored.
     */
    bool table_is_off;

    /*
     * Resizing failed, and the header on disk may say that it did not: that the
     * table is here.  Must be put right before entries are stored.  0 if none.
     */
    uint64_t failed_table_offset;
    uint64_t failed_table_size;

    /* The same of the L1 table, and that the header may say that it is here. */
    uint64_t failed_l1_offset;
    uint64_t failed_l1_size;

    /*
     * Active zones in the table as a power cut may leave it, at the most; and
     * how many of them are gone when the next flush of the image file
     * succeeds: of those staged, of those also written.
     */
    uint32_t disk_active;
    uint32_t disk_freed_staged;
    uint32_t disk_freed_written;
} Qcow2Zoned;

/* The size of the table, without what fills up its last cluster */
static inline uint64_t qcow2_zoned_table_bytes(const ZoneGeometry *geo)
{
    return (uint64_t)geo->nr_zones * QCOW2_ZONE_ENTRY_SIZE;
}

/* Who goes through all of the table takes this many bytes at a time. */
#define QCOW2_ZONED_LOAD_SIZE (1 * MiB)

/* Zones that are dealt with under one hold of the lock */
#define QCOW2_ZONED_LOCK_BATCH 1024

/* NULL if the image is not zoned */
static inline Qcow2Zoned *qcow2_zoned_of(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    return s->zoned;
}

/* Are there zones to be dealt with?  False while an image is being created. */
static inline bool qcow2_has_zones(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    return z && z->table;
}

/*
 * qcow2-zoned.c: the format
 */

/* An entry of the list of creation options */
#define QCOW2_ZONE_OPT(opt_name, opt_type, opt_help)                    \
    {                                                                   \
        .name = "zone." opt_name,                                       \
        .type = opt_type,                                               \
        .help = opt_help,                                               \
    }

/*
 * Take the header extension of @len bytes at @offset of the image file.  Only
 * stores it, replacing one taken before; qcow2_zoned_open() judges it.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_read_ext(BlockDriverState *bs, uint64_t offset, uint32_t len,
                     Error **errp);

/*
 * The header extension to write, to be freed by the caller, and in @len its
 * length; NULL if the image is not zoned.
 */
void *qcow2_zoned_get_ext(BlockDriverState *bs, size_t *len);

/*
 * Validate the extension and load the table.  The rest of the image is open,
 * but nothing has been written to it yet, not even to repair it.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_open(BlockDriverState *bs, int flags, Error **errp);

/*
 * The image was opened to take it over alive, as the destination of a
 * migration does: zones that were explicitly open are so again.
 */
void qcow2_zoned_take_over(BlockDriverState *bs);

/* Free everything.  Nothing may be in flight. */
void qcow2_zoned_close(BlockDriverState *bs);

/*
 * Refuse to make writable what has entries that only reading may overlook, and
 * to change the option zone-rescue to @rescue: it is for loading the table.
 */
int qcow2_zoned_reopen_prepare(BlockDriverState *bs, int flags, bool rescue,
                               Error **errp);

/* Jobs and commands that know no zones: BlockDriver.bdrv_refuses_op */
bool GRAPH_RDLOCK
qcow2_zoned_refuses_op(BlockDriverState *bs, BlockOpType op, Error **errp);

/* Check what the types of QAPI would refuse with less to go by. */
bool qcow2_zoned_check_opts(QemuOpts *opts, Error **errp);

/*
 * Check the options for creating an image in @file, before anything is written.
 * Replaces limits that are none by 0, and gives an overlay the geometry of its
 * backing image.
 */
int coroutine_fn GRAPH_UNLOCKED
qcow2_zoned_check_create(BlockDriverState *file,
                         BlockdevCreateOptionsQcow2 *opts, int version,
                         size_t cluster_size, Error **errp);

/*
 * Make @bs, an image of size 0 that is being created, one with a table for the
 * disk that @opts describes: an empty one, or that of its backing image.  Until
 * the image gets the size of that disk, nobody can open it.
 */
int coroutine_fn GRAPH_UNLOCKED
qcow2_zoned_co_create(BlockDriverState *bs, BlockdevCreateOptionsQcow2 *opts,
                      Error **errp);

/*
 * Bytes that the table of an image to be created with @opts will take, 0 if
 * it will not be zoned; or a negative errno for options that are wrong.  Sets
 * *@ahead to what would be mapped above the write pointers, at most, if @in_bs,
 * which may be NULL, was converted to it.
 */
int64_t GRAPH_RDLOCK
qcow2_zoned_measure(QemuOpts *opts, BlockDriverState *in_bs,
                    uint64_t disk_size, size_t cluster_size, int64_t *ahead,
                    Error **errp);

/* NULL if the image is not zoned */
ImageInfoSpecificQCow2Zoned *qcow2_zoned_get_info(BlockDriverState *bs);

/*
 * BlockDriver.bdrv_get_specific_stats: the number of zones in each state, NULL
 * if there are none
 */
BlockStatsSpecific *qcow2_zoned_get_stats(BlockDriverState *bs);

/* Does the range of the image file overlap the table? */
bool qcow2_zoned_overlaps(BlockDriverState *bs, uint64_t offset,
                          uint64_t bytes);

/*
 * The entry of @zone in the table as it stands on disk, big-endian, and back.
 * Decoding only takes it apart, see zone_table_load() for whether it is good.
 */
uint64_t qcow2_zoned_encode(uint64_t wp, unsigned attributes);
uint64_t qcow2_zoned_encode_open(uint64_t wp);
uint64_t qcow2_zoned_decode(uint64_t entry, unsigned *attributes);

/* The options that an image of @geo is created with */
Qcow2ZoneHostManaged qcow2_zoned_options(const ZoneGeometry *geo);

/*
 * Give @zone of @t, which is as zone_table_new() made it, what @entry says.
 * On failure it is unchanged, and @errp says why.
 */
bool qcow2_zoned_load_entry(ZoneTable *t, uint32_t zone, uint64_t entry,
                            Error **errp);

/* @entry of @zone is bad: load @zone of @t with something else. */
typedef void coroutine_fn
Qcow2ZonedBadEntryFn(BlockDriverState *bs, ZoneTable *t, uint32_t zone,
                     uint64_t entry, void *opaque);

/*
 * Load the table from disk into @t, with @bad_entry to make up for entries
 * that are bad.  Zones whose entry says that they are explicitly open are
 * set in @open, unless that is NULL.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_load_table(BlockDriverState *bs, ZoneTable *t, HBitmap *open,
                       Qcow2ZonedBadEntryFn *bad_entry, void *opaque);

/*
 * Write all of a table of zones, at @table_offset of the image file.  Those in
 * @open, which may be NULL, are explicitly open.
 */
int coroutine_mixed_fn GRAPH_RDLOCK
qcow2_zoned_write_table(BlockDriverState *bs, const ZoneTable *t,
                        const HBitmap *open, uint64_t table_offset);

/*
 * qcow2-zoned-backing.c: overlays
 */

/* On failure, @errp names the first field that differs, with both values. */
bool qcow2_zoned_same_geometry(const ZoneGeometry *overlay,
                               const ZoneGeometry *backing,
                               const char *backing_name, Error **errp);

/*
 * BlockDriver.bdrv_check_backing: a zoned image needs another one of the same
 * geometry.
 */
bool GRAPH_RDLOCK
qcow2_zoned_check_backing(BlockDriverState *bs, BlockDriverState *backing,
                          Error **errp);

/*
 * Fill in the options of a zoned image from the geometry of its backing image.
 * Those that were given must not differ.
 */
bool qcow2_zoned_inherit_options(BlockdevCreateOptionsQcow2 *opts,
                                 const ZoneGeometry *backing, Error **errp);

/*
 * The zones of the backing image that @opts names for an overlay in @file, as
 * they are after a power cycle; NULL if they cannot be inherited.
 */
ZoneTable *coroutine_fn GRAPH_UNLOCKED
qcow2_zoned_load_backing(BlockDriverState *file,
                         const BlockdevCreateOptionsQcow2 *opts,
                         Error **errp);

/*
 * BlockDriver.bdrv_co_inherit_zones: the zones of @backing, which is drained
 * and has been flushed, become those of @bs, which is new.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_inherit(BlockDriverState *bs, BlockDriverState *backing,
                       Error **errp);

/*
 * qcow2-zoned-check.c: check and repair
 */

/*
 * Count the table's clusters in the refcounts that a check computes.  Fails,
 * to prevent a repair, if clusters that have been counted before overlap it.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_check_refcounts(BlockDriverState *bs, BdrvCheckResult *res,
                            BdrvCheckMode fix, void **refcount_table,
                            int64_t *nb_clusters);

/*
 * Check the table, and with BDRV_FIX_ERRORS repair it.  This is for images
 * that have been opened with BDRV_O_CHECK, and does nothing else to others:
 * the refcounts of one that is to be used can be repaired, but not its zones.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_check(BlockDriverState *bs, BdrvCheckResult *res,
                  BdrvCheckMode fix);

/*
 * qcow2-zoned-snapshot.c: internal snapshots
 *
 * Creation and deletion may be called for any image, and do what the function
 * of the same name without _zoned does if it is not zoned.
 */

int GRAPH_RDLOCK
qcow2_zoned_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info);
int GRAPH_RDLOCK
qcow2_zoned_snapshot_delete(BlockDriverState *bs, const char *snapshot_id,
                            const char *name, Error **errp);

/*
 * Parts of these, which do nothing if the image is not zoned: give @sn, which
 * is not in use yet, a copy of the table, and free that of one which is not in
 * use any more.
 */
int GRAPH_RDLOCK
qcow2_zoned_snapshot_copy_table(BlockDriverState *bs, QCowSnapshot *sn);
void GRAPH_RDLOCK
qcow2_zoned_snapshot_free_table(BlockDriverState *bs, const QCowSnapshot *sn);

/* Go back to @sn, of a zoned image, with data and zones in one step. */
int GRAPH_RDLOCK
qcow2_zoned_snapshot_goto(BlockDriverState *bs, const QCowSnapshot *sn);

/*
 * Have the zones of an image that is read-only be as in @sn, if there are any.
 */
int GRAPH_RDLOCK
qcow2_zoned_snapshot_load_tmp(BlockDriverState *bs, const QCowSnapshot *sn,
                              Error **errp);

/* Has a snapshot left refcounts that whoever opens the image must repair? */
static inline bool qcow2_zoned_stays_dirty(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    return z && z->stays_dirty;
}

/* Does the range of the image file overlap a copy of the table? */
bool GRAPH_RDLOCK
qcow2_zoned_snapshots_overlap(BlockDriverState *bs, uint64_t offset,
                              uint64_t bytes);

/* Add to what a check has found.  There may be more than an int can count. */
static inline void qcow2_zoned_count_corruptions(BdrvCheckResult *res,
                                                 uint64_t count)
{
    res->corruptions = MIN(res->corruptions + count, INT_MAX);
}

/* Count the clusters of all copies in the refcounts that a check computes. */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_check_snapshot_refcounts(BlockDriverState *bs,
                                     BdrvCheckResult *res,
                                     void **refcount_table,
                                     int64_t *nb_clusters);

/* Check all copies, and with BDRV_FIX_ERRORS repair their entries. */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_check_snapshots(BlockDriverState *bs, BdrvCheckResult *res,
                            BdrvCheckMode fix);

/*
 * qcow2-zoned-alloc.c: clusters ahead of the write pointers
 */

/*
 * Map @offset, in a sequential zone and the range of a write that has begun,
 * to the data file.  Returns its offset there, and in *@bytes, which it may
 * decrease, how much can be written from there on in place; or a negative
 * errno.  The mapping lasts until the write ends.
 */
int64_t coroutine_fn GRAPH_RDLOCK
qcow2_zoned_map(BlockDriverState *bs, int64_t offset, int64_t *bytes);

/*
 * Bytes that would be mapped above the write pointers, at most, if the data of
 * @in_bs was written to zones of @geo; or a negative errno.
 */
int64_t GRAPH_RDLOCK
qcow2_zoned_measure_ahead(const ZoneGeometry *geo, BlockDriverState *in_bs,
                          size_t cluster_size, Error **errp);

/*
 * Clusters of the zone at @offset have been zeroed or unmapped, and nothing
 * that could map them again is under way.
 */
void coroutine_fn qcow2_zoned_forget_window(BlockDriverState *bs,
                                            int64_t offset);

/* The same for all clusters that are mapped.  Nothing is in flight. */
void qcow2_zoned_forget_windows(BlockDriverState *bs);

/*
 * Give back to the host what the image stores of the range above write
 * pointers, and does not need.  Sequential zones in it are held one part after
 * the other.
 */
void coroutine_fn GRAPH_RDLOCK
qcow2_zoned_trim(BlockDriverState *bs, int64_t offset, int64_t bytes);

/*
 * The same for zones that have just been reset, if the image was opened with
 * discard=unmap; returns at once.  Draining waits for it.  @management is
 * held.
 */
void coroutine_fn qcow2_zoned_trim_later(BlockDriverState *bs,
                                         ZoneRange zones);

/*
 * qcow2-zoned-table.c: the table on disk
 */

/*
 * Have the table, once the image file is next flushed, cover all that has been
 * acknowledged; what it covers is durable when this returns 0.  Returns 1 if
 * the table is durable, too.
 */
int coroutine_fn GRAPH_RDLOCK qcow2_zoned_store_dirty(BlockDriverState *bs);

/*
 * Finish or reset the zones of @range, which are held: first, and durably, in
 * the table, then in memory.  On failure memory has it as before.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_store_op(BlockDriverState *bs, BlockZoneOp op, ZoneRange range);

/*
 * Have the table on disk say all that has been acknowledged, and read it anew
 * when it is next needed.  @table_io is held.
 */
int coroutine_fn GRAPH_RDLOCK qcow2_zoned_unstage(BlockDriverState *bs);

/*
 * Give the zones of @range, to which no request is in flight and which have
 * been checked, @condition: first, and durably, in the table, then in memory.
 * On failure memory has it as before.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_store_condition(BlockDriverState *bs,
                            BlockdevZoneCondition condition, ZoneRange range);

/*
 * All of a flush, in a coroutine or not.  -EBUSY if anything is in flight.
 */
int coroutine_mixed_fn GRAPH_RDLOCK
qcow2_zoned_inactivate(BlockDriverState *bs);

/* BlockDriver.bdrv_inactivate: whoever opens the image next takes it over. */
int GRAPH_RDLOCK qcow2_zoned_hand_over(BlockDriverState *bs);

/*
 * qcow2-zoned-resize.c: growing the disk
 */

/*
 * BlockDriver.bdrv_co_truncate, but for the sizes of caches.  On failure the
 * disk goes on as it was.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_grow(BlockDriverState *bs, int64_t disk_size, bool exact,
                    PreallocMode prealloc, Error **errp);

static inline bool qcow2_zoned_header_is_off(BlockDriverState *bs)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);

    return z->failed_table_offset || z->failed_l1_offset;
}

/*
 * Growing the L1 table failed: have the header say where the old one is.  Else
 * the new one, which the disk may have then, must not be freed before
 * qcow2_zoned_settle_size() does that.  The lock of BDRVQcow2State is held.
 */
int coroutine_mixed_fn GRAPH_RDLOCK
qcow2_zoned_put_back_l1(BlockDriverState *bs, uint64_t failed_offset,
                        uint64_t failed_size);

/*
 * Have the header say again what is so, if resizing failed and it may not.
 * Outside of coroutines, nothing may be in flight.
 */
int coroutine_mixed_fn GRAPH_RDLOCK
qcow2_zoned_settle_size(BlockDriverState *bs);

/*
 * qcow2-zoned-io.c: requests
 *
 * All may be called for any image, and do what the function of the same name
 * without _zoned does if it has no zones; the zone operations are only called
 * if it has.
 */

void qcow2_zoned_refresh_limits(BlockDriverState *bs);

int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset,
                           BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                             int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                               int64_t src_offset, BdrvChild *dst,
                               int64_t dst_offset, int64_t bytes,
                               BdrvRequestFlags read_flags,
                               BdrvRequestFlags write_flags);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                             int64_t src_offset, BdrvChild *dst,
                             int64_t dst_offset, int64_t bytes,
                             BdrvRequestFlags read_flags,
                             BdrvRequestFlags write_flags);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_pwritev_compressed_part(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       size_t qiov_offset);

/*
 * Does the range from @offset on read as zeros without being looked up?
 * Clamps *@bytes to the run that is alike, if zones have a say in it.
 */
bool qcow2_zoned_reads_zero(BlockDriverState *bs, int64_t offset,
                            int64_t *bytes);

int coroutine_fn
qcow2_zoned_co_zone_report(BlockDriverState *bs, int64_t offset,
                           unsigned int *nr_zones, BlockZoneDescriptor *zones);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_zone_mgmt(BlockDriverState *bs, BlockZoneOp op, int64_t offset,
                         int64_t len);
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_zone_append(BlockDriverState *bs, int64_t *offset,
                           QEMUIOVector *qiov, BdrvRequestFlags flags);

/*
 * First half of a flush: when it returns 0, the table blocks that cover all
 * writes acknowledged before are written, and what they cover is durable.
 * The flush of the image file that follows makes them durable, too.  When it
 * returns 1, they are so already.
 */
int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_flush_to_os(BlockDriverState *bs);

/*
 * qcow2-zoned-condition.c: READ-ONLY and OFFLINE zones
 */

int coroutine_fn GRAPH_RDLOCK
qcow2_zoned_co_zone_set_condition(BlockDriverState *bs, int64_t offset,
                                  int64_t len,
                                  BlockdevZoneCondition condition,
                                  Error **errp);

#endif
