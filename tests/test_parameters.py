"""Parameters in the statement: the text sent is the one that psycopg2 makes."""

import collections
import contextlib
import datetime
import decimal
import enum
import types
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql
from roads import Roads
from support import fetch, new_loop, shut_down, underway


def run(road, operation, parameters):
    """The outcome on one road."""
    return road.execute(operation, parameters, psycopg2.extensions.cursor, lambda cursor: None)


@pytest.fixture
def check(roads):
    """check(operation, parameters) -> psycopg2's outcome; the connections must stay usable."""
    yield roads.same_text
    assert roads.same("SELECT %s", (1,)).rows == [(1,)]


class Number(int):
    pass


class Text(str):
    pass


class Loud(str):
    def __str__(self):
        return "loud"

    def encode(self, *args):
        return b"encoded"


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


@settings(suppress_health_check=list(HealthCheck))
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
        task = await underway(conn, cursor.execute("SELECT %s, pg_sleep(0.02)", parameters))
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


# --- the parameters as a whole --------------------------------------------------------------------


class Indexed:
    """The least of a sequence."""

    def __init__(self, *values):
        self.values = values

    def __getitem__(self, index):
        return self.values[index]

    def __len__(self):
        return len(self.values)


class Unsized:
    def __getitem__(self, index):
        return index


class Named:
    """The least of a mapping."""

    def __getitem__(self, name):
        return f"<{name}>"


class Refusing:
    def __init__(self, error):
        self.error = error

    def __getitem__(self, name):
        raise self.error

    def __len__(self):
        return 2


# Not for more placeholders than len() says: psycopg2 would write behind the end of a tuple.
class Missing(dict):
    def __missing__(self, name):
        return name * 2


class Stubborn(dict):
    """Its items are not what it gives."""

    def __getitem__(self, name):
        return "given"


class Crooked(list):
    def __getitem__(self, index):
        return "given"


Pair = collections.namedtuple("Pair", "a b")

WHOLES = {
    "none": lambda: None,
    "empty tuple": lambda: (),
    "empty list": lambda: [],
    "empty dict": lambda: {},
    "empty str": lambda: "",
    "tuple": lambda: (1, "a"),
    "list": lambda: [1, "a"],
    "dict": lambda: {"a": 1, "b": "x"},
    "short": lambda: (1,),
    "long": lambda: (1, 2, 3),
    "long list": lambda: [1, 2, 3],
    "dict with more": lambda: {"a": 1, "b": 2, "c": object()},
    "dict without b": lambda: {"a": 1},
    "dict of numbers": lambda: {0: "x", 1: "y"},
    "dict of bytes": lambda: {b"a": "x", b"b": "y"},
    "namedtuple": lambda: Pair(1, "x"),
    "range": lambda: range(2),
    "str": lambda: "xy",
    "bytes": lambda: b"xy",
    "bytearray": lambda: bytearray(b"xy"),
    "memoryview": lambda: memoryview(b"xy"),
    "deque": lambda: collections.deque([1, 2]),
    "custom sequence": lambda: Indexed(1, "x"),
    "sequence too short": lambda: Indexed(1),
    "sequence without length": lambda: Unsized(),
    "list with its own items": lambda: Crooked([1, 2]),
    "userlist": lambda: collections.UserList([1, 2]),
    "generator": lambda: (i for i in range(2)),
    "iterator": lambda: iter([1, 2]),
    "map": lambda: map(int, "12"),
    "set": lambda: {1},
    "frozenset": lambda: frozenset([1]),
    "dict keys": lambda: {1: 2}.keys(),
    "int": lambda: 5,
    "zero": lambda: 0,
    "false": lambda: False,
    "float": lambda: 1.5,
    "object": lambda: object(),
    "type": lambda: dict,
    "alias": lambda: list[int],
    "ordered dict": lambda: collections.OrderedDict(b="x", a=1),
    "default dict": lambda: collections.defaultdict(lambda: "new", a=1),
    "counter": lambda: collections.Counter("ab"),
    "chain map": lambda: collections.ChainMap({"a": 1}, {"b": "x"}),
    "mapping proxy": lambda: types.MappingProxyType({"a": 1, "b": "x"}),
    "userdict": lambda: collections.UserDict(a=1, b="x"),
    "custom mapping": lambda: Named(),
    "missing": lambda: Missing(a=1, z=2),
    "dict with its own items": lambda: Stubborn(a=1, b=2),
    **{
        f"refusing with {error!r}": lambda error=error: Refusing(error)
        for error in (KeyError("no"), ValueError("no"), IndexError(5), psycopg2.DataError("no"))
    },
    "row of psycopg2": lambda: psycopg2.extras.RealDictRow(a=1, b="x"),
}


@pytest.mark.parametrize("make", WHOLES.values(), ids=WHOLES)
def test_parameters_as_a_whole(check, make):
    for operation in (
        *("SELECT %s, %s", "SELECT %(a)s, %(b)s", "SELECT %(a)s, %(a)s", "SELECT %s"),
        *("SELECT 5", "SELECT 5 %% 3", "SELECT 'x' LIKE '%'", "SELECT '%s'"),
    ):
        check(operation, make)


def test_defaultdict_keeps_what_it_made(roads):
    for road in roads.all:
        parameters = collections.defaultdict(lambda: "new")
        run(road, "SELECT %(a)s", parameters)
        assert parameters == {"a": "new"}


def test_lookups_are_psycopg2s(roads):
    """In number and order, since they may do anything."""
    seen = []

    class Watched:
        def __init__(self, log):
            self.log = log

        def __getitem__(self, name):
            self.log.append(name)
            return name

        def __len__(self):
            self.log.append("len")
            return 3

    for road in roads.all:
        seen.append([])
        run(road, "SELECT %(b)s, %(a)s, %(b)s", Watched(seen[-1]))
        run(road, "SELECT %s, %s, %s", Watched(seen[-1]))
    assert seen[0] == ["b", "a", "b", 0, "len", 1, 2]
    assert seen[1:] == [seen[0]] * len(roads.ours)


# --- the operation --------------------------------------------------------------------------------

TEXTS = [
    *("SELECT %s", "SELECT %(a)s", "%s", "SELECT %s%s", "SELECT %s,%s,%s", "SELECT"),
    *("SELECT '%s'", 'SELECT 1 AS "%s"', "SELECT $$%s$$", "SELECT $tag$ %(a)s $tag$"),
    *("SELECT 1 -- %s", "SELECT 1 /* %s */", "SELECT 1 -- %", "SELECT E'\\'%s'", "SELECT U&'%s'"),
    *("SELECT '%%s', %s", "SELECT %%s", "SELECT %%%s", "SELECT %%", "SELECT 5 %% 3"),
    *("SELECT 5 % 3", "SELECT 5 %", "SELECT 5 %3", "%", "%%", "%%%", "SELECT %%(a)s"),
    *("SELECT %d", "SELECT %i", "SELECT %f", "SELECT %r", "SELECT %a", "SELECT %b", "SELECT %c"),
    *("SELECT % s", "SELECT %5s", "SELECT %-5s|", "SELECT %.1s", "SELECT %+s", "SELECT %#s"),
    *("SELECT %05s", "SELECT %*s", "SELECT %ls", "SELECT %hs", "SELECT %S", "SELECT %é"),
    *("SELECT %\n", "SELECT %(a)", "SELECT %(a)d", "SELECT %(a) s", "SELECT %(a)5s", "SELECT %(a"),
    *("SELECT %(", "SELECT %()s", "SELECT %(a)%", "SELECT %(a%)s", "SELECT %(a(b))s"),
    *("SELECT %(a)s)s", "SELECT %( a )s", "SELECT %(a)s %s", "SELECT %s %(a)s", "SELECT %(a)s %%"),
    *("SELECT %(é)s", "SELECT %(zz)s", "SELECT %(A)s", "SELECT %(a)s, %(b)s, %(a)s", "", " ", ";"),
    *("SELECT 1;SELECT %s", "/* é😀 */ SELECT %s", "nonsense", "SELECT %s::int", "SELECT 1/%s"),
    *("SELECT %(a)s::nonsense", "SELECT -%s", "SELECT 1-%s", "\ufeffSELECT %s", "SELECT\r\n%s"),
]


@pytest.mark.parametrize("operation", TEXTS)
def test_statements(check, operation):
    for parameters in (
        *(None, (), {}, (0,), ["it's"], (-1, None), {"a": "é"}),
        {"a": -5, "b": b"x", "": 1, " a ": 2, "é": True},
    ):
        check(operation, parameters)


def test_the_server_gets_what_mogrify_gives(roads):
    texts = ("it's", "back\\slash", "é😀", "%s", "%(a)s", "%%", 5, -5, 1.5, None, True, b"\0")
    for value in texts:
        for name, parameters in (("%s", (value,)), ("%(a)s", {"a": value})):
            outcome = roads.same_text(f"SELECT current_query(), '%%', {name}", parameters)
            assert outcome.rows[0][0].encode() == outcome.seen[-1][-1]


OPERATIONS = {
    "str": "SELECT 'é', {}",
    "str subclass": Text("SELECT 'é', {}"),
    "loud str": Loud("SELECT 'é', {}"),
    "bytes": "SELECT 'é', {}".encode(),
    "bytes that are not UTF-8": b"SELECT '\xff', {}",
    "bytearray": bytearray(b"SELECT {}"),
    "memoryview": memoryview(b"SELECT {}"),
    "none": None,
    "int": 5,
    "list": ["SELECT {}"],
    "object": lambda: object(),
    "lone surrogate": "SELECT '\ud800', {}",
    "surrogate pair": "SELECT '\ud83d\ude00', {}",
    "astral": "SELECT '😀', {}",
    "adapter": psycopg2.extensions.QuotedString("SELECT {}"),
    "sql": sql.SQL("SELECT 'é', {}"),
}


def filled(operation, placeholder):
    """The operation with a placeholder in place of its {}."""
    if isinstance(operation, bytes):
        return operation.replace(b"{}", placeholder.encode())
    if isinstance(operation, str):
        return type(operation)(str.replace(operation, "{}", placeholder))
    if isinstance(operation, sql.SQL):
        return sql.SQL(operation.string.replace("{}", placeholder))
    return operation


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_kinds_of_operation(check, operation):
    for placeholder, choices in (
        ("1", [None, (), {}]),
        ("%s", [None, (1,), ["é"], ()]),
        ("%(a)s", [None, {"a": "it's"}]),
        ("%(é)s", [{"é": 1}]),
    ):
        for parameters in choices:
            check(filled(operation, placeholder), parameters)


COMPOSED = {
    "identifier": sql.Identifier("pg_class"),
    "identifiers": sql.SQL("SELECT 1 AS {}").format(sql.Identifier('a"b%')),
    "qualified": sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier("pg_catalog", "pg_am")),
    "literal": sql.SQL("SELECT {}, {}").format(sql.Literal("it's \\ é"), sql.Literal(-5)),
    "literal with %": sql.SQL("SELECT {}").format(sql.Literal("5%s")),
    "literal of none": sql.SQL("SELECT {}").format(sql.Literal(None)),
    "literal of a list": sql.SQL("SELECT {}").format(sql.Literal([1, None])),
    "literal of an object": sql.SQL("SELECT {}").format(sql.Literal(object())),
    "placeholders": sql.SQL("SELECT {}, {}").format(sql.Placeholder(), sql.Placeholder()),
    "named": sql.SQL("SELECT {}, {}").format(sql.Placeholder("a"), sql.Placeholder("b")),
    "composed": sql.SQL("SELECT ") + sql.SQL(", ").join([sql.Literal(1), sql.Placeholder()]),
    "composed of nothing": sql.Composed([]),
    "nested": sql.Composed([sql.SQL("SELECT "), sql.Composed([sql.Literal("x")])]),
    "nul": sql.SQL("SELECT {}").format(sql.Literal("a\0b")),
}


@pytest.mark.parametrize("operation", COMPOSED.values(), ids=COMPOSED)
def test_composed_statements(check, operation):
    for parameters in (None, (), ("x",), (1, "x"), {"a": 1, "b": 2}):
        check(operation, parameters)


# --- settings of the connection -------------------------------------------------------------------

QUOTING = "-c standard_conforming_strings=off -c escape_string_warning=off"
SESSIONS = {
    "old quotes": {"options": QUOTING},
    "LATIN1": {"client_encoding": "LATIN1"},
    "LATIN1 with old quotes": {"client_encoding": "LATIN1", "options": QUOTING},
    "SJIS": {"client_encoding": "SJIS"},
    "GB18030": {"client_encoding": "GB18030"},
    "SQL_ASCII": {"client_encoding": "SQL_ASCII"},
    "EUC_JP": {"client_encoding": "EUC_JP"},
}
SPELLINGS = [
    *(
        "plain",
        "it's",
        "back\\slash",
        "\\'",
        "é",
        "ÿ'",
        "日本",
        "ソ表",
        "ソ'表\\",
        "誠'",
        "😀",
        "\ud800",
        "\0",
    ),
    *(b"\x00\\'\xff", ["it's", "\\", "é"], ("ソ", 1), 1, None, psycopg2.extras.Json("é\\'")),
    *(psycopg2.extensions.AsIs("'é'"), psycopg2.extras.Inet("é")),
]


def check_spellings(roads):
    for value in SPELLINGS:
        roads.same_text("SELECT %s", (value,))
        roads.same_text("SELECT 'é', '\\', %(a)s", {"a": value})
        roads.same_text(sql.SQL("SELECT {}").format(sql.Literal(value)))
    for operation in ("SELECT 'é\\'", b"SELECT '\xff'", "SELECT '日本', %s", "SELECT %(é)s"):
        for parameters in (None, ("x",), {"é": 1}):
            roads.same_text(operation, parameters)


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_sessions(dsn, session):
    with contextlib.closing(Roads(dsn, **session)) as roads:
        check_spellings(roads)


@pytest.mark.parametrize(
    "setting",
    [
        *(
            "standard_conforming_strings = off",
            "client_encoding = LATIN1",
            "client_encoding = SJIS",
        ),
        *("client_encoding = SQL_ASCII", "backslash_quote = off", "bytea_output = escape"),
    ],
)
def test_settings_changed_in_mid_session(roads, setting):
    """psycopg2 asks for the encoding when it connects, libpq knows what is in force."""
    roads.prepare("SET escape_string_warning = off")
    roads.prepare(f"SET {setting}")
    check_spellings(roads)
    roads.prepare("RESET ALL")
    check_spellings(roads)


# --- any text, any values -------------------------------------------------------------------------

FRAGMENTS = [
    *(
        "SELECT ",
        " -- ",
        "/*",
        "*/",
        "'",
        '"',
        "$$",
        "$a$",
        "E'",
        "\\",
        ";",
        "%",
        "%%",
        "(",
        ")",
        "é",
    ),
    *("%s", "%(a)s", "%(b)s", "%(", "%(a)", "% s", "%5s", "%d", "1", "::int", ", ", "\n", "😀"),
]

leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.decimals(), st.binary(max_size=5)),
    *(
        st.text(max_size=8),
        st.text("'\\%s\0()ab ", max_size=8),
        st.dates(),
        st.times(),
        st.datetimes(),
    ),
    st.datetimes(timezones=st.timezones()),
    *(
        st.timedeltas(),
        st.uuids(),
        st.sampled_from([Level.LOW, Text("it's"), Real(1.5), Number(-1)]),
    ),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        *(st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple)),
        *(st.dictionaries(st.text(max_size=3), inner, max_size=2), inner.map(psycopg2.extras.Json)),
    ),
    max_leaves=5,
)


@settings(suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.sampled_from(FRAGMENTS), max_size=8),
    parameters=st.one_of(
        *(st.none(), st.lists(values, max_size=3), st.lists(values, max_size=3).map(tuple)),
        st.dictionaries(st.sampled_from(["a", "b", "", "é"]), values),
    ),
)
def test_any_fragments_any_values(roads, pieces, parameters):
    roads.same_text("".join(pieces), parameters)
    roads.same_text("SELECT %s, %s", parameters)
