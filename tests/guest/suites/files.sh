# SPDX-License-Identifier: GPL-2.0-or-later
#
# What f2fs.sh and btrfs.sh do with files.  Of the file system they have:
# load_modules, make_fs, mount_fs, check_fs, collect_garbage; and in FULL what a
# program is told when there is no room.

# Of a file: 4 MiB, those of make_data turned by the file's number
content() {
    tail -c +$(($1 * 512 + 1)) /tmp/data
    head -c $(($1 * 512)) /tmp/data
}

# Write files from number $1 on: until there is no room, or $FILL MiB of them.
fill() {
    local number=$1
    : >/tmp/errors
    while [ "$FILL" = 0 ] || [ $(((number - $1) * 4)) -lt "$FILL" ]; do
        content $number 2>>/tmp/errors >/mnt/$number &&
            sync /mnt/$number 2>>/tmp/errors || break
        number=$((number + 1))
    done
    if [ "$FILL" = 0 ]; then
        does "full: $FULL" grep -E "$FULL" /tmp/errors
    else
        is "$FILL MiB are written" "" "$(cat /tmp/errors)"
    fi
    rm -f /mnt/$number
    sync
    # btrfs says of each write that there is no room for it, or gives up.
    complaints | grep -vE 'BTRFS.*(: -28$|error -28\)|errno=-28 )' \
        >>/tmp/complaints
    echo "# $((number - $1)) files of 4 MiB"
}

check_files() {     # check_files WHEN: does each have what was written to it?
    local file bad=
    step "$1: the data of the files"
    for file in $(list); do
        content $file >/tmp/content
        [ "$(md5sum </tmp/content)" = "$(md5sum </mnt/$file)" ] ||
            bad="$bad $file"
    done
    is "$1: $(list | wc -l) files have their data" "" "$bad"
}

delete() { (cd /mnt && rm -f -- $1); }          # delete PATTERN

list() { (cd /mnt && ls -d [0-9]*); }

remount() {
    umount /mnt
    does "mount" mount_fs || return
}

use() {
    make_data
    load_modules
    step "mkfs"
    does "mkfs" make_fs || return
    does "mount" mount_fs || return
    step "fill"
    fill 1
    remount
    check_files "after a remount"
    step "delete most files, garbage collection"
    does "delete" delete "*[1-6]"
    sync
    collect_garbage
    content 999 >/mnt/999
    sync
    step "fill again"
    fill 501
    remount
    check_files "filled again"
    umount /mnt
    step "fsck"
    does "fsck" check_fs
    mount_fs
    step "a mounted file system for the power cut"
    does "delete" delete "*[1-8]"
    list | grep -v 999 >/tmp/list
    cp /tmp/list /mnt/list
    sync
}

again() {
    make_data
    load_modules
    step "the file system after the power cut"
    does "mount" mount_fs || return
    is "files" "$(cat /mnt/list) 999" "$(list | grep -v 999) $(list | grep 999)"
    check_files "after the power cut"
    rm /mnt/999
    does "another file" cp /mnt/list /mnt/another
    sync
    umount /mnt
    does "fsck" check_fs
}
