# What can be counted: the same on a busy machine
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases of `make bench-counts`, functions that take a Bench"""

import measure
from images import BASE, KIB, KINDS, MIB, TOOLS, ZONE_SIZE, Image, Load, \
    size_name


def add_calls(bench, case, kind, calls, load=None):
    """Add the figures of one run; if it wrote data, what is beyond that"""
    figures = {
        'writes': calls.writes,
        'fallocates': calls.count('fallocate'),
        'fdatasyncs': calls.syncs,
        'written': calls.written,
        'allocated': calls.allocated,
        'system calls': calls.kinds.total(),
        **{f'calls of {name}': n for name, n in calls.kinds.items()},
    }
    if load:
        figures['calls beyond the data'] = \
            calls.writes + calls.count('fallocate') - load.requests
        figures['beyond the data'] = calls.written - load.data
        if load.flush:
            figures['fdatasyncs per flush'] = calls.syncs / load.requests
    for name, value in figures.items():
        bench.add(case, kind, name, value)


def count_load(bench, case, load, refill=False):
    """Count the system calls and CPU time of a load"""
    for kind in bench.kinds:
        for traced in (False, True):
            image = bench.image(kind).create()
            if refill:
                image.fill(load)
            if traced:
                calls = measure.count_calls(*load.command(image))
                add_calls(bench, case, kind, calls, load)
            else:
                usage = measure.run(*load.command(image))
                bench.add(case, kind, 'user', usage.user)
                bench.add(case, kind, 'system', usage.system)
            image.path.unlink()


def count_instructions(bench, case, load, requests, images, refill):
    """
    Count the instructions per request: those of a long run less those of a
    short one, so that start and end do not count.
    """
    for name, image in images.items():
        counts = []
        for number in requests:
            part = load._replace(requests=number)
            image.create()
            if refill:
                image.fill(part)
            counts.append(measure.count_instructions(*part.command(image)))
            image.path.unlink()
        more = counts[1] - counts[0]
        number = requests[1] - requests[0]
        bench.add(case, name, 'instructions', more.total / number)
        bench.add(case, name, 'path instructions',
                          more.requests / number)


def first_fill(bench):
    for size, number in ((4 * KIB, 20000), (64 * KIB, 2000)):
        count_load(bench, f'fill {size_name(size)}', Load(number, size))


def flushes(bench):
    for size in (4 * KIB, 64 * KIB):
        count_load(bench, f'write+flush {size_name(size)}',
                   Load(1000, size, flush=True))


def refills(bench):
    for size, number in ((4 * KIB, 5000), (64 * KIB, 1000)):
        count_load(bench, f'refill {size_name(size)}', Load(number, size),
                   refill=True)


# Two numbers of requests for each size
RANGES = {4 * KIB: (1000, 6000), 64 * KIB: (500, 3000)}


def instructions(bench):
    for refill in (False, True):
        for size, requests in RANGES.items():
            for depth in (1,) if bench.quick else (1, 32):
                case = f'{"refill" if refill else "fill"} {size_name(size)}'
                # What depends on timing needs more than one round.
                for number in range(1 if bench.quick else 3):
                    kinds = KINDS[:2] if number or depth > 1 else bench.kinds
                    count_instructions(bench, f'{case} d{depth}',
                                       Load(0, size, depth), requests,
                                       {kind: bench.image(kind)
                                        for kind in kinds}, refill)


def appends(bench):
    for zones in (1, 16):
        images = {kind: bench.image(kind) for kind in ('zoned', 'plain')}
        count_instructions(
            bench, f'append 4k d1 z{zones}',
            Load(0, 4 * KIB, zones=zones, append=True), RANGES[4 * KIB],
            images, False)


def against_base(bench):
    if not (BASE / 'qemu-img').exists():
        print('bench: no unpatched base in build/base to compare with, '
              'BASE=1 builds it')
        return
    for refill in (False, True):
        for size, requests in RANGES.items():
            case = f'{"overwrite" if refill else "fill"} {size_name(size)}'
            images = {'plain': bench.image('plain'),
                      'base': bench.image('plain', BASE)}
            for _ in range(1 if bench.quick else 3):
                count_instructions(bench, f'base {case}',
                                   Load(0, size, zones=None), requests,
                                   images, refill)


def delta(image, prepare, command):
    """Count the calls, and instructions, that a command adds to a qemu-io"""
    counts = []
    for commands in (('zrp 0 1',), ('zrp 0 1', command)):
        prepare(image)
        calls = measure.count_calls(*image.io(*commands))
        prepare(image)
        counts.append((calls, measure.count_instructions(
            *image.io(*commands))))
    return counts[1][0] - counts[0][0], counts[1][1] - counts[0][1]


def full_zone(size):
    """A full zone with that much data, finished unless that fills it"""
    def prepare(image):
        image.create(2 * ZONE_SIZE)
        measure.run(*Load(max(size // MIB, 1), min(size, MIB)).command(image))
        if size < ZONE_SIZE:
            measure.run(*image.io(f'zf 0 {ZONE_SIZE}'))
    return prepare


def full_zones(number, size):
    """Full zones with a little data each"""
    def prepare(image):
        image.create(number * ZONE_SIZE)
        measure.run(*image.io(
            *(f'write -q {zone * ZONE_SIZE} {size}' for zone in range(number)),
            f'zf 0 {number * ZONE_SIZE}'))
    return prepare


# How the disk becomes what it is, and the size of what is to be reset
RESETS = {
    'reset of a zone with 64k': (full_zone(64 * KIB), ZONE_SIZE),
    'reset of a zone with 256M': (full_zone(ZONE_SIZE), ZONE_SIZE),
    'reset of 1,000 zones with 4k':
        (full_zones(1000, 4 * KIB), 1000 * ZONE_SIZE),
    'reset of 1,000 zones with 256k':
        (full_zones(1000, 256 * KIB), 1000 * ZONE_SIZE),
}


def resets(bench):
    image = bench.image('zoned')
    for case, (prepare, size) in RESETS.items():
        calls, executed = delta(image, prepare, f'zrs 0 {size}')
        add_calls(bench, case, 'zoned', calls)
        bench.add(case, 'zoned', 'instructions', executed.total)
        bench.add(case, 'zoned', 'path instructions',
                          executed.requests)
    image.path.unlink()


def opens(bench):
    sizes = {'1k zones': 10 ** 3, '100k zones': 10 ** 5,
             '1M zones': 10 ** 6, '8M zones': 8 * 10 ** 6,
             '1M zones, FULL': 10 ** 6, '8M zones, FULL': 8 * 10 ** 6}
    images = {}
    for case, number in sizes.items():
        image = Image(bench.directory / f'{case}.img', 'zoned')
        images[case] = image.create(number * MIB, zone_size=MIB)
        if case.endswith('FULL'):
            measure.run(*image.io(f'zf 0 {number * MIB}'))
    for _ in range(5 if bench.quick else 15):
        for case, image in images.items():
            usage = measure.run(*image.io('zrp 0 1'))
            for name in ('elapsed', 'user', 'system'):
                bench.add(f'open {case}', 'zoned', name, getattr(usage, name))
    for case, image in images.items():
        with measure.Session(image.io()) as session:
            session.ask('zrp 0 1')
            bench.add(f'open {case}', 'zoned', 'peak RSS',
                              session.peak_rss())
        image.path.unlink()


CASES = {
    'fill': first_fill,
    'flush': flushes,
    'refill': refills,
    'instructions': instructions,
    'append': appends,
    'reset': resets,
    'open': opens,
    'base': against_base,
}
