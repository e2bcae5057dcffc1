# What is done to zoned images before the power is cut
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A workload is an image, and a function that uses the disk in it.  The function
takes decisions from the random generator that it is given and from nowhere
else.
"""

from history import OFFLINE, READ_ONLY, Geometry

KIB = 1024
MIB = 1024 * KIB

WORKLOADS = {}


class Workload:
    """An image and what is done with it"""

    def __init__(self, name, title, body, geo, options=(), data_file=False,
                 luks=False, discard=False, hold=0.0, snapshot=False):
        self.name = name
        self.title = title
        self.body = body
        self.geo = geo
        self.options = options
        self.data_file = data_file
        self.luks = luks
        self.discard = discard
        self.hold = hold        # share of operations that are delayed
        self.snapshot = snapshot    # has one from before
        self.lazy = 'lazy_refcounts=on' in options


def workload(title, geo, *options, names=None, **kwargs):
    """The function is the body of a workload (or several) of its name"""
    def add(body):
        name = (names or body.__name__).replace('_', '-')
        WORKLOADS[name] = Workload(name, title, body, geo, options, **kwargs)
        return body
    return add


# Parts of workloads


def length(rng, disk, zone, unit=4 * KIB, most=16):
    """How much to write to a zone: some units, now and then all there is"""
    room = disk.room(zone)
    if rng.random() < 0.1:
        return room
    return min(room, unit * rng.randint(1, most))


def make_room(disk, rng, keep=1):
    """Finish or reset zones until one more can become active"""
    limit = disk.geo.max_active
    while limit and len(disk.active()) > limit - keep:
        zone = rng.choice(sorted(disk.active()))
        rng.choice((disk.finish, disk.reset))(zone)
    if not disk.writable():
        disk.reset_all()


def some_zone(disk, rng, few=0):
    """A zone to write to, one of the first @few rather than others"""
    zones = disk.writable()
    while not zones:
        make_room(disk, rng)
        zones = disk.writable()
    active = sorted(disk.active().intersection(zones))
    if active and rng.random() < 0.7:
        return rng.choice(active)
    return rng.choice(zones[:few] if few else zones)


def burst(disk, rng, writes, zones=3, unit=4 * KIB, most=8, fua=0.0):
    """Writes at depth, to a few zones, with a flush among them"""
    for n in range(writes):
        zone = some_zone(disk, rng, few=zones)
        disk.write(zone, length(rng, disk, zone, unit, most),
                   fua=rng.random() < fua, wait=False)
        if n == writes // 2 and rng.random() < 0.5:
            disk.flush()
        elif rng.random() < 0.1:
            disk.listen()
    if rng.random() < 0.7:
        disk.flush()
    disk.drain()


def mixed(disk, rng, steps=70):
    """A bit of everything"""
    conventional = disk.geo.conventional
    for _ in range(steps):
        zone = some_zone(disk, rng, few=15)
        what = rng.random()
        if what < 0.35:
            disk.write(zone, length(rng, disk, zone), fua=rng.random() < 0.1)
        elif what < 0.5:
            burst(disk, rng, rng.randint(3, 8))
        elif what < 0.6:
            disk.zeroes(zone, length(rng, disk, zone, 512, 64))
        elif what < 0.65:
            disk.finish(zone)
        elif what < 0.72:
            disk.reset(zone)
        elif what < 0.73:
            disk.reset_all()
        elif what < 0.8 and conventional:
            disk.plain_write(rng.randrange(conventional),
                             512 * rng.randrange(64), 512 * rng.randint(1, 16))
        else:
            disk.flush()


# The workloads


@workload('sequential writes with flushes', Geometry(256 * KIB, 8),
          'cluster_size=4k')
def sequential(disk, rng):
    for zone in disk.sequential():
        while disk.room(zone):
            disk.write(zone, length(rng, disk, zone))
            if rng.random() < 0.3:
                disk.flush()


@workload('zones that are far apart in the table', Geometry(16 * KIB, 200),
          'cluster_size=4k', hold=0.2)
def far_zones(disk, rng):
    # Blocks of the table have 64 zones: a flush writes one, or several.
    for _ in range(40):
        for _ in range(rng.randint(1, 4)):
            zones = disk.writable()
            zone = rng.choice(zones[rng.choice((0, 70, 150)):][:3] or zones)
            disk.write(zone, length(rng, disk, zone, most=2), wait=False)
        disk.drain()
        if rng.random() < 0.6:
            disk.flush()
        if rng.random() < 0.1:
            disk.reset(rng.choice(disk.writable()))


@workload('many zones under tight limits',
          Geometry(16 * KIB, 200, max_open=2, max_active=3),
          'cluster_size=4k')
def tight_limits(disk, rng):
    # Blocks of the table have 64 zones: a slot moves from one to another.
    for _ in range(70):
        for zone in rng.sample(sorted(disk.active()), rng.randint(1, 3)) \
                if len(disk.active()) == 3 else ():
            what = rng.random()
            if what < 0.8:
                disk.write(zone, disk.room(zone))
            elif what < 0.9:
                disk.reset(zone)
            else:
                disk.finish(zone)
        while len(disk.active()) < 3:
            zone = rng.choice(disk.sequential())
            if disk.wp(zone) or zone in disk.finished:
                disk.reset(zone)
            disk.write(zone, rng.choice((4, 8)) * KIB)
        if rng.random() < 0.1:
            disk.reset(rng.randrange(180), rng.randint(1, 20))
        if rng.random() < 0.8:
            disk.flush()


@workload('writes at depth, completed out of order, with flushes among them',
          Geometry(256 * KIB, 8, max_open=3), 'cluster_size=4k', hold=0.5)
def depth(disk, rng):
    for _ in range(25):
        burst(disk, rng, rng.randint(4, 16), unit=512, most=40)
        if rng.random() < 0.2:
            disk.reset(some_zone(disk, rng))


@workload('zone appends between writes, and behind writes in flight',
          Geometry(128 * KIB, 8, capacity=96 * KIB), 'cluster_size=4k',
          hold=0.4)
def append(disk, rng):
    for _ in range(90):
        zone = some_zone(disk, rng, few=4)
        for _ in range(rng.choice((0, 0, 1, 3))):
            if disk.room(zone) > 32 * KIB:
                disk.write(zone, length(rng, disk, zone, 512, 8), wait=False)
        if disk.room(zone) > 16 * KIB and rng.random() < 0.7:
            disk.append(zone, *(512 * rng.randint(1, 8)
                                for _ in range(rng.randint(1, 4))))
        elif disk.room(zone):
            disk.append(zone, disk.room(zone))
        if rng.random() < 0.3:
            disk.flush()
        if rng.random() < 0.5:
            disk.drain()
        if rng.random() < 0.1:
            disk.drain()
            disk.reset(zone)
    disk.drain()


@workload('zone appends at depth, completed out of order',
          Geometry(256 * KIB, 8, capacity=224 * KIB, max_active=4),
          'cluster_size=4k', hold=0.5)
def append_depth(disk, rng):
    for _ in range(25):
        for n in range(rng.randint(4, 16)):
            make_room(disk, rng)
            zone = some_zone(disk, rng, few=3)
            lengths = [512 * rng.randint(1, 8)
                       for _ in range(rng.randint(1, 3))]
            if disk.room(zone) < sum(lengths):
                lengths = [disk.room(zone)]
            disk.append(zone, *lengths, wait=False)
            if rng.random() < 0.1:
                disk.write(zone, length(rng, disk, zone), wait=False) \
                    if disk.room(zone) else disk.flush()
            if rng.random() < 0.15:
                disk.flush()
        if rng.random() < 0.7:
            disk.flush()
        disk.drain()
        if rng.random() < 0.2:
            disk.reset(some_zone(disk, rng))


@workload('zones that are reset and written again',
          Geometry(64 * KIB, 6, max_active=4), 'cluster_size=4k')
def reset_rewrite(disk, rng):
    for _ in range(60):
        zone = rng.choice(disk.sequential())
        if disk.wp(zone) and rng.random() < 0.8:
            disk.reset(zone)
        make_room(disk, rng)
        for _ in range(rng.randint(1, 4)):
            if disk.can_write(zone):
                disk.write(zone, length(rng, disk, zone))
        if rng.random() < 0.5:
            disk.flush()


@workload('all zones reset at once', Geometry(32 * KIB, 100, conventional=2),
          'cluster_size=4k')
def reset_all(disk, rng):
    for _ in range(12):
        for _ in range(12):
            zone = rng.choice(disk.writable())
            disk.write(zone, length(rng, disk, zone))
            if rng.random() < 0.2:
                disk.flush()
            if rng.random() < 0.1:
                disk.finish(zone)
            if rng.random() < 0.1:
                disk.plain_write(rng.randrange(2), 0, 4 * KIB)
        disk.reset_all()


@workload('zones finished half way, before and after a flush',
          Geometry(64 * KIB, 6, max_active=3), 'cluster_size=4k')
def finish(disk, rng):
    for _ in range(50):
        make_room(disk, rng, keep=rng.randint(1, 2))
        zone = some_zone(disk, rng)
        disk.write(zone, length(rng, disk, zone))
        if rng.random() < 0.4:
            disk.flush()
        if disk.can_write(zone):
            disk.write(zone, length(rng, disk, zone))
        disk.finish(zone)
        if rng.random() < 0.3:
            disk.flush()
        if rng.random() < 0.6 and disk.finished:
            disk.reset(rng.choice(sorted(disk.finished)))


@workload('conventional zones beside sequential ones',
          Geometry(64 * KIB, 8, conventional=2), 'cluster_size=4k')
def conventional(disk, rng):
    for _ in range(110):
        if rng.random() < 0.5:
            disk.plain_write(rng.randrange(2), 512 * rng.randrange(96),
                             512 * rng.randint(1, 32), rng.random() < 0.1)
        else:
            zone = some_zone(disk, rng, few=4)
            disk.write(zone, length(rng, disk, zone))
        if rng.random() < 0.2:
            disk.flush()
        if rng.random() < 0.05:
            disk.reset(some_zone(disk, rng))


@workload('FUA writes', Geometry(128 * KIB, 8, max_active=4),
          'cluster_size=4k', hold=0.3)
def fua(disk, rng):
    for _ in range(50):
        make_room(disk, rng)
        if rng.random() < 0.2:
            burst(disk, rng, 6, fua=0.3)
        zone = some_zone(disk, rng)
        disk.write(zone, length(rng, disk, zone), fua=rng.random() < 0.5)
        if rng.random() < 0.1:
            disk.reset(zone)


@workload('writes of any size and zeroes',
          Geometry(128 * KIB, 8, capacity=97 * KIB + 512, last=33 * KIB),
          'cluster_size=16k')
def unaligned(disk, rng):
    for _ in range(100):
        zone = some_zone(disk, rng, few=5)
        size = length(rng, disk, zone, 512, 80)
        what = rng.random()
        if what < 0.5:
            disk.write(zone, size)
        elif what < 0.8:
            disk.zeroes(zone, size, unmap=rng.random() < 0.5)
        elif what < 0.9:
            disk.flush()
        else:
            disk.reset(zone)


@workload('clusters mapped ahead in windows',
          Geometry(2 * MIB, 5, capacity=2 * MIB - 12 * KIB))
def windows(disk, rng):
    # Windows end every 1M: cross that, and stop there.
    for _ in range(50):
        zone = some_zone(disk, rng, few=3)
        what = rng.random()
        if what < 0.4:
            disk.write(zone, length(rng, disk, zone, 44 * KIB, 8))
        elif what < 0.5:
            ahead = -disk.wp(zone) % MIB or MIB
            disk.write(zone, min(ahead, disk.room(zone)))
        elif what < 0.65:
            disk.zeroes(zone, length(rng, disk, zone, 44 * KIB, 12),
                        unmap=rng.random() < 0.5)
        elif what < 0.7:
            disk.finish(zone)
        elif what < 0.85:
            disk.reset(zone)
        else:
            disk.flush()


@workload('explicitly open zones', Geometry(64 * KIB, 8, max_open=3,
                                            max_active=4),
          'cluster_size=4k')
def explicit_open(disk, rng):
    for _ in range(80):
        make_room(disk, rng)
        zone = some_zone(disk, rng)
        what = rng.random()
        if what < 0.3 and disk.can_open(zone):
            disk.open(zone)
        elif what < 0.4 and disk.explicit:
            disk.close(rng.choice(sorted(disk.explicit)))
        elif what < 0.8:
            disk.write(zone, length(rng, disk, zone))
        elif what < 0.9:
            disk.flush()
        else:
            disk.reset(zone)


def grow_disk(disk, rng, most):
    """Grow by less than a zone, by one, or by up to @most of them"""
    geo = disk.geo
    last = geo.nr_zones - 1
    if geo.length(last) < geo.zone_size and disk.wp(last) and \
       last not in disk.finished:
        rng.choice((disk.finish if disk.room(last) else disk.reset,
                    disk.reset))(last)
    size = geo.disk_size
    what = rng.random()
    if what < 0.4:
        size += 512 * rng.randint(1, geo.zone_size // 512)
    elif what < 0.7:
        size = -(-size // geo.zone_size) * geo.zone_size
        size += geo.zone_size * rng.randint(0, 1)
    else:
        size += geo.zone_size * rng.randint(1, most)
    disk.grow(size)


def growing(disk, rng, most, times):
    """Zones are used all the while, old ones and new ones"""
    for _ in range(times):
        for _ in range(rng.randint(0, 5)):
            make_room(disk, rng)
            zones = disk.writable()
            zone = rng.choice((zones[0], zones[-1], rng.choice(zones)))
            disk.write(zone, length(rng, disk, zone, 512),
                       fua=rng.random() < 0.1)
            if rng.random() < 0.2 and disk.room(zone):
                disk.finish(zone)
            elif rng.random() < 0.1:
                disk.reset(zone)
            elif rng.random() < 0.3:
                disk.flush()
        grow_disk(disk, rng, most)


@workload('a disk that grows', Geometry(16 * KIB, 50, capacity=12 * KIB,
                                        conventional=1, max_active=5),
          'cluster_size=512')
def grow(disk, rng):
    # The table has 64 zones in a cluster, the L1 table 128.
    growing(disk, rng, 40, 20)


@workload('a disk that grows, clusters of 64k',
          Geometry(64 * KIB, 3, max_active=4, last=20 * KIB))
def grow_64k(disk, rng):
    growing(disk, rng, 3, 12)


@workload('zones that become READ-ONLY or OFFLINE, and normal again',
          Geometry(16 * KIB, 140, conventional=2, max_open=3, max_active=4),
          'cluster_size=4k', hold=0.3)
def conditions(disk, rng):
    # Blocks of the table have 64 zones: a slot moves from one to another.
    for _ in range(80):
        what = rng.random()
        if what < 0.3:
            make_room(disk, rng)
            burst(disk, rng, rng.randint(1, 4), unit=512)
        elif what < 0.5:
            make_room(disk, rng)
            zone = some_zone(disk, rng)
            disk.write(zone, length(rng, disk, zone), wait=rng.random() < 0.5)
        elif what < 0.55:
            disk.plain_write(1, 512 * rng.randrange(24), 4 * KIB)
        elif what < 0.8:
            zone = rng.choice(sorted(disk.active()) or disk.sequential())
            disk.set_condition(rng.choice((zone, zone, 0)),
                               rng.choice((READ_ONLY, OFFLINE)))
        elif what < 0.95 and disk.bad:
            while len(disk.active()) < 4 and rng.random() < 0.9:
                other = some_zone(disk, rng)
                disk.write(other, length(rng, disk, other, most=2))
            tight = [zone for zone in disk.bad if not disk.can_be_normal(zone)]
            zone = rng.choice(tight or sorted(disk.bad))
            if not disk.can_be_normal(zone):
                # a slot that is free in memory, and not yet on disk
                disk.flush()
                filled = rng.choice(sorted(disk.active()))
                if disk.can_write(filled) and rng.random() < 0.8:
                    disk.write(filled, disk.room(filled))
                else:
                    disk.reset(filled)
            disk.set_condition(zone, None)
        elif what < 0.97:
            disk.reset_all()
        else:
            disk.flush()
    disk.drain()


SMALL = Geometry(64 * KIB, 40, capacity=60 * KIB, conventional=2, max_open=4,
                 max_active=6)

for key, text, opts, more in (
        ('lazy-refcounts', 'lazy refcounts',
         ('cluster_size=4k', 'lazy_refcounts=on'), {}),
        ('extended-l2', 'subclusters',
         ('cluster_size=16k', 'extended_l2=on'), {}),
        ('data-file', 'external data file', ('cluster_size=4k',),
         {'data_file': True}),
        ('discard', 'discard=unmap', ('cluster_size=4k',),
         {'discard': True}),
        ('luks', 'encryption', ('cluster_size=4k',), {'luks': True}),
        ('snapshot', 'clusters shared with a snapshot', ('cluster_size=16k',),
         {'snapshot': True}),
        ('clusters-512', 'clusters of 512 bytes', ('cluster_size=512',), {}),
        ('clusters-64k', 'clusters of 64k', ('cluster_size=64k',), {})):
    workload(f'a bit of everything, {text}', SMALL, *opts, names=key,
             hold=0.3, **more)(mixed)

workload('a bit of everything, clusters of 2M',
         Geometry(2 * MIB, 8, conventional=1, max_active=4),
         'cluster_size=2M', names='clusters-2m', hold=0.3)(mixed)
