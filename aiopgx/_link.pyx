"""Link: one PGconn and its socket, as the event loop and psycopg2 see them.

What is the same whatever is asked of the server: the socket is watched, notices and notifications go
where psycopg2 has them, the connection is closed or found lost. What is asked is `_core`'s, whose
Wire says what becomes of it: ready() when the socket is, end() when nothing comes any more.
"""

import atexit
import os
import select
import selectors
import weakref
from asyncio import _get_running_loop
from asyncio.selector_events import BaseSelectorEventLoop
from contextlib import suppress
from copy import copy

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_UNKNOWN, Notify
from psycopg2.extensions import cursor as PsycopgCursor

from ._cancel import cancel_and_close, watched_sockets

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.errno cimport errno

from ._cancel cimport cancel_query
from ._errors cimport (
    codec_of,
    connection_error,
    decode,
    farewell_error,
    layout_known,
    readable_error,
    utf8_codec,
)
from ._libpq cimport (
    CONNECTION_BAD,
    PG_DIAG_SEVERITY_NONLOCALIZED,
    PG_DIAG_SQLSTATE,
    PGRES_COPY_BOTH,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    NoticeProcessor,
    NoticeReceiver,
    PGconn,
    PGnotify,
    PGresult,
    pq,
)
from ._socket cimport socket_close, socket_dup, socket_failed, socket_ready
from ._statements cimport quotes_plainly
from ._structs cimport genuine_connection, place_of_polled, take_connection

cdef extern from "_frames.h":
    pass

# Counts the forks above this process: a Link made below another count is the parent's.
cdef unsigned int _forks = 0

# The links whose sockets are watched.
cdef object _watching = weakref.WeakSet()

# Who reads while libpq's notice callbacks may be called: itself, or by psycopg2's poll().
cdef Link _reader = None
cdef Link _poller = None
cdef NoticeProcessor _psycopg2_notice = NULL
cdef NoticeReceiver _default_receiver = NULL

# Notices that are kept, if psycopg2's list is: as psycopg2 has it.
cdef enum:
    MAX_NOTICES = 50


def _after_fork():
    global _forks
    _forks += 1
    ours = {(<Link>link).fd for link in _watching} | watched_sockets()
    for loop in {(<Link>link).loop for link in _watching}:
        with suppress(Exception):
            _let_go_of_parent(loop, ours)
    _watching.clear()


cdef int _let_go_of_parent(loop, set ours) except -1:
    """Give a loop of the parent's, in the child, an epoll of its own.

    The kernel has one for both: what the child's end takes out of it, the parent hears no more of.
    The child may go on with the loop: what it had watched it watches, without our sockets.
    """
    cdef object number = None
    if not hasattr(select, "epoll"):
        return 0                    # a kqueue is not inherited
    if hasattr(loop, "_get_backend_id"):        # uvloop
        number = loop._get_backend_id()
    elif isinstance(getattr(loop, "_selector", None), selectors.EpollSelector):
        number = loop._selector.fileno()
    if number is not None and number >= 0:
        with select.epoll() as own:
            for fd, events in _watched_by(number):
                if fd not in ours:
                    with suppress(OSError):     # it was closed meanwhile
                        own.register(fd, events)
            os.dup2(own.fileno(), number, inheritable=False)
    return 0


cdef list _watched_by(int epoll):
    """What is registered with an epoll: descriptors and events."""
    cdef list found = []
    with suppress(OSError):
        with open(f"/proc/self/fdinfo/{epoll}") as file:
            for line in file:
                if line.startswith("tfd:"):
                    _, fd, _, events, *_ = line.split()
                    found.append((int(fd), int(events, 16)))
    return found


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit():
    """Stop what is under way for a program that ends; _cancel, whose turn is next, waits for that.

    Later there are no threads, and nobody knows what the interpreter collects.
    """
    cdef Link link
    for link in list(_watching):
        if link.state == BUSY or link.state == FOREIGN:
            link.left = True
            with suppress(Exception):
                link.close()


cdef void _on_result(void *arg, const PGresult *res) noexcept with gil:
    """What an idle connection hears: a notice, or why the server ends the session.

    Also right behind the answer with which it becomes idle.
    """
    cdef const char *severity = pq.resultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED)
    cdef const char *sqlstate
    cdef Link hearing = _reader if _poller is None else _poller
    if hearing is not None and severity != NULL and severity[0] in b"FP":     # FATAL, PANIC
        sqlstate = pq.resultErrorField(res, PG_DIAG_SQLSTATE)
        hearing.farewell = (
            <bytes>pq.resultErrorMessage(res), None if sqlstate == NULL else <bytes>sqlstate)
    _default_receiver(arg, res)


cdef void _on_notice(void *arg, const char *message) noexcept with gil:
    if _reader is None:
        _psycopg2_notice(arg, message)
    else:
        _reader.texts.append(<bytes>message)    # libpq is at work: nothing may be collected here


cdef str _road = os.environ.get("AIOPGX_ROAD") or "native"
if _road not in ("native", "psycopg2"):
    raise ImportError(f"AIOPGX_ROAD must be native or psycopg2, not {_road!r}")
# The native road needs libpq's functions and the layout of psycopg2's exceptions.
native_road = bool(pq.libVersion and layout_known) and _road == "native"
cdef bint _native = native_road


cdef object frameless(error):
    """The same exception to be kept: it holds nobody's frames."""
    if isinstance(error, psycopg2.Error):
        return copy(error)
    return psycopg2.OperationalError(f"Connection closed: {error!r}")


cdef object operational(error):
    """What those get who wait for notifications, whatever class the server's reason has."""
    kept = frameless(error)
    if isinstance(kept, psycopg2.OperationalError):
        return kept
    told = psycopg2.OperationalError(str(kept))
    told.__cause__ = kept
    return told


cdef class Link:
    """Drives the socket of one psycopg2 connection on one event loop.

    raw: what psycopg2.connect() gave; what is kept is the genuine connection behind proxies.
    inbox: gets the notifications; `notifies`, its reading side, is closed with the connection.
    cancel_timeout: seconds that a query gets to stop after the connection was closed.
    """

    def __cinit__(self, raw, loop, inbox, notifies, cancel_timeout):
        self.raw = genuine_connection(raw)
        self.cancel_timeout = cancel_timeout
        self.loop = loop
        self.inbox = inbox
        self.notifies = notifies
        self.state = CONNECTING
        self.forks = _forks
        self.fd = -1
        self.texts = []

    def __dealloc__(self):
        if self.fd >= 0 and self.forks == _forks:   # its loop was closed before it
            socket_close(self.fd)

    # Of the Wire

    cdef int ready(self, bint to_write) except -1:
        """The socket is ready: there is something to read, or room to write."""
        raise NotImplementedError

    cdef int read_held(self) except -1:
        """Read once more, if there is a use for it."""
        raise NotImplementedError

    cdef int end(self, error) except -1:
        """Nothing comes any more: whoever waits is told."""
        raise NotImplementedError

    # The connection

    @property
    def closed(self):
        """psycopg2's `closed`, 0 while the connection is open."""
        return self.raw.closed or <int>(self.state == CLOSED)

    cdef bint is_closed(self) except -1:
        return self.state == CLOSED

    @property
    def forked(self):
        """Whether this process is a child of the one that made the connection."""
        return self.is_forked()

    cdef bint is_forked(self) noexcept:
        return self.forks != _forks

    cpdef object misplaced(self, str caller):
        """The error for the use in another process or loop, or None."""
        if self.is_forked():
            return RuntimeError(
                f"{caller}() called in a forked child process: a connection can't be shared "
                f"with the process that made it; connect again after the fork")
        if _get_running_loop() is not self.loop:
            return RuntimeError(
                f"{caller}() called on another event loop than the connection was made on")
        return None

    cpdef object closed_error(self, str text):
        """psycopg2's error for the use of what is closed; it tells why the connection was lost."""
        if self.reason is None or not self.closed:
            return psycopg2.InterfaceError(text)
        error = psycopg2.InterfaceError(f"{text}: {str(self.reason).strip()}")
        error.__cause__ = frameless(self.reason)
        return error

    @property
    def alive(self):
        """Whether it is open, and the server has not said that it ends it."""
        return not self.closed and self.farewell is None

    def look(self):
        """Hear what has come to an idle connection; whether it is alive afterwards."""
        if self.state == IDLE and self.fd >= 0 and socket_ready(self.fd, False):
            self._on_readable()
        return self.alive

    cdef object control(self):
        """A psycopg2 cursor for what is executed on nobody's cursor."""
        if self.plain_cursor is None:
            self.plain_cursor = PsycopgCursor(self.raw)
        return self.plain_cursor

    def close(self):
        """Close now. A query in flight is cancelled on the server, in the background."""
        cdef int was = self.state
        self.state = CLOSED
        if self.forks != _forks:
            return                  # the session and the loop's selector are the parent's
        if self.loop.is_running() and _get_running_loop() is not self.loop:
            self.loop.call_soon_threadsafe(self._shut, was)
        else:
            self._shut(was)

    def _shut(self, int was):
        try:
            self.close_raw(was)
        finally:
            self.conn = NULL
            self.end(psycopg2.OperationalError("Connection closed"))

    cdef int close_raw(self, int was) except -1:
        """Close the psycopg2 connection, and watch it no more. was: its state."""
        cdef bint unsent = self.writing or self.unflushed   # a part of the query
        try:
            self.unwatch()
        finally:                    # also if KeyboardInterrupt comes out of the loop's code
            self._release_raw(was, unsent)
        return 0

    cdef int _release_raw(self, int was, bint unsent) except -1:
        if not (was == BUSY or was == FOREIGN) or self.raw.closed:
            self.raw.close()
        elif self.conn != NULL and take_connection(self.raw, self.conn):
            try:
                self.leaving = cancel_query(
                    self.conn, unsent, self.loop, self.cancel_timeout)
            finally:
                self.raw.close()
        else:
            self.leaving = cancel_and_close(self.raw, self.loop)
        return 0

    cdef int take_native(self) except -1:
        """Take the PGconn, where libpq's functions can be had."""
        if pq.libVersion:
            self.conn = <PGconn *>PyCapsule_GetPointer(
                self.raw.get_native_connection(), b"psycopg2.connection.native_connection")
            self.polled = place_of_polled(self.raw, self.conn)
        return 0

    cdef bint has_polled(self) noexcept:
        """Whether psycopg2's poll() has taken a result from libpq.

        Not so the answer that begins a COPY, which libpq gives as often as it is asked.
        """
        cdef PGresult *res = NULL if self.polled == NULL else self.polled[0]
        cdef int status
        if res == NULL:
            return False
        status = pq.resultStatus(res)
        return not (status == PGRES_COPY_IN or status == PGRES_COPY_OUT or status == PGRES_COPY_BOTH)

    cdef void forget_polled(self) noexcept:
        """libpq was idle: what psycopg2 has still is of a cursor of the program's that is gone."""
        if self.polled != NULL and self.polled[0] != NULL:
            pq.clear(self.polled[0])
            self.polled[0] = NULL

    cdef int watch(self) except -1:
        # A descriptor of our own: libpq and `raw.close()` close theirs without our knowledge. Its
        # number then comes back for another socket, and libuv aborts the process for a closed one.
        cdef int fd = socket_dup(self.raw.fileno())
        cdef int failure = errno
        if fd < 0:
            raise psycopg2.OperationalError(f"can't watch the connection: {os.strerror(failure)}")
        self.fd = fd
        _watching.add(self)
        return 0

    cdef int unwatch(self) except -1:
        if self.fd < 0 or self.forks != _forks:     # the parent's
            return 0
        if not self.loop.is_closed():
            if self.reading:
                self.loop.remove_reader(self.fd)
            if self.writing:
                self.loop.remove_writer(self.fd)
        self.reading = self.writing = False
        _watching.discard(self)
        socket_close(self.fd)
        self.fd = -1
        return 0

    cdef int want_write(self, bint wanted) except -1:
        if wanted and not self.writing:
            self.loop.add_writer(self.fd, self._on_writable)
        elif self.writing and not wanted:
            self.loop.remove_writer(self.fd)
        self.writing = wanted
        return 0

    cdef int established(self) except -1:
        """The dialogue of connecting is over: from now on we read."""
        global _psycopg2_notice, _default_receiver
        if pq.libVersion:
            _default_receiver = pq.setNoticeReceiver(self.conn, _on_result, NULL)
            self.codec = codec_of(self.raw)
        if _native:
            # the same for every connection of psycopg2, which is its argument
            _psycopg2_notice = pq.setNoticeProcessor(self.conn, _on_notice, <void *>self.raw)
            self.native = True
            self.plain = self.codec is utf8_codec and quotes_plainly(self.raw)
        self.watch()
        self.told_once = not isinstance(self.loop, BaseSelectorEventLoop)
        self.sealed = self.is_sealed()
        self.reading = True
        self.loop.add_reader(self.fd, self._on_readable)
        return 0

    cdef bint is_sealed(self) except -1:
        if not pq.libVersion:
            return self.raw.info.ssl_in_use
        return not pq.drains and (
            pq.sslInUse(self.conn) or pq.gssEncInUse != NULL and pq.gssEncInUse(self.conn))

    cdef int closed_elsewhere(self) except -1:
        """Somebody has closed the psycopg2 connection: its socket tells us nothing."""
        return self.lost(psycopg2.OperationalError("Connection closed"))

    cdef object legible(self, error):
        """The error, with the server's text also where psycopg2 could not decode it."""
        error = readable_error(error)
        if isinstance(error, psycopg2.Error) and not str(error) \
                and self.conn != NULL and self.raw.closed != 1:
            return connection_error(self.conn)  # Python 3.10 has lost it on the way
        return error

    cdef int pause(self) except -1:
        """Read no more for now: whoever takes what comes has enough."""
        if self.reading:
            self.loop.remove_reader(self.fd)
            self.reading = False
        return 0

    cdef int resume(self) except -1:
        """Read on, in the loop's next step."""
        if not self.reading and self.fd >= 0:
            self.loop.add_reader(self.fd, self._on_readable)
            self.reading = True
            self.loop.call_soon(self._on_readable)      # libpq may have it already
        else:
            self.read_on()
        return 0

    cdef int read_on(self) except -1:
        """The socket may not be empty: uvloop tells of one that was reset once, and never again."""
        if self.reading and (self.sealed or socket_ready(self.fd, False)):
            self.loop.call_soon(self._on_readable)
        return 0

    def _on_readable(self):
        if self.forks == _forks:    # else what comes is the parent's
            self.ready(False)
            # An older libpq leaves a part of a record that it had no room for in the library that
            # decrypts, and no event tells of it. Behind the socket's last byte it has room for all.
            if self.sealed and self.reading and not socket_ready(self.fd, False):
                self.read_held()
            self.look_behind()

    def _on_writable(self):
        if self.forks == _forks:
            self.ready(True)
            self.look_behind()

    cdef int look_behind(self) except -1:
        """Hear of a failure behind what was read, of which the loop won't tell."""
        if self.told_once and self.reading and socket_failed(self.fd):
            self.loop.call_soon(self._on_readable)
        return 0

    def _on_unflushed(self):
        if self.unflushed and self.forks == _forks:
            self.ready(True)

    cdef int flush(self) except -1:
        cdef int left
        if self.raw.closed:         # a collection may have done that
            return self.closed_elsewhere()
        self.unflushed = False
        left = pq.flush(self.conn)
        if left < 0:
            self.lost(connection_error(self.conn))
            return 0
        self.clogged = left == 1
        if left or self.writing:
            self.want_write(left == 1)
        return 0

    cdef bint sync(self) noexcept:
        """Put a Sync behind what is sent in pipeline mode. 0 if libpq can't."""
        if pq.sendPipelineSync != NULL:         # several go out in one write
            return pq.sendPipelineSync(self.conn)
        return pq.pipelineSync(self.conn)

    cdef bint leave_pipeline(self) except -1:
        """psycopg2 finds the connection as it knows it. 0 if it is lost."""
        if not pq.exitPipelineMode(self.conn):
            self.lost(connection_error(self.conn))
            return False
        self.piping = False
        return True

    cdef int keep_notices(self) except -1:
        """From now on libpq is at work: notices are kept until show_notices()."""
        global _reader
        _reader = self
        return 0

    cdef void keep_no_notices(self) noexcept:
        global _reader
        _reader = None

    cdef object poll_raw(self):
        global _poller
        _poller = self
        try:
            return self.raw.poll()
        finally:
            _poller = None

    cdef int show_notices(self) except -1:
        """Do with texts what psycopg2 does, which has no call for it but poll()."""
        texts, self.texts = self.texts, []
        notices = self.raw.notices
        try:
            for text in texts:
                notices.append(self.codec(text, "replace")[0])
            if isinstance(notices, list) and len(notices) > MAX_NOTICES:
                del notices[:len(notices) - MAX_NOTICES]
        except BaseException:
            pass                    # of the program's own list; the statement goes on
        return 0

    cdef int poll_notices(self) except -1:
        """Let psycopg2 show the notices that it has kept."""
        try:
            self.poll_raw()
        except Exception as error:
            if self.raw.closed or self.raw.get_transaction_status() == TRANSACTION_STATUS_UNKNOWN:
                self.lost(error)
        self.pass_notifies()
        return 0

    cdef int pass_notifies(self) except -1:
        """Pass on what psycopg2's poll() has collected."""
        while self.raw.notifies:
            self.inbox.put_nowait(self.raw.notifies.pop(0))
        return 0

    cdef int collect_notifies(self) except -1:
        global _poller
        cdef PGnotify *notify
        while not self.raw.closed:  # code of the program may have done that, such as its casters'
            _poller = self          # libpq looks at what it has read
            notify = pq.notifies(self.conn)
            _poller = None
            if notify == NULL:
                return 0
            try:
                self.inbox.put_nowait(Notify(
                    notify.be_pid, decode(self.codec, notify.relname),
                    decode(self.codec, notify.extra)))
            finally:
                pq.freemem(notify)

    cdef object broken(self):
        """The exception for a libpq call that failed; the connection goes if libpq gave it up."""
        error = connection_error(self.conn)
        if pq.status(self.conn) == CONNECTION_BAD:
            self.lost(error)
        return error

    cdef int lost(self, error) except -1:
        """The server is gone."""
        self.unwatch()
        try:
            if not self.raw.closed:
                self.poll_raw()    # psycopg2 finds out, and sets raw.closed
        except Exception:
            pass
        error = self.legible(error)
        if not self.raw.closed:
            self.raw.close()        # it has not understood what the server said
            self.conn = NULL
        if self.farewell is not None and getattr(error, "pgcode", None) is None:
            error = farewell_error(self.farewell, self.codec, error)
        self.reason = frameless(error)
        return self.end(error)
