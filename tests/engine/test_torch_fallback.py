"""Compiled layers that compute something else are told of, and the eager ones serve."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path

pytest.importorskip("torch")

CONFIG = EngineConfig(context=64, kv_type="f16", threads=1, prefill_threads=1)


class Told:
    """A watcher that notes the warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def begin(self, what: str) -> None:
        """Begins are of no interest here."""

    def end(self) -> None:
        """Nor are ends."""

    def warn(self, message: str, **values: object) -> None:
        self.warned.append(message.format(**values))


def computed(mode: str, watcher: Told) -> tuple[str, bytes]:
    """How single rows were computed in the end, and the logits of one."""
    from qwen_edge.engine.torch_engine import TorchEngine

    with open_model(demo_path()) as model, TorchEngine(model, CONFIG, mode, watcher) as engine:
        engine.forward([Row(0, 0, 11, False)])
        (found,) = engine.forward([Row(0, 1, 12, True)])
        return engine.compiled, ctypes.string_at(found.address, 4 * found.size)


@pytest.mark.parametrize("factor", [1.1, 0.0, float("nan"), float("inf")])
def test_a_wrong_result_costs_one_warning(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    from qwen_edge.engine import torch_compile
    from qwen_edge.model.qwen3 import run_layers

    class Wrong:
        def __init__(self, *given: Any) -> None:
            pass

        def __call__(self, *given: Any) -> Any:
            return factor * run_layers(*given)

    monkeypatch.setattr(torch_compile, "CompiledLayers", Wrong)
    watcher, eager = Told(), Told()
    found = computed("on", watcher)
    assert found == computed("off", eager)
    assert found[0] == "off"
    assert len(watcher.warned) == 1
    assert "compiled layers are off by" in watcher.warned[0]
    assert not eager.warned
