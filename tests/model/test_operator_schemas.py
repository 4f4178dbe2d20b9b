"""What torch asks of operators: schemas that hold, shapes without computing, compilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from qwen_edge.model.operators import native_operators
from qwen_edge.model.operators_torch import torch_operators
from tests.model.operator_cases import (
    FORMATS,
    KV_TYPES,
    activations,
    empty_cache,
    layouts_of,
    make_rows,
    make_weight,
)

PLAIN = torch_operators()


def samples(ops: Any) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    packed, dense = (make_weight(FORMATS[form], 40, 96) for form in ("levels", "bf16"))
    both = ([packed.tensor, dense.tensor], layouts_of(packed, dense))
    order = torch.randperm(96, dtype=torch.int32)
    rows = make_rows([(1, 0), (0, 0), (0, 1)], 4, 2, 32)
    heads = torch.randn(3, 9, 32)[:, 2:6]
    angles = torch.randn(3, 16)

    def attention(kv_type: str) -> tuple[Any, tuple[Any, ...]]:
        cache = empty_cache(kv_type, 2, 2, 1, 32)
        where = (rows.sequences, rows.positions, KV_TYPES[kv_type], False)
        return ops.attention, (rows.query, rows.key, rows.value, cache, *where)

    return {
        "linear": (ops.linear, (activations(1, 96), *both, None, 80, False)),
        "linear in order": (ops.linear, (activations(3, 100)[:, 4:], *both, order, 80, True)),
        "embedding": (
            ops.embedding, (torch.tensor([1, 39]), packed.tensor, packed.layout_bytes, 96)
        ),
        "dense embedding": (
            ops.embedding, (torch.tensor([5]), dense.tensor, dense.layout_bytes, 96)
        ),
        "rms_norm of rows": (ops.rms_norm, (activations(2, 96), torch.rand(96), 1e-6)),
        "rms_norm of heads": (ops.rms_norm, (heads, torch.rand(32), 1e-6)),
        "rotate": (ops.rotate, (heads, angles.cos(), angles.sin())),
        "silu_mul": (ops.silu_mul, (activations(2, 96),)),
        "attention over f16": attention("f16"),
        "attention over int8": attention("int8"),
        "attention over int4": attention("int4"),
    }  # fmt: skip


NAMES = (
    "linear", "linear in order", "embedding", "dense embedding", "rms_norm of rows",
    "rms_norm of heads", "rotate", "silu_mul", "attention over f16", "attention over int8",
    "attention over int4",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(ops: Any, name: str) -> None:
    operator, args = samples(ops)[name]
    results = torch.library.opcheck(operator, args)
    assert set(results.values()) == {"SUCCESS"}


def test_both_namespaces_have_the_same_schemas() -> None:
    for name in ("linear", "embedding", "rms_norm", "rotate", "silu_mul", "attention"):
        native, plain = (
            str(getattr(ops, name).default._schema).partition("::")[2]
            for ops in (native_operators(), PLAIN)
        )
        assert native == plain


def test_under_torch_compile(ops: Any) -> None:
    weight = make_weight(FORMATS["int4"], 256, 64)
    tensor, layout = weight.tensor, weight.layout_bytes
    cache, compiled_cache = (empty_cache("int8", 1, 2, 2, 32) for _ in range(2))

    def step(ids: Tensor, positions: Tensor, cache: Tensor) -> Tensor:
        x = ops.embedding(ids, tensor, layout, 64)
        qkv = ops.linear(x, [tensor], layout, None, 256, False)
        query, key, value = qkv.unflatten(1, (8, 32)).split([4, 2, 2], 1)
        rows = (query, key, value, cache, torch.zeros_like(positions), positions)
        result: Tensor = ops.attention(*rows, 1, False) + 1
        return result

    compiled = torch.compile(step, fullgraph=True)
    for begin, end in ((0, 5), (5, 6), (6, 7)):
        positions = torch.arange(begin, end)
        expected = step(positions + 3, positions, cache)
        assert torch.allclose(compiled(positions + 3, positions, compiled_cache), expected)
    assert torch.equal(cache, compiled_cache)


def test_shapes_without_computing(ops: Any) -> None:
    x = torch.empty(3, 96, device="meta")
    layout = make_weight(FORMATS["int4"], 40, 96).layout_bytes
    weight = torch.empty(3, 3, 288, dtype=torch.uint8, device="meta")
    assert ops.linear(x, [weight], layout.to("meta"), None, 40, False).shape == (3, 40)
