"""An HTTP proxy on this device that opens tunnels to one server, whatever host is asked for."""

from __future__ import annotations

import contextlib
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ConnectProxy:
    """Answers CONNECT only.

    Attributes:
        port: its own.
        user: name and password that it wants, ``name:password``.
        refusals: statuses for the next tunnels, used up one by one.
        cuts: bytes from the server after which the next tunnels break, used up one by one.
        asked: hosts and ports that were asked for.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.user = ""
        self.refusals: list[int] = []
        self.cuts: list[int] = []
        self.asked: list[str] = []

        class Handler(_Handler):
            proxy = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def url(self, user: str = "") -> str:
        """What HTTPS_PROXY says."""
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def connect_proxy(target: int) -> Iterator[ConnectProxy]:
    """A proxy for the time of a test; ``target`` is a port on this device."""
    proxy = ConnectProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


class _Handler(BaseHTTPRequestHandler):
    proxy: ConnectProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        proxy = self.proxy
        self.close_connection = True
        proxy.asked.append(self.path)
        given = self.headers.get("Proxy-Authorization")
        if proxy.user and given != "Basic " + b64encode(proxy.user.encode()).decode():
            self._refuse(407)
        elif proxy.refusals:
            self._refuse(proxy.refusals.pop(0))
        else:
            self.send_response(200, "Connection established")
            self.end_headers()
            self._tunnel(proxy.cuts.pop(0) if proxy.cuts else None)

    def _refuse(self, status: int) -> None:
        self.send_response(status, "\x1b[31mno")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _tunnel(self, cut: int | None) -> None:
        with socket.create_connection(("127.0.0.1", self.proxy.target)) as server:
            up = threading.Thread(target=_pass_on, args=(self.connection, server, None))
            up.start()
            _pass_on(server, self.connection, cut)
            for each in (server, self.connection):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            up.join()


def _pass_on(source: socket.socket, target: socket.socket, most: int | None) -> None:
    """Copies bytes until the source ends, or there were so many."""
    done = 0
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 14):
            if most is not None and done + len(data) > most:
                return
            target.sendall(data)
            done += len(data)
        target.shutdown(socket.SHUT_WR)
