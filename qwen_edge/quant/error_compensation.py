"""Rounding column by column, each column to what makes up for the errors of those before it.

The columns' errors are weighed by how the inputs of the calibration text go together, so that the
outputs change least: the procedure of "GPTQ" (Frantar et al. 2022, arXiv:2210.17323) in the form
that "QuIP" (Chee et al. 2023, arXiv:2307.13304) calls LDLQ. Each group's scale is searched when its
turn comes, for the weights as they are by then. native/hessian.h has the formulas.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

from qwen_edge.native.library import check, load
from qwen_edge.quant.layer_rows import Floats, floats
from qwen_edge.quant.packing import Array, usable_threads

METHOD = "errors compensated column by column"
DAMPING = 0.1
"""Of the mean square of the inputs, added to each: it keeps the rounding close to the weights
where the calibration text says little."""


@dataclass(frozen=True)
class Factors:
    """What ``round_to_nearest.quantize`` takes to compensate errors, for matrices of some inputs.

    Attributes:
        panels: how errors are handed on, as native/hessian.h lays it out.
        pivots: [cols], what a column's error costs once all before it are fixed.
    """

    panels: Floats
    pivots: Floats


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.qe_add_moments.argtypes = [pointer, ctypes.c_int64, integer, integer, pointer]
    library.qe_panel_floats.argtypes = [integer]
    library.qe_panel_floats.restype = ctypes.c_uint64
    library.qe_factorize.argtypes = [pointer, integer, ctypes.c_float, integer, pointer, pointer]
    return library


def add_moments(rows: Array, n: int, cols: int, moments: Array, threads: int = 0) -> None:
    """Adds X^T X of ``rows`` X [n, cols] to ``moments`` [cols, cols], on and above the diagonal."""
    check(_library().qe_add_moments(rows, n, cols, usable_threads(threads), moments))


def factorize(moments: Array, cols: int, damping: float = DAMPING, threads: int = 0) -> Factors:
    """The factors of what ``add_moments`` summed up, which is overwritten.

    Raises:
        DamagedModelError: the moments are not finite.
    """
    library = _library()
    factors = Factors(floats(library.qe_panel_floats(cols)), floats(cols))
    check(
        library.qe_factorize(
            moments,
            cols,
            damping,
            usable_threads(threads),
            factors.panels,
            factors.pivots,
        )
    )
    return factors
