# What is done to overlays before the power is cut
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Workloads of which the image inherits its zones from another one.  A power cut
does nothing to that: it is only read.
"""

import random

from history import Geometry, History
from image import Image
from session import Disk, Failed, NoLog
from workloads import KIB, Workload, mixed, some_zone, length

OVERLAYS = {}


class Overlay(Workload):
    """An overlay, on an image that has been used"""

    def __init__(self, name, title, body, geo, options=(), base_options=(),
                 **kwargs):
        super().__init__(name, title, body, geo, options, **kwargs)
        self.base = Workload(name, title, mixed, geo, base_options)

    def create(self, image, qemu_io, seed):
        """Create @image, return the history that it begins with"""
        base = Image(image.tools, self.base, image.directory, '.backing')
        base.create()
        disk = None
        try:
            disk = Disk(qemu_io, base.options(), self.geo, NoLog,
                        image.directory)
            mixed(disk, random.Random(seed), steps=40)
            disk.end()
        finally:
            if disk:
                disk.stop()
        report, errors = base.report()
        content, more = base.content()
        if errors or more:
            raise Failed('; '.join(errors + more))
        image.create(backing=base)
        return History.found(self.geo, report, base.table(), content)


def go_on(disk, rng):
    """Writes that copy, at write pointers in the middle of clusters"""
    for _ in range(60):
        zone = some_zone(disk, rng)
        what = rng.random()
        if what < 0.6:
            disk.write(zone, length(rng, disk, zone, 512, 12),
                       fua=rng.random() < 0.2)
        elif what < 0.7:
            disk.zeroes(zone, length(rng, disk, zone, 512, 80))
        elif what < 0.75:
            disk.reset(zone)
        elif what < 0.8:
            disk.plain_write(rng.randrange(disk.geo.conventional),
                             512 * rng.randrange(96), 512 * rng.randint(1, 16))
        else:
            disk.flush()


MANY = Geometry(128 * KIB, 30, capacity=97 * KIB + 512, conventional=2,
                max_active=8)

for overlay in (
        Overlay('overlay', 'an overlay, clusters of 64k', go_on, MANY,
                ('cluster_size=64k',), ('cluster_size=4k',)),
        Overlay('overlay-lazy', 'an overlay, lazy refcounts', go_on, MANY,
                ('cluster_size=16k', 'lazy_refcounts=on'),
                ('cluster_size=64k',)),
        Overlay('overlay-subclusters', 'an overlay, subclusters', go_on, MANY,
                ('cluster_size=64k', 'extended_l2=on'), ('cluster_size=4k',)),
        Overlay('overlay-data-file', 'an overlay, external data file', go_on,
                MANY, ('cluster_size=32k',), ('cluster_size=4k',),
                data_file=True),
        Overlay('overlay-mixed', 'an overlay, a bit of everything', mixed,
                MANY, ('cluster_size=16k',), ('cluster_size=4k',),
                discard=True, hold=0.3)):
    OVERLAYS[overlay.name] = overlay
