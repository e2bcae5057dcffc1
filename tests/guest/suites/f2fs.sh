# SPDX-License-Identifier: GPL-2.0-or-later
#
# f2fs, on a disk with conventional zones alone, else with a second disk

if [ $CONVENTIONAL = 0 ]; then
    MAIN=$SECOND
    DEVICES="-c $DISK $SECOND"
else
    MAIN=$DISK
    DEVICES=$DISK
fi
FULL="No space left"

mount_fs() { mount -t f2fs $MAIN /mnt; }

# Where capacity is below size, fsck.f2fs 1.16 counts other free segments than
# mkfs.f2fs and Linux do, on an empty null_blk as well.  Nothing else may differ.
check_fs() {
    fsck.f2fs --dry-run -f $MAIN && return
    [ $CAPACITY -lt $ZONE ] || return
    grep -E '\[Fail\]|ASSERT' /tmp/out >/tmp/fsck
    [ "$(sed 's/ *\[Fail.*//' /tmp/fsck)" = \
        "[FSCK] free segment_count matched with CP" ]
}

load_modules() {
    modprobe crc32_generic
    modprobe f2fs
}

make_fs() {
    # shellcheck disable=SC2086
    mkfs.f2fs -q -f -m $DEVICES
}

collect_garbage() {
    local control=/sys/fs/f2fs/${MAIN#/dev/}
    echo 1 >$control/gc_urgent
    sleep 5
    echo 0 >$control/gc_urgent
    sync
}
