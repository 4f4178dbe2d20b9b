"""A file of tensors at known places, written piece by piece: what the formats' writers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from qwen_edge.model.closing import Closing
from qwen_edge.model.replacing_file import ReplacingFile


class Place(NamedTuple):
    """Where a tensor lies in the file."""

    offset: int
    nbytes: int


class TensorFile(Closing):
    """Writes one file; use it as a context manager.

    Leaving it before the file has its name leaves nothing behind, and an existing file as it was.

    Args:
        path: the file to make, or to replace.
        size: its bytes.
        places: of every tensor by its name.
        rest: what lies between them and is known already, each with its offset.

    Raises:
        QwenEdgeError: the file cannot be written there, or there is not enough space.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        places: Mapping[str, Place],
        rest: Iterable[tuple[bytes, int]] = (),
    ) -> None:
        self._places = places
        self._written = dict.fromkeys(places, 0)
        self._file = ReplacingFile(path, size)
        try:
            for data, offset in rest:
                self._file.write(data, offset)
        except BaseException:
            self._file.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the finished file."""
        return self._file.size

    def write(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Appends bytes to a tensor. Tensors may come in any order, and take turns.

        Raises:
            ValueError: that is more than the tensor takes.
            QwenEdgeError: the disk is full, or fails.
        """
        place, done, size = self._places[name], self._written[name], memoryview(data).nbytes
        if done + size > place.nbytes:
            raise ValueError(f"{name} takes {place.nbytes} bytes")
        self._file.write(data, place.offset + done)
        self._written[name] = done + size

    def commit(self, verify: Callable[[Path], None], head: bytes = b"") -> None:
        """Writes the beginning, syncs, lets ``verify`` open the file, and gives it its name.

        Raises:
            ValueError: a tensor is incomplete.
            QwenEdgeError: the disk fails; or whatever ``verify`` raises.
        """
        for name, place in self._places.items():
            if self._written[name] != place.nbytes:
                raise ValueError(f"{name} has {self._written[name]} of {place.nbytes} bytes")
        self._file.write(head, 0)
        self._file.commit(verify)

    def close(self) -> None:
        """Leaves nothing behind of a file without its name; a second call does nothing."""
        self._file.close()
