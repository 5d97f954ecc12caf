"""The tokens of an SQL text, as PostgreSQL's own scanner finds them, and what they tell at once.

One pass, in time and memory that grow with the text alone. The texts are those of programs that
use psycopg2: with parameters, `%s` and `%(name)s` are placeholders and `%%` is a percent sign. A
text that can't be read stays what it is: nothing is an error here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memchr, memcmp, strlen

cdef extern from "_frames.h":
    pass

cdef enum:
    MAX_PLACEHOLDERS = 1000
    LONGEST = 32                # more than any word that is known
    SLOTS = 1024                # of the table of words, a power of two

cdef enum ByteClass:
    BEGINS_WORD = 1
    IN_WORD = 2
    DIGIT = 4
    IN_OPERATOR = 8
    BLANK = 16

cdef unsigned char[256] class_of

# --- words ----------------------------------------------------------------------------------------

# Words with a Token of their own.
cdef dict named_tokens = {
    "all": T_ALL, "and": T_AND, "any": T_ANY, "array": T_ARRAY, "as": T_AS,
    "between": T_BETWEEN, "case": T_CASE, "cast": T_CAST, "coalesce": T_COALESCE,
    "conflict": T_CONFLICT, "cube": T_CUBE, "current": T_CURRENT, "delete": T_DELETE,
    "distinct": T_DISTINCT, "except": T_EXCEPT, "exists": T_EXISTS, "fetch": T_FETCH,
    "for": T_FOR, "from": T_FROM, "generate_series": T_GENERATE_SERIES,
    "greatest": T_GREATEST, "group": T_GROUP, "grouping": T_GROUPING, "having": T_HAVING,
    "ilike": T_ILIKE, "in": T_IN, "insert": T_INSERT, "intersect": T_INTERSECT,
    "into": T_INTO, "is": T_IS, "least": T_LEAST, "like": T_LIKE, "limit": T_LIMIT,
    "lower": T_LOWER, "merge": T_MERGE, "not": T_NOT, "now": T_NOW, "null": T_NULL,
    "nullif": T_NULLIF, "of": T_OF, "offset": T_OFFSET, "on": T_ON, "or": T_OR,
    "order": T_ORDER, "precision": T_PRECISION, "returning": T_RETURNING,
    "rollup": T_ROLLUP, "row": T_ROW, "select": T_SELECT, "set": T_SET, "some": T_SOME,
    "union": T_UNION, "update": T_UPDATE, "upper": T_UPPER, "using": T_USING,
    "uuid": T_UUID, "values": T_VALUES, "varying": T_VARYING, "when": T_WHEN,
    "where": T_WHERE, "window": T_WINDOW, "with": T_WITH, "without": T_WITHOUT,
}

cdef dict words_with = {
    AFTER: """and or order group limit offset fetch for union intersect except returning where from
        having window join inner left right full cross natural""",
    QUERY: "select with values insert update delete table",
    JOINS: "join inner left right full cross natural",
    TYPE: """int integer int2 int4 int8 bigint smallint numeric float8 float4 real text date
        timestamp timestamptz time uuid json jsonb bool boolean bytea inet varchar""",
    NO_COLUMN: """current_date current_time current_timestamp localtime localtimestamp current_user
        session_user user true false null default end interval date timestamp time""",
    NO_OPERAND: "array not case row exists cast coalesce greatest least nullif",
    AGGREGATE: "count sum avg min max",
    # an escaped name or literal could be any of those that are looked for
    FORBIDDEN: "copy merge tablesample uescape",
    TELLING: """current_query statement_timestamp pg_stat_activity pg_stat_get_activity
        pg_stat_get_backend_activity pg_prepared_statements pg_prepared_statement pg_cursors
        pg_cursor""",
    SETTING: "set_config",
    PREPARABLE: "select insert update delete with",
    # CALL, DO, EXPLAIN and all that is not known may do anything
    HARMLESS: """analyze begin checkpoint close commit copy declare delete end execute fetch insert
        listen lock merge move notify prepare release savepoint select show start table truncate
        unlisten update vacuum values with""",
}

# Functions and schemas of what a session has for itself: locks, large objects, the last values of
# sequences, connections of dblink, temporary tables.
cdef tuple _of_session = (
    b"pg_advisory_", b"pg_try_advisory_", b"lo_", b"loread", b"lowrite", b"currval", b"lastval",
    b"setseed", b"dblink", b"pg_temp", b"pg_my_temp_schema", b"pg_listening_channels",
    b"pg_replication_origin_", b"pg_export_snapshot",
)

# The table: open addressing; the words are kept alive by the list.
cdef list _words = []
cdef const char *word_at[SLOTS]
cdef Py_ssize_t[SLOTS] size_at
cdef unsigned char[SLOTS] token_at

cdef unsigned short[256] traits
traits_of = traits


cdef unsigned int hash_of(const char *word, Py_ssize_t size) noexcept:
    cdef unsigned int value = 2166136261
    cdef Py_ssize_t i
    for i in range(size):
        value = (value ^ <unsigned char>word[i]) * 16777619
    return (value ^ (value >> 15)) & (SLOTS - 1)


cdef int fill_tables() except -1:
    cdef int code, slot
    cdef bytes encoded
    cdef dict all_traits = {word: 0 for word in named_tokens}
    for trait, words in words_with.items():
        for word in words.split():
            all_traits[word] = all_traits.get(word, 0) | trait
    code = T_NAMED
    for word, bits in sorted(all_traits.items()):
        slot = hash_of(word.encode(), len(word))
        while word_at[slot] != NULL:
            slot = (slot + 1) & (SLOTS - 1)
        encoded = word.encode()
        _words.append(encoded)
        word_at[slot] = PyBytes_AS_STRING(encoded)
        size_at[slot] = len(word)
        if word in named_tokens:
            token_at[slot] = named_tokens[word]
        else:
            code += 1
            token_at[slot] = code
        traits_of[token_at[slot]] = bits
    assert code < 256
    for code in (T_NONE, T_CLOSE, T_COMMA):
        traits_of[code] = AFTER
    for code in (T_EQUAL, T_COMPARISON):
        traits_of[code] = COMPARES
    for code in range(256):
        if chr(code) in "0123456789":
            class_of[code] = IN_WORD | DIGIT
        elif code >= 128 or chr(code).isalpha() or chr(code) == "_":
            class_of[code] = BEGINS_WORD | IN_WORD
        elif chr(code) == "$":
            class_of[code] = IN_WORD
        elif chr(code) in "+-*/<>=~!@#%^&|`?":
            class_of[code] = IN_OPERATOR
        elif chr(code) in " \t\r\n\f\v":
            class_of[code] = BLANK
    return 0


fill_tables()


cdef unsigned char token_of(const char *word, Py_ssize_t size) noexcept:
    """The Token of a word that is in lower case."""
    cdef unsigned int slot
    if size >= LONGEST:
        return T_WORD
    slot = hash_of(word, size)
    while word_at[slot] != NULL:
        if size_at[slot] == size and memcmp(word_at[slot], word, size) == 0:
            return token_at[slot]
        slot = (slot + 1) & (SLOTS - 1)
    return T_WORD


cdef inline char lower(char c) noexcept:
    return c + 32 if c"A" <= c <= c"Z" else c


# --- reading --------------------------------------------------------------------------------------

cdef class Tokens:
    """What read_tokens() returns; the attributes are described in the .pxd."""

    def __dealloc__(self):
        PyMem_Free(self.codes)


cdef Tokens read_tokens(bytes text, bint has_parameters):
    """Take a text apart. has_parameters: percent signs are psycopg2's."""
    cdef Tokens self = Tokens.__new__(Tokens)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    self.text = text
    self.has_parameters = has_parameters
    self.holders = []
    self.kind = ""
    self.certain = True
    self.codes = <unsigned char *>PyMem_Malloc(size + 1)    # no token is shorter than a byte
    if self.codes == NULL:
        raise MemoryError
    if memchr(PyBytes_AS_STRING(text), 0, size) != NULL:
        refuse(self, "the text contains a NUL character")
        self.certain = False
    if memchr(PyBytes_AS_STRING(text), c"\\", size) != NULL:
        refuse(self, "the text contains a backslash")
    while self.at < size:
        read_token(self)
    if not self.certain:
        self.changes_session = True
    return self


cdef int refuse(Tokens self, str reason) except -1:
    """The text is not to be prepared; the rest is only looked through."""
    if self.trouble is None:
        self.trouble = reason
    return 0


cdef int add(Tokens self, unsigned char code, Py_ssize_t start) except -1:
    """Take a token, which ends where reading goes on."""
    if self.ended:
        refuse(self, "the text has several statements")
    if not self.begun and code != T_OPEN:
        self.begun = True
        self.statements += 1
        if not traits_of[code] & HARMLESS:
            self.changes_session = True
        if self.statements == 1 and code >= T_WORD:
            self.kind = self.text[start:self.at].decode().upper()
    # SELECT INTO makes a table; an INSERT or MERGE does not
    if code == T_INTO and self.last != T_INSERT and self.last != T_MERGE:
        self.changes_session = True
    self.last = code
    if self.trouble is None:
        self.codes[self.count] = code
        self.count += 1
    return 0


cdef int read_token(Tokens self) except -1:
    cdef const char *text = PyBytes_AS_STRING(self.text)    # ends with a NUL
    cdef Py_ssize_t start = self.at
    cdef unsigned char c = text[start]
    cdef unsigned char kind = class_of[c]
    if kind & BLANK:
        self.at += 1
        return 0
    if kind & BEGINS_WORD:
        return read_word(self)
    if kind & DIGIT or (c == c"." and class_of[<unsigned char>text[start + 1]] & DIGIT):
        return read_number(self)
    if c == c"'":
        return read_string(self, False)
    if c == c'"':
        return read_identifier(self)
    if c == c"$":
        return read_dollar(self)
    if c == c"%" and self.has_parameters and text[start + 1] != c"%":
        return read_holder(self)
    if kind & IN_OPERATOR:
        return skip_comment(self) if begins_comment(text + start) else read_operator(self)
    if c == c":" and text[start + 1] == c":":
        self.at += 2
        return add(self, T_DOUBLE_COLON, start)
    self.at += 1
    if c == c";":
        if self.ended:
            refuse(self, "the text has several semicolons")
        self.ended = True
        self.begun = False
        return 0
    return add(self, punctuation(self, c), start)


cdef unsigned char punctuation(Tokens self, unsigned char c) except? 255:
    if c == c"(":
        return T_OPEN
    if c == c")":
        return T_CLOSE
    if c == c",":
        return T_COMMA
    if c == c".":
        return T_DOT
    if c == c"[":
        return T_OPEN_BRACKET
    if c == c"]":
        return T_CLOSE_BRACKET
    if c != c":":
        refuse(self, "the text contains a character that has no place in SQL")
    return T_OTHER


cdef bint is_glued(Tokens self) noexcept:
    """Whether a placeholder begins where reading goes on."""
    cdef const char *text = PyBytes_AS_STRING(self.text) + self.at
    return self.has_parameters and text[0] == c"%" and text[1] != c"%"


cdef int read_word(Tokens self) except -1:
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t i, size, start = self.at
    cdef char[LONGEST] word
    cdef unsigned char code = T_WORD
    cdef bint dollar = False
    while class_of[<unsigned char>text[self.at]] & IN_WORD:
        dollar |= text[self.at] == c"$"
        self.at += 1
    size = self.at - start
    if size < LONGEST and not dollar:
        for i in range(size):
            word[i] = lower(text[start + i])
        code = token_of(word, size)
    if traits_of[code] & (FORBIDDEN | TELLING | SETTING):
        note_word(self, code, self.text[start:self.at].decode())
    add(self, code, start)
    note_session(self, start, self.at)
    if dollar:
        refuse(self, "the text contains a dollar sign")
    if is_glued(self):
        refuse(self, "a placeholder is glued to a word")
    if size == 1 and lower(text[start]) == c"u" and text[self.at] == c"&" and (
            text[self.at + 1] == c"'" or text[self.at + 1] == c'"'):
        refuse(self, "the text contains a string or name with Unicode escapes")
        self.changes_session |= text[self.at + 1] == c'"'       # any name, such as set_config
    if text[self.at] == c"'" or text[self.at] == c'"':
        refuse(self, "a word is glued to a quote")
        if text[self.at] == c"'" and size == 1 and lower(text[start]) == c"e":
            return read_string(self, True)
    return 0


cdef int note_session(Tokens self, Py_ssize_t start, Py_ssize_t end) except -1:
    if lower(PyBytes_AS_STRING(self.text)[start]) in b"pcdls":
        self.needs_session |= self.text[start:end].lower().startswith(_of_session)
    return 0


cdef int note_word(Tokens self, unsigned char code, str name) except -1:
    if traits_of[code] & SETTING:
        self.changes_session = True
        return refuse(self, f"{name}() changes the session")
    return refuse(self, f"the text contains {name}")


cdef int read_number(Tokens self) except -1:
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t start = self.at, exponent
    cdef unsigned char after
    skip_digits(self, text)
    if text[self.at] == c".":
        self.at += 1
        skip_digits(self, text)
    if lower(text[self.at]) == c"e":
        exponent = self.at + 1
        exponent += text[exponent] == c"+" or text[exponent] == c"-"
        if class_of[<unsigned char>text[exponent]] & DIGIT:
            self.at = exponent
            skip_digits(self, text)
    add(self, T_NUMBER, start)
    after = text[self.at]
    if class_of[after] & IN_WORD or after == c"." or after == c"'" or after == c'"':
        refuse(self, "a number is glued to what follows")
    if is_glued(self):
        refuse(self, "a placeholder is glued to a number")
    return 0


cdef int skip_digits(Tokens self, const char *text) noexcept:
    while class_of[<unsigned char>text[self.at]] & DIGIT:
        self.at += 1
    return 0


# --- what is quoted -------------------------------------------------------------------------------

cdef Py_ssize_t quoted_end(Tokens self, char quote, bint escapes) except -1:
    """Where the quote closes that opens where reading goes on; there it goes on, behind it."""
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t i = self.at + 1, size = PyBytes_GET_SIZE(self.text)
    while i < size:
        if text[i] == c"\\" and escapes:
            i += 2
            continue
        if text[i] == c"\\" and quote == c"'" and text[i + 1] == quote:
            self.certain = False            # standard_conforming_strings decides
        if text[i] == quote:
            if text[i + 1] != quote:
                self.at = i + 1
                return i
            i += 1
        i += 1
    refuse(self, "a quote is not closed")
    self.certain = False
    self.at = size
    return size


cdef bint has_percent(Tokens self, Py_ssize_t start, Py_ssize_t end) noexcept:
    """Whether there is a percent sign that is not doubled, and means something to psycopg2."""
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t i = start
    if not self.has_parameters:
        return False
    while i < end:
        if text[i] == c"%":
            if i + 1 >= end or text[i + 1] != c"%":
                return True
            i += 1
        i += 1
    return False


cdef int check_percent(Tokens self, Py_ssize_t start, Py_ssize_t end) except -1:
    if has_percent(self, start, end):
        refuse(self, "a placeholder stands inside quotes")
        self.certain = False                # the literal brings quotes of its own
    return 0


cdef int read_string(Tokens self, bint escapes) except -1:
    cdef Py_ssize_t start = self.at, end = quoted_end(self, c"'", escapes)
    if self.last == T_STRING:
        refuse(self, "a string goes on after a line break")
    add(self, T_STRING, start)
    check_percent(self, start, end)
    if self.trouble is None and is_frozen(PyBytes_AS_STRING(self.text), start, end):
        refuse(self, "a literal like 'today' would be computed once, when it is prepared")
    return 0


cdef bint is_frozen(const char *text, Py_ssize_t start, Py_ssize_t end) noexcept:
    """Whether a literal contains one of the dates that move."""
    cdef Py_ssize_t i
    cdef char c
    for i in range(start, end):
        c = lower(text[i])
        if ((c == c"n" and matches(text + i, b"now"))
                or (c == c"t" and (matches(text + i, b"today") or matches(text + i, b"tomorrow")))
                or (c == c"y" and matches(text + i, b"yesterday"))):
            return True
    return False


cdef bint matches(const char *text, const char *word) noexcept:
    while word[0] != 0 and lower(text[0]) == word[0]:
        text += 1
        word += 1
    return word[0] == 0


cdef int read_identifier(Tokens self) except -1:
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t start = self.at, end = quoted_end(self, c'"', False)
    cdef unsigned char code = token_of(text + start + 1, end - start - 1) if end > start else T_WORD
    if traits_of[code] & (TELLING | SETTING):
        note_word(self, code, self.text[start + 1:end].decode())
    add(self, T_QUOTED, start)
    note_session(self, start + 1, end)
    return check_percent(self, start, end)


cdef int read_dollar(Tokens self) except -1:
    """A string in dollar quotes, a parameter of the server's own, or nonsense."""
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t start = self.at, end
    refuse(self, "the text contains a dollar sign")
    self.at += 1
    if class_of[<unsigned char>text[self.at]] & DIGIT:
        skip_digits(self, text)
        return add(self, T_OTHER, start)
    while class_of[<unsigned char>text[self.at]] & IN_WORD and text[self.at] != c"$":
        self.at += 1
    if text[self.at] != c"$":
        self.certain = False
        return add(self, T_OTHER, start)
    self.at += 1
    end = self.text.find(self.text[start:self.at], self.at)
    if end < 0 or has_percent(self, self.at, end):
        self.certain = False
    self.at = PyBytes_GET_SIZE(self.text) if end < 0 else end + self.at - start
    return add(self, T_STRING, start)


# --- the rest -------------------------------------------------------------------------------------

cdef int read_holder(Tokens self) except -1:
    """A placeholder: %s or %(name)s."""
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t start = self.at, i = start + 1
    cdef unsigned char after
    name = None
    if text[i] == c"(":
        i += 1
        while text[i] != c")" and text[i] != c"%" and text[i] != 0:
            i += 1
        if text[i] == c")":
            name = self.text[start + 2:i].decode()
            i += 1
    if text[i] != c"s" or (name is None and i > start + 1):
        self.at += 1
        self.certain = False
        return refuse(self, "a percent sign is neither doubled nor part of %s or %(name)s")
    self.at = i + 1
    add(self, T_HOLDER, start)
    if len(self.holders) == MAX_PLACEHOLDERS:
        return refuse(self, f"the text has more than {MAX_PLACEHOLDERS} placeholders")
    self.holders.append((start, self.at, name))
    after = text[self.at]
    if class_of[after] & IN_WORD or (after != 0 and memchr(b".'\"%[", after, 5) != NULL):
        refuse(self, "a placeholder is glued to what follows")
    return 0


cdef bint begins_comment(const char *text) noexcept:
    return (text[0] == c"-" and text[1] == c"-") or (text[0] == c"/" and text[1] == c"*")


cdef int skip_comment(Tokens self) except -1:
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t start = self.at, i = start + 2, size = PyBytes_GET_SIZE(self.text)
    cdef int depth = 1
    refuse(self, "the text contains a comment")
    if text[start] == c"-":
        while i < size and text[i] != c"\n" and text[i] != c"\r":
            i += 1
    else:
        while depth and i < size:
            if text[i] == c"*" and text[i + 1] == c"/":
                depth -= 1
                i += 1
            elif text[i] == c"/" and text[i + 1] == c"*":
                depth += 1
                i += 1
            i += 1
        if depth:
            self.certain = False
    if has_percent(self, start, i):
        self.certain = False                # the literal may end the comment
    self.at = i
    return 0


cdef int read_operator(Tokens self) except -1:
    """An operator; it takes a plus or minus at its end only with certain others."""
    cdef const char *text = PyBytes_AS_STRING(self.text)
    cdef Py_ssize_t start = self.at, i = start, size = 0, end = 0
    cdef char[4] name
    cdef bint takes_all = False
    while class_of[<unsigned char>text[i]] & IN_OPERATOR and not begins_comment(text + i):
        if text[i] == c"%" and self.has_parameters:
            if text[i + 1] != c"%":
                break
            i += 1
        if size < 4:
            name[size] = text[i]
        size += 1
        if text[i] != c"+" and text[i] != c"-":
            end = size
            takes_all |= memchr(b"~!@#%^&|`?", text[i], 10) != NULL
        i += 1
    if takes_all:
        end = size
    elif end == 0:
        end = 1
    self.at = i
    add(self, operator_of(name, end), start)
    for _ in range(size - end):
        add(self, T_PLUS, start)
    return 0


cdef unsigned char operator_of(const char *name, Py_ssize_t size) noexcept:
    if size == 1:
        if name[0] == c"=":
            return T_EQUAL
        if name[0] == c"<" or name[0] == c">":
            return T_COMPARISON
        return T_PLUS if name[0] == c"+" or name[0] == c"-" else T_OPERATOR
    if size == 2:
        if is_one_of(name, b"<> != <= >="):
            return T_COMPARISON
        if is_one_of(name, b"@> <@ &&"):
            return T_CONTAINMENT
        if is_one_of(name, b"||"):
            return T_CONCATENATION
    if memcmp(name, b"->>", 3 if size == 3 else 2) == 0 and size < 4:
        return T_ARROW
    return T_OPERATOR


cdef bint is_one_of(const char *name, const char *names) noexcept:
    """Whether a name of two characters is one of several."""
    cdef size_t i
    for i in range(0, strlen(names), 3):
        if name[0] == names[i] and name[1] == names[i + 1]:
            return True
    return False
