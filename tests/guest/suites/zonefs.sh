# SPDX-License-Identifier: GPL-2.0-or-later
#
# zonefs: a file for each zone

SEQ=/mnt/seq

mount_zonefs() { mount -t zonefs "$@" $DISK /mnt; }

direct() {          # direct FILE BLOCKS: append so many blocks of 4k
    dd if=/tmp/data of="$1" bs=4k count="$2" conv=notrunc \
        oflag=direct,append status=none
}

size() { stat -c %s "$1"; }
zone_of() { echo $((${1##*/} + FIRST)); }

test_files() {
    local conventional=$((CONVENTIONAL > 0 ? CONVENTIONAL - 1 : 0))
    step "files"
    is "a file for each zone but the superblock's" \
        "$((NR_ZONES - FIRST)) $conventional" \
        "$(ls $SEQ | wc -l) $(ls /mnt/cnv 2>/dev/null | wc -l)"
    is "a file may grow to its zone's capacity" $CAPACITY "$(stat -c %b $SEQ/0)"
    does "write" direct $SEQ/0 1000
    cp $SEQ/0 /tmp/back
    does "it reads back" cmp -n 4096000 /tmp/data /tmp/back
    is "its zone's write pointer is its size" "$(size $SEQ/0)" \
        $(($(wp $DISK $FIRST) * 512))
    refuses "a write that is not at the end" "Input/output error" \
        dd if=/tmp/data of=$SEQ/0 bs=4k count=1 seek=7 conv=notrunc \
        oflag=direct status=none
    [ $conventional = 0 ] || test_conventional
}

test_conventional() {
    dd if=/tmp/data of=/mnt/cnv/0 bs=4k count=50 seek=300 conv=notrunc,fsync \
        oflag=direct status=none
    dd if=/mnt/cnv/0 of=/tmp/back bs=4k count=50 skip=300 status=none
    does "a conventional file is written anywhere" \
        cmp -n 204800 /tmp/data /tmp/back
}

# Writers of one file each and of the same file, with O_APPEND, at once
test_parallel() {
    local writer file writing writers="A B C D"
    step "parallel writers"
    for writer in $writers; do
        yes $writer | tr -d '\n' | head -c 4096 >/tmp/$writer
    done
    writing=
    for writer in $writers; do
        for file in 1 2 3; do
            for i in $(seq 25); do cat /tmp/$writer; done |
                dd of=$SEQ/$file bs=4k iflag=fullblock conv=notrunc \
                    oflag=direct,append status=none ||
                    not_ok "writer $writer of file $file" &
            writing="$writing $!"
        done
    done
    wait $writing
    for file in 1 2 3; do
        is "file $file has all that was appended, untorn" \
            "25 AA 25 BB 25 CC 25 DD" \
            "$(fold -w 4096 $SEQ/$file | cut -c1,4096 | sort | uniq -c | xargs)"
    done
}

test_truncate() {
    step "truncate"
    does "truncate to the capacity" truncate -s $((CAPACITY * 512)) $SEQ/1
    is "that finishes the zone" "fu $((CAPACITY * 512))" \
        "$(condition $DISK $(zone_of 1)) $(size $SEQ/1)"
    refuses "a full file takes no more" "File too large" direct $SEQ/1 1
    does "truncate to 0" truncate -s 0 $SEQ/1
    is "that resets the zone" "em 0" \
        "$(condition $DISK $(zone_of 1)) $(size $SEQ/1)"
    refuses "truncate to another size" "Operation not permitted" \
        truncate -s 4096 $SEQ/2
    does "fill a file" dd if=/dev/zero of=$SEQ/1 bs=64k conv=notrunc \
        count=$((CAPACITY / 128)) oflag=direct,append status=none
    is "that fills the zone" "fu $((CAPACITY * 512))" \
        "$(condition $DISK $(zone_of 1)) $(size $SEQ/1)"
}

test_explicit_open() {
    local i holding=
    step "explicit open"
    umount /mnt
    blkzone reset -o $((FIRST * ZONE)) $DISK
    does "mount -o explicit-open" mount_zonefs -o explicit-open
    exec 3>>$SEQ/2
    # The option is ignored where there is no limit.
    is "a file that is open has an open zone" \
        "$([ $MAX_OPEN$MAX_ACTIVE = 00 ] && echo em || echo oe)" \
        "$(condition $DISK $(zone_of 2))"
    exec 3>&-
    is "closing it closes the zone" em "$(condition $DISK $(zone_of 2))"
    if [ $MAX_OPEN != 0 ]; then
        for i in $(seq $MAX_OPEN); do
            sleep 100 >>$SEQ/$i &
            holding="$holding $!"
        done
        sleep 1
        refuses "one open file too many" "Device or resource busy" \
            sh -c ": >>$SEQ/0"
        kill $holding
        wait $holding
        does "with those closed it opens" sh -c ": >>$SEQ/0"
    fi
    umount /mnt
    does "mount" mount_zonefs || return
}

use() {
    FIRST=$((CONVENTIONAL > 0 ? CONVENTIONAL : 1))
    make_data
    modprobe zonefs
    does "mkfs.zonefs" mkfs.zonefs -f $DISK || return
    does "mount" mount_zonefs || return
    test_files
    test_parallel
    test_truncate
    test_explicit_open
    step "data for after the power cut"
    direct $SEQ/0 700
    direct $SEQ/3 3
    truncate -s $((CAPACITY * 512)) $SEQ/3
    does "they are on the disk" sync
}

again() {
    make_data
    modprobe zonefs
    step "zonefs after the power cut"
    does "mount" mount_zonefs || return
    is "sizes are what they were" "$((700 * 4096)) $((CAPACITY * 512))" \
        "$(size $SEQ/0) $(size $SEQ/3)"
    does "a file has its data" cmp -n $((700 * 4096)) /tmp/data $SEQ/0
    does "a finished one, too" cmp -n $((3 * 4096)) /tmp/data $SEQ/3
    does "append" direct $SEQ/0 5
    is "it grew" $((705 * 4096)) "$(size $SEQ/0)"
    umount /mnt
}
