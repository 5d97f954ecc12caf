"""A TCP proxy in front of a server, in threads of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

# With what a connection begins that is there to cancel a query.
CANCEL_REQUEST = struct.pack("!ii", 16, 80877102)


@contextlib.contextmanager
def proxy(port, **habits):
    """The port of a `Proxy` in front of that port of 127.0.0.1."""
    running = Proxy(port, **habits)
    try:
        yield running.listener.getsockname()[1]
    finally:
        running.stop()


class Proxy:
    """Each connection has a thread, and a second one for what the server sends.

    delay: seconds until a connection is passed on.
    half_close: an end of stream is passed on, and the other direction goes on; without it, both
        directions end at the first end of stream, as many proxies have it.
    deaf: to cancel requests without TLS, which are taken and neither passed on nor answered.

    swap: (a, b) of one length: b is passed on to the server in the place of a.

    `starts` has the first bytes that each client has sent. `trips` counts how often a client has
    sent something after an answer. While `held` is set, what clients send is not passed on.
    """

    def __init__(self, port, *, delay=0.0, half_close=True, deaf=False, swap=None):
        self.port = port
        self.delay = delay
        self.half_close = half_close
        self.deaf = deaf
        self.swap = swap
        self.starts = []
        self.trips = 0
        self.answered = True
        self.held = False
        self.stopping = threading.Event()
        self.sockets = set()
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.settimeout(0.05)
        self._start(self._accept)

    def stop(self):
        """Close everything."""
        self.stopping.set()
        for sock in list(self.sockets):
            end(sock, socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.listener.close()

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
            self.sockets |= {client, server}
            with contextlib.suppress(OSError):
                start = client.recv(65536)
                self.starts.append(start)
                if self.deaf and start.startswith(CANCEL_REQUEST):
                    self.stopping.wait()
                    return
                time.sleep(self.delay)
                server.connect(("127.0.0.1", self.port))
                if not self.half_close and has_ended(client):
                    return
                back = threading.Thread(target=self._pass_on, args=(server, client, False))
                back.start()
                server.sendall(start)
                self._pass_on(client, server, True)
                back.join()
            self.sockets -= {client, server}

    def _pass_on(self, source, target, to_server):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if to_server and self.answered:
                    self.trips += 1
                if to_server and self.swap is not None:
                    data = data.replace(*self.swap)
                self.answered = not to_server
                while to_server and self.held and not self.stopping.is_set():
                    time.sleep(0.01)
                target.sendall(data)
        if self.half_close:
            end(target, socket.SHUT_WR)
        else:
            end(target, socket.SHUT_RDWR)
            end(source, socket.SHUT_RDWR)


def has_ended(sock):
    """Whether an end of stream is all that is left to read."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def end(sock, how):
    with contextlib.suppress(OSError):
        sock.shutdown(how)
