# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every operation of zbd, of the package zbd-utils

AT=$((CONVENTIONAL * ZONE * 512))               # bytes, as all that zbd takes

# zbd only takes multiples of the zone size
reset_all() {
    local but_last=$(((NR_ZONES - 1) * ZONE))
    if [ $LAST_LENGTH = $ZONE ]; then
        does "zbd reset" zbd reset $DISK
    else
        does "zbd reset of all but a short zone" \
            zbd reset -ofst $AT -len $((but_last * 512 - AT)) $DISK
        blkzone reset -o $but_last $DISK
    fi
}

counted() { zbd report -n -ro $1 $DISK | sed 's/ .*//'; }

use() {
    local one=$((ZONE * 512)) sequential=$((NR_ZONES - CONVENTIONAL))
    [ $sequential -gt 1 ] || one=$((LAST_LENGTH * 512))
    step "zbd report"
    does "zbd report -i" zbd report -i $DISK
    is "conventional and empty zones" "$CONVENTIONAL $sequential" \
        "$(counted nw) $(counted em)"
    step "zbd open, close, finish, reset"
    does "zbd open" zbd open -ofst $AT -len $one $DISK
    is "explicitly open" "1 oe" \
        "$(counted oe) $(condition $DISK $CONVENTIONAL)"
    does "zbd close" zbd close -ofst $AT -len $one $DISK
    is "EMPTY" "$sequential" "$(counted em)"
    append $DISK $CONVENTIONAL 3
    is "implicitly open" 1 "$(counted oi)"
    does "zbd close" zbd close -ofst $AT -len $one $DISK
    is "CLOSED" 1 "$(counted cl)"
    does "zbd finish" zbd finish -ofst $AT -len $one $DISK
    is "FULL" 1 "$(counted fu)"
    reset_all
    is "all EMPTY" "$sequential" "$(counted em)"

    step "zbd dump and restore"
    make_data
    append $DISK $CONVENTIONAL 99 /tmp/data
    [ $sequential = 1 ] || append $DISK $((NR_ZONES - 1)) 55 /tmp/data
    does "zbd dump" zbd dump -d /tmp -f dump -ofst $AT $DISK
    reset_all
    does "zbd restore" zbd restore -d /tmp -f dump -ofst $AT $DISK
    check_data
}

check_data() {
    does "the data is on the disk" has_data $CONVENTIONAL 99
    is "and the write pointer behind it" $((99 * 8)) "$(wp $DISK $CONVENTIONAL)"
    [ $((NR_ZONES - CONVENTIONAL)) = 1 ] ||
        does "in the last zone, too" has_data $((NR_ZONES - 1)) 55
}

has_data() {        # has_data ZONE BLOCKS
    dd if=$DISK bs=4k skip=$(($1 * ZONE / 8)) count=$2 iflag=direct \
        status=none | cmp -n $(($2 * 4096)) - /tmp/data
}

again() {
    step "after the power cut"
    make_data
    check_data
    reset_all
}
