"""Who stands between a program and its server, reads along, and changes what the server says.

    async with tampering(server_port) as middle:
        conn = await aiopgx.connect(port=middle.port, sslmode="disable", gssencmode="disable")
        middle.tamper = before(2, message(b"Z", b"I"))

What is done to the server's messages is done by a function `tamper(kind, body)`, which returns the
bytes that the client gets in the place of that message.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct

from support import message


@contextlib.asynccontextmanager
async def tampering(port):
    """A `Middle` in front of that port of 127.0.0.1."""
    middle = Middle(port)
    server = await asyncio.start_server(middle.serve, "127.0.0.1", 0)
    middle.port = server.sockets[0].getsockname()[1]
    try:
        yield middle
    finally:
        server.close()
        for task in middle.tasks:
            task.cancel()
        await asyncio.gather(*middle.tasks, return_exceptions=True)


class Middle:
    """Passes sessions on in clear.

    tamper: what is done to each message of the server, from now on; None for nothing.
    spoil: the same for pieces of the stream, as they come, for damage that no message shows.
    said: all that clients have sent.
    """

    def __init__(self, port):
        self.server_port = port
        self.tamper = None
        self.spoil = None
        self.said = bytearray()
        self.tasks = set()

    async def serve(self, from_client, to_client):
        self.tasks.add(asyncio.current_task())
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port)
        try:
            back = asyncio.ensure_future(self._answer(from_server, to_client))
            self.tasks.add(back)
            with contextlib.suppress(ConnectionError):
                while data := await from_client.read(65536):
                    self.said += data
                    to_server.write(data)
            to_server.close()
            await back
        finally:
            to_server.close()
            to_client.close()

    async def _answer(self, from_server, to_client):
        with contextlib.suppress(ConnectionError):
            pending = b""
            while data := await from_server.read(65536):
                pending += data
                whole, pending = self._changed(pending)
                to_client.write(whole)
                await to_client.drain()
        to_client.close()

    def _changed(self, data):
        """What becomes of the messages that have come whole, and what is left."""
        told, place = b"", 0
        while len(data) - place > 4:
            end = place + 1 + int.from_bytes(data[place + 1 : place + 5], "big")
            if len(data) < end:
                break
            kind, body = data[place : place + 1], data[place + 5 : end]
            told += data[place:end] if self.tamper is None else self.tamper(kind, body)
            place = end
        if self.spoil is not None:
            told = self.spoil(told)
        return told, data[place:]


def at(place, change):
    """A tamper that does this to one message, counted from 0."""
    count = itertools.count()

    def tamper(kind, body):
        return change(kind, body) if next(count) == place else message(kind, body)

    return tamper


def int16(*numbers):
    return struct.pack(f"!{len(numbers)}h", *numbers)


def int32(*numbers):
    return struct.pack(f"!{len(numbers)}i", *numbers)


def column(name=b"n", oid=23, size=4, form=0):
    return name + b"\0" + int32(0) + int16(0) + int32(oid) + int16(size) + int32(-1) + int16(form)


FIELDS = b"SERROR\0VERROR\0C22012\0Mso it is\0\0"
SETTINGS = b"".join(message(b"S", b"TimeZone\0zone %d\0" % n) for n in range(2000))
NEWS = message(b"A", int32(7) + b"channel\0payload\0")

# What is said in front of a message, by the server or by who is no server.
INSERTED = {
    "a notice": message(b"N", FIELDS.replace(b"ERROR", b"NOTICE")),
    "a notice of nothing": message(b"N", b"\0"),
    "a notice without an end": message(b"N", b"MSo it is"),
    "2,000 notices": message(b"N", FIELDS) * 2000,
    "a notification": NEWS,
    "2,000 notifications": NEWS * 2000,
    "half a notification": message(b"A", int32(7) + b"channel"),
    "2,000 settings": SETTINGS,
    "another encoding": message(b"S", b"client_encoding\0SJIS\0"),
    "an encoding of no name": message(b"S", b"client_encoding\0nonsense\0"),
    "backslashes that escape": message(b"S", b"standard_conforming_strings\0off\0"),
    "another version": message(b"S", b"server_version\0" + b"9" * 400 + b"\0"),
    "half a setting": message(b"S", b"TimeZone"),
    "an error": message(b"E", FIELDS),
    "an error of nothing": message(b"E", b"\0"),
    "an error without an end": message(b"E", b"MSo it is"),
    "an error of fields unknown": message(b"E", b"?what\0\xffthat\0\0"),
    "an error with a place far away": message(b"E", FIELDS[:-1] + b"P999999999\0\0"),
    "a farewell": message(b"E", FIELDS.replace(b"ERROR", b"FATAL").replace(b"22012", b"57P01")),
    "columns": message(b"T", int16(1) + column()),
    "columns in binary": message(b"T", int16(1) + column(oid=2950, size=16, form=1)),
    "columns of no known format": message(b"T", int16(1) + column(form=7)),
    "no columns": message(b"T", int16(0)),
    "columns, -1 of them": message(b"T", int16(-1)),
    "columns, 32,767 of them": message(b"T", int16(32767)),
    "half a column": message(b"T", int16(1) + column()[:9]),
    "a row": message(b"D", int16(1) + int32(1) + b"7"),
    "a row of no columns": message(b"D", int16(0)),
    "a row of 100 columns": message(b"D", int16(100) + (int32(1) + b"7") * 100),
    "a row of -1 columns": message(b"D", int16(-1)),
    "a value of 1 GB": message(b"D", int16(1) + int32(2**30) + b"7"),
    "a value of -5 bytes": message(b"D", int16(1) + int32(-5) + b"7"),
    "a value that is too short": message(b"D", int16(1) + int32(9) + b"7"),
    "an end": message(b"C", b"SELECT 1\0"),
    "an end without its tag": message(b"C", b""),
    "an end with a long tag": message(b"C", b"INSERT " * 2000 + b"\0"),
    "an empty query": message(b"I", b""),
    "ready": message(b"Z", b"I"),
    "ready, in a transaction": message(b"Z", b"T"),
    "ready, in what is unknown": message(b"Z", b"?"),
    "ready, in nothing": message(b"Z", b""),
    "parsed": message(b"1", b""),
    "bound": message(b"2", b""),
    "closed": message(b"3", b""),
    "no data": message(b"n", b""),
    "parameters": message(b"t", int16(1) + int32(23)),
    "parameters, -1 of them": message(b"t", int16(-1)),
    "suspended": message(b"s", b""),
    "COPY FROM": message(b"G", b"\0" + int16(1, 0)),
    "COPY TO": message(b"H", b"\0" + int16(1, 0)),
    "COPY both ways": message(b"W", b"\0" + int16(1, 0)),
    "COPY of -1 columns": message(b"H", b"\0" + int16(-1)),
    "COPY's data": message(b"d", b"1\n"),
    "COPY's end": message(b"c", b""),
    "a key": message(b"K", int32(1, 2)),
    "half a key": message(b"K", b"\0"),
    "a wish for the password": message(b"R", int32(3)),
    "a wish for its MD5": message(b"R", int32(5) + b"salt"),
    "a wish for SCRAM": message(b"R", int32(10) + b"SCRAM-SHA-256\0\0"),
    "a welcome": message(b"R", int32(0)),
    "another protocol": message(b"v", int32(0, 0)),
    "a function's result": message(b"V", int32(-1)),
    "no known message": message(b"!", b"what"),
    "a message of length 0": b"D" + int32(0),
    "a message of length 3": b"Z" + int32(3),
    "a message of length -1": b"C" + int32(-1),
    "a message of 2 GB": b"D" + int32(2**31 - 1),
    "a notice of 2 GB": b"N" + int32(2**31 - 1),
    "what is no message": bytes(range(256)),
}

# What arrives at any time: nothing is the worse for it.
HARMLESS = [
    *("a notice", "a notice of nothing", "2,000 notices", "2,000 settings"),
    *("a notification", "2,000 notifications"),
]

# What becomes of a message.
ALTERED = {
    "left out": lambda kind, body: b"",
    "twice": lambda kind, body: message(kind, body) * 2,
    "empty": lambda kind, body: message(kind, b""),
    "cut off": lambda kind, body: message(kind, body[: len(body) // 2]),
    "too long": lambda kind, body: message(kind, body + b"\0\0\0\1"),
    "of zeros": lambda kind, body: message(kind, bytes(len(body))),
    "of ones": lambda kind, body: message(kind, b"\xff" * len(body)),
    "more than counted": lambda kind, body: message(kind, counted(body, -1)),
    "less than counted": lambda kind, body: message(kind, counted(body, 1)),
    "32,767 counted": lambda kind, body: message(kind, b"\x7f\xff" + body[2:]),
    "-1 counted": lambda kind, body: message(kind, b"\xff\xff" + body[2:]),
    "of another kind": lambda kind, body: message(b"D" if kind != b"D" else b"T", body),
    "shorter than it says": lambda kind, body: kind + int32(len(body) + 9) + body,
    "longer than it says": lambda kind, body: kind + int32(max(len(body), 4)) + body,
}


def counted(body, more):
    """The count that many messages begin with, another one."""
    if len(body) < 2:
        return body
    return ((int.from_bytes(body[:2], "big") + more) % 65536).to_bytes(2, "big") + body[2:]


def inserted(text):
    return lambda kind, body: text + message(kind, body)


CHANGES = {**{name: inserted(text) for name, text in INSERTED.items()}, **ALTERED}
