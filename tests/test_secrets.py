"""No password in any text of connecting; clear words where libpq has none."""

import asyncio
import os
import resource
import traceback

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopgx._redact import hidden

DSNS = [
    "postgresql://u:SEC/RET@[::1/db",
    "postgresql://u:SECRET@[]/db",
    "postgresql://u:SECRET@[::1]x/db",
    "postgresql://u:SEC%zzRET@127.0.0.1:1/db",
    "postgresql://u:SEC%00RET@127.0.0.1:1/db",
    "postgresql://u:SEC/RET@127.0.0.1:1/db",
    "postgresql://u:SEC@RET@127.0.0.1:1/db",
    "postgresql://u:SEC%40@RET%40@127.0.0.1:1/db",
    "postgresql://u:SEC?RET@127.0.0.1:1/db",
    "postgresql://u:SEC?RET=x&SECRET@127.0.0.1:1/db",
    'postgresql://u:SEC"RET@[::1/db',
    "postgresql://u:SEC RET@127.0.0.1:1/db",
    "postgresql://u:SECRET@127.0.0.1:1/db?sslmode=SECRET_",
    "postgresql://u:SECRET@127.0.0.1:1x/db",
    "postgresql://127.0.0.1:1/db?password=SEC%zzRET",
    "postgresql://127.0.0.1:1/db?password=SEC=RET",
    "postgresql://127.0.0.1:1/db?password=SEC&RET",
    "postgresql+aiopgx://u:SECRET@127.0.0.1:1/db",
    "postgresql:/u:SECRET@127.0.0.1:1/db",
    " postgresql://u:SECRET@127.0.0.1:1/db",
    "u:SECRET@127.0.0.1",
    "host=127.0.0.1 port=1 password=SEC RET",
    "host=127.0.0.1 port=1 password = SEC RET",
    "password='SEC'RET host=127.0.0.1 port=1",
    "password='SEC RET host=127.0.0.1 port=1",
    "password=SEC RET host=127.0.0.1 port=1",
    "password=SEC RET=x host=127.0.0.1 port=1",
    "host=127.0.0.1 port=1 sslpassword=SEC RET",
    "host=127.0.0.1 port=1 password=SECRET service=no_such_service",
    "host=127.0.0.1 port=x password=SECRET",
    "host=127.0.0.1,127.0.0.2 port=1,1 password=SECRET",
]


def texts(error):
    """All that a program may log of it."""
    return "".join([str(error), repr(error), *traceback.format_exception(None, error, None)]) + str(
        [str(error.__cause__), str(error.__context__)]
    )


@pytest.mark.parametrize("what", ["connect", "create_pool"])
@pytest.mark.parametrize("dsn", [pytest.param(dsn, id=str(n)) for n, dsn in enumerate(DSNS)])
async def test_errors(ours, what, dsn):
    with pytest.raises((psycopg2.Error, asyncio.TimeoutError)) as info:
        await getattr(ours, what)(dsn.replace("sslmode=SECRET_", "sslmode=x"), timeout=5)
    assert "SEC" not in texts(info.value)
    assert "RET" not in texts(info.value)
    assert str(info.value).strip()


async def test_errors_of_a_password_given_by_its_name(ours):
    with pytest.raises(psycopg2.ProgrammingError) as info:
        ours.connect("host=127.0.0.1", password="SECRET", nonsense="SECRET")
    assert "SECRET" not in texts(info.value)


async def test_what_is_shown(ours, dsn, connect, pool):
    secrets = {"password": "SECRET", "sslpassword": "SECRET"}
    conn = await connect(dsn, **secrets)
    pool = await pool(dsn, minsize=1, **secrets)
    several = await connect(
        dsn + " target_session_attrs=any", host="127.0.0.1,127.0.0.1", **secrets
    )
    for shown in (conn.dsn, several.dsn, repr(conn), repr(several), repr(pool)):
        assert "SECRET" not in shown
    assert "sslpassword=xxx" in conn.dsn


PARTS = st.text(alphabet="SECRET/?#@:%=& '\"[]\\zx0", min_size=1, max_size=12)


@given(password=PARTS, rest=st.sampled_from(["[::1/db", "h/db", "h:1x/db", "h/db?x", "[]"]))
def test_whatever_libpq_says_of_a_url(password, rest):
    """Beside the words of its own, libpq shows nothing that stands only in the password."""
    mark = "Q7"
    dsn = f"postgresql://u:{mark}{password}{mark}@{rest}"
    try:
        psycopg2.extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError as error:
        assert mark not in hidden(str(error), dsn)


def test_what_is_no_password_stays():
    text = 'invalid sslmode value: "zz"'
    assert hidden(text, "host=h user=zz password=zz sslmode=zz") == text
    assert hidden(text, "sslmode=zz") == text


async def test_no_descriptor_is_left(ours, dsn):
    """libpq itself says nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(psycopg2.OperationalError, match="Too many open files"):
            await ours.connect(dsn)
        os.close(taken.pop())
        conn = await ours.connect(dsn)
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await conn.close()
