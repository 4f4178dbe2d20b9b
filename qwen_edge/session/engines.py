"""The one place that knows which class an engine's name means."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import TYPE_CHECKING

from qwen_edge.engine.interface import Engine, PrefixEngine
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import QwenEdgeError
from qwen_edge.model.packed import PackedModel
from qwen_edge.session.engine_choice import NATIVE, TORCH, TRANSFORMERS, EngineChoice
from qwen_edge.session.plan import Plan, no_adapters

if TYPE_CHECKING:
    from qwen_edge.engine.watcher import Watcher

# Imported where they are wanted only: they take seconds.
_MODULES = {
    TORCH: "qwen_edge.engine.torch_engine",
    TRANSFORMERS: "qwen_edge.engine.transformers_engine",
}
_LOADING = {TORCH: "Loading torch", TRANSFORMERS: "Loading torch and transformers"}


def load_packages(choice: EngineChoice, watcher: Watcher | None = None) -> None:
    """Imports what an engine needs; before a memory cap is set, since it maps large libraries.

    Args:
        choice: the engine.
        watcher: is told of it.

    Raises:
        QwenEdgeError: a package is installed and does not load.
    """
    if choice.name not in _MODULES:
        return
    # A model is a folder on this device: nothing here has a reason to ask the network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if watcher is not None:
        watcher.begin(_LOADING[choice.name])
    try:
        # A torch without numpy warns of it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(_MODULES[choice.name])
        if "bitsandbytes" in choice.packages:
            from qwen_edge.engine.transformers_engine import load_quietly

            load_quietly()
    except (ImportError, OSError) as error:
        raise QwenEdgeError(
            "The engine {engine} does not load: {reason}.",
            "Install its packages again, or use --engine native.",
            engine=choice.name,
            reason=str(error).partition("\n")[0].rstrip("."),
        ) from None
    finally:
        if watcher is not None:
            watcher.end()


def create_engine(plan: Plan, watcher: Watcher | None = None) -> Engine:
    """Sets the engine of a plan up.

    Args:
        plan: its model stays open as long as the engine lives.
        watcher: is told of compilations, and of what does not work.

    Raises:
        DamagedModelError: the tensors do not make a model.
        MemoryLimitError: memory could not be had.
        UsageError: a setting is out of range.
        QwenEdgeError: the engine's packages do not load.
    """
    choice, model = plan.choice, plan.model
    load_packages(choice, watcher)
    if not isinstance(model, PackedModel):
        from qwen_edge.engine.transformers_engine import TransformersEngine

        # It goes without its cache in a way of its own.
        return TransformersEngine(
            model, plan.engine, choice.weights, double_quant=choice.double_quant
        )
    if choice.name == NATIVE:
        return _as_configured(NativeEngine(model, plan.engine))
    from qwen_edge.engine.torch_engine import TorchEngine

    try:
        return _as_configured(TorchEngine(model, plan.engine, choice.compile, watcher))
    finally:
        if watcher is not None:
            watcher.end()


def _as_configured(engine: Engine) -> Engine:
    """The engine with its cache or without it."""
    if engine.config.keep_cache:
        return engine
    from qwen_edge.engine.uncached import Uncached

    return Uncached(engine)


def adaptable(engine: Engine, choice: EngineChoice) -> NativeEngine:
    """The engine as the one that answers with adapters.

    Raises:
        UsageError: it cannot.
    """
    if not engine.config.keep_cache:
        from qwen_edge.engine.uncached import Uncached

        engine = engine.engine if isinstance(engine, Uncached) else engine
    if not isinstance(engine, NativeEngine):
        raise no_adapters(choice)
    return engine


def prefixes(engine: Engine) -> PrefixEngine | None:
    """The engine as one that keeps computed prompts on disk; None if it does not."""
    return engine if isinstance(engine, PrefixEngine) else None
