# How internal snapshots of zoned images are taken, gone back to and deleted
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A `qemu-img snapshot` takes the place of a workload: an image is used, has some
snapshots taken, and then one more is recorded that is taken, gone back to or
deleted.  Whenever the power is cut, data and write pointers of the disk are of
one moment, that before or that after; and so are those of each snapshot that
the image then has, which can be gone back to.
"""

import random

from history import FULL, Geometry, History
from session import SECRET, Failed
from workloads import KIB, Workload

SECTOR = 512


def list_snapshots(image):
    """Return their names, and problems"""
    status, out = image.tool('qemu-img', 'snapshot', '-l', *SECRET,
                             image.options())
    if status:
        return [], [f'snapshot -l: {out}']
    return [line.split()[1] for line in out.splitlines()[2:]], []


def look_at(image):
    """Return what the disk is: its zones and their data, and problems"""
    report, errors = image.report()
    if errors:
        return None, errors
    content, errors = image.content()
    return (report, content), errors


def use(image, rng):
    """Write to some zones, reset and finish some"""
    geo = image.workload.geo
    report, _ = image.report()
    commands = []
    for zone in rng.sample(range(geo.conventional, geo.nr_zones), 14):
        cond, wp = report[zone]
        what = rng.random()
        start = geo.start(zone)
        if cond == FULL or what < 0.2:
            commands.append(f'zrs {start} {geo.length(zone)}')
            wp = start
        if what < 0.9:
            room = start + geo.cap(zone) - wp
            length = SECTOR * rng.randint(1, room // SECTOR)
            commands.append(f'write -P {rng.randint(1, 255)} {wp} {length}')
        else:
            commands.append(f'zf {start} {geo.length(zone)}')
    for _ in range(3):
        offset = SECTOR * rng.randrange(100)
        commands.append(f'write -P {rng.randint(1, 255)} {offset} '
                        f'{SECTOR * rng.randint(1, 20)}')
    _, errors = image.report(*commands)
    if errors:
        raise Failed(errors[0])


def look(image):
    """What the disk is, if that is without problems"""
    disk, errors = look_at(image)
    if errors:
        raise Failed(errors[0])
    return disk


def snapshot(image, option, name, tool='qemu-img', options=None):
    status, out = image.tool(tool, 'snapshot', option, name, *SECRET,
                             options or image.options())
    if status:
        raise Failed(f'snapshot {option} {name}: {out}')


def begin_with_snapshot(image, seed):
    """Have @image share all it has with a snapshot, if its workload has one"""
    if not image.workload.snapshot:
        return
    rng = random.Random(seed)
    geo = image.workload.geo
    # no more than can be active
    zones = rng.sample(range(geo.conventional, geo.nr_zones), 9)
    writes = [f'write -P {zone} {geo.start(zone)} '
              f'{SECTOR * rng.randint(1, geo.cap(zone) // SECTOR)}'
              for zone in zones[:geo.max_active]]
    writes += [f'zf {geo.start(zone)} {geo.length(zone)}'
               for zone in zones[geo.max_active:]]
    writes += [f'write -P 1 0 {geo.conventional * geo.zone_size}']
    _, errors = image.report(*writes)
    if errors:
        raise Failed(errors[0])
    snapshot(image, '-c', 'one')


def history_of(image, kind=History):
    """Return a history of that @kind of @image, which has just been begun"""
    if not image.workload.snapshot:
        return kind(image.workload.geo)
    report, content = look(image)
    history = kind.found(image.workload.geo, report, image.table(), content)
    history.snapshot = content
    return history


def check_snapshot(image, history):
    """Return what is wrong with the snapshot that @image began with, if any"""
    if not image.workload.snapshot:
        return []
    content, errors = image.content('one')
    if not errors and content != history.snapshot:
        errors = ['the snapshot is not what was taken']
    return errors


class Moments:
    """What the disk and its snapshots were, and what may be left of them"""

    def __init__(self, snapshots):
        self.snapshots = snapshots      # name -> (report, content)
        self.disks = []                 # what the disk may be
        self.lists = []                 # which snapshots there may be

    def check(self, image, _entries):
        """Return what is wrong with an image after a power cut"""
        problems = [] if image.is_dirty() else image.check()
        disk, errors = look_at(image)
        problems += errors + image.check(' after it was opened')
        names, errors = list_snapshots(image)
        problems += errors
        if problems:
            return problems
        if disk not in self.disks:
            return [f'the disk is of no single moment: {self.nearest(disk)}']
        if names not in self.lists:
            return [f'snapshots are {", ".join(names)}']
        for name in names:
            problems += self.go_back(image, name)
        return problems or image.use(look_at(image)[0][0])

    def nearest(self, disk):
        """In which zones it differs from each moment"""
        return '; '.join(
            'differs in zones ' + ', '.join(
                str(zone) for zone, pair in enumerate(zip(disk[0], moment[0]))
                if pair[0] != pair[1]) +
            ('' if disk[1] == moment[1] else ' and in data')
            for moment in self.disks)

    def go_back(self, image, name):
        status, out = image.tool('qemu-img', 'snapshot', '-a', name, *SECRET,
                                 image.options())
        if status:
            return [f'snapshot -a {name}: {out}']
        disk, errors = look_at(image)
        if not errors and disk != self.snapshots[name]:
            errors = [f'snapshot {name} is not what was taken']
        return errors + image.check(f' after going back to {name}')


class SnapshotWorkload(Workload):
    """An image with two snapshots, and what is then done with one"""

    def __init__(self, name, title, geo, option, which, *options):
        super().__init__(name, title, None, geo, options)
        self.option = option
        self.which = which

    def damage(self, image, seed):
        """Use @image, and return the Moments"""
        rng = random.Random(seed)
        moments = Moments({})
        for name in 'one', 'two':
            use(image, rng)
            snapshot(image, '-c', name)
            moments.snapshots[name] = look(image)
        use(image, rng)
        now = look(image)
        names = sorted(moments.snapshots)
        moments.disks = [now]
        moments.lists = [names]
        if self.option == '-c':
            moments.snapshots[self.which] = now
            moments.lists.append(names + [self.which])
        elif self.option == '-d':
            names.remove(self.which)
            moments.lists = [['one', 'two'], names]
        else:
            moments.disks.append(moments.snapshots[self.which])
        return moments

    def repair(self, image, qemu_img, options):
        """What is recorded"""
        snapshot(image, self.option, self.which, qemu_img, options)


GEOMETRY = Geometry(64 * KIB, 40, capacity=60 * KIB, conventional=1)

SNAPSHOTS = {item.name: item for item in (
    SnapshotWorkload('snapshot-take', 'a snapshot that is taken', GEOMETRY,
                     '-c', 'three', 'cluster_size=4k'),
    SnapshotWorkload('snapshot-go-back', 'a snapshot that is gone back to',
                     GEOMETRY, '-a', 'one', 'cluster_size=4k'),
    SnapshotWorkload('snapshot-delete', 'a snapshot that is deleted', GEOMETRY,
                     '-d', 'two', 'cluster_size=4k'),
)}
