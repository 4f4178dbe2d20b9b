"""What a benchmark leaves out, how often it measures, and when a difference is one."""

from __future__ import annotations

import random

import pytest

from qwen_edge.session.bench_compare import difference
from qwen_edge.session.bench_plan import (
    FEWEST,
    MOST,
    Speed,
    cost,
    decode_steps,
    make_scope,
    plan_repeats,
)
from qwen_edge.session.bench_result import Measure, Part
from qwen_edge.session.bench_stability import expected_seconds, tokens_per_turn
from qwen_edge.session.footprint import predict_peak
from qwen_edge.session.plan import make_plan

# A slow phone, in tokens a second.
SLOW = Speed(prefill=20, decode=10, bandwidth_seconds=0.15)
FAST = Speed(prefill=1000, decode=90, bandwidth_seconds=0.05)


def test_repeats_keep_to_the_time() -> None:
    generator = random.Random(5)
    for _ in range(200):
        costs = [generator.expovariate(1) for _ in range(12)]
        seconds = generator.uniform(0, 60)
        repeats = plan_repeats(costs, seconds)
        spent = sum(one * count for one, count in zip(costs, repeats, strict=True))
        assert spent <= max(seconds, costs[0]) + 1e-9
        assert repeats[0] >= 1
        assert all(count in (0, 1) or FEWEST <= count <= MOST for count in repeats)
    assert plan_repeats([1.0] * 4, 1000) == [MOST] * 4
    assert plan_repeats([1.0, 1.0, 50.0, 1.0], 30)[2] == 0


def test_a_slow_phone_gets_a_benchmark_within_its_time() -> None:
    share = 58_240 / 335e6
    parts = (Part("decode", 0), Part("prefill", 128), Part("decode", 8192), Part("prefill", 2048))
    steps = decode_steps(SLOW, 1.5)
    costs = [cost(part, SLOW, steps, 15, share) for part in parts]
    assert steps == 15
    assert costs[1] == pytest.approx(128 / 20, rel=0.3)
    assert 1.5 < costs[0] < costs[2] < 10
    assert costs[3] > 100
    repeats = plan_repeats(costs, 90)
    assert min(repeats[:3]) >= FEWEST
    assert repeats[3] == 0
    tokens = tokens_per_turn(SLOW, 45)
    assert tokens >= 4
    assert expected_seconds(SLOW, tokens) <= 45
    assert tokens_per_turn(SLOW, 20) == 0
    assert tokens_per_turn(FAST, 45) == 32


def test_memory_decides_which_depths_are_measured() -> None:
    plan = make_plan({"model": "demo"})
    with plan.model:
        small = predict_peak(plan.facts, plan.engine, 300)
        roomy = make_scope(plan, 1 << 20)
        tight_plan = make_plan({"model": "demo", "memory-cap": "auto"})
        with tight_plan.model:
            from dataclasses import replace

            profile = replace(
                tight_plan.profile, available_ram=small + (1 << 20), total_ram=1 << 28
            )
            settings = make_plan({"model": "demo", "reserve": "1K"}).settings
            tight = make_scope(replace(tight_plan, profile=profile, settings=settings), 1 << 20)
    assert Part("prefill", 2048) in roomy.parts
    assert Part("prefill", 2048) not in tight.parts
    assert {Part("decode", 0), Part("prefill", 128)} <= set(tight.parts)
    said = [str(remark.template.format(**remark.values)) for remark in tight.remarks]
    assert any("prefill of 2,048 tokens is left out: it would take" in line for line in said)


@pytest.mark.parametrize(
    ("key", "first", "second", "verdict"),
    [
        ("decode", (100, 101, 99), (120, 121, 119), "faster"),
        ("decode", (120, 121, 119), (100, 101, 99), "slower"),
        ("load", (1.0, 1.01, 0.99), (0.5, 0.51, 0.49), "faster"),
        ("peak-memory", (500, 501, 502), (400, 401, 402), "less"),
        ("peak-memory", (400, 401, 402), (500, 501, 502), "more"),
        ("decode", (100, 101, 99), (102, 103, 101.5), "noise"),
        ("decode", (100, 130, 80), (120, 100, 140), "noise"),
        ("decode", (100,), (150,), "unclear"),
        ("bandwidth", (100, 101, 99), (150, 151, 149), ""),
        # One outlier of five does not hide a difference.
        ("decode", (100, 101, 99, 100, 100), (150, 151, 149, 150, 80), "faster"),
    ],
)
def test_verdicts(
    key: str, first: tuple[float, ...], second: tuple[float, ...], verdict: str
) -> None:
    found = difference(Measure(key, 0, first), Measure(key, 0, second))
    assert found.verdict == verdict


def test_noise_is_seldom_taken_for_a_difference() -> None:
    generator = random.Random(1)

    def measure(middle: float) -> Measure:
        return Measure("decode", 0, tuple(generator.gauss(middle, 5) for _ in range(5)))

    marked = sum(difference(measure(100), measure(100)).verdict != "noise" for _ in range(2000))
    assert marked < 80
    found = sum(difference(measure(100), measure(150)).verdict == "faster" for _ in range(200))
    assert found > 180
