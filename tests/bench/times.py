# How long sequential writes take
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases of `make bench`: in each round all kinds of images take turns"""

import random
import re
import statistics
import time

import measure
from counts import RESETS
from images import CONTROL, KIB, KINDS, MIB, Load, size_name

SIZES = {4 * KIB: 16384, 64 * KIB: 8192, MIB: 512}
FEWEST_ROUNDS, MOST_ROUNDS, SECONDS_PER_CASE = 3, 31, 12
REFILLS = 4
TIMED = (*KINDS, CONTROL)
FLUSHED = {4 * KIB: 1000, 64 * KIB: 1000, MIB: 100}


def run_load(image, load):
    """Return how long it took, and the CPU time, in seconds"""
    usage = measure.run(*load.command(image))
    seconds, = re.findall(r'Run completed in ([\d.]+) seconds', usage.output)
    return float(seconds), usage.user + usage.system


def add_times(bench, case, kind, timed):
    """Add the medians of what run_load() returned"""
    seconds, cpu = map(statistics.median, zip(*timed))
    bench.add(case, kind, 'seconds', seconds)
    bench.add(case, kind, 'CPU', cpu)


def rounds(bench, kinds):
    """
    Yield the kinds once in each round, in an order of its own: an image gets
    the memory that the one before it had, for better or worse.  Unless a number
    of rounds is asked for, there are at least 3, and more in time.
    """
    begin = time.monotonic()
    order = random.Random(0)        # the same in each run
    for number in range(bench.rounds or MOST_ROUNDS):
        if not bench.rounds and number >= FEWEST_ROUNDS and \
                time.monotonic() - begin > SECONDS_PER_CASE:
            break
        yield from order.sample(kinds, len(kinds))


def fresh(bench, case, loads):
    """Time loads of {kind: load} on images that were never written to"""
    for kind in rounds(bench, tuple(loads)):
        image = bench.image(kind).create()
        add_times(bench, case, kind, [run_load(image, loads[kind])])
        image.path.unlink()


def grid(bench, quick_zones=1):
    """Yield (name, load) for all sizes, depths and numbers of zones"""
    quick = bench.quick
    for size, requests in SIZES.items():
        for depth in (1, 32) if quick else (1, 8, 32):
            for zones in (quick_zones,) if quick else (1, 16):
                if not (quick and size == MIB):
                    yield (f'{size_name(size)} d{depth} z{zones}',
                           Load(requests, size, depth, zones))


def fill(bench):
    for name, load in grid(bench):
        fresh(bench, f'fill {name}', {kind: load for kind in TIMED})


def append(bench):
    """Zone appends, against writes of the plain image to one place"""
    for name, load in grid(bench, quick_zones=16):
        plain = load._replace(zones=1)
        fresh(bench, f'append {name}', {'zoned': load._replace(append=True),
                                        'plain': plain, CONTROL: plain})


def refill(bench):
    # A new image in each round: memory or disk may be faster for the first of
    # them.  The median of several, since it is the filling that takes long.
    for name, load in grid(bench):
        for kind in rounds(bench, ('zoned', 'plain', 'raw', CONTROL)):
            image = bench.image(kind).create()
            run_load(image, load)
            timed = []
            for _ in range(REFILLS):
                image.reset()
                timed.append(run_load(image, load))
            add_times(bench, f'refill {name}', kind, timed)
            image.path.unlink()


def flush(bench):
    for size, requests in FLUSHED.items():
        for zones in (1,) if bench.quick else (1, 16):
            if not (bench.quick and size == MIB):
                load = Load(requests, size, zones=zones, flush=True)
                fresh(bench, f'write+flush {size_name(size)} d1 z{zones}',
                      {kind: load for kind in TIMED})


def reset(bench):
    image = bench.image('zoned')
    for _ in rounds(bench, ('zoned',)):
        for case, (prepare, size) in RESETS.items():
            prepare(image)
            with measure.Session(image.io()) as session:
                session.ask('zrp 0 1')
                _, seconds = session.ask(f'zrs 0 {size}')
            bench.add(case, 'zoned', 'seconds', seconds)
    image.path.unlink()


CASES = {
    'fill': fill,
    'append': append,
    'refill': refill,
    'flush': flush,
    'reset': reset,
}
# What a quick run does on a disk, where little but flushes differs from tmpfs
QUICK_ON_DISK = ('flush', 'reset')
