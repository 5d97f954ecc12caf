"""Rows in every method: what a program can do with one, done to psycopg2's and to ours.

An operation is Python text that is run with the names

    row    a row of the road
    other  psycopg2's row of the same values
    first, last   the names of its first and its last column

and what it gives, what it raises and what has become of the row are the same on every road.
"""

import copy
import gc
import json
import math
import operator
import pickle
import weakref
from itertools import repeat
from types import BuiltinMethodType

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extras import DictRow
from roads import portrait, portrait_of_error

FACTORIES = {
    "tuple": psycopg2.extensions.cursor,
    "DictRow": psycopg2.extras.DictCursor,
    "RealDictRow": psycopg2.extras.RealDictCursor,
    "namedtuple": psycopg2.extras.NamedTupleCursor,
}

# By what is special about them: the columns of a query.
COLUMNS = {
    "plain": "1 AS id, 'x'::text AS name, NULL AS nothing",
    "one": "7 AS id",
    "equal values": "5 AS a, 5 AS b, '5'::text AS c, 5.0::float8 AS d",
    "many types": "1.5::numeric AS n, 'inf'::float8 AS f, date '2020-02-29' AS d,"
    " true AS t, interval '1 day' AS i, timestamptz '2020-01-01 00:00+01:30' AS ts",
    "mutable values": "ARRAY[1, 2] AS list, json_build_object('a', ARRAY[1]) AS json,"
    " ARRAY[ARRAY['x']] AS lists",
    "duplicates": "1 AS a, 2 AS b, 3 AS a",
    "unnamed": "1, 2, 'x'",
    "empty name": """'e' AS "?column?", 1 AS " " """,
    "odd names": """1 AS "a b", 2 AS "1st", 3 AS "é", 4 AS "_under", 5 AS "日本", 6 AS "%s" """,
    "keywords": """1 AS class, 2 AS "None" """,
    "names of methods": "1 AS keys, 2 AS items, 3 AS count, 4 AS index, 5 AS copy, 6 AS get",
    "names of namedtuple's": "1 AS _fields, 2 AS _asdict, 3 AS __class__, 4 AS self",
    "case": """1 AS "Id", 2 AS "ID", 3 AS id""",
    "long name": f"1 AS {'x' * 63}, 2 AS {'y' * 63}",
    "many": ", ".join(f"{n} AS c{n}" for n in range(70)),
    "none": "",
}

LOOKS = (
    """
    row
    len(row)
    bool(row)
    hash(row)
    repr(row)
    str(row)
    f'{row}'
    format(row, 'x')
    '%s' % (row,)
    type(row)
    type(row).__mro__
    type(row).__module__
    vars(row)
    row.__slots__
    row.__doc__
    row.attribute
    weakref.ref(row)() is row
    isinstance(row, (tuple, list))
    isinstance(row, (dict, tuple))
    list(row)
    tuple(row)
    dict(row)
    [*row]
    {**row}
    dict(**row)
    (lambda *args: args)(*row)
    list(iter(row))
    list(reversed(row))
    list(enumerate(row))
    list(map(str, row))
    sum(row)
    max(row)
    any(row)
    sorted(row, key=str)
    operator.itemgetter(0)(row)
    operator.itemgetter(first, last)(row)
    operator.attrgetter(first)(row)
    operator.length_hint(row)
    getattr(row, first)
    getattr(row, 'missing', 0)
    (lambda x, *y: (x, y))(*row)
    ', '.join(row)
    '%(name)s' % row
    '{0[0]} {0[id]}'.format(row)
    json.dumps(row, default=str)
    row[0]
    row[-1]
    row[1]
    row[99]
    row[-99]
    row[2**70]
    row[first]
    row[last]
    row[first.upper()]
    row[first.encode()]
    row['missing']
    row["it's"]
    row['']
    row[None]
    row[True]
    row[1.0]
    row[()]
    row[[]]
    row[...]
    row[:]
    row[1:]
    row[:-1]
    row[::-1]
    row[::0]
    row[-2:99]
    row['a':'b']
    row[math]
    first in row
    last in row
    'missing' in row
    None in row
    1 in row
    [] in row
    row.get(first)
    row.get('missing')
    row.get('missing', 5)
    row.get('missing', default=5)
    row.get(0)
    row.get(99)
    row.get([])
    row.get()
    row.keys()
    row.values()
    row.items()
    len(row.keys())
    list(row.keys())
    list(row.values())
    list(row.items())
    list(reversed(row.keys()))
    first in row.keys()
    row.keys() & {first}
    dict(row.items())
    row.iterkeys()
    row.itervalues()
    row.iteritems()
    row.has_key(first)
    row.copy()
    type(row.copy())
    row.count(1)
    row.count()
    row.index(1)
    row.index('missing')
    row._index
    row._fields
    row._field_defaults
    row._asdict()
    row._replace(**{first: 9})
    row._replace(missing=9)
    row._replace()
    row._make([1])
    row._make(range(len(row)))
    type(row)._make(row)
    type(row)(*row)
    type(row)(row)
    type(row)()
    row.__match_args__
    row.__getnewargs__()
    row.__reduce__()
    row.__reduce_ex__(2)
    row.__getstate__()
    row.__class_getitem__(int)
    row.__missing__('x')
    row.__length_hint__()
    type(row).fromkeys('ab')
    row.fromkeys(['a'], 1)
    row | {'x': 1}
    {'x': 1} | row
    row + row
    row + (1,)
    (1,) + row
    row + [1]
    [1] + row
    row * 2
    row == row
    row == other
    other == row
    row != other
    row is other
    row < other
    row <= other
    other >= row
    row == list(other)
    row == tuple(other)
    row == dict(other)
    tuple(row) == other
    row == 1
    row != None
    row < [1, 'y']
    row < (1, 'y')
    row > {}
    row < 1
    {other: 1}[row]
    [other].index(row)
    hash(row) == hash(other)
    psycopg2.extensions.adapt(row).getquoted()
    copy.copy(row)
    copy.deepcopy(row)
    copy.deepcopy(row)[0] is row[0]
    copy.replace(row, **{first: 9})
    pickle.loads(pickle.dumps(row))
    pickle.loads(pickle.dumps(row)) == other
    pickle.loads(pickle.dumps(other)) == row
""".strip().splitlines()
    + [f"    pickle.dumps(row, {protocol})" for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
)

CHANGES = """
    row[0] = 5
    row[-1] = 5
    row[99] = 5
    row[first] = 5
    row[last] = None
    row['missing'] = 5
    row[None] = 5
    row[[]] = 5
    row[:] = [5]
    row[1:] = []
    row[::2] = [5]
    row[5:5] = 'ab'
    row[:] = 5
    del row[0]
    del row[-1]
    del row[99]
    del row[first]
    del row['missing']
    del row[:]
    row.attribute = 5
    row.__class__ = list
    row.__init__()
    row.__init__(other)
    row.__init__(a=1)
    row.__setstate__((['x'], {'a': 0}))
    row._index = {'new': 0}
    del row._index
    row += [5]
    row += (5,)
    row *= 2
    row *= 0
    row |= {'x': 5}
    row |= [('y', 5)]
    result = row.pop()
    result = row.pop(0)
    result = row.pop(-1)
    result = row.pop(first)
    result = row.pop('missing')
    result = row.pop('missing', None)
    result = row.popitem()
    result = row.popitem(last=False)
    result = row.setdefault(first)
    result = row.setdefault('missing')
    result = row.setdefault('other', 5)
    result = row.setdefault(0)
    result = row.update({first: 5})
    result = row.update(other, new=5)
    result = row.update(5)
    result = row.move_to_end(first)
    result = row.move_to_end(last, last=False)
    result = row.move_to_end('missing')
    result = row.clear()
    result = row.append(5)
    result = row.extend('ab')
    result = row.insert(0, 5)
    result = row.insert(-1, 5)
    result = row.remove(1)
    result = row.remove('missing')
    result = row.reverse()
    result = row.sort()
    result = row.sort(key=repr, reverse=True)
""".strip().splitlines()

OPERATIONS = {text.strip(): compile(f"result = {text.strip()}", "look", "exec") for text in LOOKS}
OPERATIONS |= {text.strip(): compile(text.strip(), "change", "exec") for text in CHANGES}

NAMES = {
    **{"copy": copy, "json": json, "math": math, "operator": operator},
    **{"pickle": pickle, "psycopg2": psycopg2, "weakref": weakref},
}


def look(value):
    """All of a value, also of a row that was taken apart; an iterator is used up."""
    if isinstance(value, DictRow):
        index = getattr(value, "_index", "no index")
        return type(value), [look(item) for item in list.__iter__(value)], look(index)
    if isinstance(value, dict):
        return type(value), [(look(key), look(item)) for key, item in value.items()]
    if hasattr(value, "_fields"):  # each cursor class makes its own
        return type(value).__name__, value._fields, [look(item) for item in value]
    if isinstance(value, list | tuple):
        return type(value), [look(item) for item in value]
    if hasattr(value, "__next__"):
        return type(value), [look(item) for item in value]
    if isinstance(value, BuiltinMethodType):
        return type(value), value.__name__
    return portrait(value)


def operate(text, row, other, columns):
    """What an operation gives or raises, and the row after it."""
    names = {**NAMES, "row": row, "other": other, "first": columns[0], "last": columns[-1]}
    try:
        exec(OPERATIONS[text], names)
        seen = look(names.get("result"))
    except Exception as error:
        seen = portrait_of_error(error)
    return seen, look(names["row"])


def fetch(roads, factory, columns, count):
    """(road, rows) of each road and the names of the columns; None for rows that can't be."""
    sql = f"SELECT {columns} FROM generate_series(1, {count})"
    outcomes = [road.execute(sql, None, factory, lambda cursor: None) for road in roads.all]
    errors = [outcome.error and portrait_of_error(outcome.error) for outcome in outcomes]
    assert errors == [errors[0]] * len(errors)
    names = [column[0][1].strip("'") for column in outcomes[0].seen[-1][0][1:]] or ["none"]
    if errors[0] is not None:
        return [(road.name, None) for road in roads.all], names
    return [(road.name, o.rows) for road, o in zip(roads.all, outcomes, strict=True)], names


each_factory = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
@each_factory
def test_each_operation(roads, factory, columns):
    """Each has a row of its own; so a change that shows in another row is found, too."""
    ((_, expected), *ours), names = fetch(roads, factory, columns, len(OPERATIONS) + 1)
    if expected is None:
        assert factory is FACTORIES["namedtuple"]
        return
    *expected, other = expected
    model = list(map(operate, OPERATIONS, expected, repeat(other), repeat(names)))
    for road, rows in ours:
        for text, row, wanted in zip(OPERATIONS, rows[:-1], model, strict=True):
            assert operate(text, row, other, names) == wanted, f"{road}: {text}"


@each_factory
@given(
    columns=st.sampled_from(["plain", "mutable values", "duplicates", "odd names", "none"]),
    texts=st.lists(st.sampled_from(list(OPERATIONS)), min_size=2, max_size=10),
)
def test_any_sequence_of_operations(open_roads, factory, columns, texts):
    ((_, expected), *ours), names = fetch(open_roads, factory, COLUMNS[columns], 2)
    if expected is None:
        return
    model = [operate(text, expected[0], expected[1], names) for text in texts]
    for road, rows in ours:
        got = [operate(text, rows[0], expected[1], names) for text in texts]
        assert got == model, road
        assert look(rows[1]) == look(expected[1]), road


# --- what rows share, and what they don't ---------------------------------------------------------


def two_rows(roads, factory, columns=COLUMNS["plain"]):
    """Two rows of one result, on each road."""
    return fetch(roads, FACTORIES[factory], columns, 2)[0]


def test_a_row_is_of_psycopg2s_own_class(roads):
    """Not of one that looks like it; a namedtuple's is kept by psycopg2 for all connections."""
    for factory in FACTORIES:
        (_, (expected, _)), (_, (got, neighbour)), *_ = two_rows(roads, factory)
        assert type(got) is type(neighbour) is type(expected)


def test_rows_of_a_result_share_their_index(roads):
    for road, (row, neighbour) in two_rows(roads, "DictRow"):
        assert row._index is neighbour._index, road
        row._index["more"] = 0
        assert neighbour["more"] == 1, road
        assert copy.copy(row)._index is not row._index, road
        assert copy.deepcopy(row)._index is not row._index, road


def test_results_share_nothing(roads):
    for (road, (row, _)), (_, (later, _)) in zip(
        two_rows(roads, "DictRow"), two_rows(roads, "DictRow"), strict=True
    ):
        assert row._index is not later._index, road
        assert row._index == later._index == {"id": 0, "name": 1, "nothing": 2}, road


@each_factory
def test_mutable_values_belong_to_one_row(roads, factory):
    """Also where the server's bytes were the same in both rows."""
    for road, (row, neighbour) in fetch(roads, factory, COLUMNS["mutable values"], 2)[0]:
        mine, others = (
            list(dict(r).values() if isinstance(r, dict) else r) for r in (row, neighbour)
        )
        mine[0].append(3)
        mine[1]["a"].append(2)
        mine[2][0][0] = "y"
        assert others == [[1, 2], {"a": [1]}, [["x"]]], road
        shallow, deep = copy.copy(neighbour), copy.deepcopy(neighbour)
        others[0].append(4)
        assert look(shallow) == look(neighbour) != look(deep), road


@each_factory
def test_columns_of_equal_values(roads, factory):
    """Neighbours may share immutable objects; a change of one column isn't one of the next."""
    columns = "1000 AS a, 1000 AS b, 'same text' AS c, 'same text' AS d"
    for road, (row, neighbour) in fetch(roads, factory, columns, 2)[0]:
        assert look(row) == look(neighbour), road
        if not isinstance(row, tuple):
            row["a"] = row["c"] = "changed"
            assert (row["b"], row["d"]) == (1000, "same text"), road
            assert (neighbour["a"], neighbour["c"]) == (1000, "same text"), road


# --- pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@each_factory
def test_pickles_go_both_ways(roads, factory, protocol, monkeypatch):
    """Between programs on psycopg2 and on aiopgx. Nothing in them asks for aiopgx."""
    ((_, expected), *ours), _ = fetch(roads, factory, COLUMNS["many types"], 2)
    with monkeypatch.context() as patch:
        patch.setattr(psycopg2.extras, "Record", type(expected[0]), raising=False)
        dumped = pickle.dumps(expected[0], protocol)
        for road, rows in ours:
            patch.setattr(psycopg2.extras, "Record", type(rows[0]), raising=False)
            assert pickle.dumps(rows[0], protocol) == dumped, road
            assert look(pickle.loads(dumped)) == look(rows[0]), road
            both = pickle.dumps(rows, protocol)
            assert b"aiopgx" not in both
            assert look(pickle.loads(both)) == look(expected), road


def test_a_namedtuple_whose_class_has_no_home(roads):
    for road, (row, _) in two_rows(roads, "namedtuple"):
        with pytest.raises(pickle.PicklingError, match="Record"):
            pickle.dumps(row)
        assert road and copy.copy(row) == copy.deepcopy(row) == row


# --- rows that outlive what they came from --------------------------------------------------------


@each_factory
async def test_rows_outlive_cursor_and_connection(connect, dsn, factory):
    sql = (
        f"SELECT {COLUMNS['mutable values']}, 'x' AS text, 1.5 AS number FROM generate_series(1, 3)"
    )
    with psycopg2.connect(dsn) as model, model.cursor(cursor_factory=factory) as cursor:
        cursor.execute(sql)
        expected = [cursor.fetchone(), *cursor.fetchmany(1), *cursor.fetchall()]
    model.close()
    conn = await connect()
    async with conn.cursor(cursor_factory=factory) as cursor:
        await cursor.execute(sql)
        rows = [await cursor.fetchone(), *await cursor.fetchmany(1), *await cursor.fetchall()]
        await cursor.execute("SELECT 'another result'")
    await conn.close()
    del cursor, conn
    gc.collect()
    assert look(rows) == look(expected)
    assert rows == expected == rows
    for row in rows:
        if not isinstance(row, tuple):
            row["text"] = "changed"
            assert row["text"] == "changed"


@each_factory
def test_a_row_keeps_no_cursor_alive(roads, factory):
    """Values and names only: whoever keeps a row keeps no result."""
    for road, (row, _) in fetch(roads, factory, COLUMNS["plain"], 2)[0]:
        kept = gc.get_referents(row)
        for item in kept:
            assert not type(item).__module__.startswith(("aiopgx", "psycopg2.extensions")), road
            assert not isinstance(item, psycopg2.extensions.cursor), road
