"""Where the placeholders of a text stand, and what a parameter may be in such a place.

One pass over the tokens, from left to right, with a stack of what is in parentheses and, for each
query, the clause that it is in. A place is admitted only if a parameter of the server was seen to
mean there what psycopg2's literal means: by what a statement does, by its result and by its errors.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc

from ._tokens cimport *

cdef extern from "_frames.h":
    pass

cdef enum:
    MAX_DEPTH = 1000            # of parentheses; the server's own stack ends not far from there
    ALL_TYPES = 65535
    NUMBERS = INT | FLOAT | DECIMAL
    ANY_SCALAR = ALL_TYPES - LIST
    NOT_NULL = ANY_SCALAR - NULL_VALUE
    # types of which a SET knows, after Describe, whether the value fits the column as it is
    SETTABLE = (NULL_VALUE | INT | STR | BOOL | FLOAT | BYTES | DATE | DATETIME | TIME
                | UUID_VALUE | JSON)

cdef tuple places = (
    "in LIMIT or OFFSET", "in generate_series()", "in lower() or upper()", "in VALUES",
    "in the select list", "in coalesce()", "in HAVING", "in IN (...)", "in ANY or ALL",
    "in ARRAY[...]", "in a row", "in SET", "in a comparison", "beside @>, <@ or &&",
    "beside -> or ->>", "in LIKE", "beside ||", "beside now()", "in BETWEEN",
    "in IS DISTINCT FROM", "in arithmetic", "on the left of a comparison", "before IS NULL",
)


class Refused(Exception):
    """The text is not to be prepared; the reason is for the user."""


cdef Slot *place_all(Tokens tokens) except NULL:
    """A Slot for each placeholder, to be freed with PyMem_Free(); or Refused is raised."""
    cdef Reading reading = Reading(tokens)
    cdef Slot *slots
    reading.read()
    slots, reading.slots = reading.slots, NULL
    return slots


cdef enum FrameKind:        # what is in parentheses or brackets
    A_QUERY
    A_GROUP                 # an expression
    AN_IN
    AN_ANY
    A_VALUES
    A_ROW                   # of a comparison of rows
    A_FUNCTION              # or the columns of a table
    A_BRACKET

cdef struct Frame:
    unsigned char kind      # FrameKind
    unsigned char name      # Token: of a function
    unsigned char clause    # Token: where a query is, T_NONE before the first
    unsigned char statement # Token: what a query is
    unsigned char outside   # Token: a clause of an outer query where no placeholder may stand
    bint in_set             # an outer query is in SET
    bint strict             # GROUP BY, DISTINCT, UNION: equal expressions must stay so
    bint selects            # a placeholder stands in the select list
    bint grouping_sets
    bint plain              # only groups between this and the query
    bint only_holders       # nothing else in it but commas
    bint only_numbers       # or those
    bint to_check           # this holds when it is closed, or else it is refused
    Py_ssize_t query        # the index of the query around it
    Py_ssize_t start        # the index of its token
    Py_ssize_t holders      # how many placeholders stand before

# T_INSERT is what an INSERT, UPDATE or DELETE is aimed at; T_UNION stands for its brothers as well.
cdef dict clause_names = {
    T_NONE: "the beginning", T_WITH: "WITH", T_INSERT: "the target", T_SELECT: "the select list",
    T_FROM: "FROM", T_GROUP: "GROUP BY", T_HAVING: "HAVING", T_ORDER: "ORDER BY",
    T_LIMIT: "LIMIT", T_OFFSET: "OFFSET", T_FETCH: "FETCH", T_WINDOW: "WINDOW",
    T_RETURNING: "RETURNING", T_FOR: "FOR", T_UNION: "UNION, INTERSECT or EXCEPT",
    T_CONFLICT: "ON CONFLICT", T_VALUES: "VALUES", T_WHERE: "WHERE", T_ON: "ON", T_SET: "SET",
}


cdef inline bint is_name(unsigned char code) noexcept:
    return code == T_QUOTED or code >= T_WORD


cdef inline bint is_column(unsigned char code) noexcept:
    return is_name(code) and not traits_of[code] & NO_COLUMN


cdef bint takes_subqueries(unsigned char clause) noexcept:
    """Whether a subquery in this clause may have placeholders."""
    return clause in (T_WHERE, T_ON, T_FROM, T_WITH, T_VALUES, T_SET, T_SELECT)


@cython.final
cdef class Reading:
    """One pass over the tokens of a text."""

    cdef Tokens tokens
    cdef unsigned char *codes
    cdef Py_ssize_t count
    cdef Frame *frames
    cdef Py_ssize_t depth       # how many are open
    cdef Py_ssize_t room
    cdef Slot *slots
    cdef Py_ssize_t found       # placeholders so far
    cdef Py_ssize_t closed      # the last closing parenthesis, and the opening one
    cdef Py_ssize_t opened
    # the placeholder at hand
    cdef Py_ssize_t i
    cdef Py_ssize_t end         # behind it and its cast
    cdef unsigned char before
    cdef unsigned char after
    cdef unsigned char zone     # the clause of the query around it
    cdef bint cast
    cdef bint array_cast
    cdef unsigned int castable  # Types
    cdef Frame *frame
    cdef Frame *query
    cdef Slot slot

    def __cinit__(self, Tokens tokens):
        self.tokens = tokens
        self.codes = tokens.codes
        self.count = tokens.count
        self.closed = -1
        self.slots = <Slot *>PyMem_Malloc((len(tokens.holders) + 1) * sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.frames)
        PyMem_Free(self.slots)

    cdef unsigned char at(self, Py_ssize_t i) noexcept:
        return self.codes[i] if 0 <= i < self.count else T_NONE

    # Parentheses and clauses

    cdef int read(self) except -1:
        cdef Py_ssize_t i
        cdef unsigned char code
        if not traits_of[self.at(0)] & PREPARABLE:
            raise Refused("the text does not begin with SELECT, INSERT, UPDATE, DELETE or WITH")
        self.open(A_QUERY, T_NONE, 0)
        for i in range(self.count):
            code = self.codes[i]
            if code > T_WORD and self.at(i - 1) != T_DOT and self.at(i - 1) != T_AS:
                self.read_word(i, code)
            if code == T_CLOSE or code == T_CLOSE_BRACKET:
                self.close(i, code)
                continue
            self.note(code)
            if code == T_OPEN:
                self.open_parenthesis(i)
            elif code == T_OPEN_BRACKET:
                self.open(A_BRACKET, T_NONE, i)
            elif code == T_HOLDER:
                self.read_placeholder(i)
        if self.depth != 1:
            raise Refused("parentheses are not closed")
        if self.frames[0].strict and self.frames[0].selects:
            raise Refused("a placeholder stands in the select list of GROUP BY, DISTINCT or UNION")
        return 0

    cdef int note(self, unsigned char code) except -1:
        cdef Frame *frame = &self.frames[self.depth - 1]
        if code != T_HOLDER and code != T_COMMA:
            frame.only_holders = False
            if code != T_NUMBER:
                frame.only_numbers = False
        return 0

    cdef int read_word(self, Py_ssize_t i, unsigned char code) except -1:
        cdef Frame *frame = &self.frames[self.depth - 1]
        if code == T_CURRENT and self.at(i + 1) == T_OF:
            raise Refused("the text contains CURRENT OF")
        if frame.kind == A_QUERY:
            self.read_clause(frame, i, code)
        return 0

    cdef int read_clause(self, Frame *frame, Py_ssize_t i, unsigned char code) except -1:
        """Where a query is after this word."""
        if code == T_SELECT:
            frame.clause = frame.statement = T_SELECT
        elif (code in (T_INSERT, T_UPDATE, T_DELETE)
                and (frame.clause == T_NONE or frame.clause == T_WITH)):
            frame.clause = T_INSERT
            frame.statement = code
        elif code == T_WITH and frame.clause == T_NONE:
            frame.clause = T_WITH
        elif code == T_INTO and frame.statement == T_SELECT:
            raise Refused("SELECT INTO makes a table")
        elif code == T_FROM:
            if not self.is_distinct_from(i):
                frame.clause = T_FROM
        elif code == T_DISTINCT and frame.clause == T_SELECT:
            frame.strict = True
        elif code == T_WHERE:
            if frame.clause != T_CONFLICT:
                frame.clause = T_WHERE
        elif code == T_GROUP or code == T_HAVING:
            frame.clause = code
            frame.strict = True
        elif code in (T_ORDER, T_LIMIT, T_OFFSET, T_FETCH, T_WINDOW, T_RETURNING, T_FOR):
            frame.clause = code
        elif code in (T_UNION, T_INTERSECT, T_EXCEPT):
            frame.clause = T_UNION
            frame.strict = True
        elif code in (T_ROLLUP, T_CUBE, T_GROUPING):
            frame.grouping_sets = True
        elif code == T_USING and frame.statement == T_DELETE:
            frame.clause = T_FROM
        elif code == T_ON:
            frame.clause = T_CONFLICT if (
                frame.statement == T_INSERT or self.at(i + 1) == T_CONFLICT) else T_ON
        elif traits_of[code] & JOINS and frame.clause == T_ON:
            frame.clause = T_FROM
        elif code == T_VALUES and frame.statement == T_INSERT and frame.clause == T_INSERT:
            frame.clause = T_VALUES
        elif code == T_SET and (
                (frame.statement == T_UPDATE and frame.clause == T_INSERT)
                or (frame.clause == T_CONFLICT and self.at(i - 1) == T_UPDATE)):
            frame.clause = T_SET
        return 0

    cdef bint is_distinct_from(self, Py_ssize_t i) noexcept:
        return self.at(i - 1) == T_DISTINCT and self.at(i - 2) in (T_IS, T_NOT)

    cdef int open_parenthesis(self, Py_ssize_t i) except -1:
        cdef Frame *frame = &self.frames[self.depth - 1]
        cdef unsigned char before = self.at(i - 1)
        if traits_of[self.at(i + 1)] & QUERY:
            return self.open(A_QUERY, T_NONE, i)
        if before == T_IN:
            return self.open(AN_IN, before, i)
        if before in (T_ANY, T_ALL, T_SOME):
            return self.open(AN_ANY, before, i)
        if frame.kind == A_QUERY and frame.clause == T_VALUES and before in (T_VALUES, T_COMMA):
            return self.open(A_VALUES, before, i)
        if traits_of[before] & COMPARES and self.at(i - 2) == T_CLOSE:
            return self.open(A_ROW, before, i)
        if is_name(before) and before not in (T_AND, T_OR, T_NOT, T_WHERE, T_ON, T_WHEN):
            return self.open(A_FUNCTION, before, i)
        return self.open(A_GROUP, before, i)

    cdef int open(self, unsigned char kind, unsigned char name, Py_ssize_t i) except -1:
        cdef Frame frame
        cdef Frame *outer
        cdef Frame *around
        self.reserve()
        frame.kind, frame.name, frame.start = kind, name, i
        frame.clause = frame.statement = frame.outside = T_NONE
        frame.in_set = frame.strict = frame.selects = frame.grouping_sets = False
        frame.only_holders = frame.only_numbers = True
        frame.to_check = False
        frame.holders = self.found
        frame.plain = kind == A_QUERY
        frame.query = self.depth
        if self.depth:
            outer = &self.frames[self.depth - 1]
            around = &self.frames[outer.query]
            if kind != A_QUERY:
                frame.query = outer.query
                frame.plain = kind == A_GROUP and outer.plain
            elif around.outside or takes_subqueries(around.clause):
                frame.outside = around.outside
            else:
                frame.outside = around.clause or T_OTHER
            frame.in_set = around.in_set or (kind == A_QUERY and around.clause == T_SET)
        self.frames[self.depth] = frame
        self.depth += 1
        return 0

    cdef int reserve(self) except -1:
        cdef Frame *larger
        if self.depth < self.room:
            return 0
        if self.depth == MAX_DEPTH:
            raise Refused(f"parentheses are nested more than {MAX_DEPTH} deep")
        self.room = min(max(self.room * 4, 16), MAX_DEPTH)
        larger = <Frame *>PyMem_Realloc(self.frames, self.room * sizeof(Frame))
        if larger == NULL:
            raise MemoryError
        self.frames = larger
        return 0

    cdef int close(self, Py_ssize_t i, unsigned char code) except -1:
        cdef Frame *frame = &self.frames[self.depth - 1]
        cdef Frame *outer = frame - 1
        cdef Frame *around
        if self.depth < 2 or (code == T_CLOSE_BRACKET) != (frame.kind == A_BRACKET):
            raise Refused("parentheses are not balanced")
        if frame.strict and frame.selects:
            raise Refused("a placeholder stands in a subquery with GROUP BY, DISTINCT or UNION")
        if frame.to_check and frame.kind == A_BRACKET:
            if not frame.only_holders or not self.may_follow(self.at(i + 1)):
                raise Refused("a placeholder stands in ARRAY[...] among expressions")
        elif frame.to_check and not frame.only_numbers:
            raise Refused("a placeholder stands in generate_series() among expressions")
        outer.selects |= frame.selects
        if frame.kind == A_QUERY and self.found > frame.holders:
            around = &self.frames[outer.query]
            around.selects |= around.clause == T_SELECT
        self.closed, self.opened = i, frame.start
        self.depth -= 1
        return 0

    # Placeholders

    cdef int need(self, bint holds, str why) except -1:
        if not holds:
            raise Refused(f"placeholder {self.found + 1} stands {why}")
        return 0

    cdef bint may_follow(self, unsigned char code) noexcept:
        return traits_of[code] & AFTER and code != T_COMMA

    cdef bint is_query(self) noexcept:
        """Whether the placeholder stands in no parentheses but those of its query."""
        return self.frame.kind == A_QUERY

    cdef bint is_next_to_query(self) noexcept:
        """Whether it stands in one pair of parentheses of its query."""
        return self.frame.kind != A_QUERY and (self.frame - 1).kind == A_QUERY

    cdef int admit(self, unsigned char place, unsigned int types, unsigned int limits=0) except -1:
        """The placeholder takes these types, as far as a cast leaves them."""
        self.slot.place = place
        self.slot.types = types & self.castable
        self.slot.limits |= limits
        if self.slot.types == 0:
            self.need(False, f"{places[place]} with a cast")
        return 0

    cdef int read_placeholder(self, Py_ssize_t i) except -1:
        self.i = i
        self.frame = &self.frames[self.depth - 1]
        self.query = &self.frames[self.frame.query]
        self.before = self.at(i - 1)
        self.zone = self.query.clause
        self.slot.limits = 0
        self.slot.bind = AS_LITERAL
        self.read_cast()
        self.place()
        self.need(self.query.outside == T_NONE, "in a subquery where none is known to be the same")
        if self.query.in_set:
            self.slot.limits |= NEEDS_PLAN
        self.slots[self.found] = self.slot
        self.found += 1
        return 0

    cdef int read_cast(self) except -1:
        cdef unsigned char behind
        self.end = self.i + 1
        self.cast = self.at(self.end) == T_DOUBLE_COLON
        self.array_cast = False
        self.castable = ALL_TYPES
        if self.cast:
            behind = self.at(self.i + 3)
            self.need(traits_of[self.at(self.i + 2)] & TYPE and behind not in (
                T_OPEN, T_DOT, T_VARYING, T_DOUBLE_COLON, T_WITH, T_WITHOUT, T_PRECISION),
                "before a cast that may fail or change the value")
            self.end = self.i + 3
            # a number would change its meaning: -42::text is -(42::text)
            self.castable = NULL_VALUE | STR
            if self.at(self.i + 2) == T_UUID:
                self.castable |= UUID_VALUE
            if behind == T_OPEN_BRACKET:
                self.need(self.at(self.i + 4) == T_CLOSE_BRACKET and self.at(self.i + 5) not in (
                    T_OPEN_BRACKET, T_DOUBLE_COLON), "before a cast that is no plain array")
                self.array_cast = True
                self.castable = NULL_VALUE | STR | LIST
                self.slot.bind = AS_CAST_ARRAY
                self.end = self.i + 5
        self.after = self.at(self.end)
        return 0

    cdef int place(self) except -1:
        """Admit a whole operand in a place that is known to be the same, or raise."""
        cdef unsigned char kind = self.frame.kind, name = self.frame.name
        if (self.before in (T_LIMIT, T_OFFSET) and self.is_query()
                and self.zone in (T_LIMIT, T_OFFSET)):
            return self.place_limit()
        if (kind == A_FUNCTION and name == T_GENERATE_SERIES and self.zone == T_FROM
                and self.is_next_to_query()):
            return self.place_series()
        if kind == A_FUNCTION and name in (T_LOWER, T_UPPER):
            return self.place_case_function()
        if kind == A_VALUES:
            self.need(self.is_element(), "in an expression in VALUES")
            return self.admit(IN_VALUES, ALL_TYPES, ANY_SIZE)
        if (self.zone == T_SELECT and self.is_query() and self.before in (T_SELECT, T_COMMA)
                and self.after == T_AS and not self.cast and self.is_outermost()):
            return self.place_select_list()
        if (kind == A_FUNCTION and name == T_COALESCE and self.is_next_to_query()
                and self.zone in (T_WHERE, T_ON, T_SET, T_SELECT)):
            return self.place_coalesce()
        if (self.zone == T_HAVING and self.is_query() and traits_of[self.before] & COMPARES
                and self.at(self.i - 2) == T_CLOSE):
            return self.place_having()
        if self.zone not in (T_WHERE, T_ON, T_SET):
            self.need(False, f"in {clause_names[self.zone]}")
        if kind == AN_IN or kind == A_ROW:
            self.need(self.is_element() and not self.cast, "in a list among expressions")
            self.need((self.frame - 1).plain, "in a list inside something else")
            return self.admit(IN_IN if kind == AN_IN else IN_ROW, ANY_SCALAR)
        if kind == AN_ANY:
            self.need(self.before == T_OPEN and self.after == T_CLOSE
                      and (self.frame - 1).plain, "in an expression in ANY or ALL")
            return self.admit(IN_ANY, LIST)
        if kind == A_BRACKET:
            return self.place_array()
        self.need(self.frame.plain, "inside a function")
        self.need(self.after != T_COMMA or (self.zone == T_SET and self.is_query()),
                  "before a comma")
        return self.place_operand()

    cdef bint is_element(self) noexcept:
        """Whether it is a whole element of a list."""
        return self.before in (T_OPEN, T_COMMA) and self.after in (T_COMMA, T_CLOSE)

    cdef bint is_outermost(self) noexcept:
        return self.frame.query == 0 and self.at(0) == T_SELECT

    cdef int place_limit(self) except -1:
        self.need(not self.cast and self.after in (T_NONE, T_CLOSE, T_LIMIT, T_OFFSET, T_FOR),
                  "in an expression in LIMIT or OFFSET")
        return self.admit(IN_LIMIT, NULL_VALUE | INT, INT8_ONLY | ANY_SIZE)

    cdef int place_series(self) except -1:
        self.need(self.is_element() and not self.cast, "in an expression in generate_series()")
        self.frame.to_check = True
        return self.admit(IN_SERIES, INT, INT4_ONLY)

    cdef int place_case_function(self) except -1:
        """lower(%s) and upper(%s), compared or as a whole element of VALUES."""
        cdef unsigned char outside = self.at(self.i - 3)
        self.need(self.before == T_OPEN and self.after == T_CLOSE and not self.cast
                  and self.zone in (T_WHERE, T_ON, T_VALUES)
                  and (traits_of[outside] & COMPARES or outside == T_LIKE
                       or (self.zone == T_VALUES and outside in (T_OPEN, T_COMMA)
                           and (self.frame - 1).kind == A_VALUES)),
                  "in lower() or upper() that is not compared")
        return self.admit(IN_CASE_FUNCTION, STR)

    cdef int place_select_list(self) except -1:
        """SELECT %s AS name"""
        self.need(is_name(self.at(self.i + 2))
                  and self.at(self.i + 3) in (T_COMMA, T_FROM, T_WHERE, T_NONE),
                  "in the select list without a plain name")
        self.frame.selects = True
        return self.admit(IN_SELECT_LIST, INT | STR | BOOL | FLOAT | DECIMAL)

    cdef int place_coalesce(self) except -1:
        """coalesce(column, %s)"""
        cdef Py_ssize_t first = self.first_of_column(self.i - 2)
        self.need(self.before == T_COMMA and self.after == T_CLOSE and not self.cast
                  and is_column(self.at(self.i - 2)) and is_name(self.at(first))
                  and self.at(first - 1) == T_OPEN,
                  "in coalesce() with something else than a column")
        if self.zone == T_SELECT:
            self.need(self.is_outermost(), "in coalesce() in an inner select list")
            self.query.selects = True
        return self.admit(IN_COALESCE, NOT_NULL)

    cdef Py_ssize_t first_of_column(self, Py_ssize_t last) noexcept:
        """Where the column begins that ends here: "a" or "t.a"."""
        return last - 2 if self.at(last - 1) == T_DOT else last

    cdef int place_having(self) except -1:
        """HAVING count(...) > %s"""
        self.need(self.closed == self.i - 2
                  and traits_of[self.at(self.opened - 1)] & AGGREGATE
                  and self.at(self.opened - 2) in (T_HAVING, T_AND, T_OR)
                  and self.may_follow(self.after) and not self.cast
                  and not self.frame.grouping_sets,
                  "in HAVING where no plain aggregate is compared with it")
        return self.admit(IN_HAVING, NUMBERS)

    cdef int place_array(self) except -1:
        """@> ARRAY[%s, %s]"""
        cdef unsigned char compares = self.at(self.frame.start - 2)
        self.need(self.at(self.frame.start - 1) == T_ARRAY and not self.cast
                  and (compares == T_CONTAINMENT or traits_of[compares] & COMPARES)
                  and self.zone in (T_WHERE, T_ON) and (self.frame - 1).plain,
                  "in brackets that are no array on the right of an operator")
        self.frame.to_check = True
        return self.admit(IN_ARRAY, INT | STR)

    cdef int place_operand(self) except -1:
        """An operand in WHERE, ON or SET, in nothing but plain parentheses."""
        cdef unsigned char before = self.before
        cdef bint follows = traits_of[self.after] & AFTER
        cdef bint in_set = self.zone == T_SET and self.is_query()
        if before == T_EQUAL and in_set:
            self.need(follows and is_name(self.at(self.i - 2)) and not self.cast,
                      "in an expression in SET")
            self.slot.bind = AS_COLUMN
            return self.admit(IN_SET, SETTABLE, NO_ZERO)
        if traits_of[before] & COMPARES:
            self.need(follows, "in an expression on the right of a comparison")
            return self.place_compared()
        if before == T_CONTAINMENT:
            self.need(follows and self.zone != T_SET and (not self.cast or self.array_cast),
                      "in an expression beside @>, <@ or &&")
            return self.admit(BESIDE_CONTAINMENT, JSON | STR | LIST)
        if before == T_ARROW:
            self.need((traits_of[self.after] & COMPARES
                       or (self.after == T_CLOSE and self.frame.kind == A_GROUP
                           and traits_of[self.at(self.i + 2)] & COMPARES)) and not self.cast,
                      "beside -> or ->> and is not compared at once")
            return self.admit(BESIDE_ARROW, STR | INT)
        if not self.cast and self.is_pattern():
            return self.admit(IN_LIKE, STR, NO_BACKSLASH)
        if before == T_LIKE or before == T_ILIKE:
            self.need(follows and not self.cast, "in an expression in LIKE")
            return self.admit(IN_LIKE, STR, NO_BACKSLASH)
        if before == T_CONCATENATION and in_set and is_column(self.at(self.i - 2)):
            self.need(follows and not self.cast
                      and self.at(self.first_of_column(self.i - 2) - 1) == T_EQUAL,
                      "in a longer expression in SET")
            return self.admit(BESIDE_CONCATENATION, JSON | STR | LIST)
        if before == T_PLUS:
            return self.place_summand(follows, in_set)
        if before == T_BETWEEN or (before == T_AND and self.at(self.i - 2) == T_HOLDER
                                   and self.at(self.i - 3) == T_BETWEEN):
            self.need((self.after == T_AND if before == T_BETWEEN else follows) and not self.cast,
                      "in an expression in BETWEEN")
            return self.admit(IN_BETWEEN, ANY_SCALAR)
        if before == T_FROM and self.is_distinct_from(self.i - 1):
            self.need(follows and not self.cast, "in an expression in IS DISTINCT FROM")
            return self.admit(IN_DISTINCT, NOT_NULL)
        return self.place_left()

    cdef int place_compared(self) except -1:
        """On the right of a comparison. transform_null_equals rewrites a NULL that is a literal."""
        cdef unsigned char left = self.at(self.i - 2)
        cdef bint constant = (left in (T_NUMBER, T_STRING, T_HOLDER)
                              and self.at(self.i - 3) != T_ARROW)
        # a condition that a literal makes constant prunes the plan
        return self.admit(IN_COMPARISON, ALL_TYPES if self.cast else ALL_TYPES - NULL_VALUE,
                          NEEDS_PLAN if constant else 0)

    cdef bint is_pattern(self) noexcept:
        """Whether it stands in LIKE '%' || %s || '%', with at least one of the strings."""
        cdef Py_ssize_t left = self.i - 1, right = self.i + 1
        cdef unsigned char behind
        if self.at(left) == T_CONCATENATION and self.at(left - 1) == T_STRING:
            left -= 2
        if self.at(right) == T_CONCATENATION and self.at(right + 1) == T_STRING:
            right += 2
        behind = self.at(right)
        return (right - left > 2 and self.at(left) in (T_LIKE, T_ILIKE)
                and (self.may_follow(behind)
                     or (behind == T_COMMA and self.zone == T_SET and self.is_query())))

    cdef int place_summand(self, bint follows, bint in_set) except -1:
        """now() - %s that is compared; SET a = a + %s, with or without parentheses."""
        cdef Py_ssize_t i = self.i
        cdef unsigned char outside = self.at(self.first_of_column(i - 2) - 1)
        if self.at(i - 4) == T_NOW and self.at(i - 3) == T_OPEN and self.at(i - 2) == T_CLOSE:
            self.need(traits_of[self.at(i - 5)] & COMPARES and follows and not self.cast
                      and self.zone != T_SET, "beside now() that is not compared at once")
            return self.admit(BESIDE_NOW, TIMEDELTA, NEEDS_PLAN)
        if self.zone == T_SET and self.frame.kind == A_GROUP and self.is_next_to_query():
            in_set = (outside == T_OPEN and self.at(self.frame.start - 1) == T_EQUAL
                      and self.after == T_CLOSE)
            follows = traits_of[self.at(i + 2)] & AFTER
        else:
            in_set = in_set and outside == T_EQUAL
        self.need(in_set and follows and is_column(self.at(i - 2)) and not self.cast,
                  "in arithmetic that is no column plus or minus it in SET")
        return self.admit(IN_ARITHMETIC, NUMBERS | TIMEDELTA)

    cdef int place_left(self) except -1:
        """%s = ANY(column), %s < column, %s::type IS NULL"""
        cdef unsigned char right = self.at(self.i + 2)
        cdef Py_ssize_t behind = self.i + 3
        self.need(self.before in (T_WHERE, T_AND, T_OR, T_NOT, T_ON, T_OPEN)
                  and not (self.before == T_NOT and self.at(self.i - 2) == T_IS),
                  "where no operand is known to be the same")
        if self.cast and self.after == T_IS:
            self.need(self.at(self.end + 1) in (T_NULL, T_NOT), "before IS")
            return self.admit(BEFORE_IS, ANY_SCALAR, NEEDS_PLAN)
        self.need(traits_of[self.after] & COMPARES and not self.cast,
                  "on the left of something else than a comparison")
        if right in (T_ANY, T_ALL, T_SOME) and self.at(behind) == T_OPEN:
            right = self.at(self.i + 4)
            self.need(is_name(right) and right not in (T_ARRAY, T_SELECT, T_WITH, T_VALUES)
                      and self.at(self.i + 5) in (T_CLOSE, T_DOT),
                      "on the left of something else than ANY(column)")
        else:
            if self.at(behind) == T_DOT:
                behind += 2
            self.need(is_name(right) and not traits_of[right] & (NO_COLUMN | NO_OPERAND)
                      and traits_of[self.at(behind)] & AFTER,
                      "on the left of something else than a column")
        return self.admit(ON_THE_LEFT, NOT_NULL)
