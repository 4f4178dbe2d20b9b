"""The adapter that a model answers with: found, checked and counted before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.session.footprint import ModelFacts
from qwen_edge.session.settings import Settings

if TYPE_CHECKING:
    from qwen_edge.engine.native import NativeEngine
    from qwen_edge.model.config import ModelConfig

# What reads adapters is imported where it is used: most answers need none.


class Lora(NamedTuple):
    """An adapter that fits the model.

    Attributes:
        path: where the user said it is.
        name: for people.
        scale: a factor for its own scale.
        rank: the highest rank in it.
        memory: bytes that it will take.
        mapped: bytes of its file, which is mapped while it is loaded.
    """

    path: Path
    name: str
    scale: float
    rank: int
    memory: int
    mapped: int


def find_lora(path: Path, scale: float, config: ModelConfig) -> Lora:
    """Checks an adapter against a model; raises as ``open_adapter`` does."""
    from qwen_edge.engine.adapter import MOST_RANK, adapter_bytes
    from qwen_edge.model.adapter import open_adapter

    with open_adapter(path.expanduser(), config, MOST_RANK) as adapter:
        memory = adapter_bytes(adapter, EngineConfig().prefill_rows)
        mapped = adapter.path.stat().st_size
        return Lora(path, adapter.name, scale, adapter.rank, memory, mapped)


def wanted_lora(settings: Settings, config: ModelConfig) -> Lora | None:
    """The adapter of the settings, if there is one; raises as ``find_lora`` does."""
    path, scale = settings.get("lora"), settings.get("lora-scale")
    if not isinstance(path, str) or not isinstance(scale, float):
        return None
    return find_lora(Path(path), scale, config)


def with_lora(facts: ModelFacts, lora: Lora | None) -> ModelFacts:
    """The facts of a model with an adapter beside it."""
    return facts if lora is None else replace(facts, adapter_bytes=lora.memory)


def apply_lora(engine: NativeEngine, lora: Lora | None, config: ModelConfig) -> None:
    """Makes an engine compute with an adapter, or with none; raises as ``set_adapter`` does."""
    if lora is None:
        engine.set_adapter(None)
        return
    from qwen_edge.engine.adapter import MOST_RANK
    from qwen_edge.model.adapter import open_adapter

    with open_adapter(lora.path.expanduser(), config, MOST_RANK) as adapter:
        engine.set_adapter(adapter, lora.scale)
