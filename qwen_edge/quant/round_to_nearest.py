"""Round to nearest with searched scales: each group by itself, no calibration data.

The scale of a group is the one with the least squared error over a set of candidates, refined by
least squares in fp16; native/scale_search.h says how.
"""

from __future__ import annotations

import ctypes
from functools import cache

from qwen_edge.native.library import check, load
from qwen_edge.quant.error import ErrorSums, QuantizationError
from qwen_edge.quant.layout import Layout
from qwen_edge.quant.native_layout import TYPE_CODES, native_layout
from qwen_edge.quant.packing import Array, usable_threads

METHOD = "round to nearest, searched scales"


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.qe_quantize.argtypes = [
        pointer, pointer, integer, pointer, pointer, integer, integer, pointer, ctypes.c_uint64,
        pointer,
    ]  # fmt: skip
    return library


def quantize(
    layout: Layout,
    source: Array,
    source_type: str,
    packed: Array,
    *,
    importance: Array | None = None,
    panels: Array | None = None,
    search: bool = True,
    threads: int = 0,
) -> QuantizationError:
    """Quantizes a row-major matrix; a dense layout rounds to nearest. Same bytes on every machine.

    Args:
        layout: of the result.
        source: [rows, cols] of ``source_type``, any alignment.
        source_type: ``f32``, ``f16`` or ``bf16``.
        packed: receives ``layout.nbytes`` bytes.
        importance: [cols] fp32, not negative: weight of each column's squared error.
        panels: those of ``error_compensation.Factors``, whose matrix has as many columns.
        search: False takes the scale from the largest weight, to compare with.
        threads: 0 for all cores.

    Raises:
        DamagedModelError: a weight is not finite, or too large for an fp16 scale.
    """
    sums = ErrorSums()
    check(
        _library().qe_quantize(
            ctypes.byref(native_layout(layout)),
            source,
            TYPE_CODES[source_type],
            importance,
            panels,
            int(search),
            usable_threads(threads),
            packed,
            layout.nbytes,
            ctypes.byref(sums),
        )
    )
    return sums.total()
