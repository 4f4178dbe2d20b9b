"""Rows of a model file's tensors, some whole tiles at a time: what exports read."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

from qwen_edge.model.config import ORDERED
from qwen_edge.model.packed import PackedModel, TensorInfo
from qwen_edge.quant.gguf_blocks import restore_columns
from qwen_edge.quant.layout import TILE_ROWS, Layout
from qwen_edge.quant.packing import Array, dequantize, unpack_codes

# fp32 in memory at a time.
_SLICE_BYTES = 16 << 20


class PackedRows(NamedTuple):
    """Some rows of a tensor as they lie in the file.

    Attributes:
        layout: of these rows.
        address: of their first byte.
        order: address of the columns' order, int32, if they are not in their own.
    """

    layout: Layout
    address: int
    order: int | None = None

    def floats(self, threads: int = 0) -> Array:
        """fp32 [rows, cols], columns in their own order."""
        rows, cols = self.layout.rows, self.layout.cols
        values = (ctypes.c_float * (rows * cols))()
        dequantize(self.layout, self.address, values, threads)
        if self.order is None:
            return values
        restored = (ctypes.c_float * (rows * cols))()
        restore_columns(values, self.order, rows, cols, restored, threads)
        return restored

    def codes(self) -> tuple[Array, Array, Array | None]:
        """Codes, scales and minimums, as ``pack_codes`` takes them."""
        layout = self.layout
        codes = (ctypes.c_uint8 * (layout.rows * layout.cols))()
        scales = (ctypes.c_uint16 * (layout.rows * layout.groups))()
        minimums = (ctypes.c_uint16 * len(scales))() if layout.has_min else None
        unpack_codes(layout, self.address, codes, scales, minimums)
        return codes, scales, minimums


def slices(model: PackedModel, info: TensorInfo) -> Iterator[PackedRows]:
    """The rows of a tensor, in slices of whole tiles; the pages behind are given back."""
    layout, address = info.layout, model.address(info.name)
    order_name = column_order(model, info.name)
    order = None if order_name is None else model.address(order_name)
    step = max(_SLICE_BYTES // (4 * layout.cols) // TILE_ROWS, 1) * TILE_ROWS
    tile_bytes = layout.nbytes // layout.tiles if layout.packed else TILE_ROWS * _row_bytes(layout)
    for begin in range(0, layout.rows, step):
        part = layout.with_rows(min(step, layout.rows - begin))
        offset = begin // TILE_ROWS * tile_bytes
        yield PackedRows(part, address + offset, order)
        model.release(info.offset + offset, part.nbytes)


def column_order(model: PackedModel, name: str) -> str | None:
    """The tensor with the order of a matrix's columns, if they are not in their own."""
    for inputs, parts in ORDERED.items():
        for part in parts:
            order = name.removesuffix(f"{part}.weight") + f"{inputs}.order"
            if name.endswith(f".{part}.weight") and order in model.tensors:
                return order
    return None


def _row_bytes(layout: Layout) -> int:
    return layout.nbytes // layout.rows
