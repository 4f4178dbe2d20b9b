"""Attention over the KV cache in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qwen_edge.model.activations_torch import (
    check_numbers,
    require,
    rounded_activations,
    to_int8,
)
from qwen_edge.model.cache_torch import (
    F16,
    F32,
    KV_BLOCK,
    Scaled,
    block_bytes,
    load_keys,
    load_values,
    store,
)

# Positions whose keys and values are floats at a time.
_CHUNK = 512


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: Tensor,
    sequences: Tensor,
    positions: Tensor,
    kv_type: int,
    fp32: bool,
) -> Tensor:
    """Stores keys and values, then attends from each row to its sequence's positions up to its own.

    Args:
        query: f32 [n, heads, head_dim]; 1 / sqrt(head_dim) is not multiplied in yet.
        key: f32 [n, kv_heads, head_dim].
        value: likewise.
        cache: uint8 [sequences, kv_heads, 2, blocks, block bytes], see ``cache_torch.py``; written.
        sequences: int64 [n], the cache that each row belongs to.
        positions: int64 [n]. Of rows at the same place, any one's key and value stay.
        kv_type: KvType of native/isa/isa.h.
        fp32: whether queries and probabilities stay as they are; needed by an fp32 cache.

    Returns:
        f32 [n, heads * head_dim].

    Raises:
        ValueError: the arguments do not fit together.
    """
    _check_attention(query, key, value, cache, kv_type, fp32)
    n, heads, head_dim = query.shape
    check_numbers("sequences", sequences, n, cache.shape[0])
    check_numbers("positions", positions, n, cache.shape[3] * KV_BLOCK)
    store(kv_type, cache, sequences, positions, key, value)
    # As the kernels compute it, in fp32.
    query = query * (1.0 / torch.tensor(float(head_dim)).sqrt())
    if not fp32 and kv_type != F16:
        query = rounded_activations(query)
    out = query.new_empty((n, heads * head_dim))
    for sequence in sequences.unique().tolist():
        rows = (sequences == sequence).nonzero().flatten()
        attended = _attend(query[rows], cache[sequence], positions[rows], kv_type, fp32)
        out[rows] = attended.flatten(1)
    return out


def _check_attention(
    query: Tensor, key: Tensor, value: Tensor, cache: Tensor, kv_type: int, fp32: bool
) -> None:
    floats = all(x.dim() == 3 and x.dtype == torch.float32 for x in (query, key, value))
    require(floats, "queries, keys and values are float32 [n, heads, head_dim]")
    n, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    require(
        tuple(key.shape) == tuple(value.shape) == (n, kv_heads, head_dim)
        and kv_heads > 0
        and heads % kv_heads == 0,
        f"keys {list(key.shape)} and values {list(value.shape)} do not fit queries "
        f"{list(query.shape)}",
    )
    shape = [kv_heads, 2, block_bytes(kv_type, head_dim)]
    require(
        cache.dim() == 5
        and cache.dtype == torch.uint8
        and cache.is_contiguous()
        and [*cache.shape[1:3], cache.shape[4]] == shape,
        f"a cache of {cache.dtype} {list(cache.shape)} is not uint8 "
        f"[sequences, {shape[0]}, {shape[1]}, blocks, {shape[2]}] without gaps",
    )
    require(fp32 or kv_type != F32, "an fp32 cache goes with fp32 activations alone")


def _attend(query: Tensor, cache: Tensor, positions: Tensor, kv_type: int, fp32: bool) -> Tensor:
    """Rows of one sequence: queries [rows, heads, head_dim], its cache [kv_heads, 2, ...].

    The softmax goes through the positions chunk by chunk, relative to the largest score so far.
    """
    rows, heads, head_dim = query.shape
    kv_heads = cache.shape[0]
    group = heads // kv_heads
    # [KV head, row and query head of it, dim]
    q = query.unflatten(1, (kv_heads, group)).transpose(0, 1).flatten(1, 2)
    last_seen = positions.repeat_interleave(group)[:, None]
    largest = q.new_full((kv_heads, rows * group, 1), -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(q)
    end = int(positions.max()) + 1
    for start in range(0, end, _CHUNK):
        blocks = cache[:, :, start // KV_BLOCK : -(-min(end, start + _CHUNK) // KV_BLOCK)]
        scores = q @ load_keys(kv_type, blocks[:, 0], head_dim).values().transpose(1, 2)
        unseen = torch.arange(start, start + scores.shape[2]) > last_seen
        scores = scores.masked_fill_(unseen, -math.inf)
        # Every row sees position 0: this is finite from the first chunk on.
        larger = torch.maximum(largest, scores.amax(2, keepdim=True))
        shrink = (largest - larger).exp()
        weights = (scores - larger).exp()
        total = total * shrink + weights.sum(2, keepdim=True)
        values = load_values(kv_type, blocks[:, 1], head_dim)
        out = out * shrink + _weighted(weights, values, fp32)
        largest = larger
    attended: Tensor = (out / total).unflatten(1, (rows, group))
    return attended.transpose(0, 1).flatten(1, 2)


def _weighted(weights: Tensor, values: Scaled, fp32: bool) -> Tensor:
    """Weights [heads, queries, positions] times values; rounded as the kernels do unless fp32.

    Those quantize the products of weights and scales, a block of positions at a time.
    """
    if fp32 or values.scales is None:
        return weights @ values.values()
    parts = []
    groups = values.codes.chunk(values.scales.shape[2], 2)
    for codes, scales in zip(groups, values.scales.unbind(2), strict=True):
        products, steps = to_int8(weights * scales[:, None], KV_BLOCK)
        parts.append((products * steps).flatten(2) @ codes)
    return torch.cat(parts, 2)
