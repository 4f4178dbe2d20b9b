from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.session.setting_table import SETTINGS
from tests.cli.running import run, tiny_model, too_long_lines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.qedge")


def test_set_show_and_unset(tmp_path: Path) -> None:
    path = tmp_path / "qe" / "config.toml"
    assert run("config", "path", home=tmp_path).stdout == f"{path}\n"
    assert run("config", "set", "context", "2048", home=tmp_path).returncode == 0
    assert run("config", "set", "memory_cap", "1GiB", home=tmp_path).returncode == 0
    assert path.read_text() == 'context = 2048\nmemory-cap = "1GiB"\n'
    for arguments in (("config",), ("config", "show")):
        shown = run(*arguments, home=tmp_path)
        assert shown.stdout.split() == ["context", "2048", "memory-cap", "1.0", "GiB"]
    assert run("config", "unset", "context", home=tmp_path).returncode == 0
    assert path.read_text() == 'memory-cap = "1GiB"\n'
    assert run("config", "unset", "context", home=tmp_path).returncode == 0


def test_negative_value_after_two_dashes(tmp_path: Path) -> None:
    result = run("config", "set", "--", "presence-penalty", "-1.5", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert run("config", "show", home=tmp_path).stdout.split() == ["presence-penalty", "-1.5"]


def test_nothing_set_says_so_on_standard_error(tmp_path: Path) -> None:
    result = run("config", home=tmp_path)
    assert (result.returncode, result.stdout) == (0, "")
    assert "Nothing is set" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("set", "contxt", "1"), "context"),
        (("set", "context", "1"), "64"),
        (("set", "kv", "int2"), "f16, int8"),
        (("set", "context"), "VALUE"),
        (("unset", "nothing"), "no setting nothing"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_mistakes_are_usage_errors(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    result = run("config", *arguments, home=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert complaint in result.stderr
    assert not (tmp_path / "qe").exists()


def test_explain_shows_every_origin(tmp_path: Path, model: Path) -> None:
    run("config", "set", "model", str(model), home=tmp_path)
    run("config", "set", "threads", "1", home=tmp_path)
    result = run("config", "show", "--explain", home=tmp_path, QWEN_EDGE_SEED="5")
    assert result.returncode == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line[0] != " "}
    assert set(lines) == set(SETTINGS)
    assert "file" in lines["threads"]
    assert "environment QWEN_EDGE_SEED" in lines["seed"]
    assert "adaptive default" in lines["context"]
    assert lines["memory-cap"].endswith("(default)")


def test_environment_that_means_nothing_is_warned_of(tmp_path: Path) -> None:
    result = run("config", "show", home=tmp_path, QWEN_EDGE_CONTXT="1")
    assert result.returncode == 0
    assert "QWEN_EDGE_CONTXT" in result.stderr


def test_broken_file_is_a_usage_error_and_can_be_mended(tmp_path: Path) -> None:
    (tmp_path / "qe").mkdir()
    (tmp_path / "qe" / "config.toml").write_text("context = = 1")
    result = run("config", "show", home=tmp_path)
    assert result.returncode == 2
    assert "config.toml" in result.stderr
    (tmp_path / "qe" / "config.toml").write_text("nonsense = 1\n")
    assert run("config", "show", home=tmp_path).returncode == 2


def test_keys_at_forty_columns(tmp_path: Path) -> None:
    result = run("config", "keys", home=tmp_path, COLUMNS="40")
    assert result.returncode == 0
    assert too_long_lines(result.stdout, 40) == []
    assert all(key in result.stdout for key in SETTINGS)
