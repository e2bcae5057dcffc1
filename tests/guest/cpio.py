# SPDX-License-Identifier: GPL-2.0-or-later
"""
Write cpio archives of the kind Linux takes as an initramfs ("newc").

Written here because the format is thirty lines, the cpio program is not on
every machine, and archives that follow each other in one file are unpacked
one after the other: a run's own script is appended to a cached archive.
"""

import stat

DIRECTORY = stat.S_IFDIR | 0o755
PROGRAM = stat.S_IFREG | 0o755


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _entry(ino: int, mode: int, name: str, data: bytes) -> bytes:
    encoded = name.encode() + b'\0'
    fields = (ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b'070701' + b''.join(b'%08x' % field for field in fields)
    return _pad(header + encoded) + _pad(data)


def archive(files: dict[str, bytes]) -> bytes:
    """
    Return an archive of @files, a dictionary from path to content.

    All are executable, so that a mode need not be carried along; the
    directories that the paths name come before them.
    """
    directories = {''}
    entries = []
    for path, data in files.items():
        parts = path.strip('/').split('/')
        for depth in range(1, len(parts)):
            directory = '/'.join(parts[:depth])
            if directory not in directories:
                directories.add(directory)
                entries.append((DIRECTORY, directory, b''))
        entries.append((PROGRAM, '/'.join(parts), data))
    entries.append((0, 'TRAILER!!!', b''))
    return b''.join(_entry(ino, *entry)
                    for ino, entry in enumerate(entries, start=1))
