"""A TCP proxy in front of a server, and a listener that is deaf to cancel requests."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from support import listener

# The first message of a connection that asks for TLS, and of one that cancels a query.
TLS_REQUEST = struct.pack("!ii", 8, 80877103)
CANCEL_REQUEST = struct.pack("!ii", 16, 80877102)


@contextlib.asynccontextmanager
async def proxy(port, *, half_close=True):
    """The port of a proxy in front of that port of 127.0.0.1.

    half_close: an end of stream is passed on, and the other direction goes on; without it, both
        directions are closed at the first end of stream, as many proxies do.
    """

    async def serve(reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        directions = {
            asyncio.ensure_future(_pass_on(reader, server_writer)),
            asyncio.ensure_future(_pass_on(server_reader, writer)),
        }
        when = asyncio.ALL_COMPLETED if half_close else asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait(directions, return_when=when)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            server_writer.close()

    async with listener(serve) as proxy_port:
        yield proxy_port


async def _pass_on(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def deaf_to_cancels(port):
    """The port of a proxy that takes cancel requests and neither passes them on nor answers.

    To be asked without TLS.
    """
    end = asyncio.Event()

    async def serve(reader, writer):
        start = await reader.readexactly(8)
        if start == CANCEL_REQUEST:
            await end.wait()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        server_writer.write(start)
        await asyncio.gather(_pass_on(reader, server_writer), _pass_on(server_reader, writer))
        server_writer.close()

    async with listener(serve) as proxy_port:
        try:
            yield proxy_port
        finally:
            end.set()
