"""Results that no server sends: any bytes as a value of any type.

A genuine PGresult is made with libpq's own functions and put into a psycopg2 cursor, once to be
fetched by psycopg2 and once by aiopgx. Whoever fetches, the outcome must be the same.

    forge = Forge(dsn)
    forge.check(Case(oids=[23], rows=[[b"1"], [None]]))     raises AssertionError
    forge.check(forge.case(data))                           a case made of any bytes

Under AddressSanitizer the bytes around each value are poisoned while aiopgx reads it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import datetime
import itertools
import re

import psycopg2
import psycopg2._psycopg
import psycopg2.extras
import psycopg2.tz
from psycopg2.extensions import new_array_type, register_type, string_types
from roads import portrait

from aiopgx._rows import take

# --- libpq's side ---------------------------------------------------------------------------------

PGRES_TUPLES_OK = 2


class Attribute(ctypes.Structure):
    """PGresAttDesc."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("tableid", ctypes.c_uint),
        ("columnid", ctypes.c_int),
        ("format", ctypes.c_int),
        ("typid", ctypes.c_uint),
        ("typlen", ctypes.c_int),
        ("atttypmod", ctypes.c_int),
    ]


class CursorHead(ctypes.Structure):
    """A psycopg2 cursor, up to its PGresult."""

    _fields_ = [
        ("head", ctypes.c_char * object.__basicsize__),
        ("conn", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("scrollable", ctypes.c_int),
        ("numbers", ctypes.c_long * 6),
        ("description", ctypes.c_void_p),
        ("pgres", ctypes.c_void_p),
    ]


def function(library, name, result, *arguments):
    found = getattr(library, name)
    found.restype = result
    found.argtypes = arguments
    return found


# psycopg2's own: a look-up in the extension module follows its dependencies
libpq = ctypes.CDLL(psycopg2._psycopg.__file__)
res_p, size_t = ctypes.c_void_p, ctypes.c_size_t
make_result = function(libpq, "PQmakeEmptyPGresult", res_p, ctypes.c_void_p, ctypes.c_int)
set_attributes = function(
    libpq, "PQsetResultAttrs", ctypes.c_int, res_p, ctypes.c_int, ctypes.POINTER(Attribute)
)
set_value = function(
    *(libpq, "PQsetvalue", ctypes.c_int),
    *(res_p, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int),
)
get_value = function(libpq, "PQgetvalue", ctypes.c_void_p, res_p, ctypes.c_int, ctypes.c_int)
allocate = function(libpq, "PQresultAlloc", ctypes.c_void_p, res_p, size_t)

try:
    poison = function(
        ctypes.CDLL(None), "__asan_poison_memory_region", None, ctypes.c_void_p, size_t
    )
except AttributeError:
    poison = None

PADDING = 64
GRANULE = 8  # AddressSanitizer knows how many of the first bytes of so many may be touched

# Their decoders look at the byte behind the value, to see where the number ends.
LOOKS_BEHIND = {700, 701, 1021, 1022}


def forged(oids, names, rows, poisoned=False, form=0):
    """A new PGresult, in binary if `form` is 1; whoever gets it owns it."""
    res = make_result(None, PGRES_TUPLES_OK)
    attributes = (Attribute * len(oids))(
        *[
            Attribute(name.encode(), 0, 0, form, oid, -1, -1)
            for name, oid in zip(names, oids, strict=True)
        ]
    )
    assert res and set_attributes(res, len(oids), attributes)
    areas = []
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            done = set_value(res, i, j, value, -1 if value is None else len(value))
            assert done, "out of memory"
            if poisoned and value is not None:
                end = get_value(res, i, j) + len(value) + (not form and oids[j] in LOOKS_BEHIND)
                areas.append((end, allocate(res, PADDING)))
    for end, padding in areas:
        # libpq has large values in memory of their own, and the padding somewhere else
        near = end <= padding <= end + GRANULE + 1
        poison(end, padding + PADDING - end if near else -end % GRANULE)
    return res


def give(cursor, res):
    """Let a psycopg2 cursor own a PGresult, as if it had just executed."""
    CursorHead.from_address(id(cursor)).pgres = res


# --- what psycopg2 does not survive ---------------------------------------------------------------

REFUSE_EMPTY = ("INT", "LONGINT", "ROWID", "FLOAT", "DECIMAL", "BOOLEAN", "DATE")
VERSION = tuple(map(int, re.findall(r"\d+", psycopg2.__version__)[:3]))


def survived(name, text):
    """Whether psycopg2's caster of this name gets over a text; False also for some harmless ones.

    Texts that no server sends for these types make it loop for ever, or write beyond its buffers.
    """
    is_array = name.endswith(("ARRAY", "[]")) and text[:1] in (b"{", b"[")
    if VERSION < (2, 9, 13) and len(text) >= 24 and (is_array or name == "BINARY"):
        return False
    # behind a comma at the end it finds empty elements for ever, if they are no errors
    if is_array and text[-1:] == b"," and not name.startswith(REFUSE_EMPTY):
        return False
    # the length of a lone quote is -1 for it
    return not is_array or text[-3:-1] not in (b',"', b'{"', b'}"')


# --- cases ----------------------------------------------------------------------------------------


def no_zone(offset):
    raise ZeroDivisionError(offset)


FACTORIES = [
    psycopg2.extensions.cursor,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.NamedTupleCursor,
]
ZONES = [datetime.timezone, None, psycopg2.tz.FixedOffsetTimezone, no_zone]
ENCODINGS = ["UTF8", "LATIN1", "EUC_JP"]  # their texts are decoded each in another way
FETCHES = {
    "fetchall": lambda rows: rows.fetchall(),
    "fetchone": lambda rows: rows.fetchone(),
    "fetchmany": lambda rows: rows.fetchmany(3),
    "fetchmany of one": lambda rows: rows.fetchmany(1),
}
FETCH_NAMES = list(FETCHES)

# OIDs that a server gives to extensions, and one that nobody knows.
HSTORE, HSTORE_ARRAY, PAIR, PAIR_ARRAY, MOOD_ARRAY, UNKNOWN = range(90001, 90007)

# In a case made of bytes: the end of a value, a NULL, and "the next byte as it is".
END, NULL, PLAIN = b"\x1e", b"\x1f", b"\x1b"


@dataclasses.dataclass
class Case:
    oids: list
    rows: list
    names: list = dataclasses.field(default_factory=list)
    factory: type = psycopg2.extensions.cursor
    zone: object = datetime.timezone
    encoding: str = "UTF8"
    fetch: str = "fetchall"

    def __post_init__(self):
        self.names = self.names or [f"c{i}" for i in range(len(self.oids))]


def values(data):
    """The values in the last part of a case's bytes."""
    found, value, i = [], bytearray(), 0
    for i, byte in enumerate(data):
        if byte == END[0] and data[i - 1 : i] != PLAIN:
            found.append(value)
            value = bytearray()
        else:
            value.append(byte)
    found.append(value)
    return [None if value == NULL else bytes(value).replace(PLAIN, b"") for value in found]


def packed(values):
    """The inverse of values(), for bytes without the three that mean something."""
    return END.join(NULL if value is None else value for value in values)


def register(raw):
    """What aiopgx registers, and more of what psycopg2 has."""
    psycopg2.extras.register_uuid(conn_or_curs=raw)
    psycopg2.extras.register_default_json(raw)
    psycopg2.extras.register_hstore(raw, oid=HSTORE, array_oid=HSTORE_ARRAY)
    pair = psycopg2.extras.CompositeCaster("pair", PAIR, [("a", 23), ("b", 25)], PAIR_ARRAY)
    register_type(pair.typecaster, raw)
    register_type(pair.array_typecaster, raw)
    register_type(new_array_type((MOOD_ARRAY,), "MOODARRAY", psycopg2.STRING), raw)
    if raw.encoding == "LATIN1":
        psycopg2.extras.register_ipaddress(raw)


class Forge:
    """Connections to forge results on; close() when done."""

    def __init__(self, dsn):
        self.raws = {}
        for encoding in ENCODINGS:
            self.raws[encoding] = raw = psycopg2.connect(dsn, client_encoding=encoding)
            raw.autocommit = True
            register(raw)
        known = {*string_types, *raw.string_types, UNKNOWN}
        self.oids = sorted(oid for oid in known if oid > 0)
        self.look_at_cursors(raw)

    def look_at_cursors(self, raw):
        """Where CursorHead has the result, psycopg2 has it."""
        with raw.cursor() as cursor:
            cursor.execute("SELECT 'here'")
            res = CursorHead.from_address(id(cursor)).pgres
            assert ctypes.string_at(get_value(res, 0, 0)) == b"here"

    def close(self):
        for raw in self.raws.values():
            raw.close()

    def case(self, data):
        """A case made of any bytes."""
        way, form, *columns = data[:4].ljust(4, b"\0")
        oids = [self.oids[i % len(self.oids)] for i in columns[: 1 + (form & 1)]]
        cells = values(data[4:])
        if len(cells) % len(oids):
            cells.append(None)
        rows = [cells[i : i + len(oids)] for i in range(0, len(cells), len(oids))]
        return Case(
            oids=oids,
            rows=rows if form & 2 else (rows * 20)[:40],
            names=["same", "same"][: len(oids)] if form & 8 else [],
            factory=FACTORIES[way & 3],
            zone=ZONES[way >> 2 & 3],
            encoding=ENCODINGS[(way >> 4 & 3) % 3],
            fetch=FETCH_NAMES[way >> 6],
        )

    def check(self, case):
        """Fetch a case's rows by psycopg2 and by aiopgx, and compare.

        Rows that psycopg2 may not survive are fetched by aiopgx alone, which must.
        """
        raw = self.raws[case.encoding]
        rows = [row for row in case.rows if self.comparable(raw, case.oids, row)]
        if len(rows) < len(case.rows):
            self.fetched(raw, case, take)
        case = dataclasses.replace(case, rows=rows)
        expected = self.fetched(raw, case, by_psycopg2)
        got = self.fetched(raw, case, take)
        for number, (ours, theirs) in enumerate(itertools.zip_longest(got, expected)):
            # psycopg2 is some calls of Python functions deeper when it decodes
            if ours != theirs and "RecursionError" not in f"{ours}{theirs}":
                row = case.rows[number : number + 1] if case.fetch == "fetchone" else case.rows
                raise AssertionError(
                    f"{dataclasses.replace(case, rows=row)}\n{ours}\nbut psycopg2:\n{theirs}"
                )

    def comparable(self, raw, oids, row):
        for oid, value in zip(oids, row, strict=True):
            caster = raw.string_types.get(oid) or string_types.get(oid, psycopg2.STRING)
            if value is not None and not survived(caster.name, value):
                return False
        return True

    def fetched(self, raw, case, who):
        with raw.cursor(cursor_factory=case.factory) as cursor:
            cursor.tzinfo_factory = case.zone
            poisoned = poison is not None and who is take
            give(cursor, forged(case.oids, case.names, case.rows, poisoned))
            return list(fetches(who(cursor), FETCHES[case.fetch], len(case.rows) + 2))


def by_psycopg2(cursor):
    """The cursor, its rows to be made by psycopg2. The casters are those that aiopgx found."""
    take(cursor).hand_over(cursor)
    return cursor


def looks(error):
    """All of an exception that a typecaster raised: `diag` is none of its."""
    chain = [type(error.__cause__), type(error.__context__), error.__suppress_context__]
    return type(error), portrait(error.args), str(error), *chain


def fetches(rows, fetch, limit):
    """What each fetch gave, until there is no more. One that fails has moved on."""
    for _ in range(limit):
        try:
            got = fetch(rows)
        except Exception as error:
            yield looks(error), rows.rownumber
        else:
            yield portrait(got), rows.rownumber
            if not got and got != ():
                return


# --- usual forms ----------------------------------------------------------------------------------

# What servers send; every type is given those of all others as well.
FORMS = r"""
t f true NULL null NaN nan Infinity -infinity infinity
0 1 -1 -0 00 +5 1_000 0x1f 0b1 7. .5 1e5 -1.50 1e400 1e-400 0.00 32767 2147483648 4294967295
9223372036854775807 -9223372036854775808 9223372036854775808 123456789012345678901234567890.5
a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 A0EEBC999C0B4EF8BB6D6BB9BD380A11
\x \x00 \x00ff61225c27 \xABC1 \x0 a\000b\377 \\ a\ a\4
2024-02-29 2023-02-29 0001-01-01 9999-12-31 10000-01-01 0044-03-15|BC
23:59:59 24:00:00 12:30:00.5 12:30:60 12:30:00.1234567 00:00:00+00 12:00:00-03:30:15 12:00:00+05:30
23:59:59.9+15:59:59 12:00:00+24 12:00:00-01:60
2024-02-29|12:34:56 2024-02-29|12:34:56.7 9999-12-31|23:59:59.999999 0044-03-15|12:00:00|BC
2024-07-01|12:34:56.7+00 1800-01-01|00:00:00+00:19:32 2024-02-30|00:00:00-07 2024-01-01T00:00:00Z
1|day -1|days 2|years 1|mon -14|mons 1|year|2|mons|3|days|04:05:06 -00:00:00.5 1|day|-00:00:01
-1|years|+2|days|-03:00:00 100000:00:00 178000000|years 999999999|days 1000000000|days P1Y2M @|1|day
{"a":|[1,|2.5,|{"b":|null}],|"a":|2} [] [1] [[[]]] "a" "\u00e4" "\ud800" |1| [1 {"a"
{} {1,2} {1,NULL} {{1},{2}} {{{{{{1}}}}}} {{{{{{{1}}}}}}} [0:1]={1,2} [2:3][0:0]={{1},{2}} {a,"b"}
{"a\"b","a\\b","a,b","{","}","","NULL",nULL,"|"} {t,f} {1.5,NaN,-Infinity} {1,2}} {1 {1,}2 {"a"b}
{2024-02-29,0001-01-01} {"2024-02-29|12:34:56+00"} {"1|day",04:05:06}
{"\\x00ff","\\x"} {12:00:00+01}
{"{\"a\":|1}",1} {a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11} {infinity} {123456789012345678901}
empty [1,5) (1,5] [,5) (,) [1,) ("a","b") ["2024-01-01|00:00:00","2024-01-02|00:00:00") [1.5,NaN]
["2024-01-01|00:00:00+00",infinity) [2024-01-01,) ["",""] ["a""b","a\"b"] [5,1) [1,5 [1,2,3]
{"[1,5)",empty} {"[\"2024-01-01|00:00:00\",)"} {"(,)","[a,b]"}
"a"=>"1",|"b"=>NULL "a\"b"=>"\\" ""=>"" {"\"a\"=>\"1\""} a=>1
(1,a) (,) (1,"a|""b""|\\") ("1",) (x,y) {"(1,a)","(,)"} ()
127.0.0.1 ::1/128 10.0.0.0/8 1.2.3.4/33 {127.0.0.1,::1} (1,2) <(0,0),1>
$1.50 {(1,2),(3,4);(5,6),(7,8)}
"""
TEXTS = [
    b"",
    b" ",
    b"\0",
    b"1\0",
    b"1\0 2",
    b"{1\0}",
    b"\xc3\xa4",
    b"\xe4",
    b"\xff\xfe",
    b"\x8e\xa1",
]
TEXTS += [text.replace("|", " ").encode() for text in FORMS.split()]
