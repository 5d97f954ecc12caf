"""Tracers of the dialect's connections, by `connect_args`."""

import contextvars
import logging

import psycopg2
import pytest
import sqlalchemy as sa

WHO = contextvars.ContextVar("who", default=None)

metadata = sa.MetaData()
table = sa.Table("traced", metadata, sa.Column("n", sa.Integer), sa.Column("text", sa.Text))


@pytest.fixture
def ended():
    """Method, statement, rows and error's class of the statements, and whose context it was."""
    return []


@pytest.fixture
def traced(engine, ended):
    def tracer(operation):
        who = WHO.get()

        def end(error):
            if operation.kind == "query":
                ended.append(
                    (
                        operation.method,
                        operation.statement,
                        operation.rows,
                        error and type(error),
                        who,
                    )
                )

        return end

    return engine(connect_args={"tracer": tracer})


async def test_statements(traced, ended):
    WHO.set("me")
    async with traced.connect() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.rollback()
        ended.clear()
        await connection.run_sync(metadata.create_all, checkfirst=False)
        await connection.execute(table.insert(), [{"n": i, "text": "secret"} for i in range(3)])
        result = await connection.execute(sa.select(table.c.n).where(table.c.n > 0))
        assert result.scalars().all() == [1, 2]
        with pytest.raises(sa.exc.ProgrammingError):
            await connection.execute(sa.text("SELECT none"))
        await connection.rollback()
    methods, statements, rows, errors, who = zip(*ended, strict=True)
    assert methods == ("execute",) * 5
    assert [text.split()[0] for text in statements] == [
        "CREATE", "INSERT", "SELECT", "SELECT", "ROLLBACK",
    ]  # fmt: skip
    assert rows == (None, 3, 2, None, None)
    assert errors == (None, None, None, psycopg2.errors.UndefinedColumn, None)
    assert set(who) == {"me"}
    assert "secret" not in str(statements)


async def test_stream_and_many(traced, ended):
    async with traced.connect() as connection:
        ended.clear()
        await connection.execute(sa.text("CREATE TEMP TABLE t (n int)"))
        insert = sa.text("INSERT INTO t VALUES (:n)")
        await connection.execute(insert, [{"n": 1}, {"n": 2}])
        async with connection.stream(sa.text("SELECT n FROM t")) as result:
            assert (await result.scalars().all()) == [1, 2]
        await connection.commit()
    methods = [method for method, *_ in ended]
    assert methods[:2] == ["execute", "executemany"] and set(methods[4:-1]) == {"fetch"}
    assert ended[1][1:3] == ("INSERT INTO t VALUES (%(n)s)", 2)
    assert ended[3][1] == "SELECT n FROM t"
    assert ended[-1][1] == "COMMIT"


async def test_callproc(traced, ended):
    async with traced.connect() as connection:
        raw = await connection.get_raw_connection()
        ended.clear()

        def body(_):
            cursor = raw.cursor()
            cursor.callproc("lower", ["A"])
            assert cursor.fetchall() == [("a",)]
            cursor.close()
            raw.rollback()

        await connection.run_sync(body)
    assert [each[:3] for each in ended] == [
        ("callproc", "SELECT * FROM lower(%s)", 1),
        ("execute", "ROLLBACK", None),
    ]


async def test_options_of_the_url(engine, url, caplog):
    made = engine(url.update_query_dict({"echo": "statements", "slow_query": "0"}))
    async with made.connect() as connection:
        caplog.clear()
        with caplog.at_level(logging.INFO, "aiopg"):
            await connection.execute(sa.text("SELECT :p"), {"p": "secret"})
        assert (await connection.get_raw_connection()).driver_connection.echo is True
    assert caplog.messages[0] == "SELECT %(p)s"
    assert caplog.messages[1].endswith("1 rows: SELECT %(p)s")
    assert "secret" not in caplog.text


async def test_others_are_as_ever(engine):
    from aiopgx.dialect.connection import AsyncAdapt_aiopgx_connection

    async with engine().connect() as connection:
        raw = await connection.get_raw_connection()
        assert type(raw.dbapi_connection) is AsyncAdapt_aiopgx_connection
