"""Attention of torch operators, over the native kernels and in plain torch, against float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qwen_edge.model.operators import native_operators, set_threads
from qwen_edge.model.operators_torch import torch_operators
from tests.model.operator_cases import (
    KV_TYPES,
    LIMIT,
    Rows,
    empty_cache,
    make_rows,
    plain_attention,
    read_cache,
    relative_error,
)

PLAIN = torch_operators()
# Several sequences in any mix, each in order.
PLACES = [(s, p) for p in range(40) for s in (2, 0, 1) if p < 40 - 12 * s]
SHAPES = [(4, 2, 64), (3, 1, 32), (2, 2, 128)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_attention_in_fp32(ops: Any, kv_type: str, shape: tuple[int, int, int]) -> None:
    heads, kv_heads, head_dim = shape
    rows = make_rows(PLACES, heads, kv_heads, head_dim)
    cache = empty_cache(kv_type, 3, kv_heads, 3, head_dim)
    # What an earlier owner left beyond the rows is not seen.
    cache[..., 2:, :] = 3
    out = attend(ops, rows, cache, kv_type, True)
    held = read_cache(kv_type, cache, head_dim)
    assert relative_error(out, plain_attention(rows, held)) <= LIMIT
    coarse = {"f16": 5e-4, "int8": 2e-2, "int4": 0.2, "f32": 0.0}[kv_type]
    for i, (sequence, position) in enumerate(PLACES):
        stored = held[sequence, :, :, position]
        for h in range(kv_heads):
            assert relative_error(stored[h, 0], rows.key[i, h].numpy()) <= coarse
            assert relative_error(stored[h, 1], rows.value[i, h].numpy()) <= coarse


def attend(ops: Any, rows: Rows, cache: Tensor, kv_type: str, fp32: bool) -> Tensor:
    result: Tensor = ops.attention(
        rows.query, rows.key, rows.value, cache, rows.sequences, rows.positions,
        KV_TYPES[kv_type], fp32,
    )  # fmt: skip
    return result


@pytest.mark.parametrize(("kv_type", "limit"), [("f16", LIMIT), ("int8", 2e-2), ("int4", 2e-2)])
def test_attention_with_int8_queries(ops: Any, kv_type: str, limit: float) -> None:
    rows = make_rows(PLACES, 4, 2, 64)
    exact, rounded = (empty_cache(kv_type, 3, 2, 3, 64) for _ in range(2))
    truth = attend(ops, rows, exact, kv_type, True)
    error = relative_error(attend(ops, rows, rounded, kv_type, False), truth)
    assert torch.equal(exact, rounded)
    assert error <= limit
    # Otherwise nothing was rounded.
    assert kv_type == "f16" or error > LIMIT


@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("kv_type", ["f16", "int8", "int4"])
def test_rows_spread_over_calls_in_any_way(ops: Any, kv_type: str, fp32: bool) -> None:
    places = [(0, p) for p in range(1100)]
    rows = make_rows(places, 2, 1, 32)
    whole, parts = (empty_cache(kv_type, 1, 1, 69, 32) for _ in range(2))
    truth = attend(ops, rows, whole, kv_type, fp32)
    cuts = [0, 1, 17, 600, 1099, 1100]
    for begin, end in pairwise(cuts):
        out = attend(ops, rows.some(slice(begin, end)), parts, kv_type, fp32)
        assert relative_error(out, truth[begin:end]) <= 1e-3
    assert torch.equal(whole, parts)
    held = read_cache(kv_type, whole, 32)
    last = rows.some(slice(1095, 1100))
    assert relative_error(truth[1095:], plain_attention(last, held)) <= (LIMIT if fp32 else 2e-2)


@pytest.mark.parametrize("kv_type", ["f16", "int8", "int4"])
def test_both_store_the_same_bytes(kv_type: str) -> None:
    generator = torch.Generator().manual_seed(9)
    rows = make_rows([(p % 3, p // 3) for p in range(150)], 4, 2, 64)
    for x in (rows.key, rows.value):
        # Of all sizes; some with halves between two codes, some with equal extremes.
        x.mul_(10 ** (4 * torch.randn(150, 1, 1, generator=generator)))
        x[::3] = torch.randint(-16, 17, x[::3].shape, generator=generator) / 2
        x[1::7], x[2::11, :, :32] = 0, 0
    caches = [empty_cache(kv_type, 3, 2, 4, 64) for _ in range(3)]
    attend(native_operators(), rows, caches[0], kv_type, False)
    attend(native_operators(), rows, caches[1], kv_type, True)
    attend(PLAIN, rows, caches[2], kv_type, False)
    assert caches[0].any()
    assert torch.equal(caches[0], caches[2])
    assert torch.equal(caches[1], caches[2])


# Of the relative error where codes of INT8 may flip at their rounding.
FLIPS = 1e-3


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kv_type", ["f16", "int8", "int4"])
def test_both_attend_alike_over_long_contexts(kv_type: str, threads: int) -> None:
    """A single row is shared by threads from 1,024 positions on; models take turns."""
    native = native_operators()
    set_threads(threads, threads)
    try:
        for heads, kv_heads in ((4, 2), (16, 2), (2, 2)):
            places = [(s, p) for s, end in enumerate((2500, 1100)) for p in range(end)]
            rows = make_rows(places, heads, kv_heads, 64)
            cache = empty_cache(kv_type, 2, kv_heads, 157, 64)
            attend(native, rows, cache, kv_type, False)
            steps = make_rows([(0, 2500), (1, 1100)], heads, kv_heads, 64, seed=1)
            for some in (steps.some([0]), steps.some([1]), steps.some([0, 1])):
                copy = cache.clone()
                ours = attend(PLAIN, some, copy, kv_type, False)
                theirs = attend(native, some, cache, kv_type, False)
                assert relative_error(ours, theirs) <= (LIMIT if kv_type == "f16" else FLIPS)
                assert torch.equal(copy, cache)
    finally:
        set_threads(1, 1)


def test_vectors_of_zeros_and_of_the_largest_numbers(ops: Any) -> None:
    for kv_type in ("f16", "int8", "int4", "f32"):
        rows = make_rows([(0, p) for p in range(4)], 2, 1, 32)
        for x in (rows.key, rows.value):
            x[0], x[1], x[2] = 0, 1e-36, x[2] * 1e4
        cache = empty_cache(kv_type, 1, 1, 1, 32)
        out = attend(ops, rows, cache, kv_type, True)
        assert out.isfinite().all()
        truth = plain_attention(rows, read_cache(kv_type, cache, 32))
        assert np.allclose(out, truth, rtol=1e-4, atol=1e-4)


def bad_attention() -> dict[str, dict[str, Any]]:
    rows = vars(make_rows([(0, 0), (0, 1)], 4, 2, 32))
    good = empty_cache("int8", 2, 2, 3, 32)
    spread = torch.zeros((*good.shape[:4], 600), dtype=torch.uint8)
    return {
        "a sequence beyond": {"sequences": torch.tensor([0, 2])},
        "a sequence below": {"sequences": torch.tensor([0, -1])},
        "a position beyond": {"positions": torch.tensor([0, 48])},
        "a position below": {"positions": torch.tensor([-1, 0])},
        "int32 positions": {"positions": torch.tensor([0, 1], dtype=torch.int32)},
        "too few positions": {"positions": torch.tensor([0])},
        "fewer keys": {"key": rows["key"][:1]},
        "other heads": {"query": rows["query"][:, :3]},
        "narrow values": {"value": rows["value"][..., :16]},
        "half keys": {"key": rows["key"].half()},
        "another type": {"kv_type": 0},
        "an unknown type": {"kv_type": 4},
        "a negative type": {"kv_type": -1},
        "fp32 without fp32": {"kv_type": 3, "cache": empty_cache("f32", 2, 2, 3, 32)},
        "heads of the cache": {"cache": good[:, :1].contiguous()},
        "a cache with gaps": {"cache": spread[..., : good.shape[4]]},
        "a signed cache": {"cache": good.view(torch.int8)},
    }


@pytest.mark.parametrize("case", bad_attention())
def test_attention_refuses(ops: Any, case: str) -> None:
    rows = make_rows([(0, 0), (0, 1)], 4, 2, 32)
    call = {
        **vars(rows), "cache": empty_cache("int8", 2, 2, 3, 32), "kv_type": 1, "fp32": False,
    } | bad_attention()[case]  # fmt: skip
    before = call["cache"].clone()
    with pytest.raises((ValueError, RuntimeError)):
        ops.attention(**call)
    assert torch.equal(call["cache"], before)
