"""Client encodings: known to psycopg2, changed behind its back, unknown to it."""

import contextlib
import itertools

import psycopg2
import psycopg2.extras
import pytest
from conftest import command
from psycopg2.extensions import encodings, quote_ident
from roads import Roads, portrait_of_error

# client encoding -> texts that it has
TEXTS = {
    "UTF8": ["grüße", "日本", "\U0001d518", "ｱ"],
    "LATIN1": ["grüße", "ÿ", "\x80"],
    "LATIN2": ["łódź"],
    "LATIN5": ["ığş"],
    "LATIN9": ["grüße €", "Šž"],
    "LATIN10": ["țș"],
    "WIN1250": ["łódź"],
    "WIN1251": ["привет"],
    "WIN1252": ["grüße €", "“”"],
    "WIN1256": ["سلام"],
    "WIN866": ["привет"],
    "WIN874": ["สวัสดี"],
    "ISO_8859_5": ["привет"],
    "KOI8R": ["привет"],
    "KOI8U": ["їжак"],
    "EUC_JP": ["日本", "ｱ"],
    "EUC_CN": ["中文"],
    "EUC_KR": ["한국"],
    "EUC_JIS_2004": ["日本"],
    "SJIS": ["日本", "ソ", "表示"],
    "SHIFT_JIS_2004": ["日本", "ソ"],
    "BIG5": ["中文", "功許"],
    "GBK": ["中文", "誠", "俓"],
    "GB18030": ["中文", "ü", "\U00020000", "誠"],
    "UHC": ["한국", "갂"],
    "SQL_ASCII": ["plain"],
}
# Characters whose last byte is that of a backslash.
BACKSLASHES = {"SJIS": "ソ", "SHIFT_JIS_2004": "ソ", "BIG5": "功", "GBK": "誠", "GB18030": "誠"}
FACTORIES = [
    *(psycopg2.extensions.cursor, psycopg2.extras.DictCursor),
    *(psycopg2.extras.RealDictCursor, psycopg2.extras.NamedTupleCursor),
]

# `{name}` is the text as an identifier, `{text}` as a literal; the parameters are the text, too.
STATEMENTS = [
    "SELECT %s AS v, %s::text, %s::varchar(9), %s::name, %s::char(5)",
    "SELECT to_json(%s::text), to_jsonb(%s::text), json_build_object(%s, %s)",
    "SELECT row(%s, 1), convert_to(%s, 'UTF8'), length(%s), ARRAY[row(%s, 'a')]",
    "SELECT upper(%s), hstore(ARRAY['a'], ARRAY[%s]), ascii(%s), %s || %s",
    "SELECT 1 AS {name}, %s AS b, {text} AS {name}",
    "SELECT %(a)s AS {name}, %(a)s AS b",
    "SELECT %s::int",
    "SELECT {name}",
    "SELECT * FROM {name} WHERE {name} = %s",
    "DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = {text}, DETAIL = {text}, HINT = {text}, "
    "TABLE = {text}, COLUMN = {text}, CONSTRAINT = {text}, ERRCODE = 'AB123'; END $$",
    "DO $$ BEGIN RAISE NOTICE USING MESSAGE = {text}, DETAIL = {text}; END $$",
]
ARRAYS = [
    "SELECT ARRAY[%s, NULL, 'a,b'], ARRAY[ARRAY[%s], ARRAY['\"\\']], '{{}}'::text[]",
    "SELECT ARRAY[ARRAY[%s, %s], ARRAY['{{}}', 'a,b']], ARRAY[to_json(%s::text)]",
    "SELECT ARRAY[json_build_object('a', %s, %s, 1)], ARRAY[to_jsonb(%s::text), NULL]",
]


def variants(text):
    """The text beside characters that mean something in SQL, arrays or JSON."""
    return [before + text + after for before, after in itertools.product(["", "'"], "'\",\\}")]


@contextlib.contextmanager
def opened(dsn, **kwargs):
    roads = Roads(dsn, **kwargs)
    try:
        yield roads
    finally:
        roads.close()


def same_for(roads, text, statements=STATEMENTS, factory=FACTORIES[0]):
    """Use a text everywhere that it can stand; the outcomes, which are the same on each road."""
    name = '"' + text.replace('"', '""') + '"'
    literal = "'" + text.replace("'", "''") + "'"
    outcomes = []
    for statement in statements:
        sql = statement.format(name=name, text=literal)
        parameters = {"a": text} if "%(a)s" in sql else (text,) * sql.count("%s")
        outcomes.append(roads.same(sql, parameters or None, factory))
    expected, *others = [list(raw.notices) for raw in roads.raws()]
    assert others == [expected] * len(others)
    return outcomes


# --- encodings that psycopg2 knows ----------------------------------------------------------------


@pytest.mark.parametrize("encoding", TEXTS)
def test_same(dsn, encoding):
    with opened(dsn, client_encoding=encoding) as roads:
        for text in TEXTS[encoding]:
            outcomes = same_for(roads, text)
            assert outcomes[0].rows[0][0] == text
            assert all(outcome.error for outcome in outcomes[-5:-1])
            for variant in variants(text):
                same_for(roads, variant, STATEMENTS[:2])
        assert len({raw.encoding for raw in roads.raws()}) == 1
        assert roads.ours[0].conn.encoding == roads.reference.raw.encoding


@pytest.mark.parametrize("encoding", [name for name in TEXTS if name not in BACKSLASHES])
def test_same_arrays(dsn, encoding):
    with opened(dsn, client_encoding=encoding) as roads:
        for variant in variants(TEXTS[encoding][0]):
            same_for(roads, variant, ARRAYS)


@pytest.mark.parametrize("encoding", BACKSLASHES)
def test_same_arrays_with_the_byte_of_a_backslash(dsn, encoding):
    """Both sides quote bytes, not characters; psycopg2's reading of that is the right one."""
    with opened(dsn, client_encoding=encoding) as roads:
        for variant in variants(BACKSLASHES[encoding]):
            same_for(roads, variant, ARRAYS)


@pytest.mark.parametrize("encoding", ["LATIN9", "SJIS", "GB18030"])
@pytest.mark.parametrize("factory", FACTORIES[1:])
def test_same_names_in_rows(dsn, encoding, factory):
    """Keys of dicts and fields of namedtuples."""
    with opened(dsn, client_encoding=encoding) as roads:
        for text in TEXTS[encoding]:
            same_for(roads, text, STATEMENTS[4:6], factory)


@pytest.mark.parametrize("encoding", TEXTS)
def test_same_for_what_the_encoding_has_not(dsn, encoding):
    """Refused by Python's codec, or where that knows more than the server's, by the server."""
    with opened(dsn, client_encoding=encoding) as roads:
        for text in ("\U0001f600", "\udc80", "é日ł", "\u2028", "\x7f", "\uff5e\u2212¥"):
            same_for(roads, text)
        # text of the server's that the client can't get
        for text in ("\U0001f600", "é日ł"):
            code = text.encode().hex()
            roads.same(f"SELECT 1, convert_from('\\x{code}', 'UTF8')")
            roads.same(f"SELECT convert_from('\\x{code}', 'UTF8')::int")
        roads.same("SELECT 1")


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "WIN1252", "SQL_ASCII"])
def test_every_character_of_one_byte(dsn, encoding):
    with opened(dsn, client_encoding=encoding) as roads:
        for first in range(1, 256, 15):
            roads.same("SELECT %s", ["".join(map(chr, range(first, min(first + 15, 256))))])
            roads.same(
                "SELECT convert_from(set_byte('\\x00', 0, n), 'LATIN1') "
                "FROM generate_series(%s, %s) AS n",
                [first, min(first + 14, 255)],
            )


# --- ways of setting it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs",
    [
        {"client_encoding": "latin-1"},
        {"client_encoding": "utf-8"},
        {"client_encoding": "Unicode"},
        {"client_encoding": "auto"},
        {"options": "-c client_encoding=LATIN1"},
        {"options": "-c client_encoding=EUC_JP", "client_encoding": "LATIN1"},
    ],
    ids=str,
)
def test_spellings(dsn, kwargs):
    with opened(dsn, **kwargs) as roads:
        same_for(roads, "plain")
        same_for(roads, "é")
        assert len({raw.encoding for raw in roads.raws()}) == 1


def test_environment(dsn, monkeypatch):
    monkeypatch.setenv("PGCLIENTENCODING", "SJIS")
    with opened(dsn) as roads:
        assert {raw.encoding for raw in roads.raws()} == {"SJIS"}
        same_for(roads, "ソ")


def test_setting_of_the_database(dsn, side):
    name = quote_ident(psycopg2.extensions.parse_dsn(dsn)["dbname"], side)
    command(side, f"ALTER DATABASE {name} SET client_encoding = 'LATIN9'")
    try:
        with opened(dsn) as roads:
            assert {raw.encoding for raw in roads.raws()} == {"LATIN9"}
            same_for(roads, "€")
    finally:
        command(side, f"ALTER DATABASE {name} RESET client_encoding")


# What psycopg2 knows of, what the session is then set to, and a text.
CHANGES = [
    *(("UTF8", "LATIN1", "grüße"), ("UTF8", "SJIS", "ソ"), ("UTF8", "EUC_TW", "中文")),
    *(("UTF8", "SQL_ASCII", "grüße"), ("LATIN1", "UTF8", "grüße"), ("LATIN1", "WIN1252", "ÿ")),
    *(("EUC_JP", "UTF8", "日本"), ("SJIS", "UTF8", "ソ"), ("SJIS", "EUC_JP", "表示")),
    *(("SQL_ASCII", "UTF8", "plain"), ("GBK", "GB18030", "誠"), ("KOI8R", "WIN1251", "привет")),
]


@pytest.mark.parametrize(("known", "actual", "text"), CHANGES)
def test_changed_behind_psycopg2(dsn, known, actual, text):
    """psycopg2 goes on with the encoding of the start: wrong texts, but the same ones."""
    code = text.encode().hex()
    from_server = f"convert_from('\\x{code}', 'UTF8')"
    with opened(dsn, client_encoding=known) as roads:
        for change in (f"SET client_encoding = '{actual}'", "RESET client_encoding"):
            roads.same(change)
            same_for(roads, text)
            roads.same(
                f"SELECT 1, {from_server} AS v, ARRAY[{from_server}], to_json({from_server})"
            )
            roads.same(f"SELECT ({from_server})::int")
            roads.same(f"DO $$ BEGIN RAISE NOTICE '%', {from_server}; END $$")
        roads.same(f"BEGIN; SET LOCAL client_encoding = '{actual}'")
        roads.same(f"SELECT {from_server}")
        roads.same("ROLLBACK")
        same_for(roads, text)


# --- encodings that psycopg2 does not know --------------------------------------------------------


def failure(dsn, **kwargs):
    """What psycopg2 raises for a connection of the asynchronous kind."""
    with pytest.raises(psycopg2.Error) as info:
        psycopg2.extras.wait_select(psycopg2.connect(dsn, async_=True, **kwargs))
    return info.value


async def failure_of(package, dsn, **kwargs):
    with pytest.raises(psycopg2.Error) as info:
        await package.connect(dsn, **kwargs)
    return info.value


@pytest.mark.parametrize("encoding", ["EUC_TW", "MULE_INTERNAL", "no such encoding"])
async def test_unknown(impl, dsn, encoding):
    expected = portrait_of_error(failure(dsn, client_encoding=encoding))
    got = portrait_of_error(await failure_of(impl, dsn, client_encoding=encoding))
    assert got == expected


def test_made_known(dsn, monkeypatch):
    monkeypatch.setitem(encodings, "EUCTW", "big5")
    with opened(dsn, client_encoding="EUC_TW") as roads:
        assert {raw.encoding for raw in roads.raws()} == {"EUCTW"}
        same_for(roads, "plain")
        same_for(roads, "中文")  # no such bytes in EUC_TW, or others


# --- names of databases and roles -----------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_names(admin, server_dsn):
    name = 'grüße, it\'s "日本" \\ %s'
    quoted = quote_ident(name, admin)
    command(admin, f"CREATE ROLE {quoted} LOGIN SUPERUSER")
    command(admin, f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'UTF8'")
    yield name
    command(admin, f"DROP DATABASE {quoted} WITH (FORCE)")
    command(admin, f"DROP ROLE {quoted}")


def test_odd_names(server_dsn, odd_names):
    with opened(server_dsn, dbname=odd_names, user=odd_names) as roads:
        assert roads.same("SELECT current_database(), user").rows == [(odd_names, odd_names)]
        for raw in roads.raws():
            assert (raw.info.dbname, raw.info.user) == (odd_names, odd_names)
            assert psycopg2.extensions.parse_dsn(raw.dsn)["dbname"] == odd_names
        roads.same("SET ROLE nobody")
        roads.same("COMMENT ON DATABASE nowhere IS 'x'")


@pytest.mark.parametrize("keyword", ["dbname", "user"])
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SJIS"])
async def test_name_that_does_not_exist(impl, dsn, keyword, encoding):
    wrong = {keyword: "keine grüße", "client_encoding": encoding}
    expected = portrait_of_error(failure(dsn, **wrong))
    assert portrait_of_error(await failure_of(impl, dsn, **wrong)) == expected
