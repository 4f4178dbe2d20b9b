"""Checkpoints that bitsandbytes quantized: NF4, FP4, both with nested scales too, and LLM.int8.

The layout is that of transformers' ``save_pretrained``. A 4-bit matrix is a tensor of two codes a
byte, with its 16 levels (``quant_map``), a scale for each block of weights (``absmax``) and a JSON
text (``quant_state``); nested scales are bytes with a map, scales and an offset of their own. An
8-bit one is a tensor of signed bytes with the largest magnitude of each row (``SCB``).
Sources: https://github.com/bitsandbytes-foundation/bitsandbytes; "QLoRA" and "LLM.int8()"
(Dettmers et al. 2023 and 2022).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_edge.model.container import ContainerError, parse_json, show
from qwen_edge.model.safetensors_reader import StoredTensor
from qwen_edge.model.source import CodeRows, FloatRows, QuantizedTensor, UnusableError
from qwen_edge.model.source_rows import (
    LevelBlocks,
    int8_floats,
    int8_scales,
    level_codes,
    level_floats,
)
from qwen_edge.quant.layout import GROUPS, WeightFormat, level_format, weight_format

_STATE = ".quant_state.bitsandbytes__"
_KINDS = ("nf4", "fp4")
_ROW_MAJOR = b"\0"
_STATE_LIMIT = 1 << 16
_LARGEST_BLOCK = 1 << 16
_LARGEST_OFFSET = 1e6


def quantized_tensors(
    settings: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, StoredTensor],
) -> Mapping[str, QuantizedTensor]:
    """The matrices of a checkpoint that bitsandbytes quantized.

    Args:
        settings: ``quantization_config`` of config.json; each tensor says what it is by itself.
        shapes: of all tensors of the model.
        stored: the tensors of the files.

    Raises:
        UnusableError: a matrix is incomplete or malformed.
    """
    found: dict[str, QuantizedTensor] = {}
    for name, shape in shapes.items():
        if len(shape) != 2:
            continue  # A norm is none of the matrices, whatever the file says.
        kind = next((kind for kind in _KINDS if name + _STATE + kind in stored), None)
        if kind is not None:
            found[name] = FourBitTensor(name, shape, kind, stored)
        elif name in stored and stored[name].dtype == "I8":
            found[name] = EightBitTensor(name, shape, stored)
    return found


def _part(stored: Mapping[str, StoredTensor], name: str, dtype: str, count: int) -> StoredTensor:
    """A stored tensor of so many elements."""
    tensor = stored.get(name)
    if tensor is None:
        raise UnusableError(f"it has no tensor {name}")
    if tensor.dtype != dtype or math.prod(tensor.shape) != count:
        raise UnusableError(
            f"its tensor {name} is {tensor.dtype} {tensor.shape}, not {count} times {dtype}"
        )
    return tensor


class _State:
    """A matrix's ``quant_state``.

    Attributes:
        shape: of the matrix.
        block: weights that share a scale.
        nested_block: scales that share a scale, or 0 if the scales are floats.
        offset: what is added to nested scales.
    """

    def __init__(self, stored: StoredTensor, kind: str) -> None:
        if stored.nbytes > _STATE_LIMIT:
            raise UnusableError(f"its tensor {stored.name} is too large")
        try:
            table = parse_json(ctypes.string_at(stored.address, stored.nbytes), stored.name)
        except ContainerError as error:
            raise UnusableError(str(error)) from None
        if not isinstance(table, dict) or table.get("quant_type") != kind:
            raise UnusableError(f"its tensor {stored.name} does not describe {kind}")
        self.shape = table.get("shape")
        self.block = self._size(stored.name, table, "blocksize")
        nested = "nested_blocksize" in table
        self.nested_block = self._size(stored.name, table, "nested_blocksize") if nested else 0
        offset = table.get("nested_offset", 0.0)
        if type(offset) not in (int, float) or not abs(offset) < _LARGEST_OFFSET:
            raise UnusableError(f"its tensor {stored.name} has the offset {show(offset)}")
        self.offset = float(offset)

    @staticmethod
    def _size(name: str, table: Mapping[str, Any], key: str) -> int:
        value = table.get(key)
        if type(value) is not int or not 1 <= value <= _LARGEST_BLOCK:
            raise UnusableError(f"its tensor {name} has the {key} {show(value)}")
        return value


class FourBitTensor(QuantizedTensor):
    """NF4 or FP4: levels times scales of blocks.

    Args:
        name: the matrix's.
        shape: as config.json has it.
        kind: ``nf4`` or ``fp4``.
        stored: the tensors of the files.

    Raises:
        UnusableError: a part is missing or malformed.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], kind: str, stored: Mapping[str, StoredTensor]
    ) -> None:
        described = stored[name + _STATE + kind]
        state = _State(described, kind)
        if state.shape != list(shape):
            found = f"its tensor {name} is {show(state.shape)}"
            raise UnusableError(f"{found}, its config.json says {list(shape)}")
        count = math.prod(shape)
        codes = stored.get(name)
        if codes is None or codes.nbytes != -(-count // 2):
            raise UnusableError(f"its tensor {name} does not hold {count} codes")
        levels = _part(stored, f"{name}.quant_map", "F32", 16)
        self.name, self.shape = name, shape
        self._codes, self._block = codes, state.block
        self._source = LevelBlocks(
            codes=codes.address,
            block=state.block,
            nested_block=state.nested_block,
            offset=state.offset,
            cols=shape[1],
        )
        ctypes.memmove(self._source.levels, levels.address, levels.nbytes)
        if not all(abs(level) <= 1 for level in self._source.levels):
            raise UnusableError(f"its tensor {levels.name} has a level that is not from -1 to 1")
        self._held, self._nearest = self._formats()
        parts = [codes, levels, described, *self._scales(state, -(-count // state.block), stored)]
        self.parts: Sequence[str] = tuple(part.name for part in parts)
        self.nbytes = sum(part.nbytes for part in parts)

    def _scales(
        self, state: _State, blocks: int, stored: Mapping[str, StoredTensor]
    ) -> list[StoredTensor]:
        if not state.nested_block:
            scales = _part(stored, f"{self.name}.absmax", "F32", blocks)
            self._source.scales = scales.address
            return [scales]
        codes = _part(stored, f"{self.name}.absmax", "U8", blocks)
        mapped = _part(stored, f"{self.name}.nested_quant_map", "F32", 256)
        count = -(-blocks // state.nested_block)
        nested = _part(stored, f"{self.name}.nested_absmax", "F32", count)
        self._source.nested_codes = codes.address
        self._source.nested_map = mapped.address
        self._source.nested_scales = nested.address
        return [codes, mapped, nested]

    def _formats(self) -> tuple[WeightFormat | None, WeightFormat]:
        # Groups of ours lie within a row, and within a block if all its weights shall be exact.
        whole = math.gcd(self.cols, self._block)
        group = next((g for g in sorted(GROUPS, reverse=True) if whole % g == 0), None)
        form = level_format(tuple(self._source.levels), group or min(GROUPS))
        return form if group else None, form

    @property
    def held(self) -> WeightFormat | None:
        return self._held

    @property
    def nearest(self) -> WeightFormat:
        return self._nearest

    def floats(self, begin: int, rows: int) -> FloatRows:
        return FloatRows(level_floats(self._source, begin, rows), "f32")

    def codes(self, begin: int, rows: int) -> CodeRows:
        held = self.held
        assert held is not None
        return CodeRows(*level_codes(self._source, begin, rows, held.group, held.unit))

    def release(self, begin: int, rows: int) -> None:
        self._codes.release(begin * self.cols // 2, (begin + rows) * self.cols // 2)


class EightBitTensor(QuantizedTensor):
    """LLM.int8: signed bytes and the largest magnitude of each row; raises like the other one."""

    def __init__(
        self, name: str, shape: tuple[int, ...], stored: Mapping[str, StoredTensor]
    ) -> None:
        prefix = name.removesuffix("weight")
        self._codes = _part(stored, name, "I8", math.prod(shape))
        self._scales = _part(stored, f"{prefix}SCB", "F32", shape[0])
        parts = [self._codes, self._scales]
        if f"{prefix}weight_format" in stored:
            order = _part(stored, f"{prefix}weight_format", "U8", 1)
            if ctypes.string_at(order.address, 1) != _ROW_MAJOR:
                raise UnusableError(f"its tensor {name} is not stored row by row")
            parts.append(order)
        if self._codes.shape != shape:
            raise UnusableError(f"its tensor {name} is {self._codes.shape}, not {shape}")
        self.name, self.shape = name, shape
        self.parts: Sequence[str] = tuple(part.name for part in parts)
        self.nbytes = sum(part.nbytes for part in parts)

    @property
    def held(self) -> WeightFormat:
        group = next((group for group in sorted(GROUPS, reverse=True) if not self.cols % group), 32)
        return weight_format(8, group)

    def floats(self, begin: int, rows: int) -> FloatRows:
        codes = self._codes.address + begin * self.cols
        scales = self._scales.address + begin * 4
        return FloatRows(int8_floats(codes, scales, rows, self.cols), "f32")

    def codes(self, begin: int, rows: int) -> CodeRows:
        groups = self.held.layout(rows, self.cols).groups
        scales = int8_scales(self._scales.address + begin * 4, rows, groups)
        return CodeRows(self._codes.address + begin * self.cols, scales)

    def release(self, begin: int, rows: int) -> None:
        self._codes.release(begin * self.cols, (begin + rows) * self.cols)
