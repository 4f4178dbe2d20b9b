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
from qwen_edge.session.plan import engine_config, make_plan
from qwen_edge.session.profile import reserve_for
from qwen_edge.session.select import SHORTEST_CONTEXT
from tests.session.device_table import Version, choice_for, shapes, table, versions

GOLDEN = Path(__file__).parents[1] / "golden" / "device_configurations.txt"
VERSIONS = list(versions())


def name_of(version: Version) -> str:
    return f"{version.device.name}-{version.gigabytes}"


def test_table_is_the_one_that_was_looked_at() -> None:
    assert table() == GOLDEN.read_text(), __doc__


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
def test_predicted_peak_fits_or_the_least_does_not(version: Version) -> None:
    profile = version.profile
    left_alone = profile.available_ram - reserve_for(profile)
    threads = version.device.expected["threads"]
    for facts in shapes():
        chosen = choice_for(version, facts)
        if isinstance(chosen, MemoryLimitError):
            least = EngineConfig(
                min(SHORTEST_CONTEXT, facts.config.max_positions), KV_TYPES[-1], *threads
            )
            assert predict_peak(facts, least) > left_alone
            continue
        assert chosen.predicted_peak == predict_peak(facts, engine_config(chosen)) <= left_alone
        assert [chosen.threads, chosen.prefill_threads] == threads


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
def test_cap_is_what_is_available_less_the_reserve(version: Version, tmp_path: Path) -> None:
    environ = {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    plan = make_plan({"model": "demo"}, environ, place=version.device.place)
    try:
        assert plan.budget == version.profile.available_ram - plan.runtime.reserve
        assert plan.runtime.predicted_peak <= plan.budget
        before = own_memory().virtual
        assert before is not None
        with plan.memory_cap() as cap:
            assert cap.budget == cap.watch.budget == plan.budget
            # The soft limit leaves room for the budget and for the threads' stacks.
            assert cap.limit is not None
            assert cap.limit - before >= plan.budget - (8 << 20)
    finally:
        plan.model.close()
