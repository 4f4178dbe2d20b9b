"""``qwen-edge doctor --calibrate``: over pipes, at a narrow terminal, interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from qwen_edge.host.place import Place
from qwen_edge.session.profile import read_profile
from tests.cli.program import terminal
from tests.cli.running import run, too_long_lines

CALIBRATE = ("doctor", "--calibrate", "-m", "demo")


def stored(home: Path) -> Path:
    return home / "qe" / "calibration.json"


def measured(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    result = run(*CALIBRATE, home=home, **variables)
    assert result.returncode == 0, result.stderr
    return result


def test_it_measures_stores_and_tells(tmp_path: Path) -> None:
    start = time.monotonic()
    result = measured(tmp_path)
    assert time.monotonic() - start < 40
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    answers, prompts = result.stdout.split("Prompts")
    assert answers.startswith("demo\n")
    assert "Tokens/s  GB/s" in answers
    winners = [line for part in (answers, prompts) for line in part.splitlines() if line[:1] == "*"]
    assert len(winners) == 3, "a winner in each table, and what the star means"

    (raw,) = json.loads(stored(tmp_path).read_text())["results"].values()
    cores = read_profile(Place()).cores
    assert 1 <= raw["threads"] <= cores
    assert winners[0].split()[2] == str(raw["threads"])
    assert winners[1].split()[1] == str(raw["prefill_threads"])

    table = json.loads(run("doctor", "--json", "-m", "demo", home=tmp_path).stdout)
    assert table["calibration"] == raw
    origins = {line["key"]: (line["value"], line["origin"]) for line in table["settings"]}
    assert origins["threads"] == (str(raw["threads"]), "calibrated")
    shown = run("doctor", "-m", "demo", home=tmp_path).stdout
    assert "\nCalibrated  threads: " in shown
    assert "0 days old" in shown.replace("\n            ", " ")

    explained = run(
        "run", "-m", "demo", "--explain", "--threads", "1", "-n", "2", "Hi", home=tmp_path
    )
    assert "threads             1 (flag --threads)" in explained.stderr


def test_doctor_says_that_nothing_was_measured(tmp_path: Path) -> None:
    shown = run("doctor", "-m", "demo", home=tmp_path).stdout
    assert "Calibrated  no; `qwen-edge doctor --calibrate` takes half a minute" in shown


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_fits_a_narrow_terminal(tmp_path: Path, language: str) -> None:
    with terminal(
        tmp_path, *CALIBRATE, columns=40, QWEN_EDGE_LANG=language, NO_COLOR="1"
    ) as opened:
        assert opened.finish(60) == 0
    tail = opened.screen[opened.screen.rfind("demo") :]
    assert too_long_lines(tail, 40) == []
    assert ("Threads" in tail) == (language == "en")


def test_what_the_user_set_goes_first_and_is_told(tmp_path: Path) -> None:
    result = measured(tmp_path, QWEN_EDGE_THREADS="1")
    assert "threads is set (environment QWEN_EDGE_THREADS), which goes before this" in result.stderr


def test_ctrl_c_leaves_what_was_stored(tmp_path: Path) -> None:
    measured(tmp_path)
    before = stored(tmp_path).read_bytes()
    with terminal(tmp_path / "qe", *CALIBRATE, QWEN_EDGE_ISA="scalar") as opened:
        opened.wait_for("Measuring")
        opened.press_ctrl_c()
        assert opened.finish(60) == 130
    assert stored(tmp_path).read_bytes() == before
    assert os.listdir(tmp_path / "qe") == ["calibration.json"]


def test_damage_is_told_and_mended(tmp_path: Path) -> None:
    stored(tmp_path).parent.mkdir()
    stored(tmp_path).write_text("{")
    shown = run("doctor", "-m", "demo", home=tmp_path).stdout
    assert "counts as empty" in shown.replace("\n", " ")
    measured(tmp_path)
    assert "counts as empty" not in run("doctor", "-m", "demo", home=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--json"], "--calibrate goes with --model alone."),
        (["--clear-cache"], "--clear-cache goes alone."),
        (["--report", "-"], "--calibrate goes with --model alone."),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = run(*CALIBRATE, *arguments, home=tmp_path)
    assert result.returncode == 2
    assert sentence in result.stderr


def test_other_engines_are_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    result = run(*CALIBRATE, home=tmp_path, QWEN_EDGE_ENGINE="torch")
    assert result.returncode == 2
    assert "Only the native engine is calibrated, not torch." in result.stderr
    assert not stored(tmp_path).exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    stored(tmp_path).mkdir(parents=True)
    result = run(*CALIBRATE, home=tmp_path)
    assert result.returncode == 1
    assert "calibration.json is a folder" in result.stderr
    (tmp_path / "file").write_text("")
    result = run(*CALIBRATE, home=tmp_path, QWEN_EDGE_HOME="", XDG_DATA_HOME=str(tmp_path / "file"))
    assert result.returncode == 1
    assert str(tmp_path / "file") in result.stderr
