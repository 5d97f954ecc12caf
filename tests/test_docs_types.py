"""docs/types.md says what is so: each of its examples is run, and no type is left out."""

import json
import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from conftest import command, side_connection
from support import fetch
from types_table import STATISTICS, TYPES, expressions

PAGE = (Path(__file__).parent.parent / "docs" / "types.md").read_text(encoding="utf-8")
NAMES = {"json": json}
for module in (psycopg2, psycopg2.extensions, psycopg2.extras):
    NAMES.update(vars(module))
for kind in (date, datetime, time, timedelta, timezone, Decimal, UUID):
    NAMES[kind.__name__] = kind


def code(cell):
    """What the first pair of backticks holds."""
    return cell.partition("`")[2].partition("`")[0]


def table(title):
    """The cells of each row below the head of a section's table."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [line.strip("|").split("|") for line in lines[2:]]


PLAIN = table("Without any registration")
REGISTERED = table("With a registration")
PARAMETERS = table("Parameters")
CORNERS = table("Corner cases")


def types_of(cell):
    """The types that a row is about, each with the first server version that has it."""
    if "arrays" in cell:
        return {}
    return {
        name: int(since or 12) for name, since in re.findall(r"`([^`(]+)`(?: \((\d+)\))?", cell)
    }


def is_called(value, cell):
    """Whether a value's type has the name in a cell; a cell without a name takes any."""
    name, kind = code(cell), type(value)
    if not cell.startswith(" `"):
        return True
    if name.startswith("psycopg2.extras."):
        return kind is getattr(psycopg2.extras, name.removeprefix("psycopg2.extras."))
    return name in (kind.__name__, f"{kind.__module__}.{kind.__name__}")


def shown(value):
    """A value as the page writes it."""
    if isinstance(value, memoryview):
        return f"memoryview({bytes(value)!r})"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return repr(value)


@pytest.fixture(scope="module")
def dsn(dsn):
    dsn = psycopg2.extensions.make_dsn(dsn, options="-c TimeZone=UTC -c lc_monetary=C")
    with side_connection(dsn) as conn:
        command(conn, PAGE.partition("```sql\n")[2].partition("```")[0])
        command(conn, STATISTICS)
    return dsn


async def value_of(conn, sql):
    try:
        ((value,),) = await fetch(conn, sql)
    except psycopg2.errors.FeatureNotSupported as error:
        assert "XML" in str(error)
        pytest.skip("the server is built without libxml")
    return value


def test_tables_are_found():
    assert len(PLAIN) > 30 and len(REGISTERED) > 10 and len(CORNERS) > 15
    assert len(PARAMETERS) > 20


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: code(row[1]))
async def test_example(ours, connect, row):
    conn = await connect()
    since = min(types_of(row[0]).values(), default=12)
    if conn.raw.server_version // 10000 < since:
        pytest.skip(f"PostgreSQL {since} and newer")
    value = await value_of(conn, code(row[1]))
    assert is_called(value, row[2])
    assert shown(value) == code(row[3])


def canonical(side, names):
    """The server's own name of each type that it has."""
    with side.cursor() as cursor:
        cursor.execute("SELECT t, to_regtype(t)::text FROM unnest(%s::text[]) AS t", [list(names)])
        return {own: name for name, own in cursor if own is not None}


async def test_types_of_a_row(ours, connect, side):
    """All of them give what the example gives, and no type is in no row."""
    conn = await connect()
    version = side.server_version // 10000
    entries = canonical(side, TYPES)
    seen = set()
    for cell, _, kind, _ in PLAIN:
        for own in canonical(side, types_of(cell)):
            seen.add(own)
            if own == "xml":  # may be missing; the example tells
                continue
            value = await value_of(conn, f"SELECT {next(expressions(entries[own], version))}")
            assert is_called(value, kind), own
    with side.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regtype::text FROM pg_type WHERE typtype IN ('b', 'r', 'm') "
            "AND typcategory <> 'A' AND typnamespace = 'pg_catalog'::regnamespace"
        )
        live = {name for (name,) in cursor}
    assert {name for name in live - seen if not TYPES[entries[name]].none} == set()


@pytest.mark.parametrize("row", REGISTERED, ids=lambda row: code(row[0])[:40] + code(row[1]))
async def test_registration(ours, connect, side, row):
    conn = await connect()
    eval(code(row[0]), {**NAMES, "conn": conn, "sync": side})
    value = await value_of(conn, code(row[1]))
    assert is_called(value, row[2])
    assert shown(value) == code(row[3])


@pytest.mark.parametrize(
    ("option", "sql", "kind"),
    [
        ("enable_uuid", "SELECT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", str),
        ("enable_hstore", "SELECT ''::hstore", str),
        ("enable_json", "SELECT '{}'::json", dict),
    ],
)
async def test_not_registered(ours, connect, option, sql, kind):
    assert type(await value_of(await connect(**{option: False}), sql)) is kind


@pytest.mark.parametrize("row", PARAMETERS, ids=lambda row: code(row[1]))
async def test_parameter(impl, connect, row):
    """The literal is as the page says, and is what the server gets."""
    value = eval(code(row[1]), dict(NAMES))
    async with (await connect()).cursor() as cur:
        try:
            seen = cur.mogrify("%s", (value,)).decode()
            await cur.execute("SELECT 1 WHERE %s IS NULL", (value,))
        except psycopg2.ProgrammingError as error:
            seen = type(error).__name__
        else:
            assert cur.query.decode() == f"SELECT 1 WHERE {seen} IS NULL"
        assert seen == code(row[2])


@pytest.mark.parametrize("row", CORNERS, ids=lambda row: code(row[1]))
async def test_corner_case(ours, connect, row):
    conn = await connect()
    try:
        seen = shown(await value_of(conn, code(row[1])))
    except (ValueError, OverflowError, psycopg2.DataError) as error:
        seen = type(error).__name__
    assert seen == code(row[2])
