"""Connections that many tasks share: each statement is a Ticket, each such connection a Lane.

    submit()    a free connection becomes a Lane; else the pool may grow, and the ticket waits; else
                the Lane with the least in flight takes it
    settle()    gives what waits to the lanes that have room, and lets lanes run dry for acquire()
    take()      a connection that has come back, or is new, becomes a Lane

A Lane goes back to the pool as soon as nothing is in flight on it. Statements that are put in one step
of the loop go out as one write (`Wire.put_soon()`), each with a Sync of its own.
"""

import asyncio
from collections import deque

from ._core cimport Wire
from ._libpq cimport pq
from ._link cimport IDLE
from ._plans cimport TO_ASK, Plans, text_of
from ._prepared cimport look_after, shared_statement
from ._requests cimport Sharer, Statement
from ._rows cimport SHAPE_FOREIGN

from ._link import native_road
from ._rows import shape_of

cdef extern from "_frames.h":
    pass

cdef double NEVER = float("inf")

# Seconds for which the first statement in flight may run until others are sent elsewhere, beyond
# what the way to the server takes.
cdef double SLOW = 0.005

# Seconds that abandoned statements have to come to their end, before the connection is closed.
cdef double GRACE = 0.05

# Outcome of a ticket: the statement needs a connection of its own.
ALONE = object()


def may_share(operation, bint has_parameters):
    """Whether a statement leaves nothing behind in its session, and needs nothing of it."""
    return native_road and pq.enterPipelineMode != NULL and type(operation) is str \
        and text_of(operation, has_parameters).shareable


cdef class Ticket(Sharer):
    """A statement that is to be executed on any connection."""

    def __init__(self, pool, sharing, operation, parameters, factory, timeout):
        loop = pool._loop
        self.pool, self.sharing = pool, sharing
        self.operation, self.parameters, self.factory = operation, parameters, factory
        self.limit = NEVER if timeout is None else timeout
        self.deadline = loop.time() + self.limit
        self.waiter = loop.create_future()

    cdef int give(self, outcome) except -1:
        if not self.waiter.done():
            self.waiter.set_result([outcome])
        return 0

    cdef int expire(self) except -1:
        return self.give(asyncio.TimeoutError(
            f"the statement was not executed within {self.limit:g} s"))

    def abandon(self):
        """Nobody waits for it any more."""
        cdef Statement request = self.request
        if self.lane is None or self.abandoned:
            return                      # it is over, or in the queue, where it is passed over
        if request.begun:
            self.abandoned = True
            self.lane.abandon()
        else:
            self.lane.wire.drop(request, None)

    # Of the request

    cdef int over(self, Wire wire, Statement request, outcome) except -1:
        cdef Lane lane = self.lane
        cdef bint unsent = isinstance(outcome, BaseException) and wire.is_closed() \
            and not request.is_executed()
        self.lane = self.request = None
        if unsent and self.sharing.ended is not None:
            self.give(self.sharing.ended)
        elif unsent and not self.waiter.done():
            self.sharing.queue.appendleft(self)     # goes elsewhere
            self.sharing.arm(self.pool, self.deadline)
        else:
            self.give(outcome)
        lane.abandoned -= self.abandoned
        return lane.over()

    cdef int expired(self, Wire wire, Statement request) except -1:
        request.deadline = NEVER
        if not self.waiter.done():
            self.expire()
            self.abandon()
        return 0


cdef class Lane:
    """A connection of the pool while it is shared."""

    cdef bint is_open(self) except -1:
        """Whether it takes more."""
        return not self.drained and not self.abandoned and self.in_flight < self.sharing.limit \
            and not self.conn.closed

    cdef bint put(self, Ticket ticket) except -1:
        """Send a statement, with what else goes out in this step of the loop. False if it can't be."""
        cdef Wire wire = self.wire
        cdef Statement request = None
        now = wire.loop.time()
        try:
            raw = self.conn.raw
            ticket.impl = raw.cursor() if ticket.factory is None \
                else raw.cursor(cursor_factory=ticket.factory)
            shape = shape_of(type(ticket.impl))
            if shape != SHAPE_FOREIGN:
                request = shared_statement(
                    wire, ticket.impl, shape, ticket.operation, ticket.parameters)
        except BaseException as error:          # of the program's adapters, too
            ticket.give(error)
            return False
        if request is None:
            ticket.give(ALONE)
            return False
        request.waiter, request.session, request.sharer = ticket.waiter, self, ticket
        ticket.lane, ticket.request = self, request
        if self.in_flight == 0:
            self.since = self.sent = now
        self.in_flight += 1
        wire.put_soon(request, None if ticket.deadline == NEVER else ticket.deadline - now)
        if wire.plans is not None and (<Plans>wire.plans).pooler == TO_ASK:
            look_after(wire, wire.plans)
        return True

    cdef int over(self) except -1:
        """A statement is over: go on, or back to the pool."""
        cdef double now = self.wire.loop.time()
        self.in_flight -= 1
        if self.sent != 0:
            self.sharing.trip = min(now - self.sent, self.sharing.trip * 1.05)
            self.sent = 0
        self.since = now
        if self.abandoned and self.abandoned == self.in_flight:
            self.hurry()
        self.sharing.settle(self.pool)
        if self.in_flight == 0:
            self.leave()
        return 0

    cdef int abandon(self) except -1:
        """Nobody waits for a statement that has been sent."""
        self.abandoned += 1
        if self.abandoned == self.in_flight:
            self.hurry()
        self.sharing.settle(self.pool)
        return 0

    def hurry(self):
        """Only abandoned statements are left: they have little time to end by themselves."""
        if self.timer is None:
            self.timer = self.wire.loop.call_later(GRACE, self.end)

    def end(self):
        self.timer = None
        if self.abandoned and self.abandoned == self.in_flight:
            self.conn.close()

    cdef int leave(self) except -1:
        """Nothing is in flight: the connection is the pool's again."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self in self.sharing.lanes:
            self.sharing.lanes.remove(self)
            self.wire.shared = None
            self.pool._unshare(self.conn)
        return 0


cdef class Sharing:
    """What a pool knows of its shared connections, and the statements that wait for one.

    limit: statements in flight on one of them, at most.
    """

    def __init__(self, limit):
        self.lanes = []
        self.queue = deque()
        self.limit = limit
        self.trip = 0.05

    def submit(self, pool, Ticket ticket):
        """Send a statement as soon as there is a connection for it."""
        cdef Lane lane = None
        self.queue.append(ticket)
        if len(self.queue) == 1 or pool._free:
            self.settle(pool)
        if self.queue:
            self.arm(pool, ticket.deadline)
            pool._settle()

    def unserved(self, pool):
        """The waiter of a ticket to start a connect for; None if there is none, or the pool is full."""
        cdef Ticket ticket
        if not self.queue or not pool._may_grow:
            return None
        owners = set(pool._connects.values())
        for ticket in self.queue:
            if not ticket.waiter.done() and ticket.waiter not in owners:
                return ticket.waiter
        return None

    def settle(self, pool):
        """Give what waits to those that have room; let some run dry if acquire() waits."""
        cdef Lane lane
        self.drain(pool)
        while self.is_waited_for():
            lane = self.free(pool)
            if lane is None and (self.lanes and not pool._may_grow):
                lane = self.best(pool._loop)
            if lane is None:
                return
            self.fill(lane)

    def drain(self, pool):
        """Let as many connections run dry as acquire() waits for, but keep one for us."""
        cdef Lane lane
        wanted = pool._wanted
        if wanted and self.lanes:
            wanted = min(wanted, max(1, len(self.lanes) - 1))
            for lane in sorted(self.lanes, key=_patience):
                lane.drained = wanted > 0
                wanted -= 1
        else:
            for lane in self.lanes:
                lane.drained = False

    def take(self, pool, conn):
        """Share a connection, if statements wait. False if none do, or it can't be shared."""
        cdef Lane lane
        if not self.is_waited_for() or conn.closed:
            return False
        self.owed = False
        lane = self.open(pool, conn)
        if lane is None:
            (<Ticket>self.queue.popleft()).give(ALONE)
            pool._shared.remove(conn)
            return False
        self.fill(lane)
        self.settle(pool)
        return True

    def passed_by(self):
        """A connection goes to acquire(); the next is ours, if none is."""
        self.owed = not self.lanes and self.is_waited_for()

    def end(self, error):
        """The pool is terminated: nothing that waits is served, nor what comes back."""
        self.ended = error
        for ticket in self.queue:
            (<Ticket>ticket).give(error)
        self.queue.clear()

    cdef Lane best(self, loop):
        """Where a statement is to go now: the least in flight, and nothing slow in front."""
        cdef Lane lane, found = None
        cdef double late = loop.time() - 2 * self.trip - SLOW
        for lane in self.lanes:
            if (found is None or lane.in_flight < found.in_flight) and lane.since > late \
                    and lane.is_open():
                found = lane
        return found

    cdef Lane free(self, pool):
        """Share a connection that is free, if there is one."""
        cdef Lane lane
        if not pool._free:
            return None
        conn = pool._take_good()
        if conn is None:
            return None
        pool._unuse(conn)
        lane = self.open(pool, conn)
        if lane is None:
            (<Ticket>self.queue.popleft()).give(ALONE)
            pool._unshare(conn)
        elif pool._short:
            pool._top_up()
        return lane

    cdef int fill(self, Lane lane) except -1:
        """Send what waits first on a connection; it goes back to the pool if nothing is sent."""
        while self.is_waited_for() and not lane.put(self.queue.popleft()):
            pass
        if lane.in_flight == 0:
            lane.leave()
        return 0

    cdef Lane open(self, pool, conn):
        """Begin to share a connection; None if it can't be."""
        cdef Lane lane
        wire = getattr(conn, "_wire", None)
        pool._shared.add(conn)
        if type(wire) is not Wire or not (<Wire>wire).native or (<Wire>wire).state != IDLE:
            return None
        lane = Lane.__new__(Lane)
        lane.conn, lane.pool, lane.sharing, lane.wire = conn, pool, self, wire
        lane.wire.shared = lane
        lane.since = lane.wire.loop.time()
        self.lanes.append(lane)
        return lane

    cdef bint is_waited_for(self) except -1:
        while self.queue and (<Ticket>self.queue[0]).waiter.done():
            self.queue.popleft()
        return len(self.queue) > 0

    # Deadlines of what is in the queue: one timer, that of the first

    cdef int arm(self, pool, double deadline) except -1:
        if deadline == NEVER or (self.timer is not None and self.timer_at <= deadline):
            return 0
        if self.timer is not None:
            self.timer.cancel()
        self.timer_at = deadline
        self.timer = pool._loop.call_at(deadline, self.look, pool)
        return 0

    def look(self, pool):
        """The timer has fired: end those whose time is over."""
        cdef Ticket ticket
        cdef double first = NEVER
        self.timer = None
        now = pool._loop.time()
        for ticket in self.queue:
            if now >= ticket.deadline:
                ticket.expire()
            elif not ticket.waiter.done():
                first = min(first, ticket.deadline)
        self.arm(pool, first)


def _patience(Lane lane):
    """Which connection will be dry first, probably: what has begun to be goes on."""
    return (not lane.drained, lane.in_flight)
