# The images that are compared, and the ways to write to them
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
from pathlib import Path
from typing import NamedTuple

import measure

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / 'build'
TOOLS = Path(os.environ.get('QEMU_BUILD') or BUILD / 'qemu-build')
BASE = BUILD / 'base'

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

KINDS = ('zoned', 'plain', 'metadata', 'raw')
# A second plain image: by what it differs from the first one, times swing.
CONTROL = 'control'
ZONE_SIZE = 256 * MIB
DISK_SIZE = 16 * ZONE_SIZE


def size_name(size):
    """The short name of a number of bytes, as QEMU's tools take it"""
    for unit, factor in (('G', GIB), ('M', MIB), ('k', KIB)):
        if size % factor == 0:
            return f'{size // factor}{unit}'
    return str(size)


class Image:
    """An image file of one kind"""

    def __init__(self, path, kind, tools=TOOLS):
        self.path = path
        self.kind = kind
        self.tools = tools
        self.format = 'raw' if kind == 'raw' else 'qcow2'

    def create(self, size=DISK_SIZE, zone_size=ZONE_SIZE):
        """Create it anew"""
        self.path.unlink(missing_ok=True)
        options = []
        if self.kind == 'zoned':
            options = ['-o', f'zone.mode=host-managed,zone.size={zone_size}']
        elif self.kind == 'metadata':
            options = ['-o', 'preallocation=metadata']
        measure.run(self.tools / 'qemu-img', 'create', '-f', self.format,
                    *options, self.path, size)
        return self

    def io(self, *commands):
        """Return a qemu-io command line, of one that keeps reset clusters"""
        return [self.tools / 'qemu-io', '-t', 'writeback', '-d', 'ignore',
                '-f', self.format,
                *(word for command in commands for word in ('-c', command)),
                self.path]

    def reset(self):
        """Make all zones empty, if there are any"""
        if self.kind == 'zoned':
            measure.run(*self.io(f'zrs 0 {DISK_SIZE}'))

    def fill(self, load):
        """Have it written once, with the zones empty again"""
        measure.run(*load.command(self))
        self.reset()


class Load(NamedTuple):
    """Sequential writes with qemu-img bench"""
    requests: int
    size: int
    depth: int = 1
    zones: int | None = 1       # None: without the option, as the base
    append: bool = False
    flush: bool = False         # after each write

    @property
    def data(self):
        return self.requests * self.size

    def command(self, image):
        words = [image.tools / 'qemu-img', 'bench', '-w', '-t', 'writeback',
                 '-f', image.format, '-c', self.requests,
                 '-s', self.size, '-d', self.depth]
        if self.zones:
            # so that all kinds of images are written by the same code
            words += ['--zones', self.zones]
        if self.append and image.kind == 'zoned':
            words.append('--append')
        if self.flush:
            words += ['--flush-interval', '1']
        return [*words, image.path]
