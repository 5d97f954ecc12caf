"""copy_records(): records are stored as psycopg2's INSERT stores them, or refused by name."""

import asyncio
import datetime as dt
import enum
import math
import uuid
from decimal import Decimal

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from conftest import command, side_connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extras import DateRange, DateTimeTZRange, Inet, Json, NumericRange
from support import LONG, scalar

EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
UTC = dt.timezone.utc


class Number(enum.IntEnum):
    one = 1


class Text(str, enum.Enum):
    abc = "abc"


class Fraction(float):
    pass


NUMBERS = [
    *(
        0,
        1,
        -1,
        32767,
        32768,
        -32768,
        2**31 - 1,
        2**31,
        -(2**31),
        2**63 - 1,
        2**63,
        10**30,
        -(10**30),
    ),
    *(True, False, Number.one, Fraction(2.5)),
    *(0.0, -0.0, 1.5, 2.5, -2.5, 0.1, 1e20, 1e-7, 1e300, 5e-324, 1e-46, 3.4028235e38, 3.5e38),
    *(16777217.0, 1.00000005960464477539, math.nan, math.inf, -math.inf),
    *(Decimal("1.50"), Decimal("-0.00"), Decimal("1E+5"), Decimal("1.5E-7"), Decimal("NaN")),
    *(Decimal("Infinity"), Decimal("0.00001"), Decimal(10000), Decimal(99999999), Decimal("2.5")),
    *(Decimal("-2.5"), Decimal("0E+3"), Decimal("1E-400"), Decimal("1E400")),
    *(Decimal("123456789012345678901234567890.123456"), Decimal("100000000.0001")),
]
TEXTS = [
    *("", "abc", "5", " 5 ", "1.5", "true", "t", "é\t\n\r\\N", "{1,2}", "2024-02-29", "10:11:12"),
    *("2024-02-29 10:11:12.5", "2024-02-29T10:11:12+02:00", '{"a": 1}', "\\x6162", "1 day", "NaN"),
    *("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", "null", Text.abc),
]
TIMES = [
    *(dt.date(2024, 2, 29), dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1999, 12, 31)),
    dt.datetime(2024, 2, 29, 10, 11, 12, 131415),
    *(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),
    *(dt.datetime(2024, 2, 29, 10, tzinfo=UTC), dt.datetime(2024, 2, 29, 23, tzinfo=EAST)),
    dt.datetime(1900, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=-1234))),
    *(
        dt.time(10, 11, 12, 131415),
        dt.time(0),
        dt.time(23, 59, 59, 999999, EAST),
        dt.time(1, tzinfo=UTC),
    ),
    *(dt.timedelta(0), dt.timedelta(5, 3, 7), dt.timedelta(-1, 1), dt.timedelta(999_999_998)),
]
OTHERS = [
    None,
    *(b"", b"ab\x00\xff", bytearray(b"xy"), memoryview(b"mv"), psycopg2.Binary(b"bin")),
    *(uuid.UUID(int=5), Json({"a": [1, None, "é"]}), Json(None), {"k": "v", "n": None}),
    *(Inet("10.0.0.1"), psycopg2.extensions.AsIs("7"), psycopg2.extensions.AsIs("now()"), object()),
    *((1, "x"), (1, None), NumericRange(1, 5), NumericRange(empty=True), DateTimeTZRange()),
    DateRange(dt.date(2024, 1, 1)),
]
LISTS = [
    *([], [1, 2], [1, None], [None], [[1, 2], [3, 4]], [[1], [2, 3]], [1.5, 2], [2**40]),
    *(["a", 'b"\\,{}', None], [["a"], ["b"]], [True], [Decimal("1.5")], [b"a"], [uuid.UUID(int=5)]),
    *([dt.date(2024, 1, 1)], [dt.datetime(2024, 1, 1, tzinfo=EAST)]),
]
VALUES = [*NUMBERS, *TEXTS, *TIMES, *OTHERS, *LISTS]

BINARY = [
    *("int2", "int4", "int8", "float4", "float8", "numeric", "numeric(10,2)", "text", "varchar(3)"),
    *("char(3)", "bytea", "bool", "date", "time", "timetz", "timestamp", "timestamp(0)"),
    *("timestamptz", "interval", "uuid", "json", "jsonb", "positive", "nested"),
    *("int4[]", "int8[]", "text[]", "numeric[]", "float8[]", "bool[]", "date[]", "timestamptz[]"),
    *("bytea[]", "uuid[]", "varchar(3)[]"),
]
TEXTUAL = [
    *(
        "mood",
        "pair",
        "name",
        "money",
        "xml",
        "inet",
        "cidr",
        "int4range",
        "daterange",
        "tstzrange",
    ),
    *("hstore", "varbit", "tsvector", "mood[]", "pair[]", "int4range[]", "oid"),
]
SCHEMA = """
    CREATE TYPE mood AS ENUM ('abc', 't');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN nested AS positive
"""


@pytest.fixture(scope="module")
def dsn(dsn):
    with side_connection(dsn) as conn:
        command(conn, SCHEMA)
    return dsn


@pytest.fixture
def cursor(connect):
    async def make(**kwargs):
        return await (await connect(**kwargs)).cursor()

    return make


@pytest.fixture
def fill(side):
    """``fill(columns)`` makes the table `filled` with these columns."""

    def make(columns):
        command(side, f"DROP TABLE IF EXISTS filled; CREATE TABLE filled ({columns})")

    yield make
    command(side, "DROP TABLE IF EXISTS filled")


def rows(side, columns="*"):
    with side.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM filled")
        return cursor.fetchall()


# --- values ---------------------------------------------------------------------------------------


def inserted(conn, value):
    """What psycopg2 stores of a value, as the server's text; or the exception."""
    with conn.cursor() as cursor:
        try:
            cursor.execute("INSERT INTO filled (v) VALUES (%s) RETURNING v::text", (value,))
        except psycopg2.Error as error:
            return error
        return cursor.fetchone()[0]


def zoned(type_):
    """Whether the session's time zone may be seen in what is stored."""
    return "time" in type_ or type_ in ("date", "tstzrange")


STORED = [
    *((type_, "UTC") for type_ in (*BINARY, *TEXTUAL)),
    *((type_, "Europe/Paris") for type_ in (*BINARY, *TEXTUAL) if zoned(type_)),
]


@pytest.mark.parametrize(
    ("type_", "zone", "beside"),
    [
        *((*case, "") for case in STORED),
        *((*case, "x xml, ") for case in STORED[:: 1 if LONG else 3]),  # which is stored as text
    ],
)
async def test_stored_as_psycopg2_does(ours, cursor, dsn, fill, type_, zone, beside):
    """Where psycopg2 stores a value, it is stored the same, or refused with the record's number."""
    fill(f"{beside}v {type_}")
    options = f"-c TimeZone={zone}"
    cur = await cursor(options=options)
    binary = stored = 0
    with side_connection(dsn, options=options) as sync:
        psycopg2.extras.register_uuid(conn_or_curs=sync)
        psycopg2.extras.register_hstore(sync)
        for value in VALUES:
            theirs = inserted(sync, value)
            command(sync, "DELETE FROM filled")
            try:
                await cur.copy_records("filled", [(None, value) if beside else (value,)])
            except psycopg2.Error as error:
                if not isinstance(theirs, psycopg2.Error) and error.pgcode is None:
                    assert str(error).startswith('record 1, column "v": ')
                continue
            if not isinstance(theirs, psycopg2.Error):
                assert scalar(sync, "SELECT v::text FROM filled") == theirs, repr(value)
                binary += b"binary" in cur.query
                stored += 1
            command(sync, "DELETE FROM filled")
    assert stored > 1
    assert bool(binary) == (type_ in BINARY and not beside)


NATURAL = {
    "int2": 5,
    "int4": 5,
    "int8": 2**40,
    "float4": 0.1,
    "float8": 0.1,
    "numeric": Decimal("1.50"),
    "text": "é",
    "bytea": b"\0",
    "bool": True,
    "date": dt.date(2024, 2, 29),
    "time": dt.time(1, 2, 3),
    "timetz": dt.time(1, 2, 3, tzinfo=EAST),
    "timestamp": dt.datetime(2024, 2, 29),
    "timestamptz": dt.datetime(2024, 2, 29, tzinfo=EAST),
    "interval": dt.timedelta(5, 3, 7),
    "uuid": uuid.UUID(int=5),
    "jsonb": Json({}),
    "positive": 5,
    "int4[]": [[1, None]],
    "text[]": [],
    "mood": "abc",
    "pair": (1, 'x"\\,'),
    "money": "5",
    "xml": "<a/>",
    "inet": Inet("10.0.0.1"),
    "tstzrange": DateTimeTZRange(dt.datetime(2024, 2, 29, tzinfo=EAST), None),
    "hstore": {'a"': None},
    "mood[]": ["abc", None],
    "pair[]": [(1, "x"), (None, None)],
    "int4range[]": [NumericRange(1, 5)],
}


@pytest.mark.parametrize("type_", NATURAL)
async def test_the_type_s_own_value(ours, cursor, side, fill, type_):
    """None of these is refused."""
    fill(f"v {type_}")
    psycopg2.extras.register_uuid(conn_or_curs=side)
    psycopg2.extras.register_hstore(side)
    with side.cursor() as looking:
        looking.execute(f"SELECT %s::{type_}::text", (NATURAL[type_],))
        theirs = looking.fetchone()[0]
    cur = await cursor()
    await cur.copy_records("filled", [(NATURAL[type_],)])
    assert rows(side, "v::text") == [(theirs,)]
    assert (b"binary" in cur.query) == (type_ in BINARY)


decimals = st.decimals(allow_nan=False, allow_infinity=False) | st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent),
    st.integers(-(10**40), 10**40),
    st.integers(-60, 60),
)
floats = (
    st.floats() | st.floats(width=32) | st.integers(0, 2**23).map(lambda i: 1 + (2 * i + 1) / 2**24)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(decimals | floats | st.integers(-(10**50), 10**50), min_size=1, max_size=50))
def test_numerics(binary_column, numbers):
    binary_column("numeric", numbers)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(floats | st.integers(-(2**62), 2**62), min_size=1, max_size=50))
def test_floats(binary_column, numbers):
    binary_column("float8", numbers)
    binary_column("float4", [number for number in numbers if fits_float4(number)])


def fits_float4(number):
    return not math.isfinite(number) or number == 0 or 1e-45 < abs(number) < 3.4e38


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 30)), min_size=1),
    st.timedeltas(dt.timedelta(hours=-15), dt.timedelta(hours=15)),
    st.timedeltas(),
)
def test_datetimes(binary_column, times, offset, span):
    zone = dt.timezone(dt.timedelta(seconds=offset // dt.timedelta(seconds=1)))
    binary_column("timestamp", times)
    binary_column("timestamptz", [time.replace(tzinfo=zone) for time in times])
    binary_column("date", [time.date() for time in times])
    binary_column("time", [time.time() for time in times])
    binary_column("timetz", [time.time().replace(tzinfo=zone) for time in times])
    if abs(span) < dt.timedelta(10**8):
        binary_column("interval", [span])


@pytest.fixture
def binary_column(dsn, side, fill):
    """Store values in a column of a type; each is what psycopg2's literal gives."""
    import aiopgx

    loop = asyncio.new_event_loop()

    async def connect():
        return await aiopgx.connect(dsn, options="-c TimeZone=UTC")

    conn = loop.run_until_complete(connect())
    command(side, "SET TimeZone = 'UTC'")

    async def store(values):
        async with conn.cursor() as cursor:
            await cursor.copy_records("filled", [(i, value) for i, value in enumerate(values)])
            assert not values or b"binary" in cursor.query

    def check(type_, values):
        fill(f"i int, v {type_}")
        loop.run_until_complete(store(values))
        with side.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE IF NOT EXISTS expected (i int, v text)")
            cursor.execute(f"DROP TABLE expected; CREATE TEMP TABLE expected (i int, v {type_})")
            for i, value in enumerate(values):
                cursor.execute("INSERT INTO expected VALUES (%s, %s)", (i, value))
            cursor.execute(
                "SELECT e.v::text, f.v::text FROM expected e FULL JOIN filled f USING (i)"
                " WHERE e.v::text IS DISTINCT FROM f.v::text"
            )
            assert cursor.fetchall() == []

    yield check
    conn.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


async def test_adapters_of_the_program(ours, cursor, side, fill):
    """What is registered for a type counts, also for those that have a binary form."""

    class Point:
        pass

    fill("f float8, t text, p point, j jsonb")
    nothing = psycopg2.extensions.AsIs("NULL")
    register = psycopg2.extensions.register_adapter
    register(float, lambda f: nothing if math.isnan(f) else psycopg2.extensions.Float(f))
    register(Point, lambda _: psycopg2.extensions.AsIs("'(1,2)'"))
    register(dict, Json)
    cur = await cursor()
    await cur.copy_records("filled", [(math.nan, "x", Point(), {"a": 1}), (1.5, None, None, None)])
    assert rows(side) == [(None, "x", "(1,2)", {"a": 1}), (1.5, None, None, None)]


# --- tables and records ---------------------------------------------------------------------------


async def count_up(count):
    for number in range(count):
        await asyncio.sleep(0)
        yield number, str(number)


SOURCES = {
    "list": lambda: [(0, "0"), (1, "1"), (2, "2")],
    "generator": lambda: ((n, str(n)) for n in range(3)),
    "asynchronous": lambda: count_up(3),
    "lists": lambda: [[n, str(n)] for n in range(3)],
    "iterables": lambda: [map(str, (n, n)) for n in range(3)],
}


@pytest.mark.all_loops
@pytest.mark.parametrize("source", SOURCES)
async def test_sources(ours, cursor, side, fill, source):
    fill("i int, t text")
    cur = await cursor()
    assert await cur.copy_records("filled", SOURCES[source]()) is None
    assert (cur.rowcount, cur.statusmessage, cur.description) == (3, "", None)
    assert rows(side) == [(n, str(n)) for n in range(3)]
    text = await cur.connection.copy_records_to_table("filled", records=SOURCES[source]())
    assert text == "COPY 3"
    assert len(rows(side)) == 6


async def test_nothing(ours, cursor, side, fill):
    fill("i int, t text")
    cur = await cursor()
    for nothing in ([], count_up(0)):
        await cur.copy_records("filled", nothing)
        assert (cur.rowcount, rows(side)) == (0, [])


async def test_names(ours, cursor, side):
    command(
        side,
        'CREATE SCHEMA "of Ä"; CREATE TABLE "of Ä"."a ""table""" '
        '("i i" int, d text DEFAULT \'default\', g int GENERATED ALWAYS AS ("i i" * 2) STORED,'
        ' gone int); ALTER TABLE "of Ä"."a ""table""" DROP gone',
    )
    cur = await cursor()
    table = 'a "table"'
    await cur.copy_records(table, [(1, "x")], schema_name="of Ä")
    await cur.copy_records(table, [(2,)], iter(["i i"]), schema_name="of Ä")
    await cur.copy_records(table, [("y", 3)], ("d", "i i"), schema_name="of Ä")
    with side.cursor() as looking:
        looking.execute('SELECT * FROM "of Ä"."a ""table"""')
        assert looking.fetchall() == [(1, "x", 2), (2, "default", 4), (3, "y", 6)]
    command(side, 'DROP SCHEMA "of Ä" CASCADE')


async def test_types_are_looked_up_each_time(ours, cursor, side, fill):
    cur = await cursor()
    for type_ in ("int", "text", "bigint", "numeric"):
        fill(f"v {type_}")
        await cur.copy_records("filled", [(5,)])
        assert rows(side, "v::text") == [("5",)]


async def test_in_a_transaction(ours, cursor, side, fill):
    fill("i int")
    cur = await cursor()
    async with cur.begin():
        await cur.copy_records("filled", [(1,)])
        assert rows(side) == []
    assert rows(side) == [(1,)]


async def test_client_encoding(ours, cursor, side, fill):
    fill("t text, x xml")
    cur = await cursor(client_encoding="latin1")
    await cur.copy_records("filled", [("é",)], ["t"])
    await cur.copy_records("filled", [("é", "<é/>")])
    assert rows(side, "t") == [("é",), ("é",)]
    for columns in (["t"], ["t", "x"]):
        with pytest.raises(psycopg2.DataError, match=r"^record 1.*latin-1"):
            await cur.copy_records("filled", [("€", None)[: len(columns)]], columns)


async def test_progress(ours, cursor, side, fill):
    fill("i int, t text")
    cur = await cursor()
    for records in (((n, 100 * "x") for n in range(5000)), count_up(20_000)):
        seen = []
        await cur.copy_records("filled", records, progress=lambda *now, to=seen: to.append(now))
        assert seen[-1][0] == cur.rowcount
        assert len(seen) > 3
        assert seen == sorted(set(seen))


# --- what goes wrong ------------------------------------------------------------------------------

GOOD = (1, "x", 2.5)
WRONG = {
    "too few": ((1, "x"), "record 3: 2 values for 3 columns"),
    "too many": ((*GOOD, 4), "record 3: 4 values for 3 columns"),
    "no sequence": (5, "record 3: a sequence of values is wanted, not int"),
    "str": ("1x2", "record 3: a sequence of values is wanted, not str"),
    "dict": ({1: 1, 2: 2, 3: 3}, "record 3: a sequence of values is wanted, not dict"),
    "type": (
        (1, "x", "2.5"),
        "record 3, column \"price\": '2.5' (str) is not encoded as double precision",
    ),
    "range": ((2**31, "x", 2.5), 'record 3, column "i i": integer out of range: 2147483648'),
    "NUL": (
        (1, "\0", 2.5),
        'record 3, column "t": A string literal cannot contain NUL (0x00) characters.',
    ),
    "surrogate": ((1, "\udc80", 2.5), "record 3, column \"t\": 'utf-8' codec can't encode"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("in_async", [False, True])
async def test_wrong_records(ours, cursor, side, fill, wrong, in_async):
    fill('"i i" int, t text, price float8')
    record, text = WRONG[wrong]
    cur = await cursor()

    async def records():
        for item in (GOOD, GOOD, record):
            yield item

    with pytest.raises(psycopg2.DataError) as info:
        await cur.copy_records("filled", records() if in_async else [GOOD, GOOD, record])
    assert str(info.value).startswith(text)
    assert cur.rowcount == -1
    assert rows(side) == []
    await cur.execute("SELECT 1")


async def test_late_wrong_record(ours, cursor, side, fill):
    fill("i int, t text")
    cur = await cursor()
    records = [*((n, 1000 * "x") for n in range(5000)), (None, None, None)]
    with pytest.raises(psycopg2.DataError, match=r"^record 5001: 3 values for 2 columns$"):
        await cur.copy_records("filled", records)
    assert rows(side) == []


async def test_no_adapter(ours, cursor, side, fill):
    fill("i int, x xml")
    cur = await cursor()
    for columns in (["i"], ["i", "x"]):
        with pytest.raises(psycopg2.ProgrammingError) as info:
            await cur.copy_records("filled", [(object(), None)[: len(columns)]], columns)
        assert str(info.value) == "record 1, column \"i\": can't adapt type 'object'"


class Broken(Exception):
    pass


@pytest.mark.all_loops
@pytest.mark.parametrize("after", [0, 1, 5000])
@pytest.mark.parametrize("in_async", [False, True])
async def test_exception_of_the_iterable(ours, cursor, side, fill, after, in_async):
    fill("i int, t text")

    def records():
        for number in range(after):
            yield number, 1000 * "x"
        raise Broken("of the program")

    async def async_records():
        for record in records():
            yield record

    cur = await cursor()
    with pytest.raises(Broken) as info:
        await cur.copy_records("filled", async_records() if in_async else records())
    assert info.value.__context__ is None
    assert cur.rowcount == -1
    assert rows(side) == []
    await cur.copy_records("filled", [(1, "x")])
    assert rows(side) == [(1, "x")]


async def test_exception_of_progress(ours, cursor, side, fill):
    fill("i int")

    def progress(records, size):
        raise Broken

    cur = await cursor()
    with pytest.raises(Broken):
        await cur.copy_records("filled", [(1,)], progress=progress)
    assert rows(side) == []
    await cur.execute("SELECT 1")


async def test_error_of_the_server(ours, cursor, side, fill):
    fill("i int PRIMARY KEY")
    cur = await cursor()
    with pytest.raises(psycopg2.errors.UniqueViolation) as info:
        await cur.copy_records("filled", [(1,), (2,), (1,)])
    assert info.value.diag.context == "COPY filled, line 3"
    assert rows(side) == []


async def test_names_that_are_not_there(ours, cursor, fill):
    fill("i int")
    cur = await cursor()
    with pytest.raises(psycopg2.errors.UndefinedTable, match='relation "no" does not exist'):
        await cur.copy_records("no", [(1,)])
    with pytest.raises(psycopg2.errors.UndefinedColumn, match='column "no" of relation "filled"'):
        await cur.copy_records("filled", [(1,)], ["no"])


async def test_wrong_arguments(ours, cursor, fill):
    fill("i int")
    cur = await cursor()
    with pytest.raises(
        TypeError, match="records must be an iterable or asynchronous iterable, not"
    ):
        await cur.copy_records("filled", 5)
    with pytest.raises(TypeError, match="columns must be a sequence of names, not 'i'"):
        await cur.copy_records("filled", [], "i")
    with pytest.raises(TypeError, match="the name of the table must be a str, not 5"):
        await cur.copy_records(5, [])
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None, not '1'"):
        await cur.copy_records("filled", [], timeout="1")
    cur.close()
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        await cur.copy_records("filled", [(1,)])


async def test_timeout(ours, cursor, side, fill):
    fill("i int")

    async def slow():
        yield (1,)
        yield (2,)
        await asyncio.sleep(60)

    cur = await cursor()
    with pytest.raises(asyncio.TimeoutError):
        await cur.copy_records("filled", slow(), timeout=0.2)
    assert cur.connection.closed
    assert rows(side) == []
