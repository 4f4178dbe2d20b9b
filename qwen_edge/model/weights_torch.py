"""Stored weights to floats in plain torch: the layouts of native/format.h, some tiles at a time."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from qwen_edge.quant.layout import TILE_ROWS, Layout
from qwen_edge.quant.native_layout import TYPE_CODES, NativeLayout

_TYPES = {code: name for name, code in TYPE_CODES.items()}
_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# How many weights are floats at a time: 1 MB of them, which caches hold and allocators keep; with
# 4 MB a token takes three times as long.
_MOST_WEIGHTS = 1 << 18


@dataclass(frozen=True)
class Stored:
    """How a matrix of weights is stored.

    Attributes:
        layout: without its levels.
        exact: what the codes of ``q4`` stand for, f32 [16].
        rounded: likewise as kernels with INT8 activations take it, signed bytes for the levels.
        unit: what scales are to be multiplied by where ``exact`` is taken.
    """

    layout: Layout
    exact: Tensor
    rounded: Tensor
    unit: float

    @property
    def step(self) -> int:
        """Rows to be made floats at a time: whole tiles."""
        layout = self.layout
        width = layout.groups * layout.group if layout.packed else layout.cols
        return max(1, _MOST_WEIGHTS // (width * TILE_ROWS)) * TILE_ROWS

    def check(self, weight: Tensor) -> None:
        """Raises ValueError unless the tensor is stored like this."""
        layout = self.layout
        shape: tuple[int, ...] = (layout.rows, layout.cols)
        if layout.packed:
            shape = (layout.tiles, layout.groups, layout.block_bytes)
        dtype = _DTYPES.get(layout.type, torch.uint8)
        if tuple(weight.shape) != shape or weight.dtype != dtype:
            raise ValueError(
                f"weights of {weight.dtype} {list(weight.shape)} do not fit their layout, "
                f"which says {dtype} {list(shape)}"
            )

    def rows(self, weight: Tensor, begin: int, end: int, exact: bool = True) -> Tensor:
        """Some of the weights as floats.

        Args:
            weight: the tensor; it has been checked.
            begin: the first row; a multiple of 16.
            end: the last row's successor.
            exact: otherwise levels are rounded to the codebook's bytes.

        Returns:
            f32 [end - begin, cols].
        """
        if not self.layout.packed:
            return weight[begin:end].float()
        tiles = weight[begin // TILE_ROWS : -(-end // TILE_ROWS)]
        return self._tiles(tiles, exact).flatten(0, 1)[: end - begin]

    def listed_rows(self, weight: Tensor, ids: Tensor) -> Tensor:
        """The rows of some numbers, exactly: f32 [len(ids), cols]."""
        if not self.layout.packed:
            return weight[ids].float()
        out = torch.empty((len(ids), self.layout.cols))
        step = self.step // TILE_ROWS
        for some, row in zip(ids.split(step), out.split(step), strict=True):
            tiles = self._tiles(weight[some // TILE_ROWS], exact=True)
            row.copy_(tiles[torch.arange(len(some)), some % TILE_ROWS])
        return out

    def _tiles(self, tiles: Tensor, exact: bool) -> Tensor:
        """Whole tiles [tiles, groups, block bytes] as floats [tiles, 16, cols]."""
        layout = self.layout
        count, groups, group = len(tiles), layout.groups, layout.group
        code_bytes = TILE_ROWS * group * layout.bits // 8
        codes = tiles[..., :code_bytes]
        # Bytes are put in order while they are bytes: that is a copy of few of them.
        if layout.type == "q4":
            pairs = codes.unflatten(2, (group // 8, TILE_ROWS, 4)).permute(0, 3, 1, 2, 4)
            pairs = pairs.contiguous()
            numbers = torch.stack([pairs & 15, pairs >> 4], 4).flatten().int()
            values = (self.exact if exact else self.rounded).index_select(0, numbers)
        else:
            numbers = codes.view(torch.int8).unflatten(2, (group // 4, TILE_ROWS, 4))
            values = numbers.permute(0, 3, 1, 2, 4).contiguous().float()
        values = values.view(count, TILE_ROWS, groups, group)
        halves = tiles[..., code_bytes:].contiguous().view(torch.float16).float()
        halves = halves.transpose(1, 2)[..., None]
        scale, minimum = halves[:, :TILE_ROWS], halves[:, TILE_ROWS:]
        if exact and self.unit:
            scale = scale * self.unit
        if layout.has_zero:
            values = (values - minimum).mul_(scale)
        else:
            values = values.mul_(scale)
            if layout.has_min:
                values = values.add_(minimum)
        return values.flatten(2)[..., : layout.cols]


@lru_cache(maxsize=1024)
def stored(layout: bytes) -> Stored:
    """What the bytes of a NativeLayout say.

    Raises:
        ValueError: they are no layout.
    """
    if len(layout) != ctypes.sizeof(NativeLayout):
        raise ValueError(f"a layout has {ctypes.sizeof(NativeLayout)} bytes, not {len(layout)}")
    native = NativeLayout.from_buffer_copy(layout)
    kind = _TYPES.get(native.type, "unknown")
    codebook = list(native.codebook)
    try:
        plain = Layout(
            kind, native.rows, native.cols, native.group, native.has_min != 0,
            tuple(codebook) if kind == "q4" else (), native.has_zero != 0,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"a layout of weights is not sound: {error}") from None
    rounded = torch.tensor(codebook, dtype=torch.float32)
    exact = torch.tensor(list(native.levels)) if native.unit else rounded
    return Stored(plain, exact, rounded, native.unit)
