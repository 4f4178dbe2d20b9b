"""A fast checksum against damage and mistakes; native/checksum.h says how good it is."""

from __future__ import annotations

import ctypes
from functools import cache

from qwen_edge.native.library import load


@cache
def _library() -> ctypes.CDLL:
    library = load()
    library.qe_checksum.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
    library.qe_checksum.restype = ctypes.c_uint64
    return library


def checksum(data: bytes, seed: int = 0) -> int:
    """The 64-bit checksum of some bytes; ``seed`` is that of what comes before them."""
    return int(_library().qe_checksum(data, len(data), seed))


def checksum_at(address: int, size: int, seed: int = 0) -> int:
    """The same of ``size`` bytes of memory."""
    return int(_library().qe_checksum(address, size, seed))
