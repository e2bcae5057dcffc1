# SPDX-License-Identifier: GPL-2.0-or-later
#
# dm-zoned: a disk that is written anywhere, on zones; with ext4 above.  Without
# conventional zones a second disk is its cache.

MAPPED=/dev/dm-0

if [ $CONVENTIONAL = 0 ]; then
    DEVICES="$SECOND $DISK"
else
    DEVICES=$DISK
fi

dmz() {             # dmz OPERATION [OPTION...]
    local operation=$1
    shift
    # shellcheck disable=SC2086
    dmzadm --$operation $DEVICES "$@"
}

load_modules() {
    modprobe crc32c_generic
    modprobe dm-zoned
    /usr/bin/depmod         # makes an index that dmzadm wants
    modprobe ext4
}

check_files() {
    local file bad=
    for file in 1 2 3 4 5 6 7 8; do
        cmp -s /tmp/data /mnt/$file || bad="$bad $file"
    done
    is "$1: the files have their data" "" "$bad"
}

use() {
    make_data
    load_modules
    step "format and start"
    does "dmzadm --format" dmz format --label=test || return
    does "dmzadm --start" dmz start || return
    step "fio: random writes"
    does "fio" fio --name=test --filename=$MAPPED --direct=1 --thread \
        --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=64M \
        --io_size=6M --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
        --minimal
    step "reclaim"
    does "reclaim" dmsetup message \
        "$(dmsetup info -c --noheadings -o name $MAPPED)" 0 reclaim
    sleep 5
    step "ext4"
    does "mkfs" mke2fs -F -b 4096 $MAPPED || return
    does "mount" mount -t ext4 $MAPPED /mnt || return
    for file in 1 2 3 4 5 6 7 8; do
        cp /tmp/data /mnt/$file
    done
    umount /mnt
    step "stop and check"
    does "dmzadm --stop" dmz stop
    does "dmzadm --check" dmz check
    does "dmzadm --start" dmz start || return
    mount -t ext4 $MAPPED /mnt
    check_files "started again"
    umount /mnt
    sync $MAPPED
}

again() {
    make_data
    load_modules
    step "after the power cut"
    does "dmzadm --check" dmz check
    does "dmzadm --start" dmz start || return
    does "mount" mount -t ext4 $MAPPED /mnt || return
    check_files "after the power cut"
    umount /mnt
    does "dmzadm --stop" dmz stop
}
