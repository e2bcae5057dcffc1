# Where blklogwrites nodes write their logs
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
blklogwrites writes an entry when an operation is over, and the operation
completes when the entry is written.  So who receives the entries sees the
operations of all files in one order, and decides when they complete.

Here they are received by an NBD server, whose exports are named after the
files.  It notes the order, and delays some answers to have operations complete
out of order.  What a delay means:

- A write of which the answer is held back has not completed.  It takes its
  place in the order when it is answered: a flush before that did not cover it.
- A flush takes its place when it is received.  What completes while its answer
  is held back came too late to be covered.
"""

import asyncio
import os
import random
import struct
import threading

SECTOR = 512
FLAG_FLUSH = 1
FLAG_DISCARD = 4

EXPORT_SIZE = 1 << 36

IHAVEOPT = 0x49484156454F5054
OPT_REPLY_MAGIC = 0x3e889045565a9
REQUEST_MAGIC = 0x25609513
REPLY_MAGIC = 0x67446698
OPT_ABORT, OPT_GO = 2, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, (1 << 31) + 1
CMD_READ, CMD_WRITE, CMD_DISCONNECT = 0, 1, 2


class LogServer:
    """
    The server, in a thread of its own.  @order is a list of (file, position
    of the entry in the log of that file), which only grows.
    """

    def __init__(self, directory, files, seed, hold):
        self.path = os.path.join(directory, 'log.sock')
        self.logs = {file: os.open(os.path.join(directory, file + '.log'),
                                   os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                     for file in files}
        self.order = []
        self.hold = hold
        self.rng = random.Random(seed)
        self.zeroes = []        # ranges of logs with payload yet to come
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(started,))
        self.thread.start()
        started.wait()

    def run(self, started):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_unix_server(self.serve, self.path, limit=1 << 26))
        started.set()
        self.loop.run_forever()
        server.close()
        self.loop.run_until_complete(server.wait_closed())
        self.loop.close()

    def stop(self):
        """End, after the clients did"""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        for fd in self.logs.values():
            os.close(fd)

    async def serve(self, reader, writer):
        try:
            file = await self.negotiate(reader, writer)
            if file:
                await self.transmission(file, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    @staticmethod
    async def negotiate(reader, writer):
        """Return the name of the export that is asked for"""
        writer.write(b'NBDMAGIC' + struct.pack('>QH', IHAVEOPT, 3))
        await reader.readexactly(4)
        while True:
            _, option, length = struct.unpack('>QII',
                                              await reader.readexactly(16))
            data = await reader.readexactly(length)

            def reply(kind, payload=b'', option=option):
                writer.write(struct.pack('>QIII', OPT_REPLY_MAGIC, option,
                                         kind, len(payload)) + payload)

            if option == OPT_GO:
                name_len = struct.unpack('>I', data[:4])[0]
                reply(REP_INFO, struct.pack('>HQH', 0, EXPORT_SIZE, 1))
                reply(REP_ACK)
                return data[4:4 + name_len].decode()
            if option == OPT_ABORT:
                reply(REP_ACK)
                return None
            reply(REP_ERR_UNSUP)

    async def transmission(self, file, reader, writer):
        while True:
            _, _, kind, handle, offset, length = struct.unpack(
                '>IHHQQI', await reader.readexactly(28))
            answer = struct.pack('>IIQ', REPLY_MAGIC, 0, handle)
            if kind == CMD_DISCONNECT:
                return
            if kind == CMD_READ:
                data = os.pread(self.logs[file], length, offset)
                writer.write(answer + data.ljust(length, b'\0'))
                continue
            assert kind == CMD_WRITE
            data = await reader.readexactly(length)
            os.pwrite(self.logs[file], data, offset)
            self.receive(file, offset, data, writer, answer)

    def receive(self, file, offset, data, writer, answer):
        if offset == 0 or self.is_payload(file, offset):
            writer.write(answer)
            return
        _, nr_sectors, flags = struct.unpack('<QQQ', data[:24])
        if not flags and len(data) == SECTOR:
            self.zeroes.append((file, offset,
                                offset + SECTOR * (nr_sectors + 1)))
        if flags & FLAG_FLUSH:
            self.order.append((file, offset))
        delay = self.rng.uniform(0, 0.003) if self.rng.random() < self.hold \
            else 0
        if delay:
            self.loop.call_later(delay, self.complete, file, offset, flags,
                                 writer, answer)
        else:
            self.complete(file, offset, flags, writer, answer)

    def complete(self, file, offset, flags, writer, answer):
        if not flags & FLAG_FLUSH:
            self.order.append((file, offset))
        writer.write(answer)

    def is_payload(self, file, offset):
        return any(file == zfile and start < offset < end
                   for zfile, start, end in self.zeroes)
