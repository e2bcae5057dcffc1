# SPDX-License-Identifier: GPL-2.0-or-later
#
# Zones of every condition, when the guest resets the machine, is killed, is
# powered off.  The machine's reset is not one of the disk's power: zones that
# are open stay so.

prepare() {
    local zone=$CONVENTIONAL steps
    for steps in "open write" "open" "write" "write close" "write finish" \
            "finish" "write reset" "write write"; do
        [ $zone -lt $NR_ZONES ] || break
        # shellcheck disable=SC2086
        walk $DISK $zone $steps
        zone=$((zone + 1))
    done
    sync $DISK
}

use() {
    local report
    report=$(report_zones $DISK)
    if [ "$(head -c 6 $SECOND)" != before ]; then
        step "reset of the machine"
        prepare
        report_zones $DISK >/tmp/report
        { echo before; cat /tmp/report; } >$SECOND
        sync $SECOND
        reboot -f
    fi
    step "after the machine's reset"
    is "the zones are what they were" \
        "$(head -c 8192 $SECOND | sed -n '2,/report: end/p')" "$report"
}

again() {
    step "after the power cut"
    append $DISK $CONVENTIONAL 1
    is "a zone that was explicitly open is CLOSED, and can be written on" \
        "oi 16" "$(condition $DISK $CONVENTIONAL) $(wp $DISK $CONVENTIONAL)"
    blkzone reset $DISK
    prepare
}
