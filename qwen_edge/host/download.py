"""Downloads: one file to the disk, resumed at the byte and checked; and small texts."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from qwen_edge.errors import NetworkError, QwenEdgeError
from qwen_edge.host.https import Client, Trouble, broken, host_of, origin_of
from qwen_edge.host.part_file import PartFile, RemoteFile, discard, is_whole
from qwen_edge.host.retry import PASSING, Patience, Retries, status_trouble
from qwen_edge.host.sizes import format_size

Refusal = Callable[[int, Message], QwenEdgeError]
"""Makes the error for a status that is no success and does not pass."""

_CHUNK = 1 << 16
# A connection that trickles holds a download up as much as one that is silent.
_LEAST_SPEED = 100


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Who is told of what goes on.

    Attributes:
        progress: called with the bytes of the file that are here; they may become fewer.
        checking: called with bytes done and in all while an earlier part is read again.
        waiting: called with the reason and the seconds before another try.
    """

    progress: Callable[[int], None] = _ignore
    checking: Callable[[int, int], None] = _ignore
    waiting: Callable[[str, float], None] = _ignore


def download(
    client: Client,
    file: RemoteFile,
    folder: Path,
    refusal: Refusal,
    patience: Patience,
    watch: Watch,
) -> Path:
    """Downloads a file, or what is missing of it.

    Args:
        client: opens the URL.
        file: what to download.
        folder: where it goes, under its name once it is whole.
        refusal: makes the error for 401, 404 and the like.
        patience: how often to try.
        watch: is told of progress.

    Returns:
        The path.

    Raises:
        NetworkError: the server refuses, or the network does not come back; what is here stays.
        QwenEdgeError: the file cannot be written.
    """
    if is_whole(folder, file):
        watch.progress(file.size)
        return folder / file.name
    with PartFile(folder, file, watch.checking) as part:
        resumed = part.offset > 0
        _complete(client, part, refusal, Retries(patience, watch.waiting), watch)
        if not part.matches() and resumed:
            # The old part may have been damaged since, by a power failure say.
            part.restart("")
            _complete(client, part, refusal, Retries(patience, watch.waiting), watch)
        if not part.matches():
            discard(folder, file.name)
            raise NetworkError(
                "{name} does not have the checksum that is published for it.",
                "It was changed on its way, or the source is at fault: try again, or another "
                "--source.",
                name=file.name,
            )
        return part.finish()


def read_text(
    client: Client,
    url: str,
    refusal: Refusal,
    patience: Patience,
    watch: Watch,
    limit: int,
) -> tuple[bytes, Message]:
    """Reads a small answer whole, at most ``limit`` bytes; returns it with its headers.

    Raises:
        NetworkError: the server refuses, or the network does not come back.
    """
    retries = Retries(patience, watch.waiting)
    while True:
        try:
            with client.open(url) as response:
                if response.status != 200:
                    raise _failed(url, response, refusal)
                return _body(url, response, limit, patience.timeout), response.headers
        except Trouble as trouble:
            retries.failed(trouble)


def probe(client: Client, url: str, refusal: Refusal, patience: Patience, watch: Watch) -> int:
    """Asks for the size of a file, in bytes, by asking for its first byte.

    Raises:
        NetworkError: the server refuses, does not say, or the network does not come back.
    """
    retries = Retries(patience, watch.waiting)
    while True:
        try:
            with client.open(url, {"Range": "bytes=0-0"}) as response:
                if response.status not in (200, 206):
                    raise _failed(url, response, refusal)
                name = "Content-Range" if response.status == 206 else "Content-Length"
                size = _number(response.headers.get(name, "").rpartition("/")[2])
                if size:
                    return size
                raise NetworkError("{host} does not say how large the file is.", host=host_of(url))
        except Trouble as trouble:
            retries.failed(trouble)


def _body(url: str, response: http.client.HTTPResponse, limit: int, timeout: float) -> bytes:
    body = bytearray()
    guard = _Speed(url, timeout)
    while data := _read(url, response):
        body += data
        guard.received(len(data))
        if len(body) > limit:
            raise NetworkError("The answer of {host} is too long.", host=host_of(url))
    if _number(response.headers.get("Content-Length", "")) not in (None, len(body)):
        raise broken(url, http.client.IncompleteRead(b""))
    return bytes(body)


def _complete(
    client: Client, part: PartFile, refusal: Refusal, retries: Retries, watch: Watch
) -> None:
    """Receives until the part has the file's size."""
    furthest = part.offset
    watch.progress(part.offset)
    while part.offset < part.file.size:
        try:
            _receive(client, part, refusal, watch)
        except Trouble as trouble:
            # A server that never gets beyond one place must not keep us for ever.
            if part.offset > furthest:
                retries.succeeded()
            furthest = max(furthest, part.offset)
            retries.failed(trouble)


def _receive(client: Client, part: PartFile, refusal: Refusal, watch: Watch) -> None:
    """Receives what one connection gives."""
    url = part.file.url
    headers = {}
    if part.offset:
        headers["Range"] = f"bytes={part.offset}-"
        if part.etag:
            headers["If-Range"] = part.etag
    with client.open(url, headers) as response:
        _begin(url, response, part, refusal)
        guard = _Speed(url, client.timeout)
        while part.offset < part.file.size:
            data = _read(url, response)
            if not data:
                raise broken(url, http.client.IncompleteRead(b""))
            if part.offset + len(data) > part.file.size:
                part.restart("")
                raise _wrong_size(part)
            part.write(data)
            guard.received(len(data))
            watch.progress(part.offset)
        if response.length is None and _read(url, response):
            part.restart("")
            raise _wrong_size(part)


def _begin(url: str, response: http.client.HTTPResponse, part: PartFile, refusal: Refusal) -> None:
    """Checks what an answer says of itself; afterwards its body belongs at the part's end."""
    status, headers = response.status, response.headers
    # A weak ETag (W/) does not promise the same bytes.
    etag = headers.get("ETag", "").strip()
    etag = etag if etag.startswith('"') else ""
    if status == 416:
        part.restart("")
        raise Trouble(_odd(url), "416", stubborn=True)
    if status not in (200, 206):
        raise _failed(url, response, refusal)
    if headers.get("Content-Encoding", "identity") != "identity":
        raise _odd(url)
    missing = part.file.size - (part.offset if status == 206 else 0)
    if _number(headers.get("Content-Length", "")) not in (None, missing):
        raise _wrong_size(part)
    if status == 200:
        # The file has changed, or the server knows no ranges: from the start.
        part.restart(etag)
    elif _changed(headers, etag, part):
        part.restart("")
        raise Trouble(_odd(url), "206", stubborn=True)


def _changed(headers: Message, etag: str, part: PartFile) -> bool:
    """Whether a partial answer does not continue the part."""
    match = re.fullmatch(
        r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)",
        headers.get("Content-Range", "").strip(),
    )
    if match is None or int(match.group(1)) != part.offset:
        return True
    if match.group(2) not in ("*", str(part.file.size)):
        raise _wrong_size(part)
    # With a checksum the end will tell; without one the ETag is all there is.
    return part.file.digest is None and etag != part.etag


def _number(text: str) -> int | None:
    """A length from a header; None for anything that is none."""
    return int(text) if re.fullmatch("[0-9]{1,19}", text.strip()) else None


def _read(url: str, response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise broken(url, error) from None


def _failed(url: str, response: http.client.HTTPResponse, refusal: Refusal) -> Exception:
    """The error for a status that is no success."""
    final = response.geturl()
    if response.status in PASSING:
        return status_trouble(final, response.status, response.headers)
    if origin_of(final) == origin_of(url):
        return refusal(response.status, response.headers)
    # Storage behind the source: its links expire, and a new one may serve.
    error = NetworkError(
        "{host} refuses the download (status {status}).",
        "Try again later, or another --source.",
        host=host_of(final),
        status=response.status,
    )
    return Trouble(error, f"{host_of(final)}: {response.status}", stubborn=True)


def _odd(url: str) -> NetworkError:
    return NetworkError(
        "{host} answers in a way that makes no sense.",
        "Try again later, or another --source.",
        host=host_of(url),
    )


def _wrong_size(part: PartFile) -> Trouble:
    error = NetworkError(
        "{name} has another size at {host} than is published for it ({size}).",
        "It has just changed, or the server is at fault: try again later, or another --source.",
        name=part.file.name,
        host=host_of(part.file.url),
        size=format_size(part.file.size),
    )
    return Trouble(error, f"{host_of(part.file.url)}: {part.file.name}", stubborn=True)


class _Speed:
    """Notices a connection that trickles.

    Args:
        url: what is downloaded.
        window: seconds over which the speed is looked at.
    """

    def __init__(self, url: str, window: float) -> None:
        self._url = url
        self._window = window
        self._since = time.monotonic()
        self._bytes = 0

    def received(self, count: int) -> None:
        """Counts bytes.

        Raises:
            Trouble: there were too few of them.
        """
        self._bytes += count
        now = time.monotonic()
        if now - self._since >= self._window:
            if self._bytes < _LEAST_SPEED * self._window:
                raise broken(self._url, TimeoutError())
            self._since, self._bytes = now, 0
