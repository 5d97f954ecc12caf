"""One statement on each road, and everything that a program can see of its outcome.

The roads: psycopg2 itself ("psycopg2"), aiopgx decoding natively ("native"), the same with every
statement prepared at once that can be ("prepared"), and aiopgx where psycopg2 executes ("foreign",
by a cursor class that aiopgx does not know).

    roads.same(sql, parameters)      the outcome, which is the same on every road
    roads.prepare(sql)               a statement on every road, such as SET
    roads.raws()                     the psycopg2 connections, to register types with
    with roads.using(function): ...  call function(psycopg2 cursor) before each execution
    roads.alike(walk)                what `await walk(road)` gives, which is the same on every road
    roads.same_text(sql, parameters) same(), with mogrify()
    roads.same_steps(step, ...)      what each step on one cursor gives, the same on every road
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import select
import types

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from support import new_loop, shut_down

import aiopgx

COLUMN = [
    *("name", "type_code", "display_size", "internal_size", "precision", "scale", "null_ok"),
    *("table_oid", "table_column"),
]
ATTRIBUTES = ["rowcount", "rownumber", "lastrowid", "statusmessage", "query"]
DIAG = [name for name in dir(psycopg2.extensions.Diagnostics) if not name.startswith("_")]


# --- what can be seen -----------------------------------------------------------------------------


def portrait(value):
    """All of a value: type, repr, and those of what it holds."""
    if isinstance(value, memoryview):
        return (
            *("memoryview", bytes(value), value.format, value.readonly, value.nbytes),
            *(value.itemsize, value.ndim, value.shape, value.strides, value.contiguous),
        )
    if isinstance(value, psycopg2.extensions.Column):
        return [portrait(getattr(value, name)) for name in COLUMN]
    if isinstance(value, psycopg2.extras.DictRow):
        items = [(key, portrait(item)) for key, item in value.items()]
        return type(value), [portrait(item) for item in value], items
    if hasattr(value, "_fields"):  # each execution may make its own class
        return type(value).__name__, value._fields, [portrait(item) for item in value]
    if type(value) in (list, tuple):
        return type(value), [portrait(item) for item in value]
    if isinstance(value, dict):
        return type(value), [(portrait(key), portrait(item)) for key, item in value.items()]
    if isinstance(value, psycopg2.extras.Range):
        ends = [portrait(end) for end in (value.lower, value.upper)]
        return type(value), repr(value), value._bounds, value.isempty, *ends
    return type(value), repr(value)


def portrait_of_error(error):
    """All of an exception but its cursor and its traceback."""
    seen = [type(error), portrait(error.args), str(error), repr(error)]
    chain = [error.__cause__, error.__context__, error.__suppress_context__]
    seen += [link if isinstance(link, (bool, type(None))) else type(link) for link in chain]
    if isinstance(error, psycopg2.Error):
        seen += [error.pgcode, error.pgerror]
        seen += [getattr(error.diag, name) for name in DIAG]
    return seen


def attributes(cursor):
    """`description` with each column's nine attributes, and the other attributes of a result."""
    columns = cursor.description
    if columns is not None:
        columns = [type(columns), *(portrait(column) for column in columns)]
    return [columns, *(getattr(cursor, name) for name in ATTRIBUTES)]


class Outcome:
    """What became of a statement. Equal outcomes can't be told apart by a program.

    rows: what fetchall() gave, None after an error.
    error: the exception of the execution or of fetchall(), or None.
    seen: what is compared.
    """

    def __init__(self):
        self.rows = self.error = None
        self.seen = []

    def raised(self, error, cursor, when):
        self.error = error
        self.seen.append((when, portrait_of_error(error)))
        if isinstance(error, psycopg2.Error) and when == "execute":
            self.seen.append(error.cursor is cursor)

    def __repr__(self):
        return f"Outcome(rows={self.rows!r}, error={self.error!r})"


async def settle(value):
    """What a cursor's method gives: psycopg2's a value, ours an awaitable."""
    return await value if inspect.isawaitable(value) else value


def first_difference(got, expected):
    """The innermost items of two nested sequences that are not equal."""
    if isinstance(got, (list, tuple)) and type(got) is type(expected) and len(got) == len(expected):
        for item, other in zip(got, expected, strict=True):
            if item != other:
                return first_difference(item, other)
    return got, expected


class Tally:
    """What was compared, for the summary of the session."""

    def __init__(self):
        self.types, self.settings = set(), set()  # their names
        self.results = self.values = self.differences = 0

    def add(self, rows):
        self.results += 1
        self.values += sum(map(len, rows or ()))

    def counts(self):
        """What merge() takes, of another process."""
        return {name: list(v) if isinstance(v, set) else v for name, v in vars(self).items()}

    def merge(self, counts):
        for name, value in counts.items():
            mine = getattr(self, name)
            setattr(self, name, mine | set(value) if isinstance(mine, set) else mine + value)

    def __str__(self):
        return (
            f"{len(self.types)} types x {len(self.settings)} settings x 4 roads, "
            f"{self.results:,} results with {self.values:,} values compared, "
            f"{self.differences} differences"
        )


tally = Tally()


def check_equal(name, sql, got, expected):
    if got != expected:
        tally.differences += 1
        ours, theirs = first_difference(got, expected)
        raise AssertionError(
            f"{name}: {sql!r}\n{ours!r}\nbut psycopg2:\n{theirs!r}\nin {got}\nand {expected}"
        )


# --- the roads ------------------------------------------------------------------------------------


@functools.cache
def unknown(factory):
    """A cursor class that does the same, and that aiopgx leaves to psycopg2."""
    return type("Unknown", (factory,), {"__module__": factory.__module__})


class Reference:
    """psycopg2 as its users call it, set up as aiopg sets its connections up."""

    name = "psycopg2"

    def __init__(self, dsn, **kwargs):
        self.raw = psycopg2.connect(dsn, **kwargs)
        self.raw.autocommit = True
        psycopg2.extras.register_uuid(conn_or_curs=self.raw)
        psycopg2.extras.register_default_json(self.raw)
        oids = psycopg2.extras.HstoreAdapter.get_oids(self.raw)
        if oids[0]:
            psycopg2.extras.register_hstore(self.raw, oid=oids[0], array_oid=oids[1])

    def run(self, coroutine):
        """The result of a coroutine that has nothing to wait for."""
        with contextlib.closing(coroutine):
            try:
                coroutine.send(None)
            except StopIteration as stopped:
                return stopped.value
        raise RuntimeError("psycopg2 does not wait")

    async def cursor(self, factory=psycopg2.extensions.cursor):
        """A new cursor, and the psycopg2 cursor in it."""
        cursor = self.raw.cursor(cursor_factory=factory)
        return cursor, cursor

    def execute(self, sql, parameters, factory, hook):
        outcome = Outcome()
        with self.raw.cursor(cursor_factory=factory) as cursor:
            hook(cursor)
            when = "execute"
            try:
                cursor.execute(sql, parameters)
                outcome.seen.append(attributes(cursor))
                when = "fetch"
                outcome.rows = cursor.fetchall() if cursor.description is not None else None
            except Exception as error:
                outcome.raised(error, cursor, when)
            outcome.seen.append(attributes(cursor))
        return outcome

    def notified(self, count):
        """Wait for so many notifications, and take them."""
        while len(self.raw.notifies) < count:
            assert select.select([self.raw], [], [], 5)[0], "no notification came"
            self.raw.poll()
        taken = self.raw.notifies[:count]
        del self.raw.notifies[:count]
        return taken

    def close(self):
        self.raw.close()


class Ours:
    """aiopgx; its statements are executed from synchronous code."""

    def __init__(self, name, dsn, **kwargs):
        self.name = name
        self.loop = new_loop("asyncio")
        self.errors = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.conn = self.run(self._connect(dsn, kwargs))
        self.raw = self.conn.raw

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def _connect(self, dsn, kwargs):
        threshold = 0 if self.name == "prepared" else None
        return await aiopgx.connect(dsn, prepare_threshold=threshold, **kwargs)

    async def cursor(self, factory=psycopg2.extensions.cursor):
        """A new cursor, and the psycopg2 cursor in it."""
        if self.name == "foreign":
            factory = unknown(factory)
        cursor = await self.conn.cursor(cursor_factory=factory)
        return cursor, cursor._psycopg

    def execute(self, sql, parameters, factory, hook):
        return self.run(self._execute(sql, parameters, factory, hook))

    async def _execute(self, sql, parameters, factory, hook):
        outcome = Outcome()
        if self.name == "foreign":
            factory = unknown(factory)
        async with self.conn.cursor(cursor_factory=factory) as cursor:
            hook(cursor._psycopg)
            when = "execute"
            try:
                await cursor.execute(sql, parameters)
                outcome.seen.append(attributes(cursor))
                when = "fetch"
                outcome.rows = await cursor.fetchall() if cursor.description is not None else None
            except Exception as error:
                outcome.raised(error, cursor._psycopg, when)
            outcome.seen.append(attributes(cursor))
        assert not self.errors, self.errors
        return outcome

    def notified(self, count):
        """Wait for so many notifications, and take them."""

        async def notified():
            return [await asyncio.wait_for(self.conn.notifies.get(), 5) for _ in range(count)]

        return self.run(notified())

    def close(self):
        async def close():
            self.conn.close()

        self.run(close())
        shut_down(self.loop)


class Roads:
    """Connections to one database, one for each road; close() when done."""

    def __init__(self, dsn, **kwargs):
        self.reference = Reference(dsn, **kwargs)
        self.ours = [Ours(name, dsn, **kwargs) for name in ("native", "prepared", "foreign")]
        self.hook = lambda cursor: None

    @property
    def all(self):
        return [self.reference, *self.ours]

    def raws(self):
        """The psycopg2 connection of each road."""
        return [road.raw for road in self.all]

    @contextlib.contextmanager
    def using(self, hook):
        """Let hook(psycopg2 cursor) prepare each cursor."""
        before, self.hook = self.hook, hook
        try:
            yield
        finally:
            self.hook = before

    def same(self, sql, parameters=None, factory=psycopg2.extensions.cursor):
        """Execute and fetch everywhere; the outcome of psycopg2, after the others were equal.

        parameters: may be a function that makes them, for iterators and the like.
        """
        make = parameters if isinstance(parameters, types.FunctionType) else lambda: parameters
        expected = self.reference.execute(sql, make(), factory, self.hook)
        rows = portrait(expected.rows)
        for road in self.ours:
            got = road.execute(sql, make(), factory, self.hook)
            check_equal(road.name, sql, got.seen, expected.seen)
            check_equal(road.name, sql, portrait(got.rows), rows)
        tally.add(expected.rows)
        return expected

    def same_text(self, sql, parameters=None):
        """As same(), and mogrify() gives the text that `query` shows."""
        make = parameters if isinstance(parameters, types.FunctionType) else lambda: parameters

        async def mogrify(road):
            cursor, _ = await road.cursor()
            with contextlib.closing(cursor):
                try:
                    return cursor.mogrify(sql, make())
                except Exception as error:
                    return portrait_of_error(error)

        text = self.alike(mogrify)
        expected = self.same(sql, parameters)
        sent = expected.seen[-1][-1]
        # what was refused leaves no query, and what failed its own
        assert sent == (text if isinstance(text, bytes) else None)
        return expected

    def alike(self, walk):
        """Run the coroutine walk(road) everywhere; psycopg2's result, after the others were equal.

        It awaits nothing but settle() and road.cursor().
        """
        expected = self.reference.run(walk(self.reference))
        for road in self.ours:
            check_equal(road.name, walk.__name__, road.run(walk(road)), expected)
        return expected

    def same_steps(self, *steps, factory=psycopg2.extensions.cursor):
        """Take the steps on one cursor everywhere; what psycopg2's have given.

        A step is a method of the cursor with its arguments, as in ("execute", "SELECT 1"), or a
        function to be called with the psycopg2 cursor. After each the attributes are compared.
        """

        async def take(road):
            seen = []
            cursor, impl = await road.cursor(factory)
            with contextlib.closing(cursor):
                for step in steps:
                    try:
                        if callable(step):
                            step(impl)
                        else:
                            name, *arguments = step
                            seen.append(portrait(await settle(getattr(cursor, name)(*arguments))))
                    except Exception as error:
                        seen.append(portrait_of_error(error))
                    seen.append(attributes(cursor))
            return seen

        return self.alike(take)

    def prepare(self, sql):
        """A statement that must go well everywhere, and is none to compare."""
        for road in self.all:
            outcome = road.execute(sql, None, psycopg2.extensions.cursor, lambda cursor: None)
            if outcome.error is not None:
                raise outcome.error

    def close(self):
        for road in self.all:
            road.close()
