# SPDX-License-Identifier: GPL-2.0-or-later
#
# fio's zonemode=zbd with verification: in order and at random over zones

zbd_fio() {         # zbd_fio NAME OPTION...
    local name=$1
    shift
    step "fio: $name"
    does "fio: $name" fio --name=test --filename=$DISK --zonemode=zbd \
        --direct=1 --thread --group_reporting --verify=crc32c --do_verify=1 \
        --verify_fatal=1 --verify_state_save=0 --minimal "$@"
    echo "# $(tail -n 1 /tmp/out | cut -d ';' -f 6,47) KiB read;written"
}

use() {
    local at=$((CONVENTIONAL * ZONE * 512)) zones=$((NR_ZONES - CONVENTIONAL))
    local depth open length
    [ $zones -le 8 ] || zones=8
    length=$((zones * ZONE * 512))
    [ $zones -gt 1 ] || length=$((LAST_LENGTH * 512))
    open=$((MAX_OPEN > 0 && MAX_OPEN < 4 ? MAX_OPEN : 4))

    zbd_fio "write, psync" --ioengine=psync --rw=write --bs=64k \
        --offset=$at --size=$length
    blkzone reset $DISK
    for depth in 1 4 32; do
        zbd_fio "write, libaio, iodepth $depth" --ioengine=libaio --rw=write \
            --bs=128k --iodepth=$depth --offset=$at --size=$length
        blkzone reset $DISK
        zbd_fio "randwrite, libaio, iodepth $depth, $open open zones" \
            --ioengine=libaio --rw=randwrite --bs=16k --iodepth=$depth \
            --max_open_zones=$open --offset=$at --size=$length --io_size=8M
        blkzone reset $DISK
    done
    zbd_fio "randwrite, psync, mixed sizes" --ioengine=psync --rw=randwrite \
        --bsrange=4k-64k --blockalign=4k \
        --max_open_zones=$open --offset=$at --size=$length --io_size=4M
}

again() {
    blkzone reset $DISK
    zbd_fio "write after the power cut" --ioengine=libaio --iodepth=8 \
        --rw=write --bs=64k --offset=$((CONVENTIONAL * ZONE * 512)) \
        --size=$(((NR_ZONES - CONVENTIONAL == 1 ? LAST_LENGTH : ZONE) * 512))
}
