# SPDX-License-Identifier: GPL-2.0-or-later
#
# btrfs with -O zoned

# An I/O error is what it makes of no room for what is written back.  One of the
# disk's would be in the kernel's log as well.
FULL="No space left|I/O error"

mount_fs() { mount -t btrfs $DISK /mnt; }
check_fs() { btrfs check $DISK; }

load_modules() {
    modprobe crc32c_generic
    modprobe btrfs
}

make_fs() { mkfs.btrfs -q -f -O zoned -d single -m single -n 4096 $DISK; }

collect_garbage() {
    does "balance" btrfs balance start -dusage=60 /mnt
    does "scrub" btrfs scrub start -B /mnt
}
