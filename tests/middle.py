"""A man in the middle: he answers a client's wish for TLS himself, and passes the rest on in clear.

with middle(server_port, certificate=(file, key)) as port: ...
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@contextlib.contextmanager
def middle(port, *, certificate=None, answer=b"S", told=None, gather=False):
    """The port of one in front of that port of 127.0.0.1.

    certificate: (file, key) for TLS with the client; None for no TLS.
    answer: to the client's wish for TLS: "S" for yes, "N" for no.
    told: a bytearray that gets what clients have said to him; they go no further then.
    gather: pass an answer on as a whole, so that its TLS records are as large as may be: 16 kB.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        man = _Man(listener, port, certificate, answer, told, gather)
        thread = threading.Thread(target=man.run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            man.stopping.set()
            thread.join()


class _Man:
    """Serves each connection in a thread of its own."""

    def __init__(self, listener, port, certificate, answer, told, gather):
        self.listener = listener
        self.port = port
        self.answer = answer
        self.told = told
        self.gather = gather
        self.stopping = threading.Event()
        self.context = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*certificate)

    def run(self):
        threads = []
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self.listener.accept()
                threads.append(threading.Thread(target=self._serve, args=(client,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, client):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            client.settimeout(20)
            stack.enter_context(client)
            start = client.recv(8)
            if self.told is not None and start != SSL_REQUEST:
                self.told += start + client.recv(65536)
                return
            assert start == SSL_REQUEST
            client.sendall(self.answer)
            if self.context is not None:
                client = stack.enter_context(self.context.wrap_socket(client, server_side=True))
            if self.told is not None:
                self.told += client.recv(65536)
                return
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
            self._pass_on(client, server)

    def _pass_on(self, client, server):
        """Both ways, until one of them ends. In one thread: an SSLSocket is not for two."""
        others = {client: server, server: client}
        while not self.stopping.is_set():
            waiting = self.context is not None and client.pending()
            readable = [client] if waiting else select.select([client, server], [], [], 0.05)[0]
            for source in readable:
                data = source.recv(65536)
                if not data:
                    return
                while self.gather and source is server and select.select([server], [], [], 0.02)[0]:
                    more = server.recv(65536)
                    data += more
                    if not more:
                        break
                others[source].sendall(data)
