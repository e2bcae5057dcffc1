# What was written to the files of an image, and what a power cut leaves of it
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A power cut at position p of the order leaves, of each file,

- all writes before the last flush of that file before p, in order;
- of those after it, whatever had left the cache of the disk: any of them, in
  any order, any sectors of each.

Sectors are written whole or not at all.  So for each sector, what it held at
the flush and what any later write put there are all that is possible.
"""

import bisect
import collections
import json
import os
import random
import struct

from image import find_table
from logserver import FLAG_DISCARD, FLAG_FLUSH, SECTOR


class Entry:
    """An operation on a file"""

    def __init__(self, file, flags, offset, data):
        self.file = file
        self.is_flush = bool(flags & FLAG_FLUSH)
        self.is_discard = bool(flags & FLAG_DISCARD)
        self.offset = offset
        self.data = data

    @property
    def end(self):
        return self.offset + len(self.data)

    def __str__(self):
        if self.is_flush:
            return f'flush {self.file}'
        verb = 'discard' if self.is_discard else 'write'
        return f'{verb} {self.file} {self.offset:#x}+{len(self.data):#x}'


def read_entry(log, file, pos):
    header = os.pread(log, 32, pos)
    sector, nr_sectors, flags = struct.unpack('<QQQ', header[:24])
    length = nr_sectors * SECTOR
    if flags & FLAG_DISCARD:
        data = bytes(length)
    else:
        data = os.pread(log, length, pos + SECTOR).ljust(length, b'\0')
    return Entry(file, flags, sector * SECTOR, data)


class Contents:
    """What a file holds"""

    def __init__(self, data):
        self.data = bytearray(data)

    def copy(self):
        return Contents(self.data)

    def write(self, entry, sectors=None):
        """Apply @entry, or only the given ones of its sectors"""
        if entry.is_discard and entry.end > len(self.data):
            return
        if entry.end > len(self.data):
            last = max(sectors, default=-1) + 1 if sectors is not None \
                else len(entry.data) // SECTOR
            end = entry.offset + last * SECTOR
            self.data.extend(bytes(max(0, end - len(self.data))))
        if sectors is None:
            self.data[entry.offset:entry.end] = entry.data
            return
        for sector in sectors:
            pos = entry.offset + sector * SECTOR
            self.data[pos:pos + SECTOR] = \
                entry.data[sector * SECTOR:(sector + 1) * SECTOR]


class Recording:
    """The files before, and all operations on them since, in their order"""

    def __init__(self, directory, order):
        self.files = sorted({name[:-len('.base')]
                             for name in os.listdir(directory)
                             if name.endswith('.base')})
        self.base = {}
        for file in self.files:
            with open(os.path.join(directory, file + '.base'), 'rb') as f:
                self.base[file] = f.read()
        logs = {file: os.open(os.path.join(directory, file + '.log'),
                              os.O_RDONLY) for file in self.files}
        self.entries = [read_entry(logs[file], file, pos)
                        for file, pos in order]
        for log in logs.values():
            os.close(log)
        self.flushes = [i for i, entry in enumerate(self.entries)
                        if entry.is_flush]
        # where the zone table has been, as (offset, number of zones)
        self.tables = {find_table(self.base['image'])}
        self.tables.update(
            find_table(entry.data) for entry in self.entries
            if entry.file == 'image' and entry.offset == 0 and entry.data)

    @classmethod
    def load(cls, directory):
        with open(os.path.join(directory, 'order.json'),
                  encoding='utf-8') as f:
            return cls(directory, json.load(f))

    def is_table(self, entry):
        return entry.file == 'image' and any(
            entry.offset < table + 8 * nr_zones and entry.end > table
            for table, nr_zones in self.tables)

    @staticmethod
    def table_entries(contents):
        image = contents['image'].data
        table, nr_zones = find_table(image)
        entries = image[table:table + 8 * nr_zones].ljust(8 * nr_zones, b'\0')
        return struct.unpack(f'>{nr_zones}Q', entries)

    def unflushed(self, cut):
        """Indexes of writes that a power cut at @cut may undo"""
        done = set()
        found = []
        for i in range(cut - 1, -1, -1):
            entry = self.entries[i]
            if entry.is_flush:
                done.add(entry.file)
                if len(done) == len(self.files):
                    break
            elif entry.file not in done:
                found.append(i)
        return found[::-1]

    def sample(self, count, rng):
        """
        Choose @count power cuts as (position, seed of what is lost), in
        ascending order; a seed of 0 is for losing nothing.
        """
        ends = [i + 1 for i in self.flushes] + [len(self.entries)]
        if len(ends) > count // 3:
            ends = rng.sample(ends, count // 3)
        cuts = [(end, 0) for end in ends]

        inner = [i + 1 for i, entry in enumerate(self.entries)
                 if not entry.is_flush]
        # writes of the table, to be lost or kept alone, count most
        tables = [i + 1 for i, entry in enumerate(self.entries)
                  if self.is_table(entry) and not entry.is_flush] or inner
        # of the image, what is written again and again is metadata
        seen = collections.Counter(entry.offset for entry in self.entries
                                   if entry.file == 'image')
        metadata = [i + 1 for i, entry in enumerate(self.entries)
                    if entry.file == 'image' and not entry.is_flush and
                    not self.is_table(entry) and seen[entry.offset] > 2] \
            or inner
        while len(cuts) < count:
            cut = rng.choice(rng.choice((inner, tables, metadata)))
            if rng.random() < 0.5:
                # as much as there is to lose
                cut = self.next_flush(cut)
            cuts.append((cut, rng.randrange(1, 1 << 32)))
        return sorted(cuts)

    def next_flush(self, cut):
        i = bisect.bisect_left(self.flushes, cut)
        return self.flushes[i] if i < len(self.flushes) \
            else len(self.entries)

    def states(self, cuts):
        """
        For each of @cuts, in ascending order, yield (contents of the files,
        list of what was kept of the unflushed writes)
        """
        durable = {file: Contents(data) for file, data in self.base.items()}
        applied = dict.fromkeys(self.files, 0)
        for cut, seed in cuts:
            todo = set(self.files)
            for i in range(cut - 1, -1, -1):
                entry = self.entries[i]
                if entry.is_flush and entry.file in todo:
                    self.advance(durable, applied, entry.file, i)
                    todo.remove(entry.file)
                    if not todo:
                        break
            contents = {file: c.copy() for file, c in durable.items()}
            kept = self.choose(self.unflushed(cut), seed)
            for i, sectors in kept:
                contents[self.entries[i].file].write(self.entries[i], sectors)
            yield contents, kept

    def advance(self, durable, applied, file, end):
        for entry in self.entries[applied[file]:end]:
            if entry.file == file and not entry.is_flush:
                durable[file].write(entry)
        applied[file] = max(applied[file], end)

    def choose(self, unflushed, seed):
        """What is kept of writes: pairs of index, list of sectors or None"""
        if not seed or not unflushed:
            return [(i, None) for i in unflushed]
        rng = random.Random(seed)
        tables = [i for i in unflushed if self.is_table(self.entries[i])]
        return rng.choice(STRATEGIES)(self, unflushed, tables, rng)

    def keep_none(self, _unflushed, _tables, _rng):
        return []

    def keep_first(self, unflushed, _tables, rng):
        return [(i, None) for i in unflushed[:rng.randrange(len(unflushed))]]

    def keep_some(self, unflushed, _tables, rng):
        keep = rng.choice((0.1, 0.5, 0.9))
        return [(i, None) for i in unflushed if rng.random() < keep]

    def lose_one(self, unflushed, _tables, rng):
        lost = rng.choice(unflushed)
        return [(i, None) for i in unflushed if i != lost]

    def keep_one(self, unflushed, _tables, rng):
        return [(rng.choice(unflushed), None)]

    def keep_table(self, unflushed, tables, rng):
        if len(tables) > 1 and rng.random() < 0.5:
            tables = rng.sample(tables, rng.randrange(1, len(tables)))
        return [(i, None) for i in tables] or \
            self.keep_one(unflushed, tables, rng)

    def lose_table(self, unflushed, tables, _rng):
        return [(i, None) for i in unflushed if i not in tables]

    def keep_table_and_some(self, unflushed, tables, rng):
        return [(i, None) for i in unflushed
                if i in tables or rng.random() < 0.5]

    def lose_end(self, unflushed, _tables, _rng):
        """What file systems do that allocate late"""
        sizes = {}
        for i, entry in enumerate(self.entries):
            if i >= unflushed[0]:
                break
            sizes[entry.file] = max(sizes.get(entry.file, 0), entry.end)
        return [(i, None) for i in unflushed if self.entries[i].offset <
                max(len(self.base[self.entries[i].file]),
                    sizes.get(self.entries[i].file, 0))]

    def reorder(self, unflushed, tables, rng):
        kept = self.keep_some(unflushed, tables, rng)
        rng.shuffle(kept)
        return kept

    def tear(self, unflushed, tables, rng):
        kept = []
        for i in unflushed:
            count = len(self.entries[i].data) // SECTOR
            how = rng.choice(('all', 'none', 'head', 'tail', 'any'))
            split = rng.randrange(count + 1)
            if how == 'all' or (i in tables and rng.random() < 0.5):
                kept.append((i, None))
            elif how == 'head':
                kept.append((i, list(range(split))))
            elif how == 'tail':
                kept.append((i, list(range(split, count))))
            elif how == 'any':
                kept.append((i, [s for s in range(count)
                                 if rng.random() < 0.5]))
        if rng.random() < 0.3:
            rng.shuffle(kept)
        return kept


STRATEGIES = (
    Recording.keep_none, Recording.keep_first, Recording.keep_some,
    Recording.lose_one, Recording.keep_one, Recording.keep_table,
    Recording.lose_table, Recording.lose_end, Recording.keep_table_and_some,
    Recording.reorder, Recording.tear, Recording.tear,
)
