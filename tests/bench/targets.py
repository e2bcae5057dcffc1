# What is to be reached, and what was
#
# SPDX-License-Identifier: GPL-2.0-or-later

from collections import defaultdict
import json
import statistics
from typing import Callable, NamedTuple


class Results:
    """
    Samples of what was measured: of a figure ('instructions') of one kind of
    image ('zoned') in one case ('fill 4k d1').
    """

    def __init__(self, samples=()):
        self.samples = defaultdict(list)
        for case, kind, figure, values in samples:
            self.samples[case, kind, figure] = values

    def add(self, case, kind, figure, value):
        self.samples[case, kind, figure].append(value)

    def get(self, case, kind, figure):
        """The median, or None if there is none"""
        values = self.samples.get((case, kind, figure))
        return statistics.median(values) if values else None

    def ratio(self, case, kind, to, figure):
        one, other = self.get(case, kind, figure), self.get(case, to, figure)
        return one / other if one is not None and other else None

    def cases(self, *figures):
        """The cases with such a figure, in the order they were measured"""
        return list(dict.fromkeys(case for case, _, figure in self.samples
                                  if figure in figures))

    def save(self, path):
        rows = [[*key, values] for key, values in self.samples.items()]
        path.write_text(json.dumps(rows, indent=0), encoding='utf-8')

    @classmethod
    def load(cls, path):
        return cls(json.loads(path.read_text(encoding='utf-8')))


class Target(NamedTuple):
    """A bound on one measured value"""
    what: str
    at_most: bool
    bound: float
    unit: str
    measured: Callable[[Results], float | None]

    def row(self, results):
        """Return [target, bound, measured, verdict]"""
        value = self.measured(results)
        sign = '<=' if self.at_most else '>='
        bound = f'{sign} {number(self.bound)}{self.unit}'
        if value is None:
            return [self.what, bound, '-', 'not measured']
        met = value <= self.bound if self.at_most else value >= self.bound
        return [self.what, bound, f'{number(value)}{self.unit}',
                'met' if met else 'NOT MET']


def number(value):
    """A number for people"""
    if isinstance(value, int) or float(value).is_integer() and value >= 100:
        return f'{int(value):,}'
    return f'{value:,.0f}' if value >= 1000 else f'{value:.4g}'


def figure(case, name, scale=1):
    return lambda results: scaled(results.get(case, 'zoned', name), scale)


def scaled(value, scale):
    return None if value is None else value / scale


def ratio(case, name, kind='zoned', to='plain'):
    return lambda results: results.ratio(case, kind, to, name)


def relative(case, small, name):
    """What a case takes as a multiple of another"""
    def measured(results):
        large = results.get(case, 'zoned', name)
        little = results.get(small, 'zoned', name)
        return large / little if large is not None and little else None
    return measured


def beyond(case, small, name, scale):
    """What a case takes more than a small one"""
    def measured(results):
        large = results.get(case, 'zoned', name)
        little = results.get(small, 'zoned', name)
        if large is None or little is None:
            return None
        return (large - little) / scale
    return measured


# All of a request's; that without the event loop does not depend on timing
INSTRUCTIONS = ('instructions', 'without the event loop')


def count_targets():
    """The targets that are counted"""
    yield Target('20,000 x 4k first fill: writes and fallocates beyond the '
                 'data writes', True, 50, '',
                 figure('fill 4k', 'calls beyond the data'))
    for size, bound in (('4k', 0.95), ('64k', 0.80)):
        for depth in (1, 32):
            for name in INSTRUCTIONS:
                yield Target(f'first fill {size}, depth {depth}: {name}, '
                             'zoned/plain', True, bound, '',
                             ratio(f'fill {size} d{depth}', name))
    for size, megabytes in (('4k', 1.5), ('64k', 6)):
        case = f'write+flush {size}'
        yield Target(f'1,000 x ({size} write + flush): fdatasyncs', True,
                     2020, '', figure(case, 'fdatasyncs'))
        yield Target(f'1,000 x ({size} write + flush): bytes beyond the data',
                     True, megabytes, ' MB',
                     figure(case, 'beyond the data', scale=1e6))
    for name, case, small in (
            ('reset of a full 256 MiB zone', 'reset of a zone with 256M',
             'reset of a zone with 64k'),
            ('reset of all of 1,000 full zones',
             'reset of 1,000 zones with 64k', 'reset of 1,000 zones with 4k')):
        yield Target(f'{name}: fdatasyncs', True, 1, '',
                     figure(case, 'fdatasyncs'))
        yield Target(f'{name}: bytes written', True, 8192, '',
                     figure(case, 'written'))
        yield Target(f'{name}: instructions without the event loop, against '
                     'such with less data', True, 1.2, '',
                     relative(case, small, 'without the event loop'))
    for zones, milliseconds, megabytes in (('1M', 10, 16), ('8M', 80, 130)):
        args = f'open {zones} zones', 'open 1k zones'
        yield Target(f'open and report of one zone, {zones} zones: time beyond '
                     '1k zones', True, milliseconds, ' ms',
                     beyond(*args, 'elapsed', 1e-3))
        yield Target(f'open and report of one zone, {zones} zones: peak RSS '
                     'beyond 1k zones', True, megabytes, ' MB',
                     beyond(*args, 'peak RSS', 1e6))
    for name in ('fill', 'overwrite'):
        for size in ('4k', '64k'):
            yield Target(f'plain qcow2, {name} {size}: instructions without '
                         'the event loop, against the unpatched base', True,
                         1.005, '', ratio(f'base {name} {size}',
                                          'without the event loop', 'plain',
                                          'base'))
