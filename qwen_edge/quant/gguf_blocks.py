"""The block types of GGUF: sizes, what of ours holds them, and the native conversions."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from qwen_edge.native.library import check, load
from qwen_edge.quant.layout import FP4, INT4, IQ4_NL, UINT4, WeightFormat
from qwen_edge.quant.packing import Array, usable_threads

_Q8 = WeightFormat("q8", 32, False, ())
_Q4 = WeightFormat("q4", 32, False, INT4)
_IQ4 = WeightFormat("q4", 32, False, IQ4_NL)
_Q4_MIN = WeightFormat("q4", 32, True, UINT4)
_Q8_MIN = WeightFormat("q8", 32, True, ())


class BlockType(NamedTuple):
    """A type of blocks.

    Attributes:
        name: ggml's.
        number: ggml's.
        width: weights of a block; rows are made of whole ones.
        nbytes: of a block.
        held: our format with the same codes; its scales are fp16, too, or are rounded to it.
        instead: our format to go to where nothing is asked for, if it is not that one: there is
            none, or it has many more bits.
    """

    name: str
    number: int
    width: int
    nbytes: int
    held: WeightFormat | None = None
    instead: WeightFormat | None = None

    @property
    def nearest(self) -> WeightFormat | None:
        """Our format to go to where nothing is asked for; None for floats."""
        return self.instead or self.held

    @property
    def bits(self) -> float:
        """Bits of a weight."""
        return 8 * self.nbytes / self.width

    def tensor_bytes(self, rows: int, cols: int) -> int:
        """Bytes of a matrix; ``cols`` is a multiple of ``width``."""
        return rows * (cols // self.width) * self.nbytes


BLOCK_TYPES: Mapping[int, BlockType] = {
    block.number: block
    for block in (
        BlockType("F32", 0, 1, 4),
        BlockType("F16", 1, 1, 2),
        BlockType("BF16", 30, 1, 2),
        BlockType("Q4_0", 2, 32, 18, _Q4),
        BlockType("Q4_1", 3, 32, 20, _Q4_MIN),
        BlockType("Q5_0", 6, 32, 22, _Q8),
        BlockType("Q5_1", 7, 32, 24, _Q8_MIN),
        BlockType("Q8_0", 8, 32, 34, _Q8),
        BlockType("Q2_K", 10, 256, 84, None, _IQ4),
        BlockType("Q3_K", 11, 256, 110, _Q8, _Q4),
        BlockType("Q4_K", 12, 256, 144, _Q4_MIN),
        BlockType("Q5_K", 13, 256, 176, _Q8_MIN),
        BlockType("Q6_K", 14, 256, 210, None, _Q8),
        BlockType("IQ4_NL", 20, 32, 18, _IQ4),
        BlockType("IQ4_XS", 23, 256, 136, _IQ4),
        BlockType("MXFP4", 39, 32, 17, WeightFormat("q4", 32, False, FP4)),
    )
}
"""By ggml's number, those that are read."""

BY_NAME: Mapping[str, BlockType] = {block.name: block for block in BLOCK_TYPES.values()}

UNREAD_TYPES: Mapping[int, str] = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""ggml's names of the others."""


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    size = ctypes.c_uint64
    library.qe_gguf_to_floats.argtypes = [integer, pointer, size, long, long, integer, pointer]
    library.qe_gguf_to_codes.argtypes = [
        integer, pointer, size, long, long, integer, pointer, pointer, pointer,
    ]  # fmt: skip
    library.qe_gguf_from_codes.argtypes = [
        integer, pointer, pointer, pointer, long, long, long, integer, integer, pointer, size,
    ]  # fmt: skip
    library.qe_restore_columns.argtypes = [pointer, pointer, long, long, integer, pointer]
    return library


def to_floats(
    block: BlockType, source: Array, rows: int, cols: int, output: Array, threads: int = 0
) -> None:
    """Turns blocks into fp32 [rows, cols], bit for bit what ggml's reference makes of them.

    Args:
        block: their type.
        source: ``block.tensor_bytes(rows, cols)`` bytes, any alignment.
        rows: at least 1.
        cols: a multiple of ``block.width``.
        output: [rows, cols] fp32.
        threads: 0 for all cores.
    """
    check(
        _library().qe_gguf_to_floats(
            block.number,
            source,
            block.tensor_bytes(rows, cols),
            rows,
            cols,
            usable_threads(threads),
            output,
        )
    )


def to_codes(
    block: BlockType,
    source: Array,
    rows: int,
    cols: int,
    codes: Array,
    scales: Array,
    minimums: Array | None,
    threads: int = 0,
) -> None:
    """Takes blocks apart into what ``pack_codes`` takes in the format ``block.held``.

    Args:
        block: their type.
        source: ``block.tensor_bytes(rows, cols)`` bytes, any alignment.
        rows: at least 1.
        cols: a multiple of ``block.width``.
        codes: receives [rows, cols], a byte each.
        scales: receives [rows, cols / 32] fp16.
        minimums: likewise where the format has minimums.
        threads: 0 for all cores.

    Raises:
        DamagedModelError: a scale is not finite.
    """
    check(
        _library().qe_gguf_to_codes(
            block.number,
            source,
            block.tensor_bytes(rows, cols),
            rows,
            cols,
            usable_threads(threads),
            codes,
            scales,
            minimums,
        )
    )


def from_codes(
    block: BlockType,
    codes: Array,
    scales: Array,
    minimums: Array | None,
    rows: int,
    cols: int,
    group: int,
    output: Array,
    threads: int = 0,
    *,
    zeros: bool = False,
) -> None:
    """Makes blocks of Q4_0, Q4_1, IQ4_NL, MXFP4 or Q8_0 of codes, as they are.

    Args:
        block: the type to make.
        codes: [rows, cols], a byte each.
        scales: [rows, groups] fp16, of groups of ``group`` columns.
        minimums: likewise for Q4_1.
        rows: at least 1.
        cols: a multiple of 32.
        group: 32, 64 or 128.
        output: receives ``block.tensor_bytes(rows, cols)`` bytes.
        threads: 0 for all cores.
        zeros: whether the minimums are zero points; multiplied, they are rounded to fp16.

    Raises:
        UsageError: a scale for MXFP4 is neither a power of two nor zero.
    """
    check(
        _library().qe_gguf_from_codes(
            block.number,
            codes,
            scales,
            minimums,
            rows,
            cols,
            group,
            int(zeros),
            usable_threads(threads),
            output,
            block.tensor_bytes(rows, cols),
        )
    )


def restore_columns(
    values: Array, order: Array, rows: int, cols: int, output: Array, threads: int = 0
) -> None:
    """Puts the columns of a matrix that was stored in another order back into their own.

    Args:
        values: [rows, cols] fp32.
        order: [cols] int32, which column is at each place.
        rows: at least 1.
        cols: likewise.
        output: receives [rows, cols] fp32.
        threads: 0 for all cores.

    Raises:
        DamagedModelError: the order is not a permutation.
    """
    check(_library().qe_restore_columns(values, order, rows, cols, usable_threads(threads), output))
