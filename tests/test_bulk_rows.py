"""What executemany() stores and shows: as a loop of execute(), and as psycopg2's own."""

import datetime as dt
import decimal
import uuid

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extras import Json
from roads import check_equal, portrait, portrait_of_error
from support import registries_restored

TABLE = """
    CREATE TABLE kept (
        n serial, i int, big bigint, small smallint, num numeric, dec numeric(6, 2), f float8,
        r real, t text, v varchar(5), c char(3), b bytea, flag bool, d date, ts timestamp,
        tz timestamptz, tm time, iv interval, u uuid, js json, jb jsonb, ints int[], texts text[],
        span interval day, mood text CHECK (mood <> 'bad')
    )
"""

# column: values, each of which is stored or refused
VALUES = {
    "i": [1, None, -1, 2**31 - 1, 2**31, "7", "x", 1.5, True, decimal.Decimal("2.5"), 1e300],
    "big": [1, 2**31, 2**63 - 1, 2**63, None, "8", -(2**31), -(2**63)],
    "small": [1, 40000, None, "1"],
    "num": [1, 2**70, 1.5, -0.0, 1e300, float("nan"), decimal.Decimal("1.500"), "2", None],
    "dec": [1, 1.005, 12345.67, decimal.Decimal("0.005"), None, "1.555"],
    "f": [
        1.5,
        -0.0,
        0.1,
        1e308,
        5e-324,
        float("nan"),
        float("inf"),
        3,
        None,
        "2.5",
        decimal.Decimal("0.1"),
        1e22,
    ],
    "r": [1.5, 0.1, 1e300, 3, None],
    "t": [
        "",
        "it's",
        "a\\b",
        "ä€\U0001f600",
        "%s",
        "$1",
        5,
        1.5,
        True,
        b"x",
        None,
        "x" * 10000,
        dt.date(2024, 1, 2),
        "\ud800",
        "a\0b",
    ],
    "v": ["abc", "abcdef", "abc      ", 12, 123456, None],
    "c": ["a", "abcd", None],
    "b": [b"", b"a\0b\\", bytearray(b"x"), memoryview(b"y"), "text", None],
    "flag": [True, False, "yes", 1, None],
    "d": [dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, 3), "2024-01-02", "now", "nonsense", None],
    "ts": [dt.datetime(2024, 1, 2, 3, 4, 5, 6), dt.date(2024, 1, 2), "infinity", None],
    "tz": [dt.datetime(2024, 1, 2, 3, tzinfo=dt.timezone.utc), dt.datetime(2024, 1, 2), None],
    "tm": [dt.time(1, 2, 3), "24:00", None],
    "iv": [dt.timedelta(1, 2, 3), "5", None],
    "u": [uuid.UUID(int=5), str(uuid.UUID(int=6)), "no", None],
    "js": [Json({"a": [1, None]}), '{"b": 2}', "{", None],
    "jb": [Json({"a": 1, "a ": 2}), "3", Json("\0"), None],
    "ints": [[], [1, 2], [2**40], [1, None], "{3}", None, [1.5]],
    "texts": [[], ["a", "b'\\\""], [None], ["x", None], None],
    "span": ["5", "1 day", dt.timedelta(3), None],
    "mood": ["good", "bad", None, 3],
}


def reference(side, statement, rows, inside):
    """psycopg2's executemany() in one transaction: what it raises, shows and stores."""
    with side.cursor() as cursor, side.cursor() as other:
        cursor.execute(TABLE)
        (cursor if inside else other).execute("BEGIN")
        try:
            cursor.executemany(statement, rows)
        except Exception as error:
            seen = portrait_of_error(error), cursor.query, cursor.rowcount, cursor.statusmessage
            cursor.execute("ROLLBACK")
        else:
            seen = None, cursor.query, cursor.rowcount, cursor.statusmessage
            cursor.execute("COMMIT")
        cursor.execute("SELECT kept::text FROM kept ORDER BY n")
        stored = cursor.fetchall()
        cursor.execute("DROP TABLE kept")
    return seen, portrait(stored)


async def executed(cursor, statement, rows, inside):
    await cursor.execute(TABLE)
    if inside:
        await cursor.execute("BEGIN")
    error = None
    try:
        await cursor.executemany(statement, rows)
    except Exception as raised:
        error = portrait_of_error(raised)
    seen = error, cursor.query, cursor.rowcount, cursor.statusmessage
    if inside:
        await cursor.execute("ROLLBACK" if error else "COMMIT")
    await cursor.execute("SELECT kept::text FROM kept ORDER BY n")
    stored = await cursor.fetchall()
    await cursor.execute("DROP TABLE kept")
    return seen, portrait(stored)


def batches(column):
    """Each value behind good ones, so that the statement is prepared by then; and all good ones."""
    good = VALUES[column][0]
    for value in VALUES[column]:
        yield [(good,)] * 5 + [(value,)] + [(good,)] * 2
        yield [(None,)] * 5 + [(value,)] * 30 + [(None,)] * 2
        yield [(value,)] * 8


@pytest.mark.parametrize("inside", [False, True], ids=["own", "inside"])
@pytest.mark.parametrize("column", VALUES)
async def test_values(ours, side, connect, column, inside):
    conn = await connect()
    cursor = await conn.cursor()
    statement = f"INSERT INTO kept ({column}) VALUES (%s)"
    if inside:
        statement = f"INSERT INTO kept ({column}, i) VALUES (%s, 4) RETURNING n"
    for rows in batches(column):
        expected = reference(side, statement, rows, inside)
        check_equal("executemany", rows, await executed(cursor, statement, rows, inside), expected)


STATEMENTS = {
    "UPDATE kept SET t = %s WHERE i = %s": [("a", 1), ("b", 2), ("c", 99), (None, 3), ("d", "4")],
    "UPDATE kept SET i = i + %s WHERE i < %s": [(1, 3), (1, 30), (2**31, 5)],
    "UPDATE kept SET big = %s WHERE i = %s": [(2**40, 1), (5, 2), ("6", 3), (None, 4)],
    "DELETE FROM kept WHERE i = %s": [(1,), (1,), (2,)],
    "DELETE FROM kept WHERE i IN (%s, %s)": [(1, 2), (3, 4), (5, 2**40)],
    "SELECT * FROM kept WHERE i = %s": [(1,), (2,), (77,)],
    "INSERT INTO kept (i, t) VALUES (%(i)s, %(t)s)": [{"i": 1, "t": "x"}, {"t": "y", "i": 2}],
    "INSERT INTO kept (i, t) VALUES (%(i)s, %(i)s)": [{"i": i} for i in range(5)],
    "INSERT INTO kept (t) VALUES (lower(%s))": [("AB",), ("Ä",), (None,), (5,)],
    "INSERT INTO kept (t) VALUES (%s || 'x')": [("a",), ("b",), (1,)],
    "INSERT INTO kept (i) SELECT %s FROM generate_series(1, 3)": [(1,), (2,), (None,)],
    "INSERT INTO kept (i) VALUES (%s) -- and a comment": [(1,), (2,), (3,), (4,)],
    "INSERT INTO kept (i) VALUES (%s);": [(1,), (2,), (3,), (4,)],
    "INSERT INTO kept (i) VALUES (%s); DELETE FROM kept WHERE i = %s": [(1, 2), (3, 1)],
    "INSERT INTO kept (ints) VALUES (%s::int[])": [([],), ([1],), (["2"],), (None,), (["x"],)],
    "INSERT INTO kept (i) VALUES (1 / %s)": [(1,), (2,), (0,)],
    "INSERT INTO kept (d) VALUES (%s::date)": [("2024-01-02",), (None,), ("now",), ("x",)],
    "INSERT INTO nothing_of_this_name VALUES (%s)": [(1,), (2,)],
    "INSERT INTO kept (i) VALUES (%s": [(1,), (2,)],
    "SET work_mem = %s": [("1MB",), ("2MB",)],
    "INSERT INTO kept (i) VALUES (3)": [(), (), ()],
    "SELECT 1": [None, (), None],
}


@pytest.mark.parametrize("times", [1, 12])
@pytest.mark.parametrize("inside", [False, True], ids=["own", "inside"])
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_statements(ours, side, connect, statement, inside, times):
    cursor = await (await connect()).cursor()
    rows = STATEMENTS[statement] * times
    expected = reference(side, statement, rows, inside)
    for operation in (statement, statement.encode()):
        check_equal(operation, rows, await executed(cursor, operation, rows, inside), expected)


class Money(int):
    """Has an adapter of the program's own."""


async def test_adapters_of_the_program(ours, side, connect):
    """One that is registered while the batch is under way, and writes more than one value."""

    cursor = await (await connect()).cursor()
    await cursor.execute(TABLE)
    with registries_restored():
        psycopg2.extensions.register_adapter(
            Money, lambda money: psycopg2.extensions.AsIs(f"{int(money)} + 1")
        )
        await cursor.executemany(
            "INSERT INTO kept (i) VALUES (%s)", [(Money(i),) for i in range(9)]
        )
        await cursor.execute("SELECT array_agg(i ORDER BY n) FROM kept")
        assert await cursor.fetchone() == (list(range(1, 10)),)

    def texts():
        yield from ([("x",)] * 20)
        psycopg2.extensions.register_adapter(
            str, lambda text: psycopg2.extensions.AsIs(f"'<{text}>'")
        )
        yield from ([("y",)] * 20)

    await cursor.execute("DELETE FROM kept")
    with registries_restored():
        await cursor.executemany("INSERT INTO kept (t) VALUES (%s)", texts())
    await cursor.execute("SELECT t, count(*) FROM kept GROUP BY t ORDER BY t")
    assert sorted(await cursor.fetchall()) == [("<y>", 20), ("x", 20)]
    await cursor.execute("DROP TABLE kept")
