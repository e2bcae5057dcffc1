# Results as Markdown
#
# SPDX-License-Identifier: GPL-2.0-or-later

import statistics

from images import CONTROL, KINDS
from targets import number

COUNTS = ('calls beyond the data', 'writes', 'fallocates', 'fdatasyncs',
          'fdatasyncs per flush', 'beyond the data', 'written', 'allocated',
          'system calls', 'user', 'system', 'instructions',
          'path instructions', 'elapsed', 'peak RSS')
TIMES_LEGEND = '''\
Milliseconds: median (least-most) of the rounds.  CPU: user and system time,
zoned/plain.  Ratio: throughput, zoned/plain, above 1 zoned is faster; best: of
the fastest rounds, which others on the machine disturbed least.  Noise: the
ratio of a second plain image.
'''
LEGEND = '''\
"calls beyond the data" are writes and fallocates that are no data writes;
"written" and "allocated" are bytes, of writes and fallocates; "instructions"
are per request but for resets, in user space; "path instructions" are those but
for the event loop and the thread pool, which turn more or less often from run
to run.  User, system and elapsed are seconds.
'''


def table(head, rows):
    """A Markdown table that can be read as it is, too"""
    rows = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ['| ' + ' | '.join(cell.ljust(width)
                               for cell, width in zip(row, widths)) + ' |'
             for row in rows]
    lines.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(lines) + '\n'


def cell(value):
    return '-' if value is None else number(value)


def kinds_of(results, figures):
    """The kinds of images that were measured, ours first"""
    return [kind for kind in (*KINDS, 'base')
            if any(kind == other and name in figures
                   for _, other, name in results.samples)]


def counts(results):
    kinds = kinds_of(results, COUNTS)
    rows = []
    for case in results.cases(*COUNTS):
        for figure in COUNTS:
            values = [results.get(case, kind, figure) for kind in kinds]
            if any(value is not None for value in values):
                ratio = results.ratio(case, 'zoned', 'plain', figure) or \
                    results.ratio(case, 'plain', 'base', figure)
                rows.append([case, figure, *map(cell, values), cell(ratio)])
    return LEGEND + '\n' + table(['case', 'count', *kinds, 'ratio'], rows)


def kinds_of_calls(results):
    rows = []
    for case, kind, figure in results.samples:
        if figure.startswith('calls of ') and kind == 'zoned':
            rows.append([case, figure.removeprefix('calls of '),
                         *(cell(results.get(case, other, figure))
                           for other in KINDS)])
    return table(['case', 'system call', *KINDS], rows)


def spread(values):
    """Median, least and most"""
    if not values:
        return '-'
    digits = 2 if min(values) < 10 else 0
    return '{:.{d}f} ({:.{d}f}-{:.{d}f})'.format(
        statistics.median(values), min(values), max(values), d=digits)


def milliseconds(values):
    return spread([1000 * value for value in values])


def noise(results, case):
    """What the ratio would be if there were nothing to see"""
    return results.ratios(case, 'plain', CONTROL, 'seconds')


def times(results):
    kinds = kinds_of(results, ('seconds',))
    rows = []
    for case in results.cases('seconds'):
        ratios = results.ratios(case, 'plain', 'zoned', 'seconds')
        seconds = {kind: results.all(case, kind, 'seconds') for kind in kinds}
        best = min(seconds['plain']) / min(seconds['zoned']) if ratios else None
        rows.append([case, *map(milliseconds, seconds.values()),
                     cell(results.ratio(case, 'zoned', 'plain', 'CPU')),
                     cell(best), spread(ratios), spread(noise(results, case))])
    return TIMES_LEGEND + '\n' + table(
        ['case', *kinds, 'CPU', 'best', 'ratio', 'noise'], rows)


def verdicts(results, targets, only_measured=False):
    """The targets, then what falls short of those with many cases"""
    if only_measured:
        targets = [target for target in targets if target.measured(results)]
    text = table(['target', 'bound', 'measured', ''],
                 [target.row(results) for target in targets])
    for target in targets:
        missed = target.missed(results)
        if missed and len(target.measured(results)) > 1:
            text += f'\nNot met ({target.what}, {target.sign} ' \
                    f'{number(target.bound)}):\n\n'
            for case, value in missed:
                swing = noise(results, case)
                text += f'- {case}: {number(value)}'
                text += f' (noise: {spread(swing)})\n' if swing else '\n'
    return text
