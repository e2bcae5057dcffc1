# SPDX-License-Identifier: GPL-2.0-or-later
#
# dm-crypt with zonefs above.  It has no zone append of its own: Linux makes one
# of writes.

MAPPED=/dev/dm-0
[ $LAST_LENGTH = $ZONE ] && ZONES=$NR_ZONES || ZONES=$((NR_ZONES - 1))
KEY=$(seq 100 163 | cut -c 2- | tr -d '\n')     # 64 bytes in hexadecimal

map() {
    modprobe aesni_intel
    modprobe xts
    modprobe dm-crypt
    # device-mapper takes no short last zone
    echo "0 $((ZONES * ZONE)) crypt aes-xts-plain64 $KEY 0 $DISK 0" |
        dmsetup create secret
}

mount_zonefs() {
    modprobe zonefs
    mount -t zonefs $MAPPED /mnt
}

use() {
    step "map"
    does "dmsetup create" map || return
    is "zones of the mapped disk" $ZONES \
        "$(blkzone report $MAPPED | grep -cE '\((em|nw)\)')"
    is "a zone's conditions" "oi cl oe fu em oe em" \
        "$(walk $MAPPED $CONVENTIONAL write close open finish reset open close)"
    step "fio on the mapped disk"
    for rw in write randwrite; do
        does "fio $rw" fio --name=test --filename=$MAPPED \
            --zonemode=zbd --direct=1 --thread --ioengine=libaio --iodepth=8 \
            --rw=$rw --bs=16k --max_open_zones=4 --verify=crc32c \
            --verify_fatal=1 --verify_state_save=0 --minimal \
            --offset=$((CONVENTIONAL * ZONE * 512)) --size=$((4 * ZONE * 512)) \
            --io_size=8M
        blkzone reset $MAPPED
    done
    step "zonefs on the mapped disk"
    make_data
    does "mkfs.zonefs" mkfs.zonefs -f $MAPPED || return
    does "mount" mount_zonefs || return
    for file in 0 1 2; do
        dd if=/tmp/data of=/mnt/seq/$file bs=64k count=40 conv=notrunc \
            oflag=direct,append status=none &
        writing="$writing $!"
    done
    wait $writing
    sync /mnt/seq/0
    is "what is on the disk is not what was written" 0 "$(dd if=$DISK bs=64k \
        skip=$((ZONE * (CONVENTIONAL > 0 ? CONVENTIONAL : 1) / 128)) count=40 \
        iflag=direct status=none | grep -c 1000001)"
}

again() {
    step "map after the power cut"
    make_data
    does "dmsetup create" map || return
    does "mount" mount_zonefs || return
    for file in 0 1 2; do
        is "size of file $file" $((40 * 65536)) "$(stat -c %s /mnt/seq/$file)"
        does "data of file $file" cmp -n $((40 * 65536)) /tmp/data \
            /mnt/seq/$file
    done
    umount /mnt
    dmsetup remove secret
}
