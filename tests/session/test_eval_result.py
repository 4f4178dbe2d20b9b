"""The statistics of an evaluation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qwen_edge.session.eval_result import (
    Choices,
    Estimate,
    Judgement,
    Perplexity,
    divergence_of,
    interval,
    mean_of,
    quantile,
)


def test_mean_and_standard_error() -> None:
    values = [float(value) for value in np.random.default_rng(0).exponential(3.0, 1000)]
    found = mean_of(values)
    assert found.value == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(1000))
    assert mean_of([2.5]) == Estimate(2.5, 0.0)


def test_quantiles_are_numpys() -> None:
    values = sorted(float(value) for value in np.random.default_rng(1).normal(0, 1, 123))
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # Values of the textbook example and of R's prop.test(correct = FALSE).
    [(15, 50, 0.1910, 0.4375), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_wilsons_interval(hits: int, trials: int, low: float, high: float) -> None:
    assert interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_perplexity_is_e_to_the_mean() -> None:
    found = Perplexity(3, mean_of([1.0, 2.0, 3.0]))
    assert found.perplexity.value == pytest.approx(math.exp(2))
    assert found.perplexity.error == pytest.approx(math.exp(2) / math.sqrt(3))
    hopeless = Perplexity(1, Estimate(1e6, 0.0))
    assert hopeless.as_json()["perplexity"] is None
    json.dumps(hopeless.as_json(), allow_nan=False)


def test_divergence_sums_up_positions() -> None:
    found = divergence_of({"model": "m"}, [0.1, 0.0, 0.5], 2, [1.0, 2.0, 3.0], [1.5, 2.0, 2.0])
    assert (found.mean.value, found.median, found.largest) == pytest.approx((0.2, 0.1, 0.5))
    assert found.perplexity.nats.value == pytest.approx(5.5 / 3)
    assert found.change.value == pytest.approx(0.5 / 3)
    # The differences are paired: -0.5, 0 and 1.
    assert found.change.error == pytest.approx(np.std([-0.5, 0.0, 1.0], ddof=1) / math.sqrt(3))
    table = found.as_json()
    assert table["same_top"] == pytest.approx(2 / 3)
    assert table["delta_perplexity"] == pytest.approx(math.exp(2.0) - math.exp(5.5 / 3))
    assert table["perplexity_ratio"] == pytest.approx(math.exp(0.5 / 3))


def test_accuracy_by_category() -> None:
    found = Choices(
        [
            Judgement(1, "b", 0, 0, (-1.0, -2.0)),
            Judgement(2, "a", 1, 0, (-1.0, -2.0, -3.0, -4.0)),
            Judgement(3, "b", 1, 1, (-2.0, -1.0)),
            Judgement(5, "", 0, 0, (-1.0, -2.0)),
        ]
    )
    assert (found.total.right, found.total.asked, found.total.accuracy) == (3, 4, 0.75)
    assert found.guessing == pytest.approx((0.5 + 0.25 + 0.5 + 0.5) / 4)
    assert {name: tuple(tally) for name, tally in found.categories().items()} == {
        "b": (2, 2), "a": (0, 1),
    }  # fmt: skip
    assert list(found.categories()) == ["b", "a"]
