"""Bookkeeping of a pool: what is free, what is in use, what is being connected, who waits.

Nothing here awaits, opens or closes: a call decides, leaves the state complete and says what is
left to do. What the pool holds may be anything: no argument is typed, so that proxies and subclasses
of connections are welcome.

Whenever other code can run, `_free` is empty or no waiter is pending.

What is taken and given back is safe from KeyboardInterrupt, which Python raises behind calls and at
the beginning of functions of its own, and never within compiled code.
"""

import asyncio
from collections import deque
from os import getpid
from weakref import WeakKeyDictionary

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    #include <time.h>
    #ifdef _WIN32
    #include <windows.h>
    static double aiopgx_now(void) { return GetTickCount64() * 1e-3; }
    #else
    static double aiopgx_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec + t.tv_nsec * 1e-9;
    }
    #endif
    """
    double monotonic "aiopgx_now"() noexcept

cdef object running_loop = asyncio._get_running_loop

cdef double NEVER = float("-inf")

cdef int IDLE = TRANSACTION_STATUS_IDLE

# Seconds after which a connection is looked at before it is given out again: the loop may not have
# noticed its end while it rested.
cdef double RESTED = 0.005


cdef bint looks_alive(conn) except -1:
    wire = getattr(conn, "_wire", None)     # stand-ins for connections have none
    return wire is None or wire.look()


def is_alive(conn):
    """Whether a connection can be used, as far as the loop has heard."""
    wire = getattr(conn, "_wire", None)
    return not conn.closed if wire is None else wire.alive


def why_dead(conn):
    """The error for a new connection that nobody can use, which is closed; None if it is alive."""
    if is_alive(conn):
        return None
    conn.close()
    reason = getattr(getattr(conn, "_wire", None), "reason", None)
    return reason or psycopg2.OperationalError("the new connection was closed at once")


def status_of(conn):
    """The transaction status of a connection, as users see it."""
    wire = getattr(conn, "_wire", None)
    return conn.raw.get_transaction_status() if wire is None else wire.status


cdef class PoolCore:
    cdef public object _loop
    cdef object pid                 # of the process that made it
    cdef public object _minsize
    cdef public object _recycle     # seconds unused after which a free connection is closed, or -1
    cdef public object _free        # deque, the one released first at the left
    cdef public set _used
    cdef public set _shared         # by several statements: see _shared.pyx
    cdef public object _sharing     # what is known of these, None in a pool that shares none
    cdef public set _terminated     # closed by terminate(), not yet released
    cdef public object _waiters     # deque of futures; those that are done are no longer waiting
    cdef Py_ssize_t turns           # how many have waited
    cdef object again               # the turns of those who are in the queue once more
    cdef public dict _connects      # task of a connect -> the waiter it was started for, or None
    cdef public dict _clearing      # connections that come back: future of their last portal -> it
    cdef public set _leaving        # futures of closed connections whose queries the server still runs
    cdef public object _released    # a future that is done: release() has nothing more to do
    cdef public bint _closing
    cdef public bint _closed
    cdef public bint _hooked        # what comes back goes through _take_back()
    cdef public object _tracing     # is told of each release, or None
    cdef public object _wake        # in debug mode, called with what is taken
    cdef public bint _crowded       # resize() has left more than there may be: some are in use
    cdef public Py_ssize_t _unused  # the least that were free at any time since it was set
    # statistics
    cdef public object _stats
    cdef public Py_ssize_t _requests
    cdef double usage               # seconds that connections were in use, summed up, until...
    cdef double usage_at

    def __cinit__(self, *args, **kwargs):
        self._free = deque()
        self._used = set()
        self._shared = set()
        self._terminated = set()
        self._waiters = deque()
        self.again = WeakKeyDictionary()
        self._connects = {}
        self._clearing = {}
        self._leaving = set()

    def __init__(self, loop, minsize, maxsize, recycle):
        self._loop = loop
        self.pid = getpid()
        self._minsize = minsize
        self._recycle = recycle
        self._free = deque(maxlen=maxsize or None)

    @property
    def _acquiring(self):
        return len(self._connects)

    @property
    def minsize(self):
        """How many connections the pool tries to have at least."""
        return self._minsize

    @property
    def maxsize(self):
        """How many connections the pool may have, None if there is no limit."""
        return self._free.maxlen

    @property
    def size(self):
        """How many connections there are: free, in use, shared, being connected, closed but running on.
        """
        return self.count()

    @property
    def freesize(self):
        """How many connections are free."""
        return len(self._free)

    @property
    def closed(self):
        """Whether `wait_closed()` has ended."""
        return self._closed

    cdef Py_ssize_t count(self) except -1:
        return (len(self._free) + len(self._used) + len(self._connects)
                + len(self._clearing) + len(self._leaving) + len(self._shared))

    def _check_loop(self):
        """Raise RuntimeError in another event loop or thread: nobody would be woken."""
        loop = running_loop()
        if loop is not self._loop and (loop is not None or self._loop.is_running()):
            raise RuntimeError(
                "the pool was made in the process that this one was forked from, and can't be "
                "shared with it; make a pool after the fork" if getpid() != self.pid else
                "the pool belongs to another event loop" if loop is not None else
                "the event loop of the pool runs in another thread: "
                "use its call_soon_threadsafe() or asyncio.run_coroutine_threadsafe()")

    @property
    def _good(self):
        """The same as _take_good(), for a request. No call: see the module about those."""
        self._requests += 1
        return self._take_good()

    cpdef object _take_good(self):
        """Return a free connection, which is now in use; None if there is none.

        Those that are closed, were unused for too long or have died unseen are closed and dropped.
        """
        cdef double now, oldest
        if not self._free:
            return None
        now = self._loop.time()
        oldest = now - <double>self._recycle if self._recycle > -1 else NEVER
        self._drop_stale(oldest)
        while self._free:
            conn = self._free.popleft()
            self._use(conn)
            if now - <double>conn.last_usage < RESTED or looks_alive(conn):
                if len(self._free) < self._unused:
                    self._unused = len(self._free)
                return conn
            self._drop(conn)
        return None

    def _drop(self, conn):
        """A connection in use has died."""
        self._unuse(conn)
        self._stats.connections_lost += 1
        conn.close()

    cdef int _use(self, conn) except -1:
        self._clock()
        self._used.add(conn)
        if self._wake is not None:
            self._wake(conn)
        return 0

    def _unuse(self, conn):
        self._clock()
        self._used.remove(conn)

    cdef void _clock(self) noexcept:
        """Count the time until now, before `_used` changes."""
        cdef double now = monotonic()
        self.usage += len(self._used) * (now - self.usage_at)
        self.usage_at = now

    def _used_for(self, reset):
        """Seconds that connections were in use, summed up, since the last call with reset=True."""
        cdef double usage
        self._clock()
        usage = self.usage
        if reset:
            self.usage = 0
        return usage

    cdef int _drop_stale(self, double oldest) except -1:
        stale = []
        for conn in self._free:
            if conn.closed or (oldest != NEVER and <double>conn.last_usage < oldest):
                stale.append(conn)
        for conn in stale:
            self._stats.connections_lost += bool(conn.closed)
            self._free.remove(conn)
            conn.close()        # a closed one, too: who closed its `raw` left our side of it open
        return 0

    def _put_back(self, conn):
        """End the use of a connection. None if `terminate()` has ended it, else the connection.

        What came back is what can be made free. As in aiopg this may be a tracer's proxy, so that
        the next use is traced, whichever method of the pool it is taken with.
        """
        self._check_loop()
        if conn in self._terminated:
            assert conn.closed, conn
            self._terminated.remove(conn)
            return None
        assert conn in self._used, (conn, self._used)
        self._unuse(conn)
        return conn

    def release(self, conn):
        """Give a connection back. This happens at the call; what is returned need not be awaited.

        A connection with an open or a prepared transaction, or with callbacks of `add_listener()`,
        is closed, with a ResourceWarning. One with open server-side cursors, or with a stream that
        was left early, is free once they have ended; so is one of a pool with `reset=`, once it is
        reset. Raises AssertionError if the connection is
        not one in use of this pool, RuntimeError in another thread than the event loop's.
        """
        if self._tracing is not None:
            self._tracing.release(conn)
        conn = self._put_back(conn)
        if conn is None:
            return self._released
        try:
            wire = getattr(conn, "_wire", None)     # stand-ins for connections have none
            if self._hooked or wire is None or wire.ending is not None \
                    or conn._portals is not None or conn._left is not None or not wire.alive \
                    or <int>wire.status != IDLE or not self._keep(conn):
                return self._take_back(conn)
        except BaseException:
            self._rescue(conn)
            raise
        return self._released

    cdef int _rescue(self, conn) except -1:
        """What came back is nowhere, after KeyboardInterrupt."""
        if conn not in self._free and conn not in self._used \
                and conn not in self._clearing.values():
            conn.close()
        return 0

    def _cut(self):
        """End the use of all connections, whose holders will release them yet."""
        self._clock()
        self._terminated |= self._used
        self._used.clear()

    def _keep(self, conn):
        """Give a connection to the first waiter, or make it free. False if nobody needs it."""
        if self._crowded:
            self._crowded = self._free.maxlen is not None and self.count() >= self._free.maxlen
            if self._crowded:
                return False
        sharing = self._sharing
        if sharing is not None and sharing.owed and sharing.take(self, conn):
            return True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._use(conn)
                waiter.set_result(conn)
                if sharing is not None:
                    sharing.passed_by()
                return True
        if sharing is not None and sharing.take(self, conn):
            return True
        if self._closing:
            return False
        self._free.append(conn)
        return True

    def _queue_up(self, waiter, Py_ssize_t turn):
        """Let an acquire wait for its turn, which is returned; 0: a new one, behind all others.

        Who has had it, and comes again, is in front of all that came later.
        """
        cdef Py_ssize_t place = 0
        if turn == 0:
            self._waiters.append(waiter)
            self.turns += 1
            return self.turns
        conn = self._take_good()
        if conn is not None:
            waiter.set_result(conn)
            return turn
        for other in self._waiters:
            if self.again.get(other, turn + 1) > turn:
                break
            place += 1
        self._waiters.insert(place, waiter)
        self.again[waiter] = turn
        return turn

    def _limit(self, minsize, maxsize):
        """Set the sizes. Return what is to be closed: free connections that are too many."""
        surplus = []
        limit = maxsize or None
        while limit is not None and self._free and self.count() > limit:
            surplus.append(self._free.popleft())
        self._free = deque(self._free, limit)
        self._minsize = minsize
        self._crowded = limit is not None and self.count() > limit
        return surplus

    @property
    def _waiting(self):
        """How many acquires wait."""
        return sum([1 for waiter in self._waiters if not waiter.done()])

    @property
    def _may_grow(self):
        return self._free.maxlen is None or self.count() < self._free.maxlen

    @property
    def _excess(self):
        """How many connections there are more than there may be, after resize()."""
        return self.count() - self._free.maxlen if self._crowded else 0

    @property
    def _wanted(self):
        """How many acquires wait, and have no connect of their own."""
        if not self._waiters:
            return 0
        owners = set(self._connects.values())
        return sum([1 for waiter in self._waiters if not waiter.done() and waiter not in owners])

    @property
    def _short(self):
        """How many connections are missing to `minsize`."""
        cdef Py_ssize_t missing = self._minsize - self.count()
        return missing if missing > 0 else 0

    def _unserved(self):
        """Return the waiters to start a connect for: who has none, as far as the pool may grow.

        A connect that was started for `minsize` is given to a waiter first.
        """
        cdef Py_ssize_t size = self.count()
        cdef object limit = self._free.maxlen
        unserved = []
        if not self._waiters:
            return unserved
        spare = [task for task, owner in self._connects.items() if owner is None]
        if not spare and limit is not None and size >= limit:
            return unserved
        owners = set(self._connects.values())
        for waiter in self._waiters:
            if waiter.done() or waiter in owners:
                continue
            if spare:
                self._connects[spare.pop(0)] = waiter
            elif limit is None or size < limit:
                unserved.append(waiter)
                size += 1
            else:
                break
        return unserved

    def _disown(self, waiter):
        """A statement is executed elsewhere: its connect is for others, and not to fail for it."""
        for task, owner in self._connects.items():
            if owner is waiter:
                self._connects[task] = None

    def _surplus(self, waiter):
        """Forget a waiter. Return the task of its connect if the others can do without it."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        for task, owner in self._connects.items():
            if owner is waiter:
                statements = 0 if self._sharing is None else self._sharing.waiting()
                return task if len(self._connects) > self._waiting + statements else None
        return None
