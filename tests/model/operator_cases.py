"""Weights, caches and plain float64 answers for tests of the torch operators.

What a cache holds is read here by isa.h's description, element by element, without the code under
test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qwen_edge.quant.layout import NF4, UINT4, Layout, WeightFormat, level_format, weight_format
from qwen_edge.quant.native_layout import native_layout
from tests.quant.conftest import Native

Doubles = npt.NDArray[np.float64]

LIMIT = 1e-5
"""Of the relative error where nothing is rounded but floats."""
KV_TYPES = {"f16": 0, "int8": 1, "int4": 2, "f32": 3}
UNEVEN = (-1.0, -0.69, -0.52, -0.39, -0.28, -0.18, -0.09, 0.0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56,
          0.72, 1.0)  # fmt: skip
# Every kind of layout, none of whose rows or columns are whole tiles or groups in each size.
FORMATS: dict[str, WeightFormat] = {
    "int4": weight_format(4, 32),
    "int4-64": weight_format(4, 64),
    "int4-128": weight_format(4, 128),
    "nf4 bytes": weight_format(4, 32, "nf4"),
    "levels": level_format(UNEVEN, 64),
    "minimums": WeightFormat("q4", 32, True, UINT4),
    "zero points": WeightFormat("q4", 128, True, UINT4, True),
    "nf4 with minimums": WeightFormat("q4", 64, True, NF4),
    "int8": weight_format(8, 32),
    "int8-128": weight_format(8, 128),
    "int8 minimums": WeightFormat("q8", 64, True, ()),
    "int8 zero points": WeightFormat("q8", 32, True, (), True),
    "f32": WeightFormat("f32", 0, False, ()),
    "f16": WeightFormat("f16", 0, False, ()),
    "bf16": WeightFormat("bf16", 0, False, ()),
}


@dataclass
class Weight:
    """A matrix as the operators take it, and as numbers."""

    layout: Layout
    tensor: Tensor
    exact: Doubles
    rounded: Doubles  # with the codebook's bytes in place of levels

    @property
    def layout_bytes(self) -> Tensor:
        """uint8 [1, size of the struct]."""
        return torch.tensor([list(bytes(native_layout(self.layout)))], dtype=torch.uint8)


def make_weight(form: WeightFormat, rows: int, cols: int, seed: int = 0) -> Weight:
    """Random weights of a format."""
    random = np.random.default_rng(seed)
    layout = form.layout(rows, cols)
    if not layout.packed:
        floats = torch.from_numpy(random.standard_normal((rows, cols)).astype(np.float32))
        dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[layout.type]
        tensor = floats.to(dtype)
        values = tensor.double().numpy()
        return Weight(layout, tensor, values, values)
    low, high = (0, 16) if layout.type == "q4" else (-128, 128)
    codes = random.integers(low, high, (rows, cols)).astype(np.int8)
    scales = (0.01 * random.standard_normal((rows, layout.groups))).astype(np.float16)
    spread = random.integers(low, high, scales.shape) if layout.has_zero else 0.1 * scales
    minimums = np.asarray(spread).astype(np.float16)
    data = Native.pack(layout, codes, scales, minimums).data
    tensor = torch.from_numpy(data).view(layout.tiles, layout.groups, layout.block_bytes)
    return Weight(layout, tensor, *_numbers(layout, data))


def layouts_of(*weights: Weight) -> Tensor:
    """Their layouts as an operator takes them."""
    return torch.cat([weight.layout_bytes for weight in weights])


def activations(n: int, cols: int) -> Tensor:
    """Random rows of different sizes."""
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, cols, generator=generator) * 10 ** torch.randn(n, 1, generator=generator)


def _numbers(layout: Layout, data: npt.NDArray[np.uint8]) -> tuple[Doubles, Doubles]:
    bare = replace(layout, levels=(), unit=0)
    return tuple(Native.dequantize(each, data).astype(np.float64) for each in (layout, bare))


def quantized(x: Doubles) -> Doubles:
    """Rows as INT8 in groups of 32 holds them."""
    cols = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-cols // 32) * 32), np.float32)
    padded[..., :cols] = x
    groups = padded.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = np.where(largest > 0, np.float32(127) / largest, np.float32(0))
    codes = np.rint(groups * inverse).astype(np.float64)
    return (codes * (largest / np.float32(127))).reshape(padded.shape)[..., :cols]


def relative_error(values: Any, truth: Any) -> float:
    """L2 norm of the difference over the L2 norm of the truth."""
    truth = np.asarray(truth, np.float64)
    return float(np.linalg.norm(np.asarray(values) - truth) / np.linalg.norm(truth))


# --- attention


def block_bytes(kv_type: str, head_dim: int) -> int:
    """Bytes of 16 positions."""
    return {"f16": 32 * head_dim, "int8": 16 * head_dim + 32, "int4": 9 * head_dim,
            "f32": 64 * head_dim}[kv_type]  # fmt: skip


def empty_cache(kv_type: str, sequences: int, kv_heads: int, blocks: int, head_dim: int) -> Tensor:
    """One in which nothing was stored."""
    shape = (sequences, kv_heads, 2, blocks, block_bytes(kv_type, head_dim))
    return torch.zeros(shape, dtype=torch.uint8)


def read_cache(kv_type: str, cache: Tensor, head_dim: int) -> Doubles:
    """What it holds: [sequences, kv_heads, 2, positions, head_dim]."""
    data = cache.numpy()
    out = np.zeros((*data.shape[:3], 16 * data.shape[3], head_dim))
    for index in np.ndindex(*data.shape[:4]):
        *head, is_value, block = index
        for slot in range(16):
            vector = _read_vector(kv_type, data[index], bool(is_value), slot, head_dim)
            out[(*head, is_value, 16 * block + slot)] = vector
    return out


def _read_vector(
    kv_type: str, block: npt.NDArray[np.uint8], is_value: bool, slot: int, head_dim: int
) -> Doubles:
    d = np.arange(head_dim)
    if kv_type in ("f16", "f32"):
        floats = block.view(np.float16 if kv_type == "f16" else np.float32)
        return floats[head_dim * slot + d if is_value else 16 * d + slot].astype(np.float64)
    if kv_type == "int8":
        scale = block[16 * head_dim :].view(np.float16)[slot]
        at = 4 * (head_dim * (slot // 4) + d) + slot % 4 if is_value else (
            64 * (d // 4) + 4 * slot + d % 4)  # fmt: skip
        return block[at].view(np.int8) * float(scale)
    group, k = d // 32, d % 32
    scale = block.reshape(-1, 288)[:, 256:].copy().view(np.float16)[group, slot].astype(np.float64)
    if is_value:
        byte = block[288 * group + 64 * (slot // 4) + 4 * (k % 16) + slot % 4]
        return (np.where(k >= 16, byte >> 4, byte & 15).astype(np.float64) - 8) * scale
    byte = block[288 * group + 64 * (k // 8) + 4 * slot + k % 4]
    return (np.where(k & 4, byte >> 4, byte & 15).astype(np.float64) - 8) * scale


@dataclass
class Rows:
    """Rows of an attention call."""

    query: Tensor
    key: Tensor
    value: Tensor
    sequences: Tensor
    positions: Tensor

    def some(self, index: Any) -> Rows:
        """A part of them."""
        return Rows(*(each[index] for each in vars(self).values()))


def make_rows(
    places: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, seed: int = 0
) -> Rows:
    """Random vectors for rows of these sequences and positions."""
    generator = torch.Generator().manual_seed(seed)
    n = len(places)

    def draw(count: int, size: float) -> Tensor:
        return size * torch.randn(n, count, head_dim, generator=generator)

    where = torch.tensor(places, dtype=torch.int64).reshape(n, 2)
    return Rows(draw(heads, 2), draw(kv_heads, 1), draw(kv_heads, 1),
                where[:, 0].contiguous(), where[:, 1].contiguous())  # fmt: skip


def plain_attention(rows: Rows, held: Doubles) -> Doubles:
    """The answer in float64 over what a cache holds: [n, heads * head_dim]."""
    query = rows.query.double().numpy()
    n, heads, head_dim = query.shape
    group = heads // held.shape[1]
    out = np.empty((n, heads, head_dim))
    for i, sequence, position in zip(
        range(n), rows.sequences.tolist(), rows.positions.tolist(), strict=True
    ):
        for h in range(heads):
            keys, values = held[sequence, h // group, :, : position + 1]
            scores = keys @ query[i, h] / math.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            out[i, h] = weights @ values / weights.sum()
    return out.reshape(n, -1)
