"""A connect that fails: aiopg's exception, which is psycopg2's.

Its text is the one that psycopg2 gives, without the address of the server in front.
"""

import asyncio

import aiopg
import psycopg2
import pytest
from roads import portrait_of_error
from support import error_response, listener

PRIVATE = {"user": "nobody_of_this_name", "dbname": "no_such_database"}
REFUSED = {
    "no such database": {"dbname": "no_such_database"},
    "no such role": {"user": "nobody_of_this_name"},
    "neither": PRIVATE,
    "no such host": {"host": "/no/such/directory"},
    "host that is no name": {"host": "no such host."},
    "port out of range": {"port": 70000},
    "port that is no number": {"port": "x"},
    "unknown setting": {"options": "-c no_such_setting=1"},
    "setting of the server": {"options": "-c shared_buffers=1"},
    "bad value": {"options": "-c work_mem=little"},
    "unknown encoding": {"client_encoding": "KLINGON"},
    "unknown sslmode": {"sslmode": "perhaps"},
    "no TLS there": {"sslmode": "require"},
    "bad target": {"target_session_attrs": "any-thing"},
    "unknown service": {"service": "no_such_service"},
    "role that may not": {"user": "locked_out"},
    "too many of a role": {"user": "too_many"},
    "database that is closed": {"dbname": "closed_database"},
}
ARGUMENTS = {
    "unknown keyword": {"nonsense": 1},
    "keyword of another type": {"port": []},
    "dsn without =": {"dsn": "neither this nor that"},
    "dsn with a bad quote": {"dsn": "dbname='x"},
    "dsn with an unknown key": {"dsn": "nonsense=1"},
    "url with a bad escape": {"dsn": "postgresql://%zz"},
    "url with an unknown key": {"dsn": "postgresql:///?nonsense=1"},
    "dsn that is bytes": {"dsn": b"dbname=x"},
    "dsn that is a number": {"dsn": 5},
    "NUL": {"dsn": "dbname=a\0b"},
    "factory that is no class": {"connection_factory": 5},
}
# code, text: of the server's answer
ANSWERS = {
    "wrong password": ("28P01", 'password authentication failed for user "me"'),
    "no entry": ("28000", 'no pg_hba.conf entry for host "::1", user "me", database "x"'),
    "starting up": ("57P03", "the database system is starting up"),
    "too many": ("53300", "sorry, too many clients already"),
    "not a text": ("XX000", "grüße 日本"),
}
SETUP = [
    "DROP DATABASE IF EXISTS closed_database",
    "CREATE DATABASE closed_database ALLOW_CONNECTIONS false",
    "DROP ROLE IF EXISTS locked_out",
    "CREATE ROLE locked_out NOLOGIN",
    "DROP ROLE IF EXISTS too_many",
    "CREATE ROLE too_many LOGIN CONNECTION LIMIT 0",
]


@pytest.fixture(scope="module", autouse=True)
def refusals(admin):
    with admin.cursor() as cursor:
        for sql in SETUP:
            cursor.execute(sql)
        yield
        for sql in SETUP[::2]:
            cursor.execute(sql)


async def error_of(connect, dsn, **keywords):
    with pytest.raises(Exception) as info:
        await connect(dsn, **keywords)
    return info.value


async def check(ours, dsn, keywords):
    """Ours against aiopg's, and aiopg's against that of synchronous psycopg2."""
    error, model, original = [
        await error_of(connect, dsn, **keywords)
        for connect in (ours.connect, aiopg.connect, in_a_thread)
    ]
    assert portrait_of_error(error) == portrait_of_error(model)
    assert type(model) is type(original)
    assert str(original).endswith(str(model))
    assert getattr(error, "cursor", None) is getattr(original, "cursor", None) is None


async def in_a_thread(dsn, **keywords):
    return await asyncio.to_thread(psycopg2.connect, dsn, **keywords)


@pytest.mark.parametrize("keywords", REFUSED.values(), ids=REFUSED)
async def test_refused(ours, dsn, keywords):
    await check(ours, dsn, keywords)


@pytest.mark.parametrize("keywords", ARGUMENTS.values(), ids=ARGUMENTS)
async def test_bad_arguments(ours, dsn, keywords):
    keywords = {"dsn": dsn, **keywords}
    await check(ours, keywords.pop("dsn"), keywords)


@pytest.mark.parametrize(("code", "text"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("severity", ["FATAL", "ERROR", "PANIC"])
async def test_what_the_server_answers(ours, severity, code, text):
    async def serve(reader, writer):
        await reader.read(8)
        writer.write(error_response(severity, code, text))
        await writer.drain()

    async with listener(serve) as port:
        dsn = f"host=127.0.0.1 port={port} user=me dbname=x sslmode=disable gssencmode=disable"
        await check(ours, dsn, {})


async def test_pool(ours, dsn):
    """A pool passes on what connecting raises."""
    error = await error_of(ours.create_pool, dsn, **PRIVATE)
    model = await error_of(aiopg.connect, dsn, **PRIVATE)
    assert portrait_of_error(error) == portrait_of_error(model)
