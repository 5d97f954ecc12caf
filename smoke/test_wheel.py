"""What an installed wheel must do, also where there is no server.

    python -m pytest -c smoke/setup.cfg smoke

The tests proper are in tests/; these run in each wheel's own environment, beside psycopg2-binary.
"""

import asyncio
import importlib
import os
import pkgutil
import socket
import struct
import sys

import psycopg2
import pytest

import aiopgx


def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


GREETING = b"".join(
    [
        message(b"R", struct.pack("!i", 0)),
        message(b"S", b"client_encoding\0UTF8\0"),
        message(b"S", b"server_version\x0015.0\0"),
        message(b"S", b"DateStyle\0ISO, MDY\0"),
        message(b"S", b"standard_conforming_strings\0on\0"),
        message(b"K", struct.pack("!ii", 1, 2)),
        message(b"Z", b"I"),
    ]
)
COLUMN = b"n\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)
ANSWER = b"".join(
    [
        message(b"T", struct.pack("!h", 1) + COLUMN),
        *(message(b"D", struct.pack("!hi", 1, 1) + digit) for digit in (b"1", b"2")),
        message(b"C", b"SELECT 2\0"),
        message(b"Z", b"I"),
    ]
)


async def serve(reader, writer):
    """As much of a server as one statement needs."""
    await reader.read(65536)
    writer.write(GREETING)
    while await reader.read(65536):
        writer.write(ANSWER)
    writer.close()


def test_it_is_the_installed_one():
    assert os.path.realpath(aiopgx.__file__).startswith(os.path.realpath(sys.prefix))


def test_every_module_can_be_imported():
    for module in pkgutil.walk_packages(aiopgx.__path__, "aiopgx."):
        if module.name.startswith(("aiopgx.sa", "aiopgx.dialect", "aiopgx.tools", "aiopgx.__main")):
            continue  # they need what is not installed here
        importlib.import_module(module.name)


def test_the_native_road_is_open():
    capabilities = aiopgx.capabilities()
    assert capabilities.native, str(capabilities)


def test_a_statement():
    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = {"user": "me", "sslmode": "disable", "gssencmode": "disable"}
        async with (
            aiopgx.connect(host="127.0.0.1", port=port, enable_hstore=False, **options) as conn,
            conn.cursor() as cursor,
        ):
            await cursor.execute("SELECT n FROM numbers")
            assert await cursor.fetchall() == [(1,), (2,)]
            assert cursor.rowcount == 2
        server.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_nobody_is_there():
    async def main():
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(psycopg2.OperationalError):
                await aiopgx.connect(host="127.0.0.1", port=unused.getsockname()[1], timeout=10)

    asyncio.run(main())
