# How zoned images are damaged, and then repaired while the power is cut
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A repair takes the place of a workload: an image is used, its zone table
damaged, and `qemu-img check -r all` recorded.  What a power cut leaves of that
is no worse than before: each zone is as damaged or as repaired, no zone has
become active beyond the limit, and a second repair makes of it just what the
first one would have made.
"""

import json
import random
import struct

from history import Geometry
from image import find_extension, find_table
from session import SECRET, Failed
from workloads import KIB, Workload

SECTOR = 512

OFFLINE = 1 << 61
FINISHED = 1 << 62
EXPLICITLY_OPEN = 1 << 63
ENTRY_WP = (1 << 59) - 1

MAX_ACTIVE = 28     # field of the header extension; the open limit follows


class Damage:
    """What an image was before, what its table is now and has to become"""

    def __init__(self, geo, content, limit):
        self.geo = geo
        self.content = content
        self.limit = limit
        self.before = []
        self.after = []
        self.bad = set()    # zones with an entry that breaks a rule

    def is_active(self, zone, entry):
        """Is it, to who opens the image with @entry in its table?"""
        if zone in self.bad and entry == self.before[zone]:
            return False
        wp = entry & ~EXPLICITLY_OPEN
        start = self.geo.start(zone)
        return start < wp < start + self.geo.cap(zone)

    def count_active(self, entries):
        return sum(self.is_active(zone, entry)
                   for zone, entry in enumerate(entries))

    def set(self, zone, before, after, bad=True):
        self.before[zone] = before
        self.after[zone] = after
        if bad:
            self.bad.add(zone)

    def finish_excess(self):
        """Of zones that stay active, the fullest are to be finished"""
        def room(zone):
            return self.geo.start(zone) + self.geo.cap(zone) - \
                (self.after[zone] & ENTRY_WP)

        active = [zone for zone, entry in enumerate(self.after)
                  if self.is_active(zone, entry)]
        active.sort(key=lambda zone: (room(zone), zone))
        for zone in active[:max(0, len(active) - self.limit)]:
            self.after[zone] = FINISHED | self.after[zone] & ENTRY_WP

    def check(self, image, entries):
        """Return what is wrong with an image that has @entries"""
        problems = [f'zone {zone}: entry {entry:#x}, neither {before:#x} nor '
                    f'{after:#x}' for zone, (entry, before, after)
                    in enumerate(zip(entries, self.before, self.after))
                    if entry not in (before, after)]
        most = max(self.limit, self.count_active(self.before))
        if self.count_active(entries) > most:
            problems.append(f'{self.count_active(entries)} active zones, '
                            f'the limit is {most}')
        return problems or self.repair_again(image)

    def repair_again(self, image):
        status, out = image.tool('qemu-img', 'check', '-r', 'all', *SECRET,
                                 image.options())
        if status:
            return [f'repaired again: {out}']
        problems = [f'zone {zone}: repaired again {entry:#x}, not {after:#x}'
                    for zone, (entry, after)
                    in enumerate(zip(image.table(), self.after))
                    if entry != after]
        _, errors = image.report()
        problems += errors + image.check(' after being repaired again')
        return problems or self.check_content(image)

    def check_content(self, image):
        """No data is lost, and none appears"""
        options = json.loads(image.options()[len('json:'):])
        options['zone-rescue'] = True       # reads what is offline, too
        status, out = image.tool('qemu-img', 'convert', *SECRET, '-O', 'raw',
                                 'json:' + json.dumps(options), image.raw)
        if status:
            return [f'rescued: {out}']
        with open(image.raw, 'rb') as f:
            content = f.read()
        problems = []
        for zone, entry in enumerate(self.after):
            start = self.geo.start(zone)
            end = start + self.geo.length(zone)
            wp = end if entry & OFFLINE else entry & ENTRY_WP
            if content[start:wp] != self.content[start:wp]:
                problems.append(f'zone {zone}: lost data')
            if any(content[wp:end]):
                problems.append(f'zone {zone}: something above the WP '
                                f'{wp - start:#x}')
        return problems


class Repair(Workload):
    """An image that is damaged, in place of what is done with one"""

    def __init__(self, name, title, geo, limit, *options):
        super().__init__(name, title, None, geo, options)
        self.limit = limit

    def damage(self, image, seed):
        """Use @image, then damage it; return the Damage"""
        rng = random.Random(seed)
        geo = self.geo
        chosen = rng.sample(range(1, geo.nr_zones), 30)
        writes = []
        for zone in chosen[:24]:
            length = SECTOR * rng.randint(2, geo.cap(zone) // SECTOR - 1)
            writes.append(f'write -P {zone % 255 + 1} {geo.start(zone)} '
                          f'{length}')
        _, errors = image.report(*writes)
        content, more = image.content()
        if errors or more:
            raise Failed((errors + more)[0])

        damage = Damage(geo, content, self.limit)
        damage.before = list(image.table())
        damage.after = list(damage.before)
        self.damage_entries(damage, chosen, rng)
        damage.finish_excess()
        self.write(image, damage.before)
        return damage

    def damage_entries(self, damage, chosen, rng):
        for zone in chosen[:rng.randint(4, 8)]:
            entry = damage.before[zone]
            damage.set(zone, entry - rng.randint(1, SECTOR - 1),
                       entry - SECTOR)
        for zone in chosen[8:12]:
            limit = self.geo.start(zone) + self.geo.cap(zone)
            damage.set(zone, rng.choice((0, 1 << 58)),
                       OFFLINE | FINISHED | limit)
        for zone in chosen[12:16]:
            entry = damage.before[zone]
            damage.set(zone, EXPLICITLY_OPEN | FINISHED | entry,
                       FINISHED | entry)
        # Those below are good.  The last ones have no clusters.
        for zone in chosen[16:rng.randint(16, 20)]:
            entry = damage.before[zone]
            damage.set(zone, FINISHED | entry, FINISHED | entry, bad=False)
        for zone in chosen[24:]:
            damage.set(zone, 0, self.geo.start(zone))

    def write(self, image, entries):
        """Put them into the table, and the limit into the header"""
        header = image.header()
        table, _ = find_table(header)
        with open(image.paths['image'], 'r+b') as f:
            f.seek(table)
            f.write(struct.pack(f'>{len(entries)}Q', *entries) + b'\1')
            f.seek(find_extension(header) + MAX_ACTIVE)
            f.write(struct.pack('>II', self.limit, self.limit))

    @staticmethod
    def repair(image, qemu_img, options):
        """The repair that is recorded"""
        status, out = image.tool(qemu_img, 'check', '-r', 'all', *SECRET,
                                 options)
        if status:
            raise Failed(f'repair: {out}')


REPAIRS = {item.name: item for item in (
    Repair('repair', 'a zone table that is repaired',
           Geometry(16 * KIB, 250, capacity=15 * KIB), 6, 'cluster_size=4k'),
)}
