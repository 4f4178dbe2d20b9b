"""A tensor's layout as the native library takes it."""

from __future__ import annotations

import ctypes

from qwen_edge.quant.layout import Layout

TYPE_CODES = {"f32": 0, "f16": 1, "bf16": 2, "q8": 3, "q4": 4}


class NativeLayout(ctypes.Structure):
    """QeLayout of native/packing.h."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("has_min", ctypes.c_int32),
        ("has_zero", ctypes.c_int32),
        ("codebook", ctypes.c_int8 * 16),
        ("levels", ctypes.c_float * 16),
        ("unit", ctypes.c_float),
    )


def native_layout(layout: Layout) -> NativeLayout:
    """The struct that the native functions take."""
    return NativeLayout(
        TYPE_CODES[layout.type],
        layout.rows,
        layout.cols,
        layout.group,
        int(layout.has_min),
        int(layout.has_zero),
        (ctypes.c_int8 * 16)(*layout.codebook),
        (ctypes.c_float * 16)(*layout.levels),
        layout.unit,
    )
