"""Torch operators over the native kernels and in plain torch: weights and rows.

Both namespaces pass the same tests, against the native dequantization and float64.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen_edge.quant.layout import INT4, Layout
from tests.model.operator_cases import (
    FORMATS,
    LIMIT,
    Weight,
    activations,
    layouts_of,
    make_weight,
    quantized,
    relative_error,
)
from tests.quant.conftest import Native
from tests.quant.test_packing import LAYOUTS, random_parts

ROOT = Path(__file__).parents[2]


# --- embedding


@settings(max_examples=150, deadline=None)
@given(layout=LAYOUTS, seed=st.integers(0, 1000))
def test_rows_are_dequantized_exactly(ops: Any, layout: Layout, seed: int) -> None:
    data = Native.pack(layout, *random_parts(layout, seed)).data
    tensor = torch.from_numpy(data).view(layout.tiles, layout.groups, layout.block_bytes)
    weight = Weight(layout, tensor, np.empty(0), np.empty(0))
    ids = torch.randperm(layout.rows)
    values = ops.embedding(ids, tensor, weight.layout_bytes, layout.cols).numpy()
    expected = Native.dequantize(layout, data)[ids.numpy()]
    assert np.array_equal(values, expected)


@pytest.mark.parametrize("form", ["f32", "f16", "bf16", "levels", "int8 zero points"])
def test_embedding_of_repeated_ids(ops: Any, form: str) -> None:
    weight = make_weight(FORMATS[form], 70, 100)
    ids = torch.tensor([3, 69, 3, 0, 16, 16] * 200)
    values = ops.embedding(ids, weight.tensor, weight.layout_bytes, 100)
    assert values.dtype == torch.float32
    assert np.array_equal(values.double().numpy(), weight.exact[ids.numpy()])


def test_layouts_are_told_apart(ops: Any) -> None:
    first = make_weight(FORMATS["int4"], 16, 32)
    other = Layout("q4", 16, 32, 32, False, tuple(reversed(INT4)))
    second = Weight(other, first.tensor, first.exact, first.exact)
    ids = torch.arange(16)
    a, b = (ops.embedding(ids, each.tensor, each.layout_bytes, 32) for each in (first, second))
    assert torch.equal(a.double(), torch.from_numpy(first.exact))
    assert not torch.equal(a, b)


# --- linear


@pytest.mark.parametrize("shape", [(1, 1), (16, 128), (37, 96), (70, 300)])
@pytest.mark.parametrize("form", FORMATS)
def test_products(ops: Any, form: str, shape: tuple[int, int]) -> None:
    weight = make_weight(FORMATS[form], *shape)
    for n in (1, 7):
        x = activations(n, shape[1])
        args = ([weight.tensor], weight.layout_bytes, None, shape[0])
        truth = x.double().numpy() @ weight.exact.T
        assert relative_error(ops.linear(x, *args, True), truth) <= LIMIT
        if weight.layout.packed:
            truth = quantized(x.numpy()) @ weight.rounded.T
        assert relative_error(ops.linear(x, *args, False), truth) <= LIMIT


@pytest.mark.parametrize("fp32", [False, True])
def test_several_matrices_side_by_side(ops: Any, fp32: bool) -> None:
    forms = {"int4": 48, "levels": 5, "bf16": 33, "int8": 17}
    weights = [make_weight(FORMATS[form], rows, 160, rows) for form, rows in forms.items()]
    # Rows that do not follow each other in memory, in an order of their own.
    x = activations(5, 200)[:, 20:180]
    order = torch.randperm(160, dtype=torch.int32)
    tensors = [weight.tensor for weight in weights]
    out = ops.linear(x, tensors, layouts_of(*weights), order, 103, fp32)
    ordered = x.double().numpy()[:, order.numpy()]
    rounded = ordered if fp32 else quantized(ordered.astype(np.float32))
    parts = [
        ordered @ each.exact.T if fp32 or not each.layout.packed else rounded @ each.rounded.T
        for each in weights
    ]
    assert out.is_contiguous()
    for ours, truth in zip(out.split([48, 5, 33, 17], 1), parts, strict=True):
        assert relative_error(ours, truth) <= LIMIT


def test_more_weights_than_are_floats_at_a_time(ops: Any) -> None:
    weight = make_weight(FORMATS["minimums"], 2085, 1030)
    x = activations(3, 1030)
    out = ops.linear(x, [weight.tensor], weight.layout_bytes, None, 2085, True)
    assert relative_error(out, x.double().numpy() @ weight.exact.T) <= LIMIT
    ids = torch.randint(0, 2085, (300,))
    rows = ops.embedding(ids, weight.tensor, weight.layout_bytes, 1030)
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


def test_activations_of_zeros_and_of_next_to_nothing(ops: Any) -> None:
    weight = make_weight(FORMATS["int4"], 20, 64)
    x = torch.zeros(3, 64)
    x[1, 3], x[2, 40] = 1e-44, -1e-37
    out = ops.linear(x, [weight.tensor], weight.layout_bytes, None, 20, False)
    assert out.isfinite().all()
    assert out.abs().max() < 1e-30


# --- rows


@pytest.mark.parametrize("shape", [(1, 96), (5, 1003), (3, 4, 32)])
def test_rms_norm(ops: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape[:-1], shape[-1], generator=torch.Generator().manual_seed(1))
    wide = torch.cat([x, x], 1)[:, : shape[1]]  # steps over what is not its own
    weight = torch.rand(shape[-1]) + 0.5
    plain = x.double()
    truth = plain / (plain.square().mean(-1, keepdim=True) + 0.01).sqrt() * weight
    for source in (x, wide):
        y = ops.rms_norm(source, weight, 0.01)
        assert y.is_contiguous()
        assert relative_error(y, truth) <= LIMIT


def test_rotate(ops: Any) -> None:
    x = torch.randn(5, 9, 64)[:, 2:6]
    angles = 10 * torch.randn(5, 32)
    low, high = x.double().chunk(2, 2)
    turned = torch.complex(low, high) * torch.polar(torch.ones(5, 1, 32), angles[:, None]).cdouble()
    truth = torch.cat([turned.real, turned.imag], 2)
    y = ops.rotate(x, angles.cos(), angles.sin())
    assert y.is_contiguous()
    assert relative_error(y, truth) <= LIMIT


def test_silu_mul(ops: Any) -> None:
    x = 5 * torch.randn(4, 300)[:, 10:264]
    gate, up = x.double().chunk(2, 1)
    y = ops.silu_mul(x)
    assert y.is_contiguous()
    assert relative_error(y, gate * torch.sigmoid(gate) * up) <= LIMIT
    extremes = torch.tensor([[-200.0, 200.0, 0.0, 1.0, 1.0, 1.0]])
    assert torch.allclose(ops.silu_mul(extremes), torch.tensor([[0.0, 200.0, 0.0]]), atol=1e-30)


def test_rows_are_refused(ops: Any) -> None:
    x, heads, angles = torch.randn(2, 65), torch.randn(2, 3, 32), torch.randn(2, 16)
    for name, args in (
        ("rms_norm", (x, torch.ones(64), 1e-6)),
        ("rms_norm", (x.double(), torch.ones(65), 1e-6)),
        ("rms_norm", (x, torch.ones(65).double(), 1e-6)),
        ("rms_norm", (x[0], torch.ones(65), 1e-6)),
        ("rotate", (heads, angles[:1], angles)),
        ("rotate", (heads, angles, angles[:, 1:])),
        ("rotate", (heads.half(), angles, angles)),
        ("rotate", (heads[0], angles, angles)),
        ("rotate", (heads[..., 1:], angles, angles)),
        ("silu_mul", (x,)),
        ("silu_mul", (heads,)),
        ("silu_mul", (x[:, :64].half(),)),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            getattr(ops, name)(*args)


# --- arguments that do not fit


def bad_linear() -> dict[str, dict[str, Any]]:
    weight = make_weight(FORMATS["int4"], 40, 96)
    x, layout = activations(2, 96), weight.layout_bytes
    order = torch.arange(96, dtype=torch.int32)

    def changed(tensor: Tensor, at: Any, value: int) -> Tensor:
        copy = tensor.clone()
        copy[at] = value
        return copy

    dense = Weight(Layout("bf16", 40, 96), weight.tensor, weight.exact, weight.exact)
    return {
        "other columns": {"x": activations(2, 128)},
        "half activations": {"x": x.half()},
        "one row": {"x": x[0]},
        "weights cut off": {"weights": [weight.tensor[:2]]},
        "blocks cut off": {"weights": [weight.tensor[..., :-1]]},
        "no weights": {"weights": [], "layouts": layout[:0], "rows": 0},
        "no layout": {"layouts": layout[:0]},
        "a short layout": {"layouts": layout[:, :-1]},
        "a signed layout": {"layouts": layout.view(torch.int8)},
        "an unknown type": {"layouts": changed(layout, (0, 0), 5)},
        "more rows than stored": {"layouts": changed(layout, (0, 4), 49), "rows": 49},
        "no rows": {"layouts": changed(layout, (0, 4), 0), "rows": 0},
        "an odd group": {"layouts": changed(layout, (0, 12), 48)},
        "zero points without a place": {"layouts": changed(layout, (0, 20), 1)},
        "minimums that are not there": {"layouts": changed(layout, (0, 16), 1)},
        "a dense layout": {"layouts": dense.layout_bytes},
        "another sum of rows": {"rows": 41},
        "a short order": {"order": order[:-1]},
        "a long order": {"order": order.long()},
        "an order beyond": {"order": changed(order, 5, 96)},
        "an order below": {"order": changed(order, 5, -1)},
    }


@pytest.mark.parametrize("case", bad_linear())
def test_linear_refuses(ops: Any, case: str) -> None:
    weight = make_weight(FORMATS["int4"], 40, 96)
    good = {"x": activations(2, 96), "weights": [weight.tensor], "layouts": weight.layout_bytes,
            "order": None, "rows": 40, "fp32": False}  # fmt: skip
    assert ops.linear(**good).shape == (2, 40)
    with pytest.raises((ValueError, RuntimeError)):
        ops.linear(**good | bad_linear()[case])


@pytest.mark.parametrize("form", ["int8", "bf16"])
def test_embedding_refuses(ops: Any, form: str) -> None:
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
            ops.embedding(ids, weight.tensor, weight.layout_bytes, cols)
