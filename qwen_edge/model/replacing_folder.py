"""A folder that appears under its name all at once, complete and on the disk, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
from pathlib import Path

from qwen_edge.errors import UsageError
from qwen_edge.host.storage import not_written
from qwen_edge.model.closing import Closing
from qwen_edge.model.replacing_file import SUFFIX, sync_folder


class ReplacingFolder(Closing):
    """Makes a temporary folder next to ``target`` and renames it at the end.

    Use it as a context manager: leaving it without ``commit`` removes the temporary folder.

    Args:
        target: the folder to make; it may exist if it is empty.

    Attributes:
        path: the temporary folder, for the caller to fill.

    Raises:
        UsageError: there is something of that name.
        QwenEdgeError: it cannot be made there.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._descriptor = -1
        if os.path.lexists(target) and not _is_empty_folder(target):
            raise UsageError(
                "{path} exists already.", "Name a folder that does not exist.", path=target
            )
        _remove_leftovers(target)
        self.path = target.with_name(f".{target.name}.{os.urandom(4).hex()}{SUFFIX}")
        try:
            self.path.mkdir()
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise not_written(target, error) from None
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def commit(self) -> None:
        """Syncs the folder, whose files are synced, and renames it.

        Raises:
            QwenEdgeError: the disk fails, or something has taken the name by now.
        """
        try:
            os.fsync(self._descriptor)
            self.path.rename(self.target)
        except OSError as error:
            raise not_written(self.target, error) from None
        os.close(self._descriptor)
        self._descriptor = -1
        sync_folder(self.target.parent)

    def close(self) -> None:
        """Removes the temporary folder unless it has its name; a second call does nothing."""
        if self._descriptor >= 0:
            # Removed while locked: nobody else can take it for a leftover in between.
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = -1


def _is_empty_folder(path: Path) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _remove_leftovers(target: Path) -> None:
    """Removes temporary folders of ``target`` whose writer is gone."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += target.parent.glob(f".{glob.escape(target.name)}.*{SUFFIX}")
    for path in found:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # A living writer holds the lock; the system drops it with the process.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
