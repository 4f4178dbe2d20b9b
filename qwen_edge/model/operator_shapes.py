"""What the operators of operators.py return, without computing it: for tracing and compiling."""

from __future__ import annotations

import torch
from torch import Tensor


def register(namespace: str) -> None:
    """Registers the meta implementations of all operators of a namespace."""
    torch.library.register_fake(f"{namespace}::linear", _linear)
    torch.library.register_fake(f"{namespace}::embedding", _embedding)
    torch.library.register_fake(f"{namespace}::rms_norm", lambda x, weight, eps: _like(x))
    torch.library.register_fake(f"{namespace}::rotate", lambda x, cosine, sine: _like(x))
    torch.library.register_fake(f"{namespace}::silu_mul", _silu_mul)
    torch.library.register_fake(f"{namespace}::attention", _attention)


def _like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _silu_mul(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] // 2))


def _linear(
    x: Tensor, weights: list[Tensor], layouts: Tensor, order: Tensor | None, rows: int, fp32: bool
) -> Tensor:
    return x.new_empty((x.shape[0], rows))


def _embedding(ids: Tensor, weight: Tensor, layout: Tensor, cols: int) -> Tensor:
    return ids.new_empty((ids.shape[0], cols), dtype=torch.float32)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: Tensor,
    sequences: Tensor,
    positions: Tensor,
    kv_type: int,
    fp32: bool,
) -> Tensor:
    return query.new_empty((query.shape[0], query.shape[1] * query.shape[2]))
