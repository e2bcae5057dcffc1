# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every operation of blkzone, every edge between zone conditions, the limits

# Is DISK what its image was made as?
test_geometry() {
    step "the geometry"
    local queue=/sys/block/vda/queue first last
    is "Linux sees a host-managed disk" host-managed "$(cat $queue/zoned)"
    is "its zones, zone size, limits, blocks" \
        "$NR_ZONES $ZONE $MAX_OPEN $MAX_ACTIVE $BLOCK $BLOCK" \
        "$(cd $queue && cat nr_zones chunk_sectors max_open_zones \
           max_active_zones zone_write_granularity logical_block_size | xargs)"
    blkzone report $DISK >/tmp/report
    is "conventional and empty zones" \
        "$CONVENTIONAL $((NR_ZONES - CONVENTIONAL)) $NR_ZONES" \
        "$(grep -c '(nw).*type: 1' /tmp/report) $(grep -c \
           'wptr 0x000000 .*(em).*type: 2' /tmp/report) $(wc -l </tmp/report)"
    first=$(lengths $CONVENTIONAL)
    last=$(lengths $((NR_ZONES - 1)))
    [ $CONVENTIONAL = $((NR_ZONES - 1)) ] ||
        is "length and capacity of a zone" "$ZONE $CAPACITY" "$first"
    is "length and capacity of the last zone" \
        "$LAST_LENGTH $LAST_CAPACITY" "$last"
    is "blkzone capacity" \
        $((CONVENTIONAL * ZONE + LAST_CAPACITY +
           (NR_ZONES - CONVENTIONAL - 1) * CAPACITY)) \
        $(($(blkzone capacity $DISK)))
    is "blkzone report of a part" $((NR_ZONES > 1 ? 2 : 1)) \
        "$(blkzone report -l $((2 * ZONE)) $DISK | wc -l)"
}

lengths() {         # of a zone: length and capacity in sectors
    local numbers
    numbers=$(zone_line $DISK $1 |
        sed -r 's/.*len (0x\w+), cap (0x\w+),.*/\1 \2/')
    echo $((${numbers% *})) $((${numbers#* }))
}

test_states() {     # test_states ZONE
    local zone=$1
    step "conditions of zone $zone"
    is "zone $zone, EMPTY: reset, finish, open, close" "em fu fu em oe oe em" \
        "$(walk $DISK $zone reset finish finish reset open open close)"
    is "zone $zone, implicitly open: write, open, close, finish, reset" \
        "oi oi oe em oi cl em oi fu em oi em" \
        "$(walk $DISK $zone write write open reset write close reset \
           write finish reset write reset)"
    is "zone $zone, explicitly open: write, close, finish, reset" \
        "oe oe cl em oe fu em oe em" \
        "$(walk $DISK $zone open write close reset open finish reset open \
           reset)"
    is "zone $zone, CLOSED: close, write, open, finish, reset" \
        "oi cl cl oi cl oe cl fu em oi cl em" \
        "$(walk $DISK $zone write close close write close open close finish \
           reset write close reset)"
    refuses "zone $zone, EMPTY: close" "Input/output error" \
        manage close $DISK $zone
    is "zone $zone stays EMPTY" em "$(condition $DISK $zone)"
    manage finish $DISK $zone
    refuses "zone $zone, FULL: open" "Input/output error" \
        manage open $DISK $zone
    refuses "zone $zone, FULL: close" "Input/output error" \
        manage close $DISK $zone
    refuses "zone $zone, FULL: write" "error" write_at $DISK $zone 0
    is "zone $zone stays FULL" fu "$(condition $DISK $zone)"
    does "zone $zone, finished: reads as zeros" \
        reads_zeros $DISK $((zone * ZONE / 8)) 100
    manage reset $DISK $zone
}

write_at() {        # write_at DISK ZONE BLOCK: 4k there
    dd if=/dev/urandom of="$1" bs=4k count=1 seek=$(($2 * ZONE / 8 + $3)) \
        oflag=direct conv=notrunc,fsync status=none
}

# Fill a zone to its capacity $2, in sectors; then there is no more to write.
test_capacity() {
    local zone=$1 blocks=$(($2 / 8))
    step "capacity of zone $zone"
    dd if=/dev/urandom of=/tmp/data bs=64k status=none \
        count=$((blocks / 16 + 1))
    does "zone $zone, one block short of its capacity" \
        append $DISK $zone $((blocks - 1)) /tmp/data
    is "zone $zone is open" "oi $(((blocks - 1) * 8))" \
        "$(condition $DISK $zone) $(wp $DISK $zone)"
    refuses "zone $zone, not at the write pointer" "error" \
        write_at $DISK $zone 3
    append $DISK $zone 1
    is "zone $zone is FULL at its capacity" fu "$(condition $DISK $zone)"
    dd if=$DISK of=/tmp/back bs=4k skip=$((zone * ZONE / 8)) \
        count=$((blocks - 1)) iflag=direct status=none
    truncate -s $(((blocks - 1) * 4096)) /tmp/data
    does "zone $zone reads back" cmp /tmp/data /tmp/back
    [ $2 = $ZONE ] || [ $zone = $((NR_ZONES - 1)) ] ||
        does "zone $zone, behind its capacity: zeros" reads_zeros $DISK \
            $((zone * ZONE / 8 + blocks)) $(((ZONE - $2) / 8))
    manage reset $DISK $zone
    does "zone $zone, reset: zeros" \
        reads_zeros $DISK $((zone * ZONE / 8)) $((blocks < 1000 ? blocks : 1000))
}

test_ranges() {
    local at=$((CONVENTIONAL * ZONE)) count=$((NR_ZONES - CONVENTIONAL)) some=4
    step "ranges"
    [ $some -le $count ] || some=$count
    does "open some" blkzone open -o $at -c $some $DISK
    is "they are explicitly open" $some "$(count_of oe)"
    does "close them" blkzone close -o $at -c $some $DISK
    is "they are EMPTY" "$count" "$(count_of em)"
    does "finish to the end of the disk" blkzone finish -o $at $DISK
    is "all are FULL" "$count" "$(count_of fu)"
    does "reset the last by its length" \
        blkzone reset -o $(((NR_ZONES - 1) * ZONE)) -l $LAST_LENGTH $DISK
    is "all but one are FULL" $((count - 1)) "$(count_of fu)"
    does "reset the sequential ones" blkzone reset -o $at $DISK
    is "all are EMPTY" "$count" "$(count_of em)"
    append $DISK $CONVENTIONAL 1
    does "reset of the whole disk" blkzone reset $DISK
    is "all are EMPTY again" "$count" "$(count_of em)"
}

count_of() { blkzone report $DISK | grep -c "($1)"; }

# How a zone more than a limit allows is refused: the active limit goes first.
beyond() {
    if [ $MAX_ACTIVE = $MAX_OPEN ]; then
        echo "Value too large"
    else
        echo "Too many references"
    fi
}

test_limits() {
    local zone end=$((CONVENTIONAL + MAX_OPEN))
    step "limits"
    if [ $MAX_OPEN = 0 ]; then
        does "no limit: open all" blkzone open -o $((CONVENTIONAL * ZONE)) $DISK
        is "all are explicitly open" $((NR_ZONES - CONVENTIONAL)) \
            "$(count_of oe)"
        blkzone reset $DISK
        return
    fi
    for zone in $(seq $CONVENTIONAL $((end - 1))); do
        manage open $DISK $zone
    done
    refuses "one explicitly open zone too many" "$(beyond)" \
        manage open $DISK $end
    refuses "a write to one zone too many" "$(beyond)" append $DISK $end 1
    is "and nothing has changed" "$MAX_OPEN em" \
        "$(count_of oe) $(condition $DISK $end)"
    blkzone reset $DISK

    for zone in $(seq $CONVENTIONAL $((end - 1))); do
        append $DISK $zone 1
    done
    if [ $MAX_ACTIVE = $MAX_OPEN ]; then
        refuses "implicitly open: no victim makes room for an active zone" \
            "Value too large" append $DISK $end 1
        is "and nothing has changed" "$MAX_OPEN em" \
            "$(count_of oi) $(condition $DISK $end)"
        manage close $DISK $CONVENTIONAL
        refuses "nor does a CLOSED zone" "Value too large" append $DISK $end 1
        append $DISK $CONVENTIONAL 1
        is "but it can be written on" oi "$(condition $DISK $CONVENTIONAL)"
    else
        does "implicitly open: a victim makes room" append $DISK $end 1
        is "it is the least recently written" "cl oi" \
            "$(conditions $DISK $CONVENTIONAL $end)"
    fi
    manage finish $DISK $((CONVENTIONAL + 1))
    does "a finished zone makes room" append $DISK $((end + 1)) 1
    blkzone reset $DISK
}

test_conventional() {
    local step
    step "conventional zones"
    for step in open close finish reset; do
        refuses "a conventional zone: $step" "Input/output error" \
            manage $step $DISK 0
    done
    dd if=/dev/urandom of=/tmp/data bs=4k count=100 status=none
    dd if=/tmp/data of=$DISK bs=4k count=100 seek=77 oflag=direct \
        conv=notrunc,fsync status=none
    dd if=$DISK of=/tmp/back bs=4k skip=77 count=100 iflag=direct status=none
    does "a conventional zone is written anywhere" cmp /tmp/data /tmp/back
}

use() {
    test_geometry
    test_states $CONVENTIONAL
    test_capacity $CONVENTIONAL $((NR_ZONES - CONVENTIONAL == 1 ?
                                   LAST_CAPACITY : CAPACITY))
    if [ $((NR_ZONES - CONVENTIONAL)) -gt 1 ]; then
        test_states $((NR_ZONES - 1))
        test_capacity $((NR_ZONES - 1)) $LAST_CAPACITY
    fi
    test_ranges
    test_limits
    [ $CONVENTIONAL = 0 ] || test_conventional
}

again() {
    step "a disk whose zones are all empty"
    append $DISK $CONVENTIONAL 1
    is "is written" oi "$(condition $DISK $CONVENTIONAL)"
}
