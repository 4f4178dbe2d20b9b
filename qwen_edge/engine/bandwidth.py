"""The machine's read bandwidth, which bounds decoding."""

from __future__ import annotations

import ctypes

from qwen_edge.native.library import check, load

PASSES = 7


def read_bandwidth(nbytes: int, threads: int, passes: int = PASSES) -> float:
    """Bytes a second at which the threads together read a buffer.

    Args:
        nbytes: size of the buffer, at least 1 MiB; well above the caches. It is freed again.
        threads: how many read.
        passes: over the buffer, after one that does not count; the median is taken.

    Raises:
        MemoryLimitError: there is no room for the buffer.
        UsageError: an argument is out of range.
    """
    seconds = (ctypes.c_double * max(passes, 1))()
    check(
        load().qe_read_bandwidth(
            ctypes.c_uint64(nbytes), ctypes.c_int32(threads), ctypes.c_int32(passes), seconds
        )
    )
    median: float = sorted(seconds)[len(seconds) // 2]
    # Threads take whole pieces of 1 MiB; what is left over is not read.
    return (nbytes >> 20 << 20) / median
