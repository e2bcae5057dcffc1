# Which operations on the files of an image fail
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
An Injection says which of the writes and flushes of a file fail, counted from
1 in the order in which qcow2 sends them.  In words, as options take them:

    image:17:EIO            the 17th operation on the image file fails
    image:17:EIO,data:3:ENOSPC      and the third on the data file
    image:17-20:EIO         four in a row
    image:17-:ENOSPC        from the 17th on, as on a file system that is full:
                            with ENOSPC flushes go on, with EIO they fail, too
    image:3:EIO:late        the third is carried out, and reported failed

Late are only such operations that fail as much in this as in the other way for
all that qcow2 without zones does: flushes, writes of the zone table, and writes
of the data file. Others are not counted, then.

A blkdebug node counts in its state, and fails them.  It has blklogwrites on
both sides: the one above notes what qcow2 tried, the one below, whose log goes
to a LogServer, what reached the file.
"""

import errno
import os
import re
import struct

from image import find_table
from logserver import FLAG_DISCARD, FLAG_FLUSH, SECTOR, LogServer

# blkdebug's events that announce an operation, and the type that it has.  The
# one for flushes comes from the node above.
EVENTS = {'pwritev': 'write', 'pwritev_zero': 'write-zeroes',
          'flush_to_disk': 'flush'}

FOR_EVER = 1 << 30


class Fault:
    """Operations @first to @last of @file fail with @errno"""

    def __init__(self, file, first, last, number, late=False):
        self.file = file
        self.first = first
        self.last = last
        self.errno = number
        self.late = late

    @classmethod
    def parse(cls, text):
        match = re.fullmatch(r'(\w+):(\d+)(-(\d*))?:(EIO|ENOSPC)(:late)?',
                             text)
        if not match:
            raise ValueError(f'no fault: {text}')
        first = int(match[2])
        last = first if not match[3] else int(match[4] or FOR_EVER)
        return cls(match[1], first, last, getattr(errno, match[5]),
                   bool(match[6]))

    def __str__(self):
        numbers = str(self.first)
        if self.last != self.first:
            numbers += f'-{self.last if self.last != FOR_EVER else ""}'
        return f'{self.file}:{numbers}:{errno.errorcode[self.errno]}' \
               f'{":late" if self.late else ""}'

    def fails(self, kind, number):
        return self.first <= number <= self.last and \
            (kind != 'flush' or not self.spares_flushes())

    @property
    def is_endless(self):
        return self.last == FOR_EVER

    def spares_flushes(self):
        return self.is_endless and self.errno == errno.ENOSPC


class Injection:
    """All faults of a run"""

    def __init__(self, faults=()):
        self.faults = sorted(faults, key=lambda fault: fault.first)

    @classmethod
    def parse(cls, text):
        return cls(map(Fault.parse, text.split(',')))

    def __str__(self):
        return ','.join(map(str, self.faults))

    @property
    def budget(self):
        """How many operations may fail"""
        return sum(fault.last - fault.first + 1 for fault in self.faults)

    @property
    def is_endless(self):
        return any(fault.is_endless for fault in self.faults)

    @property
    def messages(self):
        return {os.strerror(fault.errno) for fault in self.faults}

    def of(self, file, late):
        return [fault for fault in self.faults
                if fault.file == file and fault.late == late]

    def rules(self, file):
        """The faults of @file in the language of blkdebug"""
        faults = self.of(file, late=False)
        rules = []
        for fault in faults:
            for number in range(fault.first, fault.last + 1):
                if fault.is_endless:
                    rules += self.sticky_rules(fault)
                    break
                rules += [inject(event, number, kind, fault.errno, 'on')
                          for event, kind in EVENTS.items()]
        last = max((fault.first if fault.is_endless else fault.last
                    for fault in faults), default=0)
        for event in EVENTS:
            for number in range(1, last + 1):
                rules.append(f'[set-state]\nevent = "{event}"\n'
                             f'state = "{number}"\n'
                             f'new_state = "{number + 1}"\n')
        return '\n'.join(rules)

    @staticmethod
    def sticky_rules(fault):
        """Active from the first operation on, for all kinds"""
        return [inject(event, fault.first, kind, fault.errno, 'off')
                for event in EVENTS for kind in EVENTS.values()
                if kind != 'flush' or not fault.spares_flushes()]

    def wrap(self, server, directory):
        """Return what puts the nodes on a file, see Image.options()"""
        def node(file, plain):
            rules = os.path.join(directory, file + '.rules')
            with open(rules, 'w', encoding='utf-8') as f:
                f.write(self.rules(file))
            with open(tried_log(directory, file), 'wb'):
                pass
            reached = {
                'driver': 'blklogwrites', 'file': plain,
                'log': {'driver': 'nbd', 'export': file,
                        'server': {'type': 'unix', 'path': server.path}},
            }
            return {
                'driver': 'blklogwrites',
                'log': {'driver': 'file',
                        'filename': tried_log(directory, file)},
                'file': {'driver': 'blkdebug', 'config': rules,
                         'image': reached},
            }
        return node


def inject(event, state, kind, number, once):
    return f'[inject-error]\nevent = "{event}"\nstate = "{state}"\n' \
           f'iotype = "{kind}"\nerrno = "{number}"\nonce = "{once}"\n'


def tried_log(directory, file):
    return os.path.join(directory, file + '.tried')


def tried(directory, file):
    """The kinds of all operations that qcow2 sent to @file, as words"""
    kinds = []
    with open(tried_log(directory, file), 'rb') as f:
        log = f.read()
    pos = SECTOR
    while pos < len(log):
        _, nr_sectors, flags = struct.unpack_from('<QQQ', log, pos)
        pos += SECTOR
        if not flags & FLAG_DISCARD:
            pos += nr_sectors * SECTOR
            kinds.append('flush' if flags & FLAG_FLUSH else 'write')
    return kinds


class FailingLogServer(LogServer):
    """
    The server below; it answers the operations that fail late with an error,
    on which blklogwrites has them fail after they took place. A flush that
    fails has made nothing durable.
    """

    def __init__(self, directory, paths, seed, hold, injection):
        self.injection = injection
        self.late = {file: [] for file in paths}    # kinds of operations
        with open(paths['image'], 'rb') as f:
            self.table, nr_zones = find_table(f.read(65536))
        self.table_end = self.table + 8 * nr_zones
        super().__init__(directory, paths, seed, hold)

    def kind(self, file, data):
        """What may fail late: 'flush', 'write', or ''"""
        sector, nr_sectors, flags = struct.unpack('<QQQ', data[:24])
        start, end = sector * SECTOR, (sector + nr_sectors) * SECTOR
        if flags & FLAG_FLUSH:
            return 'flush'
        if flags & FLAG_DISCARD or file == 'image' and start and \
           (end <= self.table or start >= self.table_end):
            return ''
        return 'write'

    def receive(self, file, offset, data, writer, answer):
        payload = offset == 0 or self.is_payload(file, offset)
        kind = '' if payload else self.kind(file, data)
        if kind:
            self.late[file].append(kind)
            for fault in self.injection.of(file, late=True):
                if fault.fails(kind, len(self.late[file])):
                    answer = answer[:4] + struct.pack('>I', fault.errno) + \
                        answer[8:]
                    if kind == 'flush':
                        writer.write(answer)
                        return
        super().receive(file, offset, data, writer, answer)
