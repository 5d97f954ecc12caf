"""Connections that many tasks share: each statement is a Ticket, each such connection a Lane.

    submit()    a free connection becomes a Lane; else the pool may grow, and the ticket waits; else
                the Lane with the least in flight takes it
    settle()    gives what waits to the lanes that have room, and lets lanes run dry for acquire()
    take()      a connection that has come back, or is new, becomes a Lane

A Lane goes back to the pool as soon as nothing is in flight on it. Statements that are put in one step
of the loop go out as one write (`Wire.put_soon()`), each with a Sync of its own.
"""

import asyncio
import weakref
from collections import deque

from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from ._core cimport Lent, Wire
from ._libpq cimport pq
from ._link cimport BUSY, IDLE
from ._plans cimport TO_ASK, Plans, text_of
from ._prepared cimport look_after, shared_statement
from ._requests cimport Sharer, Statement
from ._rows cimport SHAPE_FOREIGN

from ._link import native_road
from ._rows import shape_of
from ._pool import PoolCore, is_alive
from .pool_hooks import scout
from .pool_upkeep import TooManyRequests

cdef extern from "_frames.h":
    pass

cdef double NEVER = float("inf")

cdef int NO_TRANSACTION = TRANSACTION_STATUS_IDLE

# Seconds for which the first statement in flight may run until others are sent elsewhere, beyond
# what the way to the server takes.
cdef double SLOW = 0.005

# Seconds that abandoned statements have to come to their end, before the connection is closed.
cdef double GRACE = 0.05

# Connections to which statements let a pool without limit grow; then they share.
cdef int ENOUGH = 10

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
        if self.lane is None:
            return self.give(self.pool._none_within(self.limit))
        return self.give(asyncio.TimeoutError(
            f"the statement was not executed within {self.limit:g} s"))

    def abandon(self):
        """Nobody waits for it any more."""
        cdef Lane lane = self.lane              # held, as it may be over by this
        cdef Wire wire
        if lane is None or self.abandoned or self.pool._loop.is_closed():
            return                      # it is over, or in the queue, where it is passed over
        if self.request.begun:
            self.abandoned = True
            lane.abandon()
        else:
            wire = lane.wire
            wire.drop(self.request, None)

    # Of the request

    cdef int over(self, Wire wire, Statement request, outcome) except -1:
        cdef Lane lane = self.lane
        cdef bint unsent = isinstance(outcome, BaseException) and wire.is_closed() \
            and not request.is_executed()
        self.lane = self.request = None
        if unsent and self.sharing.ended is not None:
            self.give(self.sharing.ended)
        elif unsent and not self.waiter.done():
            self.sharing.put_back(self)         # goes elsewhere
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


cdef class Lane(Lent):
    """A connection of the pool while it is shared."""

    cdef bint is_open(self) except -1:
        """Whether it takes more."""
        return not self.drained and not self.spent and not self.abandoned \
            and self.in_flight < self.sharing.limit and not self.conn.closed

    cdef bint put(self, Ticket ticket) except -1:
        """Send a statement, with what else goes out in this step of the loop. False if it can't be."""
        cdef Wire wire = self.wire
        cdef Statement request
        now = wire.loop.time()
        if self.in_flight == 0:
            self.since = self.sent = now
        self.in_flight += 1             # before code of the program runs, which may come here again
        request = self.write(ticket)
        if request is None:
            self.in_flight -= 1
            return False
        request.waiter, request.session, request.sharer = ticket.waiter, self, ticket
        ticket.lane, ticket.request = self, request
        if ticket.queued:
            self.pool._stats.requests_wait_seconds += now - ticket.queued
        if self.pool._connects:
            self.pool._disown(ticket.waiter)
        wire.put_soon(request, None if ticket.deadline == NEVER else ticket.deadline - now)
        if wire.plans is not None and (<Plans>wire.plans).pooler == TO_ASK:
            look_after(wire, wire.plans)
        return True

    cdef Statement write(self, Ticket ticket):
        """The request for a statement. None if it can't be sent here, and its ticket was told."""
        cdef Statement request = None
        try:
            raw = self.conn.raw
            ticket.impl = raw.cursor() if ticket.factory is None \
                else raw.cursor(cursor_factory=ticket.factory)
            ticket.row_factory = self.conn.row_factory
            shape = shape_of(type(ticket.impl))
            if shape != SHAPE_FOREIGN:
                request = shared_statement(
                    self.wire, ticket.impl, shape, ticket.operation, ticket.parameters)
            if request is None:
                ticket.give(ALONE)
        except BaseException as error:          # of the program's adapters, too
            ticket.give(error)
        return request

    cdef int over(self) except -1:
        """A statement is over: go on, or back to the pool."""
        cdef double now = self.wire.loop.time()
        self.in_flight -= 1
        self.spent = now >= self.last
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
            self.conn._last_usage = self.wire.loop.time()
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
        self.submitted += 1
        ticket.number = self.submitted
        self.queue.append(ticket)
        if len(self.queue) == 1 or pool._free:
            self.settle(pool)
        if ticket.lane is None and not ticket.waiter.done():
            self.make_wait(pool, ticket)
            self.arm(pool, ticket.deadline)
            pool._settle()

    cdef int make_wait(self, pool, Ticket ticket) except -1:
        """A statement that was not sent at once: its parameters are adapted as they are now."""
        if pool._max_waiting and pool._waiting - self.scouts + self.waiting() > pool._max_waiting:
            self.queue.remove(ticket)
            raise TooManyRequests(f"{pool._max_waiting} requests wait already for {pool!r}")
        pool._stats.requests_queued += 1
        ticket.queued = pool._loop.time()
        if type(ticket.parameters) in (list, dict):
            ticket.parameters = ticket.parameters.copy()
        return 0

    def waiting(self):
        """How many statements wait for a connection."""
        return sum([1 for ticket in self.queue if not ticket.waiter.done()])

    cdef int put_back(self, Ticket ticket) except -1:
        """Queue a statement again, where it was."""
        cdef Ticket other
        place = 0
        for other in self.queue:
            if other.number > ticket.number:
                break
            place += 1
        self.queue.insert(place, ticket)
        return 0

    def unserved(self, pool):
        """The waiter of a ticket to start a connect for; None if there is none, or the pool is full."""
        cdef Ticket ticket
        if not self.queue or pool._check is not None or not self.may_grow(pool):
            return None
        owners = set(pool._connects.values())
        for ticket in self.queue:
            if not ticket.waiter.done() and ticket.waiter not in owners:
                return ticket.waiter
        return None

    cdef bint may_grow(self, pool) except -1:
        """Whether a connection may be made for what waits."""
        if pool.maxsize is None:
            coming = max(len(pool._connects), self.scouts)
            return len(pool._free) + len(pool._shared) + coming < ENOUGH
        return pool._may_grow

    def settle(self, pool):
        """Give what waits to those that have room; let some run dry if acquire() waits."""
        cdef Lane lane
        self.drain(pool)
        while self.is_waited_for():
            lane = self.free(pool)
            if lane is None and self.lanes and not self.may_grow(pool):
                lane = self.best(pool._loop)
            if lane is None:
                return
            self.fill(lane)

    def drain(self, pool):
        """Let as many connections run dry as acquire() waits for, but keep one for us."""
        cdef Lane lane
        wanted = max(0, pool._wanted - self.scouts) + pool._excess
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
        if pool._check is not None or not self.is_waited_for() or not is_alive(conn):
            return False
        self.owed = False
        lane = self.open(pool, conn)
        if lane is None:
            (<Ticket>self.queue.popleft()).give(ALONE)
            pool._shared.remove(conn)
            return False
        self.fill(lane, pool._wanted > 0)       # all that may: acquires have the next turn
        self.settle(pool)
        return True

    cdef int send_scout(self, pool) except -1:
        """Where a pool has a `check`: connections are acquired as everybody does it."""
        limit = pool.maxsize or ENOUGH
        if self.scouts < min(limit, self.waiting()) \
                and (pool._free or self.may_grow(pool) or not self.lanes):
            self.scouts += 1
            pool._requests -= 1         # the statement's own has been counted
            pool._loop.create_task(scout(pool))
        return 0

    def scouted(self, pool, conn, error):
        """A scout has come back, with a connection or with an error."""
        self.scouts -= 1
        if conn is None:
            if self.is_waited_for():
                (<Ticket>self.queue.popleft()).give(error)
            pool._settle()
        elif conn in pool._terminated:
            PoolCore.release(pool, conn)
        else:
            pool._unuse(conn)
            self.adopt(pool, conn)

    cdef int adopt(self, pool, conn) except -1:
        cdef Lane lane = None
        if self.is_waited_for() and is_alive(conn):
            lane = self.open(pool, conn)
            if lane is None:
                pool._shared.remove(conn)
                (<Ticket>self.queue.popleft()).give(ALONE)
        if lane is not None:
            self.fill(lane, pool._wanted > 0)
        else:
            pool._free_or_close(conn, clean=True)
        pool._settle()
        return 0

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
        if pool._check is not None:
            self.send_scout(pool)
            return None
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

    cdef int fill(self, Lane lane, bint up=False) except -1:
        """Send what waits first on a connection; it goes back to the pool if nothing is sent.

        up: as much as it takes.
        """
        while self.is_waited_for() and not lane.conn.closed:
            if lane.put(self.queue.popleft()) and not (up and lane.is_open()):
                break
        if lane.in_flight == 0:
            lane.leave()
        return 0

    cdef Lane open(self, pool, conn):
        """Begin to share a connection; None if it can't be."""
        cdef Lane lane
        wire = getattr(conn, "_wire", None)
        pool._shared.add(conn)
        if type(wire) is not Wire or not _is_unused(wire):
            return None
        lane = Lane.__new__(Lane)
        lane.conn, lane.pool, lane.sharing, lane.wire = conn, pool, self, wire
        lane.wire.shared = lane
        lane.since = lane.wire.loop.time()
        lane.last = getattr(conn, "_expires_at", NEVER)     # its max_lifetime
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
        self.timer = pool._loop.call_at(deadline, _look, weakref.ref(pool))
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


def _look(ref):
    """Called by the loop, which may hold a timer for longer than there is the pool."""
    pool = ref()
    if pool is not None:
        pool._sharing.look(pool)


cdef bint _is_unused(Wire wire) except -1:
    """Whether a connection is as good as new; it may be looked after (Probe, PlanEnd)."""
    return wire.native and (wire.state == IDLE or wire.state == BUSY) and wire.users == 0 \
        and wire.transaction_status() == NO_TRANSACTION


def _patience(Lane lane):
    """Which connection will be dry first, probably: what has begun to be goes on."""
    return (not lane.drained, lane.in_flight)
