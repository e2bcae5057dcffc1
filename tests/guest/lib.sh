# SPDX-License-Identifier: GPL-2.0-or-later
#
# What scripts use that test disks in a guest (a busybox shell).  Prints TAP
# results without numbers.
#
# ZONE is set by who uses it: sectors of a zone of the disks below.

KERNEL_COMPLAINS='error|exceeded|invalid|fail|BUG:|WARNING:|Call Trace'

ok() { echo "ok - $1"; }
not_ok() { echo "not ok - $1"; }

is() {              # is NAME WANTED GOT
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        not_ok "$1"
        echo "# wanted: $2"
        echo "# got:    $3"
    fi
}

does() {            # does NAME COMMAND...; its status is the command's
    local name=$1
    shift
    if "$@" >/tmp/out 2>&1; then
        ok "$name"
    else
        not_ok "$name"
        sed 's/^/# /' /tmp/out
        return 1
    fi
}

# The kernel's complaints since the last call, those of its boot left out.
complaints() {
    dmesg -c | sed '/Linux version/,/Run \/init/d' | grep -E "$KERNEL_COMPLAINS"
}

refuses() {         # refuses NAME MESSAGE COMMAND...; the kernel may complain
    local name=$1 message=$2
    shift 2
    dmesg -c | grep -E "$KERNEL_COMPLAINS" >>/tmp/complaints
    if "$@" >/tmp/out 2>&1; then
        echo "it succeeded" >/tmp/out
    fi
    dmesg -c >/dev/null
    if grep -q "$message" /tmp/out; then
        ok "$name"
    else
        not_ok "$name"
        echo "# wanted: $message"
        sed 's/^/# got:    /' /tmp/out
    fi
}

zone_line() { blkzone report -o $(($2 * ZONE)) -c 1 "$1"; }
condition() { zone_line "$@" | sed 's/.*zcond: *[0-9]*(\(..\)).*/\1/'; }
wp() { echo $(($(zone_line "$@" | sed 's/.*wptr \(0x[0-9a-f]*\).*/\1/'))); }
manage() { blkzone "$1" -o $(($3 * ZONE)) -c 1 "$2"; }

# Write $3 blocks of 4k from file $4 at the write pointer of zone $2 of disk $1.
append() {
    local at=$(($2 * ZONE + $(wp "$1" "$2")))
    dd if="${4:-/dev/urandom}" of="$1" bs=4k count="$3" seek=$((at / 8)) \
        iflag=fullblock oflag=direct conv=notrunc,fsync status=none
}

# Do one thing after the other to zone $2, and print its condition each time.
walk() {
    local disk=$1 zone=$2 step trail=
    shift 2
    for step; do
        case $step in
        write) append "$disk" "$zone" 1 ;;
        *) manage "$step" "$disk" "$zone" ;;
        esac || trail="$trail $step-failed"
        trail="$trail $(condition "$disk" "$zone")"
    done
    echo $trail
}

conditions() {      # conditions DISK ZONE...
    local disk=$1 zone
    shift
    for zone; do
        condition "$disk" "$zone"
    done | xargs
}

# Are the $3 blocks of 4k from block $2 of disk $1 there, and zero?
reads_zeros() {
    [ "$(dd if="$1" bs=4k skip=$2 count=$3 iflag=direct status=none | md5sum)" \
        = "$(dd if=/dev/zero bs=4k count=$3 status=none | md5sum)" ]
}

check_kernel_log() {
    complaints >>/tmp/complaints
    is "no complaints in the kernel's log" "" "$(cat /tmp/complaints)"
}

# What is being done, for who reads the log and for a guest that hangs
step() { echo "step: $1"; }

# 4 MiB in /tmp/data, no two blocks alike, the same in each boot
make_data() { seq 1000000 1999999 | head -c 4194304 >/tmp/data; }

# The zones that are not EMPTY, after how many there are in all
report_zones() {
    echo "report: $(cat "/sys/block/${1#/dev/}/queue/nr_zones") zones"
    blkzone report "$1" | grep -v '(em)'
    echo "report: end"
}
