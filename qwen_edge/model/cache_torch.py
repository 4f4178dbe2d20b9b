"""The KV cache's blocks in plain torch: the very bytes that native/isa/isa.h describes.

A cache is uint8 [sequences, kv_heads, 2, blocks, block bytes], keys at 0 and values at 1 of its
third dimension; a block holds 16 positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

KV_BLOCK = 16
F16, INT8, INT4, F32 = range(4)
"""KvType of native/isa/isa.h."""
_GROUP = 32  # dims of INT4 with a common scale
_GROUP_BYTES, _CODE_BYTES = 288, 256
# What native/isa/kv_i4.h calls kI4Steps, kI4Ratio and kI4Least.
_STEPS, _RATIOS, _LEAST = 4096.0, (8.0, 7.3, 8.7), 1e-30
_LARGEST_HALF = 65504.0


def block_bytes(kv_type: int, head_dim: int) -> int:
    """Bytes of 16 positions of one head's keys, or values.

    Raises:
        ValueError: there is no such type, or the heads' width does not go with blocks.
    """
    if head_dim < _GROUP or head_dim % _GROUP:
        raise ValueError(f"a head of {head_dim} dims is not a multiple of {_GROUP}")
    if kv_type == INT8:
        return KV_BLOCK * head_dim + 2 * KV_BLOCK
    if kv_type == INT4:
        return head_dim // _GROUP * _GROUP_BYTES
    if kv_type in (F16, F32):
        return KV_BLOCK * head_dim * (4 if kv_type == F32 else 2)
    raise ValueError(f"the KV type {kv_type} is not one of 0 to 3")


class Scaled(NamedTuple):
    """Vectors as codes and scales.

    Attributes:
        codes: f32 [heads, positions, head_dim].
        scales: f32 [heads, positions, groups], each for as many neighbouring dims; None if the
            codes are the values.
    """

    codes: Tensor
    scales: Tensor | None

    def values(self) -> Tensor:
        """What they stand for, f32 [heads, positions, head_dim]."""
        if self.scales is None:
            return self.codes
        groups: Tensor = self.codes.unflatten(2, (self.scales.shape[2], -1))
        return (groups * self.scales[..., None]).flatten(2)


def store(
    kv_type: int, cache: Tensor, sequences: Tensor, positions: Tensor, keys: Tensor, values: Tensor
) -> None:
    """Writes vectors to their places; where two have the same, either may stay.

    Args:
        kv_type: the cache's.
        cache: as above, of the right size.
        sequences: int64 [n], in range.
        positions: likewise.
        keys: f32 [n, kv_heads, head_dim].
        values: likewise.
    """
    block, slot = positions // KV_BLOCK, positions % KV_BLOCK
    if kv_type == INT8:
        _store_i8(cache, sequences, block, slot, keys, values)
    elif kv_type == INT4:
        _store_i4(cache, sequences, block, slot, keys, values)
    else:
        floats = cache.view(torch.float16 if kv_type == F16 else torch.float32)
        head_dim = keys.shape[2]
        key_blocks = floats[:, :, 0].unflatten(3, (head_dim, KV_BLOCK))
        value_blocks = floats[:, :, 1].unflatten(3, (KV_BLOCK, head_dim))
        key_blocks[sequences, :, block, :, slot] = keys.to(floats.dtype)
        value_blocks[sequences, :, block, slot] = values.to(floats.dtype)


def load_keys(kv_type: int, blocks: Tensor, head_dim: int) -> Scaled:
    """The keys of some blocks [heads, blocks, block bytes]."""
    if kv_type == INT8:
        codes, scales = _parts_i8(blocks, head_dim)
        # [head, block, four dims, position, dim]
        by_position = codes.unflatten(2, (head_dim // 4, KV_BLOCK, 4)).permute(0, 1, 3, 2, 4)
        return Scaled(by_position.flatten(3).flatten(1, 2).float(), scales)
    if kv_type == INT4:
        codes, scales = _parts_i4(blocks)
        # [head, block, group, half of a byte, chunk, position, dim]
        by_position = codes.unflatten(4, (4, KV_BLOCK, 4)).permute(0, 1, 5, 2, 4, 3, 6)
        return Scaled(by_position.flatten(3).flatten(1, 2).float(), scales)
    floats = blocks.view(torch.float16 if kv_type == F16 else torch.float32)
    by_position = floats.unflatten(2, (head_dim, KV_BLOCK)).transpose(2, 3)
    return Scaled(by_position.flatten(1, 2).float(), None)


def load_values(kv_type: int, blocks: Tensor, head_dim: int) -> Scaled:
    """The values of some blocks [heads, blocks, block bytes]."""
    if kv_type == INT8:
        codes, scales = _parts_i8(blocks, head_dim)
        # [head, block, four positions, dim, position]
        by_position = codes.unflatten(2, (KV_BLOCK // 4, head_dim, 4)).transpose(3, 4)
        return Scaled(by_position.flatten(1, 3).float(), scales)
    if kv_type == INT4:
        codes, scales = _parts_i4(blocks)
        # [head, block, group, half of a byte, four positions, dim, position]
        by_position = codes.unflatten(4, (4, KV_BLOCK, 4)).permute(0, 1, 4, 6, 2, 3, 5)
        return Scaled(by_position.flatten(4).flatten(1, 3).float(), scales)
    floats = blocks.view(torch.float16 if kv_type == F16 else torch.float32)
    return Scaled(floats.unflatten(2, (KV_BLOCK, head_dim)).flatten(1, 2).float(), None)


# --- INT8


def _store_i8(
    cache: Tensor, sequences: Tensor, block: Tensor, slot: Tensor, keys: Tensor, values: Tensor
) -> None:
    head_dim = keys.shape[2]
    codes = cache[..., : KV_BLOCK * head_dim].view(torch.int8)
    scales = cache[..., KV_BLOCK * head_dim :].view(torch.float16)
    key_codes, key_scales = _quantize_i8(keys)
    value_codes, value_scales = _quantize_i8(values)
    # [sequence, head, block, four dims, position, dim]
    key_blocks = codes[:, :, 0].unflatten(3, (head_dim // 4, KV_BLOCK, 4))
    key_blocks[sequences, :, block, :, slot] = key_codes.unflatten(2, (head_dim // 4, 4))
    # [sequence, head, block, four positions, dim, position]
    value_blocks = codes[:, :, 1].unflatten(3, (KV_BLOCK // 4, head_dim, 4))
    value_blocks[sequences, :, block, slot // 4, :, slot % 4] = value_codes
    scales[:, :, 0][sequences, :, block, slot] = key_scales
    scales[:, :, 1][sequences, :, block, slot] = value_scales


def _quantize_i8(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [n, heads, head_dim] and fp16 [n, heads]."""
    scales = (x.abs().amax(2) / 127.0).half()
    inverse = 1.0 / scales.float()
    inverse = torch.where(scales > 0, inverse, torch.zeros_like(inverse))
    return (x * inverse[..., None]).clamp(-127, 127).round().to(torch.int8), scales


def _parts_i8(blocks: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """int8 [heads, blocks, 16 * head_dim] and f32 [heads, positions, 1]."""
    scales = blocks[..., KV_BLOCK * head_dim :].view(torch.float16).float()
    return blocks[..., : KV_BLOCK * head_dim].view(torch.int8), scales.flatten(1)[..., None]


# --- INT4


def _store_i4(
    cache: Tensor, sequences: Tensor, block: Tensor, slot: Tensor, keys: Tensor, values: Tensor
) -> None:
    groups = cache.unflatten(4, (-1, _GROUP_BYTES))
    # Codes [sequence, head, keys or values, block, group, chunk, row, column].
    codes = groups[..., :_CODE_BYTES].unflatten(5, (4, KV_BLOCK, 4))
    scales = groups[..., _CODE_BYTES:].view(torch.float16)
    key_nibbles, key_scales = _quantize_i4(keys)
    value_nibbles, value_scales = _quantize_i4(values)
    low_high = key_nibbles.unflatten(3, (4, 2, 4))
    key_bytes = low_high[..., 0, :] | low_high[..., 1, :] << 4
    codes[:, :, 0][sequences, :, block, :, :, slot] = key_bytes
    value_bytes = value_nibbles[..., :16] | value_nibbles[..., 16:] << 4
    codes[:, :, 1][sequences, :, block, :, slot // 4, :, slot % 4] = value_bytes
    scales[:, :, 0][sequences, :, block, :, slot] = key_scales
    scales[:, :, 1][sequences, :, block, :, slot] = value_scales


def _quantize_i4(x: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 nibbles [n, heads, groups, 32] and fp16 [n, heads, groups]; see native/isa/kv_i4.h."""
    x = x.unflatten(2, (-1, _GROUP))
    high, low = x.amax(3), x.amin(3)
    extreme = torch.where(high >= -low, high, low)
    empty = ~(extreme.abs() >= _LEAST)
    extreme = torch.where(empty, torch.ones_like(extreme), extreme)
    fine = (x * (_STEPS / extreme.abs())[..., None]).round().to(torch.int32)
    best = torch.zeros_like(x, dtype=torch.int32)
    best_product = torch.zeros_like(extreme, dtype=torch.int32)
    best_squares = torch.ones_like(best_product)
    for ratio in _RATIOS:
        inverse = (-torch.tensor(ratio) / extreme)[..., None]
        codes = (x * inverse).round().clamp(-8, 7).to(torch.int32)
        product = (codes * fine).sum(3, dtype=torch.int32)
        squares = (codes * codes).sum(3, dtype=torch.int32)
        better = _explained(product, squares) > _explained(best_product, best_squares)
        best = torch.where(better[..., None], codes, best)
        best_product = torch.where(better, product, best_product)
        best_squares = torch.where(better, squares, best_squares)
    scale = best_product.float() / best_squares.float() * (extreme.abs() * (1.0 / _STEPS))
    scale = scale.clamp(-_LARGEST_HALF, _LARGEST_HALF).masked_fill(empty, 0.0)
    return (best.masked_fill(empty[..., None], 0) + 8).to(torch.uint8), scale.half()


def _explained(product: Tensor, squares: Tensor) -> Tensor:
    """The larger this is, the less error do codes leave."""
    return product.float() * product.float() / squares.float()


def _parts_i4(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [heads, blocks, groups, half of a byte, 256] and f32 [heads, positions, groups]."""
    groups = blocks.unflatten(2, (-1, _GROUP_BYTES))
    pairs = groups[..., :_CODE_BYTES]
    codes = torch.stack([pairs & 15, pairs >> 4], 3).to(torch.int8) - 8
    scales = groups[..., _CODE_BYTES:].view(torch.float16).float()
    return codes, scales.transpose(2, 3).flatten(1, 2)
