"""What every recorded device gets, against ``tests/golden/device_configurations.txt``.

After a change that is meant to change configurations or predictions, make the table anew and look
at the difference: ``python -m tests.session.device_table > tests/golden/device_configurations.txt``
"""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.engine.interface import KV_TYPES, EngineConfig
from qwen_edge.errors import MemoryLimitError
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.session.footprint import predict_peak
from qwen_edge.session.known_models import KNOWN_MODELS
from qwen_edge.session.plan import engine_config, make_plan
from qwen_edge.session.profile import reserve_for
from qwen_edge.session.recommendation import (
    STEADY_SHARE,
    USEFUL_CONTEXT,
    USEFUL_KV,
    recommended_model,
)
from qwen_edge.session.select import SHORTEST_CONTEXT, tier_of
from tests.host.recorded import recorded_names
from tests.session.device_table import Version, choice_for, shapes, table, versions

GOLDEN = Path(__file__).parents[1] / "golden" / "device_configurations.txt"
VERSIONS = list(versions())
# With more threads it would take a little more.
LEAST_USEFUL = EngineConfig(USEFUL_CONTEXT, USEFUL_KV, threads=16, prefill_threads=16)


def name_of(version: Version) -> str:
    return f"{version.device.name}-{version.gigabytes}"


def test_table_is_the_one_that_was_looked_at() -> None:
    assert table() == GOLDEN.read_text(), __doc__


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
def test_predicted_peak_fits_or_the_least_does_not(version: Version) -> None:
    profile = version.profile
    left_alone = profile.available_ram - reserve_for(profile)
    threads = version.device.expected["threads"]
    models = shapes()
    assert [facts.name for facts in models[1:]] == ["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"]
    for facts in models:
        chosen = choice_for(version, facts)
        if isinstance(chosen, MemoryLimitError):
            least = EngineConfig(
                min(SHORTEST_CONTEXT, facts.config.max_positions), KV_TYPES[-1], *threads
            )
            assert predict_peak(facts, least) > left_alone
            continue
        assert chosen.predicted_peak == predict_peak(facts, engine_config(chosen)) <= left_alone
        assert [chosen.threads, chosen.prefill_threads] == threads


def test_every_recorded_device_is_in_it() -> None:
    assert {version.device.name for version in VERSIONS} == set(recorded_names())
    assert len(recorded_names()) >= 15


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
def test_recommended_has_room_and_the_next_larger_has_little(version: Version) -> None:
    profile, known = version.profile, list(KNOWN_MODELS.values())
    best = recommended_model(profile)
    if best is None:
        assert predict_peak(known[0], LEAST_USEFUL) > STEADY_SHARE * profile.available_ram
        return
    chosen = choice_for(version, KNOWN_MODELS[best])
    assert not isinstance(chosen, MemoryLimitError)
    assert chosen.context >= min(USEFUL_CONTEXT, tier_of(profile.total_ram).context)
    assert chosen.predicted_peak <= profile.available_ram - reserve_for(profile)
    larger = known[list(KNOWN_MODELS).index(best) + 1 :]
    if larger and best != tier_of(profile.total_ram).largest:
        usable = STEADY_SHARE * profile.available_ram - reserve_for(profile)
        assert predict_peak(larger[0], LEAST_USEFUL) > usable


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
def test_cap_is_what_is_available_less_the_reserve(version: Version, tmp_path: Path) -> None:
    environ = {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    plan = make_plan({"model": "demo"}, environ, place=version.device.place)
    try:
        assert plan.budget == version.profile.available_ram - plan.runtime.reserve
        assert plan.runtime.predicted_peak <= plan.budget <= version.profile.available_ram
        before = own_memory().virtual
        assert before is not None
        with plan.memory_cap() as cap:
            assert cap.budget == cap.watch.budget == plan.budget
            # The soft limit leaves room for the budget and for the threads' stacks.
            assert cap.limit is not None
            assert cap.limit - before >= plan.budget - (8 << 20)
    finally:
        plan.model.close()
