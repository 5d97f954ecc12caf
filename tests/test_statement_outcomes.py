"""Statements of every kind: what a cursor shows after them is the same on every road."""

import psycopg2.extras
import pytest
from conftest import command, side_connection
from psycopg2.extensions import cursor as TupleCursor

FACTORIES = [
    *(TupleCursor, psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor),
    psycopg2.extras.NamedTupleCursor,
]
SCHEMA = """
    CREATE TABLE stock (id serial PRIMARY KEY, name varchar(9), price numeric(10, 2), tags text[]);
    CREATE MATERIALIZED VIEW dear AS SELECT * FROM stock WHERE price > 1;
    CREATE PROCEDURE twice(INOUT n int, INOUT s text) LANGUAGE plpgsql AS
        $$ BEGIN n := 2 * n; s := s || s; END $$;
    CREATE PROCEDURE nothing() LANGUAGE plpgsql AS $$ BEGIN END $$;
    CREATE FUNCTION two(OUT a int, OUT b text) LANGUAGE sql AS $$ SELECT 1, 'x' $$;
"""
# The tables stay, since their OIDs are in `description`.
RESET = """
    DROP TABLE IF EXISTS made;
    DROP TYPE IF EXISTS made_type;
    TRUNCATE stock RESTART IDENTITY;
    INSERT INTO stock (name, price, tags) VALUES
        ('nut', 0.10, '{}'), ('bolt', 1.50, '{a,NULL}'), (NULL, NULL, NULL);
"""

STATEMENTS = [
    # rows
    "SELECT * FROM stock ORDER BY id",
    "SELECT s FROM stock AS s ORDER BY id",
    "SELECT id, id, name AS id, price * 2, 'x', NULL, count(*) OVER () FROM stock ORDER BY 1",
    'SELECT 1 AS "?", 2 AS " ", 3 AS "a""b", 4 AS "ä", 5 AS "class", 6 AS "_x", 7 AS "%s"',
    "SELECT tableoid, ctid, xmin::text <> '' FROM stock WHERE id = 1",
    "SELECT * FROM stock WHERE false",
    "SELECT",
    "SELECT FROM stock",
    "SELECT WHERE false",
    "TABLE stock",
    "VALUES (1, 'a'), (2, NULL)",
    "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n",
    "SELECT * FROM two()",
    "SELECT two()",
    "SELECT generate_series(1, 3), generate_series(1, 2)",
    "SELECT * FROM stock ORDER BY id FOR UPDATE",
    "SELECT name, sum(price) FROM stock GROUP BY ROLLUP (name) ORDER BY name",
    "SHOW server_encoding",
    "SHOW search_path",
    "EXPLAIN (COSTS off) SELECT * FROM stock",
    "EXPLAIN (COSTS off, FORMAT json) SELECT * FROM stock",
    "EXPLAIN (COSTS off, FORMAT xml) DELETE FROM stock",
    "EXPLAIN (COSTS off, FORMAT yaml) SELECT 1",
    "EXPLAIN (COSTS off, ANALYZE, TIMING off, SUMMARY off, BUFFERS off) SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM stock ORDER BY id; FETCH 2 FROM c",
    "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1; FETCH ALL FROM c; MOVE BACKWARD ALL IN c",
    "PREPARE p AS SELECT $1::int + 1; EXECUTE p(41)",
    "PREPARE p AS DELETE FROM stock; EXECUTE p",
    "CALL twice(4, 'ab')",
    "CALL nothing()",
    # changes
    "INSERT INTO stock (name) VALUES ('a')",
    "INSERT INTO stock (name) VALUES ('a'), ('b') RETURNING id, name, price, tags",
    "INSERT INTO stock DEFAULT VALUES RETURNING *",
    "INSERT INTO stock SELECT * FROM stock WHERE false",
    "INSERT INTO stock (id) VALUES (1) ON CONFLICT DO NOTHING RETURNING id",
    "INSERT INTO stock (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y' "
    "RETURNING id, name",
    "UPDATE stock SET price = price * 2",
    "UPDATE stock SET price = 7 WHERE id < 3 RETURNING id, price",
    "UPDATE stock SET price = 7 WHERE false RETURNING id, price",
    "DELETE FROM stock",
    "DELETE FROM stock WHERE id = 2 RETURNING *",
    "DELETE FROM stock WHERE false",
    "WITH gone AS (DELETE FROM stock RETURNING id) SELECT count(*) FROM gone",
    "WITH new AS (SELECT 9 AS n) INSERT INTO stock (id) SELECT n FROM new",
    "TRUNCATE stock",
    # definitions
    "CREATE TABLE made (a int)",
    "CREATE TABLE made AS SELECT * FROM stock",
    "CREATE TABLE made AS SELECT * FROM stock WITH NO DATA",
    "SELECT * INTO made FROM stock",
    "CREATE TABLE IF NOT EXISTS stock (a int)",
    "CREATE TYPE made_type AS ENUM ('a')",
    "CREATE TEMP VIEW made_view AS SELECT 1",
    "CREATE INDEX ON stock (name); DROP INDEX stock_name_idx",
    "COMMENT ON TABLE stock IS 'x'",
    "GRANT SELECT ON stock TO PUBLIC",
    "ALTER TABLE stock SET (fillfactor = 90)",
    "DROP TABLE IF EXISTS missing",
    "REFRESH MATERIALIZED VIEW dear",
    "ANALYZE stock",
    "VACUUM stock",
    # the session
    "SET application_name = 'x'",
    "RESET application_name",
    "SELECT set_config('a.b', 'c', false)",
    "BEGIN",
    "BEGIN; SAVEPOINT s; ROLLBACK TO s; RELEASE s",
    "START TRANSACTION READ ONLY; SELECT 1",
    "BEGIN; INSERT INTO stock (id) VALUES (8); COMMIT",
    "COMMIT",
    "ROLLBACK",
    "DISCARD TEMP",
    "DEALLOCATE ALL",
    "CLOSE ALL",
    "LISTEN x; UNLISTEN x",
    "NOTIFY x",
    "DO $$ BEGIN RAISE NOTICE 'x'; END $$",
    "DO $$ BEGIN END $$",
    "LOAD 'plpgsql'",
    # several, and none
    "SELECT 1; SELECT 'a' AS b, 'c' AS d",
    "SELECT 1; CREATE TABLE made (a int)",
    "CREATE TABLE made (a int); INSERT INTO stock (id) VALUES (21), (22) RETURNING id",
    "SELECT 1;",
    "SELECT 1; ;",
    "SELECT 1 -- the end",
    "/* the start */ SELECT 1",
]
FAILING = [
    "SELECT * FROM missing",
    "SELECT 1; SELECT 1/0",
    "SELECT 1/0; SELECT 1",
    "INSERT INTO stock (id) VALUES (10); SELECT 1/0",
    "INSERT INTO stock (id) VALUES (1)",
    "LOCK TABLE stock",
    "CREATE TABLE made (a int); VACUUM stock",
    "EXECUTE missing",
    "FETCH ALL FROM missing",
    "",
    " ",
    ";",
    "-- nothing",
    "/* nothing */;",
]
SINCE = {
    14: [
        "CREATE PROCEDURE pg_temp.p(OUT n int) LANGUAGE sql AS $$ SELECT 1 $$; "
        "CALL pg_temp.p(NULL)",
    ],
    15: [
        "MERGE INTO stock AS s USING (VALUES (1), (9)) AS v (i) ON s.id = v.i "
        "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (i)",
        "MERGE INTO stock AS s USING (VALUES (1)) AS v (i) ON false WHEN MATCHED THEN DO NOTHING",
    ],
    17: [
        "MERGE INTO stock AS s USING (VALUES (1), (9)) AS v (i) ON s.id = v.i "
        "WHEN MATCHED THEN UPDATE SET name = 'm' WHEN NOT MATCHED THEN INSERT (id) VALUES (i) "
        "RETURNING merge_action(), s.*, v.i",
    ],
    18: [
        "UPDATE stock SET price = 3 WHERE id = 1 RETURNING old.price, new.price, *",
    ],
}

TYPMODS = [
    *("numeric", "numeric(10, 2)", "numeric(5)", "numeric(1000, 0)", "numeric(3, 0)[]"),
    *("varchar", "varchar(5)", "varchar(10485760)", "varchar(5)[]", "char", "char(3)", "text"),
    *("bit", "bit(4)", "varbit", "varbit(9)", "bit(3)[]", "name", '"char"'),
    *("timestamp", "timestamp(0)", "timestamp(3)", "timestamptz(6)", "timestamptz(2)[]"),
    *("time", "time(0)", "time(4)", "timetz(1)", "date", "bool", "int2", "int4", "int8"),
    *("interval", "interval(3)", "interval year", "interval year to month", "interval second(2)"),
    *("interval day to second(2)", "interval hour to minute", "interval(0)[]"),
    *("float4", "float8", "float(1)", "float(53)", "uuid", "json", "bytea", "inet", "oid"),
]


@pytest.fixture(scope="module")
def dsn(dsn):
    with side_connection(dsn) as conn:
        command(conn, SCHEMA)
    return dsn


def same(roads, side, sql, factory):
    with roads.using(lambda cursor: command(side, RESET)):
        outcome = roads.same(sql, factory=factory)
    roads.prepare("ROLLBACK")
    roads.prepare("CLOSE ALL; DEALLOCATE ALL; DISCARD TEMP")
    return outcome


@pytest.mark.parametrize("sql", STATEMENTS + FAILING)
def test_statement(roads, side, sql):
    tuples, *_ = (same(roads, side, sql, factory) for factory in FACTORIES)
    assert (tuples.error is not None) == (sql in FAILING)


@pytest.mark.parametrize("version", SINCE)
def test_statement_of_a_version(roads, side, version):
    known = side.server_version >= version * 10000
    for sql in SINCE[version]:
        tuples, *_ = (same(roads, side, sql, factory) for factory in FACTORIES)
        assert (tuples.error is None) == known


def test_typmods(roads):
    columns = ", ".join(f"c{number} {name}" for number, name in enumerate(TYPMODS))
    names = ", ".join(f"c{number}" for number in range(len(TYPMODS)))
    casts = ", ".join(f"NULL::{name}" for name in TYPMODS)
    roads.reference.raw.cursor().execute(f"CREATE TABLE typmods ({columns}, gone int, last int)")
    roads.reference.raw.cursor().execute("ALTER TABLE typmods DROP gone")
    for sql in (
        "SELECT * FROM typmods",
        "SELECT last, t.* FROM typmods AS t",
        f"INSERT INTO typmods ({names}) SELECT {casts} RETURNING *",
        f"SELECT {casts}",
        f"SELECT {names} FROM typmods UNION ALL SELECT {names} FROM typmods",
        "SELECT c1, c1 + 1, round(c1, 1), coalesce(c6, c6), max(c6), c6 || 'x' FROM typmods"
        " GROUP BY c1, c6",
    ):
        outcome = roads.same(sql)
        assert outcome.error is None


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT %s, %s, %s", (1, "a'b\\", None)),
        ("SELECT %(a)s, %(b)s, %(a)s", {"a": 1.5, "b": [1, None]}),
        ("INSERT INTO stock (name, tags) VALUES (%s, %s) RETURNING *", ("é", ["a", None])),
        ("SELECT 1 WHERE 1 IN %s", ((1, 2),)),
        ("SELECT %s", (b"\x00\xff",)),
        ("SELECT 5 %% 3", ()),
        ("SELECT %s; SELECT %s", (1, 2)),
    ],
)
def test_statement_with_parameters(roads, side, sql, parameters):
    with roads.using(lambda cursor: command(side, RESET)):
        assert roads.same(sql, parameters).error is None
