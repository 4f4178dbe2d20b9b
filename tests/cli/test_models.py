from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.program import terminal
from tests.cli.running import run, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.qedge")


def store(home: Path, model: Path, name: str) -> Path:
    path = home / "qe" / "models" / f"{name}.qedge"
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(model, path)
    return path


def test_list_shows_sound_and_damaged_models(tmp_path: Path, model: Path) -> None:
    path = store(tmp_path, model, "Tiny")
    path.with_name("broken.qedge").write_bytes(b"x" * 3000)
    result = run("models", "list", home=tmp_path)
    assert result.returncode == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "4 bits" in rows["Tiny"]
    assert "damaged" in rows["broken"]
    assert run("models", home=tmp_path).stdout == result.stdout
    table = {row["name"]: row for row in json.loads(
        run("models", "list", "--json", home=tmp_path).stdout
    )}  # fmt: skip
    assert table["Tiny"]["bytes"] == model.stat().st_size
    assert (table["Tiny"]["usable"], table["broken"]["usable"]) == (True, False)


def test_info(tmp_path: Path, model: Path) -> None:
    store(tmp_path, model, "Tiny")
    shown = run("models", "info", "tiny", home=tmp_path, COLUMNS="40")
    assert shown.returncode == 0
    assert "vocabulary  151936\n" in shown.stdout
    table = json.loads(run("models", "info", model, "--json", home=tmp_path).stdout)
    assert (table["layers"], table["heads"], table["kv heads"]) == (2, 4, 2)
    assert table["bytes by type"]["q4"] > 0
    assert table["quantization"]["bits"] == 4


@pytest.mark.parametrize(("name", "code"), [("zzz", 3), ("./zzz.qedge", 3), ("broken", 5)])
def test_info_of_what_cannot_be_shown(tmp_path: Path, model: Path, name: str, code: int) -> None:
    store(tmp_path, model, "Tiny").with_name("broken.qedge").write_bytes(b"x" * 3000)
    result = run("models", "info", name, home=tmp_path)
    assert result.returncode == code
    assert result.stdout == ""
    assert "hint:" in result.stderr


def test_remove_without_a_terminal_needs_yes(tmp_path: Path, model: Path) -> None:
    path = store(tmp_path, model, "Tiny")
    refused = run("models", "rm", "Tiny", home=tmp_path, stdin="y\n")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert path.exists()
    assert run("models", "rm", "Tiny", "--yes", home=tmp_path).returncode == 0
    assert not path.exists()
    assert run("models", "rm", "Tiny", "--yes", home=tmp_path).returncode == 3


def test_remove_asks_in_a_terminal(tmp_path: Path, model: Path) -> None:
    path = store(tmp_path, model, "Tiny")
    for answer, code in (("n", 130), ("y", 0)):
        with terminal(tmp_path / "qe", "models", "rm", "Tiny", columns=40) as opened:
            opened.wait_for("Delete Tiny")
            opened.send(f"{answer}\n")
            assert opened.finish() == code
        assert path.exists() == (code != 0)


def test_remove_touches_nothing_outside_the_store(tmp_path: Path, model: Path) -> None:
    store(tmp_path, model, "Tiny")
    outside = tmp_path / "qe" / "outside.qedge"
    outside.write_bytes(b"x")
    for name in ("../outside", str(outside), "demo", "tin"):
        result = run("models", "rm", "--yes", name, home=tmp_path)
        assert result.returncode in (2, 3)
    assert outside.exists()


def test_synthetic_sizes_are_checked(tmp_path: Path) -> None:
    result = run("models", "make-synthetic", "qwen9", "-o", tmp_path / "x.qedge", home=tmp_path)
    assert result.returncode == 2
    assert "qwen3-0.6b" in result.stderr
    bad = run("models", "make-synthetic", "qwen3-0.6b", "--bits", "5", home=tmp_path)
    assert bad.returncode == 2
    assert list((tmp_path / "qe" / "models").glob("*")) == []
