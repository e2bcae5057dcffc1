# Zoned disks whose processes are killed
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A kill -9 keeps what has reached the host.  What it cuts off is the process,
between any two instructions: so requests that were sent, but not answered, may
have happened or not.

A storage daemon does not export zoned disks for writing.  What it has of one
are the files below, or some of them.
"""

import json
import os
import signal
import socket
import subprocess
import time

from session import SECRET, Disk, Ended, Failed, NoLog
from workloads import WORKLOADS

MAX_COMMANDS = 100      # between two blows
# What a blow waits for: the commands that do most are few
TARGETS = ('', '', '', 'flush', 'flush', 'zrs', 'zf', 'zap')
PATIENCE = 30           # commands for which a blow waits
LEFTOVERS = 20          # commands without a server that may still succeed
RECONNECT_DELAY = 60    # seconds


class Gone(Exception):
    """The disk ended as it was to"""


def some_delay(rng):
    """Seconds: hardly any, a part of a request, or some requests"""
    return rng.choice((0, rng.uniform(0, 5e-4), rng.expovariate(500)))


def wait(seconds):
    """More exactly than sleep()"""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class StorageDaemon:
    """A qemu-storage-daemon that exports files of an image, by their names"""

    def __init__(self, image, files, reconnect_delay):
        self.image = image
        self.files = files
        self.reconnect_delay = reconnect_delay
        self.path = os.path.join(image.directory, 'nbd.sock')
        # Kept open while the daemon is killed and started again: who connects
        # in between has to wait, but is not refused.
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen()
        self.process = None
        self.start()

    def start(self):
        command = [storage_daemon(self.image), '--nbd-server',
                   f'addr.type=fd,addr.str={self.socket.fileno()}']
        for file in self.files:
            command += ['--blockdev',
                        f'driver=file,node-name={file},'
                        f'filename={self.image.paths[file]}',
                        '--export', f'type=nbd,id={file},node-name={file},'
                        f'name={file},writable=on']
        self.process = subprocess.Popen(
            command, pass_fds=[self.socket.fileno()],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def put(self, file, plain):
        """The node for @file"""
        if file not in self.files:
            return plain
        return {'driver': 'nbd', 'export': file,
                'reconnect-delay': self.reconnect_delay,
                'server': {'type': 'unix', 'path': self.path}}

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.kill()
        self.socket.close()
        if os.path.exists(self.path):
            os.remove(self.path)


def storage_daemon(image):
    return os.path.join(image.tools, 'storage-daemon/qemu-storage-daemon')


def kill_opener(image, rng):
    """Open the image for writing, by whom can do that, and kill that"""
    if rng.random() < 0.5:
        command = [os.path.join(image.tools, 'qemu-io'), *SECRET,
                   image.options()]
    else:
        options = json.loads(image.options()[len('json:'):])
        options['node-name'] = 'disk'
        command = [storage_daemon(image), *SECRET,
                   '--blockdev', json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        time.sleep(rng.uniform(0, 0.02))
        process.kill()


class KilledDisk(Disk):
    """
    A disk that suffers blows.  They fall a while after a request is sent, are
    methods of this class, and the last one of them ends its life.
    """

    def __init__(self, qemu_io, image, rng, history, blows, daemon):
        self.rng = rng
        self.blows = list(blows)
        self.daemon = daemon
        self.countdown = 0
        self.target = ''
        self.leftovers = None   # commands to go, once nothing is served
        self.gone = False
        self.struck = []        # what was being done
        self.aim()
        super().__init__(qemu_io, image.options(daemon and daemon.put),
                         image.workload.geo, NoLog, image.directory, history)

    def aim(self):
        self.countdown = self.rng.randint(1, MAX_COMMANDS)
        self.target = self.rng.choice(TARGETS)

    def command(self, text):
        if self.gone:
            raise Gone
        answer = self.strike(text) if self.is_time(text) else \
            self.command_without_server(text) if self.is_without_server() \
            else super().command(text)
        if text == 'flush' and self.is_without_server():
            # qemu-io does not say if it fails
            raise Gone
        return answer

    def is_time(self, text):
        """Is it time for the next blow?"""
        if not self.blows:
            return False
        self.countdown -= 1
        return self.countdown <= 0 and (text.startswith(self.target) or
                                        self.countdown <= -PATIENCE)

    def strike(self, text):
        delay = some_delay(self.rng)
        blow = self.blows.pop(0)
        self.struck.append(text.split()[0])
        self.aim()
        self.send(text)
        wait(delay)
        self.transcript.write(f'{blow.__name__} after {delay * 1e6:.0f} us\n')
        return blow(self)

    def is_without_server(self):
        return self.leftovers is not None

    def command_without_server(self, text):
        if not self.leftovers:
            raise Gone
        self.leftovers -= 1
        self.send(text)
        return self.answer_without_server()

    def answer_without_server(self):
        try:
            return self.read_answer()
        except Ended:
            raise
        except Failed:
            raise Gone from None

    # Blows

    def kill_qemu_io(self):
        self.process.kill()
        self.gone = True
        try:
            # the last command may have been answered, and is held to that
            return self.read_answer()
        except Ended as end:
            if self.process.wait() != -signal.SIGKILL:
                raise end
            raise Gone from None

    def restart_daemon(self):
        self.daemon.kill()
        self.daemon.start()
        return self.read_answer()

    def kill_daemon(self):
        self.daemon.stop()
        self.leftovers = LEFTOVERS
        return self.answer_without_server()

    def end_in_order(self):
        answer = self.read_answer()
        self.command('aio_flush')
        self.end()
        self.gone = True
        return answer

    # The end

    def leave(self):
        """Without a server, a qemu-io fails, but in good order"""
        if not self.is_without_server():
            return
        self.leftovers = LEFTOVERS
        for request in lambda: self.command('aio_flush'), self.flush:
            try:
                request()
            except Gone:
                pass
        self.process.stdin.write(b'quit\n')
        self.process.stdin.close()
        self.transcript.write(self.process.stdout.read().decode())
        status = self.process.wait()
        if status not in (0, 1):
            raise Failed(f'qemu-io returned {status}')


class QemuIo:
    """A qemu-io is killed"""
    title = 'a qemu-io'

    def __init__(self, settings, rng, survivors):
        self.settings = settings
        self.rng = rng
        self.survivor = survivors[0]
        self.sequence = 0       # of writes
        self.prepare()

    @staticmethod
    def workloads(settings, seed):
        """What the images are for that the victim has"""
        names = settings.workloads
        return [WORKLOADS[names[seed % len(names)]]]

    def prepare(self):
        """Make what the image needs beside it"""

    def begin(self):
        """Return a disk, about to be used"""
        return self.disk([KilledDisk.kill_qemu_io])

    def disk(self, blows, daemon=None):
        return KilledDisk(self.settings.qemu_io, self.survivor.image, self.rng,
                          self.survivor.history, blows, daemon)

    def use(self):
        """Use the disk to its end; return what was going on at the blows"""
        disk = self.begin()
        disk.sequence = self.sequence
        try:
            while True:
                self.survivor.image.workload.body(disk, self.rng)
                disk.reset_all()
        except Gone:
            disk.leave()
        finally:
            disk.stop()
            self.end()
        self.sequence = disk.sequence
        return disk.struck

    def end(self):
        """Clean up"""


class Daemon(QemuIo):
    """The storage daemon is killed that serves files of a qemu-io's image"""
    title = 'the storage daemon below a qemu-io'

    SPACE = 8 << 20         # for metadata

    def prepare(self):
        # Clients cannot make exported files larger.
        for path in self.survivor.image.paths.values():
            size = os.stat(path).st_size
            os.truncate(path, size + self.SPACE +
                        2 * self.survivor.image.workload.geo.disk_size)
        self.daemon = None

    def begin(self):
        files = list(self.survivor.image.paths)
        served = self.rng.sample(files, self.rng.randint(1, len(files)))
        blows = [KilledDisk.restart_daemon] * self.rng.randint(0, 3)
        blows.append(self.rng.choice((KilledDisk.kill_qemu_io,
                                      KilledDisk.end_in_order))
                     if blows else KilledDisk.kill_daemon)
        # Requests fail, or wait for another daemon.
        delay = 0 if KilledDisk.kill_daemon in blows else RECONNECT_DELAY
        self.daemon = StorageDaemon(self.survivor.image, served, delay)
        return self.disk(blows, self.daemon)

    def end(self):
        self.daemon.stop()
