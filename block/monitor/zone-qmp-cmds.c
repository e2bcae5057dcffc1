/*
 * QMP commands for the zones of a disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-core.h"
#include "block/block-global-state.h"
#include "block/block-io.h"
#include "block/block_int.h"

/* Zones in an answer, at the most */
#define ANSWER_MAX 4096

/* Zones that are looked at for an answer, at the most: fractions of a second */
#define LOOK_MAX (1 << 20)

/* Zones that are looked at before others in this thread have their turn */
#define LOOK_STEP 1024

static BlockDriverState *find_zoned_node(const char *node, Error **errp)
{
    BlockDriverState *bs = bdrv_lookup_bs(node, node, errp);

    if (bs && (bs->bl.zoned == BLK_Z_NONE || !bs->bl.zone_size)) {
        error_setg(errp, "Node '%s' has no zones", bdrv_get_node_name(bs));
        return NULL;
    }
    return bs;
}

static bool check_first(BlockDriverState *bs, uint32_t first, Error **errp)
{
    if (first >= bs->bl.nr_zones) {
        error_setg(errp, "Zone %" PRIu32 " is not below the number of zones %"
                   PRIu32, first, bs->bl.nr_zones);
        return false;
    }
    return true;
}

/* --- The report --- */

static BlockdevZoneType zone_type(BlockZoneType type)
{
    switch (type) {
    case BLK_ZT_CONV:
        return BLOCKDEV_ZONE_TYPE_CONVENTIONAL;
    case BLK_ZT_SWR:
        return BLOCKDEV_ZONE_TYPE_SEQUENTIAL_WRITE_REQUIRED;
    case BLK_ZT_SWP:
        return BLOCKDEV_ZONE_TYPE_SEQUENTIAL_WRITE_PREFERRED;
    default:
        g_assert_not_reached();
    }
}

static BlockdevZoneState zone_state(BlockZoneState state)
{
    switch (state) {
    case BLK_ZS_NOT_WP:
        return BLOCKDEV_ZONE_STATE_CONVENTIONAL;
    case BLK_ZS_EMPTY:
        return BLOCKDEV_ZONE_STATE_EMPTY;
    case BLK_ZS_IOPEN:
        return BLOCKDEV_ZONE_STATE_IMPLICITLY_OPEN;
    case BLK_ZS_EOPEN:
        return BLOCKDEV_ZONE_STATE_EXPLICITLY_OPEN;
    case BLK_ZS_CLOSED:
        return BLOCKDEV_ZONE_STATE_CLOSED;
    case BLK_ZS_FULL:
        return BLOCKDEV_ZONE_STATE_FULL;
    case BLK_ZS_RDONLY:
        return BLOCKDEV_ZONE_STATE_READ_ONLY;
    case BLK_ZS_OFFLINE:
        return BLOCKDEV_ZONE_STATE_OFFLINE;
    default:
        g_assert_not_reached();
    }
}

static BlockdevZone *describe_zone(uint32_t number,
                                   const BlockZoneDescriptor *desc)
{
    BlockdevZone *zone = g_new(BlockdevZone, 1);

    *zone = (BlockdevZone) {
        .zone               = number,
        .start              = desc->start,
        .length             = desc->length,
        .capacity           = desc->cap,
        .has_write_pointer  = desc->type != BLK_ZT_CONV &&
                              desc->state != BLK_ZS_OFFLINE,
        .write_pointer      = desc->wp,
        .type               = zone_type(desc->type),
        .state              = zone_state(desc->state),
    };
    return zone;
}

/* A bit for each state that is wanted */
static unsigned wanted_states(bool has_states, BlockdevZoneStateList *states)
{
    unsigned wanted = 0;

    for (; states; states = states->next) {
        wanted |= 1u << states->value;
    }
    return has_states ? wanted : -1u;
}

/*
 * Look at zones from *@next on, at most LOOK_STEP of them, and append those in
 * @wanted states to a list, until *@room is used up.
 */
static int coroutine_fn
report_step(BlockDriverState *bs, unsigned wanted, BlockZoneDescriptor *descs,
            uint32_t *next, uint32_t *room, BlockdevZoneList ***tail)
{
    unsigned int nr = LOOK_STEP;
    unsigned int i;

    WITH_GRAPH_RDLOCK_GUARD() {
        int ret = bdrv_co_zone_report(bs, *next * bs->bl.zone_size, &nr,
                                      descs);

        if (ret < 0) {
            return ret;
        }
    }
    for (i = 0; i < nr && *room; i++) {
        if (wanted & (1u << zone_state(descs[i].state))) {
            QAPI_LIST_APPEND(*tail, describe_zone(*next + i, &descs[i]));
            (*room)--;
        }
    }
    *next += i;
    return i;
}

static void coroutine_fn let_others_run(void)
{
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
}

BlockdevZoneReport *coroutine_fn
qmp_query_block_zones(const char *node, bool has_first, uint32_t first,
                      bool has_count, uint32_t count, bool has_states,
                      BlockdevZoneStateList *states, Error **errp)
{
    g_autoptr(BlockdevZoneReport) report = g_new0(BlockdevZoneReport, 1);
    g_autofree BlockZoneDescriptor *descs = g_new(BlockZoneDescriptor,
                                                  LOOK_STEP);
    BlockdevZoneList **tail = &report->zones;
    unsigned wanted = wanted_states(has_states, states);
    uint32_t next = has_first ? first : 0;
    uint32_t room = has_count ? count : ANSWER_MAX;
    uint32_t begin = next;
    BlockDriverState *bs = find_zoned_node(node, errp);
    int ret = 1;

    if (!bs || !check_first(bs, next, errp)) {
        return NULL;
    }
    if (room < 1 || room > ANSWER_MAX) {
        error_setg(errp, "Number of zones %" PRIu32 " is not from 1 to %d",
                   room, ANSWER_MAX);
        return NULL;
    }

    bdrv_ref(bs);
    while (ret > 0 && room && next - begin < LOOK_MAX &&
           next < bs->bl.nr_zones) {
        if (next != begin) {
            let_others_run();
        }
        ret = report_step(bs, wanted, descs, &next, &room, &tail);
    }
    report->nr_zones = bs->bl.nr_zones;
    report->next = next;
    report->has_next = next < report->nr_zones;
    bdrv_co_unref(bs);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to report the zones of '%s'",
                         node);
        return NULL;
    }
    return g_steal_pointer(&report);
}

/* --- Conditions --- */

void coroutine_fn
qmp_block_zone_set_condition(const char *node, uint32_t first, bool has_count,
                             uint32_t count, BlockdevZoneCondition condition,
                             Error **errp)
{
    BlockDriverState *bs = find_zoned_node(node, errp);
    AioContext *old_ctx;
    int64_t offset, len;

    if (!bs || !check_first(bs, first, errp)) {
        return;
    }
    if (!has_count) {
        count = 1;
    }
    if (count < 1 || count > bs->bl.nr_zones - first) {
        error_setg(errp, "Number of zones %" PRIu32 " is not from 1 to %"
                   PRIu32, count, bs->bl.nr_zones - first);
        return;
    }
    offset = first * bs->bl.zone_size;
    len = MIN(count * bs->bl.zone_size,
              bs->total_sectors * BDRV_SECTOR_SIZE - offset);

    /* A guest that goes on reading or writing must not hold this up. */
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    old_ctx = bdrv_co_enter(bs);
    WITH_GRAPH_RDLOCK_GUARD() {
        bdrv_co_zone_set_condition(bs, offset, len, condition, errp);
    }
    bdrv_co_leave(bs, old_ctx);
    bdrv_drained_end(bs);
    bdrv_co_unref(bs);
}
