"""Core on the dialect, beside psycopg2's."""

import datetime
import decimal
import json
import logging
import uuid

import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

UTC = datetime.timezone.utc
DAY = datetime.date(2024, 2, 29)
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 15, 250000)

VALUES = [
    (sa.Integer, 7),
    (sa.BigInteger, 2**40),
    (sa.Numeric(10, 3), decimal.Decimal("1.250")),
    (sa.Numeric(10, 3, asdecimal=False), 1.25),
    (sa.Float, 1.5),
    (sa.Float(asdecimal=True), decimal.Decimal("1.5")),
    (sa.Boolean, True),
    (sa.String(20), "it's 50% \\ ü"),
    (sa.Text, ""),
    (sa.LargeBinary, b"\x00\xff'"),
    (sa.Date, DAY),
    (sa.DateTime, MOMENT),
    (sa.DateTime(timezone=True), MOMENT.replace(tzinfo=UTC)),
    (sa.Time, MOMENT.time()),
    (sa.Interval, datetime.timedelta(days=3, seconds=7)),
    (sa.Enum("a", "b", name="letters"), "b"),
    (sa.JSON, {"a": [1, None, "ü"]}),
    (pg.JSONB, [{"a": 1.5}]),
    (sa.Uuid, uuid.UUID(int=5)),
    (pg.UUID(as_uuid=False), str(uuid.UUID(int=6))),
    (pg.ARRAY(sa.Integer), [1, None, 3]),
    (pg.ARRAY(sa.String, dimensions=2), [["a", "b"], ["c", None]]),
    (pg.ARRAY(pg.UUID), [uuid.UUID(int=5)]),
    (pg.HSTORE, {"a": "1", "b": None}),
    (pg.INT4RANGE, pg.Range(1, 5)),
    (pg.INT8RANGE, pg.Range(None, 5, bounds="()")),
    (pg.NUMRANGE, pg.Range(decimal.Decimal("1.5"), None, bounds="[)")),
    (pg.DATERANGE, pg.Range(DAY, DAY + datetime.timedelta(9))),
    (pg.TSRANGE, pg.Range(MOMENT, None, bounds="[)")),
    (pg.TSTZRANGE, pg.Range(empty=True)),
    (pg.INET, "10.0.0.1"),
    (pg.BIT(3), "101"),
    (pg.OID, 4000000000),
    (pg.TSVECTOR, "'a' 'b'"),
]


async def test_values_of_each_type_are_those_of_the_psycopg2_dialect(both):
    table = sa.Table(
        "kinds",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(f"c{i}", kind) for i, (kind, _) in enumerate(VALUES)),
    )

    def body(connection):
        table.create(connection)
        connection.execute(table.insert(), {f"c{i}": value for i, (_, value) in enumerate(VALUES)})
        connection.execute(table.insert(), [{"id": 2}, {"id": 3}])
        rows = connection.execute(sa.select(table).order_by(table.c.id)).all()
        found = connection.execute(
            sa.select(table.c.id).where(
                *(
                    column == value
                    for column, (kind, value) in zip(list(table.c)[1:], VALUES, strict=True)
                    if kind is not sa.JSON
                )
            )
        ).all()
        connection.rollback()
        return rows, found

    rows, found = await both(body)
    assert found == [(1,)]
    assert list(rows[0][1:]) == [value for _, value in VALUES]


async def test_json_serializers(both):
    def body(connection):
        parameter = sa.bindparam("x", {"a": 1}, pg.JSONB)
        query = sa.select(sa.cast(parameter, pg.JSONB), sa.cast(parameter, sa.JSON))
        return [tuple(row) for row in connection.execute(query)], connection.exec_driver_sql(
            "SELECT '{}'::json, '[]'::jsonb"
        ).one()

    value = await both(
        body,
        json_serializer=lambda value: json.dumps([value]),
        json_deserializer=lambda text: ("loaded", text),
    )
    assert value == ([(("loaded", '[{"a": 1}]'),) * 2], (("loaded", "{}"), ("loaded", "[]")))


@pytest.mark.parametrize("native", [True, False])
async def test_hstore_with_and_without_psycopg2s_own(both, native):
    def body(connection):
        return connection.exec_driver_sql("SELECT 'a=>1'::hstore").scalar(), connection.scalar(
            sa.select(sa.cast({"b": "2"}, pg.HSTORE))
        )

    raw, typed = await both(body, use_native_hstore=native)
    assert typed == {"b": "2"}
    assert raw == ({"a": "1"} if native else '"a"=>"1"')


ERRORS = [
    "SELECT 1/0",
    "SELECT nothing",
    "selec",
    "",
    "SELECT 'x'::int",
    "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'XX123'; END $$",
    "COPY pg_type TO STDOUT",
    "INSERT INTO pg_type VALUES (1)",
]


@pytest.mark.parametrize("statement", ERRORS)
async def test_errors_are_those_of_the_psycopg2_dialect(both, statement):
    def body(connection):
        return connection.exec_driver_sql(statement)

    kind, cause, _, text = await both(body)
    assert issubclass(kind, sa.exc.DBAPIError) and issubclass(cause, psycopg2.Error)
    assert text


async def test_parameters_that_cannot_be_adapted(both):
    def body(connection):
        return connection.exec_driver_sql("SELECT %(x)s", {"x": object}).scalar()

    assert (await both(body))[1] is psycopg2.ProgrammingError


async def test_a_query_that_the_server_cancels_is_an_error_and_no_cancellation(both, loop_errors):
    def body(connection):
        connection.exec_driver_sql("SET LOCAL statement_timeout = 30")
        connection.exec_driver_sql("SELECT pg_sleep(10)")

    kind, cause, code, _ = await both(body)
    assert (kind, cause, code) == (
        sa.exc.OperationalError,
        psycopg2.errors.QueryCanceled,
        "57014",
    )
    assert not loop_errors


async def test_insertmanyvalues_in_batches_with_returning(both):
    table = sa.Table(
        "many",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String),
    )

    def body(connection):
        batches = []

        @sa.event.listens_for(connection, "before_cursor_execute")
        def count(conn, cursor, statement, parameters, context, executemany):
            batches.append(statement.count("(%(name"))

        table.create(connection)
        names = [f"n{i}" for i in range(250)]
        insert = table.insert().returning(table.c.id, table.c.name, sort_by_parameter_order=True)
        rows = connection.execute(
            insert,
            [{"name": name} for name in names],
            execution_options={"insertmanyvalues_page_size": 100},
        ).all()
        plain = connection.execute(table.insert(), [{"name": name} for name in names])
        total = connection.scalar(sa.select(sa.func.count()).select_from(table))
        connection.rollback()
        return rows, plain.rowcount, total, batches

    rows, _, total, batches = await both(body)
    assert [row.name for row in rows] == [f"n{i}" for i in range(250)]
    assert total == 500
    assert len(batches) > 4


@pytest.mark.parametrize("mode", ["values_only", "values_plus_batch"])
async def test_executemany_of_updates_and_deletes(both, mode):
    def body(connection):
        connection.exec_driver_sql("CREATE TEMP TABLE u AS SELECT g a FROM generate_series(1, 9) g")
        update = sa.text("UPDATE u SET a = a + 10 WHERE a = :a")
        result = connection.execute(update, [{"a": a} for a in (1, 2, 3, 99)])
        delete = connection.exec_driver_sql("DELETE FROM u WHERE a > %s", [(15,), (5,)])
        left = connection.exec_driver_sql("SELECT a FROM u ORDER BY a").scalars().all()
        return result.rowcount, delete.rowcount, left

    counts = await both(body, executemany_mode=mode)
    assert counts[2] == [4, 5]


async def test_executemany_that_fails(both):
    def body(connection):
        connection.exec_driver_sql("CREATE TEMP TABLE u (a int)")
        connection.exec_driver_sql("INSERT INTO u VALUES (%s)", [(1,), ("x",), (3,)])

    assert (await both(body))[2] == "22P02"


async def test_no_parameter_sets(engine):
    async with engine().connect() as connection:
        raw = await connection.get_raw_connection()

        def body(_):
            cursor = raw.cursor()
            cursor.executemany("SELECT %s", [])
            return cursor.rowcount, cursor.description

        assert await connection.run_sync(body) == (0, None)


async def test_cursors_are_those_of_psycopg2(engine, url):
    def body(conn):
        cursor = conn.cursor()
        seen = [cursor.description, cursor.rowcount, cursor.query, cursor.statusmessage]
        cursor.execute("SELECT g, 'x' || g AS name FROM generate_series(1, 7) g")
        seen += [len(cursor.description), [tuple(column) for column in cursor.description]]
        seen += [cursor.description[0].name, cursor.description == cursor.description]
        seen += [cursor.rowcount, cursor.fetchone(), cursor.fetchmany(), cursor.rownumber]
        cursor.arraysize = 2
        seen += [cursor.fetchmany(), cursor.fetchmany(1), cursor.query, cursor.statusmessage]
        cursor.scroll(-1)
        seen += [list(cursor), cursor.fetchone(), cursor.fetchall(), cursor.closed, cursor.name]
        cursor.callproc("lower", ["ABC"])
        seen += [cursor.fetchone(), cursor.mogrify("SELECT %s", ("'",)), cursor.lastrowid]
        cursor.execute("CREATE TEMP TABLE e ()")
        seen += [cursor.description, cursor.rowcount]
        for step in (cursor.fetchone, cursor.fetchall, cursor.fetchmany, cursor.nextset):
            with pytest.raises(psycopg2.Error) as caught:
                step()
            seen.append((type(caught.value), str(caught.value)))
        with conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as named:
            named.execute("SELECT 1 AS one")
            seen.append(named.fetchall())
        cursor.close()
        cursor.close()
        with pytest.raises(psycopg2.InterfaceError) as caught:
            cursor.execute("SELECT 1")
        seen += [cursor.closed, cursor.connection is conn, str(caught.value), conn.closed]
        seen += [conn.encoding, conn.server_version, conn.info.dbname, conn.notices, conn.async_]
        return seen

    reference = psycopg2.connect(url.set(drivername="postgresql").render_as_string(False))
    expected = body(reference)
    reference.close()
    async with engine().connect() as connection:
        ours = await connection.run_sync(lambda c: body(c.connection.dbapi_connection))
    assert ours[-1] == 1 and expected[-1] == 0  # psycopg2's `async_`: what is underneath
    assert ours[:-1] == expected[:-1]


async def test_notices_are_logged_as_the_psycopg2_dialect_does(both, caplog):
    caplog.set_level(logging.INFO, "sqlalchemy.dialects.postgresql")

    def body(connection):
        connection.exec_driver_sql("DO $$ BEGIN RAISE NOTICE 'seen'; END $$")
        return connection.connection.dbapi_connection.notices

    assert await both(body) == []
    assert [record.getMessage() for record in caplog.records] == ["NOTICE:  seen"] * 2


async def test_empty_statements_and_several_in_one(both):
    def body(connection):
        return connection.exec_driver_sql("SELECT 1; SELECT 2 AS two").all()

    assert await both(body) == [(2,)]


async def test_percent_signs_and_quoted_names(both):
    table = sa.Table("per%cent", sa.MetaData(), sa.Column("a%(x)s", sa.Integer))

    def body(connection):
        table.create(connection)
        connection.execute(table.insert(), [{"a%(x)s": 1}, {"a%(x)s": 2}])
        rows = connection.execute(sa.select(table).where(table.c["a%(x)s"] % 2 == 1)).all()
        connection.rollback()
        return rows

    assert await both(body) == [(1,)]
