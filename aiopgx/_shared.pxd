"""Connections that many tasks share."""

from ._core cimport Lent, Wire
from ._requests cimport Sharer, Statement

cdef class Lane(Lent)
cdef class Sharing

cdef class Ticket(Sharer):
    cdef readonly object waiter     # the future of [its Result], [an exception] or [ALONE]
    cdef readonly object impl       # the psycopg2 cursor, once it has a connection
    cdef readonly object row_factory    # that connection's
    cdef object pool
    cdef Sharing sharing
    cdef object operation
    cdef object parameters
    cdef object factory             # of the psycopg2 cursor, or None
    cdef double limit               # seconds
    cdef double deadline            # in the loop's time
    cdef Lane lane                  # that it is in flight on, or about to be
    cdef bint abandoned             # with the server, and nobody waits for it
    cdef Statement request
    cdef unsigned long number       # the order in which they came
    cdef double queued              # when, if it was not sent at once; else 0

    cdef int give(self, object outcome) except -1
    cdef int expire(self) except -1

cdef class Lane(Lent):
    cdef readonly object conn
    cdef object pool
    cdef Sharing sharing
    cdef Wire wire
    cdef readonly int in_flight
    cdef int abandoned              # of them, those that nobody waits for
    cdef readonly bint drained      # it takes no more: a waiter of acquire() is to have it
    cdef double since               # when the first in flight became that, in the loop's time
    cdef double sent                # the same, if it found nothing in flight; else 0
    cdef object timer
    cdef double last                # when it is too old, in the loop's time
    cdef bint spent                 # it is that, and takes no more

    cdef bint is_open(self) except -1
    cdef bint put(self, Ticket ticket) except -1
    cdef Statement write(self, Ticket ticket)
    cdef int over(self) except -1
    cdef int abandon(self) except -1
    cdef int leave(self) except -1

cdef class Sharing:
    cdef readonly list lanes
    cdef readonly object queue      # deque of Tickets; those that are done do not count
    cdef int limit                  # statements in flight on a connection
    cdef unsigned long submitted    # Tickets
    cdef readonly int scouts                 # acquires, for the tickets, of connections that are checked
    cdef readonly bint owed         # the last connection went to a waiter, with tickets in the queue
    cdef object ended               # an exception, once the pool is terminated
    cdef double trip                # the shortest that a statement has taken lately, seconds
    cdef object timer               # of the queue's deadlines
    cdef double timer_at

    cdef int make_wait(self, object pool, Ticket ticket) except -1
    cdef int send_scout(self, object pool) except -1
    cdef int adopt(self, object pool, object conn) except -1
    cdef int put_back(self, Ticket ticket) except -1
    cdef bint may_grow(self, object pool) except -1
    cdef Lane best(self, object loop)
    cdef Lane free(self, object pool)
    cdef Lane open(self, object pool, object conn)
    cdef int fill(self, Lane lane, bint up=*) except -1
    cdef bint is_waited_for(self) except -1
    cdef int arm(self, object pool, double deadline) except -1
