"""Link: a PGconn and its socket."""

from ._libpq cimport PGconn, PGresult

cdef enum State:
    CONNECTING
    IDLE
    BUSY
    FOREIGN
    CLOSED

cdef class Link:
    cdef object __weakref__
    cdef readonly object raw
    cdef readonly object loop
    cdef readonly bint native
    cdef readonly bint left         # nobody had closed it when the program ended
    cdef readonly object leaving    # done when a session closed with a query in flight has ended
    cdef readonly object reason     # the exception with which the connection was lost, or None
    cdef double cancel_timeout
    cdef tuple farewell             # the server's last words to an idle connection, and SQLSTATE
    cdef object codec               # decodes texts
    cdef bint plain                 # simple parameters need not go through psycopg2
    cdef public object inbox        # put_nowait(notify)
    cdef object notifies
    cdef object plain_cursor        # see control()
    cdef PGconn *conn               # borrowed from raw: valid while raw is open
    cdef PGresult **polled          # where raw.poll() keeps a result; NULL if not known
    cdef int state                  # State
    cdef unsigned int forks
    cdef int fd                     # a duplicate of the socket's, owned; -1 while nothing is watched
    cdef bint reading
    cdef bint writing
    cdef bint told_once             # of a socket that failed, as libuv does, not until all is read
    cdef bint sealed                # encrypted: libpq may have left what the socket shows no more
    cdef bint unflushed             # something was sent that waits for the loop's next step
    cdef bint clogged               # the socket is full: libpq holds what is to be sent
    cdef bint piping                # libpq is in pipeline mode
    cdef list texts                 # of notices that nobody has seen yet

    cdef int ready(self, bint to_write) except -1
    cdef int read_held(self) except -1
    cdef int look_behind(self) except -1
    cdef int end(self, error) except -1
    cpdef object closed_error(self, str text)
    cdef bint is_closed(self) except -1
    cdef bint is_forked(self) noexcept
    cpdef object misplaced(self, str caller)
    cdef object control(self)
    cdef int close_raw(self, int was) except -1
    cdef int _release_raw(self, int was, bint unsent) except -1
    cdef int take_native(self) except -1
    cdef bint has_polled(self) noexcept
    cdef void forget_polled(self) noexcept
    cdef int watch(self) except -1
    cdef int unwatch(self) except -1
    cdef int want_write(self, bint wanted) except -1
    cdef int established(self) except -1
    cdef bint is_sealed(self) except -1
    cdef int closed_elsewhere(self) except -1
    cdef object legible(self, error)
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int read_on(self) except -1
    cdef int flush(self) except -1
    cdef bint sync(self) noexcept
    cdef bint leave_pipeline(self) except -1
    cdef int keep_notices(self) except -1
    cdef void keep_no_notices(self) noexcept
    cdef object poll_raw(self)
    cdef int show_notices(self) except -1
    cdef int poll_notices(self) except -1
    cdef int pass_notifies(self) except -1
    cdef int collect_notifies(self) except -1
    cdef object broken(self)
    cdef int lost(self, error) except -1

cdef object frameless(error)
cdef object operational(error)
