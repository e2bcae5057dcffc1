# A virtual machine that is killed
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
tests/guest/zone-load writes to several zoned disks in a guest, and tells over
the serial line what it has had made durable.
"""

import json
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile
import threading
import time

from history import NEVER, Generation, Geometry, stamped
from session import SECRET, Failed
from workloads import KIB, MIB, Workload

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'guest'))
# pylint: disable=wrong-import-position
import guest                                                # noqa: E402

DISKS = [
    Workload('vda', '', None,
             Geometry(256 * KIB, 24, max_open=3, max_active=5),
             ('cluster_size=4k',)),
    Workload('vdb', '', None,
             Geometry(512 * KIB, 12, capacity=408 * KIB, conventional=1),
             ('cluster_size=64k', 'lazy_refcounts=on')),
    Workload('vdc', '', None, Geometry(256 * KIB, 16, max_active=6),
             ('cluster_size=16k', 'extended_l2=on', 'lazy_refcounts=on'),
             data_file=True),
    Workload('vdd', '', None, Geometry(2 * MIB, 6, max_active=4),
             ('cluster_size=2M',)),
    Workload('vde', '', None, Geometry(128 * KIB, 32, max_active=8),
             ('cluster_size=4k', 'lazy_refcounts=on'), luks=True),
]

GENERATIONS_PER_ROUND = 1 << 16
TIMEOUT = 300


def build_load():
    """Return the program for the guest"""
    source = guest.HERE / 'zone-load.c'
    with tempfile.NamedTemporaryFile() as program:
        subprocess.run(['cc', '-O2', '-static', '-pthread', '-o',
                        program.name, source], check=True)
        return Path(program.name).read_bytes()


class ZoneLog:
    """What a guest has told of a zone, from one boot to the kill"""

    def __init__(self, geo, zone, generation, number):
        self.geo = geo
        self.zone = zone
        self.number = number        # what the guest calls the generation
        self.generations = [generation]
        self.was_full = generation.finish[1] != NEVER

    def now(self):
        return self.generations[-1]

    def tell(self, what, *numbers):
        now = self.now()
        if what == 'durable':
            number, wp = numbers
            if number != self.number + len(self.generations) - 1:
                raise Failed(f'zone {self.zone}: durable generation {number}')
            now.mark(0, wp)
        elif what == 'reset':
            now.reset = (0, NEVER)
        elif what == 'was-reset':
            now.reset = (0, 0)
            self.generations.append(Generation())
        elif what == 'finish':
            now.finish = (0, NEVER)
        elif what == 'was-finished':
            now.finish = (0, 0)
        else:
            raise Failed(f'zone {self.zone}: {what}')

    def end(self):
        """Give the generations the data that the guest may have written"""
        if self.now().reset[0] != NEVER and self.now().reset[1] == NEVER:
            # It may have been reset, and written since.
            self.generations.append(Generation())
        for i, generation in enumerate(self.generations):
            if generation.reset[1] == NEVER and (i or not self.was_full):
                wp = len(generation.data)
                generation.data += stamped(self.zone, wp,
                                           self.geo.cap(self.zone) - wp,
                                           self.number + i, 0)


class Machine:
    """A virtual machine is killed"""
    title = 'a virtual machine'

    def __init__(self, settings, rng, survivors):
        self.rng = rng
        self.survivors = survivors
        self.qemu = settings.qemu or \
            os.path.join(settings.tools, 'qemu-system-x86_64')
        self.number = 0         # of the first generation of the next round
        guest.prepare()
        self.program = build_load()

    @staticmethod
    def workloads(_settings, _seed):
        return DISKS

    def command(self, initrd):
        command = guest.qemu_command(initrd, [], 'stdio')
        command[0] = self.qemu
        # TCG runs several in one thread anyway, see guest.py.
        command[command.index('-smp') + 1] = '1'
        command += [*SECRET, '-object', 'iothread,id=thread']
        for survivor in self.survivors:
            name = survivor.image.workload.name
            options = json.loads(survivor.image.options()[len('json:'):])
            options['node-name'] = name
            device = {'driver': 'virtio-blk-pci', 'drive': name}
            if self.rng.random() < 0.5:
                device['iothread'] = 'thread'
            if self.rng.random() < 0.3:
                # each write is durable when it is done
                device['write-cache'] = 'off'
            command += ['-blockdev', json.dumps(options),
                        '-device', json.dumps(device)]
        return command

    def script(self):
        disks = [survivor.image.workload for survivor in self.survivors]
        return '\n'.join([
            *(f'/zone-load /dev/{disk.name} {disk.geo.max_active} '
              f'{self.rng.randrange(1 << 20)} {self.number} &'
              for disk in disks), 'wait'])

    def use(self):
        """Boot a guest, kill it some time after it uses all its disks"""
        with tempfile.NamedTemporaryFile() as initrd:
            guest.write_initrd(initrd.name, self.script(),
                               {'zone-load': self.program})
            with subprocess.Popen(
                    self.command(initrd.name), stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT) as process:
                lines = self.listen(process)
        self.learn(lines)
        self.number += GENERATIONS_PER_ROUND
        return ['load']

    def listen(self, process):
        """Return what the guest has said until it was killed"""
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        lines = []
        ready = 0
        for raw in process.stdout:
            if not raw.endswith(b'\n'):
                break           # this is where it was killed
            lines.append(raw.decode(errors='replace').rstrip())
            ready += lines[-1].endswith(' ready')
            if ready == len(self.survivors):
                ready = 0
                timer.cancel()
                timer = threading.Timer(self.rng.uniform(0.01, 2),
                                        process.kill)
                timer.start()
        timer.cancel()
        return lines

    def learn(self, lines):
        """Turn what the guest has said to histories"""
        logs = {}
        for survivor in self.survivors:
            workload = survivor.image.workload
            generations = survivor.history.generations
            for zone in generations:
                log = ZoneLog(workload.geo, zone, generations[zone][-1],
                              self.number)
                generations[zone] = log.generations
                logs[workload.name, zone] = log
        for survivor in self.survivors:
            with open(os.path.join(survivor.image.directory, 'transcript'),
                      'w', encoding='utf-8') as f:
                f.write('\n'.join(lines))

        ready = 0
        for line in lines:
            match = re.fullmatch(r'/dev/(\w+) ([\w-]+)((?: [\d:]+)*)', line)
            if not match:
                raise Failed(f'the guest says: {line}')
            disk, what, words = match[1], match[2], match[3].split()
            if what == 'ready':
                ready += 1
            elif what == 'durable':
                for word in words:
                    zone, *numbers = map(int, word.split(':'))
                    logs[disk, zone].tell(what, *numbers)
            else:
                logs[disk, int(words[0])].tell(what)
        if ready < len(self.survivors):
            raise Failed('the guest did not get to use its disks')
        for log in logs.values():
            log.end()
