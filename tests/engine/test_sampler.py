"""The sampler against distributions computed with numpy."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from qwen_edge.engine.interface import Logits, SamplingParams
from qwen_edge.engine.sampler import Sampler, token_logprobs
from qwen_edge.errors import DamagedModelError, UsageError

DRAWS = 20_000


def logits_of(values: np.ndarray) -> Logits:
    assert values.dtype == np.float32
    return Logits(values.ctypes.data, len(values))


def softmax(values: np.ndarray, temperature: float) -> np.ndarray:
    scaled = values.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def draw(values: np.ndarray, params: SamplingParams, draws: int = DRAWS) -> Counter[int]:
    sampler = Sampler(len(values), params)
    return Counter(sampler.sample(logits_of(values)) for _ in range(draws))


def assert_distribution(counts: Counter[int], expected: np.ndarray) -> None:
    """Every frequency within five standard deviations, and nothing of probability 0."""
    draws = sum(counts.values())
    assert all(expected[token] > 0 for token in counts)
    for token, probability in enumerate(expected):
        sigma = math.sqrt(draws * probability * (1 - probability))
        assert abs(counts[token] - draws * probability) <= 5 * sigma + 1, token


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, 500).astype(np.float32)


def test_greedy_takes_the_largest_and_the_first_of_equals(values: np.ndarray) -> None:
    tied = values.copy()
    tied[[17, 400]] = values.max() + 1
    assert set(draw(tied, SamplingParams(temperature=0), 5)) == {17}
    assert set(draw(tied, SamplingParams(temperature=1, top_k=1), 5)) == {17}


def test_whole_distribution(values: np.ndarray) -> None:
    params = SamplingParams(temperature=0.8, top_k=0, top_p=1.0, seed=3)
    assert_distribution(draw(values, params), softmax(values, 0.8))


def test_top_k(values: np.ndarray) -> None:
    kept = np.argsort(-values)[:20]
    expected = np.zeros(len(values))
    expected[kept] = softmax(values[kept], 1.3)
    params = SamplingParams(temperature=1.3, top_k=20, top_p=1.0, seed=3)
    assert_distribution(draw(values, params), expected)


def nucleus(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """The smallest set of most likely ids whose probability reaches top_p, renormalized."""
    order = np.argsort(-probabilities, kind="stable")
    cumulative = np.cumsum(probabilities[order])
    kept = order[: int(np.searchsorted(cumulative, top_p)) + 1]
    expected = np.zeros(len(probabilities))
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    return expected


@pytest.mark.parametrize("top_p", [0.1, 0.8, 0.95, 0.9999])
def test_top_p_over_the_whole_vocabulary(values: np.ndarray, top_p: float) -> None:
    params = SamplingParams(temperature=1.5, top_k=0, top_p=top_p, seed=5)
    assert_distribution(draw(values, params), nucleus(softmax(values, 1.5), top_p))


def test_top_k_then_top_p(values: np.ndarray) -> None:
    kept = np.argsort(-values)[:20]
    after_top_k = np.zeros(len(values))
    after_top_k[kept] = softmax(values[kept], 0.7)
    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.8, seed=6)
    assert_distribution(draw(values, params), nucleus(after_top_k, 0.8))


def test_min_p(values: np.ndarray) -> None:
    expected = softmax(values, 1.0)
    expected[expected < 0.1 * expected.max()] = 0
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.1, seed=7)
    assert_distribution(draw(values, params), expected / expected.sum())


def test_seed_decides_the_draws(values: np.ndarray) -> None:
    def sequence(seed: int) -> list[int]:
        sampler = Sampler(len(values), SamplingParams(top_k=0, top_p=1.0, seed=seed))
        return [sampler.sample(logits_of(values)) for _ in range(50)]

    assert sequence(11) == sequence(11)
    assert sequence(11) != sequence(12)
    first, second = (Sampler(500, SamplingParams(seed=None)).seed for _ in range(2))
    assert first != second


def test_penalties_change_seen_tokens_alone_and_leave_the_logits(values: np.ndarray) -> None:
    before = values.copy()
    order = np.argsort(-values)
    best, second = int(order[0]), int(order[1])
    presence = Sampler(500, SamplingParams(temperature=0, presence_penalty=50.0))
    presence.accept([best], generated=False)
    assert presence.sample(logits_of(values)) == best
    presence.accept([best], generated=True)
    assert presence.sample(logits_of(values)) == second
    repetition = Sampler(500, SamplingParams(temperature=0, repetition_penalty=100.0))
    repetition.accept([best], generated=False)
    assert repetition.sample(logits_of(values)) == second
    assert np.array_equal(values, before)


def test_repetition_penalty_lowers_negative_logits() -> None:
    values = np.array([-1.0, -1.5, -9.0], np.float32)
    sampler = Sampler(3, SamplingParams(temperature=0, repetition_penalty=2.0))
    sampler.accept([0], generated=True)
    assert sampler.sample(logits_of(values)) == 1


def test_bias_and_allowed_ids(values: np.ndarray) -> None:
    biased = SamplingParams(temperature=0, logit_bias={3: 100.0})
    assert Sampler(500, biased).sample(logits_of(values)) == 3
    sampler = Sampler(500, SamplingParams(temperature=1.0, top_k=0, top_p=1.0, seed=1))
    sampler.set_allowed([5, 499])
    assert {sampler.sample(logits_of(values)) for _ in range(300)} == {5, 499}
    with pytest.raises(UsageError):
        sampler.set_allowed([])
    sampler.set_allowed(None)
    assert len({sampler.sample(logits_of(values)) for _ in range(300)}) > 10


def test_logits_that_are_not_numbers() -> None:
    for params in (SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_k=0)):
        values = np.full(200, np.nan, np.float32)
        with pytest.raises(DamagedModelError):
            Sampler(200, params).sample(logits_of(values))
        values[150] = 1.0
        assert Sampler(200, params).sample(logits_of(values)) == 150
        values[:] = -np.inf
        values[7] = 0
        assert Sampler(200, params).sample(logits_of(values)) == 7


def test_real_vocabulary_size() -> None:
    values = np.random.default_rng(2).normal(0, 3, 151_936).astype(np.float32)
    order = np.argsort(-values, kind="stable")
    token, expected = int(order[1000]), softmax(values, 1.0)
    own, top = token_logprobs(logits_of(values), token, 50)
    assert [i for i, _ in top] == order[:50].tolist()
    assert own == pytest.approx(math.log(expected[token]), abs=1e-5)
    for i, logprob in top:
        assert logprob == pytest.approx(math.log(expected[i]), abs=1e-5)
    counts = draw(values, SamplingParams(temperature=0.6, top_k=20, top_p=1.0, seed=1), 2000)
    assert set(counts) <= set(order[:20].tolist())


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=-1),
        SamplingParams(temperature=math.nan),
        SamplingParams(top_p=0),
        SamplingParams(top_p=1.1),
        SamplingParams(min_p=-0.1),
        SamplingParams(top_k=-1),
        SamplingParams(repetition_penalty=0),
        SamplingParams(presence_penalty=math.inf),
        SamplingParams(logit_bias={500: 1.0}),
        SamplingParams(logit_bias={1: math.nan}),
    ],
)
def test_parameters_out_of_range(params: SamplingParams) -> None:
    with pytest.raises(UsageError):
        Sampler(500, params)
    with pytest.raises(UsageError):
        Sampler(500, SamplingParams()).accept([500], generated=True)
