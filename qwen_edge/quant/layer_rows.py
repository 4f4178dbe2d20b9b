"""The steps of a decoder layer over many rows in fp32, by the native library.

Arrays are row-major fp32, passed as in ``packing``; the caller answers for their sizes.
"""

from __future__ import annotations

import ctypes
from functools import cache

from qwen_edge.native.library import check, load
from qwen_edge.quant.layout import Layout
from qwen_edge.quant.native_layout import native_layout
from qwen_edge.quant.packing import Array, usable_threads

Floats = ctypes.Array[ctypes.c_float]


class AttentionShape(ctypes.Structure):
    """QeAttentionShape of native/layer_rows.h; ``length`` is rows of a sequence."""

    _fields_ = (
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("length", ctypes.c_int32),
        ("rms_eps", ctypes.c_float),
        ("rope_theta", ctypes.c_float),
    )


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer, count = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.qe_rows_norm.argtypes = [
        pointer, pointer, count, integer, ctypes.c_float, integer, pointer,
    ]  # fmt: skip
    library.qe_rows_linear.argtypes = [
        pointer, pointer, ctypes.c_uint64, pointer, count, integer, integer, pointer,
    ]  # fmt: skip
    library.qe_rows_attention.argtypes = [
        pointer, count, pointer, pointer, pointer, pointer, pointer, integer, pointer,
    ]  # fmt: skip
    library.qe_rows_silu.argtypes = [pointer, pointer, count, integer, integer, pointer]
    return library


def floats(count: int) -> Floats:
    """An array of zeros."""
    return (ctypes.c_float * count)()


def norm(
    rows: Array, weight: Array, n: int, cols: int, eps: float, out: Array, threads: int = 0
) -> None:
    """``out`` [n, cols] = each row over its root mean square, times ``weight`` [cols]."""
    check(_library().qe_rows_norm(rows, weight, n, cols, eps, usable_threads(threads), out))


def linear(
    layout: Layout,
    matrix: Array,
    rows: Array,
    n: int,
    out: Array,
    *,
    add: bool = False,
    threads: int = 0,
) -> None:
    """``out`` [n, layout.rows] = ``rows`` [n, layout.cols] by a matrix of any type.

    With ``add`` the product comes on top of what is there.
    """
    check(
        _library().qe_rows_linear(
            ctypes.byref(native_layout(layout)),
            matrix,
            layout.nbytes,
            rows,
            n,
            int(add),
            usable_threads(threads),
            out,
        )
    )


def attention(
    shape: AttentionShape,
    n: int,
    query: Array,
    key: Array,
    value: Array,
    query_norm: Array,
    key_norm: Array,
    out: Array,
    threads: int = 0,
) -> None:
    """Causal attention, each sequence for itself; ``query`` and ``key`` are changed in place.

    Args:
        shape: of the heads and sequences.
        n: rows.
        query: [n, heads * head_dim] as projected; ``key`` and ``value`` [n, kv_heads * head_dim].
        query_norm: [head_dim], as ``key_norm``.
        out: as ``query``.
        threads: 0 for all cores.
    """
    check(
        _library().qe_rows_attention(
            ctypes.byref(shape),
            n,
            query,
            key,
            value,
            query_norm,
            key_norm,
            usable_threads(threads),
            out,
        )
    )


def silu(gate: Array, up: Array, n: int, cols: int, out: Array, threads: int = 0) -> None:
    """``out`` = silu(``gate``) times ``up``, each [n, cols]; ``out`` may be ``gate``."""
    check(_library().qe_rows_silu(gate, up, n, cols, usable_threads(threads), out))
