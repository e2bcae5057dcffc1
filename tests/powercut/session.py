# A zoned disk in use by qemu-io
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Sends requests to a qemu-io, keeps the history of them, and knows enough of the
zones to send only such as must succeed.
"""

import os
import re
import subprocess
import zlib

from history import NEVER, OFFLINE, READ_ONLY, Generation, History, stamped

PROMPT = b'qemu-io> '
CONDITIONS = {None: 'normal', READ_ONLY: 'read-only', OFFLINE: 'offline'}
SECRET = ('--object', 'secret,id=key,data=powercut')


class NoLog:
    """What a disk has for a log: all happens at position 0"""
    order = ()


class Failed(Exception):
    """A request failed that should not"""


class Ended(Failed):
    """The qemu-io has ended"""


class Disk:
    """
    The disk.  Zones are numbered, offsets are within them.  A request returns
    when it is answered, but with a write at depth (@wait is False).
    """

    def __init__(self, qemu_io, options, geo, server, directory,
                 history=None):
        self.geo = geo
        self.server = server
        self.history = history or History(geo)
        self.pattern_file = os.path.join(directory, 'pattern')
        self.transcript = open(os.path.join(directory, 'transcript'), 'w',
                               encoding='utf-8')
        self.sequence = 0
        self.reserved = {}      # zone -> end of the last write, if not 0
        self.acked = {}         # zone -> end of what was answered, if not 0
        self.explicit = set()   # zones explicitly open
        self.finished = set()
        self.bad = {}           # zone -> READ_ONLY or OFFLINE
        self.flying = set()     # offsets of writes at depth on their way
        self.depth = 0
        self.plain = len(self.history.plain_writes)     # answered
        self.take_over()
        self.process = subprocess.Popen(
            [qemu_io, '-t', 'writeback', *SECRET, options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self.read_answer()

    def take_over(self):
        """Go on from where the history is, if it is one of an image found"""
        for zone, changes in self.history.conditions.items():
            if changes[-1][2]:
                self.bad[zone] = changes[-1][2]
        for zone in self.sequential():
            generation = self.history.now(zone)
            if generation.finish[1] != NEVER:
                self.finished.add(zone)
            if generation.data:
                self.reserved[zone] = self.acked[zone] = len(generation.data)

    # Talking

    def position(self):
        return len(self.server.order)

    def read_answer(self):
        out = b''
        while not out.endswith(PROMPT):
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                raise Ended(f'qemu-io ended: {out.decode()}')
            out += got
        text = out.replace(PROMPT, b'').decode()
        self.transcript.write(text)
        for line in text.splitlines():
            self.read_line(line)
        return text

    def read_line(self, line):
        if 'fail' in line or 'rror' in line:
            raise Failed(line)
        match = re.match(r'wrote (\d+)/(\d+) bytes at offset (\d+)', line)
        if not match:
            return
        done, length, offset = (int(n) for n in match.groups())
        self.flying.discard(offset)
        zone, offset = divmod(offset, self.geo.zone_size)
        if done != length:
            raise Failed(line)
        if zone >= self.geo.conventional:
            self.acked[zone] = max(self.acked.get(zone, 0), offset + length)

    def send(self, text):
        self.transcript.write(f'[{self.position()}] {text}\n')
        try:
            self.process.stdin.write(text.encode() + b'\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            pass                # it has ended: read_answer() says so

    def command(self, text):
        self.send(text)
        return self.read_answer()

    def listen(self):
        """Read what has been answered in the meantime"""
        if self.depth:
            self.command('length')

    # What the model knows

    def wp(self, zone):
        return self.reserved.get(zone, 0)

    def in_flight(self, zone):
        return any(offset // self.geo.zone_size == zone
                   for offset in self.flying)

    def room(self, zone):
        """Bytes that can still be written, 0 if finished or bad"""
        return 0 if zone in self.finished or zone in self.bad else \
            self.geo.cap(zone) - self.wp(zone)

    def active(self):
        return {zone for zone in self.explicit.union(self.reserved)
                if zone not in self.finished and zone not in self.bad and
                (self.acked.get(zone, 0) < self.geo.cap(zone))}

    def can_write(self, zone):
        active = self.active()
        opened = self.explicit - {zone}
        return self.room(zone) > 0 and \
            (zone in active or not self.geo.max_active or
             len(active) < self.geo.max_active) and \
            (not self.geo.max_open or zone in self.explicit or
             len(opened) < self.geo.max_open)

    def sequential(self):
        return range(self.geo.conventional, self.geo.nr_zones)

    def writable(self):
        return [zone for zone in self.sequential() if self.can_write(zone)]

    # Requests

    def offset(self, zone, pos):
        return self.geo.start(zone) + pos

    def durable_when_done(self):
        """Mark what is acknowledged now; return how to say it is durable"""
        marks = [(self.history.now(zone), wp)
                 for zone, wp in self.acked.items()]
        plain = self.plain

        def done():
            pos = self.position()
            for generation, wp in marks:
                generation.mark(pos, wp)
            self.history.plain_marks.append((pos, plain))
        return done

    def write(self, zone, length, fua=False, wait=True):
        pos = self.wp(zone)
        generation = self.history.now(zone)
        self.sequence += 1
        offset = self.offset(zone, pos)
        flags = ' -f' if fua else ''
        if fua:
            self.listen()
        durable = self.durable_when_done()
        if wait:
            data = stamped(zone, pos, length, self.history.generation(zone),
                           self.sequence)
            with open(self.pattern_file, 'wb') as f:
                f.write(data)
            text = f'write{flags} -s {self.pattern_file} {offset} {length}'
        else:
            byte = 1 + zlib.crc32(repr((offset, self.sequence)).encode()) % 255
            data = bytes([byte]) * length
            text = f'aio_write{flags} -P {byte} {offset} {length}'
            self.flying.add(offset)
            self.depth += 1
        generation.data += data
        self.reserved[zone] = pos + length
        self.command(text)
        if wait and self.acked.get(zone, 0) < pos + length:
            raise Failed(f'{text}: not acknowledged')
        if wait and fua:
            durable()
            generation.mark(self.position(), pos + length)
        self.check_filled(zone)

    def append(self, zone, *lengths, wait=True):
        length = sum(lengths)
        pos = self.wp(zone)
        if not wait:
            self.append_at_depth(zone, pos, lengths)
            return
        self.history.now(zone).data += b'\xcd' * length
        self.reserved[zone] = pos + length
        out = self.command(f'zap -p {self.offset(zone, 0)} '
                           f'{" ".join(map(str, lengths))}')
        sector = re.search(r'append sector is (0x[0-9a-f]+)', out)
        if not sector or int(sector[1], 16) * 512 != self.offset(zone, pos):
            raise Failed(f'append to zone {zone} at {pos:#x}: {out}')
        self.acked[zone] = pos + length
        self.check_filled(zone)

    def append_at_depth(self, zone, pos, lengths):
        offset = self.offset(zone, pos)     # as read_line() will learn
        self.sequence += 1
        byte = 1 + zlib.crc32(repr((offset, self.sequence)).encode()) % 255
        self.history.now(zone).data += bytes([byte]) * sum(lengths)
        self.reserved[zone] = pos + sum(lengths)
        self.flying.add(offset)
        self.depth += 1
        self.command(f'aio_zap -P {byte} {self.offset(zone, 0)} '
                     f'{" ".join(map(str, lengths))}')

    def zeroes(self, zone, length, wait=True, unmap=False):
        pos = self.wp(zone)
        self.history.now(zone).data += bytes(length)
        self.reserved[zone] = pos + length
        if not wait:
            self.flying.add(self.offset(zone, pos))
            self.depth += 1
        self.command(f'{"write" if wait else "aio_write"} -z'
                     f'{"u" if unmap else ""} {self.offset(zone, pos)} '
                     f'{length}')
        self.check_filled(zone)

    def check_filled(self, zone):
        if self.acked.get(zone, 0) >= self.geo.cap(zone):
            self.explicit.discard(zone)

    def plain_write(self, zone, pos, length, fua=False):
        self.sequence += 1
        data = stamped(zone, pos, length, 0, self.sequence)
        with open(self.pattern_file, 'wb') as f:
            f.write(data)
        self.history.plain_writes.append((zone, pos, data, self.position()))
        durable = self.durable_when_done()
        self.command(f'write{" -f" if fua else ""} -s {self.pattern_file} '
                     f'{self.offset(zone, pos)} {length}')
        self.plain = len(self.history.plain_writes)
        if fua:
            durable()
            self.history.plain_marks.append((self.position(), self.plain))

    def flush(self):
        self.listen()
        durable = self.durable_when_done()
        self.command('flush')
        durable()

    def drain(self):
        """Wait for all writes at depth"""
        self.command('aio_flush')
        self.command('length')
        self.depth = 0
        for zone, end in self.reserved.items():
            if self.in_flight(zone) or self.acked.get(zone, 0) != end:
                raise Failed(f'zone {zone}: {self.acked.get(zone, 0):#x} '
                             f'acknowledged of {end:#x}')
            self.check_filled(zone)

    def open(self, zone):
        self.command(f'zo {self.offset(zone, 0)} {self.geo.length(zone)}')
        self.explicit.add(zone)

    def close(self, zone):
        self.command(f'zc {self.offset(zone, 0)} {self.geo.length(zone)}')
        self.explicit.discard(zone)

    def can_open(self, zone):
        """May it be opened explicitly, with an open zone left for others?"""
        return self.can_write(zone) and zone not in self.explicit and \
            (not self.geo.max_open or
             len(self.explicit) + 1 < self.geo.max_open)

    def finish(self, zone):
        generation = self.history.now(zone)
        asked = self.position()
        generation.finish = (asked, generation.finish[1])
        self.command(f'zf {self.offset(zone, 0)} {self.geo.length(zone)}')
        generation.finish = (asked, self.position())
        self.finished.add(zone)
        self.explicit.discard(zone)

    def grow(self, disk_size):
        asked = self.position()
        out = self.command(f'truncate {disk_size}')
        if out.strip():
            raise Failed(f'truncate {disk_size}: {out}')
        self.geo = self.geo.grown(disk_size)
        self.history.grow(asked, self.position(), self.geo)

    def reset(self, first, count=1):
        self.reset_zones(range(first, first + count), self.offset(first, 0),
                         sum(map(self.geo.length,
                                 range(first, first + count))))

    def reset_all(self):
        self.reset_zones([zone for zone in self.sequential()
                          if zone not in self.bad], 0, self.geo.disk_size)

    def reset_zones(self, zones, offset, length):
        asked = self.position()
        generations = [self.history.now(zone) for zone in zones]
        for generation in generations:
            generation.reset = (asked, generation.reset[1])
        self.command(f'zrs {offset} {length}')
        answered = self.position()
        if any(self.in_flight(zone) for zone in zones):
            # answered, too, but qemu-io has not said so yet
            self.drain()
        for zone, generation in zip(zones, generations):
            generation.reset = (asked, answered)
            self.history.generations[zone].append(Generation())
            self.reserved.pop(zone, None)
            self.acked.pop(zone, None)
            self.explicit.discard(zone)
            self.finished.discard(zone)

    def can_be_normal(self, zone):
        """Is there an active slot for a bad zone, if it needs one?"""
        is_active = self.wp(zone) and zone not in self.finished and \
            self.wp(zone) < self.geo.cap(zone) and \
            zone >= self.geo.conventional
        return not is_active or not self.geo.max_active or \
            len(self.active()) < self.geo.max_active

    def condition_command(self, zone, condition):
        return f'zcn {self.offset(zone, 0)} {self.geo.length(zone)} ' \
               f'{CONDITIONS[condition]}'

    def set_condition(self, zone, condition):
        """Make a zone READ_ONLY, OFFLINE or, with None, normal again"""
        self.listen()
        durable = self.durable_when_done()
        change = [self.position(), NEVER, condition]
        self.history.conditions[zone].append(change)
        self.command(self.condition_command(zone, condition))
        change[1] = self.position()
        durable()
        if self.in_flight(zone):
            # answered, too, but qemu-io has not said so yet
            self.drain()
        self.condition_is_set(zone, condition)

    def condition_is_set(self, zone, condition):
        self.explicit.discard(zone)
        if condition:
            self.bad[zone] = condition
        else:
            self.bad.pop(zone, None)

    def end(self):
        """Close the disk, in good order"""
        self.listen()
        durable = self.durable_when_done()
        self.process.stdin.write(b'quit\n')
        self.process.stdin.close()
        out = self.process.stdout.read().decode()
        self.transcript.write(out)
        if self.process.wait():
            raise Failed(f'qemu-io returned {self.process.returncode}: {out}')
        durable()
        self.stop()

    def stop(self):
        """However it came about"""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.transcript.close()
