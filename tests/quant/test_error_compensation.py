"""Error compensation against GPTQ as its paper has it, written down in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from qwen_edge.errors import QwenEdgeError
from qwen_edge.quant.error_compensation import Factors, add_moments, factorize
from qwen_edge.quant.layout import INT4, IQ4_NL, UINT4, Layout
from qwen_edge.quant.round_to_nearest import quantize

Floats = npt.NDArray[np.float32]
DAMPING = 0.01


def correlated(n: int, cols: int, seed: int = 1) -> Floats:
    """Inputs of unequal sizes that go together, as those of a trained model do."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((cols, cols)) * 0.3 + np.eye(cols)
    sizes = np.exp(random.standard_normal(cols))
    return (random.standard_normal((n, cols)) @ mixing * sizes).astype(np.float32)


def moments_of(inputs: Floats, threads: int = 2, parts: int = 1) -> Floats:
    cols = inputs.shape[1]
    moments = np.zeros((cols, cols), np.float32)
    for part in np.array_split(inputs, parts):
        rows = np.ascontiguousarray(part)
        add_moments(rows.ctypes.data, len(rows), cols, moments.ctypes.data, threads)
    return moments


def factors_of(inputs: Floats, threads: int = 2, damping: float = DAMPING) -> Factors:
    moments = moments_of(inputs, threads)
    return factorize(moments.ctypes.data, inputs.shape[1], damping, threads)


def compensated(layout: Layout, weights: Floats, factors: Factors, threads: int = 2) -> bytes:
    data = np.zeros(layout.nbytes, np.uint8)
    quantize(
        layout,
        weights.ctypes.data,
        "f32",
        data.ctypes.data,
        importance=factors.pivots,
        panels=factors.panels,
        threads=threads,
    )
    return data.tobytes()


def unit_triangle(factors: Factors, cols: int) -> npt.NDArray[np.float64]:
    """U, from its panels."""
    panels = np.ctypeslib.as_array(factors.panels).astype(np.float64)
    result, at = np.zeros((cols, cols)), 0
    for first in range(0, cols, 32):
        panel = panels[at : at + 32 * (first + 32)].reshape(first + 32, 32)
        at += panel.size
        result[: first + 32, first : first + 32] = panel[:cols, : cols - first]
    assert at == panels.size
    return result


def gptq(
    weights: Floats, moments: npt.NDArray[np.float64], scales: Floats, minimums: Floats,
    group: int, levels: Floats,
) -> Floats:  # fmt: skip
    """The loop of the paper's algorithm 1 with given scales, in double precision."""
    damped = moments + DAMPING * np.mean(np.diag(moments)) * np.eye(len(moments))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest, result = weights.astype(np.float64), np.zeros_like(weights)
    for k in range(weights.shape[1]):
        scale, minimum = (a[:, k // group].astype(np.float64) for a in (scales, minimums))
        inverse = np.where(scale == 0, 0, 1 / np.where(scale == 0, 1, scale))
        wanted = ((rest[:, k] - minimum) * inverse)[:, None]
        value = levels[np.abs(wanted - levels[None]).argmin(1)]
        result[:, k] = value * scale + minimum
        error = (rest[:, k] - result[:, k]) / upper[k, k]
        rest[:, k + 1 :] -= error[:, None] * upper[k, k + 1 :]
    return result


@pytest.mark.parametrize(("n", "cols"), [(1, 1), (40, 33), (300, 160), (257, 515)])
def test_moments(n: int, cols: int) -> None:
    inputs = correlated(n, cols)
    exact = inputs.astype(np.float64).T @ inputs
    found = moments_of(inputs, parts=3)
    upper = np.triu_indices(cols)
    np.testing.assert_allclose(found[upper], exact[upper], rtol=0, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize(("n", "cols"), [(1, 1), (40, 33), (500, 160), (100, 260)])
def test_factors_multiply_to_the_damped_moments(n: int, cols: int) -> None:
    inputs = correlated(n, cols)
    factors = factors_of(inputs)
    exact = inputs.astype(np.float64).T @ inputs
    exact += DAMPING * np.mean(np.diag(exact)) * np.eye(cols)
    unit = unit_triangle(factors, cols)
    np.testing.assert_array_equal(np.diag(unit), 1)
    assert not np.tril(unit, -1).any()
    found = unit * np.ctypeslib.as_array(factors.pivots) @ unit.T
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_inputs_that_leave_columns_open_or_are_zero() -> None:
    """Fewer rows than columns and no damping at all: enough is added to go on."""
    inputs = correlated(5, 64)
    inputs[:, 7] = 0
    for given in (inputs, np.zeros_like(inputs)):
        factors = factors_of(given, damping=0)
        assert np.isfinite(np.ctypeslib.as_array(factors.panels)).all()
        assert (np.ctypeslib.as_array(factors.pivots) > 0).all()


def test_inputs_that_are_not_finite() -> None:
    inputs = correlated(50, 40)
    inputs[3, 5] = np.inf
    with pytest.raises(QwenEdgeError, match="infinite activations"):
        factors_of(inputs)


@pytest.mark.parametrize(
    "layout",
    [
        Layout("q4", 40, 160, 32, False, INT4),
        Layout("q4", 16, 160, 32, False, IQ4_NL),
        Layout("q4", 24, 150, 64, True, UINT4),
        Layout("q4", 5, 256, 128, False, INT4),
        Layout("q8", 20, 96, 32),
    ],
)
def test_the_codes_are_those_of_gptq(layout: Layout, native) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(3)
    weights = (random.standard_normal((layout.rows, layout.cols)) * 0.05).astype(np.float32)
    inputs = correlated(400, layout.cols)
    data = compensated(layout, weights, factors_of(inputs))
    packed = native.unpack(layout, np.frombuffer(data, np.uint8))
    levels = np.arange(-127, 128) if layout.type == "q8" else np.array(layout.codebook)
    exact = inputs.astype(np.float64).T @ inputs
    expected = gptq(
        weights, exact, packed.scales, packed.minimums, layout.group, levels.astype(np.float32)
    )
    # A weight half-way between two codes may fall to either side, and takes its row along.
    same = np.isclose(packed.values(), expected, rtol=0, atol=1e-6).all(1)
    assert same.mean() > 0.9


@pytest.mark.parametrize("codebook", [INT4, IQ4_NL])
def test_outputs_are_nearer_than_those_of_plain_rounding(
    codebook: tuple[int, ...], native  # type: ignore[no-untyped-def]
) -> None:  # fmt: skip
    layout = Layout("q4", 64, 256, 32, False, codebook)
    random = np.random.default_rng(4)
    weights = (random.standard_normal((64, 256)) * 0.05).astype(np.float32)
    inputs, others = np.array_split(correlated(1200, 256), 2)

    def output_error(data: bytes) -> float:
        off = native.dequantize(layout, np.frombuffer(data, np.uint8)) - weights
        return float(np.linalg.norm(others @ off.T))

    plain = np.zeros(layout.nbytes, np.uint8)
    quantize(layout, weights.ctypes.data, "f32", plain.ctypes.data)
    nearest = output_error(plain.tobytes())
    importance = (inputs**2).sum(0)
    quantize(
        layout, weights.ctypes.data, "f32", plain.ctypes.data, importance=importance.ctypes.data
    )
    aware = output_error(plain.tobytes())
    assert output_error(compensated(layout, weights, factors_of(inputs))) < 0.7 * nearest
    assert aware < nearest


def test_the_threads_do_not_matter() -> None:
    layout = Layout("q4", 200, 320, 32, False, IQ4_NL)
    weights = np.random.default_rng(5).standard_normal((200, 320)).astype(np.float32)
    inputs = correlated(700, 320)
    made = {
        compensated(layout, weights, factors_of(inputs, threads), threads)
        for threads in (1, 2, 3, 7)
    }
    assert len(made) == 1
