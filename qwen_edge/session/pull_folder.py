"""The folder that the files of one source are downloaded to, locked while that lasts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.download import Watch, download
from qwen_edge.host.part_file import bytes_there, discard
from qwen_edge.host.paths import downloads_folder
from qwen_edge.host.retry import Patience
from qwen_edge.host.storage import not_written
from qwen_edge.model.checkpoint_weights import INDEX_SUFFIX, SUFFIX
from qwen_edge.session.pull_files import CHECKPOINT, SIDE_FILES
from qwen_edge.session.pull_names import Wanted
from qwen_edge.session.pull_offer import Offer

_LOCK = ".lock"


class DownloadFolder:
    """Where the files of one source are downloaded to; a context manager that locks it.

    Attributes:
        path: the folder.

    Raises:
        QwenEdgeError: another process downloads the same, or it cannot be made.
    """

    def __init__(self, wanted: Wanted, environ: Mapping[str, str]) -> None:
        self._name = wanted.repo
        parts = [wanted.source, *wanted.repo.split("/"), *(wanted.revision or "").split("/")]
        self.path = downloads_folder(environ) / "--".join(filter(None, parts))
        self._lock = -1

    def missing(self, offer: Offer) -> int:
        """Bytes of an offer that are not here yet."""
        files = offer.selection.files
        return sum(file.size - bytes_there(self.path, file) for file in files)

    def fetch(
        self,
        offer: Offer,
        patience: Patience,
        progress: Callable[[int], None],
        watch: Watch,
    ) -> Path:
        """Downloads what is missing.

        Args:
            offer: what to download.
            patience: what is put up with.
            progress: called with the bytes of all files that are here.
            watch: is told of waiting and checking.

        Returns:
            What to convert or to take as it is: the folder of a checkpoint, else the file.

        Raises:
            NetworkError: the network fails for too long; what is here stays.
            QwenEdgeError: a file cannot be written.
        """
        if offer.selection.kind == CHECKPOINT:
            self._remove_strange(offer)
        done = 0
        for file in offer.selection.files:

            def told(size: int, before: int = done) -> None:
                progress(before + size)

            each = replace(watch, progress=told)
            download(offer.client, file, self.path, offer.refusal, patience, each)
            done += file.size
        if offer.selection.kind == CHECKPOINT:
            return self.path
        return self.path / offer.selection.files[0].name

    def _remove_strange(self, offer: Offer) -> None:
        """Removes files of a checkpoint that are left from another version of it."""
        names = {file.name for file in offer.selection.files}
        for path in list(self.path.iterdir()):
            known = path.name in SIDE_FILES or path.name.endswith((SUFFIX, INDEX_SUFFIX))
            if known and path.name not in names:
                with contextlib.suppress(OSError):
                    path.unlink()

    def remove(self, offer: Offer) -> None:
        """Deletes what was downloaded, once it is not needed any more."""
        for file in offer.selection.files:
            discard(self.path, file.name)
        if {path.name for path in self.path.iterdir()} <= {_LOCK}:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> DownloadFolder:
        try:
            while self._lock < 0:
                self.path.mkdir(parents=True, exist_ok=True)
                self._try_to_lock()
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES) and self._lock < 0:
                raise QwenEdgeError(
                    "{name} is being downloaded by another process.",
                    "Wait until it is done.",
                    name=self._name,
                ) from None
            raise not_written(self.path, error) from None
        return self

    def _try_to_lock(self) -> None:
        path = self.path / _LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            # Another process has just finished, and removed the folder.
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(descriptor)
                raise
            # A file system without locks: two downloads at once are the user's own doing there.
        if os.fstat(descriptor).st_nlink:
            self._lock = descriptor
        else:
            os.close(descriptor)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)
        self._lock = -1
