"""Values that Python can't show: psycopg2's exception at the same call, and the connection goes on.

Each result is walked through in every way of fetching, on past the exceptions: what each call gives
or raises, and the position after it, is the same on all roads.
"""

import psycopg2
import psycopg2._psycopg
import psycopg2.extras
import pytest
from conftest import command, side_connection
from psycopg2.extensions import new_array_type
from roads import Roads, attributes, portrait, portrait_of_error, settle

TEXT_OID = 25
NUMERIC_OID = 1700

WAYS = {
    "fetchone": lambda cursor: cursor.fetchone(),
    "fetchmany": lambda cursor: cursor.fetchmany(2),
    "fetchall": lambda cursor: cursor.fetchall(),
    "iteration": lambda cursor: (
        anext(cursor, None) if hasattr(cursor, "__anext__") else cursor.fetchone()
    ),
}
FACTORIES = {
    "tuple": psycopg2.extensions.cursor,
    "dict": psycopg2.extras.DictCursor,
    "real dict": psycopg2.extras.RealDictCursor,
    "namedtuple": psycopg2.extras.NamedTupleCursor,
}


async def steps(cursor, way):
    """(what happened, position after it) for each call, until the rows are used up."""
    seen = []
    while True:
        before = cursor.rownumber
        try:
            given = await settle(WAYS[way](cursor))
        except Exception as error:
            seen.append(("raised", portrait_of_error(error), cursor.rownumber))
            if cursor.rownumber == before:
                break  # not a matter of the row
        else:
            seen.append(("gave", portrait(given), cursor.rownumber))
            if given is None or (type(given) is list and not given):
                break
    return seen


def walk(roads, sql, parameters=None, ways=tuple(WAYS), factory=FACTORIES["tuple"]):
    """Compare the ways of fetching a result; the exceptions of the first one."""

    def walk_in(way):
        async def walk_on(road):
            cursor, impl = await road.cursor(factory)
            roads.hook(impl)
            try:
                await settle(cursor.execute(sql, parameters))
                seen = await steps(cursor, way)
            except Exception as error:
                seen = [("raised", portrait_of_error(error), None)]
            last = attributes(cursor)
            await settle(cursor.execute("SELECT 1"))
            goes_on = portrait(await settle(cursor.fetchall()))
            cursor.close()
            return [seen, last, goes_on]

        walk_on.__name__ = f"{way}: {sql}"
        return walk_on

    seen = {way: roads.alike(walk_in(way))[0] for way in ways}
    return [what[0] for happened, what, _ in seen[ways[0]] if happened == "raised"]


def casting(caster, *oids):
    """Let one of psycopg2's casters make the values of these types, of text if there are none."""
    if isinstance(caster, str):
        caster = getattr(psycopg2._psycopg, caster)

    def hook(cursor):
        cursor.string_types = dict.fromkeys(oids or [TEXT_OID], caster)

    return hook


# --- values that the server has, and Python has not -----------------------------------------------

# type -> texts that psycopg2 can't read, or reads in a way of its own
OUT_OF_RANGE = {
    "date": [
        *("infinity", "-infinity", "0001-12-31 BC", "0044-03-15 BC", "4713-01-01 BC"),
        *("10000-01-01", "294276-12-31", "5874897-12-31"),
    ],
    "timestamp": [
        *("infinity", "-infinity", "0001-12-31 23:59:59.999999 BC", "4713-01-01 00:00:00 BC"),
        *("10000-01-01 00:00:00", "294276-12-31 23:59:59.999999"),
    ],
    "timestamptz": [
        *("infinity", "-infinity", "0001-12-31 23:59:59 BC", "4714-11-24 00:00:00+00 BC"),
        *("10000-01-01 00:00:00+00", "294276-12-31 23:59:59.999999+00"),
        *("9999-12-31 23:59:59.999999+00", "0001-01-01 00:00:00+00", "1883-11-18 12:00:00+00"),
    ],
    "time": ["24:00:00", "23:59:60"],
    "timetz": ["24:00:00+00", "24:00:00-15:59:59", "00:00:00+15:59:59", "23:59:60+01"],
    "interval": [
        *("178000000 years", "-178000000 years", "999999999 days", "-999999999 days"),
        *("1000000000 days", "-1000000000 days", "2147483647 days", "2147483647 hours"),
        *("2739725 years", "2739726 years", "999999999 days 24:00:00", "-0.000001 seconds"),
        *("178956970 years 7 months", "2147483647 months 2147483647 days 2562047788:00:54.775807"),
    ],
    "numeric": ["NaN", "1e-16383", "1e131071", "-9.99e1000"],
    "float8": ["NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308"],
}
GOOD = {
    "date": "2024-02-29",
    "timestamp": "2024-02-29 12:00:00",
    "timestamptz": "2024-02-29 12:00:00+00",
    "time": "12:00:00.5",
    "timetz": "12:00:00+01",
    "interval": "1 day -00:00:01",
    "numeric": "1.50",
    "float8": "1.5",
}


def around(good, bad):
    """Five rows, the second and the fourth of which are bad."""
    rows = (f"({i}, {(good, bad)[i % 2 == 0]})" for i in range(1, 6))
    return f"VALUES {', '.join(rows)}"


@pytest.mark.parametrize("type_", OUT_OF_RANGE)
def test_out_of_range(roads, type_):
    good = f"'{GOOD[type_]}'::{type_}"
    for text in OUT_OF_RANGE[type_]:
        walk(roads, around(good, f"'{text}'::{type_}"))
        walk(roads, around(f"ARRAY[{good}]", f"ARRAY[{good}, NULL, '{text}']"), ways=["fetchone"])


def test_infinite_numeric(roads):
    if roads.reference.raw.server_version < 140000:
        sql = "VALUES ('Infinity'::text), ('-Infinity')"
        with roads.using(casting("DECIMAL")):
            walk(roads, sql)
    else:
        walk(roads, around("1.5", "'Infinity'::numeric"))
        walk(roads, around("1.5", "'-Infinity'::numeric"))


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_kind_of_row(roads, factory):
    sql = around("'2024-01-01'::date", "'0044-03-15 BC'")
    assert walk(roads, sql, factory=FACTORIES[factory]) == [ValueError, ValueError]


@pytest.mark.parametrize("style", ["postgres", "postgres_verbose", "sql_standard", "iso_8601"])
def test_intervals_in_every_style(roads, style):
    roads.prepare(f"SET IntervalStyle = {style}")
    for text in OUT_OF_RANGE["interval"]:
        walk(roads, around("'-1 year +2 days -03:00'::interval", f"'{text}'"), ways=["fetchone"])


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns", "Europe/Amsterdam", "+14"])
def test_offsets_that_leave_the_calendar(roads, zone):
    roads.prepare(f"SET TIME ZONE '{zone}'")
    for text in OUT_OF_RANGE["timestamptz"]:
        walk(roads, around("'2024-02-29 12:00+00'::timestamptz", f"'{text}'"), ways=["fetchone"])


@pytest.mark.parametrize("style", ["German", "SQL", "Postgres"])
def test_dates_not_in_the_iso_style(roads, style):
    roads.prepare(f"SET DateStyle = {style}")
    for type_ in ("date", "timestamp", "timestamptz", "interval"):
        for text in OUT_OF_RANGE[type_][:3]:
            sql = around(f"'{GOOD[type_]}'::{type_}", f"'{text}'::{type_}")
            walk(roads, sql, ways=["fetchone", "fetchall"])


# --- numbers of any size --------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [18, 19, 20, 38, 4300, 4301, 100_000])
@pytest.mark.parametrize("caster", ["DECIMAL", "LONGINTEGER", "INTEGER", "FLOAT"])
def test_long_numbers(roads, caster, digits):
    """Python's limit on the digits of an int counts, where there is one."""
    value = f"{'9' * digits}::numeric"
    with roads.using(casting(caster, NUMERIC_OID)):
        walk(roads, around("1::numeric", value), ways=["fetchone", "fetchall"])
        walk(roads, around("1::numeric", f"-{value}"), ways=["fetchone"])
        walk(roads, around("1::numeric", f"{value} + 0.5"), ways=["fetchone"])


def test_ends_of_the_integers(roads):
    ends = [
        f"{sign}{2**bits + more}" for sign in ("", "-") for bits in (31, 63) for more in (-1, 0, 1)
    ]
    with roads.using(casting("LONGINTEGER")):
        walk(roads, "SELECT unnest(%s::text[])", [ends])


# --- text through every caster --------------------------------------------------------------------

CASTERS = {
    name: caster
    for name, caster in vars(psycopg2._psycopg).items()
    if type(caster) is type(psycopg2._psycopg.STRING)
}
ARRAYS = [name for name in CASTERS if name.endswith("ARRAY")]

ODD_TEXTS = [
    *("", " ", "x", "t", "f", "T", "false", "0", "-0", "00", "+1", " 1 ", "1_000", "0x1f", "1e5"),
    *("1.5", ".5", "-", "--1", "NaN", "nan", "Infinity", "-inf", "null", "NULL", "9" * 5000),
    *("2024-02-29", "2023-02-29", "2024-13-01", "0000-01-01", "2024-1-1", "20240101", "24-01-01"),
    *("12:00", "12:00:00", "25:00:00", "12:60:00", "12:00:60", "24:00:00", "12:00:00.1234567"),
    *("12:00:00+24", "12:00:00-15:59:59", "12:00:00+1:2", "12:00:00+99:99", "-12:00:00"),
    *("2024-02-29 12:00", "2024-02-29T12:00:00", "2024-02-29 12:00:00+00:00:00:00"),
    *("2024-02-29 12:00:00+25", "0044-03-15 12:00:00 BC", "infinity", "-infinity", "Infinity "),
    *("1 day", "1 fortnight", "day 1", "1 year 2", "99999999999 days", "-1 day -1", "1:2:3:4"),
    *(
        "P1Y",
        "@ 1 day ago",
        "1-2 3 4:05:06",
        "\\x",
        "\\xf",
        "\\xfg",
        "\\x00FF",
        "\\000",
        "\\9",
        "\\",
    ),
    *("{}", "{1}", "[1]", '{"a": 1}', "a,b", '"', "'", "%s", "ü", "日本", "\ufeff1", "\u0661"),
    *("00000000-0000-0000-0000-000000000000", "(1,2)", "[1,5)", "a" * 1000),
]


@pytest.mark.parametrize("caster", CASTERS)
def test_text_through_every_caster(roads, caster):
    with roads.using(casting(caster)):
        walk(roads, "SELECT unnest(%s::text[])", [ODD_TEXTS], ways=["fetchone", "fetchmany"])


@pytest.mark.parametrize("caster", [name for name in CASTERS if name not in ARRAYS])
def test_array_elements_through_every_caster(roads, caster):
    array = new_array_type((1009,), "ODD", CASTERS[caster])
    short = [text for text in ODD_TEXTS if len(text) < 24]  # psycopg2 has room for no longer int
    sql = "SELECT ARRAY[t, NULL] FROM unnest(%s::text[]) AS t UNION ALL SELECT '{}'"
    with roads.using(casting(array, 1009)):
        walk(roads, sql, [short], ways=["fetchone"])


JSON_TEXTS = [
    *(
        "",
        " ",
        "nul",
        "[1",
        "[1,]",
        '{"a"',
        '{"a":}',
        "{a: 1}",
        "1 2",
        "[1] x",
        '"a',
        '"\\x"',
        "'a'",
    ),
    *(" x", " \ufeff1", '"\n"', "NaN", "-Infinity", "+1", "01", "1e999", "9" * 5000, "[" * 100_000),
    *('{"a": 1} {', "\u00a01"),
]

# Those whose error json does not find at the first character.
JSON_BEHIND_BLANKS = [" 1 2", "\t[1] x", "\ufeff1", " " + "[" * 100_000, " " + "9" * 5000]


def as_json(cursor):
    cursor.string_types = {TEXT_OID: cursor.connection.string_types[114]}


def test_broken_json(roads):
    with roads.using(as_json):
        walk(roads, "SELECT unnest(%s::text[])", [JSON_TEXTS])


@pytest.mark.parametrize("text", JSON_BEHIND_BLANKS, ids=lambda text: repr(text[:8]))
def test_broken_json_behind_blanks(roads, text):
    with roads.using(as_json):
        walk(roads, "SELECT %s::text", [text])


def test_text_as_uuid(roads):
    def as_uuid(cursor):
        cursor.string_types = {TEXT_OID: cursor.connection.string_types[2950]}

    with roads.using(as_uuid):
        walk(roads, "SELECT unnest(%s::text[])", [[*ODD_TEXTS, "0" * 32, "{" + "0" * 32 + "}"]])


# psycopg2 itself does not survive an array that ends behind a comma or inside quotes.
BROKEN_ARRAYS = [
    *("", "{", "}", "{}", "{}}", "{{}", "{{}}", "{1", "{1,2", "1,2}", "{,}", "{1,}", "{,1}"),
    *('{"', '{"a}', '{"a"', '{"a"x}', '{a"b"}', '{"a\\', '{"a\\"}', "{\\", "{\\}"),
    *("{{1},{2}", "{{1},2}", "{1,{2}}", "{1}{2}", "{1}x", "x{1}", " {1}", "{1} ", "{ 1 }"),
    *(
        "[0:1]={1,2}",
        "[0:1]={1,2",
        "[0:1]=",
        "[0:1]",
        "[",
        "[]={}",
        "{{{{{{{1}}}}}}}",
        "{null,NuLL}",
    ),
    *("{" * 20, "{" * 20 + "}" * 20, "{1" + ",{1" * 17 + "}" * 18),
]


@pytest.mark.parametrize("caster", ARRAYS)
def test_broken_arrays(roads, caster):
    with roads.using(casting(caster)):
        walk(roads, "SELECT unnest(%s::text[])", [BROKEN_ARRAYS], ways=["fetchone"])


# --- bytes that are no text -----------------------------------------------------------------------

# Each is a client encoding at the start, and what the session is set to behind psycopg2's back.
ENCODINGS = {
    "SQL_ASCII": ("SQL_ASCII", None),
    "UTF8": ("UTF8", None),
    "UTF8 unchecked": ("UTF8", "SQL_ASCII"),
    "LATIN1 unchecked": ("LATIN1", "SQL_ASCII"),
    "EUC_JP unchecked": ("EUC_JP", "SQL_ASCII"),
}
BYTES = [b"caf\xe9", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"a\x80b"]


def literal(value):
    return b"E'%s'" % b"".join(b"\\%03o" % byte for byte in value)


SCHEMA = rb"""
    CREATE TYPE textrange AS RANGE (subtype = text, collation = "C");
    CREATE TYPE odd AS ENUM ('plain', %s);
    CREATE FUNCTION fail(level text, bytes text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF level = 'notice' THEN
            RAISE NOTICE 'message %%', bytes USING DETAIL = bytes, HINT = bytes;
        ELSE
            RAISE EXCEPTION 'message %%', bytes USING ERRCODE = 'AB123', DETAIL = bytes,
                HINT = bytes, TABLE = bytes, COLUMN = bytes, CONSTRAINT = bytes;
        END IF;
    END $$
""" % b", ".join(b"'%s'" % value for value in BYTES)


@pytest.fixture(scope="module")
def ascii_dsn(admin, server_dsn, dsn):
    """A database that takes and gives all bytes as they are."""
    name = psycopg2.extensions.parse_dsn(dsn)["dbname"] + "_ascii"
    command(admin, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    command(
        admin,
        f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' "
        "TEMPLATE template0",
    )
    ascii_dsn = psycopg2.extensions.make_dsn(server_dsn, dbname=name)
    with side_connection(ascii_dsn, client_encoding="SQL_ASCII") as conn:
        command(conn, SCHEMA)
    yield ascii_dsn
    command(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module", params=ENCODINGS)
def ascii_roads(request, ascii_dsn):
    encoding, later = ENCODINGS[request.param]
    roads = Roads(ascii_dsn, client_encoding=encoding)
    roads.checked = request.param == "UTF8"  # by the server, which then sends no such bytes
    if later is not None:
        roads.prepare(f"SET client_encoding = '{later}'")
    yield roads
    roads.close()


VALUES = {
    "text": b"%s",
    "varchar": b"%s::varchar(20)",
    "name": b"%s::name",
    "char": b"%s::char(9)",
    "json": b"('\"' || %s || '\"')::json",
    "json key": b"('{\"' || %s || '\": 1}')::json",
    "array": b"ARRAY['a', %s, NULL]",
    "array with escapes": b"ARRAY[%s || E'\\\\ \" ,']",
    "json array": b"ARRAY[('\"' || %s || '\"')::json]",
    "record": b"row(1, %s)",
    "range": b"textrange(%s, NULL)",
    "bytea": b"convert_to(%s, 'SQL_ASCII')",
    "xid as text": b"(%s || 1::xid)",
}


@pytest.mark.parametrize("value", VALUES)
def test_undecodable_values(ascii_roads, value):
    for text in BYTES:
        good, bad = (VALUES[value] % literal(part) for part in (b"plain", text))
        sql = b"VALUES (1, %s), (2, %s), (3, %s)" % (good, bad, good)
        walk(ascii_roads, sql, ways=["fetchone", "fetchall"])


@pytest.mark.parametrize("caster", [name for name in CASTERS if name not in ARRAYS])
def test_undecodable_values_through_every_caster(ascii_roads, caster):
    rows = b", ".join(b"(%s)" % literal(bad) for bad in [b"plain", *BYTES])
    if ascii_roads.reference.raw.encoding == "UTF8":
        ascii_roads.prepare("SET client_encoding = 'SQL_ASCII'")
    with ascii_roads.using(casting(caster)):
        walk(ascii_roads, b"VALUES " + rows, ways=["fetchone", "fetchmany"])


@pytest.mark.parametrize("factory", FACTORIES)
def test_undecodable_column_names(ascii_roads, factory):
    names = b", ".join(b'%d AS "a%s"' % (i, bad) for i, bad in enumerate(BYTES))
    walk(ascii_roads, b"SELECT " + names, ways=["fetchone", "fetchall"], factory=FACTORIES[factory])
    ascii_roads.same(b'SELECT 1 AS "\xff" WHERE false', factory=FACTORIES[factory])


def test_undecodable_enum_labels(ascii_roads):
    walk(ascii_roads, b"SELECT unnest(enum_range(NULL::odd))")
    walk(ascii_roads, b"SELECT enum_range(NULL::odd)")


@pytest.mark.parametrize("bad", BYTES)
def test_undecodable_errors(ascii_roads, bad):
    outcome = ascii_roads.same(b"SELECT fail('error', %s)" % literal(bad))
    if ascii_roads.checked:
        assert isinstance(outcome.error, psycopg2.Error)
    else:
        assert outcome.error.pgcode == "AB123"
    ascii_roads.same(b"SELECT * FROM nowhere WHERE '%s' = \"%s\"" % (bad, bad))
    ascii_roads.same(b"SELECT '%s'::int" % bad)
    ascii_roads.same("SELECT 1")


@pytest.mark.parametrize("bad", BYTES)
def test_undecodable_notices(ascii_roads, bad):
    for raw in ascii_roads.raws():
        raw.notices.clear()
    ascii_roads.same(b"SELECT fail('notice', %s)" % literal(bad))
    expected, *got = [list(raw.notices) for raw in ascii_roads.raws()]
    assert got == [expected] * len(got)


def test_undecodable_notifications(ascii_roads, ascii_dsn):
    taken = []
    with side_connection(ascii_dsn, client_encoding="SQL_ASCII") as side:
        for road in ascii_roads.all:
            road.execute(b'LISTEN "a\xff"', None, FACTORIES["tuple"], lambda cursor: None)
        for bad in BYTES:
            command(side, b"NOTIFY \"a\xff\", '%s'" % bad)
        if not ascii_roads.checked:  # the server does not send these notifications
            taken = [road.notified(len(BYTES)) for road in ascii_roads.all]
    seen = [[(item.channel, item.payload) for item in items] for items in taken]
    assert all(items == seen[0] for items in seen)
    ascii_roads.same("SELECT 1")
    ascii_roads.prepare("UNLISTEN *")


def test_what_a_refused_copy_leaves(dsn):
    """On connections of its own: on psycopg2's road it ends them."""

    async def walk_on(road):
        cursor, _ = await road.cursor()
        with pytest.raises(psycopg2.ProgrammingError, match="can't execute COPY FROM"):
            await settle(cursor.execute("COPY pg_am FROM STDIN"))
        return attributes(cursor)

    roads = Roads(dsn)
    try:
        roads.alike(walk_on)
    finally:
        roads.close()


# --- results of unusual size ----------------------------------------------------------------------

MOST_COLUMNS = 1664


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("factory", FACTORIES)
def test_as_many_columns_as_there_can_be(roads, factory, rows):
    columns = ", ".join(f"i + {n} AS c{n}" for n in range(MOST_COLUMNS))
    sql = f"SELECT {columns} FROM generate_series(1, {rows}) AS i"
    walk(roads, sql, ways=["fetchone", "fetchall"], factory=FACTORIES[factory])


def test_too_many_columns(roads):
    columns = ", ".join("1" for _ in range(MOST_COLUMNS + 1))
    outcome = roads.same(f"SELECT {columns}")
    assert isinstance(outcome.error, psycopg2.errors.TooManyColumns)


@pytest.mark.parametrize("factory", FACTORIES)
def test_no_columns(roads, factory):
    walk(roads, "SELECT FROM generate_series(1, 3)", factory=FACTORIES[factory])
    walk(roads, "SELECT WHERE false", factory=FACTORIES[factory])


def test_wide_rows(roads):
    columns = ", ".join(f"repeat('{n % 10}', {n} * 10)" for n in range(300))
    walk(roads, f"SELECT {columns} FROM generate_series(1, 3)", ways=["fetchmany"])


def test_huge_value(roads):
    async def walk_on(road):
        cursor, _ = await road.cursor()
        await settle(cursor.execute("SELECT repeat('ünï', 10000000), 1"))
        (huge, one) = await settle(cursor.fetchone())
        return hash(huge), len(huge), one, await settle(cursor.fetchone())

    assert roads.alike(walk_on)[1:] == (30_000_000, 1, None)
