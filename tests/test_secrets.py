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
        for _ in range(2):  # libpq's, and the one that the loop watches
            with pytest.raises(psycopg2.OperationalError, match="Too many open files"):
                await ours.connect(dsn)
            os.close(taken.pop())
        conn = await ours.connect(dsn)
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await conn.close()


# --- local variables, which some tools show beside tracebacks -------------------------------------

NOWHERE = "postgresql://u:SECRET@127.0.0.1:1/db"
FAILING = [
    (NOWHERE, {}),
    ("host=127.0.0.1 port=1", {"password": "SECRET"}),
    ("postgresql://u:SECRET@127.0.0.1:1,localhost:1/db", {}),
    ("host=127.0.0.1,localhost port=1", {"password": "SECRET"}),
    ("postgresql://u:SECRET/x@[::1/db", {}),
    (NOWHERE, {"nonsense": 1}),
    (NOWHERE, {"nonsense": 1, "password": "SECRET"}),
    (NOWHERE, {"cancel_timeout": -1}),
    (NOWHERE, {"sslpassword": "SECRET", "timeout": 1e-9}),
]


async def connecting(ours, dsn, keywords):
    await ours.connect(dsn, **keywords)


async def filling_a_pool(ours, dsn, keywords):
    await ours.create_pool(dsn, **keywords)


async def acquiring(ours, dsn, keywords):
    async with ours.create_pool(dsn, minsize=0, **keywords) as pool:
        await pool.acquire()


async def executing(ours, dsn, keywords):
    async with ours.create_pool(dsn, minsize=0, **keywords) as pool:
        await pool.execute("SELECT 1")


async def making_an_engine(ours, dsn, keywords):
    sa = pytest.importorskip("aiopgx.sa")
    await sa.create_engine(dsn, **keywords)


async def listening(ours, dsn, keywords):
    async with ours.Listener(dsn, ["news"], **keywords):
        pass


async def of_the_dialect(ours, dsn, keywords):
    pytest.importorskip("aiopgx.dialect")
    from aiopgx.dialect import _connect

    await _connect(dsn, **keywords)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize(
    "use",
    [connecting, filling_a_pool, acquiring, executing, making_an_engine, listening, of_the_dialect],
)
async def test_local_variables(ours, use, trace):
    """Those of our own functions; `use` is the program's."""
    more = {"slow_query": 9, "tracer": lambda operation: None} if trace else {}
    for dsn, keywords in FAILING:
        try:
            await use(ours, dsn, {**keywords, **more})
        except Exception as error:
            entry = error.__traceback__.tb_next.tb_next
            report = traceback.TracebackException(type(error), error, entry, capture_locals=True)
            shown = "".join(report.format())
        assert "SECRET" not in shown, shown
        assert "in " in shown


async def test_local_variables_of_a_refused_pool(ours):
    with pytest.raises(ValueError) as info:
        await ours.create_pool(NOWHERE, minsize=-1)
    entry = info.value.__traceback__.tb_next
    report = traceback.TracebackException(ValueError, info.value, entry, capture_locals=True)
    assert "SECRET" not in "".join(report.format())


@pytest.mark.parametrize("name", ["oauth_client_secret", "scram_client_key", "scram_server_key"])
def test_secrets_of_libpq_18(name):
    for dsn in (f"host=h {name}=Q7Q7 port=1", f"postgresql://h/db?{name}=Q7Q7"):
        assert "Q7" not in hidden('invalid value: "Q7Q7"', dsn)
