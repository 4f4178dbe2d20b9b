"""Rows of other programs' formats, decoded by the native library; native/source_rows.h says how."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from qwen_edge.native.library import check, load
from qwen_edge.quant.packing import usable_threads


class LevelBlocks(ctypes.Structure):
    """QeLevelBlocks of native/source_rows.h."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("nested_codes", ctypes.c_void_p),
        ("nested_map", ctypes.c_void_p),
        ("nested_scales", ctypes.c_void_p),
        ("nested_block", ctypes.c_int32),
        ("offset", ctypes.c_float),
        ("block", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("levels", ctypes.c_float * 16),
    )


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint64
    library.qe_level_floats.argtypes = [pointer, size, size, integer, pointer]
    library.qe_level_codes.argtypes = [
        pointer, size, size, integer, ctypes.c_float, pointer, pointer,
    ]  # fmt: skip
    library.qe_fp8_floats.argtypes = [
        pointer, size, size, integer, pointer, integer, integer, integer, integer, pointer,
    ]  # fmt: skip
    library.qe_int8_floats.argtypes = [pointer, pointer, size, integer, integer, pointer]
    library.qe_int8_scales.argtypes = [pointer, size, integer, pointer]
    return library


def float_rows(rows: int, cols: int) -> Any:
    """Room for rows of fp32."""
    return (ctypes.c_float * (rows * cols))()


def level_floats(source: LevelBlocks, begin: int, rows: int) -> Any:
    """Rows of blocks of levels as fp32 [rows, cols]."""
    output = float_rows(rows, source.cols)
    check(_library().qe_level_floats(ctypes.byref(source), begin, rows, usable_threads(), output))
    return output


def level_codes(
    source: LevelBlocks, begin: int, rows: int, group: int, divisor: float
) -> tuple[Any, Any]:
    """Codes [rows, cols] and the scales [rows, cols / group], divided, as fp16."""
    codes = (ctypes.c_ubyte * (rows * source.cols))()
    scales = (ctypes.c_uint16 * (rows * (source.cols // group)))()
    check(
        _library().qe_level_codes(ctypes.byref(source), begin, rows, group, divisor, codes, scales)
    )
    return codes, scales


def fp8_floats(
    codes: int,
    begin: int,
    rows: int,
    cols: int,
    scales: int,
    scale_type: int,
    block: tuple[int, int],
) -> Any:
    """Rows of FP8 E4M3 with scales by blocks as fp32 [rows, cols].

    ``codes`` is the address of the rows' codes, ``scales`` of all scales, of the type of
    ``TYPE_CODES``.
    """
    output = float_rows(rows, cols)
    check(
        _library().qe_fp8_floats(
            codes, begin, rows, cols, scales, scale_type, *block, usable_threads(), output
        )
    )
    return output


def int8_floats(codes: int, scales: int, rows: int, cols: int) -> Any:
    """Rows of LLM.int8 as fp32 [rows, cols]; addresses of the first row's codes and scale."""
    output = float_rows(rows, cols)
    check(_library().qe_int8_floats(codes, scales, rows, cols, usable_threads(), output))
    return output


def int8_scales(scales: int, rows: int, groups: int) -> Any:
    """The scales of that as fp16 [rows, groups]."""
    output = (ctypes.c_uint16 * (rows * groups))()
    check(_library().qe_int8_scales(scales, rows, groups, output))
    return output
