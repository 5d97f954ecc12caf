"""Bookkeeping of a pool: what is free, what is in use, what is being connected, who waits.

Nothing here awaits, opens or closes: a call decides, leaves the state complete and says what is
left to do. What the pool holds may be anything: no argument is typed, so that proxies and subclasses
of connections are welcome.

Whenever other code can run, `_free` is empty or no waiter is pending.
"""

import asyncio
from collections import deque

cdef extern from "_frames.h":
    pass

cdef object running_loop = asyncio._get_running_loop

cdef double NEVER = float("-inf")

# Seconds after which a connection is looked at before it is given out again: the loop may not have
# noticed its end while it rested.
cdef double RESTED = 0.005


cdef bint looks_alive(conn) except -1:
    wire = getattr(conn, "_wire", None)     # stand-ins for connections have none
    return wire is None or wire.look()


def status_of(conn):
    """The transaction status of a connection, as users see it."""
    wire = getattr(conn, "_wire", None)
    return conn.raw.get_transaction_status() if wire is None else wire.status


cdef class PoolCore:
    cdef public object _loop
    cdef public object _minsize
    cdef public object _recycle     # seconds unused after which a free connection is closed, or -1
    cdef public object _free        # deque, the one released first at the left
    cdef public set _used
    cdef public set _shared         # by several statements: see _shared.pyx
    cdef public object _sharing     # what is known of these, None in a pool that shares none
    cdef public set _terminated     # closed by terminate(), not yet released
    cdef public object _waiters     # deque of futures; those that are done are no longer waiting
    cdef public dict _connects      # task of a connect -> the waiter it was started for, or None
    cdef public dict _clearing      # connections that come back: future of their last portal -> it
    cdef public set _leaving        # futures of closed connections whose queries the server still runs
    cdef public bint _closing
    cdef public bint _closed

    def __cinit__(self, *args, **kwargs):
        self._free = deque()
        self._used = set()
        self._shared = set()
        self._terminated = set()
        self._waiters = deque()
        self._connects = {}
        self._clearing = {}
        self._leaving = set()

    def __init__(self, loop, minsize, maxsize, recycle):
        self._loop = loop
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
        """Raise RuntimeError in another event loop: futures made there would never be woken."""
        loop = running_loop()
        if loop is not self._loop and loop is not None:
            raise RuntimeError("the pool belongs to another event loop")

    def _take_good(self):
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
            self._used.add(conn)
            if now - <double>conn.last_usage < RESTED or looks_alive(conn):
                return conn
            self._used.remove(conn)
            conn.close()
        return None

    cdef int _drop_stale(self, double oldest) except -1:
        stale = []
        for conn in self._free:
            if conn.closed or (oldest != NEVER and <double>conn.last_usage < oldest):
                stale.append(conn)
        for conn in stale:
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
        self._used.remove(conn)
        return conn

    def _keep(self, conn):
        """Give a connection to the first waiter, or make it free. False if nobody needs it."""
        sharing = self._sharing
        if sharing is not None and sharing.owed and sharing.take(self, conn):
            return True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._used.add(conn)
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

    @property
    def _may_grow(self):
        return self._free.maxlen is None or self.count() < self._free.maxlen

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

    def _surplus(self, waiter):
        """Forget a waiter. Return the task of its connect if the others can do without it."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        for task, owner in self._connects.items():
            if owner is waiter:
                waiting = sum([1 for other in self._waiters if not other.done()])
                return task if len(self._connects) > waiting else None
        return None
