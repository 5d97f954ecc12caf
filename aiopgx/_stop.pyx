"""Stop: `Connection.cancel()`. What runs is asked to stop, on a connection that stays open.

A cancel request hits whatever runs when it arrives, so nothing is sent from its start until the
server has closed the connection it came on: the Wire is gated. It is repeated, since a server that
has not read the query yet ignores it, until the query is over.
"""

import psycopg2

from ._cancel cimport Stopper
from ._core cimport Request, Wire
from ._link cimport CONNECTING

cdef extern from "_frames.h":
    pass


cdef class Stop:
    """The end of one request.

    done: a future: True when the request is over, or its rows are waiting to be read, and no cancel
        request is under way; False when time is over.
    """

    cdef readonly object done
    cdef Wire wire
    cdef Request target
    cdef Stopper stopper
    cdef object timer
    cdef bint under_way

    cdef int start(self, double limit) except -1:
        loop = self.wire.loop
        self.done = loop.create_future()
        self.stopper = Stopper(loop, self.asked)
        self.stopper.waiter = self.target.waiter
        self.timer = loop.call_later(limit, self.expire)
        self.target.waiter.add_done_callback(self.look)
        return self.stopper.start(self.wire.conn, self.wire.raw)

    def asked(self, under_way):
        """Whether a cancel request is under way."""
        self.under_way = under_way
        self.wire.gate(under_way)
        self.look()

    def look(self, _=None):
        if self.stopper is not None and not self.under_way and (
                self.target.waiter.done() or self.target.full):
            self.end(True)

    def expire(self):
        if self.under_way:
            self.wire.close()           # else it would hit what is sent next
        self.end(False)

    cdef int end(self, bint success) except -1:
        stopper, self.stopper = self.stopper, None
        if stopper is not None:
            (<Stopper>stopper).end()
            self.timer.cancel()
            if not self.done.done():
                self.done.set_result(success)
        return 0


def stop(Wire wire, double limit):
    """Stop what runs for a user. A Stop, which goes on by itself; None if there is nothing to do."""
    cdef Stop self
    cdef Request request
    if wire.state == CONNECTING or wire.users == 0:
        return None
    for request in wire._queue():
        if request.housekeeping:
            continue
        if not request.begun:
            wire.stopped = [request.waiter]
            wire.drop(request, psycopg2.errors.QueryCanceled("canceled before it was sent"))
            return None
        self = Stop.__new__(Stop)
        self.wire, self.target = wire, request
        self.start(limit)
        return self
    return None
