"""Errors of the server by SQLSTATE: class, texts, every field of diag, the same on every road."""

import itertools
import re
import string
import threading

import psycopg2
import psycopg2.errorcodes
import psycopg2.errors
import psycopg2.extensions
import pytest
from roads import portrait_of_error
from sqlstates import SCHEMA, STATEMENTS
from support import activity, scalar

# No error, and one that aiopg makes a cancellation of the task.
LEFT_OUT = ["00000", psycopg2.errorcodes.QUERY_CANCELED]
CODES = sorted(
    value
    for name, value in vars(psycopg2.errorcodes).items()
    if name.isupper() and not name.startswith("CLASS_") and value not in LEFT_OUT
)
RAISE = """DO $$ BEGIN RAISE EXCEPTION 'text of {0}' USING ERRCODE = '{0}', DETAIL = 'a detail',
    HINT = 'a hint', COLUMN = 'a column', CONSTRAINT = 'a constraint', DATATYPE = 'a type',
    TABLE = 'a table', SCHEMA = 'a schema'; END $$"""


@pytest.fixture(scope="module", autouse=True)
def schema(open_roads):
    open_roads.reference.raw.cursor().execute(SCHEMA)


@pytest.mark.parametrize("name", STATEMENTS)
def test_provoked(roads, name):
    error = roads.same(STATEMENTS[name]).error
    assert error.pgcode in name.split()[0].split("|")
    assert error.pgcode == error.diag.sqlstate


def test_every_class_of_sqlstate_is_there():
    """A class is provoked, or raised below because nothing provokes it by SQL alone."""
    provoked = {code[:2] for name in STATEMENTS for code in name.split()[0].split("|")}
    raised = {code[:2] for code in CODES}
    assert len(STATEMENTS) > 120
    assert raised - provoked <= {
        *("00", "01", "03", "09", "0B", "0F", "0L", "0P", "10", "28", "2D", "38", "39", "3D"),
        *("57", "58", "72", "F0", "HV"),
    }


def raised(roads, code):
    """The class of what is raised; whether it is given by a name or by its class of SQLSTATE."""
    error = roads.same(RAISE.format(code)).error
    assert error.pgcode == code
    assert error.diag.constraint_name == "a constraint"
    return type(error)


def test_every_code_that_psycopg2_knows(roads):
    classes = {code: raised(roads, code) for code in CODES}
    assert len(set(classes.values())) > 200


def test_every_class_of_sqlstate_with_a_code_that_nobody_knows(roads):
    """Also classes that there aren't: the server sends what it was told to."""
    letters = string.digits + string.ascii_uppercase
    classes = [raised(roads, a + b + "ZZ9") for a, b in itertools.product(letters, repeat=2)]
    assert {psycopg2.DataError, psycopg2.IntegrityError, psycopg2.DatabaseError} < set(classes)
    assert psycopg2.extensions.TransactionRollbackError in classes
    assert all(cls.__module__ in ("psycopg2", "psycopg2.extensions") for cls in classes)


TEXTS = ["", " ", "ERROR:  ERROR:  x", "a\nb\n", "\n", "%s %d", "é" * 3000, "'\"\\", "😀"]


@pytest.mark.parametrize("text", TEXTS)
def test_long_and_odd_messages(roads, text):
    error = roads.same(f"DO $do$ BEGIN RAISE EXCEPTION '%', $text${text}$text$; END $do$").error
    assert error.diag.message_primary == text


# --- with others in the way -----------------------------------------------------------------------


def numbers_hidden(error):
    """An error's portrait without the numbers of processes and transactions."""
    return [re.sub(r"\d+", "N", repr(part)) for part in portrait_of_error(error)]


def outcomes(roads, prepare):
    """What prepare(road) makes of each road, all alike."""
    errors = [prepare(road).error for road in roads.all]
    assert len({tuple(numbers_hidden(error)) for error in errors}) == 1
    return errors[0]


def run(road, sql):
    return road.execute(sql, None, psycopg2.extensions.cursor, lambda cursor: None)


def test_serialization_failure(roads, side):
    def concurrent(road):
        for sql in ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT * FROM parent"):
            assert run(road, sql).error is None
        scalar(side, "UPDATE parent SET name = name RETURNING 1")
        return run(road, "UPDATE parent SET name = 'mine'")

    error = outcomes(roads, concurrent)
    assert type(error) is psycopg2.errors.SerializationFailure
    assert isinstance(error, psycopg2.extensions.TransactionRollbackError)


@pytest.fixture
def locked(side):
    """A transaction of another session that holds the row of `parent`."""
    side.autocommit = False
    scalar(side, "SELECT id FROM parent FOR UPDATE")
    yield
    side.rollback()


def test_lock_timeout(roads, side, locked):
    roads.prepare("SET lock_timeout = 20")
    error = outcomes(roads, lambda road: run(road, "UPDATE parent SET n = 2"))
    assert type(error) is psycopg2.errors.LockNotAvailable


def test_nowait(roads, side, locked):
    error = outcomes(roads, lambda road: run(road, "SELECT 1 FROM parent FOR UPDATE NOWAIT"))
    assert type(error) is psycopg2.errors.LockNotAvailable


def test_deadlock(roads, dsn, side):
    """A real one; the other session is too patient to be the one that finds it."""
    side.cursor().execute("CREATE TABLE two (i int); INSERT INTO two VALUES (1), (2)")
    other = psycopg2.connect(dsn, options="-c deadlock_timeout=100s")
    other.autocommit = True
    pid = other.get_backend_pid()

    def deadlock(road):
        run(road, "SET deadlock_timeout = 10")
        assert run(road, "BEGIN; SELECT 1 FROM two WHERE i = 1 FOR UPDATE").error is None
        other.cursor().execute("BEGIN; SELECT 1 FROM two WHERE i = 2 FOR UPDATE")
        blocked = threading.Thread(
            target=other.cursor().execute,
            args=["SELECT 1 FROM two WHERE i = 1 FOR UPDATE; COMMIT"],
        )
        blocked.start()
        try:
            while not scalar(side, "SELECT cardinality(pg_blocking_pids(%s))", (pid,)):
                assert activity(side, pid)
            return run(road, "SELECT 1 FROM two WHERE i = 2 FOR UPDATE")
        finally:
            run(road, "ROLLBACK")
            blocked.join()

    try:
        error = outcomes(roads, deadlock)
    finally:
        other.close()
    assert type(error) is psycopg2.errors.DeadlockDetected
    assert "waits for" in error.diag.message_detail
