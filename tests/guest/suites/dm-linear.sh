# SPDX-License-Identifier: GPL-2.0-or-later
#
# dm-linear: the sequential zones with their halves swapped

MAPPED=/dev/dm-0

map() {
    modprobe dm-mod
    HALF=$(((NR_ZONES - CONVENTIONAL - 1) / 2))     # no short last zone
    {
        echo "0 $((HALF * ZONE)) linear $DISK $(((CONVENTIONAL + HALF) * ZONE))"
        echo "$((HALF * ZONE)) $((HALF * ZONE)) linear $DISK" \
            "$((CONVENTIONAL * ZONE))"
    } | dmsetup create swapped
}

use() {
    step "map"
    does "dmsetup create" map || return
    is "zones of the mapped disk" "$((2 * HALF)) $((2 * HALF * ZONE))" \
        "$(blkzone report $MAPPED | wc -l) $(blockdev --getsz $MAPPED)"
    step "zones through the map"
    is "a zone's conditions" "oi cl oe fu em oe em" \
        "$(walk $MAPPED 1 write close open finish reset open close)"
    make_data
    append $MAPPED 0 1000 /tmp/data
    append $MAPPED $HALF 100 /tmp/data
    manage finish $MAPPED $HALF
    is "they are the zones below" "8000 oi fu em" \
        "$(wp $DISK $((CONVENTIONAL + HALF))) $(conditions $DISK \
           $((CONVENTIONAL + HALF)) $CONVENTIONAL $((CONVENTIONAL + 1)))"
    does "reset of the whole mapped disk" blkzone reset $MAPPED
    is "all are EMPTY" $((2 * HALF)) \
        "$(blkzone report $MAPPED | grep -c '(em)')"
    step "fio on the mapped disk"
    does "fio across the halves" fio --name=test --filename=$MAPPED \
        --zonemode=zbd --direct=1 --thread --ioengine=libaio --iodepth=8 \
        --rw=randwrite --bs=16k --max_open_zones=4 --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 --minimal \
        --offset=$(((HALF - 2) * ZONE * 512)) --size=$((4 * ZONE * 512)) \
        --io_size=8M
    append $MAPPED 0 1000 /tmp/data
    append $MAPPED $((2 * HALF - 1)) 10 /tmp/data
}

again() {
    step "map after the power cut"
    make_data
    does "dmsetup create" map || return
    is "write pointers" "8000 80" \
        "$(wp $MAPPED 0) $(wp $MAPPED $((2 * HALF - 1)))"
    dd if=$MAPPED of=/tmp/back bs=4k count=1000 iflag=direct status=none
    does "data" cmp -n 4096000 /tmp/data /tmp/back
}
