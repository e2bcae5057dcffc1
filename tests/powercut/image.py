# The files of a zoned image, and what can be found out about them
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import re
import struct
import subprocess

from history import CLOSED, EMPTY
from session import SECRET, Failed

ZONED_EXTENSION = 0x007a6264
DIRTY = 1       # incompatible feature


def find_extension(image):
    """
    Return where the file @image, of which the beginning is enough, has the
    data of its zoned header extension
    """
    pos = struct.unpack_from('>I', image, 100)[0]
    while True:
        magic, length = struct.unpack_from('>II', image, pos)
        assert magic, 'no zoned header extension'
        if magic == ZONED_EXTENSION:
            return pos + 8
        pos += 8 + (length + 7) // 8 * 8


def find_size(image):
    """The size of the disk, as the image has it"""
    return struct.unpack_from('>Q', image, 24)[0]


def find_table(image):
    """The same for its zone table: (offset, number of zones)"""
    pos = find_extension(image)
    nr_zones = struct.unpack_from('>I', image, pos + 4)[0]
    return struct.unpack_from('>Q', image, pos + 40)[0], nr_zones


class Image:
    """The files of an image, in a directory, and the tools to use them"""

    def __init__(self, tools, workload, directory, suffix=''):
        self.tools = tools
        self.workload = workload
        self.geo = workload.geo     # may be of another size later
        self.directory = directory
        self.leaks = 0          # how often check() found some
        self.paths = {'image': os.path.join(directory, f'image{suffix}')}
        if workload.data_file:
            self.paths['data'] = os.path.join(directory, f'data{suffix}')
        self.raw = os.path.join(directory, f'raw{suffix}')

    def tool(self, name, *args):
        """Run a tool and return (exit status, output)"""
        done = subprocess.run(
            [os.path.join(self.tools, name), *args], text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, close_fds=False)
        return done.returncode, done.stdout

    def create(self, backing=None):
        """@backing: the image that it inherits its zones from"""
        geo = self.workload.geo
        options = [
            'zone.mode=host-managed', f'zone.size={geo.zone_size}',
            f'zone.capacity={geo.capacity}',
            f'zone.conventional_zones={geo.conventional}',
            f'zone.max_open_zones={geo.max_open}',
            f'zone.max_active_zones={geo.max_active}',
            *self.workload.options]
        below = ['-b', backing.paths['image'], '-F', 'qcow2'] \
            if backing else []
        if self.workload.data_file:
            options.append(f'data_file={self.paths["data"]}')
        if self.workload.luks:
            options += ['encrypt.format=luks', 'encrypt.key-secret=key',
                        'encrypt.iter-time=1']
        status, out = self.tool('qemu-img', 'create', '-q', *SECRET,
                                '-f', 'qcow2', '-o', ','.join(options), *below,
                                self.paths['image'], str(geo.disk_size))
        if status:
            raise Failed(f'create: {out}')

    def options(self, put=None, rescue=False):
        """
        The image as QEMU's tools take it.  Instead of the node of a file,
        there may be another.
        """
        def node(file):
            plain = {'driver': 'file', 'filename': self.paths[file]}
            return put(file, plain) if put else plain

        options = {'driver': 'qcow2', 'file': node('image')}
        if self.workload.data_file:
            options['data-file'] = node('data')
        if self.workload.luks:
            options['encrypt'] = {'format': 'luks', 'key-secret': 'key'}
        if self.workload.discard:
            options['discard'] = 'unmap'
            options['discard-no-unref'] = False
        if rescue:
            options['zone-rescue'] = True
        return 'json:' + json.dumps(options)

    def header(self):
        with open(self.paths['image'], 'rb') as f:
            return f.read(4096)

    def table(self):
        """The entries of the zone table"""
        offset, nr_zones = find_table(self.header())
        with open(self.paths['image'], 'rb') as f:
            f.seek(offset)
            return struct.unpack(f'>{nr_zones}Q', f.read(8 * nr_zones))

    def is_dirty(self):
        """Do the refcounts need the repair that lazy_refcounts implies?"""
        return bool(struct.unpack_from('>Q', self.header(), 72)[0] & DIRTY)

    def check(self, when=''):
        """What qemu-img check finds, leaks aside"""
        status, out = self.tool('qemu-img', 'check', '--output=json',
                                *SECRET, self.options())
        try:
            result = json.loads(out[out.index('{'):])
        except ValueError:
            result = {'check-errors': status or 'no output'}
        self.leaks += bool(result.get('leaks'))
        if status not in (0, 3) or result.get('corruptions') or \
           result.get('check-errors'):
            _, text = self.tool('qemu-img', 'check', *SECRET, self.options())
            return [f'qemu-img check{when}: '
                    f'{" / ".join(text.splitlines()[:3])}']
        return []

    def report(self, *commands):
        """Open the image for writing; return its zones, and problems"""
        args = [arg for command in (f'zrp 0 {self.geo.nr_zones}',
                                    *commands) for arg in ('-c', command)]
        status, out = self.tool('qemu-io', *SECRET, *args, self.options())
        zones = [(int(cond), int(wp, 16) * 512) for wp, cond in
                 re.findall(r'wptr (0x[0-9a-f]+), zcond:(\d+)', out)]
        if len(zones) < self.geo.nr_zones or status or \
           'fail' in out or 'rror' in out:
            return zones, [f'opened for writing: {out}']
        return zones, []

    def content(self, snapshot=None):
        """All data of the disk as it is, also of OFFLINE zones, or as it was"""
        moment = ('-l', snapshot) if snapshot else ()
        status, out = self.tool('qemu-img', 'convert', *SECRET, *moment,
                                '-O', 'raw',
                                self.options(rescue=not snapshot), self.raw)
        if status:
            return None, [f'convert: {out}']
        with open(self.raw, 'rb') as f:
            return f.read(), []

    def use(self, report):
        """The image is as good as any: it takes writes, and keeps them"""
        geo = self.geo
        writes = []
        active = sum(cond == CLOSED for cond, _ in report)
        for zone in range(geo.conventional, geo.nr_zones):
            cond, wp = report[zone]
            room = geo.start(zone) + geo.cap(zone) - wp
            if cond not in (CLOSED, EMPTY):
                continue
            if cond == EMPTY:
                if geo.max_active and active >= geo.max_active:
                    continue
                active += 1
            writes.append(f'write -P {zone % 255 + 1} {wp} {min(room, 4608)}')
            if len(writes) == 4:
                break
        _, errors = self.report(*writes)
        if errors:
            return [f'used again: {errors[0]}']
        reads = [write.replace('write', 'read') for write in writes]
        _, errors = self.report(*reads)
        return [f'used again: {error}' for error in errors] or \
            self.check(' after being used again')
