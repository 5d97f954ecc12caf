"""What must not leak, and what must not be taken for SQL."""

import asyncio
import gc
import io
import logging
import re
import traceback
import warnings

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn, quote_ident
from psycopg2.extras import MinTimeLoggingCursor
from psycopg2.sql import SQL, Identifier
from support import fetch, scalar

SECRET = "sEcReT pAsS"
URL_SECRET = "sEcReT%20pAsS"
HOSTILE = [
    'a"b',
    '"; DROP TABLE victim; --',
    '""; DROP TABLE victim; --',
    "'; DROP TABLE victim; --",
    "x) FROM STDIN; DROP TABLE victim; --",
    "a.b",
    "%s %(x)s %%",
    "back\\slash",
    "E'\\'",
    "$1 $$ $x$",
    "two\nlines",
    "UPPER and space",
    "select",
    "ünï 漢字",
    "{}",
]


# --- passwords ------------------------------------------------------------------------------------


@pytest.fixture
def url(dsn):
    given = parse_dsn(dsn)
    place = f"{given['host']}:{given['port']}/{given['dbname']}"
    return f"postgresql://{given['user']}:{URL_SECRET}@{place}"


@pytest.fixture
def log():
    """All that is logged, at all levels."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


def clean(*texts):
    for text in texts:
        assert SECRET not in str(text) and URL_SECRET not in str(text), text


@pytest.mark.all_loops
async def test_what_shows_a_connection(ours, connect, pool, dsn, url, log):
    """Also where several hosts, or a name, are given, and statements are logged."""
    several = {"host": "127.0.0.1,localhost", "port": f"1,{parse_dsn(dsn)['port']}"}
    for place, keywords in [
        (url, {}),
        (make_dsn(dsn, password=SECRET), {}),
        (dsn, {"password": SECRET}),
        (dsn, {"password": SECRET, **several}),
        (url.replace("127.0.0.1", "localhost"), {}),
    ]:
        conn = await connect(place, echo=True, **keywords)
        cursor = await conn.execute("SELECT 1")
        clean(conn, conn.dsn, conn.raw, conn.raw.dsn, conn.raw.info.dsn_parameters, cursor)
        clean(vars(conn), conn._wire, conn.notifies)
        connections = await pool(place, echo=True, **keywords)
        clean(connections)
    clean(log.getvalue())
    assert "SELECT 1" in log.getvalue()


async def test_what_shows_an_engine(ours, url, log):
    sa = pytest.importorskip("aiopgx.sa")
    async with sa.create_engine(url, echo=True) as engine, engine.acquire() as conn:
        await conn.execute("SELECT 1")
        clean(engine, engine.dsn, conn, conn.connection)
    clean(log.getvalue())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "change",
    [
        {"port": "1"},
        {"host": "127.0.0.1,localhost", "port": "1,1"},
        {"host": "nowhere.invalid"},
        {"dbname": "no_such_database"},
        {"user": "nobody_of_this_name"},
        {"timeout": 1e-9},
        {"nonsense": 1},
        {"port": "x"},
        {"sslmode": "perhaps"},
        {"cancel_timeout": -1},
    ],
    ids=str,
)
async def test_errors_of_connecting(ours, dsn, url, change, log):
    for place, keywords in [(url, {}), (dsn, {"password": SECRET})]:
        with pytest.raises(Exception) as caught:
            await ours.connect(place, **keywords, **change)
        error = caught.value
        clean("".join(traceback.format_exception(error)), repr(error), error.args)
        with pytest.raises(Exception) as caught:
            await ours.create_pool(place, **keywords, **change)
        clean("".join(traceback.format_exception(caught.value)))
    clean(log.getvalue())


@pytest.mark.parametrize("loop_kind", ["debug"])
async def test_warnings_about_what_was_left_open(ours, url, loop_errors, log):
    conn = await ours.connect(url)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del conn
        gc.collect()
    assert caught and loop_errors
    clean(*(warning.message for warning in caught), loop_errors, log.getvalue())
    loop_errors.clear()


# --- names that were chosen by somebody else ------------------------------------------------------


@pytest.fixture
def victim(side):
    """A table that is to survive, and others of hostile names."""
    with side.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS victim (n int)")
        for name in HOSTILE:
            quoted = quote_ident(name, side)
            cursor.execute(f"DROP SCHEMA IF EXISTS {quoted} CASCADE; CREATE SCHEMA {quoted}")
            for place in (quoted, f"{quoted}.{quoted}"):
                cursor.execute(f"DROP TABLE IF EXISTS {place}; CREATE TABLE {place} ({quoted} int)")
    yield
    assert scalar(side, "SELECT to_regclass('victim')") == "victim"


async def test_copy(ours, connect, victim, side):
    conn = await connect()
    cur = await conn.cursor()
    for name in HOSTILE:
        await cur.copy_from(io.StringIO("1\n"), name, columns=[name])
        out = io.StringIO()
        await cur.copy_to(out, name, columns=[name])
        assert out.getvalue() == "1\n"
        await cur.copy_records(name, [(2,)])
        await cur.copy_records(name, [(3,)], [name], schema_name=name)
        await conn.copy_records_to_table(name, records=[(4,)], columns=[name], schema_name=name)
        quoted = quote_ident(name, side)
        assert scalar(side, f"SELECT array_agg({quoted}) FROM {quoted}") == [1, 2]
        assert scalar(side, f"SELECT array_agg({quoted}) FROM {quoted}.{quoted}") == [3, 4]


@pytest.mark.parametrize("separator", ["'", "\\", '"', ";"])
async def test_copy_s_separators(ours, connect, victim, side, separator):
    conn = await connect()
    cur = await conn.cursor()
    null = "'; DROP TABLE victim; --"
    if separator == ";":
        null = null.replace(";", ",")
    if separator == "\\":
        with pytest.raises(psycopg2.Error, match="delimiter"):
            await cur.copy_to(io.StringIO(), "a.b", sep=separator)
        return
    await cur.copy_from(io.StringIO(null + "\n"), "a.b", sep=separator.replace("'", "|"), null=null)
    assert scalar(side, 'SELECT "a.b" IS NULL FROM "a.b"')


async def test_named_cursors(ours, connect, victim):
    conn = await connect()
    for name in HOSTILE:
        async with conn.cursor(name=name) as cur, conn.cursor() as plain, plain.begin():
            await cur.execute("SELECT generate_series(1, 3)")
            assert await cur.fetchmany(1) == [(1,)]
            await cur.scroll(1)
            assert await cur.fetchall() == [(3,)]
            await cur.close()
            assert await fetch(conn, "SELECT count(*) FROM pg_cursors WHERE name <> ''") == [(0,)]


async def test_channels(ours, connect, victim, side):
    """Each is heard under its own name, and no more once that has ended."""
    conn, heard = await connect(), []

    def hear(conn, pid, channel, payload):
        heard.append(channel)

    async def notify():
        for name in HOSTILE:
            scalar(side, "SELECT pg_notify(%s, '')", (name,))
        await conn.execute("SELECT 1")
        await asyncio.sleep(0)

    for name in HOSTILE:
        await conn.add_listener(name, hear)
    assert await fetch(conn, "SELECT pg_listening_channels()") == [(name,) for name in HOSTILE]
    await notify()
    assert heard == HOSTILE
    for name in HOSTILE:
        await conn.remove_listener(name, hear)
    assert await fetch(conn, "SELECT pg_listening_channels()") == []


async def test_channels_of_a_listener(ours, dsn, victim, side):
    async with ours.Listener(dsn, HOSTILE[:5]) as listener:
        for name in HOSTILE[5:]:
            await listener.listen(name)
        await listener.unlisten(HOSTILE[1])
        for name in HOSTILE:
            scalar(side, "SELECT pg_notify(%s, '')", (name,))
        heard = [(await anext(listener)).channel for _ in HOSTILE[1:]]
        assert heard == [HOSTILE[0], *HOSTILE[2:]]


async def test_names_of_programs(ours, dsn, victim):
    """In the DSN as well, which has quotes of its own. The server keeps them in ASCII."""
    for name in HOSTILE:
        kept = "".join(c if " " <= c <= "~" else "?" for c in name)
        for place, keywords in [
            (dsn, {"application_name": name}),
            (make_dsn(dsn, application_name=name), {}),
        ]:
            async with ours.connect(place, **keywords) as conn:
                ((shown,),) = await fetch(conn, "SHOW application_name")
                shown = re.sub(r"(\\x[0-9a-f]{2}|\?)+", "?", shown)  # "?" or "\\xc3", by version
                assert shown == re.sub(r"\?+", "?", kept)


async def test_two_phase_transactions_of_a_connection(ours, connect, victim):
    """IDs as they are, and of three parts."""
    conn = await connect()
    for name in HOSTILE:
        parts = [await conn.xid(7, name, name)] if name.isascii() and name.isprintable() else []
        for xid in (name, *parts):
            await conn.tpc_begin(xid)
            await conn.execute("SELECT 1")
            await conn.tpc_prepare()
            await conn.tpc_rollback()
    assert await conn.tpc_recover() == []


async def test_two_phase_transactions(ours, dsn, victim):
    sa = pytest.importorskip("aiopgx.sa")
    async with sa.create_engine(dsn) as engine, engine.acquire() as conn:
        for name in HOSTILE:
            transaction = await conn.begin_twophase(name)
            await conn.execute("SELECT 1")
            await transaction.prepare()
            assert name in await conn.recover_twophase()
            await transaction.rollback()


async def test_names_and_values_of_sqlalchemy(ours, dsn, victim, side):
    sa = pytest.importorskip("aiopgx.sa")
    import sqlalchemy as db

    async with sa.create_engine(dsn) as engine, engine.acquire() as conn:
        for name in HOSTILE:
            # SQLAlchemy's key of a column goes into placeholders, where % and () have a meaning
            table = db.Table(name, db.MetaData(), db.Column(name, db.Integer, key="n"))
            async with conn.begin(), conn.begin_nested():
                await conn.execute(table.insert().values(n=5))
                row = await (await conn.execute(db.select(table.c.n))).first()
                assert row.as_tuple() == (5,)
            value = await conn.scalar(db.select(db.literal(name)))
            assert value == name
            alias = table.alias(name + "2")
            column = alias.c.n.label(name)
            row = await (await conn.execute(db.select(column).where(column == 5))).first()
            assert row[name] == row[column] == 5 and list(row) == [name]
            bound = db.bindparam(name, 7)
            row = await (await conn.execute(db.select(bound.label("%s")))).first()
            assert row["%s"] == 7
            if db.__version__.startswith("1.") and "'" in name:
                continue  # SQLAlchemy 1.4 itself puts the name into nextval('...') as it is
            sequence = db.Sequence(name + "3")
            quoted = quote_ident(name + "3", side)
            scalar(side, f"CREATE SEQUENCE {quoted}; SELECT 1")
            assert await conn.scalar(db.select(sequence.next_value())) == 1
            scalar(side, f"DROP SEQUENCE {quoted}; SELECT 1")


async def test_values(ours, connect, victim):
    """By every way in which values reach the server."""
    conn = await connect(prepare_threshold=0)
    cur = await conn.cursor()
    await cur.execute("CREATE TEMPORARY TABLE kept (id int, t text)")
    for name in HOSTILE:
        for _ in range(3):
            assert await fetch(conn, "SELECT %s AS t", (name,)) == [(name,)]
            assert await fetch(conn, "SELECT %(t)s AS t", {"t": name}) == [(name,)]
        await cur.executemany("INSERT INTO kept VALUES (%s, %s)", [(1, name)])
        await cur.execute_values("INSERT INTO kept VALUES %s", [(2, name)])
        await cur.copy_records("kept", [(3, name)])
        async with conn.pipeline():
            await cur.execute("INSERT INTO kept VALUES (%s, %s)", (4, name))
        rows = await fetch(conn, "SELECT id, t FROM kept WHERE t = %s ORDER BY id", (name,))
        assert rows == [(n, name) for n in (1, 2, 3, 4)]


# Characters that end in the byte of a backslash, in the encodings that know such.
TREACHEROUS = {
    "SJIS": "表ソ能",
    "BIG5": "功許蓋",
    "GBK": "誠乗",
    "GB18030": "誠乗",
    "UHC": "뱹",
    "SHIFT_JIS_2004": "表ソ能",
    "EUC_JP": "表",
    "LATIN1": "é",
    "UTF8": "表ソ能",
}


@pytest.mark.parametrize("encoding", TREACHEROUS)
async def test_values_and_names_in_other_encodings(ours, dsn, victim, encoding):
    """In bytes, a quote behind such a character looks as if it were escaped, or escapes."""
    async with ours.connect(dsn, client_encoding=encoding, prepare_threshold=0) as conn:
        cur = await conn.cursor()
        await cur.execute("CREATE TEMPORARY TABLE kept (id int, t text)")
        for character in TREACHEROUS[encoding]:
            for text in (
                f"{character}'; DROP TABLE victim; --",
                f'{character}"; DROP x',
                character,
            ):
                for _ in range(3):
                    assert await fetch(conn, "SELECT %s", (text,)) == [(text,)]
                await cur.execute("TRUNCATE kept")
                await cur.executemany("INSERT INTO kept VALUES (%s, %s)", [(1, text)])
                await cur.execute_values("INSERT INTO kept VALUES %s", [(2, text)])
                await cur.copy_records("kept", [(3, text)])
                sql = "SELECT id FROM kept WHERE t = %s ORDER BY id"
                assert await fetch(conn, sql, (text,)) == [(1,), (2,), (3,)]
                await conn.add_listener(text, print)
                assert await fetch(conn, "SELECT pg_listening_channels()") == [(text,)]
                await conn.remove_listener(text, print)
                # the name of a cursor is sent as psycopg2 sends it: its UTF-8
                async with conn.cursor("named", withhold=True) as named:
                    await named.execute("SELECT %s", (text,))
                    assert await named.fetchall() == [(text,)]
                await conn.tpc_begin(text)
                await conn.tpc_prepare()
                await conn.tpc_rollback()


# --- NUL ------------------------------------------------------------------------------------------

# psycopg2 quotes an identifier up to its NUL
SELECTED = SQL("SELECT * FROM {}").format(Identifier("victim\0x"))


async def logging_cursor(conn, operation):
    """On psycopg2's road."""
    await (await conn.cursor(MinTimeLoggingCursor)).execute(operation)


async def named(conn, operation):
    async with conn.cursor(name="of its own", withhold=True) as cur:
        await cur.execute(operation)


WAYS = {
    "execute": lambda conn, cur: cur.execute("SELECT 1\0; DROP TABLE victim"),
    "of bytes": lambda conn, cur: cur.execute(b"SELECT 1\0; DROP TABLE victim"),
    "conn.execute": lambda conn, cur: conn.execute("SELECT 1\0"),
    "a value": lambda conn, cur: cur.execute("SELECT %s", ("a\0b",)),
    "executemany": lambda conn, cur: cur.executemany("SELECT %s\0", [(1,)]),
    "execute_values": lambda conn, cur: cur.execute_values(
        "INSERT INTO victim\0 VALUES %s", [(1,)]
    ),
    "stream": lambda conn, cur: anext(aiter(cur.stream("SELECT 1\0"))),
    "copy_expert": lambda conn, cur: cur.copy_expert("COPY victim TO STDOUT\0", io.StringIO()),
    "copy_from": lambda conn, cur: cur.copy_from(io.StringIO(""), "victim\0x"),
    "copy_records": lambda conn, cur: cur.copy_records("victim\0x", [(1,)]),
    "copy_from, columns": lambda conn, cur: cur.copy_from(
        io.StringIO("1"), "victim", columns=["n\0"]
    ),
    "copy_to": lambda conn, cur: cur.copy_to(io.StringIO(), "victim\0x"),
    "copy_records, columns": lambda conn, cur: cur.copy_records("victim", [(1,)], ["n\0"]),
    "copy_records, schema": lambda conn, cur: cur.copy_records("t", [(1,)], schema_name="public\0"),
    "named cursor": lambda conn, cur: conn.cursor(name="a\0b"),
    "callproc": lambda conn, cur: cur.callproc("now\0x"),
    "callproc, a name": lambda conn, cur: cur.callproc("now", {"a\0b": 1}),
    "composed": lambda conn, cur: cur.execute(SELECTED),
    "composed, psycopg2's road": lambda conn, cur: logging_cursor(conn, SELECTED),
    "composed, executemany": lambda conn, cur: cur.executemany(SELECTED, [()]),
    "composed, execute_batch": lambda conn, cur: cur.execute_batch(SELECTED, [()]),
    "composed, execute_values": lambda conn, cur: cur.execute_values(SELECTED, [(1,)]),
    "composed, stream": lambda conn, cur: anext(aiter(cur.stream(SELECTED))),
    "composed, copy_expert": lambda conn, cur: cur.copy_expert(SELECTED, io.StringIO()),
    "composed, named cursor": lambda conn, cur: named(conn, SELECTED),
}


@pytest.mark.parametrize("way", WAYS)
async def test_nul(ours, connect, victim, way):
    """Nothing is cut off there and executed; the connection goes on."""
    conn = await connect()
    cur = await conn.cursor()
    with pytest.raises(ValueError, match=r"NUL|null|embedded"):
        await WAYS[way](conn, cur)
    assert await fetch(conn, "SELECT 1") == [(1,)]
