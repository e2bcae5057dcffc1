#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw the zones of a zoned qcow2 image, in the terminal or as a picture."""

import argparse
from collections import Counter
from dataclasses import dataclass
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any, Iterable
from xml.etree import ElementTree

PER_LINE = 64
LEGEND = """\
. empty   0-9 closed, tenths written   a-j open, tenths written   F full
C conventional   R read-only   X offline"""
UNITS = (('TiB', 1 << 40), ('GiB', 1 << 30), ('MiB', 1 << 20), ('KiB', 1 << 10))
MAX_DRAWN = 1 << 16
WIDTH = 1000         # of all columns of a picture
EMPTY_COLOUR = '#eeeeee'


@dataclass(frozen=True)
class State:
    name: str
    symbols: str    # one character, or more for how much is written
    sgr: str        # ECMA-48's "select graphic rendition"
    colour: str     # of what is written, in a picture


# By the names of BlockdevZoneState
STATES = {
    'conventional': State('conventional', 'C', '36', '#5fb3b3'),
    'empty': State('empty', '.', '2', EMPTY_COLOUR),
    'implicitly-open': State('implicitly open', 'abcdefghij', '32', '#2e9e4f'),
    'explicitly-open': State('explicitly open', 'abcdefghij', '1;32',
                             '#8ad14f'),
    'closed': State('closed', '0123456789', '33', '#f09030'),
    'read-only': State('read-only', 'R', '35', '#9060c0'),
    'full': State('full', 'F', '34', '#2f6fb0'),
    'offline': State('offline', 'X', '31', '#d03030'),
}


@dataclass(frozen=True)
class Zone:
    state: State
    capacity: int   # bytes
    written: int    # bytes
    has_wp: bool

    @property
    def symbol(self) -> str:
        symbols = self.state.symbols
        return (symbols[self.written * len(symbols) // self.capacity]
                if self.written < self.capacity else symbols[-1])


def run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        sys.exit(f'zone-map: cannot run {command[0]}: {error.strerror} '
                 '(set QEMU_BUILD or --qemu-img)')
    if done.returncode:
        sys.exit(f'zone-map: {done.stderr or done.stdout}'.rstrip())
    return done.stdout


def human(size: int) -> str:
    for unit, scale in UNITS:
        if size >= scale:
            return f'{size / scale:.4g} {unit}'
    return f'{size} bytes'


def parse(report: str) -> list[Zone]:
    """Return the zones that qemu-img has printed"""
    # A full zone's pointer is at the end of the zone, past its capacity.
    return [Zone(STATES[zone['state']], zone['capacity'],
                 min(zone.get('write-pointer', zone['start']) - zone['start'],
                     zone['capacity']), 'write-pointer' in zone)
            for zone in json.loads(report)]


def summary(zones: list[Zone], geometry: dict[str, Any]) -> str:
    counts = Counter(zone.state.name for zone in zones)
    written = sum(zone.written for zone in zones if zone.has_wp)
    return (f'{len(zones)} zones of {human(geometry["size"])}, capacity '
            f'{human(geometry["capacity"])}: '
            + ', '.join(f'{count} {name}' for name, count in counts.items())
            + f'; {human(written)} below write pointers')


def print_map(zones: list[Zone], first: int, colour: bool) -> None:
    width = len(str(first + len(zones)))
    for begin in range(0, len(zones), PER_LINE):
        line = ''
        sgr = ''
        for zone in zones[begin:begin + PER_LINE]:
            if colour and zone.state.sgr != sgr:
                sgr = zone.state.sgr
                line += f'\033[0;{sgr}m'
            line += zone.symbol
        print(f'{first + begin:{width}} {line}' + ('\033[0m' if sgr else ''))


def rect(parent: ElementTree.Element, box: Iterable[float],
         fill: str) -> ElementTree.Element:
    places = dict(zip(('x', 'y', 'width', 'height'),
                      (f'{number:.4g}' for number in box)))
    return ElementTree.SubElement(parent, 'rect', places, fill=fill)


def text(parent: ElementTree.Element, x: float, y: float, words: str) -> None:
    ElementTree.SubElement(parent, 'text', x=f'{x:g}', y=f'{y:g}').text = words


def draw(zones: list[Zone], first: int, title: str, target: Path) -> None:
    """Draw each zone as a column, filled up to its write pointer"""
    per_row = min(len(zones), max(PER_LINE, int((4 * len(zones)) ** 0.5)))
    rows = -(-len(zones) // per_row)
    column = max(WIDTH / per_row, 2)
    row_height = max(3 * column, 12)
    top, left = 30, 100
    width = max(left + per_row * column + 10, left + WIDTH + 10)
    height = top + rows * row_height + 40
    svg = ElementTree.Element('svg', {
        'xmlns': 'http://www.w3.org/2000/svg', 'font-family': 'sans-serif',
        'font-size': '12', 'viewBox': f'0 0 {width:.0f} {height:.0f}'})
    rect(svg, (0, 0, width, height), 'white')
    text(svg, left, 18, title)

    for begin in range(0, len(zones), per_row):
        y = top + begin // per_row * row_height
        if begin // per_row % -(-rows // 16) == 0:
            text(svg, 10, y + 12, f'zone {first + begin}')
        for i, zone in enumerate(zones[begin:begin + per_row]):
            x, room = left + i * column, 0.85 * row_height
            part = zone.written / zone.capacity if zone.has_wp else 1
            shape = rect(svg, (x, y, 0.8 * column, room), EMPTY_COLOUR)
            if part:
                shape = rect(svg, (x, y + room * (1 - part), 0.8 * column,
                                   room * part), zone.state.colour)
            ElementTree.SubElement(shape, 'title').text = (
                f'zone {first + begin + i}: {zone.state.name}'
                + (f', {human(zone.written)} of '
                   f'{human(zone.capacity)} written'
                   if zone.has_wp else ''))

    x = left
    for state in STATES.values():
        if any(zone.state is state for zone in zones):
            rect(svg, (x, height - 25, 12, 12), state.colour)
            text(svg, x + 18, height - 15, state.name)
            x += 40 + 7 * len(state.name)
    try:
        ElementTree.ElementTree(svg).write(target, encoding='unicode')
    except OSError as error:
        sys.exit(f'zone-map: cannot write {target}: {error.strerror}')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=LEGEND,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', help='qcow2 file that no one is writing to')
    parser.add_argument('--qemu-img',
                        help='default: in $QEMU_BUILD or the PATH')
    parser.add_argument('--first', type=int, default=0, metavar='ZONE',
                        help='number of the first zone to draw (default: 0)')
    parser.add_argument('--count', type=int, metavar='ZONES',
                        help='how many (default: all that follow)')
    parser.add_argument('--color', choices=('auto', 'always', 'never'),
                        default='auto')
    parser.add_argument('--svg', type=Path, metavar='FILE',
                        help='draw a picture, too')
    args = parser.parse_args()
    qemu_img = args.qemu_img or os.path.join(os.environ.get('QEMU_BUILD', ''),
                                             'qemu-img')

    info = json.loads(run(qemu_img, 'info', '--output=json', '-f', 'qcow2',
                          args.image))
    geometry = info['format-specific']['data'].get('zone')
    if geometry is None:
        sys.exit(f'zone-map: {args.image} is not zoned')
    first, nr_zones = args.first, geometry['nr-zones']
    if not 0 <= first < nr_zones:
        sys.exit(f'zone-map: --first {first} is not from 0 to {nr_zones - 1}')
    count: int = nr_zones - first if args.count is None else args.count
    if not 0 < count <= nr_zones - first:
        sys.exit(f'zone-map: --count {count} is not from 1 to '
                 f'{nr_zones - first}')
    if args.svg and count > MAX_DRAWN:
        sys.exit(f'zone-map: {count} zones are more than the {MAX_DRAWN} of a '
                 'picture: choose some with --first and --count')

    zones = parse(run(qemu_img, 'zones', '--output=json', '-f', 'qcow2',
                      '--first', str(first), '--count', str(count),
                      args.image))

    print_map(zones, first, args.color == 'always' or
              (args.color == 'auto' and sys.stdout.isatty()))
    print(f'\n{LEGEND}\n{summary(zones, geometry)}')
    if args.svg:
        draw(zones, first, summary(zones, geometry), args.svg)


if __name__ == '__main__':
    main()
