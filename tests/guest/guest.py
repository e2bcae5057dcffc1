# SPDX-License-Identifier: GPL-2.0-or-later
"""
Boot a Linux guest with a script to run and disks to run it on.

    result = guest.run('blkzone report /dev/vda', ['zbc.qcow2'])

BUILD (default: build/ of this tree), QEMU_BUILD (default: $BUILD/qemu-build)
and ACCEL (default: tcg,thread=single) come from the environment.  Not KVM:
/dev/kvm can exist and not work.  Not a thread for each of the two CPUs: QEMU
can abort in iotlb_to_section() then, while the firmware maps PCI devices.
"""

import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Callable, NamedTuple

import cpio

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = Path(os.environ.get('BUILD') or ROOT / 'build').resolve()
QEMU_BUILD = Path(os.environ.get('QEMU_BUILD') or BUILD / 'qemu-build')
ACCEL = os.environ.get('ACCEL') or 'tcg,thread=single'
ASSETS = BUILD / 'guest'

# The disk of the manual's example.
EXAMPLE = {
    'size': '768M',
    'zone.mode': 'host-managed',
    'zone.size': '64M',
    'zone.capacity': '64M',
    'zone.conventional_zones': '0',
    'zone.max_append_bytes': '4096',
    'zone.max_open_zones': '6',
    'zone.max_active_zones': '8',
}


class Failure(Exception):
    """Something a person should read, without a traceback."""


class Result(NamedTuple):
    """How a guest ended: its script's exit status, None if it never said."""
    status: int | None
    output: str
    seconds: float
    reason: str


class Zone(NamedTuple):
    """A line of a zone report, of blkzone's or of qemu-io's; in sectors."""
    start: int
    length: int
    capacity: int
    wp: int             # from the start of the zone
    condition: int      # as in linux/blkzoned.h and in BlockZoneState
    conventional: bool


NOT_WP, EMPTY, IMPLICIT_OPEN, EXPLICIT_OPEN, CLOSED, FULL = 0, 1, 2, 3, 4, 14


def zones(report: str) -> list[Zone]:
    """Return the zones in what blkzone or qemu-io's zrp printed."""
    result = []
    for line in report.splitlines():
        match = re.search(r'start: 0x(\w+), len 0x(\w+), cap 0x(\w+), '
                          r'wptr 0x(\w+)(.*)zcond: *(\d+).*type: (\d)', line)
        if match:
            start, length, capacity, wp = (
                int(field, 16) for field in match.groups()[:4])
            if match[5] == ', ':    # qemu-io's pointers are absolute
                wp -= start
            result.append(Zone(start, length, capacity, wp, int(match[6]),
                               match[7] == '1'))
    return result


def after_power_cycle(zone: Zone) -> Zone:
    """Return what @zone is after a power cycle: nothing stays open."""
    if zone.condition in (IMPLICIT_OPEN, EXPLICIT_OPEN):
        return zone._replace(condition=CLOSED if zone.wp else EMPTY)
    return zone


def tool(*command: str | Path) -> str:
    """Run one of QEMU's tools from the build and return what it printed."""
    done = subprocess.run([QEMU_BUILD / command[0], *command[1:]], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failure(f'{" ".join(map(str, command))} failed:\n{done.stdout}')
    return done.stdout


def create_command(image: Path, options: dict[str, str]) -> list[str | Path]:
    pairs = [word for name, value in options.items()
             for word in ('-o', f'{name}={value}')]
    return ['qemu-img', 'create', '-f', 'qcow2', image, *pairs]


def create(image: Path, options: dict[str, str]) -> Path:
    """Create @image with qemu-img's -o @options."""
    tool(*create_command(image, options))
    return image


def prepare() -> None:
    """Make sure that there is a guest to boot, and a QEMU that knows zones."""
    for name in ('qemu-system-x86_64', 'qemu-img', 'qemu-io'):
        if not (QEMU_BUILD / name).exists():
            raise Failure(f'no {name} in {QEMU_BUILD}: run make first, '
                          'or set QEMU_BUILD')
    if subprocess.run([HERE / 'build-initramfs'],
                      env={**os.environ, 'BUILD': BUILD}).returncode:
        raise Failure('the guest could not be made (see above)')


def qemu_command(initrd: str, images: list[Path], serial: str,
                 formats: list[str] | None = None, threads: int = 0,
                 properties: dict | None = None) -> list[str]:
    disks = []
    queues = [{'iothread': f'iothread{n}'} for n in range(threads)]
    for queue in queues:
        disks += ['-object', f'iothread,id={queue["iothread"]}']
    for number, image in enumerate(images, start=1):
        device = {'driver': 'virtio-blk-pci', 'drive': f'drive{number}',
                  **(properties or {})}
        if queues:
            device['iothread-vq-mapping'] = queues
        driver = formats[number - 1] if formats else 'qcow2'
        disks += ['-blockdev', f'node-name=drive{number},driver={driver},'
                  f'file.driver=file,file.filename={image}',
                  '-device', json.dumps(device)]
    return [str(QEMU_BUILD / 'qemu-system-x86_64'),
            '-nodefaults', '-no-user-config', '-no-reboot',
            '-display', 'none', '-serial', serial,
            '-accel', ACCEL, '-cpu', 'max', '-smp', '2', '-m', '512',
            '-kernel', str(ASSETS / 'vmlinuz'), '-initrd', initrd,
            # Kernel messages would tear the script's lines apart: of those
            # only a panic shows, the others are in dmesg.
            '-append', 'console=ttyS0 quiet loglevel=2 panic=-1 '
            'mitigations=off '
            # on a busy host, the timer can seem not to work
            'no_timer_check', *disks]


def write_initrd(path: str, script: str,
                 programs: dict[str, bytes] | None = None,
                 suites: bool = False) -> None:
    own = cpio.archive({'init': (HERE / 'init').read_bytes(),
                        'script': script.encode(), **(programs or {})})
    base = (ASSETS / 'initramfs.cpio').read_bytes()
    if suites:
        base += (ASSETS / 'suites.cpio').read_bytes()
    Path(path).write_bytes(base + own)


def run(script: str, images: list[Path], *, timeout: float = 300,
        show: Callable[[str], None] | None = None,
        kill_at: str | None = None, formats: list[str] | None = None,
        threads: int = 0, properties: dict | None = None,
        suites: bool = False, reboot: bool = False,
        monitor: str | None = None) -> Result:
    """
    Boot a guest that runs @script (a busybox shell's) and powers off.

    @images, of these @formats or qcow2, become /dev/vda, /dev/vdb...  @show is
    called with each line that the guest prints.  When it prints the line
    @kill_at, or takes longer than @timeout seconds, QEMU is killed at once.
    @threads serve the queues of the disks, or if there are none, the main loop
    does.  The disks are devices of these @properties.  For @suites there are
    the tools of suites.cpio and more RAM.  With @reboot the guest may reset the
    machine, and begins again; else that ends QEMU.  @monitor is the path of a
    socket for QMP.
    """
    begin = time.monotonic()
    lines = []
    status = None
    with tempfile.NamedTemporaryFile(prefix='initrd-', dir=ASSETS) as initrd:
        write_initrd(initrd.name, script, suites=suites)
        command = qemu_command(initrd.name, images, 'stdio', formats, threads,
                               properties)
        if suites:
            command[command.index('-m') + 1] = '1G'
            # TCG runs several in one thread anyway, see above.
            command[command.index('-smp') + 1] = '1'
        if reboot:
            command.remove('-no-reboot')
        if monitor:
            command += ['-qmp', f'unix:{monitor},server=on,wait=off']
        with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT) as qemu:
            timer = threading.Timer(timeout, qemu.kill)
            timer.start()
            try:
                for raw in qemu.stdout:
                    line = raw.decode(errors='replace').rstrip('\r\n')
                    ended = re.fullmatch(r'guest: exit (\d+)', line)
                    if ended:
                        status = int(ended[1])
                    if status is not None:
                        continue    # the kernel says that it powers down
                    lines.append(line)
                    if line == kill_at:
                        break
                    if show:
                        show(line)
            finally:
                if status is None:
                    qemu.kill()
                timer.cancel()
    seconds = time.monotonic() - begin
    if status is not None:
        reason = f'its script ended with status {status}'
    elif lines and lines[-1] == kill_at:
        reason = 'killed where the test wanted it'
    elif seconds >= timeout:
        reason = f'killed after {timeout} seconds'
    else:
        reason = f'QEMU ended with status {qemu.returncode}'
    return Result(status, '\n'.join(lines), seconds, reason)


def main(program) -> None:
    """Run @program, and end as a person (and make) would like it to."""
    # So that QEMU and temporary files go when a test runner gives up on us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(program())
    except Failure as failure:
        sys.exit(f'{Path(sys.argv[0]).name}: {failure}')
    except KeyboardInterrupt:
        sys.exit(130)
