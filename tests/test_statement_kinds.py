"""What is told of any text: its first word, whether it is one statement, what it may change."""

import random

import pytest
from conftest import command, side_connection
from support import LONG, scalar

from aiopgx._eligibility import read_text


@pytest.fixture(scope="module")
def conn(dsn):
    with side_connection(dsn) as conn:
        yield conn


def told(operation, parameters=False):
    text = read_text(operation, parameters)
    return text.kind, text.single, text.changes_session


@pytest.mark.parametrize(
    ("operation", "kind", "single", "changes"),
    [
        ("SELECT 1", "SELECT", True, False),
        ("select 1 ; ", "SELECT", True, False),
        ("SELECT 1;;", "SELECT", True, False),
        ("(SELECT 1)", "SELECT", True, False),
        ("-- one\n/* /* two */ ; */ SELECT 1 -- ;", "SELECT", True, False),
        ("SELECT 'a;''b', \";\", $$;$$, $a$;$$;$a$, E';\\';'", "SELECT", True, False),
        ("SELECT 1; SELECT 2", "SELECT", False, False),
        ("SELECT 1; SET a = 1", "SELECT", False, True),
        ("", "", False, False),
        (";", "", False, False),
        ("INSERT INTO t VALUES (1)", "INSERT", True, False),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT 1", "WITH", True, False),
        ("MERGE INTO t USING u ON a = b WHEN MATCHED THEN DELETE", "MERGE", True, False),
        ("SELECT a INTO t FROM u", "SELECT", True, True),
        ("WITH a AS (SELECT 1) SELECT * INTO t FROM a", "WITH", True, True),
        ("BEGIN", "BEGIN", True, False),
        ("START TRANSACTION", "START", True, False),
        ("COMMIT", "COMMIT", True, False),
        ("SAVEPOINT a", "SAVEPOINT", True, False),
        ("ROLLBACK", "ROLLBACK", True, True),
        ("rollback to a", "ROLLBACK", True, True),
        ("ABORT", "ABORT", True, True),
        ("SET a = 1", "SET", True, True),
        ("RESET a", "RESET", True, True),
        ("DISCARD ALL", "DISCARD", True, True),
        ("DEALLOCATE ALL", "DEALLOCATE", True, True),
        ("CREATE TABLE t (a int)", "CREATE", True, True),
        ("ALTER TABLE t ADD b int", "ALTER", True, True),
        ("DROP TABLE t", "DROP", True, True),
        ("DO $$BEGIN SET a = 1; END$$", "DO", True, True),
        ("CALL p()", "CALL", True, True),
        ("SELECT set_config('a', 'b', false)", "SELECT", True, True),
        ("SELECT pg_catalog.\"set_config\"('a', 'b', false)", "SELECT", True, True),
        ("SELECT U&\"set!005fconfig\" UESCAPE '!'", "SELECT", True, True),
        ("SELECT 'set_config', U&'set_config'", "SELECT", True, False),
        ("LISTEN a", "LISTEN", True, False),
        ("FETCH 1 FROM a", "FETCH", True, False),
        # where a string ends depends on the session: the worst is taken
        ("SELECT 'a\\', 'b'", "SELECT", False, True),
        ("SELECT 'a", "SELECT", False, True),
        ("SELECT 1 /* a", "SELECT", False, True),
        ("SELECT $a$ a", "SELECT", False, True),
        ("SELECT 1\0; SET a = 1", "SELECT", False, True),
        ("1", "", True, True),
    ],
)
def test_kinds(operation, kind, single, changes):
    assert told(operation) == (kind, single, changes)


@pytest.mark.parametrize(
    ("operation", "single"),
    [
        ("SELECT %s, '%%;', %(a)s", True),
        ("SELECT '%s'", False),
        ('SELECT "%(a)s"', False),
        ("SELECT 1 -- %s", False),
        ("SELECT 1 /* %s */", False),
        ("SELECT $$%s$$", False),
        ("SELECT 1 -- 100 %%", True),
        ("SELECT %d", False),
    ],
)
def test_placeholders_in_quotes_bring_quotes(operation, single):
    """A literal that is written there may end what it stands in."""
    assert told(operation, True) == ("SELECT", single, not single)


def test_bytes_are_looked_through():
    assert told(b"SET a = 1") == ("SET", True, True)
    assert told("SELECT 'é'; SELECT 2".encode()) == ("SELECT", False, False)
    assert told(None) == ("", False, True)


# --- as the server sees it ------------------------------------------------------------------------

# A cursor is opened for one statement only; the text is read whole before.
COUNTER = """CREATE FUNCTION pg_temp.is_single(query text) RETURNS bool LANGUAGE plpgsql AS $f$
    DECLARE r record;
    BEGIN
        FOR r IN EXECUTE query LOOP END LOOP;
        RETURN true;
    EXCEPTION
        WHEN invalid_cursor_definition THEN RETURN SQLERRM NOT LIKE '%multi-query%';
        WHEN others THEN RETURN NULL;
    END $f$"""
ITEMS = [
    *(
        "1",
        "'a;b'",
        "'it''s;'",
        "$$;$$",
        "$x$ ; $y$ $$ $x$",
        "E'\\';'",
        "e'a;\\\\'",
        "'a\\'",
        "1.5e3",
    ),
    *("N'a;'", "B'1'", "X'1F'", "'a;' \n 'b'", "U&'a;'", '1 AS "a;b"', '2 AS "a"";"', "- 1"),
    *(
        "1 AS a$b",
        "1 /* ; /* ; */ */",
        "2 -- ;\n",
        "3 --;\r",
        "1+-1",
        "'/*;'",
        "1/ 2",
        "(SELECT 1)",
    ),
]
GAPS = [" ", "\n", " /*;*/ ", " --;\n", "\t", "/* ' */", " -- $$\n"]
BREAKS = ["'", '"', "$$", "$x$", "/*", "*/", "--", ";", "\\", "E", "\n", "(", "''", ""]


def texts(pick):
    """One to three SELECTs with all kinds of strings and comments; half of them damaged."""
    while True:
        text = pick.choice(["", *GAPS])
        for _ in range(pick.choice([1, 1, 2, 3])):
            items = [pick.choice(ITEMS) for _ in range(pick.choice([1, 1, 2, 3]))]
            text += f"SELECT{pick.choice(GAPS)}{', '.join(items)}{pick.choice(GAPS)}"
            text += pick.choice([";", ";", ";;", "; ", ""])
        if pick.random() < 0.5:
            i = pick.randrange(len(text))
            text = text[:i] + pick.choice(BREAKS) + text[i + pick.choice([0, 1]) :]
        yield text


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_single_as_the_server_sees_it(conn, conforming):
    """Never single where the server finds several; and seldom not where it finds one."""
    command(conn, f"SET standard_conforming_strings = {conforming}")
    command(conn, "SET client_min_messages = error")
    command(conn, "SET escape_string_warning = off")
    command(conn, "DROP FUNCTION IF EXISTS pg_temp.is_single(text)")
    command(conn, COUNTER)
    generated = texts(random.Random(3))
    singles = known = 0
    for _ in range(50_000 if LONG else 2000):
        text = next(generated)
        answer = scalar(conn, "SELECT pg_temp.is_single(%s)", (text,))
        if answer is not None:
            known += 1
            found = read_text(text, False).single
            assert answer or not found, text
            singles += answer
            assert found or not answer or "\\'" in text, text
    assert singles > 400
    assert known - singles > 200


# --- what would show ------------------------------------------------------------------------------

# A statement that shows how it was sent, or when it was prepared.
SHOWING = [
    "SELECT 'now'::timestamptz",
    "SELECT timestamptz 'NOW'",
    "SELECT 'no'\n'w'::timestamptz",
    "SELECT U&'n!006fw' UESCAPE '!'::timestamptz",
    "SELECT '{now}'::timestamptz[]",
    "SELECT current_query()",
    'SELECT "current_query"()',
    'SELECT pg_catalog . "current_query" ( )',
    "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    'SELECT query FROM "pg_stat_activity" WHERE pid = pg_backend_pid()',
    "SELECT query FROM pg_stat_get_activity(pg_backend_pid())",
    "SELECT pg_stat_get_backend_activity(i) FROM pg_stat_get_backend_idset() i"
    " WHERE pg_stat_get_backend_pid(i) = pg_backend_pid()",
    "SELECT count(*) FROM pg_prepared_statements",
    "SELECT count(*) FROM pg_prepared_statement()",
]


@pytest.mark.parametrize("operation", SHOWING)
def test_what_would_show_is_not_eligible(conn, operation):
    """Each of them differs when it is prepared; each stays text."""
    command(conn, "RESET standard_conforming_strings")
    before = scalar(conn, operation)
    command(conn, f"PREPARE shown AS {operation}")
    first = scalar(conn, "EXECUTE shown")
    again = scalar(conn, "EXECUTE shown")
    command(conn, "DEALLOCATE shown")
    assert before != first or first == again != scalar(conn, operation)
    assert not read_text(operation, False).eligible
    assert not read_text(operation, True).eligible


@pytest.mark.parametrize("operation", ["SELECT now()", "SELECT 'no' || 'w'", "SELECT 1 AS current"])
def test_what_would_not_show_is_eligible(operation):
    assert read_text(operation, False).eligible
