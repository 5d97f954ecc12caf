"""Transactions of SAConnection: nested, savepoints, two-phase commit, isolation levels."""

import asyncio

import psycopg2
import pytest
from sa_support import OURS, rows
from support import scalar, until

pytest_plugins = ("sa_fixtures",)

COUNT = "SELECT count(*) FROM person"


async def insert(conn, key=1):
    await conn.execute("INSERT INTO person VALUES (%s)", key)


@pytest.fixture
def stored(side):
    """The keys that others see."""

    def stored():
        with side.cursor() as cursor:
            cursor.execute("SELECT id FROM person ORDER BY id")
            return [key for (key,) in cursor.fetchall()]

    return stored


# --- one transaction ------------------------------------------------------------------------------


async def test_commit(sa, conn, stored):
    conn = await conn
    assert not conn.in_transaction
    transaction = await conn.begin()
    assert type(transaction) is sa.transaction.RootTransaction
    assert (transaction.is_active, transaction.connection) == (True, conn)
    assert conn.in_transaction
    await insert(conn)
    assert stored() == []
    await transaction.commit()
    assert (transaction.is_active, conn.in_transaction, stored()) == (False, False, [1])


async def test_rollback(conn, stored):
    conn = await conn
    transaction = await conn.begin()
    await insert(conn)
    await transaction.rollback()
    assert (transaction.is_active, conn.in_transaction, stored()) == (False, False, [])
    assert await conn.scalar(COUNT) == 0


async def test_close_rolls_back(conn, stored):
    conn = await conn
    transaction = await conn.begin()
    await insert(conn)
    await transaction.close()
    assert (transaction.is_active, conn.in_transaction, stored()) == (False, False, [])
    await transaction.close()


async def test_ended_transactions(sa, conn):
    conn = await conn
    for end in ("commit", "rollback", "close"):
        transaction = await conn.begin()
        await getattr(transaction, end)()
        with pytest.raises(sa.InvalidRequestError, match=r"^This transaction is inactive$"):
            await transaction.commit()
        await transaction.rollback()
        await transaction.close()


async def test_as_a_context(conn, stored):
    conn = await conn
    async with conn.begin() as transaction:
        await insert(conn)
        assert transaction.is_active
    assert stored() == [1]
    with pytest.raises(ZeroDivisionError):
        async with conn.begin():
            await insert(conn, 2)
            1 / 0  # noqa: B018
    assert (stored(), conn.in_transaction) == ([1], False)


async def test_an_awaited_transaction_as_a_context(conn, stored):
    conn = await conn
    async with await conn.begin() as transaction:
        await insert(conn)
    assert (transaction.is_active, stored()) == (False, [1])
    with pytest.raises(ZeroDivisionError):
        async with await conn.begin():
            1 / 0  # noqa: B018


async def test_ended_within_its_context(conn, stored):
    conn = await conn
    async with conn.begin() as transaction:
        await insert(conn)
        await transaction.rollback()
    async with conn.begin() as transaction:
        await insert(conn, 2)
        await transaction.commit()
    assert stored() == [2]


async def test_an_error_in_a_transaction(conn, stored):
    conn = await conn
    transaction = await conn.begin()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await conn.execute("SELECT 1 / 0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        await conn.execute("SELECT 1")
    assert conn.in_transaction
    await transaction.rollback()
    assert await conn.scalar("SELECT 1") == 1


async def test_rollback_on_a_closed_connection(conn):
    conn = await conn
    transaction = await conn.begin()
    conn.connection.close()
    await transaction.rollback()
    assert (transaction.is_active, conn.in_transaction) == (False, False)


async def test_commit_on_a_closed_connection(conn):
    conn = await conn
    transaction = await conn.begin()
    conn.connection.close()
    with pytest.raises(psycopg2.InterfaceError):
        await transaction.commit()
    assert conn.in_transaction
    await transaction.rollback()
    assert not conn.in_transaction


async def test_a_failing_commit(conn, side, stored):
    conn = await conn
    with side.cursor() as cursor:
        cursor.execute("ALTER TABLE person ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    transaction = await conn.begin()
    await conn.execute("INSERT INTO person VALUES (1, 'x'), (2, 'x')")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        await transaction.commit()
    assert not conn.in_transaction
    assert stored() == []
    assert await conn.scalar(COUNT) == 0


@OURS
async def test_a_failing_begin(conn, stored):
    conn = await conn
    with pytest.raises(psycopg2.errors.SyntaxError):
        await conn.begin("NONSENSE")
    assert not conn.in_transaction
    async with conn.begin():
        await insert(conn)
        assert stored() == []


# --- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, isolation, readonly, deferrable",
    [
        ({}, "read committed", "off", "off"),
        ({"isolation_level": "SERIALIZABLE"}, "serializable", "off", "off"),
        ({"isolation_level": "REPEATABLE READ"}, "repeatable read", "off", "off"),
        ({"isolation_level": "READ UNCOMMITTED"}, "read uncommitted", "off", "off"),
        ({"readonly": True}, "read committed", "on", "off"),
        (
            {"isolation_level": "SERIALIZABLE", "readonly": True, "deferrable": True},
            "serializable",
            "on",
            "on",
        ),
    ],
)
async def test_modes(conn, arguments, isolation, readonly, deferrable):
    conn = await conn
    async with conn.begin(**arguments):
        assert await rows(
            conn,
            "SELECT current_setting('transaction_isolation'),"
            " current_setting('transaction_read_only'),"
            " current_setting('transaction_deferrable')",
        ) == [(isolation, readonly, deferrable)]


async def test_modes_by_position(conn):
    conn = await conn
    async with conn.begin("SERIALIZABLE", True, True):
        assert await conn.scalar("SHOW transaction_isolation") == "serializable"
        assert await conn.scalar("SHOW transaction_deferrable") == "on"


# --- transactions in transactions -----------------------------------------------------------------


async def test_inner_commits_do_nothing(sa, conn, stored):
    conn = await conn
    outer = await conn.begin()
    inner = await conn.begin()
    assert type(inner) is sa.transaction.Transaction
    await insert(conn)
    await inner.commit()
    assert (inner.is_active, outer.is_active, conn.in_transaction) == (False, True, True)
    assert stored() == []
    await outer.commit()
    assert stored() == [1]


async def test_an_inner_rollback_rolls_back_all(sa, conn, stored):
    conn = await conn
    outer = await conn.begin()
    await insert(conn)
    inner = await conn.begin()
    await inner.rollback()
    assert (inner.is_active, outer.is_active, conn.in_transaction) == (False, False, False)
    with pytest.raises(sa.InvalidRequestError):
        await outer.commit()
    assert stored() == []


async def test_an_inner_close_ends_only_itself(conn, stored):
    conn = await conn
    outer = await conn.begin()
    inner = await conn.begin()
    await insert(conn)
    await inner.close()
    assert (inner.is_active, outer.is_active) == (False, True)
    await outer.commit()
    assert stored() == [1]


async def test_inner_after_the_outer_has_ended(sa, conn):
    conn = await conn
    outer = await conn.begin()
    inner = await conn.begin()
    await outer.commit()
    with pytest.raises(sa.InvalidRequestError):
        await inner.commit()
    await inner.rollback()
    await inner.close()
    assert inner.is_active


# --- savepoints -----------------------------------------------------------------------------------


async def test_savepoints(sa, conn, stored):
    conn = await conn
    outer = await conn.begin_nested()
    assert type(outer) is sa.transaction.RootTransaction
    await insert(conn, 1)
    kept = await conn.begin_nested()
    assert type(kept) is sa.transaction.NestedTransaction
    await insert(conn, 2)
    undone = await conn.begin_nested()
    await insert(conn, 3)
    await undone.rollback()
    assert [(await conn.scalar(COUNT)), undone.is_active, kept.is_active] == [2, False, True]
    await kept.commit()
    assert (kept.is_active, outer.is_active, conn.in_transaction) == (False, True, True)
    await outer.commit()
    assert stored() == [1, 2]


async def test_savepoints_as_contexts(conn, stored):
    conn = await conn
    async with conn.begin():
        async with conn.begin_nested():
            await insert(conn, 1)
        with pytest.raises(psycopg2.errors.UniqueViolation):
            async with conn.begin_nested():
                await insert(conn, 1)
        await insert(conn, 2)
    assert stored() == [1, 2]


async def test_the_names_of_savepoints(conn):
    conn = await conn
    outer = await conn.begin()
    one, two = await conn.begin_nested(), await conn.begin_nested()
    assert (one._savepoint, two._savepoint) == ("aiopg_sa_savepoint_1", "aiopg_sa_savepoint_2")
    await outer.rollback()


async def test_a_savepoint_ends_once(sa, conn):
    conn = await conn
    async with conn.begin():
        point = await conn.begin_nested()
        await point.rollback()
        await point.rollback()
        assert await conn.scalar("SELECT 1") == 1


async def test_savepoints_on_a_closed_connection(conn):
    conn = await conn
    await conn.begin()
    point = await conn.begin_nested()
    conn.connection.close()
    await point.rollback()
    assert not point.is_active


@OURS
async def test_a_failing_savepoint(conn):
    conn = await conn
    outer = await conn.begin()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        await conn.execute("SELECT 1 / 0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        await conn.begin_nested()
    await outer.rollback()
    assert not conn.in_transaction


# --- closing the connection -----------------------------------------------------------------------


async def close_with(conn, *openers):
    engine, raw = conn._engine, conn.connection
    for opener in openers:
        await getattr(conn, opener)()
    await insert(conn)
    await conn.close()
    assert (conn.closed, conn.connection, conn.in_transaction) == (True, None, False)
    assert (raw.closed, engine.freesize, engine.size) == (0, 1, 1)
    async with engine.acquire() as other:
        assert other.connection is raw
        assert not other.in_transaction


@pytest.mark.parametrize("openers", [("begin",), ("begin", "begin"), ("begin_nested",)])
async def test_close_with_a_transaction(conn, stored, openers):
    await close_with(await conn, *openers)
    assert stored() == []


@OURS
@pytest.mark.parametrize(
    "openers", [("begin", "begin_nested"), ("begin_nested",) * 3, ("begin_twophase",)]
)
async def test_close_with_a_savepoint_or_two_phases(conn, stored, openers):
    await close_with(await conn, *openers)
    assert stored() == []


async def test_a_cancelled_close_still_rolls_back(conn, stored):
    conn = await conn
    engine = conn._engine
    await conn.begin()
    await insert(conn)
    task = asyncio.ensure_future(conn.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: engine.freesize)
    assert (engine.freesize, stored()) == (1, [])


# --- two-phase commit -----------------------------------------------------------------------------


@pytest.fixture
def prepared(side):
    """The IDs of prepared transactions; all are rolled back in the end."""

    def prepared():
        with side.cursor() as cursor:
            cursor.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid")
            return [gid for (gid,) in cursor.fetchall()]

    yield prepared
    with side.cursor() as cursor:
        for gid in prepared():
            cursor.execute("ROLLBACK PREPARED %s", (gid,))


async def test_two_phase_by_its_id(sa, conn, prepared, stored):
    conn = await conn
    transaction = await conn.begin_twophase("a")
    assert type(transaction) is sa.transaction.TwoPhaseTransaction
    assert (transaction.xid, transaction.is_active, conn.in_transaction) == ("a", True, True)
    await insert(conn)
    await transaction.prepare()
    assert (prepared(), stored()) == (["a"], [])
    await conn.commit_prepared("a")
    assert (prepared(), stored()) == ([], [1])


async def test_two_phase_within_a_transaction(sa, conn):
    conn = await conn
    async with conn.begin():
        with pytest.raises(sa.InvalidRequestError) as info:
            await conn.begin_twophase()
    assert str(info.value) == (
        "Cannot start a two phase transaction when a transaction is already in progress."
    )


async def test_a_random_id(conn):
    conn = await conn
    transaction = await conn.begin_twophase()
    assert transaction.xid.startswith("_sa_")
    assert len(transaction.xid) == 36
    conn.connection.close()


async def test_a_prepared_transaction_outlives_its_connection(conn, prepared):
    conn = await conn
    transaction = await conn.begin_twophase("kept")
    await insert(conn)
    await transaction.prepare()
    engine = conn._engine
    await conn.close()
    assert prepared() == ["kept"]
    async with engine.acquire() as other:
        assert not other.in_transaction
        await other.commit_prepared("kept")
    assert prepared() == []


@OURS
@pytest.mark.parametrize("xid", ["a", "it's", 'a "b"', "back\\slash", "100%", "Zoë"])
async def test_two_phase_commit(conn, prepared, stored, xid):
    conn = await conn
    transaction = await conn.begin_twophase(xid)
    await insert(conn)
    await transaction.prepare()
    assert prepared() == [xid] == await conn.recover_twophase()
    await transaction.commit()
    assert (transaction.is_active, conn.in_transaction) == (False, False)
    assert (prepared(), stored()) == ([], [1])
    async with conn.begin():
        assert conn.in_transaction


@OURS
@pytest.mark.parametrize("xid", ["a", "it's"])
async def test_two_phase_rollback(conn, prepared, stored, xid):
    conn = await conn
    transaction = await conn.begin_twophase(xid)
    await insert(conn)
    await transaction.prepare()
    await transaction.rollback()
    assert (transaction.is_active, conn.in_transaction) == (False, False)
    assert (prepared(), stored()) == ([], [])


@OURS
@pytest.mark.parametrize("end, expected", [("commit", [1]), ("rollback", []), ("close", [])])
async def test_two_phase_without_prepare(conn, prepared, stored, end, expected):
    conn = await conn
    transaction = await conn.begin_twophase()
    await insert(conn)
    await getattr(transaction, end)()
    assert (transaction.is_active, conn.in_transaction) == (False, False)
    assert (prepared(), stored()) == ([], expected)


@OURS
async def test_two_phase_as_a_context(conn, prepared, stored):
    conn = await conn
    async with await conn.begin_twophase("a") as transaction:
        await insert(conn)
        await transaction.prepare()
    assert (prepared(), stored()) == ([], [1])
    with pytest.raises(ZeroDivisionError):
        async with await conn.begin_twophase("b") as transaction:
            await insert(conn, 2)
            await transaction.prepare()
            1 / 0  # noqa: B018
    assert (prepared(), stored()) == ([], [1])


@OURS
async def test_ended_by_its_id(sa, conn, prepared, stored):
    conn = await conn
    for key, end in ((1, conn.commit_prepared), (2, conn.rollback_prepared)):
        transaction = await conn.begin_twophase("it's")
        await insert(conn, key)
        await transaction.prepare()
        await end("it's")
        assert (transaction.is_active, conn.in_transaction) == (False, False)
        with pytest.raises(sa.InvalidRequestError, match="inactive"):
            await transaction.commit()
        with pytest.raises(sa.InvalidRequestError, match="inactive"):
            await transaction.prepare()
    assert (prepared(), stored()) == ([], [1])


@OURS
async def test_ended_without_prepare_by_its_id(conn, stored):
    conn = await conn
    await conn.begin_twophase("a")
    await insert(conn)
    await conn.rollback_prepared("a", is_prepared=False)
    await conn.begin_twophase("a")
    await insert(conn, 2)
    await conn.commit_prepared("a", is_prepared=False)
    assert (stored(), conn.in_transaction) == ([2], False)


@OURS
async def test_an_unknown_id(conn):
    conn = await conn
    for end in (conn.commit_prepared, conn.rollback_prepared):
        with pytest.raises(psycopg2.errors.UndefinedObject):
            await end("nothing")


@OURS
async def test_a_refused_prepare(conn, prepared, stored):
    conn = await conn
    transaction = await conn.begin_twophase("x" * 300)
    await insert(conn)
    with pytest.raises(psycopg2.errors.InvalidParameterValue):
        await transaction.prepare()
    await transaction.rollback()
    assert (prepared(), stored(), conn.in_transaction) == ([], [], False)


@OURS
async def test_two_phase_on_a_closed_connection(conn, prepared, side):
    conn = await conn
    transaction = await conn.begin_twophase("left")
    await transaction.prepare()
    conn.connection.close()
    await transaction.rollback()
    assert prepared() == ["left"]
    assert scalar(side, "SELECT 1") == 1


@OURS
async def test_recover_twophase(conn, prepared):
    conn = await conn
    assert await conn.recover_twophase() == []
    for xid in ("a", "b"):
        transaction = await conn.begin_twophase(xid)
        await transaction.prepare()
        conn._transaction = None
    assert sorted(await conn.recover_twophase()) == prepared() == ["a", "b"]
