# Run a program and measure what it costs
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Time from the kernel, system calls from strace, instructions from valgrind"""

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


class Session:
    """A running qemu-io"""

    PROMPT = b'qemu-io> '

    def __init__(self, command):
        self.command = ' '.join(map(str, command))
        self.child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __enter__(self):
        self.answer()
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait()

    def answer(self):
        output = b''
        while not output.endswith(self.PROMPT):
            got = os.read(self.child.stdout.fileno(), 65536)
            if not got:
                raise Failed(f'{self.command} ended:\n{output.decode()}')
            output += got
        return output.removesuffix(self.PROMPT).decode()

    def ask(self, request):
        """Return the answer to a request, and the seconds it took"""
        begin = time.monotonic()
        self.child.stdin.write(request.encode() + b'\n')
        self.child.stdin.flush()
        output = self.answer()
        seconds = time.monotonic() - begin
        if 'failed' in output:
            raise Failed(f'{self.command}: {request}:\n{output}')
        return output, seconds

    def peak_rss(self):
        """The most memory it has had; rusage would say no less than ours"""
        path = f'/proc/{self.child.pid}/status'
        with open(path, encoding='ascii') as status:
            peak, = re.findall(r'VmHWM:\s*(\d+) kB', status.read())
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


# What runs as often as threads wake each other, which is a matter of timing:
# the event loop, the thread pool, and what these call in the libraries
WAITING = re.compile(
    r'(main_loop_|os_host_main_loop_|qemu_poll_ns|qemu_laio_process|ioq_submit|'
    r'aio_(ctx|poll|compute|dispatch|pending|prepare|notify|context_notifier|'
    r'free_deleted|bh_(poll|call|enqueue|dequeue))|fdmon_|timerlist|'
    r'qemu_(clock|timeout|soonest_timeout|lockcnt|event|cond|sem|futex)_|'
    r'qemu_bh_schedule|event_notifier_|notifier_list_|worker_thread|'
    r'thread_pool_|img_bench|bench_|bql_|icount_|replay_|defer_call|'
    r'get_ptr_defer_call|(p?poll|read|write)$|pthread_(cond|getspecific)|'
    r'__pthread_(en|dis)able_async|__?futex|__lll_|clock_gettime|__vdso_)')
WAITING_LIBRARY = re.compile(r'libglib|vdso|linux-vdso')


@dataclass
class Instructions:
    """
    All instructions of a run, and those of requests: without the event loop and
    the thread pool, which loop more or less often from run to run.
    """
    total: int = 0
    requests: int = 0

    def __sub__(self, other):
        return Instructions(self.total - other.total,
                            self.requests - other.requests)


def parse_callgrind(lines):
    """Sum up what callgrind wrote, see its manual for the format"""
    names = {'fn': {}, 'ob': {}}
    current = {'fn': '', 'ob': ''}
    result = Instructions()
    callee = False              # does the next line cost what a call did?
    for line in lines:
        spec = re.match(r'(c?)(fn|ob)=\((\d+)\)(?: (.*))?$', line)
        if spec:
            if spec[4]:
                names[spec[2]][spec[3]] = spec[4]
            if not spec[1]:
                current[spec[2]] = names[spec[2]][spec[3]]
        elif line.startswith('calls='):
            callee = True
        elif callee:
            callee = False
        elif re.match(r'[-+*\d]\S* \d+$', line):
            cost = int(line.split()[1])
            result.total += cost
            if not WAITING.match(current['fn']) and \
                    not WAITING_LIBRARY.search(current['ob']):
                result.requests += cost
    return result


def count_instructions(*command):
    """Return the instructions of all threads of a command, in user space"""
    with tempfile.NamedTemporaryFile('r', encoding='utf-8',
                                     errors='replace') as profile:
        usage = run('valgrind', '--tool=callgrind',
                    f'--callgrind-out-file={profile.name}', *command)
        # callgrind has replaced the file
        with open(profile.name, encoding='utf-8', errors='replace') as lines:
            result = parse_callgrind(line.rstrip() for line in lines)
    found = re.search(r'Collected : (\d+)', usage.output)
    if not found or int(found[1]) != result.total:
        raise Failed('the instructions of callgrind do not add up to '
                     f'{result.total}:\n{usage.output}')
    return result
