# How long sequential writes of a Linux guest take, through virtio-blk
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
One guest has an image of each kind and writes them in turn with dd, each time
to zones (of the others: to places) that were not written before.
"""

import sys
import time

from images import KIB, KINDS, MIB, TOP, size_name
import measure

sys.path.insert(0, str(TOP / 'tests/guest'))
# pylint: disable=wrong-import-position
import guest                                                # noqa: E402

ZONE_SIZE = 64 * MIB
NR_ZONES = 256
ROUNDS = 3
# Size of a write, number of writes to a zone, number of zones
LOADS = ((4 * KIB, 2000, 1), (64 * KIB, 1000, 1), (MIB, 64, 1),
         (64 * KIB, 100, 16))

SCRIPT = '''
run() {     # CASE KIND DEVICE SIZE COUNT FIRST-ZONE LAST-ZONE
    echo "begin: $2 $1"
    for zone in $(seq $6 $7); do
        dd if=/dev/zero of=$3 bs=$4 count=$5 seek=$((zone * ZONE / $4)) \\
            oflag=direct conv=notrunc status=none || echo "failed: $*" &
    done
    wait
    echo end
}
'''


def script(bench):
    """Return what the guest does"""
    lines = [SCRIPT.replace('ZONE /', f'{ZONE_SIZE} /')]
    zone = 0
    for number in range(bench.rounds or ROUNDS):
        for size, count, zones in LOADS[:2] if bench.quick else LOADS:
            case = f'guest {size_name(size)} z{zones}'
            for position in range(len(KINDS)):
                index = (number + position) % len(KINDS)
                lines.append(
                    f'run "{case}" {KINDS[index]} /dev/vd{"abcd"[index]} '
                    f'{size} {count} {zone} {zone + zones - 1}')
            zone += zones
    assert zone <= NR_ZONES
    return '\n'.join(lines) + '\n'


class Clock:
    """Takes the time when the guest says that it begins and ends"""

    def __init__(self, bench):
        self.bench = bench
        self.current = self.begin = None

    def __call__(self, line):
        if line.startswith('begin: '):
            self.current = line.split(maxsplit=2)[1:]
            self.begin = time.monotonic()
        elif line == 'end':
            kind, case = self.current
            self.bench.add(case, kind, 'seconds',
                           time.monotonic() - self.begin)


def write(bench):
    guest.prepare()
    images = [bench.image(kind).create(NR_ZONES * ZONE_SIZE, ZONE_SIZE)
              for kind in KINDS]
    result = guest.run(script(bench), [image.path for image in images],
                       formats=[image.format for image in images],
                       show=Clock(bench))
    if result.status != 0 or 'failed' in result.output:
        raise measure.Failed(f'the guest failed, {result.reason}:\n'
                             f'{result.output}')
    for image in images:
        image.path.unlink()
