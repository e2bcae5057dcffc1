# What a zoned disk was told and answered, and what must be left of it
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A position is a number of operations in the order of a recording.  Something
asked for at position a and answered at position b cannot have happened before
a power cut at a position below a, and must have at b or above it.
"""

import copy
import struct
import zlib

SECTOR = 512
NEVER = 1 << 60

EMPTY, IMPLICIT, EXPLICIT, CLOSED, FULL = 1, 2, 3, 4, 14
CONVENTIONAL = 0
READ_ONLY, OFFLINE = 13, 15
ACTIVE = (IMPLICIT, EXPLICIT, CLOSED)

STAMP = struct.Struct('>4sIQIIII')
MAGIC = b'ZPWC'

ENTRY_WP = (1 << 59) - 1
ENTRY_FINISHED = 1 << 62


def stamped(zone, offset, length, generation, sequence):
    """Data for a write: its sectors say where they belong, and have a sum"""
    sectors = []
    for pos in range(offset, offset + length, SECTOR):
        fields = (MAGIC, zone, pos, generation, sequence, 0)
        crc = zlib.crc32(STAMP.pack(*fields, 0))
        sectors.append(STAMP.pack(*fields, crc) * (SECTOR // STAMP.size))
    return b''.join(sectors)


def describe(sector):
    """A sector in words"""
    if not any(sector):
        return 'zeros'
    stamp = sector[:STAMP.size]
    magic, zone, pos, generation, sequence, pad, crc = STAMP.unpack(stamp)
    if magic == MAGIC:
        good = stamp * (SECTOR // STAMP.size) == sector and \
            zlib.crc32(STAMP.pack(magic, zone, pos, generation, sequence, pad,
                                  0)) == crc
        return f'zone {zone} offset {pos:#x} generation {generation} ' \
               f'write {sequence}{"" if good else " (DAMAGED)"}'
    if sector == sector[:1] * SECTOR:
        return f'bytes {sector[0]:#x}'
    return f'garbage {sector[:16].hex()}...'


def first_difference(a, b):
    """Offset of the first sector in which @a and @b differ, or their length"""
    low, high = 0, len(a) // SECTOR
    while low < high:
        mid = (low + high + 1) // 2
        if a[low * SECTOR:mid * SECTOR] == b[low * SECTOR:mid * SECTOR]:
            low = mid
        elif mid == low + 1:
            break
        else:
            high = mid - 1
    return low * SECTOR


class Geometry:
    """Sizes and limits of a disk, in bytes and zones"""

    def __init__(self, zone_size, zones, capacity=0, conventional=0,
                 max_open=0, max_active=0, last=0):
        self.zone_size = zone_size
        self.nr_zones = zones
        self.capacity = capacity or zone_size
        self.conventional = conventional
        self.max_open = max_open
        self.max_active = max_active
        self.disk_size = zones * zone_size - (zone_size - last if last else 0)

    def start(self, zone):
        return zone * self.zone_size

    def length(self, zone):
        return min(self.zone_size, self.disk_size - self.start(zone))

    def cap(self, zone):
        return min(self.capacity, self.length(zone))

    def grown(self, disk_size):
        """That of the disk with another size"""
        geo = copy.copy(self)
        geo.disk_size = disk_size
        geo.nr_zones = -(-disk_size // self.zone_size)
        return geo


class Generation:
    """A sequential zone from one reset to the next"""

    def __init__(self, data=b'', durable=0):
        self.data = bytearray(data)     # of all writes sent
        self.marks = [(0, durable)]     # (position, WP durable from there on)
        self.finish = (NEVER, NEVER)    # asked for, answered
        self.reset = (NEVER, NEVER)

    def mark(self, pos, wp):
        if wp > self.marks[-1][1]:
            self.marks.append((pos, wp))

    def needed(self, cut):
        return max(wp for pos, wp in self.marks if pos <= cut)

    def problem(self, cut, cap, cond, wp, disk_wp, content):
        """What is wrong with a zone that is to be of this generation?"""
        same = first_difference(self.data, content[:len(self.data)])
        if cond == FULL:
            return self.problem_full(cut, cap, same, disk_wp, content)
        if self.finish[1] <= cut:
            return f'finished, but condition {cond}'
        if self.needed(cut) == cap:
            return f'filled and flushed, but condition {cond}'
        if wp != disk_wp:
            return f'WP reported {wp:#x}, in table {disk_wp:#x}'
        if wp > len(self.data):
            return f'WP {wp:#x} above all writes ({len(self.data):#x})'
        if wp < self.needed(cut):
            return f'WP {wp:#x}, durable were {self.needed(cut):#x}'
        if wp > same:
            return f'WP {wp:#x} leads data: at {same:#x} is ' \
                   f'{describe(content[same:same + SECTOR])}, not ' \
                   f'{describe(bytes(self.data[same:same + SECTOR]))}'
        if any(content[wp:]):
            return f'something above the WP {wp:#x}'
        return None

    def problem_full(self, cut, cap, same, disk_wp, content):
        if self.finish[0] > cut:
            if len(self.data) < cap:
                return 'FULL, but neither filled nor finished'
            if same < cap:
                return f'FULL, but at {same:#x} is ' \
                       f'{describe(content[same:same + SECTOR])}'
        if any(content[same:]):
            return f'FULL, above the data {same:#x} is ' \
                   f'something that is not zeros'
        if same < self.needed(cut):
            return f'FULL with data up to {same:#x}, durable were ' \
                   f'{self.needed(cut):#x}'
        if disk_wp > same:
            return f'FULL, WP in table {disk_wp:#x} leads data {same:#x}'
        return None


class History:
    """What became of a disk.  Zones are numbered, offsets are within them."""

    def __init__(self, geometry):
        self.geo = geometry
        self.sizes = [(0, 0, geometry)]     # (asked for, answered, geometry)
        self.generations = {zone: [Generation()] for zone in
                            range(geometry.conventional, geometry.nr_zones)}
        # zone -> [asked for, answered, READ_ONLY, OFFLINE or None]
        self.conditions = {zone: [[0, 0, None]] for zone in
                           range(geometry.nr_zones)}
        self.plain_writes = []      # (zone, offset, data, position)
        self.plain_marks = [(0, 0)]     # (position, how many are durable)

    @classmethod
    def found(cls, geometry, report, table, content):
        """That of a disk which begins as it was found, without problems"""
        history = cls(geometry)
        for zone, (cond, _) in enumerate(report):
            if cond in (READ_ONLY, OFFLINE):
                history.conditions[zone] = [[0, 0, cond]]
        for zone in history.generations:
            start = geometry.start(zone)
            wp = (table[zone] & ENTRY_WP) - start
            generation = Generation(content[start:start + wp], wp)
            if FULL in (report[zone][0],
                        history.underlying(geometry, zone,
                                           table[zone])[0]):
                generation.finish = (0, 0)
            history.generations[zone] = [generation]
        for zone in range(geometry.conventional):
            start = geometry.start(zone)
            history.plain_writes.append(
                (zone, 0, content[start:start + geometry.length(zone)], 0))
        history.plain_marks.append((0, len(history.plain_writes)))
        return history

    def cut_off(self):
        """What was asked for and not answered may have happened, or not"""
        for generations in self.generations.values():
            if generations[-1].reset[0] != NEVER:
                generations.append(Generation())

    def now(self, zone):
        return self.generations[zone][-1]

    def generation(self, zone):
        return len(self.generations[zone]) - 1

    def grow(self, asked, answered, geometry):
        """The disk has more zones, none of which has been used"""
        self.geo = geometry
        self.sizes.append((asked, answered, geometry))
        for zone in range(self.geo.conventional, geometry.nr_zones):
            self.generations.setdefault(zone, [Generation()])
            self.conditions.setdefault(zone, [[0, 0, None]])

    def geometry(self, cut, disk_size):
        """That of a disk of @disk_size, None if it cannot be that at @cut"""
        for i, (asked, _, geo) in enumerate(self.sizes):
            if geo.disk_size == disk_size and asked <= cut and \
               all(answered > cut for _, answered, _ in self.sizes[i + 1:]):
                return geo
        return None

    def conditions_at(self, zone, cut):
        """Those that were set, which a zone may have"""
        may_be = set()
        for asked, answered, condition in \
                self.conditions.get(zone, [[0, 0, None]]):
            if answered <= cut:
                may_be = {condition}
            elif asked <= cut:
                may_be.add(condition)
        return may_be

    @staticmethod
    def underlying(geo, zone, entry):
        """What a READ-ONLY or OFFLINE zone would be without that"""
        wp = entry & ENTRY_WP
        if entry & ENTRY_FINISHED or wp == geo.start(zone) + geo.cap(zone):
            return FULL, geo.start(zone) + geo.length(zone)
        return CLOSED if wp > geo.start(zone) else EMPTY, wp

    def check(self, cut, report, table, content, geometry=None):
        """
        Return what is wrong after a power cut at @cut with the zone @report,
        a list of (condition, WP), the @table on disk and the @content of a
        disk of @geometry
        """
        geo = geometry or self.geo
        problems = []
        active = sum(cond in ACTIVE for cond, _ in report)
        if self.geo.max_active and active > self.geo.max_active:
            problems.append(f'{active} active zones, the limit is '
                            f'{self.geo.max_active}')
        for zone in range(geo.conventional, geo.nr_zones):
            generations = self.generations.get(zone, [Generation()])
            problem = self.check_zone(geo, zone, generations, cut,
                                      report[zone], table[zone], content)
            if problem:
                problems.append(f'zone {zone}: {problem}')
        return problems + self.check_plain(cut, report, content)

    def check_zone(self, geo, zone, generations, cut, reported, entry,
                   content):
        start = geo.start(zone)
        end = start + geo.length(zone)
        cond, wp = reported
        is_set = cond if cond in (READ_ONLY, OFFLINE) else None
        if is_set not in self.conditions_at(zone, cut):
            return f'condition {cond}, set was one of ' \
                   f'{self.conditions_at(zone, cut)}'
        if is_set:
            cond, wp = self.underlying(geo, zone, entry)
        if cond not in (EMPTY, FULL, CLOSED):
            return f'condition {cond}'
        problems = []
        for i, generation in enumerate(generations):
            if generation.reset[1] <= cut:
                continue
            if i and generations[i - 1].reset[0] > cut:
                break
            problem = generation.problem(cut, geo.cap(zone), cond, wp - start,
                                         (entry & ENTRY_WP) - start,
                                         content[start:end])
            if not problem:
                return None
            problems.append(f'as generation {i}: {problem}')
        return '; '.join(problems)

    def check_plain(self, cut, report, content):
        """Conventional zones: any sector is as some write left it"""
        problems = []
        durable = max(n for pos, n in self.plain_marks if pos <= cut)
        end = self.geo.conventional * self.geo.zone_size
        for zone in range(self.geo.conventional):
            cond = report[zone][0]
            if (None if cond == CONVENTIONAL else cond) not in \
               self.conditions_at(zone, cut):
                problems.append(f'zone {zone}: condition {cond}')
        allowed = {}
        for i, (zone, offset, data, pos) in enumerate(self.plain_writes):
            if pos > cut:
                break
            for n in range(0, len(data), SECTOR):
                where = self.geo.start(zone) + offset + n
                sector = data[n:n + SECTOR]
                if i < durable:
                    allowed[where] = [sector]
                else:
                    allowed.setdefault(where, [bytes(SECTOR)]).append(sector)
        rest = bytearray(content[:end])
        for where, sectors in allowed.items():
            if content[where:where + SECTOR] not in sectors:
                problems.append(
                    f'conventional sector {where:#x}: '
                    f'{describe(content[where:where + SECTOR])}, not '
                    f'{" or ".join(map(describe, sectors))}')
            rest[where:where + SECTOR] = bytes(SECTOR)
        if any(rest):
            problems.append('data in conventional zones where none was '
                            'written')
        return problems[:4]
