# What is to be reached, and what was
#
# SPDX-License-Identifier: GPL-2.0-or-later

from collections import defaultdict
from fnmatch import fnmatchcase
import json
import statistics
from typing import Callable, NamedTuple


class Results:
    """
    Samples of what was measured: of a figure ('seconds') of one kind of image
    ('zoned') in one case ('fill 4k d1 z1 tmpfs').
    """

    def __init__(self, samples=()):
        self.samples = defaultdict(list)
        for case, kind, figure, values in samples:
            self.samples[case, kind, figure] = values

    def add(self, case, kind, figure, value):
        self.samples[case, kind, figure].append(value)

    def all(self, case, kind, figure):
        return self.samples.get((case, kind, figure), [])

    def get(self, case, kind, figure):
        """The median, or None if there is none"""
        values = self.all(case, kind, figure)
        return statistics.median(values) if values else None

    def ratios(self, case, kind, to, figure):
        """The ratios of two kinds of images, each of one round"""
        return [one / other for one, other in zip(
            self.all(case, kind, figure), self.all(case, to, figure)) if other]

    def ratio(self, case, kind, to, figure):
        ratios = self.ratios(case, kind, to, figure)
        return statistics.median(ratios) if ratios else None

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
    """A bound on what was measured in one or more cases"""
    what: str
    sign: str                   # <= or >=
    bound: float
    unit: str
    measured: Callable[[Results], dict[str, float]]     # case -> value

    def met(self, value):
        return value <= self.bound if self.sign == '<=' else \
            value >= self.bound

    def missed(self, results):
        """Return the (case, value) that are not good enough, worst first"""
        return sorted(((case, value) for case, value
                       in self.measured(results).items()
                       if not self.met(value)),
                      key=lambda item: item[1], reverse=self.sign == '<=')

    def row(self, results):
        """Return [target, bound, measured, verdict]"""
        values = self.measured(results)
        bound = f'{self.sign} {number(self.bound)}{self.unit}'
        if not values:
            return [self.what, bound, '-', 'not measured']
        low, high = number(min(values.values())), number(max(values.values()))
        measured = f'{low}{self.unit}' if low == high else \
            f'{low} to {high}{self.unit}'
        missed = len(self.missed(results))
        return [self.what, bound, measured,
                'met' if not missed else 'NOT MET' if len(values) == 1 else
                f'NOT MET in {missed} of {len(values)}']


def number(value):
    """A number for people"""
    if isinstance(value, int) or float(value).is_integer() and value >= 100:
        return f'{int(value):,}'
    return f'{value:,.0f}' if value >= 1000 else f'{value:.4g}'


def figure(case, name, scale=1):
    """What one case takes of zoned images"""
    def measured(results):
        value = results.get(case, 'zoned', name)
        return {} if value is None else {case: value / scale}
    return measured


def compared(case, small, name, function):
    """function() of the least a case takes, and of what a small one does"""
    def measured(results):
        values = [results.all(which, 'zoned', name) for which in (case, small)]
        return {case: function(*map(min, values))} if all(values) else {}
    return measured


def ratio(pattern, name, kind='zoned', to='plain'):
    """Ratios of all cases that match"""
    def measured(results):
        return {case: value for case in results.cases(name)
                if fnmatchcase(case, pattern) and
                (value := results.ratio(case, kind, to, name)) is not None}
    return measured


def throughput(pattern, to='plain'):
    return ratio(pattern, 'seconds', kind=to, to='zoned')


# All of a request's, and those of its path through the block layer
INSTRUCTIONS = ('instructions', 'path instructions')


def count_targets():
    yield Target('20,000 x 4k first fill: writes and fallocates beyond the '
                 'data writes', '<=', 50, '',
                 figure('fill 4k', 'calls beyond the data'))
    for size, bound in (('4k', 0.95), ('64k', 0.80)):
        for name in INSTRUCTIONS:
            yield Target(f'first fill {size}: {name} per request, zoned/plain',
                         '<=', bound, '', ratio(f'fill {size} d*', name))
    for size, megabytes in (('4k', 1.5), ('64k', 6)):
        case = f'write+flush {size}'
        yield Target(f'1,000 x ({size} write + flush): fdatasyncs', '<=',
                     2020, '', figure(case, 'fdatasyncs'))
        yield Target(f'1,000 x ({size} write + flush): bytes beyond the data',
                     '<=', megabytes, ' MB',
                     figure(case, 'beyond the data', scale=1e6))
    for name, case, small in (
            ('reset of a full 256 MiB zone', 'reset of a zone with 256M',
             'reset of a zone with 64k'),
            ('reset of all of 1,000 full zones',
             'reset of 1,000 zones with 256k', 'reset of 1,000 zones with 4k')):
        yield Target(f'{name}: fdatasyncs', '<=', 1, '',
                     figure(case, 'fdatasyncs'))
        yield Target(f'{name}: bytes written', '<=', 8192, '',
                     figure(case, 'written'))
        yield Target(f'{name}: path instructions, against such with '
                     'less data', '<=', 2, '',
                     compared(case, small, 'path instructions',
                              lambda large, less: large / less))
    for zones, milliseconds, megabytes in (('1M', 10, 16), ('8M', 80, 130)):
        what = f'open and report of one zone, {zones} zones'
        args = f'open {zones} zones', 'open 1k zones'
        yield Target(f'{what}: least time beyond 1k zones', '<=', milliseconds,
                     ' ms', compared(*args, 'elapsed',
                                     lambda large, less:
                                     (large - less) * 1e3))
        yield Target(f'{what}: peak RSS beyond 1k zones', '<=', megabytes,
                     ' MB', compared(*args, 'peak RSS',
                                     lambda large, less:
                                     (large - less) / 1e6))
    yield Target('plain qcow2 against the unpatched base: path instructions '
                 'per request', '<=', 1.005, '',
                 ratio('base *', INSTRUCTIONS[1], 'plain', 'base'))


def time_targets():
    yield Target('first fill: throughput zoned/plain', '>=', 1, '',
                 throughput('fill *'))
    yield Target('first fill: throughput against preallocation=metadata', '>=',
                 0.95, '', throughput('fill *', 'metadata'))
    yield Target('refill after reset: throughput against overwriting plain '
                 'qcow2', '>=', 0.97, '', throughput('refill *'))
    for storage, bound in (('tmpfs', 1.25), ('disk', 1.8)):
        for size in ('4k', '64k'):
            yield Target(f'1,000 x ({size} write + flush): time zoned/plain, '
                         f'{storage}', '<=', bound, '',
                         ratio(f'write+flush {size} d1 z1 {storage}',
                               'seconds'))
    yield Target('append, 16 zones, depth 32: throughput against plain '
                 'sequential writes', '>=', 1, '',
                 throughput('append * d32 z16 *'))
