"""What is kept of the engines' speeds, and what ``auto`` makes of it."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.host.paths import engine_speeds_file
from qwen_edge.session import engine_setup
from qwen_edge.session.engine_speeds import read_speeds, write_speeds
from qwen_edge.session.footprint import facts_of
from qwen_edge.session.plan import Plan, make_plan
from tests.cli.running import TINY

SPEEDS = {"native": 40.0, "torch": 50.5, "torch-eager": 20.0, "torch-aot": 45.0}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}


def planned(environ: dict[str, str], **flags: object) -> Plan:
    plan = make_plan({"model": "demo", "engine": "auto", **flags}, environ)
    plan.model.close()
    return plan


def learn(environ: dict[str, str], **speeds: float) -> None:
    """Keeps speeds for the demo model's shape."""
    plan = planned(environ)
    named = {name.replace("_", "-"): speed for name, speed in speeds.items()}
    write_speeds(plan.facts.config, plan.facts.bits, named, environ)


def test_speeds_are_kept_by_shape(environ: dict[str, str]) -> None:
    assert read_speeds(TINY, 4, environ) == {}
    write_speeds(TINY, 4, SPEEDS, environ)
    other = replace(TINY, layers=3)
    write_speeds(other, 4, {"native": 1.0}, environ)
    assert read_speeds(TINY, 4, environ) == SPEEDS
    assert read_speeds(other, 4, environ) == {"native": 1.0}
    assert read_speeds(TINY, 8, environ) == {}
    write_speeds(TINY, 4, {"native": 2.0}, environ)
    assert read_speeds(TINY, 4, environ) == {"native": 2.0}
    # What does not matter for speed is no part of a shape.
    assert read_speeds(replace(TINY, rope_theta=5.0), 4, environ) == {"native": 2.0}
    with pytest.raises(ValueError, match="no way onnx"):
        write_speeds(TINY, 4, {"onnx": 1.0}, environ)


def test_the_file_stays_small(environ: dict[str, str]) -> None:
    for layers in range(1, 80):
        write_speeds(replace(TINY, layers=layers), 4, SPEEDS, environ)
    assert read_speeds(replace(TINY, layers=79), 4, environ) == SPEEDS
    assert read_speeds(replace(TINY, layers=1), 4, environ) == {}
    assert engine_speeds_file(environ).stat().st_size < 1 << 16


def changed(key: str, value: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def swap(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    "change",
    [
        changed("program", "0.0.1"),
        changed("machine", "another"),
        changed("speeds", []),
        changed("speeds", {"x": 1}),
        swap("{", "["),
        swap('"native": 40.0', '"native": 1e999'),
        lambda path: os.truncate(path, 20),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b" " * (1 << 20)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
)
def test_what_is_wrong_does_not_count(
    environ: dict[str, str], change: Callable[[Path], object]
) -> None:
    write_speeds(TINY, 4, SPEEDS, environ)
    change(engine_speeds_file(environ))
    assert read_speeds(TINY, 4, environ) == {}


@pytest.mark.parametrize("value", ["true", "-1", "0", "1e300", '"40"', "null", "[40]"])
def test_a_wrong_speed_does_not_count(environ: dict[str, str], value: str) -> None:
    write_speeds(TINY, 4, SPEEDS, environ)
    path = engine_speeds_file(environ)
    path.write_text(path.read_text().replace("50.5", value).replace("torch-aot", "torch-new"))
    assert read_speeds(TINY, 4, environ) == {"native": 40.0, "torch-eager": 20.0}


def test_a_folder_without_rights_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"QWEN_EDGE_HOME": str(tmp_path / "file" / "below")}
    write_speeds(TINY, 4, SPEEDS, environ)
    assert read_speeds(TINY, 4, environ) == {}


def test_auto_takes_the_fastest(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_setup, "_is_installed", lambda package: True)
    plan = planned(environ)
    assert plan.choice.name == "native"
    assert "nothing was measured" in str(plan.choice.reason)
    learn(environ, native=40.0, torch=50.5, torch_eager=20.0)
    plan = planned(environ)
    assert (plan.choice.name, plan.choice.compile) == ("torch", "on")
    assert str(plan.choice.reason) == (
        "auto takes torch: 50.5 tokens/s were measured here, and 40.0 with native."
    )
    # Prompts are drafted only where several rows at once are exact.
    assert plan.engine.drafts == 0
    assert planned(environ, compile="off").choice.compile == "off"
    learn(environ, native=40.0, torch=39.0)
    plan = planned(environ)
    assert plan.choice.name == "native"
    assert "the fastest here" in str(plan.choice.reason)
    # Who names an engine gets it, without a reason.
    assert planned(environ, engine="torch").choice.reason is None


def test_auto_goes_back_to_native(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    learn(environ, native=40.0, torch=50.5)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        assert planned(environ).choice.name == "native"
    monkeypatch.setattr(engine_setup, "_is_installed", lambda package: True)
    plan = planned(environ, **{"memory-cap": "100MB"})
    assert plan.choice.name == "native"
    assert "does not fit into memory" in str(plan.choice.reason)
    assert plan.facts == facts_of(plan.model)


def test_a_lying_file_changes_nothing_but_the_engine(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_setup, "_is_installed", lambda package: True)
    # Without the native engine's speed there is nothing to compare with.
    learn(environ, torch=1e5)
    assert planned(environ).choice.name == "native"
