"""A source with LoRA adapters merged into its weights, as far as they are read: row by row."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from qwen_edge.model.adapter import Adapter, Module
from qwen_edge.model.safetensors_reader import FLOAT_TYPES, StoredTensor
from qwen_edge.model.source import FloatRows, Source, SourceTensor
from qwen_edge.native.library import check, load
from qwen_edge.quant.layout import WeightFormat
from qwen_edge.quant.native_layout import TYPE_CODES
from qwen_edge.quant.packing import usable_threads


class Update(NamedTuple):
    """What is added to a matrix: scale * B A of a module."""

    module: Module
    scale: float


class MergedTensor(SourceTensor):
    """A matrix of a source with updates added to it, in fp32.

    Args:
        base: the matrix; no format of codes holds it any more.
        updates: what is added, one after the other.
        threads: 0 for all cores.
    """

    def __init__(self, base: SourceTensor, updates: Sequence[Update], threads: int = 0) -> None:
        self.name, self.shape = base.name, base.shape
        self.nbytes = base.nbytes
        self._base, self._updates, self._threads = base, updates, usable_threads(threads)

    @property
    def held(self) -> None:
        return None

    @property
    def nearest(self) -> WeightFormat | None:
        return self._base.nearest

    @property
    def order(self) -> bytes | None:
        return self._base.order

    @property
    def row_bytes(self) -> int:
        return max(self._base.row_bytes, 4 * self.cols)

    def floats(self, begin: int, rows: int) -> FloatRows:
        source = self._base.floats(begin, rows)
        merged = (ctypes.c_float * (rows * self.cols))()
        count = ctypes.c_int64(rows * self.cols)
        check(_library().qe_to_floats(source.data, TYPE_CODES[source.type], count, merged))
        for module, scale in self._updates:
            a, b = module.a, module.b
            row_bytes = b.nbytes // b.shape[0]
            check(
                _library().qe_add_low_rank(
                    merged, rows, self.cols, module.rank, a.address, _type(a),
                    b.address + begin * row_bytes, _type(b), scale, self.order, self._threads,
                )
            )  # fmt: skip
        return FloatRows(merged, "f32")

    def release(self, begin: int, rows: int) -> None:
        self._base.release(begin, rows)
        for module, _ in self._updates:
            if begin + rows >= self.rows:
                module.a.release(0, module.a.nbytes)
                module.b.release(0, module.b.nbytes)


def _type(tensor: StoredTensor) -> int:
    return TYPE_CODES[FLOAT_TYPES[tensor.dtype]]


def merged(source: Source, adapters: Sequence[tuple[Adapter, float]], threads: int = 0) -> Source:
    """A view of a source that has adapters merged in, in their order.

    Args:
        source: stays open as long as the view is used, and so do the adapters.
        adapters: each with a factor for its scale.
        threads: 0 for all cores.

    Raises:
        DamagedModelError: a weight of an adapter is not finite.
    """
    updates: dict[str, list[Update]] = {}
    for adapter, factor in adapters:
        adapter.check_finite()
        for module in adapter.modules:
            update = Update(module, module.scale * factor)
            updates.setdefault(module.weight, []).append(update)
    tensors = {
        name: MergedTensor(tensor, updates[name], threads) if name in updates else tensor
        for name, tensor in source.tensors.items()
    }
    return replace(source, tensors=tensors)


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.qe_to_floats.argtypes = [pointer, integer, size, pointer]
    library.qe_add_low_rank.argtypes = [
        pointer, size, size, size, pointer, integer, pointer, integer, ctypes.c_float,
        pointer, integer,
    ]  # fmt: skip
    return library
