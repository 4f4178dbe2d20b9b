"""An independent description of the packed layout, in numpy."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from qwen_edge.quant.layout import Layout
from qwen_edge.quant.packing import dequantize, pack_codes, unpack_codes

Array = npt.NDArray[np.generic]


@dataclass
class Packed:
    """A packed tensor and what it is made of."""

    layout: Layout
    data: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]
    minimums: npt.NDArray[np.float16]

    def values(self) -> npt.NDArray[np.float32]:
        """The weights [rows, cols], by the formula of format.h."""
        spread = [np.repeat(a, self.layout.group, 1)[:, : self.layout.cols].astype(np.float32)
                  for a in (self.scales, self.minimums)]  # fmt: skip
        if self.layout.type == "q8":
            levels = self.codes.view(np.int8).astype(np.float32)
        elif self.layout.levels:
            levels = np.array(self.layout.levels, np.float32)[self.codes]
            spread[0] *= np.float32(self.layout.unit)
        else:
            levels = np.array(self.layout.codebook, np.float32)[self.codes]
        if self.layout.has_zero:
            return (levels - spread[1]) * spread[0]
        return levels * spread[0] + spread[1]

    def tiles(self, padding_code: int) -> npt.NDArray[np.uint8]:
        """The packed bytes, put together from the codes and scales."""
        layout = self.layout
        tiles, groups, group = layout.tiles, layout.groups, layout.group
        codes = np.full((tiles * 16, groups * group), padding_code, np.uint8)
        codes[: layout.rows, : layout.cols] = self.codes
        by_block = codes.reshape(tiles, 16, groups, group).transpose(0, 2, 3, 1)
        if layout.type == "q4":
            # [tile, group, chunk, nibble, column of four, row] to bytes [chunk, row, column].
            split = by_block.reshape(tiles, groups, group // 8, 2, 4, 16).transpose(
                0, 1, 2, 5, 4, 3
            )
            codes = split[..., 0] | split[..., 1] << 4
        else:
            codes = by_block.reshape(tiles, groups, group // 4, 4, 16).transpose(0, 1, 2, 4, 3)
        parts = [codes.reshape(tiles, groups, -1)]
        for each in [self.scales, self.minimums] if layout.has_min else [self.scales]:
            padded = np.zeros((tiles * 16, groups), np.float16)
            padded[: layout.rows] = each
            lanes = np.ascontiguousarray(padded.reshape(tiles, 16, groups).transpose(0, 2, 1))
            parts.append(lanes.view(np.uint8).reshape(tiles, groups, 32))
        return np.concatenate(parts, axis=2).reshape(-1)


@pytest.fixture(scope="session")
def native() -> type[Native]:
    """The library's functions over numpy arrays."""
    return Native


class Native:
    """Packing.py's functions over numpy arrays."""

    @staticmethod
    def pack(layout: Layout, codes: Array, scales: Array, minimums: Array) -> Packed:
        data = np.zeros(layout.nbytes, np.uint8)
        codes = np.ascontiguousarray(codes)
        pack_codes(
            layout, codes.ctypes.data, scales.ctypes.data, minimums.ctypes.data, data.ctypes.data
        )
        return Packed(layout, data, codes.view(np.uint8), scales, minimums)

    @staticmethod
    def unpack(layout: Layout, data: npt.NDArray[np.uint8]) -> Packed:
        codes = np.empty((layout.rows, layout.cols), np.uint8)
        scales = np.empty((layout.rows, layout.groups), np.float16)
        minimums = np.zeros_like(scales)
        unpack_codes(
            layout, data.ctypes.data, codes.ctypes.data, scales.ctypes.data, minimums.ctypes.data
        )
        return Packed(layout, data, codes, scales, minimums)

    @staticmethod
    def dequantize(
        layout: Layout, data: npt.NDArray[np.uint8], threads: int = 2
    ) -> npt.NDArray[np.float32]:
        # Guard values on both sides: a write outside would change them.
        output = np.full(layout.rows * layout.cols + 2, np.float32(7.5))
        target = output.ctypes.data + ctypes.sizeof(ctypes.c_float)
        dequantize(layout, data.ctypes.data, target, threads)
        assert output[0] == output[-1] == np.float32(7.5)
        return output[1:-1].reshape(layout.rows, layout.cols)
