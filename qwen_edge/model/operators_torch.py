"""The operators of ``model/operators.py`` in plain torch, for where no compiler is at hand.

They are slow: every call turns the weights into floats anew, some tiles at a time. They read the
same weights as the native kernels and the same KV cache, bit for bit, and round what those round:
with ``fp32`` off activations are INT8 in groups of 32, and with an INT8 or INT4 cache so are the
queries and the weighted probabilities. With ``fp32`` on nothing is rounded but the cache itself.

Importing this module registers ``linear``, ``embedding`` and ``attention`` in the namespace
``qwen_edge_torch``; see ``model/operator_shapes.py`` for their arguments. Input that does not fit
together raises ValueError.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

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
from qwen_edge.model.operator_shapes import SCHEMAS, register
from qwen_edge.model.weights_torch import Stored, stored
from qwen_edge.quant.native_layout import NativeLayout

NAMESPACE = "qwen_edge_torch"
_ACTIVATION_GROUP = 32
# Positions whose keys and values are floats at a time.
_CHUNK = 512


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _to_int8(x: Tensor, dim_groups: int = _ACTIVATION_GROUP) -> tuple[Tensor, Tensor]:
    """Codes -127..127, as floats [..., groups, dims], and their scales [..., groups, 1]."""
    groups = x.unflatten(-1, (-1, dim_groups))
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = 127.0 / largest
    # Of 0, and of what is so small that its inverse overflows.
    inverse = inverse.masked_fill(inverse.isinf(), 0.0)
    return (groups * inverse).round_(), largest / 127.0


def _rounded(x: Tensor) -> Tensor:
    """Activations [..., columns] as INT8 in groups of 32 holds them."""
    cols = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -cols % _ACTIVATION_GROUP))
    codes, scales = _to_int8(padded)
    return (codes * scales).flatten(-2)[..., :cols]


# --- linear and embedding


def _layouts(layouts: Tensor, count: int) -> list[Stored]:
    expected = (count, ctypes.sizeof(NativeLayout))
    _require(
        layouts.dtype == torch.uint8 and tuple(layouts.shape) == expected,
        f"{count} layouts are uint8 {list(expected)}, not {layouts.dtype} {list(layouts.shape)}",
    )
    return [stored(bytes(row)) for row in layouts.tolist()]


def linear(
    x: Tensor, weights: list[Tensor], layouts: Tensor, order: Tensor | None, rows: int, fp32: bool
) -> Tensor:
    """Activations times several matrices, side by side.

    Args:
        x: f32 [n, cols].
        weights: tensors as they lie in the model file, all of ``cols`` columns.
        layouts: uint8 [len(weights), sizeof(NativeLayout)].
        order: int32 [cols], which activation each column belongs to; None for its own.
        rows: sum of the weights' rows.
        fp32: whether activations stay as they are, and codebooks that round levels are not taken.

    Returns:
        f32 [n, rows].

    Raises:
        ValueError: the arguments do not fit together.
    """
    kinds = _layouts(layouts, len(weights))
    _check_linear(x, weights, kinds, rows)
    if order is not None:
        _check_order(order, x.shape[1])
        x = x.index_select(1, order)
    rounded = x if fp32 else _rounded(x)
    out = x.new_empty((x.shape[0], rows))
    at = 0
    for kind, weight in zip(kinds, weights, strict=True):
        layout, step = kind.layout, kind.step
        source = rounded if layout.packed else x
        for begin in range(0, layout.rows, step):
            end = min(begin + step, layout.rows)
            out[:, at + begin : at + end] = source @ kind.rows(weight, begin, end, fp32).T
        at += layout.rows
    return out


def _check_linear(x: Tensor, weights: list[Tensor], kinds: list[Stored], rows: int) -> None:
    _require(
        x.dim() == 2 and x.dtype == torch.float32,
        f"activations are float32 [n, cols], not {x.dtype} {list(x.shape)}",
    )
    for kind, weight in zip(kinds, weights, strict=True):
        kind.check(weight)
        _require(
            kind.layout.cols == x.shape[1],
            f"weights of {kind.layout.cols} columns meet {x.shape[1]} activations",
        )
    total = sum(kind.layout.rows for kind in kinds)
    _require(total == rows, f"the weights have {total} rows, not {rows}")


def _check_order(order: Tensor, cols: int) -> None:
    _require(
        order.dtype == torch.int32 and tuple(order.shape) == (cols,),
        f"the order of {cols} columns is int32 [{cols}], not {order.dtype} {list(order.shape)}",
    )
    _check_range("the order's columns", order, cols)


def _check_range(what: str, numbers: Tensor, end: int) -> None:
    if len(numbers) == 0:
        return
    low, high = int(numbers.min()), int(numbers.max())
    _require(low >= 0 and high < end, f"{what} are from {low} to {high}, there are {end}")


def embedding(ids: Tensor, weight: Tensor, layout: Tensor, cols: int) -> Tensor:
    """Rows of a matrix, exactly.

    Args:
        ids: int64 [n].
        weight: a tensor as it lies in the model file.
        layout: uint8 [1, sizeof(NativeLayout)].
        cols: its columns.

    Returns:
        f32 [n, cols].

    Raises:
        ValueError: the arguments do not fit together, or there is no such row.
    """
    (kind,) = _layouts(layout, 1)
    kind.check(weight)
    _require(kind.layout.cols == cols, f"the weights have {kind.layout.cols} columns, not {cols}")
    _check_numbers("ids", ids, len(ids), kind.layout.rows)
    return kind.listed_rows(weight, ids)


def _check_numbers(what: str, numbers: Tensor, count: int, end: int) -> None:
    _require(
        numbers.dtype == torch.int64 and tuple(numbers.shape) == (count,),
        f"{what} are int64 [{count}], not {numbers.dtype} {list(numbers.shape)}",
    )
    _check_range(what, numbers, end)


# --- attention


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
    _check_numbers("sequences", sequences, n, cache.shape[0])
    _check_numbers("positions", positions, n, cache.shape[3] * KV_BLOCK)
    store(kv_type, cache, sequences, positions, key, value)
    # As the kernels compute it, in fp32.
    query = query * (1.0 / torch.tensor(float(head_dim)).sqrt())
    if not fp32 and kv_type != F16:
        query = _rounded(query)
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
    _require(floats, "queries, keys and values are float32 [n, heads, head_dim]")
    n, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    _require(
        tuple(key.shape) == tuple(value.shape) == (n, kv_heads, head_dim)
        and kv_heads > 0
        and heads % kv_heads == 0,
        f"keys {list(key.shape)} and values {list(value.shape)} do not fit queries "
        f"{list(query.shape)}",
    )
    shape = [kv_heads, 2, block_bytes(kv_type, head_dim)]
    _require(
        cache.dim() == 5
        and cache.dtype == torch.uint8
        and cache.is_contiguous()
        and [*cache.shape[1:3], cache.shape[4]] == shape,
        f"a cache of {cache.dtype} {list(cache.shape)} is not uint8 "
        f"[sequences, {shape[0]}, {shape[1]}, blocks, {shape[2]}] without gaps",
    )
    _require(fp32 or kv_type != F32, "an fp32 cache goes with fp32 activations alone")


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
        products, steps = _to_int8(weights * scales[:, None], KV_BLOCK)
        parts.append((products * steps).flatten(2) @ codes)
    return torch.cat(parts, 2)


_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
for _schema, _operator in zip(SCHEMAS, (linear, embedding, attention), strict=True):
    _LIBRARY.define(_schema)
    _LIBRARY.impl(_operator.__name__, _operator, "CPU")
register(NAMESPACE)
