"""Log probabilities, divergences and packed rows against numpy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from qwen_edge.engine.interface import Logits
from qwen_edge.engine.scoring import PackedRows, divergences, score_rows
from qwen_edge.errors import DamagedModelError, UsageError
from tests.engine.oracle import array

VOCABULARIES = (1, 2, 7, 8, 9, 1003, 4096)
Rows = npt.NDArray[np.float32]


def rows_of(values: Rows) -> list[Logits]:
    """Logits over the rows of an array, which has to stay alive."""
    return [Logits(row.ctypes.data, row.size) for row in values]


def random_rows(vocab: int, scale: float = 4.0, n: int = 5) -> Rows:
    return (np.random.default_rng(vocab).standard_normal((n, vocab)) * scale).astype(np.float32)


def log_softmax(values: Rows) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def kl(truth: Rows, rows: Rows) -> npt.NDArray[np.float64]:
    p, q = log_softmax(truth), log_softmax(rows)
    return (np.exp(p) * (p - q)).sum(axis=1)


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("scale", [0.0, 4.0, 300.0])
def test_log_probabilities(vocab: int, scale: float) -> None:
    values = random_rows(vocab, scale)
    tokens = [int(i) for i in np.random.default_rng(1).integers(0, vocab, len(values))]
    truth = log_softmax(values)
    for row, score in enumerate(score_rows(rows_of(values), tokens)):
        assert score.logprob == pytest.approx(truth[row, tokens[row]], rel=1e-12, abs=1e-12)
        assert score.top == values[row].argmax()


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("noise", [1e-3, 0.1, 30.0])
def test_divergences(vocab: int, noise: float) -> None:
    truth = random_rows(vocab)
    rows = truth + random_rows(vocab)[::-1] * np.float32(noise)
    found = divergences(rows_of(truth), rows_of(rows))
    assert found == pytest.approx(list(kl(truth, rows)), rel=1e-9, abs=1e-13)
    assert min(found) >= 0.0


def test_a_shift_of_all_logits_is_no_divergence() -> None:
    truth = random_rows(1003)
    moved = truth + np.float32(64.0)
    assert divergences(rows_of(truth), rows_of(truth)) == pytest.approx([0.0] * 5, abs=1e-14)
    # The shift itself is rounded to fp32.
    assert divergences(rows_of(truth), rows_of(moved)) == pytest.approx([0.0] * 5, abs=1e-9)


def test_threads_change_nothing() -> None:
    truth, rows = random_rows(4096, n=13), random_rows(4096, 3.0, n=13)
    tokens = list(range(13))
    alone = score_rows(rows_of(rows), tokens, 1), divergences(rows_of(truth), rows_of(rows), 1)
    for threads in (2, 5):
        assert score_rows(rows_of(rows), tokens, threads) == alone[0]
        assert divergences(rows_of(truth), rows_of(rows), threads) == alone[1]
        packed = [bytes(PackedRows(13, 4096).pack(rows_of(rows), n)) for n in (1, threads)]
        assert packed[0] == packed[1]


def test_the_first_of_equals_is_on_top() -> None:
    values = np.zeros((1, 100), np.float32)
    values[0, [41, 70]] = 2.0
    assert score_rows(rows_of(values), [3])[0].top == 41


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_packed_rows_are_off_by_half_a_step(vocab: int) -> None:
    values = random_rows(vocab)
    packed = PackedRows(7, vocab)
    data = bytes(packed.pack(rows_of(values)))
    assert len(data) == len(values) * (8 + 2 * vocab)
    other = PackedRows(5, vocab)
    other.view(5)[:] = data
    unpacked = other.unpack(5)
    found = np.stack([array(row) for row in unpacked])
    truth = log_softmax(values)
    steps = (values.max(axis=1) - values.min(axis=1)) / 65535
    assert (np.abs(found - truth).max(axis=1) <= 0.51 * steps + 1e-5).all()
    assert divergences(rows_of(values), unpacked) == pytest.approx([0.0] * 5, abs=1e-6)


def test_more_rows_than_there_is_room_for_are_refused() -> None:
    values = random_rows(9)
    packed = PackedRows(4, 9)
    with pytest.raises(ValueError, match="room"):
        packed.pack(rows_of(values))
    for n in (0, 5):
        with pytest.raises(ValueError, match="room"):
            packed.unpack(n)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    values = random_rows(100)
    good = rows_of(values.copy())
    values[2, 50] = bad
    with pytest.raises(DamagedModelError, match="not a number"):
        divergences(rows_of(values), good)
    with pytest.raises(DamagedModelError, match="not a number"):
        PackedRows(5, 100).pack(rows_of(values))
    if bad != -math.inf:
        with pytest.raises(DamagedModelError, match="not a number"):
            score_rows(rows_of(values), [0] * 5)


def test_what_does_not_fit_together_is_refused() -> None:
    values, others = random_rows(100), random_rows(101)
    for token in (-1, 100):
        with pytest.raises(UsageError, match="out of range"):
            score_rows(rows_of(values), [0, 1, token, 3, 4])
    with pytest.raises(UsageError, match="vocabularies differ"):
        divergences(rows_of(values), rows_of(others))
    with pytest.raises(ValueError, match="one token"):
        score_rows(rows_of(values), [1])
    assert score_rows([], []) == []
    assert divergences([], []) == []
