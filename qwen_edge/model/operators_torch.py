"""The operators of ``model/operators.py`` in plain torch, for where no compiler is at hand.

They are slow: every call turns the weights into floats anew, some tiles at a time. They read the
same weights as the native kernels and the same KV cache, bit for bit, and round what those round:
with ``fp32`` off activations are INT8 in groups of 32, and with an INT8 or INT4 cache so are the
queries and the weighted probabilities. With ``fp32`` on nothing is rounded but the cache itself.

Input that does not fit together raises ValueError.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qwen_edge.model.activations_torch import (
    check_numbers,
    check_range,
    require,
    rounded_activations,
)
from qwen_edge.model.attention_torch import attention
from qwen_edge.model.operator_shapes import register
from qwen_edge.model.weights_torch import Stored, stored
from qwen_edge.quant.native_layout import NativeLayout

_NAMESPACE = "qwen_edge_torch"


def torch_operators() -> Any:
    """The namespace of operators in plain torch."""
    return getattr(torch.ops, _NAMESPACE)


# --- linear and embedding


def _layouts(layouts: Tensor, count: int) -> list[Stored]:
    expected = (count, ctypes.sizeof(NativeLayout))
    require(
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
    rounded = x if fp32 else rounded_activations(x)
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
    require(
        x.dim() == 2 and x.dtype == torch.float32,
        f"activations are float32 [n, cols], not {x.dtype} {list(x.shape)}",
    )
    require(len(kinds) > 0, "there are no weights")
    for kind, weight in zip(kinds, weights, strict=True):
        kind.check(weight)
        require(
            kind.layout.cols == x.shape[1],
            f"weights of {kind.layout.cols} columns meet {x.shape[1]} activations",
        )
    total = sum(kind.layout.rows for kind in kinds)
    require(total == rows, f"the weights have {total} rows, not {rows}")


def _check_order(order: Tensor, cols: int) -> None:
    require(
        order.dtype == torch.int32 and tuple(order.shape) == (cols,),
        f"the order of {cols} columns is int32 [{cols}], not {order.dtype} {list(order.shape)}",
    )
    check_range("the order's columns", order, cols)


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
    require(kind.layout.cols == cols, f"the weights have {kind.layout.cols} columns, not {cols}")
    check_numbers("ids", ids, len(ids), kind.layout.rows)
    return kind.listed_rows(weight, ids)


# --- rows


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight.

    Args:
        x: f32 [n, cols] or [n, heads, cols].
        weight: f32 [cols].
        eps: as above.

    Returns:
        f32 of x's shape.

    Raises:
        ValueError: the arguments do not fit together.
    """
    require(
        x.dim() in (2, 3) and x.dtype == torch.float32,
        f"what is normalized is float32 [n, cols] or [n, heads, cols], not {x.dtype} "
        f"{list(x.shape)}",
    )
    _check_floats("the weight", weight, x.shape[-1:])
    # In double as the scalar kernel has it.
    squares = x.double().square().mean(-1, keepdim=True)
    return x * (squares + eps).rsqrt().float() * weight


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates dim i with dim i + head_dim / 2.

    Args:
        x: f32 [n, heads, head_dim].
        cosine: of the angles, f32 [n, head_dim / 2].
        sine: likewise.

    Returns:
        f32 [n, heads, head_dim].

    Raises:
        ValueError: the arguments do not fit together.
    """
    require(
        x.dim() == 3 and x.dtype == torch.float32 and x.shape[2] % 2 == 0,
        f"what is rotated is float32 [n, heads, head_dim], not {x.dtype} {list(x.shape)}",
    )
    angles = (x.shape[0], x.shape[2] // 2)
    _check_floats("the cosine", cosine, angles)
    _check_floats("the sine", sine, angles)
    low, high = x.chunk(2, 2)
    cosine, sine = cosine[:, None], sine[:, None]
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], 2)


def silu_mul(x: Tensor) -> Tensor:
    """The SiLU of the first half of the columns times the second.

    Args:
        x: f32 [n, 2 * cols].

    Returns:
        f32 [n, cols].

    Raises:
        ValueError: it has another shape.
    """
    require(
        x.dim() == 2 and x.dtype == torch.float32 and x.shape[1] % 2 == 0,
        f"gates and values are float32 [n, 2 * cols], not {x.dtype} {list(x.shape)}",
    )
    gate, up = x.chunk(2, 1)
    return gate / (1 + (-gate).exp()) * up


def _check_floats(what: str, x: Tensor, shape: Sequence[int]) -> None:
    require(
        x.dtype == torch.float32 and list(x.shape) == list(shape),
        f"{what} is float32 {list(shape)}, not {x.dtype} {list(x.shape)}",
    )


_SCHEMAS = {
    linear: "(Tensor x, Tensor[] weights, Tensor layouts, Tensor? order, int rows, bool fp32)",
    embedding: "(Tensor ids, Tensor weight, Tensor layout, int cols)",
    rms_norm: "(Tensor x, Tensor weight, float eps)",
    rotate: "(Tensor x, Tensor cosine, Tensor sine)",
    silu_mul: "(Tensor x)",
    attention: "(Tensor query, Tensor key, Tensor value, Tensor(a!) cache, Tensor sequences,"
    " Tensor positions, int kv_type, bool fp32)",
}
# Torch forgets the operators with it.
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")
for _operator, _arguments in _SCHEMAS.items():
    _LIBRARY.define(f"{_operator.__name__}{_arguments} -> Tensor")
    _LIBRARY.impl(_operator.__name__, _operator, "CPU")
register(_NAMESPACE)
