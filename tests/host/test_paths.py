from __future__ import annotations

from pathlib import Path

from qwen_edge.host.paths import config_file, data_folder, models_folder


def test_home_variable_holds_everything() -> None:
    environ = {"QWEN_EDGE_HOME": "/x", "XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d", "HOME": "/h"}
    assert config_file(environ) == Path("/x/config.toml")
    assert models_folder(environ) == Path("/x/models")
    assert data_folder(environ) == Path("/x")


def test_xdg_folders() -> None:
    environ = {"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d", "HOME": "/h"}
    assert config_file(environ) == Path("/c/qwen-edge/config.toml")
    assert models_folder(environ) == Path("/d/qwen-edge/models")


def test_defaults_and_relative_xdg() -> None:
    for environ in ({"HOME": "/h"}, {"HOME": "/h", "XDG_DATA_HOME": "rel", "QWEN_EDGE_HOME": ""}):
        assert config_file(environ) == Path("/h/.config/qwen-edge/config.toml")
        assert models_folder(environ) == Path("/h/.local/share/qwen-edge/models")


def test_relative_home_is_made_absolute() -> None:
    assert models_folder({"QWEN_EDGE_HOME": "here"}).is_absolute()
