# Results as Markdown
#
# SPDX-License-Identifier: GPL-2.0-or-later

from targets import number


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


COUNTS = ('calls beyond the data', 'writes', 'fallocates', 'fdatasyncs',
          'beyond the data', 'written', 'allocated', 'system calls', 'user',
          'system', 'instructions', 'without the event loop', 'elapsed',
          'peak RSS')


def counts(results, kinds):
    """What was counted, each case a few lines"""
    rows = []
    for case in results.cases(*COUNTS):
        for figure in COUNTS:
            values = [results.get(case, kind, figure) for kind in kinds]
            if any(value is not None for value in values):
                ratio = results.ratio(case, 'zoned', 'plain', figure) or \
                    results.ratio(case, 'plain', 'base', figure)
                rows.append([case, figure, *map(cell, values),
                             f'{ratio:.3f}' if ratio else '-'])
    return table(['case', 'count', *kinds, 'ratio'], rows)


def kinds_of_calls(results, kinds):
    """All system calls, by name"""
    rows = []
    for case, kind, figure in results.samples:
        if figure.startswith('calls of ') and kind == 'zoned':
            rows.append([case, figure.removeprefix('calls of '),
                         *(cell(results.get(case, other, figure))
                           for other in kinds)])
    return table(['case', 'system call', *kinds], rows)


def verdicts(results, targets):
    return table(['target', 'bound', 'measured', ''],
                 [target.row(results) for target in targets])
