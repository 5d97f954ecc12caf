"""What the type differential suite reads: every type of a stock server with literals of it, types
made by a user, and the session settings that change how a server writes values.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Sql(str):
    """An expression, where a plain str is the text of a literal."""


class Entry(NamedTuple):
    """Values of one type.

    values: texts of literals, `Sql` expressions, and pairs (first server version, one of these).
    since: the first server version that has the type.
    none: why no value of it can be made. Then the server's refusals are compared.
    """

    values: list
    since: int = 12
    none: str | None = None


def quoted(text):
    """A string literal that means the same whatever standard_conforming_strings is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def expressions(name, version):
    """SQL of each value of a type that this server has."""
    for value in TYPES[name].values:
        since, value = value if isinstance(value, tuple) else (12, value)
        if since <= version:
            yield value if isinstance(value, Sql) else f"{quoted(value)}::{name}"


def known(version):
    """The names of the types that a server of this version has."""
    return [name for name, entry in TYPES.items() if entry.since <= version]


# --- the types of a server ------------------------------------------------------------------------

TEXTS = [
    *("", "a", " a ", "NULL", "null", "äöü€", "\U0001d518\u0301", "a\nb\tc\r\x01\x7f", "\\", '"'),
    *("'", "{}", "a,b", "%s", "%(a)s", "()", "(,)", '\\"', "\\\\", "\ufeffx", "\u00a0", "x" * 5000),
]
DATES = [
    *("2024-02-29", "0001-01-01", "9999-12-31", "1999-12-31", "1969-12-31", "1890-05-06"),
    *("infinity", "-infinity", "0001-12-31 BC", "0044-03-15 BC", "10000-01-01", "5874897-12-31"),
    "4713-01-01 BC",
]
CLOCKS = [
    *("00:00", "23:59:59.999999", "24:00", "12:30:00.5", "12:30:00.000001", "12:30:59.10"),
    "23:59:59.9999999",
]
MOMENTS = [
    *("2024-02-29 12:34:56", "2024-07-01 12:34:56.7", "0001-01-01 00:00:00.000001"),
    *(
        "9999-12-31 23:59:59.999999",
        "1890-05-06 07:08:09",
        "1937-05-01 00:00",
        "0044-03-15 12:00 BC",
    ),
    *(
        "1970-01-01 00:00",
        "infinity",
        "-infinity",
        "10000-01-01 00:00",
        "294276-12-31 23:59:59.999999",
    ),
    *("4713-01-01 00:00 BC", "2024-02-29 24:00"),
]
RANGES = ["empty", "(,)", "[{0},)", "(,{1})", "[{0},{1}]", "({0},{1}]", "[{0},{1})", "({0},{1})"]
MULTIRANGES = ["{{}}", "{{(,)}}", "{{[{0},{1})}}", "{{(,{0}),[{1},)}}", "{{empty}}"]


def between(forms, low, high):
    return [form.format(low, high) for form in forms]


NUMBERS = {
    "bool": Entry(["t", "f"]),
    "int2": Entry(["0", "-1", "-32768", "32767", "7"]),
    "int4": Entry(
        ["0", "1", "-1", "255", "256", "257", "-5", "-6", "10", "2147483647", "-2147483648"]
    ),
    "int8": Entry(
        [
            *("0", "-1", "999999999999999999", "1000000000000000000", "9223372036854775807"),
            "-9223372036854775808",
        ]
    ),
    "float4": Entry(
        [
            *("0", "-0", "1.5", "0.1", "16777217", "3.4028235e38", "1e-45", "1.17549435e-38"),
            *("NaN", "Infinity", "-Infinity", "-1e10", "123456.7"),
        ]
    ),
    "float8": Entry(
        [
            *("0", "-0", "1e22", "1e23", "5e-324", "2.2250738585072014e-308", "0.1", "-1.5"),
            *("0.30000000000000004", "1.7976931348623157e308", "NaN", "Infinity", "-Infinity"),
            *("123456789012345678", "1e-5", "1e15", "1e16"),
        ]
    ),
    "numeric": Entry(
        [
            *("0", "0.00", "-1.50", "1e400", "1e-400", "123456789012345678901234567890.5", "NaN"),
            *("1e20", "0.000001", "0.0000001", "-0.0", "9" * 1000 + "." + "9" * 1000),
            *((14, "Infinity"), (14, "-Infinity"), (15, Sql("1200::numeric(2, -2)"))),
            *(Sql("1.5::numeric(10, 3)"), Sql("1.5::numeric(1000, 999)"), Sql("99::numeric(2)")),
        ]
    ),
    "money": Entry(
        ["0", "1.50", "-1.50", "92233720368547758.07", "-92233720368547758.08", "1234567.891"]
    ),
}

STRINGS = {
    "text": Entry(TEXTS),
    "varchar": Entry(
        [*TEXTS[:9], Sql("'abc'::varchar(20)"), Sql("'abc'::varchar(2)"), Sql("'a'::varchar(1)")]
    ),
    "bpchar": Entry(
        [
            *TEXTS[:9],
            Sql("'abc'::char(5)"),
            Sql("'ä'::char(3)"),
            Sql("'a'::char"),
            Sql("''::char(2)"),
        ]
    ),
    "name": Entry(["", "abc", "ä b", '"', "x" * 70]),
    '"char"': Entry(["", "x", '"', "\\", ",", " ", Sql('(-61)::"char"'), Sql('1::"char"')]),
    "bytea": Entry(
        [
            *("", "abc", "\\x00", "\\x00ff61225c27", "\\\\", "a\\000b\\377", "\\x" + "5c" * 50),
            *("\\x27", "\\x2c7b7d", Sql(r"decode(repeat('deadbeef', 500), 'hex')")),
        ]
    ),
    "bit": Entry(["", "0", "1", Sql("B'1010'"), Sql("B'1010'::bit(4)"), Sql("X'1F'::bit(9)")]),
    "varbit": Entry(["", "0", "1011", Sql("B'101'::varbit(5)"), Sql("repeat('10', 100)::varbit")]),
    "refcursor": Entry(["", "a cursor", '"x"']),
    "uuid": Entry(
        [
            *("00000000-0000-0000-0000-000000000000", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
            *("ffffffff-ffff-ffff-ffff-ffffffffffff", "{0123456789abcdef0123456789abcdef}"),
        ]
    ),
}

DOCUMENTS = {
    "json": Entry(
        [
            *("null", "1", "-0", "1e5", "1.0", "1E400", "[]", "{}", '""', '"a"', "true", "false"),
            *(
                '"\\u00e4\\ud83d\\ude00\\n\\""',
                ' {"a" : [1, 2.5, {"b": null}], "a": 2} ',
                "9" * 400,
            ),
            *('{"": {"": []}}', "[[[[[[[[]]]]]]]]", '["NaN", "é", "\\\\"]', "\n[1,\t2]\r\n"),
            '"\\ud800"',
        ]
    ),
    "jsonb": Entry(
        [
            *("null", "true", '{"b": "ä", "a": [1, 2]}', "123456789012345678901234567890"),
            *("1e300", "1.10", "-0", '"\\""', "[]", "{}", '{"a": 1, "a": 2}', "[null, 1.50]"),
        ]
    ),
    "jsonpath": Entry(
        ["$", '$.a[*] ? (@ > 2 && @.b == "x")', 'strict $."a b"', "lax $[0 to last]"]
    ),
    "xml": Entry(
        [
            *("", "<a/>", "<a b='1'>ä &lt; &#8364;</a>", "text", Sql("xmlcomment('c')")),
            Sql("xmlelement(name a, xmlattributes(1 AS b), '\\xff00'::bytea, 'x<y'::text)"),
            Sql("xmlelement(name d, '2024-02-29'::date, now() - now(), true, 1e20::float8)"),
        ]
    ),
    "tsvector": Entry(["", "'a' 'b'", "a:1A,2B b:16383D", "'it''s':3 'b\\\\c'", "'ä\"'", "' '"]),
    "tsquery": Entry(["", "a & b", "!a | (b:*AB <2> c)", "'it''s'", "'a b' <-> c"]),
}

TIMES = {
    "date": Entry(DATES),
    "time": Entry([*CLOCKS, Sql("'12:30:00.123456'::time(3)"), Sql("'12:30:00.5'::time(0)")]),
    "timetz": Entry(
        [
            *("00:00+00", "12:00+05:30", "12:00-03:30:15", "23:59:59.9+15:59:59", "24:00-01"),
            *("00:00:00.000001-15:59:59", "12:00:00.123+00:00:01", "24:00+00", "12:00"),
            Sql("'12:30:00.123456+02'::timetz(3)"),
        ]
    ),
    "timestamp": Entry([*MOMENTS, Sql("'2024-02-29 12:34:56.789'::timestamp(1)")]),
    "timestamptz": Entry(
        [
            *MOMENTS,
            *("2024-02-29 12:34:56+00", "2024-07-01 12:34:56.7-03:30:15", "1800-01-01 00:00+00"),
            *("9999-12-31 23:59:59+00", "0001-01-01 00:00+00", "2024-03-31 01:59:59.999999+01"),
            *("2024-10-27 02:30+01", "1883-11-18 12:00-05"),
            Sql("'2024-02-29 12:34:56.789+00'::timestamptz(1)"),
        ]
    ),
    "interval": Entry(
        [
            *("0", "1 day", "-1 day", "2 days", "1 month", "-14 months", "1 year", "-1 year"),
            *("100 years", "04:05:06.789", "-00:00:00.5", "1 year 2 months 3 days 04:05:06"),
            *("1 day -00:00:01", "-1 day 00:00:01", "-1 year +2 days -03:00", "100000 hours"),
            *("1 year -1 month", "1 mon -1 day 1 microsecond", "-0.000001 second", "3 hours"),
            *("178000000 years", "999999999 days", "1000000000 days", "2147483647 hours"),
            *("-178000000 years", "-999999999 days", "1 minute", "1.5 seconds", "-11 mons"),
            *("1 year 1 second", "5 days 1.000001 seconds", "-2 years -3 days", "1 mon 1 day"),
            *((17, "infinity"), (17, "-infinity")),
            *(
                Sql("'1.123456 s'::interval(2)"),
                Sql("'1 day 2:03:04.56'::interval day to second(1)"),
            ),
            *(Sql("'14'::interval month"), Sql("'1-2'::interval year to month")),
        ]
    ),
}

GEOMETRY = {
    "point": Entry(["(1,2)", "(-0,1e300)", "(NaN,Infinity)", "(0.1,0.30000000000000004)"]),
    "line": Entry(["{1,2,3}", "{0,-1,0.1}"]),
    "lseg": Entry(["[(1,2),(3,4)]", "[(0,0),(0,0)]"]),
    "box": Entry(["(3,4),(1,2)", "(0.1,0),(-1,-2)"]),
    "path": Entry(["((1,2),(3,4))", "[(1,2),(3,4)]", "((0.1,2))"]),
    "polygon": Entry(["((1,2),(3,4),(5,6))", "((0.1,0))"]),
    "circle": Entry(["<(1,2),3>", "<(0.1,-0),0>"]),
}

NETWORK = {
    "inet": Entry(
        [
            *("127.0.0.1", "10.0.0.1/8", "0.0.0.0/0", "::1", "::1/128", "fe80::1/64"),
            *("::ffff:1.2.3.4", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ]
    ),
    "cidr": Entry(["10.0.0.0/8", "0.0.0.0/0", "192.168.1.1/32", "::/0", "2001:db8::/32", "::1"]),
    "macaddr": Entry(["08:00:2b:01:02:03", "00:00:00:00:00:00", "ff-ff-ff-ff-ff-ff"]),
    "macaddr8": Entry(["08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03"]),
}

SYSTEM = {
    "oid": Entry(["0", "1", "2147483648", "4294967295", "-1"]),
    "xid": Entry(["0", "7", "4294967295"]),
    "xid8": Entry(["0", "18446744073709551615"], since=13),
    "cid": Entry(["0", "4294967295"]),
    "tid": Entry(["(0,1)", "(4294967295,65535)"]),
    "int2vector": Entry(["", "1", "1 -2 32767"]),
    "oidvector": Entry(["", "1", "1 2 4294967295"]),
    "pg_lsn": Entry(["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"]),
    "txid_snapshot": Entry(["10:20:10,14,15", "1:1:"]),
    "pg_snapshot": Entry(["10:20:10,14,15", "1:1:"], since=13),
    "aclitem": Entry(
        [
            Sql("makeaclitem(0, 99999, 'SELECT', true)"),
            Sql("makeaclitem(99999, 10, 'UPDATE', false)"),
        ]
    ),
    "regproc": Entry(["-", "now", "0", "4294967295"]),
    "regprocedure": Entry(["-", "lower(text)", "pg_catalog.timezone(text,timestamptz)", "99999"]),
    "regoper": Entry(["0", "||/", "99999"]),
    "regoperator": Entry(["0", "+(int4,int4)", "!~~*(text, text)", "99999"]),
    "regclass": Entry(["-", "pg_class", "information_schema.tables", "99999"]),
    "regcollation": Entry(["-", '"C"', "99999"], since=13),
    "regtype": Entry(["-", "int4", "timestamptz[]", '"char"', "99999"]),
    "regrole": Entry(["-", "pg_monitor", "99999"]),
    "regnamespace": Entry(["-", "pg_catalog", "99999"]),
    "regconfig": Entry(["-", "simple", "99999"]),
    "regdictionary": Entry(["-", "simple", "99999"]),
    "pg_node_tree": Entry([Sql("(SELECT ev_qual FROM pg_rewrite ORDER BY oid LIMIT 1)")]),
    "pg_ndistinct": Entry([Sql("(SELECT stxdndistinct FROM counted)")]),
    "pg_dependencies": Entry([Sql("(SELECT stxddependencies FROM counted)")]),
    "pg_mcv_list": Entry([Sql("(SELECT stxdmcv FROM counted)")]),
    "gtsvector": Entry(["1"], none="is found inside of indexes only"),
    "pg_brin_bloom_summary": Entry(["1"], 14, "is found inside of indexes only"),
    "pg_brin_minmax_multi_summary": Entry(["1"], 14, "is found inside of indexes only"),
}

SPANS = {
    "int4range": ("1", "5"),
    "int8range": ("-9223372036854775808", "9223372036854775806"),
    "numrange": ("-1.50", "1e30"),
    "tsrange": ('"2024-02-29 12:34:56.7"', '"9999-12-31 23:59:59"'),
    "tstzrange": ('"2024-02-29 12:34:56.7+05:30"', '"9998-12-31 23:59:59+00"'),
    "daterange": ("2024-02-29", "9999-12-31"),
}
MOST_RANGES = {
    "tsrange": ["[-infinity,infinity]", "[0044-03-15 BC,]", "[2024-01-01,20000-01-01)"],
    "tstzrange": ["[-infinity,infinity]", "[0044-03-15 BC,]", "[2024-01-01,20000-01-01)"],
    "daterange": ["[-infinity,infinity]", "[0044-03-15 BC,]", "[2024-01-01,20000-01-01)"],
    "numrange": ["[0,NaN)"],
}
CONTAINERS = {
    name: Entry([*between(RANGES, *ends), *MOST_RANGES.get(name, [])])
    for name, ends in SPANS.items()
} | {
    name.replace("range", "multirange"): Entry(between(MULTIRANGES, *ends), 14)
    for name, ends in SPANS.items()
}

DOMAINS = {
    "information_schema.cardinal_number": Entry(["0", "7"]),
    "information_schema.character_data": Entry(["", "a b"]),
    "information_schema.sql_identifier": Entry(["a", 'a"b']),
    "information_schema.yes_or_no": Entry(["YES", "NO"]),
    "information_schema.time_stamp": Entry(["2024-02-29 12:34:56.789+00", "infinity"]),
}

NO_VALUE = "stands for other types, or for what a function does"
PSEUDO = {
    "void": Entry(["", "x", Sql("pg_sleep(0)")]),
    "cstring": Entry(["", "a", 'ä{}"\\', Sql("textout('x')")]),
    "unknown": Entry(["", "a", Sql("'a'")]),
    "record": Entry(
        [
            *(
                Sql("ROW()"),
                Sql("ROW(NULL)"),
                Sql("ROW(1, NULL, '')"),
                Sql("ROW('a\"b', '\\', ',()')"),
            ),
            *(
                Sql("ROW(ROW(1, 'a b'), ARRAY['x', NULL])"),
                Sql("ROW('2024-02-29'::date, 1.5::float8)"),
            ),
        ]
    ),
    "anyarray": Entry(
        [Sql("(SELECT stavalues1 FROM pg_statistic WHERE starelid = 'stats'::regclass LIMIT 1)")]
    ),
    '"any"': Entry(["a"]),
    "anyelement": Entry(["a"]),
    "anynonarray": Entry(["a"]),
    "anycompatible": Entry(["a"], since=13),
    "anycompatiblenonarray": Entry(["a"], since=13),
    **{
        name: Entry(["1"], since, NO_VALUE)
        for names, since in [
            ("anyenum anyrange internal trigger event_trigger pg_ddl_command", 12),
            ("language_handler fdw_handler tsm_handler index_am_handler table_am_handler", 12),
            ("opaque", 12),  # gone in 13
            ("anycompatiblearray anycompatiblerange", 13),
            ("anymultirange anycompatiblemultirange", 14),
        ]
        for name in names.split()
    },
}


# --- types of a user ------------------------------------------------------------------------------

# What the server keeps in types of its own.
STATISTICS = """
    CREATE TABLE stats (a int, b int);
    INSERT INTO stats SELECT i % 5, i % 5 FROM generate_series(1, 500) AS i;
    CREATE STATISTICS counts (ndistinct, dependencies, mcv) ON a, b FROM stats;
    ANALYZE stats;
    CREATE VIEW counted AS
        SELECT stxdndistinct, stxddependencies, stxdmcv
        FROM pg_statistic_ext_data JOIN pg_statistic_ext AS s ON s.oid = stxoid
        WHERE s.stxname = 'counts';
"""
SCHEMA = (
    STATISTICS
    + r"""
    CREATE TYPE mood AS ENUM ('sad', 'very happy', '"', 'ä,b', 'it''s', '\', 'NULL');
    CREATE DOMAIN posint AS int CHECK (VALUE > 0);
    CREATE DOMAIN label AS varchar(10);
    CREATE DOMAIN moment AS timestamptz(3);
    CREATE DOMAIN ints AS int[];
    CREATE DOMAIN pints AS posint[];
    CREATE TYPE pair AS (a int, b text);
    CREATE TYPE nest AS (p pair, ps pair[], m mood, r int4range, w timestamptz, x bytea, f float8);
    CREATE DOMAIN goodpair AS pair CHECK ((VALUE).a > 0);
    CREATE TABLE item (id int, name varchar(5), tags text[], price numeric(10, 2), gone int);
    ALTER TABLE item DROP gone;
    CREATE TYPE textrange AS RANGE (subtype = text);
    CREATE TYPE floatrange AS RANGE (subtype = float8);
"""
)

NEST = """ROW(ROW(1, 'a "b"'), ARRAY[ROW(NULL, '\\'), ROW(2, '')]::pair[], 'ä,b', '[1,5)',
            '2024-02-29 12:34:56.789+00', 'x', 0.1)::nest"""
OWN = {
    "hstore": Entry(["", "a=>1", '"a b"=>"c\\"d"', 'a=>NULL, b=>"NULL"', '"ä,"=>"\\\\", ""=>""']),
    "mood": Entry(["sad", "very happy", '"', "ä,b", "it's", "\\", "NULL"]),
    "posint": Entry(["1", "2147483647"]),
    "label": Entry(["", "abc", 'a"b']),
    "moment": Entry(["2024-02-29 12:34:56.789123+00", "infinity", "0044-03-15 00:00+00 BC"]),
    "ints": Entry(["{}", "{1,NULL}", "[0:0][2:3]={{1,2}}"]),
    "pints": Entry(["{}", "{1,NULL}"]),
    "pair": Entry(["(1,a)", "(,)", '(1,"a ""b\\\\""")', Sql("ROW(1, '(x,y)')::pair"), '(,"")']),
    "nest": Entry(["(,,,,,,)", Sql(NEST)]),
    "goodpair": Entry(["(1,a)"]),
    "item": Entry(["(,,,)", Sql("ROW(1, 'abc', ARRAY['a', NULL, 'b c'], 1.5)::item")]),
    "textrange": Entry(["empty", "(,)", "[a,b]", '["a,","b ""c"]', '["",\\"]', "[ä,)"]),
    "floatrange": Entry(["[0.1,NaN)", "(-Infinity,1e22]"]),
    "textmultirange": Entry(["{}", '{[a,b],["c d",e)}'], 14),
    "floatmultirange": Entry(["{}", "{[0.1,1e22)}"], 14),
    "ghstore": Entry(["1"], none="is found inside of indexes only"),
}

# Arrays as texts: what ARRAY[...] does not say.
ARRAYS = {
    "int4[]": Entry(
        [
            *("{}", "{1}", "{1,NULL}", "[0:1]={1,2}", "[2:3][0:0]={{1},{2}}", "{{1,2},{3,4}}"),
            *("{{{{{{1}}}}}}", "{ 1 , 2 }", "[-5:-4]={-5,-4}", "{{{{{{1,2},{NULL,3}}}}}}"),
        ]
    ),
    "text[]": Entry(
        [
            *(
                '{NULL,"NULL",null,"null",nuLL}',
                '{"a\\"b","a\\\\b","a,b","{","}",""," "}',
                "{a b,c}",
            ),
            *('{{"\\"\\\\\\""},{"\\\\\\\\"}}', "{ä,€}", '[1:1]={"[0:1]={a}"}'),
        ]
    ),
    "box[]": Entry(["{(1,2),(3,4);(5,6),(7,8)}", "{}", "{(1,2),(3,4);NULL}"]),
    "timestamptz[]": Entry(['{"2024-02-29 12:00+00",NULL}', "{infinity}"]),
    "interval[]": Entry(['{"1 day",NULL}', '{{"1 mon"},{"-1 day"}}']),
    "bytea[]": Entry([r'{"\\x00ff",NULL,""}']),
    "hstore[]": Entry(['{"a=>1",NULL}']),
    "json[]": Entry(['{"{\\"a\\": [1]}",NULL,"null"}']),
}

TYPES = {
    **NUMBERS,
    **STRINGS,
    **DOCUMENTS,
    **TIMES,
    **GEOMETRY,
    **NETWORK,
    **SYSTEM,
    **CONTAINERS,
    **DOMAINS,
    **PSEUDO,
    **OWN,
    **ARRAYS,
}

# --- settings -------------------------------------------------------------------------------------

CALENDAR = [
    *TIMES,
    *(name for name in CONTAINERS if name.startswith(("ts", "date"))),
    *("information_schema.time_stamp", "moment", "nest", "record", "timestamptz[]", "xml"),
]
FLOATS = ["float4", "float8", *GEOMETRY, "floatrange", "box[]", "record", "nest", "numeric"]
ZONES = {
    "UTC": "UTC",
    "Asia/Kathmandu": "Asia/Kathmandu",
    "America/St_Johns": "America/St_Johns",
    "Europe/Amsterdam": "Europe/Amsterdam",
    "America/New_York": "America/New_York",
    "Pacific/Kiritimati": "Pacific/Kiritimati",
    "fixed": "<+0530>-5:30",
    "Africa/Monrovia": "Africa/Monrovia",
    "POSIX": "CET-1CEST,M3.5.0,M10.5.0/3",
    "ISO offset": "+05:30",
    "far": "<-1559>15:59",
}
ANOTHER_LOCALE = """SELECT set_config('lc_monetary', collcollate, false) FROM pg_collation
    WHERE collprovider = 'c' AND collencoding IN (-1, pg_char_to_encoding('UTF8'))
    ORDER BY collcollate ILIKE 'C%', collcollate IN ('C', 'POSIX'), collcollate LIMIT 1"""


class Setting(NamedTuple):
    """Statements, and the types whose text they change (None: maybe any)."""

    statements: list
    types: list | None = None


SETTINGS = {
    "default": Setting([]),
    **{
        f"DateStyle {style}, {order}": Setting([f"SET DateStyle = '{style}, {order}'"], CALENDAR)
        for style, order in itertools.product(
            ["ISO", "SQL", "Postgres", "German"], ["DMY", "MDY", "YMD"]
        )
    },
    **{
        f"IntervalStyle {style}": Setting(
            [f"SET IntervalStyle = '{style}'"], ["interval", "interval[]", "record", "xml"]
        )
        for style in ["postgres", "postgres_verbose", "sql_standard", "iso_8601"]
    },
    **{
        f"TimeZone {name}": Setting([f"SET TimeZone = '{zone}'"], CALENDAR)
        for name, zone in ZONES.items()
    },
    **{
        f"bytea_output {form}": Setting(
            [f"SET bytea_output = '{form}'"], ["bytea", "bytea[]", "nest"]
        )
        for form in ["hex", "escape"]
    },
    **{
        f"extra_float_digits {digits}": Setting([f"SET extra_float_digits = {digits}"], FLOATS)
        for digits in range(-15, 4)
    },
    "lc_monetary C": Setting(["SET lc_monetary = 'C'"], ["money"]),
    "lc_monetary of another locale": Setting([ANOTHER_LOCALE], ["money"]),
    "xmlbinary hex": Setting(["SET xmlbinary = 'hex'"], ["xml"]),
    "xmloption document": Setting(["SET xmloption = 'document'"], ["xml"]),
    "array_nulls off": Setting(["SET array_nulls = off"], list(ARRAYS)),
    "standard_conforming_strings off": Setting(["SET standard_conforming_strings = off"]),
    "Germany": Setting(
        [
            *("SET DateStyle = 'German, DMY'", "SET TimeZone = 'Europe/Berlin'"),
            *("SET IntervalStyle = 'postgres_verbose'", "SET extra_float_digits = 0"),
        ]
    ),
    "all else": Setting(
        [
            *("SET DateStyle = 'SQL, YMD'", "SET TimeZone = 'Africa/Monrovia'"),
            *("SET IntervalStyle = 'sql_standard'", "SET bytea_output = 'escape'"),
            *("SET extra_float_digits = -15", "SET standard_conforming_strings = off"),
            *("SET array_nulls = off", "SET quote_all_identifiers = on", "SET xmlbinary = 'hex'"),
        ]
    ),
    "old": Setting(
        [
            *("SET DateStyle = 'Postgres, MDY'", "SET TimeZone = 'America/Caracas'"),
            *("SET IntervalStyle = 'iso_8601'", "SET bytea_output = 'escape'"),
            "SET extra_float_digits = 1",
        ]
    ),
}
