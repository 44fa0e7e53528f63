#!/usr/bin/env python3
"""A Docker engine for clients that know no credentials: listens on a Unix socket and a TCP port, adds the
project's token to the head of every request, and passes everything else as it is, hijacked streams and
half-closed ones included. Usage: WHARFAGE_TOKEN=... credential.py SOCKET PORT HOST:PORT"""

import asyncio
import os
import sys

TOKEN = os.environ["WHARFAGE_TOKEN"].encode()
PIECE = 64 * 1024
# docker-py looks for a stream below its HTTP library, and loses what that has read together with the head
# of the answer. dockerd takes a moment between the two; passed on from here, they would come as one.
AFTER_HEAD_S = 0.02


async def copy(reader, writer):
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()


async def copy_exactly(reader, writer, length):
    while length:
        piece = await reader.read(min(length, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(piece)
        writer.write(piece)
        await writer.drain()


async def copy_chunks(reader, writer):
    while True:
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        await copy_exactly(reader, writer, size + 2)
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        writer.write(line)
    writer.write(b"\r\n")
    await writer.drain()


async def requests(reader, writer, upgrading):
    """What the client sends: one request after the other, until one takes the connection over."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        first, _, rest = head.partition(b"\r\n")
        headers = {}
        for line in rest.strip().split(b"\r\n"):
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip().lower()
        if b"upgrade" in headers:
            upgrading.set()
        writer.write(first + b"\r\nAuthorization: Bearer " + TOKEN + b"\r\n" + rest)
        await writer.drain()
        if b"upgrade" in headers:
            await copy(reader, writer)
            return
        if headers.get(b"transfer-encoding") == b"chunked":
            await copy_chunks(reader, writer)
        else:
            await copy_exactly(reader, writer, int(headers.get(b"content-length", b"0")))


async def answers(reader, writer, upgrading):
    """What the server sends, with a pause where a connection is taken over."""
    while piece := await reader.read(PIECE):
        head, end, rest = piece.partition(b"\r\n\r\n") if upgrading.is_set() else (piece, b"", b"")
        writer.write(head + end)
        await writer.drain()
        if end:
            upgrading.clear()
            await asyncio.sleep(AFTER_HEAD_S)
            writer.write(rest)
            await writer.drain()


async def ended(pump, writer):
    """Runs one direction; the end of it is told to the other side, which may still send."""
    try:
        await pump
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, asyncio.IncompleteReadError, RuntimeError):
        writer.close()


async def serve(address, reader, writer):
    host, port = address.rsplit(":", 1)
    try:
        from_server, to_server = await asyncio.open_connection(host, int(port))
    except OSError:
        writer.close()
        return
    upgrading = asyncio.Event()
    up = asyncio.create_task(ended(requests(reader, to_server, upgrading), to_server))
    # When the server has no more to say, the connection is over.
    await ended(answers(from_server, writer, upgrading), writer)
    up.cancel()
    to_server.close()
    writer.close()


async def main(path, port, address):
    # The event loop alone would not keep them from being collected.
    serving = set()

    def begin(reader, writer):
        task = asyncio.ensure_future(serve(address, reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    over_tcp = await asyncio.start_server(begin, "127.0.0.1", int(port), limit=1 << 20)
    # Last: whoever sees the socket may use both.
    over_unix = await asyncio.start_unix_server(begin, path, limit=1 << 20)
    await asyncio.gather(over_tcp.serve_forever(), over_unix.serve_forever())


asyncio.run(main(*sys.argv[1:]))
