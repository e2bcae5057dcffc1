# The images that are compared, and the ways to write to them
#
# SPDX-License-Identifier: GPL-2.0-or-later

from pathlib import Path
from typing import NamedTuple

import measure

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / 'build'
TOOLS = BUILD / 'qemu-build'
BASE = BUILD / 'base'

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

KINDS = ('zoned', 'plain', 'metadata', 'raw')
ZONE_SIZE = 256 * MIB


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

    def create(self, size, zone_size=ZONE_SIZE, **options):
        """Create it anew; options are those of a zoned image"""
        self.path.unlink(missing_ok=True)
        if self.kind == 'zoned':
            options = {'zone.mode': 'host-managed', 'zone.size': zone_size,
                       **options}
        elif self.kind == 'metadata':
            options = {'preallocation': 'metadata'}
        else:
            options = {}
        words = [word for name, value in options.items()
                 for word in ('-o', f'{name}={value}')]
        measure.run(self.tools / 'qemu-img', 'create', '-f', self.format,
                    *words, self.path, size)
        return self

    def io(self, *commands):
        """Return a qemu-io command line"""
        return [self.tools / 'qemu-io', '-t', 'writeback', '-f', self.format,
                *(word for command in commands for word in ('-c', command)),
                self.path]


class Load(NamedTuple):
    """Sequential writes with qemu-img bench"""
    requests: int
    size: int
    depth: int = 1
    flush: bool = False         # after each write

    @property
    def data(self):
        return self.requests * self.size

    def command(self, image):
        words = [image.tools / 'qemu-img', 'bench', '-w', '-t', 'writeback',
                 '-f', image.format, '-c', self.requests,
                 '-s', self.size, '-d', self.depth]
        if self.flush:
            words += ['--flush-interval', '1']
        return [*words, image.path]
