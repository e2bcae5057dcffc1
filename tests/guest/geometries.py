# SPDX-License-Identifier: GPL-2.0-or-later
"""What the suites of `make check-guest` run on, and which on what."""

from typing import NamedTuple

MIB = 1 << 20


class Geometry(NamedTuple):
    """A zoned disk; sizes in MiB."""
    title: str
    zone: int
    zones: int
    capacity: int
    conventional: int = 0
    max_open: int = 0
    max_active: int = 0
    last: int = 0           # the size of the last zone, if it is shorter
    block: int = 512        # logical blocks of the device, in bytes
    fill: int = 0           # file systems write no more than that

    def size(self) -> int:
        return self.zones * self.zone - (self.last and self.zone - self.last)

    def options(self) -> dict[str, str]:
        """Return what qemu-img takes."""
        return {'size': f'{self.size()}M',
                'zone.mode': 'host-managed',
                'zone.size': f'{self.zone}M',
                'zone.capacity': f'{self.capacity}M',
                'zone.conventional_zones': str(self.conventional),
                'zone.max_open_zones': str(self.max_open),
                'zone.max_active_zones': str(self.max_active)}

    def variables(self) -> str:
        """Return the shell variables of the guest's scripts, in sectors."""
        last = self.last or self.zone
        values = {'NR_ZONES': self.zones,
                  'ZONE': self.zone * MIB // 512,
                  'CAPACITY': self.capacity * MIB // 512,
                  'CONVENTIONAL': self.conventional,
                  'MAX_OPEN': self.max_open,
                  'MAX_ACTIVE': self.max_active,
                  'LAST_LENGTH': last * MIB // 512,
                  'LAST_CAPACITY': min(last, self.capacity) * MIB // 512,
                  'BLOCK': self.block,
                  'FILL': self.fill}
        return ''.join(f'{name}={value}\n' for name, value in values.items())


GEOMETRIES = {
    'limits': Geometry('capacity below size, open = active limit, '
                       'conventional zones', 8, 56, 6, conventional=8,
                       max_open=8, max_active=8),
    'unlimited': Geometry('no limits, no conventional zones', 4, 96, 4),
    'short': Geometry('a short last zone, open limit below active limit', 8,
                      48, 8, conventional=6, max_open=10, max_active=14,
                      last=3),
    '4k': Geometry('logical blocks of 4096 bytes', 8, 48, 8, conventional=8,
                   max_open=10, max_active=14, block=4096),
    'smr': Geometry('as an SMR drive: blocks of 4096 bytes, no active limit', 8,
                    48, 8, conventional=8, max_open=10, block=4096),
    'one': Geometry('a single zone', 16, 1, 13),
    'thousands': Geometry('thousands of zones', 4, 4096, 4, max_active=100,
                          max_open=50, fill=64),
}

ALL = tuple(name for name in GEOMETRIES if name != 'smr')
SEVERAL = tuple(name for name in ALL if name != 'one')

# Not here, because it cannot be: a file system on a single zone; dm-zoned with
# zones whose capacity is below their size, with a limit of active zones (which
# no SMR drive has: it reclaims for ever), or (says dmzadm) with a short last
# zone; of dm-linear, one part of one zone.
SUITES = {
    'blkzone': ALL,
    'zbd': ALL,
    'fio': ALL,
    'power': ALL,
    'zonefs': SEVERAL,
    'f2fs': SEVERAL,
    'btrfs': SEVERAL,
    'dm-linear': SEVERAL,
    'dm-crypt': SEVERAL,
    'dm-zoned': ('unlimited', 'smr'),
}
