/*
 * Zoned qcow2 images: READ-ONLY and OFFLINE zones
 *
 * A disk makes zones so when its media fail.  Here somebody else does, to see
 * what becomes of a guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qemu/lockable.h"
#include "qcow2.h"
#include "qcow2-zoned.h"

/* Who asks gets told what a guest can find out itself. */
static void explain(Qcow2Zoned *z, int ret, uint32_t slots, uint32_t active,
                    Error **errp)
{
    if (ret == -EOVERFLOW) {
        error_setg(errp, "%" PRIu32 " zones would be closed again, but %"
                   PRIu32 " are active, and zone.max_active_zones is %" PRIu32,
                   slots, active, z->geo.max_active);
    } else {
        error_setg(errp, "Range is not whole zones");
    }
}

int coroutine_fn
qcow2_zoned_co_zone_set_condition(BlockDriverState *bs, int64_t offset,
                                  int64_t len,
                                  BlockdevZoneCondition condition,
                                  Error **errp)
{
    Qcow2Zoned *z = qcow2_zoned_of(bs);
    uint32_t slots, active;
    ZoneRange range;
    int ret;

    if (!qcow2_has_zones(bs)) {
        error_setg(errp, "Zones of node '%s' are not loaded",
                   bdrv_get_node_name(bs));
        return -ENOTSUP;
    }

    WITH_QEMU_LOCK_GUARD(&z->writes.lock) {
        ret = zone_table_check_condition(z->table, condition, offset, len,
                                         &range, &slots);
        active = zone_table_nr_active(z->table);
    }
    if (ret < 0) {
        explain(z, ret, slots, active, errp);
        return ret;
    }

    ret = qcow2_zoned_store_condition(bs, condition, range);
    if (ret < 0) {
        WITH_QEMU_LOCK_GUARD(&z->writes.lock) {
            zone_table_give_back_slots(z->table, slots);
        }
        error_setg_errno(errp, -ret, "Failed to store the zones");
    }
    return ret;
}
