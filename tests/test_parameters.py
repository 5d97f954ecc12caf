"""Parameters in the statement: the text sent is the one that psycopg2 makes."""

import asyncio
import datetime
import decimal
import enum
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import fetch, new_loop, shut_down


class Number(int):
    pass


class Text(str):
    pass


class Real(float):
    def __repr__(self):
        return "not a number"


class Level(enum.IntEnum):
    LOW = 1


VALUES = [
    *(None, True, False, 0, 1, -1, 7, 10, 99, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**63, 10**40),
    *(0.0, -0.0, 1.5, -1.5, 1e300, 5e-324, 0.1, 1e16, 1e22, -1e-7),
    *(float("inf"), float("-inf"), float("nan")),
    *(
        "",
        "x",
        "it's",
        "''",
        "back\\slash",
        "\\'",
        "%s",
        "%%",
        "%(a)s",
        "é",
        "日本",
        "😀",
        "\n\t\x7f",
    ),
    *(b"", b"x", b"\x00\xff'\\", bytearray(b"ab"), memoryview(b"cd")),
    *(decimal.Decimal("1.10"), decimal.Decimal("NaN"), decimal.Decimal("-5")),
    *(datetime.date(2020, 1, 2), datetime.time(1, 2, 3), datetime.datetime(2020, 1, 2, 3, 4)),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc),
    datetime.timedelta(days=-1, seconds=5),
    *([1, 2], [], ["a", None], [[1], [2]], (1, "a"), ((1, 2), (3, 4)), [True], [-1], (-1,)),
    *(Number(5), Number(-5), Text("it's"), Real(2.5), Level.LOW),
    *(psycopg2.extras.Json({"a": [1]}), uuid.UUID(int=5), psycopg2.extensions.AsIs("now()")),
    psycopg2.extras.DateRange(datetime.date(2020, 1, 1)),
]

STATEMENTS = [
    "SELECT %s",
    "SELECT %s, %s",
    "SELECT %s-%s",
    "SELECT '%%', %s",
    "SELECT %%%s",
    "SELECT %s%%s",
    "%s",
    "%s%s",
    "SELECT 'é', %s",
    "SELECT %(a)s",
    "SELECT %(a)s, %(b)s, %(a)s",
    "SELECT %(a b)s",
    "SELECT %()s",
    "SELECT %(é)s",
    "SELECT %% %(a)s",
]


def outcome(call, *arguments):
    """What a call gives: its value, or the class and text of its exception."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error), str(error)


@pytest.fixture
def texts(ours, dsn):
    """texts(operation, parameters) -> (what is sent, what psycopg2 would send)."""
    loop = new_loop("asyncio")

    async def opened():
        conn = await ours.connect(dsn)
        return conn, await conn.cursor()

    conn, cursor = loop.run_until_complete(opened())
    sync = psycopg2.connect(dsn)
    psycopg2.extras.register_uuid(conn_or_curs=sync)
    psycopg2.extras.register_hstore(sync)

    async def execute(operation, parameters):
        try:
            await cursor.execute(operation, parameters)
        except psycopg2.Error as error:
            if error.pgcode is None:
                raise
        return cursor.query

    def both(operation, parameters):
        def sent():
            return loop.run_until_complete(execute(operation, parameters))

        return outcome(sent), outcome(sync.cursor().mogrify, operation, parameters)

    yield both
    loop.run_until_complete(closed(conn))
    shut_down(loop)
    sync.close()


async def closed(conn):
    await conn.close()


def test_every_value(texts):
    for value in VALUES:
        for parameters in ((value,), [value]):
            sent, expected = texts("SELECT %s", parameters)
            assert sent == expected, value
        sent, expected = texts("SELECT %(a)s", {"a": value})
        assert sent == expected, value


def test_every_shape_of_statement(texts):
    for statement in STATEMENTS:
        for value in (1, -1, "it's", None, 1.5, "é", b"x"):
            for parameters in (
                *((value,), (value, value), [value, value], ()),
                *({"a": value, "b": value}, {"a b": value, "": value, "é": value}, {}),
            ):
                sent, expected = texts(statement, parameters)
                assert sent == expected, (statement, parameters)


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.text("'\\%s()ab "),
    st.dates(),
    st.decimals(allow_nan=False),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.text("abc '%-()sé", max_size=6), min_size=1, max_size=4),
    values=st.lists(plain, min_size=3, max_size=3),
    named=st.booleans(),
)
def test_any_text_any_values(texts, pieces, values, named):
    statement = "SELECT "
    for n, piece in enumerate(pieces):
        statement += piece + ("" if n == 0 else f"%({n})s" if named else "%s")
    parameters = (
        {str(n): value for n, value in enumerate(values, 1)}
        if named
        else tuple(values[: len(pieces) - 1])
    )
    sent, expected = texts(statement, parameters)
    assert sent == expected


# --- adapters come and go -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"), [(int, 5), (str, "x"), (bool, True), (float, 1.5), (type(None), None)]
)
async def test_adapter_of_a_plain_type(connect, kind, value):
    """Registered by the user, it counts from then on, and no longer when it is gone."""
    key = kind, psycopg2.extensions.ISQLQuote
    before = psycopg2.extensions.adapters.get(key)
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("SELECT %s", (value,))
        usual = cursor.query
        psycopg2.extensions.register_adapter(kind, lambda _: psycopg2.extensions.AsIs("'own'"))
        try:
            await cursor.execute("SELECT %s", (value,))
            expected = usual if value is None else b"SELECT 'own'"
            assert cursor.query == expected
        finally:
            if before is None:
                del psycopg2.extensions.adapters[key]
            else:
                psycopg2.extensions.adapters[key] = before
        await cursor.execute("SELECT %s", (value,))
        assert cursor.query == usual


async def test_old_quotes(connect, dsn):
    """Strings of a connection without standard_conforming_strings."""
    options = "-c standard_conforming_strings=off -c escape_string_warning=off"
    conn = await connect(options=options)
    for text in ("plain", "it's", "back\\slash", "\\'", "é"):
        assert await fetch(conn, "SELECT %s", (text,)) == [(text,)]
    sync = psycopg2.connect(dsn, options=options)
    async with conn.cursor() as cursor:
        for text in ("plain", "back\\slash"):
            assert cursor.mogrify("%s", (text,)) == sync.cursor().mogrify("%s", (text,))
            await cursor.execute("SELECT %s", (text,))
            assert cursor.query == sync.cursor().mogrify("SELECT %s", (text,))
    sync.close()


async def test_quotes_changed_on_the_way(connect):
    conn = await connect()
    async with conn.cursor() as cursor:
        await cursor.execute("SET escape_string_warning = off")
        for setting in ("off", "on"):
            await cursor.execute(f"SET standard_conforming_strings = {setting}")
            for text in ("plain", "it's", "back\\slash", "\\'; SELECT 1; --"):
                await cursor.execute("SELECT %s", (text,))
                assert await cursor.fetchone() == (text,)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SJIS", "GBK", "SQL_ASCII"])
async def test_other_encodings(connect, encoding):
    """Also those where a backslash may be a character's second byte."""
    conn = await connect(client_encoding=encoding)
    texts = ["plain", "it's", "back\\slash"]
    texts += {"LATIN1": ["é", "ÿ'"], "SQL_ASCII": []}.get(encoding, ["ソ表\\'", "誠'"])
    if encoding == "GBK":
        texts = [*texts[:3], "誠實'", "丂\\"]
    for text in texts:
        assert await fetch(conn, "SELECT %s", (text,)) == [(text,)]
        assert await fetch(conn, "SELECT %(a)s, 1", {"a": text}) == [(text, 1)]


async def test_parameters_changed_while_waiting(connect):
    """The text is made when the statement starts."""
    conn = await connect()
    parameters = [1]
    async with conn.cursor() as cursor:
        task = asyncio.create_task(cursor.execute("SELECT %s, pg_sleep(0.02)", parameters))
        await asyncio.sleep(0.005)
        parameters[0] = 2
        await task
        assert await cursor.fetchone() == (1, "")


async def test_statements_of_every_length(connect):
    conn = await connect()
    for size in (0, 1, 100, 8191, 8192, 19_999, 20_001, 70_000):
        text = "y" * size
        rows = await fetch(conn, f"SELECT length('{text}'), length(%s), %s", (text, 5))
        assert rows == [(size, size, 5)]


async def test_thousands_of_statements(connect):
    """More different texts than anybody keeps."""
    conn = await connect()
    for n in range(1500):
        assert await fetch(conn, f"SELECT {n} + %s", (1,)) == [(n + 1,)]
