"""A TCP proxy in front of a server, in threads of its own, that can break what it passes on."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
import threading
import time

from psycopg2.extensions import make_dsn, parse_dsn

# With what a connection begins that is there to cancel a query.
CANCEL_REQUEST = struct.pack("!ii", 16, 80877102)

# Options of Linux, and their value: a filter of packets that lets none through (BPF_RET, 0).
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
NONE_PASSES = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))

# SO_LINGER of a socket whose close() sends RST.
AT_ONCE = struct.pack("ii", 1, 0)


@contextlib.contextmanager
def proxy(port, **habits):
    """The port of a `Proxy` in front of that port of 127.0.0.1."""
    running = Proxy(port, **habits)
    try:
        yield running.port
    finally:
        running.stop()


@contextlib.contextmanager
def in_front(dsn, kind=None):
    """A `Proxy`, or one of its subclass `kind`, in front of the server; `dsn` leads to it."""
    running = (kind or Proxy)(int(parse_dsn(dsn)["port"]))
    running.dsn = make_dsn(dsn, host="127.0.0.1", port=running.port)
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def counted(port):
    """Called, it tells the round trips since the last call through its `proxy`."""
    running = Proxy(port)
    seen = 0

    def trips():
        nonlocal seen
        before, seen = seen, running.trips
        return seen - before

    trips.proxy = running
    try:
        yield trips
    finally:
        running.stop()


class Proxy:
    """Each connection has a thread, and a second one for what the server sends.

    delay: seconds until a connection is passed on.
    half_close: an end of stream is passed on, and the other direction goes on; without it, both
        directions end at the first end of stream, as many proxies have it.
    deaf: to cancel requests without TLS, which are taken and neither passed on nor answered.

    swap: (a, b) of one length: b is passed on to the server in the place of a.

    `port` is where it listens. `starts` has the first bytes that each client has sent. `trips`
    counts how often a client has sent something after an answer; `passed` the bytes that clients
    were sent, `taken` those that the server was sent. What may be set at any time, for all
    connections:

    held: what clients send is not passed on.
    muted: what the server sends is not passed on; with `held`, the link is frozen.
    shut: new connections are taken, and not passed on.
    lag: seconds by which all that is sent comes late, in each direction.
    rate: bytes a second, at most, that clients are sent; None for no limit.
    """

    def __init__(self, port, *, delay=0.0, half_close=True, deaf=False, swap=None):
        self.server_port = port
        self.delay = delay
        self.half_close = half_close
        self.deaf = deaf
        self.swap = swap
        self.starts = []
        self.trips = 0
        self.answered = True
        self.held = False
        self.muted = False
        self.shut = False
        self.lag = 0.0
        self.rate = None
        self.passed = self.taken = 0
        self.cut = None
        self.stopping = threading.Event()
        self.links = set()
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.settimeout(0.05)
        self.port = self.listener.getsockname()[1]
        self._start(self._accept)

    def stop(self):
        """Close everything."""
        self.stopping.set()
        self.end()
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def end(self, reset=False):
        """End all connections there are, by FIN; or by RST."""
        for link in list(self.links):
            link.end(reset)

    def cut_after(self, count, reset=False):
        """End the connection whose client has been sent so many bytes more, from now on."""
        self.cut = (self.passed + count, reset)

    def vanish(self):
        """Be gone without a word: the kernel answers clients no more, not even TCP's questions."""
        self.held = self.muted = True
        for sock in (self.listener, *(link.client for link in list(self.links))):
            swallow(sock)

    def reappear(self):
        """Be there again, for new connections."""
        self.listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        self.held = self.muted = False

    def _start(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                self._start(self._serve, self.listener.accept()[0])

    def _serve(self, client):
        with client, socket.socket() as server:
            client.settimeout(None)
            link = Link(client, server)
            self.links.add(link)
            if self.stopping.is_set():  # stop() may not have seen it
                link.end()
            with contextlib.suppress(OSError):
                start = client.recv(65536)
                self.starts.append(start)
                if self.deaf and start.startswith(CANCEL_REQUEST):
                    self.stopping.wait()
                    return
                time.sleep(self.delay)
                while self.shut and not self.stopping.is_set():
                    time.sleep(0.01)
                server.connect(("127.0.0.1", self.server_port))
                if not self.half_close and has_ended(client):
                    return
                back = threading.Thread(target=self._pass_on, args=(link, False))
                back.start()
                server.sendall(start)
                self._pass_on(link, True)
                back.join()
            self.links.discard(link)

    def _pass_on(self, link, to_server):
        source, target = (link.client, link.server) if to_server else (link.server, link.client)
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if to_server and self.answered:
                    self.trips += 1
                if to_server and self.swap is not None:
                    data = data.replace(*self.swap)
                self.answered = not to_server
                while self._is_frozen(to_server) and not self.stopping.is_set():
                    time.sleep(0.01)
                time.sleep(self.lag)
                if link.ended:  # what was received before is lost, too: else there were a hole
                    break
                if to_server:
                    target.sendall(data)
                    self.taken += len(data)
                else:
                    self._answer(link, data)
        if link.ended:
            return
        if self.half_close:
            end(target, socket.SHUT_WR)
        else:
            link.end()

    def _is_frozen(self, to_server):
        return self.held if to_server else self.muted

    def _answer(self, link, data):
        """Send the client what the server has sent, as far as a cut lets it."""
        cut, rate = self.cut, self.rate  # a test may set them meanwhile
        left, reset = (cut[0] - self.passed, cut[1]) if cut else (len(data), False)
        whole = left > len(data) or not cut
        data = data if whole else data[:left]
        self.passed += len(data)
        if rate is None:
            link.client.sendall(data)
        else:
            for piece in range(0, len(data), 512):
                link.client.sendall(data[piece : piece + 512])
                time.sleep(512 / rate)
        if not whole:
            self.cut = None
            link.end(reset)


class Link:
    """The two sockets of a connection."""

    def __init__(self, client, server):
        self.client = client
        self.server = server
        self.ended = False

    def end(self, reset=False):
        """Wake up both threads. The client sees FIN; or RST, when they have closed the socket."""
        self.ended = True
        if reset:
            with contextlib.suppress(OSError):
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        end(self.client, socket.SHUT_RD if reset else socket.SHUT_RDWR)
        end(self.server, socket.SHUT_RDWR)


def swallow(sock):
    """Drop what comes for a TCP socket, unseen. Newer kernels let only the superuser do that."""
    program = struct.pack("@HP", 1, ctypes.addressof(NONE_PASSES))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def can_swallow():
    """Whether the kernel lets us."""
    if sys.platform != "linux":
        return False
    with socket.socket() as sock:
        try:
            swallow(sock)
        except OSError:
            return False
    return True


def has_ended(sock):
    """Whether an end of stream is all that is left to read."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def end(sock, how):
    with contextlib.suppress(OSError):
        sock.shutdown(how)
