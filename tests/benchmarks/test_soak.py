from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.soak import MIB, Minute, judge, soak
from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path


def minutes(resident_mib: list[float], speed: list[float]) -> list[Minute]:
    return [
        Minute(1, int(r * MIB), 10 * MIB, 8, 2, 3, s, 1e9)
        for r, s in zip(resident_mib, speed, strict=True)
    ]


STEADY = minutes([100.0] * 10, [50.0] * 10)
FALLING = minutes([100.0] * 10, [50 - 2.0 * i for i in range(10)])


def test_a_short_soak_of_the_demo_model():
    with open_model(demo_path()) as model:
        figures, same = soak(model, 0.03, seed=1, threads=1)
    assert same
    assert len(figures) > 0
    assert all(m.requests > 0 and m.speed > 0 and m.yardstick > 0 for m in figures)
    assert all(m.resident > m.anonymous > MIB for m in figures)
    for name in ("files", "threads", "temporary"):
        assert len({getattr(m, name) for m in figures}) == 1


def test_steady_is_passed():
    record = judge(STEADY, 30, True, 4, 0.8)
    assert record["passed"]
    assert record["requests"] == 10


def test_growth_is_a_leak():
    growing = [100 + 0.5 * i for i in range(10)]
    record = judge(minutes(growing, [50.0] * 10), 30, True, 4, 0.8)
    assert not record["passed"]
    # 4 MiB from the middle of the first fifth to that of the last, in 24 minutes.
    assert record["rss_growth_mib_per_hour"] == 10


def test_own_memory_may_not_grow_while_mapped_memory_goes():
    growing = [replace(m, anonymous=(10 + i) * MIB) for i, m in enumerate(STEADY)]
    assert "own memory grows" in str(judge(growing, 30, True, 4, 0.8)["verdict"])


@pytest.mark.parametrize("name", ["files", "threads", "temporary"])
def test_what_is_left_over_is_a_fault(name: str):
    growing = [replace(m, **{name: getattr(m, name) + i // 4}) for i, m in enumerate(STEADY)]
    assert f"{name} grew" in str(judge(growing, 30, True, 4, 0.8)["verdict"])


def test_slowing_down_and_other_answers_are_faults():
    assert "speed fell" in str(judge(FALLING, 30, True, 4, 0.8)["verdict"])
    assert not judge(STEADY, 30, False, 4, 0.8)["passed"]


def test_a_machine_that_slows_down_is_no_fault():
    slower = [replace(m, yardstick=m.speed * 2e7) for m in FALLING]
    assert judge(slower, 30, True, 4, 0.8)["passed"]
