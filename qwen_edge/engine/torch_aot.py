"""Compiling the torch engine ahead of time, by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.torch_engine import TorchEngine, load_native, short_reason
from qwen_edge.engine.watcher import Unwatched, Watcher
from qwen_edge.errors import QwenEdgeError
from qwen_edge.model.packed import PackedModel
from qwen_edge.native.build import CompilerError


def build_package(model: PackedModel, config: EngineConfig, watcher: Watcher | None = None) -> Path:
    """Compiles the package with which ``TorchEngine`` starts without tracing.

    It serves every model of these shapes, and any length of the context.

    Args:
        model: an open one.
        config: the type of its KV cache and of activations count, and the number of sequences.
        watcher: is told what takes a while.

    Returns:
        Where the package is.

    Raises:
        QwenEdgeError: the compiler failed, or the model's layers are not all alike.
    """
    watcher = watcher or Unwatched()
    try:
        load_native(watcher)
    except (CompilerError, OSError) as error:
        raise _refused("The operators for torch cannot be built ({reason}).", error) from None
    # The length is a variable of the package.
    with TorchEngine(model, replace(config, context=64), "off", watcher) as engine:
        watcher.begin("Compiling the model for torch")
        try:
            return engine.make_package()
        except QwenEdgeError:
            raise
        except Exception as error:  # a compiler may raise anything
            raise _refused("torch's compiler does not work here ({reason}).", error) from None


def _refused(sentence: str, error: Exception) -> QwenEdgeError:
    return QwenEdgeError(
        sentence,
        "It needs a C++ compiler: `pkg install clang` on Termux, `apt install g++` elsewhere.",
        reason=short_reason(error),
    )
