"""The choice of an engine, and what follows from it for the rest of a run."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.uncached import Uncached
from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.host.place import Place
from qwen_edge.session.engine_setup import choose_engine
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.plan import make_plan
from qwen_edge.session.settings import Settings

TERMUX = {"TERMUX_VERSION": "0.118.3", "PREFIX": "/data/data/com.termux/files/usr"}


def settings(**values: object) -> Settings:
    return Settings.load(values, {}, Path("/nowhere/config.toml"))


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({}, 'pip install "qwen-edge[torch]"'),
        (TERMUX, "pkg install python-torch"),
        (TERMUX | {"PROOT_TMP_DIR": "/x"}, 'pip install "qwen-edge[torch]"'),
    ],
)
def test_a_missing_package_is_told_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], way: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QwenEdgeError, match="needs the package torch") as caught:
        choose_engine(settings(engine="torch"), Place(proc=tmp_path, environ=environ))
    assert way in caught.value.hint
    assert caught.value.exit_code == 1
    # The native engine needs none.
    assert choose_engine(settings()).name == "native"


def test_the_cache_can_be_left_out(tmp_path: Path) -> None:
    plan = make_plan({"model": "demo", "kv-cache": False, "lookup": "auto"})
    assert not plan.engine.keep_cache
    assert (plan.engine.drafts, plan.runtime.lookup) == (0, "off")
    with LoadedModel(plan) as loaded:
        assert isinstance(loaded.engine, Uncached)
        assert loaded.chat.prompts is None
        assert loaded.set_lora(None) is None
    with pytest.raises(UsageError, match="exclude each other"):
        LoadedModel(make_plan({"model": "demo", "kv-cache": False}), tmp_path / "prompt")
    assert not (tmp_path / "prompt").exists()


def test_the_native_engine_is_the_default() -> None:
    with LoadedModel(make_plan({"model": "demo"})) as loaded:
        assert isinstance(loaded.engine, NativeEngine)
        assert loaded.chat.prompts is not None
        assert loaded.plan.engine == replace(loaded.plan.engine, keep_cache=True)
