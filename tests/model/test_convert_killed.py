"""Conversions that are killed leave the older file or none, and a rerun makes the whole one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.convert_kills import convert_command, digest, kill_at_random, leftovers, run
from benchmarks.convert_memory import write_checkpoint
from qwen_edge.model.synthetic import CONFIGS

KILLS = 10  # Of each method.
# A conversion takes about a second: in it much is written, and not all of it at the end.
SHAPE = replace(
    CONFIGS["qwen3-0.6b"], hidden_size=128, intermediate_size=384, layers=4, heads=2, kv_heads=1
)
TEXT = "What the inputs of the matrices are measured on, for the method that asks for them. " * 9


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, SHAPE, None)
    return folder


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_a_killed_conversion_leaves_the_old_file_or_none(
    source: Path, tmp_path: Path, method: str
) -> None:
    output = tmp_path / "model.qedge"
    calibration = tmp_path / "calibration.txt"
    calibration.write_text(TEXT)
    options = ["--method", method, "--threads", "1"]
    options += ["--calibration", str(calibration)] if method == "gptq" else []
    command = convert_command(source, output, *options)
    begin = time.monotonic()
    run(command)
    seconds, undisturbed = time.monotonic() - begin, digest(output)
    outcomes = list(kill_at_random(command, output, KILLS, seconds, seed=1))
    assert len(outcomes) == KILLS
    for outcome in outcomes:
        assert outcome.is_sound(undisturbed), outcome
        assert len(outcome.leftovers) <= 1
    # Else the kills came too late to prove anything.
    assert any(outcome.killed and outcome.leftovers for outcome in outcomes)
    assert leftovers(output) == ()
