# Run a program and measure what it costs
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Times from the kernel, system calls from strace, instructions from valgrind."""

from collections import Counter
from dataclasses import dataclass, field
import os
import re
import subprocess
import tempfile
import time

WRITES = ('pwrite64', 'pwritev', 'pwritev2')
SYNCS = ('fdatasync', 'fsync')


class Failed(Exception):
    """Something a person should read, without a traceback"""


@dataclass
class Usage:
    """What a run took, in seconds"""
    elapsed: float
    user: float
    system: float
    output: str


@dataclass
class Calls:
    """The system calls of a run; of those that change files also the bytes"""
    kinds: Counter = field(default_factory=Counter)
    written: int = 0
    allocated: int = 0

    def count(self, *names):
        return sum(self.kinds[name] for name in names)

    @property
    def writes(self):
        return self.count(*WRITES)

    @property
    def syncs(self):
        return self.count(*SYNCS)

    def __sub__(self, other):
        kinds = Counter(self.kinds)
        kinds.subtract(other.kinds)
        return Calls(kinds, self.written - other.written,
                     self.allocated - other.allocated)


def run(*command):
    """Run a command that must succeed"""
    with tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        elapsed = time.monotonic() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors='replace')
    if child.returncode:
        raise Failed(f'{" ".join(map(str, command))}: '
                     f'exit status {child.returncode}\n{text}')
    return Usage(elapsed, usage.ru_utime, usage.ru_stime, text)


def peak_rss(prompt, request, *command):
    """
    Return the most memory that an interactive command has had when it has
    answered a request.  (That of rusage would be at least our own.)
    """
    with subprocess.Popen([str(word) for word in command],
                          stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        output = b''
        child.stdin.write(request.encode() + b'\n')
        child.stdin.flush()
        while output.count(prompt.encode()) < 2:
            got = os.read(child.stdout.fileno(), 65536)
            if not got:
                raise Failed(f'{" ".join(map(str, command))} ended')
            output += got
        with open(f'/proc/{child.pid}/status', encoding='ascii') as status:
            peak, = re.findall(r'VmHWM:\s*(\d+) kB', status.read())
        child.stdin.close()
    return int(peak) * 1024


def parse_strace(lines):
    """Count the calls in the output of strace -f"""
    calls = Calls()
    unfinished = {}
    for line in lines:
        thread, text = line.split(maxsplit=1)
        if text.endswith('<unfinished ...>'):
            unfinished[thread] = text.removesuffix('<unfinished ...>')
            continue
        resumed = re.match(r'<\.\.\. \w+ resumed>', text)
        if resumed:
            text = unfinished.pop(thread) + text[resumed.end():]
        call = re.match(r'(\w+)\((.*)\) += (-?\d+)', text)
        if not call:
            continue            # a signal, an exit, or a call without return
        name, args, result = call[1], call[2], int(call[3])
        calls.kinds[name] += 1
        if result >= 0 and name in WRITES:
            calls.written += result
        elif result >= 0 and name == 'fallocate':
            calls.allocated += int(args.split(', ')[3])
    return calls


def count_calls(*command):
    """Return the system calls of a command"""
    with tempfile.NamedTemporaryFile('r', encoding='utf-8',
                                     errors='replace') as log:
        run('strace', '-f', '-qq', '-s', '0', '-o', log.name, *command)
        return parse_strace(line.rstrip() for line in log)


def count_instructions(*command, profile='/dev/null'):
    """Return the instructions of all threads of a command, in user space"""
    usage = run('valgrind', '--tool=callgrind',
                f'--callgrind-out-file={profile}', *command)
    found = re.search(r'Collected : (\d+)', usage.output)
    if not found:
        raise Failed(f'callgrind has not counted:\n{usage.output}')
    return int(found[1])
