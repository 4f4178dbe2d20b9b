"""A Hugging Face and a ModelScope on this device, with whatever faults a test asks for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# Small files are kept in git itself, and their id is git's.
LFS_FROM = 4096


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong.

    Attributes:
        status: in place of 200 or 206.
        headers: more of them, or others.
        body: in place of the file.
        cut: bytes of the body after which the connection is closed; 0 closes it before any answer.
        stall: bytes of the body after which nothing more comes.
        length: Content-Length, whatever the body is; "" leaves it out.
        ignores_range: sends the whole file.
        trickle: seconds between single bytes of the body.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    stall: int | None = None
    length: str | None = None
    ignores_range: bool = False
    trickle: float = 0.0


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    path: str
    headers: Mapping[str, str]


class HubServer:
    """Serves one repository under any ``owner/name`` except ``owner/missing``.

    Attributes:
        files: content by path in the repository.
        etags: ETag by path; by default the content's hash.
        faults: for the next requests of files, by path; used up one by one.
        always: faults that stay, by path.
        listing_faults: for the next requests of the listing.
        digests: published checksums that are not true, or None for none, by path.
        sizes: published sizes that are not true, by path.
        redirect: where the requests of files are sent, ``{path}`` replaced.
        requests: all that came in.
        slow: seconds to wait after each 64 KiB.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.listing_faults: list[Fault] = []
        self.digests: dict[str, str | None] = {}
        self.sizes: dict[str, int] = {}
        self.extra_entries: list[Any] = []
        self.redirect = ""
        self.requests: list[Request] = []
        self.slow = 0.0
        self.search: list[str] = []
        self.stopping = threading.Event()

        class Handler(_Handler):
            hub = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            # The handshake is left to each request's own thread.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, part: str) -> list[Request]:
        """The requests whose path has this in it."""
        return [request for request in self.requests if part in request.path]

    def tree(self) -> list[Any]:
        """The listing as Hugging Face has it."""
        entries: list[Any] = [{"type": "directory", "path": "onnx", "oid": "0" * 40, "size": 0}]
        for path, content in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
            entry["size"] = self.sizes.get(path, len(content))
            sha256 = self.digests.get(path, hashlib.sha256(content).hexdigest())
            if len(content) >= LFS_FROM:
                entry["oid"] = "1" * 40
                entry["lfs"] = {"oid": sha256, "size": entry["size"], "pointerSize": 134}
            else:
                blob = b"blob %d\0" % len(content) + content
                entry["oid"] = hashlib.sha1(blob).hexdigest()
            if path in self.digests and sha256 is None:
                entry["oid"] = None
                entry.pop("lfs", None)
            entries.append(entry)
        return entries + self.extra_entries

    def model_scope_files(self) -> list[Any]:
        """The listing as ModelScope has it."""
        return [{"Type": "tree", "Path": "onnx", "Name": "onnx", "Size": 0}] + [
            {
                "Type": "blob",
                "Path": path,
                "Name": path.rpartition("/")[2],
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
            }
            for path, content in self.files.items()
        ]


@contextlib.contextmanager
def hub_server(certificate: Path | None = None) -> Iterator[HubServer]:
    """A server for the time of a test; with a certificate and its key, one for HTTPS."""
    hub = HubServer(certificate)
    try:
        yield hub
    finally:
        hub.close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        self.hub.requests.append(Request(self.path, dict(self.headers.items())))
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if path.startswith("/api/v1/models/"):
            self._model_scope(path, query)
        elif "/tree/" in path or path == "/api/models":
            self._listing(path, query)
        elif match := re.fullmatch(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)", path):
            self._file(match.group(1), self.hub.redirect)
        elif path.startswith("/cdn/"):
            self._file(path.removeprefix("/cdn/"), "")
        else:
            self._json(404, {"error": "not found"})

    def _listing(self, path: str, query: Mapping[str, list[str]]) -> None:
        if path == "/api/models":
            self._json(200, [{"id": name} for name in self.hub.search])
        elif self.hub.listing_faults:
            fault = self.hub.listing_faults.pop(0)
            self._send(fault, b"{}" if fault.body is None else fault.body, {})
        elif "/owner/missing/" in path:
            # To one without a token, what is not there and what is private look the same.
            self._json(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif "/tree/no-such" in path:
            self._json(404, {"error": "none"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            self._pages(path, query)

    def _pages(self, path: str, query: Mapping[str, list[str]]) -> None:
        """Two pages, whatever there is."""
        entries = self.hub.tree()
        middle = len(entries) // 2
        if "cursor" in query:
            self._json(200, entries[middle:])
            return
        # A mirror hands on the address of the original.
        following = f'<https://huggingface.co{path}?recursive=true&cursor=x>; rel="next"'
        self._json(200, entries[:middle], {"Link": following})

    def _model_scope(self, path: str, query: Mapping[str, list[str]]) -> None:
        if path.endswith("/repo/files"):
            if "/owner/missing/" in path:
                self._json(404, {"Code": 10010205001, "Message": "record not found"})
                return
            files = self.hub.model_scope_files()
            self._json(200, {"Code": 200, "Data": {"Files": files}, "Success": True})
        else:
            self._file(query["FilePath"][0], self.hub.redirect)

    def _file(self, path: str, redirect: str) -> None:
        if redirect:
            self._send(Fault(302, {"Location": redirect.replace("{path}", path)}), b"moved", {})
            return
        queue = self.hub.faults.get(path, [])
        fault = queue.pop(0) if queue else self.hub.always.get(path, Fault())
        content = self.hub.files.get(path)
        if content is None:
            self._json(404, {"error": "none"}, {"X-Error-Code": "EntryNotFound"})
            return
        content = content if fault.body is None else fault.body
        etag = self.hub.etags.get(path, f'"{hashlib.sha256(content).hexdigest()}"')
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        begin = self._begin(content, etag, fault)
        if begin is None:
            self._send(Fault(200), content, headers, fault)
        elif begin >= len(content):
            headers["Content-Range"] = f"bytes */{len(content)}"
            self._send(Fault(416), b"", headers, fault)
        else:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self._send(Fault(206), content[begin:], headers, fault)

    def _begin(self, content: bytes, etag: str, fault: Fault) -> int | None:
        """Where the range begins that was asked for; None for all."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if wanted is None or fault.ignores_range or condition not in (None, etag):
            return None
        return int(wanted.group(1))

    def _json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        self._send(Fault(status), json.dumps(value).encode(), headers or {})

    def _send(
        self, base: Fault, body: bytes, headers: Mapping[str, str], fault: Fault | None = None
    ) -> None:
        fault = fault or base
        if fault.cut == 0:
            self._hang_up()
            return
        lines = {"Content-Length": str(len(body)), **headers, **base.headers, **fault.headers}
        if fault.length is not None:
            lines["Content-Length"] = fault.length
        self.send_response(fault.status or base.status or 200)
        for name, value in lines.items():
            if value:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            self._body(body, fault)

    def _body(self, body: bytes, fault: Fault) -> None:
        end = fault.cut if fault.cut is not None else fault.stall
        body = body if end is None else body[:end]
        step = 1 if fault.trickle else 1 << 16
        for begin in range(0, len(body), step):
            self.wfile.write(body[begin : begin + step])
            pause = fault.trickle or self.hub.slow
            if pause and self.hub.stopping.wait(pause):
                return
        self.wfile.flush()
        if fault.cut is not None:
            self._hang_up()
        if fault.stall is not None:
            self.hub.stopping.wait(60)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            # Give the bytes a chance to arrive: a reset may throw away what was not read yet.
            time.sleep(0.05)
            self.connection.shutdown(socket.SHUT_RDWR)
