"""Rounding that minds how large each input is: the scale search weighs a column's error by the
mean square of what comes in there.

The measure is that of "AWQ" (Lin et al. 2023, arXiv:2306.00978) and of llama.cpp's importance
matrices; here it guides the search for the scales, and no weight is rescaled.
"""

from __future__ import annotations

import ctypes
from functools import cache

from qwen_edge.native.library import check, load
from qwen_edge.quant.packing import Array

METHOD = "scales searched by the size of the inputs"


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer = ctypes.c_void_p
    library.qe_add_squares.argtypes = [pointer, ctypes.c_int64, ctypes.c_int32, pointer]
    return library


def add_squares(rows: Array, n: int, cols: int, squares: Array) -> None:
    """Adds the squares of ``rows`` [n, cols] to ``squares`` [cols]: the importance of columns."""
    check(_library().qe_add_squares(rows, n, cols, squares))
