# Helpers for tests of zoned qcow2 images
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Zones as text: a test says what it expects of a disk in one line, a word for
each zone, 'conv empty io+4k eo closed+512 full ro offline'.  The number is
the write pointer, counted from the start of the zone.
"""

import json
import os
import re
import struct

import iotests
from iotests import QemuIoInteractive, qemu_img, qemu_io, qemu_nbd_args, \
    qemu_tool

SOCKET = os.path.join(iotests.sock_dir, 'zoned.sock')

EXT_MAGIC = 0x007a6264
INCOMPAT_ZONED = 1 << 5

# Attributes of an entry of the zone table
CONVENTIONAL = 1 << 59
READ_ONLY = 1 << 60
OFFLINE = 1 << 61
FINISHED = 1 << 62
EXPLICITLY_OPEN = 1 << 63

# What qemu-io prints for the errnos of the zone API
INVALID = 'Invalid argument'
NOT_AT_WP = 'Numerical result out of range'
OPEN_LIMIT = 'Too many references: cannot splice'
ACTIVE_LIMIT = 'Value too large for defined data type'
HOST_ERROR = 'Input/output error'
NO_SPACE = 'No space left on device'

KIB = 1024
MIB = 1024 * 1024

STATES = {0: 'conv', 1: 'empty', 2: 'io', 3: 'eo', 4: 'closed',
          13: 'ro', 14: 'full', 15: 'offline'}


def zone_word(state, pos):
    """The word for a zone with its write pointer @pos bytes from its start"""
    if not pos:
        return state
    return f'{state}+{pos}' if pos % KIB else f'{state}+{pos // KIB}k'


def parse_report(output):
    """The zones of a zone report of qemu-io, as text"""
    words = []
    for line in re.findall(r'^start: .*', output, re.M):
        start, length, _, wp, state, _ = \
            (int(n, 0) for n in re.findall(r'0x[0-9a-f]+|\b\d+', line))
        word = STATES[state]
        if word == 'full':
            assert wp == start + length, line
        elif word != 'offline':
            word = zone_word(word, (wp - start) * 512)
        words.append(word)
    return ' '.join(words)


def parse_errors(output):
    """The messages of failed commands of qemu-io, without their hints"""
    return [wrong_data or message for wrong_data, message in re.findall(
        r'^(Pattern verification failed.*)|'
        r'^(?:zone )?\w+ failed: ([^(\n]*[^ (\n])', output, re.M)]


def written(output):
    """Offsets of the writes that succeeded, in the order of completion"""
    return [int(n) for n in re.findall(r'^wrote .* offset (\d+)', output,
                                       re.M)]


class ZonedImage:
    """The file of a zoned image, and the bytes that are special about it"""

    EXT_FIELDS = {
        'zoned': (0, 'B'), 'incompatible': (1, 'B'), 'compatible': (2, 'B'),
        'reserved': (3, 'B'), 'nr_zones': (4, '>I'), 'zone_size': (8, '>Q'),
        'zone_capacity': (16, '>Q'), 'conventional_zones': (24, '>I'),
        'max_active_zones': (28, '>I'), 'max_open_zones': (32, '>I'),
        'max_append_bytes': (36, '>I'), 'zonedmeta_offset': (40, '>Q'),
    }

    def __init__(self, path):
        self.path = path

    def create(self, disk_size, *options, tool_options=(), **zone):
        """(Re-)create it; @zone are zone options, @options any others"""
        self.remove()
        zone.setdefault('size', '1M')
        opts = [f'zone.{key}={value}' for key, value in zone.items()]
        qemu_img('create', *tool_options, '-f', iotests.imgfmt,
                 '-o', ','.join(['zone.mode=host-managed', *opts, *options]),
                 self.path, str(disk_size))
        return self

    def remove(self):
        if os.path.exists(self.path):
            os.remove(self.path)

    def read(self, offset, fmt):
        with open(self.path, 'rb') as f:
            f.seek(offset)
            return struct.unpack(fmt, f.read(struct.calcsize(fmt)))[0]

    def write(self, offset, fmt, value):
        with open(self.path, 'r+b') as f:
            f.seek(offset)
            f.write(struct.pack(fmt, value))

    def extension(self):
        """Offset of the data of the zoned header extension"""
        offset = self.read(100, '>I')
        while self.read(offset, '>I') != EXT_MAGIC:
            assert self.read(offset, '>I'), 'no zoned header extension'
            offset += 8 + (self.read(offset + 4, '>I') + 7) // 8 * 8
        return offset + 8

    def field(self, name):
        offset, fmt = self.EXT_FIELDS[name]
        return self.read(self.extension() + offset, fmt)

    def set_field(self, name, value):
        offset, fmt = self.EXT_FIELDS[name]
        self.write(self.extension() + offset, fmt, value)

    def table(self):
        """Offset of the table of write pointers"""
        return self.field('zonedmeta_offset')

    def entry(self, zone):
        return self.read(self.table() + 8 * zone, '>Q')

    def set_entry(self, zone, value):
        self.write(self.table() + 8 * zone, '>Q', value)

    def mark(self, zone, attributes):
        """Set attributes of a zone"""
        self.set_entry(zone, self.entry(zone) | attributes)

    def debug(self, *errors, states=0, event='write_aio'):
        """
        Name of the image with blkdebug below, which injects @errors.  Its
        state is the number of the next data write, or other @event, up to
        @states.
        """
        file = {
            'driver': 'blkdebug',
            'image': {'driver': 'file', 'filename': self.path},
        }
        if errors:
            file['inject-error'] = errors
        if states:
            file['set-state'] = [{'event': event, 'state': n,
                                  'new_state': n + 1}
                                 for n in range(1, states)]
        return 'json:' + json.dumps({'driver': iotests.imgfmt, 'file': file})

    def io(self, *commands, options=(), name=None):
        """Output of one qemu-io that runs @commands, whatever becomes of it"""
        args = [arg for command in commands for arg in ('-c', command)]
        return qemu_io(*options, *args, name or self.path, check=False).stdout

    def report(self, *options):
        return parse_report(self.io('zrp 0 1000000', options=options))


class ZoneSession(QemuIoInteractive):
    """A running qemu-io on a zoned image"""

    def do(self, *commands):
        """Run commands that are to succeed"""
        for command in commands:
            error = self.error(command)
            assert not error, f'{command}: {error}'

    def error(self, command):
        """What goes wrong with a command, '' if nothing does"""
        return ', '.join(parse_errors(self.cmd(command)))

    def report(self):
        return parse_report(self.cmd('zrp 0 1000000'))


class Machine(iotests.VM):
    """
    A machine with an image as its node 'disk', of which the file is 'file', or
    what is put on it: @below.  What requests come to is known at its end.
    """

    def __init__(self, image, *args, name=None, below=None, **options):
        super().__init__(path_suffix=name)
        # may be open elsewhere, and inactive
        self.add_node({'driver': 'file', 'node-name': 'file',
                       'filename': image.path, 'locking': 'off'})
        if below:
            self.add_node({'node-name': 'below', **below})
        self.add_node({'driver': iotests.imgfmt, 'node-name': 'disk',
                       'file': 'below' if below else 'file',
                       **{key.replace('_', '-'): value
                          for key, value in options.items()}})
        self.add_args(*args)
        self.launch()

    def add_node(self, options):
        self.add_blockdev(json.dumps(options))

    def io(self, *commands, device=None):
        for command in commands:
            if device:
                self.hmp_qemu_io(f'{device}/virtio-backend', command,
                                 qdev=True)
            else:
                self.hmp_qemu_io('disk', command)

    def end(self):
        """Shut it down, and return what a report finds before that"""
        self.io('zrp 0 1000000')
        self.shutdown()
        log = self.get_log()
        lines = re.findall('^start: .*', log, re.M)
        first = len(lines) - 1
        while not lines[first].startswith('start: 0x0,'):
            first -= 1
        return parse_report('\n'.join(lines[first:]))

    def errors(self):
        """After the end: what went wrong"""
        return parse_errors(self.get_log())


class ZonedTestCase(iotests.QMPTestCase):
    """Tests that have an image each"""

    def setUp(self):
        self.image = ZonedImage(os.path.join(iotests.test_dir, 'zoned.img'))
        self.sessions = []

    def tearDown(self):
        for session in self.sessions:
            session.close()
        self.image.remove()

    def create(self, *args, **kwargs):
        self.image.create(*args, **kwargs)

    def open(self, *options, name=None):
        """Start a qemu-io that ends with the test, if not before"""
        self.sessions.append(ZoneSession(*options, name or self.image.path))
        return self.sessions[-1]

    def close(self, session):
        self.sessions.remove(session)
        session.close()

    def reopen(self, session, *options):
        self.close(session)
        return self.open(*options)

    def assert_clean(self):
        """The image has neither leaks nor errors"""
        result = qemu_img('check', self.image.path)
        self.assertIn('No errors were found', result.stdout)

    def assert_not_served(self, reason, *args):
        """
        qemu-nbd fails.  It does not fork, which it does while other threads
        run: the allocator of AddressSanitizer may be locked for ever then.
        """
        result = qemu_tool('timeout', '60', *qemu_nbd_args, '-k', SOCKET, *args,
                           check=False)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(reason, result.stdout)


def main(**kwargs):
    """Run the tests, with none of the options that they set themselves"""
    iotests.main(supported_fmts=['qcow2'], supported_protocols=['file'],
                 supported_platforms=['linux'],
                 supported_cache_modes=['writeback'],
                 unsupported_imgopts=['cluster_size', 'compat', 'data_file',
                                      'encrypt', 'extended_l2',
                                      'lazy_refcounts', 'preallocation',
                                      'refcount_bits', 'zone'],
                 **kwargs)
