"""The rules of docs/prepared.md once more, in Python, to hold the compiled ones against.

They come from a study of what a server does with literals and with parameters, and are written as
that study had them: regular expressions, a list of tokens, one look at each placeholder with its
value in hand. So they share neither the way nor a line with the compiled ones.
"""

import datetime
import math
import re
from decimal import Decimal
from uuid import UUID

from psycopg2.extras import Json

AFTER = {
    *(None, ")", ",", "and", "or", "order", "group", "limit", "offset", "fetch", "for", "union"),
    *("intersect", "except", "returning", "where", "from", "having", "window", "join", "inner"),
    *("left", "right", "full", "cross", "natural"),
}
AFTER_OPERAND = AFTER - {","}
NAMES = {
    *("current_query", "statement_timestamp", "pg_stat_activity", "pg_stat_get_activity"),
    *("pg_stat_get_backend_activity", "pg_prepared_statements", "pg_prepared_statement"),
    *("pg_cursors", "pg_cursor", "set_config"),
}
BANNED = NAMES | {"merge", "copy", "tablesample", "uescape"}
QUERY = {"select", "with", "values", "insert", "update", "delete", "table"}
SUBQUERY = {"where", "on", "from", "with", "values", "set", "select"}
CASTS = {
    *("int", "integer", "int2", "int4", "int8", "bigint", "smallint", "numeric", "float8"),
    *("float4", "real", "text", "date", "timestamp", "timestamptz", "time", "uuid", "json"),
    *("jsonb", "bool", "boolean", "bytea", "inet", "varchar"),
}
NO_COLUMN = {
    *("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"),
    *("current_user", "session_user", "user", "true", "false", "null", "default", "end"),
    *("interval", "date", "timestamp", "time"),
}
NO_OPERAND = NO_COLUMN | {
    *("array", "not", "case", "row", "exists", "cast", "coalesce", "greatest", "least", "nullif"),
}
COMPARES = {"=", "<>", "!=", "<", ">", "<=", ">="}
CONTAINS = {"@>", "<@", "&&"}
ARROWS = {"->", "->>"}
NULL = type(None)
NUMBERS = {int, float, Decimal}
SCALARS = NUMBERS | {
    *(str, bool, bytes, bytearray, memoryview, datetime.date, datetime.datetime, datetime.time),
    *(datetime.timedelta, UUID, Json, NULL),
}
SETTABLE = SCALARS - {Decimal, bytearray, memoryview, datetime.timedelta}
LISTABLE = {int, str, UUID, datetime.date}


class No(Exception):
    """Not eligible, with the reason."""


def need(condition, reason):
    if not condition:
        raise No(reason)


# --- tokens ---------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n\f\v]+)
      | (?P<s>'(?:[^']|'')*')
      | (?P<q>"(?:[^"]|"")*")
      | (?P<w>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)
      | (?P<n>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<h>%(?:s|\([^)%]*\)s))
      | (?P<comment>--|/\*)
      | (?P<o>(?:(?!--|/\*)(?:%%|[-+*/<>=~!@\#^&|`?]))+)
      | (?P<p>::|[][(),;.:])""",
    re.VERBOSE,
)
# without parameters each percent sign is an operator, and nothing is a placeholder
BARE = re.compile(TOKEN.pattern.replace(r"%(?:s|\([^)%]*\)s)", r"(?!)").replace("%%", "%"), re.X)
GLUE = re.compile(r"[A-Za-z0-9_$.'\"\x80-\U0010ffff]")
FROZEN = re.compile("now|today|tomorrow|yesterday", re.IGNORECASE | re.ASCII)
SPECIAL = set("~!@#%^&|`?")
FOLD = {code: code + 32 for code in range(65, 91)}


def operators(text):
    """A run of operator characters as the server takes it apart."""
    if SPECIAL & set(text):
        return [text]
    body = text.rstrip("+-") or text[0]
    return [body, *text[len(body) :]]


def tokenize(sql, has_parameters):
    """A list of (kind, text, key): w(ord), q(uoted), n(umber), s(tring), h(older), or p."""
    tokens, i, holders = [], 0, 0
    need(not re.search(r"[\\\0\ud800-\udfff]", sql), "character")
    scanner = TOKEN if has_parameters else BARE
    while i < len(sql):
        match = scanner.match(sql, i)
        need(match, f"character {sql[i]!r}")
        kind, text, i = match.lastgroup, match[0], match.end()
        percent = has_parameters and sql.startswith("%", i) and not sql.startswith("%%", i)
        glued = GLUE.match(sql, i)
        need(kind != "comment", "comment")
        if kind in "sq" and has_parameters:
            need("%" not in text.replace("%%", ""), "placeholder in quotes")
        if kind == "s":
            need(not FROZEN.search(text), "a date that moves")
            need(not tokens or tokens[-1][0] != "s", "string continued on another line")
            tokens.append((kind, "s", None))
        elif kind == "q":
            need(text[1:-1] not in NAMES, "banned name")
            tokens.append((kind, "q", None))
        elif kind == "w":
            need(not (glued and glued[0] in "$'\"") and not percent, "glued word")
            need(not (text in "uU" and re.match("&['\"]", sql[i:])), "Unicode escapes")
            tokens.append((kind, text.translate(FOLD), None))
        elif kind == "n":
            need(not glued and not percent, "glued number")
            tokens.append((kind, "n", None))
        elif kind == "h":
            need(not glued and not sql.startswith(("%", "["), i), "glued placeholder")
            tokens.append((kind, "h", holders if text == "%s" else text[2:-2]))
            holders += 1
        elif kind == "o":
            if has_parameters:
                text = text.replace("%%", "%")
            tokens += [("p", operator, None) for operator in operators(text)]
        elif kind == "p":
            tokens.append((kind, text, None))
    if tokens and tokens[-1][:2] == ("p", ";"):
        tokens.pop()
    return tokens


# --- values ---------------------------------------------------------------------------------------


def fits(value, lists=False):
    """Whether a value may be bound anywhere."""
    kind = type(value)
    if kind is list:
        kinds = {type(item) for item in value}
        if not lists or len(kinds) > 1 or not kinds <= LISTABLE | {NULL}:
            return False
        return all(
            -(2**63) <= item < 2**63 if type(item) is int else type(item) is not str or fits(item)
            for item in value
        )
    if kind is Decimal and value and value.is_finite():
        return -36 <= value.adjusted() <= 36
    if kind is float and value and math.isfinite(value):
        return 1e-37 < abs(value) < 1e38
    if kind is int:
        return abs(value) < 10**37
    if kind is str:
        return "\0" not in value
    return kind in SCALARS


def is_big(value):
    """Whether a value is an integer that may fail to be cast to the type of a column."""
    if type(value) is list:
        return any(map(is_big, value))
    if type(value) is Decimal:
        return not value.is_nan() and not -(2**31) < value < 2**31
    return type(value) is int and not -(2**31) < value < 2**31


# --- statements -----------------------------------------------------------------------------------


class Frame:
    """What is in parentheses or brackets, or the statement."""

    def __init__(self, kind, start):
        self.kind, self.start = kind, start
        self.clause = self.statement = None
        self.strict = self.selects = self.sets = False


class Statement:
    def __init__(self, sql, parameters):
        need(type(parameters) in (NULL, tuple, list, dict), "parameters")
        self.tokens = tokenize(sql, parameters is not None)
        self.parameters = parameters
        self.frames = [Frame("query", 0)]
        self.tier = "generic"
        self.bound = []  # (value, "literal", "cast array" or "column")
        need(self.kind(0) == "w" and self.at(0) in QUERY - {"values", "table"}, "first word")
        for i, (kind, text, key) in enumerate(self.tokens):
            self.step(i, kind, text, key)
        need(len(self.frames) == 1, "unbalanced")
        need(not (self.frames[0].strict and self.frames[0].selects), "GROUP BY or DISTINCT")
        keys = [key for kind, _, key in self.tokens if kind == "h"]
        if parameters is not None and type(parameters) is not dict:
            need(len(keys) == len(parameters), "number of parameters")
        need(len(keys) <= 1000, "too many parameters")

    def at(self, i):
        return self.tokens[i][1] if 0 <= i < len(self.tokens) else None

    def kind(self, i):
        return self.tokens[i][0] if 0 <= i < len(self.tokens) else None

    def is_name(self, i):
        return self.kind(i) in ("w", "q")

    def is_column(self, i):
        return self.is_name(i) and (self.kind(i) == "q" or self.at(i) not in NO_COLUMN)

    def step(self, i, kind, text, key):
        frame = self.frames[-1]
        if kind == "w":
            need(text not in BANNED, text)
            if self.at(i - 1) not in (".", "as"):
                need(not (text == "current" and self.at(i + 1) == "of"), "current of")
                if frame.kind == "query":
                    self.clause(frame, i, text)
        elif kind == "h":
            self.placeholder(i, key)
        elif text == ";":
            raise No("several statements")
        elif text in ("(", "["):
            self.frames.append(Frame("[" if text == "[" else self.parenthesis(i, frame), i))
            need(len(self.frames) <= 1000, "nesting")
        elif text in (")", "]"):
            need(len(self.frames) > 1 and (frame.kind == "[") == (text == "]"), "unbalanced")
            need(not (frame.strict and frame.selects), "subquery with GROUP BY or DISTINCT")
            self.frames.pop()
            self.frames[-1].selects |= frame.selects

    def clause(self, frame, i, word):
        before, clause, statement = self.at(i - 1), frame.clause, frame.statement
        if word == "select":
            frame.clause = frame.statement = "select"
        elif word in ("insert", "update", "delete") and clause in (None, "with"):
            frame.clause, frame.statement = "target", word
        elif word == "with" and clause is None:
            frame.clause = "with"
        elif word == "into":
            need(statement != "select", "select into")
        elif word == "from":
            if before != "distinct" or self.at(i - 2) not in ("is", "not"):
                frame.clause = "from"
        elif word == "distinct":
            frame.strict |= clause == "select"
        elif word == "where":
            frame.clause = "conflict" if clause == "conflict" else "where"
        elif word in ("group", "having"):
            frame.clause, frame.strict = word, True
        elif word in ("order", "limit", "offset", "fetch", "window", "returning", "for"):
            frame.clause = word
        elif word in ("union", "intersect", "except"):
            frame.clause, frame.strict = "set operation", True
        elif word in ("rollup", "cube", "grouping"):
            frame.sets = True
        elif word == "using" and statement == "delete":
            frame.clause = "from"
        elif word == "on":
            conflict = statement == "insert" or self.at(i + 1) == "conflict"
            frame.clause = "conflict" if conflict else "on"
        elif word in ("join", "inner", "left", "right", "full", "cross", "natural"):
            frame.clause = "from" if clause == "on" else clause
        elif word == "values" and statement == "insert" and clause == "target":
            frame.clause = "values"
        elif word == "set":
            updates = statement == "update" and clause == "target"
            if updates or (clause == "conflict" and before == "update"):
                frame.clause = "set"

    def parenthesis(self, i, frame):
        """The kind of frame that opens."""
        before, word = self.at(i - 1), self.kind(i - 1) == "w"
        if self.kind(i + 1) == "w" and self.at(i + 1) in QUERY:
            return "query"
        if word and before == "in":
            return "in"
        if word and before in ("any", "all", "some"):
            return "any"
        if frame.kind == "query" and frame.clause == "values" and before in ("values", ","):
            return "values"
        if before in COMPARES and self.at(i - 2) == ")":
            return "row"
        if self.is_name(i - 1) and before not in ("and", "or", "not", "where", "on", "when"):
            return f"{before}()"
        return "group"

    def placeholder(self, i, key):
        if isinstance(key, str):
            need(type(self.parameters) is dict and key in self.parameters, "parameters")
        else:
            need(type(self.parameters) is not dict and key < len(self.parameters), "parameters")
        value = self.parameters[key]
        place = Placeholder(self, i, value)
        custom = place.judge()
        queries = [frame for frame in self.frames if frame.kind == "query"][:-1]
        for frame in queries:
            need(frame.clause in SUBQUERY, f"subquery in {frame.clause}")
            frame.selects |= frame.clause == "select"
            custom |= frame.clause == "set"
        if is_big(value) and self.frames[-1].kind != "values" and place.zone != "limit":
            custom = True
        if custom:
            self.tier = "custom"
        self.bound.append((value, place.bind))


class Placeholder:
    """One placeholder with its value. judge() raises No, or tells whether it needs a plan."""

    def __init__(self, statement, i, value):
        self.at, self.kind = statement.at, statement.kind
        self.is_name, self.is_column = statement.is_name, statement.is_column
        self.i, self.value, self.type = i, value, type(value)
        self.frames = statement.frames
        self.frame = self.frames[-1]
        self.query = next(f for f in reversed(self.frames) if f.kind == "query")
        self.inside = self.frames[self.frames.index(self.query) + 1 :]
        self.in_query = not self.inside
        self.zone = "limit" if self.query.clause == "offset" else self.query.clause
        self.before, self.after, self.end = self.at(i - 1), self.at(i + 1), i + 1
        self.bind = "literal"
        self.cast = self.array = False
        if self.after == "::":
            self.read_cast(self.at(i + 2))
        self.whole = self.after in AFTER and (
            self.after != "," or (self.zone == "set" and self.in_query)
        )

    def read_cast(self, name):
        i, behind = self.i, self.at(self.i + 3)
        need(self.kind(i + 2) == "w" and name in CASTS, "cast")
        need(behind not in {"(", ".", "varying", "::", "with", "without", "precision"}, "cast")
        self.cast, self.end = True, i + 3
        if behind == "[":
            need(self.at(i + 4) == "]" and self.at(i + 5) not in ("[", "::"), "cast")
            self.array, self.end = True, i + 5
            self.bind = "cast array"
        allowed = {list, str, NULL} if self.array else {str, NULL}
        if name == "uuid" and not self.array:
            allowed.add(UUID)
        need(self.type in allowed, f"cast of {self.type.__name__}")
        self.after = self.at(self.end)

    def take(self, *types, where=True, cast=False):
        """The end of a branch: the value is one of these types, and the place is right."""
        need(where and (cast or not self.cast), f"after {self.before}")
        need(self.type in types and fits(self.value, lists=True), f"type {self.type.__name__}")
        return False

    def plain(self, frames):
        return all(frame.kind == "group" for frame in frames)

    def column_start(self, last):
        return last - 2 if self.at(last - 1) == "." else last

    def judge(self):
        at, i, kind, zone = self.at, self.i, self.frame.kind, self.zone
        if self.before in ("limit", "offset") and self.in_query and zone == "limit":
            need(self.after in (None, ")", "limit", "offset", "for"), "after LIMIT")
            need(self.type in (int, NULL) and not self.cast, "LIMIT")
            need(self.value is None or -(2**63) <= self.value < 2**63, "LIMIT")
            return False
        if kind == "generate_series()" and zone == "from" and self.inside == [self.frame]:
            need(self.type is int and -(2**31) <= self.value < 2**31, "generate_series")
            return self.take(int, where=self.alone("hn") is not None)
        if kind in ("lower()", "upper()"):
            return self.judge_case(at(i - 3))
        if kind == "values":
            return self.take(*SCALARS, list, where=self.is_element(), cast=True)
        if zone == "select" and self.after == "as" and self.is_selected():
            self.frame.selects = True
            where = self.is_name(i + 2) and at(i + 3) in (",", "from", "where", None)
            return self.take(*NUMBERS, str, bool, where=where)
        coalesces = kind == "coalesce()" and self.inside == [self.frame]
        if coalesces and zone in ("where", "on", "set", "select"):
            return self.judge_coalesce()
        if zone == "having" and self.in_query and self.before in COMPARES and at(i - 2) == ")":
            return self.judge_having()
        need(zone in ("where", "on", "set"), f"clause {zone}")
        outside = self.plain(self.inside[:-1])
        if kind in ("in", "row"):
            return self.take(*SCALARS, where=outside and self.is_element())
        if kind == "any":
            where = self.before == "(" and self.after == ")"
            return self.take(list, where=outside and where, cast=True)
        if kind == "[":
            return self.judge_array(outside)
        need(self.plain(self.inside), f"inside {kind}")
        need(self.after != "," or self.whole, "comma")
        return self.judge_operand()

    def is_element(self):
        return self.before in ("(", ",") and self.after in (",", ")")

    def is_selected(self):
        """Whether it is a whole expression of the outermost select list."""
        begins = self.in_query and self.before in ("select", ",")
        return begins and self.is_outermost() and not self.cast

    def is_outermost(self):
        return self.query is self.frames[0] and self.at(0) == "select"

    def alone(self, kinds):
        """The end of a list that has nothing but tokens of some kinds in it, else None."""
        need(self.is_element() or self.frame.kind == "[", "list")
        end = self.frame.start + 1
        while self.kind(end) is not None and (self.kind(end) in kinds or self.at(end) == ","):
            end += 1
        return end if self.at(end) in (")", "]") else None

    def judge_case(self, outside):
        in_values = len(self.inside) > 1 and self.inside[-2].kind == "values"
        compared = outside in COMPARES or outside == "like"
        element = self.zone == "values" and outside in ("(", ",") and in_values
        where = self.before == "(" and self.after == ")" and (compared or element)
        return self.take(str, where=where and self.zone in ("where", "on", "values"))

    def judge_coalesce(self):
        first = self.column_start(self.i - 2)
        where = self.before == "," and self.after == ")" and self.is_column(self.i - 2)
        if self.zone == "select":
            need(self.is_outermost(), "coalesce")
            self.query.selects = True
        where = where and self.is_name(first) and self.at(first - 1) == "("
        return self.take(*SCALARS - {NULL}, where=where)

    def judge_having(self):
        i, depth = self.i - 2, 0
        while depth or i == self.i - 2:
            depth += (self.at(i) == ")") - (self.at(i) == "(")
            i -= 1
        aggregate = self.kind(i) == "w" and self.at(i) in ("count", "sum", "avg", "min", "max")
        where = aggregate and self.at(i - 1) in ("having", "and", "or") and not self.frame.sets
        return self.take(*NUMBERS, where=where and self.after in AFTER_OPERAND)

    def judge_array(self, outside):
        start, end = self.frame.start, self.alone("h")
        where = self.at(start - 1) == "array" and self.at(start - 2) in CONTAINS | COMPARES
        where = where and self.zone in ("where", "on") and outside and end is not None
        return self.take(int, str, where=where and self.at(end + 1) in AFTER_OPERAND)

    def judge_operand(self):
        at, i, before = self.at, self.i, self.before
        in_set = self.zone == "set" and self.in_query
        if before == "=" and in_set:
            self.bind = "column"
            need(not (self.type is float and self.value == 0), "the sign of zero")
            return self.take(*SETTABLE, where=self.whole and self.is_name(i - 2))
        if before in COMPARES:
            types = SCALARS | {list} if self.cast else SCALARS - {NULL} | {list}
            self.take(*types, where=self.whole, cast=True)
            return self.kind(i - 2) in ("n", "s", "h") and at(i - 3) not in ARROWS
        if before in CONTAINS:
            where = self.whole and self.zone != "set" and self.cast == self.array
            return self.take(Json, str, list, where=where, cast=True)
        if before in ARROWS:
            group = self.after == ")" and self.frame.kind == "group" and at(i + 2) in COMPARES
            return self.take(str, int, where=self.after in COMPARES or group)
        if before in ("like", "ilike") or self.is_pattern():
            need(self.type is str and "\\" not in self.value, "pattern")
            return self.take(str, where=self.whole or self.is_pattern())
        if before == "||" and in_set and self.is_column(i - 2):
            where = at(self.column_start(i - 2) - 1) == "="
            return self.take(Json, str, list, where=where and self.whole)
        if before in ("+", "-"):
            return self.judge_summand(in_set)
        if before == "between":
            return self.take(*SCALARS, where=self.after == "and")
        if before == "and" and self.kind(i - 2) == "h" and at(i - 3) == "between":
            return self.take(*SCALARS, where=self.whole)
        if before == "from" and at(i - 2) == "distinct" and at(i - 3) in ("is", "not"):
            return self.take(*SCALARS - {NULL}, where=self.whole)
        return self.judge_left()

    def is_pattern(self):
        """LIKE '%' || %s || '%'"""
        a, b = self.i - 1, self.i + 1
        if self.at(a) == "||" and self.kind(a - 1) == "s":
            a -= 2
        if self.at(b) == "||" and self.kind(b + 1) == "s":
            b += 2
        ends = self.at(b) in AFTER_OPERAND or (
            self.at(b) == "," and self.zone == "set" and self.in_query
        )
        found = b - a > 2 and self.at(a) in ("like", "ilike") and ends
        return found and not self.cast

    def judge_summand(self, in_set):
        at, i = self.at, self.i
        if [at(i - 4), at(i - 3), at(i - 2)] == ["now", "(", ")"]:
            where = at(i - 5) in COMPARES and self.whole and self.zone != "set"
            self.take(datetime.timedelta, where=where)
            return True
        outside, whole = self.column_start(i - 2) - 1, self.whole
        if self.zone == "set" and self.frame.kind == "group" and self.inside == [self.frame]:
            in_set = at(outside) == "(" and self.after == ")"
            outside, whole = outside - 1, at(i + 2) in AFTER
        where = in_set and at(outside) == "=" and self.is_column(i - 2) and whole
        return self.take(*NUMBERS, datetime.timedelta, where=where)

    def judge_left(self):
        at, i = self.at, self.i
        need(self.before in ("where", "and", "or", "not", "on", "("), f"after {self.before}")
        need(not (self.before == "not" and at(i - 2) == "is"), "IS NOT")
        if self.cast and self.after == "is":
            where = at(self.end + 1) in ("null", "not")
            self.take(*SCALARS, where=where, cast=True)
            return True
        need(self.after in COMPARES, "left operand")
        right, behind = at(i + 2), i + 5 if at(i + 3) == "." else i + 3
        where = self.kind(i + 2) == "q" or right not in NO_OPERAND
        where = where and at(behind) in AFTER
        if self.kind(i + 2) == "w" and right in ("any", "all", "some") and at(i + 3) == "(":
            words = ("array", "select", "with", "values")
            where = self.is_name(i + 4) and at(i + 4) not in words and at(i + 5) in (")", ".")
        return self.take(*SCALARS - {NULL}, where=where and self.is_name(i + 2))


def render(sql, parameters):
    """The text with numbered parameters."""
    number = 0

    def replace(match):
        nonlocal number
        if match[0] == "%%":
            return "%"
        number += 1
        return f"${number}"

    return sql if parameters is None else re.sub(r"%%|%(?:s|\([^)%]*\)s)", replace, sql)


def classify(sql, parameters):
    """(tier, reason, text, [(value, how it is bound)])

    tier: "generic", the same whatever plan the server chooses; "custom", the same as long as it
    plans with the values; None, not eligible.
    """
    try:
        statement = Statement(sql, parameters)
    except No as refused:
        return None, str(refused), None, None
    return statement.tier, "", render(sql, parameters), statement.bound
