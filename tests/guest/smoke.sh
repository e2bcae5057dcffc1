# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the smoke test runs in its guest: smoke puts lib.sh before it and appends
# the name of one of the *_boot functions.
#
# /dev/vda: the manual's example: 12 zones of 64M, 6 open, 8 active
# /dev/vdb: capacity below size, two conventional zones, a short last zone
# /dev/vdc: for zonefs
# /dev/vdd: for f2fs, with two conventional zones for what it must overwrite

ZONE=131072         # of vda and vdb

# Checksums of what lies below the write pointers, as far as the first 4M.
written_data() {
    local disk zone blocks
    for disk in /dev/vda /dev/vdb; do
        for zone in 0 1 2 3 4 5 6 7 8 9; do
            case $(condition $disk $zone) in
            em) blocks=0 ;;
            nw | fu) blocks=1024 ;;
            *) blocks=$(($(wp $disk $zone) / 8)) ;;
            esac
            echo "sum: $disk $zone $(dd if=$disk bs=4k iflag=direct status=none \
                skip=$((zone * ZONE / 8)) count=$blocks | md5sum)"
        done
    done
}

reports() {
    local disk
    for disk in vda vdb vdc vdd; do
        echo "report: $disk"
        blkzone report /dev/$disk
    done
}

test_geometry() {
    cd /sys/block/vda/queue
    is "Linux sees a host-managed disk" host-managed "$(cat zoned)"
    is "zones, zone size, limits, append size and granularity are right" \
        "12 $ZONE 6 8 4096 512" \
        "$(cat nr_zones chunk_sectors max_open_zones max_active_zones \
           zone_append_max_bytes zone_write_granularity | xargs)"
    cd /
    is "a new disk's zones are all empty" 12 \
        "$(blkzone report /dev/vda | grep -c 'wptr 0x000000 .*1(em)')"
}

test_states() {
    local disk=/dev/vda
    is "an EMPTY zone: reset, finish, open, close" "em fu fu em oe oe em" \
        "$(walk $disk 3 reset finish finish reset open open close)"
    is "an implicitly open zone: write, open, close, finish, reset" \
        "oi oi oe em oi cl em oi fu em oi em" \
        "$(walk $disk 3 write write open reset write close reset \
           write finish reset write reset)"
    is "an explicitly open zone: write, close, finish, reset" \
        "oe oe cl em oe fu em oe em" \
        "$(walk $disk 3 open write close reset open finish reset open reset)"
    is "a CLOSED zone: close, write, open, finish" \
        "oi cl cl oi cl oe cl fu em" \
        "$(walk $disk 3 write close close write close open close finish reset)"
    refuses "closing an EMPTY zone is invalid" "Input/output error" \
        manage close $disk 3
    is "and leaves it EMPTY" em "$(condition $disk 3)"
    manage finish $disk 3
    refuses "opening a FULL zone is invalid" "Input/output error" \
        manage open $disk 3
    refuses "closing a FULL zone is invalid" "Input/output error" \
        manage close $disk 3
    is "and leaves it FULL" fu "$(condition $disk 3)"
    does "a finished zone reads as zeros" \
        reads_zeros $disk $((3 * ZONE / 8)) 1000
    does "reset of the whole disk" blkzone reset $disk
    is "makes every zone EMPTY" 12 \
        "$(blkzone report $disk | grep -c 'wptr 0x000000 .*1(em)')"
}

test_limits() {
    local disk=/dev/vda zone
    for zone in 0 1 2 3 4 5; do
        manage open $disk $zone
    done
    refuses "the seventh explicitly open zone: ETOOMANYREFS" \
        "Too many references" manage open $disk 6
    refuses "a write that needs a seventh open zone: ETOOMANYREFS" \
        "Too many references" append $disk 6 1
    is "and nothing has changed" "oe oe oe oe oe oe em" \
        "$(conditions $disk 0 1 2 3 4 5 6)"

    for zone in 0 1; do
        append $disk $zone 1
        manage close $disk $zone
    done
    manage open $disk 6
    manage open $disk 7
    refuses "both limits reached: EOVERFLOW" "Value too large" \
        manage open $disk 8
    append $disk 2 1
    manage close $disk 2
    refuses "only the active limit reached: EOVERFLOW" "Value too large" \
        manage open $disk 8
    refuses "a write that needs a ninth active zone: EOVERFLOW" \
        "Value too large" append $disk 8 1
    is "and nothing has changed" "cl cl cl oe oe oe oe oe em" \
        "$(conditions $disk 0 1 2 3 4 5 6 7 8)"
    manage finish $disk 0
    does "finishing a CLOSED zone makes room for another" manage open $disk 8
    blkzone reset $disk

    for zone in 0 1 2 3 4 5 6; do
        append $disk $zone 1
    done
    is "a seventh implicitly open zone closes the least recently written" \
        "cl oi oi oi oi oi oi" "$(conditions $disk 0 1 2 3 4 5 6)"
    append $disk 7 1
    append $disk 0 1
    is "so does a CLOSED zone that is written at the active limit" \
        "oi cl cl oi oi oi oi oi" "$(conditions $disk 0 1 2 3 4 5 6 7)"
    blkzone reset $disk
}

test_writes() {
    local disk=/dev/vda
    dd if=/dev/urandom of=/tmp/data bs=4k count=300 status=none
    append $disk 1 300 /tmp/data
    is "a write moves the write pointer" 2400 "$(wp $disk 1)"
    dd if=$disk of=/tmp/back bs=4k skip=$((ZONE / 8)) count=300 iflag=direct \
        status=none
    does "what was written reads back" cmp /tmp/data /tmp/back
    does "above the write pointer a zone reads as zeros" \
        reads_zeros $disk $((ZONE / 8 + 300)) 1000
    append $disk 2 16384 /dev/zero
    is "a zone written to its end is FULL" fu "$(condition $disk 2)"
    manage reset $disk 1
    does "data of a reset zone reads as zeros" \
        reads_zeros $disk $((ZONE / 8)) 1000
}

test_odd_geometry() {
    local disk=/dev/vdb
    is "conventional zones, capacities and the short last zone" \
        "0 20000 20000 1 2 20000 18000 2 10 1e000 18000 2" \
        "$(for zone in 0 2 10; do
               echo $zone $(zone_line $disk $zone | sed -r \
                   's/.*len 0x0*(\w+), cap 0x0*(\w+).*type: (.).*/\1 \2 \3/')
           done | xargs)"
    is "nr_zones counts the short zone" 11 "$(cat /sys/block/vdb/queue/nr_zones)"
    dd if=/tmp/data of=$disk bs=4k count=300 seek=500 oflag=direct \
        conv=notrunc,fsync status=none
    dd if=$disk of=/tmp/back bs=4k skip=500 count=300 iflag=direct status=none
    does "a conventional zone is written anywhere" cmp /tmp/data /tmp/back
    refuses "a conventional zone takes no zone commands" \
        "Input/output error" manage finish $disk 1
    append $disk 2 12287
    is "one block short of its capacity a zone is open" oi "$(condition $disk 2)"
    append $disk 2 1
    is "at its capacity a zone is FULL" fu "$(condition $disk 2)"
    is "the short last zone: write, finish, reset, write" "oi fu em oi" \
        "$(walk $disk 10 write finish reset write)"
    append $disk 10 12287
    is "the short last zone filled to its capacity is FULL" fu \
        "$(condition $disk 10)"
}

# Leave zones in every state that a power cycle must keep or change.
prepare_for_power_cut() {
    append /dev/vda 0 100
    append /dev/vda 1 1
    manage close /dev/vda 1
    append /dev/vda 3 33
    manage finish /dev/vda 3
    manage open /dev/vda 4
    manage open /dev/vda 5
    append /dev/vda 5 7
}

make_file_system() {    # make_file_system TYPE DISK MKFS-COMMAND...
    local type=$1 disk=$2
    shift 2
    modprobe $type
    does "$*" "$@"
    does "mount $type" mount -t $type $disk /mnt
}

test_zonefs() {
    make_file_system zonefs /dev/vdc mkfs.zonefs -f /dev/vdc
    dd if=/tmp/data of=/mnt/seq/1 bs=4k oflag=direct,append \
        conv=notrunc,fsync status=none
    does "a zonefs file takes data" cmp /tmp/data /mnt/seq/1
    umount /mnt
    mount -t zonefs /dev/vdc /mnt
    does "a zonefs file has its data after a remount" cmp /tmp/data /mnt/seq/1
    umount /mnt
}

test_f2fs() {
    modprobe crc32_generic
    make_file_system f2fs /dev/vdd mkfs.f2fs -q -m -f /dev/vdd
    cp /tmp/data /mnt/a
    for i in 1 2 3 4 5 6 7 8; do
        cat /mnt/a >>/mnt/b
    done
    rm /mnt/a
    sync
    umount /mnt
}

checksum_files() {
    mount -t zonefs /dev/vdc /mnt
    echo "sum: zonefs $(sha256sum /mnt/seq/1)"
    umount /mnt
    mount -t f2fs /dev/vdd /mnt
    echo "sum: f2fs $(sha256sum /mnt/b)"
    umount /mnt
}

first_boot() {
    complaints >/tmp/complaints
    test_geometry
    test_states
    test_limits
    test_writes
    test_odd_geometry
    test_zonefs
    test_f2fs
    prepare_for_power_cut
    check_kernel_log
    checksum_files
    written_data
    reports
    echo "cut the power"
    sleep 60
}

# After the power cut: reports first, before anything touches the zones.
second_boot() {
    complaints >/tmp/complaints
    reports
    for module in zonefs crc32_generic f2fs; do
        modprobe $module
    done
    checksum_files
    written_data
    echo "end of the second boot's state"
    append /dev/vda 0 5
    append /dev/vda 4 5
    manage open /dev/vda 6
    check_kernel_log
    written_data
    reports
}

third_boot() {
    complaints >/tmp/complaints
    reports
    written_data
    check_kernel_log
}
