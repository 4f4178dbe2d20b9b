"""A file that appears under its name all at once, complete and on the disk, or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
from collections.abc import Callable
from pathlib import Path

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import free_bytes, not_written
from qwen_edge.model.closing import Closing

SUFFIX = ".partial"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ATTEMPTS = 8


def remove_leftovers(target: Path) -> list[Path]:
    """Removes temporary files of ``target`` whose writer is gone (killed, or the power failed)."""
    return _remove_abandoned(target.parent, glob.escape(target.name))


def remove_all_leftovers(folder: Path) -> list[Path]:
    """Removes the temporary files of any target in a folder whose writer is gone."""
    return _remove_abandoned(folder, "*")


def _remove_abandoned(folder: Path, pattern: str) -> list[Path]:
    removed: list[Path] = []
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += folder.glob(f".{pattern}.*{SUFFIX}")
    for path in found:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                # A living writer holds the lock; the system drops it with the process.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed.append(path)
            finally:
                os.close(descriptor)
    return removed


class ReplacingFile(Closing):
    """Writes a temporary file next to ``target`` and renames it at the end.

    Use it as a context manager: leaving it without ``commit`` removes the temporary file and leaves
    an existing target as it was.

    Args:
        target: the file to make.
        size: its bytes, known ahead.
        mode: its permissions, of which the umask takes away.
        durable: whether it is synced: without, a power failure may leave a damaged file.

    Raises:
        QwenEdgeError: it cannot be written there, or there is not enough space.
    """

    def __init__(self, target: Path, size: int, *, mode: int = 0o666, durable: bool = True) -> None:
        self.target = target
        self.size = size
        self._mode = mode
        self._durable = durable
        self._descriptor = -1
        # Unlike Path.is_dir, this never raises.
        if os.path.isdir(target):
            raise QwenEdgeError(
                "{path} is a folder; the name of a file is needed.",
                path=target,
            )
        remove_leftovers(target)
        free = free_bytes(target.parent)
        if free is not None and free < size:
            raise self._no_space(free)
        try:
            self.path = self._create()
        except OSError as error:
            raise self._failure(error) from None

    def __del__(self) -> None:
        # A Ctrl-C may come before a with statement has begun.
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()

    def _create(self) -> Path:
        for _ in range(_ATTEMPTS):
            name = f".{self.target.name}.{os.urandom(4).hex()}{SUFFIX}"
            path = self.path = self.target.with_name(name)
            try:
                self._descriptor = os.open(
                    path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode
                )
            except FileExistsError:
                continue
            except (KeyboardInterrupt, SystemExit):
                # It may be there, with nobody to know of it.
                path.unlink(missing_ok=True)
                raise
            # Some file systems have no locks: then leftovers are told from living files by nothing,
            # and remove_leftovers keeps both.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._descriptor).st_nlink:
                return path
            # Another process took it for a leftover before it was locked.
            os.close(self._descriptor)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Writes bytes at an offset.

        Raises:
            QwenEdgeError: the disk is full, or fails.
        """
        view = memoryview(data).cast("B")
        try:
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise self._failure(error) from None

    def write_with(self, write: Callable[[int], None]) -> None:
        """Lets ``write`` fill the file through its descriptor.

        Raises:
            QwenEdgeError: the disk is full, or fails.
        """
        try:
            write(self._descriptor)
        except OSError as error:
            raise self._failure(error) from None

    def commit(self, verify: Callable[[Path], None]) -> None:
        """Syncs the file, lets ``verify`` open it under its temporary name, and renames it.

        Raises:
            QwenEdgeError: the disk fails; or whatever ``verify`` raises.
        """
        try:
            if self._durable:
                os.fsync(self._descriptor)
            verify(self.path)
            self.path.replace(self.target)
        except OSError as error:
            raise self._failure(error) from None
        self._close()
        if not self._durable:
            return
        sync_folder(self.target.parent)

    def close(self) -> None:
        """Removes the temporary file unless it has its name by now; a second call does nothing."""
        if self._descriptor >= 0:
            # Unlinked while locked: nobody else can take it for a leftover in between.
            with contextlib.suppress(OSError):
                self.path.unlink()
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def _no_space(self, free: int | None) -> QwenEdgeError:
        return QwenEdgeError(
            "{path} needs {needed} of disk space and only {free} are free.",
            "Free some space, or write it elsewhere.",
            path=self.target,
            needed=format_size(self.size),
            free=format_size(free or 0),
        )

    def _failure(self, error: OSError) -> QwenEdgeError:
        if error.errno == errno.ENOSPC or error.errno == errno.EDQUOT:
            return self._no_space(free_bytes(self.target.parent))
        if error.errno == errno.EFBIG:
            return QwenEdgeError(
                "{path} needs {needed}, more than a file may have there.",
                "Write it to another file system, or raise the limit (ulimit -f).",
                path=self.target,
                needed=format_size(self.size),
            )
        return not_written(self.target, error)


def put_in_place(finished: Path, target: Path) -> None:
    """Moves a file that another program wrote to its name, once it is on the disk.

    Raises:
        OSError: the disk fails.
    """
    with open(finished, "rb") as file:
        os.fsync(file.fileno())
    finished.replace(target)


def sync_folder(path: Path) -> None:
    """Makes a rename inside a folder last; file systems without that have nothing to lose."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
