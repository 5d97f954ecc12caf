"""Notices: `raw.notices` holds what psycopg2 would have put there, whatever stands in its place."""

import asyncio
import collections
import contextlib

import psycopg2
import pytest
from conftest import command
from roads import Roads
from support import asleep, fetch, scalar, until

LEVELS = ["DEBUG", "LOG", "INFO", "NOTICE", "WARNING"]
THRESHOLDS = [*(f"debug{n}" for n in range(5, 0, -1)), "log", "notice", "warning", "error"]

RUNNING = """
    DO $$ BEGIN
        RAISE NOTICE 'first';
        PERFORM pg_sleep(30);
    END $$"""


def block(*statements):
    return f"DO $$ BEGIN {'; '.join(statements)}; END $$"


def many(count):
    return block(f"FOR i IN 1..{count} LOOP RAISE NOTICE 'number %', i; END LOOP")


STATEMENTS = {
    "none": "SELECT 1",
    "all fields": block(
        "RAISE WARNING 'a %% and a %', 'ü' USING ERRCODE = 'AB123', DETAIL = E'a\ndetail', "
        "HINT = 'a hint', TABLE = 'a table', SCHEMA = 'a schema', COLUMN = 'a column', "
        "CONSTRAINT = 'a constraint', DATATYPE = 'a type'"
    ),
    "several lines": block(r"RAISE NOTICE E'one\n two\n'"),
    "no text": block("RAISE NOTICE ''"),
    "long": block("RAISE NOTICE '%', repeat('ü', 100000)"),
    "with a position": "CREATE TEMP TABLE IF NOT EXISTS pg_temp.t (a int); "
    "CREATE TEMP TABLE IF NOT EXISTS pg_temp.t (a int)",
    "of commands": "DROP TABLE IF EXISTS nowhere; ROLLBACK; COMMIT; BEGIN; BEGIN; END",
    "between results": f"SELECT 1; {block('RAISE NOTICE $x$one$x$')}; SELECT 2; SELECT 3",
    "before an error": block("RAISE NOTICE 'before'", "RAISE EXCEPTION 'error'"),
    "after an error": f"{block('PERFORM 1/0')}; {block('RAISE NOTICE $x$never$x$')}",
    "in a transaction": f"BEGIN; {block('RAISE NOTICE $x$one$x$')}; ROLLBACK",
    "in a caught error": block(
        "BEGIN RAISE NOTICE 'in'; PERFORM 1/0; "
        "EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM; END"
    ),
    "of each row": "SELECT noticed(i) FROM generate_series(1, 5) AS i",
    "up to an error": "SELECT noticed(i), 1/(3-i) FROM generate_series(1, 5) AS i",
    "49": many(49),
    "50": many(50),
    "51": many(51),
    "120": many(120),
    "none of 1000": f"SET client_min_messages = error; {many(1000)}; RESET client_min_messages",
}

SCHEMA = """
    CREATE FUNCTION noticed(i int) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RAISE NOTICE 'row %', i; RETURN i; END $$;
    CREATE TABLE late (i int);
    CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE NOTICE 'at commit %', NEW.i; RETURN NEW; END $$;
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION at_commit();
"""


@pytest.fixture(scope="module")
def dsn(dsn):
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn:
        command(conn, SCHEMA)
    return dsn


def same_notices(roads, *statements):
    """Execute everywhere; the notices, which are the same and in a list of the same kind."""
    for statement in statements:
        roads.same(statement)
    expected, *got = [raw.notices for raw in roads.raws()]
    for notices in got:
        assert type(notices) is type(expected)
        assert list(notices) == list(expected)
        assert [type(text) for text in notices] == [str] * len(notices)
    return list(expected)


# --- the same as psycopg2's -----------------------------------------------------------------------


@pytest.mark.parametrize("name", STATEMENTS)
def test_same_notices(roads, name):
    notices = same_notices(roads, STATEMENTS[name], "SELECT 1")
    assert bool(notices) == (name not in ("none", "after an error", "none of 1000"))


def test_they_add_up_to_fifty(roads):
    same_notices(roads, *(block(f"RAISE NOTICE '{n}'") for n in range(40)))
    notices = same_notices(roads, many(20), block("RAISE WARNING 'last'"))
    assert len(notices) == 50
    assert notices[0] == "NOTICE:  11\n"


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_levels(roads, threshold):
    roads.prepare(f"SET client_min_messages = {threshold}")
    for raw in roads.raws():
        raw.notices.clear()
    for road in roads.all:
        road.execute(
            block(*(f"RAISE {level} 'a {level}'" for level in LEVELS)),
            *(None, psycopg2.extensions.cursor, lambda cursor: None),
        )
    # what the server tells of itself at the lowest levels differs by transaction numbers
    expected, *got = [
        [text for text in raw.notices if " a " in text and "PL/pgSQL" not in text.split("\n")[0]]
        for raw in roads.raws()
    ]
    assert got == [expected] * len(got)
    assert "INFO:  a INFO\n" in [text.split("CONTEXT")[0] for text in expected]


async def test_at_commit(connect):
    conn = await connect()
    async with conn.cursor() as cursor, cursor.begin():
        await cursor.execute("INSERT INTO late VALUES (1), (2)")
        assert conn.notices == []
    assert conn.notices == ["NOTICE:  at commit 1\n", "NOTICE:  at commit 2\n"]


def test_at_commit_as_psycopg2(roads):
    same_notices(roads, "BEGIN; INSERT INTO late VALUES (3)", "SELECT 1", "COMMIT")


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SJIS", "WIN1252", "SQL_ASCII"])
def test_other_encodings(dsn, encoding):
    roads = Roads(dsn, client_encoding=encoding)
    try:
        for text in ("grüße", "日本", "ソ", "€", "plain"):
            code = text.encode().hex()
            roads.same(block(f"RAISE NOTICE '%', convert_from('\\x{code}', 'UTF8')"))
        assert same_notices(roads)
        roads.prepare("SET client_encoding = 'UTF8'")  # psycopg2 doesn't notice
        same_notices(roads, block(f"RAISE NOTICE '%', convert_from('\\x{code}', 'UTF8')"))
    finally:
        roads.close()


# --- an object of the user's in place of the list -------------------------------------------------


class Appended:
    """Has nothing but append()."""

    def __init__(self):
        self.seen = []

    def append(self, text):
        self.seen.append(text)


class Refuses(Appended):
    def append(self, text):
        super().append(text)
        raise ZeroDivisionError(text)


class RefusesThird(Appended):
    def append(self, text):
        if len(self.seen) == 2:
            raise KeyboardInterrupt
        super().append(text)


class OwnList(list):
    pass


class OwnAppend(list):
    def append(self, text):
        super().append(text.lower())


class Endless(list):
    def __delitem__(self, key):
        raise AssertionError("psycopg2 shortens the list without asking")


REPLACEMENTS = {
    "list": list,
    "own list": OwnList,
    "own append": OwnAppend,
    "own deletion": Endless,
    "deque": collections.deque,
    "short deque": lambda: collections.deque(maxlen=3),
    "append only": Appended,
    "refuses": Refuses,
    "refuses the third": RefusesThird,
    "None": lambda: None,
    "tuple": tuple,
    "dict": dict,
}


def contents(notices):
    notices = getattr(notices, "seen", notices)
    return notices if notices is None else list(notices)


@pytest.fixture
def replace(roads):
    def replace(make):
        for raw in roads.raws():
            raw.notices = make()

    yield replace
    replace(list)


# What comes in one read behind a notice that was refused is lost: so one a statement.
SINGLY = [many(1), STATEMENTS["before an error"], "SELECT 1", many(1), many(1)]
TOGETHER = [many(2), many(60)]


@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_replaced(roads, replace, kind):
    replace(REPLACEMENTS[kind])
    objects = [raw.notices for raw in roads.raws()]
    for statement in SINGLY if "refuses" in kind else SINGLY + TOGETHER:
        roads.same(statement)
        expected, *got = [contents(raw.notices) for raw in roads.raws()]
        assert got == [expected] * len(got)
    assert all(raw.notices is made for raw, made in zip(roads.raws(), objects, strict=True))


def test_what_was_refused_does_not_come_later(roads, replace):
    replace(Refuses)
    roads.same(many(5))
    replace(list)
    assert same_notices(roads, many(1)) == ["NOTICE:  number 1\n"]


def test_deleted(roads, replace):
    """What comes then is lost, and nothing else."""
    for raw in roads.raws():
        del raw.notices
    roads.same(STATEMENTS["of each row"])
    assert [raw.notices for raw in roads.raws()] == [None] * len(roads.all)


async def test_append_that_closes_the_connection(ours, connect):
    conn = await connect()

    class Closing(Appended):
        def append(self, text):
            super().append(text)
            conn.close()

    own = conn.raw.notices = Closing()
    with contextlib.suppress(psycopg2.Error):
        await fetch(conn, STATEMENTS["of each row"])
    assert own.seen[0] == "NOTICE:  row 1\n"
    assert conn.closed


async def test_append_that_looks_at_the_connection(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()
    seen = []

    class Asking:
        def append(self, text):
            seen.append((text, conn.closed, conn.notices is self))

    conn.raw.notices = Asking()
    await cursor.execute(STATEMENTS["of each row"])
    assert seen == [(f"NOTICE:  row {n}\n", 0, True) for n in range(1, 6)]
    assert await cursor.fetchall() == [(n,) for n in range(1, 6)]


# --- when they come -------------------------------------------------------------------------------


async def test_before_the_result(connect):
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute(STATEMENTS["of each row"])
    assert conn.notices == [f"NOTICE:  row {n}\n" for n in range(1, 6)]
    assert await cursor.fetchall() == [(n,) for n in range(1, 6)]
    assert conn.notices is conn.raw.notices


async def test_before_the_error(connect):
    conn = await connect()
    with pytest.raises(psycopg2.errors.RaiseException):
        await fetch(conn, STATEMENTS["before an error"])
    assert conn.notices == ["NOTICE:  before\n"]


async def test_of_a_running_statement(ours, connect):
    conn = await connect()
    running = asyncio.create_task(fetch(conn, RUNNING))
    try:
        await until(lambda: conn.notices == ["NOTICE:  first\n"])
        assert not running.done()
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("how", ["cancelled", "timed out", "closed"])
async def test_of_a_statement_that_was_stopped(ours, connect, how):
    conn = await connect()
    cursor = await conn.cursor()
    running = asyncio.create_task(
        cursor.execute(RUNNING, timeout=1 if how == "timed out" else None)
    )
    with contextlib.suppress(AssertionError):
        await until(lambda: conn.notices, 0.9)
    if how == "cancelled":
        running.cancel()
    elif how == "closed":
        conn.close()
    outcomes = (asyncio.CancelledError, asyncio.TimeoutError, psycopg2.OperationalError)
    with pytest.raises(outcomes):
        await running
    assert conn.notices == ["NOTICE:  first\n"]


async def test_of_a_statement_cancelled_by_the_server(connect, side, loop_errors):
    conn = await connect()
    running = asyncio.create_task(fetch(conn, f"/* to be cancelled */ {RUNNING}"))
    await until(lambda: asleep(side, "to be cancelled"))
    scalar(side, "SELECT pg_cancel_backend(%s)", (conn.raw.get_backend_pid(),))
    with pytest.raises(asyncio.CancelledError):
        await running
    loop_errors.clear()
    assert conn.notices == ["NOTICE:  first\n"]
    assert await fetch(conn, "SELECT 1") == [(1,)]


@pytest.mark.all_loops
async def test_idle(connect, side):
    """A listening session says what it does when a notification comes in."""
    conn = await connect()
    cursor = await conn.cursor()
    await cursor.execute("LISTEN news")
    await cursor.execute("SET client_min_messages = debug1; SET trace_notify = on")
    assert conn.notices == []
    command(side, "NOTIFY news")
    await asyncio.wait_for(conn.notifies.get(), 5)
    await until(lambda: len(conn.notices) == 2)
    assert conn.notices == [
        "DEBUG:  ProcessIncomingNotify\n",
        "DEBUG:  ProcessIncomingNotify: done\n",
    ]


@pytest.mark.all_loops
async def test_last_words_of_the_server(connect, side):
    conn = await connect()
    command(side, f"SELECT pg_terminate_backend({await conn.get_backend_pid()})")
    await until(lambda: conn.closed)
    assert conn.notices == ["FATAL:  terminating connection due to administrator command\n"]


async def test_while_connecting(ours, connect, side, dsn):
    """A setting of the database that has become wrong."""
    name = psycopg2.extensions.parse_dsn(dsn)["dbname"]
    command(side, "CREATE ROLE aiopgx_gone")
    command(side, f"ALTER DATABASE {name} SET role = 'aiopgx_gone'")
    command(side, "DROP ROLE aiopgx_gone")
    try:
        conn = await connect()
        assert [text.split(":")[0] for text in conn.notices] == ["WARNING"]
        assert "aiopgx_gone" in conn.notices[0]
    finally:
        command(side, f"ALTER DATABASE {name} RESET role")


async def test_append_that_closes_the_raw_connection(ours, connect):
    conn = await connect()
    cursor = await conn.cursor()

    class Closing:
        def append(self, text):
            conn.raw.close()

    conn.raw.notices = Closing()
    with contextlib.suppress(psycopg2.Error):  # psycopg2 itself goes on with what it has read
        await cursor.execute(STATEMENTS["of each row"])
    assert conn.closed
