"""Wire, and what it asks of a request."""

from ._libpq cimport PGresult
from ._link cimport Link

# What a request says when its turn has come.
cdef enum Turn:
    GO
    WAIT                        # until the others' requests have changed something
    DROP                        # there is nothing to do any more: its outcome is None

# What a request says of a PGresult, which is its own from then on.
cdef enum Taken:
    MORE                        # go on reading
    STALLED                     # the rest of the answer has still to come
    ENOUGH                      # nothing more is to be read

cdef object AGAIN               # an outcome: the request is to be sent once more

cdef class Wire

cdef class Request:
    cdef readonly object waiter     # the future that gets [outcome] or [exception]; or None
    cdef readonly object session    # requests of one session wait for each other
    cdef bint housekeeping          # of the library's own: refuses nobody, is refused by nobody
    cdef bint polled                # psycopg2 executes it: its poll() reads the answer
    cdef bint extended              # it may travel in pipeline mode, and knows how
    cdef bint joined                # there, it has no Sync of its own: what follows has
    cdef object blame               # the error of what it was joined to
    cdef bint begun                 # a part of it is with the server, or was
    cdef bint full                  # it takes nothing at the moment: pull() when it does again
    cdef bint retired               # its user has gone: it ends as housekeeping
    cdef bint held                  # it is not over with its answer: pull() when it is
    cdef double limit               # seconds
    cdef double deadline            # in the loop's time

    cdef Turn turn(self, Wire wire) except? DROP
    cdef int send(self, Wire wire) except -1
    cdef Taken take(self, Wire wire, PGresult *res) except? MORE
    cdef int incoming(self, Wire wire) except -1
    cdef int drained(self, Wire wire) except -1
    cdef object outcome(self, Wire wire)
    cdef object reason(self, Wire wire, object error)
    cdef int answer(self, Wire wire, object outcome) except -1
    cdef int expire(self, Wire wire) except -1

cdef class Lent:                    # the session of a connection that the pool shares: no user's
    pass

cdef class Wire(Link):
    cdef readonly unsigned long rests   # requests that left no transaction open
    cdef public object plans        # the hot statements of the connection, or None
    # the queue
    cdef Request head               # in flight
    cdef object sent                # deque of those behind it, in pipeline mode; or None
    cdef object waiting             # deque of those that are not sent
    cdef int users                  # those of `head` and `waiting` that are not housekeeping
    cdef int resting                # the transaction status before housekeeping was sent
    cdef public object shared       # the session of requests that name none; or None
    cdef bint sated                 # see _is_sated()
    cdef public object unseen       # with which a transaction failed, where nobody was told; or None
    cdef public bint prepared       # so is a two-phase transaction: nothing may be executed
    cdef int gates                  # cancel requests under way: nothing is sent
    cdef public object stopped      # the futures of what the last one may hit
    cdef bint pushing               # the queue is looked at in the loop's next step
    # one timer a connection, which is armed again when it fires before the deadline
    cdef double deadline            # the first of the requests'
    cdef double timer_at
    cdef object timer

    cpdef object refusal(self, str caller, session=*)
    cdef int gate(self, bint shut) except -1
    cdef object put(self, Request request, timeout)
    cdef object put_soon(self, Request request, timeout)
    cdef object put_both(self, Request first, Request second, timeout)
    cdef int drop(self, Request request, object outcome) except -1
    cdef int expect(self, Request request) except -1
    cdef int pull(self) except -1
    cdef int retire(self, Request request, int resting) except -1
    cdef int time_out(self, Request request) except -1
    cdef int transaction_status(self) except -1
    # its own
    cdef bint engaged(self) except -1
    cdef bint _all_of(self, session) except -1
    cdef list _queue(self)
    cdef int _accept(self, Request request, timeout) except -1
    cdef int _expect_open(self) except -1
    cdef int _append(self, Request request) except -1
    cdef int _start(self, Request request) except -1
    cdef bint _followed(self) except -1
    cdef int _go_on(self) except -1
    cdef Request _next(self)
    cdef Request _next_piped(self)
    cdef bint _is_sated(self) except -1
    cdef Turn _turn(self, Request request) except? DROP
    cdef Request _done(self)
    cdef int _over(self, failure) except -1
    cdef int _check_after(self, error) except -1
    cdef int _time(self, Request request) except -1
    cdef int _arm(self, double deadline) except -1
    cdef int _set_timer(self, double now) except -1
    cdef int _first_deadline(self) except -1
    cdef int _look(self) except -1
    cdef bint _owes(self) except -1
    cdef int _look_inside(self) except -1
    cdef int _go_on_connecting(self) except -1
    cdef int _broken_off(self, error) except -1
    cdef int _poll(self) except -1
    cdef int _poll_failed(self, error) except -1
    cdef int _read(self, bint fresh) except -1
    cdef bint _read_one(self, bint fresh) except -1
    cdef object _last_error(self)
    cdef int _take_results(self) except -1
    cdef bint _finish(self) except -1

cpdef int check_timeout(timeout) except -1
