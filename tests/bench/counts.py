# What can be counted: the same on a busy machine
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Cases of `make bench-counts`.  Each takes the results to add to, a directory for
its images, and whether to be quick.
"""

import measure
from images import GIB, KIB, KINDS, MIB, TOOLS, ZONE_SIZE, Image, Load, \
    size_name

DISK_SIZE = 4 * GIB


def new_image(directory, kind, tools=TOOLS, size=DISK_SIZE, **options):
    return Image(directory / f'{kind}.img', kind, tools).create(size,
                                                                **options)


def add_calls(results, case, kind, calls, load=None):
    """Add the figures of one run; if it wrote data, what is beyond that"""
    for name, value in (('writes', calls.writes),
                        ('fallocates', calls.count('fallocate')),
                        ('fdatasyncs', calls.syncs),
                        ('written', calls.written),
                        ('allocated', calls.allocated),
                        ('system calls', calls.kinds.total())):
        results.add(case, kind, name, value)
    if load:
        results.add(case, kind, 'requests', load.requests)
        results.add(case, kind, 'beyond the data', calls.written - load.data)
        results.add(case, kind, 'calls beyond the data',
                    calls.writes + calls.count('fallocate') - load.requests)
    for name, value in calls.kinds.items():
        results.add(case, kind, f'calls of {name}', value)


def fill(image, load):
    """Write it once, and make the zones empty again"""
    measure.run(*load.command(image))
    if image.kind == 'zoned':
        measure.run(*image.io(f'zrs 0 {DISK_SIZE}'))


def count_load(results, directory, case, load, refill=False):
    """Count the system calls and CPU time of a load"""
    for kind in KINDS:
        for traced in (False, True):
            image = new_image(directory, kind)
            if refill:
                fill(image, load)
            if traced:
                calls = measure.count_calls(*load.command(image))
                add_calls(results, case, kind, calls, load)
            else:
                usage = measure.run(*load.command(image))
                results.add(case, kind, 'user', usage.user)
                results.add(case, kind, 'system', usage.system)
            image.path.unlink()


def count_instructions(results, directory, case, size, depth, kinds, *,
                       rounds, requests, refill=False, tools=None):
    """
    Count the instructions per request: those of a long run less those of a
    short one, so that start and end do not count.
    """
    for _ in range(rounds):
        for kind in kinds:
            counts = []
            for number in requests:
                load = Load(number, size, depth)
                image = new_image(directory, 'plain' if kind == 'base'
                                  else kind, (tools or {}).get(kind, TOOLS))
                if refill:
                    fill(image, load)
                counts.append(measure.count_instructions(*load.command(image)))
                image.path.unlink()
            more = counts[1] - counts[0]
            number = requests[1] - requests[0]
            results.add(case, kind, 'instructions', more.total / number)
            results.add(case, kind, 'without the event loop',
                        more.requests / number)


def first_fill(results, directory, quick):
    """system calls of first fills"""
    for size, number in ((4 * KIB, 20000), (64 * KIB, 2000)):
        count_load(results, directory,
                   f'fill {size_name(size)}', Load(number, size))


def flushes(results, directory, quick):
    """system calls of 1,000 writes with a flush after each"""
    for size in (4 * KIB, 64 * KIB):
        count_load(results, directory, f'write+flush {size_name(size)}',
                   Load(1000, size, flush=True))


def refills(results, directory, quick):
    """system calls of refills after a reset, against overwriting"""
    for size, number in ((4 * KIB, 5000), (64 * KIB, 1000)):
        count_load(results, directory, f'refill {size_name(size)}',
                   Load(number, size), refill=True)


DEPTHS = (1,)
RANGES = {4 * KIB: (1000, 6000), 64 * KIB: (500, 3000)}


def instructions(results, directory, quick):
    """instructions per request of first fills and refills"""
    for refill in (False, True):
        name = 'refill' if refill else 'fill'
        for size, requests in RANGES.items():
            for depth in DEPTHS:
                count_instructions(
                    results, directory, f'{name} {size_name(size)} d{depth}',
                    size, depth, KINDS, requests=requests, refill=refill,
                    rounds=1 if quick else 3)


def against_base(results, directory, quick, base):
    """instructions per request of plain images, against the unpatched base"""
    for refill in (False, True):
        name = 'overwrite' if refill else 'fill'
        for size, requests in RANGES.items():
            count_instructions(
                results, directory, f'base {name} {size_name(size)}',
                size, 1, ('plain', 'base'), refill=refill, requests=requests,
                tools={'base': base}, rounds=1 if quick else 5)


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


def fill_zone(size):
    """A zone with that much data, finished unless that fills it"""
    def prepare(image):
        image.create(2 * ZONE_SIZE)
        measure.run(*Load(max(size // MIB, 1), min(size, MIB)).command(image))
        if size < ZONE_SIZE:
            measure.run(*image.io(f'zf 0 {ZONE_SIZE}'))
    return prepare


def fill_zones(number, size):
    """Zones with a little data each, finished"""
    def prepare(image):
        image.create(number * ZONE_SIZE)
        measure.run(*image.io(
            *(f'write -q {zone * ZONE_SIZE} {size}' for zone in range(number)),
            f'zf 0 {number * ZONE_SIZE}'))
    return prepare


def resets(results, directory, quick):
    """system calls and instructions of a reset of one and of 1,000 zones"""
    image = Image(directory / 'zoned.img', 'zoned')
    for case, prepare, zones in (
            ('reset of a zone with 64k', fill_zone(64 * KIB), 1),
            ('reset of a zone with 256M', fill_zone(ZONE_SIZE), 1),
            ('reset of 1,000 zones with 4k', fill_zones(1000, 4 * KIB), 1000),
            ('reset of 1,000 zones with 64k', fill_zones(1000, 64 * KIB),
             1000)):
        calls, executed = delta(image, prepare,
                                f'zrs 0 {zones * ZONE_SIZE}')
        add_calls(results, case, 'zoned', calls)
        results.add(case, 'zoned', 'instructions', executed.total)
        results.add(case, 'zoned', 'without the event loop',
                    executed.requests)
    image.path.unlink()


def opens(results, directory, quick):
    """time and memory to open an image and report one zone"""
    sizes = {'1k zones': 1000, '1M zones': 10 ** 6, '8M zones': 8 * 10 ** 6}
    images = {}
    for case, number in sizes.items():
        image = Image(directory / f'{case}.img', 'zoned')
        images[case] = image.create(number * MIB, zone_size=MIB)
    for _ in range(5 if quick else 15):
        for case, image in images.items():
            usage = measure.run(*image.io('zrp 0 1'))
            results.add(f'open {case}', 'zoned', 'elapsed', usage.elapsed)
    for case, image in images.items():
        results.add(f'open {case}', 'zoned', 'peak RSS', measure.peak_rss(
            'qemu-io> ', 'zrp 0 1', *image.io()))
        image.path.unlink()


CASES = {
    'fill': first_fill,
    'flush': flushes,
    'refill': refills,
    'instructions': instructions,
    'reset': resets,
    'open': opens,
}
