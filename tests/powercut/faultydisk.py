# A zoned disk in use by qemu-io while operations on its files fail
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Like session.Disk, but a request may fail for each error that was injected.
What it leaves of the zones is known for each kind of request, and is looked at
after each failure; then the workload goes on, and may well try again.
"""

import copy
import os
import re
import threading
import zlib

from history import ACTIVE, CLOSED, CONVENTIONAL, EMPTY, EXPLICIT, FULL, \
    IMPLICIT, NEVER, OFFLINE, SECTOR, Generation, History, describe
from image import find_size
from session import PROMPT, Disk, Failed
from snapshots import check_snapshot

NOT_AT_WP = os.strerror(34)

# Requests that a workload sends on after the first failure of many to come
STUBBORN = 25

# Requests that no workload needs, and seconds where tenths of one are enough
PATIENCE = 10000
TIMEOUT = 120


class Enough(Exception):
    """A workload that cannot go on because everything fails"""


class FaultyHistory(History):
    """Knows what else a failed request may have left on disk"""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.tries = []         # failed resets and finishes
        self.growths = []       # that failed: [asked for, until, geometry]
        self.plain_failed = set()       # indexes of plain writes

    def settle(self, pos, generation=None):
        """From @pos on the table says what memory does, nothing else"""
        for attempt in self.tries:
            if generation in (None, attempt.generation):
                attempt.until = min(attempt.until, pos)
        for changes in self.conditions.values() if not generation else ():
            if changes[-1][1] == NEVER:
                done = [change for change in changes if change[1] != NEVER]
                changes.append([pos, pos, done[-1][2]])

    def settle_size(self, pos):
        """From @pos on so does the header"""
        for growth in self.growths:
            growth[1] = min(growth[1], pos)

    def geometry(self, cut, disk_size):
        found = super().geometry(cut, disk_size)
        for asked, until, geo in self.growths:
            if geo.disk_size == disk_size and asked <= cut < until:
                found = found or geo
        return found

    def check_zone(self, geo, zone, generations, cut, reported, entry,
                   content):
        problem = super().check_zone(geo, zone, generations, cut, reported,
                                     entry, content)
        if not problem:
            return None
        for attempt in self.tries:
            if attempt.generation in generations and \
               attempt.may_be_seen(cut) and \
               not super().check_zone(geo, zone, attempt.outcome(), cut,
                                      reported, entry, content):
                return None
        return problem

    def check_plain(self, cut, report, content):
        """Conventional zones: any sector is as some write left it"""
        if not self.plain_failed:
            return super().check_plain(cut, report, content)
        end = self.geo.conventional * self.geo.zone_size
        durable = max(n for pos, n in self.plain_marks if pos <= cut)
        allowed = {}
        for i, (zone, offset, data, pos) in enumerate(self.plain_writes):
            if pos > cut:
                break
            for n in range(0, len(data), SECTOR):
                where = self.geo.start(zone) + offset + n
                if i < durable and i not in self.plain_failed:
                    allowed[where] = set()
                else:
                    allowed.setdefault(where, {bytes(SECTOR)})
                allowed[where].add(data[n:n + SECTOR])
        return [f'conventional sector {where:#x}: '
                f'{describe(content[where:where + SECTOR])}'
                for where in range(0, end, SECTOR)
                if content[where:where + SECTOR] not in
                allowed.get(where, (bytes(SECTOR),))][:4]


class Attempt:
    """A finish or reset of a zone failed; the disk may have either"""

    def __init__(self, generation, asked, is_reset):
        self.generation = generation
        self.asked = asked
        self.until = NEVER
        self.is_reset = is_reset

    def may_be_seen(self, cut):
        return self.asked <= cut < self.until and \
            self.generation.reset[1] > cut

    def outcome(self):
        """The generations of the zone, had it succeeded"""
        if self.is_reset:
            return [Generation()]
        finished = copy.copy(self.generation)
        finished.finish = (self.asked, NEVER)
        return [finished]


def compare(image, history, pos, table):
    """
    Return what is wrong with an image, with these entries in its zone table,
    after what happened up to @pos of its history
    """
    size = find_size(image.header())
    geo = history.geometry(pos, size)
    if not geo:
        return [f'disk of {size} bytes']
    image.geo = geo
    problems = [] if image.workload.lazy else image.check()
    report, errors = image.report()
    if errors:
        return problems + errors
    if image.workload.lazy:
        problems += image.check()
    content, errors = image.content()
    if errors:
        return problems + errors
    return problems + history.check(pos, report, table, content, geo) + \
        check_snapshot(image, history)


class FaultyDisk(Disk):
    """A disk, and the injection of errors into its files"""

    def __init__(self, qemu_io, options, geo, server, directory, history,
                 injection):
        self.error = ''         # of the request in progress
        self.aio_errors = []    # of writes at depth, until drained
        self.opened = set()     # empty zones that a failed write opened
        self.extents = {}       # zone -> list of (offset, length, byte)
        self.incidents = 0      # requests, or groups of writes, that failed
        self.budget = injection.budget
        self.is_endless = injection.is_endless
        self.messages = injection.messages
        self.stubborn = STUBBORN
        self.patience = PATIENCE
        super().__init__(qemu_io, options, geo, server, directory, history)

    # Talking

    def read_answer(self):
        # what goes to stderr may follow the prompt
        out = b''
        while PROMPT not in out:
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                raise Failed(f'qemu-io ended: {out.decode()}')
            out += got
        text = out.replace(PROMPT, b'').decode()
        self.transcript.write(text)
        for line in text.splitlines():
            self.read_line(line)
        return text

    def read_line(self, line):
        if line.startswith('qcow2_free_clusters failed: '):
            return      # and leaks some
        failed = re.match(r'(?:zone )?(\w+) failed: ([^(]*[^( ])', line)
        done = re.match(r'wrote (\d+)/\d+ bytes at offset (\d+)', line)
        not_grown = re.match(r'qemu-io: .*: ([^:]*)$', line)
        if not_grown:
            self.error = not_grown[1]
        elif failed and failed[1] == 'aio_write':
            self.aio_errors.append(failed[2])
        elif failed and failed[1] != 'read':
            self.error = failed[2].split(': ')[-1]
        elif not done:
            super().read_line(line)
        elif int(done[1]):      # not if a flush, see below
            zone, pos = divmod(int(done[2]), self.geo.zone_size)
            if zone >= self.geo.conventional and \
               pos != self.acked.get(zone, 0):
                raise Failed(f'zone {zone}: acknowledged at {pos:#x} after '
                             f'{self.acked.get(zone, 0):#x}')
            super().read_line(line)

    def go_on(self):
        """Before each request: not for ever, if each of them fails"""
        self.patience -= 1
        if not self.patience:
            raise Failed('the workload does not come to an end')
        if self.incidents and self.is_endless:
            self.stubborn -= 1
            if not self.stubborn:
                raise Enough
        if self.aio_errors:
            self.drain()

    def request(self, text):
        """Send a request that may fail; is it done?"""
        self.error = ''
        self.command(text)
        if self.error:
            self.count(text, self.error)
        return not self.error

    def request_in_memory(self, text):
        self.error = ''
        self.command(text)
        if self.error:
            raise Failed(f'{text}: {self.error}')

    def count(self, text, message):
        """A request failed: was that to be expected?"""
        self.incidents += 1
        if message not in self.messages:
            raise Failed(f'{text}: {message}, which was not injected')
        if self.incidents > self.budget:
            raise Failed(f'{text}: {message}, after all {self.budget} errors '
                         f'were had')

    # What the model knows

    def in_flight(self, zone):
        """Has any write to the zone not been acknowledged, or failed?"""
        return self.acked.get(zone, 0) != self.wp(zone)

    def active(self):
        return super().active() | self.opened

    def rewind(self, zone, wp):
        """The writes to @zone from @wp on failed: they never were"""
        generation = self.history.now(zone)
        del generation.data[wp:]
        self.extents[zone] = [extent for extent in self.extents[zone]
                              if extent[0] < wp]
        if wp:
            self.reserved[zone] = wp
        else:
            self.reserved.pop(zone, None)
            if zone not in self.explicit:
                self.opened.add(zone)

    def takes(self, zone, length):
        """A workload takes it for granted that requests succeed: is the zone
        as it wants it, for a write?"""
        self.go_on()
        return self.can_write(zone) and self.room(zone) >= length

    def add(self, zone, length, byte):
        """Note a write that is about to be sent"""
        pos = self.wp(zone)
        self.history.now(zone).data += bytes([byte]) * length
        self.extents.setdefault(zone, []).append((pos, length, byte))
        self.reserved[zone] = pos + length
        self.opened.discard(zone)

    def end_of_write(self, zone, done):
        if not done:
            self.rewind(zone, self.acked.get(zone, 0))
            self.look(zone)
        elif self.in_flight(zone):
            raise Failed(f'zone {zone}: not all acknowledged')
        self.check_filled(zone)

    # Looking

    def report(self):
        out = self.command(f'zrp 0 {self.geo.nr_zones}')
        return [(int(cond), int(wp, 16) * 512) for wp, cond in
                re.findall(r'wptr (0x[0-9a-f]+), zcond:(\d+)', out)]

    def allowed_conditions(self, zone):
        if zone in self.bad:
            return (self.bad[zone],)
        if zone < self.geo.conventional:
            return (CONVENTIONAL,)
        if zone in self.finished or self.wp(zone) == self.geo.cap(zone):
            return (FULL,)
        if zone in self.explicit:
            return (EXPLICIT,)
        if self.wp(zone):
            return (IMPLICIT, CLOSED)
        return (EMPTY, IMPLICIT) if zone in self.opened else (EMPTY,)

    def look(self, *zones):
        """Are all zones as they should be, and do @zones read so?"""
        if self.depth:
            self.drain()
        report = self.report()
        for zone, (cond, wp) in enumerate(report):
            if cond not in self.allowed_conditions(zone):
                raise Failed(f'zone {zone}: condition {cond}, not one of '
                             f'{self.allowed_conditions(zone)}')
            wp -= self.geo.start(zone)
            if cond not in (CONVENTIONAL, FULL, OFFLINE) and \
               wp != self.wp(zone):
                raise Failed(f'zone {zone}: WP {wp:#x}, not '
                             f'{self.wp(zone):#x}')
            if cond == EMPTY:
                self.opened.discard(zone)
        for limit, conditions in ((self.geo.max_open, (IMPLICIT, EXPLICIT)),
                                  (self.geo.max_active, ACTIVE)):
            count = sum(cond in conditions for cond, _ in report)
            if limit and count > limit:
                raise Failed(f'{count} zones of conditions {conditions}, the '
                             f'limit is {limit}')
        for zone in zones:
            if self.bad.get(zone) != OFFLINE:
                self.look_at_data(zone)

    def look_at_data(self, zone):
        pos = self.wp(zone)
        extents = self.extents.get(zone, [])
        for offset, length, byte in [
                *extents, (pos, self.geo.length(zone) - pos, 0)]:
            if length:
                # read_line() takes offence if it is something else
                self.command(f'read -P {byte} {self.offset(zone, offset)} '
                             f'{length}')

    # Requests

    def use(self, body, rng):
        """Run the body of a workload; return what end() does"""
        timer = threading.Timer(TIMEOUT, self.process.kill)
        timer.start()
        try:
            try:
                body(self, rng)
                self.look(*self.sequential())
            except Enough:
                pass
            return self.end()
        finally:
            timer.cancel()

    def write(self, zone, length, fua=False, wait=True):
        if not self.takes(zone, length):
            return
        # A FUA write that fails may have been written; at depth one could not
        # tell.
        wait = wait or fua
        if wait and self.depth:
            self.drain()
        durable = self.durable_when_done()
        generation = self.history.now(zone)
        pos = self.wp(zone)
        self.sequence += 1
        offset = self.offset(zone, pos)
        byte = 1 + zlib.crc32(repr((offset, self.sequence)).encode()) % 255
        self.add(zone, length, byte)
        done = self.request(f'{"" if wait else "aio_"}write'
                            f'{" -f" if fua else ""} -P {byte} {offset} '
                            f'{length}')
        if not wait:
            self.depth += 1
        elif fua and not done and self.has_moved(zone):
            self.acked[zone] = self.wp(zone)
            self.look(zone)
        else:
            self.end_of_write(zone, done)
        if fua and done:
            durable()
            generation.mark(self.position(), pos + length)
            self.history.settle(self.position())

    def has_moved(self, zone):
        """Did the write of a FUA write succeed, and the flush fail?"""
        cond, wp = self.report()[zone]
        return cond == FULL or wp == self.offset(zone, self.wp(zone))

    def append(self, zone, *lengths, wait=True):
        # At depth, they would go elsewhere than the model says after a failure.
        length = sum(lengths)
        if not self.takes(zone, length):
            return
        pos = self.wp(zone)
        self.add(zone, length, 0xcd)
        self.error = ''
        text = f'zap -p {self.offset(zone, 0)} {" ".join(map(str, lengths))}'
        out = self.command(text)
        if self.error:
            self.append_failed(text, zone, pos)
            return
        sector = re.search(r'append sector is (0x[0-9a-f]+)', out)
        went = int(sector[1], 16) * 512 - self.geo.start(zone)
        if self.aio_errors and went != pos:
            # writes before it had failed when it came
            self.rewind(zone, pos)
            self.collect()
            pos = self.wp(zone)
            self.add(zone, length, 0xcd)
        if went != pos:
            raise Failed(f'append to zone {zone} at {pos:#x}: {out}')
        self.acked[zone] = pos + length
        self.check_filled(zone)

    def append_failed(self, text, zone, pos):
        error, before = self.error, self.incidents
        self.rewind(zone, pos)
        self.drain()
        if self.incidents == before:
            # it did not share the fate of a write before it
            self.count(text, error)
        self.look(zone)

    def zeroes(self, zone, length, wait=True, unmap=False):
        if not self.takes(zone, length):
            return
        self.add(zone, length, 0)
        self.end_of_write(zone, self.request(
            f'write -z{"u" if unmap else ""} '
            f'{self.offset(zone, self.wp(zone) - length)} {length}'))

    def plain_write(self, zone, pos, length, fua=False):
        self.go_on()
        before = len(self.history.plain_writes)
        self.error = ''
        super().plain_write(zone, pos, length, fua=False)
        if self.error:
            self.count('write', self.error)
            self.history.plain_failed.add(before)
            self.look()
        elif fua:
            self.flush()

    def flush(self):
        self.go_on()
        self.listen()
        durable = self.durable_when_done()
        # qemu-io says nothing of a flush that fails, but of a FUA write
        if self.request(f'write -f {self.geo.disk_size} 0'):
            durable()
            self.history.settle(self.position())
        else:
            self.look()

    def listen(self):
        super().listen()
        if self.aio_errors:
            self.drain()

    def drain(self):
        """Wait for all writes at depth, and look at what they leave"""
        failed = self.collect()
        if failed:
            self.look(*failed)

    def collect(self):
        """
        Wait for all writes at depth; those that failed never were. Return
        their zones
        """
        self.command('aio_flush')
        self.command('length')
        self.depth = 0
        errors, self.aio_errors = self.aio_errors, []
        failed = [zone for zone in self.reserved if self.in_flight(zone)]
        writes = sum(offset >= self.acked.get(zone, 0) for zone in failed
                     for offset, _, _ in self.extents[zone])
        injected = [error for error in errors if error != NOT_AT_WP]
        # each zone has one for all, but for what came when all had failed
        if len(errors) != writes or len(injected) < len(failed) or \
           len(set(injected)) > len(failed):
            raise Failed(f'{writes} writes to zones {failed} were not '
                         f'acknowledged, errors: {errors}')
        for error in injected[:len(failed)]:
            self.count('aio_write', error)
        for zone in failed:
            self.rewind(zone, self.acked.get(zone, 0))
        for zone in self.reserved:
            self.check_filled(zone)
        return failed

    def open(self, zone):
        self.go_on()
        self.request_in_memory(f'zo {self.offset(zone, 0)} '
                               f'{self.geo.length(zone)}')
        self.explicit.add(zone)
        self.opened.discard(zone)

    def close(self, zone):
        self.go_on()
        self.request_in_memory(f'zc {self.offset(zone, 0)} '
                               f'{self.geo.length(zone)}')
        self.explicit.discard(zone)

    def finish(self, zone):
        self.go_on()
        generation = self.history.now(zone)
        asked = self.position()
        if not self.request(f'zf {self.offset(zone, 0)} '
                            f'{self.geo.length(zone)}'):
            self.history.tries.append(Attempt(generation, asked, False))
            self.look(zone)
            return
        generation.finish = (asked, self.position())
        self.history.settle(self.position(), generation)
        self.history.settle_size(self.position())
        self.finished.add(zone)
        self.explicit.discard(zone)
        self.opened.discard(zone)

    def grow(self, disk_size):
        self.go_on()
        last = self.geo.nr_zones - 1
        if self.geo.length(last) < self.geo.zone_size and \
           last not in self.finished and \
           (self.wp(last) or last in self.explicit | self.opened):
            return      # what would have made it EMPTY or finished has failed
        asked = self.position()
        geo = self.geo.grown(disk_size)
        if not self.request(f'truncate {disk_size}'):
            self.history.growths.append([asked, NEVER, geo])
            self.look(last)
            return
        self.geo = geo
        self.history.grow(asked, self.position(), geo)
        self.history.settle_size(self.position())

    def reset_zones(self, zones, offset, length):
        self.go_on()
        asked = self.position()
        generations = [self.history.now(zone) for zone in zones]
        done = self.request(f'zrs {offset} {length}')
        answered = self.position()
        if any(self.in_flight(zone) for zone in zones):
            # answered, too, but qemu-io has not said so yet
            self.collect()
        if not done:
            self.history.tries += [Attempt(generation, asked, True)
                                   for generation in generations]
            self.look(*zones)
            return
        self.history.settle_size(answered)
        for zone, generation in zip(zones, generations):
            generation.reset = (asked, answered)
            self.history.generations[zone].append(Generation())
            for state in (self.reserved, self.acked, self.extents):
                state.pop(zone, None)
            for state in (self.explicit, self.finished, self.opened):
                state.discard(zone)

    def set_condition(self, zone, condition):
        self.go_on()
        self.drain()
        if not condition and not self.can_be_normal(zone):
            return
        durable = self.durable_when_done()
        change = [self.position(), NEVER, condition]
        self.history.conditions[zone].append(change)
        if not self.request(self.condition_command(zone, condition)):
            self.look(zone)
            return
        change[1] = self.position()
        durable()
        self.history.settle(self.position())
        self.condition_is_set(zone, condition)
        self.opened.discard(zone)

    def end(self):
        """Close the disk; return what it said if it could not in good order"""
        self.listen()
        self.drain()
        durable = self.durable_when_done()
        self.process.stdin.write(b'quit\n')
        self.process.stdin.close()
        out = self.process.stdout.read().decode()
        self.transcript.write(out)
        if self.process.wait() < 0:
            raise Failed(f'qemu-io died of signal {-self.process.returncode}: '
                         f'{out}')
        self.stop()
        if out:
            if self.incidents >= self.budget:
                raise Failed(f'all {self.budget} errors were had before the '
                             f'disk was closed, but then: {out}')
            self.incidents += 1
        else:
            durable()
            self.history.settle(self.position())
            self.history.settle_size(self.position())
        return out
