"""Error sums and what is derived from them."""

from __future__ import annotations

import math

import pytest

from qwen_edge.quant.error import QuantizationError


def test_figures() -> None:
    error = QuantizationError(squared_error=1.0, squared_weight=100.0, largest_error=0.5, count=25)
    assert error.relative == pytest.approx(0.1)
    assert error.rms == pytest.approx(0.2)
    assert error.sqnr_db == pytest.approx(20.0)
    assert error.as_dict() == {"relative": 0.1, "rms": 0.2, "largest": 0.5, "sqnr_db": 20.0}


def test_errors_add_up() -> None:
    total = sum(
        (QuantizationError(1, 50, 0.25, 10), QuantizationError(3, 50, 0.125, 30)),
        QuantizationError(),
    )
    assert total == QuantizationError(4, 100, 0.25, 40)
    assert total.relative == pytest.approx(0.2)


def test_no_error_and_no_weights() -> None:
    assert QuantizationError().relative == 0
    assert QuantizationError().rms == 0
    assert QuantizationError(0, 5, 0, 5).sqnr_db == math.inf
    assert "sqnr_db" not in QuantizationError(0, 5, 0, 5).as_dict()
    assert QuantizationError(1, 0, 1, 1).relative == math.inf
