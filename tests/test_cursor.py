"""Cursor: execute in all its forms, results, attributes."""

import asyncio
import collections
import datetime
import logging

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2 import sql
from support import fetch, underway

NO_RESULTS = "no results to fetch"
CURSOR_CLOSED = "cursor already closed"
WAITING = "{}() called while another coroutine is already waiting for incoming data"


@pytest.fixture
def cursor(connect, runner):
    """``await cursor(**kw)`` -> a cursor on a connection of its own."""

    async def make(**kwargs):
        conn = await connect()
        return await conn.cursor(**kwargs)

    return make


async def numbers(make, count):
    cur = await make()
    await cur.execute("SELECT generate_series(0, %s)", (count - 1,))
    return cur


# --- execute: what may be given -------------------------------------------------------------------

ACCEPTED = [
    ("SELECT 1", None, (1,), b"SELECT 1"),
    (b"SELECT 1", None, (1,), b"SELECT 1"),
    (b"SELECT %s", (1,), (1,), b"SELECT 1"),
    (sql.SQL("SELECT 1"), None, (1,), b"SELECT 1"),
    (sql.SQL("SELECT {}").format(sql.Literal("x")), None, ("x",), b"SELECT 'x'"),
    (sql.SQL("SELECT {}").format(sql.Placeholder()), [2], (2,), b"SELECT 2"),
    ("SELECT %s", (1,), (1,), b"SELECT 1"),
    ("SELECT %s", [1], (1,), b"SELECT 1"),
    ("SELECT 1", (1, 2, 3), (1,), b"SELECT 1"),
    ("SELECT %s", "x", ("x",), b"SELECT 'x'"),
    ("SELECT %s", range(1), (0,), b"SELECT 0"),
    ("SELECT %s", ("é",), ("é",), "SELECT 'é'".encode()),
    ("SELECT %(a)s, %(b)s, %(a)s", {"a": 1, "b": 2}, (1, 2, 1), b"SELECT 1, 2, 1"),
    ("SELECT %(a)s", {"a": 1, "unused": object()}, (1,), b"SELECT 1"),
    ("SELECT %(a b)s", {"a b": 1}, (1,), b"SELECT 1"),
    ("SELECT '%'", None, ("%",), b"SELECT '%'"),
    ("SELECT '%%'", None, ("%%",), b"SELECT '%%'"),
    ("SELECT '%%'", (), ("%",), b"SELECT '%'"),
    ("SELECT '%%'", [], ("%",), b"SELECT '%'"),
    ("SELECT '%%'", {}, ("%",), b"SELECT '%'"),
    ("SELECT '%%', %s", (1,), ("%", 1), b"SELECT '%', 1"),
    ("SELECT '%s'", (1,), ("1",), b"SELECT '1'"),
    ("SELECT %s", (None,), (None,), b"SELECT NULL"),
    ("SELECT 1 WHERE 3 IN %s", ((1, 2, 3),), (1,), b"SELECT 1 WHERE 3 IN (1, 2, 3)"),
    ("SELECT %s", ([1, 2],), ([1, 2],), b"SELECT ARRAY[1,2]"),
    ("SELECT 1 -- %s %(x)s", None, (1,), b"SELECT 1 -- %s %(x)s"),
]


@pytest.mark.parametrize(("operation", "parameters", "row", "query"), ACCEPTED)
async def test_execute(cursor, operation, parameters, row, query):
    cur = await cursor()
    assert await cur.execute(operation, parameters) is None
    assert cur.query == query
    assert await cur.fetchall() == [row]


async def test_execute_by_keyword(cursor):
    cur = await cursor()
    await cur.execute(operation="SELECT %s", parameters=(1,), timeout=5)
    assert await cur.fetchone() == (1,)


class OwnList(list):
    pass


class OwnSequence:
    def __getitem__(self, index):
        return (7,)[index]

    def __len__(self):
        return 1


class OwnMapping(collections.UserDict):
    pass


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("SELECT %s", OwnList([7])),
        ("SELECT %s", OwnSequence()),
        ("SELECT %(a)s", OwnMapping(a=7)),
        ("SELECT %(a)s", collections.defaultdict(lambda: 7)),
    ],
)
async def test_parameters_of_other_types(cursor, operation, parameters):
    cur = await cursor()
    await cur.execute(operation, parameters)
    assert await cur.fetchall() == [(7,)]


# --- execute: what is refused ---------------------------------------------------------------------

BAD_FORMAT = "unsupported format character '{}' (0x{:x}) at index {}"
REFUSED = [
    ("", None, psycopg2.ProgrammingError, "can't execute an empty query"),
    (" ; ", None, psycopg2.ProgrammingError, "can't execute an empty query"),
    ("-- nothing", None, psycopg2.ProgrammingError, "can't execute an empty query"),
    (None, None, psycopg2.ProgrammingError, "can't execute an empty query"),
    (b"", None, psycopg2.ProgrammingError, "can't execute an empty query"),
    (5, None, TypeError, "argument 1 must be a string or unicode object: got int instead"),
    ("SELECT %s", None, psycopg2.errors.SyntaxError, 'syntax error at or near "%"'),
    ("SELECT %s", (), IndexError, "tuple index out of range"),
    ("SELECT %s", [], IndexError, "list index out of range"),
    ("SELECT %s", {}, TypeError, "dict is not a sequence"),
    ("SELECT %s", (1, 2), TypeError, "not all arguments converted during string formatting"),
    ("SELECT %s", "xy", TypeError, "not all arguments converted during string formatting"),
    ("SELECT %s, %s", (1,), IndexError, "tuple index out of range"),
    ("SELECT %s", 5, TypeError, "'int' object does not support indexing"),
    ("SELECT %s", {1}, TypeError, "'set' object does not support indexing"),
    ("SELECT %(a)s", {}, KeyError, "'a'"),
    ("SELECT %(a)s", (1,), TypeError, "tuple indices must be integers or slices, not str"),
    ("SELECT %s %(a)s", {"a": 1}, TypeError, "dict is not a sequence"),
    ("SELECT %(a)s %s", {"a": 1}, psycopg2.ProgrammingError, "argument formats can't be mixed"),
    ("SELECT %(a", {"a": 1}, psycopg2.ProgrammingError, "incomplete placeholder: '%(' without ')'"),
    ("SELECT %", (1,), ValueError, "incomplete format"),
    ("SELECT '%'", (1,), ValueError, BAD_FORMAT.format("'", 0x27, 9)),
    ("SELECT %d", (1,), ValueError, BAD_FORMAT.format("d", 0x64, 8)),
    ("SELECT %(a)d", {"a": 1}, ValueError, BAD_FORMAT.format("d", 0x64, 11)),
    ("SELECT %s", (object(),), psycopg2.ProgrammingError, "can't adapt type 'object'"),
    ("SELECT %s", ([object()],), psycopg2.ProgrammingError, "can't adapt type 'object'"),
    ("SELECT '\udc80'", None, UnicodeEncodeError, "'utf-8' codec can't encode"),
    ("SELECT %s", ("\udc80",), UnicodeEncodeError, "'utf-8' codec can't encode"),
]


@pytest.mark.parametrize(("operation", "parameters", "error", "text"), REFUSED)
async def test_execute_refuses(cursor, operation, parameters, error, text):
    cur = await cursor()
    with pytest.raises(error) as info:
        await cur.execute(operation, parameters)
    assert type(info.value) is error
    assert str(info.value).startswith(text)
    await cur.execute("SELECT 1")
    assert await cur.fetchone() == (1,)


NUL = [
    ("SELECT 1; -- \0", None),
    (b"SELECT 1; -- \0", None),
    ("CREATE TABLE nul (); \0 rubbish", None),
    (sql.SQL("SELECT 1 \0"), None),
    ("SELECT %s -- \0", (1,)),
    ("SELECT %s", ("a\0b",)),
    ("SELECT %(a)s", {"a": "a\0b"}),
    ("SELECT %s", (["a\0b"],)),
]


@pytest.mark.parametrize(("operation", "parameters"), NUL)
async def test_nul_is_refused_before_anything_is_sent(ours, cursor, side, operation, parameters):
    cur = await cursor()
    with pytest.raises(ValueError, match="NUL"):
        await cur.execute(operation, parameters)
    with side.cursor() as look:
        look.execute("SELECT to_regclass('nul')")
        assert look.fetchone() == (None,)
    await cur.execute("SELECT 1")
    assert await cur.fetchone() == (1,)


async def test_nul_in_bytes_is_data(cursor):
    cur = await cursor()
    await cur.execute("SELECT %s", (b"a\0b",))
    ((value,),) = await cur.fetchall()
    assert bytes(value) == b"a\0b"


async def test_nul_in_mogrify_and_callproc(ours, cursor):
    cur = await cursor()
    with pytest.raises(ValueError, match="NUL"):
        cur.mogrify("SELECT %s", ("a\0b",))
    with pytest.raises(ValueError, match="NUL"):
        await cur.callproc("lower", ["a\0b"])
    await cur.execute("SELECT 1")


# --- several statements in one string -------------------------------------------------------------


async def test_last_result_wins(cursor):
    cur = await cursor()
    await cur.execute("SELECT 1; SELECT 2, 3")
    assert await cur.fetchall() == [(2, 3)]
    assert len(cur.description) == 2


async def test_last_statement_without_rows(cursor):
    cur = await cursor()
    await cur.execute("SELECT 1; SET datestyle TO iso")
    assert cur.statusmessage == "SET"
    assert cur.description is None
    with pytest.raises(psycopg2.ProgrammingError, match=NO_RESULTS):
        await cur.fetchall()


async def test_first_error_wins(cursor):
    cur = await cursor()
    for statements in ("SELECT 1/0; SELECT nowhere", "SELECT 1; SELECT 1/0; SELECT 2"):
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await cur.execute(statements)
    await cur.execute("SELECT 1")
    assert await cur.fetchone() == (1,)


async def test_statements_in_one_string_are_one_transaction(cursor, side):
    cur = await cursor()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await cur.execute("CREATE TABLE half_done (); SELECT 1/0")
    with side.cursor() as look:
        look.execute("SELECT to_regclass('half_done')")
        assert look.fetchone() == (None,)


# --- attributes of a result -----------------------------------------------------------------------


async def test_fresh_cursor(cursor):
    cur = await cursor()
    assert cur.description is None
    assert cur.rowcount == -1
    assert cur.rownumber == 0
    assert cur.lastrowid == 0
    assert cur.query is None
    assert cur.statusmessage is None
    assert cur.arraysize == 1
    assert cur.itersize == 2000
    assert cur.name is None
    assert cur.scrollable is None
    assert cur.withhold is False
    assert cur.closed is False
    assert cur.echo is False
    assert cur.timeout == 60.0
    assert cur.tzinfo_factory is datetime.timezone


async def test_description(cursor, side):
    query = """SELECT 1 AS i, 'x'::varchar(7) AS v, 1.5::numeric(10, 3) AS n, now() AS t,
                      'a'::text AS "odd name", 'b'::bpchar AS c, 2.5::numeric, ARRAY[1] AS a"""
    cur = await cursor()
    await cur.execute(query)
    with side.cursor() as model:
        model.execute(query)
        assert cur.description == model.description
    for column in cur.description:
        assert type(column) is psycopg2.extensions.Column
    number = cur.description[2]
    assert number.name == "n"
    assert number.type_code == 1700
    assert number.display_size is None
    assert number.internal_size == 10
    assert number.precision == 10
    assert number.scale == 3
    assert number.null_ok is None
    assert number.type_code == psycopg2.NUMBER
    assert (cur.description[0].table_oid, cur.description[0].table_column) == (None, None)


async def test_description_names_the_table(cursor):
    cur = await cursor()
    await cur.execute("CREATE TEMP TABLE origin (a int, b text)")
    await cur.execute("SELECT 'origin'::regclass::oid")
    ((oid,),) = await cur.fetchall()
    await cur.execute("SELECT b, a FROM origin")
    assert [(c.table_oid, c.table_column) for c in cur.description] == [(oid, 2), (oid, 1)]


async def test_no_columns(cursor):
    cur = await cursor()
    await cur.execute("SELECT FROM generate_series(1, 3)")
    assert cur.rowcount == 3


@pytest.mark.parametrize(
    ("statement", "rowcount", "status"),
    [
        ("SELECT generate_series(1, 5)", 5, "SELECT 5"),
        ("SELECT 1 WHERE false", 0, "SELECT 0"),
        ("INSERT INTO counted VALUES (1), (2) RETURNING i", 2, "INSERT 0 2"),
        ("UPDATE counted SET i = i + 10 RETURNING i", 2, "UPDATE 2"),
        ("DELETE FROM counted WHERE i < 0 RETURNING i", 0, "DELETE 0"),
        ("INSERT INTO counted VALUES (3)", None, "INSERT 0 1"),
        ("UPDATE counted SET i = i + 10", None, "UPDATE 3"),
        ("DELETE FROM counted", None, "DELETE 3"),
        ("SET datestyle TO iso", None, "SET"),
        ("BEGIN", None, "BEGIN"),
        ("VALUES (1), (2)", 2, "SELECT 2"),
        ("EXPLAIN SELECT 1", 1, "EXPLAIN"),
        ("SHOW server_version", 1, "SHOW"),
        ("COMMIT", None, "COMMIT"),
    ],
)
async def test_rowcount_and_statusmessage(cursor, dsn, statement, rowcount, status):
    """Where nothing is returned, psycopg2 itself says what rowcount is."""
    cur = await cursor()
    setup = "CREATE TEMP TABLE counted (i int)"
    if statement.split()[0] in ("UPDATE", "DELETE"):
        setup += "; INSERT INTO counted VALUES (1), (2), (3)"
        rowcount = 3 if rowcount == 2 else rowcount
        status = status.replace("2", "3")
    await cur.execute(setup)
    await cur.execute(statement)
    assert cur.statusmessage == status
    assert cur.rowcount == cur.raw.rowcount
    if rowcount is not None:
        assert cur.rowcount == rowcount


async def test_rownumber(cursor):
    cur = await numbers(cursor, 5)
    assert cur.rownumber == 0
    await cur.fetchone()
    assert cur.rownumber == 1
    await cur.fetchmany(2)
    assert cur.rownumber == 3
    await cur.fetchall()
    assert cur.rownumber == 5
    await cur.fetchone()
    assert cur.rownumber == 5


async def test_a_failure_forgets_the_last_result(cursor):
    cur = await numbers(cursor, 3)
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await cur.execute("SELECT 1/0")
    assert cur.query == b"SELECT 1/0"
    assert cur.rowcount == -1
    assert cur.description is None
    with pytest.raises(psycopg2.ProgrammingError, match=NO_RESULTS):
        await cur.fetchone()


async def test_attributes_are_read_only(cursor):
    cur = await cursor()
    for name in (
        *("description", "rowcount", "rownumber", "lastrowid", "query", "statusmessage", "name"),
        *("closed", "raw", "connection", "echo", "timeout"),
    ):
        with pytest.raises(AttributeError):
            setattr(cur, name, 1)


async def test_attributes_that_may_be_set(cursor):
    cur = await cursor()
    cur.arraysize = 7
    cur.itersize = 8
    cur.tzinfo_factory = None
    assert (cur.arraysize, cur.itersize, cur.tzinfo_factory) == (7, 8, None)
    assert (cur.raw.arraysize, cur.raw.itersize) == (7, 8)
    cur.scrollable = None
    cur.withhold = False
    for name in "scrollable", "withhold":
        with pytest.raises(psycopg2.ProgrammingError) as info:
            setattr(cur, name, True)
        assert str(info.value) == f"trying to set .{name} on unnamed cursor"
    with pytest.raises(TypeError):
        cur.arraysize = "many"


async def test_tzinfo_factory(cursor):
    class Zone(datetime.tzinfo):
        def __init__(self, offset):
            self.offset = offset

        def utcoffset(self, when):
            return self.offset

    cur = await cursor()
    cur.tzinfo_factory = Zone
    await cur.execute("SELECT '2020-01-01 00:00+02'::timestamptz")
    ((value,),) = await cur.fetchall()
    assert type(value.tzinfo) is Zone
    cur.tzinfo_factory = None
    await cur.execute("SELECT '2020-01-01 00:00+00'::timestamptz")
    ((value,),) = await cur.fetchall()
    assert value.tzinfo is None


# --- fetching -------------------------------------------------------------------------------------


async def test_fetchone(cursor):
    cur = await numbers(cursor, 2)
    assert await cur.fetchone() == (0,)
    assert await cur.fetchone() == (1,)
    assert await cur.fetchone() is None
    assert await cur.fetchone() is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (1, 1), (3, 3), (5, 5), (6, 5), (10**6, 5), (-1, 5), (None, 1)],
)
async def test_fetchmany(cursor, size, expected):
    cur = await numbers(cursor, 5)
    assert await cur.fetchmany(size) == [(n,) for n in range(expected)]
    assert await cur.fetchall() == [(n,) for n in range(expected, 5)]


async def test_fetchmany_by_arraysize(cursor):
    cur = await numbers(cursor, 5)
    assert await cur.fetchmany() == [(0,)]
    cur.arraysize = 3
    assert await cur.fetchmany() == [(1,), (2,), (3,)]
    assert await cur.fetchmany(size=3) == [(4,)]
    assert await cur.fetchmany() == []


async def test_fetchall(cursor):
    cur = await numbers(cursor, 3)
    await cur.fetchone()
    assert await cur.fetchall() == [(1,), (2,)]
    assert await cur.fetchall() == []


@pytest.mark.parametrize("name", ["fetchone", "fetchmany", "fetchall"])
async def test_fetch_without_a_result(cursor, name):
    cur = await cursor()
    fetch_method = getattr(cur, name)
    for statement in (None, "SET datestyle TO iso", "CREATE TEMP TABLE x ()"):
        if statement:
            await cur.execute(statement)
        with pytest.raises(psycopg2.ProgrammingError) as info:
            await fetch_method()
        assert str(info.value) == NO_RESULTS
    await cur.execute("SELECT 1")
    cur.close()
    with pytest.raises(psycopg2.InterfaceError) as info:
        await fetch_method()
    assert str(info.value) == CURSOR_CLOSED


@pytest.mark.parametrize(
    ("steps", "position"),
    [
        ([(1, "relative")], 3),
        ([(-1, "relative")], 1),
        ([(-2, "relative")], 0),
        ([(0, "absolute")], 0),
        ([(4, "absolute")], 4),
        ([(4, "absolute"), (-1, "relative")], 3),
    ],
)
async def test_scroll(cursor, steps, position):
    cur = await numbers(cursor, 5)
    await cur.fetchmany(2)
    for value, mode in steps:
        assert await cur.scroll(value, mode) is None
    assert cur.rownumber == position
    assert await cur.fetchone() == (position,)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((-3,), psycopg2.ProgrammingError, "scroll destination out of bounds"),
        ((3,), psycopg2.ProgrammingError, "scroll destination out of bounds"),
        ((5, "absolute"), psycopg2.ProgrammingError, "scroll destination out of bounds"),
        ((-1, "absolute"), psycopg2.ProgrammingError, "scroll destination out of bounds"),
        ((1, "up"), psycopg2.ProgrammingError, "scroll mode must be 'relative' or 'absolute'"),
        (("one",), TypeError, "'str' object cannot be interpreted as an integer"),
    ],
)
async def test_scroll_refuses(cursor, arguments, error, text):
    cur = await numbers(cursor, 5)
    await cur.fetchmany(2)
    with pytest.raises(error) as info:
        await cur.scroll(*arguments)
    assert str(info.value) == text
    assert await cur.fetchone() == (2,)


async def test_scroll_without_a_result(cursor):
    cur = await cursor()
    with pytest.raises(psycopg2.ProgrammingError):
        await cur.scroll(1)


async def test_async_for(cursor):
    cur = await numbers(cursor, 4)
    assert [row async for row in cur] == [(0,), (1,), (2,), (3,)]
    assert [row async for row in cur] == []


async def test_async_for_goes_on_after_break(cursor):
    cur = await numbers(cursor, 4)
    async for row in cur:
        if row == (1,):
            break
    assert await cur.fetchone() == (2,)
    assert [row async for row in cur] == [(3,)]


async def test_async_for_without_a_result(cursor):
    cur = await cursor()
    with pytest.raises(psycopg2.ProgrammingError, match=NO_RESULTS):
        async for _ in cur:
            pass


async def test_async_for_uses_an_overridden_fetchone(impl, connect):
    """Tracers replace fetchone; iteration shows what it returns."""
    conn = await connect()

    class Doubling(impl.Cursor):
        async def fetchone(self):
            row = await super().fetchone()
            return row and row * 2

    cur = Doubling(conn, conn.raw.cursor(), 10, False)
    await cur.execute("SELECT generate_series(1, 2)")
    assert [row async for row in cur] == [(1, 1), (2, 2)]


async def test_rows_are_fresh_objects(cursor):
    cur = await cursor()
    await cur.execute("SELECT ARRAY[1], ARRAY[1] UNION ALL SELECT ARRAY[1], ARRAY[1]")
    rows = await cur.fetchall()
    rows[0][0].append(2)
    assert rows == [([1, 2], [1]), ([1], [1])]


# --- callproc, mogrify, the odd methods -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "query", "rows"),
    [
        (("abs", [-5]), b"SELECT * FROM abs( -5)", [(5,)]),
        (("abs", (-5,)), b"SELECT * FROM abs( -5)", [(5,)]),
        (("ascii", ["É"]), "SELECT * FROM ascii('É')".encode(), [(201,)]),
        (("pg_client_encoding",), b"SELECT * FROM pg_client_encoding()", [("UTF8",)]),
        (("pg_client_encoding", []), b"SELECT * FROM pg_client_encoding()", [("UTF8",)]),
        (("generate_series", [1, 3]), b"SELECT * FROM generate_series(1,3)", [(1,), (2,), (3,)]),
        (
            ("make_interval", {"days": 3}),
            b'SELECT * FROM make_interval("days":=3)',
            [(datetime.timedelta(3),)],
        ),
    ],
)
async def test_callproc(cursor, arguments, query, rows):
    cur = await cursor()
    assert await cur.callproc(*arguments) is None
    assert cur.query == query
    assert await cur.fetchall() == rows


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("no_such_function", [1]), psycopg2.errors.UndefinedFunction),
        (("abs", {"wrong": 1}), psycopg2.errors.UndefinedFunction),
        (("abs", 5), TypeError),
        (("abs", [object()]), psycopg2.ProgrammingError),
    ],
)
async def test_callproc_refuses(cursor, arguments, error):
    cur = await cursor()
    with pytest.raises(error):
        await cur.callproc(*arguments)
    await cur.callproc("abs", [-1])
    assert await cur.fetchone() == (1,)


async def test_callproc_by_keyword(cursor):
    cur = await cursor()
    await cur.callproc(procname="abs", parameters=[-2], timeout=5)
    assert await cur.fetchone() == (2,)


async def test_mogrify(cursor):
    cur = await cursor()
    assert cur.mogrify("SELECT %s, %s", (1, "it's é")) == "SELECT 1, 'it''s é'".encode()
    assert cur.mogrify("SELECT %(a)s", {"a": None}) == b"SELECT NULL"
    assert cur.mogrify("SELECT '%%'") == b"SELECT '%%'"
    assert cur.mogrify(operation="SELECT %s", parameters=[1.5]) == b"SELECT 1.5"
    assert cur.mogrify(sql.SQL("SELECT {}").format(sql.Identifier('a"b'))) == b'SELECT "a""b"'
    assert cur.query is None
    with pytest.raises(TypeError, match="not all arguments converted"):
        cur.mogrify("SELECT %s", (1, 2))


async def test_mogrify_while_executing(ours, connect):
    """aiopg fails an assertion here."""
    conn = await connect()
    async with conn.cursor() as cur:
        task = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
        assert cur.mogrify("SELECT %s", (1,)) == b"SELECT 1"
        await task


async def test_setinputsizes_and_setoutputsize(cursor):
    cur = await cursor()
    assert await cur.setinputsizes(10) is None
    assert await cur.setoutputsize(10, 1) is None


async def test_nextset(cursor):
    cur = await cursor()
    with pytest.raises(psycopg2.NotSupportedError) as info:
        await cur.nextset()
    assert str(info.value) == "not supported by PostgreSQL"


COPY = [
    ("COPY (SELECT 1) TO STDOUT", "can't execute COPY TO: use the copy_to() method instead"),
    ("COPY copied FROM STDIN", "can't execute COPY FROM: use the copy_from() method instead"),
]


@pytest.mark.parametrize(("statement", "text"), COPY)
async def test_copy_statement_in_execute(cursor, statement, text):
    cur = await cursor()
    await cur.execute("CREATE TEMP TABLE copied (i int)")
    with pytest.raises(psycopg2.ProgrammingError) as info:
        await cur.execute(statement)
    assert str(info.value) == text


@pytest.mark.parametrize(("statement", "text"), COPY)
async def test_connection_after_copy_in_execute(ours, cursor, statement, text):
    """Usable, or honestly closed where psycopg2 leaves the COPY unfinished; aiopg's is stuck."""
    cur = await cursor()
    await cur.execute("CREATE TEMP TABLE copied (i int)")
    with pytest.raises(psycopg2.ProgrammingError):
        await cur.execute(statement)
    if ours.capabilities().native:
        await cur.execute("SELECT count(*) FROM copied")
        assert await cur.fetchone() == (0,)
    else:
        assert cur.connection.closed


# --- close, laziness, two at a time ---------------------------------------------------------------


async def test_close(impl, cursor):
    cur = await cursor()
    assert repr(cur) == f"<{type(cur).__module__}::Cursor name=None, closed=False>"
    assert cur.close() is None
    assert cur.closed is True
    assert repr(cur) == f"<{type(cur).__module__}::Cursor name=None, closed=True>"
    cur.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda cur: cur.execute("SELECT 1"),
        lambda cur: cur.callproc("abs", [1]),
        lambda cur: cur.scroll(1),
        lambda cur: anext(cur),
    ],
    ids=["execute", "callproc", "scroll", "anext"],
)
async def test_closed_cursor(cursor, call):
    cur = await cursor()
    cur.close()
    with pytest.raises(psycopg2.InterfaceError) as info:
        await call(cur)
    assert str(info.value) == CURSOR_CLOSED


async def test_closed_cursor_says_so_before_its_arguments(cursor):
    cur = await cursor()
    cur.close()
    assert cur.mogrify("SELECT 1") == b"SELECT 1"
    with pytest.raises(psycopg2.InterfaceError):
        await cur.execute("SELECT %s", (1, 2))


async def test_execute_on_a_closed_connection(connect):
    conn = await connect()
    cur = await conn.cursor()
    await conn.close()
    with pytest.raises(psycopg2.InterfaceError) as info:
        await cur.execute("SELECT 1")
    assert str(info.value) in ("connection already closed", CURSOR_CLOSED)


@pytest.mark.parametrize("what", ["cursor", "connection"])
async def test_execute_is_lazy(connect, what):
    conn = await connect()
    cur = await conn.cursor()
    pending = cur.execute("CREATE TABLE too_early ()")
    assert asyncio.iscoroutine(pending)
    assert not conn.isexecuting()
    (cur if what == "cursor" else conn).close()
    with pytest.raises(psycopg2.InterfaceError):
        await pending


async def test_result_survives_the_connection(connect):
    conn = await connect()
    cur = await conn.cursor()
    await cur.execute("SELECT 1")
    await conn.close()
    assert cur.rowcount == 1
    with pytest.raises(psycopg2.InterfaceError):
        await cur.fetchall()


@pytest.mark.all_loops
async def test_second_execute_is_refused_and_the_first_goes_on(connect):
    conn = await connect()
    cur = await conn.cursor()
    first = await underway(conn, fetch(conn, "SELECT 'done', pg_sleep(0.1)"))
    with pytest.raises(RuntimeError) as info:
        await cur.execute("SELECT 2")
    assert str(info.value) == WAITING.format("cursor.execute")
    with pytest.raises(RuntimeError) as info:
        await cur.callproc("abs", [1])
    assert str(info.value) == WAITING.format("cursor.callproc")
    assert await first == [("done", "")]
    await cur.execute("SELECT 3")
    assert await cur.fetchone() == (3,)


async def test_fetch_while_another_executes(ours, connect):
    """aiopg loses the row and fails an assertion here."""
    conn = await connect()
    async with conn.cursor() as cur:
        await cur.execute("SELECT generate_series(1, 3)")
        task = await underway(conn, fetch(conn, "SELECT pg_sleep(0.05)"))
        assert await cur.fetchone() == (1,)
        await task
        assert await cur.fetchall() == [(2,), (3,)]


async def test_failure_then_the_next(cursor):
    cur = await cursor()
    for _ in range(3):
        with pytest.raises(psycopg2.errors.UndefinedTable):
            await cur.execute("SELECT * FROM nowhere")
        with pytest.raises(IndexError):
            await cur.execute("SELECT %s", ())
        await cur.execute("SELECT 1")
        assert await cur.fetchone() == (1,)


async def test_cursor_context_closes_after_an_error(connect):
    conn = await connect()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        async with conn.cursor() as cur:
            await cur.execute("SELECT 1/0")
    assert cur.closed


async def test_cursor_timeout_of_its_own(cursor):
    cur = await cursor(timeout=0.05)
    with pytest.raises(asyncio.TimeoutError):
        await cur.execute("SELECT pg_sleep(5)")
    assert cur.closed
    assert cur.connection.closed


async def test_echo_of_parameters(cursor, caplog):
    cur = await cursor()
    cur._echo = True
    with caplog.at_level(logging.INFO, logger="aiopg"):
        await cur.execute("SELECT %(a)s", {"a": 1})
    assert [record.getMessage() for record in caplog.records] == ["SELECT %(a)s", "{'a': 1}"]


async def test_echo_names_the_method(cursor, caplog):
    """For formats with `%(funcName)s`."""
    cur = await cursor()
    cur._echo = True
    with caplog.at_level(logging.INFO, logger="aiopg"):
        await cur.execute("SELECT 1")
        await cur.callproc("abs", [-1])
    assert [record.funcName for record in caplog.records] == ["execute"] * 2 + ["callproc"] * 2
    assert caplog.records[2].getMessage() == "CALL abs"
