"""Any bytes as values of every type, and as errors and notices: psycopg2's objects, its exceptions.

`make fuzz` goes on from here, guided by what of the decoders' code was reached.
"""

import contextlib
import socket
import threading

import psycopg2
import pytest
from forge import ENCODINGS, FACTORIES, FETCHES, TEXTS, ZONES, Case, Forge, take
from hypothesis import given
from hypothesis import strategies as st
from roads import portrait_of_error
from support import LONG, greeting, message, new_loop, shut_down

import aiopgx


@pytest.fixture(scope="module")
def forge(dsn):
    forge = Forge(dsn)
    yield forge
    forge.close()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_form_for_every_type(forge, encoding):
    rows = [[text] for text in [*TEXTS, None] if b"\0" not in (text or b"")]
    for oid in forge.oids:
        forge.check(Case([oid], rows, encoding=encoding, fetch="fetchone"))


def test_nul_bytes(forge):
    rows = [[text] for text in TEXTS if b"\0" in text]
    for oid in forge.oids:
        forge.check(Case([oid], rows, fetch="fetchone"))


def test_every_beginning_of_every_form(forge):
    """Of one form in seven for each type, or of all in a long run."""
    for i, oid in enumerate(forge.oids):
        texts = TEXTS if LONG else TEXTS[i % 7 :: 7]
        rows = [[text[:end]] for text in texts for end in range(len(text))]
        forge.check(Case([oid], rows, fetch="fetchone"))


@pytest.mark.parametrize(
    "oid, text",
    [
        (1007, b'{"}'),
        (1007, b'[0:0]={1,"}'),
        (1231, b'{1,"}'),
        (1009, b"{a,"),
        (1009, b"{{a},"),
        (1001, b"[0:1]={a,"),
        (199, b"{1,"),
    ],
)
def test_an_array_that_psycopg2_does_not_survive(forge, oid, text):
    ((error, *_), _), *_ = forge.fetched(forge.raws["UTF8"], Case([oid], [[text]]), take)
    assert error is psycopg2.DataError


@st.composite
def cut_and_pasted(draw):
    """Pieces of two forms, with a few bytes between."""
    form = st.sampled_from(TEXTS)
    first, second = draw(form), draw(form)
    i, j = draw(st.integers(0, len(first))), draw(st.integers(0, len(second)))
    return first[:i] + draw(st.binary(max_size=3)) + second[j:]


VALUES = st.none() | st.sampled_from(TEXTS) | cut_and_pasted() | st.binary(max_size=40)


@given(data=st.data())
def test_rows_of_any_bytes(forge, data):
    """Each oid is drawn alone, so that a failure names the smallest case."""
    oids = data.draw(st.lists(st.sampled_from(forge.oids), min_size=1, max_size=3))
    rows = st.lists(st.tuples(*[VALUES] * len(oids)), max_size=4)
    forge.check(
        Case(
            oids,
            [list(row) for row in data.draw(rows)] * data.draw(st.sampled_from([1, 2, 20])),
            ["same"] * len(oids) if data.draw(st.booleans()) else [],
            data.draw(st.sampled_from(FACTORIES)),
            data.draw(st.sampled_from(ZONES)),
            data.draw(st.sampled_from(ENCODINGS)),
            data.draw(st.sampled_from([*FETCHES])),
        )
    )


@given(text=st.binary(max_size=60))
def test_cases_made_of_bytes(forge, text):
    forge.check(forge.case(text))


# --- errors and notices ---------------------------------------------------------------------------


class Parrot:
    """A server that answers each query with the messages in `answer`."""

    def __init__(self):
        self.answer = b""
        self.listening = socket.create_server(("127.0.0.1", 0))
        port = self.listening.getsockname()[1]
        self.dsn = f"host=127.0.0.1 port={port} user=x sslmode=disable gssencmode=disable"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self.listening.accept()
                threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rb") as file:
            file.read(int.from_bytes(file.read(4), "big") - 4)  # who wants to be let in
            client.sendall(greeting())
            while file.read(1) == b"Q":
                file.read(int.from_bytes(file.read(4), "big") - 4)
                client.sendall(self.answer + message(b"Z", b"I"))

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()


@pytest.fixture(scope="module")
def parrot():
    parrot = Parrot()
    yield parrot
    parrot.close()


@pytest.fixture(scope="module")
def outcomes(parrot):
    """A function: the error and the notices of a query, as psycopg2 and as aiopgx report them."""
    loop = new_loop("asyncio")

    async def connect():
        # it would repeat itself to the question about a pooler as well
        return await aiopgx.connect(parrot.dsn, enable_hstore=False, prepare_threshold=None)

    async def execute():
        async with conn.cursor() as cursor:
            await cursor.execute("SELECT")

    def outcome(raw, function):
        with pytest.raises(psycopg2.Error) as error:
            function()
        notices = list(raw.notices)
        raw.notices.clear()
        return portrait_of_error(error.value), notices

    with contextlib.closing(psycopg2.connect(parrot.dsn)) as theirs:
        theirs.autocommit = True
        conn = loop.run_until_complete(connect())
        yield lambda: (
            outcome(theirs, lambda: theirs.cursor().execute("SELECT")),
            outcome(conn.raw, lambda: loop.run_until_complete(execute())),
        )
        conn.close()
        shut_down(loop)


SQLSTATES = ["", "00000", "22012", "25P02", "2200Z", "40001", "57P05", "P0001", "XX000", "ZZZZZ"]
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        # psycopg2 complains aloud of others than ASCII
        "C": (st.sampled_from(SQLSTATES) | st.text("0129APXZz ", max_size=6)).map(str.encode),
        "S": st.sampled_from([b"ERROR", b"FATAL", b"PANIC", b"WARNING", b"\xe4"]),
        **{key: st.text(max_size=9).map(str.encode) | st.binary(max_size=9) for key in "MDHqRFL?"},
        "P": st.integers(-1, 9).map(lambda number: b"%d" % number),
    },
)


def report(kind, fields):
    parts = [key.encode() + value.replace(b"\0", b"") + b"\0" for key, value in fields.items()]
    return message(kind, b"".join(parts) + b"\0")


@given(error=FIELDS, notices=st.lists(FIELDS, max_size=2))
def test_errors_and_notices_of_any_bytes(parrot, outcomes, error, notices):
    parrot.answer = b"".join(report(b"N", fields) for fields in notices) + report(b"E", error)
    theirs, ours = outcomes()
    assert ours == theirs
