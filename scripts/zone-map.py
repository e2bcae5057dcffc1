#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Show the zones of a zoned qcow2 image as a map, one character a zone."""

import argparse
from collections import Counter
import json
import os
from pathlib import Path
import re
import subprocess
import sys

PER_LINE = 64
LEGEND = """\
. empty   0-9 closed, tenths written   a-j open, tenths written   F full
C conventional   R read-only   X offline"""
# BlockZoneState's values, as qemu-io prints them; a digit or a letter of
# the map says how much of a closed or open zone is written.
STATES = {0: ('conventional', 'C'), 1: ('empty', '.'),
          2: ('implicitly open', 'abcdefghij'),
          3: ('explicitly open', 'abcdefghij'),
          4: ('closed', '0123456789'), 13: ('read-only', 'R'),
          14: ('full', 'F'), 15: ('offline', 'X')}
SECTOR = 512
UNITS = (('TiB', 1 << 40), ('GiB', 1 << 30), ('MiB', 1 << 20), ('KiB', 1 << 10))
ZONE = re.compile(r'start: 0x(\w+), len 0x\w+, cap 0x(\w+), wptr 0x(\w+), '
                  r'zcond:(\d+)')


def run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        sys.exit(f'zone-map: cannot run {command[0]}: {error.strerror} '
                 '(set QEMU_BUILD or --qemu-io)')
    if done.returncode:
        sys.exit(f'zone-map: {done.stderr or done.stdout}'.rstrip())
    return done.stdout


def human(size: int) -> str:
    for unit, scale in UNITS:
        if size >= scale:
            return f'{size / scale:.4g} {unit}'
    return f'{size} bytes'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=LEGEND,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', help='qcow2 file that no one is writing to')
    parser.add_argument('--qemu-io', help='default: in $QEMU_BUILD or the PATH; '
                        'qemu-img is taken from the same place')
    args = parser.parse_args()
    qemu_io = args.qemu_io or os.path.join(os.environ.get('QEMU_BUILD', ''),
                                           'qemu-io')
    qemu_img = str(Path(qemu_io).with_name('qemu-img'))

    info = json.loads(run(qemu_img, 'info', '--output=json', '-f', 'qcow2',
                          args.image))
    geometry = info['format-specific']['data'].get('zone')
    if geometry is None:
        sys.exit(f'zone-map: {args.image} is not zoned')
    report = run(qemu_io, '-r', '-f', 'qcow2',
                 '-c', f'zrp 0 {geometry["nr-zones"]}', args.image)

    chars = []
    counts = Counter()
    written = 0
    for match in ZONE.finditer(report):
        start, capacity, wp = (int(field, 16) for field in match.groups()[:3])
        name, symbols = STATES[int(match[4])]
        # A full zone's pointer is at the end of the zone, past its capacity.
        used = min(wp - start, capacity)
        counts[name] += 1
        if name not in ('conventional', 'offline'):
            written += used * SECTOR
        chars.append(symbols[used * len(symbols) // capacity
                             if used < capacity else -1])
    if len(chars) != geometry['nr-zones']:
        sys.exit(f'zone-map: no report of all {geometry["nr-zones"]} zones '
                 f'from qemu-io:\n{report}'.rstrip())

    width = len(str(len(chars)))
    for first in range(0, len(chars), PER_LINE):
        print(f'{first:{width}} {"".join(chars[first:first + PER_LINE])}')
    print(f'\n{LEGEND}')
    print(f'{len(chars)} zones of {human(geometry["size"])}, capacity '
          f'{human(geometry["capacity"])}: '
          + ', '.join(f'{count} {name}' for name, count in counts.items())
          + f'; {human(written)} below write pointers')


if __name__ == '__main__':
    main()
