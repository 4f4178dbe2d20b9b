"""The operators in plain torch against the native dequantization and plain float64."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import qwen_edge.model.operators_torch  # noqa: F401 (registers them)
from qwen_edge.quant.layout import INT4, Layout
from tests.model.operator_cases import (
    FORMATS,
    KV_TYPES,
    Rows,
    Weight,
    empty_cache,
    make_rows,
    make_weight,
    plain_attention,
    quantized,
    read_cache,
    relative_error,
)
from tests.quant.conftest import Native
from tests.quant.test_packing import LAYOUTS, random_parts

OPS = torch.ops.qwen_edge_torch
LIMIT = 1e-5
ROOT = Path(__file__).parents[2]


def layouts_of(*weights: Weight) -> Tensor:
    return torch.cat([weight.layout_bytes for weight in weights])


def activations(n: int, cols: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, cols, generator=generator) * 10 ** torch.randn(n, 1, generator=generator)


# --- embedding


@settings(max_examples=150, deadline=None)
@given(layout=LAYOUTS, seed=st.integers(0, 1000))
def test_rows_are_dequantized_exactly(layout: Layout, seed: int) -> None:
    data = Native.pack(layout, *random_parts(layout, seed)).data
    tensor = torch.from_numpy(data).view(layout.tiles, layout.groups, layout.block_bytes)
    weight = Weight(layout, tensor, np.empty(0), np.empty(0))
    ids = torch.randperm(layout.rows)
    values = OPS.embedding(ids, tensor, weight.layout_bytes, layout.cols).numpy()
    expected = Native.dequantize(layout, data)[ids.numpy()]
    assert np.array_equal(values, expected)


@pytest.mark.parametrize("form", ["f32", "f16", "bf16", "levels", "int8 zero points"])
def test_embedding_of_repeated_ids(form: str) -> None:
    weight = make_weight(FORMATS[form], 70, 100)
    ids = torch.tensor([3, 69, 3, 0, 16, 16] * 200)
    values = OPS.embedding(ids, weight.tensor, weight.layout_bytes, 100)
    assert values.dtype == torch.float32
    assert np.array_equal(values.double().numpy(), weight.exact[ids.numpy()])


# --- linear


@pytest.mark.parametrize("shape", [(1, 1), (16, 128), (37, 96), (70, 300)])
@pytest.mark.parametrize("form", FORMATS)
def test_products(form: str, shape: tuple[int, int]) -> None:
    weight = make_weight(FORMATS[form], *shape)
    for n in (1, 7):
        x = activations(n, shape[1])
        args = ([weight.tensor], weight.layout_bytes, None, shape[0])
        truth = x.double().numpy() @ weight.exact.T
        assert relative_error(OPS.linear(x, *args, True), truth) <= LIMIT
        if weight.layout.packed:
            truth = quantized(x.numpy()) @ weight.rounded.T
        assert relative_error(OPS.linear(x, *args, False), truth) <= LIMIT


@pytest.mark.parametrize("fp32", [False, True])
def test_several_matrices_side_by_side(fp32: bool) -> None:
    forms = {"int4": 48, "levels": 5, "bf16": 33, "int8": 17}
    weights = [make_weight(FORMATS[form], rows, 160, rows) for form, rows in forms.items()]
    # Rows that do not follow each other in memory, in an order of their own.
    x = activations(5, 200)[:, 20:180]
    order = torch.randperm(160, dtype=torch.int32)
    tensors = [weight.tensor for weight in weights]
    out = OPS.linear(x, tensors, layouts_of(*weights), order, 103, fp32)
    ordered = x.double().numpy()[:, order.numpy()]
    rounded = ordered if fp32 else quantized(ordered.astype(np.float32))
    parts = [
        ordered @ each.exact.T if fp32 or not each.layout.packed else rounded @ each.rounded.T
        for each in weights
    ]
    assert out.is_contiguous()
    for ours, truth in zip(out.split([48, 5, 33, 17], 1), parts, strict=True):
        assert relative_error(ours, truth) <= LIMIT


def test_more_weights_than_are_floats_at_a_time() -> None:
    weight = make_weight(FORMATS["minimums"], 2085, 1030)
    x = activations(3, 1030)
    out = OPS.linear(x, [weight.tensor], weight.layout_bytes, None, 2085, True)
    assert relative_error(out, x.double().numpy() @ weight.exact.T) <= LIMIT
    ids = torch.randint(0, 2085, (300,))
    rows = OPS.embedding(ids, weight.tensor, weight.layout_bytes, 1030)
    assert np.array_equal(rows.double().numpy(), weight.exact[ids.numpy()])


PEAK = """
import resource, torch
import qwen_edge.model.operators_torch
from tests.model.operator_cases import FORMATS, make_weight
torch.set_num_threads(1)
weight = make_weight(FORMATS["int4"], 16, 1024)
tensor = weight.tensor.repeat(4096, 1, 1)
layout = weight.layout_bytes.clone()
layout[0, 4:8] = torch.tensor([0, 0, 1, 0])  # 65,536 rows
linear = torch.ops.qwen_edge_torch.linear
small = make_weight(FORMATS["int4"], 4096, 1024)
linear(torch.ones(1, 1024), [small.tensor], small.layout_bytes, None, 4096, False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear(torch.ones(1, 1024), [tensor], layout, None, 65536, False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise")
def test_a_large_matrix_is_never_floats_as_a_whole() -> None:
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    # All of it would take 262,144 KB.
    assert int(done.stdout) < 32_000


def test_activations_of_zeros_and_of_next_to_nothing() -> None:
    weight = make_weight(FORMATS["int4"], 20, 64)
    x = torch.zeros(3, 64)
    x[1, 3], x[2, 40] = 1e-44, -1e-37
    out = OPS.linear(x, [weight.tensor], weight.layout_bytes, None, 20, False)
    assert out.isfinite().all()
    assert out.abs().max() < 1e-30
    assert OPS.linear(x[:0], [weight.tensor], weight.layout_bytes, None, 20, False).shape == (0, 20)


# --- attention

# Several sequences in any mix, each in order; two chunks of positions are needed for the last.
PLACES = [(s, p) for p in range(40) for s in (2, 0, 1) if p < 40 - 12 * s]
SHAPES = [(4, 2, 64), (3, 1, 32), (2, 2, 128)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_attention_in_fp32(kv_type: str, shape: tuple[int, int, int]) -> None:
    heads, kv_heads, head_dim = shape
    rows = make_rows(PLACES, heads, kv_heads, head_dim)
    cache = empty_cache(kv_type, 3, kv_heads, 3, head_dim)
    # What an earlier owner left beyond the rows is not seen.
    cache[..., 2:, :] = 3
    out = attend(rows, cache, kv_type, True)
    held = read_cache(kv_type, cache, head_dim)
    assert relative_error(out, plain_attention(rows, held)) <= LIMIT
    coarse = {"f16": 5e-4, "int8": 2e-2, "int4": 0.2, "f32": 0.0}[kv_type]
    for i, (sequence, position) in enumerate(PLACES):
        stored = held[sequence, :, :, position]
        for h in range(kv_heads):
            assert relative_error(stored[h, 0], rows.key[i, h].numpy()) <= coarse
            assert relative_error(stored[h, 1], rows.value[i, h].numpy()) <= coarse


def attend(rows: Rows, cache: Tensor, kv_type: str, fp32: bool) -> Tensor:
    result: Tensor = OPS.attention(
        rows.query, rows.key, rows.value, cache, rows.sequences, rows.positions,
        KV_TYPES[kv_type], fp32,
    )  # fmt: skip
    return result


@pytest.mark.parametrize(("kv_type", "limit"), [("f16", LIMIT), ("int8", 2e-2), ("int4", 2e-2)])
def test_attention_with_int8_queries(kv_type: str, limit: float) -> None:
    rows = make_rows(PLACES, 4, 2, 64)
    exact, rounded = (empty_cache(kv_type, 3, 2, 3, 64) for _ in range(2))
    truth = attend(rows, exact, kv_type, True)
    error = relative_error(attend(rows, rounded, kv_type, False), truth)
    assert torch.equal(exact, rounded)
    assert error <= limit
    # Otherwise nothing was rounded.
    assert kv_type == "f16" or error > LIMIT


@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("kv_type", ["f16", "int8", "int4"])
def test_rows_spread_over_calls_in_any_way(kv_type: str, fp32: bool) -> None:
    places = [(0, p) for p in range(1100)]
    rows = make_rows(places, 2, 1, 32)
    whole, parts = (empty_cache(kv_type, 1, 1, 69, 32) for _ in range(2))
    truth = attend(rows, whole, kv_type, fp32)
    cuts = [0, 1, 17, 600, 1099, 1100]
    for begin, end in pairwise(cuts):
        out = attend(rows.some(slice(begin, end)), parts, kv_type, fp32)
        assert relative_error(out, truth[begin:end]) <= 1e-3
    assert torch.equal(whole, parts)
    held = read_cache(kv_type, whole, 32)
    last = rows.some(slice(1095, 1100))
    assert relative_error(truth[1095:], plain_attention(last, held)) <= (LIMIT if fp32 else 2e-2)


def test_vectors_of_zeros_and_of_the_largest_numbers() -> None:
    for kv_type in ("f16", "int8", "int4", "f32"):
        rows = make_rows([(0, p) for p in range(4)], 2, 1, 32)
        for x in (rows.key, rows.value):
            x[0], x[1], x[2] = 0, 1e-36, x[2] * 1e4
        cache = empty_cache(kv_type, 1, 1, 1, 32)
        out = attend(rows, cache, kv_type, True)
        assert out.isfinite().all()
        truth = plain_attention(rows, read_cache(kv_type, cache, 32))
        assert np.allclose(out, truth, rtol=1e-4, atol=1e-4)


# --- arguments that do not fit


def bad_linear() -> dict[str, Callable[[], Any]]:
    weight = make_weight(FORMATS["int4"], 40, 96)
    x, layout = activations(2, 96), weight.layout_bytes
    order = torch.arange(96, dtype=torch.int32)

    def call(
        x: Tensor = x, weights: Any = None, layouts: Tensor = layout, order: Any = None,
        rows: int = 40,
    ) -> Callable[[], Any]:  # fmt: skip
        tensors = [weight.tensor] if weights is None else weights
        return lambda: OPS.linear(x, tensors, layouts, order, rows, False)

    def changed(at: int, value: int) -> Tensor:
        copy = layout.clone()
        copy[0, at] = value
        return copy

    outside = order.clone()
    outside[5] = 96
    below = order.clone()
    below[5] = -1
    dense = Weight(Layout("bf16", 40, 96), weight.tensor, weight.exact, weight.exact)
    return {
        "other columns": call(activations(2, 128)),
        "half activations": call(x.half()),
        "one row": call(x[0]),
        "weights cut off": call(weights=[weight.tensor[:2]]),
        "blocks cut off": call(weights=[weight.tensor[..., :-1]]),
        "signed weights": call(weights=[weight.tensor.view(torch.int8)]),
        "no layout": call(layouts=layout[:0]),
        "a short layout": call(layouts=layout[:, :-1]),
        "an unknown type": call(layouts=changed(0, 5)),
        "more rows than stored": call(layouts=changed(4, 49), rows=49),
        "no rows": call(layouts=changed(4, 0), rows=0),
        "an odd group": call(layouts=changed(12, 48)),
        "zero points without a place": call(layouts=changed(20, 1)),
        "minimums that are not there": call(layouts=changed(16, 1)),
        "a dense layout": call(layouts=dense.layout_bytes),
        "another sum of rows": call(rows=41),
        "a short order": call(order=order[:-1]),
        "a long order": call(order=order.long()),
        "an order beyond": call(order=outside),
        "an order below": call(order=below),
    }


@pytest.mark.parametrize("case", bad_linear())
def test_linear_refuses(case: str) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        bad_linear()[case]()


@pytest.mark.parametrize("form", ["int8", "bf16"])
def test_embedding_refuses(form: str) -> None:
    weight = make_weight(FORMATS[form], 40, 96)
    for ids, cols in (
        (torch.tensor([0, 40]), 96),
        (torch.tensor([-1]), 96),
        (torch.tensor([1 << 40]), 96),
        (torch.tensor([0], dtype=torch.int32), 96),
        (torch.tensor([[0]]), 96),
        (torch.tensor([0]), 97),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            OPS.embedding(ids, weight.tensor, weight.layout_bytes, cols)


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
def test_attention_refuses(case: str) -> None:
    rows = make_rows([(0, 0), (0, 1)], 4, 2, 32)
    call = {
        **vars(rows), "cache": empty_cache("int8", 2, 2, 3, 32), "kv_type": 1, "fp32": False,
    } | bad_attention()[case]  # fmt: skip
    before = call["cache"].clone()
    with pytest.raises((ValueError, RuntimeError)):
        OPS.attention(**call)
    assert torch.equal(call["cache"], before)


# --- what torch asks of an operator


def samples() -> list[tuple[Any, tuple[Any, ...]]]:
    packed, dense = (make_weight(FORMATS[form], 40, 96) for form in ("levels", "bf16"))
    both = ([packed.tensor, dense.tensor], layouts_of(packed, dense))
    order = torch.randperm(96, dtype=torch.int32)
    result: list[tuple[Any, tuple[Any, ...]]] = [
        (OPS.linear, (activations(1, 96), *both, None, 80, False)),
        (OPS.linear, (activations(3, 100)[:, 4:], *both, order, 80, True)),
        (OPS.embedding, (torch.tensor([1, 39]), packed.tensor, packed.layout_bytes, 96)),
        (OPS.embedding, (torch.tensor([5]), dense.tensor, dense.layout_bytes, 96)),
    ]
    for kv_type in ("f16", "int8", "int4"):
        rows = make_rows([(1, 0), (0, 0), (0, 1)], 4, 2, 32)
        cache = empty_cache(kv_type, 2, 2, 1, 32)
        where = (rows.sequences, rows.positions, KV_TYPES[kv_type], False)
        result.append((OPS.attention, (rows.query, rows.key, rows.value, cache, *where)))
    return result


@pytest.mark.parametrize("index", range(len(samples())))
def test_opcheck(index: int) -> None:
    operator, args = samples()[index]
    results = torch.library.opcheck(operator, args)
    assert set(results.values()) == {"SUCCESS"}


def test_under_torch_compile() -> None:
    weight = make_weight(FORMATS["int4"], 256, 64)
    tensor, layout = weight.tensor, weight.layout_bytes
    cache, compiled_cache = (empty_cache("int8", 1, 2, 2, 32) for _ in range(2))

    def step(ids: Tensor, positions: Tensor, cache: Tensor) -> Tensor:
        x = OPS.embedding(ids, tensor, layout, 64)
        qkv = OPS.linear(x, [tensor], layout, None, 256, False)
        query, key, value = qkv.unflatten(1, (8, 32)).split([4, 2, 2], 1)
        rows = (query, key, value, cache, torch.zeros_like(positions), positions)
        result: Tensor = OPS.attention(*rows, 1, False) + 1
        return result

    compiled = torch.compile(step, fullgraph=True)
    for begin, end in ((0, 5), (5, 6), (6, 7)):
        positions = torch.arange(begin, end)
        expected = step(positions + 3, positions, cache)
        assert torch.allclose(compiled(positions + 3, positions, compiled_cache), expected)
    assert torch.equal(cache, compiled_cache)


def test_shapes_without_computing() -> None:
    x = torch.empty(3, 96, device="meta")
    layout = make_weight(FORMATS["int4"], 40, 96).layout_bytes
    weight = torch.empty(3, 3, 288, dtype=torch.uint8, device="meta")
    assert OPS.linear(x, [weight], layout.to("meta"), None, 40, False).shape == (3, 40)


def test_a_type_that_the_codebook_does_not_need() -> None:
    """Bytes of a layout are what tells them apart: two with other codebooks are two."""
    first = make_weight(FORMATS["int4"], 16, 32)
    other = Layout("q4", 16, 32, 32, False, tuple(reversed(INT4)))
    second = Weight(other, first.tensor, first.exact, first.exact)
    ids = torch.arange(16)
    a, b = (OPS.embedding(ids, each.tensor, each.layout_bytes, 32) for each in (first, second))
    assert torch.equal(a.double(), torch.from_numpy(first.exact))
    assert not torch.equal(a, b)
