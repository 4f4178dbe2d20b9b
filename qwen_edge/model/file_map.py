"""A whole file mapped read-only: no copy, clean pages that the system may take back."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path

from qwen_edge.errors import MemoryLimitError
from qwen_edge.model.closing import Closing
from qwen_edge.native.library import STATUS_MEMORY, load

WILL_NEED = 0
DONT_NEED = 1
SEQUENTIAL = 2


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, size = ctypes.c_void_p, ctypes.c_uint64
    library.qe_file_map_open.argtypes = [ctypes.c_char_p, pointer, pointer, pointer]
    library.qe_file_map_close.argtypes = [pointer, size]
    library.qe_file_map_advise.argtypes = [pointer, size, ctypes.c_int32]
    return library


class MappedFile(Closing):
    """Maps a regular file; use it as a context manager.

    Attributes:
        path: the file.
        size: its bytes; 0 is allowed, and maps nothing.

    Raises:
        OSError: it cannot be opened (IsADirectoryError for a folder).
        MemoryLimitError: there is no address space for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._address = 0
        address, size, number = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_int32()
        if "\0" in str(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        status = _library().qe_file_map_open(
            os.fsencode(path), ctypes.byref(address), ctypes.byref(size), ctypes.byref(number)
        )
        if status == STATUS_MEMORY:
            raise MemoryLimitError(
                "There is no address space to map {path}.",
                "Raise --memory-cap, or use a smaller model.",
                path=path,
            )
        if status:
            raise OSError(number.value, os.strerror(number.value), str(path))
        self.size = size.value
        self._address = address.value or 0

    @property
    def address(self) -> int:
        """Address of the first byte.

        Raises:
            ValueError: the mapping is closed (or the file empty).
        """
        if not self._address:
            raise ValueError(f"{self.path} is not mapped")
        return self._address

    def read(self, offset: int, size: int) -> bytes:
        """Copies some bytes.

        Raises:
            ValueError: they are not inside the file.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} are not inside {self.path}")
        return ctypes.string_at(self.address + offset, size) if size else b""

    def advise(self, advice: int, offset: int = 0, size: int | None = None) -> None:
        """Tells the system what comes next (WILL_NEED, DONT_NEED, SEQUENTIAL) for a range."""
        size = self.size - offset if size is None else size
        if size > 0:
            _library().qe_file_map_advise(self.address + offset, size, advice)

    def close(self) -> None:
        """Unmaps; addresses inside become invalid. A second call does nothing."""
        # Forgotten first: a Ctrl-C after the C call must not have it unmapped a second time.
        mapped, self._address = self._address, 0
        if mapped:
            _library().qe_file_map_close(mapped, self.size)
