"""A file on its way: NAME.part grows, and becomes NAME once it is whole and checked.

Beside it lies a small JSON state that tells which file it is a part of, so that another file of the
same name is never appended to it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import free_bytes, not_written

PART = ".part"
_CHUNK = 1 << 20
_STATE_LIMIT = 1 << 16


class Digest(NamedTuple):
    """A published checksum: ``sha256``, or ``git`` for the id that git gives a file."""

    kind: str
    value: str


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded.

    Attributes:
        name: what it is called here; a plain file name.
        url: where it is.
        size: its bytes.
        digest: its checksum, where one is published.
    """

    name: str
    url: str
    size: int
    digest: Digest | None = None


def is_whole(folder: Path, file: RemoteFile) -> bool:
    """Whether the file is there already, downloaded and checked earlier."""
    try:
        return (folder / file.name).stat().st_size == file.size and _is_of(
            _read_state(folder, file.name), file
        )
    except OSError:
        return False


def bytes_there(folder: Path, file: RemoteFile) -> int:
    """How much of a file need not be downloaded any more."""
    if is_whole(folder, file):
        return file.size
    state = _read_state(folder, file.name)
    if not _is_of(state, file) or not _can_go_on(state, file):
        return 0
    try:
        return min((folder / (file.name + PART)).stat().st_size, file.size)
    except OSError:
        return 0


def discard(folder: Path, name: str) -> None:
    """Removes a file, whole or in part, and its state."""
    for path in (folder / name, folder / (name + PART), _state_path(folder, name)):
        with contextlib.suppress(OSError):
            path.unlink()


class PartFile:
    """The part of a file that is here; a context manager.

    Args:
        folder: where it lies; must exist, and be this process's alone for the time.
        file: what it is a part of.
        checking: called with bytes done and bytes in all while an earlier part is read again.

    Raises:
        QwenEdgeError: it cannot be written.
    """

    def __init__(
        self, folder: Path, file: RemoteFile, checking: Callable[[int, int], None]
    ) -> None:
        self.file = file
        self.target = folder / file.name
        self.path = folder / (file.name + PART)
        self.etag = ""
        self.offset = 0
        state = _read_state(folder, file.name)
        usable = _is_of(state, file) and _can_go_on(state, file)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._failure(error) from None
        try:
            size = os.fstat(self._descriptor).st_size
            if usable and 0 < size <= file.size:
                self.etag = str(state.get("etag", ""))
                self._digest_again(size, checking)
            else:
                self.restart("")
        except BaseException:
            os.close(self._descriptor)
            raise

    def _digest_again(self, size: int, checking: Callable[[int, int], None]) -> None:
        self._hash = _hash_of(self.file)
        while self.offset < size:
            data = os.pread(self._descriptor, min(_CHUNK, size - self.offset), self.offset)
            if not data:
                break
            self._hash.update(data)
            self.offset += len(data)
            checking(self.offset, size)

    def restart(self, etag: str) -> None:
        """Throws the part away; what follows is from a file with this ETag."""
        self.etag, self.offset, self._hash = etag, 0, _hash_of(self.file)
        try:
            os.ftruncate(self._descriptor, 0)
            _write_state(self.target.parent, self.file, etag)
        except OSError as error:
            raise self._failure(error) from None

    def write(self, data: bytes) -> None:
        """Appends.

        Raises:
            QwenEdgeError: the disk is full, or fails.
        """
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, self.offset)
                self._hash.update(view[:written])
                view, self.offset = view[written:], self.offset + written
        except OSError as error:
            raise self._failure(error) from None

    def matches(self) -> bool:
        """Whether what is here has the published checksum; True where there is none."""
        return self.file.digest is None or self._hash.hexdigest() == self.file.digest.value

    def finish(self) -> Path:
        """Gives the whole file its name.

        Raises:
            QwenEdgeError: the disk fails.
        """
        try:
            os.fsync(self._descriptor)
            self.path.replace(self.target)
        except OSError as error:
            raise self._failure(error) from None
        return self.target

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def _failure(self, error: OSError) -> QwenEdgeError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return QwenEdgeError(
                "The disk is full: {path} needs {needed} more and {free} are free.",
                "Free some space and run the same command again: it goes on where it stopped.",
                path=self.path,
                needed=format_size(self.file.size - self.offset),
                free=format_size(free_bytes(self.path.parent) or 0),
            )
        if error.errno == errno.EFBIG:
            return QwenEdgeError(
                "{path} needs {needed}, more than a file may have there.",
                "Write it to another file system, or raise the limit (ulimit -f).",
                path=self.path,
                needed=format_size(self.file.size),
            )
        return not_written(self.path, error)


def _hash_of(file: RemoteFile) -> Any:
    """The hash that the published checksum is of."""
    if file.digest is not None and file.digest.kind == "git":
        # The id of a git blob: SHA-1 over a header with the length, then the content.
        value = hashlib.sha1(usedforsecurity=False)
        value.update(b"blob %d\0" % file.size)
        return value
    return hashlib.sha256()


def _state_path(folder: Path, name: str) -> Path:
    return folder / f".{name}.state.json"


def _read_state(folder: Path, name: str) -> dict[str, Any]:
    try:
        with open(_state_path(folder, name), encoding="utf-8") as file:
            state = json.loads(file.read(_STATE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(folder: Path, file: RemoteFile, etag: str) -> None:
    state = {
        "url": _url_id(file),
        "size": file.size,
        "digest": None if file.digest is None else list(file.digest),
        "etag": etag,
    }
    path = _state_path(folder, file.name)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(state), encoding="utf-8")
    fresh.replace(path)


def _url_id(file: RemoteFile) -> str:
    """Stands for the URL, whose query may be a secret."""
    return hashlib.sha256(file.url.encode()).hexdigest()


def _is_of(state: dict[str, Any], file: RemoteFile) -> bool:
    """Whether a state is of this file; a checksum says so wherever it was downloaded from."""
    if state.get("size") != file.size:
        return False
    if file.digest is not None:
        return bool(state.get("digest") == list(file.digest))
    return state.get("url") == _url_id(file) and state.get("digest") is None


def _can_go_on(state: dict[str, Any], file: RemoteFile) -> bool:
    """Whether more can be appended: something must tell that both halves are of one file."""
    return file.digest is not None or bool(state.get("etag"))
