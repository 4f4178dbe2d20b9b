"""What operators in plain torch do with what they are given: check it, and make it INT8."""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATION_GROUP = 32


def require(condition: bool, problem: str) -> None:
    """Raises ValueError with the problem unless the condition holds."""
    if not condition:
        raise ValueError(problem)


def to_int8(x: Tensor, dim_groups: int = ACTIVATION_GROUP) -> tuple[Tensor, Tensor]:
    """Codes -127..127, as floats [..., groups, dims], and their scales [..., groups, 1]."""
    groups = x.unflatten(-1, (-1, dim_groups))
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = 127.0 / largest
    # Of 0, and of what is so small that its inverse overflows.
    inverse = inverse.masked_fill(inverse.isinf(), 0.0)
    return (groups * inverse).round_(), largest / 127.0


def rounded_activations(x: Tensor) -> Tensor:
    """Activations [..., columns] as INT8 in groups of 32 holds them."""
    cols = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -cols % ACTIVATION_GROUP))
    codes, scales = to_int8(padded)
    return (codes * scales).flatten(-2)[..., :cols]


def check_range(what: str, numbers: Tensor, end: int) -> None:
    """Raises ValueError unless all numbers are from 0 to end - 1."""
    if len(numbers) == 0:
        return
    low, high = int(numbers.min()), int(numbers.max())
    require(low >= 0 and high < end, f"{what} are from {low} to {high}, there are {end}")


def check_numbers(what: str, numbers: Tensor, count: int, end: int) -> None:
    """Raises ValueError unless the tensor is int64 [count] of numbers from 0 to end - 1."""
    require(
        numbers.dtype == torch.int64 and tuple(numbers.shape) == (count,),
        f"{what} are int64 [{count}], not {numbers.dtype} {list(numbers.shape)}",
    )
    check_range(what, numbers, end)
