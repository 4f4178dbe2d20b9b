"""The measurement of the governor's cost, on the demo model."""

from __future__ import annotations

from statistics import median

import pytest

from benchmarks.governor_cost import measure
from qwen_edge.session.models import demo_path


def test_each_kind_of_call_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN_EDGE_GOVERNOR", raising=False)
    found = measure(demo_path(), 3)
    assert {kind: len(times) for kind, times in found.items()} == {
        "between_tokens": 3,
        "look": 3,
        "first_look": 1,
    }
    # A look reads files of the kernel; between tokens there is no time for that.
    assert 0 < median(found["between_tokens"]) < median(found["look"])


def test_without_a_governor_there_is_nothing_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_EDGE_GOVERNOR", "off")
    with pytest.raises(RuntimeError, match="switched off"):
        measure(demo_path(), 1)
