"""What is kept of a calibration, when it counts, and what the plan makes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.host.paths import calibration_file
from qwen_edge.host.place import Place
from qwen_edge.session.calibration import (
    Result,
    age_in_days,
    read_calibration,
    write_calibration,
)
from qwen_edge.session.diagnosis import diagnose
from qwen_edge.session.plan import Plan, make_plan
from qwen_edge.session.profile import read_profile
from qwen_edge.session.select import Calibrated
from tests.cli.running import TINY
from tests.host.recorded import recorded

PLACE = recorded("redmi_note_9").place
PROFILE = read_profile(PLACE)
RESULT = Result(Calibrated(1, 5, (6, 7)), 12.5, 40.0, 1.7e9)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}


def planned(environ: dict[str, str], place: Place = PLACE, **flags: object) -> Plan:
    plan = make_plan({"model": "demo", **flags}, environ, place=place)
    plan.model.close()
    return plan


def learn(environ: dict[str, str], result: Result = RESULT) -> None:
    """Keeps a result for the demo model's shape."""
    plan = planned(environ)
    write_calibration(plan.profile, plan.facts.config, plan.facts.bits, result, environ)


def origins(plan: Plan) -> dict[str, tuple[str, str]]:
    return {line.key: (line.value, line.origin) for line in plan.settings.explain(plan.runtime)}


def test_results_are_kept_by_device_and_shape(environ: dict[str, str]) -> None:
    assert read_calibration(PROFILE, TINY, 4, environ) == (None, False)
    write_calibration(PROFILE, TINY, 4, RESULT, environ)
    other = RESULT._replace(chosen=Calibrated(2, 8, ()))
    write_calibration(PROFILE, replace(TINY, layers=3), 4, other, environ)
    assert read_calibration(PROFILE, TINY, 4, environ) == (RESULT, False)
    assert read_calibration(PROFILE, replace(TINY, layers=3), 4, environ).result == other
    assert read_calibration(PROFILE, TINY, 8, environ) == (None, False)
    again = RESULT._replace(decode=13.0)
    write_calibration(PROFILE, TINY, 4, again, environ)
    assert read_calibration(PROFILE, TINY, 4, environ).result == again
    assert [path.name for path in calibration_file(environ).parent.iterdir()] == [
        "calibration.json"
    ]


def test_another_phone_does_not_take_it(environ: dict[str, str]) -> None:
    write_calibration(PROFILE, TINY, 4, RESULT, environ)
    for name in ("helio_g99", "snapdragon_8_gen_2", "raspberry_pi_4"):
        stored = read_calibration(read_profile(recorded(name).place), TINY, 4, environ)
        assert stored == (None, False)
    # In the background there are other cores.
    fewer = replace(PLACE, allowed_cores=lambda: range(4))
    assert read_calibration(read_profile(fewer), TINY, 4, environ).result is None


def test_the_file_stays_small(environ: dict[str, str]) -> None:
    for layers in range(1, 80):
        write_calibration(PROFILE, replace(TINY, layers=layers), 4, RESULT, environ)
    assert read_calibration(PROFILE, replace(TINY, layers=79), 4, environ).result == RESULT
    assert read_calibration(PROFILE, replace(TINY, layers=1), 4, environ).result is None


def change(**values: object) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        table = json.loads(path.read_text())
        (key,) = table["results"]
        table["results"][key] |= values
        path.write_text(json.dumps(table))

    return write


def without(field: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        table = json.loads(path.read_text())
        (key,) = table["results"]
        del table["results"][key][field]
        path.write_text(json.dumps(table))

    return write


@pytest.mark.parametrize(
    "damage",
    [
        change(threads=0),
        change(threads=9),
        change(threads=True),
        change(threads=2.0),
        change(threads="2"),
        change(threads=3),
        change(prefill_threads=-1),
        change(prefill_threads=1 << 40),
        change(cpus=None),
        change(cpus="67"),
        change(cpus=[8]),
        change(cpus=[-1]),
        change(cpus=[6, 6]),
        change(cpus=[6.0]),
        change(cpus=[[6]]),
        change(decode=0),
        change(decode=-1.0),
        change(decode="fast"),
        change(prefill=1e300),
        change(when=None),
        change(surprise=1),
        without("when"),
        without("cpus"),
        lambda path: path.write_text('{"program": 1, "results": []}'),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{"),
        lambda path: path.write_text('{"results": {}, "results": {}}'),
        lambda path: os.truncate(path, 20),
        lambda path: os.truncate(path, 0),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b" " * (1 << 20)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
)
def test_what_is_strange_is_as_if_it_were_not_there(
    environ: dict[str, str], damage: Callable[[Path], object]
) -> None:
    learn(environ)
    assert planned(environ).engine.threads == 1
    damage(calibration_file(environ))
    assert planned(environ).engine.threads == 2
    found = diagnose({"model": "demo"}, environ, PLACE)
    assert found.calibration == (None, True)
    assert any("counts as empty" in str(finding) for finding in found.findings)


def test_a_damaged_file_is_replaced(environ: dict[str, str]) -> None:
    calibration_file(environ).write_text("rubbish")
    learn(environ)
    assert planned(environ).engine.threads == 1


def test_another_version_measures_anew(environ: dict[str, str]) -> None:
    learn(environ)
    path = calibration_file(environ)
    table: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(table | {"program": "0.0.1"}))
    assert planned(environ).engine.threads == 2
    assert diagnose({"model": "demo"}, environ, PLACE).calibration == (None, False)


def test_the_plan_takes_it_unless_the_user_says_otherwise(environ: dict[str, str]) -> None:
    plain = planned(environ)
    assert (plain.engine.threads, plain.engine.prefill_threads) == (2, 8)
    assert origins(plain)["threads"][1] == "adaptive default"
    learn(environ)
    plan = planned(environ)
    engine = plan.engine
    assert (engine.threads, engine.prefill_threads, engine.cores) == (1, 5, (6, 7))
    shown = origins(plan)
    assert shown["threads"] == ("1", "calibrated")
    assert shown["prefill-threads"] == ("5", "calibrated")
    assert shown["cpus"] == ("6-7", "calibrated")
    assert shown["context"][1] == "adaptive default"

    flagged = planned(environ, threads=4)
    assert (flagged.engine.threads, flagged.engine.prefill_threads) == (4, 4)
    assert origins(flagged)["threads"] == ("4", "flag --threads")
    assert origins(flagged)["cpus"][1] == "adaptive default"
    variable = planned(environ | {"QWEN_EDGE_PREFILL_THREADS": "3"})
    assert (variable.engine.threads, variable.engine.prefill_threads) == (1, 3)
    assert origins(variable)["prefill-threads"][1] == "environment QWEN_EDGE_PREFILL_THREADS"
    # What was measured with all cores says nothing of some.
    some = planned(environ, cpus="0-3")
    assert some.engine.threads == 4
    assert "calibrated" not in {origin for _, origin in origins(some).values()}


def test_the_age_is_whole_days() -> None:
    assert age_in_days(RESULT, RESULT.when + 3.5 * 86400) == 3
    assert age_in_days(RESULT, RESULT.when - 100) == 0
