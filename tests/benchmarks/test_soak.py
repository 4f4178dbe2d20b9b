from __future__ import annotations

from benchmarks.soak import MIB, Minute, judge, soak
from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path


def minutes(resident_mib: list[float], speed: list[float]) -> list[Minute]:
    return [Minute(1, int(r * MIB), s) for r, s in zip(resident_mib, speed, strict=True)]


def test_a_short_soak_of_the_demo_model():
    with open_model(demo_path()) as model:
        figures, same = soak(model, 0.03, seed=1, threads=1)
    assert same
    assert len(figures) == 10
    assert sum(m.requests for m in figures) > 0
    assert all(m.speed > 0 and m.resident > MIB for m in figures)


def test_steady_is_passed():
    record = judge(minutes([100.0] * 10, [50.0] * 10), 30, True, 4, 0.8)
    assert record["passed"]
    assert record["requests"] == 10


def test_growth_is_a_leak():
    growing = [100 + 0.5 * i for i in range(10)]
    record = judge(minutes(growing, [50.0] * 10), 30, True, 4, 0.8)
    assert not record["passed"]
    # 4 MiB from the middle of the first fifth to that of the last, in 24 minutes.
    assert record["rss_growth_mib_per_hour"] == 10


def test_slowing_down_and_other_answers_are_faults():
    steady, falling = [100.0] * 10, [50 - 2 * i for i in range(10)]
    assert "speed fell" in str(judge(minutes(steady, falling), 30, True, 4, 0.8)["verdict"])
    assert not judge(minutes(steady, [50.0] * 10), 30, False, 4, 0.8)["passed"]
