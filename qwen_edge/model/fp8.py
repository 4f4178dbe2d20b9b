"""Checkpoints in FP8 with scales by blocks, as Qwen publishes Qwen3-0.6B-FP8 and its like.

A matrix is F8_E4M3 [out, in] and ``weight_scale_inv``, F32 or BF16, a factor for each block of
128 x 128 weights (``weight_block_size`` in config.json): weight = FP8 value times factor. Source:
``quantization_config`` of those checkpoints and transformers' finegrained FP8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_edge.model.container import show
from qwen_edge.model.safetensors_reader import FLOAT_TYPES, StoredTensor
from qwen_edge.model.source import FloatRows, QuantizedTensor, UnusableError
from qwen_edge.model.source_rows import fp8_floats
from qwen_edge.quant.layout import WeightFormat, weight_format
from qwen_edge.quant.native_layout import TYPE_CODES

_LARGEST_BLOCK = 1 << 16


def quantized_tensors(
    settings: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, StoredTensor],
) -> Mapping[str, QuantizedTensor]:
    """The matrices of a checkpoint that are FP8.

    Args:
        settings: ``quantization_config`` of config.json.
        shapes: of all tensors of the model.
        stored: the tensors of the files.

    Raises:
        UnusableError: the blocks are not given, or a matrix lacks its factors.
    """
    return {
        name: Fp8Tensor(name, shape, _block(settings), stored)
        for name, shape in shapes.items()
        # A norm is none of the matrices, whatever the file says.
        if len(shape) == 2 and name in stored and stored[name].dtype == "F8_E4M3"
    }


def _block(settings: Mapping[str, Any]) -> tuple[int, int]:
    block = settings.get("weight_block_size")
    if (
        not isinstance(block, list)
        or len(block) != 2
        or not all(type(size) is int and 1 <= size <= _LARGEST_BLOCK for size in block)
    ):
        raise UnusableError(f"its weight_block_size is {show(block)}, not two sizes")
    return block[0], block[1]


class Fp8Tensor(QuantizedTensor):
    """FP8 values times the factors of their blocks.

    Args:
        name: the matrix's.
        shape: as config.json has it.
        block: rows and columns that share a factor.
        stored: the tensors of the files.

    Raises:
        UnusableError: the factors are missing or of another size.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        block: tuple[int, int],
        stored: Mapping[str, StoredTensor],
    ) -> None:
        self._codes, self._block = stored[name], block
        wanted = tuple(-(-size // part) for size, part in zip(shape, block, strict=True))
        scales = stored.get(f"{name}_scale_inv")
        if scales is None or scales.dtype not in ("F32", "BF16") or scales.shape != wanted:
            raise UnusableError(
                f"its tensor {name} has no factors for its {math.prod(wanted)} blocks"
            )
        if self._codes.shape != shape:
            raise UnusableError(f"its tensor {name} is {self._codes.shape}, not {shape}")
        self._scales = scales
        self.name, self.shape = name, shape
        self.parts: Sequence[str] = (self._codes.name, scales.name)
        self.nbytes = self._codes.nbytes + scales.nbytes

    @property
    def nearest(self) -> WeightFormat:
        return weight_format(8)

    def floats(self, begin: int, rows: int) -> FloatRows:
        values = fp8_floats(
            self._codes.address + begin * self.cols,
            begin,
            rows,
            self.cols,
            self._scales.address,
            TYPE_CODES[FLOAT_TYPES[self._scales.dtype]],
            self._block,
        )
        return FloatRows(values, "f32")

    def release(self, begin: int, rows: int) -> None:
        self._codes.release(begin * self.cols, (begin + rows) * self.cols)
