"""Packed tiles to and from plain arrays, by the native library.

Arrays are passed by address (an int) or as a ctypes array or bytes object; the caller answers for
their size, which each function names.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

from qwen_edge.native.library import check, load
from qwen_edge.quant.error import ErrorSums, QuantizationError
from qwen_edge.quant.layout import Layout
from qwen_edge.quant.native_layout import TYPE_CODES, native_layout

Array = Any
"""An address, or what ctypes turns into one."""


def usable_threads(threads: int = 0) -> int:
    """The number asked for, or for 0 the cores that this process may use."""
    if threads > 0:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint64
    library.qe_pack_codes.argtypes = [pointer, pointer, pointer, pointer, pointer, size]
    library.qe_unpack_codes.argtypes = [pointer, pointer, size, pointer, pointer, pointer]
    library.qe_dequantize.argtypes = [pointer, pointer, size, integer, pointer]
    library.qe_measure_error.argtypes = [
        pointer, pointer, size, pointer, integer, integer, pointer,
    ]  # fmt: skip
    library.qe_random_tiles.argtypes = [
        pointer, size, size, ctypes.c_float, integer, pointer, size,
    ]  # fmt: skip
    return library


def pack_codes(
    layout: Layout, codes: Array, scales: Array, minimums: Array | None, packed: Array
) -> None:
    """Packs codes, scales and minimums exactly as they are.

    Args:
        layout: a packed one.
        codes: [rows, cols], a byte each: 0 to 15 for q4, two's complement for q8.
        scales: [rows, groups] fp16.
        minimums: likewise, or zero points, or None if the layout has neither.
        packed: receives ``layout.nbytes`` bytes.
    """
    check(
        _library().qe_pack_codes(
            ctypes.byref(native_layout(layout)), codes, scales, minimums, packed, layout.nbytes
        )
    )


def unpack_codes(
    layout: Layout, packed: Array, codes: Array, scales: Array, minimums: Array | None
) -> None:
    """The reverse of ``pack_codes``; padding is dropped."""
    check(
        _library().qe_unpack_codes(
            ctypes.byref(native_layout(layout)), packed, layout.nbytes, codes, scales, minimums
        )
    )


def dequantize(layout: Layout, packed: Array, output: Array, threads: int = 0) -> None:
    """Turns a tensor of any type of weights into fp32 [rows, cols]."""
    check(
        _library().qe_dequantize(
            ctypes.byref(native_layout(layout)),
            packed,
            layout.nbytes,
            usable_threads(threads),
            output,
        )
    )


def measure_error(
    layout: Layout, packed: Array, source: Array, source_type: str, threads: int = 0
) -> QuantizationError:
    """What a tensor is off by from the floats that it stands for.

    Args:
        layout: of the tensor.
        packed: its bytes.
        source: [rows, cols] of ``source_type``: ``f32``, ``f16`` or ``bf16``.
        threads: 0 for all cores.

    Raises:
        DamagedModelError: a weight of the source is not finite.
    """
    sums = ErrorSums()
    check(
        _library().qe_measure_error(
            ctypes.byref(native_layout(layout)),
            packed,
            layout.nbytes,
            source,
            TYPE_CODES[source_type],
            usable_threads(threads),
            ctypes.byref(sums),
        )
    )
    return sums.total()


def random_tiles(
    layout: Layout, seed: int, first_tile: int, sigma: float, packed: Array, threads: int = 0
) -> None:
    """Fills whole tiles with random weights of mean 0 and about the deviation ``sigma``.

    The bytes depend on the seed and the tiles' numbers alone, ``first_tile`` for the first one.
    """
    check(
        _library().qe_random_tiles(
            ctypes.byref(native_layout(layout)),
            seed,
            first_tile,
            sigma,
            usable_threads(threads),
            packed,
            layout.nbytes,
        )
    )
